//! DefaultPreemption: make room for a pod by removing less important ones. Mirrors framework/preemption and plugins/defaultpreemption.
//!
//! Every node that refused the pod for want of something is looked at, none is left out. On each, all less important pods are taken
//! away; if the pod then fits, they are put back one by one, the most important first, those protected by a disruption budget before
//! the others, as long as the pod still fits. Of the nodes that remain the one is taken where least harm is done.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scheduler::class::Class;
use crate::scheduler::diagnosis::histogram;
use crate::scheduler::framework::Plugin;
use crate::scheduler::plugins::node_resources_fit;
use crate::scheduler::pod::{Pod, Shape};
use crate::scheduler::profile::{FitArgs, Profile};
use crate::scheduler::requests::{Amounts, Scalars};
use crate::scheduler::shapes::ShapeId;
use crate::scheduler::snapshot::{Seat, Snapshot};

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// A node and the pods that would have to go, the most important first.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub rank: usize,
    pub victims: Vec<Arc<Pod>>,
    /// How many victims a disruption budget protects.
    pub violations: usize,
}

/// What came of preemption.
#[derive(Debug)]
pub enum Outcome {
    Found(Candidate),
    /// The pod may not preempt now; its nomination stays.
    NotEligible(&'static str),
    /// No node can be freed; a nomination is void. The words say why.
    Nothing(String),
}

/// A pod, its shape, and its place among the pods of its node.
type Seated = (Arc<Pod>, ShapeId, usize);

/// Look for the node to free. `curable` are the ranks of nodes that refused the pod for something that may change;
/// `nominated_is_hopeless` says that the node the pod waits for is not among them.
pub fn preempt(
    snapshot: &Snapshot,
    profile: &Profile,
    class: &mut Class,
    pod: &Pod,
    curable: &[usize],
    nominated_is_hopeless: bool,
) -> Outcome {
    if let Some(why) = not_eligible(snapshot, pod, nominated_is_hopeless) {
        return Outcome::NotEligible(why);
    }
    let mut best: Option<Candidate> = None;
    let mut reasons: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let mut told = 0;
    let mut tell = |words: Vec<Cow<'static, str>>, nodes: usize| {
        told += nodes;
        for word in words {
            *reasons.entry(word).or_default() += nodes;
        }
    };
    // Where all pods are as important as this one there is nothing to look for.
    let curable = if snapshot.has_less_important(pod.priority) {
        curable
    } else {
        tell(vec![Cow::Borrowed(NO_VICTIMS)], curable.len());
        &[]
    };
    let is_plain = is_plain(snapshot, profile, class);
    let mut trial = PlainTrial::new(profile, &class.shape);
    for &rank in curable {
        let waits = snapshot.has_nominations() && !snapshot.nominated_to(rank).is_empty();
        let by_numbers = is_plain && !waits && class.fixed.fits.get(rank).copied().unwrap_or(false);
        let found = match snapshot.seat(rank).filter(|_| by_numbers) {
            None => victims_on(snapshot, profile, class, pod, rank).map(Some),
            Some(seat) => trial.free(pod, seat).map(|()| {
                let is_worse = best
                    .as_ref()
                    .is_some_and(|best| trial.harm(seat) > harm(best));
                (!is_worse).then(|| trial.candidate(rank, seat))
            }),
        };
        match found {
            Ok(candidate) => {
                candidate
                    .into_iter()
                    .for_each(|one| keep_better(&mut best, one));
            }
            Err(words) => tell(words, 1),
        }
    }
    if let Some(best) = best {
        return Outcome::Found(best);
    }
    *reasons
        .entry(Cow::Borrowed("Preemption is not helpful for scheduling"))
        .or_default() += snapshot.len() - told;
    Outcome::Nothing(format!(
        "0/{} nodes are available: {}.",
        snapshot.len(),
        histogram(&reasons)
    ))
}

