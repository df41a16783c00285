//! What is refused before anything is done: requests that make no sense whatever the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::status::{self, Result};
use super::wire::request_op::Request;
use super::wire::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// etcd's limit of comparisons or operations in a transaction.
const TXN_OPS_MAX: usize = 128;

pub(super) fn range(request: &RangeRequest) -> Result<()> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    let is_known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if is_known {
        Ok(())
    } else {
        Err(status::INVALID_SORT_OPTION)
    }
}

pub(super) fn put(request: &PutRequest) -> Result<()> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::LEASE_PROVIDED);
    }
    Ok(())
}

pub(super) fn delete(request: &DeleteRangeRequest) -> Result<()> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    Ok(())
}

/// Refuse a transaction that is too long, has an operation that makes no sense, or could write a key twice.
pub(super) fn txn(request: &TxnRequest) -> Result<()> {
    shape(request, TXN_OPS_MAX)?;
    if is_single(&request.success) && is_single(&request.failure) {
        return Ok(());
    }
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// One operation that is no transaction cannot write a key twice.
fn is_single(ops: &[RequestOp]) -> bool {
    match ops {
        [] => true,
        [only] => !matches!(only.request, Some(Request::Txn(_))),
        _ => false,
    }
}

fn shape(request: &TxnRequest, ops_max: usize) -> Result<()> {
    let count = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = ops_max.checked_sub(count) else {
        return Err(status::TOO_MANY_OPS);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(status::EMPTY_KEY);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::Range(request)) => range(request)?,
            Some(Request::Put(request)) => put(request)?,
            Some(Request::DeleteRange(request)) => delete(request)?,
            Some(Request::Txn(request)) => shape(request, left)?,
            None => return Err(status::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What the operations of one branch may write: keys that are put, and spans that are deleted (an empty end: one key).
#[derive(Debug, Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: BTreeMap<&'a [u8], BTreeSet<&'a [u8]>>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &[u8]) -> bool {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let from = self.deletes.range::<[u8], _>(upto);
        from.into_iter().any(|(start, ends)| {
            ends.iter().any(|end| match end {
                [] => *start == key,
                [0] => true,
                end => key < *end,
            })
        })
    }

    fn add_deletes(&mut self, other: Writes<'a>) {
        for (start, ends) in other.deletes {
            self.deletes.entry(start).or_default().extend(ends);
        }
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<()> {
        if self.deletes(key) || !self.puts.insert(key) {
            return Err(status::DUPLICATE_KEY);
        }
        Ok(())
    }
}

/// Collect the writes of one branch. The two branches of a nested transaction exclude each other, so both may write one key.
fn writes(ops: &[RequestOp]) -> Result<Writes<'_>> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::DeleteRange(request)) = &op.request {
            let ends = all.deletes.entry(&request.key).or_default();
            ends.insert(&request.range_end);
        }
    }
    for op in ops {
        let Some(Request::Txn(request)) = &op.request else {
            continue;
        };
        let then = writes(&request.success)?;
        let otherwise = writes(&request.failure)?;
        for key in &then.puts {
            all.add_put(key)?;
        }
        for key in &otherwise.puts {
            if all.deletes(key) || (!all.puts.insert(key) && !then.puts.contains(key)) {
                return Err(status::DUPLICATE_KEY);
            }
        }
        all.add_deletes(then);
        all.add_deletes(otherwise);
    }
    for op in ops {
        if let Some(Request::Put(request)) = &op.request {
            all.add_put(&request.key)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put_of(key: &'static str) -> RequestOp {
        op(Request::Put(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..PutRequest::default()
        }))
    }

    fn delete_of(key: &'static str, end: &'static str) -> RequestOp {
        op(Request::DeleteRange(DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
            ..DeleteRangeRequest::default()
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::Txn(TxnRequest {
            success,
            failure,
            ..TxnRequest::default()
        }))
    }

    fn checked(success: Vec<RequestOp>) -> Result<()> {
        txn(&TxnRequest {
            success,
            ..TxnRequest::default()
        })
    }

    #[test]
    fn a_key_may_be_written_once() {
        let duplicates = [
            vec![put_of("a"), put_of("a")],
            vec![put_of("b"), delete_of("a", "c")],
            vec![delete_of("a", "\0"), put_of("b")],
            vec![put_of("a"), nested(vec![put_of("a")], vec![])],
            vec![nested(vec![], vec![put_of("a")]), put_of("a")],
            vec![delete_of("a", ""), nested(vec![], vec![put_of("a")])],
            vec![
                nested(vec![delete_of("a", "b")], vec![]),
                nested(vec![put_of("aa")], vec![]),
            ],
        ];
        for ops in duplicates {
            assert_eq!(checked(ops.clone()), Err(status::DUPLICATE_KEY), "{ops:?}");
        }
        let fine = [
            vec![put_of("a"), put_of("b")],
            vec![put_of("c"), delete_of("a", "c")],
            vec![delete_of("a", "c"), delete_of("b", "d")],
            vec![nested(vec![put_of("a")], vec![put_of("a")])],
            vec![nested(vec![delete_of("a", "b")], vec![put_of("a")])],
            vec![nested(vec![put_of("a")], vec![delete_of("a", "")])],
        ];
        for ops in fine {
            assert_eq!(checked(ops.clone()), Ok(()), "{ops:?}");
        }
    }

    #[test]
    fn a_transaction_has_at_most_128_operations_on_every_path() {
        let many = |count: usize| (0..count).map(|_| delete_of("a", "")).collect::<Vec<_>>();
        assert_eq!(checked(many(128)), Ok(()));
        assert_eq!(checked(many(129)), Err(status::TOO_MANY_OPS));
        let mut ops = many(120);
        ops.push(nested(many(8), vec![]));
        assert_eq!(checked(ops), Err(status::TOO_MANY_OPS));
    }

    #[test]
    fn an_operation_without_a_request_or_a_key_is_refused() {
        assert_eq!(
            checked(vec![RequestOp::default()]),
            Err(status::KEY_NOT_FOUND)
        );
        assert_eq!(checked(vec![put_of("")]), Err(status::EMPTY_KEY));
        let both = PutRequest {
            key: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"v"),
            ignore_value: true,
            ..PutRequest::default()
        };
        assert_eq!(put(&both), Err(status::VALUE_PROVIDED));
    }
}
