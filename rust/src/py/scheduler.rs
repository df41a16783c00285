//! The class Scheduler: bytes in, decisions out. One lock around the engine; `schedule` runs without the GIL.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use crate::scheduler::SchedulerError;
use crate::scheduler::engine::{self, Engine};
use crate::scheduler::groups::{self, Quorum, Unit};
use crate::scheduler::pod::Pod;
use crate::scheduler::profile::ConfigError;
use crate::scheduler::steps::{Curable, Objection, Victims};

impl From<SchedulerError> for PyErr {
    fn from(error: SchedulerError) -> PyErr {
        PyValueError::new_err(error.to_string())
    }
}

impl From<ConfigError> for PyErr {
    fn from(error: ConfigError) -> PyErr {
        PyValueError::new_err(error.to_string())
    }
}

/// Placement of pods on nodes.
#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug, Default)]
pub struct Scheduler {
    engine: Mutex<Engine>,
}

/// A node, who objects to it, the reason, and whether removing pods would not help.
type Told = (String, String, String, bool);

/// Names of nodes, and per resource what they have and what is requested.
type Table<'py> = (Vec<String>, Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>);

fn objection((node, by, reason, is_unresolvable): Told) -> Objection {
    Objection {
        node,
        by,
        reason,
        is_unresolvable,
    }
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
    plugins: Vec<String>,
    nominated: String,
    victims: Vec<(String, String)>,
    displaced: Vec<String>,
    clears_nomination: bool,
}

impl From<engine::Decision> for Decision {
    fn from(decision: engine::Decision) -> Decision {
        let (node, refusal) = match decision.result {
            Ok(node) => (node, None),
            Err(refusal) => (String::new(), Some(refusal)),
        };
        let message = refusal
            .as_ref()
            .map(|one| one.diagnosis.message())
            .unwrap_or_default();
        let refusal = refusal.unwrap_or_default();
        let diagnosis = refusal.diagnosis;
        let own = diagnosis.plugins.iter().map(|one| one.name().to_string());
        let mut plugins: Vec<String> = own.chain(diagnosis.outsiders).collect();
        plugins.sort_unstable();
        Decision {
            key: decision.key,
            uid: decision.uid,
            node,
            message,
            nodes: diagnosis.nodes,
            reasons: diagnosis
                .reasons
                .into_iter()
                .map(|(reason, count)| (reason.into_owned(), count))
                .collect(),
            unresolvable: diagnosis.unresolvable,
            plugins,
            nominated: refusal.nominated,
            victims: refusal.victims,
            displaced: refusal.displaced,
            clears_nomination: refusal.clears_nomination,
        }
    }
}

/// What came of making room for a group of pods.
#[pyclass(frozen, get_all, module = "korch._core._native")]
#[derive(Debug, Default)]
pub struct Room {
    outcome: &'static str,
    placed: usize,
    remaining: usize,
    nominated: Vec<(String, String)>,
    victims: Vec<(String, String)>,
    displaced: Vec<(String, String)>,
}

