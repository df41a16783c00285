//! The cluster as arrays over nodes, and what the pods on them use.
//!
//! A node has a slot; all arrays are indexed by slot, freed slots are used again. Pods are kept by key together with the node they
//! name, so that a pod that is heard of before its node counts as soon as the node appears. A pod that a cycle has placed is
//! *assumed*: it counts although the API server has not confirmed it, until its binding is seen or `forget` takes it back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::node::Node;
use super::pod::{Amounts, HostPort, Pod};

#[derive(Debug, Default)]
pub struct Snapshot {
    /// None marks a free slot.
    pub nodes: Vec<Option<Node>>,
    pub allocatable: Vec<Amounts>,
    pub requested: Vec<Amounts>,
    pub nonzero: Vec<Amounts>,
    pub extended_requested: Vec<BTreeMap<String, i64>>,
    /// How many pods hold each port.
    pub host_ports: Vec<BTreeMap<HostPort, u32>>,
    /// Slots in the order in which nodes are looked at: zones in turn, as upstream's nodeTree.
    order: Vec<usize>,
    is_order_stale: bool,
    slots: HashMap<String, usize>,
    free: Vec<usize>,
    pods: HashMap<String, Placed>,
    /// Keys of the pods on each node, known or not.
    by_node: HashMap<String, BTreeSet<String>>,
    /// On how many nodes each image is.
    image_nodes: HashMap<String, i64>,
    tainted: usize,
    unschedulable: usize,
    /// Node names by zone, zones in the order in which they were first seen.
    zones: Vec<(String, Vec<String>)>,
}

#[derive(Debug, Clone)]
struct Placed {
    pod: Arc<Pod>,
    node: String,
    is_assumed: bool,
}

