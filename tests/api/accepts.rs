//! Good GroupSpecs, and the defaults that they get.

use std::sync::Arc;

use pallet_api::ServerSpec;
use pallet_core::group::resolve::{self, ServerSpecs};
use serde_json::{Value, json};

use crate::support::{self, group};

#[tokio::test]
async fn the_least_there_can_be_gets_every_default() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let created = space.create("groupspecs", &group("web", json!({}))).await;
            let kept = space.get("groupspecs", "web").await;
            let converge = json!({
                "timeout": "30m",
                "destroyTimeout": "5m",
                "retry": {"limit": 3, "backoff": "10s"},
                "rollout": {
                    "order": "Independent", "maxParallel": "50%", "maxUnavailable": "25%", "maxSurge": 0,
                    "onFailure": "IsolateNode", "replacement": "WhenChanged"
                },
            });
            for object in [created, kept] {
                // The operator fills in the count: a default of the schema would take an autoscaler's.
                assert!(object["spec"].get("count").is_none());
                assert_eq!(object["spec"]["converge"], converge);
                assert_eq!(object["spec"]["node"]["pod"]["readinessGate"], true);
                // Absent, not false or empty: the operator fills in nothing that a user might mistake for their own.
                for absent in ["paused", "phases"] {
                    assert!(object["spec"].get(absent).is_none(), "{absent}");
                }
                assert_eq!(object["metadata"]["generation"], 1);
                assert_eq!(object["status"]["observedGeneration"], -1, "or kstatus would take it for current");
                assert!(object["status"].get("conditions").is_none());
            }
        })
        .await;
}

/// `kubectl apply` replaces lists as a whole: a default inside one would be a change at every apply.
#[tokio::test]
async fn lists_are_kept_as_they_were_written() {
    let Some(cluster) = support::cluster().await else { return };
    let actions = json!([
        {"lineInFile": {"path": "/etc/app.conf", "line": "colour = blue"}},
        {"package": {"names": ["curl"]}},
        {"cron": {"name": "job", "schedule": "0 3 * * *", "command": "true"}},
        {"user": {"name": "app"}},
        {"group": {"name": "app"}},
        {"sudoer": {"name": "app"}},
        {"exec": {"script": "true"}, "become": {}, "retry": {"limit": 2}}
    ]);
    let phases =
        json!({"settings": {"facts": [{"name": "kernel", "exec": "uname -r"}]}, "configure": {"actions": actions}});
    let inventory = json!([{"name": "a", "address": "192.0.2.1"}]);
    let hosts = json!({"hosts": {"inventory": inventory, "key": {"secretKeyRef": {"name": "login"}}}});
    let mut declared = group("web", json!({"node": hosts, "phases": phases}));
    declared["spec"]["node"].as_object_mut().expect("an object").remove("pod");
    cluster
        .in_namespace(async |space| {
            let kept = space.create("groupspecs", &declared).await;
            assert_eq!(kept["spec"]["phases"], phases, "{kept}");
            assert_eq!(kept["spec"]["node"]["hosts"]["inventory"], inventory);
        })
        .await;
}

