//! InterPodAffinity: pods that want to be, or not to be, in one domain with other pods. Mirrors plugins/interpodaffinity.
//!
//! All counts are by domain of a topology. They are made once for a class and moved by each pod that comes or goes.

use crate::scheduler::cluster::Cluster;
use crate::scheduler::framework::{MAX_NODE_SCORE, Rejection, replace_each};
use crate::scheduler::labels::{Labels, Selector};
use crate::scheduler::pod::{AffinityTerm, Shape, WeightedAffinityTerm};
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;

/// A count by domain of one topology.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    topology: usize,
    by_domain: Vec<i64>,
    /// How much was counted in all; what is on nodes without the label is not.
    total: i64,
}

/// The terms of a class and what they count.
#[derive(Debug)]
pub struct InterPod {
    namespace_labels: Labels,
    /// The class's own terms with namespace selectors turned into names.
    required: Vec<AffinityTerm>,
    required_anti: Vec<AffinityTerm>,
    preferred: Vec<WeightedAffinityTerm>,
    preferred_anti: Vec<WeightedAffinityTerm>,
    hard_weight: i64,
    ignores_others: bool,
    matches_itself: bool,
    /// Pods that match all required terms.
    wanted: Vec<Table>,
    /// Pods that match a required anti-affinity term.
    unwanted: Vec<Table>,
    /// Pods that do not want a pod of this class, by the topology of their term.
    unwelcoming: Vec<Table>,
    score: Vec<Table>,
    /// How often the word on nodes changed other than the node on which a pod came or went.
    pub turns: u64,
}

/// What one pod of another shape counts for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    is_wanted: bool,
    /// Topologies, as often as a term says so.
    unwanted: Vec<usize>,
    unwelcoming: Vec<usize>,
    /// Topology and weight.
    score: Vec<(usize, i64)>,
}

impl Matches {
    pub fn is_nothing(&self) -> bool {
        !self.is_wanted
            && self.unwanted.is_empty()
            && self.unwelcoming.is_empty()
            && self.score.is_empty()
    }
}

impl InterPod {
    /// Return the class's state with everything counted.
    pub fn new(snapshot: &Snapshot, profile: &Profile, shape: &Shape) -> InterPod {
        let cluster = &snapshot.cluster;
        let terms = &shape.inter_pod;
        let own = |all: &[AffinityTerm]| all.iter().map(|one| resolve(cluster, one)).collect();
        let weighted = |all: &[WeightedAffinityTerm]| {
            all.iter()
                .map(|one| WeightedAffinityTerm {
                    weight: one.weight,
                    term: resolve(cluster, &one.term),
                })
                .collect()
        };
        let mut state = InterPod {
            namespace_labels: cluster
                .namespaces
                .get(&shape.namespace)
                .cloned()
                .unwrap_or_default(),
            required: own(&terms.required),
            required_anti: own(&terms.required_anti),
            preferred: weighted(&terms.preferred),
            preferred_anti: weighted(&terms.preferred_anti),
            hard_weight: profile.hard_pod_affinity_weight,
            ignores_others: profile.ignores_preferred_terms_of_existing_pods
                && terms.preferred.is_empty()
                && terms.preferred_anti.is_empty(),
            matches_itself: false,
            wanted: Vec::new(),
            unwanted: Vec::new(),
            unwelcoming: Vec::new(),
            score: Vec::new(),
            turns: 0,
        };
        state.matches_itself = state.wants(shape);
        for term in &terms.required {
            if let Some(topology) = snapshot.topologies.find(&term.topology_key) {
                table(snapshot, &mut state.wanted, topology);
            }
        }
        let mut known: std::collections::HashMap<u32, Matches> = std::collections::HashMap::new();
        for (rank, seat) in snapshot.seats().iter().enumerate() {
            for (id, pods) in &seat.shapes {
                if !known.contains_key(id) {
                    let matches = snapshot
                        .shapes
                        .get(*id)
                        .map_or_else(Matches::default, |other| {
                            state.matches(snapshot, shape, other)
                        });
                    known.insert(*id, matches);
                }
                if let Some(matches) = known.get(id).filter(|matches| !matches.is_nothing()) {
                    state.apply(snapshot, matches, rank, i64::from(*pods));
                }
            }
        }
        state
    }

    fn wants(&self, other: &Shape) -> bool {
        !self.required.is_empty() && self.required.iter().all(|term| matches(term, other, None))
    }

