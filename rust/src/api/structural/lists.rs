//! What holds beyond JSON schema: sets have no double values, maps no double keys, and embedded resources have real metadata.
//!
//! Mirrors apiextensions' schema/listtype and schema/objectmeta.

use std::collections::HashSet;

use serde_json::Value;

use super::Failure;
use super::schema::{ListType, Node};
use super::validate::{DUPLICATE, INVALID, REQUIRED, child_path, render};

/// Check the invariants of every list that is a set or a map.
pub fn sets_and_maps(node: &Node, value: &Value, failures: &mut Vec<Failure>) {
    walk(node, value, "", failures, &check_list);
}

/// Check that every embedded resource has an apiVersion and a kind that may be one.
pub fn embedded_metadata(node: &Node, value: &Value, failures: &mut Vec<Failure>) {
    walk(node, value, "", failures, &check_embedded);
}

type Check = dyn Fn(&Node, &Value, &str, &mut Vec<Failure>);

fn walk(node: &Node, value: &Value, path: &str, failures: &mut Vec<Failure>, check: &Check) {
    check(node, value, path, failures);
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                if let Some(inner) = node.field(name)
                    && (child.is_object() || child.is_array())
                {
                    walk(inner, child, &child_path(path, name), failures, check);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    if item.is_object() || item.is_array() {
                        walk(inner, item, &format!("{path}[{index}]"), failures, check);
                    }
                }
            }
        }
        _ => {}
    }
}

fn check_list(node: &Node, value: &Value, path: &str, failures: &mut Vec<Failure>) {
    let Value::Array(items) = value else { return };
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = match node.list_type {
            ListType::Atomic => return,
            ListType::Set => item.clone(),
            ListType::Map => key_of(node, item),
        };
        if !seen.insert(key.to_string()) {
            failures.push(Failure {
                reason: DUPLICATE,
                field: format!("{path}[{index}]"),
                message: format!("Duplicate value: {}", render(&key)),
            });
        }
    }
}

/// The values of an item's keys; a missing key counts as its default.
fn key_of(node: &Node, item: &Value) -> Value {
    let mut key = serde_json::Map::new();
    for name in &node.list_map_keys {
        let default = || {
            node.items
                .as_deref()
                .and_then(|items| items.properties.get(name))
                .and_then(|field| field.default.as_deref())
        };
        if let Some(value) = item.get(&**name).or_else(default) {
            key.insert(name.to_string(), value.clone());
        }
    }
    Value::Object(key)
}

fn check_embedded(node: &Node, value: &Value, path: &str, failures: &mut Vec<Failure>) {
    if !node.is_embedded {
        return;
    }
    for name in ["apiVersion", "kind"] {
        let field = child_path(path, name);
        match value.get(name) {
            None => failures.push(Failure {
                reason: REQUIRED,
                field,
                message: "Required value: must not be empty".to_owned(),
            }),
            Some(Value::String(text)) if text.is_empty() => failures.push(Failure {
                reason: REQUIRED,
                field,
                message: "Required value: must not be empty".to_owned(),
            }),
            Some(Value::String(_)) => {}
            Some(other) => failures.push(Failure {
                reason: INVALID,
                field,
                message: format!("Invalid value: {}: must be a string", render(other)),
            }),
        }
    }
}
