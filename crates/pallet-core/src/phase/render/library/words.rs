//! Quotes, comments, and what stands for something else.

use std::sync::Arc;

use minijinja::{Value, value::Object};

use super::{Call, Entry, Made, entry, python, refusal};

/// A text that is words of a shell already. In a script it is written as it is; nothing else can be done with it.
#[derive(Debug)]
pub(in super::super) struct Quoted(pub(in super::super) String);

impl Object for Quoted {
    fn repr(self: &Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }
}

/// `shlex.quote` of Python.
pub(in super::super) fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["quote"], "value", |call| {
            let text = if call.value(0).is_none() { String::new() } else { call.text(0)? };
            call.pay_times(8)?;
            Ok(Value::from(shell_quote(&text)))
        }),
        entry(&["comment"], "text, style=, **named", comment),
        entry(&["default", "d"], "?value, default_value=, boolean=", |call| {
            let value = call.value(0);
            if value.is_undefined() || call.flag(2, false) && !value.is_true() {
                return Ok(call.given(1).cloned().unwrap_or_else(|| Value::from("")));
            }
            Ok(value)
        }),
        entry(&["mandatory"], "?a, msg=", |call| {
            let value = call.value(0);
            match value.is_undefined() {
                true if call.given(1).is_some() => Err(refusal(call.text(1)?)),
                true => Err(python::undefined(&value)),
                false => Ok(value),
            }
        }),
        entry(&["ternary"], "?value, true_val, false_val, none_val=", |call| {
            let value = call.value(0);
            if value.is_undefined() {
                return Err(python::undefined(&value));
            }
            let chosen = if value.is_none() && call.given(3).is_some_and(|other| !other.is_none()) {
                3
            } else if value.is_true() {
                1
            } else {
                2
            };
            Ok(call.value(chosen))
        }),
        entry(&["type_debug"], "obj", |call| {
            let value = call.value(0);
            Ok(Value::from(match python::kind(&value) {
                "null" => "NoneType",
                "true or false" => "bool",
                "a number" if value.is_integer() => "int",
                "a number" => "float",
                "text" => "str",
                "a list" if value.is_tuple() => "tuple",
                "a list" => "list",
                "a mapping" => "dict",
                _ => "object",
            }))
        }),
    ]
}

fn comment(call: &mut Call) -> Made {
    let text = call.string(0)?;
    let (beginning, decoration, end) = match call.string_or(1, "plain")?.as_str() {
        "plain" => ("", "# ", ""),
        "erlang" => ("", "% ", ""),
        "c" => ("", "// ", ""),
        "cblock" => ("/*", " * ", " */"),
        "xml" => ("<!--", " - ", "-->"),
        other => {
            return Err(refusal(format!(
                "filter comment: there is no style {other}; plain, erlang, c, cblock and xml are"
            )));
        }
    };
    let known = ["newline", "beginning", "prefix", "prefix_count", "decoration", "postfix", "postfix_count", "end"];
    if let Some((name, _)) = call.named.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(refusal(format!("filter comment has no argument {name}; it takes style, {}", known.join(", "))));
    }
    let given = |name: &str, other: &str| match call.named(name) {
        Some(value) => python::text(value),
        None => Ok(other.to_owned()),
    };
    let count = |name: &str| match call.named(name) {
        Some(value) => python::whole(value)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= 1000)
            .ok_or_else(|| refusal(format!("filter comment: {name} is to be a number up to 1000"))),
        None => Ok(1),
    };
    let (newline, beginning, decoration) =
        (given("newline", "\n")?, given("beginning", beginning)?, given("decoration", decoration)?);
    let bare = decoration.trim_end();
    let (prefix, postfix, end) = (given("prefix", bare)?, given("postfix", bare)?, given("end", end)?);
    let (before, after) = (count("prefix_count")?, count("postfix_count")?);
    if newline.is_empty() {
        return Err(refusal("filter comment: newline is empty"));
    }
    let lines = text.matches(newline.as_str()).count() as u64 + 2;
    let longest = (newline.len() + decoration.len()) as u64;
    let fixed = (prefix.len() + newline.len()) * before + (postfix.len() + newline.len()) * after;
    call.pay(lines.saturating_mul(longest).saturating_mul(3).saturating_add(fixed as u64 + 4 * text.len() as u64))?;
    let mut out = String::new();
    if !beginning.is_empty() {
        out += &format!("{beginning}{newline}");
    }
    if !prefix.is_empty() {
        let one = if prefix == newline { newline.clone() } else { format!("{prefix}{newline}") };
        out += &one.repeat(before);
    }
    let decorated = format!("{decoration}{}", text.replace(&newline, &format!("{newline}{decoration}")));
    let bare = decoration.trim_end();
    out += &decorated.replace(&format!("{decoration}{newline}"), &format!("{bare}{newline}"));
    out += &format!("{newline}{postfix}").repeat(after);
    if !end.is_empty() {
        out += &format!("{newline}{end}");
    }
    Ok(Value::from(out))
}
