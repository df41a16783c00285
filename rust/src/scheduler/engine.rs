//! The scheduler's state and its batch operations; what the Python boundary wraps.

use std::sync::Arc;

use super::SchedulerError;
use super::cycle::{self, Outcome};
use super::diagnosis::Diagnosis;
use super::explain;
use super::framework::Cycle;
use super::node::Node;
use super::pod::Pod;
use super::snapshot::Snapshot;

#[derive(Debug, Default)]
pub struct Engine {
    pub snapshot: Snapshot,
}

/// What became of one pod of a batch.
#[derive(Debug)]
pub struct Decision {
    /// `namespace/name`.
    pub key: String,
    pub uid: String,
    /// The chosen node, or why there is none.
    pub result: Result<String, Diagnosis>,
}

/// Objects that were dropped or whose JSON was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Pod,
}

impl Engine {
    /// Take in nodes, then pods. Nothing changes when one of them cannot be read.
    pub fn upsert(
        &mut self,
        nodes: &[impl AsRef<[u8]>],
        pods: &[impl AsRef<[u8]>],
    ) -> Result<(), SchedulerError> {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|bytes| Node::parse(bytes.as_ref()))
            .collect::<Result<_, _>>()?;
        let pods: Vec<Pod> = pods
            .iter()
            .map(|bytes| Pod::parse(bytes.as_ref()))
            .collect::<Result<_, _>>()?;
        for node in nodes {
            self.snapshot.upsert_node(node);
        }
        for pod in pods {
            self.snapshot.upsert_pod(pod);
        }
        self.snapshot.settle();
        Ok(())
    }

    pub fn remove(&mut self, kind: Kind, keys: &[String]) {
        for key in keys {
            match kind {
                Kind::Node => self.snapshot.remove_node(key),
                Kind::Pod => self.snapshot.remove_pod(key),
            }
        }
        self.snapshot.settle();
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
            let (key, uid) = (pod.key(), pod.uid.clone());
            let result = match cycle::schedule(&self.snapshot, &pod, seed) {
                Outcome::Node(slot) => {
                    let node = self
                        .snapshot
                        .node(slot)
                        .map(|node| node.name.clone())
                        .unwrap_or_default();
                    self.snapshot.assume(Arc::new(pod), &node);
                    Ok(node)
                }
                Outcome::Unschedulable(diagnosis) => Err(diagnosis),
            };
            decisions.push(Decision { key, uid, result });
        }
        decisions
    }

    pub fn forget(&mut self, keys: &[String]) {
        for key in keys {
            self.snapshot.forget(key);
        }
    }

    /// Return the matrix of nodes and plugins for a pod, as JSON.
    pub fn explain(&self, pod: &[u8], seed: u64) -> Result<Vec<u8>, SchedulerError> {
        let pod = Pod::parse(pod)?;
        explain::explain(
            &Cycle {
                snapshot: &self.snapshot,
                pod: &pod,
            },
            seed,
        )
        .map_err(SchedulerError::Encode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod};

    #[test]
    fn a_batch_sees_its_own_placements() {
        let mut engine = Engine::default();
        engine.snapshot.upsert_node(node("n1"));
        engine.snapshot.upsert_node(node("n2"));
        engine.snapshot.settle();
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
    fn an_unreadable_object_changes_nothing() {
        let mut engine = Engine::default();
        let none: [&[u8]; 0] = [];
        let good: &[u8] = br#"{"metadata": {"name": "n"}}"#;
        assert!(engine.upsert(&[good, b"{"], &none).is_err());
        assert!(engine.snapshot.is_empty());
    }
}
