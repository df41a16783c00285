//! Power cuts at every byte, torn sectors, flipped bits, failing syncs, full disks.

use super::*;
use crate::store::segment::{BATCH_HEADER_LEN, HEADER_LEN};

/// A log of several batches, some of several commits, and the state after each: (length of the log, dump).
pub(super) fn history(store: &Store) -> Vec<(usize, String)> {
    let length = || store.stats()["log_bytes"] as usize;
    let mut states = vec![(length(), dump(store))];
    for round in 0..6 {
        store
            .commit(vec![put("/pods/a/x", None, on_node(&format!("n{round}")))])
            .unwrap();
        store
            .commit(vec![
                put(&format!("/pods/b/{round}"), Some(0), on_node("")),
                put("/nodes/n1", None, on_node("")),
            ])
            .unwrap();
        if round == 4 {
            store
                .commit(vec![delete("/pods/a/x"), delete("/pods/b/2")])
                .unwrap();
        }
        publish(store);
        states.push((length(), dump(store)));
    }
    states
}

pub(super) const FIRST: &str = "log-0000000000000001";

pub(super) fn one_segment() -> (MemDisk, Store) {
    let disk = MemDisk::default();
    // The first segment is a 256th of this, which holds all that these tests write.
    let store = Store::open_on(Arc::new(disk.clone()), 256 * 4096).unwrap();
    (disk, store)
}

#[test]
fn a_log_cut_at_any_byte_recovers_exactly_the_batches_that_are_whole() {
    let (disk, store) = one_segment();
    let states = history(&store);
    let bytes = disk.read(FIRST).unwrap();
    let used = states[states.len() - 1].0;
    assert!(used < bytes.len(), "there is room left");
    for cut in 0..=used {
        let mut zeroed = bytes[..cut].to_vec();
        zeroed.resize(bytes.len(), 0);
        for left in [bytes[..cut].to_vec(), zeroed] {
            // A header that is incomplete in a file of full length was never given its name.
            if cut < HEADER_LEN && left.len() > cut {
                continue;
            }
            // Bytes that were zero anyway are not missed.
            let whole = |length: &usize| left.get(..*length) == bytes.get(..*length);
            let found = states.iter().rev().find(|(length, _)| whole(length));
            let (_, expected) = found.unwrap_or(&states[0]);
            let after = MemDisk::default();
            after.put(FIRST, left.clone());
            let recovered = on(&after).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!(&dump(&recovered), expected, "cut at {cut}");
            recovered
                .commit(vec![put("/after", Some(0), on_node(""))])
                .unwrap();
            publish(&recovered);
            let crashed = after.crashed(|_, durable, _| durable.to_vec());
            assert_eq!(
                dump(&on(&crashed).unwrap()),
                dump(&recovered),
                "cut at {cut}, then written"
            );
        }
    }
}

#[test]
fn a_power_cut_that_tears_the_unsynced_batch_loses_nothing_that_was_flushed() {
    let (disk, store) = one_segment();
    history(&store);
    let flushed = dump(&store);
    for round in 0..8 {
        store
            .commit(vec![put(&format!("/pods/c/{round}"), None, on_node("n9"))])
            .unwrap();
    }
    disk.fail_syncs();
    assert!(store.flush().is_err());
    let mut seed = 1u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut whole = 0;
    for _ in 0..500 {
        let after = disk.crashed(|_, durable, live| {
            assert_eq!(durable.len(), live.len(), "the room was there before");
            let mut bytes = durable.to_vec();
            let lost = random() % 4;
            for (kept, written) in bytes.chunks_mut(32).zip(live.chunks(32)) {
                if lost == 0 || random() % 4 >= lost {
                    kept.copy_from_slice(written);
                }
            }
            bytes
        });
        let recovered = on(&after).unwrap();
        if recovered.revision() == store.revision() {
            assert_eq!(dump(&recovered), flushed);
        } else {
            assert_eq!(
                recovered.revision(),
                store.revision() + 8,
                "the batch is there as a whole or not at all"
            );
            whole += 1;
        }
    }
    assert!(whole < 250);
}

