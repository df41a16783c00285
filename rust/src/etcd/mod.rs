//! etcd's v3 API over gRPC, on the store, with no Python on the way: what etcdctl, etcd's client libraries and a kube-apiserver talk to.
//!
//! `listen` accepts connections (with `tls`), `connection` serves one over `socket`, `calls` carries out the `method`; `kv` (with `checks`
//! and `compare`), `watch` (with `events`), `lease` and `maintenance` are the services. `wire` holds the messages of requests and small
//! answers; large answers are encoded by `answer` and `events` straight from the store. `framing` is gRPC's, `status` etcd's errors,
//! `metrics` what `exporter` shows.
//! `client` calls a server instead.

mod answer;
mod calls;
mod checks;
pub mod client;
mod compare;
mod connection;
mod events;
mod exporter;
mod framing;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod method;
mod metrics;
mod server;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod watch;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use metrics::Metrics;
pub use server::Options;
pub use tls::Tls;

use crate::store::Store;

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("{what}: {why}")]
    Certificate { what: &'static str, why: String },
    #[error("cannot listen on {address}: {source}")]
    Bind {
        address: String,
        source: std::io::Error,
    },
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    #[error("the front is open already")]
    Started,
}

/// What a front needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`; port 0 takes a free one.
    pub bind: Vec<String>,
    /// `host:port` of the exporter, empty for none.
    pub metrics_bind: String,
    /// None: in the clear.
    pub tls: Option<Tls>,
    pub threads: usize,
    pub options: Options,
}

/// An open front. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Front {
    runtime: Runtime,
    stop: tokio::sync::watch::Sender<bool>,
    /// Every connection holds a sender; the channel ends when all are gone.
    alive: tokio::sync::mpsc::Receiver<()>,
    addresses: Vec<SocketAddr>,
}

impl Front {
    /// Bind, start the threads and accept. Blocks for some milliseconds.
    pub fn open(
        config: Config,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, FrontError> {
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some(tls::server_config(tls)?.into()),
        };
        let listeners = config
            .bind
            .iter()
            .map(|address| listen::bind(address))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let exporter = match config.metrics_bind.as_str() {
            "" => None,
            address => Some(listen::bind(address)?),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("etcd-front")
            .enable_all()
            .build()
            .map_err(FrontError::Threads)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (guard, alive) = tokio::sync::mpsc::channel(1);
        let mut options = config.options;
        if options.client_urls.is_empty() {
            let scheme = if config.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let urls = addresses
                .iter()
                .map(|address| format!("{scheme}://{address}"));
            options.client_urls = urls.collect();
        }
        let server = Arc::new(server::Server::new(store, options, metrics, stopped));
        for listener in listeners {
            let server = Arc::clone(&server);
            runtime.spawn(listen::accept(listener, tls.clone(), server, guard.clone()));
        }
        if let Some(listener) = exporter {
            runtime.spawn(exporter::accept(listener, Arc::clone(&server)));
        }
        runtime.spawn(lease::expire(server));
        Ok(Self {
            runtime,
            stop,
            alive,
            addresses,
        })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accept no more, end streams, let other calls finish for `grace`, then cut what is left. Blocks for at most a little more
    /// than `grace`.
    pub fn close(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        let alive = &mut self.alive;
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(grace, alive.recv()).await });
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }
}
