//! What every kind of action promises: a look before says Changed and changes nothing, the first run changes, a look and a
//! run after it find nothing to do. All under directories of the node's own, laid over those of the machine.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use pallet_api::{
    actions::{PackageState, Presence, ServiceState},
    group_node::Effect::{Changed, Unchanged},
};
use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::{AptSource, PackageOptions, User},
        compile,
        render::{Call, Rendered},
    },
    session::frame::{Ended, Verdict},
};

use crate::{
    actions::effects,
    managers,
    node::{Agent, Node, Shell},
};

under_every_shell! {
    every_kind_keeps_its_promises
    a_change_of_a_public_file_shows
    what_not_everybody_may_read_never_shows
    a_file_is_made_where_nobody_else_can_meddle
    a_file_needs_no_tools_to_compare
}

/// What the operator sends for one action.
pub fn only(kind: &ActionKind) -> Rendered {
    let calls = vec![Call::new("it", kind.clone())];
    Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() }
}

pub fn check(agent: &mut Agent, kind: &ActionKind) -> Ended {
    agent.run(&compile::check(&only(kind), false))
}

pub fn apply(agent: &mut Agent, kind: &ActionKind) -> Ended {
    agent.run(&compile::phase(&only(kind), 0))
}

/// A node with an /etc and an /srv of its own, which are its directories `etc` and `srv`. Stand-ins for package and service
/// managers and, where the machine has them, the real tools for users.
pub fn rooted(shell: Shell, commands: &[(&str, &str)]) -> Node {
    let mut node = managers::node(shell, commands);
    let copied = Command::new("cp").args(["-a", "/etc"]).arg(node.file("etc")).status().unwrap();
    assert!(copied.success());
    for gone in ["sudoers.d", "cron.d", "crontabs", "apt", "yum.repos.d", "apk"] {
        let _ = fs::remove_dir_all(node.file("etc").join(gone));
    }
    fs::create_dir(node.file("srv")).unwrap();
    let bind = |name: &str| format!("mount --bind '{}' /{name}", node.file(name).display());
    let setup = [bind("etc"), bind("srv")].join("\n");
    node.namespace = Some(setup);
    let sbin = node.path.take().unwrap() + ":/usr/sbin:/sbin";
    node.path = Some(sbin);
    node
}

/// Takes tools from the machine; those of busybox's own sh are not to be had.
pub fn without(node: &mut Node, tools: &[&str]) {
    let bin = node.file("tools");
    fs::create_dir(&bin).unwrap();
    for dir in ["/usr/bin", "/usr/sbin"] {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if !tools.iter().any(|tool| entry.file_name() == *tool) {
                let _ = symlink(entry.path(), bin.join(entry.file_name()));
            }
        }
    }
    node.path = Some(bin.display().to_string());
}

/// Everything below a directory that a look must leave: names, contents, modes, owners, times.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let content = if data.is_file() {
            fs::read(&path).unwrap()
        } else if data.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        };
        let times = (data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec());
        let owner = (data.uid(), data.gid(), data.mode());
        let mut hash = DefaultHasher::new();
        content.hash(&mut hash);
        found.push(format!("{} {} {owner:?} {times:?} {:x}", path.display(), data.ino(), hash.finish()));
    }
    found.sort();
    found
}

