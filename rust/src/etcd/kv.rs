//! The KV service: ranges over what is published, writes and transactions over what is applied.
//!
//! A range sees published state, which is durable, and is answered at once. A transaction sees everything that was applied before
//! it, some of which may not be durable yet; so its answer waits for the newest revision that it could have seen, even if it wrote
//! nothing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::answer::{
    self, Answer, DeleteAnswer, OpAnswer, PutAnswer, RangeAnswer, TxnAnswer, nested_len, put_nested,
};
use super::calls::{End, Ended, Out, PIECE, Reply};
use super::compare;
use super::framing::{self, put_prefix};
use super::server::Server;
use super::status::{self, Result, Status};
use super::wire::request_op::Request;
use super::wire::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    SortOrder, SortTarget, TxnRequest,
};
use super::{checks, framing::decode};
use crate::store::{Page, Revision, Span, Store, StoreError, Txn, lock};

/// What a range reads: published state, or a transaction's.
trait View {
    fn span(&self, key: &[u8], end: &[u8], limit: usize, revision: u64) -> Result<Page>;
    /// How many keys there are, and the revision they were counted at.
    fn count(&self, key: &[u8], end: &[u8], revision: u64) -> Result<(usize, u64)>;
    fn newest(&self) -> u64;
}

impl View for Store {
    fn span(&self, key: &[u8], end: &[u8], limit: usize, revision: u64) -> Result<Page> {
        Ok(Store::span(self, &Span::new(key, end), limit, revision)?)
    }

    fn count(&self, key: &[u8], end: &[u8], revision: u64) -> Result<(usize, u64)> {
        Ok(Store::count(self, &Span::new(key, end), revision)?)
    }

    fn newest(&self) -> u64 {
        self.revision()
    }
}

impl View for Txn<'_> {
    fn span(&self, key: &[u8], end: &[u8], limit: usize, revision: u64) -> Result<Page> {
        Ok(Txn::span(self, key, end, limit, revision)?)
    }

    fn count(&self, key: &[u8], end: &[u8], revision: u64) -> Result<(usize, u64)> {
        let count = Txn::count(self, key, end, revision)?;
        Ok((count, self.revision()))
    }

    fn newest(&self) -> u64 {
        self.revision()
    }
}

pub(super) fn range(server: &Arc<Server>, request: &RangeRequest) -> Result<Reply> {
    checks::range(request)?;
    let answer = read(&**server.store(), request)?;
    // What was read is published already.
    Reply::range(0, answer, &server.identity())
}

pub(super) fn put(server: &Arc<Server>, request: &PutRequest) -> Result<Reply> {
    checks::put(request)?;
    let (revision, answer) = transact(server, |txn| {
        // Alone, a put is refused for its lease first; within a transaction for its key.
        txn.require_lease(request.lease)?;
        put_in(txn, request)
    })?;
    let answer = answer::framed(&answer, &server.identity())?;
    Ok(Reply::After(revision, answer))
}

pub(super) fn delete(server: &Arc<Server>, request: &DeleteRangeRequest) -> Result<Reply> {
    checks::delete(request)?;
    let (revision, answer) = transact(server, |txn| delete_in(txn, request))?;
    let answer = answer::framed(&answer, &server.identity())?;
    Ok(Reply::After(revision, answer))
}

pub(super) fn txn(server: &Arc<Server>, request: &TxnRequest) -> Result<Reply> {
    checks::txn(request)?;
    let (revision, answer) = transact(server, |txn| {
        // Every comparison, nested ones too, is made before anything is written.
        let path = compare::path(txn, request);
        check(txn, request, &path)?;
        execute(txn, request, &mut path.into_iter())
    })?;
    let answer = answer::framed(&answer, &server.identity())?;
    Ok(Reply::After(revision, answer))
}

pub(super) fn compact(server: &Arc<Server>, request: CompactionRequest) -> Result<Reply> {
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        let compacted = server.blocking(move |server| {
            let _one_at_a_time = lock(&server.compacting);
            let store = server.store();
            if request.revision <= store.compacted() as i64 {
                return Err(status::COMPACTED);
            }
            store.compact(request.revision as u64)?;
            Ok(store.revision())
        });
        let revision = compacted.await?;
        server.until_flushed().await?;
        framing::framed(&CompactionResponse {
            header: server.header(revision),
        })
    })))
}

