//! Class `Datastore`: a cluster of etcd behind tickets and a mailbox. Nothing here waits, except the first connection.

use std::collections::BTreeMap;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::store::{KeyExists, KeyMissing, PyOp, RevisionMismatch, Store, StoreError, parse_ops};
use crate::datastore::{Cluster, Completion, Config, Error, Outcome, Tls};

pyo3::create_exception!(
    korch._core._native,
    DatastoreError,
    StoreError,
    "The etcd cluster refuses or does not answer: (message, whether time was up)."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let text = error.to_string();
        match error {
            Error::RevisionMismatch { index, current } => {
                RevisionMismatch::new_err((index, current))
            }
            Error::KeyExists { index } => KeyExists::new_err((index,)),
            Error::KeyMissing { index } => KeyMissing::new_err((index,)),
            Error::Invalid(_) => PyValueError::new_err(text),
            Error::Refused(_) | Error::Closed => DatastoreError::new_err((text, false)),
            Error::TimedOut(_) => DatastoreError::new_err((text, true)),
        }
    }
}

type PyMail = (Vec<(u64, Py<PyAny>)>, Vec<u64>, Vec<String>);

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Datastore {
    inner: Cluster,
}

#[pymethods]
impl Datastore {
    #[new]
    #[pyo3(signature = (endpoints, *, prefix = "/registry", authority_pem = None, certificate_pem = None, key_pem = None, timeout_ms = 10_000))]
    fn new(
        py: Python<'_>,
        endpoints: Vec<String>,
        prefix: &str,
        authority_pem: Option<Vec<u8>>,
        certificate_pem: Option<Vec<u8>>,
        key_pem: Option<Vec<u8>>,
        timeout_ms: u64,
    ) -> PyResult<Self> {
        let tls = authority_pem.map(|authority| Tls {
            authority,
            identity: certificate_pem.zip(key_pem),
        });
        let config = Config {
            endpoints,
            tls,
            prefix: prefix.into(),
            timeout: Duration::from_millis(timeout_ms),
        };
        let inner = py.detach(|| Cluster::open(&config))?;
        Ok(Datastore { inner })
    }

    fn store(&self) -> Store {
        Store::over(self.inner.store())
    }

    fn commit(&self, py: Python<'_>, ops: Vec<PyOp>) -> PyResult<u64> {
        Ok(self.inner.commit(parse_ops(py, &ops)?)?)
    }

    fn catch_up(&self) -> PyResult<u64> {
        Ok(self.inner.catch_up()?)
    }

    #[pyo3(signature = (revision, timeout_ms))]
    fn reach(&self, revision: u64, timeout_ms: u64) -> PyResult<u64> {
        let timeout = Duration::from_millis(timeout_ms);
        Ok(self.inner.reach(revision, timeout)?)
    }

    fn compact(&self, version: i64, revision: u64) -> PyResult<u64> {
        Ok(self.inner.compact(version, revision)?)
    }

    fn fileno(&self) -> i32 {
        self.inner.descriptor()
    }

    fn mail(&self, py: Python<'_>) -> PyResult<PyMail> {
        let mail = self.inner.take_mail();
        let completions = mail.completions.into_iter();
        let completions = completions.map(|one| completion(py, one));
        Ok((
            completions.collect::<PyResult<_>>()?,
            mail.woken.into_iter().collect(),
            mail.notes,
        ))
    }

    fn problem(&self) -> String {
        self.inner.problem()
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.inner.stats()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

/// An outcome as two numbers or a number and values; an error as the exception to raise.
fn completion(py: Python<'_>, one: Completion) -> PyResult<(u64, Py<PyAny>)> {
    let outcome = match one.outcome {
        Ok(Outcome::Committed { revision, values }) => {
            let value = |value: Option<Vec<u8>>| value.map(|value| PyBytes::new(py, &value));
            let values: Vec<_> = values.into_iter().map(value).collect();
            (revision, values).into_pyobject(py)?.into_any().unbind()
        }
        Ok(Outcome::Seen { revision }) => revision.into_pyobject(py)?.into_any().unbind(),
        Ok(Outcome::Compacted { version, revision }) => {
            (version, revision).into_pyobject(py)?.into_any().unbind()
        }
        Err(error) => PyErr::from(error).into_value(py).into_any(),
    };
    Ok((one.ticket, outcome))
}
