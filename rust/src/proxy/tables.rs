//! The flat layout: which elements the sets and maps of the table hold.
//!
//! There is no chain per service. `services` maps (address, protocol, port) to a chain that is shared by all services with as many
//! endpoints; that chain draws a slot and finds the endpoint under (address, protocol, port, slot) in `endpoints`. One endpoint is one
//! element, so a change costs the same in a cluster of ten services and of ten thousand. Node ports have a pair of maps of their own.
//! Services with session affinity are the exception: each has its own chain (see `rules`). Keys and values stand here in the
//! kernel's form: each field padded to four bytes, ports and addresses in network order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::desired::{Desired, ServicePort, Target};
use super::wire::Protocol;

/// The sets and maps of the table, in the order in which additions go to the kernel: an endpoint before what leads to it.
pub const SETS: [&str; 7] = [
    "endpoints",
    "nodeport-endpoints",
    "hairpin",
    "services",
    "nodeports",
    "cluster-ips",
    "no-endpoint-nodeports",
];
/// How many of `SETS` come first when adding and last when deleting.
pub const LEAVES: usize = 3;

/// What an element of a map holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An element of a plain set.
    None,
    Value(Vec<u8>),
    Goto(String),
}

/// Elements by set and key.
pub type Elements = BTreeMap<&'static str, BTreeMap<Vec<u8>, Data>>;

/// A service port with session affinity: its chains and sets are made as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affinity {
    /// Names the chains and sets; changes with the service port and its timeout.
    pub id: String,
    pub timeout_s: u32,
    pub targets: Vec<Target>,
}

/// What the table should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub elements: Elements,
    /// Shared chains by name, each with the number of slots it draws from.
    pub chains: BTreeSet<SharedChain>,
    pub affinities: BTreeSet<Affinity>,
}

/// What a shared chain does before it draws a slot, and where it looks it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// From inside: by address, protocol and port.
    Cluster,
    /// To an external address: the same, and the source is hidden, so that replies come back through this node.
    External,
    /// To an external address, keeping the source.
    ExternalLocal,
    /// To a node port, hiding the source.
    NodePort,
    /// To a node port, keeping the source.
    NodePortLocal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedChain {
    pub role: Role,
    pub slots: usize,
}

impl SharedChain {
    /// Return the chain's name, such as `cluster-3`.
    pub fn name(&self) -> String {
        let role = match self.role {
            Role::Cluster => "cluster",
            Role::External => "external",
            Role::ExternalLocal => "external-local",
            Role::NodePort => "nodeport",
            Role::NodePortLocal => "nodeport-local",
        };
        format!("{role}-{}", self.slots)
    }
}

/// Lay out what should be reachable. Only IPv4 so far: other addresses are left out.
pub fn lay_out(desired: &Desired) -> Tables {
    let mut tables = Tables {
        elements: SETS.iter().map(|set| (*set, BTreeMap::new())).collect(),
        ..Tables::default()
    };
    for port in &desired.ports {
        tables.add_addresses(port);
        tables.add_node_port(port);
    }
    tables
}

impl Tables {
    fn put(&mut self, set: &'static str, key: Vec<u8>, data: Data) {
        self.elements.entry(set).or_default().insert(key, data);
    }

    fn add_addresses(&mut self, port: &ServicePort) {
        for ip in ipv4(&port.cluster_ips) {
            self.put("cluster-ips", ip.octets().to_vec(), Data::None);
            self.add_address(port, ip, &port.internal, Role::Cluster);
        }
        let role = if port.keeps_source {
            Role::ExternalLocal
        } else {
            Role::External
        };
        for ip in ipv4(&port.external_ips) {
            self.add_address(port, ip, &port.external, role);
        }
    }

    fn add_address(&mut self, port: &ServicePort, ip: Ipv4Addr, targets: &[Target], role: Role) {
        let targets = reachable(targets);
        if targets.is_empty() {
            return;
        }
        self.add_hairpins(&targets);
        let key = address_key(ip, port.protocol, port.port);
        if let Some(timeout_s) = port.affinity_s {
            let chain = self.affinity_chain(port, timeout_s, &targets, role);
            self.put("services", key, Data::Goto(chain));
            return;
        }
        for (slot, target) in targets.iter().enumerate() {
            self.put("endpoints", slot_key(&key, slot), target_value(target));
        }
        let chain = SharedChain {
            role,
            slots: targets.len(),
        };
        self.chains.insert(chain);
        self.put("services", key, Data::Goto(chain.name()));
    }

    fn add_node_port(&mut self, port: &ServicePort) {
        if port.node_port == 0 {
            return;
        }
        let key = port_key(port.protocol, port.node_port);
        let targets = reachable(&port.external);
        if targets.is_empty() {
            self.put("no-endpoint-nodeports", key, Data::None);
            return;
        }
        self.add_hairpins(&targets);
        let role = if port.keeps_source {
            Role::NodePortLocal
        } else {
            Role::NodePort
        };
        if let Some(timeout_s) = port.affinity_s {
            let chain = self.affinity_chain(port, timeout_s, &targets, role);
            self.put("nodeports", key, Data::Goto(chain));
            return;
        }
        for (slot, target) in targets.iter().enumerate() {
            self.put(
                "nodeport-endpoints",
                slot_key(&key, slot),
                target_value(target),
            );
        }
        let chain = SharedChain {
            role,
            slots: targets.len(),
        };
        self.chains.insert(chain);
        self.put("nodeports", key, Data::Goto(chain.name()));
    }

