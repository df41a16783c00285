//! One scheduling cycle: which nodes can take the pod, what is each worth, which one is it. Mirrors schedule_one.go with one thread.
//!
//! Nodes are looked at in the snapshot's order from where the last cycle stopped, until enough were found. Of several nodes with the
//! top total, seed 0 takes the one kube-scheduler takes: the root of a binary heap over the feasible list, which is the tied node that
//! comes first in pre-order over the heap. Any other seed draws among the tied.

use std::collections::BTreeSet;

use super::class::{Class, counts_nominated};
use super::diagnosis::Diagnosis;
use super::framework::{Plugin, Rejection, normalize_by_max};
use super::plugins::node_affinity::{self, Named};
use super::plugins::{inter_pod_affinity, pod_topology_spread};
use super::pod::Pod;
use super::profile::Profile;
use super::snapshot::Snapshot;
use super::worths::{NO, Worths, heap_rank};

/// Fewer nodes than this are all looked at.
const MIN_FEASIBLE_NODES: usize = 100;
const MIN_PERCENTAGE: usize = 5;

/// What a cycle came to.
#[derive(Debug)]
pub enum Outcome {
    /// The rank of the chosen node.
    Node(usize),
    Unschedulable(Failure),
}

/// Why there is no node.
#[derive(Debug, Default)]
pub struct Failure {
    pub diagnosis: Diagnosis,
    /// Ranks of the nodes that removing pods could make fit, in visiting order.
    pub curable: Vec<usize>,
}

/// Everything a cycle looks at and moves.
#[derive(Debug)]
pub struct Cycle<'a> {
    pub snapshot: &'a Snapshot,
    pub profile: &'a Profile,
    pub class: &'a mut Class,
    pub pod: &'a Pod,
    /// Where the next cycle starts looking.
    pub next_start: &'a mut usize,
}

/// One plugin's scores of all feasible nodes, in their order.
#[derive(Debug)]
pub struct Scores {
    pub plugin: Plugin,
    pub weight: i64,
    pub raw: Vec<i64>,
    pub normalized: Vec<i64>,
}

