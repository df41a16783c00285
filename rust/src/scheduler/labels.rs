//! Label selectors. Mirrors apimachinery's labels.Selector and metav1.LabelSelectorAsSelector.

use std::collections::BTreeMap;

use super::wire;

pub type Labels = BTreeMap<String, String>;

/// A selector in the form that matching wants; its requirements are ANDed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// What an absent selector means: nothing matches, and nothing can be added.
    Nothing,
    /// No requirement at all matches everything.
    All(Vec<Requirement>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
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
}

impl Selector {
    /// Read an API selector; an operator that there is none of makes it match nothing.
    pub fn read(selector: Option<&wire::LabelSelector>) -> Selector {
        let Some(selector) = selector else {
            return Selector::Nothing;
        };
        let mut requirements = equalities(&selector.match_labels);
        for one in &selector.match_expressions {
            let operator = match one.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Selector::Nothing,
            };
            requirements.push(Requirement {
                key: one.key.clone(),
                operator,
                values: one.values.clone(),
            });
        }
        Selector::All(requirements)
    }

    /// Return a selector that asks for exactly these labels.
    pub fn of_labels(labels: &Labels) -> Selector {
        Selector::All(equalities(labels))
    }

    /// Ask for these labels too, unless nothing matches anyhow.
    pub fn require(&mut self, labels: &Labels) {
        if let Selector::All(requirements) = self {
            requirements.extend(equalities(labels));
        }
    }

    /// Ask for what the other selector asks for too; one that matches nothing adds nothing, as upstream has it.
    pub fn merge(&mut self, other: &Selector) {
        if let (Selector::All(mine), Selector::All(more)) = (self, other) {
            mine.extend(more.iter().cloned());
        }
    }

    /// Return the label keys that it names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let requirements = match self {
            Selector::Nothing => &[],
            Selector::All(requirements) => requirements.as_slice(),
        };
        requirements.iter().map(|one| one.key.as_str())
    }

    /// Return whether there is no requirement, so that everything matches.
    pub fn is_empty(&self) -> bool {
        matches!(self, Selector::All(requirements) if requirements.is_empty())
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Selector::Nothing => false,
            Selector::All(requirements) => requirements.iter().all(|one| one.matches(labels)),
        }
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

fn equalities(labels: &Labels) -> Vec<Requirement> {
    labels
        .iter()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selector(value: Value) -> Selector {
        let read: Option<wire::LabelSelector> = serde_json::from_value(value).unwrap();
        Selector::read(read.as_ref())
    }

    #[test]
    fn selectors_match_as_upstream() {
        let labels = Labels::from([("app".into(), "web".into())]);
        let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let table = [
            (Value::Null, false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (expression("app", "In", json!(["db", "web"])), true),
            (expression("app", "NotIn", json!(["web"])), false),
            (expression("tier", "NotIn", json!(["web"])), true),
            (expression("app", "Exists", json!([])), true),
            (expression("tier", "DoesNotExist", json!([])), true),
            (expression("app", "DoesNotExist", json!([])), false),
            (expression("app", "Maybe", json!([])), false),
        ];
        for (value, expected) in table {
            assert_eq!(
                selector(value.clone()).matches(&labels),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn only_a_selector_without_requirements_is_empty() {
        assert!(selector(json!({})).is_empty());
        assert!(!selector(Value::Null).is_empty());
        let mut nothing = Selector::Nothing;
        nothing.require(&Labels::from([("a".into(), "b".into())]));
        assert_eq!(nothing, Selector::Nothing);
    }
}
