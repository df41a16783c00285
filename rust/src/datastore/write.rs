//! One commit, sent until it is certain what became of it or time is up.

use std::sync::Arc;

use super::failure::{Error, Failure};
use super::mailbox::Outcome;
use super::plan::Plan;
use super::shared::{Figures, Shared, Tries};
use crate::etcd::wire::{TxnRequest, TxnResponse, path};

/// Commit `plan` exactly once, or not at all, or fail with TimedOut, when nobody knows. Answers when the mirror shows it.
pub(crate) async fn write(shared: Arc<Shared>, plan: Plan) -> Result<Outcome, Error> {
    shared.outstanding.expect(plan.number, &plan.deletions);
    let outcome = write_expected(&shared, &plan).await;
    shared.outstanding.forget(plan.number, &plan.deletions);
    Figures::count(&shared.figures.writes);
    let revision = outcome?;
    Ok(Outcome::Committed {
        revision,
        values: plan.stored(revision),
    })
}

async fn write_expected(shared: &Shared, plan: &Plan) -> Result<u64, Error> {
    let mut tries = Tries::new(shared.timeout);
    loop {
        let request = plan.request.clone();
        let call =
            shared
                .endpoints
                .call::<TxnRequest, TxnResponse>(path::TXN, request, tries.left());
        let failure = match call.await {
            Ok(response) => {
                let revision = response.header.map_or(0, |header| header.revision) as u64;
                shared.name_revision(revision);
                if response.succeeded {
                    // The write is durable whether the mirror sees it in time or not, and whoever reads next waits for it.
                    let _ = shared.wait_for(revision, tries.deadline).await;
                    return Ok(revision);
                }
                return resolve(shared, plan, &response, revision, &tries).await;
            }
            Err(failure) => failure,
        };
        // A try whose answer was lost may have been seen by the watch already.
        if matches!(failure, Failure::Passing { .. })
            && let Some(revision) = shared.outstanding.revision_of(plan.number)
        {
            return Ok(revision);
        }
        Figures::count(&shared.figures.retries);
        tries.pause_after(failure).await?;
    }
}

/// The comparisons failed at `revision`: because of somebody else, or because an earlier try succeeded.
async fn resolve(
    shared: &Shared,
    plan: &Plan,
    response: &TxnResponse,
    revision: u64,
    tries: &Tries,
) -> Result<u64, Error> {
    if tries.is_ambiguous {
        shared.wait_for(revision, tries.deadline).await?;
        if let Some(done) = shared.outstanding.revision_of(plan.number) {
            return Ok(done);
        }
    }
    Err(plan.conflict(response))
}
