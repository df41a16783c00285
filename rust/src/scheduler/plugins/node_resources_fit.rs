//! NodeResourcesFit: the node must have what the pod asks for; how well it fits is scored by a strategy, by default the emptier the
//! better. Mirrors plugins/noderesources: fit.go, least_allocated.go, most_allocated.go, requested_to_capacity_ratio.go.

use std::borrow::Cow;

use crate::scheduler::framework::{Code, MAX_NODE_SCORE, Rejection};
use crate::scheduler::pod::Shape;
use crate::scheduler::profile::{FitArgs, Strategy};
use crate::scheduler::requests::{is_extended, is_scalar};
use crate::scheduler::snapshot::Seat;

/// Name every resource that is short. What exceeds the whole node cannot be helped by removing pods.
pub fn filter(args: &FitArgs, shape: &Shape, seat: &Seat) -> Option<Rejection> {
    let (total, used, wanted) = (
        &seat.node.allocatable,
        &seat.requested,
        &shape.requests.wanted,
    );
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
    for (name, wanted) in &shape.requests.wanted_scalars {
        let (total, used) = scalar(seat, name);
        if *wanted > total - used && !is_ignored(args, name) {
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

/// Return what `filter` says, without the reasons.
pub fn fits(args: &FitArgs, shape: &Shape, seat: &Seat) -> bool {
    let wanted = &shape.requests.wanted;
    seat.requested
        .leaves_room_for(wanted, &seat.node.allocatable)
        && fits_scalars(args, shape, seat)
}

pub fn fits_scalars(args: &FitArgs, shape: &Shape, seat: &Seat) -> bool {
    shape.requests.wanted_scalars.iter().all(|(name, wanted)| {
        let (total, used) = scalar(seat, name);
        *wanted <= total - used || is_ignored(args, name)
    })
}

fn scalar(seat: &Seat, name: &str) -> (i64, i64) {
    let read = |list: &crate::scheduler::requests::Scalars| list.get(name).copied().unwrap_or(0);
    (read(&seat.node.scalars), read(&seat.scalars))
}

/// Return whether the profile says not to look at the resource.
pub fn is_ignored(args: &FitArgs, name: &str) -> bool {
    if args.ignored_resources.is_empty() && args.ignored_groups.is_empty() {
        return false;
    }
    let group = name.split('/').next().unwrap_or("");
    is_extended(name)
        && (args.ignored_resources.contains(name) || args.ignored_groups.contains(group))
}

pub fn score(args: &FitArgs, shape: &Shape, seat: &Seat) -> i64 {
    let (total, used, asked) = (&seat.node.allocatable, &seat.requested, &shape.requests);
    let (mut sum, mut weights) = (0, 0);
    for (name, weight) in &args.resources {
        let (pod, used, total) = match name.as_str() {
            "cpu" => (asked.scored.0, seat.nonzero.0, total.milli_cpu),
            "memory" => (asked.scored.1, seat.nonzero.1, total.memory),
            "ephemeral-storage" => (
                asked.scored.2,
                used.ephemeral_storage,
                total.ephemeral_storage,
            ),
            name => {
                let pod = asked.scored_scalars.get(name).copied().unwrap_or(0);
                if pod == 0 && is_scalar(name) {
                    continue;
                }
                let (total, used) = scalar(seat, name);
                (pod, used, total)
            }
        };
        if total == 0 {
            continue;
        }
        let score = score_one(&args.strategy, used + pod, total);
        if score > 0 || !matches!(args.strategy, Strategy::RequestedToCapacityRatio(_)) {
            sum += score * weight;
            weights += weight;
        }
    }
    match (weights, &args.strategy) {
        (0, _) => 0,
        (weights, Strategy::RequestedToCapacityRatio(_)) => {
            (sum as f64 / weights as f64).round() as i64
        }
        (weights, _) => sum / weights,
    }
}

/// Return the score of one resource of which so much would be requested.
fn score_one(strategy: &Strategy, requested: i64, total: i64) -> i64 {
    let share =
        |part: i64| (i128::from(part) * i128::from(MAX_NODE_SCORE) / i128::from(total)) as i64;
    match strategy {
        Strategy::LeastAllocated if requested > total => 0,
        Strategy::LeastAllocated => share(total - requested),
        Strategy::MostAllocated => share(requested.min(total)),
        Strategy::RequestedToCapacityRatio(points) => {
            let utilization = if requested > total {
                MAX_NODE_SCORE
            } else {
                share(requested)
            };
            interpolate(points, utilization)
        }
    }
}

/// Read a broken line at a point. Mirrors helper.BuildBrokenLinearFunction.
pub fn interpolate(points: &[(i64, i64)], at: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for &(utilization, score) in points {
        if at <= utilization {
            return before.map_or(score, |(start, from)| {
                from + (score - from) * (at - start) / (utilization - start)
            });
        }
        before = Some((utilization, score));
    }
    before.map_or(0, |(_, score)| score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_from, pod_from, seat_with};
    use serde_json::{Value, json};

    fn wants(requests: &Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    }

    fn seat() -> Seat {
        let node = node_from(json!({
            "metadata": {"name": "n"},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "2", "example.com/gpu": "2"}},
        }));
        seat_with(
            node,
            &[pod_from(
                "holder",
                wants(&json!({"cpu": "1", "memory": "512Mi", "example.com/gpu": "1"})),
            )],
        )
    }

    #[test]
    fn every_short_resource_is_named_and_what_exceeds_the_node_is_unresolvable() {
        let table: [(Value, &[&str], bool); 7] = [
            (json!({"cpu": "1", "memory": "512Mi"}), &[], false),
            (json!({}), &[], false),
            (json!({"cpu": "1001m"}), &["Insufficient cpu"], false),
            (
                json!({"cpu": "1500m", "memory": "2Gi"}),
                &["Insufficient cpu", "Insufficient memory"],
                true,
            ),
            (
                json!({"ephemeral-storage": "2Gi"}),
                &["Insufficient ephemeral-storage"],
                true,
            ),
            (
                json!({"example.com/gpu": "2"}),
                &["Insufficient example.com/gpu"],
                false,
            ),
            (
                json!({"example.com/fpga": "1"}),
                &["Insufficient example.com/fpga"],
                true,
            ),
        ];
        for (requests, reasons, is_beyond) in table {
            let shape = pod_from("p", wants(&requests)).shape;
            let found = filter(&FitArgs::default(), &shape, &seat());
            assert_eq!(found.is_none(), fits(&FitArgs::default(), &shape, &seat()));
            assert_eq!(
                found
                    .as_ref()
                    .is_some_and(|why| why.code == Code::UnschedulableAndUnresolvable),
                is_beyond,
                "{requests}"
            );
            assert_eq!(
                found.map_or(vec![], |why| why.reasons),
                reasons,
                "{requests}"
            );
        }
    }

    #[test]
    fn ignored_resources_are_not_looked_at() {
        let shape = pod_from(
            "p",
            wants(&json!({"example.com/fpga": "1", "other.io/x": "1"})),
        )
        .shape;
        let ignoring = |resources: &[&str], groups: &[&str]| FitArgs {
            ignored_resources: resources.iter().map(ToString::to_string).collect(),
            ignored_groups: groups.iter().map(ToString::to_string).collect(),
            ..FitArgs::default()
        };
        assert!(fits(
            &ignoring(&["example.com/fpga"], &["other.io"]),
            &shape,
            &seat()
        ));
        assert!(!fits(
            &ignoring(&["example.com/fpga"], &[]),
            &shape,
            &seat()
        ));
    }

    #[test]
    fn a_full_node_says_too_many_pods() {
        let node = node_from(
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "0"}}}),
        );
        let shape = pod_from("p", wants(&json!({"cpu": "1"}))).shape;
        assert_eq!(
            filter(&FitArgs::default(), &shape, &seat_with(node, &[])),
            Some(Rejection::unschedulable("Too many pods"))
        );
    }

    #[test]
    fn each_strategy_scores_as_documented() {
        let ratio = Strategy::RequestedToCapacityRatio(vec![(0, 0), (40, 80), (100, 100)]);
        let table = [
            (Strategy::LeastAllocated, 1000, 4000, 75),
            (Strategy::LeastAllocated, 4001, 4000, 0),
            (Strategy::LeastAllocated, 1, 3, 66),
            (Strategy::MostAllocated, 1, 3, 33),
            (Strategy::MostAllocated, 5, 4, 100),
            (ratio.clone(), 20, 100, 40),
            (ratio.clone(), 55, 100, 85),
            (ratio, 101, 100, 100),
        ];
        for (strategy, requested, total, expected) in table {
            assert_eq!(
                score_one(&strategy, requested, total),
                expected,
                "{strategy:?} {requested}/{total}"
            );
        }
    }

    #[test]
    fn weights_and_named_resources_enter_the_mean() {
        let args = |name: &str| FitArgs {
            resources: vec![("cpu".into(), 3), (name.into(), 1)],
            ..FitArgs::default()
        };
        let shape = pod_from("p", wants(&json!({"cpu": "500m", "example.com/gpu": "1"}))).shape;
        // CPU: 25 % stay free. GPU: nothing.
        assert_eq!(score(&args("example.com/gpu"), &shape, &seat()), 75 / 4);
        // The node has not got it, so that CPU counts alone.
        assert_eq!(score(&args("example.com/fpga"), &shape, &seat()), 25);
    }
}
