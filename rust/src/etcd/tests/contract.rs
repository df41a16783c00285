//! What clients of etcd rely on, request by request.

use super::super::wire::response_op::Response;
use super::*;

#[test]
fn korch_keeps_the_contract() {
    let server = korch(Duration::from_secs(600));
    runtime().block_on(contract(&server));
}

#[test]
fn etcd_keeps_the_contract() {
    if let Some(server) = etcd("contract") {
        runtime().block_on(async {
            let mut client = server.client().await;
            keys_and_transactions(&mut client).await;
        });
    }
}

/// What etcd of every age does alike.
async fn keys_and_transactions(client: &mut Client) {
    ranges(client).await;
    sorting(client).await;
    puts(client).await;
    deletes(client).await;
    comparisons(client).await;
    transactions(client).await;
}

async fn contract(server: &Server) {
    let mut client = server.client().await;
    keys_and_transactions(&mut client).await;
    refusals(&mut client).await;
    leases(&mut client).await;
    upkeep(&mut client).await;
    compaction(&mut client).await;
}

fn keys(answer: &RangeResponse) -> Vec<String> {
    let keys = answer.kvs.iter().map(|kv| kv.key.to_vec());
    keys.map(|key| String::from_utf8(key).unwrap()).collect()
}

async fn ranges(client: &mut Client) {
    let first = client.set("r/a", "1").await;
    client.set("r/b", "2").await;
    client.set("r/c", "3").await;
    let last = client.set("r/a", "4").await;
    assert_eq!(last, first + 3);
    let one = client.range(range("r/a", "")).await.unwrap();
    assert_eq!(revision(&one.header), last);
    assert_eq!((one.count, one.more), (1, false));
    let kv = &one.kvs[0];
    assert_eq!(
        (
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            &kv.value[..]
        ),
        (first, last, 2, &b"4"[..])
    );
    let header = one.header.unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);

    let all = client.range(range("r/", "r0")).await.unwrap();
    assert_eq!(keys(&all), ["r/a", "r/b", "r/c"]);
    let from_b = client.range(range("r/b", "\0")).await.unwrap();
    assert_eq!(keys(&from_b), ["r/b", "r/c"]);
    let empty = client.range(range("r/c", "r/a")).await.unwrap();
    assert_eq!((empty.count, empty.kvs.len()), (0, 0));

    let limited = RangeRequest {
        limit: 2,
        ..range("r/", "r0")
    };
    let page = client.range(limited.clone()).await.unwrap();
    assert_eq!((keys(&page).len(), page.more, page.count), (2, true, 3));
    let exact = RangeRequest {
        limit: 3,
        ..limited
    };
    assert!(!client.range(exact).await.unwrap().more);

    let past = RangeRequest {
        revision: first,
        ..range("r/", "r0")
    };
    let past = client.range(past).await.unwrap();
    assert_eq!(keys(&past), ["r/a"]);
    assert_eq!(&past.kvs[0].value[..], b"1");
    assert_eq!(revision(&past.header), last, "the header shows the present");

    let counted = RangeRequest {
        count_only: true,
        ..range("r/", "r0")
    };
    let counted = client.range(counted).await.unwrap();
    assert_eq!((counted.count, counted.kvs.len()), (3, 0));
    let named = RangeRequest {
        keys_only: true,
        ..range("r/a", "")
    };
    let named = client.range(named).await.unwrap();
    assert_eq!((named.kvs[0].value.len(), named.kvs[0].version), (0, 2));
    let bounded = |min_mod: i64, max_mod: i64, min_create: i64, max_create: i64| RangeRequest {
        min_mod_revision: min_mod,
        max_mod_revision: max_mod,
        min_create_revision: min_create,
        max_create_revision: max_create,
        ..range("r/", "r0")
    };
    for (request, expected) in [
        (bounded(last, 0, 0, 0), vec!["r/a"]),
        (bounded(0, last - 1, 0, 0), vec!["r/b", "r/c"]),
        (bounded(0, 0, first + 1, 0), vec!["r/b", "r/c"]),
        (bounded(0, 0, 0, first), vec!["r/a"]),
        (bounded(first + 1, first + 1, 0, 0), vec!["r/b"]),
    ] {
        let answer = client.range(request).await.unwrap();
        assert_eq!(keys(&answer), expected);
        assert_eq!(answer.count, 3, "bounds do not count");
    }
    let serializable = RangeRequest {
        serializable: true,
        ..range("r/a", "")
    };
    assert_eq!(client.range(serializable).await.unwrap().count, 1);
}

