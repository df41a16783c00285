//! NodeDeclaredFeatures: a pod that uses a feature goes where the node says it has it. Mirrors plugins/nodedeclaredfeatures and the
//! inference of component-helpers' nodedeclaredfeatures for pods that are yet to be scheduled.

use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::Shape;
use crate::scheduler::wire;

/// Return the features that a node must declare to run the pod.
pub fn needed(spec: &wire::PodSpec) -> Vec<&'static str> {
    let containers = || spec.containers.iter().chain(&spec.init_containers);
    let mut needed = Vec::new();
    if containers()
        .flat_map(|one| &one.restart_policy_rules)
        .any(|rule| rule.action == "RestartAllContainers")
    {
        needed.push("RestartAllContainersOnContainerExits");
    }
    if spec.host_network && spec.host_users == Some(false) {
        needed.push("UserNamespacesHostNetworkSupport");
    }
    if containers()
        .flat_map(|one| &one.volume_mounts)
        .any(|mount| !mount.bind_mount_options.is_empty())
    {
        needed.push("VolumeBindMountOptions");
    }
    needed
}

pub fn filter(shape: &Shape, node: &Node) -> Option<Rejection> {
    let has = |feature: &&str| node.declared_features.contains(*feature);
    (!shape.needed_features.iter().all(has))
        .then(|| Rejection::unresolvable("node(s) didn't match Pod's required features"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from};
    use serde_json::json;

    #[test]
    fn a_pod_goes_where_its_features_are() {
        let declares = |features: &[&str]| {
            node_from(
                json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "9"}, "declaredFeatures": features}}),
            )
        };
        let table = [
            (json!({}), true, true),
            (
                json!({"hostNetwork": true, "hostUsers": false}),
                false,
                true,
            ),
            (json!({"hostNetwork": true, "hostUsers": true}), true, true),
            (
                json!({"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]}),
                false,
                false,
            ),
        ];
        for (spec, on_plain, on_other) in table {
            let shape = pod_from("p", spec.clone()).shape;
            let fits = |node: &Node| filter(&shape, node).is_none();
            assert_eq!(
                (
                    fits(&declares(&[])),
                    fits(&declares(&["UserNamespacesHostNetworkSupport"]))
                ),
                (on_plain, on_other),
                "{spec}"
            );
        }
    }
}
