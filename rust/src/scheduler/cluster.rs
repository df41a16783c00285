//! What else than pods and nodes decisions depend on: namespaces, services and controllers, disruption budgets, and storage.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::SchedulerError;
use super::labels::{Labels, Selector};
use super::quantity::Quantity;
use super::selector::Term;
use super::wire::{self, wire_struct};

/// Labels of a volume that say where it is.
const ZONE_LABELS: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Namespace and name; the namespace is empty for what has none.
pub type Key = (String, String);

wire_struct! {
    WireObject { kind: String, metadata: wire::Metadata, spec: serde_json::Value, status: serde_json::Value }
    WireService { selector: Option<Labels> }
    WireReplicationController { selector: Option<Labels> }
    WireWorkload { selector: Option<wire::LabelSelector> }
    WireBudget { selector: Option<wire::LabelSelector> }
    WireBudgetStatus { disruptions_allowed: i64, disrupted_pods: BTreeMap<String, serde_json::Value> }
    WireClaim {
        volume_name: String,
        storage_class_name: Option<String>,
        access_modes: Vec<String>,
        volume_mode: String,
        selector: Option<wire::LabelSelector>,
        resources: WireClaimResources,
    }
    WireClaimResources { requests: wire::Amounts }
    WireClaimStatus { phase: String }
    WireVolume {
        storage_class_name: String,
        access_modes: Vec<String>,
        volume_mode: String,
        capacity: wire::Amounts,
        claim_ref: Option<WireReference>,
        node_affinity: WireVolumeAffinity,
        csi: Option<WireCsi>,
    }
    WireReference { namespace: String, name: String, uid: String }
    WireVolumeAffinity { required: Option<wire::NodeSelector> }
    WireCsi { driver: String, volume_handle: String }
    WireClass {
        metadata: wire::Metadata,
        provisioner: String,
        volume_binding_mode: String,
        allowed_topologies: Vec<WireTopologyTerm>,
    }
    WireTopologyTerm { match_label_expressions: Vec<WireTopologyRequirement> }
    WireTopologyRequirement { key: String, values: Vec<String> }
    WireCsiNode { drivers: Vec<WireCsiNodeDriver> }
    WireCsiNodeDriver { name: String, allocatable: WireCount }
    WireCount { count: Option<i64> }
    WireCsiDriver { storage_capacity: bool }
    WireCapacity {
        metadata: wire::Metadata,
        storage_class_name: String,
        node_topology: Option<wire::LabelSelector>,
        capacity: Option<Quantity>,
        maximum_volume_size: Option<Quantity>,
    }
}

#[derive(Debug, Clone)]
pub struct Budget {
    pub selector: Selector,
    pub disruptions_allowed: i64,
    pub disrupted_pods: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub struct Claim {
    pub uid: String,
    pub volume_name: String,
    pub is_bound: bool,
    pub is_being_deleted: bool,
    pub class: Option<String>,
    pub access_modes: BTreeSet<String>,
    pub volume_mode: String,
    pub selector: Option<Selector>,
    pub request: Quantity,
    pub selected_node: String,
    /// The pod that an ephemeral volume's claim belongs to.
    pub owner_uid: String,
}

#[derive(Debug, Clone)]
pub struct Volume {
    pub labels: Labels,
    pub class: String,
    pub access_modes: BTreeSet<String>,
    pub volume_mode: String,
    pub capacity: Quantity,
    /// Namespace, name and uid of the claim it is bound or promised to.
    pub claim: Option<(String, String, String)>,
    /// None: reachable from everywhere.
    pub node_terms: Option<Vec<Term>>,
    /// Driver and handle.
    pub csi: Option<(String, String)>,
    pub is_being_deleted: bool,
}

#[derive(Debug, Clone)]
pub struct StorageClass {
    pub provisioner: String,
    pub waits_for_first_consumer: bool,
    /// Each term is a list of (key, values), ANDed; terms are ORed; none means everywhere.
    pub allowed_topologies: Vec<Vec<(String, Vec<String>)>>,
}

/// How much a storage class has left for the nodes of a segment.
#[derive(Debug, Clone)]
pub struct StorageCapacity {
    pub class: String,
    /// None: reachable from nowhere.
    pub nodes: Option<Selector>,
    pub capacity: Quantity,
    /// The largest volume that can be made; None when nothing is known.
    pub limit: Option<Quantity>,
}

/// A change of storage that may help pods that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageChange {
    Claim {
        namespace: String,
        name: String,
        is_new: bool,
    },
    Volume {
        is_new: bool,
        /// Its zone labels changed.
        is_moved: bool,
    },
    Class {
        is_new: bool,
        /// Where it makes volumes changed.
        is_moved: bool,
        waits_for_first_consumer: bool,
    },
    CsiNode {
        is_new: bool,
        /// The node can attach more volumes of a driver.
        is_raised: bool,
    },
    Capacity {
        is_raised: bool,
    },
    /// The capacity of a driver no longer counts.
    StoppedCounting {
        driver: String,
    },
}

