//! How long something took, counted in buckets that double from 1 ms to 8.192 s: those of etcd's disk histograms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 14;

/// Counters; durations beyond the last bucket stand in `count` alone.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum_us: AtomicU64,
}

/// A histogram at one moment: upper bounds in seconds with what lies below them, all, and their sum in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum_s: f64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS).find(|bucket| micros <= 1000 << bucket);
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get(bucket)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn durations(&self) -> Durations {
        let mut below = 0;
        let buckets = self.buckets.iter().enumerate().map(|(bucket, count)| {
            below += count.load(Ordering::Relaxed);
            (f64::from(1 << bucket) / 1e3, below)
        });
        Durations {
            buckets: buckets.collect(),
            count: self.count.load(Ordering::Relaxed),
            sum_s: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_stands_in_every_bucket_that_ends_behind_it() {
        let histogram = Histogram::default();
        for micros in [10, 1_000, 1_001, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let durations = histogram.durations();
        assert_eq!(durations.buckets[0], (0.001, 2));
        assert_eq!(durations.buckets[1], (0.002, 3));
        assert_eq!(durations.buckets[13], (8.192, 3));
        assert_eq!((durations.count, durations.sum_s), (4, 20.002011));
    }
}
