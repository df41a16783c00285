//! The log's segments, read and decoded on a thread of their own while the snapshot before them, and what was read before, is put in
//! place.
//!
//! Reading, checking and decoding a batch needs nothing but bytes; putting it in place needs the state that all batches before it
//! made. So with two processors a start takes the longer of both instead of their sum. What is decoded ahead is what the store will
//! hold anyway.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::attributes::Attributes;
use super::codec::Reader;
use super::disk::Disk;
use super::entry::{self, next_entry};
use super::error::Result;
use super::event::EventType;
use super::heap::Ahead;
use super::keyspace::Keyspace;
use super::log::segment_name;
use super::pack::unpack;
use super::revision::{Body, Key, Revision, Written};
use super::segment::{self, HEADER_LEN, Uuid, any_batch_behind, batch_at, corrupt};

/// How much may be decoded ahead: so many parts of about so many bytes, together about what a log may be long.
const AHEAD: usize = 256;
const PART: usize = 1 << 20;

/// Where replay stands: what the next segment and batch must continue.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) uuid: Option<Uuid>,
    pub(crate) number: u64,
    pub(crate) chain: u32,
    /// The format of the last segment.
    pub(crate) version: u32,
}

/// The end of the last segment: how much of it is whole, how much is torn, and how long the file is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) whole: usize,
    pub(crate) torn: usize,
    pub(crate) length: usize,
}

/// What the segments said about themselves.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) position: Position,
    /// None without a segment whose header is complete.
    pub(crate) end: Option<End>,
    pub(crate) log_bytes: u64,
    /// What its batches unpack to.
    pub(crate) plain_bytes: u64,
}

/// A batch decoded, and where it stands.
#[derive(Debug)]
struct Batch {
    segment: u64,
    offset: usize,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    Commit { revision: u64, writes: Vec<Write> },
    Compaction(u64),
    Grant { id: i64, ttl_s: i64 },
    Revocation(i64),
}

/// One logged write with its memory made.
#[derive(Debug)]
struct Write {
    key: Key,
    body: Option<Body>,
    lease: i64,
    attributes: Attributes,
}

/// A log being read. Who drops it wants no more.
#[derive(Debug)]
pub(crate) struct Reading<'scope> {
    decoded: Receiver<Vec<Batch>>,
    reader: ScopedJoinHandle<'scope, Result<Replayed>>,
}

impl<'scope> Reading<'scope> {
    /// Begin to read the segments called `numbers`, ascending, which continue what stands at `position`.
    pub(crate) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        disk: &'env dyn Disk,
        position: Position,
        numbers: &'env [u64],
    ) -> Self {
        let (sender, decoded) = sync_channel(AHEAD);
        let reader = scope.spawn(move || {
            let mut out = Outbox {
                sender,
                part: Vec::new(),
                bytes: 0,
                total: 0,
                ahead: Ahead::default(),
                plain: Vec::new(),
            };
            let read = read(disk, position, numbers, &mut out);
            out.send();
            read
        });
        Reading { decoded, reader }
    }

    /// Apply what is read to `keys`, which stands where the log continues. Fails with Corrupt.
    pub(crate) fn apply(self, keys: &mut Keyspace) -> Result<Replayed> {
        let mut applied = Ok(());
        'all: for part in self.decoded {
            for batch in part {
                let (number, offset) = (batch.segment, batch.offset);
                if apply(keys, batch).is_none() {
                    applied = Err(discontinuous(number, offset));
                    // The reader ends when it finds nobody who takes what it has.
                    break 'all;
                }
            }
        }
        let read = self
            .reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        applied.and(read)
    }
}

fn discontinuous(number: u64, offset: usize) -> super::StoreError {
    let reason = "a batch does not continue the state before it";
    corrupt(&segment_name(number), offset, reason)
}

/// Batches on their way to whoever applies them, many at a time.
#[derive(Debug)]
struct Outbox {
    sender: SyncSender<Vec<Batch>>,
    part: Vec<Batch>,
    bytes: usize,
    /// Bytes of all parts together.
    total: u64,
    ahead: Ahead,
    /// Where batches are unpacked.
    plain: Vec<u8>,
}

