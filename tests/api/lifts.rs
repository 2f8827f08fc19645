//! Lifts: good ones and their defaults, what never changes afterwards, and what people see.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    refuses_lifts::{actions, rollout, selector},
    request::refusal,
    shows::{columns, condition, table},
    support::{self, Space, lift},
};

#[tokio::test]
async fn the_least_there_can_be_gets_every_default_of_a_lift() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let created = space.create("lifts", &lift("look", json!({}))).await;
            for object in [created, space.get("lifts", "look").await] {
                let expected = json!({
                    "groups": ["web"],
                    "timeout": "1h",
                    "retry": {"limit": 0, "backoff": "10s"},
                    "rollout": {"order": "Independent", "maxParallel": "100%", "onFailure": "IsolateNode"},
                });
                assert_eq!(object["spec"], expected, "what is absent stays absent: nobody cancelled it");
                assert_eq!(object["metadata"]["generation"], 1);
                let status = json!({
                    "observedGeneration": -1, "nodes": 0, "succeeded": 0, "failed": 0, "running": 0, "pending": 0
                });
                assert_eq!(object["status"], status, "or kstatus would take it for current");
            }
            let mut told = lift("told", json!({}));
            told["status"] = json!({"observedGeneration": 1, "succeeded": 3});
            let kept = space.create("lifts", &told).await["status"].clone();
            let dropped = (&kept["observedGeneration"], &kept["succeeded"]) == (&json!(-1), &json!(0));
            assert!(dropped, "a status that a user sends along: {kept}");
        })
        .await;
}

#[tokio::test]
async fn good_lifts_are_kept_as_they_are() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let expressions = json!([
                {"key": "tier", "operator": "In", "values": ["web"]},
                {"key": "old", "operator": "DoesNotExist"}, {"key": "new", "operator": "Exists", "values": []}
            ]);
            let table = [
                (json!({"groups": ["web", "db"]}), "/spec/groups/1", json!("db")),
                (selector(json!({})), "/spec/groupSelector", json!({})),
                (
                    selector(json!({"matchLabels": {"tier": "web"}})),
                    "/spec/groupSelector/matchLabels/tier",
                    json!("web"),
                ),
                (
                    selector(json!({"matchExpressions": expressions})),
                    "/spec/groupSelector/matchExpressions",
                    expressions.clone(),
                ),
                (json!({"nodes": ["web-1", "web-0"]}), "/spec/nodes", json!(["web-1", "web-0"])),
                (json!({"role": "db"}), "/spec/role", json!("db")),
                (json!({"phases": ["install", "configure"]}), "/spec/phases", json!(["install", "configure"])),
                (json!({"process": "apply-install"}), "/spec/process", json!("apply-install")),
                (
                    actions(json!([{"package": {"names": ["curl"]}, "name": "tools"}])),
                    "/spec/phase/actions/0/package/names",
                    json!(["curl"]),
                ),
                (json!({"with": {"port": 1, "deep": {"list": [1, {"a": null}]}}}), "/spec/with/deep/list/0", json!(1)),
                (json!({"timeout": "24h"}), "/spec/timeout", json!("24h")),
                (json!({"timeout": null}), "/spec/timeout", json!("1h")),
                (json!({"dryRun": true}), "/spec/dryRun", json!(true)),
                (json!({"cancel": true}), "/spec/cancel", json!(true)),
                (json!({"suspend": true}), "/spec/suspend", json!(true)),
                (json!({"ttlSecondsAfterFinished": 0}), "/spec/ttlSecondsAfterFinished", json!(0)),
                (rollout(json!({"maxParallel": 1})), "/spec/rollout/order", json!("Independent")),
                (rollout(json!({"maxFailures": "0%"})), "/spec/rollout/maxFailures", json!("0%")),
                (json!({"retry": {"limit": 3}}), "/spec/retry/backoff", json!("10s")),
            ];
            for (spec, field, value) in table {
                let answer = space.try_create("lifts", &lift("look", spec.clone())).await;
                assert_eq!(answer.code, 201, "{spec}: {}", answer.message());
                assert_eq!(answer.body.pointer(field), Some(&value), "{spec}");
                // What is kept is what the operator reads.
                serde_json::from_value::<pallet_api::Lift>(answer.body).expect("the operator reads it");
            }
        })
        .await;
}

