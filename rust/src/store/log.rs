//! The write-ahead log: commits gather in batches, a flush writes each batch and syncs it.
//!
//! Where an entry will stand is decided when it is added: its batch belongs to a segment whose room on the disk is set aside
//! already. So a full disk refuses a commit before anything is applied, and a flush needs no space. The batches and the file have a
//! lock each, so commits go on while the disk works and batches grow by themselves.
//!
//! On a file system that copies on writing, even room that was set aside can run out. A write that is refused for that reason has
//! changed nothing that counts, so what waited is taken back and the log goes on (`Lost`); what a part of such a write left is
//! covered by the next one. Any other failed write, or a failed sync, poisons the log for ever: after it nobody knows what is on the disk, and a kernel may have dropped the dirty pages, so a second sync that succeeds
//! would prove nothing. Only reading the log again, at the next start, tells.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::disk::{Disk, DiskFile, is_full};
use super::entry;
use super::error::{Result, StoreError};
use super::histogram::{Durations, Histogram};
use super::pack::pack;
use super::revision::Revision;
use super::room::{Room, name_segment};
use super::segment::{self, BATCH_HEADER_LEN, FORMAT_VERSION, HEADER_LEN, Uuid};
use super::{lock, snapshot};

/// How long a segment of a log that is used gets to be.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// A longer log, unpacked, is replaced by a snapshot: about what is read again in half a second.
const LONG_BYTES: u64 = 4 * SEGMENT_BYTES;

/// A longer batch gets no more entries.
const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    uuid: Uuid,
    buffer: Mutex<Buffer>,
    room: Arc<Room>,
    writer: Mutex<Writer>,
    /// One snapshot at a time.
    snapshotting: Mutex<()>,
    durable: AtomicU64,
    /// Bytes in all segments, and those that reading them unpacks to.
    bytes: AtomicU64,
    plain_bytes: AtomicU64,
    snapshot_bytes: AtomicU64,
    flushes: AtomicU64,
    syncs: Histogram,
    batches: Histogram,
    flushed_bytes: AtomicU64,
    torn_bytes: u64,
    poison: OnceLock<String>,
    /// Why the last batch could not be written for want of room, None since one could.
    full: Mutex<Option<String>>,
    /// The log is long when it unpacks to more bytes than this.
    long_bytes: AtomicU64,
}

/// Figures for metrics. `plain_bytes` is what the log unpacks to; `torn_bytes` were cut from the end of the log when it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) log_bytes: u64,
    pub(crate) plain_bytes: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) flushed_bytes: u64,
}

#[derive(Debug)]
struct Buffer {
    batches: VecDeque<Batch>,
    /// Bytes left in the segment that the last batch belongs to.
    left: u64,
    /// The last revision added.
    revision: u64,
    /// A batch before, emptied: its memory is used again.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Batch {
    /// Entries behind the room for a header; empty for a cut.
    bytes: Vec<u8>,
    /// The segment that begins with it.
    begins: Option<Segment>,
    /// The last revision in it, or before it.
    revision: u64,
    /// What its entries did to leases, in order.
    leases: Vec<LeaseStep>,
}

/// How to take back what a logged entry did to a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeaseStep {
    Granted { id: i64 },
    Revoked { id: i64, ttl_s: i64 },
}

/// Undoes, in memory, everything behind the durable revision. Called with what the lost entries did to leases, in order, while the
/// disk is nobody else's; the function in it empties the buffer and must be called while nobody can write.
pub(crate) type TakeBack<'a> = &'a dyn Fn(&dyn Fn() -> Vec<LeaseStep>);

/// A file whose room is set aside and whose header is not written yet.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) name: String,
    pub(crate) capacity: u64,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) file: Box<dyn DiskFile>,
    /// The current segment's number, and where its next batch goes.
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) capacity: u64,
    /// The checksum of the last batch.
    pub(crate) chain: u32,
    /// Up to where a refused write may have left something that is no batch; 0: nowhere.
    pub(crate) dirty: u64,
    /// Where the next batch is packed.
    pub(crate) spare: Vec<u8>,
}

/// Where a new segment began: everything up to some revision lies before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) segment: u64,
    pub(crate) chain: u32,
    /// How long the log was before it, and what it unpacked to.
    bytes_before: u64,
    plain_before: u64,
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

