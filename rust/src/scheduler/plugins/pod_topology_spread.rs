//! PodTopologySpread: keep the matching pods of a topology's domains within a skew, or prefer to. Mirrors plugins/podtopologyspread.
//!
//! The counts by domain are made once for a class and moved by each pod that comes or goes. For filtering a domain exists when a node
//! that the constraint looks at is in it, with or without pods; for scoring domains are those of the feasible nodes.

use super::{node_affinity, taint_toleration};
use crate::scheduler::cluster::Cluster;
use crate::scheduler::framework::{MAX_NODE_SCORE, Rejection, divide, replace_each};
use crate::scheduler::labels::{Labels, Selector};
use crate::scheduler::node::Node;
use crate::scheduler::pod::{Shape, SpreadConstraint};
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::{HOSTNAME, Topology};

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// The constraints of a class and what they count.
#[derive(Debug, Default)]
pub struct Spread {
    hard: Vec<Counted>,
    soft: Vec<Counted>,
    /// Nodes that lack one of the labels are not scored. The built-in constraints do not ask for that.
    needs_all_labels: bool,
    /// How often the word on nodes changed other than the node on which a pod came or went.
    pub turns: u64,
}

#[derive(Debug)]
struct Counted {
    constraint: SpreadConstraint,
    topology: usize,
    by_domain: Vec<i64>,
    /// Whether a node that counts is in the domain.
    is_domain: Vec<bool>,
    domains: i64,
    /// Whether pods on the node count, by rank.
    is_eligible: Vec<bool>,
    /// For scoring by hostname upstream counts the pods on the node itself.
    by_rank: Vec<i64>,
    counts_by_rank: bool,
    self_match: i64,
    /// None when the counts changed since it was found.
    minimum: Option<i64>,
    /// `limit` as of the last `refresh`.
    last_limit: i64,
}

/// Which constraints of a class a pod of another shape counts for: one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Matches {
    hard: u64,
    soft: u64,
    /// What-if counts terminating pods too, and everything for a selector without requirements; so does upstream.
    what_if: u64,
}

impl Matches {
    pub fn is_nothing(self) -> bool {
        self == Matches::default()
    }
}

impl Spread {
    /// Return the class's constraints with everything counted, or None when it has none.
    pub fn new(snapshot: &Snapshot, profile: &Profile, shape: &Shape) -> Option<Spread> {
        let (constraints, is_own) = constraints(profile, &snapshot.cluster, shape);
        if constraints.is_empty() {
            return None;
        }
        let keys = |is_hard: bool| -> Vec<&str> {
            constraints
                .iter()
                .filter(|one| one.is_hard == is_hard)
                .map(|one| one.topology_key.as_str())
                .collect()
        };
        let needs_all_labels = is_own || !profile.is_system_defaulted;
        let (hard_keys, soft_keys) = (
            keys(true),
            if needs_all_labels {
                keys(false)
            } else {
                Vec::new()
            },
        );
        let count = |is_hard: bool, keys: &[&str]| -> Vec<Counted> {
            let these = constraints.iter().filter(|one| one.is_hard == is_hard);
            these
                .filter_map(|one| Counted::new(snapshot, shape, one, keys))
                .collect()
        };
        let mut spread = Spread {
            hard: count(true, &hard_keys),
            soft: count(false, &soft_keys),
            needs_all_labels,
            turns: 0,
        };
        for (rank, seat) in snapshot.seats().iter().enumerate() {
            for (id, pods) in &seat.shapes {
                if let Some(other) = snapshot.shapes.get(*id) {
                    let matches = spread.matches(shape, other);
                    spread.apply(snapshot, matches, rank, i64::from(*pods));
                }
            }
        }
        Some(spread)
    }

    /// Return which constraints count a pod of the other shape.
    pub fn matches(&self, shape: &Shape, other: &Shape) -> Matches {
        if shape.namespace != other.namespace {
            return Matches::default();
        }
        let bits = |all: &[Counted], counts: &dyn Fn(&Selector) -> bool| {
            let matching = all
                .iter()
                .enumerate()
                .filter(|(_, one)| counts(&one.constraint.selector));
            matching.fold(0, |bits, (at, _)| bits | (1 << at.min(63)))
        };
        let strictly = |selector: &Selector| {
            !other.is_terminating && !selector.is_empty() && selector.matches(&other.labels)
        };
        Matches {
            hard: bits(&self.hard, &strictly),
            soft: bits(&self.soft, &strictly),
            what_if: bits(&self.hard, &|selector| selector.matches(&other.labels)),
        }
    }

