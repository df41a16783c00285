//! NodeResourcesBalancedAllocation: prefer nodes that the pod leaves with their resources used to the same degree.
//! Mirrors plugins/noderesources/balanced_allocation.go of v1.37.

use crate::scheduler::pod::Shape;
use crate::scheduler::requests::is_scalar;
use crate::scheduler::snapshot::Seat;

/// Return whether the pod changes any balance: one that asks for none of the resources does not.
pub fn scores(resources: &[String], shape: &Shape) -> bool {
    resources.iter().any(|name| asked(shape, name) != 0)
}

fn asked(shape: &Shape, name: &str) -> i64 {
    let requests = &shape.requests;
    match name {
        "cpu" => requests.held.milli_cpu,
        "memory" => requests.held.memory,
        "ephemeral-storage" => requests.held.ephemeral_storage,
        name => requests.held_scalars.get(name).copied().unwrap_or(0),
    }
}

/// Half for what the pod leaves behind against what was there before, 50 being no change.
pub fn score(resources: &[String], shape: &Shape, seat: &Seat) -> i64 {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for name in resources {
        let pod = asked(shape, name);
        if pod == 0 && is_scalar(name) {
            continue;
        }
        let (used, total) = match name.as_str() {
            "cpu" => (seat.requested.milli_cpu, seat.node.allocatable.milli_cpu),
            "memory" => (seat.requested.memory, seat.node.allocatable.memory),
            "ephemeral-storage" => (
                seat.requested.ephemeral_storage,
                seat.node.allocatable.ephemeral_storage,
            ),
            name => {
                let read = |list: &crate::scheduler::requests::Scalars| {
                    list.get(name).copied().unwrap_or(0)
                };
                (read(&seat.scalars), read(&seat.node.scalars))
            }
        };
        if total != 0 {
            before.push(share(used, total));
            after.push(share(used + pod, total));
        }
    }
    50 + (50 + balance(&after) - balance(&before)) / 2
}

fn share(used: i64, total: i64) -> f64 {
    (used as f64 / total as f64).min(1.0)
}

/// Return 100 when all are used to the same share, less the further the shares lie apart.
fn balance(shares: &[f64]) -> i64 {
    let deviation = match shares {
        [] | [_] => 0.0,
        [one, other] => ((one - other) / 2.0).abs(),
        more => {
            let mean = more.iter().sum::<f64>() / more.len() as f64;
            let spread: f64 = more
                .iter()
                .map(|share| (share - mean) * (share - mean))
                .sum();
            (spread / more.len() as f64).sqrt()
        }
    };
    ((1.0 - deviation) * 100.0) as i64
}

/// Return the balance of two resources, each (used, total); one with a total of zero does not count.
pub fn balance_of_two(cpu: (i64, i64), memory: (i64, i64)) -> i64 {
    if cpu.1 == 0 || memory.1 == 0 {
        return 100;
    }
    balance(&[share(cpu.0, cpu.1), share(memory.0, memory.1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, seat_with};
    use serde_json::json;

    fn two() -> Vec<String> {
        vec!["cpu".into(), "memory".into()]
    }

    #[test]
    fn a_pod_that_evens_out_the_node_scores_above_one_that_tilts_it() {
        let node = node_from(
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "10", "memory": "1000", "pods": "9"}}}),
        );
        let asking = |cpu: &str, memory: &str| {
            pod_from(
                "p",
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
            )
        };
        let seat = seat_with(node, &[asking("5", "0")]);
        // Before: |0.5 - 0| / 2 = 0.25, balance 75.
        for (cpu, memory, expected) in [
            ("0", "500", 50 + (50 + 25) / 2),
            ("5", "0", 50 + (50 - 25) / 2),
            ("1", "100", 75),
        ] {
            assert_eq!(
                score(&two(), &asking(cpu, memory).shape, &seat),
                expected,
                "{cpu} {memory}"
            );
        }
    }

    #[test]
    fn more_than_two_resources_go_by_their_standard_deviation() {
        assert_eq!(balance(&[0.0, 0.5, 1.0]), 59);
        assert_eq!(balance(&[0.7]), 100);
    }

    #[test]
    fn a_pod_without_requests_is_skipped() {
        assert!(!scores(
            &two(),
            &pod_from("p", json!({"containers": [{"name": "c"}]})).shape
        ));
    }
}
