//! Answers of the KV service, encoded straight from the store's shared revisions: a value is copied once, into the frame it leaves in.
//!
//! Lengths are known before anything is written, so that a range of any size can leave in pieces while its message is being made.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::framing::{PREFIX_LEN, put_prefix};
use super::status::Result;
use crate::store::Revision;

/// Who answers. It stands in the header of every answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

/// There is one member, which was elected once and for all.
pub(super) const RAFT_TERM: u64 = 2;

#[derive(Debug, Default)]
pub(super) struct RangeAnswer {
    pub(super) revision: u64,
    pub(super) items: Vec<Arc<Revision>>,
    pub(super) keys_only: bool,
    pub(super) more: bool,
    pub(super) count: u64,
}

#[derive(Debug)]
pub(super) struct PutAnswer {
    pub(super) revision: u64,
    pub(super) previous: Option<Arc<Revision>>,
}

#[derive(Debug)]
pub(super) struct DeleteAnswer {
    pub(super) revision: u64,
    pub(super) deleted: u64,
    pub(super) previous: Vec<Arc<Revision>>,
}

#[derive(Debug)]
pub(super) struct TxnAnswer {
    pub(super) revision: u64,
    pub(super) succeeded: bool,
    pub(super) answers: Vec<OpAnswer>,
}

/// The answer to one operation; the discriminant is its field number in etcd's ResponseOp.
#[derive(Debug)]
pub(super) enum OpAnswer {
    Range(RangeAnswer),
    Put(PutAnswer),
    Delete(DeleteAnswer),
    Txn(TxnAnswer),
}

/// Something that encodes itself as a message. `identity` is left out of answers nested in a transaction's.
pub(super) trait Answer {
    fn len(&self, identity: Option<&Identity>) -> usize;
    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>);
}

/// The whole answer as it stands in a body.
pub(super) fn framed(answer: &impl Answer, identity: &Identity) -> Result<Bytes> {
    let length = answer.len(Some(identity));
    let mut out = BytesMut::with_capacity(PREFIX_LEN + length);
    put_prefix(&mut out, length)?;
    answer.put(&mut out, Some(identity));
    Ok(out.freeze())
}

impl RangeAnswer {
    /// What follows the items.
    fn tail_len(&self) -> usize {
        bool_len(self.more) + number_len(self.count)
    }

    pub(super) fn put_tail(&self, out: &mut BytesMut) {
        put_bool(out, 3, self.more);
        put_number(out, 4, self.count);
    }

    pub(super) fn put_item(&self, out: &mut BytesMut, item: &Revision) {
        put_kv(out, 2, item, self.keys_only);
    }

    pub(super) fn put_header(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        put_header(out, self.revision, identity);
    }

    pub(super) fn item_len(&self, item: &Revision) -> usize {
        nested_len(kv_len(item, self.keys_only))
    }
}

impl Answer for RangeAnswer {
    fn len(&self, identity: Option<&Identity>) -> usize {
        let items: usize = self.items.iter().map(|item| self.item_len(item)).sum();
        nested_len(header_len(self.revision, identity)) + items + self.tail_len()
    }

    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        self.put_header(out, identity);
        for item in &self.items {
            self.put_item(out, item);
        }
        self.put_tail(out);
    }
}

impl Answer for PutAnswer {
    fn len(&self, identity: Option<&Identity>) -> usize {
        let previous = self.previous.as_ref();
        nested_len(header_len(self.revision, identity))
            + previous.map_or(0, |kv| nested_len(kv_len(kv, false)))
    }

    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        put_header(out, self.revision, identity);
        if let Some(previous) = &self.previous {
            put_kv(out, 2, previous, false);
        }
    }
}

impl Answer for DeleteAnswer {
    fn len(&self, identity: Option<&Identity>) -> usize {
        let previous = self.previous.iter().map(|kv| nested_len(kv_len(kv, false)));
        nested_len(header_len(self.revision, identity))
            + number_len(self.deleted)
            + previous.sum::<usize>()
    }

    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        put_header(out, self.revision, identity);
        put_number(out, 2, self.deleted);
        for previous in &self.previous {
            put_kv(out, 3, previous, false);
        }
    }
}