/// Run `body` alone; return what it made, and the revision that must be published before anybody hears of it. A refusal takes
/// everything back.
fn transact<T>(server: &Server, body: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<(u64, T)> {
    let mut refusal = None;
    let transacted = server.store().transact(|txn| {
        body(txn).map_err(|status| {
            refusal = Some(status);
            StoreError::Invalid(String::new())
        })
    });
    match transacted {
        Ok(done) => Ok((done.revision, done.value)),
        Err(error) => Err(refusal.unwrap_or_else(|| Status::from(error))),
    }
}

/// Refuse what the operations on `path` ask for in vain: all puts are looked at first and then all ranges, as etcd does.
fn check(txn: &Txn<'_>, request: &TxnRequest, path: &[bool]) -> Result<()> {
    let mut ops = Vec::new();
    add_ops(request, &mut path.iter().copied(), &mut ops);
    for op in &ops {
        if let Request::Put(request) = op {
            let needs_key = request.ignore_value || request.ignore_lease;
            if needs_key && txn.get(&request.key).is_none() {
                return Err(status::KEY_NOT_FOUND);
            }
            txn.require_lease(request.lease)?;
        }
    }
    for op in &ops {
        if let Request::Range(request) = op {
            let revision = u64::try_from(request.revision).unwrap_or_default();
            txn.require_readable(revision)?;
        }
    }
    Ok(())
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &request.success
    } else {
        &request.failure
    }
}

/// The operations on `path`, those of nested transactions among them.
fn add_ops<'a>(
    request: &'a TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    ops: &mut Vec<&'a Request>,
) {
    for op in branch(request, path.next().unwrap_or_default()) {
        match &op.request {
            Some(Request::Txn(nested)) => add_ops(nested, path, ops),
            Some(other) => ops.push(other),
            None => {}
        }
    }
}

