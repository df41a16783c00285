//! Request bodies in protobuf become JSON: typed Go clients send them unless told otherwise.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`, whose `raw` is the message of the kind it names. Decoding is driven
//! by a table of field numbers (`protobuf_fields.txt`), so no code is generated and a new kind costs a few lines of text.
//! Go's encoder always writes fields that are no pointers, even when they are zero; where JSON would leave such a zero out, the
//! table says so. Encoding is not needed: every client that sends protobuf takes JSON back.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Number, Value};

use super::time::Instant;

const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; a JSONSchemaProps may be deep, an attacker's body deeper.
const DEPTH_MAX: u32 = 200;

#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    #[error("unexpected EOF")]
    End,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: message nested too deeply")]
    Depth,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    Kind { api_version: String, kind: String },
    #[error("content encoding {0} is not supported")]
    Encoding(String),
    #[error("raw JSON inside the message is invalid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the table of field numbers is inconsistent at {0}")]
    Table(String),
}

/// A decoded body: what it says it is, and the object as JSON with apiVersion and kind.
#[derive(Debug)]
pub struct Decoded {
    pub api_version: String,
    pub kind: String,
    pub json: Vec<u8>,
}

/// Decode a body with its envelope.
pub fn to_json(body: &[u8]) -> Result<Decoded, ProtobufError> {
    let table = table()?;
    let inner = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let envelope = Envelope::read(inner)?;
    if !envelope.encoding.is_empty() {
        return Err(ProtobufError::Encoding(envelope.encoding));
    }
    let Envelope {
        api_version, kind, ..
    } = envelope;
    let mut object = Map::new();
    object.insert("kind".to_owned(), Value::from(kind.clone()));
    object.insert("apiVersion".to_owned(), Value::from(api_version.clone()));
    if envelope.content_type.contains("json") {
        return Ok(Decoded {
            api_version,
            kind,
            json: envelope.raw.to_vec(),
        });
    }
    let Some(id) = table.kind(&api_version, &kind) else {
        return Err(ProtobufError::Kind { api_version, kind });
    };
    table.fields_into(id, envelope.raw, &mut object, 0)?;
    Ok(Decoded {
        api_version,
        kind,
        json: serde_json::to_vec(&Value::Object(object))?,
    })
}

