//! Face of `crate::front`: open, close, count.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::socket::Door;
use super::store::Store;
use crate::front::{self, Config, Source, Stats};
use crate::socket::Tls;

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Front {
    config: Config,
    stats: Arc<Stats>,
    door: Door<front::Front>,
}

#[pymethods]
impl Front {
    #[new]
    #[pyo3(signature = (*, bind, upstream, certificate_file, key_file, client_ca_file = None, threads = 2, idle_timeout_ms = 90_000, source = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        bind: Vec<String>,
        upstream: PathBuf,
        certificate_file: PathBuf,
        key_file: PathBuf,
        client_ca_file: Option<PathBuf>,
        threads: usize,
        idle_timeout_ms: u64,
        source: Option<(Bound<'_, Store>, Vec<Vec<u8>>, bool)>,
    ) -> Self {
        let source = source.map(|(store, guarded, is_sole)| Source {
            store: store.get().shared(),
            guarded,
            is_sole,
        });
        let idle_timeout = Duration::from_millis(idle_timeout_ms);
        let config = Config {
            bind,
            upstream,
            tls: Tls {
                certificate: certificate_file,
                key: key_file,
                client_authority: client_ca_file,
            },
            threads,
            idle_timeout,
            source,
        };
        Self {
            config,
            stats: Arc::default(),
            door: Door::default(),
        }
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let (config, stats) = (self.config.clone(), Arc::clone(&self.stats));
        self.door.start(py, || front::Front::open(config, stats))
    }

    #[pyo3(signature = (grace_ms = 0))]
    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        self.door.stop(py, grace_ms);
    }

    fn forget_grants(&self) {
        self.door.ask(front::Front::forget_grants);
    }

    /// (verb, group, version, resource, scope, requests) of reads answered from the store.
    fn reads(&self) -> Vec<(&'static str, String, String, String, &'static str, u64)> {
        let counts = self.door.ask(front::Front::reads).unwrap_or_default();
        let line = |one: front::Count| {
            (
                one.verb,
                one.group,
                one.version,
                one.resource,
                one.scope,
                one.requests,
            )
        };
        counts.into_iter().map(line).collect()
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let reloads = self.door.ask(front::Front::certificate_reloads);
        let (reloads, failures) = reloads.unwrap_or_default();
        let mut stats: BTreeMap<_, _> = self.stats.all().into_iter().collect();
        stats.insert("certificate_reloads", reloads);
        stats.insert("certificate_reload_failures", failures);
        stats
    }
}
