//! Snapshots: leases, then every retained revision, sorted by key, in checksummed blocks.
//!
//! A snapshot replaces the log before segment `segment`. It holds history down to the compaction floor as well, so that watches
//! resume across a restart. It is written under another name, synced, renamed, and read back before anything behind it is removed.
//! It is written and read piece by piece, so it costs no memory. Format 2 packs nothing; format 1 had neither leases nor a last
//! block that counts.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};

use super::codec::{Reader, put_varint};
use super::disk::{Disk, DiskFile};
use super::entry::{next_item, put_item};
use super::error::{Result, StoreError};
use super::heap::Ahead;
use super::pack::{pack, unpack};
use super::revision::Revision;
use super::segment::{Cursor, Uuid, check_format, checksum, corrupt};

const MAGIC: &[u8; 8] = b"korchsnp";
const HEADER_LEN: usize = 76;
const BLOCK_HEADER_LEN: usize = 8;
const BLOCK_LEN: usize = 256 << 10;

/// Blocks that may wait to be decoded, or to be collected.
const AHEAD: usize = 8;

/// What is in a block, in the highest bits of its length.
const PACKED: u32 = 1 << 29;
const LEASES: u32 = 1 << 30;
const COUNT: u32 = 1 << 31;
const LENGTH: u32 = PACKED - 1;

/// What a file is called until it is whole and durable.
pub(crate) const UNFINISHED: &str = "snapshot.tmp";

/// The first bytes of a snapshot. `chain` is the checksum of the last batch before `segment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) uuid: Uuid,
    pub(crate) revision: u64,
    pub(crate) floor: u64,
    pub(crate) segment: u64,
    pub(crate) chain: u32,
    /// Of revisions, in format 1.
    pub(crate) count: u64,
    pub(crate) version: u32,
}

/// What a snapshot holds beside revisions: leases by id with their seconds; and how long it is.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) header: Header,
    pub(crate) leases: Vec<(i64, i64)>,
    pub(crate) length: u64,
}

pub(crate) fn name(revision: u64) -> String {
    format!("snapshot-{revision:016x}")
}

/// The revision in a snapshot's name, None for other files.
pub(crate) fn revision_in(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("snapshot-")?, 16).ok()
}

/// A snapshot being written.
#[derive(Debug)]
pub(crate) struct Saving<'a> {
    disk: &'a dyn Disk,
    header: Header,
    file: Box<dyn DiskFile>,
    offset: u64,
    /// The checksum of the last block.
    sum: u32,
    block: Vec<u8>,
    spare: Vec<u8>,
    count: u64,
}

impl<'a> Saving<'a> {
    pub(crate) fn begin(disk: &'a dyn Disk, header: Header) -> Result<Self> {
        let mut file = disk.create(UNFINISHED)?;
        file.write_at(0, &header.encode())?;
        Ok(Saving {
            disk,
            sum: header.chain,
            header,
            file,
            offset: HEADER_LEN as u64,
            block: vec![0; BLOCK_HEADER_LEN],
            spare: Vec::new(),
            count: 0,
        })
    }

    /// Write all leases: id and time to live in seconds.
    pub(crate) fn put_leases(&mut self, leases: &[(i64, i64)]) -> Result<()> {
        for (id, ttl_s) in leases {
            put_varint(&mut self.block, *id as u64);
            put_varint(&mut self.block, *ttl_s as u64);
            if self.block.len() >= BLOCK_LEN {
                self.end_block(LEASES)?;
            }
        }
        self.end_block(LEASES)
    }

    /// Write revisions, which come sorted by key and then by age.
    pub(crate) fn put(&mut self, states: &[Arc<Revision>]) -> Result<()> {
        for state in states {
            put_item(&mut self.block, state);
            if self.block.len() >= BLOCK_LEN {
                self.end_block(0)?;
            }
        }
        self.count += states.len() as u64;
        Ok(())
    }

