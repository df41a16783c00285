//! Queueing hints: which pods that fit nowhere deserve another try after a change of the cluster. Mirrors each plugin's EventsToRegister
//! and the hint functions named there.
//!
//! A waiting pod is known with the plugins that rejected it; an event wakes it if it may have made one of them change its mind. Pods of
//! one shape rejected by the same plugins share the answer, so that an event costs what different pods wait, not how many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::cluster::StorageChange;
use super::framework::Plugin;
use super::labels::Labels;
use super::node::Node;
use super::plugins::{
    inter_pod_affinity, node_affinity, node_declared_features, node_ports, node_resources_fit,
    pod_topology_spread, taint_toleration, volume_restrictions,
};
use super::pod::{AffinityTerm, Pod, Shape, VolumeUse};
use super::profile::Profile;
use super::snapshot::{Seat, Snapshot};

/// A change that waiting pods are told of.
#[derive(Debug)]
pub enum Event {
    NodeAdded(Arc<Node>),
    /// Before and after.
    NodeChanged(Arc<Node>, Arc<Node>),
    NodeRemoved(Arc<Node>),
    /// A pod counts on a node from now on.
    PodPlaced(Arc<Pod>),
    /// A pod on a node changed: before and after.
    PodChanged(Arc<Pod>, Arc<Pod>),
    /// A pod leaves the node that it was on or waited for.
    PodGone(Arc<Pod>),
    Storage(StorageChange),
}

/// Pods that wait for the same reasons.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    shape: Arc<Shape>,
    profile: usize,
    plugins: BTreeSet<Plugin>,
    /// Whoever rejected it gives no hints: any event will do.
    is_woken_by_all: bool,
}

/// The pods that fit nowhere, by `namespace/name`.
#[derive(Debug, Default)]
pub struct Waiting {
    groups: HashMap<Arc<Group>, BTreeSet<String>>,
    group_of: HashMap<String, Arc<Group>>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Let a pod wait; `names` are those of the plugins that rejected it. One that is unknown to the engine gives no hints.
    pub fn add(&mut self, pod: &Pod, profile: usize, names: &[String]) {
        let known: Vec<Option<Plugin>> = names.iter().map(|name| Plugin::find(name)).collect();
        let group = Arc::new(Group {
            shape: Arc::clone(&pod.shape),
            profile,
            is_woken_by_all: known.is_empty() || known.contains(&None),
            plugins: known.into_iter().flatten().collect(),
        });
        self.remove(&pod.key());
        self.groups
            .entry(Arc::clone(&group))
            .or_default()
            .insert(pod.key());
        self.group_of.insert(pod.key(), group);
    }

