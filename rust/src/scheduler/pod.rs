//! A pod as the plugins see it: everything that depends on the pod alone, computed once when its bytes arrive.

use std::collections::{BTreeMap, BTreeSet};

use super::SchedulerError;
use super::quantity::Quantity;
use super::selector::Term;
use super::wire;

/// A container without a CPU request counts this much when nodes are scored, in thousandths of a core.
pub const DEFAULT_MILLI_CPU_REQUEST: i64 = 100;
/// A container without a memory request counts this much when nodes are scored, in bytes.
pub const DEFAULT_MEMORY_REQUEST: i64 = 200 * 1024 * 1024;

/// Amounts of the four resources that every node has. CPU in thousandths of a core, the others in bytes and pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
}

impl Amounts {
    pub fn add(&mut self, other: Amounts) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        self.pods += other.pods;
    }

    pub fn subtract(&mut self, other: Amounts) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods -= other.pods;
    }
}

/// A port that a pod wants on its node; an unset IP is 0.0.0.0, which conflicts with every other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone)]
pub struct Preference {
    pub weight: i64,
    pub term: Term,
}

#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub node_name: String,
    /// Succeeded or Failed: its resources are free again.
    pub is_terminal: bool,
    pub is_terminating: bool,
    pub priority: i32,
    pub never_preempts: bool,
    /// What the pod asks for, `pods` being one.
    pub requests: Amounts,
    /// CPU and memory with defaults for containers that ask for none; the other fields are zero.
    pub nonzero: Amounts,
    /// Extended resources and huge pages, in pieces or bytes; only those above zero.
    pub extended: BTreeMap<String, i64>,
    pub node_selector: BTreeMap<String, String>,
    /// None: no required node affinity. An empty list matches no node.
    pub required_terms: Option<Vec<Term>>,
    pub preferences: Vec<Preference>,
    pub tolerations: Vec<wire::Toleration>,
    pub host_ports: Vec<HostPort>,
    /// Images of init containers, containers and image volumes, with a tag.
    pub images: Vec<String>,
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
        let wire::Pod {
            metadata,
            spec,
            status,
        } = pod;
        let plain = total_requests(&spec, &status, false);
        let nonzero = total_requests(&spec, &status, true);
        let images = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .map(|one| one.image.as_str());
        let volumes = spec
            .volumes
            .iter()
            .map(|one| one.image.reference.as_str())
            .filter(|one| !one.is_empty());
        let images = images.chain(volumes).map(with_tag).collect();
        let affinity = spec.affinity.node_affinity;
        Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: metadata.labels,
            is_terminal: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            is_terminating: !metadata.deletion_timestamp.is_empty(),
            priority: spec.priority,
            never_preempts: spec.preemption_policy == "Never",
            requests: Amounts {
                milli_cpu: plain.milli("cpu"),
                memory: plain.value("memory"),
                ephemeral_storage: plain.value("ephemeral-storage"),
                pods: 1,
            },
            nonzero: Amounts {
                milli_cpu: nonzero.milli("cpu"),
                memory: nonzero.value("memory"),
                ..Amounts::default()
            },
            extended: plain.extended(),
            node_selector: spec.node_selector,
            required_terms: affinity
                .required_during_scheduling_ignored_during_execution
                .map(|selector| {
                    selector
                        .node_selector_terms
                        .into_iter()
                        .map(Term::from)
                        .collect()
                }),
            preferences: affinity
                .preferred_during_scheduling_ignored_during_execution
                .into_iter()
                .map(|one| Preference {
                    weight: one.weight,
                    term: Term::from(one.preference),
                })
                .collect(),
            tolerations: spec.tolerations,
            host_ports: host_ports(&spec.containers, &spec.init_containers),
            images,
            node_name: spec.node_name,
        }
    }
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

fn host_ports(
    containers: &[wire::Container],
    init_containers: &[wire::Container],
) -> Vec<HostPort> {
    let sidecars = init_containers.iter().filter(|one| is_sidecar(one));
    let ports: BTreeSet<HostPort> = containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            protocol: if port.protocol.is_empty() {
                "TCP".into()
            } else {
                port.protocol.clone()
            },
            port: port.host_port,
            ip: if port.host_ip.is_empty() {
                "0.0.0.0".into()
            } else {
                port.host_ip.clone()
            },
        })
        .collect();
    ports.into_iter().collect()
}

fn is_sidecar(container: &wire::Container) -> bool {
    container.restart_policy == "Always"
}

/// Requests by resource name: CPU in thousandths, everything else in whole units, each rounded up.
#[derive(Debug, Clone, Default)]
struct Requests(BTreeMap<String, i64>);

