//! The static check of an expression: are its variables, functions and fields there, and can its operators take their operands?
//!
//! Types are known as far as the schema tells; what it does not tell is dynamic and fits everything. Messages and positions are
//! cel-go's. Beside the type this finds which variables and fields are read, and how often the innermost loop turns at most.

use std::collections::BTreeSet;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};

use super::prepare::TYPE_NAMES;
use super::values::escape;
use crate::api::structural::{Node, NodeType};

/// How many elements a list or map without a limit may have: as many as fit into a request.
const UNBOUNDED: f64 = 1_048_576.0;

/// What is known of a value.
#[derive(Debug, Clone)]
pub enum Kind<'a> {
    Dynamic,
    Bool,
    Int,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    Null,
    List(Box<Kind<'a>>, f64),
    Map(Box<Kind<'a>>, f64),
    /// An object with declared fields; the flag says whether it is a whole resource.
    Object(&'a Node, bool),
    Metadata,
}

impl<'a> Kind<'a> {
    pub fn of(node: &'a Node, is_resource: bool) -> Self {
        let limit = |limit: Option<u64>| limit.map_or(UNBOUNDED, |limit| limit as f64);
        let checks = node.checks.as_deref();
        match node.kind {
            NodeType::Boolean => Self::Bool,
            NodeType::Integer => Self::Int,
            NodeType::Number => Self::Double,
            NodeType::Text => match node.format.as_deref() {
                Some("byte") => Self::Bytes,
                Some("date-time" | "date") => Self::Timestamp,
                Some("duration") => Self::Duration,
                _ => Self::Text,
            },
            NodeType::Array => {
                let inner = node
                    .items
                    .as_deref()
                    .map_or(Self::Dynamic, |items| Self::of(items, false));
                Self::List(
                    Box::new(inner),
                    limit(checks.and_then(|checks| checks.max_items)),
                )
            }
            NodeType::Object => {
                let is_resource = is_resource || node.is_embedded;
                if node.properties.is_empty() && !is_resource {
                    if let Some(inner) = node.field("") {
                        let most = limit(checks.and_then(|checks| checks.max_properties));
                        return Self::Map(Box::new(Self::of(inner, false)), most);
                    }
                    if node.preserves_unknown || node.is_map() {
                        return Self::Dynamic;
                    }
                }
                Self::Object(node, is_resource)
            }
            NodeType::Any | NodeType::IntOrString => Self::Dynamic,
        }
    }

    /// Whether a result of `found` may stand where this kind is wanted.
    pub fn accepts(&self, found: &Self) -> bool {
        matches!(found, Self::Dynamic) || self.word() == found.word()
    }

    /// As messages name it.
    fn word(&self) -> String {
        match self {
            Self::Dynamic => "dyn".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Null => "null".to_owned(),
            Self::List(inner, _) => format!("list({})", inner.word()),
            Self::Map(inner, _) => format!("map(string, {})", inner.word()),
            Self::Object(..) | Self::Metadata => "object".to_owned(),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    /// The field `name` as expressions write it; None when there is none.
    fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(node, is_resource) => {
                if *is_resource {
                    match name {
                        "apiVersion" | "kind" => return Some(Self::Text),
                        "metadata" => return Some(Self::Metadata),
                        _ => {}
                    }
                }
                let plain = node
                    .properties
                    .get(name)
                    .filter(|_| escape(name).as_deref() == Some(name));
                plain
                    .or_else(|| {
                        node.properties
                            .iter()
                            .find(|(key, _)| escape(key).as_deref() == Some(name))
                            .map(|(_, child)| child)
                    })
                    .map(|child| Self::of(child, false))
            }
            Self::Metadata => matches!(name, "name" | "generateName").then_some(Self::Text),
            Self::Map(inner, _) => Some((**inner).clone()),
            Self::Dynamic => Some(Self::Dynamic),
            _ => None,
        }
    }

    fn element(&self) -> (Self, f64) {
        match self {
            Self::List(inner, most) => ((**inner).clone(), *most),
            Self::Map(_, most) => (Self::Text, *most),
            _ => (Self::Dynamic, 1.0),
        }
    }
}

/// The variables that an expression may name.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    pub variables: Vec<(&'a str, Kind<'a>)>,
}

/// What an expression reads, and how often its innermost loop turns at most.
#[derive(Debug, Default)]
pub struct Findings {
    pub names: Vec<String>,
    pub whole: Vec<String>,
    pub fields: Vec<(String, String)>,
    pub cost: f64,
}

pub struct Checker<'a> {
    source: &'a str,
    variables: Vec<(String, Kind<'a>)>,
    declared: usize,
    names: BTreeSet<String>,
    /// Variables that are used otherwise than by a field of theirs.
    whole: BTreeSet<String>,
    fields: BTreeSet<(String, String)>,
    depth: f64,
    cost: f64,
}

impl<'a> Checker<'a> {
    pub fn new(source: &'a str, scope: &Scope<'a>) -> Self {
        let variables: Vec<_> = scope
            .variables
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), kind.clone()))
            .collect();
        Self {
            source,
            declared: variables.len(),
            variables,
            names: BTreeSet::new(),
            whole: BTreeSet::new(),
            fields: BTreeSet::new(),
            depth: 1.0,
            cost: 1.0,
        }
    }

    pub fn run(&mut self, tree: &IdedExpr) -> Result<Kind<'a>, String> {
        self.kind(tree)
    }

    pub fn findings(self) -> Findings {
        Findings {
            names: self.names.into_iter().collect(),
            whole: self.whole.into_iter().collect(),
            fields: self.fields.into_iter().collect(),
            cost: self.cost,
        }
    }

    fn kind(&mut self, tree: &IdedExpr) -> Result<Kind<'a>, String> {
        match &tree.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Int(_) => Kind::Int,
                LiteralValue::Double(_) => Kind::Double,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Null => Kind::Null,
                LiteralValue::UInt(_) => Kind::Dynamic,
            }),
            Expr::Ident(name) => {
                self.whole.insert(name.clone());
                self.variable(name)
            }
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let mut kinds = Vec::new();
                for one in &list.elements {
                    kinds.push(self.kind(one)?);
                }
                let first = kinds.first().cloned().unwrap_or(Kind::Dynamic);
                let is_uniform = kinds.iter().all(|one| one.word() == first.word());
                let inner = if is_uniform { first } else { Kind::Dynamic };
                Ok(Kind::List(Box::new(inner), kinds.len() as f64))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr)?;
                }
                Ok(Kind::Dynamic)
            }
            Expr::Struct(literal) => {
                for entry in &literal.entries {
                    self.entry(&entry.expr)?;
                }
                Ok(Kind::Dynamic)
            }
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Unspecified => Ok(Kind::Dynamic),
        }
    }

    fn entry(&mut self, entry: &EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::MapEntry(one) => {
                self.kind(&one.key)?;
                self.kind(&one.value)?;
            }
            EntryExpr::StructField(one) => {
                self.kind(&one.value)?;
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<Kind<'a>, String> {
        if let Some(position) = self.variables.iter().rposition(|(known, _)| known == name) {
            if position < self.declared {
                self.names.insert(name.to_owned());
            }
            return Ok(self
                .variables
                .get(position)
                .map_or(Kind::Dynamic, |(_, kind)| kind.clone()));
        }
        if TYPE_NAMES.contains(&name) {
            return Ok(Kind::Dynamic);
        }
        let message = format!("undeclared reference to '{name}' (in container '')");
        Err(self.problem(self.find_word(name), &message))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Kind<'a>, String> {
        let owner = match &select.operand.expr {
            Expr::Ident(owner) => {
                self.fields.insert((owner.clone(), select.field.clone()));
                self.variable(owner)?
            }
            _ => self.kind(&select.operand)?,
        };
        match owner.field(&select.field) {
            Some(_) if select.test => Ok(Kind::Bool),
            Some(found) => Ok(found),
            None if matches!(owner, Kind::Object(..) | Kind::Metadata) => {
                let dot = self.find_field(&select.field);
                let at = if select.test {
                    self.open_before(dot)
                } else {
                    dot
                };
                Err(self.problem(at, &format!("undefined field '{}'", select.field)))
            }
            None => {
                let message = format!("type '{}' does not support field selection", owner.word());
                Err(self.problem(self.find_field(&select.field), &message))
            }
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Kind<'a>, String> {
        let name = call.func_name.as_str();
        if let Some(target) = call.target.as_deref() {
            let is_namespace = matches!(&target.expr, Expr::Ident(prefix)
                if is_function(&format!("{prefix}.{name}")) && !self.variables.iter().any(|(known, _)| known == prefix));
            let mut owner = None;
            if !is_namespace {
                owner = Some(self.kind(target)?);
            }
            for one in &call.args {
                self.kind(one)?;
            }
            if !is_namespace && !is_method(name) {
                return Err(self.undeclared(name));
            }
            return Ok(method_result(name, owner.as_ref()));
        }
        let mut kinds = Vec::new();
        for one in &call.args {
            kinds.push(self.kind(one)?);
        }
        if let Some(kind) = operator_result(name, &kinds) {
            return kind.map_err(|()| {
                let listed: Vec<_> = kinds.iter().map(Kind::word).collect();
                let message = format!(
                    "found no matching overload for '{name}' applied to '({})'",
                    listed.join(", ")
                );
                self.problem(self.find_operator(name), &message)
            });
        }
        if !is_function(name) {
            return Err(self.undeclared(name));
        }
        Ok(function_result(name))
    }

    fn undeclared(&self, name: &str) -> String {
        let at = self.find_word(name) + name.len();
        self.problem(
            at,
            &format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Result<Kind<'a>, String> {
        let range = self.kind(&loops.iter_range)?;
        let start = self.kind(&loops.accu_init)?;
        let (element, turns) = range.element();
        let outside = self.depth;
        self.depth *= turns.max(1.0);
        self.cost = self.cost.max(self.depth);
        let known = self.variables.len();
        let accumulated = match (&start, loops.iter_var.as_str()) {
            (_, "#unused") => start.clone(),
            (Kind::List(..), _) => Kind::Dynamic,
            (other, _) => other.clone(),
        };
        self.variables
            .push((loops.accu_var.clone(), accumulated.clone()));
        self.variables.push((loops.iter_var.clone(), element));
        if let Some(second) = &loops.iter_var2 {
            self.variables.push((second.clone(), Kind::Dynamic));
        }
        let step = self
            .kind(&loops.loop_cond)
            .and_then(|_| self.kind(&loops.loop_step));
        self.depth = outside;
        step?;
        self.variables.truncate(known);
        self.variables.push((loops.accu_var.clone(), accumulated));
        let result = self.kind(&loops.result);
        self.variables.truncate(known);
        match result? {
            Kind::Bool => Ok(Kind::Bool),
            other if loops.iter_var == "#unused" => Ok(other),
            _ => Ok(Kind::Dynamic),
        }
    }

    fn problem(&self, at: usize, message: &str) -> String {
        let before = self.source.get(..at).unwrap_or("");
        let line = before.matches('\n').count() as isize + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() as isize + 1;
        syntax(self.source, (line, column), message)
    }

    fn find_word(&self, name: &str) -> usize {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.source
            .match_indices(name)
            .find(|(at, _)| {
                let before = self
                    .source
                    .get(..*at)
                    .and_then(|text| text.chars().next_back());
                let after = self
                    .source
                    .get(at + name.len()..)
                    .and_then(|text| text.chars().next());
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })
            .map_or(0, |(at, _)| at)
    }

    fn find_field(&self, name: &str) -> usize {
        self.source
            .find(&format!(".{name}"))
            .unwrap_or_else(|| self.find_word(name))
    }

    fn open_before(&self, at: usize) -> usize {
        self.source
            .get(..at)
            .and_then(|text| text.rfind('('))
            .unwrap_or(at)
    }

    fn find_operator(&self, name: &str) -> usize {
        let symbol = name.trim_matches(['_', '@']);
        self.source.find(symbol).unwrap_or(0)
    }
}

/// A problem as cel-go prints it: position, message, the line and a mark below it.
pub fn syntax(source: &str, position: (isize, isize), message: &str) -> String {
    let (line, column) = (position.0.max(1), position.1.max(1));
    let shown = source
        .lines()
        .nth(usize::try_from(line - 1).unwrap_or(0))
        .unwrap_or("");
    let dots = ".".repeat(usize::try_from(column - 1).unwrap_or(0));
    format!("ERROR: <input>:{line}:{column}: {message}\n | {shown}\n | {dots}^")
}

/// What an operator gives: None when `name` is none, an error when its operands do not fit.
fn operator_result<'a>(name: &str, kinds: &[Kind<'a>]) -> Option<Result<Kind<'a>, ()>> {
    let first = kinds.first().cloned().unwrap_or(Kind::Dynamic);
    let second = kinds.get(1).cloned().unwrap_or(Kind::Dynamic);
    let is_dynamic = matches!(first, Kind::Dynamic) || matches!(second, Kind::Dynamic);
    let is_same = first.word() == second.word();
    let fits = |fits: bool, kind: Kind<'a>| if fits { Ok(kind) } else { Err(()) };
    let bool_or_dynamic = |kind: &Kind<'_>| matches!(kind, Kind::Bool | Kind::Dynamic);
    Some(match name {
        operators::LOGICAL_AND | operators::LOGICAL_OR => fits(
            bool_or_dynamic(&first) && bool_or_dynamic(&second),
            Kind::Bool,
        ),
        operators::LOGICAL_NOT => fits(bool_or_dynamic(&first), Kind::Bool),
        operators::NOT_STRICTLY_FALSE => Ok(Kind::Bool),
        operators::EQUALS | operators::NOT_EQUALS => {
            let loose = |kind: &Kind<'_>| {
                matches!(
                    kind,
                    Kind::Null | Kind::List(..) | Kind::Map(..) | Kind::Object(..) | Kind::Metadata
                )
            };
            fits(
                is_dynamic || is_same || loose(&first) || loose(&second),
                Kind::Bool,
            )
        }
        operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS => fits(
            is_dynamic || is_same || (first.is_number() && second.is_number()),
            Kind::Bool,
        ),
        operators::ADD => fits(
            is_dynamic
                || is_same
                || matches!(
                    (&first, &second),
                    (Kind::List(..), Kind::List(..))
                        | (Kind::Timestamp, Kind::Duration)
                        | (Kind::Duration, Kind::Timestamp)
                ),
            match (&first, &second) {
                (Kind::Int | Kind::Double | Kind::Text, _) if is_same => first.clone(),
                _ => Kind::Dynamic,
            },
        ),
        operators::SUBSTRACT => fits(
            is_dynamic || is_same || matches!((&first, &second), (Kind::Timestamp, Kind::Duration)),
            if is_same && first.is_number() {
                first.clone()
            } else {
                Kind::Dynamic
            },
        ),
        operators::MULTIPLY | operators::DIVIDE | operators::MODULO => fits(
            is_dynamic || (is_same && first.is_number()),
            if is_same {
                first.clone()
            } else {
                Kind::Dynamic
            },
        ),
        operators::NEGATE => fits(
            first.is_number() || matches!(first, Kind::Dynamic),
            first.clone(),
        ),
        operators::CONDITIONAL => {
            let third = kinds.get(2).cloned().unwrap_or(Kind::Dynamic);
            fits(
                bool_or_dynamic(&first),
                if second.word() == third.word() {
                    second
                } else {
                    Kind::Dynamic
                },
            )
        }
        operators::INDEX => match first {
            Kind::List(inner, _) | Kind::Map(inner, _) => Ok(*inner),
            Kind::Dynamic | Kind::Object(..) => Ok(Kind::Dynamic),
            _ => Err(()),
        },
        operators::OPT_INDEX | operators::OPT_SELECT => Ok(Kind::Dynamic),
        operators::IN => fits(
            matches!(
                second,
                Kind::List(..) | Kind::Map(..) | Kind::Dynamic | Kind::Object(..)
            ),
            Kind::Bool,
        ),
        _ => return None,
    })
}

