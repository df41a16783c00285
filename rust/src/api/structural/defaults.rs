//! Defaults: what a field is when it is absent, or null where null is not allowed.
//!
//! A null that is neither allowed nor has a default is taken away. Mirrors apiextensions' schema/defaulting.

use serde_json::Value;

use super::schema::Node;

/// Apply the defaults below `node`, in place.
pub fn apply(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, child) in &node.properties {
                let is_missing = match fields.get(&**name) {
                    None => true,
                    Some(found) => found.is_null() && !child.nullable,
                };
                if !is_missing {
                    continue;
                }
                match &child.default {
                    Some(default) => {
                        fields.insert(name.to_string(), (**default).clone());
                    }
                    None => {
                        fields.shift_remove(&**name);
                    }
                }
            }
            let nothing = Value::Null;
            fields.retain(|name, found| {
                *found != nothing
                    || node
                        .field(name)
                        .is_none_or(|child| child.nullable || child.default.is_some())
            });
            for (name, child) in fields.iter_mut() {
                if let Some(inner) = node.field(name) {
                    if child.is_null()
                        && !inner.nullable
                        && let Some(default) = &inner.default
                    {
                        *child = (**default).clone();
                    }
                    apply(inner, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = node.items.as_deref() {
                for item in items {
                    if item.is_null()
                        && !inner.nullable
                        && let Some(default) = &inner.default
                    {
                        *item = (**default).clone();
                    }
                    apply(inner, item);
                }
            }
        }
        _ => {}
    }
}
