//! etcd's promises of a watch: ordered, unique, reliable, atomic, resumable, bookmarkable.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::super::wire::watch_request::RequestUnion;
use super::*;

#[test]
fn korch_keeps_the_promises_of_a_watch() {
    let server = korch(Duration::from_secs(600));
    runtime().block_on(promises(&server));
}

async fn promises(server: &Server) {
    let mut client = server.client().await;
    past_and_present(&mut client).await;
    filters_and_previous_values(&mut client).await;
    many_on_one_stream(&mut client).await;
    the_future(&mut client).await;
    progress(&mut client).await;
    fragments(&mut client).await;
    under_load(server).await;
    compaction(&mut client).await;
}

/// One Watch stream.
pub(super) struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// What came before an answer that was waited for.
    early: VecDeque<WatchResponse>,
}

impl Stream {
    pub(super) async fn open(client: &mut Client) -> Self {
        Stream::open_with(client, None).await
    }

    /// Say `first` before the server answers: etcd's head of the answer comes with its first answer.
    pub(super) async fn open_with(client: &mut Client, first: Option<RequestUnion>) -> Self {
        let (requests, mut receiver) = mpsc::unbounded_channel();
        if first.is_some() {
            let request_union = first;
            requests.send(WatchRequest { request_union }).unwrap();
        }
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)).fuse();
        let answers = client.streaming(path::WATCH, stream).await.unwrap();
        Stream {
            requests,
            answers,
            early: VecDeque::new(),
        }
    }

    fn ask(&self, request: RequestUnion) {
        let request_union = Some(request);
        self.requests.send(WatchRequest { request_union }).unwrap();
    }

    pub(super) async fn next(&mut self) -> WatchResponse {
        match self.early.pop_front() {
            Some(answer) => answer,
            None => self.answers.message().await.unwrap().unwrap(),
        }
    }

    /// Create a watch and return its id.
    pub(super) async fn create(&mut self, request: WatchCreateRequest) -> i64 {
        self.ask(RequestUnion::Create(request));
        self.created().await
    }

    /// Wait for the id of the watch that was asked for.
    pub(super) async fn created(&mut self) -> i64 {
        loop {
            let answer = self.answers.message().await.unwrap().unwrap();
            if answer.created {
                assert!(!answer.canceled && answer.events.is_empty());
                return answer.watch_id;
            }
            self.early.push_back(answer);
        }
    }

    /// The next `count` events as type, key and revision.
    async fn events(&mut self, count: usize) -> Vec<(i32, String, i64)> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events.iter().map(shown));
        }
        events
    }
}

