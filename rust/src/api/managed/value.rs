//! JSON as a tree that borrows its text from the source, so that reading an object allocates its shape and nothing else.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use crate::api::json::{JsonError, Kind, Scanner, write_text};

/// Objects with more fields than this are searched through an index.
const LINEAR_FIELDS_MAX: usize = 24;

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// With the digits as they were written.
    Float(f64, Cow<'a, str>),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Map(Map<'a>),
}

/// Fields in the order of the source.
pub(super) type Map<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

pub(super) static EMPTY: Value<'static> = Value::Map(Vec::new());
pub(super) static NULL: Value<'static> = Value::Null;

impl<'a> Value<'a> {
    /// Read a whole document.
    pub fn parse(source: &'a str) -> Result<Self, JsonError> {
        let mut scanner = Scanner::new(source);
        let value = read(&mut scanner)?;
        scanner.end()?;
        Ok(value)
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn as_map(&self) -> Option<&Map<'a>> {
        if let Self::Map(fields) = self {
            Some(fields)
        } else {
            None
        }
    }

    pub fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Self::List(items) = self {
            Some(items)
        } else {
            None
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The value of a field of a map.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        get(self.as_map()?, name)
    }

    /// Remove a field of a map and return its value.
    pub fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let Self::Map(fields) = self else {
            return None;
        };
        let at = fields.iter().position(|(key, _)| key == name)?;
        Some(fields.remove(at).1)
    }

    /// Append the JSON of this value.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(_, digits) => out.extend_from_slice(digits.as_bytes()),
            Self::Text(text) => write_text(out, text),
            Self::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Map(fields) => {
                out.push(b'{');
                for (at, (key, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_text(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        self.write(&mut out);
        out
    }
}

pub(super) fn get<'v, 'a>(fields: &'v Map<'a>, name: &str) -> Option<&'v Value<'a>> {
    fields
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// Looks up fields of one map, many of them.
pub(super) struct Lookup<'v, 'a> {
    fields: &'v [(Cow<'a, str>, Value<'a>)],
    index: Option<HashMap<&'v str, usize>>,
}

impl<'v, 'a> Lookup<'v, 'a> {
    pub fn new(fields: &'v [(Cow<'a, str>, Value<'a>)]) -> Self {
        let index = (fields.len() > LINEAR_FIELDS_MAX).then(|| {
            fields
                .iter()
                .enumerate()
                .map(|(at, (key, _))| (&**key, at))
                .collect()
        });
        Self { fields, index }
    }

    /// The value of `name`; `near` is where it probably stands.
    pub fn get(&self, name: &str, near: usize) -> Option<&'v Value<'a>> {
        if let Some((key, value)) = self.fields.get(near)
            && key == name
        {
            return Some(value);
        }
        let at = match &self.index {
            Some(index) => *index.get(name)?,
            None => self.fields.iter().position(|(key, _)| key == name)?,
        };
        self.fields.get(at).map(|(_, value)| value)
    }
}

/// Equal as JSON values: order of fields aside, numbers by value.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(left), Self::List(right)) => left == right,
            (Self::Map(left), Self::Map(right)) => {
                if left.len() != right.len() {
                    return false;
                }
                let lookup = Lookup::new(right);
                left.iter()
                    .enumerate()
                    .all(|(at, (key, value))| lookup.get(key, at) == Some(value))
            }
            (Self::Null, Self::Null) => true,
            _ => scalar_order(self, other) == Some(Ordering::Equal),
        }
    }
}

impl Eq for Value<'_> {}

/// Any two values in an order of their own: numbers, texts, booleans, lists, maps, null.
impl Ord for Value<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if let Some(order) = scalar_order(self, other) {
            return order;
        }
        match (self, other) {
            (Self::List(left), Self::List(right)) => left.cmp(right),
            (Self::Map(left), Self::Map(right)) => {
                let mut left: Vec<_> = left.iter().collect();
                let mut right: Vec<_> = right.iter().collect();
                left.sort_by(|a, b| a.0.cmp(&b.0));
                right.sort_by(|a, b| a.0.cmp(&b.0));
                left.cmp(&right)
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Value<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Int(_) | Self::Float(..) => 0,
            Self::Text(_) => 1,
            Self::Bool(_) => 2,
            Self::List(_) => 3,
            Self::Map(_) => 4,
            Self::Null => 5,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            // Only compared with floats, where upstream converts too.
            #[allow(clippy::cast_precision_loss)]
            Self::Int(number) => Some(*number as f64),
            Self::Float(number, _) => Some(*number),
            _ => None,
        }
    }
}

/// The order of two scalars of one sort, None for everything else.
fn scalar_order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => Some(left.number()?.total_cmp(&right.number()?)),
    }
}

fn read<'a>(scanner: &mut Scanner<'a>) -> Result<Value<'a>, JsonError> {
    Ok(match scanner.kind()? {
        Kind::Null => {
            scanner.literal()?;
            Value::Null
        }
        Kind::Boolean => Value::Bool(scanner.literal()? == "true"),
        Kind::Number => {
            let digits = scanner.number()?;
            match digits.parse::<i64>() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Float(digits.parse().unwrap_or(0.0), Cow::Borrowed(digits)),
            }
        }
        Kind::Text => Value::Text(scanner.text()?.text()),
        Kind::Array => {
            scanner.enter()?;
            let mut items = Vec::new();
            let mut first = true;
            while scanner.element(&mut first)? {
                items.push(read(scanner)?);
            }
            Value::List(items)
        }
        Kind::Object => {
            scanner.enter()?;
            let mut fields = Vec::with_capacity(4);
            let mut first = true;
            while let Some(key) = scanner.key(&mut first)? {
                fields.push((key.text(), read(scanner)?));
            }
            Value::Map(fields)
        }
    })
}
