//! The same random script on korch and on Debian's etcd: every answer, every refusal and every event of every watch is the same.
//!
//! A script is drawn from a seed while it runs, one step at a time on both. KORCH_ETCD_STEPS says how many steps are taken, and
//! KORCH_ETCD_SEED where they begin. Where an old etcd is known to be wrong, what newer ones do is expected of korch, and said here.

use std::fmt::Debug;

use super::super::wire::compare::TargetUnion;
use super::super::wire::response_op::Response;
use super::super::wire::watch_request::RequestUnion;
use super::watching::Stream;
use super::*;

const STEPS: u64 = 600;
const KEYS: [&str; 6] = ["k/a", "k/b", "k/c", "k/d", "l/a", "l/b"];
/// From and to, as etcd reads them: one key, a part, a prefix, everything from a key on, everything.
const RANGES: [(&str, &str); 7] = [
    ("k/a", ""),
    ("k/c", ""),
    ("k/b", "k/d"),
    ("k/", "k0"),
    ("k/c", "\0"),
    ("l/", "l0"),
    ("\0", "\0"),
];
const WATCHES_MAX: usize = 4;

/// Sebastiano Vigna's splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next(100) < percent
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.next(KEYS.len() as u64) as usize]
    }

    fn range(&mut self) -> (&'static str, &'static str) {
        RANGES[self.next(RANGES.len() as u64) as usize]
    }

    fn lease(&mut self) -> i64 {
        if self.chance(70) {
            return 0;
        }
        1 + self.next(3) as i64
    }

    /// A revision near the present one, now and then one that is too old or not there yet.
    fn revision(&mut self, now: i64) -> i64 {
        (now + 2 - self.next(14) as i64).max(0)
    }
}

/// etcd 3.4 overlooks a key given twice in a transaction when one of the two is in a deletion without an end; newer ones do not.
fn with_an_end(delete: DeleteRangeRequest) -> DeleteRangeRequest {
    if delete.range_end.as_ref() != b"\0" {
        return delete;
    }
    DeleteRangeRequest {
        range_end: bytes("z"),
        ..delete
    }
}

/// A watch on both servers.
struct Pair {
    korch: Stream,
    etcd: Stream,
    request: WatchCreateRequest,
}

struct Both {
    korch: Client,
    etcd: Client,
    dice: Dice,
    now: i64,
    compacted: i64,
    watches: Vec<Pair>,
    step: u64,
}

#[test]
fn korch_and_etcd_answer_a_random_script_alike() {
    let Some(etcd) = etcd("differential") else {
        return;
    };
    let number = |name: &str, default| {
        let given = std::env::var(name).ok();
        given.map_or(default, |given| given.parse().unwrap())
    };
    let korch = korch(Duration::from_secs(600));
    runtime().block_on(async {
        let mut both = Both {
            korch: korch.client().await,
            etcd: etcd.client().await,
            dice: Dice(number("KORCH_ETCD_SEED", 1)),
            now: 1,
            compacted: 0,
            watches: Vec::new(),
            step: 0,
        };
        for step in 0..number("KORCH_ETCD_STEPS", STEPS) {
            both.step = step;
            both.take_step().await;
        }
        both.compare_watches().await;
    });
}

