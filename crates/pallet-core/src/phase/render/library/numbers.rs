//! Filters over numbers, and texts that stand for numbers.

use minijinja::{Error, Value, value::ValueKind};

use super::{Call, Entry, Made, entry, format::real, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["int"], "value, default=, base=", int),
        entry(&["float"], "value, default=", |call| {
            let value = call.value(0);
            Ok(match float_of(&value) {
                Some(number) => Value::from(number),
                None => call.given(1).cloned().unwrap_or_else(|| Value::from(0.0)),
            })
        }),
        entry(&["bool"], "value", boolean),
        entry(&["abs"], "x", |call| {
            let value = call.value(0);
            match (python::whole(&value), python::number(&value)) {
                (Some(whole), _) => Ok(python::integer(whole.checked_abs().ok_or_else(large)?)),
                (None, Some(number)) => Ok(Value::from(number.abs())),
                _ => Err(call.refuse(0, "a number", &value)),
            }
        }),
        entry(&["round"], "value, precision=, method=", round),
        entry(&["pow"], "x, y", |call| {
            let (x, y) = (number(call, 0)?, number(call, 1)?);
            finite(x.powf(y))
        }),
        entry(&["root"], "x, base=", |call| {
            let x = number(call, 0)?;
            let base = if call.given(1).is_some() { number(call, 1)? } else { 2.0 };
            finite(if base == 2.0 { x.sqrt() } else { x.powf(1.0 / base) })
        }),
        entry(&["log"], "x, base=", |call| {
            let x = number(call, 0)?;
            if x <= 0.0 {
                return Err(refusal("filter log: there is a logarithm of what is more than 0 only"));
            }
            finite(match call.given(1) {
                None => x.ln(),
                Some(_) => match number(call, 1)? {
                    10.0 => x.log10(),
                    2.0 => x.ln() / std::f64::consts::LN_2,
                    base => x.ln() / base.ln(),
                },
            })
        }),
        entry(&["human_readable"], "size, isbits=, unit=", human_readable),
        entry(&["human_to_bytes"], "size, default_unit=, isbits=", human_to_bytes),
        entry(&["filesizeformat"], "value, binary=", filesizeformat),
    ]
}

fn large() -> Error {
    refusal("the number is too large")
}

fn finite(number: f64) -> Made {
    if number.is_finite() {
        Ok(Value::from(number))
    } else {
        Err(refusal("it comes to no number, or to one that is too large"))
    }
}

fn number(call: &Call, place: usize) -> Result<f64, Error> {
    let value = call.value(place);
    python::number(&value).ok_or_else(|| call.refuse(place, "a number", &value))
}

/// `float(value)`. None where it fails.
fn float_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => parse_float(text),
        None => python::number(value),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let digits = joined(text.trim_matches(super::texts::is_blank))?;
    digits.parse().ok()
}

/// Digits may have single underscores between them.
fn joined(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_alphanumeric);
    let fits = |(place, _): (usize, &str)| place > 0 && is_digit(place - 1) && is_digit(place + 1);
    text.match_indices('_').all(fits).then(|| text.replace('_', ""))
}

/// `int(text, base)`. None where it fails.
fn parse_int(text: &str, base: i64) -> Result<Option<i128>, Error> {
    let text = text.trim_matches(super::texts::is_blank);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let front = |mark: &str, of: i64| if base == of || base == 0 { lower.strip_prefix(mark) } else { None };
    let (base, digits) = if let Some(rest) = front("0x", 16) {
        (16, rest)
    } else if let Some(rest) = front("0o", 8) {
        (8, rest)
    } else if let Some(rest) = front("0b", 2) {
        (2, rest)
    } else if base == 0 {
        if lower.len() > 1 && lower.starts_with('0') && lower.chars().any(|c| !matches!(c, '0' | '_')) {
            return Ok(None);
        }
        (10, lower.as_str())
    } else {
        (base, lower.as_str())
    };
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| refusal("filter int: base is to be 0, or 2 to 36"))?;
    let digits = digits.strip_prefix('_').filter(|_| lower.starts_with('0') && base != 10).unwrap_or(digits);
    let Some(digits) = joined(digits) else { return Ok(None) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let number = i128::from_str_radix(&digits, base).map_err(|_| large())?;
    Ok(Some(if negative { -number } else { number }))
}

