//! NodeResourcesBalancedAllocation: prefer nodes that the pod leaves with CPU and memory used to the same degree.
//! Mirrors plugins/noderesources/balanced_allocation.go of v1.37.

use crate::scheduler::framework::{Cycle, Plugin};
use crate::scheduler::pod::Amounts;

#[derive(Debug)]
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    /// A pod that asks for neither CPU nor memory changes no balance.
    fn pre_score(&self, cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        cycle.pod.requests.milli_cpu > 0 || cycle.pod.requests.memory > 0
    }

    /// Half for what the pod leaves behind against what was there before, 50 being no change.
    fn score(&self, cycle: &Cycle<'_>, node: usize) -> i64 {
        let snapshot = cycle.snapshot;
        let (Some(total), Some(used)) =
            (snapshot.allocatable.get(node), snapshot.requested.get(node))
        else {
            return 0;
        };
        let mut after = *used;
        after.add(cycle.pod.requests);
        50 + (50 + balance(&after, total) - balance(used, total)) / 2
    }
}

/// Return 100 when both resources are used to the same share, less the further the shares lie apart.
fn balance(used: &Amounts, total: &Amounts) -> i64 {
    let share = |used: i64, total: i64| (total != 0).then(|| (used as f64 / total as f64).min(1.0));
    let deviation = match (
        share(used.milli_cpu, total.milli_cpu),
        share(used.memory, total.memory),
    ) {
        (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * 100.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, snapshot};
    use serde_json::json;

    #[test]
    fn a_pod_that_evens_out_the_node_scores_above_one_that_tilts_it() {
        let mut snapshot = snapshot(vec![node_from(
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "10", "memory": "1000", "pods": "9"}}}),
        )]);
        let mut holder = pod_from(
            "h",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "5"}}}]}),
        );
        holder.node_name = "n".into();
        snapshot.upsert_pod(holder);
        // Before: |0.5 - 0| / 2 = 0.25, balance 75.
        for (cpu, memory, expected) in [
            ("0", "500", 50 + (50 + 25) / 2),
            ("5", "0", 50 + (50 - 25) / 2),
            ("1", "100", 75),
        ] {
            let pod = pod_from(
                "p",
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
            );
            let found = NodeResourcesBalancedAllocation.score(
                &Cycle {
                    snapshot: &snapshot,
                    pod: &pod,
                },
                0,
            );
            assert_eq!(found, expected, "{cpu} {memory}");
        }
    }

    #[test]
    fn a_pod_without_requests_is_skipped() {
        let snapshot = snapshot(vec![]);
        let pod = pod_from("p", json!({"containers": [{"name": "c"}]}));
        assert!(!NodeResourcesBalancedAllocation.pre_score(
            &Cycle {
                snapshot: &snapshot,
                pod: &pod
            },
            &[]
        ));
    }
}
