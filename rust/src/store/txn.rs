//! A transaction: reads of the newest state and writes that share one revision, with nobody else writing meanwhile.
//!
//! Writes are applied as they are made, so reads see them like anything else, and taken back in reverse unless the transaction
//! commits: on an error, on a panic, and when the log has no room. Nobody looks in between, because the state is locked.

use std::sync::Arc;

use super::attributes::Attributes;
use super::error::{Result, StoreError};
use super::face::{Op, Page};
use super::keyspace::Keyspace;
use super::log::Log;
use super::revision::{Body, Revision, Written};
use super::selector::Selector;
use super::span::Span;

/// What a transaction answered.
#[derive(Debug)]
pub struct Transacted<T> {
    pub value: T,
    /// The newest applied revision after it, which must be published before anybody is told of `value`.
    pub revision: u64,
    /// Whether it made that revision.
    pub wrote: bool,
}

/// Handed to the body of `Store::transact`. Reads see what is applied, published or not, and the transaction's own writes.
#[derive(Debug)]
pub struct Txn<'a> {
    keys: &'a mut Keyspace,
    states: Vec<Arc<Revision>>,
}

impl Txn<'_> {
    pub(crate) fn begin(keys: &mut Keyspace) -> Txn<'_> {
        Txn {
            keys,
            states: Vec::new(),
        }
    }

    /// The newest applied revision, own writes included: what the header of an answer says.
    pub fn revision(&self) -> u64 {
        self.keys.applied + u64::from(!self.states.is_empty())
    }

    /// The newest state of `key`, None when it does not exist.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Revision>> {
        self.keys.newest(key).cloned()
    }

    /// Keys from `start` to `end` in etcd's convention (see `Span::new`), in order, at most `limit` (0: all), as they are now or,
    /// with `revision`, were then. Raises Compacted, FutureRevision.
    pub fn span(&self, start: &[u8], end: &[u8], limit: usize, revision: u64) -> Result<Page> {
        let revision = self.keys.readable_upto(revision, self.revision())?;
        let span = Span::new(start, end);
        let found = self
            .keys
            .range(&span, b"", limit, revision, &Selector::default());
        Ok(Page::new(revision, found))
    }

    /// How many keys `span` would return without a limit.
    pub fn count(&self, start: &[u8], end: &[u8], revision: u64) -> Result<usize> {
        let revision = self.keys.readable_upto(revision, self.revision())?;
        Ok(self.keys.count(&Span::new(start, end), b"", revision))
    }

    /// Write `value`, attached to `lease` (0: to none); return the state before. Fails with LeaseNotFound, and with DuplicateKey
    /// when this transaction has written or deleted the key already.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<Option<Arc<Revision>>> {
        if lease != 0 {
            self.keys.leases.exists(lease)?;
        }
        let op = Op {
            key,
            value: Some(value),
            expected: None,
            splice_at: None,
            attributes: Attributes::default(),
        };
        self.write(op, lease)
    }

    /// Delete `key`; return the state before, None when there was nothing to delete. Fails with DuplicateKey.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<Arc<Revision>>> {
        if self.keys.newest(key).is_none() {
            return Ok(None);
        }
        let op = Op {
            key,
            value: None,
            expected: None,
            splice_at: None,
            attributes: Attributes::default(),
        };
        self.write(op, 0)
    }

    /// Delete all keys of a span; return the states before, in key order. Fails with DuplicateKey.
    pub fn delete_span(&mut self, start: &[u8], end: &[u8]) -> Result<Vec<Arc<Revision>>> {
        let gone = self.span(start, end, 0, 0)?.items;
        for state in &gone {
            self.delete(&state.key)?;
        }
        Ok(gone)
    }

    /// Apply `op`, whose precondition holds, and return the state before.
    pub(crate) fn write(&mut self, op: Op<'_>, lease: i64) -> Result<Option<Arc<Revision>>> {
        let revision = self.keys.applied + 1;
        let written = Written {
            modified: revision,
            sub: self.states.len() as u32,
            lease,
            attributes: op.attributes,
        };
        let body = op
            .value
            .map(|value| move |natural| Body::spliced(value, op.splice_at, revision, natural));
        let (new, before) = self.keys.write(op.key.into(), |key, chain| {
            if chain.is_some_and(|chain| chain.modified() == revision) {
                return Err(StoreError::DuplicateKey);
            }
            Ok(Revision::after(key, chain, written, body))
        })?;
        self.states.push(new);
        Ok(before)
    }

    /// Fails with LeaseNotFound when `id` is neither 0 (no lease) nor a lease.
    pub fn require_lease(&self, id: i64) -> Result<()> {
        if id != 0 {
            self.keys.leases.granted_s(id)?;
        }
        Ok(())
    }

    /// Fails with FutureRevision or Compacted unless a read may name `revision`; 0 stands for the newest.
    pub fn require_readable(&self, revision: u64) -> Result<()> {
        let newest = self.keys.applied;
        self.keys.readable_upto(revision, newest).map(|_| ())
    }

    pub(crate) fn keys(&self) -> &Keyspace {
        self.keys
    }

    /// Log what was written and keep it; return it. Fails with NoSpace, and then nothing was written.
    pub(crate) fn commit(self, log: Option<&Log>) -> Result<Vec<Arc<Revision>>> {
        self.finish(log, None)
    }

    /// Like `commit`, and log with it that lease `id`, which had `ttl_s` seconds, has ended.
    pub(crate) fn revoke(
        self,
        log: Option<&Log>,
        id: i64,
        ttl_s: i64,
    ) -> Result<Vec<Arc<Revision>>> {
        self.finish(log, Some((id, ttl_s)))
    }

    fn finish(
        mut self,
        log: Option<&Log>,
        revoked: Option<(i64, i64)>,
    ) -> Result<Vec<Arc<Revision>>> {
        if self.states.is_empty() {
            if let (Some(log), Some((id, ttl_s))) = (log, revoked) {
                log.add_revocation(id, ttl_s)?;
            }
            return Ok(Vec::new());
        }
        let revision = self.revision();
        if let Some(log) = log {
            log.add_commit(revision, &self.states, revoked)?;
        }
        self.keys.applied = revision;
        Ok(std::mem::take(&mut self.states))
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        for _ in self.states.drain(..) {
            self.keys.undo();
        }
    }
}
