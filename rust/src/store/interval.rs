//! Which of many spans cover a key: a treap ordered by where spans start, each node knowing how far anything below it reaches.
//!
//! A look-up visits only subtrees that reach beyond the key, so it costs O(log n) and what it finds. Priorities are a hash of the
//! span, so that the tree's shape depends on nothing but its content.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

type Bytes = Box<[u8]>;

/// Values by span. The end is exclusive; None is no end.
#[derive(Debug)]
pub(crate) struct IntervalMap<T> {
    root: Link<T>,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: Option<Bytes>,
    /// The furthest end in this subtree.
    reach: Option<Bytes>,
    priority: u64,
    value: T,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Default for IntervalMap<T> {
    fn default() -> Self {
        IntervalMap { root: None }
    }
}

impl<T: Default> IntervalMap<T> {
    /// Make the value of exactly this span, unless there is one.
    pub(crate) fn ensure(&mut self, start: &[u8], end: Option<&[u8]>) {
        if self.get_mut(start, end).is_none() {
            let node = Node::new(start, end);
            let root = self.root.take();
            self.root = Some(insert(root, Box::new(node)));
        }
    }

    pub(crate) fn get_mut(&mut self, start: &[u8], end: Option<&[u8]>) -> Option<&mut T> {
        find(&mut self.root, start, end).map(|node| &mut node.value)
    }

    pub(crate) fn remove(&mut self, start: &[u8], end: Option<&[u8]>) {
        let root = self.root.take();
        self.root = remove(root, start, end);
    }

    /// Call `visit` with the value of every span that covers `key`.
    pub(crate) fn covering<'a>(&'a self, key: &[u8], visit: &mut impl FnMut(&'a T)) {
        covering(&self.root, key, visit);
    }
}

impl<T: Default> Node<T> {
    fn new(start: &[u8], end: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        (start, end).hash(&mut hasher);
        Node {
            start: start.into(),
            end: end.map(Bytes::from),
            reach: end.map(Bytes::from),
            priority: hasher.finish(),
            value: T::default(),
            left: None,
            right: None,
        }
    }
}

impl<T> Node<T> {
    fn order(&self, start: &[u8], end: Option<&[u8]>) -> Ordering {
        start
            .cmp(&self.start)
            .then_with(|| end.cmp(&self.end.as_deref()))
    }

    fn measure(&mut self) {
        let below = [&self.left, &self.right];
        let reaches = below.into_iter().flatten().map(|node| &node.reach);
        let furthest = std::iter::once(&self.end)
            .chain(reaches)
            .reduce(|one, other| {
                if reaches_further(other, one) {
                    other
                } else {
                    one
                }
            });
        self.reach = furthest.cloned().unwrap_or_default();
    }
}

fn reaches_further(one: &Option<Bytes>, other: &Option<Bytes>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

fn reaches_beyond(end: &Option<Bytes>, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| key < &**end)
}

fn find<'a, T>(link: &'a mut Link<T>, start: &[u8], end: Option<&[u8]>) -> Option<&'a mut Node<T>> {
    let node = link.as_deref_mut()?;
    match node.order(start, end) {
        Ordering::Equal => Some(node),
        Ordering::Less => find(&mut node.left, start, end),
        Ordering::Greater => find(&mut node.right, start, end),
    }
}

fn insert<T>(link: Link<T>, new: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut node) = link else {
        return new;
    };
    if new.priority > node.priority {
        let mut new = new;
        (new.left, new.right) = split(Some(node), &new.start, new.end.as_deref());
        new.measure();
        return new;
    }
    if node.order(&new.start, new.end.as_deref()) == Ordering::Less {
        node.left = Some(insert(node.left.take(), new));
    } else {
        node.right = Some(insert(node.right.take(), new));
    }
    node.measure();
    node
}

/// What lies before the span, and what behind it.
fn split<T>(link: Link<T>, start: &[u8], end: Option<&[u8]>) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else {
        return (None, None);
    };
    if node.order(start, end) == Ordering::Less {
        let (before, behind) = split(node.left.take(), start, end);
        node.left = behind;
        node.measure();
        (before, Some(node))
    } else {
        let (before, behind) = split(node.right.take(), start, end);
        node.right = before;
        node.measure();
        (Some(node), behind)
    }
}

fn remove<T>(link: Link<T>, start: &[u8], end: Option<&[u8]>) -> Link<T> {
    let mut node = link?;
    match node.order(start, end) {
        Ordering::Equal => return merge(node.left.take(), node.right.take()),
        Ordering::Less => node.left = remove(node.left.take(), start, end),
        Ordering::Greater => node.right = remove(node.right.take(), start, end),
    }
    node.measure();
    Some(node)
}

fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, other) | (other, None) => other,
        (Some(mut left), Some(mut right)) => Some(if left.priority > right.priority {
            left.right = merge(left.right.take(), Some(right));
            left.measure();
            left
        } else {
            right.left = merge(Some(left), right.left.take());
            right.measure();
            right
        }),
    }
}

fn covering<'a, T>(link: &'a Link<T>, key: &[u8], visit: &mut impl FnMut(&'a T)) {
    let Some(node) = link
        .as_deref()
        .filter(|node| reaches_beyond(&node.reach, key))
    else {
        return;
    };
    covering(&node.left, key, visit);
    if *node.start <= *key {
        if reaches_beyond(&node.end, key) {
            visit(&node.value);
        }
        covering(&node.right, key, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(map: &IntervalMap<Vec<u32>>, key: &[u8]) -> Vec<u32> {
        let mut all = Vec::new();
        map.covering(key, &mut |values| all.extend(values));
        all.sort_unstable();
        all
    }

    #[test]
    fn it_finds_what_a_scan_of_all_spans_finds() {
        let mut map = IntervalMap::<Vec<u32>>::default();
        let mut spans: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            (seed >> 33) % below
        };
        for id in 0..400 {
            let start = vec![random(40) as u8, random(4) as u8];
            let end = match random(8) {
                0 => None,
                1 => Some(vec![start[0]]),
                _ => Some(vec![start[0] + random(12) as u8, random(4) as u8]),
            };
            map.ensure(&start, end.as_deref());
            map.get_mut(&start, end.as_deref()).unwrap().push(id);
            spans.push((start, end));
        }
        for removed in 0..400 {
            for _ in 0..3 {
                let key = [random(45) as u8, random(5) as u8];
                let expected: Vec<u32> = (removed..400)
                    .filter(|id| {
                        let (start, end) = &spans[*id as usize];
                        start.as_slice() <= &key[..]
                            && end.as_ref().is_none_or(|end| key[..] < **end)
                    })
                    .collect();
                assert_eq!(found(&map, &key), expected);
            }
            let (start, end) = &spans[removed as usize];
            let values = map.get_mut(start, end.as_deref()).unwrap();
            values.retain(|id| *id != removed);
            if values.is_empty() {
                map.remove(start, end.as_deref());
            }
        }
        assert!(map.root.is_none());
    }
}
