//! A pod as the plugins see it. What one pod shares with others that differ in name only is its *shape*, computed once when its
//! bytes arrive; everything the engine remembers about a decision it remembers by shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SchedulerError;
use super::labels::{Labels, Selector};
use super::plugins::node_declared_features;
use super::requests::{Requests, is_sidecar};
use super::selector::Term;
use super::wire;

/// A port that a pod wants on its node; an unset IP is 0.0.0.0, which conflicts with every other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub protocol: String,
    pub port: u32,
    pub ip: String,
}

impl HostPort {
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// A preferred node affinity term and what a match is worth.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preference {
    pub weight: i64,
    pub term: Term,
}

/// An inter-pod affinity term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    pub selector: Selector,
    /// The namespaces named; the pod's own when the term says nothing.
    pub namespaces: Vec<String>,
    pub namespace_selector: Selector,
    pub topology_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightedAffinityTerm {
    pub weight: i64,
    pub term: AffinityTerm,
}

/// All inter-pod terms of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InterPodTerms {
    pub required: Vec<AffinityTerm>,
    pub required_anti: Vec<AffinityTerm>,
    pub preferred: Vec<WeightedAffinityTerm>,
    pub preferred_anti: Vec<WeightedAffinityTerm>,
}

impl InterPodTerms {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }

    pub fn terms(&self) -> impl Iterator<Item = &AffinityTerm> {
        let required = self.required.iter().chain(&self.required_anti);
        let preferred = self
            .preferred
            .iter()
            .chain(&self.preferred_anti)
            .map(|one| &one.term);
        required.chain(preferred)
    }

    pub fn topology_keys(&self) -> impl Iterator<Item = &str> {
        self.terms().map(|term| term.topology_key.as_str())
    }
}

/// A topology spread constraint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    /// DoNotSchedule, as opposed to ScheduleAnyway.
    pub is_hard: bool,
    pub selector: Selector,
    pub min_domains: i64,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

/// The controller that owns a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

/// What a pod does with storage, as far as scheduling cares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeUse {
    /// A claim by name; `is_generic` is set for the claim that an ephemeral volume makes.
    Claim {
        name: String,
        is_generic: bool,
    },
    InlineCsi {
        driver: String,
    },
    GcePersistentDisk {
        name: String,
        read_only: bool,
    },
    AwsElasticBlockStore {
        id: String,
    },
    Iscsi {
        iqn: String,
        read_only: bool,
    },
    Rbd {
        monitors: Vec<String>,
        pool: String,
        image: String,
        read_only: bool,
    },
}

/// All of a pod that a decision can depend on, its priority excepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    pub namespace: String,
    pub labels: Labels,
    pub scheduler_name: String,
    pub is_terminating: bool,
    /// spec.nodeName of a pod that is yet to be scheduled.
    pub pinned: String,
    pub requests: Requests,
    pub node_selector: BTreeMap<String, String>,
    /// None: no required node affinity. An empty list matches no node.
    pub required_terms: Option<Vec<Term>>,
    pub preferences: Vec<Preference>,
    pub tolerations: Vec<wire::Toleration>,
    pub host_ports: Vec<HostPort>,
    /// Images of init containers, containers and image volumes, with a tag.
    pub images: Vec<String>,
    pub inter_pod: InterPodTerms,
    pub spread: Vec<SpreadConstraint>,
    pub owner: Option<Owner>,
    pub volumes: Vec<VolumeUse>,
    /// Features that a node must declare to run it.
    pub needed_features: Vec<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node_name: String,
    pub nominated_node_name: String,
    /// Succeeded or Failed: its resources are free again.
    pub is_terminal: bool,
    /// Terminating because a more important pod took its place.
    pub is_preempted: bool,
    pub priority: i32,
    pub never_preempts: bool,
    /// RFC 3339 in UTC, so that text order is time order; empty before the pod was seen by its node.
    pub start_time: String,
    pub shape: Arc<Shape>,
}

impl Pod {
    /// Read a Pod's JSON.
    pub fn parse(bytes: &[u8]) -> Result<Pod, SchedulerError> {
        let pod: wire::Pod =
            serde_json::from_slice(bytes).map_err(|source| SchedulerError::Unreadable {
                kind: "Pod",
                source,
            })?;
        Ok(Pod::from(pod))
    }

