//! Which headers may cross the front door, in both directions.
//!
//! The application trusts headers that begin with `x-korch-`, because only the front door reaches its socket; so none that a
//! client sends may pass. Headers about one hop (RFC 9110, 7.6.1) end here as well.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

pub(super) const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-korch-client-cert");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const OWN_PREFIX: &str = "x-korch-";
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The protocol a request wants to switch to (`websocket`, `SPDY/3.1`), when it says so in both headers that it takes.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Turn a client's headers into what the application gets.
pub(super) fn to_upstream(
    headers: &mut HeaderMap,
    authority: Option<&str>,
    peer: IpAddr,
    certificate: Option<&HeaderValue>,
    upgrade: Option<HeaderValue>,
) {
    remove_hop_by_hop(headers);
    remove_own(headers);
    if let Some(certificate) = certificate {
        headers.insert(CLIENT_CERTIFICATE, certificate.clone());
    }
    // The rightmost address is the one that can be trusted.
    let mut chain: Vec<String> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    chain.push(peer.to_string());
    if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
    // HTTP/2 names the host in a pseudo header.
    if !headers.contains_key(HOST)
        && let Some(value) = authority.and_then(|text| HeaderValue::from_str(text).ok())
    {
        headers.insert(HOST, value);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Turn the application's headers into what the client gets. `switching`: the answer is 101, whose hop headers are its point.
pub(super) fn to_client(headers: &mut HeaderMap, switching: bool) {
    let upgrade = if switching {
        headers.get(UPGRADE).cloned()
    } else {
        None
    };
    remove_hop_by_hop(headers);
    remove_own(headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// What the application and the front door tell each other is nobody else's business.
fn remove_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_belongs_to_one_hop_and_what_pretends_to_be_ours_stays_outside() {
        let mut found = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-korch-client-cert", "forged"),
            ("x-korch-anything", "forged"),
            ("x-forwarded-for", "10.0.0.9"),
            ("accept", "application/json"),
        ]);
        let certificate = HeaderValue::from_static("real");
        to_upstream(
            &mut found,
            Some("example:6443"),
            IpAddr::from([127, 0, 0, 1]),
            Some(&certificate),
            None,
        );
        let want = headers(&[
            ("x-forwarded-for", "10.0.0.9, 127.0.0.1"),
            ("accept", "application/json"),
            ("x-korch-client-cert", "real"),
            ("host", "example:6443"),
        ]);
        assert_eq!(found, want);
    }

    #[test]
    fn an_upgrade_takes_both_headers() {
        assert_eq!(
            upgrade(&headers(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "SPDY/3.1")
            ]))
            .unwrap(),
            "SPDY/3.1"
        );
        assert_eq!(upgrade(&headers(&[("upgrade", "h2c")])), None);
        assert_eq!(upgrade(&headers(&[("connection", "upgrade")])), None);
    }
}
