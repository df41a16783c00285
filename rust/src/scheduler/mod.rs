//! The scheduler's engine: a cycle is a pure function of (snapshot, configuration, pod, seed).
//!
//! `wire` reads the few fields of Pods and Nodes that scheduling looks at; `pod` (with `requests`, `labels`, `selector`) and `node` hold
//! them in the form the plugins want, and `cluster` the other kinds. `snapshot` seats the pods on the nodes, with `columns` of numbers,
//! `topology` for domains and `shapes` for what pods have in common, by the labels that `visibility` lets count. `profile` is the configuration, `framework` names the plugins and
//! `plugins/` has one file each, named as upstream names it. `class` remembers what they said about a shape, `worths` what the nodes are worth to it and `verdicts` why they refuse it, `cycle` runs one pod,
//! `diagnosis` words a failure as kube-scheduler does, `explain` shows the whole matrix, and `engine` is the face that the Python
//! boundary holds; `steps` takes a decision apart for those who have a say from outside; `groups` makes room for pods that go together; `hints`
//! knows whom a change of the cluster may help.

pub mod class;
pub mod cluster;
pub mod columns;
pub mod cycle;
pub mod diagnosis;
pub mod engine;
pub mod explain;
pub mod framework;
pub mod groups;
pub mod hints;
pub mod labels;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod profile;
pub mod quantity;
pub mod requests;
mod seat;
pub mod selector;
pub mod shapes;
pub mod snapshot;
pub mod steps;
pub mod topology;
pub mod verdicts;
pub mod visibility;
pub mod wire;
pub mod worths;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod remembered;

/// What can go wrong at the boundary of this room; an unschedulable pod is not an error but a decision.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("cannot read {kind}: {source}")]
    Unreadable {
        kind: &'static str,
        source: serde_json::Error,
    },
    #[error("cannot encode the explanation: {0}")]
    Encode(serde_json::Error),
}