    /// Return what a pod of the other shape counts for.
    pub fn matches(&self, snapshot: &Snapshot, shape: &Shape, other: &Shape) -> Matches {
        let find = |term: &AffinityTerm| snapshot.topologies.find(&term.topology_key);
        let welcome = Some(&self.namespace_labels);
        let mut found = Matches {
            is_wanted: self.wants(other),
            ..Matches::default()
        };
        found.unwanted = self
            .required_anti
            .iter()
            .filter(|term| matches(term, other, None))
            .filter_map(find)
            .collect();
        found.unwelcoming = other
            .inter_pod
            .required_anti
            .iter()
            .filter(|term| matches(term, shape, welcome))
            .filter_map(find)
            .collect();
        if self.ignores_others {
            return found;
        }
        let mut add =
            |terms: &[WeightedAffinityTerm], who: &Shape, labels: Option<&Labels>, sign: i64| {
                let these = terms.iter().filter(|one| matches(&one.term, who, labels));
                found
                    .score
                    .extend(these.filter_map(|one| Some((find(&one.term)?, sign * one.weight))));
            };
        add(&self.preferred, other, None, 1);
        add(&self.preferred_anti, other, None, -1);
        add(&other.inter_pod.preferred, shape, welcome, 1);
        add(&other.inter_pod.preferred_anti, shape, welcome, -1);
        if self.hard_weight > 0 {
            let these = other
                .inter_pod
                .required
                .iter()
                .filter(|term| matches(term, shape, welcome));
            found
                .score
                .extend(these.filter_map(|term| Some((find(term)?, self.hard_weight))));
        }
        found
    }

    /// Count pods that came to the node, or went when `delta` is negative.
    pub fn apply(&mut self, snapshot: &Snapshot, matches: &Matches, rank: usize, delta: i64) {
        if matches.is_wanted {
            for table in &mut self.wanted {
                let was_none = table.total == 0;
                let turned = table.add(snapshot, rank, delta);
                self.turns += u64::from(turned || was_none != (table.total == 0));
            }
        }
        for topology in &matches.unwanted {
            let table = table(snapshot, &mut self.unwanted, *topology);
            self.turns += u64::from(table.add(snapshot, rank, delta));
        }
        for topology in &matches.unwelcoming {
            let table = table(snapshot, &mut self.unwelcoming, *topology);
            self.turns += u64::from(table.add(snapshot, rank, delta));
        }
        for (topology, weight) in &matches.score {
            table(snapshot, &mut self.score, *topology).add(snapshot, rank, delta * weight);
        }
    }

    /// Return whether any node could be refused.
    pub fn filters(&self) -> bool {
        !self.required.is_empty()
            || !self.required_anti.is_empty()
            || self.unwelcoming.iter().any(|table| table.total > 0)
    }

    pub fn scores(&self) -> bool {
        !self.score.is_empty()
    }

    /// Write false for every node that a term forbids.
    pub fn mask(&self, snapshot: &Snapshot, fits: &mut [bool]) {
        let is_first = self.is_first();
        for term in &self.required {
            let table = snapshot.topologies.find(&term.topology_key).and_then(|id| {
                Some((
                    snapshot.topologies.get(id)?,
                    self.wanted.iter().find(|one| one.topology == id)?,
                ))
            });
            let Some((topology, table)) = table else {
                fits.fill(false);
                return;
            };
            for (fit, domain) in fits.iter_mut().zip(&topology.domain_of) {
                *fit &= table
                    .by_domain
                    .get(*domain as usize)
                    .is_some_and(|count| is_first || *count > 0);
            }
        }
        for table in self
            .unwanted
            .iter()
            .chain(&self.unwelcoming)
            .filter(|table| table.total != 0)
        {
            let Some(topology) = snapshot.topologies.get(table.topology) else {
                continue;
            };
            for (fit, domain) in fits.iter_mut().zip(&topology.domain_of) {
                *fit &= table
                    .by_domain
                    .get(*domain as usize)
                    .is_none_or(|count| *count <= 0);
            }
        }
    }

    /// Return whether the pod is the first of those that want to be together.
    fn is_first(&self) -> bool {
        self.matches_itself && self.wanted.iter().all(|table| table.total == 0)
    }

    pub fn filter(&self, snapshot: &Snapshot, rank: usize) -> Option<Rejection> {
        let has = |tables: &[Table]| {
            tables
                .iter()
                .any(|table| table.at(snapshot, rank).is_some_and(|count| count > 0))
        };
        let is_first = self.is_first();
        let is_satisfied = self.required.iter().all(|term| {
            let id = snapshot.topologies.find(&term.topology_key);
            let table = self.wanted.iter().find(|table| Some(table.topology) == id);
            table
                .and_then(|table| table.at(snapshot, rank))
                .is_some_and(|count| is_first || count > 0)
        });
        if !is_satisfied {
            Some(Rejection::unresolvable(
                "node(s) didn't match pod affinity rules",
            ))
        } else if has(&self.unwanted) {
            Some(Rejection::unschedulable(
                "node(s) didn't match pod anti-affinity rules",
            ))
        } else if has(&self.unwelcoming) {
            Some(Rejection::unschedulable(
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ))
        } else {
            None
        }
    }

