//! `'%-5s' % x` and `'{:>5}'.format(x)`: texts with places for values.

use minijinja::{Error, Value, value::ValueKind};

use super::{python, refusal};

/// How wide a place may be, and how many digits it may have.
const WIDEST: usize = 4096;

#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
}

fn number_of(digits: &str) -> Result<usize, Error> {
    match digits.parse::<usize>() {
        Ok(number) if number <= WIDEST => Ok(number),
        _ => Err(refusal(format!("a place for a value is wider than {WIDEST}; more than 16 MiB could come of it"))),
    }
}

/// `pattern % args`, of the `%` operator and `format`: a tuple gives the values one after the other.
///
/// # Errors
/// The pattern is none, or the values do not fit it.
pub(in super::super) fn percent(pattern: &str, args: &[Value], named: Option<&Value>) -> Result<String, Error> {
    let mut out = String::with_capacity(pattern.len());
    let mut values = args.iter();
    let mut taken_by_name = false;
    let mut rest = pattern;
    let few = || refusal("there are fewer values than places in the pattern");
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut name = None;
        if let Some(after) = rest.strip_prefix('(') {
            let end = after.find(')').ok_or_else(|| refusal("a name in the pattern has no end"))?;
            name = Some(&after[..end]);
            rest = &after[end + 1..];
        }
        let mut flags = Flags::default();
        while let Some(c) = rest.chars().next() {
            match c {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                '#' => flags.alternate = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut star = |rest: &mut &str, flags: &mut Flags| -> Result<Option<usize>, Error> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                let given = values.next().ok_or_else(few)?;
                let given = python::whole(given).ok_or_else(|| refusal("* in the pattern wants a whole number"))?;
                flags.left |= given < 0;
                return number_of(&given.unsigned_abs().to_string()).map(Some);
            }
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            *rest = &rest[digits.len()..];
            if digits.is_empty() { Ok(None) } else { number_of(&digits).map(Some) }
        };
        let width = star(&mut rest, &mut flags)?.unwrap_or(0);
        let precision = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                Some(star(&mut rest, &mut flags)?.unwrap_or(0))
            }
            None => None,
        };
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let conversion = rest.chars().next().ok_or_else(|| refusal("the pattern ends within a place for a value"))?;
        rest = &rest[conversion.len_utf8()..];
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let value = match name {
            Some(name) => {
                taken_by_name = true;
                let found = named.and_then(|named| named.get_item(&Value::from(name)).ok());
                found
                    .filter(|value| !value.is_undefined())
                    .ok_or_else(|| refusal(format!("there is no value {name} for the pattern")))?
            }
            None => values.next().cloned().ok_or_else(few)?,
        };
        converted(&mut out, conversion, &value, &flags, width, precision)?;
    }
    out.push_str(rest);
    if values.next().is_some() && !taken_by_name {
        return Err(refusal("there are more values than places in the pattern"));
    }
    Ok(out)
}

fn converted(
    out: &mut String,
    conversion: char,
    value: &Value,
    flags: &Flags,
    width: usize,
    precision: Option<usize>,
) -> Result<(), Error> {
    let numeric = |value: &Value| {
        python::number(value)
            .ok_or_else(|| refusal(format!("%{conversion} wants a number, not {}", python::kind(value))))
    };
    let text = match conversion {
        's' | 'r' | 'a' => {
            let text = if conversion == 's' {
                python::text(value)?
            } else {
                let mut text = String::new();
                python::represent(&mut text, value)?;
                text
            };
            match precision {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            }
        }
        'c' => match (value.as_str(), python::whole(value)) {
            (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
            (None, Some(code)) => u32::try_from(code)
                .ok()
                .and_then(char::from_u32)
                .map(String::from)
                .ok_or_else(|| refusal("%c wants a character"))?,
            _ => return Err(refusal("%c wants a character")),
        },
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let whole = match (python::whole(value), conversion) {
                (Some(whole), _) => whole,
                (None, 'd' | 'i' | 'u') => numeric(value)?.trunc() as i128,
                _ => return Err(refusal(format!("%{conversion} wants a whole number"))),
            };
            let digits = digits_of(whole.unsigned_abs(), conversion);
            let digits = format!("{}{digits}", "0".repeat(precision.unwrap_or(0).saturating_sub(digits.len())));
            let front = match (flags.alternate, conversion) {
                (true, 'x') => "0x",
                (true, 'X') => "0X",
                (true, 'o') => "0o",
                _ => "",
            };
            return signed(out, whole < 0, front, &digits, flags, width);
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = numeric(value)?;
            let digits = real(number.abs(), conversion, precision.unwrap_or(6), flags.alternate);
            return signed(out, number.is_sign_negative() && !number.is_nan(), "", &digits, flags, width);
        }
        other => {
            return Err(refusal(format!(
                "%{other} is no place for a value; %s takes any, %d a whole number, %f one with a fraction"
            )));
        }
    };
    padded(out, &text, if flags.left { '<' } else { '>' }, ' ', width);
    Ok(())
}

