//! JSON as CEL values and back, with a schema or without.
//!
//! With a schema, only declared fields can be seen, their names escaped as CEL needs it, null is absence, and formats become times,
//! durations and bytes. Mirrors apiserver's cel/common/values.go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use chrono::{DateTime, Duration, FixedOffset, NaiveDate, Offset as _};
use kube_cel::cel::objects::{Key, Map, Value};
use serde_json::{Number, Value as Json};

use crate::api::structural::{Node, NodeType};

const RESERVED: [&str; 18] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
];

/// A value without a schema: everything can be seen, names stay as they are.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => from_number(number),
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(fields) => map(fields
            .iter()
            .map(|(name, value)| (name.clone(), from_json(value)))),
    }
}

/// A value of `node`, of an object only the fields `needed` (as expressions write them; None: all of them).
pub fn from_node_part(
    node: &Node,
    json: &Json,
    is_resource: bool,
    needed: Option<&HashSet<&str>>,
) -> Value {
    match (node.kind, json, needed) {
        (NodeType::Object, Json::Object(fields), Some(needed)) if !node.properties.is_empty() => {
            object(node, fields, is_resource || node.is_embedded, Some(needed))
        }
        _ => from_node(node, json, is_resource),
    }
}

/// A value of `node`; `is_resource` at the root of an object.
pub fn from_node(node: &Node, json: &Json, is_resource: bool) -> Value {
    match (node.kind, json) {
        (_, Json::Null) => Value::Null,
        (NodeType::Object, Json::Object(fields)) => {
            object(node, fields, is_resource || node.is_embedded, None)
        }
        (NodeType::Array, Json::Array(items)) => {
            let inner = node.items.as_deref();
            let converted = items.iter().map(|item| match inner {
                Some(inner) => from_node(inner, item, false),
                None => from_json(item),
            });
            Value::List(Arc::new(converted.collect()))
        }
        (NodeType::Number, Json::Number(number)) => {
            Value::Float(number.as_f64().unwrap_or_default())
        }
        (NodeType::Integer, Json::Number(number)) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            #[allow(clippy::cast_possible_truncation)]
            None => Value::Int(number.as_f64().unwrap_or_default() as i64),
        },
        (NodeType::Text, Json::String(text)) => {
            from_text(node.format.as_deref().unwrap_or(""), text)
        }
        _ => from_json(json),
    }
}

fn object(
    node: &Node,
    fields: &serde_json::Map<String, Json>,
    is_resource: bool,
    needed: Option<&HashSet<&str>>,
) -> Value {
    if node.properties.is_empty() && !is_resource {
        if let Some(inner) = node.field("") {
            return map(fields
                .iter()
                .map(|(name, value)| (name.clone(), from_node(inner, value, false))));
        }
        if node.preserves_unknown || node.is_map() {
            return map(fields
                .iter()
                .map(|(name, value)| (name.clone(), from_json(value))));
        }
    }
    map(fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(name, value)| {
            if is_resource {
                match name.as_str() {
                    "apiVersion" | "kind" => return Some((name.clone(), from_json(value))),
                    "metadata" => return Some((name.clone(), metadata(value))),
                    _ => {}
                }
            }
            let inner = node.properties.get(name.as_str())?;
            let shown = escape(name)?;
            let is_needed = needed.is_none_or(|needed| needed.contains(shown.as_str()));
            is_needed.then(|| (shown, from_node(inner, value, false)))
        }))
}

/// Of metadata, rules see the names alone.
fn metadata(json: &Json) -> Value {
    map(["name", "generateName"].iter().filter_map(|name| {
        let value = json.get(name)?;
        Some(((*name).to_owned(), from_json(value)))
    }))
}

fn from_text(format: &str, text: &str) -> Value {
    let plain = || Value::String(Arc::new(text.to_owned()));
    match format {
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| plain(), |bytes| Value::Bytes(Arc::new(bytes))),
        "date-time" => {
            DateTime::parse_from_rfc3339(text).map_or_else(|_| plain(), Value::Timestamp)
        }
        "date" => NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .and_then(|day| day.and_hms_opt(0, 0, 0))
            .map_or_else(plain, |time| {
                Value::Timestamp(time.and_utc().with_timezone(&utc()))
            }),
        "duration" => crate::api::structural::parse_duration(text)
            .map_or_else(plain, |nanos| Value::Duration(Duration::nanoseconds(nanos))),
        _ => plain(),
    }
}

fn utc() -> FixedOffset {
    chrono::Utc.fix()
}

fn from_number(number: &Number) -> Value {
    if let Some(integer) = number.as_i64() {
        return Value::Int(integer);
    }
    match number.as_u64() {
        Some(integer) => Value::UInt(integer),
        None => Value::Float(number.as_f64().unwrap_or_default()),
    }
}

pub fn map(entries: impl Iterator<Item = (String, Value)>) -> Value {
    let map: HashMap<Key, Value> = entries
        .map(|(name, value)| (Key::String(Arc::new(name)), value))
        .collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// JSON of a value; None for what has none (a type, a URL, an IP address ...). Map entries are ordered by key.
pub fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(integer) => Json::from(*integer),
        Value::UInt(integer) => Json::from(*integer),
        Value::Float(number) =>
        {
            #[allow(clippy::cast_possible_truncation)]
            if number.fract() == 0.0 && number.abs() < 9e15 {
                Json::from(*number as i64)
            } else {
                Json::Number(Number::from_f64(*number)?)
            }
        }
        Value::String(text) => Json::String(text.to_string()),
        Value::Bytes(bytes) => {
            Json::String(base64::engine::general_purpose::STANDARD.encode(&**bytes))
        }
        Value::Timestamp(time) => {
            Json::String(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        }
        Value::Duration(duration) => Json::String(format!("{}s", duration.as_seconds_f64())),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(map) => {
            let mut entries: Vec<_> = map
                .map
                .iter()
                .map(|(key, value)| Some((key.to_string(), to_json(value)?)))
                .collect::<Option<_>>()?;
            entries.sort_by(|first, second| first.0.cmp(&second.0));
            Json::Object(entries.into_iter().collect())
        }
        _ => return None,
    })
}

/// The name of a value's type, as `type(value)` compares it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        _ => "type",
    }
}

pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Int(number) => *number == 0,
        Value::UInt(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.map.is_empty(),
        _ => false,
    }
}

/// A property's name as expressions write it; None for a name that cannot be written.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    let mut is_first = true;
    while let Some(letter) = rest.next() {
        match letter {
            '_' if rest.peek() == Some(&'_') => {
                rest.next();
                escaped.push_str("__underscores__");
            }
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            letter if letter == '_' || letter.is_ascii_alphabetic() => escaped.push(letter),
            letter if letter.is_ascii_digit() && !is_first => escaped.push(letter),
            _ => return None,
        }
        is_first = false;
    }
    Some(escaped)
}
