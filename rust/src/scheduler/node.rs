//! A node as the plugins see it.

use std::collections::BTreeMap;

use super::SchedulerError;
use super::pod::Amounts;
use super::wire;

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub is_unschedulable: bool,
    pub taints: Vec<wire::Taint>,
    pub allocatable: Amounts,
    /// Extended resources and huge pages, in pieces or bytes.
    pub extended: BTreeMap<String, i64>,
    /// Size in bytes by image name.
    pub images: BTreeMap<String, i64>,
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
}

impl From<wire::Node> for Node {
    fn from(node: wire::Node) -> Self {
        let wire::Node {
            metadata,
            spec,
            status,
        } = node;
        let amount = |name: &str| status.allocatable.get(name).copied().unwrap_or_default();
        let is_extended =
            |name: &str| !matches!(name, "cpu" | "memory" | "ephemeral-storage" | "pods");
        Node {
            allocatable: Amounts {
                milli_cpu: amount("cpu").milli_value(),
                memory: amount("memory").value(),
                ephemeral_storage: amount("ephemeral-storage").value(),
                pods: amount("pods").value(),
            },
            extended: status
                .allocatable
                .iter()
                .filter(|(name, _)| is_extended(name))
                .map(|(name, amount)| (name.clone(), amount.value()))
                .collect(),
            images: status
                .images
                .iter()
                .flat_map(|image| {
                    image
                        .names
                        .iter()
                        .map(move |name| (name.clone(), image.size_bytes))
                })
                .collect(),
            zone: zone_of(&metadata.labels),
            name: metadata.name,
            labels: metadata.labels,
            is_unschedulable: spec.unschedulable,
            taints: spec.taints,
        }
    }
}

/// Return region and zone as one key, empty when the node has neither label. Mirrors component-helpers' GetZoneKey.
fn zone_of(labels: &BTreeMap<String, String>) -> String {
    let read = |stable: &str, beta: &str| {
        labels
            .get(stable)
            .or_else(|| labels.get(beta))
            .map_or("", String::as_str)
    };
    let region = read(
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/region",
    );
    let zone = read(
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/zone",
    );
    if region.is_empty() && zone.is_empty() {
        String::new()
    } else {
        format!("{region}:\u{0}:{zone}")
    }
}