    /// Return `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl From<wire::Pod> for Pod {
    fn from(pod: wire::Pod) -> Self {
        let is_terminating = !pod.metadata.deletion_timestamp.is_empty();
        let is_preempted = is_terminating
            && pod.status.conditions.iter().any(|one| {
                one.r#type == "DisruptionTarget"
                    && one.status == "True"
                    && one.reason == "PreemptionByScheduler"
            });
        let shape = Arc::new(shape_of(&pod));
        let wire::Pod {
            metadata,
            spec,
            status,
        } = pod;
        Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            node_name: spec.node_name,
            nominated_node_name: status.nominated_node_name,
            is_terminal: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            is_preempted,
            priority: spec.priority,
            never_preempts: spec.preemption_policy == "Never",
            start_time: status.start_time,
            shape,
        }
    }
}

fn shape_of(pod: &wire::Pod) -> Shape {
    let wire::Pod {
        metadata,
        spec,
        status,
    } = pod;
    let affinity = &spec.affinity.node_affinity;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref();
    let preferred = affinity
        .preferred_during_scheduling_ignored_during_execution
        .iter();
    let images = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .map(|one| one.image.as_str());
    let volumes = spec
        .volumes
        .iter()
        .filter_map(|one| one.image.as_ref())
        .map(|one| one.reference.as_str());
    let owner = metadata.owner_references.iter().find(|one| one.controller);
    Shape {
        namespace: metadata.namespace.clone(),
        labels: metadata.labels.clone(),
        scheduler_name: spec.scheduler_name.clone(),
        is_terminating: !metadata.deletion_timestamp.is_empty(),
        pinned: String::new(),
        requests: Requests::read(spec, status),
        node_selector: spec.node_selector.clone(),
        required_terms: required
            .map(|one| one.node_selector_terms.iter().map(Term::from).collect()),
        preferences: preferred
            .map(|one| Preference {
                weight: one.weight,
                term: Term::from(&one.preference),
            })
            .collect(),
        tolerations: spec.tolerations.clone(),
        host_ports: host_ports(spec),
        images: images.chain(volumes).map(with_tag).collect(),
        inter_pod: inter_pod_terms(&metadata.namespace, &spec.affinity),
        spread: spec
            .topology_spread_constraints
            .iter()
            .map(|one| spread_constraint(one, &metadata.labels))
            .collect(),
        owner: owner.map(|one| Owner {
            api_version: one.api_version.clone(),
            kind: one.kind.clone(),
            name: one.name.clone(),
        }),
        volumes: spec
            .volumes
            .iter()
            .filter_map(|one| volume_use(&metadata.name, one))
            .collect(),
        needed_features: node_declared_features::needed(spec),
    }
}

fn inter_pod_terms(namespace: &str, affinity: &wire::Affinity) -> InterPodTerms {
    let term = |one: &wire::PodAffinityTerm| AffinityTerm {
        selector: Selector::read(one.label_selector.as_ref()),
        namespaces: if one.namespaces.is_empty() && one.namespace_selector.is_none() {
            vec![namespace.to_string()]
        } else {
            one.namespaces.clone()
        },
        namespace_selector: Selector::read(one.namespace_selector.as_ref()),
        topology_key: one.topology_key.clone(),
    };
    let required = |all: &Option<wire::PodAffinity>| -> Vec<AffinityTerm> {
        all.iter()
            .flat_map(|one| &one.required_during_scheduling_ignored_during_execution)
            .map(term)
            .collect()
    };
    let preferred = |all: &Option<wire::PodAffinity>| -> Vec<WeightedAffinityTerm> {
        let weighted = all
            .iter()
            .flat_map(|one| &one.preferred_during_scheduling_ignored_during_execution);
        weighted
            .map(|one| WeightedAffinityTerm {
                weight: one.weight,
                term: term(&one.pod_affinity_term),
            })
            .collect()
    };
    InterPodTerms {
        required: required(&affinity.pod_affinity),
        required_anti: required(&affinity.pod_anti_affinity),
        preferred: preferred(&affinity.pod_affinity),
        preferred_anti: preferred(&affinity.pod_anti_affinity),
    }
}

