//! Where answers wait until the caller's event loop picks them up, and the descriptor that wakes it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use super::failure::Error;
use crate::store::lock;

/// Notes that nobody picks up are dropped beyond this.
const NOTES_MAX: usize = 100;

/// What a request came to.
#[derive(Debug)]
pub enum Outcome {
    /// The revision of the commit and the stored values, None for deletions.
    Committed {
        revision: u64,
        values: Vec<Option<Vec<u8>>>,
    },
    /// The mirror shows everything up to this revision.
    Seen { revision: u64 },
    /// Where the compaction's election stands, and the cluster's revision.
    Compacted { version: i64, revision: u64 },
}

#[derive(Debug)]
pub struct Completion {
    pub ticket: u64,
    pub outcome: Result<Outcome, Error>,
}

/// Everything that came in: completions in order, ids of watchers that have news, and lines for the log.
#[derive(Debug, Default)]
pub struct Mail {
    pub completions: Vec<Completion>,
    pub woken: BTreeSet<u64>,
    pub notes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    mail: Mutex<(Mail, bool)>,
    bell: UnixStream,
    ear: UnixStream,
}

impl Mailbox {
    pub(crate) fn new() -> std::io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Mailbox {
            mail: Mutex::default(),
            bell,
            ear,
        })
    }

    /// Readable while there is mail.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    pub(crate) fn complete(&self, ticket: u64, outcome: Result<Outcome, Error>) {
        self.post(|mail| mail.completions.push(Completion { ticket, outcome }));
    }

    pub(crate) fn wake(&self, watchers: Vec<u64>) {
        if !watchers.is_empty() {
            self.post(|mail| mail.woken.extend(watchers));
        }
    }

    pub(crate) fn note(&self, line: String) {
        self.post(|mail| {
            if mail.notes.len() < NOTES_MAX {
                mail.notes.push(line);
            }
        });
    }

    /// Take everything.
    pub(crate) fn take(&self) -> Mail {
        let mut guard = lock(&self.mail);
        let mut sink = [0; 64];
        while matches!((&self.ear).read(&mut sink), Ok(read) if read == sink.len()) {}
        guard.1 = false;
        std::mem::take(&mut guard.0)
    }

    /// The bell is rung once for all mail that comes in before it is heard.
    fn post(&self, put: impl FnOnce(&mut Mail)) {
        let mut guard = lock(&self.mail);
        put(&mut guard.0);
        if !guard.1 {
            let rung = (&self.bell).write(&[1]);
            guard.1 = matches!(&rung, Ok(1))
                || matches!(&rung, Err(error) if error.kind() == ErrorKind::WouldBlock);
        }
    }
}
