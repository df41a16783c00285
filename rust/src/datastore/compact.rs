//! Compaction of the cluster, which all its API servers would do and one does.
//!
//! The key `compact_rev_key` belongs to whoever can move its version on: once an interval every server tries to put what it knows to be
//! old enough there, on the condition that the version is the one it saw last. The one that succeeds compacts, the others learn the
//! new version. A kube-apiserver on the same cluster takes part in the same election. Mirrors apiserver's storage/etcd3/compact.go.

use std::sync::Arc;

use super::failure::{Error, Failure};
use super::mailbox::Outcome;
use super::shared::{Shared, Tries};
use crate::etcd::wire::{
    CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget, PutRequest,
    RangeRequest, RequestOp, TxnRequest, TxnResponse, compare, path, request_op, response_op,
};

pub(crate) const KEY: &str = "compact_rev_key";

/// Try to win the interval that began at `version` and, with `revision` above 0, compact up to there. Answers the version that
/// the next try must name and the cluster's revision now.
pub(crate) async fn compact(
    shared: Arc<Shared>,
    version: i64,
    revision: u64,
) -> Result<Outcome, Error> {
    let mut tries = Tries::new(shared.timeout);
    let response = loop {
        let request = election(version, revision);
        let call = shared
            .endpoints
            .call::<_, TxnResponse>(path::TXN, request, tries.left());
        match call.await {
            Ok(response) => break response,
            // A second put would be refused for its version: at worst nobody compacts this time.
            Err(failure) => tries.pause_after(failure).await?,
        }
    };
    let now = response.header.map_or(0, |header| header.revision) as u64;
    let version = match (response.succeeded, response.responses.first()) {
        (true, _) => version + 1,
        (false, Some(answer)) => match &answer.response {
            Some(response_op::Response::Range(found)) => {
                found.kvs.first().map_or(0, |kv| kv.version)
            }
            _ => 0,
        },
        (false, None) => 0,
    };
    if response.succeeded && revision > 0 {
        let request = CompactionRequest {
            revision: revision as i64,
            physical: false,
        };
        let call =
            shared
                .endpoints
                .call::<_, CompactionResponse>(path::COMPACT, request, tries.left());
        match call.await {
            Err(Failure::Final(words)) if !words.contains("has been compacted") => {
                return Err(Error::Refused(words));
            }
            Err(Failure::Passing { words, .. }) => return Err(Error::TimedOut(words)),
            _ => {}
        }
    }
    Ok(Outcome::Compacted {
        version,
        revision: now,
    })
}

fn election(version: i64, revision: u64) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: KEY.into(),
        target_union: Some(compare::TargetUnion::Version(version)),
        ..Compare::default()
    };
    let put = PutRequest {
        key: KEY.into(),
        value: revision.to_string().into(),
        ..PutRequest::default()
    };
    let get = RangeRequest {
        key: KEY.into(),
        ..RangeRequest::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(request_op::Request::Put(put))],
        failure: vec![op(request_op::Request::Range(get))],
    }
}
