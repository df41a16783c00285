//! What can go wrong with the cluster, and which of it is worth another try.

use std::error::Error as _;

use tonic::{Code, Status};

/// The outcome of a request that did not succeed. `index` counts the ops of a commit from zero.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("op {index}: the key is at revision {current}")]
    RevisionMismatch { index: usize, current: u64 },
    #[error("op {index}: the key exists")]
    KeyExists { index: usize },
    #[error("op {index}: the key does not exist")]
    KeyMissing { index: usize },
    #[error("{0}")]
    Invalid(String),
    /// The cluster's own words for what it will not do.
    #[error("{0}")]
    Refused(String),
    /// Time is up, and nobody knows whether a write was made. The last failure's words.
    #[error("{0}")]
    TimedOut(String),
    #[error("the datastore is closed")]
    Closed,
}

/// What one failed call says.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Another try would end the same.
    Final(String),
    /// Another member or another moment may do better.
    Passing { words: String, is_ambiguous: bool },
}

impl Failure {
    /// A call that got no answer in time.
    pub(crate) fn silence(endpoint: &str) -> Self {
        Failure::Passing {
            words: format!("{endpoint} does not answer"),
            is_ambiguous: true,
        }
    }

    pub(crate) fn words(&self) -> &str {
        match self {
            Failure::Final(words) | Failure::Passing { words, .. } => words,
        }
    }
}

impl From<Status> for Failure {
    /// Whether a status means "not done" is taken from etcd's `rpctypes` and clientv3's retry rules; in doubt a write may be done.
    fn from(status: Status) -> Self {
        let words = words(&status);
        match status.code() {
            Code::ResourceExhausted if words.contains("too many requests") => Failure::Passing {
                words,
                is_ambiguous: false,
            },
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented => Failure::Final(words),
            _ => Failure::Passing {
                words,
                is_ambiguous: true,
            },
        }
    }
}

/// A status' message, and the causes below it when it comes from the transport.
fn words(status: &Status) -> String {
    let mut out = status.message().to_string();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() && !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = error.source();
    }
    out
}
