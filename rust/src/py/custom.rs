//! Faces of `crate::api::structural` and `crate::api::cel`: schemas of custom kinds and CEL expressions, JSON in and out.

use kube_cel::cel::objects::Value as Cel;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::Value;

use super::api::{Findings, Schema};
use crate::api::cel::{Expression, Kind, Scope, devices, values};
use crate::api::structural::{Failure, Structural, check_rules};

type Cause = (&'static str, String, String);

fn wrong(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn json(bytes: &[u8]) -> PyResult<Value> {
    serde_json::from_slice(bytes).map_err(wrong)
}

fn cause(failure: Failure) -> Cause {
    (failure.reason, failure.message, failure.field)
}

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct StructuralSchema {
    inner: Structural,
}

#[pymethods]
impl StructuralSchema {
    #[new]
    fn new(schema_json: &[u8]) -> PyResult<Self> {
        let inner = Structural::compile(schema_json).map_err(wrong)?;
        Ok(Self { inner })
    }

    fn check<'py>(
        &self,
        py: Python<'py>,
        builtin: &Schema,
        body: &[u8],
    ) -> PyResult<Findings<'py>> {
        let found = self.inner.decode(builtin.table(), body).map_err(wrong)?;
        let object = serde_json::to_vec(&found.object).map_err(wrong)?;
        Ok((
            PyBytes::new(py, &object),
            found.unknown,
            found.duplicate,
            found.type_errors,
        ))
    }

    fn default<'py>(&self, py: Python<'py>, object: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let mut value = json(object)?;
        self.inner.prune(&mut value);
        self.inner.default(&mut value);
        Ok(PyBytes::new(
            py,
            &serde_json::to_vec(&value).map_err(wrong)?,
        ))
    }

    #[pyo3(signature = (object, old=None))]
    fn validate(&self, object: &[u8], old: Option<&[u8]>) -> PyResult<(Vec<Cause>, Vec<String>)> {
        let value = json(object)?;
        let old = old.map(json).transpose()?;
        let verdict = self.inner.validate(&value, old.as_ref());
        Ok((
            verdict.failures.into_iter().map(cause).collect(),
            verdict.warnings,
        ))
    }

    fn check_rules(&self) -> Vec<(String, usize, &'static str, &'static str, String)> {
        check_rules(self.inner.root())
            .into_iter()
            .map(|one| (one.path, one.index, one.part, one.reason, one.message))
            .collect()
    }
}

/// A JSON value made ready for expressions; sharing it costs nothing.
#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct CelValue {
    inner: Cel,
}

#[pymethods]
impl CelValue {
    #[new]
    fn new(json_bytes: &[u8]) -> PyResult<Self> {
        let inner = values::from_json(&json(json_bytes)?);
        Ok(Self { inner })
    }

    #[staticmethod]
    fn device(json_bytes: &[u8]) -> PyResult<Self> {
        let inner = devices::device(&json(json_bytes)?).map_err(wrong)?;
        Ok(Self { inner })
    }
}

#[pyclass(frozen, module = "korch._core._native")]
#[derive(Debug)]
pub struct CelExpression {
    inner: Expression,
}

#[pymethods]
impl CelExpression {
    #[new]
    #[pyo3(signature = (source, variables, result=""))]
    fn new(source: &str, variables: Vec<String>, result: &str) -> PyResult<Self> {
        let scope = Scope {
            variables: variables
                .iter()
                .map(|name| (name.as_str(), Kind::Dynamic))
                .collect(),
        };
        let wanted: &[Kind<'_>] = match result {
            "bool" => &[Kind::Bool],
            "string" => &[Kind::Text],
            "string or null" => &[Kind::Text, Kind::Null],
            _ => &[],
        };
        let inner = Expression::compile(source, &scope, wanted).map_err(wrong)?;
        Ok(Self { inner })
    }

    fn mentions(&self, name: &str) -> bool {
        self.inner.mentions(name)
    }

    fn fields_of(&self, owner: &str) -> Vec<String> {
        self.inner.fields_of(owner).map(str::to_owned).collect()
    }

    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        variables: Vec<(String, PyRef<'_, CelValue>)>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let given = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.inner.clone()));
        let found = self.inner.evaluate(given).map_err(wrong)?;
        let shown = values::to_json(&found).ok_or_else(|| wrong("the result has no JSON form"))?;
        Ok(PyBytes::new(
            py,
            &serde_json::to_vec(&shown).map_err(wrong)?,
        ))
    }
}
