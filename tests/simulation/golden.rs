//! Golden traces: what the operator does, step by step, where nothing goes wrong. A change of behaviour shows as a change
//! of these files. `UPDATE=1` writes them anew.

use std::{fs, path::PathBuf};

use pallet_api::GroupSpec;
use serde_json::{Value, json};

use crate::world::World;

/// What somebody does to the group.
type Change<'a> = (&'static str, &'a dyn Fn(&mut GroupSpec));

/// Brings the world to rest, everything in a fixed order, and compares what was done since with the file's next part.
fn traced(name: &str, converge: Value, count: usize, changes: &[Change]) {
    let mut world = World::quiet(converge, count);
    let mut trace = format!("== a group of {count}\n{}", world.settle());
    for (what, change) in changes {
        world.change(change);
        trace += &format!("== {what}\n{}", world.settle());
    }
    compared(name, &trace);
}

fn compared(name: &str, trace: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, trace).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    for (line, (is, was)) in trace.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "{name}.txt, line {}: UPDATE=1 if that is meant", line + 1);
    }
    assert_eq!(trace.lines().count(), golden.lines().count(), "{name}.txt: UPDATE=1 if that is meant");
}

/// What SEED=30011748 came to: a result is lost with the operator, and the edit is taken back before the next one looks.
#[test]
fn lost_result() {
    let before = "configure 1 {{ settings.own }}";
    let mut world = World::quiet(json!({"rollout": {"maxParallel": 1}}), 3);
    let mut trace = format!("== a group of 3\n{}", world.settle());
    world.change(configure("configure anew"));
    trace += &format!("== configure changes, and the operator is killed\n{}", world.lose_a_result());
    world.change(configure(before));
    trace += &format!("== configure is what it was\n{}", world.settle());
    world.check_rest();
    world.crash("at rest");
    trace += &format!("== the operator is killed at rest\n{}", world.settle());
    compared("lost_result", &trace);
}

fn scale(count: u32) -> impl Fn(&mut GroupSpec) {
    move |group| group.spec.count = Some(count)
}

fn image(image: &'static str) -> impl Fn(&mut GroupSpec) {
    move |group| {
        let pod = group.spec.node.pod.as_mut().unwrap();
        pod.template["spec"]["containers"][0]["image"] = image.into();
    }
}

fn configure(script: &'static str) -> impl Fn(&mut GroupSpec) {
    move |group| {
        let configure = group.spec.phases.get_mut("configure").unwrap();
        configure.actions[0].exec.as_mut().unwrap().script = script.into();
    }
}

#[test]
fn independent() {
    let converge = json!({"rollout": {"maxParallel": 2}});
    traced(
        "independent",
        converge,
        3,
        &[("configure changes", &configure("configure anew")), ("scaled to 1", &scale(1)), ("scaled to 2", &scale(2))],
    );
}

#[test]
fn barrier() {
    let converge = json!({"phases": ["init", "configure", "test"], "rollout": {"order": "Barrier", "maxParallel": 3}});
    let both = |group: &mut GroupSpec| {
        configure("configure anew")(group);
        group.spec.phases.get_mut("init").unwrap().actions[0].exec.as_mut().unwrap().script = "init anew".into();
    };
    traced("barrier", converge, 2, &[("init and configure change", &both), ("scaled to 3", &scale(3))]);
}

#[test]
fn replacement() {
    let converge = json!({"rollout": {"maxParallel": 3, "maxUnavailable": 1}});
    traced("replacement", converge, 2, &[("another template", &image("image:2"))]);
}

#[test]
fn surge() {
    let converge = json!({"rollout": {"maxParallel": 3, "maxUnavailable": 0, "maxSurge": 1}});
    traced("surge", converge, 2, &[("another template", &image("image:2"))]);
}