impl From<groups::Room> for Room {
    fn from(room: groups::Room) -> Room {
        let named = |outcome| Room {
            outcome,
            ..Room::default()
        };
        match room {
            groups::Room::NotEligible => named("not eligible"),
            groups::Room::Awaited => named("awaited"),
            groups::Room::NoVictims => named("no victims"),
            groups::Room::TooLittle { placed, remaining } => Room {
                placed,
                remaining,
                ..named("too little")
            },
            groups::Room::Found(plan) => Room {
                nominated: plan.nominated,
                victims: plan.victims,
                displaced: plan.displaced,
                ..named("found")
            },
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
    #[pyo3(signature = (config = None))]
    fn new(config: Option<PyBackedBytes>) -> PyResult<Scheduler> {
        let engine = match config {
            None => Engine::default(),
            Some(bytes) => Engine::configured(&bytes)?,
        };
        Ok(Scheduler {
            engine: Mutex::new(engine),
        })
    }

    fn profiles(&self) -> Vec<String> {
        let engine = self.engine();
        engine
            .profile_names()
            .into_iter()
            .map(String::from)
            .collect()
    }

    #[pyo3(signature = (nodes, pods, others = Vec::new()))]
    fn upsert(
        &self,
        nodes: Vec<PyBackedBytes>,
        pods: Vec<PyBackedBytes>,
        others: Vec<PyBackedBytes>,
    ) -> PyResult<Vec<String>> {
        Ok(self.engine().upsert(&nodes, &pods, &others)?)
    }

    fn remove(&self, kind: &str, keys: Vec<String>) -> Vec<String> {
        self.engine().remove(kind, &keys)
    }

    fn wait(&self, pod: PyBackedBytes, plugins: Vec<String>) -> PyResult<()> {
        let pod = Pod::parse(&pod)?;
        self.engine().wait(&pod, &plugins);
        Ok(())
    }

    fn leave(&self, keys: Vec<String>) {
        self.engine().leave(&keys);
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

    fn schedule_member(&self, py: Python<'_>, pod: PyBackedBytes) -> PyResult<Decision> {
        let pod = Pod::parse(&pod)?;
        Ok(py.detach(|| self.engine().schedule_member(pod, 0)).into())
    }

    fn retract(&self, keys: Vec<String>) {
        self.engine().retract(&keys);
    }

    #[pyo3(signature = (pods, *, priority, min_count, placed, units))]
    fn room_for_group(
        &self,
        py: Python<'_>,
        pods: Vec<PyBackedBytes>,
        priority: i32,
        min_count: usize,
        placed: usize,
        units: Vec<Unit>,
    ) -> PyResult<Room> {
        let quorum = Quorum {
            priority,
            min_count,
            placed,
        };
        let room = py.detach(|| {
            let pods = pods
                .iter()
                .map(|bytes| Pod::parse(bytes))
                .collect::<Result<Vec<_>, _>>()?;
            Ok::<_, SchedulerError>(self.engine().room_for_group(&pods, quorum, &units))
        })?;
        Ok(room.into())
    }

    fn survey(&self, py: Python<'_>, pod: PyBackedBytes) -> PyResult<(bool, Vec<String>)> {
        let pod = Pod::parse(&pod)?;
        Ok(py.detach(|| self.engine().survey(&pod)))
    }

    fn feasible(&self, py: Python<'_>, pod: PyBackedBytes) -> PyResult<Vec<String>> {
        let pod = Pod::parse(&pod)?;
        Ok(py.detach(|| self.engine().feasible(&pod)))
    }

    #[pyo3(signature = (pod, nodes, extra, *, seed))]
    fn choose(
        &self,
        py: Python<'_>,
        pod: PyBackedBytes,
        nodes: Vec<String>,
        extra: Vec<i64>,
        seed: u64,
    ) -> PyResult<Option<Decision>> {
        if nodes.len() != extra.len() {
            return Err(PyValueError::new_err("nodes and extra differ in length"));
        }
        let pod = Pod::parse(&pod)?;
        let chosen = py.detach(|| self.engine().choose(pod, &nodes, &extra, seed));
        Ok(chosen.map(Decision::from))
    }

    fn victims(
        &self,
        py: Python<'_>,
        pod: PyBackedBytes,
        objections: Vec<Told>,
    ) -> PyResult<Vec<Victims>> {
        let pod = Pod::parse(&pod)?;
        let objections: Vec<Objection> = objections.into_iter().map(objection).collect();
        Ok(py.detach(|| self.engine().victims(&pod, &objections)))
    }

    fn curable(
        &self,
        py: Python<'_>,
        pod: PyBackedBytes,
        objections: Vec<Told>,
    ) -> PyResult<Vec<Curable>> {
        let pod = Pod::parse(&pod)?;
        let objections: Vec<Objection> = objections.into_iter().map(objection).collect();
        Ok(py.detach(|| self.engine().curable(&pod, &objections)))
    }

    fn fits_without(&self, pod: PyBackedBytes, node: &str, gone: Vec<String>) -> PyResult<bool> {
        let pod = Pod::parse(&pod)?;
        Ok(self.engine().fits_without(&pod, node, &gone))
    }

    fn amount_without(&self, node: &str, resource: &str, gone: Vec<String>) -> Option<(f64, f64)> {
        self.engine().amount_without(node, resource, &gone)
    }

    #[pyo3(signature = (pod, objections, *, everywhere = None, allowed = None, preempts = true))]
    fn refuse(
        &self,
        py: Python<'_>,
        pod: PyBackedBytes,
        objections: Vec<Told>,
        everywhere: Option<(String, String)>,
        allowed: Option<Vec<Victims>>,
        preempts: bool,
    ) -> PyResult<Decision> {
        let pod = Pod::parse(&pod)?;
        let objections: Vec<Objection> = objections.into_iter().map(objection).collect();
        let decision = py.detach(|| {
            self.engine()
                .refuse_outside(pod, &objections, everywhere, allowed, preempts)
        });
        Ok(decision.into())
    }

    fn pods_on(&self, node: &str) -> Vec<(String, String)> {
        self.engine().pods_on(node)
    }

    fn table<'py>(&self, py: Python<'py>, resources: Vec<String>) -> Table<'py> {
        let (names, columns) = self.engine().table(&resources);
        let bytes = |column: &[f64]| {
            let all: Vec<u8> = column.iter().flat_map(|one| one.to_ne_bytes()).collect();
            PyBytes::new(py, &all)
        };
        let columns = columns.iter().map(|(has, used)| (bytes(has), bytes(used)));
        (names, columns.collect())
    }

    fn add_templates(&self, pods: Vec<PyBackedBytes>) -> PyResult<usize> {
        let pods = pods
            .iter()
            .map(|bytes| Pod::parse(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.engine().add_templates(pods))
    }

    #[pyo3(signature = (templates, names, *, seed))]
    fn play(
        &self,
        py: Python<'_>,
        templates: Vec<i32>,
        names: Vec<PyBackedStr>,
        seed: u64,
    ) -> PyResult<Vec<String>> {
        if templates.len() != names.len() {
            return Err(PyValueError::new_err(
                "templates and names differ in length",
            ));
        }
        let events: Vec<(Option<usize>, &str)> = templates
            .iter()
            .zip(&names)
            .map(|(template, name)| (usize::try_from(*template).ok(), &**name))
            .collect();
        Ok(py.detach(|| self.engine().play(&events, seed)))
    }

    fn forget(&self, keys: Vec<String>) -> Vec<String> {
        self.engine().forget(&keys)
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
        let mut engine = self.engine();
        engine.snapshot.settle();
        BTreeMap::from([
            ("nodes", engine.snapshot.len()),
            ("pods", engine.snapshot.pod_count()),
        ])
    }
}
