//! Server-side apply: a manager says all that it wants, and the object becomes the live one with just that changed.
//!
//! What the manager applied before and does not name now is removed, unless another manager owns it too. A field that another
//! manager owns and that would change is a conflict, unless forced; fields with equal values are shared.

use std::borrow::Cow;
use std::sync::Arc;

use super::again::AppliedBefore;
use super::compare::compare;
use super::entries::{self, Entries, Entry, Operation, Write};
use super::fields::fields_of;
use super::merge::merge;
use super::path::Element;
use super::remove::remove;
use super::set::Set;
use super::update::{before_first_apply, take_from_others, take_managed};
use super::validate::validate;
use super::value::{EMPTY, Map, Value};

/// The manager whose client-side configuration, kept in an annotation, is taken over without conflicts.
pub(super) const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The server's bound on all annotations of an object, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// The configuration does not fit the kind.
    #[error("{0}")]
    Config(String),
    /// The stored object cannot be worked with.
    #[error("{0}")]
    Live(String),
    #[error("conflicts")]
    Conflicts(Vec<Conflict>),
}

/// Another manager owns a field: its name, how it wrote (for messages), and the field's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub path: String,
}

/// The object as it is to be, without managedFields, and these as JSON (empty: none).
#[derive(Debug)]
pub struct Applied {
    pub object: Vec<u8>,
    pub managed_fields: Vec<u8>,
}

/// Apply `config` to `live` (None: to nothing, which creates). Fails with `Conflicts` unless `force`.
pub fn apply(
    write: &Write<'_>,
    live: Option<&str>,
    config: &str,
    force: bool,
) -> Result<Applied, ApplyError> {
    applied(write, live, config, force, None)
}

/// The same, from which `known` learns.
pub(super) fn applied(
    write: &Write<'_>,
    live: Option<&str>,
    config: &str,
    force: bool,
    known: Option<&AppliedBefore>,
) -> Result<Applied, ApplyError> {
    let (live_source, config_source) = (live, config);
    let parse = |source| Value::parse(source).map_err(|error| ApplyError::Live(error.to_string()));
    let config = parse(config)?;
    let mut live_value = match live {
        Some(source) => parse(source)?,
        None => EMPTY.clone(),
    };
    let managed = take_managed(&mut live_value);
    validate(&write.types(), &config, write.of).map_err(ApplyError::Config)?;
    let mut entries = entries::read(managed.as_ref())
        .map_err(|error| ApplyError::Live(format!("failed to decode managed fields: {error}")))?;
    if entries.is_empty() && live.is_some() {
        entries = before_first_apply(write, &live_value).map_err(ApplyError::Live)?;
    }
    let first = if force {
        attempt(
            write,
            &live_value,
            &config,
            std::mem::take(&mut entries),
            true,
            None,
        )
    } else {
        attempt(write, &live_value, &config, entries.clone(), false, None)
    };
    let attempted = match first {
        Ok(attempted) => attempted,
        Err(conflicts) => {
            let left = beyond_last_applied(write, &live_value, conflicts);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(told(&left)));
            }
            attempt(write, &live_value, &config, entries, true, None)
                .map_err(|conflicts| ApplyError::Conflicts(told(&conflicts)))?
        }
    };
    if let (Some(known), Some(live)) = (known, live_source) {
        known.learn(write, live, config_source, &attempted);
    }
    let mut object = attempted.object.unwrap_or(live_value);
    if write.manager == KUBECTL {
        renew_last_applied(&mut object, &config);
    }
    Ok(Applied {
        object: object.to_json(),
        managed_fields: entries::write(attempted.entries),
    })
}

/// A merge that went well. `object` is None when nothing changed.
pub(super) struct Attempt<'a> {
    pub object: Option<Value<'a>>,
    pub entries: Entries<'a>,
}

/// Other managers' entries, each with the fields in dispute.
type Disputed<'a> = Vec<(Entry<'a>, Set<'a>)>;

