//! Invalid GroupSpecs: the API server refuses each with a message that names the field and the fix.

use serde_json::{Value, json};

use crate::support::{self, group};

struct Bad {
    what: &'static str,
    spec: Value,
    /// The path of the field, as the API server writes it.
    field: &'static str,
    /// What the message has to contain.
    says: &'static str,
}

fn bad(what: &'static str, spec: Value, field: &'static str, says: &'static str) -> Bad {
    Bad { what, spec, field, says }
}

fn converge(converge: Value) -> Value {
    json!({"converge": converge})
}

fn max_parallel(value: impl Into<Value>) -> Value {
    converge(json!({"rollout": {"maxParallel": value.into()}}))
}

fn actions(actions: Value) -> Value {
    json!({"phases": {"configure": {"actions": actions}}})
}

fn fact(fact: Value) -> Value {
    json!({"phases": {"settings": {"facts": [fact]}}})
}

fn file(fields: Value) -> Value {
    let mut file = json!({"path": "/etc/motd", "content": "x"});
    support::merge(&mut file, fields);
    actions(json!([{ "file": file }]))
}

fn exec(fields: Value) -> Value {
    let mut exec = json!({"script": "true"});
    support::merge(&mut exec, fields);
    actions(json!([{ "exec": exec }]))
}

fn hosts(fields: Value) -> Value {
    let mut hosts = json!({"key": {"secretKeyRef": {"name": "login"}}, "inventory": [{"name": "db1"}]});
    support::merge(&mut hosts, fields);
    hosts
}

fn on_hosts(fields: Value) -> Value {
    json!({"node": {"pod": null, "hosts": hosts(fields)}})
}

fn named(name: &str) -> Value {
    actions(json!([{"name": name, "exec": {"script": "true"}}]))
}

