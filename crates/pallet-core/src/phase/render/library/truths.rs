//! Tests: what stands after `is`.

use std::{cmp::Ordering, collections::HashSet};

use minijinja::{Error, Value, value::ValueKind};

use super::{Call, Entry, entry, filters, python, refusal};

type Asked = fn(&mut Call) -> Result<bool, Error>;

macro_rules! test {
    ($names:expr, $signature:expr, $run:expr) => {
        entry(&$names, $signature, |call| {
            let run: Asked = $run;
            run(call).map(Value::from)
        })
    };
}

pub(super) fn tests() -> Vec<Entry> {
    use Ordering::{Greater, Less};
    vec![
        test!(["defined"], "?value", |call| Ok(!call.value(0).is_undefined())),
        test!(["undefined"], "?value", |call| Ok(call.value(0).is_undefined())),
        test!(["none"], "value", |call| Ok(call.value(0).is_none())),
        test!(["boolean"], "value", |call| Ok(call.value(0).kind() == ValueKind::Bool)),
        test!(["true"], "value", |call| Ok(call.value(0).kind() == ValueKind::Bool && call.value(0).is_true())),
        test!(["false"], "value", |call| Ok(call.value(0).kind() == ValueKind::Bool && !call.value(0).is_true())),
        test!(["number"], "value", |call| Ok(python::number(&call.value(0)).is_some())),
        test!(["integer"], "value", |call| Ok(call.value(0).is_integer())),
        test!(["float"], "value", |call| Ok(call.value(0).is_number() && !call.value(0).is_integer())),
        test!(["string"], "value", |call| Ok(call.value(0).kind() == ValueKind::String)),
        test!(["mapping"], "value", |call| Ok(call.value(0).kind() == ValueKind::Map)),
        test!(["sequence", "iterable"], "?value", |call| {
            use ValueKind::{Iterable, Map, Seq, String};
            Ok(matches!(call.value(0).kind(), String | Seq | Iterable | Map))
        }),
        test!(["callable", "escaped"], "value", |_| Ok(false)),
        test!(["odd"], "value", |call| parity(call, 1)),
        test!(["even"], "value", |call| parity(call, 0)),
        test!(
            ["divisibleby"],
            "value, num",
            |call| match (python::whole(&call.value(0)), python::whole(&call.value(1))) {
                (Some(_), Some(0)) => Err(refusal("nothing is divisible by 0")),
                (Some(value), Some(by)) => Ok(value.checked_rem(by).unwrap_or(0) == 0),
                _ => Err(refusal("whole numbers only are divisible")),
            }
        ),
        test!(["lower"], "value", |call| {
            let text = call.text(0)?;
            Ok(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase))
        }),
        test!(["upper"], "value", |call| {
            let text = call.text(0)?;
            Ok(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase))
        }),
        test!(["startingwith"], "value, start", |call| Ok(call.string(0)?.starts_with(&call.string(1)?))),
        test!(["endingwith"], "value, end", |call| Ok(call.string(0)?.ends_with(&call.string(1)?))),
        test!(["eq", "equalto", "=="], "a, b", |call| Ok(call.value(0) == call.value(1))),
        test!(["ne", "!="], "a, b", |call| Ok(call.value(0) != call.value(1))),
        test!(["lt", "lessthan", "<"], "a, b", |call| ordered(call, |order| order == Less)),
        test!(["le", "<="], "a, b", |call| ordered(call, |order| order != Greater)),
        test!(["gt", "greaterthan", ">"], "a, b", |call| ordered(call, |order| order == Greater)),
        test!(["ge", ">="], "a, b", |call| ordered(call, |order| order != Less)),
        test!(["in"], "value, seq", |call| contains(&call.value(1), &call.value(0))),
        test!(["contains"], "seq, value", |call| contains(&call.value(0), &call.value(1))),
        test!(["sameas"], "value, other", |call| {
            let (one, other) = (call.value(0), call.value(1));
            Ok(one.kind() == other.kind() && one.is_integer() == other.is_integer() && one == other)
        }),
        test!(["filter"], "value", |call| Ok(filters().contains_key(call.string(0)?.as_str()))),
        test!(["test"], "value", |call| Ok(super::tests().contains_key(call.string(0)?.as_str()))),
        test!(["any"], "value", |call| Ok(call.items(0)?.iter().any(Value::is_true))),
        test!(["all"], "value", |call| Ok(call.items(0)?.iter().all(Value::is_true))),
        test!(["truthy"], "value, convert_bool=", truthy),
        test!(["falsy"], "value, convert_bool=", |call| truthy(call).map(|holds| !holds)),
        test!(["subset", "issubset"], "a, b", |call| {
            let other: HashSet<Value> = call.items(1)?.iter().map(python::key).collect();
            Ok(call.items(0)?.iter().all(|item| other.contains(&python::key(item))))
        }),
        test!(["superset", "issuperset"], "a, b", |call| {
            let one: HashSet<Value> = call.items(0)?.iter().map(python::key).collect();
            Ok(call.items(1)?.iter().all(|item| one.contains(&python::key(item))))
        }),
        test!(["nan", "isnan"], "x", |call| Ok(python::number(&call.value(0)).is_some_and(f64::is_nan))),
        test!(["url"], "value, schemes=", |call| {
            let parts = call.apply("urlsplit", &[call.value(0)])?;
            let scheme = parts.get_attr("scheme")?;
            let is_known = match call.given(1) {
                Some(_) => call.items(1)?.contains(&scheme),
                None => true,
            };
            Ok(is_known && (parts.get_attr("netloc")?.is_true() || scheme.as_str() == Some("file")))
        }),
    ]
}

