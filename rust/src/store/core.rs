//! What the store's face, its committer and its fronts share: the state, the log, and the steps of a write in their order.
//!
//! Locks are taken in the order log, state, buffer. Readers hold the state only while they collect shared revisions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};

use super::error::{Result, StoreError};
use super::keyspace::Keyspace;
use super::log::{LeaseStep, Log};
use super::revision::Revision;
use super::segment::FORMAT_VERSION;
use super::txn::{Transacted, Txn};
use super::watch::{News, Watchers};
use super::{lock, read, snapshot, write};

/// Old revisions that a step of compaction looks at while it holds the state.
const TRIM_STEPS: usize = 200;
/// The least that others have the state between steps, on disk.
const BREATH: Duration = Duration::from_micros(100);

/// Keys that a step of a snapshot looks at while it holds the state.
const SNAPSHOT_STEP: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) keys: Keyspace,
    pub(crate) watchers: Watchers,
}

#[derive(Debug, Default)]
pub(crate) struct Core {
    pub(crate) state: RwLock<State>,
    /// What the state says is published, for those who ask for nothing else.
    published: AtomicU64,
    pub(crate) log: Option<Log>,
    mail: Mutex<Mail>,
    wakeup: OnceLock<OwnedFd>,
    /// Revisions that were applied and taken back, because the disk had no room for them, as ranges; the newest of them.
    lost: Mutex<VecDeque<(u64, u64)>>,
    lost_upto: AtomicU64,
    /// Snapshots that could not be written.
    pub(crate) snapshot_failures: AtomicU64,
}

/// Ranges of lost revisions that are remembered, for those who still ask for them.
const LOST_MAX: usize = 1_000;

/// What an event loop that polls the wake-up descriptor will be told.
#[derive(Debug, Default)]
struct Mail {
    watchers: BTreeSet<u64>,
    /// The newest revision that it waits for, and whether its publication was announced.
    wanted: u64,
    announced: u64,
    failure: Option<StoreError>,
}

/// What happened since the last call.
#[derive(Debug)]
pub struct Told {
    /// The newest published revision.
    pub revision: u64,
    /// Watchers without a `Notify` that have news, ascending.
    pub watchers: Vec<u64>,
    /// Why revisions behind it will never be published.
    pub failure: Option<StoreError>,
}

impl Core {
    /// A store without a disk.
    pub(crate) fn in_memory() -> Self {
        let state = State::default();
        Core {
            published: AtomicU64::new(state.keys.published),
            state: RwLock::new(state),
            ..Core::default()
        }
    }

