//! Bad Lifts, each refused with a message that names the field and what to do.

use serde_json::{Value, json};

use crate::support::{self, lift};

/// What is wrong, the spec, the field as the API server writes it, and what is said of it.
type Bad = (&'static str, Value, &'static str, &'static str);

pub fn actions(actions: Value) -> Value {
    json!({"phase": {"actions": actions}})
}

pub fn rollout(rollout: Value) -> Value {
    json!({ "rollout": rollout })
}

pub fn selector(selector: Value) -> Value {
    json!({"groups": null, "groupSelector": selector})
}

fn expression(expression: Value) -> Value {
    selector(json!({"matchExpressions": [expression]}))
}

fn bad_targets() -> Vec<Bad> {
    const WHICH: &str = "names no groups, or names them twice; set either groups or groupSelector";
    const EXPRESSION: &str = "spec.groupSelector.matchExpressions[0]";
    const VALUES: &str = "In and NotIn need values, Exists and DoesNotExist have none";
    let many = |n: usize| Value::from((0..n).map(|i| format!("web-{i}")).collect::<Vec<_>>());
    vec![
        ("no groups", json!({"groups": null}), "spec", WHICH),
        ("groups and groupSelector", json!({"groupSelector": {}}), "spec", WHICH),
        ("empty groups", json!({"groups": []}), "spec.groups", "should have at least 1 items"),
        ("a group twice", json!({"groups": ["web", "web"]}), "spec.groups[1]", "Duplicate value"),
        ("a group of no name", json!({"groups": [""]}), "spec.groups[0]", "at least 1 chars long"),
        ("a name too long", json!({"groups": ["x".repeat(53)]}), "spec.groups[0]", "Too long: may not be more than 52"),
        ("65 groups", json!({"groups": many(65)}), "spec.groups", "must have at most 64 items"),
        ("a group in place of groups", json!({"groups": "web"}), "spec.groups", "must be of type array"),
        ("empty nodes", json!({"nodes": []}), "spec.nodes", "should have at least 1 items"),
        ("1025 nodes", json!({"nodes": many(1025)}), "spec.nodes", "must have at most 1024 items"),
        ("a node twice", json!({"nodes": ["web-0", "web-0"]}), "spec.nodes[1]", "Duplicate value"),
        ("a node by its ordinal", json!({"nodes": [0]}), "spec.nodes[0]", "must be of type string"),
        ("a role of no name", json!({"role": ""}), "spec.role", "at least 1 chars long"),
        ("a selector as text", selector(json!("tier=web")), "spec.groupSelector", "must be of type object"),
        (
            "labels that are no text",
            selector(json!({"matchLabels": {"tier": 1}})),
            "spec.groupSelector.matchLabels.tier",
            "must be of type string",
        ),
        (
            "a selector's field misspelt",
            selector(json!({"labels": {"tier": "web"}})),
            "spec.groupSelector.labels",
            "unknown field",
        ),
        ("an expression without a key", expression(json!({"operator": "Exists"})), EXPRESSION, "Required value"),
        ("an expression without an operator", expression(json!({"key": "tier"})), EXPRESSION, "Required value"),
        (
            "an operator that there is not",
            expression(json!({"key": "tier", "operator": "Gt", "values": ["1"]})),
            "spec.groupSelector.matchExpressions[0].operator",
            r#"supported values: "In", "NotIn", "Exists", "DoesNotExist""#,
        ),
        ("In of nothing", expression(json!({"key": "tier", "operator": "In"})), EXPRESSION, VALUES),
        (
            "NotIn of an empty list",
            expression(json!({"key": "tier", "operator": "NotIn", "values": []})),
            EXPRESSION,
            VALUES,
        ),
        (
            "Exists with values",
            expression(json!({"key": "tier", "operator": "Exists", "values": ["web"]})),
            EXPRESSION,
            VALUES,
        ),
    ]
}

fn bad_work() -> Vec<Bad> {
    const WHAT: &str = "phases, process and phase all say what runs; set one of them, or none for configure";
    const ACTION: &str = "spec.phase.actions[0]";
    const KIND: &str = "an action has exactly one kind: set one of exec, file, directory,";
    const DURATION: &str = "must be a duration from 1s to 24h, such as 90s, 30m or 1h30m";
    const PARALLEL: &str = "spec.rollout.maxParallel";
    const SHARE: &str = "must be a number from 1 to 10000, or a share from 1% to 100%, such as 10 or 25%";
    const TTL: &str = "spec.ttlSecondsAfterFinished";
    let exec = || json!({"exec": {"script": "true"}});
    let many = |n: usize| Value::from(vec![exec(); n]);
    let inline = || json!({"actions": [exec()]});
    vec![
        ("phases and a process", json!({"phases": ["test"], "process": "server-test"}), "spec", WHAT),
        ("phases and a phase", json!({"phases": ["test"], "phase": inline()}), "spec", WHAT),
        ("a process and a phase", json!({"process": "server-test", "phase": inline()}), "spec", WHAT),
        ("all three", json!({"phases": ["test"], "process": "server-test", "phase": inline()}), "spec", WHAT),
        ("empty phases", json!({"phases": []}), "spec.phases", "should have at least 1 items"),
        ("a phase twice", json!({"phases": ["test", "test"]}), "spec.phases[1]", "Duplicate value"),
        (
            "17 phases",
            json!({"phases": (0..17).map(|i| format!("p{i}")).collect::<Vec<_>>()}),
            "spec.phases",
            "must have at most 16 items",
        ),
        ("a process of no name", json!({"process": ""}), "spec.process", "at least 1 chars long"),
        ("a phase by its name", json!({"phase": "configure"}), "spec.phase", "must be of type object"),
        ("a phase without actions", json!({"phase": {}}), "spec.phase.actions", "Required value"),
        ("a phase of no action", actions(json!([])), "spec.phase.actions", "should have at least 1 items"),
        ("a phase of 65 actions", actions(many(65)), "spec.phase.actions", "must have at most 64 items"),
        ("an action of no kind", actions(json!([{"name": "a"}])), ACTION, KIND),
        (
            "an action of two kinds",
            actions(json!([{"exec": {"script": "true"}, "package": {"names": ["curl"]}}])),
            ACTION,
            KIND,
        ),
        (
            "an action of an unknown kind",
            actions(json!([{"packages": {"names": ["curl"]}}])),
            "spec.phase.actions[0].packages",
            "unknown field",
        ),
        (
            "a file at a relative path",
            actions(json!([{"file": {"path": "etc/motd", "content": ""}}])),
            "spec.phase.actions[0].file.path",
            "must be absolute; begin it with a slash",
        ),
        (
            "facts in a phase of actions",
            json!({"phase": {"actions": [exec()], "facts": [{"name": "a", "file": "/x"}]}}),
            "spec.phase.facts",
            "unknown field",
        ),
        ("with as a list", json!({"with": ["port"]}), "spec.with", "must be of type object"),
        (
            "65 values",
            json!({"with": (0..65).map(|i| (format!("p{i}"), json!(i))).collect::<serde_json::Map<_, _>>()}),
            "spec.with",
            "must have at most 64 items",
        ),
        ("a timeout in words", json!({"timeout": "soon"}), "spec.timeout", DURATION),
        ("a timeout of nothing", json!({"timeout": "0s"}), "spec.timeout", DURATION),
        ("a timeout of days", json!({"timeout": "25h"}), "spec.timeout", DURATION),
        ("a negative timeout", json!({"timeout": "-10m"}), "spec.timeout", DURATION),
        ("a timeout as a number", json!({"timeout": 600}), "spec.timeout", "must be of type string"),
        ("a pause of nothing", json!({"retry": {"backoff": "0s"}}), "spec.retry.backoff", DURATION),
        ("too many attempts", json!({"retry": {"limit": 101}}), "spec.retry.limit", "less than or equal to 100"),
        ("less than no attempt", json!({"retry": {"limit": -1}}), "spec.retry.limit", "greater than or equal to 0"),
        ("no node at once", rollout(json!({"maxParallel": 0})), PARALLEL, SHARE),
        ("no share at once", rollout(json!({"maxParallel": "0%"})), PARALLEL, SHARE),
        ("more than all at once", rollout(json!({"maxParallel": "101%"})), PARALLEL, SHARE),
        ("an absurd number at once", rollout(json!({"maxParallel": 10001})), PARALLEL, SHARE),
        (
            "a negative number of failures",
            rollout(json!({"maxFailures": -1})),
            "spec.rollout.maxFailures",
            "must be a number from 0 to 10000, or a share from 0% to 100%",
        ),
        (
            "an order that there is not",
            rollout(json!({"order": "Serial"})),
            "spec.rollout.order",
            r#"supported values: "Independent", "Barrier""#,
        ),
        ("a group's field", rollout(json!({"maxUnavailable": 1})), "spec.rollout.maxUnavailable", "unknown field"),
        ("a negative time to live", json!({"ttlSecondsAfterFinished": -1}), TTL, "greater than or equal to 0"),
        (
            "a life of more than a year",
            json!({"ttlSecondsAfterFinished": 31_536_001}),
            TTL,
            "less than or equal to 31536000",
        ),
        ("a time to live with its unit", json!({"ttlSecondsAfterFinished": "1h"}), TTL, "must be of type integer"),
        ("cancel in words", json!({"cancel": "yes"}), "spec.cancel", "must be of type boolean"),
        ("a field of a Job", json!({"backoffLimit": 3}), "spec.backoffLimit", "unknown field"),
        ("a count", json!({"count": 3}), "spec.count", "unknown field"),
    ]
}

#[tokio::test]
async fn every_bad_lift_with_field_and_remedy() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let table = [bad_targets(), bad_work()].concat();
            let mut wrong = Vec::new();
            for (what, spec, field, says) in &table {
                let answer = space.try_create("lifts", &lift("look", spec.clone())).await;
                let message = answer.message();
                if !matches!(answer.code, 400 | 422) || !message.contains(field) || !message.contains(says) {
                    wrong.push(format!("{what}: {} {message}\n    wanted: {field}: {says}", answer.code));
                }
            }
            assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
        })
        .await;
}