/// Read a constraint; `labels` are the pod's, whose values `matchLabelKeys` adds to the selector.
pub fn spread_constraint(
    one: &wire::TopologySpreadConstraint,
    labels: &Labels,
) -> SpreadConstraint {
    let mut selector = Selector::read(one.label_selector.as_ref());
    let keyed: Labels = one
        .match_label_keys
        .iter()
        .filter_map(|key| Some((key.clone(), labels.get(key)?.clone())))
        .collect();
    selector.require(&keyed);
    SpreadConstraint {
        max_skew: one.max_skew,
        topology_key: one.topology_key.clone(),
        is_hard: one.when_unsatisfiable == "DoNotSchedule",
        selector,
        min_domains: one.min_domains.unwrap_or(1),
        honors_affinity: one.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor",
        honors_taints: one.node_taints_policy.as_deref().unwrap_or("Ignore") == "Honor",
    }
}

fn volume_use(pod: &str, volume: &wire::Volume) -> Option<VolumeUse> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(VolumeUse::Claim {
            name: claim.claim_name.clone(),
            is_generic: false,
        });
    }
    if volume.ephemeral.is_some() {
        return Some(VolumeUse::Claim {
            name: format!("{pod}-{}", volume.name),
            is_generic: true,
        });
    }
    if let Some(csi) = &volume.csi {
        return Some(VolumeUse::InlineCsi {
            driver: csi.driver.clone(),
        });
    }
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(VolumeUse::GcePersistentDisk {
            name: disk.pd_name.clone(),
            read_only: disk.read_only,
        });
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(VolumeUse::AwsElasticBlockStore {
            id: disk.volume_id.clone(),
        });
    }
    if let Some(disk) = &volume.iscsi {
        return Some(VolumeUse::Iscsi {
            iqn: disk.iqn.clone(),
            read_only: disk.read_only,
        });
    }
    let disk = volume.rbd.as_ref()?;
    let wire::Rbd {
        monitors,
        pool,
        image,
        read_only,
    } = disk.clone();
    let pool = if pool.is_empty() {
        "rbd".to_string()
    } else {
        pool
    };
    Some(VolumeUse::Rbd {
        monitors,
        pool,
        image,
        read_only,
    })
}

/// Return the image's name as nodes report it: with the tag `latest` when it has none.
pub fn with_tag(image: &str) -> String {
    let tag = image.rfind(':');
    if tag.is_none() || tag <= image.rfind('/') {
        format!("{image}:latest")
    } else {
        image.to_string()
    }
}

fn host_ports(spec: &wire::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|one| is_sidecar(one));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|one| &one.ports)
        .filter(|one| one.host_port > 0);
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_string()
        } else {
            text.to_string()
        }
    };
    ports
        .map(|one| HostPort {
            protocol: or(&one.protocol, "TCP"),
            port: one.host_port,
            ip: or(&one.host_ip, "0.0.0.0"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_fields_read_as_absent() {
        let value = json!({"metadata": {"name": "p", "labels": null}, "spec": {"containers": null, "nodeSelector": null, "affinity": null,
            "tolerations": null, "nodeName": null, "volumes": null}, "status": null});
        let found = Pod::parse(value.to_string().as_bytes()).unwrap();
        assert!(found.shape.requests.is_empty() && found.shape.required_terms.is_none());
    }

    #[test]
    fn pods_that_differ_in_name_only_have_one_shape() {
        let read = |name: &str, cpu: &str| {
            let value = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
            Pod::parse(value.to_string().as_bytes()).unwrap().shape
        };
        assert_eq!(read("a", "1"), read("b", "1000m"));
        assert_ne!(read("a", "1"), read("b", "2"));
    }

    #[test]
    fn match_label_keys_add_the_pods_own_values() {
        let labels = Labels::from([("rev".into(), "7".into())]);
        let one: wire::TopologySpreadConstraint =
            serde_json::from_value(json!({"labelSelector": {"matchLabels": {"app": "a"}}, "matchLabelKeys": ["rev", "none"]})).unwrap();
        let found = spread_constraint(&one, &labels);
        let with =
            |rev: &str| Labels::from([("app".into(), "a".into()), ("rev".into(), rev.into())]);
        assert!(found.selector.matches(&with("7")) && !found.selector.matches(&with("8")));
    }

    #[test]
    fn images_without_a_tag_are_latest() {
        for (image, expected) in [
            ("a", "a:latest"),
            ("r:5000/a", "r:5000/a:latest"),
            ("r:5000/a:1", "r:5000/a:1"),
            ("a@sha256:12", "a@sha256:12"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }
}
