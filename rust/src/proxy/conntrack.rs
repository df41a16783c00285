//! Ends tracked UDP flows that lead to an endpoint which is no longer one. TCP notices by itself; a UDP client that keeps its source port
//! would stay with the dead endpoint as long as it talks. Mirrors kube-proxy's conntrack cleanup.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use super::desired::Target;
use super::netlink::{ACK, Attributes, DUMP, FAMILY_IPV4, Netfilter, REQUEST, Writer};
use super::tables::{
    Affinity, Data, Elements, address_key, affinity_chain, affinity_masquerade_chain, port_key,
    target_value,
};
use super::wire::Protocol;

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PORT_SOURCE: u16 = 2;
const PORT_DESTINATION: u16 = 3;

/// Where UDP may go: for each service address or node port its endpoints, as map values.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Routes {
    /// (key without slot, value) pairs.
    pairs: BTreeSet<(Vec<u8>, Vec<u8>)>,
    keys: BTreeSet<Vec<u8>>,
}

impl Routes {
    /// Collect the UDP routes of a table. An affinity that is not among those given leads nowhere.
    pub fn of<'a>(
        elements: &Elements,
        affinities: impl IntoIterator<Item = &'a Affinity>,
    ) -> Routes {
        let mut routes = Routes::default();
        let is_udp = |key: &[u8], at: usize| key.get(at) == Some(&(Protocol::Udp as u8));
        for (map, protocol_at) in [("endpoints", 4), ("nodeport-endpoints", 0)] {
            for (key, data) in elements.get(map).into_iter().flatten() {
                if let (true, Data::Value(value)) = (is_udp(key, protocol_at), data) {
                    let key = key
                        .get(..key.len().saturating_sub(4))
                        .unwrap_or_default()
                        .to_vec();
                    routes.add(key, value.clone());
                }
            }
        }
        let mut targets: BTreeMap<String, &[Target]> = BTreeMap::new();
        for affinity in affinities {
            targets.insert(affinity_chain(&affinity.id), &affinity.targets);
            targets.insert(affinity_masquerade_chain(&affinity.id), &affinity.targets);
        }
        for (map, protocol_at) in [("services", 4), ("nodeports", 0)] {
            for (key, data) in elements.get(map).into_iter().flatten() {
                if let (true, Data::Goto(chain)) = (is_udp(key, protocol_at), data) {
                    for target in targets.get(chain).copied().unwrap_or_default() {
                        if let Data::Value(value) = target_value(target) {
                            routes.add(key.clone(), value);
                        }
                    }
                }
            }
        }
        routes
    }

    fn add(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.keys.insert(key.clone());
        self.pairs.insert((key, value));
    }

    /// Return whether a flow with this original destination, answered from `reply`, leads nowhere any more; `before` are the routes
    /// that were.
    fn is_stale(&self, before: &Routes, flow: &Flow) -> bool {
        let address = address_key(flow.destination, Protocol::Udp, flow.port);
        let node_port = port_key(Protocol::Udp, flow.port);
        for key in [address, node_port] {
            if self.keys.contains(&key) {
                return !self.pairs.contains(&(key, flow.reply.clone()));
            }
            if before.keys.contains(&key) {
                return true;
            }
        }
        false
    }
}

/// A tracked flow, as far as it matters here.
struct Flow {
    destination: Ipv4Addr,
    port: u16,
    /// Who answers, in the form of a map value.
    reply: Vec<u8>,
}

