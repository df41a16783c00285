//! The Lease service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::{Body, Ended, Out, Reply};
use super::framing;
use super::server::Server;
use super::status::{self, Result, Status};
use super::wire::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use crate::store::{StoreError, monotonic_ms};

/// The longest and the shortest time to live that etcd grants, in seconds.
const TTL_S_MAX: i64 = 9_000_000_000;
const TTL_S_MIN: i64 = 2;

pub(super) fn grant(server: &Arc<Server>, request: LeaseGrantRequest) -> Result<Reply> {
    if request.ttl > TTL_S_MAX {
        return Err(status::LEASE_TTL_TOO_LARGE);
    }
    let ttl = request.ttl.max(TTL_S_MIN);
    let store = server.store();
    let id = store.lease_grant(request.id, ttl, monotonic_ms())?;
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        server.until_flushed().await?;
        // A grant that the disk had no room for was taken back.
        server.store().lease_time_to_live(id, monotonic_ms())?;
        framing::framed(&LeaseGrantResponse {
            header: server.header(server.store().revision()),
            id,
            ttl,
            error: String::new(),
        })
    })))
}

pub(super) fn revoke(server: &Arc<Server>, request: LeaseRevokeRequest) -> Result<Reply> {
    let revoked = server.store().lease_revoke(request.id)?;
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        // A lease without keys leaves no revision behind, but its end must be durable all the same.
        server.until_flushed().await?;
        framing::framed(&LeaseRevokeResponse {
            header: server.header(revoked.revision),
        })
    })))
}

pub(super) fn time_to_live(server: &Arc<Server>, request: LeaseTimeToLiveRequest) -> Result<Reply> {
    let store = server.store();
    let header = server.header(store.revision());
    let answer = match store.lease_time_to_live(request.id, monotonic_ms()) {
        Ok(lease) => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: lease.remaining_s,
            granted_ttl: lease.granted_s,
            keys: if request.keys {
                let keys = lease.keys.iter();
                keys.map(|key| Bytes::copy_from_slice(key)).collect()
            } else {
                Vec::new()
            },
        },
        Err(StoreError::LeaseNotFound { .. }) => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        },
        Err(error) => return Err(Status::from(error)),
    };
    Reply::message(&answer)
}

pub(super) fn leases(server: &Arc<Server>) -> Result<Reply> {
    let store = server.store();
    let leases = store.leases().into_iter();
    Reply::message(&LeaseLeasesResponse {
        header: server.header(store.revision()),
        leases: leases.map(|(id, _)| LeaseStatus { id }).collect(),
    })
}

/// Answer every keep-alive of a stream, in order, until the client has no more.
pub(super) async fn keep_alive(mut body: Body, out: &mut Out, server: Arc<Server>) -> Ended {
    while let Some(message) = std::future::poll_fn(|cx| body.poll_next(cx)).await? {
        let request: LeaseKeepAliveRequest = framing::decode(message)?;
        let store = server.store();
        let ttl = match store.lease_keep_alive(request.id, monotonic_ms()) {
            Ok(ttl) => ttl,
            Err(StoreError::LeaseNotFound { .. }) => 0,
            Err(error) => return Err(Status::from(error).into()),
        };
        let answer = LeaseKeepAliveResponse {
            header: server.header(store.revision()),
            id: request.id,
            ttl,
        };
        out.send(framing::framed(&answer)?).await?;
    }
    Ok(())
}

/// How often leases of a store without a disk are looked at; one with a disk does that by itself.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

/// Revoke leases as they end, until the front stops.
pub(super) async fn expire(server: Arc<Server>) {
    if server.store().is_durable() {
        return;
    }
    let mut stopping = std::pin::pin!(server.stopping());
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
            () = &mut stopping => return,
        }
        let now_ms = monotonic_ms();
        // Without a disk nothing can fail.
        if let Ok(ended) = server.store().expire(now_ms)
            && !ended.is_empty()
        {
            let _ = server.until_flushed().await;
        }
    }
}