fn method_result<'a>(name: &str, owner: Option<&Kind<'a>>) -> Kind<'a> {
    match name {
        "startsWith" | "endsWith" | "contains" | "matches" | "hasValue" | "isSorted"
        | "isGreaterThan" | "isLessThan" | "containsIP" | "containsCIDR" | "isInteger" => {
            Kind::Bool
        }
        "size" | "indexOf" | "lastIndexOf" | "compareTo" | "asInteger" | "sign" | "getFullYear"
        | "getMonth" | "getHours" | "getMinutes" | "getSeconds" => Kind::Int,
        "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "join" | "charAt"
        | "format" | "find" => Kind::Text,
        "orValue" | "sort" | "distinct" if matches!(owner, Some(Kind::List(..))) => {
            owner.cloned().unwrap_or(Kind::Dynamic)
        }
        _ => Kind::Dynamic,
    }
}

fn function_result<'a>(name: &str) -> Kind<'a> {
    match name {
        "size" | "int" => Kind::Int,
        "string" => Kind::Text,
        "double" => Kind::Double,
        "bool" | "isURL" | "isIP" | "isCIDR" | "isQuantity" | "isSemver" => Kind::Bool,
        "duration" => Kind::Duration,
        "timestamp" => Kind::Timestamp,
        "bytes" => Kind::Bytes,
        _ => Kind::Dynamic,
    }
}

