//! Decoding a body as its kind would: one pass that copies the body while it prunes, normalises and checks.
//!
//! It does what a round trip through Go's typed decoder does: fields that the kind does not have vanish (and are reported),
//! null means absent, quantities and times take their canonical form. Two outcomes are told apart: strict findings (unknown and
//! duplicate fields, which a client may choose to ignore) and type errors (which make the body no object of this kind at all).
//! A body with duplicate fields goes through a tree first, where the last one wins; all others are never held as a tree.

use base64::Engine as _;
use serde_json::Value;

use super::json::{JsonError, Kind, RawText, Scanner, write_raw, write_text};
use super::quantity::Quantity;
use super::schema::{Node, NodeId, Object, Schema, SchemaError};
use super::time::Instant;

/// Findings beyond this many are counted out, as upstream does.
const FINDINGS_MAX: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// What checking a body found. Paths look like `spec.containers[0].image`.
#[derive(Debug, Default)]
pub struct Checked {
    pub body: Vec<u8>,
    pub unknown: Vec<String>,
    pub duplicate: Vec<String>,
    /// (path, message), in the order of the body.
    pub type_errors: Vec<(String, String)>,
}

/// Check `body` as the definition `name`. Fails when the definition is unknown or the body is no JSON.
pub fn check(schema: &Schema, name: &str, body: &[u8]) -> Result<Checked, CheckError> {
    let root = schema.definition(name)?;
    let source = String::from_utf8_lossy(body);
    let mut found = pass(schema, root, &source)?;
    if !found.duplicate.is_empty() {
        let tree: Value = serde_json::from_str(&source).map_err(|_| JsonError::Depth)?;
        let mut again = pass(schema, root, &tree.to_string())?;
        again.duplicate = found.duplicate;
        found = again;
    }
    Ok(found)
}

fn pass(schema: &Schema, root: NodeId, source: &str) -> Result<Checked, JsonError> {
    let mut checker = Checker {
        schema,
        scanner: Scanner::new(source),
        found: Checked {
            body: Vec::with_capacity(source.len()),
            ..Checked::default()
        },
        path: Vec::with_capacity(16),
    };
    if !checker.value(root, "")? {
        checker.found.body.extend_from_slice(b"{}");
    }
    checker.scanner.end()?;
    Ok(checker.found)
}

/// One step of a path; rendered only when something is found.
enum Step<'a> {
    Field(RawText<'a>),
    Key(RawText<'a>),
    Index(usize),
}

struct Checker<'a> {
    schema: &'a Schema,
    scanner: Scanner<'a>,
    found: Checked,
    path: Vec<Step<'a>>,
}

impl<'a> Checker<'a> {
    /// Copy the next value as `id`; false when nothing was written because the value was null or wrong.
    /// `owner` is the Go name of the struct whose field this is.
    fn value(&mut self, id: NodeId, owner: &str) -> Result<bool, JsonError> {
        let schema = self.schema;
        let node = schema.node(id);
        let kind = self.scanner.kind()?;
        if kind == Kind::Null {
            self.scanner.literal()?;
            return Ok(false);
        }
        match (node, kind) {
            (Node::Any { checks_duplicates }, _) => self.any(*checks_duplicates)?,
            (Node::Text, Kind::Text) => {
                let text = self.scanner.text()?;
                write_raw(&mut self.found.body, text);
            }
            (Node::Integer { bits }, Kind::Number) => return self.integer(*bits, owner),
            (Node::Number, Kind::Number) => {
                let number = self.scanner.number()?;
                self.found.body.extend_from_slice(number.as_bytes());
            }
            (Node::Boolean, Kind::Boolean) => {
                let word = self.scanner.literal()?;
                self.found.body.extend_from_slice(word.as_bytes());
            }
            (Node::Object(object), Kind::Object) => self.object(object)?,
            (Node::Map(value), Kind::Object) => self.map(*value, owner)?,
            (Node::List(item), Kind::Array) => self.list(*item, owner)?,
            (Node::IntOrString { .. }, Kind::Text) => {
                let text = self.scanner.text()?;
                write_raw(&mut self.found.body, text);
            }
            (Node::IntOrString { bits }, Kind::Number) => return self.integer(*bits, ""),
            (Node::IntOrString { bits }, _) => {
                return self.mismatch(kind.word(), &format!("int{bits}"), "");
            }
            (Node::Quantity, Kind::Text | Kind::Number) => return self.quantity(kind),
            (Node::Quantity, _) => {
                self.scanner.skip()?;
                return Ok(self.type_error(super::quantity::QuantityError::Format.to_string()));
            }
            (Node::Time | Node::MicroTime, Kind::Text) => {
                return self.time(matches!(node, Node::MicroTime));
            }
            (Node::Time | Node::MicroTime, _) => return self.mismatch(kind.word(), "string", ""),
            (Node::Bytes, Kind::Text) => return self.bytes(),
            (Node::SchemaOr(inner), _) => return self.schema_or(*inner, kind),
            _ => return self.mismatch(kind.word(), &schema.type_name(id), owner),
        }
        Ok(true)
    }

