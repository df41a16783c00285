//! The cluster as the engine sees it: one seat per node, in the order in which nodes are looked at, and the pods that sit there.
//!
//! A node's *rank* is its place in that order; everything that is kept per node is indexed by rank. Ranks change only in `settle`,
//! which runs before a cycle, and then `structure` changes and whatever others remember by rank is void. Between that, each placement
//! and removal appends to a log, and whoever remembers something catches up by reading what was appended since.
//! A pod that a cycle has placed is *assumed*: it counts although the API server has not confirmed it, until its binding is seen or
//! `forget` takes it back. Mirrors kube-scheduler's cache, node tree and snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cluster::{Cluster, Effect};
use super::columns::Columns;
use super::node::Node;
use super::pod::{Pod, Shape, VolumeUse};
use super::requests::Amounts;
pub use super::seat::Seat;
use super::shapes::{ShapeId, Shapes};
use super::topology::Topologies;
use super::visibility::VisibleLabels;

/// A change of a node that is not about a pod.
pub const NO_SHAPE: ShapeId = ShapeId::MAX;
/// The log is cut, and all forget what they remember, when it gets longer than this or than so many changes for each node.
const LOG_MAX: usize = 1 << 18;
const LOG_MAX_PER_NODE: usize = 16;

/// One entry of the log.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub rank: u32,
    pub shape: ShapeId,
    pub delta: i8,
}

#[derive(Debug, Clone)]
struct Placed {
    pod: Arc<Pod>,
    shape: ShapeId,
    node: String,
    is_assumed: bool,
}

#[derive(Debug, Clone)]
struct Image {
    size: i64,
    nodes: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The first `ordered` are in visiting order; nodes that came since the last `settle` follow.
    seats: Vec<Seat>,
    ordered: usize,
    pub columns: Columns,
    pub topologies: Topologies,
    pub shapes: Shapes,
    pub cluster: Cluster,
    visible: VisibleLabels,
    log: Vec<Change>,
    structure: u64,
    is_structure_stale: bool,
    are_labels_stale: bool,
    /// Labels became visible that the shapes of placed pods lack.
    are_shapes_stale: bool,
    gone: usize,
    slots: HashMap<String, usize>,
    /// Node names by zone, zones in the order in which they were first seen.
    zones: Vec<(String, Vec<String>)>,
    pods: HashMap<String, Placed>,
    /// Keys of pods on nodes that are not known.
    strays: HashMap<String, Vec<String>>,
    images: HashMap<String, Image>,
    image_changes: u64,
    /// Ranks whose images may have to be counted again.
    dirty: Vec<usize>,
    /// Pods that wait for room on a node, by its name.
    nominations: BTreeMap<String, Vec<(Arc<Pod>, ShapeId)>>,
    nominated: HashMap<String, String>,
    /// How many placed pods have inter-pod terms.
    with_terms: usize,
    /// How many placed pods have each priority.
    priorities: BTreeMap<i32, usize>,
    /// How many placed pods use each claim, by namespace and name.
    claim_users: HashMap<(String, String), usize>,
}

impl Snapshot {
    /// Return the nodes in visiting order, as of the last `settle`.
    pub fn seats(&self) -> &[Seat] {
        self.seats.get(..self.ordered).unwrap_or(&[])
    }

    pub fn seat(&self, rank: usize) -> Option<&Seat> {
        self.seats().get(rank)
    }

    /// Return how many nodes there are, as of the last `settle`.
    pub fn len(&self) -> usize {
        self.ordered
    }

    pub fn is_empty(&self) -> bool {
        self.ordered == 0
    }

    /// Return the number that changes when what is remembered by rank is void.
    pub fn structure(&self) -> u64 {
        self.structure
    }

    pub fn log(&self) -> &[Change] {
        &self.log
    }

    pub fn rank(&self, name: &str) -> Option<usize> {
        self.slots
            .get(name)
            .copied()
            .filter(|slot| *slot < self.ordered)
    }

    pub fn node_name(&self, rank: usize) -> &str {
        self.seat(rank).map_or("", |seat| seat.node.name.as_str())
    }

    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    pub fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// Return the node on which the pod counts, assumed or bound.
    pub fn placement(&self, key: &str) -> Option<&str> {
        self.pods.get(key).map(|placed| placed.node.as_str())
    }

    /// Return all placed pods.
    pub fn placed(&self) -> impl Iterator<Item = (&Arc<Pod>, &str)> {
        self.pods
            .values()
            .map(|placed| (&placed.pod, placed.node.as_str()))
    }

