//! Pure: templates by their meaning: what the API server would make the same of has the same form.
//!
//! Known defaults are left out, quantities are written by their value, and what the operator overwrites does not count. A field
//! that is not known here counts as it is written. So two templates of one form are the same for every API server, and two
//! of different forms may still be.

use serde_json::{Map, Value, json};

use super::quantity;
use pallet_api as api;

/// A pod template by its meaning.
pub(super) fn pod(template: &Value) -> Value {
    let mut pod = template.clone();
    clean(&mut pod);
    let Some(fields) = pod.as_object_mut() else { return pod };
    metadata(fields);
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        pod_spec(spec);
    }
    pod
}

/// The template of a virtual machine by its meaning. Of KubeVirt's own defaults none is known here.
pub(super) fn virtual_machine(template: &Value) -> Value {
    let mut machine = template.clone();
    strip_nulls(&mut machine);
    machine_quantities(&mut machine);
    let Some(fields) = machine.as_object_mut() else { return machine };
    metadata(fields);
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        // The older field.
        match spec.get("running") {
            Some(Value::Bool(true)) if !spec.contains_key("runStrategy") => drop(spec.remove("running")),
            Some(Value::Bool(false)) if !spec.contains_key("runStrategy") => {
                spec.remove("running");
                spec.insert("runStrategy".into(), "Halted".into());
            }
            _ => {}
        }
        without(spec, &[("runStrategy", json!("Always"))]);
        if let Some(inner) = spec.get_mut("template").and_then(Value::as_object_mut) {
            metadata(inner);
        }
    }
    machine
}

/// Null and an empty list are what a field is that is left out, in whatever pod.
fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(clean);
            fields.retain(|name, value| is_set(name, value));
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

/// Whether a field differs from an absent one.
fn is_set(name: &str, value: &Value) -> bool {
    !is_nothing(value) && (!is_empty(value) || !EMPTY.contains(&name))
}

/// The fields that say nothing where they are an empty object. Elsewhere an empty object may say something: `emptyDir: {}`.
const EMPTY: [&str; 18] = [
    "affinity",
    "annotations",
    "capabilities",
    "dnsConfig",
    "labels",
    "lifecycle",
    "limits",
    "metadata",
    "nodeAffinity",
    "nodeSelector",
    "overhead",
    "podAffinity",
    "podAntiAffinity",
    "requests",
    "resources",
    "seLinuxOptions",
    "securityContext",
    "status",
];

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// What the operator or the API server puts there itself.
fn metadata(object: &mut Map<String, Value>) {
    for name in ["apiVersion", "kind", "status"] {
        object.remove(name);
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let overwritten = ["creationTimestamp", "name", "namespace", "ownerReferences"];
        overwritten.iter().for_each(|name| drop(metadata.remove(*name)));
        for (kind, names) in [
            ("labels", &[api::GROUP_LABEL, api::NODE_LABEL] as &[&str]),
            ("annotations", &[api::TEMPLATE_HASH_ANNOTATION, api::CONTAINER_ANNOTATION]),
        ] {
            if let Some(texts) = metadata.get_mut(kind).and_then(Value::as_object_mut) {
                names.iter().for_each(|name| drop(texts.remove(*name)));
            }
        }
        metadata.retain(|_, value| !is_nothing(value) && !is_empty(value));
    }
    object.retain(|name, value| name != "metadata" || !is_empty(value));
}

type Default = (&'static str, Value);

/// Leaves out what is as it would be if it were left out.
fn without(object: &mut Map<String, Value>, defaults: &[Default]) {
    for (name, default) in defaults {
        if object.get(*name) == Some(default) {
            object.remove(*name);
        }
    }
}

/// The objects of a list.
fn each<'a>(object: &'a mut Map<String, Value>, list: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn inner<'a>(object: &'a mut Map<String, Value>, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(object, |object, name| object.get_mut(*name)?.as_object_mut())
}