async fn sorting(client: &mut Client) {
    for (key, value) in [
        ("s/a", "2"),
        ("s/b", "3"),
        ("s/c", "1"),
        ("s/a", "2"),
        ("s/a", "2"),
        ("s/c", "1"),
    ] {
        client.set(key, value).await;
    }
    let sorted = |target: SortTarget, order: SortOrder, limit: i64| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        limit,
        ..range("s/", "s0")
    };
    for (request, expected) in [
        (
            sorted(SortTarget::Key, SortOrder::Descend, 0),
            ["s/c", "s/b", "s/a"],
        ),
        (
            sorted(SortTarget::Version, SortOrder::Ascend, 0),
            ["s/b", "s/c", "s/a"],
        ),
        (
            sorted(SortTarget::Create, SortOrder::Descend, 0),
            ["s/c", "s/b", "s/a"],
        ),
        (
            sorted(SortTarget::Mod, SortOrder::Ascend, 0),
            ["s/b", "s/a", "s/c"],
        ),
        (
            sorted(SortTarget::Value, SortOrder::None, 0),
            ["s/c", "s/a", "s/b"],
        ),
    ] {
        let answer = client.range(request).await.unwrap();
        assert_eq!(keys(&answer), expected);
    }
    let newest = sorted(SortTarget::Mod, SortOrder::Descend, 1);
    let newest = client.range(newest).await.unwrap();
    assert_eq!(
        (keys(&newest), newest.more, newest.count),
        (vec!["s/c".to_owned()], true, 3)
    );
}

async fn puts(client: &mut Client) {
    let first = client
        .put(PutRequest {
            prev_kv: true,
            ..put("p/a", "1")
        })
        .await
        .unwrap();
    assert_eq!(first.prev_kv, None);
    let second = client
        .put(PutRequest {
            prev_kv: true,
            ..put("p/a", "2")
        })
        .await
        .unwrap();
    assert_eq!(&second.prev_kv.unwrap().value[..], b"1");
    let kept = PutRequest {
        ignore_value: true,
        ..put("p/a", "")
    };
    client.put(kept).await.unwrap();
    let now = client.range(range("p/a", "")).await.unwrap();
    assert_eq!((&now.kvs[0].value[..], now.kvs[0].version), (&b"2"[..], 3));
    let missing = PutRequest {
        ignore_value: true,
        ..put("p/none", "")
    };
    assert_eq!(
        error(client.put(missing).await),
        (3, "etcdserver: key not found".into())
    );
    let empty = client.put(put("p/empty", "")).await.unwrap();
    let found = client.range(range("p/empty", "")).await.unwrap();
    assert_eq!(found.count, 1, "an empty value is a value");
    assert_eq!(found.kvs[0].mod_revision, revision(&empty.header));
}

async fn deletes(client: &mut Client) {
    for key in ["d/a", "d/b", "d/c"] {
        client.set(key, key).await;
    }
    let before = client.set("d/d", "x").await;
    let gone = client
        .delete(DeleteRangeRequest {
            prev_kv: true,
            ..delete("d/a", "d/c")
        })
        .await
        .unwrap();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (2, 2));
    assert_eq!(&gone.prev_kvs[1].value[..], b"d/b");
    assert_eq!(revision(&gone.header), before + 1, "one revision for all");
    let nothing = client.delete(delete("d/a", "")).await.unwrap();
    assert_eq!(
        (nothing.deleted, revision(&nothing.header)),
        (0, before + 1)
    );
    client.set("d/a", "again").await;
    let again = client.range(range("d/a", "")).await.unwrap();
    assert_eq!(
        (again.kvs[0].create_revision, again.kvs[0].version),
        (before + 2, 1)
    );
}

