//! Reads YAML 1.1 as PyYAML does.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};
use minijinja::{Error, Value, value::ValueKind};

use super::{
    super::{Call, Made, mapping, pairs, python, refusal},
    Plain, plain,
};

/// How deep lists and mappings may lie in each other.
const DEEPEST: usize = 60;

enum Open {
    List(Vec<Value>),
    Map(Vec<(Value, Value)>, Option<Value>),
}

fn wrong(why: &str) -> Error {
    refusal(format!("filter from_yaml: {why}"))
}

/// The value of a document.
///
/// # Errors
/// It is no YAML, more than one document, or holds what templates have no values for.
pub(super) fn read(call: &mut Call, text: &str) -> Made {
    let options = granit_parser::options! { flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    let (mut found, mut documents) = (None, 0);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let message = error.to_string();
            wrong(&format!("it is no YAML: {}", message.lines().next().unwrap_or_default()))
        })?;
        let line = span.start.line();
        call.pay(super::super::ITEM)?;
        let (value, anchor) = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(wrong("there is more than one document; split the text at '---'"));
                }
                continue;
            }
            Event::SequenceStart(_, anchor, tag) => {
                known_tag(tag.as_deref().and_then(|tag| tag.core_suffix()), tag.is_some())?;
                deeper(&mut open, Open::List(Vec::new()), anchor)?;
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                known_tag(tag.as_deref().and_then(|tag| tag.core_suffix()), tag.is_some())?;
                deeper(&mut open, Open::Map(Vec::new(), None), anchor)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((Open::List(items), anchor)) => (Value::from(items), anchor),
                Some((Open::Map(items, _), anchor)) => (merged(items)?, anchor),
                None => return Err(wrong("it ends before it begins")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let core = tag.as_deref().and_then(|tag| tag.core_suffix());
                known_tag(core, tag.is_some())?;
                let is_plain = style == ScalarStyle::Plain && core.is_none_or(|core| core != "str");
                (if is_plain { scalar(&text, line)? } else { Value::from(&*text) }, anchor)
            }
            Event::Alias(anchor) => {
                let value =
                    anchors.get(&anchor).cloned().ok_or_else(|| wrong("an alias stands within what it names"))?;
                // It is written as often as it is named.
                call.allowance().pay_for(&value)?;
                (value, 0)
            }
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, value.clone());
        }
        match open.last_mut() {
            None => found = Some(value),
            Some((Open::List(items), _)) => items.push(value),
            Some((Open::Map(items, key), _)) => match key.take() {
                Some(key) => items.push((key, value)),
                None if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
                    return Err(wrong(&format!(
                        "a list or mapping is a key, in line {line}; templates within YAML are filled in before, so quote what begins with {{"
                    )));
                }
                None => *key = Some(value),
            },
        }
    }
    Ok(found.unwrap_or_else(|| Value::from(())))
}

fn deeper(open: &mut Vec<(Open, usize)>, new: Open, anchor: usize) -> Result<(), Error> {
    if open.len() >= DEEPEST {
        return Err(wrong("lists and mappings lie too deep in each other"));
    }
    open.push((new, anchor));
    Ok(())
}

fn known_tag(core: Option<&str>, is_given: bool) -> Result<(), Error> {
    match core {
        None if is_given => Err(wrong("it has a tag of its own, such as !name, which is not to be had")),
        Some("str" | "map" | "seq") | None => Ok(()),
        Some(other) => {
            Err(wrong(&format!("it has the tag !!{other}, which is not to be had; write the value plainly")))
        }
    }
}

fn scalar(text: &str, line: usize) -> Made {
    Ok(match plain(text) {
        Plain::Text => match text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|c| c.is_ascii_digit())
            && text.len() > 38
            && !text.starts_with('0')
        {
            true => return Err(wrong(&format!("a number is too large, in line {line}; quote it"))),
            false => Value::from(text),
        },
        Plain::Null => Value::from(()),
        Plain::Bool(value) => Value::from(value),
        Plain::Int(number) => python::integer(number),
        Plain::Float(number) => Value::from(number),
        Plain::Time => return Err(wrong(&format!("a date or time is not to be had, in line {line}; quote it"))),
        Plain::Special => Value::from(text),
    })
}

/// Puts in what `<<` names; fields of the mapping itself win.
fn merged(items: Vec<(Value, Value)>) -> Made {
    if !items.iter().any(|(key, _)| key.as_str() == Some("<<")) {
        return Ok(mapping(items));
    }
    let (mut low, mut own) = (Vec::new(), Vec::new());
    for (key, value) in items {
        match (key.as_str(), value.kind()) {
            (Some("<<"), ValueKind::Map) => low.extend(pairs(&value)?),
            (Some("<<"), ValueKind::Seq | ValueKind::Iterable) => {
                let mut maps: Vec<Value> = value.try_iter()?.collect();
                maps.reverse();
                for map in maps {
                    if map.kind() != ValueKind::Map {
                        return Err(wrong("<< names what is no mapping"));
                    }
                    low.extend(pairs(&map)?);
                }
            }
            (Some("<<"), _) => return Err(wrong("<< names what is no mapping")),
            _ => own.push((key, value)),
        }
    }
    low.extend(own);
    Ok(mapping(low))
}
