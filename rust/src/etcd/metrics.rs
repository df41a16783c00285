//! Figures of the front and its store in Prometheus' text format, under etcd's names where etcd has one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::method::{self, Method};
use crate::store::{Durations, Store};

/// The text format's media type.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters of one front.
#[derive(Debug, Default)]
pub struct Metrics {
    calls: [AtomicU64; Method::ALL.len()],
    pub(super) watch_streams: AtomicU64,
}

impl Metrics {
    pub(super) fn count_call(&self, method: Method) {
        if let Some(calls) = self.calls.get(method as usize) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn calls(&self, method: Method) -> u64 {
        let calls = self.calls.get(method as usize);
        calls.map_or(0, |calls| calls.load(Ordering::Relaxed))
    }

    /// Everything, as a scraper reads it.
    pub fn render(&self, store: &Store) -> String {
        let stats = store.stats();
        let stat = |name: &str| stats.get(name).copied().unwrap_or_default();
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let size = stat("log_bytes") + stat("snapshot_bytes");
        let mut out = String::with_capacity(4 << 10);
        let has_leader = "Whether or not a leader exists. 1 is existence, 0 is not.";
        gauge(&mut out, "etcd_server_has_leader", has_leader, 1);
        let is_leader = "Whether or not this member is a leader. 1 if is, 0 otherwise.";
        gauge(&mut out, "etcd_server_is_leader", is_leader, 1);
        let db_size = "Bytes of the log and its snapshot on disk.";
        for name in [
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_mvcc_db_total_size_in_use_in_bytes",
        ] {
            gauge(&mut out, name, db_size, size);
        }
        for (name, help, value) in [
            (
                "etcd_debugging_mvcc_keys_total",
                "Keys in the store.",
                stat("keys"),
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "The newest published revision.",
                stat("revision"),
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The oldest revision that can be read.",
                stat("compacted_revision"),
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                "Watches, those of the API server included.",
                stat("watchers"),
            ),
            (
                "etcd_debugging_mvcc_watch_stream_total",
                "Streams of watches that are open.",
                load(&self.watch_streams),
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait for slow watchers.",
                store.pending_events() as u64,
            ),
            ("korch_store_leases", "Leases.", stat("leases")),
            (
                "korch_store_history",
                "Revisions above the compaction floor.",
                stat("events"),
            ),
        ] {
            gauge(&mut out, name, help, value);
        }
        let name = "korch_store_flushes_total";
        let help = "Batches of commits that were made durable with one sync each.";
        metric(&mut out, name, help, "counter");
        let _ = writeln!(out, "{name} {}", stat("flushes"));
        if let Some((syncs, batches)) = store.times() {
            let name = "etcd_disk_wal_fsync_duration_seconds";
            histogram(&mut out, name, "How long syncs of the log took.", &syncs);
            let name = "etcd_disk_backend_commit_duration_seconds";
            let help = "How long batches of commits took to be written and synced.";
            histogram(&mut out, name, help, &batches);
        }
        self.render_calls(&mut out);
        out
    }

    fn render_calls(&self, out: &mut String) {
        let name = "grpc_server_started_total";
        metric(out, name, "Calls begun.", "counter");
        for (method, path) in Method::ALL {
            let calls = self.calls(method);
            let (service, method) = method::names(path);
            let _ = writeln!(
                out,
                "{name}{{grpc_method=\"{method}\",grpc_service=\"{service}\"}} {calls}"
            );
        }
    }
}

fn metric(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn histogram(out: &mut String, name: &str, help: &str, durations: &Durations) {
    metric(out, name, help, "histogram");
    for (bound, count) in &durations.buckets {
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let Durations { count, sum_s, .. } = durations;
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum {sum_s}\n{name}_count {count}");
}

fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    metric(out, name, help, "gauge");
    let _ = writeln!(out, "{name} {value}");
}
