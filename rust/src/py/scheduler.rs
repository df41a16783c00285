//! The class Scheduler: bytes in, decisions out. One lock around the engine; `schedule` runs without the GIL.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::scheduler::SchedulerError;
use crate::scheduler::engine::{self, Engine, Kind};
use crate::scheduler::pod::Pod;

impl From<SchedulerError> for PyErr {
    fn from(error: SchedulerError) -> PyErr {
        PyValueError::new_err(error.to_string())
    }
}

/// Placement of pods on nodes.
#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug, Default)]
pub struct Scheduler {
    engine: Mutex<Engine>,
}

/// What became of one pod.
#[pyclass(frozen, get_all, module = "korch._core._native")]
#[derive(Debug)]
pub struct Decision {
    key: String,
    uid: String,
    node: String,
    message: String,
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    unresolvable: usize,
    plugins: Vec<&'static str>,
    nominated: String,
}

impl From<engine::Decision> for Decision {
    fn from(decision: engine::Decision) -> Decision {
        let (node, diagnosis) = match decision.result {
            Ok(node) => (node, None),
            Err(diagnosis) => (String::new(), Some(diagnosis)),
        };
        let message = diagnosis
            .as_ref()
            .map(|one| one.message())
            .unwrap_or_default();
        let diagnosis = diagnosis.unwrap_or_default();
        Decision {
            key: decision.key,
            uid: decision.uid,
            node,
            message,
            nodes: diagnosis.nodes,
            reasons: diagnosis.reasons,
            unresolvable: diagnosis.unresolvable,
            plugins: diagnosis.plugins.into_iter().collect(),
            nominated: String::new(),
        }
    }
}

#[pymethods]
impl Decision {
    fn __repr__(&self) -> String {
        format!(
            "Decision(key={:?}, node={:?}, message={:?})",
            self.key, self.node, self.message
        )
    }
}

impl Scheduler {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Scheduler {
    #[new]
    fn new() -> Scheduler {
        Scheduler::default()
    }

    fn upsert(&self, nodes: Vec<PyBackedBytes>, pods: Vec<PyBackedBytes>) -> PyResult<()> {
        Ok(self.engine().upsert(&nodes, &pods)?)
    }

    fn remove(&self, kind: &str, keys: Vec<String>) -> PyResult<()> {
        let kind = match kind {
            "Node" => Kind::Node,
            "Pod" => Kind::Pod,
            other => return Err(PyValueError::new_err(format!("no such kind: {other}"))),
        };
        self.engine().remove(kind, &keys);
        Ok(())
    }

    #[pyo3(signature = (pods, *, now_ms, seed))]
    fn schedule(
        &self,
        py: Python<'_>,
        pods: Vec<PyBackedBytes>,
        now_ms: u64,
        seed: u64,
    ) -> PyResult<Vec<Decision>> {
        // No plugin of today reads the time; it stands in the signature because a cycle must never take it from elsewhere.
        let _ = now_ms;
        let decisions = py.detach(|| {
            let pods = pods
                .iter()
                .map(|bytes| Pod::parse(bytes))
                .collect::<Result<Vec<_>, _>>()?;
            Ok::<_, SchedulerError>(self.engine().schedule(pods, seed))
        })?;
        Ok(decisions.into_iter().map(Decision::from).collect())
    }

    fn forget(&self, keys: Vec<String>) {
        self.engine().forget(&keys);
    }

    #[pyo3(signature = (pod, *, seed = 0))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        pod: PyBackedBytes,
        seed: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let text = self.engine().explain(&pod, seed)?;
        Ok(PyBytes::new(py, &text))
    }

    fn stats(&self) -> BTreeMap<&'static str, usize> {
        let engine = self.engine();
        BTreeMap::from([
            ("nodes", engine.snapshot.len()),
            ("pods", engine.snapshot.pod_count()),
        ])
    }
}
