//! NodeAffinity: node selector, required terms, and preferred terms as score. Mirrors plugins/nodeaffinity.

use std::collections::BTreeSet;

use crate::scheduler::framework::{Cycle, Plugin, PreFilter, Rejection, normalize_by_max};

#[derive(Debug)]
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// When every term names its nodes, nothing else needs to be looked at: this is what makes daemon pods cheap.
    fn pre_filter(&self, cycle: &Cycle<'_>) -> PreFilter {
        let Some(terms) = &cycle.pod.required_terms else {
            return if cycle.pod.node_selector.is_empty() {
                PreFilter::Skip
            } else {
                PreFilter::Every
            };
        };
        let mut names = BTreeSet::new();
        for term in terms {
            match term.names() {
                Some(these) => names.extend(these),
                None => return PreFilter::Every,
            }
        }
        match (terms.is_empty(), names.is_empty()) {
            (true, _) => PreFilter::Every,
            (false, true) => {
                PreFilter::Reject(Rejection::unresolvable("pod affinity terms conflict"))
            }
            (false, false) => PreFilter::Only(names),
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: usize) -> Option<Rejection> {
        let node = cycle.snapshot.node(node)?;
        let selected = cycle
            .pod
            .node_selector
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value));
        let required = || {
            cycle.pod.required_terms.as_ref().is_none_or(|terms| {
                terms
                    .iter()
                    .any(|term| term.matches(&node.name, &node.labels))
            })
        };
        (!(selected && required()))
            .then(|| Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn pre_score(&self, cycle: &Cycle<'_>, _feasible: &[usize]) -> bool {
        !cycle.pod.preferences.is_empty()
    }

    fn score(&self, cycle: &Cycle<'_>, node: usize) -> i64 {
        let Some(node) = cycle.snapshot.node(node) else {
            return 0;
        };
        cycle
            .pod
            .preferences
            .iter()
            .filter(|one| one.term.matches(&node.name, &node.labels))
            .map(|one| one.weight)
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_in_zone, pod_from, snapshot};
    use serde_json::{Value, json};

    const ZONE: &str = "topology.kubernetes.io/zone";

    fn in_zone(zones: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": zones}]})
    }

    fn named(names: &[&str]) -> Value {
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]})
    }

    fn required(terms: Vec<Value>) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selector_and_terms_are_anded_and_terms_among_themselves_ored() {
        let snapshot = snapshot(vec![
            node_in_zone("a", "za"),
            node_in_zone("b", "zb"),
            node_in_zone("c", "zc"),
        ]);
        let both = {
            let mut spec = required(vec![in_zone(&["za", "zb"])]);
            spec["nodeSelector"] = json!({ZONE: "zb"});
            spec
        };
        let table = [
            (json!({"nodeSelector": {ZONE: "za"}}), vec!["a"]),
            (
                required(vec![in_zone(&["za"]), in_zone(&["zc"])]),
                vec!["a", "c"],
            ),
            (required(vec![]), vec![]),
            (required(vec![json!({})]), vec![]),
            (both, vec!["b"]),
            (required(vec![named(&["b"])]), vec!["b"]),
        ];
        for (spec, expected) in table {
            let pod = pod_from("p", spec.clone());
            let cycle = Cycle {
                snapshot: &snapshot,
                pod: &pod,
            };
            let fits = |slot: &usize| NodeAffinity.filter(&cycle, *slot).is_none();
            let found: Vec<&str> = snapshot
                .order()
                .iter()
                .copied()
                .filter(|slot| fits(slot))
                .map(|slot| snapshot.node(slot).unwrap().name.as_str())
                .collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn terms_that_all_name_nodes_narrow_the_search_and_conflicting_names_end_it() {
        let snapshot = snapshot(vec![]);
        let answer = |terms: Vec<Value>| {
            let pod = pod_from("p", required(terms));
            NodeAffinity.pre_filter(&Cycle {
                snapshot: &snapshot,
                pod: &pod,
            })
        };
        assert!(
            matches!(answer(vec![named(&["a"]), named(&["b"])]), PreFilter::Only(names) if names.len() == 2)
        );
        assert!(matches!(
            answer(vec![named(&["a"]), in_zone(&["z"])]),
            PreFilter::Every
        ));
        let conflict = json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]}, {"key": "metadata.name", "operator": "In", "values": ["b"]}]});
        assert!(
            matches!(answer(vec![conflict]), PreFilter::Reject(why) if why.reasons == ["pod affinity terms conflict"])
        );
    }

    #[test]
    fn preferred_terms_add_their_weights() {
        let snapshot = snapshot(vec![
            node_in_zone("a", "za"),
            node_in_zone("b", "zb"),
            node_in_zone("c", "zc"),
        ]);
        let preferred = json!([
            {"weight": 10, "preference": in_zone(&["za", "zb"])}, {"weight": 30, "preference": in_zone(&["zb"])}, {"weight": 50, "preference": {}}]);
        let pod = pod_from(
            "p",
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}),
        );
        let cycle = Cycle {
            snapshot: &snapshot,
            pod: &pod,
        };
        let mut scores: Vec<i64> = snapshot
            .order()
            .iter()
            .map(|slot| NodeAffinity.score(&cycle, *slot))
            .collect();
        assert_eq!(scores, [10, 40, 0]);
        NodeAffinity.normalize(&mut scores);
        assert_eq!(scores, [25, 100, 0]);
    }
}
