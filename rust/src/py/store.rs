//! Class `Store` and its exceptions. Values cross as bytes; nothing here waits for the GIL while it holds a lock of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::exceptions::{PyException, PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::store::{
    Attributes, AttributesBuilder, Kind, Op, Requirement, Revision, Selector, Span, Store as Inner,
    StoreError as Error, Txn,
};

pyo3::create_exception!(
    korch._core._native,
    StoreError,
    PyException,
    "What the store refuses or cannot do."
);
pyo3::create_exception!(
    korch._core._native,
    RevisionMismatch,
    StoreError,
    "The key is at another revision: (index of the op, revision)."
);
pyo3::create_exception!(
    korch._core._native,
    KeyExists,
    StoreError,
    "The key must not exist but does: (index of the op,)."
);
pyo3::create_exception!(
    korch._core._native,
    KeyMissing,
    StoreError,
    "The key must exist but does not: (index of the op,)."
);
pyo3::create_exception!(
    korch._core._native,
    Compacted,
    StoreError,
    "The revision is older than the history that is kept."
);
pyo3::create_exception!(
    korch._core._native,
    FutureRevision,
    StoreError,
    "The revision is newer than what is published."
);
pyo3::create_exception!(
    korch._core._native,
    WatcherLagged,
    StoreError,
    "The watcher was too slow and was cut."
);
pyo3::create_exception!(
    korch._core._native,
    StoreCorrupt,
    StoreError,
    "A file of the store is damaged."
);
pyo3::create_exception!(
    korch._core._native,
    StoreLocked,
    StoreError,
    "Another process uses the directory."
);
pyo3::create_exception!(
    korch._core._native,
    StorePoisoned,
    StoreError,
    "A write to the disk failed; the store takes no more."
);

pyo3::create_exception!(
    korch._core._native,
    StoreFull,
    StoreError,
    "The disk is full: nothing was written, and writes are taken again when there is room."
);
pyo3::create_exception!(
    korch._core._native,
    LeaseNotFound,
    StoreError,
    "The lease does not exist: (id,)."
);
pyo3::create_exception!(
    korch._core._native,
    LeaseExists,
    StoreError,
    "A lease of this id exists: (id,)."
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
            Error::Compacted { .. } => Compacted::new_err(text),
            Error::FutureRevision { .. } => FutureRevision::new_err(text),
            Error::WatcherLagged { .. } => WatcherLagged::new_err(text),
            Error::DuplicateKey => PyValueError::new_err(text),
            Error::LeaseNotFound { id } => LeaseNotFound::new_err((id,)),
            Error::LeaseExists { id } => LeaseExists::new_err((id,)),
            Error::NoSpace { .. } => StoreFull::new_err(text),
            Error::UnknownWatcher { id } => PyKeyError::new_err(id),
            Error::Invalid(_) => PyValueError::new_err(text),
            Error::Corrupt { .. } => StoreCorrupt::new_err(text),
            Error::Locked { .. } => StoreLocked::new_err(text),
            Error::Poisoned { .. } => StorePoisoned::new_err(text),
            Error::Io(source) => PyOSError::new_err((source.raw_os_error(), text)),
        }
    }
}

pub(super) type PyOp = (
    PyBackedBytes,
    Option<PyBackedBytes>,
    Option<u64>,
    i64,
    Py<PyDict>,
    Py<PyDict>,
    Vec<PyBackedStr>,
);
type PyRequirement = (PyBackedStr, PyBackedStr, PyBackedStr, Vec<PyBackedStr>);
type PyEvent = (u8, u64, Py<PyBytes>);
/// "put", key, value, lease, 0; "delete", key, end, 0, 0; or "span", key, end, limit, revision.
type PyTxnOp = (PyBackedStr, PyBackedBytes, PyBackedBytes, i64, u64);

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Record {
    inner: Arc<Revision>,
}

