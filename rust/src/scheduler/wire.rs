//! The fields of Pods and Nodes that scheduling reads, as they stand in JSON. Everything else is skipped without allocation.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::quantity::Quantity;

/// Read a field that may be absent or null as its default.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

pub type Amounts = BTreeMap<String, Quantity>;

macro_rules! wire_struct {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Default, Clone, serde::Deserialize)]
            #[serde(default, rename_all = "camelCase")]
            pub struct $name {
                $($(#[$field_meta])* #[serde(deserialize_with = "crate::scheduler::wire::nullable")] pub $field: $type,)*
            }
        )*
    };
}
pub(super) use wire_struct;

wire_struct! {
    Metadata {
        name: String,
        namespace: String,
        uid: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        deletion_timestamp: String,
        owner_references: Vec<OwnerReference>,
    }
    OwnerReference { api_version: String, kind: String, name: String, controller: bool }
    /// A Pod.
    Pod { metadata: Metadata, spec: PodSpec, status: PodStatus }
    PodSpec {
        node_name: String,
        scheduler_name: String,
        node_selector: BTreeMap<String, String>,
        affinity: Affinity,
        tolerations: Vec<Toleration>,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        overhead: Amounts,
        resources: Resources,
        volumes: Vec<Volume>,
        priority: i32,
        preemption_policy: String,
        host_network: bool,
        host_users: Option<bool>,
    }
    PodStatus {
        phase: String,
        nominated_node_name: String,
        start_time: String,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
        resources: Option<Resources>,
        allocated_resources: Option<Amounts>,
    }
    Condition { r#type: String, status: String, reason: String }
    ContainerStatus { name: String, resources: Option<Resources>, allocated_resources: Option<Amounts> }
    Container { name: String, image: String, resources: Resources, ports: Vec<ContainerPort>, restart_policy: String, restart_policy_rules: Vec<RestartRule>, volume_mounts: Vec<VolumeMount> }
    RestartRule { action: String }
    VolumeMount { bind_mount_options: Vec<String> }
    Resources { requests: Option<Amounts> }
    ContainerPort {
        host_port: u32,
        #[serde(rename = "hostIP")]
        host_ip: String,
        protocol: String,
    }
    Volume {
        name: String,
        image: Option<ImageVolume>,
        persistent_volume_claim: Option<ClaimVolume>,
        ephemeral: Option<EphemeralVolume>,
        csi: Option<InlineCsi>,
        gce_persistent_disk: Option<GcePersistentDisk>,
        aws_elastic_block_store: Option<AwsElasticBlockStore>,
        iscsi: Option<Iscsi>,
        rbd: Option<Rbd>,
    }
    ImageVolume { reference: String }
    ClaimVolume { claim_name: String, read_only: bool }
    EphemeralVolume {}
    InlineCsi { driver: String }
    GcePersistentDisk { pd_name: String, read_only: bool }
    AwsElasticBlockStore {
        #[serde(rename = "volumeID")]
        volume_id: String,
    }
    Iscsi { iqn: String, read_only: bool }
    Rbd { monitors: Vec<String>, pool: String, image: String, read_only: bool }
    Affinity { node_affinity: NodeAffinity, pod_affinity: Option<PodAffinity>, pod_anti_affinity: Option<PodAffinity> }
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
        preferred_during_scheduling_ignored_during_execution: Vec<PreferredTerm>,
    }
    NodeSelector { node_selector_terms: Vec<NodeSelectorTerm> }
    PreferredTerm { weight: i64, preference: NodeSelectorTerm }
    NodeSelectorTerm { match_expressions: Vec<NodeRequirement>, match_fields: Vec<NodeRequirement> }
    NodeRequirement { key: String, operator: String, values: Vec<String> }
    PodAffinity {
        required_during_scheduling_ignored_during_execution: Vec<PodAffinityTerm>,
        preferred_during_scheduling_ignored_during_execution: Vec<WeightedPodAffinityTerm>,
    }
    WeightedPodAffinityTerm { weight: i64, pod_affinity_term: PodAffinityTerm }
    PodAffinityTerm {
        label_selector: Option<LabelSelector>,
        namespaces: Vec<String>,
        namespace_selector: Option<LabelSelector>,
        topology_key: String,
    }
    LabelSelector { match_labels: BTreeMap<String, String>, match_expressions: Vec<NodeRequirement> }
    TopologySpreadConstraint {
        max_skew: i64,
        topology_key: String,
        when_unsatisfiable: String,
        label_selector: Option<LabelSelector>,
        min_domains: Option<i64>,
        node_affinity_policy: Option<String>,
        node_taints_policy: Option<String>,
        match_label_keys: Vec<String>,
    }
    #[derive(PartialEq, Eq, Hash)]
    Toleration { key: String, operator: String, value: String, effect: String }
    /// A Node.
    Node { metadata: Metadata, spec: NodeSpec, status: NodeStatus }
    NodeSpec { unschedulable: bool, taints: Vec<Taint> }
    #[derive(PartialEq, Eq)]
    Taint { key: String, value: String, effect: String }
    NodeStatus { allocatable: Amounts, images: Vec<Image>, declared_features: Vec<String> }
    #[derive(PartialEq, Eq)]
    Image { names: Vec<String>, size_bytes: i64 }
}
