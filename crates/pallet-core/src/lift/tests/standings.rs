//! Every standing of a Lift, as an object that people and programs see: for [`pallet_operator::standings`].

use super::*;

fn shown(stage: &Stage) -> Value {
    let head = &stage.snapshot.head;
    let mut object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift",
        "metadata": {"name": "look", "namespace": "shop", "generation": head.generation},
        "spec": stage.snapshot.spec, "status": stage.snapshot.status,
    });
    if head.deleting {
        object["metadata"]["deletionTimestamp"] = json!(now().to_string());
    }
    object
}

/// The stage after a change and a pass.
fn after(mut stage: Stage, change: impl FnOnce(&mut Stage)) -> Value {
    change(&mut stage);
    stage.pass();
    shown(&stage)
}

fn begun(spec: Value, nodes: u32) -> Stage {
    let mut stage = Stage::new(spec, nodes);
    stage.pass();
    stage
}

fn edited(mut object: Value) -> Value {
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
    object
}

fn at_manual_step() -> Stage {
    let spec = json!({"phases": ["app-rollout"]});
    let group = json!({"count": 2, "phases": {"app-rollout": {"actions": [
        {"name": "look", "manual": {"message": "look at it"}}, {"exec": {"script": "go"}}
    ]}}});
    let mut stage = Stage::with_group(spec, group, 2);
    stage.pass();
    let lifted = stage.web().lifted.clone().unwrap();
    for ordinal in [0, 1] {
        let node = stage.web().snapshot.nodes[&ordinal].clone();
        let settings = phase_result("settings", lifted.phases.settings.digest.as_str(), Outcome::Succeeded, 1, now());
        let identity = identity(&node, Some(&machine(node.ordinal)));
        let rendered = next::rendered(&lifted, &identity, &node.record, &PhaseName::app_rollout()).unwrap();
        let mut waiting = phase_result("app-rollout", rendered.digest.as_str(), Outcome::Waiting, 1, now());
        waiting.actions = serde_json::from_value(json!([{"name": "look", "result": "Waiting"}])).unwrap();
        stage.write(ordinal, None, vec![settings, waiting]);
    }
    stage
}

fn before_its_start() -> Vec<(&'static str, Value)> {
    let fresh = || Stage::new(json!({}), 1);
    let without_groups = |stage: &mut Stage| stage.snapshot.groups.clear();
    vec![
        ("lift: new", shown(&fresh())),
        ("lift: NodesMissing", after(Stage::with_group(json!({}), json!({"count": 3}), 1), |_| ())),
        ("lift: suspended before its start", after(Stage::new(json!({"suspend": true}), 1), |_| ())),
        ("lift: GroupMissing", after(fresh(), without_groups)),
        ("lift: GroupDeleting", {
            after(fresh(), |stage| stage.change(|seen| seen.head.deletion = Some(crate::group::Cascade::Nodes)))
        }),
        ("lift: InvalidGroup", {
            after(fresh(), |stage| {
                stage.change(|seen| seen.group = Err(vec![FieldError { path: "spec.x".into(), message: "no".into() }]));
            })
        }),
        ("lift: InvalidLift", after(Stage::new(json!({"with": {"nope": 1}}), 1), |_| ())),
        ("lift: UnknownPhase", after(Stage::new(json!({"phases": ["deploy"]}), 1), |_| ())),
        ("lift: NodeMissing", after(Stage::new(json!({"nodes": ["web-9"]}), 1), |_| ())),
        ("lift: cancelled before its start", after(Stage::new(json!({"cancel": true}), 1), |_| ())),
        ("lift: timed out before its start", {
            after(fresh(), |stage| {
                without_groups(stage);
                stage.snapshot.now += SignedDuration::from_secs(3600);
            })
        }),
    ]
}

