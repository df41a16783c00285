//! A value without some of its fields and items.

use super::path::Element;
use super::set::Set;
use super::types::{Choice, ListAtom, MapAtom, Type, Types};
use super::value::{Map, Value};

/// Return the value without what `fields` names, each with all that is in it. A container that is left empty becomes null.
pub(super) fn remove<'a>(
    types: &Types<'a>,
    value: &Value<'a>,
    fields: &Set<'a>,
    of: Type,
) -> Value<'a> {
    let atom = types.atom(of);
    match (atom.choose(Some(value)), &atom.map, &atom.list) {
        (Choice::Map, Some(map), _) => match value {
            Value::Map(members) if !map.is_atomic => from_map(types, members, fields, map),
            _ => Value::Null,
        },
        (Choice::List, _, Some(list)) => match value {
            Value::List(items) if list.relation.is_associative() => {
                from_list(types, items, fields, list)
            }
            _ => Value::Null,
        },
        _ => value.clone(),
    }
}

fn from_map<'a>(
    types: &Types<'a>,
    members: &Map<'a>,
    fields: &Set<'a>,
    map: &MapAtom<'a>,
) -> Value<'a> {
    let mut out = Vec::with_capacity(members.len());
    for (name, value) in members {
        let value = match fields.at(&Element::Field(name.clone())) {
            (true, _) => continue,
            (false, None) => value.clone(),
            (false, Some(below)) => match map.field(name).1 {
                Some(child) => remove(types, value, below, child),
                None => value.clone(),
            },
        };
        out.push((name.clone(), value));
    }
    if out.is_empty() {
        Value::Null
    } else {
        Value::Map(out)
    }
}

fn from_list<'a>(
    types: &Types<'a>,
    items: &[Value<'a>],
    fields: &Set<'a>,
    list: &ListAtom<'a>,
) -> Value<'a> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let found = match types.element(list, item) {
            Ok(element) => fields.at(&element),
            Err(_) => (false, None),
        };
        match found {
            (true, _) => {}
            (false, None) => out.push(item.clone()),
            (false, Some(below)) => out.push(remove(types, item, below, list.item)),
        }
    }
    if out.is_empty() {
        Value::Null
    } else {
        Value::List(out)
    }
}