impl Both {
    /// Ask both; the answers, without what names the server, must be the same.
    async fn ask<Q, A>(&mut self, path: &'static str, question: Q) -> Result<A, (i32, String)>
    where
        Q: prost::Message + Clone + Debug + 'static,
        A: prost::Message + Default + Debug + PartialEq + Anonymous + 'static,
    {
        let korch = self.korch.unary::<Q, A>(path, question.clone()).await;
        let etcd = self.etcd.unary::<Q, A>(path, question.clone()).await;
        let plain = |answer: Result<A, Status>| {
            let refused = |status: Status| (status.code() as i32, status.message().to_owned());
            answer.map(Anonymous::anonymous).map_err(refused)
        };
        let (korch, etcd) = (plain(korch), plain(etcd));
        assert_eq!(korch, etcd, "step {}: {path} {question:?}", self.step);
        if let Ok(answer) = &korch {
            self.now = self.now.max(answer.revision());
        }
        korch
    }

    async fn take_step(&mut self) {
        match self.dice.next(100) {
            0..30 => {
                let put = self.random_put();
                let _ = self.ask::<_, PutResponse>(path::PUT, put).await;
            }
            30..40 => {
                let delete = self.random_delete();
                let _ = self
                    .ask::<_, DeleteRangeResponse>(path::DELETE_RANGE, delete)
                    .await;
            }
            40..60 => {
                let range = self.random_range();
                let _ = self.ask::<_, RangeResponse>(path::RANGE, range).await;
            }
            60..80 => {
                let txn = self.random_txn(2);
                let _ = self.ask::<_, TxnResponse>(path::TXN, txn).await;
            }
            80..90 => self.lease_step().await,
            90..96 => self.watch().await,
            _ => self.compact().await,
        }
    }

    fn random_put(&mut self) -> PutRequest {
        let dice = &mut self.dice;
        let (ignore_value, ignore_lease) = (dice.chance(8), dice.chance(8));
        let value = format!("v{}", dice.next(5));
        let lease = dice.lease();
        PutRequest {
            lease: if ignore_lease { 0 } else { lease },
            prev_kv: dice.chance(30),
            ignore_value,
            ignore_lease,
            ..put(dice.key(), if ignore_value { "" } else { &value })
        }
    }

    fn random_delete(&mut self) -> DeleteRangeRequest {
        let (key, end) = if self.dice.chance(60) {
            (self.dice.key(), "")
        } else {
            self.dice.range()
        };
        DeleteRangeRequest {
            prev_kv: self.dice.chance(50),
            ..delete(key, end)
        }
    }

    fn random_range(&mut self) -> RangeRequest {
        let now = self.now;
        let dice = &mut self.dice;
        let (key, end) = dice.range();
        let bound = |dice: &mut Dice| {
            if dice.chance(10) {
                dice.revision(now)
            } else {
                0
            }
        };
        RangeRequest {
            limit: if dice.chance(30) {
                dice.next(4) as i64
            } else {
                0
            },
            revision: if dice.chance(40) {
                dice.revision(now)
            } else {
                0
            },
            sort_order: dice.next(3) as i32,
            sort_target: dice.next(5) as i32,
            serializable: dice.chance(20),
            keys_only: dice.chance(20),
            count_only: dice.chance(15),
            min_mod_revision: bound(dice),
            max_mod_revision: bound(dice),
            min_create_revision: bound(dice),
            max_create_revision: bound(dice),
            ..range(key, end)
        }
    }

    fn random_compare(&mut self) -> Compare {
        let now = self.now;
        let dice = &mut self.dice;
        let (key, end) = if dice.chance(75) {
            (dice.key(), "")
        } else {
            dice.range()
        };
        let near = dice.revision(now);
        let (target, target_union) = match dice.next(5) {
            0 => (
                CompareTarget::Version,
                TargetUnion::Version(dice.next(4) as i64),
            ),
            1 => (
                CompareTarget::Create,
                TargetUnion::CreateRevision(near * i64::from(dice.chance(60))),
            ),
            2 => (
                CompareTarget::Mod,
                TargetUnion::ModRevision(near * i64::from(dice.chance(60))),
            ),
            3 => (
                CompareTarget::Value,
                TargetUnion::Value(bytes(&format!("v{}", dice.next(5)))),
            ),
            _ => (CompareTarget::Lease, TargetUnion::Lease(dice.lease())),
        };
        Compare {
            result: dice.next(4) as i32,
            target: target as i32,
            key: bytes(key),
            range_end: bytes(end),
            target_union: Some(target_union),
        }
    }

    fn random_txn(&mut self, depth: u32) -> TxnRequest {
        let branch = |both: &mut Both| {
            let count = both.dice.next(4);
            (0..count).map(|_| both.random_op(depth)).collect()
        };
        let (success, failure) = (branch(self), branch(self));
        TxnRequest {
            compare: (0..self.dice.next(3))
                .map(|_| self.random_compare())
                .collect(),
            success,
            failure,
        }
    }

    fn random_op(&mut self, depth: u32) -> RequestOp {
        op(match self.dice.next(10) {
            0..4 => Request::Put(self.random_put()),
            4..7 => Request::Range(self.random_range()),
            7..9 => Request::DeleteRange(with_an_end(self.random_delete())),
            _ if depth > 0 => Request::Txn(self.random_txn(depth - 1)),
            _ => Request::Put(self.random_put()),
        })
    }

    async fn lease_step(&mut self) {
        let id = 1 + self.dice.next(3) as i64;
        match self.dice.next(4) {
            0 => {
                let grant = LeaseGrantRequest {
                    ttl: 100_000 + id,
                    id,
                };
                let _ = self
                    .ask::<_, LeaseGrantResponse>(path::LEASE_GRANT, grant)
                    .await;
            }
            1 => {
                let revoke = LeaseRevokeRequest { id };
                let _ = self
                    .ask::<_, LeaseRevokeResponse>(path::LEASE_REVOKE, revoke)
                    .await;
            }
            2 => {
                let show = LeaseTimeToLiveRequest { id, keys: true };
                let path = path::LEASE_TIME_TO_LIVE;
                let _ = self.ask::<_, LeaseTimeToLiveResponse>(path, show).await;
            }
            _ => {
                let list = LeaseLeasesRequest {};
                let _ = self
                    .ask::<_, LeaseLeasesResponse>(path::LEASE_LEASES, list)
                    .await;
            }
        }
    }

    async fn compact(&mut self) {
        // An event that is on its way loses what it replaced when that is compacted, sooner on one server than on the other.
        self.compare_watches().await;
        let revision = self.dice.revision(self.now);
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        let done = self.ask::<_, CompactionResponse>(path::COMPACT, request);
        if done.await.is_ok() {
            self.compacted = revision;
        }
    }

    /// Begin a watch, often in the past: at the compacted revision, before it, after it.
    async fn watch(&mut self) {
        if self.watches.len() == WATCHES_MAX {
            self.compare_watches().await;
            self.watches.remove(0);
        }
        let (key, end) = self.dice.range();
        let start_revision = match self.dice.next(4) {
            0 => 0,
            1 => self.compacted + self.dice.next(2) as i64,
            _ => self.dice.revision(self.now),
        };
        let request = WatchCreateRequest {
            key: bytes(key),
            range_end: bytes(end),
            start_revision,
            prev_kv: self.dice.chance(50),
            filters: match self.dice.next(5) {
                0 => vec![FilterType::NoPut as i32],
                1 => vec![FilterType::NoDelete as i32],
                _ => Vec::new(),
            },
            ..WatchCreateRequest::default()
        };
        let first = || Some(RequestUnion::Create(request.clone()));
        let mut korch = Stream::open_with(&mut self.korch, first()).await;
        let mut etcd = Stream::open_with(&mut self.etcd, first()).await;
        let ids = (korch.created().await, etcd.created().await);
        assert_eq!(ids.0, ids.1, "step {}", self.step);
        self.watches.push(Pair {
            korch,
            etcd,
            request,
        });
        self.compare_watches().await;
    }

    /// Write something that every watch sees, and compare what each saw up to there.
    async fn compare_watches(&mut self) {
        let key = "k/c";
        let other = "l/a";
        let mut last = Vec::new();
        for key in [key, other, "k/a"] {
            let put = self
                .ask::<_, PutResponse>(path::PUT, put(key, "mark"))
                .await;
            let gone = self
                .ask::<_, DeleteRangeResponse>(path::DELETE_RANGE, delete(key, ""))
                .await;
            let (put, gone) = (put.unwrap().revision(), gone.unwrap().revision());
            last.push((key, put, gone));
        }
        let compacted = self.compacted;
        let mut watches = std::mem::take(&mut self.watches);
        let mut kept = Vec::new();
        for mut pair in watches.drain(..) {
            let span = crate::store::Span::new(&pair.request.key, &pair.request.range_end);
            let is_filtered = |kind: FilterType| pair.request.filters.contains(&(kind as i32));
            let seen = |(_, put, gone): &(&str, i64, i64)| {
                if is_filtered(FilterType::NoDelete) {
                    *put
                } else {
                    *gone
                }
            };
            let covered = last
                .iter()
                .filter(|(key, _, _)| span.contains(key.as_bytes()));
            let upto = covered.map(seen).max().unwrap();
            let korch = pair.korch.upto(upto).await;
            let mut etcd = pair.etcd.upto(upto).await;
            let start = pair.request.start_revision;
            // etcd before 3.5.18 forgets deletions made at the compacted revision itself.
            for (at, event) in korch.0.iter().enumerate() {
                let kv = event.kv.as_ref().unwrap();
                let is_forgotten = event.r#type == EventType::Delete as i32
                    && kv.mod_revision == start
                    && start == compacted;
                if is_forgotten && etcd.0.get(at) != Some(event) {
                    etcd.0.insert(at, event.clone());
                }
            }
            let what = format!(
                "step {}: {:?}, compacted {compacted}",
                self.step, pair.request
            );
            assert_eq!(korch, etcd, "{what}");
            if korch.1.is_none() {
                kept.push(pair);
            }
        }
        self.watches = kept;
    }
}

impl Stream {
    /// All events up to that of revision `upto`, or up to where the watch was canceled, and then the compacted revision it was told.
    async fn upto(&mut self, upto: i64) -> (Vec<Event>, Option<i64>) {
        let mut events = Vec::new();
        loop {
            let answer = self.next().await;
            let last = answer.events.last().and_then(|event| event.kv.as_ref());
            let last = last.map_or(0, |kv| kv.mod_revision);
            events.extend(answer.events);
            if answer.canceled {
                return (events, Some(answer.compact_revision));
            }
            if last >= upto {
                return (events, None);
            }
        }
    }
}

/// What an answer says beside the name of the server.
trait Anonymous: Sized {
    fn header(&mut self) -> &mut Option<ResponseHeader>;

