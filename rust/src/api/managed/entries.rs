//! An object's managers as `metadata.managedFields` has them: read, kept in order, written.

use std::borrow::Cow;

use super::changed::fields;
use super::path::Element;
use super::set::Set;
use super::types::{Type, Types};
use super::value::Value;
use crate::api::json::{JsonError, Kind, Scanner, write_text};
use crate::api::schema::Schema;

/// Entries of updates beyond this many are put together, the oldest first.
const UPDATE_MANAGERS_MAX: usize = 10;
const FIELDS: &str = "fieldsV1";
const OLD_UPDATES_MANAGER: &str = "ancient-changes";
/// Fields that the server decides and nobody owns.
const STRIPPED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// One write: who, through which subresource, in which version, when (RFC 3339 in UTC), and what it can change at all.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub schema: &'a Schema,
    pub of: Type,
    pub manager: &'a str,
    pub subresource: &'a str,
    pub api_version: &'a str,
    pub now: &'a str,
    /// Dotted paths of fields that this endpoint takes back from every request.
    pub reset: &'a [&'a str],
    /// When not empty: the only paths that it lets through; `*` is any list item.
    pub only: &'a [&'a str],
}

impl<'a> Write<'a> {
    pub(super) fn types(&self) -> Types<'a> {
        Types {
            schema: self.schema,
        }
    }

    /// What of a set this endpoint can write.
    pub(super) fn filter(&self, mut set: Set<'a>) -> Set<'a> {
        if self.only.is_empty() {
            if !set.is_empty() {
                set.subtract_below(&Set::of_fields(self.reset.iter().copied()));
            }
            return set;
        }
        let patterns: Vec<Vec<&str>> = self
            .only
            .iter()
            .map(|path| path.split('.').collect())
            .collect();
        let borrowed: Vec<&[&str]> = patterns.iter().map(Vec::as_slice).collect();
        matching(&set, &borrowed)
    }

    pub(super) fn identity(&self, operation: Operation) -> Identity<'a> {
        Identity {
            manager: Cow::Borrowed(if self.manager.is_empty() {
                "unknown"
            } else {
                self.manager
            }),
            operation,
            version: match operation {
                Operation::Update => Cow::Borrowed(self.api_version),
                Operation::Apply => Cow::Borrowed(""),
            },
            subresource: Cow::Borrowed(self.subresource),
        }
    }
}

fn matching<'a>(set: &Set<'a>, patterns: &[&[&str]]) -> Set<'a> {
    if patterns.iter().any(|pattern| pattern.is_empty()) {
        return set.clone();
    }
    let mut out = Set::default();
    for node in set.nodes() {
        let below: Vec<&[&str]> = patterns
            .iter()
            .filter_map(|pattern| {
                let (first, rest) = pattern.split_first()?;
                let fits =
                    *first == "*" || matches!(&node.element, Element::Field(name) if name == first);
                fits.then_some(rest)
            })
            .collect();
        if !below.is_empty() {
            out.push(
                node.element.clone(),
                node.is_member,
                matching(&node.below, &below),
            );
        }
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What makes two entries one manager's. An applier is the same in every version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    pub manager: Cow<'a, str>,
    pub operation: Operation,
    pub version: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub identity: Identity<'a>,
    pub api_version: Cow<'a, str>,
    pub time: Option<Cow<'a, str>>,
    pub set: Set<'a>,
}

impl Entry<'_> {
    pub fn is_applier(&self) -> bool {
        self.identity.operation == Operation::Apply
    }
}

pub(super) type Entries<'a> = Vec<Entry<'a>>;

/// Read `metadata.managedFields`. Fails for entries that are none.
pub(super) fn read<'a>(managed: Option<&Value<'a>>) -> Result<Entries<'a>, String> {
    let mut entries = Vec::new();
    let items = match managed {
        None | Some(Value::Null) => return Ok(entries),
        Some(Value::List(items)) => items,
        Some(_) => return Err("managedFields must be a list".to_owned()),
    };
    for (at, item) in items.iter().enumerate() {
        entries.push(read_entry(at, item)?);
    }
    Ok(entries)
}

