//! Upkeep, the one member, and what there is of users: nothing.

use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use super::answer::RAFT_TERM;
use super::calls::{Ended, Out, Reply};
use super::framing;
use super::server::Server;
use super::status::Result;
use super::wire::{
    AlarmAction, AlarmMember, AlarmRequest, AlarmResponse, AlarmType, AuthStatusResponse,
    DefragmentResponse, HashKvRequest, HashKvResponse, HashResponse, Member, MemberListResponse,
    SnapshotResponse, StatusResponse,
};
use crate::store::{Span, Store};

/// The version of etcd whose API this is. Clients switch features on by it.
const VERSION: &str = "3.7.3";

/// Bytes of a snapshot in one message.
const BLOB_BYTES: usize = 32 << 10;

/// etcdctl finds out by its length whether a snapshot carries its digest: pages of this size, then the digest.
const PAGE: usize = 512;

pub(super) fn status(server: &Arc<Server>) -> Result<Reply> {
    let stats = server.store().stats();
    let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
    let size = (stat("log_bytes") + stat("snapshot_bytes")) as i64;
    let errors = alarms(server).into_iter();
    Reply::message(&StatusResponse {
        header: server.header(stat("revision")),
        version: VERSION.into(),
        db_size: size,
        leader: server.identity().member_id,
        raft_index: stat("applied_revision"),
        raft_term: RAFT_TERM,
        raft_applied_index: stat("revision"),
        errors: errors
            .map(|alarm| format!("memberID:{} alarm:NOSPACE ", alarm.member_id))
            .collect(),
        db_size_in_use: size,
        is_learner: false,
        storage_version: "3.7.0".into(),
        db_size_quota: 0,
    })
}

/// The alarm is raised by a write that found no room and cleared as soon as there is some, so switching it here changes nothing.
pub(super) fn alarm(server: &Arc<Server>, request: AlarmRequest) -> Result<Reply> {
    let is_wanted = matches!(request.alarm(), AlarmType::None | AlarmType::NoSpace);
    let is_asked = request.action() == AlarmAction::Get && is_wanted;
    Reply::message(&AlarmResponse {
        header: server.header(server.store().revision()),
        alarms: if is_asked { alarms(server) } else { Vec::new() },
    })
}

fn alarms(server: &Server) -> Vec<AlarmMember> {
    let full = server.is_full().then(|| AlarmMember {
        member_id: server.identity().member_id,
        alarm: AlarmType::NoSpace as i32,
    });
    full.into_iter().collect()
}

pub(super) fn member_list(server: &Arc<Server>) -> Result<Reply> {
    Reply::message(&MemberListResponse {
        header: server.header(server.store().revision()),
        members: vec![Member {
            id: server.identity().member_id,
            name: server.options.name.clone(),
            // There are no peers, so none can reach this one.
            peer_urls: Vec::new(),
            client_urls: server.options.client_urls.clone(),
            is_learner: false,
        }],
    })
}

pub(super) fn auth_status(server: &Arc<Server>) -> Result<Reply> {
    Reply::message(&AuthStatusResponse {
        header: server.header(server.store().revision()),
        enabled: false,
        auth_revision: 1,
    })
}

/// Replace the log by a snapshot, which leaves no garbage.
pub(super) fn defragment(server: &Arc<Server>) -> Result<Reply> {
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        let done = server.blocking(|server| Ok(server.store().snapshot()?));
        done.await?;
        framing::framed(&DefragmentResponse {
            header: server.header(server.store().revision()),
        })
    })))
}

pub(super) fn hash(server: &Arc<Server>) -> Result<Reply> {
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        let (hash, revision) = server.blocking(|server| digest(server.store(), 0)).await?;
        framing::framed(&HashResponse {
            header: server.header(revision),
            hash,
        })
    })))
}

pub(super) fn hash_kv(server: &Arc<Server>, request: HashKvRequest) -> Result<Reply> {
    let server = Arc::clone(server);
    Ok(Reply::Later(Box::pin(async move {
        let pinned = u64::try_from(request.revision).unwrap_or_default();
        let digested = server.blocking(move |server| digest(server.store(), pinned));
        let (hash, hash_revision) = digested.await?;
        let store = server.store();
        framing::framed(&HashKvResponse {
            header: server.header(store.revision()),
            hash,
            compact_revision: store.compacted() as i64,
            hash_revision: hash_revision as i64,
        })
    })))
}

/// A checksum of every key and value at a revision (0: the newest), and that revision.
fn digest(store: &Store, revision: u64) -> Result<(u32, u64)> {
    let page = store.span(&Span::new(&[0], &[0]), 0, revision)?;
    let sum = page.items.iter().fold(0, |sum, item| {
        let sum = crc32c::crc32c_append(sum, &item.key);
        let sum = crc32c::crc32c_append(sum, &item.modified.to_le_bytes());
        crc32c::crc32c_append(sum, item.value())
    });
    Ok((sum, page.revision))
}

/// Send a backup of the store, which `korch store restore` reads, padded to whole pages and followed by its digest.
pub(super) async fn snapshot(out: &mut Out, server: Arc<Server>) -> Ended {
    let backup = server.blocking(|server| Ok(server.store().backup()?));
    let mut backup: Vec<u8> = backup.await?;
    backup.resize(backup.len().next_multiple_of(PAGE), 0);
    let mut digest = Context::new(&SHA256);
    digest.update(&backup);
    backup.extend_from_slice(digest.finish().as_ref());
    let mut rest = Bytes::from(backup);
    while !rest.is_empty() {
        let blob = rest.split_to(rest.len().min(BLOB_BYTES));
        let part = SnapshotResponse {
            header: server.header(server.store().revision()),
            remaining_bytes: rest.len() as u64,
            blob,
            version: VERSION.into(),
        };
        out.send(framing::framed(&part)?).await?;
    }
    Ok(())
}
