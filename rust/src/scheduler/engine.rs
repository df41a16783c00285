//! The scheduler's state and its batch operations; what the Python boundary wraps.

use std::collections::HashMap;
use std::sync::Arc;

use super::SchedulerError;
use super::class::{Class, Fixed, FixedKey};
use super::cluster::Effect;
use super::cycle::{Cycle, Failure, Outcome};
use super::diagnosis::Diagnosis;
use super::explain;
use super::hints::{Event, Waiting};
use super::node::Node;
use super::plugins::default_preemption::{self, Candidate};
use super::pod::{Pod, Shape};
use super::profile::{ConfigError, Configuration};
use super::shapes::ShapeId;
use super::snapshot::Snapshot;

/// About how many bytes classes may take.
const CLASS_BYTES_MAX: usize = 512 << 20;
const CLASSES_MIN: usize = 64;

#[derive(Debug, Default)]
pub struct Engine {
    pub snapshot: Snapshot,
    pub(super) configuration: Configuration,
    pub(super) classes: HashMap<(ShapeId, usize), Class>,
    pub(super) fixed: HashMap<FixedKey, Arc<Fixed>>,
    templates: Vec<Pod>,
    waiting: Waiting,
    next_start: usize,
    turn: u64,
}

/// What became of one pod of a batch.
#[derive(Debug)]
pub struct Decision {
    /// `namespace/name`.
    pub key: String,
    pub uid: String,
    /// The chosen node, or why there is none.
    pub result: Result<String, Refusal>,
}

#[derive(Debug, Default)]
pub struct Refusal {
    pub diagnosis: Diagnosis,
    /// The node that will be freed for the pod; empty when there is none.
    pub nominated: String,
    /// Key and uid of the pods that have to go from there, the most important first.
    pub victims: Vec<(String, String)>,
    /// Keys of less important pods that waited for that node and do so no longer.
    pub displaced: Vec<String>,
    /// What the pod was nominated for before is void.
    pub clears_nomination: bool,
}

/// Objects that were dropped or whose JSON was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Pod,
}

impl Engine {
    /// Make an engine that follows a KubeSchedulerConfiguration in JSON.
    pub fn configured(bytes: &[u8]) -> Result<Engine, ConfigError> {
        Ok(Engine {
            configuration: Configuration::parse(bytes)?,
            ..Engine::default()
        })
    }

    pub fn profile_names(&self) -> Vec<&str> {
        self.configuration
            .profiles
            .iter()
            .map(|one| one.scheduler_name.as_str())
            .collect()
    }

