//! What a plugin says, and the names of all of them. Mirrors kube-scheduler's framework with its extension points.
//!
//! A plugin is a file in `plugins/`: pure functions that look at a shape, a node and what the pods on it use, or, for the two that
//! look at pods elsewhere, a state that is kept per class and moved forward by each placement. `class` puts them together.

use std::borrow::Cow;

/// The highest normalised score.
pub const MAX_NODE_SCORE: i64 = 100;

/// The plugins of the default profile, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    SchedulingGates,
    PrioritySort,
    NodeName,
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
    NodeDeclaredFeatures,
}

impl Plugin {
    pub const ALL: [Plugin; 20] = [
        Plugin::SchedulingGates,
        Plugin::PrioritySort,
        Plugin::NodeName,
        Plugin::NodeUnschedulable,
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodePorts,
        Plugin::NodeResourcesFit,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
        Plugin::VolumeBinding,
        Plugin::VolumeZone,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
        Plugin::DynamicResources,
        Plugin::DefaultPreemption,
        Plugin::NodeResourcesBalancedAllocation,
        Plugin::ImageLocality,
        Plugin::DefaultBinder,
        Plugin::NodeDeclaredFeatures,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Plugin::SchedulingGates => "SchedulingGates",
            Plugin::PrioritySort => "PrioritySort",
            Plugin::NodeName => "NodeName",
            Plugin::NodeUnschedulable => "NodeUnschedulable",
            Plugin::TaintToleration => "TaintToleration",
            Plugin::NodeAffinity => "NodeAffinity",
            Plugin::NodePorts => "NodePorts",
            Plugin::NodeResourcesFit => "NodeResourcesFit",
            Plugin::VolumeRestrictions => "VolumeRestrictions",
            Plugin::NodeVolumeLimits => "NodeVolumeLimits",
            Plugin::VolumeBinding => "VolumeBinding",
            Plugin::VolumeZone => "VolumeZone",
            Plugin::PodTopologySpread => "PodTopologySpread",
            Plugin::InterPodAffinity => "InterPodAffinity",
            Plugin::DynamicResources => "DynamicResources",
            Plugin::DefaultPreemption => "DefaultPreemption",
            Plugin::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Plugin::ImageLocality => "ImageLocality",
            Plugin::DefaultBinder => "DefaultBinder",
            Plugin::NodeDeclaredFeatures => "NodeDeclaredFeatures",
        }
    }

    pub fn find(name: &str) -> Option<Plugin> {
        Plugin::ALL.into_iter().find(|plugin| plugin.name() == name)
    }

    /// Return the weight in the default profile.
    pub fn default_weight(self) -> i64 {
        match self {
            Plugin::TaintToleration => 3,
            Plugin::NodeAffinity
            | Plugin::PodTopologySpread
            | Plugin::InterPodAffinity
            | Plugin::DynamicResources => 2,
            Plugin::NodeResourcesFit
            | Plugin::NodeResourcesBalancedAllocation
            | Plugin::VolumeBinding
            | Plugin::ImageLocality => 1,
            _ => 0,
        }
    }
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
    /// Return whether removing pods from the node could help.
    pub fn is_curable(&self) -> bool {
        self.code == Code::Unschedulable
    }

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

/// Divide whole numbers towards zero, by the faster way when that is exact.
pub fn divide(number: i64, by: i64) -> i64 {
    const EXACT: i64 = 1 << 46;
    if (-EXACT..EXACT).contains(&number) && (1..EXACT).contains(&by) {
        (number as f64 / by as f64) as i64
    } else {
        number / by
    }
}

/// Scale scores so that the highest becomes 100; `reverse` turns them round, so that the highest becomes 0.
/// Mirrors helper.DefaultNormalizeScore.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0).max(0);
    replace_each(scores, |raw| match (most, reverse) {
        (0, true) => MAX_NODE_SCORE,
        (0, false) => raw,
        (_, true) => MAX_NODE_SCORE - divide(MAX_NODE_SCORE * raw, most),
        (_, false) => divide(MAX_NODE_SCORE * raw, most),
    });
}

/// Replace each score by what `normal` makes of it. Neighbours are often equal, and then it is asked once: it divides.
pub fn replace_each(scores: &mut [i64], normal: impl Fn(i64) -> i64) {
    let mut last: Option<(i64, i64)> = None;
    for score in scores {
        let made = match last {
            Some((raw, made)) if raw == *score => made,
            _ => normal(*score),
        };
        last = Some((*score, made));
        *score = made;
    }
}
