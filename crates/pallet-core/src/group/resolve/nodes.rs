//! Pure: what a node is: the templates of pods and virtual machines, and inventories of hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::core::Selector;
use serde_json::json;

use super::{Errors, FieldError};
use crate::{
    group::{
        Attributes, ClaimShape, Host, HostsShape, NodeShape, PodShape, VirtualMachineShape, canonical, hosts::Access,
    },
    node::cloud_init,
    phase::{Digest, action::KeyRef},
    target::{Elevation, Hop, Source, Trust},
};
use pallet_api::{
    actions::KeyFields,
    nodes::{
        HostFields, HostsFields, JumpFields, KnownHostsFields, NodeFields, PodFields, SshKeyFields,
        VirtualMachineFields,
    },
};

/// No connection may take longer, whatever is asked for: while it is opened it holds a place that others wait for.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);

/// What OpenSSH calls the kinds of public keys.
const KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

fn short(digest: Digest) -> String {
    digest.as_str().chars().take(10).collect()
}

fn key_ref(fields: &KeyFields) -> KeyRef {
    KeyRef { name: fields.name.clone(), key: fields.key.clone() }
}

fn private_key(fields: &SshKeyFields) -> KeyRef {
    KeyRef { name: fields.secret_key_ref.name.clone(), key: fields.secret_key_ref.key.clone() }
}

/// The keys of Secrets and ConfigMaps that hosts name, with the paths of the fields.
fn references(fields: &HostsFields) -> Vec<(&'static str, KeyRef)> {
    let known_hosts = fields.known_hosts.as_ref();
    let password = fields.elevation.as_ref().and_then(|fields| fields.password.as_ref());
    let jump = fields.jump.as_ref().and_then(|jump| jump.key.as_ref());
    let found = [
        ("key.secretKeyRef", Some(private_key(&fields.key))),
        ("become.password.secretKeyRef", password.map(|password| key_ref(&password.secret_key_ref))),
        ("knownHosts.secretKeyRef", known_hosts.and_then(|fields| fields.secret_key_ref.as_ref()).map(key_ref)),
        ("knownHosts.configMapKeyRef", known_hosts.and_then(|fields| fields.config_map_key_ref.as_ref()).map(key_ref)),
        ("jump.key.secretKeyRef", jump.map(private_key)),
        ("inventoryFrom.configMapKeyRef", fields.inventory_from.as_ref().map(|from| key_ref(&from.config_map_key_ref))),
    ];
    found.into_iter().filter_map(|(path, at)| Some((path, at?))).collect()
}

fn known_hosts(fields: &KnownHostsFields) -> Option<Trust> {
    let secret = fields.secret_key_ref.as_ref().map(|at| Source::Secret(key_ref(at)));
    let config_map = fields.config_map_key_ref.as_ref().map(|at| Source::ConfigMap(key_ref(at)));
    secret.or(config_map).map(Trust::KnownHosts)
}

/// The hosts that a text lists, in the form of `spec.node.hosts.inventory`. `path` is where it is named.
///
/// # Errors
/// Everything that is wrong with it.
pub fn inventory(text: &str, path: &str) -> Result<Vec<Host>, Vec<FieldError>> {
    let mut errors = Errors::default();
    let fields: Vec<HostFields> = match serde_saphyr::from_str::<Option<Vec<HostFields>>>(text) {
        Ok(Some(fields)) => fields,
        // That would take all hosts away, by mistake most likely.
        Ok(None) => {
            errors.add(path, "its text is empty; write [] where no host is meant");
            return Err(errors.found);
        }
        Err(error) => {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default().to_owned();
            errors.add(
                path,
                format!(
                    "its text is no list of hosts ({first}); write one such as: - {{name: db1, address: 10.0.0.5}}"
                ),
            );
            return Err(errors.found);
        }
    };
    let hosts = errors.inventory(&fields, path);
    if errors.found.is_empty() { Ok(hosts) } else { Err(errors.found) }
}

