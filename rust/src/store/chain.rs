//! The retained revisions of one key, oldest first.
//!
//! Nearly every chain is one live revision. It stands apart from the older ones, with the two facts that a walk over many keys asks
//! for beside it, so that counting or skipping a key follows no pointer.

use std::sync::Arc;

use super::revision::Revision;

#[derive(Debug)]
pub(crate) struct Chain {
    newest: Arc<Revision>,
    modified: u64,
    is_live: bool,
    older: Vec<Arc<Revision>>,
}

impl Chain {
    pub(crate) fn new(first: Arc<Revision>) -> Self {
        Chain {
            modified: first.modified,
            is_live: !first.is_deletion(),
            newest: first,
            older: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, new: Arc<Revision>) {
        self.modified = new.modified;
        self.is_live = !new.is_deletion();
        self.older.push(std::mem::replace(&mut self.newest, new));
    }

    /// The newest state, None when the key was deleted.
    pub(crate) fn newest(&self) -> Option<&Arc<Revision>> {
        self.is_live.then_some(&self.newest)
    }

    /// The state at `revision`, None when the key did not exist then.
    pub(crate) fn at(&self, revision: u64) -> Option<&Arc<Revision>> {
        if self.modified <= revision {
            return self.newest();
        }
        self.older
            .iter()
            .rev()
            .find(|state| state.modified <= revision)
            .filter(|state| !state.is_deletion())
    }

    pub(crate) fn is_live_at(&self, revision: u64) -> bool {
        if self.modified <= revision {
            self.is_live
        } else {
            self.at(revision).is_some()
        }
    }

    /// All retained revisions, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// Whether no read at `floor` or later finds anything here.
    pub(crate) fn is_gone_at(&self, floor: u64) -> bool {
        self.modified <= floor && !self.is_live
    }

    /// Take out what no read at `floor` or later finds, except the newest revision.
    pub(crate) fn trim(&mut self, floor: u64) -> Vec<Arc<Revision>> {
        let mut count = self.older.partition_point(|state| state.modified <= floor);
        let last_is_read = self.modified > floor
            && count
                .checked_sub(1)
                .and_then(|last| self.older.get(last))
                .is_some_and(|last| !last.is_deletion());
        if last_is_read {
            count -= 1;
        }
        let gone = self.older.drain(..count).collect();
        self.older.shrink_to_fit();
        gone
    }
}
