//! NodeName: a pod that names its node fits nowhere else. Mirrors plugins/nodename.

use crate::scheduler::framework::{Cycle, Plugin, PreFilter, Rejection};

#[derive(Debug)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn pre_filter(&self, cycle: &Cycle<'_>) -> PreFilter {
        if cycle.pod.node_name.is_empty() {
            PreFilter::Skip
        } else {
            PreFilter::Every
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        let fits = cycle
            .snapshot
            .node(node)
            .is_some_and(|node| node.name == cycle.pod.node_name);
        (!fits).then(|| Rejection::unresolvable("node(s) didn't match the requested node name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod_from, snapshot};
    use serde_json::json;

    #[test]
    fn only_the_named_node_fits() {
        let snapshot = snapshot(vec![node("n1"), node("n2")]);
        let pod = pod_from("p", json!({"nodeName": "n2"}));
        let cycle = Cycle {
            snapshot: &snapshot,
            pod: &pod,
        };
        assert!(NodeName.filter(&cycle, 0).is_some());
        assert!(NodeName.filter(&cycle, 1).is_none());
    }
}
