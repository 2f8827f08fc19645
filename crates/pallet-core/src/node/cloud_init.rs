//! Pure: what a virtual machine is told at its first start, so that it is known from birth: its host key, and who may log in.
//!
//! The user's own user data goes along as it is, whatever kind it is of: a further part of a MIME message, which cloud-init
//! merges by itself. It is looked into only for what would contradict the operator's part.

use data_encoding::{BASE64, BASE64_MIME};
use serde_json::{Value, json};

/// The volume that is added where the template has none with user data.
const VOLUME: &str = "pallet-cloud-init";
/// The key of the user data in the Secret, as KubeVirt looks for it.
pub const USER_DATA_KEY: &str = "userdata";
/// What cloud-init takes from a volume.
const SOURCES: [&str; 2] = ["cloudInitNoCloud", "cloudInitConfigDrive"];
/// Names in the operator's part of which there can be only one.
const OURS: [&str; 3] = ["ssh_keys", "ssh_genkeytypes", "ssh_deletekeys"];

/// What keeps a template's user data from being merged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Problem {
    /// The field, from the template on.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Where the user's own user data is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Own {
    /// There is none.
    None,
    /// In the template.
    Text(String),
    /// In a Secret of the namespace.
    Secret(String),
}

/// What the operator adds.
#[derive(Clone, Copy, Debug)]
pub struct Additions<'a> {
    /// The user that it logs in as.
    pub user: &'a str,
    /// The public key that it logs in with.
    pub authorized_key: &'a str,
    /// The private host key, as OpenSSH writes it.
    pub host_key: &'a str,
    /// The public host key.
    pub host_public_key: &'a str,
}

/// Whether what can be seen in the template can be merged.
///
/// # Errors
/// What cannot.
pub fn check(template: &Value, user: &str) -> Result<(), Problem> {
    match own(template)? {
        Own::Text(text) => refuse_conflicts(&text, user).map_err(|message| Problem { path: path(template), message }),
        Own::None | Own::Secret(_) => Ok(()),
    }
}

