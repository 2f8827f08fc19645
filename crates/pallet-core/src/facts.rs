//! Pure: the built-in facts, and facts as the agent sends them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    phase::{FactSource, expect::types::Type},
    text,
};
use pallet_api::{conditions::clip, phases::FactParser};

/// Facts by name; built-in ones are grouped (`facts.os.family`).
pub type Facts = BTreeMap<String, Value>;

/// A built-in fact.
struct BuiltIn {
    path: &'static str,
    kind: Kind,
    /// It changes by itself: a template that used it would run its phase again for ever.
    volatile: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Integer,
    Number,
    Words,
}

const fn stable(path: &'static str, kind: Kind) -> BuiltIn {
    BuiltIn { path, kind, volatile: false }
}

const fn volatile(path: &'static str, kind: Kind) -> BuiltIn {
    BuiltIn { path, kind, volatile: true }
}

/// What the agent tells of every node, before bootstrap already.
const BUILT_IN: &[BuiltIn] = &[
    stable("os.family", Kind::Text),
    stable("os.name", Kind::Text),
    stable("os.version", Kind::Text),
    stable("os.arch", Kind::Text),
    stable("os.kernel", Kind::Text),
    stable("os.packageManager", Kind::Text),
    stable("os.serviceManager", Kind::Text),
    stable("cpu.count", Kind::Integer),
    stable("memory.totalBytes", Kind::Integer),
    volatile("memory.availableBytes", Kind::Integer),
    stable("disk.totalBytes", Kind::Integer),
    volatile("disk.freeBytes", Kind::Integer),
    volatile("disk.freePercent", Kind::Integer),
    volatile("load.one", Kind::Number),
    volatile("uptimeSeconds", Kind::Integer),
    stable("hostname", Kind::Text),
    stable("addresses", Kind::Words),
];

/// What a template may know of a fact's path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// It is built in, or the beginning of one that is.
    Stable,
    /// It is built in and changes by itself.
    Volatile,
    /// It is not built in.
    No,
}

/// Looks a path below `facts` up among the built-in facts.
pub fn known(path: &str) -> Known {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match BUILT_IN.iter().find(|fact| within(fact.path, path)) {
        Some(fact) if fact.volatile => Known::Volatile,
        Some(_) => Known::Stable,
        None if BUILT_IN.iter().any(|fact| within(path, fact.path)) => Known::Stable,
        None => Known::No,
    }
}

/// What an expression may take a built-in fact for, by its path below `facts`; nothing where it is none.
pub fn type_of(path: &str) -> Option<Type> {
    let is_group =
        || BUILT_IN.iter().any(|fact| fact.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
    match BUILT_IN.iter().find(|fact| fact.path == path) {
        Some(fact) => Some(match fact.kind {
            Kind::Text => Type::String,
            Kind::Integer | Kind::Number => Type::Number,
            Kind::Words => Type::List,
        }),
        None => is_group().then_some(Type::Map),
    }
}

/// Whether a path is that of a fact that changes by itself, or the beginning of one.
pub fn holds_volatile(path: &str) -> bool {
    let within = |fact: &&BuiltIn| {
        fact.path == path || fact.path.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.starts_with('.'))
    };
    known(path) == Known::Volatile || BUILT_IN.iter().filter(|fact| fact.volatile).any(|fact| within(&fact))
}

/// Whether a fact of a group's own may not have this name.
pub fn is_reserved(name: &str) -> bool {
    known(name) != Known::No
}

/// The longest text of a built-in fact, in bytes.
pub const BUILT_IN_LIMIT: usize = 256;

/// How many addresses of a node are kept.
const WORDS_LIMIT: usize = 64;

/// A text of a built-in fact: one line without control and format characters, cut at [`BUILT_IN_LIMIT`].
fn bounded(text: &str) -> String {
    let mut text = text::line(text, BUILT_IN_LIMIT);
    while text.len() > BUILT_IN_LIMIT {
        text.pop();
    }
    text
}

/// Parses what the agent answers to `facts`: lines of a path, a tab and a value. What it does not know it leaves out, so
/// that an older operator understands a newer agent.
pub fn parse_built_in(payload: &[u8]) -> Facts {
    let mut facts = Facts::new();
    for line in payload.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let Some((path, text)) = line.split_once('\t') else { continue };
        let Some(fact) = BUILT_IN.iter().find(|fact| fact.path == path) else { continue };
        let value = match fact.kind {
            Kind::Text => Some(Value::from(bounded(text))),
            Kind::Integer => text.parse::<i64>().ok().map(Value::from),
            Kind::Number => text.parse::<f64>().ok().map(Value::from),
            Kind::Words => {
                Some(text.split_whitespace().take(WORDS_LIMIT).map(|word| Value::from(bounded(word))).collect())
            }
        };
        if let Some(value) = value {
            insert(&mut facts, path, value);
        }
    }
    facts
}