    /// Count pods that came to the node, or went when `delta` is negative.
    pub fn apply(&mut self, snapshot: &Snapshot, matches: Matches, rank: usize, delta: i64) {
        for (all, bits) in [
            (&mut self.hard, matches.hard),
            (&mut self.soft, matches.soft),
        ] {
            for (at, one) in all.iter_mut().enumerate() {
                if bits & (1 << at.min(63)) != 0 {
                    self.turns += u64::from(one.apply(snapshot, rank, delta));
                }
            }
        }
    }

    /// Count as preemption's what-if does.
    pub fn apply_what_if(
        &mut self,
        snapshot: &Snapshot,
        matches: Matches,
        rank: usize,
        delta: i64,
    ) {
        for (at, one) in self.hard.iter_mut().enumerate() {
            if matches.what_if & (1 << at.min(63)) != 0 {
                self.turns += u64::from(one.apply(snapshot, rank, delta));
            }
        }
    }

    pub fn filters(&self) -> bool {
        !self.hard.is_empty()
    }

    pub fn scores(&self) -> bool {
        !self.soft.is_empty()
    }

    /// Find the minima again where counts changed; to be called before `fits` and `filter`.
    pub fn refresh(&mut self) {
        for one in &mut self.hard {
            if one.minimum.is_none() {
                let existing = one
                    .by_domain
                    .iter()
                    .zip(&one.is_domain)
                    .filter(|(_, exists)| **exists);
                one.minimum = Some(existing.map(|(count, _)| *count).min().unwrap_or(0));
                let limit = one.limit();
                self.turns += u64::from(limit != std::mem::replace(&mut one.last_limit, limit));
            }
        }
    }

    /// Write false for every node that a constraint forbids.
    pub fn mask(&self, snapshot: &Snapshot, fits: &mut [bool]) {
        for one in &self.hard {
            let Some(topology) = snapshot.topologies.get(one.topology) else {
                continue;
            };
            let limit = one.limit();
            for (fit, domain) in fits.iter_mut().zip(&topology.domain_of) {
                *fit &= one
                    .by_domain
                    .get(*domain as usize)
                    .is_some_and(|count| *count <= limit);
            }
        }
    }

    pub fn filter(&self, snapshot: &Snapshot, rank: usize) -> Option<Rejection> {
        self.hard
            .iter()
            .find_map(|one| match one.allows(snapshot, rank) {
                None => Some(Rejection::unresolvable(MISSING_LABEL)),
                Some(false) => Some(Rejection::unschedulable(MISMATCH)),
                Some(true) => None,
            })
    }

    /// Return what `filter` says, without the reason.
    pub fn fits(&self, snapshot: &Snapshot, rank: usize) -> bool {
        let mut hard = self.hard.iter();
        hard.all(|one| one.allows(snapshot, rank) == Some(true))
    }

    /// Return the raw score of each feasible node, and -1 for those that are not scored.
    pub fn score(&self, snapshot: &Snapshot, feasible: &[u32]) -> Vec<i64> {
        let ignored = self.ignored(snapshot, feasible);
        let mut sums = vec![0.0_f64; feasible.len()];
        for one in &self.soft {
            one.add_scores(snapshot, feasible, ignored.as_deref(), &mut sums);
        }
        match ignored {
            None => sums.into_iter().map(round).collect(),
            Some(ignored) => sums
                .into_iter()
                .zip(ignored)
                .map(|(sum, ignored)| if ignored { -1 } else { round(sum) })
                .collect(),
        }
    }

    /// Return which feasible nodes are not scored because they lack a label, or None when no node lacks any.
    fn ignored(&self, snapshot: &Snapshot, feasible: &[u32]) -> Option<Vec<bool>> {
        let topologies = self
            .soft
            .iter()
            .filter_map(|one| snapshot.topologies.get(one.topology));
        let lacking: Vec<&Topology> = topologies.filter(|one| !one.has_every_node).collect();
        if !self.needs_all_labels || lacking.is_empty() {
            return None;
        }
        let is_ignored = |rank: &u32| {
            let mut domains = lacking.iter().map(|one| one.domain(*rank as usize));
            domains.any(|domain| domain.is_none())
        };
        Some(feasible.iter().map(is_ignored).collect())
    }
}

/// Bring raw scores into 0..=100: the fewer pods the better, and nothing for nodes that are not scored.
pub fn normalize(scores: &mut [i64]) {
    let (mut least, mut most) = (i64::MAX, 0);
    for score in scores.iter().filter(|score| **score >= 0) {
        least = least.min(*score);
        most = most.max(*score);
    }
    replace_each(scores, |raw| match (raw, most) {
        (..0, _) => 0,
        (_, 0) => MAX_NODE_SCORE,
        (raw, _) => divide(MAX_NODE_SCORE * (most + least - raw), most),
    });
}

