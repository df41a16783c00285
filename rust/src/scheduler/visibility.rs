//! Which labels of pods can matter. A label whose key no selector names changes no decision, so it is left out of the shape: pods that
//! differ in nothing else (members of a StatefulSet or an indexed Job, for instance) then share one. Keys are only ever added.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::labels::Selector;
use super::pod::Shape;

#[derive(Debug, Default)]
pub struct VisibleLabels {
    keys: BTreeSet<String>,
}

impl VisibleLabels {
    /// Let the keys that a pod's own terms and constraints name be seen; return whether one is new.
    pub fn learn(&mut self, shape: &Shape) -> bool {
        let terms = shape.inter_pod.terms().map(|term| &term.selector);
        let spread = shape.spread.iter().map(|one| &one.selector);
        let mut is_new = false;
        for key in terms.chain(spread).flat_map(Selector::keys) {
            is_new |= self.learn_key(key);
        }
        is_new
    }

    /// Let a key be seen; return whether it is new.
    pub fn learn_key(&mut self, key: &str) -> bool {
        !self.keys.contains(key) && self.keys.insert(key.to_string())
    }

    /// Return the shape with no other labels than those that can be seen.
    pub fn cut(&self, shape: &Arc<Shape>) -> Arc<Shape> {
        if shape.labels.keys().all(|key| self.keys.contains(key)) {
            return Arc::clone(shape);
        }
        let mut cut = (**shape).clone();
        cut.labels.retain(|key, _| self.keys.contains(key));
        Arc::new(cut)
    }
}