/// `runtime.Unknown`: 1 typeMeta {1 apiVersion, 2 kind}, 2 raw, 3 contentEncoding, 4 contentType.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    encoding: String,
    content_type: String,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut found = Self::default();
        let mut reader = Reader { bytes };
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes(inner)) => {
                    let mut meta = Reader { bytes: inner };
                    while let Some((number, wire)) = meta.field()? {
                        match (number, wire) {
                            (1, Wire::Bytes(text)) => found.api_version = lossy(text),
                            (2, Wire::Bytes(text)) => found.kind = lossy(text),
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => found.raw = raw,
                (3, Wire::Bytes(text)) => found.encoding = lossy(text),
                (4, Wire::Bytes(text)) => found.content_type = lossy(text),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// A value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    /// No field of the API is of this type.
    Fixed32,
    Bytes(&'a [u8]),
}

/// Reads fields one after the other; what it has not read yet stays in `bytes`.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, ProtobufError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| ProtobufError::Overflow)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Some((key >> 3, wire)))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.bytes.split_first().ok_or(ProtobufError::End)?;
            self.bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Overflow)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(ProtobufError::End)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::End)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Bytes,
    Boolean,
    Integer,
    Double,
    Message(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arity {
    One,
    /// Zero means absent.
    Omitted,
    Many,
    /// From string keys.
    Map,
    /// The message's fields belong to the message around it.
    Inline,
}

#[derive(Debug)]
struct Field {
    number: u64,
    name: String,
    kind: Type,
    arity: Arity,
}

/// How a message becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Object,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// One field of bytes that holds JSON.
    RawJson,
    /// One repeated field of strings, that is the list itself.
    Items,
    /// A schema, or else the second field.
    SchemaOr,
}

#[derive(Debug)]
struct Message {
    form: Form,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Table {
    messages: Vec<Message>,
    /// By `apiVersion/Kind`; `*/Kind` stands for every version.
    kinds: HashMap<String, usize>,
}

fn table() -> Result<&'static Table, ProtobufError> {
    static TABLE: OnceLock<Result<Table, String>> = OnceLock::new();
    match TABLE.get_or_init(|| Table::parse(include_str!("protobuf_fields.txt"))) {
        Ok(table) => Ok(table),
        Err(line) => Err(ProtobufError::Table(line.clone())),
    }
}

impl Table {
    /// Parse the table's text (the format stands at its top); the error is the line that is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let heads = text.lines().filter_map(|line| line.strip_prefix('@'));
        let ids: HashMap<&str, usize> = heads
            .enumerate()
            .map(|(id, head)| (head.split(' ').next().unwrap_or(head), id))
            .collect();
        let mut table = Self {
            messages: Vec::with_capacity(ids.len()),
            kinds: HashMap::new(),
        };
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            if let Some(head) = line.strip_prefix('@') {
                let (name, api_version) = head.split_once(' ').unwrap_or((head, ""));
                let base = name.rsplit('.').next().unwrap_or(name);
                if !api_version.is_empty() {
                    table
                        .kinds
                        .insert(format!("{api_version}/{base}"), table.messages.len());
                }
                table.messages.push(Message {
                    form: form(name),
                    fields: Vec::new(),
                });
                continue;
            }
            let mut words = line.split(' ');
            let (Some(number), Some(name), Some(kind)) = (words.next(), words.next(), words.next())
            else {
                return Err(line.to_owned());
            };
            let (arity, kind) = match (
                name,
                kind.strip_prefix('['),
                kind.strip_prefix('{'),
                kind.strip_suffix('-'),
            ) {
                ("~", ..) => (Arity::Inline, kind),
                (_, Some(item), ..) => (Arity::Many, item),
                (_, _, Some(value), _) => (Arity::Map, value),
                (_, _, _, Some(scalar)) => (Arity::Omitted, scalar),
                _ => (Arity::One, kind),
            };
            let kind = match kind {
                "s" => Type::Text,
                "b" => Type::Bytes,
                "B" => Type::Boolean,
                "i" => Type::Integer,
                "d" => Type::Double,
                message => Type::Message(*ids.get(message).ok_or_else(|| line.to_owned())?),
            };
            let number = number.parse().map_err(|_| line.to_owned())?;
            let owner = table.messages.last_mut().ok_or_else(|| line.to_owned())?;
            owner.fields.push(Field {
                number,
                name: name.to_owned(),
                kind,
                arity,
            });
        }
        for message in &mut table.messages {
            message.fields.sort_by_key(|field| field.number);
        }
        Ok(table)
    }

    fn kind(&self, api_version: &str, kind: &str) -> Option<usize> {
        self.kinds
            .get(&format!("{api_version}/{kind}"))
            .or_else(|| self.kinds.get(&format!("*/{kind}")))
            .copied()
    }

    fn message(&self, id: usize, bytes: &[u8], depth: u32) -> Result<Option<Value>, ProtobufError> {
        let form = self
            .messages
            .get(id)
            .map_or(Form::Object, |message| message.form);
        match form {
            Form::Time | Form::MicroTime if bytes.is_empty() => Ok(None),
            Form::Time => Ok(Some(Value::from(instant(bytes)?.to_time()))),
            Form::MicroTime => Ok(Some(Value::from(instant(bytes)?.to_micro_time()))),
            Form::Quantity => {
                let text = first_bytes(bytes)?.map(lossy).unwrap_or_default();
                Ok(Some(Value::from(if text.is_empty() {
                    "0".to_owned()
                } else {
                    text
                })))
            }
            Form::IntOrString => int_or_string(bytes).map(Some),
            Form::RawJson => match first_bytes(bytes)? {
                None | Some([]) => Ok(None),
                Some(raw) if raw.starts_with(MAGIC) => {
                    Ok(Some(serde_json::from_slice(&to_json(raw)?.json)?))
                }
                Some(raw) => Ok(Some(serde_json::from_slice(raw)?)),
            },
            _ => {
                let mut fields = Map::new();
                self.fields_into(id, bytes, &mut fields, depth)?;
                Ok(Some(match form {
                    Form::Items => fields
                        .shift_remove("items")
                        .unwrap_or_else(|| Value::Array(Vec::new())),
                    Form::SchemaOr => schema_or(fields),
                    _ => Value::Object(fields),
                }))
            }
        }
    }

    fn fields_into(
        &self,
        id: usize,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        depth: u32,
    ) -> Result<(), ProtobufError> {
        if depth > DEPTH_MAX {
            return Err(ProtobufError::Depth);
        }
        let Some(message) = self.messages.get(id) else {
            return Ok(());
        };
        let mut reader = Reader { bytes };
        while let Some((number, wire)) = reader.field()? {
            let Ok(index) = message
                .fields
                .binary_search_by_key(&number, |field| field.number)
            else {
                continue;
            };
            let Some(field) = message.fields.get(index) else {
                continue;
            };
            match field.arity {
                Arity::Inline => {
                    if let (Type::Message(inner), Wire::Bytes(bytes)) = (field.kind, wire) {
                        self.fields_into(inner, bytes, out, depth + 1)?;
                    }
                }
                Arity::Many => self.many(field, wire, out, depth)?,
                Arity::Map => {
                    if let Wire::Bytes(entry) = wire {
                        let (key, value) = self.entry(field.kind, entry, depth)?;
                        if let Value::Object(map) = out
                            .entry(field.name.clone())
                            .or_insert_with(|| Value::Object(Map::new()))
                        {
                            map.insert(key, value);
                        }
                    }
                }
                Arity::One | Arity::Omitted => {
                    if let Some(value) = self.value(field.kind, wire, depth)?
                        && !(field.arity == Arity::Omitted && is_zero(&value))
                    {
                        out.insert(field.name.clone(), value);
                    }
                }
            }
        }
        Ok(())
    }

    fn many(
        &self,
        field: &Field,
        wire: Wire<'_>,
        out: &mut Map<String, Value>,
        depth: u32,
    ) -> Result<(), ProtobufError> {
        let Value::Array(items) = out
            .entry(field.name.clone())
            .or_insert_with(|| Value::Array(Vec::new()))
        else {
            return Ok(());
        };
        match (field.kind, wire) {
            (Type::Integer | Type::Boolean, Wire::Bytes(packed)) => {
                let mut reader = Reader { bytes: packed };
                while !reader.bytes.is_empty() {
                    let varint = Wire::Varint(reader.varint()?);
                    items.extend(self.value(field.kind, varint, depth)?);
                }
            }
            _ => items.push(self.value(field.kind, wire, depth)?.unwrap_or(Value::Null)),
        }
        Ok(())
    }

    /// One entry of a map: a message of 1 key and 2 value, each of which may be absent when it is zero.
    fn entry(
        &self,
        kind: Type,
        bytes: &[u8],
        depth: u32,
    ) -> Result<(String, Value), ProtobufError> {
        let mut key = String::new();
        let mut value = None;
        let mut reader = Reader { bytes };
        while let Some((number, wire)) = reader.field()? {
            match (number, wire) {
                (1, Wire::Bytes(text)) => key = lossy(text),
                (2, wire) => value = self.value(kind, wire, depth)?,
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => match kind {
                Type::Message(id) => self.message(id, &[], depth + 1)?.unwrap_or(Value::Null),
                _ => Value::from(""),
            },
        };
        Ok((key, value))
    }

    /// One value; None when its JSON is null, or the wire type is not that of the field.
    fn value(
        &self,
        kind: Type,
        wire: Wire<'_>,
        depth: u32,
    ) -> Result<Option<Value>, ProtobufError> {
        Ok(match (kind, wire) {
            (Type::Text, Wire::Bytes(text)) => Some(Value::from(lossy(text))),
            (Type::Bytes, Wire::Bytes(raw)) => Some(Value::from(
                base64::engine::general_purpose::STANDARD.encode(raw),
            )),
            (Type::Boolean, Wire::Varint(bit)) => Some(Value::from(bit != 0)),
            (Type::Integer, Wire::Varint(bits)) => Some(Value::from(bits.cast_signed())),
            (Type::Double, Wire::Fixed64(bits)) => number(f64::from_bits(bits)),
            (Type::Message(id), Wire::Bytes(inner)) => self.message(id, inner, depth + 1)?,
            (_, Wire::Varint(_) | Wire::Fixed64(_) | Wire::Fixed32 | Wire::Bytes(_)) => None,
        })
    }
}

