//! Label and field selectors over `Attributes`: all requirements must hold. Mirrors apimachinery's labels and fields packages.

use super::attributes::{Attributes, Kind, Pair};
use super::error::{Result, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    NotExists,
}

/// One requirement; `=` and `!=` are kept as `in` and `notin` with one value.
#[derive(Debug, Clone)]
pub struct Requirement {
    kind: Kind,
    key: Box<[u8]>,
    operator: Operator,
    values: Vec<Box<[u8]>>,
}

impl Requirement {
    /// `target` is "label" or "field"; `operator` one of "=", "!=", "in", "notin", "exists", "!exists".
    pub fn new(
        target: &str,
        key: &str,
        operator: &str,
        values: &[impl AsRef<str>],
    ) -> Result<Self> {
        let kind = match target {
            "label" => Kind::Label,
            "field" => Kind::Field,
            _ => {
                return Err(StoreError::Invalid(format!(
                    "unknown selector target {target:?}"
                )));
            }
        };
        let (operator, expected) = match operator {
            "=" | "==" => (Operator::In, Some(1)),
            "!=" => (Operator::NotIn, Some(1)),
            "in" => (Operator::In, None),
            "notin" => (Operator::NotIn, None),
            "exists" => (Operator::Exists, Some(0)),
            "!exists" => (Operator::NotExists, Some(0)),
            _ => {
                return Err(StoreError::Invalid(format!(
                    "unknown selector operator {operator:?}"
                )));
            }
        };
        if expected.is_some_and(|count| count != values.len()) {
            return Err(StoreError::Invalid(format!(
                "wrong number of values for the selector on {key:?}"
            )));
        }
        let values = values
            .iter()
            .map(|value| value.as_ref().as_bytes().into())
            .collect();
        Ok(Requirement {
            kind,
            key: key.as_bytes().into(),
            operator,
            values,
        })
    }

    fn matches(&self, attributes: &Attributes) -> bool {
        let found = attributes.get(self.kind, &self.key);
        match self.operator {
            Operator::Exists => found.is_some(),
            Operator::NotExists => found.is_none(),
            Operator::In => self.value_of(found).is_some_and(|value| self.has(value)),
            Operator::NotIn => self.value_of(found).is_none_or(|value| !self.has(value)),
        }
    }

    /// A missing field reads as the empty string, a missing label as nothing.
    fn value_of<'a>(&self, found: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match self.kind {
            Kind::Field => Some(found.unwrap_or_default()),
            _ => found,
        }
    }

    fn has(&self, value: &[u8]) -> bool {
        self.values.iter().any(|wanted| **wanted == *value)
    }
}

/// Kind, key and accepted values of the requirement by which a watcher is found.
pub(crate) type Anchor<'a> = (Kind, &'a [u8], &'a [Box<[u8]>]);

/// Requirements of one label and field selector together.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Selector { requirements }
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(attributes))
    }

    /// The requirement by which watchers are found: a field before a label, because fields such as spec.nodeName tell more
    /// objects apart. Returns its kind, its key and the values it accepts.
    pub(crate) fn anchor(&self) -> Option<Anchor<'_>> {
        let found = self
            .equalities(Kind::Field)
            .next()
            .or_else(|| self.equalities(Kind::Label).next())?;
        Some((found.kind, &found.key, &found.values))
    }

    /// Pairs that every match has for certain, so that any of them may be looked up in the index. Fields that must be empty are
    /// left out: an object may satisfy them by not having the field.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.requirements
            .iter()
            .filter(|found| found.operator == Operator::In)
            .filter_map(|found| match found.values.as_slice() {
                [value] if found.kind != Kind::Field || !value.is_empty() => Some(Pair {
                    kind: found.kind,
                    key: &found.key,
                    value,
                }),
                _ => None,
            })
    }

    fn equalities(&self, kind: Kind) -> impl Iterator<Item = &Requirement> {
        self.requirements
            .iter()
            .filter(move |found| found.kind == kind && found.operator == Operator::In)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::AttributesBuilder;
    use super::*;

    #[test]
    fn operators_follow_apimachinery() {
        let mut builder = AttributesBuilder::default();
        builder.push(Kind::Label, b"app", b"web");
        builder.push(Kind::Field, b"spec.nodeName", b"n1");
        let attributes = builder.build();
        let table: [(&str, &str, &str, &[&str], bool); 14] = [
            ("label", "app", "=", &["web"], true),
            ("label", "app", "=", &["db"], false),
            ("label", "tier", "=", &[""], false),
            ("label", "tier", "!=", &["x"], true),
            ("label", "app", "!=", &["web"], false),
            ("label", "app", "in", &["db", "web"], true),
            ("label", "tier", "notin", &["a"], true),
            ("label", "app", "exists", &[], true),
            ("label", "tier", "exists", &[], false),
            ("label", "tier", "!exists", &[], true),
            ("field", "spec.nodeName", "=", &["n1"], true),
            ("field", "status.phase", "=", &[""], true),
            ("field", "status.phase", "!=", &[""], false),
            ("field", "status.phase", "!=", &["Running"], true),
        ];
        for (target, key, operator, values, expected) in table {
            let requirement = Requirement::new(target, key, operator, values).unwrap();
            assert_eq!(
                requirement.matches(&attributes),
                expected,
                "{target} {key} {operator} {values:?}"
            );
        }
    }

    #[test]
    fn fields_anchor_before_labels() {
        let label = Requirement::new("label", "app", "=", &["web"]).unwrap();
        let field = Requirement::new("field", "spec.nodeName", "=", &["n1"]).unwrap();
        let selector = Selector::new(vec![label, field]);
        assert_eq!(
            selector.anchor().map(|found| found.1),
            Some(&b"spec.nodeName"[..])
        );
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(Requirement::new("label", "a", "~", &["b"]).is_err());
        assert!(Requirement::new("taint", "a", "=", &["b"]).is_err());
        assert!(Requirement::new("label", "a", "=", &[] as &[&str]).is_err());
    }
}