impl Answer for TxnAnswer {
    fn len(&self, identity: Option<&Identity>) -> usize {
        let answers = self
            .answers
            .iter()
            .map(|answer| nested_len(answer.len(None)));
        nested_len(header_len(self.revision, identity))
            + bool_len(self.succeeded)
            + answers.sum::<usize>()
    }

    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        put_header(out, self.revision, identity);
        put_bool(out, 2, self.succeeded);
        for answer in &self.answers {
            put_nested(out, 3, answer.len(None));
            answer.put(out, None);
        }
    }
}

impl OpAnswer {
    fn inner(&self) -> (u8, &dyn Answer) {
        match self {
            OpAnswer::Range(answer) => (1, answer),
            OpAnswer::Put(answer) => (2, answer),
            OpAnswer::Delete(answer) => (3, answer),
            OpAnswer::Txn(answer) => (4, answer),
        }
    }
}

impl Answer for OpAnswer {
    fn len(&self, identity: Option<&Identity>) -> usize {
        nested_len(self.inner().1.len(identity))
    }

    fn put(&self, out: &mut BytesMut, identity: Option<&Identity>) {
        let (field, answer) = self.inner();
        put_nested(out, field, answer.len(identity));
        answer.put(out, identity);
    }
}

fn header_len(revision: u64, identity: Option<&Identity>) -> usize {
    number_len(revision)
        + identity.map_or(0, |identity| {
            number_len(identity.cluster_id) + number_len(identity.member_id) + number_len(RAFT_TERM)
        })
}

/// Field 1 of every answer.
pub(super) fn put_header(out: &mut BytesMut, revision: u64, identity: Option<&Identity>) {
    put_nested(out, 1, header_len(revision, identity));
    if let Some(identity) = identity {
        put_number(out, 1, identity.cluster_id);
        put_number(out, 2, identity.member_id);
    }
    put_number(out, 3, revision);
    if identity.is_some() {
        put_number(out, 4, RAFT_TERM);
    }
}

pub(super) fn full_header_len(revision: u64, identity: &Identity) -> usize {
    nested_len(header_len(revision, Some(identity)))
}

/// The length of an mvccpb.KeyValue. A deletion has nothing but its key and its revision.
pub(super) fn kv_len(state: &Revision, keys_only: bool) -> usize {
    let head = bytes_len(state.key.len()) + number_len(state.modified);
    if state.is_deletion() {
        return head;
    }
    let value = if keys_only { 0 } else { state.value().len() };
    head + number_len(state.created)
        + number_len(state.version)
        + bytes_len(value)
        + number_len(state.lease as u64)
}

/// A mvccpb.KeyValue as `field` of the message around it.
pub(super) fn put_kv(out: &mut BytesMut, field: u8, state: &Revision, keys_only: bool) {
    put_nested(out, field, kv_len(state, keys_only));
    put_bytes(out, 1, &state.key);
    if state.is_deletion() {
        put_number(out, 3, state.modified);
        return;
    }
    put_number(out, 2, state.created);
    put_number(out, 3, state.modified);
    put_number(out, 4, state.version);
    if !keys_only {
        put_bytes(out, 5, state.value());
    }
    put_number(out, 6, state.lease as u64);
}

// Field numbers are below 16, so that a tag is one byte; what is zero or empty is left out, as protocol buffers want it.

/// The length of a nested message, with its tag and its own length.
pub(super) fn nested_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

pub(super) fn number_len(number: u64) -> usize {
    if number == 0 {
        0
    } else {
        1 + encoded_len_varint(number)
    }
}

pub(super) fn bool_len(flag: bool) -> usize {
    2 * usize::from(flag)
}

fn bytes_len(length: usize) -> usize {
    if length == 0 { 0 } else { nested_len(length) }
}

pub(super) fn put_nested(out: &mut BytesMut, field: u8, length: usize) {
    out.put_u8(field << 3 | 2);
    encode_varint(length as u64, out);
}

pub(super) fn put_number(out: &mut BytesMut, field: u8, number: u64) {
    if number != 0 {
        out.put_u8(field << 3);
        encode_varint(number, out);
    }
}

pub(super) fn put_bool(out: &mut BytesMut, field: u8, flag: bool) {
    put_number(out, field, u64::from(flag));
}

fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_nested(out, field, bytes.len());
        out.put_slice(bytes);
    }
}
