//! Transactions, spans, leases, and who is answered when.

use std::sync::mpsc;

use super::*;
use crate::store::{Span, Txn};

fn keys(page: &crate::store::Page) -> Vec<String> {
    let key = |item: &Arc<crate::store::Revision>| String::from_utf8_lossy(&item.key).into_owned();
    page.items.iter().map(key).collect()
}

fn filled(names: &[&str]) -> Store {
    let store = Store::in_memory();
    for name in names {
        let put = |txn: &mut Txn<'_>| txn.put(name.as_bytes(), b"v", 0);
        let done = store.transact(put).unwrap();
        assert!(done.wrote && done.value.is_none());
    }
    publish(&store);
    store
}

#[test]
fn a_transaction_reads_its_own_writes_and_all_share_one_revision() {
    let store = filled(&["/a", "/b", "/c"]);
    let done = store
        .transact(|txn| {
            assert_eq!((txn.revision(), txn.count(b"/", b"0", 0)?), (4, 3));
            assert_eq!(txn.delete_span(b"/a", b"/c")?.len(), 2);
            txn.put(b"/d", b"new", 0)?;
            assert_eq!(txn.get(b"/d").unwrap().value(), b"new");
            assert_eq!(keys(&txn.span(b"/", b"\0", 0, 0)?), ["/c", "/d"]);
            assert_eq!(keys(&txn.span(b"/", b"\0", 0, 3)?), ["/a", "/b"]);
            assert!(matches!(
                txn.span(b"/", b"\0", 0, 6),
                Err(StoreError::FutureRevision { current: 5, .. })
            ));
            Ok(txn.revision())
        })
        .unwrap();
    assert_eq!((done.value, done.revision, done.wrote), (5, 5, true));
    publish(&store);
    let id = store.watch(b"", 4, Selector::default(), None).unwrap();
    let events = store.poll(id, 1).unwrap().events;
    let subs: Vec<_> = events.iter().map(|(_, event)| event.new.sub).collect();
    assert_eq!(subs, [0, 1, 2], "a revision is never split");
}

#[test]
fn a_transaction_that_fails_or_panics_leaves_no_trace() {
    let store = filled(&["/a", "/b"]);
    let before = dump(&store);
    let figures = |store: &Store| (store.stats()["keys"], store.stats()["events"]);
    let expected = figures(&store);
    let spoil = |txn: &mut Txn<'_>| {
        txn.put(b"/c", b"v", 0)?;
        txn.delete(b"/a")?;
        txn.put(b"/b", b"w", 0)
    };
    let duplicate = store.transact(|txn| {
        spoil(txn)?;
        txn.put(b"/c", b"again", 0)
    });
    assert!(matches!(duplicate, Err(StoreError::DuplicateKey)));
    let gone = store.transact(|txn| {
        spoil(txn)?;
        txn.put(b"/a", b"back", 0)
    });
    assert!(matches!(gone, Err(StoreError::DuplicateKey)));
    let leased = store.transact(|txn| {
        spoil(txn)?;
        txn.put(b"/e", b"v", 7)
    });
    assert!(matches!(leased, Err(StoreError::LeaseNotFound { id: 7 })));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = store.transact(|txn| {
            spoil(txn)?;
            panic!("a bug in the body");
            #[allow(unreachable_code)]
            Ok(())
        });
    }));
    assert!(panicked.is_err());
    publish(&store);
    assert_eq!((dump(&store), figures(&store)), (before, expected));
    let nothing = store.transact(|txn| txn.delete(b"/missing")).unwrap();
    assert_eq!((nothing.revision, nothing.wrote), (3, false));
}

