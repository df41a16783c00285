//! How values merge: the compiled schema read as upstream's merge schema.
//!
//! A type is a node of the schema, or one of two that need none: `Atomic` (any value, replaced as a whole) and `Deduced` (maps merge
//! by field, lists and scalars are atomic), which also stands for free-form objects inside a schema.

use std::borrow::Cow;

use super::path::{Element, KeyField};
use super::value::{EMPTY, Map, NULL, Value, get};
use crate::api::schema::{Field, Implied, Node, NodeId, Object, Relation, Schema};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Atomic,
    Deduced,
    Node(NodeId),
    /// A node that is replaced as a whole where it stands, whatever it says itself.
    AtomicNode(NodeId),
}

/// What a type can hold.
#[derive(Debug, Default)]
pub(super) struct Atom<'a> {
    pub map: Option<MapAtom<'a>>,
    pub list: Option<ListAtom<'a>>,
    pub scalar: Option<Scalar>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct MapAtom<'a> {
    pub is_atomic: bool,
    pub object: Option<&'a Object>,
    /// The type of fields that are not declared; None: there are no others.
    pub rest: Option<Type>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ListAtom<'a> {
    pub relation: &'a Relation,
    pub item: Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Numeric,
    Boolean,
    Untyped,
}

/// Which of a type's atoms a value is walked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Map,
    List,
    Scalar,
}

static ATOMIC: Relation = Relation::Atomic;

#[derive(Debug, Clone, Copy)]
pub(super) struct Types<'a> {
    pub schema: &'a Schema,
}

impl<'a> Types<'a> {
    pub fn atom(&self, of: Type) -> Atom<'a> {
        match of {
            Type::Atomic => Atom {
                map: Some(MapAtom {
                    is_atomic: true,
                    object: None,
                    rest: Some(Type::Atomic),
                }),
                list: Some(ListAtom {
                    relation: &ATOMIC,
                    item: Type::Atomic,
                }),
                scalar: Some(Scalar::Untyped),
            },
            Type::Deduced => Atom {
                map: Some(MapAtom {
                    is_atomic: false,
                    object: None,
                    rest: Some(Type::Deduced),
                }),
                list: Some(ListAtom {
                    relation: &ATOMIC,
                    item: Type::Atomic,
                }),
                scalar: Some(Scalar::Untyped),
            },
            Type::AtomicNode(id) => {
                let mut atom = self.node_atom(id);
                if let Some(map) = &mut atom.map {
                    map.is_atomic = true;
                }
                atom
            }
            Type::Node(id) => self.node_atom(id),
        }
    }

    fn node_atom(&self, id: NodeId) -> Atom<'a> {
        let relation = self.schema.relation(id);
        let scalar = |scalar| Atom {
            scalar: Some(scalar),
            ..Atom::default()
        };
        match self.schema.node(id) {
            Node::Text | Node::Bytes => scalar(Scalar::Text),
            Node::Time | Node::MicroTime | Node::Quantity | Node::IntOrString { .. } => {
                scalar(Scalar::Untyped)
            }
            Node::Integer { .. } | Node::Number => scalar(Scalar::Numeric),
            Node::Boolean => scalar(Scalar::Boolean),
            Node::Object(object) => Atom {
                map: Some(MapAtom {
                    is_atomic: matches!(relation, Relation::Atomic),
                    object: Some(object),
                    rest: (object.preserves_unknown || object.fields.is_empty())
                        .then_some(Type::Deduced),
                }),
                ..Atom::default()
            },
            Node::Map(value) => Atom {
                map: Some(MapAtom {
                    is_atomic: matches!(relation, Relation::Atomic),
                    object: None,
                    rest: Some(Type::Node(*value)),
                }),
                ..Atom::default()
            },
            Node::List(item) => Atom {
                list: Some(ListAtom {
                    relation,
                    item: Type::Node(*item),
                }),
                ..Atom::default()
            },
            // Raw extensions are replaced as a whole; free-form JSON merges by field.
            Node::Any { .. } if matches!(relation, Relation::Atomic) => self.atom(Type::Atomic),
            Node::Any { .. } | Node::SchemaOr(_) => self.atom(Type::Deduced),
        }
    }

    /// Whether a map of type `of` declares the field, and the field's type.
    pub fn field(&self, of: Type, name: &str) -> (bool, Option<Type>) {
        match self.atom(of).map {
            Some(map) => map.field(name),
            None => (false, None),
        }
    }

    pub fn item(&self, of: Type) -> Option<Type> {
        self.atom(of).list.map(|list| list.item)
    }

    /// The path element of a list's item. Fails, in upstream's words, for items that cannot be told apart.
    pub fn element(&self, list: &ListAtom<'a>, item: &Value<'a>) -> Result<Element<'a>, String> {
        match list.relation {
            Relation::Map(keys) => self.keyed(list, keys, item),
            _ => match item {
                Value::Map(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::List(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => Err(
                    "associative list without keys has an element that's an explicit null"
                        .to_owned(),
                ),
                scalar => Ok(Element::Value(scalar.clone())),
            },
        }
    }

    fn keyed(
        &self,
        list: &ListAtom<'a>,
        keys: &'a [Box<str>],
        item: &Value<'a>,
    ) -> Result<Element<'a>, String> {
        let fields = match item {
            Value::Map(fields) => fields,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_owned());
            }
            _ => {
                return Err("associative list with keys may not have non-map elements".to_owned());
            }
        };
        let declared = self.atom(list.item).map.and_then(|map| map.object);
        let mut found: Vec<_> = keys
            .iter()
            .filter_map(|key| {
                let value = match get(fields, key) {
                    Some(value) => value.clone(),
                    None => default_of(declared?.field(key)?.1)?,
                };
                Some(KeyField {
                    name: Cow::Borrowed(&**key),
                    value,
                })
            })
            .collect();
        if found.is_empty() && !keys.is_empty() {
            let names: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(Element::Key(found))
    }
}

