//! Shapes by number. A shape that no placed pod and no remembered class uses is dropped in time, so that a cluster that lives long
//! does not remember every pod it ever had.

use std::collections::HashMap;
use std::sync::Arc;

use super::pod::Shape;

pub type ShapeId = u32;
/// Below this many there is nothing to gain from sweeping.
const SWEEP_FROM: usize = 4096;

#[derive(Debug, Clone, Default)]
pub struct Shapes {
    ids: HashMap<Arc<Shape>, ShapeId>,
    all: Vec<Option<Arc<Shape>>>,
    /// How many placed pods have each shape.
    users: Vec<u32>,
    free: Vec<ShapeId>,
    sweep_at: usize,
}

impl Shapes {
    pub fn get(&self, id: ShapeId) -> Option<&Arc<Shape>> {
        self.all.get(id as usize).and_then(Option::as_ref)
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn find(&self, shape: &Shape) -> Option<ShapeId> {
        self.ids.get(shape).copied()
    }

    /// Return the shape's number, and whether it is new.
    pub fn intern(&mut self, shape: &Arc<Shape>) -> (ShapeId, bool) {
        if let Some(id) = self.ids.get(shape) {
            return (*id, false);
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.users.push(0);
            ShapeId::try_from(self.all.len() - 1).unwrap_or(ShapeId::MAX)
        });
        if let Some(place) = self.all.get_mut(id as usize) {
            *place = Some(Arc::clone(shape));
        }
        self.ids.insert(Arc::clone(shape), id);
        (id, true)
    }

    pub fn hold(&mut self, id: ShapeId) {
        if let Some(users) = self.users.get_mut(id as usize) {
            *users += 1;
        }
    }

    pub fn release(&mut self, id: ShapeId) {
        if let Some(users) = self.users.get_mut(id as usize) {
            *users = users.saturating_sub(1);
        }
    }

    /// Return whether there are many more shapes than after the last sweep.
    pub fn wants_sweep(&self) -> bool {
        self.ids.len() > self.sweep_at.max(SWEEP_FROM)
    }

    /// Drop shapes without users.
    pub fn sweep(&mut self) {
        let users = &self.users;
        let all = &mut self.all;
        let free = &mut self.free;
        self.ids.retain(|_, id| {
            let is_used = users.get(*id as usize).is_some_and(|count| *count > 0);
            if !is_used {
                if let Some(place) = all.get_mut(*id as usize) {
                    *place = None;
                }
                free.push(*id);
            }
            is_used
        });
        self.sweep_at = self.ids.len() * 2;
    }
}
