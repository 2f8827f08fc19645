use serde_json::json;

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
    resolve(&group(spec), &Default::default()).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Each was false on every node, without a word.
#[test]
fn an_expression_whose_types_never_match_is_refused_with_its_path() {
    let spec = |when: &str, expression: &str| {
        json!({"node": pod(), "phases": {
            "settings": {
                "facts": [{"name": "workers", "exec": "nproc", "parse": "integer"}, {"name": "role", "exec": "cat /role"}],
                "values": {"port": 8080, "name": "{{ facts.role }}"}
            },
            "configure": {"actions": [{"exec": {"script": "x"}, "when": when}]},
            "test": {"expect": [{"name": "a", "expression": expression}]}
        }})
    };
    for (when, expression, expected) in [
        (
            "settings.port == '8080'",
            "true",
            "spec.phases.configure.actions[0].when: == compares a number with a string",
        ),
        ("true", "facts.workers > '2'", "spec.phases.test.expect[0].expression: > compares a number with a string"),
        ("facts.role > 3", "true", "spec.phases.configure.actions[0].when: > compares a string with a number"),
        ("true", "facts.cpu.count", "spec.phases.test.expect[0].expression: it is a number, and must be true or false"),
    ] {
        let errors = errors(spec(when, expression));
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{when}, {expression}: {errors:?}");
    }
    // What a template comes to is only known on the node.
    let well = spec("settings.name == 3 || settings.port > 80", "facts.workers >= 2 && facts.role in ['db', 'web']");
    assert!(resolve(&group(well), &Default::default()).is_ok());
}

#[test]
fn a_small_group_gets_every_default() {
    let group = resolve(&group(json!({"node": pod()})), &Default::default()).unwrap();
    assert_eq!((group.count, group.rollout.max_parallel), (1, 1));
    assert_eq!(group.timeout, Duration::from_secs(1800));
    assert_eq!(group.node.pod().unwrap().container, "a");
    assert!(group.phases.is_empty());
}

#[test]
fn the_container_is_named_by_the_field_then_the_annotation_then_the_order() {
    let mut node = pod();
    node["pod"]["template"]["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/default-container": "b"}});
    assert_eq!(resolve(&group(json!({"node": node})), &Default::default()).unwrap().node.pod().unwrap().container, "b");
    node["pod"]["container"] = json!("a");
    assert_eq!(resolve(&group(json!({"node": node})), &Default::default()).unwrap().node.pod().unwrap().container, "a");
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
        assert_eq!(resolve(&group(spec), &Default::default()).unwrap().rollout.max_parallel, expected);
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
        "spec.phases.configure.actions[3].name: another action of this phase is named \"x\" too",
        "spec.phases.configure.actions[4]: an action has exactly one kind",
        "spec.converge.timeout: \"soon\" is not a duration",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
    }
}

#[test]
fn the_template_hash_follows_the_template_alone() {
    let hash = |spec| resolve(&group(spec), &Default::default()).unwrap().node.hash().to_owned();
    let mut gated = pod();
    gated["pod"]["readinessGate"] = json!(false);
    assert_eq!(hash(json!({"node": pod()})), hash(json!({"node": gated, "count": 3})));
    let mut other = pod();
    other["pod"]["template"]["spec"]["containers"][0]["image"] = json!("y");
    assert_ne!(hash(json!({"node": pod()})), hash(json!({"node": other})));
}

fn specs(list: Value) -> ServerSpecs {
    let spec = |(name, spec): (&String, &Value)| {
        let object = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1}, "spec": spec
        });
        (name.clone(), Arc::new(serde_json::from_value(object).unwrap()))
    };
    list.as_object().unwrap().iter().map(spec).collect()
}

fn says(name: &str) -> Value {
    json!({"configure": {"actions": [{"name": "say", "exec": {"script": format!("echo {name} {{{{ params.x }}}}")}}]}})
}

