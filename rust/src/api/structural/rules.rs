//! `x-kubernetes-validations`: CEL rules on the values they stand at.
//!
//! A rule is compiled when an object first meets it; `check_rules` compiles all of them when the schema is written and says what is
//! wrong. Transition rules (those that name `oldSelf`) run only where there is an old value, unless `optionalOldSelf` is set.
//! Mirrors apiextensions' schema/cel/validation.go and apis/apiextensions/validation.

use std::collections::HashSet;
use std::sync::OnceLock;

use kube_cel::cel::objects::Value as Cel;
use serde_json::{Map, Value};

use super::Verdict;
use super::schema::{Additional, Node, Type};
use super::validate::{DUPLICATE, INVALID, REQUIRED, child_path, correlated, render};
use crate::api::cel::{Expression, Kind, Scope, optional, values};

const FORBIDDEN: &str = "FieldValueForbidden";
const MESSAGE_LENGTH_MAX: usize = 5 * 1024;
/// Upstream's bounds of estimated cost: of one rule, and of all rules of a schema.
const RULE_COST_MAX: f64 = 10_000_000.0;
const SCHEMA_COST_MAX: f64 = 100_000_000.0;
const UNBOUNDED: f64 = 1_048_576.0;

#[derive(Debug)]
pub struct Rules(Box<[Rule]>);

#[derive(Debug)]
struct Rule {
    rule: Box<str>,
    message: Box<str>,
    message_expression: Box<str>,
    reason: Box<str>,
    field_path: Box<str>,
    optional_old_self: bool,
    compiled: OnceLock<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    rule: Result<Expression, String>,
    message: Option<Expression>,
}

impl Rules {
    pub fn compile(keywords: &Map<String, Value>) -> Option<Self> {
        let listed = keywords.get("x-kubernetes-validations")?.as_array()?;
        if listed.is_empty() {
            return None;
        }
        let text = |one: &Value, name: &str| -> Box<str> {
            one.get(name).and_then(Value::as_str).unwrap_or("").into()
        };
        let rules = listed.iter().map(|one| Rule {
            rule: text(one, "rule"),
            message: text(one, "message"),
            message_expression: text(one, "messageExpression"),
            reason: text(one, "reason"),
            field_path: text(one, "fieldPath"),
            optional_old_self: one
                .get("optionalOldSelf")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            compiled: OnceLock::new(),
        });
        Some(Self(rules.collect()))
    }
}

impl Rules {
    /// The fields (as expressions write them) that the rules read of their value; None when they need all of it.
    fn needed(&self, node: &Node, is_root: bool) -> Option<HashSet<&str>> {
        let mut needed = HashSet::new();
        for rule in &self.0 {
            let compiled = rule.compiled(node, is_root);
            for one in compiled.rule.iter().chain(&compiled.message) {
                if one.needs_whole("self") || one.needs_whole("oldSelf") {
                    return None;
                }
                needed.extend(one.fields_of("self"));
                needed.extend(one.fields_of("oldSelf"));
            }
        }
        Some(needed)
    }
}

impl Rule {
    /// How the rule is named in messages.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            self.rule.trim()
        } else {
            self.message.trim()
        }
    }

    fn default_message(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.rule.trim())
        } else {
            self.message.trim().to_owned()
        }
    }

    fn compiled(&self, node: &Node, is_root: bool) -> &Compiled {
        self.compiled.get_or_init(|| Compiled {
            rule: compile(
                &self.rule,
                node,
                is_root,
                self.optional_old_self,
                &Kind::Bool,
            ),
            message: (!self.message_expression.is_empty())
                .then(|| {
                    compile(
                        &self.message_expression,
                        node,
                        is_root,
                        self.optional_old_self,
                        &Kind::Text,
                    )
                    .ok()
                })
                .flatten(),
        })
    }
}

fn compile(
    source: &str,
    node: &Node,
    is_root: bool,
    has_optional_old: bool,
    wanted: &Kind<'_>,
) -> Result<Expression, String> {
    let own = Kind::of(node, is_root);
    let old = if has_optional_old {
        Kind::Dynamic
    } else {
        own.clone()
    };
    let scope = Scope {
        variables: vec![("self", own), ("oldSelf", old)],
    };
    Expression::compile(source, &scope, std::slice::from_ref(wanted))
}

/// Evaluate all rules of `root` on `object`.
pub fn evaluate(root: &Node, object: &Value, old: Option<&Value>, verdict: &mut Verdict) {
    Evaluator { verdict }.node(root, object, old, "", true, false);
}

