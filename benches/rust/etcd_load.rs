//! A load client for servers that speak etcd's v3 API: one workload a run, figures as one line of JSON.
//!
//! It speaks gRPC through tonic, reads the server's CPU from /proc around the measured time only, and shows its own beside it, because
//! both share the machine. Latencies are in microseconds, CPU in microseconds an operation.
//!
//!     cargo run --release --example etcd_load -- --target 127.0.0.1:2379 --server-pid 4711 --workload create --clients 100

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use korch_native::etcd::client::Client;
use korch_native::etcd::wire::request_op::Request;
use korch_native::etcd::wire::watch_request::RequestUnion;
use korch_native::etcd::wire::*;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

#[path = "object.rs"]
mod object;

use object::object;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const KEY_BYTES: usize = 64;
const USAGE: &str = "etcd_load --target HOST:PORT --server-pid PID --workload create|update|get|range|stream|count|keepalive|fanout|bystanders
  [--clients N] [--connections N] [--seconds N] [--value-bytes N] [--keys N] [--watchers N] [--run NAME]";

#[derive(Debug, Clone)]
struct Options {
    target: String,
    server_pid: u32,
    workload: String,
    clients: usize,
    connections: usize,
    seconds: f64,
    value_bytes: usize,
    keys: usize,
    watchers: usize,
    run: String,
}

fn options() -> Result<Options, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(USAGE.into());
        };
        given.insert(name.trim_start_matches("--"), value);
    }
    let mut take = |name: &str, default: &str| given.remove(name).unwrap_or(default).to_owned();
    let clients: usize = take("clients", "1").parse()?;
    let options = Options {
        target: take("target", "127.0.0.1:2379"),
        server_pid: take("server-pid", "0").parse()?,
        workload: take("workload", "create"),
        clients,
        connections: take("connections", &clients.div_ceil(10).to_string()).parse()?,
        seconds: take("seconds", "5").parse()?,
        value_bytes: take("value-bytes", "1024").parse()?,
        keys: take("keys", "1000").parse()?,
        watchers: take("watchers", "0").parse()?,
        run: take("run", "run"),
    };
    if given.is_empty() {
        Ok(options)
    } else {
        Err(USAGE.into())
    }
}

/// User and system CPU of a process in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0.0;
    };
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };
    // Hundredths of a second on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of a process in MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}

/// Bytes that a process has had written to the disk so far: whole pages, and each time that they were.
fn written_bytes(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|digits| digits.parse().ok())
        .unwrap_or_default()
}

/// What was measured between `begin` and `end`.
struct Measured {
    options: Options,
    began: Instant,
    server_cpu: f64,
    server_written: f64,
    own_cpu: f64,
}

impl Measured {
    fn begin(options: &Options) -> Self {
        Measured {
            options: options.clone(),
            server_cpu: cpu_seconds(options.server_pid),
            server_written: written_bytes(options.server_pid),
            own_cpu: cpu_seconds(std::process::id()),
            began: Instant::now(),
        }
    }

    fn end(self, operations: u64, mut latencies: Vec<u32>) {
        let seconds = self.began.elapsed().as_secs_f64();
        let server = cpu_seconds(self.options.server_pid) - self.server_cpu;
        let own = cpu_seconds(std::process::id()) - self.own_cpu;
        let written = written_bytes(self.options.server_pid) - self.server_written;
        let payload = operations.max(1) as f64 * (KEY_BYTES + self.options.value_bytes) as f64;
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies
                .get(index.min(latencies.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        let each = |cpu: f64| cpu * 1e6 / operations.max(1) as f64;
        println!(
            "{{\"workload\":\"{}\",\"clients\":{},\"operations\":{operations},\"perSecond\":{:.1},\"p50Us\":{},\"p99Us\":{},\"serverCpuUs\":{:.2},\"clientCpuUs\":{:.2},\"serverMiB\":{},\"writtenPerPayload\":{:.2}}}",
            self.options.workload,
            self.options.clients,
            operations as f64 / seconds,
            at(0.5),
            at(0.99),
            each(server),
            each(own),
            resident_mib(self.options.server_pid),
            written / payload,
        );
    }
}

async fn channels(options: &Options) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..options.connections.max(1) {
        let endpoint = Endpoint::from_shared(format!("http://{}", options.target))?
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .tcp_nodelay(true);
        let channel: Channel = endpoint.connect().await?;
        clients.push(Client::new(channel));
    }
    Ok(clients)
}

fn key(run: &str, number: usize) -> Bytes {
    let mut key = format!("/registry/{run}/{number:010}-");
    while key.len() < KEY_BYTES {
        key.push('k');
    }
    key.into()
}

/// What is put, one after the other: so many different values that none comes again within a server's batch.
#[derive(Clone)]
struct Values {
    all: Arc<Vec<Bytes>>,
    turn: Arc<AtomicUsize>,
}

impl Values {
    const COUNT: u64 = 4096;

