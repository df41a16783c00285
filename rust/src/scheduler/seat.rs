//! A node and what is on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::node::Node;
use super::pod::{HostPort, Pod, Shape};
use super::requests::{Amounts, Scalars};
use super::shapes::ShapeId;

/// A node and what is on it.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    pub node: Arc<Node>,
    /// Deleted; its place stays until the order is made anew.
    pub(super) is_gone: bool,
    /// In the order that upstream's NodeInfo keeps: a pod that leaves is replaced by the last one.
    pub pods: Vec<(Arc<Pod>, ShapeId)>,
    /// How many pods have each shape.
    pub shapes: Vec<(ShapeId, u32)>,
    pub requested: Amounts,
    /// CPU (milli) and memory with defaults.
    pub nonzero: (i64, i64),
    pub scalars: Scalars,
    /// A port that two pods hold is free again when one of them leaves; so it is upstream.
    pub ports: BTreeSet<HostPort>,
    /// Size of each image here and on how many nodes it was when this node last changed: upstream's snapshot has it so.
    pub images: Arc<HashMap<String, (i64, i64)>>,
    pub(super) images_as_of: u64,
}

impl Seat {
    pub(super) fn leave(&mut self, pod: &Arc<Pod>) {
        if let Some(at) = self.pods.iter().position(|(one, _)| Arc::ptr_eq(one, pod)) {
            self.pods.swap_remove(at);
        }
    }

    pub(super) fn count(&mut self, shape: ShapeId, delta: i64) {
        match self.shapes.iter().position(|(one, _)| *one == shape) {
            Some(at) => {
                let left = self.shapes.get_mut(at).map_or(0, |(_, count)| {
                    *count = u32::try_from(i64::from(*count) + delta).unwrap_or(0);
                    *count
                });
                if left == 0 {
                    self.shapes.swap_remove(at);
                }
            }
            None => self.shapes.push((shape, 1)),
        }
    }

    /// Add what a pod of this shape holds, or take it away.
    pub fn weigh(&mut self, shape: &Shape, sign: i64) {
        let requests = &shape.requests;
        if sign > 0 {
            self.requested.add(requests.held);
        } else {
            self.requested.subtract(requests.held);
        }
        self.nonzero.0 += sign * requests.held_nonzero.0;
        self.nonzero.1 += sign * requests.held_nonzero.1;
        for (name, amount) in &requests.held_scalars {
            *self.scalars.entry(name.clone()).or_default() += sign * amount;
        }
        for port in &shape.host_ports {
            if sign > 0 {
                self.ports.insert(port.clone());
            } else {
                self.ports.remove(port);
            }
        }
    }

    /// Return the node as if so much were used there and nothing else; for filters that look at amounts alone.
    pub fn with_amounts(&self, requested: Amounts, scalars: Scalars) -> Seat {
        Seat {
            node: Arc::clone(&self.node),
            requested,
            scalars,
            ..Seat::default()
        }
    }

    /// Return a copy for what-if: the same node and what is used there, pods included.
    pub fn sketch(&self) -> Seat {
        Seat {
            node: Arc::clone(&self.node),
            is_gone: false,
            pods: self.pods.clone(),
            shapes: Vec::new(),
            requested: self.requested,
            nonzero: self.nonzero,
            scalars: self.scalars.clone(),
            ports: self.ports.clone(),
            images: Arc::clone(&self.images),
            images_as_of: self.images_as_of,
        }
    }
}