/// The number in a segment's name, None for other files.
pub(crate) fn number_in(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

impl Buffer {
    /// Use the memory of a batch again that was written, and the room that packing it has saved, unless whatever comes next is for a
    /// later segment.
    fn written(&mut self, spare: Vec<u8>, saved: usize) {
        self.spare = spare;
        if self.batches.iter().all(|batch| batch.begins.is_none()) {
            self.left += saved as u64;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.room.close();
    }
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
        Log {
            bytes: AtomicU64::new(found.log_bytes),
            plain_bytes: AtomicU64::new(found.plain_bytes),
            snapshot_bytes: AtomicU64::new(found.snapshot_bytes),
            torn_bytes: found.torn_bytes,
            flushes: AtomicU64::new(0),
            syncs: Histogram::default(),
            batches: Histogram::default(),
            flushed_bytes: AtomicU64::new(0),
            durable: AtomicU64::new(revision),
            buffer: Mutex::new(Buffer {
                batches: VecDeque::new(),
                left: writer.capacity.saturating_sub(writer.offset),
                revision,
                spare: Vec::new(),
            }),
            room: Arc::new(Room::new(disk.clone(), segment_bytes, writer.capacity)),
            writer: Mutex::new(writer),
            snapshotting: Mutex::new(()),
            poison: OnceLock::new(),
            full: Mutex::new(None),
            long_bytes: AtomicU64::new(LONG_BYTES),
            disk,
            uuid,
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// How long syncs took, and batches as a whole: sealed, written and synced.
    pub(crate) fn times(&self) -> (Durations, Durations) {
        (self.syncs.durations(), self.batches.durations())
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Sizes {
            log_bytes: load(&self.bytes),
            plain_bytes: load(&self.plain_bytes),
            snapshot_bytes: load(&self.snapshot_bytes),
            torn_bytes: self.torn_bytes,
            flushes: load(&self.flushes),
            flushed_bytes: load(&self.flushed_bytes),
        }
    }

    /// Whether a snapshot should replace the log, before reading it keeps the next start waiting.
    pub(crate) fn is_long(&self) -> bool {
        self.plain_bytes.load(Ordering::Relaxed) > self.long_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_long_bytes(&self, bytes: u64) {
        self.long_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned {
                reason: reason.clone(),
            }),
        }
    }

    /// Why nothing can be written now, None when all is well. Asks a full disk again.
    pub(crate) fn problem(&self) -> Option<String> {
        let poison = self.check().err().map(|error| error.to_string());
        poison
            .or_else(|| lock(&self.full).clone())
            .or_else(|| self.room.refusal())
    }

    /// Buffer a commit, and with it the end of the lease (its id, the seconds it had) whose keys it deletes: both are there or neither.
    /// The caller holds the state's lock, so that entries stand in revision order. Fails with NoSpace.
    pub(crate) fn add_commit(
        &self,
        revision: u64,
        states: &[Arc<Revision>],
        revoked: Option<(i64, i64)>,
    ) -> Result<()> {
        let mut buffer = lock(&self.buffer);
        let next = buffer.revision + 1;
        self.add(&mut buffer, |out| {
            // Revisions that were taken back are not given twice; in the log they are commits of nothing.
            for lost in next..revision {
                entry::put_commit(out, lost, &[]);
            }
            entry::put_commit(out, revision, states);
            if let Some((id, _)) = revoked {
                entry::put_revocation(out, id);
            }
        })?;
        buffer.revision = revision;
        if let Some(batch) = buffer.batches.back_mut() {
            batch.revision = revision;
            let step = revoked.map(|(id, ttl_s)| LeaseStep::Revoked { id, ttl_s });
            batch.leases.extend(step);
        }
        Ok(())
    }

    /// Buffer a compaction. Fails with NoSpace, like those below.
    pub(crate) fn add_compaction(&self, revision: u64) -> Result<()> {
        let put = |out: &mut Vec<u8>| entry::put_compaction(out, revision);
        self.add(&mut lock(&self.buffer), put)
    }

    pub(crate) fn add_grant(&self, id: i64, ttl_s: i64) -> Result<()> {
        let put = |out: &mut Vec<u8>| entry::put_grant(out, id, ttl_s);
        self.add_lease_step(LeaseStep::Granted { id }, put)
    }

    /// `ttl_s` is what the lease had.
    pub(crate) fn add_revocation(&self, id: i64, ttl_s: i64) -> Result<()> {
        let put = |out: &mut Vec<u8>| entry::put_revocation(out, id);
        self.add_lease_step(LeaseStep::Revoked { id, ttl_s }, put)
    }

    fn add_lease_step(&self, step: LeaseStep, put: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut buffer = lock(&self.buffer);
        self.add(&mut buffer, put)?;
        if let Some(batch) = buffer.batches.back_mut() {
            batch.leases.push(step);
        }
        Ok(())
    }

    /// Put an entry where there is room for it: into the last batch, into another one of the same segment, or into a new segment.
    fn add(&self, buffer: &mut Buffer, put: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let open = |batch: &Batch| !batch.bytes.is_empty() && batch.bytes.len() < BATCH_BYTES;
        if !buffer.batches.back().is_some_and(open) {
            let mut bytes = std::mem::take(&mut buffer.spare);
            bytes.resize(BATCH_HEADER_LEN, 0);
            put(&mut bytes);
            return self.add_batch(buffer, bytes);
        }
        let Some(batch) = buffer.batches.back_mut() else {
            return Ok(());
        };
        let before = batch.bytes.len();
        put(&mut batch.bytes);
        let grown = (batch.bytes.len() - before) as u64;
        if grown <= buffer.left {
            buffer.left -= grown;
            return Ok(());
        }
        let mut bytes = vec![0; BATCH_HEADER_LEN];
        bytes.extend(batch.bytes.drain(before..));
        self.add_batch(buffer, bytes)
    }

    fn add_batch(&self, buffer: &mut Buffer, bytes: Vec<u8>) -> Result<()> {
        let length = bytes.len() as u64;
        let begins = if length <= buffer.left {
            buffer.left -= length;
            None
        } else {
            let segment = self.room.segment(HEADER_LEN as u64 + length)?;
            buffer.left = segment.capacity - HEADER_LEN as u64 - length;
            Some(segment)
        };
        let revision = buffer.revision;
        buffer.batches.push_back(Batch {
            bytes,
            begins,
            revision,
            leases: Vec::new(),
        });
        Ok(())
    }

    /// Make everything buffered durable; return the durable revision. Fails with NoSpace after `take_back`, and with Poisoned.
    pub(crate) fn flush(&self, take_back: TakeBack<'_>) -> Result<u64> {
        let mut writer = lock(&self.writer);
        self.check()?;
        let count = lock(&self.buffer).batches.len();
        for _ in 0..count {
            self.flush_batch(&mut writer, take_back)?;
        }
        Ok(self.durable())
    }

    /// Forget everything buffered; return what it did to leases.
    fn empty_buffer(&self, writer: &Writer) -> Vec<LeaseStep> {
        let mut buffer = lock(&self.buffer);
        let mut steps = Vec::new();
        for batch in std::mem::take(&mut buffer.batches) {
            steps.extend(batch.leases);
            if let Some(segment) = batch.begins {
                // What cannot be removed now is removed at the next start.
                let _ = self.disk.remove(&segment.name);
            }
        }
        buffer.left = writer.capacity.saturating_sub(writer.offset);
        buffer.revision = self.durable();
        steps
    }

    /// Begin a segment, and call `collect` when everything logged so far will stand before it and everything else behind it:
    /// `collect` is given the function that draws the line, and calls it while nobody can write.
    pub(crate) fn cut<T>(
        &self,
        take_back: TakeBack<'_>,
        collect: impl FnOnce(Box<dyn FnOnce() + '_>) -> Result<T>,
    ) -> Result<(Cut, T)> {
        let mut writer = lock(&self.writer);
        self.check()?;
        // Found before anybody has to wait for it.
        let segment = self.room.segment(HEADER_LEN as u64)?;
        let collected = collect(Box::new(|| {
            let mut buffer = lock(&self.buffer);
            buffer.left = segment.capacity - HEADER_LEN as u64;
            let revision = buffer.revision;
            buffer.batches.push_back(Batch {
                bytes: Vec::new(),
                begins: Some(segment),
                revision,
                leases: Vec::new(),
            });
        }))?;
        // The writer is ours, so the first empty batch is the line just drawn.
        while !self.flush_batch(&mut writer, take_back)? {}
        let header = HEADER_LEN as u64;
        let cut = Cut {
            segment: writer.number,
            chain: writer.chain,
            bytes_before: self.bytes.load(Ordering::Relaxed).saturating_sub(header),
            plain_before: self.plain_bytes.load(Ordering::Relaxed),
        };
        Ok((cut, collected))
    }

    /// Write a snapshot with `save`, then remove what it replaces. `save` returns the snapshot's revision and length.
    pub(crate) fn replace_by_snapshot(
        &self,
        save: impl FnOnce(&dyn Disk, &Uuid) -> Result<(Cut, u64, u64)>,
    ) -> Result<u64> {
        let _one_at_a_time = lock(&self.snapshotting);
        // Where no file can be made no segment should be begun for it.
        self.disk.create(snapshot::UNFINISHED)?;
        let saved = save(&*self.disk, &self.uuid);
        if saved.is_err() {
            let _ = self.disk.remove(snapshot::UNFINISHED);
        }
        let (cut, revision, length) = saved?;
        for name in self.disk.list()? {
            let is_replaced = number_in(&name).is_some_and(|number| number < cut.segment)
                || snapshot::revision_in(&name).is_some_and(|other| other < revision);
            if is_replaced {
                self.disk.retire(&name)?;
            }
        }
        self.disk.sync_directory()?;
        self.bytes.fetch_sub(cut.bytes_before, Ordering::Relaxed);
        self.plain_bytes
            .fetch_sub(cut.plain_before, Ordering::Relaxed);
        self.snapshot_bytes.store(length, Ordering::Relaxed);
        Ok(revision)
    }

    /// Take no more writes, and let go of the directory.
    pub(crate) fn close(&self) {
        let _no_snapshot = lock(&self.snapshotting);
        let _writer = lock(&self.writer);
        let _ = self.poison.set("it is closed".into());
        self.room.close();
        self.disk.unlock();
    }

    /// Write and sync the oldest batch; return whether it was a cut, or there was none.
    fn flush_batch(&self, writer: &mut Writer, take_back: TakeBack<'_>) -> Result<bool> {
        let Some(mut batch) = lock(&self.buffer).batches.pop_front() else {
            return Ok(true);
        };
        let is_cut = batch.bytes.is_empty();
        let plain = batch.bytes.len();
        if let Err(error) = self.write(writer, &mut batch) {
            if let StoreError::NoSpace { reason } = &error {
                *lock(&self.full) = Some(reason.clone());
                lock(&self.buffer).batches.push_front(batch);
                take_back(&|| self.empty_buffer(writer));
                return Err(error);
            }
            let reason = format!("writing the log in {} failed: {error}", self.disk.place());
            let _ = self.poison.set(reason);
            return self.check().map(|()| is_cut);
        }
        self.durable.store(batch.revision, Ordering::Release);
        if !is_cut {
            lock(&self.full).take();
            self.flushes.fetch_add(1, Ordering::Relaxed);
            let length = batch.bytes.len();
            self.flushed_bytes
                .fetch_add(length as u64, Ordering::Relaxed);
            self.room.used(writer.offset, writer.capacity, length);
            batch.bytes.clear();
            lock(&self.buffer).written(batch.bytes, plain - length);
        }
        Ok(is_cut)
    }

    fn write(&self, writer: &mut Writer, batch: &mut Batch) -> Result<()> {
        if let Some(segment) = batch.begins.take() {
            self.clean(writer)?;
            self.begin_segment(writer, segment)?;
        }
        if batch.bytes.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let plain = batch.bytes.len().saturating_sub(BATCH_HEADER_LEN) as u64;
        let is_packed = pack(&mut batch.bytes, BATCH_HEADER_LEN, &mut writer.spare);
        let chain = segment::seal(&mut batch.bytes, is_packed, &self.uuid, writer.chain)?;
        let length = batch.bytes.len();
        let end = writer.offset + length as u64;
        if writer.dirty > end {
            batch
                .bytes
                .resize(length + (writer.dirty - end) as usize, 0);
        }
        let refused = writer.file.write_at(writer.offset, &batch.bytes);
        if let Err(error) = refused {
            writer.dirty = writer.offset + batch.bytes.len() as u64;
            return Err(self.refused(error));
        }
        batch.bytes.truncate(length);
        let written = Instant::now();
        writer.file.sync()?;
        self.syncs.observe(written.elapsed());
        self.batches.observe(began.elapsed());
        writer.chain = chain;
        writer.offset = end;
        writer.dirty = 0;
        let length = length as u64;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.plain_bytes.fetch_add(plain, Ordering::Relaxed);
        Ok(())
    }

    /// Take away what a refused write left at the end of a segment that gets no more batches.
    fn clean(&self, writer: &mut Writer) -> Result<()> {
        if writer.dirty <= writer.offset {
            return Ok(());
        }
        let zeros = vec![0; (writer.dirty - writer.offset) as usize];
        let written = writer.file.write_at(writer.offset, &zeros);
        written.map_err(|error| self.refused(error))?;
        writer.file.sync()?;
        writer.dirty = 0;
        Ok(())
    }

    /// A write that failed: NoSpace when nothing but room was missing.
    fn refused(&self, error: std::io::Error) -> StoreError {
        // Room that was set aside is below every limit on the length of a file.
        if !is_full(&error) || error.kind() == std::io::ErrorKind::FileTooLarge {
            return error.into();
        }
        let reason = format!("for the log in {}: {error}", self.disk.place());
        StoreError::NoSpace { reason }
    }

    fn begin_segment(&self, writer: &mut Writer, segment: Segment) -> Result<()> {
        let header = segment::Header {
            version: FORMAT_VERSION,
            uuid: self.uuid,
            number: writer.number + 1,
            revision: self.durable(),
            chain: writer.chain,
        };
        let capacity = segment.capacity;
        let Segment { mut file, name, .. } = segment;
        if let Err(error) = file.write_at(0, &header.encode()) {
            let _ = self.disk.remove(&name);
            return Err(self.refused(error));
        }
        name_segment(&*self.disk, &mut *file, &name, header.number)?;
        writer.file = file;
        writer.number += 1;
        writer.offset = HEADER_LEN as u64;
        writer.capacity = capacity;
        self.bytes.fetch_add(writer.offset, Ordering::Relaxed);
        Ok(())
    }
}