fn pod_spec(spec: &mut Map<String, Value>) {
    // The alias for what was called so first.
    if let Some(alias) = spec.remove("serviceAccount") {
        spec.entry("serviceAccountName").or_insert(alias);
    }
    let shares_network = spec.get("hostNetwork") == Some(&json!(true));
    if let Some(overhead) = inner(spec, &["overhead"]) {
        overhead.values_mut().for_each(quantity);
    }
    resources(spec);
    for list in ["initContainers", "containers"] {
        each(spec, list).for_each(|container| self::container(container, shares_network));
    }
    each(spec, "volumes").for_each(volume);
    each(spec, "tolerations").for_each(|toleration| {
        without(toleration, &[("operator", json!("Equal")), ("value", json!("")), ("effect", json!(""))]);
    });
    if let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        // The API server's own admission adds these.
        let usual =
            |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let usual = [usual("node.kubernetes.io/not-ready"), usual("node.kubernetes.io/unreachable")];
        tolerations.retain(|toleration| !usual.contains(toleration));
    }
    each(spec, "topologySpreadConstraints").for_each(|constraint| {
        without(
            constraint,
            &[("minDomains", json!(1)), ("nodeAffinityPolicy", json!("Honor")), ("nodeTaintsPolicy", json!("Ignore"))],
        );
    });
    if let Some(context) = inner(spec, &["securityContext"]) {
        without(context, &[("fsGroupChangePolicy", json!("Always")), ("supplementalGroupsPolicy", json!("Merge"))]);
    }
    without(
        spec,
        &[
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("schedulerName", json!("default-scheduler")),
            ("schedulerName", json!("")),
            ("serviceAccountName", json!("default")),
            ("serviceAccountName", json!("")),
            ("enableServiceLinks", json!(true)),
            ("hostNetwork", json!(false)),
            ("hostPID", json!(false)),
            ("hostIPC", json!(false)),
            ("hostUsers", json!(true)),
            ("shareProcessNamespace", json!(false)),
            ("setHostnameAsFQDN", json!(false)),
            ("hostname", json!("")),
            ("subdomain", json!("")),
            ("nodeName", json!("")),
            ("priorityClassName", json!("")),
        ],
    );
    spec.retain(|name, value| is_set(name, value));
}

fn container(container: &mut Map<String, Value>, shares_network: bool) {
    let policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    resources(container);
    each(container, "ports").for_each(|port| {
        if shares_network && port.get("hostPort") == port.get("containerPort") {
            port.remove("hostPort");
        }
        without(
            port,
            &[("protocol", json!("TCP")), ("hostPort", json!(0)), ("hostIP", json!("")), ("name", json!(""))],
        );
    });
    each(container, "env").for_each(|variable| {
        without(variable, &[("value", json!(""))]);
        if let Some(source) = inner(variable, &["valueFrom"]) {
            value_source(source);
        }
    });
    each(container, "envFrom").for_each(|source| {
        without(source, &[("prefix", json!(""))]);
        for kind in ["configMapRef", "secretRef"] {
            inner(source, &[kind]).into_iter().for_each(|source| without(source, &[("optional", json!(false))]));
        }
    });
    each(container, "volumeMounts").for_each(|mount| {
        without(
            mount,
            &[
                ("readOnly", json!(false)),
                ("recursiveReadOnly", json!("Disabled")),
                ("mountPropagation", json!("None")),
                ("subPath", json!("")),
                ("subPathExpr", json!("")),
            ],
        );
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(container, &[probe]) {
            handler(probe);
            without(
                probe,
                &[
                    ("initialDelaySeconds", json!(0)),
                    ("timeoutSeconds", json!(1)),
                    ("periodSeconds", json!(10)),
                    ("successThreshold", json!(1)),
                    ("failureThreshold", json!(3)),
                ],
            );
        }
    }
    for hook in ["postStart", "preStop"] {
        inner(container, &["lifecycle", hook]).into_iter().for_each(handler);
    }
    if let Some(context) = inner(container, &["securityContext"]) {
        without(
            context,
            &[("privileged", json!(false)), ("readOnlyRootFilesystem", json!(false)), ("procMount", json!("Default"))],
        );
    }
    if let Some(policies) = container.get_mut("resizePolicy").and_then(Value::as_array_mut) {
        policies.retain(|policy| policy["restartPolicy"] != "NotRequired");
    }
    without(
        container,
        &[
            ("terminationMessagePath", json!("/dev/termination-log")),
            ("terminationMessagePolicy", json!("File")),
            ("imagePullPolicy", json!(policy)),
            ("imagePullPolicy", json!("")),
            ("stdin", json!(false)),
            ("stdinOnce", json!(false)),
            ("tty", json!(false)),
            ("workingDir", json!("")),
        ],
    );
    container.retain(|name, value| is_set(name, value));
}

/// What is asked for is what it is limited to, unless it is written down.
fn resources(owner: &mut Map<String, Value>) {
    let Some(resources) = inner(owner, &["resources"]) else { return };
    for kind in ["limits", "requests"] {
        inner(resources, &[kind]).into_iter().for_each(|amounts| amounts.values_mut().for_each(quantity));
    }
    let limits = resources.get("limits").cloned().unwrap_or_default();
    if let Some(requests) = inner(resources, &["requests"]) {
        requests.retain(|name, amount| limits.get(name) != Some(amount));
    }
    resources.retain(|_, value| !is_empty(value));
}

fn quantity(value: &mut Value) {
    if let Some(canonical) = quantity::canonical(value) {
        *value = canonical.into();
    }
}

/// What an image is pulled by where nothing is said: always, where it has no tag but `latest` and no digest.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let is_latest = !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if is_latest { "Always" } else { "IfNotPresent" }
}