fn form(name: &str) -> Form {
    match name {
        "meta.v1.Time" | "meta.v1.Timestamp" => Form::Time,
        "meta.v1.MicroTime" => Form::MicroTime,
        "quantity.Quantity" => Form::Quantity,
        "intstr.IntOrString" => Form::IntOrString,
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => Form::RawJson,
        _ if name.ends_with(".ExtraValue") || name.ends_with(".Verbs") => Form::Items,
        _ if name.contains(".JSONSchemaPropsOr") => Form::SchemaOr,
        _ => Form::Object,
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn first_bytes(bytes: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    let mut reader = Reader { bytes };
    let mut found = None;
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(inner)) = (number, wire) {
            found = Some(inner);
        }
    }
    Ok(found)
}

fn instant(bytes: &[u8]) -> Result<Instant, ProtobufError> {
    let mut reader = Reader { bytes };
    let mut found = Instant {
        seconds: 0,
        nanos: 0,
    };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(seconds)) => found.seconds = seconds.cast_signed(),
            (2, Wire::Varint(nanos)) => found.nanos = u32::try_from(nanos).unwrap_or(0),
            _ => {}
        }
    }
    Ok(found)
}

/// 1 type (0 integer, 1 string), 2 intVal, 3 strVal.
fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut integer, mut text) = (false, 0, String::new());
    let mut reader = Reader { bytes };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(kind)) => is_text = kind != 0,
            (2, Wire::Varint(bits)) => integer = bits.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = lossy(bytes),
            _ => {}
        }
    }
    Ok(if is_text {
        Value::from(text)
    } else {
        Value::from(integer)
    })
}

