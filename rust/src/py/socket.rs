//! What the faces of fronts do alike: open one at most, close it, and raise what goes wrong. No Python object is touched by their threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::socket::{Open, SocketError};

impl From<SocketError> for PyErr {
    fn from(error: SocketError) -> PyErr {
        let text = error.to_string();
        match error {
            SocketError::Bind { .. } | SocketError::Threads(_) => PyOSError::new_err(text),
            SocketError::Certificate { .. } => PyValueError::new_err(text),
            SocketError::Started => PyRuntimeError::new_err(text),
        }
    }
}

/// A front that may be open.
#[derive(Debug)]
pub(super) struct Door<T>(Mutex<Option<T>>);

impl<T> Default for Door<T> {
    fn default() -> Self {
        Door(Mutex::new(None))
    }
}

impl<T: Open + Send> Door<T> {
    /// Open it with `open`; return its addresses. The GIL is released.
    pub(super) fn start(
        &self,
        py: Python<'_>,
        open: impl FnOnce() -> Result<T, SocketError> + Send,
    ) -> PyResult<Vec<String>> {
        let opened = py.detach(|| {
            let mut door = self.lock();
            if door.is_some() {
                return Err(SocketError::Started);
            }
            let front = door.insert(open()?);
            Ok(front.addresses().iter().map(ToString::to_string).collect())
        });
        Ok(opened?)
    }

    /// Close it, if it is open. The GIL is released.
    pub(super) fn stop(&self, py: Python<'_>, grace_ms: u64) {
        py.detach(|| {
            let front = self.lock().take();
            if let Some(front) = front {
                front.close(Duration::from_millis(grace_ms));
            }
        });
    }

    /// What `ask` says of the front, None when it is not open.
    pub(super) fn ask<R>(&self, ask: impl FnOnce(&T) -> R) -> Option<R> {
        self.lock().as_ref().map(ask)
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
