//! etcd's v3 API over gRPC: `wire` holds its messages, `client` calls a server with them.

pub mod client;
pub mod wire;