/// Return all candidates in the order of `curable`; none when the pod may not preempt now.
pub fn candidates(
    snapshot: &Snapshot,
    profile: &Profile,
    class: &mut Class,
    pod: &Pod,
    curable: &[usize],
    nominated_is_hopeless: bool,
) -> Vec<Candidate> {
    if not_eligible(snapshot, pod, nominated_is_hopeless).is_some() {
        return Vec::new();
    }
    let on = |rank: &usize| victims_on(snapshot, profile, class, pod, *rank).ok();
    curable.iter().filter_map(on).collect()
}

/// Return the less important pods of a node in the order in which they are put back, and whether a disruption budget protects each.
pub fn potential_victims(snapshot: &Snapshot, pod: &Pod, rank: usize) -> Vec<(Arc<Pod>, bool)> {
    let on_node = snapshot.seat(rank).map(|seat| seat.pods.iter().enumerate());
    let less = on_node.into_iter().flatten();
    let mut potential: Vec<Seated> = less
        .filter(|(_, (other, _))| other.priority < pod.priority)
        .map(|(at, (other, shape))| (Arc::clone(other), *shape, at))
        .collect();
    potential.sort_by(by_importance_of_seated);
    let (protected, others) = by_protection(snapshot, potential);
    let protected = protected.into_iter().map(|(one, ..)| (one, true));
    protected
        .chain(others.into_iter().map(|(one, ..)| (one, false)))
        .collect()
}

/// Return whether the filters let the pod go to the node when these of the node's pods (by key) are thought away.
pub fn fits_without(
    snapshot: &Snapshot,
    profile: &Profile,
    class: &mut Class,
    pod: &Pod,
    rank: usize,
    gone: &[String],
) -> bool {
    let Some(seat) = snapshot.seat(rank) else {
        return false;
    };
    let on_node = seat.pods.iter().enumerate();
    let away: Vec<Seated> = on_node
        .filter(|(_, (other, _))| gone.contains(&other.key()))
        .map(|(at, (other, shape))| (Arc::clone(other), *shape, at))
        .collect();
    let mut trial = Trial {
        snapshot,
        profile,
        class,
        pod,
        rank,
        seat: seat.sketch(),
    };
    away.iter().for_each(|one| trial.remove(one));
    let fits = trial.verdict().is_ok();
    away.iter().for_each(|one| trial.put_back(one));
    fits
}

/// Return the candidate that does least harm, the first of equals.
pub fn select(candidates: Vec<Candidate>) -> Option<Candidate> {
    let mut best = None;
    for candidate in candidates {
        keep_better(&mut best, candidate);
    }
    best
}

/// Return why the pod may not preempt now.
pub fn not_eligible(
    snapshot: &Snapshot,
    pod: &Pod,
    nominated_is_hopeless: bool,
) -> Option<&'static str> {
    if pod.never_preempts {
        Some("not eligible due to preemptionPolicy=Never.")
    } else if waits_for_victims(snapshot, pod) && !nominated_is_hopeless {
        Some("not eligible due to a terminating pod on the nominated node.")
    } else {
        None
    }
}

/// Return whether pods that this pod preempted are still on their way out.
fn waits_for_victims(snapshot: &Snapshot, pod: &Pod) -> bool {
    let seat = snapshot
        .rank(&pod.nominated_node_name)
        .and_then(|rank| snapshot.seat(rank));
    seat.is_some_and(|seat| {
        seat.pods
            .iter()
            .any(|(other, _)| other.priority < pod.priority && other.is_preempted)
    })
}

/// Return whether nothing but resources and the number of pods decides.
fn is_plain(snapshot: &Snapshot, profile: &Profile, class: &Class) -> bool {
    let shape = &class.shape;
    class.is_social(profile) == (false, false)
        && snapshot.cluster.budgets.is_empty()
        && shape.host_ports.is_empty()
        && shape.volumes.is_empty()
        && profile.filters_with(Plugin::NodeResourcesFit)
}