    /// Return how many placed pods use the claim.
    pub fn claim_users(&self, namespace: &str, claim: &str) -> usize {
        let key = (namespace.to_string(), claim.to_string());
        self.claim_users.get(&key).copied().unwrap_or(0)
    }

    /// Return whether any placed pod has a lower priority.
    pub fn has_less_important(&self, priority: i32) -> bool {
        let lowest = self.priorities.first_key_value();
        lowest.is_some_and(|(lowest, _)| *lowest < priority)
    }

    fn count_priority(&mut self, priority: i32, comes: bool) {
        let pods = self.priorities.entry(priority).or_default();
        *pods = if comes {
            *pods + 1
        } else {
            pods.saturating_sub(1)
        };
        if *pods == 0 {
            self.priorities.remove(&priority);
        }
    }

    fn use_claims(&mut self, shape: &Shape, comes: bool) {
        for volume in &shape.volumes {
            let VolumeUse::Claim { name, .. } = volume else {
                continue;
            };
            let users = self
                .claim_users
                .entry((shape.namespace.clone(), name.clone()))
                .or_default();
            *users = if comes {
                *users + 1
            } else {
                users.saturating_sub(1)
            };
        }
    }

    /// Return how many placed pods have inter-pod terms.
    pub fn pods_with_terms(&self) -> usize {
        self.with_terms
    }

    pub fn has_nominations(&self) -> bool {
        !self.nominations.is_empty()
    }

    /// Return the pods that wait for room on this node.
    pub fn nominated_to(&self, rank: usize) -> &[(Arc<Pod>, ShapeId)] {
        self.nominations
            .get(self.node_name(rank))
            .map_or(&[], Vec::as_slice)
    }

    /// Return the node that the pod waits for.
    pub fn nomination(&self, key: &str) -> Option<&str> {
        self.nominated.get(key).map(String::as_str)
    }

