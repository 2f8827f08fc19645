//! What phases may say: ServerSpecs, nodes of roles, handlers, ConfigMaps, manual steps, approval and drift.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use pallet_api::{
    GroupNode, ServerSpec,
    group_node::{Effect, Outcome},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, phase_result, reason, shared};

impl Space {
    async fn apply_spec(&self, name: &str, spec: Value) {
        let specs: Api<ServerSpec> = Api::namespaced(self.client.clone(), &self.name);
        let object = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec", "metadata": {"name": name}, "spec": spec
        });
        let parameters = PatchParams::apply("e2e").force();
        specs.patch(name, &parameters, &Patch::Apply(object)).await.expect("the ServerSpec is accepted");
    }

    async fn run_id(&self, node: &str, phase: &str) -> String {
        let node = self.nodes().get(node).await.expect("the GroupNode");
        phase_result(&node, phase).expect("a phase result").run_id
    }

    async fn annotate_node(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("the annotation");
    }
}

fn drifted(node: &GroupNode) -> Option<(String, String)> {
    let conditions = &node.status.as_ref()?.conditions;
    let drifted = conditions.iter().find(|condition| condition.type_ == "Drifted")?;
    Some((drifted.status.clone(), drifted.message.clone()))
}

#[tokio::test]
async fn what_is_inherited_runs_first_and_a_change_of_it_concerns_exactly_those_that_use_it() {
    let Some(space) = Space::new("inherited").await else { return };
    let says = |text: &str| {
        json!({"parameters": {"who": {"default": "nobody"}}, "phases": {"configure": {"actions": [
            {"name": "say", "exec": {"script": format!("echo {text} {{{{ params.who }}}} >>/said")}}
        ]}}})
    };
    let extending = |name: &str, who: &str| json!([{"serverSpec": name, "with": {"who": who}}]);
    // Before what it extends is there, a group says what it lacks, and it heals by itself.
    let own = json!({"configure": {"actions": [{"exec": {"script": "echo own >>/said"}}]}});
    space.apply(json!({"extends": extending("base", "web"), "node": busybox(), "phases": own})).await;
    let lacking = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let message = condition(&lacking, "Stalled").2;
    assert!(message.contains("spec.extends[0].serverSpec: there is no ServerSpec \"base\""), "{message}");
    space.apply_spec("base", says("base")).await;
    space.apply_spec("other", says("other")).await;
    space.apply_as("aside", json!({"extends": extending("other", "aside"), "node": busybox()})).await;
    space.ready().await;
    space.ready_as("aside").await;
    assert_eq!(space.exec("web-0", "cat /said").await, "base web\nown\n");
    let (web, aside) = (space.run_id("web-0", "configure").await, space.run_id("aside-0", "configure").await);
    space.apply_spec("base", says("changed")).await;
    space.exec_until("web-0", "grep changed /said").await;
    space.ready().await;
    assert_ne!(space.run_id("web-0", "configure").await, web);
    assert_eq!(space.run_id("aside-0", "configure").await, aside, "it does not use what has changed");
    // A value of the wrong name is told, and what runs stays as it is.
    space.patch(json!({"spec": {"extends": [{"serverSpec": "base", "with": {"whom": "x"}}]}})).await;
    let wrong = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    assert!(
        condition(&wrong, "Stalled").2.contains("spec.extends[0].with.whom: there is no such parameter; there are who")
    );
}

#[tokio::test]
async fn nodes_of_a_role_are_used_waited_for_and_followed() {
    let Some(space) = Space::new("roles").await else { return };
    let list = "{% for n in nodes.db | required(2) %}{{ n.name }}={{ n.address }} {{ n.facts.version }}\n{% endfor %}";
    let web = json!({"node": busybox(), "phases": {
        "configure": {"actions": [{"file": {"path": "/dbs", "content": list}}]},
        "other": {"actions": [{"exec": {"script": "echo ran >>/other"}}]}
    }, "converge": {"phases": ["configure", "other"]}});
    space.apply(web).await;
    let db = |count: u32, version: &str| {
        json!({"count": count, "roles": ["db"], "node": busybox(), "phases": {
            "settings": {"facts": [{"name": "version", "exec": format!("echo {version}")}]}
        }})
    };
    space.apply_as("postgres", db(1, "16")).await;
    space.ready_as("postgres").await;
    let waits = |node: &GroupNode| reason(node) == "WaitingForNodes";
    space.node_until("web-0", "web-0 waits for a second node", waits).await;
    let group = space.groups().get("web").await.unwrap();
    assert_eq!(condition(&group, "Stalled").0, "", "to wait is no failure");
    space.apply_as("postgres", db(2, "16")).await;
    space.ready().await;
    let dbs = space.exec("web-0", "cat /dbs").await;
    let address = space.pods().get("postgres-1").await.unwrap().status.unwrap().pod_ip.unwrap();
    assert!(dbs.contains("postgres-0=") && dbs.contains(&format!("postgres-1={address} 16")), "{dbs}");
    // Their facts change: what used them runs again, and nothing else.
    let other = space.run_id("web-0", "other").await;
    space.apply_as("postgres", db(2, "17")).await;
    space.exec_until("web-0", "[ \"$(grep -c 17 /dbs)\" = 2 ]").await;
    space.ready().await;
    assert_eq!(space.run_id("web-0", "other").await, other);
    // A node that goes is taken out; the group then waits again, and the file stays as it was.
    space.apply_as("postgres", db(1, "17")).await;
    space.node_until("web-0", "web-0 waits again", waits).await;
    assert_eq!(space.exec("web-0", "wc -l </dbs").await.trim(), "2");
}

