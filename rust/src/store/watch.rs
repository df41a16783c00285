//! Watchers, and the index that finds the few that an event concerns.
//!
//! A watcher is registered once: under its span and there either among those that see everything or, if its selector demands a
//! certain field or label value, under that value. Spans that are directories (a collection, a namespace of it) or one key are
//! found by looking up those beginnings of an event's key that are as long as the name of some span; all other spans stand in an
//! interval map. For each field and label that anybody watches there the value before and after is looked up; so with 10,000
//! kubelets each watching their own spec.nodeName, an event costs two of them a queue push and the others nothing.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};

use super::attributes::Kind;
use super::error::{Result, StoreError};
use super::event::{Event, EventType};
use super::interval::IntervalMap;
use super::keyspace::Change;
use super::lock;
use super::revision::{Frame, Revision};
use super::selector::Selector;
use super::span::Span;

/// Events that a watcher may fall behind before it is cut.
pub const QUEUE_MAX: usize = 10_000;

/// Bytes of objects that a watcher may keep alive by falling behind before it is cut.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Room that an empty queue keeps.
const QUEUE_KEPT: usize = 64;

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
    place: Place,
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

/// Where a watcher is registered: under a name that is looked up, or by its start and end.
#[derive(Debug, Clone)]
enum Place {
    Named(Box<[u8]>),
    Between(Box<[u8]>, Option<Box<[u8]>>),
}

