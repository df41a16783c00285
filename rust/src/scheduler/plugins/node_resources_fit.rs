//! NodeResourcesFit: the node must have what the pod asks for; the emptier the node, the better (LeastAllocated over CPU and
//! memory, weight 1 each). Mirrors plugins/noderesources/fit.go and least_allocated.go.

use std::borrow::Cow;

use crate::scheduler::framework::{Code, Cycle, MAX_NODE_SCORE, Plugin, PreFilter, Rejection};

#[derive(Debug)]
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn pre_filter(&self, _cycle: &Cycle<'_>) -> PreFilter {
        PreFilter::Every
    }

    /// Name every resource that is short. What exceeds the whole node cannot be helped by removing pods.
    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        let snapshot = cycle.snapshot;
        let (total, used) = (
            snapshot.allocatable.get(node)?,
            snapshot.requested.get(node)?,
        );
        let wanted = &cycle.pod.requests;
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut beyond_node = false;
        if used.pods + 1 > total.pods {
            reasons.push(Cow::Borrowed("Too many pods"));
        }
        let core = [
            (
                wanted.milli_cpu,
                used.milli_cpu,
                total.milli_cpu,
                "Insufficient cpu",
            ),
            (
                wanted.memory,
                used.memory,
                total.memory,
                "Insufficient memory",
            ),
            (
                wanted.ephemeral_storage,
                used.ephemeral_storage,
                total.ephemeral_storage,
                "Insufficient ephemeral-storage",
            ),
        ];
        for (wanted, used, total, reason) in core {
            if wanted > 0 && wanted > total - used {
                reasons.push(Cow::Borrowed(reason));
                beyond_node |= wanted > total;
            }
        }
        for (name, wanted) in &cycle.pod.extended {
            let total = snapshot
                .node(node)
                .and_then(|node| node.extended.get(name))
                .copied()
                .unwrap_or(0);
            let used = snapshot
                .extended_requested
                .get(node)
                .and_then(|used| used.get(name))
                .copied()
                .unwrap_or(0);
            if *wanted > total - used {
                reasons.push(Cow::Owned(format!("Insufficient {name}")));
                beyond_node |= *wanted > total;
            }
        }
        if reasons.is_empty() {
            return None;
        }
        let code = if beyond_node {
            Code::UnschedulableAndUnresolvable
        } else {
            Code::Unschedulable
        };
        Some(Rejection { code, reasons })
    }

    fn pre_score(&self, _cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        true
    }

    fn score(&self, cycle: &Cycle<'_>, node: usize) -> i64 {
        let snapshot = cycle.snapshot;
        let (Some(total), Some(used)) =
            (snapshot.allocatable.get(node), snapshot.nonzero.get(node))
        else {
            return 0;
        };
        let wanted = &cycle.pod.nonzero;
        least_allocated([
            (used.milli_cpu + wanted.milli_cpu, total.milli_cpu),
            (used.memory + wanted.memory, total.memory),
        ])
    }
}

/// Return the mean share that stays free, in 0..=100; resources that the node does not have do not count.
fn least_allocated(resources: [(i64, i64); 2]) -> i64 {
    let (mut sum, mut count) = (0, 0);
    for (requested, total) in resources {
        if total == 0 {
            continue;
        }
        count += 1;
        if requested <= total {
            sum += (i128::from(total - requested) * i128::from(MAX_NODE_SCORE) / i128::from(total))
                as i64;
        }
    }
    if count == 0 { 0 } else { sum / count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, snapshot};
    use serde_json::{Value, json};

    fn wants(requests: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    }

    fn filter(requests: Value) -> Option<(Vec<String>, bool)> {
        let mut snapshot = snapshot(vec![node_from(json!({
            "metadata": {"name": "n"},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "2", "example.com/gpu": "2"}},
        }))]);
        let mut holder = pod_from(
            "holder",
            wants(json!({"cpu": "1", "memory": "512Mi", "example.com/gpu": "1"})),
        );
        holder.node_name = "n".into();
        snapshot.upsert_pod(holder);
        let pod = pod_from("p", wants(requests));
        let found = NodeResourcesFit.filter(
            &Cycle {
                snapshot: &snapshot,
                pod: &pod,
            },
            0,
        )?;
        Some((
            found.reasons.iter().map(ToString::to_string).collect(),
            found.code == Code::UnschedulableAndUnresolvable,
        ))
    }

    #[test]
    fn every_short_resource_is_named_and_what_exceeds_the_node_is_unresolvable() {
        let table = [
            (json!({"cpu": "1", "memory": "512Mi"}), None),
            (json!({}), None),
            (
                json!({"cpu": "1001m"}),
                Some((vec!["Insufficient cpu"], false)),
            ),
            (
                json!({"cpu": "1500m", "memory": "2Gi"}),
                Some((vec!["Insufficient cpu", "Insufficient memory"], true)),
            ),
            (
                json!({"ephemeral-storage": "2Gi"}),
                Some((vec!["Insufficient ephemeral-storage"], true)),
            ),
            (
                json!({"example.com/gpu": "2"}),
                Some((vec!["Insufficient example.com/gpu"], false)),
            ),
            (
                json!({"example.com/fpga": "1"}),
                Some((vec!["Insufficient example.com/fpga"], true)),
            ),
        ];
        for (requests, expected) in table {
            let expected = expected
                .map(|(reasons, code)| (reasons.iter().map(ToString::to_string).collect(), code));
            assert_eq!(filter(requests.clone()), expected, "{requests}");
        }
    }

    #[test]
    fn a_full_node_says_too_many_pods() {
        let mut snapshot = snapshot(vec![node_from(
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "0"}}}),
        )]);
        let pod = pod_from("p", wants(json!({"cpu": "1"})));
        let found = NodeResourcesFit
            .filter(
                &Cycle {
                    snapshot: &snapshot,
                    pod: &pod,
                },
                0,
            )
            .unwrap();
        assert_eq!(found, Rejection::unschedulable("Too many pods"));
        snapshot.remove_node("n");
    }

    #[test]
    fn the_score_is_the_mean_free_share_after_placing_the_pod() {
        let table = [
            ([(1000, 4000), (1 << 30, 4 << 30)], 75),
            ([(4001, 4000), (0, 100)], 50),
            ([(1, 3), (0, 0)], 66),
            ([(0, 0), (0, 0)], 0),
        ];
        for (resources, expected) in table {
            assert_eq!(least_allocated(resources), expected, "{resources:?}");
        }
    }
}