fn shown(event: &Event) -> (i32, String, i64) {
    let kv = event.kv.as_ref().unwrap();
    let key = String::from_utf8(kv.key.to_vec()).unwrap();
    (event.r#type, key, kv.mod_revision)
}

fn watch(key: &str, end: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: bytes(key),
        range_end: bytes(end),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

const PUT: i32 = EventType::Put as i32;
const DELETE: i32 = EventType::Delete as i32;

async fn past_and_present(client: &mut Client) {
    let first = client.set("w/a", "1").await;
    client.set("x/other", "1").await;
    client.delete(delete("w/a", "")).await.unwrap();
    let mut stream = Stream::open(client).await;
    stream.create(watch("w/", "w0", first)).await;
    client.set("w/b", "1").await;
    let events = stream.events(3).await;
    let expected = [
        (PUT, "w/a".to_owned(), first),
        (DELETE, "w/a".to_owned(), first + 2),
        (PUT, "w/b".to_owned(), first + 3),
    ];
    assert_eq!(events, expected);
    // From now on only.
    let mut stream = Stream::open(client).await;
    stream.create(watch("w/", "w0", 0)).await;
    let next = client.set("w/c", "1").await;
    assert_eq!(stream.events(1).await, [(PUT, "w/c".to_owned(), next)]);
}

async fn filters_and_previous_values(client: &mut Client) {
    let mut stream = Stream::open(client).await;
    let with_previous = WatchCreateRequest {
        prev_kv: true,
        ..watch("f/a", "", 0)
    };
    let previous = stream.create(with_previous).await;
    let filtered = |filter: FilterType| WatchCreateRequest {
        filters: vec![filter as i32],
        ..watch("f/a", "", 0)
    };
    let no_put = stream.create(filtered(FilterType::NoPut)).await;
    let no_delete = stream.create(filtered(FilterType::NoDelete)).await;
    let first = client.set("f/a", "1").await;
    client.set("f/a", "2").await;
    client.delete(delete("f/a", "")).await.unwrap();
    let mut seen: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
    while seen.values().map(Vec::len).sum::<usize>() < 3 + 1 + 2 {
        let answer = stream.next().await;
        seen.entry(answer.watch_id)
            .or_default()
            .extend(answer.events);
    }
    let types = |id: i64| {
        seen[&id]
            .iter()
            .map(|event| event.r#type)
            .collect::<Vec<_>>()
    };
    assert_eq!(types(previous), [PUT, PUT, DELETE]);
    assert_eq!(types(no_put), [DELETE]);
    assert_eq!(types(no_delete), [PUT, PUT]);
    let [created, updated, gone] = seen[&previous].as_slice() else {
        panic!("three events");
    };
    assert_eq!(created.prev_kv, None);
    assert_eq!(updated.prev_kv.as_ref().unwrap().value, "1");
    let kv = updated.kv.as_ref().unwrap();
    assert_eq!(
        (kv.create_revision, kv.version, &kv.value[..]),
        (first, 2, &b"2"[..])
    );
    assert_eq!(gone.prev_kv.as_ref().unwrap().value, "2");
    let kv = gone.kv.as_ref().unwrap();
    assert_eq!((kv.create_revision, kv.version, kv.value.len()), (0, 0, 0));
    assert!(seen[&no_delete].iter().all(|event| event.prev_kv.is_none()));
}

async fn many_on_one_stream(client: &mut Client) {
    let mut stream = Stream::open(client).await;
    let first = stream.create(watch("m/a", "", 0)).await;
    let second = stream.create(watch("m/", "m0", 0)).await;
    assert_eq!((first, second), (0, 1));
    let chosen = WatchCreateRequest {
        watch_id: 42,
        ..watch("m/b", "", 0)
    };
    assert_eq!(stream.create(chosen.clone()).await, 42);
    stream.ask(RequestUnion::Create(chosen));
    let twice = stream.next().await;
    assert!(twice.created && twice.canceled && twice.watch_id == -1);
    assert_eq!(
        twice.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    stream.ask(RequestUnion::Create(watch("m/b", "m/a", 0)));
    let empty = stream.next().await;
    assert!(empty.created && empty.canceled && empty.watch_id == -1);
    assert_eq!(empty.cancel_reason, "mvcc: watcher range is empty");
    client.set("m/a", "1").await;
    let mut ids = [stream.next().await.watch_id, stream.next().await.watch_id];
    ids.sort_unstable();
    assert_eq!(ids, [first, second]);
    stream.ask(RequestUnion::Cancel(WatchCancelRequest {
        watch_id: second,
    }));
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.watch_id == second && canceled.cancel_reason.is_empty());
    client.set("m/b", "1").await;
    assert_eq!(stream.next().await.watch_id, 42);
}

async fn the_future(client: &mut Client) {
    let now = client.set("n/a", "1").await;
    let mut stream = Stream::open(client).await;
    stream.create(watch("n/a", "", now + 2)).await;
    client.set("n/a", "2").await;
    client.set("n/a", "3").await;
    assert_eq!(stream.events(1).await, [(PUT, "n/a".to_owned(), now + 2)]);
}

async fn progress(client: &mut Client) {
    let first = client.set("g/a", "0").await;
    for number in 0..50 {
        client.set("g/a", &number.to_string()).await;
    }
    let mut stream = Stream::open(client).await;
    stream.create(watch("g/a", "", first)).await;
    stream.create(watch("h/", "h0", first)).await;
    let last = client.set("elsewhere", "1").await;
    let mut seen = 0;
    // A server that has not caught up yet says nothing, so clients ask again, as kube-apiserver does.
    'asking: loop {
        stream.ask(RequestUnion::Progress(WatchProgressRequest {}));
        let patience = Duration::from_millis(100);
        while let Ok(answer) = tokio::time::timeout(patience, stream.next()).await {
            seen += answer.events.len();
            if answer.watch_id == -1 {
                assert!(answer.events.is_empty());
                assert_eq!(seen, 51, "events up to the revision came before");
                assert!(revision(&answer.header) >= last);
                break 'asking;
            }
        }
    }
}

async fn fragments(client: &mut Client) {
    let value = "v".repeat(400 << 10);
    let ops = |from: usize| {
        (from..from + 3).map(|number| op(Request::Put(put(&format!("q/{number}"), &value))))
    };
    let mut stream = Stream::open(client).await;
    let wanted = WatchCreateRequest {
        fragment: true,
        prev_kv: true,
        ..watch("q/", "q0", 0)
    };
    stream.create(wanted).await;
    for _ in 0..2 {
        let success = ops(0).collect();
        client
            .txn(TxnRequest {
                success,
                ..TxnRequest::default()
            })
            .await
            .unwrap();
    }
    // The second revision carries its previous values too, 2.4 MB together, so it must come in parts.
    let (mut parts, mut events) = (0, 0);
    while events < 6 {
        let answer = stream.next().await;
        events += answer.events.len();
        parts += usize::from(answer.fragment);
        assert!(
            events < 6 || !answer.fragment,
            "the last part says that it is"
        );
    }
    assert!(parts > 0);
}

/// Writers, and watchers that come, go and come back where they were: every one sees every revision once, whole and in order.
async fn under_load(server: &Server) {
    const TURNS: usize = 200;
    let mut probe = server.client().await;
    let start = probe.set("y/start", "").await + 1;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let mut client = server.client().await;
        writers.spawn(async move {
            for turn in 0..TURNS {
                let name = |part: &str| format!("y/{writer}-{part}");
                let success = vec![
                    op(Request::Put(put(&name("a"), &turn.to_string()))),
                    op(Request::Put(put(&name("b"), &turn.to_string()))),
                ];
                let txn = TxnRequest {
                    success,
                    ..TxnRequest::default()
                };
                client.txn(txn).await.unwrap();
            }
        });
    }
    let total = 4 * TURNS;
    let mut watchers = tokio::task::JoinSet::new();
    for watcher in 0..4_usize {
        let mut client = server.client().await;
        watchers.spawn(async move {
            let mut seen: Vec<i64> = Vec::new();
            while seen.len() < total {
                let next = seen.last().map_or(start, |last| last + 1);
                let mut stream = Stream::open(&mut client).await;
                stream.create(watch("y/", "y0", next)).await;
                // Some leave after a few answers, and come back.
                for _ in 0..=watcher * 20 {
                    if seen.len() >= total {
                        break;
                    }
                    let answer = stream.next().await;
                    let revisions: Vec<i64> =
                        answer.events.iter().map(|event| shown(event).2).collect();
                    assert!(revisions.is_sorted());
                    assert!(revisions.last() <= Some(&revision(&answer.header)));
                    for pair in answer.events.chunks(2) {
                        let [one, other] = pair else {
                            panic!("a revision was split");
                        };
                        assert_eq!(shown(one).2, shown(other).2, "both keys of a transaction");
                        seen.push(shown(one).2);
                    }
                }
            }
            assert!(
                seen.is_sorted_by(|one, next| one < next),
                "once, and in order"
            );
            seen
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut all = Vec::new();
    while let Some(seen) = watchers.join_next().await {
        all.push(seen.unwrap());
    }
    assert!(
        all.iter().all(|seen| *seen == all[0]),
        "everybody saw the same"
    );
    assert_eq!(all[0].len(), total);
}

async fn compaction(client: &mut Client) {
    let first = client.set("z/a", "1").await;
    client.set("z/a", "2").await;
    let last = client.set("z/a", "3").await;
    let mut running = Stream::open(client).await;
    running.create(watch("z/", "z0", first)).await;
    assert_eq!(running.events(3).await.len(), 3);
    client.compact(last).await.unwrap();
    let mut late = Stream::open(client).await;
    let id = late.create(watch("z/", "z0", first)).await;
    let ended = late.next().await;
    assert!(ended.canceled && ended.watch_id == id && ended.events.is_empty());
    assert_eq!(ended.compact_revision, last);
    let mut on_time = Stream::open(client).await;
    on_time.create(watch("z/", "z0", last + 1)).await;
    let mut just_in_time = Stream::open(client).await;
    let with_previous = WatchCreateRequest {
        prev_kv: true,
        ..watch("z/", "z0", last)
    };
    just_in_time.create(with_previous).await;
    let next = client.set("z/a", "4").await;
    assert_eq!(on_time.events(1).await, [(PUT, "z/a".to_owned(), next)]);
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(just_in_time.next().await.events);
    }
    let previous = |event: &Event| event.prev_kv.as_ref().map(|kv| kv.mod_revision);
    assert_eq!(shown(&told[0]), (PUT, "z/a".to_owned(), last));
    assert_eq!(
        (previous(&told[0]), previous(&told[1])),
        (None, Some(last)),
        "what the compacted revision replaced is forgotten"
    );
    assert_eq!(
        running.events(1).await,
        [(PUT, "z/a".to_owned(), next)],
        "a watch goes on over a compaction"
    );
}

#[test]
fn a_quiet_watch_that_asked_for_it_is_told_how_far_it_is() {
    let server = korch(Duration::from_millis(20));
    runtime().block_on(async {
        let mut client = server.client().await;
        let now = client.set("elsewhere", "1").await;
        let mut stream = Stream::open(&mut client).await;
        stream.create(watch("silent", "", 0)).await;
        let wanted = WatchCreateRequest {
            progress_notify: true,
            ..watch("quiet", "", 0)
        };
        let id = stream.create(wanted).await;
        let note = stream.next().await;
        assert_eq!((note.watch_id, note.events.len()), (id, 0));
        assert_eq!(revision(&note.header), now);
    });
}

/// A client that does not read: its queue in the store is cut, and when it reads again nothing is missing.
#[test]
fn a_slow_watcher_misses_nothing() {
    let server = korch(Duration::from_secs(600));
    let store = server.store.clone().unwrap();
    runtime().block_on(async {
        const WRITES: usize = 40_000;
        let mut client = server.client().await;
        let mut stream = Stream::open(&mut client).await;
        stream.create(watch("s", "", 0)).await;
        let value = vec![b'v'; 1024];
        for number in 0..WRITES {
            store.transact(|txn| txn.put(b"s", &value, 0)).unwrap();
            if number % 100 == 0 {
                let revision = store.flush().unwrap();
                store.publish(revision);
            }
        }
        let revision = store.flush().unwrap();
        store.publish(revision);
        let events = stream.events(WRITES).await;
        assert!(events.is_sorted_by(|one, next| one.2 + 1 == next.2));
        assert_eq!(events.len(), WRITES);
    });
}
