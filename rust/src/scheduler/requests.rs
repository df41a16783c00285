//! What a pod asks for. Mirrors component-helpers' resource.PodRequests and kube-scheduler's PodInfo.CalculateResource.
//!
//! Four sums are in use upstream and they differ: NodeResourcesFit filters by what the spec asks for; a node is charged with what
//! the pod holds while a resize is under way; charged again with defaults for containers that ask for nothing, for scoring; and
//! NodeResourcesFit scores the pod by its containers alone, because its scorer is made without the pod-level switch.

use std::collections::BTreeMap;

use super::quantity::{Quantity, ResourceList};
use super::wire;

/// A container without a CPU request counts this much when nodes are scored, in thousandths of a core.
pub const DEFAULT_MILLI_CPU_REQUEST: i64 = 100;
/// A container without a memory request counts this much when nodes are scored, in bytes.
pub const DEFAULT_MEMORY_REQUEST: i64 = 200 * 1024 * 1024;

/// Amounts of the four resources that every node has. CPU in thousandths of a core, the others in bytes and pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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

    /// Return whether beside this much in use one more pod that wants so much fits into the total.
    pub fn leaves_room_for(&self, wanted: &Amounts, total: &Amounts) -> bool {
        let has = |wanted: i64, used: i64, total: i64| wanted <= 0 || wanted <= total - used;
        self.pods < total.pods
            && has(wanted.milli_cpu, self.milli_cpu, total.milli_cpu)
            && has(wanted.memory, self.memory, total.memory)
            && has(
                wanted.ephemeral_storage,
                self.ephemeral_storage,
                total.ephemeral_storage,
            )
    }

    pub fn subtract(&mut self, other: Amounts) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods -= other.pods;
    }
}

/// Extended resources and huge pages by name, in pieces or bytes.
pub type Scalars = BTreeMap<String, i64>;

/// The four sums.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// What must be free on a node; `pods` is one.
    pub wanted: Amounts,
    pub wanted_scalars: Scalars,
    /// What the node is charged with.
    pub held: Amounts,
    pub held_scalars: Scalars,
    /// CPU (milli) and memory charged for scoring.
    pub held_nonzero: (i64, i64),
    /// CPU (milli), memory and ephemeral storage by which NodeResourcesFit scores the pod.
    pub scored: (i64, i64, i64),
    pub scored_scalars: Scalars,
}

impl Requests {
    pub fn read(spec: &wire::PodSpec, status: &wire::PodStatus) -> Requests {
        let wanted = sum(spec, None, true, &BTreeMap::new());
        let has_status = status.resources.is_some()
            || status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
                .any(|one| one.resources.is_some() || one.allocated_resources.is_some());
        let charged = has_status.then_some(status);
        let has_pod_level = spec
            .resources
            .requests
            .as_ref()
            .is_some_and(|all| all.keys().any(|name| is_pod_level(name)));
        let held = match charged {
            Some(_) => sum(spec, charged, true, &BTreeMap::new()),
            None => wanted.clone(),
        };
        let missing = defaults(|name| !has_pod_level || !held.0.contains_key(name));
        let nonzero = sum(spec, charged, true, &missing);
        let scored = if has_status || has_pod_level {
            sum(spec, None, false, &defaults(|_| true))
        } else {
            nonzero.clone()
        };
        Requests {
            wanted: amounts(&wanted),
            wanted_scalars: scalars(&wanted),
            held: amounts(&held),
            held_scalars: scalars(&held),
            held_nonzero: (
                nonzero.get("cpu").milli_value(),
                nonzero.get("memory").value(),
            ),
            scored: (
                scored.get("cpu").milli_value(),
                scored.get("memory").value(),
                scored.get("ephemeral-storage").value(),
            ),
            scored_scalars: scalars(&scored),
        }
    }

    /// Return whether the pod asks for nothing but a place.
    pub fn is_empty(&self) -> bool {
        let Amounts {
            milli_cpu,
            memory,
            ephemeral_storage,
            ..
        } = self.wanted;
        milli_cpu == 0 && memory == 0 && ephemeral_storage == 0 && self.wanted_scalars.is_empty()
    }
}

fn amounts(list: &ResourceList) -> Amounts {
    Amounts {
        milli_cpu: list.get("cpu").milli_value(),
        memory: list.get("memory").value(),
        ephemeral_storage: list.get("ephemeral-storage").value(),
        pods: 1,
    }
}

fn scalars(list: &ResourceList) -> Scalars {
    list.0
        .iter()
        .filter(|(name, _)| is_scalar(name))
        .map(|(name, amount)| (name.clone(), amount.value()))
        .filter(|(_, amount)| *amount != 0)
        .collect()
}