const TARGETS: &str = "groups, groupSelector, nodes and role of a Lift never change; make another Lift";
const WORK: &str = "phases, process, phase and with of a Lift never change; make another Lift";
const WAY: &str = "timeout, rollout, retry and dryRun of a Lift never change; make another Lift";

/// Lifts, and changes to each that are refused: what it was, and what is merged over it (RFC 7396).
fn changes() -> Vec<(Value, Vec<(Value, &'static str)>)> {
    let inline = json!([
        {"name": "a", "file": {"path": "/etc/motd", "content": "x", "mode": "0644"}},
        {"exec": {"script": "true"}, "onChangeOf": ["a"]}
    ]);
    let changed = |pointer: &str, to: Value| {
        let mut inline = inline.clone();
        *inline.pointer_mut(pointer).expect("it is there") = to;
        (json!({"phase": {"actions": inline}}), WORK)
    };
    let mut reversed = inline.clone();
    reversed.as_array_mut().expect("a list").reverse();
    let mut more = inline.clone();
    more.as_array_mut().expect("a list").push(json!({"exec": {"script": "more"}}));
    let mut guarded = inline.clone();
    guarded[1]["when"] = json!("true");
    vec![
        (
            json!({"nodes": ["web-0"], "role": "web", "phases": ["install", "configure"], "with": {
                "version": "1", "tls": {"ciphers": ["a", "b"], "on": true}
            }}),
            vec![
                (json!({"groups": ["db"]}), TARGETS),
                (json!({"groups": ["web", "db"]}), TARGETS),
                (selector(json!({})), TARGETS),
                (json!({"nodes": ["web-1"]}), TARGETS),
                (json!({"nodes": ["web-0", "web-1"]}), TARGETS),
                (json!({"nodes": null}), TARGETS),
                (json!({"role": "db"}), TARGETS),
                (json!({"role": null}), TARGETS),
                (json!({"phases": ["install"]}), WORK),
                (json!({"phases": ["configure", "install"]}), WORK),
                (json!({"phases": null}), WORK),
                (json!({"phases": null, "process": "apply-install"}), WORK),
                (json!({"phases": null, "phase": {"actions": inline}}), WORK),
                (json!({"with": {"version": "2"}}), WORK),
                (json!({"with": {"version": null}}), WORK),
                (json!({"with": {"more": 1}}), WORK),
                (json!({"with": {"tls": {"ciphers": ["a"]}}}), WORK),
                (json!({"with": {"tls": {"ciphers": ["b", "a"]}}}), WORK),
                (json!({"with": {"tls": {"on": false}}}), WORK),
                (json!({"with": {"tls": {"on": "true"}}}), WORK),
                (json!({"with": {"tls": {"on": null, "off": true}}}), WORK),
                (json!({"with": null}), WORK),
                (json!({"timeout": "2h"}), WAY),
                (json!({"timeout": null, "dryRun": true}), WAY),
                (json!({"dryRun": true}), WAY),
                (json!({"retry": {"limit": 1}}), WAY),
                (json!({"retry": {"backoff": "20s"}}), WAY),
                (rollout(json!({"order": "Barrier"})), WAY),
                (rollout(json!({"maxParallel": 1})), WAY),
                (rollout(json!({"onFailure": "StopAll"})), WAY),
                (rollout(json!({"maxFailures": 1})), WAY),
            ],
        ),
        (
            json!({"process": "apply-install", "dryRun": true, "rollout": {"maxFailures": 2}}),
            vec![
                (json!({"process": "apply-config"}), WORK),
                (json!({"process": null}), WORK),
                (json!({"with": {"version": "1"}}), WORK),
                (json!({"dryRun": false}), WAY),
                (json!({"dryRun": null}), WAY),
                (rollout(json!({"maxFailures": null})), WAY),
                (rollout(json!({"maxFailures": "2%"})), WAY),
                (json!({"nodes": ["web-0"]}), TARGETS),
                (json!({"role": "web"}), TARGETS),
            ],
        ),
        (
            json!({"phase": {"actions": inline}}),
            vec![
                changed("/0/file/content", json!("y")),
                changed("/0/file/mode", json!("0600")),
                changed("/0/name", json!("b")),
                changed("/1/exec/script", json!("false")),
                changed("/1/onChangeOf", json!([])),
                changed("/1", json!({"directory": {"path": "/srv"}})),
                (json!({"phase": {"actions": reversed}}), WORK),
                (json!({"phase": {"actions": more}}), WORK),
                (json!({"phase": {"actions": guarded}}), WORK),
                (json!({"phase": null}), WORK),
            ],
        ),
        (
            selector(json!({"matchLabels": {"tier": "web"}, "matchExpressions": [
                {"key": "old", "operator": "NotIn", "values": ["a", "b"]}
            ]})),
            vec![
                (json!({"groupSelector": {"matchLabels": {"tier": "db"}}}), TARGETS),
                (json!({"groupSelector": {"matchLabels": {"tier": null, "kind": "web"}}}), TARGETS),
                (json!({"groupSelector": {"matchLabels": {"more": "web"}}}), TARGETS),
                (json!({"groupSelector": {"matchLabels": null}}), TARGETS),
                (json!({"groupSelector": {"matchExpressions": null}}), TARGETS),
                (
                    json!({"groupSelector": {"matchExpressions": [{"key": "old", "operator": "In", "values": ["a", "b"]}]}}),
                    TARGETS,
                ),
                (
                    json!({"groupSelector": {"matchExpressions": [{"key": "old", "operator": "NotIn", "values": ["a"]}]}}),
                    TARGETS,
                ),
                (json!({"groupSelector": null, "groups": ["web"]}), TARGETS),
            ],
        ),
    ]
}

async fn try_change(space: &Space, name: &str, change: Value) -> kube::Result<pallet_api::Lift> {
    let patch = Patch::Merge(json!({ "spec": change }));
    space.lifts().patch(name, &PatchParams::default(), &patch).await
}

#[tokio::test]
async fn what_a_lift_does_never_changes() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let mut wrong = Vec::new();
            for (place, (spec, changes)) in changes().into_iter().enumerate() {
                let name = format!("look-{place}");
                let made = space.create("lifts", &lift(&name, spec)).await;
                for (change, says) in changes {
                    let said = match try_change(&space, &name, change.clone()).await {
                        Ok(_) => "it was accepted".to_owned(),
                        Err(kube::Error::Api(status)) => format!("{} {}", status.code, status.message),
                        Err(error) => error.to_string(),
                    };
                    if !said.starts_with("422 ") || !said.contains("spec: ") || !said.contains(says) {
                        wrong.push(format!("{name}: {change}: {said}\n    wanted: {says}"));
                    }
                    let replaced = space.get("lifts", &name).await["spec"] != made["spec"];
                    if replaced {
                        let as_it_was = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "Lift",
                            "metadata": {"name": name}, "spec": made["spec"]});
                        space.lifts().delete(&name, &support::background()).await.expect("deleted");
                        space.create("lifts", &as_it_was).await;
                    }
                }
            }
            assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
        })
        .await;
}