impl Requests {
    fn read(amounts: &wire::Amounts) -> Requests {
        let scale = |name: &str, amount: &Quantity| {
            if name == "cpu" {
                amount.milli_value()
            } else {
                amount.value()
            }
        };
        Requests(
            amounts
                .iter()
                .map(|(name, amount)| (name.clone(), scale(name, amount)))
                .collect(),
        )
    }

    fn milli(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn value(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Requests) {
        for (name, amount) in &other.0 {
            let total = self.0.entry(name.clone()).or_default();
            *total = total.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Requests) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    fn extended(&self) -> BTreeMap<String, i64> {
        let counts = |(name, amount): &(&String, &i64)| {
            !matches!(
                name.as_str(),
                "cpu" | "memory" | "ephemeral-storage" | "pods"
            ) && **amount > 0
        };
        self.0
            .iter()
            .filter(counts)
            .map(|(name, amount)| (name.clone(), *amount))
            .collect()
    }
}

/// Return what the pod needs at its peak. Mirrors component-helpers' resource.PodRequests: containers and sidecars add up, each
/// init container runs beside the sidecars started before it, pod-level requests replace the sum, the overhead comes on top.
fn total_requests(spec: &wire::PodSpec, status: &wire::PodStatus, with_defaults: bool) -> Requests {
    let of = |container: &wire::Container, statuses: &[wire::ContainerStatus]| {
        let mut requests = Requests::read(&container.resources.requests);
        if let Some(found) = statuses.iter().find(|one| one.name == container.name) {
            // While a resize is under way the larger of wanted, allocated and actual counts.
            requests.raise_to(&Requests::read(&found.resources.requests));
            requests.raise_to(&Requests::read(&found.allocated_resources));
        }
        if with_defaults {
            requests
                .0
                .entry("cpu".into())
                .or_insert(DEFAULT_MILLI_CPU_REQUEST);
            requests
                .0
                .entry("memory".into())
                .or_insert(DEFAULT_MEMORY_REQUEST);
        }
        requests
    };
    let mut total = Requests::default();
    for container in &spec.containers {
        total.add(&of(container, &status.container_statuses));
    }
    let mut sidecars = Requests::default();
    let mut peak = Requests::default();
    for container in &spec.init_containers {
        let mut requests = of(container, &status.init_container_statuses);
        if is_sidecar(container) {
            total.add(&requests);
            sidecars.add(&requests);
            peak.raise_to(&sidecars);
        } else {
            requests.add(&sidecars);
            peak.raise_to(&requests);
        }
    }
    total.raise_to(&peak);
    for (name, amount) in Requests::read(&spec.resources.requests).0 {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            total.0.insert(name, amount);
        }
    }
    total.add(&Requests::read(&spec.overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        Pod::parse(
            json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})
                .to_string()
                .as_bytes(),
        )
        .unwrap()
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_count_by_their_peak() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}});
        let found = pod(json!({
            "initContainers": [container("1", "10"), sidecar, container("2", "50")],
            "containers": [container("500m", "20"), container("500m", "20")],
        }));
        // The last init container runs beside the sidecar: 2300m; the containers need 1300m with it.
        assert_eq!(
            (found.requests.milli_cpu, found.requests.memory),
            (2300, 50)
        );
    }

    #[test]
    fn overhead_comes_on_top_and_pod_level_requests_replace_the_sum() {
        let found = pod(json!({
            "resources": {"requests": {"cpu": "4"}}, "overhead": {"cpu": "250m", "memory": "5"},
            "containers": [container("1", "10")],
        }));
        assert_eq!(
            (found.requests.milli_cpu, found.requests.memory),
            (4250, 15)
        );
    }

    #[test]
    fn a_container_without_requests_counts_defaults_for_scoring_only() {
        let found = pod(
            json!({"containers": [{"name": "c"}, {"name": "e", "resources": {"requests": {"cpu": "0", "memory": "1Mi"}}}]}),
        );
        assert_eq!(
            found.requests,
            Amounts {
                memory: 1 << 20,
                pods: 1,
                ..Amounts::default()
            }
        );
        assert_eq!(
            (found.nonzero.milli_cpu, found.nonzero.memory),
            (100, DEFAULT_MEMORY_REQUEST + (1 << 20))
        );
    }

    #[test]
    fn extended_resources_above_zero_are_kept_by_name() {
        let found = pod(
            json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2", "x.io/y": "0"}}}]}),
        );
        assert_eq!(
            found.extended,
            BTreeMap::from([("example.com/gpu".to_string(), 2)])
        );
    }

    #[test]
    fn null_fields_read_as_absent() {
        let found = pod(
            json!({"containers": null, "nodeSelector": null, "affinity": null, "tolerations": null, "nodeName": null}),
        );
        assert_eq!(
            found.requests,
            Amounts {
                pods: 1,
                ..Amounts::default()
            }
        );
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
