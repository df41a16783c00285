//! Reads that need no application: GET, LIST and WATCH of collections that an identity is known to be allowed to read.
//!
//! For the first such read of an identity the application is asked with a header, and does no more than to decide. If the read is
//! allowed and the collection's stored bytes are what clients get, it answers nothing but a grant: which names and namespaces it covers,
//! where the collection lies in the store, and how long it holds. Reads under it are answered from the store. Every change of
//! what permissions rest on (roles, bindings, service accounts, definitions of kinds) starts a new epoch while it is published, which
//! is before its writer is answered, and no grant survives an epoch.
//!
//! Only success is answered here. Whatever is unusual (an unknown parameter, a form other than JSON, a revision that is gone or not
//! there yet, a missing object, a selector that does not parse) goes to the application, which knows the words for it.
//!
//! `path` reads a request's line, `grants` holds the answers and their epoch, `selector` reads selectors, `list` and `watch` make the
//! two bodies, `signal` wakes a watch, `counts` is for metrics.

mod counts;
mod grants;
mod list;
mod path;
mod selector;
mod signal;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{HeaderMap, Method, Request, Response};

use crate::store::Store;

use super::body::Reply;
use super::forward::Peer;
pub use counts::Count;
use grants::{Grants, Route};
pub(super) use list::List;
use path::{Asked, Verb};
use signal::Signals;
pub(super) use watch::Watch;

/// Asks the application for a grant: if there is one, the answer is nothing else.
pub(super) const ASK: HeaderName = HeaderName::from_static("x-korch-ask");
/// The application's grant, as JSON; see `grants::Grant`.
pub(super) const GRANT: HeaderName = HeaderName::from_static("x-korch-grant");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const IMPERSONATION: &str = "impersonate-";

/// What the front door needs to answer reads itself.
#[derive(Debug, Clone)]
pub struct Source {
    pub store: Arc<Store>,
    /// Prefixes of the store on which permissions rest; a change below one of them ends every grant.
    pub guarded: Vec<Vec<u8>>,
    /// Whether the store holds every write that any client was answered: not so when other servers write as well.
    pub is_sole: bool,
}

/// The reads of one front door.
#[derive(Debug)]
pub(super) struct Reads {
    source: Source,
    grants: Arc<Grants>,
    signals: Arc<Signals>,
    counts: counts::Counts,
    audit: AtomicU64,
}

/// A read that could be answered here, if there is a grant.
#[derive(Debug)]
pub(super) struct Pending {
    asked: Asked,
    identity: Arc<[u8]>,
    epoch: u64,
}

impl Reads {
    /// Begin to guard `source`. Runs on the front door's threads.
    pub(super) fn new(source: Source) -> Arc<Self> {
        let grants = Grants::guarding(&source);
        Arc::new(Self {
            source,
            grants,
            signals: Arc::default(),
            counts: counts::Counts::default(),
            audit: AtomicU64::new(audit_seed()),
        })
    }

    /// The request as a read of a known identity, None when it is anything else.
    pub(super) fn pending<B>(&self, request: &Request<B>, peer: &Peer) -> Option<Pending> {
        if request.method() != Method::GET || !accepts_json(request.headers()) {
            return None;
        }
        if request
            .headers()
            .keys()
            .any(|name| name.as_str().starts_with(IMPERSONATION))
        {
            return None;
        }
        // Before anything is looked at: a change from here on is one that the answer may or may not show.
        let epoch = self.grants.epoch();
        let identity = identity(request.headers(), peer)?;
        let asked = path::read(request.uri())?;
        if !self.source.is_sole && !asked.takes_any_revision() {
            return None;
        }
        Some(Pending {
            asked,
            identity,
            epoch,
        })
    }

