//! The store as a whole: what is visible when, and what crashes and bad disks leave of it.

mod crash;
mod formats;
mod random;
mod transacting;
mod watching;

use std::sync::Arc;

use super::disk::Disk;
use super::mem_disk::MemDisk;
use super::{Attributes, AttributesBuilder, Kind, Op, Requirement, Selector, Store, StoreError};

const OBJECT: &[u8] = br#"{"rv":""}"#;

fn put<'a>(key: &'a str, expected: Option<u64>, attributes: Attributes) -> Op<'a> {
    let splice_at = Some(OBJECT.len() - 2);
    Op {
        key: key.as_bytes(),
        value: Some(OBJECT),
        expected,
        splice_at,
        attributes,
    }
}

fn delete(key: &str) -> Op<'_> {
    Op {
        key: key.as_bytes(),
        value: None,
        expected: None,
        splice_at: None,
        attributes: Attributes::default(),
    }
}

fn on_node(node: &str) -> Attributes {
    let mut builder = AttributesBuilder::default();
    builder.push(Kind::Label, b"app", b"web");
    builder.push(Kind::Field, b"spec.nodeName", node.as_bytes());
    builder.build()
}

fn node_is(node: &str) -> Selector {
    Selector::new(vec![
        Requirement::new("field", "spec.nodeName", "=", &[node]).unwrap(),
    ])
}

fn publish(store: &Store) -> u64 {
    let durable = store.flush().unwrap();
    store.publish(durable);
    durable
}

impl Store {
    /// A lease with all the time in the world, granted without starting the committer, so that tests say when something is flushed.
    fn core_grant(&self, id: i64) -> Result<i64, StoreError> {
        self.core().grant(id, 1 << 40, 0)
    }
}

/// Everything that a client can see: revisions, objects now and at every revision that is kept, and all events.
fn dump(store: &Store) -> String {
    let mut out = format!("{} {}\n", store.revision(), store.compacted());
    for revision in store.compacted().max(1)..=store.revision() {
        let page = store
            .range(b"", b"", 0, revision, &Selector::default())
            .unwrap();
        for item in &page.items {
            let key = String::from_utf8_lossy(&item.key);
            let value = String::from_utf8_lossy(item.value());
            let node = item
                .attributes
                .get(Kind::Field, b"spec.nodeName")
                .unwrap_or_default();
            let node = String::from_utf8_lossy(node);
            out += &format!(
                "{revision}: {key} {value} {} {} {} {node}\n",
                item.created, item.modified, item.version
            );
        }
    }
    let id = store
        .watch(b"", store.compacted(), Selector::default(), None)
        .unwrap();
    for frame in store.poll_frames(id, usize::MAX).unwrap().events {
        out += &String::from_utf8_lossy(&frame);
    }
    store.unwatch(id);
    out
}

fn on(disk: &MemDisk) -> Result<Store, StoreError> {
    Store::open_on(Arc::new(disk.clone()), 300)
}