const FUNCTIONS: &str = " size type dyn bool int uint double string bytes duration timestamp matches has url isURL ip isIP ip.isCanonical \
    cidr isCIDR quantity isQuantity semver isSemver optional.of optional.none optional.ofNonZeroValue lists.range sets.contains \
    sets.equivalent sets.intersects strings.quote jsonpatch.escapeKey base64.encode base64.decode math.abs math.bitAnd math.bitNot \
    math.bitOr math.bitShiftLeft math.bitShiftRight math.bitXor math.ceil math.floor math.greatest math.isFinite math.isInf \
    math.isNaN math.least math.round math.sign math.sqrt math.trunc format.named format.byte format.date format.datetime \
    format.dns1035Label format.dns1035LabelPrefix format.dns1123Label format.dns1123LabelPrefix format.dns1123Subdomain \
    format.dns1123SubdomainPrefix format.labelValue format.qualifiedName format.uri format.uuid ";
const METHODS: &str = " add asApproximateFloat asInteger charAt compareTo contains containsCIDR containsIP distinct endsWith family find \
    findAll first flatten format getDate getDayOfMonth getDayOfWeek getDayOfYear getEscapedPath getFullYear getHost getHostname getHours \
    getMilliseconds getMinutes getMonth getPort getQuery getScheme getSeconds hasValue indexOf ip isGlobalUnicast isGreaterThan \
    isInteger isIPv4 isIPv6 isLessThan isLinkLocalMulticast isLinkLocalUnicast isLoopback isSorted isUnspecified join last \
    lastIndexOf lowerAscii major masked matches max min minor optFlatMap optMap or orValue patch prefixLength replace reverse sign size \
    slice sort split startsWith string sub substring sum trim upperAscii validate value path group resource check allowed reason \
    namespace name subresource serviceAccount errored error ";

fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&format!(" {name} "))
}

fn is_method(name: &str) -> bool {
    METHODS.contains(&format!(" {name} "))
}
