//! Which arguments filters, tests, functions and methods take, and what to write in place of those that there are not.

use minijinja::{
    Error, Value,
    machinery::ast::{CallArg, Expr},
};

use super::{Entry, Table, filters, functions, methods, pairs, python, refusal, regexes, tests};

/// The parameters of one filter, test, function or method.
pub(in super::super) struct Signature {
    pub(super) names: Vec<&'static str>,
    /// How many of them may not be left out.
    required: usize,
    /// Whether more may follow without a name.
    has_rest: bool,
    /// Whether others may follow by name.
    has_named: bool,
    /// Whether items of lists may be undefined.
    pub(super) is_lenient: bool,
}

type Bound = (Vec<Option<Value>>, Vec<Value>, Vec<(String, Value)>);

impl Signature {
    pub(super) fn of(written: &'static str) -> Self {
        let (is_lenient, written) = match written.strip_prefix('?') {
            Some(rest) => (true, rest),
            None => (false, written),
        };
        let mut signature = Self { names: Vec::new(), required: 0, has_rest: false, has_named: false, is_lenient };
        for part in written.split(", ").filter(|part| !part.is_empty()) {
            if part.starts_with("**") {
                signature.has_named = true;
            } else if part.starts_with('*') {
                signature.has_rest = true;
            } else if let Some(name) = part.strip_suffix('=') {
                signature.names.push(name);
            } else {
                signature.names.push(part);
                signature.required += 1;
            }
        }
        signature
    }

    /// Puts what was given in the places of the parameters.
    pub(super) fn bind(&self, called: &str, given: &[Value]) -> Result<Bound, Error> {
        let mut args = vec![None; self.names.len()];
        let (mut rest, mut named) = (Vec::new(), Vec::new());
        let mut place = 0;
        for value in given {
            if value.is_kwargs() {
                for (name, value) in pairs(value)? {
                    let name = name.as_str().unwrap_or_default().to_owned();
                    match self.names.iter().position(|known| *known == name) {
                        Some(place) if args.get(place).is_some_and(Option::is_none) => args[place] = Some(value),
                        Some(_) => return Err(refusal(format!("{called}: {name} is given twice"))),
                        None if self.has_named => named.push((name, value)),
                        None => return Err(self.unknown(called, &name)),
                    }
                }
            } else if let Some(slot) = args.get_mut(place) {
                *slot = Some(value.clone());
                place += 1;
            } else if self.has_rest {
                rest.push(value.clone());
            } else {
                return Err(self.too_many(called));
            }
        }
        match self.names.iter().take(self.required).zip(&args).find(|(_, value)| value.is_none()) {
            Some((name, _)) => Err(refusal(format!("{called}: {name} is missing"))),
            None => Ok((args, rest, named)),
        }
    }

    /// As [`Self::bind`], of what is written; `first` arguments are there already.
    fn check(&self, called: &str, first: usize, given: &[CallArg]) -> Result<(), Error> {
        let mut known: Vec<bool> = (0..self.names.len()).map(|place| place < first).collect();
        let (mut place, mut is_open) = (first, false);
        for argument in given {
            match argument {
                CallArg::Pos(_) => {
                    match known.get_mut(place) {
                        Some(slot) => *slot = true,
                        None if self.has_rest || is_open => {}
                        None => return Err(self.too_many(called)),
                    }
                    place += 1;
                }
                CallArg::Kwarg(name, _) => match self.names.iter().position(|known| known == name) {
                    Some(place) => known[place] = true,
                    None if self.has_named => {}
                    None => return Err(self.unknown(called, name)),
                },
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => is_open = true,
            }
        }
        match self.names.iter().take(self.required).zip(&known).find(|(_, known)| !**known) {
            Some((name, _)) if !is_open => Err(refusal(format!("{called}: {name} is missing"))),
            _ => Ok(()),
        }
    }

    fn unknown(&self, called: &str, name: &str) -> Error {
        let known = self.names.iter().skip(1).copied().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "no arguments".into() } else { known };
        refusal(format!("{called} has no argument {name}; it takes {known}"))
    }

    fn too_many(&self, called: &str) -> Error {
        refusal(format!("{called} takes at most {} arguments", self.names.len().saturating_sub(1)))
    }
}

