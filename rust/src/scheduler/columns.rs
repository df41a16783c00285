//! The numbers of all nodes side by side, for loops that score thousands of nodes for one pod.
//!
//! They are kept as f64, which holds whole numbers up to 2^53 exactly: a division of two of them, cut to a whole number, then gives
//! what Go's integer division gives as long as the quotient stays below some thousands. `is_exact` says when that no longer holds.

use super::plugins::node_resources_balanced_allocation as balanced;
use super::requests::Amounts;

/// Above this a product with 100 is no longer a whole number in f64.
const EXACT_MAX: i64 = 1 << 46;

/// By rank.
#[derive(Debug, Default)]
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