    /// Give the snapshot its name and read it back; return its length in bytes.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.end_block(0)?;
        self.block.extend_from_slice(&self.count.to_le_bytes());
        self.end_block(COUNT)?;
        self.file.sync()?;
        let name = name(self.header.revision);
        self.disk.rename(UNFINISHED, &name)?;
        self.disk.sync_directory()?;
        let mut found = 0;
        let (header, length) = read(self.disk, &name, |offset, block| {
            if let Block::Items(items) = block {
                let mut reader = Reader::new(&items);
                while !reader.is_empty() {
                    next_item(&mut reader).ok_or_else(|| undecodable(&name, offset))?;
                    found += 1;
                }
                return Ok(items);
            }
            Ok(Vec::new())
        })?;
        // What was just written must be what is read, to the last object; otherwise the log behind it must stay.
        if header != self.header || found != self.count || length != self.offset {
            return Err(damaged(&name, length, "it is not what was written"));
        }
        Ok(length)
    }

    fn end_block(&mut self, mut kind: u32) -> Result<()> {
        if pack(&mut self.block, BLOCK_HEADER_LEN, &mut self.spare) {
            kind |= PACKED;
        }
        let Some((header, block)) = self.block.split_at_mut_checked(BLOCK_HEADER_LEN) else {
            return Ok(());
        };
        if block.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        if length > LENGTH {
            let reason = "an object is longer than 512 MiB, so no snapshot can hold it";
            return Err(StoreError::Invalid(reason.into()));
        }
        self.sum = checksum(&self.header.uuid, self.sum, length | kind, block);
        let fields = [(length | kind).to_le_bytes(), self.sum.to_le_bytes()];
        header.copy_from_slice(fields.as_flattened());
        self.file.write_at(self.offset, &self.block)?;
        self.file.settle()?;
        self.offset += self.block.len() as u64;
        self.block.truncate(BLOCK_HEADER_LEN);
        Ok(())
    }
}

/// What became of a block.
#[derive(Debug)]
enum Decoded {
    Leases(Vec<(i64, i64)>),
    States(Vec<Arc<Revision>>),
    Count(u64),
}

/// What a snapshot says of itself, before anything in it is read. Fails with Corrupt.
pub(crate) fn header(disk: &dyn Disk, name: &str) -> Result<Header> {
    let mut bytes = Vec::new();
    next_bytes(&mut *disk.stream(name)?, &mut bytes, HEADER_LEN)?;
    Header::decode(name, &bytes)
}

/// Read a snapshot and have `keep` take its revisions, by key and then by age. Fails with Corrupt unless every byte of it is as it
/// was written, maybe after `keep` was called. One thread reads and checks blocks, another one decodes them, and `keep` is called
/// on this one.
pub(crate) fn load(disk: &dyn Disk, name: &str, keep: impl FnMut(Arc<Revision>)) -> Result<Loaded> {
    std::thread::scope(|scope| {
        let (sender, blocks) = sync_channel(AHEAD);
        let (give_back, spares) = channel();
        let reader = scope.spawn(move || {
            read(disk, name, |offset, block| {
                let unwanted = |_| StoreError::Invalid("nobody takes what is read".into());
                sender.send((offset, block)).map_err(unwanted)?;
                Ok(spares.try_recv().unwrap_or_default())
            })
        });
        let (sender, decoded) = sync_channel(AHEAD);
        scope.spawn(move || {
            let mut ahead = Ahead::default();
            for (offset, block) in blocks {
                let found = decode(name, offset, &block, &mut ahead);
                if sender.send(found).is_err() {
                    break;
                }
                let _ = give_back.send(block.into_bytes());
            }
        });
        let collected = collect(name, decoded, keep);
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (leases, count) = collected?;
        let (header, length) = read?;
        if header.version == 1 && count != header.count {
            return Err(damaged(name, length, "objects are missing"));
        }
        Ok(Loaded {
            header,
            leases,
            length,
        })
    })
}

/// Pass on what the blocks hold, which come in order; return the leases and how many revisions there were.
fn collect(
    name: &str,
    decoded: Receiver<Result<(u64, Decoded)>>,
    mut keep: impl FnMut(Arc<Revision>),
) -> Result<(Vec<(i64, i64)>, u64)> {
    let mut leases = Vec::new();
    let mut last: Option<Arc<Revision>> = None;
    let mut count = 0;
    for found in decoded {
        match found? {
            (_, Decoded::Leases(found)) => leases.extend(found),
            (_, Decoded::States(mut found)) => {
                if let Some(last) = &last {
                    share_with(last, &mut found);
                }
                count += found.len() as u64;
                last = found.last().cloned().or(last);
                found.into_iter().for_each(&mut keep);
            }
            (_, Decoded::Count(expected)) if expected == count => {}
            (offset, _) => return Err(damaged(name, offset, "objects are missing")),
        }
    }
    Ok((leases, count))
}