/// Read managedFields as they stand in an object of whose members `same` do not change: what is owned below those stays as it is.
pub(super) fn read_around<'a>(
    managed: &'a str,
    same: &[Cow<'a, str>],
) -> Result<Entries<'a>, String> {
    match read_encoded(managed, same)? {
        Some(entries) => Ok(entries),
        None => read(Some(
            &Value::parse(managed).map_err(|error| error.to_string())?,
        )),
    }
}

/// The same; None where entries may be put together, for which their sets have to be known.
pub(super) fn read_encoded<'a>(
    managed: &'a str,
    same: &[Cow<'a, str>],
) -> Result<Option<Entries<'a>>, String> {
    let failed = |error: JsonError| error.to_string();
    let items = items(managed).map_err(failed)?;
    let Some(items) = items.filter(|items| items.len() < UPDATE_MANAGERS_MAX) else {
        return Ok(None);
    };
    let mut entries = Vec::with_capacity(items.len() + 1);
    for (at, item) in items.into_iter().enumerate() {
        let members = fields(item).map_err(failed)?.unwrap_or_default();
        let mut rest = Vec::with_capacity(members.len());
        let mut owned = None;
        for (name, raw) in members {
            if name == FIELDS {
                owned = Some(raw);
            } else {
                rest.push((name, Value::parse(raw).map_err(failed)?));
            }
        }
        let mut entry = read_entry(at, &Value::Map(rest))?;
        if let Some(owned) = owned {
            entry.set = read_set_around(owned, same)?;
        }
        entries.push(entry);
    }
    Ok(Some(entries))
}

fn read_set_around<'a>(owned: &'a str, same: &[Cow<'a, str>]) -> Result<Set<'a>, String> {
    let failed = |error: JsonError| error.to_string();
    let Some(members) = fields(owned).map_err(failed)? else {
        let value = Value::parse(owned).map_err(failed)?;
        return if value.is_null() {
            Ok(Set::default())
        } else {
            Set::read(&value)
        };
    };
    let (mut read, mut kept) = (Vec::new(), Vec::new());
    for (key, raw) in members {
        let name = match &key {
            Cow::Borrowed(key) => key.strip_prefix("f:"),
            Cow::Owned(_) => None,
        };
        match name.filter(|name| same.iter().any(|one| one == name)) {
            Some(name) => kept.push((name, raw)),
            None => read.push((key, Value::parse(raw).map_err(failed)?)),
        }
    }
    let mut set = Set::read(&Value::Map(read))?;
    for (name, raw) in kept {
        set.push(
            Element::field(name),
            true,
            Set::encoded(raw.as_bytes().into()),
        );
    }
    set.sort();
    Ok(set)
}

/// The items of a list, None for any other value.
fn items(source: &str) -> Result<Option<Vec<&str>>, JsonError> {
    let mut scanner = Scanner::new(source);
    if scanner.kind()? != Kind::Array {
        return Ok(None);
    }
    scanner.enter()?;
    let (mut found, mut first) = (Vec::new(), true);
    while scanner.element(&mut first)? {
        found.push(scanner.leap()?);
    }
    scanner.end()?;
    Ok(Some(found))
}

fn read_entry<'a>(at: usize, item: &Value<'a>) -> Result<Entry<'a>, String> {
    let text = |name: &str| match item.get(name) {
        Some(Value::Text(text)) => text.clone(),
        _ => Cow::Borrowed(""),
    };
    let operation = match &*text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match &*text("fieldsType") {
        "FieldsV1" => {}
        "" => {
            return Err(format!("missing fieldsType in managed fields entry {at}"));
        }
        other => {
            return Err(format!(
                "invalid fieldsType {other:?} in managed fields entry {at}"
            ));
        }
    }
    let set = match item.get(FIELDS) {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => Set::read(fields)?,
    };
    let version = match operation {
        Operation::Apply => Cow::Borrowed(""),
        Operation::Update => api_version.clone(),
    };
    let time = text("time");
    Ok(Entry {
        identity: Identity {
            manager: text("manager"),
            operation,
            version,
            subresource: text("subresource"),
        },
        api_version,
        time: (!time.is_empty()).then_some(time),
        set,
    })
}

