//! Lifts: phases applied once to the nodes that are there, under the faults that converge survives.

use std::{fs, time::Duration};

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use pallet_api::{
    GroupNode, Lift, ServerSpec,
    group_node::{Effect, NodeLift, Outcome},
    lift::NodeOutcome,
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, phase_result, script, shared, wait};

impl Space {
    fn lifts(&self) -> Api<Lift> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Makes a Lift of the group `web`.
    async fn lift(&self, name: &str, spec: Value) {
        let mut fields = json!({"groups": ["web"]});
        fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object =
            json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": name}, "spec": fields});
        let object = serde_json::from_value(object).unwrap();
        self.lifts().create(&PostParams::default(), &object).await.expect("the Lift is accepted");
    }

    async fn change_lift(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.lifts().patch(name, &PatchParams::default(), &patch).await.expect("the change is accepted");
    }

    async fn lift_until(&self, name: &str, what: &str, holds: impl Fn(&Lift) -> bool) -> Lift {
        wait(&format!("{name}: {what}"), || async {
            let lift = self.lifts().get(name).await.expect("the Lift");
            if holds(&lift) { Ok(lift) } else { Err(format!("{:#?}", lift.status)) }
        })
        .await
    }

    /// Waits until a Lift has ended. Returns it with its reason.
    async fn lifted(&self, name: &str) -> (Lift, String) {
        let over = |lift: &Lift| lift.status.as_ref().is_some_and(|status| status.completion_time.is_some());
        let lift = self.lift_until(name, "it ends", over).await;
        let reason = holds(&lift, "Complete").1;
        (lift, reason)
    }

    async fn lift_on(&self, node: &str, lift: &str) -> NodeLift {
        let node = self.nodes().get(node).await.expect("the GroupNode");
        let lifts = node.status.expect("a status").lifts;
        lifts.into_iter().find(|other| other.name == lift).expect("what the Lift did there")
    }
}

/// Status and reason of a Lift's condition.
fn holds(lift: &Lift, kind: &str) -> (String, String) {
    let conditions = lift.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.filter(|c| c.type_ == kind).map(|c| (c.status.clone(), c.reason.clone())).next();
    found.unwrap_or_default()
}

fn outcomes(lift: &Lift) -> Vec<(NodeOutcome, String)> {
    lift.status.iter().flat_map(|status| &status.outcomes).map(|nodes| (nodes.outcome, nodes.nodes.clone())).collect()
}

fn inline(text: &str) -> Value {
    json!({"phase": script(text)})
}

#[tokio::test]
async fn a_lift_runs_phases_once_on_the_nodes_that_are_there_and_leaves_the_count_alone() {
    let Some(space) = Space::new("lift").await else { return };
    let phases = json!({
        "bootstrap": script("echo boot >>/ran"), "install": script("echo install >>/ran"),
        "configure": script("echo configure >>/ran"), "deploy": script("echo deploy >>/ran")
    });
    space
        .apply(json!({"count": 3, "node": busybox(), "phases": phases, "converge": {"process": "apply-install"}}))
        .await;
    space.ready().await;
    let before = space.groups().get("web").await.unwrap().metadata.generation;
    space.lift("again", json!({})).await;
    let (lift, reason) = space.lifted("again").await;
    assert_eq!((reason.as_str(), outcomes(&lift)), ("Succeeded", vec![(NodeOutcome::Succeeded, "0-2".to_owned())]));
    assert_eq!(holds(&lift, "Failed").0, "False");
    for node in ["web-0", "web-1", "web-2"] {
        assert_eq!(space.exec(node, "cat /ran").await, "boot\ninstall\nconfigure\nconfigure\n");
    }
    // Its output stands in the node; what was narrowed goes to no other.
    space.lift("ask", json!({"nodes": ["web-1"], "phase": script("echo deploy? >>/ran; uname -s")})).await;
    assert_eq!(space.lifted("ask").await.1, "Succeeded");
    let asked = space.lift_on("web-1", "ask").await;
    let run = asked.phase_results.iter().find(|phase_result| phase_result.phase == "inline").expect("its own phase");
    assert_eq!(run.output, "Linux\n");
    // By its process install is done; by its name it is done again.
    space.lift("process", json!({"process": "apply-install", "nodes": ["web-2"]})).await;
    assert_eq!(space.lifted("process").await.1, "Succeeded");
    space.lift("named", json!({"phases": ["install", "deploy"], "nodes": ["web-2"]})).await;
    assert_eq!(space.lifted("named").await.1, "Succeeded");
    let ran = space.exec("web-2", "cat /ran").await;
    assert_eq!(ran, "boot\ninstall\nconfigure\nconfigure\nconfigure\ninstall\ndeploy\n");
    // Converge has no part in it.
    let group = space.ready().await;
    assert_eq!((group.count(), group.metadata.generation), (3, before));
    let node = space.nodes().get("web-0").await.unwrap();
    assert!(
        phase_result(&node, "configure").unwrap().run_id.starts_with("configure.lift."),
        "the same satisfies converge"
    );
    assert_eq!(space.exec("web-0", "cat /ran").await, "boot\ninstall\nconfigure\nconfigure\n");
}