fn inherited(spec: Value, list: Value) -> Result<Group, Vec<String>> {
    let mut spec = spec;
    spec["node"] = pod();
    resolve(&group(spec), &specs(list)).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn what_is_inherited_comes_first_and_each_once() {
    let x = json!({"x": {"default": "d"}});
    let list = json!({
        "base": {"parameters": x, "phases": says("base"), "roles": ["machine"]},
        "web": {"extends": [{"serverSpec": "base"}], "parameters": x, "phases": says("web"), "defaultPhases": ["configure"]},
        "log": {"extends": [{"serverSpec": "base"}], "parameters": x, "phases": says("log")}
    });
    let own = json!({"configure": {"actions": [{"name": "say", "exec": {"script": "echo {{ params.web.x }}"}, "onChangeOf": ["web/say"]}]}});
    let spec = json!({"extends": [{"serverSpec": "web"}, {"serverSpec": "log"}], "roles": ["shop"], "phases": own});
    let group = inherited(spec.clone(), list.clone()).unwrap();
    let actions = &group.phases.actions[&crate::phase::PhaseName::configure()];
    let names: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
    assert_eq!(names, ["base/say", "web/say", "log/say", "say"]);
    assert_eq!(actions[3].on_change_of, [1]);
    assert_eq!(group.phases.params, json!({"base": {"x": "d"}, "web": {"x": "d"}, "log": {"x": "d"}}));
    let fields = serde_json::from_value(json!({"node": pod(), "extends": spec["extends"], "roles": ["shop"]})).unwrap();
    assert_eq!(roles(&fields, &specs(list.clone())), ["machine", "shop"]);
    assert_eq!(uses(&fields, &specs(list)).len(), 3);
}

#[test]
fn parameters_are_the_default_then_what_a_spec_gives_then_what_the_group_gives() {
    let list = json!({
        "base": {"parameters": {"port": {"type": "integer", "default": 1}, "name": {"required": true}}},
        "web": {
            "parameters": {"port": {"type": "integer", "default": 80}},
            "extends": [{"serverSpec": "base", "with": {"port": "{{ params.port }}", "name": "web on {{ params.port }}"}}]
        }
    });
    let params = |extends: Value| inherited(json!({"extends": extends}), list.clone()).unwrap().phases.params;
    let web = json!({"serverSpec": "web", "with": {"port": 8080}});
    assert_eq!(params(json!([web]))["base"], json!({"port": 8080, "name": "web on 8080"}));
    assert_eq!(params(json!([web, {"serverSpec": "base", "with": {"port": 7}}]))["base"]["port"], 7);
}

#[test]
fn whatever_is_wrong_with_what_is_inherited_is_said_at_once_and_where() {
    let list = json!({
        "a": {"extends": [{"serverSpec": "b"}]},
        "b": {"extends": [{"serverSpec": "a"}]},
        "p": {"parameters": {"n": {"type": "integer", "default": "x"}, "must": {"required": true}}},
        "q": {"extends": [{"serverSpec": "p", "with": {"n": 1, "must": "1"}}]},
        "r": {"extends": [{"serverSpec": "p", "with": {"n": 2}}], "phases": says("r")}
    });
    let extends = json!([
        {"serverSpec": "a"}, {"serverSpec": "gone"}, {"serverSpec": "p", "with": {"nope": 1, "must": "{{ facts.x }}"}},
        {"serverSpec": "q"}, {"serverSpec": "r"}
    ]);
    let expected = [
        "ServerSpec b: spec.extends[0].serverSpec: a cycle: a -> b -> a",
        "spec.extends[1].serverSpec: there is no ServerSpec \"gone\" in this namespace; there are a, b, p, q, r",
        "ServerSpec p: spec.parameters.n.default: \"x\" is not of type integer",
        "spec.extends[2].with.must: it is taken as it is here",
        "spec.extends[2].with.nope: there is no such parameter; there are must, n",
        "ServerSpec r: spec.extends[0].with.n: 2 here and 1 in ServerSpec q: spec.extends[0].with.n",
        "ServerSpec r: spec.phases.configure.actions[0].exec.script: params.x is not declared; there are none",
    ];
    let found = inherited(json!({"extends": extends}), list.clone()).unwrap_err();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
    }
    let found = inherited(json!({"extends": [{"serverSpec": "p", "with": {"must": null}}]}), list).unwrap_err();
    assert_eq!(found[1], "spec.extends[0].with: ServerSpec p needs values for must");
}

