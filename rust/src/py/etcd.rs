//! Face of `crate::etcd`: open, close, count.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::socket::Door;
use super::store::Store;
use crate::etcd::{self, Config, Metrics, Options};
use crate::socket::Tls;

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct EtcdFront {
    store: Arc<crate::store::Store>,
    config: Config,
    metrics: Arc<Metrics>,
    door: Door<etcd::Front>,
}

#[pymethods]
impl EtcdFront {
    #[new]
    #[pyo3(signature = (
        store, *, bind, name, client_urls, metrics_bind = String::new(), certificate_file = None, key_file = None, client_ca_file = None,
        threads = 1, progress_every_ms = 600_000
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        store: &Store,
        bind: Vec<String>,
        name: String,
        client_urls: Vec<String>,
        metrics_bind: String,
        certificate_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        client_ca_file: Option<PathBuf>,
        threads: usize,
        progress_every_ms: u64,
    ) -> PyResult<Self> {
        let tls = match (certificate_file, key_file, client_ca_file) {
            (Some(certificate), Some(key), client_authority) => Some(Tls {
                certificate,
                key,
                client_authority,
            }),
            (None, None, None) => None,
            _ => {
                let text =
                    "certificate_file and key_file go together, and client_ca_file needs them";
                return Err(PyValueError::new_err(text));
            }
        };
        let options = Options {
            name,
            client_urls,
            progress_every: Duration::from_millis(progress_every_ms.max(1)),
        };
        let config = Config {
            bind,
            metrics_bind,
            tls,
            threads,
            options,
        };
        Ok(Self {
            store: store.shared(),
            config,
            metrics: Arc::default(),
            door: Door::default(),
        })
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let (config, store) = (self.config.clone(), Arc::clone(&self.store));
        let metrics = Arc::clone(&self.metrics);
        self.door
            .start(py, || etcd::Front::open(config, store, metrics))
    }

    #[pyo3(signature = (grace_ms = 0))]
    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        self.door.stop(py, grace_ms);
    }

    /// Figures in Prometheus' text format.
    fn metrics(&self) -> String {
        self.metrics.render(&self.store)
    }
}
