//! Whether an applied configuration fits its type, told in upstream's words.

use std::collections::HashSet;

use super::path::Element;
use super::types::{Choice, ListAtom, MapAtom, Scalar, Type, Types};
use super::value::Value;

/// What is wrong: a path such as `.spec.replicas`, and what is wrong there.
type Problem = (String, String);

/// Fail with all problems in one text, as upstream shows them.
pub(super) fn validate<'a>(types: &Types<'a>, value: &Value<'a>, of: Type) -> Result<(), String> {
    let mut problems = Vec::new();
    check(types, value, of, &mut problems);
    let lines: Vec<_> = problems
        .iter()
        .map(|(path, message)| {
            if path.is_empty() {
                message.clone()
            } else {
                format!("{path}: {message}")
            }
        })
        .collect();
    match lines.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check<'a>(types: &Types<'a>, value: &Value<'a>, of: Type, problems: &mut Vec<Problem>) {
    let atom = types.atom(of);
    match (atom.choose(Some(value)), &atom.map, &atom.list) {
        (_, _, _) if value.is_null() => {}
        (Choice::Map, Some(map), _) => check_map(types, value, map, problems),
        (Choice::List, _, Some(list)) => check_list(types, value, list, problems),
        (_, _, _) => {
            if let Some(message) = atom.scalar.and_then(|scalar| mismatch(scalar, value)) {
                problems.push((String::new(), message));
            }
        }
    }
}

fn check_map<'a>(
    types: &Types<'a>,
    value: &Value<'a>,
    map: &MapAtom<'a>,
    problems: &mut Vec<Problem>,
) {
    let Some(members) = value.as_map() else {
        problems.push((String::new(), format!("expected map, got {}", shown(value))));
        return;
    };
    for (name, value) in members {
        let from = problems.len();
        match map.field(name).1 {
            Some(child) => check(types, value, child, problems),
            None => problems.push((String::new(), "field not declared in schema".to_owned())),
        }
        prefix(problems, from, &Element::Field(name.clone()));
    }
}

fn check_list<'a>(
    types: &Types<'a>,
    value: &Value<'a>,
    list: &ListAtom<'a>,
    problems: &mut Vec<Problem>,
) {
    let Some(items) = value.as_list() else {
        problems.push((
            String::new(),
            format!("expected list, got {}", shown(value)),
        ));
        return;
    };
    let mut seen = HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let element = if list.relation.is_associative() {
            match types.element(list, item) {
                Ok(element) => element,
                Err(message) => {
                    problems.push((String::new(), format!("element {at}: {message}")));
                    return;
                }
            }
        } else {
            Element::Index(i64::try_from(at).unwrap_or(i64::MAX))
        };
        if !seen.insert(element.to_string()) {
            problems.push((
                String::new(),
                format!("duplicate entries for key {element}"),
            ));
        }
        let from = problems.len();
        check(types, item, list.item, problems);
        prefix(problems, from, &element);
    }
}

/// Lead the paths of the problems found since `from` with one more step.
fn prefix(problems: &mut [Problem], from: usize, element: &Element<'_>) {
    for (path, _) in problems.iter_mut().skip(from) {
        path.insert_str(0, &element.to_string());
    }
}

fn mismatch(scalar: Scalar, value: &Value<'_>) -> Option<String> {
    match (scalar, value) {
        (Scalar::Text, Value::Text(_))
        | (Scalar::Numeric, Value::Int(_) | Value::Float(..))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::Bool(_)) => {
            None
        }
        (Scalar::Text, _) => Some(format!("expected string, got {}", shown(value))),
        (Scalar::Numeric, _) => Some(format!(
            "expected numeric (int or float), got {}",
            go_type(value)
        )),
        (Scalar::Boolean, _) => Some(format!("expected boolean, got {}", shown(value))),
        (Scalar::Untyped, _) => Some(format!("expected any scalar, got {}", shown(value))),
    }
}

fn go_type(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(..) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
    }
}

/// A wrong value as upstream prints it: in Go's braces.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => format!("&{{{text}}}"),
        other => format!("&{{{}}}", String::from_utf8_lossy(&other.to_json())),
    }
}
