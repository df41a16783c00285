//! Leases: a key attached to one is deleted when the lease is revoked or was not kept alive for its time to live.
//!
//! Grants and revocations are logged, keep-alives are not: after a restart every lease has its whole time to live again, as etcd's
//! have. Time is an argument in milliseconds of one monotonic clock; a lease whose end is not known yet gets it from the first
//! time that anybody tells. Which keys are attached follows from the newest revision of each key.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::error::{Result, StoreError};
use super::revision::Key;

/// A lease as `time_to_live` shows it. Times in seconds; `remaining_s` is rounded up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    pub id: i64,
    pub granted_s: i64,
    pub remaining_s: i64,
    pub keys: Vec<Key>,
}

#[derive(Debug)]
struct Lease {
    ttl_s: i64,
    /// 0 until somebody tells the time.
    due_ms: u64,
    keys: BTreeSet<Key>,
}

/// All leases. The hash map is only looked up, never walked.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    by_due: BTreeSet<(u64, i64)>,
    /// The lease of each attached key.
    attached: HashMap<Key, i64>,
    last_id: u64,
}

impl Leases {
    /// An id that no lease has.
    pub(crate) fn unused_id(&mut self) -> i64 {
        loop {
            self.last_id = self.last_id.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let id = (scrambled(self.last_id) >> 1) as i64;
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// Where generated ids begin, so that two stores, or one store started twice, do not repeat each other's.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.last_id = seed;
    }

    pub(crate) fn check_new(&self, id: i64) -> Result<()> {
        if self.by_id.contains_key(&id) {
            return Err(StoreError::LeaseExists { id });
        }
        Ok(())
    }

    /// Grant, or grant again: replay may meet a lease that its snapshot has already.
    pub(crate) fn grant(&mut self, id: i64, ttl_s: i64, now_ms: Option<u64>) {
        let due_ms = now_ms.map_or(0, |now_ms| due(now_ms, ttl_s));
        if let Entry::Vacant(vacant) = self.by_id.entry(id) {
            vacant.insert(Lease {
                ttl_s,
                due_ms,
                keys: BTreeSet::new(),
            });
            self.by_due.insert((due_ms, id));
        }
    }

    /// Forget a lease whose keys are gone.
    pub(crate) fn revoke(&mut self, id: i64) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.by_due.remove(&(lease.due_ms, id));
            for key in &lease.keys {
                self.attached.remove(key);
            }
        }
    }

    pub(crate) fn exists(&self, id: i64) -> Result<()> {
        self.get(id).map(|_| ())
    }

    fn get(&self, id: i64) -> Result<&Lease> {
        self.by_id.get(&id).ok_or(StoreError::LeaseNotFound { id })
    }

    /// The time to live that it was granted for.
    pub(crate) fn granted_s(&self, id: i64) -> Result<i64> {
        Ok(self.get(id)?.ttl_s)
    }

    pub(crate) fn keys(&self, id: i64) -> Result<Vec<Key>> {
        Ok(self.get(id)?.keys.iter().cloned().collect())
    }

    /// Start the time to live anew; return it in seconds.
    pub(crate) fn keep_alive(&mut self, id: i64, now_ms: u64) -> Result<i64> {
        let lease = self
            .by_id
            .get_mut(&id)
            .ok_or(StoreError::LeaseNotFound { id })?;
        self.by_due.remove(&(lease.due_ms, id));
        lease.due_ms = due(now_ms, lease.ttl_s);
        self.by_due.insert((lease.due_ms, id));
        Ok(lease.ttl_s)
    }

    pub(crate) fn info(&self, id: i64, now_ms: u64) -> Result<LeaseInfo> {
        let lease = self.get(id)?;
        let remaining_s = match lease.due_ms {
            0 => lease.ttl_s,
            due_ms => due_ms.saturating_sub(now_ms).div_ceil(1000) as i64,
        };
        Ok(LeaseInfo {
            id,
            granted_s: lease.ttl_s,
            remaining_s,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// All ids, with their times to live in seconds.
    pub(crate) fn list(&self) -> Vec<(i64, i64)> {
        let all = self.by_id.iter();
        all.map(|(id, lease)| (*id, lease.ttl_s)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Leases that ended by `now_ms`. Those whose end was not known get one.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<i64> {
        let unknown = self.by_due.range(..(1, i64::MIN));
        for (_, id) in unknown.copied().collect::<Vec<_>>() {
            // It was listed, so it exists.
            let _ = self.keep_alive(id, now_ms);
        }
        let ended = self.by_due.range(..=(now_ms, i64::MAX));
        ended.map(|(_, id)| *id).collect()
    }

    /// When the next lease ends; 0 when one waits to be told the time, None without leases.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.by_due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Note that `key` now belongs to `lease`, 0 for none.
    pub(crate) fn attach(&mut self, key: &Key, lease: i64) {
        if lease == 0 && self.attached.is_empty() {
            return;
        }
        let before = match lease {
            0 => self.attached.remove(key),
            _ => self.attached.insert(key.clone(), lease),
        };
        if before == Some(lease) {
            return;
        }
        if let Some(before) = before.and_then(|before| self.by_id.get_mut(&before)) {
            before.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&lease) {
            lease.keys.insert(key.clone());
        }
    }
}

/// Never 0, which means unknown.
fn due(now_ms: u64, ttl_s: i64) -> u64 {
    let ttl_ms = u64::try_from(ttl_s)
        .unwrap_or_default()
        .saturating_mul(1000);
    now_ms.saturating_add(ttl_ms).max(1)
}

/// Sebastiano Vigna's splitmix64.
fn scrambled(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