/// Where the template's user data is.
///
/// # Errors
/// Where it has more than one, or one that is no text.
pub fn own(template: &Value) -> Result<Own, Problem> {
    let mut found = sources(template);
    let Some((at, source)) = found.next() else { return Ok(Own::None) };
    if let Some((other, _)) = found.next() {
        let message = "there is a second volume with user data for cloud-init; a machine reads one only: take one away";
        return Err(Problem { path: other, message: message.into() });
    }
    if let Some(text) = source["userData"].as_str() {
        return Ok(Own::Text(text.to_owned()));
    }
    if let Some(encoded) = source["userDataBase64"].as_str() {
        let text = BASE64.decode(encoded.trim().as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return text.map(Own::Text).ok_or_else(|| Problem {
            path: format!("{at}.userDataBase64"),
            message: "is no text in base64; compressed user data cannot be merged: write it plain".into(),
        });
    }
    Ok(source["secretRef"]["name"].as_str().map_or(Own::None, |name| Own::Secret(name.to_owned())))
}

/// The volumes of a template with user data, each with its path.
fn sources(template: &Value) -> impl Iterator<Item = (String, &Value)> {
    let volumes = template["spec"]["template"]["spec"]["volumes"].as_array();
    volumes.into_iter().flatten().enumerate().flat_map(|(at, volume)| {
        let of = move |kind: &&str| Some((format!("spec.template.spec.volumes[{at}].{kind}"), volume.get(*kind)?));
        SOURCES.iter().filter_map(of).collect::<Vec<_>>()
    })
}

/// Where the user data of a template is, as text.
pub fn path(template: &Value) -> String {
    sources(template).next().map_or_else(String::new, |(path, _)| format!("{path}.userData"))
}

fn is_message(text: &str) -> bool {
    let head = text.trim_start().get(..13).unwrap_or_default().to_ascii_lowercase();
    head.starts_with("content-type:") || head.starts_with("mime-version:")
}

/// Whether cloud-init takes a text for configuration in YAML, by its beginning and in any case. What only begins alike (an archive,
/// a patch) is of another kind.
fn is_config(text: &str) -> bool {
    const MARK: &str = "#cloud-config";
    let text = text.trim_start();
    text.get(..MARK.len()).is_some_and(|mark| mark.eq_ignore_ascii_case(MARK)) && !text[MARK.len()..].starts_with('-')
}

/// Configuration as it is read to be looked into. Of a key that stands twice the last counts, as for cloud-init, and what is in
/// base64 needs to be no text.
fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        ignore_binary_tag_for_string: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// Why the user's own user data cannot be merged with the operator's, where it cannot.
fn refuse_conflicts(text: &str, user: &str) -> Result<(), String> {
    if !is_config(text) {
        // A script, a template, several parts: what looks as if it set the same is refused all the same.
        let sets = |line: &str| OURS.iter().any(|name| line.trim_start().starts_with(&format!("{name}:")));
        return match text.lines().find(|line| sets(line)) {
            Some(line) => Err(conflict(line.trim())),
            None => Ok(()),
        };
    }
    let own = read(text)
        .map_err(|error| format!("is no YAML: {}; mend it", error.to_string().lines().next().unwrap_or_default()))?;
    if let Some(name) = OURS.iter().find(|name| own.get(**name).is_some()) {
        return Err(conflict(name));
    }
    if user == "root" && own["disable_root"] == true {
        return Err("disable_root keeps the operator out, who logs in as root; take it out, or set spec.node.virtualMachine.user".into());
    }
    let users = match own.get("users") {
        None => &[],
        Some(Value::Array(users)) => users.as_slice(),
        // cloud-init appends to lists only: the operator's user would not be made.
        Some(_) => return Err("users is no list, so that the operator's user cannot be added; write it as one".into()),
    };
    if users.iter().any(|other| other["name"] == user || *other == user) {
        return Err(format!(
            "users names {user:?}, whom the operator makes; rename yours, or set spec.node.virtualMachine.user"
        ));
    }
    Ok(())
}

fn conflict(name: &str) -> String {
    format!("{name} is set by the operator, who gives each machine its host key; take it out")
}

/// The user data of one machine: the operator's part, and behind the user's own where there is any.
///
/// # Errors
/// Why the two contradict each other.
pub fn merge(own: Option<&str>, additions: &Additions) -> Result<String, String> {
    let Some(own) = own.filter(|own| !own.trim().is_empty()) else { return ours(additions, true) };
    refuse_conflicts(own, additions.user)?;
    // Whoever lists users has said whether the image's own is one of them.
    let listed = match is_config(own) {
        true => read(own).is_ok_and(|own| own.get("users").is_some()),
        false => own.lines().any(|line| line.trim_start().starts_with("users:")),
    };
    let ours = ours(additions, !listed)?;
    let mut boundary = "pallet-part".to_owned();
    while own.contains(&boundary) {
        boundary.push('-');
    }
    // cloud-init tells the kind of a part that says text/plain by its first line.
    let kind = "Content-Type: text/plain; charset=\"utf-8\"\n";
    let part = match (is_message(own), own.is_ascii()) {
        (true, _) => own.trim_end().to_owned(),
        (false, true) => format!("{kind}\n{}", own.trim_end()),
        // It takes what stands in a message as it is for ASCII.
        (false, false) => {
            format!("{kind}Content-Transfer-Encoding: base64\n\n{}", BASE64_MIME.encode(own.as_bytes()).trim_end())
        }
    };
    Ok(format!(
        "Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n\
         --{boundary}\n{part}\n\n\
         --{boundary}\nContent-Type: text/cloud-config; charset=\"utf-8\"\n\
         Merge-Type: list(append)+dict(no_replace,recurse_list)+str()\n\n{ours}\n--{boundary}--\n"
    ))
}

/// The operator's part. `with_default` keeps the user that the image has by itself.
fn ours(additions: &Additions, with_default: bool) -> Result<String, String> {
    let Additions { user, authorized_key, host_key, host_public_key } = additions;
    let mut account = json!({"name": user, "ssh_authorized_keys": [authorized_key]});
    if *user != "root" {
        account["lock_passwd"] = true.into();
        account["shell"] = "/bin/sh".into();
        account["sudo"] = "ALL=(ALL) NOPASSWD:ALL".into();
    }
    let mut users = if with_default { vec![json!("default")] } else { Vec::new() };
    users.push(account);
    let mut config = json!({
        "ssh_deletekeys": true,
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_public_key},
        "users": users
    });
    if *user == "root" {
        config["disable_root"] = false.into();
    }
    let text = serde_saphyr::to_string(&config).map_err(|error| error.to_string())?;
    Ok(format!("#cloud-config\n{text}"))
}