    pub(crate) fn new(keys: Keyspace, log: Log) -> Self {
        let watchers = Watchers::default();
        Core {
            published: AtomicU64::new(keys.published),
            state: RwLock::new(State { keys, watchers }),
            log: Some(log),
            ..Core::default()
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), Log::check)
    }

    pub(crate) fn transact<T>(
        &self,
        body: impl FnOnce(&mut Txn<'_>) -> Result<T>,
    ) -> Result<(Transacted<T>, Vec<Arc<Revision>>)> {
        let mut state = write(&self.state);
        self.check()?;
        let mut txn = Txn::begin(&mut state.keys);
        let value = body(&mut txn)?;
        let states = txn.commit(self.log.as_ref())?;
        let transacted = Transacted {
            value,
            revision: state.keys.applied,
            wrote: !states.is_empty(),
        };
        Ok((transacted, states))
    }

    pub(crate) fn flush(&self) -> Result<u64> {
        match &self.log {
            Some(log) => log.flush(&|empty| self.take_back(log, empty)),
            None => Ok(read(&self.state).keys.applied),
        }
    }

    /// Undo what waited for a write that the disk had no room for, and tell those who wait. The next commit finds the durable state.
    /// A compaction among it is not undone: what it forgot is only back after a restart.
    fn take_back(&self, log: &Log, empty: &dyn Fn() -> Vec<LeaseStep>) {
        let mut state = write(&self.state);
        let durable = log.durable();
        let keys = &mut state.keys;
        for step in empty().into_iter().rev() {
            match step {
                LeaseStep::Granted { id } => keys.leases.revoke(id),
                LeaseStep::Revoked { id, ttl_s } => keys.leases.grant(id, ttl_s, None),
            }
        }
        keys.undo_after(durable);
        let (applied, published) = (keys.applied, keys.published);
        let mut lost = lock(&self.lost);
        // What was lost before and never followed by anything is lost again.
        while lost.back().is_some_and(|(first, _)| *first > durable) {
            lost.pop_back();
        }
        if applied > durable {
            lost.push_back((durable + 1, applied));
        }
        if lost.len() > LOST_MAX {
            lost.pop_front();
        }
        drop(lost);
        self.lost_upto.store(applied, Ordering::Release);
        drop(state);
        let full = StoreError::NoSpace {
            reason: log.problem().unwrap_or_default(),
        };
        self.tell(published, Vec::new(), Some(&full));
    }

    /// Fails when `revision`, which was applied, is never going to be published: with NoSpace when it was taken back, with Poisoned.
    pub(crate) fn kept(&self, revision: u64) -> Result<()> {
        // Nearly always nothing ever was.
        let is_lost = revision <= self.lost_upto.load(Ordering::Acquire)
            && lock(&self.lost)
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&revision));
        let Some(log) = &self.log else {
            return Ok(());
        };
        if is_lost {
            let reason = format!("revision {revision} was taken back");
            return Err(StoreError::NoSpace { reason });
        }
        if revision > log.durable() {
            log.check()?;
        }
        Ok(())
    }

    pub(crate) fn publish(&self, revision: u64) -> Vec<u64> {
        let mut state = write(&self.state);
        let durable = self.log.as_ref().map_or(state.keys.applied, Log::durable);
        let upto = revision.min(durable);
        let published = state.keys.published;
        if upto <= published {
            return Vec::new();
        }
        let State { keys, watchers } = &mut *state;
        let mut news = News::default();
        if !watchers.is_empty() {
            for change in keys.written_after(published, upto) {
                watchers.dispatch(change, &mut news);
            }
        }
        keys.published = upto;
        self.note_published(&state);
        drop(state);
        news.deliver()
    }

    /// Called with every change of what is published, before anybody else has the state.
    pub(crate) fn note_published(&self, state: &State) {
        self.published
            .store(state.keys.published, Ordering::Release);
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Move the floor, then forget in steps, so that nobody waits for more than one of them.
    pub(crate) fn compact(&self, revision: u64) -> Result<()> {
        let mut state = write(&self.state);
        if revision > state.keys.published {
            return Err(StoreError::FutureRevision {
                revision,
                current: state.keys.published,
            });
        }
        if revision > state.keys.floor {
            if let Some(log) = &self.log {
                log.add_compaction(revision)?;
            }
            state.keys.compact(revision);
        }
        drop(state);
        self.trim();
        Ok(())
    }

    /// Write a snapshot and drop the log behind it; return its revision. The state is only ever held for a step of keys, and what
    /// is being written is pinned meanwhile.
    pub(crate) fn snapshot(&self, log: &Log) -> Result<u64> {
        let saved = log.replace_by_snapshot(|disk, uuid| {
            let take_back = |empty: &dyn Fn() -> Vec<LeaseStep>| self.take_back(log, empty);
            let (cut, start) = log.cut(&take_back, |draw_line| {
                let mut state = write(&self.state);
                draw_line();
                let keys = &mut state.keys;
                keys.pin = Some(keys.floor);
                Ok((keys.applied, keys.floor, keys.leases.list()))
            })?;
            let (revision, floor, leases) = start;
            let header = snapshot::Header {
                version: FORMAT_VERSION,
                uuid: *uuid,
                revision,
                floor,
                segment: cut.segment,
                chain: cut.chain,
                count: 0,
            };
            let mut saving = snapshot::Saving::begin(disk, header)?;
            saving.put_leases(&leases)?;
            let mut after = None;
            loop {
                let state = read(&self.state);
                let retained = state
                    .keys
                    .retained(after.as_ref(), SNAPSHOT_STEP, floor, revision);
                drop(state);
                let (states, last) = retained;
                after = last;
                if after.is_none() {
                    break;
                }
                saving.put(&states)?;
            }
            Ok((cut, revision, saving.finish()?))
        });
        write(&self.state).keys.pin = None;
        self.trim();
        saved
    }

    /// Forget what compaction allows to.
    pub(crate) fn trim(&self) {
        let mut garbage = Vec::new();
        loop {
            let began = Instant::now();
            let is_done = write(&self.state).keys.trim(TRIM_STEPS, &mut garbage);
            // Memory is given back while others have the state.
            garbage.clear();
            if is_done {
                break;
            }
            if self.log.is_some() {
                // A lock that is taken again at once is rarely had by anybody else.
                std::thread::sleep(began.elapsed().max(BREATH));
            }
        }
        write(&self.state).keys.shrink();
    }

    pub(crate) fn grant(&self, id: i64, ttl_s: i64, now_ms: u64) -> Result<i64> {
        let mut state = write(&self.state);
        self.check()?;
        let leases = &mut state.keys.leases;
        let id = if id == 0 { leases.unused_id() } else { id };
        leases.check_new(id)?;
        if let Some(log) = &self.log {
            log.add_grant(id, ttl_s)?;
        }
        leases.grant(id, ttl_s, Some(now_ms));
        Ok(id)
    }

    /// Delete the lease's keys under one revision, then the lease; return how many keys that were.
    pub(crate) fn revoke(&self, id: i64) -> Result<Transacted<usize>> {
        let mut state = write(&self.state);
        self.check()?;
        let keys = state.keys.leases.keys(id)?;
        let ttl_s = state.keys.leases.granted_s(id)?;
        let mut txn = Txn::begin(&mut state.keys);
        for key in &keys {
            txn.delete(key)?;
        }
        let wrote = !txn.revoke(self.log.as_ref(), id, ttl_s)?.is_empty();
        state.keys.leases.revoke(id);
        Ok(Transacted {
            value: keys.len(),
            revision: state.keys.applied,
            wrote,
        })
    }

    /// Revoke every lease that ended by `now_ms`.
    pub(crate) fn expire(&self, now_ms: u64) -> Result<Vec<i64>> {
        let due = write(&self.state).keys.leases.due(now_ms);
        let mut revoked = Vec::with_capacity(due.len());
        for id in due {
            // It may have been kept alive or revoked since.
            let info = read(&self.state).keys.leases.info(id, now_ms);
            if info.is_ok_and(|info| info.remaining_s == 0) {
                match self.revoke(id) {
                    Ok(_) => revoked.push(id),
                    Err(StoreError::LeaseNotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(revoked)
    }

    /// The descriptor that becomes readable when there is something to be told.
    pub(crate) fn wakeup(&self) -> Result<RawFd> {
        if let Some(fd) = self.wakeup.get() {
            return Ok(fd.as_raw_fd());
        }
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let made = made.map_err(std::io::Error::from)?;
        Ok(self.wakeup.get_or_init(|| made).as_raw_fd())
    }

    /// Announce the publication of `revision` when it comes.
    pub(crate) fn want(&self, revision: u64) {
        let mut mail = lock(&self.mail);
        mail.wanted = mail.wanted.max(revision);
    }

    /// Leave word of a publication, or of its failure, and wake the event loop if that concerns it.
    pub(crate) fn tell(&self, published: u64, watchers: Vec<u64>, failure: Option<&StoreError>) {
        let mut mail = lock(&self.mail);
        let is_news = !watchers.is_empty()
            || failure.is_some()
            || (mail.announced < mail.wanted && published > mail.announced);
        mail.announced = mail.announced.max(published);
        mail.watchers.extend(watchers);
        if let Some(failure) = failure {
            mail.failure = Some(failure.repeated());
        }
        drop(mail);
        if is_news && let Some(fd) = self.wakeup.get() {
            // It can only fail when it is full of wake-ups.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn told(&self) -> Told {
        if let Some(fd) = self.wakeup.get() {
            // Nothing to read is no error here.
            let _ = rustix::io::read(fd, &mut [0u8; 8]);
        }
        let mut mail = lock(&self.mail);
        let watchers = std::mem::take(&mut mail.watchers).into_iter().collect();
        let failure = mail.failure.take();
        drop(mail);
        Told {
            revision: self.published(),
            watchers,
            failure,
        }
    }
}

/// Milliseconds of the system's monotonic clock, which Python's `time.monotonic` and asyncio's loops read as well.
pub fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
