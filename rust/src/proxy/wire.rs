//! The fields of Services and EndpointSlices that the proxy reads, as they stand in JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

/// Read a field that may be absent or null as its default.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! wire_struct {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Default, Clone, Deserialize)]
            #[serde(default, rename_all = "camelCase")]
            pub struct $name {
                $($(#[$field_meta])* #[serde(deserialize_with = "nullable")] pub $field: $type,)*
            }
        )*
    };
}

wire_struct! {
    Metadata {
        name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
    Service { metadata: Metadata, spec: ServiceSpec, status: ServiceStatus }
    ServiceSpec {
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        ports: Vec<ServicePort>,
        session_affinity: String,
        session_affinity_config: SessionAffinityConfig,
        internal_traffic_policy: String,
        external_traffic_policy: String,
    }
    ServicePort { name: String, protocol: String, port: u16, node_port: u16 }
    SessionAffinityConfig {
        #[serde(rename = "clientIP")]
        client_ip: ClientIp,
    }
    ClientIp { timeout_seconds: u32 }
    ServiceStatus { load_balancer: LoadBalancer }
    LoadBalancer { ingress: Vec<Ingress> }
    Ingress { ip: String, ip_mode: String }
    EndpointSlice {
        metadata: Metadata,
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
    Endpoint { addresses: Vec<String>, conditions: Conditions, node_name: String }
    /// Absent conditions have their defaults: ready, serving, not terminating.
    Conditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool> }
    EndpointPort { name: String, protocol: String, port: u16 }
}

/// A transport protocol, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// Read `TCP`, `UDP` or `SCTP`; empty means TCP.
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// Return the addresses that can be read.
pub fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}