    pub fn remove(&mut self, key: &str) {
        let Some(group) = self.group_of.remove(key) else {
            return;
        };
        if let Some(keys) = self.groups.get_mut(&group) {
            keys.remove(key);
            if keys.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Return the keys of pods that one of the events may help, in order; they wait no longer.
    pub fn wake(
        &mut self,
        snapshot: &Snapshot,
        profiles: &[Profile],
        events: &[Event],
    ) -> Vec<String> {
        if events.is_empty() {
            return Vec::new();
        }
        let is_woken = |group: &Group| {
            let Some(profile) = profiles.get(group.profile) else {
                return true;
            };
            let mut plugins = group.plugins.iter();
            group.is_woken_by_all
                || plugins.any(|plugin| {
                    let mut events = events.iter();
                    events.any(|event| may_help(*plugin, event, &group.shape, profile, snapshot))
                })
        };
        let woken: Vec<Arc<Group>> = self
            .groups
            .keys()
            .filter(|group| is_woken(group))
            .cloned()
            .collect();
        let mut keys: Vec<String> = Vec::new();
        for group in woken {
            keys.extend(self.groups.remove(&group).unwrap_or_default());
        }
        keys.sort_unstable();
        for key in &keys {
            self.group_of.remove(key);
        }
        keys
    }
}

/// Return whether a plugin that rejected a pod of this shape may think otherwise after the event.
fn may_help(
    plugin: Plugin,
    event: &Event,
    shape: &Shape,
    profile: &Profile,
    snapshot: &Snapshot,
) -> bool {
    match plugin {
        Plugin::NodeName => matches!(event, Event::NodeAdded(_)),
        Plugin::NodeUnschedulable => becomes(event, |node| !node.is_unschedulable),
        Plugin::TaintToleration => {
            becomes(event, |node| taint_toleration::is_tolerated(shape, node))
        }
        Plugin::NodeAffinity => becomes(event, |node| {
            node_affinity::filter(profile, shape, node).is_none()
        }),
        Plugin::NodeDeclaredFeatures => becomes(event, |node| {
            node_declared_features::filter(shape, node).is_none()
        }),
        Plugin::NodePorts => match event {
            Event::NodeAdded(_) => true,
            Event::PodGone(pod) => {
                let held = pod.shape.host_ports.iter().cloned().collect();
                !node_ports::fits(shape, &held)
            }
            _ => false,
        },
        Plugin::NodeResourcesFit => fit(event, shape, profile),
        Plugin::PodTopologySpread => spread(event, shape, profile, snapshot),
        Plugin::InterPodAffinity => inter_pod(event, shape, snapshot),
        Plugin::VolumeRestrictions
        | Plugin::NodeVolumeLimits
        | Plugin::VolumeBinding
        | Plugin::VolumeZone => volumes(plugin, event, shape),
        Plugin::DynamicResources => matches!(event, Event::NodeAdded(_) | Event::NodeChanged(..)),
        _ => false,
    }
}

/// Return whether the event makes a node fit that was not there or did not.
fn becomes(event: &Event, fits: impl Fn(&Node) -> bool) -> bool {
    match event {
        Event::NodeAdded(node) => fits(node),
        Event::NodeChanged(before, after) => !fits(before) && fits(after),
        _ => false,
    }
}

fn fit(event: &Event, shape: &Shape, profile: &Profile) -> bool {
    let has_room = |node: &Arc<Node>| {
        let seat = Seat {
            node: Arc::clone(node),
            ..Seat::default()
        };
        node_resources_fit::fits(&profile.fit, shape, &seat)
    };
    let wanted = &shape.requests.wanted;
    match event {
        Event::NodeAdded(node) => has_room(node),
        Event::NodeChanged(before, after) => {
            let (had, has) = (&before.allocatable, &after.allocatable);
            let scalar = |node: &Node, name: &str| node.scalars.get(name).copied().unwrap_or(0);
            let mut scalars = shape.requests.wanted_scalars.iter();
            let offers_more = has.pods > had.pods
                || (wanted.milli_cpu > 0 && has.milli_cpu > had.milli_cpu)
                || (wanted.memory > 0 && has.memory > had.memory)
                || (wanted.ephemeral_storage > 0 && has.ephemeral_storage > had.ephemeral_storage)
                || scalars.any(|(name, amount)| {
                    *amount > 0 && scalar(after, name) > scalar(before, name)
                });
            offers_more && has_room(after)
        }
        Event::PodGone(_) => true,
        Event::PodChanged(before, after) => {
            let (had, has) = (&before.shape.requests.held, &after.shape.requests.held);
            (wanted.milli_cpu > 0 && has.milli_cpu < had.milli_cpu)
                || (wanted.memory > 0 && has.memory < had.memory)
                || (wanted.ephemeral_storage > 0 && has.ephemeral_storage < had.ephemeral_storage)
        }
        _ => false,
    }
}

fn spread(event: &Event, shape: &Shape, profile: &Profile, snapshot: &Snapshot) -> bool {
    let constraints = pod_topology_spread::hard_constraints(&snapshot.cluster, profile, shape);
    let counts = |labels: &Labels| constraints.iter().any(|one| one.selector.matches(labels));
    let keys = || constraints.iter().map(|one| one.topology_key.as_str());
    let is_counted_on = |node: &Node| keys().all(|key| node.labels.contains_key(key));
    match event {
        Event::NodeAdded(node) | Event::NodeRemoved(node) => is_counted_on(node),
        Event::NodeChanged(before, after) => {
            let is_moved = || keys().any(|key| before.labels.get(key) != after.labels.get(key));
            is_counted_on(before) != is_counted_on(after)
                || (is_counted_on(after) && (is_moved() || before.taints != after.taints))
        }
        Event::PodPlaced(pod) | Event::PodGone(pod) => {
            pod.namespace == shape.namespace && counts(&pod.shape.labels)
        }
        Event::PodChanged(before, after) => {
            let mut selectors = constraints.iter().map(|one| &one.selector);
            after.namespace == shape.namespace
                && selectors.any(|selector| {
                    selector.matches(&before.shape.labels) != selector.matches(&after.shape.labels)
                })
        }
        Event::Storage(_) => false,
    }
}

fn inter_pod(event: &Event, shape: &Shape, snapshot: &Snapshot) -> bool {
    let is_matched = |term: &AffinityTerm, other: &Shape| {
        let namespace = snapshot.cluster.namespaces.get(&other.namespace);
        inter_pod_affinity::matches(term, other, namespace)
    };
    let (wanted, unwanted) = (&shape.inter_pod.required, &shape.inter_pod.required_anti);
    let is_wanted =
        |pod: &Pod| !wanted.is_empty() && wanted.iter().all(|term| is_matched(term, &pod.shape));
    let is_unwanted = |pod: &Pod| unwanted.iter().any(|term| is_matched(term, &pod.shape));
    let in_new_domain = |before: Option<&Node>, after: &Node, term: &AffinityTerm| {
        let domain = after.labels.get(&term.topology_key);
        domain.is_some() && domain != before.and_then(|one| one.labels.get(&term.topology_key))
    };
    let left_domain = |before: &Node, after: &Node, term: &AffinityTerm| {
        let domain = before.labels.get(&term.topology_key);
        domain.is_some() && domain != after.labels.get(&term.topology_key)
    };
    match event {
        // Where others' anti-affinity keeps the pod out, a new node may be free of them; upstream waits five minutes to see.
        Event::NodeAdded(node) => {
            let in_domain = |term: &AffinityTerm| in_new_domain(None, node, term);
            wanted.is_empty() || !unwanted.is_empty() || wanted.iter().any(in_domain)
        }
        Event::NodeChanged(before, after) => {
            let may_join = |term: &AffinityTerm| in_new_domain(Some(before), after, term);
            let is_freed = |term: &AffinityTerm| left_domain(before, after, term);
            let has_no_terms = wanted.is_empty() && unwanted.is_empty();
            wanted.iter().any(may_join)
                || unwanted.iter().any(is_freed)
                || (has_no_terms && before.labels != after.labels)
        }
        Event::PodPlaced(pod) => is_wanted(pod),
        Event::PodChanged(before, after) => {
            (!is_wanted(before) && is_wanted(after)) || (is_unwanted(before) && !is_unwanted(after))
        }
        Event::PodGone(pod) => {
            let mut of_pod = pod.shape.inter_pod.required_anti.iter();
            is_unwanted(pod) || of_pod.any(|term| is_matched(term, shape))
        }
        Event::NodeRemoved(_) | Event::Storage(_) => false,
    }
}

fn volumes(plugin: Plugin, event: &Event, shape: &Shape) -> bool {
    let claims = |with_generic: bool| {
        shape.volumes.iter().filter_map(move |one| match one {
            VolumeUse::Claim { name, is_generic } if with_generic || !is_generic => Some(name),
            _ => None,
        })
    };
    let uses = |namespace: &str, name: &str, with_generic: bool| {
        namespace == shape.namespace && claims(with_generic).any(|one| one == name)
    };
    match (plugin, event) {
        (Plugin::VolumeRestrictions | Plugin::VolumeBinding, Event::NodeAdded(_)) => true,
        (Plugin::VolumeBinding | Plugin::VolumeZone, Event::NodeChanged(before, after)) => {
            before.labels != after.labels
        }
        (Plugin::VolumeZone, Event::NodeAdded(_)) => true,
        (Plugin::VolumeRestrictions, Event::PodGone(pod)) => {
            let shares = |one: &VolumeUse| {
                let is_same = |name: &String| matches!(one, VolumeUse::Claim { name: other, .. } if other == name);
                claims(false).any(is_same)
                    || shape
                        .volumes
                        .iter()
                        .any(|wanted| volume_restrictions::clashes(wanted, one))
            };
            pod.namespace == shape.namespace && pod.shape.volumes.iter().any(shares)
        }
        (Plugin::NodeVolumeLimits, Event::PodGone(pod)) => {
            let is_claim = |one: &VolumeUse| matches!(one, VolumeUse::Claim { .. });
            pod.shape.volumes.iter().any(is_claim)
        }
        (_, Event::Storage(change)) => storage(plugin, change, shape, &uses),
        _ => false,
    }
}

fn storage(
    plugin: Plugin,
    change: &StorageChange,
    shape: &Shape,
    uses: &dyn Fn(&str, &str, bool) -> bool,
) -> bool {
    match (plugin, change) {
        (
            Plugin::VolumeBinding,
            StorageChange::Claim {
                namespace, name, ..
            },
        ) => uses(namespace, name, true),
        (
            Plugin::VolumeZone,
            StorageChange::Claim {
                namespace, name, ..
            },
        ) => uses(namespace, name, false),
        (
            Plugin::NodeVolumeLimits | Plugin::VolumeRestrictions,
            StorageChange::Claim {
                namespace,
                name,
                is_new,
            },
        ) => *is_new && uses(namespace, name, plugin == Plugin::NodeVolumeLimits),
        (Plugin::VolumeBinding, StorageChange::Volume { .. }) => true,
        (Plugin::VolumeZone, StorageChange::Volume { is_new, is_moved }) => *is_new || *is_moved,
        (
            Plugin::VolumeBinding,
            StorageChange::Class {
                is_new, is_moved, ..
            },
        ) => *is_new || *is_moved,
        (
            Plugin::VolumeZone,
            StorageChange::Class {
                is_new,
                waits_for_first_consumer,
                ..
            },
        ) => *is_new && *waits_for_first_consumer,
        (Plugin::VolumeBinding, StorageChange::CsiNode { is_new, .. }) => *is_new,
        (Plugin::NodeVolumeLimits, StorageChange::CsiNode { is_new, is_raised }) => {
            *is_new || *is_raised
        }
        (Plugin::VolumeBinding, StorageChange::Capacity { is_raised }) => *is_raised,
        (Plugin::VolumeBinding, StorageChange::StoppedCounting { driver }) => {
            let is_of = |one: &VolumeUse| matches!(one, VolumeUse::InlineCsi { driver: other } if other == driver);
            // Claims whose class names the driver profit too, which upstream's hint leaves out.
            shape.volumes.iter().any(is_of) || !shape.volumes.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduler::engine::Engine;
    use crate::scheduler::fixtures::pod_from_with_labels;
    use serde_json::{Value, json};

    const ZONE: &str = "topology.kubernetes.io/zone";

    fn node(labels: Value, spec: Value, cpu: &str) -> Value {
        json!({"metadata": {"name": "n", "labels": labels}, "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}})
    }

    fn plain(cpu: &str) -> Value {
        node(json!({ZONE: "a"}), json!({}), cpu)
    }

    fn bound(labels: Value, more: Value) -> Value {
        let mut spec = json!({"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        json!({"metadata": {"name": "other", "namespace": "default", "uid": "o", "labels": labels}, "spec": spec})
    }

    /// What happens: objects as they come, or the kind and key of one that goes.
    enum Step {
        Node(Value),
        Pod(Value),
        Other(Value),
        Gone(&'static str, &'static str),
    }

    fn take(engine: &mut Engine, step: Step) -> Vec<String> {
        let none: [Vec<u8>; 0] = [];
        let bytes = |value: Value| [value.to_string().into_bytes()];
        match step {
            Step::Node(value) => engine.upsert(&bytes(value), &none, &none).unwrap(),
            Step::Pod(value) => engine.upsert(&none, &bytes(value), &none).unwrap(),
            Step::Other(value) => engine.upsert(&none, &none, &bytes(value)).unwrap(),
            Step::Gone(kind, key) => engine.remove(kind, &[key.to_string()]),
        }
    }

    /// Return whether a pod that the plugin rejected is woken by `event`, after what was `before`.
    fn wakes(plugin: &str, spec: Value, before: Vec<Step>, event: Step) -> bool {
        let mut engine = Engine::default();
        let pod = pod_from_with_labels("p", json!({"app": "web"}), spec);
        for step in before {
            take(&mut engine, step);
        }
        engine.wait(&pod, &[plugin.to_string()]);
        let woken = take(&mut engine, event);
        assert!(woken.is_empty() || woken == ["default/p"]);
        !woken.is_empty()
    }

    fn wants(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn nodes_wake_whom_they_may_fit() {
        let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
        let selective = json!({"nodeSelector": {"disk": "ssd"}});
        let with = |labels: Value| Step::Node(node(labels, json!({}), "4"));
        let spec = |spec: Value| Step::Node(node(json!({}), spec, "4"));
        let cpu = |cpu: &str| Step::Node(plain(cpu));
        let table = [
            ("NodeName", json!({}), vec![], cpu("1"), true),
            ("NodeName", json!({}), vec![cpu("1")], cpu("4"), false),
            ("NodeResourcesFit", wants("2"), vec![], cpu("1"), false),
            ("NodeResourcesFit", wants("2"), vec![], cpu("4"), true),
            (
                "NodeResourcesFit",
                wants("2"),
                vec![cpu("1")],
                cpu("4"),
                true,
            ),
            (
                "NodeResourcesFit",
                wants("2"),
                vec![cpu("4")],
                cpu("3"),
                false,
            ),
            (
                "NodeResourcesFit",
                wants("8"),
                vec![cpu("4")],
                cpu("6"),
                false,
            ),
            (
                "NodeResourcesFit",
                wants("2"),
                vec![cpu("4")],
                with(json!({ZONE: "b"})),
                false,
            ),
            (
                "NodeUnschedulable",
                json!({}),
                vec![],
                spec(json!({"unschedulable": true})),
                false,
            ),
            (
                "NodeUnschedulable",
                json!({}),
                vec![spec(json!({"unschedulable": true}))],
                spec(json!({})),
                true,
            ),
            (
                "TaintToleration",
                json!({}),
                vec![],
                spec(tainted.clone()),
                false,
            ),
            (
                "TaintToleration",
                tolerant,
                vec![],
                spec(tainted.clone()),
                true,
            ),
            (
                "TaintToleration",
                json!({}),
                vec![spec(tainted.clone())],
                spec(json!({})),
                true,
            ),
            (
                "TaintToleration",
                json!({}),
                vec![spec(json!({}))],
                spec(tainted),
                false,
            ),
            (
                "NodeAffinity",
                selective.clone(),
                vec![],
                with(json!({"disk": "hdd"})),
                false,
            ),
            (
                "NodeAffinity",
                selective.clone(),
                vec![with(json!({}))],
                with(json!({"disk": "ssd"})),
                true,
            ),
            (
                "NodeAffinity",
                selective.clone(),
                vec![with(json!({"disk": "ssd"}))],
                with(json!({"disk": "ssd", "x": "y"})),
                false,
            ),
            ("NodePorts", json!({}), vec![], cpu("1"), true),
            ("NodePorts", json!({}), vec![cpu("1")], cpu("4"), false),
            ("Outside", json!({}), vec![cpu("1")], cpu("4"), true),
            ("Outside", json!({}), vec![cpu("4")], cpu("4"), false),
        ];
        for (at, (plugin, pod, before, event, expected)) in table.into_iter().enumerate() {
            assert_eq!(
                wakes(plugin, pod, before, event),
                expected,
                "row {at}: {plugin}"
            );
        }
    }

    #[test]
    fn pods_wake_whom_they_made_room_or_company_for() {
        let term = json!([{"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "db"}}}]);
        let affine = |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
        let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "db"}}}]});
        let port =
            |port: u16| json!({"containers": [{"name": "c", "ports": [{"hostPort": port}]}]});
        let pod = |app: &str| Step::Pod(bound(json!({"app": app}), json!({})));
        let gone = || Step::Gone("Pod", "default/other");
        let on_node = |step: Step| vec![Step::Node(plain("4")), step];
        let with_port = |number: u16| on_node(Step::Pod(bound(json!({}), port(number))));
        let table = [
            (
                "NodeResourcesFit",
                wants("2"),
                on_node(pod("db")),
                gone(),
                true,
            ),
            (
                "NodeResourcesFit",
                wants("2"),
                on_node(pod("db")),
                pod("web"),
                false,
            ),
            (
                "NodeResourcesFit",
                wants("2"),
                on_node(pod("db")),
                Step::Pod(bound(json!({"app": "db"}), wants("500m"))),
                true,
            ),
            ("NodePorts", port(80), with_port(80), gone(), true),
            ("NodePorts", port(80), with_port(81), gone(), false),
            (
                "TaintToleration",
                json!({}),
                on_node(pod("db")),
                gone(),
                false,
            ),
            (
                "InterPodAffinity",
                affine("podAffinity"),
                vec![],
                pod("db"),
                true,
            ),
            (
                "InterPodAffinity",
                affine("podAffinity"),
                vec![],
                pod("web"),
                false,
            ),
            (
                "InterPodAffinity",
                affine("podAffinity"),
                on_node(pod("web")),
                pod("db"),
                true,
            ),
            (
                "InterPodAffinity",
                affine("podAffinity"),
                on_node(pod("db")),
                gone(),
                false,
            ),
            (
                "InterPodAffinity",
                affine("podAntiAffinity"),
                on_node(pod("db")),
                gone(),
                true,
            ),
            (
                "InterPodAffinity",
                affine("podAntiAffinity"),
                on_node(pod("db")),
                pod("web"),
                true,
            ),
            (
                "InterPodAffinity",
                affine("podAntiAffinity"),
                on_node(pod("web")),
                gone(),
                false,
            ),
            ("PodTopologySpread", spread.clone(), vec![], pod("db"), true),
            (
                "PodTopologySpread",
                spread.clone(),
                vec![],
                pod("web"),
                false,
            ),
            (
                "PodTopologySpread",
                spread.clone(),
                on_node(pod("db")),
                gone(),
                true,
            ),
            (
                "PodTopologySpread",
                spread.clone(),
                on_node(pod("db")),
                pod("web"),
                true,
            ),
            (
                "PodTopologySpread",
                spread.clone(),
                vec![Step::Node(plain("4"))],
                Step::Gone("Node", "n"),
                true,
            ),
            (
                "PodTopologySpread",
                spread.clone(),
                vec![],
                Step::Node(plain("4")),
                true,
            ),
            (
                "PodTopologySpread",
                spread,
                vec![],
                Step::Node(node(json!({}), json!({}), "4")),
                false,
            ),
        ];
        for (at, (plugin, pod, before, event, expected)) in table.into_iter().enumerate() {
            assert_eq!(
                wakes(plugin, pod, before, event),
                expected,
                "row {at}: {plugin}"
            );
        }
    }

    #[test]
    fn storage_wakes_whose_claims_it_concerns() {
        let uses = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]});
        let claim = |name: &str| {
            Step::Other(
                json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": {}}),
            )
        };
        let volume = |zone: &str| {
            Step::Other(
                json!({"kind": "PersistentVolume", "metadata": {"name": "v", "labels": {ZONE: zone}}, "spec": {}}),
            )
        };
        let limits = |count: i64| {
            let drivers = json!([{"name": "x", "allocatable": {"count": count}}]);
            Step::Other(
                json!({"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": drivers}}),
            )
        };
        let capacity = |bytes: &str| {
            Step::Other(
                json!({"kind": "CSIStorageCapacity", "metadata": {"name": "c", "namespace": "s"}, "capacity": bytes}),
            )
        };
        let class = |mode: &str| {
            Step::Other(
                json!({"kind": "StorageClass", "metadata": {"name": "s"}, "volumeBindingMode": mode}),
            )
        };
        let held = || Step::Pod(bound(json!({}), uses.clone()));
        let table = [
            ("VolumeBinding", vec![], claim("c"), true),
            ("VolumeBinding", vec![], claim("d"), false),
            ("VolumeBinding", vec![claim("c")], claim("c"), true),
            ("VolumeRestrictions", vec![claim("c")], claim("c"), false),
            (
                "VolumeRestrictions",
                vec![held()],
                Step::Gone("Pod", "default/other"),
                true,
            ),
            ("VolumeBinding", vec![], volume("a"), true),
            ("VolumeZone", vec![volume("a")], volume("a"), false),
            ("VolumeZone", vec![volume("a")], volume("b"), true),
            ("VolumeZone", vec![], class("Immediate"), false),
            ("VolumeZone", vec![], class("WaitForFirstConsumer"), true),
            (
                "VolumeBinding",
                vec![class("Immediate")],
                class("Immediate"),
                false,
            ),
            ("NodeVolumeLimits", vec![limits(2)], limits(3), true),
            ("NodeVolumeLimits", vec![limits(2)], limits(2), false),
            (
                "NodeVolumeLimits",
                vec![held()],
                Step::Gone("Pod", "default/other"),
                true,
            ),
            (
                "VolumeBinding",
                vec![capacity("1Gi")],
                capacity("2Gi"),
                true,
            ),
            (
                "VolumeBinding",
                vec![capacity("2Gi")],
                capacity("1Gi"),
                false,
            ),
            ("NodeResourcesFit", vec![], claim("c"), false),
        ];
        for (at, (plugin, before, event, expected)) in table.into_iter().enumerate() {
            assert_eq!(
                wakes(plugin, uses.clone(), before, event),
                expected,
                "row {at}: {plugin}"
            );
        }
    }

    #[test]
    fn a_pod_that_was_woken_bound_or_deleted_waits_no_longer() {
        let mut engine = Engine::default();
        let pod = pod_from_with_labels("p", json!({}), wants("1"));
        engine.wait(&pod, &["NodeResourcesFit".to_string()]);
        assert_eq!(take(&mut engine, Step::Node(plain("4"))), ["default/p"]);
        assert!(take(&mut engine, Step::Node(plain("8"))).is_empty());
        engine.wait(&pod, &["NodeResourcesFit".to_string()]);
        engine.leave(&["default/p".to_string()]);
        assert!(take(&mut engine, Step::Node(plain("16"))).is_empty());
        engine.wait(&pod, &["NodeResourcesFit".to_string()]);
        let mut placed = bound(json!({}), json!({}));
        placed["metadata"]["name"] = json!("p");
        take(&mut engine, Step::Pod(placed));
        assert!(take(&mut engine, Step::Node(plain("32"))).is_empty());
    }
}
