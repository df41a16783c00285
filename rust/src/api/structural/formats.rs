//! The `format` of texts: the ones that custom kinds may use. A format that is not known here fits everything, as upstream has it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

use crate::api::time::Instant;

/// Whether `text` is of `format`.
pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => is_date(text),
        "duration" => parse_duration(text).is_some(),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "uri" => is_uri(text),
        "email" => matches(&EMAIL, text),
        "hostname" => text.len() <= 255 && matches(&HOSTNAME, text),
        "mac" => matches(&MAC, text),
        "uuid" => matches(&UUID, text),
        "uuid3" => is_uuid(text, '3'),
        "uuid4" => is_uuid(text, '4'),
        "uuid5" => is_uuid(text, '5'),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "bsonobjectid" => matches(&OBJECT_ID, text),
        "ssn" => matches(&SSN, text),
        "k8s-short-name" => text.len() <= 63 && matches(&LABEL, text),
        "k8s-long-name" => text.len() <= 253 && matches(&SUBDOMAIN, text),
        _ => true,
    }
}

type Expression = LazyLock<Option<Regex>>;

static EMAIL: Expression =
    LazyLock::new(|| Regex::new(r"^[^\s@<>]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$").ok());
static HOSTNAME: Expression = LazyLock::new(|| {
    Regex::new(
        r"^([a-zA-Z0-9\p{L}]([a-zA-Z0-9\p{L}-]{0,61}[a-zA-Z0-9\p{L}])?)(\.[a-zA-Z0-9\p{L}]([a-zA-Z0-9\p{L}-]{0,61}[a-zA-Z0-9\p{L}])?)*\.?$",
    )
    .ok()
});
static MAC: Expression =
    LazyLock::new(|| Regex::new(r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2}[:-]?){1,3}$").ok());
static UUID: Expression = LazyLock::new(|| {
    Regex::new(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
});
static HEX_COLOR: Expression =
    LazyLock::new(|| Regex::new(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").ok());
static RGB_COLOR: Expression =
    LazyLock::new(|| Regex::new(r"^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$").ok());
static OBJECT_ID: Expression = LazyLock::new(|| Regex::new(r"^[0-9a-fA-F]{24}$").ok());
static SSN: Expression = LazyLock::new(|| Regex::new(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$").ok());
static LABEL: Expression = LazyLock::new(|| Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").ok());
static SUBDOMAIN: Expression = LazyLock::new(|| {
    Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").ok()
});

fn matches(expression: &Expression, text: &str) -> bool {
    expression
        .as_ref()
        .is_some_and(|regex| regex.is_match(text))
}

fn is_uuid(text: &str, version: char) -> bool {
    matches(&UUID, text) && text.replace('-', "").chars().nth(12) == Some(version)
}

fn is_date_time(text: &str) -> bool {
    let mut bytes = text.to_owned();
    if let Some(separator) = text.chars().nth(10)
        && matches!(separator, 't' | ' ')
    {
        bytes.replace_range(10..11, "T");
    }
    Instant::parse(&bytes).is_some()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && Instant::parse(&format!("{text}T00:00:00Z")).is_some()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(bits) = bits.parse::<u8>() else {
        return false;
    };
    if address.parse::<Ipv4Addr>().is_ok() {
        bits <= 32
    } else {
        address.parse::<Ipv6Addr>().is_ok() && bits <= 128
    }
}

/// A request URI: absolute, or a path that starts with a slash.
fn is_uri(text: &str) -> bool {
    let is_printable = text.chars().all(|c| !c.is_control() && c != ' ');
    let has_scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.is_empty()
    });
    is_printable && (has_scheme || text.starts_with('/'))
}

/// Nanoseconds of a Go duration (`1h2m3.5s`), or of upstream's longer form with a word (`3 days`).
pub fn parse_duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let amount: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?.trim_start();
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
            .unwrap_or(rest.len());
        total += amount * unit_ns(rest.get(..letters)?)?;
        rest = rest.get(letters..)?.trim_start();
    }
    let total = if is_negative { -total } else { total };
    #[allow(clippy::cast_possible_truncation)]
    (total.abs() < 9.2e18).then_some(total as i64)
}

fn unit_ns(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1.0,
        "us" | "µs" | "μs" | "micro" | "micros" | "microsecond" | "microseconds" => 1e3,
        "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1e6,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e9,
        "m" | "min" | "mins" | "minute" | "minutes" => 6e10,
        "h" | "hr" | "hour" | "hours" => 3.6e12,
        "d" | "day" | "days" => 8.64e13,
        "w" | "wk" | "week" | "weeks" => 6.048e14,
        _ => return None,
    })
}
