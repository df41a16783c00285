//! The store in process, one measurement a call, one line of JSON as the answer; `benches/python/bench_store_core.py` runs them all.
//!
//! writers DIR COUNT SECONDS | outstanding DIR COUNT SECONDS | fill DIR KEYS | tail DIR UPDATES | open DIR | pauses DIR |
//! watchers COUNT. Keys have 64 bytes, values 1 KiB.

// A figure that is missing should end the measurement.
#![allow(clippy::indexing_slicing)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use korch_native::store::{
    Attributes, AttributesBuilder, Kind, Op, Requirement, Selector, Store, StoreError,
};

#[path = "object.rs"]
mod object;

use object::object;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["writers", directory, count, seconds] => {
            writers(Path::new(directory), count.parse()?, seconds.parse()?)
        }
        ["outstanding", directory, count, seconds] => {
            outstanding(Path::new(directory), count.parse()?, seconds.parse()?)
        }
        ["fill", directory, keys] => fill(Path::new(directory), keys.parse()?),
        ["tail", directory, count] => tail(Path::new(directory), count.parse()?),
        ["open", directory] => open(Path::new(directory)),
        ["pauses", directory] => pauses(Path::new(directory)),
        ["watchers", count] => watchers(count.parse()?),
        _ => {
            println!("{{}}");
            Ok(())
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!(
        "/registry/configmaps/namespace-{:05}/name-{number:029}",
        number % 1000
    )
    .into_bytes()
}

/// One of so many values that none comes again within a batch.
fn value(number: usize) -> &'static [u8] {
    static VALUES: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| (0..4096).map(|number| object(number, 1024)).collect());
    &VALUES[number % VALUES.len()]
}

/// A field of /proc/self/status, in KiB.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let digits = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// The value below which `share` of the sorted values lie.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

/// Put a key and wait until that is durable and visible; return how long the store took to take it, and how long all took, in
/// microseconds.
fn write_durably(
    store: &Store,
    number: usize,
    sender: &mpsc::Sender<Result<(), StoreError>>,
    receiver: &mpsc::Receiver<Result<(), StoreError>>,
) -> Result<(u64, u64), StoreError> {
    let (key, value) = (key(number), value(number));
    let began = Instant::now();
    let done = store.transact(|txn| txn.put(&key, value, 0))?;
    let taken = began.elapsed();
    let sender = sender.clone();
    let answer = move |published: Result<(), StoreError>| drop(sender.send(published));
    store.when_published(done.revision, Box::new(answer));
    receiver
        .recv()
        .map_err(|_| StoreError::Invalid("no answer".into()))??;
    Ok((taken.as_micros() as u64, began.elapsed().as_micros() as u64))
}

/// Bytes that this process has had written to the disk so far: whole pages, and each time that they were.
fn written_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|digits| digits.parse().ok()).unwrap_or(0.0)
}

/// Threads that each create a key, wait until it is durable and visible, and go on.
fn writers(directory: &Path, count: usize, seconds: f64) -> Outcome {
    let store = Arc::new(Store::open(directory)?);
    let numbers = AtomicU64::new(0);
    let mut measured = Work::begin();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        let work = || {
            let mut latencies = Vec::new();
            let (sender, receiver) = mpsc::channel();
            while Instant::now() < until {
                let number = numbers.fetch_add(1, Ordering::Relaxed) as usize;
                latencies.push(write_durably(&store, number, &sender, &receiver)?.1);
            }
            Ok::<_, StoreError>(latencies)
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Ok(found) = thread.join() {
                measured.latencies.extend(found?);
            }
        }
        Ok::<_, StoreError>(())
    })?;
    measured.end(&store, count);
    Ok(())
}