impl Snapshot {
    /// Return the slots in visiting order, as of the last `settle`.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn node(&self, slot: usize) -> Option<&Node> {
        self.nodes.get(slot).and_then(Option::as_ref)
    }

    pub fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    pub fn has_taints(&self) -> bool {
        self.tainted > 0
    }

    pub fn has_unschedulable(&self) -> bool {
        self.unschedulable > 0
    }

    /// Return on how many nodes the image is.
    pub fn image_nodes(&self, image: &str) -> i64 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    pub fn has_images(&self) -> bool {
        !self.image_nodes.is_empty()
    }

    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Return the node on which the pod counts, assumed or bound.
    pub fn placement(&self, key: &str) -> Option<&str> {
        self.pods.get(key).map(|placed| placed.node.as_str())
    }

    /// Take in a new or changed node.
    pub fn upsert_node(&mut self, node: Node) {
        let name = node.name.clone();
        if let Some(slot) = self.slot(&name) {
            let moved = self
                .node(slot)
                .is_some_and(|before| before.zone != node.zone);
            if moved {
                self.leave_zone(&name);
                self.enter_zone(&node);
            }
            self.uncount(slot);
            self.place(slot, node);
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        self.slots.insert(name.clone(), slot);
        self.enter_zone(&node);
        self.place(slot, node);
        for key in self.by_node.get(&name).cloned().unwrap_or_default() {
            if let Some(pod) = self.pods.get(&key).map(|placed| Arc::clone(&placed.pod)) {
                self.charge(slot, &pod);
            }
        }
    }

    /// Drop a node; its pods stay known and count again when it returns.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slots.remove(name) else {
            return;
        };
        self.uncount(slot);
        self.leave_zone(name);
        clear(&mut self.nodes, slot);
        clear(&mut self.allocatable, slot);
        clear(&mut self.requested, slot);
        clear(&mut self.nonzero, slot);
        clear(&mut self.extended_requested, slot);
        clear(&mut self.host_ports, slot);
        self.free.push(slot);
    }

    /// Take in a new or changed pod. Only pods with a node that have not ended count; one that is assumed stays so while the API
    /// server still shows it without a node.
    pub fn upsert_pod(&mut self, pod: Pod) {
        let key = pod.key();
        if pod.node_name.is_empty() && !pod.is_terminal {
            let keeps = self
                .pods
                .get(&key)
                .is_some_and(|placed| placed.is_assumed && placed.pod.uid == pod.uid);
            if !keeps {
                self.remove_pod(&key);
            }
            return;
        }
        self.remove_pod(&key);
        if !pod.is_terminal {
            let node = pod.node_name.clone();
            self.insert(key, Arc::new(pod), node, false);
        }
    }

    /// Count the pod on the node before the API server knows.
    pub fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        let key = pod.key();
        self.remove_pod(&key);
        self.insert(key, pod, node.to_string(), true);
    }

    /// Take back an assumed pod; a bound one stays.
    pub fn forget(&mut self, key: &str) {
        if self.pods.get(key).is_some_and(|placed| placed.is_assumed) {
            self.remove_pod(key);
        }
    }

    pub fn remove_pod(&mut self, key: &str) {
        let Some(placed) = self.pods.remove(key) else {
            return;
        };
        if let Some(keys) = self.by_node.get_mut(&placed.node) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(&placed.node);
            }
        }
        if let Some(slot) = self.slot(&placed.node) {
            self.discharge(slot, &placed.pod);
        }
    }

    fn insert(&mut self, key: String, pod: Arc<Pod>, node: String, is_assumed: bool) {
        if let Some(slot) = self.slot(&node) {
            self.charge(slot, &pod);
        }
        self.by_node
            .entry(node.clone())
            .or_default()
            .insert(key.clone());
        self.pods.insert(
            key,
            Placed {
                pod,
                node,
                is_assumed,
            },
        );
    }

    fn charge(&mut self, slot: usize, pod: &Pod) {
        if let Some(total) = self.requested.get_mut(slot) {
            total.add(pod.requests);
        }
        if let Some(total) = self.nonzero.get_mut(slot) {
            total.add(pod.nonzero);
        }
        if let Some(totals) = self.extended_requested.get_mut(slot) {
            for (name, amount) in &pod.extended {
                *totals.entry(name.clone()).or_default() += amount;
            }
        }
        if let Some(ports) = self.host_ports.get_mut(slot) {
            for port in &pod.host_ports {
                *ports.entry(port.clone()).or_default() += 1;
            }
        }
    }

    fn discharge(&mut self, slot: usize, pod: &Pod) {
        if let Some(total) = self.requested.get_mut(slot) {
            total.subtract(pod.requests);
        }
        if let Some(total) = self.nonzero.get_mut(slot) {
            total.subtract(pod.nonzero);
        }
        if let Some(totals) = self.extended_requested.get_mut(slot) {
            for (name, amount) in &pod.extended {
                *totals.entry(name.clone()).or_default() -= amount;
            }
            totals.retain(|_, amount| *amount != 0);
        }
        if let Some(ports) = self.host_ports.get_mut(slot) {
            for port in &pod.host_ports {
                if let Some(holders) = ports.get_mut(port) {
                    *holders -= 1;
                    if *holders == 0 {
                        ports.remove(port);
                    }
                }
            }
        }
    }

    fn grow(&mut self) -> usize {
        self.nodes.push(None);
        self.allocatable.push(Amounts::default());
        self.requested.push(Amounts::default());
        self.nonzero.push(Amounts::default());
        self.extended_requested.push(BTreeMap::new());
        self.host_ports.push(BTreeMap::new());
        self.nodes.len() - 1
    }

    fn place(&mut self, slot: usize, node: Node) {
        for image in node.images.keys() {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
        self.tainted += usize::from(!node.taints.is_empty());
        self.unschedulable += usize::from(node.is_unschedulable);
        if let Some(amounts) = self.allocatable.get_mut(slot) {
            *amounts = node.allocatable;
        }
        if let Some(place) = self.nodes.get_mut(slot) {
            *place = Some(node);
        }
    }

    /// Undo what `place` counted for the node in this slot.
    fn uncount(&mut self, slot: usize) {
        let Some(node) = self.nodes.get_mut(slot).and_then(Option::take) else {
            return;
        };
        for image in node.images.keys() {
            if let Some(count) = self.image_nodes.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
        self.tainted -= usize::from(!node.taints.is_empty());
        self.unschedulable -= usize::from(node.is_unschedulable);
    }

    fn enter_zone(&mut self, node: &Node) {
        self.is_order_stale = true;
        match self.zones.iter_mut().find(|(zone, _)| *zone == node.zone) {
            Some((_, names)) => names.push(node.name.clone()),
            None => self
                .zones
                .push((node.zone.clone(), vec![node.name.clone()])),
        }
    }

    fn leave_zone(&mut self, name: &str) {
        self.is_order_stale = true;
        for (_, names) in &mut self.zones {
            names.retain(|one| one != name);
        }
        self.zones.retain(|(_, names)| !names.is_empty());
    }

    /// Rebuild the visiting order if nodes came, went or moved: the first node of every zone, then the second of every zone, and
    /// so on. Called once after a batch of changes, before the next cycle.
    pub fn settle(&mut self) {
        if !std::mem::take(&mut self.is_order_stale) {
            return;
        }
        let longest = self
            .zones
            .iter()
            .map(|(_, names)| names.len())
            .max()
            .unwrap_or(0);
        let mut order = Vec::with_capacity(self.slots.len());
        for rank in 0..longest {
            let names = self.zones.iter().filter_map(|(_, names)| names.get(rank));
            order.extend(names.filter_map(|name| self.slots.get(name)));
        }
        self.order = order;
    }
}

fn clear<T: Default>(values: &mut [T], slot: usize) {
    if let Some(value) = values.get_mut(slot) {
        *value = T::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, node_in_zone, pod};

    fn used(snapshot: &Snapshot, name: &str) -> (i64, i64) {
        let requested = snapshot.requested[snapshot.slot(name).unwrap()];
        (requested.milli_cpu, requested.pods)
    }

    #[test]
    fn a_bound_pod_counts_on_its_node_until_it_ends_or_goes() {
        let mut snapshot = Snapshot::default();
        snapshot.upsert_node(node("n1"));
        let mut bound = pod("a", "500m");
        bound.node_name = "n1".into();
        snapshot.upsert_pod(bound.clone());
        snapshot.upsert_pod(bound.clone());
        assert_eq!(used(&snapshot, "n1"), (500, 1));
        bound.is_terminal = true;
        snapshot.upsert_pod(bound);
        assert_eq!(used(&snapshot, "n1"), (0, 0));
    }

    #[test]
    fn a_pod_heard_of_before_its_node_counts_when_the_node_appears_and_again_when_it_returns() {
        let mut snapshot = Snapshot::default();
        let mut bound = pod("a", "500m");
        bound.node_name = "n1".into();
        snapshot.upsert_pod(bound);
        for _ in 0..2 {
            snapshot.upsert_node(node("n1"));
            assert_eq!(used(&snapshot, "n1"), (500, 1));
            snapshot.remove_node("n1");
        }
        assert!(snapshot.is_empty());
    }

    #[test]
    fn an_assumed_pod_survives_stale_news_of_itself_but_not_its_successor() {
        let mut snapshot = Snapshot::default();
        snapshot.upsert_node(node("n1"));
        let fresh = pod("a", "500m");
        snapshot.assume(Arc::new(fresh.clone()), "n1");
        snapshot.upsert_pod(fresh.clone());
        assert_eq!(used(&snapshot, "n1"), (500, 1));
        snapshot.upsert_pod(Pod {
            uid: "another".into(),
            ..fresh
        });
        assert_eq!(used(&snapshot, "n1"), (0, 0));
    }

    #[test]
    fn forgetting_takes_back_assumed_pods_and_leaves_bound_ones() {
        let mut snapshot = Snapshot::default();
        snapshot.upsert_node(node("n1"));
        snapshot.assume(Arc::new(pod("a", "1")), "n1");
        let mut bound = pod("b", "1");
        bound.node_name = "n1".into();
        snapshot.upsert_pod(bound);
        snapshot.forget("default/a");
        snapshot.forget("default/b");
        assert_eq!(used(&snapshot, "n1"), (1000, 1));
    }

    #[test]
    fn nodes_are_visited_zone_by_zone_in_turn() {
        let mut snapshot = Snapshot::default();
        for (name, zone) in [
            ("a1", "a"),
            ("a2", "a"),
            ("a3", "a"),
            ("b1", "b"),
            ("c1", "c"),
            ("b2", "b"),
        ] {
            snapshot.upsert_node(node_in_zone(name, zone));
        }
        snapshot.settle();
        let names: Vec<&str> = snapshot
            .order()
            .iter()
            .map(|slot| snapshot.node(*slot).unwrap().name.as_str())
            .collect();
        assert_eq!(names, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }
}
