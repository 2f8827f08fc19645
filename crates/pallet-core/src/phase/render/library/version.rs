//! Versions, compared as Ansible does.

use std::cmp::Ordering;

use minijinja::{Error, Value};

use super::{Call, Entry, entry, python, refusal};

pub(super) fn tests() -> Vec<Entry> {
    vec![entry(&["version", "version_compare"], "value, version, operator=, strict=, version_type=", |call| {
        compare(call).map(Value::from)
    })]
}

/// A piece of a version: numbers and texts are not compared with each other.
#[derive(Debug, PartialEq)]
enum Piece {
    Number(u128),
    Text(String),
}

fn text(call: &Call, place: usize) -> Result<String, Error> {
    let value = call.value(place);
    match python::text(&value)? {
        text if text.is_empty() => Err(refusal("test version: a version is empty")),
        text => Ok(text),
    }
}

fn compare(call: &mut Call) -> Result<bool, Error> {
    let (one, other) = (text(call, 0)?, text(call, 1)?);
    call.pay_times(super::ITEM)?;
    let operator = call.string_or(2, "eq")?;
    let given = |call: &Call, place: usize| call.given(place).is_some_and(|value| !value.is_none());
    if given(call, 3) && given(call, 4) {
        return Err(refusal("test version: give strict or version_type, not both"));
    }
    let kind = if call.flag(3, false) {
        "strict".to_owned()
    } else if given(call, 4) {
        call.string(4)?
    } else {
        "loose".to_owned()
    };
    let order = match kind.as_str() {
        "loose" => loose(&one, &other)?,
        "strict" => strict(&one)?.cmp(&strict(&other)?),
        "semver" | "semantic" => semantic(&one, &other)?,
        "pep440" => return Err(refusal("test version: pep440 is not to be had; loose, strict and semver are")),
        other => {
            return Err(refusal(format!(
                "test version: there is no version_type {other}; loose, strict and semver are"
            )));
        }
    };
    Ok(match operator.as_str() {
        "==" | "=" | "eq" => order == Ordering::Equal,
        "!=" | "<>" | "ne" => order != Ordering::Equal,
        "<" | "lt" => order == Ordering::Less,
        "<=" | "le" => order != Ordering::Greater,
        ">" | "gt" => order == Ordering::Greater,
        ">=" | "ge" => order != Ordering::Less,
        other => {
            return Err(refusal(format!("test version: there is no operator {other}; ==, !=, <, <=, > and >= are")));
        }
    })
}

fn number(digits: &str) -> Result<u128, Error> {
    digits.parse().map_err(|_| refusal("test version: a number in it is too large"))
}

/// Numbers, small letters and what is between them, without the dots.
fn pieces(version: &str) -> Result<Vec<Piece>, Error> {
    let class = |c: char| match c {
        '0'..='9' => 0,
        'a'..='z' => 1,
        '.' => 2,
        _ => 3,
    };
    let mut found = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.chars().next() {
        let end = match class(first) {
            2 => 1,
            first => rest.find(|c| class(c) != first).unwrap_or(rest.len()),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        match class(first) {
            0 => found.push(Piece::Number(number(part)?)),
            2 => {}
            _ => found.push(Piece::Text(part.to_owned())),
        }
    }
    Ok(found)
}

fn loose(one: &str, other: &str) -> Result<Ordering, Error> {
    let (first, second) = (pieces(one)?, pieces(other)?);
    for (a, b) in first.iter().zip(&second) {
        let order = match (a, b) {
            (Piece::Number(a), Piece::Number(b)) => a.cmp(b),
            (Piece::Text(a), Piece::Text(b)) => a.cmp(b),
            _ => {
                let shown = |version| pallet_api::conditions::clip(version, 40);
                return Err(refusal(format!(
                    "test version: {} and {} cannot be compared, a number stands where the other has text; take the part by regex_search",
                    shown(one),
                    shown(other)
                )));
            }
        };
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    Ok(first.len().cmp(&second.len()))
}

/// `1.2`, `1.2.3`, `1.2a1`: what has no `a` or `b` is later.
fn strict(version: &str) -> Result<(Vec<u128>, u8, u128), Error> {
    let wrong = || {
        refusal(format!(
            "test version: {} is no strict version, such as 1.2 or 1.2.3",
            pallet_api::conditions::clip(version, 40)
        ))
    };
    let (numbers, early) = match version.find(['a', 'b']) {
        Some(at) => (&version[..at], Some(&version[at..])),
        None => (version, None),
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let parts: Vec<&str> = numbers.split('.').collect();
    if !matches!(parts.len(), 2 | 3) || !parts.iter().all(|part| is_number(part)) {
        return Err(wrong());
    }
    let mut found = parts.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
    found.resize(3, 0);
    Ok(match early {
        None => (found, b'z', 0),
        Some(early) if is_number(&early[1..]) => (found, early.as_bytes()[0], number(&early[1..])?),
        Some(_) => return Err(wrong()),
    })
}

/// The numbers of a semantic version, and what stands behind its `-`.
fn semantic_parts(version: &str) -> Result<(Vec<u128>, Option<Vec<&str>>), Error> {
    let wrong = || {
        refusal(format!(
            "test version: {} is no semantic version, such as 1.2.3 or 1.2.3-rc.1",
            pallet_api::conditions::clip(version, 40)
        ))
    };
    let bare = version.split('+').next().unwrap_or_default();
    let (numbers, early) = bare.split_once('-').map_or((bare, None), |(numbers, early)| (numbers, Some(early)));
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    if parts.len() != 3 || !parts.iter().all(|part| fits(part)) {
        return Err(wrong());
    }
    let early: Option<Vec<&str>> = early.map(|early| early.split('.').collect());
    let is_name = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    if early.as_ref().is_some_and(|early| !early.iter().all(is_name)) {
        return Err(wrong());
    }
    Ok((parts.into_iter().map(number).collect::<Result<_, _>>()?, early))
}

fn semantic(one: &str, other: &str) -> Result<Ordering, Error> {
    let ((numbers, early), (other_numbers, other_early)) = (semantic_parts(one)?, semantic_parts(other)?);
    let order = numbers.cmp(&other_numbers);
    if order != Ordering::Equal {
        return Ok(order);
    }
    let (early, other_early) = match (early, other_early) {
        (None, None) => return Ok(Ordering::Equal),
        (None, Some(_)) => return Ok(Ordering::Greater),
        (Some(_), None) => return Ok(Ordering::Less),
        (Some(early), Some(other)) => (early, other),
    };
    for (a, b) in early.iter().zip(&other_early) {
        let order = match (a.parse::<u128>(), b.parse::<u128>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    Ok(early.len().cmp(&other_early.len()))
}
