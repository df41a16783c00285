//! Making a parsed expression evaluable: what the interpreter lacks becomes what it has.
//!
//! `cel.bind` is a loop over nothing that starts with the bound value; optional selection becomes a function call; a struct
//! literal (`JSONPatch{...}`, `Object.spec{...}`) becomes a map; the step of every loop counts a turn.

use std::sync::Arc;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue,
    MapEntryExpr, MapExpr, SelectExpr, operators,
};
use kube_cel::cel::common::types::CelString;
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::{Key, OptionalValue, Value};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, ResolveResult};

use super::values;

const OPTIONAL_SELECT: &str = "@optional_select";
const OPTIONAL_INDEX: &str = "@optional_index";
const TURN: &str = "@turn";
/// Names of types, which are values too: `type(self) == string`.
pub const TYPE_NAMES: [&str; 10] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

pub fn register(context: &mut Context<'_>) {
    context.add_function(OPTIONAL_SELECT, optional_select);
    context.add_function(OPTIONAL_INDEX, optional_select);
    context.add_function(TURN, |value: Value| -> ResolveResult {
        super::turn()?;
        Ok(value)
    });
    context.add_function("type", |value: Value| -> ResolveResult {
        Ok(type_value(values::type_name(&value)))
    });
    context.add_function("dyn", |value: Value| -> ResolveResult { Ok(value) });
    context.add_function("bool", to_bool);
    context.add_function("optMap", |This(this): This<Value>| -> ResolveResult {
        Ok(this)
    });
    context.add_function("isZero", |value: Value| -> ResolveResult {
        Ok(Value::Bool(values::is_zero(&value)))
    });
    for name in TYPE_NAMES {
        context.add_variable_from_value(name, type_value(name));
    }
}

fn type_value(name: &str) -> Value {
    Value::String(Arc::new(format!("type:{name}")))
}

fn to_bool(value: Value) -> ResolveResult {
    match &value {
        Value::Bool(_) => Ok(value),
        Value::String(text) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err(ExecutionError::function_error(
                "bool",
                "type conversion error from 'string' to 'bool'",
            )),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// `owner.?field` and `owner[?key]`: an optional, none where the field is missing or the owner itself is none.
fn optional_select(Arguments(arguments): Arguments) -> ResolveResult {
    let (Some(owner), Some(key)) = (arguments.first(), arguments.get(1)) else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let owner = match <&OptionalValue>::try_from(owner) {
        Ok(optional) => match optional.value() {
            Some(inner) => inner,
            None => return Ok(optional_of(None)),
        },
        Err(_) => owner,
    };
    let found = match owner {
        Value::Map(map) => Key::try_from_value(key).and_then(|key| map.map.get(&key).cloned()),
        Value::List(items) => match key {
            Value::Int(index) => usize::try_from(*index)
                .ok()
                .and_then(|index| items.get(index).cloned()),
            _ => None,
        },
        Value::Null => None,
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(optional_of(found))
}

pub fn optional_of(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(match value {
        Some(value) => OptionalValue::of(value),
        None => OptionalValue::none(),
    }))
}

trait KeyOf: Sized {
    fn try_from_value(value: &Value) -> Option<Self>;
}

impl KeyOf for Key {
    fn try_from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::String(text.clone())),
            Value::Int(number) => Some(Self::Int(*number)),
            Value::UInt(number) => Some(Self::Uint(*number)),
            Value::Bool(flag) => Some(Self::Bool(*flag)),
            _ => None,
        }
    }
}

/// Turn `cel.bind(name, value, body)`, `optMap` and `optFlatMap` into loops, everywhere.
pub fn binds(tree: IdedExpr) -> IdedExpr {
    map_children(tree, &binds, &|id, expr| match expr {
        Expr::Call(call) if call.func_name == "bind" && is_ident(call.target.as_deref(), "cel") => {
            bind(id, call)
        }
        Expr::Call(call)
            if matches!(call.func_name.as_str(), "optMap" | "optFlatMap")
                && call.target.is_some()
                && call.args.len() == 2 =>
        {
            optional_map(id, call)
        }
        other => IdedExpr { id, expr: other },
    })
}

fn bind(id: u64, mut call: CallExpr) -> IdedExpr {
    let name = match call.args.first() {
        Some(IdedExpr {
            expr: Expr::Ident(name),
            ..
        }) if call.args.len() == 3 => name.clone(),
        _ => {
            return IdedExpr {
                id,
                expr: Expr::Call(call),
            };
        }
    };
    let body = call.args.pop().unwrap_or_default();
    let value = call.args.pop().unwrap_or_default();
    bound(id, name, value, body)
}