impl Outbox {
    /// False when nobody wants any more.
    fn push(&mut self, batch: Batch, bytes: usize) -> bool {
        self.part.push(batch);
        self.bytes += bytes;
        self.total += bytes as u64;
        self.bytes < PART || self.send()
    }

    fn send(&mut self) -> bool {
        self.bytes = 0;
        let part = std::mem::take(&mut self.part);
        self.sender.send(part).is_ok()
    }
}

fn read(
    disk: &dyn Disk,
    mut position: Position,
    numbers: &[u64],
    out: &mut Outbox,
) -> Result<Replayed> {
    let first = position.number;
    let (mut log_bytes, mut end) = (0, None);
    let mut bytes = Vec::new();
    for (nth, number) in numbers.iter().enumerate() {
        let expected = first + nth as u64;
        if *number != expected {
            return Err(corrupt(&segment_name(expected), 0, "the file is missing"));
        }
        disk.read_into(&segment_name(*number), &mut bytes)?;
        let is_last = nth + 1 == numbers.len();
        position.number = *number;
        if is_last && bytes.len() < HEADER_LEN {
            break;
        }
        let found = read_segment(&mut position, &bytes, is_last, out)?;
        log_bytes += found.whole as u64;
        end = is_last.then_some(found);
    }
    Ok(Replayed {
        position,
        end,
        log_bytes,
        plain_bytes: out.total,
    })
}

/// Decode the batches of one segment; return where they end.
fn read_segment(
    position: &mut Position,
    bytes: &[u8],
    is_last: bool,
    out: &mut Outbox,
) -> Result<End> {
    let number = position.number;
    let name = segment_name(number);
    let header = segment::Header::decode(&name, bytes)?;
    position.version = header.version;
    let uuid = *position.uuid.get_or_insert(header.uuid);
    if header.uuid != uuid || header.number != number || header.chain != position.chain {
        let reason = "the file does not continue the one before it";
        return Err(corrupt(&name, 0, reason));
    }
    let mut offset = HEADER_LEN;
    while offset < bytes.len() {
        let Some(batch) = batch_at(bytes, offset, &uuid) else {
            if is_unused(bytes, offset) || is_last && !any_batch_behind(bytes, offset, &uuid) {
                break;
            }
            let reason = "a batch is damaged, and what was written after it is not";
            return Err(corrupt(&name, offset, reason));
        };
        if batch.chain != position.chain {
            let reason = "a batch does not continue the one before it";
            return Err(corrupt(&name, offset, reason));
        }
        let payload = if batch.is_packed {
            let unpacked = unpack(batch.payload, &mut out.plain);
            unpacked.ok_or_else(|| corrupt(&name, offset, "a batch does not unpack"))?;
            &out.plain
        } else {
            batch.payload
        };
        let length = payload.len();
        let entries =
            decode(payload, &mut out.ahead).ok_or_else(|| discontinuous(number, offset))?;
        let decoded = Batch {
            segment: number,
            offset,
            entries,
        };
        position.chain = batch.sum;
        offset += segment::BATCH_HEADER_LEN + batch.payload.len();
        if !out.push(decoded, length) {
            break;
        }
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    let torn = rest.iter().rposition(|byte| *byte != 0);
    Ok(End {
        whole: offset,
        torn: torn.map_or(0, |last| last + 1),
        length: bytes.len(),
    })
}

/// Whether there is nothing but room behind `offset`. In a segment of format 1 a hole of zeros is what a torn write left.
fn is_unused(bytes: &[u8], offset: usize) -> bool {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.iter().all(|byte| *byte == 0)
}

fn decode(payload: &[u8], ahead: &mut Ahead) -> Option<Vec<Entry>> {
    let mut reader = Reader::new(payload);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(match next_entry(&mut reader)? {
            entry::Entry::Commit { revision, writes } => Entry::Commit {
                revision,
                writes: writes
                    .into_iter()
                    .map(|write| Write::made(write, ahead))
                    .collect(),
            },
            entry::Entry::Compaction { revision } => Entry::Compaction(revision),
            entry::Entry::Grant { id, ttl_s } => Entry::Grant { id, ttl_s },
            entry::Entry::Revocation { id } => Entry::Revocation(id),
        });
    }
    Some(entries)
}

