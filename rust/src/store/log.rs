//! The write-ahead log: commits gather in a buffer, a flush writes the whole buffer as one batch and syncs it.
//!
//! The buffer and the file have a lock each, so commits go on while the disk works and their batch grows by itself. A failed write
//! or sync poisons the log for ever: after it nobody knows what is on the disk, and a kernel may have dropped the dirty pages, so a
//! second sync that succeeds would prove nothing. Only reading the log again, at the next start, tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::disk::{Disk, DiskFile};
use super::entry;
use super::error::{Result, StoreError};
use super::lock;
use super::revision::Revision;
use super::segment::{self, BATCH_HEADER_LEN, Uuid};

/// A new segment begins when the current one is longer than this.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// What a file is called until it is whole and durable.
pub(crate) const UNFINISHED: &str = "log.tmp";

#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    uuid: Uuid,
    segment_bytes: u64,
    buffer: Mutex<Buffer>,
    writer: Mutex<Writer>,
    /// One snapshot at a time.
    snapshotting: Mutex<()>,
    durable: AtomicU64,
    /// Bytes in all segments.
    bytes: AtomicU64,
    snapshot_bytes: AtomicU64,
    flushes: AtomicU64,
    torn_bytes: u64,
    poison: OnceLock<String>,
}

/// Figures for metrics. `torn_bytes` were cut from the end of the log when it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) flushes: u64,
}

#[derive(Debug)]
struct Buffer {
    /// A batch without its header, whose room is reserved.
    batch: Vec<u8>,
    /// The last revision in it, or before it.
    revision: u64,
    /// The batch before, emptied: its memory is used again.
    spare: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) file: Box<dyn DiskFile>,
    /// The current segment's number, and its length so far.
    pub(crate) number: u64,
    pub(crate) length: u64,
    /// The checksum of the last batch.
    pub(crate) chain: u32,
}

/// Where a new segment began: everything up to `revision` lies before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) segment: u64,
    pub(crate) chain: u32,
    pub(crate) revision: u64,
    /// How long the log was before it.
    bytes_before: u64,
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

