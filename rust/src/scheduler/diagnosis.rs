//! Why no node took a pod, counted and worded as kube-scheduler's FitError does.

use std::collections::{BTreeMap, BTreeSet};

use super::framework::{Code, Cycle, Rejection};

/// Rejections of one cycle, summed up over nodes.
#[derive(Debug, Default, Clone)]
pub struct Diagnosis {
    /// Number of nodes in the cluster.
    pub nodes: usize,
    /// On how many nodes each reason was given.
    pub reasons: BTreeMap<String, usize>,
    /// Nodes whose rejection no preemption can cure.
    pub unresolvable: usize,
    /// Plugins that rejected; what happens to them decides when the pod is tried again.
    pub plugins: BTreeSet<&'static str>,
    /// Set when a plugin refused before any node was looked at.
    pre_filter: Option<String>,
    never_preempts: bool,
}

impl Diagnosis {
    pub(super) fn new(cycle: &Cycle<'_>) -> Diagnosis {
        Diagnosis {
            nodes: cycle.snapshot.len(),
            never_preempts: cycle.pod.never_preempts,
            ..Diagnosis::default()
        }
    }

    pub(super) fn reject(&mut self, plugin: &'static str, why: &Rejection) {
        self.plugins.insert(plugin);
        self.unresolvable += usize::from(why.code == Code::UnschedulableAndUnresolvable);
        for reason in &why.reasons {
            match self.reasons.get_mut(reason.as_ref()) {
                Some(count) => *count += 1,
                None => {
                    self.reasons.insert(reason.to_string(), 1);
                }
            }
        }
    }

    pub(super) fn reject_all(&mut self, plugin: &'static str, why: &Rejection) {
        self.plugins.insert(plugin);
        self.unresolvable = if why.code == Code::UnschedulableAndUnresolvable {
            self.nodes
        } else {
            0
        };
        self.pre_filter = Some(why.reasons.join(", "));
    }

    /// Note that a plugin left only some nodes to look at, `others` not being among them.
    pub(super) fn narrowed_by(&mut self, plugin: &'static str, others: usize) {
        if others > 0 {
            self.plugins.insert(plugin);
            self.unresolvable += others;
            self.reasons.insert(
                format!("node(s) didn't satisfy plugin(s) [{plugin}]"),
                others,
            );
        }
    }

    /// Return the message of the pod's condition and of the event FailedScheduling.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let why = self.pre_filter.clone().unwrap_or_else(|| {
            histogram(
                self.reasons
                    .iter()
                    .map(|(reason, count)| (reason.as_str(), *count)),
            )
        });
        format!(
            "0/{} nodes are available: {why}. preemption: {}",
            self.nodes,
            self.preemption()
        )
    }

    fn preemption(&self) -> String {
        if self.never_preempts {
            return "not eligible due to preemptionPolicy=Never.".into();
        }
        let counts = [
            (
                "No preemption victims found for incoming pod",
                self.nodes.saturating_sub(self.unresolvable),
            ),
            (
                "Preemption is not helpful for scheduling",
                self.unresolvable,
            ),
        ];
        format!(
            "0/{} nodes are available: {}.",
            self.nodes,
            histogram(counts.into_iter())
        )
    }
}

/// Return `count reason` pairs in the order of their text, which is upstream's: "10 b" comes before "2 a".
fn histogram<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut lines: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort();
    lines.join(", ")
}
