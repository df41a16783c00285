//! The kernel's table kept equal to what is desired: base rules by `nft`, shared chains and elements by netlink.

use std::collections::{BTreeMap, BTreeSet};

use super::ProxyError;
use super::conntrack::{self, Routes};
use super::desired::Target;
use super::elements::{commit, difference, dump};
use super::netlink::{ACK, Netfilter, Writer};
use super::rules;
use super::shared_chain;
use super::tables::{Affinity, Elements, SharedChain, Tables};

/// The table that belongs to the proxy.
pub const TABLE: &str = "korch-proxy";

/// What the table is known to hold.
#[derive(Debug)]
pub struct Nftables {
    netfilter: Netfilter,
    /// The script of the base rules.
    base: String,
    elements: Elements,
    chains: BTreeSet<SharedChain>,
    affinities: BTreeMap<String, Affinity>,
    /// Where UDP flows that are tracked now may go.
    routes: Routes,
    pub flows_ended: usize,
}

impl Nftables {
    /// Make the table, or take over the one that a former process left: its elements stay until the first `apply` says otherwise, so
    /// that connections go on being served. Blocks; fails without the privilege or without `nft`.
    pub fn start(cluster_cidr: &str) -> Result<Nftables, ProxyError> {
        let base = rules::base(TABLE, cluster_cidr);
        if rules::run(&base).is_err() {
            // A table of another layout is in the way.
            rules::run(&format!("{}{base}", rules::drop_table(TABLE)))?;
        }
        let mut netfilter = Netfilter::open()?;
        let elements = dump(&mut netfilter, TABLE)?;
        Ok(Nftables {
            netfilter,
            base,
            routes: Routes::of(&elements, []),
            elements,
            chains: BTreeSet::new(),
            affinities: BTreeMap::new(),
            flows_ended: 0,
        })
    }

    /// Remove the table, whoever made it.
    pub fn remove() -> Result<(), ProxyError> {
        rules::run(&rules::drop_table(TABLE))
    }

    /// Make the table hold `wanted` and return how many elements changed. After an error what the kernel holds is read anew.
    pub fn apply(&mut self, wanted: &Tables) -> Result<usize, ProxyError> {
        self.prepare_chains(wanted)?;
        let changed = match self.commit(wanted) {
            Ok(changed) => changed,
            Err(_) => {
                // Somebody else changed the table. See what is there, rules included, and try once more.
                self.chains.clear();
                self.affinities.clear();
                rules::run(&self.base)?;
                self.prepare_chains(wanted)?;
                self.elements = dump(&mut self.netfilter, TABLE)?;
                self.commit(wanted)?
            }
        };
        self.drop_stale_affinities(wanted)?;
        let routes = Routes::of(&self.elements, &wanted.affinities);
        if routes != self.routes {
            self.flows_ended += conntrack::clean(&mut self.netfilter, &self.routes, &routes)?;
            self.routes = routes;
        }
        Ok(changed)
    }

    pub fn element_count(&self) -> usize {
        self.elements.values().map(BTreeMap::len).sum()
    }

    fn commit(&mut self, wanted: &Tables) -> Result<usize, ProxyError> {
        let steps = difference(&self.elements, &wanted.elements);
        commit(&mut self.netfilter, TABLE, &steps)?;
        let changed = steps.len();
        if changed > 0 {
            self.elements = wanted.elements.clone();
        }
        Ok(changed)
    }

    /// Make the chains that elements are about to lead to.
    fn prepare_chains(&mut self, wanted: &Tables) -> Result<(), ProxyError> {
        self.make_shared_chains(wanted)?;
        let mut script = String::new();
        for affinity in &wanted.affinities {
            if self.affinities.get(&affinity.id) != Some(affinity) {
                script.push_str(&rules::affinity(TABLE, affinity));
            }
        }
        if !script.is_empty() {
            rules::run(&script)?;
        }
        for affinity in &wanted.affinities {
            match self.affinities.get_mut(&affinity.id) {
                // Endpoints that are gone are remembered until they are dropped below.
                Some(known) => known.targets = union(&known.targets, &affinity.targets),
                None => {
                    self.affinities
                        .insert(affinity.id.clone(), affinity.clone());
                }
            }
        }
        Ok(())
    }

    fn make_shared_chains(&mut self, wanted: &Tables) -> Result<(), ProxyError> {
        let missing: Vec<SharedChain> = wanted.chains.difference(&self.chains).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut writer = Writer::default();
        let first = self.netfilter.next_sequence();
        writer.batch_begin(first);
        let mut last = first;
        for (number, chain) in missing.iter().enumerate() {
            let sequence = self.netfilter.next_sequence();
            for _ in 1..shared_chain::MESSAGES {
                last = self.netfilter.next_sequence();
            }
            let flags = if number + 1 == missing.len() { ACK } else { 0 };
            shared_chain::write(&mut writer, TABLE, chain, sequence, flags);
        }
        writer.batch_end(self.netfilter.next_sequence());
        self.netfilter.transact(&writer, first, last)?;
        self.chains.extend(missing);
        Ok(())
    }

    fn drop_stale_affinities(&mut self, wanted: &Tables) -> Result<(), ProxyError> {
        let wanted: BTreeMap<&str, &Affinity> = wanted
            .affinities
            .iter()
            .map(|one| (one.id.as_str(), one))
            .collect();
        let mut script = String::new();
        for (id, known) in &self.affinities {
            let kept = wanted
                .get(id.as_str())
                .map_or(&[][..], |one| one.targets.as_slice());
            let gone: Vec<Target> = known
                .targets
                .iter()
                .copied()
                .filter(|target| !kept.contains(target))
                .collect();
            if !gone.is_empty() {
                script.push_str(&rules::drop_affinity(TABLE, id, &gone, kept.is_empty()));
            }
        }
        if !script.is_empty() {
            rules::run(&script)?;
            self.affinities = wanted
                .values()
                .map(|one| (one.id.clone(), (*one).clone()))
                .collect();
        }
        Ok(())
    }
}

fn union(one: &[Target], other: &[Target]) -> Vec<Target> {
    let all: BTreeSet<Target> = one.iter().chain(other).copied().collect();
    all.into_iter().collect()
}
