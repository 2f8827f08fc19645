//! The filters and tests there are, and what each costs beside its arguments and its result.

use minijinja::{Value, filters, tests as builtin_tests, value::ValueKind};

use super::{ALLOWANCE, ESCAPED, ITEM, is_composed};

/// The longest path of an attribute that is looked for to tell what comparing costs.
const LONGEST_PATH: usize = 256;

/// What a filter or test costs beside its arguments and its result, by its arguments and what was paid for each.
pub(super) type Cost = fn(&[Value], &[u64]) -> u64;

/// Nothing, where what it makes is no longer than what it is given.
pub(super) fn linear(_: &[Value], _: &[u64]) -> u64 {
    0
}

/// As for each item, where the keys that it is given are taken apart for each; and the items are compared.
fn sorted(args: &[Value], paid: &[u64]) -> u64 {
    let keyed = per_item(args, paid).saturating_mul(ITEM);
    // It is refused anyway: the keys are not looked for first.
    if keyed > ALLOWANCE { keyed } else { keyed.saturating_add(ordered(args, paid)) }
}

/// As for each item, and the items are compared about as often as their number has binary digits.
fn grouped(args: &[Value], paid: &[u64]) -> u64 {
    per_item(args, paid).saturating_add(ordered(args, paid))
}

/// Each item is compared with the largest or smallest so far.
fn compared(args: &[Value], paid: &[u64]) -> u64 {
    per_item(args, paid).saturating_add(comparing(args, paid).1)
}

fn ordered(args: &[Value], paid: &[u64]) -> u64 {
    let (items, once) = comparing(args, paid);
    u64::from(u64::BITS - items.leading_zeros() + 1).saturating_mul(once)
}

/// How many items there are, and what comparing each of them once costs: both texts are copied whole to fold their case,
/// so that one that is long makes each comparison long.
fn comparing(args: &[Value], paid: &[u64]) -> (u64, u64) {
    let Some(list) = args.first() else { return (0, 0) };
    let named = args.last().filter(|last| last.is_kwargs()).and_then(|named| named.get_attr("attribute").ok());
    let by = named.filter(|by| !by.is_undefined()).or_else(|| args.get(1).cloned());
    let by = by.as_ref().and_then(Value::as_str).unwrap_or_default();
    let paths: Vec<&str> = by.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
    // To look under long paths takes long by itself: any item may be what stands there.
    if by.len() > LONGEST_PATH {
        return (list.len().unwrap_or(0) as u64, paid.first().copied().unwrap_or(0).saturating_mul(ESCAPED));
    }
    let (mut items, mut longest, mut composed) = (0_u64, 0_u64, false);
    let mut look = |key: &Value| {
        longest = longest.max(key.as_str().map_or(0, str::len) as u64);
        composed = composed || is_composed(key);
    };
    for item in list.try_iter().into_iter().flatten() {
        items += 1;
        if paths.is_empty() {
            look(&item);
        }
        paths.iter().for_each(|path| look(&at(&item, path)));
        if list.kind() == ValueKind::Map {
            look(&list.get_item(&item).unwrap_or_default());
        }
    }
    let texts = items.saturating_mul(2 * ITEM + (longest / 8).saturating_mul(paths.len().max(1) as u64));
    let whole = if composed { paid.first().copied().unwrap_or(0).saturating_mul(3) } else { 0 };
    (items, texts.saturating_add(whole))
}

/// What stands in a value under a path such as `os.family`.
fn at(item: &Value, path: &str) -> Value {
    path.split('.').fold(item.clone(), |value, part| match part.parse::<usize>() {
        Ok(place) => value.get_item_by_index(place).unwrap_or_default(),
        Err(_) => value.get_attr(part).unwrap_or_default(),
    })
}

/// A few times the text, which may get longer; a list is written as text first.
fn textual(args: &[Value], paid: &[u64]) -> u64 {
    let factor = if args.first().is_some_and(is_composed) { ESCAPED } else { 3 };
    paid.first().copied().unwrap_or(0).saturating_mul(factor)
}

/// Each character is looked for among those that are given.
fn trimmed(args: &[Value], paid: &[u64]) -> u64 {
    let others: u64 = paid.iter().skip(1).sum();
    paid.first().copied().unwrap_or(0).saturating_mul(others).saturating_add(textual(args, paid))
}