struct Evaluator<'a> {
    verdict: &'a mut Verdict,
}

impl Evaluator<'_> {
    /// `is_unchanged`: a value around this one, that has a past, is what it was.
    fn node(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        is_root: bool,
        is_unchanged: bool,
    ) {
        if !node.has_rules() || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let is_unchanged = match old {
            Some(old) => old == value,
            None => is_unchanged,
        };
        if let Some(rules) = &node.rules {
            self.rules(rules, node, value, old, path, is_root, is_unchanged);
        }
        if let Some(checks) = &node.checks {
            for inner in &checks.all_of {
                self.node(inner, value, old, path, is_root, false);
            }
        }
        match value {
            Value::Array(items) => {
                if let Some(inner) = node.items.as_deref() {
                    for (index, item) in items.iter().enumerate() {
                        let before = correlated(node, item, old);
                        self.node(
                            inner,
                            item,
                            before,
                            &format!("{path}[{index}]"),
                            false,
                            is_unchanged,
                        );
                    }
                }
            }
            Value::Object(fields) => {
                for (name, child) in fields {
                    let before = old.and_then(|old| old.get(name));
                    if let Some(inner) = node.properties.get(name.as_str()) {
                        self.node(
                            inner,
                            child,
                            before,
                            &child_path(path, name),
                            false,
                            is_unchanged,
                        );
                    } else if let Additional::Node(inner) = &node.additional {
                        self.node(
                            inner,
                            child,
                            before,
                            &format!("{path}[{name}]"),
                            false,
                            is_unchanged,
                        );
                    }
                }
            }
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rules(
        &mut self,
        rules: &Rules,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        is_root: bool,
        is_unchanged: bool,
    ) {
        let needed = rules.needed(node, is_root);
        let own = values::from_node_part(node, value, is_root, needed.as_ref());
        let before = old.map(|old| values::from_node_part(node, old, is_root, needed.as_ref()));
        for rule in &rules.0 {
            let compiled = rule.compiled(node, is_root);
            let expression = match &compiled.rule {
                Ok(expression) => expression,
                Err(why) => {
                    self.fail(
                        INVALID,
                        path,
                        invalid(
                            node,
                            &format!("rule compile error: compilation failed: {why}"),
                        ),
                    );
                    continue;
                }
            };
            let is_transition = expression.mentions("oldSelf");
            if is_transition && before.is_none() && !rule.optional_old_self {
                continue;
            }
            let old_self = if rule.optional_old_self {
                Some(optional(before.clone()))
            } else {
                before.clone()
            };
            let variables = || {
                let mut variables = vec![("self", own.clone())];
                variables.extend(old_self.clone().map(|old| ("oldSelf", old)));
                variables
            };
            match expression.evaluate(variables()) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let told = compiled
                        .message
                        .as_ref()
                        .and_then(|message| evaluated_message(message, variables()));
                    let detail = told.unwrap_or_else(|| rule.default_message());
                    let (reason, message) = failure(rule, node, value, &detail);
                    let at = if rule.field_path.is_empty() {
                        path.to_owned()
                    } else {
                        format!("{path}{}", normal_path(&rule.field_path))
                    };
                    let at = at.trim_start_matches('.').to_owned();
                    if is_unchanged && !is_transition {
                        self.verdict.warnings.push(format!("{at}: {message}"));
                    } else {
                        self.fail(reason, &at, message);
                    }
                }
                Err(why) => self.fail(INVALID, path, invalid(node, &runtime_problem(&why, rule))),
            }
        }
    }

    fn fail(&mut self, reason: &'static str, field: &str, message: String) {
        let field = if field.is_empty() { "<nil>" } else { field }.to_owned();
        self.verdict.failures.push(super::Failure {
            reason,
            field,
            message,
        });
    }
}

fn runtime_problem(why: &str, rule: &Rule) -> String {
    let shown = rule.shown();
    if why.starts_with("no such overload") {
        format!(
            "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
        )
    } else if why.starts_with("operation cancelled") {
        format!(
            "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
        )
    } else {
        format!("{why} evaluating rule: {shown}")
    }
}

fn invalid(node: &Node, detail: &str) -> String {
    format!("Invalid value: {:?}: {detail}", node.kind.word())
}

fn evaluated_message(expression: &Expression, variables: Vec<(&str, Cel)>) -> Option<String> {
    let Ok(Cel::String(text)) = expression.evaluate(variables) else {
        return None;
    };
    let text = text.trim();
    (!text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_LENGTH_MAX)
        .then(|| text.to_owned())
}

