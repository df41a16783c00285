//! A decision in steps, for pods about which others than the engine's plugins have a say: extenders, and plugins written in Python.
//!
//! `survey` finds the nodes that the engine's filters let through; the others take nodes away and give scores of their own; then `choose`
//! assumes the pod on the best of what is left, or `refuse` says why nothing is left and whom preemption would remove (`victims` tells
//! the others before, so that they may change it). Nothing is remembered between the steps, so the snapshot may change in between.

use std::borrow::Cow;
use std::sync::Arc;

use super::cycle::{Cycle, choose};
use super::engine::{Decision, Engine, Refusal};
use super::framework::{Code, Rejection};
use super::node::Node;
use super::plugins::default_preemption::{self, Candidate};
use super::pod::Pod;
use super::snapshot::Seat;

/// A node that somebody outside took away.
#[derive(Debug, Clone)]
pub struct Objection {
    pub node: String,
    /// The name of the plugin or extender.
    pub by: String,
    pub reason: String,
    /// Removing pods would not help.
    pub is_unresolvable: bool,
}

/// A node, the pods that would have to go (key and uid), and how many of them a disruption budget protects.
pub type Victims = (String, Vec<(String, String)>, usize);

/// A node and its less important pods: key, uid, and whether a disruption budget protects it.
pub type Curable = (String, Vec<(String, String, bool)>);

/// What each node has of a resource, and what of it is requested.
pub type Column = (Vec<f64>, Vec<f64>);

impl Engine {
    /// Return the node that the pod waits for, if the filters let it go there now; else all feasible nodes in visiting order.
    /// The flag tells the first case.
    pub fn survey(&mut self, pod: &Pod) -> (bool, Vec<String>) {
        let pod = self.with_nomination(pod);
        self.with_cycle(&pod, |cycle| {
            if let Ok(_names) = cycle.look_at_pod()
                && let Some(rank) = cycle.nominated()
            {
                return (true, vec![cycle.snapshot.node_name(rank).to_string()]);
            }
            (false, feasible(cycle))
        })
        .unwrap_or_default()
    }

    /// Return the feasible nodes, whether the pod waits for one or not.
    pub fn feasible(&mut self, pod: &Pod) -> Vec<String> {
        self.with_cycle(pod, feasible).unwrap_or_default()
    }

    /// Assume the pod on the best of `nodes`, to whose scores `extra` is added, or on the only one. Nodes that are gone are left out;
    /// None when nothing remains.
    pub fn choose(
        &mut self,
        pod: Pod,
        nodes: &[String],
        extra: &[i64],
        seed: u64,
    ) -> Option<Decision> {
        let rank = self.with_cycle(&pod, |cycle| {
            // What the pod's volumes ask for is found anew for each cycle.
            cycle.look_at_pod().ok()?;
            let known = nodes.iter().zip(extra).filter_map(|(name, extra)| {
                Some((u32::try_from(cycle.snapshot.rank(name)?).ok()?, *extra))
            });
            let (ranks, extra): (Vec<u32>, Vec<i64>) = known.unzip();
            let mut totals = cycle.totals(&ranks);
            totals
                .iter_mut()
                .zip(&extra)
                .for_each(|(total, more)| *total += more);
            ranks.get(choose(&totals, seed)).map(|rank| *rank as usize)
        })??;
        let node = self.snapshot.node_name(rank).to_string();
        let (key, uid) = (pod.key(), pod.uid.clone());
        self.snapshot.assume(Arc::new(pod), rank);
        Some(Decision {
            key,
            uid,
            result: Ok(node),
        })
    }

    /// Return on which nodes preemption would make room, and by removing whom.
    pub fn victims(&mut self, pod: &Pod, objections: &[Objection]) -> Vec<Victims> {
        let pod = self.with_nomination(pod);
        let found = self.with_cycle(&pod, |cycle| {
            let failure = failure(cycle, objections);
            if !cycle.profile.preempts || failure.diagnosis.nodes == 0 {
                return Vec::new();
            }
            let hopeless = failure.is_hopeless(cycle.snapshot, &pod);
            default_preemption::candidates(
                cycle.snapshot,
                cycle.profile,
                cycle.class,
                &pod,
                &failure.curable,
                hopeless,
            )
        });
        let told = |one: Candidate| {
            let victims = one.victims.iter().map(|pod| (pod.key(), pod.uid.clone()));
            let node = self.snapshot.node_name(one.rank).to_string();
            (node, victims.collect(), one.violations)
        };
        found.unwrap_or_default().into_iter().map(told).collect()
    }