fn bound(id: u64, name: String, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    let yes = || node(id, Expr::Literal(LiteralValue::Boolean(true.into())));
    let step = node(id, Expr::Ident(name.clone()));
    let comprehension = ComprehensionExpr {
        iter_range: node(id, Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: name,
        accu_init: value,
        loop_cond: yes(),
        loop_step: step,
        result: body,
    };
    node(id, Expr::Comprehension(Box::new(comprehension)))
}

/// `opt.optMap(x, f)`: `opt.hasValue() ? optional.of(bind(x, opt.value(), f)) : optional.none()`.
fn optional_map(id: u64, call: CallExpr) -> IdedExpr {
    let is_flat = call.func_name == "optFlatMap";
    let target = call.target.map(|target| *target).unwrap_or_default();
    let mut arguments = call.args.into_iter();
    let (first, body) = (
        arguments.next().unwrap_or_default(),
        arguments.next().unwrap_or_default(),
    );
    let name = match first.expr {
        Expr::Ident(name) => name,
        _ => "#unused".to_owned(),
    };
    let method = |name: &str, target: IdedExpr, args: Vec<IdedExpr>| {
        let target = Some(Box::new(target));
        let func_name = name.to_owned();
        node(
            id,
            Expr::Call(CallExpr {
                func_name,
                target,
                args,
            }),
        )
    };
    let optional = || node(id, Expr::Ident("optional".to_owned()));
    let value = bound(id, name, method("value", target.clone(), Vec::new()), body);
    let some = if is_flat {
        value
    } else {
        method("of", optional(), vec![value])
    };
    let none = method("none", optional(), Vec::new());
    let has = method("hasValue", target, Vec::new());
    node(
        id,
        Expr::Call(CallExpr {
            func_name: operators::CONDITIONAL.to_owned(),
            target: None,
            args: vec![has, some, none],
        }),
    )
}

/// Turn the rest of what the interpreter lacks into what it has; the result can no longer be checked.
pub fn evaluable(tree: IdedExpr) -> IdedExpr {
    map_children(tree, &evaluable, &|id, expr| match expr {
        Expr::Call(mut call) => {
            match call.func_name.as_str() {
                operators::OPT_SELECT => call.func_name = OPTIONAL_SELECT.to_owned(),
                operators::OPT_INDEX => call.func_name = OPTIONAL_INDEX.to_owned(),
                operators::INDEX if call.args.first().is_some_and(is_optional) => {
                    call.func_name = OPTIONAL_INDEX.to_owned();
                }
                _ => {}
            }
            node(id, Expr::Call(call))
        }
        Expr::Select(select) if !select.test && is_optional(&select.operand) => {
            let key = Expr::Literal(LiteralValue::String(CelString::from(&*select.field)));
            let args = vec![*select.operand, node(id, key)];
            let func_name = OPTIONAL_SELECT.to_owned();
            node(
                id,
                Expr::Call(CallExpr {
                    func_name,
                    target: None,
                    args,
                }),
            )
        }
        Expr::Comprehension(mut loops) => {
            let step = std::mem::take(&mut loops.loop_step);
            loops.loop_step = node(
                id,
                Expr::Call(CallExpr {
                    func_name: TURN.to_owned(),
                    target: None,
                    args: vec![step],
                }),
            );
            node(id, Expr::Comprehension(loops))
        }
        Expr::Struct(literal) => {
            let entries = literal
                .entries
                .into_iter()
                .filter_map(|entry| match entry.expr {
                    EntryExpr::StructField(field) => {
                        let key =
                            Expr::Literal(LiteralValue::String(CelString::from(&*field.field)));
                        Some(IdedEntryExpr {
                            id: entry.id,
                            expr: EntryExpr::MapEntry(MapEntryExpr {
                                key: node(id, key),
                                value: field.value,
                                optional: field.optional,
                            }),
                        })
                    }
                    EntryExpr::MapEntry(_) => None,
                })
                .collect();
            node(id, Expr::Map(MapExpr { entries }))
        }
        other => node(id, other),
    })
}

/// Whether an expression, prepared already, gives an optional: what is selected from it is optional too.
fn is_optional(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Call(call) if matches!(call.func_name.as_str(), OPTIONAL_SELECT | OPTIONAL_INDEX))
}

fn is_ident(tree: Option<&IdedExpr>, name: &str) -> bool {
    matches!(tree.map(|tree| &tree.expr), Some(Expr::Ident(found)) if found == name)
}

fn node(id: u64, expr: Expr) -> IdedExpr {
    IdedExpr { id, expr }
}

type Change = dyn Fn(IdedExpr) -> IdedExpr;
type Finish = dyn Fn(u64, Expr) -> IdedExpr;

/// Rebuild `tree`: `change` for every child, then `finish` for the node itself.
fn map_children(tree: IdedExpr, change: &Change, finish: &Finish) -> IdedExpr {
    let id = tree.id;
    let expr = match tree.expr {
        Expr::Call(call) => Expr::Call(CallExpr {
            func_name: call.func_name,
            target: call.target.map(|target| Box::new(change(*target))),
            args: call.args.into_iter().map(change).collect(),
        }),
        Expr::Select(select) => Expr::Select(SelectExpr {
            operand: Box::new(change(*select.operand)),
            ..select
        }),
        Expr::List(list) => Expr::List(ListExpr {
            elements: list.elements.into_iter().map(change).collect(),
            optional_indices: list.optional_indices,
        }),
        Expr::Map(map) => Expr::Map(MapExpr {
            entries: map
                .entries
                .into_iter()
                .map(|one| entry(one, change))
                .collect(),
        }),
        Expr::Struct(mut literal) => {
            let entries = std::mem::take(&mut literal.entries);
            literal.entries = entries.into_iter().map(|one| entry(one, change)).collect();
            Expr::Struct(literal)
        }
        Expr::Comprehension(loops) => Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: change(loops.iter_range),
            iter_var: loops.iter_var,
            iter_var2: loops.iter_var2,
            accu_var: loops.accu_var,
            accu_init: change(loops.accu_init),
            loop_cond: change(loops.loop_cond),
            loop_step: change(loops.loop_step),
            result: change(loops.result),
        })),
        other => other,
    };
    finish(id, expr)
}

fn entry(entry: IdedEntryExpr, change: &Change) -> IdedEntryExpr {
    let expr = match entry.expr {
        EntryExpr::MapEntry(one) => EntryExpr::MapEntry(MapEntryExpr {
            key: change(one.key),
            value: change(one.value),
            optional: one.optional,
        }),
        EntryExpr::StructField(mut one) => {
            one.value = change(std::mem::take(&mut one.value));
            EntryExpr::StructField(one)
        }
    };
    IdedEntryExpr { id: entry.id, expr }
}