/// `beside` is a field that is in neither object and stays as it is, and what the manager owns there.
pub(super) fn attempt<'a>(
    write: &Write<'a>,
    live: &Value<'a>,
    config: &Value<'a>,
    mut entries: Entries<'a>,
    force: bool,
    beside: Option<(&'a str, Arc<[u8]>)>,
) -> Result<Attempt<'a>, Disputed<'a>> {
    let types = write.types();
    let identity = write.identity(Operation::Apply);
    let merged =
        merge(&types, Some(live), Some(config), write.of).unwrap_or(Value::Map(Vec::new()));
    let mut owned = write.filter(fields_of(&types, config, write.of).1);
    if let Some((field, fields)) = beside {
        owned.push(Element::field(field), true, Set::encoded(fields));
        owned.sort();
    }
    let mut last = Set::default();
    let mut names_all_again = false;
    match entries::find(&mut entries, &identity) {
        Some(entry) => {
            names_all_again = entry.set.is_within(&owned);
            last = std::mem::replace(&mut entry.set, owned);
            entry.api_version = Cow::Borrowed(write.api_version);
        }
        None => entries.push(Entry {
            identity: identity.clone(),
            api_version: Cow::Borrowed(write.api_version),
            time: None,
            set: owned,
        }),
    }
    let object = if names_all_again {
        // Who names all that it named before has nothing removed, and most who apply do.
        debug_assert!(prune(write, merged.clone(), &entries, &last) == merged);
        merged
    } else {
        prune(write, merged, &entries, &last)
    };
    let found = compare(&types, live, &object, write.of);
    let (changed, removed) = found.changed();
    let (changed, removed) = (write.filter(changed), write.filter(removed));
    if !force {
        let disputed: Disputed<'a> = entries
            .iter()
            .filter(|entry| entry.identity != identity)
            .map(|entry| (entry.clone(), entry.set.intersection(&changed)))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if !disputed.is_empty() {
            return Err(disputed);
        }
    }
    take_from_others(&mut entries, Some(&identity), &changed, &removed);
    let object = (object != *live).then_some(object);
    if let Some(entry) = entries::find(&mut entries, &identity) {
        entry.set = entries::stripped(std::mem::take(&mut entry.set));
        if object.is_some() {
            entry.time = Some(Cow::Borrowed(write.now));
        }
    }
    entries.retain(|entry| !entry.set.is_empty());
    Ok(Attempt { object, entries })
}

/// Remove what the manager applied last time and does not now, as far as nobody else owns it.
fn prune<'a>(
    write: &Write<'a>,
    merged: Value<'a>,
    entries: &Entries<'a>,
    last: &Set<'a>,
) -> Value<'a> {
    if last.is_empty() {
        return merged;
    }
    let types = write.types();
    let named = |set: &Set<'a>| set.with_named_fields(&types, write.of);
    let fields = |value: &Value<'a>| named(&fields_of(&types, value, write.of).1);
    let last = named(last);
    let pruned = remove(&types, &merged, &last, write.of);
    // What went with its container, but belongs to somebody, comes back ...
    let owned = entries
        .iter()
        .fold(Set::default(), |all, entry| all.union(&entry.set));
    let everything = fields(&merged);
    let kept = fields(&pruned).union(&named(&owned));
    let pruned = remove(&types, &merged, &everything.difference(&kept), write.of);
    // ... and so does what nobody applied.
    let gone = everything.difference(&fields(&pruned)).intersection(&last);
    remove(&types, &merged, &gone, write.of)
}