    /// Return the nodes that removing pods might free for the pod, each with its less important pods (key, uid, whether a disruption
    /// budget protects it) in the order in which they are to be put back.
    pub fn curable(&mut self, pod: &Pod, objections: &[Objection]) -> Vec<Curable> {
        let pod = self.with_nomination(pod);
        let found = self.with_cycle(&pod, |cycle| {
            let failure = failure(cycle, objections);
            if !cycle.profile.preempts || failure.diagnosis.nodes == 0 {
                return Vec::new();
            }
            let hopeless = failure.is_hopeless(cycle.snapshot, &pod);
            if default_preemption::not_eligible(cycle.snapshot, &pod, hopeless).is_some() {
                return Vec::new();
            }
            let on = |rank: &usize| {
                let victims = default_preemption::potential_victims(cycle.snapshot, &pod, *rank);
                let told = victims
                    .into_iter()
                    .map(|(one, is_protected)| (one.key(), one.uid.clone(), is_protected));
                let node = cycle.snapshot.node_name(*rank).to_string();
                (node, told.collect())
            };
            failure.curable.iter().map(on).collect()
        });
        found.unwrap_or_default()
    }

    /// Return whether the engine's filters let the pod go to a node when these of its pods are thought away.
    pub fn fits_without(&mut self, pod: &Pod, node: &str, gone: &[String]) -> bool {
        let pod = self.with_nomination(pod);
        let fits = self.with_cycle(&pod, |cycle| {
            let rank = cycle.snapshot.rank(node)?;
            cycle.look_at_pod().ok()?;
            let (snapshot, profile) = (cycle.snapshot, cycle.profile);
            Some(default_preemption::fits_without(
                snapshot,
                profile,
                cycle.class,
                &pod,
                rank,
                gone,
            ))
        });
        fits.flatten().unwrap_or_default()
    }

    /// Return what a node has of a resource, and what is requested of it when these of its pods are thought away; None: no such node.
    pub fn amount_without(
        &mut self,
        node: &str,
        resource: &str,
        gone: &[String],
    ) -> Option<(f64, f64)> {
        self.snapshot.settle();
        let seat = self.snapshot.seat(self.snapshot.rank(node)?)?;
        let mut left = seat.sketch();
        for (pod, _) in seat
            .pods
            .iter()
            .filter(|(pod, _)| gone.contains(&pod.key()))
        {
            left.weigh(&pod.shape, -1);
        }
        Some(amount(&left, resource))
    }

    /// Say why the pod has no node and nominate one if preemption helps: any node, or one of `allowed` by removing the pods named there.
    /// `everywhere` is a plugin and its words for why no node at all will do; without `preempts` nobody has to make room.
    pub fn refuse_outside(
        &mut self,
        pod: Pod,
        objections: &[Objection],
        everywhere: Option<(String, String)>,
        allowed: Option<Vec<Victims>>,
        preempts: bool,
    ) -> Decision {
        let pod = self.with_nomination(&pod);
        let (key, uid) = (pod.key(), pod.uid.clone());
        let (profile, id) = self.prepare(&pod);
        let failure = self.with_cycle(&pod, |cycle| match everywhere {
            Some((by, words)) => {
                let mut failure = super::cycle::Failure::default();
                failure.diagnosis.nodes = cycle.snapshot.len();
                failure.diagnosis.reject_all_outside(by, words);
                failure
            }
            None => failure(cycle, objections),
        });
        let Some(failure) = failure else {
            let result = Err(Refusal::default());
            return Decision { key, uid, result };
        };
        if !preempts {
            let diagnosis = failure.diagnosis;
            let result = Err(Refusal {
                diagnosis,
                ..Refusal::default()
            });
            return Decision { key, uid, result };
        }
        let candidates = allowed.map(|all| self.candidates(all));
        Decision {
            key,
            uid,
            result: Err(self.refuse(pod, profile, id, failure, candidates)),
        }
    }

    /// Return the keys and uids of the pods on a node; empty when there is no such node.
    pub fn pods_on(&mut self, node: &str) -> Vec<(String, String)> {
        self.snapshot.settle();
        let seat = self
            .snapshot
            .rank(node)
            .and_then(|rank| self.snapshot.seat(rank));
        seat.map_or_else(Vec::new, |seat| {
            seat.pods
                .iter()
                .map(|(pod, _)| (pod.key(), pod.uid.clone()))
                .collect()
        })
    }

    /// Return the names of all nodes, and for each resource what they have and what of it is requested, in the same order.
    pub fn table(&mut self, resources: &[String]) -> (Vec<String>, Vec<Column>) {
        self.snapshot.settle();
        let seats = self.snapshot.seats();
        let columns = resources.iter().map(|resource| {
            let amounts = seats.iter().map(|seat| amount(seat, resource));
            amounts.unzip()
        });
        let names = seats.iter().map(|seat| seat.node.name.clone());
        (names.collect(), columns.collect())
    }

