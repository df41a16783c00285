//! Reading a body into a tree that holds only what the schema knows.
//!
//! One pass over the bytes: unknown fields are noted and left out, of duplicate fields the last one stays. The metadata of the
//! object (and of embedded resources) is read as ObjectMeta by the table of built-in kinds. Values of a wrong type are kept:
//! validation says so with their path.

use serde_json::{Map, Number, Value};

use super::Decoded;
use super::schema::{Additional, Node};
use crate::api::check;
use crate::api::json::{JsonError, Kind, Scanner};
use crate::api::schema::Schema as Builtin;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Findings beyond this many are counted out, as for built-in kinds.
const FINDINGS_MAX: usize = 100;

pub fn decode(root: &Node, builtin: &Builtin, body: &[u8]) -> Result<Decoded, JsonError> {
    let source = String::from_utf8_lossy(body);
    let mut reader = Reader {
        scanner: Scanner::new(&source),
        builtin,
        found: Decoded::default(),
    };
    let object = reader.value(Some(root), true, "")?;
    reader.scanner.end()?;
    reader.found.object = object;
    Ok(reader.found)
}

/// Prune a tree that is in memory already; the root keeps its type and metadata.
pub fn prune_root(root: &Node, object: &mut Value) {
    prune(root, object, true);
}

fn prune(node: &Node, value: &mut Value, is_resource: bool) {
    match value {
        Value::Object(fields) => {
            let is_resource = is_resource || node.is_embedded;
            fields.retain(|name, _| knows(node, name, is_resource));
            for (name, child) in fields.iter_mut() {
                if let Some(inner) = node.field(name)
                    && !(is_resource && name == "metadata")
                {
                    prune(inner, child, false);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = node.items.as_deref() {
                for item in items {
                    prune(inner, item, false);
                }
            }
        }
        _ => {}
    }
}

fn knows(node: &Node, name: &str, is_resource: bool) -> bool {
    node.preserves_unknown
        || node.properties.contains_key(name)
        || !matches!(node.additional, Additional::None)
        || (is_resource && matches!(name, "apiVersion" | "kind" | "metadata"))
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    builtin: &'a Builtin,
    found: Decoded,
}

impl Reader<'_> {
    /// Read the next value; without a node everything is kept.
    fn value(
        &mut self,
        node: Option<&Node>,
        is_root: bool,
        path: &str,
    ) -> Result<Value, JsonError> {
        Ok(match self.scanner.kind()? {
            Kind::Object => Value::Object(self.object(node, is_root, path)?),
            Kind::Array => {
                let inner = node.and_then(|node| node.items.as_deref());
                self.scanner.enter()?;
                let mut items = Vec::new();
                let mut first = true;
                while self.scanner.element(&mut first)? {
                    let at = format!("{path}[{}]", items.len());
                    items.push(self.value(inner, false, &at)?);
                }
                Value::Array(items)
            }
            Kind::Text => Value::String(self.scanner.text()?.text().into_owned()),
            Kind::Number => number(self.scanner.number()?),
            Kind::Boolean => Value::Bool(self.scanner.literal()? == "true"),
            Kind::Null => {
                self.scanner.literal()?;
                Value::Null
            }
        })
    }

    fn object(
        &mut self,
        node: Option<&Node>,
        is_root: bool,
        path: &str,
    ) -> Result<Map<String, Value>, JsonError> {
        self.scanner.enter()?;
        let mut fields = Map::new();
        let is_resource = is_root || node.is_some_and(|node| node.is_embedded);
        let mut first = true;
        while let Some(key) = self.scanner.key(&mut first)? {
            let name = key.text();
            let at = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            if let Some(node) = node
                && !knows(node, &name, is_resource)
            {
                self.scanner.skip()?;
                note(&mut self.found.unknown, at);
                continue;
            }
            if fields.contains_key(&*name) {
                note(&mut self.found.duplicate, at.clone());
            }
            let value = if is_resource && name == "metadata" && self.scanner.kind()? == Kind::Object
            {
                self.metadata(&at)?
            } else {
                self.value(node.and_then(|node| node.field(&name)), false, &at)?
            };
            fields.insert(name.into_owned(), value);
        }
        Ok(fields)
    }

    fn metadata(&mut self, path: &str) -> Result<Value, JsonError> {
        let mut raw = Vec::new();
        self.scanner.copy(&mut raw)?;
        let Ok(checked) = check::check(self.builtin, OBJECT_META, &raw) else {
            return Ok(serde_json::from_slice(&raw).unwrap_or_default());
        };
        for one in checked.unknown {
            note(&mut self.found.unknown, format!("{path}.{one}"));
        }
        for one in checked.duplicate {
            note(&mut self.found.duplicate, format!("{path}.{one}"));
        }
        for (at, message) in checked.type_errors {
            self.found
                .type_errors
                .push((format!("{path}.{at}"), message));
        }
        Ok(serde_json::from_slice(&checked.body).unwrap_or_default())
    }
}

fn note(list: &mut Vec<String>, path: String) {
    if list.len() < FINDINGS_MAX && !list.contains(&path) {
        list.push(path);
    }
}

/// An integer where it fits 64 bits, else a float, as Go's unstructured decoder reads numbers.
fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse::<i64>() {
        return Value::from(integer);
    }
    text.parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map_or(Value::Null, Value::Number)
}
