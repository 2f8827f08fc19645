//! YAML 1.1, written and read as PyYAML does.

mod emit;
mod read;

use minijinja::Value;

use super::{Call, Entry, Made, entry, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["to_yaml"], "a, **named", |call| written(call, 2, None)),
        entry(&["to_nice_yaml"], "a, indent=, **named", |call| {
            let indent = call.integer_or(1, 4)?;
            written(call, indent, Some(false))
        }),
        entry(&["from_yaml"], "data", |call| match call.value(0) {
            value if value.is_none() => Ok(value),
            _ => {
                let text = call.string(0)?;
                call.pay_times(super::ITEM)?;
                read::read(call, &text)
            }
        }),
    ]
}

fn written(call: &mut Call, indent: i64, flow: Option<bool>) -> Made {
    let mut style = emit::Style { indent: 2, width: 80, flow, sort: true, unicode: true, start: false };
    let mut indent = indent;
    for (name, value) in call.named.clone() {
        let number = || python::whole(&value).and_then(|number| i64::try_from(number).ok());
        match name.as_str() {
            "indent" => indent = number().ok_or_else(|| refusal("indent is to be a number"))?,
            "width" => {
                let width =
                    number().filter(|width| *width > 0).ok_or_else(|| refusal("width is to be a number above 0"))?;
                style.width = usize::try_from(width).unwrap_or(usize::MAX);
            }
            "default_flow_style" => style.flow = if value.is_none() { None } else { Some(value.is_true()) },
            "sort_keys" => style.sort = value.is_true(),
            "allow_unicode" => style.unicode = value.is_true(),
            "explicit_start" => style.start = value.is_true(),
            other => {
                let known = "indent, width, default_flow_style, sort_keys, allow_unicode and explicit_start";
                return Err(refusal(format!("there is no argument {other}; {known} are")));
            }
        }
    }
    // Others than these PyYAML takes for 2.
    style.indent = usize::try_from(indent).ok().filter(|indent| (2..10).contains(indent)).unwrap_or(2);
    // Each line may begin with as many blanks as it lies deep.
    let units = call.paid.saturating_mul(8 + 4 * style.indent as u64);
    call.pay(units)?;
    emit::emit(&call.value(0), &style).map(Value::from)
}

/// What a plain scalar means in YAML 1.1.
#[derive(Debug, PartialEq)]
enum Plain {
    Text,
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// A day or a moment, which templates have no values for.
    Time,
    /// `<<` or `=`.
    Special,
}

/// What a plain scalar means.
fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Plain::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Plain::Bool(false),
        "<<" | "=" => return Plain::Special,
        ".nan" | ".NaN" | ".NAN" => return Plain::Float(f64::NAN),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Plain::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if let Some(number) = integer(digits) {
        return number.map_or(Plain::Text, |number| Plain::Int(if negative { -number } else { number }));
    }
    if let Some(number) = real(digits) {
        return Plain::Float(if negative { -number } else { number });
    }
    if is_time(text) { Plain::Time } else { Plain::Text }
}

/// None where it is no whole number, and nothing in it where it is one that is too large.
fn integer(digits: &str) -> Option<Option<i128>> {
    let in_base = |rest: &str, base: u32| {
        let rest = rest.replace('_', "");
        (!rest.is_empty() && rest.chars().all(|c| c.is_digit(base))).then(|| i128::from_str_radix(&rest, base).ok())
    };
    if let Some(rest) = digits.strip_prefix("0b") {
        return in_base(rest, 2);
    }
    if let Some(rest) = digits.strip_prefix("0x") {
        return in_base(rest, 16);
    }
    if digits.contains(':') {
        let mut parts = digits.split(':');
        let first = parts.next().filter(|first| first.starts_with(|c: char| matches!(c, '1'..='9')))?;
        let mut number = in_base(first, 10)??;
        for part in parts {
            let fits = matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
            let part: i128 = part.parse().ok().filter(|_| fits)?;
            number = match number.checked_mul(60).and_then(|number| number.checked_add(part)) {
                Some(number) => number,
                None => return Some(None),
            };
        }
        return Some(Some(number));
    }
    match digits.as_bytes() {
        [b'0'] => Some(Some(0)),
        [b'0', ..] => in_base(&digits[1..], 8),
        [b'1'..=b'9', ..] => in_base(digits, 10),
        _ => None,
    }
}

fn real(digits: &str) -> Option<f64> {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let (front, fraction) = mantissa.split_once('.')?;
    let fits = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let has_front = front.starts_with(|c: char| c.is_ascii_digit());
    if !fits(front)
        || !fits(fraction)
        || !(has_front || front.is_empty() && fraction.starts_with(|c: char| c.is_ascii_digit()))
    {
        return None;
    }
    if let Some(exponent) = exponent {
        let rest = exponent.strip_prefix(['+', '-'])?;
        if rest.is_empty() || !rest.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
    }
    digits.replace('_', "").parse().ok()
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| {
        bytes.get(from..from + count).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if !digits(0, 4) || bytes.get(4) != Some(&b'-') {
        return false;
    }
    let day = digits(5, 2) && bytes.get(7) == Some(&b'-') && digits(8, 2);
    if day && bytes.len() == 10 {
        return true;
    }
    // A day and a time behind T or blanks: close enough to be refused.
    let rest = text.get(5..).unwrap_or_default();
    let Some((day, time)) = rest.split_once(['T', 't', ' ', '\t']) else { return false };
    let mut parts = day.split('-');
    let short = |part: Option<&str>| {
        part.is_some_and(|part| matches!(part.len(), 1 | 2) && part.bytes().all(|c| c.is_ascii_digit()))
    };
    let is_day = short(parts.next()) && short(parts.next()) && parts.next().is_none();
    let time = time.trim_start();
    is_day && time.matches(':').count() >= 2 && time.chars().all(|c| c.is_ascii_digit() || ":.Zz+- \t".contains(c))
}