/// One thread that keeps `count` writes under way and sends the next one for each that was answered, as a connection's task does.
fn outstanding(directory: &Path, count: usize, seconds: f64) -> Outcome {
    let store = Store::open(directory)?;
    let mut work = Work::begin();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let answered: Arc<(Mutex<Vec<usize>>, Condvar)> = Arc::default();
    let mut begun = vec![Instant::now(); count];
    let mut ready: Vec<usize> = (0..count).collect();
    let (mut number, mut under_way) = (0, 0);
    while under_way > 0 || Instant::now() < until {
        for writer in ready.drain(..) {
            let (key, value) = (key(number), value(number));
            number += 1;
            under_way += 1;
            begun[writer] = Instant::now();
            let done = store.transact(|txn| txn.put(&key, value, 0))?;
            let answered = answered.clone();
            let answer = move |published: Result<(), StoreError>| {
                let (writers, wake) = &*answered;
                if published.is_ok()
                    && let Ok(mut writers) = writers.lock()
                {
                    writers.push(writer);
                    wake.notify_one();
                }
            };
            store.when_published(done.revision, Box::new(answer));
        }
        let (writers, wake) = &*answered;
        let mut writers = writers.lock().map_err(|_| "a callback panicked")?;
        while writers.is_empty() {
            writers = wake.wait(writers).map_err(|_| "a callback panicked")?;
        }
        std::mem::swap(&mut *writers, &mut ready);
        drop(writers);
        under_way -= ready.len();
        for writer in &ready {
            let took = begun[*writer].elapsed();
            work.latencies.push(took.as_micros() as u64);
        }
        if Instant::now() >= until {
            ready.clear();
        }
    }
    work.end(&store, count);
    Ok(())
}

/// Writes measured from `begin` to `end`.
struct Work {
    began: Instant,
    cpu: f64,
    written: f64,
    latencies: Vec<u64>,
}

impl Work {
    fn begin() -> Self {
        Work {
            began: Instant::now(),
            cpu: cpu_seconds(),
            written: written_bytes(),
            latencies: Vec::new(),
        }
    }

    fn end(mut self, store: &Store, count: usize) {
        let took = self.began.elapsed().as_secs_f64();
        self.latencies.sort_unstable();
        let stats = store.stats();
        let writes = self.latencies.len() as f64;
        let payload = writes * (64.0 + 1024.0);
        println!(
            "{{\"writers\": {count}, \"perSecond\": {:.0}, \"cpuMicrosecondsEach\": {:.1}, \"p50Microseconds\": {}, \"p99Microseconds\": {}, \
             \"commitsPerFlush\": {:.1}, \"logBytesPerPayload\": {:.3}, \"diskBytesPerPayload\": {:.3}}}",
            writes / took,
            (cpu_seconds() - self.cpu) * 1e6 / writes,
            percentile(&self.latencies, 0.5),
            percentile(&self.latencies, 0.99),
            writes / stats["flushes"].max(1) as f64,
            stats["flushed_bytes"] as f64 / payload,
            (written_bytes() - self.written) / payload,
        );
    }
}

/// Fill a store, 100 keys a flush, then end as kill -9 would.
fn fill(directory: &Path, keys: usize) -> Outcome {
    let before = status("VmRSS");
    let store = Store::open(directory)?;
    let began = Instant::now();
    for number in 0..keys {
        let (key, value) = (key(number), value(number));
        let done = store.transact(|txn| txn.put(&key, value, 0))?;
        if number.is_multiple_of(100) {
            store.request(done.revision);
        }
    }
    store.publish(store.flush()?);
    let took = began.elapsed().as_secs_f64();
    let full = status("VmRSS") - before;
    let revision = store.revision();
    store.compact(revision)?;
    let compacted = status("VmRSS") - before;
    let raw = keys as f64 * (64.0 + 1024.0) / 1024.0;
    println!(
        "{{\"keys\": {keys}, \"seconds\": {took:.1}, \"memoryPerRawByte\": {:.3}, \"memoryPerRawByteCompacted\": {:.3}, \
         \"logBytes\": {}, \"snapshotBytes\": {}}}",
        full as f64 / raw,
        compacted as f64 / raw,
        store.stats()["log_bytes"],
        store.stats()["snapshot_bytes"],
    );
    std::process::abort();
}

