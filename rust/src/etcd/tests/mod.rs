//! The front spoken to over a real connection. What `contract` says of keys and transactions is held against Debian's etcd as well, where
//! it is installed: so it is known to be true of etcd. `differential` lets both answer random scripts.

mod contract;
mod differential;
mod hostile;
mod watching;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Endpoint;

use super::client::Client;
use super::wire::request_op::Request;
use super::wire::*;
use super::{Config, Front, Options};
use crate::socket::Open as _;
use crate::store::Store;
use crate::store::mem_disk::MemDisk;

/// A server and its address; dropping it ends it.
struct Server {
    address: String,
    _front: Option<Front>,
    process: Option<(Child, PathBuf)>,
    store: Option<Arc<Store>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((process, directory)) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// korch with a log on a disk in memory, so that the committer's thread does the work that it does in production.
fn korch(progress_every: Duration) -> Server {
    korch_on(&MemDisk::default(), progress_every)
}

fn korch_on(disk: &MemDisk, progress_every: Duration) -> Server {
    let store = Arc::new(Store::open_on(Arc::new(disk.clone()), 1 << 20).unwrap());
    let config = Config {
        bind: vec!["127.0.0.1:0".into()],
        metrics_bind: String::new(),
        tls: None,
        threads: 1,
        options: Options {
            name: "test".into(),
            client_urls: Vec::new(),
            progress_every,
        },
    };
    let front = Front::open(config, store.clone(), Arc::default()).unwrap();
    Server {
        address: front.addresses()[0].to_string(),
        _front: Some(front),
        process: None,
        store: Some(store),
    }
}

/// Debian's etcd, None where it is not installed.
fn etcd(name: &str) -> Option<Server> {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (client, peer) = (free(), free());
    let directory = std::env::temp_dir().join(format!("korch-{name}-{}", std::process::id()));
    let url = |address: &str| format!("http://{address}");
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(&directory)
        .args(["--listen-client-urls", &url(&client)])
        .args(["--advertise-client-urls", &url(&client)])
        .args(["--listen-peer-urls", &url(&peer)])
        .args(["--initial-advertise-peer-urls", &url(&peer)])
        .args(["--initial-cluster", &format!("default={}", url(&peer))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Server {
        address: client,
        _front: None,
        process: Some((process, directory)),
        store: None,
    })
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

impl Server {
    /// Connect, and wait until the server answers.
    async fn client(&self) -> Client {
        loop {
            let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
            if let Ok(channel) = endpoint.connect().await {
                let mut client = Client::new(channel);
                let probe = range("probe", "");
                let answer = client.unary::<_, RangeResponse>(path::RANGE, probe);
                if answer.await.is_ok() {
                    return client;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..RangeRequest::default()
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..DeleteRangeRequest::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().unwrap().revision
}

/// Code and text of an error.
fn error<T: std::fmt::Debug>(answer: Result<T, Status>) -> (i32, String) {
    let status = answer.unwrap_err();
    (status.code() as i32, status.message().to_owned())
}

impl Client {
    async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.unary(path::RANGE, request).await
    }

    async fn put(&mut self, request: PutRequest) -> Result<PutResponse, Status> {
        self.unary(path::PUT, request).await
    }

    /// Put and return the revision.
    async fn set(&mut self, key: &str, value: &str) -> i64 {
        revision(&self.put(put(key, value)).await.unwrap().header)
    }

    async fn delete(&mut self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        self.unary(path::DELETE_RANGE, request).await
    }

    async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.unary(path::TXN, request).await
    }

    async fn compact(&mut self, revision: i64) -> Result<CompactionResponse, Status> {
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        self.unary(path::COMPACT, request).await
    }
}