fn defaults(counts: impl Fn(&str) -> bool) -> BTreeMap<String, Quantity> {
    let all = [
        ("cpu", i128::from(DEFAULT_MILLI_CPU_REQUEST) * 1_000_000),
        ("memory", i128::from(DEFAULT_MEMORY_REQUEST) * 1_000_000_000),
    ];
    all.into_iter()
        .filter(|(name, _)| counts(name))
        .map(|(name, nanos)| (name.to_string(), Quantity(nanos)))
        .collect()
}

/// Return whether nodes count this resource by name. Mirrors schedutil.IsScalarResourceName.
pub fn is_scalar(name: &str) -> bool {
    is_extended(name)
        || name.starts_with("hugepages-")
        || name.contains("kubernetes.io/")
        || name.starts_with("attachable-volumes-")
}

/// Return whether it is an extended resource. Mirrors v1helper.IsExtendedResourceName.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

fn is_resize_infeasible(status: &wire::PodStatus) -> bool {
    status
        .conditions
        .iter()
        .find(|one| one.r#type == "PodResizePending")
        .is_some_and(|one| one.reason == "Infeasible")
}

/// Return what the pod needs at its peak, overhead included. With `status` the largest of wanted, allocated and actual counts;
/// containers that leave out a resource in `missing` get that amount.
fn sum(
    spec: &wire::PodSpec,
    status: Option<&wire::PodStatus>,
    with_pod_level: bool,
    missing: &BTreeMap<String, Quantity>,
) -> ResourceList {
    let mut total = match status {
        None => aggregate(spec, missing, &|container| {
            container.resources.requests.as_ref()
        }),
        Some(status) => aggregate_with_status(spec, status, missing),
    };
    if let Some(requests) = spec.resources.requests.as_ref().filter(|_| with_pod_level) {
        let mut effective = ResourceList::default();
        if !status.is_some_and(is_resize_infeasible) {
            effective.raise_to(requests);
        }
        if let Some(resources) = status.and_then(|one| one.resources.as_ref()) {
            effective.raise_to(resources.requests.as_ref().unwrap_or(&BTreeMap::new()));
            effective.raise_to(
                status
                    .and_then(|one| one.allocated_resources.as_ref())
                    .unwrap_or(&BTreeMap::new()),
            );
        } else {
            effective.raise_to(requests);
        }
        total.0.extend(
            effective
                .0
                .into_iter()
                .filter(|(name, _)| is_pod_level(name)),
        );
    }
    total.add(&spec.overhead);
    total
}

fn aggregate_with_status(
    spec: &wire::PodSpec,
    status: &wire::PodStatus,
    missing: &BTreeMap<String, Quantity>,
) -> ResourceList {
    let infeasible = is_resize_infeasible(status);
    let find = |name: &str| {
        status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .find(|one| one.name == name)
    };
    let mut total = ResourceList::default();
    if !infeasible {
        total = aggregate(spec, missing, &|container| {
            container.resources.requests.as_ref()
        });
    }
    let of_pod = status
        .resources
        .as_ref()
        .and_then(|one| one.requests.as_ref())
        .zip(status.allocated_resources.as_ref());
    if let Some((actual, allocated)) = of_pod {
        total.raise_to(actual);
        total.raise_to(allocated);
        return total;
    }
    let asked = |container: &'_ wire::Container| -> Option<wire::Amounts> {
        container.resources.requests.clone().filter(|_| !infeasible)
    };
    let allocated = |container: &wire::Container| {
        find(&container.name)
            .and_then(|one| one.allocated_resources.clone())
            .or_else(|| asked(container))
    };
    let actual = |container: &wire::Container| {
        find(&container.name)
            .and_then(|one| one.resources.as_ref().and_then(|all| all.requests.clone()))
            .or_else(|| allocated(container))
    };
    total.raise_to(&aggregate_owned(spec, missing, &allocated).0);
    total.raise_to(&aggregate_owned(spec, missing, &actual).0);
    total
}

fn aggregate(
    spec: &wire::PodSpec,
    missing: &BTreeMap<String, Quantity>,
    of: &dyn Fn(&wire::Container) -> Option<&wire::Amounts>,
) -> ResourceList {
    let empty = BTreeMap::new();
    fold(spec, |container, into| {
        let requests = of(container).unwrap_or(&empty);
        into.add(requests);
        for (name, amount) in missing
            .iter()
            .filter(|(name, _)| !requests.contains_key(*name))
        {
            into.add(&BTreeMap::from([(name.clone(), *amount)]));
        }
    })
}