fn decode(name: &str, offset: u64, block: &Block, ahead: &mut Ahead) -> Result<(u64, Decoded)> {
    let decoded = match block {
        Block::Leases(block) => decode_leases(block).map(Decoded::Leases),
        Block::Items(block) => decode_items(block, ahead).map(Decoded::States),
        Block::Count(count) => Some(Decoded::Count(*count)),
    };
    let decoded = decoded.ok_or_else(|| undecodable(name, offset))?;
    Ok((offset, decoded))
}

fn decode_leases(block: &[u8]) -> Option<Vec<(i64, i64)>> {
    let mut reader = Reader::new(block);
    let mut leases = Vec::new();
    while !reader.is_empty() {
        leases.push((reader.varint()? as i64, reader.varint()? as i64));
    }
    Some(leases)
}

/// Revisions of one key share the key, and the attributes where they did not change.
fn decode_items(block: &[u8], ahead: &mut Ahead) -> Option<Vec<Arc<Revision>>> {
    let mut reader = Reader::new(block);
    let mut states: Vec<Arc<Revision>> = Vec::new();
    while !reader.is_empty() {
        let before = reader.rest().len();
        let mut state = next_item(&mut reader)?;
        ahead.spend(before - reader.rest().len());
        if let Some(last) = states.last().filter(|last| last.key == state.key) {
            share(last, &mut state);
        }
        states.push(Arc::new(state));
    }
    Some(states)
}

/// Have the first revisions of a block, which nobody else has yet, share with the last one before it.
fn share_with(last: &Revision, states: &mut [Arc<Revision>]) {
    let same = states.iter_mut().take_while(|state| state.key == last.key);
    for state in same {
        if let Some(state) = Arc::get_mut(state) {
            share(last, state);
        }
    }
}

fn share(last: &Revision, state: &mut Revision) {
    state.key = last.key.clone();
    if last.attributes == state.attributes {
        state.attributes = last.attributes.clone();
    }
}

#[derive(Debug)]
enum Block {
    Leases(Vec<u8>),
    Items(Vec<u8>),
    Count(u64),
}

impl Block {
    /// The memory that it stands in.
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Block::Leases(bytes) | Block::Items(bytes) => bytes,
            Block::Count(_) => Vec::new(),
        }
    }
}

/// Visit every block; return the header and the length of the file. Blocks are chained as the log's batches are. `visit` gives
/// memory for the next block, because memory that is new costs more than reading into it.
fn read(
    disk: &dyn Disk,
    name: &str,
    mut visit: impl FnMut(u64, Block) -> Result<Vec<u8>>,
) -> Result<(Header, u64)> {
    let mut file = disk.stream(name)?;
    let (mut block, mut spare) = (Vec::new(), Vec::new());
    next_bytes(&mut *file, &mut block, HEADER_LEN)?;
    let header = Header::decode(name, &block)?;
    let mut offset = HEADER_LEN as u64;
    let mut chain = header.chain;
    let mut is_complete = header.version == 1;
    loop {
        next_bytes(&mut *file, &mut block, BLOCK_HEADER_LEN)?;
        if block.is_empty() && is_complete {
            return Ok((header, offset));
        }
        let cut = || damaged(name, offset, "a block is cut");
        let (length, rest) = block.split_first_chunk().ok_or_else(cut)?;
        let tagged = u32::from_le_bytes(*length);
        let sum = u32::from_le_bytes(*rest.first_chunk().ok_or_else(cut)?);
        let kind = tagged & header.kinds();
        let length = (tagged & !kind) as usize;
        next_bytes(&mut *file, &mut block, length)?;
        if block.len() < length {
            return Err(cut());
        }
        if sum != checksum(&header.uuid, chain, tagged, &block) {
            return Err(damaged(name, offset, "a block's checksum is wrong"));
        }
        if is_complete && header.version > 1 {
            return Err(damaged(name, offset, "there is something behind its end"));
        }
        if kind & PACKED != 0 {
            let unpacked = unpack(&block, &mut spare);
            unpacked.ok_or_else(|| damaged(name, offset, "a block does not unpack"))?;
            std::mem::swap(&mut block, &mut spare);
        }
        let found = match kind & !PACKED {
            LEASES => Block::Leases(std::mem::take(&mut block)),
            COUNT => {
                is_complete = true;
                Block::Count(u64::from_le_bytes(Cursor { rest: &block }.take()))
            }
            _ => Block::Items(std::mem::take(&mut block)),
        };
        block = visit(offset, found)?;
        chain = sum;
        offset += (BLOCK_HEADER_LEN + length) as u64;
    }
}

