//! Regular expressions as Python writes them, matched in time that grows with the text.
//!
//! What needs backtracking (looking around, going back to a group) is refused, and so is what other engines read otherwise.

use std::sync::Arc;

use minijinja::{Error, Value};
use regex::{Regex, RegexBuilder};

use super::{Call, Entry, Made, Room, entry, python, refusal};

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 1024;
/// How large a compiled pattern may get, and what it then costs for each byte of text.
const SIZES: [(usize, u64); 3] = [(16 << 10, 64), (128 << 10, 512), (1 << 20, 4096)];
/// What compiling costs for each byte, and for each class of characters, which may be a large table.
const COMPILING: (u64, u64) = (1 << 10, 48 << 10);
/// How many compiled patterns one rendering keeps.
const KEPT: usize = 8;

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(
            &["regex_replace"],
            "value, pattern, replacement=, ignorecase=, multiline=, count=, mandatory_count=",
            replace,
        ),
        entry(&["regex_search"], "value, regex, *args, **kwargs", search),
        entry(&["regex_findall"], "value, regex, multiline=, ignorecase=", find_all),
        entry(&["regex_escape"], "string, re_type=", escape),
    ]
}

pub(super) fn tests() -> Vec<Entry> {
    const SIGNATURE: &str = "value, pattern=, ignorecase=, multiline=";
    vec![
        entry(&["match"], SIGNATURE, |call| matched(call, "match")),
        entry(&["search"], SIGNATURE, |call| matched(call, "search")),
        entry(&["regex"], "value, pattern=, ignorecase=, multiline=, match_type=", |call| {
            let how = call.string_or(4, "search")?;
            matched(call, &how)
        }),
    ]
}

/// Refuses a pattern that cannot be matched, before anything is filled in.
///
/// # Errors
/// It is none, or needs backtracking.
pub(super) fn check(pattern: Option<&Value>, room: &Room) -> Result<(), Error> {
    match pattern.and_then(Value::as_str) {
        Some(pattern) if pattern.len() > LONGEST_PATTERN => Err(too_long()),
        Some(pattern) if room.take(1 + pattern.matches(['\\', '[', '(']).count()) => {
            let translated = translated(pattern)?.pattern;
            // It is read, and hardly compiled.
            match RegexBuilder::new(&translated).size_limit(1 << 10).nest_limit(64).build() {
                Ok(_) | Err(regex::Error::CompiledTooBig(_)) => Ok(()),
                Err(error) => Err(malformed(&error)),
            }
        }
        _ => Ok(()),
    }
}

fn too_long() -> Error {
    refusal("the regular expression is longer than 1 KiB")
}

fn malformed(error: &regex::Error) -> Error {
    let message = error.to_string();
    let why = message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
    refusal(format!("the regular expression cannot be read: {why}"))
}

/// A pattern as the engine here writes it.
struct Translated {
    pattern: String,
    /// Whether a `$` would also stand before a line break at the end of the text.
    ends_lines: bool,
    /// Whether it asks for as little as possible somewhere.
    is_lazy: bool,
}

