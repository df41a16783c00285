//! TaintToleration: NoSchedule and NoExecute taints keep out pods that do not tolerate them; PreferNoSchedule taints count
//! against a node. Mirrors plugins/tainttoleration.

use crate::scheduler::framework::{Cycle, Plugin, PreFilter, Rejection, normalize_by_max};
use crate::scheduler::wire::{Taint, Toleration};

#[derive(Debug)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn pre_filter(&self, cycle: &Cycle<'_>) -> PreFilter {
        if cycle.snapshot.has_taints() {
            PreFilter::Every
        } else {
            PreFilter::Skip
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        let keeps_out =
            |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let tolerated = |taint: &Taint| {
            cycle
                .pod
                .tolerations
                .iter()
                .any(|one| tolerates(one, taint))
        };
        let fits = cycle
            .snapshot
            .node(node)?
            .taints
            .iter()
            .filter(keeps_out)
            .all(tolerated);
        (!fits).then(|| Rejection::unresolvable("node(s) had untolerated taint(s)"))
    }

    fn pre_score(&self, _cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        true
    }

    fn score(&self, cycle: &Cycle<'_>, node: usize) -> i64 {
        let Some(node) = cycle.snapshot.node(node) else {
            return 0;
        };
        let softly = |one: &&Toleration| one.effect.is_empty() || one.effect == "PreferNoSchedule";
        let tolerated = |taint: &Taint| {
            cycle
                .pod
                .tolerations
                .iter()
                .filter(softly)
                .any(|one| tolerates(one, taint))
        };
        let against = node
            .taints
            .iter()
            .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(taint));
        i64::try_from(against.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }
}

/// Return whether the toleration covers the taint. Mirrors Toleration.ToleratesTaint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match toleration.operator.as_str() {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, snapshot};
    use serde_json::json;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        Toleration {
            key: key.into(),
            operator: operator.into(),
            value: value.into(),
            effect: effect.into(),
        }
    }

    #[test]
    fn a_toleration_covers_a_taint_by_key_operator_value_and_effect() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: "NoSchedule".into(),
        };
        let table = [
            (toleration("k", "", "v", "NoSchedule"), true),
            (toleration("k", "Equal", "v", ""), true),
            (toleration("k", "Equal", "w", ""), false),
            (toleration("k", "Exists", "", ""), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("j", "Exists", "", ""), false),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("k", "Sometimes", "v", ""), false),
        ];
        for (one, expected) in table {
            assert_eq!(tolerates(&one, &taint), expected, "{one:?}");
        }
    }

    #[test]
    fn soft_taints_do_not_keep_out_but_cost_score() {
        let soft = |n: usize| {
            (0..n)
                .map(|i| json!({"key": format!("k{i}"), "effect": "PreferNoSchedule"}))
                .collect::<Vec<_>>()
        };
        let nodes = (0..3)
            .map(|n| {
                node_from(
                    json!({"metadata": {"name": format!("n{n}")}, "spec": {"taints": soft(n)}}),
                )
            })
            .collect();
        let snapshot = snapshot(nodes);
        let pod = pod_from(
            "p",
            json!({"tolerations": [{"key": "k1", "operator": "Exists", "effect": "NoSchedule"}]}),
        );
        let cycle = Cycle {
            snapshot: &snapshot,
            pod: &pod,
        };
        assert!((0..3).all(|node| TaintToleration.filter(&cycle, node).is_none()));
        let mut scores: Vec<i64> = (0..3)
            .map(|node| TaintToleration.score(&cycle, node))
            .collect();
        assert_eq!(scores, [0, 1, 2]);
        TaintToleration.normalize(&mut scores);
        assert_eq!(scores, [100, 50, 0]);
    }
}