/// Carry out the branch of `request` that the next step of `path` names.
fn execute(
    txn: &mut Txn<'_>,
    request: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<TxnAnswer> {
    let succeeded = path.next().unwrap_or_default();
    let ops = branch(request, succeeded);
    let mut answers = Vec::with_capacity(ops.len());
    for RequestOp { request } in ops {
        answers.push(match request {
            Some(Request::Range(request)) => OpAnswer::Range(read(&*txn, request)?),
            Some(Request::Put(request)) => OpAnswer::Put(put_in(txn, request)?),
            Some(Request::DeleteRange(request)) => OpAnswer::Delete(delete_in(txn, request)?),
            Some(Request::Txn(request)) => OpAnswer::Txn(TxnAnswer {
                // As with etcd, only the whole transaction says at which revision it was carried out.
                revision: 0,
                ..execute(txn, request, path)?
            }),
            None => return Err(status::KEY_NOT_FOUND),
        });
    }
    Ok(TxnAnswer {
        revision: txn.revision(),
        succeeded,
        answers,
    })
}

fn put_in(txn: &mut Txn<'_>, request: &PutRequest) -> Result<PutAnswer> {
    let kept = if request.ignore_value || request.ignore_lease {
        Some(txn.get(&request.key).ok_or(status::KEY_NOT_FOUND)?)
    } else {
        None
    };
    let value = match &kept {
        Some(kept) if request.ignore_value => kept.value(),
        _ => &request.value,
    };
    let lease = match &kept {
        Some(kept) if request.ignore_lease => kept.lease,
        _ => request.lease,
    };
    let previous = txn.put(&request.key, value, lease)?;
    Ok(PutAnswer {
        revision: txn.revision(),
        previous: previous.filter(|_| request.prev_kv),
    })
}

fn delete_in(txn: &mut Txn<'_>, request: &DeleteRangeRequest) -> Result<DeleteAnswer> {
    let previous = if request.range_end.is_empty() {
        txn.delete(&request.key)?.into_iter().collect()
    } else {
        txn.delete_span(&request.key, &request.range_end)?
    };
    Ok(DeleteAnswer {
        revision: txn.revision(),
        deleted: previous.len() as u64,
        previous: if request.prev_kv {
            previous
        } else {
            Vec::new()
        },
    })
}

fn read(view: &impl View, request: &RangeRequest) -> Result<RangeAnswer> {
    let pinned = u64::try_from(request.revision).unwrap_or_default();
    // The header of a read in the past shows the present.
    let present = if pinned == 0 { 0 } else { view.newest() };
    let limit = usize::try_from(request.limit).unwrap_or_default();
    if request.count_only {
        let (count, revision) = view.count(&request.key, &request.range_end, pinned)?;
        return Ok(RangeAnswer {
            revision: present.max(revision),
            count: count as u64,
            ..RangeAnswer::default()
        });
    }
    let is_plain = request.sort_order == SortOrder::None as i32 && !has_bounds(request);
    // As with etcd, a target without an order sorts what the limit lets through and one more.
    let fetched = match limit {
        0 => 0,
        _ if !is_plain => 0,
        _ => limit + usize::from(request.sort_target() != SortTarget::Key),
    };
    let page = view.span(&request.key, &request.range_end, fetched, pinned)?;
    let remaining = u64::try_from(page.remaining).unwrap_or_default();
    let mut answer = RangeAnswer {
        revision: present.max(page.revision),
        keys_only: request.keys_only,
        more: page.next.is_some(),
        count: page.items.len() as u64 + remaining,
        items: page.items,
    };
    if !is_plain {
        answer.items.retain(|item| is_within(request, item));
    }
    sort(&mut answer.items, request);
    if limit > 0 && answer.items.len() > limit {
        answer.items.truncate(limit);
        answer.more = true;
    }
    Ok(answer)
}

fn has_bounds(request: &RangeRequest) -> bool {
    [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]
    .iter()
    .any(|bound| *bound != 0)
}

fn is_within(request: &RangeRequest, item: &Revision) -> bool {
    let within = |revision: u64, min: i64, max: i64| {
        (min == 0 || revision as i64 >= min) && (max == 0 || revision as i64 <= max)
    };
    within(
        item.modified,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        item.created,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Items come in ascending order of keys. A target other than the key asks for ascending order even where none is named.
fn sort(items: &mut [Arc<Revision>], request: &RangeRequest) {
    let (target, is_descending) = (
        request.sort_target(),
        request.sort_order() == SortOrder::Descend,
    );
    if target == SortTarget::Key {
        // They come in the order of their keys.
        if is_descending {
            items.reverse();
        }
        return;
    }
    // What is equal stays in the order of keys, whichever way.
    items.sort_by(|one, other| {
        let order = match target {
            SortTarget::Version => one.version.cmp(&other.version),
            SortTarget::Create => one.created.cmp(&other.created),
            SortTarget::Value => one.value().cmp(other.value()),
            SortTarget::Mod | SortTarget::Key => one.modified.cmp(&other.modified),
        };
        if is_descending {
            order.reverse()
        } else {
            order
        }
    });
}

/// A range whose answer is a stream of parts: the client can use the first before the last is made.
pub(super) struct RangeStream(RangeAnswer);

impl RangeStream {
    pub(super) fn begin(server: &Server, message: Bytes) -> Result<Self> {
        let request: RangeRequest = decode(message)?;
        checks::range(&request)?;
        Ok(RangeStream(read(&**server.store(), &request)?))
    }

    pub(super) async fn send(self, mut out: Out, server: Arc<Server>) -> (Out, Ended) {
        let ended = self.send_parts(&mut out, &server).await;
        (out, ended)
    }

    /// Header, more and count stand in the last part, as etcd has it.
    async fn send_parts(&self, out: &mut Out, server: &Server) -> std::result::Result<(), End> {
        let RangeStream(answer) = self;
        let mut rest = answer.items.as_slice();
        loop {
            let mut length = 0;
            let mut count = 0;
            for item in rest {
                length += answer.item_len(item);
                count += 1;
                if length >= PIECE {
                    break;
                }
            }
            let (part, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = behind;
            let tail = RangeAnswer {
                items: Vec::new(),
                ..*answer
            };
            let identity = server.identity();
            if rest.is_empty() {
                length += tail.len(Some(&identity));
            }
            let mut piece = BytesMut::with_capacity(length + 16);
            put_prefix(&mut piece, nested_len(length))?;
            put_nested(&mut piece, 1, length);
            for item in part {
                answer.put_item(&mut piece, item);
            }
            if rest.is_empty() {
                tail.put(&mut piece, Some(&identity));
            }
            out.send(piece.freeze()).await?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}