    /// Take in nodes, then pods, then objects of other kinds. Nothing changes when a node or a pod cannot be read. Returns the keys of
    /// waiting pods that may fit now.
    pub fn upsert(
        &mut self,
        nodes: &[impl AsRef<[u8]>],
        pods: &[impl AsRef<[u8]>],
        others: &[impl AsRef<[u8]>],
    ) -> Result<Vec<String>, SchedulerError> {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|bytes| Node::parse(bytes.as_ref()))
            .collect::<Result<_, _>>()?;
        let pods: Vec<Pod> = pods
            .iter()
            .map(|bytes| Pod::parse(bytes.as_ref()))
            .collect::<Result<_, _>>()?;
        let mut events = Vec::new();
        for node in nodes {
            events.extend(self.node_event(&node));
            self.snapshot.upsert_node(node);
        }
        for pod in pods {
            if !pod.node_name.is_empty() || pod.is_terminal {
                self.waiting.remove(&pod.key());
            }
            events.extend(self.pod_event(&pod));
            self.snapshot.upsert_pod(pod);
        }
        for bytes in others {
            let effect = self.snapshot.cluster.upsert(bytes.as_ref())?;
            self.snapshot.changed(effect);
        }
        let storage = std::mem::take(&mut self.snapshot.cluster.storage_changes);
        events.extend(storage.into_iter().map(Event::Storage));
        Ok(self.wake(&events))
    }

    /// Drop objects of any kind by name or `namespace/name`. Returns the keys of waiting pods that may fit now.
    pub fn remove(&mut self, kind: &str, keys: &[String]) -> Vec<String> {
        let mut events = Vec::new();
        for key in keys {
            let effect = match kind {
                "Node" => {
                    let node = self.snapshot.node(key).cloned();
                    events.extend(node.map(Event::NodeRemoved));
                    self.snapshot.remove_node(key);
                    Effect::Nothing
                }
                "Pod" => {
                    let placed = self.snapshot.placed_pod(key).map(|(pod, _)| pod);
                    let pod = placed.or_else(|| self.snapshot.nominated_pod(key));
                    events.extend(pod.cloned().map(Event::PodGone));
                    self.waiting.remove(key);
                    self.snapshot.remove_pod(key);
                    Effect::Nothing
                }
                kind => self.snapshot.cluster.remove(kind, key),
            };
            self.snapshot.changed(effect);
        }
        self.wake(&events)
    }

    /// Let a pod that fits nowhere wait until something happens that may change the mind of one of these plugins.
    pub fn wait(&mut self, pod: &Pod, plugins: &[String]) {
        let profile = self.profile_of(pod);
        self.waiting.add(pod, profile, plugins);
    }

    /// Pods wait no longer, for whatever reason.
    pub fn leave(&mut self, keys: &[String]) {
        for key in keys {
            self.waiting.remove(key);
        }
    }

    fn node_event(&self, node: &Node) -> Option<Event> {
        if self.waiting.is_empty() {
            return None;
        }
        match self.snapshot.node(&node.name) {
            None => Some(Event::NodeAdded(Arc::new(node.clone()))),
            Some(before) => {
                let is_same = before.looks_like(node)
                    && before.allocatable == node.allocatable
                    && before.scalars == node.scalars;
                (!is_same).then(|| Event::NodeChanged(Arc::clone(before), Arc::new(node.clone())))
            }
        }
    }

    fn pod_event(&self, pod: &Pod) -> Option<Event> {
        if self.waiting.is_empty() {
            return None;
        }
        let before = self.snapshot.placed_pod(&pod.key());
        match before {
            Some((before, _)) if pod.is_terminal => Some(Event::PodGone(Arc::clone(before))),
            Some((before, false)) if !pod.node_name.is_empty() => (before.shape != pod.shape)
                .then(|| Event::PodChanged(Arc::clone(before), Arc::new(pod.clone()))),
            _ if pod.node_name.is_empty() || pod.is_terminal => None,
            _ => Some(Event::PodPlaced(Arc::new(pod.clone()))),
        }
    }

    fn wake(&mut self, events: &[Event]) -> Vec<String> {
        self.waiting
            .wake(&self.snapshot, &self.configuration.profiles, events)
    }

    /// Decide one pod after the other, each seeing the placements before it.
    pub fn schedule(&mut self, pods: Vec<Pod>, seed: u64) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(pods.len());
        for (turn, pod) in pods.into_iter().enumerate() {
            // A seed of its own for every pod, and none when there is none.
            let seed = if seed == 0 {
                0
            } else {
                seed.wrapping_add(turn as u64).max(1)
            };
            decisions.push(self.schedule_one(pod, seed));
        }
        decisions
    }

    /// Remember pods that `play` makes others from; return the number of the first.
    pub fn add_templates(&mut self, pods: Vec<Pod>) -> usize {
        let first = self.templates.len();
        self.templates.extend(pods);
        first
    }

    /// Do one event after the other: a pod like a template comes and is placed, or (without a template) the pod of that name goes.
    /// Ends before the first pod that has no node, and leaves no trace of it. Returns the chosen nodes in order.
    pub fn play(&mut self, events: &[(Option<usize>, &str)], seed: u64) -> Vec<String> {
        let mut nodes = Vec::new();
        for (template, name) in events {
            let Some(pod) = template.and_then(|at| self.templates.get(at)) else {
                self.snapshot.remove_pod(name);
                continue;
            };
            let pod = Pod {
                name: (*name).to_string(),
                uid: (*name).to_string(),
                ..pod.clone()
            };
            let (profile, id) = self.prepare(&pod);
            match self.run(&pod, profile, id, seed) {
                Outcome::Node(rank) => {
                    nodes.push(self.snapshot.node_name(rank).to_string());
                    self.snapshot.assume(Arc::new(pod), rank);
                }
                Outcome::Unschedulable(_) => break,
            }
        }
        nodes
    }

    fn schedule_one(&mut self, pod: Pod, seed: u64) -> Decision {
        let (key, uid) = (pod.key(), pod.uid.clone());
        let result = self.place(pod, seed).map_err(|refused| {
            let (pod, failure) = *refused;
            let (profile, id) = self.prepare(&pod);
            self.refuse(pod, profile, id, failure, None)
        });
        Decision { key, uid, result }
    }

    /// Assume the pod on its best node and return that, or return the pod and why there is none.
    pub(super) fn place(&mut self, mut pod: Pod, seed: u64) -> Result<String, Box<(Pod, Failure)>> {
        if pod.nominated_node_name.is_empty() {
            let nomination = self.snapshot.nomination(&pod.key());
            pod.nominated_node_name = nomination.unwrap_or("").to_string();
        }
        let (profile, id) = self.prepare(&pod);
        match self.run(&pod, profile, id, seed) {
            Outcome::Node(rank) => {
                let node = self.snapshot.node_name(rank).to_string();
                self.snapshot.assume(Arc::new(pod), rank);
                Ok(node)
            }
            Outcome::Unschedulable(failure) => Err(Box::new((pod, failure))),
        }
    }

    /// Return the number of the profile that decides about the pod.
    fn profile_of(&self, pod: &Pod) -> usize {
        let mut profiles = self.configuration.profiles.iter();
        profiles
            .position(|one| one.scheduler_name == pod.shape.scheduler_name)
            .unwrap_or(0)
    }

    /// Bring the pod's class up to date; return the profile and the shape it is known by.
    pub(super) fn prepare(&mut self, pod: &Pod) -> (usize, ShapeId) {
        if self.snapshot.shapes.wants_sweep() {
            self.classes.clear();
            self.snapshot.shapes.sweep();
        }
        let at = self.profile_of(pod);
        let shape = if pod.node_name.is_empty() {
            Arc::clone(&pod.shape)
        } else {
            Arc::new(Shape {
                pinned: pod.node_name.clone(),
                ..(*pod.shape).clone()
            })
        };
        let (id, _) = self.snapshot.intern(&shape);
        // After the shape is known: selectors of a new kind make others' labels matter, which voids what is remembered.
        self.snapshot.settle();
        let Some(profile) = self.configuration.profiles.get(at) else {
            return (at, id);
        };
        for constraint in &profile.default_constraints {
            if self
                .snapshot
                .topologies
                .find(&constraint.topology_key)
                .is_none()
            {
                self.snapshot.register_topology(&constraint.topology_key);
            }
        }
        self.turn += 1;
        let snapshot = &self.snapshot;
        match self
            .classes
            .get_mut(&(id, at))
            .filter(|class| class.is_of(snapshot))
        {
            Some(class) => {
                class.catch_up(snapshot, profile);
                class.last_used = self.turn;
            }
            None => {
                let key = FixedKey::new(at, &shape);
                let known = self
                    .fixed
                    .get(&key)
                    .filter(|fixed| fixed.is_of(snapshot))
                    .cloned();
                let fixed =
                    known.unwrap_or_else(|| Arc::new(Fixed::new(snapshot, profile, &shape)));
                self.fixed.insert(key, Arc::clone(&fixed));
                let mut class = Class::new(snapshot, profile, shape, fixed);
                class.last_used = self.turn;
                self.classes.insert((id, at), class);
                self.make_room();
            }
        }
        (at, id)
    }

    /// Forget classes that were not used for long when there are many.
    fn make_room(&mut self) {
        let most = (CLASS_BYTES_MAX / (self.snapshot.len() * 16 + 4096)).max(CLASSES_MIN);
        if self.classes.len() > most {
            let mut ages: Vec<u64> = self.classes.values().map(|one| one.last_used).collect();
            let middle = ages.len() / 2;
            let (_, median, _) = ages.select_nth_unstable(middle);
            let median = *median;
            self.classes.retain(|_, one| one.last_used > median);
            let snapshot = &self.snapshot;
            self.fixed.retain(|_, one| one.is_of(snapshot));
        }
        if self.fixed.len() > most {
            self.fixed.clear();
        }
    }

    /// Let `work` look at a cycle of the pod; None when the engine has no profile.
    pub(super) fn with_cycle<T>(
        &mut self,
        pod: &Pod,
        work: impl FnOnce(&mut Cycle<'_>) -> T,
    ) -> Option<T> {
        let (profile, id) = self.prepare(pod);
        let mut cycle = Cycle {
            snapshot: &self.snapshot,
            profile: self.configuration.profiles.get(profile)?,
            class: self.classes.get_mut(&(id, profile))?,
            pod,
            next_start: &mut self.next_start,
        };
        Some(work(&mut cycle))
    }

    fn run(&mut self, pod: &Pod, profile: usize, id: ShapeId, seed: u64) -> Outcome {
        let (Some(profile_of), Some(class)) = (
            self.configuration.profiles.get(profile),
            self.classes.get_mut(&(id, profile)),
        ) else {
            return Outcome::Unschedulable(Failure::default());
        };
        Cycle {
            snapshot: &self.snapshot,
            profile: profile_of,
            class,
            pod,
            next_start: &mut self.next_start,
        }
        .run(seed)
    }

    /// See whether removing less important pods would help, and say why the pod has no node. `allowed` are the only candidates, if given.
    pub(super) fn refuse(
        &mut self,
        pod: Pod,
        profile: usize,
        id: ShapeId,
        failure: Failure,
        allowed: Option<Vec<Candidate>>,
    ) -> Refusal {
        let is_hopeless = failure.is_hopeless(&self.snapshot, &pod);
        let mut refusal = Refusal {
            diagnosis: failure.diagnosis,
            ..Refusal::default()
        };
        let preempts = self
            .configuration
            .profiles
            .get(profile)
            .filter(|one| one.preempts);
        let (Some(profile_of), Some(class)) = (preempts, self.classes.get_mut(&(id, profile)))
        else {
            return refusal;
        };
        if refusal.diagnosis.nodes == 0 {
            return refusal;
        }
        if let Some(allowed) = allowed {
            match default_preemption::select(allowed) {
                Some(candidate) => self.nominate(pod, &candidate, &mut refusal),
                None => {
                    let words = "no candidate node for preemption";
                    refusal.diagnosis.preemption = Some(words.into());
                }
            }
            return refusal;
        }
        match default_preemption::preempt(
            &self.snapshot,
            profile_of,
            class,
            &pod,
            &failure.curable,
            is_hopeless,
        ) {
            default_preemption::Outcome::NotEligible(why) => {
                refusal.diagnosis.preemption = Some(why.into())
            }
            default_preemption::Outcome::Nothing(why) => {
                refusal.diagnosis.preemption = Some(why);
                refusal.clears_nomination = true;
                self.snapshot.withdraw_nomination(&pod.key());
            }
            default_preemption::Outcome::Found(candidate) => {
                self.nominate(pod, &candidate, &mut refusal)
            }
        }
        refusal
    }

    fn nominate(&mut self, pod: Pod, candidate: &Candidate, refusal: &mut Refusal) {
        let node = self.snapshot.node_name(candidate.rank).to_string();
        let count = candidate.victims.len();
        refusal.diagnosis.preemption = Some(format!(
            "found a potential placement for pod on node {node}, preempting {count} victims"
        ));
        refusal.victims = candidate
            .victims
            .iter()
            .map(|victim| (victim.key(), victim.uid.clone()))
            .collect();
        let waiting = self.snapshot.nominated_to(candidate.rank).iter();
        refusal.displaced = waiting
            .filter(|(other, _)| other.priority < pod.priority)
            .map(|(other, _)| other.key())
            .collect();
        for key in &refusal.displaced {
            self.snapshot.withdraw_nomination(key);
        }
        self.snapshot.nominate(Arc::new(pod), &node);
        refusal.nominated = node;
    }

    /// Take back assumed pods. Returns the keys of waiting pods that may fit now.
    pub fn forget(&mut self, keys: &[String]) -> Vec<String> {
        let mut events = Vec::new();
        for key in keys {
            if let Some((pod, true)) = self.snapshot.placed_pod(key) {
                events.push(Event::PodGone(Arc::clone(pod)));
            }
            self.snapshot.forget(key);
        }
        self.wake(&events)
    }

    /// Return the matrix of nodes and plugins for a pod, as JSON.
    pub fn explain(&mut self, pod: &[u8], seed: u64) -> Result<Vec<u8>, SchedulerError> {
        let pod = Pod::parse(pod)?;
        // A pod that has its node is asked about as if it were yet to be placed.
        let pod = Pod {
            node_name: String::new(),
            ..pod
        };
        let (profile, id) = self.prepare(&pod);
        let mut next_start = self.next_start;
        let (Some(profile_of), Some(class)) = (
            self.configuration.profiles.get(profile),
            self.classes.get_mut(&(id, profile)),
        ) else {
            return Ok(b"{}".to_vec());
        };
        let mut cycle = Cycle {
            snapshot: &self.snapshot,
            profile: profile_of,
            class,
            pod: &pod,
            next_start: &mut next_start,
        };
        explain::explain(&mut cycle, seed).map_err(SchedulerError::Encode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, node_from, pod, pod_from};
    use serde_json::{Value, json};

    fn engine(nodes: Vec<Node>) -> Engine {
        let mut engine = Engine::default();
        nodes
            .into_iter()
            .for_each(|node| engine.snapshot.upsert_node(node));
        engine
    }

    fn message(nodes: Vec<Node>, spec: Value) -> String {
        let decision = engine(nodes)
            .schedule(vec![pod_from("p", spec)], 0)
            .remove(0);
        decision.result.map_or_else(
            |refusal| refusal.diagnosis.message(),
            |node| format!("placed on {node}"),
        )
    }

    #[test]
    fn a_batch_sees_its_own_placements() {
        let mut engine = engine(vec![node("n1"), node("n2")]);
        let pods = (0..5).map(|i| pod(&format!("p{i}"), "2")).collect();
        let placed: Vec<String> = engine
            .schedule(pods, 0)
            .into_iter()
            .map(|one| one.result.unwrap_or_else(|_| "-".into()))
            .collect();
        assert_eq!(placed, ["n1", "n2", "n1", "n2", "-"]);
        engine.forget(&["default/p0".to_string()]);
        assert_eq!(
            engine.schedule(vec![pod("q", "2")], 0)[0]
                .result
                .as_deref()
                .ok(),
            Some("n1")
        );
    }

    #[test]
    fn played_events_give_what_single_steps_give_and_end_before_the_first_refusal() {
        let nodes = || vec![node("n1"), node("n2")];
        let mut played = engine(nodes());
        assert_eq!(played.add_templates(vec![pod("t", "2")]), 0);
        assert_eq!(played.add_templates(vec![pod("u", "3")]), 1);
        let events = [
            (Some(0), "a"),
            (Some(0), "b"),
            (Some(0), "c"),
            (None, "default/b"),
            (Some(1), "d"),
            (Some(1), "e"),
            (Some(0), "f"),
        ];
        assert_eq!(played.play(&events, 0), ["n1", "n2", "n1", "n2"]);
        assert_eq!(played.snapshot.pod_count(), 3);
        let mut stepped = engine(nodes());
        stepped.schedule(vec![pod("a", "2"), pod("b", "2"), pod("c", "2")], 0);
        stepped.remove("Pod", &["default/b".to_string()]);
        let last = stepped.schedule(vec![pod("d", "3")], 0).remove(0);
        assert_eq!(last.result.as_deref().ok(), Some("n2"));
    }

    #[test]
    fn an_unreadable_object_changes_nothing() {
        let mut engine = Engine::default();
        let none: [&[u8]; 0] = [];
        let good: &[u8] = br#"{"metadata": {"name": "n"}}"#;
        assert!(engine.upsert(&[good, b"{"], &none, &none).is_err());
        engine.snapshot.settle();
        assert!(engine.snapshot.is_empty());
    }

    #[test]
    fn failures_are_worded_as_kube_scheduler_words_them() {
        let tainted = |name: &str| {
            node_from(
                json!({"metadata": {"name": name}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            )
        };
        let big = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "64"}}}]});
        assert_eq!(
            message(vec![node("a"), tainted("b"), tainted("c")], big.clone()),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
        assert_eq!(message(vec![], big), "no nodes available to schedule pods");
        let named =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]});
        let required = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [named]}}}});
        assert_eq!(
            message(vec![node("a"), tainted("b"), node("c")], required),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
    }

    fn ranked(name: &str, cpu: &str, priority: i32, more: Value) -> Pod {
        let mut spec = json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        pod_from(name, spec)
    }

    fn with_pods(nodes: &[&str], pods: &[(&str, &str, i32)]) -> Engine {
        let mut engine = engine(nodes.iter().map(|name| node(name)).collect());
        for (at, (node, cpu, priority)) in pods.iter().enumerate() {
            let pod = Pod {
                node_name: (*node).into(),
                ..ranked(&format!("v{at}"), cpu, *priority, json!({}))
            };
            engine.snapshot.upsert_pod(pod);
        }
        engine
    }

    #[test]
    fn preemption_takes_the_least_important_pods_and_reprieves_what_it_can() {
        let mut engine = with_pods(
            &["a", "b"],
            &[("a", "2", 1), ("a", "2", 2), ("b", "1", 1), ("b", "3", 1)],
        );
        let refusal = engine
            .schedule(vec![ranked("p", "2", 10, json!({}))], 0)
            .remove(0)
            .result
            .unwrap_err();
        // On a the pod of priority 1 is enough, and nowhere less harm is done.
        assert_eq!(
            (refusal.nominated.as_str(), refusal.victims),
            ("a", vec![("default/v0".to_string(), "uid-v0".to_string())])
        );
        assert_eq!(
            refusal.diagnosis.message(),
            "0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims"
        );
    }

    #[test]
    fn what_is_less_important_sees_the_nominated_pod_and_the_pod_itself_goes_to_its_node() {
        let mut engine = with_pods(&["a"], &[("a", "3", 1)]);
        assert_eq!(
            engine.schedule(vec![ranked("p", "4", 10, json!({}))], 0)[0]
                .result
                .as_ref()
                .unwrap_err()
                .nominated,
            "a"
        );
        engine.remove("Pod", &["default/v0".to_string()]);
        assert!(
            engine.schedule(vec![ranked("q", "1", 5, json!({}))], 0)[0]
                .result
                .is_err()
        );
        let placed = engine
            .schedule(vec![ranked("p", "4", 10, json!({}))], 0)
            .remove(0);
        assert_eq!(placed.result.unwrap(), "a");
    }

    #[test]
    fn who_never_preempts_or_finds_no_victims_is_told_so() {
        let mut engine = with_pods(&["a", "b"], &[("a", "3", 0), ("b", "3", 0)]);
        let mut say = |spec: Value| {
            let refusal = engine
                .schedule(vec![ranked("p", "2", 0, spec)], 0)
                .remove(0)
                .result
                .unwrap_err();
            refusal.diagnosis.message()
        };
        assert_eq!(
            say(json!({})),
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        );
        assert_eq!(
            say(json!({"preemptionPolicy": "Never"})),
            "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
        );
    }

    #[test]
    fn a_disruption_budget_saves_its_pods_as_long_as_others_will_do() {
        let mut engine = with_pods(&["a"], &[]);
        for (name, app) in [("guarded", "db"), ("loose", "web")] {
            let mut pod = ranked(name, "2", 1, json!({}));
            pod.node_name = "a".into();
            Arc::make_mut(&mut pod.shape).labels = [("app".to_string(), app.to_string())].into();
            engine.snapshot.upsert_pod(pod);
        }
        let budget = json!({"kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 0}});
        engine
            .snapshot
            .cluster
            .upsert(budget.to_string().as_bytes())
            .unwrap();
        let refusal = engine
            .schedule(vec![ranked("p", "2", 10, json!({}))], 0)
            .remove(0)
            .result
            .unwrap_err();
        assert_eq!(
            refusal
                .victims
                .iter()
                .map(|one| one.0.as_str())
                .collect::<Vec<_>>(),
            ["default/loose"]
        );
    }
}
