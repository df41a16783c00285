//! NodeAffinity: node selector, required terms, and preferred terms as score; a profile can add terms of its own.
//! Mirrors plugins/nodeaffinity.

use std::collections::BTreeSet;

use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::{Preference, Shape};
use crate::scheduler::profile::Profile;
use crate::scheduler::selector::Term;

/// What the terms say before any node is looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    Every,
    /// Every term names its nodes: nothing else needs to be looked at, which is what makes daemon pods cheap.
    Only(BTreeSet<String>),
    /// The names contradict each other.
    Conflict,
}

pub fn named(shape: &Shape) -> Named {
    let Some(terms) = shape
        .required_terms
        .as_ref()
        .filter(|terms| !terms.is_empty())
    else {
        return Named::Every;
    };
    let mut names = BTreeSet::new();
    for term in terms {
        match term.names() {
            Some(these) => names.extend(these),
            None => return Named::Every,
        }
    }
    if names.is_empty() {
        Named::Conflict
    } else {
        Named::Only(names)
    }
}

pub fn conflict() -> Rejection {
    Rejection::unresolvable("pod affinity terms conflict")
}

pub fn filter(profile: &Profile, shape: &Shape, node: &Node) -> Option<Rejection> {
    if profile
        .added_required
        .as_ref()
        .is_some_and(|terms| !matches_any(terms, node))
    {
        return Some(Rejection::unresolvable(
            "node(s) didn't match scheduler-enforced node affinity",
        ));
    }
    (!matches_required(shape, node))
        .then(|| Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
}

/// Return whether the node is one that the pod itself asks for.
pub fn matches_required(shape: &Shape, node: &Node) -> bool {
    let selected = shape
        .node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    selected
        && shape
            .required_terms
            .as_ref()
            .is_none_or(|terms| matches_any(terms, node))
}

fn matches_any(terms: &[Term], node: &Node) -> bool {
    terms
        .iter()
        .any(|term| term.matches(&node.name, &node.labels))
}

/// Return whether there is anything to score by.
pub fn scores(profile: &Profile, shape: &Shape) -> bool {
    !shape.preferences.is_empty() || !profile.added_preferences.is_empty()
}

pub fn score(profile: &Profile, shape: &Shape, node: &Node) -> i64 {
    let matching = |one: &&Preference| one.term.matches(&node.name, &node.labels);
    profile
        .added_preferences
        .iter()
        .chain(&shape.preferences)
        .filter(matching)
        .map(|one| one.weight)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_in_zone, pod_from};
    use serde_json::{Value, json};

    const ZONE: &str = "topology.kubernetes.io/zone";

    fn in_zone(zones: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": zones}]})
    }

    fn by_name(names: &[&str]) -> Value {
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]})
    }

    fn required(terms: Vec<Value>) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn nodes() -> Vec<Node> {
        [("a", "za"), ("b", "zb"), ("c", "zc")]
            .map(|(name, zone)| node_in_zone(name, zone))
            .to_vec()
    }

    #[test]
    fn selector_and_terms_are_anded_and_terms_among_themselves_ored() {
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
            (required(vec![by_name(&["b"])]), vec!["b"]),
            (required(vec![by_name(&["b", "c"])]), vec![]),
        ];
        for (spec, expected) in table {
            let shape = pod_from("p", spec.clone()).shape;
            let nodes = nodes();
            let fitting = nodes
                .iter()
                .filter(|node| filter(&Profile::default(), &shape, node).is_none());
            assert_eq!(
                fitting.map(|node| node.name.as_str()).collect::<Vec<_>>(),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn terms_that_all_name_nodes_narrow_the_search_and_conflicting_names_end_it() {
        let answer = |terms: Vec<Value>| named(&pod_from("p", required(terms)).shape);
        assert_eq!(
            answer(vec![by_name(&["a"]), by_name(&["b"])]),
            Named::Only(["a".into(), "b".into()].into())
        );
        assert_eq!(answer(vec![by_name(&["a"]), in_zone(&["z"])]), Named::Every);
        let conflict = json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]}, {"key": "metadata.name", "operator": "In", "values": ["b"]}]});
        assert_eq!(answer(vec![conflict]), Named::Conflict);
    }

    #[test]
    fn preferred_terms_add_their_weights_to_those_of_the_profile() {
        let preferred = json!([
            {"weight": 10, "preference": in_zone(&["za", "zb"])}, {"weight": 30, "preference": in_zone(&["zb"])}, {"weight": 50, "preference": {}}]);
        let shape = pod_from("p", json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}})).shape;
        let mut profile = Profile::default();
        assert_eq!(
            nodes()
                .iter()
                .map(|node| score(&profile, &shape, node))
                .collect::<Vec<_>>(),
            [10, 40, 0]
        );
        profile.added_preferences = vec![Preference {
            weight: 5,
            ..shape.preferences[0].clone()
        }];
        assert_eq!(
            nodes()
                .iter()
                .map(|node| score(&profile, &shape, node))
                .collect::<Vec<_>>(),
            [15, 45, 0]
        );
    }

    #[test]
    fn a_profile_can_enforce_terms() {
        let profile = Profile {
            added_required: pod_from("p", required(vec![in_zone(&["zc"])]))
                .shape
                .required_terms
                .clone(),
            ..Profile::default()
        };
        let why = filter(&profile, &Shape::default(), &nodes()[0]).unwrap();
        assert_eq!(
            why.reasons,
            ["node(s) didn't match scheduler-enforced node affinity"]
        );
        assert!(filter(&profile, &Shape::default(), &nodes()[2]).is_none());
    }
}