fn table() -> Vec<Bad> {
    const PHASES: &str = "spec.phases";
    const ACTION: &str = "spec.phases[configure].actions[0]";
    const KIND: &str = "an action has exactly one kind: set one of exec, file, directory, symlink, lineInFile, remoteFile, package, packageSource, service, user, group, sudoer, cron, secretFile and manual";
    const FACT: &str = "spec.phases[settings].facts[0]";
    const SOURCE: &str = "set exactly one of exec and file, the source of the fact";
    const PARALLEL: &str = "spec.converge.rollout.maxParallel";
    const SHARE: &str = "must be a number from 1 to 10000, or a share from 1% to 100%";
    const ONE_KIND: &str = "set exactly one of pod, virtualMachine and hosts";
    const HOSTS: &str = "spec.node.hosts";
    const INVENTORY: &str = "spec.node.hosts.inventory[";
    const TIMEOUT: &str = "spec.converge.timeout";
    const BACKOFF: &str = "spec.converge.retry.backoff";
    const DURATION: &str = "must be a duration from 1s to 24h, such as 90s, 30m or 1h30m";
    const LIMIT: &str = "spec.converge.retry.limit";
    const MODE: &str = "spec.phases[configure].actions[0].file.mode";
    const OCTAL: &str = "must be three or four octal digits, such as 0644";
    const NAME: &str = "spec.phases[configure].actions[0].name";
    const LETTERS: &str = "begin and end with a letter or digit, such as install-nginx";
    const OWNER: &str = "must be a name or number, such as www-data or 33";
    const IDENTIFIER: &str = "must consist of letters, digits and '_', and not begin with a digit";
    let long = |n: usize| "x".repeat(n);
    let many = |n: usize| Value::from(vec![json!({"exec": {"script": "true"}}); n]);
    let facts =
        |n: usize| Value::from((0..n).map(|i| json!({"name": format!("f{i}"), "file": "/x"})).collect::<Vec<_>>());
    let values = |n: usize| Value::from((0..n).map(|i| (format!("v{i}"), json!(i))).collect::<serde_json::Map<_, _>>());
    vec![
        bad("a negative count", json!({"count": -1}), "spec.count", "should be greater than or equal to 0"),
        bad("an absurd count", json!({"count": 10001}), "spec.count", "should be less than or equal to 10000"),
        bad("half a node", json!({"count": 1.5}), "spec.count", "must be of type integer"),
        bad("a count in quotes", json!({"count": "3"}), "spec.count", "must be of type integer"),
        bad("no kind of node", json!({"node": {"pod": null}}), "spec.node", ONE_KIND),
        bad("two kinds of node", json!({"node": {"hosts": hosts(json!({}))}}), "spec.node", ONE_KIND),
        bad(
            "hosts without a list",
            on_hosts(json!({"inventory": null})),
            HOSTS,
            "set exactly one of inventory and inventoryFrom",
        ),
        bad(
            "a host twice",
            on_hosts(json!({"inventory": [{"name": "a"}, {"name": "a"}]})),
            INVENTORY,
            "Duplicate value",
        ),
        bad("a host without a name", on_hosts(json!({"inventory": [{}]})), INVENTORY, "Required value"),
        bad(
            "a port that is none",
            on_hosts(json!({"inventory": [{"name": "a", "port": 70000}]})),
            INVENTORY,
            "less than or equal to 65535",
        ),
        bad("much patience", on_hosts(json!({"connectTimeout": "2m"})), HOSTS, "from 1s to 1m"),
        bad(
            "known hosts nowhere",
            on_hosts(json!({"knownHosts": {}})),
            HOSTS,
            "set exactly one of configMapKeyRef and secretKeyRef",
        ),
        bad("hosts without a key", on_hosts(json!({"key": null})), HOSTS, "Required value"),
        bad(
            "a login that is none",
            json!({"node": {"pod": null, "virtualMachine": {"template": {}, "user": "not one"}}}),
            "spec.node.virtualMachine.user",
            "must be the name of a user",
        ),
        bad(
            "a pod without a template",
            json!({"node": {"pod": {"template": null}}}),
            "spec.node.pod.template",
            "Required value",
        ),
        bad(
            "a container without a name",
            json!({"node": {"pod": {"container": ""}}}),
            "spec.node.pod.container",
            "at least 1 chars long",
        ),
        bad(
            "a phase in capitals",
            json!({"phases": {"Configure": {}}}),
            PHASES,
            "such as migrate-db; rename the phase",
        ),
        bad(
            "too many phases",
            json!({"phases": (0..17).map(|i| (format!("p{i}"), json!({}))).collect::<serde_json::Map<_, _>>()}),
            PHASES,
            "must have at most 16 items",
        ),
        bad(
            "actions in settings",
            json!({"phases": {"settings": {"actions": [{"exec": {"script": "true"}}]}}}),
            PHASES,
            "settings must not have actions, because it changes nothing on the node; move its actions to configure",
        ),
        bad(
            "values in configure",
            json!({"phases": {"configure": {"values": {"a": 1}}}}),
            PHASES,
            "only settings may have values and facts; move them to spec.phases.settings",
        ),
        bad(
            "facts in configure",
            json!({"phases": {"configure": {"facts": [{"name": "a", "file": "/x"}]}}}),
            PHASES,
            "only settings may have values and facts; move them to spec.phases.settings",
        ),
        bad(
            "facts in bootstrap",
            json!({"phases": {"bootstrap": {"facts": [{"name": "a", "file": "/x"}]}}}),
            PHASES,
            "only settings may have values and facts; move them to spec.phases.settings",
        ),
        bad(
            "too many values",
            json!({"phases": {"settings": {"values": values(65)}}}),
            "spec.phases.settings.values",
            "must have at most 64 items",
        ),
        bad("an action of no kind", actions(json!([{"name": "a"}])), ACTION, KIND),
        bad("an action of null kind", actions(json!([{"exec": null}])), ACTION, KIND),
        bad(
            "an action of two kinds",
            actions(json!([{"exec": {"script": "true"}, "file": {"path": "/x", "content": ""}}])),
            ACTION,
            KIND,
        ),
        bad(
            "the second action of no kind",
            actions(json!([{"exec": {"script": "true"}}, {}])),
            "spec.phases[configure].actions[1]",
            KIND,
        ),
        bad(
            "an unknown kind of action",
            actions(json!([{"packages": {"names": ["curl"]}}])),
            "spec.phases.configure.actions[0].packages",
            "unknown field",
        ),
        bad("65 actions", actions(many(65)), "spec.phases.configure.actions", "must have at most 64 items"),
        bad("an action's name that begins with a dash", named("-a"), NAME, LETTERS),
        bad("an action's name with a newline", named("a\nb"), NAME, LETTERS),
        bad("an action's name with a colon", named("a: b"), NAME, LETTERS),
        bad("an action's name of nothing", named(""), "spec.phases.configure.actions[0].name", "at least 1 chars long"),
        bad(
            "an action's name of 64",
            named(&long(64)),
            "spec.phases.configure.actions[0].name",
            "Too long: may not be more than 63",
        ),
        bad(
            "an empty script",
            exec(json!({"script": ""})),
            "spec.phases.configure.actions[0].exec.script",
            "at least 1 chars long",
        ),
        bad(
            "no script",
            exec(json!({"script": null})),
            "spec.phases.configure.actions[0].exec.script",
            "Required value",
        ),
        bad(
            "a script of 64 KiB and one",
            exec(json!({"script": long(65537)})),
            "spec.phases.configure.actions[0].exec.script",
            "Too long: may not be more than 65536",
        ),
        bad(
            "an empty guard",
            exec(json!({"unless": ""})),
            "spec.phases.configure.actions[0].exec.unless",
            "at least 1 chars long",
        ),
        bad(
            "a guard too long",
            exec(json!({"onlyIf": long(4097)})),
            "spec.phases.configure.actions[0].exec.onlyIf",
            "Too long: may not be more than 4096",
        ),
        bad(
            "a guard misspelt",
            exec(json!({"onlyif": "true"})),
            "spec.phases.configure.actions[0].exec.onlyif",
            "unknown field",
        ),
        bad(
            "a relative path",
            file(json!({"path": "etc/motd"})),
            "spec.phases[configure].actions[0].file.path",
            "must be absolute; begin it with a slash",
        ),
        bad(
            "no content",
            file(json!({"content": null})),
            "spec.phases[configure].actions[0].file",
            "set exactly one of content and contentFrom",
        ),
        bad(
            "two contents",
            file(json!({"contentFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}})),
            "spec.phases[configure].actions[0].file",
            "set exactly one of content and contentFrom",
        ),
        bad(
            "a source of packages that names none",
            actions(json!([{"packageSource": {"name": "x"}}])),
            "spec.phases[configure].actions[0].packageSource",
            "set at least one of apt, dnf and apk",
        ),
        bad(
            "no line for a file",
            actions(json!([{"lineInFile": {"path": "/a"}}])),
            "spec.phases[configure].actions[0].lineInFile",
            "line is required; set line",
        ),
        bad(
            "a variable with a dash",
            exec(json!({"secretEnv": [{"name": "A-B", "secretKeyRef": {"name": "a", "key": "b"}}]})),
            "spec.phases[configure].actions[0].exec.secretEnv[0].name",
            "must be the name of a shell variable",
        ),
        bad(
            "the exit code of a file",
            json!({"phases": {"settings": {"facts": [{"name": "a", "file": "/x", "parse": "exitCode"}]}}}),
            "spec.phases[settings].facts[0]",
            "parse: exitCode needs exec",
        ),
        bad(
            "a role with a dash",
            json!({"roles": ["db-primary"]}),
            "spec.roles",
            "because templates refer to it by name; rename the role",
        ),
        bad(
            "prepare of configure",
            json!({"phases": {"configure": {"prepare": [{"exec": {"script": "x"}}]}}}),
            PHASES,
            "only app-rollout may have prepare",
        ),
        bad(
            "a phase called as what is prepared",
            json!({"phases": {"app-rollout-prepare": {}}}),
            PHASES,
            "is reserved for prepare of app-rollout; rename the phase",
        ),
        bad(
            "a look every second",
            json!({"converge": {"driftCheck": {"interval": "1s"}}}),
            "spec.converge.driftCheck.interval",
            "must be a duration from 10s to 720h",
        ),
        bad("an approval that there is not", json!({"approval": "Never"}), "spec.approval", "Unsupported value"),
        bad(
            "content of 64 KiB and one",
            file(json!({"content": long(65537)})),
            "spec.phases.configure.actions[0].file.content",
            "Too long: may not be more than 65536",
        ),
        bad("a mode that is not octal", file(json!({"mode": "999"})), MODE, OCTAL),
        bad("a mode of two digits", file(json!({"mode": "44"})), MODE, OCTAL),
        bad("a symbolic mode", file(json!({"mode": "u+x"})), MODE, OCTAL),
        bad(
            "a mode without quotes",
            file(json!({"mode": 420})),
            "spec.phases.configure.actions[0].file.mode",
            "must be of type string",
        ),
        bad(
            "an owner with a blank",
            file(json!({"owner": "a b"})),
            "spec.phases[configure].actions[0].file.owner",
            OWNER,
        ),
        bad(
            "an owner that is an option",
            file(json!({"owner": "-R"})),
            "spec.phases[configure].actions[0].file.owner",
            OWNER,
        ),
        bad(
            "owner and group in one",
            file(json!({"owner": "root:root"})),
            "spec.phases[configure].actions[0].file.owner",
            OWNER,
        ),
        bad(
            "a group with a dollar",
            file(json!({"group": "$x"})),
            "spec.phases[configure].actions[0].file.group",
            OWNER,
        ),
        bad("a fact without a source", fact(json!({"name": "a"})), FACT, SOURCE),
        bad("a fact of two sources", fact(json!({"name": "a", "exec": "true", "file": "/x"})), FACT, SOURCE),
        bad(
            "a fact without a name",
            fact(json!({"file": "/x"})),
            "spec.phases.settings.facts[0].name",
            "Required value",
        ),
        bad(
            "a fact's name with a dash",
            fact(json!({"name": "java-version", "file": "/x"})),
            "spec.phases[settings].facts[0].name",
            IDENTIFIER,
        ),
        bad(
            "a fact's name that begins with a digit",
            fact(json!({"name": "1st", "file": "/x"})),
            "spec.phases[settings].facts[0].name",
            IDENTIFIER,
        ),
        bad(
            "two facts of one name",
            json!({"phases": {"settings": {"facts": [{"name": "a", "file": "/x"}, {"name": "a", "exec": "true"}]}}}),
            "spec.phases[settings].facts[1]",
            "Duplicate value",
        ),
        bad(
            "65 facts",
            json!({"phases": {"settings": {"facts": facts(65)}}}),
            "spec.phases.settings.facts",
            "must have at most 64 items",
        ),
        bad(
            "a fact's script too long",
            fact(json!({"name": "a", "exec": long(16385)})),
            "spec.phases.settings.facts[0].exec",
            "Too long: may not be more than 16384",
        ),
        bad("none in parallel", max_parallel(0), PARALLEL, SHARE),
        bad("fewer than none in parallel", max_parallel(-1), PARALLEL, SHARE),
        bad("too many in parallel", max_parallel(20000), PARALLEL, SHARE),
        bad("0% in parallel", max_parallel("0%"), PARALLEL, SHARE),
        bad("101% in parallel", max_parallel("101%"), PARALLEL, SHARE),
        bad("half a percent in parallel", max_parallel("0.5%"), PARALLEL, SHARE),
        bad("words in parallel", max_parallel("abc"), PARALLEL, SHARE),
        bad("a number in quotes in parallel", max_parallel("5"), PARALLEL, SHARE),
        bad("nothing in parallel", max_parallel(""), PARALLEL, SHARE),
        bad("a truth in parallel", max_parallel(true), PARALLEL, "must be of type integer,string"),
        bad("an essay in parallel", max_parallel(long(17)), PARALLEL, "Too long: may not be more than 16"),
        bad("a timeout in words", converge(json!({"timeout": "soon"})), TIMEOUT, DURATION),
        bad("a timeout of nothing", converge(json!({"timeout": "0s"})), TIMEOUT, DURATION),
        bad("a timeout below a second", converge(json!({"timeout": "999ms"})), TIMEOUT, DURATION),
        bad("a timeout beyond a day", converge(json!({"timeout": "25h"})), TIMEOUT, DURATION),
        bad("a negative timeout", converge(json!({"timeout": "-5m"})), TIMEOUT, DURATION),
        bad("a timeout without a unit", converge(json!({"timeout": "30"})), TIMEOUT, DURATION),
        bad("a timeout in days", converge(json!({"timeout": "1d"})), TIMEOUT, DURATION),
        bad("a timeout in fractions", converge(json!({"timeout": "1.5h"})), TIMEOUT, DURATION),
        bad("a timeout that overflows", converge(json!({"timeout": "999999h999999h999h"})), TIMEOUT, DURATION),
        bad("an empty timeout", converge(json!({"timeout": ""})), TIMEOUT, DURATION),
        bad("a timeout that is a number", converge(json!({"timeout": 30})), TIMEOUT, "must be of type string"),
        bad("a backoff in words", converge(json!({"retry": {"backoff": "soon"}})), BACKOFF, DURATION),
        bad("a backoff of nothing", converge(json!({"retry": {"backoff": "0s"}})), BACKOFF, DURATION),
        bad("a backoff beyond a day", converge(json!({"retry": {"backoff": "25h"}})), BACKOFF, DURATION),
        bad(
            "fewer retries than none",
            converge(json!({"retry": {"limit": -1}})),
            LIMIT,
            "should be greater than or equal to 0",
        ),
        bad("101 retries", converge(json!({"retry": {"limit": 101}})), LIMIT, "should be less than or equal to 100"),
        bad(
            "an unknown order",
            converge(json!({"rollout": {"order": "Random"}})),
            "spec.converge.rollout.order",
            "supported values: \"Independent\"",
        ),
        bad(
            "an unknown way to fail",
            converge(json!({"rollout": {"onFailure": "Panic"}})),
            "spec.converge.rollout.onFailure",
            "supported values: \"IsolateNode\"",
        ),
        bad(
            "no way to replace a node",
            converge(json!({"rollout": {"maxUnavailable": 0}})),
            "spec.converge.rollout",
            "maxUnavailable and maxSurge are both 0",
        ),
        bad(
            "no way to replace a node, in percent",
            converge(json!({"rollout": {"maxUnavailable": "0%", "maxSurge": "0%"}})),
            "spec.converge.rollout",
            "set one of them to 1 or more",
        ),
        bad(
            "a surge of less than nothing",
            converge(json!({"rollout": {"maxSurge": -1}})),
            "spec.converge.rollout.maxSurge",
            "must be a number from 0 to 10000",
        ),
        bad(
            "more failures than all",
            converge(json!({"rollout": {"maxFailures": "101%"}})),
            "spec.converge.rollout.maxFailures",
            "or a share from 0% to 100%",
        ),
        bad(
            "an unknown replacement",
            converge(json!({"rollout": {"replacement": "Always"}})),
            "spec.converge.rollout.replacement",
            "supported values: \"WhenChanged\", \"Never\"",
        ),
        bad(
            "phases and a process",
            converge(json!({"phases": ["test"], "process": "apply-install"})),
            "spec.converge",
            "phases and process exclude each other; remove one of them",
        ),
        bad(
            "bootstrap in the list",
            converge(json!({"phases": ["bootstrap"]})),
            "spec.converge.phases",
            "must not list bootstrap, destroy-server or app-rollout",
        ),
        bad(
            "a phase twice in the list",
            converge(json!({"phases": ["test", "test"]})),
            "spec.converge.phases[1]",
            "Duplicate value",
        ),
        bad(
            "a process that nobody knows",
            converge(json!({"process": "apply"})),
            "<nil>",
            "spec.converge.process: no process has this name; use apply-install",
        ),
        bad(
            "a predefined process declared anew",
            json!({"processes": {"apply-install": ["configure"]}}),
            "spec.processes",
            "are predefined; rename the process",
        ),
        bad(
            "destroy-server in a process",
            json!({"processes": {"nightly": ["destroy-server"]}}),
            "spec.processes",
            "must not list bootstrap, destroy-server or app-rollout",
        ),
        bad(
            "actions in test",
            json!({"phases": {"test": {"actions": [{"exec": {"script": "true"}}]}}}),
            PHASES,
            "test must not have actions",
        ),
        bad(
            "expectations in configure",
            json!({"phases": {"configure": {"expect": [{"name": "a", "expression": "true"}]}}}),
            PHASES,
            "only test may have expect; move it to spec.phases.test",
        ),
        bad(
            "two expectations of one name",
            json!({"phases": {"test": {"expect": [{"name": "a", "expression": "true"}, {"name": "a", "expression": "false"}]}}}),
            "spec.phases[test].expect[1]",
            "Duplicate value",
        ),
        bad(
            "the name of a Secret that would be another request",
            exec(json!({"secretEnv": [{"name": "A", "secretKeyRef": {"name": "a?b", "key": "b"}}]})),
            "spec.phases.configure.actions[0].exec.secretEnv[0].secretKeyRef.name",
            "should match",
        ),
        bad(
            "a key that no Secret can have",
            exec(json!({"secretEnv": [{"name": "A", "secretKeyRef": {"name": "a", "key": "b/c"}}]})),
            "spec.phases.configure.actions[0].exec.secretEnv[0].secretKeyRef.key",
            "should match",
        ),
        bad(
            "the name of a login's Secret with a blank",
            on_hosts(json!({"key": {"secretKeyRef": {"name": "a b"}}})),
            "spec.node.hosts.key.secretKeyRef.name",
            "should match",
        ),
        bad(
            "a service of which nothing is asked",
            actions(json!([{"service": {"name": "web"}}])),
            "spec.phases[configure].actions[0].service",
            "set at least one of state, enabled and masked",
        ),
        bad(
            "a service that should fly",
            actions(json!([{"service": {"name": "web", "state": "flying"}}])),
            "spec.phases.configure.actions[0].service.state",
            "supported values: \"started\", \"stopped\", \"restarted\", \"reloaded\"",
        ),
        bad(
            "no packages",
            actions(json!([{"package": {"names": []}}])),
            "spec.phases.configure.actions[0].package.names",
            "should have at least 1 items",
        ),
        bad(
            "a directory without a slash",
            actions(json!([{"directory": {"path": "srv"}}])),
            "spec.phases[configure].actions[0].directory.path",
            "must be absolute; begin it with a slash",
        ),
        bad(
            "a link to nothing",
            actions(json!([{"symlink": {"path": "/a"}}])),
            "spec.phases[configure].actions[0].symlink",
            "target is required, except with state: absent",
        ),
        bad(
            "an absent file with a mode",
            actions(json!([{"file": {"path": "/a", "state": "absent", "mode": "0644"}}])),
            "spec.phases[configure].actions[0].file",
            "state: absent allows only path",
        ),
        bad(
            "a line both behind and before another",
            actions(json!([{"lineInFile": {"path": "/a", "line": "x", "insertAfter": "a", "insertBefore": "b"}}])),
            "spec.phases[configure].actions[0].lineInFile",
            "insertAfter and insertBefore exclude each other",
        ),
        bad(
            "a claim in capitals",
            json!({"node": {"pod": {"volumeClaimTemplates": [{"metadata": {"name": "Data"}, "spec": {}}]}}}),
            "spec.node.pod.volumeClaimTemplates[0].metadata.name",
            "must be a DNS label",
        ),
        bad("a misspelt field", json!({"replicas": 3}), "spec.replicas", "unknown field"),
        bad("a field of a later version", json!({"inherits": []}), "spec.inherits", "unknown field"),
        bad(
            "a phase's field misspelt",
            json!({"phases": {"configure": {"action": []}}}),
            "spec.phases.configure.action",
            "unknown field",
        ),
        bad("phases as a list", json!({"phases": ["configure"]}), PHASES, "must be of type object"),
        bad("paused in words", json!({"paused": "yes"}), "spec.paused", "must be of type boolean"),
    ]
}

#[tokio::test]
async fn every_bad_spec_with_field_and_fix() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let mut wrong = Vec::new();
            for Bad { what, spec, field, says } in table() {
                let answer = space.try_create("groupspecs", &group("web", spec)).await;
                let message = answer.message();
                if !matches!(answer.code, 400 | 422) || !message.contains(field) || !message.contains(says) {
                    wrong.push(format!("{what}: {} {message}\n    wanted: {field}: {says}", answer.code));
                }
            }
            assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table().len(), wrong.join("\n"));
        })
        .await;
}

