//! One scheduling cycle: filter all nodes, score the feasible ones, choose. A pure function of (snapshot, pod, seed).
//!
//! Nodes are looked at in the snapshot's order and none is left out (upstream's `percentageOfNodesToScore: 100`). Of several nodes
//! with the top total, seed 0 takes the one kube-scheduler takes when it runs on one thread: the root of a binary heap over the
//! feasible list, which is the tied node that comes first in pre-order over the heap. Any other seed draws among the tied.

use super::diagnosis::Diagnosis;
use super::framework::{Cycle, PLUGINS, Plugin, PreFilter, Rejection};
use super::pod::Pod;
use super::snapshot::Snapshot;

/// What a cycle came to.
#[derive(Debug)]
pub enum Outcome {
    /// The slot of the chosen node.
    Node(usize),
    Unschedulable(Diagnosis),
}

/// The feasible nodes, or why there are none.
#[derive(Debug, Default)]
pub(super) struct Feasibility {
    pub slots: Vec<usize>,
    pub diagnosis: Diagnosis,
}

/// Run one cycle.
pub fn schedule(snapshot: &Snapshot, pod: &Pod, seed: u64) -> Outcome {
    let cycle = Cycle { snapshot, pod };
    let found = find_feasible(&cycle);
    match found.slots.as_slice() {
        [] => Outcome::Unschedulable(found.diagnosis),
        [only] => Outcome::Node(*only),
        slots => {
            let totals = total_scores(&cycle, slots);
            let at = choose(&totals, seed);
            slots
                .get(at)
                .map_or(Outcome::Unschedulable(found.diagnosis), |slot| {
                    Outcome::Node(*slot)
                })
        }
    }
}

pub(super) fn find_feasible(cycle: &Cycle<'_>) -> Feasibility {
    let mut found = Feasibility {
        diagnosis: Diagnosis::new(cycle),
        ..Feasibility::default()
    };
    let mut filters: Vec<&dyn Plugin> = Vec::with_capacity(PLUGINS.len());
    let mut narrowed = None;
    for plugin in PLUGINS {
        match plugin.pre_filter(cycle) {
            PreFilter::Skip => {}
            PreFilter::Every => filters.push(plugin),
            PreFilter::Only(names) => {
                filters.push(plugin);
                narrowed = Some((plugin.name(), names));
            }
            PreFilter::Reject(why) => {
                found.diagnosis.reject_all(plugin.name(), &why);
                return found;
            }
        }
    }
    if let Some((plugin, names)) = narrowed {
        let slots: Vec<usize> = names
            .iter()
            .filter_map(|name| cycle.snapshot.slot(name))
            .collect();
        found
            .diagnosis
            .narrowed_by(plugin, cycle.snapshot.len() - slots.len());
        filter_each(cycle, &filters, &slots, &mut found);
    } else {
        filter_each(cycle, &filters, cycle.snapshot.order(), &mut found);
    }
    found
}

fn filter_each(
    cycle: &Cycle<'_>,
    filters: &[&dyn Plugin],
    slots: &[usize],
    found: &mut Feasibility,
) {
    for &slot in slots {
        match first_rejection(cycle, filters, slot) {
            None => found.slots.push(slot),
            Some((plugin, why)) => found.diagnosis.reject(plugin, &why),
        }
    }
}

fn first_rejection(
    cycle: &Cycle<'_>,
    filters: &[&dyn Plugin],
    slot: usize,
) -> Option<(&'static str, Rejection)> {
    filters
        .iter()
        .find_map(|plugin| plugin.filter(cycle, slot).map(|why| (plugin.name(), why)))
}

/// One plugin's scores of all feasible nodes, in their order.
#[derive(Debug)]
pub(super) struct Scores {
    pub plugin: &'static str,
    pub weight: i64,
    pub raw: Vec<i64>,
    pub normalized: Vec<i64>,
}

pub(super) fn score_each(cycle: &Cycle<'_>, slots: &[usize]) -> Vec<Scores> {
    let scoring = PLUGINS
        .iter()
        .filter(|plugin| plugin.weight() > 0 && plugin.pre_score(cycle, slots));
    scoring
        .map(|plugin| {
            let raw: Vec<i64> = slots
                .iter()
                .map(|slot| plugin.score(cycle, *slot))
                .collect();
            let mut normalized = raw.clone();
            plugin.normalize(&mut normalized);
            Scores {
                plugin: plugin.name(),
                weight: plugin.weight(),
                raw,
                normalized,
            }
        })
        .collect()
}