#[tokio::test]
async fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let Some(space) = Space::new("dry").await else { return };
    let file =
        |name: &str, content: &str| json!({"name": name, "file": {"path": format!("/etc/{name}"), "content": content}});
    space
        .apply(json!({"node": busybox(), "phases": {"configure": {"actions": [file("a", "a\n"), file("b", "b\n")]}}}))
        .await;
    space.ready().await;
    space.exec("web-0", "echo other >/etc/b").await;
    let link = json!({"name": "link", "symlink": {"path": "/etc/made/link", "target": "/etc/a"}});
    let make = json!({"name": "make", "directory": {"path": "/etc/made"}});
    let mine = json!({"name": "line", "lineInFile": {"path": "/etc/made/file", "line": "x"}});
    space.lift("declared", json!({"dryRun": true})).await;
    space.lift("own", json!({"dryRun": true, "phase": {"actions": [make, link, mine]}})).await;
    let (lift, reason) = space.lifted("declared").await;
    assert_eq!(reason, "Succeeded");
    let actions = lift.status.unwrap().actions.expect("counts");
    assert_eq!((actions.changed, actions.unchanged), (1, 1));
    let told = space.lift_on("web-0", "declared").await;
    let configure = told.phase_results.iter().find(|phase_result| phase_result.phase == "configure").unwrap();
    assert!(configure.actions[1].diff.contains("-other") && configure.actions[1].diff.contains("+b"));
    space.lifted("own").await;
    let told = space.lift_on("web-0", "own").await;
    let results: Vec<Effect> =
        told.phase_results.iter().filter(|r| r.phase == "inline").flat_map(|r| &r.actions).map(|a| a.result).collect();
    assert_eq!(results[0], Effect::Changed, "{told:?}");
    assert_eq!(results[2], Effect::Unknown, "the file's directory would have been made: {told:?}");
    assert_eq!(space.exec("web-0", "cat /etc/b; ls /etc/made 2>&1 | wc -l").await, "other\n1\n");
    let node = space.nodes().get("web-0").await.unwrap();
    assert!(!phase_result(&node, "configure").unwrap().run_id.contains("lift"));
}

/// The processes of scripts, what they have started, and what has left their group.
const FAMILY: &str = "echo began >>/shared/began; (setsid sleep 7777 &); sleep 7777 & sleep 7777";