/// Writes a pattern of Python's `re` as the engine here reads it.
fn translated(pattern: &str) -> Result<Translated, Error> {
    let refuse = |what: &str| Err(refusal(format!("the regular expression has {what}")));
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    let (mut ends_lines, mut is_lazy, mut after_repeat) = (false, false, false);
    while let Some(c) = characters.next() {
        let was_repeat = std::mem::take(&mut after_repeat);
        match c {
            '\\' => escaped(&mut out, characters.next(), false)?,
            '[' => class(&mut out, &mut characters)?,
            '(' if characters.peek() == Some(&'?') => {
                characters.next();
                group(&mut out, &mut characters)?;
            }
            '*' | '+' | '?' if was_repeat => match c {
                '?' => {
                    is_lazy = true;
                    out.push('?');
                }
                '+' => return refuse("a possessive repetition such as a++, which is not to be had; write a+"),
                _ => return refuse("a repetition of a repetition; put it in parentheses"),
            },
            '*' | '+' | '?' => {
                after_repeat = true;
                out.push(c);
            }
            '{' => {
                let rest: String = characters.clone().take_while(|c| *c != '}').collect();
                let is_count = characters.clone().any(|c| c == '}')
                    && rest.chars().all(|c| c.is_ascii_digit() || c == ',')
                    && rest.matches(',').count() <= 1
                    && !rest.is_empty()
                    && rest != ",";
                if is_count {
                    if was_repeat {
                        return refuse("a repetition of a repetition; put it in parentheses");
                    }
                    let counted = match rest.strip_prefix(',') {
                        Some(most) => format!("{{0,{most}}}"),
                        None => format!("{{{rest}}}"),
                    };
                    out.push_str(&counted);
                    characters.nth(rest.chars().count());
                    after_repeat = true;
                } else if rest == "," && characters.clone().any(|c| c == '}') {
                    out.push('*');
                    characters.nth(1);
                    after_repeat = true;
                } else {
                    out.push_str("\\{");
                }
            }
            '}' => out.push_str("\\}"),
            ']' => out.push_str("\\]"),
            '$' => {
                ends_lines = true;
                out.push('$');
            }
            c => out.push(c),
        }
    }
    Ok(Translated { pattern: out, ends_lines, is_lazy })
}

fn literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(&c.to_string()));
}