    /// Return the raw score of each feasible node.
    pub fn score(&self, snapshot: &Snapshot, feasible: &[u32]) -> Vec<i64> {
        let mut scores = vec![0; feasible.len()];
        for table in &self.score {
            let Some(topology) = snapshot.topologies.get(table.topology) else {
                continue;
            };
            for (score, rank) in scores.iter_mut().zip(feasible) {
                let domain = topology
                    .domain_of
                    .get(*rank as usize)
                    .copied()
                    .unwrap_or(u32::MAX);
                *score += table.by_domain.get(domain as usize).copied().unwrap_or(0);
            }
        }
        scores
    }
}

/// Spread raw scores over 0..=100.
pub fn normalize(scores: &mut [i64]) {
    let (Some(least), Some(most)) = (scores.iter().copied().min(), scores.iter().copied().max())
    else {
        return;
    };
    replace_each(scores, |raw| {
        if most > least {
            (MAX_NODE_SCORE as f64 * ((raw - least) as f64 / (most - least) as f64)) as i64
        } else {
            0
        }
    });
}

impl Table {
    /// Return whether other nodes of the domain have now something where there was nothing, or the other way round.
    fn add(&mut self, snapshot: &Snapshot, rank: usize, delta: i64) -> bool {
        let Some(topology) = snapshot.topologies.get(self.topology) else {
            return false;
        };
        let domain = topology.domain(rank);
        let Some(count) = domain.and_then(|domain| self.by_domain.get_mut(domain)) else {
            return false;
        };
        let had_any = *count > 0;
        *count += delta;
        self.total += delta;
        had_any != (*count > 0) && !topology.is_by_node
    }

    fn at(&self, snapshot: &Snapshot, rank: usize) -> Option<i64> {
        let domain = snapshot.topologies.get(self.topology)?.domain(rank)?;
        self.by_domain.get(domain).copied()
    }
}

/// Return the table of this topology, made when there is none.
fn table<'a>(snapshot: &Snapshot, tables: &'a mut Vec<Table>, topology: usize) -> &'a mut Table {
    let at = tables
        .iter()
        .position(|one| one.topology == topology)
        .unwrap_or_else(|| {
            let domains = snapshot.topologies.get(topology).map_or(0, |one| one.len);
            tables.push(Table {
                topology,
                by_domain: vec![0; domains],
                total: 0,
            });
            tables.len() - 1
        });
    #[allow(
        clippy::indexing_slicing,
        reason = "the position was found or made two lines above"
    )]
    &mut tables[at]
}

/// Return whether the term is about a pod of this shape; `namespace_labels` are those of the pod's namespace.
pub fn matches(term: &AffinityTerm, pod: &Shape, namespace_labels: Option<&Labels>) -> bool {
    let none = Labels::new();
    (term.namespaces.contains(&pod.namespace)
        || term
            .namespace_selector
            .matches(namespace_labels.unwrap_or(&none)))
        && term.selector.matches(&pod.labels)
}

