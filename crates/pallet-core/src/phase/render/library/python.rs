//! Values as Python has them: their text, their order, and whether they are equal.

use std::{cmp::Ordering, fmt::Write};

use minijinja::{
    Error, Value,
    value::{Object, ValueKind},
};

use super::{Range, refusal};

/// How a message names what kind a value is of.
pub(in super::super) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "an undefined value",
        ValueKind::None => "null",
        ValueKind::Bool => "true or false",
        ValueKind::Number => "a number",
        ValueKind::String | ValueKind::Bytes => "text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a mapping",
        _ => "no value",
    }
}

/// The text of a value: `str()` of Python. Null, or null in a list or mapping, has none.
pub(in super::super) fn text(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value)?;
    Ok(out)
}

/// Appends the text of a value.
pub(in super::super) fn write(out: &mut String, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => represent(out, value)?,
    }
    Ok(())
}

/// What a message says where null would be written.
pub(in super::super) const NULL: &str = "the value is null; say what to use then, as in {{ x or '' }}";
const NULL_WITHIN: &str =
    "a value in the list or mapping is null; leave it out by | reject('none'), or write JSON by | to_json";

/// Appends the text of a value as it stands in a list or mapping: `repr()` of Python.
pub(in super::super) fn represent(out: &mut String, value: &Value) -> Result<(), Error> {
    within(out, value, false)
}

fn within(out: &mut String, value: &Value, nested: bool) -> Result<(), Error> {
    let separated = |out: &mut String, items: &mut dyn Iterator<Item = Value>| {
        for (place, item) in items.enumerate() {
            if place > 0 {
                out.push_str(", ");
            }
            within(out, &item, true)?;
        }
        Ok::<_, Error>(())
    };
    match value.kind() {
        ValueKind::Undefined => return Err(undefined(value)),
        ValueKind::None => return Err(refusal(if nested { NULL_WITHIN } else { NULL })),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => {
            out.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
        }
        ValueKind::String | ValueKind::Bytes => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            if let Some(range) = value.downcast_object_ref::<Range>() {
                out.push_str(&range.written());
                return Ok(());
            }
            let is_tuple = value.is_tuple() || super::lists::is_group(value);
            out.push(if is_tuple { '(' } else { '[' });
            separated(out, &mut value.try_iter()?)?;
            if is_tuple && value.len() == Some(1) {
                out.push(',');
            }
            out.push(if is_tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (place, key) in value.try_iter()?.enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                within(out, &key, true)?;
                out.push_str(": ");
                within(out, &value.get_item(&key)?, true)?;
            }
            out.push('}');
        }
        ValueKind::Number => {
            let _ = write!(out, "{value}");
        }
        _ if value.downcast_object_ref::<super::Quoted>().is_some() => {
            return Err(refusal(
                "what | quote made is words of the shell already; write it alone, or join such words by spaces",
            ));
        }
        _ => return Err(refusal("this is no value that can be written; name one of its fields")),
    }
    Ok(())
}

/// The error of what is undefined. It names it, where the engine knows its name.
pub(in super::super) fn undefined(value: &Value) -> Error {
    match value.get_attr("") {
        Err(error) => error,
        Ok(_) => Error::from(minijinja::ErrorKind::UndefinedError),
    }
}

/// `repr()` of a text.
pub(in super::super) fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Whether `repr()` writes a character as it is: no controls, separators but the space, formats or private ones.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && (c == ' ' || !c.is_whitespace())
        && !matches!(u32::from(c),
            0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f
            | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xfffe | 0xffff | 0xe0001..=0xe007f | 0xf0000..=0x10_ffff)
}

/// `repr()` of a number with a fraction: the shortest text that reads back as the same number.
pub(in super::super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A number with a fraction or without, true and false as 1 and 0; none where it is something else.
pub(in super::super) fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => {
            f64::try_from(value.clone()).ok().or_else(|| whole(value).map(|n| n as f64))
        }
        _ => None,
    }
}

/// A whole number, true and false as 1 and 0.
pub(in super::super) fn whole(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A whole number as the engine has it.
pub(in super::super) fn integer(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| number.into(), Value::from)
}

/// Which of two values is larger. None where that is never so, as of NaN.
///
/// # Errors
/// Their kinds are not compared by size.
pub(in super::super) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Error> {
    use ValueKind::{Bool, Iterable, Number, Seq, String};
    match (left.kind(), right.kind()) {
        (String, String) => Ok(Some(left.as_str().cmp(&right.as_str()))),
        (Bool | Number, Bool | Number) => Ok(match (whole(left), whole(right)) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => match (number(left), number(right)) {
                (Some(left), Some(right)) => left.partial_cmp(&right),
                _ => None,
            },
        }),
        (Seq | Iterable, Seq | Iterable) if left.is_tuple() == right.is_tuple() => {
            let (mut first, mut second) = (left.try_iter()?, right.try_iter()?);
            loop {
                match (first.next(), second.next()) {
                    (Some(a), Some(b)) if a == b => {}
                    (Some(a), Some(b)) => return order(&a, &b),
                    (None, None) => return Ok(Some(Ordering::Equal)),
                    (None, Some(_)) => return Ok(Some(Ordering::Less)),
                    (Some(_), None) => return Ok(Some(Ordering::Greater)),
                }
            }
        }
        (ValueKind::Undefined, _) => Err(undefined(left)),
        (_, ValueKind::Undefined) => Err(undefined(right)),
        (String, Number) | (Number, String) => {
            Err(refusal("text and a number cannot be compared by size; make a number of the text by | int or | float"))
        }
        (ValueKind::None, _) | (_, ValueKind::None) => {
            Err(refusal("null cannot be compared by size; say what to use then, as in (x or 0) > 1"))
        }
        _ => Err(refusal(format!("{} and {} cannot be compared by size", kind(left), kind(right)))),
    }
}

/// Sorts as Python does; the first pair that cannot be compared is the error.
pub(in super::super) fn sort(items: &mut [(Value, Value)], is_reversed: bool) -> Result<(), Error> {
    let mut failed = None;
    items.sort_by(|(left, _), (right, _)| {
        let found = order(left, right).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            None
        });
        let found = found.unwrap_or(Ordering::Equal);
        if is_reversed { found.reverse() } else { found }
    });
    failed.map_or(Ok(()), Err)
}

/// The same for all values that are equal, to be looked for in a set.
pub(in super::super) fn key(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Seq | ValueKind::Iterable if !value.is_tuple() => match value.try_iter() {
            Ok(items) => Value::from(items.map(|item| key(&item)).collect::<Vec<_>>()),
            Err(_) => value.clone(),
        },
        _ => value.clone(),
    }
}

/// A text in small letters, any other value as it is: what is compared where case does not count.
pub(in super::super) fn folded(value: Value) -> Value {
    match value.as_str() {
        Some(text) => Value::from(text.to_lowercase()),
        None => value,
    }
}

impl Object for Range {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Seq
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        let place = key.as_usize().filter(|place| *place < self.count)?;
        Some(Value::from(self.start.checked_add(self.step.checked_mul(i64::try_from(place).ok()?)?)?))
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(self.count)
    }
}
