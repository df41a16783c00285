//! What differs between two values of one type, as three sets of fields: removed, modified, added.
//!
//! A container that appears or vanishes is named itself, beside what is in it; one that only changes inside is not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::path::Element;
use super::set::Set;
use super::types::{Choice, ListAtom, MapAtom, Type, Types, list_in, map_in};
use super::value::{Lookup, Value};

#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    pub removed: Set<'a>,
    pub modified: Set<'a>,
    pub added: Set<'a>,
}

impl<'a> Comparison<'a> {
    /// All that the new value has and the old one had not, or had otherwise; and what is gone.
    pub fn changed(self) -> (Set<'a>, Set<'a>) {
        (self.modified.joined(self.added), self.removed)
    }

    fn push(&mut self, element: &Element<'a>, inner: Difference<'a>) {
        let own = inner.own;
        for (set, below, kind) in [
            (&mut self.removed, inner.inside.removed, Own::Removed),
            (&mut self.modified, inner.inside.modified, Own::Modified),
            (&mut self.added, inner.inside.added, Own::Added),
        ] {
            if own == kind || !below.is_empty() {
                set.push(element.clone(), own == kind, below);
            }
        }
    }

    fn sort(&mut self) {
        self.removed.sort();
        self.modified.sort();
        self.added.sort();
    }

    fn union(self, other: Self) -> Self {
        Self {
            removed: self.removed.union(&other.removed),
            modified: self.modified.union(&other.modified),
            added: self.added.union(&other.added),
        }
    }
}

/// What happened to a value itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Same,
    Removed,
    Modified,
    Added,
}

struct Difference<'a> {
    own: Own,
    inside: Comparison<'a>,
}

impl Difference<'_> {
    fn leaf(own: Own) -> Self {
        Self {
            own,
            inside: Comparison::default(),
        }
    }
}

/// Compare two objects of one type.
pub(super) fn compare<'a>(
    types: &Types<'a>,
    old: &Value<'a>,
    new: &Value<'a>,
    of: Type,
) -> Comparison<'a> {
    difference(types, Some(old), Some(new), of).inside
}

fn difference<'a>(
    types: &Types<'a>,
    old: Option<&Value<'a>>,
    new: Option<&Value<'a>>,
    of: Type,
) -> Difference<'a> {
    let atom = types.atom(of);
    let (old_choice, new_choice) = (atom.choose(old), atom.choose(new));
    let choice = if new.is_none() {
        old_choice
    } else {
        new_choice
    };
    let walk = |choice, old, new| match (choice, &atom.map, &atom.list) {
        (Choice::Map, Some(map), _) => in_map(types, old, new, map),
        (Choice::List, _, Some(list)) => in_list(types, old, new, list),
        _ => None,
    };
    let is_changed_kind = old.is_some() && new.is_some() && old_choice != new_choice;
    let (inside, is_leaf) = if is_changed_kind {
        let before = walk(old_choice, old, None);
        let after = walk(new_choice, None, new);
        let is_leaf = before.is_none() || after.is_none();
        let inside = before.unwrap_or_default().union(after.unwrap_or_default());
        (inside, is_leaf)
    } else {
        match walk(choice, old, new) {
            Some(inside) => (inside, false),
            None => (Comparison::default(), true),
        }
    };
    let own = match (old, new) {
        (None, Some(_)) => Own::Added,
        (Some(_), None) => Own::Removed,
        (Some(old), Some(new)) if is_leaf && old != new => Own::Modified,
        _ => Own::Same,
    };
    if is_leaf && !is_changed_kind {
        return Difference::leaf(own);
    }
    Difference { own, inside }
}

/// Compare field by field; None when the maps are one leaf.
fn in_map<'a>(
    types: &Types<'a>,
    old: Option<&Value<'a>>,
    new: Option<&Value<'a>>,
    map: &MapAtom<'a>,
) -> Option<Comparison<'a>> {
    let is_new = old.is_none();
    let (old, new) = (
        map_in(old).map_or(&[][..], Vec::as_slice),
        map_in(new).map_or(&[][..], Vec::as_slice),
    );
    if map.is_atomic || (old.is_empty() && new.is_empty()) {
        return None;
    }
    let mut found = Comparison::default();
    let (in_old, in_new) = (Lookup::new(old), Lookup::new(new));
    for (at, (name, before)) in old.iter().enumerate() {
        let after = in_new.get(name, at).or_else(|| map.implied(name));
        field(types, map, name.clone(), Some(before), after, &mut found);
    }
    for (at, (name, after)) in new.iter().enumerate() {
        if in_old.get(name, at).is_none() {
            let before = if is_new { None } else { map.implied(name) };
            field(types, map, name.clone(), before, Some(after), &mut found);
        }
    }
    // Structs in place come with what they are in, even when nothing is in them.
    for name in map.structs().filter(|_| is_new) {
        if in_new.get(name, 0).is_none() {
            found.push(&Element::field(name), Difference::leaf(Own::Added));
        }
    }
    found.sort();
    Some(found)
}

fn field<'a>(
    types: &Types<'a>,
    map: &MapAtom<'a>,
    name: Cow<'a, str>,
    before: Option<&Value<'a>>,
    after: Option<&Value<'a>>,
    found: &mut Comparison<'a>,
) {
    let Some(child) = map.field(&name).1 else {
        return;
    };
    let inner = difference(types, before, after, child);
    found.push(&Element::Field(name), inner);
}

/// Items of one path element, old and new.
#[derive(Default)]
struct Items<'v, 'a> {
    old: Vec<&'v Value<'a>>,
    new: Vec<&'v Value<'a>>,
}

/// Compare item by item; None when the lists are one leaf.
fn in_list<'a>(
    types: &Types<'a>,
    old: Option<&Value<'a>>,
    new: Option<&Value<'a>>,
    list: &ListAtom<'a>,
) -> Option<Comparison<'a>> {
    let (old, new) = (
        list_in(old).unwrap_or_default(),
        list_in(new).unwrap_or_default(),
    );
    if !list.relation.is_associative() || (old.is_empty() && new.is_empty()) {
        return None;
    }
    let mut items: BTreeMap<Element<'a>, Items<'_, 'a>> = BTreeMap::new();
    for item in old {
        if let Ok(element) = types.element(list, item) {
            items.entry(element).or_default().old.push(item);
        }
    }
    for item in new {
        if let Ok(element) = types.element(list, item) {
            items.entry(element).or_default().new.push(item);
        }
    }
    let mut found = Comparison::default();
    for (element, Items { old, new }) in items {
        match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => {
                let inner =
                    difference(types, old.first().copied(), new.first().copied(), list.item);
                found.push(&element, inner);
            }
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    found.push(&element, Difference::leaf(Own::Modified));
                }
            }
            // Items that could not be told apart before are one leaf that goes; the single one that stays is new.
            ([_, _, ..], _) => {
                if let Some(only) = new.first() {
                    found.push(&element, difference(types, None, Some(only), list.item));
                }
                found.push(&element, Difference::leaf(Own::Removed));
            }
            (_, _) => {
                if let Some(only) = old.first() {
                    found.push(&element, difference(types, Some(only), None, list.item));
                }
                found.push(&element, Difference::leaf(Own::Added));
            }
        }
    }
    found.sort();
    Some(found)
}
