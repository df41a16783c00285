//! What stands in a batch of the log, and in a block of a snapshot.
//!
//! A commit entry holds what replay cannot derive: keys, values with their revision spliced in, leases, attributes. A snapshot item
//! also holds what replay would derive from the revisions before it. Format 1 had no leases, and reads as format 2 without any.
//! Whoever reads need not trust the flag for a key's first version: it says how to frame a value before the key is looked up.

use std::sync::Arc;

use super::attributes::Attributes;
use super::codec::{Reader, put_bytes, put_varint};
use super::event::EventType;
use super::revision::{Body, Key, Revision, Splice};

const COMMIT: u8 = b'c';
const COMPACTION: u8 = b'f';
const GRANT: u8 = b'g';
const REVOCATION: u8 = b'r';

/// One entry of the log.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Commit {
        revision: u64,
        writes: Vec<Write<'a>>,
    },
    Compaction {
        revision: u64,
    },
    Grant {
        id: i64,
        ttl_s: i64,
    },
    Revocation {
        id: i64,
    },
}

/// One logged write; without a body the key is deleted.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) body: Option<(&'a [u8], Option<Splice>)>,
    /// Whether the key did not exist before. Logs of older versions never say so.
    pub(crate) is_first: bool,
    pub(crate) lease: i64,
    pub(crate) attributes: Attributes,
}

/// Append a commit of `states`, which all belong to `revision`.
pub(crate) fn put_commit(out: &mut Vec<u8>, revision: u64, states: &[Arc<Revision>]) {
    out.push(COMMIT);
    put_varint(out, revision);
    put_varint(out, states.len() as u64);
    for state in states {
        put_write(out, state);
    }
}

pub(crate) fn put_compaction(out: &mut Vec<u8>, revision: u64) {
    out.push(COMPACTION);
    put_varint(out, revision);
}

pub(crate) fn put_grant(out: &mut Vec<u8>, id: i64, ttl_s: i64) {
    out.push(GRANT);
    put_varint(out, id as u64);
    put_varint(out, ttl_s as u64);
}

pub(crate) fn put_revocation(out: &mut Vec<u8>, id: i64) {
    out.push(REVOCATION);
    put_varint(out, id as u64);
}

/// Read the next entry. None when it makes no sense.
pub(crate) fn next_entry<'a>(reader: &mut Reader<'a>) -> Option<Entry<'a>> {
    match reader.byte()? {
        COMMIT => {
            let revision = reader.varint()?;
            let count = reader.varint()?;
            let writes = (0..count)
                .map(|_| next_write(reader))
                .collect::<Option<_>>()?;
            Some(Entry::Commit { revision, writes })
        }
        COMPACTION => Some(Entry::Compaction {
            revision: reader.varint()?,
        }),
        GRANT => Some(Entry::Grant {
            id: reader.varint()? as i64,
            ttl_s: reader.varint()? as i64,
        }),
        REVOCATION => Some(Entry::Revocation {
            id: reader.varint()? as i64,
        }),
        _ => None,
    }
}

/// Append one retained revision to a snapshot block.
pub(crate) fn put_item(out: &mut Vec<u8>, state: &Revision) {
    for number in [
        state.created,
        state.modified,
        state.version,
        u64::from(state.sub),
    ] {
        put_varint(out, number);
    }
    put_write(out, state);
}

/// Read what `put_item` wrote. None when it makes no sense.
pub(crate) fn next_item(reader: &mut Reader<'_>) -> Option<Revision> {
    let created = reader.varint()?;
    let modified = reader.varint()?;
    // As etcd counts them; what is higher is no revision.
    i64::try_from(modified).ok()?;
    let version = reader.varint()?;
    let sub = u32::try_from(reader.varint()?).ok()?;
    let write = next_write(reader)?;
    let body = write
        .body
        .map(|(value, splice)| Body::stored(value, splice, EventType::natural(version)));
    let key: Key = write.key.into();
    Some(Revision {
        key,
        created,
        modified,
        version,
        sub,
        lease: write.lease,
        body,
        attributes: write.attributes,
    })
}

const HAS_BODY: u8 = 1;
const HAS_SPLICE: u8 = 2;
const HAS_LEASE: u8 = 4;
const IS_FIRST: u8 = 8;

fn put_write(out: &mut Vec<u8>, state: &Revision) {
    let splice = state.body.as_ref().and_then(Body::splice);
    let mut flags = u8::from(state.body.is_some()) * HAS_BODY;
    flags += u8::from(splice.is_some()) * HAS_SPLICE;
    flags += u8::from(state.lease != 0) * HAS_LEASE;
    flags += u8::from(state.version == 1) * IS_FIRST;
    out.push(flags);
    put_bytes(out, &state.key);
    if state.lease != 0 {
        put_varint(out, state.lease as u64);
    }
    if let Some(splice) = splice {
        put_varint(out, u64::from(splice.at));
        out.push(splice.length);
    }
    if let Some(body) = &state.body {
        put_bytes(out, body.value());
        put_bytes(out, state.attributes.encoded());
    }
}

fn next_write<'a>(reader: &mut Reader<'a>) -> Option<Write<'a>> {
    let flags = reader.byte()?;
    let key = reader.bytes()?;
    let lease = if flags & HAS_LEASE != 0 {
        reader.varint()? as i64
    } else {
        0
    };
    let splice = if flags & HAS_SPLICE != 0 {
        Some(Splice {
            at: u32::try_from(reader.varint()?).ok()?,
            length: reader.byte()?,
        })
    } else {
        None
    };
    if flags & HAS_BODY == 0 {
        return Some(Write {
            key,
            body: None,
            is_first: false,
            lease,
            attributes: Attributes::default(),
        });
    }
    let value = reader.bytes()?;
    let attributes = Attributes::decode(reader.bytes()?)?;
    Some(Write {
        key,
        body: Some((value, splice)),
        is_first: flags & IS_FIRST != 0,
        lease,
        attributes,
    })
}
