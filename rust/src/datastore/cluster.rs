//! The datastore as the rest of the program sees it. Requests return at once with a ticket; answers come through the mailbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::endpoints::Config;
use super::failure::Error;
use super::mailbox::{Mail, Outcome};
use super::plan::Plan;
use super::shared::Shared;
use super::value::WriteId;
use super::{compact, follow, read, write};
use crate::store::{Op, Store, lock};

/// How long the first reading of the cluster may take, in requests.
const START_TIMEOUTS: u32 = 3;

/// See the room's own page.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
    asks: UnboundedSender<u64>,
    tickets: AtomicU64,
}

impl Cluster {
    /// Connect and fill the mirror. Blocks until that is done; fails with TimedOut, saying what was wrong last.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("korch-datastore")
            .enable_all()
            .build()
            .map_err(|error| Error::Invalid(format!("no thread could be started: {error}")))?;
        let (asks, asked) = unbounded_channel();
        let entered = runtime.enter();
        let shared = Arc::new(Shared::new(config, random()?)?);
        drop(entered);
        runtime.spawn(follow::follow(shared.clone()));
        runtime.spawn(read::serve(shared.clone(), asked));
        let filled = runtime.block_on(async {
            let deadline = Instant::now() + config.timeout * START_TIMEOUTS;
            shared.wait_for(1, deadline).await
        });
        if filled.is_err() {
            let problem = shared.problem();
            runtime.shutdown_background();
            return Err(Error::TimedOut(problem));
        }
        Ok(Cluster {
            shared,
            runtime: Mutex::new(Some(runtime)),
            asks,
            tickets: AtomicU64::new(0),
        })
    }

    /// The mirror.
    pub fn store(&self) -> Arc<Store> {
        self.shared.store.clone()
    }

    /// Apply all `ops` or none in one transaction; see `Outcome::Committed`. Fails at once with Invalid, Closed.
    pub fn commit(&self, ops: Vec<Op<'_>>) -> Result<u64, Error> {
        let ticket = self.ticket();
        let id = WriteId {
            server: self.shared.server,
            number: ticket,
        };
        let plan = Plan::new(ops, &self.shared.names, id)?;
        self.spawn(ticket, write::write(self.shared.clone(), plan))
    }

    /// Wait until the mirror shows all that the cluster has answered to anybody until now; see `Outcome::Seen`.
    pub fn catch_up(&self) -> Result<u64, Error> {
        let ticket = self.ticket();
        self.asks.send(ticket).map_err(|_| Error::Closed)?;
        Ok(ticket)
    }

    /// Wait, at most `timeout`, until the mirror shows `revision`, or for 0 the highest that the cluster has named; see `Outcome::Seen`.
    pub fn reach(&self, revision: u64, timeout: Duration) -> Result<u64, Error> {
        let shared = self.shared.clone();
        let revision = match revision {
            0 => shared.named(),
            _ => revision,
        };
        self.spawn(self.ticket(), async move {
            shared.wait_for(revision, Instant::now() + timeout).await?;
            Ok(Outcome::Seen { revision })
        })
    }

    /// Take part in the compaction of the cluster; see `Outcome::Compacted`.
    pub fn compact(&self, version: i64, revision: u64) -> Result<u64, Error> {
        let work = compact::compact(self.shared.clone(), version, revision);
        self.spawn(self.ticket(), work)
    }

    /// A descriptor that is readable while there is mail.
    pub fn descriptor(&self) -> RawFd {
        self.shared.mailbox.descriptor()
    }

    pub fn take_mail(&self) -> Mail {
        self.shared.mailbox.take()
    }

    /// What is wrong, "" when nothing is.
    pub fn problem(&self) -> String {
        self.shared.problem()
    }

    /// Figures for metrics and tests, the mirror's among them.
    pub fn stats(&self) -> BTreeMap<&'static str, u64> {
        let figures = &self.shared.figures;
        let mut stats = self.shared.store.stats();
        for (name, figure) in [
            ("datastore_writes", &figures.writes),
            ("datastore_retries", &figures.retries),
            ("datastore_reads", &figures.reads),
            ("datastore_reconnects", &figures.reconnects),
            ("datastore_relists", &figures.relists),
            ("datastore_unreadable", &figures.unreadable),
        ] {
            stats.insert(name, figure.load(Ordering::Relaxed));
        }
        stats
    }

    /// End all tasks; what was not answered never will be. Closing twice does nothing.
    pub fn close(&self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }

    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn spawn(
        &self,
        ticket: u64,
        work: impl Future<Output = Result<Outcome, Error>> + Send + 'static,
    ) -> Result<u64, Error> {
        let shared = self.shared.clone();
        let task = async move {
            let outcome = work.await;
            shared.mailbox.complete(ticket, outcome);
        };
        match lock(&self.runtime).as_ref() {
            Some(runtime) => {
                runtime.spawn(task);
                Ok(ticket)
            }
            None => Err(Error::Closed),
        }
    }
}

fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::Invalid(format!("no random number: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}
