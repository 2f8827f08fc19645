//! Filters over texts and paths.

use minijinja::{
    Error, Value,
    value::{Tuple, ValueKind},
};

use super::{Call, Entry, Made, entry, format, pairs, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["lower"], "s", |call| changed(call, |text| text.to_lowercase())),
        entry(&["upper"], "s", |call| changed(call, |text| text.to_uppercase())),
        entry(&["title"], "s", |call| changed(call, title)),
        entry(&["capitalize"], "s", |call| changed(call, capitalized)),
        entry(&["trim"], "value, chars=", trim),
        entry(&["replace"], "s, old, new, count=", replace),
        entry(&["indent"], "s, width=, first=, blank=", indent),
        entry(&["format"], "value, *args, **kwargs", formatted),
        entry(&["string"], "s", |call| call.text(0).map(Value::from)),
        entry(&["center"], "value, width=", center),
        entry(&["truncate"], "s, length=, killwords=, end=, leeway=", truncate),
        entry(&["wordwrap"], "s, width=, break_long_words=, wrapstring=, break_on_hyphens=", wordwrap),
        entry(&["wordcount"], "s", wordcount),
        entry(&["escape", "e"], "s", |call| changed(call, |text| escaped(&text))),
        entry(&["urlencode"], "value", urlencode),
        entry(&["urldecode"], "string", urldecode),
        entry(&["urlsplit"], "value, query=", urlsplit),
        entry(&["split"], "string, sep=, maxsplit=", |call| split(call, 0)),
        entry(&["lines"], "s", |call| {
            let text = call.text(0)?;
            call.pay_items(text.len())?;
            Ok(lines(&text).into_iter().map(Value::from).collect::<Vec<_>>().into())
        }),
        entry(&["pprint"], "value", pprint),
        entry(&["basename"], "path", |call| Ok(Value::from(call.string(0)?.rsplit('/').next().unwrap_or_default()))),
        entry(&["dirname"], "path", |call| Ok(Value::from(dirname(&call.string(0)?)))),
        entry(&["splitext"], "path", |call| {
            let path = call.string(0)?;
            let (root, end) = splitext(&path);
            Ok(Value::from(vec![Value::from(root), Value::from(end)]))
        }),
        entry(&["path_join"], "paths", path_join),
        entry(&["normpath"], "path", |call| changed(call, |path| normpath(&path))),
        entry(&["relpath"], "path, start", relpath),
        entry(&["commonpath"], "paths", commonpath),
        entry(&["win_basename"], "path", |call| {
            Ok(Value::from(call.string(0)?.rsplit(['/', '\\']).next().unwrap_or_default()))
        }),
    ]
}

/// The text of the first argument, changed to one that is at most three times as long.
fn changed(call: &mut Call, change: impl Fn(String) -> String) -> Made {
    let text = call.text(0)?;
    call.pay((text.len() as u64).saturating_mul(3))?;
    Ok(Value::from(change(text)))
}

pub(super) fn capitalized(text: String) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

