//! Merge patches (RFC 7386) and strategic merge patches, on trees that keep the order of fields.
//!
//! A strategic merge patch looks like a merge patch, but lists are merged where the schema says so: lists of objects by their
//! merge key, lists of scalars as sets. Directives steer it: `$patch` (replace, delete), `$retainKeys`, `$deleteFromPrimitiveList/F`
//! and `$setElementOrder/F`. Mirrors apimachinery's strategicpatch, order of the resulting lists included.

use serde_json::{Map, Value};

use super::json::{JsonError, Kind, Scanner};
use super::schema::{Node, NodeId, PatchMeta, Schema, SchemaError};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The request is malformed (400).
    #[error("invalid JSON document: {0}")]
    Document(#[from] serde_json::Error),
    #[error("invalid JSON document: {0}")]
    Json(#[from] JsonError),
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed but cannot be applied (422).
    #[error("{0}")]
    Unprocessable(String),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Apply an RFC 7386 merge patch: objects merge, null deletes, everything else replaces. What the patch does not name is copied as it
/// stands, so that a small change of a large object costs little more than reading it.
pub fn merge_patch(target: &[u8], patch: &[u8]) -> Result<Vec<u8>, PatchError> {
    let mut out = Vec::with_capacity(target.len() + patch.len());
    let patch: Value = serde_json::from_slice(patch)?;
    let Value::Object(changes) = &patch else {
        write_value(&patch, &mut out)?;
        return Ok(out);
    };
    let target =
        std::str::from_utf8(target).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut scanner = Scanner::new(target);
    merge(&mut scanner, changes, &mut out)?;
    scanner.end()?;
    Ok(out)
}

/// Append the scanner's next value with the changes made; what is no object counts as an empty one.
fn merge(scanner: &mut Scanner<'_>, changes: &Object, out: &mut Vec<u8>) -> Result<(), PatchError> {
    if scanner.kind()? != Kind::Object {
        scanner.raw()?;
        return write_merged(changes, out);
    }
    scanner.enter()?;
    out.push(b'{');
    let start = out.len();
    let mut found = Vec::with_capacity(changes.len());
    let mut first = true;
    while let Some(key) = scanner.key(&mut first)? {
        let name = key.text();
        let change = changes.get_key_value(&*name);
        if let Some((name, _)) = change {
            found.push(name.as_str());
        }
        if change.is_some_and(|(_, change)| change.is_null()) {
            scanner.raw()?;
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(key.raw.as_bytes());
        out.push(b':');
        match change {
            Some((_, Value::Object(inner))) => merge(scanner, inner, out)?,
            Some((_, other)) => {
                scanner.raw()?;
                write_value(other, out)?;
            }
            None => {
                let raw = scanner.raw()?;
                out.extend_from_slice(raw.as_bytes());
            }
        }
    }
    for (name, change) in changes {
        if !found.contains(&name.as_str()) {
            write_new(name, change, start, out)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Append the object that `changes` make of an empty one.
fn write_merged(changes: &Object, out: &mut Vec<u8>) -> Result<(), PatchError> {
    out.push(b'{');
    let start = out.len();
    for (name, change) in changes {
        write_new(name, change, start, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// Append a field that was not there, in an object whose first field stands at `start`.
fn write_new(
    name: &str,
    change: &Value,
    start: usize,
    out: &mut Vec<u8>,
) -> Result<(), PatchError> {
    if change.is_null() {
        return Ok(());
    }
    if out.len() > start {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name)?;
    out.push(b':');
    match change {
        Value::Object(inner) => write_merged(inner, out),
        other => write_value(other, out),
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), PatchError> {
    Ok(serde_json::to_writer(out, value)?)
}

/// Apply a strategic merge patch to an object of the definition `name`.
pub fn strategic_merge_patch(
    target: &[u8],
    patch: &[u8],
    schema: &Schema,
    name: &str,
) -> Result<Vec<u8>, PatchError> {
    let root = schema.definition(name)?;
    let target: Value = serde_json::from_slice(target)?;
    let patch: Value = serde_json::from_slice(patch)?;
    let (Value::Object(original), Value::Object(changes)) = (target, patch) else {
        return Err(PatchError::Malformed(
            "a strategic merge patch must be a JSON object".to_owned(),
        ));
    };
    let merged = Strategic { schema }.map(original, changes, Some(root))?;
    Ok(serde_json::to_vec(&Value::Object(merged))?)
}

type Object = Map<String, Value>;

struct Strategic<'a> {
    schema: &'a Schema,
}

impl Strategic<'_> {
    /// Merge `patch` into `original`. Mirrors mergeMap.
    fn map(
        &self,
        mut original: Object,
        mut patch: Object,
        node: Option<NodeId>,
    ) -> Result<Object, PatchError> {
        if let Some(directive) = patch.shift_remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Object::new()),
                Some("merge") => self.map(original, patch, node),
                _ => Err(PatchError::Malformed(format!(
                    "unknown patch type found: {directive}"
                ))),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, node)?;
        for (key, change) in patch {
            let (field, is_deletion) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
                Some(field) => (field.to_owned(), true),
                None => (key, false),
            };
            if change.is_null() {
                original.shift_remove(&field);
                continue;
            }
            let Some(slot) = original.get_mut(&field) else {
                if !is_deletion {
                    original.insert(field, without_directives(change));
                }
                continue;
            };
            let (child, meta) = self.lookup(node, &field);
            match (slot.take(), change) {
                (Value::Object(before), Value::Object(change)) if !meta.replaces => {
                    *slot = Value::Object(self.map(before, change, child)?);
                }
                (Value::Array(before), Value::Array(change)) if meta.merges || is_deletion => {
                    *slot = Value::Array(self.list(
                        before,
                        change,
                        self.item(child),
                        &meta,
                        is_deletion,
                        &field,
                    )?);
                }
                (before, _) if is_deletion => *slot = before,
                (_, change) => *slot = without_directives(change),
            }
        }
        Ok(original)
    }

    /// Handle every `$setElementOrder/F` of `patch`, and the fields F with it. Mirrors mergePatchIntoOriginal.
    fn ordered_lists(
        &self,
        original: &mut Object,
        patch: &mut Object,
        node: Option<NodeId>,
    ) -> Result<(), PatchError> {
        let orders: Vec<String> = patch
            .keys()
            .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
            .cloned()
            .collect();
        for key in orders {
            let field = key.strip_prefix(SET_ELEMENT_ORDER).unwrap_or("").to_owned();
            let Some(Value::Array(order)) = patch.shift_remove(&key) else {
                return Err(PatchError::Malformed(format!(
                    "{SET_ELEMENT_ORDER}{field}: must be a list"
                )));
            };
            let (child, meta) = self.lookup(node, &field);
            let merge_key = meta.merge_key.as_deref();
            let change = match patch.shift_remove(&field) {
                None => None,
                Some(Value::Array(items)) => Some(items),
                Some(other) => {
                    // The list is deleted or changes its type: order means nothing then.
                    patch.insert(field, other);
                    continue;
                }
            };
            if let Some(items) = &change {
                check_order(items, &order, merge_key)?;
            }
            let deletion = format!("{DELETE_FROM_PRIMITIVE_LIST}{field}");
            let deleted = match patch.shift_remove(&deletion) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            let before = match original.get_mut(&field).map(Value::take) {
                Some(Value::Array(items)) => Some(items),
                _ => None,
            };
            let live = before.clone().unwrap_or_default();
            let mut merged = match (before, change) {
                (None, None) => {
                    original.shift_remove(&field);
                    continue;
                }
                (Some(items), None) => items,
                (None, Some(items)) => list_without_directives(items),
                (Some(items), Some(change)) => {
                    self.list(items, change, self.item(child), &meta, false, &field)?
                }
            };
            merged.retain(|item| !deleted.contains(item));
            let listed: Vec<Value> = order;
            original.insert(
                field,
                Value::Array(in_order(merged, &listed, &live, merge_key)),
            );
        }
        Ok(())
    }

    /// Merge two lists. Mirrors mergeSlice.
    fn list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        item: Option<NodeId>,
        meta: &PatchMeta,
        is_deletion: bool,
        field: &str,
    ) -> Result<Vec<Value>, PatchError> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let is_objects = match original.iter().chain(&patch).next() {
            Some(Value::Array(_)) => {
                return Err(PatchError::Unprocessable(
                    "lists of lists are not supported".to_owned(),
                ));
            }
            first => first.is_some_and(Value::is_object),
        };
        if original
            .iter()
            .chain(&patch)
            .any(|value| value.is_object() != is_objects)
        {
            return Err(PatchError::Unprocessable(format!(
                "list element types are not identical in {field}"
            )));
        }
        if !is_objects {
            return Ok(scalars(original, patch, is_deletion));
        }
        let Some(merge_key) = meta.merge_key.as_deref() else {
            return Err(PatchError::Unprocessable(format!(
                "cannot merge lists without merge key for {field}"
            )));
        };
        let live = original.clone();
        let (mut merged, changes, replaced) = apply_element_directives(original, patch, merge_key)?;
        if replaced {
            return Ok(changes);
        }
        for change in &changes {
            let key = key_of(change, merge_key)?;
            match merged
                .iter_mut()
                .find(|value| value.get(merge_key) == Some(key))
            {
                Some(slot) => {
                    if let (Value::Object(before), Value::Object(change)) =
                        (slot.take(), change.clone())
                    {
                        *slot = Value::Object(self.map(before, change, item)?);
                    }
                }
                None => merged.push(without_directives(change.clone())),
            }
        }
        Ok(in_order(merged, &changes, &live, Some(merge_key)))
    }

    /// The node of a field, and how patches treat it. Outside of the schema everything is replaced, except that objects merge.
    fn lookup(&self, node: Option<NodeId>, field: &str) -> (Option<NodeId>, PatchMeta) {
        match node.map(|id| self.schema.node(id)) {
            Some(Node::Object(object)) => match object.field(field) {
                Some((_, found)) => (Some(found.node), found.patch.clone()),
                None => (None, PatchMeta::default()),
            },
            Some(Node::Map(value)) => (Some(*value), PatchMeta::default()),
            _ => (None, PatchMeta::default()),
        }
    }

    fn item(&self, list: Option<NodeId>) -> Option<NodeId> {
        match list.map(|id| self.schema.node(id)) {
            Some(Node::List(item)) => Some(*item),
            _ => None,
        }
    }
}

/// `$retainKeys`: fields of the original that it does not list go; every field of the patch must be listed.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let kept: Option<Vec<&str>> = directive
        .as_array()
        .and_then(|keys| keys.iter().map(Value::as_str).collect());
    let Some(kept) = kept else {
        return Err(PatchError::Malformed(
            "invalid patch format of retainKeys: must be a list of strings".to_owned(),
        ));
    };
    for key in patch.keys() {
        let field = key
            .strip_prefix(DELETE_FROM_PRIMITIVE_LIST)
            .or_else(|| key.strip_prefix(SET_ELEMENT_ORDER))
            .unwrap_or(key);
        if !kept.contains(&field) {
            return Err(PatchError::Malformed(format!(
                "invalid patch format of retainKeys: {field} is not in the list"
            )));
        }
    }
    original.retain(|key, _| kept.contains(&key.as_str()));
    Ok(())
}

/// Take `$patch` elements out of a list's patch and obey them; the last value tells whether the patch replaces the list.
fn apply_element_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>, bool), PatchError> {
    let mut changes = Vec::with_capacity(patch.len());
    let mut replaced = false;
    for change in patch {
        match change
            .get(PATCH)
            .map(|directive| directive.as_str().unwrap_or(""))
        {
            None => changes.push(change),
            Some("replace") => replaced = true,
            Some("delete") => {
                let key = key_of(&change, merge_key)?;
                original.retain(|value| value.get(merge_key) != Some(key));
            }
            Some("merge") => {
                return Err(PatchError::Unprocessable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => {
                return Err(PatchError::Malformed(format!(
                    "unknown patch type found: {other}"
                )));
            }
        }
    }
    Ok((original, changes, replaced))
}

fn key_of<'v>(value: &'v Value, merge_key: &str) -> Result<&'v Value, PatchError> {
    value.get(merge_key).ok_or_else(|| {
        PatchError::Unprocessable(format!(
            "map: {value} does not contain declared merge key: {merge_key}"
        ))
    })
}

/// Lists of scalars merge as sets that keep their order; a deletion list removes.
fn scalars(mut original: Vec<Value>, patch: Vec<Value>, is_deletion: bool) -> Vec<Value> {
    if is_deletion {
        original.retain(|value| !patch.contains(value));
        return original;
    }
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    for value in original.iter().chain(&patch) {
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    in_order(merged, &patch, &original, None)
}

/// The elements of `$setElementOrder` must hold those of the patch, in the same order.
fn check_order(
    patch: &[Value],
    order: &[Value],
    merge_key: Option<&str>,
) -> Result<(), PatchError> {
    let mut places = order.iter();
    for value in patch {
        if value.get(PATCH).is_some() {
            continue;
        }
        if !places.any(|place| same(place, value, merge_key)) {
            return Err(PatchError::Malformed(
                "The order in patch list doesn't match the $setElementOrder list in the patch"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

fn same(left: &Value, right: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        Some(key) if left.is_object() && right.is_object() => {
            left.get(key).is_some() && left.get(key) == right.get(key)
        }
        _ => left == right,
    }
}

/// Order merged elements: those in `wanted` stand as there, the server's own keep their live order, and each of the latter
/// stands before the first wanted element that followed it on the server. Mirrors normalizeElementOrder.
fn in_order(
    merged: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let place =
        |list: &[Value], value: &Value| list.iter().position(|other| same(other, value, merge_key));
    let (mut listed, mut others): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .partition(|value| place(wanted, value).is_some());
    listed.sort_by_key(|value| place(wanted, value));
    others.sort_by_key(|value| place(live, value).unwrap_or(usize::MAX));
    let mut ordered = Vec::with_capacity(listed.len() + others.len());
    let mut listed = listed.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), listed.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => {
                matches!((place(live, other), place(live, next)), (Some(left), Some(right)) if left < right)
            }
        };
        ordered.extend(if other_first {
            others.next()
        } else {
            listed.next()
        });
    }
}

/// A patch's value where the original has none: directives have nothing to act on, and null means absent.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(key, value)| !value.is_null() && !is_directive(key))
                .map(|(key, value)| (key, without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(list_without_directives(items)),
        scalar => scalar,
    }
}

fn list_without_directives(items: Vec<Value>) -> Vec<Value> {
    items
        .into_iter()
        .filter(|item| item.get(PATCH).is_none())
        .map(without_directives)
        .collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || key.starts_with(SET_ELEMENT_ORDER)
}
