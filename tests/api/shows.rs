//! What people and programs see: columns, names, and whether an object is current by the kstatus rules.

use http::Method;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    request::send,
    support::{self, group},
};

/// `kubectl get`: the headings with their priority, and the first row by heading.
pub async fn table(client: &Client, path: &str) -> (Vec<(String, i64)>, serde_json::Map<String, Value>) {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let answer = send(client, Method::GET, path, accept, None).await;
    assert_eq!((answer.code, &answer.body["kind"]), (200, &json!("Table")), "{}", answer.message());
    let headings: Vec<_> = answer.body["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| {
            (column["name"].as_str().expect("a name").to_owned(), column["priority"].as_i64().expect("a priority"))
        })
        .collect();
    let cells = answer.body["rows"][0]["cells"].as_array().expect("cells").clone();
    let row = headings.iter().map(|(name, _)| name.clone()).zip(cells).collect();
    (headings, row)
}

pub fn columns(headings: &[(String, i64)]) -> Vec<(&str, i64)> {
    headings.iter().map(|(name, priority)| (name.as_str(), *priority)).collect()
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[tokio::test]
async fn the_columns_of_a_group() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("groupspecs", &group("web", json!({"count": 3}))).await;
            let path = space.path("groupspecs");
            let (headings, fresh) = table(&space.client, &path).await;
            let expected = [
                ("Name", 0),
                ("Count", 0),
                ("Nodes", 0),
                ("Converged", 0),
                ("Ready", 0),
                ("Reason", 0),
                ("Age", 0),
                ("Message", 1),
            ];
            assert_eq!(columns(&headings), expected);
            assert_eq!((&fresh["Name"], &fresh["Count"], &fresh["Nodes"]), (&json!("web"), &json!(3), &json!(0)));
            assert_eq!(fresh["Ready"], Value::Null, "nobody has looked at it yet");

            let status = json!({"status": {"replicas": 3, "convergedReplicas": 2, "conditions": [
                condition("Reconciling", "True", "Converging", "other"),
                condition("Ready", "False", "PhaseFailed", "configure failed on web-1"),
            ]}});
            space.groups().patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
            let (_, row) = table(&space.client, &path).await;
            assert_eq!((&row["Nodes"], &row["Converged"]), (&json!(3), &json!(2)));
            assert_eq!((&row["Ready"], &row["Reason"]), (&json!("False"), &json!("PhaseFailed")));
            assert_eq!(row["Message"], "configure failed on web-1");
            assert!(row["Age"].as_str().is_some_and(|age| age.ends_with('s')), "{}", row["Age"]);
        })
        .await;
}

#[tokio::test]
async fn the_columns_of_a_node() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let spec = json!({"group": "web", "groupUid": "u", "ordinal": 0});
            let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"}, "spec": spec});
            space.create("groupnodes", &node).await;
            let status = json!({"status": {"address": "10.0.0.1", "conditions": [
                condition("Converged", "True", "Converged", "every phase is done"),
            ]}});
            space.nodes().patch_status("web-0", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
            let (headings, row) = table(&space.client, &space.path("groupnodes")).await;
            let expected =
                [("Name", 0), ("Group", 0), ("Converged", 0), ("Reason", 0), ("Address", 0), ("Age", 0), ("Message", 1)];
            assert_eq!(columns(&headings), expected);
            assert_eq!((&row["Name"], &row["Group"]), (&json!("web-0"), &json!("web")));
            assert_eq!((&row["Converged"], &row["Reason"]), (&json!("True"), &json!("Converged")));
            assert_eq!((&row["Address"], &row["Message"]), (&json!("10.0.0.1"), &json!("every phase is done")));
        })
        .await;
}