#[pymethods]
impl Record {
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.key)
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.value())
    }

    #[getter]
    fn create_revision(&self) -> u64 {
        self.inner.created
    }

    #[getter]
    fn mod_revision(&self) -> u64 {
        self.inner.modified
    }

    #[getter]
    fn version(&self) -> u64 {
        self.inner.version
    }

    #[getter]
    fn lease(&self) -> i64 {
        self.inner.lease
    }
}

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Page {
    inner: crate::store::Page,
}

#[pymethods]
impl Page {
    #[getter]
    fn revision(&self) -> u64 {
        self.inner.revision
    }

    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(
            py,
            self.inner
                .items
                .iter()
                .map(|item| PyBytes::new(py, item.value())),
        )
    }

    fn joined<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.inner.items.len() * 2);
        for item in &self.inner.items {
            if !parts.is_empty() {
                parts.push(b",");
            }
            parts.push(item.value());
        }
        joined(py, &parts)
    }

    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(
            py,
            self.inner
                .items
                .iter()
                .map(|item| PyBytes::new(py, &item.key)),
        )
    }

    #[getter]
    fn next<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.next.as_ref().map(|next| PyBytes::new(py, next))
    }

    #[getter]
    fn remaining(&self) -> i64 {
        self.inner.remaining
    }
}

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    pub(super) fn over(inner: Arc<Inner>) -> Self {
        Store { inner }
    }

    /// The store itself, for the parts of the extension that read it without Python.
    pub(crate) fn shared(&self) -> Arc<Inner> {
        self.inner.clone()
    }
}

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (path))]
    fn new(py: Python<'_>, path: Option<std::path::PathBuf>) -> PyResult<Self> {
        let inner = match path {
            None => Inner::in_memory(),
            Some(path) => py.detach(|| Inner::open(&path))?,
        };
        Ok(Store {
            inner: Arc::new(inner),
        })
    }

    fn commit<'py>(
        &self,
        py: Python<'py>,
        ops: Vec<PyOp>,
    ) -> PyResult<(u64, Vec<Option<Bound<'py, PyBytes>>>)> {
        let (revision, states) = self.inner.commit(parse_ops(py, &ops)?)?;
        let value =
            |state: &Arc<Revision>| (!state.is_deletion()).then(|| PyBytes::new(py, state.value()));
        Ok((revision, states.iter().map(value).collect()))
    }

    fn transact(&self, ops: Vec<PyTxnOp>) -> PyResult<(u64, bool, Vec<Vec<Record>>)> {
        let records = |found: Vec<Arc<Revision>>| -> Vec<Record> {
            found.into_iter().map(|inner| Record { inner }).collect()
        };
        let apply = |txn: &mut Txn<'_>, (verb, key, other, number, revision): &PyTxnOp| {
            let found = match &**verb {
                "put" => txn.put(key, other, *number)?.into_iter().collect(),
                "delete" => txn.delete_span(key, other)?,
                "span" => {
                    let limit = usize::try_from(*number).unwrap_or_default();
                    txn.span(key, other, limit, *revision)?.items
                }
                other => return Err(Error::Invalid(format!("unknown operation {other:?}"))),
            };
            Ok(records(found))
        };
        let done = self
            .inner
            .transact(|txn| ops.iter().map(|op| apply(txn, op)).collect())?;
        Ok((done.revision, done.wrote, done.value))
    }

    fn wakeup_fd(&self) -> PyResult<i32> {
        Ok(self.inner.wakeup()?)
    }

    fn request(&self, revision: u64) {
        self.inner.request(revision);
    }

    fn told(&self, py: Python<'_>) -> (u64, Vec<u64>, Option<Py<PyException>>) {
        let told = self.inner.told();
        let failure = told
            .failure
            .map(|failure| PyErr::from(failure).into_value(py));
        let failure = failure.and_then(|value| value.into_bound(py).cast_into().ok());
        (told.revision, told.watchers, failure.map(Bound::unbind))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.inner.flush())?)
    }

    fn publish(&self, revision: u64) -> Vec<u64> {
        self.inner.publish(revision)
    }

    fn kept(&self, revision: u64) -> PyResult<()> {
        Ok(self.inner.kept(revision)?)
    }

    fn problem(&self) -> String {
        self.inner.problem().unwrap_or_default()
    }

    fn revision(&self) -> u64 {
        self.inner.revision()
    }

    fn compacted(&self) -> u64 {
        self.inner.compacted()
    }

    #[pyo3(signature = (key, revision = 0))]
    fn get(&self, key: &[u8], revision: u64) -> PyResult<Option<Record>> {
        Ok(self.inner.get(key, revision)?.map(|inner| Record { inner }))
    }

    #[pyo3(signature = (prefix, *, start = b"".as_slice(), limit = 0, revision = 0, selector = Vec::new()), text_signature = "($self, prefix, *, start=b'', limit=0, revision=0, selector=())")]
    fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        revision: u64,
        selector: Vec<PyRequirement>,
    ) -> PyResult<Page> {
        let selector = parse(&selector)?;
        Ok(Page {
            inner: self
                .inner
                .range(prefix, start, limit, revision, &selector)?,
        })
    }

    #[pyo3(signature = (start, end, *, limit = 0, revision = 0))]
    fn span(&self, start: &[u8], end: &[u8], limit: usize, revision: u64) -> PyResult<Page> {
        let inner = self.inner.span(&Span::new(start, end), limit, revision)?;
        Ok(Page { inner })
    }

    #[pyo3(signature = (start, end, *, revision = 0))]
    fn count(&self, start: &[u8], end: &[u8], revision: u64) -> PyResult<usize> {
        Ok(self.inner.count(&Span::new(start, end), revision)?.0)
    }

    fn by_owner<'py>(&self, py: Python<'py>, uid: &str) -> Vec<Bound<'py, PyBytes>> {
        self.inner
            .by_owner(uid)
            .iter()
            .map(|key| PyBytes::new(py, key))
            .collect()
    }

    #[pyo3(signature = (prefix, *, from_revision, selector = Vec::new()), text_signature = "($self, prefix, *, from_revision, selector=())")]
    fn watch(
        &self,
        prefix: &[u8],
        from_revision: u64,
        selector: Vec<PyRequirement>,
    ) -> PyResult<u64> {
        Ok(self
            .inner
            .watch(prefix, from_revision, parse(&selector)?, None)?)
    }

    #[pyo3(signature = (start, end, *, from_revision))]
    fn watch_span(&self, start: &[u8], end: &[u8], from_revision: u64) -> PyResult<u64> {
        let span = Span::new(start, end);
        let everything = Selector::default();
        Ok(self
            .inner
            .watch_span(&span, from_revision, everything, None)?)
    }

    #[pyo3(signature = (watcher_id, max_events = 1000))]
    fn poll(
        &self,
        py: Python<'_>,
        watcher_id: u64,
        max_events: usize,
    ) -> PyResult<(Vec<PyEvent>, u64)> {
        let poll = self.inner.poll(watcher_id, max_events)?;
        let events = poll.events.iter().map(|(kind, event)| {
            let object = PyBytes::new(py, event.object(*kind)).unbind();
            (*kind as u8, event.revision(), object)
        });
        Ok((events.collect(), poll.revision))
    }

    #[pyo3(signature = (watcher_id, max_bytes = 1 << 20))]
    fn poll_frames<'py>(
        &self,
        py: Python<'py>,
        watcher_id: u64,
        max_bytes: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, u64)> {
        let poll = self.inner.poll_frames(watcher_id, max_bytes)?;
        Ok((joined(py, &poll.events)?, poll.revision))
    }

    fn unwatch(&self, watcher_id: u64) {
        self.inner.unwatch(watcher_id);
    }

    fn compact(&self, py: Python<'_>, revision: u64) -> PyResult<()> {
        Ok(py.detach(|| self.inner.compact(revision))?)
    }

    fn snapshot_after(&self, bytes: u64) {
        self.inner.snapshot_after(bytes);
    }

    fn lease_grant(&self, lease_id: i64, ttl_s: i64, now_ms: u64) -> PyResult<i64> {
        Ok(self.inner.lease_grant(lease_id, ttl_s, now_ms)?)
    }

    fn lease_revoke(&self, lease_id: i64) -> PyResult<u64> {
        Ok(self.inner.lease_revoke(lease_id)?.revision)
    }

    fn lease_keep_alive(&self, lease_id: i64, now_ms: u64) -> PyResult<i64> {
        Ok(self.inner.lease_keep_alive(lease_id, now_ms)?)
    }

    fn lease_time_to_live<'py>(
        &self,
        py: Python<'py>,
        lease_id: i64,
        now_ms: u64,
    ) -> PyResult<(i64, i64, Vec<Bound<'py, PyBytes>>)> {
        let info = self.inner.lease_time_to_live(lease_id, now_ms)?;
        let keys = info.keys.iter().map(|key| PyBytes::new(py, key));
        Ok((info.granted_s, info.remaining_s, keys.collect()))
    }

    fn leases(&self) -> Vec<(i64, i64)> {
        self.inner.leases()
    }

    fn expire(&self, now_ms: u64) -> PyResult<Vec<i64>> {
        Ok(self.inner.expire(now_ms)?)
    }

    fn snapshot(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.inner.snapshot())?)
    }

    #[staticmethod]
    fn inspect(py: Python<'_>, path: std::path::PathBuf) -> PyResult<Self> {
        Ok(Store::over(Arc::new(py.detach(|| Inner::inspect(&path))?)))
    }

    #[staticmethod]
    fn restore(
        py: Python<'_>,
        backup: std::path::PathBuf,
        path: std::path::PathBuf,
    ) -> PyResult<u64> {
        Ok(py.detach(|| crate::store::backup::restore(&backup, &path))?)
    }

    fn backup(&self, py: Python<'_>, directory: std::path::PathBuf) -> PyResult<(u64, String)> {
        Ok(py.detach(|| self.inner.backup_into(&directory))?)
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.inner.stats()
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.inner.close())?)
    }
}