/// The JSON of `managedFields`, in upstream's order; empty when nobody owns anything.
pub(super) fn write(mut entries: Entries<'_>) -> Vec<u8> {
    if entries.is_empty() {
        return Vec::new();
    }
    entries.sort_by(|left, right| order(left).cmp(&order(right)));
    let mut out = Vec::with_capacity(1024);
    out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_entry(entry, &mut out);
    }
    out.push(b']');
    out
}

fn order<'e>(entry: &'e Entry<'_>) -> (Operation, &'e str, &'e str, &'e str, &'e str) {
    let identity = &entry.identity;
    (
        identity.operation,
        entry.time.as_deref().unwrap_or(""),
        &identity.manager,
        &entry.api_version,
        &identity.subresource,
    )
}

fn write_entry(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let operation = if entry.is_applier() {
        "Apply"
    } else {
        "Update"
    };
    out.extend_from_slice(b"{\"manager\":");
    write_text(out, &entry.identity.manager);
    out.extend_from_slice(b",\"operation\":");
    write_text(out, operation);
    out.extend_from_slice(b",\"apiVersion\":");
    write_text(out, &entry.api_version);
    if let Some(time) = &entry.time {
        out.extend_from_slice(b",\"time\":");
        write_text(out, time);
    }
    out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
    entry.set.write(out);
    if !entry.identity.subresource.is_empty() {
        out.extend_from_slice(b",\"subresource\":");
        write_text(out, &entry.identity.subresource);
    }
    out.push(b'}');
}

pub(super) fn find<'e, 'a>(
    entries: &'e mut Entries<'a>,
    identity: &Identity<'_>,
) -> Option<&'e mut Entry<'a>> {
    entries.iter_mut().find(|entry| entry.identity == *identity)
}

/// A set without what nobody owns.
pub(super) fn stripped(mut set: Set<'_>) -> Set<'_> {
    set.subtract(&Set::of_fields(STRIPPED));
    set
}

/// Keep the number of update entries bounded: the oldest of each version become one.
pub(super) fn cap(entries: &mut Entries<'_>) {
    let mut updaters: Vec<usize> = (0..entries.len())
        .filter(|at| entries.get(*at).is_some_and(|entry| !entry.is_applier()))
        .collect();
    let mut count = updaters.len();
    if count <= UPDATE_MANAGERS_MAX {
        return;
    }
    updaters.sort_by(|left, right| {
        let key = |at: &usize| {
            entries.get(*at).map(|entry| {
                (
                    entry.time.clone(),
                    entry.api_version.clone(),
                    entry.identity.manager.clone(),
                    entry.identity.subresource.clone(),
                )
            })
        };
        key(left).cmp(&key(right))
    });
    let mut gone = Vec::new();
    // By version: the entry that takes the others up.
    let mut buckets: Vec<(String, usize)> = Vec::new();
    for at in updaters {
        if count <= UPDATE_MANAGERS_MAX {
            break;
        }
        let Some(entry) = entries.get(at).cloned() else {
            continue;
        };
        let version = entry.api_version.to_string();
        let Some(into) = buckets
            .iter()
            .find(|(known, _)| *known == version)
            .map(|(_, at)| *at)
        else {
            buckets.push((version, at));
            continue;
        };
        if let Some(bucket) = entries.get_mut(into) {
            bucket.identity.manager = Cow::Borrowed(OLD_UPDATES_MANAGER);
            bucket.identity.subresource = Cow::Borrowed("");
            bucket.set = bucket.set.union(&entry.set);
            bucket.time = entry.time;
        }
        gone.push(at);
        count -= 1;
    }
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
}
