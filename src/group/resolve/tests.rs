use super::*;

fn group(spec: Value) -> GroupSpec {
    serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 1}, "spec": spec
    }))
    .unwrap()
}

fn pod() -> Value {
    json!({"pod": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}}})
}

fn errors(spec: Value) -> Vec<String> {
    resolve(&group(spec)).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_small_group_gets_every_default() {
    let group = resolve(&group(json!({"node": pod()}))).unwrap();
    assert_eq!((group.count, group.rollout.max_parallel), (1, 1));
    assert_eq!(group.timeout, Duration::from_secs(1800));
    assert_eq!(group.pod.container, "a");
    assert!(group.phases.is_empty());
}

#[test]
fn the_container_is_named_by_the_field_then_the_annotation_then_the_order() {
    let mut node = pod();
    node["pod"]["template"]["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/default-container": "b"}});
    assert_eq!(resolve(&group(json!({"node": node}))).unwrap().pod.container, "b");
    node["pod"]["container"] = json!("a");
    assert_eq!(resolve(&group(json!({"node": node}))).unwrap().pod.container, "a");
    node["pod"]["container"] = json!("c");
    assert_eq!(
        errors(json!({"node": node})),
        ["spec.node.pod.container: there is no container \"c\"; the template has a, b"]
    );
}

#[test]
fn a_share_is_rounded_up() {
    for (value, count, expected) in [(json!("50%"), 3, 2), (json!("1%"), 3, 1), (json!(7), 3, 7), (json!("25%"), 0, 1)]
    {
        let spec = json!({"count": count, "node": pod(), "converge": {"rollout": {"maxParallel": value}}});
        assert_eq!(resolve(&group(spec)).unwrap().rollout.max_parallel, expected);
    }
}

#[test]
fn all_errors_come_at_once_with_their_paths() {
    let mut node = pod();
    node["pod"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let found = errors(json!({
        "node": node,
        "phases": {
            "bootstrap": {"actions": [{"exec": {"script": "echo {{ settings.motd }} {{ facts.java }}"}}]},
            "settings": {
                "values": {"motd": "{{ settings.other }}"},
                "facts": [{"name": "java", "exec": "java -version"}, {"name": "hostname", "exec": "hostname"}]
            },
            "configure": {"actions": [
                {"exec": {"script": "{{ settings.mtd }} {{ facts.jva }} {{ facts.disk.freePercent }} {{ nope }}"}},
                {"file": {"path": "etc/motd", "content": "{{ group.size }}{{ unfinished"}},
                {"name": "x", "exec": {"script": "a"}}, {"name": "x", "exec": {"script": "b"}},
                {}
            ]}
        },
        "converge": {"timeout": "soon"}
    }));
    let expected = [
        "spec.node.pod.template.spec.restartPolicy: must be Always",
        "spec.phases.settings.facts[1].name: \"hostname\" is a built-in fact",
        "spec.phases.settings.values.motd: settings.other: a value of settings cannot use another one",
        "spec.phases.bootstrap.actions[0].exec.script: facts.java: bootstrap runs before settings",
        "spec.phases.bootstrap.actions[0].exec.script: settings.motd: bootstrap runs before settings",
        "spec.phases.configure.actions[0].exec.script: facts.disk.freePercent changes by itself",
        "spec.phases.configure.actions[0].exec.script: facts.jva is neither a built-in fact nor declared; spec.phases.settings.facts has java, hostname",
        "spec.phases.configure.actions[0].exec.script: nope is not known",
        "spec.phases.configure.actions[0].exec.script: settings.mtd is not declared; spec.phases.settings.values has motd",
        "spec.phases.configure.actions[1].file.path: \"etc/motd\" is not absolute",
        "spec.phases.configure.actions[1].file.content: the template cannot be read",
        "spec.phases.configure.actions[4]: an action has exactly one kind",
        "spec.phases.configure.actions[3].name: another action of this phase is named \"x\" too",
        "spec.converge.timeout: \"soon\" is not a duration",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
    }
}

#[test]
fn the_template_hash_follows_the_template_alone() {
    let hash = |spec| resolve(&group(spec)).unwrap().pod.hash;
    let mut gated = pod();
    gated["pod"]["readinessGate"] = json!(false);
    assert_eq!(hash(json!({"node": pod()})), hash(json!({"node": gated, "count": 3})));
    let mut other = pod();
    other["pod"]["template"]["spec"]["containers"][0]["image"] = json!("y");
    assert_ne!(hash(json!({"node": pod()})), hash(json!({"node": other})));
}
