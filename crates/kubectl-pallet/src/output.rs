//! What is printed on stdout: tables in kubectl's style, JSON and YAML; and the one place that knows of colours.

use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
};

use clap::ValueEnum;
use kube::Resource;
use pallet_core::text;
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::{Error, Result};

/// How objects are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// The object, or a List of them.
    Json,
    /// The same as YAML.
    Yaml,
    /// A table with more columns.
    Wide,
    /// KIND/NAME, one a line.
    Name,
}

/// What a cell or a line says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Something waits.
    Wait,
    /// It matters less.
    Dim,
}

impl Tone {
    /// The text with its colour, where there are colours.
    pub fn paint(self, text: &str, colours: bool) -> String {
        let code = match self {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Wait => "33",
            Tone::Dim => "2",
            Tone::Plain => return text.to_owned(),
        };
        if colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether stdout has colours: on a terminal, and where NO_COLOR does not forbid them.
pub fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| std::io::stdout().is_terminal() && allowed())
}

/// Whether the environment has anything against colours.
pub fn allowed() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Prints on stdout. Control characters are removed, but for newlines, tabs and the colours of [`Tone`].
///
/// # Errors
/// [`Error::Closed`] where nobody reads any more, as after `| head`.
pub fn print(text: &str) -> Result<()> {
    bytes(shown(text).as_bytes())
}

/// The text as a terminal may see it: what a node says must not command it. What [`Tone`] paints stays.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let (before, from) = rest.split_at(at);
        out.push_str(&clean(before));
        let colour = COLOURS.into_iter().find(|colour| from.starts_with(colour));
        out.push_str(colour.unwrap_or_default());
        // Another sequence is removed together with what comes before the next one.
        let length = colour.map_or_else(|| from[1..].find('\x1b').map_or(from.len(), |next| next + 1), str::len);
        if colour.is_none() {
            out.push_str(&clean(&from[..length]));
        }
        rest = &from[length..];
    }
    out.push_str(&clean(rest));
    out
}

/// The sequences that [`Tone`] paints with.
const COLOURS: [&str; 5] = ["\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];

/// What nodes printed, piece by piece: as it is for a file or a pipe, cleaned line by line for a terminal.
pub struct Raw {
    clean: bool,
    part: Vec<u8>,
}

/// The longest line of a node's output that is held back, in bytes.
const LONGEST_LINE: usize = 64 << 10;

impl Raw {
    /// Nothing was printed yet.
    pub fn new(terminal: bool) -> Self {
        Self { clean: terminal, part: Vec::new() }
    }

    /// What can be printed by now: whole lines, so that no control sequence is cut in two.
    pub fn push(&mut self, more: &[u8]) -> Vec<u8> {
        if !self.clean {
            return more.to_vec();
        }
        self.part.extend_from_slice(more);
        let whole = self.part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = if self.part.len() > LONGEST_LINE { self.part.len() } else { whole };
        let lines: Vec<u8> = self.part.drain(..whole).collect();
        clean(&String::from_utf8_lossy(&lines)).into_bytes()
    }

    /// What is left.
    pub fn finish(self) -> Vec<u8> {
        clean(&String::from_utf8_lossy(&self.part)).into_bytes()
    }
}

/// Prints bytes that may be no text, as they are.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|_| Error::Closed)
}

/// Prints a line on stdout.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Tells people something beside the result, on stderr, cleaned as [`print`] does. Where nobody reads it, nothing is lost.
pub fn tell(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", shown(text.as_ref()));
}

/// One cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell(String, Tone);

impl Cell {
    /// A cell that is well or not.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self(text.into(), tone)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Tone::Plain)
    }
}

