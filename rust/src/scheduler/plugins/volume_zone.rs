//! VolumeZone: a volume that says by labels where it is can be used only there. Mirrors plugins/volumezone.

use std::collections::BTreeSet;

use super::volume_restrictions::find;
use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::{Shape, VolumeUse};
use crate::scheduler::snapshot::Snapshot;

const LABELS: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Label and values, one of which the node must have.
pub type Places = Vec<(&'static str, BTreeSet<String>)>;

/// Return where the pod's bound volumes are, or the words for one that does not exist.
pub fn places(snapshot: &Snapshot, shape: &Shape) -> Result<Places, String> {
    let mut places = Places::new();
    for volume in &shape.volumes {
        let VolumeUse::Claim {
            name,
            is_generic: false,
        } = volume
        else {
            continue;
        };
        let bound = find(snapshot, shape, name).map(|claim| claim.volume_name.as_str());
        let Some(name) = bound.filter(|name| !name.is_empty()) else {
            continue;
        };
        let volume = snapshot
            .cluster
            .volumes
            .get(name)
            .ok_or_else(|| format!("persistentvolume \"{name}\" not found"))?;
        for label in LABELS {
            if let Some(value) = volume.labels.get(label) {
                places.push((label, value.split("__").map(String::from).collect()));
            }
        }
    }
    Ok(places)
}

pub fn filter(places: &Places, node: &Node) -> Option<Rejection> {
    if !LABELS.iter().any(|label| node.labels.contains_key(*label)) {
        return None;
    }
    let stable = |label: &str| match label {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        _ => "",
    };
    let is_there = |(label, values): &(&'static str, BTreeSet<String>)| {
        let value = node
            .labels
            .get(*label)
            .or_else(|| node.labels.get(stable(label)));
        value.is_some_and(|value| values.contains(value))
    };
    (!places.iter().all(is_there))
        .then(|| Rejection::unresolvable("node(s) had no available volume zone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, node_in_zone};

    #[test]
    fn a_volume_is_used_where_it_is() {
        let places: Places = vec![(
            "failure-domain.beta.kubernetes.io/zone",
            ["a".to_string(), "b".to_string()].into(),
        )];
        assert!(filter(&places, &node_in_zone("n", "a")).is_none());
        assert!(filter(&places, &node_in_zone("n", "c")).is_some());
        assert!(filter(&places, &node("n")).is_none());
    }
}