impl Cycle<'_> {
    pub fn run(&mut self, seed: u64) -> Outcome {
        let names = match self.look_at_pod() {
            Ok(names) => names,
            Err(failure) => return Outcome::Unschedulable(*failure),
        };
        if let Some(rank) = self.nominated() {
            return Outcome::Node(rank);
        }
        if let Named::Only(names) = names {
            return match self.search_among(&names) {
                Ok(feasible) => self.pick(&feasible, seed),
                Err(failure) => Outcome::Unschedulable(*failure),
            };
        }
        if seed == 0 && self.is_local() {
            let winner = self.class.base.winner(*self.next_start);
            return self.outcome(winner);
        }
        if seed == 0 && self.compares_nothing() {
            return self.pick_by_mask();
        }
        match self.search() {
            Ok(feasible) => self.pick(&feasible, seed),
            Err(failure) => Outcome::Unschedulable(*failure),
        }
    }

    /// Return the feasible nodes in visiting order and move on, for those who choose elsewhere; at least one.
    pub fn survey(&mut self) -> Result<Vec<u32>, Box<Failure>> {
        match self.look_at_pod()? {
            Named::Only(names) => self.search_among(&names),
            Named::Every | Named::Conflict => self.search(),
        }
    }

    /// Look at what the pod asks for before any node is looked at; return the nodes that it names.
    pub fn look_at_pod(&mut self) -> Result<Named, Box<Failure>> {
        let nodes = self.snapshot.len();
        if nodes == 0 {
            return Err(Box::default());
        }
        let refused = |plugin: Plugin, why: &Rejection| {
            let mut failure = Failure::of(nodes);
            failure.diagnosis.reject_all(plugin, why);
            Box::new(failure)
        };
        let names = if self.profile.filters_with(Plugin::NodeAffinity) {
            node_affinity::named(&self.class.shape)
        } else {
            Named::Every
        };
        if names == Named::Conflict {
            return Err(refused(Plugin::NodeAffinity, &node_affinity::conflict()));
        }
        match self.class.look_at_volumes(self.snapshot, self.profile) {
            Some((plugin, why)) => Err(refused(plugin, &why)),
            None => Ok(names),
        }
    }

    /// Look at all nodes.
    fn search(&mut self) -> Result<Vec<u32>, Box<Failure>> {
        let (feasible, rejected) = self.feasible();
        *self.next_start = (*self.next_start + feasible.len() + rejected) % self.snapshot.len();
        if feasible.is_empty() {
            return Err(Box::new(self.diagnose(&Named::Every)));
        }
        Ok(feasible)
    }

    /// Return the node that the pod waits for, if it can go there now.
    pub fn nominated(&mut self) -> Option<usize> {
        let rank = self.snapshot.rank(&self.pod.nominated_node_name)?;
        let seat = self.snapshot.seat(rank)?;
        self.class
            .filter_with_nominated(self.snapshot, self.profile, self.pod, rank, seat)
            .is_none()
            .then_some(rank)
    }

    /// Look at these nodes only.
    fn search_among(&mut self, names: &BTreeSet<String>) -> Result<Vec<u32>, Box<Failure>> {
        let nodes = self.snapshot.len();
        let ranks: Vec<usize> = names
            .iter()
            .filter_map(|name| self.snapshot.rank(name))
            .collect();
        let start = *self.next_start;
        let in_turn =
            (0..ranks.len()).filter_map(|at| ranks.get((start + at) % ranks.len()).copied());
        let (mut feasible, mut refused) = (Vec::new(), Vec::new());
        for rank in in_turn {
            let Some(seat) = self.snapshot.seat(rank) else {
                continue;
            };
            match self.class.filter_with_nominated(
                self.snapshot,
                self.profile,
                self.pod,
                rank,
                seat,
            ) {
                None => feasible.push(u32::try_from(rank).unwrap_or(u32::MAX)),
                Some(why) => refused.push((rank, why)),
            }
        }
        *self.next_start = (start + ranks.len()) % nodes;
        if !feasible.is_empty() {
            return Ok(feasible);
        }
        let mut failure = Failure::of(nodes);
        failure
            .diagnosis
            .narrowed_by(Plugin::NodeAffinity, nodes - ranks.len());
        refused
            .into_iter()
            .for_each(|(rank, (plugin, why))| failure.add(rank, plugin, &why));
        Err(Box::new(failure))
    }

    /// Choose by the nodes' own parts among those that every filter lets through.
    fn pick_by_mask(&mut self) -> Outcome {
        let winner = if self.class.volumes.is_none() && !self.snapshot.has_nominations() {
            let admitted = self.class.admitted(self.snapshot, self.profile);
            admitted.winner(*self.next_start)
        } else {
            let fits = self.mask();
            let worths = self.class.base.iter().zip(&fits);
            let worths = worths.map(|(base, fit)| if *fit { *base } else { NO });
            Worths::of(worths.collect()).winner(*self.next_start)
        };
        self.outcome(winner)
    }

    /// All nodes are looked at, so that the next cycle starts where this one did.
    fn outcome(&mut self, winner: Option<usize>) -> Outcome {
        winner.map_or_else(
            || Outcome::Unschedulable(self.diagnose(&Named::Every)),
            Outcome::Node,
        )
    }

    /// Return which nodes can take the pod, by rank.
    fn mask(&mut self) -> Vec<bool> {
        let mut fits = self.class.mask(self.snapshot, self.profile);
        if self.class.volumes.is_some() {
            for (rank, fit) in fits.iter_mut().enumerate().filter(|(_, fit)| **fit) {
                *fit = self.class.fits_volumes(self.snapshot, self.profile, rank);
            }
        }
        if self.snapshot.has_nominations() {
            for (rank, fit) in fits.iter_mut().enumerate().filter(|(_, fit)| **fit) {
                if self
                    .snapshot
                    .nominated_to(rank)
                    .iter()
                    .any(|(waiting, _)| counts_nominated(self.pod, waiting))
                {
                    let seat = self.snapshot.seat(rank);
                    *fit = seat.is_some_and(|seat| {
                        self.class
                            .filter_with_nominated(
                                self.snapshot,
                                self.profile,
                                self.pod,
                                rank,
                                seat,
                            )
                            .is_none()
                    });
                }
            }
        }
        fits
    }

    /// Return whether the nodes' own parts decide alone, all of them being looked at.
    fn is_local(&self) -> bool {
        self.has_no_others() && self.compares_nothing()
    }

    /// Return whether the filters look at nothing but the node and what is on it.
    fn has_no_others(&self) -> bool {
        self.class.is_social(self.profile) == (false, false)
            && self.class.volumes.is_none()
            && !self.snapshot.has_nominations()
    }

    /// Return whether no score depends on what other nodes score, all of them being looked at.
    fn compares_nothing(&self) -> bool {
        let class = &self.class;
        let nodes = class.base.len();
        class.spread.as_ref().is_none_or(|one| !one.scores())
            && class.inter_pod.as_ref().is_none_or(|one| !one.scores())
            && !class.scores_volumes(self.profile)
            && class.fixed.taints.is_empty()
            && class.fixed.affinity.is_empty()
            && wanted_nodes(self.profile.percentage, nodes) >= nodes
    }

    /// Return the nodes that were found, in visiting order, and how many were refused on the way.
    fn feasible(&mut self) -> (Vec<u32>, usize) {
        let fits = self.mask();
        let wanted = wanted_nodes(self.profile.percentage, fits.len());
        let (before, after) = fits.split_at((*self.next_start).min(fits.len()));
        let mut found = Vec::with_capacity(wanted.min(fits.len()));
        let mut rejected = 0;
        'visit: for (start, part) in [(before.len(), after), (0, before)] {
            for (at, fit) in part.iter().enumerate() {
                if !fit {
                    rejected += 1;
                } else if found.len() == wanted {
                    break 'visit;
                } else {
                    found.push((start + at) as u32);
                }
            }
        }
        (found, rejected)
    }

    fn pick(&self, feasible: &[u32], seed: u64) -> Outcome {
        if let [only] = feasible {
            return Outcome::Node(*only as usize);
        }
        let totals = self.totals(feasible);
        let at = choose(&totals, seed);
        Outcome::Node(feasible.get(at).map_or(0, |rank| *rank as usize))
    }

    pub fn totals(&self, feasible: &[u32]) -> Vec<i64> {
        let base = &self.class.base;
        let mut totals: Vec<i64> = feasible
            .iter()
            .map(|rank| i64::from(base.get(*rank as usize).copied().unwrap_or(0)))
            .collect();
        for scores in self.normalized_scores(feasible) {
            for (total, score) in totals.iter_mut().zip(&scores.normalized) {
                *total += score * scores.weight;
            }
        }
        totals
    }

    /// Return the scores of the plugins that compare nodes with each other; those that would score all the same are left out.
    pub fn normalized_scores(&self, feasible: &[u32]) -> Vec<Scores> {
        let fixed = &self.class.fixed;
        let gather = |all: &[i64]| -> Vec<i64> {
            feasible
                .iter()
                .map(|rank| all.get(*rank as usize).copied().unwrap_or(0))
                .collect()
        };
        let mut found = Vec::new();
        let mut add = |plugin: Plugin, raw: Vec<i64>, normalize: &dyn Fn(&mut [i64])| {
            let weight = self.profile.weight(plugin);
            if weight > 0 {
                let mut normalized = raw.clone();
                normalize(&mut normalized);
                found.push(Scores {
                    plugin,
                    weight,
                    raw,
                    normalized,
                });
            }
        };
        if !fixed.taints.is_empty() {
            add(Plugin::TaintToleration, gather(&fixed.taints), &|scores| {
                normalize_by_max(scores, true)
            });
        }
        if !fixed.affinity.is_empty() {
            add(Plugin::NodeAffinity, gather(&fixed.affinity), &|scores| {
                normalize_by_max(scores, false)
            });
        }
        if self.class.scores_volumes(self.profile) {
            let score = |rank: &u32| {
                self.class
                    .score_volumes(self.snapshot, self.profile, *rank as usize)
            };
            let raw = feasible.iter().map(|rank| score(rank).unwrap_or(0));
            add(Plugin::VolumeBinding, raw.collect(), &|_| {});
        }
        if let Some(spread) = self.class.spread.as_ref().filter(|one| one.scores()) {
            add(
                Plugin::PodTopologySpread,
                spread.score(self.snapshot, feasible),
                &pod_topology_spread::normalize,
            );
        }
        if let Some(inter_pod) = self.class.inter_pod.as_ref().filter(|one| one.scores()) {
            add(
                Plugin::InterPodAffinity,
                inter_pod.score(self.snapshot, feasible),
                &inter_pod_affinity::normalize,
            );
        }
        found
    }

    /// Ask every node, or each of those that the pod names, why not; where nothing but the node itself counts, those that changed since
    /// it was asked last.
    pub fn diagnose(&mut self, names: &Named) -> Failure {
        if matches!(names, Named::Every) && self.has_no_others() {
            return self.class.verdicts(self.snapshot, self.profile).failure();
        }
        let nodes = self.snapshot.len();
        let mut failure = Failure::of(nodes);
        let mut looked_at = 0;
        for (rank, seat) in self.snapshot.seats().iter().enumerate() {
            if matches!(names, Named::Only(names) if !names.contains(&seat.node.name)) {
                continue;
            }
            looked_at += 1;
            if let Some((plugin, why)) =
                self.class
                    .filter_with_nominated(self.snapshot, self.profile, self.pod, rank, seat)
            {
                failure.add(rank, plugin, &why);
            }
        }
        if matches!(names, Named::Only(_)) {
            let left_out = nodes - looked_at;
            failure
                .diagnosis
                .narrowed_by(Plugin::NodeAffinity, left_out);
        }
        failure
    }

    /// Return the feasible nodes without moving on, for explanations.
    pub fn look(&mut self) -> Vec<u32> {
        let fits = self.mask();
        let names = if self.profile.filters_with(Plugin::NodeAffinity) {
            node_affinity::named(&self.class.shape)
        } else {
            Named::Every
        };
        let is_named = |rank: usize| match &names {
            Named::Every => true,
            Named::Only(names) => names.contains(self.snapshot.node_name(rank)),
            Named::Conflict => false,
        };
        fits.iter()
            .enumerate()
            .filter(|(rank, fit)| **fit && is_named(*rank))
            .map(|(rank, _)| rank as u32)
            .collect()
    }
}

