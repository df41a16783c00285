//! The retained revisions of one key, oldest first.
//!
//! Nearly every chain is one live revision. It stands apart from the older ones, with the two facts that a walk over many keys asks
//! for beside it in one word, so that counting or skipping a key follows no pointer.

use std::sync::Arc;

use super::revision::Revision;

#[derive(Debug)]
pub(crate) struct Chain {
    newest: Arc<Revision>,
    /// Twice the newest revision, plus one when the key lives.
    modified_and_live: u64,
    /// None for nearly all keys, which then pay for one pointer. Boxed, so that it is one.
    #[allow(clippy::box_collection)]
    older: Option<Box<Vec<Arc<Revision>>>>,
}

impl Chain {
    pub(crate) fn new(first: Arc<Revision>) -> Self {
        Chain {
            modified_and_live: packed(&first),
            newest: first,
            older: None,
        }
    }

    pub(crate) fn push(&mut self, new: Arc<Revision>) {
        self.modified_and_live = packed(&new);
        let old = std::mem::replace(&mut self.newest, new);
        self.older.get_or_insert_default().push(old);
    }

    /// Take back the newest revision; false when there is none before it.
    pub(crate) fn pop(&mut self) -> bool {
        let Some(older) = &mut self.older else {
            return false;
        };
        let Some(before) = older.pop() else {
            return false;
        };
        if older.is_empty() {
            self.older = None;
        }
        self.modified_and_live = packed(&before);
        self.newest = before;
        true
    }

    /// When the key was last written or deleted.
    pub(crate) fn modified(&self) -> u64 {
        self.modified_and_live / 2
    }

    fn is_live(&self) -> bool {
        self.modified_and_live % 2 == 1
    }

    /// The newest state, None when the key was deleted.
    pub(crate) fn newest(&self) -> Option<&Arc<Revision>> {
        self.is_live().then_some(&self.newest)
    }

    /// The state at `revision`, None when the key did not exist then.
    pub(crate) fn at(&self, revision: u64) -> Option<&Arc<Revision>> {
        if self.modified() <= revision {
            return self.newest();
        }
        self.older()
            .iter()
            .rev()
            .find(|state| state.modified <= revision)
            .filter(|state| !state.is_deletion())
    }

    pub(crate) fn is_live_at(&self, revision: u64) -> bool {
        if self.modified() <= revision {
            self.is_live()
        } else {
            self.at(revision).is_some()
        }
    }

    fn older(&self) -> &[Arc<Revision>] {
        self.older.as_ref().map_or(&[], |older| older.as_slice())
    }

    /// All retained revisions, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Revision>> + Clone {
        self.older().iter().chain(std::iter::once(&self.newest))
    }

    /// The revisions up to `upto` that reads and watches from `floor` on can find, oldest first: a deletion at `floor` too.
    pub(crate) fn needed(&self, floor: u64, upto: u64) -> impl Iterator<Item = &Arc<Revision>> {
        let first = self.at(floor).map_or(floor, |state| state.modified);
        self.all()
            .filter(move |state| (first..=upto).contains(&state.modified))
    }

    /// Whether no read or watch from `floor` on finds anything here. A deletion at `floor` is still told.
    pub(crate) fn is_gone_at(&self, floor: u64) -> bool {
        self.modified() < floor && !self.is_live()
    }

    /// Take out what no read at `floor` or later finds, except the newest revision.
    pub(crate) fn trim(&mut self, floor: u64) -> Vec<Arc<Revision>> {
        let newest_modified = self.modified();
        let Some(older) = &mut self.older else {
            return Vec::new();
        };
        let mut count = older.partition_point(|state| state.modified <= floor);
        let last_is_read = newest_modified > floor
            && count
                .checked_sub(1)
                .and_then(|last| older.get(last))
                .is_some_and(|last| !last.is_deletion());
        if last_is_read {
            count -= 1;
        }
        let gone = older.drain(..count).collect();
        if older.is_empty() {
            self.older = None;
        } else {
            older.shrink_to_fit();
        }
        gone
    }
}

fn packed(state: &Revision) -> u64 {
    state.modified * 2 + u64::from(!state.is_deletion())
}