#[tokio::test]
async fn names_that_no_node_could_be_called_after() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let too_long = "x".repeat(53);
            for name in [&too_long, "a.b", "web.", "9.9"] {
                let answer = space.try_create("groupspecs", &group(name, json!({}))).await;
                assert_eq!(answer.code, 422, "{name}: {}", answer.message());
                // Where the name is no name for any object, the API server says so first.
                let says = if name == "web." { "RFC 1123" } else { "must be a DNS label of at most 52 characters" };
                assert!(
                    answer.message().contains("metadata.name") && answer.message().contains(says),
                    "{}",
                    answer.message()
                );
            }
            for name in ["Web", "a_b", "-a"] {
                let answer = space.try_create("groupspecs", &group(name, json!({}))).await;
                assert!(
                    answer.message().contains("metadata.name") && answer.message().contains("RFC 1123"),
                    "{}",
                    answer.message()
                );
            }
            for name in [&too_long[..52], "w", "9"] {
                let answer = space.try_create("groupspecs", &group(name, json!({}))).await;
                assert_eq!(answer.code, 201, "{name}: {}", answer.message());
            }
        })
        .await;
}

/// A user can fix all errors at once.
#[tokio::test]
async fn one_answer_reports_all_violated_rules() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let spec = json!({
                "phases": {"Install": {}, "configure": {"actions": [{}]}},
                "converge": {"timeout": "soon", "rollout": {"maxParallel": 0}}
            });
            let answer = space.try_create("groupspecs", &group("web", spec)).await;
            for field in ["spec.phases: ", "actions[0]: ", "spec.converge.timeout: ", "maxParallel: "] {
                assert!(answer.message().contains(field), "{field} is missing in {}", answer.message());
            }
        })
        .await;
}

#[tokio::test]
async fn nodes_that_the_operator_would_not_write() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let least = json!({"group": "web", "groupUid": "u", "ordinal": 0});
            for (change, field, says) in [
                (json!({"ordinal": -1}), "spec.ordinal", "greater than or equal to 0"),
                (json!({"ordinal": 100_000}), "spec.ordinal", "less than or equal to 99999"),
                (json!({"group": ""}), "spec.group", "at least 1 chars long"),
                (json!({"groupUid": null}), "spec.groupUid", "Required value"),
                (json!({"phase": "x"}), "spec.phase", "unknown field"),
            ] {
                let mut spec = least.clone();
                support::merge(&mut spec, change);
                let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"}, "spec": spec});
                let answer = space.try_create("groupnodes", &node).await;
                assert!(answer.message().contains(field) && answer.message().contains(says), "{}", answer.message());
            }
        })
        .await;
}