/// All of it, by kind.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub namespaces: BTreeMap<String, Labels>,
    /// Selectors of services by namespace.
    pub services: BTreeMap<String, BTreeMap<String, Labels>>,
    /// By kind, namespace and name.
    pub controllers: BTreeMap<(String, Key), Selector>,
    pub budgets: BTreeMap<Key, Budget>,
    pub claims: BTreeMap<Key, Claim>,
    pub volumes: BTreeMap<String, Volume>,
    pub classes: BTreeMap<String, StorageClass>,
    /// How many volumes of each driver a node can attach.
    pub csi_limits: BTreeMap<String, BTreeMap<String, i64>>,
    /// CSI drivers that want their storage capacity to be looked at.
    pub capacity_drivers: BTreeSet<String>,
    pub capacities: BTreeMap<Key, StorageCapacity>,
    /// Label keys named by selectors of services and controllers that came since they were last taken.
    pub selected_keys: Vec<String>,
    /// What happened to storage since it was last taken.
    pub storage_changes: Vec<StorageChange>,
}

/// What a change of one of these objects means for what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Which pods match which terms may have changed.
    Matching,
    /// Only pods with volumes are concerned, and nothing of them is remembered.
    Storage,
}

impl Cluster {
    /// Take in one object; kinds that do not matter are ignored.
    pub fn upsert(&mut self, bytes: &[u8]) -> Result<Effect, SchedulerError> {
        let unreadable = |source| SchedulerError::Unreadable {
            kind: "object",
            source,
        };
        let object: WireObject = serde_json::from_slice(bytes).map_err(unreadable)?;
        let kind = object.kind.clone();
        let effect = effect_of(&kind);
        match kind.as_str() {
            "StorageClass" => self.upsert_class(bytes),
            "CSIStorageCapacity" => self.upsert_capacity(bytes),
            _ => self.upsert_object(object),
        }
        .map_err(unreadable)?;
        Ok(effect)
    }

    /// Drop one object by `namespace/name`, or its name when it has no namespace.
    pub fn remove(&mut self, kind: &str, key: &str) -> Effect {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let full = (namespace.to_string(), name.to_string());
        match kind {
            "Namespace" => drop(self.namespaces.remove(name)),
            "Service" => drop(
                self.services
                    .get_mut(namespace)
                    .and_then(|all| all.remove(name)),
            ),
            "ReplicationController" | "ReplicaSet" | "StatefulSet" => {
                drop(self.controllers.remove(&(kind.to_string(), full)))
            }
            "PodDisruptionBudget" => drop(self.budgets.remove(&full)),
            "PersistentVolumeClaim" => drop(self.claims.remove(&full)),
            "PersistentVolume" => drop(self.volumes.remove(name)),
            "StorageClass" => drop(self.classes.remove(name)),
            "CSINode" => drop(self.csi_limits.remove(name)),
            "CSIDriver" => drop(self.capacity_drivers.remove(name)),
            "CSIStorageCapacity" => drop(self.capacities.remove(&full)),
            _ => {}
        }
        effect_of(kind)
    }

