//! The methods that are served, and their paths.

use super::wire::path;

/// In the order of `PATHS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Range,
    Txn,
    Put,
    RangeStream,
    DeleteRange,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberList,
    Alarm,
    Status,
    Defragment,
    Hash,
    HashKv,
    Snapshot,
    AuthStatus,
    Authenticate,
    HealthCheck,
}

impl Method {
    /// Every method with its path; those that are called most stand first.
    pub(super) const ALL: [(Method, &'static str); 22] = [
        (Method::Range, path::RANGE),
        (Method::Txn, path::TXN),
        (Method::Put, path::PUT),
        (Method::RangeStream, path::RANGE_STREAM),
        (Method::DeleteRange, path::DELETE_RANGE),
        (Method::Compact, path::COMPACT),
        (Method::Watch, path::WATCH),
        (Method::LeaseGrant, path::LEASE_GRANT),
        (Method::LeaseRevoke, path::LEASE_REVOKE),
        (Method::LeaseKeepAlive, path::LEASE_KEEP_ALIVE),
        (Method::LeaseTimeToLive, path::LEASE_TIME_TO_LIVE),
        (Method::LeaseLeases, path::LEASE_LEASES),
        (Method::MemberList, path::MEMBER_LIST),
        (Method::Alarm, path::ALARM),
        (Method::Status, path::STATUS),
        (Method::Defragment, path::DEFRAGMENT),
        (Method::Hash, path::HASH),
        (Method::HashKv, path::HASH_KV),
        (Method::Snapshot, path::SNAPSHOT),
        (Method::AuthStatus, path::AUTH_STATUS),
        (Method::Authenticate, path::AUTHENTICATE),
        (Method::HealthCheck, path::HEALTH_CHECK),
    ];

    pub(super) fn of(path: &str) -> Option<Method> {
        let found = Method::ALL.iter().find(|(_, known)| *known == path);
        found.map(|(method, _)| *method)
    }

    /// Whether more than one message goes in one of the directions.
    pub(super) fn is_streaming(self) -> bool {
        matches!(
            self,
            Method::RangeStream | Method::Watch | Method::LeaseKeepAlive | Method::Snapshot
        )
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Method::Put | Method::DeleteRange | Method::Txn)
    }
}

/// Service and method in a path.
pub(super) fn names(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.rsplit_once('/').unwrap_or((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_stand_in_their_order() {
        for (index, (method, path)) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, index);
            assert_eq!(Method::of(path), Some(*method));
        }
        assert_eq!(Method::of("/etcdserverpb.KV/Nothing"), None);
    }
}
