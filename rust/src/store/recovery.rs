//! Opening a directory: the newest snapshot, then the log behind it, and the decision about its end.

use std::sync::Arc;

use super::codec::Reader;
use super::disk::Disk;
use super::entry::{Entry, Write, next_entry};
use super::error::{Result, StoreError};
use super::keyspace::Keyspace;
use super::log::{Log, Sizes, Writer, number_in, segment_name};
use super::revision::{Body, Revision, Written};
use super::room::{first_segment, is_room};
use super::segment::{self, FORMAT_VERSION, HEADER_LEN, Uuid, any_batch_behind, batch_at, corrupt};
use super::snapshot;

/// Files that were being written when the process ended; the second is of format 1.
const UNFINISHED: [&str; 2] = [snapshot::UNFINISHED, "log.tmp"];

/// Where replay stands: what the next segment and batch must continue.
#[derive(Debug)]
struct Position {
    uuid: Option<Uuid>,
    number: u64,
    chain: u32,
    /// The format of the last segment.
    version: u32,
}

/// The end of the last segment: how much of it is whole, how much is torn, and how long the file is.
#[derive(Debug, Clone, Copy)]
struct End {
    whole: usize,
    torn: usize,
    length: usize,
}

/// Lock the directory and rebuild what it holds. Nothing is changed when this fails.
pub(crate) fn open(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<(Keyspace, Log)> {
    disk.lock()?;
    let opened = rebuild(disk.clone(), segment_bytes);
    if opened.is_err() {
        disk.unlock();
    }
    opened
}

fn rebuild(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<(Keyspace, Log)> {
    let mut keys = Keyspace::default();
    let names = disk.list()?;
    let mut position = Position {
        uuid: None,
        number: 1,
        chain: 0,
        version: FORMAT_VERSION,
    };
    let mut snapshot_bytes = 0;
    if let Some(newest) = names
        .iter()
        .filter_map(|name| snapshot::revision_in(name))
        .max()
    {
        let name = snapshot::name(newest);
        let loaded = snapshot::load(&*disk, &name)?;
        let header = loaded.header;
        for (id, ttl_s) in loaded.leases {
            keys.leases.grant(id, ttl_s, None);
        }
        keys.restore(loaded.states, header.floor, header.revision);
        position = Position {
            uuid: Some(header.uuid),
            number: header.segment,
            chain: header.chain,
            version: FORMAT_VERSION,
        };
        snapshot_bytes = loaded.length;
    }
    let first = position.number;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| number_in(name))
        .filter(|number| *number >= first)
        .collect();
    numbers.sort_unstable();
    if numbers.is_empty() && position.uuid.is_some() {
        return Err(corrupt(&segment_name(first), 0, "the file is missing"));
    }
    let mut log_bytes = 0;
    let mut bytes = Vec::new();
    let mut end = None;
    for (nth, number) in numbers.iter().enumerate() {
        let name = segment_name(*number);
        if *number != first + nth as u64 {
            return Err(corrupt(
                &segment_name(first + nth as u64),
                0,
                "the file is missing",
            ));
        }
        disk.read_into(&name, &mut bytes)?;
        let is_last = nth + 1 == numbers.len();
        position.number = *number;
        if is_last && bytes.len() < HEADER_LEN {
            break;
        }
        let found = replay(&mut keys, &mut position, &name, &bytes, is_last)?;
        log_bytes += found.whole as u64;
        end = is_last.then_some(found);
    }
    keys.published = keys.applied;
    let uuid = match position.uuid {
        Some(uuid) => uuid,
        None => disk.entropy()?,
    };
    let seed = u64::from_le_bytes(segment::Cursor { rest: &uuid }.take());
    keys.leases.seed(seed.wrapping_add(keys.applied));
    remove_leftovers(&*disk, &names, first, keys.applied)?;
    let writer = continue_at(&*disk, &keys, &position, uuid, end, segment_bytes)?;
    let found = Sizes {
        log_bytes: log_bytes.max(HEADER_LEN as u64),
        snapshot_bytes,
        torn_bytes: end.map_or(0, |end| end.torn as u64),
        ..Sizes::default()
    };
    let log = Log::new(disk, uuid, keys.applied, writer, segment_bytes, found);
    Ok((keys, log))
}

/// Apply the batches of one segment; return where they end.
fn replay(
    keys: &mut Keyspace,
    position: &mut Position,
    name: &str,
    bytes: &[u8],
    is_last: bool,
) -> Result<End> {
    let header = segment::Header::decode(name, bytes)?;
    position.version = header.version;
    let uuid = *position.uuid.get_or_insert(header.uuid);
    if header.uuid != uuid || header.number != position.number || header.chain != position.chain {
        return Err(corrupt(
            name,
            0,
            "the file does not continue the one before it",
        ));
    }
    let mut offset = HEADER_LEN;
    while offset < bytes.len() {
        let Some(batch) = batch_at(bytes, offset, &uuid) else {
            if is_unused(bytes, offset) {
                break;
            }
            if is_last && !any_batch_behind(bytes, offset, &uuid) {
                break;
            }
            return Err(corrupt(
                name,
                offset,
                "a batch is damaged, and what was written after it is not",
            ));
        };
        if batch.chain != position.chain {
            return Err(corrupt(
                name,
                offset,
                "a batch does not continue the one before it",
            ));
        }
        apply(keys, batch.payload).ok_or_else(|| {
            corrupt(
                name,
                offset,
                "a batch does not continue the state before it",
            )
        })?;
        position.chain = batch.sum;
        offset += segment::BATCH_HEADER_LEN + batch.payload.len();
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    let torn = rest.iter().rposition(|byte| *byte != 0);
    Ok(End {
        whole: offset,
        torn: torn.map_or(0, |last| last + 1),
        length: bytes.len(),
    })
}

/// Whether there is nothing but room behind `offset`. In a segment of format 1 a hole of zeros is what a torn write left.
fn is_unused(bytes: &[u8], offset: usize) -> bool {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.iter().all(|byte| *byte == 0)
}

/// Apply the entries of one batch. None when they do not decode or leave out a revision.
fn apply(keys: &mut Keyspace, payload: &[u8]) -> Option<()> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        match next_entry(&mut reader)? {
            Entry::Commit { revision, writes } => {
                if revision <= keys.applied {
                    return None;
                }
                for (sub, write) in writes.into_iter().enumerate() {
                    let state = replayed(keys, write, revision, sub as u32)?;
                    keys.apply(Arc::new(state));
                }
                (revision == keys.applied + 1).then_some(())?;
                keys.applied = revision;
            }
            Entry::Compaction { revision } => {
                (revision <= keys.applied).then_some(())?;
                keys.compact(revision);
                keys.trim(usize::MAX, &mut Vec::new());
            }
            Entry::Grant { id, ttl_s } => keys.leases.grant(id, ttl_s, None),
            Entry::Revocation { id } => keys.leases.revoke(id),
        }
    }
    Some(())
}

