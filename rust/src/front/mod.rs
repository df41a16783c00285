//! The server's socket. It speaks HTTP/1.1 and HTTP/2 over TLS with clients, answers the reads that it has been allowed to answer from
//! the store, and hands every other request to the application over HTTP/1.1 on a Unix socket, together with what only the socket's
//! owner knows: the verified client certificate and the address. Upgrades (exec, attach, port-forward) become byte pipes. It runs on threads of its own, which never touch Python.
//!
//! `tls` reads certificates, `listen` accepts and serves connections, `reads` answers from the store, `forward` carries one request, `pool` keeps connections to
//! the application, `headers` knows which header may cross, `body` carries what comes back, `status` answers when nobody else can.

mod body;
mod forward;
mod headers;
mod listen;
mod pool;
mod reads;
mod stats;
mod status;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use reads::{Count, Source};
pub use stats::Stats;

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
    #[error("the front door is open already")]
    Started,
}

/// What a front door needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`; port 0 takes a free one.
    pub bind: Vec<String>,
    /// The application's Unix socket.
    pub upstream: PathBuf,
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    /// Authorities of client certificates; empty: none is asked for.
    pub client_ca_pem: Vec<u8>,
    pub threads: usize,
    /// How long a connection may be without a whole request head.
    pub idle_timeout: Duration,
    /// What reads are answered from; None: every request goes to the application.
    pub source: Option<Source>,
}

/// An open front door. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Front {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    /// Every connection holds a clone; the channel ends when all are gone.
    alive: tokio::sync::mpsc::Receiver<()>,
    stats: Arc<Stats>,
    reads: Option<Arc<reads::Reads>>,
    addresses: Vec<SocketAddr>,
}

impl Front {
    /// Bind, start the threads and accept. Blocks for some milliseconds.
    pub fn open(config: Config, stats: Arc<Stats>) -> Result<Self, FrontError> {
        let tls = tls::server_config(&config)?;
        let listeners = config
            .bind
            .iter()
            .map(|address| listen::bind(address))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("front")
            .enable_all()
            .build()
            .map_err(FrontError::Threads)?;
        let reads = {
            let _within = runtime.enter();
            config.source.map(reads::Reads::new)
        };
        let (stop, stopped) = watch::channel(false);
        let (guard, alive) = tokio::sync::mpsc::channel(1);
        let server = Arc::new(listen::Server {
            acceptor: tls.into(),
            pool: pool::Pool::new(config.upstream, Arc::clone(&stats)),
            stats: Arc::clone(&stats),
            reads: reads.clone(),
            idle_timeout: config.idle_timeout,
            stopped,
            guard,
        });
        for listener in listeners {
            runtime.spawn(listen::accept(listener, Arc::clone(&server)));
        }
        Ok(Self {
            runtime,
            stop,
            alive,
            stats,
            reads,
            addresses,
        })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// End every grant of reads.
    pub fn forget_grants(&self) {
        if let Some(reads) = &self.reads {
            reads.forget();
        }
    }

    /// Reads that were answered from the store.
    pub fn reads(&self) -> Vec<Count> {
        self.reads
            .as_ref()
            .map(|reads| reads.counts())
            .unwrap_or_default()
    }

    /// Accept no more, let requests finish for `grace`, then cut what is left. Blocks for at most a little more than `grace`.
    pub fn close(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        if let Some(reads) = &self.reads {
            reads.close();
        }
        let alive = &mut self.alive;
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(grace, alive.recv()).await });
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }
}
