//! What a plan renders: nothing that it has rendered before under the same circumstances.

use super::*;
use crate::group::inputs::Inputs;

/// The same as it is planned by an operator that has just begun.
fn anew(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    snapshot.group.as_mut().unwrap().memo = Arc::default();
    plan(&snapshot)
}

fn rendered(snapshot: &Snapshot) -> u64 {
    snapshot.group.as_ref().unwrap().memo.rendered()
}

#[test]
fn an_unchanged_group_is_planned_again_without_a_rendering() {
    let snapshot = settled(3, &[0, 1, 2]);
    let first = plan(&snapshot);
    let once = rendered(&snapshot);
    assert!(once >= 3, "{once}");
    assert_eq!(plan(&snapshot), first);
    // Another snapshot of the same parsed group, as a Lift takes it.
    assert_eq!(plan(&snapshot.clone()), first);
    assert_eq!(rendered(&snapshot), once);
}

/// Whatever a template sees makes another rendering of it, and the plan is what it would be without a memo.
#[test]
fn whatever_templates_see_is_rendered_anew() {
    let script = "{{ facts.hostname }} {{ node.address }} {{ group.count }} {{ node.name }}";
    let phases = json!({
        "configure": {"actions": [{"exec": {"script": script}}, {"exec": {"script": "once"}, "onOneNode": true}]}
    });
    let settled = settled_as(json!({"count": 2, "phases": phases}), &[0, 1]);
    let is_settled = |snapshot: &Snapshot, ordinal: u32| plan(snapshot).steps[&ordinal] == Step::Settled;
    assert!(is_settled(&settled, 0) && is_settled(&settled, 1));
    let group = |snapshot: &mut Snapshot, change: fn(&mut Group)| change(snapshot.group.as_mut().unwrap());
    type Change = (&'static str, fn(&mut Snapshot), bool);
    let changes: [Change; 6] = [
        (
            "facts",
            |seen| {
                let node = Arc::make_mut(seen.nodes.get_mut(&0).unwrap());
                node.record.facts.insert("hostname".into(), json!("another"));
            },
            false,
        ),
        (
            "address",
            |seen| {
                Arc::make_mut(seen.machines.get_mut("web-0").unwrap()).address = Some("10.9.9.9".into());
            },
            false,
        ),
        ("count", |seen| seen.group.as_mut().unwrap().count = 5, false),
        (
            "inputs",
            |seen| {
                let nodes = vec![1].into();
                seen.group.as_mut().unwrap().inputs = Arc::new(Inputs { nodes, ..Inputs::default() });
            },
            true,
        ),
        ("the chosen node", |seen| seen.group.as_mut().unwrap().chosen = Some(1), false),
        (
            "a fact that changes by itself",
            |seen| {
                let node = Arc::make_mut(seen.nodes.get_mut(&0).unwrap());
                node.record.facts.insert("uptimeSeconds".into(), json!(7));
            },
            true,
        ),
    ];
    for (what, change, stays) in changes {
        let mut seen = settled.clone();
        group(&mut seen, |group| group.chosen = Some(0));
        plan(&seen);
        let before = rendered(&seen);
        change(&mut seen);
        let planned = plan(&seen);
        assert!(rendered(&seen) > before, "{what}");
        assert_eq!(planned, anew(&seen), "{what}");
        assert_eq!(planned.steps.get(&0) == Some(&Step::Settled), stays, "{what}");
        // And back again.
        let mut back = settled.clone();
        group(&mut back, |group| group.chosen = Some(0));
        assert_eq!(plan(&back), anew(&back), "{what}");
    }
}

#[test]
fn nodes_that_are_gone_are_forgotten() {
    let mut snapshot = settled(3, &[0, 1, 2]);
    plan(&snapshot);
    snapshot.nodes.remove(&2);
    plan(&snapshot);
    let once = rendered(&snapshot);
    assert_eq!(plan(&snapshot), anew(&snapshot));
    assert_eq!(rendered(&snapshot), once);
}

/// Prints what a plan costs. `cargo test --lib what_a_plan_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn what_a_plan_costs() {
    let script = "echo {{ node.name }} {{ facts.hostname }} {{ group.count }}";
    let action = |n: u32| json!({"exec": {"script": format!("{script} {n}")}});
    let actions: Vec<Value> = (0..60).map(action).collect();
    let spec = json!({"count": 500, "phases": {"configure": {"actions": actions}}});
    let snapshot = settled_as(spec, &(0..500).collect::<Vec<_>>());
    let time = |snapshot: &Snapshot| {
        let began = std::time::Instant::now();
        assert!(plan(snapshot).steps.values().all(|step| *step == Step::Settled));
        began.elapsed()
    };
    let mut fresh = snapshot.clone();
    let mut anew = || {
        fresh.group.as_mut().unwrap().memo = std::sync::Arc::default();
        time(&fresh)
    };
    let without = [anew(), anew(), anew()];
    time(&snapshot);
    let with = [time(&snapshot), time(&snapshot), time(&snapshot)];
    println!("500 nodes x 60 actions: {without:?} without a memo, {with:?} with one");
}
