//! Snapshots: every retained revision, sorted by key, in checksummed blocks.
//!
//! A snapshot replaces the log before segment `segment`. It holds history down to the compaction floor as well, so that watches
//! resume across a restart. It is written under another name, synced, renamed, and read back before anything behind it is removed.

use std::sync::Arc;

use super::codec::Reader;
use super::disk::Disk;
use super::entry::{next_item, put_item};
use super::error::{Result, StoreError};
use super::revision::Revision;
use super::segment::{Cursor, Uuid, checksum, corrupt};

const MAGIC: &[u8; 8] = b"korchsnp";
const FORMAT_VERSION: u32 = 1;
const HEADER_LEN: usize = 76;
const BLOCK_LEN: usize = 256 << 10;

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
    pub(crate) count: u64,
}

pub(crate) fn name(revision: u64) -> String {
    format!("snapshot-{revision:016x}")
}

/// The revision in a snapshot's name, None for other files.
pub(crate) fn revision_in(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("snapshot-")?, 16).ok()
}

/// Write a snapshot and read it back; return its length in bytes.
pub(crate) fn save(disk: &dyn Disk, header: &Header, states: &[Arc<Revision>]) -> Result<u64> {
    let mut file = disk.create(UNFINISHED)?;
    file.append(&header.encode())?;
    let mut sum = header.chain;
    let mut block = Vec::with_capacity(BLOCK_LEN * 2);
    for state in states {
        put_item(&mut block, state);
        if block.len() >= BLOCK_LEN {
            sum = append_block(&mut *file, &header.uuid, sum, &block)?;
            block.clear();
        }
    }
    append_block(&mut *file, &header.uuid, sum, &block)?;
    file.sync()?;
    let name = name(header.revision);
    disk.rename(UNFINISHED, &name)?;
    disk.sync_directory()?;
    let bytes = disk.read(&name)?;
    verify(&name, &bytes, header, states.len())?;
    Ok(bytes.len() as u64)
}

/// Read a snapshot. Fails with Corrupt unless every byte of it is as it was written.
pub(crate) fn load(name: &str, bytes: &[u8]) -> Result<(Header, Vec<Arc<Revision>>)> {
    let header = Header::decode(name, bytes)?;
    let mut states: Vec<Arc<Revision>> = Vec::new();
    for_each_block(name, bytes, &header, |offset, block| {
        let mut reader = Reader::new(block);
        while !reader.is_empty() {
            let mut state = next_item(&mut reader)
                .ok_or_else(|| damaged(name, offset, "an object does not decode"))?;
            if let Some(last) = states.last().filter(|last| last.key == state.key) {
                state.key = last.key.clone();
                if last.attributes == state.attributes {
                    state.attributes = last.attributes.clone();
                }
            }
            states.push(Arc::new(state));
        }
        Ok(())
    })?;
    if states.len() as u64 != header.count {
        return Err(damaged(name, bytes.len(), "objects are missing"));
    }
    Ok((header, states))
}

/// What was just written must be what is read, to the last object; otherwise the log behind it must stay.
fn verify(name: &str, bytes: &[u8], written: &Header, count: usize) -> Result<()> {
    let header = Header::decode(name, bytes)?;
    let mut found = 0;
    for_each_block(name, bytes, &header, |offset, block| {
        let mut reader = Reader::new(block);
        while !reader.is_empty() {
            next_item(&mut reader)
                .ok_or_else(|| damaged(name, offset, "an object does not decode"))?;
            found += 1;
        }
        Ok(())
    })?;
    if header != *written || found != count {
        return Err(damaged(name, bytes.len(), "it is not what was written"));
    }
    Ok(())
}

/// Blocks are chained as the log's batches are; a block shorter than the rest of the file would leave bytes that fail to be one.
fn for_each_block(
    name: &str,
    bytes: &[u8],
    header: &Header,
    mut visit: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut offset = HEADER_LEN;
    let mut chain = header.chain;
    while offset < bytes.len() {
        let (fields, rest) = bytes
            .get(offset..)
            .and_then(|rest| rest.split_at_checked(8))
            .ok_or_else(|| damaged(name, offset, "a block is cut"))?;
        let mut at = Cursor { rest: fields };
        let length = u32::from_le_bytes(at.take());
        let sum = u32::from_le_bytes(at.take());
        let block = rest
            .get(..length as usize)
            .ok_or_else(|| damaged(name, offset, "a block is cut"))?;
        if sum != checksum(&header.uuid, chain, length, block) {
            return Err(damaged(name, offset, "a block's checksum is wrong"));
        }
        visit(offset, block)?;
        chain = sum;
        offset += 8 + block.len();
    }
    Ok(())
}

fn append_block(
    file: &mut dyn super::disk::DiskFile,
    uuid: &Uuid,
    chain: u32,
    block: &[u8],
) -> Result<u32> {
    let length = u32::try_from(block.len())
        .map_err(|_| StoreError::Invalid("an object is longer than 4 GiB".into()))?;
    let sum = checksum(uuid, chain, length, block);
    file.append([length.to_le_bytes(), sum.to_le_bytes()].as_flattened())?;
    file.append(block)?;
    Ok(sum)
}

fn damaged(name: &str, offset: usize, reason: &str) -> StoreError {
    match corrupt(name, offset, reason) {
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
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
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
        if version != FORMAT_VERSION {
            return Err(StoreError::Invalid(format!(
                "{name} has format {version}, this korch reads format {FORMAT_VERSION}"
            )));
        }
        let uuid = at.take();
        let [revision, floor, segment, count] = [0; 4].map(|_: u64| u64::from_le_bytes(at.take()));
        Ok(Header {
            uuid,
            revision,
            floor,
            segment,
            count,
            chain: u32::from_le_bytes(at.take()),
        })
    }
}
