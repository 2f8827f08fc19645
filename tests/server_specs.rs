//! The ServerSpecs under `deploy/crates`, without a cluster: they can be used as their README says.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use pallet_operator::{
    api::{GroupSpec, ServerSpec},
    group::resolve,
};
use serde_json::json;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/crates")
}

fn readme() -> String {
    std::fs::read_to_string(directory().join("README.md")).expect("the README")
}

fn specs() -> BTreeMap<String, Arc<ServerSpec>> {
    let files = std::fs::read_dir(directory()).expect("deploy/crates").map(|entry| entry.expect("an entry").path());
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
