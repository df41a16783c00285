//! Counters of the front door, for metrics and tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Stats {
    pub connections_total: AtomicU64,
    pub connections_open: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub requests_total: AtomicU64,
    pub requests_active: AtomicU64,
    pub upgrades_active: AtomicU64,
    pub handed_over: AtomicU64,
    pub upstream_connects: AtomicU64,
    pub upstream_failures: AtomicU64,
    pub upstream_retries: AtomicU64,
}

impl Stats {
    /// Every counter with its name, in a fixed order.
    pub fn all(&self) -> [(&'static str, u64); 10] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("connections_total", read(&self.connections_total)),
            ("connections_open", read(&self.connections_open)),
            ("handshakes_failed", read(&self.handshakes_failed)),
            ("requests_total", read(&self.requests_total)),
            ("requests_active", read(&self.requests_active)),
            ("upgrades_active", read(&self.upgrades_active)),
            ("handed_over", read(&self.handed_over)),
            ("upstream_connects", read(&self.upstream_connects)),
            ("upstream_failures", read(&self.upstream_failures)),
            ("upstream_retries", read(&self.upstream_retries)),
        ]
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(super) struct Gauge {
    stats: Arc<Stats>,
    counter: fn(&Stats) -> &AtomicU64,
}

impl Gauge {
    pub(super) fn up(stats: &Arc<Stats>, counter: fn(&Stats) -> &AtomicU64) -> Self {
        counter(stats).fetch_add(1, Ordering::Relaxed);
        Self {
            stats: Arc::clone(stats),
            counter,
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.counter)(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}
