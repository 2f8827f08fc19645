//! JSON, written and read as Python's `json` does.

use minijinja::{Error, Value, value::ValueKind};

use super::{Call, Entry, Made, entry, mapping, pairs, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["tojson"], "value, indent=", |call| {
            let mut how = How { sort: true, html: true, ..How::default() };
            how.indent = indent(call, 1)?;
            written(call, &how)
        }),
        entry(&["to_json"], "a, **named", |call| {
            let how = How::given(call, How::default())?;
            written(call, &how)
        }),
        entry(&["to_nice_json"], "a, indent=, sort_keys=, **named", |call| {
            let mut how =
                How::given(call, How { sort: call.flag(2, true), indent: Some("    ".into()), ..How::default() })?;
            if call.given(1).is_some() {
                how.indent = indent(call, 1)?;
            }
            how.between = ",".into();
            written(call, &how)
        }),
        entry(&["from_json"], "a", |call| {
            let text = call.string(0)?;
            call.pay_times(super::ITEM)?;
            let mut reader = Reader { text: &text, at: 0, depth: 0 };
            reader.blank();
            let value = reader.value()?;
            reader.blank();
            if reader.at < text.len() { Err(reader.wrong("there is more behind it")) } else { Ok(value) }
        }),
    ]
}

struct How {
    indent: Option<String>,
    sort: bool,
    ascii: bool,
    /// Whether what HTML would take for its own is escaped.
    html: bool,
    between: String,
    colon: String,
}

impl Default for How {
    fn default() -> Self {
        Self { indent: None, sort: false, ascii: true, html: false, between: String::new(), colon: ": ".into() }
    }
}

/// How wide an indent may be.
const WIDEST: i64 = 1000;

fn indent_of(call: &mut Call, value: &Value, name: &str) -> Result<Option<String>, Error> {
    let text = match (value.as_str(), python::whole(value)) {
        _ if value.is_none() => return Ok(None),
        (Some(text), _) => text.to_owned(),
        (None, Some(width)) => {
            let width = width.clamp(0, i128::from(i64::MAX)) as i64;
            let units = call.paid.saturating_mul(width as u64);
            call.pay(units)?;
            if width > WIDEST {
                return Err(refusal(format!("{name} is wider than {WIDEST}")));
            }
            " ".repeat(usize::try_from(width).unwrap_or(0))
        }
        _ => return Err(refusal(format!("{name} is to be a number or text, and is {}", python::kind(value)))),
    };
    Ok(Some(text))
}

fn indent(call: &mut Call, place: usize) -> Result<Option<String>, Error> {
    let value = call.value(place);
    indent_of(call, &value, "indent")
}

impl How {
    fn given(call: &mut Call, mut how: Self) -> Result<Self, Error> {
        for (name, value) in call.named.clone() {
            match name.as_str() {
                "indent" => how.indent = indent_of(call, &value, "indent")?,
                "sort_keys" => how.sort = value.is_true(),
                "ensure_ascii" => how.ascii = value.is_true(),
                "separators" => {
                    let part = |place| match value.get_item_by_index(place) {
                        Ok(part) if part.as_str().is_some() => python::text(&part),
                        _ => Err(refusal("separators are to be two texts, as in (',', ':')")),
                    };
                    (how.between, how.colon) = (part(0)?, part(1)?);
                }
                // They concern vaults and custom types of Ansible, which there are none of here.
                "vault_to_text" | "preprocess_unsafe" | "profile" | "skipkeys" | "allow_nan" => {}
                other => {
                    return Err(refusal(format!(
                        "there is no argument {other}; indent, sort_keys, ensure_ascii and separators are"
                    )));
                }
            }
        }
        Ok(how)
    }
}

fn written(call: &mut Call, how: &How) -> Made {
    let line = how.indent.as_ref().map_or(0, String::len) as u64;
    let units = call.paid.saturating_mul(8 + line * 2 + (how.between.len() + how.colon.len()) as u64);
    call.pay(units)?;
    let mut out = String::new();
    write(&mut out, &call.value(0), how, 0)?;
    Ok(Value::from(out))
}

