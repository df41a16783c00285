//! Making room for pods that go together. Mirrors framework/preemption's PodGroupEvaluator.
//!
//! The whole cluster is one domain: all less important pods are taken away at once, the group is placed, and they are put back one by
//! one, the most important first and those that a disruption budget protects before the others, as long as every pod of the group
//! still fits where it was placed. All of this happens on a copy of the snapshot.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::engine::{Decision, Engine, Refusal};
use super::plugins::default_preemption::Allowance;
use super::pod::Pod;

/// Placed pods (`namespace/name`) that can only be disrupted together, and their priority.
pub type Unit = (Vec<String>, i32);

/// What a group needs: so many of its pods placed, of which some are already.
#[derive(Debug, Clone, Copy)]
pub struct Quorum {
    pub priority: i32,
    pub min_count: usize,
    pub placed: usize,
}

/// What came of making room for a group.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// Its pods never make others leave.
    NotEligible,
    /// Pods that left for it before are still on their way out.
    Awaited,
    /// Nobody is less important.
    NoVictims,
    /// Even without the less important pods so many are placed and so many were not tried.
    TooLittle {
        placed: usize,
        remaining: usize,
    },
    Found(Plan),
}

/// Who goes where, who has to leave (key and uid), and who waits for nodes no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub nominated: Vec<(String, String)>,
    pub victims: Vec<(String, String)>,
    pub displaced: Vec<(String, String)>,
}

/// Pods that leave together, and where they are.
#[derive(Debug)]
struct Victim {
    pods: Vec<(Arc<Pod>, String)>,
    priority: i32,
    is_group: bool,
}

impl Victim {
    /// Order victims, the most important first.
    fn importance(&self) -> impl Ord + use<> {
        let starts = self.pods.iter().map(|(pod, _)| &pod.start_time);
        // Who has not started is the youngest.
        let first = starts.filter(|start| !start.is_empty()).min().cloned();
        (
            Reverse(self.priority),
            Reverse(self.is_group),
            Reverse(self.pods.len()),
            first.unwrap_or_else(|| "9".into()),
        )
    }
}

impl Engine {
    /// Decide a pod that is one of a group: as `schedule`, but nobody is made to leave for it alone.
    pub fn schedule_member(&mut self, pod: Pod, seed: u64) -> Decision {
        let (key, uid) = (pod.key(), pod.uid.clone());
        let result = self.place(pod, seed).map_err(|refused| Refusal {
            diagnosis: refused.1.diagnosis,
            ..Refusal::default()
        });
        Decision { key, uid, result }
    }

    /// Take back assumed pods as if they had never been: nobody learns of it.
    pub fn retract(&mut self, keys: &[String]) {
        for key in keys {
            self.snapshot.forget(key);
        }
    }

    /// Find room for a group that has not enough; nominate the nodes for its pods if there is a way.
    pub fn room_for_group(&mut self, pods: &[Pod], quorum: Quorum, units: &[Unit]) -> Room {
        if pods.iter().any(|pod| pod.never_preempts) {
            return Room::NotEligible;
        }
        if self.is_awaiting(pods, quorum.priority) {
            return Room::Awaited;
        }
        let victims = self.less_important(quorum.priority, units);
        if victims.is_empty() {
            return Room::NoVictims;
        }
        let snapshot = self.snapshot.clone();
        // What is remembered belongs to the snapshot as it is.
        let classes = std::mem::take(&mut self.classes);
        let fixed = std::mem::take(&mut self.fixed);
        let room = self.try_without(pods, quorum, victims);
        self.snapshot = snapshot;
        self.classes = classes;
        self.fixed = fixed;
        if let Room::Found(plan) = room {
            return Room::Found(self.nominate_all(pods, quorum.priority, plan));
        }
        room
    }

    fn is_awaiting(&self, pods: &[Pod], priority: i32) -> bool {
        let nodes: BTreeSet<&str> = pods
            .iter()
            .map(|pod| match pod.nominated_node_name.as_str() {
                "" => self.snapshot.nomination(&pod.key()).unwrap_or(""),
                node => node,
            })
            .collect();
        let seats = nodes
            .into_iter()
            .filter_map(|node| self.snapshot.seat(self.snapshot.rank(node)?));
        seats.flat_map(|seat| &seat.pods).any(|(other, _)| {
            let is_ours = pods.iter().any(|pod| pod.uid == other.uid);
            other.priority < priority && other.is_preempted && !is_ours
        })
    }