/// The unions inside JSONSchemaProps: a schema when there is one, else the other field.
fn schema_or(mut fields: Map<String, Value>) -> Value {
    for name in ["schema", "jSONSchemas", "property", "allows"] {
        if let Some(value) = fields.shift_remove(name) {
            return value;
        }
    }
    Value::Bool(false)
}

/// A whole number is written without a fraction, as Go does.
fn number(value: f64) -> Option<Value> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT_MAX {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the value is whole and below 2^53"
        )]
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(bit) => !bit,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent_and_knows_the_kinds() {
        let table = table().unwrap();
        assert!(table.messages.len() > 800);
        for (api_version, kind) in [
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("v1", "DeleteOptions"),
            ("policy/v1", "DeleteOptions"),
        ] {
            assert!(table.kind(api_version, kind).is_some(), "{kind}");
        }
        assert!(table.kind("v1", "Deployment").is_none());
        assert_eq!(
            table
                .messages
                .iter()
                .filter(|message| message.form == Form::SchemaOr)
                .count(),
            3
        );
    }

    #[test]
    fn truncated_and_hostile_bodies_are_errors() {
        assert!(matches!(to_json(b"{}"), Err(ProtobufError::Prefix)));
        assert!(matches!(to_json(b"k8s\0\x0a\xff"), Err(ProtobufError::End)));
        assert!(matches!(to_json(b"k8s\0\x0a\x7f"), Err(ProtobufError::End)));
        assert!(matches!(
            to_json(b"k8s\0\x0b"),
            Err(ProtobufError::WireType(3))
        ));
        assert!(matches!(
            to_json(b"k8s\0\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(ProtobufError::Overflow)
        ));
        assert!(matches!(to_json(b"k8s\0"), Err(ProtobufError::Kind { .. })));
    }
}
