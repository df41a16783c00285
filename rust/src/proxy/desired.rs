//! Services joined with their EndpointSlices: what should be reachable, and where it leads.
//!
//! A service port may use its ready endpoints; when there is none, those that are terminating but still serve. With the policy Local
//! only endpoints on this node count. Headless and ExternalName services have nothing to route, and a service annotated
//! `korch.dev/served-by-node: "true"` is answered by the node itself, so its address is left alone. Mirrors kube-proxy's
//! ServicePortMap, EndpointsMap and CategorizeEndpoints.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::ProxyError;
use super::wire::{self, Protocol};

/// Services with this annotation are served by the node under their cluster IP.
pub const SERVED_BY_NODE: &str = "korch.dev/served-by-node";
/// Services with this label belong to another proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// Where an endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub ip: IpAddr,
    pub port: u16,
}

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, the port's name being empty for a service with a single unnamed port.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// 0: none.
    pub node_port: u16,
    pub cluster_ips: Vec<IpAddr>,
    /// External and load balancer addresses.
    pub external_ips: Vec<IpAddr>,
    /// How long a client stays with its endpoint, in seconds.
    pub affinity_s: Option<u32>,
    /// For connections from inside the cluster, sorted.
    pub internal: Vec<Target>,
    /// For connections from outside, sorted.
    pub external: Vec<Target>,
    /// The source address of connections from outside must be kept.
    pub keeps_source: bool,
}

/// Everything that should be reachable, in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub ports: Vec<ServicePort>,
}

/// Objects that were read before, by a hash of their bytes, so that an update reads only what changed.
#[derive(Debug, Default)]
pub struct Objects {
    services: HashMap<u64, Arc<wire::Service>>,
    slices: HashMap<u64, Arc<wire::EndpointSlice>>,
}

impl Objects {
    /// Join complete lists of Services and EndpointSlices for the node. Nothing changes when one of them cannot be read.
    pub fn join(
        &mut self,
        services: &[impl AsRef<[u8]>],
        slices: &[impl AsRef<[u8]>],
        node: &str,
    ) -> Result<Desired, ProxyError> {
        let (services, services_read) = read(&self.services, services, "Service")?;
        let (slices, slices_read) = read(&self.slices, slices, "EndpointSlice")?;
        self.services = services_read;
        self.slices = slices_read;
        let mut by_service: BTreeMap<String, Vec<Arc<wire::EndpointSlice>>> = BTreeMap::new();
        for slice in slices {
            if let Some(service) = slice.metadata.labels.get(SERVICE_NAME_LABEL) {
                let key = format!("{}/{service}", slice.metadata.namespace);
                by_service.entry(key).or_default().push(slice);
            }
        }
        let mut ports = Vec::new();
        for service in services {
            let key = format!("{}/{}", service.metadata.namespace, service.metadata.name);
            let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
            ports.extend(service_ports(&service, &key, slices, node));
        }
        ports.sort_by(|a, b| (&a.name, a.protocol).cmp(&(&b.name, b.protocol)));
        Ok(Desired { ports })
    }
}

type Read<T> = (Vec<Arc<T>>, HashMap<u64, Arc<T>>);

fn read<T: serde::de::DeserializeOwned>(
    known: &HashMap<u64, Arc<T>>,
    objects: &[impl AsRef<[u8]>],
    kind: &'static str,
) -> Result<Read<T>, ProxyError> {
    let mut found = Vec::with_capacity(objects.len());
    let mut kept = HashMap::with_capacity(objects.len());
    for bytes in objects {
        let bytes = bytes.as_ref();
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let object = match known.get(&hash) {
            Some(object) => Arc::clone(object),
            None => Arc::new(
                serde_json::from_slice(bytes)
                    .map_err(|source| ProxyError::Unreadable { kind, source })?,
            ),
        };
        kept.insert(hash, Arc::clone(&object));
        found.push(object);
    }
    Ok((found, kept))
}

