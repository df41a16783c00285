//! A disk in memory that knows what would survive a power cut: bytes that were synced, under names whose directory was synced.
//! It can fail syncs, hold them back, be full, and copy on writing, so that even room that was set aside runs out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::disk::{Disk, DiskFile};
use super::error::Result;
use super::lock;

/// Cheap to clone: clones share the disk.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    inner: Arc<Mutex<Inner>>,
    /// Held by whoever wants syncs to wait.
    gate: Arc<Mutex<()>>,
}

type File = Arc<Mutex<Bytes>>;

#[derive(Debug, Default)]
struct Inner {
    live: BTreeMap<String, File>,
    durable: BTreeMap<String, File>,
    fails_sync: bool,
    syncs: u64,
    /// Bytes that all files together may have, None for no limit.
    space: Option<u64>,
    /// Bytes that can still be written anywhere, None for no limit.
    copies: Option<u64>,
}

#[derive(Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
}

impl MemDisk {
    /// What a power cut leaves: `survive` says for each durable name what becomes of its bytes, given (durable, live).
    pub fn crashed(&self, mut survive: impl FnMut(&str, &[u8], &[u8]) -> Vec<u8>) -> MemDisk {
        let after = MemDisk::default();
        for (name, file) in &lock(&self.inner).durable {
            let file = lock(file);
            after.put(name, survive(name, &file.durable, &file.live));
        }
        after
    }

    /// Write a whole file, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(Mutex::new(Bytes {
            live: bytes.clone(),
            durable: bytes,
        }));
        let mut inner = lock(&self.inner);
        inner.live.insert(name.into(), file.clone());
        inner.durable.insert(name.into(), file);
    }

    /// From now on every sync of a file fails.
    pub fn fail_syncs(&self) {
        lock(&self.inner).fails_sync = true;
    }

    /// Syncs wait while the guard of this mutex is held.
    pub fn gate(&self) -> &Mutex<()> {
        &self.gate
    }

    /// From now on all files together have room for `bytes`, None for any number.
    pub fn set_space(&self, bytes: Option<u64>) {
        lock(&self.inner).space = bytes;
    }

    /// From now on every write takes room of its own, as on file systems that copy on writing: the next `bytes` bytes find some. A
    /// write that does not is made in part. None: no limit.
    pub fn set_copies(&self, bytes: Option<u64>) {
        lock(&self.inner).copies = bytes;
    }

    /// A whole file.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(lock(&*self.file(name)?).live.clone())
    }

    /// What `set_space` set.
    pub fn space(&self) -> Option<u64> {
        lock(&self.inner).space
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        let files = lock(&self.inner);
        files
            .live
            .values()
            .map(|file| lock(file).live.len() as u64)
            .sum()
    }

    fn lengthen(&self, file: &File, length: u64) -> io::Result<()> {
        let missing = length.saturating_sub(lock(file).live.len() as u64);
        let space = lock(&self.inner).space;
        if missing > 0 && space.is_some_and(|space| self.used() + missing > space) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if missing > 0 {
            lock(file).live.resize(length as usize, 0);
        }
        Ok(())
    }

    /// How many files were synced.
    pub fn syncs(&self) -> u64 {
        lock(&self.inner).syncs
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let found = lock(&self.inner).live.get(name).cloned();
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for MemDisk {
    fn place(&self) -> String {
        "memory".into()
    }

    fn lock(&self) -> Result<()> {
        Ok(())
    }

    fn unlock(&self) {}

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.inner).live.keys().cloned().collect())
    }

    fn read_into(&self, name: &str, bytes: &mut Vec<u8>) -> io::Result<()> {
        *bytes = self.read(name)?;
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = File::default();
        lock(&self.inner).live.insert(name.into(), file.clone());
        Ok(Box::new(MemFile {
            disk: self.clone(),
            file,
        }))
    }

    fn stream(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.read(name)?)))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.file(name)?;
        Ok(Box::new(MemFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.file(from)?;
        let mut inner = lock(&self.inner);
        inner.live.remove(from);
        inner.live.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.file(name)?;
        lock(&self.inner).live.remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        inner.durable = inner.live.clone();
        Ok(())
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        Ok(*b"a store in memry")
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: File,
}

impl DiskFile for MemFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = lock(&self.disk.inner);
        let room = inner.copies.map_or(bytes.len(), |left| left as usize);
        inner.copies = inner
            .copies
            .map(|left| left.saturating_sub(bytes.len() as u64));
        drop(inner);
        let written = bytes.get(..room).unwrap_or(bytes);
        let end = offset as usize + written.len();
        self.disk.lengthen(&self.file, end as u64)?;
        if let Some(place) = lock(&self.file).live.get_mut(offset as usize..end) {
            place.copy_from_slice(written);
        }
        if written.len() < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        self.disk.lengthen(&self.file, length)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        lock(&self.file).live.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(lock(&self.disk.gate));
        let mut inner = lock(&self.disk.inner);
        if inner.fails_sync {
            return Err(io::Error::other("simulated failure of fdatasync"));
        }
        inner.syncs += 1;
        let mut file = lock(&self.file);
        file.durable = file.live.clone();
        Ok(())
    }
}