/// An IP address or DNS name in the one form in which it is compared, or why it is none.
fn address(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<core::net::IpAddr>() {
        return Ok(ip.to_canonical().to_string());
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let sound = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
    if name.is_empty() || !name.chars().all(sound) || name.starts_with('-') {
        return Err(format!("{text:?} is neither an IP address nor a DNS name; a port stands in a field of its own"));
    }
    Ok(name)
}

impl Errors {
    pub(super) fn node(&mut self, fields: &NodeFields) -> Option<NodeShape> {
        match (&fields.pod, &fields.virtual_machine, &fields.hosts) {
            (Some(pod), None, None) => self.pod(pod).map(NodeShape::Pod),
            (None, Some(machine), None) => self.virtual_machine(machine).map(NodeShape::VirtualMachine),
            (None, None, Some(hosts)) => Some(NodeShape::Hosts(Box::new(self.hosts(hosts)))),
            _ => {
                let message =
                    "names no kind of node, or more than one; set exactly one of pod, virtualMachine and hosts";
                self.add("spec.node", message);
                None
            }
        }
    }

    fn virtual_machine(&mut self, fields: &VirtualMachineFields) -> Option<VirtualMachineShape> {
        const PATH: &str = "spec.node.virtualMachine.template";
        let template = &fields.template;
        if !template["spec"]["template"]["spec"].is_object() {
            let message = "holds no spec.template.spec, what an instance is made from; write it as in a VirtualMachine";
            self.add(PATH, message);
            return None;
        }
        if let Ok(cloud_init::Own::Secret(name)) = cloud_init::own(template) {
            // Its key is known.
            let path = cloud_init::path(template);
            let path = path.trim_end_matches(".userData");
            self.reference(&format!("{PATH}.{path}.secretRef"), &KeyRef { name, key: "userdata".to_owned() });
        }
        if let Err(problem) = cloud_init::check(template, &fields.user) {
            self.add(format!("{PATH}.{}", problem.path), problem.message);
        }
        let networks = template["spec"]["template"]["spec"]["networks"].as_array();
        let mut names = networks.into_iter().flatten().filter_map(|network| network["name"].as_str());
        if let Some(network) = &fields.network
            && networks.is_some()
            && !names.any(|name| name == network)
        {
            let message = format!("the template has no network {network:?}; name one of spec.template.spec.networks");
            self.add("spec.node.virtualMachine.network", message);
        }
        Some(VirtualMachineShape {
            template: Arc::new(template.clone()),
            hash: short(Digest::of("virtualMachine", &json!([canonical::virtual_machine(template), fields.user]))),
            hash_as_written: short(Digest::of("virtualMachine", &json!([template, fields.user]))),
            user: fields.user.clone(),
            network: fields.network.clone(),
        })
    }

    /// An object that was stored when the schema allowed more is not refused for it.
    fn connect_timeout(&mut self, path: &str, text: &str) -> Duration {
        self.duration(path, text).min(LONGEST_CONNECT)
    }

    fn hosts(&mut self, fields: &HostsFields) -> HostsShape {
        const PATH: &str = "spec.node.hosts";
        for (path, at) in references(fields) {
            self.reference(&format!("{PATH}.{path}"), &at);
        }
        let key = private_key(&fields.key);
        let elevation = fields.elevation.as_ref().map(|fields| Elevation {
            user: fields.user.clone(),
            password: fields.password.as_ref().map(|password| key_ref(&password.secret_key_ref)),
        });
        let access = Access {
            user: fields.user.clone(),
            known_hosts: fields.known_hosts.as_ref().and_then(known_hosts),
            elevation,
            jump: fields.jump.as_ref().and_then(|jump| self.jump(jump, fields, &key)),
            connect_timeout: self.connect_timeout(&format!("{PATH}.connectTimeout"), &fields.connect_timeout),
            key,
        };
        let source = fields.inventory_from.as_ref().map(|from| key_ref(&from.config_map_key_ref));
        let listed = self.inventory(fields.inventory.as_deref().unwrap_or_default(), &format!("{PATH}.inventory"));
        let selector = fields.selector.clone().map_or_else(|| Ok(Selector::default()), Selector::try_from);
        let selector = selector.unwrap_or_else(|error| {
            self.add(format!("{PATH}.selector"), error.to_string());
            Selector::default()
        });
        let mut hosts = HostsShape { inventory: Vec::new(), is_read: true, listed: 0, source, selector, access };
        hosts.take_inventory(&listed);
        hosts
    }

    fn jump(&mut self, fields: &JumpFields, hosts: &HostsFields, key: &KeyRef) -> Option<Hop> {
        const PATH: &str = "spec.node.hosts.jump";
        let mut trust = self.trust(&fields.host_keys, &format!("{PATH}.hostKeys"));
        if trust.is_empty() {
            trust.extend(hosts.known_hosts.as_ref().and_then(known_hosts));
        }
        match address(&fields.address) {
            Ok(address) => Some(Hop {
                address,
                port: fields.port,
                user: fields.user.clone().unwrap_or_else(|| hosts.user.clone()),
                key: fields.key.as_ref().map_or_else(|| key.clone(), private_key),
                trust,
            }),
            Err(message) => {
                self.add(format!("{PATH}.address"), message);
                None
            }
        }
    }

    fn inventory(&mut self, fields: &[HostFields], path: &str) -> Vec<Host> {
        let (mut names, mut places) = (BTreeSet::new(), BTreeMap::new());
        let mut hosts = Vec::new();
        for (at, host) in fields.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let Some(parsed) = self.host(host, &path) else { continue };
            if !names.insert(parsed.name().to_owned()) {
                self.add(format!("{path}.name"), format!("there are two hosts {:?}; rename one", parsed.name()));
            }
            if let Some(other) = places.insert(parsed.place(), parsed.name().to_owned()) {
                let message = format!("{} is {other:?} already; a machine can be one node only", parsed.place());
                self.add(format!("{path}.address"), message);
            }
            hosts.push(parsed);
        }
        hosts
    }

    fn host(&mut self, fields: &HostFields, path: &str) -> Option<Host> {
        // The API server sees to these in a group; in a ConfigMap nobody has yet.
        for (name, text, most) in [
            ("name", Some(&fields.name), 253),
            ("address", fields.address.as_ref(), 253),
            ("user", fields.user.as_ref(), 64),
        ] {
            if text.is_some_and(|text| text.is_empty() || text.chars().count() > most) {
                self.add(format!("{path}.{name}"), format!("must have 1 to {most} characters"));
                return None;
            }
        }
        if fields.port == 0 {
            self.add(format!("{path}.port"), "must be from 1 to 65535");
            return None;
        }
        let trust = self.trust(&fields.host_keys, &format!("{path}.hostKeys"));
        match address(fields.address.as_deref().unwrap_or(&fields.name)) {
            Ok(address) => Some(Host {
                address,
                port: fields.port,
                user: fields.user.clone(),
                trust,
                attributes: Arc::new(Attributes {
                    host: fields.name.clone(),
                    labels: fields.labels.clone(),
                    params: fields.parameters.clone(),
                }),
            }),
            Err(message) => {
                self.add(format!("{path}.address"), message);
                None
            }
        }
    }

    /// Public keys as OpenSSH writes them. Whether they are sound is seen when they are compared.
    fn trust(&mut self, lines: &[String], path: &str) -> Vec<Trust> {
        for (at, line) in lines.iter().enumerate() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            let kind = if first == "@cert-authority" { words.next().unwrap_or_default() } else { first };
            let base64 = |c: char| c.is_ascii_alphanumeric() || ['+', '/', '='].contains(&c);
            let key = words.next().is_some_and(|key| key.len() > 40 && key.chars().all(base64));
            if !KEY_KINDS.contains(&kind) || !key || line.contains('\n') {
                let message = "is no public host key; write the first line of the host's /etc/ssh/ssh_host_ed25519_key.pub, such as: ssh-ed25519 AAAA...";
                self.add(format!("{path}[{at}]"), message);
            }
        }
        lines.iter().cloned().map(Trust::Key).collect()
    }

    fn pod(&mut self, fields: &PodFields) -> Option<PodShape> {
        const PATH: &str = "spec.node.pod.template";
        let template = &fields.template;
        let names: Vec<&str> = template["spec"]["containers"]
            .as_array()
            .map(|list| list.iter().filter_map(|c| c["name"].as_str()).collect())
            .unwrap_or_default();
        let Some(first) = names.first() else {
            self.add(format!("{PATH}.spec.containers"), "holds no container with a name; add one");
            return None;
        };
        let policy = &template["spec"]["restartPolicy"];
        if !policy.is_null() && policy != "Always" {
            self.add(format!("{PATH}.spec.restartPolicy"), "must be Always or left out: a node is meant to stay");
        }
        let annotated = template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let container = fields.container.as_deref().or(annotated).unwrap_or(first);
        if !names.contains(&container) {
            let path = if fields.container.is_some() { "spec.node.pod.container" } else { PATH };
            self.add(path, format!("there is no container {container:?}; the template has {}", names.join(", ")));
        }
        Some(PodShape {
            template: Arc::new(template.clone()),
            hash: short(Digest::of("template", &json!([canonical::pod(template), container]))),
            hash_as_written: short(Digest::of("template", &json!([template, container]))),
            checked_as: short(Digest::of("checked", &json!([template, container, fields.volume_claim_templates]))),
            container: container.to_owned(),
            readiness_gate: fields.readiness_gate,
            service_name: fields.service_name.clone(),
            claims: self.claims(fields),
            retention: fields.persistent_volume_claim_retention_policy,
        })
    }

    fn claims(&mut self, fields: &PodFields) -> Vec<ClaimShape> {
        let mut claims: Vec<ClaimShape> = Vec::new();
        for (place, template) in fields.volume_claim_templates.iter().enumerate() {
            let name = &template.metadata.name;
            if claims.iter().any(|other| other.name == *name) {
                let path = format!("spec.node.pod.volumeClaimTemplates[{place}].metadata.name");
                self.add(path, format!("there are two claims {name:?}; rename one"));
            }
            claims.push(ClaimShape {
                name: name.clone(),
                labels: template.metadata.labels.clone(),
                annotations: template.metadata.annotations.clone(),
                policy: template.claim_policy.unwrap_or_default(),
                spec: Arc::new(template.spec.clone()),
            });
        }
        claims
    }
}