#[test]
fn a_flipped_bit_before_the_last_batch_is_refused_with_file_and_offset() {
    let (disk, store) = one_segment();
    let states = history(&store);
    let bytes = disk.read(FIRST).unwrap();
    let last_batch = states[states.len() - 2].0;
    for at in 0..last_batch {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let after = MemDisk::default();
        after.put(FIRST, flipped.clone());
        let batch = states
            .iter()
            .map(|(length, _)| *length)
            .rfind(|length| *length <= at)
            .unwrap_or(0);
        match on(&after) {
            Err(StoreError::Corrupt { file, offset, .. }) => assert_eq!(
                (file.as_str(), offset as usize),
                (FIRST, batch),
                "bit in byte {at}"
            ),
            other => panic!("bit in byte {at}: {other:?}"),
        }
        assert_eq!(
            after.read(FIRST).unwrap(),
            flipped,
            "a refused log is left as it is"
        );
    }
}

#[test]
fn damage_in_an_earlier_segment_a_missing_or_a_misplaced_one_is_refused() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    history(&store);
    let names = disk.list().unwrap();
    assert!(names.len() >= 3);
    let without = |missing: &str| {
        let after = MemDisk::default();
        for name in names.iter().filter(|name| *name != missing) {
            after.put(name, disk.read(name).unwrap());
        }
        after
    };
    let refused = |disk: &MemDisk| matches!(on(disk), Err(StoreError::Corrupt { .. }));
    assert!(refused(&without(&names[0])));
    assert!(refused(&without(&names[1])));

    let shortened = without("");
    // The first has no room but for its header here, and others none but for their one batch.
    let second = disk.read(&names[1]).unwrap();
    shortened.put(&names[1], second[..second.len() - 1].to_vec());
    assert!(
        refused(&shortened),
        "a whole batch less at the end of a segment that is not the last"
    );

    let emptied = without("");
    emptied.put(&names[1], second[..HEADER_LEN].to_vec());
    assert!(
        refused(&emptied),
        "the segment after it does not continue it"
    );

    let repeated = without("");
    let last = names.last().unwrap();
    let mut bytes = disk.read(last).unwrap();
    let batch = second[HEADER_LEN..].to_vec();
    assert!(batch.len() > BATCH_HEADER_LEN);
    bytes.extend_from_slice(&batch);
    repeated.put(last, bytes);
    assert!(refused(&repeated), "a whole batch from elsewhere");
}

#[test]
fn a_failed_sync_poisons_for_ever_and_shows_nothing_of_what_it_lost() {
    let (disk, store) = one_segment();
    store.commit(vec![put("/a", None, on_node(""))]).unwrap();
    publish(&store);
    store.commit(vec![put("/b", None, on_node(""))]).unwrap();
    disk.fail_syncs();
    for _ in 0..2 {
        assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
    }
    assert!(matches!(
        store.commit(vec![put("/c", None, on_node(""))]),
        Err(StoreError::Poisoned { .. })
    ));
    assert_eq!(store.publish(3), Vec::<u64>::new());
    assert_eq!(
        (store.revision(), store.get(b"/b", 0).unwrap().is_none()),
        (2, true)
    );
}

