//! Room on the disk for the log's next segments, set aside before anybody needs it.
//!
//! When half of a segment is used a thread makes the next one ready. While batches are small, as with few writers, it also fills
//! it with zeros: a sync then takes half as long, since the file system has nothing to note down. Large batches do not gain by
//! that, and writing everything twice would cost them more, so for them the room is only set aside. Segments begin short and
//! double, so that a small store stays small; where there is no room for a long one, a short one will do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile, is_full};
use super::error::{Result, StoreError};
use super::lock;
use super::log::{Segment, segment_name};
use super::segment;

/// The first segment is this part of a full one.
const FIRST_PART: u64 = 256;
/// Segments up to this length are filled at once.
const FILLED_AT_ONCE: u64 = 256 << 10;
/// Below this many bytes a batch, on average, filling pays.
const SMALL_BATCH: u64 = 8 << 10;
/// How much is filled at a time later, and synced.
const PIECE: u64 = 256 << 10;
/// How long a full disk is not asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// What a file is called until it is a segment.
const UNUSED: &str = "room-";

#[derive(Debug)]
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    ready: Mutex<Ready>,
    wake: Condvar,
    /// Moving average of the length of batches.
    batch_bytes: AtomicU64,
}

#[derive(Debug)]
struct Ready {
    segment: Option<Segment>,
    /// How long the next one will be.
    next_bytes: u64,
    made: u64,
    is_wanted: bool,
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
    /// When a full disk was last asked, and what it said.
    refused: Option<(Instant, String)>,
}

/// Whether a file is room that no segment uses.
pub(crate) fn is_room(name: &str) -> bool {
    name.starts_with(UNUSED)
}

pub(crate) fn first_bytes(segment_bytes: u64) -> u64 {
    segment_bytes / FIRST_PART
}

impl Room {
    /// Behind a segment of `current_bytes`.
    pub(crate) fn new(disk: Arc<dyn Disk>, segment_bytes: u64, current_bytes: u64) -> Self {
        let next_bytes = current_bytes.max(first_bytes(segment_bytes)) * 2;
        Room {
            ready: Mutex::new(Ready {
                segment: None,
                next_bytes: next_bytes.min(segment_bytes),
                made: 0,
                is_wanted: false,
                thread: None,
                is_closed: false,
                refused: None,
            }),
            wake: Condvar::new(),
            batch_bytes: AtomicU64::new(0),
            disk,
            segment_bytes,
        }
    }

    /// A segment of at least `needed` bytes. Fails with NoSpace when the disk has no room for it now.
    pub(crate) fn segment(&self, needed: u64) -> Result<Segment> {
        let mut ready = lock(&self.ready);
        if ready
            .segment
            .as_ref()
            .is_some_and(|one| one.capacity >= needed)
            && let Some(segment) = ready.segment.take()
        {
            ready.refused = None;
            return Ok(segment);
        }
        if let Some((when, reason)) = &ready.refused
            && when.elapsed() < PAUSE
        {
            return Err(StoreError::NoSpace {
                reason: reason.clone(),
            });
        }
        let name = ready.name();
        let made = self.set_aside(name, ready.next_bytes, needed);
        ready.took(&made, self.segment_bytes);
        ready.refused = match &made {
            Err(StoreError::NoSpace { reason }) => Some((Instant::now(), reason.clone())),
            _ => None,
        };
        made
    }

    /// Why the disk had no room for a segment, None since it had. Asks it again, though not all the time.
    pub(crate) fn refusal(&self) -> Option<String> {
        let mut ready = lock(&self.ready);
        if ready.segment.is_some() {
            ready.refused = None;
        }
        let (when, reason) = ready.refused.clone()?;
        if when.elapsed() < PAUSE {
            return Some(reason);
        }
        let name = ready.name();
        let made = self.set_aside(name, ready.next_bytes, 0);
        ready.took(&made, self.segment_bytes);
        match made {
            Ok(segment) => {
                ready.refused = None;
                ready.segment.get_or_insert(segment);
                None
            }
            Err(error) => {
                ready.refused = Some((Instant::now(), reason));
                Some(error.to_string())
            }
        }
    }

    /// Take note of a batch that ended at `offset` of a segment of `capacity`.
    pub(crate) fn used(self: &Arc<Self>, offset: u64, capacity: u64, batch: usize) {
        let before = self.batch_bytes.load(Ordering::Relaxed);
        let average = before - before / 8 + batch as u64 / 8;
        self.batch_bytes.store(average, Ordering::Relaxed);
        if offset < capacity / 2 || !self.disk.is_prepared_ahead() {
            return;
        }
        let mut ready = lock(&self.ready);
        if ready.segment.is_some() || ready.is_wanted || ready.is_closed {
            return;
        }
        ready.is_wanted = true;
        self.wake.notify_one();
        if ready.thread.is_none() {
            let room = self.clone();
            let thread = std::thread::Builder::new().name("store-room".into());
            ready.thread = thread.spawn(move || room.prepare()).ok();
        }
    }

