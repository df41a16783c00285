//! Sets of fields, as trees of path elements: what a manager owns, what a change touched.
//!
//! A node is a member, or has members below it, or both: a set never holds an empty branch. Nodes stand in the order of their
//! elements, so that all operations are merges and the wire form is the same for equal sets.

use std::cmp::Ordering;
use std::sync::Arc;

use super::path::Element;
use super::types::{Type, Types};
use super::value::Value;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set<'a> {
    nodes: Vec<Node<'a>>,
    /// The wire form of a set that nobody looks into; it has no nodes then.
    encoded: Option<Arc<[u8]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub element: Element<'a>,
    pub is_member: bool,
    pub below: Set<'a>,
}

impl<'a> Set<'a> {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.encoded.is_none()
    }

    /// A set of which only the wire form is known. It can be put into another set and be written, nothing else.
    pub fn encoded(fields: Arc<[u8]>) -> Self {
        Self {
            nodes: Vec::new(),
            encoded: Some(fields),
        }
    }

    /// The wire form of what is in the set at a field and below, None when nothing is.
    pub fn encoded_below(&self, field: &str) -> Option<Vec<u8>> {
        let node = self.find(&Element::field(field))?;
        let mut out = Vec::new();
        node.below.write_node(node.is_member, &mut out);
        Some(out)
    }

    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// Add a node at the end; empty ones are left out. The caller sorts when it has added all, with `sort`.
    pub fn push(&mut self, element: Element<'a>, is_member: bool, below: Set<'a>) {
        if is_member || !below.is_empty() {
            self.nodes.push(Node {
                element,
                is_member,
                below,
            });
        }
    }

    /// Put nodes in order; those with equal elements become one.
    pub fn sort(&mut self) {
        let is_ordered = self
            .nodes
            .windows(2)
            .all(|pair| matches!(pair, [left, right] if left.element < right.element));
        if is_ordered {
            return;
        }
        self.nodes
            .sort_by(|left, right| left.element.cmp(&right.element));
        let mut merged: Vec<Node<'a>> = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes) {
            match merged.last_mut() {
                Some(last) if last.element == node.element => {
                    last.is_member |= node.is_member;
                    last.below = last.below.union(&node.below);
                }
                _ => merged.push(node),
            }
        }
        self.nodes = merged;
    }

    /// The set of one path; an empty path gives an empty set, since nobody owns the whole object.
    pub fn of_path(path: &[Element<'a>]) -> Self {
        let mut set = Self::default();
        for (at, element) in path.iter().enumerate().rev() {
            let mut outer = Self::default();
            outer.push(element.clone(), at + 1 == path.len(), set);
            set = outer;
        }
        set
    }

    /// The set of dotted paths of fields.
    pub fn of_fields<'p>(paths: impl IntoIterator<Item = &'p str>) -> Set<'p> {
        let mut set = Set::default();
        for path in paths {
            let elements: Vec<_> = path.split('.').map(Element::field).collect();
            set = set.union(&Set::of_path(&elements));
        }
        set
    }

    fn find(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        let at = self
            .nodes
            .binary_search_by(|node| node.element.partial_cmp(element).unwrap_or(Ordering::Less))
            .ok()?;
        self.nodes.get(at)
    }

    /// Whether the element itself is a member, and what is in the set below it.
    pub fn at(&self, element: &Element<'_>) -> (bool, Option<&Set<'a>>) {
        match self.find(element) {
            Some(node) => (
                node.is_member,
                (!node.below.is_empty()).then_some(&node.below),
            ),
            None => (false, None),
        }
    }

    pub fn has(&self, path: &[Element<'_>]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        match self.find(first) {
            Some(node) if rest.is_empty() => node.is_member,
            Some(node) => node.below.has(rest),
            None => false,
        }
    }

    /// Walk both sets at once; `both` makes a node of two with one element.
    fn zip(
        &self,
        other: &Set<'a>,
        keeps_left: bool,
        keeps_right: bool,
        both: impl Fn(&Node<'a>, &Node<'a>) -> (bool, Set<'a>),
    ) -> Set<'a> {
        let mut out = Set::default();
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return out,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(two)) => one.element.cmp(&two.element),
            };
            match order {
                Ordering::Less => {
                    if let Some(node) = left.next()
                        && keeps_left
                    {
                        out.nodes.push(node.clone());
                    }
                }
                Ordering::Greater => {
                    if let Some(node) = right.next()
                        && keeps_right
                    {
                        out.nodes.push(node.clone());
                    }
                }
                Ordering::Equal => {
                    if let (Some(one), Some(two)) = (left.next(), right.next()) {
                        let (is_member, below) = both(one, two);
                        out.push(one.element.clone(), is_member, below);
                    }
                }
            }
        }
    }

    pub fn union(&self, other: &Set<'a>) -> Set<'a> {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        self.zip(other, true, true, |one, two| {
            (one.is_member || two.is_member, one.below.union(&two.below))
        })
    }

    pub fn intersection(&self, other: &Set<'a>) -> Set<'a> {
        self.zip(other, false, false, |one, two| {
            (
                one.is_member && two.is_member,
                one.below.intersection(&two.below),
            )
        })
    }

    /// What is in this set and not in the other. A member of `other` takes away itself, not what stands below it.
    pub fn difference(&self, other: &Set<'a>) -> Set<'a> {
        if other.is_empty() {
            return self.clone();
        }
        self.zip(other, true, false, |one, two| {
            (
                one.is_member && !two.is_member,
                one.below.difference(&two.below),
            )
        })
    }

    /// Whether every member of this set is one of the other.
    pub fn is_within(&self, other: &Set<'_>) -> bool {
        self.nodes
            .iter()
            .all(|node| match other.find(&node.element) {
                Some(found) => {
                    (found.is_member || !node.is_member) && node.below.is_within(&found.below)
                }
                None => false,
            })
    }

    /// Both sets in one, for sets that nobody needs any more.
    pub fn joined(self, other: Set<'a>) -> Set<'a> {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        self.union(&other)
    }

    /// Take away what is in the other set, in place. A member of `other` takes away itself, not what stands below it.
    pub fn subtract(&mut self, other: &Set<'_>) {
        self.take_away(other, &|node, gone| {
            node.is_member &= !gone.is_member;
            node.below.subtract(&gone.below);
        });
    }

    /// Like `subtract`, but a member of `other` takes all that stands below it too.
    pub fn subtract_below(&mut self, other: &Set<'_>) {
        self.take_away(other, &|node, gone| {
            if gone.is_member {
                (node.is_member, node.below) = (false, Set::default());
            } else {
                node.below.subtract_below(&gone.below);
            }
        });
    }

    fn take_away(&mut self, other: &Set<'_>, act: &impl Fn(&mut Node<'a>, &Node<'_>)) {
        let mut is_touched = false;
        for gone in &other.nodes {
            let found = self.nodes.binary_search_by(|node| {
                node.element
                    .partial_cmp(&gone.element)
                    .unwrap_or(Ordering::Less)
            });
            if let Some(node) = found.ok().and_then(|at| self.nodes.get_mut(at)) {
                act(node, gone);
                is_touched = true;
            }
        }
        if is_touched {
            self.nodes
                .retain(|node| node.is_member || !node.below.is_empty());
        }
    }

    /// This set with every declared field that leads to a member made a member too.
    pub fn with_named_fields(&self, types: &Types<'a>, of: Type) -> Set<'a> {
        let mut out = Set::default();
        for node in &self.nodes {
            let (is_declared, child) = match &node.element {
                Element::Field(name) => types.field(of, name),
                Element::Key(_) => (false, types.item(of)),
                Element::Value(_) | Element::Index(_) => (false, None),
            };
            let leads = is_declared && !node.below.is_empty();
            let below = match child {
                Some(child) => node.below.with_named_fields(types, child),
                None => node.below.clone(),
            };
            out.push(node.element.clone(), node.is_member || leads, below);
        }
        out
    }

    /// Call `visit` with the path of every member, parents first.
    pub fn each(&self, visit: &mut impl FnMut(&[Element<'a>])) {
        self.each_below(&mut Vec::new(), visit);
    }

    fn each_below(&self, path: &mut Vec<Element<'a>>, visit: &mut impl FnMut(&[Element<'a>])) {
        for node in self.nodes.iter().filter(|node| node.is_member) {
            path.push(node.element.clone());
            visit(path);
            path.pop();
        }
        for node in &self.nodes {
            path.push(node.element.clone());
            node.below.each_below(path, visit);
            path.pop();
        }
    }

    /// Read FieldsV1.
    pub fn read(fields: &Value<'a>) -> Result<Self, String> {
        let Value::Map(keys) = fields else {
            return Err("fieldsV1 must be an object".to_owned());
        };
        let mut set = Self::default();
        for (key, below) in keys {
            if key == "." {
                continue;
            }
            let Some(element) = Element::parse(key.clone())? else {
                continue;
            };
            let is_marked = below.get(".").is_some();
            let below = Self::read(below)?;
            let is_member = is_marked || below.is_empty();
            set.push(element, is_member, below);
        }
        set.sort();
        Ok(set)
    }

    /// Append FieldsV1.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_node(false, out);
    }

    fn write_node(&self, is_member: bool, out: &mut Vec<u8>) {
        if let Some(encoded) = &self.encoded {
            out.extend_from_slice(encoded);
            return;
        }
        out.push(b'{');
        if is_member && !self.is_empty() {
            out.extend_from_slice(b"\".\":{},");
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            node.element.write(out);
            out.push(b':');
            node.below.write_node(node.is_member, out);
        }
        out.push(b'}');
    }
}
