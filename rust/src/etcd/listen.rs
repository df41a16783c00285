//! Accepting connections, in the clear or over TLS.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::{FrontError, connection};

const HANDSHAKE_FOR: Duration = Duration::from_secs(10);
/// After an error of accept (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A peer that has vanished without a word is found out after these.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

pub(super) fn bind(address: &str) -> Result<TcpListener, FrontError> {
    let failed = |source| FrontError::Bind {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Accept until the front stops.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    alive: tokio::sync::mpsc::Sender<()>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut stopping = std::pin::pin!(server.stopping());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopping => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, server, alive) = (tls.clone(), Arc::clone(&server), alive.clone());
                tokio::spawn(async move {
                    serve(stream, tls, server).await;
                    drop(alive);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, server: Arc<Server>) {
    // Failing here costs latency, or the discovery of a dead peer, only.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    match tls {
        None => connection::serve(stream, server).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_FOR, tls.accept(stream)).await {
                connection::serve(stream, server).await;
            }
        }
    }
}
