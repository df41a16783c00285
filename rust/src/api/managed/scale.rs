//! managedFields of a scalable object as its scale subresource shows them, and back: only who owns the replica count is told.

use std::borrow::Cow;

use super::entries::{self, Entry};
use super::path::Element;
use super::set::Set;
use super::value::Value;

const SCALE_VERSION: &str = "autoscaling/v1";
const REPLICAS: &str = "spec.replicas";

fn path(dotted: &str) -> Vec<Element<'_>> {
    dotted.split('.').map(Element::field).collect()
}

fn read(managed: &str) -> Result<Value<'_>, String> {
    if managed.is_empty() {
        return Ok(Value::Null);
    }
    Value::parse(managed).map_err(|error| error.to_string())
}

/// Return the entries of a Scale, as JSON: those of the parent that own `replicas` (a dotted path), in the Scale's own terms.
pub fn scale_to_subresource(parent: &str, replicas: &str) -> Result<Vec<u8>, String> {
    let parent = read(parent)?;
    let owned = path(replicas);
    let shown = entries::read(Some(&parent))?
        .into_iter()
        .filter(|entry| entry.set.has(&owned))
        .map(|mut entry| {
            entry.api_version = Cow::Borrowed(SCALE_VERSION);
            entry.set = Set::of_path(&path(REPLICAS));
            entry
        })
        .collect();
    Ok(entries::write(shown))
}

/// Return the parent's entries after a write to its Scale: who lost the replica count there loses it here, who got it owns it.
pub fn scale_to_parent(
    parent: &str,
    scale: &str,
    replicas: &str,
    api_version: &str,
) -> Result<Vec<u8>, String> {
    let (parent, scale) = (read(parent)?, read(scale)?);
    let owned = path(replicas);
    let just = Set::of_path(&owned);
    let mut from_scale = entries::read(Some(&scale))?;
    from_scale.retain(|entry| entry.set.has(&path(REPLICAS)));
    let is_same = |left: &Entry<'_>, right: &Entry<'_>| {
        left.identity.manager == right.identity.manager
            && left.identity.operation == right.identity.operation
            && left.identity.subresource == right.identity.subresource
    };
    let mut out = Vec::new();
    for mut entry in entries::read(Some(&parent))? {
        if entry.set.has(&owned) {
            match from_scale.iter().position(|other| is_same(other, &entry)) {
                Some(at) => {
                    entry.time = from_scale.remove(at).time;
                }
                None => entry.set = entry.set.difference(&just),
            }
        }
        if !entry.set.is_empty() {
            out.push(entry);
        }
    }
    for mut entry in from_scale {
        entry.api_version = Cow::Borrowed(api_version);
        match out.iter_mut().find(|other| is_same(other, &entry)) {
            Some(known) => {
                known.set = known.set.union(&just);
                known.time = entry.time;
            }
            None => {
                entry.set = just.clone();
                out.push(entry);
            }
        }
    }
    Ok(entries::write(out))
}