/// A hole: rules can neither list the fields of `with`, which no schema names, nor miss one of them where another has come in
/// its place. Where this fails, the API server has learnt it: move the change to the table above.
#[tokio::test]
async fn that_one_value_took_the_place_of_another_no_rule_can_see() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("lifts", &lift("look", json!({"with": {"version": "1", "port": 80}}))).await;
            let other = json!({"with": {"version": null, "edition": "1"}});
            let taken = try_change(&space, "look", other).await.expect("nobody sees it");
            assert_eq!(taken.spec.with.expect("values").keys().collect::<Vec<_>>(), ["edition", "port"]);
        })
        .await;
}

#[tokio::test]
async fn what_ends_stops_or_outlives_a_lift_may_change_and_cancel_cannot_be_taken_back() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("lifts", &lift("look", json!({"with": {"version": "1"}, "phases": ["configure"]}))).await;
            for (generation, change) in (2..).zip([
                json!({"suspend": true}),
                json!({"suspend": false}),
                json!({"ttlSecondsAfterFinished": 60}),
                json!({"ttlSecondsAfterFinished": 120}),
                json!({"ttlSecondsAfterFinished": null}),
                json!({"suspend": true}),
                json!({"cancel": true}),
                // As before: a Lift that was cancelled may still be let go or kept longer.
                json!({"suspend": null, "ttlSecondsAfterFinished": 1}),
            ]) {
                let edited = try_change(&space, "look", change.clone()).await;
                assert_eq!(edited.expect("it may change").metadata.generation, Some(generation), "{change}");
            }
            for back in [json!({"cancel": false}), json!({"cancel": null})] {
                let refused = refusal(try_change(&space, "look", back).await);
                assert_eq!(refused.code, 422);
                let says = "a Lift that was cancelled stays so; make another Lift";
                assert!(refused.message.contains(says), "{}", refused.message);
            }
            let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}));
            space.lifts().patch("look", &PatchParams::default(), &labels).await.expect("its metadata may change");
        })
        .await;
}