    fn with_nomination(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if pod.nominated_node_name.is_empty() {
            pod.nominated_node_name = self
                .snapshot
                .nomination(&pod.key())
                .unwrap_or("")
                .to_string();
        }
        pod
    }

    fn candidates(&self, allowed: Vec<Victims>) -> Vec<Candidate> {
        let read = |(node, victims, violations): Victims| {
            let rank = self.snapshot.rank(&node)?;
            let on_node = &self.snapshot.seat(rank)?.pods;
            let named = |(_, uid): &(String, String)| {
                let found = on_node.iter().find(|(pod, _)| pod.uid == *uid);
                found.map(|(pod, _)| Arc::clone(pod))
            };
            Some(Candidate {
                rank,
                victims: victims.iter().filter_map(named).collect(),
                violations,
            })
        };
        allowed.into_iter().filter_map(read).collect()
    }
}

fn feasible(cycle: &mut Cycle<'_>) -> Vec<String> {
    let ranks = cycle.survey().unwrap_or_default();
    let names = ranks
        .iter()
        .map(|rank| cycle.snapshot.node_name(*rank as usize));
    names.map(String::from).collect()
}

/// Ask every node why not, and those that the engine's filters let through what others have against them.
fn failure(cycle: &mut Cycle<'_>, objections: &[Objection]) -> super::cycle::Failure {
    let names = match cycle.look_at_pod() {
        Ok(names) => names,
        Err(failure) => return *failure,
    };
    let mut failure = cycle.diagnose(&names);
    for objection in objections {
        let Some((rank, seat)) = cycle
            .snapshot
            .rank(&objection.node)
            .and_then(|rank| Some((rank, cycle.snapshot.seat(rank)?)))
        else {
            continue;
        };
        let own =
            cycle
                .class
                .filter_with_nominated(cycle.snapshot, cycle.profile, cycle.pod, rank, seat);
        match own {
            // Preemption must not free a node that the others would not take all the same.
            Some(_) if objection.is_unresolvable => failure.curable.retain(|one| *one != rank),
            Some(_) => {}
            None => {
                let code = if objection.is_unresolvable {
                    Code::UnschedulableAndUnresolvable
                } else {
                    failure.curable.push(rank);
                    Code::Unschedulable
                };
                let words = Some(&objection.reason).filter(|words| !words.is_empty());
                let reasons = words.cloned().map(Cow::Owned).into_iter().collect();
                let why = Rejection { code, reasons };
                failure.diagnosis.reject_outside(&objection.by, &why);
            }
        }
    }
    failure
}

