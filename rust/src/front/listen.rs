//! Serving connections, HTTP/2 or HTTP/1.1 as TLS agreed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::forward::{Peer, forward};
use super::inbox::Inbox;
use super::pool::Pool;
use super::reads::{self, Reads};
use super::stats::{Gauge, Stats, add};
use crate::socket::{Acceptor, Stopping};

/// By ALPN.
pub(super) const HTTP2: &[u8] = b"h2";
const HEAD_BYTES_MAX: usize = 1 << 20;
const STREAMS_MAX: u32 = 250;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A peer that has vanished without a word is found out after these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_FOR: Duration = Duration::from_secs(20);

/// What all connections share.
pub(super) struct Server {
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) pool: Arc<Pool>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stats: Arc<Stats>,
    pub(super) reads: Option<Arc<Reads>>,
    pub(super) idle_timeout: Duration,
    pub(super) stopping: Stopping,
}

/// Serve one connection to its end.
pub(super) async fn serve(stream: TcpStream, address: SocketAddr, server: Arc<Server>) {
    add(&server.stats.connections_total);
    let _open = Gauge::up(&server.stats, |stats| &stats.connections_open);
    let Some(stream) = server.acceptor.accept(stream).await else {
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
    let mut stopped = std::pin::pin!(server.stopping.wait());
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
            () = &mut stopped => {
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
            () = &mut stopped => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

/// The client's verified leaf certificate as a header value; None when it showed none.
fn certificate(stream: &TlsStream<TcpStream>) -> Option<HeaderValue> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    HeaderValue::from_str(&base64::engine::general_purpose::STANDARD.encode(leaf)).ok()
}