impl Write {
    fn made(write: entry::Write<'_>, ahead: &mut Ahead) -> Self {
        ahead.spend(write.key.len() + write.body.map_or(0, |(value, _)| value.len()));
        let kind = EventType::natural(if write.is_first { 1 } else { 2 });
        let framed = |(value, splice)| Body::stored(value, splice, kind);
        Write {
            key: write.key.into(),
            body: write.body.map(framed),
            lease: write.lease,
            attributes: write.attributes,
        }
    }
}

/// Apply the entries of one batch. None when they leave out a revision, or delete what is not there.
fn apply(keys: &mut Keyspace, batch: Batch) -> Option<()> {
    for entry in batch.entries {
        match entry {
            Entry::Commit { revision, writes } => {
                (revision == keys.applied + 1).then_some(())?;
                for (sub, write) in writes.into_iter().enumerate() {
                    place(keys, write, revision, sub as u32)?;
                }
                keys.applied = revision;
            }
            Entry::Compaction(revision) => {
                (revision <= keys.applied).then_some(())?;
                keys.compact(revision);
                keys.trim(usize::MAX, &mut Vec::new());
            }
            Entry::Grant { id, ttl_s } => keys.leases.grant(id, ttl_s, None),
            Entry::Revocation(id) => keys.leases.revoke(id),
        }
    }
    Some(())
}

/// Put in place what a logged write made of its key. None for a deletion of nothing.
fn place(keys: &mut Keyspace, write: Write, revision: u64, sub: u32) -> Option<()> {
    let written = Written {
        modified: revision,
        sub,
        lease: write.lease,
        attributes: write.attributes,
    };
    let body = write
        .body
        .map(|body| move |natural| body.into_kind(natural));
    let made = keys.write(write.key, |key, chain| {
        let is_live = chain.is_some_and(|chain| chain.newest().is_some());
        if body.is_none() && !is_live {
            return Err(());
        }
        Ok(Revision::after(key, chain, written, body))
    });
    made.ok().map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A batch that creates `/a`, or updates it, with or without the flag that says which.
    fn payload(revision: u64, version: u64, has_flag: bool) -> Vec<u8> {
        let written = Written {
            modified: revision,
            sub: 0,
            lease: 0,
            attributes: Attributes::default(),
        };
        let body = |_| Body::stored(b"{}", None, EventType::natural(version));
        let mut state = Revision::after(&Key::from(*b"/a"), None, written, Some(body));
        state.version = version;
        let mut payload = Vec::new();
        entry::put_commit(&mut payload, revision, &[Arc::new(state)]);
        // Behind the kind of entry, its revision and its length stand the flags.
        let flags = payload.get_mut(3).unwrap();
        assert_eq!(*flags & 8 != 0, version == 1);
        if !has_flag {
            *flags &= !8;
        }
        payload
    }

    #[test]
    fn a_value_is_framed_for_its_version_whether_the_log_says_so_or_not() {
        for has_flag in [true, false] {
            let mut keys = Keyspace::default();
            for (revision, version) in [(2, 1), (3, 2)] {
                let entries =
                    decode(&payload(revision, version, has_flag), &mut Ahead::default()).unwrap();
                let batch = Batch {
                    segment: 1,
                    offset: 0,
                    entries,
                };
                apply(&mut keys, batch).unwrap();
                let frame = keys.newest(b"/a").unwrap().body.clone().unwrap();
                let prefix = EventType::natural(version).prefix();
                assert!(frame.frame().starts_with(prefix), "{has_flag} {version}");
                assert_eq!(frame.value(), b"{}");
            }
        }
    }
}