#[tokio::test]
async fn handlers_conditions_and_config_maps() {
    let Some(mut space) = Space::bare("handlers").await else { return };
    space.environment.push(("PALLET_CONFIG_MAP_POLL", "1s".into()));
    space.start_operator();
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), &space.name);
    let site = |text: &str| {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}, "data": {"a": text}});
        let parameters = PatchParams::apply("e2e").force();
        let maps = maps.clone();
        async move { maps.patch("site", &parameters, &Patch::Apply(object)).await.expect("the ConfigMap") }
    };
    let actions = json!([
        {"name": "site", "file": {"path": "/site", "contentFrom": {"configMapKeyRef": {"name": "site", "key": "a"}, "template": true}}},
        {"name": "reload", "exec": {"script": "echo reload >>/handled"}, "onChangeOf": ["site"]},
        {"name": "once", "exec": {"script": "echo {{ node.name }} >>/shared/once"}, "onOneNode": true},
        {"name": "never", "exec": {"script": "false"}, "when": "facts.os.family == 'windows'"},
        {"name": "room", "exec": {"script": "true"}, "when": "facts.disk.freePercent >= 0"},
        {"name": "flaky", "exec": {"script": "echo try >>/tries; [ $(wc -l </tries) -ge 3 ]"}, "retry": {"limit": 5, "pause": "1s"}}
    ]);
    space
        .apply(json!({"count": 2, "node": shared(&space), "phases": {"configure": {"actions": actions}},
        "converge": {"rollout": {"maxParallel": 2}}}))
        .await;
    let lacking = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let message = condition(&lacking, "Stalled").2;
    let path = "spec.phases.configure.actions[0].file.contentFrom.configMapKeyRef: there is no ConfigMap \"site\"";
    assert!(message.contains(path), "{message}");
    site("one on {{ node.name }}\n").await;
    space.ready().await;
    assert_eq!(space.exec("web-1", "cat /site /handled").await, "one on web-1\nreload\n");
    assert_eq!(space.exec("web-0", "cat /shared/once").await, "web-0\n");
    let node = space.nodes().get("web-1").await.unwrap();
    let effects: Vec<Effect> =
        phase_result(&node, "configure").unwrap().actions.iter().map(|action| action.result).collect();
    use Effect::{Changed, Skipped};
    assert_eq!(effects, [Changed, Changed, Skipped, Skipped, Changed, Changed]);
    assert!(phase_result(&node, "configure").unwrap().actions[0].diff.contains("+one on web-1"), "{node:?}");
    site("two\n").await;
    space.exec_until("web-1", "[ \"$(cat /handled)\" = \"$(printf 'reload\\nreload')\" ]").await;
    space.ready().await;
    let node = space.nodes().get("web-1").await.unwrap();
    let diff = phase_result(&node, "configure").unwrap().actions[0].diff.clone();
    assert!(diff.contains("-one on web-1") && diff.contains("+two"), "{diff}");
}

#[tokio::test]
async fn a_manual_step_stops_a_phase_until_somebody_acknowledges_it() {
    let Some(space) = Space::new("manual").await else { return };
    let exec = |text: &str| json!({"exec": {"script": format!("echo {text} >>/said")}});
    space
        .apply(json!({"node": busybox(), "phases": {
            "app-rollout": {"prepare": [exec("prepared")], "actions": [exec("never in converge")]},
            "switch": {"actions": [exec("before"), {"name": "look", "manual": {"message": "look at {{ node.name }}"}}, exec("behind")]}
        }, "converge": {"phases": ["switch"]}}))
        .await;
    let waiting = space.until("Stalled", |group| condition(group, "Stalled").1 == "ManualStep").await;
    let message = condition(&waiting, "Stalled").2;
    let node = space.nodes().get("web-0").await.unwrap();
    let stopped = phase_result(&node, "switch").unwrap();
    assert_eq!(stopped.outcome, Outcome::Waiting);
    assert!(
        message.contains("look at web-0; when that is done: kubectl annotate groupnode web-0 pallet.dev/ack="),
        "{message}"
    );
    assert_eq!(space.exec("web-0", "cat /said").await, "before\n");
    space.annotate_node("web-0", "pallet.dev/ack", "something else").await;
    space.annotate_node("web-0", "pallet.dev/ack", &stopped.run_id).await;
    space.ready().await;
    assert_eq!(space.exec("web-0", "cat /said").await, "before\nbehind\nprepared\n");
    let node = space.nodes().get("web-0").await.unwrap();
    assert_eq!(phase_result(&node, "switch").unwrap().actions.len(), 3);
}

