//! Filters over lists, and the functions that make values.

use std::collections::HashSet;

use minijinja::{
    Error, Value,
    value::{Tuple, ValueKind},
};

use super::{Call, Entry, ITEM, LONGEST_RANGE, Made, Range, by_name, entry, pairs, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    vec![
        entry(&["length", "count"], "?obj", |call| {
            let value = call.value(0);
            match value.kind() {
                ValueKind::String => Ok(Value::from(value.as_str().map_or(0, |text| text.chars().count()))),
                ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => Ok(Value::from(call.items(0)?.len())),
                ValueKind::Undefined => Err(python::undefined(&value)),
                _ => Err(call.refuse(0, "text, a list or a mapping", &value)),
            }
        }),
        entry(&["first"], "?seq", |call| Ok(call.items(0)?.into_iter().next().unwrap_or_default())),
        entry(&["last"], "?seq", |call| Ok(call.items(0)?.pop().unwrap_or_default())),
        entry(&["list"], "?value", |call| call.items(0).map(Value::from)),
        entry(&["reverse"], "?value", |call| match call.value(0).as_str() {
            Some(text) => Ok(Value::from(text.chars().rev().collect::<String>())),
            None => {
                let mut items = call.items(0)?;
                items.reverse();
                Ok(items.into())
            }
        }),
        entry(&["join"], "value, d=, attribute=", join),
        entry(&["sort"], "value, reverse=, case_sensitive=, attribute=", sort),
        entry(&["min"], "value, case_sensitive=, attribute=", |call| extreme(call, std::cmp::Ordering::Less)),
        entry(&["max"], "value, case_sensitive=, attribute=", |call| extreme(call, std::cmp::Ordering::Greater)),
        entry(&["unique"], "value, case_sensitive=, attribute=", unique),
        entry(&["sum"], "iterable, attribute=, start=", sum),
        entry(&["map"], "?value, *args, **kwargs", map),
        entry(&["select"], "?value, *args, **kwargs", |call| choose(call, false, true)),
        entry(&["reject"], "?value, *args, **kwargs", |call| choose(call, false, false)),
        entry(&["selectattr"], "?value, attribute, *args, **kwargs", |call| choose(call, true, true)),
        entry(&["rejectattr"], "?value, attribute, *args, **kwargs", |call| choose(call, true, false)),
        entry(&["groupby"], "value, attribute, default=, case_sensitive=", groupby),
        entry(&["batch"], "value, linecount, fill_with=", batch),
        entry(&["slice"], "value, slices, fill_with=", slice),
        entry(&["flatten"], "mylist, levels=, skip_nulls=", flatten),
        entry(&["zip"], "a, *rest", |call| zip(call, false)),
        entry(&["zip_longest"], "a, *rest, **named", |call| zip(call, true)),
        entry(&["product"], "a, *rest, **named", product),
        entry(&["union"], "a, b", |call| sets(call, |_, _| true, |_, _| true)),
        entry(&["intersect"], "a, b", |call| sets(call, |_, in_second| in_second, |_, _| false)),
        entry(&["difference"], "a, b", |call| sets(call, |_, in_second| !in_second, |_, _| false)),
        entry(&["symmetric_difference"], "a, b", |call| sets(call, |_, in_second| !in_second, |in_first, _| !in_first)),
        entry(&["extract"], "item, container, morekeys=", extract),
    ]
}

