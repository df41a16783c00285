//! Connections to the application: HTTP/1.1 on its Unix socket, kept alive and used again, newest first.
//!
//! A connection is leased for one request. Giving the lease back returns the connection; dropping it closes the connection at
//! once. Idle connections are forgotten before the application's own keep-alive ends (uvicorn: 5 s), so that a request rarely
//! meets one that is being closed.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::gather::Outgoing;
use super::stats::{Stats, add};

const IDLE_MAX: usize = 64;
const IDLE_FOR: Duration = Duration::from_secs(4);
/// How long a connection may take to be ready again after its answer was read.
const SETTLE_FOR: Duration = Duration::from_secs(1);
/// A full backlog is waited out in such steps.
const BACKLOG_STEP: Duration = Duration::from_millis(10);
const BACKLOG_STEPS: u32 = 200;

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect: {0}")]
    Socket(#[from] io::Error),
    #[error("cannot connect: {0}")]
    Http(#[from] hyper::Error),
}

#[derive(Debug)]
pub(super) struct Pool {
    path: PathBuf,
    stats: Arc<Stats>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Outgoing>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Pool {
    pub(super) fn new(path: PathBuf, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self {
            path,
            stats,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// A connection that was used before and looks alive.
    pub(super) fn reuse(self: &Arc<Self>) -> Option<Lease> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() > IDLE_FOR {
                // All others are older.
                idle.clear();
                return None;
            }
            if connection.sender.is_ready() && !connection.sender.is_closed() {
                return Some(self.lease(connection));
            }
        }
        None
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let stream = self.open().await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // Its errors reach whoever waits for the answer.
            let _ = driver.with_upgrades().await;
        });
        add(&self.stats.upstream_connects);
        Ok(self.lease(Connection { sender, driver }))
    }

    async fn open(&self) -> io::Result<UnixStream> {
        for _ in 0..BACKLOG_STEPS {
            match UnixStream::connect(&self.path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(BACKLOG_STEP).await
                }
                result => return result,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn lease(self: &Arc<Self>, connection: Connection) -> Lease {
        Lease {
            pool: Arc::clone(self),
            connection: Some(connection),
        }
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            idle.retain(|one| {
                one.since.elapsed() <= IDLE_FOR && !one.connection.sender.is_closed()
            });
        }
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

/// A connection in use. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
}

impl Lease {
    pub(super) fn sender(&mut self) -> Option<&mut SendRequest<Outgoing>> {
        self.connection
            .as_mut()
            .map(|connection| &mut connection.sender)
    }

    /// Give the connection back: its answer has been read to the end.
    pub(super) fn release(mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let pool = Arc::clone(&self.pool);
        if connection.sender.is_closed() {
            return;
        }
        if connection.sender.is_ready() {
            pool.put(connection);
            return;
        }
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE_FOR, connection.sender.ready()).await {
                pool.put(connection);
            }
        });
    }

    /// Let the connection live on by itself: it has become a byte pipe.
    pub(super) fn detach(mut self) {
        if let Some(connection) = self.connection.take() {
            tokio::spawn(async move {
                let mut connection = connection;
                let _ = (&mut connection.driver).await;
            });
        }
    }
}
