//! Writes that have been sent and not been answered, and what the watch has shown of them.
//!
//! An answer can be lost: the connection breaks, the leader dies. The write is then sent again; its comparisons let it happen only
//! once. When they fail the second time, either the first try had succeeded or somebody else was faster. Every value carries the
//! number of its write, so the watch, once it has passed the revision of the failed comparison, knows which.
//! A deletion leaves no value behind: one that was sent twice counts as ours when the key was deleted at the very revision that we wanted
//! to delete.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::store::lock;

#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number: the revision at which the watch has shown the write.
    writes: HashMap<u64, Option<u64>>,
    /// By key: the number of the write that deletes it, and the revision that it deletes.
    deletions: HashMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Outstanding {
    /// Expect write `number`, which deletes `deletions` (key, revision) and nothing else, or puts something.
    pub(crate) fn expect(&self, number: u64, deletions: &[(Vec<u8>, u64)]) {
        let mut state = lock(&self.state);
        state.writes.insert(number, None);
        for (key, revision) in deletions {
            let entry = state.deletions.entry(key.clone()).or_default();
            entry.push((number, *revision));
        }
    }

    pub(crate) fn forget(&self, number: u64, deletions: &[(Vec<u8>, u64)]) {
        let mut state = lock(&self.state);
        state.writes.remove(&number);
        for (key, _) in deletions {
            if let Some(entry) = state.deletions.get_mut(key) {
                entry.retain(|(other, _)| *other != number);
                if entry.is_empty() {
                    state.deletions.remove(key);
                }
            }
        }
    }

    /// The watch shows a value of write `number` at `revision`.
    pub(crate) fn seen(&self, number: u64, revision: u64) {
        if let Some(found) = lock(&self.state).writes.get_mut(&number) {
            *found = Some(revision);
        }
    }

    /// The watch shows that `key`, which was at revision `was`, was deleted at `revision`.
    pub(crate) fn deleted(&self, key: &[u8], was: u64, revision: u64) {
        let mut guard = lock(&self.state);
        let State { writes, deletions } = &mut *guard;
        for (number, wanted) in deletions.get(key).into_iter().flatten() {
            if *wanted == was
                && let Some(found) = writes.get_mut(number)
            {
                *found = Some(revision);
            }
        }
    }

    pub(crate) fn has_deletions(&self) -> bool {
        !lock(&self.state).deletions.is_empty()
    }

    /// The revision at which the watch has shown write `number`.
    pub(crate) fn revision_of(&self, number: u64) -> Option<u64> {
        lock(&self.state).writes.get(&number).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_known_once_the_watch_has_shown_it() {
        let outstanding = Outstanding::default();
        outstanding.expect(1, &[]);
        assert_eq!(outstanding.revision_of(1), None);
        outstanding.seen(1, 40);
        outstanding.seen(2, 41);
        assert_eq!(outstanding.revision_of(1), Some(40));
        outstanding.forget(1, &[]);
        assert_eq!(outstanding.revision_of(1), None);
    }

    #[test]
    fn a_deletion_is_known_by_the_revision_it_deletes() {
        let outstanding = Outstanding::default();
        let ours = vec![(b"/a".to_vec(), 7)];
        outstanding.expect(1, &ours);
        outstanding.deleted(b"/a", 6, 8);
        assert_eq!(outstanding.revision_of(1), None);
        outstanding.deleted(b"/a", 7, 9);
        assert_eq!(outstanding.revision_of(1), Some(9));
        outstanding.forget(1, &ours);
        assert!(!outstanding.has_deletions());
    }
}