/// The disputed fields that kubectl's own client-side configuration does not account for.
fn beyond_last_applied<'a>(
    write: &Write<'a>,
    live: &Value<'a>,
    disputed: Disputed<'a>,
) -> Disputed<'a> {
    if write.manager != KUBECTL {
        return disputed;
    }
    let Some(text) = last_applied(live) else {
        return disputed;
    };
    let types = write.types();
    let Ok(config) = Value::parse(text) else {
        return disputed;
    };
    let is_same_version =
        config.get("apiVersion").and_then(Value::as_text) == Some(write.api_version);
    if !is_same_version || validate(&types, &config, write.of).is_err() {
        return disputed;
    }
    let (changed, removed) = compare(&types, &config, live, write.of).changed();
    let mut allowed = fields_of(&types, &config, write.of).1;
    allowed.subtract(&changed);
    allowed.subtract(&removed);
    let left: Vec<_> = disputed
        .iter()
        .map(|(_, set)| paths(&set.difference(&allowed)))
        .collect();
    disputed
        .into_iter()
        .zip(left)
        .map(|((entry, set), left)| (entry, only(&set, &left)))
        .filter(|(_, set)| !set.is_empty())
        .collect()
}

/// The members of a set whose paths, as text, are listed.
fn only<'a>(set: &Set<'a>, listed: &[String]) -> Set<'a> {
    let mut kept = Set::default();
    set.each(&mut |path| {
        if listed.contains(&shown(path)) {
            kept = kept.union(&Set::of_path(path));
        }
    });
    kept
}

fn last_applied<'v>(object: &'v Value<'_>) -> Option<&'v str> {
    let text = object
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?;
    text.as_text().filter(|text| !text.is_empty())
}

/// Where the client-side annotation exists, it follows what was applied, so that `kubectl apply` without the server can go on.
fn renew_last_applied<'a>(object: &mut Value<'a>, config: &Value<'a>) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = annotations_of(&mut config) {
        annotations.retain(|(name, _)| name != LAST_APPLIED);
    }
    let mut text = config.to_json();
    text.push(b'\n');
    let Some(annotations) = annotations_of(object) else {
        return;
    };
    let size: usize = annotations
        .iter()
        .filter(|(name, _)| name != LAST_APPLIED)
        .map(|(name, value)| name.len() + value.as_text().map_or(0, str::len))
        .sum();
    if size + LAST_APPLIED.len() + text.len() > ANNOTATIONS_BYTES_MAX {
        annotations.retain(|(name, _)| name != LAST_APPLIED);
        return;
    }
    let text = Value::Text(Cow::Owned(String::from_utf8_lossy(&text).into_owned()));
    for (name, value) in annotations.iter_mut() {
        if name == LAST_APPLIED {
            *value = text.clone();
        }
    }
}

fn annotations_of<'v, 'a>(object: &'v mut Value<'a>) -> Option<&'v mut Map<'a>> {
    let Value::Map(fields) = object else {
        return None;
    };
    let metadata = fields.iter_mut().find(|(name, _)| name == "metadata")?;
    let Value::Map(fields) = &mut metadata.1 else {
        return None;
    };
    let annotations = fields.iter_mut().find(|(name, _)| name == "annotations")?;
    match &mut annotations.1 {
        Value::Map(fields) => Some(fields),
        _ => None,
    }
}

fn shown(path: &[Element<'_>]) -> String {
    path.iter().map(ToString::to_string).collect()
}

fn paths(set: &Set<'_>) -> Vec<String> {
    let mut found = Vec::new();
    set.each(&mut |path| found.push(shown(path)));
    found
}

/// Conflicts as clients see them, by manager and path.
fn told(disputed: &Disputed<'_>) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = disputed
        .iter()
        .flat_map(|(entry, set)| {
            let manager = manager_name(entry);
            paths(set).into_iter().map(move |path| Conflict {
                manager: manager.clone(),
                path,
            })
        })
        .collect();
    conflicts.sort_by(|left, right| left.manager.cmp(&right.manager));
    conflicts
}

fn manager_name(entry: &Entry<'_>) -> String {
    let mut name = format!("{:?}", entry.identity.manager);
    if !entry.identity.subresource.is_empty() {
        name.push_str(&format!(
            " with subresource {:?}",
            entry.identity.subresource
        ));
    }
    if !entry.is_applier() {
        name.push_str(&format!(" using {}", entry.api_version));
    }
    name
}