#[tokio::test]
async fn short_names_categories_and_subresources() {
    let Some(cluster) = support::cluster().await else { return };
    let path = "/apis/pallet.dev/v1alpha1";
    let list = send(&cluster.client, Method::GET, path, "application/json", None).await.body;
    let resource = |name: &str| {
        let resources = list["resources"].as_array().expect("a list");
        resources
            .iter()
            .find(|resource| resource["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {list}"))
            .clone()
    };
    for (plural, singular, short, kind) in [
        ("groupspecs", "groupspec", json!(["gs"]), "GroupSpec"),
        ("groupnodes", "groupnode", json!(["gn"]), "GroupNode"),
        // Its name is short enough.
        ("lifts", "lift", Value::Null, "Lift"),
    ] {
        let found = resource(plural);
        assert_eq!(found["namespaced"], true);
        assert_eq!((&found["kind"], &found["singularName"]), (&json!(kind), &json!(singular)));
        assert_eq!((&found["shortNames"], &found["categories"]), (&short, &json!(["pallet"])));
        assert_eq!(resource(&format!("{plural}/status"))["kind"], kind);
    }
    assert_eq!(resource("groupspecs/scale")["kind"], "Scale");
    assert!(
        list["resources"].as_array().expect("a list").iter().all(|resource| resource["name"] != "groupnodes/scale")
    );
}

/// `kubectl explain`, by way of the published OpenAPI.
#[tokio::test]
async fn explain_has_a_word_on_every_field_of_the_spec() {
    let Some(cluster) = support::cluster().await else { return };
    let path = "/openapi/v3/apis/pallet.dev/v1alpha1";
    let body = send(&cluster.client, Method::GET, path, "application/json", None).await.body;
    let some = [
        ("GroupSpec", vec!["count", "node", "phases", "converge", "paused"]),
        ("Lift", vec!["groups", "groupSelector", "phases", "phase", "with", "cancel", "dryRun"]),
    ];
    for (kind, some) in some {
        let schema = &body["components"]["schemas"][format!("dev.pallet.v1alpha1.{kind}")]["properties"]["spec"];
        let fields = schema["properties"].as_object().expect("the spec is published");
        assert!(some.iter().all(|field| fields.contains_key(*field)));
        for (name, field) in fields {
            assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{kind}: {name}");
        }
    }
}

/// What kstatus (Flux, Argo CD, kpt) makes of an object whose kind it does not know.
#[derive(Debug, PartialEq)]
enum Standing {
    Terminating,
    InProgress,
    Failed,
    Current,
}

/// The generic rules of sigs.k8s.io/cli-utils/pkg/kstatus, in their order.
fn kstatus(object: &Value) -> Standing {
    let holds = |kind: &str, status: &str| {
        let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == status)
    };
    let (generation, observed) = (&object["metadata"]["generation"], &object["status"]["observedGeneration"]);
    let unseen = !observed.is_null() && observed != generation;
    match () {
        () if object["metadata"].get("deletionTimestamp").is_some() => Standing::Terminating,
        () if unseen || holds("Reconciling", "True") => Standing::InProgress,
        () if holds("Stalled", "True") => Standing::Failed,
        () if holds("Ready", "False") || holds("Ready", "Unknown") => Standing::InProgress,
        () => Standing::Current,
    }
}

#[tokio::test]
async fn a_group_is_not_current_before_it_was_seen_nor_after_an_edit() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let fresh = space.create("groupspecs", &group("web", json!({}))).await;
            assert_eq!(kstatus(&fresh), Standing::InProgress, "the answer to the create");
            assert_eq!(kstatus(&space.get("groupspecs", "web").await), Standing::InProgress, "a later look");

            let ready = condition("Ready", "True", "Converged", "");
            let not_ready = |reason: &str| condition("Ready", "False", reason, "");
            for (conditions, standing) in [
                (json!([not_ready("Stalled"), condition("Stalled", "True", "InvalidSpec", "")]), Standing::Failed),
                (
                    json!([not_ready("Converging"), condition("Reconciling", "True", "Converging", "")]),
                    Standing::InProgress,
                ),
                (json!([ready]), Standing::Current),
            ] {
                let status = json!({"status": {"observedGeneration": 1, "conditions": conditions}});
                let patch = Patch::Merge(status);
                space.groups().patch_status("web", &PatchParams::default(), &patch).await.expect("a status");
                assert_eq!(kstatus(&space.get("groupspecs", "web").await), standing);
            }

            let edit = Patch::Merge(json!({"spec": {"count": 2}}));
            space.groups().patch("web", &PatchParams::default(), &edit).await.expect("an edit");
            assert_eq!(
                kstatus(&space.get("groupspecs", "web").await),
                Standing::InProgress,
                "nobody has seen the edit"
            );
        })
        .await;
}