impl Counted {
    fn new(
        snapshot: &Snapshot,
        shape: &Shape,
        constraint: &SpreadConstraint,
        keys: &[&str],
    ) -> Option<Counted> {
        let id = snapshot.topologies.find(&constraint.topology_key)?;
        let topology = snapshot.topologies.get(id)?;
        let is_eligible: Vec<bool> = snapshot
            .seats()
            .iter()
            .map(|seat| counts(constraint, shape, &seat.node, keys))
            .collect();
        let mut is_domain = vec![false; topology.len];
        for (domain, _) in topology
            .domain_of
            .iter()
            .zip(&is_eligible)
            .filter(|(_, eligible)| **eligible)
        {
            if let Some(exists) = is_domain.get_mut(*domain as usize) {
                *exists = true;
            }
        }
        let counts_by_rank = !constraint.is_hard && constraint.topology_key == HOSTNAME;
        Some(Counted {
            topology: id,
            by_domain: vec![0; topology.len],
            domains: i64::try_from(is_domain.iter().filter(|exists| **exists).count())
                .unwrap_or(i64::MAX),
            is_domain,
            by_rank: if counts_by_rank {
                vec![0; is_eligible.len()]
            } else {
                Vec::new()
            },
            is_eligible,
            counts_by_rank,
            self_match: i64::from(constraint.selector.matches(&shape.labels)),
            minimum: None,
            last_limit: i64::MIN,
            constraint: constraint.clone(),
        })
    }

    /// Return whether other nodes of the domain may take now what they could not, or the other way round, by the last limit.
    fn apply(&mut self, snapshot: &Snapshot, rank: usize, delta: i64) -> bool {
        if let Some(count) = self.by_rank.get_mut(rank) {
            *count += delta;
        }
        if !self.is_eligible.get(rank).copied().unwrap_or(false) {
            return false;
        }
        let Some(topology) = snapshot.topologies.get(self.topology) else {
            return false;
        };
        let domain = topology.domain(rank);
        let Some(count) = domain.and_then(|domain| self.by_domain.get_mut(domain)) else {
            return false;
        };
        let was_allowed = *count <= self.last_limit;
        *count += delta;
        self.minimum = None;
        was_allowed != (*count <= self.last_limit) && !topology.is_by_node
    }

    /// Return whether one more may be in the node's domain, or None when it is in none.
    fn allows(&self, snapshot: &Snapshot, rank: usize) -> Option<bool> {
        let domain = snapshot.topologies.get(self.topology)?.domain(rank)?;
        Some(self.by_domain.get(domain).copied().unwrap_or(0) <= self.limit())
    }

    /// Return how many matching pods a domain may have for one more to be allowed.
    fn limit(&self) -> i64 {
        let minimum = if self.domains < self.constraint.min_domains {
            0
        } else {
            self.minimum.unwrap_or(0)
        };
        self.constraint.max_skew + minimum - self.self_match
    }

    fn add_scores(
        &self,
        snapshot: &Snapshot,
        feasible: &[u32],
        ignored: Option<&[bool]>,
        sums: &mut [f64],
    ) {
        let Some(topology) = snapshot.topologies.get(self.topology) else {
            return;
        };
        let skew = (self.constraint.max_skew - 1) as f64;
        if self.counts_by_rank {
            let left_out = ignored.map_or(0, |all| all.iter().filter(|one| **one).count());
            let weight = go_log((feasible.len() - left_out + 2) as f64);
            for (sum, rank) in sums.iter_mut().zip(feasible) {
                if topology.domain(*rank as usize).is_some() {
                    *sum += self.by_rank.get(*rank as usize).copied().unwrap_or(0) as f64 * weight
                        + skew;
                }
            }
            return;
        }
        let size = domains_of(topology, feasible, ignored);
        let weight = go_log((size + 2) as f64);
        let by_domain: Vec<f64> = self
            .by_domain
            .iter()
            .map(|count| *count as f64 * weight + skew)
            .collect();
        for (sum, rank) in sums.iter_mut().zip(feasible) {
            let domain = topology
                .domain_of
                .get(*rank as usize)
                .copied()
                .unwrap_or(u32::MAX);
            if let Some(score) = by_domain.get(domain as usize) {
                *sum += score;
            }
        }
    }
}

