//! Who is told what: transitions of selectors, the dispatch index, shared frames, slow watchers.

use super::*;
use crate::store::EventType::{self, Added, Deleted, Modified};
use crate::store::Span;
use crate::store::watch::QUEUE_MAX;

type Row<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

fn types(store: &Store, id: u64) -> Vec<(EventType, u64)> {
    let poll = store.poll(id, usize::MAX).unwrap();
    poll.events
        .iter()
        .map(|(kind, event)| (*kind, event.revision()))
        .collect()
}

#[test]
fn an_object_that_starts_to_match_is_added_and_one_that_stops_is_deleted() {
    let store = Store::in_memory();
    let everything = store
        .watch(b"/pods/", 1, Selector::default(), None)
        .unwrap();
    let n1 = store.watch(b"/pods/", 1, node_is("n1"), None).unwrap();
    let pending = store.watch(b"/pods/a/", 1, node_is(""), None).unwrap();
    for attributes in [
        Attributes::default(),
        on_node("n1"),
        on_node("n1"),
        on_node("n2"),
    ] {
        store
            .commit(vec![put("/pods/a/x", None, attributes)])
            .unwrap();
    }
    store.commit(vec![delete("/pods/a/x")]).unwrap();
    publish(&store);
    assert_eq!(
        types(&store, everything),
        [
            (Added, 2),
            (Modified, 3),
            (Modified, 4),
            (Modified, 5),
            (Deleted, 6)
        ]
    );
    assert_eq!(types(&store, n1), [(Added, 3), (Modified, 4), (Deleted, 5)]);
    assert_eq!(
        types(&store, pending),
        [(Added, 2), (Deleted, 3)],
        "a missing field reads as the empty string"
    );
}

#[test]
fn names_of_equal_length_are_told_apart_and_forgotten_one_by_one() {
    let store = Store::in_memory();
    // The last one is longer than others by just what lengths are counted modulo.
    let long = format!("/pods/a/{}", "x".repeat(129));
    let names = ["/pods/a/x", "/pods/a/y", "/pods/b/x", long.as_str()];
    let watch = |name: &&str| {
        let selector = Selector::default();
        store.watch(name.as_bytes(), 1, selector, None).unwrap()
    };
    let mut ids: Vec<u64> = names.iter().map(watch).collect();
    let twice = watch(&names[0]);
    store.unwatch(twice);
    for forgotten in 0..names.len() {
        for name in names {
            store
                .commit(vec![put(name, None, Attributes::default())])
                .unwrap();
        }
        publish(&store);
        for id in &ids {
            assert_eq!(types(&store, *id).len(), 1, "{forgotten} forgotten");
        }
        store.unwatch(ids.remove(0));
    }
}

#[test]
fn every_selector_sees_live_what_it_would_see_from_history() {
    let selectors: [&[Row]; 7] = [
        &[],
        &[("field", "spec.nodeName", "=", &["n1"])],
        &[("field", "spec.nodeName", "!=", &["n1"])],
        &[("field", "spec.nodeName", "in", &["n1", "n2"])],
        &[
            ("label", "app", "=", &["web"]),
            ("field", "spec.nodeName", "!=", &[""]),
        ],
        &[("label", "app", "exists", &[])],
        &[("field", "spec.nodeName", "=", &[""])],
    ];
    let store = Store::in_memory();
    let make = |parts: &[Row]| {
        Selector::new(
            parts
                .iter()
                .map(|(target, key, operator, values)| {
                    Requirement::new(target, key, operator, values).unwrap()
                })
                .collect(),
        )
    };
    for prefix in ["", "/pods/", "/pods/a/", "/pods/a/x"] {
        let from = store.revision();
        let live: Vec<u64> = selectors
            .iter()
            .map(|parts| {
                store
                    .watch(prefix.as_bytes(), from, make(parts), None)
                    .unwrap()
            })
            .collect();
        for node in ["", "n1", "n2", "n3", "n1", ""] {
            store
                .commit(vec![
                    put("/pods/a/x", None, on_node(node)),
                    put("/pods/b/y", None, Attributes::default()),
                ])
                .unwrap();
            publish(&store);
        }
        store.commit(vec![delete("/pods/a/x")]).unwrap();
        publish(&store);
        for (parts, id) in selectors.iter().zip(live) {
            let late = store
                .watch(prefix.as_bytes(), from, make(parts), None)
                .unwrap();
            assert_eq!(types(&store, id), types(&store, late), "{prefix} {parts:?}");
            store.unwatch(id);
            store.unwatch(late);
        }
    }
    assert_eq!(store.stats()["watchers"], 0);
}

