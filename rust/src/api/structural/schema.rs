//! One node of a structural schema, compiled from JSONSchemaProps.
//!
//! A schema of a real kind has thousands of nodes and few validations, so what is rare lies behind a pointer, and regular
//! expressions and rules are compiled when first used.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::rules::Rules;

#[derive(Debug, thiserror::Error)]
pub enum SchemaProblem {
    #[error("schema is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a schema must be an object")]
    Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    #[default]
    Any,
    Object,
    Array,
    Text,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Type {
    /// As messages name it; an integer or string has both names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub enum Additional {
    #[default]
    None,
    Any,
    Node(Box<Node>),
}

#[derive(Debug, Default)]
pub struct Node {
    pub kind: Type,
    pub nullable: bool,
    pub preserves_unknown: bool,
    pub is_embedded: bool,
    pub list_type: ListType,
    pub list_map_keys: Box<[Box<str>]>,
    pub properties: BTreeMap<Box<str>, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub default: Option<Box<Value>>,
    pub format: Option<Box<str>>,
    pub checks: Option<Box<Checks>>,
    pub rules: Option<Box<Rules>>,
    /// Whether this node or one below it has rules: whole subtrees are passed over without.
    has_rules: bool,
}

/// Value validations: what is allowed beside the type.
#[derive(Debug, Default)]
pub struct Checks {
    pub required: Box<[Box<str>]>,
    pub choices: Box<[Value]>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Box<[Node]>,
    pub any_of: Box<[Node]>,
    pub one_of: Box<[Node]>,
    pub not: Option<Box<Node>>,
}

/// A regular expression, compiled on first use.
#[derive(Debug)]
pub struct Pattern {
    pub source: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Whether `text` matches; an expression that does not compile matches nothing.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| Regex::new(&self.source).ok())
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }
}

impl Node {
    pub fn compile(schema: &Value) -> Result<Self, SchemaProblem> {
        let keywords = schema.as_object().ok_or(SchemaProblem::Shape)?;
        let mut node = Self {
            kind: kind(keywords),
            nullable: is_set(keywords, "nullable"),
            preserves_unknown: is_set(keywords, "x-kubernetes-preserve-unknown-fields"),
            is_embedded: is_set(keywords, "x-kubernetes-embedded-resource"),
            list_type: list_type(keywords),
            list_map_keys: texts(keywords.get("x-kubernetes-list-map-keys")),
            default: keywords
                .get("default")
                .filter(|value| !value.is_null())
                .cloned()
                .map(Box::new),
            format: keywords
                .get("format")
                .and_then(Value::as_str)
                .map(Box::from),
            checks: checks(keywords)?,
            rules: Rules::compile(keywords).map(Box::new),
            ..Self::default()
        };
        if let Some(properties) = keywords.get("properties").and_then(Value::as_object) {
            for (name, child) in properties {
                node.properties
                    .insert(name.as_str().into(), Self::compile(child)?);
            }
        }
        node.additional = match keywords.get("additionalProperties") {
            None | Some(Value::Bool(false) | Value::Null) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(child) => Additional::Node(Box::new(Self::compile(child)?)),
        };
        if let Some(items @ Value::Object(_)) = keywords.get("items") {
            node.items = Some(Box::new(Self::compile(items)?));
        }
        node.has_rules = node.rules.is_some() || node.children().any(Self::has_rules);
        Ok(node)
    }

    /// All nodes directly below that describe values.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let additional = match &self.additional {
            Additional::Node(child) => Some(&**child),
            _ => None,
        };
        self.properties
            .values()
            .chain(additional)
            .chain(self.items.as_deref())
            .chain(self.checks.iter().flat_map(|checks| checks.all_of.iter()))
    }

    pub fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// Whether fields may have any name, and nothing is known of their values.
    pub fn is_map(&self) -> bool {
        matches!(self.additional, Additional::Any)
    }

    /// The node of a field: a property, or what all other fields are.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Node(child) => Some(child),
            _ => None,
        })
    }
}

fn kind(keywords: &Map<String, Value>) -> Type {
    if is_set(keywords, "x-kubernetes-int-or-string") {
        return Type::IntOrString;
    }
    match keywords.get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::Text,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_type(keywords: &Map<String, Value>) -> ListType {
    match keywords
        .get("x-kubernetes-list-type")
        .and_then(Value::as_str)
    {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map,
        _ => ListType::Atomic,
    }
}

fn checks(keywords: &Map<String, Value>) -> Result<Option<Box<Checks>>, SchemaProblem> {
    const NAMES: [&str; 19] = [
        "required",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    if !NAMES.iter().any(|name| keywords.contains_key(*name)) {
        return Ok(None);
    }
    let count = |name: &str| keywords.get(name).and_then(Value::as_u64);
    let number = |name: &str| keywords.get(name).and_then(Value::as_f64);
    Ok(Some(Box::new(Checks {
        required: texts(keywords.get("required")),
        choices: keywords
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
            .into(),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: is_set(keywords, "exclusiveMinimum"),
        exclusive_maximum: is_set(keywords, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern: keywords
            .get("pattern")
            .and_then(Value::as_str)
            .filter(|source| !source.is_empty())
            .map(|source| Pattern {
                source: source.into(),
                compiled: OnceLock::new(),
            }),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: is_set(keywords, "uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        all_of: nodes(keywords.get("allOf"))?,
        any_of: nodes(keywords.get("anyOf"))?,
        one_of: nodes(keywords.get("oneOf"))?,
        not: keywords
            .get("not")
            .filter(|child| child.is_object())
            .map(Node::compile)
            .transpose()?
            .map(Box::new),
    })))
}

fn nodes(list: Option<&Value>) -> Result<Box<[Node]>, SchemaProblem> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(Node::compile)
        .collect()
}

fn texts(list: Option<&Value>) -> Box<[Box<str>]> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Box::from)
        .collect()
}

fn is_set(keywords: &Map<String, Value>, name: &str) -> bool {
    keywords.get(name).and_then(Value::as_bool).unwrap_or(false)
}
