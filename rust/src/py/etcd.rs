//! Face of `crate::etcd`: open, close, count. No Python object is touched by its threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::store::Store;
use crate::etcd::{self, Config, FrontError, Metrics, Options, Tls};

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct EtcdFront {
    store: Arc<crate::store::Store>,
    config: Config,
    metrics: Arc<Metrics>,
    open: Mutex<Option<etcd::Front>>,
}

fn raised(error: &FrontError) -> PyErr {
    match error {
        FrontError::Bind { .. } | FrontError::Threads(_) => PyOSError::new_err(error.to_string()),
        FrontError::Certificate { .. } => PyValueError::new_err(error.to_string()),
        FrontError::Started => PyRuntimeError::new_err(error.to_string()),
    }
}

#[pymethods]
impl EtcdFront {
    #[new]
    #[pyo3(signature = (
        store, *, bind, name, client_urls, metrics_bind = String::new(), certificate_pem = None, key_pem = None, client_ca_pem = None, threads = 1,
        progress_every_ms = 600_000
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        store: &Store,
        bind: Vec<String>,
        name: String,
        client_urls: Vec<String>,
        metrics_bind: String,
        certificate_pem: Option<Vec<u8>>,
        key_pem: Option<Vec<u8>>,
        client_ca_pem: Option<Vec<u8>>,
        threads: usize,
        progress_every_ms: u64,
    ) -> Self {
        let tls = certificate_pem.map(|certificate_pem| Tls {
            certificate_pem,
            key_pem: key_pem.unwrap_or_default(),
            client_ca_pem: client_ca_pem.unwrap_or_default(),
        });
        let options = Options {
            name,
            client_urls,
            progress_every: Duration::from_millis(progress_every_ms.max(1)),
        };
        Self {
            store: store.shared(),
            config: Config {
                bind,
                metrics_bind,
                tls,
                threads,
                options,
            },
            metrics: Arc::default(),
            open: Mutex::new(None),
        }
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_some() {
                return Err(FrontError::Started);
            }
            let (config, store) = (self.config.clone(), Arc::clone(&self.store));
            let front = etcd::Front::open(config, store, Arc::clone(&self.metrics))?;
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

    /// Figures in Prometheus' text format.
    fn metrics(&self) -> String {
        self.metrics.render(&self.store)
    }
}
