//! The versioned map: for each key a chain of revisions, oldest first, and the history of events that made them.
//!
//! Nothing is overwritten: a write appends to its key's chain, so a reader at any retained revision finds its state by walking
//! that chain backwards. Compaction pops history up to the new floor and trims only the chains that those events touched, so its
//! cost is what happened since the last one, not the number of keys.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::attributes::{Attributes, Kind};
use super::chain::Chain;
use super::error::{Result, StoreError};
use super::event::Event;
use super::index::Index;
use super::revision::{Key, Revision};
use super::selector::Selector;

/// An empty store is at revision 1 like etcd's, so that the first commit gets 2 and 0 and 1 never name an object's revision.
pub(crate) const FIRST_REVISION: u64 = 1;

#[derive(Debug)]
pub(crate) struct Keyspace {
    chains: BTreeMap<Key, Chain>,
    index: Index,
    history: VecDeque<Arc<Event>>,
    /// The oldest revision that can be read.
    pub(crate) floor: u64,
    /// The newest revision, seen by the preconditions of the next commit.
    pub(crate) applied: u64,
    /// The newest revision that readers and watchers see.
    pub(crate) published: u64,
    none: Arc<Attributes>,
}

impl Default for Keyspace {
    fn default() -> Self {
        Keyspace {
            chains: BTreeMap::new(),
            index: Index::default(),
            history: VecDeque::new(),
            floor: 0,
            applied: FIRST_REVISION,
            published: FIRST_REVISION,
            none: Arc::default(),
        }
    }
}

/// What a range found: shared revisions in key order, the next matching key, and how many matches lie from there on.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) items: Vec<Arc<Revision>>,
    pub(crate) next: Option<Key>,
    pub(crate) remaining: i64,
}

