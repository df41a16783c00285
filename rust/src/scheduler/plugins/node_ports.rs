//! NodePorts: two pods cannot hold one host port. Mirrors plugins/nodeports.

use crate::scheduler::framework::{Cycle, Plugin, PreFilter, Rejection};

#[derive(Debug)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter(&self, cycle: &Cycle<'_>) -> PreFilter {
        if cycle.pod.host_ports.is_empty() {
            PreFilter::Skip
        } else {
            PreFilter::Every
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        let held = cycle.snapshot.host_ports.get(node)?;
        let conflict = cycle
            .pod
            .host_ports
            .iter()
            .any(|wanted| held.keys().any(|one| wanted.conflicts(one)));
        conflict.then(|| {
            Rejection::unschedulable("node(s) didn't have free ports for the requested pod ports")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod_from, snapshot};
    use serde_json::{Value, json};

    fn with_port(name: &str, port: Value) -> crate::scheduler::pod::Pod {
        pod_from(
            name,
            json!({"containers": [{"name": "c", "ports": [port]}]}),
        )
    }

    #[test]
    fn ports_conflict_by_protocol_port_and_overlapping_address() {
        let table = [
            (json!({"hostPort": 80}), json!({"hostPort": 80}), false),
            (json!({"hostPort": 80}), json!({"hostPort": 81}), true),
            (
                json!({"hostPort": 80}),
                json!({"hostPort": 80, "protocol": "UDP"}),
                true,
            ),
            (
                json!({"hostPort": 80, "hostIP": "10.0.0.1"}),
                json!({"hostPort": 80, "hostIP": "10.0.0.2"}),
                true,
            ),
            (
                json!({"hostPort": 80, "hostIP": "10.0.0.1"}),
                json!({"hostPort": 80, "hostIP": "0.0.0.0"}),
                false,
            ),
            (
                json!({"containerPort": 80}),
                json!({"containerPort": 80}),
                true,
            ),
        ];
        for (held, wanted, fits) in table {
            let mut snapshot = snapshot(vec![node("n")]);
            let mut holder = with_port("holder", held.clone());
            holder.node_name = "n".into();
            snapshot.upsert_pod(holder);
            let pod = with_port("p", wanted.clone());
            let found = NodePorts.filter(
                &Cycle {
                    snapshot: &snapshot,
                    pod: &pod,
                },
                0,
            );
            assert_eq!(found.is_none(), fits, "{held} {wanted}");
        }
    }
}
