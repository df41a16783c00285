//! What operators do with a store's files: a backup while it is in use, a directory out of a backup, and a look at either that changes
//! nothing.
//!
//! A backup is a snapshot in the format of those that replace the log, of the state at one revision and without history, under a
//! uuid of its own; so a backup and a directory restored from it are checked by the same checksums as any other.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, RealDisk};
use super::error::{Result, StoreError};
use super::face::Store;
use super::mem_disk::MemDisk;
use super::room::first_segment;
use super::segment::{self, FORMAT_VERSION};
use super::{read, recovery, snapshot};

/// Keys that a step of a backup looks at while it holds the state.
const STEP: usize = 1_000;
/// Backups that compaction may overtake before we give up.
const TRIES: usize = 3;

impl Store {
    /// Write everything published, as of one revision, into a new file of `directory`; return the revision and the file's name.
    /// Blocks on the disk; writers go on.
    pub fn backup_into(&self, directory: &Path) -> Result<(u64, String)> {
        let disk = RealDisk::new(directory)?;
        let mut last = self.backup_on(&disk);
        for _ in 1..TRIES {
            match last {
                Err(StoreError::Compacted { .. }) => last = self.backup_on(&disk),
                other => return other,
            }
        }
        last
    }

    fn backup_on(&self, disk: &dyn Disk) -> Result<(u64, String)> {
        let state = read(&self.core.state);
        let revision = state.keys.published;
        let leases = state.keys.leases.list();
        drop(state);
        let header = snapshot::Header {
            version: FORMAT_VERSION,
            uuid: disk.entropy()?,
            revision,
            floor: revision,
            segment: 1,
            chain: 0,
            count: 0,
        };
        let mut saving = snapshot::Saving::begin(disk, header)?;
        saving.put_leases(&leases)?;
        let mut after = None;
        loop {
            let state = read(&self.core.state);
            // What was superseded since may have been forgotten.
            if state.keys.floor > revision {
                return Err(StoreError::Compacted {
                    revision,
                    floor: state.keys.floor,
                });
            }
            let (states, last) = state
                .keys
                .retained(after.as_ref(), STEP, revision, revision);
            drop(state);
            after = last;
            if after.is_none() {
                break;
            }
            saving.put(&states)?;
        }
        saving.finish()?;
        Ok((revision, snapshot::name(revision)))
    }

    /// Read a directory that no process uses, or a backup, down to the last checksum, into memory. Nothing is changed, and nothing
    /// that is written to the store is kept. Fails with Corrupt, Locked.
    pub fn inspect(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let disk = Arc::new(ReadOnly::new(RealDisk::new(path)?));
            for name in disk.list()? {
                if snapshot::revision_in(&name).is_some() {
                    snapshot::load(&*disk, &name, drop)?;
                }
            }
            return Store::open_on(disk, super::log::SEGMENT_BYTES);
        }
        let store = Store::in_memory();
        let (disk, name) = parted(path)?;
        let (_, keys) = recovery::restored(&disk, &name)?;
        let mut state = super::write(&store.core.state);
        state.keys = keys;
        store.core.note_published(&state);
        drop(state);
        Ok(store)
    }
}

/// Make `directory`, which must hold no store yet, out of the backup at `file`; return its revision. Fails with Corrupt, Invalid.
pub fn restore(file: &Path, directory: &Path) -> Result<u64> {
    let (source, name) = parted(file)?;
    let loaded = snapshot::load(&source, &name, drop)?;
    let header = loaded.header;
    if header.segment != 1 {
        let text = format!(
            "{} is a snapshot of a running store, not a backup",
            file.display()
        );
        return Err(StoreError::Invalid(text));
    }
    let disk = RealDisk::new(directory)?;
    disk.lock()?;
    let written = write_files(&disk, file, &header);
    disk.unlock();
    written?;
    let (keys, log) = recovery::open(Arc::new(disk), super::log::SEGMENT_BYTES)?;
    log.close();
    Ok(keys.applied)
}

fn write_files(disk: &RealDisk, file: &Path, header: &snapshot::Header) -> Result<()> {
    if let Some(name) = disk.list()?.first() {
        let text = format!("{} is not empty: it holds {name}", disk.place());
        return Err(StoreError::Invalid(text));
    }
    let start = segment::Header {
        version: FORMAT_VERSION,
        uuid: header.uuid,
        number: header.segment,
        revision: header.revision,
        chain: header.chain,
    };
    first_segment(disk, &start, super::log::SEGMENT_BYTES)?;
    // The snapshot appears last and whole: before that the directory is that of an empty store.
    let mut target = disk.create(snapshot::UNFINISHED)?;
    let mut source = std::fs::File::open(file)?;
    let mut piece = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let count = source.read(&mut piece)?;
        if count == 0 {
            break;
        }
        target.write_at(offset, piece.get(..count).unwrap_or_default())?;
        offset += count as u64;
    }
    target.sync()?;
    disk.rename(snapshot::UNFINISHED, &snapshot::name(header.revision))?;
    disk.sync_directory()?;
    Ok(())
}

/// The directory of a file, and its name there.
fn parted(file: &Path) -> Result<(RealDisk, String)> {
    let file = file.canonicalize()?;
    match (
        file.parent(),
        file.file_name().and_then(|name| name.to_str()),
    ) {
        (Some(parent), Some(name)) => Ok((RealDisk::new(parent)?, name.into())),
        _ => Err(StoreError::Invalid(format!(
            "{} is no file",
            file.display()
        ))),
    }
}

/// A disk that is read and, for all that is to be written, stays as it is.
#[derive(Debug)]
struct ReadOnly {
    real: RealDisk,
    scratch: MemDisk,
}

impl ReadOnly {
    fn new(real: RealDisk) -> Self {
        let scratch = MemDisk::default();
        ReadOnly { real, scratch }
    }
}

impl Disk for ReadOnly {
    fn place(&self) -> String {
        self.real.place()
    }

    fn lock(&self) -> Result<()> {
        self.real.lock()
    }

    fn unlock(&self) {
        self.real.unlock();
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn read_into(&self, name: &str, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.real.read_into(name, bytes)
    }

    fn stream(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.real.stream(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.scratch.create(name)
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.scratch.create(name)
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.real.entropy()
    }
}
