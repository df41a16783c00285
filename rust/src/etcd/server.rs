//! What all connections share: the store, who we are, and when to stop.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::answer::{Identity, RAFT_TERM};
use super::metrics::Metrics;
use super::status::{self, Code, Result, Status};
use super::wire::ResponseHeader;
use crate::socket::Stopping;
use crate::store::{Store, StoreError};

/// What the front tells clients about itself and about how it behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The member's name.
    pub name: String,
    /// URLs under which clients reach it.
    pub client_urls: Vec<String>,
    /// How often a watch that asked for it is told that nothing happened.
    pub progress_every: Duration,
}

#[derive(Debug)]
pub(super) struct Server {
    store: Arc<Store>,
    identity: Identity,
    pub(super) options: Options,
    /// One compaction at a time.
    pub(super) compacting: Mutex<()>,
    failure: Arc<OnceLock<Status>>,
    metrics: Arc<Metrics>,
    stopping: Stopping,
}

impl Server {
    pub(super) fn new(
        store: Arc<Store>,
        options: Options,
        metrics: Arc<Metrics>,
        stopping: Stopping,
    ) -> Self {
        let id = store.id();
        Server {
            identity: Identity {
                // Two halves of the store's own random name: neither may be zero.
                cluster_id: (id >> 64) as u64 | 1,
                member_id: id as u64 | 1,
            },
            store,
            options,
            compacting: Mutex::new(()),
            failure: Arc::default(),
            metrics,
            stopping,
        }
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The header of an answer that shows the state of `revision`.
    pub(super) fn header(&self, revision: u64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision: revision as i64,
            raft_term: RAFT_TERM,
        })
    }

    /// Why nothing will be published any more, once that is known.
    pub(super) fn failure(&self) -> Option<&Status> {
        self.failure.get()
    }

    /// Whether the disk has no room for writes.
    pub(super) fn is_full(&self) -> bool {
        self.failure().is_none() && self.store.problem().is_some()
    }

    /// Call `done` once `revision` is published, or never will be.
    pub(super) fn when_published(
        &self,
        revision: u64,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let failure = Arc::clone(&self.failure);
        let told = move |published: std::result::Result<(), StoreError>| {
            done(published.map_err(|error| {
                let is_final = matches!(error, StoreError::Poisoned { .. });
                let status = Status::from(error);
                if is_final {
                    failure.get_or_init(|| status.clone());
                }
                status
            }));
        };
        self.store.when_published(revision, Box::new(told));
    }

    /// Wait until `revision` is published. Fails when it never will be.
    pub(super) async fn until_published(&self, revision: u64) -> Result<()> {
        if self.store.revision() >= revision {
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        // Whoever waits may have left; then nobody is told.
        self.when_published(revision, move |published| drop(tell.send(published)));
        told.await.unwrap_or(Err(status::STOPPED))
    }

    /// Wait until everything that the store has taken so far is on disk.
    pub(super) async fn until_flushed(&self) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.store.when_flushed(Box::new(move |flushed| {
            drop(tell.send(flushed.map_err(Status::from)));
        }));
        told.await.unwrap_or(Err(status::STOPPED))
    }

    /// Do something that blocks on a thread of its own.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Server) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let server = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&server)).await;
        done.unwrap_or_else(|error| Err(Status::new(Code::Internal, error.to_string())))
    }

    /// Wait until the front stops. The future owns what it needs.
    pub(super) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stopping.wait()
    }

    /// Count a stream that is open, until the value is dropped.
    pub(super) fn open_stream(self: &Arc<Self>) -> OpenStream {
        self.metrics.watch_streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }
}

#[derive(Debug)]
pub(super) struct OpenStream(Arc<Server>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.metrics.watch_streams.fetch_sub(1, Ordering::Relaxed);
    }
}
