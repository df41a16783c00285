//! OpenAPI definitions compiled into a table of nodes, which checking and patching walk by number.
//!
//! Definitions refer to each other in cycles, so every definition gets its number first and its content second. What a schema
//! cannot say by itself is taken from the well-known names: quantities, times, int-or-string, raw JSON.
//! Trap: JSONSchemaProps has properties that are named `type` and `$ref`; properties are names, never keywords.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use serde_json::{Map, Value};

use super::typed;

pub type NodeId = usize;

const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("schema is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("schema is not an object of definitions")]
    Shape,
    #[error("schema refers to {0}, which is not defined")]
    Dangling(String),
    #[error("no definition named {0}")]
    Unknown(String),
}

/// What a value must be.
#[derive(Debug, Clone)]
pub enum Node {
    /// Any JSON, kept as it is. `checks_duplicates`: fields inside are still compared with each other.
    Any {
        checks_duplicates: bool,
    },
    Text,
    /// Base64.
    Bytes,
    Time,
    MicroTime,
    Integer {
        bits: u8,
    },
    Number,
    Boolean,
    Quantity,
    /// `bits`: how large the integer may be.
    IntOrString {
        bits: u8,
    },
    Object(Object),
    Map(NodeId),
    List(NodeId),
    /// A schema, a list of schemas, a boolean or strings: the unions inside JSONSchemaProps.
    SchemaOr(NodeId),
}

#[derive(Debug, Clone, Default)]
pub struct Object {
    /// As Go's decoder names it in messages, such as `DeploymentSpec`.
    pub go_name: String,
    pub fields: Vec<Field>,
    pub by_name: HashMap<Box<str>, usize, BuildHasherDefault<NameHasher>>,
    pub preserves_unknown: bool,
}

/// FNV-1a: the names in a table are ours, so nobody can make them collide, and short keys hash fastest this way.
#[derive(Debug, Clone, Copy)]
pub struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Object {
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        let index = *self.by_name.get(name)?;
        self.fields.get(index).map(|field| (index, field))
    }
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Box<str>,
    pub node: NodeId,
    pub nullable: bool,
    pub patch: PatchMeta,
    /// The scalar that an absent field stands for, where list items are told apart by it.
    pub default: Option<Value>,
    /// Replaced as a whole where it stands, whatever its type says: x-kubernetes-map-type beside a reference.
    pub is_atomic: bool,
    pub implied: Implied,
}

/// What upstream's typed objects write where a field is absent: a struct that is no pointer, a list that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Implied {
    #[default]
    Nothing,
    Struct,
    List,
}

/// How server-side apply merges a list or map: x-kubernetes-list-type with its keys, and x-kubernetes-map-type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Relation {
    /// Maps merge by field. Lists are never this.
    #[default]
    Granular,
    /// Replaced as a whole.
    Atomic,
    /// A list of scalars, each of which has its own owners.
    Set,
    /// A list of objects that are told apart by these fields.
    Map(Box<[Box<str>]>),
}

impl Relation {
    /// Whether items of the list have owners of their own.
    pub fn is_associative(&self) -> bool {
        matches!(self, Self::Set | Self::Map(_))
    }

    fn of(keywords: &Map<String, Value>, is_list: bool) -> Self {
        let text = |name: &str| keywords.get(name).and_then(Value::as_str);
        if !is_list {
            return match text("x-kubernetes-map-type") {
                Some("atomic") => Self::Atomic,
                _ => Self::Granular,
            };
        }
        let merges = text("x-kubernetes-patch-strategy")
            .is_some_and(|strategy| strategy.split(',').any(|word| word == "merge"));
        match text("x-kubernetes-list-type") {
            Some("set") => Self::Set,
            Some("map") => {
                let keys = keywords
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array);
                let names = keys.into_iter().flatten().filter_map(Value::as_str);
                Self::Map(names.map(Box::from).collect())
            }
            Some(_) => Self::Atomic,
            None if merges => match text("x-kubernetes-patch-merge-key") {
                Some(key) => Self::Map(Box::new([key.into()])),
                None => Self::Set,
            },
            None => Self::Atomic,
        }
    }
}

/// How a strategic merge patch treats a field: x-kubernetes-patch-strategy and x-kubernetes-patch-merge-key.
#[derive(Debug, Clone, Default)]
pub struct PatchMeta {
    pub merges: bool,
    pub replaces: bool,
    pub merge_key: Option<Box<str>>,
}

/// The compiled table. Immutable, so any number of threads may read it.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    /// By node; the default for those beyond its end.
    relations: Vec<Relation>,
    by_name: BTreeMap<String, NodeId>,
}