#[tokio::test]
async fn good_specs_and_the_operator_reads_what_is_kept() {
    let Some(cluster) = support::cluster().await else { return };
    let exec = |fields: Value| {
        let mut exec = json!({"script": "true"});
        support::merge(&mut exec, fields);
        json!({"phases": {"configure": {"actions": [{ "exec": exec }]}}})
    };
    let file = |fields: Value| {
        let mut file = json!({"path": "/etc/motd", "content": "x"});
        support::merge(&mut file, fields);
        json!({"phases": {"configure": {"actions": [{ "file": file }]}}})
    };
    let parallel = |value: Value| json!({"converge": {"rollout": {"maxParallel": value}}});
    let timeout = |value: &str| json!({"converge": {"timeout": value}});
    let half = json!("50%");
    // A spec, a field of what is kept, and its value.
    let table = [
        (json!({"count": 0}), "/spec/count", json!(0)),
        (json!({"count": 10000}), "/spec/count", json!(10000)),
        (json!({"count": null}), "/spec/converge/timeout", json!("30m")),
        (json!({"paused": true}), "/spec/paused", json!(true)),
        (json!({"node": {"pod": {"readinessGate": false}}}), "/spec/node/pod/readinessGate", json!(false)),
        (json!({"node": {"pod": {"container": "main"}}}), "/spec/node/pod/container", json!("main")),
        (json!({"converge": {}}), "/spec/converge/timeout", json!("30m")),
        (json!({"converge": {"retry": {}}}), "/spec/converge/retry/limit", json!(3)),
        (json!({"converge": {"retry": {"limit": 0}}}), "/spec/converge/retry/backoff", json!("10s")),
        (json!({"converge": {"retry": {"limit": 100}}}), "/spec/converge/retry/limit", json!(100)),
        (json!({"converge": {"rollout": {}}}), "/spec/converge/rollout/maxParallel", half.clone()),
        // As Helm writes a value that is not set.
        (parallel(Value::Null), "/spec/converge/rollout/maxParallel", half.clone()),
        (json!({"converge": null}), "/spec/converge/rollout/maxParallel", half.clone()),
        (parallel(json!(1)), "/spec/converge/rollout/maxParallel", json!(1)),
        (parallel(json!(10000)), "/spec/converge/rollout/maxParallel", json!(10000)),
        (parallel(json!("1%")), "/spec/converge/rollout/maxParallel", json!("1%")),
        (parallel(json!("100%")), "/spec/converge/rollout/maxParallel", json!("100%")),
        (timeout("1s"), "/spec/converge/timeout", json!("1s")),
        (timeout("24h"), "/spec/converge/timeout", json!("24h")),
        (timeout("1h30m"), "/spec/converge/timeout", json!("1h30m")),
        (timeout("1500ms"), "/spec/converge/timeout", json!("1500ms")),
        (json!({"phases": {}}), "/spec/phases", json!({})),
        (json!({"phases": {"bootstrap": {}, "settings": {}, "configure": {}}}), "/spec/phases/configure", json!({})),
        (json!({"phases": {"settings": {"actions": []}}}), "/spec/converge/timeout", json!("30m")),
        (
            json!({"phases": {"settings": {"values": {"port": 80, "names": ["{{ facts.hostname }}"], "deep": {"a": null}}}}}),
            "/spec/phases/settings/values",
            json!({"port": 80, "names": ["{{ facts.hostname }}"], "deep": {"a": null}}),
        ),
        (
            json!({"phases": {"settings": {"facts": [{"name": "javaVersion", "exec": "java -version", "optional": true}]}}}),
            "/spec/phases/settings/facts/0/optional",
            json!(true),
        ),
        (
            exec(json!({"creates": "/x", "unless": "a", "onlyIf": "b"})),
            "/spec/phases/configure/actions/0/exec/onlyIf",
            json!("b"),
        ),
        (
            json!({"phases": {"init": {}, "install": {}, "migrate-db": {}, "destroy-server": {}, "app-rollout": {}}}),
            "/spec/phases/migrate-db",
            json!({}),
        ),
        (
            json!({"phases": {"test": {"expect": [{"name": "disk", "expression": "facts.disk.freePercent > 10"}]}}}),
            "/spec/phases/test/expect/0/expression",
            json!("facts.disk.freePercent > 10"),
        ),
        (
            json!({"processes": {"nightly": ["init", "test"]}, "converge": {"process": "nightly"}, "phases": {"init": {}, "test": {}}}),
            "/spec/processes/nightly/1",
            json!("test"),
        ),
        (json!({"converge": {"process": "server-test"}}), "/spec/converge/process", json!("server-test")),
        (json!({"converge": {"phases": ["settings", "configure"]}}), "/spec/converge/phases/0", json!("settings")),
        (json!({"converge": {"reapply": "2026-11-21"}}), "/spec/converge/reapply", json!("2026-11-21")),
        (
            json!({"converge": {"rollout": {"maxUnavailable": 0, "maxSurge": 1}}}),
            "/spec/converge/rollout/maxSurge",
            json!(1),
        ),
        (json!({"converge": {"rollout": {"maxFailures": "10%"}}}), "/spec/converge/rollout/maxFailures", json!("10%")),
        (
            json!({"phases": {"configure": {"actions": [
                {"directory": {"path": "/srv", "mode": "0750"}}, {"symlink": {"path": "/srv/now", "target": "v1"}},
                {"package": {"names": ["nginx"]}}, {"service": {"name": "nginx", "enabled": true}}
            ]}}}),
            "/spec/phases/configure/actions/2/package/names/0",
            json!("nginx"),
        ),
        (
            json!({"node": {"pod": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"x": 1}}]}}}),
            "/spec/node/pod/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
        ),
        (exec(json!({"unless": null})), "/spec/phases/configure/actions/0/exec", json!({"script": "true"})),
        (exec(json!({"script": "é".repeat(65536)})), "/spec/converge/timeout", json!("30m")),
        (file(json!({"mode": "0644"})), "/spec/phases/configure/actions/0/file/mode", json!("0644")),
        (file(json!({"mode": "755"})), "/spec/phases/configure/actions/0/file/mode", json!("755")),
        (file(json!({"mode": "04755"})), "/spec/phases/configure/actions/0/file/mode", json!("04755")),
        (file(json!({"owner": "_apt", "group": "33"})), "/spec/phases/configure/actions/0/file/group", json!("33")),
        (file(json!({"path": "{{ settings.dir }}/motd"})), "/spec/converge/timeout", json!("30m")),
        (file(json!({"content": ""})), "/spec/phases/configure/actions/0/file/content", json!("")),
        (
            json!({"phases": {"configure": {"actions": [{"name": "Install nginx 1.2_3", "exec": {"script": "true"}, "file": null}]}}}),
            "/spec/phases/configure/actions/0",
            json!({"name": "Install nginx 1.2_3", "exec": {"script": "true"}}),
        ),
        (
            json!({"phases": {"configure": {"actions": vec![json!({"exec": {"script": "true"}}); 64]}}}),
            "/spec/phases/configure/actions/63/exec/script",
            json!("true"),
        ),
    ];
    cluster
        .in_namespace(async |space| {
            for (spec, field, value) in table {
                let answer = space.try_create("groupspecs", &group("web", spec.clone())).await;
                let shown: String = spec.to_string().chars().take(200).collect();
                assert_eq!(answer.code, 201, "{shown}: {}", answer.message());
                assert_eq!(answer.body.pointer(field), Some(&value), "{shown}");
                assert_eq!(answer.warnings, Vec::<String>::new(), "{shown}");
                let object =
                    serde_json::from_value(answer.body).expect("the operator's types take what the schema takes");
                let errors = resolve::resolve(&object, &Default::default()).err().unwrap_or_default();
                // Names that nothing declares are for the operator to see; all else the schema should have refused.
                let unseen: Vec<_> = errors.iter().filter(|error| !error.message.contains("settings.dir")).collect();
                assert!(unseen.is_empty(), "{shown}: {unseen:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn the_examples() {
    let Some(cluster) = support::cluster().await else { return };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<(String, String)> = Vec::new();
    let mut folders = vec![root.join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the examples") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            texts.push((path.display().to_string(), std::fs::read_to_string(&path).expect("an example")));
        }
    }
    for page in ["README.md", "docs/reference/spec.md"] {
        let text = std::fs::read_to_string(root.join(page)).expect("a page");
        let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        texts.push((page.to_owned(), block.expect("a group").to_owned()));
    }
    let mut seen = 0;
    for (place, text) in texts {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
        let (specs, groups) = (of_kind("ServerSpec"), of_kind("GroupSpec"));
        seen += groups.len();
        cluster
            .in_namespace(async |space| {
                let mut inherited = ServerSpecs::new();
                for object in &specs {
                    let answer = space.try_create("serverspecs", object).await;
                    assert_eq!(answer.code, 201, "{place}: {}", answer.message());
                    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let spec: ServerSpec = serde_json::from_value(answer.body).expect("the operator's types take it");
                    inherited.insert(name, Arc::new(spec));
                }
                for object in &groups {
                    let answer = space.try_create("groupspecs", object).await;
                    assert_eq!(answer.code, 201, "{place}: {}", answer.message());
                    let object = serde_json::from_value(answer.body).expect("the operator's types take it");
                    assert_eq!(resolve::resolve(&object, &inherited).err(), None, "{place}");
                }
            })
            .await;
    }
    assert!(seen > 2, "no example was found");
}