#[test]
fn the_group_decides_where_its_server_specs_disagree() {
    let giving = |n: u32| json!({"extends": [{"serverSpec": "p", "with": {"n": n}}]});
    let list = json!({"p": {"parameters": {"n": {"type": "integer"}}}, "q": giving(1), "r": giving(2)});
    let both = json!([{"serverSpec": "q"}, {"serverSpec": "r"}]);
    let found = inherited(json!({"extends": both}), list.clone()).unwrap_err();
    assert!(found[0].contains("give one value, in the group's own extends"), "{found:?}");
    let mut decided = both.as_array().unwrap().clone();
    decided.push(json!({"serverSpec": "p", "with": {"n": 3}}));
    assert_eq!(inherited(json!({"extends": decided}), list).unwrap().phases.params["p"]["n"], 3);
}

#[test]
fn default_phases_are_run_where_the_group_lists_none_and_checked_where_they_stand() {
    let list = json!({
        "a": {"defaultPhases": ["migrate", "configure"], "phases": {"migrate": says("a")["configure"]}, "parameters": {"x": {"default": "d"}}},
        "b": {"defaultPhases": ["bootstrap", "nope"]}
    });
    let phases = |spec: Value| {
        let group = inherited(spec, list.clone()).unwrap();
        group.phases.sequence.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(phases(json!({"extends": [{"serverSpec": "a"}]})), ["migrate"]);
    let listed = json!({"extends": [{"serverSpec": "a"}], "converge": {"phases": []}});
    assert_eq!(phases(listed), Vec::<String>::new());
    let found = inherited(json!({"extends": [{"serverSpec": "b"}]}), list.clone()).unwrap_err();
    assert!(found[0].starts_with("ServerSpec b: spec.defaultPhases[0]: bootstrap is not for a list"), "{found:?}");
    assert_eq!(found.len(), 1, "one that nobody declares is left out: {found:?}");
}

#[test]
fn a_secret_that_the_parameters_do_not_ask_for_need_not_be_there() {
    let file = json!({
        "when": "params.secret != null",
        "secretFile": {"path": "/secret", "secretKeyRef": {"name": "{{ params.secret }}", "key": "{{ params.key }}"}}
    });
    let page = json!({
        "when": "params.secret != null",
        "file": {"path": "/page", "contentFrom": {"configMapKeyRef": {"name": "{{ params.secret }}", "key": "page"}}}
    });
    let spec = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec", "metadata": {"name": "app"},
        "spec": {
            "parameters": {"secret": {}, "key": {"default": "token"}},
            "phases": {"configure": {"actions": [file, page]}}
        }
    }))
    .unwrap();
    let specs = [("app".to_owned(), std::sync::Arc::new(spec))].into();
    let named = |with: Value| {
        let spec = json!({"extends": [{"serverSpec": "app", "with": with}], "node": pod()});
        let phases = resolve(&group(spec), &specs).unwrap().phases;
        let names = phases.secrets.keys().chain(phases.config_maps.keys());
        names.map(|key| format!("{}/{}", key.name, key.key)).collect::<Vec<_>>()
    };
    assert_eq!(named(json!({})), Vec::<String>::new());
    assert_eq!(named(json!({"secret": "mine"})), ["mine/token", "mine/page"]);
}

/// An object may have been stored when the schema allowed more.
#[test]
fn no_connection_may_take_longer_than_a_minute() {
    let timeout = |text: &str| {
        let key = json!({"secretKeyRef": {"name": "login"}});
        let node = json!({"hosts": {"key": key, "inventory": [{"name": "a"}], "connectTimeout": text}});
        let group = resolve(&group(json!({"node": node})), &Default::default()).unwrap();
        group.node.hosts().unwrap().access.connect_timeout
    };
    assert_eq!([timeout("15s"), timeout("5m")], [15, 60].map(Duration::from_secs));
}

/// What is parsed apart may be overtaken: an older state never replaces a newer one.
#[test]
fn a_memo_does_not_go_back_to_an_earlier_generation() {
    let specs = ServerSpecs::default();
    let version = |generation: i64| {
        let mut object = group(json!({"node": pod()}));
        object.metadata.generation = Some(generation);
        (Source::of(&object, &specs), resolve(&object, &specs).map(Arc::new))
    };
    let mut memo = Memo::default();
    for generation in [2, 1] {
        let (source, parsed) = version(generation);
        memo.keep(source, parsed);
    }
    assert_eq!(memo.last().unwrap().generation, 2);
    assert!(memo.known(&version(2).0).is_some() && memo.known(&version(1).0).is_none());
    let (source, parsed) = version(3);
    memo.keep(source, parsed);
    assert_eq!(memo.last().unwrap().generation, 3);
}

