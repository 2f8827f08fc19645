//! Scale and status, and who owns which field.

use http::Method;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{
    request::{refusal, send},
    support::{self, group},
};

#[tokio::test]
async fn scale_reads_and_writes_count_alone() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let groups = space.groups();
            let before = space.create("groupspecs", &group("web", json!({"count": 2}))).await;
            let scale = groups.get_scale("web").await.expect("there is a scale");
            assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
            assert_eq!(scale.status.as_ref().map(|status| status.replicas), Some(0));

            let merge = Patch::Merge(json!({"spec": {"replicas": 5}}));
            let scale = groups.patch_scale("web", &PatchParams::default(), &merge).await.expect("kubectl scale");
            assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(5));

            let mut scale = groups.get_scale("web").await.expect("a scale");
            scale.spec.as_mut().expect("a spec").replicas = Some(7);
            let scale = groups.replace_scale("web", &PostParams::default(), &scale).await.expect("an autoscaler");
            assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(7));

            let after = space.get("groupspecs", "web").await;
            let mut expected = before["spec"].clone();
            expected["count"] = json!(7);
            assert_eq!(after["spec"], expected);
            assert_eq!(after["metadata"]["generation"], 3, "each change of count is one of the spec");
        })
        .await;
}

#[tokio::test]
async fn scale_shows_what_the_status_says() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let groups = space.groups();
            space.create("groupspecs", &group("web", json!({"count": 3}))).await;
            let status = json!({"status": {"replicas": 2, "selector": "pallet.dev/group=web"}});
            groups.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
            let status = groups.get_scale("web").await.expect("a scale").status.expect("a status");
            assert_eq!((status.replicas, status.selector.as_deref()), (2, Some("pallet.dev/group=web")));
        })
        .await;
}

#[tokio::test]
async fn scale_refuses_what_the_schema_refuses() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let groups = space.groups();
            space.create("groupspecs", &group("web", json!({"count": 1}))).await;
            for replicas in [-1, 10001] {
                let merge = Patch::Merge(json!({"spec": {"replicas": replicas}}));
                let refused = refusal(groups.patch_scale("web", &PatchParams::default(), &merge).await);
                assert_eq!(refused.code, 422, "{}", refused.message);
            }
            assert_eq!(space.get("groupspecs", "web").await["spec"]["count"], 1);
        })
        .await;
}

#[tokio::test]
async fn a_status_write_leaves_the_spec_and_a_spec_write_the_status() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let groups = space.groups();
            let before = space.create("groupspecs", &group("web", json!({"count": 2}))).await;

            let both = Patch::Merge(json!({"spec": {"count": 9}, "status": {"replicas": 2, "observedGeneration": 1}}));
            groups.patch_status("web", &PatchParams::default(), &both).await.expect("a status");
            let after = space.get("groupspecs", "web").await;
            assert_eq!(after["spec"], before["spec"]);
            assert_eq!(after["metadata"]["generation"], 1, "a status is no new generation");
            assert_eq!((&after["status"]["replicas"], &after["status"]["observedGeneration"]), (&json!(2), &json!(1)));

            let both = Patch::Merge(json!({"spec": {"count": 4}, "status": {"replicas": 99, "observedGeneration": 2}}));
            groups.patch("web", &PatchParams::default(), &both).await.expect("a spec");
            let after = space.get("groupspecs", "web").await;
            assert_eq!(after["spec"]["count"], 4);
            assert_eq!(after["metadata"]["generation"], 2);
            assert_eq!((&after["status"]["replicas"], &after["status"]["observedGeneration"]), (&json!(2), &json!(1)));
        })
        .await;
}

#[tokio::test]
async fn a_status_that_a_user_sends_along_is_dropped() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let mut object = group("web", json!({}));
            object["status"] = json!({"observedGeneration": 1, "replicas": 7, "conditions": []});
            let kept = space.create("groupspecs", &object).await;
            assert_eq!(kept["status"]["observedGeneration"], -1);
            assert_eq!(kept["status"]["replicas"], 0);
        })
        .await;
}

/// A phase result that the schema would refuse is a result lost: the longest that the operator writes must fit.
#[tokio::test]
async fn the_largest_results_fit() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let spec = json!({"group": "web", "groupUid": "u", "ordinal": 99999});
            let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-99999"}, "spec": spec});
            space.create("groupnodes", &node).await;
            let actions = vec![json!({"name": "x".repeat(63), "result": "Changed"}); 64];
            let phase_results: Vec<Value> = (0..24)
                .map(|place| {
                    json!({
                        "phase": format!("phase-{place}"), "digest": "d".repeat(64), "runId": "r".repeat(128), "attempt": u32::MAX,
                        "outcome": "TimedOut", "exitCode": 255, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z",
                        "actions": actions, "output": "\u{fffd}".repeat(2048), "outputBytes": i64::MAX, "message": "m".repeat(1024),
                    })
                })
                .collect();
            let patch = Patch::Merge(json!({"status": {"phaseResults": phase_results}}));
            let kept = space.nodes().patch_status("web-99999", &PatchParams::default(), &patch).await.expect("it fits");
            let phase_results = kept.status.expect("a status").phase_results;
            assert_eq!(phase_results.len(), 24);
            assert_eq!((phase_results[0].attempt, phase_results[0].output_bytes), (u32::MAX, i64::MAX));
        })
        .await;
}

