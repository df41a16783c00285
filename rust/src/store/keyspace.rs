//! The versioned map: for each key a chain of revisions, oldest first, and the order in which they were made.
//!
//! Nothing is overwritten: a write appends to its key's chain, so a reader at any retained revision finds its state by walking
//! that chain backwards. History is a queue of pointers to a revision and the one before it; events are made of them for those who
//! watch. Compaction moves the floor at once and trims, in steps that the caller sizes, only the chains that
//! history up to there touched, so its cost is what happened since the last one, not the number of keys.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::attributes::{Kind, Pair};
use super::chain::Chain;
use super::error::{Result, StoreError};
use super::event::Event;
use super::index::Index;
use super::lease::Leases;
use super::revision::{Key, Revision};
use super::selector::Selector;
use super::span::Span;

/// An empty store is at revision 1 like etcd's, so that the first commit gets 2 and 0 and 1 never name an object's revision.
pub(crate) const FIRST_REVISION: u64 = 1;

#[derive(Debug)]
pub(crate) struct Keyspace {
    chains: BTreeMap<Key, Chain>,
    index: Index,
    pub(crate) leases: Leases,
    /// What was written at the floor and after it, and what trimming has not reached yet.
    history: VecDeque<Change>,
    /// The oldest revision that can be read.
    pub(crate) floor: u64,
    /// The newest revision, seen by the preconditions of the next commit.
    pub(crate) applied: u64,
    /// The newest revision that readers and watchers see.
    pub(crate) published: u64,
    /// While a snapshot is being written, the floor it was begun with: nothing that reads from there on need is trimmed.
    pub(crate) pin: Option<u64>,
}

impl Default for Keyspace {
    fn default() -> Self {
        Keyspace {
            chains: BTreeMap::new(),
            index: Index::default(),
            leases: Leases::default(),
            history: VecDeque::new(),
            floor: 0,
            applied: FIRST_REVISION,
            published: FIRST_REVISION,
            pin: None,
        }
    }
}

/// The step of one key to `new` from the live state before, which is None when the key did not exist.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) new: Arc<Revision>,
    pub(crate) old: Option<Arc<Revision>>,
}

