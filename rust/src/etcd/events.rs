//! The events of one watch answer, encoded as they are added.

use bytes::{BufMut, Bytes, BytesMut};

use super::answer::{
    Identity, bool_len, full_header_len, kv_len, nested_len, number_len, put_bool, put_header,
    put_kv, put_nested, put_number,
};
use super::framing::{PREFIX_LEN, put_prefix};
use super::status::Result;
use crate::store::{Event, Revision};

// Field numbers of etcd's WatchResponse and Event.
const WATCH_ID: u8 = 2;
const FRAGMENT: u8 = 7;
const EVENTS: u8 = 11;
const TYPE: u8 = 1;
const KV: u8 = 2;
const PREVIOUS: u8 = 3;

/// An answer that is being filled.
#[derive(Debug)]
pub(super) struct Events {
    id: i64,
    /// Events after this revision are sent with what they replaced; None: no event is. At and below the compaction floor nobody
    /// can read that any more, and etcd does not send it either.
    previous_after: Option<u64>,
    encoded: BytesMut,
}

impl Events {
    pub(super) fn new(id: i64, previous_after: Option<u64>) -> Self {
        Events {
            id,
            previous_after,
            encoded: BytesMut::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.encoded.len()
    }

    fn previous<'a>(&self, event: &'a Event) -> Option<&'a Revision> {
        let is_known = |floor| event.revision() > floor;
        let old = event.old.as_deref();
        old.filter(|_| self.previous_after.is_some_and(is_known))
    }

    fn body_len(&self, event: &Event) -> usize {
        let previous = self.previous(event);
        number_len(u64::from(event.new.is_deletion()))
            + nested_len(kv_len(&event.new, false))
            + previous.map_or(0, |old| nested_len(kv_len(old, false)))
    }

    /// What an event would add.
    pub(super) fn len_of(&self, event: &Event) -> usize {
        nested_len(self.body_len(event))
    }

    pub(super) fn add(&mut self, event: &Event) {
        let length = self.body_len(event);
        self.encoded.reserve(nested_len(length));
        put_nested(&mut self.encoded, EVENTS, length);
        put_number(&mut self.encoded, TYPE, u64::from(event.new.is_deletion()));
        put_kv(&mut self.encoded, KV, &event.new, false);
        if let Some(old) = self.previous(event) {
            put_kv(&mut self.encoded, PREVIOUS, old, false);
        }
    }

    /// The framed answer; what is added next goes into another one.
    pub(super) fn close(
        &mut self,
        revision: u64,
        is_fragment: bool,
        identity: &Identity,
    ) -> Result<Bytes> {
        let length = full_header_len(revision, identity)
            + number_len(self.id as u64)
            + bool_len(is_fragment)
            + self.encoded.len();
        let mut out = BytesMut::with_capacity(PREFIX_LEN + length);
        put_prefix(&mut out, length)?;
        put_header(&mut out, revision, Some(identity));
        put_number(&mut out, WATCH_ID, self.id as u64);
        put_bool(&mut out, FRAGMENT, is_fragment);
        out.put_slice(&self.encoded);
        self.encoded.clear();
        Ok(out.freeze())
    }
}
