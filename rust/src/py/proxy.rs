//! The class Proxy: complete lists of Services and EndpointSlices in, a serving node out. Blocking calls run without the GIL.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::proxy::ProxyError;
use crate::proxy::engine::{Engine, Mode};
use crate::proxy::nftables::Nftables;

impl From<ProxyError> for PyErr {
    fn from(error: ProxyError) -> PyErr {
        match error {
            ProxyError::Unreadable { .. } | ProxyError::Mode(_) => {
                PyValueError::new_err(error.to_string())
            }
            _ => PyOSError::new_err(error.to_string()),
        }
    }
}

/// The service proxy of one node.
#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Proxy {
    engine: Mutex<Engine>,
}

impl Proxy {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Proxy {
    #[new]
    #[pyo3(signature = (node_name = String::new(), *, cluster_cidr = String::new(), seed = 0))]
    fn new(node_name: String, cluster_cidr: String, seed: u64) -> Proxy {
        Proxy {
            engine: Mutex::new(Engine::new(node_name, cluster_cidr, seed)),
        }
    }

    fn start(&self, py: Python<'_>, mode: &str) -> PyResult<()> {
        let mode = Mode::parse(mode)?;
        Ok(py.detach(|| self.engine().start(mode))?)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.engine().stop());
    }

    #[staticmethod]
    fn cleanup(py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(Nftables::remove)?)
    }

    fn update(
        &self,
        py: Python<'_>,
        services: Vec<PyBackedBytes>,
        slices: Vec<PyBackedBytes>,
    ) -> PyResult<usize> {
        Ok(py.detach(|| self.engine().update(&services, &slices))?)
    }

    fn pick(&self, service: &str, client: &str, seed: u64) -> PyResult<Option<String>> {
        let client: IpAddr = client
            .parse()
            .map_err(|_| PyValueError::new_err(format!("no IP address: {client}")))?;
        Ok(self
            .engine()
            .pick(service, client, seed)
            .map(|target| std::net::SocketAddr::new(target.ip, target.port).to_string()))
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.engine().stats()
    }
}
