//! An applied configuration laid over the live object: nothing is removed, the configuration's leaves win.

use std::collections::HashMap;

use super::types::{Choice, ListAtom, MapAtom, Type, Types, list_in, map_in};
use super::value::{Lookup, Value};

/// Return both values merged, None when nothing is left.
pub(super) fn merge<'a>(
    types: &Types<'a>,
    live: Option<&Value<'a>>,
    config: Option<&Value<'a>>,
    of: Type,
) -> Option<Value<'a>> {
    let atom = types.atom(of);
    let choice = match config {
        None => atom.choose(live),
        Some(_) => atom.choose(config),
    };
    match (choice, &atom.map, &atom.list) {
        (Choice::Map, Some(map), _) => of_map(types, live, config, map),
        (Choice::List, _, Some(list)) => of_list(types, live, config, list),
        _ => config.or(live).cloned(),
    }
}

fn of_map<'a>(
    types: &Types<'a>,
    live: Option<&Value<'a>>,
    config: Option<&Value<'a>>,
    map: &MapAtom<'a>,
) -> Option<Value<'a>> {
    let (before, over) = (
        map_in(live).map_or(&[][..], Vec::as_slice),
        map_in(config).map_or(&[][..], Vec::as_slice),
    );
    if map.is_atomic || (before.is_empty() && over.is_empty()) {
        return config.or(live).cloned();
    }
    let mut out = Vec::with_capacity(before.len() + over.len());
    let (in_before, in_over) = (Lookup::new(before), Lookup::new(over));
    for (at, (name, value)) in before.iter().enumerate() {
        let config = in_over.get(name, at);
        let merged = match map.field(name).1 {
            Some(child) => merge(types, Some(value), config, child),
            None => config.or(Some(value)).cloned(),
        };
        out.extend(merged.map(|value| (name.clone(), value)));
    }
    for (at, (name, value)) in over.iter().enumerate() {
        if in_before.get(name, at).is_none() {
            let merged = match map.field(name).1 {
                Some(child) => merge(types, None, Some(value), child),
                None => Some(value.clone()),
            };
            out.extend(merged.map(|value| (name.clone(), value)));
        }
    }
    (!out.is_empty()).then_some(Value::Map(out))
}

/// The items of one list, by path element.
struct Indexed<'v, 'a> {
    /// The item's place, None when several have the same element.
    places: HashMap<String, Option<usize>>,
    items: &'v [Value<'a>],
    names: Vec<String>,
}

impl<'v, 'a> Indexed<'v, 'a> {
    fn new(types: &Types<'a>, list: &ListAtom<'a>, items: &'v [Value<'a>]) -> Self {
        let mut indexed = Self {
            places: HashMap::with_capacity(items.len()),
            items,
            names: Vec::with_capacity(items.len()),
        };
        for (at, item) in items.iter().enumerate() {
            // An item that cannot be told apart stays as it is: no other item has such a name.
            let name = match types.element(list, item) {
                Ok(element) => element.to_string(),
                Err(_) => format!("#{at}"),
            };
            indexed
                .places
                .entry(name.clone())
                .and_modify(|place| *place = None)
                .or_insert(Some(at));
            indexed.names.push(name);
        }
        indexed
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<&'v Value<'a>> {
        self.items.get((*self.places.get(name)?)?)
    }
}

/// Items that only the live list has stay where they are among their neighbours; those of the configuration come in its order.
fn of_list<'a>(
    types: &Types<'a>,
    live: Option<&Value<'a>>,
    config: Option<&Value<'a>>,
    list: &ListAtom<'a>,
) -> Option<Value<'a>> {
    let (before, over) = (
        list_in(live).unwrap_or_default(),
        list_in(config).unwrap_or_default(),
    );
    if !list.relation.is_associative() || (before.is_empty() && over.is_empty()) {
        return config.or(live).cloned();
    }
    let left = Indexed::new(types, list, before);
    let right = Indexed::new(types, list, over);
    // Shared items not yet placed, in the configuration's order: a live item that is shared waits for its turn.
    let mut shared = right.names.iter().filter(|name| left.has(name));
    let mut next_shared = shared.next();
    let mut done: HashMap<&str, ()> = HashMap::with_capacity(right.names.len());
    let mut out = Vec::with_capacity(before.len().max(over.len()));
    let (mut at_left, mut at_right) = (0, 0);
    loop {
        let (one, two) = (left.names.get(at_left), right.names.get(at_right));
        match (one, two) {
            (None, None) => break,
            (Some(one), Some(two)) if one == two => {
                done.insert(two, ());
                out.extend(merge(types, left.get(one), right.get(two), list.item));
                at_left += 1;
                at_right += 1;
                next_shared = shared.next();
                continue;
            }
            (Some(one), Some(_))
                if right.has(one) && next_shared.is_some_and(|next| next != one) =>
            {
                at_left += 1;
                continue;
            }
            _ => {}
        }
        if let Some(one) = one {
            if !right.has(one) {
                out.extend(merge(types, before.get(at_left), None, list.item));
                at_left += 1;
                continue;
            }
            if done.contains_key(one.as_str()) {
                at_left += 1;
            }
        }
        if let Some(two) = two {
            done.insert(two, ());
            out.extend(merge(types, left.get(two), right.get(two), list.item));
            at_right += 1;
            if next_shared == Some(two) {
                next_shared = shared.next();
            }
        }
    }
    (!out.is_empty()).then_some(Value::List(out))
}
