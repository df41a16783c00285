//! How a call ends: a gRPC code and a text. Clients of etcd compare both, so the texts here are etcd's own.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

use crate::store::StoreError;

/// The codes of gRPC that this front answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
}

/// The end of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

pub(super) type Result<T> = std::result::Result<T, Status>;

const fn status(code: Code, message: &'static str) -> Status {
    Status {
        code,
        message: Cow::Borrowed(message),
    }
}

pub(super) const EMPTY_KEY: Status =
    status(Code::InvalidArgument, "etcdserver: key is not provided");
pub(super) const KEY_NOT_FOUND: Status = status(Code::InvalidArgument, "etcdserver: key not found");
pub(super) const VALUE_PROVIDED: Status =
    status(Code::InvalidArgument, "etcdserver: value is provided");
pub(super) const LEASE_PROVIDED: Status =
    status(Code::InvalidArgument, "etcdserver: lease is provided");
pub(super) const TOO_MANY_OPS: Status = status(
    Code::InvalidArgument,
    "etcdserver: too many operations in txn request",
);
pub(super) const DUPLICATE_KEY: Status = status(
    Code::InvalidArgument,
    "etcdserver: duplicate key given in txn request",
);
pub(super) const INVALID_SORT_OPTION: Status =
    status(Code::InvalidArgument, "etcdserver: invalid sort option");
pub(super) const REQUEST_TOO_LARGE: Status =
    status(Code::InvalidArgument, "etcdserver: request is too large");
pub(super) const COMPACTED: Status = status(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
);
pub(super) const FUTURE_REVISION: Status = status(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
);
pub(super) const NO_SPACE: Status = status(
    Code::ResourceExhausted,
    "etcdserver: mvcc: database space exceeded",
);
pub(super) const LEASE_NOT_FOUND: Status =
    status(Code::NotFound, "etcdserver: requested lease not found");
pub(super) const LEASE_EXISTS: Status =
    status(Code::FailedPrecondition, "etcdserver: lease already exists");
pub(super) const LEASE_TTL_TOO_LARGE: Status =
    status(Code::OutOfRange, "etcdserver: too large lease TTL");
pub(super) const AUTH_NOT_ENABLED: Status = status(
    Code::FailedPrecondition,
    "etcdserver: authentication is not enabled",
);
pub(super) const STOPPED: Status = status(Code::Unavailable, "etcdserver: server stopped");

impl Status {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Status {
            code,
            message: message.into(),
        }
    }

    /// The last header frame of a call that failed.
    pub(super) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.message)) {
            trailers.insert("grpc-message", message);
        }
        trailers
    }
}

/// The last header frame of a call that went well.
pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// What gRPC demands of a message in a header: printable ASCII without the percent sign stands for itself.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => COMPACTED,
            StoreError::FutureRevision { .. } => FUTURE_REVISION,
            StoreError::DuplicateKey => DUPLICATE_KEY,
            StoreError::LeaseNotFound { .. } => LEASE_NOT_FOUND,
            StoreError::LeaseExists { .. } => LEASE_EXISTS,
            StoreError::NoSpace { .. } => NO_SPACE,
            StoreError::Corrupt { .. } => Status::new(Code::DataLoss, error.to_string()),
            StoreError::Poisoned { .. } | StoreError::Io(_) => {
                Status::new(Code::Unavailable, format!("etcdserver: {error}"))
            }
            error => Status::new(Code::Internal, format!("etcdserver: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cross_a_header_however_odd() {
        let odd = Status::new(Code::Internal, "100% of ä\n");
        let trailers = odd.trailers();
        assert_eq!(trailers.get("grpc-message").unwrap(), "100%25 of %C3%A4%0A");
        assert_eq!(trailers.get("grpc-status").unwrap(), "13");
    }
}