/// The number in a segment's name, None for other files.
pub(crate) fn number_in(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

impl Log {
    /// Continue a log behind what `found` describes; everything up to `revision` is durable.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        uuid: Uuid,
        revision: u64,
        writer: Writer,
        segment_bytes: u64,
        found: Sizes,
    ) -> Self {
        let batch = vec![0; BATCH_HEADER_LEN];
        Log {
            bytes: AtomicU64::new(found.log_bytes),
            snapshot_bytes: AtomicU64::new(found.snapshot_bytes),
            torn_bytes: found.torn_bytes,
            flushes: AtomicU64::new(0),
            durable: AtomicU64::new(revision),
            buffer: Mutex::new(Buffer {
                spare: batch.clone(),
                batch,
                revision,
            }),
            writer: Mutex::new(writer),
            snapshotting: Mutex::new(()),
            poison: OnceLock::new(),
            disk,
            uuid,
            segment_bytes,
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Sizes {
            log_bytes: load(&self.bytes),
            snapshot_bytes: load(&self.snapshot_bytes),
            torn_bytes: self.torn_bytes,
            flushes: load(&self.flushes),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned {
                reason: reason.clone(),
            }),
        }
    }

    /// Buffer a commit. The caller holds the state's lock, so that entries stand in revision order.
    pub(crate) fn add_commit(&self, revision: u64, states: &[Arc<Revision>]) -> Result<()> {
        let mut buffer = lock(&self.buffer);
        entry::put_commit(&mut buffer.batch, revision, states);
        buffer.revision = revision;
        Ok(())
    }

    /// Buffer a compaction.
    pub(crate) fn add_compaction(&self, revision: u64) -> Result<()> {
        entry::put_compaction(&mut lock(&self.buffer).batch, revision);
        Ok(())
    }

    pub(crate) fn add_grant(&self, id: i64, ttl_s: i64) -> Result<()> {
        entry::put_grant(&mut lock(&self.buffer).batch, id, ttl_s);
        Ok(())
    }

    pub(crate) fn add_revocation(&self, id: i64) -> Result<()> {
        entry::put_revocation(&mut lock(&self.buffer).batch, id);
        Ok(())
    }

    /// Make everything buffered durable; return the durable revision.
    pub(crate) fn flush(&self) -> Result<u64> {
        let mut writer = lock(&self.writer);
        let revision = self.flush_with(&mut writer)?;
        if writer.length > self.segment_bytes {
            // A segment that cannot be begun now, for want of space, is tried again after the next batch.
            let _ = self.begin_segment(&mut writer);
        }
        Ok(revision)
    }

    /// Begin a segment and call `collect` before anything is written to it, so that what it sees is exactly what lies before.
    pub(crate) fn cut<T>(&self, collect: impl FnOnce(u64) -> T) -> Result<(Cut, T)> {
        let mut writer = lock(&self.writer);
        let revision = self.flush_with(&mut writer)?;
        self.begin_segment(&mut writer)?;
        let bytes_before = self
            .bytes
            .load(Ordering::Relaxed)
            .saturating_sub(writer.length);
        let cut = Cut {
            segment: writer.number,
            chain: writer.chain,
            revision,
            bytes_before,
        };
        Ok((cut, collect(revision)))
    }

    /// Write a snapshot with `save`, then remove what it replaces. `save` returns the snapshot's name and length.
    pub(crate) fn replace_by_snapshot(
        &self,
        save: impl FnOnce(&dyn Disk, &Uuid) -> Result<(Cut, u64)>,
    ) -> Result<u64> {
        let _one_at_a_time = lock(&self.snapshotting);
        let (cut, length) = save(&*self.disk, &self.uuid)?;
        for name in self.disk.list()? {
            let is_replaced = number_in(&name).is_some_and(|number| number < cut.segment)
                || super::snapshot::revision_in(&name)
                    .is_some_and(|revision| revision < cut.revision);
            if is_replaced {
                self.disk.remove(&name)?;
            }
        }
        self.disk.sync_directory()?;
        self.bytes.fetch_sub(cut.bytes_before, Ordering::Relaxed);
        self.snapshot_bytes.store(length, Ordering::Relaxed);
        Ok(cut.revision)
    }

    /// Take no more writes, and let go of the directory.
    pub(crate) fn close(&self) {
        let _no_snapshot = lock(&self.snapshotting);
        let _writer = lock(&self.writer);
        let _ = self.poison.set("it is closed".into());
        self.disk.unlock();
    }

    fn flush_with(&self, writer: &mut Writer) -> Result<u64> {
        self.check()?;
        let (mut batch, revision) = {
            let mut buffer = lock(&self.buffer);
            if buffer.batch.len() <= BATCH_HEADER_LEN {
                return Ok(buffer.revision);
            }
            let spare = std::mem::take(&mut buffer.spare);
            (std::mem::replace(&mut buffer.batch, spare), buffer.revision)
        };
        if let Err(error) = self.write(writer, &mut batch) {
            let reason = format!("writing the log in {} failed: {error}", self.disk.place());
            let _ = self.poison.set(reason);
            return self.check().map(|()| revision);
        }
        self.durable.store(revision, Ordering::Release);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        batch.truncate(BATCH_HEADER_LEN);
        lock(&self.buffer).spare = batch;
        Ok(revision)
    }

    fn write(&self, writer: &mut Writer, batch: &mut [u8]) -> Result<()> {
        writer.chain = segment::seal(batch, &self.uuid, writer.chain)?;
        writer.file.append(batch)?;
        writer.file.sync()?;
        writer.length += batch.len() as u64;
        self.bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn begin_segment(&self, writer: &mut Writer) -> Result<()> {
        let header = segment::Header {
            uuid: self.uuid,
            number: writer.number + 1,
            revision: self.durable(),
            chain: writer.chain,
        };
        let length = segment::HEADER_LEN as u64;
        writer.file = create_segment(&*self.disk, &header)?;
        writer.number += 1;
        writer.length = length;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

/// Make a segment's file; it has its name only once its header is durable.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    header: &segment::Header,
) -> Result<Box<dyn DiskFile>> {
    let mut file = disk.create(UNFINISHED)?;
    file.append(&header.encode())?;
    file.sync()?;
    disk.rename(UNFINISHED, &segment_name(header.number))?;
    disk.sync_directory()?;
    Ok(file)
}