#[test]
fn readers_see_only_what_is_published_and_preconditions_what_is_applied() {
    let store = Store::in_memory();
    let (revision, states) = store
        .commit(vec![put("/pods/a/x", Some(0), on_node(""))])
        .unwrap();
    assert_eq!((revision, states[0].value()), (2, &br#"{"rv":"2"}"#[..]));
    assert!(store.get(b"/pods/a/x", 0).unwrap().is_none());
    assert!(matches!(
        store.get(b"/pods/a/x", 2),
        Err(StoreError::FutureRevision {
            revision: 2,
            current: 1
        })
    ));
    assert!(matches!(
        store.commit(vec![put("/pods/a/x", Some(0), on_node(""))]),
        Err(StoreError::KeyExists { index: 0 })
    ));
    publish(&store);
    assert_eq!(
        store
            .get(b"/pods/a/x", 0)
            .unwrap()
            .map(|found| found.modified),
        Some(2)
    );
}

#[test]
fn a_refused_commit_changes_nothing() {
    let store = Store::in_memory();
    store.commit(vec![put("/a", None, on_node(""))]).unwrap();
    let before = dump(&store);
    let refused = [
        store.commit(vec![
            put("/b", None, on_node("")),
            put("/a", Some(7), on_node("")),
        ]),
        store.commit(vec![put("/b", Some(3), on_node(""))]),
        store.commit(vec![put("/b", None, on_node("")), delete("/c")]),
        store.commit(vec![
            put("/b", None, on_node("")),
            put("/b", None, on_node("")),
        ]),
    ];
    let texts: Vec<String> = refused
        .into_iter()
        .map(|refused| refused.unwrap_err().to_string())
        .collect();
    assert_eq!(
        texts,
        [
            "op 1: the key is at revision 2",
            "op 0: the key does not exist",
            "op 1: the key does not exist",
            "op 1: a key may stand only once in a commit",
        ]
    );
    assert_eq!(dump(&store), before);
}

#[test]
fn a_prefix_ends_in_a_slash_and_anything_else_is_one_key() {
    let store = Store::in_memory();
    for key in [
        "/pods/a/web",
        "/pods/a/web-1",
        "/pods/ab/web",
        "/podtemplates/a/x",
    ] {
        store.commit(vec![put(key, None, on_node(""))]).unwrap();
    }
    publish(&store);
    let count = |prefix: &str| {
        store
            .range(prefix.as_bytes(), b"", 0, 0, &Selector::default())
            .unwrap()
            .items
            .len()
    };
    let table = [
        ("", 4),
        ("/pods/", 3),
        ("/pods/a/", 2),
        ("/pods/a/web", 1),
        ("/pods/a", 0),
        ("/pods", 0),
    ];
    for (prefix, expected) in table {
        assert_eq!(count(prefix), expected, "{prefix}");
    }
    for start in ["/pods/a/web/", "/pods0", "/z", "/pods/b"] {
        let page = store.range(b"/pods/a/web", start.as_bytes(), 0, 0, &Selector::default());
        assert!(
            page.unwrap().items.is_empty(),
            "{start} lies behind the prefix"
        );
        let page = store.range(b"/pods/a/", start.as_bytes(), 0, 0, &Selector::default());
        assert_eq!(page.unwrap().items.len(), 0, "{start}");
    }
}

#[test]
fn pages_continue_where_the_last_one_ended_at_the_same_revision() {
    let store = Store::in_memory();
    let keys: Vec<String> = (0..10).map(|i| format!("/pods/a/{i}")).collect();
    store
        .commit(
            keys.iter()
                .map(|key| put(key, None, on_node("n1")))
                .collect(),
        )
        .unwrap();
    publish(&store);
    for selector in [Selector::default(), node_is("n1")] {
        let first = store.range(b"/pods/", b"", 4, 2, &selector).unwrap();
        store.commit(vec![delete("/pods/a/5")]).unwrap();
        publish(&store);
        let second = store
            .range(b"/pods/", first.next.as_deref().unwrap(), 4, 2, &selector)
            .unwrap();
        let third = store
            .range(b"/pods/", second.next.as_deref().unwrap(), 4, 2, &selector)
            .unwrap();
        let read: Vec<String> = [&first, &second, &third]
            .iter()
            .flat_map(|page| &page.items)
            .map(|item| String::from_utf8_lossy(&item.key).into())
            .collect();
        assert_eq!(read, keys);
        assert_eq!(third.next, None);
        let counted = if selector.is_empty() {
            [6, 2, 0]
        } else {
            [-1, -1, 0]
        };
        assert_eq!(
            [first.remaining, second.remaining, third.remaining],
            counted
        );
        store
            .commit(vec![put("/pods/a/5", None, on_node("n1"))])
            .unwrap();
        publish(&store);
    }
}

#[test]
fn compaction_forgets_history_deleted_keys_and_their_index_entries() {
    let store = Store::in_memory();
    for node in ["", "n1", "n2"] {
        store
            .commit(vec![
                put("/pods/a/x", None, on_node(node)),
                put("/pods/a/y", None, on_node(node)),
            ])
            .unwrap();
    }
    store.commit(vec![delete("/pods/a/y")]).unwrap();
    publish(&store);
    assert_eq!(
        store
            .range(b"/pods/", b"", 0, 3, &node_is("n1"))
            .unwrap()
            .items
            .len(),
        2
    );
    store.compact(5).unwrap();
    store.compact(2).unwrap();
    assert_eq!(store.compacted(), 5);
    let sizes = |store: &Store| {
        let stats = store.stats();
        (stats["keys"], stats["events"], stats["index_pairs"])
    };
    assert_eq!(
        sizes(&store),
        (2, 1, 2),
        "the deletion at the floor is kept"
    );
    assert!(matches!(
        store.get(b"/pods/a/x", 4),
        Err(StoreError::Compacted {
            revision: 4,
            floor: 5
        })
    ));
    assert_eq!(
        store
            .range(b"/pods/", b"", 0, 5, &node_is("n2"))
            .unwrap()
            .items
            .len(),
        1
    );
    assert!(matches!(
        store.compact(6),
        Err(StoreError::FutureRevision { .. })
    ));
    store
        .commit(vec![put("/pods/a/x", None, on_node("n2"))])
        .unwrap();
    publish(&store);
    store.compact(6).unwrap();
    assert_eq!(sizes(&store), (1, 1, 2), "until the floor moves on");
}

#[test]
fn what_was_flushed_is_there_after_opening_again() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    for round in 0..40 {
        store
            .commit(vec![
                put("/pods/a/x", None, on_node(&format!("n{round}"))),
                put(&format!("/pods/b/{round}"), Some(0), on_node("")),
            ])
            .unwrap();
        if round % 3 == 0 {
            store
                .commit(vec![delete(&format!("/pods/b/{round}"))])
                .unwrap();
        }
        publish(&store);
    }
    assert!(
        disk.list().unwrap().len() > 3,
        "the log should have several segments"
    );
    assert_eq!(dump(&on(&disk).unwrap()), dump(&store));
    store.compact(20).unwrap();
    store.flush().unwrap();
    assert_eq!(dump(&on(&disk).unwrap()), dump(&store));
}

#[test]
fn a_snapshot_replaces_the_log_before_it_and_keeps_history() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    let write = |round: u64| {
        store
            .commit(vec![
                put(&format!("/pods/a/{}", round % 7), None, on_node("n1")),
                put(&format!("/pods/b/{round}"), Some(0), on_node("")),
            ])
            .unwrap();
        store
            .commit(vec![delete(&format!("/pods/b/{round}"))])
            .unwrap();
        publish(&store);
    };
    (0..20).for_each(write);
    store.compact(9).unwrap();
    assert_eq!(store.snapshot().unwrap(), 41);
    assert_eq!(
        disk.list().unwrap().len(),
        2,
        "one snapshot and one segment"
    );
    assert_eq!(dump(&on(&disk).unwrap()), dump(&store));
    (20..25).for_each(write);
    store.compact(30).unwrap();
    publish(&store);
    assert_eq!(dump(&on(&disk).unwrap()), dump(&store));
    store.snapshot().unwrap();
    (25..27).for_each(write);
    assert_eq!(dump(&on(&disk).unwrap()), dump(&store));
}

#[test]
fn many_commits_share_one_sync() {
    let disk = MemDisk::default();
    let store = Store::open_on(Arc::new(disk.clone()), 256 << 15).unwrap();
    let before = disk.syncs();
    for round in 0..100 {
        store
            .commit(vec![put(&format!("/pods/a/{round}"), Some(0), on_node(""))])
            .unwrap();
    }
    assert_eq!(store.flush().unwrap(), 101);
    assert_eq!(store.flush().unwrap(), 101);
    assert_eq!(store.stats()["flushes"], 1);
    assert!(
        disk.syncs() - before <= 2,
        "one for the batch, one for the next segment's header"
    );
}

#[test]
fn a_closed_store_takes_no_more_writes_and_can_be_opened_again() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    store.commit(vec![put("/a", None, on_node(""))]).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(
        store.commit(vec![put("/b", None, on_node(""))]),
        Err(StoreError::Poisoned { .. })
    ));
    assert_eq!(on(&disk).unwrap().revision(), 2);
}