    fn upsert_object(&mut self, object: WireObject) -> Result<(), serde_json::Error> {
        let WireObject {
            kind,
            metadata,
            spec,
            status,
        } = object;
        let key = (metadata.namespace.clone(), metadata.name.clone());
        match kind.as_str() {
            "Namespace" => drop(self.namespaces.insert(metadata.name, metadata.labels)),
            "Service" => {
                let of_namespace = self.services.entry(metadata.namespace).or_default();
                match Option::<WireService>::deserialize(spec)?.and_then(|one| one.selector) {
                    // A service without a selector matches nothing, not everything.
                    None => drop(of_namespace.remove(&metadata.name)),
                    Some(selector) => {
                        self.selected_keys.extend(selector.keys().cloned());
                        of_namespace.insert(metadata.name, selector);
                    }
                }
            }
            "ReplicationController" => {
                let selector = Option::<WireReplicationController>::deserialize(spec)?
                    .and_then(|one| one.selector)
                    .unwrap_or_default();
                self.selected_keys.extend(selector.keys().cloned());
                self.controllers
                    .insert((kind, key), Selector::of_labels(&selector));
            }
            "ReplicaSet" | "StatefulSet" => {
                let selector =
                    Option::<WireWorkload>::deserialize(spec)?.and_then(|one| one.selector);
                let selector = Selector::read(selector.as_ref());
                self.selected_keys
                    .extend(selector.keys().map(str::to_string));
                self.controllers.insert((kind, key), selector);
            }
            "PodDisruptionBudget" => {
                let selector = Option::<WireBudget>::deserialize(spec)?
                    .unwrap_or_default()
                    .selector;
                let status = Option::<WireBudgetStatus>::deserialize(status)?.unwrap_or_default();
                let budget = Budget {
                    selector: Selector::read(selector.as_ref()),
                    disruptions_allowed: status.disruptions_allowed,
                    disrupted_pods: status.disrupted_pods.into_keys().collect(),
                };
                self.budgets.insert(key, budget);
            }
            "PersistentVolumeClaim" => {
                let (namespace, name) = key.clone();
                let is_new = self
                    .claims
                    .insert(key, claim(&metadata, spec, status)?)
                    .is_none();
                self.storage_changes.push(StorageChange::Claim {
                    namespace,
                    name,
                    is_new,
                });
            }
            "PersistentVolume" => {
                let name = metadata.name.clone();
                let volume = volume(metadata, spec)?;
                let zones = |of: &Volume| ZONE_LABELS.map(|key| of.labels.get(key).cloned());
                let before = self.volumes.get(&name);
                self.storage_changes.push(StorageChange::Volume {
                    is_new: before.is_none(),
                    is_moved: before.is_some_and(|one| zones(one) != zones(&volume)),
                });
                self.volumes.insert(name, volume);
            }
            "CSINode" => {
                let drivers = Option::<WireCsiNode>::deserialize(spec)?
                    .unwrap_or_default()
                    .drivers;
                let limits: BTreeMap<String, i64> = drivers
                    .into_iter()
                    .filter_map(|one| Some((one.name, one.allocatable.count?)))
                    .collect();
                let before = self.csi_limits.get(&metadata.name);
                let had = |driver: &str| before.and_then(|one| one.get(driver)).unwrap_or(&0);
                self.storage_changes.push(StorageChange::CsiNode {
                    is_new: before.is_none(),
                    is_raised: limits.iter().any(|(driver, count)| count > had(driver)),
                });
                self.csi_limits.insert(metadata.name, limits);
            }
            "CSIDriver" => {
                let driver = Option::<WireCsiDriver>::deserialize(spec)?.unwrap_or_default();
                if driver.storage_capacity {
                    self.capacity_drivers.insert(metadata.name);
                } else if self.capacity_drivers.remove(&metadata.name) {
                    let driver = metadata.name;
                    self.storage_changes
                        .push(StorageChange::StoppedCounting { driver });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn upsert_class(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let read: WireClass = serde_json::from_slice(bytes)?;
        let term = |one: WireTopologyTerm| {
            one.match_label_expressions
                .into_iter()
                .map(|all| (all.key, all.values))
                .collect()
        };
        let class = StorageClass {
            provisioner: read.provisioner,
            waits_for_first_consumer: read.volume_binding_mode == "WaitForFirstConsumer",
            allowed_topologies: read.allowed_topologies.into_iter().map(term).collect(),
        };
        let before = self.classes.get(&read.metadata.name);
        self.storage_changes.push(StorageChange::Class {
            is_new: before.is_none(),
            is_moved: before.is_some_and(|one| one.allowed_topologies != class.allowed_topologies),
            waits_for_first_consumer: class.waits_for_first_consumer,
        });
        self.classes.insert(read.metadata.name, class);
        Ok(())
    }

    fn upsert_capacity(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let read: WireCapacity = serde_json::from_slice(bytes)?;
        let capacity = StorageCapacity {
            class: read.storage_class_name,
            nodes: read
                .node_topology
                .as_ref()
                .map(|one| Selector::read(Some(one))),
            capacity: read.capacity.unwrap_or_default(),
            // What the driver says about single volumes is more precise than what is left in all.
            limit: read.maximum_volume_size.or(read.capacity),
        };
        let key = (read.metadata.namespace, read.metadata.name);
        let before = self.capacities.get(&key).map(|one| one.limit);
        self.storage_changes.push(StorageChange::Capacity {
            is_raised: before.is_none_or(|before| capacity.limit > before),
        });
        self.capacities.insert(key, capacity);
        Ok(())
    }
}

fn effect_of(kind: &str) -> Effect {
    match kind {
        "Namespace" | "Service" | "ReplicationController" | "ReplicaSet" | "StatefulSet" => {
            Effect::Matching
        }
        "PersistentVolumeClaim"
        | "PersistentVolume"
        | "StorageClass"
        | "CSINode"
        | "CSIDriver"
        | "CSIStorageCapacity" => Effect::Storage,
        _ => Effect::Nothing,
    }
}

fn claim(
    metadata: &wire::Metadata,
    spec: serde_json::Value,
    status: serde_json::Value,
) -> Result<Claim, serde_json::Error> {
    let spec = Option::<WireClaim>::deserialize(spec)?.unwrap_or_default();
    let status = Option::<WireClaimStatus>::deserialize(status)?.unwrap_or_default();
    let annotation = |name: &str| metadata.annotations.get(name).cloned();
    let is_bound = !spec.volume_name.is_empty()
        && (annotation("pv.kubernetes.io/bind-completed").is_some() || status.phase == "Bound");
    Ok(Claim {
        uid: metadata.uid.clone(),
        is_bound,
        is_being_deleted: !metadata.deletion_timestamp.is_empty(),
        class: annotation("volume.beta.kubernetes.io/storage-class").or(spec.storage_class_name),
        access_modes: spec.access_modes.into_iter().collect(),
        volume_mode: or_filesystem(spec.volume_mode),
        selector: spec.selector.as_ref().map(|one| Selector::read(Some(one))),
        request: spec
            .resources
            .requests
            .get("storage")
            .copied()
            .unwrap_or_default(),
        selected_node: annotation("volume.kubernetes.io/selected-node").unwrap_or_default(),
        owner_uid: String::new(),
        volume_name: spec.volume_name,
    })
}

fn volume(metadata: wire::Metadata, spec: serde_json::Value) -> Result<Volume, serde_json::Error> {
    let spec = Option::<WireVolume>::deserialize(spec)?.unwrap_or_default();
    let beta_class = metadata
        .annotations
        .get("volume.beta.kubernetes.io/storage-class")
        .cloned();
    Ok(Volume {
        is_being_deleted: !metadata.deletion_timestamp.is_empty(),
        labels: metadata.labels,
        class: beta_class.unwrap_or(spec.storage_class_name),
        access_modes: spec.access_modes.into_iter().collect(),
        volume_mode: or_filesystem(spec.volume_mode),
        capacity: spec.capacity.get("storage").copied().unwrap_or_default(),
        claim: spec.claim_ref.map(|one| (one.namespace, one.name, one.uid)),
        node_terms: spec
            .node_affinity
            .required
            .map(|one| one.node_selector_terms.iter().map(Term::from).collect()),
        csi: spec.csi.map(|one| (one.driver, one.volume_handle)),
    })
}

fn or_filesystem(mode: String) -> String {
    if mode.is_empty() {
        "Filesystem".into()
    } else {
        mode
    }
}