/// Turn a namespace selector into the names it selects now; one without requirements stays, as it selects all.
fn resolve(cluster: &Cluster, term: &AffinityTerm) -> AffinityTerm {
    let mut term = term.clone();
    if !term.namespace_selector.is_empty() {
        let selected = cluster
            .namespaces
            .iter()
            .filter(|(_, labels)| term.namespace_selector.matches(labels));
        term.namespaces
            .extend(selected.map(|(name, _)| name.clone()));
        term.namespace_selector = Selector::Nothing;
    }
    term
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_in_zone, place, pod_from_with_labels, snapshot};
    use crate::scheduler::pod::Pod;
    use serde_json::{Value, json};

    fn term(app: &str) -> Value {
        json!({"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn with(kind: &str, strength: &str, term: Value) -> Value {
        json!({"affinity": {kind: {strength: [term]}}})
    }

    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

    fn pod(name: &str, app: &str, spec: Value) -> Pod {
        pod_from_with_labels(name, json!({"app": app}), spec)
    }

    /// Nodes a0 and a1 in zone a, b0 in zone b, c0 in zone c; returns what the filter says and the raw scores.
    fn ask(
        existing: Vec<(Pod, &str)>,
        incoming: &Pod,
        namespaces: &[Value],
    ) -> (Vec<&'static str>, Vec<i64>) {
        let mut snapshot = snapshot(vec![
            node_in_zone("a0", "a"),
            node_in_zone("b0", "b"),
            node_in_zone("c0", "c"),
            node_in_zone("a1", "a"),
        ]);
        for one in namespaces {
            snapshot.cluster.upsert(one.to_string().as_bytes()).unwrap();
        }
        for (pod, node) in existing {
            place(&mut snapshot, pod, node);
        }
        snapshot.intern(&incoming.shape);
        snapshot.settle();
        let state = InterPod::new(&snapshot, &Profile::default(), &incoming.shape);
        let mut fits = vec![true; 4];
        state.mask(&snapshot, &mut fits);
        let words = (0..4).map(|rank| {
            state.filter(&snapshot, rank).map_or("", |why| {
                why.reasons[0].split(' ').next_back().map_or("", |_| {
                    if why.reasons[0].contains("existing") {
                        "existing"
                    } else if why.reasons[0].contains("anti") {
                        "anti"
                    } else {
                        "affinity"
                    }
                })
            })
        });
        let words: Vec<&'static str> = words.collect();
        assert_eq!(
            words.iter().map(|word| word.is_empty()).collect::<Vec<_>>(),
            fits
        );
        (words, state.score(&snapshot, &[0, 1, 2, 3]))
    }

    #[test]
    fn required_affinity_wants_a_matching_pod_in_the_domain() {
        let incoming = pod("p", "web", with("podAffinity", REQUIRED, term("db")));
        let (words, _) = ask(vec![(pod("d", "db", json!({})), "a0")], &incoming, &[]);
        assert_eq!(words, ["", "affinity", "affinity", ""]);
    }

    #[test]
    fn the_first_of_a_group_that_wants_itself_may_go_anywhere() {
        let incoming = pod("p", "web", with("podAffinity", REQUIRED, term("web")));
        assert_eq!(ask(vec![], &incoming, &[]).0, ["", "", "", ""]);
        assert_eq!(
            ask(vec![(pod("q", "web", json!({})), "b0")], &incoming, &[]).0,
            ["affinity", "", "affinity", "affinity"]
        );
    }

    #[test]
    fn anti_affinity_works_both_ways() {
        let shy = pod("p", "web", with("podAntiAffinity", REQUIRED, term("db")));
        assert_eq!(
            ask(vec![(pod("d", "db", json!({})), "a0")], &shy, &[]).0,
            ["anti", "", "", "anti"]
        );
        let incoming = pod("q", "db", json!({}));
        assert_eq!(
            ask(vec![(shy, "b0")], &incoming, &[]).0,
            ["", "existing", "", ""]
        );
    }

    #[test]
    fn preferences_of_both_sides_and_required_terms_of_others_are_summed() {
        let weighted =
            |weight: i64, app: &str| json!({"weight": weight, "podAffinityTerm": term(app)});
        let incoming = pod(
            "p",
            "web",
            with("podAffinity", PREFERRED, weighted(10, "db")),
        );
        let existing = vec![
            (pod("d", "db", json!({})), "a0"),
            (
                pod(
                    "e",
                    "x",
                    with("podAntiAffinity", PREFERRED, weighted(4, "web")),
                ),
                "b0",
            ),
            (
                pod("f", "x", with("podAffinity", REQUIRED, term("web"))),
                "c0",
            ),
        ];
        assert_eq!(ask(existing, &incoming, &[]).1, [10, -4, 1, 10]);
    }

    #[test]
    fn namespaces_are_named_or_selected_by_label() {
        let namespace = |name: &str, team: &str| json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}});
        let namespaces = [namespace("other", "red"), namespace("default", "blue")];
        let elsewhere = |name: &str| {
            let mut pod = pod(name, "db", json!({}));
            pod.namespace = "other".into();
            std::sync::Arc::make_mut(&mut pod.shape).namespace = "other".into();
            pod
        };
        let mut selecting = term("db");
        for (selector, expected) in [
            (json!({"matchLabels": {"team": "red"}}), "anti"),
            (json!({}), "anti"),
            (json!({"matchLabels": {"team": "blue"}}), ""),
            (Value::Null, ""),
        ] {
            selecting["namespaceSelector"] = selector.clone();
            let incoming = pod(
                "p",
                "web",
                with("podAntiAffinity", REQUIRED, selecting.clone()),
            );
            assert_eq!(
                ask(vec![(elsewhere("d"), "b0")], &incoming, &namespaces).0[1],
                expected,
                "{selector}"
            );
        }
    }

    #[test]
    fn scores_are_spread_between_least_and_most() {
        let mut scores = [10, -4, 1];
        normalize(&mut scores);
        assert_eq!(scores, [100, 0, 35]);
        let mut even = [7, 7];
        normalize(&mut even);
        assert_eq!(even, [0, 0]);
    }
}