/// What a pipeline or a GitOps controller does at every sync.
#[tokio::test]
async fn applied_again_a_lift_stays_as_it_is() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let spec = json!({
                "phases": ["configure"], "with": {"version": "1", "deep": {"a": [1, 2]}}, "timeout": "10m",
                "rollout": {"maxParallel": 2}, "dryRun": false
            });
            let object = lift("look", spec);
            let made = space.apply("lifts", "git", false, &object).await;
            assert_eq!(made.code, 201, "{}", made.message());
            let status = Patch::Merge(json!({"status": {"observedGeneration": 1, "nodes": 3}}));
            space.lifts().patch_status("look", &PatchParams::default(), &status).await.expect("a status");
            let version = |body: &Value| body["metadata"]["resourceVersion"].clone();
            let seen = space.get("lifts", "look").await;
            let again = space.apply("lifts", "git", false, &object).await;
            assert_eq!((again.code, version(&again.body)), (200, version(&seen)), "{}", again.message());
            // A person cancels it; Git, which says nothing of that, does not take it back.
            try_change(&space, "look", json!({"cancel": true})).await.expect("it can be cancelled");
            let after = space.apply("lifts", "git", false, &object).await;
            assert_eq!((after.code, &after.body["spec"]["cancel"]), (200, &json!(true)), "{}", after.message());
            let mut other = object.clone();
            other["spec"]["with"]["version"] = json!("2");
            let refused = space.apply("lifts", "git", true, &other).await;
            assert_eq!(refused.code, 422);
            assert!(refused.message().contains(WORK), "{}", refused.message());
        })
        .await;
}

#[tokio::test]
async fn a_status_write_leaves_the_spec_of_a_lift_and_a_spec_write_the_status() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let before = space.create("lifts", &lift("look", json!({}))).await;
            let both =
                Patch::Merge(json!({"spec": {"suspend": true}, "status": {"observedGeneration": 1, "nodes": 3}}));
            space.lifts().patch_status("look", &PatchParams::default(), &both).await.expect("a status");
            let after = space.get("lifts", "look").await;
            assert_eq!((&after["spec"], &after["metadata"]["generation"]), (&before["spec"], &json!(1)));
            assert_eq!(after["status"]["nodes"], 3);
            let both = Patch::Merge(json!({"spec": {"suspend": true}, "status": {"nodes": 99}}));
            space.lifts().patch("look", &PatchParams::default(), &both).await.expect("a spec");
            let after = space.get("lifts", "look").await;
            assert_eq!((&after["spec"]["suspend"], &after["status"]["nodes"]), (&json!(true), &json!(3)));
        })
        .await;
}