fn aggregate_owned(
    spec: &wire::PodSpec,
    missing: &BTreeMap<String, Quantity>,
    of: &dyn Fn(&wire::Container) -> Option<wire::Amounts>,
) -> ResourceList {
    fold(spec, |container, into| {
        let mut requests = of(container).unwrap_or_default();
        for (name, amount) in missing {
            requests.entry(name.clone()).or_insert(*amount);
        }
        into.add(&requests);
    })
}

/// Containers and sidecars add up; each init container runs beside the sidecars started before it.
fn fold(spec: &wire::PodSpec, add: impl Fn(&wire::Container, &mut ResourceList)) -> ResourceList {
    let mut total = ResourceList::default();
    for container in &spec.containers {
        add(container, &mut total);
    }
    let mut sidecars = ResourceList::default();
    let mut peak = ResourceList::default();
    for container in &spec.init_containers {
        if is_sidecar(container) {
            add(container, &mut total);
            add(container, &mut sidecars);
            peak.raise_to(&sidecars.0);
        } else {
            let mut beside = sidecars.clone();
            add(container, &mut beside);
            peak.raise_to(&beside.0);
        }
    }
    total.raise_to(&peak.0);
    total
}

/// Return whether it is an init container that keeps running.
pub fn is_sidecar(container: &wire::Container) -> bool {
    container.restart_policy == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(pod: Value) -> Requests {
        let pod: wire::Pod = serde_json::from_value(pod).unwrap();
        Requests::read(&pod.spec, &pod.status)
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_count_by_their_peak() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}});
        let found = requests(json!({"spec": {
            "initContainers": [container("1", "10"), sidecar, container("2", "50")],
            "containers": [container("500m", "20"), container("500m", "20")],
        }}));
        // The last init container runs beside the sidecar: 2300m; the containers need 1300m with it.
        assert_eq!((found.wanted.milli_cpu, found.wanted.memory), (2300, 50));
    }

    #[test]
    fn overhead_comes_on_top_and_pod_level_requests_replace_the_sum_but_not_in_the_score() {
        let found = requests(json!({"spec": {
            "resources": {"requests": {"cpu": "4"}}, "overhead": {"cpu": "250m", "memory": "5"},
            "containers": [container("1", "10"), {"name": "d"}],
        }}));
        assert_eq!((found.wanted.milli_cpu, found.wanted.memory), (4250, 15));
        // The pod names CPU, and its containers memory: nothing is missing.
        assert_eq!(found.held_nonzero, (4250, 15));
        assert_eq!(
            (found.scored.0, found.scored.1),
            (1350, 15 + DEFAULT_MEMORY_REQUEST)
        );
    }

    #[test]
    fn a_container_without_requests_counts_defaults_for_scoring_only() {
        let found = requests(json!({"spec": {"containers": [
            {"name": "c"}, {"name": "e", "resources": {"requests": {"cpu": "0", "memory": "1Mi"}}}]}}));
        assert_eq!(
            found.wanted,
            Amounts {
                memory: 1 << 20,
                pods: 1,
                ..Amounts::default()
            }
        );
        assert_eq!(
            found.held_nonzero,
            (100, DEFAULT_MEMORY_REQUEST + (1 << 20))
        );
    }

    #[test]
    fn a_resize_under_way_holds_the_larger_of_wanted_allocated_and_actual() {
        let status = |allocated: &str, actual: &str| {
            json!({"spec": {"containers": [container("1", "10")]}, "status": {"containerStatuses": [
                {"name": "c", "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actual}}}]}})
        };
        assert_eq!(requests(status("2", "3")).held.milli_cpu, 3000);
        assert_eq!(requests(status("2", "500m")).held.milli_cpu, 2000);
        assert_eq!(requests(status("2", "3")).wanted.milli_cpu, 1000);
        let mut refused = status("2", "500m");
        refused["spec"]["containers"] = json!([container("8", "10")]);
        refused["status"]["conditions"] =
            json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(requests(refused).held.milli_cpu, 2000);
    }

    #[test]
    fn only_resources_that_nodes_count_by_name_are_kept() {
        let found = requests(
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {
            "example.com/gpu": "2", "x.io/y": "0", "hugepages-2Mi": "4Mi", "plain": "1"}}}]}}),
        );
        assert_eq!(
            found.wanted_scalars,
            Scalars::from([
                ("example.com/gpu".into(), 2),
                ("hugepages-2Mi".into(), 4 << 20)
            ])
        );
    }
}