fn title(text: String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if c == '-' || c.is_whitespace() || "({[<".contains(c) {
            begins = true;
            out.push(c);
        } else if begins {
            begins = false;
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

/// What `strip()` takes away.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

fn trim(call: &mut Call) -> Made {
    let text = call.text(0)?;
    match call.given(1).filter(|chars| !chars.is_none()) {
        None => Ok(Value::from(text.trim_matches(is_blank))),
        Some(_) => {
            let chars = call.string(1)?;
            call.pay((text.len() as u64).saturating_mul(chars.len() as u64))?;
            Ok(Value::from(text.trim_matches(|c| chars.contains(c))))
        }
    }
}

fn replace(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let (old, new) = (call.text(1)?, call.text(2)?);
    let most = match call.given(3).filter(|count| !count.is_none()) {
        Some(_) => call.integer_or(3, -1)?,
        None => -1,
    };
    Ok(Value::from(replaced(call, &text, &old, &new, most)?))
}

/// `text.replace(old, new, most)`; all where `most` is negative.
pub(super) fn replaced(call: &mut Call, text: &str, old: &str, new: &str, most: i64) -> Result<String, Error> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let times = text.matches(old).count().min(most) as u64;
    call.pay(times.saturating_mul((new.len() as u64).max(super::ITEM)).saturating_add(3 * text.len() as u64))?;
    Ok(text.replacen(old, new, most))
}

/// Where Python takes a line to end.
pub(super) fn lines(text: &str) -> Vec<&str> {
    split_lines(text, false)
}

pub(super) fn split_lines(text: &str, keeps_ends: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut characters) = (0, text.char_indices().peekable());
    while let Some((at, c)) = characters.next() {
        if !matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && characters.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        found.push(&text[start..if keeps_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}

fn indent(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let width = match call.given(1) {
        Some(width) if width.as_str().is_some() => call.string(1)?,
        _ => {
            let width = usize::try_from(call.integer_or(1, 4)?.max(0)).unwrap_or(usize::MAX);
            call.pay(width as u64)?;
            " ".repeat(width)
        }
    };
    let (first, blank) = (call.flag(2, false), call.flag(3, false));
    let text = text + "\n";
    let lines = lines(&text);
    call.pay((lines.len() as u64).saturating_mul(width.len() as u64).saturating_add(3 * text.len() as u64))?;
    let mut out = String::with_capacity(text.len());
    for (place, line) in lines.into_iter().enumerate() {
        if place > 0 {
            out.push('\n');
        }
        if place == 0 && first || place > 0 && (blank || !line.is_empty()) {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn formatted(call: &mut Call) -> Made {
    let pattern = call.text(0)?;
    let units = format::cost(&pattern, call.paid);
    call.pay(units)?;
    if !call.rest.is_empty() && !call.named.is_empty() {
        return Err(refusal("filter format takes values one after the other or by name, not both"));
    }
    let named = (!call.named.is_empty())
        .then(|| super::mapping(call.named.iter().map(|(name, value)| (Value::from(name.as_str()), value.clone()))));
    Ok(Value::from(format::percent(&pattern, &call.rest, named.as_ref())?))
}

/// `width` characters or more, with the text in the middle.
pub(super) fn centered(call: &mut Call, text: &str, width: i64, fill: char) -> Made {
    let width = usize::try_from(width).unwrap_or(0);
    call.pay(width as u64 * 4)?;
    let missing = width.saturating_sub(text.chars().count());
    let before = missing / 2 + (missing & width & 1);
    let fill = |count: usize| String::from_iter(std::iter::repeat_n(fill, count));
    Ok(Value::from(format!("{}{text}{}", fill(before), fill(missing - before))))
}

fn center(call: &mut Call) -> Made {
    let (text, width) = (call.text(0)?, call.integer_or(1, 80)?);
    centered(call, &text, width, ' ')
}

fn truncate(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let length = call.integer_or(1, 255)?;
    let end = call.string_or(3, "...")?;
    let leeway = match call.given(4).filter(|leeway| !leeway.is_none()) {
        Some(_) => call.integer_or(4, 5)?,
        None => 5,
    };
    let end_length = end.chars().count() as i64;
    if length < end_length || leeway < 0 {
        return Err(refusal(format!("filter truncate: length is to be {end_length} or more, and leeway 0 or more")));
    }
    let count = text.chars().count() as i64;
    if count <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let kept: String = text.chars().take(usize::try_from(length - end_length).unwrap_or(0)).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !call.flag(2, false) => words.to_owned(),
        _ => kept,
    };
    Ok(Value::from(kept + &end))
}

fn wordwrap(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let width = usize::try_from(call.integer_or(1, 79)?).ok().filter(|width| *width > 0);
    let width = width.ok_or_else(|| refusal("filter wordwrap: width is to be 1 or more"))?;
    let breaks_words = call.flag(2, true);
    let between = match call.given(3).filter(|between| !between.is_none()) {
        Some(_) => call.string(3)?,
        None => "\n".into(),
    };
    if call.flag(4, true) && text.contains('-') {
        return Err(refusal(
            "filter wordwrap: the text has hyphens; say whether lines may break there: break_on_hyphens=false",
        ));
    }
    call.pay((text.len() as u64).saturating_mul(super::ITEM + between.len() as u64))?;
    let mut out = Vec::new();
    for line in lines(&text) {
        out.push(wrapped(line, width, breaks_words).join(&between));
    }
    Ok(Value::from(out.join(&between)))
}

/// The lines of `textwrap.wrap`, as Jinja2 calls it.
fn wrapped(line: &str, width: usize, breaks_words: bool) -> Vec<String> {
    let is_space = |c: char| matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ');
    let mut chunks: Vec<Vec<char>> = Vec::new();
    for c in line.chars() {
        match chunks.last_mut() {
            Some(chunk) if chunk.first().is_some_and(|first| is_space(*first) == is_space(c)) => chunk.push(c),
            _ => chunks.push(vec![c]),
        }
    }
    chunks.reverse();
    let blank = |chunk: &[char]| chunk.iter().all(|c| is_space(*c));
    let mut found: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        let (mut current, mut length): (Vec<Vec<char>>, usize) = (Vec::new(), 0);
        if !found.is_empty() && chunks.last().is_some_and(|chunk| blank(chunk)) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            current.push(chunk);
        }
        if let Some(long) = chunks.last_mut().filter(|chunk| chunk.len() > width) {
            if breaks_words {
                let rest = long.split_off((width - length).max(usize::from(width < 1)).min(long.len()));
                let taken = std::mem::replace(long, rest);
                current.push(taken);
            } else if current.is_empty() {
                current.extend(chunks.pop());
            }
        }
        if current.last().is_some_and(|chunk| blank(chunk)) {
            current.pop();
        }
        if !current.is_empty() {
            found.push(current.concat().into_iter().collect());
        }
    }
    found
}

fn wordcount(call: &mut Call) -> Made {
    let text = call.text(0)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    Ok(Value::from(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

fn percent_encoded(text: &str, plain: &[u8], is_query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || plain.contains(&byte) => {
                out.push(byte.into())
            }
            b' ' if is_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn urlencode(call: &mut Call) -> Made {
    call.pay_times(3)?;
    let value = call.value(0);
    let items = match value.kind() {
        ValueKind::Map => pairs(&value)?,
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect::<Result<_, Error>>()?,
        _ => return Ok(Value::from(percent_encoded(&call.text(0)?, b"/", false))),
    };
    let encoded = |value: &Value| Ok::<_, Error>(percent_encoded(&python::text(value)?, b"", true));
    let parts = items.iter().map(|(key, value)| Ok(format!("{}={}", encoded(key)?, encoded(value)?)));
    Ok(Value::from(parts.collect::<Result<Vec<_>, Error>>()?.join("&")))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut place) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(place) {
        let code = bytes.get(place + 1..place + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code
            .filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                out.push(code);
                place += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        place += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn urldecode(call: &mut Call) -> Made {
    changed(call, |text| percent_decoded(&text))
}

fn urlsplit(call: &mut Call) -> Made {
    let url = call.string(0)?;
    call.pay_times(4)?;
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_lowercase(), rest),
        _ => (String::new(), url.as_str()),
    };
    let (netloc, rest) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, host) = netloc.rsplit_once('@').map_or((None, netloc), |(login, host)| (Some(login), host));
    let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let text_or_null = |text: Option<&str>| text.map_or_else(|| Value::from(()), Value::from);
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => {
            Value::from(port.parse::<u16>().map_err(|_| refusal("filter urlsplit: the port is no number up to 65535"))?)
        }
        None => Value::from(()),
    };
    let name = Some(name.to_lowercase()).filter(|name| !name.is_empty());
    let found = super::mapping(
        [
            ("fragment", Value::from(fragment)),
            ("hostname", text_or_null(name.as_deref())),
            ("netloc", Value::from(netloc)),
            ("password", text_or_null(login.and_then(|login| login.split_once(':')).map(|(_, password)| password))),
            ("path", Value::from(path)),
            ("port", port),
            ("query", Value::from(query)),
            ("scheme", Value::from(scheme)),
            ("username", text_or_null(login.map(|login| login.split_once(':').map_or(login, |(user, _)| user)))),
        ]
        .map(|(key, value)| (Value::from(key), value)),
    );
    match call.string_or(1, "")?.as_str() {
        "" => Ok(found),
        part => {
            let value = found.get_attr(part)?;
            if value.is_undefined() {
                Err(refusal(format!("filter urlsplit: there is no part {part}")))
            } else {
                Ok(value)
            }
        }
    }
}

/// `text.split(sep, maxsplit)`, of the first two arguments after the text.
pub(super) fn split(call: &mut Call, at: usize) -> Made {
    let text = call.string(at)?;
    let most = call.integer_or(at + 2, -1)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let separator = match call.given(at + 1).filter(|separator| !separator.is_none()) {
        Some(_) => Some(call.string(at + 1)?),
        None => None,
    };
    let parts = match &separator {
        Some(separator) => text.matches(separator.as_str()).count(),
        None => text.matches(is_blank).count(),
    };
    call.pay_items(parts + 1)?;
    let found: Vec<Value> = match &separator {
        Some(separator) if separator.is_empty() => {
            return Err(refusal("a text cannot be split at nothing; | list gives its characters"));
        }
        Some(separator) => text.splitn(most + 1, separator.as_str()).map(Value::from).collect(),
        None => split_blanks(&text, most).into_iter().map(Value::from).collect(),
    };
    Ok(found.into())
}

fn split_blanks(text: &str, most: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        if found.len() == most {
            found.push(rest.trim_end_matches(is_blank));
            break;
        }
        let end = rest.find(is_blank).unwrap_or(rest.len());
        found.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_blank);
    }
    found
}

fn pprint(call: &mut Call) -> Made {
    call.pay_times(8)?;
    let mut out = String::new();
    python::represent(&mut out, &sorted(&call.value(0))?)?;
    if out.chars().count() > 80 {
        return Err(refusal("filter pprint: it is longer than a line; write | to_nice_json or | to_nice_yaml"));
    }
    Ok(Value::from(out))
}

fn sorted(value: &Value) -> Made {
    match value.kind() {
        ValueKind::Map => {
            let mut items = Vec::new();
            for (key, value) in pairs(value)? {
                items.push((key.clone(), Value::from(Tuple::from([key, sorted(&value)?]))));
            }
            python::sort(&mut items, false)?;
            let items = items.into_iter().map(|(key, pair)| Ok((key, pair.get_item_by_index(1)?)));
            Ok(super::mapping(items.collect::<Result<Vec<_>, Error>>()?))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| sorted(&item)).collect::<Result<Vec<_>, _>>()?;
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { items.into() })
        }
        _ => Ok(value.clone()),
    }
}

fn dirname(path: &str) -> &str {
    let head = &path[..path.rfind('/').map_or(0, |at| at + 1)];
    let stripped = head.trim_end_matches('/');
    if stripped.is_empty() { head } else { stripped }
}

fn splitext(path: &str) -> (&str, &str) {
    let name = path.rfind('/').map_or(0, |at| at + 1);
    match path.rfind('.').filter(|at| *at > name) {
        Some(at) if path[name..at].chars().any(|c| c != '.') => path.split_at(at),
        _ => (path, ""),
    }
}

fn path_join(call: &mut Call) -> Made {
    call.pay_times(2)?;
    let value = call.value(0);
    if value.as_str().is_some() {
        return Ok(value);
    }
    let mut joined = String::new();
    for (place, part) in call.list(0)?.into_iter().enumerate() {
        let part = part.as_str().ok_or_else(|| refusal("filter path_join: each part is to be text"))?.to_owned();
        if part.starts_with('/') || place == 0 {
            joined = part;
        } else {
            if !joined.is_empty() && !joined.ends_with('/') {
                joined.push('/');
            }
            joined.push_str(&part);
        }
    }
    Ok(Value::from(joined))
}

fn normpath(path: &str) -> String {
    let root = match path {
        "" => return ".".into(),
        path if path.starts_with("//") && !path.starts_with("///") => "//",
        path if path.starts_with('/') => "/",
        _ => "",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." || root.is_empty() && parts.last().is_none_or(|last| *last == "..") {
            parts.push(part);
        } else {
            parts.pop();
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".into() } else { joined }
}

fn relpath(call: &mut Call) -> Made {
    let (path, start) = (normpath(&call.string(0)?), normpath(&call.string(1)?));
    call.pay_times(4)?;
    if path.starts_with('/') != start.starts_with('/') {
        return Err(refusal("filter relpath: both paths are to begin with /, or neither"));
    }
    fn parts(path: &str) -> Vec<&str> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
    }
    let (path, start) = (parts(&path), parts(&start));
    let same = path.iter().zip(&start).take_while(|(a, b)| a == b).count();
    let steps: Vec<&str> = std::iter::repeat_n("..", start.len() - same).chain(path[same..].iter().copied()).collect();
    Ok(Value::from(if steps.is_empty() { ".".to_owned() } else { steps.join("/") }))
}

fn commonpath(call: &mut Call) -> Made {
    let mut paths = Vec::new();
    for path in call.list(0)? {
        let path = path.as_str().ok_or_else(|| refusal("filter commonpath: each path is to be text"))?;
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        paths.push((path.starts_with('/'), parts));
    }
    call.pay_times(4)?;
    let Some((absolute, first)) = paths.first() else {
        return Err(refusal("filter commonpath: there are no paths"));
    };
    if paths.iter().any(|(other, _)| other != absolute) {
        return Err(refusal("filter commonpath: all paths are to begin with /, or none"));
    }
    let same = (0..first.len())
        .take_while(|place| paths.iter().all(|(_, parts)| parts.get(*place) == first.get(*place)))
        .count();
    Ok(Value::from(format!("{}{}", if *absolute { "/" } else { "" }, first[..same].join("/"))))
}