fn escaped(out: &mut String, c: Option<char>, in_class: bool) -> Result<(), Error> {
    let refuse = |what: String| Err(refusal(format!("the regular expression has {what}")));
    match c {
        None => return refuse("a \\ at its end".into()),
        Some(c @ ('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'n' | 'r' | 't' | 'f' | 'v' | 'a')) => {
            out.push('\\');
            out.push(c);
        }
        Some('b') if in_class => out.push_str("\\x08"),
        Some(c @ ('b' | 'B' | 'A')) if !in_class => {
            out.push('\\');
            out.push(c);
        }
        Some('Z') if !in_class => out.push_str("\\z"),
        Some('x' | 'u' | 'U') => return refuse("a character by its number; write the character".into()),
        Some('0') => out.push_str("\\x00"),
        Some(c) if c.is_ascii_digit() => {
            return refuse(format!(
                "\\{c}, which goes back to a group: that is not to be had; compare what regex_search finds"
            ));
        }
        Some(c) if c.is_ascii_alphabetic() => return refuse(format!("\\{c}, which Python has not")),
        Some(c) => literal(out, c),
    }
    Ok(())
}

fn class(out: &mut String, characters: &mut std::iter::Peekable<std::str::Chars>) -> Result<(), Error> {
    let refuse = |what: &str| Err(refusal(format!("the regular expression has {what}")));
    out.push('[');
    if characters.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    loop {
        match characters.next() {
            None => return refuse("a [ without its ]"),
            Some(']') if !is_first => break,
            Some('\\') => escaped(out, characters.next(), true)?,
            Some('[') if characters.peek() == Some(&':') => {
                return refuse("[: in a class, which Python takes for characters; write \\d, \\w, \\s or a-z");
            }
            Some('-') => {
                // At either end it is a character, elsewhere a range.
                let ends = is_first || characters.peek() == Some(&']') || out.ends_with("[^");
                out.push_str(if ends { "\\-" } else { "-" });
            }
            Some(c @ ('[' | '&' | '~' | '^' | ']')) => {
                out.push('\\');
                out.push(c);
            }
            Some(c) => out.push(c),
        }
        is_first = false;
    }
    out.push(']');
    Ok(())
}

fn group(out: &mut String, characters: &mut std::iter::Peekable<std::str::Chars>) -> Result<(), Error> {
    let refuse = |what: &str| Err(refusal(format!("the regular expression has {what}")));
    let rest: String = characters.clone().take(80).collect();
    if rest.starts_with(':') {
        characters.next();
        out.push_str("(?:");
        return Ok(());
    }
    if let Some(named) = rest.strip_prefix("P<") {
        let name: String = named.chars().take_while(|c| *c != '>').collect();
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fits || !named[name.len()..].starts_with('>') {
            return refuse("a group whose name is none");
        }
        characters.nth(2 + name.len());
        out.push_str(&format!("(?P<{name}>"));
        return Ok(());
    }
    if ["=", "!", "<=", "<!"].iter().any(|mark| rest.starts_with(mark)) {
        return refuse(
            "(?=, (?!, (?<= or (?<!, which look around: that is not to be had; match more, and take the part by a group",
        );
    }
    if rest.starts_with("P=") || rest.starts_with('(') {
        return refuse("a part that depends on a group, which is not to be had");
    }
    let flags: String = rest.chars().take_while(|c| "ims".contains(*c)).collect();
    let end = rest.chars().nth(flags.len());
    if !flags.is_empty() && matches!(end, Some(':')) || !flags.is_empty() && end == Some(')') && out.is_empty() {
        characters.nth(flags.len());
        out.push_str(&format!("(?{flags}{}", end.unwrap_or(')')));
        return Ok(());
    }
    refuse("(? with what is not to be had; (?:…), (?P<name>…), and (?i), (?m), (?s) at its begin are")
}

/// A compiled pattern, and what it costs for each byte of a text.
struct Compiled {
    regex: Regex,
    each: u64,
    ends_lines: bool,
    is_lazy: bool,
}

#[derive(Default)]
struct Cache(Vec<(String, bool, bool, Arc<Compiled>)>);

fn compiled(call: &mut Call, pattern: &str, ignores_case: bool, multiline: bool) -> Result<Arc<Compiled>, Error> {
    if let Some(cache) = call.state.get_extension::<Cache>()
        && let Some((.., found)) =
            cache.0.iter().find(|(known, i, m, _)| known == pattern && *i == ignores_case && *m == multiline)
    {
        return Ok(found.clone());
    }
    if pattern.len() > LONGEST_PATTERN {
        return Err(too_long());
    }
    let classes = pattern.matches(['\\', '[', '(']).count() as u64;
    call.pay(COMPILING.0 * pattern.len() as u64 + COMPILING.1 * classes)?;
    let translated = translated(pattern)?;
    for (size, each) in SIZES {
        call.pay(size as u64)?;
        let built = RegexBuilder::new(&translated.pattern)
            .case_insensitive(ignores_case)
            .multi_line(multiline)
            .size_limit(size)
            .dfa_size_limit(size)
            .nest_limit(64)
            .build();
        match built {
            Ok(regex) => {
                let found = Arc::new(Compiled {
                    regex,
                    each,
                    ends_lines: translated.ends_lines && !multiline,
                    is_lazy: translated.is_lazy,
                });
                let cache = call.state.get_or_insert_extension_with(Cache::default);
                if cache.0.len() >= KEPT {
                    cache.0.remove(0);
                }
                cache.0.push((pattern.to_owned(), ignores_case, multiline, found.clone()));
                return Ok(found);
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => return Err(malformed(&error)),
        }
    }
    Err(refusal("the regular expression is too large; it repeats too much"))
}

/// Pays for searching a text once.
fn pay_for_search(call: &mut Call, compiled: &Compiled, text: &str) -> Result<(), Error> {
    if compiled.ends_lines && text.ends_with('\n') {
        return Err(refusal(
            "the text ends with a line break, and $ in the regular expression would stand before it too; write \\Z, or (x | trim)",
        ));
    }
    call.pay((text.len() as u64 + 1).saturating_mul(compiled.each))
}

/// All matches, an empty one right behind another included, as Python counts them.
fn matches<'t>(
    call: &mut Call,
    compiled: &Compiled,
    text: &'t str,
    most: usize,
) -> Result<Vec<regex::Captures<'t>>, Error> {
    let mut found: Vec<regex::Captures> = Vec::new();
    let mut at = 0;
    let mut last_empty = None;
    let groups = compiled.regex.captures_len() as u64;
    pay_for_search(call, compiled, text)?;
    while found.len() < most && at <= text.len() {
        // Groups are found by another way, which is slower.
        call.pay(super::ITEM * (groups + 1))?;
        let Some(captures) = compiled.regex.captures_at(text, at) else { break };
        let Some(whole) = captures.get(0) else { break };
        // A match may be found only after much of what follows was looked at.
        call.pay(((text.len() - at) as u64).saturating_mul(compiled.each / 8 + groups))?;
        if whole.is_empty() && compiled.is_lazy {
            return Err(refusal(
                "the regular expression finds nothing with a lazy repetition; write one that is not lazy",
            ));
        }
        if whole.is_empty() && last_empty == Some(whole.start()) {
            at = whole.end() + text[whole.end()..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        at = whole.end();
        // The next one may begin here, if it is not empty.
        last_empty = whole.is_empty().then_some(at);
        found.push(captures);
    }
    Ok(found)
}

/// What stands for a match: text, and groups by number.
enum Part {
    Text(String),
    Group(usize),
}

/// Reads a replacement as Python does: `\1`, `\g<1>`, `\g<name>`, `\n`.
fn replacement(text: &str, regex: &Regex) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    let wrong = |what: &str| refusal(format!("the replacement has {what}"));
    while let Some(c) = characters.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        let group = match characters.next() {
            None => return Err(wrong("a \\ at its end; write \\\\")),
            Some('n') => {
                plain.push('\n');
                continue;
            }
            Some('t') => {
                plain.push('\t');
                continue;
            }
            Some('r') => {
                plain.push('\r');
                continue;
            }
            Some('\\') => {
                plain.push('\\');
                continue;
            }
            Some('g') => {
                let name: String = characters.by_ref().skip_while(|c| *c == '<').take_while(|c| *c != '>').collect();
                match name.parse::<usize>() {
                    Ok(group) => Some(group),
                    Err(_) => regex.capture_names().position(|known| known == Some(name.as_str())),
                }
            }
            Some('0') => return Err(wrong("\\0; the whole match is \\g<0>")),
            Some(digit @ '1'..='9') => {
                let mut digits = digit.to_string();
                digits.extend(characters.next_if(char::is_ascii_digit));
                digits.parse().ok()
            }
            Some(c) if c.is_ascii_alphabetic() => {
                return Err(wrong(&format!("\\{c}, which Python has not; write \\\\{c}")));
            }
            Some(c) => {
                plain.push('\\');
                plain.push(c);
                continue;
            }
        };
        match group.filter(|group| *group < regex.captures_len()) {
            Some(group) => {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Group(group));
            }
            None => return Err(wrong("a group that the regular expression has not")),
        }
    }
    parts.push(Part::Text(plain));
    Ok(parts)
}

