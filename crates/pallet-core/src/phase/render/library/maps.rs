//! Filters over mappings.

use minijinja::{
    Error, Value,
    value::{Tuple, ValueKind},
};

use super::{Call, Entry, Made, entry, lists, mapping, pairs, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["items"], "value", |call| {
            if call.value(0).is_none() {
                return Err(refusal("null is no mapping; say what to use then, as in (x or {}) | items"));
            }
            items(call.pairs(0)?)
        }),
        entry(&["dictsort"], "value, case_sensitive=, by=, reverse=", dictsort),
        entry(&["combine"], "a=, *rest, **named", combine),
        entry(&["dict2items"], "mydict, key_name=, value_name=", |call| {
            let (key_name, value_name) = (call.string_or(1, "key")?, call.string_or(2, "value")?);
            call.pay(((key_name.len() + value_name.len()) as u64).saturating_mul(call.pairs(0)?.len() as u64))?;
            let row = |(key, value)| {
                mapping([(Value::from(key_name.as_str()), key), (Value::from(value_name.as_str()), value)])
            };
            Ok(call.pairs(0)?.into_iter().map(row).collect())
        }),
        entry(&["items2dict"], "mylist, key_name=, value_name=", |call| {
            let (key_name, value_name) = (call.string_or(1, "key")?, call.string_or(2, "value")?);
            let field = |item: &Value, name: &str| match item.get_attr(name) {
                Ok(value) if !value.is_undefined() => Ok(value),
                _ => Err(refusal(format!(
                    "filter items2dict: an item has no {name}; name the fields by key_name and value_name"
                ))),
            };
            let items = call.list(0)?;
            let found = items.iter().map(|item| Ok((field(item, &key_name)?, field(item, &value_name)?)));
            Ok(mapping(found.collect::<Result<Vec<_>, Error>>()?))
        }),
        entry(&["subelements"], "obj, subelements, skip_missing=", subelements),
        entry(&["rekey_on_member"], "data, key, duplicates=", rekey),
    ]
}

pub(super) fn items(pairs: Vec<(Value, Value)>) -> Made {
    Ok(pairs.into_iter().map(|(key, value)| Value::from(Tuple::from([key, value]))).collect())
}

fn dictsort(call: &mut Call) -> Made {
    let (is_sensitive, by, reverse) = (call.flag(1, false), call.string_or(2, "key")?, call.flag(3, false));
    let by_value = match by.as_str() {
        "key" => false,
        "value" => true,
        other => return Err(refusal(format!("filter dictsort: by is to be key or value, not {other}"))),
    };
    let found = call.pairs(0)?;
    let rounds = u64::from(u64::BITS - (found.len() as u64).leading_zeros()) + 1;
    call.pay_times(rounds)?;
    let mut keyed: Vec<(Value, Value)> = found
        .into_iter()
        .map(|(key, value)| {
            let by = if by_value { value.clone() } else { key.clone() };
            (if is_sensitive { by } else { python::folded(by) }, Value::from(Tuple::from([key, value])))
        })
        .collect();
    python::sort(&mut keyed, reverse)?;
    Ok(keyed.into_iter().map(|(_, pair)| pair).collect())
}

fn combine(call: &mut Call) -> Made {
    if let Some((name, _)) = call.named.iter().find(|(name, _)| name != "recursive" && name != "list_merge") {
        return Err(refusal(format!("filter combine has no argument {name}; it takes recursive, list_merge")));
    }
    let is_recursive = call.named("recursive").is_some_and(Value::is_true);
    let merge = match call.named("list_merge").map(|merge| merge.as_str()) {
        None => "replace".to_owned(),
        Some(Some(merge)) if ["replace", "keep", "append", "prepend", "append_rp", "prepend_rp"].contains(&merge) => {
            merge.to_owned()
        }
        Some(_) => {
            return Err(refusal(
                "filter combine: list_merge is to be replace, keep, append, prepend, append_rp or prepend_rp",
            ));
        }
    };
    call.pay_times(2)?;
    let terms: Vec<Value> = call.given(0).into_iter().chain(&call.rest).cloned().collect();
    let mut maps = Vec::new();
    lists::flat(&terms, Some(1), true, &mut maps);
    let mut result: Option<Value> = None;
    for map in maps {
        if map.kind() != ValueKind::Map {
            return Err(refusal(format!("filter combine joins mappings, and one is {}", python::kind(&map))));
        }
        result = Some(match result {
            None => map,
            Some(low) => merged(call, &low, &map, is_recursive, &merge)?,
        });
    }
    Ok(result.unwrap_or_else(|| mapping([])))
}

