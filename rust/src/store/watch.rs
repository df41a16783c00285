//! Watchers, and the index that finds the few that an event concerns.
//!
//! A watcher is registered once: under its prefix (a collection, a namespace of it, or one key) and there either among those that
//! see everything or, if its selector demands a certain field or label value, under that value. An event looks up the handful of
//! prefixes of its key and, for each field and label anybody watches there, the value before and after; so with 10,000 kubelets
//! each watching their own spec.nodeName, an event costs two of them a queue push and the others nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use super::attributes::Kind;
use super::error::{Result, StoreError};
use super::event::{Event, EventType};
use super::lock;
use super::revision::{Frame, Revision};
use super::selector::Selector;

/// Events that a watcher may fall behind before it is cut.
pub const QUEUE_MAX: usize = 10_000;

/// Called after a publication that concerns a watcher; it must neither block nor call the store.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// An event, and its type in the eyes of the watcher that took it.
pub type Seen = (EventType, Arc<Event>);

/// What a watcher took: events oldest first, whole revisions only, and the revision up to which it has now seen everything.
#[derive(Debug, Default)]
pub struct Poll<T> {
    pub events: T,
    pub revision: u64,
}

struct Watcher {
    id: u64,
    prefix: Box<[u8]>,
    selector: Selector,
    queue: Mutex<Queue>,
    notify: Option<Notify>,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watcher")
            .field("id", &self.id)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Seen>,
    /// Grows by the backlog with which a watch began, because history holds those events anyway.
    capacity: usize,
    is_cut: bool,
}

type ById = BTreeMap<u64, Arc<Watcher>>;
type ByValue = HashMap<Box<[u8]>, ById>;

/// The watchers of one prefix.
#[derive(Debug, Default)]
struct Scope {
    everything: ById,
    by_value: BTreeMap<(Kind, Box<[u8]>), ByValue>,
}

/// All watchers. The hash maps are only looked up, never walked.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    next_id: u64,
    by_id: HashMap<u64, Arc<Watcher>>,
    scopes: HashMap<Box<[u8]>, Scope>,
}

