//! What has everybody been told until now? One linearizable question to the cluster answers all who ask meanwhile.
//!
//! Whoever asks while a question is on its way waits for the next one, because the one on its way may have been answered before.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::failure::Error;
use super::mailbox::Outcome;
use super::shared::{Figures, Shared, Tries};
use crate::etcd::wire::{RangeRequest, RangeResponse, path};

/// Answer the tickets that come in through `asks` until the other end is dropped.
pub(crate) async fn serve(shared: Arc<Shared>, mut asks: UnboundedReceiver<u64>) {
    let mut tickets = Vec::new();
    while asks.recv_many(&mut tickets, usize::MAX).await > 0 {
        let asked = std::mem::take(&mut tickets);
        let tries = Tries::new(shared.timeout);
        let deadline = tries.deadline;
        match newest(&shared, tries).await {
            Err(error) => answer(&shared, &asked, &Err(error)),
            Ok(revision) if *shared.seen.borrow() >= revision => {
                answer(&shared, &asked, &Ok(revision));
            }
            Ok(revision) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let reached = shared.wait_for(revision, deadline).await;
                    answer(&shared, &asked, &reached.map(|()| revision));
                });
            }
        }
    }
}

/// The cluster's revision, no older than this call.
async fn newest(shared: &Shared, mut tries: Tries) -> Result<u64, Error> {
    Figures::count(&shared.figures.reads);
    loop {
        let request = RangeRequest {
            key: super::compact::KEY.into(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let call = shared
            .endpoints
            .call::<_, RangeResponse>(path::RANGE, request, tries.left());
        let seen = *shared.seen.borrow();
        match call.await {
            Ok(response) => {
                let revision = response.header.map_or(0, |header| header.revision) as u64;
                if revision < seen {
                    // What is agreed on never goes back: this is another history, such as a restored backup.
                    shared.relist.notify_one();
                    shared.wait_for_other(seen, tries.deadline).await?;
                }
                shared.name_revision(revision);
                return Ok(revision);
            }
            Err(failure) => tries.pause_after(failure).await?,
        }
    }
}

fn answer(shared: &Shared, tickets: &[u64], outcome: &Result<u64, Error>) {
    for ticket in tickets {
        let outcome = outcome.clone().map(|revision| Outcome::Seen { revision });
        shared.mailbox.complete(*ticket, outcome);
    }
}
