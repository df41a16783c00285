//! Devices as the selectors of resource claims see them: amounts and versions are values of their own, not text.
//! Mirrors dynamic-resource-allocation/cel.

use std::sync::OnceLock;

use kube_cel::cel::objects::Value;
use serde_json::Value as Json;

use super::values::{from_json, map};
use super::{Expression, Kind, Scope};

/// Return `{driver, allowMultipleAllocations, attributes: {domain: {name: {string|int|bool|version: value}}}, capacity: {domain: {name:
/// amount}}}` as CEL's `device`. The error names what is no amount or version.
pub fn device(json: &Json) -> Result<Value, String> {
    let field = |name: &str| json.get(name).cloned().unwrap_or(Json::Null);
    let attributes = each_of_each(&field("attributes"), attribute)?;
    let capacity = each_of_each(&field("capacity"), |amount| parse("quantity", amount))?;
    Ok(map([
        ("driver".to_owned(), from_json(&field("driver"))),
        (
            "allowMultipleAllocations".to_owned(),
            from_json(&field("allowMultipleAllocations")),
        ),
        ("attributes".to_owned(), attributes),
        ("capacity".to_owned(), capacity),
    ]
    .into_iter()))
}

fn each_of_each(
    domains: &Json,
    convert: impl Fn(&Json) -> Result<Value, String>,
) -> Result<Value, String> {
    let none = serde_json::Map::new();
    let mut found = Vec::new();
    for (domain, named) in domains.as_object().unwrap_or(&none) {
        let mut inner = Vec::new();
        for (name, value) in named.as_object().unwrap_or(&none) {
            inner.push((name.clone(), convert(value)?));
        }
        found.push((domain.clone(), map(inner.into_iter())));
    }
    Ok(map(found.into_iter()))
}

fn attribute(json: &Json) -> Result<Value, String> {
    if let Some(version) = json.get("version") {
        return parse("semver", version);
    }
    let known = ["string", "int", "bool"]
        .into_iter()
        .find_map(|kind| json.get(kind));
    known
        .map(from_json)
        .ok_or_else(|| "unsupported attribute value".to_owned())
}

/// Make a value of text by Kubernetes' function of that name.
fn parse(function: &'static str, text: &Json) -> Result<Value, String> {
    static QUANTITY: OnceLock<Result<Expression, String>> = OnceLock::new();
    static SEMVER: OnceLock<Result<Expression, String>> = OnceLock::new();
    let cell = if function == "semver" {
        &SEMVER
    } else {
        &QUANTITY
    };
    let compiled = cell.get_or_init(|| {
        let variables = vec![("text", Kind::Dynamic)];
        Expression::compile(&format!("{function}(text)"), &Scope { variables }, &[])
    });
    match compiled {
        Ok(expression) => expression.evaluate([("text", from_json(text))]),
        Err(words) => Err(words.clone()),
    }
}
