//! Pure: the built-in facts, and facts as the agent sends them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

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

/// Whether a fact of a group's own may not have this name.
pub fn is_reserved(name: &str) -> bool {
    known(name) != Known::No
}

/// Parses what the agent answers to `facts`: lines of a path, a tab and a value. What it does not know it leaves out, so
/// that an older operator understands a newer agent.
pub fn parse_built_in(payload: &[u8]) -> Facts {
    let mut facts = Facts::new();
    for line in String::from_utf8_lossy(payload).lines() {
        let Some((path, text)) = line.split_once('\t') else { continue };
        let Some(fact) = BUILT_IN.iter().find(|fact| fact.path == path) else { continue };
        let value = match fact.kind {
            Kind::Text => Some(Value::from(text)),
            Kind::Integer => text.parse::<i64>().ok().map(Value::from),
            Kind::Number => text.parse::<f64>().ok().map(Value::from),
            Kind::Words => Some(text.split_whitespace().map(Value::from).collect()),
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

/// The longest value that one fact of a group's own keeps, in bytes.
pub const OWN_FACT_LIMIT: usize = 4096;

/// Parses the facts that a settings run left in its journal: `NAME STATE LENGTH`, a newline, LENGTH bytes, a newline.
///
/// A null fact is left out: an API server keeps no nulls. [`with_declared`] puts it back.
pub fn parse_own(mut payload: &[u8]) -> Facts {
    let mut facts = Facts::new();
    while let Some(end) = payload.iter().position(|byte| *byte == b'\n') {
        let header = String::from_utf8_lossy(&payload[..end]).into_owned();
        let mut words = header.split(' ');
        let (Some(name), Some(state), Some(Ok(length))) =
            (words.next(), words.next(), words.next().map(str::parse::<usize>))
        else {
            break;
        };
        let Some(bytes) = payload.get(end + 1..end + 1 + length) else { break };
        let text = String::from_utf8_lossy(&bytes[..length.min(OWN_FACT_LIMIT)]);
        if state != "null" {
            facts.insert(name.to_owned(), text.trim_end().into());
        }
        payload = payload.get(end + 2 + length..).unwrap_or_default();
    }
    facts
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

    #[test]
    fn own_facts_keep_their_lines_and_lose_space_at_the_end() {
        let facts = parse_own(b"a ok 4\nx\ny\n\nb null 0\n\nc ok 2\nhi\n");
        assert_eq!(facts["a"], json!("x\ny"));
        assert!(!facts.contains_key("b"));
        assert_eq!(with_declared(facts.clone(), ["a", "b"].into_iter())["b"], Value::Null);
        assert_eq!(facts["c"], json!("hi"));
    }

    #[test]
    fn a_cut_payload_keeps_what_is_whole() {
        let facts = parse_own(b"a ok 2\nhi\nb ok 10\nhal");
        assert_eq!(facts.len(), 1);
    }

    #[test]
    fn templates_do_not_see_volatile_facts() {
        let facts = parse_built_in(b"disk.freePercent\t5\ndisk.totalBytes\t9\nuptimeSeconds\t3\n");
        assert_eq!(without_volatile(&facts), BTreeMap::from([("disk".to_owned(), json!({"totalBytes": 9}))]));
    }
}
