//! Accepting connections and serving them, HTTP/2 or HTTP/1.1 as TLS agreed.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::FrontError;
use super::forward::{Peer, forward};
use super::pool::Pool;
use super::reads::{self, Reads};
use super::stats::{Gauge, Stats, add};
use super::tls::HTTP2;

const HANDSHAKE_FOR: Duration = Duration::from_secs(10);
/// After an error of accept (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 1 << 20;
const STREAMS_MAX: u32 = 250;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A peer that has vanished without a word is found out after these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_FOR: Duration = Duration::from_secs(20);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// What all connections share.
pub(super) struct Server {
    pub(super) acceptor: Acceptor,
    pub(super) pool: Arc<Pool>,
    pub(super) stats: Arc<Stats>,
    pub(super) reads: Option<Arc<Reads>>,
    pub(super) idle_timeout: Duration,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) guard: mpsc::Sender<()>,
}

pub(super) struct Acceptor(TlsAcceptor);

impl From<Arc<ServerConfig>> for Acceptor {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(TlsAcceptor::from(config))
    }
}

pub(super) fn bind(address: &str) -> Result<TcpListener, FrontError> {
    let failed = |source| FrontError::Bind {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Accept until the front door closes.
pub(super) async fn accept(listener: TcpListener, server: Arc<Server>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut stopped = server.stopped.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    tokio::spawn(serve(stream, address, Arc::clone(&server), server.guard.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            () = closing(&mut stopped) => return,
        }
    }
}

/// Serve one connection to its end. `_guard` tells the closing front door that it still lives.
async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    server: Arc<Server>,
    _guard: mpsc::Sender<()>,
) {
    add(&server.stats.connections_total);
    let _open = Gauge::up(&server.stats, |stats| &stats.connections_open);
    // Watch events are small and must not wait for each other. Failing here costs latency only.
    let _ = stream.set_nodelay(true);
    let _ =
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER));
    let Ok(Ok(stream)) =
        tokio::time::timeout(HANDSHAKE_FOR, server.acceptor.0.accept(stream)).await
    else {
        add(&server.stats.handshakes_failed);
        return;
    };
    let certificate = certificate(&stream);
    let peer = Arc::new(Peer {
        address: address.ip(),
        identity: certificate.as_ref().map(reads::certificate_identity),
        certificate,
    });
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let serving = Arc::clone(&server);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = forward(request, Arc::clone(&peer), Arc::clone(&serving));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut stopped = server.stopped.clone();
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_FOR)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // How a connection ended is the client's business: there is nobody here to tell.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = closing(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(server.idle_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = closing(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

/// Wait until the front door closes.
async fn closing(stopped: &mut watch::Receiver<bool>) {
    // An error means that the front door is gone, which is closed as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The client's verified leaf certificate as a header value; None when it showed none.
fn certificate(stream: &TlsStream<TcpStream>) -> Option<HeaderValue> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    HeaderValue::from_str(&base64::engine::general_purpose::STANDARD.encode(leaf)).ok()
}