fn put(node: &Node, name: &str, content: &str) {
    let path = node.file(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub fn line(path: &str, line: Option<&str>, matches: Option<&str>, state: Presence) -> ActionKind {
    ActionKind::LineInFile {
        path: path.into(),
        line: line.map(Into::into),
        matches: matches.map(Into::into),
        insert_after: None,
        insert_before: None,
        first: false,
        state,
        create: false,
    }
}

pub fn user(name: &str) -> User {
    User {
        name: name.into(),
        uid: None,
        group: None,
        groups: Vec::new(),
        home: None,
        shell: None,
        comment: None,
        system: false,
        authorized_keys: None,
        state: Presence::Present,
    }
}

pub fn source(manager: &str, state: Presence) -> ActionKind {
    let apt = AptSource {
        uri: "https://deb.example".into(),
        suite: "stable".into(),
        components: vec!["main".into()],
        key: Some("KEY\n".into()),
        trusted: false,
    };
    ActionKind::PackageSource {
        name: "example".into(),
        apt: Some(apt),
        dnf: Some(("https://rpm.example".into(), Some("KEY\n".into()))),
        apk: Some("https://apk.example/main".into()),
        state,
        manager: manager.into(),
    }
}

pub fn cron(name: &str, state: Presence) -> ActionKind {
    ActionKind::Cron {
        name: name.into(),
        schedule: "30 2 * * *".into(),
        user: "root".into(),
        command: "date '+%F' >>/var/log/it".into(),
        state,
    }
}

pub fn sudoer(name: &str, state: Presence) -> ActionKind {
    ActionKind::Sudoer {
        name: name.into(),
        rule: None,
        run_as: "ALL".into(),
        commands: vec!["/bin/true".into(), "/bin/id -u".into()],
        no_password: true,
        state,
    }
}

const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// One action of each kind, or more where it has more than one way, each with something to do.
fn kinds(node: &Node) -> Vec<(&'static str, ActionKind)> {
    use Presence::{Absent, Present};
    put(node, "srv/conf", "one\ntwo\n");
    put(node, "srv/gone", "x\n");
    fs::create_dir(node.file("srv/set-group-id")).unwrap();
    fs::set_permissions(node.file("srv/set-group-id"), fs::Permissions::from_mode(0o2755)).unwrap();
    put(node, "srv/empty", "");
    put(node, "etc/yum.repos.d/example.repo", "x");
    fs::create_dir_all(node.file("etc/apt/sources.list.d")).unwrap();
    put(node, "etc/apk/repositories", "https://old.example\n");
    fs::create_dir_all(node.file("etc/cron.d")).unwrap();
    fs::create_dir_all(node.file("etc/sudoers.d")).unwrap();
    put(node, "db/old", "1\n");
    put(node, "running/busy", "");
    let home = node.file("home");
    let exec = |script: &str, creates: &str| ActionKind::Exec {
        script: script.into(),
        creates: Some(creates.into()),
        unless: None,
        only_if: None,
        secret_env: Vec::new(),
    };
    let file = |path: &str, owner: Option<&str>| ActionKind::File {
        path: path.into(),
        content: "content\n".into(),
        mode: "640".into(),
        owner: owner.map(Into::into),
        group: owner.map(Into::into),
    };
    let directory = |path: &str, mode: Option<&str>, owner: Option<&str>| ActionKind::Directory {
        path: path.into(),
        mode: mode.map(Into::into),
        owner: owner.map(Into::into),
        group: None,
    };
    let package = |manager: &str, state: PackageState, name: &str| ActionKind::Package {
        names: vec![name.into()],
        state,
        options: PackageOptions::default(),
        manager: manager.into(),
    };
    let service = |manager: &str, name: &str, state: Option<ServiceState>, enabled: Option<bool>| ActionKind::Service {
        name: name.into(),
        state,
        enabled,
        masked: None,
        manager: manager.into(),
    };
    let group =
        |name: &str, gid: Option<u32>, state| ActionKind::UserGroup { name: name.into(), gid, system: false, state };
    let keyed = User {
        uid: Some(4321),
        groups: vec!["games".into(), "its-group".into()],
        home: Some(format!("{}/it's home", home.display())),
        shell: Some("/bin/sh".into()),
        comment: Some("It's me".into()),
        authorized_keys: Some(vec!["ssh-ed25519 AAAA it".into()]),
        ..user("its-user")
    };
    let moved = User { uid: Some(4322), groups: vec!["users".into()], comment: Some("You".into()), ..keyed.clone() };
    let rekeyed = User { authorized_keys: Some(Vec::new()), ..moved.clone() };
    let left = User { state: Absent, ..user("its-user") };
    let user = |user: User| ActionKind::User(Box::new(user));
    let mut all = vec![
        ("a script", exec("touch /srv/made", "/srv/made")),
        ("a new file", file("/srv/new", None)),
        ("a changed file", file("/srv/conf", None)),
        ("an owner by name", file("/srv/conf", Some("games"))),
        ("an owner by number", file("/srv/conf", Some("77"))),
        ("a new directory", directory("/srv/a b/c", None, None)),
        ("a mode", directory("/srv/a b/c", Some("1777"), None)),
        ("a directory that would inherit", directory("/srv/set-group-id/new", Some("755"), None)),
        ("the owner of a directory", directory("/srv/a b/c", None, Some("games"))),
        ("a new link", ActionKind::Symlink { path: "/srv/link".into(), target: "conf".into() }),
        ("a link", ActionKind::Symlink { path: "/srv/link".into(), target: "gone".into() }),
        ("a new line", line("/srv/gone", Some("it's new"), None, Present)),
        ("a changed line", line("/srv/gone", Some("it was new"), Some("new$"), Present)),
        ("a line that goes", line("/srv/gone", Some("x"), None, Absent)),
        (
            "a download",
            ActionKind::RemoteFile {
                path: "/srv/downloaded".into(),
                url: "file:///srv/empty".into(),
                sha256: NOTHING.into(),
                secret_headers: Vec::new(),
                mode: "755".into(),
                owner: Some("games".into()),
                group: None,
            },
        ),
        ("apt, present", package("apt", PackageState::Present, "new")),
        ("apt, latest", package("apt", PackageState::Latest, "old")),
        ("apt, absent", package("apt", PackageState::Absent, "new")),
        ("apk, present", package("apk", PackageState::Present, "new")),
        ("apk, latest", package("apk", PackageState::Latest, "older")),
        ("apk, absent", package("apk", PackageState::Absent, "new")),
        ("a source for apt", source("apt", Present)),
        ("none for apt", source("apt", Absent)),
        ("a source for dnf", source("dnf", Present)),
        ("none for yum", source("yum", Absent)),
        ("a source for apk", source("apk", Present)),
        ("none for apk", source("apk", Absent)),
        ("a new group", group("its-group", None, Present)),
        ("a number of a group", group("its-group", Some(4321), Present)),
        ("a new user", user(keyed)),
        ("a changed user", user(moved)),
        ("other keys", user(rekeyed)),
        ("no user", user(left)),
        ("no group", group("its-group", None, Absent)),
        ("a sudoer", sudoer("%it.s", Present)),
        ("no sudoer", sudoer("%it.s", Absent)),
        ("a job", cron("it-s", Present)),
        ("no job", cron("it-s", Absent)),
    ];
    put(node, "etc/init.d/sysv", "");
    fs::create_dir_all(node.file("etc/rc2.d")).unwrap();
    for manager in ["systemd", "openrc", "sysv"] {
        all.push(("a service that starts", service(manager, manager, Some(ServiceState::Started), Some(true))));
        all.push((
            "a service to reload that does not run",
            service(manager, &format!("idle-{manager}"), Some(ServiceState::Reloaded), None),
        ));
        all.push(("a service that stops", service(manager, manager, Some(ServiceState::Stopped), Some(false))));
    }
    // Busybox's sh takes its own applet called rpm before any command of that name.
    if node.shell != Shell::Busybox {
        all.push(("dnf, present", package("dnf", PackageState::Present, "newest")));
        all.push(("yum, latest", package("yum", PackageState::Latest, "oldest")));
        all.push(("dnf, absent", package("dnf", PackageState::Absent, "newest")));
    }
    all
}

fn every_kind_keeps_its_promises(shell: Shell) {
    let node = rooted(shell, managers::ALL);
    let kinds = kinds(&node);
    for old in ["old", "older", "oldest"] {
        put(&node, &format!("db/{old}"), "1\n");
    }
    let mut agent = node.agent();
    for (what, kind) in kinds {
        for (expected, when) in [(Changed, "before"), (Unchanged, "after")] {
            let all = ["etc", "srv", "db", "running", "enabled", "home"];
            let look = || -> Vec<_> {
                let there = all.into_iter().map(|name| node.file(name)).filter(|path| path.exists());
                there.map(|path| snapshot(&path)).collect()
            };
            let untouched = look();
            let ended = check(&mut agent, &kind);
            assert_eq!(
                (ended.verdict, effects(&ended)),
                (Verdict::Exit(0), vec![expected]),
                "a look {when} {what}: {ended:?}"
            );
            assert!(look() == untouched, "a look {when} {what} changed something");
            let shown = ended.actions[0].diff.clone();
            let ended = apply(&mut agent, &kind);
            // A reload is made each time that the phase runs, and is no difference that a look would find.
            let reloads = what.contains("to reload");
            let effect = if reloads { Changed } else { expected };
            assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![effect]), "{when} {what}: {ended:?}");
            if !matches!(kind, ActionKind::RemoteFile { .. }) {
                assert_eq!(ended.actions[0].diff, shown, "{what}");
            }
            // The newest is asked for each time, too.
            let asks = what.ends_with("latest");
            assert!(expected == Changed || reloads || asks || look() == untouched, "{what} is done again");
        }
    }
    agent.bye();
}

