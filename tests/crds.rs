//! The generated custom resource definitions: the files under `crds/` are current, and every field is described and bounded.

use std::{collections::BTreeSet, fmt::Display, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use pallet_api::{crds, reason, reference};

#[test]
fn the_files_under_crds_are_current() {
    // Kustomize finds the definitions by the file `Kustomization`.
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
fn the_reference_is_current() {
    let kept = std::fs::read_to_string(root().join("docs/reference/api.md")).unwrap_or_default();
    assert!(kept == reference::page(&crds::all()), "docs/reference/api.md is stale: run make crds");
}

#[test]
fn the_page_of_reasons_is_current() {
    let kept = std::fs::read_to_string(root().join("docs/reference/reasons.md")).unwrap_or_default();
    assert!(kept == reason::page(), "docs/reference/reasons.md is stale: run make crds");
}

/// What goes on only when a person does something is Degraded in Argo CD, too.
#[test]
fn the_health_check_for_argo_cd_knows_every_reason_that_needs_a_person() {
    let health = std::fs::read_to_string(root().join("deploy/argocd/health.yaml")).expect("the health checks");
    let list = health.split_once("local stuck = {").expect("a list").1.split_once('}').expect("its end").0;
    let listed: BTreeSet<&str> =
        list.split(',').filter_map(|entry| Some(entry.split_once(" = true")?.0.trim())).collect();
    let expected: BTreeSet<&str> = reason::needing_a_person().map(reason::Reason::as_str).collect();
    assert_eq!(listed, expected);
}

/// Other pages, also outside of this repository, link to the anchors.
#[test]
fn every_link_in_the_docs_to_the_reference_has_an_anchor() {
    let page = reference::page(&crds::all());
    let heading =
        |anchor: &str| page.lines().any(|line| line.strip_prefix("## ").is_some_and(|it| it.to_lowercase() == anchor));
    let leads = |anchor: &str| page.contains(&format!("<a id=\"{anchor}\"></a>")) || heading(anchor);
    let mut links = 0;
    let within = page.split("](#").skip(1).map(|rest| ("docs/reference/api.md".to_owned(), rest.to_owned()));
    let mut all: Vec<_> = within.collect();
    for path in ["how-to", "reference", "explanation"].map(|folder| root().join("docs").join(folder)).iter().flat_map(
        |folder| std::fs::read_dir(folder).expect("a folder of docs").map(|entry| entry.expect("a page").path()),
    ) {
        let text = std::fs::read_to_string(&path).expect("a page");
        all.extend(text.split("api.md#").skip(1).map(|rest| (path.display().to_string(), rest.to_owned())));
    }
    for (page, rest) in all {
        let anchor = rest.split(')').next().unwrap_or_default();
        assert!(leads(anchor), "{page}: nothing has the anchor {anchor}");
        links += 1;
    }
    assert!(links > 20, "only {links} links were checked");
}

/// Each anchor identifies one field.
#[test]
fn every_anchor_of_the_reference_is_unique() {
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

/// Asserts that the directory has these files with this content, and no files but these and `others`.
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
    assert_eq!(found, expected, "{directory} has a file that no type generates, or lacks one: run make crds");
}

/// `kubectl explain` shows each description without its context.
#[test]
fn every_field_is_described_in_four_words_or_more() {
    let short = complaints(|field| {
        let description = field.schema.description.as_deref().unwrap_or_default();
        (!field.is_item && description.split_whitespace().count() < 4)
            .then(|| format!("is described as {description:?}"))
    });
    assert!(short.is_empty(), "{}", short.join("\n"));
}

/// Words that this project once used in a sense of its own. The texts of the API use those of Kubernetes instead.
const PRIVATE_WORDS: &[&str] = &[
    "stand",
    "stands",
    "stood",
    "standing",
    "standings",
    "stranger",
    "strangers",
    "farewell",
    "farewells",
    "stray",
    "strays",
    "seal",
    "seals",
    "sealed",
    "witness",
    "witnesses",
    "receipt",
    "receipts",
    "mend",
    "mends",
    "mended",
    "remedy",
    "remedies",
    "heal",
    "heals",
    "healed",
    "trouble",
    "troubles",
    "at work",
    "let go",
    "lets go",
    "come round",
    "comes round",
    "take for",
    "takes for",
    "taken for",
    "has leave",
    "have leave",
    "had leave",
    "no leave",
    "needs leave",
    "asks leave",
    "gives leave",
    "given leave",
    "without leave",
    "leave to",
    "leave is",
    "leave for",
    "the leave",
];

/// The private words of a text, outside of code spans.
fn private_words(text: &str) -> Vec<&'static str> {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" | ").to_lowercase();
    let words: Vec<&str> =
        prose.split(|c: char| !c.is_alphanumeric() && c != '|').filter(|word| !word.is_empty()).collect();
    let prose = format!(" {} ", words.join(" "));
    PRIVATE_WORDS.iter().copied().filter(|word| prose.contains(&format!(" {word} "))).collect()
}

#[test]
fn no_description_or_message_has_a_private_word() {
    let found = complaints(|field| {
        let rules = field.schema.x_kubernetes_validations.iter().flatten();
        let texts = field.schema.description.iter().chain(rules.filter_map(|rule| rule.message.as_ref()));
        let found: Vec<String> = texts
            .filter(|text| !private_words(text).is_empty())
            .map(|text| format!("has {:?} in {text:?}", private_words(text)))
            .collect();
        (!found.is_empty()).then(|| found.join("; "))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn private_words_are_found_as_whole_words_outside_of_code() {
    assert_eq!(private_words("It stands in\nthe status."), ["stands"]);
    assert_eq!(private_words("The group is at\n  work; it has leave."), ["at work", "has leave"]);
    assert_eq!(private_words("`witness` and `status.receipts`, standard, sealing wax, actions leave files"), [""; 0]);
}

#[test]
fn every_list_map_and_string_is_bounded() {
    let unbounded = complaints(|field| {
        let schema = field.schema;
        let rules = schema.x_kubernetes_validations.as_ref().is_some_and(|rules| !rules.is_empty());
        let text = schema.type_.as_deref() == Some("string") || schema.x_kubernetes_int_or_string == Some(true);
        match schema.type_.as_deref() {
            Some("array") if schema.max_items.is_none() => Some("is an array without maxItems"),
            Some("object") if schema.additional_properties.is_some() && schema.max_properties.is_none() => {
                Some("is a map without maxProperties")
            }
            // Users fill the spec, which etcd stores. The operator bounds what it writes.
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

/// The API server warns of unknown formats at every `kubectl apply` of the definitions.
#[test]
fn no_format_is_unknown_to_the_api_server() {
    let known = ["int32", "int64", "double", "date-time"];
    let unknown = complaints(|field| {
        field.schema.format.as_deref().is_some_and(|format| !known.contains(&format)).then_some("has an unknown format")
    });
    assert_eq!(unknown, Vec::<String>::new());
}

/// A null counts as absent, as in the built-in kinds. A nullable field would keep it instead of the default.
#[test]
fn nothing_is_nullable() {
    let nullable = complaints(|field| (field.schema.nullable == Some(true)).then_some("is nullable"));
    assert_eq!(nullable, Vec::<String>::new());
}

/// `kubectl apply` replaces lists as a whole, so a default inside one would make every apply a change.
#[test]
fn no_default_is_inside_a_list() {
    let defaulted = complaints(|field| {
        (field.path.contains("[]") && field.schema.default.is_some()).then_some("has a default inside a list")
    });
    assert_eq!(defaulted, Vec::<String>::new());
}

/// The API server puts the path of the field before the message of a rule, except for `metadata.name` and the root.
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

/// The complaints of `check` about the fields of all definitions, each with the path of its field.
fn complaints<T: Display>(check: impl Fn(&Field) -> Option<T>) -> Vec<String> {
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
    assert!(fields > 1000, "the walk visited only {fields} fields");
    found
}

/// Visits a field and those below it. The fields of pod templates and the like have no schema here.
fn walk(field: &Field, visit: &mut impl FnMut(&Field)) {
    visit(field);
    if field.schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
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