#[test]
fn among_ten_thousand_nodes_only_the_two_concerned_are_told() {
    let store = Store::in_memory();
    let ids: Vec<u64> = (0..10_000)
        .map(|node| {
            store
                .watch(b"/pods/", 1, node_is(&format!("n{node}")), None)
                .unwrap()
        })
        .collect();
    store
        .commit(vec![put("/pods/a/x", None, on_node("n77"))])
        .unwrap();
    assert_eq!(store.publish(2), [ids[77]]);
    store
        .commit(vec![put("/pods/a/x", None, on_node("n9000"))])
        .unwrap();
    assert_eq!(store.publish(3), [ids[77], ids[9000]]);
}

#[test]
fn frames_are_built_once_and_a_deletion_carries_its_own_revision() {
    let store = Store::in_memory();
    let watch = |selector| store.watch(b"/pods/", 1, selector, None).unwrap();
    let (first, second, n1, also_n1) = (
        watch(Selector::default()),
        watch(Selector::default()),
        watch(node_is("n1")),
        watch(node_is("n1")),
    );
    for node in ["", "n1"] {
        store
            .commit(vec![put("/pods/a/x", None, on_node(node))])
            .unwrap();
    }
    store.commit(vec![delete("/pods/a/x")]).unwrap();
    publish(&store);
    let frames = |id| store.poll_frames(id, usize::MAX).unwrap().events;
    let (first, second, n1, also_n1) = (frames(first), frames(second), frames(n1), frames(also_n1));
    let lines = |frames: &[crate::store::Frame]| {
        String::from_utf8(frames.iter().flat_map(|frame| frame.to_vec()).collect()).unwrap()
    };
    assert_eq!(
        lines(&first),
        "{\"type\":\"ADDED\",\"object\":{\"rv\":\"2\"}}\n{\"type\":\"MODIFIED\",\"object\":{\"rv\":\"3\"}}\n{\"type\":\"DELETED\",\"object\":{\"rv\":\"4\"}}\n"
    );
    assert_eq!(
        lines(&n1),
        "{\"type\":\"ADDED\",\"object\":{\"rv\":\"3\"}}\n{\"type\":\"DELETED\",\"object\":{\"rv\":\"4\"}}\n"
    );
    for (a, b) in first.iter().zip(&second).chain(n1.iter().zip(&also_n1)) {
        assert_eq!(a.as_ptr(), b.as_ptr());
    }
    assert_eq!(first[2].as_ptr(), n1[1].as_ptr());
}

#[test]
fn a_poll_never_splits_a_revision_and_says_how_far_it_has_seen() {
    let store = Store::in_memory();
    let id = store
        .watch(b"/pods/", 1, Selector::default(), None)
        .unwrap();
    for round in 0..3 {
        let keys = [format!("/pods/a/{round}"), format!("/pods/b/{round}")];
        store
            .commit(keys.iter().map(|key| put(key, None, on_node(""))).collect())
            .unwrap();
    }
    store
        .commit(vec![put("/nodes/n1", None, on_node(""))])
        .unwrap();
    publish(&store);
    let poll = |max| {
        let poll = store.poll(id, max).unwrap();
        (poll.events.len(), poll.revision)
    };
    assert_eq!([poll(1), poll(3), poll(1)], [(2, 2), (4, 5), (0, 5)]);
}

