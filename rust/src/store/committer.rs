//! The thread that makes commits durable: flush, publish, then answer all who wait, again and again.
//!
//! While the disk works new commits gather, and the next flush takes them all: batches grow with load, without a timer. The thread
//! starts with the first who waits, also revokes leases when they end, and has a snapshot written by another thread when the log
//! got long. A store in memory has no such thread; there everything is published at once, by whoever asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::core::{Core, monotonic_ms};
use super::error::{Result, StoreError};
use super::lock;
use super::log::Log;

/// Called once, from the committer's thread or the caller's; it must not block.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// How long after a failure ended leases are looked at again, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// After a snapshot none is begun for so many times as long as it took. It leaves half of the disk's time to others already, and
/// what is logged meanwhile is what the next start has to replay.
const PAUSES: u64 = 4;

/// How long after a failed snapshot none is tried, in milliseconds.
const AFTER_FAILURE_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    /// With the revision that must be published, 0 for whatever was logged before.
    waiters: Vec<(u64, Done)>,
    /// Somebody wants a flush, or leases to be looked at.
    is_requested: bool,
    /// The thread runs, or is about to.
    is_started: bool,
    is_closing: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Queue")
            .field("waiters", &self.waiters.len())
            .field("is_requested", &self.is_requested)
            .field("is_started", &self.is_started)
            .field("is_closing", &self.is_closing)
            .finish()
    }
}

impl Committer {
    /// Flush and publish soon.
    pub(crate) fn request(&self, core: &Arc<Core>) {
        self.enqueue(core, None);
    }

    /// Call `done` after a flush and publication that begin from now on; with `revision`, once that one is published.
    pub(crate) fn wait(&self, core: &Arc<Core>, revision: u64, done: Done) {
        if let Some((_, done)) = self.enqueue(core, Some((revision, done))) {
            done(Err(closed()));
        }
    }

    fn enqueue(&self, core: &Arc<Core>, waiter: Option<(u64, Done)>) -> Option<(u64, Done)> {
        let mut queue = lock(&self.shared.queue);
        if queue.is_closing {
            return waiter;
        }
        queue.waiters.extend(waiter);
        if !std::mem::replace(&mut queue.is_requested, true) {
            self.shared.wake.notify_one();
        }
        let is_started = std::mem::replace(&mut queue.is_started, true);
        drop(queue);
        if !is_started {
            let mut thread = lock(&self.thread);
            let (core, shared) = (core.clone(), self.shared.clone());
            let named = std::thread::Builder::new().name("store-committer".into());
            match named.spawn(move || run(&core, &shared)) {
                Ok(started) => *thread = Some(started),
                Err(error) => self.fail_all(&StoreError::Io(error)),
            }
        }
        None
    }

    /// Without a thread nobody would ever be answered.
    fn fail_all(&self, error: &StoreError) {
        let mut queue = lock(&self.shared.queue);
        queue.is_requested = false;
        queue.is_started = false;
        let waiters = std::mem::take(&mut queue.waiters);
        drop(queue);
        for (_, done) in waiters {
            done(Err(error.repeated()));
        }
    }

    /// Answer all who wait, and end.
    pub(crate) fn close(&self) {
        lock(&self.shared.queue).is_closing = true;
        self.shared.wake.notify_one();
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        // The last owner of a store may let go of it in an answer, on that very thread.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Poisoned {
        reason: "it is closed".into(),
    }
}

fn run(core: &Arc<Core>, shared: &Shared) {
    let mut retry_at = 0;
    let mut snapshots = Snapshots::default();
    loop {
        let (waiters, is_closing) = next(core, shared, retry_at);
        let now_ms = monotonic_ms();
        if !is_closing && now_ms >= retry_at && core.expire(now_ms).is_err() {
            retry_at = now_ms + RETRY_MS;
        }
        let flushed = core.flush();
        let watchers = match &flushed {
            Ok(durable) => core.publish(*durable),
            Err(_) => Vec::new(),
        };
        let published = core.published();
        core.tell(published, watchers, flushed.as_ref().err());
        let (mut early, mut is_behind) = (Vec::new(), false);
        for (revision, done) in waiters {
            let kept = core.kept(revision);
            match &flushed {
                _ if revision != 0 && kept.is_err() => done(kept),
                _ if revision != 0 && revision <= published => done(Ok(())),
                Ok(_) if revision == 0 => done(Ok(())),
                Ok(_) => early.push((revision, done)),
                // It came after what was taken back, and has a flush of its own before it.
                Err(StoreError::NoSpace { .. }) if revision != 0 && !is_closing => {
                    is_behind = true;
                    early.push((revision, done));
                }
                Err(error) => done(Err(error.repeated())),
            }
        }
        if is_closing {
            snapshots.join();
            for (_, done) in early {
                done(Err(closed()));
            }
            return;
        }
        if !early.is_empty() {
            let mut queue = lock(&shared.queue);
            queue.waiters.extend(early);
            queue.is_requested |= is_behind;
        }
        snapshots.keep(core, now_ms);
    }
}

/// Writes snapshots one at a time, and not all the time.
#[derive(Debug, Default)]
struct Snapshots {
    running: Option<JoinHandle<()>>,
    /// When the next one may begin, in milliseconds.
    resume_ms: Arc<AtomicU64>,
}

impl Snapshots {
    fn keep(&mut self, core: &Arc<Core>, now_ms: u64) {
        let is_running = self.running.as_ref().is_some_and(|one| !one.is_finished());
        let is_long = core.log.as_ref().is_some_and(Log::is_long);
        if is_running || !is_long || now_ms < self.resume_ms.load(Ordering::Relaxed) {
            return;
        }
        let (core, resume_ms) = (core.clone(), self.resume_ms.clone());
        let thread = std::thread::Builder::new().name("store-snapshot".into());
        let write = move || {
            let log = core.log.as_ref();
            let failed = log.is_some_and(|log| core.snapshot(log).is_err());
            let ended_ms = monotonic_ms();
            let pause_ms = if failed {
                AFTER_FAILURE_MS
            } else {
                PAUSES * (ended_ms - now_ms)
            };
            resume_ms.store(ended_ms + pause_ms, Ordering::Relaxed);
            core.snapshot_failures
                .fetch_add(u64::from(failed), Ordering::Relaxed);
        };
        self.running = thread.spawn(write).ok();
    }

    fn join(self) {
        if let Some(running) = self.running {
            let _ = running.join();
        }
    }
}

/// Sleep until there is something to do; return who waits for it, and whether it is the last time.
fn next(core: &Core, shared: &Shared, retry_at: u64) -> (Vec<(u64, Done)>, bool) {
    let mut queue = lock(&shared.queue);
    while !queue.is_requested && !queue.is_closing {
        drop(queue);
        let due = super::read(&core.state).keys.leases.next_due();
        queue = lock(&shared.queue);
        if queue.is_requested || queue.is_closing {
            break;
        }
        queue = match due {
            None => shared
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                let now_ms = monotonic_ms();
                let due = due.max(retry_at);
                if due <= now_ms {
                    break;
                }
                let rest = Duration::from_millis(due - now_ms);
                let woken = shared.wake.wait_timeout(queue, rest);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
    queue.is_requested = false;
    let is_closing = queue.is_closing;
    (std::mem::take(&mut queue.waiters), is_closing)
}