fn service_ports(
    service: &wire::Service,
    key: &str,
    slices: &[Arc<wire::EndpointSlice>],
    node: &str,
) -> Vec<ServicePort> {
    let spec = &service.spec;
    let is_served_by_node = service
        .metadata
        .annotations
        .get(SERVED_BY_NODE)
        .is_some_and(|value| value == "true");
    let is_anothers = service.metadata.labels.contains_key(PROXY_NAME_LABEL);
    if is_served_by_node
        || is_anothers
        || spec.kind == "ExternalName"
        || spec.cluster_ip.is_empty()
        || spec.cluster_ip == "None"
    {
        return Vec::new();
    }
    let cluster_ips = match spec.cluster_ips.as_slice() {
        [] => wire::addresses([&spec.cluster_ip]),
        several => wire::addresses(several),
    };
    let ingress = service
        .status
        .load_balancer
        .ingress
        .iter()
        .filter(|one| one.ip_mode != "Proxy");
    let external_ips = wire::addresses(spec.external_ips.iter().chain(ingress.map(|one| &one.ip)));
    let affinity_s = match (
        spec.session_affinity.as_str(),
        spec.session_affinity_config.client_ip.timeout_seconds,
    ) {
        ("ClientIP", 0) => Some(DEFAULT_AFFINITY_S),
        ("ClientIP", seconds) => Some(seconds),
        _ => None,
    };
    let internal_is_local = spec.internal_traffic_policy == "Local";
    let external_is_local = spec.external_traffic_policy == "Local";
    let of_port = |port: &wire::ServicePort| {
        let protocol = Protocol::parse(&port.protocol)?;
        let candidates = candidates(slices, &port.name, protocol, node);
        Some(ServicePort {
            name: format!("{key}:{}", port.name),
            protocol,
            port: port.port,
            node_port: port.node_port,
            cluster_ips: cluster_ips.clone(),
            external_ips: external_ips.clone(),
            affinity_s,
            internal: usable(&candidates, internal_is_local),
            external: usable(&candidates, external_is_local),
            keeps_source: external_is_local,
        })
    };
    spec.ports.iter().filter_map(of_port).collect()
}

struct Candidate {
    target: Target,
    is_ready: bool,
    is_serving: bool,
    is_local: bool,
}

fn candidates(
    slices: &[Arc<wire::EndpointSlice>],
    port_name: &str,
    protocol: Protocol,
    node: &str,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices {
        let port = slice.ports.iter().find(|port| {
            port.name == port_name
                && Protocol::parse(&port.protocol) == Some(protocol)
                && port.port != 0
        });
        let Some(port) = port else { continue };
        for endpoint in &slice.endpoints {
            let is_ready = endpoint.conditions.ready.unwrap_or(true);
            let Some(ip) = endpoint
                .addresses
                .first()
                .and_then(|text| text.parse().ok())
            else {
                continue;
            };
            found.push(Candidate {
                target: Target {
                    ip,
                    port: port.port,
                },
                is_ready,
                is_serving: endpoint.conditions.serving.unwrap_or(is_ready)
                    && endpoint.conditions.terminating.unwrap_or(false),
                is_local: !endpoint.node_name.is_empty() && endpoint.node_name == node,
            });
        }
    }
    found
}