fn on_its_way() -> Vec<(&'static str, Value)> {
    let paused = |stage: &mut Stage| {
        stage.snapshot.spec.suspend = true;
        stage.snapshot.head.generation += 1;
    };
    let cancelled = |stage: &mut Stage| {
        stage.snapshot.spec.cancel = true;
        stage.snapshot.head.generation += 1;
        stage.later(1);
    };
    vec![
        ("lift: running", shown(&begun(json!({}), 2))),
        ("lift: running, some done", after(begun(json!({}), 2), |stage| stage.finish(0, NodeOutcome::Succeeded))),
        ("lift: running, one has failed", after(begun(json!({}), 2), |stage| stage.finish(0, NodeOutcome::Failed))),
        ("lift: waits for bootstrap", {
            after(Stage::new(json!({}), 1), |stage| {
                stage.change(|seen| Arc::make_mut(seen.nodes.get_mut(&0).unwrap()).record.phase_results.clear());
            })
        }),
        ("lift: waits for another", {
            after(Stage::new(json!({}), 1), |stage| drop(stage.web().taken.insert(0, "first".into())))
        }),
        ("lift: tried again later", {
            let mut stage = begun(json!({"retry": {"limit": 1}}), 1);
            let lifted = stage.web().lifted.clone().unwrap();
            let node = stage.web().snapshot.nodes[&0].clone();
            let identity = identity(&node, Some(&machine(node.ordinal)));
            let rendered = next::rendered(&lifted, &identity, &node.record, &PhaseName::configure()).unwrap();
            let settings =
                phase_result("settings", lifted.phases.settings.digest.as_str(), Outcome::Succeeded, 1, now());
            let failed = phase_result("configure", rendered.digest.as_str(), Outcome::Failed, 1, now());
            stage.write(0, None, vec![settings, failed]);
            after(stage, |_| ())
        }),
        ("lift: one node waits for a person, another goes on", {
            after(at_manual_step(), |stage| {
                stage.change(|seen| Arc::make_mut(seen.nodes.get_mut(&1).unwrap()).ack = "app-rollout-run-1".into());
            })
        }),
        ("lift: ManualStep", after(at_manual_step(), |_| ())),
        ("lift: WaitingForApproval", {
            let mut stage = begun(json!({}), 1);
            let settings = stage.web().lifted.clone().unwrap().phases.settings.digest.to_string();
            stage.write(0, None, vec![phase_result("settings", &settings, Outcome::Succeeded, 1, now())]);
            after(stage, |stage| {
                let lifted = stage.web().lifted.as_mut().unwrap();
                lifted.unapproved.insert(PhaseName::configure());
            })
        }),
        ("lift: suspended", after(begun(json!({"rollout": {"maxParallel": 1}}), 2), paused)),
        ("lift: to be suspended, and nobody has seen it", {
            let mut object = edited(shown(&begun(json!({}), 1)));
            object["spec"]["suspend"] = json!(true);
            object
        }),
        ("lift: ending, since it was cancelled", after(begun(json!({}), 1), cancelled)),
        ("lift: ending, since its time is over", after(begun(json!({}), 1), |stage| stage.later(3600))),
        ("lift: ending while it is suspended", {
            after(begun(json!({}), 1), |stage| {
                paused(stage);
                cancelled(stage);
            })
        }),
        ("lift: deleted while it runs", {
            after(begun(json!({}), 1), |stage| {
                stage.snapshot.head.deleting = true;
                stage.later(1);
            })
        }),
    ]
}

fn at_its_end() -> Vec<(&'static str, Value)> {
    let all = |outcome: NodeOutcome| {
        move |stage: &mut Stage| {
            stage.finish(0, outcome);
            stage.finish(1, outcome);
        }
    };
    let gone = |stage: &mut Stage| stage.change(|seen| drop(seen.nodes.remove(&1)));
    let done = || after(begun(json!({}), 2), all(NodeOutcome::Succeeded));
    let mut deleted = done();
    deleted["metadata"]["deletionTimestamp"] = json!(now().to_string());
    vec![
        ("lift: complete", done()),
        ("lift: complete, a dry run", after(begun(json!({"dryRun": true}), 2), all(NodeOutcome::Succeeded))),
        ("lift: complete without nodes", after(Stage::new(json!({"role": "db"}), 2), |_| ())),
        ("lift: complete, one node is gone", {
            after(begun(json!({}), 2), |stage| {
                stage.finish(0, NodeOutcome::Succeeded);
                gone(stage);
            })
        }),
        ("lift: complete, edited since", edited(done())),
        ("lift: complete, suspended afterwards", {
            let mut stage = begun(json!({}), 1);
            stage.finish(0, NodeOutcome::Succeeded);
            stage.pass();
            after(stage, |stage| {
                stage.snapshot.spec.suspend = true;
                stage.snapshot.head.generation = 2;
            })
        }),
        ("lift: complete, deleted", deleted),
        ("lift: NodesFailed", {
            after(begun(json!({}), 2), |stage| {
                stage.finish(0, NodeOutcome::Failed);
                stage.finish(1, NodeOutcome::Succeeded);
            })
        }),
        ("lift: Stopped", {
            let spec = json!({"rollout": {"maxParallel": 1, "onFailure": "StopAll"}});
            after(begun(spec, 2), |stage| stage.finish(0, NodeOutcome::Failed))
        }),
        ("lift: NodesRemoved", after(begun(json!({}), 1), |stage| stage.change(|seen| seen.nodes.clear()))),
        ("lift: Cancelled", {
            after(begun(json!({}), 2), |stage| {
                stage.snapshot.spec.cancel = true;
                all(NodeOutcome::Cancelled)(stage);
            })
        }),
        ("lift: TimedOut", {
            after(begun(json!({}), 2), |stage| {
                stage.later(3600);
                all(NodeOutcome::TimedOut)(stage);
            })
        }),
    ]
}

/// The standings of a Lift, each with what it is called in the table.
pub(crate) fn lifts() -> Vec<(&'static str, Value)> {
    [before_its_start(), on_its_way(), at_its_end()].concat()
}