pub(super) fn functions() -> Vec<Entry> {
    vec![
        entry(&["range"], "start, stop=, step=", |call| {
            let (start, stop) = match call.given(1) {
                None => (0, call.integer_or(0, 0)?),
                Some(_) => (call.integer_or(0, 0)?, call.integer_or(1, 0)?),
            };
            let step = call.integer_or(2, 1)?;
            if step == 0 {
                return Err(refusal("function range: step is not to be 0"));
            }
            let (first, last, by) = (i128::from(start), i128::from(stop), i128::from(step));
            let count =
                if by > 0 { (last - first + by - 1).div_euclid(by) } else { (first - last - by - 1).div_euclid(-by) };
            if count > LONGEST_RANGE {
                return Err(refusal(format!("function range: it has more than {LONGEST_RANGE} numbers")));
            }
            let count = usize::try_from(count).unwrap_or(0);
            Ok(Value::from_object(Range { start, stop, step, count }))
        }),
        entry(&["dict"], "value=, **named", |call| {
            let mut found = match call.given(0) {
                None => Vec::new(),
                Some(value) if value.kind() == ValueKind::Map => pairs(value)?,
                Some(_) => {
                    let mut found = Vec::new();
                    for pair in call.list(0)? {
                        let mut items = pair.try_iter()?;
                        match (items.next(), items.next(), items.next()) {
                            (Some(key), Some(value), None) => found.push((key, value)),
                            _ => return Err(refusal("function dict: each item is to be a pair of key and value")),
                        }
                    }
                    found
                }
            };
            found.extend(call.named.iter().map(|(name, value)| (Value::from(name.as_str()), value.clone())));
            Ok(super::mapping(found))
        }),
    ]
}

/// The value under a path such as `os.family` or `groups.0`, or under a number.
pub(super) fn at(item: &Value, path: &Value) -> Made {
    let Some(path) = path.as_str() else { return part(item, path) };
    let mut value = item.clone();
    for name in path.split('.') {
        if value.is_undefined() {
            return Err(python::undefined(&value));
        }
        value = match name.parse::<i64>() {
            Ok(place) => part(&value, &Value::from(place))?,
            Err(_) => part(&value, &Value::from(name))?,
        };
    }
    Ok(value)
}

/// One field or item; a number counts from the end where it is negative.
fn part(value: &Value, key: &Value) -> Made {
    Ok(match value.kind() {
        ValueKind::Map => value.get_item(key)?,
        ValueKind::Seq | ValueKind::Iterable => {
            let count = value.len().unwrap_or(0) as i64;
            let place = key.as_i64().map(|place| if place < 0 { place + count } else { place });
            match place.and_then(|place| usize::try_from(place).ok()) {
                Some(place) => value.get_item_by_index(place).unwrap_or_default(),
                None => value.get_item(key).unwrap_or_default(),
            }
        }
        ValueKind::Undefined => return Err(python::undefined(value)),
        _ => value.get_item(key).unwrap_or_default(),
    })
}

/// What looking under a path costs for each item.
fn path_cost(path: &Value) -> u64 {
    path.as_str().map_or(ITEM, |path| path.split('.').count() as u64 * ITEM + path.len() as u64)
}

/// The values that items are compared by, beside them; letters in small where case does not count.
fn keyed(
    call: &mut Call,
    items: Vec<Value>,
    attribute: Option<Value>,
    is_sensitive: bool,
    many: bool,
) -> Result<Vec<(Value, Value)>, Error> {
    let attribute = attribute.filter(|attribute| !attribute.is_none());
    let paths: Vec<Value> = match attribute.as_ref().and_then(Value::as_str).filter(|_| many) {
        Some(paths) => paths.split(',').map(|path| Value::from(path.trim())).collect(),
        None => attribute.into_iter().collect(),
    };
    let each: u64 = paths.iter().map(path_cost).sum::<u64>() + ITEM;
    call.pay(each.saturating_mul(items.len() as u64))?;
    let fold = |value: Value| if is_sensitive { value } else { python::folded(value) };
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let mut keys = Vec::with_capacity(paths.len());
        for path in &paths {
            let key = at(&item, path)?;
            if key.is_undefined() {
                return Err(missing(path));
            }
            keys.push(fold(key));
        }
        let key = match keys.len() {
            0 => fold(item.clone()),
            1 => keys.pop().unwrap_or_default(),
            _ => Value::from(keys),
        };
        found.push((key, item));
    }
    Ok(found)
}

fn missing(path: &Value) -> Error {
    let mut name = String::new();
    let _ = python::write(&mut name, path);
    let name = pallet_api::conditions::clip(&name, 60);
    Error::new(minijinja::ErrorKind::UndefinedError, format!("an item of the list has no {name}"))
}

