//! What is printed on stdout: tables in kubectl's style, JSON and YAML; and the one place that knows of colours.

use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
};

use clap::ValueEnum;
use kube::Resource;
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

/// Prints on stdout.
///
/// # Errors
/// [`Error::Closed`] where nobody reads any more, as after `| head`.
pub fn print(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// The same for what may be no text.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|_| Error::Closed)
}

/// Prints a line on stdout.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Tells people something beside the result, on stderr. Where nobody reads it, nothing is lost.
pub fn tell(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
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
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| shown(&cell.0).chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut out = String::new();
            for (place, cell) in line.iter().enumerate() {
                let plain = shown(&cell.0);
                let gap = widths.get(place).unwrap_or(&0) + 3 - plain.chars().count();
                out.push_str(&cell.1.paint(&plain, colours));
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
fn shown(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default())
}

/// Text of somebody else, without control characters but tabs: it must not command the terminal.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t' || *c == '\n').collect()
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
    let text = match format {
        Format::Yaml => {
            serde_saphyr::to_string(value).map_err(|error| Error::usage(format!("this is no YAML: {error}")))?
        }
        _ => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    line(text.trim_end())
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
        assert_eq!(clean("a\x1b[31mb\tc\r\nd"), "a[31mb\tc\nd");
    }
}