/// A table without borders, as kubectl prints it.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// One with these columns.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// As lines; columns are three blanks apart.
    pub fn render(&self, colours: bool) -> String {
        let head: Vec<Cell> = self.head.iter().map(|name| (*name).into()).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|it| cell(&it.0).chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut out = String::new();
            for (place, it) in line.iter().enumerate() {
                let plain = cell(&it.0);
                let gap = widths.get(place).unwrap_or(&0) + 3 - plain.chars().count();
                out.push_str(&it.1.paint(&plain, colours));
                if place + 1 < line.len() {
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell has one line, and no control sequences of somebody else.
fn cell(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default())
}

/// Text of somebody else, without control characters but newlines and tabs, and without invisible characters: it must not command
/// the terminal, nor hide or reorder what people read.
pub fn clean(text: &str) -> String {
    text::printable(text).into_owned()
}

/// An object as it is printed: without what only the API server needs.
pub fn object<K: Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}

/// Prints objects as `-o` asks. Without one of the formats for machines, the table is printed.
pub fn objects<K>(found: &[K], single: bool, format: Option<Format>, table: impl FnOnce(bool) -> Table) -> Result<()>
where
    K: Serialize + Resource<DynamicType = ()>,
{
    match format {
        None | Some(Format::Wide) => print(&table(format == Some(Format::Wide)).render(colours())),
        Some(Format::Name) => {
            let kind = format!("{}.pallet.dev", K::kind(&()).to_lowercase());
            found
                .iter()
                .try_for_each(|object| line(format!("{kind}/{}", object.meta().name.as_deref().unwrap_or_default())))
        }
        Some(format) => {
            let mut values: Vec<Value> = found.iter().map(object).collect();
            match (values.len(), single) {
                (1, true) => data(&values.remove(0), format),
                _ => data(&list(values), format),
            }
        }
    }
}

/// Several objects as one.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// Prints a value as JSON or YAML.
pub fn data(value: &Value, format: Format) -> Result<()> {
    line(encoded(value, format)?.trim_end())
}

/// JSON or YAML in which every control and invisible character is escaped, so that it is printed as it is and means the same.
fn encoded(value: &Value, format: Format) -> Result<String> {
    if format == Format::Yaml {
        let text = serde_saphyr::to_string(value).map_err(|error| Error::usage(format!("this is no YAML: {error}")))?;
        if clean(&text) == text {
            return Ok(text);
        }
        // What has to be escaped is written as JSON, which is YAML.
    }
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    if clean(&text) == text {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Such a character can stand within strings only.
        if c != '\n' && (c == '\u{200c}' || c == '\u{200d}' || clean(c.encode_utf8(&mut [0; 4])).is_empty()) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_padded_without_counting_colours() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(vec!["web".into(), Cell::toned("True", Tone::Good)]);
        table.row(vec![Cell::toned("database", Tone::Bad), "False".into()]);
        assert_eq!(table.render(false), "NAME       READY\nweb        True\ndatabase   False\n");
        assert!(table.render(true).contains("\x1b[31mdatabase\x1b[0m   False"));
    }

    #[test]
    fn what_nodes_print_does_not_command_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\tc\r\nd"), "ab\tc\nd");
    }

    /// Found by review: `status GROUP` wrote the sequences of a container's shell to the terminal.
    #[test]
    fn whatever_is_printed_commands_no_terminal() {
        let title = "\x1b]0;owned\x07\x1b[2J\u{9b}2J\u{202e}all is well\x1b";
        let line = format!("{}  {title}  {}", Tone::Bad.paint("Failed", true), Tone::Good.paint("ok", true));
        let plain = "\x1b[31mFailed\x1b[0m  ]0;ownedall is well  \x1b[32mok\x1b[0m";
        assert_eq!(shown(&line), plain);
        assert_eq!(shown("plain\n\ttext"), "plain\n\ttext");
    }

    #[test]
    fn json_and_yaml_mean_the_same_with_every_character_escaped() {
        let hostile = "a\x1b[2J\u{9b}\u{202e}b\u{200d}\u{feff}\u{e0041}\u{7f}\n\"";
        let value = json!({"message": hostile, "k\u{202e}": ["👩\u{200d}💻", 1]});
        for format in [Format::Json, Format::Yaml] {
            let text = encoded(&value, format).unwrap();
            assert_eq!(clean(&text), text, "{format:?}");
            let read: Value = match format {
                Format::Yaml => serde_saphyr::from_str(&text).unwrap(),
                _ => serde_json::from_str(&text).unwrap(),
            };
            assert_eq!(read, value, "{format:?}: {text}");
        }
        let plain = encoded(&json!({"a": "👩\u{200d}💻\tx"}), Format::Yaml).unwrap();
        assert!(plain.starts_with("a: "), "{plain}");
    }
}
