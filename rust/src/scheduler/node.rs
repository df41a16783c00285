//! A node as the plugins see it.

use std::collections::BTreeSet;

use super::SchedulerError;
use super::labels::Labels;
use super::requests::{Amounts, Scalars, is_scalar};
use super::wire;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    pub name: String,
    pub labels: Labels,
    pub is_unschedulable: bool,
    pub taints: Vec<wire::Taint>,
    pub allocatable: Amounts,
    /// Extended resources and huge pages.
    pub scalars: Scalars,
    /// Names and sizes in bytes, as the node reports them.
    pub images: Vec<(String, i64)>,
    pub declared_features: BTreeSet<String>,
    /// Region and zone; nodes are visited zone by zone in turn.
    pub zone: String,
}

impl Node {
    /// Read a Node's JSON.
    pub fn parse(bytes: &[u8]) -> Result<Node, SchedulerError> {
        let node: wire::Node =
            serde_json::from_slice(bytes).map_err(|source| SchedulerError::Unreadable {
                kind: "Node",
                source,
            })?;
        Ok(Node::from(node))
    }

    /// Return whether everything but what the node offers and which images it has is the same.
    pub fn looks_like(&self, other: &Node) -> bool {
        self.labels == other.labels
            && self.is_unschedulable == other.is_unschedulable
            && self.taints == other.taints
            && self.declared_features == other.declared_features
    }
}

impl From<wire::Node> for Node {
    fn from(node: wire::Node) -> Self {
        let wire::Node {
            metadata,
            spec,
            status,
        } = node;
        let amount = |name: &str| status.allocatable.get(name).copied().unwrap_or_default();
        let names = |image: wire::Image| {
            let size = image.size_bytes;
            image.names.into_iter().map(move |name| (name, size))
        };
        Node {
            allocatable: Amounts {
                milli_cpu: amount("cpu").milli_value(),
                memory: amount("memory").value(),
                ephemeral_storage: amount("ephemeral-storage").value(),
                pods: amount("pods").value(),
            },
            scalars: status
                .allocatable
                .iter()
                .filter(|(name, _)| is_scalar(name))
                .map(|(name, amount)| (name.clone(), amount.value()))
                .collect(),
            images: status.images.into_iter().flat_map(names).collect(),
            declared_features: status.declared_features.into_iter().collect(),
            zone: zone_of(&metadata.labels),
            name: metadata.name,
            labels: metadata.labels,
            is_unschedulable: spec.unschedulable,
            taints: spec.taints,
        }
    }
}

/// Return region and zone as one key, empty when the node has neither label; the labels of old come first.
/// Mirrors component-helpers' GetZoneKey.
fn zone_of(labels: &Labels) -> String {
    let read = |beta: &str, stable: &str| {
        labels
            .get(beta)
            .or_else(|| labels.get(stable))
            .map_or("", String::as_str)
    };
    let region = read(
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    );
    let zone = read(
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    );
    if region.is_empty() && zone.is_empty() {
        String::new()
    } else {
        format!("{region}:\u{0}:{zone}")
    }
}