    fn less_important(&self, priority: i32, units: &[Unit]) -> Vec<Victim> {
        let unit_of: HashMap<&str, usize> = units
            .iter()
            .enumerate()
            .flat_map(|(at, (keys, _))| keys.iter().map(move |key| (key.as_str(), at)))
            .collect();
        let mut together: Vec<Option<usize>> = vec![None; units.len()];
        let mut victims: Vec<Victim> = Vec::new();
        for seat in self.snapshot.seats() {
            for (pod, _) in &seat.pods {
                let unit = unit_of.get(pod.key().as_str()).copied();
                let place = (Arc::clone(pod), seat.node.name.clone());
                let known = unit.and_then(|at| together.get(at).copied().flatten());
                if let Some(victim) = known.and_then(|at| victims.get_mut(at)) {
                    victim.pods.push(place);
                    continue;
                }
                if let Some(slot) = unit.and_then(|at| together.get_mut(at)) {
                    *slot = Some(victims.len());
                }
                let of_unit = unit.and_then(|at| units.get(at)).map(|(_, rank)| *rank);
                victims.push(Victim {
                    pods: vec![place],
                    priority: of_unit.unwrap_or(pod.priority),
                    is_group: unit.is_some(),
                });
            }
        }
        victims.retain(|victim| victim.priority < priority);
        victims
    }

    /// On the copy: place the group where nobody less important is, then put back whom it leaves room for.
    fn try_without(&mut self, pods: &[Pod], quorum: Quorum, mut victims: Vec<Victim>) -> Room {
        for (pod, _) in victims.iter().flat_map(|victim| &victim.pods) {
            self.snapshot.remove_pod(&pod.key());
        }
        let mut placed = quorum.placed;
        let mut seated: Vec<(&Pod, String)> = Vec::new();
        for (at, pod) in pods.iter().enumerate() {
            if let Ok(node) = self.place(pod.clone(), 0) {
                seated.push((pod, node));
                placed += 1;
            }
            let remaining = pods.len() - at - 1;
            if placed + remaining < quorum.min_count {
                return Room::TooLittle { placed, remaining };
            }
        }
        if seated.is_empty() || placed < quorum.min_count {
            let remaining = 0;
            return Room::TooLittle { placed, remaining };
        }
        let is_local = seated.iter().all(|(pod, _)| self.looks_at_one_node(pod));
        self.unseat(&seated);
        victims.sort_by_cached_key(Victim::importance);
        let mut allowance = Allowance::of(&self.snapshot);
        let (protected, others): (Vec<Victim>, Vec<Victim>) =
            victims.into_iter().partition(|victim| {
                // All are counted, not only those up to the first that breaks a budget.
                let broken = victim
                    .pods
                    .iter()
                    .filter(|(pod, _)| allowance.is_broken_by(&self.snapshot, pod));
                broken.count() > 0
            });
        let mut leaving: Vec<Victim> = Vec::new();
        for victim in protected.into_iter().chain(others) {
            if !self.spares(&victim, &seated, is_local) {
                leaving.push(victim);
            }
        }
        leaving.sort_by_cached_key(Victim::importance);
        let pods = leaving.iter().flat_map(|victim| &victim.pods);
        Room::Found(Plan {
            nominated: seated
                .into_iter()
                .map(|(pod, node)| (pod.key(), node))
                .collect(),
            victims: pods.map(|(pod, _)| (pod.key(), pod.uid.clone())).collect(),
            displaced: Vec::new(),
        })
    }

    /// Put a victim back; take it away again, and return false, when the group then fits no longer.
    fn spares(&mut self, victim: &Victim, seated: &[(&Pod, String)], is_local: bool) -> bool {
        for (pod, node) in &victim.pods {
            let mut pod = (**pod).clone();
            pod.node_name.clone_from(node);
            self.snapshot.upsert_pod(pod);
        }
        let minds = |(pod, _): &(Arc<Pod>, String)| !pod.shape.inter_pod.is_empty();
        let asks_all = !is_local || victim.pods.iter().any(minds);
        let nodes: BTreeSet<&str> = victim.pods.iter().map(|(_, node)| node.as_str()).collect();
        let concerned = seated
            .iter()
            .filter(|(_, node)| asks_all || nodes.contains(node.as_str()));
        let concerned: Vec<(&Pod, String)> = concerned.cloned().collect();
        let fits = concerned.iter().all(|(pod, node)| self.seat(pod, node));
        self.unseat(&concerned);
        if !fits {
            for (pod, _) in &victim.pods {
                self.snapshot.remove_pod(&pod.key());
            }
        }
        fits
    }