/// Has a virtual machine take its user data from a Secret, in place of what stood there.
pub fn attach(machine: &mut Value, secret: &str) {
    let spec = &mut machine["spec"]["template"]["spec"];
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let mut attached = false;
    for volume in &mut volumes {
        for kind in SOURCES {
            let Some(source) = volume.get_mut(kind) else { continue };
            if let Some(source) = source.as_object_mut() {
                source.retain(|name, _| !["userData", "userDataBase64"].contains(&name.as_str()));
                source.insert("secretRef".into(), json!({"name": secret}));
            }
            attached = true;
        }
    }
    if !attached {
        volumes.push(json!({"name": VOLUME, "cloudInitNoCloud": {"secretRef": {"name": secret}}}));
        // Where none is listed KubeVirt has a disk for each volume, in their order: ours must not be the first, to boot from.
        let disks = spec.pointer_mut("/domain/devices/disks").and_then(Value::as_array_mut);
        if let Some(disks) = disks.filter(|disks| !disks.is_empty()) {
            disks.push(json!({"name": VOLUME, "disk": {"bus": "virtio"}}));
        }
    }
    spec["volumes"] = volumes.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDITIONS: Additions = Additions {
        user: "pallet",
        authorized_key: "ssh-ed25519 AAAAlogin",
        host_key: "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n",
        host_public_key: "ssh-ed25519 AAAAhost",
    };

    fn template(source: Value) -> Value {
        json!({"spec": {"template": {"spec": {"domain": {}, "volumes": [{"name": "root"}, {"name": "init", "cloudInitNoCloud": source}]}}}})
    }

    #[test]
    fn without_user_data_the_operators_part_stands_alone() {
        let text = merge(None, &ADDITIONS).unwrap();
        assert!(text.starts_with("#cloud-config\n"), "{text}");
        let parsed: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(parsed["ssh_keys"]["ed25519_private"], ADDITIONS.host_key);
        assert_eq!(parsed["users"][0], "default");
        assert_eq!(parsed["users"][1]["ssh_authorized_keys"][0], ADDITIONS.authorized_key);
        assert!(text.contains("  ed25519_private: |\n    -----BEGIN"), "{text}");
    }

    #[test]
    fn the_users_own_goes_along_as_it_is() {
        let own =
            "#cloud-config\nwrite_files:\n- path: /a\n  permissions: 0644 # octal\nusers: [default, {name: bob}]\n";
        let text = merge(Some(own), &ADDITIONS).unwrap();
        assert!(text.contains(own.trim_end()), "{text}");
        assert_eq!(text.matches("- default").count(), 0, "the user has listed users: {text}");
        let script = merge(Some("#!/bin/sh\necho hello --pallet-part\n"), &ADDITIONS).unwrap();
        assert!(script.contains("boundary=\"pallet-part-\"") && script.contains("- default"), "{script}");
        let parts = "Content-Type: multipart/mixed; boundary=\"x\"\n\n--x\n\n#!/bin/sh\n--x--";
        let nested = merge(Some(parts), &ADDITIONS).unwrap();
        assert!(nested.contains("--pallet-part\nContent-Type: multipart/mixed; boundary=\"x\""), "{nested}");
    }

    /// cloud-init takes what is not ASCII in a part that is not encoded for something else, and drops all of it.
    #[test]
    fn what_is_not_ascii_arrives_as_it_was_written() {
        let own = "#cloud-config\nwrite_files:\n- {path: /a, content: \"Grüße, 5 €\"}\n";
        let text = merge(Some(own), &ADDITIONS).unwrap();
        assert!(text.is_ascii(), "{text}");
        let encoded = text.split("base64\n\n").nth(1).unwrap().split("\n\n--").next().unwrap();
        let decoded = BASE64.decode(encoded.replace(['\r', '\n'], "").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(decoded).unwrap(), own);
    }

    #[test]
    fn what_cloud_init_reads_is_not_refused() {
        let twice = "#cloud-config\nruncmd: [a]\nruncmd: [b]\n";
        let binary = "#cloud-config\nwrite_files:\n- {path: /a, encoding: b64, content: !!binary \"/w==\"}\n";
        for own in [twice, binary] {
            assert_eq!(merge(Some(own), &ADDITIONS).map(|_| ()), Ok(()), "{own}");
        }
        let jinja = "## template: jinja\n#cloud-config\nusers:\n- name: bob\n";
        assert!(!merge(Some(jinja), &ADDITIONS).unwrap().contains("- default"), "they were listed");
    }

    #[test]
    fn what_contradicts_the_operators_part_is_refused() {
        for (own, user, said) in [
            ("#cloud-config\nssh_keys: {rsa_private: x}", "pallet", "ssh_keys is set by the operator"),
            ("#cloud-config\nssh_deletekeys: false", "pallet", "ssh_deletekeys is set by the operator"),
            ("## template: jinja\n#cloud-config\nssh_genkeytypes: [rsa]", "pallet", "ssh_genkeytypes: [rsa] is set"),
            ("#cloud-config\nusers: [{name: pallet}]", "pallet", "users names \"pallet\""),
            ("#cloud-config\ndisable_root: true", "root", "disable_root keeps the operator out"),
            ("#cloud-config\na: [", "pallet", "is no YAML"),
            ("#cloud-config\nusers: {bob: {}}", "pallet", "users is no list"),
            ("#Cloud-Config # ours\nusers: {bob: {}}", "pallet", "users is no list"),
            ("#cloud-config\nusers: bob, alice", "pallet", "users is no list"),
            ("#cloud-config-archive\n- content: |\n    ssh_keys: {}", "pallet", "ssh_keys: {} is set"),
        ] {
            let additions = Additions { user, ..ADDITIONS };
            let error = merge(Some(own), &additions).unwrap_err();
            assert!(error.contains(said), "{error}");
            let problem = check(&template(json!({"userData": own})), user).unwrap_err();
            assert_eq!(problem.path, "spec.template.spec.volumes[1].cloudInitNoCloud.userData");
        }
        assert_eq!(check(&template(json!({"userData": "#cloud-config\ndisable_root: true"})), "pallet"), Ok(()));
    }

    #[test]
    fn user_data_is_found_wherever_it_may_stand() {
        assert_eq!(own(&template(json!({"userData": "a"}))), Ok(Own::Text("a".into())));
        assert_eq!(own(&template(json!({"userDataBase64": "aGk="}))), Ok(Own::Text("hi".into())));
        assert_eq!(own(&template(json!({"secretRef": {"name": "s"}}))), Ok(Own::Secret("s".into())));
        assert_eq!(own(&json!({"spec": {}})), Ok(Own::None));
        let error = own(&template(json!({"userDataBase64": "/w=="}))).unwrap_err();
        assert!(error.path.ends_with("userDataBase64"), "{error}");
        let mut two = template(json!({"userData": "a"}));
        two["spec"]["template"]["spec"]["volumes"][0]["cloudInitConfigDrive"] = json!({"userData": "b"});
        assert!(own(&two).unwrap_err().message.contains("second volume"));
    }

    #[test]
    fn a_machine_takes_it_from_the_secret_and_keeps_what_else_was_there() {
        let mut machine = template(json!({"userData": "a", "networkData": "n"}));
        attach(&mut machine, "web-0-cloud-init");
        let volumes = &machine["spec"]["template"]["spec"]["volumes"];
        assert_eq!(
            volumes[1]["cloudInitNoCloud"],
            json!({"networkData": "n", "secretRef": {"name": "web-0-cloud-init"}})
        );
        let mut bare = json!({"spec": {"template": {"spec": {"domain": {"devices": {"disks": [{"name": "root"}]}}}}}});
        attach(&mut bare, "s");
        let spec = &bare["spec"]["template"]["spec"];
        assert_eq!(spec["volumes"][0]["cloudInitNoCloud"]["secretRef"]["name"], "s");
        assert_eq!(spec["domain"]["devices"]["disks"][1]["name"], spec["volumes"][0]["name"]);
        // KubeVirt has a disk for each volume where none is listed: one that is would come before them all.
        let mut automatic = json!({"spec": {"template": {"spec": {"domain": {}, "volumes": [{"name": "root"}]}}}});
        attach(&mut automatic, "s");
        let spec = &automatic["spec"]["template"]["spec"];
        assert_eq!((spec["volumes"].as_array().unwrap().len(), &spec["domain"]), (2, &json!({})));
    }
}
