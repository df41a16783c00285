//! One change of one key, as watchers see it.

use std::sync::{Arc, OnceLock};

use super::revision::{Body, Frame, Revision};
use super::selector::Selector;

/// What happened, in the eyes of one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Added = 0,
    Modified = 1,
    Deleted = 2,
}

impl EventType {
    /// The type that a watcher of everything sees for a write.
    pub(crate) fn natural(version: u64) -> Self {
        if version == 1 {
            EventType::Added
        } else {
            EventType::Modified
        }
    }

    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            EventType::Added => br#"{"type":"ADDED","object":"#,
            EventType::Modified => br#"{"type":"MODIFIED","object":"#,
            EventType::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

/// The step of one key from `old` to `new`. Frames other than the natural one are built by the first watcher that needs them.
#[derive(Debug)]
pub struct Event {
    pub new: Arc<Revision>,
    /// The live state before, None when the key did not exist, or when compaction forgot it.
    pub old: Option<Arc<Revision>>,
    added: OnceLock<Box<Body>>,
    deleted: OnceLock<Box<Body>>,
}

impl Event {
    pub(crate) fn new(old: Option<Arc<Revision>>, new: Arc<Revision>) -> Self {
        Event {
            new,
            old,
            added: OnceLock::new(),
            deleted: OnceLock::new(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.new.modified
    }

    /// About what a watcher's queue holds alive for this event, in bytes.
    pub(crate) fn size(&self) -> usize {
        let old = self.old.as_ref().filter(|_| self.new.is_deletion());
        self.new.value().len() + old.map_or(0, |old| old.value().len())
    }

    /// What a watcher with `selector` sees: an object that starts to match is ADDED, one that stops is DELETED, None is nothing.
    pub(crate) fn seen_by(&self, selector: &Selector) -> Option<EventType> {
        let was = match &self.old {
            Some(old) => selector.matches(&old.attributes),
            // Only what existed can be deleted, even where nobody knows what it was.
            None => self.new.is_deletion() && selector.is_empty(),
        };
        let is = !self.new.is_deletion() && selector.matches(&self.new.attributes);
        match (was, is) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object of an event of this type; for DELETED the last state at the revision of this event.
    pub fn object(&self, kind: EventType) -> &[u8] {
        self.body(kind).map(Body::value).unwrap_or_default()
    }

    /// The watch line of an event of this type, shared by all watchers.
    pub fn frame(&self, kind: EventType) -> Frame {
        self.body(kind)
            .map_or_else(|| Frame::from([]), |body| body.frame().clone())
    }

    fn body(&self, kind: EventType) -> Option<&Body> {
        match kind {
            EventType::Deleted => {
                let old = self.old.as_ref()?.body.as_ref()?;
                Some(
                    self.deleted
                        .get_or_init(|| Box::new(old.reframed(kind, Some(self.revision())))),
                )
            }
            EventType::Added if self.new.version > 1 => {
                let new = self.new.body.as_ref()?;
                Some(
                    self.added
                        .get_or_init(|| Box::new(new.reframed(kind, None))),
                )
            }
            _ => self.new.body.as_ref(),
        }
    }
}
