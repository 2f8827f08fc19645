use super::*;

fn plain() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{
            "name": "main", "image": "localhost/busybox:1",
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}
        }],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "conf", "configMap": {"name": "conf"}}]
    }})
}

/// What the API server makes of [`plain`], as a client that knows all fields writes it.
#[test]
fn a_template_with_its_defaults_written_down_is_the_same() {
    let full = json!({
        "apiVersion": "v1", "kind": "PodTemplate", "status": {},
        "metadata": {"creationTimestamp": null, "name": "ignored", "labels": {"app": "web", "pallet.dev/group": "x"}, "annotations": {}},
        "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
            "serviceAccount": "default", "serviceAccountName": "default", "hostNetwork": false, "nodeSelector": {},
            "initContainers": [], "imagePullSecrets": null, "affinity": {"nodeAffinity": {}},
            "tolerations": [
                {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
                {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}
            ],
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "args": [],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "resources": {"limits": {"cpu": "1000m", "memory": "65536Ki"}, "requests": {"cpu": 1, "memory": 67_108_864}},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "securityContext": {"privileged": false},
                "env": [
                    {"name": "A", "value": ""},
                    {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
                ],
                "livenessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                    "successThreshold": 1, "failureThreshold": 3
                }
            }],
            "volumes": [
                {"name": "scratch", "emptyDir": {"sizeLimit": "1024Mi", "medium": ""}},
                {"name": "conf", "configMap": {"name": "conf", "defaultMode": 420}}
            ]
        }
    });
    assert_eq!(pod(&full), pod(&plain()));
}

#[test]
fn a_canonical_template_is_its_own_canonical_form() {
    assert_eq!(pod(&pod(&plain())), pod(&plain()));
}

#[test]
fn what_means_something_else_stays_different() {
    let changes = [
        ("/spec/containers/0/image", json!("localhost/busybox:2")),
        ("/spec/containers/0/imagePullPolicy", json!("Always")),
        ("/spec/containers/0/resources/limits/cpu", json!("2")),
        ("/spec/containers/0/resources/requests", json!({"cpu": "500m"})),
        ("/spec/containers/0/ports/0/protocol", json!("UDP")),
        ("/spec/containers/0/livenessProbe/periodSeconds", json!(5)),
        ("/spec/containers/0/somethingNew", json!(false)),
        ("/spec/containers/0/securityContext", json!({"runAsNonRoot": false})),
        ("/spec/containers/0/securityContext", json!({"allowPrivilegeEscalation": false})),
        ("/spec/automountServiceAccountToken", json!(true)),
        ("/spec/terminationGracePeriodSeconds", json!(1)),
        ("/spec/hostnameOverride", json!("db.example.com")),
        ("/spec/volumes/1/configMap/defaultMode", json!(0o400)),
        ("/spec/volumes/0/emptyDir/medium", json!("Memory")),
        ("/metadata/labels/app", json!("api")),
        ("/metadata/finalizers", json!(["a/b"])),
    ];
    for (path, value) in changes {
        let mut other = plain();
        let (parent, name) = path.rsplit_once('/').unwrap();
        other.pointer_mut(parent).unwrap()[name] = value;
        assert_ne!(pod(&other), pod(&plain()), "{path}");
    }
    // An empty selector means all namespaces, and none its own.
    let term = |selector: Value| {
        let mut term = json!({"topologyKey": "zone"});
        term["namespaceSelector"] = selector;
        pod(&json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}))
    };
    assert_ne!(term(json!({})), term(json!(null)));
}

#[test]
fn the_default_of_the_pull_policy_follows_the_image() {
    for (image, policy) in [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:aa", "IfNotPresent"),
        ("busybox:latest@sha256:aa", "IfNotPresent"),
    ] {
        assert_eq!(pull_policy(image), policy, "{image}");
    }
}

#[test]
fn a_virtual_machine_is_compared_by_its_quantities() {
    let machine = |memory: Value, run: Value| {
        let mut spec = run;
        spec["template"] =
            json!({"spec": {"domain": {"memory": {"guest": memory}, "resources": {"requests": {"memory": memory}}}}});
        virtual_machine(&json!({"spec": spec}))
    };
    let plain = machine(json!("1Gi"), json!({}));
    assert_eq!(machine(json!("1024Mi"), json!({"running": true})), plain);
    assert_eq!(machine(json!("1Gi"), json!({"runStrategy": "Always", "instancetype": null})), plain);
    assert_ne!(machine(json!("2Gi"), json!({})), plain);
    assert_ne!(machine(json!("1Gi"), json!({"running": false})), plain);
    assert_eq!(
        machine(json!("1Gi"), json!({"running": false})),
        machine(json!("1Gi"), json!({"runStrategy": "Halted"}))
    );
}