fn int(call: &mut Call) -> Made {
    let value = call.value(0);
    let base = call.integer_or(2, 10)?;
    if let Some(text) = value.as_str()
        && let Some(number) = parse_int(text, base)?
    {
        return Ok(python::integer(number));
    }
    if let Some(whole) = python::whole(&value) {
        return Ok(python::integer(whole));
    }
    match float_of(&value) {
        Some(number) if number.is_finite() => {
            // Beyond that a number with a fraction holds no whole one any more.
            if number.abs() > 1e36 { Err(large()) } else { Ok(python::integer(number.trunc() as i128)) }
        }
        Some(_) if value.as_str().is_none() => Err(refusal("this is no number that has a whole part")),
        _ => Ok(call.given(1).cloned().unwrap_or_else(|| Value::from(0))),
    }
}

fn boolean(call: &mut Call) -> Made {
    let value = call.value(0);
    let known = match (value.kind(), value.as_str()) {
        (ValueKind::Bool, _) => Some(value.is_true()),
        (ValueKind::None, _) => Some(false),
        (_, Some(text)) => match text.to_lowercase().as_str() {
            "yes" | "on" | "true" | "1" => Some(true),
            "no" | "off" | "false" | "0" | "" => Some(false),
            _ => None,
        },
        _ => match python::number(&value) {
            Some(1.0) => Some(true),
            Some(0.0) => Some(false),
            _ => None,
        },
    };
    known.map(Value::from).ok_or_else(|| {
        let mut written = String::new();
        let shown = python::represent(&mut written, &value).map_or("it", |()| written.as_str());
        let shown = pallet_api::conditions::clip(shown, 40);
        refusal(format!("{shown} is neither true nor false; bool takes true, yes, on, 1 and false, no, off, 0; compare the value instead, as in x != ''"))
    })
}

fn round(call: &mut Call) -> Made {
    let value = call.value(0);
    let precision = call.integer_or(1, 0)?;
    let method = call.string_or(2, "common")?;
    call.pay(4 * precision.unsigned_abs().min(1100))?;
    let Some(number) = python::number(&value) else { return Err(call.refuse(0, "a number", &value)) };
    let ten = || 10_f64.powi(i32::try_from(precision.clamp(-400, 400)).unwrap_or(0));
    match method.as_str() {
        "common" => match python::whole(&value) {
            Some(whole) if precision >= 0 => Ok(python::integer(whole)),
            Some(whole) => {
                let step = 10_i128.checked_pow(u32::try_from(-precision).unwrap_or(u32::MAX)).ok_or_else(large)?;
                let (below, rest) = (whole.div_euclid(step), whole.rem_euclid(step));
                let up = rest * 2 > step || rest * 2 == step && below % 2 != 0;
                Ok(python::integer((below + i128::from(up)).checked_mul(step).ok_or_else(large)?))
            }
            None if precision >= 0 => {
                let places = usize::try_from(precision.min(340)).unwrap_or(340);
                Ok(Value::from(format!("{number:.places$}").parse::<f64>().unwrap_or(number)))
            }
            None => {
                let step = 1.0 / ten();
                if step.is_finite() {
                    Ok(Value::from((number / step).round_ties_even() * step))
                } else {
                    Ok(Value::from(0.0))
                }
            }
        },
        "ceil" => Ok(Value::from((number * ten()).ceil() / ten())),
        "floor" => Ok(Value::from((number * ten()).floor() / ten())),
        other => Err(refusal(format!("filter round: there is no method {other}; common, ceil and floor are"))),
    }
}

