//! What is remembered about all pods of one shape: which nodes can take one, and what each is worth.
//!
//! A node's own part (does it fit, how well) stands in `base`, by rank; a placement changes it on one node only, so a class that comes
//! up again reads the snapshot's log and computes those nodes anew. What depends on pods elsewhere is in `spread` and `inter_pod`,
//! which move their counts by the same log. What depends on the node alone is shared by all classes that ask for the same (`Fixed`).

use std::collections::HashMap;
use std::sync::Arc;

use super::columns::{Asked, score_column, score_columns};
use super::framework::{Plugin, Rejection};
use super::plugins::{
    image_locality, inter_pod_affinity, node_affinity, node_declared_features, node_name,
    node_ports, node_resources_balanced_allocation, node_resources_fit, node_unschedulable,
    node_volume_limits, pod_topology_spread, taint_toleration, volume_binding, volume_restrictions,
    volume_zone,
};
use super::pod::{Pod, Preference, Shape};
use super::profile::{FitArgs, Profile, Strategy};
use super::selector::Term;
use super::shapes::ShapeId;
use super::snapshot::{Change, NO_SHAPE, Seat, Snapshot};
use super::verdicts::Verdicts;
use super::wire::Toleration;
use super::worths::{NO, Worths};

/// All of a shape that the answers of `Fixed` depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FixedKey {
    profile: usize,
    pinned: String,
    node_selector: std::collections::BTreeMap<String, String>,
    required_terms: Option<Vec<Term>>,
    preferences: Vec<Preference>,
    tolerations: Vec<Toleration>,
    needed_features: Vec<&'static str>,
}

impl FixedKey {
    pub fn new(profile: usize, shape: &Shape) -> FixedKey {
        FixedKey {
            profile,
            pinned: shape.pinned.clone(),
            node_selector: shape.node_selector.clone(),
            required_terms: shape.required_terms.clone(),
            preferences: shape.preferences.clone(),
            tolerations: shape.tolerations.clone(),
            needed_features: shape.needed_features.clone(),
        }
    }
}

/// What nodes say by what they are, whatever is on them. By rank.
#[derive(Debug)]
pub struct Fixed {
    structure: u64,
    pub fits: Vec<bool>,
    /// Raw scores; empty when all are zero.
    pub taints: Vec<i64>,
    pub affinity: Vec<i64>,
}

impl Fixed {
    pub fn new(snapshot: &Snapshot, profile: &Profile, shape: &Shape) -> Fixed {
        let seats = snapshot.seats();
        let scores = |enabled: bool, score: &dyn Fn(&Seat) -> i64| -> Vec<i64> {
            let all: Vec<i64> = if enabled {
                seats.iter().map(score).collect()
            } else {
                Vec::new()
            };
            if all.iter().all(|one| *one == 0) {
                Vec::new()
            } else {
                all
            }
        };
        let by_taints = profile.weight(Plugin::TaintToleration) > 0;
        let by_affinity =
            profile.weight(Plugin::NodeAffinity) > 0 && node_affinity::scores(profile, shape);
        Fixed {
            structure: snapshot.structure(),
            fits: seats
                .iter()
                .map(|seat| first_fixed(profile, shape, seat).is_none())
                .collect(),
            taints: scores(by_taints, &|seat| {
                taint_toleration::score(shape, &seat.node)
            }),
            affinity: scores(by_affinity, &|seat| {
                node_affinity::score(profile, shape, &seat.node)
            }),
        }
    }

    pub fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.structure == snapshot.structure()
    }
}

fn first_fixed(profile: &Profile, shape: &Shape, seat: &Seat) -> Option<Rejection> {
    profile
        .filters
        .iter()
        .find_map(|plugin| fixed(*plugin, profile, shape, seat))
}