/// The state that a logged write made of its key. None for a deletion of nothing.
fn replayed(keys: &Keyspace, write: Write<'_>, revision: u64, sub: u32) -> Option<Revision> {
    let found = keys.find(write.key);
    if write.body.is_none() {
        found?.1.newest()?;
    }
    let written = Written {
        modified: revision,
        sub,
        lease: write.lease,
        attributes: write.attributes,
    };
    let body = write
        .body
        .map(|(value, splice)| move |natural| Body::stored(value, splice, natural));
    Some(Revision::after(found, write.key, written, body))
}

/// Open the last segment behind its last whole batch, or begin one when there is none, its header was never finished, or an older
/// korch wrote it.
fn continue_at(
    disk: &dyn Disk,
    keys: &Keyspace,
    position: &Position,
    uuid: Uuid,
    end: Option<End>,
    segment_bytes: u64,
) -> Result<Writer> {
    let (mut number, chain) = (position.number, position.chain);
    if let Some(end) = end {
        let mut file = disk.reopen(&segment_name(number))?;
        if end.torn > 0 {
            file.truncate(end.whole as u64)?;
            file.sync()?;
        }
        if position.version == FORMAT_VERSION {
            let mut capacity = end.length as u64;
            if end.torn > 0 && file.allocate(capacity).is_err() {
                capacity = end.whole as u64;
            }
            return Ok(Writer {
                file,
                number,
                offset: end.whole as u64,
                capacity,
                chain,
                dirty: 0,
            });
        }
        number += 1;
    }
    let header = segment::Header {
        version: FORMAT_VERSION,
        uuid,
        number,
        revision: keys.applied,
        chain,
    };
    let (file, capacity) = first_segment(disk, &header, segment_bytes)?;
    Ok(Writer {
        file,
        number,
        offset: HEADER_LEN as u64,
        capacity,
        chain,
        dirty: 0,
    })
}

/// Remove what a crash left between writing a snapshot and removing what it replaces.
fn remove_leftovers(disk: &dyn Disk, names: &[String], first: u64, revision: u64) -> Result<()> {
    let newest = names
        .iter()
        .filter_map(|name| snapshot::revision_in(name))
        .max()
        .unwrap_or(revision);
    for name in names {
        let is_replaced = number_in(name).is_some_and(|number| number < first)
            || snapshot::revision_in(name).is_some_and(|revision| revision < newest)
            || UNFINISHED.contains(&name.as_str())
            || is_room(name);
        if is_replaced {
            disk.remove(name).map_err(StoreError::from)?;
        }
    }
    Ok(())
}
