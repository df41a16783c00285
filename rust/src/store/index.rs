//! Secondary indexes: from a label, field or owner pair to the keys that carry it in any retained revision.
//!
//! A posting is a superset on purpose: it also names keys whose matching revision is history or not yet published, so that one
//! index serves reads at every revision. Readers check the revision they see; compaction drops the pairs it forgets. For the same
//! reason a posting goes by the hash of its pair alone: should two pairs share one, readers skip a few keys more.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::ops::Bound;

use super::attributes::{Attributes, Pair};
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
    postings: HashMap<u64, Posting, BuildHasherDefault<Hashed>>,
}

/// Takes a key that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |sum, byte| sum << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Index {
    pub(crate) fn insert(&mut self, key: &Key, attributes: &Attributes) {
        for pair in attributes.pairs() {
            let name = posting_name(&pair);
            match self.postings.get_mut(&name) {
                None => {
                    self.postings.insert(name, Posting::One(key.clone()));
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

    /// Take `key` out of the postings of the pairs of `gone` that none of `kept` has.
    pub(crate) fn remove<'a>(
        &mut self,
        key: &Key,
        gone: &Attributes,
        kept: impl Iterator<Item = &'a Attributes> + Clone,
    ) {
        for pair in gone.pairs() {
            let name = posting_name(&pair);
            let mut names = kept.clone().flat_map(Attributes::pairs);
            if !names.any(|kept| posting_name(&kept) == name) {
                self.remove_from(name, key);
            }
        }
    }

    fn remove_from(&mut self, name: u64, key: &Key) {
        let is_empty = match self.postings.get_mut(&name) {
            None => false,
            Some(Posting::One(only)) => only == key,
            Some(Posting::Many(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if is_empty {
            self.postings.remove(&name);
        }
    }

    /// How many keys carry the pair, at most.
    pub(crate) fn count(&self, pair: &Pair<'_>) -> usize {
        match self.postings.get(&posting_name(pair)) {
            None => 0,
            Some(Posting::One(_)) => 1,
            Some(Posting::Many(keys)) => keys.len(),
        }
    }

    /// Keys with the pair, in key order, from `start` on.
    pub(crate) fn keys_from<'a>(
        &'a self,
        pair: &Pair<'_>,
        start: &[u8],
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match self.postings.get(&posting_name(pair)) {
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

/// The key's length comes first, so that no two pairs are the same bytes.
fn posting_name(pair: &Pair<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(pair.kind.tag());
    hasher.write_usize(pair.key.len());
    hasher.write(pair.key);
    hasher.write(pair.value);
    hasher.finish()
}