#[tokio::test]
async fn the_columns_of_a_lift() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("lifts", &lift("look", json!({}))).await;
            let path = space.path("lifts");
            let (headings, fresh) = table(&space.client, &path).await;
            let expected = [
                ("Name", 0),
                ("Nodes", 0),
                ("Succeeded", 0),
                ("Failed", 0),
                ("Complete", 0),
                ("Reason", 0),
                ("Age", 0),
                ("Message", 1),
            ];
            assert_eq!(columns(&headings), expected);
            assert_eq!((&fresh["Name"], &fresh["Nodes"]), (&json!("look"), &json!(0)));
            assert_eq!(fresh["Complete"], Value::Null, "nobody has looked at it yet");
            let message = "1 of 3 nodes failed; web-0: configure attempt 1: no luck";
            let status = json!({"status": {"observedGeneration": 1, "nodes": 3, "succeeded": 2, "failed": 1, "conditions": [
                condition("Complete", "False", "NodesFailed", message),
                condition("Failed", "True", "NodesFailed", message),
                condition("Stalled", "True", "NodesFailed", message),
            ]}});
            space.lifts().patch_status("look", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
            let (_, row) = table(&space.client, &path).await;
            assert_eq!((&row["Nodes"], &row["Succeeded"], &row["Failed"]), (&json!(3), &json!(2), &json!(1)));
            assert_eq!((&row["Complete"], &row["Reason"]), (&json!("False"), &json!("NodesFailed")));
            assert_eq!(row["Message"], message);
        })
        .await;
}

/// A status that the schema would refuse is a result lost: the longest that the operator writes must fit.
#[tokio::test]
async fn the_largest_status_of_a_lift_fits() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("lifts", &lift("look", json!({}))).await;
            // 64 groups, every other node of each another outcome: the longest there is to say of ten thousand nodes.
            let outcomes = ["Pending", "Running", "Succeeded", "Failed", "TimedOut", "Cancelled", "Skipped", "Removed"];
            let intervals: Vec<String> = (0..150).map(|place| (place * 2).to_string()).collect();
            let shown = |group: usize, outcome: &str| {
                json!({"group": format!("{group:052}"), "outcome": outcome, "nodes": intervals.join(",")})
            };
            let outcomes: Vec<Value> =
                (0..64).flat_map(|group| outcomes.iter().map(move |outcome| (group, *outcome))).map(|(g, o)| shown(g, o)).collect();
            let error = json!({"node": "x".repeat(63), "phase": "p".repeat(40), "action": "a".repeat(63),
                "outcome": "TimedOut", "attempt": u32::MAX, "exitCode": 255, "message": "m".repeat(400)});
            let status = json!({"status": {
                "observedGeneration": 1, "nodes": 10_000, "outcomes": outcomes, "phaseErrors": vec![error; 10],
                "phaseErrorsOmitted": 9_990, "suspendedSeconds": u32::MAX,
                "actions": {"changed": 1, "unchanged": 2, "skipped": 3, "failed": 4, "unknown": 5},
                "conditions": [condition("Complete", "False", "NodesFailed", &"m".repeat(1024))]
            }});
            let kept = space.lifts().patch_status("look", &PatchParams::default(), &Patch::Merge(status)).await;
            let status = kept.expect("it fits").status.expect("a status");
            assert_eq!((status.outcomes.len(), status.phase_errors.len()), (512, 10));
        })
        .await;
}
