//! Channels to the members of the cluster. They connect when first used and reconnect by themselves; who fails is left for the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::failure::{Error, Failure};
use crate::etcd::client::Client;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// etcd refuses clients that ping more often than every five seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one member may take to answer before another is asked; an election takes about a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const WINDOW_BYTES: u32 = 4 << 20;

/// Certificates as PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub authority: Vec<u8>,
    /// Certificate and key by which the members know us.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// How to reach a cluster. `endpoints` are URLs such as `https://10.0.0.1:2379`, `prefix` takes the place of `/registry` in keys.
#[derive(Debug, Clone)]
pub struct Config {
    pub endpoints: Vec<String>,
    pub tls: Option<Tls>,
    pub prefix: String,
    /// How long a request may take, tries and waiting for the mirror included.
    pub timeout: Duration,
}

/// One member: where it is, and a client for it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) position: usize,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) channel: Channel,
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    first: Member,
    others: Vec<Member>,
    current: AtomicUsize,
}

impl Endpoints {
    /// Must be called within a tokio runtime; nothing is connected yet.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut all = Vec::with_capacity(config.endpoints.len());
        for (position, url) in config.endpoints.iter().enumerate() {
            let channel = channel(url, config.tls.as_ref())?;
            all.push(Member {
                position,
                url: url.clone(),
                client: Client::new(channel.clone()),
                channel,
            });
        }
        let mut all = all.into_iter();
        let none = || Error::Invalid("no endpoint of the etcd cluster is given".into());
        Ok(Endpoints {
            first: all.next().ok_or_else(none)?,
            others: all.collect(),
            current: AtomicUsize::new(0),
        })
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// The member in use.
    pub(crate) fn current(&self) -> &Member {
        self.at(self.current.load(Ordering::Relaxed))
    }

    /// The member at `position`, counted round and round.
    pub(crate) fn at(&self, position: usize) -> &Member {
        match position % self.len() {
            0 => &self.first,
            other => self.others.get(other - 1).unwrap_or(&self.first),
        }
    }

    /// Leave the member at `failed` for the next, unless somebody did already.
    pub(crate) fn leave(&self, failed: usize) {
        let next = (failed + 1) % self.len();
        let _ = self
            .current
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Make one call on the member in use and leave that member when the call fails in a way that another may not.
    pub(crate) async fn call<Q, A>(
        &self,
        path: &'static str,
        question: Q,
        left: Duration,
    ) -> Result<A, Failure>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let member = self.current();
        let mut client = member.client.clone();
        let answer =
            tokio::time::timeout(ATTEMPT_TIMEOUT.min(left), client.unary(path, question)).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => Failure::from(status),
            Err(_) => Failure::silence(&member.url),
        };
        if matches!(failure, Failure::Passing { .. }) {
            self.leave(member.position);
        }
        Err(failure)
    }
}

fn channel(url: &str, tls: Option<&Tls>) -> Result<Channel, Error> {
    let bad = |error: tonic::transport::Error| Error::Invalid(format!("{url}: {error}"));
    let mut endpoint = Endpoint::from_shared(url.to_string())
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    if let Some(tls) = tls {
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(config).map_err(bad)?;
    }
    Ok(endpoint.connect_lazy())
}