/// Return in how many domains the nodes are that are scored; those without the label count as one.
fn domains_of(topology: &Topology, feasible: &[u32], ignored: Option<&[bool]>) -> usize {
    if ignored.is_none() && feasible.len() == topology.domain_of.len() {
        return topology.len + usize::from(!topology.has_every_node);
    }
    let mut seen = vec![false; topology.len];
    let mut lacking = 0;
    for (at, rank) in feasible.iter().enumerate() {
        if ignored.is_some_and(|all| all.get(at) == Some(&true)) {
            continue;
        }
        match topology
            .domain(*rank as usize)
            .and_then(|domain| seen.get_mut(domain))
        {
            Some(seen) => *seen = true,
            None => lacking = 1,
        }
    }
    seen.iter().filter(|seen| **seen).count() + lacking
}

/// Return whether pods on the node count for the constraint.
fn counts(constraint: &SpreadConstraint, shape: &Shape, node: &Node, keys: &[&str]) -> bool {
    keys.iter().all(|key| node.labels.contains_key(*key))
        && (!constraint.honors_affinity || node_affinity::matches_required(shape, node))
        && (!constraint.honors_taints || taint_toleration::is_tolerated(shape, node))
}

/// Return the pod's own constraints and true, or the profile's defaults for the pods of its services and controller.
fn constraints(
    profile: &Profile,
    cluster: &Cluster,
    shape: &Shape,
) -> (Vec<SpreadConstraint>, bool) {
    if !shape.spread.is_empty() {
        return (shape.spread.clone(), true);
    }
    if profile.default_constraints.is_empty() {
        return (Vec::new(), false);
    }
    let selector = default_selector(cluster, shape);
    if selector.is_empty() {
        return (Vec::new(), false);
    }
    let defaults = profile.default_constraints.iter();
    (
        defaults
            .map(|one| SpreadConstraint {
                selector: selector.clone(),
                ..one.clone()
            })
            .collect(),
        false,
    )
}

/// Return the constraints that keep the pod from nodes.
pub fn hard_constraints(
    cluster: &Cluster,
    profile: &Profile,
    shape: &Shape,
) -> Vec<SpreadConstraint> {
    let (mut all, _) = constraints(profile, cluster, shape);
    all.retain(|one| one.is_hard);
    all
}

/// Return what the services and the controller that select the pod ask for together. Mirrors helper.DefaultSelector.
fn default_selector(cluster: &Cluster, shape: &Shape) -> Selector {
    let mut labels = Labels::new();
    for selector in cluster
        .services
        .get(&shape.namespace)
        .into_iter()
        .flat_map(|all| all.values())
    {
        if selector
            .iter()
            .all(|(key, value)| shape.labels.get(key) == Some(value))
        {
            labels.extend(selector.clone());
        }
    }
    let mut selector = Selector::of_labels(&labels);
    if let Some(owner) = &shape.owner {
        let is_known = matches!(
            (owner.api_version.as_str(), owner.kind.as_str()),
            ("v1", "ReplicationController") | ("apps/v1", "ReplicaSet" | "StatefulSet")
        );
        let key = (
            owner.kind.clone(),
            (shape.namespace.clone(), owner.name.clone()),
        );
        if let Some(of_owner) = cluster.controllers.get(&key).filter(|_| is_known) {
            selector.merge(of_owner);
        }
    }
    selector
}

/// Round a number that is not negative to the nearest whole one, halves up. Much faster than `f64::round` on plain x86-64.
fn round(number: f64) -> i64 {
    let whole = number as i64;
    whole + i64::from(number - whole as f64 >= 0.5)
}

