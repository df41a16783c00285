//! Which domain of a topology each node is in: the value of one label, as a small number.

use std::collections::HashMap;

use super::node::Node;

/// The domain of a node without the label.
pub const NO_DOMAIN: u32 = u32::MAX;
pub const HOSTNAME: &str = "kubernetes.io/hostname";

#[derive(Debug, Clone)]
pub struct Topology {
    pub key: String,
    /// By rank.
    pub domain_of: Vec<u32>,
    /// How many domains there are; they are numbered from zero.
    pub len: usize,
    /// Whether no node lacks the label.
    pub has_every_node: bool,
    /// Whether no domain has a second node, as with host names.
    pub is_by_node: bool,
}

impl Topology {
    fn read<'a>(key: &str, nodes: impl Iterator<Item = &'a Node>) -> Topology {
        let mut numbers: HashMap<&'a str, u32> = HashMap::new();
        let domain_of: Vec<u32> = nodes
            .map(|node| {
                node.labels.get(key).map_or(NO_DOMAIN, |value| {
                    let next = u32::try_from(numbers.len()).unwrap_or(NO_DOMAIN);
                    *numbers.entry(value.as_str()).or_insert(next)
                })
            })
            .collect();
        let inside = domain_of.iter().filter(|one| **one != NO_DOMAIN).count();
        Topology {
            key: key.to_string(),
            has_every_node: inside == domain_of.len(),
            is_by_node: inside == numbers.len(),
            domain_of,
            len: numbers.len(),
        }
    }

    /// Return the node's domain, or None when it has not got the label.
    pub fn domain(&self, rank: usize) -> Option<usize> {
        self.domain_of
            .get(rank)
            .filter(|domain| **domain != NO_DOMAIN)
            .map(|domain| *domain as usize)
    }
}

/// All topologies that any pod or default constraint has named so far.
#[derive(Debug, Clone, Default)]
pub struct Topologies {
    all: Vec<Topology>,
    by_key: HashMap<String, usize>,
}

impl Topologies {
    pub fn get(&self, id: usize) -> Option<&Topology> {
        self.all.get(id)
    }

    pub fn find(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Make sure that the topology is known.
    pub fn register<'a>(&mut self, key: &str, nodes: impl Iterator<Item = &'a Node>) {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.to_string(), self.all.len());
            self.all.push(Topology::read(key, nodes));
        }
    }

    /// Number the domains anew after nodes came, went or changed their labels.
    pub fn rebuild<'a, I: Iterator<Item = &'a Node>>(&mut self, nodes: impl Fn() -> I) {
        for one in &mut self.all {
            *one = Topology::read(&one.key, nodes());
        }
    }
}
