//! Node selector terms. Mirrors component-helpers' scheduling/corev1/nodeaffinity.

use std::collections::{BTreeMap, BTreeSet};

use super::wire;

/// One term: its requirements are ANDed. A term without requirements matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Term {
    expressions: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    Unknown,
}

impl From<&wire::NodeSelectorTerm> for Term {
    fn from(term: &wire::NodeSelectorTerm) -> Self {
        let read = |all: &[wire::NodeRequirement]| all.iter().map(Requirement::from).collect();
        Term {
            expressions: read(&term.match_expressions),
            fields: read(&term.match_fields),
        }
    }
}

impl From<&wire::NodeRequirement> for Requirement {
    fn from(requirement: &wire::NodeRequirement) -> Self {
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Unknown,
        };
        Requirement {
            key: requirement.key.clone(),
            operator,
            values: requirement.values.clone(),
        }
    }
}

impl Term {
    /// Return whether a node of this name and these labels matches.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        if self.is_empty() {
            return false;
        }
        // A field is compared with exactly one value; upstream cannot parse a term with more and lets it match nothing.
        let of_field = |requirement: &Requirement| {
            requirement.values.len() == 1
                && requirement.matches((requirement.key == "metadata.name").then_some(name))
        };
        let of_label = |requirement: &Requirement| {
            requirement.matches(labels.get(&requirement.key).map(String::as_str))
        };
        self.expressions.iter().all(of_label) && self.fields.iter().all(of_field)
    }

    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty() && self.fields.is_empty()
    }

    /// Return the node names that `metadata.name In` requirements leave, or None when there is no such requirement.
    pub fn names(&self) -> Option<BTreeSet<String>> {
        let mut names: Option<BTreeSet<String>> = None;
        for requirement in &self.fields {
            if requirement.key == "metadata.name" && requirement.operator == Operator::In {
                let these: BTreeSet<String> = requirement.values.iter().cloned().collect();
                names = Some(match names {
                    None => these,
                    Some(before) => before.intersection(&these).cloned().collect(),
                });
            }
        }
        names
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.iter().any(|one| one == value)),
            Operator::NotIn => value.is_none_or(|value| self.values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value, |value, bound| value > bound),
            Operator::Lt => self.compare(value, |value, bound| value < bound),
            Operator::Unknown => false,
        }
    }

    fn compare(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|one| one.parse().ok());
        match (value.and_then(|value| value.parse().ok()), bound) {
            (Some(value), Some(bound)) => holds(value, bound),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(key: &str, operator: &str, values: &[&str]) -> Term {
        Term::from(&wire::NodeSelectorTerm {
            match_expressions: vec![wire::NodeRequirement {
                key: key.into(),
                operator: operator.into(),
                values: values.iter().map(|one| (*one).to_string()).collect(),
            }],
            match_fields: vec![],
        })
    }

    #[test]
    fn each_operator_reads_present_and_missing_labels_as_upstream() {
        let labels = BTreeMap::from([
            ("zone".to_string(), "a".to_string()),
            ("gen".to_string(), "7".to_string()),
        ]);
        let table: [(&str, &str, &[&str], bool); 13] = [
            ("zone", "In", &["a", "b"], true),
            ("zone", "In", &["b"], false),
            ("none", "In", &["a"], false),
            ("zone", "NotIn", &["a"], false),
            ("none", "NotIn", &["a"], true),
            ("zone", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("zone", "DoesNotExist", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("gen", "Gt", &["6"], true),
            ("gen", "Lt", &["7"], false),
            ("zone", "Gt", &["1"], false),
            ("zone", "Maybe", &["a"], false),
        ];
        for (key, operator, values, expected) in table {
            assert_eq!(
                term(key, operator, values).matches("n", &labels),
                expected,
                "{key} {operator} {values:?}"
            );
        }
    }

    #[test]
    fn a_term_without_requirements_matches_nothing() {
        assert!(!Term::default().matches("n", &BTreeMap::new()));
    }
}