/// Return the natural logarithm of a number above zero as Go computes it, which may differ from others in the last bit.
/// Mirrors Go's math.Log, which follows FreeBSD's e_log.c.
fn go_log(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const ODD: [f64; 4] = [
        6.666_666_666_666_735e-1,
        2.857_142_874_366_239e-1,
        1.818_357_216_161_805e-1,
        1.479_819_860_511_658_6e-1,
    ];
    const EVEN: [f64; 3] = [
        3.999_999_999_940_942e-1,
        2.222_219_843_214_978_4e-1,
        1.531_383_769_920_937_3e-1,
    ];
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    let mut fraction = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3fe0_0000_0000_0000);
    if fraction < std::f64::consts::FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let f = fraction - 1.0;
    let k = exponent as f64;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let [l1, l3, l5, l7] = ODD;
    let [l2, l4, l6] = EVEN;
    let r = s2 * (l1 + s4 * (l3 + s4 * (l5 + s4 * l7))) + s4 * (l2 + s4 * (l4 + s4 * l6));
    let half_square = 0.5 * f * f;
    k * LN2_HIGH - ((half_square - (s * (half_square + r) + k * LN2_LOW)) - f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node_in_zone, place, pod_from_with_labels, snapshot};
    use serde_json::{Value, json};

    const ZONE: &str = "topology.kubernetes.io/zone";

    fn spread(constraint: Value) -> Value {
        let mut constraint = constraint;
        constraint["labelSelector"] = json!({"matchLabels": {"app": "web"}});
        json!({"topologySpreadConstraints": [constraint]})
    }

    fn web(name: &str, spec: Value) -> crate::scheduler::pod::Pod {
        pod_from_with_labels(name, json!({"app": "web"}), spec)
    }

    /// Zones with so many web pods on their one node; returns which nodes accept one more.
    fn accepting(counts: &[usize], constraint: Value) -> Vec<bool> {
        let names: Vec<String> = (0..counts.len()).map(|at| format!("n{at}")).collect();
        let nodes = names
            .iter()
            .map(|name| node_in_zone(name, &format!("z-{name}")))
            .collect();
        let mut snapshot = snapshot(nodes);
        for (name, count) in names.iter().zip(counts) {
            for at in 0..*count {
                place(&mut snapshot, web(&format!("{name}-{at}"), json!({})), name);
            }
        }
        let pod = web("p", spread(constraint));
        snapshot.intern(&pod.shape);
        snapshot.settle();
        let mut state = Spread::new(&snapshot, &Profile::default(), &pod.shape).unwrap();
        state.refresh();
        let mut fits = vec![true; counts.len()];
        state.mask(&snapshot, &mut fits);
        let one_by_one: Vec<bool> = (0..counts.len())
            .map(|rank| state.filter(&snapshot, rank).is_none())
            .collect();
        assert_eq!(fits, one_by_one);
        fits
    }

    #[test]
    fn the_skew_is_counted_against_the_emptiest_domain() {
        let hard = |max_skew: i64| json!({"maxSkew": max_skew, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"});
        assert_eq!(accepting(&[2, 1, 0], hard(1)), [false, false, true]);
        assert_eq!(accepting(&[2, 1, 0], hard(2)), [false, true, true]);
        assert_eq!(accepting(&[1, 1, 1], hard(1)), [true, true, true]);
    }

    #[test]
    fn too_few_domains_count_as_an_empty_one() {
        let hard = |min: i64| json!({"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "minDomains": min});
        assert_eq!(accepting(&[1, 1], hard(2)), [true, true]);
        assert_eq!(accepting(&[1, 1], hard(3)), [false, false]);
    }

    #[test]
    fn nodes_without_the_label_cannot_take_the_pod() {
        let constraint =
            json!({"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"});
        assert_eq!(accepting(&[0, 0], constraint), [false, false]);
    }

    #[test]
    fn fewer_pods_score_higher_and_nodes_that_are_not_scored_get_nothing() {
        let mut scores = [4, 2, 0, -1];
        normalize(&mut scores);
        assert_eq!(scores, [0, 50, 100, 0]);
        let mut all_zero = [0, 0];
        normalize(&mut all_zero);
        assert_eq!(all_zero, [100, 100]);
    }

    #[test]
    fn services_and_controllers_that_select_the_pod_make_the_default_selector() {
        let mut cluster = Cluster::default();
        let service = json!({"kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
        let other = json!({"kind": "Service", "metadata": {"name": "t", "namespace": "default"}, "spec": {"selector": {"app": "db"}}});
        let set = json!({"kind": "ReplicaSet", "metadata": {"name": "r", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"hash": "1"}}}});
        for one in [service, other, set] {
            cluster.upsert(one.to_string().as_bytes()).unwrap();
        }
        let owner = Some(crate::scheduler::pod::Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "r".into(),
        });
        let shape = Shape {
            owner,
            ..(*web("p", json!({})).shape).clone()
        };
        let selector = default_selector(&cluster, &shape);
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
                .collect()
        };
        assert!(selector.matches(&labels(&[("app", "web"), ("hash", "1")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("hash", "2")])));
        assert!(
            default_selector(
                &Cluster::default(),
                &Shape {
                    owner: None,
                    ..shape
                }
            )
            .is_empty()
        );
    }

    #[test]
    fn the_logarithm_and_rounding_are_gos() {
        for size in 3..20_000 {
            let x = f64::from(size);
            // Go's differs from the C library's in the last bit at most.
            assert!((go_log(x).to_bits()).abs_diff(x.ln().to_bits()) <= 1, "{x}");
        }
        let table = [
            (0.0, 0),
            (0.5, 1),
            (1.5, 2),
            (2.499_999_999_999_999_6, 2),
            (0.499_999_999_999_999_94, 0),
        ];
        for (number, expected) in table {
            assert_eq!(round(number), expected, "{number}");
        }
    }
}
