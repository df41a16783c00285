//! What the front door and the etcd front do alike with the network: listen, accept, speak TLS, and end in good order.
//!
//! `listen` owns the threads and the listeners of one front and knows which connections still live. `tls` is made of PEM files, asks
//! clients for certificates, and takes new files into use when they are replaced, without a restart.

mod listen;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

pub use listen::{Socket, Stopping};
pub use tls::{Acceptor, Clients, Tls};

/// Why a front does not open.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{what}: {why}")]
    Certificate { what: &'static str, why: String },
    #[error("cannot listen on {address}: {source}")]
    Bind {
        address: String,
        source: std::io::Error,
    },
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    #[error("it is open already")]
    Started,
}

/// A front that is open.
pub trait Open {
    /// Where it listens.
    fn addresses(&self) -> &[SocketAddr];
    /// Accept no more, let requests finish for `grace`, then cut what is left. Blocks for at most a little more than `grace`.
    fn close(self, grace: Duration);
}
