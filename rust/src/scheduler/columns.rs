//! The numbers of all nodes side by side, for loops that score thousands of nodes for one pod.
//!
//! They are kept as f64, which holds whole numbers up to 2^53 exactly: a division of two of them, cut to a whole number, then gives
//! what Go's integer division gives as long as the quotient stays below some thousands. `is_exact` says when that no longer holds.

use super::framework::Plugin;
use super::plugins::node_resources_balanced_allocation as balanced;
use super::pod::Shape;
use super::profile::Profile;
use super::requests::Amounts;
use super::worths::NO;

/// Above this a product with 100 is no longer a whole number in f64.
const EXACT_MAX: i64 = 1 << 46;

/// By rank.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub cpu_total: Vec<f64>,
    pub memory_total: Vec<f64>,
    pub cpu_used: Vec<f64>,
    pub memory_used: Vec<f64>,
    /// With defaults for containers that ask for nothing.
    pub cpu_nonzero: Vec<f64>,
    pub memory_nonzero: Vec<f64>,
    pub storage_free: Vec<f64>,
    pub pods_free: Vec<f64>,
    /// How evenly CPU and memory are used now, 50..=100.
    pub balance: Vec<i32>,
    wide: usize,
    is_wide: Vec<bool>,
}

impl Columns {
    pub fn clear(&mut self) {
        *self = Columns::default();
    }

    /// Return whether every number of every node is small enough.
    pub fn is_exact(&self) -> bool {
        self.wide == 0
    }

    pub fn push(&mut self, total: &Amounts, used: &Amounts, nonzero: (i64, i64)) {
        for column in [
            &mut self.cpu_total,
            &mut self.memory_total,
            &mut self.cpu_used,
            &mut self.memory_used,
            &mut self.cpu_nonzero,
            &mut self.memory_nonzero,
            &mut self.storage_free,
            &mut self.pods_free,
        ] {
            column.push(0.0);
        }
        self.balance.push(0);
        self.is_wide.push(false);
        self.set(self.balance.len() - 1, total, used, nonzero);
    }

    pub fn set(&mut self, rank: usize, total: &Amounts, used: &Amounts, nonzero: (i64, i64)) {
        let write = |column: &mut Vec<f64>, value: i64| {
            if let Some(place) = column.get_mut(rank) {
                *place = value as f64;
            }
        };
        write(&mut self.cpu_total, total.milli_cpu);
        write(&mut self.memory_total, total.memory);
        write(&mut self.cpu_used, used.milli_cpu);
        write(&mut self.memory_used, used.memory);
        write(&mut self.cpu_nonzero, nonzero.0);
        write(&mut self.memory_nonzero, nonzero.1);
        write(
            &mut self.storage_free,
            total
                .ephemeral_storage
                .saturating_sub(used.ephemeral_storage),
        );
        write(&mut self.pods_free, total.pods.saturating_sub(used.pods));
        if let Some(place) = self.balance.get_mut(rank) {
            *place = balanced::balance_of_two(
                (used.milli_cpu, total.milli_cpu),
                (used.memory, total.memory),
            ) as i32;
        }
        let is_wide = [total.milli_cpu, total.memory, used.memory, nonzero.1]
            .iter()
            .any(|value| !(0..EXACT_MAX).contains(value))
            || total.milli_cpu == 0
            || total.memory == 0;
        if let Some(was_wide) = self.is_wide.get_mut(rank) {
            self.wide = self.wide + usize::from(is_wide) - usize::from(*was_wide);
            *was_wide = is_wide;
        }
    }
}

/// What a pod asks for, ready for `score_columns`.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    cpu: f64,
    memory: f64,
    storage: f64,
    scored_cpu: f64,
    scored_memory: f64,
    held_cpu: f64,
    held_memory: f64,
    fit_weight: i32,
    balanced_weight: i32,
}

impl Asked {
    pub fn new(profile: &Profile, shape: &Shape) -> Asked {
        let requests = &shape.requests;
        // Where nothing is asked for, nothing can be short, however full the node is.
        let or_nothing = |amount: i64| {
            if amount > 0 {
                amount as f64
            } else {
                f64::NEG_INFINITY
            }
        };
        let balances = balanced::scores(&profile.balanced, shape);
        Asked {
            cpu: or_nothing(requests.wanted.milli_cpu),
            memory: or_nothing(requests.wanted.memory),
            storage: or_nothing(requests.wanted.ephemeral_storage),
            scored_cpu: requests.scored.0 as f64,
            scored_memory: requests.scored.1 as f64,
            held_cpu: requests.held.milli_cpu as f64,
            held_memory: requests.held.memory as f64,
            fit_weight: profile.weight(Plugin::NodeResourcesFit) as i32,
            balanced_weight: if balances {
                profile.weight(Plugin::NodeResourcesBalancedAllocation) as i32
            } else {
                0
            },
        }
    }
}

