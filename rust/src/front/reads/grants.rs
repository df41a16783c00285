//! What the application has allowed, by identity and collection, for one epoch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::store::{Selector, Store};

use super::counts::{Counter, Counts};
use super::path::Asked;
use super::{Pending, Source};

/// Grants of one identity for one collection and verb; with more than this it asks by name too much to be worth remembering.
const PER_ACTION_MAX: usize = 256;
/// Grants in all; an epoch that has collected more starts afresh.
const GRANTS_MAX: usize = 100_000;
/// Events that a guard throws away at a time.
const DRAIN_EVENTS: usize = 1_000;
/// A guard that could not begin tries again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The application's answer, as it stands in the header.
#[derive(Debug, Deserialize)]
struct Told {
    /// `cluster`: every namespace and name. `namespace`: every name in the namespace of the request. `name`: just the request's.
    scope: String,
    /// Seconds.
    ttl: u64,
    /// The store's prefix of the whole collection.
    prefix: String,
    namespaced: bool,
    kind: String,
    list_kind: String,
    api_version: String,
    /// Fields that may be selected by, beside metadata.name and metadata.namespace.
    fields: Vec<String>,
    /// With which field selector alone the permission was given; none: with any.
    #[serde(default)]
    field_selector: Option<String>,
}

/// Where a collection lies and what its objects are called.
#[derive(Debug)]
pub(super) struct Route {
    prefix: String,
    namespaced: bool,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) api_version: String,
    pub(super) fields: Vec<String>,
    pub(super) count: Arc<Counter>,
}

impl Route {
    /// The store's prefix of the collection, or of its part in `namespace`.
    pub(super) fn prefix(&self, namespace: &str) -> Vec<u8> {
        let mut prefix = self.prefix.clone().into_bytes();
        if self.namespaced && !namespace.is_empty() {
            prefix.extend_from_slice(namespace.as_bytes());
            prefix.push(b'/');
        }
        prefix
    }

    pub(super) fn key(&self, namespace: &str, name: &str) -> Vec<u8> {
        let mut key = self.prefix(namespace);
        key.extend_from_slice(name.as_bytes());
        key
    }
}

#[derive(Debug)]
struct Grant {
    /// None: every namespace, or every name.
    namespace: Option<String>,
    name: Option<String>,
    field_selector: Option<String>,
    until: Instant,
    route: Arc<Route>,
}

impl Grant {
    fn covers(&self, asked: &Asked, now: Instant) -> bool {
        let within = |granted: &Option<String>, wanted: &str| {
            granted.as_deref().is_none_or(|one| one == wanted)
        };
        within(&self.namespace, &asked.namespace)
            && within(&self.name, &asked.name)
            && within(&self.field_selector, &asked.options.field_selector)
            && now < self.until
    }
}

/// Verb, group, version and resource.
type Action = (u8, String, String, String);

#[derive(Debug, Default)]
struct Table {
    epoch: u64,
    size: usize,
    by_identity: HashMap<Arc<[u8]>, HashMap<Action, Vec<Grant>>>,
}

/// All grants. A new epoch empties the table at once, without touching it.
#[derive(Debug)]
pub(super) struct Grants {
    epoch: AtomicU64,
    table: RwLock<Table>,
}

impl Grants {
    /// No grants yet; what happens below the guarded prefixes of `source` begins an epoch. Called within a tokio runtime, on which
    /// the guards live.
    pub(super) fn guarding(source: &Source) -> Arc<Self> {
        let grants = Arc::new(Grants {
            epoch: AtomicU64::new(1),
            table: RwLock::default(),
        });
        for prefix in &source.guarded {
            let (store, grants, prefix) = (
                Arc::clone(&source.store),
                Arc::clone(&grants),
                prefix.clone(),
            );
            let mut guard = Guard::begin(&store, &grants, &prefix);
            tokio::spawn(async move {
                loop {
                    match &guard {
                        Some(guard) => guard.drain().await,
                        None => tokio::time::sleep(RETRY_AFTER).await,
                    }
                    guard = Guard::begin(&store, &grants, &prefix);
                }
            });
        }
        grants
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The route of a collection that `identity` may read as `asked`.
    pub(super) fn find(&self, identity: &Arc<[u8]>, asked: &Asked) -> Option<Arc<Route>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if table.epoch != self.epoch() {
            return None;
        }
        let grants = table.by_identity.get(identity)?.get(&action(asked))?;
        let now = Instant::now();
        let found = grants.iter().find(|grant| grant.covers(asked, now))?;
        Some(Arc::clone(&found.route))
    }

    /// Remember a grant, unless an epoch has begun since it was asked for.
    pub(super) fn learn(&self, pending: &Pending, told: &HeaderValue, counts: &Counts) {
        let Ok(told) = serde_json::from_slice::<Told>(told.as_bytes()) else {
            return;
        };
        let asked = &pending.asked;
        let (namespace, name) = match told.scope.as_str() {
            "cluster" => (None, None),
            "namespace" => (Some(asked.namespace.clone()), None),
            _ => (Some(asked.namespace.clone()), Some(asked.name.clone())),
        };
        let route = Route {
            prefix: told.prefix,
            namespaced: told.namespaced,
            kind: told.kind,
            list_kind: told.list_kind,
            api_version: told.api_version,
            fields: told.fields,
            count: counts.of(&asked.group, &asked.version, &asked.resource),
        };
        let grant = Grant {
            namespace,
            name,
            field_selector: told.field_selector,
            until: Instant::now() + Duration::from_secs(told.ttl),
            route: Arc::new(route),
        };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if pending.epoch != self.epoch() {
            return;
        }
        if table.epoch != pending.epoch || table.size >= GRANTS_MAX {
            *table = Table {
                epoch: pending.epoch,
                ..Table::default()
            };
        }
        let actions = table
            .by_identity
            .entry(Arc::clone(&pending.identity))
            .or_default();
        let grants = actions.entry(action(asked)).or_default();
        let before = grants.len();
        if before >= PER_ACTION_MAX {
            grants.clear();
        }
        let now = Instant::now();
        grants.retain(|one| one.until > now && !one.covers(asked, now));
        grants.push(grant);
        let after = grants.len();
        table.size = table.size.saturating_sub(before) + after;
    }
}

fn action(asked: &Asked) -> Action {
    (
        asked.verb as u8,
        asked.group.clone(),
        asked.version.clone(),
        asked.resource.clone(),
    )
}

/// A watch of one prefix for the sake of the epoch alone; dropped, it ends.
#[derive(Debug)]
struct Guard {
    store: Arc<Store>,
    watcher: u64,
    news: Arc<Notify>,
}

impl Guard {
    /// Begin an epoch with every publication below `prefix`, and one now, for what was published before.
    fn begin(store: &Arc<Store>, grants: &Arc<Grants>, prefix: &[u8]) -> Option<Self> {
        let news = Arc::new(Notify::new());
        let (told, wake) = (Arc::clone(grants), Arc::clone(&news));
        let notify = Arc::new(move || {
            told.begin_epoch();
            wake.notify_one();
        });
        let watcher = store.watch(prefix, store.revision(), Selector::default(), Some(notify));
        grants.begin_epoch();
        Some(Guard {
            store: Arc::clone(store),
            watcher: watcher.ok()?,
            news,
        })
    }

    /// Empty the queue, which only fills to be emptied. Returns when the watcher has been cut.
    async fn drain(&self) {
        loop {
            self.news.notified().await;
            loop {
                match self.store.poll(self.watcher, DRAIN_EVENTS) {
                    Ok(taken) if taken.events.is_empty() => break,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.store.unwatch(self.watcher);
    }
}