impl Keyspace {
    /// The newest applied state of `key`, None when it does not exist.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<&Arc<Revision>> {
        self.chains.get(key)?.newest()
    }

    /// The state of `key` at `revision`, None when it did not exist then.
    pub(crate) fn at(&self, key: &[u8], revision: u64) -> Option<&Arc<Revision>> {
        self.chains.get(key)?.at(revision)
    }

    /// The key as it is already shared in memory, or a new one.
    pub(crate) fn shared_key(&self, key: &[u8]) -> Key {
        self.chains
            .get_key_value(key)
            .map_or_else(|| key.into(), |(shared, _)| shared.clone())
    }

    /// `attributes`, shared with the newest state of the key when they did not change.
    pub(crate) fn shared_attributes(&self, key: &[u8], attributes: Attributes) -> Arc<Attributes> {
        match self.newest(key) {
            Some(newest) if *newest.attributes == attributes => newest.attributes.clone(),
            _ => Arc::new(attributes),
        }
    }

    pub(crate) fn no_attributes(&self) -> Arc<Attributes> {
        self.none.clone()
    }

    /// Append `new` to its key's chain and to history. Revisions must arrive in order; the caller moves `applied`.
    pub(crate) fn apply(&mut self, new: Arc<Revision>) {
        let old = match self.chains.get_mut(&new.key) {
            Some(chain) => {
                let old = chain.newest().cloned();
                chain.push(new.clone());
                old
            }
            None => {
                self.chains.insert(new.key.clone(), Chain::new(new.clone()));
                None
            }
        };
        if !old
            .as_ref()
            .is_some_and(|old| Arc::ptr_eq(&old.attributes, &new.attributes))
        {
            self.index.insert(&new.key, &new.attributes);
        }
        if new.modified > self.floor {
            self.history.push_back(Arc::new(Event::new(old, new)));
        }
    }

    /// Resolve the revision of a read: 0 is the newest published one.
    pub(crate) fn readable(&self, revision: u64) -> Result<u64> {
        match revision {
            0 => Ok(self.published),
            _ if revision > self.published => Err(StoreError::FutureRevision {
                revision,
                current: self.published,
            }),
            _ if revision < self.floor => Err(StoreError::Compacted {
                revision,
                floor: self.floor,
            }),
            _ => Ok(revision),
        }
    }

    /// Objects under `prefix` at `revision` from `start` on that match; `limit` 0 means all. Walks the smallest posting that the
    /// selector offers, or else the keys. `remaining` is -1 when a selector would make counting cost a full walk.
    pub(crate) fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        revision: u64,
        selector: &Selector,
    ) -> Found {
        let start = if start > prefix { start } else { prefix };
        let wanted = |state: &&Arc<Revision>| selector.matches(&state.attributes);
        let smallest = selector
            .pairs()
            .min_by_key(|(kind, key, value)| self.index.count(*kind, key, value));
        if let Some((kind, key, value)) = smallest {
            let keys = self.index.keys_from(kind, key, value, start);
            let covered = keys.take_while(|key| covers(prefix, key));
            let states = covered.filter_map(|key| self.at(key, revision));
            return page(states.filter(wanted), limit);
        }
        let states = self
            .walk(prefix, start)
            .filter_map(|(_, chain)| chain.at(revision));
        let mut found = page(states.filter(wanted), limit);
        if let Some(next) = found.next.as_deref().filter(|_| selector.is_empty()) {
            let rest = self
                .walk(prefix, next)
                .filter(|(_, chain)| chain.is_live_at(revision));
            found.remaining = rest.count() as i64;
        }
        found
    }

    /// The chains under `prefix` from `start` on. The end is looked up once, so that the walk itself reads no keys.
    fn walk(&self, prefix: &[u8], start: &[u8]) -> impl Iterator<Item = (&Key, &Chain)> {
        let mut behind = prefix.to_vec();
        let end = match behind.last_mut() {
            None => Bound::Unbounded,
            Some(last @ b'/') => {
                *last += 1;
                Bound::Excluded(behind.as_slice())
            }
            Some(_) => Bound::Included(behind.as_slice()),
        };
        // A map refuses a range that ends before it starts.
        let is_behind = match end {
            Bound::Excluded(end) => start >= end,
            Bound::Included(end) => start > end,
            Bound::Unbounded => false,
        };
        let start = if is_behind {
            Bound::Unbounded
        } else {
            Bound::Included(start)
        };
        let chains = self.chains.range::<[u8], _>((start, end));
        chains.take(if is_behind { 0 } else { usize::MAX })
    }

    /// Keys whose published state names `uid` as an owner, in order.
    pub(crate) fn by_owner(&self, uid: &[u8]) -> Vec<Key> {
        let keys = self.index.keys_from(Kind::Owner, b"", uid, b"");
        let owned = |key: &&Key| {
            let pair = super::attributes::Pair {
                kind: Kind::Owner,
                key: b"",
                value: uid,
            };
            self.at(key, self.published)
                .is_some_and(|state| state.attributes.contains(&pair))
        };
        keys.filter(owned).cloned().collect()
    }

    /// Published events after `revision`, oldest first.
    pub(crate) fn events_after(
        &self,
        revision: u64,
        upto: u64,
    ) -> impl Iterator<Item = &Arc<Event>> {
        let first = self
            .history
            .partition_point(|event| event.revision() <= revision);
        self.history
            .range(first..)
            .take_while(move |event| event.revision() <= upto)
    }

    /// Forget what no read at `revision` or later needs.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
        while let Some(event) = self.history.front() {
            if event.revision() > revision {
                break;
            }
            let key = event.new.key.clone();
            self.history.pop_front();
            self.trim(&key, revision);
        }
    }

    /// Drop the revisions of one key that are superseded at `floor`.
    fn trim(&mut self, key: &Key, floor: u64) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        for gone in chain.trim(floor) {
            if chain
                .all()
                .any(|kept| Arc::ptr_eq(&kept.attributes, &gone.attributes))
            {
                continue;
            }
            for pair in gone.attributes.pairs() {
                if !chain.all().any(|kept| kept.attributes.contains(&pair)) {
                    self.index.remove(key, &pair);
                }
            }
        }
        if chain.is_gone_at(floor) {
            self.chains.remove(key);
        }
    }

    /// Every retained revision up to `upto`, by key and then by age.
    pub(crate) fn retained(&self, upto: u64) -> Vec<Arc<Revision>> {
        self.chains
            .values()
            .flat_map(Chain::all)
            .filter(|revision| revision.modified <= upto)
            .cloned()
            .collect()
    }

    /// Take revisions as `retained` gave them, into an empty key space with floor `floor`.
    pub(crate) fn restore(&mut self, revisions: Vec<Arc<Revision>>, floor: u64, applied: u64) {
        self.floor = floor;
        for revision in revisions {
            self.apply(revision);
        }
        self.history
            .make_contiguous()
            .sort_by_key(|event| (event.new.modified, event.new.sub));
        self.applied = applied;
        self.published = applied;
    }

    pub(crate) fn key_count(&self) -> usize {
        self.chains.len()
    }

    pub(crate) fn history_len(&self) -> usize {
        self.history.len()
    }

    pub(crate) fn index_len(&self) -> usize {
        self.index.len()
    }
}

/// A prefix that is empty or ends in `/` covers what starts with it; any other is one exact key.
pub(crate) fn covers(prefix: &[u8], key: &[u8]) -> bool {
    match prefix.last() {
        None | Some(b'/') => key.starts_with(prefix),
        Some(_) => key == prefix,
    }
}

fn page<'a>(mut states: impl Iterator<Item = &'a Arc<Revision>>, limit: usize) -> Found {
    if limit == 0 {
        return Found {
            items: states.cloned().collect(),
            next: None,
            remaining: 0,
        };
    }
    let items = states.by_ref().take(limit).cloned().collect();
    let next = states.next().map(|next| next.key.clone());
    let remaining = if next.is_some() { -1 } else { 0 };
    Found {
        items,
        next,
        remaining,
    }
}
