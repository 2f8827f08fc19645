//! Writes YAML as the emitter of PyYAML does, line by line.

use minijinja::{Error, Value, value::ValueKind};

use super::{
    super::{pairs, python, refusal},
    Plain, plain,
};

pub(super) struct Style {
    pub(super) indent: usize,
    pub(super) width: usize,
    /// Whether lists and mappings stand in brackets. None: those that hold no others.
    pub(super) flow: Option<bool>,
    pub(super) sort: bool,
    pub(super) unicode: bool,
    pub(super) start: bool,
}

/// The text of a value.
///
/// # Errors
/// It holds what YAML has no value for.
pub(super) fn emit(value: &Value, style: &Style) -> Result<String, Error> {
    let mut emitter = Emitter {
        style,
        out: String::new(),
        column: 0,
        indents: Vec::new(),
        indent: None,
        whitespace: true,
        indention: true,
        flow: 0,
    };
    if style.start {
        emitter.indicator("---", true, false, false);
    }
    emitter.node(value, Context::default())?;
    if emitter.column > 0 {
        emitter.line_break();
    }
    Ok(emitter.out)
}

#[derive(Clone, Copy, Default)]
struct Context {
    mapping: bool,
    simple_key: bool,
}

struct Emitter<'s> {
    style: &'s Style,
    out: String,
    column: usize,
    indents: Vec<Option<usize>>,
    indent: Option<usize>,
    whitespace: bool,
    indention: bool,
    flow: usize,
}

/// A value as one text, and whether it may be plain.
enum Scalar {
    Plain(String),
    Text(String),
}