fn write(out: &mut String, value: &Value, how: &How, depth: usize) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = &how.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    let between = |out: &mut String| match (how.between.as_str(), &how.indent) {
        ("", Some(_)) => out.push(','),
        ("", None) => out.push_str(", "),
        (between, _) => out.push_str(between),
    };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => match python::number(value).unwrap_or(f64::NAN) {
            number if number.is_nan() => out.push_str("NaN"),
            number if number.is_infinite() => out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" }),
            number => out.push_str(&python::float(number)),
        },
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default(), how),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    between(out);
                }
                line(out, depth + 1);
                write(out, item, how, depth + 1)?;
            }
            if !items.is_empty() {
                line(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut items = pairs(value)?;
            if how.sort {
                python::sort(&mut items, false)?;
            }
            out.push('{');
            for (place, (key, item)) in items.iter().enumerate() {
                if place > 0 {
                    between(out);
                }
                line(out, depth + 1);
                let mut name = String::new();
                match key.as_str() {
                    Some(text) => name.push_str(text),
                    None => write(&mut name, key, how, 0)?,
                }
                quoted(out, &name, how);
                out.push_str(&how.colon);
                write(out, item, how, depth + 1)?;
            }
            if !items.is_empty() {
                line(out, depth);
            }
            out.push('}');
        }
        ValueKind::Undefined => return Err(python::undefined(value)),
        _ => return Err(refusal("this is no value that JSON has")),
    }
    Ok(())
}

fn quoted(out: &mut String, text: &str, how: &How) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\'' if how.html => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if u32::from(c) < 0x20 || how.ascii && !(' '..='~').contains(&c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// How deep JSON may lie.
const DEEPEST: usize = 60;

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn wrong(&self, why: &str) -> Error {
        let line = self.text[..self.at.min(self.text.len())].matches('\n').count() + 1;
        refusal(format!("filter from_json: it is no JSON, in line {line}: {why}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn takes(&mut self, mark: &str) -> bool {
        let is_there = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(mark));
        self.at += if is_there { mark.len() } else { 0 };
        is_there
    }

    fn value(&mut self) -> Made {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Value::from),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => self.number(),
            _ if self.takes("true") => Ok(Value::from(true)),
            _ if self.takes("false") => Ok(Value::from(false)),
            _ if self.takes("null") => Ok(Value::from(())),
            _ => Err(self.wrong("a value is missing")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Made) -> Made {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong("lists and objects lie too deep in each other"));
        }
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Made {
        let mut items = Vec::new();
        self.blank();
        if self.takes("]") {
            return Ok(items.into());
        }
        loop {
            self.blank();
            items.push(self.value()?);
            self.blank();
            if self.takes("]") {
                return Ok(items.into());
            }
            if !self.takes(",") {
                return Err(self.wrong("a comma or ] is missing"));
            }
        }
    }

    fn object(&mut self) -> Made {
        let mut items = Vec::new();
        self.blank();
        if self.takes("}") {
            return Ok(mapping(items));
        }
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a name in quotes is missing"));
            }
            let name = self.string()?;
            self.blank();
            if !self.takes(":") {
                return Err(self.wrong("a colon is missing"));
            }
            self.blank();
            items.push((Value::from(name), self.value()?));
            self.blank();
            if self.takes("}") {
                return Ok(mapping(items));
            }
            if !self.takes(",") {
                return Err(self.wrong("a comma or } is missing"));
            }
        }
    }

    fn number(&mut self) -> Made {
        for (mark, number) in [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)] {
            if self.takes(mark) {
                return Ok(Value::from(number));
            }
        }
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let digits = &rest[..end];
        let bare = digits.strip_prefix('-').unwrap_or(digits);
        let has_front = bare.starts_with(|c: char| c.is_ascii_digit())
            && !(bare.len() > 1 && bare.starts_with('0') && bare.as_bytes()[1].is_ascii_digit());
        let is_whole = bare.bytes().all(|c| c.is_ascii_digit());
        let ends_well = digits.ends_with(|c: char| c.is_ascii_digit()) && !bare.contains(".e") && !bare.contains(".E");
        let value = match (has_front && ends_well, is_whole) {
            (true, true) => digits.parse::<i128>().ok().map(python::integer),
            (true, false) => digits.parse::<f64>().ok().map(Value::from),
            _ => None,
        };
        let value = value.ok_or_else(|| self.wrong("a number is malformed or too large"))?;
        self.at += end;
        Ok(value)
    }

    fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(c) = rest.chars().next() else { return Err(self.wrong("a text has no end")) };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escaped()?),
                c if u32::from(c) < 0x20 => {
                    return Err(self.wrong("a text has a control character; write \\n for a line break"));
                }
                c => out.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Error> {
        let c = self.peek();
        self.at += 1;
        Ok(match c {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(c @ (b'"' | b'\\' | b'/')) => c.into(),
            Some(b'u') => {
                let first = self.code()?;
                let code = match first {
                    0xd800..=0xdbff if self.takes("\\u") => {
                        let second = self.code()?;
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(self.wrong("half of a character is missing"));
                        }
                        0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| self.wrong("half of a character is missing"))?
            }
            _ => return Err(self.wrong("a \\ stands before what it cannot stand before")),
        })
    }

    fn code(&mut self) -> Result<u32, Error> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| self.wrong("\\u is followed by four digits"))
    }
}
