//! Random histories against a map for each revision, with power cuts, snapshots, compactions, leases and full disks in between; and
//! random damage to the files, which must be refused or be the end of an unanswered write, and never be read as something else.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Span, Txn};

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(bool, u8, u8)>),
    Refused(Vec<(bool, u8, u8)>),
    DeleteSpan(u8, u8),
    Grant(u8),
    Revoke(u8),
    Flush,
    Compact(u8),
    Snapshot,
    Cut(u64),
    Fill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = || prop::collection::vec((any::<bool>(), 0u8..8, 0u8..4), 1..4);
    let step = prop_oneof![
        6 => writes().prop_map(Step::Write),
        1 => writes().prop_map(Step::Refused),
        1 => (0u8..8, 0u8..10).prop_map(|(from, to)| Step::DeleteSpan(from, to)),
        1 => (1u8..4).prop_map(Step::Grant),
        1 => (1u8..4).prop_map(Step::Revoke),
        4 => Just(Step::Flush),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Snapshot),
        1 => any::<u64>().prop_map(Step::Cut),
        1 => Just(Step::Fill),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is known of a key: value, created, modified, version, lease.
type Entry = (Vec<u8>, u64, u64, u64, i64);
type State = BTreeMap<Vec<u8>, Entry>;

#[derive(Debug, Clone)]
struct Model {
    states: Vec<State>,
    leases: Vec<i64>,
    floor: u64,
}

