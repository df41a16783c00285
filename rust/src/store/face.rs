//! The store as the rest of the program sees it: one writer at a time, any number of readers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::attributes::Attributes;
use super::committer::{Committer, Done};
use super::core::{Core, State, Told, monotonic_ms};
use super::disk::{Disk, RealDisk};
use super::error::{Result, StoreError};
use super::histogram::Durations;
use super::keyspace::{Found, Keyspace};
use super::lease::LeaseInfo;
use super::log::{Log, SEGMENT_BYTES};
use super::mem_disk::MemDisk;
use super::revision::{Frame, Key, Revision};
use super::selector::Selector;
use super::span::Span;
use super::txn::{Transacted, Txn};
use super::watch::{Notify, Poll, Seen};
use super::{read, recovery, segment, snapshot, write};

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

impl Page {
    pub(crate) fn new(revision: u64, found: Found) -> Self {
        Page {
            revision,
            items: found.items,
            next: found.next,
            remaining: found.remaining,
        }
    }
}

/// See the room's own page for how commit, flush and publish play together.
#[derive(Debug)]
pub struct Store {
    pub(super) core: Arc<Core>,
    committer: Committer,
}

impl Store {
    /// A store without a disk.
    pub fn in_memory() -> Self {
        Store {
            core: Arc::new(Core::in_memory()),
            committer: Committer::default(),
        }
    }

    /// Open the directory `path`, made if missing. Blocks while the log is read.
    pub fn open(path: &Path) -> Result<Self> {
        Store::open_on(Arc::new(RealDisk::new(path)?), SEGMENT_BYTES)
    }

