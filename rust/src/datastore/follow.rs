//! Keeping the mirror: read everything at one revision, then watch from the next one on, for ever.
//!
//! The watch covers the whole key space, not only our keys: then every revision of the cluster arrives here as an event, and "the
//! mirror has seen revision R" needs no question to the server. (etcd's progress answers, the other way to know, could run ahead of
//! events before 3.4.31 and 3.5.13.) A cluster that serves others too costs their traffic and no more; their keys are skipped.
//!
//! When the connection breaks the watch goes on at another member from the revision after the last one seen, so nothing is missed or
//! seen twice. Only when that revision has been compacted meanwhile is everything read again; watches of our clients then end,
//! as kube-apiserver's do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::endpoints::Member;
use super::failure::Failure;
use super::shared::{Figures, Shared};
use super::value;
use crate::etcd::wire::{
    Event, EventType, KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, path, watch_request,
};
use crate::store::mirror::{Foreign, ForeignBody};

/// Keys of one page when everything is read.
const PAGE: i64 = 1000;
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Follow the cluster until the task is aborted.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut position = 0;
    let mut pause = PAUSE_MIN;
    let mut must_list = true;
    loop {
        let member = shared.endpoints.at(position);
        let before = *shared.seen.borrow();
        let end = follow_one(&shared, member, &mut must_list).await;
        shared.set_problem(&format!("{}: {}", member.url, end.words()));
        Figures::count(&shared.figures.reconnects);
        position += 1;
        if *shared.seen.borrow() != before {
            pause = PAUSE_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Follow one member until that fails.
async fn follow_one(shared: &Shared, member: &Member, must_list: &mut bool) -> Failure {
    let passing = |words: &str| Failure::Passing {
        words: words.into(),
        is_ambiguous: false,
    };
    if *must_list {
        if let Err(failure) = list(shared, member).await {
            return failure;
        }
        *must_list = false;
    }
    let opened = tokio::time::timeout(OPEN_TIMEOUT, open(member, shared.store.revision() + 1));
    let mut stream = match opened.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(failure)) => return failure,
        Err(_) => return Failure::silence(&member.url),
    };
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = shared.relist.notified() => {
                *must_list = true;
                return passing("its revisions have gone back, as after a restore");
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return passing("the watch ended"),
            Err(status) => return status.into(),
        };
        if response.canceled {
            *must_list = response.compact_revision > 0;
            return passing(match response.compact_revision {
                0 => response.cancel_reason.as_str(),
                _ => "what happened meanwhile has been compacted",
            });
        }
        if response.created {
            if let Err(failure) = check(shared, member).await {
                *must_list = matches!(&failure, Failure::Final(_));
                return failure;
            }
            shared.set_problem("");
        }
        if let Err(words) = apply(shared, &response) {
            *must_list = true;
            return passing(&words);
        }
    }
}

/// Fails with Final unless the cluster still knows the revision at which the mirror stands. A watch that starts right at the compacted
/// revision is not refused, but before etcd 3.5.18 it is not told of keys deleted there; and one that starts in the future, after
/// a restore, just waits.
async fn check(shared: &Shared, member: &Member) -> Result<(), Failure> {
    let request = RangeRequest {
        key: super::compact::KEY.into(),
        revision: shared.store.revision() as i64,
        keys_only: true,
        ..RangeRequest::default()
    };
    let mut client = member.client.clone();
    let call = client.unary::<_, RangeResponse>(path::RANGE, request);
    match tokio::time::timeout(OPEN_TIMEOUT, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Failure::silence(&member.url)),
    }
}

/// Read everything at the member's newest agreed revision.
async fn list(shared: &Shared, member: &Member) -> Result<(), Failure> {
    let mut client = member.client.clone();
    let (mut from, end) = shared.names.range();
    let mut revision = 0;
    let mut found: Vec<KeyValue> = Vec::new();
    loop {
        let request = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: PAGE,
            revision,
            ..RangeRequest::default()
        };
        let call = client.unary::<_, RangeResponse>(path::RANGE, request);
        let page = match tokio::time::timeout(LIST_TIMEOUT, call).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Failure::silence(&member.url)),
        };
        if revision == 0 {
            revision = page.header.map_or(0, |header| header.revision);
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            found.extend(page.kvs);
            break;
        };
        from = [&last.key[..], &[0]].concat().into();
        found.extend(page.kvs);
    }
    fill(shared, &found, revision as u64);
    Ok(())
}

