//! The whole matrix of a cycle: every plugin's word on every node, as JSON, for people who ask "why there?" and "why not?".

use serde::Serialize;
use std::collections::BTreeMap;

use super::cycle::{choose, find_feasible, score_each};
use super::framework::{Cycle, PLUGINS, PreFilter};

#[derive(Debug, Serialize)]
struct Explanation<'a> {
    pod: String,
    /// The node that a cycle with this snapshot and seed chooses; empty when none is feasible.
    node: &'a str,
    /// Empty when a node was found.
    message: String,
    nodes: Vec<NodeRow<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeRow<'a> {
    name: &'a str,
    feasible: bool,
    /// What each plugin that rejects the node says; unlike in a cycle all are asked, not only until the first rejection.
    filters: BTreeMap<&'static str, Vec<String>>,
    scores: BTreeMap<&'static str, Score>,
    total: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Score {
    raw: i64,
    normalized: i64,
    weighted: i64,
}

/// Return the explanation as JSON.
pub fn explain(cycle: &Cycle<'_>, seed: u64) -> Result<Vec<u8>, serde_json::Error> {
    let found = find_feasible(cycle);
    let scores = score_each(cycle, &found.slots);
    let mut totals = vec![0; found.slots.len()];
    for one in &scores {
        for (total, score) in totals.iter_mut().zip(&one.normalized) {
            *total += score * one.weight;
        }
    }
    let name = |slot: usize| {
        cycle
            .snapshot
            .node(slot)
            .map_or("", |node| node.name.as_str())
    };
    let chosen = found
        .slots
        .get(choose(&totals, seed))
        .map_or("", |slot| name(*slot));
    let rows = cycle.snapshot.order().iter().map(|&slot| {
        let at = found.slots.iter().position(|one| *one == slot);
        NodeRow {
            name: name(slot),
            feasible: at.is_some(),
            filters: rejections(cycle, slot),
            scores: scores
                .iter()
                .filter_map(|one| {
                    let (raw, normalized) = (*one.raw.get(at?)?, *one.normalized.get(at?)?);
                    Some((
                        one.plugin,
                        Score {
                            raw,
                            normalized,
                            weighted: normalized * one.weight,
                        },
                    ))
                })
                .collect(),
            total: at.and_then(|at| totals.get(at)).copied(),
        }
    });
    let message = if chosen.is_empty() {
        found.diagnosis.message()
    } else {
        String::new()
    };
    serde_json::to_vec(&Explanation {
        pod: cycle.pod.key(),
        node: chosen,
        message,
        nodes: rows.collect(),
    })
}

fn rejections(cycle: &Cycle<'_>, slot: usize) -> BTreeMap<&'static str, Vec<String>> {
    let mut words = BTreeMap::new();
    for plugin in PLUGINS {
        let rejection = match plugin.pre_filter(cycle) {
            PreFilter::Skip => None,
            PreFilter::Reject(why) => Some(why),
            PreFilter::Every | PreFilter::Only(_) => plugin.filter(cycle, slot),
        };
        if let Some(why) = rejection {
            words.insert(
                plugin.name(),
                why.reasons.iter().map(ToString::to_string).collect(),
            );
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, node_from, pod, snapshot};
    use serde_json::{Value, json};

    #[test]
    fn the_matrix_shows_every_rejection_and_every_score() {
        let cordoned = json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoExecute"}]}});
        let snapshot = snapshot(vec![node("a"), node_from(cordoned)]);
        let pod = pod("p", "1");
        let text = explain(
            &Cycle {
                snapshot: &snapshot,
                pod: &pod,
            },
            0,
        )
        .unwrap();
        let found: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(found["node"], "a");
        assert_eq!(
            found["nodes"][0]["scores"]["TaintToleration"],
            json!({"raw": 0, "normalized": 100, "weighted": 300})
        );
        assert_eq!(
            found["nodes"][1]["filters"],
            json!({"NodeUnschedulable": ["node(s) were unschedulable"], "TaintToleration": ["node(s) had untolerated taint(s)"]})
        );
        assert_eq!(found["nodes"][1]["total"], Value::Null);
    }
}
