//! Methods of texts, lists and mappings, as Python has them.

use std::{collections::BTreeMap, sync::LazyLock};

use minijinja::{
    Error, State, Value,
    value::{Tuple, ValueKind},
};

use super::{Call, Entry, Made, entry, format, lists, mapping, maps, python, refusal, signatures, texts};

struct Methods {
    text: BTreeMap<&'static str, &'static Entry>,
    list: BTreeMap<&'static str, &'static Entry>,
    map: BTreeMap<&'static str, &'static Entry>,
}

static METHODS: LazyLock<Methods> = LazyLock::new(|| Methods {
    text: super::table(of_texts()),
    list: super::table(of_lists()),
    map: super::table(of_maps()),
});

fn tables() -> [&'static BTreeMap<&'static str, &'static Entry>; 3] {
    [&METHODS.text, &METHODS.list, &METHODS.map]
}

/// The methods of that name.
pub(super) fn named(name: &str) -> Vec<&'static Entry> {
    tables().iter().filter_map(|table| table.get(name).copied()).collect()
}

/// The names of all methods.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    tables().into_iter().flat_map(|table| table.keys().copied())
}

/// Calls a method of a value.
///
/// # Errors
/// It has none of that name, or the call fails.
pub(in super::super) fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Made {
    let table = match value.kind() {
        ValueKind::String => &METHODS.text,
        ValueKind::Seq | ValueKind::Iterable => &METHODS.list,
        ValueKind::Map => &METHODS.map,
        ValueKind::Undefined => return Err(python::undefined(value)),
        _ => return Err(signatures::no_method(value, name)),
    };
    let Some(entry) = table.get(name) else { return Err(signatures::no_method(value, name)) };
    let all: Vec<Value> = std::iter::once(value.clone()).chain(args.iter().cloned()).collect();
    entry.call(&format!("method {name}"), state, &all)
}

fn changed(call: &mut Call, change: impl Fn(&str) -> String) -> Made {
    let text = call.string(0)?;
    call.pay(3 * text.len() as u64)?;
    Ok(Value::from(change(&text)))
}

/// Where a text is found within two places, as `find` takes them.
fn bounded(call: &Call, text: &str) -> Result<(usize, usize), Error> {
    let count = text.chars().count() as i64;
    let place = |at: usize, other: i64| -> Result<i64, Error> {
        let given = match call.given(at).filter(|given| !given.is_none()) {
            Some(_) => call.integer_or(at, other)?,
            None => other,
        };
        Ok(if given < 0 { (given + count).max(0) } else { given.min(count) })
    };
    let (start, stop) = (place(2, 0)?, place(3, count)?);
    let byte =
        |place: i64| text.char_indices().nth(usize::try_from(place).unwrap_or(0)).map_or(text.len(), |(at, _)| at);
    Ok((byte(start), byte(stop).max(byte(start))))
}

fn found(call: &mut Call, from_end: bool) -> Result<Option<usize>, Error> {
    let (text, part) = (call.string(0)?, call.string(1)?);
    let (start, stop) = bounded(call, &text)?;
    let within = &text[start..stop];
    let at = if from_end { within.rfind(&part) } else { within.find(&part) };
    Ok(at.map(|at| text[..start + at].chars().count()))
}

fn place(found: Option<usize>, must: bool) -> Made {
    match found {
        Some(at) => Ok(Value::from(at)),
        None if must => Err(refusal("the text is not found; find() gives -1 then")),
        None => Ok(Value::from(-1)),
    }
}

fn stripped(call: &mut Call, left: bool, right: bool) -> Made {
    let text = call.string(0)?;
    let chars = match call.given(1).filter(|chars| !chars.is_none()) {
        Some(_) => Some(call.string(1)?),
        None => None,
    };
    call.pay((text.len() as u64).saturating_mul(chars.as_ref().map_or(1, |chars| chars.len() as u64)))?;
    let is_cut = |c: char| chars.as_ref().map_or_else(|| texts::is_blank(c), |chars| chars.contains(c));
    let mut kept = text.as_str();
    if left {
        kept = kept.trim_start_matches(is_cut);
    }
    if right {
        kept = kept.trim_end_matches(is_cut);
    }
    Ok(Value::from(kept))
}

fn all(call: &mut Call, holds: fn(char) -> bool) -> Made {
    let text = call.string(0)?;
    Ok(Value::from(!text.is_empty() && text.chars().all(holds)))
}

/// Whether it begins or ends with one of the texts given.
fn fits(call: &mut Call, fits: fn(&str, &str) -> bool) -> Made {
    let text = call.string(0)?;
    let (start, stop) = bounded(call, &text)?;
    let within = &text[start..stop];
    let parts: Vec<Value> = match call.value(1).as_str() {
        Some(_) => vec![call.value(1)],
        None if call.value(1).is_tuple() => call.list(1)?,
        None => return Err(call.refuse(1, "text, or a tuple of texts", &call.value(1))),
    };
    Ok(Value::from(parts.iter().filter_map(Value::as_str).any(|part| fits(within, part))))
}