fn file(path: &str, content: &str, mode: &str) -> ActionKind {
    ActionKind::File { path: path.into(), content: content.into(), mode: mode.into(), owner: None, group: None }
}

fn a_change_of_a_public_file_shows(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let diff = |agent: &mut Agent, kind: ActionKind| {
        let (looked, did) = (check(agent, &kind), apply(agent, &kind));
        assert_eq!((effects(&looked), effects(&did)), (vec![Changed], vec![Changed]), "{}", did.output);
        assert_eq!(looked.actions[0].diff, did.actions[0].diff);
        did.actions[0].diff.clone()
    };
    let made = diff(&mut agent, file("/srv/motd", "one\ntwo\n", "644"));
    assert_eq!(made, "--- a/srv/motd\n+++ b/srv/motd\n@@ -0,0 +1,2 @@\n+one\n+two\n");
    let changed = diff(&mut agent, file("/srv/motd", "one\n\tTwo\n", "644"));
    assert_eq!(changed, "--- a/srv/motd\n+++ b/srv/motd\n@@ -1,2 +1,2 @@\n one\n-two\n+\tTwo\n");
    assert_eq!(diff(&mut agent, file("/srv/motd", "one\n\tTwo\n", "755")), "", "a mode is no text");
    let long = diff(&mut agent, file("/srv/motd", &"line\n".repeat(100), "755"));
    assert_eq!(long.lines().count(), 40, "{long}");
    let wide = diff(&mut agent, file("/srv/wide", &format!("{}\n", "ünï ".repeat(10)).repeat(38), "755"));
    assert!((900..=1024).contains(&wide.len()), "{}", wide.len());
    fs::write(node.file("srv/motd"), b"\0\0\0\x01binary").unwrap();
    assert_eq!(diff(&mut agent, file("/srv/motd", "text\n", "755")), "");
    agent.bye();
}