fn keep_better(best: &mut Option<Candidate>, candidate: Candidate) {
    if best.as_ref().is_none_or(|best| is_better(&candidate, best)) {
        *best = Some(candidate);
    }
}

/// A trial by numbers alone, which keeps its room from node to node. Pods are named by their place on the node.
#[derive(Debug)]
struct PlainTrial {
    shape: Arc<Shape>,
    fit: FitArgs,
    /// Scalar resources that the pod wants and the profile looks at.
    scalars: Vec<String>,
    potential: Vec<usize>,
    victims: Vec<usize>,
    used: Amounts,
    /// By scalar resource.
    used_scalars: Vec<i64>,
}

impl PlainTrial {
    fn new(profile: &Profile, shape: &Arc<Shape>) -> PlainTrial {
        let wanted = shape.requests.wanted_scalars.keys();
        PlainTrial {
            shape: Arc::clone(shape),
            fit: profile.fit.clone(),
            scalars: wanted
                .filter(|name| !node_resources_fit::is_ignored(&profile.fit, name))
                .cloned()
                .collect(),
            potential: Vec::new(),
            victims: Vec::new(),
            used: Amounts::default(),
            used_scalars: Vec::new(),
        }
    }

    /// Find the pods that have to go for the pod to fit, or say why that does not help.
    fn free(&mut self, pod: &Pod, seat: &Seat) -> Result<(), Vec<Cow<'static, str>>> {
        self.used = seat.requested;
        let used = self.scalars.iter().map(|name| amount(&seat.scalars, name));
        self.used_scalars = used.collect();
        self.potential.clear();
        self.victims.clear();
        for (at, (other, _)) in seat.pods.iter().enumerate() {
            if other.priority < pod.priority {
                self.potential.push(at);
                self.discharge(other);
            }
        }
        if self.potential.is_empty() {
            return Err(vec![Cow::Borrowed(NO_VICTIMS)]);
        }
        if !self.has_room(seat) {
            return Err(self.words(seat));
        }
        let mut potential = std::mem::take(&mut self.potential);
        potential.sort_by(
            |one, other| match (seat.pods.get(*one), seat.pods.get(*other)) {
                (Some((one_pod, _)), Some((other_pod, _))) => {
                    by_importance((one_pod, *one), (other_pod, *other))
                }
                _ => Ordering::Equal,
            },
        );
        for at in &potential {
            let Some((other, _)) = seat.pods.get(*at) else {
                continue;
            };
            self.charge(other);
            if !self.has_room(seat) {
                self.discharge(other);
                self.victims.push(*at);
            }
        }
        self.potential = potential;
        if self.victims.is_empty() {
            return Err(no_victim_needed(seat));
        }
        Ok(())
    }

    fn charge(&mut self, other: &Pod) {
        let requests = &other.shape.requests;
        self.used.add(requests.held);
        for (name, used) in self.scalars.iter().zip(&mut self.used_scalars) {
            *used += amount(&requests.held_scalars, name);
        }
    }

    fn discharge(&mut self, other: &Pod) {
        let requests = &other.shape.requests;
        self.used.subtract(requests.held);
        for (name, used) in self.scalars.iter().zip(&mut self.used_scalars) {
            *used -= amount(&requests.held_scalars, name);
        }
    }

    fn has_room(&self, seat: &Seat) -> bool {
        let requests = &self.shape.requests;
        let mut scalars = self.scalars.iter().zip(&self.used_scalars);
        self.used
            .leaves_room_for(&requests.wanted, &seat.node.allocatable)
            && scalars.all(|(name, used)| {
                amount(&requests.wanted_scalars, name) <= amount(&seat.node.scalars, name) - used
            })
    }

    /// Return what NodeResourcesFit says about what is in use now.
    fn words(&self, seat: &Seat) -> Vec<Cow<'static, str>> {
        let names = self.scalars.iter().cloned();
        let scalars = names.zip(self.used_scalars.iter().copied()).collect();
        let left = seat.with_amounts(self.used, scalars);
        let why = node_resources_fit::filter(&self.fit, &self.shape, &left);
        why.map_or_else(Vec::new, |why| why.reasons)
    }

    fn pods<'a>(&'a self, seat: &'a Seat) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.victims
            .iter()
            .filter_map(|at| seat.pods.get(*at))
            .map(|(pod, _)| pod)
    }

    fn harm(&self, seat: &Seat) -> Harm {
        let highest = self.pods(seat).next().map_or(i32::MIN, |pod| pod.priority);
        (
            0,
            highest,
            self.pods(seat)
                .map(|pod| i64::from(pod.priority) + (1 << 31))
                .sum(),
            self.victims.len(),
        )
    }

    fn candidate(&self, rank: usize, seat: &Seat) -> Candidate {
        Candidate {
            rank,
            victims: self.pods(seat).cloned().collect(),
            violations: 0,
        }
    }
}

