//! How many reads were answered here, by collection, verb and scope: what the application cannot count by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::path::Verb;

const SCOPES: [&str; 3] = ["cluster", "namespace", "resource"];

/// One line of `apiserver_request_total`, all with code 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub scope: &'static str,
    pub requests: u64,
}

/// The counters of one collection: verb times scope.
#[derive(Debug, Default)]
pub(super) struct Counter([[AtomicU64; 3]; 3]);

impl Counter {
    pub(super) fn add(&self, verb: Verb, is_namespaced: bool) {
        let scope = match verb {
            Verb::Get => 2,
            _ => usize::from(is_namespaced),
        };
        if let Some(cell) = self.0.get(verb as usize).and_then(|row| row.get(scope)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Collection = (String, String, String);

#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<Collection, Arc<Counter>>>);

impl Counts {
    /// The counters of a collection, made when it is first asked for.
    pub(super) fn of(&self, group: &str, version: &str, resource: &str) -> Arc<Counter> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let collection = (group.to_owned(), version.to_owned(), resource.to_owned());
        Arc::clone(known.entry(collection).or_default())
    }

    /// Every counter that is not zero.
    pub(super) fn all(&self) -> Vec<Count> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for ((group, version, resource), counter) in known.iter() {
            for (verb, row) in Verb::NAMES.iter().zip(&counter.0) {
                for (scope, cell) in SCOPES.iter().zip(row) {
                    let requests = cell.load(Ordering::Relaxed);
                    if requests > 0 {
                        found.push(Count {
                            verb,
                            group: group.clone(),
                            version: version.clone(),
                            resource: resource.clone(),
                            scope,
                            requests,
                        });
                    }
                }
            }
        }
        found
    }
}
