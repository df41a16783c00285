//! Connection routing in user space: a listener for each address that clients may use, a connection to an endpoint for each of theirs.
//!
//! It serves what nftables cannot (node ports on 127.0.0.1), and everything where there is no nftables. Listeners live on threads of
//! their own that never touch Python. Connections outlive a change of their service, as they do with nftables.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::ProxyError;
use super::choice::{Backend, Sessions};
use super::desired::Target;
use super::udp;
use super::wire::Protocol;

/// Where a listener waits.
pub type Address = (Protocol, SocketAddr);

/// How many endpoints are tried for a connection.
const TRIES: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all listeners share.
#[derive(Debug)]
pub struct Shared {
    sessions: Mutex<Sessions>,
    draws: AtomicU64,
    started: Instant,
    pub connections: AtomicU64,
    pub failures: AtomicU64,
}

impl Shared {
    fn new(seed: u64) -> Shared {
        Shared {
            sessions: Mutex::default(),
            draws: AtomicU64::new(seed),
            started: Instant::now(),
            connections: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Choose an endpoint for a client of the backend.
    pub fn choose(&self, backend: &Backend, client: IpAddr) -> Option<Target> {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        self.choose_by(backend, client, draw)
    }

    pub fn choose_by(&self, backend: &Backend, client: IpAddr, draw: u64) -> Option<Target> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .choose(backend, client, draw, now_ms)
    }

    fn forget(&self, backend: &Backend, client: IpAddr) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(backend, client);
    }
}

/// A backend that can be exchanged while its listener goes on.
pub type Current = Arc<RwLock<Arc<Backend>>>;

/// Return the backend as it is now.
pub fn current(backend: &Current) -> Arc<Backend> {
    Arc::clone(&backend.read().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug)]
struct Listener {
    backend: Current,
    task: JoinHandle<()>,
}

/// All listeners of this process.
#[derive(Debug)]
pub struct Router {
    runtime: Option<Runtime>,
    pub shared: Arc<Shared>,
    listeners: BTreeMap<Address, Listener>,
    /// Wanted, but the address is not ours or is taken.
    pub unbound: usize,
}

impl Router {
    /// Start without listeners. `seed` begins the sequence of draws.
    pub fn start(seed: u64) -> Result<Router, ProxyError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("proxy-router")
            .enable_all()
            .build()
            .map_err(ProxyError::Router)?;
        Ok(Router {
            runtime: Some(runtime),
            shared: Arc::new(Shared::new(seed)),
            listeners: BTreeMap::new(),
            unbound: 0,
        })
    }

    pub fn len(&self) -> usize {
        self.listeners.len()
    }

    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Listen at exactly these addresses and return how many listeners changed. Addresses that cannot be bound are counted in
    /// `unbound` and tried again at the next call.
    pub fn set(&mut self, wanted: BTreeMap<Address, Backend>) -> usize {
        let mut changed = 0;
        self.listeners.retain(|address, listener| {
            let stays = wanted.contains_key(address);
            if !stays {
                listener.task.abort();
                changed += 1;
            }
            stays
        });
        self.unbound = 0;
        for (address, backend) in wanted {
            if let Some(listener) = self.listeners.get(&address) {
                let mut place = listener
                    .backend
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                if **place != backend {
                    *place = Arc::new(backend);
                    changed += 1;
                }
                continue;
            }
            match self.listen(address, backend) {
                Ok(listener) => {
                    self.listeners.insert(address, listener);
                    changed += 1;
                }
                Err(_) => self.unbound += 1,
            }
        }
        changed
    }

    fn listen(&self, (protocol, at): Address, backend: Backend) -> io::Result<Listener> {
        let Some(runtime) = &self.runtime else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let _inside = runtime.enter();
        let backend: Current = Arc::new(RwLock::new(Arc::new(backend)));
        let (shown, shared) = (Arc::clone(&backend), Arc::clone(&self.shared));
        let task = match protocol {
            Protocol::Tcp => {
                let socket = std::net::TcpListener::bind(at)?;
                socket.set_nonblocking(true)?;
                runtime.spawn(serve_tcp(TcpListener::from_std(socket)?, shown, shared))
            }
            Protocol::Udp => {
                let socket = std::net::UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                runtime.spawn(udp::serve(UdpSocket::from_std(socket)?, shown, shared))
            }
            Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Listener { backend, task })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve_tcp(listener: TcpListener, backend: Current, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(carry(
                    stream,
                    client.ip(),
                    current(&backend),
                    Arc::clone(&shared),
                ));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Connect the client with an endpoint and carry bytes until both sides have ended.
async fn carry(mut client: TcpStream, from: IpAddr, backend: Arc<Backend>, shared: Arc<Shared>) {
    let Some(mut endpoint) = connect(from, &backend, &shared).await else {
        shared.failures.fetch_add(1, Ordering::Relaxed);
        // Dropped with a reset, as the kernel would answer.
        let _ = client.set_zero_linger();
        return;
    };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _ = client.set_nodelay(true);
    let _ = endpoint.set_nodelay(true);
    // An error here is one side's reset, and both sides are closed by dropping them.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
}

async fn connect(from: IpAddr, backend: &Backend, shared: &Shared) -> Option<TcpStream> {
    for _ in 0..TRIES {
        let target = shared.choose(backend, from)?;
        let attempt = TcpStream::connect((target.ip, target.port));
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            return Some(stream);
        }
        shared.forget(backend, from);
    }
    None
}
