//! TaintToleration: NoSchedule and NoExecute taints keep out pods that do not tolerate them; PreferNoSchedule taints count
//! against a node. Mirrors plugins/tainttoleration.

use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::Shape;
use crate::scheduler::wire::{Taint, Toleration};

pub fn filter(shape: &Shape, node: &Node) -> Option<Rejection> {
    (!is_tolerated(shape, node))
        .then(|| Rejection::unresolvable("node(s) had untolerated taint(s)"))
}

/// Return whether the pod tolerates every taint that keeps pods out.
pub fn is_tolerated(shape: &Shape, node: &Node) -> bool {
    let keeps_out = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let tolerated = |taint: &Taint| shape.tolerations.iter().any(|one| tolerates(one, taint));
    node.taints.iter().filter(keeps_out).all(tolerated)
}

/// Return how many taints that would rather keep pods out the pod does not tolerate.
pub fn score(shape: &Shape, node: &Node) -> i64 {
    let softly = |one: &&Toleration| one.effect.is_empty() || one.effect == "PreferNoSchedule";
    let tolerated = |taint: &Taint| {
        let mut soft = shape.tolerations.iter().filter(softly);
        soft.any(|one| tolerates(one, taint))
    };
    let against = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(taint));
    i64::try_from(against.count()).unwrap_or(i64::MAX)
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
    use crate::scheduler::fixtures::{node_from, pod_from};
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
        let soft: Vec<_> = (0..2)
            .map(|i| json!({"key": format!("k{i}"), "effect": "PreferNoSchedule"}))
            .collect();
        let node = node_from(json!({"metadata": {"name": "n"}, "spec": {"taints": soft}}));
        let pod = |toleration| pod_from("p", json!({"tolerations": [toleration]}));
        let hard = json!({"key": "k1", "operator": "Exists", "effect": "NoSchedule"});
        let any = json!({"key": "k1", "operator": "Exists"});
        assert!(filter(&pod(hard.clone()).shape, &node).is_none());
        assert_eq!([hard, any].map(|one| score(&pod(one).shape, &node)), [2, 1]);
    }
}