    fn revision(&self) -> i64;

    fn anonymous(mut self) -> Self {
        if let Some(header) = self.header() {
            *header = ResponseHeader {
                revision: header.revision,
                ..ResponseHeader::default()
            };
        }
        self.more();
        self
    }

    /// Whatever else two servers may tell differently.
    fn more(&mut self) {}
}

macro_rules! anonymous {
    ($($answer:ty: $more:expr),* $(,)?) => {$(
        impl Anonymous for $answer {
            fn header(&mut self) -> &mut Option<ResponseHeader> {
                &mut self.header
            }

            fn revision(&self) -> i64 {
                self.header.map_or(0, |header| header.revision)
            }

            fn more(&mut self) {
                let more: fn(&mut Self) = $more;
                more(self);
            }
        }
    )*};
}

anonymous! {
    RangeResponse: |_| {},
    PutResponse: |_| {},
    DeleteRangeResponse: |_| {},
    CompactionResponse: |_| {},
    LeaseGrantResponse: |_| {},
    LeaseRevokeResponse: |_| {},
    LeaseLeasesResponse: |answer| answer.leases.sort_by_key(|lease| lease.id),
    LeaseTimeToLiveResponse: |answer| {
        answer.ttl = answer.ttl.signum();
        answer.keys.sort();
    },
    TxnResponse: |answer| {
        for response in &mut answer.responses {
            let header = match response.response.as_mut() {
                Some(Response::Range(answer)) => &mut answer.header,
                Some(Response::Put(answer)) => &mut answer.header,
                Some(Response::DeleteRange(answer)) => &mut answer.header,
                Some(Response::Txn(answer)) => {
                    *answer = std::mem::take(answer).anonymous();
                    &mut answer.header
                }
                None => continue,
            };
            // Headers within a transaction hold at most a revision.
            *header = header.map(|header| ResponseHeader {
                revision: header.revision,
                ..ResponseHeader::default()
            });
        }
    },
}
