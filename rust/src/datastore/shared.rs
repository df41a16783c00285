//! What the tasks of one datastore have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::endpoints::{Config, Endpoints};
use super::failure::{Error, Failure};
use super::mailbox::Mailbox;
use super::outstanding::Outstanding;
use super::plan::Names;
use crate::store::{Store, lock};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    pub(crate) names: Names,
    pub(crate) timeout: Duration,
    /// The mirror.
    pub(crate) store: Arc<Store>,
    /// The mirror's revision, for those who wait for it; 0 until it has been filled for the first time.
    pub(crate) seen: watch::Sender<u64>,
    pub(crate) outstanding: Outstanding,
    pub(crate) mailbox: Mailbox,
    /// Asks for the mirror to be filled anew.
    pub(crate) relist: Notify,
    /// This server's random number in the values that it writes.
    pub(crate) server: u64,
    /// The highest revision that an answer of the cluster has named.
    named: AtomicU64,
    problem: Mutex<String>,
    pub(crate) figures: Figures,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) writes: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) relists: AtomicU64,
    pub(crate) unreadable: AtomicU64,
}

impl Figures {
    pub(crate) fn count(figure: &AtomicU64) {
        figure.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(config: &Config, server: u64) -> Result<Self, Error> {
        let mailbox = Mailbox::new()
            .map_err(|error| Error::Invalid(format!("no socket pair could be made: {error}")))?;
        Ok(Shared {
            endpoints: Endpoints::new(config)?,
            names: Names::new(&config.prefix),
            timeout: config.timeout,
            store: Arc::new(Store::in_memory()),
            seen: watch::Sender::new(0),
            outstanding: Outstanding::default(),
            mailbox,
            relist: Notify::new(),
            server,
            named: AtomicU64::new(0),
            problem: Mutex::new("the cluster has not been read yet".into()),
            figures: Figures::default(),
        })
    }

    /// Remember that the cluster has reached `revision`.
    pub(crate) fn name_revision(&self, revision: u64) {
        self.named.fetch_max(revision, Ordering::Relaxed);
    }

    /// The highest revision that the cluster has named to us.
    pub(crate) fn named(&self) -> u64 {
        self.named.load(Ordering::Relaxed)
    }

    /// Wait until the mirror shows `revision`. Fails with TimedOut.
    pub(crate) async fn wait_for(&self, revision: u64, deadline: Instant) -> Result<(), Error> {
        let mut seen = self.seen.subscribe();
        let reached = seen.wait_for(|seen| *seen >= revision);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::TimedOut(format!(
                "revision {revision} of the etcd cluster has not arrived, the newest here is {}{}",
                self.store.revision(),
                self.suffix()
            ))),
        }
    }

    /// Wait until the mirror stands at a revision below `revision`, having been filled anew. Fails with TimedOut.
    pub(crate) async fn wait_for_other(
        &self,
        revision: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut seen = self.seen.subscribe();
        let moved = seen.wait_for(|seen| *seen < revision);
        match tokio::time::timeout_at(deadline, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::TimedOut(
                "the etcd cluster's revisions have gone back".into(),
            )),
        }
    }

    /// What is wrong with the watch that feeds the mirror, "" when nothing is.
    pub(crate) fn problem(&self) -> String {
        lock(&self.problem).clone()
    }

    /// Set what is wrong, and leave a note when that changes between good and bad.
    pub(crate) fn set_problem(&self, problem: &str) {
        let mut current = lock(&self.problem);
        if current.is_empty() && !problem.is_empty() {
            self.mailbox.note(format!(
                "the watch on the etcd cluster was interrupted: {problem}"
            ));
        } else if !current.is_empty() && problem.is_empty() {
            self.mailbox
                .note("the etcd cluster is being watched".to_string());
        }
        current.clear();
        current.push_str(problem);
    }

    fn suffix(&self) -> String {
        match self.problem() {
            problem if problem.is_empty() => problem,
            problem => format!(" ({problem})"),
        }
    }
}

/// Tries until a deadline, with growing pauses. Remembers the last failure's words.
#[derive(Debug)]
pub(crate) struct Tries {
    pub(crate) deadline: Instant,
    pause: Duration,
    /// Whether an earlier try may have succeeded without our knowing.
    pub(crate) is_ambiguous: bool,
    last: String,
}

impl Tries {
    pub(crate) fn new(timeout: Duration) -> Self {
        Tries {
            deadline: Instant::now() + timeout,
            pause: BACKOFF_MIN,
            is_ambiguous: false,
            last: "etcdserver: request timed out".into(),
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Pause before the next try, or give up: with the failure when another try is no use, with TimedOut when time is up.
    pub(crate) async fn pause_after(&mut self, failure: Failure) -> Result<(), Error> {
        match failure {
            Failure::Final(words) => return Err(Error::Refused(words)),
            Failure::Passing {
                words,
                is_ambiguous,
            } => {
                self.is_ambiguous |= is_ambiguous;
                // What the cluster says is more telling than that a member cannot be reached.
                if words.starts_with("etcdserver:") || !self.last.starts_with("etcdserver: leader")
                {
                    self.last = words;
                }
            }
        }
        if self.left() <= self.pause {
            return Err(Error::TimedOut(std::mem::take(&mut self.last)));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
        Ok(())
    }
}
