//! Compares the answers of expressions with those of Kubernetes' own CEL, in `tests/dialects/cel/table.jsonl`.
//!
//! `make dialects` makes that table anew.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const CONTEXT: &str = include_str!("../../../../../tests/dialects/cel/context.json");
const TABLE: &str = include_str!("../../../../../tests/dialects/cel/table.jsonl");

/// What an expression comes to, as JSON; of what JSON does not have, its type.
fn value(expression: &str, context: &Value) -> Result<Value, String> {
    let parsed = parsed(expression)?;
    let meter = Budget::new().meter(LIMIT);
    let mut scope = Scope::with_env(ENVIRONMENT.clone());
    metered::declare(&mut scope, &meter);
    for (root, value) in seen(&parsed.names, &|root| context.get(root)) {
        scope.add_variable_from_value(root, to_cel(&value));
    }
    if let Ok(value) = scope.resolve(&parsed.metered) {
        return Ok(as_json(&value));
    }
    // What the operator's own types hold has no JSON.
    let value = Cel::resolve_val(&parsed.metered, &scope).map_err(|error| error.to_string())?;
    Ok(json!(value.get_type().name()))
}

fn as_json(value: &Cel) -> Value {
    match value {
        Cel::Null => Value::Null,
        Cel::Bool(value) => json!(value),
        Cel::Int(value) => json!(value),
        Cel::UInt(value) => json!(value),
        Cel::Float(value) if value.is_nan() => json!("NaN"),
        Cel::Float(value) if value.is_infinite() => json!(if *value > 0.0 { "Infinity" } else { "-Infinity" }),
        Cel::Float(value) => json!(value),
        Cel::String(text) => json!(text.as_str()),
        Cel::Bytes(bytes) => {
            json!(data_encoding::BASE64.encode(bytes))
        }
        Cel::List(items) => items.iter().map(as_json).collect(),
        Cel::Map(map) => map
            .map
            .iter()
            .map(|(key, value)| (key.to_string(), as_json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Cel::Duration(duration) => json!(format!("{}s", duration.as_seconds_f64())),
        Cel::Timestamp(time) => json!(time.to_rfc3339().replace("+00:00", "Z")),
        other => json!(format!("{other:?}")),
    }
}

/// Numbers are equal as numbers: a table in JSON cannot tell 1 from 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        // What JavaScript's numbers cannot hold is written as a text.
        (Value::String(text), Value::Number(number)) => *text == number.to_string(),
        _ => one == other,
    }
}

/// Refused on purpose: messages of protobuf, an accident of Go's `strconv`, and texts of lists and maps, which differ between
/// the versions of cel-go.
const REFUSED: [&str; 4] = [
    "google.protobuf.Timestamp{seconds: 1}",
    "double(\"1_0\")",
    "\"%s\".format([[1, \"a\", true, null]])",
    "\"%s\".format([{\"b\": 1, \"a\": 2}])",
];

#[test]
fn expressions_answer_as_those_of_kubernetes() {
    let context: Value = serde_json::from_str(CONTEXT).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let expression = row["expression"].as_str().unwrap();
        let answer = with_room(|| value(expression, &context));
        let verdict = match (row.get("result"), &answer) {
            (Some(expected), Ok(answer)) if same(expected, answer) => "same",
            (Some(_), Ok(_)) => "different",
            (Some(_), Err(_)) if REFUSED.contains(&expression) => "refused",
            (Some(_), Err(_)) => "missing",
            (None, Err(_)) => "both refuse",
            (None, Ok(_)) => "only here",
        };
        *counts.entry(verdict).or_default() += 1;
        if matches!(verdict, "different" | "missing") {
            wrong.push(format!("{verdict}: {expression}: {row} but {answer:?}"));
        }
    }
    println!("{counts:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What Kubernetes' CEL answers the type checker lets through, but for comparisons whose answer follows from the types alone: here they
/// are known, and there they are not.
#[test]
fn the_type_checker_refuses_nothing_that_may_be_true() {
    let context: Value = serde_json::from_str(CONTEXT).unwrap();
    let shape = |path: &str| {
        let value = path.split('.').try_fold(&context, |at, name| at.get(name));
        value.map_or(types::Type::Any, types::of_json)
    };
    let mut checked = 0;
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (expression, result) = (row["expression"].as_str().unwrap(), row.get("result"));
        let Ok(parsed) = with_room(|| parsed(expression)) else { continue };
        let Some(result) = result.filter(|result| **result != json!(false)) else { continue };
        checked += 1;
        if let Err(message) = with_room(|| types::check(&parsed.plain, &shape)) {
            let expected = ["must be true or false", "== compares", "!= compares"];
            let is_meant = expected.iter().any(|expected| message.contains(expected));
            assert!(is_meant, "{expression}: {message}, but it is {result}");
        }
    }
    assert!(checked > 400, "{checked}");
}

const PAGE: &str = include_str!("../../../../../docs/reference/expressions.md");

/// The section of the page that speaks of expressions.
fn section() -> &'static str {
    PAGE.split("## Expressions (CEL)\n").nth(1).expect("the section")
}

#[test]
fn the_examples_of_the_page_are_true() {
    let context: Value = serde_json::from_str(CONTEXT).unwrap();
    let rows = section().lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"));
    let mut examples = 0;
    for (_, example) in rows {
        assert_eq!(with_room(|| value(example, &context)), Ok(json!(true)), "{example}");
        examples += 1;
    }
    assert!(examples > 30, "{examples}");
}

#[test]
fn the_page_names_every_function() {
    for name in functions::names() {
        let last = name.strip_prefix("format.").unwrap_or(name);
        let named = [format!("`{last}`"), format!("{last}("), format!(".{last}(")];
        assert!(named.iter().any(|named| section().contains(named)), "{name}");
    }
}