async fn family(space: &Space, pod: &str) -> String {
    space
        .exec(pod, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 777[7]'")
        .await
        .trim()
        .to_owned()
}

#[tokio::test]
async fn what_is_cancelled_late_or_deleted_is_really_ended_on_the_nodes() {
    let Some(space) = Space::new("lift-ends").await else { return };
    space.apply(json!({"count": 2, "node": shared(&space)})).await;
    space.ready().await;
    let began = || fs::read_to_string(space.shared_dir().join("began")).unwrap_or_default().lines().count();
    let until_began = async |count: usize| {
        wait("it has begun", || async { if began() >= count { Ok(()) } else { Err(began().to_string()) } }).await;
    };
    // Cancelled, with one node that was not begun.
    space.lift("cancelled", json!({"phase": script(FAMILY), "rollout": {"maxParallel": 1}})).await;
    until_began(1).await;
    space.change_lift("cancelled", json!({"cancel": true})).await;
    let (lift, reason) = space.lifted("cancelled").await;
    assert_eq!((reason.as_str(), outcomes(&lift)), ("Cancelled", vec![(NodeOutcome::Cancelled, "0-1".to_owned())]));
    assert_eq!(holds(&lift, "Failed").0, "True");
    assert_eq!(family(&space, "web-0").await, "0");
    // Late.
    space.lift("late", json!({"phase": script(FAMILY), "timeout": "2s", "nodes": ["web-0"]})).await;
    let (lift, reason) = space.lifted("late").await;
    assert_eq!((reason.as_str(), outcomes(&lift)), ("TimedOut", vec![(NodeOutcome::TimedOut, "0".to_owned())]));
    assert_eq!(family(&space, "web-0").await, "0");
    // Deleted: it is held until what it began is ended.
    space.lift("deleted", json!({"phase": script(FAMILY), "nodes": ["web-1"]})).await;
    until_began(3).await;
    space.lifts().delete("deleted", &DeleteParams::default()).await.unwrap();
    wait("it is gone", || async {
        space.lifts().get_opt("deleted").await.unwrap().map_or(Ok(()), |lift| Err(format!("{:?}", lift.status)))
    })
    .await;
    assert_eq!(family(&space, "web-1").await, "0");
    // The nodes are as good as before.
    space.lift("after", inline("true")).await;
    assert_eq!(space.lifted("after").await.1, "Succeeded");
}

#[tokio::test]
async fn a_lift_survives_the_death_of_the_operator_and_runs_nothing_twice() {
    let Some(mut space) = Space::new("lift-killed").await else { return };
    space.apply(json!({"count": 2, "node": shared(&space)})).await;
    space.ready().await;
    let text = "echo {{ node.name }} >>/shared/ran; while [ ! -e /shared/go ]; do sleep 0.1; done";
    space.lift("long", json!({"phase": script(text), "rollout": {"maxParallel": 1}})).await;
    let ran = || fs::read_to_string(space.shared_dir().join("ran")).unwrap_or_default();
    wait("it has begun", || async { if ran().is_empty() { Err(String::new()) } else { Ok(()) } }).await;
    let (dir, ran_path) = (space.shared_dir().join("go"), space.shared_dir().join("ran"));
    space.kill_operator().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    space.start_operator();
    // It ends while nobody looks, too.
    space.lift_until("long", "it goes on", |lift| holds(lift, "Complete").1 == "Running").await;
    space.kill_operator().await;
    fs::write(dir, "").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    space.start_operator();
    let (lift, reason) = space.lifted("long").await;
    assert_eq!((reason.as_str(), outcomes(&lift)), ("Succeeded", vec![(NodeOutcome::Succeeded, "0-1".to_owned())]));
    assert_eq!(fs::read_to_string(ran_path).unwrap(), "web-0\nweb-1\n");
}

#[tokio::test]
async fn a_container_that_ends_or_a_node_that_goes_in_the_midst_of_it_is_told() {
    let Some(space) = Space::new("lift-lost").await else { return };
    let phases = json!({"bootstrap": script("echo boot >>/ran")});
    space.apply(json!({"count": 3, "node": busybox(), "phases": phases})).await;
    space.ready().await;
    // On web-0 the script ends its own container, web-2 is removed, and web-1 is done.
    let text = "case {{ node.name }} in web-0) kill 1; sleep 60 ;; web-2) sleep 7000 ;; esac";
    space.lift("rough", inline(text)).await;
    space
        .lift_until("rough", "web-1 is done", |lift| outcomes(lift).contains(&(NodeOutcome::Succeeded, "1".into())))
        .await;
    // Else it would be web-0 that goes: its container has just been restarted.
    let mark = Patch::Merge(json!({"metadata": {"annotations": {"pallet.dev/delete-node": ""}}}));
    space.nodes().patch("web-2", &PatchParams::default(), &mark).await.unwrap();
    space.patch(json!({"spec": {"count": 2}})).await;
    let (lift, reason) = space.lifted("rough").await;
    let expected = [(NodeOutcome::Succeeded, "1"), (NodeOutcome::Failed, "0"), (NodeOutcome::Removed, "2")];
    assert_eq!(outcomes(&lift), expected.map(|(outcome, nodes)| (outcome, nodes.to_owned())));
    assert_eq!(reason, "NodesFailed");
    let error = lift.status.unwrap().phase_errors.remove(0);
    assert!(error.message.contains("restarted or replaced while the phase ran"), "{error:?}");
    space.ready().await;
    assert_eq!(space.exec("web-0", "cat /ran").await, "boot\n");
}

#[tokio::test]
async fn manual_steps_wait_for_a_person_and_others_do_not_wait_for_them() {
    let Some(space) = Space::new("lift-manual").await else { return };
    let rollout = json!({
        "prepare": [{"name": "fetch", "exec": {"script": "echo fetch >>/ran"}}],
        "actions": [
            {"name": "stop", "exec": {"script": "echo stop >>/ran"}},
            {"name": "migrate", "manual": {"message": "migrate the data of {{ node.name }}"}},
            {"name": "start", "exec": {"script": "echo start >>/ran"}}
        ]
    });
    space.apply(json!({"node": busybox(), "phases": {"app-rollout": rollout}})).await;
    space.ready().await;
    assert_eq!(space.exec("web-0", "cat /ran").await, "fetch\n");
    space.lift("roll", json!({"phases": ["app-rollout"]})).await;
    let stalled = space.lift_until("roll", "it waits", |lift| holds(lift, "Stalled").1 == "ManualStep").await;
    let message = stalled.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("migrate: migrate the data of web-0"), "{message}");
    // Somebody looks around meanwhile.
    space.lift("look", inline("cat /ran")).await;
    assert_eq!(space.lifted("look").await.1, "Succeeded");
    let waiting = space.lift_on("web-0", "roll").await;
    let run = waiting
        .phase_results
        .iter()
        .find(|phase_result| phase_result.outcome == Outcome::Waiting)
        .unwrap()
        .run_id
        .clone();
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"pallet.dev/ack": run}}}));
    space.nodes().patch("web-0", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(space.lifted("roll").await.1, "Succeeded");
    assert_eq!(space.exec("web-0", "cat /ran").await, "fetch\nfetch\nstop\nstart\n");
}