fn default_of(field: &Field) -> Option<Value<'_>> {
    field.default.as_ref().map(|value| match value {
        serde_json::Value::String(text) => Value::Text(Cow::Borrowed(text)),
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(
                number.as_f64().unwrap_or(0.0),
                Cow::Owned(number.to_string()),
            ),
        },
        _ => Value::Null,
    })
}

impl<'a> MapAtom<'a> {
    /// The names of fields that are structs in place.
    pub fn structs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.object
            .into_iter()
            .flat_map(|object| &object.fields)
            .filter(|field| field.implied == Implied::Struct)
            .map(|field| &*field.name)
    }

    /// Whether the field is declared, and its type; None for fields that cannot be.
    pub fn field(&self, name: &str) -> (bool, Option<Type>) {
        match self.object.and_then(|object| object.field(name)) {
            Some((_, field)) => (true, Some(type_of(field))),
            None => (false, self.rest),
        }
    }

    /// What upstream's typed objects hold where this one has nothing: empty structs, and lists that are always written.
    pub fn implied(&self, name: &str) -> Option<&'static Value<'static>> {
        match self.object?.field(name)?.1.implied {
            Implied::Nothing => None,
            Implied::Struct => Some(&EMPTY),
            Implied::List => Some(&NULL),
        }
    }
}

fn type_of(field: &Field) -> Type {
    if field.is_atomic {
        Type::AtomicNode(field.node)
    } else {
        Type::Node(field.node)
    }
}

impl Atom<'_> {
    /// Which atom a value of this type is walked as; null and values of no fitting kind take the first that there is.
    pub fn choose(&self, value: Option<&Value<'_>>) -> Choice {
        match value {
            Some(Value::Map(_)) if self.map.is_some() => Choice::Map,
            Some(Value::List(_)) if self.list.is_some() => Choice::List,
            Some(Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::Bool(_))
                if self.scalar.is_some() =>
            {
                Choice::Scalar
            }
            _ if self.map.is_some() => Choice::Map,
            _ if self.scalar.is_some() => Choice::Scalar,
            _ => Choice::List,
        }
    }
}

/// The map inside a value, None for null, absent and other kinds.
pub(super) fn map_in<'v, 'a>(value: Option<&'v Value<'a>>) -> Option<&'v Map<'a>> {
    value.and_then(Value::as_map)
}

/// The list inside a value, None for null, absent and other kinds.
pub(super) fn list_in<'v, 'a>(value: Option<&'v Value<'a>>) -> Option<&'v [Value<'a>]> {
    value.and_then(Value::as_list)
}
