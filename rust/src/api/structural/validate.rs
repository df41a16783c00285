//! Types and value validations of an object, in the words of kube-openapi's validator.
//!
//! On an update, a value that did not change is not checked again (ratcheting), so that a schema may become stricter without
//! making its old objects immutable.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Failure;
use super::formats;
use super::schema::{Checks, ListType, Node, Type};

pub const INVALID: &str = "FieldValueInvalid";
pub const REQUIRED: &str = "FieldValueRequired";
pub const DUPLICATE: &str = "FieldValueDuplicate";
const NOT_SUPPORTED: &str = "FieldValueNotSupported";
const TYPE_INVALID: &str = "FieldValueTypeInvalid";
const TOO_LONG: &str = "FieldValueTooLong";
const TOO_MANY: &str = "FieldValueTooMany";

/// Check `value` against the root of a schema, `old` being what it was.
pub fn validate(root: &Node, value: &Value, old: Option<&Value>, failures: &mut Vec<Failure>) {
    let mut validator = Validator {
        failures: Vec::new(),
    };
    validator.value(root, value, old, "", true);
    failures.append(&mut validator.failures);
}

/// Whether rules cannot be evaluated on an object with these failures.
pub fn blocks_rules(failures: &[Failure]) -> bool {
    failures.iter().any(|one| {
        matches!(
            one.reason,
            NOT_SUPPORTED | REQUIRED | TOO_LONG | TOO_MANY | TYPE_INVALID
        )
    })
}

pub fn child_path(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        [path, ".", name].concat()
    }
}

/// A value as field errors show it: text in quotes, all else as JSON.
pub fn render(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Null => "\"null\"".to_owned(),
        other => other.to_string(),
    }
}

struct Validator {
    failures: Vec<Failure>,
}

impl Validator {
    fn value(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        is_resource: bool,
    ) {
        if old == Some(value) {
            return;
        }
        if value.is_null() {
            if node.kind != Type::Any && !node.nullable {
                self.wrong_type(path, node.kind.word(), "null");
            }
            return;
        }
        self.kind(node, value, path);
        if let Some(checks) = node.checks.as_deref() {
            self.junctors(checks, value, path);
            self.scalar(checks, value, path);
            self.sizes(checks, value, path);
            self.choices(checks, value, path);
            self.required(checks, value, path);
        }
        match value {
            Value::Object(fields) => {
                self.fields(node, fields, old, path, is_resource || node.is_embedded);
            }
            Value::Array(items) => self.items(node, items, old, path),
            _ => {}
        }
    }

    fn fields(
        &mut self,
        node: &Node,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        is_resource: bool,
    ) {
        for (name, child) in fields {
            if is_resource && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            if let Some(inner) = node.field(name) {
                let before = old.and_then(|old| old.get(name));
                self.value(inner, child, before, &child_path(path, name), false);
            }
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], old: Option<&Value>, path: &str) {
        let Some(inner) = node.items.as_deref() else {
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let before = correlated(node, item, old);
            self.value(inner, item, before, &format!("{path}[{index}]"), false);
        }
    }

    fn kind(&mut self, node: &Node, value: &Value, path: &str) {
        let found = word(value);
        let fits = match (node.kind, value) {
            (Type::Any, _)
            | (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::Text | Type::IntOrString, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer | Type::IntOrString, Value::Number(number)) => {
                number.is_i64() || number.as_f64().is_some_and(|value| value.fract() == 0.0)
            }
            _ => false,
        };
        if !fits {
            self.wrong_type(path, node.kind.word(), found);
            return;
        }
        let Some(format) = node.format.as_deref() else {
            return;
        };
        match value {
            Value::String(text) if !formats::fits(format, text) => {
                let message = format!(
                    "Invalid value: {text:?}: {path} in body must be of type {format}: {text:?}"
                );
                self.fail(TYPE_INVALID, path, message);
            }
            Value::Number(number)
                if format == "int32"
                    && number
                        .as_i64()
                        .is_some_and(|value| i32::try_from(value).is_err()) =>
            {
                self.wrong_type(path, "int32", "int64");
            }
            _ => {}
        }
    }

