//! Power cuts at every byte, torn sectors, flipped bits, failing syncs.

use super::*;
use crate::store::segment::{BATCH_HEADER_LEN, HEADER_LEN};

/// A log of several batches, some of several commits, and the state after each: (length of the log, dump).
fn history(store: &Store, disk: &MemDisk, segment: &str) -> Vec<(usize, String)> {
    let length = || disk.read(segment).unwrap().len();
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

const FIRST: &str = "log-0000000000000001";

fn one_segment() -> (MemDisk, Store) {
    let disk = MemDisk::default();
    let store = Store::open_on(Arc::new(disk.clone()), u64::MAX).unwrap();
    (disk, store)
}

#[test]
fn a_log_cut_at_any_byte_recovers_exactly_the_batches_that_are_whole() {
    let (disk, store) = one_segment();
    let states = history(&store, &disk, FIRST);
    let bytes = disk.read(FIRST).unwrap();
    for cut in 0..=bytes.len() {
        let after = MemDisk::default();
        after.put(FIRST, bytes[..cut].to_vec());
        let recovered = on(&after).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let (_, expected) = states
            .iter()
            .rev()
            .find(|(length, _)| *length <= cut)
            .unwrap_or(&states[0]);
        assert_eq!(&dump(&recovered), expected, "cut at {cut}");
        recovered
            .commit(vec![put("/after", Some(0), on_node(""))])
            .unwrap();
        publish(&recovered);
        assert_eq!(
            dump(&on(&after).unwrap()),
            dump(&recovered),
            "cut at {cut}, then written"
        );
    }
}

#[test]
fn a_power_cut_that_tears_the_unsynced_batch_loses_nothing_that_was_flushed() {
    let (disk, store) = one_segment();
    history(&store, &disk, FIRST);
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
            let keep = durable.len() + random() as usize % (live.len() - durable.len() + 1);
            let mut bytes = live[..keep].to_vec();
            let lost = random() % 4;
            for sector in bytes[durable.len()..].chunks_mut(32) {
                if lost > 0 && random() % 4 < lost {
                    sector.fill(0);
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
    let states = history(&store, &disk, FIRST);
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
    history(&store, &disk, FIRST);
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
    let first = disk.read(&names[0]).unwrap();
    shortened.put(&names[0], first[..first.len() - 1].to_vec());
    assert!(
        refused(&shortened),
        "a whole batch less at the end of a segment that is not the last"
    );

    let emptied = without("");
    emptied.put(&names[0], first[..HEADER_LEN].to_vec());
    assert!(
        refused(&emptied),
        "the segment after it does not continue it"
    );

    let repeated = without("");
    let last = names.last().unwrap();
    let mut bytes = disk.read(last).unwrap();
    let batch = first[HEADER_LEN..].to_vec();
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
    history(&store, &disk, FIRST);
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
    assert_eq!(dump(&on(&unfinished).unwrap()), expected, "not renamed yet");
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    history(&store, &disk, FIRST);
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
