//! What a plugin is, and the one list of them. Mirrors kube-scheduler's framework with its extension points and default profile.
//!
//! A plugin overrides only the points it takes part in. It keeps nothing between calls: all it may read is the cycle, so that a
//! decision is a function of the snapshot and the pod. A plugin that has nothing to say about a pod answers `Skip` in `pre_filter`
//! or `false` in `pre_score` and costs nothing per node.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;

use super::plugins;
use super::pod::Pod;
use super::snapshot::Snapshot;

/// The highest normalised score.
pub const MAX_NODE_SCORE: i64 = 100;

/// What a plugin may look at.
#[derive(Debug, Clone, Copy)]
pub struct Cycle<'a> {
    pub snapshot: &'a Snapshot,
    pub pod: &'a Pod,
}

/// How a plugin answers before nodes are looked at one by one.
#[derive(Debug)]
pub enum PreFilter {
    /// Ask `filter` about every node.
    Every,
    /// The pod does not concern this plugin's filter.
    Skip,
    /// Only nodes of these names can do.
    Only(BTreeSet<String>),
    /// No node can do.
    Reject(Rejection),
}

/// Whether removing pods from the node could help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unschedulable,
    UnschedulableAndUnresolvable,
}

/// Why a node cannot take the pod: the words that are counted in the pod's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    pub reasons: Vec<Cow<'static, str>>,
}

impl Rejection {
    pub fn unschedulable(reason: &'static str) -> Rejection {
        Rejection {
            code: Code::Unschedulable,
            reasons: vec![Cow::Borrowed(reason)],
        }
    }

    pub fn unresolvable(reason: &'static str) -> Rejection {
        Rejection {
            code: Code::UnschedulableAndUnresolvable,
            reasons: vec![Cow::Borrowed(reason)],
        }
    }
}

/// One scheduling plugin. `node` is a slot of the cycle's snapshot.
pub trait Plugin: Debug + Sync {
    fn name(&self) -> &'static str;

    /// How much the normalised score counts in a node's total.
    fn weight(&self) -> i64 {
        0
    }

    fn pre_filter(&self, _cycle: &Cycle<'_>) -> PreFilter {
        PreFilter::Skip
    }

    fn filter(&self, _cycle: &Cycle<'_>, _node: usize) -> Option<Rejection> {
        None
    }

    /// Return whether `score` has something to say about the pod.
    fn pre_score(&self, _cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        false
    }

    fn score(&self, _cycle: &Cycle<'_>, _node: usize) -> i64 {
        0
    }

    /// Bring the raw scores of all feasible nodes into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// The default profile in upstream's order. PodTopologySpread and InterPodAffinity stand between NodeResourcesFit and
/// NodeResourcesBalancedAllocation when they exist; both need counts over pods, which the snapshot will keep by domain.
pub static PLUGINS: [&dyn Plugin; 8] = [
    &plugins::node_name::NodeName,
    &plugins::node_unschedulable::NodeUnschedulable,
    &plugins::taint_toleration::TaintToleration,
    &plugins::node_affinity::NodeAffinity,
    &plugins::node_ports::NodePorts,
    &plugins::node_resources_fit::NodeResourcesFit,
    &plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation,
    &plugins::image_locality::ImageLocality,
];

/// Scale scores so that the highest becomes 100; `reverse` turns them round, so that the highest becomes 0.
/// Mirrors helper.DefaultNormalizeScore.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if most == 0 {
            if reverse {
                *score = MAX_NODE_SCORE;
            }
            continue;
        }
        *score = MAX_NODE_SCORE * *score / most;
        if reverse {
            *score = MAX_NODE_SCORE - *score;
        }
    }
}