    fn object(&mut self, object: &Object) -> Result<(), JsonError> {
        self.scanner.enter()?;
        self.found.body.push(b'{');
        let mut seen = Seen::default();
        let mut first = true;
        let mut empty = true;
        while let Some(key) = self.scanner.key(&mut first)? {
            self.path.push(Step::Field(key));
            let name = key.text();
            match object.field(&name) {
                Some((index, field)) => {
                    if seen.index(index) {
                        self.duplicate();
                    }
                    let start = self.found.body.len();
                    if !empty {
                        self.found.body.push(b',');
                    }
                    write_raw(&mut self.found.body, key);
                    self.found.body.push(b':');
                    if self.value(field.node, &object.go_name)? {
                        empty = false;
                    } else if field.nullable {
                        self.found.body.extend_from_slice(b"null");
                        empty = false;
                    } else {
                        self.found.body.truncate(start);
                    }
                }
                None if object.preserves_unknown => {
                    if seen.name(&name) {
                        self.duplicate();
                    }
                    if !empty {
                        self.found.body.push(b',');
                    }
                    empty = false;
                    write_raw(&mut self.found.body, key);
                    self.found.body.push(b':');
                    self.any(true)?;
                }
                None => {
                    self.unknown();
                    self.scanner.skip()?;
                }
            }
            self.path.pop();
        }
        self.found.body.push(b'}');
        Ok(())
    }

    fn map(&mut self, value: NodeId, owner: &str) -> Result<(), JsonError> {
        self.scanner.enter()?;
        self.found.body.push(b'{');
        let mut seen = Seen::default();
        let mut first = true;
        let mut empty = true;
        while let Some(key) = self.scanner.key(&mut first)? {
            self.path.push(Step::Key(key));
            if seen.name(&key.text()) {
                self.duplicate();
            }
            let start = self.found.body.len();
            if !empty {
                self.found.body.push(b',');
            }
            write_raw(&mut self.found.body, key);
            self.found.body.push(b':');
            if self.value(value, owner)? || self.zero(value) {
                empty = false;
            } else {
                self.found.body.truncate(start);
            }
            self.path.pop();
        }
        self.found.body.push(b'}');
        Ok(())
    }

    fn list(&mut self, item: NodeId, owner: &str) -> Result<(), JsonError> {
        self.scanner.enter()?;
        self.found.body.push(b'[');
        let mut first = true;
        let mut empty = true;
        let mut index = 0;
        while self.scanner.element(&mut first)? {
            self.path.push(Step::Index(index));
            let start = self.found.body.len();
            if !empty {
                self.found.body.push(b',');
            }
            if self.value(item, owner)? || self.zero(item) {
                empty = false;
            } else {
                self.found.body.truncate(start);
            }
            self.path.pop();
            index += 1;
        }
        self.found.body.push(b']');
        Ok(())
    }