impl Model {
    fn newest(&self) -> &State {
        self.states.last().unwrap()
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    fn delete_all(&mut self, keys: Vec<Vec<u8>>) {
        if keys.is_empty() {
            return;
        }
        let mut state = self.newest().clone();
        keys.iter().for_each(|key| drop(state.remove(key)));
        self.states.push(state);
    }
}

fn name(number: u8) -> Vec<u8> {
    format!("/k/{number}").into_bytes()
}

/// Write each key once; a lease that does not exist is not used.
fn write(model: &mut Model, store: &Store, writes: &[(bool, u8, u8)], is_refused: bool) {
    let unique: BTreeMap<u8, (bool, u8)> = writes
        .iter()
        .map(|(put, key, lease)| (*key, (*put, *lease)))
        .collect();
    let revision = model.revision() + 1;
    let mut state = model.newest().clone();
    let leases = model.leases.clone();
    let lease_of = |lease: u8| i64::from(lease) * i64::from(leases.contains(&i64::from(lease)));
    let body = |txn: &mut Txn<'_>| {
        for (key, (put, lease)) in &unique {
            if *put {
                txn.put(
                    &name(*key),
                    format!("v{revision}").as_bytes(),
                    lease_of(*lease),
                )?;
            } else {
                txn.delete(&name(*key))?;
            }
        }
        if is_refused {
            txn.put(b"/other", b"", 99)?;
        }
        Ok(())
    };
    let done = store.transact(body);
    if is_refused {
        assert!(done.is_err());
        return;
    }
    let done = match done {
        Ok(done) => done,
        Err(StoreError::NoSpace { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    for (key, (put, lease)) in &unique {
        let key = name(*key);
        if *put {
            let before = state.get(&key);
            let created = before.map_or(revision, |before| before.1);
            let version = before.map_or(0, |before| before.3) + 1;
            let value = format!("v{revision}").into_bytes();
            state.insert(key, (value, created, revision, version, lease_of(*lease)));
        } else {
            state.remove(&key);
        }
    }
    if done.wrote {
        model.states.push(state);
    }
    assert_eq!(done.revision, model.revision());
}

fn read(store: &Store, revision: u64) -> State {
    let page = store.span(&Span::new(b"\0", b"\0"), 0, revision).unwrap();
    let entry = |item: &Arc<crate::store::Revision>| {
        let value = item.value().to_vec();
        (
            item.key.to_vec(),
            (value, item.created, item.modified, item.version, item.lease),
        )
    };
    page.items.iter().map(entry).collect()
}

fn compare(store: &Store, model: &Model) {
    assert_eq!(store.revision(), model.revision());
    assert_eq!(store.compacted(), model.floor);
    for revision in model.floor.max(1)..=model.revision() {
        assert_eq!(&read(store, revision), &model.states[revision as usize - 1]);
    }
    let leases: Vec<i64> = store.leases().iter().map(|(id, _)| *id).collect();
    assert_eq!(leases, model.leases);
    for id in leases {
        let attached = |entry: &(&Vec<u8>, &Entry)| entry.1.4 == id;
        let expected: Vec<_> = model
            .newest()
            .iter()
            .filter(attached)
            .map(|entry| entry.0.clone())
            .collect();
        let keys = store.lease_time_to_live(id, 0).unwrap().keys;
        assert_eq!(
            keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>(),
            expected
        );
    }
}

fn xorshift(mut seed: u64) -> impl FnMut() -> u64 {
    seed |= 1;
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

/// What a power cut leaves of an unsynced file: of each 16 bytes what was synced or what was written.
fn torn(durable: &[u8], live: &[u8], random: &mut impl FnMut() -> u64) -> Vec<u8> {
    let length = if random().is_multiple_of(2) {
        durable.len()
    } else {
        live.len()
    };
    let mut bytes = durable.to_vec();
    bytes.resize(length, 0);
    for (kept, written) in bytes.chunks_mut(16).zip(live.chunks(16)) {
        if !random().is_multiple_of(3) && kept.len() <= written.len() {
            kept.copy_from_slice(&written[..kept.len()]);
        }
    }
    bytes
}

fn run(all: &[Step], segment_bytes: u64) {
    let mut disk = MemDisk::default();
    let open = |disk: &MemDisk| Store::open_on(Arc::new(disk.clone()), segment_bytes).unwrap();
    let mut store = open(&disk);
    let mut model = Model {
        states: vec![State::new()],
        leases: Vec::new(),
        floor: 0,
    };
    let mut flushed = model.clone();
    for step in all {
        match step {
            Step::Write(writes) => write(&mut model, &store, writes, false),
            Step::Refused(writes) => write(&mut model, &store, writes, true),
            Step::DeleteSpan(from, to) => {
                let (from, to) = (name(*from), name(*to));
                let inside = |key: &&Vec<u8>| **key >= from && **key < to;
                let keys: Vec<_> = model.newest().keys().filter(inside).cloned().collect();
                let done = store.transact(|txn| txn.delete_span(&from, &to));
                if let Ok(done) = done {
                    assert_eq!(done.value.len(), keys.len());
                    model.delete_all(keys);
                }
            }
            Step::Grant(id) => {
                // In a store that waits for no answer, the committer never runs.
                if store.core_grant(i64::from(*id)).is_ok() {
                    model.leases.push(i64::from(*id));
                    model.leases.sort_unstable();
                }
            }
            Step::Revoke(id) => {
                let id = i64::from(*id);
                if model.leases.contains(&id) && store.lease_revoke(id).is_ok() {
                    model.leases.retain(|lease| *lease != id);
                    let attached = model.newest().iter().filter(|entry| entry.1.4 == id);
                    let keys = attached.map(|entry| entry.0.clone()).collect();
                    model.delete_all(keys);
                }
            }
            Step::Flush => {
                publish(&store);
                flushed = model.clone();
                compare(&store, &model);
            }
            Step::Compact(part) => {
                let revision = store.revision() * u64::from(*part) / 255;
                if store.compact(revision).is_ok() {
                    model.floor = model.floor.max(revision);
                }
            }
            Step::Snapshot => {
                if store.snapshot().is_ok() {
                    flushed = model.clone();
                }
            }
            Step::Cut(seed) => {
                let mut random = xorshift(*seed);
                disk = disk.crashed(|_, durable, live| torn(durable, live, &mut random));
                store = open(&disk);
                // Batches may have reached the disk though nobody synced them, but only whole and in order.
                if store.revision() == flushed.revision() {
                    let floor = store.compacted();
                    // A snapshot that failed may have made some of the compactions before it durable.
                    assert!((flushed.floor..=model.floor).contains(&floor));
                    flushed.floor = floor;
                    flushed.leases = store.leases().iter().map(|lease| lease.0).collect();
                } else {
                    assert!(store.revision() > flushed.revision());
                    flushed.states = model.states[..store.revision() as usize].to_vec();
                    flushed.floor = store.compacted();
                    flushed.leases = store.leases().iter().map(|lease| lease.0).collect();
                }
                model = flushed.clone();
                compare(&store, &model);
            }
            Step::Fill => {
                let is_full = disk.space().is_some();
                disk.set_space((!is_full).then(|| disk.used() + 100));
            }
        }
    }
    disk.set_space(None);
    publish(&store);
    compare(&store, &model);
    let after = disk.crashed(|_, durable, _| durable.to_vec());
    compare(&open(&after), &model);
}

/// How many histories; more by PROPTEST_CASES.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_random_history_is_what_a_map_for_each_revision_says(all in steps(), full in any::<bool>()) {
        run(&all, if full { 200 } else { 256 << 12 });
    }

    #[test]
    fn random_damage_is_refused_or_cut_and_never_read_as_something_else(
        damage in prop::collection::vec((any::<u16>(), 0u8..6, any::<u8>(), 0usize..40), 1..4),
        which in any::<u8>(),
    ) {
        let disk = MemDisk::default();
        let store = Store::open_on(Arc::new(disk.clone()), 256 * 4096).unwrap();
        let mut dumps = vec![dump(&store)];
        for round in 0..12u64 {
            let key = format!("/k/{}", round % 5);
            store.commit(vec![put(&key, None, on_node("n1"))]).unwrap();
            publish(&store);
            dumps.push(dump(&store));
            if round == 5 {
                store.snapshot().unwrap();
            }
        }
        let names = disk.list().unwrap();
        let name = &names[usize::from(which) % names.len()];
        let mut bytes = disk.read(name).unwrap();
        let whole = bytes.clone();
        for (at, kind, byte, length) in damage {
            let at = usize::from(at) % (bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes.truncate(at),
                1 => bytes[at..end].fill(0),
                2 => bytes[at..end].fill(byte),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let copied = bytes[at..end].to_vec();
                    bytes.splice(at..at, copied);
                }
                _ => bytes[at..end].iter_mut().for_each(|one| *one ^= byte),
            }
        }
        let is_same = bytes == whole;
        disk.put(name, bytes);
        match Store::open_on(Arc::new(disk), 256 * 4096) {
            Ok(read) => prop_assert!(dumps.contains(&dump(&read))),
            Err(error) => {
                prop_assert!(!is_same);
                let is_clear = matches!(error, StoreError::Corrupt { .. } | StoreError::Invalid(_));
                prop_assert!(is_clear, "{}", error);
            }
        }
    }
}
