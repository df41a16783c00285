//! The multi-version key-value store: memory is the database, the log is durability.
//!
//! A commit gets the next revision, is applied to the key space at once and waits in the log's buffer. `flush` makes everything
//! buffered durable with one fsync; `publish` then lets readers and watchers see it. Three positions therefore move forward:
//! applied >= durable >= published, and only published state is ever shown to anybody but the next commit's preconditions.
//!
//! A front in Rust writes with `Store::transact` (or `commit`), then has `Store::when_published` call it when the answer may be sent;
//! one thread (`committer`) flushes and publishes for all of them and for Python, which hears through one descriptor (`wakeup`,
//! `told`). It reads with `get`, `span` and `count`, and watches with `watch_span`, whose `Notify` says when to `poll`: whole
//! revisions, each event with the state before and after, and the revision up to which the watcher has now seen everything.
//!
//! - `face`: the public face. `core`: what all share, and the order of the steps above. `committer`: the thread that takes them.
//! - `txn`: reads and writes under one revision. `span`: a range of keys. `lease`: keys that go when nobody keeps them alive.
//! - `keyspace`: version chains (`chain`) by key, history, compaction. `index`: from label, field and owner pairs to keys.
//! - `watch`: watchers and the index that finds those an event concerns, `interval` for odd spans. `event`: one change, and its
//!   frames shared by all.
//! - `mirror`: a store that follows another database instead of a log. `backup`: backup, restore and inspection of files.
//! - `revision`: one key at one revision. `attributes`, `selector`: what selectors see of an object, and how they match.
//! - `disk`, `mem_disk`: real or simulated files. `log`: the write-ahead log on them, in the formats of `segment` (batches) and
//!   `entry` (commits); `room`: the disk space for what comes next. `snapshot`: the state that replaces old segments. `recovery`:
//!   opening a directory, with `replay` of its log. `codec`: numbers and strings.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub mod attributes;
pub mod backup;
mod chain;
pub mod codec;
pub mod committer;
mod core;
pub mod disk;
mod entry;
pub mod error;
pub mod event;
pub mod face;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod heap;
mod histogram;
mod index;
mod interval;
mod keyspace;
pub mod lease;
mod log;
pub mod mem_disk;
pub mod mirror;
mod pack;
mod recovery;
mod replay;
pub mod revision;
mod room;
mod segment;
pub mod selector;
mod snapshot;
pub mod span;
#[cfg(test)]
mod tests;
mod txn;
pub mod watch;

pub use attributes::{Attributes, AttributesBuilder, Kind};
pub use committer::Done;
pub use core::{Told, monotonic_ms};
pub use error::{Result, StoreError};
pub use event::{Event, EventType};
pub use face::{Op, Page, Store};
pub use histogram::Durations;
pub use lease::LeaseInfo;
pub use revision::{Frame, Revision};
pub use selector::{Requirement, Selector};
pub use span::Span;
pub use txn::{Transacted, Txn};
pub use watch::{Notify, Poll, Seen};

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
