//! Applying a spec again to one like the last: a workload's objects are applied with the same spec, and have the same.
//!
//! Where applying a spec to another is known to change nothing in it, neither is read: the stored one stays as it stands, and so does what
//! everybody owns in it. What the applier owns there depends on nothing but what is applied.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::apply::{Applied, ApplyError, Attempt, KUBECTL, attempt};
use super::changed::{Raw, fields};
use super::entries::{self, Operation, Write};
use super::fields::fields_of;
use super::path::Element;
use super::set::Set;
use super::validate::validate;
use super::value::{Map, Value};
use crate::api::json::{JsonError, write_text};

const SPEC: &str = "spec";
const METADATA: &str = "metadata";
const MANAGERS: &str = "managedFields";
const KEPT_MAX: usize = 16;
const SPEC_BYTES_MAX: usize = 32 * 1024;
/// The volume with a pod's token has a name of the pod's own, which stays whatever is applied around it.
const OWN_NAME: &str = "\"kube-api-access-";

/// Pairs of specs, applied and stored, of which the one changes nothing in the other; and what its manager owns then. Newest last.
#[derive(Debug, Default)]
pub struct AppliedBefore(Mutex<VecDeque<Known>>);

#[derive(Debug)]
struct Known {
    applied: Box<str>,
    stored: Box<str>,
    owned: Arc<[u8]>,
}

impl AppliedBefore {
    fn get(&self, applied: &str, stored: &str) -> Option<Arc<[u8]>> {
        let stored = open(stored);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().rev();
        found
            .filter(|one| *one.applied == *applied && *one.stored == *stored)
            .map(|one| Arc::clone(&one.owned))
            .next()
    }

    /// Learn from an application that went well.
    pub(super) fn learn(&self, write: &Write<'_>, live: &str, config: &str, done: &Attempt<'_>) {
        let (Ok(Some(live)), Ok(Some(config))) = (fields(live), fields(config)) else {
            return;
        };
        let (Some(stored), Some(applied)) = (raw(&live, SPEC), raw(&config, SPEC)) else {
            return;
        };
        let is_kept = match &done.object {
            None => true,
            Some(object) => object
                .get(SPEC)
                .is_some_and(|spec| spec.to_json() == stored.as_bytes()),
        };
        let identity = write.identity(Operation::Apply);
        let own = done.entries.iter().find(|one| one.identity == identity);
        let owned = own.and_then(|entry| entry.set.encoded_below(SPEC));
        let is_usable = is_kept
            && write.manager != KUBECTL
            && stored.len().max(applied.len()) <= SPEC_BYTES_MAX
            && self.get(applied, stored).is_none();
        let Some(owned) = owned.filter(|_| is_usable) else {
            return;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_MAX {
            known.pop_front();
        }
        known.push_back(Known {
            applied: applied.into(),
            stored: open(stored).into(),
            owned: owned.into(),
        });
    }

    /// Apply without reading the specs. None: it has to be done with them, because they are not known, or because it does not go well.
    pub(super) fn apply(
        &self,
        write: &Write<'_>,
        live: &str,
        config: &str,
        force: bool,
    ) -> Option<Applied> {
        if write.manager == KUBECTL {
            return None;
        }
        let (live, config) = (fields(live).ok()??, fields(config).ok()??);
        let owned = self.get(raw(&config, SPEC)?, raw(&live, SPEC)?)?;
        around(write, &live, &config, owned, force).ok()?
    }
}

fn around(
    write: &Write<'_>,
    live: &[Raw<'_>],
    config: &[Raw<'_>],
    owned: Arc<[u8]>,
    force: bool,
) -> Result<Option<Applied>, JsonError> {
    let metadata = raw(live, METADATA).map(fields).transpose()?.flatten();
    let managers = metadata.as_deref().and_then(|one| raw(one, MANAGERS));
    let (Some(metadata), Some(managers)) = (metadata.as_deref(), managers) else {
        return Ok(None);
    };
    let mut live_rest = read(live, &[SPEC, METADATA])?;
    live_rest.push((METADATA.into(), Value::Map(read(metadata, &[MANAGERS])?)));
    let (live_rest, config_rest) = (Value::Map(live_rest), Value::Map(read(config, &[SPEC])?));
    let same = [SPEC.into()];
    let Ok(Some(entries)) = entries::read_encoded(managers, &same) else {
        return Ok(None);
    };
    if entries.is_empty() || validate(&write.types(), &config_rest, write.of).is_err() {
        return Ok(None);
    }
    let identity = write.identity(Operation::Apply);
    if let Some(entry) = entries.iter().find(|one| one.identity == identity) {
        let mut names = write.filter(fields_of(&write.types(), &config_rest, write.of).1);
        names.push(Element::field(SPEC), true, Set::encoded(Arc::clone(&owned)));
        names.sort();
        let is_known = entry.set.encoded_below(SPEC).as_deref() == Some(&*owned);
        // Who names less than before has something taken away, and that may be in the spec.
        if !is_known || !entry.set.is_within(&names) {
            return Ok(None);
        }
    }
    let beside = Some((SPEC, owned));
    let Ok(done) = attempt(write, &live_rest, &config_rest, entries, force, beside) else {
        return Ok(None);
    };
    Ok(Some(Applied {
        object: written(done.object.as_ref().unwrap_or(&live_rest), live),
        managed_fields: entries::write(done.entries),
    }))
}

/// The JSON of an object of which the spec is as it stands in `live`, in whose order the members come.
fn written(object: &Value<'_>, live: &[Raw<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let mut put = |name: &str, value: &dyn Fn(&mut Vec<u8>)| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_text(&mut out, name);
        out.push(b':');
        value(&mut out);
    };
    for (name, raw) in live {
        if name == SPEC {
            put(name, &|out| out.extend_from_slice(raw.as_bytes()));
        } else if let Some(value) = object.get(name) {
            put(name, &|out| value.write(out));
        }
    }
    let added = object.as_map().into_iter().flatten();
    for (name, value) in added.filter(|(name, _)| raw(live, name).is_none()) {
        put(name, &|out| value.write(out));
    }
    out.push(b'}');
    out
}

fn raw<'a>(fields: &[Raw<'a>], name: &str) -> Option<&'a str> {
    fields.iter().find(|one| one.0 == name).map(|one| one.1)
}

fn read<'a>(fields: &[Raw<'a>], without: &[&str]) -> Result<Map<'a>, JsonError> {
    let kept = fields.iter().filter(|one| !without.contains(&&*one.0));
    kept.map(|(name, raw)| Ok((name.clone(), Value::parse(raw)?)))
        .collect()
}

/// The spec with its own name left open, by a byte that no JSON holds.
fn open(spec: &str) -> String {
    let name = spec.find(OWN_NAME).and_then(|start| {
        let rest = spec.get(start..)?;
        let end = rest.get(1..)?.find('"')? + 2;
        rest.get(..end)
    });
    match name {
        Some(name) => spec.replace(name, "\0"),
        None => spec.to_owned(),
    }
}

/// Apply, and learn.
pub fn apply_again(
    write: &Write<'_>,
    live: Option<&str>,
    config: &str,
    force: bool,
    known: &AppliedBefore,
) -> Result<Applied, ApplyError> {
    let Some(live) = live else {
        return super::apply::apply(write, live, config, force);
    };
    match known.apply(write, live, config, force) {
        Some(done) => Ok(done),
        None => super::apply::applied(write, Some(live), config, force, Some(known)),
    }
}
