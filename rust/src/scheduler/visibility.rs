//! Which labels of pods can matter. A label whose key no selector names changes no decision, so it is left out of the shape: pods that
//! differ in nothing else (members of a StatefulSet or an indexed Job, for instance) then share one. Keys are only ever added.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::labels::Selector;
use super::pod::Shape;

#[derive(Debug, Clone, Default)]
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

#[cfg(test)]
mod tests {
    use crate::scheduler::engine::Engine;
    use crate::scheduler::fixtures::{node, pod_from_with_labels};
    use serde_json::{Value, json};

    fn place(engine: &mut Engine, name: &str, labels: Value, spec: Value) -> Option<String> {
        let pod = pod_from_with_labels(name, labels, spec);
        engine.schedule(vec![pod], 0).remove(0).result.ok()
    }

    fn apart(selector: Value) -> Value {
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector});
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    #[test]
    fn pods_that_differ_in_labels_nobody_selects_share_a_shape() {
        let mut engine = Engine::default();
        engine.snapshot.upsert_node(node("a"));
        for index in 0..5 {
            let labels = json!({"app": "x", "index": index.to_string()});
            assert!(place(&mut engine, &format!("p{index}"), labels, json!({})).is_some());
        }
        assert_eq!(engine.snapshot.shapes.len(), 1);
    }

    #[test]
    fn a_selector_that_comes_later_sees_the_labels_of_those_who_were_there() {
        let mut engine = Engine::default();
        for name in ["a", "b"] {
            engine.snapshot.upsert_node(node(name));
        }
        let first = place(
            &mut engine,
            "p",
            json!({"app": "x", "index": "1"}),
            json!({}),
        );
        assert_eq!(first.as_deref(), Some("a"));
        let away = apart(json!({"matchLabels": {"index": "1"}}));
        assert_eq!(
            place(&mut engine, "q", json!({}), away.clone()).as_deref(),
            Some("b")
        );
        // And those who come later with that label are kept apart from the one that minds.
        let with_label = json!({"index": "1"});
        assert_eq!(
            place(&mut engine, "r", with_label, json!({})).as_deref(),
            Some("a")
        );
        engine.remove("Pod", &["default/p".into(), "default/r".into()]);
        assert_eq!(
            place(&mut engine, "s", json!({}), away).as_deref(),
            Some("a")
        );
    }
}