fn handler(handler: &mut Map<String, Value>) {
    if let Some(get) = inner(handler, &["httpGet"]) {
        without(get, &[("path", json!("/")), ("path", json!("")), ("scheme", json!("HTTP")), ("host", json!(""))]);
    }
    if let Some(socket) = inner(handler, &["tcpSocket"]) {
        without(socket, &[("host", json!(""))]);
    }
    if let Some(grpc) = inner(handler, &["grpc"]) {
        without(grpc, &[("service", json!(""))]);
    }
}

/// The source of a variable's value, or of a file's content.
fn value_source(source: &mut Map<String, Value>) {
    if let Some(field) = inner(source, &["fieldRef"]) {
        without(field, &[("apiVersion", json!("v1"))]);
    }
    if let Some(field) = inner(source, &["resourceFieldRef"]) {
        field.get_mut("divisor").into_iter().for_each(quantity);
        // None at all counts as 1.
        without(field, &[("divisor", json!("0n")), ("divisor", json!("1000000000n")), ("containerName", json!(""))]);
    }
    for kind in ["configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        inner(source, &[kind]).into_iter().for_each(|source| without(source, &[("optional", json!(false))]));
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        let Some(source) = inner(volume, &[kind]) else { continue };
        without(source, &[("defaultMode", json!(0o644)), ("optional", json!(false))]);
        each(source, "items").for_each(value_source);
        each(source, "sources").for_each(|source| {
            for kind in ["configMap", "secret"] {
                inner(source, &[kind]).into_iter().for_each(|source| without(source, &[("optional", json!(false))]));
            }
            if let Some(token) = inner(source, &["serviceAccountToken"]) {
                without(token, &[("expirationSeconds", json!(3600)), ("audience", json!(""))]);
            }
            if let Some(items) = inner(source, &["downwardAPI"]) {
                each(items, "items").for_each(value_source);
            }
        });
    }
    if let Some(directory) = inner(volume, &["emptyDir"]) {
        directory.get_mut("sizeLimit").into_iter().for_each(quantity);
        without(directory, &[("medium", json!(""))]);
    }
    if let Some(claim) = inner(volume, &["ephemeral", "volumeClaimTemplate"]) {
        metadata(claim);
        if let Some(spec) = inner(claim, &["spec"]) {
            resources(spec);
            without(spec, &[("volumeMode", json!("Filesystem"))]);
        }
    }
    for (kind, defaults) in [
        ("hostPath", &[("type", json!(""))] as &[Default]),
        ("image", &[("pullPolicy", json!(""))]),
        ("iscsi", &[("iscsiInterface", json!("default"))]),
        ("rbd", &[("pool", json!("rbd")), ("user", json!("admin")), ("keyring", json!("/etc/ceph/keyring"))]),
        ("azureDisk", &[("cachingMode", json!("ReadWrite")), ("fsType", json!("ext4")), ("kind", json!("Shared"))]),
        ("scaleIO", &[("storageMode", json!("ThinProvisioned")), ("fsType", json!("xfs"))]),
    ] {
        inner(volume, &[kind]).into_iter().for_each(|source| without(source, defaults));
    }
    for source in volume.values_mut().filter_map(Value::as_object_mut) {
        without(source, &[("readOnly", json!(false))]);
    }
    if let Some(image) = inner(volume, &["image"]) {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        without(image, &[("pullPolicy", json!(policy))]);
    }
}

/// The quantities of a virtual machine, wherever they stand.
fn machine_quantities(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), &mut *value) {
                    ("limits" | "requests", Value::Object(amounts)) => amounts.values_mut().for_each(quantity),
                    ("guest" | "maxGuest" | "capacity" | "pageSize", value) if !value.is_object() => quantity(value),
                    (_, value) => machine_quantities(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(machine_quantities),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