#[test]
fn spans_page_and_count_at_any_revision() {
    let store = filled(&["/a/1", "/a/2", "/a0", "/b"]);
    store.transact(|txn| txn.delete(b"/a/2")).unwrap();
    publish(&store);
    let span = Span::new(b"/a", b"/b");
    let page = store.span(&span, 1, 5).unwrap();
    assert_eq!((keys(&page), page.remaining), (vec!["/a/1".into()], 2));
    assert_eq!(page.next.as_deref(), Some(&b"/a/2"[..]));
    assert_eq!(store.count(&span, 5).unwrap(), (3, 5));
    assert_eq!(store.count(&span, 0).unwrap(), (2, 6));
    let behind = Span::new(b"/a0", b"\0");
    assert_eq!(keys(&store.span(&behind, 0, 0).unwrap()), ["/a0", "/b"]);
    store.compact(6).unwrap();
    assert!(matches!(
        store.count(&span, 5),
        Err(StoreError::Compacted { floor: 6, .. })
    ));
}

#[test]
fn watchers_of_any_span_see_what_lies_in_it_live_and_from_history() {
    let store = filled(&["/a/1"]);
    let spans = [
        Span::new(b"/a/", b"/a0"),
        Span::new(b"/a/1", b""),
        Span::new(b"/a", b"/a/2"),
        Span::new(b"\0", b"\0"),
        Span::new(b"/a/2", b"\0"),
        Span::new(b"/a/", b""),
    ];
    let watch = |span, from| store.watch_span(span, from, Selector::default(), None);
    let live: Vec<u64> = spans.iter().map(|span| watch(span, 2).unwrap()).collect();
    for name in ["/a/", "/a/1", "/a/2", "/b"] {
        store
            .transact(|txn| txn.put(name.as_bytes(), b"v", 0))
            .unwrap();
    }
    assert_eq!(store.publish(u64::MAX), live);
    let seen = |id| -> Vec<String> {
        let poll = store.poll(id, usize::MAX).unwrap();
        let key = |event: &crate::store::Seen| event.1.new.key.to_vec();
        let keys = poll.events.iter().map(key);
        keys.map(|key| String::from_utf8(key).unwrap()).collect()
    };
    let expected: [&[&str]; 6] = [
        &["/a/", "/a/1", "/a/2"],
        &["/a/1"],
        &["/a/", "/a/1"],
        &["/a/", "/a/1", "/a/2", "/b"],
        &["/a/2", "/b"],
        &["/a/"],
    ];
    for ((id, span), expected) in live.iter().zip(&spans).zip(expected) {
        assert_eq!(seen(*id), expected, "live {span:?}");
        assert_eq!(seen(watch(span, 2).unwrap()), expected, "past {span:?}");
        store.unwatch(*id);
    }
}

#[test]
fn a_lease_takes_its_keys_with_it_under_one_revision() {
    let store = Store::in_memory();
    let id = store.lease_grant(0, 10, 1_000).unwrap();
    assert!(matches!(
        store.lease_grant(id, 5, 0),
        Err(StoreError::LeaseExists { .. })
    ));
    for name in ["/a", "/b", "/c"] {
        store
            .transact(|txn| txn.put(name.as_bytes(), b"v", id))
            .unwrap();
    }
    // Written without the lease or deleted, a key leaves it.
    store.transact(|txn| txn.put(b"/b", b"w", 0)).unwrap();
    store.transact(|txn| txn.put(b"/d", b"v", id)).unwrap();
    store.transact(|txn| txn.delete(b"/d")).unwrap();
    let failed = store.transact(|txn| {
        txn.put(b"/a", b"w", 0)?;
        txn.put(b"/a", b"x", 0)
    });
    assert!(failed.is_err(), "what is taken back stays attached");
    let info = store.lease_time_to_live(id, 4_500).unwrap();
    let keys: Vec<&[u8]> = info.keys.iter().map(|key| &**key).collect();
    assert_eq!(keys, [&b"/a"[..], b"/c"]);
    assert_eq!((info.granted_s, info.remaining_s), (10, 7));
    assert_eq!(store.lease_keep_alive(id, 9_000).unwrap(), 10);
    assert!(store.expire(18_999).unwrap().is_empty());
    let before = store.transact(|txn| Ok(txn.revision())).unwrap().revision;
    assert_eq!(store.expire(19_000).unwrap(), [id]);
    publish(&store);
    assert_eq!(store.revision(), before + 1);
    assert!(store.get(b"/a", 0).unwrap().is_none());
    assert!(store.get(b"/b", 0).unwrap().is_some());
    assert!(matches!(
        store.lease_keep_alive(id, 0),
        Err(StoreError::LeaseNotFound { .. })
    ));
    assert!(store.leases().is_empty());
}

