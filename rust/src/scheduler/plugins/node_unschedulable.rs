//! NodeUnschedulable: a cordoned node takes only pods that tolerate it. Mirrors plugins/nodeunschedulable.

use super::taint_toleration::tolerates;
use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::Shape;
use crate::scheduler::wire::Taint;

pub fn filter(shape: &Shape, node: &Node) -> Option<Rejection> {
    if !node.is_unschedulable {
        return None;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    let tolerated = shape.tolerations.iter().any(|one| tolerates(one, &taint));
    (!tolerated).then(|| Rejection::unresolvable("node(s) were unschedulable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from};
    use serde_json::json;

    #[test]
    fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
        let node = node_from(json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}));
        let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]});
        for (spec, fits) in [
            (json!({}), false),
            (tolerant, true),
            (json!({"tolerations": [{"operator": "Exists"}]}), true),
        ] {
            let pod = pod_from("p", spec.clone());
            assert_eq!(filter(&pod.shape, &node).is_none(), fits, "{spec}");
        }
    }
}
