//! The generated custom resource definitions: the files under `crds/` are current, and every field is documented and bounded.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use pallet_api::{crds, reference};

#[test]
fn the_files_under_crds_are_what_the_types_say() {
    // Beside them stands what lets kustomize find them.
    assert_holds("crds", crds::files().expect("the definitions can be written as YAML"), &["Kustomization"]);
}

#[test]
fn the_chart_has_the_same_definitions_roles_and_policy() {
    let definitions = crds::chart_files().expect("the definitions can be written as YAML");
    assert_holds("charts/pallet-operator/files/crds", definitions, &[]);
    let copies = [
        ("operator-role.yaml", "deploy/rbac/operator/role.yaml"),
        ("virtual-machines-role.yaml", "deploy/rbac/virtual-machines/role/role.yaml"),
        ("user-roles.yaml", "deploy/rbac/users/roles.yaml"),
        ("admission-policy.yaml", "deploy/admission/policy.yaml"),
    ];
    for (copy, source) in copies {
        let source = std::fs::read_to_string(root().join(source)).expect("the source");
        let kept = std::fs::read_to_string(root().join("charts/pallet-operator/files").join(copy)).unwrap_or_default();
        assert!(kept == source, "charts/pallet-operator/files/{copy} is stale: run make crds");
    }
}

#[test]
fn the_reference_is_what_the_definitions_say() {
    let kept = std::fs::read_to_string(root().join("docs/reference.md")).unwrap_or_default();
    assert!(kept == reference::page(&crds::all()), "docs/reference.md is stale: run make crds");
}

/// Other pages and other people's notes point there.
#[test]
fn every_link_in_the_docs_to_the_reference_leads_somewhere() {
    let page = reference::page(&crds::all());
    let heading =
        |anchor: &str| page.lines().any(|line| line.strip_prefix("## ").is_some_and(|it| it.to_lowercase() == anchor));
    let leads = |anchor: &str| page.contains(&format!("<a id=\"{anchor}\"></a>")) || heading(anchor);
    let mut links = 0;
    let within = page.split("](#").skip(1).map(|rest| ("docs/reference.md".to_owned(), rest.to_owned()));
    let mut all: Vec<_> = within.collect();
    let docs = std::fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("a file of docs").path());
    for path in docs.filter(|path| path.is_file()).chain([root().join("README.md")]) {
        let text = std::fs::read_to_string(&path).expect("a page");
        all.extend(text.split("reference.md#").skip(1).map(|rest| (path.display().to_string(), rest.to_owned())));
    }
    for (page, rest) in all {
        let anchor = rest.split(')').next().unwrap_or_default();
        assert!(leads(anchor), "{page}: nothing has the anchor {anchor}");
        links += 1;
    }
    assert!(links > 20, "only {links} links were looked at");
}

/// Each anchor stands for one field, or a link would lead to another one.
#[test]
fn no_anchor_stands_twice_in_the_reference() {
    let page = reference::page(&crds::all());
    let mut anchors: Vec<_> = page.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = anchors.len();
    anchors.sort_unstable();
    anchors.dedup();
    assert!(all > 80 && anchors.len() == all, "{} of {all} anchors differ", anchors.len());
}