/// Pays for comparing each value about as often as their number has binary digits.
fn pay_for_order(call: &mut Call, keys: &[(Value, Value)], rounds: u64) -> Result<(), Error> {
    // What lies in lists is compared item by item, and text byte by byte.
    let mut longest = 0;
    for (key, _) in keys {
        longest = longest.max(match (key.as_str(), key.kind()) {
            (Some(text), _) => text.len() as u64 / 8,
            (None, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => call.paid,
            _ => 0,
        });
    }
    let once = (keys.len() as u64).saturating_mul(2 * ITEM + longest);
    call.pay(once.saturating_mul(rounds))
}

fn digits(count: usize) -> u64 {
    u64::from(u64::BITS - (count as u64).leading_zeros()) + 1
}

fn join(call: &mut Call) -> Made {
    let mut items = call.items(0)?;
    if let Some(path) = call.given(2).filter(|path| !path.is_none()).cloned() {
        call.pay(path_cost(&path).saturating_mul(items.len() as u64))?;
        items = items
            .iter()
            .map(|item| {
                let value = at(item, &path)?;
                if value.is_undefined() { Err(missing(&path)) } else { Ok(value) }
            })
            .collect::<Result<_, _>>()?;
    }
    let between = if call.given(1).is_some() { call.text(1)? } else { String::new() };
    call.pay((between.len() as u64 + ITEM).saturating_mul(items.len() as u64))?;
    if items.iter().any(|item| item.as_str().is_none()) {
        call.pay_times(8)?;
    }
    joined(&items, &between)
}

/// The texts of items, with a text between them.
pub(super) fn joined(items: &[Value], between: &str) -> Made {
    let quoted = |item: &Value| item.downcast_object_ref::<super::Quoted>().map(|quoted| quoted.0.clone());
    if items.iter().any(|item| quoted(item).is_some()) {
        let words: Option<Vec<String>> = items.iter().map(quoted).collect();
        return match words {
            Some(words) if !between.is_empty() && between.chars().all(char::is_whitespace) => {
                Ok(Value::from_object(super::Quoted(words.join(between))))
            }
            _ => Err(refusal("what | quote made can be joined by spaces only, with other quoted words")),
        };
    }
    let mut out = String::new();
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push_str(between);
        }
        python::write(&mut out, item)?;
    }
    Ok(Value::from(out))
}

fn sort(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let (reverse, is_sensitive, attribute) = (call.flag(1, false), call.flag(2, false), call.given(3).cloned());
    let mut keys = keyed(call, items, attribute, is_sensitive, true)?;
    let rounds = digits(keys.len());
    pay_for_order(call, &keys, rounds)?;
    python::sort(&mut keys, reverse)?;
    Ok(keys.into_iter().map(|(_, item)| item).collect())
}

