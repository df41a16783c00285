//! Faces of `crate::api`: bytes and text in, bytes and text out; an error is a ValueError with upstream's words.

use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::api::check::{self, CheckError};
use crate::api::patch::{self, PatchError};
use crate::api::protobuf;
use crate::api::quantity::Quantity;
use crate::api::schema::{self, SchemaError};

create_exception!(_native, MalformedPatch, PyValueError);
create_exception!(_native, UnprocessablePatch, PyValueError);

fn parse_quantity(text: &str) -> PyResult<Quantity> {
    Quantity::parse(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pyfunction]
pub fn quantity_value(text: &str) -> PyResult<i128> {
    Ok(parse_quantity(text)?.value())
}

#[pyfunction]
pub fn quantity_milli(text: &str) -> PyResult<i128> {
    Ok(parse_quantity(text)?.milli())
}

#[pyfunction]
pub fn quantity_canonical(text: &str) -> PyResult<String> {
    Ok(parse_quantity(text)?.canonical())
}

#[pyfunction]
pub fn merge_patch<'py>(
    py: Python<'py>,
    target: &[u8],
    patch: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    patched(py, patch::merge_patch(target, patch))
}

#[pyfunction]
pub fn strategic_merge_patch<'py>(
    py: Python<'py>,
    target: &[u8],
    patch: &[u8],
    schema_name: &str,
    schema: &Schema,
) -> PyResult<Bound<'py, PyBytes>> {
    patched(
        py,
        patch::strategic_merge_patch(target, patch, &schema.table, schema_name),
    )
}

fn patched<'py>(
    py: Python<'py>,
    result: Result<Vec<u8>, PatchError>,
) -> PyResult<Bound<'py, PyBytes>> {
    match result {
        Ok(bytes) => Ok(PyBytes::new(py, &bytes)),
        Err(PatchError::Unprocessable(message)) => Err(UnprocessablePatch::new_err(message)),
        Err(PatchError::Schema(error)) => Err(schema_error(&error)),
        Err(error) => Err(MalformedPatch::new_err(error.to_string())),
    }
}

#[pyfunction]
pub fn protobuf_to_json<'py>(
    py: Python<'py>,
    body: &[u8],
) -> PyResult<(String, String, Bound<'py, PyBytes>)> {
    let decoded =
        protobuf::to_json(body).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((
        decoded.api_version,
        decoded.kind,
        PyBytes::new(py, &decoded.json),
    ))
}

pub(super) fn schema_error(error: &SchemaError) -> PyErr {
    match error {
        SchemaError::Unknown(_) => PyKeyError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

pub type Findings<'py> = (
    Bound<'py, PyBytes>,
    Vec<String>,
    Vec<String>,
    Vec<(String, String)>,
);

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct Schema {
    pub(super) table: Arc<schema::Schema>,
}

impl Schema {
    pub fn table(&self) -> &schema::Schema {
        &self.table
    }
}

#[pymethods]
impl Schema {
    #[new]
    fn new(definitions_json: &[u8]) -> PyResult<Self> {
        let table =
            schema::Schema::compile(definitions_json).map_err(|error| schema_error(&error))?;
        Ok(Self {
            table: Arc::new(table),
        })
    }

    fn check<'py>(
        &self,
        py: Python<'py>,
        definition: &str,
        body: &[u8],
    ) -> PyResult<Findings<'py>> {
        match check::check(&self.table, definition, body) {
            Ok(found) => Ok((
                PyBytes::new(py, &found.body),
                found.unknown,
                found.duplicate,
                found.type_errors,
            )),
            Err(CheckError::Schema(error)) => Err(schema_error(&error)),
            Err(CheckError::Json(error)) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    fn has(&self, definition: &str) -> bool {
        self.table.definition(definition).is_ok()
    }

    fn __len__(&self) -> usize {
        self.table.len()
    }
}
