//! Argo CD's health of our kinds: the scripts of `deploy/argocd`, run by a real Lua against every standing that there is.

mod gitops;

use gitops::{Health, Standing, TABLE, standings};
use mlua::{Lua, LuaOptions, LuaSerdeExt, StdLib};
use serde_json::{Value, json};

const FILE: &str = include_str!("../deploy/argocd/health.yaml");
const KEY: &str = "resource.customizations.health.pallet.dev_";

/// The script for a kind.
fn script(kind: &str) -> String {
    let config: Value = serde_saphyr::from_str(FILE).expect("YAML");
    let script = config["data"][format!("{KEY}{kind}")].as_str();
    script.unwrap_or_else(|| panic!("there is no script for {kind}")).to_owned()
}

/// Runs a script as Argo CD does: the object is `obj`, and of Lua there is little more than the language.
fn health(object: &Value) -> Result<(Health, String), String> {
    let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING, LuaOptions::default()).expect("an interpreter");
    let run = || -> mlua::Result<Value> {
        for name in ["require", "dofile", "loadfile", "load", "loadstring", "os", "io", "package", "print"] {
            lua.globals().set(name, mlua::Nil)?;
        }
        lua.globals().set("obj", lua.to_value(object)?)?;
        let answer: mlua::Value = lua.load(script(object["kind"].as_str().unwrap_or_default())).eval()?;
        lua.from_value(answer)
    };
    let answer = run().map_err(|error| error.to_string())?;
    let health = match answer["status"].as_str() {
        Some("Progressing") => Health::Progressing,
        Some("Healthy") => Health::Healthy,
        Some("Degraded") => Health::Degraded,
        Some("Suspended") => Health::Suspended,
        other => return Err(format!("Argo CD knows no health {other:?}")),
    };
    Ok((health, answer["message"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn every_standing_has_the_health_that_the_table_says() {
    let standings = standings();
    let mut wrong = Vec::new();
    for (name, _, wanted) in TABLE {
        match health(&standings[*name]) {
            Ok((found, message)) if found == *wanted && !message.is_empty() => {}
            other => wrong.push(format!("{name}: {other:?}, not {wanted:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A group that is Healthy in Argo CD and in progress for Flux would be one of the two by mistake.
#[test]
fn argo_cd_and_kstatus_agree() {
    let standings = standings();
    for (name, standing, health) in TABLE.iter().filter(|row| standings[row.0]["kind"] != "GroupNode") {
        let spec = &standings[*name]["spec"];
        let stopped = spec["paused"] == json!(true) || spec["suspend"] == json!(true);
        let agree = match (standing, health) {
            (Standing::Current, Health::Healthy) | (Standing::Failed, Health::Degraded) => true,
            (Standing::InProgress | Standing::Terminating, Health::Progressing) => true,
            (Standing::InProgress | Standing::Current, Health::Suspended) => stopped,
            _ => false,
        };
        assert!(agree, "{name}: {standing:?} and {health:?}");
    }
}

#[test]
fn what_people_read_is_what_the_operator_says() {
    let standings = standings();
    let message = |name: &str| health(&standings[name]).expect("a health").1;
    assert_eq!(message("converged"), "Converged: 2 of 2 nodes are converged");
    assert!(message("PhaseFailed").starts_with("PhaseFailed: 0 of 1 nodes are converged; web-0: configure"));
    assert!(message("lift: NodesFailed").starts_with("NodesFailed: 1 of 2 nodes failed"));
    assert!(message("lift: ManualStep").contains("pallet.dev/ack="));
    assert!(message("new").contains("has not seen it"));
}

/// As they come from Git, from an older operator, or from somebody who has edited a status.
#[test]
fn no_script_fails_on_an_object_that_lacks_everything() {
    for kind in ["GroupSpec", "Lift", "GroupNode", "ServerSpec"] {
        let wanted = if kind == "ServerSpec" { Health::Healthy } else { Health::Progressing };
        for status in [
            Value::Null,
            json!({}),
            json!({"observedGeneration": 1}),
            json!({"observedGeneration": 1, "conditions": []}),
            json!({"observedGeneration": 1, "conditions": [{"type": "Ready"}, {"type": "Complete"}, {"type": "Converged"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Complete", "status": "True"}]}),
        ] {
            let mut object = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": kind, "metadata": {"generation": 1}});
            if !status.is_null() {
                object["status"] = status;
            }
            let found = health(&object).unwrap_or_else(|error| panic!("{object}: {error}"));
            assert_eq!(found.0, wanted, "{object}");
        }
    }
}

/// Argo CD lets no script out of its sandbox: one that needs more fails there, whatever it does here.
#[test]
fn the_scripts_use_nothing_that_the_sandbox_lacks() {
    let config: Value = serde_saphyr::from_str(FILE).expect("YAML");
    let data = config["data"].as_object().expect("data");
    assert_eq!(data.len(), 4);
    for (key, script) in data {
        assert!(key.starts_with(KEY), "{key}");
        let script = script.as_str().expect("a script");
        for word in ["os.", "io.", "require", "math.", "goto", "//"] {
            assert!(!script.contains(word), "{key}: {word}");
        }
    }
    assert!(health(&json!({"kind": "GroupSpec"})).is_err(), "an object without metadata is none");
}