    /// Answer `pending` from the store, or None: the application must.
    pub(super) fn answer(
        &self,
        pending: &Pending,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Option<Response<Reply>> {
        let asked = &pending.asked;
        let route = self.grants.find(&pending.identity, asked)?;
        let body = match asked.verb {
            Verb::Get => Reply::Own(Full::new(self.object(&route, asked)?)),
            Verb::List => Reply::List(list::body(
                &self.source.store,
                &route,
                asked,
                takes_gzip(headers, peer),
            )?),
            Verb::Watch => Reply::Watch(watch::body(
                &self.source.store,
                &route,
                asked,
                &self.signals,
            )?),
        };
        route.count.add(asked.verb, !asked.namespace.is_empty());
        let mut response = Response::new(body);
        let head = response.headers_mut();
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Ok(id) = HeaderValue::from_str(&self.audit_id()) {
            head.insert(AUDIT_ID, id);
        }
        if let Reply::List(list) = response.body()
            && list.is_compressed()
        {
            list::mark_compressed(response.headers_mut());
        }
        Some(response)
    }

    /// Whether it is known that `pending` is allowed; if it was not answered, the store cannot.
    pub(super) fn is_granted(&self, pending: &Pending) -> bool {
        self.grants
            .find(&pending.identity, &pending.asked)
            .is_some()
    }

    /// Keep the application's grant.
    pub(super) fn learn(&self, pending: &Pending, grant: &HeaderValue) {
        self.grants.learn(pending, grant, &self.counts);
    }

    /// End every grant.
    pub(super) fn forget(&self) {
        self.grants.begin_epoch();
    }

    /// Requests answered here, for metrics.
    pub(super) fn counts(&self) -> Vec<Count> {
        self.counts.all()
    }

    /// End every open watch.
    pub(super) fn close(&self) {
        self.signals.close();
    }

    fn object(&self, route: &Route, asked: &Asked) -> Option<Bytes> {
        let key = route.key(&asked.namespace, &asked.name);
        let found = self.source.store.get(&key, 0).ok()??;
        Some(list::shared_value(&found))
    }

    /// A version 4 UUID. It tells requests apart in logs and is no secret.
    fn audit_id(&self) -> String {
        let high = mixed(self.audit.fetch_add(2, Ordering::Relaxed));
        let low = mixed(high ^ self.audit.load(Ordering::Relaxed));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            ((low >> 48) & 0x3fff) | 0x8000,
            low & 0xffff_ffff_ffff
        )
    }
}

/// Who asks: the certificate of the connection, else the Authorization header; None for the anonymous.
fn identity(headers: &HeaderMap, peer: &Peer) -> Option<Arc<[u8]>> {
    if let Some(identity) = &peer.identity {
        return Some(Arc::clone(identity));
    }
    let given = headers.get(AUTHORIZATION)?;
    Some([b"token ", given.as_bytes()].concat().into())
}

/// What a connection with this certificate (base64) is known as.
pub(super) fn certificate_identity(certificate: &HeaderValue) -> Arc<[u8]> {
    [b"certificate ", certificate.as_bytes()].concat().into()
}

/// Whether plain JSON is what the client would get. A form (`as=Table`), a weight or YAML is the application's to weigh.
fn accepts_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter();
    let (Some(first), None) = (values.next(), values.next()) else {
        return !headers.contains_key(ACCEPT);
    };
    let Ok(text) = first.to_str() else {
        return false;
    };
    let is_unusual = ["as=", "q=", "yaml"].iter().any(|part| text.contains(part));
    let is_json = ["application/json", "application/*", "*/*"]
        .iter()
        .any(|part| text.contains(part));
    text.trim().is_empty() || (is_json && !is_unusual)
}

/// Compressing costs more than it saves on a connection that never leaves the machine.
fn takes_gzip(headers: &HeaderMap, peer: &Peer) -> bool {
    let takes = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    !peer.address.is_loopback()
        && takes.is_some_and(|value| value.contains("gzip") && !value.contains("q="))
}

fn audit_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(Duration::ZERO, |passed| passed).as_nanos() as u64;
    mixed(nanos ^ (u64::from(std::process::id()) << 40))
}

/// The finishing step of SplitMix64.
fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