fn padded(call: &mut Call, align: char) -> Made {
    let text = call.string(0)?;
    let width = call.integer_or(1, 0)?;
    let fill = call.string_or(2, " ")?;
    let mut characters = fill.chars();
    let (Some(fill), None) = (characters.next(), characters.next()) else {
        return Err(refusal("the text to fill up with is to be one character"));
    };
    if align == '^' {
        return texts::centered(call, &text, width, fill);
    }
    let width = usize::try_from(width).unwrap_or(0);
    call.pay(width as u64 * 4)?;
    let missing = String::from_iter(std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())));
    Ok(Value::from(if align == '<' { text + &missing } else { missing + &text }))
}

fn parted(call: &mut Call, from_end: bool) -> Made {
    let (text, separator) = (call.string(0)?, call.string(1)?);
    if separator.is_empty() {
        return Err(refusal("a text cannot be split at nothing"));
    }
    let found = if from_end { text.rsplit_once(&separator) } else { text.split_once(&separator) };
    let parts = match found {
        Some((before, after)) => [before, separator.as_str(), after],
        None if from_end => ["", "", text.as_str()],
        None => [text.as_str(), "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn rsplit(call: &mut Call) -> Made {
    let most = usize::try_from(call.integer_or(2, -1)?).ok();
    let text = call.string(0)?;
    let Some(most) = most else { return texts::split(call, 0) };
    call.pay_items(most.min(text.len()) + 1)?;
    let mut parts: Vec<&str> = match call.given(1).filter(|separator| !separator.is_none()) {
        Some(_) => {
            let separator = call.string(1)?;
            if separator.is_empty() {
                return Err(refusal("a text cannot be split at nothing"));
            }
            return Ok(text
                .rsplitn(most + 1, separator.as_str())
                .map(Value::from)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect());
        }
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(texts::is_blank);
            while !rest.is_empty() {
                if parts.len() == most {
                    parts.push(rest.trim_start_matches(texts::is_blank));
                    break;
                }
                let at =
                    rest.char_indices().rev().find(|(_, c)| texts::is_blank(*c)).map_or(0, |(at, c)| at + c.len_utf8());
                parts.push(&rest[at..]);
                rest = rest[..at].trim_end_matches(texts::is_blank);
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn of_texts() -> Vec<Entry> {
    vec![
        entry(&["upper"], "s", |call| changed(call, str::to_uppercase)),
        entry(&["lower"], "s", |call| changed(call, str::to_lowercase)),
        entry(&["casefold"], "s", |call| changed(call, |text| text.to_lowercase().replace('ß', "ss"))),
        entry(&["capitalize"], "s", |call| changed(call, |text| texts::capitalized(text.to_owned()))),
        entry(&["swapcase"], "s", |call| {
            changed(call, |text| {
                let swapped = |c: char| -> String {
                    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
                };
                text.chars().map(swapped).collect()
            })
        }),
        entry(&["title"], "s", |call| {
            changed(call, |text| {
                let mut out = String::with_capacity(text.len());
                let mut begins = true;
                for c in text.chars() {
                    if begins {
                        out.extend(c.to_uppercase())
                    } else {
                        out.extend(c.to_lowercase())
                    }
                    begins = !c.is_alphabetic();
                }
                out
            })
        }),
        entry(&["strip"], "s, chars=", |call| stripped(call, true, true)),
        entry(&["lstrip"], "s, chars=", |call| stripped(call, true, false)),
        entry(&["rstrip"], "s, chars=", |call| stripped(call, false, true)),
        entry(&["removeprefix"], "s, prefix", |call| {
            let (text, prefix) = (call.string(0)?, call.string(1)?);
            Ok(Value::from(text.strip_prefix(&prefix).unwrap_or(&text)))
        }),
        entry(&["removesuffix"], "s, suffix", |call| {
            let (text, suffix) = (call.string(0)?, call.string(1)?);
            Ok(Value::from(text.strip_suffix(&suffix).unwrap_or(&text)))
        }),
        entry(&["replace"], "s, old, new, count=", |call| {
            let (text, old, new) = (call.string(0)?, call.string(1)?, call.string(2)?);
            let most = call.integer_or(3, -1)?;
            texts::replaced(call, &text, &old, &new, most).map(Value::from)
        }),
        entry(&["split"], "s, sep=, maxsplit=", |call| texts::split(call, 0)),
        entry(&["rsplit"], "s, sep=, maxsplit=", rsplit),
        entry(&["splitlines"], "s, keepends=", |call| {
            let text = call.string(0)?;
            call.pay_items(text.len())?;
            Ok(texts::split_lines(&text, call.flag(1, false)).into_iter().map(Value::from).collect())
        }),
        entry(&["partition"], "s, sep", |call| parted(call, false)),
        entry(&["rpartition"], "s, sep", |call| parted(call, true)),
        entry(&["join"], "s, iterable", |call| {
            let between = call.string(0)?;
            let items = call.items(1)?;
            if let Some(item) = items.iter().find(|item| item.kind() != ValueKind::String) {
                return Err(refusal(format!(
                    "join() takes texts, and an item is {}; write | join('…')",
                    python::kind(item)
                )));
            }
            call.pay((between.len() as u64 + super::ITEM).saturating_mul(items.len() as u64))?;
            lists::joined(&items, &between)
        }),
        entry(&["format"], "s, *args, **kwargs", |call| {
            let pattern = call.string(0)?;
            let units = format::cost(&pattern, call.paid);
            call.pay(units)?;
            format::braces(&pattern, &call.rest, &call.named).map(Value::from)
        }),
        entry(&["startswith"], "s, prefix, start=, end=", |call| fits(call, |text, part| text.starts_with(part))),
        entry(&["endswith"], "s, suffix, start=, end=", |call| fits(call, |text, part| text.ends_with(part))),
        entry(&["find"], "s, sub, start=, end=", |call| found(call, false).and_then(|found| place(found, false))),
        entry(&["rfind"], "s, sub, start=, end=", |call| found(call, true).and_then(|found| place(found, false))),
        entry(&["index"], "s, sub, start=, end=", |call| found(call, false).and_then(|found| place(found, true))),
        entry(&["rindex"], "s, sub, start=, end=", |call| found(call, true).and_then(|found| place(found, true))),
        entry(&["count"], "s, sub, start=, end=", |call| {
            let (text, part) = (call.string(0)?, call.string(1)?);
            let (start, stop) = bounded(call, &text)?;
            Ok(Value::from(text[start..stop].matches(part.as_str()).count()))
        }),
        entry(&["center"], "s, width, fillchar=", |call| padded(call, '^')),
        entry(&["ljust"], "s, width, fillchar=", |call| padded(call, '<')),
        entry(&["rjust"], "s, width, fillchar=", |call| padded(call, '>')),
        entry(&["zfill"], "s, width", |call| {
            let text = call.string(0)?;
            let width = usize::try_from(call.integer_or(1, 0)?).unwrap_or(0);
            call.pay(width as u64 * 4)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            let missing = width.saturating_sub(text.chars().count());
            Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing))))
        }),
        entry(&["isdigit", "isdecimal", "isnumeric"], "s", |call| all(call, char::is_numeric)),
        entry(&["isalpha"], "s", |call| all(call, char::is_alphabetic)),
        entry(&["isalnum"], "s", |call| all(call, char::is_alphanumeric)),
        entry(&["isspace"], "s", |call| all(call, texts::is_blank)),
        entry(&["isascii"], "s", |call| Ok(Value::from(call.string(0)?.is_ascii()))),
        entry(&["islower"], "s", |call| {
            let text = call.string(0)?;
            Ok(Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))
        }),
        entry(&["isupper"], "s", |call| {
            let text = call.string(0)?;
            Ok(Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))
        }),
    ]
}

