//! Opening a directory: the newest snapshot, then the log behind it, and the decision about its end.

use std::sync::Arc;

use super::disk::{Disk, RETIRED};
use super::error::{Result, StoreError};
use super::keyspace::{Keyspace, Restoring};
use super::log::{Log, Sizes, Writer, number_in, segment_name};
use super::replay::{End, Position, Reading, Replayed};
use super::room::{first_segment, is_room};
use super::segment::{self, FORMAT_VERSION, HEADER_LEN, Uuid, corrupt};
use super::snapshot::{self, Loaded};

/// Files that were being written, or removed, when the process ended; the second is of format 1.
const UNFINISHED: [&str; 3] = [snapshot::UNFINISHED, "log.tmp", RETIRED];

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
    let names = disk.list()?;
    let mut position = Position {
        uuid: None,
        number: 1,
        chain: 0,
        version: FORMAT_VERSION,
    };
    let newest = names
        .iter()
        .filter_map(|name| snapshot::revision_in(name))
        .max()
        .map(snapshot::name);
    if let Some(name) = &newest {
        let header = snapshot::header(&*disk, name)?;
        position = Position {
            uuid: Some(header.uuid),
            number: header.segment,
            chain: header.chain,
            version: FORMAT_VERSION,
        };
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
    let (mut keys, snapshot_bytes, replayed) = std::thread::scope(|scope| {
        let reading = Reading::begin(scope, &*disk, position, &numbers);
        let (mut keys, snapshot_bytes) = match &newest {
            Some(name) => {
                let (loaded, keys) = restored(&*disk, name)?;
                (keys, loaded.length)
            }
            None => (Keyspace::default(), 0),
        };
        let replayed = reading.apply(&mut keys)?;
        Ok::<_, StoreError>((keys, snapshot_bytes, replayed))
    })?;
    let Replayed {
        position,
        end,
        log_bytes,
        plain_bytes,
    } = replayed;
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
        plain_bytes,
        snapshot_bytes,
        torn_bytes: end.map_or(0, |end| end.torn as u64),
        ..Sizes::default()
    };
    let log = Log::new(disk, uuid, keys.applied, writer, segment_bytes, found);
    Ok((keys, log))
}

/// What the snapshot called `name` says of itself, and the key space that it holds. Fails with Corrupt.
pub(crate) fn restored(disk: &dyn Disk, name: &str) -> Result<(Loaded, Keyspace)> {
    let mut restoring = Restoring::default();
    let loaded = snapshot::load(disk, name, |state| restoring.add(state))?;
    let (floor, revision) = (loaded.header.floor, loaded.header.revision);
    if floor.max(restoring.newest()) > revision {
        let reason = "it holds what is newer than itself";
        return Err(snapshot::damaged(name, loaded.length, reason));
    }
    let keys = restoring.finish(&loaded.leases, floor, revision);
    Ok((loaded, keys))
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
                spare: Vec::new(),
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
        spare: Vec::new(),
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