#[test]
fn leases_survive_a_restart_with_all_their_time() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    let now = crate::store::monotonic_ms();
    store.lease_grant(7, 10_000, now).unwrap();
    store.lease_grant(8, 10_000, now).unwrap();
    store.transact(|txn| txn.put(b"/a", b"v", 7)).unwrap();
    store.transact(|txn| txn.put(b"/b", b"v", 8)).unwrap();
    store.flush().unwrap();
    let restarted = || on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
    let check = |after: Store| {
        assert_eq!(after.leases(), [(7, 10_000), (8, 10_000)]);
        assert!(after.expire(1_000_000).unwrap().is_empty());
        let info = after.lease_time_to_live(7, 1_001_000).unwrap();
        assert_eq!((info.remaining_s, info.keys.len()), (9_999, 1));
        after.lease_revoke(8).unwrap();
        assert_eq!(after.expire(11_000_000).unwrap(), [7]);
        publish(&after);
        assert_eq!(after.stats()["keys"], 2, "as tombstones");
        assert!(after.get(b"/a", 0).unwrap().is_none());
    };
    check(restarted());
    store.snapshot().unwrap();
    check(restarted());
    store.lease_revoke(7).unwrap();
    store.flush().unwrap();
    assert_eq!(restarted().leases(), [(8, 10_000)]);
}

#[test]
fn all_who_wait_are_answered_after_one_flush_and_the_event_loop_is_told() {
    let disk = MemDisk::default();
    let store = on(&disk).unwrap();
    let watcher = store.watch(b"/", 1, Selector::default(), None).unwrap();
    let (sender, receiver) = mpsc::channel();
    for name in ["/a", "/b", "/c"] {
        let sender = sender.clone();
        let put = |txn: &mut Txn<'_>| txn.put(name.as_bytes(), b"v", 0);
        let revision = store.transact(put).unwrap().revision;
        let answer = move |done: crate::store::Result<()>| {
            sender.send((revision, done.is_ok())).unwrap();
        };
        store.when_published(revision, Box::new(answer));
    }
    let answers: Vec<_> = receiver.iter().take(3).collect();
    assert_eq!(answers, [(2, true), (3, true), (4, true)]);
    assert_eq!(store.revision(), 4);
    store.wakeup().unwrap();
    assert_eq!(store.told().watchers, [watcher]);
    store.lease_grant(1, 1, 0).unwrap();
    let flushed = sender.clone();
    store.when_flushed(Box::new(move |done| {
        flushed.send((0, done.is_ok())).unwrap();
    }));
    assert_eq!(receiver.recv().unwrap(), (0, true));
    disk.fail_syncs();
    let revision = store
        .transact(|txn| txn.put(b"/d", b"v", 0))
        .unwrap()
        .revision;
    store.when_published(
        revision,
        Box::new(move |done| sender.send((9, done.is_ok())).unwrap()),
    );
    assert_eq!(receiver.recv().unwrap(), (9, false));
    assert!(store.told().failure.is_some());
    assert_eq!(store.revision(), 4);
}

#[test]
fn in_memory_everything_is_answered_at_once() {
    let store = filled(&["/a"]);
    let watcher = store.watch(b"/", 2, Selector::default(), None).unwrap();
    let revision = store.transact(|txn| txn.delete(b"/a")).unwrap().revision;
    let (sender, receiver) = mpsc::channel();
    store.when_published(
        revision,
        Box::new(move |done| sender.send(done.is_ok()).unwrap()),
    );
    assert!(receiver.try_recv().unwrap());
    assert_eq!(store.told().watchers, [watcher]);
}