fn insert(facts: &mut Facts, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            facts.insert(path.to_owned(), value);
        }
        Some((outer, inner)) => {
            if let Value::Object(map) = facts.entry(outer.to_owned()).or_insert_with(|| Map::new().into()) {
                map.insert(inner.to_owned(), value);
            }
        }
    }
}

/// The longest header of a fact in what a settings run left, in bytes: a name, a word and a number.
const HEADER_LIMIT: usize = 256;

/// The longest value that one fact of a group's own keeps, in bytes.
pub const OWN_FACT_LIMIT: usize = 4096;

/// The most bytes that all facts of a group's own may have on one node: they stand in its status.
pub const OWN_FACTS_LIMIT: usize = 64 << 10;

/// Parses the facts that a settings run left in its journal: `NAME STATE LENGTH`, a newline, LENGTH bytes, a newline. What
/// nobody declares any more is left out. `shown` is what a message may show of a text.
///
/// Values keep newlines, tabs and characters beyond ASCII, and lose control characters and those that reorder text: see
/// [`text::value`].
///
/// A null fact is left out, too: an API server keeps no nulls. [`with_declared`] puts it back.
///
/// # Errors
/// For people: the first fact that is not what its parser says and may not be missing, or that there is no room for.
pub fn parse_own(mut payload: &[u8], declared: &[FactSource], shown: impl Fn(&str) -> String) -> Result<Facts, String> {
    let (mut facts, mut size) = (Facts::new(), 0);
    while let Some(end) = payload.iter().take(HEADER_LIMIT).position(|byte| *byte == b'\n') {
        let header = String::from_utf8_lossy(&payload[..end]).into_owned();
        let mut words = header.split(' ');
        let (Some(name), Some(state), Some(Ok(length))) =
            (words.next(), words.next(), words.next().map(str::parse::<usize>))
        else {
            break;
        };
        let rest = payload.get(end + 1..).unwrap_or_default();
        // The length is the node's word: it may be any number.
        let Some((bytes, rest)) = rest.split_at_checked(length) else { break };
        payload = rest.get(1..).unwrap_or_default();
        let Some(source) = declared.iter().find(|source| source.name == name).filter(|_| state != "null") else {
            continue;
        };
        let cut = length >= OWN_FACT_LIMIT;
        let text = String::from_utf8_lossy(&bytes[..length.min(OWN_FACT_LIMIT)]);
        match parse(text.trim_end(), source.parse, &shown) {
            Ok(value) => {
                size += length.min(OWN_FACT_LIMIT);
                facts.insert(name.to_owned(), value);
            }
            Err(_) if source.optional => {}
            Err(_) if cut => return Err(format!("fact {name}: it is longer than {OWN_FACT_LIMIT} bytes; print less")),
            Err(why) => return Err(format!("fact {name}: {why}; mark it optional where it may")),
        }
        if size > OWN_FACTS_LIMIT {
            return Err(format!("fact {name}: the facts have more than {OWN_FACTS_LIMIT} bytes in all; print less"));
        }
    }
    Ok(facts)
}

fn parse(text: &str, parser: FactParser, shown: impl Fn(&str) -> String) -> Result<Value, String> {
    let shown = || format!("{:?}", clip(&shown(text), 60));
    match parser {
        FactParser::Text => Ok(text::value(text).into()),
        FactParser::Lines => {
            Ok(text::value(text).lines().map(str::trim_end).filter(|line| !line.is_empty()).map(Value::from).collect())
        }
        FactParser::Integer => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| format!("{} is no whole number", shown()))
        }
        FactParser::ExitCode => Ok((text.trim() == "true").into()),
        FactParser::Json => {
            let value = serde_json::from_str(text).map_err(|error| format!("{} is no JSON: {error}", shown()))?;
            match kept(value) {
                Value::Null => Err("it is null".into()),
                value => Ok(value),
            }
        }
    }
}

