//! The store in process, one measurement a call, one line of JSON as the answer; `benches/python/bench_store_core.py` runs them all.
//!
//! writers DIR COUNT SECONDS | fill DIR KEYS | open DIR | pauses DIR | watchers COUNT. Keys have 64 bytes, values 1 KiB.

// A figure that is missing should end the measurement.
#![allow(clippy::indexing_slicing)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use korch_native::store::{
    Attributes, AttributesBuilder, Kind, Op, Requirement, Selector, Store, StoreError,
};

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
        ["fill", directory, keys] => fill(Path::new(directory), keys.parse()?),
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

fn value(number: usize) -> Vec<u8> {
    let mut value = format!("{{\"metadata\":{{\"uid\":\"{number:020}\"}},\"data\":\"").into_bytes();
    value.resize(1024, b'x');
    value
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

/// Threads that each create a key, wait until it is durable and visible, and go on.
fn writers(directory: &Path, count: usize, seconds: f64) -> Outcome {
    let store = Arc::new(Store::open(directory)?);
    let numbers = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut latencies: Vec<u64> = Vec::new();
    std::thread::scope(|scope| {
        let work = || {
            let mut latencies = Vec::new();
            let (sender, receiver) = mpsc::channel();
            while Instant::now() < until {
                let number = numbers.fetch_add(1, Ordering::Relaxed) as usize;
                let began = Instant::now();
                let (key, value) = (key(number), value(number));
                let done = store.transact(|txn| txn.put(&key, &value, 0))?;
                let sender = sender.clone();
                let answer = move |published: Result<(), StoreError>| drop(sender.send(published));
                store.when_published(done.revision, Box::new(answer));
                receiver
                    .recv()
                    .map_err(|_| StoreError::Invalid("no answer".into()))??;
                latencies.push(began.elapsed().as_micros() as u64);
            }
            Ok::<_, StoreError>(latencies)
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Ok(found) = thread.join() {
                latencies.extend(found?);
            }
        }
        Ok::<_, StoreError>(())
    })?;
    let took = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let stats = store.stats();
    let payload = latencies.len() as f64 * (64.0 + 1024.0);
    println!(
        "{{\"writers\": {count}, \"perSecond\": {:.0}, \"cpuMicrosecondsEach\": {:.1}, \"p50Microseconds\": {}, \"p99Microseconds\": {}, \
         \"commitsPerFlush\": {:.1}, \"logBytesPerPayload\": {:.3}}}",
        latencies.len() as f64 / took,
        (cpu_seconds() - cpu) * 1e6 / latencies.len() as f64,
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.99),
        latencies.len() as f64 / stats["flushes"].max(1) as f64,
        stats["flushed_bytes"] as f64 / payload,
    );
    Ok(())
}

/// Fill a store, 100 keys a flush, then end as kill -9 would.
fn fill(directory: &Path, keys: usize) -> Outcome {
    let before = status("VmRSS");
    let store = Store::open(directory)?;
    let began = Instant::now();
    for number in 0..keys {
        let (key, value) = (key(number), value(number));
        let done = store.transact(|txn| txn.put(&key, &value, 0))?;
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

fn open(directory: &Path) -> Outcome {
    let before = status("VmRSS");
    let began = Instant::now();
    let store = Store::open(directory)?;
    let took = began.elapsed().as_secs_f64();
    let keys = store.stats()["keys"];
    let raw = (keys.max(1) as f64) * (64.0 + 1024.0) / 1024.0;
    println!(
        "{{\"keys\": {keys}, \"milliseconds\": {:.1}, \"memoryPerRawByte\": {:.3}, \"logBytes\": {}, \"snapshotBytes\": {}}}",
        took * 1e3,
        (status("VmRSS") - before) as f64 / raw,
        store.stats()["log_bytes"],
        store.stats()["snapshot_bytes"],
    );
    std::process::abort();
}

/// How long one writer waits for the store's lock while nothing else happens, during a compaction of 300,000 updates, and during a
/// snapshot of everything.
fn pauses(directory: &Path) -> Outcome {
    let store = Arc::new(Store::open(directory)?);
    let keys = store.stats()["keys"] as usize;
    for number in 0..300_000 {
        let (key, value) = (key(number % keys.max(1)), value(number));
        store.transact(|txn| txn.put(&key, &value, 0))?;
    }
    store.publish(store.flush()?);
    let during = |work: &(dyn Fn() -> Result<(), StoreError> + Sync)| {
        let is_over = AtomicBool::new(false);
        let mut waits = Vec::new();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let done = work();
                is_over.store(true, Ordering::Release);
                done
            });
            let mut number = 0;
            while !is_over.load(Ordering::Acquire) {
                number += 1;
                let (key, value) = (key(number % keys.max(1)), value(number));
                let began = Instant::now();
                store.transact(|txn| txn.put(&key, &value, 0))?;
                waits.push(began.elapsed().as_micros() as u64);
                std::thread::sleep(Duration::from_micros(200));
            }
            worker.join().unwrap_or(Ok(()))
        })?;
        waits.sort_unstable();
        Ok::<_, StoreError>(format!(
            "{{\"writes\": {}, \"p50Microseconds\": {}, \"p99Microseconds\": {}, \"maxMicroseconds\": {}}}",
            waits.len(),
            percentile(&waits, 0.5),
            percentile(&waits, 0.99),
            waits.last().copied().unwrap_or(0)
        ))
    };
    let idle = during(&|| {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let revision = store.revision();
    let compaction = during(&|| store.compact(revision))?;
    let snapshot = during(&|| store.snapshot().map(|_| ()))?;
    println!(
        "{{\"keys\": {keys}, \"idle\": {idle}, \"compaction\": {compaction}, \"snapshot\": {snapshot}}}"
    );
    Ok(())
}

/// What an update costs in memory, publication included, with so many watchers that each follow another spec.nodeName.
fn watchers(count: usize) -> Outcome {
    let store = Store::in_memory();
    for node in 0..count {
        let requirement = Requirement::new("field", "spec.nodeName", "=", &[format!("n{node}")])?;
        let selector = Selector::new(vec![requirement]);
        store.watch(b"/registry/configmaps/", 1, selector, None)?;
    }
    let attributes = || -> Attributes {
        let mut builder = AttributesBuilder::default();
        builder.push(Kind::Label, b"app", b"web");
        builder.push(Kind::Field, b"spec.nodeName", b"somewhere else");
        builder.build()
    };
    let rounds = 200_000;
    let value = value(0);
    let mut update = |number: usize| {
        let key = key(number % 1000);
        let op = Op {
            key: &key,
            value: Some(&value),
            expected: None,
            splice_at: None,
            attributes: attributes(),
        };
        let (revision, _) = store.commit(vec![op])?;
        store.publish(revision);
        if number.is_multiple_of(10_000) {
            store.compact(revision)?;
        }
        Ok::<_, StoreError>(())
    };
    (0..20_000).try_for_each(&mut update)?;
    let cpu = cpu_seconds();
    (0..rounds).try_for_each(&mut update)?;
    let each = (cpu_seconds() - cpu) * 1e6 / rounds as f64;
    println!("{{\"watchers\": {count}, \"cpuMicrosecondsPerWrite\": {each:.3}}}");
    Ok(())
}