    /// Write what null means inside a map or list, where a value cannot be absent: Go's zero value.
    fn zero(&mut self, id: NodeId) -> bool {
        let zero: &[u8] = match self.schema.node(id) {
            Node::Any { .. } => b"null",
            Node::Text | Node::Bytes => b"\"\"",
            Node::Integer { .. } | Node::Number | Node::IntOrString { .. } => b"0",
            Node::Boolean => b"false",
            Node::Quantity => b"\"0\"",
            Node::Object(_) => b"{}",
            Node::Time | Node::MicroTime | Node::Map(_) | Node::List(_) | Node::SchemaOr(_) => {
                return false;
            }
        };
        self.found.body.extend_from_slice(zero);
        true
    }

    fn any(&mut self, checks_duplicates: bool) -> Result<(), JsonError> {
        if !checks_duplicates {
            return self.scanner.copy(&mut self.found.body);
        }
        match self.scanner.kind()? {
            Kind::Object => {
                self.scanner.enter()?;
                self.found.body.push(b'{');
                let mut seen = Seen::default();
                let mut first = true;
                let mut empty = true;
                while let Some(key) = self.scanner.key(&mut first)? {
                    self.path.push(Step::Key(key));
                    if seen.name(&key.text()) {
                        self.duplicate();
                    }
                    if !empty {
                        self.found.body.push(b',');
                    }
                    empty = false;
                    write_raw(&mut self.found.body, key);
                    self.found.body.push(b':');
                    self.any(true)?;
                    self.path.pop();
                }
                self.found.body.push(b'}');
            }
            Kind::Array => {
                self.scanner.enter()?;
                self.found.body.push(b'[');
                let mut first = true;
                let mut index = 0;
                while self.scanner.element(&mut first)? {
                    if index > 0 {
                        self.found.body.push(b',');
                    }
                    self.path.push(Step::Index(index));
                    self.any(true)?;
                    self.path.pop();
                    index += 1;
                }
                self.found.body.push(b']');
            }
            _ => self.scanner.copy(&mut self.found.body)?,
        }
        Ok(())
    }

    /// JSONSchemaProps' unions: objects are schemas (checked, but not strictly, as upstream decodes them), the rest stays.
    fn schema_or(&mut self, inner: NodeId, kind: Kind) -> Result<bool, JsonError> {
        let unknown = self.found.unknown.len();
        match kind {
            Kind::Object => {
                self.value(inner, "")?;
            }
            Kind::Array => {
                self.scanner.enter()?;
                self.found.body.push(b'[');
                let mut first = true;
                let mut index = 0;
                while self.scanner.element(&mut first)? {
                    if index > 0 {
                        self.found.body.push(b',');
                    }
                    index += 1;
                    match self.scanner.kind()? {
                        Kind::Object => {
                            self.value(inner, "")?;
                        }
                        _ => self.scanner.copy(&mut self.found.body)?,
                    }
                }
                self.found.body.push(b']');
            }
            _ => self.scanner.copy(&mut self.found.body)?,
        }
        self.found.unknown.truncate(unknown);
        Ok(true)
    }

    fn integer(&mut self, bits: u8, owner: &str) -> Result<bool, JsonError> {
        let number = self.scanner.number()?;
        let fits = if bits == 32 {
            number.parse::<i32>().is_ok()
        } else {
            number.parse::<i64>().is_ok()
        };
        if fits {
            self.found.body.extend_from_slice(number.as_bytes());
            return Ok(true);
        }
        let message =
            self.unmarshal_message(&format!("number {number}"), &format!("int{bits}"), owner);
        Ok(self.type_error(message))
    }