/// Return what a node has of a resource and how much of it is requested: CPU in thousandths, else bytes or pieces.
fn amount(seat: &Seat, resource: &str) -> (f64, f64) {
    let node: &Node = &seat.node;
    let (has, used) = match resource {
        "cpu" => (node.allocatable.milli_cpu, seat.requested.milli_cpu),
        "memory" => (node.allocatable.memory, seat.requested.memory),
        "ephemeral-storage" => (
            node.allocatable.ephemeral_storage,
            seat.requested.ephemeral_storage,
        ),
        "pods" => (node.allocatable.pods, seat.requested.pods),
        other => (
            node.scalars.get(other).copied().unwrap_or(0),
            seat.scalars.get(other).copied().unwrap_or(0),
        ),
    };
    (has as f64, used as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod, pod_from};
    use serde_json::json;

    fn engine(nodes: &[&str]) -> Engine {
        let mut engine = Engine::default();
        for name in nodes {
            engine.snapshot.upsert_node(node(name));
        }
        engine
    }

    fn objection(node: &str, is_unresolvable: bool) -> Objection {
        Objection {
            node: node.into(),
            by: "Outside".into(),
            reason: "not this one".into(),
            is_unresolvable,
        }
    }

    #[test]
    fn steps_without_anybody_else_decide_as_one_cycle_does() {
        let names = ["a", "b", "c", "d", "e"];
        let (mut whole, mut stepped) = (engine(&names), engine(&names));
        for at in 0..25 {
            let one = pod(&format!("p{at}"), ["1", "500m", "2"][at % 3]);
            let expected = whole.schedule(vec![one.clone()], 0).remove(0).result;
            let (_, feasible) = stepped.survey(&one);
            let extra = vec![0; feasible.len()];
            let found = match stepped.choose(one.clone(), &feasible, &extra, 0) {
                Some(decision) => decision.result,
                None => stepped.refuse_outside(one, &[], None, None, true).result,
            };
            assert_eq!(
                expected.map_err(|one| one.diagnosis.message()),
                found.map_err(|one| one.diagnosis.message())
            );
        }
    }

    #[test]
    fn scores_from_outside_are_added_and_one_node_alone_is_taken_at_any_score() {
        let mut engine = engine(&["a", "b"]);
        let nodes = ["a".to_string(), "b".to_string(), "gone".to_string()];
        let placed = engine.choose(pod("p", "1"), &nodes, &[0, 300, 900], 0);
        assert_eq!(placed.unwrap().result.unwrap(), "b");
        let placed = engine.choose(pod("q", "1"), &nodes[..1], &[-500], 0);
        assert_eq!(placed.unwrap().result.unwrap(), "a");
        assert!(engine.choose(pod("r", "1"), &nodes[2..], &[0], 0).is_none());
    }

    #[test]
    fn objections_are_worded_beside_the_engines_own_rejections() {
        let mut engine = engine(&["a", "b", "c"]);
        engine.schedule(vec![pod("big", "4")], 0);
        let (_, feasible) = engine.survey(&pod("p", "2"));
        assert_eq!(feasible, ["b", "c"]);
        let objections = [
            objection("a", true),
            objection("b", true),
            objection("c", false),
        ];
        let refusal = engine
            .refuse_outside(pod("p", "2"), &objections, None, None, true)
            .result
            .unwrap_err();
        assert_eq!(
            refusal.diagnosis.message(),
            "0/3 nodes are available: 1 Insufficient cpu, 2 not this one. \
             preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
        assert!(refusal.diagnosis.outsiders.contains("Outside"));
        let words = ("Outside".to_string(), "not today".to_string());
        let refusal = engine
            .refuse_outside(pod("p", "2"), &[], Some(words), None, true)
            .result
            .unwrap_err();
        assert_eq!(
            refusal.diagnosis.message(),
            "0/3 nodes are available: not today. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn others_say_which_victims_go() {
        let mut engine = engine(&["a", "b"]);
        engine.schedule(vec![pod("v0", "4"), pod("v1", "4")], 0);
        let spec = json!({"priority": 9, "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]});
        let high = pod_from("high", spec);
        let found = engine.victims(&high, &[]);
        assert_eq!(found.len(), 2);
        let chosen: Vec<Victims> = found.into_iter().filter(|one| one.0 == "b").collect();
        let refusal = engine
            .refuse_outside(high.clone(), &[], None, Some(chosen), true)
            .result
            .unwrap_err();
        assert_eq!(
            (refusal.nominated.as_str(), refusal.victims.len()),
            ("b", 1)
        );
        let refusal = engine
            .refuse_outside(high, &[], None, Some(Vec::new()), true)
            .result
            .unwrap_err();
        assert_eq!(
            refusal.diagnosis.message(),
            "0/2 nodes are available: 2 Insufficient cpu. preemption: no candidate node for preemption"
        );
    }

    #[test]
    fn a_node_is_tried_without_pods_and_stays_as_it_was() {
        let mut engine = engine(&["a"]);
        engine.schedule(vec![pod("v0", "2"), pod("v1", "2")], 0);
        let spec = json!({"priority": 9, "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]});
        let high = pod_from("high", spec);
        let found = engine.curable(&high, &[]);
        let keys: Vec<&str> = found[0].1.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(
            (found[0].0.as_str(), keys),
            ("a", vec!["default/v0", "default/v1"])
        );
        let (one, both) = (
            ["default/v0".to_string()],
            ["default/v0".to_string(), "default/v1".to_string()],
        );
        assert!(!engine.fits_without(&high, "a", &one));
        assert!(engine.fits_without(&high, "a", &both));
        assert!(!engine.fits_without(&high, "gone", &both));
        assert_eq!(
            engine.amount_without("a", "cpu", &one),
            Some((4000.0, 2000.0))
        );
        assert_eq!(
            engine.amount_without("a", "cpu", &[]),
            Some((4000.0, 4000.0))
        );
        assert!(engine.curable(&high, &[objection("a", true)]).is_empty());
    }

    #[test]
    fn the_table_has_what_nodes_have_and_what_of_it_is_taken() {
        let mut engine = engine(&["a", "b"]);
        engine.schedule(vec![pod("p", "1500m")], 0);
        let (names, columns) = engine.table(&["cpu".into(), "x.io/none".into()]);
        assert_eq!(names, ["a", "b"]);
        assert_eq!(columns[0], (vec![4000.0, 4000.0], vec![1500.0, 0.0]));
        assert_eq!(columns[1], (vec![0.0, 0.0], vec![0.0, 0.0]));
        assert_eq!(engine.pods_on("a").len() + engine.pods_on("b").len(), 1);
    }
}