impl Schema {
    /// Compile `{name: definition}` or a document that has it under `definitions`.
    pub fn compile(json: &[u8]) -> Result<Self, SchemaError> {
        let document: Value = serde_json::from_slice(json)?;
        let root = document.as_object().ok_or(SchemaError::Shape)?;
        let definitions = match root.get("definitions") {
            Some(inner) => inner.as_object().ok_or(SchemaError::Shape)?,
            None => root,
        };
        let by_name: BTreeMap<String, NodeId> = definitions
            .keys()
            .enumerate()
            .map(|(id, name)| (name.clone(), id))
            .collect();
        let mut compiler = Compiler {
            nodes: vec![
                Node::Any {
                    checks_duplicates: false
                };
                definitions.len()
            ],
            relations: vec![Relation::Granular; definitions.len()],
            by_name: &by_name,
        };
        for (name, definition) in definitions {
            let node = match well_known(name) {
                Some(node) => node,
                None => compiler.node(definition, &go_type(name))?,
            };
            let node = match (node, name.rsplit('.').next()) {
                (
                    Node::Any { .. },
                    Some(
                        "JSONSchemaPropsOrArray"
                        | "JSONSchemaPropsOrBool"
                        | "JSONSchemaPropsOrStringArray",
                    ),
                ) => {
                    let inner = name
                        .rfind("Or")
                        .and_then(|at| name.get(..at))
                        .and_then(|inner| by_name.get(inner));
                    inner.map_or(
                        Node::Any {
                            checks_duplicates: false,
                        },
                        |id| Node::SchemaOr(*id),
                    )
                }
                (mut node, _) => {
                    if let Node::Object(object) = &mut node {
                        typed::imply(name, definition, object);
                    }
                    node
                }
            };
            let Some(id) = by_name.get(name) else {
                continue;
            };
            if let Some(slot) = compiler.relations.get_mut(*id) {
                *slot = relation_of(definition);
                if name == RAW_EXTENSION {
                    *slot = Relation::Atomic;
                }
            }
            if let Some(slot) = compiler.nodes.get_mut(*id) {
                *slot = node;
            }
        }
        Ok(Self {
            nodes: compiler.nodes,
            relations: compiler.relations,
            by_name,
        })
    }

    pub fn definition(&self, name: &str) -> Result<NodeId, SchemaError> {
        self.by_name
            .get(name)
            .copied()
            .ok_or_else(|| SchemaError::Unknown(name.to_owned()))
    }

    pub fn node(&self, id: NodeId) -> &Node {
        static NOTHING: Node = Node::Any {
            checks_duplicates: false,
        };
        self.nodes.get(id).unwrap_or(&NOTHING)
    }

    pub fn relation(&self, id: NodeId) -> &Relation {
        static PLAIN: Relation = Relation::Granular;
        self.relations.get(id).unwrap_or(&PLAIN)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The Go type of a node as messages show it, such as `[]v1.Container`.
    pub fn type_name(&self, id: NodeId) -> String {
        match self.node(id) {
            Node::Any { .. } => "interface {}".to_owned(),
            Node::Text
            | Node::IntOrString { .. }
            | Node::Quantity
            | Node::Time
            | Node::MicroTime => "string".to_owned(),
            Node::Bytes => "[]uint8".to_owned(),
            Node::Integer { bits } => format!("int{bits}"),
            Node::Number => "float64".to_owned(),
            Node::Boolean => "bool".to_owned(),
            Node::Object(object) => format!("v1.{}", object.go_name),
            Node::Map(value) => format!("map[string]{}", self.type_name(*value)),
            Node::List(item) => format!("[]{}", self.type_name(*item)),
            Node::SchemaOr(inner) => self.type_name(*inner),
        }
    }
}

struct Compiler<'a> {
    nodes: Vec<Node>,
    relations: Vec<Relation>,
    by_name: &'a BTreeMap<String, NodeId>,
}

