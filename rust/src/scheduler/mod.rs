//! The scheduler's engine: a cycle is a pure function of (snapshot, pod, seed).
//!
//! `wire` reads the few fields of Pods and Nodes that scheduling looks at; `pod` and `node` hold them in the form the plugins want.
//! `snapshot` keeps arrays over nodes and what the pods on them use. `framework` says what a plugin is and lists them all;
//! `plugins/` has one file each, named as upstream names it. `cycle` runs one pod through them, `diagnosis` words a failure as
//! kube-scheduler does, `explain` shows the whole matrix, and `engine` is the face that the Python boundary holds.

pub mod cycle;
pub mod diagnosis;
pub mod engine;
pub mod explain;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod quantity;
pub mod selector;
pub mod snapshot;
pub mod wire;

#[cfg(test)]
pub(crate) mod fixtures;

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