/// Let the store catch up with its snapshots, write `count` updates, 100 a flush, and end as kill -9 would.
fn tail(directory: &Path, count: usize) -> Outcome {
    let store = Store::open(directory)?;
    let keys = store.stats()["keys"].max(1) as usize;
    let until = Instant::now() + CATCH_UP_MAX;
    while store.stats()["log_plain_bytes"] > LOG_BYTES_MAX && Instant::now() < until {
        // Whoever flushes also looks after snapshots.
        store.request(0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let log_bytes = store.stats()["log_bytes"];
    for number in 0..count {
        let (key, value) = (key(number % keys), value(number));
        let done = store.transact(|txn| txn.put(&key, value, 0))?;
        if number.is_multiple_of(100) {
            store.request(done.revision);
        }
    }
    store.publish(store.flush()?);
    println!(
        "{{\"updates\": {count}, \"logBytesBefore\": {log_bytes}, \"logBytes\": {}, \"snapshotBytes\": {}}}",
        store.stats()["log_bytes"],
        store.stats()["snapshot_bytes"],
    );
    std::process::abort();
}

/// What the store lets its log grow to beside a large snapshot, and how long we wait for that at most.
const LOG_BYTES_MAX: u64 = 256 << 20;
const CATCH_UP_MAX: Duration = Duration::from_secs(180);

fn open(directory: &Path) -> Outcome {
    let before = status("VmRSS");
    let began = Instant::now();
    let cpu = cpu_seconds();
    let store = Store::open(directory)?;
    let took = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let keys = store.stats()["keys"];
    let raw = (keys.max(1) as f64) * (64.0 + 1024.0) / 1024.0;
    println!(
        "{{\"keys\": {keys}, \"milliseconds\": {:.1}, \"cpuMilliseconds\": {:.0}, \"memoryPerRawByte\": {:.3}, \"logBytes\": {}, \"snapshotBytes\": {}}}",
        took * 1e3,
        cpu * 1e3,
        (status("VmRSS") - before) as f64 / raw,
        store.stats()["log_bytes"],
        store.stats()["snapshot_bytes"],
    );
    std::process::abort();
}

/// Writers at work while something else is measured, and how long each rests between two writes.
const BUSY: usize = 4;
const REST: Duration = Duration::from_millis(1);

/// How long writers wait for the store's lock, and until their write is durable and visible: while nothing else happens, during a
/// compaction of 300,000 updates, and during a snapshot of everything.
fn pauses(directory: &Path) -> Outcome {
    let store = Arc::new(Store::open(directory)?);
    // None but the one that is measured.
    store.snapshot_after(u64::MAX);
    let keys = store.stats()["keys"] as usize;
    for number in 0..300_000 {
        let (key, value) = (key(number % keys.max(1)), value(number));
        let done = store.transact(|txn| txn.put(&key, value, 0))?;
        if number.is_multiple_of(100) {
            store.request(done.revision);
        }
    }
    store.publish(store.flush()?);
    let idle = during(&store, &|| {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    let revision = store.revision();
    let compaction = during(&store, &|| store.compact(revision))?;
    let snapshot = during(&store, &|| store.snapshot().map(|_| ()))?;
    println!(
        "{{\"keys\": {keys}, \"writers\": {BUSY}, \"idle\": {idle}, \"compaction\": {compaction}, \"snapshot\": {snapshot}}}"
    );
    Ok(())
}

/// What writers wait for while `work` is done.
fn during(
    store: &Arc<Store>,
    work: &(dyn Fn() -> Result<(), StoreError> + Sync),
) -> Result<String, StoreError> {
    let keys = store.stats()["keys"].max(1) as usize;
    let is_over = AtomicBool::new(false);
    let numbers = AtomicU64::new(0);
    let (mut locked, mut durable) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let took = std::thread::scope(|scope| {
        let write = || {
            let mut waits = Vec::new();
            let (sender, receiver) = mpsc::channel();
            while !is_over.load(Ordering::Acquire) {
                let number = numbers.fetch_add(1, Ordering::Relaxed) as usize;
                waits.push(write_durably(store, number % keys, &sender, &receiver)?);
                std::thread::sleep(REST);
            }
            Ok::<_, StoreError>(waits)
        };
        let writers: Vec<_> = (0..BUSY).map(|_| scope.spawn(write)).collect();
        let done = work();
        let took = began.elapsed();
        is_over.store(true, Ordering::Release);
        for writer in writers {
            for (lock, all) in writer.join().unwrap_or(Ok(Vec::new()))? {
                locked.push(lock);
                durable.push(all);
            }
        }
        done.map(|()| took)
    })?;
    Ok(format!(
        "{{\"seconds\": {:.2}, \"writes\": {}, \"lock\": {}, \"durable\": {}}}",
        took.as_secs_f64(),
        locked.len(),
        waits(locked),
        waits(durable)
    ))
}

fn waits(mut microseconds: Vec<u64>) -> String {
    microseconds.sort_unstable();
    format!(
        "{{\"p50Microseconds\": {}, \"p99Microseconds\": {}, \"maxMicroseconds\": {}}}",
        percentile(&microseconds, 0.5),
        percentile(&microseconds, 0.99),
        microseconds.last().copied().unwrap_or(0)
    )
}

/// What an update costs in memory, publication included: with `count` watchers that each follow another spec.nodeName, and with none.
/// Two stores take turns, so that whatever else the processors do concerns both.
fn watchers(count: usize) -> Outcome {
    let (quiet, watched) = (Store::in_memory(), Store::in_memory());
    for node in 0..count {
        let requirement = Requirement::new("field", "spec.nodeName", "=", &[format!("n{node}")])?;
        let selector = Selector::new(vec![requirement]);
        watched.watch(b"/registry/configmaps/", 1, selector, None)?;
    }
    let mut numbers = 0..;
    let value = value(0);
    let mut block = |store: &Store| {
        let began = thread_cpu_seconds();
        for number in numbers.by_ref().take(BLOCK) {
            update(store, number, value)?;
        }
        Ok::<_, StoreError>(thread_cpu_seconds() - began)
    };
    let (mut none, mut all) = (Vec::new(), Vec::new());
    for turn in 0..BLOCKS {
        let costs = (block(&quiet)?, block(&watched)?);
        // The first ones fill the stores.
        if turn > 2 {
            none.push((costs.0 * 1e9 / BLOCK as f64) as u64);
            all.push((costs.1 * 1e9 / BLOCK as f64) as u64);
        }
    }
    none.sort_unstable();
    all.sort_unstable();
    let (none, all) = (percentile(&none, 0.5), percentile(&all, 0.5));
    println!(
        "{{\"watchers\": {count}, \"cpuMicrosecondsWithNone\": {:.3}, \"cpuMicrosecondsWithAll\": {:.3}, \"ratio\": {:.3}}}",
        none as f64 / 1e3,
        all as f64 / 1e3,
        all as f64 / none as f64,
    );
    Ok(())
}

const BLOCK: usize = 10_000;
const BLOCKS: usize = 60;

fn update(store: &Store, number: usize, value: &[u8]) -> Result<(), StoreError> {
    let mut builder = AttributesBuilder::default();
    builder.push(Kind::Label, b"app", b"web");
    builder.push(Kind::Field, b"spec.nodeName", b"somewhere else");
    let attributes: Attributes = builder.build();
    let key = key(number % 1000);
    let op = Op {
        key: &key,
        value: Some(value),
        expected: None,
        splice_at: None,
        attributes,
    };
    let (revision, _) = store.commit(vec![op])?;
    store.publish(revision);
    if number.is_multiple_of(BLOCK) {
        store.compact(revision)?;
    }
    Ok(())
}

/// CPU that this thread has used, to the nanosecond.
fn thread_cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
