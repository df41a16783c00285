//! A configuration laid over an object without anybody owning it, as mutating admission policies do.
//!
//! What the configuration does not name stays, so it may not name a part that would be replaced as a whole: whoever wrote it would
//! remove what it does not repeat. Mirrors k8s.io/apiserver's pkg/admission/plugin/policy/mutating/patch.

use super::merge::merge;
use super::path::Element;
use super::types::{Type, Types};
use super::validate::validate;
use super::value::Value;
use crate::api::schema::{Relation, Schema};

/// Return `live` with `config` merged into it, as JSON. Fails, in upstream's words, when `config` does not fit `of` or would replace a
/// part as a whole.
pub fn overlay(schema: &Schema, of: Type, live: &str, config: &str) -> Result<Vec<u8>, String> {
    let types = Types { schema };
    let unfit = |error| format!("failed to convert patch object to typed object: {error}");
    let config = Value::parse(config).map_err(|error| unfit(error.to_string()))?;
    validate(&types, &config, of).map_err(unfit)?;
    let mut wholes = Vec::new();
    find_wholes(&types, &config, of, &mut String::new(), &mut wholes);
    if !wholes.is_empty() {
        let paths = wholes.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
        ));
    }
    let live = Value::parse(live)
        .map_err(|error| format!("failed to convert original object to typed object: {error}"))?;
    let merged = merge(&types, Some(&live), Some(&config), of);
    Ok(merged.as_ref().unwrap_or(&live).to_json())
}

/// Collect the paths in `config` of maps and lists that are replaced as a whole. Maps that anything may be a key of are not looked into.
fn find_wholes<'a>(
    types: &Types<'a>,
    config: &Value<'a>,
    of: Type,
    path: &mut String,
    wholes: &mut Vec<String>,
) {
    let atom = types.atom(of);
    let length = path.len();
    if let (Some(members), Some(map)) = (config.as_map(), &atom.map) {
        if map.is_atomic {
            wholes.push(path.clone());
        }
        for (name, value) in members {
            let (is_declared, child) = map.field(name);
            if let (true, Some(child)) = (is_declared, child) {
                *path += &Element::field(name).to_string();
                find_wholes(types, value, child, path, wholes);
                path.truncate(length);
            }
        }
    }
    if let (Some(items), Some(list)) = (config.as_list(), &atom.list) {
        if matches!(list.relation, Relation::Atomic) {
            wholes.push(path.clone());
        }
        for (at, item) in items.iter().enumerate() {
            *path += &Element::Index(at as i64).to_string();
            find_wholes(types, item, list.item, path, wholes);
            path.truncate(length);
        }
    }
}
