//! What can go wrong in the store: outcomes that a caller handles, faults of the disk, and misuse.

use std::io;

/// Every error of this room. `index` counts the ops of a commit from zero.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("op {index}: the key is at revision {current}")]
    RevisionMismatch { index: usize, current: u64 },
    #[error("op {index}: the key exists")]
    KeyExists { index: usize },
    #[error("op {index}: the key does not exist")]
    KeyMissing { index: usize },
    #[error("revision {revision} has been compacted, the oldest is {floor}")]
    Compacted { revision: u64, floor: u64 },
    #[error("revision {revision} is in the future, the newest is {current}")]
    FutureRevision { revision: u64, current: u64 },
    #[error("a transaction may write a key only once")]
    DuplicateKey,
    #[error("lease {id} does not exist")]
    LeaseNotFound { id: i64 },
    #[error("lease {id} exists")]
    LeaseExists { id: i64 },
    #[error("watcher {id} was too slow and was cut")]
    WatcherLagged { id: u64 },
    #[error("no watcher {id}")]
    UnknownWatcher { id: u64 },
    #[error("{0}")]
    Invalid(String),
    #[error("{file} is corrupt at offset {offset}: {reason}. {advice}")]
    Corrupt {
        file: String,
        offset: u64,
        reason: String,
        advice: &'static str,
    },
    #[error("{directory} is in use by another process")]
    Locked { directory: String },
    #[error("the disk is full, so nothing was written: {reason}")]
    NoSpace { reason: String },
    #[error("the store takes no more writes, restart it to read its log again: {reason}")]
    Poisoned { reason: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StoreError {
    /// The same for one more who must be told; a fault of the disk becomes its text.
    pub(crate) fn repeated(&self) -> StoreError {
        match self {
            StoreError::NoSpace { reason } => StoreError::NoSpace {
                reason: reason.clone(),
            },
            StoreError::Poisoned { reason } => StoreError::Poisoned {
                reason: reason.clone(),
            },
            other => StoreError::Poisoned {
                reason: other.to_string(),
            },
        }
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;
