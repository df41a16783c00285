//! NodePorts: two pods cannot hold one host port. Mirrors plugins/nodeports.

use std::collections::BTreeSet;

use crate::scheduler::framework::Rejection;
use crate::scheduler::pod::{HostPort, Shape};

/// `held` are the ports that pods on the node hold.
pub fn filter(shape: &Shape, held: &BTreeSet<HostPort>) -> Option<Rejection> {
    (!fits(shape, held)).then(|| {
        Rejection::unschedulable("node(s) didn't have free ports for the requested pod ports")
    })
}

pub fn fits(shape: &Shape, held: &BTreeSet<HostPort>) -> bool {
    shape
        .host_ports
        .iter()
        .all(|wanted| !held.iter().any(|one| wanted.conflicts(one)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::pod_from;
    use serde_json::{Value, json};

    #[test]
    fn ports_conflict_by_protocol_port_and_overlapping_address() {
        let ports = |port: &Value| {
            pod_from("p", json!({"containers": [{"name": "c", "ports": [port]}]})).shape
        };
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
        for (held, wanted, expected) in table {
            let held_ports = ports(&held).host_ports.iter().cloned().collect();
            assert_eq!(
                fits(&ports(&wanted), &held_ports),
                expected,
                "{held} {wanted}"
            );
        }
    }
}