    fn new(length: usize) -> Self {
        let one = |number| Bytes::from(object(number, length));
        Values {
            all: Arc::new((0..Self::COUNT).map(one).collect()),
            turn: Arc::default(),
        }
    }

    fn next(&self) -> Bytes {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.all
            .get(turn % self.all.len())
            .cloned()
            .unwrap_or_default()
    }
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

/// As kube-apiserver writes: if the key is still at `revision` (0: does not exist) put it, else show what is there.
fn write(key: Bytes, value: Bytes, revision: i64) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let show = RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            target_union: Some(compare::TargetUnion::ModRevision(revision)),
            range_end: Bytes::new(),
        }],
        success: vec![op(Request::Put(put(key, value)))],
        failure: if revision == 0 {
            Vec::new()
        } else {
            vec![op(Request::Range(show))]
        },
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Run `step(client, worker, turn)` in `options.clients` tasks until time is up.
async fn drive<F, Step>(options: &Options, clients: &[Client], step: F) -> Result<(), Failure>
where
    F: Fn(Client, usize, usize) -> Step + Clone + Send + 'static,
    Step: Future<Output = Result<Client, Failure>> + Send,
{
    let measured = Measured::begin(options);
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut workers = JoinSet::new();
    for worker in 0..options.clients {
        let client = clients.get(worker % clients.len()).cloned();
        let step = step.clone();
        workers.spawn(async move {
            let mut client = client.ok_or("no connection")?;
            let mut latencies = Vec::new();
            for turn in 0.. {
                let began = Instant::now();
                if began >= until {
                    break;
                }
                client = step(client, worker, turn).await?;
                latencies.push(began.elapsed().as_micros() as u32);
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done??);
    }
    measured.end(latencies.len() as u64, latencies);
    Ok(())
}

/// Put `keys` keys of this run, and return the revision of the last.
async fn fill(options: &Options, clients: &[Client], value: &Values) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..64 {
        let client = clients.get(worker % clients.len()).cloned();
        let (next, options, value) = (next.clone(), options.clone(), value.clone());
        workers.spawn(async move {
            let mut client = client.ok_or("no connection")?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                if number >= options.keys {
                    return Ok::<_, Failure>(());
                }
                let put = put(key(&options.run, number), value.next());
                let _: PutResponse = client.unary(path::PUT, put).await?;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(())
}

async fn create(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    let run = options.run.clone();
    drive(options, clients, move |mut client, worker, turn| {
        let txn = write(key(&format!("{run}/{worker}"), turn), value.next(), 0);
        async move {
            let answer: TxnResponse = client.unary(path::TXN, txn).await?;
            if !answer.succeeded {
                return Err("a new key exists already".into());
            }
            Ok(client)
        }
    })
    .await
}

/// Every client updates its own key, each time from the revision that its last write got.
async fn update(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    let mut revisions = Vec::new();
    for worker in 0..options.clients {
        let mut client = clients.first().cloned().ok_or("no connection")?;
        let put = put(key(&options.run, worker), value.next());
        let answer: PutResponse = client.unary(path::PUT, put).await?;
        revisions.push(Arc::new(AtomicU64::new(revision(answer.header) as u64)));
    }
    let (run, revisions) = (options.run.clone(), Arc::new(revisions));
    drive(options, clients, move |mut client, worker, _| {
        let last = revisions.get(worker).cloned().unwrap_or_default();
        let before = last.load(Ordering::Relaxed) as i64;
        let txn = write(key(&run, worker), value.next(), before);
        async move {
            let answer: TxnResponse = client.unary(path::TXN, txn).await?;
            if !answer.succeeded {
                return Err("somebody else wrote the key".into());
            }
            last.store(revision(answer.header) as u64, Ordering::Relaxed);
            Ok(client)
        }
    })
    .await
}

async fn get(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    fill(options, clients, &value).await?;
    let (run, keys) = (options.run.clone(), options.keys);
    drive(options, clients, move |mut client, worker, turn| {
        let key = key(&run, (worker * 7919 + turn * 104_729) % keys);
        let range = RangeRequest {
            key,
            limit: 1,
            ..RangeRequest::default()
        };
        async move {
            let answer: RangeResponse = client.unary(path::RANGE, range).await?;
            if answer.kvs.len() != 1 {
                return Err("a key is missing".into());
            }
            Ok(client)
        }
    })
    .await
}

async fn range(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    fill(options, clients, &value).await?;
    let request = RangeRequest {
        key: format!("/registry/{}/", options.run).into(),
        range_end: format!("/registry/{}0", options.run).into(),
        count_only: options.workload == "count",
        ..RangeRequest::default()
    };
    let (keys, is_stream) = (options.keys as i64, options.workload == "stream");
    drive(options, clients, move |mut client, _, _| {
        let request = request.clone();
        async move {
            let count = if is_stream {
                let mut parts = client
                    .server_streaming::<_, RangeStreamResponse>(path::RANGE_STREAM, request)
                    .await?;
                let mut count = 0;
                while let Some(part) = parts.message().await? {
                    count += part.range_response.map_or(0, |part| part.kvs.len() as i64);
                }
                count
            } else {
                let answer: RangeResponse = client.unary(path::RANGE, request).await?;
                answer.count
            };
            if count != keys {
                return Err(format!("{count} keys instead of {keys}").into());
            }
            Ok(client)
        }
    })
    .await
}

async fn keep_alive(options: &Options, clients: &[Client]) -> Result<(), Failure> {
    let mut streams = Vec::new();
    for worker in 0..options.clients {
        let mut client = clients
            .get(worker % clients.len())
            .cloned()
            .ok_or("no connection")?;
        let grant = LeaseGrantRequest { ttl: 600, id: 0 };
        let lease: LeaseGrantResponse = client.unary(path::LEASE_GRANT, grant).await?;
        let (send, questions) = tokio::sync::mpsc::channel(1);
        let questions = tokio_stream(questions);
        send.send(LeaseKeepAliveRequest { id: lease.id }).await?;
        let mut answers = client
            .streaming::<_, LeaseKeepAliveResponse>(path::LEASE_KEEP_ALIVE, questions)
            .await?;
        answers.message().await?;
        streams.push((lease.id, send, answers));
    }
    let measured = Measured::begin(options);
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut workers = JoinSet::new();
    for (id, send, mut answers) in streams {
        workers.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                send.send(LeaseKeepAliveRequest { id }).await?;
                let answer = answers.message().await?.ok_or("the stream ended")?;
                if answer.ttl <= 0 {
                    return Err("the lease is gone".into());
                }
                latencies.push(began.elapsed().as_micros() as u32);
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done??);
    }
    measured.end(latencies.len() as u64, latencies);
    Ok(())
}

fn tokio_stream<T: Send + 'static>(
    mut receiver: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_core::Stream<Item = T> + Send {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// Open a watch of one key on a stream of its own; every event adds to `delivered`.
async fn watch(
    mut client: Client,
    key: Bytes,
    delivered: Arc<AtomicU64>,
    workers: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let create = WatchRequest {
        request_union: Some(RequestUnion::Create(WatchCreateRequest {
            key,
            ..WatchCreateRequest::default()
        })),
    };
    let questions = futures_util::stream::iter([create]).chain(futures_util::stream::pending());
    let mut answers = client
        .streaming::<_, WatchResponse>(path::WATCH, questions)
        .await?;
    answers.message().await?;
    workers.spawn(async move {
        while let Ok(Some(answer)) = answers.message().await {
            delivered.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// One key watched by many: an operation is the delivery of one event to one watcher.
async fn fan_out(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let watched = key(&options.run, 0);
    for number in 0..options.watchers {
        let client = clients.get(number % clients.len()).cloned();
        let client = client.ok_or("no connection")?;
        watch(client, watched.clone(), delivered.clone(), &mut workers).await?;
    }
    let mut writer = channels(options).await?.pop().ok_or("no connection")?;
    let measured = Measured::begin(options);
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut latencies = Vec::new();
    let mut expected = 0;
    while Instant::now() < until {
        let began = Instant::now();
        let _: PutResponse = writer
            .unary(path::PUT, put(watched.clone(), value.next()))
            .await?;
        expected += options.watchers as u64;
        // The next write waits until everybody has seen this one.
        while delivered.load(Ordering::Relaxed) < expected {
            tokio::task::yield_now().await;
        }
        latencies.push(began.elapsed().as_micros() as u32);
    }
    measured.end(expected, latencies);
    Ok(())
}

/// Updates while `watchers` others watch keys that nobody writes.
async fn bystanders(options: &Options, clients: &[Client], value: Values) -> Result<(), Failure> {
    let delivered = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let watching = channels(options).await?;
    for number in 0..options.watchers {
        let client = watching.get(number % watching.len()).cloned();
        let watched = key(&format!("{}-other", options.run), number);
        let client = client.ok_or("no connection")?;
        watch(client, watched, delivered.clone(), &mut workers).await?;
    }
    update(options, clients, value).await?;
    match delivered.load(Ordering::Relaxed) {
        0 => Ok(()),
        events => Err(format!("{events} events of keys that nobody wrote").into()),
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let clients = channels(&options).await?;
    let value = Values::new(options.value_bytes);
    match options.workload.as_str() {
        "create" => create(&options, &clients, value).await,
        "update" => update(&options, &clients, value).await,
        "get" => get(&options, &clients, value).await,
        "range" | "stream" | "count" => range(&options, &clients, value).await,
        "keepalive" => keep_alive(&options, &clients).await,
        "fanout" => fan_out(&options, &clients, value).await,
        "bystanders" => bystanders(&options, &clients, value).await,
        _ => Err(USAGE.into()),
    }
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let done = runtime.block_on(run(options));
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}
