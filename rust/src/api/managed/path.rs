//! One step from a value to a value inside it: a field's name, a list item by its keys or by its value, or an index.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::value::Value;
use crate::api::json::write_text;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element<'a> {
    Field(Cow<'a, str>),
    /// Key fields with their values, by name.
    Key(Vec<KeyField<'a>>),
    /// An item of a set.
    Value(Value<'a>),
    Index(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyField<'a> {
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
}

impl Ord for KeyField<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name
            .cmp(&other.name)
            .then_with(|| self.value.cmp(&other.value))
    }
}

impl PartialOrd for KeyField<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Element<'a> {
    pub fn field(name: &'a str) -> Self {
        Self::Field(Cow::Borrowed(name))
    }

    /// Read the form that FieldsV1 has as its keys (`f:spec`, `k:{"name":"c"}`, `v:"x"`, `i:3`). None for forms unknown here, which
    /// upstream ignores; an error for malformed ones.
    pub fn parse(text: Cow<'a, str>) -> Result<Option<Self>, String> {
        let malformed = || format!("malformed field path element {text:?}");
        let rest = match text.get(..2) {
            Some("f:") => {
                return Ok(Some(Self::Field(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.get(2..).unwrap_or("")),
                    Cow::Owned(mut text) => Cow::Owned(text.split_off(2)),
                })));
            }
            Some(prefix) if prefix.ends_with(':') => text.get(2..).unwrap_or(""),
            _ => return Err(malformed()),
        };
        match text.get(..1) {
            Some("v") => {
                let value = Value::parse(rest).map_err(|_| malformed())?;
                Ok(Some(Self::Value(owned(&value))))
            }
            Some("k") => {
                let value = Value::parse(rest).map_err(|_| malformed())?;
                let fields = value.as_map().ok_or_else(malformed)?;
                let mut keys: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| KeyField {
                        name: Cow::Owned(name.to_string()),
                        value: owned(value),
                    })
                    .collect();
                keys.sort_by(|left, right| left.name.cmp(&right.name));
                Ok(Some(Self::Key(keys)))
            }
            Some("i") => Ok(Some(Self::Index(rest.parse().map_err(|_| malformed())?))),
            _ => Ok(None),
        }
    }

    /// Append the FieldsV1 form as a JSON string.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Self::Field(name) = self {
            let start = out.len();
            write_text(out, name);
            out.splice(start + 1..=start, *b"f:");
            return;
        }
        let mut inner = Vec::with_capacity(48);
        match self {
            Self::Field(_) => {}
            Self::Key(keys) => {
                inner.extend_from_slice(b"k:{");
                for (at, key) in keys.iter().enumerate() {
                    if at > 0 {
                        inner.push(b',');
                    }
                    write_text(&mut inner, &key.name);
                    inner.push(b':');
                    key.value.write(&mut inner);
                }
                inner.push(b'}');
            }
            Self::Value(value) => {
                inner.extend_from_slice(b"v:");
                value.write(&mut inner);
            }
            Self::Index(index) => inner.extend_from_slice(format!("i:{index}").as_bytes()),
        }
        write_text(out, &String::from_utf8_lossy(&inner));
    }
}

/// As conflicts show it: `.spec`, `[name="c"]`, `[="x"]`, `[3]`.
impl fmt::Display for Element<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Key(keys) => {
                out.write_str("[")?;
                for (at, key) in keys.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(out, "{comma}{}={}", key.name, shown(&key.value))?;
                }
                out.write_str("]")
            }
            Self::Value(value) => write!(out, "[={}]", shown(value)),
            Self::Index(index) => write!(out, "[{index}]"),
        }
    }
}

/// A scalar as Go's `%q` and `%v` print it.
fn shown(value: &Value<'_>) -> String {
    String::from_utf8_lossy(&value.to_json()).into_owned()
}

/// A copy that borrows nothing.
fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Bool(truth) => Value::Bool(*truth),
        Value::Int(number) => Value::Int(*number),
        Value::Float(number, digits) => Value::Float(*number, Cow::Owned(digits.to_string())),
        Value::Text(text) => Value::Text(Cow::Owned(text.to_string())),
        Value::List(items) => Value::List(items.iter().map(owned).collect()),
        Value::Map(fields) => Value::Map(
            fields
                .iter()
                .map(|(key, value)| (Cow::Owned(key.to_string()), owned(value)))
                .collect(),
        ),
    }
}