#[test]
fn a_crash_at_any_point_of_a_snapshot_keeps_everything() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    history(&store);
    store.compact(5).unwrap();
    publish(&store);
    let before: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .map(|name| (disk.read(&name).unwrap(), name))
        .collect();
    let expected = dump(&store);
    store.snapshot().unwrap();
    let after: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .map(|name| (disk.read(&name).unwrap(), name))
        .collect();

    let mixed = MemDisk::default();
    for (bytes, name) in before.iter().chain(&after) {
        mixed.put(name, bytes.clone());
    }
    assert_eq!(
        dump(&on(&mixed).unwrap()),
        expected,
        "renamed, but nothing removed yet"
    );
    assert_eq!(
        mixed.list().unwrap(),
        disk.list().unwrap(),
        "what the snapshot replaces is removed at the next start"
    );

    let unfinished = MemDisk::default();
    for (bytes, name) in &before {
        unfinished.put(name, bytes.clone());
    }
    let (snapshot, _) = after
        .iter()
        .find(|(_, name)| name.starts_with("snapshot"))
        .unwrap();
    unfinished.put("snapshot.tmp", snapshot[..snapshot.len() / 2].to_vec());
    unfinished.put("retired.tmp", snapshot[..snapshot.len() / 3].to_vec());
    assert_eq!(dump(&on(&unfinished).unwrap()), expected, "not renamed yet");
    let left = unfinished.list().unwrap();
    assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{left:?}");
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    history(&store);
    store.snapshot().unwrap();
    let name = disk
        .list()
        .unwrap()
        .into_iter()
        .find(|name| name.starts_with("snapshot"))
        .unwrap();
    let bytes = disk.read(&name).unwrap();
    for at in 0..bytes.len() {
        let after = disk.crashed(|_, _, live| live.to_vec());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        after.put(&name, flipped);
        assert!(
            matches!(on(&after), Err(StoreError::Corrupt { .. })),
            "bit in byte {at}"
        );
        after.put(&name, bytes[..at].to_vec());
        assert!(
            matches!(on(&after), Err(StoreError::Corrupt { .. })),
            "cut at byte {at}"
        );
    }
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let (disk, store) = one_segment();
    store.commit(vec![put("/a", None, on_node(""))]).unwrap();
    publish(&store);
    disk.set_space(Some(disk.used()));
    let mut written = 1;
    let error = loop {
        let key = format!("/b/{written}");
        match store.commit(vec![put(&key, Some(0), on_node("n1"))]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(written > 10, "the room set aside is used up first");
    let now = crate::store::monotonic_ms();
    let refused = (1..1000).find_map(|id| store.lease_grant(id, 1000, now).err());
    assert!(matches!(refused, Some(StoreError::NoSpace { .. })));
    publish(&store);
    assert_eq!(store.stats()["keys"], written, "reads go on");
    assert!(store.snapshot().is_err());
    let id = store.watch(b"", 1, Selector::default(), None).unwrap();
    assert_eq!(
        store.poll(id, usize::MAX).unwrap().events.len() as u64,
        written
    );
    let reopened = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
    assert_eq!(dump(&reopened), dump(&store));

    disk.set_space(None);
    // It is not asked again at once.
    while store.commit(vec![put("/c", Some(0), on_node(""))]).is_err() {
        std::thread::yield_now();
    }
    publish(&store);
    assert_eq!(store.revision(), written + 2);
    while store.snapshot().is_err() {
        std::thread::yield_now();
    }
    let reopened = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
    assert_eq!(dump(&reopened), dump(&store));
}

#[test]
fn a_disk_that_fills_up_at_any_point_loses_nothing_that_was_flushed() {
    for space in (0..3000).step_by(7) {
        let disk = MemDisk::default();
        disk.set_space(Some(space));
        let store = match on(&disk) {
            Ok(store) => store,
            Err(error) => {
                assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
                continue;
            }
        };
        let mut refused = 0;
        for round in 0..30 {
            let key = format!("/pods/a/{}", round % 5);
            let done = match round % 7 {
                6 => store.compact(store.revision()).map(|()| (0, Vec::new())),
                5 => store.snapshot().map(|revision| (revision, Vec::new())),
                _ => store.commit(vec![put(&key, None, on_node("n1"))]),
            };
            refused += u32::from(done.is_err());
            publish(&store);
        }
        assert!(refused > 0 || space > 600);
        disk.set_space(None);
        let reopened = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
        assert_eq!(dump(&reopened), dump(&store), "with {space} bytes");
    }
}

/// As btrfs or ZFS: room that was set aside is no room for a copy.
#[test]
fn where_writing_copies_a_full_disk_takes_back_what_waits_and_is_forgiven_when_there_is_room() {
    let (disk, store) = one_segment();
    store.commit(vec![put("/a", None, on_node(""))]).unwrap();
    publish(&store);
    let before = dump(&store);
    for round in 0..3 {
        let lost = store.revision() + 1 + 2 * round;
        disk.set_copies(Some(20));
        store.commit(vec![put("/a", None, on_node("n1"))]).unwrap();
        store.core_grant(7).unwrap();
        let (last, _) = store
            .commit(vec![put("/b", Some(0), on_node("n1")), delete("/a")])
            .unwrap();
        assert_eq!(last, lost + 1, "revisions are not given twice");
        let refused = store.flush().unwrap_err();
        assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
        for revision in [lost, last] {
            let kept = store.kept(revision);
            assert!(matches!(kept, Err(StoreError::NoSpace { .. })));
        }
        assert!(store.kept(last + 1).is_ok() && store.problem().is_some());
        assert!(store.leases().is_empty(), "the lease went with the rest");
        publish(&store);
        assert_eq!(dump(&store), before);
        let crashed = disk.crashed(|_, _, live| live.to_vec());
        assert_eq!(dump(&on(&crashed).unwrap()), before, "part of a batch");
    }
    disk.set_copies(None);
    let (revision, _) = store
        .commit(vec![put("/a", Some(2), on_node("n2"))])
        .unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    for asked in [revision - 1, revision] {
        let told = told.clone();
        store.when_published(
            asked,
            Box::new(move |done| told.lock().unwrap().push((asked, done.is_ok()))),
        );
    }
    store.flush().unwrap();
    publish(&store);
    while told.lock().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    let told = told.lock().unwrap().clone();
    assert_eq!(told, [(revision - 1, false), (revision, true)]);
    assert_eq!((store.revision(), store.problem()), (revision, None));
    let reopened = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
    assert_eq!(dump(&reopened), dump(&store));
}

#[test]
fn where_writing_copies_a_disk_that_fills_up_at_any_byte_loses_nothing_that_was_flushed() {
    for room in (0..1500).step_by(11) {
        let disk = MemDisk::default();
        let store = on(&disk).unwrap();
        let mut refused = 0;
        for round in 0..40 {
            if round == 3 {
                disk.set_copies(Some(room));
            }
            let key = format!("/pods/a/{}", round % 5);
            let revision = store.revision();
            let made = match round % 9 {
                6 => store.core_grant(round).map(|_| 0),
                7 => store.compact(revision).map(|()| 0),
                8 => store.snapshot(),
                _ => store
                    .commit(vec![put(&key, None, on_node(&"n".repeat(round as usize)))])
                    .map(|(revision, _)| revision),
            };
            let flushed = store.flush();
            refused += u32::from(made.is_err() || flushed.is_err());
            for error in [made.err(), flushed.err()].into_iter().flatten() {
                let is_full = match &error {
                    StoreError::NoSpace { .. } => true,
                    StoreError::Io(error) => error.kind() == std::io::ErrorKind::StorageFull,
                    _ => false,
                };
                assert!(is_full, "{error} with {room} bytes");
            }
            store.publish(u64::MAX);
            let crashed = disk.crashed(|_, _, live| live.to_vec());
            let reopened = on(&crashed).unwrap_or_else(|error| panic!("{error}, {room} bytes"));
            assert!(reopened.revision() >= store.revision());
            if round == 30 {
                disk.set_copies(None);
            }
        }
        assert!(refused > 0 || room > 1000);
        // A compaction that was lost is forgotten in memory all the same; the next one is in both.
        // It is not asked again at once.
        while store.commit(vec![put("/z", None, on_node(""))]).is_err() {
            std::thread::yield_now();
        }
        publish(&store);
        store.compact(store.revision()).unwrap();
        publish(&store);
        let reopened = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
        assert_eq!(dump(&reopened), dump(&store), "with {room} bytes");
        assert_eq!(reopened.leases(), store.leases());
    }
}

#[test]
fn a_small_disk_is_used_to_its_end_by_short_segments_and_asking_again_asks_for_no_more() {
    let disk = MemDisk::default();
    // The first segment has 4 KiB, and the ones behind it 8, 16, ...
    let store = Store::open_on(Arc::new(disk.clone()), 256 * 4096).unwrap();
    disk.set_space(Some(40 << 10));
    let value = on_node(&"n".repeat(200));
    let write = || {
        let done = store.commit(vec![put("/a", None, value.clone())]);
        publish(&store);
        done.is_ok()
    };
    while write() {}
    assert!(disk.used() > 36 << 10, "{} bytes are used", disk.used());
    let full = std::time::Instant::now();
    while full.elapsed() < std::time::Duration::from_millis(500) {
        assert!(store.problem().is_some());
    }
    disk.set_space(Some(46 << 10));
    // It is not asked again at once.
    while store.problem().is_some() {
        std::thread::yield_now();
    }
    assert!(write(), "room for a short segment is room");
}