fn configured(actions: Value) -> Value {
    json!({"node": pod(), "phases": {"configure": {"actions": actions}}})
}

#[test]
fn what_looks_like_a_template_is_one_or_is_refused_in_every_field() {
    let found = errors(configured(json!([
        {"packageSource": {"name": "{{ group.name }}", "apt": {"uri": "https://x", "suite": "s", "components": ["{{ group.name }}"], "key": "{% if %}"}}},
        {"name": "{{ group.name }}", "exec": {"script": "x", "secretEnv": [{"name": "{{ x }}", "secretKeyRef": {"name": "a", "key": "b"}}]}},
        {"file": {"path": "/x", "content": "x", "mode": "{{ group.count }}"}},
        {"cron": {"name": "{{ group.name }}", "schedule": "{{ nope }} 2 * * *", "command": "true"}},
        {"sudoer": {"name": "x", "rule": "{{ group.name }}", "commands": ["/bin/{{ nope }}"]}},
        {"user": {"name": "x", "home": "/home/{{ nope }}", "shell": "/bin/{{ nope }}", "group": "{{ nope }}", "groups": ["{{ nope }}"]}},
        {"lineInFile": {"path": "/x", "line": "x", "match": "^{{ nope }}", "insertAfter": "{{ nope }}"}}
    ])));
    let expected = [
        "actions[0].packageSource.name: \"{{ group.name }}\" looks like a template",
        "actions[0].packageSource.apt.components[0]: \"{{ group.name }}\" looks like",
        "actions[0].packageSource.apt.key: \"{% if %}\" looks like",
        "actions[1].name: \"{{ group.name }}\" looks like",
        "actions[1].exec.secretEnv[0].name: \"{{ x }}\" looks like",
        "actions[2].file.mode: \"{{ group.count }}\" looks like",
        "actions[3].cron.name: \"{{ group.name }}\" looks like",
        "actions[3].cron.schedule: nope is not known",
        "actions[4].sudoer.rule: \"{{ group.name }}\" looks like",
        "actions[4].sudoer.commands[0]: nope is not known",
        "actions[5].user.home: nope is not known",
        "actions[5].user.shell: nope is not known",
        "actions[5].user.group: nope is not known",
        "actions[5].user.groups[0]: nope is not known",
        "actions[6].lineInFile.match: nope is not known",
        "actions[6].lineInFile.insertAfter: nope is not known",
    ];
    for expected in expected {
        let expected = format!("spec.phases.configure.{expected}");
        assert!(found.iter().any(|found| found.starts_with(&expected)), "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let fine = configured(json!([
        {"when": "[{'a': {'b': 1}}].size() == 1", "exec": {"script": "name=abc; echo ${#name} {#"}},
        {"file": {"path": "/x", "content": "x", "owner": "{{ group.name }}", "group": "{{ group.name }}"}},
        {"lineInFile": {"path": "/x", "line": "x", "match": "^a{2}"}}
    ]));
    assert_eq!(resolve(&group(fine), &Default::default()).err(), None);
}