fn scalar(value: &Value) -> Result<Option<Scalar>, Error> {
    Ok(Some(match value.kind() {
        ValueKind::None => Scalar::Plain("null".into()),
        ValueKind::Bool => Scalar::Plain(if value.is_true() { "true" } else { "false" }.into()),
        ValueKind::Number if value.is_integer() => Scalar::Plain(value.to_string()),
        ValueKind::Number => Scalar::Plain(match python::number(value).unwrap_or(f64::NAN) {
            number if number.is_nan() => ".nan".into(),
            number if number.is_infinite() => if number > 0.0 { ".inf" } else { "-.inf" }.into(),
            number => {
                let text = python::float(number);
                if text.contains('.') { text } else { text.replacen('e', ".0e", 1) }
            }
        }),
        ValueKind::String => Scalar::Text(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => return Ok(None),
        ValueKind::Undefined => return Err(python::undefined(value)),
        _ => return Err(refusal("this is no value that YAML has")),
    }))
}

/// Whether it holds no lists or mappings, and no text that needs a style of its own.
fn is_leaf(value: &Value) -> Result<bool, Error> {
    let is_scalar = |value: Value| !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
    Ok(match value.kind() {
        ValueKind::Map => pairs(value)?.into_iter().all(|(_, value)| is_scalar(value)),
        _ => value.try_iter()?.all(is_scalar),
    })
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

struct Analysis {
    empty: bool,
    multiline: bool,
    flow_plain: bool,
    block_plain: bool,
    single_quoted: bool,
}

fn analyze(text: &str, unicode: bool) -> Analysis {
    if text.is_empty() {
        return Analysis { empty: true, multiline: false, flow_plain: false, block_plain: true, single_quoted: true };
    }
    let characters: Vec<char> = text.chars().collect();
    let is_space = |c: Option<&char>| c.is_none_or(|c| "\0 \t\r\n\u{85}\u{2028}\u{2029}".contains(*c));
    let marks = text.starts_with("---") || text.starts_with("...");
    let (mut block, mut flow) = (marks, marks);
    let (mut breaks, mut special) = (false, false);
    let (mut space_break, mut break_space) = (false, false);
    let (mut was_space, mut was_break, mut after_space) = (false, false, true);
    for (place, &c) in characters.iter().enumerate() {
        let before_space = is_space(characters.get(place + 1));
        if place == 0 {
            if "#,[]{}&*!|>'\"%@`".contains(c) {
                (flow, block) = (true, true);
            }
            if "?:".contains(c) {
                flow = true;
                block |= before_space;
            }
            if c == '-' && before_space {
                (flow, block) = (true, true);
            }
        } else {
            if ",?[]{}".contains(c) {
                flow = true;
            }
            if c == ':' {
                flow = true;
                block |= before_space;
            }
            if c == '#' && after_space {
                (flow, block) = (true, true);
            }
        }
        breaks |= is_break(c);
        if !(c == '\n' || (' '..='~').contains(&c)) {
            let written = c == '\u{85}'
                || ('\u{a0}'..='\u{fffd}').contains(&c) && c != '\u{feff}'
                || ('\u{10000}'..'\u{10ffff}').contains(&c);
            special |= !written || !unicode;
        }
        if c == ' ' {
            break_space |= was_break;
            (was_space, was_break) = (true, false);
        } else if is_break(c) {
            space_break |= was_space;
            (was_space, was_break) = (false, true);
        } else {
            (was_space, was_break) = (false, false);
        }
        after_space = is_space(Some(&c));
    }
    let at_end = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
    let padded = at_end(characters.first()) || at_end(characters.last());
    let plain = !padded && !break_space && !space_break && !special && !breaks;
    Analysis {
        empty: false,
        multiline: breaks,
        flow_plain: plain && !flow,
        block_plain: plain && !block,
        single_quoted: !break_space && !space_break && !special,
    }
}

impl Emitter<'_> {
    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
        self.whitespace = true;
        self.indention = true;
    }

    fn write(&mut self, text: &str) {
        self.column += text.chars().count();
        self.out.push_str(text);
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || self.column == indent && !self.whitespace {
            self.line_break();
        }
        if self.column < indent {
            self.whitespace = true;
            self.out.push_str(&" ".repeat(indent - self.column));
            self.column = indent;
        }
    }

    fn indicator(&mut self, mark: &str, needs_space: bool, whitespace: bool, indention: bool) {
        if needs_space && !self.whitespace {
            self.write(" ");
        }
        self.whitespace = whitespace;
        self.indention = self.indention && indention;
        self.write(mark);
    }

    fn increase(&mut self, flow: bool, indentless: bool) {
        self.indents.push(self.indent);
        self.indent = match self.indent {
            None => Some(if flow { self.style.indent } else { 0 }),
            Some(indent) if !indentless => Some(indent + self.style.indent),
            same => same,
        };
    }

    fn decrease(&mut self) {
        self.indent = self.indents.pop().flatten();
    }

    fn node(&mut self, value: &Value, context: Context) -> Result<(), Error> {
        if let Some(scalar) = scalar(value)? {
            self.scalar(&scalar, context);
            return Ok(());
        }
        let items: Vec<(Value, Value)> = match value.kind() {
            ValueKind::Map => {
                let mut items = pairs(value)?;
                if self.style.sort {
                    python::sort(&mut items, false)?;
                }
                items
            }
            _ => value.try_iter()?.map(|item| (Value::UNDEFINED, item)).collect(),
        };
        let in_brackets = match self.style.flow {
            Some(flow) => flow,
            None => is_leaf(value)?,
        };
        let in_brackets = in_brackets || self.flow > 0 || items.is_empty();
        match (value.kind() == ValueKind::Map, in_brackets) {
            (is_map, true) => self.in_brackets(&items, is_map),
            (true, false) => self.block_mapping(&items),
            (false, false) => self.block_sequence(&items, context),
        }
    }

    fn in_brackets(&mut self, items: &[(Value, Value)], is_map: bool) -> Result<(), Error> {
        self.indicator(if is_map { "{" } else { "[" }, true, true, false);
        self.flow += 1;
        self.increase(true, false);
        for (place, (key, value)) in items.iter().enumerate() {
            if place > 0 {
                self.indicator(",", false, false, false);
            }
            if self.column > self.style.width {
                self.write_indent();
            }
            if is_map {
                self.key(key)?;
                self.indicator(":", false, false, false);
                self.node(value, Context { mapping: true, ..Context::default() })?;
            } else {
                self.node(value, Context::default())?;
            }
        }
        self.decrease();
        self.flow -= 1;
        self.indicator(if is_map { "}" } else { "]" }, false, false, false);
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        let is_simple = match scalar(key)? {
            Some(Scalar::Plain(_)) => true,
            Some(Scalar::Text(text)) => text.chars().count() < 120 && !text.contains(is_break),
            None => false,
        };
        if !is_simple {
            return Err(refusal("a key is longer than a line, or no text; YAML is not written with such here"));
        }
        self.node(key, Context { mapping: true, simple_key: true })
    }

    fn block_mapping(&mut self, items: &[(Value, Value)]) -> Result<(), Error> {
        self.increase(false, false);
        for (key, value) in items {
            self.write_indent();
            self.key(key)?;
            self.indicator(":", false, false, false);
            self.node(value, Context { mapping: true, ..Context::default() })?;
        }
        self.decrease();
        Ok(())
    }

    fn block_sequence(&mut self, items: &[(Value, Value)], context: Context) -> Result<(), Error> {
        let indentless = context.mapping && !self.indention;
        self.increase(false, indentless);
        for (_, value) in items {
            self.write_indent();
            self.indicator("-", true, false, true);
            self.node(value, Context::default())?;
        }
        self.decrease();
        Ok(())
    }

    fn scalar(&mut self, scalar: &Scalar, context: Context) {
        self.increase(true, false);
        let splits = !context.simple_key;
        match scalar {
            Scalar::Plain(text) => self.plain(text, splits),
            Scalar::Text(text) => {
                let analysis = analyze(text, self.style.unicode);
                let fits = if self.flow > 0 { analysis.flow_plain } else { analysis.block_plain };
                let is_short = !(context.simple_key && (analysis.empty || analysis.multiline));
                if plain(text) == Plain::Text && fits && is_short {
                    self.plain(text, splits);
                } else if analysis.single_quoted && !(context.simple_key && analysis.multiline) {
                    self.single_quoted(text, splits);
                } else {
                    self.double_quoted(text, splits);
                }
            }
        }
        self.decrease();
    }

    fn plain(&mut self, text: &str, splits: bool) {
        if text.is_empty() {
            return;
        }
        if !self.whitespace {
            self.write(" ");
        }
        self.whitespace = false;
        self.indention = false;
        for (place, part) in runs(text, |c| c == ' ').into_iter().enumerate() {
            if place > 0 && part == " " && self.column > self.style.width && splits {
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
            } else {
                self.write(part);
            }
        }
    }

    fn single_quoted(&mut self, text: &str, splits: bool) {
        self.indicator("'", true, false, false);
        let parts = runs(text, |c| c == ' ' || is_break(c));
        let count = parts.len();
        for (place, part) in parts.into_iter().enumerate() {
            if part.starts_with(' ') {
                if part == " " && self.column > self.style.width && splits && place > 0 && place + 1 < count {
                    self.write_indent();
                } else {
                    self.write(part);
                }
            } else if part.starts_with(is_break) {
                if part.starts_with('\n') {
                    self.line_break();
                }
                for c in part.chars() {
                    if c == '\n' {
                        self.line_break();
                    } else {
                        self.out.push(c);
                        self.column = 0;
                    }
                }
                self.write_indent();
            } else {
                self.write(&part.replace('\'', "''"));
                self.whitespace = false;
                self.indention = false;
            }
        }
        self.whitespace = false;
        self.indention = false;
        self.indicator("'", false, false, false);
    }

    fn double_quoted(&mut self, text: &str, splits: bool) {
        self.indicator("\"", true, false, false);
        let characters: Vec<char> = text.chars().collect();
        let count = characters.len();
        let (mut start, mut end) = (0, 0);
        while end <= count {
            let c = characters.get(end).copied();
            let is_plain = c.is_some_and(|c| {
                !"\"\\\u{85}\u{2028}\u{2029}\u{feff}".contains(c)
                    && ((' '..='~').contains(&c)
                        || self.style.unicode && (('\u{a0}'..='\u{fffd}').contains(&c) || c >= '\u{10000}'))
            });
            if !is_plain {
                if start < end {
                    let data: String = characters[start..end].iter().collect();
                    self.write(&data);
                    start = end;
                }
                if let Some(c) = c {
                    let data = escaped(c);
                    self.write(&data);
                    start = end + 1;
                }
            }
            if end > 0
                && end + 1 < count
                && (c == Some(' ') || start >= end)
                && self.column + end.saturating_sub(start) > self.style.width
                && splits
            {
                let mut data: String = characters.get(start..end).unwrap_or_default().iter().collect();
                data.push('\\');
                start = start.max(end);
                self.write(&data);
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
                if characters.get(start) == Some(&' ') {
                    self.write("\\");
                }
            }
            end += 1;
        }
        self.indicator("\"", false, false, false);
    }
}

/// The text in runs of characters that are alike.
fn runs(text: &str, is_space: impl Fn(char) -> bool) -> Vec<&str> {
    let class = |c: char| match (is_space(c), c) {
        (false, _) => 0,
        (true, ' ') => 1,
        (true, _) => 2,
    };
    let mut found = Vec::new();
    let (mut start, mut last) = (0, None);
    for (at, c) in text.char_indices() {
        if last.is_some_and(|last| last != class(c)) {
            found.push(&text[start..at]);
            start = at;
        }
        last = Some(class(c));
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}

fn escaped(c: char) -> String {
    match c {
        '\0' => "\\0".into(),
        '\u{7}' => "\\a".into(),
        '\u{8}' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\u{b}' => "\\v".into(),
        '\u{c}' => "\\f".into(),
        '\r' => "\\r".into(),
        '\u{1b}' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{a0}' => "\\_".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        c if u32::from(c) <= 0xff => format!("\\x{:02X}", u32::from(c)),
        c if u32::from(c) <= 0xffff => format!("\\u{:04X}", u32::from(c)),
        c => format!("\\U{:08X}", u32::from(c)),
    }
}
