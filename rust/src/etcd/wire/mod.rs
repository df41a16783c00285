//! The messages of etcd's v3 API, as far as korch speaks it, for its server side and its client side alike.
//!
//! They are written by hand on prost's derive: no compiler of protocol buffers is needed to build korch, and keys and values are
//! `Bytes`, so that decoding a request copies nothing. Names and field numbers are those of etcd's `etcdserverpb`, `mvccpb` and
//! `authpb` packages; fields that korch neither reads nor sets are left out, and decoding skips them.
//!
//! `kv`: ranges, writes, transactions. `watch`, `lease`: the services of these names. `maintenance`: the store's upkeep, the list of
//! members and whether passwords are in use.

mod kv;
mod lease;
mod maintenance;
mod watch;

pub use kv::*;
pub use lease::*;
pub use maintenance::*;
pub use watch::*;

/// Paths of the methods, as HTTP/2 carries them.
pub mod path {
    pub const RANGE: &str = "/etcdserverpb.KV/Range";
    pub const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
    pub const PUT: &str = "/etcdserverpb.KV/Put";
    pub const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
    pub const TXN: &str = "/etcdserverpb.KV/Txn";
    pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
    pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
    pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
    pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
    pub const LEASE_LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
    pub const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
    pub const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
    pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
    pub const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
    pub const HASH: &str = "/etcdserverpb.Maintenance/Hash";
    pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
    pub const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
    pub const AUTH_STATUS: &str = "/etcdserverpb.Auth/AuthStatus";
    pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
    pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
}

#[cfg(test)]
mod tests;