#[test]
fn fields_of_files_that_do_not_go_together_are_refused() {
    for (action, path, said) in [
        (json!({"file": {"path": "/x", "state": "absent", "mode": "0644"}}), "file", "absent takes path only"),
        (json!({"file": {"path": "/x"}}), "file", "exactly one content"),
        (json!({"file": {"path": "/x", "content": "x", "validate": "sshd -t"}}), "file.validate", "by %s"),
        (json!({"file": {"path": "/x", "content": "x", "owner": "a b"}}), "file.owner", "is no owner or group"),
        (json!({"directory": {"path": "/x", "state": "absent"}}), "directory.path", "at least two parts"),
        (json!({"symlink": {"path": "/x"}}), "symlink.target", "is missing"),
        (json!({"symlink": {"path": "/x", "target": "y", "state": "absent"}}), "symlink", "absent takes path only"),
        (json!({"lineInFile": {"path": "/x", "line": "x", "match": "\\s"}}), "lineInFile.match", "[[:space:]]"),
        (
            json!({"lineInFile": {"path": "/x", "line": "x", "insertBefore": "(?i)x"}}),
            "lineInFile.insertBefore",
            "[Pp]ort",
        ),
        (
            json!({"lineInFile": {"path": "/x", "line": "x", "insertAfter": "a", "insertBefore": "b"}}),
            "lineInFile",
            "either",
        ),
    ] {
        let found = errors(configured(json!([action])));
        let start = format!("spec.phases.configure.actions[0].{path}: ");
        assert!(found.len() == 1 && found[0].starts_with(&start) && found[0].contains(said), "{action}: {found:#?}");
    }
    let fine = configured(json!([
        {"file": {"path": "/x", "state": "absent"}}, {"directory": {"path": "/srv/x", "state": "absent"}},
        {"symlink": {"path": "/x", "state": "absent"}}
    ]));
    assert_eq!(resolve(&group(fine), &Default::default()).err(), None);
}

#[test]
fn two_rules_for_one_user_need_a_file_each() {
    let list = json!({"admin": {"parameters": {"user": {"default": "deploy"}}, "phases": {"configure": {"actions": [
        {"name": "sudoer", "sudoer": {"name": "{{ params.user }}", "noPassword": true}}
    ]}}}});
    let own = |action: Value| {
        let phases = json!({"configure": {"actions": [action]}});
        inherited(json!({"extends": [{"serverSpec": "admin"}], "phases": phases}), list.clone()).err()
    };
    let found = own(json!({"sudoer": {"name": "deploy", "commands": ["/bin/x"]}})).unwrap();
    assert!(
        found[0].starts_with("spec.phases.configure.actions[0].sudoer.rule: writes the file that \"admin/sudoer\""),
        "{found:?}"
    );
    assert_eq!(own(json!({"sudoer": {"name": "deploy", "rule": "x", "commands": ["/bin/x"]}})), None);
    assert_eq!(own(json!({"sudoer": {"name": "other", "commands": ["/bin/x"]}})), None);
    assert_eq!(own(json!({"sudoer": {"name": "deploy", "noPassword": true}})), None, "the same rule twice is one");
    assert_eq!(own(json!({"when": "facts.os.family == 'x'", "sudoer": {"name": "deploy"}})), None);
}

#[test]
fn what_actions_cannot_have_is_refused_with_its_field() {
    let env = json!([{"name": "https_proxy", "value": "http://{{ node.name }}:3128"}]);
    let package = json!({"names": ["less"]});
    let found = |action: Value| match resolve(
        &group(json!({"node": pod(), "phases": {"configure": {"actions": [action]}}})),
        &Default::default(),
    ) {
        Ok(_) => String::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found(json!({"package": package.clone(), "env": env.clone()})), "");
    assert!(found(json!({"exec": {"script": "true"}, "env": env})).contains("actions[0].env: only package"));
    let undefined = json!([{"name": "A", "value": "{{ nope }}"}]);
    assert!(found(json!({"package": package, "env": undefined})).contains("actions[0].env[0].value"));
    let purge = |state: &str| found(json!({"package": {"names": ["less"], "purge": true, "state": state}}));
    assert_eq!(purge("absent"), "");
    assert!(purge("present").contains("package.purge: is for state: absent"));
    let masked = |state: &str| found(json!({"service": {"name": "web", "masked": true, "state": state}}));
    assert_eq!(masked("stopped") + &found(json!({"service": {"name": "web", "masked": false}})), "");
    assert!(masked("started").contains("service.masked: nothing can start a masked unit"));
    let header = json!({"path": "/f", "url": "https://x/f", "sha256": "0", "secretHeaders": [
        {"name": "Authorization", "secretKeyRef": {"name": "mirror", "key": "bearer"}}
    ]});
    let spec = json!({"node": pod(), "phases": {"configure": {"actions": [{"remoteFile": header}]}}});
    let phases = resolve(&group(spec), &Default::default()).unwrap().phases;
    let places: Vec<_> = phases.secrets.iter().map(|(key, path)| format!("{key} {path}")).collect();
    assert!(
        places[0].starts_with("mirror/bearer ") && places[0].contains("secretHeaders[0].secretKeyRef"),
        "{places:?}"
    );
}
