//! A commit as one transaction of the cluster: If every key is at the revision expected of it, Then write, Else tell where they are.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::failure::Error;
use super::value::{self, WriteId};
use crate::etcd::wire::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, TxnResponse, compare, request_op, response_op,
};
use crate::store::Op;

/// The keys of korch start with this; in the cluster the configured prefix stands in its place.
const ROOT: &[u8] = b"/registry";

/// Where keys of the mirror stand in the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: Vec<u8>,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Names {
            prefix: prefix.trim_end_matches('/').into(),
        }
    }

    /// The key in the cluster. None for a key that is not below `/registry/`.
    pub(crate) fn outer(&self, key: &[u8]) -> Option<Bytes> {
        let rest = key.strip_prefix(ROOT)?;
        (rest.first() == Some(&b'/')).then(|| [&self.prefix, rest].concat().into())
    }

    /// The key in the mirror. None for keys that are not ours.
    pub(crate) fn inner(&self, key: &Bytes) -> Option<Bytes> {
        let rest = key.strip_prefix(self.prefix.as_slice())?;
        if rest.first() != Some(&b'/') {
            None
        } else if self.prefix == ROOT {
            Some(key.clone())
        } else {
            Some([ROOT, rest].concat().into())
        }
    }

    /// The range of all our keys: its first key, and the first behind it.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        let bound = |end: u8| [self.prefix.as_slice(), &[end]].concat().into();
        (bound(b'/'), bound(b'/' + 1))
    }
}

/// A commit that is ready to be sent, as often as need be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) request: TxnRequest,
    /// What each comparison is about, in order: the op, and what it expects.
    checks: Vec<(usize, Option<u64>)>,
    values: Vec<Option<(Vec<u8>, Option<usize>)>>,
    /// Filled when the commit does nothing but delete: key and revision of each.
    pub(crate) deletions: Vec<(Vec<u8>, u64)>,
}

impl Plan {
    pub(crate) fn new(ops: Vec<Op<'_>>, names: &Names, id: WriteId) -> Result<Self, Error> {
        let mut plan = Plan {
            number: id.number,
            request: TxnRequest::default(),
            checks: Vec::new(),
            values: Vec::with_capacity(ops.len()),
            deletions: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for (index, op) in ops.into_iter().enumerate() {
            if !seen.insert(op.key) {
                let text = format!("op {index}: a key may stand only once in a commit");
                return Err(Error::Invalid(text));
            }
            plan.add(index, op, names, id)?;
        }
        if plan.values.iter().any(Option::is_some) {
            plan.deletions.clear();
        }
        Ok(plan)
    }

    fn add(&mut self, index: usize, op: Op<'_>, names: &Names, id: WriteId) -> Result<(), Error> {
        let outside = || Error::Invalid(format!("op {index}: the key is not below /registry/"));
        let key = names.outer(op.key).ok_or_else(outside)?;
        if op.expected.is_some() || op.value.is_none() {
            self.request.compare.push(comparison(&key, op.expected));
            self.request.failure.push(lookup(&key));
            self.checks.push((index, op.expected));
        }
        let request = match op.value {
            Some(json) => {
                if op.splice_at.is_some_and(|at| at > json.len()) {
                    let text = format!("op {index}: the splice lies behind the value");
                    return Err(Error::Invalid(text));
                }
                self.values.push(Some((json.to_vec(), op.splice_at)));
                request_op::Request::Put(PutRequest {
                    key,
                    value: value::encode(json, op.splice_at, &op.attributes, id).into(),
                    ..PutRequest::default()
                })
            }
            None => {
                self.values.push(None);
                self.deletions
                    .extend(op.expected.map(|revision| (op.key.to_vec(), revision)));
                request_op::Request::DeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                })
            }
        };
        let request = Some(request);
        self.request.success.push(RequestOp { request });
        Ok(())
    }

    /// The values as they stand after a commit at `revision`.
    pub(crate) fn stored(&self, revision: u64) -> Vec<Option<Vec<u8>>> {
        let digits = revision.to_string();
        let spliced = |(json, at): &(Vec<u8>, Option<usize>)| match at
            .and_then(|at| json.split_at_checked(at))
        {
            Some((head, tail)) => [head, digits.as_bytes(), tail].concat(),
            None => json.clone(),
        };
        self.values
            .iter()
            .map(|value| value.as_ref().map(spliced))
            .collect()
    }

    /// The first op whose comparison failed, from the answers of the transaction's Else.
    pub(crate) fn conflict(&self, response: &TxnResponse) -> Error {
        for ((index, expected), answer) in self.checks.iter().zip(&response.responses) {
            let index = *index;
            let current = match &answer.response {
                Some(response_op::Response::Range(found)) => {
                    found.kvs.first().map(|kv| kv.mod_revision as u64)
                }
                _ => None,
            };
            match (current, *expected) {
                (Some(_), Some(0)) => return Error::KeyExists { index },
                (Some(current), Some(expected)) if current != expected => {
                    return Error::RevisionMismatch { index, current };
                }
                (None, Some(1..) | None) => return Error::KeyMissing { index },
                _ => {}
            }
        }
        Error::Refused("etcdserver: the transaction failed without a reason".into())
    }
}

/// The key is at `expected` (0: it does not exist), or just exists.
fn comparison(key: &Bytes, expected: Option<u64>) -> Compare {
    let result = match expected {
        Some(_) => CompareResult::Equal,
        None => CompareResult::Greater,
    };
    Compare {
        result: result as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(compare::TargetUnion::ModRevision(
            expected.unwrap_or(0) as i64
        )),
        range_end: Bytes::new(),
    }
}

fn lookup(key: &Bytes) -> RequestOp {
    let request = RangeRequest {
        key: key.clone(),
        keys_only: true,
        ..RangeRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::Range(request)),
    }
}