/// Each part becomes an item.
fn parts(args: &[Value], paid: &[u64]) -> u64 {
    let text = args.first().and_then(Value::as_str).unwrap_or_default();
    let parts = match args.get(1).and_then(Value::as_str) {
        Some(separator) => text.matches(separator).count(),
        None => text.matches(char::is_whitespace).count(),
    };
    (parts as u64 + 1).saturating_mul(ITEM).saturating_add(textual(args, paid))
}

/// By way of a text with so many digits.
fn rounded(args: &[Value], _: &[u64]) -> u64 {
    4 * largest(args).min(1100)
}

/// Its arguments for each item; characters become items too.
fn per_item(args: &[Value], paid: &[u64]) -> u64 {
    let text = args.first().and_then(Value::as_str).map(str::len);
    let items = text.or_else(|| args.first().and_then(Value::len)).unwrap_or(0) as u64;
    let others: u64 = paid.iter().skip(1).sum();
    let characters = if text.is_some() { items * ITEM } else { 0 };
    items.saturating_add(1).saturating_mul(others).saturating_add(characters)
}

/// As for each item, and what lies in them is written escaped.
fn joined(args: &[Value], paid: &[u64]) -> u64 {
    let nested =
        args.first().and_then(|list| list.try_iter().ok()).is_some_and(|mut items| items.any(|it| is_composed(&it)));
    let written = if nested { paid.first().copied().unwrap_or(0).saturating_mul(ESCAPED) } else { 0 };
    per_item(args, paid).saturating_add(written)
}

/// The text that is put in, as often as what it replaces may be found.
fn replaced(args: &[Value], paid: &[u64]) -> u64 {
    let [text, from, _, ..] = args else { return 0 };
    let times = match (text.as_str(), from.as_str()) {
        (Some(text), Some(from)) => text.matches(from).count() as u64,
        _ => paid.first().copied().unwrap_or(0).max(ITEM).saturating_mul(ESCAPED),
    };
    let longest = paid.get(2).copied().unwrap_or(0).max(ITEM);
    times.saturating_mul(longest).saturating_add(textual(args, paid))
}

/// Written out, with the largest number that it is given before each line.
pub(super) fn written(args: &[Value], paid: &[u64]) -> u64 {
    let paid = paid.iter().sum::<u64>();
    paid.saturating_mul(largest(args).saturating_mul(2).saturating_add(ESCAPED))
}

fn indented(args: &[Value], paid: &[u64]) -> u64 {
    let lines = args.first().and_then(Value::as_str).map_or(0, |text| text.matches('\n').count()) as u64;
    (lines + 1).saturating_mul(largest(args).max(4)).saturating_add(textual(args, paid))
}

/// Each place of the pattern may hold all arguments, or be as wide as the largest number in it.
fn formatted(args: &[Value], paid: &[u64]) -> u64 {
    let pattern = args.first().and_then(Value::as_str).unwrap_or_default();
    let numbers = pattern.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widest = numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
    // A star takes the width from the arguments.
    let widest = if pattern.contains('*') { widest.max(largest(args)) } else { widest };
    let one = paid.iter().skip(1).sum::<u64>().saturating_mul(ESCAPED).saturating_add(widest).saturating_add(400);
    (pattern.matches('%').count() as u64).saturating_mul(one)
}

fn parted(args: &[Value], paid: &[u64]) -> u64 {
    per_item(args, paid).saturating_add(largest(args).saturating_mul(ITEM))
}

/// Only numbers are added up without making something longer each time.
fn summed(args: &[Value], paid: &[u64]) -> u64 {
    let start = args.get(2).cloned().or_else(|| args.last().and_then(|last| last.get_attr("start").ok()));
    match start.map(|value| value.kind()) {
        None | Some(ValueKind::Undefined | ValueKind::Number | ValueKind::None) => per_item(args, paid),
        Some(_) => u64::MAX,
    }
}

