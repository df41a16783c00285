//! Listeners with the threads that serve them. Whoever serves a connection is handed the stream and nothing else; that it lives is
//! known here, by a sender that each connection holds, so that closing can wait for the last of them.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::SocketError;

/// After an error of accept (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A peer that has vanished without a word is found out after these.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// What is left after the grace is over gets this long to be dropped.
const CUT_FOR: Duration = Duration::from_millis(100);

/// Bound addresses and the threads behind them. Dropping it cuts everything at once.
#[derive(Debug)]
pub struct Socket {
    runtime: Runtime,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    /// Every connection holds a clone; the channel ends when all are gone.
    guard: mpsc::Sender<()>,
    alive: mpsc::Receiver<()>,
}

/// Tells that a front closes.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Wait until the front closes. The future owns what it needs.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.0.clone();
        async move {
            // An error means that the front is gone, which is closed as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }

    /// One that tells it only when the front is gone.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn never() -> (watch::Sender<bool>, Self) {
        let (stop, stopped) = watch::channel(false);
        (stop, Stopping(stopped))
    }
}

impl Socket {
    /// Bind each `host:port` (port 0: any free one) and start `threads` threads called `name`. Nothing is accepted before `serve`.
    pub fn bind(bind: &[String], threads: usize, name: &str) -> Result<Self, SocketError> {
        let listeners = bind
            .iter()
            .map(|address| listener(address))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(SocketError::Threads)?;
        let (stop, _) = watch::channel(false);
        let (guard, alive) = mpsc::channel(1);
        Ok(Socket {
            runtime,
            listeners,
            addresses,
            stop,
            guard,
            alive,
        })
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn stopping(&self) -> Stopping {
        Stopping(self.stop.subscribe())
    }

    /// Accept on all bound addresses and have `connection` serve each stream, until the front closes.
    pub fn serve<C, F>(&mut self, connection: C)
    where
        C: Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        for listener in std::mem::take(&mut self.listeners) {
            let guard = Some(self.guard.clone());
            let accepting = accept(listener, self.stopping(), guard, connection.clone());
            self.runtime.spawn(accepting);
        }
    }

    /// Serve one more address, whose connections nobody waits for when the front closes.
    pub fn serve_beside<C, F>(&self, address: &str, connection: C) -> Result<(), SocketError>
    where
        C: Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let accepting = accept(listener(address)?, self.stopping(), None, connection);
        self.runtime.spawn(accepting);
        Ok(())
    }

    /// Accept no more, tell connections to end, wait for them for `grace`, then cut what is left.
    pub fn close(self, grace: Duration) {
        let Socket {
            runtime,
            stop,
            guard,
            mut alive,
            ..
        } = self;
        let _ = stop.send(true);
        drop(guard);
        let _ = runtime.block_on(async { tokio::time::timeout(grace, alive.recv()).await });
        runtime.shutdown_timeout(CUT_FOR);
    }
}

fn listener(address: &str) -> Result<TcpListener, SocketError> {
    let failed = |source| SocketError::Bind {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn accept<C, F>(
    listener: TcpListener,
    stopping: Stopping,
    guard: Option<mpsc::Sender<()>>,
    connection: C,
) where
    C: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut stopped = std::pin::pin!(stopping.wait());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((stream, address)) => {
                prepare(&stream);
                let (served, guard) = (connection(stream, address), guard.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(guard);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Small messages must not wait for each other, and dead peers be found out. Failing here costs latency, or that, only.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