#[tokio::test]
async fn only_the_plan_that_was_approved_is_carried_out() {
    let Some(mut space) = Space::new("approval").await else { return };
    let spec = |count: u32, text: &str| {
        json!({"count": count, "approval": "Manual", "node": busybox(),
            "phases": {"configure": {"actions": [{"exec": {"script": format!("echo {text} >>/said")}}]}}})
    };
    let asks = async |space: &Space, plan: &str| {
        let group = space
            .until(plan, |group| {
                let status = group.status.clone().unwrap_or_default();
                status.observed_generation == group.metadata.generation
                    && condition(group, "Stalled").1 == "WaitingForApproval"
            })
            .await;
        group.status.unwrap().plan.expect("a plan")
    };
    let approve = async |space: &Space, digest: &str| {
        space.patch(json!({"metadata": {"annotations": {"pallet.dev/approve": digest}}})).await;
        space.ready().await;
    };
    space.apply(spec(3, "one")).await;
    let plan = asks(&space, "the creation").await;
    assert_eq!((plan.creates.as_str(), plan.phases[1].phase.as_str()), ("0-2", "configure"));
    assert!(space.pod_names().await.is_empty());
    approve(&space, &plan.digest).await;
    // A lost node is none of it.
    space.delete_pod("web-1").await;
    space.until("a node less", |group| condition(group, "Ready").0 == "False").await;
    space.ready().await;
    space.apply(spec(2, "two")).await;
    let plan = asks(&space, "the removal").await;
    assert_eq!((plan.removals[0].nodes.as_str(), plan.phases[0].nodes.as_str()), ("2", "0-1"));
    assert_eq!(plan.phases[0].reason, "changed");
    // The operator may come and go: what was asked and what was approved stand in the status.
    space.kill_operator().await;
    space.start_operator();
    assert_eq!(asks(&space, "the same").await, plan);
    assert_eq!(space.exec("web-0", "cat /said").await, "one\n");
    approve(&space, &plan.digest).await;
    assert_eq!(space.exec("web-0", "cat /said").await, "one\ntwo\n");
    crate::harness::wait("web-2 is gone", || async {
        let names = space.pod_names().await;
        if names == ["web-0", "web-1"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    // Deletion waits for nobody.
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    crate::harness::wait("the group is gone", || async {
        match space.groups().get_opt("web").await.unwrap() {
            None => Ok(()),
            Some(group) => Err(format!("{:?}", group.status)),
        }
    })
    .await;
}

#[tokio::test]
async fn drift_is_said_and_put_right_where_that_is_wanted() {
    let Some(space) = Space::new("drift").await else { return };
    let spec = |policy: &str| {
        json!({"count": 2, "node": busybox(), "phases": {
            "configure": {"actions": [
                {"name": "motd", "file": {"path": "/etc/motd", "content": "declared\n"}},
                {"name": "always", "exec": {"script": "echo ran >>/ran"}}
            ]},
            "test": {"expect": [{"name": "calm", "expression": "facts.own == 'calm'"}]},
            "settings": {"facts": [{"name": "own", "exec": "cat /own 2>/dev/null || echo calm"}]}
        }, "converge": {"driftCheck": {"interval": "10s", "policy": policy}}})
    };
    space.apply(spec("Report")).await;
    space.ready().await;
    let in_sync = |node: &GroupNode| drifted(node).is_some_and(|(status, _)| status == "False");
    space.node_until("web-1", "web-1 was looked at", in_sync).await;
    let phase_result_before = space.run_id("web-1", "configure").await;
    space.exec("web-1", "echo other >/etc/motd; echo wild >/own").await;
    let differs = |node: &GroupNode| {
        drifted(node).is_some_and(|(status, message)| {
            status == "True" && message.contains("configure motd") && message.contains("test calm")
        })
    };
    let node = space.node_until("web-1", "web-1 differs", differs).await;
    let drift = node.status.unwrap().drift.unwrap();
    assert!(drift.differences[0].message.contains("-other\n+declared"), "{drift:?}");
    let group = space.until("drifted", |group| condition(group, "Drifted").0 == "True").await;
    assert!(condition(&group, "Drifted").2.starts_with("1 of 2 nodes differ; web-1: configure motd"), "{group:?}");
    assert_eq!(condition(&group, "Ready").0, "True", "it is converged all the same");
    assert_eq!(space.exec("web-1", "cat /etc/motd /ran").await, "other\nran\n", "nothing was changed");
    assert_eq!(space.run_id("web-1", "configure").await, phase_result_before);
    space.exec("web-1", "rm /own").await;
    space.apply(spec("Reapply")).await;
    space.exec_until("web-1", "grep declared /etc/motd").await;
    space.until("put right", |group| condition(group, "Drifted").0 == "False").await;
    space.ready().await;
    assert_eq!(space.exec("web-0", "cat /ran").await, "ran\n", "the other node was as it should be");
}
