//! etcd's v3 API over gRPC, on the store, with no Python on the way: what etcdctl, etcd's client libraries and a kube-apiserver talk to.
//!
//! `connection` serves a connection over `socket`, `calls` carries out the `method`; `kv` (with `checks`
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
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kv;
mod lease;
mod maintenance;
mod method;
mod metrics;
mod server;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod watch;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

pub use metrics::Metrics;
pub use server::Options;

use crate::socket::{Acceptor, Clients, Open, Socket, SocketError, Tls};
use crate::store::Store;

/// What a front needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`; port 0 takes a free one.
    pub bind: Vec<String>,
    /// `host:port` of the exporter, empty for none.
    pub metrics_bind: String,
    /// None: in the clear. With an authority for clients a client must show a certificate of it, as with etcd.
    pub tls: Option<Tls>,
    pub threads: usize,
    pub options: Options,
}

/// An open front. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Front {
    socket: Socket,
}

impl Front {
    /// Bind, start the threads and accept. Blocks for some milliseconds.
    pub fn open(
        config: Config,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SocketError> {
        let mut socket = Socket::bind(&config.bind, config.threads, "etcd-front")?;
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let acceptor = match config.tls {
            None => None,
            Some(tls) => Some(Acceptor::open(tls, Clients::ShowCertificate, &[b"h2"])?),
        };
        let acceptor = acceptor.map(Arc::new);
        let mut options = config.options;
        if options.client_urls.is_empty() {
            let addresses = socket.addresses().iter();
            let urls = addresses.map(|address| format!("{scheme}://{address}"));
            options.client_urls = urls.collect();
        }
        let server = server::Server::new(store, options, metrics, socket.stopping());
        let server = Arc::new(server);
        let serving = Arc::clone(&server);
        socket.serve(move |stream, _| serve(stream, acceptor.clone(), Arc::clone(&serving)));
        if !config.metrics_bind.is_empty() {
            let server = Arc::clone(&server);
            let answer = move |stream, _| exporter::serve(stream, Arc::clone(&server));
            socket.serve_beside(&config.metrics_bind, answer)?;
        }
        socket.runtime().spawn(lease::expire(server));
        Ok(Self { socket })
    }
}

impl Open for Front {
    fn addresses(&self) -> &[SocketAddr] {
        self.socket.addresses()
    }

    fn close(self, grace: Duration) {
        self.socket.close(grace);
    }
}

async fn serve(stream: TcpStream, acceptor: Option<Arc<Acceptor>>, server: Arc<server::Server>) {
    match acceptor {
        None => connection::serve(stream, server).await,
        Some(acceptor) => {
            if let Some(stream) = acceptor.accept(stream).await {
                connection::serve(stream, server).await;
            }
        }
    }
}
