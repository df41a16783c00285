//! CEL, the language of validation rules, match conditions and admission policies.
//!
//! Parsing and evaluation are the crate `cel`'s, Kubernetes' own functions those of `kube-cel`. What stands here: the preparation
//! of the syntax tree (`prepare`: what the interpreter lacks is expressed by what it has, and every loop counts its turns), the
//! static check against the variables and their schemas (`check`), and values from and to JSON (`values`; of devices, `devices`).

mod check;
pub mod devices;
mod prepare;
pub mod values;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::Value;
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, IdedExpr};

use check::Findings;
pub use check::{Kind, Scope};
pub use prepare::optional_of as optional;

/// Turns of loops that one evaluation may take. Upstream bounds an expression's cost at 10,000,000 units.
const TURNS_MAX: u64 = 1_000_000;
const LENGTH_MAX: usize = 64 * 1024;

thread_local! {
    static ROOT: Context<'static> = root();
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

/// A checked expression. `cost` estimates how often its innermost loop turns at most.
#[derive(Debug)]
pub struct Expression {
    tree: IdedExpr,
    found: Findings,
}

impl Expression {
    /// Parse and check `source` in `scope`. The error is what follows `compilation failed: `.
    pub fn compile(source: &str, scope: &Scope<'_>, wanted: &[Kind<'_>]) -> Result<Self, String> {
        if source.len() > LENGTH_MAX {
            return Err("ERROR: <input>:1:1: expression is too long".to_owned());
        }
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            Parser::new().enable_optional_syntax(true).parse(source)
        }))
        .map_err(|_| "ERROR: <input>:1:1: Syntax error: the expression cannot be parsed")?;
        let tree = parsed.map_err(|errors| {
            let listed: Vec<_> = errors
                .errors
                .iter()
                .map(|one| check::syntax(source, one.pos, &one.msg))
                .collect();
            listed.join("\n")
        })?;
        let tree = prepare::binds(tree);
        let mut checker = check::Checker::new(source, scope);
        let kind = checker.run(&tree)?;
        if !wanted.is_empty() && !wanted.iter().any(|one| one.accepts(&kind)) {
            return Err(String::new());
        }
        Ok(Self {
            tree: prepare::evaluable(tree),
            found: checker.findings(),
        })
    }

    /// How often the innermost loop turns at most.
    pub fn cost(&self) -> f64 {
        self.found.cost
    }

    /// Whether `name` is used otherwise than by its fields, so that all of it is needed.
    pub fn needs_whole(&self, name: &str) -> bool {
        self.found.whole.iter().any(|one| one == name)
    }

    /// Whether the variable `name` occurs.
    pub fn mentions(&self, name: &str) -> bool {
        self.found.names.iter().any(|one| one == name)
    }

    /// The fields that are read directly off the variable `owner`, as `variables.NAME` is.
    pub fn fields_of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a str> {
        self.found
            .fields
            .iter()
            .filter(move |(name, _)| name == owner)
            .map(|(_, field)| &**field)
    }

    /// Evaluate with these variables. The error is in upstream's words.
    pub fn evaluate<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Value, String> {
        TURNS.with(|turns| turns.set(0));
        ROOT.with(|root| {
            let mut context = root.new_inner_scope();
            for (name, value) in variables {
                context.add_variable_from_value(name, value);
            }
            let ran = catch_unwind(AssertUnwindSafe(|| Value::resolve(&self.tree, &context)));
            match ran {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(words(&error)),
                Err(_) => Err("no such overload".to_owned()),
            }
        })
    }
}

/// An evaluation error as cel-go says it.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(index) => match values::to_json(index) {
            Some(index) => format!("index out of bounds: {index}"),
            None => "index out of bounds".to_owned(),
        },
        ExecutionError::NoSuchOverload
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::NotSupportedAsMethod { .. }
        | ExecutionError::UnsupportedIndex(..)
        | ExecutionError::UnsupportedListIndex(_)
        | ExecutionError::UnsupportedMapIndex(_) => "no such overload".to_owned(),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn root() -> Context<'static> {
    let mut context = Context::default().with_all();
    prepare::register(&mut context);
    context
}

/// Count one turn of a loop; an error when there were too many.
fn turn() -> Result<(), ExecutionError> {
    TURNS.with(|turns| {
        turns.set(turns.get() + 1);
        if turns.get() > TURNS_MAX {
            return Err(ExecutionError::function_error(
                "loop",
                "operation cancelled: actual cost limit exceeded",
            ));
        }
        Ok(())
    })
}