fn parity(call: &mut Call, rest: i128) -> Result<bool, Error> {
    let value = call.value(0);
    match python::whole(&value) {
        Some(number) => Ok(number.rem_euclid(2) == rest),
        None => Err(call.refuse(0, "a whole number", &value)),
    }
}

fn ordered(call: &mut Call, holds: fn(Ordering) -> bool) -> Result<bool, Error> {
    Ok(python::order(&call.value(0), &call.value(1))?.is_some_and(holds))
}

/// `value in container`.
///
/// # Errors
/// The container holds nothing, or it is text and the value is none.
pub(in super::super) fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::String => match value.kind() {
            ValueKind::String => {
                Ok(container.as_str().unwrap_or_default().contains(value.as_str().unwrap_or_default()))
            }
            _ => Err(refusal(format!(
                "text holds text only, and not {}; write x | string, or look in a list",
                python::kind(value)
            ))),
        },
        ValueKind::Map => Ok(container.try_iter()?.any(|key| key == *value)),
        ValueKind::Seq | ValueKind::Iterable => Ok(container.try_iter()?.any(|item| item == *value)),
        ValueKind::None => Err(refusal("null holds nothing; say what to use then, as in x in (y or [])")),
        ValueKind::Undefined => Err(python::undefined(container)),
        _ => Err(refusal(format!("{} holds nothing; in wants a list, a mapping or text", python::kind(container)))),
    }
}

fn truthy(call: &mut Call) -> Result<bool, Error> {
    let value = call.value(0);
    if call.flag(1, false)
        && let Some(text) = value.as_str()
    {
        match text.trim().to_lowercase().as_str() {
            "y" | "yes" | "on" | "1" | "true" | "t" => return Ok(true),
            "n" | "no" | "off" | "0" | "false" | "f" => return Ok(false),
            _ => {}
        }
    }
    Ok(value.is_true())
}

/// A comparison by size, as an operator has it.
///
/// # Errors
/// The values are not compared by size.
pub(in super::super) fn compare(operator: &str, left: &Value, right: &Value) -> Result<bool, Error> {
    for value in [left, right] {
        if value.is_undefined() {
            return Err(python::undefined(value));
        }
    }
    Ok(match operator {
        "==" => left == right,
        "!=" => left != right,
        "in" => contains(right, left)?,
        "not in" => !contains(right, left)?,
        "<" => python::order(left, right)? == Some(Ordering::Less),
        ">" => python::order(left, right)? == Some(Ordering::Greater),
        "<=" => matches!(python::order(left, right)?, Some(Ordering::Less | Ordering::Equal)),
        _ => matches!(python::order(left, right)?, Some(Ordering::Greater | Ordering::Equal)),
    })
}