    /// allOf, anyOf, oneOf and not. Their own failures follow upstream's summary, which names no field.
    fn junctors(&mut self, checks: &Checks, value: &Value, path: &str) {
        if !checks.any_of.is_empty() {
            let found: Vec<_> = checks
                .any_of
                .iter()
                .map(|node| nested(node, value, path))
                .collect();
            if !found.iter().any(Vec::is_empty) {
                self.junctor(path, "must validate at least one schema (anyOf)");
                self.best(found);
            }
        }
        if !checks.one_of.is_empty() {
            let found: Vec<_> = checks
                .one_of
                .iter()
                .map(|node| nested(node, value, path))
                .collect();
            match found.iter().filter(|one| one.is_empty()).count() {
                0 => {
                    self.junctor(
                        path,
                        "must validate one and only one schema (oneOf). Found none valid",
                    );
                    self.best(found);
                }
                1 => {}
                many => self.junctor(
                    path,
                    &format!(
                        "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                    ),
                ),
            }
        }
        if !checks.all_of.is_empty() {
            let mut found: Vec<_> = checks
                .all_of
                .iter()
                .map(|node| nested(node, value, path))
                .collect();
            let fitting = found.iter().filter(|one| one.is_empty()).count();
            for one in &mut found {
                self.failures.append(one);
            }
            match (fitting, checks.all_of.len()) {
                (fitting, all) if fitting == all => {}
                (0, _) => self.junctor(
                    path,
                    "must validate all the schemas (allOf). None validated",
                ),
                _ => self.junctor(path, "must validate all the schemas (allOf)"),
            }
        }
        if let Some(not) = checks.not.as_deref()
            && nested(not, value, path).is_empty()
        {
            self.junctor(path, "must not validate the schema (not)");
        }
    }

    fn junctor(&mut self, path: &str, what: &str) {
        self.fail(
            INVALID,
            "<nil>",
            format!("Invalid value: \"\": \"{path}\" {what}"),
        );
    }

    /// Of alternatives that all fail, the failures of the one that fails least.
    fn best(&mut self, found: Vec<Vec<Failure>>) {
        if let Some(mut best) = found.into_iter().min_by_key(Vec::len) {
            self.failures.append(&mut best);
        }
    }

    fn scalar(&mut self, checks: &Checks, value: &Value, path: &str) {
        match value {
            Value::String(text) => self.text(checks, text, path),
            Value::Number(number) => {
                if let Some(found) = number.as_f64() {
                    self.number(checks, value, found, path);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, checks: &Checks, text: &str, path: &str) {
        let length = text.chars().count() as u64;
        if let Some(limit) = checks.max_length
            && length > limit
        {
            self.fail(
                TOO_LONG,
                path,
                format!("Too long: may not be more than {limit} bytes"),
            );
        }
        if let Some(limit) = checks.min_length
            && length < limit
        {
            let why = format!("should be at least {limit} chars long");
            self.invalid(path, &Value::from(text), &why);
        }
        if let Some(pattern) = &checks.pattern
            && !pattern.matches(text)
        {
            let why = format!("should match '{}'", pattern.source);
            self.invalid(path, &Value::from(text), &why);
        }
    }

    fn number(&mut self, checks: &Checks, value: &Value, found: f64, path: &str) {
        if let Some(step) = checks.multiple_of
            && step > 0.0
            && (found / step).fract() != 0.0
        {
            let why = format!("should be a multiple of {}", shown(step));
            self.invalid(path, value, &why);
        }
        if let Some(limit) = checks.maximum {
            if checks.exclusive_maximum && found >= limit {
                self.invalid(
                    path,
                    value,
                    &format!("should be less than {}", shown(limit)),
                );
            } else if found > limit {
                let why = format!("should be less than or equal to {}", shown(limit));
                self.invalid(path, value, &why);
            }
        }
        if let Some(limit) = checks.minimum {
            if checks.exclusive_minimum && found <= limit {
                let why = format!("should be greater than {}", shown(limit));
                self.invalid(path, value, &why);
            } else if found < limit {
                let why = format!("should be greater than or equal to {}", shown(limit));
                self.invalid(path, value, &why);
            }
        }
    }

    fn sizes(&mut self, checks: &Checks, value: &Value, path: &str) {
        let (count, least, most, what) = match value {
            Value::Array(items) => (items.len(), checks.min_items, checks.max_items, "items"),
            Value::Object(fields) => (
                fields.len(),
                checks.min_properties,
                checks.max_properties,
                "properties",
            ),
            _ => return,
        };
        let count = count as u64;
        if let Some(limit) = least
            && count < limit
        {
            self.invalid(path, value, &format!("should have at least {limit} {what}"));
        }
        if let Some(limit) = most
            && count > limit
        {
            let message = format!("Too many: {count}: must have at most {limit} items");
            self.fail(TOO_MANY, path, message);
        }
        if checks.unique_items
            && let Value::Array(items) = value
        {
            let mut seen = HashSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.invalid(path, value, "shouldn't contain duplicates");
            }
        }
    }

    fn choices(&mut self, checks: &Checks, value: &Value, path: &str) {
        if checks.choices.is_empty() || checks.choices.iter().any(|one| same(one, value)) {
            return;
        }
        let listed: Vec<_> = checks
            .choices
            .iter()
            .map(|one| match one {
                Value::String(text) => format!("{text:?}"),
                other => format!("{:?}", other.to_string()),
            })
            .collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            render(value),
            listed.join(", ")
        );
        self.fail(NOT_SUPPORTED, path, message);
    }

    fn required(&mut self, checks: &Checks, value: &Value, path: &str) {
        let Value::Object(fields) = value else { return };
        for name in &checks.required {
            if !fields.contains_key(&**name) {
                self.fail(
                    REQUIRED,
                    &child_path(path, name),
                    "Required value".to_owned(),
                );
            }
        }
    }

    fn wrong_type(&mut self, path: &str, wanted: &str, found: &str) {
        let message =
            format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
        self.fail(TYPE_INVALID, path, message);
    }

    fn invalid(&mut self, path: &str, value: &Value, why: &str) {
        let message = format!("Invalid value: {}: {path} in body {why}", render(value));
        self.fail(INVALID, path, message);
    }

    fn fail(&mut self, reason: &'static str, field: &str, message: String) {
        self.failures.push(Failure {
            reason,
            field: if field.is_empty() { "<nil>" } else { field }.to_owned(),
            message,
        });
    }
}

fn nested(node: &Node, value: &Value, path: &str) -> Vec<Failure> {
    let mut validator = Validator {
        failures: Vec::new(),
    };
    validator.value(node, value, None, path, path.is_empty());
    validator.failures
}

/// What `item` of a list that is a map was before: the old item with the same keys. Items of other lists have no past.
pub fn correlated<'a>(node: &Node, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if node.list_type != ListType::Map {
        return None;
    }
    old?.as_array()?.iter().find(|before| {
        node.list_map_keys
            .iter()
            .all(|key| before.get(&**key) == item.get(&**key))
    })
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn same(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => first.as_f64() == second.as_f64(),
        _ => first == second,
    }
}

/// A bound as Go prints a float64.
fn shown(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e21 {
        format!("{number:.0}")
    } else {
        format!("{number}")
    }
}
