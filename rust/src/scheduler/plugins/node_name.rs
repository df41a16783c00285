//! NodeName: a pod that names its node goes nowhere else. Mirrors plugins/nodename.

use crate::scheduler::framework::Rejection;
use crate::scheduler::node::Node;
use crate::scheduler::pod::Shape;

pub fn filter(shape: &Shape, node: &Node) -> Option<Rejection> {
    (!shape.pinned.is_empty() && shape.pinned != node.name)
        .then(|| Rejection::unresolvable("node(s) didn't match the requested node name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::node;

    #[test]
    fn only_the_named_node_will_do() {
        for (pinned, fits) in [("", true), ("a", true), ("b", false)] {
            let shape = Shape {
                pinned: pinned.into(),
                ..Shape::default()
            };
            assert_eq!(filter(&shape, &node("a")).is_none(), fits, "{pinned}");
        }
    }
}