/// Ask a plugin that looks at the node alone; None also for one that does not.
fn fixed(plugin: Plugin, profile: &Profile, shape: &Shape, seat: &Seat) -> Option<Rejection> {
    match plugin {
        Plugin::NodeName => node_name::filter(shape, &seat.node),
        Plugin::NodeUnschedulable => node_unschedulable::filter(shape, &seat.node),
        Plugin::TaintToleration => taint_toleration::filter(shape, &seat.node),
        Plugin::NodeAffinity => node_affinity::filter(profile, shape, &seat.node),
        Plugin::NodeDeclaredFeatures => node_declared_features::filter(shape, &seat.node),
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Matches {
    spread: pod_topology_spread::Matches,
    inter_pod: inter_pod_affinity::Matches,
}

/// What a pod's volumes ask of a node; found anew for each cycle.
#[derive(Debug, Default)]
pub struct Volumes {
    conflicts: usize,
    claims: volume_binding::Claims,
    places: volume_zone::Places,
}

#[derive(Debug)]
pub struct Class {
    pub shape: Arc<Shape>,
    pub fixed: Arc<Fixed>,
    /// The weighted sum of the scores that need no normalising, or `NO`. By rank.
    pub base: Worths,
    /// `base` of the nodes that pods elsewhere let the pod on, and which word of theirs it stands for.
    admitted: Option<(Worths, u64)>,
    /// Why nodes refuse the pod by what they are and have, and how much of the log is in that.
    verdicts: Option<(Verdicts, usize)>,
    pub spread: Option<pod_topology_spread::Spread>,
    pub inter_pod: Option<inter_pod_affinity::InterPod>,
    pub volumes: Option<Volumes>,
    matches: HashMap<ShapeId, Matches>,
    /// How much of the log is in.
    seen: usize,
    pub last_used: u64,
}

impl Class {
    pub fn new(
        snapshot: &Snapshot,
        profile: &Profile,
        shape: Arc<Shape>,
        fixed: Arc<Fixed>,
    ) -> Class {
        let mut class = Class {
            shape,
            fixed,
            base: Worths::default(),
            admitted: None,
            verdicts: None,
            spread: None,
            inter_pod: None,
            volumes: None,
            matches: HashMap::new(),
            seen: snapshot.log().len(),
            last_used: 0,
        };
        class.score_all(snapshot, profile);
        class.count_all(snapshot, profile);
        class
    }

    pub fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.fixed.is_of(snapshot)
    }

    /// Take in what happened since the class was used last. It must be of the snapshot's structure.
    pub fn catch_up(&mut self, snapshot: &Snapshot, profile: &Profile) {
        let news = snapshot.log().get(self.seen..).unwrap_or(&[]);
        self.seen = snapshot.log().len();
        if news.len() > snapshot.len() / 3 + 8 {
            self.score_all(snapshot, profile);
        } else if self.stands_in_columns(snapshot, profile) {
            let asked = Asked::new(profile, &self.shape);
            for change in news {
                let rank = change.rank as usize;
                if let Some(score) = score_column(&snapshot.columns, &asked, &self.fixed.fits, rank)
                {
                    self.base.set(rank, score);
                }
            }
        } else {
            for change in news {
                let rank = change.rank as usize;
                let score = self.local(snapshot, profile, rank);
                self.base.set(rank, score);
            }
        }
        if self.inter_pod.is_none() && snapshot.pods_with_terms() > 0 && uses_inter_pod(profile) {
            self.count_all(snapshot, profile);
            return;
        }
        if self.spread.is_some() || self.inter_pod.is_some() {
            // Pods come and go in rows of one shape, and most shapes mean nothing to the others.
            let mut meaningless = NO_SHAPE;
            for change in news {
                if change.shape == NO_SHAPE || change.shape == meaningless {
                    continue;
                }
                let (rank, delta) = (change.rank as usize, i64::from(change.delta));
                if !self.count(snapshot, change.shape, rank, delta) {
                    meaningless = change.shape;
                }
            }
        }
        self.refresh();
        self.admit(snapshot, profile, news);
    }

    fn refresh(&mut self) {
        if let Some(spread) = &mut self.spread {
            spread.refresh();
        }
    }

    fn count_all(&mut self, snapshot: &Snapshot, profile: &Profile) {
        self.matches.clear();
        self.admitted = None;
        let spreads = profile.filters_with(Plugin::PodTopologySpread)
            || profile.weight(Plugin::PodTopologySpread) > 0;
        self.spread = if spreads {
            pod_topology_spread::Spread::new(snapshot, profile, &self.shape)
        } else {
            None
        };
        let is_social = uses_inter_pod(profile)
            && (snapshot.pods_with_terms() > 0 || !self.shape.inter_pod.is_empty());
        self.inter_pod =
            is_social.then(|| inter_pod_affinity::InterPod::new(snapshot, profile, &self.shape));
        self.refresh();
    }

    /// Return whether a pod of the other shape means anything to this class.
    fn count(&mut self, snapshot: &Snapshot, other: ShapeId, rank: usize, delta: i64) -> bool {
        self.learn(snapshot, other);
        let Some(matches) = self.matches.get(&other) else {
            return false;
        };
        if let Some(spread) = self
            .spread
            .as_mut()
            .filter(|_| !matches.spread.is_nothing())
        {
            spread.apply(snapshot, matches.spread, rank, delta);
        }
        if let Some(inter_pod) = self
            .inter_pod
            .as_mut()
            .filter(|_| !matches.inter_pod.is_nothing())
        {
            inter_pod.apply(snapshot, &matches.inter_pod, rank, delta);
        }
        !matches.spread.is_nothing() || !matches.inter_pod.is_nothing()
    }

    /// Count a pod as it would be on the node, or gone, and forget it later by the opposite `delta`.
    pub fn imagine(&mut self, snapshot: &Snapshot, other: ShapeId, rank: usize, delta: i64) {
        if self.spread.is_none() && self.inter_pod.is_none() {
            return;
        }
        self.learn(snapshot, other);
        let Some(matches) = self.matches.get(&other) else {
            return;
        };
        if let Some(spread) = &mut self.spread {
            spread.apply_what_if(snapshot, matches.spread, rank, delta);
            spread.refresh();
        }
        if let Some(inter_pod) = &mut self.inter_pod {
            inter_pod.apply(snapshot, &matches.inter_pod, rank, delta);
        }
    }

    fn learn(&mut self, snapshot: &Snapshot, other: ShapeId) {
        if self.matches.contains_key(&other) {
            return;
        }
        if let Some(shape) = snapshot.shapes.get(other) {
            let spread = self
                .spread
                .as_ref()
                .map_or_else(Default::default, |one| one.matches(&self.shape, shape));
            let inter_pod = self
                .inter_pod
                .as_ref()
                .map_or_else(Default::default, |one| {
                    one.matches(snapshot, &self.shape, shape)
                });
            self.matches.insert(other, Matches { spread, inter_pod });
        }
    }

    /// Return whether pods elsewhere decide where the pod may go.
    pub fn is_social(&self, profile: &Profile) -> (bool, bool) {
        let spread = self.spread.as_ref().is_some_and(|one| one.filters())
            && profile.filters_with(Plugin::PodTopologySpread);
        let inter_pod = self.inter_pod.as_ref().is_some_and(|one| one.filters())
            && profile.filters_with(Plugin::InterPodAffinity);
        (spread, inter_pod)
    }

    /// Return `base` with `NO` for every node that pods elsewhere keep the pod from. Volumes and nominations are not looked at.
    pub fn admitted(&mut self, snapshot: &Snapshot, profile: &Profile) -> &Worths {
        let word = self.word();
        let (admitted, said) = self.admitted.take().unwrap_or_default();
        let is_current = said == word && admitted.len() == self.base.len();
        let admitted = if is_current {
            admitted
        } else {
            let fits = self.mask(snapshot, profile);
            let worths = self.base.iter().zip(&fits);
            Worths::of(
                worths
                    .map(|(base, fit)| if *fit { *base } else { NO })
                    .collect(),
            )
        };
        &self.admitted.insert((admitted, word)).0
    }

    /// Return which nodes have room and are not forbidden by pods elsewhere, by rank.
    pub fn mask(&self, snapshot: &Snapshot, profile: &Profile) -> Vec<bool> {
        let mut fits: Vec<bool> = self.base.iter().map(|base| *base != NO).collect();
        let (spreads, is_social) = self.is_social(profile);
        if let Some(spread) = self.spread.as_ref().filter(|_| spreads) {
            spread.mask(snapshot, &mut fits);
        }
        if let Some(inter_pod) = self.inter_pod.as_ref().filter(|_| is_social) {
            inter_pod.mask(snapshot, &mut fits);
        }
        fits
    }

    /// Return why nodes refuse the pod, when neither pods elsewhere nor volumes or nominations count.
    pub fn verdicts(&mut self, snapshot: &Snapshot, profile: &Profile) -> &Verdicts {
        let end = snapshot.log().len();
        let ask = |class: &Class, rank: usize| {
            let seat = snapshot.seat(rank)?;
            class.filter(snapshot, profile, rank, seat)
        };
        let known = self.verdicts.take();
        let verdicts = if let Some((mut verdicts, seen)) =
            known.filter(|(_, seen)| end - seen <= snapshot.len() / 3 + 8)
        {
            for change in snapshot.log().get(seen..).unwrap_or(&[]) {
                let rank = change.rank as usize;
                verdicts.set(rank, ask(self, rank));
            }
            verdicts
        } else {
            let mut verdicts = Verdicts::new(snapshot.len());
            (0..snapshot.len()).for_each(|rank| verdicts.set(rank, ask(self, rank)));
            verdicts
        };
        &self.verdicts.insert((verdicts, end)).0
    }

    /// Return a number that changes when pods elsewhere say something new about nodes that are not in the log.
    fn word(&self) -> u64 {
        let spread = self.spread.as_ref().map_or(0, |one| one.turns);
        1 + spread + self.inter_pod.as_ref().map_or(0, |one| one.turns)
    }

    /// Bring `admitted` up to date with what happened on these nodes, or forget it.
    fn admit(&mut self, snapshot: &Snapshot, profile: &Profile, news: &[Change]) {
        let word = self.word();
        let Some((mut admitted, _)) = self.admitted.take().filter(|(_, said)| *said == word) else {
            return;
        };
        let (spreads, is_social) = self.is_social(profile);
        for change in news {
            let rank = change.rank as usize;
            let base = self.base.get(rank).copied().unwrap_or(NO);
            let spread = self.spread.as_ref().filter(|_| spreads);
            let inter_pod = self.inter_pod.as_ref().filter(|_| is_social);
            let fits = base != NO
                && spread.is_none_or(|one| one.fits(snapshot, rank))
                && inter_pod.is_none_or(|one| one.filter(snapshot, rank).is_none());
            admitted.set(rank, if fits { base } else { NO });
        }
        self.admitted = Some((admitted, word));
    }

    /// Return whether the columns hold all that a node's own part depends on.
    fn stands_in_columns(&self, snapshot: &Snapshot, profile: &Profile) -> bool {
        is_plain(snapshot, profile)
            && self.shape.host_ports.is_empty()
            && self.shape.requests.wanted_scalars.is_empty()
            && !(snapshot.has_images() && profile.weight(Plugin::ImageLocality) > 0)
    }

    fn score_all(&mut self, snapshot: &Snapshot, profile: &Profile) {
        self.admitted = None;
        let base = if is_plain(snapshot, profile) {
            let mut base = std::mem::take(&mut self.base).into_vec();
            base.resize(snapshot.len(), NO);
            let asked = Asked::new(profile, &self.shape);
            score_columns(&snapshot.columns, &asked, &self.fixed.fits, &mut base);
            self.finish_columns(snapshot, profile, &mut base);
            base
        } else {
            (0..snapshot.len())
                .map(|rank| self.local(snapshot, profile, rank))
                .collect()
        };
        self.base = Worths::of(base);
    }

    /// Add what the columns do not hold.
    fn finish_columns(&self, snapshot: &Snapshot, profile: &Profile, base: &mut [i32]) {
        let by_image = if snapshot.has_images() {
            profile.weight(Plugin::ImageLocality)
        } else {
            0
        };
        let has_ports =
            !self.shape.host_ports.is_empty() && profile.filters_with(Plugin::NodePorts);
        let has_scalars = !self.shape.requests.wanted_scalars.is_empty();
        if by_image == 0 && !has_ports && !has_scalars {
            return;
        }
        for (base, seat) in base
            .iter_mut()
            .zip(snapshot.seats())
            .filter(|(base, _)| **base >= 0)
        {
            let fits = (!has_ports || node_ports::fits(&self.shape, &seat.ports))
                && (!has_scalars
                    || node_resources_fit::fits_scalars(&profile.fit, &self.shape, seat));
            if !fits {
                *base = NO;
            } else if by_image > 0 {
                *base += (by_image
                    * image_locality::score(&self.shape, &seat.images, snapshot.len()))
                    as i32;
            }
        }
    }

    /// Return a node's own part.
    fn local(&self, snapshot: &Snapshot, profile: &Profile, rank: usize) -> i32 {
        let Some(seat) = snapshot
            .seat(rank)
            .filter(|_| self.fixed.fits.get(rank).copied().unwrap_or(false))
        else {
            return NO;
        };
        let shape = &self.shape;
        let has_ports = !shape.host_ports.is_empty() && profile.filters_with(Plugin::NodePorts);
        if has_ports && !node_ports::fits(shape, &seat.ports) {
            return NO;
        }
        if profile.filters_with(Plugin::NodeResourcesFit)
            && !node_resources_fit::fits(&profile.fit, shape, seat)
        {
            return NO;
        }
        [
            Plugin::NodeResourcesFit,
            Plugin::NodeResourcesBalancedAllocation,
            Plugin::ImageLocality,
        ]
        .into_iter()
        .map(|plugin| {
            profile.weight(plugin) * own_score(plugin, snapshot, profile, shape, seat).unwrap_or(0)
        })
        .sum::<i64>() as i32
    }

    /// Look at the pod's claims. The words of a plugin are returned when no node can help.
    pub fn look_at_volumes(
        &mut self,
        snapshot: &Snapshot,
        profile: &Profile,
    ) -> Option<(Plugin, Rejection)> {
        let shape = &self.shape;
        if shape.volumes.is_empty() {
            return None;
        }
        let refuse = |plugin: Plugin, words: String| {
            let reasons = vec![std::borrow::Cow::Owned(words)];
            let code = super::framework::Code::UnschedulableAndUnresolvable;
            profile
                .filters_with(plugin)
                .then_some((plugin, Rejection { code, reasons }))
        };
        let mut volumes = Volumes::default();
        match volume_restrictions::conflicts(snapshot, shape) {
            Ok(conflicts) => volumes.conflicts = conflicts,
            Err(words) => return refuse(Plugin::VolumeRestrictions, words),
        }
        match volume_binding::claims(snapshot, shape) {
            Ok(claims) => volumes.claims = claims,
            Err(words) => return refuse(Plugin::VolumeBinding, words),
        }
        match volume_zone::places(snapshot, shape) {
            Ok(places) => volumes.places = places,
            Err(words) => return refuse(Plugin::VolumeZone, words),
        }
        self.volumes = Some(volumes);
        None
    }

    /// Return whether the pod's volumes can be had on the node.
    pub fn fits_volumes(&self, snapshot: &Snapshot, profile: &Profile, rank: usize) -> bool {
        let plugins = [
            Plugin::VolumeRestrictions,
            Plugin::NodeVolumeLimits,
            Plugin::VolumeBinding,
            Plugin::VolumeZone,
        ];
        let mut enabled = plugins
            .into_iter()
            .filter(|plugin| profile.filters_with(*plugin));
        snapshot.seat(rank).is_some_and(|seat| {
            enabled.all(|plugin| {
                self.ask(plugin, snapshot, profile, rank, seat, (false, false))
                    .is_none()
            })
        })
    }

    /// Return VolumeBinding's score of a node; None when no claim waits for its first consumer, and all would be worth the same.
    pub fn score_volumes(
        &self,
        snapshot: &Snapshot,
        profile: &Profile,
        rank: usize,
    ) -> Option<i64> {
        let claims = &self.volumes.as_ref()?.claims;
        if claims.waiting.is_empty() {
            return None;
        }
        let node = &snapshot.seat(rank)?.node;
        let points = &profile.storage_points;
        Some(volume_binding::score(
            snapshot,
            &self.shape,
            claims,
            node,
            points,
        ))
    }

    /// Return whether nodes differ in what they have for the pod's claims.
    pub fn scores_volumes(&self, profile: &Profile) -> bool {
        let volumes = self.volumes.as_ref();
        profile.weight(Plugin::VolumeBinding) > 0
            && volumes.is_some_and(|one| !one.claims.waiting.is_empty())
    }

    /// Ask all filters in turn whether the pod can go on the node as `seat` shows it. The first that says no is returned.
    pub fn filter(
        &self,
        snapshot: &Snapshot,
        profile: &Profile,
        rank: usize,
        seat: &Seat,
    ) -> Option<(Plugin, Rejection)> {
        let social = self.is_social(profile);
        profile.filters.iter().find_map(|plugin| {
            Some((
                *plugin,
                self.ask(*plugin, snapshot, profile, rank, seat, social)?,
            ))
        })
    }

    /// Ask one filter.
    pub fn ask(
        &self,
        plugin: Plugin,
        snapshot: &Snapshot,
        profile: &Profile,
        rank: usize,
        seat: &Seat,
        social: (bool, bool),
    ) -> Option<Rejection> {
        match plugin {
            Plugin::NodePorts if !self.shape.host_ports.is_empty() => {
                node_ports::filter(&self.shape, &seat.ports)
            }
            Plugin::NodeResourcesFit => node_resources_fit::filter(&profile.fit, &self.shape, seat),
            Plugin::PodTopologySpread if social.0 => self
                .spread
                .as_ref()
                .and_then(|one| one.filter(snapshot, rank)),
            Plugin::InterPodAffinity if social.1 => self
                .inter_pod
                .as_ref()
                .and_then(|one| one.filter(snapshot, rank)),
            Plugin::VolumeRestrictions => self
                .volumes
                .as_ref()
                .and_then(|one| volume_restrictions::filter(&self.shape, seat, one.conflicts)),
            Plugin::NodeVolumeLimits => self
                .volumes
                .as_ref()
                .and_then(|_| node_volume_limits::filter(&snapshot.cluster, &self.shape, seat)),
            Plugin::VolumeBinding => self.volumes.as_ref().and_then(|one| {
                volume_binding::filter(snapshot, &self.shape, &one.claims, &seat.node)
            }),
            Plugin::VolumeZone => self
                .volumes
                .as_ref()
                .and_then(|one| volume_zone::filter(&one.places, &seat.node)),
            plugin => fixed(plugin, profile, &self.shape, seat),
        }
    }

    /// Ask all filters, with the pods that wait for room on the node there and then without them: both must say yes.
    /// Mirrors RunFilterPluginsWithNominatedPods.
    pub fn filter_with_nominated(
        &mut self,
        snapshot: &Snapshot,
        profile: &Profile,
        pod: &Pod,
        rank: usize,
        seat: &Seat,
    ) -> Option<(Plugin, Rejection)> {
        let waiting: Vec<_> = snapshot
            .nominated_to(rank)
            .iter()
            .filter(|(one, _)| counts_nominated(pod, one))
            .cloned()
            .collect();
        if !waiting.is_empty() {
            let social = self.is_social(profile);
            let mut with = seat.sketch();
            for (one, shape) in &waiting {
                with.weigh(&one.shape, 1);
                with.pods.push((Arc::clone(one), *shape));
                self.imagine(snapshot, *shape, rank, 1);
            }
            let filters = profile.filters.iter();
            let found = filters.copied().find_map(|plugin| {
                Some((
                    plugin,
                    self.ask(plugin, snapshot, profile, rank, &with, social)?,
                ))
            });
            for (_, shape) in &waiting {
                self.imagine(snapshot, *shape, rank, -1);
            }
            if found.is_some() {
                return found;
            }
        }
        self.filter(snapshot, profile, rank, seat)
    }
}

/// Return whether a pod that waits for a node counts for this one.
pub fn counts_nominated(pod: &Pod, waiting: &Pod) -> bool {
    waiting.priority >= pod.priority
        && (waiting.uid != pod.uid
            || waiting.name != pod.name
            || waiting.namespace != pod.namespace)
}

/// Return whether CPU and memory are filtered and scored in the way that `score_columns` knows.
fn is_plain(snapshot: &Snapshot, profile: &Profile) -> bool {
    profile.fit.strategy == Strategy::LeastAllocated
        && profile.fit.resources == FitArgs::default().resources
        && profile.balanced == ["cpu", "memory"]
        && profile.filters_with(Plugin::NodeResourcesFit)
        && snapshot.columns.is_exact()
}

fn uses_inter_pod(profile: &Profile) -> bool {
    profile.filters_with(Plugin::InterPodAffinity) || profile.weight(Plugin::InterPodAffinity) > 0
}

/// Return the score of a plugin that needs no normalising, or None when it has nothing to say about the pod.
pub fn own_score(
    plugin: Plugin,
    snapshot: &Snapshot,
    profile: &Profile,
    shape: &Shape,
    seat: &Seat,
) -> Option<i64> {
    if profile.weight(plugin) == 0 {
        return None;
    }
    match plugin {
        Plugin::NodeResourcesFit => Some(node_resources_fit::score(&profile.fit, shape, seat)),
        Plugin::NodeResourcesBalancedAllocation => {
            node_resources_balanced_allocation::scores(&profile.balanced, shape)
                .then(|| node_resources_balanced_allocation::score(&profile.balanced, shape, seat))
        }
        Plugin::ImageLocality => Some(image_locality::score(shape, &seat.images, snapshot.len())),
        _ => None,
    }
}
