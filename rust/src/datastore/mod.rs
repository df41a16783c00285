//! A real etcd cluster as the store of several korch servers.
//!
//! Each server keeps a mirror: a `store::Store` that follows the cluster's revisions, so that reads, indexes and watches cost what
//! they cost on a store of one's own. Writes go to the cluster as transactions and are answered when the mirror has seen them. A
//! read that must see what other servers have answered first learns the cluster's newest revision and waits for the mirror.
//!
//! - `cluster`: the face; the runtime thread; what callers ask for and where answers are picked up (`mailbox`).
//! - `endpoints`: channels to the members, and which is to be tried next. `failure`: which errors are worth another try.
//! - `follow`: list, then watch, then apply to the mirror, for ever. `shared`: what the tasks have in common.
//! - `plan`: a commit as a transaction. `write`: sending it until it is certain what became of it. `outstanding`: how that is known.
//! - `read`: learning the newest revision, once for all who ask meanwhile. `compact`: the compaction that all servers elect one for.
//! - `value`: what stands in etcd under a key.

mod cluster;
mod compact;
mod endpoints;
mod failure;
mod follow;
mod mailbox;
mod outstanding;
mod plan;
mod read;
mod shared;
mod value;
mod write;

pub use cluster::Cluster;
pub use endpoints::{Config, Tls};
pub use failure::Error;
pub use mailbox::{Completion, Mail, Outcome};