#[tokio::test]
async fn groups_that_are_missing_empty_paused_stopped_or_deleted() {
    let Some(space) = Space::new("lift-groups").await else { return };
    space.lift("early", inline("echo lifted >>/ran")).await;
    space.lift_until("early", "it waits", |lift| holds(lift, "Stalled").1 == "GroupMissing").await;
    let phases = |text: &str| json!({"configure": script(text)});
    let stop = json!({"rollout": {"onFailure": "StopAll", "maxParallel": 1}, "retry": {"limit": 0}});
    space.apply(json!({"count": 0, "node": busybox(), "phases": phases("true"), "converge": stop})).await;
    let (empty, reason) = space.lifted("early").await;
    assert_eq!((reason.as_str(), empty.status.unwrap().nodes), ("NoNodes", 0));
    // Paused: what is declared waits, and the Lift does not.
    space.patch(json!({"spec": {"count": 2}})).await;
    space.ready().await;
    space.patch(json!({"spec": {"paused": true, "phases": phases("exit 3")}})).await;
    space.lift("paused", inline("echo lifted >>/ran")).await;
    assert_eq!(space.lifted("paused").await.1, "Succeeded");
    // Stopped: web-0 has failed, and web-1 waits for that.
    space.patch(json!({"spec": {"paused": false}})).await;
    space.until("it has stopped", |group| condition(group, "Stalled").1 == "RolloutStopped").await;
    space.lift("stopped", inline("echo lifted >>/ran")).await;
    assert_eq!(space.lifted("stopped").await.1, "Succeeded");
    assert_eq!(space.exec("web-1", "cat /ran").await, "lifted\nlifted\n");
    // Deleted in the midst of it.
    space.lift("left", inline("sleep 7000")).await;
    space.lift_until("left", "it runs", |lift| outcomes(lift).contains(&(NodeOutcome::Running, "0-1".into()))).await;
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    let (left, reason) = space.lifted("left").await;
    assert_eq!((reason.as_str(), outcomes(&left)), ("NodesRemoved", vec![(NodeOutcome::Removed, "0-1".to_owned())]));
}