const SIZES: [(char, f64, &str); 9] = [
    ('Y', 1_208_925_819_614_629_174_706_176.0, "yotta"),
    ('Z', 1_180_591_620_717_411_303_424.0, "zeta"),
    ('E', 1_152_921_504_606_846_976.0, "exa"),
    ('P', 1_125_899_906_842_624.0, "peta"),
    ('T', 1_099_511_627_776.0, "tera"),
    ('G', 1_073_741_824.0, "giga"),
    ('M', 1_048_576.0, "mega"),
    ('K', 1024.0, "kilo"),
    ('B', 1.0, ""),
];

fn human_readable(call: &mut Call) -> Made {
    let size = number(call, 0)?;
    let is_bits = call.flag(1, false);
    let unit = match call.given(2).filter(|unit| !unit.is_none()) {
        Some(_) => call.string(2)?.to_uppercase().chars().next(),
        None => None,
    };
    let found = SIZES.iter().find(|(letter, limit, _)| unit.map_or(size >= *limit, |unit| unit == *letter));
    let (letter, limit, _) = found.unwrap_or(&SIZES[8]);
    let suffix = match (*limit == 1.0, is_bits) {
        (true, false) => "Bytes".to_owned(),
        (true, true) => "bits".to_owned(),
        (false, bits) => format!("{letter}{}", if bits { 'b' } else { 'B' }),
    };
    let sign = if size < 0.0 { "-" } else { "" };
    Ok(Value::from(format!("{sign}{} {suffix}", real((size / limit).abs(), 'f', 2, false))))
}

fn human_to_bytes(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let wrong = |why: &str| refusal(format!("filter human_to_bytes: {why}; write 10M, 10MB or 1.5G"));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !digits.ends_with(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
        return Err(wrong("it is no size"));
    }
    let size: f64 = digits.parse().map_err(|_| wrong("it is no size"))?;
    let mut unit = unit.trim_matches(char::is_whitespace).to_owned();
    if !unit.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(wrong("it is no size"));
    }
    if unit.is_empty() {
        unit = match call.given(1).filter(|unit| !unit.is_none()) {
            Some(_) => call.string(1)?,
            None => return whole(size),
        };
    }
    let is_bits = call.flag(2, false);
    let letter = unit.chars().next().unwrap_or(' ').to_ascii_uppercase();
    let Some((_, limit, name)) = SIZES.iter().find(|(known, ..)| *known == letter) else {
        return Err(wrong("the unit is not one of Y, Z, E, P, T, G, M, K, B"));
    };
    if unit.len() > 1 {
        let (long, mark) = if is_bits { ("bit", 'b') } else { ("byte", 'B') };
        let short = if letter == 'B' { mark.to_string() } else { format!("{letter}{mark}") };
        if unit.to_lowercase() != format!("{name}{long}") && unit != short {
            return Err(wrong(&format!("the unit is to be {short} or {letter}")));
        }
    }
    whole(size * limit)
}

fn whole(number: f64) -> Made {
    let rounded = number.round_ties_even();
    if rounded.abs() < 1e36 { Ok(python::integer(rounded as i128)) } else { Err(large()) }
}

fn filesizeformat(call: &mut Call) -> Made {
    let value = call.value(0);
    let bytes = float_of(&value).ok_or_else(|| call.refuse(0, "a number", &value))?;
    let is_binary = call.flag(1, false);
    let base: f64 = if is_binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc() as i64)));
    }
    let names = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    for (place, name) in names.iter().enumerate() {
        unit *= base;
        if bytes < unit || place + 1 == names.len() {
            let name = if is_binary { format!("{}iB", name.to_uppercase()) } else { format!("{name}B") };
            return Ok(Value::from(format!("{} {name}", real(base * bytes / unit, 'f', 1, false))));
        }
    }
    Ok(Value::from(""))
}
