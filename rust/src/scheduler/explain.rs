//! The whole matrix of a cycle: every plugin's word on every node, as JSON, for people who ask "why there?" and "why not?".

use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::class::own_score;
use super::cycle::{Cycle, Outcome, Scores};
use super::framework::{MAX_NODE_SCORE, Plugin};

#[derive(Debug, Serialize)]
struct Explanation<'a> {
    pod: String,
    profile: &'a str,
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
    filters: BTreeMap<&'static str, Vec<Cow<'static, str>>>,
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
pub fn explain(cycle: &mut Cycle<'_>, seed: u64) -> Result<Vec<u8>, serde_json::Error> {
    let outcome = cycle.run(seed);
    let feasible = cycle.look();
    let compared = cycle.normalized_scores(&feasible);
    let mut rows = Vec::with_capacity(cycle.snapshot.len());
    let mut place = feasible.iter().enumerate().peekable();
    for rank in 0..cycle.snapshot.len() {
        let at = place
            .next_if(|(_, found)| **found as usize == rank)
            .map(|(at, _)| at);
        rows.push(row(cycle, rank, at, &compared));
    }
    let (node, message) = match outcome {
        Outcome::Node(rank) => (cycle.snapshot.node_name(rank), String::new()),
        Outcome::Unschedulable(failure) => ("", failure.diagnosis.message()),
    };
    serde_json::to_vec(&Explanation {
        pod: cycle.pod.key(),
        profile: &cycle.profile.scheduler_name,
        node,
        message,
        nodes: rows,
    })
}

fn row<'a>(cycle: &Cycle<'a>, rank: usize, at: Option<usize>, compared: &[Scores]) -> NodeRow<'a> {
    let scores = at.map_or_else(BTreeMap::new, |at| scores(cycle, rank, at, compared));
    NodeRow {
        name: cycle.snapshot.node_name(rank),
        feasible: at.is_some(),
        filters: if at.is_some() {
            BTreeMap::new()
        } else {
            rejections(cycle, rank)
        },
        total: at.map(|_| scores.values().map(|score| score.weighted).sum()),
        scores,
    }
}

fn scores(
    cycle: &Cycle<'_>,
    rank: usize,
    at: usize,
    compared: &[Scores],
) -> BTreeMap<&'static str, Score> {
    let mut scores = BTreeMap::new();
    let mut add = |plugin: Plugin, raw: i64, normalized: i64| {
        let weighted = normalized * cycle.profile.weight(plugin);
        scores.insert(
            plugin.name(),
            Score {
                raw,
                normalized,
                weighted,
            },
        );
    };
    if cycle.profile.weight(Plugin::TaintToleration) > 0 {
        // When no node has a taint that counts all get the same.
        add(Plugin::TaintToleration, 0, MAX_NODE_SCORE);
    }
    for one in compared {
        if let (Some(raw), Some(normalized)) = (one.raw.get(at), one.normalized.get(at)) {
            add(
                one.plugin,
                (*raw)
                    .max(0)
                    .max(if one.plugin == Plugin::InterPodAffinity {
                        *raw
                    } else {
                        0
                    }),
                *normalized,
            );
        }
    }
    for plugin in [
        Plugin::NodeResourcesFit,
        Plugin::NodeResourcesBalancedAllocation,
        Plugin::ImageLocality,
    ] {
        let score = cycle.snapshot.seat(rank).and_then(|seat| {
            own_score(
                plugin,
                cycle.snapshot,
                cycle.profile,
                &cycle.class.shape,
                seat,
            )
        });
        if let Some(score) = score {
            add(plugin, score, score);
        }
    }
    scores
}

fn rejections(cycle: &Cycle<'_>, rank: usize) -> BTreeMap<&'static str, Vec<Cow<'static, str>>> {
    let social = cycle.class.is_social(cycle.profile);
    let ask = |plugin: &Plugin| {
        let seat = cycle.snapshot.seat(rank)?;
        let why = cycle
            .class
            .ask(*plugin, cycle.snapshot, cycle.profile, rank, seat, social)?;
        Some((plugin.name(), why.reasons))
    };
    cycle.profile.filters.iter().filter_map(ask).collect()
}

#[cfg(test)]
mod tests {
    use crate::scheduler::engine::Engine;
    use crate::scheduler::fixtures::{node, node_from};
    use serde_json::{Value, json};

    #[test]
    fn the_matrix_shows_every_rejection_and_every_score() {
        let mut engine = Engine::default();
        let cordoned = json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoExecute"}]}});
        engine.snapshot.upsert_node(node("a"));
        engine.snapshot.upsert_node(node_from(cordoned));
        let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        let text = engine.explain(pod.to_string().as_bytes(), 0).unwrap();
        let found: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(found["node"], "a");
        assert_eq!(
            found["nodes"][0]["scores"]["TaintToleration"],
            json!({"raw": 0, "normalized": 100, "weighted": 300})
        );
        let sum: i64 = found["nodes"][0]["scores"]
            .as_object()
            .unwrap()
            .values()
            .map(|one| one["weighted"].as_i64().unwrap())
            .sum();
        assert_eq!(found["nodes"][0]["total"], sum);
        assert_eq!(
            found["nodes"][1]["filters"],
            json!({"NodeUnschedulable": ["node(s) were unschedulable"], "TaintToleration": ["node(s) had untolerated taint(s)"]})
        );
        assert_eq!(found["nodes"][1]["total"], Value::Null);
    }
}