#[tokio::test]
async fn two_results_of_one_phase_are_refused() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let spec = json!({"group": "web", "groupUid": "u", "ordinal": 0});
            let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"}, "spec": spec});
            space.create("groupnodes", &node).await;
            let phase_result = json!({"phase": "configure", "digest": "d", "attempt": 1, "outcome": "Failed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"});
            let patch = Patch::Merge(json!({"status": {"phaseResults": [phase_result, phase_result]}}));
            let refused = refusal(space.nodes().patch_status("web-0", &PatchParams::default(), &patch).await);
            assert!(refused.message.contains("Duplicate value"), "{}", refused.message);
        })
        .await;
}

#[tokio::test]
async fn two_managers_share_a_group_and_a_conflict_names_the_other() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let fact = |name: &str| json!({"phases": {"settings": {"facts": [{"name": name, "file": "/x"}]}}});
            let mut first = group("web", fact("a"));
            first["spec"]["count"] = json!(2);
            let made = space.apply("groupspecs", "git", false, &first).await;
            assert_eq!(made.code, 201, "{}", made.message());

            // Facts are a map by name: each manager has its own.
            let bare = |spec: Value| json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"}, "spec": spec});
            let second = bare(json!({"node": first["spec"]["node"], "phases": fact("b")["phases"]}));
            let shared = space.apply("groupspecs", "team", false, &second).await;
            assert_eq!(shared.code, 200, "{}", shared.message());
            assert_eq!(shared.body["spec"]["phases"]["settings"]["facts"].as_array().map(Vec::len), Some(2));
            assert_eq!(shared.body["spec"]["count"], 2, "a default does not take a field from its owner");

            let mut third = second.clone();
            third["spec"]["count"] = json!(3);
            let conflict = space.apply("groupspecs", "team", false, &third).await;
            assert_eq!(conflict.code, 409);
            assert!(conflict.message().contains("\"git\"") && conflict.message().contains(".spec.count"), "{}", conflict.message());
            let forced = space.apply("groupspecs", "team", true, &third).await;
            assert_eq!((forced.code, &forced.body["spec"]["count"]), (200, &json!(3)));

            // Git lets go of count: it stays, for team owns it now.
            let mut without = first.clone();
            without["spec"].as_object_mut().expect("an object").remove("count");
            let kept = space.apply("groupspecs", "git", false, &without).await;
            assert_eq!((kept.code, &kept.body["spec"]["count"]), (200, &json!(3)));

            // A manager that applies less takes back only its own.
            let less = space.apply("groupspecs", "team", false, &bare(json!({"node": first["spec"]["node"]}))).await;
            assert_eq!(less.code, 200, "{}", less.message());
            assert_eq!(less.body["spec"]["phases"]["settings"]["facts"], json!([{"name": "a", "file": "/x"}]));
            assert!(less.body["spec"].get("count").is_none(), "nobody wants one: the operator knows the last");
        })
        .await;
}

/// What HPA and GitOps do together: count is left out of Git, the scale subresource owns it.
#[tokio::test]
async fn an_autoscaler_and_git_do_not_fight() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let object = group("web", json!({}));
            space.apply("groupspecs", "git", false, &object).await;
            // There is no scale before the operator has written the count, as ADR 0059 says; without an operator, by hand.
            let none = refusal(space.groups().get_scale("web").await);
            assert_eq!(none.code, 500, "{}", none.message);
            let count = Patch::Merge(json!({"spec": {"count": 1}}));
            space.groups().patch("web", &PatchParams::default(), &count).await.expect("the count");
            let path = format!("{}/web/scale?fieldManager=autoscaler", space.path("groupspecs"));
            let mut scale = send(&space.client, Method::GET, &path, "application/json", None).await.body;
            scale["spec"]["replicas"] = json!(6);
            let scaled = send(&space.client, Method::PUT, &path, "application/json", Some(&scale)).await;
            assert_eq!(scaled.code, 200, "{}", scaled.message());
            let again = space.apply("groupspecs", "git", false, &object).await;
            assert_eq!((again.code, &again.body["spec"]["count"]), (200, &json!(6)));
        })
        .await;
}

#[tokio::test]
async fn nodes_are_selected_by_their_group() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            for (name, group) in [("web-0", "web"), ("web-1", "web"), ("db-0", "db")] {
                let spec = json!({"group": group, "groupUid": "u", "ordinal": 0});
                let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": name}, "spec": spec});
                space.create("groupnodes", &node).await;
            }
            let named = async |selector: &str| {
                let list = space.nodes().list(&ListParams::default().fields(selector)).await;
                list.map(|list| list.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>())
            };
            assert_eq!(named("spec.group=web").await.expect("a list"), ["web-0", "web-1"]);
            assert_eq!(named("spec.group!=web").await.expect("a list"), ["db-0"]);
            let refused = refusal(named("spec.ordinal=0").await);
            assert!(refused.message.contains("field label not supported"), "{}", refused.message);
        })
        .await;
}