/// The largest number among all arguments but the first, those with names included.
fn largest(args: &[Value]) -> u64 {
    let number = |value: &Value| match value.as_i64() {
        Some(number) => number.unsigned_abs(),
        None if value.is_number() => u64::MAX,
        None => 0,
    };
    let named = |value: &Value| {
        let values = value.try_iter().into_iter().flatten().filter_map(|key| value.get_item(&key).ok());
        values.map(|value| number(&value)).max().unwrap_or(0)
    };
    let each = args.iter().skip(1).map(|value| if value.is_kwargs() { named(value) } else { number(value) });
    each.max().unwrap_or(0)
}

/// The filters there are: those that make text safe for HTML are left out, since what is safe there passes unquoted into
/// scripts; and so is what is reckoned out anew each time.
pub(super) fn known_filters() -> Vec<(&'static [&'static str], Value, Cost)> {
    use Value as V;
    vec![
        (&["default", "d"], V::from_function(filters::default), linear),
        (&["bool"], V::from_function(filters::bool), linear),
        (&["int"], V::from_function(filters::int), linear),
        (&["float"], V::from_function(filters::float), linear),
        (&["abs"], V::from_function(filters::abs), linear),
        (&["round"], V::from_function(filters::round), rounded),
        (&["attr"], V::from_function(filters::attr), linear),
        (&["first"], V::from_function(filters::first), linear),
        (&["last"], V::from_function(filters::last), per_item),
        (&["length", "count"], V::from_function(filters::length), linear),
        (&["lower"], V::from_function(filters::lower), textual),
        (&["upper"], V::from_function(filters::upper), textual),
        (&["title"], V::from_function(filters::title), textual),
        (&["capitalize"], V::from_function(filters::capitalize), textual),
        (&["trim"], V::from_function(filters::trim), trimmed),
        (&["replace"], V::from_function(filters::replace), replaced),
        (&["indent"], V::from_function(filters::indent), indented),
        (&["format"], V::from_function(filters::format), formatted),
        (&["string"], V::from_function(filters::string), written),
        (&["pprint"], V::from_function(filters::pprint), written),
        (&["join"], V::from_function(filters::join), joined),
        (&["split"], V::from_function(filters::split), parts),
        (&["lines"], V::from_function(filters::lines), parts),
        (&["list"], V::from_function(filters::list), per_item),
        (&["items"], V::from_function(filters::items), per_item),
        (&["dictsort"], V::from_function(filters::dictsort), grouped),
        (&["reverse"], V::from_function(filters::reverse), per_item),
        (&["sort"], V::from_function(filters::sort), sorted),
        (&["min"], V::from_function(filters::min), compared),
        (&["max"], V::from_function(filters::max), compared),
        (&["sum"], V::from_function(filters::sum), summed),
        (&["unique"], V::from_function(filters::unique), grouped),
        (&["map"], V::from_function(filters::map), per_item),
        (&["select"], V::from_function(filters::select), per_item),
        (&["reject"], V::from_function(filters::reject), per_item),
        (&["selectattr"], V::from_function(filters::selectattr), per_item),
        (&["rejectattr"], V::from_function(filters::rejectattr), per_item),
        (&["groupby"], V::from_function(filters::groupby), grouped),
        (&["batch"], V::from_function(filters::batch), parted),
        (&["slice"], V::from_function(filters::slice), parted),
        (&["zip"], V::from_function(filters::zip), per_item),
    ]
}

/// The tests that look into what they are given.
pub(super) fn known_tests() -> Vec<(&'static [&'static str], Value)> {
    use Value as V;
    vec![
        (&["lower"], V::from_function(builtin_tests::is_lower)),
        (&["upper"], V::from_function(builtin_tests::is_upper)),
        (&["startingwith"], V::from_function(builtin_tests::is_startingwith)),
        (&["endingwith"], V::from_function(builtin_tests::is_endingwith)),
        (&["eq", "equalto", "=="], V::from_function(builtin_tests::is_eq)),
        (&["ne", "!="], V::from_function(builtin_tests::is_ne)),
        (&["lt", "lessthan", "<"], V::from_function(builtin_tests::is_lt)),
        (&["le", "<="], V::from_function(builtin_tests::is_le)),
        (&["gt", "greaterthan", ">"], V::from_function(builtin_tests::is_gt)),
        (&["ge", ">="], V::from_function(builtin_tests::is_ge)),
        (&["in"], V::from_function(builtin_tests::is_in)),
        (&["sameas"], V::from_function(builtin_tests::is_sameas)),
    ]
}
