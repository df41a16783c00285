//! managedFields after a create, an update or a patch: the writer owns what it changed, everybody else loses just that.

use super::changed;
use super::compare::compare;
use super::entries::{self, Entries, Entry, Identity, Operation, Write};
use super::path::Element;
use super::remembered::Remembered;
use super::set::Set;
use super::value::{EMPTY, Value};
use crate::api::json::JsonError;

/// Return `metadata.managedFields` of `new`, as JSON; empty when it has none.
///
/// `live` is the stored object, None for a create. An object that has no managers gets none from updates. A request may set
/// managedFields itself (not through a subresource); `[{}]` and `[]` clear them. Fails when an object is no JSON or the stored
/// managedFields are malformed.
pub fn track(write: &Write<'_>, live: Option<&str>, new: &str) -> Result<Vec<u8>, String> {
    let Some(live) = live else {
        return tracked(write, false, EMPTY.clone(), parse(new)?);
    };
    let found = changed::read(live, new).map_err(|error| error.to_string())?;
    let Some(managers) = found.managers else {
        return tracked(write, true, found.old, found.new);
    };
    let entries = entries::read_around(managers, &found.same).unwrap_or_default();
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let entries = update(write, &found.old, &found.new, entries)?;
    Ok(entries::write(entries))
}

/// The same for a create, where what is known of specs that came before is used and learnt. `write` may take nothing of `spec` back.
pub fn track_created(
    write: &Write<'_>,
    new: &str,
    remembered: &Remembered,
) -> Result<Vec<u8>, String> {
    let failed = |error: JsonError| error.to_string();
    let members = changed::fields(new).map_err(failed)?.unwrap_or_default();
    let spec = members.iter().find(|(name, _)| name == "spec");
    let Some(spec) = spec.map(|(_, spec)| *spec) else {
        return track(write, None, new);
    };
    let names_managers = members
        .iter()
        .any(|(name, raw)| name == "metadata" && raw.contains(r#""managedFields""#));
    if names_managers {
        return track(write, None, new);
    }
    let Some(known) = remembered.get(spec) else {
        let entries = update(write, &EMPTY, &parse(new)?, Vec::new())?;
        if let [entry] = entries.as_slice() {
            remembered.learn(spec, || entry.set.encoded_below("spec"));
        }
        return Ok(entries::write(entries));
    };
    let rest = members.iter().filter(|(name, _)| name != "spec");
    let rest = rest.map(|(name, raw)| Ok((name.clone(), Value::parse(raw)?)));
    let rest = Value::Map(rest.collect::<Result<_, _>>().map_err(failed)?);
    let (mut own, _) = compare(&write.types(), &EMPTY, &rest, write.of).changed();
    own = entries::stripped(write.filter(own));
    own.push(Element::field("spec"), true, Set::encoded(known));
    own.sort();
    let mut entries = Vec::new();
    add(&mut entries, write.identity(Operation::Update), own, write);
    Ok(entries::write(entries))
}

/// The same of values that may have lost what is the same in both.
pub(super) fn tracked<'a>(
    write: &Write<'a>,
    is_update: bool,
    mut live: Value<'a>,
    mut new: Value<'a>,
) -> Result<Vec<u8>, String> {
    let stored = take_managed(&mut live);
    let given = take_managed(&mut new);
    // From here on everything borrows from the two sources.
    let entries = decode(write, stored.as_ref(), given.as_ref());
    if entries.is_empty() && is_update {
        return Ok(Vec::new());
    }
    let entries = update(write, &live, &new, entries)?;
    Ok(entries::write(entries))
}

fn parse(source: &str) -> Result<Value<'_>, String> {
    Value::parse(source).map_err(|error| error.to_string())
}

/// Take managedFields out of an object, so that they do not manage themselves.
pub(super) fn take_managed<'a>(object: &mut Value<'a>) -> Option<Value<'a>> {
    let Value::Map(fields) = object else {
        return None;
    };
    fields
        .iter_mut()
        .find(|(name, _)| name == "metadata")?
        .1
        .take("managedFields")
}

fn decode<'a>(
    write: &Write<'_>,
    stored: Option<&Value<'a>>,
    given: Option<&Value<'a>>,
) -> Entries<'a> {
    let from_stored = || entries::read(stored).unwrap_or_default();
    if !write.subresource.is_empty() {
        return from_stored();
    }
    if is_reset(given) {
        return Vec::new();
    }
    match entries::read(given) {
        Ok(found) if !found.is_empty() => found,
        _ => from_stored(),
    }
}

fn is_reset(given: Option<&Value<'_>>) -> bool {
    match given {
        Some(Value::List(items)) => match items.as_slice() {
            [] => true,
            [Value::Map(fields)] => fields.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

/// Compare, take from the others what changed, and give it to the writer.
pub(super) fn update<'a>(
    write: &Write<'a>,
    live: &Value<'a>,
    new: &Value<'a>,
    mut entries: Entries<'a>,
) -> Result<Entries<'a>, String> {
    let types = write.types();
    let found = compare(&types, live, new, write.of);
    let (changed, removed) = found.changed();
    let (changed, removed) = (write.filter(changed), write.filter(removed));
    take_from_others(&mut entries, None, &changed, &removed);
    let own = entries::stripped(changed);
    if !own.is_empty() {
        add(&mut entries, write.identity(Operation::Update), own, write);
    }
    entries::cap(&mut entries);
    Ok(entries)
}

/// Take what changed and what was removed from all entries but one; those left with nothing go.
pub(super) fn take_from_others<'a>(
    entries: &mut Entries<'a>,
    except: Option<&Identity<'_>>,
    changed: &Set<'a>,
    removed: &Set<'a>,
) {
    for entry in entries.iter_mut() {
        if except == Some(&entry.identity) {
            continue;
        }
        entry.set.subtract(changed);
        entry.set.subtract(removed);
    }
    entries.retain(|entry| !entry.set.is_empty());
}

fn add<'a>(entries: &mut Entries<'a>, identity: Identity<'a>, own: Set<'a>, write: &Write<'a>) {
    match entries::find(entries, &identity) {
        Some(entry) => {
            entry.set = std::mem::take(&mut entry.set).joined(own);
            entry.time = Some(write.now.into());
        }
        None => entries.push(Entry {
            identity,
            api_version: write.api_version.into(),
            time: Some(write.now.into()),
            set: own,
        }),
    }
}

/// The entry of all that an object had before anybody tracked it.
pub(super) fn before_first_apply<'a>(
    write: &Write<'a>,
    live: &Value<'a>,
) -> Result<Entries<'a>, String> {
    let unknown = Write {
        manager: "before-first-apply",
        ..*write
    };
    update(&unknown, &EMPTY, live, Vec::new())
}
