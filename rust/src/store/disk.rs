//! The few things the log asks of a disk, and a directory of real files that does them.
//!
//! Everything above this seam also runs on `MemDisk`, which can lose whatever was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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

    /// Write zeros up to `length`. Syncing a write over them is twice as fast as into room that was only set aside, because the
    /// file system has nothing to note down.
    fn fill(&mut self, length: u64) -> io::Result<()> {
        for offset in (0..length).step_by(ZEROS.len()) {
            let rest = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let piece = ZEROS.get(..rest).unwrap_or(ZEROS);
            self.write_at(offset, piece)?;
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
        Ok(Box::new(RealFile(File::create(self.path(name))?)))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
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
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Not every file system can; there, zeros keep the room.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let written = self.0.metadata()?.len();
                for offset in (written..length).step_by(ZEROS.len()) {
                    let rest = usize::try_from(length - offset).unwrap_or(usize::MAX);
                    self.write_at(offset, ZEROS.get(..rest).unwrap_or(ZEROS))?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
