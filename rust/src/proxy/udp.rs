//! UDP through the router: each client address has a socket of its own towards its endpoint, until it has been quiet for a while.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::desired::Target;
use super::router::{Current, Shared, current};

const DATAGRAM_BYTES_MAX: usize = 65_536;
const IDLE: Duration = Duration::from_secs(60);
const FLOWS_MAX: usize = 4096;
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A client's way to its endpoint.
#[derive(Debug)]
struct Flow {
    target: Target,
    socket: Arc<UdpSocket>,
    replies: tokio::task::JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

/// Carry datagrams until the task is aborted.
pub async fn serve(socket: UdpSocket, backend: Current, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let now = current(&backend);
        // A flow ends by itself when it is quiet, and here when its endpoint is none any more.
        let lives = |flow: &Flow| !flow.replies.is_finished() && now.targets.contains(&flow.target);
        if !flows.get(&client).is_some_and(lives) {
            flows.remove(&client);
            if flows.len() >= FLOWS_MAX {
                flows.retain(|_, flow| lives(flow));
            }
            let target = if flows.len() < FLOWS_MAX {
                shared.choose(&now, client.ip())
            } else {
                None
            };
            let Some(target) = target else { continue };
            let Ok(flow) = open(target, client, Arc::clone(&socket)).await else {
                continue;
            };
            shared.connections.fetch_add(1, Ordering::Relaxed);
            flows.insert(client, flow);
        }
        if let (Some(flow), Some(datagram)) = (flows.get(&client), buffer.get(..length)) {
            // A refused datagram is lost, as datagrams may be.
            let _ = flow.socket.send(datagram).await;
        }
    }
}

async fn open(target: Target, client: SocketAddr, listener: Arc<UdpSocket>) -> io::Result<Flow> {
    let any: SocketAddr = if target.ip.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = Arc::new(UdpSocket::bind(any).await?);
    socket.connect((target.ip, target.port)).await?;
    let replies = tokio::spawn(reply(Arc::clone(&socket), client, listener));
    Ok(Flow {
        target,
        socket,
        replies,
    })
}

/// Carry answers back to the client until there was none for a while.
async fn reply(socket: Arc<UdpSocket>, client: SocketAddr, listener: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match tokio::time::timeout(IDLE, socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                if let Some(datagram) = buffer.get(..length) {
                    let _ = listener.send_to(datagram, client).await;
                }
            }
            // The endpoint refused one datagram; the next may be welcome.
            Ok(Err(_)) => tokio::time::sleep(ERROR_PAUSE).await,
            Err(_) => return,
        }
    }
}
