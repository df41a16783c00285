//! The store as the rest of the program sees it: one writer, any number of readers.
//!
//! Locks are taken in the order log, state, buffer. Readers hold the state only while they collect shared revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, RwLock};

use super::attributes::Attributes;
use super::disk::{Disk, RealDisk};
use super::error::{Result, StoreError};
use super::event::EventType;
use super::keyspace::Keyspace;
use super::log::{Log, SEGMENT_BYTES};
use super::revision::{Body, Frame, Key, Revision};
use super::selector::Selector;
use super::watch::{News, Notify, Poll, Seen, Watchers};
use super::{read, recovery, snapshot, write};

/// One write of a commit.
#[derive(Debug)]
pub struct Op<'a> {
    pub key: &'a [u8],
    /// The encoded object, None to delete.
    pub value: Option<&'a [u8]>,
    /// The revision the key must have now; Some(0): it must not exist; None: whatever.
    pub expected: Option<u64>,
    /// Where in `value` the decimal revision of this commit is inserted.
    pub splice_at: Option<usize>,
    pub attributes: Attributes,
}

/// One page of a range, read at `revision`.
#[derive(Debug)]
pub struct Page {
    pub revision: u64,
    pub items: Vec<Arc<Revision>>,
    /// The key to continue at.
    pub next: Option<Key>,
    /// Objects from `next` on, -1 when they were not counted.
    pub remaining: i64,
}

#[derive(Debug, Default)]
struct State {
    keys: Keyspace,
    watchers: Watchers,
}

/// See the room's own page for how commit, flush and publish play together.
#[derive(Debug, Default)]
pub struct Store {
    state: RwLock<State>,
    log: Option<Log>,
}

impl Store {
    /// A store without a disk.
    pub fn in_memory() -> Self {
        Store::default()
    }

    /// Open the directory `path`, made if missing. Blocks while the log is read.
    pub fn open(path: &Path) -> Result<Self> {
        Store::open_on(Arc::new(RealDisk::new(path)?), SEGMENT_BYTES)
    }

    /// Open what `disk` holds, with log segments of about `segment_bytes`.
    pub fn open_on(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Self> {
        let (keys, log) = recovery::open(disk, segment_bytes)?;
        let state = RwLock::new(State {
            keys,
            watchers: Watchers::default(),
        });
        Ok(Store {
            state,
            log: Some(log),
        })
    }

    /// Apply all `ops` or none under one new revision; return it and the states it made.
    pub fn commit(&self, ops: Vec<Op<'_>>) -> Result<(u64, Vec<Arc<Revision>>)> {
        let mut state = write(&self.state);
        self.log.as_ref().map_or(Ok(()), Log::check)?;
        check(&state.keys, &ops)?;
        if ops.is_empty() {
            return Ok((state.keys.applied, Vec::new()));
        }
        let revision = state.keys.applied + 1;
        let mut states = Vec::with_capacity(ops.len());
        for (sub, op) in ops.into_iter().enumerate() {
            let new = Arc::new(successor(&state.keys, op, revision, sub as u32));
            state.keys.apply(new.clone());
            states.push(new);
        }
        state.keys.applied = revision;
        if let Some(log) = &self.log {
            log.add_commit(revision, &states);
        }
        drop(state);
        Ok((revision, states))
    }

    /// Make every commit so far durable; return the durable revision. Blocks on the disk.
    pub fn flush(&self) -> Result<u64> {
        match &self.log {
            Some(log) => log.flush(),
            None => Ok(read(&self.state).keys.applied),
        }
    }

    /// Make durable revisions up to `revision` visible; return the ids of watchers that have news, ascending.
    pub fn publish(&self, revision: u64) -> Vec<u64> {
        let mut state = write(&self.state);
        let durable = self.log.as_ref().map_or(state.keys.applied, Log::durable);
        let upto = revision.min(durable);
        let published = state.keys.published;
        if upto <= published {
            return Vec::new();
        }
        let mut news = News::default();
        for event in state.keys.events_after(published, upto) {
            state.watchers.dispatch(event, &mut news);
        }
        state.keys.published = upto;
        drop(state);
        news.deliver()
    }

    /// The newest published revision.
    pub fn revision(&self) -> u64 {
        read(&self.state).keys.published
    }

    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> u64 {
        read(&self.state).keys.floor
    }

    /// The state of `key` at `revision`, or the newest published one for 0.
    pub fn get(&self, key: &[u8], revision: u64) -> Result<Option<Arc<Revision>>> {
        let state = read(&self.state);
        let revision = state.keys.readable(revision)?;
        Ok(state.keys.at(key, revision).cloned())
    }

    /// Objects under `prefix` that match, in key order from `start` on, at most `limit` (0: all).
    pub fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        revision: u64,
        selector: &Selector,
    ) -> Result<Page> {
        let state = read(&self.state);
        let revision = state.keys.readable(revision)?;
        let found = state.keys.range(prefix, start, limit, revision, selector);
        Ok(Page {
            revision,
            items: found.items,
            next: found.next,
            remaining: found.remaining,
        })
    }

    /// Keys of objects that name `uid` as an owner, in order.
    pub fn by_owner(&self, uid: &str) -> Vec<Key> {
        read(&self.state).keys.by_owner(uid.as_bytes())
    }