    /// An endpoint that reaches itself through a service must see another source address, or it would answer itself directly.
    fn add_hairpins(&mut self, targets: &[Target]) {
        for ip in ipv4(targets.iter().map(|target| &target.ip)) {
            self.put("hairpin", [ip.octets(), ip.octets()].concat(), Data::None);
        }
    }

    /// Return the chain of a service port with affinity; connections from outside enter through one that hides their source.
    fn affinity_chain(
        &mut self,
        port: &ServicePort,
        timeout_s: u32,
        targets: &[Target],
        role: Role,
    ) -> String {
        let scope = if port.internal == port.external || role == Role::Cluster {
            ""
        } else {
            "/external"
        };
        let id = format!(
            "{:016x}",
            fingerprint(&format!(
                "{}/{:?}/{timeout_s}{scope}",
                port.name, port.protocol
            ))
        );
        let chain = match role {
            Role::External | Role::NodePort => affinity_masquerade_chain(&id),
            Role::Cluster | Role::ExternalLocal | Role::NodePortLocal => affinity_chain(&id),
        };
        self.affinities.insert(Affinity {
            id,
            timeout_s,
            targets: targets.to_vec(),
        });
        chain
    }
}

/// Name the chain of a service port with affinity.
pub fn affinity_chain(id: &str) -> String {
    format!("affinity-{id}")
}

/// Name the chain that hides the source and goes on to the one above.
pub fn affinity_masquerade_chain(id: &str) -> String {
    format!("affinity-masquerade-{id}")
}

fn ipv4<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> Vec<Ipv4Addr> {
    addresses
        .into_iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
        .collect()
}

fn reachable(targets: &[Target]) -> Vec<Target> {
    targets
        .iter()
        .copied()
        .filter(|target| target.ip.is_ipv4())
        .collect()
}

pub fn address_key(ip: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = ip.octets().to_vec();
    key.extend(port_key(protocol, port));
    key
}

pub fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol as u8, 0, 0, 0, high, low, 0, 0]
}

fn slot_key(key: &[u8], slot: usize) -> Vec<u8> {
    // The slot is what numgen draws: a number in the machine's own order.
    let slot = u32::try_from(slot).unwrap_or(u32::MAX).to_ne_bytes();
    [key, &slot].concat()
}

/// Return an endpoint as the value of a map element.
pub fn target_value(target: &Target) -> Data {
    let IpAddr::V4(ip) = target.ip else {
        return Data::None;
    };
    let [high, low] = target.port.to_be_bytes();
    Data::Value([&ip.octets()[..], &[high, low, 0, 0]].concat())
}

/// FNV-1a: short, and the same in every process.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::desired::tests::{join, service, slice};
    use super::*;
    use serde_json::{Value, json};

    fn laid_out(extra: Value, endpoints: &[&str]) -> Tables {
        let mut spec = json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|ip| (*ip, json!({}), "here"))
            .collect();
        lay_out(&join(&[service("web", spec)], &[slice("web", &endpoints)]))
    }

    fn goto(tables: &Tables, set: &str) -> Option<String> {
        tables.elements[set].values().next().map(|data| match data {
            Data::Goto(chain) => chain.clone(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn an_endpoint_is_one_element_and_chains_are_shared_by_count() {
        let tables = laid_out(json!({}), &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(goto(&tables, "services"), Some("cluster-2".into()));
        assert_eq!(goto(&tables, "nodeports"), Some("nodeport-2".into()));
        let mut key = vec![10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0];
        key.extend(1u32.to_ne_bytes());
        assert_eq!(
            tables.elements["endpoints"][&key],
            Data::Value(vec![10, 0, 0, 2, 0x1f, 0x90, 0, 0])
        );
        assert_eq!(tables.elements["nodeport-endpoints"].len(), 2);
        assert_eq!(tables.elements["hairpin"].len(), 2);
        assert_eq!(tables.chains.len(), 2);
    }

    #[test]
    fn a_service_without_endpoints_keeps_its_address_so_that_it_can_be_refused() {
        let tables = laid_out(json!({}), &[]);
        assert_eq!(goto(&tables, "services"), None);
        assert_eq!(tables.elements["cluster-ips"].len(), 1);
        assert_eq!(tables.elements["no-endpoint-nodeports"].len(), 1);
    }

    #[test]
    fn affinity_has_chains_of_its_own_and_no_slots() {
        let tables = laid_out(json!({"sessionAffinity": "ClientIP"}), &["10.0.0.1"]);
        let chain = goto(&tables, "services").unwrap();
        assert!(
            chain.starts_with("affinity-") && !chain.contains("masquerade"),
            "{chain}"
        );
        assert!(
            goto(&tables, "nodeports")
                .unwrap()
                .starts_with("affinity-masquerade-")
        );
        assert_eq!(
            (tables.elements["endpoints"].len(), tables.affinities.len()),
            (0, 1)
        );
    }

    #[test]
    fn external_addresses_hide_the_source_unless_the_policy_is_local() {
        for (policy, chain) in [("Cluster", "external-1"), ("Local", "external-local-1")] {
            let tables = laid_out(
                json!({"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": policy}),
                &["10.0.0.1"],
            );
            let key = address_key("192.0.2.1".parse().unwrap(), Protocol::Tcp, 80);
            assert_eq!(tables.elements["services"][&key], Data::Goto(chain.into()));
        }
    }
}
