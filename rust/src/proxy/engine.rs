//! The proxy of one node: the desired state, and the kernel's table or the router that make it true.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;

use super::ProxyError;
use super::choice::Backend;
use super::desired::{Desired, Objects, ServicePort, Target};
use super::nftables::Nftables;
use super::router::{Address, Router};
use super::tables::lay_out;

/// How connections find their endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the kernel; the router serves node ports on 127.0.0.1 only.
    Nftables,
    /// The router serves node ports on all addresses, and cluster and external addresses as far as they are this machine's own.
    Userspace,
}

impl Mode {
    pub fn parse(text: &str) -> Result<Mode, ProxyError> {
        match text {
            "nftables" => Ok(Mode::Nftables),
            "userspace" => Ok(Mode::Userspace),
            other => Err(ProxyError::Mode(other.to_string())),
        }
    }
}

#[derive(Debug)]
pub struct Engine {
    node: String,
    cluster_cidr: String,
    seed: u64,
    objects: Objects,
    desired: Desired,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    mode: Mode,
    nftables: Option<Nftables>,
    router: Router,
}

impl Engine {
    pub fn new(node: String, cluster_cidr: String, seed: u64) -> Engine {
        Engine {
            node,
            cluster_cidr,
            seed,
            objects: Objects::default(),
            desired: Desired::default(),
            running: None,
        }
    }

    /// Begin to serve what is desired now. Starting again changes the mode. Blocks.
    pub fn start(&mut self, mode: Mode) -> Result<(), ProxyError> {
        self.running = None;
        let nftables = match mode {
            Mode::Nftables => Some(Nftables::start(&self.cluster_cidr)?),
            Mode::Userspace => None,
        };
        self.running = Some(Running {
            mode,
            nftables,
            router: Router::start(self.seed)?,
        });
        Ok(())
    }

    /// Stop the router; the kernel's table stays, so that connections go on until a successor takes it over.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Replace all services and slices and return how many elements and listeners changed. Blocks.
    pub fn update(
        &mut self,
        services: &[impl AsRef<[u8]>],
        slices: &[impl AsRef<[u8]>],
    ) -> Result<usize, ProxyError> {
        self.desired = self.objects.join(services, slices, &self.node)?;
        let Some(running) = &mut self.running else {
            return Ok(0);
        };
        let mut changed = 0;
        if let Some(nftables) = &mut running.nftables {
            changed += nftables.apply(&lay_out(&self.desired))?;
        }
        changed += running.router.set(listeners(&self.desired, running.mode));
        Ok(changed)
    }

    /// Return the endpoint that a client's connection to `namespace/name:port` gets for a random number; None when there is none.
    pub fn pick(&self, service: &str, client: IpAddr, seed: u64) -> Option<Target> {
        let port = self.desired.ports.iter().find(|port| {
            let unnamed = port.name.rsplit_once(':').map(|(name, _)| name);
            port.name == service || unnamed == Some(service)
        })?;
        let backend = backend(port, &port.internal);
        match &self.running {
            Some(running) => running.router.shared.choose_by(&backend, client, seed),
            None => super::choice::Sessions::default().choose(&backend, client, seed, 0),
        }
    }

    pub fn stats(&self) -> BTreeMap<&'static str, u64> {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let endpoints = self
            .desired
            .ports
            .iter()
            .map(|port| port.internal.len())
            .sum();
        let mut stats = BTreeMap::from([
            ("service_ports", count(self.desired.ports.len())),
            ("endpoints", count(endpoints)),
        ]);
        if let Some(running) = &self.running {
            if let Some(nftables) = &running.nftables {
                stats.insert("elements", count(nftables.element_count()));
                stats.insert("udp_flows_ended", count(nftables.flows_ended));
            }
            let router = &running.router;
            stats.insert("listeners", count(router.len()));
            stats.insert("unbound", count(router.unbound));
            stats.insert(
                "connections",
                router.shared.connections.load(Ordering::Relaxed),
            );
            stats.insert("failures", router.shared.failures.load(Ordering::Relaxed));
        }
        stats
    }
}

fn backend(port: &ServicePort, targets: &[Target]) -> Backend {
    Backend {
        name: port.name.clone(),
        targets: targets.to_vec(),
        affinity_s: port.affinity_s,
    }
}

/// Return where the router listens. A port without endpoints has no listener: the kernel refuses its connections.
fn listeners(desired: &Desired, mode: Mode) -> BTreeMap<Address, Backend> {
    let mut found = BTreeMap::new();
    let node_address = match mode {
        Mode::Nftables => Ipv4Addr::LOCALHOST,
        Mode::Userspace => Ipv4Addr::UNSPECIFIED,
    };
    for port in &desired.ports {
        if port.node_port != 0 && !port.external.is_empty() {
            let at = SocketAddr::new(node_address.into(), port.node_port);
            found.insert((port.protocol, at), backend(port, &port.external));
        }
        if mode == Mode::Userspace {
            let addresses = port
                .cluster_ips
                .iter()
                .map(|ip| (ip, &port.internal))
                .chain(port.external_ips.iter().map(|ip| (ip, &port.external)));
            for (ip, targets) in addresses {
                if !targets.is_empty() {
                    found.insert(
                        (port.protocol, SocketAddr::new(*ip, port.port)),
                        backend(port, targets),
                    );
                }
            }
        }
    }
    found
}