/// The cause of a rule that does not hold. Objects and arrays are not shown.
fn failure(rule: &Rule, node: &Node, value: &Value, detail: &str) -> (&'static str, String) {
    let shown = match node.kind {
        Type::Object | Type::Array => None,
        _ => Some(render(value)),
    };
    match &*rule.reason {
        "FieldValueForbidden" => (FORBIDDEN, format!("Forbidden: {detail}")),
        "FieldValueRequired" => (REQUIRED, format!("Required value: {detail}")),
        "FieldValueDuplicate" => (
            DUPLICATE,
            match shown {
                Some(shown) => format!("Duplicate value: {shown}"),
                None => "Duplicate value".to_owned(),
            },
        ),
        _ => (
            INVALID,
            match shown {
                Some(shown) => format!("Invalid value: {shown}: {detail}"),
                None => format!("Invalid value: {detail}"),
            },
        ),
    }
}

/// `.a['b']` as a field path: `.a.b`.
fn normal_path(path: &str) -> String {
    path.replace("['", ".").replace("']", "")
}

/// What is wrong with one rule of a schema. `path` is that of the schema below openAPIV3Schema, `index` the rule's.
#[derive(Debug)]
pub struct RuleProblem {
    pub path: String,
    pub index: usize,
    /// Which part is wrong: rule, message, messageExpression, reason or fieldPath.
    pub part: &'static str,
    pub reason: &'static str,
    pub message: String,
}

/// Return what is wrong with the rules of a schema, as its writer is told.
pub fn check_rules(root: &Node) -> Vec<RuleProblem> {
    let mut check = RuleCheck {
        problems: Vec::new(),
        total: 0.0,
    };
    check.node(root, "", true, 1.0, false);
    if check.total > SCHEMA_COST_MAX {
        let factor = excess(check.total, SCHEMA_COST_MAX);
        check.problems.push(RuleProblem {
            path: String::new(),
            index: 0,
            part: "",
            reason: FORBIDDEN,
            message: format!(
                "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of \
                 {factor} (try simplifying the rule(s), or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                 strings are declared)"
            ),
        });
    }
    check.problems
}

/// By how much a cost is beyond its bound, as messages say it.
fn excess(cost: f64, bound: f64) -> String {
    let factor = cost / bound;
    if factor > 100.0 {
        "more than 100x".to_owned()
    } else {
        format!("{factor:.1}x")
    }
}

struct RuleCheck {
    problems: Vec<RuleProblem>,
    total: f64,
}

