//! Face of `crate::front`: open, close, count, and the inbox through which an application takes requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::socket::Door;
use super::store::Store;
use crate::front::{self, Arrival, Config, Inbox, Source, Stats};
use crate::socket::Tls;

type PyNews<'py> = (Vec<Bound<'py, PyTuple>>, Vec<u64>, Vec<u64>);

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Front {
    config: Config,
    stats: Arc<Stats>,
    inbox: Arc<Inbox>,
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
    ) -> PyResult<Self> {
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
        Ok(Self {
            config,
            stats: Arc::default(),
            inbox: Inbox::new()?,
            door: Door::default(),
        })
    }

    fn start(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let (config, stats) = (self.config.clone(), Arc::clone(&self.stats));
        let inbox = Arc::clone(&self.inbox);
        self.door
            .start(py, || front::Front::open(config, inbox, stats))
    }

    #[pyo3(signature = (grace_ms = 0))]
    fn stop(&self, py: Python<'_>, grace_ms: u64) {
        self.door.stop(py, grace_ms);
    }

    fn attach(&self) -> i32 {
        self.inbox.attach()
    }

    fn detach(&self) {
        self.inbox.detach();
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<PyNews<'py>> {
        let news = self.inbox.take();
        let arrivals = news.arrivals.into_iter();
        let arrivals = arrivals
            .map(|one| arrival(py, one))
            .collect::<PyResult<_>>()?;
        Ok((arrivals, news.gone, news.drained))
    }

    fn answer(
        &self,
        id: u64,
        status: u16,
        headers: Vec<(PyBackedBytes, PyBackedBytes)>,
        body: &[u8],
        has_more: bool,
    ) -> PyResult<()> {
        let status = StatusCode::from_u16(status).map_err(unfit)?;
        let mut fields = HeaderMap::with_capacity(headers.len() + 1);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(&name).map_err(unfit)?;
            fields.append(name, HeaderValue::from_bytes(&value).map_err(unfit)?);
        }
        let first = Bytes::copy_from_slice(body);
        self.inbox.answer(id, status, fields, first, has_more);
        Ok(())
    }

    fn send(&self, id: u64, piece: &[u8], has_more: bool) -> bool {
        self.inbox.send(id, Bytes::copy_from_slice(piece), has_more)
    }

    fn abort(&self, id: u64) {
        self.inbox.abort(id);
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

/// (id, method, path, query, headers, body), all but the first two as bytes, as ASGI wants them.
fn arrival<'py>(py: Python<'py>, one: Arrival) -> PyResult<Bound<'py, PyTuple>> {
    let headers = PyList::empty(py);
    for (name, value) in &one.head.headers {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        headers.append((name, PyBytes::new(py, value.as_bytes())))?;
    }
    let path = PyBytes::new(py, one.head.uri.path().as_bytes());
    let query = PyBytes::new(py, one.head.uri.query().unwrap_or_default().as_bytes());
    let body = PyBytes::new(py, &one.body);
    (one.id, one.head.method.as_str(), path, query, headers, body).into_pyobject(py)
}

fn unfit(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
