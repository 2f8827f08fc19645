//! A hostile tenant beside a well-behaved one, served by the same operator: the worst valid objects that a namespace may
//! hold do not slow the other namespace down, and do not end the operator.
//!
//! Needs a cluster of its own, since its operator serves all namespaces: `make test-tenants`.

use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use pallet_api::GroupSpec;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::harness::{PATIENCE, Space, busybox, condition, node, script};

/// Edits whose time to `Ready` is measured, alone and beside the hostile tenant: so many that two are slower than the 99th
/// percentile, which therefore is not the one edit that met something else on the machine.
const EDITS: usize = 300;
/// The most that the 99th percentile may grow by, as a factor; and the least that counts as growth, which is what one
/// turn of a busy machine's scheduler costs.
const GROWTH: u32 = 2;
const SLACK: Duration = Duration::from_millis(250);
/// The operator's resident memory at its peak, in MiB. The chart's limit is 512.
const MEMORY: u64 = 256;
/// In which time an author edits each hostile group once, one after the other. Node, API server and tests share the
/// machine's processors: more often or all at once, and the test would measure those.
const POKES: Duration = Duration::from_secs(5);
/// Hosts that greet and then say nothing, on these ports of [`SILENT_ADDRESS`].
const SILENT_PORTS: std::ops::Range<u16> = 33_300..33_364;

/// What one hostile author writes: objects of one namespace, and what the operator says of the group of this name.
struct Shape {
    name: &'static str,
    objects: Vec<Value>,
    /// The reason that some condition of the group gets; none where it only has to cost nobody anything.
    reason: Option<&'static str>,
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "pallet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn group(name: &str, spec: Value) -> Value {
    let mut fields = json!({"count": 1, "node": busybox()});
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object("GroupSpec", name, fields)
}

/// A ServerSpec of this name with one parameter, `long`, and a group that extends it.
fn with_long(name: &'static str, long: Value, phases: Value, reason: Option<&'static str>) -> Shape {
    let spec = json!({"parameters": {"long": {"type": "array", "default": long}}, "phases": phases});
    let extends = json!({"extends": [{"serverSpec": name}]});
    Shape { name, objects: vec![object("ServerSpec", name, spec), group(name, extends)], reason }
}

fn numbers(count: u32) -> Value {
    (0..count).collect::<Vec<_>>().into()
}

fn words(count: u32, length: usize) -> Value {
    (0..count).map(|n| format!("{n:0length$}")).collect::<Vec<_>>().into()
}

fn when(expression: &str) -> Value {
    json!({"configure": {"actions": [{"exec": {"script": "true"}, "when": expression}]}})
}

fn expect(expression: &str) -> Value {
    json!({"configure": script("true"), "test": {"expect": [{"name": "x", "expression": expression}]}})
}

/// As many actions as a phase may have, each with this script.
fn many(script: &str) -> Value {
    json!({"configure": {"actions": vec![json!({"exec": {"script": script}}); 64]}})
}