fn extreme(call: &mut Call, wanted: std::cmp::Ordering) -> Made {
    let items = call.items(0)?;
    let (is_sensitive, attribute) = (call.flag(1, false), call.given(2).cloned());
    let keys = keyed(call, items, attribute, is_sensitive, false)?;
    pay_for_order(call, &keys, 1)?;
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keys {
        let is_better = match &best {
            None => true,
            Some((known, _)) => python::order(&key, known)? == Some(wanted),
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn unique(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let (is_sensitive, attribute) = (call.flag(1, false), call.given(2).cloned());
    let keys = keyed(call, items, attribute, is_sensitive, false)?;
    pay_for_order(call, &keys, 2)?;
    let mut seen = HashSet::new();
    Ok(keys.into_iter().filter(|(key, _)| seen.insert(python::key(key))).map(|(_, item)| item).collect())
}

fn sum(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let attribute = call.given(1).filter(|attribute| !attribute.is_none()).cloned();
    let start = call.given(2).cloned().unwrap_or_else(|| Value::from(0));
    if matches!(start.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return summed_lists(call, items, attribute, &start);
    }
    if python::number(&start).is_none() {
        return Err(refusal("filter sum adds numbers up; lists are joined by | flatten, texts by | join"));
    }
    let (mut whole, mut real) = (python::whole(&start), python::number(&start).unwrap_or(0.0));
    let cost = attribute.as_ref().map_or(ITEM, path_cost);
    call.pay(cost.saturating_mul(items.len() as u64))?;
    for item in items {
        let value = match &attribute {
            Some(path) => at(&item, path)?,
            None => item,
        };
        match (value.is_undefined(), python::number(&value)) {
            (true, _) => return Err(attribute.as_ref().map_or_else(|| python::undefined(&value), missing)),
            (false, None) => {
                let kind = python::kind(&value);
                return Err(refusal(format!(
                    "filter sum adds numbers up, and an item is {kind}; make numbers by | map('int')"
                )));
            }
            (false, Some(number)) => {
                real += number;
                whole = match (whole, python::whole(&value)) {
                    (Some(sum), Some(number)) => {
                        Some(sum.checked_add(number).ok_or_else(|| refusal("the sum is too large"))?)
                    }
                    _ => None,
                };
            }
        }
    }
    Ok(whole.map_or_else(|| Value::from(real), python::integer))
}

/// Lists one behind the other.
fn summed_lists(call: &mut Call, items: Vec<Value>, attribute: Option<Value>, start: &Value) -> Made {
    let mut found: Vec<Value> = start.try_iter()?.collect();
    for item in items {
        let list = match &attribute {
            Some(path) => at(&item, path)?,
            None => item,
        };
        match list.kind() {
            ValueKind::Seq | ValueKind::Iterable => found.extend(list.try_iter()?),
            ValueKind::Undefined => return Err(attribute.as_ref().map_or_else(|| python::undefined(&list), missing)),
            _ => {
                return Err(refusal(format!(
                    "filter sum: each item is to be a list, as start is, and one is {}",
                    python::kind(&list)
                )));
            }
        }
        call.pay_items(found.len().min(64))?;
    }
    Ok(found.into())
}

fn named_filter(call: &Call, what: &str) -> Result<String, Error> {
    match call.rest.first().map(|name| (name, name.as_str())) {
        Some((_, Some(name))) => Ok(name.to_owned()),
        Some((value, None)) => Err(refusal(format!("{what} is named by a text, not by {}", python::kind(value)))),
        None => Err(refusal(format!("{what} is missing"))),
    }
}

fn map(call: &mut Call) -> Made {
    let items = call.items(0)?;
    if call.rest.is_empty() {
        let path = call
            .named("attribute")
            .cloned()
            .ok_or_else(|| refusal("filter map: name a filter, or an attribute, as in map(attribute='name')"))?;
        let default = call.named("default").cloned();
        if let Some((name, _)) = call.named.iter().find(|(name, _)| name != "attribute" && name != "default") {
            return Err(refusal(format!("filter map has no argument {name} beside attribute")));
        }
        call.pay(path_cost(&path).saturating_mul(items.len() as u64))?;
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            let value = match (at(&item, &path), &default) {
                (Err(_), Some(default)) => default.clone(),
                (Ok(value), Some(default)) if value.is_undefined() => default.clone(),
                (value, _) => value?,
            };
            found.push(value);
        }
        return Ok(found.into());
    }
    let filter = named_filter(call, "the filter of map")?;
    let mut args: Vec<Value> = vec![Value::from(())];
    args.extend(call.rest.iter().skip(1).cloned());
    if !call.named.is_empty() {
        args.push(by_name(&call.named));
    }
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        args[0] = item;
        found.push(call.apply(&filter, &args)?);
    }
    Ok(found.into())
}

fn choose(call: &mut Call, by_attribute: bool, wanted: bool) -> Made {
    let items = call.items(0)?;
    let path = by_attribute.then(|| call.value(1));
    let cost = path.as_ref().map_or(ITEM, path_cost);
    call.pay(cost.saturating_mul(items.len() as u64))?;
    let test = if call.rest.is_empty() { None } else { Some(named_filter(call, "the test")?) };
    let mut args: Vec<Value> = vec![Value::from(())];
    args.extend(call.rest.iter().skip(1).cloned());
    if !call.named.is_empty() {
        args.push(by_name(&call.named));
    }
    let mut found = Vec::new();
    for item in items {
        let value = match &path {
            Some(path) => at(&item, path)?,
            None => item.clone(),
        };
        let holds = match &test {
            Some(test) => {
                let asks = matches!(test.as_str(), "defined" | "undefined");
                if value.is_undefined() && !asks {
                    return Err(path.as_ref().map_or_else(|| python::undefined(&value), missing));
                }
                args[0] = value;
                call.test(test, &args)?
            }
            None if value.is_undefined() => {
                return Err(path.as_ref().map_or_else(|| python::undefined(&value), missing));
            }
            None => value.is_true(),
        };
        if holds == wanted {
            found.push(item);
        }
    }
    Ok(found.into())
}

fn groupby(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let path = call.value(1);
    let default = call.given(2).filter(|default| !default.is_none()).cloned();
    let is_sensitive = call.flag(3, false);
    call.pay(path_cost(&path).saturating_mul(items.len() as u64))?;
    let mut keys = Vec::with_capacity(items.len());
    for item in items {
        let key = match (at(&item, &path)?, &default) {
            (key, Some(default)) if key.is_undefined() => default.clone(),
            (key, None) if key.is_undefined() => return Err(missing(&path)),
            (key, _) => key,
        };
        keys.push((
            if is_sensitive { key.clone() } else { python::folded(key.clone()) },
            Value::from(Tuple::from([key, item])),
        ));
    }
    let rounds = digits(keys.len());
    pay_for_order(call, &keys, rounds)?;
    python::sort(&mut keys, false)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (folded, pair) in keys {
        let (key, item) = (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?);
        match groups.last_mut() {
            Some((known, _, items)) if *known == folded => items.push(item),
            _ => groups.push((folded, key, vec![item])),
        }
    }
    Ok(groups.into_iter().map(|(_, key, items)| Value::from_object(Group { key, items: items.into() })).collect())
}

/// A pair of what is shared and the list of those that share it, as `groupby` makes them.
#[derive(Debug)]
struct Group {
    key: Value,
    items: Value,
}

impl minijinja::value::Object for Group {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Seq
    }

    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (None, Some(0)) => Some(self.key.clone()),
            (Some("list"), _) | (None, Some(1)) => Some(self.items.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &std::sync::Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(2)
    }
}