impl Failure {
    /// Return whether the node that the pod waits for is none, or one that removing pods would not help.
    pub fn is_hopeless(&self, snapshot: &Snapshot, pod: &Pod) -> bool {
        let waits_for = snapshot.rank(&pod.nominated_node_name);
        waits_for.is_none_or(|rank| !self.curable.contains(&rank))
    }

    /// Make a failure to be placed on any of so many nodes, without a reason yet.
    pub fn of(nodes: usize) -> Failure {
        let diagnosis = Diagnosis {
            nodes,
            ..Diagnosis::default()
        };
        Failure {
            diagnosis,
            curable: Vec::new(),
        }
    }

    fn add(&mut self, rank: usize, plugin: Plugin, why: &Rejection) {
        self.diagnosis.reject(plugin, why, 1);
        if why.is_curable() {
            self.curable.push(rank);
        }
    }
}

/// Return after how many feasible nodes the search ends. Mirrors numFeasibleNodesToFind.
fn wanted_nodes(percentage: i32, nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE_NODES {
        return nodes;
    }
    let percentage = match usize::try_from(percentage) {
        Ok(0) | Err(_) => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
        Ok(percentage) => percentage,
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE_NODES)
}

/// Return the position of the winner.
pub fn choose(totals: &[i64], seed: u64) -> usize {
    let Some(best) = totals.iter().max() else {
        return 0;
    };
    let tied = totals
        .iter()
        .enumerate()
        .filter(|(_, total)| *total == best)
        .map(|(at, _)| at);
    if seed == 0 {
        // Of one level of the heap the first is before the others in pre-order, so one of each is enough.
        let mut level = 0;
        let first_of_levels = tied.filter(|at| {
            let this = (at + 1).ilog2() + 1;
            this > std::mem::replace(&mut level, this)
        });
        return first_of_levels.min_by_key(|at| heap_rank(*at)).unwrap_or(0);
    }
    let tied: Vec<usize> = tied.collect();
    let draw = usize::try_from(mix(seed) % tied.len().max(1) as u64).unwrap_or(0);
    tied.get(draw).copied().unwrap_or(0)
}