    /// Watch what happens under `prefix` after `revision`; return the watcher's id. `notify` is called after each publication
    /// that concerns it.
    pub fn watch(
        &self,
        prefix: &[u8],
        revision: u64,
        selector: Selector,
        notify: Option<Notify>,
    ) -> Result<u64> {
        let mut state = write(&self.state);
        let State { keys, watchers } = &mut *state;
        if revision < keys.floor {
            return Err(StoreError::Compacted {
                revision,
                floor: keys.floor,
            });
        }
        if revision > keys.published {
            return Err(StoreError::FutureRevision {
                revision,
                current: keys.published,
            });
        }
        let past = keys.events_after(revision, keys.published);
        let backlog = past.filter(|event| super::keyspace::covers(prefix, &event.new.key));
        Ok(watchers.add(prefix, selector, backlog, notify))
    }

    /// Take queued events, at most `max_events` but never part of a revision.
    pub fn poll(&self, id: u64, max_events: usize) -> Result<Poll<Vec<Seen>>> {
        let state = read(&self.state);
        state.watchers.poll(id, state.keys.published, max_events)
    }

    /// Take queued events as shared watch lines, about `max_bytes` of them but never part of a revision.
    pub fn poll_frames(&self, id: u64, max_bytes: usize) -> Result<Poll<Vec<Frame>>> {
        let state = read(&self.state);
        state
            .watchers
            .poll_frames(id, state.keys.published, max_bytes)
    }

    /// Forget a watcher.
    pub fn unwatch(&self, id: u64) {
        write(&self.state).watchers.remove(id);
    }

    /// Forget history below `revision`. Its cost grows with what happened since the last compaction.
    pub fn compact(&self, revision: u64) -> Result<()> {
        let mut state = write(&self.state);
        if revision > state.keys.published {
            return Err(StoreError::FutureRevision {
                revision,
                current: state.keys.published,
            });
        }
        if revision > state.keys.floor {
            state.keys.compact(revision);
            if let Some(log) = &self.log {
                log.add_compaction(revision);
            }
        }
        Ok(())
    }

    /// Write a snapshot and drop the log behind it; return its revision. Blocks on the disk; commits and flushes may go on.
    /// In memory there is nothing to write.
    pub fn snapshot(&self) -> Result<u64> {
        let Some(log) = &self.log else {
            return Ok(self.revision());
        };
        log.replace_by_snapshot(|disk, uuid| {
            let (cut, (floor, states)) = log.cut(|revision| {
                let state = read(&self.state);
                (state.keys.floor, state.keys.retained(revision))
            })?;
            let header = snapshot::Header {
                uuid: *uuid,
                revision: cut.revision,
                floor,
                segment: cut.segment,
                chain: cut.chain,
                count: states.len() as u64,
            };
            Ok((cut, snapshot::save(disk, &header, &states)?))
        })
    }

    /// Flush, take no more writes and release the directory. Closing twice does nothing.
    pub fn close(&self) -> Result<()> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        if log.check().is_err() {
            log.close();
            return Ok(());
        }
        let flushed = log.flush();
        log.close();
        flushed.map(|_| ())
    }

    /// Figures for metrics and tests.
    pub fn stats(&self) -> BTreeMap<&'static str, u64> {
        let sizes = self.log.as_ref().map(Log::sizes).unwrap_or_default();
        let state = read(&self.state);
        BTreeMap::from([
            ("log_bytes", sizes.log_bytes),
            ("snapshot_bytes", sizes.snapshot_bytes),
            ("torn_bytes", sizes.torn_bytes),
            ("flushes", sizes.flushes),
            ("keys", state.keys.key_count() as u64),
            ("events", state.keys.history_len() as u64),
            ("index_pairs", state.keys.index_len() as u64),
            ("watchers", state.watchers.len() as u64),
            ("revision", state.keys.published),
            ("applied_revision", state.keys.applied),
            ("compacted_revision", state.keys.floor),
        ])
    }
}

/// Refuse the commit whose preconditions do not hold; nothing has been changed then.
fn check(keys: &Keyspace, ops: &[Op<'_>]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, op) in ops.iter().enumerate() {
        if ops.len() > 1 && !seen.insert(op.key) {
            return Err(StoreError::Invalid(format!(
                "op {index}: a key may stand only once in a commit"
            )));
        }
        if let (Some(value), Some(at)) = (op.value, op.splice_at)
            && at > value.len()
        {
            return Err(StoreError::Invalid(format!(
                "op {index}: the splice at {at} lies behind the value"
            )));
        }
        match (
            keys.newest(op.key).map(|newest| newest.modified),
            op.expected,
        ) {
            (Some(_), Some(0)) => return Err(StoreError::KeyExists { index }),
            (Some(current), Some(expected)) if current != expected => {
                return Err(StoreError::RevisionMismatch { index, current });
            }
            (None, Some(expected)) if expected != 0 => {
                return Err(StoreError::KeyMissing { index });
            }
            (None, _) if op.value.is_none() => return Err(StoreError::KeyMissing { index }),
            _ => {}
        }
    }
    Ok(())
}

/// The state that `op` makes of its key.
fn successor(keys: &Keyspace, op: Op<'_>, revision: u64, sub: u32) -> Revision {
    let key = keys.shared_key(op.key);
    let before = keys.newest(op.key);
    let created = before.map_or(revision, |before| before.created);
    let Some(value) = op.value else {
        return Revision {
            key,
            created,
            modified: revision,
            version: 0,
            sub,
            body: None,
            attributes: keys.no_attributes(),
        };
    };
    let version = before.map_or(0, |before| before.version) + 1;
    let body = Some(Body::spliced(
        value,
        op.splice_at,
        revision,
        natural(version),
    ));
    let attributes = keys.shared_attributes(op.key, op.attributes);
    Revision {
        key,
        created,
        modified: revision,
        version,
        sub,
        body,
        attributes,
    }
}

/// The type that a watcher of everything sees for a write.
pub(crate) fn natural(version: u64) -> EventType {
    if version == 1 {
        EventType::Added
    } else {
        EventType::Modified
    }
}