#[tokio::test]
async fn parameters_of_a_lift_are_an_override_that_is_shown_till_it_is_put_right() {
    let Some(space) = Space::new("lift-with").await else { return };
    let specs: Api<ServerSpec> = Api::namespaced(space.client.clone(), &space.name);
    let spec = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec", "metadata": {"name": "app"}, "spec": {
        "parameters": {"version": {"default": "1.0"}},
        "phases": {"configure": {"actions": [{"file": {"path": "/version", "content": "{{ params.version }}\n"}}]}}
    }});
    specs.create(&PostParams::default(), &serde_json::from_value(spec).unwrap()).await.unwrap();
    space.apply(json!({"extends": [{"serverSpec": "app"}], "node": busybox()})).await;
    space.ready().await;
    space.lift("wrong", json!({"with": {"versoin": "2"}})).await;
    let wrong = space.lift_until("wrong", "it is refused", |lift| holds(lift, "Stalled").1 == "InvalidLift").await;
    let message = wrong.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("spec.with.versoin: there is no such parameter; there are app.version"), "{message}");
    space.lift("canary", json!({"with": {"version": "2.0"}})).await;
    assert_eq!(space.lifted("canary").await.1, "Succeeded");
    let drifted = |group: &pallet_api::GroupSpec| condition(group, "Drifted").1 == "LiftOverride";
    let group = space.until("it has drifted", drifted).await;
    assert_eq!(condition(&group, "Ready").0, "True", "what was asked for is no failure");
    assert_eq!(space.exec("web-0", "cat /version").await, "2.0\n");
    space.lift("back", json!({})).await;
    assert_eq!(space.lifted("back").await.1, "Succeeded");
    space.until("it has come right", |group| condition(group, "Drifted").1.is_empty()).await;
    assert_eq!(space.exec("web-0", "cat /version").await, "1.0\n");
}

#[tokio::test]
async fn lifts_of_one_node_go_one_after_the_other_and_those_that_are_over_go_by_their_time() {
    let Some(space) = Space::new("lift-queue").await else { return };
    space.apply(json!({"node": shared(&space)})).await;
    space.ready().await;
    space.lift("first", inline("echo first >>/shared/ran; while [ ! -e /shared/go ]; do sleep 0.1; done")).await;
    space.lift_until("first", "it runs", |lift| outcomes(lift) == [(NodeOutcome::Running, "0".into())]).await;
    let spec = json!({"phase": script("echo second >>/shared/ran"), "ttlSecondsAfterFinished": 1});
    space.lift("second", spec).await;
    let behind = |lift: &Lift| {
        let messages = lift.status.iter().flat_map(|status| &status.conditions).map(|c| c.message.as_str());
        messages.into_iter().any(|message| message.contains("web-0: "))
    };
    space.lift_until("second", "it waits", behind).await;
    // A Lift that rests holds nobody up.
    space.lift("resting", json!({"suspend": true, "phase": script("echo resting >>/shared/ran")})).await;
    space.lift_until("resting", "it rests", |lift| holds(lift, "Reconciling").1 == "Suspended").await;
    fs::write(space.shared_dir().join("go"), "").unwrap();
    wait("the second one is over and gone", || async {
        space.lifts().get_opt("second").await.unwrap().map_or(Ok(()), |lift| Err(format!("{:?}", lift.status)))
    })
    .await;
    assert_eq!(fs::read_to_string(space.shared_dir().join("ran")).unwrap(), "first\nsecond\n");
    space.change_lift("resting", json!({"suspend": false})).await;
    assert_eq!(space.lifted("resting").await.1, "Succeeded");
}

/// A pipeline that lifts again and again leaves no trace that grows.
#[tokio::test]
async fn what_lifts_leave_behind_does_not_grow() {
    let Some(space) = Space::new("lift-many").await else { return };
    space.apply(json!({"node": busybox(), "phases": {"configure": script("true")}})).await;
    space.ready().await;
    for n in 0..30 {
        space.lift(&format!("l{n}"), inline(if n % 2 == 0 { "echo x" } else { "exit 1" })).await;
        space.lifted(&format!("l{n}")).await;
    }
    let node: GroupNode = space.nodes().get("web-0").await.unwrap();
    assert!(node.status.unwrap().lifts.len() <= 8);
    let kept = space.exec("web-0", "cd /var/lib/pallet; ls runs | wc -l; ls marks 2>/dev/null | wc -l").await;
    let kept: Vec<usize> = kept.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(kept[0] <= 33 && kept[1] <= 24, "{kept:?}");
    // Converge finds its own way past them.
    space.patch(json!({"spec": {"phases": {"configure": script("echo new >/new")}}})).await;
    space.exec_until("web-0", "cat /new").await;
    space.ready().await;
}