impl Change {
    pub(crate) fn event(&self) -> Arc<Event> {
        Arc::new(Event::new(self.old.clone(), self.new.clone()))
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

    /// Append the state that `make` gives `key` to its chain and to history; return it, and the live state before. `make` is given
    /// the key as it is shared in memory and what it has been; nothing has changed when it fails. The key is looked up once,
    /// because among a million of them that costs more than all the rest. Revisions must arrive in order; the caller moves
    /// `applied`.
    pub(crate) fn write<E>(
        &mut self,
        key: Key,
        make: impl FnOnce(&Key, Option<&Chain>) -> std::result::Result<Revision, E>,
    ) -> std::result::Result<(Arc<Revision>, Option<Arc<Revision>>), E> {
        let mut old = None;
        let new = match self.chains.entry(key) {
            Entry::Occupied(mut chain) => {
                let new = Arc::new(make(chain.key(), Some(chain.get()))?);
                old = chain.get().newest().cloned();
                chain.get_mut().push(new.clone());
                new
            }
            Entry::Vacant(vacant) => {
                let new = Arc::new(make(vacant.key(), None)?);
                vacant.insert(Chain::new(new.clone()));
                new
            }
        };
        let before = old.as_ref().map(|old| &old.attributes);
        if !before.is_some_and(|before| before.is_shared_with(&new.attributes)) {
            self.index.insert(&new.key, &new.attributes);
        }
        self.leases.attach(&new.key, new.lease);
        if new.modified >= self.floor {
            self.history.push_back(Change {
                new: new.clone(),
                old: old.clone(),
            });
        }
        Ok((new, old))
    }

    /// Take back the newest revision of the whole store, which `write` has just added.
    pub(crate) fn undo(&mut self) {
        let Some(Change { new: gone, .. }) = self.history.pop_back() else {
            return;
        };
        let is_first = !self.chains.get_mut(&gone.key).is_some_and(Chain::pop);
        if is_first {
            self.chains.remove(&gone.key);
        }
        let chain = self.chains.get(&gone.key);
        let kept = chain.into_iter().flat_map(Chain::all);
        let kept = kept.map(|state| &state.attributes);
        self.index.remove(&gone.key, &gone.attributes, kept);
        let before = chain.and_then(Chain::newest).map_or(0, |state| state.lease);
        self.leases.attach(&gone.key, before);
    }

    /// Take back everything written after `revision`. Their revisions are not given again.
    pub(crate) fn undo_after(&mut self, revision: u64) {
        while self
            .history
            .back()
            .is_some_and(|change| change.new.modified > revision)
        {
            self.undo();
        }
    }

    /// Resolve the revision of a read: 0 is the newest published one.
    pub(crate) fn readable(&self, revision: u64) -> Result<u64> {
        self.readable_upto(revision, self.published)
    }

    /// Resolve the revision of a read that sees up to `newest`, which 0 stands for.
    pub(crate) fn readable_upto(&self, revision: u64, newest: u64) -> Result<u64> {
        match revision {
            0 => Ok(newest),
            _ if revision > newest => Err(StoreError::FutureRevision {
                revision,
                current: newest,
            }),
            _ if revision < self.floor => Err(StoreError::Compacted {
                revision,
                floor: self.floor,
            }),
            _ => Ok(revision),
        }
    }

    /// Objects in `span` at `revision` from `start` on that match; `limit` 0 means all. Walks the smallest posting that the
    /// selector offers, or else the keys. `remaining` is -1 when a selector would make counting cost a full walk.
    pub(crate) fn range(
        &self,
        span: &Span<'_>,
        start: &[u8],
        limit: usize,
        revision: u64,
        selector: &Selector,
    ) -> Found {
        let wanted = |state: &&Arc<Revision>| selector.matches(&state.attributes);
        let smallest = selector.pairs().min_by_key(|pair| self.index.count(pair));
        if let Some(pair) = smallest {
            let keys = self.index.keys_from(&pair, start.max(span.start()));
            let covered = keys.take_while(|key| span.contains(key));
            let states = covered.filter_map(|key| self.at(key, revision));
            return page(states.filter(wanted), limit);
        }
        let states = self
            .walk(span, start)
            .filter_map(|(_, chain)| chain.at(revision));
        let mut found = page(states.filter(wanted), limit);
        if let Some(next) = found.next.as_deref().filter(|_| selector.is_empty()) {
            found.remaining = self.count(span, next, revision) as i64;
        }
        found
    }

    /// How many keys in `span` from `start` on exist at `revision`.
    pub(crate) fn count(&self, span: &Span<'_>, start: &[u8], revision: u64) -> usize {
        self.walk(span, start)
            .filter(|(_, chain)| chain.is_live_at(revision))
            .count()
    }

    /// The chains in `span` from `start` on. The end is looked up once, so that the walk itself reads no keys.
    fn walk(&self, span: &Span<'_>, start: &[u8]) -> impl Iterator<Item = (&Key, &Chain)> {
        let walk = span.bounded(start, |bounds| self.chains.range::<[u8], _>(bounds));
        walk.into_iter().flatten()
    }

    /// Keys whose published state names `uid` as an owner, in order.
    pub(crate) fn by_owner(&self, uid: &[u8]) -> Vec<Key> {
        let pair = Pair {
            kind: Kind::Owner,
            key: b"",
            value: uid,
        };
        let owned = |key: &&Key| {
            self.at(key, self.published)
                .is_some_and(|state| state.attributes.contains(&pair))
        };
        let keys = self.index.keys_from(&pair, b"");
        keys.filter(owned).cloned().collect()
    }

    /// What was written after `revision` and up to `upto`, oldest first.
    pub(crate) fn written_after(&self, revision: u64, upto: u64) -> impl Iterator<Item = &Change> {
        // Most who ask want the end, so the search begins there: every look at a change may miss the cache.
        let is_before = |at: usize| {
            let change = self.history.get(at);
            change.is_none_or(|change| change.new.modified <= revision)
        };
        let (mut first, mut behind) = (0, self.history.len());
        let mut step = 1;
        while step <= behind {
            let at = behind - step;
            if is_before(at) {
                first = at + 1;
                break;
            }
            behind = at;
            step *= 2;
        }
        while first < behind {
            let middle = (first + behind) / 2;
            if is_before(middle) {
                first = middle + 1;
            } else {
                behind = middle;
            }
        }
        self.history
            .range(first..)
            .take_while(move |change| change.new.modified <= upto)
    }

    /// Refuse reads below `revision` from now on. What only they needed is forgotten by `trim`.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
    }