/// A snapshot of `parts`, each of which is a block of items (0), of leases (1), one that counts (2) or one of packed items (3), with all
/// its checksums.
#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(header: &Header, parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = header.encode();
    let mut sum = header.chain;
    for (kind, part) in parts {
        let tag = match kind {
            0 => 0,
            1 => LEASES,
            2 => COUNT,
            _ => PACKED,
        };
        let tagged = part.len() as u32 | tag;
        sum = checksum(&header.uuid, sum, tagged, part);
        out.extend_from_slice(&tagged.to_le_bytes());
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A block as it stands in a file, with the number that `sealed` gives its kind.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) number: u8,
    pub(crate) is_packed: bool,
    pub(crate) bytes: Vec<u8>,
}

/// The blocks of a snapshot, none of which is damaged.
#[cfg(test)]
pub(crate) fn blocks(mut file: &[u8]) -> (Header, Vec<Raw>) {
    let header = Header::decode("", file).unwrap();
    file = file.get(HEADER_LEN..).unwrap();
    let mut found = Vec::new();
    while let Some((tagged, rest)) = file.split_first_chunk() {
        let tagged = u32::from_le_bytes(*tagged);
        let rest = rest.get(4..).unwrap();
        let (bytes, behind) = rest.split_at((tagged & LENGTH) as usize);
        found.push(Raw {
            number: match tagged & !LENGTH & !PACKED {
                LEASES => 1,
                COUNT => 2,
                _ => 0,
            },
            is_packed: tagged & PACKED != 0,
            bytes: bytes.to_vec(),
        });
        file = behind;
    }
    (header, found)
}

/// Read `length` bytes, or what is left.
fn next_bytes(file: &mut dyn Read, bytes: &mut Vec<u8>, length: usize) -> Result<()> {
    bytes.clear();
    // A length that is damaged must not take the memory that it names.
    bytes.reserve(length.min(2 * BLOCK_LEN));
    file.take(length as u64).read_to_end(bytes)?;
    Ok(())
}

fn undecodable(name: &str, offset: u64) -> StoreError {
    damaged(name, offset, "an object does not decode")
}

pub(crate) fn damaged(name: &str, offset: u64, reason: &str) -> StoreError {
    match corrupt(name, offset as usize, reason) {
        StoreError::Corrupt {
            file,
            offset,
            reason,
            ..
        } => StoreError::Corrupt {
            file,
            offset,
            reason,
            advice: "Nothing was changed. Restore the directory from a backup",
        },
        other => other,
    }
}

impl Header {
    /// The bits of a block's length that say what is in it.
    fn kinds(&self) -> u32 {
        match self.version {
            1 => 0,
            2 => LEASES | COUNT,
            _ => LEASES | COUNT | PACKED,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.uuid);
        for number in [self.revision, self.floor, self.segment, self.count] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.resize(HEADER_LEN - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let fields = bytes
            .get(..HEADER_LEN)
            .ok_or_else(|| damaged(name, 0, "the header is incomplete"))?;
        let (covered, sum) = fields.split_at_checked(HEADER_LEN - 4).unwrap_or_default();
        if sum != crc32c::crc32c(covered).to_le_bytes() || !covered.starts_with(MAGIC) {
            return Err(damaged(name, 0, "the header's checksum is wrong"));
        }
        let mut at = Cursor {
            rest: covered.get(MAGIC.len()..).unwrap_or_default(),
        };
        let version = u32::from_le_bytes(at.take());
        check_format(name, version)?;
        let uuid = at.take();
        let [revision, floor, segment, count] = [0; 4].map(|_: u64| u64::from_le_bytes(at.take()));
        Ok(Header {
            version,
            uuid,
            revision,
            floor,
            segment,
            count,
            chain: u32::from_le_bytes(at.take()),
        })
    }
}
