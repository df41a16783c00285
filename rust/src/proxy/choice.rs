//! Which endpoint a connection gets: any, drawn evenly; with session affinity the one the client had last, until it has been quiet for
//! the timeout or the endpoint is gone. The kernel's rules do the same with numgen and sets with timeouts.

use std::collections::HashMap;
use std::net::IpAddr;

use super::desired::Target;

/// What the router needs to know of a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `namespace/name:port`.
    pub name: String,
    pub targets: Vec<Target>,
    pub affinity_s: Option<u32>,
}

/// Which client stays with which endpoint.
#[derive(Debug, Default)]
pub struct Sessions {
    by_client: HashMap<(String, IpAddr), Session>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    target: Target,
    expires_ms: u64,
}

/// More sessions than this and the expired ones are looked for.
const SWEEP_ABOVE: usize = 10_000;

impl Sessions {
    /// Choose by the random number `draw`; None when there is no endpoint. A choice with affinity is remembered from `now_ms` on.
    pub fn choose(
        &mut self,
        backend: &Backend,
        client: IpAddr,
        draw: u64,
        now_ms: u64,
    ) -> Option<Target> {
        let Some(timeout_s) = backend.affinity_s else {
            return drawn(&backend.targets, draw);
        };
        let expires_ms = now_ms + u64::from(timeout_s) * 1000;
        let key = (backend.name.clone(), client);
        if let Some(session) = self.by_client.get_mut(&key)
            && session.expires_ms > now_ms
            && backend.targets.contains(&session.target)
        {
            session.expires_ms = expires_ms;
            return Some(session.target);
        }
        let target = drawn(&backend.targets, draw)?;
        if self.by_client.len() >= SWEEP_ABOVE {
            self.by_client
                .retain(|_, session| session.expires_ms > now_ms);
        }
        self.by_client.insert(key, Session { target, expires_ms });
        Some(target)
    }

    /// Let go of a client whose endpoint did not answer.
    pub fn forget(&mut self, backend: &Backend, client: IpAddr) {
        self.by_client.remove(&(backend.name.clone(), client));
    }
}

fn drawn(targets: &[Target], draw: u64) -> Option<Target> {
    let slot = scatter(draw).checked_rem(targets.len() as u64)?;
    targets.get(usize::try_from(slot).ok()?).copied()
}

/// Spread neighbouring numbers (splitmix64).
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(ips: &[&str], affinity_s: Option<u32>) -> Backend {
        let targets = ips
            .iter()
            .map(|ip| Target {
                ip: ip.parse().unwrap(),
                port: 80,
            })
            .collect();
        Backend {
            name: "d/s:".into(),
            targets,
            affinity_s,
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9));

    #[test]
    fn draws_are_even() {
        let backend = backend(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], None);
        let mut counts = HashMap::new();
        for draw in 0..3000 {
            *counts
                .entry(
                    Sessions::default()
                        .choose(&backend, CLIENT, draw, 0)
                        .unwrap(),
                )
                .or_insert(0) += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| (900..1100).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_client_stays_until_it_was_quiet_for_the_timeout_or_its_endpoint_is_gone() {
        let two = backend(&["10.0.0.1", "10.0.0.2"], Some(10));
        let mut sessions = Sessions::default();
        let mut choose = |backend: &Backend, draw, now_ms| {
            sessions.choose(backend, CLIENT, draw, now_ms).unwrap()
        };
        let first = choose(&two, 1, 0);
        let other = (0..100)
            .find(|draw| drawn(&two.targets, *draw) != Some(first))
            .unwrap();
        assert_eq!(choose(&two, other, 9_000), first);
        assert_eq!(choose(&two, other, 18_000), first);
        assert_ne!(choose(&two, other, 28_001), first);
        let second = choose(&two, other, 28_002);
        let left = Backend {
            targets: two
                .targets
                .iter()
                .copied()
                .filter(|one| *one != second)
                .collect(),
            ..two.clone()
        };
        assert_eq!(choose(&left, other, 28_003), first);
    }

    #[test]
    fn without_endpoints_there_is_no_choice() {
        assert_eq!(
            Sessions::default().choose(&backend(&[], None), CLIENT, 5, 0),
            None
        );
    }
}