#[test]
fn kustomize_finds_every_definition() {
    let kustomization = std::fs::read_to_string(root().join("crds/Kustomization")).expect("crds/Kustomization");
    for (name, _) in crds::files().expect("the definitions can be written as YAML") {
        assert!(kustomization.contains(&format!("- {name}\n")), "crds/Kustomization does not list {name}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory has these files with this content, and no other but those that are known.
fn assert_holds(directory: &str, files: Vec<(String, String)>, others: &[&str]) {
    for (name, generated) in &files {
        let kept = std::fs::read_to_string(root().join(directory).join(name)).unwrap_or_default();
        assert!(kept == *generated, "{directory}/{name} is stale: run make crds");
    }
    let mut expected: Vec<_> = files.into_iter().map(|(name, _)| name).collect();
    expected.extend(others.iter().map(|&name| name.to_owned()));
    let mut found: Vec<_> = std::fs::read_dir(root().join(directory))
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "a file under {directory} that no type stands for, or one is missing: run make crds");
}

#[test]
fn every_field_says_what_it_is() {
    let undocumented = complaints(|field| {
        (field.schema.description.as_deref().unwrap_or_default().trim().is_empty() && !field.is_item)
            .then_some("has no description")
    });
    assert_eq!(undocumented, Vec::<String>::new());
}

#[test]
fn whatever_can_grow_is_bounded() {
    let unbounded = complaints(|field| {
        let schema = field.schema;
        let rules = schema.x_kubernetes_validations.as_ref().is_some_and(|rules| !rules.is_empty());
        let text = schema.type_.as_deref() == Some("string") || schema.x_kubernetes_int_or_string == Some(true);
        match schema.type_.as_deref() {
            Some("array") if schema.max_items.is_none() => Some("is an array without maxItems"),
            Some("object") if schema.additional_properties.is_some() && schema.max_properties.is_none() => {
                Some("is a map without maxProperties")
            }
            // What users write ends in etcd; what the operator writes it bounds by itself.
            Some("string") if field.in_spec() && schema.max_length.is_none() && schema.enum_.is_none() => {
                Some("is a string of the spec without maxLength")
            }
            _ if text && rules && schema.max_length.is_none() => {
                Some("has CEL rules and no maxLength to bound their cost")
            }
            _ => None,
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

/// The API server warns of formats that it does not know, on every `kubectl apply` of the definitions.
#[test]
fn no_format_is_unknown_to_the_api_server() {
    let known = ["int32", "int64", "double", "date-time"];
    let unknown = complaints(|field| {
        field.schema.format.as_deref().is_some_and(|format| !known.contains(&format)).then_some("has an unknown format")
    });
    assert_eq!(unknown, Vec::<String>::new());
}

/// A null counts as left out, as in the built-in kinds; where it is allowed it would take the place of the default.
#[test]
fn nothing_is_nullable() {
    let nullable = complaints(|field| (field.schema.nullable == Some(true)).then_some("is nullable"));
    assert_eq!(nullable, Vec::<String>::new());
}

/// `kubectl apply` replaces lists as a whole, so a default inside one would make every apply a change.
#[test]
fn no_default_stands_inside_a_list() {
    let defaulted = complaints(|field| {
        (field.path.contains("[]") && field.schema.default.is_some()).then_some("has a default inside a list")
    });
    assert_eq!(defaulted, Vec::<String>::new());
}

/// `metadata.name` and the root aside, the API server puts the field's path before a rule's message.
#[test]
fn every_rule_has_a_message() {
    let silent = complaints(|field| {
        let rules = field.schema.x_kubernetes_validations.as_deref().unwrap_or_default();
        rules
            .iter()
            .any(|rule| rule.message.as_deref().unwrap_or_default().is_empty())
            .then_some("has a rule without a message")
    });
    assert_eq!(silent, Vec::<String>::new());
}

struct Field<'a> {
    path: String,
    schema: &'a JSONSchemaProps,
    is_item: bool,
}

impl Field<'_> {
    fn in_spec(&self) -> bool {
        self.path.contains(".spec.")
    }
}

/// What `check` says of the fields of all definitions, each with its path.
fn complaints(check: impl Fn(&Field) -> Option<&'static str>) -> Vec<String> {
    let mut fields = 0;
    let mut found = Vec::new();
    let definitions = crds::all();
    for crd in &definitions {
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).expect("a schema");
            let root = Field { path: crd.spec.names.kind.clone(), schema, is_item: false };
            walk(&root, &mut |field| {
                fields += 1;
                found.extend(check(field).map(|complaint| format!("{} {complaint}", field.path)));
            });
        }
    }
    assert!(fields > 80, "only {fields} fields were looked at: the walk misses some");
    found
}

fn walk(field: &Field, visit: &mut impl FnMut(&Field)) {
    visit(field);
    for (name, schema) in field.schema.properties.iter().flatten() {
        walk(&Field { path: format!("{}.{name}", field.path), schema, is_item: false }, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &field.schema.items {
        walk(&Field { path: format!("{}[]", field.path), schema, is_item: true }, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(schema)) = &field.schema.additional_properties {
        walk(&Field { path: format!("{}{{}}", field.path), schema, is_item: true }, visit);
    }
}

/// `kubectl explain` shows each description by itself.
#[test]
fn every_field_is_described_in_four_words_or_more() {
    fn walk(path: &str, schema: &serde_json::Value, poor: &mut Vec<String>, seen: &mut usize) {
        for (mark, part) in [("[]", "items"), ("{}", "additionalProperties")] {
            if schema[part].is_object() {
                walk(&format!("{path}{mark}"), &schema[part], poor, seen);
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let words = field["description"].as_str().unwrap_or_default().split_whitespace().count();
            if words < 4 {
                poor.push(format!("{path}: {}", field["description"]));
            }
            *seen += 1;
            walk(&path, field, poor, seen);
        }
    }
    let (mut poor, mut seen) = (Vec::new(), 0);
    for definition in crds::all() {
        let definition = serde_json::to_value(definition).expect("JSON");
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            walk(&format!("{kind}.{part}"), &schema[part], &mut poor, &mut seen);
        }
    }
    assert!(seen > 900, "only {seen} fields were read");
    assert!(poor.is_empty(), "{}", poor.join("\n"));
}