impl Place {
    fn of(span: &Span<'_>) -> Self {
        match span.scope() {
            Some(name) => Place::Named(name.into()),
            None => Place::Between(span.start().into(), span.end().map(Into::into)),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Seen>,
    bytes: usize,
    /// Both grow by the backlog with which a watch began, because history holds those events anyway.
    capacity: usize,
    bytes_capacity: usize,
    is_cut: bool,
}

type ById = BTreeMap<u64, Arc<Watcher>>;
type ByBytes<T> = HashMap<Box<[u8]>, T, BuildHasherDefault<Checksum>>;
type ByValue = ByBytes<ById>;

/// A checksum the processor computes, because an event looks up half a dozen names.
#[derive(Debug, Default)]
struct Checksum(u32);

impl Hasher for Checksum {
    fn finish(&self) -> u64 {
        // Hash maps want the bits spread over the whole word.
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The length of what comes: only prefixes of one key, or values of one field, are ever compared.
    fn write_usize(&mut self, length: usize) {
        self.0 = self.0.wrapping_add(length as u32);
    }
}

/// How many names there are of each length, modulo the number of counters.
#[derive(Debug)]
struct Lengths([u32; LENGTHS]);

const LENGTHS: usize = 128;

impl Default for Lengths {
    fn default() -> Self {
        Lengths([0; LENGTHS])
    }
}

impl Lengths {
    fn add(&mut self, name: &[u8]) {
        if let Some(count) = self.0.get_mut(name.len() % LENGTHS) {
            *count += 1;
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(count) = self.0.get_mut(name.len() % LENGTHS) {
            *count -= 1;
        }
    }

    /// Whether there may be a name of this length.
    fn has(&self, length: usize) -> bool {
        self.0.get(length % LENGTHS).is_some_and(|count| *count > 0)
    }
}

/// The watchers of one span.
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
    scopes: ByBytes<Scope>,
    /// Of the names of scopes.
    lengths: Lengths,
    intervals: IntervalMap<Scope>,
}

impl Watchers {
    /// Register a watcher whose queue starts with what it sees of `backlog`; return its id.
    pub(crate) fn add(
        &mut self,
        span: &Span<'_>,
        selector: Selector,
        backlog: impl Iterator<Item = Arc<Event>>,
        notify: Option<Notify>,
    ) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let seen = backlog.filter_map(|event| Some((event.seen_by(&selector)?, event)));
        let events: VecDeque<_> = seen.collect();
        let bytes = events.iter().map(|(_, event)| event.size()).sum();
        let queue = Mutex::new(Queue {
            capacity: QUEUE_MAX + events.len(),
            bytes_capacity: QUEUE_BYTES_MAX + bytes,
            events,
            bytes,
            is_cut: false,
        });
        let watcher = Arc::new(Watcher {
            id,
            place: Place::of(span),
            selector,
            queue,
            notify,
        });
        self.by_id.insert(id, watcher.clone());
        let scope = match &watcher.place {
            Place::Named(name) => {
                if !self.scopes.contains_key(name) {
                    self.lengths.add(name);
                }
                Some(self.scopes.entry(name.clone()).or_default())
            }
            Place::Between(start, end) => {
                self.intervals.ensure(start, end.as_deref());
                self.intervals.get_mut(start, end.as_deref())
            }
        };
        if let Some(scope) = scope {
            scope.add(&watcher);
        }
        id
    }

    /// Forget a watcher; nothing happens when the id is unknown.
    pub(crate) fn remove(&mut self, id: u64) {
        let Some(watcher) = self.by_id.remove(&id) else {
            return;
        };
        let scope = match &watcher.place {
            Place::Named(name) => self.scopes.get_mut(name),
            Place::Between(start, end) => self.intervals.get_mut(start, end.as_deref()),
        };
        let Some(scope) = scope else {
            return;
        };
        scope.remove(&watcher);
        if scope.is_empty() {
            match &watcher.place {
                Place::Named(name) => {
                    self.lengths.remove(name);
                    self.scopes.remove(name);
                }
                Place::Between(start, end) => self.intervals.remove(start, end.as_deref()),
            }
        }
    }

    /// Queue the event of `change` for every watcher it concerns and note them in `news`. It is made for the first of them.
    pub(crate) fn dispatch(&self, change: &Change, news: &mut News) {
        let event = LazyCell::new(|| change.event());
        let key: &[u8] = &change.new.key;
        let mut offer = |scope: &Scope| {
            scope.concerned(change, &mut |watcher| watcher.offer(&event, news));
        };
        let mut named = |name: &[u8]| {
            if self.lengths.has(name.len()) {
                self.scopes.get(name).into_iter().for_each(&mut offer);
            }
        };
        if !self.scopes.is_empty() {
            named(&[]);
            for end in memchr::memchr_iter(b'/', key) {
                named(key.get(..=end).unwrap_or_default());
            }
            if key.last() != Some(&b'/') {
                named(key);
            }
        }
        self.intervals.covering(key, &mut offer);
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
                queue.bytes = queue.bytes.saturating_sub(event.size());
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
            queue.bytes_capacity = QUEUE_BYTES_MAX;
            queue.events.shrink_to(QUEUE_KEPT);
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

    /// Cut every watcher, as if it had been too slow.
    pub(crate) fn cut_all(&self) -> News {
        let mut news = News::default();
        for (id, watcher) in &self.by_id {
            let mut queue = lock(&watcher.queue);
            queue.events = VecDeque::new();
            queue.is_cut = true;
            news.watchers.insert(*id, watcher.clone());
        }
        news
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Events in all queues.
    pub(crate) fn pending(&self) -> usize {
        let queues = self.by_id.values().map(|watcher| lock(&watcher.queue));
        queues.map(|queue| queue.events.len()).sum()
    }
}

impl Scope {
    fn is_empty(&self) -> bool {
        self.everything.is_empty() && self.by_value.is_empty()
    }

    fn add(&mut self, watcher: &Arc<Watcher>) {
        let Some((kind, key, values)) = watcher.selector.anchor() else {
            self.everything.insert(watcher.id, watcher.clone());
            return;
        };
        let by_value = self.by_value.entry((kind, key.into())).or_default();
        for value in values {
            let watchers = by_value.entry(value.clone()).or_default();
            watchers.insert(watcher.id, watcher.clone());
        }
    }

    fn remove(&mut self, watcher: &Watcher) {
        self.everything.remove(&watcher.id);
        let Some((kind, key, values)) = watcher.selector.anchor() else {
            return;
        };
        let anchor = (kind, key.into());
        let Some(by_value) = self.by_value.get_mut(&anchor) else {
            return;
        };
        for value in values {
            if let Some(watchers) = by_value.get_mut(value) {
                watchers.remove(&watcher.id);
                if watchers.is_empty() {
                    by_value.remove(value);
                }
            }
        }
        if by_value.is_empty() {
            self.by_value.remove(&anchor);
        }
    }

    /// Visit the watchers that `change` may concern, each once.
    fn concerned(&self, change: &Change, visit: &mut impl FnMut(&Arc<Watcher>)) {
        self.everything.values().for_each(&mut *visit);
        let old_state = change.old.as_deref();
        let new_state = Some(&*change.new).filter(|new| !new.is_deletion());
        let is_unchanged = old_state.zip(new_state).is_some_and(|(old, new)| {
            // Most updates leave alone what selectors see.
            old.attributes.is_shared_with(&new.attributes)
        });
        for ((kind, key), by_value) in &self.by_value {
            let old = old_state.and_then(|old| anchored(old, *kind, key));
            let new = if is_unchanged {
                old
            } else {
                new_state.and_then(|new| anchored(new, *kind, key))
            };
            let before = old.and_then(|value| by_value.get(value));
            for watcher in before.iter().flat_map(|watchers| watchers.values()) {
                visit(watcher);
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
                    visit(watcher);
                }
            }
        }
    }
}

/// The watchers that a publication gave something to.
#[derive(Debug, Default)]
pub(crate) struct News {
    watchers: ById,
}

impl News {
    /// Call the fronts that gave a function, and return the ids of the other watchers, ascending.
    pub(crate) fn deliver(self) -> Vec<u64> {
        let mut others = Vec::new();
        for (id, watcher) in self.watchers {
            match &watcher.notify {
                Some(notify) => notify(),
                None => others.push(id),
            }
        }
        others
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
        let size = event.size();
        if queue.events.len() >= queue.capacity || queue.bytes + size > queue.bytes_capacity {
            queue.events = VecDeque::new();
            queue.is_cut = true;
        } else {
            queue.bytes += size;
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