fn what_not_everybody_may_read_never_shows(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let dir = node.file("srv/private");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(dir.join("within")).unwrap();
    put(&node, "srv/was", "canary\n");
    fs::set_permissions(node.file("srv/was"), fs::Permissions::from_mode(0o600)).unwrap();
    put(&node, "srv/will", "canary\n");
    for (path, mode) in [
        ("/srv/was", "644"),
        ("/srv/will", "640"),
        ("/srv/new", "600"),
        ("/srv/private/file", "644"),
        ("/srv/private/within/file", "644"),
    ] {
        let kind = file(path, "canary too\n", mode);
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!((effects(&ended), ended.actions[0].diff.as_str()), (vec![Changed], ""), "{path}");
            assert!(!ended.output.contains("canary"), "{}", ended.output);
        }
    }
    agent.bye();
    assert_eq!(node.keeps("canary"), None, "nothing of a content stays in the state directory");
}

/// In a directory that others may write, a link with the name of a file to come would lead root elsewhere.
fn a_file_is_made_where_nobody_else_can_meddle(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let seen = node.file("srv/seen").display().to_string();
    put(&node, "srv/.pallet.left/new", "left by a run that was killed");
    put(&node, "elsewhere/victim", "as it was");
    symlink(node.file("elsewhere"), node.file("srv/.pallet.link")).unwrap();
    // What chmod and mv are given is where the file is made.
    let wrapper = format!(
        "#!/bin/sh\nfor path do :; done\nstat -c '%a %n' \"$(readlink -f \"${{path%/*}}\")\" >>{seen}\nexec /bin/chmod \"$@\"\n"
    );
    if shell != Shell::Busybox {
        put(&node, "bin/chmod", &wrapper);
        fs::set_permissions(node.file("bin/chmod"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ended = apply(&mut agent, &file("/srv/motd", "x", "640"));
    assert_eq!(effects(&ended), [Changed], "{}", ended.output);
    if shell != Shell::Busybox {
        let seen = node.read("srv/seen");
        let seen = seen.lines().last().unwrap();
        assert!(seen.starts_with("700 /srv/.pallet.") && seen.len() > "700 /srv/.pallet.".len() + 30, "{seen}");
    }
    assert!(!node.file("srv/.pallet.left").exists() && node.file("srv/.pallet.link").is_symlink());
    assert_eq!(node.read("elsewhere/victim"), "as it was");
    agent.bye();
}

/// Red Hat's small images have no diffutils.
fn a_file_needs_no_tools_to_compare(shell: Shell) {
    if shell == Shell::Busybox {
        return;
    }
    let mut node = rooted(shell, &[]);
    without(&mut node, &["cmp", "diff", "getent"]);
    let mut agent = node.agent();
    let kind = ActionKind::File {
        path: "/srv/motd".into(),
        content: "x\n\n".into(),
        mode: "644".into(),
        owner: Some("games".into()),
        group: Some("games".into()),
    };
    for expected in [Changed, Unchanged] {
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!((effects(&ended), ended.output.as_str()), (vec![expected], ""));
            assert_eq!(ended.actions[0].diff, "");
        }
    }
    fs::write(node.file("srv/motd"), "x\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &kind)), [Changed]);
    let found = fs::metadata(node.file("srv/motd")).unwrap();
    assert_eq!((node.read("srv/motd").as_str(), found.uid(), found.gid()), ("x\n\n", 5, 60));
    agent.bye();
}
