//! The fields that a value mentions: what an applied configuration owns.

use std::collections::BTreeMap;

use super::path::Element;
use super::set::Set;
use super::types::{Choice, ListAtom, MapAtom, Type, Types};
use super::value::Value;

/// Return whether the value itself is a member (it is a leaf), and the members inside it.
pub(super) fn fields_of<'a>(types: &Types<'a>, value: &Value<'a>, of: Type) -> (bool, Set<'a>) {
    let atom = types.atom(of);
    match (atom.choose(Some(value)), atom.map, atom.list) {
        (Choice::Map, Some(map), _) if map.is_atomic => (true, Set::default()),
        (Choice::Map, Some(map), _) => (false, of_map(types, value, &map)),
        (Choice::List, _, Some(list)) if !list.relation.is_associative() => (true, Set::default()),
        (Choice::List, _, Some(list)) => (false, of_list(types, value, &list)),
        _ => (true, Set::default()),
    }
}

fn of_map<'a>(types: &Types<'a>, value: &Value<'a>, map: &MapAtom<'a>) -> Set<'a> {
    let mut set = Set::default();
    for (name, value) in value.as_map().into_iter().flatten() {
        let (is_declared, child) = map.field(name);
        let (is_leaf, below) = match child {
            Some(child) => fields_of(types, value, child),
            None => (true, Set::default()),
        };
        let is_hollow = value.is_null() || value.as_map().is_some_and(Vec::is_empty);
        set.push(
            Element::Field(name.clone()),
            is_leaf || is_hollow || !is_declared,
            below,
        );
    }
    set.sort();
    set
}

fn of_list<'a>(types: &Types<'a>, value: &Value<'a>, list: &ListAtom<'a>) -> Set<'a> {
    let mut items: BTreeMap<Element<'a>, Vec<&Value<'a>>> = BTreeMap::new();
    for item in value.as_list().into_iter().flatten() {
        if let Ok(element) = types.element(list, item) {
            items.entry(element).or_default().push(item);
        }
    }
    let mut set = Set::default();
    for (element, same) in items {
        let below = match same.as_slice() {
            [only] => fields_of(types, only, list.item).1,
            // Items that cannot be told apart are owned as one.
            _ => Set::default(),
        };
        set.push(element, true, below);
    }
    set
}