/// What lies higher wins, as Ansible's `merge_hash` has it.
fn merged(call: &mut Call, low: &Value, high: &Value, is_recursive: bool, merge: &str) -> Made {
    let mut found = pairs(low)?;
    if found.is_empty() {
        return Ok(high.clone());
    }
    for (key, value) in pairs(high)? {
        call.pay((found.len() as u64).saturating_mul(8))?;
        let Some(place) = found.iter().position(|(known, _)| *known == key) else {
            found.push((key, value));
            continue;
        };
        let known = found[place].1.clone();
        let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
        found[place].1 = match (known.kind(), value.kind()) {
            (ValueKind::Map, ValueKind::Map) if is_recursive => merged(call, &known, &value, true, merge)?,
            _ if is_list(&known) && is_list(&value) => {
                let (old, new): (Vec<Value>, Vec<Value>) = (known.try_iter()?.collect(), value.try_iter()?.collect());
                call.pay_items(old.len() + new.len())?;
                match merge {
                    "keep" => known,
                    "append" => [old, new].concat().into(),
                    "prepend" => [new, old].concat().into(),
                    "append_rp" | "prepend_rp" => {
                        call.pay((old.len() as u64).saturating_mul(new.len() as u64).saturating_mul(super::ITEM))?;
                        let old: Vec<Value> = old.into_iter().filter(|item| !new.contains(item)).collect();
                        if merge == "append_rp" { [old, new].concat().into() } else { [new, old].concat().into() }
                    }
                    _ => value,
                }
            }
            _ => value,
        };
    }
    Ok(mapping(found))
}

fn subelements(call: &mut Call) -> Made {
    let value = call.value(0);
    let elements: Vec<Value> = match value.kind() {
        ValueKind::Map => call.pairs(0)?.into_iter().map(|(_, value)| value).collect(),
        _ => call.list(0)?,
    };
    let path: Vec<Value> = match call.value(1).as_str() {
        Some(path) => path.split('.').map(Value::from).collect(),
        None => call.list(1)?,
    };
    call.pay((elements.len() as u64).saturating_mul(path.len() as u64 * super::ITEM))?;
    let skips = match call.given(2) {
        Some(skips) if skips.kind() == ValueKind::Map => skips.get_attr("skip_missing")?.is_true(),
        _ => call.flag(2, false),
    };
    let mut found = Vec::new();
    for element in elements {
        let mut values = element.clone();
        for key in &path {
            let next = match values.kind() {
                ValueKind::Map => values.get_item(key)?,
                _ => {
                    return Err(refusal(format!(
                        "filter subelements: {} is no mapping with fields",
                        python::kind(&values)
                    )));
                }
            };
            if next.is_undefined() && !skips {
                return Err(refusal(format!(
                    "filter subelements: an item has no {key}; skip_missing=true leaves it out"
                )));
            }
            values = if next.is_undefined() { Vec::<Value>::new().into() } else { next };
            if values.kind() != ValueKind::Map && values.len() == Some(0) {
                break;
            }
        }
        if !matches!(values.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Err(refusal(format!(
                "filter subelements: the field is to be a list, and is {}",
                python::kind(&values)
            )));
        }
        let items: Vec<Value> = values.try_iter()?.collect();
        // The element is written once for each.
        call.allowance().pay_for_each(&element, items.len())?;
        found.extend(items.into_iter().map(|item| Value::from(vec![element.clone(), item])));
    }
    Ok(found.into())
}

fn rekey(call: &mut Call) -> Made {
    let (value, key) = (call.value(0), call.value(1));
    let overwrites = match call.string_or(2, "error")?.as_str() {
        "error" => false,
        "overwrite" => true,
        other => {
            return Err(refusal(format!(
                "filter rekey_on_member: duplicates is to be error or overwrite, not {other}"
            )));
        }
    };
    let items: Vec<Value> = match value.kind() {
        ValueKind::Map => call.pairs(0)?.into_iter().map(|(_, value)| value).collect(),
        _ => call.list(0)?,
    };
    let mut found = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    for item in items {
        let name = if item.kind() == ValueKind::Map { item.get_item(&key)? } else { Value::UNDEFINED };
        if name.is_undefined() {
            return Err(refusal(format!("filter rekey_on_member: an item has no {key}")));
        }
        if !seen.insert(name.clone()) && !overwrites {
            return Err(refusal(format!(
                "filter rekey_on_member: two items have the same {key}; duplicates='overwrite' takes the last"
            )));
        }
        found.push((name, item));
    }
    Ok(mapping(found))
}
