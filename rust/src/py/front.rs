//! Face of `crate::front`: open, close, count. No Python object is touched by its threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::store::Store;
use crate::front::{self, Config, FrontError, Source, Stats};

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Front {
    config: Config,
    stats: Arc<Stats>,
    open: Mutex<Option<front::Front>>,
}

fn raised(error: &FrontError) -> PyErr {
    match error {
        FrontError::Bind { .. } | FrontError::Threads(_) => PyOSError::new_err(error.to_string()),
        FrontError::Certificate { .. } => PyValueError::new_err(error.to_string()),
        FrontError::Started => PyRuntimeError::new_err(error.to_string()),
    }
}

#[pymethods]
impl Front {
    #[new]
    #[pyo3(signature = (*, bind, upstream, certificate_pem, key_pem, client_ca_pem, threads = 2, idle_timeout_ms = 90_000, source = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        bind: Vec<String>,
        upstream: PathBuf,
        certificate_pem: Vec<u8>,
        key_pem: Vec<u8>,
        client_ca_pem: Vec<u8>,
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
            certificate_pem,
            key_pem,
            client_ca_pem,
            threads,
            idle_timeout,
            source,
        };
        Self {
            config,
            stats: Arc::default(),
            open: Mutex::new(None),
        }
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_some() {
                return Err(FrontError::Started);
            }
            let front = front::Front::open(self.config.clone(), Arc::clone(&self.stats))?;
            let addresses = front.addresses().iter().map(ToString::to_string).collect();
            *open = Some(front);
            Ok(addresses)
        })
        .map_err(|error| raised(&error))
    }

    #[pyo3(signature = (grace_ms = 0))]
    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        py.detach(|| {
            let front = self
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(front) = front {
                front.close(Duration::from_millis(grace_ms));
            }
        });
    }

    fn forget_grants(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(front) = open.as_ref() {
            front.forget_grants();
        }
    }

    /// (verb, group, version, resource, scope, requests) of reads answered from the store.
    fn reads(&self) -> Vec<(&'static str, String, String, String, &'static str, u64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = open.as_ref().map(front::Front::reads).unwrap_or_default();
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
        self.stats.all().into_iter().collect()
    }
}
