//! NodeUnschedulable: a cordoned node takes only pods that tolerate it. Mirrors plugins/nodeunschedulable.

use super::taint_toleration::tolerates;
use crate::scheduler::framework::{Cycle, Plugin, PreFilter, Rejection};
use crate::scheduler::wire::Taint;

#[derive(Debug)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn pre_filter(&self, cycle: &Cycle<'_>) -> PreFilter {
        if cycle.snapshot.has_unschedulable() {
            PreFilter::Every
        } else {
            PreFilter::Skip
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        if !cycle.snapshot.node(node)?.is_unschedulable {
            return None;
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: String::new(),
            effect: "NoSchedule".into(),
        };
        let tolerated = cycle
            .pod
            .tolerations
            .iter()
            .any(|toleration| tolerates(toleration, &taint));
        (!tolerated).then(|| Rejection::unresolvable("node(s) were unschedulable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, snapshot};
    use serde_json::json;

    #[test]
    fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
        let snapshot = snapshot(vec![node_from(
            json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}),
        )]);
        let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]});
        for (spec, fits) in [
            (json!({}), false),
            (tolerant, true),
            (json!({"tolerations": [{"operator": "Exists"}]}), true),
        ] {
            let pod = pod_from("p", spec.clone());
            let found = NodeUnschedulable.filter(
                &Cycle {
                    snapshot: &snapshot,
                    pod: &pod,
                },
                0,
            );
            assert_eq!(found.is_none(), fits, "{spec}");
        }
    }
}