pub(super) fn total_scores(cycle: &Cycle<'_>, slots: &[usize]) -> Vec<i64> {
    let mut totals = vec![0; slots.len()];
    for scores in score_each(cycle, slots) {
        for (total, score) in totals.iter_mut().zip(&scores.normalized) {
            *total += score * scores.weight;
        }
    }
    totals
}

/// Return the position of the winner.
pub(super) fn choose(totals: &[i64], seed: u64) -> usize {
    let Some(best) = totals.iter().max() else {
        return 0;
    };
    let tied = totals
        .iter()
        .enumerate()
        .filter(|(_, total)| *total == best)
        .map(|(at, _)| at);
    if seed == 0 {
        return tied.min_by_key(|at| heap_rank(*at)).unwrap_or(0);
    }
    let tied: Vec<usize> = tied.collect();
    let draw = usize::try_from(mix(seed) % tied.len().max(1) as u64).unwrap_or(0);
    tied.get(draw).copied().unwrap_or(0)
}

/// Return a key that orders heap positions in pre-order: the path from the root, left before right, an ancestor before its descendants.
fn heap_rank(position: usize) -> (u64, u32) {
    let number = position as u64 + 1;
    let depth = 63 - number.leading_zeros();
    // The bits below the leading one are the path; moved to the top they compare like strings, shorter paths first when equal.
    let path = if depth == 0 {
        0
    } else {
        number << (64 - depth)
    };
    (path, depth)
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
    use crate::scheduler::fixtures::{node, node_from, pod, pod_from, snapshot};
    use serde_json::json;

    #[test]
    fn ties_go_to_the_first_in_preorder_over_a_binary_heap() {
        // Heap positions 0..6 in pre-order: 0 1 3 4 2 5 6.
        let mut order: Vec<usize> = (0..7).collect();
        order.sort_by_key(|at| heap_rank(*at));
        assert_eq!(order, [0, 1, 3, 4, 2, 5, 6]);
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
    fn the_emptier_node_wins() {
        let mut snapshot = snapshot(vec![node("n1"), node("n2")]);
        let mut holder = pod("holder", "1");
        holder.node_name = "n1".into();
        snapshot.upsert_pod(holder);
        assert!(matches!(
            schedule(&snapshot, &pod("p", "1"), 0),
            Outcome::Node(1)
        ));
    }

    #[test]
    fn failures_are_worded_as_kube_scheduler_words_them() {
        let tainted = |name: &str| {
            node_from(
                json!({"metadata": {"name": name}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            )
        };
        let message = |nodes, spec| {
            let snapshot = snapshot(nodes);
            match schedule(&snapshot, &pod_from("p", spec), 0) {
                Outcome::Unschedulable(diagnosis) => diagnosis.message(),
                Outcome::Node(slot) => format!("placed on {slot}"),
            }
        };
        let big = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "64"}}}]});
        assert_eq!(
            message(vec![node("a"), tainted("b"), tainted("c")], big.clone()),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
        assert_eq!(message(vec![], big), "no nodes available to schedule pods");
        let named = |names: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let required = |term| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        assert_eq!(
            message(
                vec![node("a"), tainted("b"), node("c")],
                required(named(&["b"]))
            ),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn what_preemption_could_have_cured_is_said() {
        let mut snapshot = snapshot(vec![node("a"), node("b")]);
        for (name, at) in [("x", "a"), ("y", "b")] {
            let mut holder = pod(name, "3");
            holder.node_name = at.into();
            snapshot.upsert_pod(holder);
        }
        let Outcome::Unschedulable(diagnosis) = schedule(&snapshot, &pod("p", "2"), 0) else {
            panic!("placed")
        };
        assert_eq!(
            diagnosis.message(),
            "0/2 nodes are available: 2 Insufficient cpu. \
             preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        );
        let never = pod_from(
            "q",
            json!({"preemptionPolicy": "Never", "containers": [{"resources": {"requests": {"cpu": "2"}}}]}),
        );
        let Outcome::Unschedulable(diagnosis) = schedule(&snapshot, &never, 0) else {
            panic!("placed")
        };
        assert_eq!(
            diagnosis.message(),
            "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
        );
    }
}