    /// Move to `garbage` what no read at the floor or later needs, looking at no more than `steps` old revisions; false when some
    /// are left. What was written at the floor itself stays until the floor moves on, for watches that begin with it.
    pub(crate) fn trim(&mut self, steps: usize, garbage: &mut Vec<Arc<Revision>>) -> bool {
        let upto = self.pin.unwrap_or(self.floor).min(self.floor);
        for _ in 0..steps {
            match self.history.front() {
                Some(change) if change.new.modified < upto => {}
                _ => return true,
            }
            if let Some(Change { new, old }) = self.history.pop_front() {
                self.trim_chain(&new.key, upto, garbage);
                garbage.push(new);
                garbage.extend(old);
            }
        }
        false
    }

    /// Drop the revisions of one key that are superseded at `floor`.
    fn trim_chain(&mut self, key: &Key, floor: u64, garbage: &mut Vec<Arc<Revision>>) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        for gone in chain.trim(floor) {
            let kept = chain.all().map(|state| &state.attributes);
            if !kept
                .clone()
                .any(|kept| kept.is_shared_with(&gone.attributes))
            {
                self.index.remove(key, &gone.attributes, kept);
            }
            garbage.push(gone);
        }
        if chain.is_gone_at(floor) {
            self.chains.remove(key);
        }
    }

    /// Give back memory that history held before it was trimmed.
    pub(crate) fn shrink(&mut self) {
        if self.history.capacity() > 4 * self.history.len().max(1024) {
            self.history.shrink_to(self.history.len() * 2);
        }
    }

    /// Revisions up to `upto` that reads from `floor` on need, of `count` keys behind `after`, by key and then by age; and the last
    /// of those keys, None when there were no more.
    pub(crate) fn retained(
        &self,
        after: Option<&Key>,
        count: usize,
        floor: u64,
        upto: u64,
    ) -> (Vec<Arc<Revision>>, Option<Key>) {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&**key));
        let mut states = Vec::new();
        let mut last = None;
        let chains = self.chains.range::<[u8], _>((from, Bound::Unbounded));
        for (key, chain) in chains.take(count) {
            states.extend(chain.needed(floor, upto).cloned());
            last = Some(key.clone());
        }
        (states, last)
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

/// A key space being put together out of revisions as `retained` gave them.
#[derive(Debug, Default)]
pub(crate) struct Restoring {
    index: Index,
    chains: Vec<(Key, Chain)>,
    /// With where it stands in history beside it: sorting a million of them must not follow a pointer for every comparison.
    history: Vec<(u64, u32, Change)>,
}

impl Restoring {
    pub(crate) fn add(&mut self, state: Arc<Revision>) {
        let (modified, sub, new) = (state.modified, state.sub, state.clone());
        let mut old = None;
        match self.chains.last_mut() {
            Some((key, chain)) if *key == state.key => {
                old = chain.newest().cloned();
                self.index.insert(&state.key, &state.attributes);
                chain.push(state);
            }
            _ => {
                self.index.insert(&state.key, &state.attributes);
                self.chains.push((state.key.clone(), Chain::new(state)));
            }
        }
        self.history.push((modified, sub, Change { new, old }));
    }

    /// The newest revision added, 0 without any.
    pub(crate) fn newest(&self) -> u64 {
        let revisions = self.history.iter().map(|(modified, ..)| *modified);
        revisions.max().unwrap_or(0)
    }

    /// The key space at revision `applied` with compaction floor `floor`, and `leases`: ids, and seconds to live.
    pub(crate) fn finish(mut self, leases: &[(i64, i64)], floor: u64, applied: u64) -> Keyspace {
        let mut keys = Keyspace {
            index: self.index,
            floor,
            applied,
            published: applied,
            ..Keyspace::default()
        };
        for (id, ttl_s) in leases {
            keys.leases.grant(*id, *ttl_s, None);
        }
        for (key, chain) in &self.chains {
            let lease = chain.newest().map_or(0, |newest| newest.lease);
            keys.leases.attach(key, lease);
        }
        // Sorted already, so every node of the tree is filled.
        keys.chains = BTreeMap::from_iter(self.chains);
        self.history.retain(|(modified, ..)| *modified >= floor);
        self.history
            .sort_unstable_by_key(|(modified, sub, _)| (*modified, *sub));
        keys.history = self
            .history
            .into_iter()
            .map(|(.., change)| change)
            .collect();
        keys
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