/// What to write in place of a filter, test or function of Jinja2 or Ansible that there is not, and why.
fn instead(name: &str) -> Option<&'static str> {
    const HTML: &str = "it is for HTML, and what is safe there is not safe in a script";
    const NODE: &str = "templates are filled in by the operator, which does not see the files of the node: use a fact, or do it in the script";
    const TIME: &str =
        "the time changes by itself, and the phase would run again for ever: read it in the script, by date";
    const OTHER: &str = "templates see facts, settings, params, node, group and nodes only: take it from there, or from a Secret or ConfigMap by settings";
    const MACROS: &str = "write it in place, or gather it by {% set %} and filters";
    Some(match name {
        "safe" | "forceescape" | "urlize" | "xmlattr" | "striptags" | "lipsum" => HTML,
        "expanduser" | "expandvars" | "realpath" | "fileglob" | "readlink" => NODE,
        "file" | "directory" | "link" | "exists" | "mount" | "link_exists" | "abs_path" | "same_file" => NODE,
        "now" | "strftime" | "to_datetime" => TIME,
        "lookup" | "query" | "q" | "vars" | "hostvars" | "vault" | "unvault" | "undef" => OTHER,
        "json_query" => "take fields by map(attribute='…'), and choose by selectattr('…', 'eq', …)",
        "namespace" => "what is set within a loop ends with it; gather by filters, such as map, select, sum and join",
        "debug" => "write {{ x | to_json }}",
        "cycler" => "within a loop there is loop.cycle('a', 'b')",
        "joiner" => "within a loop there is {{ ',' if not loop.last }}",
        "super" | "self" | "caller" | "macro" => MACROS,
        "attr" => "write x.name or x['name']",
        "succeeded" | "success" | "failed" | "changed" | "skipped" | "started" | "finished" | "reachable" => {
            "what an action came to is in the node's status, not in templates"
        }
        "permutations" | "combinations" => "they become too many; product is there",
        "vaulted_file" | "vault_encrypted" => "keep it in a Secret",
        "from_yaml_all" => "it is one document here: from_yaml",
        "from_ini" | "to_ini" | "from_csv" => "take lines by split, and parts by regex_search",
        "escaped" => HTML,
        "to_bytes" => "human_to_bytes is there",
        "json" | "tojson_pretty" => "to_json is there",
        "nice_json" => "to_nice_json is there",
        "nice_yaml" => "to_nice_yaml is there",
        "len" | "size" => "length is there",
        "sha256" | "sha512" => "write | hash('sha256')",
        "base64" | "b64" | "base64encode" => "b64encode is there",
        "default_if_none" => "write | default('…', true)",
        "lstrip" | "rstrip" | "strip" => "trim is there",
        "startswith" => "write is match('…'), or x.startswith('…')",
        "endswith" => "write x.endswith('…')",
        "concat" => "write ~ between the texts",
        "not" => "write not x",
        "str" => "string is there",
        "uppercase" => "upper is there",
        "lowercase" => "lower is there",
        "omit" => "leave the field out by {% if %}",
        _ => return None,
    })
}

/// That there is no such filter, test, function or method, and what to write.
pub(super) fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> Error {
    if let Some(instead) = instead(name) {
        return refusal(match what {
            "function" => format!("{name}() is not to be had here; {instead}"),
            _ => format!("{what} {name} is not to be had here; {instead}"),
        });
    }
    let near = known.filter(|known| !known.starts_with('~')).map(|known| (distance(known, name), known));
    match near.min().filter(|(distance, _)| *distance <= (name.len() / 3).max(1)) {
        Some((_, near)) => refusal(format!("there is no {what} {name}; {near} is there")),
        None => refusal(format!("there is no {what} {name}")),
    }
}

