//! The fields of Pods and Nodes that scheduling reads, as they stand in JSON. Everything else is skipped without allocation.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::quantity::Quantity;

/// Read a field that may be absent or null as its default.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

pub type Amounts = BTreeMap<String, Quantity>;

macro_rules! wire_struct {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Default, Clone, Deserialize)]
            #[serde(default, rename_all = "camelCase")]
            pub struct $name {
                $($(#[$field_meta])* #[serde(deserialize_with = "nullable")] pub $field: $type,)*
            }
        )*
    };
}

wire_struct! {
    Metadata {
        name: String,
        namespace: String,
        uid: String,
        labels: BTreeMap<String, String>,
        deletion_timestamp: String,
    }
    /// A Pod.
    Pod { metadata: Metadata, spec: PodSpec, status: PodStatus }
    PodSpec {
        node_name: String,
        node_selector: BTreeMap<String, String>,
        affinity: Affinity,
        tolerations: Vec<Toleration>,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        overhead: Amounts,
        resources: Resources,
        volumes: Vec<Volume>,
        priority: i32,
        preemption_policy: String,
    }
    PodStatus {
        phase: String,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
    }
    ContainerStatus { name: String, resources: Resources, allocated_resources: Amounts }
    Container { name: String, image: String, resources: Resources, ports: Vec<ContainerPort>, restart_policy: String }
    Resources { requests: Amounts, limits: Amounts }
    ContainerPort {
        host_port: u32,
        #[serde(rename = "hostIP")]
        host_ip: String,
        protocol: String,
    }
    Volume { image: ImageVolume }
    ImageVolume { reference: String }
    Affinity { node_affinity: NodeAffinity }
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
        preferred_during_scheduling_ignored_during_execution: Vec<PreferredTerm>,
    }
    NodeSelector { node_selector_terms: Vec<NodeSelectorTerm> }
    PreferredTerm { weight: i64, preference: NodeSelectorTerm }
    NodeSelectorTerm { match_expressions: Vec<NodeRequirement>, match_fields: Vec<NodeRequirement> }
    NodeRequirement { key: String, operator: String, values: Vec<String> }
    #[derive(PartialEq, Eq)]
    Toleration { key: String, operator: String, value: String, effect: String }
    /// A Node.
    Node { metadata: Metadata, spec: NodeSpec, status: NodeStatus }
    NodeSpec { unschedulable: bool, taints: Vec<Taint> }
    #[derive(PartialEq, Eq)]
    Taint { key: String, value: String, effect: String }
    NodeStatus { allocatable: Amounts, images: Vec<Image> }
    Image { names: Vec<String>, size_bytes: i64 }
}
