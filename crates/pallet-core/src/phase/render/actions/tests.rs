use super::*;
use crate::phase::{action::PackageOptions, render::tests::context};

fn exec(script: &str) -> ActionKind {
    ActionKind::Exec { script: script.into(), creates: None, unless: None, only_if: None, secret_env: Vec::new() }
}

fn rendered(actions: &[Action], chosen: bool, context: &Context) -> Rendered {
    phase(&PhaseName::configure(), actions, "", chosen, context).unwrap()
}

#[test]
fn the_digest_follows_what_runs_and_not_its_name() {
    let digest = |action: Action| rendered(&[action], true, &context()).digest;
    assert_eq!(digest(Action::new("a", exec("echo {{ node.ordinal }}"))), digest(Action::new("b", exec("echo 1"))));
    assert_ne!(digest(Action::new("a", exec("echo 1"))), digest(Action::new("a", exec("echo 2"))));
}

#[test]
fn what_is_not_for_a_node_is_skipped_and_does_not_count() {
    let plain = Action::new("a", exec("echo 1"));
    let other = |when: &str| Action { when: Some(when.into()), ..Action::new("b", exec("echo {{ facts.gone }}")) };
    let alone = rendered(std::slice::from_ref(&plain), true, &context()).digest;
    let both = rendered(&[plain.clone(), other("node.ordinal == 7")], true, &context());
    assert_eq!((both.digest, both.calls[1].skipped), (alone.clone(), true));
    let elsewhere = Action { on_one_node: true, ..plain.clone() };
    let left_out = rendered(&[plain.clone(), elsewhere.clone()], false, &context());
    assert_eq!((left_out.digest, left_out.calls[1].skipped), (alone.clone(), true));
    assert_ne!(rendered(&[plain.clone(), elsewhere], true, &context()).digest, alone);
    let error = phase(&PhaseName::configure(), &[other("node.ordinal == 1")], "", true, &context()).unwrap_err();
    assert!(error.to_string().contains("null"), "{error}");
    let error = phase(&PhaseName::configure(), &[other("node.ordinal")], "", true, &context()).unwrap_err();
    assert!(error.to_string().contains("neither true nor false"), "{error}");
}

#[test]
fn what_changes_by_itself_decides_whether_an_action_runs_and_not_whether_the_phase_does() {
    let action = Action { when: Some("facts.disk.freePercent < 10".into()), ..Action::new("a", exec("clean")) };
    let with = |percent: u32| {
        let mut context = context();
        context.whole.insert("disk".into(), json!({"freePercent": percent}));
        rendered(std::slice::from_ref(&action), true, &context)
    };
    let (full, empty) = (with(5), with(50));
    assert_eq!(full.digest, empty.digest);
    assert_eq!((full.calls[0].skipped, empty.calls[0].skipped), (false, true));
}

#[test]
fn names_paths_and_addresses_are_checked_once_they_are_filled_in() {
    let refused = |kind: ActionKind| {
        phase(&PhaseName::configure(), &[Action::new("a", kind)], "", true, &context()).unwrap_err().to_string()
    };
    let remote = |url: &str, sum: &str| ActionKind::RemoteFile {
        path: "/a".into(),
        url: url.into(),
        sha256: sum.into(),
        secret_headers: Vec::new(),
        mode: "644".into(),
        owner: None,
        group: None,
    };
    assert!(refused(remote("ftp://x", &"0".repeat(64))).contains("must begin with https://"));
    assert!(refused(remote("https://x", "abc")).contains("64 hexadecimal digits"));
    let group =
        |name: &str| ActionKind::UserGroup { name: name.into(), gid: None, system: false, state: Presence::Present };
    assert!(refused(group("-x")).contains("no name of a user or group"));
}

#[test]
fn the_texts_of_a_phase_have_a_bound_in_all() {
    let exec = || ActionKind::Exec {
        script: "echo {{ 'x' * 60000 }}{{ 'x' * 60000 }}".into(),
        creates: None,
        unless: None,
        only_if: None,
        secret_env: Vec::new(),
    };
    let actions: Vec<_> = (0..80).map(|n| Action::new(format!("a{n}"), exec())).collect();
    let error = phase(&PhaseName::configure(), &actions, "", true, &context()).unwrap_err();
    assert!(error.to_string().contains("more than 8 MiB in all"), "{error}");
}

/// A changed digest runs every phase of every user again.
#[test]
fn new_fields_count_for_the_digest_only_where_they_are_set() {
    let package = |options| ActionKind::Package {
        names: vec!["less".into()],
        state: PackageState::Present,
        options,
        manager: "apt".into(),
    };
    let plain = package(PackageOptions::default());
    assert_eq!(kind_model(&plain), json!({"package": {"names": ["less"], "manager": "apt"}}));
    let model = |action: &Action| super::model(action);
    let purged = package(PackageOptions { purge: true, ..PackageOptions::default() });
    assert_ne!(kind_model(&plain), kind_model(&purged));
    let with = Action { env: vec![("A".into(), "b".into())], ..Action::new("a", plain.clone()) };
    assert_ne!(model(&with), model(&Action::new("a", plain)));
    let service = ActionKind::Service {
        name: "web".into(),
        state: None,
        enabled: Some(true),
        masked: None,
        manager: "systemd".into(),
    };
    assert_eq!(kind_model(&service), json!({"service": {"name": "web", "enabled": true, "manager": "systemd"}}));
}

#[test]
fn new_fields_that_are_not_set_and_modes_at_their_default_do_not_count() {
    let file = |mode: &str| ActionKind::File {
        path: "/a".into(),
        content: "x".into(),
        mode: mode.into(),
        owner: None,
        group: None,
    };
    let line = ActionKind::LineInFile {
        path: "/a".into(),
        line: Some("x".into()),
        matches: Some("^x".into()),
        insert_after: None,
        insert_before: None,
        first: false,
        state: Presence::Present,
        create: false,
    };
    let sudoer = ActionKind::Sudoer {
        name: "bob".into(),
        rule: None,
        run_as: "ALL".into(),
        commands: vec!["/bin/true".into()],
        no_password: true,
        state: Presence::Present,
    };
    let models = [kind_model(&file("")), kind_model(&file("644")), kind_model(&line), kind_model(&sudoer)];
    let known = json!({"file": {"path": "/a", "content": "x"}});
    assert_eq!(models[0], known);
    assert_eq!(models[1], known);
    assert_eq!(models[2], json!({"lineInFile": {"path": "/a", "line": "x", "match": "^x"}}));
    let rule = json!({"name": "bob", "runAs": "ALL", "commands": ["/bin/true"], "noPassword": true});
    assert_eq!(models[3], json!({"sudoer": rule}));
}

#[test]
fn what_is_filled_in_late_is_checked_then() {
    let refused = |kind: ActionKind| {
        phase(&PhaseName::configure(), &[Action::new("a", kind)], "", true, &context()).unwrap_err().to_string()
    };
    let line = ActionKind::LineInFile {
        path: "/a".into(),
        line: Some("x".into()),
        matches: Some("^{{ '\\\\d' }}".into()),
        insert_after: None,
        insert_before: None,
        first: false,
        state: Presence::Present,
        create: false,
    };
    assert!(refused(line).contains("write [0-9]"));
    let gone = |path: &str| ActionKind::Removal { what: Removed::Directory, path: path.into() };
    assert!(refused(gone("{{ '/etc' }}")).contains("at least two parts"));
    let owned =
        ActionKind::Directory { path: "/a".into(), mode: None, owner: Some("{{ facts.hostile }}".into()), group: None };
    assert!(refused(owned).contains("is no owner or group"));
}