/// How many characters to change to get from one name to the other.
fn distance(one: &str, other: &str) -> usize {
    let short: Vec<char> = other.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=short.len()).collect();
    for (above, a) in one.chars().take(40).enumerate() {
        let mut before = above;
        row[0] = above + 1;
        for (place, b) in short.iter().enumerate() {
            let change = before + usize::from(a != *b);
            before = row[place + 1];
            row[place + 1] = change.min(row[place] + 1).min(before + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn find(what: &str, table: &'static Table, name: &str) -> Result<&'static Entry, Error> {
    let bare =
        ["ansible.builtin.", "ansible.utils.", "ansible.netcommon."].iter().find_map(|front| name.strip_prefix(front));
    table.get(bare.unwrap_or(name)).copied().ok_or_else(|| unknown(what, name, table.keys().copied()))
}

/// How many parts of regular expressions may still be read before anything is filled in. Those of a template that has more
/// are read when it is filled in, and paid for.
pub(in super::super) struct Room(std::cell::Cell<usize>);

impl Room {
    pub(in super::super) fn new() -> Self {
        Self(std::cell::Cell::new(200))
    }

    /// Whether there was room for so many.
    pub(super) fn take(&self, parts: usize) -> bool {
        let left = self.0.get().checked_sub(parts);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

fn literal<'a>(args: &'a [CallArg<'_>], place: usize) -> Option<&'a Value> {
    match args.get(place)? {
        CallArg::Pos(Expr::Const(constant)) => Some(&constant.value),
        _ => None,
    }
}

/// Refuses a filter that there is not, and arguments that it does not take.
///
/// # Errors
/// The message says what to write.
pub(in super::super) fn check_filter(name: &str, args: &[CallArg], room: &Room) -> Result<(), Error> {
    // What bounds templates adds its own.
    if name.starts_with('~') || matches!(name, "raw" | "required") {
        return Ok(());
    }
    let entry = find("filter", filters(), name)?;
    entry.signature.check(&format!("filter {name}"), 1, args)?;
    match name {
        "map" => check_inner(literal(args, 0), args, 1, |name, rest| check_filter(name, rest, room)),
        "select" | "reject" => check_inner(literal(args, 0), args, 1, |name, rest| check_test(name, rest, room)),
        "selectattr" | "rejectattr" => {
            check_inner(literal(args, 1), args, 2, |name, rest| check_test(name, rest, room))
        }
        "regex_replace" | "regex_search" | "regex_findall" => regexes::check(literal(args, 0), room),
        _ => Ok(()),
    }
}

fn check_inner(
    name: Option<&Value>,
    args: &[CallArg],
    skipped: usize,
    check: impl Fn(&str, &[CallArg]) -> Result<(), Error>,
) -> Result<(), Error> {
    match name.and_then(Value::as_str) {
        Some(name) => check(name, args.get(skipped..).unwrap_or_default()),
        None => Ok(()),
    }
}

/// Refuses a test that there is not, and arguments that it does not take.
///
/// # Errors
/// The message says what to write.
pub(in super::super) fn check_test(name: &str, args: &[CallArg], room: &Room) -> Result<(), Error> {
    let entry = find("test", tests(), name)?;
    entry.signature.check(&format!("test {name}"), 1, args)?;
    match name {
        "match" | "search" | "regex" => regexes::check(literal(args, 0), room),
        _ => Ok(()),
    }
}

/// Refuses a function that there is not.
///
/// # Errors
/// The message says what to write.
pub(in super::super) fn check_function(name: &str, args: &[CallArg]) -> Result<(), Error> {
    find("function", functions(), name)?.signature.check(&format!("function {name}"), 0, args)
}

/// Refuses a method that no value has.
///
/// # Errors
/// The message says what to write.
pub(in super::super) fn check_method(name: &str, args: &[CallArg]) -> Result<(), Error> {
    let candidates = methods::named(name);
    if candidates.is_empty() {
        let hint = match name {
            "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "update" | "setdefault" | "popitem" => {
                "; values do not change: make a new one, by + or | combine(…), and name it by {% set %}"
            }
            _ if filters().contains_key(name) => {
                return Err(refusal(format!("there is no method {name}; write | {name}")));
            }
            _ => "",
        };
        return match hint {
            "" => Err(unknown("method", name, methods::names())),
            hint => Err(refusal(format!("there is no method {name}{hint}"))),
        };
    }
    let checks = candidates.iter().map(|entry| entry.signature.check(&format!("method {name}"), 1, args));
    let mut failed = None;
    for check in checks {
        match check {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Refuses a call of what is no name.
///
/// # Errors
/// Always.
pub(in super::super) fn check_call() -> Result<(), Error> {
    Err(refusal("this cannot be called; functions and methods are called by their name"))
}

/// That a value has no such method.
pub(super) fn no_method(value: &Value, name: &str) -> Error {
    let kind = python::kind(value);
    match filters().contains_key(name) {
        true => refusal(format!("{kind} has no method {name}; write | {name}")),
        false => refusal(format!("{kind} has no method {name}")),
    }
}