/// Put what was read in place of what the mirror holds.
fn fill(shared: &Shared, found: &[KeyValue], revision: u64) {
    let keys: Vec<Option<Bytes>> = found.iter().map(|kv| shared.names.inner(&kv.key)).collect();
    let items = found
        .iter()
        .zip(&keys)
        .filter_map(|(kv, key)| foreign(shared, key.as_ref()?, kv));
    let is_first = *shared.seen.borrow() == 0;
    let woken = shared.store.mirror_from(items, revision);
    shared.mailbox.wake(woken);
    shared.seen.send_replace(revision);
    shared.name_revision(revision);
    if !is_first {
        Figures::count(&shared.figures.relists);
        shared.mailbox.note(format!(
            "everything was read again from the etcd cluster at revision {revision}; watches ended"
        ));
    }
}

async fn open(member: &Member, revision: u64) -> Result<Streaming<WatchResponse>, Failure> {
    let everything = Bytes::from_static(&[0]);
    let create = WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        start_revision: revision as i64,
        ..WatchCreateRequest::default()
    };
    let first = WatchRequest {
        request_union: Some(watch_request::RequestUnion::Create(create)),
    };
    let mut request = Request::new(One(Some(first)));
    // A member that has lost its leader ends the watch, instead of leaving it silent.
    let yes = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", yes);
    let mut grpc = Grpc::new(member.channel.clone()).max_decoding_message_size(i32::MAX as usize);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(format!("the channel is not ready: {error}")))?;
    let path = PathAndQuery::from_static(path::WATCH);
    let answers = grpc.streaming(request, path, ProstCodec::default()).await?;
    Ok(answers.into_inner())
}

/// A stream of one item that does not end: the watch is over when its questions are.
struct One(Option<WatchRequest>);

impl Stream for One {
    type Item = WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<WatchRequest>> {
        match self.0.take() {
            Some(request) => Poll::Ready(Some(request)),
            None => Poll::Pending,
        }
    }
}

/// Apply the events of one answer, which holds revisions whole and in order.
fn apply(shared: &Shared, response: &WatchResponse) -> Result<(), String> {
    let mut keys = Vec::with_capacity(response.events.len());
    let mut last = 0;
    for event in &response.events {
        let Some(kv) = &event.kv else { continue };
        last = last.max(kv.mod_revision as u64);
        keys.extend(shared.names.inner(&kv.key).map(|key| (key, event, kv)));
    }
    if last == 0 {
        return Ok(());
    }
    resolve(shared, &keys);
    let writes = keys
        .iter()
        .map(|(key, event, kv)| {
            let put = match event.r#type() {
                EventType::Put => foreign(shared, key, kv),
                EventType::Delete => None,
            };
            put.unwrap_or(gone(key, kv))
        })
        .collect();
    let woken = shared
        .store
        .mirror(writes, last)
        .map_err(|error| error.to_string())?;
    shared.mailbox.wake(woken);
    shared.name_revision(last);
    shared.seen.send_replace(shared.store.revision());
    Ok(())
}

/// Tell those who wait for a deletion whose answer was lost what these events say of it.
fn resolve(shared: &Shared, events: &[(Bytes, &Event, &KeyValue)]) {
    if !shared.outstanding.has_deletions() {
        return;
    }
    for (key, event, kv) in events {
        if event.r#type() == EventType::Delete
            && let Ok(Some(was)) = shared.store.get(key, 0)
        {
            let revision = kv.mod_revision as u64;
            shared.outstanding.deleted(key, was.modified, revision);
        }
    }
}

fn foreign<'a>(shared: &Shared, key: &'a Bytes, kv: &'a KeyValue) -> Option<Foreign<'a>> {
    let stored = match value::decode(&kv.value) {
        Ok(stored) => stored,
        Err(reason) => {
            Figures::count(&shared.figures.unreadable);
            let name = String::from_utf8_lossy(&kv.key);
            shared
                .mailbox
                .note(format!("the value at {name} is not served: {reason}"));
            return None;
        }
    };
    let revision = kv.mod_revision as u64;
    if stored.id.server == shared.server {
        shared.outstanding.seen(stored.id.number, revision);
    }
    Some(Foreign {
        key,
        created: kv.create_revision as u64,
        modified: revision,
        version: kv.version as u64,
        body: Some(ForeignBody {
            value: stored.json,
            splice_at: stored.splice_at,
            attributes: stored.attributes,
        }),
    })
}

fn gone<'a>(key: &'a Bytes, kv: &KeyValue) -> Foreign<'a> {
    Foreign {
        key,
        created: 0,
        modified: kv.mod_revision as u64,
        version: 0,
        body: None,
    }
}