fn amount(scalars: &Scalars, name: &str) -> i64 {
    scalars.get(name).copied().unwrap_or(0)
}

fn no_victim_needed(seat: &Seat) -> Vec<Cow<'static, str>> {
    let name = &seat.node.name;
    let words = format!("expected at least one victim pod on node \"{name}\"");
    vec![Cow::Owned(words)]
}

/// Return the pods that must go from the node, or why that does not help.
fn victims_on(
    snapshot: &Snapshot,
    profile: &Profile,
    class: &mut Class,
    pod: &Pod,
    rank: usize,
) -> Result<Candidate, Vec<Cow<'static, str>>> {
    let seat = snapshot.seat(rank).ok_or_else(Vec::new)?;
    let less_important = seat
        .pods
        .iter()
        .enumerate()
        .filter(|(_, (other, _))| other.priority < pod.priority);
    let mut potential: Vec<Seated> = less_important
        .map(|(at, (other, shape))| (Arc::clone(other), *shape, at))
        .collect();
    if potential.is_empty() {
        return Err(vec![Cow::Borrowed(NO_VICTIMS)]);
    }
    let mut trial = Trial {
        snapshot,
        profile,
        class,
        pod,
        rank,
        seat: seat.sketch(),
    };
    for victim in &potential {
        trial.remove(victim);
    }
    if let Err(words) = trial.verdict() {
        for victim in &potential {
            trial.put_back(victim);
        }
        return Err(words);
    }
    potential.sort_by(by_importance_of_seated);
    let (protected, others) = by_protection(snapshot, potential);
    let mut violations = 0;
    let is_mixed = !protected.is_empty() && !others.is_empty();
    let mut victims: Vec<Seated> = Vec::new();
    for (victim, is_protected) in protected
        .into_iter()
        .map(|one| (one, true))
        .chain(others.into_iter().map(|one| (one, false)))
    {
        trial.put_back(&victim);
        if trial.verdict().is_err() {
            trial.remove(&victim);
            violations += usize::from(is_protected);
            victims.push(victim);
        }
    }
    for victim in &victims {
        trial.put_back(victim);
    }
    if is_mixed {
        victims.sort_by(by_importance_of_seated);
    }
    if victims.is_empty() {
        return Err(no_victim_needed(seat));
    }
    Ok(Candidate {
        rank,
        victims: victims.into_iter().map(|(victim, ..)| victim).collect(),
        violations,
    })
}

/// A node on which pods are taken away and put back in thought.
struct Trial<'a> {
    snapshot: &'a Snapshot,
    profile: &'a Profile,
    class: &'a mut Class,
    pod: &'a Pod,
    rank: usize,
    seat: Seat,
}