/// Whether a value is written with parentheses.
pub(super) fn is_group(value: &Value) -> bool {
    value.downcast_object_ref::<Group>().is_some()
}

fn count(call: &mut Call, place: usize) -> Result<usize, Error> {
    let count = call.integer_or(place, 1)?;
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    count.ok_or_else(|| refusal(format!("{} is to be 1 or more", call.name_of(place))))
}

fn batch(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let size = count(call, 1)?;
    let fill = call.given(2).filter(|fill| !fill.is_none()).cloned();
    if fill.is_some() {
        call.pay_items(size)?;
    }
    let mut rows: Vec<Vec<Value>> = items.chunks(size).map(<[Value]>::to_vec).collect();
    if let (Some(last), Some(fill)) = (rows.last_mut(), fill) {
        last.resize(size, fill);
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

fn slice(call: &mut Call) -> Made {
    let items = call.items(0)?;
    let slices = count(call, 1)?;
    call.pay_items(slices)?;
    let fill = call.given(2).filter(|fill| !fill.is_none()).cloned();
    let (each, more) = (items.len() / slices, items.len() % slices);
    let mut rest = items.into_iter();
    let rows = (0..slices).map(|place| {
        let mut row: Vec<Value> = rest.by_ref().take(each + usize::from(place < more)).collect();
        row.extend(fill.clone().filter(|_| place >= more));
        Value::from(row)
    });
    Ok(rows.collect())
}

fn flatten(call: &mut Call) -> Made {
    let levels = match call.given(1).filter(|levels| !levels.is_none()) {
        Some(_) => Some(call.integer_or(1, 0)?),
        None => None,
    };
    let skips = call.flag(2, true);
    let mut found = Vec::new();
    flat(&call.list(0)?, levels, skips, &mut found);
    Ok(found.into())
}

pub(super) fn flat(items: &[Value], levels: Option<i64>, skips: bool, found: &mut Vec<Value>) {
    for item in items {
        let is_null = item.is_none() || matches!(item.as_str(), Some("None" | "null"));
        match item.kind() {
            _ if skips && is_null => {}
            ValueKind::Seq | ValueKind::Iterable if levels.is_none_or(|levels| levels >= 1) => {
                let inner: Vec<Value> = item.try_iter().into_iter().flatten().collect();
                flat(&inner, levels.map(|levels| levels - 1), skips, found);
            }
            _ => found.push(item.clone()),
        }
    }
}

fn all_lists(call: &mut Call) -> Result<Vec<Vec<Value>>, Error> {
    let mut lists = vec![call.items(0)?];
    for other in call.rest.clone() {
        match other.kind() {
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String => {
                lists.push(other.try_iter()?.collect())
            }
            _ => return Err(refusal(format!("each argument is to be a list, and one is {}", python::kind(&other)))),
        }
    }
    Ok(lists)
}

fn zip(call: &mut Call, is_longest: bool) -> Made {
    let lists = all_lists(call)?;
    let fill = call.named("fillvalue").cloned().unwrap_or_else(|| Value::from(()));
    if let Some((name, _)) = call.named.iter().find(|(name, _)| name != "fillvalue") {
        return Err(refusal(format!("filter zip_longest has no argument {name}; it takes fillvalue")));
    }
    let lengths = lists.iter().map(Vec::len);
    let count = if is_longest { lengths.max() } else { lengths.min() }.unwrap_or(0);
    call.pay((count as u64).saturating_mul(lists.len() as u64 * ITEM + if is_longest { call.paid } else { 0 }))?;
    let row = |place| lists.iter().map(|list| list.get(place).unwrap_or(&fill).clone()).collect::<Vec<_>>();
    Ok((0..count).map(|place| Value::from(row(place))).collect())
}

fn product(call: &mut Call) -> Made {
    let mut lists = all_lists(call)?;
    let repeat = call.named("repeat").cloned();
    if let Some((name, _)) = call.named.iter().find(|(name, _)| name != "repeat") {
        return Err(refusal(format!("filter product has no argument {name}; it takes repeat")));
    }
    if let Some(repeat) = repeat {
        let times = repeat
            .as_usize()
            .filter(|times| *times <= 16)
            .ok_or_else(|| refusal("filter product: repeat is to be a number up to 16"))?;
        lists = lists.iter().cycle().take(lists.len().saturating_mul(times).min(64)).cloned().collect();
    }
    let count = lists.iter().fold(1_u64, |count, list| count.saturating_mul(list.len() as u64));
    // Each text in it is shared, but looked at once for each row.
    call.pay(count.saturating_mul((lists.len() as u64 + 1) * ITEM))?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in &lists {
        rows = rows
            .iter()
            .flat_map(|row| list.iter().map(move |item| [row.as_slice(), std::slice::from_ref(item)].concat()))
            .collect();
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

/// The items of both lists that are wanted, each once, in the order in which they come.
fn sets(call: &mut Call, of_first: fn(bool, bool) -> bool, of_second: fn(bool, bool) -> bool) -> Made {
    let (first, second) = (call.items(0)?, call.items(1)?);
    call.pay_times(2)?;
    let first_keys: HashSet<Value> = first.iter().map(python::key).collect();
    let second_keys: HashSet<Value> = second.iter().map(python::key).collect();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let wanted = first.into_iter().map(|item| (item, of_first)).chain(second.into_iter().map(|item| (item, of_second)));
    for (item, is_wanted) in wanted {
        let key = python::key(&item);
        if is_wanted(first_keys.contains(&key), second_keys.contains(&key)) && seen.insert(key) {
            found.push(item);
        }
    }
    Ok(found.into())
}

fn extract(call: &mut Call) -> Made {
    let mut value = part(&call.value(1), &call.value(0))?;
    let more = match call.given(2).filter(|keys| !keys.is_none()) {
        None => Vec::new(),
        Some(keys) if matches!(keys.kind(), ValueKind::Seq | ValueKind::Iterable) => call.list(2)?,
        Some(key) => vec![key.clone()],
    };
    for key in more {
        value = part(&value, &key)?;
    }
    Ok(value)
}
