//! Face of `crate::api::managed`: one `FieldManager` for each endpoint that writes objects of a kind.

use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::api::{Schema, schema_error};
use crate::api::managed::{self, AppliedBefore, ApplyError, Remembered, Type, Write};
use crate::api::parts;
use crate::api::schema;

type PyParts<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Vec<(String, Bound<'py, PyBytes>)>,
);

create_exception!(_native, ApplyConflict, PyException);
create_exception!(_native, UnfitConfiguration, PyValueError);

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct FieldManager {
    table: Arc<schema::Schema>,
    of: Type,
    api_version: String,
    subresource: String,
    reset: Vec<String>,
    only: Vec<String>,
    /// None where a create does not keep its whole spec.
    remembered: Option<Remembered>,
    applied_before: AppliedBefore,
}

impl FieldManager {
    fn with<T>(&self, manager: &str, now: &str, act: impl FnOnce(&Write<'_>) -> T) -> T {
        let reset: Vec<&str> = self.reset.iter().map(String::as_str).collect();
        let only: Vec<&str> = self.only.iter().map(String::as_str).collect();
        act(&Write {
            schema: &self.table,
            of: self.of,
            manager,
            subresource: &self.subresource,
            api_version: &self.api_version,
            now,
            reset: &reset,
            only: &only,
        })
    }
}

#[pymethods]
impl FieldManager {
    #[new]
    #[pyo3(signature = (schema, definition, *, api_version, subresource = String::new(), reset = Vec::new(), only = Vec::new()))]
    fn new(
        schema: &Schema,
        definition: &str,
        api_version: String,
        subresource: String,
        reset: Vec<String>,
        only: Vec<String>,
    ) -> PyResult<Self> {
        let of = if definition.is_empty() {
            Type::Deduced
        } else {
            let found = schema.table.definition(definition);
            Type::Node(found.map_err(|error| schema_error(&error))?)
        };
        let keeps_spec = only.is_empty() && !reset.iter().any(|path| path.starts_with("spec"));
        Ok(Self {
            applied_before: AppliedBefore::default(),
            remembered: keeps_spec.then(Remembered::default),
            table: Arc::clone(&schema.table),
            of,
            api_version,
            subresource,
            reset,
            only,
        })
    }

    fn track<'py>(
        &self,
        py: Python<'py>,
        live: Option<&[u8]>,
        new: &[u8],
        manager: &str,
        now: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let live = live.map(text).transpose()?;
        let new = text(new)?;
        let found = self.with(manager, now, |write| match (&self.remembered, live) {
            (Some(remembered), None) => managed::track_created(write, new, remembered),
            _ => managed::track(write, live, new),
        });
        Ok(PyBytes::new(py, &found.map_err(PyValueError::new_err)?))
    }

    fn apply<'py>(
        &self,
        py: Python<'py>,
        live: Option<&[u8]>,
        config: &[u8],
        manager: &str,
        now: &str,
        force: bool,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let live = live.map(text).transpose()?;
        let config = text(config)?;
        match self.with(manager, now, |write| {
            if self.remembered.is_some() {
                managed::apply_again(write, live, config, force, &self.applied_before)
            } else {
                managed::apply(write, live, config, force)
            }
        }) {
            Ok(applied) => Ok((
                PyBytes::new(py, &applied.object),
                PyBytes::new(py, &applied.managed_fields),
            )),
            Err(ApplyError::Config(message)) => Err(UnfitConfiguration::new_err(message)),
            Err(ApplyError::Live(message)) => Err(PyValueError::new_err(message)),
            Err(ApplyError::Conflicts(conflicts)) => {
                let told: Vec<_> = conflicts
                    .into_iter()
                    .map(|conflict| (conflict.manager, conflict.path))
                    .collect();
                Err(ApplyConflict::new_err((told,)))
            }
        }
    }

    fn overlay<'py>(
        &self,
        py: Python<'py>,
        live: &[u8],
        config: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let found = managed::overlay(&self.table, self.of, text(live)?, text(config)?);
        Ok(PyBytes::new(py, &found.map_err(PyValueError::new_err)?))
    }
}

#[pyfunction]
pub fn scale_managers<'py>(
    py: Python<'py>,
    managed_fields: &[u8],
    replicas: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let found = managed::scale_to_subresource(text(managed_fields)?, replicas);
    Ok(PyBytes::new(py, &found.map_err(PyValueError::new_err)?))
}

#[pyfunction]
pub fn scaled_managers<'py>(
    py: Python<'py>,
    managed_fields: &[u8],
    scale: &[u8],
    replicas: &str,
    api_version: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let found =
        managed::scale_to_parent(text(managed_fields)?, text(scale)?, replicas, api_version);
    Ok(PyBytes::new(py, &found.map_err(PyValueError::new_err)?))
}

/// The object without its managers, and these (empty: none).
#[pyfunction]
pub fn peel_managers<'py>(
    py: Python<'py>,
    object: Bound<'py, PyBytes>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let found = managed::peel(text(object.as_bytes())?)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(match found {
        Some((rest, managers)) => (
            PyBytes::new(py, &rest),
            PyBytes::new(py, managers.as_bytes()),
        ),
        None => (object.clone(), PyBytes::new(py, b"")),
    })
}

/// An object's head, its managers (empty: none) and its other members; None for what does not come apart.
#[pyfunction]
pub fn part_object<'py>(py: Python<'py>, object: &[u8]) -> Option<PyParts<'py>> {
    let parts = parts::part(std::str::from_utf8(object).ok()?).ok()??;
    let members = parts.members.into_iter();
    let members = members.map(|(name, raw)| (name.into_owned(), PyBytes::new(py, raw.as_bytes())));
    let managers = PyBytes::new(py, parts.managers.as_bytes());
    Some((PyBytes::new(py, &parts.head), managers, members.collect()))
}

fn text(bytes: &[u8]) -> PyResult<&str> {
    std::str::from_utf8(bytes).map_err(|error| PyValueError::new_err(error.to_string()))
}