    /// Open what `disk` holds, with log segments of about `segment_bytes`.
    pub fn open_on(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Self> {
        let (keys, log) = recovery::open(disk, segment_bytes)?;
        Ok(Store {
            core: Arc::new(Core::new(keys, log)),
            committer: Committer::default(),
        })
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Run `body` against the newest applied state while nobody else writes. What it writes through the transaction shares one new
    /// revision; if it fails, or the disk is full, nothing has changed; if it writes nothing, there is no new revision.
    /// `body` must not call the store. Fails with NoSpace, Poisoned.
    pub fn transact<T>(
        &self,
        body: impl FnOnce(&mut Txn<'_>) -> Result<T>,
    ) -> Result<Transacted<T>> {
        Ok(self.core.transact(body)?.0)
    }

    /// Apply all `ops` or none under one new revision; return it and the states it made.
    pub fn commit(&self, ops: Vec<Op<'_>>) -> Result<(u64, Vec<Arc<Revision>>)> {
        let apply = |txn: &mut Txn<'_>| {
            check(txn.keys(), &ops)?;
            ops.into_iter()
                .enumerate()
                .try_for_each(|(index, op)| match txn.write(op, 0) {
                    Err(StoreError::DuplicateKey) => Err(StoreError::Invalid(format!(
                        "op {index}: a key may stand only once in a commit"
                    ))),
                    written => written.map(|_| ()),
                })
        };
        let (transacted, states) = self.core.transact(apply)?;
        Ok((transacted.revision, states))
    }

    /// Make every commit so far durable; return the durable revision. Blocks on the disk.
    pub fn flush(&self) -> Result<u64> {
        self.core.flush()
    }

    /// Make durable revisions up to `revision` visible; return the ids of watchers without a `Notify` that have news, ascending.
    pub fn publish(&self, revision: u64) -> Vec<u64> {
        self.core.publish(revision)
    }

    /// Call `done` once `revision`, which was applied, is durable and published, or with the reason why it never will be. On disk
    /// the committer's thread calls it, after one flush for all who wait; in memory everything is published and `done` called at
    /// once. It must not block.
    pub fn when_published(&self, revision: u64, done: Done) {
        if let Err(error) = self.core.kept(revision) {
            return done(Err(error));
        }
        if self.core.published() >= revision {
            return done(Ok(()));
        }
        if self.core.log.is_none() {
            self.publish_now();
            return done(Ok(()));
        }
        self.committer.wait(&self.core, revision, done);
    }

    /// Call `done` once everything logged so far is durable and published: what a lease's grant waits for, which has no revision.
    pub fn when_flushed(&self, done: Done) {
        if self.core.log.is_none() {
            self.publish_now();
            return done(Ok(()));
        }
        self.committer.wait(&self.core, 0, done);
    }

    /// In memory what is applied is durable. Watchers of an event loop hear of it through the wake-up descriptor.
    fn publish_now(&self) {
        let watchers = self.core.publish(u64::MAX);
        self.core.tell(self.core.published(), watchers, None);
    }

    /// A descriptor that becomes readable when `told` has something to say; it belongs to the store. Only one event loop may use it.
    pub fn wakeup(&self) -> Result<i32> {
        self.core.wakeup()
    }

    /// Flush and publish soon, and then say so through the wake-up descriptor. Returns at once. On disk only.
    pub fn request(&self, revision: u64) {
        self.core.want(revision);
        self.committer.request(&self.core);
    }

    /// What happened since the last call: for the event loop that polls the wake-up descriptor.
    pub fn told(&self) -> Told {
        self.core.told()
    }

    /// Fails when `revision`, which a commit returned, is never going to be published: with NoSpace when the disk had no room and it
    /// was taken back, with Poisoned when the log cannot be written any more.
    pub fn kept(&self, revision: u64) -> Result<()> {
        self.core.kept(revision)
    }

    /// Why nothing can be written now, None when all is well. A full disk is asked again.
    pub fn problem(&self) -> Option<String> {
        self.core.log.as_ref().and_then(Log::problem)
    }

    /// The newest published revision.
    pub fn revision(&self) -> u64 {
        self.core.published()
    }

    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> u64 {
        read(&self.core.state).keys.floor
    }

    /// The state of `key` at `revision`, or the newest published one for 0.
    pub fn get(&self, key: &[u8], revision: u64) -> Result<Option<Arc<Revision>>> {
        let state = read(&self.core.state);
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
        let state = read(&self.core.state);
        let revision = state.keys.readable(revision)?;
        let span = Span::prefix(prefix);
        let found = state.keys.range(&span, start, limit, revision, selector);
        Ok(Page::new(revision, found))
    }

    /// Keys of `span` in order, at most `limit` (0: all), at `revision` or, for 0, at the newest published one. The page's `next`
    /// says that there are more, and `remaining` how many. Fails with Compacted, FutureRevision.
    pub fn span(&self, span: &Span<'_>, limit: usize, revision: u64) -> Result<Page> {
        let state = read(&self.core.state);
        let revision = state.keys.readable(revision)?;
        let everything = Selector::default();
        let found = state.keys.range(span, b"", limit, revision, &everything);
        Ok(Page::new(revision, found))
    }

    /// How many keys `span` would return without a limit, and the revision they were counted at.
    pub fn count(&self, span: &Span<'_>, revision: u64) -> Result<(usize, u64)> {
        let state = read(&self.core.state);
        let revision = state.keys.readable(revision)?;
        Ok((state.keys.count(span, b"", revision), revision))
    }

    /// Keys of objects that name `uid` as an owner, in order.
    pub fn by_owner(&self, uid: &str) -> Vec<Key> {
        read(&self.core.state).keys.by_owner(uid.as_bytes())
    }

    /// Watch what happens under `prefix` after `revision`; see `watch_span`.
    pub fn watch(
        &self,
        prefix: &[u8],
        revision: u64,
        selector: Selector,
        notify: Option<Notify>,
    ) -> Result<u64> {
        self.watch_span(&Span::prefix(prefix), revision, selector, notify)
    }

    /// Watch what happens in `span` after `revision`; return the watcher's id. `notify` is called after each publication that
    /// concerns it; what happened up to now is queued already. Fails with Compacted, FutureRevision.
    pub fn watch_span(
        &self,
        span: &Span<'_>,
        revision: u64,
        selector: Selector,
        notify: Option<Notify>,
    ) -> Result<u64> {
        let mut state = write(&self.core.state);
        if revision < state.keys.floor {
            return Err(StoreError::Compacted {
                revision,
                floor: state.keys.floor,
            });
        }
        begin_watch(&mut state, span, revision, selector, notify)
    }

    /// Watch what happens in `span` from revision `first` on, as etcd does: what was written at the compaction floor itself is still
    /// told, though no longer what it replaced. Fails with Compacted, FutureRevision (when `first` is beyond the next one).
    pub fn watch_from(&self, span: &Span<'_>, first: u64, notify: Option<Notify>) -> Result<u64> {
        let mut state = write(&self.core.state);
        if first < state.keys.floor {
            return Err(StoreError::Compacted {
                revision: first,
                floor: state.keys.floor,
            });
        }
        let seen = first.saturating_sub(1);
        begin_watch(&mut state, span, seen, Selector::default(), notify)
    }

    /// Take queued events, at most `max_events` but never part of a revision.
    pub fn poll(&self, id: u64, max_events: usize) -> Result<Poll<Vec<Seen>>> {
        let state = read(&self.core.state);
        state.watchers.poll(id, state.keys.published, max_events)
    }

    /// Take queued events as shared watch lines, about `max_bytes` of them but never part of a revision.
    pub fn poll_frames(&self, id: u64, max_bytes: usize) -> Result<Poll<Vec<Frame>>> {
        let state = read(&self.core.state);
        state
            .watchers
            .poll_frames(id, state.keys.published, max_bytes)
    }

    /// Forget a watcher.
    pub fn unwatch(&self, id: u64) {
        write(&self.core.state).watchers.remove(id);
    }

    /// Forget history below `revision`. Its cost grows with what happened since the last compaction; writers go on meanwhile.
    /// Fails with FutureRevision, NoSpace.
    pub fn compact(&self, revision: u64) -> Result<()> {
        self.core.compact(revision)
    }

    /// Grant a lease for `ttl_s` seconds from `now_ms` on, called `id` or, for 0, something unused; return its id. It is durable
    /// after `when_flushed`. Fails with LeaseExists, NoSpace.
    pub fn lease_grant(&self, id: i64, ttl_s: i64, now_ms: u64) -> Result<i64> {
        let id = self.core.grant(id, ttl_s, now_ms)?;
        if self.core.log.is_some() {
            // It looks at the leases again, for this one may be the next to end.
            self.committer.request(&self.core);
        }
        Ok(id)
    }

    /// Delete the keys of a lease, all under one revision, and the lease; return how many keys it had. Fails with LeaseNotFound.
    pub fn lease_revoke(&self, id: i64) -> Result<Transacted<usize>> {
        self.core.revoke(id)
    }

    /// Let the lease's time to live begin anew at `now_ms`; return it in seconds. Not logged: after a restart all begin anew.
    /// Fails with LeaseNotFound.
    pub fn lease_keep_alive(&self, id: i64, now_ms: u64) -> Result<i64> {
        write(&self.core.state).keys.leases.keep_alive(id, now_ms)
    }

    /// How long a lease has left at `now_ms`, and which keys are attached to it. Fails with LeaseNotFound.
    pub fn lease_time_to_live(&self, id: i64, now_ms: u64) -> Result<LeaseInfo> {
        read(&self.core.state).keys.leases.info(id, now_ms)
    }

    /// The ids of all leases, ascending, each with its granted time to live in seconds.
    pub fn leases(&self) -> Vec<(i64, i64)> {
        read(&self.core.state).keys.leases.list()
    }

    /// Revoke every lease that has ended by `now_ms`; return their ids. On disk the committer does that by itself.
    pub fn expire(&self, now_ms: u64) -> Result<Vec<i64>> {
        self.core.expire(now_ms)
    }

    /// Write a snapshot and drop the log behind it; return its revision. Blocks on the disk; commits and flushes may go on.
    /// In memory there is nothing to write.
    pub fn snapshot(&self) -> Result<u64> {
        match &self.core.log {
            Some(log) => self.core.snapshot(log),
            None => Ok(self.revision()),
        }
    }

    /// Let the committer write a snapshot when the log unpacks to more than `bytes` (256 MiB unless set). Snapshots take a fifth of the
    /// time at most, and half of the disk's in it.
    pub fn snapshot_after(&self, bytes: u64) {
        if let Some(log) = &self.core.log {
            log.set_long_bytes(bytes);
        }
    }

    /// A number that no other store has, made when the directory was; a store in memory has a new one each time.
    pub fn id(&self) -> u128 {
        match &self.core.log {
            Some(log) => u128::from_le_bytes(log.uuid()),
            None => u128::from(monotonic_ms()) << 64 | u128::from(std::process::id()),
        }
    }

    /// Whether there is a disk under it.
    pub fn is_durable(&self) -> bool {
        self.core.log.is_some()
    }

    /// Events in the queues of all watchers. Looks at every watcher.
    pub fn pending_events(&self) -> usize {
        read(&self.core.state).watchers.pending()
    }

    /// How long syncs of the log took, and whole batches: written and synced. None in memory.
    pub fn times(&self) -> Option<(Durations, Durations)> {
        self.core.log.as_ref().map(Log::times)
    }

    /// The published state with its history and its leases, as a snapshot file. Writers wait while it is collected, but not while it
    /// is encoded.
    pub fn backup(&self) -> Result<Vec<u8>> {
        let state = read(&self.core.state);
        let (floor, revision) = (state.keys.floor, state.keys.published);
        let (states, _) = state.keys.retained(None, usize::MAX, floor, revision);
        let leases = state.keys.leases.list();
        drop(state);
        let disk = MemDisk::default();
        let header = snapshot::Header {
            version: segment::FORMAT_VERSION,
            uuid: self.id().to_le_bytes(),
            revision,
            floor,
            segment: 1,
            chain: 0,
            count: 0,
        };
        let mut saving = snapshot::Saving::begin(&disk, header)?;
        saving.put_leases(&leases)?;
        saving.put(&states)?;
        saving.finish()?;
        Ok(disk.read(&snapshot::name(revision))?)
    }

    /// Flush, take no more writes and release the directory. Closing twice does nothing.
    pub fn close(&self) -> Result<()> {
        self.committer.close();
        let Some(log) = &self.core.log else {
            return Ok(());
        };
        if log.check().is_err() {
            log.close();
            return Ok(());
        }
        let flushed = self.core.flush();
        log.close();
        flushed.map(|_| ())
    }

    /// Figures for metrics and tests.
    pub fn stats(&self) -> BTreeMap<&'static str, u64> {
        let sizes = self.core.log.as_ref().map(Log::sizes).unwrap_or_default();
        let snapshot_failures = self.core.snapshot_failures.load(Ordering::Relaxed);
        let state = read(&self.core.state);
        BTreeMap::from([
            ("log_bytes", sizes.log_bytes),
            ("log_plain_bytes", sizes.plain_bytes),
            ("snapshot_bytes", sizes.snapshot_bytes),
            ("snapshot_failures", snapshot_failures),
            ("torn_bytes", sizes.torn_bytes),
            ("flushes", sizes.flushes),
            ("flushed_bytes", sizes.flushed_bytes),
            ("keys", state.keys.key_count() as u64),
            ("events", state.keys.history_len() as u64),
            ("index_pairs", state.keys.index_len() as u64),
            ("leases", state.keys.leases.len() as u64),
            ("watchers", state.watchers.len() as u64),
            ("revision", state.keys.published),
            ("applied_revision", state.keys.applied),
            ("compacted_revision", state.keys.floor),
        ])
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.committer.close();
    }
}

/// Refuse the commit whose preconditions do not hold; nothing has been changed then.
fn check(keys: &Keyspace, ops: &[Op<'_>]) -> Result<()> {
    for (index, op) in ops.iter().enumerate() {
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

/// Register a watcher of what happens after `revision`, which history reaches back to.
fn begin_watch(
    state: &mut State,
    span: &Span<'_>,
    revision: u64,
    selector: Selector,
    notify: Option<Notify>,
) -> Result<u64> {
    let State { keys, watchers } = state;
    if revision > keys.published {
        return Err(StoreError::FutureRevision {
            revision,
            current: keys.published,
        });
    }
    let past = keys.written_after(revision, keys.published);
    let covered = past.filter(|change| span.contains(&change.new.key));
    let backlog = covered.map(|change| change.event());
    Ok(watchers.add(span, selector, backlog, notify))
}