#[test]
fn a_watcher_that_does_not_keep_up_is_cut_and_the_others_are_not() {
    let store = Store::in_memory();
    let slow = store
        .watch(b"/pods/", 1, Selector::default(), None)
        .unwrap();
    let fast = store
        .watch(b"/pods/", 1, Selector::default(), None)
        .unwrap();
    let mut taken = 0;
    for _ in 0..=QUEUE_MAX {
        store
            .commit(vec![put("/pods/a/x", None, on_node(""))])
            .unwrap();
        publish(&store);
        taken += types(&store, fast).len();
    }
    assert_eq!(taken, QUEUE_MAX + 1);
    assert!(matches!(
        store.poll(slow, 1),
        Err(StoreError::WatcherLagged { .. })
    ));
    let resumed = store
        .watch(b"/pods/", 1, Selector::default(), None)
        .unwrap();
    store
        .commit(vec![put("/pods/a/x", None, on_node(""))])
        .unwrap();
    publish(&store);
    assert_eq!(
        types(&store, resumed).len(),
        QUEUE_MAX + 2,
        "a backlog that history holds anyway does not count"
    );
    assert!(matches!(
        store.poll(99, 1),
        Err(StoreError::UnknownWatcher { id: 99 })
    ));
}

#[test]
fn a_watch_begins_within_history_only() {
    let store = Store::in_memory();
    for _ in 0..3 {
        store
            .commit(vec![put("/pods/a/x", None, on_node(""))])
            .unwrap();
    }
    publish(&store);
    store.compact(3).unwrap();
    let watch = |revision| store.watch(b"/pods/", revision, Selector::default(), None);
    assert!(matches!(
        watch(2),
        Err(StoreError::Compacted {
            revision: 2,
            floor: 3
        })
    ));
    assert!(matches!(watch(5), Err(StoreError::FutureRevision { .. })));
    assert_eq!(types(&store, watch(3).unwrap()), [(Modified, 4)]);
}

#[test]
fn a_front_is_called_when_its_watcher_has_news() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let store = Store::in_memory();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let notify = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    store
        .watch(b"/pods/a/", 1, Selector::default(), Some(notify))
        .unwrap();
    for key in ["/pods/a/x", "/pods/b/x", "/pods/a/y"] {
        store.commit(vec![put(key, None, on_node(""))]).unwrap();
        publish(&store);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn a_watch_may_begin_with_the_revision_of_the_compaction_and_a_restart_changes_nothing() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    for key in ["/a/1", "/a/2"] {
        store.commit(vec![put(key, None, on_node(""))]).unwrap();
    }
    store
        .commit(vec![delete("/a/1"), put("/a/2", None, on_node("n1"))])
        .unwrap();
    store.commit(vec![put("/a/3", None, on_node(""))]).unwrap();
    publish(&store);
    store.compact(4).unwrap();
    publish(&store);
    let everything = Span::prefix(b"");
    let told = |store: &Store| {
        let id = store.watch_from(&everything, 4, None).unwrap();
        let events = store.poll(id, usize::MAX).unwrap().events;
        let shown = |(_, event): &crate::store::Seen| {
            let key = String::from_utf8_lossy(&event.new.key).into_owned();
            (event.revision(), key, event.new.is_deletion())
        };
        events.iter().map(shown).collect::<Vec<_>>()
    };
    let expected = [
        (4, "/a/1".to_owned(), true),
        (4, "/a/2".to_owned(), false),
        (5, "/a/3".to_owned(), false),
    ];
    assert_eq!(told(&store), expected);
    assert!(matches!(
        store.watch_from(&everything, 3, None),
        Err(StoreError::Compacted {
            revision: 3,
            floor: 4
        })
    ));
    let crashed = || disk.crashed(|_, durable, _| durable.to_vec());
    assert_eq!(told(&on(&crashed()).unwrap()), expected, "from the log");
    store.snapshot().unwrap();
    assert_eq!(told(&on(&crashed()).unwrap()), expected, "from a snapshot");
}
