//! Secondary indexes: from a label, field or owner pair to the keys that carry it in any retained revision.
//!
//! A posting is a superset on purpose: it also names keys whose matching revision is history or not yet published, so that one
//! index serves reads at every revision. Readers check the revision they see; compaction drops the pairs it forgets.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::attributes::{Attributes, Kind, Pair};
use super::revision::Key;

/// Keys with one pair. Most pairs that tell objects apart (names, uids) have a single key, which then needs no tree.
#[derive(Debug)]
enum Posting {
    One(Key),
    /// Boxed, so that the common case sets the size of a posting.
    #[allow(clippy::box_collection)]
    Many(Box<BTreeSet<Key>>),
}

/// All postings. The hash map is only looked up, never walked.
#[derive(Debug, Default)]
pub(crate) struct Index {
    postings: HashMap<Box<[u8]>, Posting>,
}

impl Index {
    pub(crate) fn insert(&mut self, key: &Key, attributes: &Attributes) {
        for pair in attributes.pairs() {
            let name = posting_name(pair.kind, pair.key, pair.value);
            match self.postings.get_mut(name.as_slice()) {
                None => {
                    self.postings
                        .insert(name.into_boxed_slice(), Posting::One(key.clone()));
                }
                Some(Posting::One(only)) if only == key => {}
                Some(posting @ Posting::One(_)) => {
                    let mut keys = BTreeSet::from([key.clone()]);
                    if let Posting::One(only) = posting {
                        keys.insert(only.clone());
                    }
                    *posting = Posting::Many(Box::new(keys));
                }
                Some(Posting::Many(keys)) => {
                    keys.insert(key.clone());
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Key, pair: &Pair<'_>) {
        let name = posting_name(pair.kind, pair.key, pair.value);
        let is_empty = match self.postings.get_mut(name.as_slice()) {
            None => false,
            Some(Posting::One(only)) => only == key,
            Some(Posting::Many(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if is_empty {
            self.postings.remove(name.as_slice());
        }
    }

    /// How many keys carry the pair, at most.
    pub(crate) fn count(&self, kind: Kind, key: &[u8], value: &[u8]) -> usize {
        match self.postings.get(posting_name(kind, key, value).as_slice()) {
            None => 0,
            Some(Posting::One(_)) => 1,
            Some(Posting::Many(keys)) => keys.len(),
        }
    }

    /// Keys with the pair, in key order, from `start` on.
    pub(crate) fn keys_from<'a>(
        &'a self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        start: &[u8],
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match self.postings.get(posting_name(kind, key, value).as_slice()) {
            None => Box::new(std::iter::empty()),
            Some(Posting::One(only)) => {
                Box::new(Some(only).filter(|only| &***only >= start).into_iter())
            }
            Some(Posting::Many(keys)) => {
                Box::new(keys.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)))
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.postings.len()
    }
}

/// The key's length comes first, so that no two pairs share a name.
fn posting_name(kind: Kind, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len() + value.len() + 4);
    name.push(kind.tag());
    super::codec::put_bytes(&mut name, key);
    name.extend_from_slice(value);
    name
}