fn replace(call: &mut Call) -> Made {
    let (text, pattern, with) = (call.text(0)?, call.string(1)?, call.string_or(2, "")?);
    let (ignores_case, multiline) = (call.flag(3, false), call.flag(4, false));
    let (most, wanted) = (call.integer_or(5, 0)?, call.integer_or(6, 0)?);
    let compiled = compiled(call, &pattern, ignores_case, multiline)?;
    let parts = replacement(&with, &compiled.regex)?;
    let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
    let found = matches(call, &compiled, &text, most)?;
    if wanted != 0 && wanted != found.len() as i64 {
        return Err(refusal(format!("the regular expression is to match {wanted} times, and matches {}", found.len())));
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for captures in &found {
        let (start, end) = captures.get(0).map_or((at, at), |whole| (whole.start(), whole.end()));
        out.push_str(&text[at..start]);
        at = end;
        let before = out.len();
        for part in &parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => out.push_str(captures.get(*group).map_or("", |found| found.as_str())),
            }
        }
        call.pay(out.len().saturating_sub(before) as u64 + super::ITEM)?;
    }
    out.push_str(&text[at..]);
    Ok(Value::from(out))
}

fn search(call: &mut Call) -> Made {
    let (text, pattern) = (call.text(0)?, call.string(1)?);
    if let Some((name, _)) = call.named.iter().find(|(name, _)| name != "ignorecase" && name != "multiline") {
        return Err(refusal(format!("filter regex_search has no argument {name}; it takes ignorecase, multiline")));
    }
    let flag = |call: &Call, name: &str| call.named(name).is_some_and(Value::is_true);
    let (ignores_case, multiline) = (flag(call, "ignorecase"), flag(call, "multiline"));
    let compiled = compiled(call, &pattern, ignores_case, multiline)?;
    pay_for_search(call, &compiled, &text)?;
    let mut groups = Vec::new();
    for wanted in call.rest.clone() {
        let wanted = wanted.as_str().unwrap_or_default();
        let name = wanted.strip_prefix("\\g<").and_then(|name| name.strip_suffix('>'));
        let number = name.unwrap_or(wanted.strip_prefix('\\').unwrap_or("-")).parse::<usize>().ok();
        let group =
            number.or_else(|| compiled.regex.capture_names().position(|known| known.is_some() && known == name));
        let group = group.filter(|group| *group < compiled.regex.captures_len());
        groups.push(group.ok_or_else(|| {
            refusal(
                "filter regex_search: what follows the pattern is to be a group of it, as in '\\\\1' or '\\\\g<name>'",
            )
        })?);
    }
    let Some(found) = compiled.regex.captures(&text) else { return Ok(Value::from(())) };
    let text_of = |group: usize| found.get(group).map_or_else(|| Value::from(()), |found| Value::from(found.as_str()));
    Ok(if groups.is_empty() { text_of(0) } else { groups.into_iter().map(text_of).collect() })
}

