//! Every standing of every kind, as the pure functions make it: the objects that `tests/kstatus.rs` and `tests/argocd.rs` judge.
//! They stand in `tests/gitops/standings.json`, so that a change of a status shows; `UPDATE=1` writes them anew.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;

use crate::{lift, plan};

/// Takes out what nobody looks at who waits.
fn looked_at(object: &mut Value) {
    let looked_at = |part: &str| -> &[&str] {
        match part {
            "spec" => &["count", "paused", "suspend", "cancel"],
            "status" => &["observedGeneration", "completionTime", "conditions"],
            _ => &["deletionTimestamp", "generation", "name"],
        }
    };
    for part in ["metadata", "spec", "status"] {
        if let Some(Value::Object(fields)) = object.get_mut(part) {
            fields.retain(|name, _| looked_at(part).contains(&name.as_str()));
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it reads and writes a file of the tests")]
fn the_standings_are_those_that_are_judged() {
    let all = [plan::tests::standings::groups(), plan::tests::standings::nodes(), lift::tests::standings::lifts()];
    let number = all.iter().map(Vec::len).sum::<usize>();
    let mut standings: BTreeMap<&str, Value> = all.into_iter().flatten().collect();
    standings.values_mut().for_each(looked_at);
    assert_eq!(standings.len(), number, "two of one name");
    let text = serde_json::to_string_pretty(&standings).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/gitops/standings.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let judged: BTreeMap<String, Value> =
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_else(|_| "{}".into())).unwrap();
    for (name, standing) in &standings {
        assert_eq!(judged.get(*name), Some(standing), "{name}: UPDATE=1 if that is meant");
    }
    assert_eq!(judged.len(), standings.len(), "UPDATE=1 if that is meant");
}
