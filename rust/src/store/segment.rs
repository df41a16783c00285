//! The format of a log segment: a header, then one batch for each sync, then zeros up to the room that was set aside.
//!
//! A batch is written and synced before the next begins, so at most one batch is ever unsynced and it is the last. That makes
//! recovery's rule exact: a damaged batch with nothing valid behind it is the torn end of an unanswered write and is cut; one with
//! a valid batch behind it was durable once, so the disk lost it, and we refuse. Checksums cover the store's uuid and the previous
//! batch's checksum, so that bytes of another store, or a batch moved, repeated or left out, do not pass.

use super::error::{Result, StoreError};

pub(crate) const HEADER_LEN: usize = 52;
pub(crate) const BATCH_HEADER_LEN: usize = 16;

const FILE_MAGIC: &[u8; 8] = b"korchlog";
/// A batch begins with the first three of these bytes, and then with one that tells whether it is packed.
const BATCH_MAGIC: [u8; 3] = *b"\xb7kr";
const PLAIN: u8 = b'b';
const PACKED: u8 = b'z';
/// What is written. Older formats are read as well: 2 packs nothing, 1 had no leases either, and no zeros at its end.
pub(crate) const FORMAT_VERSION: u32 = 3;

pub(crate) const ADVICE: &str = "Nothing was changed. Restore the directory from a backup; or, giving up everything written from there on, \
cut the file at that offset (truncate -s OFFSET FILE) and remove the log files after it";

/// What a store is called; part of every checksum.
pub(crate) type Uuid = [u8; 16];

/// The first bytes of a segment. `chain` is the checksum of the last batch before it, `revision` the last one written before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) uuid: Uuid,
    pub(crate) number: u64,
    pub(crate) revision: u64,
    pub(crate) chain: u32,
    pub(crate) version: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(FILE_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Read the header of the file called `name`.
    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let fields = bytes
            .get(..HEADER_LEN)
            .ok_or_else(|| corrupt(name, 0, "the header is incomplete"))?;
        let mut at = Cursor { rest: fields };
        if at.take::<8>() != *FILE_MAGIC {
            return Err(corrupt(name, 0, "this is not a log of korch"));
        }
        let version = u32::from_le_bytes(at.take());
        let header = Header {
            version,
            number: u64::from_le_bytes(at.take()),
            revision: u64::from_le_bytes(at.take()),
            uuid: at.take(),
            chain: u32::from_le_bytes(at.take()),
        };
        let covered = fields.get(..HEADER_LEN - 4).unwrap_or_default();
        if u32::from_le_bytes(at.take()) != crc32c::crc32c(covered) {
            return Err(corrupt(name, 0, "the header's checksum is wrong"));
        }
        check_format(name, version)?;
        Ok(header)
    }
}

/// Refuse, by name, what a newer korch wrote.
pub(crate) fn check_format(name: &str, version: u32) -> Result<()> {
    if (1..=FORMAT_VERSION).contains(&version) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "{name} has format {version}, this korch reads formats 1 to {FORMAT_VERSION}: use a newer one"
    )))
}

/// Fill in the header of `batch`, whose first `BATCH_HEADER_LEN` bytes are reserved for it; return the batch's checksum.
pub(crate) fn seal(batch: &mut [u8], is_packed: bool, uuid: &Uuid, chain: u32) -> Result<u32> {
    let too_long = || StoreError::Invalid("a batch of the log is longer than 4 GiB".into());
    let (header, payload) = batch
        .split_at_mut_checked(BATCH_HEADER_LEN)
        .ok_or_else(too_long)?;
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    let sum = checksum(uuid, chain, length, payload);
    let [a, b, c] = BATCH_MAGIC;
    let fields = [
        [a, b, c, if is_packed { PACKED } else { PLAIN }],
        length.to_le_bytes(),
        chain.to_le_bytes(),
        sum.to_le_bytes(),
    ];
    header.copy_from_slice(fields.as_flattened());
    Ok(sum)
}

/// A whole and undamaged batch.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) is_packed: bool,
    pub(crate) chain: u32,
    pub(crate) sum: u32,
}

/// The batch at `offset`, None when there is none that is whole.
pub(crate) fn batch_at<'a>(bytes: &'a [u8], offset: usize, uuid: &Uuid) -> Option<Batch<'a>> {
    let (header, rest) = bytes.get(offset..)?.split_at_checked(BATCH_HEADER_LEN)?;
    let mut at = Cursor { rest: header };
    let is_packed = match (at.take(), at.take()) {
        (BATCH_MAGIC, [PLAIN]) => false,
        (BATCH_MAGIC, [PACKED]) => true,
        _ => return None,
    };
    let length = u32::from_le_bytes(at.take());
    let chain = u32::from_le_bytes(at.take());
    let sum = u32::from_le_bytes(at.take());
    let payload = rest.get(..length as usize)?;
    (sum == checksum(uuid, chain, length, payload)).then_some(Batch {
        payload,
        is_packed,
        chain,
        sum,
    })
}

/// Whether a whole batch begins anywhere behind `offset`.
pub(crate) fn any_batch_behind(bytes: &[u8], offset: usize, uuid: &Uuid) -> bool {
    let rest = bytes.get(offset + 1..).unwrap_or_default();
    memchr::memmem::find_iter(rest, &BATCH_MAGIC)
        .any(|found| batch_at(bytes, offset + 1 + found, uuid).is_some())
}

pub(crate) fn corrupt(file: &str, offset: usize, reason: &str) -> StoreError {
    StoreError::Corrupt {
        file: file.into(),
        offset: offset as u64,
        reason: reason.into(),
        advice: ADVICE,
    }
}

pub(crate) fn checksum(uuid: &Uuid, chain: u32, length: u32, payload: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(chain, uuid);
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &length.to_le_bytes()), payload)
}

/// Takes fixed-width fields off the front; missing bytes read as zero.
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
}

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => [0; N],
        }
    }
}