fn compare(key: &str, result: CompareResult, union: compare::TargetUnion) -> Compare {
    let target = match union {
        compare::TargetUnion::Version(_) => CompareTarget::Version,
        compare::TargetUnion::CreateRevision(_) => CompareTarget::Create,
        compare::TargetUnion::ModRevision(_) => CompareTarget::Mod,
        compare::TargetUnion::Value(_) => CompareTarget::Value,
        compare::TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

async fn holds(client: &mut Client, compare: Compare) -> bool {
    let request = TxnRequest {
        compare: vec![compare],
        ..TxnRequest::default()
    };
    client.txn(request).await.unwrap().succeeded
}

async fn comparisons(client: &mut Client) {
    use compare::TargetUnion as Union;
    let created = client.set("c/a", "m").await;
    let modified = client.set("c/a", "m").await;
    type Make = fn(i64) -> Union;
    let numbers: [(Make, i64); 4] = [
        (Union::Version, 2),
        (Union::CreateRevision, created),
        (Union::ModRevision, modified),
        (Union::Lease, 0),
    ];
    let table = [
        (CompareResult::Equal, [false, true, false]),
        (CompareResult::NotEqual, [true, false, true]),
        (CompareResult::Greater, [true, false, false]),
        (CompareResult::Less, [false, false, true]),
    ];
    for (result, expected) in table {
        for (make, actual) in numbers {
            for (difference, expected) in [-1, 0, 1].into_iter().zip(expected) {
                let one = compare("c/a", result, make(actual + difference));
                assert_eq!(holds(client, one.clone()).await, expected, "{one:?}");
            }
        }
        for (value, expected) in ["l", "m", "n"].into_iter().zip(expected) {
            let one = compare("c/a", result, Union::Value(bytes(value)));
            assert_eq!(holds(client, one.clone()).await, expected, "{one:?}");
        }
        let missing = compare("c/none", result, Union::Value(Bytes::new()));
        assert!(
            !holds(client, missing).await,
            "a missing value compares with nothing"
        );
    }
    assert!(
        holds(
            client,
            compare("c/none", CompareResult::Equal, Union::ModRevision(0))
        )
        .await
    );
    client.set("c/b", "m").await;
    let ranged = |value: &str, end: &str| Compare {
        range_end: bytes(end),
        ..compare("c/", CompareResult::Equal, Union::Value(bytes(value)))
    };
    assert!(holds(client, ranged("m", "c0")).await);
    client.set("c/b", "n").await;
    assert!(!holds(client, ranged("m", "c0")).await);
    assert!(
        !holds(client, ranged("m", "c/a")).await,
        "nobody is in the range"
    );
}

async fn transactions(client: &mut Client) {
    let before = client.set("t/base", "0").await;
    let nested = TxnRequest {
        compare: vec![compare(
            "t/a",
            CompareResult::Equal,
            compare::TargetUnion::Version(0),
        )],
        success: vec![op(Request::Put(put("t/nested", "n")))],
        failure: Vec::new(),
    };
    let request = TxnRequest {
        compare: Vec::new(),
        success: vec![
            op(Request::Range(range("t/", "t0"))),
            op(Request::Put(put("t/a", "1"))),
            op(Request::Range(range("t/", "t0"))),
            op(Request::DeleteRange(delete("t/base", ""))),
            op(Request::Txn(nested)),
        ],
        failure: Vec::new(),
    };
    let answer = client.txn(request).await.unwrap();
    assert!(answer.succeeded);
    assert_eq!(revision(&answer.header), before + 1);
    let [
        Some(Response::Range(first)),
        Some(Response::Put(one)),
        Some(Response::Range(second)),
        Some(Response::DeleteRange(gone)),
        Some(Response::Txn(inner)),
    ] = [0, 1, 2, 3, 4].map(|at| answer.responses[at].response.clone())
    else {
        panic!("answers of other kinds: {answer:?}");
    };
    assert_eq!(
        (keys(&first), revision(&first.header)),
        (vec!["t/base".to_owned()], before)
    );
    assert_eq!(revision(&one.header), before + 1);
    assert_eq!(keys(&second), ["t/a", "t/base"]);
    assert_eq!((gone.deleted, revision(&gone.header)), (1, before + 1));
    assert!(
        inner.succeeded,
        "nested comparisons see the state before the transaction"
    );
    let all = client.range(range("t/", "t0")).await.unwrap();
    assert_eq!(keys(&all), ["t/a", "t/nested"]);
    assert!(all.kvs.iter().all(|kv| kv.mod_revision == before + 1));

    let failed = TxnRequest {
        compare: vec![compare(
            "t/a",
            CompareResult::Equal,
            compare::TargetUnion::ModRevision(1),
        )],
        success: vec![op(Request::Put(put("t/a", "2")))],
        failure: vec![op(Request::Range(range("t/a", "")))],
    };
    let failed = client.txn(failed).await.unwrap();
    assert!(!failed.succeeded);
    assert_eq!(revision(&failed.header), before + 1, "nothing was written");
    assert_eq!(failed.responses.len(), 1);

    let empty = client.txn(TxnRequest::default()).await.unwrap();
    assert!(empty.succeeded && empty.responses.is_empty());
    let half_done = TxnRequest {
        success: vec![
            op(Request::Put(put("t/half", "1"))),
            op(Request::Put(PutRequest {
                ignore_value: true,
                ..put("t/none", "")
            })),
        ],
        ..TxnRequest::default()
    };
    assert_eq!(
        error(client.txn(half_done).await),
        (3, "etcdserver: key not found".into())
    );
    let half = client.range(range("t/half", "")).await.unwrap();
    assert_eq!(
        (half.count, revision(&half.header)),
        (0, before + 1),
        "all or nothing"
    );
}

async fn refusals(client: &mut Client) {
    let no_key = (3, "etcdserver: key is not provided".to_owned());
    assert_eq!(error(client.range(range("", "")).await), no_key);
    assert_eq!(error(client.put(put("", "")).await), no_key);
    assert_eq!(error(client.delete(delete("", "")).await), no_key);
    let far = RangeRequest {
        revision: 1 << 40,
        ..range("a", "")
    };
    let future = (
        11,
        "etcdserver: mvcc: required revision is a future revision".to_owned(),
    );
    assert_eq!(error(client.range(far.clone()).await), future);
    let in_txn = TxnRequest {
        success: vec![op(Request::Range(far))],
        ..TxnRequest::default()
    };
    assert_eq!(error(client.txn(in_txn).await), future);
    assert_eq!(error(client.compact(1 << 40).await), future);
    let odd = RangeRequest {
        sort_target: 77,
        ..range("a", "b")
    };
    assert_eq!(
        error(client.range(odd).await),
        (3, "etcdserver: invalid sort option".into())
    );
    let given = PutRequest {
        ignore_value: true,
        ..put("a", "v")
    };
    assert_eq!(
        error(client.put(given).await),
        (3, "etcdserver: value is provided".into())
    );
    let leased = PutRequest {
        ignore_lease: true,
        lease: 5,
        ..put("a", "v")
    };
    assert_eq!(
        error(client.put(leased).await),
        (3, "etcdserver: lease is provided".into())
    );
    let lost = PutRequest {
        lease: 4711,
        ..put("a", "v")
    };
    assert_eq!(
        error(client.put(lost).await),
        (5, "etcdserver: requested lease not found".into())
    );
    let twice = TxnRequest {
        success: vec![
            op(Request::Put(put("a", "1"))),
            op(Request::Put(put("a", "2"))),
        ],
        ..TxnRequest::default()
    };
    assert_eq!(
        error(client.txn(twice).await),
        (3, "etcdserver: duplicate key given in txn request".into())
    );
    let many = TxnRequest {
        success: (0..129)
            .map(|_| op(Request::Range(range("a", ""))))
            .collect(),
        ..TxnRequest::default()
    };
    assert_eq!(
        error(client.txn(many).await),
        (3, "etcdserver: too many operations in txn request".into())
    );
    let large = put("a", &"v".repeat((3 << 19) + 100));
    assert_eq!(
        error(client.put(large).await),
        (3, "etcdserver: request is too large".into())
    );
    let larger = put("a", &"v".repeat(3 << 20));
    assert_eq!(error(client.put(larger).await).0, 8);
    let unknown = client.unary::<_, PutResponse>("/etcdserverpb.KV/Nothing", put("a", "b"));
    assert_eq!(
        error(unknown.await),
        (
            12,
            "unknown method Nothing for service etcdserverpb.KV".into()
        )
    );
    let unknown = client.unary::<_, PutResponse>("/some.Other/Thing", put("a", "b"));
    assert_eq!(
        error(unknown.await),
        (12, "unknown service some.Other".into())
    );
}

async fn leases(client: &mut Client) {
    let grant = |ttl: i64, id: i64| LeaseGrantRequest { ttl, id };
    let lease: LeaseGrantResponse = client
        .unary(path::LEASE_GRANT, grant(100, 0))
        .await
        .unwrap();
    assert!(lease.id != 0 && lease.ttl == 100 && lease.error.is_empty());
    let chosen: LeaseGrantResponse = client.unary(path::LEASE_GRANT, grant(1, 77)).await.unwrap();
    assert_eq!(
        (chosen.id, chosen.ttl),
        (77, 2),
        "a lease lasts two seconds at least"
    );
    let again = client
        .unary::<_, LeaseGrantResponse>(path::LEASE_GRANT, grant(9, 77))
        .await;
    assert_eq!(error(again), (9, "etcdserver: lease already exists".into()));
    let long = client
        .unary::<_, LeaseGrantResponse>(path::LEASE_GRANT, grant(9_000_000_001, 0))
        .await;
    assert_eq!(error(long), (11, "etcdserver: too large lease TTL".into()));

    let before = client
        .put(PutRequest {
            lease: lease.id,
            ..put("l/a", "1")
        })
        .await
        .unwrap();
    client
        .put(PutRequest {
            lease: lease.id,
            ..put("l/b", "1")
        })
        .await
        .unwrap();
    let kept = client
        .put(PutRequest {
            ignore_lease: true,
            ..put("l/a", "2")
        })
        .await
        .unwrap();
    assert_eq!(revision(&kept.header), revision(&before.header) + 2);
    let shown = client.range(range("l/a", "")).await.unwrap();
    assert_eq!(
        (shown.kvs[0].lease, &shown.kvs[0].value[..]),
        (lease.id, &b"2"[..])
    );
    client.set("l/b", "without").await;
    let ask = |id: i64| LeaseTimeToLiveRequest { id, keys: true };
    let left: LeaseTimeToLiveResponse = client
        .unary(path::LEASE_TIME_TO_LIVE, ask(lease.id))
        .await
        .unwrap();
    assert_eq!(left.keys, ["l/a"], "a write without a lease detaches");
    assert!(left.granted_ttl == 100 && (1..=100).contains(&left.ttl));
    let none: LeaseTimeToLiveResponse = client
        .unary(path::LEASE_TIME_TO_LIVE, ask(4711))
        .await
        .unwrap();
    assert_eq!((none.ttl, none.granted_ttl), (-1, 0));
    let all: LeaseLeasesResponse = client
        .unary(path::LEASE_LEASES, LeaseLeasesRequest {})
        .await
        .unwrap();
    assert!(all.leases.contains(&LeaseStatus { id: lease.id }));

    let asked = futures_util::stream::iter([lease.id, 4711].map(|id| LeaseKeepAliveRequest { id }));
    let mut alive = client
        .streaming::<_, LeaseKeepAliveResponse>(path::LEASE_KEEP_ALIVE, asked)
        .await
        .unwrap();
    let answer = alive.message().await.unwrap().unwrap();
    assert_eq!((answer.id, answer.ttl), (lease.id, 100));
    assert_eq!(
        alive.message().await.unwrap().unwrap().ttl,
        0,
        "there is no such lease"
    );

    let last = client.range(range("l/a", "")).await.unwrap();
    let revoke = |id: i64| LeaseRevokeRequest { id };
    let revoked: LeaseRevokeResponse = client
        .unary(path::LEASE_REVOKE, revoke(lease.id))
        .await
        .unwrap();
    assert_eq!(revision(&revoked.header), revision(&last.header) + 1);
    assert_eq!(client.range(range("l/a", "")).await.unwrap().count, 0);
    assert_eq!(client.range(range("l/b", "")).await.unwrap().count, 1);
    let gone = client
        .unary::<_, LeaseRevokeResponse>(path::LEASE_REVOKE, revoke(lease.id))
        .await;
    assert_eq!(
        error(gone),
        (5, "etcdserver: requested lease not found".into())
    );
    // The other lease ends by itself.
    loop {
        let left: LeaseTimeToLiveResponse = client
            .unary(path::LEASE_TIME_TO_LIVE, ask(77))
            .await
            .unwrap();
        if left.ttl == -1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn upkeep(client: &mut Client) {
    let status: StatusResponse = client.unary(path::STATUS, StatusRequest {}).await.unwrap();
    assert!(status.version.starts_with("3."), "{}", status.version);
    assert!(status.db_size > 0 && status.errors.is_empty() && !status.is_learner);
    assert_eq!(status.leader, status.header.unwrap().member_id);
    let members: MemberListResponse = client
        .unary(path::MEMBER_LIST, MemberListRequest::default())
        .await
        .unwrap();
    assert_eq!(members.members.len(), 1);
    assert_eq!(members.members[0].id, status.leader);
    assert_eq!(members.members[0].client_urls.len(), 1);
    let alarms: AlarmResponse = client
        .unary(path::ALARM, AlarmRequest::default())
        .await
        .unwrap();
    assert!(alarms.alarms.is_empty());
    let hash = |revision: i64| HashKvRequest { revision };
    let now: HashKvResponse = client.unary(path::HASH_KV, hash(0)).await.unwrap();
    let then: HashKvResponse = client
        .unary(path::HASH_KV, hash(revision(&now.header)))
        .await
        .unwrap();
    assert_eq!(now.hash, then.hash);
    client.set("u/a", "1").await;
    let other: HashKvResponse = client.unary(path::HASH_KV, hash(0)).await.unwrap();
    assert_ne!(now.hash, other.hash);
    let _: DefragmentResponse = client
        .unary(path::DEFRAGMENT, DefragmentRequest {})
        .await
        .unwrap();
    let mut parts = client
        .server_streaming::<_, SnapshotResponse>(path::SNAPSHOT, SnapshotRequest {})
        .await
        .unwrap();
    let (mut size, mut remaining) = (0, u64::MAX);
    while let Some(part) = parts.message().await.unwrap() {
        size += part.blob.len();
        assert!(part.remaining_bytes <= remaining);
        remaining = part.remaining_bytes;
    }
    assert_eq!((size % 512, remaining), (32, 0), "pages, and a digest");
    let auth = client
        .unary::<_, AuthStatusResponse>(path::AUTH_STATUS, AuthStatusRequest {})
        .await;
    // etcd before 3.5 has no such method.
    assert!(auth.is_err() || !auth.unwrap().enabled);
}

async fn compaction(client: &mut Client) {
    let first = client.set("k/a", "1").await;
    client.set("k/b", "1").await;
    client.delete(delete("k/b", "")).await.unwrap();
    let last = client.set("k/a", "2").await;
    client.compact(last - 1).await.unwrap();
    let compacted = (
        11,
        "etcdserver: mvcc: required revision has been compacted".to_owned(),
    );
    let at = |revision: i64| RangeRequest {
        revision,
        ..range("k/", "k0")
    };
    assert_eq!(error(client.range(at(first)).await), compacted);
    assert_eq!(error(client.range(at(last - 2)).await), compacted);
    let floor = client.range(at(last - 1)).await.unwrap();
    assert_eq!(
        (keys(&floor), &floor.kvs[0].value[..]),
        (vec!["k/a".to_owned()], &b"1"[..])
    );
    assert_eq!(error(client.compact(last - 1).await), compacted);
    let in_txn = TxnRequest {
        success: vec![op(Request::Range(at(first)))],
        ..TxnRequest::default()
    };
    assert_eq!(error(client.txn(in_txn).await), compacted);
}

/// A disk that runs out of room under many writers: each is told what became of its write, and that is so for ever.
#[test]
fn on_a_full_disk_every_answer_is_true() {
    let disk = MemDisk::default();
    let server = korch_on(&disk, Duration::from_secs(600));
    runtime().block_on(async {
        let mut client = server.client().await;
        let full = (8, "etcdserver: mvcc: database space exceeded".to_owned());
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for round in 0..30 {
            disk.set_copies((round % 3 == 1).then_some(100 + 17 * round));
            let writes = (0..20).map(|number| {
                let (mut client, key) = (client.clone(), format!("d/{round}/{number}"));
                async move {
                    let answer = client.put(put(&key, "some value")).await;
                    (key, answer)
                }
            });
            for (key, answer) in futures_util::future::join_all(writes).await {
                match answer {
                    Ok(_) => kept.push(key),
                    refused => {
                        assert_eq!(error(refused), full);
                        lost.push(key);
                    }
                }
            }
        }
        disk.set_copies(None);
        let store = server.store.clone().unwrap();
        // A full disk is not asked again at once, and the room that a refused write had is only known by the next that succeeds.
        while client.put(put("d/last", "1")).await.is_err() {
            tokio::task::yield_now().await;
        }
        let recovered = async {
            while store.problem().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, recovered).await.unwrap();
        drop(store);
        assert!(
            lost.len() > 20 && kept.len() > 100,
            "{} {}",
            lost.len(),
            kept.len()
        );
        kept.push("d/last".into());
        kept.sort();
        let found = client.range(range("d/", "d0")).await.unwrap();
        assert_eq!(keys(&found), kept);
    });
    drop(server);
    let crashed = disk.crashed(|_, durable, _| durable.to_vec());
    let reopened = Store::open_on(Arc::new(crashed), 1 << 20).unwrap();
    assert!(reopened.get(b"d/last", 0).unwrap().is_some());
}
