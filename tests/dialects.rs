//! Templates mean what they mean in Jinja2 and Ansible: `tests/dialects/templates.json` holds what these make of each
//! snippet (`make dialects` regenerates it), and each is filled in to the same text, or refused for a reason that is listed.

use std::collections::BTreeSet;

use pallet_core::phase::render::{Mode, names, render, vocabulary};
use serde::Deserialize;
use serde_json::Value;

const CONTEXT: &str = include_str!("dialects/templates/context.json");
const TABLE: &str = include_str!("dialects/templates.json");
/// What is refused on purpose: snippets with a part of the message.
const REFUSED: &str = include_str!("dialects/templates/refused.json");

#[derive(Deserialize)]
struct Row {
    template: String,
    /// None where Jinja2 refuses it.
    jinja2: Option<String>,
    /// Absent where Ansible says the same as Jinja2.
    #[serde(default, deserialize_with = "present")]
    ansible: Option<Option<String>>,
}

fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(input).map(Some)
}

#[derive(Deserialize)]
struct Refused {
    template: String,
    why: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Same,
    Refused,
    Different,
}

fn filled(template: &str, context: &Value) -> Result<String, String> {
    names(template)?;
    render(template, Mode::Text, context).map_err(|fault| fault.to_string())
}

fn verdict(row: &Row, ours: &Result<String, String>) -> Verdict {
    let theirs = [row.jinja2.as_ref(), row.ansible.as_ref().and_then(Option::as_ref)];
    match ours {
        Ok(text) if theirs.contains(&Some(text)) => Verdict::Same,
        Ok(_) => Verdict::Different,
        Err(_) if theirs == [None, None] => Verdict::Same,
        Err(_) => Verdict::Refused,
    }
}

#[test]
fn templates_mean_what_they_mean_to_jinja2_and_ansible_or_are_refused_for_a_listed_reason() {
    let context: Value = serde_json::from_str(CONTEXT).unwrap();
    let table: Vec<Row> = serde_json::from_str(TABLE).unwrap();
    let refused: Vec<Refused> = serde_json::from_str(REFUSED).unwrap();
    let (mut wrong, mut same, mut listed) = (Vec::new(), 0, 0);
    for row in &table {
        let ours = filled(&row.template, &context);
        let reason = refused.iter().find(|it| it.template == row.template);
        match (verdict(row, &ours), reason, &ours) {
            (Verdict::Same, None, _) => same += 1,
            (Verdict::Refused, Some(reason), Err(message)) if message.contains(&reason.why) => listed += 1,
            (verdict, ..) => wrong.push(format!(
                "{verdict:?}: {:?}\n  ours    {ours:?}\n  jinja2  {:?}\n  ansible {:?}",
                row.template, row.jinja2, row.ansible
            )),
        }
    }
    println!("{} snippets: {same} the same, {listed} refused, {} otherwise", table.len(), wrong.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    assert!(same * 100 >= table.len() * 95, "only {same} of {} are the same", table.len());
    assert_eq!(listed, refused.len(), "listed as refused, and not in the table");
}

/// The rows of a table in docs/reference/expressions.md: the names in the first column, and the example with what it comes to.
fn documented() -> Vec<(String, Vec<String>, String, String)> {
    let page = include_str!("../docs/reference/expressions.md");
    let mut what = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let row = row.replace("\\|", "\u{0}");
        let cells: Vec<String> = row.split(" | ").map(|cell| cell.replace('\u{0}', "|")).collect();
        let [names, example, text] = cells.as_slice() else { continue };
        if text == "comes to" {
            what = names.trim_end_matches('s').to_owned();
            continue;
        }
        let code = |cell: &str| cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).map(str::to_owned);
        if let (Some(example), Some(text)) = (code(example).filter(|it| it.starts_with("{{")), code(text)) {
            let names = names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
            rows.push((what.clone(), names, example, text.replace('⏎', "\n")));
        }
    }
    rows
}

#[test]
fn each_filter_test_function_and_method_has_an_example_in_the_documentation_that_is_true() {
    let context: Value = serde_json::from_str(CONTEXT).unwrap();
    let rows = documented();
    for (_, _, example, text) in &rows {
        assert_eq!(filled(example, &context).as_ref(), Ok(text), "{example}");
    }
    let told: BTreeSet<(&str, &str)> = rows
        .iter()
        .flat_map(|(what, names, ..)| names.iter().map(move |name| (what.as_str(), name.as_str())))
        .collect();
    let known: BTreeSet<(&str, &str)> = vocabulary().into_iter().collect();
    assert_eq!(told.difference(&known).collect::<Vec<_>>(), [] as [&(&str, &str); 0], "documented, and not there");
    assert_eq!(known.difference(&told).collect::<Vec<_>>(), [] as [&(&str, &str); 0], "there, and not documented");
}

/// Snippets as JSON lines from the file DIALECTS, and what becomes of each, as JSON lines.
#[test]
#[ignore = "a tool: DIALECTS=snippets.jsonl cargo test --test dialects -- --ignored --nocapture tried"]
fn tried() {
    let context: Value = match std::env::var("CONTEXT") {
        Ok(path) => serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
        Err(_) => serde_json::from_str(CONTEXT).unwrap(),
    };
    for line in std::fs::read_to_string(std::env::var("DIALECTS").unwrap()).unwrap().lines() {
        let template: String = serde_json::from_str(line).unwrap();
        let early = names(&template).err();
        let ours = render(&template, Mode::Text, &context).map_err(|fault| fault.to_string());
        println!(
            "{}",
            serde_json::json!({"template": template, "text": ours.as_ref().ok(), "error": ours.as_ref().err(), "early": early})
        );
    }
}
