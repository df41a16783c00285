//! The server's socket. It speaks HTTP/1.1 and HTTP/2 over TLS with clients, answers the reads that it has been allowed to answer from
//! the store, and hands every other request to the application, in memory or over HTTP/1.1 on a Unix socket, together with what only
//! the socket's owner knows: the verified client certificate and the address. Upgrades (exec, attach, port-forward) become byte pipes.
//! It runs on threads of its own, which never touch Python.
//!
//! `listen` serves connections, `reads` answers from the store, `forward` carries one request, `gather` reads its body, `inbox` is where
//! the application takes requests, `pool` keeps connections to it, `headers` knows which header may cross, `body` carries what comes
//! back, a `piece` at a time, `status` answers when nobody else can.

mod body;
mod forward;
mod gather;
mod headers;
mod inbox;
mod listen;
mod piece;
mod pool;
mod reads;
mod stats;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use inbox::{Arrival, Inbox, News};
pub use reads::{Count, Source};
pub use stats::Stats;

use crate::socket::{Acceptor, Clients, Open, Socket, SocketError, Tls};

/// What a front door needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`; port 0 takes a free one.
    pub bind: Vec<String>,
    /// The application's Unix socket.
    pub upstream: PathBuf,
    /// With an authority for clients a certificate is optional, but must verify.
    pub tls: Tls,
    pub threads: usize,
    /// How long a connection may be without a whole request head.
    pub idle_timeout: Duration,
    /// What reads are answered from; None: every request goes to the application.
    pub source: Option<Source>,
}

/// An open front door. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Front {
    socket: Socket,
    acceptor: Arc<Acceptor>,
    stats: Arc<Stats>,
    reads: Option<Arc<reads::Reads>>,
}

impl Front {
    /// Bind, start the threads and accept. Blocks for some milliseconds.
    pub fn open(config: Config, inbox: Arc<Inbox>, stats: Arc<Stats>) -> Result<Self, SocketError> {
        let protocols = [listen::HTTP2, b"http/1.1"];
        let acceptor = Acceptor::open(config.tls, Clients::MayBeAnonymous, &protocols)?;
        let acceptor = Arc::new(acceptor);
        let mut socket = Socket::bind(&config.bind, config.threads, "front")?;
        let reads = {
            let _within = socket.runtime().enter();
            config.source.map(reads::Reads::new)
        };
        let server = Arc::new(listen::Server {
            acceptor: Arc::clone(&acceptor),
            pool: pool::Pool::new(config.upstream, Arc::clone(&stats)),
            inbox,
            stats: Arc::clone(&stats),
            reads: reads.clone(),
            idle_timeout: config.idle_timeout,
            stopping: socket.stopping(),
        });
        socket.serve(move |stream, address| listen::serve(stream, address, Arc::clone(&server)));
        Ok(Self {
            socket,
            acceptor,
            stats,
            reads,
        })
    }

    /// How often new certificate files were taken into use, and how often they could not be.
    pub fn certificate_reloads(&self) -> (u64, u64) {
        self.acceptor.reloads()
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
}

impl Open for Front {
    fn addresses(&self) -> &[SocketAddr] {
        self.socket.addresses()
    }

    fn close(self, grace: Duration) {
        if let Some(reads) = &self.reads {
            reads.close();
        }
        self.socket.close(grace);
    }
}