    /// Give unused room back. When this returns the thread has ended, so that nobody touches a directory that is another's by then.
    pub(crate) fn close(&self) {
        let mut ready = lock(&self.ready);
        ready.is_closed = true;
        let unused = ready.segment.take();
        let thread = ready.thread.take();
        drop(ready);
        self.wake.notify_one();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        if let Some(unused) = unused {
            let _ = self.disk.remove(&unused.name);
        }
    }

    /// Room of `wanted` bytes or, on a disk that is nearly full, of less, but of `needed` in any case.
    fn set_aside(&self, name: String, wanted: u64, needed: u64) -> Result<Segment> {
        let least = first_bytes(self.segment_bytes).max(needed);
        let mut capacity = wanted.max(least);
        loop {
            match set_aside(&*self.disk, name.clone(), capacity) {
                Err(StoreError::NoSpace { .. }) if capacity > least => {
                    capacity = (capacity / 2).max(least);
                }
                made => return made,
            }
        }
    }

    /// The thread: make one segment ready whenever one is wanted. A full disk is found out by whoever needs the room.
    fn prepare(&self) {
        let mut ready = lock(&self.ready);
        while !ready.is_closed {
            if !ready.is_wanted {
                ready = self
                    .wake
                    .wait(ready)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (capacity, name) = (ready.next_bytes, ready.name());
            drop(ready);
            let made = self.set_aside(name, capacity, 0);
            ready = lock(&self.ready);
            ready.took(&made, self.segment_bytes);
            ready.is_wanted = false;
            match made {
                Ok(segment) if ready.is_closed => drop(self.disk.remove(&segment.name)),
                Ok(segment) => {
                    let capacity = segment.capacity;
                    let again = self.disk.reopen(&segment.name);
                    ready.segment = Some(segment);
                    drop(ready);
                    if let Ok(again) = again {
                        self.fill(capacity, again);
                    }
                    ready = lock(&self.ready);
                }
                Err(_) => {}
            }
        }
    }

    /// Fill the segment that is ready with zeros, piece by piece, while batches are small and until somebody takes it: what has not
    /// been reached serves as well, only slower. `again` is the same file, because who takes the segment must not wait for a sync.
    fn fill(&self, capacity: u64, mut again: Box<dyn DiskFile>) {
        if capacity <= FILLED_AT_ONCE {
            return;
        }
        for offset in (0..capacity).step_by(PIECE as usize) {
            let mut ready = lock(&self.ready);
            let is_worth_it = self.batch_bytes.load(Ordering::Relaxed) < SMALL_BATCH;
            let Some(segment) = &mut ready.segment else {
                return;
            };
            let end = capacity.min(offset + PIECE);
            if !is_worth_it || segment.file.zero(offset, end).is_err() {
                return;
            }
            drop(ready);
            let began = Instant::now();
            if again.sync().is_err() {
                return;
            }
            // Those who write have the disk for as long.
            std::thread::sleep(began.elapsed());
        }
    }
}

impl Ready {
    /// A name for the next segment until it is one.
    fn name(&mut self) -> String {
        self.made += 1;
        format!("{UNUSED}{}", self.made)
    }

    /// The next segment will be twice as long as this one, and `most` at most.
    fn took(&mut self, made: &Result<Segment>, most: u64) {
        if let Ok(segment) = made {
            self.next_bytes = (segment.capacity * 2).min(most);
        }
    }
}

fn set_aside(disk: &dyn Disk, name: String, capacity: u64) -> Result<Segment> {
    let made = disk.create(&name).and_then(|mut file| {
        file.allocate(capacity)?;
        if capacity <= FILLED_AT_ONCE {
            file.zero(0, capacity)?;
        }
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Segment {
            file,
            name,
            capacity,
        }),
        Err(error) => {
            let _ = disk.remove(&name);
            if is_full(&error) {
                let reason = format!("{capacity} bytes for the log in {}: {error}", disk.place());
                return Err(StoreError::NoSpace { reason });
            }
            Err(error.into())
        }
    }
}

/// Make a segment at once, for a log that begins.
pub(crate) fn first_segment(
    disk: &dyn Disk,
    header: &segment::Header,
    segment_bytes: u64,
) -> Result<(Box<dyn DiskFile>, u64)> {
    let needed = segment::HEADER_LEN as u64;
    let capacity = first_bytes(segment_bytes).max(needed);
    let segment = set_aside(disk, format!("{UNUSED}0"), capacity)?;
    let Segment { mut file, name, .. } = segment;
    file.write_at(0, &header.encode())?;
    name_segment(disk, &mut *file, &name, header.number)?;
    Ok((file, capacity))
}

/// Make room, in which a header is written, segment `number`; it has its name only once its header is durable.
pub(crate) fn name_segment(
    disk: &dyn Disk,
    file: &mut dyn DiskFile,
    name: &str,
    number: u64,
) -> Result<()> {
    file.sync()?;
    disk.rename(name, &segment_name(number))?;
    disk.sync_directory()?;
    Ok(())
}