    /// Return a node that is there, whether the order counts it yet or not.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        let seat = self.seats.get(*self.slots.get(name)?)?;
        (!seat.is_gone).then_some(&seat.node)
    }

    /// Return a pod that counts on a node, and whether it is only assumed there.
    pub fn placed_pod(&self, key: &str) -> Option<(&Arc<Pod>, bool)> {
        self.pods.get(key).map(|one| (&one.pod, one.is_assumed))
    }

    /// Return a pod that waits for room on a node.
    pub fn nominated_pod(&self, key: &str) -> Option<&Arc<Pod>> {
        let waiting = self.nominations.get(self.nominated.get(key)?)?;
        waiting
            .iter()
            .map(|(pod, _)| pod)
            .find(|pod| pod.key() == key)
    }

    /// Take in a new or changed node.
    pub fn upsert_node(&mut self, node: Node) {
        let node = Arc::new(node);
        let Some(slot) = self.slots.get(&node.name).copied() else {
            self.add_node(node);
            return;
        };
        let Some(seat) = self.seats.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(&mut seat.node, Arc::clone(&node));
        let came_back = std::mem::take(&mut seat.is_gone);
        if came_back {
            self.gone -= 1;
            self.enter_zone(&node);
            self.count_images(&node);
        } else {
            if before.zone != node.zone {
                // The order stays as it is until nodes come or go: upstream reads the tree only then.
                self.leave_zone(&before.name);
                self.enter_zone(&node);
            }
            if before.images != node.images {
                self.uncount_images(&before);
                self.count_images(&node);
            }
        }
        self.are_labels_stale |= before.labels != node.labels;
        self.is_structure_stale |= !before.looks_like(&node);
        self.touch(slot, NO_SHAPE, 0);
    }

    fn add_node(&mut self, node: Arc<Node>) {
        let slot = self.seats.len();
        let name = node.name.clone();
        self.enter_zone(&node);
        self.count_images(&node);
        self.columns
            .push(&node.allocatable, &Amounts::default(), (0, 0));
        self.seats.push(Seat {
            node,
            images_as_of: u64::MAX,
            ..Seat::default()
        });
        self.slots.insert(name.clone(), slot);
        self.dirty.push(slot);
        for key in self.strays.remove(&name).unwrap_or_default() {
            if let Some(placed) = self.pods.get(&key).cloned() {
                self.charge(slot, &placed.pod, placed.shape);
            }
        }
    }

    /// Drop a node; its pods stay known and count again when it returns.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slots.get(name).copied() else {
            return;
        };
        let Some(seat) = self.seats.get_mut(slot).filter(|seat| !seat.is_gone) else {
            return;
        };
        seat.is_gone = true;
        let node = Arc::clone(&seat.node);
        self.gone += 1;
        self.uncount_images(&node);
        self.leave_zone(name);
    }

    /// Take in a new or changed pod. Only pods with a node that have not ended count; one that is assumed stays so while the API
    /// server still shows it without a node.
    pub fn upsert_pod(&mut self, pod: Pod) {
        let key = pod.key();
        if pod.is_terminal {
            self.remove_pod(&key);
        } else if pod.node_name.is_empty() {
            let stays = self
                .pods
                .get(&key)
                .is_some_and(|placed| placed.is_assumed && placed.pod.uid == pod.uid);
            if !stays {
                self.discard(&key);
                self.take_in_pending(key, pod);
            }
        } else {
            self.withdraw_nomination(&key);
            self.take_in_bound(key, pod);
        }
    }

    fn take_in_pending(&mut self, key: String, pod: Pod) {
        let known = self
            .nominated
            .get(&key)
            .and_then(|node| self.nominations.get(node))
            .into_iter()
            .flatten();
        let is_same = known
            .into_iter()
            .any(|(one, _)| one.uid == pod.uid && one.key() == key);
        if !pod.nominated_node_name.is_empty() {
            let node = pod.nominated_node_name.clone();
            self.nominate(Arc::new(pod), &node);
        } else if !is_same {
            self.withdraw_nomination(&key);
        }
    }

    fn take_in_bound(&mut self, key: String, pod: Pod) {
        let (shape, _) = self.intern(&pod.shape);
        let node = pod.node_name.clone();
        let pod = Arc::new(pod);
        let is_same = self
            .pods
            .get(&key)
            .is_some_and(|placed| placed.node == node && placed.shape == shape);
        if is_same {
            self.replace(&key, pod);
        } else {
            self.discard(&key);
            self.insert(key, pod, shape, node, false);
        }
    }

    /// Put a pod's new state in the place of the old one, which weighs the same.
    fn replace(&mut self, key: &str, pod: Arc<Pod>) {
        let Some(placed) = self.pods.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut placed.pod, Arc::clone(&pod));
        placed.is_assumed = false;
        let shape = placed.shape;
        let node = placed.node.clone();
        self.count_priority(before.priority, false);
        self.count_priority(pod.priority, true);
        if let Some(slot) = self.slots.get(&node).copied() {
            if let Some(seat) = self.seats.get_mut(slot) {
                seat.leave(&before);
                seat.pods.push((pod, shape));
            }
            self.dirty.push(slot);
        }
    }

    /// Count the pod on the node before the API server knows.
    pub fn assume(&mut self, pod: Arc<Pod>, rank: usize) {
        let key = pod.key();
        let node = self.node_name(rank).to_string();
        self.discard(&key);
        self.withdraw_nomination(&key);
        let (shape, _) = self.intern(&pod.shape);
        self.insert(key, pod, shape, node, true);
    }

    /// Take back an assumed pod; a bound one stays.
    pub fn forget(&mut self, key: &str) {
        if self.pods.get(key).is_some_and(|placed| placed.is_assumed) {
            self.discard(key);
        }
    }

    pub fn remove_pod(&mut self, key: &str) {
        self.discard(key);
        self.withdraw_nomination(key);
    }

    fn discard(&mut self, key: &str) {
        let Some(placed) = self.pods.remove(key) else {
            return;
        };
        self.shapes.release(placed.shape);
        self.with_terms -= usize::from(!placed.pod.shape.inter_pod.is_empty());
        self.use_claims(&placed.pod.shape, false);
        self.count_priority(placed.pod.priority, false);
        match self.slots.get(&placed.node).copied() {
            Some(slot) => self.discharge(slot, &placed.pod, placed.shape),
            None => {
                if let Some(keys) = self.strays.get_mut(&placed.node) {
                    keys.retain(|one| one != key);
                    if keys.is_empty() {
                        self.strays.remove(&placed.node);
                    }
                }
            }
        }
    }

    /// Let the pod wait for room on the node; while it waits, less important pods see it as if it were there.
    pub fn nominate(&mut self, pod: Arc<Pod>, node: &str) {
        let key = pod.key();
        self.withdraw_nomination(&key);
        let (shape, _) = self.intern(&pod.shape);
        self.shapes.hold(shape);
        self.nominations
            .entry(node.to_string())
            .or_default()
            .push((pod, shape));
        self.nominated.insert(key, node.to_string());
    }

    pub fn withdraw_nomination(&mut self, key: &str) {
        let Some(node) = self.nominated.remove(key) else {
            return;
        };
        if let Some(waiting) = self.nominations.get_mut(&node) {
            for (pod, shape) in waiting.iter() {
                if pod.key() == key {
                    self.shapes.release(*shape);
                }
            }
            waiting.retain(|(pod, _)| pod.key() != key);
            if waiting.is_empty() {
                self.nominations.remove(&node);
            }
        }
    }

    /// Take in another object of the cluster.
    pub fn changed(&mut self, effect: Effect) {
        self.is_structure_stale |= effect == Effect::Matching;
        for key in std::mem::take(&mut self.cluster.selected_keys) {
            self.are_shapes_stale |= self.visible.learn_key(&key);
        }
    }

    /// Return the shape's number; its topologies, and the labels that its selectors name, are known from then on.
    pub fn intern(&mut self, shape: &Arc<Shape>) -> (ShapeId, bool) {
        if self.visible.learn(shape) {
            self.number_shapes();
        }
        let (id, is_new) = self.shapes.intern(&self.visible.cut(shape));
        if is_new {
            let keys = shape
                .inter_pod
                .topology_keys()
                .chain(shape.spread.iter().map(|one| one.topology_key.as_str()));
            for key in keys {
                self.topologies.register(
                    key,
                    self.seats.iter().take(self.ordered).map(|seat| &*seat.node),
                );
            }
        }
        (id, is_new)
    }

    /// Number the shapes of all pods anew, because more of their labels can be seen.
    fn number_shapes(&mut self) {
        let (visible, shapes) = (&self.visible, &mut self.shapes);
        let mut number = |pod: &Arc<Pod>| shapes.intern(&visible.cut(&pod.shape)).0;
        for seat in &mut self.seats {
            seat.shapes.clear();
            let mut pods = std::mem::take(&mut seat.pods);
            for (pod, id) in &mut pods {
                *id = number(pod);
                seat.count(*id, 1);
            }
            seat.pods = pods;
        }
        let waiting = self.nominations.values_mut().flatten();
        let mut held: Vec<(ShapeId, ShapeId)> = Vec::new();
        for (pod, id) in waiting {
            held.push((std::mem::replace(id, number(pod)), *id));
        }
        for placed in self.pods.values_mut() {
            let before = std::mem::replace(&mut placed.shape, number(&placed.pod));
            held.push((before, placed.shape));
        }
        for (before, now) in held {
            self.shapes.release(before);
            self.shapes.hold(now);
        }
        self.are_shapes_stale = false;
        self.is_structure_stale = true;
    }

    /// Make sure that the topology is known.
    pub fn register_topology(&mut self, key: &str) {
        self.topologies.register(
            key,
            self.seats.iter().take(self.ordered).map(|seat| &*seat.node),
        );
    }

    fn insert(
        &mut self,
        key: String,
        pod: Arc<Pod>,
        shape: ShapeId,
        node: String,
        is_assumed: bool,
    ) {
        match self.slots.get(&node).copied() {
            Some(slot) => self.charge(slot, &pod, shape),
            None => self
                .strays
                .entry(node.clone())
                .or_default()
                .push(key.clone()),
        }
        self.shapes.hold(shape);
        self.with_terms += usize::from(!pod.shape.inter_pod.is_empty());
        self.use_claims(&pod.shape, true);
        self.count_priority(pod.priority, true);
        self.pods.insert(
            key,
            Placed {
                pod,
                shape,
                node,
                is_assumed,
            },
        );
    }

    fn charge(&mut self, slot: usize, pod: &Arc<Pod>, shape: ShapeId) {
        if let Some(seat) = self.seats.get_mut(slot) {
            seat.pods.push((Arc::clone(pod), shape));
            seat.count(shape, 1);
            seat.weigh(&pod.shape, 1);
        }
        self.touch(slot, shape, 1);
    }

    fn discharge(&mut self, slot: usize, pod: &Arc<Pod>, shape: ShapeId) {
        if let Some(seat) = self.seats.get_mut(slot) {
            seat.leave(pod);
            seat.count(shape, -1);
            seat.weigh(&pod.shape, -1);
        }
        self.touch(slot, shape, -1);
    }

    /// Bring the columns in line with the seat and tell those who remember.
    fn touch(&mut self, slot: usize, shape: ShapeId, delta: i8) {
        let Some(seat) = self.seats.get(slot) else {
            return;
        };
        self.columns
            .set(slot, &seat.node.allocatable, &seat.requested, seat.nonzero);
        self.dirty.push(slot);
        if self.log.len() >= LOG_MAX.max(self.ordered * LOG_MAX_PER_NODE) {
            self.is_structure_stale = true;
        } else if let Ok(rank) = u32::try_from(slot) {
            self.log.push(Change { rank, shape, delta });
        }
    }

    fn count_images(&mut self, node: &Node) {
        self.image_changes += u64::from(!node.images.is_empty());
        for (at, (name, size)) in node.images.iter().enumerate() {
            if node.images.iter().take(at).all(|(other, _)| other != name) {
                self.images
                    .entry(name.clone())
                    .or_insert(Image {
                        size: *size,
                        nodes: 0,
                    })
                    .nodes += 1;
            }
        }
    }

    fn uncount_images(&mut self, node: &Node) {
        self.image_changes += u64::from(!node.images.is_empty());
        for (at, (name, _)) in node.images.iter().enumerate() {
            if node.images.iter().take(at).any(|(other, _)| other == name) {
                continue;
            }
            if let Some(image) = self.images.get_mut(name) {
                image.nodes -= 1;
                if image.nodes == 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    fn enter_zone(&mut self, node: &Node) {
        match self.zones.iter_mut().find(|(zone, _)| *zone == node.zone) {
            Some((_, names)) => names.push(node.name.clone()),
            None => self
                .zones
                .push((node.zone.clone(), vec![node.name.clone()])),
        }
    }

    fn leave_zone(&mut self, name: &str) {
        for (_, names) in &mut self.zones {
            names.retain(|one| one != name);
        }
        self.zones.retain(|(_, names)| !names.is_empty());
    }

    /// Make ready for a cycle: order nodes that came, drop those that went, and let those who remember by rank know if they must forget.
    pub fn settle(&mut self) {
        if self.are_shapes_stale {
            self.number_shapes();
        }
        self.recount_images();
        if self.seats.len() > self.ordered || self.gone > 0 {
            self.reorder();
        } else if self.are_labels_stale {
            let seats = &self.seats;
            self.topologies
                .rebuild(|| seats.iter().map(|seat| &*seat.node));
        }
        if self.is_structure_stale {
            self.structure += 1;
            self.log.clear();
        }
        self.are_labels_stale = false;
        self.is_structure_stale = false;
    }

    fn recount_images(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(seat) = self
                .seats
                .get_mut(slot)
                .filter(|seat| seat.images_as_of != self.image_changes)
            else {
                continue;
            };
            seat.images_as_of = self.image_changes;
            if seat.node.images.is_empty() && seat.images.is_empty() {
                continue;
            }
            let of = |name: &String| {
                self.images
                    .get(name)
                    .map(|image| (name.clone(), (image.size, image.nodes)))
            };
            seat.images = Arc::new(
                seat.node
                    .images
                    .iter()
                    .filter_map(|(name, _)| of(name))
                    .collect(),
            );
            if let Ok(rank) = u32::try_from(slot) {
                self.log.push(Change {
                    rank,
                    shape: NO_SHAPE,
                    delta: 0,
                });
            }
        }
    }

    /// The first node of every zone, then the second of every zone, and so on.
    fn reorder(&mut self) {
        let longest = self
            .zones
            .iter()
            .map(|(_, names)| names.len())
            .max()
            .unwrap_or(0);
        let mut taken: Vec<Option<Seat>> = std::mem::take(&mut self.seats)
            .into_iter()
            .map(Some)
            .collect();
        let mut ordered = Vec::with_capacity(taken.len());
        for place in 0..longest {
            for name in self.zones.iter().filter_map(|(_, names)| names.get(place)) {
                let slot = self.slots.get(name).copied();
                if let Some(seat) = slot
                    .and_then(|slot| taken.get_mut(slot))
                    .and_then(Option::take)
                {
                    ordered.push(seat);
                }
            }
        }
        for seat in taken
            .into_iter()
            .flatten()
            .filter(|seat| !seat.pods.is_empty())
        {
            let keys = seat.pods.iter().map(|(pod, _)| pod.key()).collect();
            self.strays.insert(seat.node.name.clone(), keys);
        }
        self.columns.clear();
        for seat in &ordered {
            self.columns
                .push(&seat.node.allocatable, &seat.requested, seat.nonzero);
        }
        self.slots = ordered
            .iter()
            .enumerate()
            .map(|(rank, seat)| (seat.node.name.clone(), rank))
            .collect();
        self.ordered = ordered.len();
        self.gone = 0;
        self.seats = ordered;
        let seats = &self.seats;
        self.topologies
            .rebuild(|| seats.iter().map(|seat| &*seat.node));
        self.is_structure_stale = true;
    }
}