pub(super) fn parse_ops<'a>(py: Python<'_>, ops: &'a [PyOp]) -> PyResult<Vec<Op<'a>>> {
    let parse = |op: &'a PyOp| {
        Ok(Op {
            key: &op.0,
            value: op.1.as_deref(),
            expected: op.2,
            splice_at: usize::try_from(op.3).ok(),
            attributes: attributes(op.4.bind(py), op.5.bind(py), &op.6)?,
        })
    };
    ops.iter().map(parse).collect()
}

/// Copy the parts once, straight into the bytes object.
fn joined<'py, T: AsRef<[u8]>>(py: Python<'py>, parts: &[T]) -> PyResult<Bound<'py, PyBytes>> {
    let size = parts.iter().map(|part| part.as_ref().len()).sum();
    PyBytes::new_with(py, size, |mut out| {
        for part in parts {
            let part = part.as_ref();
            if let Some((head, rest)) = std::mem::take(&mut out).split_at_mut_checked(part.len()) {
                head.copy_from_slice(part);
                out = rest;
            }
        }
        Ok(())
    })
}

fn attributes(
    labels: &Bound<'_, PyDict>,
    fields: &Bound<'_, PyDict>,
    owners: &[PyBackedStr],
) -> PyResult<Attributes> {
    let mut builder = AttributesBuilder::default();
    for (kind, pairs) in [(Kind::Label, labels), (Kind::Field, fields)] {
        for (key, value) in pairs {
            let (key, value): (PyBackedStr, PyBackedStr) = (key.extract()?, value.extract()?);
            builder.push(kind, key.as_bytes(), value.as_bytes());
        }
    }
    for uid in owners {
        builder.push(Kind::Owner, b"", uid.as_bytes());
    }
    Ok(builder.build())
}

fn parse(selector: &[PyRequirement]) -> PyResult<Selector> {
    let requirements = selector
        .iter()
        .map(|(target, key, operator, values)| Requirement::new(target, key, operator, values));
    Ok(Selector::new(requirements.collect::<Result<_, _>>()?))
}