impl RuleCheck {
    fn node(&mut self, node: &Node, path: &str, is_root: bool, times: f64, is_uncorrelated: bool) {
        if !node.has_rules() {
            return;
        }
        if let Some(rules) = &node.rules {
            for (index, rule) in rules.0.iter().enumerate() {
                self.rule(rule, index, node, path, is_root, times, is_uncorrelated);
            }
        }
        let checks = node.checks.as_deref();
        let bounded = |limit: Option<u64>| times * limit.map_or(UNBOUNDED, |limit| limit as f64);
        for (name, child) in &node.properties {
            self.node(
                child,
                &format!("{path}.properties[{name}]"),
                false,
                times,
                is_uncorrelated,
            );
        }
        if let Additional::Node(child) = &node.additional {
            let times = bounded(checks.and_then(|checks| checks.max_properties));
            self.node(
                child,
                &format!("{path}.additionalProperties"),
                false,
                times,
                is_uncorrelated,
            );
        }
        if let Some(items) = node.items.as_deref() {
            let times = bounded(checks.and_then(|checks| checks.max_items));
            let is_uncorrelated = is_uncorrelated || node.list_type != super::schema::ListType::Map;
            self.node(
                items,
                &format!("{path}.items"),
                false,
                times,
                is_uncorrelated,
            );
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rule(
        &mut self,
        rule: &Rule,
        index: usize,
        node: &Node,
        path: &str,
        is_root: bool,
        times: f64,
        is_uncorrelated: bool,
    ) {
        let mut problem = |part: &'static str, reason: &'static str, message: String| {
            self.problems.push(RuleProblem {
                path: path.to_owned(),
                index,
                part,
                reason,
                message,
            });
        };
        if rule.rule.trim().is_empty() {
            problem(
                "rule",
                REQUIRED,
                "Required value: rule is not specified".to_owned(),
            );
            return;
        }
        if !rule.message.is_empty() && rule.message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            problem(
                "message",
                INVALID,
                format!("Invalid value: {:?}: {why}", rule.message),
            );
        } else if rule.message.trim().contains('\n') {
            let why = "message must not contain line breaks";
            problem(
                "message",
                INVALID,
                format!("Invalid value: {:?}: {why}", rule.message),
            );
        } else if rule.rule.trim().contains('\n') && rule.message.is_empty() {
            problem(
                "message",
                REQUIRED,
                "Required value: message must be specified if rule contains line breaks".to_owned(),
            );
        }
        if !matches!(
            &*rule.reason,
            "" | "FieldValueInvalid"
                | "FieldValueForbidden"
                | "FieldValueRequired"
                | "FieldValueDuplicate"
        ) {
            let listed = "\"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"";
            problem(
                "reason",
                "FieldValueNotSupported",
                format!(
                    "Unsupported value: {:?}: supported values: {listed}",
                    rule.reason
                ),
            );
        }
        if !rule.field_path.is_empty() && !is_valid_path(&rule.field_path, node) {
            let why = "fieldPath must be a valid path: does not refer to a valid field";
            problem(
                "fieldPath",
                INVALID,
                format!("Invalid value: {:?}: {why}", rule.field_path),
            );
        }
        match compile(
            &rule.rule,
            node,
            is_root,
            rule.optional_old_self,
            &Kind::Bool,
        ) {
            Err(why) if why.is_empty() => {
                problem(
                    "rule",
                    INVALID,
                    format!(
                        "Invalid value: {}: cel expression must evaluate to a bool",
                        rule_value(rule)
                    ),
                );
            }
            Err(why) => problem(
                "rule",
                INVALID,
                format!(
                    "Invalid value: {}: compilation failed: {why}",
                    rule_value(rule)
                ),
            ),
            Ok(expression) => {
                if expression.mentions("oldSelf") && is_uncorrelated && !rule.optional_old_self {
                    let why =
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within";
                    problem(
                        "rule",
                        INVALID,
                        format!(
                            "Invalid value: {:?}: {why} {}",
                            rule.rule,
                            uncorrelated_root(path)
                        ),
                    );
                }
                if rule.optional_old_self && !expression.mentions("oldSelf") {
                    let why = "may not be set if oldSelf is not used in rule";
                    problem(
                        "optionalOldSelf",
                        INVALID,
                        format!("Invalid value: true: {why}"),
                    );
                }
                let cost = expression.cost() * times;
                if cost > RULE_COST_MAX {
                    let shown = excess(cost, RULE_COST_MAX);
                    problem(
                        "rule",
                        FORBIDDEN,
                        format!(
                            "Forbidden: estimated rule cost exceeds budget by factor of {shown} (try simplifying the rule, or adding \
                         maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
                        ),
                    );
                }
                self.total += cost;
            }
        }
        if rule.message_expression.is_empty() {
            return;
        }
        let told = compile(
            &rule.message_expression,
            node,
            is_root,
            rule.optional_old_self,
            &Kind::Text,
        );
        if let Err(why) = told {
            let why = if why.is_empty() {
                "messageExpression must evaluate to a string".to_owned()
            } else {
                format!("messageExpression compilation failed: {why}")
            };
            self.problems.push(RuleProblem {
                path: path.to_owned(),
                index,
                part: "messageExpression",
                reason: INVALID,
                message: format!("Invalid value: {}: {why}", rule_value(rule)),
            });
        }
    }
}

/// A rule as Go prints the struct that holds it.
fn rule_value(rule: &Rule) -> String {
    let reason = if rule.reason.is_empty() {
        "(*apiextensions.FieldValueErrorReason)(nil)"
    } else {
        "(*apiextensions.FieldValueErrorReason)(0x0)"
    };
    let old = if rule.optional_old_self {
        "(*bool)(0x0)"
    } else {
        "(*bool)(nil)"
    };
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, Reason:{reason}, FieldPath:{:?}, OptionalOldSelf:{old}}}",
        rule.rule, rule.message, rule.message_expression, rule.field_path
    )
}

fn uncorrelated_root(path: &str) -> String {
    let end = path.find(".items").unwrap_or(path.len());
    path.get(..end)
        .unwrap_or(path)
        .trim_start_matches('.')
        .to_owned()
}

/// Whether `.a.b['c']` names a declared field below `node`.
fn is_valid_path(path: &str, node: &Node) -> bool {
    if !path.starts_with(['.', '[']) {
        return false;
    }
    let normal = normal_path(path);
    let mut here = node;
    for step in normal.split('.').skip(1) {
        match here.field(step) {
            Some(next) => here = next,
            None => return false,
        }
    }
    true
}
