//! Arbitrary bytes as the files of a store. What `fuzz/` feeds them, and tests replay: opening either fails and changes nothing, or
//! gives a store that takes a commit and is the same after it was opened again.
//!
//! Checksums would keep a fuzzer out of all that lies behind them. So the first byte says how much of the input is to be believed: 0
//! takes it as the file, anything else as the contents of batches or blocks, which get the checksums that belong to them.

use std::fmt::Write;
use std::sync::Arc;

use super::disk::Disk;
use super::error::{Result, StoreError};
use super::face::{Op, Store};
use super::log::segment_name;
use super::mem_disk::MemDisk;
use super::segment::{self, BATCH_HEADER_LEN, FORMAT_VERSION};
use super::{Attributes, Selector, Span, snapshot};

const UUID: segment::Uuid = [7; 16];
/// The first segment is a 256th of this.
const SEGMENT_BYTES: u64 = 256 * 1024;

/// `input` as the log of a directory without a snapshot.
pub fn log(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let disk = MemDisk::default();
    let file = if *how == 0 {
        rest.to_vec()
    } else {
        sealed_log(rest)
    };
    disk.put(&segment_name(1), file);
    check(&disk);
}

/// `input` as a snapshot before an empty log.
pub fn snapshot(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let disk = MemDisk::default();
    let header = snapshot::Header {
        version: FORMAT_VERSION,
        uuid: UUID,
        revision: 1 + u64::from(rest.first().copied().unwrap_or_default()),
        floor: u64::from(rest.get(1).copied().unwrap_or_default()),
        segment: 1,
        chain: 0,
        count: 0,
    };
    let start = segment::Header {
        version: FORMAT_VERSION,
        uuid: UUID,
        number: 1,
        revision: header.revision,
        chain: 0,
    };
    disk.put(&segment_name(1), start.encode());
    let file = if *how == 0 {
        rest.to_vec()
    } else {
        let parts = parts(rest.get(2..).unwrap_or_default());
        snapshot::sealed(&header, &parts)
    };
    disk.put(&snapshot::name(header.revision), file);
    check(&disk);
}

fn sealed_log(rest: &[u8]) -> Vec<u8> {
    let header = segment::Header {
        version: FORMAT_VERSION,
        uuid: UUID,
        number: 1,
        revision: 1,
        chain: 0,
    };
    let mut file = header.encode();
    let mut chain = 0;
    for (number, part) in parts(rest) {
        let mut batch = vec![0; BATCH_HEADER_LEN];
        batch.extend_from_slice(part);
        if let Ok(sum) = segment::seal(&mut batch, number == 3, &UUID, chain) {
            chain = sum;
        }
        file.extend_from_slice(&batch);
    }
    file
}

/// Cut the input into parts of 1 to 64 bytes, each behind a byte that says how long it is and has a number from 0 to 3.
fn parts(mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((first, behind)) = rest.split_first() {
        let length = usize::from(first >> 2) + 1;
        let (part, behind) = behind.split_at_checked(length).unwrap_or((behind, &[]));
        found.push((first & 3, part));
        rest = behind;
    }
    found
}

fn check(disk: &MemDisk) {
    let files = |disk: &MemDisk| -> Vec<_> {
        let names = disk.list().unwrap_or_default();
        names
            .into_iter()
            .map(|name| disk.read(&name).ok())
            .collect()
    };
    let before = files(disk);
    let store = match opened(disk) {
        Ok(store) => store,
        Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => {
            assert!(before == files(disk), "a refusal has changed files");
            return;
        }
        Err(error) => unreachable!("{error}"),
    };
    let op = Op {
        key: b"/after",
        value: Some(b"{}"),
        expected: None,
        splice_at: None,
        attributes: Attributes::default(),
    };
    let committed = store.commit(vec![op]);
    assert!(committed.is_ok(), "{committed:?}");
    let flushed = store.flush();
    assert!(flushed.is_ok(), "{flushed:?}");
    store.publish(u64::MAX);
    let again = opened(&disk.crashed(|_, durable, _| durable.to_vec()));
    let again = again.map(|again| dump(&again));
    assert_eq!(again.ok(), Some(dump(&store)));
    let saved = store.snapshot();
    assert!(saved.is_ok(), "{saved:?}");
    let again = opened(&disk.crashed(|_, durable, _| durable.to_vec()));
    let again = again.map(|again| dump(&again));
    assert_eq!(again.ok(), Some(dump(&store)), "after a snapshot");
}

fn opened(disk: &MemDisk) -> Result<Store> {
    Store::open_on(Arc::new(disk.clone()), SEGMENT_BYTES)
}

/// Leases, what is there, and what a watch from the floor on is told.
fn dump(store: &Store) -> String {
    let (floor, revision) = (store.compacted(), store.revision());
    let mut out = format!("{floor} {revision} {:?}\n", store.leases());
    let everything = Span::prefix(b"");
    for at in [floor, 0] {
        let items = store.span(&everything, 0, at).map(|page| page.items);
        for item in items.unwrap_or_default() {
            let numbers = (item.created, item.modified, item.version, item.lease);
            let _ = writeln!(out, "{:?} {:?} {numbers:?}", item.key, item.value());
        }
    }
    if let Ok(id) = store.watch(b"", floor, Selector::default(), None) {
        for (kind, event) in store
            .poll(id, usize::MAX)
            .map_or(vec![], |poll| poll.events)
        {
            let _ = writeln!(out, "{kind:?} {:?} {}", event.new.key, event.revision());
        }
        store.unwatch(id);
    }
    out
}
