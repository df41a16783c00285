//! Small builders for tests of this room.

use std::sync::Arc;

use serde_json::{Value, json};

use super::node::Node;
use super::pod::Pod;
use super::snapshot::{Seat, Snapshot};

/// A node of 4 cores, 32Gi and 110 pods.
pub fn node(name: &str) -> Node {
    node_from(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
}

pub fn node_in_zone(name: &str, zone: &str) -> Node {
    node_from(json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}))
}

/// A node from JSON; without `status` it gets 4 cores, 32Gi and 110 pods.
pub fn node_from(mut value: Value) -> Node {
    if value.get("status").is_none() {
        value["status"] = json!({"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}});
    }
    Node::parse(value.to_string().as_bytes()).unwrap()
}

/// A pod with one container that asks for this much CPU; "" asks for nothing.
pub fn pod(name: &str, cpu: &str) -> Pod {
    let requests = if cpu.is_empty() {
        json!({})
    } else {
        json!({"cpu": cpu})
    };
    pod_from(
        name,
        json!({"containers": [{"name": "c", "image": "app:1", "resources": {"requests": requests}}]}),
    )
}

pub fn pod_from(name: &str, spec: Value) -> Pod {
    pod_from_with_labels(name, json!({}), spec)
}

pub fn pod_from_with_labels(name: &str, labels: Value, spec: Value) -> Pod {
    let value = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels}, "spec": spec});
    Pod::parse(value.to_string().as_bytes()).unwrap()
}

/// A seat with these pods on it.
#[allow(
    clippy::field_reassign_with_default,
    reason = "not all fields are visible here"
)]
pub fn seat_with(node: Node, pods: &[Pod]) -> Seat {
    let mut seat = Seat::default();
    seat.node = Arc::new(node);
    for pod in pods {
        seat.weigh(&pod.shape, 1);
    }
    seat
}

pub fn snapshot(nodes: Vec<Node>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.upsert_node(node);
    }
    snapshot.settle();
    snapshot
}

/// Let the pod be bound to the node.
pub fn place(snapshot: &mut Snapshot, mut pod: Pod, node: &str) {
    pod.node_name = node.into();
    snapshot.upsert_pod(pod);
}
