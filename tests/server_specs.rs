//! The ServerSpecs under `deploy/server-specs`, without a cluster: they can be used as their README says.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use pallet_api::{GroupSpec, ServerSpec};
use pallet_core::{
    group::resolve,
    phase::{budget::Budget, expect},
};
use serde_json::{Value, json};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/server-specs")
}

fn readme() -> String {
    std::fs::read_to_string(directory().join("README.md")).expect("the README")
}

fn specs() -> BTreeMap<String, Arc<ServerSpec>> {
    let files =
        std::fs::read_dir(directory()).expect("deploy/server-specs").map(|entry| entry.expect("an entry").path());
    let specs = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).map(|path| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let spec: ServerSpec = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        (path.file_stem().expect("a name").to_string_lossy().into_owned(), Arc::new(spec))
    });
    let specs: BTreeMap<_, _> = specs.collect();
    assert!(specs.len() >= 7, "{:?}", specs.keys());
    specs
}

#[test]
fn each_stands_in_the_file_of_its_name_and_says_what_it_is_for() {
    for (file, spec) in specs() {
        assert_eq!(spec.metadata.name.as_deref(), Some(file.as_str()));
        assert!(!spec.spec.description.is_empty(), "{file}");
        assert!(spec.spec.default_phases.contains(&"test".to_owned()), "{file} tests what it does");
    }
}

#[test]
fn the_readme_has_every_parameter_under_the_heading_of_its_server_spec() {
    let readme = readme();
    for (name, spec) in specs() {
        let section = readme.split("\n## ").find(|section| section.starts_with(&format!("{name}\n")));
        let section = section.unwrap_or_else(|| panic!("the README has no heading {name}"));
        for (parameter, fields) in &spec.spec.parameters {
            assert!(!fields.description.is_empty(), "{name}: {parameter}");
            let row = |line: &&str| line.starts_with("| `") && line.contains(&format!("`{parameter}`"));
            let row = section.lines().find(row).unwrap_or_else(|| panic!("the README lacks {name}'s {parameter}"));
            assert_eq!(row.contains("| required |"), fields.required, "{name}: {parameter}");
        }
    }
}

#[test]
fn the_groups_of_the_readme_can_be_applied_and_use_every_one_of_them() {
    let (readme, specs) = (readme(), specs());
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let groups: Vec<GroupSpec> = serde_saphyr::from_multiple(example).expect("YAML");
    let mut used: Vec<String> = Vec::new();
    for mut group in groups {
        group.metadata.namespace = Some("shop".into());
        group.metadata.uid = Some("u".into());
        let phases = resolve::resolve(&group, &specs).unwrap_or_else(|errors| panic!("{errors:#?}")).phases;
        let names: Vec<&str> = phases.sequence.iter().map(|phase| phase.as_str()).collect();
        assert_eq!(names, ["init", "install", "configure", "test"]);
        used.extend(group.spec.extends.into_iter().map(|extend| extend.server_spec));
    }
    used.sort();
    used.dedup();
    assert_eq!(used, specs.keys().cloned().collect::<Vec<_>>());
}

/// So that any two may be extended together.
#[test]
fn all_of_them_go_together_and_what_two_of_them_ask_for_is_asked_once() {
    let specs = specs();
    let with = |name: &str| match name {
        "admin-user" => json!({"key": "k"}),
        "java-app" => json!({"url": "https://example.com/app.jar", "sha256": "00"}),
        "postgresql" => json!({"database": "d", "role": "r", "secret": "s"}),
        _ => json!({}),
    };
    let extends: Vec<_> = specs.keys().map(|name| json!({"serverSpec": name, "with": with(name)})).collect();
    let group = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "all", "namespace": "shop", "uid": "u"},
        "spec": {"extends": extends, "node": {"pod": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}}}
    }));
    let group = resolve::resolve(&group.expect("a GroupSpec"), &specs).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let ports = group.phases.settings.facts.iter().filter(|fact| fact.name == "listeningPorts").count();
    assert_eq!(ports, 1);
}

/// A directory of a test's own, which is gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Runs a script as a phase does, with the commands in `bin` before all others.
    fn run(&self, script: &str) -> (Option<i32>, String) {
        let path = format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.0.display());
        let output = Command::new("sh").args(["-ec", script]).env("PATH", path).output().expect("sh");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keys of others come to more than a fact holds, and not every file ends with a newline.