impl Watchers {
    /// Register a watcher whose queue starts with what it sees of `backlog`; return its id.
    pub(crate) fn add<'a>(
        &mut self,
        prefix: &[u8],
        selector: Selector,
        backlog: impl Iterator<Item = &'a Arc<Event>>,
        notify: Option<Notify>,
    ) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let seen = backlog.filter_map(|event| Some((event.seen_by(&selector)?, event.clone())));
        let events: VecDeque<_> = seen.collect();
        let queue = Mutex::new(Queue {
            capacity: QUEUE_MAX + events.len(),
            events,
            is_cut: false,
        });
        let watcher = Arc::new(Watcher {
            id,
            prefix: prefix.into(),
            selector,
            queue,
            notify,
        });
        self.by_id.insert(id, watcher.clone());
        let scope = self.scopes.entry(prefix.into()).or_default();
        match watcher.selector.anchor() {
            None => {
                scope.everything.insert(id, watcher.clone());
            }
            Some((kind, key, values)) => {
                let by_value = scope.by_value.entry((kind, key.into())).or_default();
                for value in values {
                    by_value
                        .entry(value.clone())
                        .or_default()
                        .insert(id, watcher.clone());
                }
            }
        }
        id
    }

    /// Forget a watcher; nothing happens when the id is unknown.
    pub(crate) fn remove(&mut self, id: u64) {
        let Some(watcher) = self.by_id.remove(&id) else {
            return;
        };
        let Some(scope) = self.scopes.get_mut(&watcher.prefix) else {
            return;
        };
        scope.everything.remove(&id);
        if let Some((kind, key, values)) = watcher.selector.anchor() {
            let anchor = (kind, key.into());
            if let Some(by_value) = scope.by_value.get_mut(&anchor) {
                for value in values {
                    if let Some(watchers) = by_value.get_mut(value) {
                        watchers.remove(&id);
                        if watchers.is_empty() {
                            by_value.remove(value);
                        }
                    }
                }
                if by_value.is_empty() {
                    scope.by_value.remove(&anchor);
                }
            }
        }
        if scope.everything.is_empty() && scope.by_value.is_empty() {
            self.scopes.remove(&watcher.prefix);
        }
    }

    /// Queue `event` for every watcher it concerns and note them in `news`.
    pub(crate) fn dispatch(&self, event: &Arc<Event>, news: &mut News) {
        let key: &[u8] = &event.new.key;
        self.dispatch_to(&[], event, news);
        for end in memchr::memchr_iter(b'/', key) {
            self.dispatch_to(key.get(..=end).unwrap_or_default(), event, news);
        }
        if key.last() != Some(&b'/') {
            self.dispatch_to(key, event, news);
        }
    }

    fn dispatch_to(&self, prefix: &[u8], event: &Arc<Event>, news: &mut News) {
        let Some(scope) = self.scopes.get(prefix) else {
            return;
        };
        for watcher in scope.everything.values() {
            watcher.offer(event, news);
        }
        for ((kind, key), by_value) in &scope.by_value {
            let old = event.old.as_ref().and_then(|old| anchored(old, *kind, key));
            let new = Some(&event.new)
                .filter(|new| !new.is_deletion())
                .and_then(|new| anchored(new, *kind, key));
            let before = old.and_then(|value| by_value.get(value));
            for watcher in before.iter().flat_map(|watchers| watchers.values()) {
                watcher.offer(event, news);
            }
            if new == old {
                continue;
            }
            for watcher in new
                .and_then(|value| by_value.get(value))
                .iter()
                .flat_map(|watchers| watchers.values())
            {
                if !before.is_some_and(|before| before.contains_key(&watcher.id)) {
                    watcher.offer(event, news);
                }
            }
        }
    }

    /// Hand events to `collect` until it answers that it has enough, never splitting a revision. Return the revision seen up to.
    fn take(
        &self,
        id: u64,
        published: u64,
        mut collect: impl FnMut(EventType, &Arc<Event>) -> bool,
    ) -> Result<u64> {
        let watcher = self
            .by_id
            .get(&id)
            .ok_or(StoreError::UnknownWatcher { id })?;
        let mut queue = lock(&watcher.queue);
        if queue.is_cut {
            return Err(StoreError::WatcherLagged { id });
        }
        let mut is_full = false;
        let mut last = 0;
        while let Some((_, event)) = queue.events.front() {
            if is_full && event.revision() != last {
                break;
            }
            if let Some((kind, event)) = queue.events.pop_front() {
                last = event.revision();
                is_full |= collect(kind, &event);
            }
        }
        let revision = queue
            .events
            .front()
            .map_or(published, |(_, event)| event.revision().saturating_sub(1));
        if queue.events.is_empty() {
            queue.capacity = QUEUE_MAX;
        }
        Ok(revision)
    }

    pub(crate) fn poll(
        &self,
        id: u64,
        published: u64,
        max_events: usize,
    ) -> Result<Poll<Vec<Seen>>> {
        let mut events = Vec::new();
        let collect = |kind, event: &Arc<Event>| {
            events.push((kind, event.clone()));
            events.len() >= max_events
        };
        let revision = self.take(id, published, collect)?;
        Ok(Poll { events, revision })
    }

    pub(crate) fn poll_frames(
        &self,
        id: u64,
        published: u64,
        max_bytes: usize,
    ) -> Result<Poll<Vec<Frame>>> {
        let mut frames = Vec::new();
        let mut size = 0;
        let collect = |kind, event: &Arc<Event>| {
            let frame = event.frame(kind);
            size += frame.len();
            frames.push(frame);
            size >= max_bytes
        };
        let revision = self.take(id, published, collect)?;
        Ok(Poll {
            events: frames,
            revision,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// The watchers that a publication gave something to.
#[derive(Debug, Default)]
pub(crate) struct News {
    watchers: ById,
}

impl News {
    /// Call the waiting fronts and return the ids, ascending.
    pub(crate) fn deliver(self) -> Vec<u64> {
        for notify in self
            .watchers
            .values()
            .filter_map(|watcher| watcher.notify.as_ref())
        {
            notify();
        }
        self.watchers.into_keys().collect()
    }
}

impl Watcher {
    fn offer(self: &Arc<Self>, event: &Arc<Event>, news: &mut News) {
        let Some(kind) = event.seen_by(&self.selector) else {
            return;
        };
        let mut queue = lock(&self.queue);
        if queue.is_cut {
            return;
        }
        if queue.events.len() >= queue.capacity {
            queue.events = VecDeque::new();
            queue.is_cut = true;
        } else {
            queue.events.push_back((kind, event.clone()));
        }
        news.watchers.entry(self.id).or_insert_with(|| self.clone());
    }
}

/// The value under which a state is looked up: a missing field reads as the empty string.
fn anchored<'a>(state: &'a Revision, kind: Kind, key: &[u8]) -> Option<&'a [u8]> {
    match kind {
        Kind::Field => Some(state.attributes.get(kind, key).unwrap_or_default()),
        _ => state.attributes.get(kind, key),
    }
}