fn find_all(call: &mut Call) -> Made {
    let (text, pattern) = (call.text(0)?, call.string(1)?);
    let (multiline, ignores_case) = (call.flag(2, false), call.flag(3, false));
    let compiled = compiled(call, &pattern, ignores_case, multiline)?;
    let found = matches(call, &compiled, &text, usize::MAX)?;
    let groups = compiled.regex.captures_len();
    call.pay((found.len() as u64).saturating_mul(groups as u64 * super::ITEM))?;
    let text_of =
        |captures: &regex::Captures, group: usize| Value::from(captures.get(group).map_or("", |found| found.as_str()));
    let row = |captures: &regex::Captures| match groups {
        1 | 2 => text_of(captures, groups - 1),
        _ => (1..groups).map(|group| text_of(captures, group)).collect(),
    };
    Ok(found.iter().map(row).collect())
}

fn escape(call: &mut Call) -> Made {
    let text = call.text(0)?;
    call.pay(3 * text.len() as u64)?;
    let special = match call.string_or(1, "python")?.as_str() {
        "python" => "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}",
        "posix_basic" => "[].^$*\\",
        other => {
            return Err(refusal(format!("filter regex_escape: there is no type {other}; python and posix_basic are")));
        }
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    Ok(Value::from(out))
}

fn matched(call: &mut Call, how: &str) -> Made {
    let text = match call.value(0).as_str() {
        Some(text) => text.to_owned(),
        None => python::text(&call.value(0))?,
    };
    let pattern = call.string_or(1, "")?;
    let (ignores_case, multiline) = (call.flag(2, false), call.flag(3, false));
    let pattern = match how {
        "search" => pattern,
        // From the begin of the text on, whatever its lines.
        "match" => anchored(&pattern, ""),
        "fullmatch" => anchored(&pattern, "\\Z"),
        other => {
            return Err(refusal(format!(
                "test regex: there is no match_type {other}; search, match and fullmatch are"
            )));
        }
    };
    let compiled = compiled(call, &pattern, ignores_case, multiline)?;
    pay_for_search(call, &compiled, &text)?;
    Ok(Value::from(compiled.regex.is_match(&text)))
}

fn anchored(pattern: &str, end: &str) -> String {
    let (flags, rest) = match pattern.strip_prefix("(?").and_then(|rest| rest.split_once(')')) {
        Some((flags, rest)) if !flags.is_empty() && flags.chars().all(|c| "ims".contains(c)) => {
            (format!("(?{flags})"), rest)
        }
        _ => (String::new(), pattern),
    };
    format!("{flags}\\A(?:{rest}){end}")
}