/// Delete the stale flows and return how many there were.
pub fn clean(netfilter: &mut Netfilter, before: &Routes, now: &Routes) -> io::Result<usize> {
    let mut request = Writer::default();
    let message = request.begin(
        GET,
        REQUEST | DUMP,
        netfilter.next_sequence(),
        FAMILY_IPV4,
        0,
    );
    request.end(message);
    let mut stale = Vec::new();
    netfilter.dump(&request, |message| {
        let attributes = message.attributes();
        if let (Some(flow), Some(tuple)) = (read(attributes), attributes.find(TUPLE_ORIGINAL))
            && now.is_stale(before, &flow)
        {
            stale.push(tuple.to_vec());
        }
    })?;
    for tuple in &stale {
        let mut request = Writer::default();
        let sequence = netfilter.next_sequence();
        let message = request.begin(DELETE, REQUEST | ACK, sequence, FAMILY_IPV4, 0);
        let nest = request.nest(TUPLE_ORIGINAL);
        for (kind, value) in Attributes::of(tuple) {
            // Both parts of a tuple are nested again.
            let inner = request.nest(kind);
            for (kind, value) in Attributes::of(value) {
                request.attribute(kind, value);
            }
            request.end_nest(inner);
        }
        request.end_nest(nest);
        request.end(message);
        match netfilter.transact(&request, sequence, sequence) {
            // It ended by itself meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

fn read(attributes: Attributes<'_>) -> Option<Flow> {
    if attributes.path(&[TUPLE_ORIGINAL, TUPLE_PROTOCOL, PROTOCOL_NUMBER])? != [Protocol::Udp as u8]
    {
        return None;
    }
    let destination = attributes.path(&[TUPLE_ORIGINAL, TUPLE_IP, IPV4_DESTINATION])?;
    let port = attributes.path(&[TUPLE_ORIGINAL, TUPLE_PROTOCOL, PORT_DESTINATION])?;
    let source = attributes.path(&[TUPLE_REPLY, TUPLE_IP, IPV4_SOURCE])?;
    let source_port = attributes.path(&[TUPLE_REPLY, TUPLE_PROTOCOL, PORT_SOURCE])?;
    Some(Flow {
        destination: Ipv4Addr::from(<[u8; 4]>::try_from(destination).ok()?),
        port: u16::from_be_bytes(port.try_into().ok()?),
        reply: [source, source_port, &[0, 0]].concat(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(endpoints: &[[u8; 4]]) -> Routes {
        let key = |slot: u8| {
            [
                address_key([10, 96, 0, 9].into(), Protocol::Udp, 53),
                vec![slot, 0, 0, 0],
            ]
            .concat()
        };
        let elements = endpoints.iter().enumerate().map(|(slot, ip)| {
            (
                key(slot as u8),
                Data::Value([&ip[..], &[0, 53, 0, 0]].concat()),
            )
        });
        Routes::of(&BTreeMap::from([("endpoints", elements.collect())]), [])
    }

    #[test]
    fn endpoints_behind_an_affinity_count_as_well() {
        let key = address_key([10, 96, 0, 9].into(), Protocol::Udp, 53);
        let target = Target {
            ip: [10, 0, 0, 1].into(),
            port: 53,
        };
        let affinity = Affinity {
            id: "1".into(),
            timeout_s: 9,
            targets: vec![target],
        };
        let elements = BTreeMap::from([(
            "services",
            BTreeMap::from([(key, Data::Goto("affinity-1".into()))]),
        )]);
        assert_eq!(Routes::of(&elements, [&affinity]), routes(&[[10, 0, 0, 1]]));
        assert_eq!(Routes::of(&elements, []), Routes::default());
    }

    #[test]
    fn a_flow_is_stale_when_its_endpoint_is_none_any_more() {
        let flow = |destination: [u8; 4], reply: [u8; 4]| Flow {
            destination: destination.into(),
            port: 53,
            reply: [&reply[..], &[0, 53, 0, 0]].concat(),
        };
        let service = [10, 96, 0, 9];
        let (one, two, none) = (
            routes(&[[10, 0, 0, 1]]),
            routes(&[[10, 0, 0, 1], [10, 0, 0, 2]]),
            routes(&[]),
        );
        let table = [
            (&two, &one, flow(service, [10, 0, 0, 2]), true),
            (&two, &one, flow(service, [10, 0, 0, 1]), false),
            (&one, &none, flow(service, [10, 0, 0, 1]), true),
            // It began before there was any endpoint.
            (&none, &one, flow(service, service), true),
            (&one, &none, flow([8, 8, 8, 8], [8, 8, 8, 8]), false),
        ];
        for (before, now, flow, expected) in table {
            assert_eq!(now.is_stale(before, &flow), expected);
        }
    }
}