/// The worst valid objects known. An object that the API server refuses is a shape that has become impossible.
fn shapes(silent: &[Value], host_key: &str) -> Vec<Shape> {
    let too_much = Some("TooMuchWork");
    let template = |name, text: &str| with_long(name, numbers(2000), json!({"configure": script(text)}), too_much);
    let mut shapes = vec![
        // Expressions.
        with_long("cel-nested", numbers(3000), when("params.long.all(a, params.long.all(b, a + b >= 0))"), too_much),
        // A test that is cut has failed; its message has the reason.
        with_long("cel-nested-test", numbers(3000), expect("params.long.all(a, params.long.exists(b, a == b))"), too_much),
        with_long("cel-in", numbers(4000), when("params.long.all(a, a in params.long)"), too_much),
        with_long("cel-equal", words(4000, 10), when("params.long.all(a, params.long == params.long)"), too_much),
        with_long("cel-chain", numbers(3000), when("params.long.map(a, params.long).map(b, b + b).size() > 0"), too_much),
        with_long("cel-text", words(200, 200), when("params.long.all(a, params.long.map(b, b + a + b + a).size() > 0)"), None),
        with_long("cel-matches", words(2000, 20), when("params.long.all(a, params.long.exists(b, a.matches('^(0*)*[1-9]+' + b + '$')))"), None),
        with_long("cel-64", numbers(300), json!({"configure": {"actions": vec![json!({
            "exec": {"script": "true"}, "when": "params.long.all(a, params.long.all(b, a + b >= 0))"
        }); 64]}}), None),
        // Templates.
        template("sorts", "{% for i in range(99) %}{% set a = params.long | sort | reverse %}{% endfor %}"),
        template("uniques", "{% for i in range(999) %}{% set a = params.long | unique | list %}{% endfor %}"),
        template("loops", "{% for a in params.long %}{% for b in params.long %}{% endfor %}{% endfor %}"),
        template("texts", "{% for i in range(9999) %}{{ params.long | join(',') }}{% endfor %}"),
        template("json", "{% for i in range(9999) %}{% set a = params.long | tojson %}{% endfor %}"),
        template("groups", "{% set l = [{'x': 1}] * 2000 %}{% for i in range(999) %}{% set a = l | groupby('x') | list %}{% endfor %}"),
        with_long("sorts-64", numbers(2000), many("{% for i in range(9) %}{% set a = params.long | sort | reverse %}{% endfor %}"), None),
        with_long("loops-64", numbers(50), many("{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{% endfor %}"), None),
        with_long("values", words(200, 200), json!({
            "settings": {"values": (0..60).map(|n| (format!("v{n}"), json!("{{ params.long | join('') }}"))).collect::<serde_json::Map<_, _>>()},
            "configure": script("true")
        }), None),
        // Objects.
        Shape { name: "many-groups", objects: (0..40).map(|n| group(&format!("many-groups-{n}"), json!({"count": 0}))).collect(), reason: None },
        Shape { name: "unschedulable", objects: vec![group("unschedulable", json!({
            "count": 150,
            "node": {"pod": {"template": {"spec": {"nodeSelector": {"no": "where"}, "containers": [{"name": "main", "image": "localhost/busybox:1"}]}}}},
            "phases": many("true")
        }))], reason: None },
        Shape { name: "fails-fast", objects: vec![group("fails-fast", json!({
            "count": 4, "phases": {"configure": script("exit 1")}, "converge": {"retry": {"limit": 100, "backoff": "10s"}}
        }))], reason: None },
        Shape { name: "imageless", objects: vec![group("imageless", json!({"count": 4, "node": node("localhost/none:1")}))], reason: None },
        Shape { name: "no-shell", objects: vec![group("no-shell", json!({"count": 2, "node": node("localhost/noshell:1"), "phases": {"configure": script("true")}}))], reason: None },
        Shape { name: "floods", objects: vec![group("floods", json!({
            "count": 2, "phases": {"configure": script("head -c 20000000 /dev/zero | tr '\\0' '\\n'; exit 1")}, "converge": {"retry": {"limit": 100, "backoff": "30s"}}
        }))], reason: None },
        Shape { name: "roles", objects: (0..2).map(|n| {
            let other = format!("r{}", 1 - n);
            group(&format!("roles-{n}"), json!({
                "roles": [format!("r{n}")],
                "phases": {"configure": script(&format!("echo {{{{ nodes.{other} | map(attribute='facts') | list | tojson | length }}}}"))}
            }))
        }).collect(), reason: None },
        Shape { name: "lifts", objects: std::iter::once(group("lifts", json!({"phases": {"configure": script("sleep 2")}}))).chain((0..20).map(|n| {
            object("Lift", &format!("lift-{n}"), json!({"groups": ["lifts"], "phase": {"actions": [{
                "exec": {"script": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"}, "when": "true"
            }]}}))
        })).collect(), reason: None },
    ];
    let tested = shapes.iter_mut().find(|shape| shape.name == "cel-nested-test").expect("the shape");
    tested.objects[1]["spec"]["converge"] =
        json!({"phases": ["configure", "test"], "retry": {"limit": 1, "backoff": "1s"}});
    // Hosts that keep what reaches them waiting.
    let hosts = |name: &'static str, inventory: Vec<Value>| Shape {
        name,
        objects: vec![group(
            name,
            json!({
                "count": inventory.len(),
                "node": {"hosts": {"key": {"secretKeyRef": {"name": "login"}}, "connectTimeout": "60s", "inventory": inventory}},
                "phases": {"configure": script("true")}
            }),
        )],
        reason: None,
    };
    shapes.push(hosts("silent", silent.to_vec()));
    let dark = (0..64)
        .map(|n| json!({"name": format!("dark-{n}"), "address": format!("198.51.100.{n}"), "hostKeys": [host_key]}));
    shapes.push(hosts("dark", dark.collect()));
    shapes
}

/// A new key pair: the private key, and the line of the public one.
fn key_pair(space: &Space) -> (String, String) {
    let path = space.scratch("key");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen").success());
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("a key");
    (read(&path), read(&path.with_extension("pub")).split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// An address of the node that is neither loopback nor the API server's.
const SILENT_ADDRESS: &str = "10.99.254.9";

/// Servers that send an SSH greeting and then nothing, for as long as the test runs.
async fn silent_hosts(host_key: &str) -> Vec<Value> {
    let address = SILENT_ADDRESS;
    let added =
        std::process::Command::new("ip").args(["address", "replace", &format!("{address}/32"), "dev", "lo"]).status();
    assert!(added.expect("ip").success());
    let mut hosts = Vec::new();
    for port in SILENT_PORTS {
        let listener = TcpListener::bind((address, port)).await.expect("a port");
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"SSH-2.0-silent\r\n").await;
                kept.push(stream);
            }
        });
        hosts.push(json!({"name": format!("silent-{port}"), "address": address, "port": port, "hostKeys": [host_key]}));
    }
    hosts
}