/// A node's numbers, as `Columns` has them.
#[derive(Debug, Clone, Copy)]
struct Place {
    cpu_total: f64,
    memory_total: f64,
    cpu_used: f64,
    memory_used: f64,
    cpu_nonzero: f64,
    memory_nonzero: f64,
    storage_free: f64,
    pods_free: f64,
    balance: i32,
    fits: bool,
}

/// NodeResourcesFit (LeastAllocated) and NodeResourcesBalancedAllocation over CPU and memory for one node.
#[inline(always)]
fn score_place(place: Place, asked: Asked) -> i32 {
    let Place {
        cpu_total,
        memory_total,
        ..
    } = place;
    let has_room = (asked.cpu <= cpu_total - place.cpu_used)
        & (asked.memory <= memory_total - place.memory_used)
        & (asked.storage <= place.storage_free)
        & (place.pods_free >= 1.0)
        & place.fits;
    let cpu =
        ((cpu_total - place.cpu_nonzero - asked.scored_cpu) * 100.0 / cpu_total).max(0.0) as i32;
    let memory = ((memory_total - place.memory_nonzero - asked.scored_memory) * 100.0
        / memory_total)
        .max(0.0) as i32;
    let cpu_share = ((place.cpu_used + asked.held_cpu) / cpu_total).min(1.0);
    let memory_share = ((place.memory_used + asked.held_memory) / memory_total).min(1.0);
    let after = ((1.0 - ((cpu_share - memory_share) / 2.0).abs()) * 100.0) as i32;
    let score = asked.fit_weight * ((cpu + memory) / 2)
        + asked.balanced_weight * (50 + (50 + after - place.balance) / 2);
    if has_room { score } else { NO }
}

/// Score one node, or None when there is no such rank.
pub fn score_column(columns: &Columns, asked: &Asked, fits: &[bool], rank: usize) -> Option<i32> {
    let place = Place {
        cpu_total: *columns.cpu_total.get(rank)?,
        memory_total: *columns.memory_total.get(rank)?,
        cpu_used: *columns.cpu_used.get(rank)?,
        memory_used: *columns.memory_used.get(rank)?,
        cpu_nonzero: *columns.cpu_nonzero.get(rank)?,
        memory_nonzero: *columns.memory_nonzero.get(rank)?,
        storage_free: *columns.storage_free.get(rank)?,
        pods_free: *columns.pods_free.get(rank)?,
        balance: *columns.balance.get(rank)?,
        fits: *fits.get(rank)?,
    };
    Some(score_place(place, *asked))
}

/// Score all nodes at once.
#[allow(
    clippy::indexing_slicing,
    reason = "all slices are cut to one length first, so that the loop has no bounds to check"
)]
pub fn score_columns(columns: &Columns, asked: &Asked, fits: &[bool], base: &mut [i32]) {
    let n = base.len().min(fits.len()).min(columns.balance.len());
    let (fits, base) = (&fits[..n], &mut base[..n]);
    let (cpu_total, memory_total) = (&columns.cpu_total[..n], &columns.memory_total[..n]);
    let (cpu_used, memory_used) = (&columns.cpu_used[..n], &columns.memory_used[..n]);
    let (cpu_nonzero, memory_nonzero) = (&columns.cpu_nonzero[..n], &columns.memory_nonzero[..n]);
    let (storage_free, pods_free, balance) = (
        &columns.storage_free[..n],
        &columns.pods_free[..n],
        &columns.balance[..n],
    );
    let asked = *asked;
    for i in 0..n {
        let place = Place {
            cpu_total: cpu_total[i],
            memory_total: memory_total[i],
            cpu_used: cpu_used[i],
            memory_used: memory_used[i],
            cpu_nonzero: cpu_nonzero[i],
            memory_nonzero: memory_nonzero[i],
            storage_free: storage_free[i],
            pods_free: pods_free[i],
            balance: balance[i],
            fits: fits[i],
        };
        base[i] = score_place(place, asked);
    }
}