fn digits_of(number: u128, conversion: char) -> String {
    match conversion {
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        'b' => format!("{number:b}"),
        _ => number.to_string(),
    }
}

fn signed(
    out: &mut String,
    negative: bool,
    front: &str,
    digits: &str,
    flags: &Flags,
    width: usize,
) -> Result<(), Error> {
    let sign = if negative {
        "-"
    } else if flags.plus {
        "+"
    } else if flags.space {
        " "
    } else {
        ""
    };
    let bare = sign.len() + front.len() + digits.len();
    if flags.zero && !flags.left && !digits.starts_with(['i', 'n', 'I', 'N']) {
        out.push_str(sign);
        out.push_str(front);
        out.push_str(&"0".repeat(width.saturating_sub(bare)));
        out.push_str(digits);
        return Ok(());
    }
    padded(out, &format!("{sign}{front}{digits}"), if flags.left { '<' } else { '>' }, ' ', width);
    Ok(())
}

fn padded(out: &mut String, text: &str, align: char, fill: char, width: usize) {
    let missing = width.saturating_sub(text.chars().count());
    let before = match align {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    out.extend(std::iter::repeat_n(fill, before));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - before));
}

/// A number that is not negative, as `printf` writes it.
pub(super) fn real(number: f64, conversion: char, precision: usize, alternate: bool) -> String {
    let text = if number.is_nan() {
        "nan".to_owned()
    } else if number.is_infinite() {
        "inf".to_owned()
    } else {
        match conversion.to_ascii_lowercase() {
            'e' => exponential(number, precision),
            'g' => {
                let significant = precision.max(1);
                let written = exponential(number, significant - 1);
                let exponent = written.rsplit('e').next().and_then(|e| e.parse::<i32>().ok()).unwrap_or(0);
                if exponent < -4 || exponent >= i32::try_from(significant).unwrap_or(i32::MAX) {
                    let (digits, tail) = written.split_once('e').unwrap_or((&written, ""));
                    let digits = if alternate { digits } else { stripped(digits) };
                    format!("{digits}e{tail}")
                } else {
                    let places =
                        usize::try_from(i32::try_from(significant).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
                    let plain = format!("{number:.places$}");
                    if alternate { plain } else { stripped(&plain).to_owned() }
                }
            }
            _ => format!("{number:.precision$}"),
        }
    };
    if conversion.is_ascii_uppercase() { text.to_uppercase() } else { text }
}

fn stripped(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

fn exponential(number: f64, precision: usize) -> String {
    let written = format!("{number:.precision$e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `pattern.format(…)`.
///
/// # Errors
/// The pattern is none, or the values do not fit it.
pub(super) fn braces(pattern: &str, args: &[Value], named: &[(String, Value)]) -> Result<String, Error> {
    let mut out = String::with_capacity(pattern.len());
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let mark = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(mark) {
            out.push_str(mark);
            rest = after;
            continue;
        }
        let end = rest
            .find('}')
            .filter(|_| mark == "{")
            .ok_or_else(|| refusal("a brace in the pattern stands alone; write it twice"))?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        if field.contains('{') {
            return Err(refusal("a place within a place is not to be had; write the width as a number"));
        }
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let value = if name.is_empty() {
            next += 1;
            args.get(next - 1)
        } else if let Ok(place) = name.parse::<usize>() {
            args.get(place)
        } else if name.contains(['.', '[']) {
            return Err(refusal("a place names a value only; give the field as the value"));
        } else {
            named.iter().find(|(known, _)| known == name).map(|(_, value)| value)
        };
        let value = value.ok_or_else(|| refusal("there are fewer values than places in the pattern"))?;
        let value = match conversion {
            None => value.clone(),
            Some("s") => Value::from(python::text(value)?),
            Some("r") => {
                let mut text = String::new();
                python::represent(&mut text, value)?;
                Value::from(text)
            }
            Some(other) => return Err(refusal(format!("!{other} is not to be had in a pattern; !s and !r are"))),
        };
        specified(&mut out, &value, spec)?;
    }
    out.push_str(rest);
    Ok(out)
}

/// One value by `[[fill]align][sign][#][0][width][,][.precision][type]`.
fn specified(out: &mut String, value: &Value, spec: &str) -> Result<(), Error> {
    if spec.is_empty() {
        return python::write(out, value);
    }
    let wrong = || refusal(format!("{spec:?} is no way to write {}", python::kind(value)));
    let characters: Vec<char> = spec.chars().collect();
    let mut place = 0;
    let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
    let (mut fill, mut align) = (' ', None);
    if is_align(characters.get(1)) {
        (fill, align) = (characters[0], characters.get(1).copied());
        place = 2;
    } else if is_align(characters.first()) {
        align = characters.first().copied();
        place = 1;
    }
    let mut take = |allowed: &[char]| {
        let found = characters.get(place).copied().filter(|c| allowed.contains(c));
        place += usize::from(found.is_some());
        found
    };
    let sign = take(&['+', '-', ' ']);
    let alternate = take(&['#']).is_some();
    if take(&['0']).is_some() && align.is_none() {
        (fill, align) = ('0', Some('='));
    }
    let digits = |place: &mut usize| {
        let found: String = characters[*place..].iter().take_while(|c| c.is_ascii_digit()).collect();
        *place += found.len();
        found
    };
    let width = digits(&mut place);
    let width = if width.is_empty() { 0 } else { number_of(&width)? };
    let grouping = characters.get(place).copied().filter(|c| matches!(c, ',' | '_'));
    place += usize::from(grouping.is_some());
    let mut precision = None;
    if characters.get(place) == Some(&'.') {
        place += 1;
        precision = Some(number_of(&digits(&mut place))?);
    }
    let kind = characters.get(place).copied();
    if characters.len() > place + 1 {
        return Err(wrong());
    }
    let is_number =
        value.kind() == ValueKind::Number || value.kind() == ValueKind::Bool && kind.is_some_and(|kind| kind != 's');
    if !is_number {
        if sign.is_some()
            || alternate
            || align == Some('=')
            || !matches!(kind, None | Some('s'))
            || value.kind() != ValueKind::String
        {
            return Err(wrong());
        }
        let text = python::text(value)?;
        let text = match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        };
        padded(out, &text, align.unwrap_or('<'), fill, width);
        return Ok(());
    }
    let whole = python::whole(value);
    let (negative, mut digits, percent) = match (kind, whole) {
        (None | Some('d' | 'x' | 'X' | 'o' | 'b'), Some(whole)) if precision.is_none() => {
            (whole < 0, digits_of(whole.unsigned_abs(), kind.unwrap_or('d')), "")
        }
        (Some('d' | 'x' | 'X' | 'o' | 'b'), _) => return Err(wrong()),
        _ => {
            let number = python::number(value).ok_or_else(wrong)?;
            let negative = number.is_sign_negative();
            let text = match kind {
                None if precision.is_none() => python::float(number.abs()),
                None => real(number.abs(), 'g', precision.unwrap_or(6), false),
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G') => {
                    real(number.abs(), kind.unwrap_or('f'), precision.unwrap_or(6), alternate)
                }
                Some('%') => real(number.abs() * 100.0, 'f', precision.unwrap_or(6), alternate),
                _ => return Err(wrong()),
            };
            (negative, text, if kind == Some('%') { "%" } else { "" })
        }
    };
    if let Some(mark) = grouping {
        let (integral, fraction) =
            digits.split_once('.').map_or((digits.as_str(), String::new()), |(a, b)| (a, format!(".{b}")));
        let mut grouped = String::new();
        for (at, digit) in integral.chars().enumerate() {
            if at > 0 && (integral.len() - at).is_multiple_of(3) {
                grouped.push(mark);
            }
            grouped.push(digit);
        }
        digits = grouped + &fraction;
    }
    let front = match (alternate, kind) {
        (true, Some('x')) => "0x",
        (true, Some('X')) => "0X",
        (true, Some('o')) => "0o",
        (true, Some('b')) => "0b",
        _ => "",
    };
    let sign = match sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    };
    let bare = sign.len() + front.len() + digits.len() + percent.len();
    if align == Some('=') {
        out.push_str(sign);
        out.push_str(front);
        out.extend(std::iter::repeat_n(fill, width.saturating_sub(bare)));
        out.push_str(&digits);
        out.push_str(percent);
        return Ok(());
    }
    padded(out, &format!("{sign}{front}{digits}{percent}"), align.unwrap_or('>'), fill, width);
    Ok(())
}

/// What a pattern costs: each place may hold all values, or be as wide as allowed.
pub(in super::super) fn cost(pattern: &str, paid: u64) -> u64 {
    let places = pattern.matches(['%', '{']).count() as u64;
    let digits = pattern.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widest = digits.map(|digits| digits.parse::<u64>().unwrap_or(u64::MAX)).max().unwrap_or(0);
    let widest = if pattern.contains('*') { WIDEST as u64 } else { widest };
    places
        .saturating_mul(paid.saturating_mul(8).saturating_add(widest).saturating_add(400))
        .saturating_add(pattern.len() as u64)
}