impl Trial<'_> {
    fn remove(&mut self, (victim, shape, _): &Seated) {
        self.seat.weigh(&victim.shape, -1);
        self.seat.pods.retain(|(one, _)| !Arc::ptr_eq(one, victim));
        self.class.imagine(self.snapshot, *shape, self.rank, -1);
    }

    fn put_back(&mut self, (victim, shape, _): &Seated) {
        self.seat.weigh(&victim.shape, 1);
        self.seat.pods.push((Arc::clone(victim), *shape));
        self.class.imagine(self.snapshot, *shape, self.rank, 1);
    }

    fn verdict(&mut self) -> Result<(), Vec<Cow<'static, str>>> {
        match self.class.filter_with_nominated(
            self.snapshot,
            self.profile,
            self.pod,
            self.rank,
            &self.seat,
        ) {
            None => Ok(()),
            Some((_, why)) => Err(why.reasons),
        }
    }
}

/// Order pods by importance, the most important first: higher priority, then the longer running. Each comes with its place among the
/// pods of its node.
fn by_importance((one, place): (&Pod, usize), (other, other_place): (&Pod, usize)) -> Ordering {
    let by_start = || match (one.start_time.is_empty(), other.start_time.is_empty()) {
        // A pod without a start time counts as starting when it is looked at, which is in the order of the node's pods.
        (true, true) => place.cmp(&other_place),
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => one.start_time.cmp(&other.start_time),
    };
    other.priority.cmp(&one.priority).then_with(by_start)
}

fn by_importance_of_seated(one: &Seated, other: &Seated) -> Ordering {
    by_importance((&one.0, one.2), (&other.0, other.2))
}

/// Split pods into those whose removal breaks a disruption budget and the others. Mirrors FilterVictimsWithPDBViolation.
fn by_protection(snapshot: &Snapshot, pods: Vec<Seated>) -> (Vec<Seated>, Vec<Seated>) {
    let mut allowance = Allowance::of(snapshot);
    pods.into_iter()
        .partition(|(pod, ..)| allowance.is_broken_by(snapshot, pod))
}

/// How many more disruptions each budget allows.
#[derive(Debug)]
pub struct Allowance(Vec<i64>);

impl Allowance {
    pub fn of(snapshot: &Snapshot) -> Allowance {
        let budgets = snapshot.cluster.budgets.values();
        Allowance(budgets.map(|one| one.disruptions_allowed).collect())
    }

    /// Count a pod's removal; return whether it breaks a budget.
    pub fn is_broken_by(&mut self, snapshot: &Snapshot, pod: &Pod) -> bool {
        if pod.shape.labels.is_empty() {
            return false;
        }
        for (((namespace, _), budget), left) in snapshot.cluster.budgets.iter().zip(&mut self.0) {
            let covers = *namespace == pod.namespace
                && !budget.selector.is_empty()
                && budget.selector.matches(&pod.shape.labels);
            if !covers || budget.disrupted_pods.contains(&pod.name) {
                continue;
            }
            *left -= 1;
            if *left < 0 {
                return true;
            }
        }
        false
    }
}

/// Violations, the highest priority, the sum of priorities and the number of victims: the less the better, in this order.
type Harm = (usize, i32, i64, usize);

fn harm(candidate: &Candidate) -> Harm {
    let highest = candidate
        .victims
        .first()
        .map_or(i32::MIN, |pod| pod.priority);
    let sum = candidate
        .victims
        .iter()
        .map(|pod| i64::from(pod.priority) + (1 << 31))
        .sum();
    (candidate.violations, highest, sum, candidate.victims.len())
}

/// Return whether less harm is done on this node; of equals the first one stays. Mirrors pickOneNodeForPreemption.
fn is_better(one: &Candidate, other: &Candidate) -> bool {
    let earliest = |candidate: &Candidate| -> Option<String> {
        let highest = candidate.victims.iter().map(|pod| pod.priority).max()?;
        let of_these = candidate
            .victims
            .iter()
            .filter(|pod| pod.priority == highest);
        of_these
            .map(|pod| {
                if pod.start_time.is_empty() {
                    "9".to_string()
                } else {
                    pod.start_time.clone()
                }
            })
            .min()
    };
    match harm(one).cmp(&harm(other)) {
        Ordering::Equal => Reverse(earliest(one)) < Reverse(earliest(other)),
        order => order == Ordering::Less,
    }
}