/// Scatter a seed (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_in_preorder_over_a_binary_heap() {
        for (totals, expected) in [
            (vec![1, 2, 2, 2], 1),
            (vec![1, 1, 2, 2], 3),
            (vec![5, 5], 0),
            (vec![0, 0, 3, 0, 3, 3], 4),
        ] {
            assert_eq!(choose(&totals, 0), expected, "{totals:?}");
        }
    }

    #[test]
    fn a_seed_draws_among_the_tied_only_and_always_the_same() {
        let totals = [1, 9, 3, 9, 9];
        let drawn: std::collections::BTreeSet<usize> =
            (1..50).map(|seed| choose(&totals, seed)).collect();
        assert_eq!(drawn, [1, 3, 4].into());
        assert_eq!(choose(&totals, 7), choose(&totals, 7));
    }

    #[test]
    fn the_search_ends_after_a_share_that_shrinks_with_the_cluster() {
        for (percentage, nodes, expected) in [
            (0, 99, 99),
            (0, 100, 100),
            (0, 500, 230),
            (0, 1000, 420),
            (0, 5000, 500),
            (0, 15000, 750),
            (100, 5000, 5000),
            (30, 200, 100),
        ] {
            assert_eq!(
                wanted_nodes(percentage, nodes),
                expected,
                "{percentage} {nodes}"
            );
        }
    }
}