#[test]
fn the_admin_is_found_among_users_with_other_keys() {
    let spec = specs()["admin-user"].spec.clone();
    let script = spec.phases["settings"]
        .facts
        .iter()
        .find(|fact| fact.name == "admins")
        .and_then(|fact| fact.exec.clone())
        .expect("a script");
    let that = &spec.phases["test"].expect[0].expression;
    let scratch = Scratch::new("admins");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq1n5BU0XJk9cB3yuMVNXBqPNsJVHcWNCkVWJRXRPTJ jane of the house";
    let rsa = |n: usize| format!("ssh-rsa AAAAB3NzaC1yc2E{}== other\n", format!("{n:04}").repeat(180));
    let mut users = String::new();
    for (name, keys) in [
        ("first", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIfirst0000000000000000000000000000000000000 first".to_owned()),
        ("second", (0..40).map(rsa).collect()),
        ("commented", "# none\n".to_owned()),
        ("jane", format!("# of the fleet\nfrom=\"10.0.0.1\" {key}\n")),
        ("last", rsa(7)),
    ] {
        scratch.put(&format!("home/{name}/.ssh/authorized_keys"), &keys);
        users += &format!("{name}:x:1000:1000::{}/home/{name}:/bin/sh\n", scratch.0.display());
    }
    scratch.put("users", &users);
    scratch.put("bin/getent", &format!("#!/bin/sh\ncat {}/users\n", scratch.0.display()));
    scratch.put("bin/sudo", "#!/bin/sh\necho '    (ALL) NOPASSWD: ALL'\n");
    let (code, fact) = scratch.run(&script);
    assert!(code == Some(0) && fact.len() < 1024, "{fact}");
    let admins: Value = serde_json::from_str(&fact).unwrap_or_else(|error| panic!("{error}: {fact}"));
    let holds = |user: &str, key: &str| {
        let roots = json!({"params": {"user": user, "key": key}, "facts": {"admins": admins}});
        expect::holds(that, &|root| roots.get(root), &Budget::new())
    };
    assert_eq!(holds("jane", key), Ok(true), "{fact}");
    assert_eq!(holds("jane", &format!("from=\"10.0.0.1\" {key}")), Ok(true));
    assert_eq!(holds("last", &rsa(7)), Ok(true));
    assert_eq!(holds("last", key), Ok(false));
    assert_eq!(holds("nobody", key), Ok(false));
    assert_eq!(holds("commented", key), Ok(false));
    let roots = json!({"params": {"user": "jane", "key": key}, "facts": {"admins": null}});
    let none = expect::holds(that, &|root| roots.get(root), &Budget::new());
    assert_eq!(none, Ok(false));
}

/// sshd takes the first of two settings, and comments are none.
#[test]
fn the_settings_of_sshd_come_before_all_else() {
    let spec = specs()["hardening"].spec.clone();
    let order =
        spec.phases["configure"].actions.iter().find(|action| action.name.as_deref() == Some("order of sshd settings"));
    let exec = order.and_then(|action| action.exec.clone()).expect("a script");
    let scratch = Scratch::new("sshd");
    let there = |text: &str| {
        text.replace("/etc/ssh/sshd_config ", &format!("{}/c ", scratch.0.display()))
            .replace("/etc/ssh/sshd_config\n", &format!("{}/c\n", scratch.0.display()))
    };
    let (unless, script) = (there(&exec.unless.expect("a guard")), there(&format!("{}\n", exec.script.trim_end())));
    const INCLUDE: &str = "Include /etc/ssh/sshd_config.d/*.conf\n";
    for (before, after) in [
        ("# Port 22\n\nInclude /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n", None),
        (
            "PermitRootLogin yes\n#PermitRootLogin no\n",
            Some(format!("{INCLUDE}PermitRootLogin yes\n#PermitRootLogin no\n")),
        ),
        ("#Include /etc/ssh/sshd_config.d/*.conf\nPort 22\n", Some(format!("{INCLUDE}#{INCLUDE}Port 22\n"))),
        ("Port 22\n include \"/etc/ssh/sshd_config.d/*.conf\"\n", Some(format!("{INCLUDE}Port 22\n"))),
    ] {
        scratch.put("c", before);
        assert_eq!(scratch.run(&unless).0 == Some(0), after.is_none(), "{before}");
        let Some(after) = after else { continue };
        assert_eq!(scratch.run(&script).0, Some(0));
        assert_eq!(fs::read_to_string(scratch.0.join("c")).expect("the file"), after);
        assert_eq!(scratch.run(&unless).0, Some(0), "{after}");
    }
}