/// Return the targets that connections may go to, each once, in order.
fn usable(candidates: &[Candidate], only_local: bool) -> Vec<Target> {
    let eligible = || candidates.iter().filter(|one| !only_local || one.is_local);
    let ready: BTreeSet<Target> = eligible()
        .filter(|one| one.is_ready)
        .map(|one| one.target)
        .collect();
    if !ready.is_empty() {
        return ready.into_iter().collect();
    }
    let serving: BTreeSet<Target> = eligible()
        .filter(|one| one.is_serving)
        .map(|one| one.target)
        .collect();
    serving.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn service(name: &str, spec: Value) -> String {
        json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec}).to_string()
    }

    /// A slice of endpoints given as (address, conditions, node), all on port 8080 named `http`.
    pub fn slice(service: &str, endpoints: &[(&str, Value, &str)]) -> String {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, conditions, node)| json!({"addresses": [ip], "conditions": conditions, "nodeName": node}))
            .collect();
        json!({
            "metadata": {"name": format!("{service}-1"), "namespace": "d", "labels": {SERVICE_NAME_LABEL: service}},
            "addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": endpoints,
        })
        .to_string()
    }

    pub fn join(services: &[String], slices: &[String]) -> Desired {
        Objects::default().join(services, slices, "here").unwrap()
    }

    fn ips(targets: &[Target]) -> Vec<String> {
        targets.iter().map(|one| one.ip.to_string()).collect()
    }

    fn web(extra: Value) -> String {
        let mut spec = json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        service("web", spec)
    }

    #[test]
    fn only_ready_endpoints_count_and_serving_ones_when_none_is_ready() {
        let table = [
            (
                vec![
                    ("10.0.0.1", json!({"ready": true}), ""),
                    ("10.0.0.2", json!({"ready": false}), ""),
                ],
                vec!["10.0.0.1"],
            ),
            (
                vec![("10.0.0.1", json!({}), ""), ("10.0.0.2", json!(null), "")],
                vec!["10.0.0.1", "10.0.0.2"],
            ),
            (
                vec![
                    (
                        "10.0.0.1",
                        json!({"ready": false, "serving": true, "terminating": true}),
                        "",
                    ),
                    (
                        "10.0.0.2",
                        json!({"ready": false, "serving": false, "terminating": true}),
                        "",
                    ),
                    ("10.0.0.3", json!({"ready": false, "serving": false}), ""),
                ],
                vec!["10.0.0.1"],
            ),
            (vec![("10.0.0.1", json!({"ready": false}), "")], vec![]),
        ];
        for (endpoints, expected) in table {
            let desired = join(&[web(json!({}))], &[slice("web", &endpoints)]);
            assert_eq!(ips(&desired.ports[0].internal), expected, "{endpoints:?}");
        }
    }

    #[test]
    fn the_policy_local_leaves_endpoints_of_this_node() {
        let slice = slice(
            "web",
            &[
                ("10.0.0.1", json!({}), "here"),
                ("10.0.0.2", json!({}), "there"),
            ],
        );
        let policies =
            json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster"});
        let desired = join(&[web(policies)], std::slice::from_ref(&slice));
        assert_eq!(ips(&desired.ports[0].internal), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&desired.ports[0].external), ["10.0.0.1"]);
        assert!(desired.ports[0].keeps_source);
        let desired = join(&[web(json!({"internalTrafficPolicy": "Local"}))], &[slice]);
        assert_eq!(ips(&desired.ports[0].internal), ["10.0.0.1"]);
    }

    #[test]
    fn headless_external_name_and_node_served_services_have_nothing_to_route() {
        let mut by_node: Value = serde_json::from_str(&web(json!({}))).unwrap();
        by_node["metadata"]["annotations"] = json!({SERVED_BY_NODE: "true"});
        let mut anothers: Value = serde_json::from_str(&web(json!({}))).unwrap();
        anothers["metadata"]["labels"] = json!({PROXY_NAME_LABEL: "other"});
        let services = [
            web(json!({"clusterIP": "None"})),
            web(json!({"type": "ExternalName"})),
            web(json!({"clusterIP": ""})),
            by_node.to_string(),
            anothers.to_string(),
        ];
        assert_eq!(join(&services, &[]).ports, []);
    }

    #[test]
    fn affinity_has_its_timeout_or_three_hours() {
        let timeout = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}});
        for (extra, expected) in [
            (json!({}), None),
            (json!({"sessionAffinity": "ClientIP"}), Some(10_800)),
            (timeout, Some(10)),
        ] {
            assert_eq!(join(&[web(extra)], &[]).ports[0].affinity_s, expected);
        }
    }

    #[test]
    fn objects_are_read_once_and_bad_ones_change_nothing() {
        let mut objects = Objects::default();
        let none: [String; 0] = [];
        let first = objects.join(&[web(json!({}))], &none, "here").unwrap();
        assert!(objects.join(&["{".to_string()], &none, "here").is_err());
        assert_eq!(
            objects.join(&[web(json!({}))], &none, "here").unwrap(),
            first
        );
        assert_eq!(objects.services.len(), 1);
    }
}