fn of_lists() -> Vec<Entry> {
    vec![
        entry(&["count"], "l, value", |call| {
            let value = call.value(1);
            call.pay_times(1)?;
            Ok(Value::from(call.list(0)?.iter().filter(|item| **item == value).count()))
        }),
        entry(&["index"], "l, value", |call| {
            let value = call.value(1);
            call.pay_times(1)?;
            let at = call.list(0)?.iter().position(|item| *item == value);
            at.map(Value::from).ok_or_else(|| refusal("the value is not in the list; ask by in before"))
        }),
        entry(&["copy"], "?l", |call| Ok(call.value(0))),
    ]
}

fn of_maps() -> Vec<Entry> {
    vec![
        entry(&["items"], "?m", |call| maps::items(call.pairs(0)?)),
        entry(&["keys"], "?m", |call| Ok(call.pairs(0)?.into_iter().map(|(key, _)| key).collect())),
        entry(&["values"], "?m", |call| Ok(call.pairs(0)?.into_iter().map(|(_, value)| value).collect())),
        entry(&["get"], "?m, key, default=", |call| {
            let key = call.value(1);
            if key.is_undefined() {
                return Err(python::undefined(&key));
            }
            match call.value(0).get_item(&key)? {
                value if value.is_undefined() => Ok(call.value(2)),
                value => Ok(value),
            }
        }),
        entry(&["copy"], "?m", |call| Ok(mapping(call.pairs(0)?))),
    ]
}