    /// Assume a pod on this node if the filters allow it.
    fn seat(&mut self, pod: &Pod, node: &str) -> bool {
        let rank = self.with_cycle(pod, |cycle| {
            cycle.look_at_pod().ok()?;
            let rank = cycle.snapshot.rank(node)?;
            let seat = cycle.snapshot.seat(rank)?;
            let why =
                cycle
                    .class
                    .filter_with_nominated(cycle.snapshot, cycle.profile, pod, rank, seat);
            why.is_none().then_some(rank)
        });
        let Some(rank) = rank.flatten() else {
            return false;
        };
        self.snapshot.assume(Arc::new(pod.clone()), rank);
        true
    }

    fn unseat(&mut self, seated: &[(&Pod, String)]) {
        for (pod, _) in seated {
            self.snapshot.forget(&pod.key());
        }
    }

    /// Return whether nothing on other nodes matters to the pod.
    fn looks_at_one_node(&mut self, pod: &Pod) -> bool {
        let social = self.with_cycle(pod, |cycle| cycle.class.is_social(cycle.profile));
        social == Some((false, false)) && pod.shape.volumes.is_empty()
    }

    /// Let the group's pods wait for their nodes; less important ones no longer do.
    fn nominate_all(&mut self, pods: &[Pod], priority: i32, mut plan: Plan) -> Plan {
        let nodes: BTreeSet<String> = plan
            .nominated
            .iter()
            .map(|(_, node)| node.clone())
            .collect();
        for node in nodes {
            let Some(rank) = self.snapshot.rank(&node) else {
                continue;
            };
            let waiting = self.snapshot.nominated_to(rank).iter();
            let less = waiting.filter(|(other, _)| other.priority < priority);
            let keys: Vec<String> = less.map(|(other, _)| other.key()).collect();
            for key in keys {
                self.snapshot.withdraw_nomination(&key);
                plan.displaced.push((key, node.clone()));
            }
        }
        for (key, node) in &plan.nominated {
            if let Some(pod) = pods.iter().find(|pod| pod.key() == *key) {
                self.snapshot.nominate(Arc::new(pod.clone()), node);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod_from, pod_from_with_labels};
    use serde_json::{Value, json};

    fn ranked(name: &str, cpu: &str, priority: i32) -> Pod {
        pod_from(name, spec(cpu, priority))
    }

    fn spec(cpu: &str, priority: i32) -> Value {
        json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    /// Nodes of 4 cores, and pods v0, v1, ... on them: (node, cpu, priority).
    fn engine(nodes: &[&str], pods: &[(&str, &str, i32)]) -> Engine {
        let mut engine = Engine::default();
        for name in nodes {
            engine.snapshot.upsert_node(node(name));
        }
        for (at, (node, cpu, priority)) in pods.iter().enumerate() {
            let pod = Pod {
                node_name: (*node).into(),
                ..ranked(&format!("v{at}"), cpu, *priority)
            };
            engine.snapshot.upsert_pod(pod);
        }
        engine.snapshot.settle();
        engine
    }

    fn gang(count: usize, cpu: &str) -> Vec<Pod> {
        let named = |at| ranked(&format!("g{at}"), cpu, 10);
        (0..count).map(named).collect()
    }

    fn needs(min_count: usize) -> Quorum {
        Quorum {
            priority: 10,
            min_count,
            placed: 0,
        }
    }

    fn names(keys: &[(String, String)]) -> Vec<&str> {
        let name = |(key, _): &'_ (String, String)| key.len();
        assert!(keys.iter().all(|one| name(one) > 8));
        keys.iter().map(|(key, _)| &key[8..]).collect()
    }

    #[test]
    fn only_those_leave_whose_room_the_gang_takes() {
        let pods = [("a", "3", 1), ("b", "3", 2), ("b", "1", 1), ("c", "1", 1)];
        let mut engine = engine(&["a", "b", "c"], &pods);
        let before = format!("{:?}", engine.snapshot.seats());
        let Room::Found(plan) = engine.room_for_group(&gang(2, "3"), needs(2), &[]) else {
            panic!("there is room");
        };
        // One goes beside v3, the other in the place of a less important pod than v1.
        let mut nodes: Vec<&str> = plan.nominated.iter().map(|one| one.1.as_str()).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["a", "b"]);
        assert_eq!(names(&plan.victims), ["v1", "v0"]);
        assert_eq!(format!("{:?}", engine.snapshot.seats()), before);
        assert_eq!(engine.snapshot.nomination("default/g0"), Some(nodes[0]));
    }

    #[test]
    fn a_unit_leaves_as_a_whole_or_stays_as_a_whole() {
        let pods = [("a", "4", 1), ("b", "4", 1), ("c", "4", 2)];
        let units = [(vec!["default/v0".to_string(), "default/v1".to_string()], 1)];
        let mut engine = engine(&["a", "b", "c"], &pods);
        let Room::Found(plan) = engine.room_for_group(&gang(1, "4"), needs(1), &units) else {
            panic!("there is room");
        };
        assert_eq!(
            plan.nominated,
            [("default/g0".to_string(), "a".to_string())]
        );
        assert_eq!(names(&plan.victims), ["v0", "v1"]);
    }

    #[test]
    fn a_unit_is_as_important_as_its_group_says() {
        let mut engine = engine(&["a"], &[("a", "4", 1)]);
        let units = [(vec!["default/v0".to_string()], 10)];
        let room = engine.room_for_group(&gang(1, "4"), needs(1), &units);
        assert_eq!(room, Room::NoVictims);
    }

    #[test]
    fn nothing_is_nominated_when_even_an_empty_cluster_is_too_small() {
        let mut engine = engine(&["a", "b"], &[("a", "4", 1)]);
        let room = engine.room_for_group(&gang(3, "4"), needs(3), &[]);
        let (placed, remaining) = (2, 0);
        assert_eq!(room, Room::TooLittle { placed, remaining });
        assert!(!engine.snapshot.has_nominations());
        let enough = engine.room_for_group(&gang(3, "4"), needs(2), &[]);
        assert!(matches!(enough, Room::Found(plan) if plan.nominated.len() == 2));
    }

    #[test]
    fn who_is_on_the_way_out_is_awaited_and_who_never_preempts_waits() {
        let mut engine = engine(&["a"], &[("a", "4", 1)]);
        assert!(matches!(
            engine.room_for_group(&gang(1, "4"), needs(1), &[]),
            Room::Found(_)
        ));
        let leaving = json!({"metadata": {"name": "v0", "namespace": "default", "uid": "uid-v0", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec("4", 1), "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}});
        let mut leaving = Pod::parse(leaving.to_string().as_bytes()).unwrap();
        leaving.node_name = "a".into();
        engine.snapshot.upsert_pod(leaving);
        assert_eq!(
            engine.room_for_group(&gang(1, "4"), needs(1), &[]),
            Room::Awaited
        );
        let mut meek = gang(1, "4");
        meek[0].never_preempts = true;
        assert_eq!(
            engine.room_for_group(&meek, needs(1), &[]),
            Room::NotEligible
        );
    }

    #[test]
    fn a_budget_protects_whom_it_covers_as_long_as_others_will_do() {
        let mut engine = engine(&["a", "b"], &[("b", "4", 1)]);
        let mut guarded = pod_from_with_labels("guarded", json!({"app": "db"}), spec("4", 1));
        guarded.node_name = "a".into();
        engine.snapshot.upsert_pod(guarded);
        let budget = json!({"kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 0}});
        let bytes = budget.to_string();
        engine.snapshot.cluster.upsert(bytes.as_bytes()).unwrap();
        let Room::Found(plan) = engine.room_for_group(&gang(2, "2"), needs(2), &[]) else {
            panic!("there is room");
        };
        // Both were placed while both nodes were free, one on each.
        assert_eq!(plan.victims.len(), 2);
        let Room::Found(plan) = engine.room_for_group(&gang(1, "2")[..1], needs(1), &[]) else {
            panic!("there is room");
        };
        assert_eq!(plan.victims.len(), 1);
    }

    #[test]
    fn pods_elsewhere_that_the_gang_minds_are_asked_again_wherever_they_are() {
        let mut engine = Engine::default();
        for name in ["a", "b"] {
            let node = json!({"metadata": {"name": name, "labels": {"zone": "z"}}, "status": {"allocatable": {"cpu": "4", "pods": "110"}}});
            engine
                .snapshot
                .upsert_node(crate::scheduler::fixtures::node_from(node));
        }
        let mut other = pod_from_with_labels("other", json!({"app": "x"}), spec("1", 1));
        other.node_name = "b".into();
        engine.snapshot.upsert_pod(other);
        let mut shy = spec("1", 10);
        shy["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}]}});
        engine.snapshot.settle();
        let Room::Found(plan) = engine.room_for_group(&[pod_from("g0", shy)], needs(1), &[]) else {
            panic!("there is room");
        };
        assert_eq!(names(&plan.victims), ["other"]);
    }
}
