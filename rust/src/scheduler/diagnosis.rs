//! Why a pod found no node, in kube-scheduler's words. Mirrors framework.FitError and what the preemption plugin adds.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::framework::{Plugin, Rejection};

#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// On how many nodes each reason was given.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    pub plugins: BTreeSet<Plugin>,
    /// Names of extenders and plugins outside the engine that rejected.
    pub outsiders: BTreeSet<String>,
    /// On how many nodes no preemption would help.
    pub unresolvable: usize,
    /// The words of a plugin that refused the pod before any node was looked at.
    pub pre_filter: Option<String>,
    /// What came of preemption; None when it does not take place.
    pub preemption: Option<String>,
}

impl Diagnosis {
    /// So many nodes refuse the pod for this.
    pub fn reject(&mut self, plugin: Plugin, why: &Rejection, nodes: usize) {
        if nodes == 0 {
            return;
        }
        self.plugins.insert(plugin);
        self.reject_nodes(why, nodes);
    }

    /// Somebody outside the engine refuses a node.
    pub fn reject_outside(&mut self, by: &str, why: &Rejection) {
        self.outsiders.insert(by.to_string());
        self.reject_nodes(why, 1);
    }

    /// Somebody outside the engine refuses the pod whatever the node.
    pub fn reject_all_outside(&mut self, by: String, words: String) {
        self.outsiders.insert(by);
        self.unresolvable = self.nodes;
        self.count(Cow::Owned(words.clone()), self.nodes);
        self.pre_filter = Some(words);
    }

    fn reject_nodes(&mut self, why: &Rejection, nodes: usize) {
        self.unresolvable += if why.is_curable() { 0 } else { nodes };
        for reason in &why.reasons {
            self.count(reason.clone(), nodes);
        }
    }

    /// A plugin refuses the pod whatever the node.
    pub fn reject_all(&mut self, plugin: Plugin, why: &Rejection) {
        self.plugins.insert(plugin);
        self.unresolvable = self.nodes;
        for reason in &why.reasons {
            self.count(reason.clone(), self.nodes);
        }
        self.pre_filter = Some(why.reasons.join(", "));
    }

    /// A plugin left only some nodes to look at.
    pub fn narrowed_by(&mut self, plugin: Plugin, left_out: usize) {
        self.plugins.insert(plugin);
        self.unresolvable += left_out;
        if left_out > 0 {
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", plugin.name());
            self.count(Cow::Owned(reason), left_out);
        }
    }

    fn count(&mut self, reason: Cow<'static, str>, nodes: usize) {
        match self.reasons.get_mut(&reason) {
            Some(count) => *count += nodes,
            None => drop(self.reasons.insert(reason, nodes)),
        }
    }

    /// Return the message of the pod's condition and of the event FailedScheduling.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let why = self
            .pre_filter
            .clone()
            .unwrap_or_else(|| histogram(&self.reasons));
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(" {why}.")
        };
        let more = self
            .preemption
            .as_ref()
            .map_or(String::new(), |words| format!(" preemption: {words}"));
        format!("0/{} nodes are available:{why}{more}", self.nodes)
    }
}

/// Return `count reason` pairs in the order of their text, which is upstream's: "10 b" comes before "2 a".
pub fn histogram(reasons: &BTreeMap<Cow<'static, str>, usize>) -> String {
    let mut lines: Vec<String> = reasons
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort();
    lines.join(", ")
}