/// Applies an object. Whether the API server accepted it.
async fn apply(space: &Space, object: &Value) -> Result<(), String> {
    let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
    let api: Api<DynamicObject> =
        Api::namespaced_with(space.client.clone(), &space.name, &ApiResource::from_gvk(&kind));
    let name = object["metadata"]["name"].as_str().unwrap();
    let parameters = PatchParams::apply("e2e").force();
    api.patch(name, &parameters, &Patch::Apply(object)).await.map(drop).map_err(|error| error.to_string())
}

/// How long the group `web` takes from an edit of its phase to Ready, seen by a watch.
async fn edit(space: &Space, number: usize) -> Duration {
    let phases = json!({"spec": {"phases": {"configure": script(&format!("echo {number}"))}}});
    let config = watcher::Config::default().fields("metadata.name=web");
    let mut seen = std::pin::pin!(watcher::watcher(space.groups(), config).default_backoff().applied_objects());
    seen.next().await.expect("the group").expect("a watch");
    let began = Instant::now();
    let generation = space.patch(phases).await.metadata.generation;
    let converged = |group: &GroupSpec| {
        let status = group.status.clone().unwrap_or_default();
        status.observed_generation >= generation && condition(group, "Ready").0 == "True"
    };
    let waiting = async {
        while let Some(group) = seen.next().await {
            if group.is_ok_and(|group| converged(&group)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the edit is converged in time");
    began.elapsed()
}

/// The median and the 99th percentile of the times from edit to converged.
async fn measure(space: &Space, first: usize) -> (Duration, Duration) {
    let mut times = Vec::new();
    for number in first..first + EDITS {
        times.push(edit(space, number).await);
    }
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test]
#[ignore = "needs a cluster of its own: make test-tenants"]
async fn a_hostile_tenant_does_not_slow_another_down() {
    let Some(mut good) = Space::bare("good").await else { return };
    let Some(bad) = Space::bare("hostile").await else { return };
    good.all_namespaces = true;
    good.start_operator();
    good.apply(json!({"count": 2, "node": busybox(), "phases": {"configure": script("true")}})).await;
    good.ready().await;
    let alone = measure(&good, 0).await;

    let (private, public) = key_pair(&bad);
    let shapes = shapes(&silent_hosts(&public).await, &public);
    bad.secret("login", json!({"ssh-privatekey": private})).await;
    let mut refused = Vec::new();
    for shape in &shapes {
        for object in &shape.objects {
            if let Err(error) = apply(&bad, object).await {
                refused.push((shape.name, error));
            }
        }
    }
    assert!(refused.is_empty(), "every shape is valid: {refused:#?}");
    // Each has been evaluated once, and its pods are started: what starts pods is not measured.
    for shape in shapes.iter().filter(|shape| shape.reason.is_some()) {
        let reason = shape.reason.unwrap_or_default();
        bad.until_as(shape.name, reason, |group| {
            let conditions = group.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.reason == reason || condition.message.contains(reason))
        })
        .await;
    }
    let (began, cpu) = (Instant::now(), good.cpu());
    // An author who edits, all the time: each annotation is one more event for the operator.
    let poking = async {
        let groups = bad.groups().list(&Default::default()).await.expect("the hostile groups").items;
        let pause = POKES / u32::try_from(groups.len()).expect("a few groups");
        for number in 0.. {
            for group in &groups {
                let poke = json!({"metadata": {"annotations": {"example.com/poke": number.to_string()}}});
                let patched =
                    bad.groups().patch(&group.name_any(), &PatchParams::default(), &Patch::Merge(&poke)).await;
                patched.expect("an annotation");
                tokio::time::sleep(pause).await;
            }
        }
    };
    let beside = tokio::select! {
        beside = measure(&good, 1000) => beside,
        () = poking => unreachable!("it pokes for ever"),
    };
    let (resident, peak) = good.memory();
    let busy = (good.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("beside them the operator keeps {busy:.2} processors busy");
    println!(
        "edit to converged, {EDITS} edits: p50 {:?}, p99 {:?} alone; p50 {:?}, p99 {:?} beside {} hostile shapes; operator {resident} MiB, peak {peak} MiB",
        alone.0,
        alone.1,
        beside.0,
        beside.1,
        shapes.len()
    );
    assert!(good.operator_lives(), "the operator was restarted");
    assert!(peak <= MEMORY, "the operator took {peak} MiB");
    assert!(shapes.len() >= 20);
    assert!(
        beside.1 <= (alone.1 * GROWTH).max(alone.1 + SLACK),
        "p99 from edit to converged grew from {:?} to {:?}",
        alone.1,
        beside.1
    );
}