    fn quantity(&mut self, kind: Kind) -> Result<bool, JsonError> {
        let parsed = if kind == Kind::Number {
            Quantity::parse(self.scanner.number()?)
        } else {
            let text = self.scanner.text()?.text();
            Quantity::parse(text.trim())
        };
        match parsed {
            Ok(quantity) => {
                write_text(&mut self.found.body, &quantity.canonical());
                Ok(true)
            }
            Err(error) => Ok(self.type_error(error.to_string())),
        }
    }

    fn time(&mut self, is_micro: bool) -> Result<bool, JsonError> {
        let text = self.scanner.text()?.text();
        match Instant::parse(&text) {
            Some(instant) => {
                let canonical = if is_micro {
                    instant.to_micro_time()
                } else {
                    instant.to_time()
                };
                write_text(&mut self.found.body, &canonical);
                Ok(true)
            }
            None => {
                let layout = if is_micro {
                    "2006-01-02T15:04:05.000000Z07:00"
                } else {
                    "2006-01-02T15:04:05Z07:00"
                };
                Ok(self.type_error(format!(
                    "parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\""
                )))
            }
        }
    }

    fn bytes(&mut self) -> Result<bool, JsonError> {
        let raw = self.scanner.text()?;
        let text = raw.text();
        let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match base64::engine::general_purpose::STANDARD.decode(&compact) {
            Ok(_) => {
                write_text(&mut self.found.body, &compact);
                Ok(true)
            }
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _)
                    | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    _ => compact.len() / 4 * 4,
                };
                Ok(self.type_error(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    fn mismatch(&mut self, what: &str, wanted: &str, owner: &str) -> Result<bool, JsonError> {
        self.scanner.skip()?;
        let message = self.unmarshal_message(what, wanted, owner);
        Ok(self.type_error(message))
    }

    /// The words of Go's UnmarshalTypeError; without an owner those for a value that is no struct's field.
    fn unmarshal_message(&self, what: &str, wanted: &str, owner: &str) -> String {
        if owner.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {wanted}");
        }
        let names: Vec<_> = self
            .path
            .iter()
            .filter_map(|step| {
                if let Step::Field(name) = step {
                    Some(name.text())
                } else {
                    None
                }
            })
            .collect();
        format!(
            "json: cannot unmarshal {what} into Go struct field {owner}.{} of type {wanted}",
            names.join(".")
        )
    }

    /// Note a type error; false, since nothing was written.
    fn type_error(&mut self, message: String) -> bool {
        if self.found.type_errors.len() < FINDINGS_MAX {
            let path = self.rendered_path();
            self.found.type_errors.push((path, message));
        }
        false
    }

    fn unknown(&mut self) {
        if self.found.unknown.len() < FINDINGS_MAX {
            let path = self.rendered_path();
            self.found.unknown.push(path);
        }
    }

    fn duplicate(&mut self) {
        let path = self.rendered_path();
        if self.found.duplicate.len() < FINDINGS_MAX && !self.found.duplicate.contains(&path) {
            self.found.duplicate.push(path);
        }
    }

    fn rendered_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Field(name) | Step::Key(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name.text());
                }
            }
        }
        path
    }
}

/// Which fields of an object were met: a bit set for declared fields, names for the others.
#[derive(Default)]
struct Seen {
    bits: u128,
    names: Vec<Box<str>>,
    many: std::collections::HashSet<Box<str>>,
}

impl Seen {
    /// Note a declared field; true when it was there before.
    fn index(&mut self, index: usize) -> bool {
        if index >= 128 {
            return self.name(&index.to_string());
        }
        let bit = 1u128 << index;
        let before = self.bits & bit != 0;
        self.bits |= bit;
        before
    }

    /// Note a name; true when it was there before. Few names are searched one by one, many are hashed.
    fn name(&mut self, name: &str) -> bool {
        if !self.many.is_empty() {
            return !self.many.insert(name.into());
        }
        if self.names.iter().any(|known| &**known == name) {
            return true;
        }
        self.names.push(name.into());
        if self.names.len() > 16 {
            self.many.extend(self.names.drain(..));
        }
        false
    }
}