/// A value as an API server keeps it: nulls of objects are gone, and numbers are whole where they can be. Its texts are clean.
fn kept(value: Value) -> Value {
    const WHOLE: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Object(map) => {
            let clean = |(key, value): (String, Value)| (text::value(&key).into_owned(), kept(value));
            map.into_iter().map(clean).filter(|(_, value)| !value.is_null()).collect()
        }
        Value::String(text) => text::value(&text).into(),
        Value::Array(items) => items.into_iter().map(kept).collect(),
        Value::Number(number) if number.as_i64().is_none() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() < WHOLE { Value::from(float as i64) } else { Value::from(float) }
        }
        other => other,
    }
}

/// The facts with a null for each that is declared and has no value: what is optional may be asked for.
pub fn with_declared<'a>(mut facts: Facts, declared: impl Iterator<Item = &'a str>) -> Facts {
    for name in declared {
        facts.entry(name.to_owned()).or_insert(Value::Null);
    }
    facts
}

/// The facts that templates see: those that change by themselves are left out.
pub fn without_volatile(facts: &Facts) -> Facts {
    let mut kept = facts.clone();
    for fact in BUILT_IN.iter().filter(|fact| fact.volatile) {
        match fact.path.split_once('.') {
            None => {
                kept.remove(fact.path);
            }
            Some((outer, inner)) => {
                if let Some(Value::Object(map)) = kept.get_mut(outer) {
                    map.remove(inner);
                }
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn built_in_facts_are_nested_and_typed_and_strangers_left_out() {
        let facts = parse_built_in(
            b"os.family\tdebian\ncpu.count\t2\naddresses\t10.0.0.1 10.0.0.2\nnew.fact\tx\nload.one\tbad\n",
        );
        assert_eq!(facts["os"], json!({"family": "debian"}));
        assert_eq!(facts["cpu"], json!({"count": 2}));
        assert_eq!(facts["addresses"], json!(["10.0.0.1", "10.0.0.2"]));
        assert!(!facts.contains_key("load"), "what cannot be read is left out");
        assert!(!facts.contains_key("new"));
    }

    #[test]
    fn paths_are_known_by_their_beginning_and_volatile_ones_are_told() {
        assert_eq!(known("os"), Known::Stable);
        assert_eq!(known("os.family"), Known::Stable);
        assert_eq!(known("disk.freePercent"), Known::Volatile);
        assert_eq!(known("osx"), Known::No);
        assert_eq!(known("os.colour"), Known::No);
    }

    fn declared(names: &[(&str, FactParser)], optional: bool) -> Vec<FactSource> {
        let fact = |(name, parse): &(&str, FactParser)| {
            let source = crate::phase::Source::Exec("x".into());
            FactSource { name: (*name).into(), source, parse: *parse, optional }
        };
        names.iter().map(fact).collect()
    }

    #[test]
    fn own_facts_keep_their_lines_and_lose_space_at_the_end() {
        let sources = declared(&[("a", FactParser::Text), ("b", FactParser::Text), ("c", FactParser::Text)], false);
        let facts =
            parse_own(b"a ok 4\nx\ny\n\nb null 0\n\nc ok 2\nhi\nd ok 2\nhi\n", &sources, str::to_owned).unwrap();
        assert_eq!(facts["a"], json!("x\ny"));
        assert!(!facts.contains_key("b") && !facts.contains_key("d"));
        assert_eq!(with_declared(facts.clone(), ["a", "b"].into_iter())["b"], Value::Null);
        assert_eq!(facts["c"], json!("hi"));
    }

    #[test]
    fn a_fact_is_what_its_parser_makes_of_it_or_a_failure_that_says_why() {
        let read = |parser, text: &str, optional| {
            let payload = format!("a ok {}\n{text}\n", text.len());
            let found = parse_own(payload.as_bytes(), &declared(&[("a", parser)], optional), str::to_owned);
            found.map(|mut facts| facts.remove("a"))
        };
        assert_eq!(read(FactParser::Lines, "x\n\n y \n", false), Ok(Some(json!(["x", " y"]))));
        assert_eq!(read(FactParser::Integer, " 42\n", false), Ok(Some(json!(42))));
        assert_eq!(read(FactParser::ExitCode, "false\n", false), Ok(Some(json!(false))));
        // As an API server keeps it, or every look would find it changed.
        let text = r#"{"a": null, "b": [1.0, null, 1e300], "c": {"d": null}, "big": 18446744073709551615}"#;
        let kept = json!({"b": [1, null, 1e300], "c": {}, "big": 18_446_744_073_709_551_615.0});
        assert_eq!(read(FactParser::Json, text, false), Ok(Some(kept)));
        assert!(read(FactParser::Integer, "4.2", false).unwrap_err().contains("\"4.2\" is no whole number"));
        assert!(read(FactParser::Json, "{", false).unwrap_err().contains("is no JSON"));
        assert!(read(FactParser::Json, &"[".repeat(3000), false).unwrap_err().contains("is no JSON"));
        assert_eq!(read(FactParser::Json, "{", true), Ok(None));
    }

    /// Found by review: a host name of 400 KB stood in the status of its node.
    #[test]
    fn built_in_facts_are_bounded_and_clean() {
        let long = "ä".repeat(4000);
        let addresses = "10.0.0.1 ".repeat(1000);
        let payload = format!(
            "hostname\t{long}\nos.name\ta\u{1b}[2J\u{202e}b\u{200d}c\nos.kernel\t6.1\taddresses\naddresses\t{addresses}{long}\n"
        );
        let facts = parse_built_in(payload.as_bytes());
        assert_eq!(facts["hostname"].as_str().map(str::len), Some(BUILT_IN_LIMIT));
        assert_eq!((&facts["os"]["name"], &facts["os"]["kernel"]), (&json!("abc"), &json!("6.1 addresses")));
        assert_eq!(facts["addresses"].as_array().map(Vec::len), Some(WORDS_LIMIT));
        let word = parse_built_in(format!("addresses\t{long}\n").as_bytes());
        assert_eq!(word["addresses"][0].as_str().map(str::len), Some(BUILT_IN_LIMIT));
    }

    #[test]
    fn own_facts_keep_their_meaning_and_command_no_terminal() {
        let sources = declared(&[("a", FactParser::Text), ("b", FactParser::Lines), ("c", FactParser::Json)], false);
        let (text, lines, json) =
            ("👩\u{200d}💻\r\n\tx\u{1b}[2J\u{202e}", "a\u{7}\nb", r#"{"k\u001b": ["\u009b\u202ev\n", "\u200d"]}"#);
        let payload: String = [("a", text), ("b", lines), ("c", json)]
            .map(|(name, text)| format!("{name} ok {}\n{text}\n", text.len()))
            .concat();
        let facts = parse_own(payload.as_bytes(), &sources, str::to_owned).unwrap();
        assert_eq!(facts["a"], json!("👩\u{200d}💻\r\n\tx"));
        assert_eq!((&facts["b"], &facts["c"]), (&json!(["a", "b"]), &json!({"k": ["v\n", "\u{200d}"]})));
    }

    #[test]
    fn a_length_is_the_nodes_word() {
        let sources = declared(&[("a", FactParser::Text), ("b", FactParser::Text)], false);
        for length in
            [usize::MAX.to_string(), (usize::MAX - 2).to_string(), "99999999999999999999999".into(), "-1".into()]
        {
            let payload = format!("a ok 2\nhi\nb ok {length}\nx\n");
            assert_eq!(parse_own(payload.as_bytes(), &sources, str::to_owned).unwrap().len(), 1, "{length}");
        }
        assert_eq!(parse_own(&b"a".repeat(1 << 20), &sources, str::to_owned).unwrap().len(), 0);
    }

    #[test]
    fn facts_are_bounded_in_all() {
        let names: Vec<String> = (0..20).map(|place| format!("f{place}")).collect();
        let sources: Vec<_> = names.iter().map(|name| (name.as_str(), FactParser::Text)).collect();
        let text = "x".repeat(OWN_FACT_LIMIT);
        let payload: String = names.iter().map(|name| format!("{name} ok {OWN_FACT_LIMIT}\n{text}\n")).collect();
        let error = parse_own(payload.as_bytes(), &declared(&sources, false), str::to_owned).unwrap_err();
        assert!(error.starts_with("fact f16: the facts have more than"), "{error}");
    }

    #[test]
    fn a_cut_payload_keeps_what_is_whole() {
        let sources = declared(&[("a", FactParser::Text), ("b", FactParser::Text)], false);
        assert_eq!(parse_own(b"a ok 2\nhi\nb ok 10\nhal", &sources, str::to_owned).unwrap().len(), 1);
    }

    #[test]
    fn templates_do_not_see_volatile_facts() {
        let facts = parse_built_in(b"disk.freePercent\t5\ndisk.totalBytes\t9\nuptimeSeconds\t3\n");
        assert_eq!(without_volatile(&facts), BTreeMap::from([("disk".to_owned(), json!({"totalBytes": 9}))]));
    }
}
