//! The multi-version key-value store: memory is the database, the log is durability.
//!
//! A commit gets the next revision, is applied to the key space at once and waits in the log's buffer. `flush` makes everything
//! buffered durable with one fsync; `publish` then lets readers and watchers see it. Three positions therefore move forward:
//! applied >= durable >= published, and only published state is ever shown to anybody but the next commit's preconditions.
//!
//! - `face`: the public face; locks, and the order of the steps above.
//! - `keyspace`: version chains (`chain`) by key, history of events, compaction. `index`: from label, field and owner pairs to keys.
//! - `watch`: watchers and the index that finds those an event concerns. `event`: one change, and its frames shared by all.
//! - `revision`: one key at one revision. `attributes`, `selector`: what selectors see of an object, and how they match.
//! - `disk`, `mem_disk`: real or simulated files. `log`: the write-ahead log on them, in the formats of `segment` (batches) and
//!   `entry` (commits). `snapshot`: the state that replaces old segments. `recovery`: opening a directory. `codec`: numbers and strings.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub mod attributes;
mod chain;
pub mod codec;
pub mod disk;
mod entry;
pub mod error;
pub mod event;
pub mod face;
mod index;
mod keyspace;
mod log;
pub mod mem_disk;
mod recovery;
pub mod revision;
mod segment;
pub mod selector;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod watch;

pub use attributes::{Attributes, AttributesBuilder, Kind};
pub use error::StoreError;
pub use event::{Event, EventType};
pub use face::{Op, Page, Store};
pub use revision::{Frame, Revision};
pub use selector::{Requirement, Selector};
pub use watch::{Poll, Seen};

/// A panic while a lock is held leaves our data consistent or the process gone, so a poisoned lock is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
