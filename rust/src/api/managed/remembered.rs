//! What managedFields say of a spec that was created before. Pods of one workload are created with the same spec, byte for byte, and
//! which fields an object has depends on nothing but itself and its kind.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

const SPECS_MAX: usize = 16;
/// A spec is kept when it comes a second time among so many others.
const SEEN_MAX: usize = 64;
const SPEC_BYTES_MAX: usize = 32 * 1024;

/// The specs of one kind that come again and again.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Specs>);

#[derive(Debug, Default)]
struct Specs {
    /// Hashes, newest last.
    seen: VecDeque<u64>,
    /// Hash, spec and the FieldsV1 below it, newest last.
    kept: VecDeque<(u64, Box<str>, Arc<[u8]>)>,
}

impl Remembered {
    /// The FieldsV1 below this spec, if it is known.
    pub(super) fn get(&self, spec: &str) -> Option<Arc<[u8]>> {
        let hash = hash(spec);
        let specs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = specs.kept.iter().rev();
        found
            .filter(|one| one.0 == hash && *one.1 == *spec)
            .map(|one| Arc::clone(&one.2))
            .next()
    }

    /// Learn what `fields` makes of a spec that was not known, if it is worth it.
    pub(super) fn learn(&self, spec: &str, fields: impl FnOnce() -> Option<Vec<u8>>) {
        if spec.len() > SPEC_BYTES_MAX {
            return;
        }
        let hash = hash(spec);
        let mut specs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !specs.seen.contains(&hash) {
            if specs.seen.len() >= SEEN_MAX {
                specs.seen.pop_front();
            }
            specs.seen.push_back(hash);
            return;
        }
        let Some(fields) = fields() else {
            return;
        };
        if specs.kept.len() >= SPECS_MAX {
            specs.kept.pop_front();
        }
        specs.kept.push_back((hash, spec.into(), fields.into()));
    }
}

fn hash(spec: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    spec.hash(&mut hasher);
    hasher.finish()
}
