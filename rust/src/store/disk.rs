//! The few things the log asks of a disk, and a directory of real files that does them.
//!
//! Everything above this seam also runs on `MemDisk`, which can lose whatever was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::error::{Result, StoreError};
use super::lock;

/// One flat directory. Names that appear, move or vanish are durable only after `sync_directory`.
pub trait Disk: Debug + Send + Sync {
    /// Where this is, for messages.
    fn place(&self) -> String;
    /// Keep other processes out until `unlock`. Fails with Locked when another one is in.
    fn lock(&self) -> Result<()>;
    fn unlock(&self);
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Read a whole file in place of what is in `bytes`.
    fn read_into(&self, name: &str, bytes: &mut Vec<u8>) -> io::Result<()>;
    /// Read a long file piece by piece.
    fn stream(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    /// Make `name`, or empty it.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Open `name` to write into it.
    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Remove a file that may be long, without keeping the disk from others for long. What a crash leaves of it is called `RETIRED`.
    fn retire(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()>;
    /// Random bytes that name a new store.
    fn entropy(&self) -> io::Result<[u8; 16]>;
    /// Whether a thread should make segments ahead of their use.
    fn is_prepared_ahead(&self) -> bool {
        false
    }
}

/// A file open for writing.
pub trait DiskFile: Debug + Send {
    /// Write at `offset`, lengthening the file with zeros up to there if need be.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Make the file at least `length` bytes long and set aside the room for them, so that writing there cannot lack space.
    fn allocate(&mut self, length: u64) -> io::Result<()>;
    /// Cut the file to `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Return when everything written is durable. After an error nothing is known about what is.
    fn sync(&mut self) -> io::Result<()>;

    /// Called after each part of a long file that nobody waits for: makes durable what was written, a piece at a time, and then
    /// lets others have the disk for as long as that took. Written back all at once, a gibibyte would hold up every sync of the log.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Write zeros from `offset` up to `end`. Syncing a write over them is twice as fast as into room that was only set aside,
    /// because the file system has nothing to note down.
    fn zero(&mut self, offset: u64, end: u64) -> io::Result<()> {
        for offset in (offset..end).step_by(ZEROS.len()) {
            let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
            self.write_at(offset, ZEROS.get(..rest).unwrap_or(ZEROS))?;
        }
        Ok(())
    }
}

/// Whether a write failed for want of space, which may come back, and not because the disk is broken.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

static ZEROS: &[u8] = &[0; 256 << 10];

/// What a file is called while it is removed piece by piece.
pub(crate) const RETIRED: &str = "retired.tmp";

/// How much of a long file is written, or removed, at a time.
const PIECE: u64 = 1 << 20;
const REMOVED_PIECE: u64 = 16 << 20;

/// The unit in which the page cache keeps a file, when it is written in no larger parts.
const PAGE: u64 = 4 << 10;

const LOCK_FILE: &str = "lock";

/// A directory of the file system, kept for one process by flock on a file in it.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    held: Mutex<Option<File>>,
}

impl RealDisk {
    /// Use `directory`, made if missing.
    pub fn new(directory: &Path) -> io::Result<Self> {
        if !directory.is_dir() {
            std::fs::create_dir_all(directory)?;
            if let Some(parent) = directory.canonicalize()?.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(RealDisk {
            directory: directory.to_path_buf(),
            held: Mutex::new(None),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn lock(&self) -> Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => {
                *lock(&self.held) = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                directory: self.place(),
            }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn unlock(&self) {
        *lock(&self.held) = None;
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn read_into(&self, name: &str, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        File::open(self.path(name))?.read_to_end(bytes).map(|_| ())
    }

    fn stream(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile::new(File::create(self.path(name))?)))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn retire(&self, name: &str) -> io::Result<()> {
        // Whoever looks at the directory should not take what is left for damage.
        self.rename(name, RETIRED)?;
        let file = OpenOptions::new().write(true).open(self.path(RETIRED))?;
        let mut length = file.metadata()?.len();
        while length > REMOVED_PIECE {
            length -= REMOVED_PIECE;
            let began = Instant::now();
            file.set_len(length)?;
            file.sync_data()?;
            std::thread::sleep(began.elapsed());
        }
        self.remove(RETIRED)
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn is_prepared_ahead(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Bytes written since the last sync.
    unsettled: u64,
}

impl RealFile {
    fn new(file: File) -> Self {
        RealFile { file, unsettled: 0 }
    }
}

impl DiskFile for RealFile {
    /// A long write stands in the page cache as one folio, which is written back as a whole even when a byte of it changes. So the
    /// page in which this write ends, and the next one begins, is written by itself: a log of small batches would otherwise write
    /// many times its length.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.unsettled += length;
        let end = offset + length;
        let last_page = end - end % PAGE;
        let whole = last_page.saturating_sub(offset).min(length) as usize;
        let (whole, tail) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
        if !whole.is_empty() {
            self.file.write_all_at(whole, offset)?;
        }
        if !tail.is_empty() {
            self.file.write_all_at(tail, end - tail.len() as u64)?;
        }
        Ok(())
    }

    /// Page by page, so that a later write into a page does not write back its neighbours.
    fn zero(&mut self, offset: u64, end: u64) -> io::Result<()> {
        let mut offset = offset;
        while offset < end {
            let next = (offset - offset % PAGE + PAGE).min(end);
            let zeros = ZEROS.get(..(next - offset) as usize).unwrap_or(ZEROS);
            self.file.write_all_at(zeros, offset)?;
            offset = next;
        }
        Ok(())
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Not every file system can; there, zeros keep the room.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero(self.file.metadata()?.len(), length),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsettled = 0;
        self.file.sync_data()
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.unsettled < PIECE {
            return Ok(());
        }
        let began = Instant::now();
        self.sync()?;
        std::thread::sleep(began.elapsed());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> RealDisk {
        let directory = std::env::temp_dir().join(format!("korch-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        RealDisk::new(&directory).unwrap()
    }

    #[test]
    fn writes_of_any_length_at_any_offset_stand_where_they_were_put() {
        let disk = scratch("writes");
        let page = PAGE as usize;
        let mut file = disk.create("file").unwrap();
        let mut expected = Vec::new();
        let lengths = [
            52,
            1,
            page - 53,
            page,
            3 * page,
            5,
            7 * page + 1,
            page - 6,
            100,
        ];
        for (number, length) in lengths.into_iter().enumerate() {
            let bytes = vec![number as u8 + 1; length];
            file.write_at(expected.len() as u64, &bytes).unwrap();
            expected.extend(bytes);
        }
        file.zero(page as u64 - 3, 2 * page as u64 + 5).unwrap();
        expected[page - 3..2 * page + 5].fill(0);
        file.settle().unwrap();
        file.sync().unwrap();
        let mut found = Vec::new();
        disk.read_into("file", &mut found).unwrap();
        assert_eq!(found, expected);
        std::fs::remove_dir_all(&disk.directory).unwrap();
    }

    #[test]
    fn a_file_that_is_retired_is_gone_however_long_it_was() {
        let disk = scratch("retired");
        for length in [0, REMOVED_PIECE, 3 * REMOVED_PIECE + 1] {
            let file = disk.create("file").unwrap();
            File::options()
                .write(true)
                .open(disk.path("file"))
                .and_then(|file| file.set_len(length))
                .unwrap();
            drop(file);
            disk.retire("file").unwrap();
            assert_eq!(disk.list().unwrap(), Vec::<String>::new(), "{length}");
        }
        assert!(disk.retire("file").is_err());
        std::fs::remove_dir_all(&disk.directory).unwrap();
    }
}
