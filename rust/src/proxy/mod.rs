//! The service proxy: from Services and EndpointSlices to connections that find an endpoint.
//!
//! `wire` reads the objects, `desired` joins them into service ports with the endpoints that may be used. For nftables, `tables` lays
//! those out as set elements, `rules` holds the few rules that never change, `shared_chain` those that depend on a number of endpoints, `netlink` and `elements` carry the difference to the
//! kernel and `conntrack` ends UDP flows that still go where no endpoint is; `nftables` is the whole of it. `router` does the same job
//! in user space, for localhost node ports and where there is no nftables. `choice` picks endpoints for it. `engine` holds both.

pub mod choice;
pub mod conntrack;
pub mod desired;
pub mod elements;
pub mod engine;
pub mod netlink;
pub mod nftables;
pub mod router;
pub mod rules;
pub mod shared_chain;
pub mod tables;
pub mod udp;
pub mod wire;

use std::io;

/// What can go wrong in this room.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot read {kind}: {source}")]
    Unreadable {
        kind: &'static str,
        source: serde_json::Error,
    },
    #[error("cannot run nft: {0}")]
    Spawn(io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
    #[error("no such mode: {0}")]
    Mode(String),
    #[error("the router cannot start: {0}")]
    Router(io::Error),
}