impl Compiler<'_> {
    fn add(&mut self, schema: &Value, go_name: &str) -> Result<NodeId, SchemaError> {
        if let Some(target) = reference(schema) {
            return self
                .by_name
                .get(target)
                .copied()
                .ok_or_else(|| SchemaError::Dangling(target.to_owned()));
        }
        let node = self.node(schema, go_name)?;
        self.nodes.push(node);
        self.relations.push(relation_of(schema));
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, schema: &Value, go_name: &str) -> Result<Node, SchemaError> {
        let Some(keywords) = schema.as_object() else {
            return Ok(Node::Any {
                checks_duplicates: true,
            });
        };
        let format = keywords.get("format").and_then(Value::as_str).unwrap_or("");
        if format == "int-or-string" {
            return Ok(Node::IntOrString { bits: 32 });
        }
        if is_set(keywords, "x-kubernetes-int-or-string") {
            return Ok(Node::IntOrString { bits: 64 });
        }
        let has_properties = keywords.contains_key("properties")
            || is_set(keywords, "x-kubernetes-embedded-resource");
        let node = match keywords.get("type").and_then(Value::as_str) {
            Some("string") if format == "byte" => Node::Bytes,
            Some("string") => Node::Text,
            Some("integer") => Node::Integer {
                bits: if format == "int32" { 32 } else { 64 },
            },
            Some("number") => Node::Number,
            Some("boolean") => Node::Boolean,
            Some("array") => match keywords.get("items") {
                Some(items) => Node::List(self.add(items, go_name)?),
                None => Node::Any {
                    checks_duplicates: true,
                },
            },
            Some("object") => self.object(keywords, go_name)?,
            None if has_properties => self.object(keywords, go_name)?,
            _ => Node::Any {
                checks_duplicates: true,
            },
        };
        Ok(node)
    }

    fn object(
        &mut self,
        keywords: &Map<String, Value>,
        go_name: &str,
    ) -> Result<Node, SchemaError> {
        let preserves_unknown = is_set(keywords, "x-kubernetes-preserve-unknown-fields");
        match keywords.get("additionalProperties") {
            Some(Value::Bool(false)) | None => {}
            Some(values) => return Ok(Node::Map(self.add(values, go_name)?)),
        }
        let mut object = Object {
            go_name: go_name.to_owned(),
            preserves_unknown,
            ..Object::default()
        };
        if let Some(properties) = keywords.get("properties").and_then(Value::as_object) {
            for (name, child) in properties {
                let node = self.add(child, go_name)?;
                object.push(name, node, child);
            }
        }
        if is_set(keywords, "x-kubernetes-embedded-resource") {
            self.type_meta(&mut object)?;
        }
        Ok(Node::Object(object))
    }

    /// An embedded resource has apiVersion, kind and metadata even when its schema does not name them.
    fn type_meta(&mut self, object: &mut Object) -> Result<(), SchemaError> {
        const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        let text = Value::Object(Map::from_iter([("type".to_owned(), Value::from("string"))]));
        for name in ["apiVersion", "kind"] {
            if object.field(name).is_none() {
                let node = self.add(&text, "")?;
                object.push(name, node, &text);
            }
        }
        let metadata = match self.by_name.get(OBJECT_META) {
            Some(id) => *id,
            None => self.add(&Value::Null, "")?,
        };
        match object
            .by_name
            .get("metadata")
            .and_then(|index| object.fields.get_mut(*index))
        {
            Some(field) => field.node = metadata,
            None => object.push("metadata", metadata, &Value::Null),
        }
        Ok(())
    }
}

impl Object {
    fn push(&mut self, name: &str, node: NodeId, schema: &Value) {
        let strategy = schema
            .get("x-kubernetes-patch-strategy")
            .and_then(Value::as_str)
            .unwrap_or("");
        let patch = PatchMeta {
            merges: strategy.split(',').any(|word| word == "merge"),
            replaces: strategy.split(',').any(|word| word == "replace"),
            merge_key: schema
                .get("x-kubernetes-patch-merge-key")
                .and_then(Value::as_str)
                .map(Box::from),
        };
        let nullable = schema
            .get("nullable")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        self.by_name.insert(name.into(), self.fields.len());
        self.fields.push(Field {
            name: name.into(),
            node,
            nullable,
            patch,
            default: schema
                .get("default")
                .filter(|value| value.is_string() || value.is_number() || value.is_boolean())
                .cloned(),
            is_atomic: reference(schema).is_some() && relation_of(schema) == Relation::Atomic,
            implied: Implied::Nothing,
        });
    }
}

fn relation_of(schema: &Value) -> Relation {
    schema.as_object().map_or(Relation::Granular, |keywords| {
        let is_list = keywords.get("type").and_then(Value::as_str) == Some("array");
        Relation::of(keywords, is_list)
    })
}

/// The target of `{"$ref": "#/definitions/NAME"}`. A schema is never mistaken: `$ref` is text there, a schema in `properties`.
fn reference(schema: &Value) -> Option<&str> {
    let target = schema.get("$ref")?.as_str()?;
    Some(target.rsplit('/').next().unwrap_or(target))
}

fn is_set(keywords: &Map<String, Value>, name: &str) -> bool {
    keywords.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// Definitions whose schema does not say what Go's types do with their JSON.
fn well_known(name: &str) -> Option<Node> {
    match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Some(Node::Quantity),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Some(Node::IntOrString { bits: 32 }),
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Some(Node::Time),
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Some(Node::MicroTime),
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension" => Some(Node::Any {
            checks_duplicates: false,
        }),
        _ => None,
    }
}

fn go_type(definition: &str) -> String {
    definition
        .rsplit('.')
        .next()
        .unwrap_or(definition)
        .to_owned()
}
