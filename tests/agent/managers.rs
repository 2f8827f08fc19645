//! Packages, their sources, and services, by stand-ins for the managers that keep their state in files. They show that the right commands
//! are given and the right effect is told; that the commands do what they should, real nodes show (tests/e2e/packages.rs).

use std::{fs, os::unix::fs::PermissionsExt};

use pallet_api::{
    actions::{PackageState, Presence::Present, ServiceState},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::{
    phase::{ActionKind, action::PackageOptions},
    session::frame::Verdict,
};

use crate::{
    actions::{effects, perform},
    conformance::{apply, rooted, source},
    node::{Node, Shell},
};

under_every_shell! {
    apt_installs_what_is_missing
    apt_knows_versions_and_fetches_its_lists
    apk_and_dnf_install_and_remove
    a_manager_that_fails_is_a_failure
    systemd_is_asked_and_told
    openrc_is_asked_and_told
    sysv_is_asked_and_told
    a_source_that_is_no_good_is_taken_back
    a_source_follows_what_is_declared
}

/// Installed packages are files in `db`; each holds its version.
const DPKG_QUERY: &str = r#"
for name in "$@"; do :; done
if [ -e "db/$name" ]; then echo "installed $(cat "db/$name")"; exit 0; fi
case $name in */*|-*|*Package*) ;; *) exit 1 ;; esac
for file in db/*; do echo "${file#db/} $(cat "$file")"; done"#;

const APT_GET: &str = r#"
echo "apt-get $*" >>calls
[ ! -e broken ] || exit 100
verb= dry=
while [ $# -gt 0 ]; do
  case $1 in
  -o) shift ;;
  -s) dry=yes ;;
  -*) ;;
  update) exit 0 ;;
  install | remove) verb=$1 ;;
  *) case $verb in
    install) if [ -n "$dry" ]; then [ "$(cat "db/$1")" = 2 ] || echo "Inst $1 [1] (2)"; shift; continue; fi
      case $1 in *=*) echo "${1#*=}" >"db/${1%%=*}" ;; *) echo 2 >"db/$1" ;; esac ;;
    remove) rm "db/$1" ;;
    esac ;;
  esac
  shift
done"#;

const APK: &str = r#"
echo "apk $*" >>calls
case "$1 $2" in
"info -e") [ -e "db/$3" ]; exit ;;
"info -v") for file in db/*; do echo "${file#db/}-$(cat "$file")"; done; exit ;;
esac
verb= dry=
for word in "$@"; do
  case $word in
  -s) dry=yes ;;
  -*) ;;
  add | del) verb=$word ;;
  *) if [ -n "$dry" ]; then [ "$(cat "db/$word")" = 2 ] || echo "(1/1) Upgrading $word (1 -> 2)"; continue; fi
    case $verb in add) echo 2 >"db/$word" ;; del) rm "db/$word" ;; esac ;;
  esac
done"#;

const RPM: &str = r#"
case $1 in
-qa) for file in db/*; do echo "${file#db/}-$(cat "$file")"; done; exit ;;
esac
for name in "$@"; do :; done
[ -e "db/$name" ]"#;

const DNF: &str = r#"
echo "dnf $*" >>calls
if [ "$1 $2" = "-q -C" ]; then
  for name in "$@"; do :; done
  [ "$(cat "db/$name")" = 2 ] || { echo "$name 2 updates"; exit 100; }
  exit 0
fi
verb=$2
shift 2
for name in "$@"; do
  case $verb in install | upgrade) echo 2 >"db/$name" ;; remove) rm "db/$name" ;; esac
done"#;

/// Running and enabled services are files.
const SYSTEMCTL: &str = r#"
echo "systemctl $*" >>calls
case $1 in
is-active) [ -e "running/$3" ] ;;
is-enabled) [ -e "enabled/$3" ] ;;
enable) : >"enabled/$2" ;;
disable) rm "enabled/$2" ;;
start | restart | reload-or-restart) [ ! -e broken ] && : >"running/$2" ;;
stop) rm "running/$2" ;;
esac"#;

const RC_SERVICE: &str = r#"
echo "rc-service $*" >>calls
case $2 in
status) [ -e "running/$1" ] ;;
start | restart | reload) : >"running/$1" ;;
stop) rm "running/$1" ;;
esac"#;

const RC_UPDATE: &str = r#"
echo "rc-update $*" >>calls
case $1 in
show) for file in enabled/*; do [ ! -e "$file" ] || echo "    ${file#enabled/} | default"; done ;;
add) : >"enabled/$2" ;;
del) rm "enabled/$2" ;;
esac"#;

const SERVICE: &str = r#"
echo "service $*" >>calls
case $2 in
status) [ -e "running/$1" ] ;;
start | restart | reload) : >"running/$1" ;;
stop) rm "running/$1" ;;
esac"#;

const UPDATE_RC_D: &str = r#"
echo "update-rc.d $*" >>calls
case $2 in
enable) rm -f /etc/rc2.d/K01"$1"; ln -s "../init.d/$1" /etc/rc2.d/S01"$1" ;;
disable) mv /etc/rc2.d/S01"$1" /etc/rc2.d/K01"$1" ;;
esac"#;

/// All of them.
pub const ALL: &[(&str, &str)] = &[
    ("dpkg-query", DPKG_QUERY),
    ("apt-get", APT_GET),
    ("apk", APK),
    ("rpm", RPM),
    ("dnf", DNF),
    ("yum", DNF),
    ("systemctl", SYSTEMCTL),
    ("rc-service", RC_SERVICE),
    ("rc-update", RC_UPDATE),
    ("service", SERVICE),
    ("update-rc.d", UPDATE_RC_D),
];

/// A node on which these commands stand before all others.
pub fn node(shell: Shell, commands: &[(&str, &str)]) -> Node {
    let mut node = Node::new(shell);
    for dir in ["bin", "db", "running", "enabled"] {
        fs::create_dir(node.file(dir)).unwrap();
    }
    for (name, text) in commands {
        let path = node.file("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\ncd '{}' || exit 1\n{text}\n", node.dir.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    node.path = Some(format!("{}:/usr/bin:/bin", node.file("bin").display()));
    node
}

pub fn package(manager: &str, state: PackageState, names: &[&str]) -> ActionKind {
    let (names, options) = (names.iter().map(|n| (*n).to_owned()).collect(), PackageOptions::default());
    ActionKind::Package { names, state, options, manager: manager.into() }
}

pub fn service(manager: &str, state: Option<ServiceState>, enabled: Option<bool>) -> ActionKind {
    ActionKind::Service { name: "web".into(), state, enabled, masked: None, manager: manager.into() }
}

pub fn calls(node: &Node, having: &str) -> usize {
    node.read("calls").lines().filter(|line| line.contains(having)).count()
}

fn apt_installs_what_is_missing(shell: Shell) {
    let node = node(shell, &[("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET)]);
    fs::write(node.file("db").join("curl"), "1\n").unwrap();
    let mut agent = node.agent();
    let present = || package("apt", PackageState::Present, &["curl", "nginx"]);
    let ended = perform(&mut agent, vec![present(), present()]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", ended.output);
    assert_eq!((calls(&node, " install "), calls(&node, "curl")), (1, 0), "{}", node.read("calls"));
    assert!(node.read("calls").contains("-y -o DPkg::Lock::Timeout=300"), "{}", node.read("calls"));
    let absent = || package("apt", PackageState::Absent, &["nginx", "never"]);
    let ended = perform(&mut agent, vec![absent(), absent()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    assert!(!node.file("db").join("nginx").exists() && node.file("db").join("curl").exists());
    agent.bye();
}

fn apt_knows_versions_and_fetches_its_lists(shell: Shell) {
    let node = node(shell, &[("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET)]);
    fs::write(node.file("db").join("curl"), "1\n").unwrap();
    let mut agent = node.agent();
    let pinned = || package("apt", PackageState::Present, &["curl=3"]);
    let ended = perform(&mut agent, vec![pinned(), pinned()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    let latest = || package("apt", PackageState::Latest, &["curl"]);
    let ended = perform(&mut agent, vec![latest(), latest()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    assert!(calls(&node, " update") >= 2, "the newest version is asked for: {}", node.read("calls"));
    agent.bye();
}

fn apk_and_dnf_install_and_remove(shell: Shell) {
    for manager in ["apk", "dnf", "yum"] {
        if manager != "apk" && matches!(shell, Shell::Busybox) {
            // Its sh takes its own applet called rpm before any command of that name.
            continue;
        }
        let node = node(shell, &[("apk", APK), ("rpm", RPM), ("dnf", DNF), ("yum", DNF)]);
        let mut agent = node.agent();
        let present = || package(manager, PackageState::Present, &["nginx"]);
        let latest = || package(manager, PackageState::Latest, &["nginx"]);
        let absent = || package(manager, PackageState::Absent, &["nginx"]);
        let ended = perform(&mut agent, vec![present(), present(), latest(), absent(), absent()]);
        let expected = vec![Changed, Unchanged, Unchanged, Changed, Unchanged];
        assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), expected), "{manager}: {}", ended.output);
        agent.bye();
    }
}

fn a_manager_that_fails_is_a_failure(shell: Shell) {
    let node = node(shell, &[("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET), ("systemctl", SYSTEMCTL)]);
    fs::write(node.file("broken"), "").unwrap();
    let mut agent = node.agent();
    let ended = perform(&mut agent, vec![package("apt", PackageState::Present, &["nginx"])]);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    let ended = perform(&mut agent, vec![service("systemd", Some(ServiceState::Started), None)]);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    assert!(ended.output.contains("service: web could not start"), "{}", ended.output);
    agent.bye();
}

/// Started, enabled, reloaded, stopped and disabled, each twice.
fn asked_and_told(node: &Node, manager: &str) {
    let mut agent = node.agent();
    let asked = |state, enabled| vec![service(manager, state, enabled), service(manager, state, enabled)];
    let steps = [
        (asked(Some(ServiceState::Started), None), [Changed, Unchanged]),
        (asked(None, Some(true)), [Changed, Unchanged]),
        (asked(Some(ServiceState::Reloaded), None), [Changed, Changed]),
        (asked(Some(ServiceState::Restarted), Some(true)), [Changed, Changed]),
        (asked(Some(ServiceState::Stopped), Some(false)), [Changed, Unchanged]),
        // What is to be reloaded and does not run is started.
        (asked(Some(ServiceState::Reloaded), None), [Changed, Changed]),
    ];
    for (place, (kinds, expected)) in steps.into_iter().enumerate() {
        let ended = perform(&mut agent, kinds);
        assert_eq!(effects(&ended), expected, "step {place}: {}\n{}", ended.output, node.read("calls"));
    }
    agent.bye();
}

fn systemd_is_asked_and_told(shell: Shell) {
    let node = node(shell, &[("systemctl", SYSTEMCTL)]);
    asked_and_told(&node, "systemd");
    assert_eq!((calls(&node, "reload-or-restart web"), calls(&node, "systemctl start web")), (3, 2));
}

fn openrc_is_asked_and_told(shell: Shell) {
    asked_and_told(&node(shell, &[("rc-service", RC_SERVICE), ("rc-update", RC_UPDATE)]), "openrc");
}

/// Links in /etc stand for what is enabled there: conformance.rs has them.
fn sysv_is_asked_and_told(shell: Shell) {
    let node = node(shell, &[("service", SERVICE)]);
    let mut agent = node.agent();
    let started = || service("sysv", Some(ServiceState::Started), None);
    let stopped = || service("sysv", Some(ServiceState::Stopped), None);
    let ended = perform(&mut agent, vec![started(), started(), stopped(), stopped()]);
    assert_eq!(effects(&ended), [Changed, Unchanged, Changed, Unchanged], "{}", ended.output);
    agent.bye();
}

fn a_source_that_is_no_good_is_taken_back(shell: Shell) {
    let node = rooted(shell, ALL);
    let mut agent = node.agent();
    let (list, key) = ("etc/apt/sources.list.d/example.sources", "etc/apt/keyrings/example.asc");
    fs::write(node.file("broken"), "").unwrap();
    for _ in 0..2 {
        let ended = apply(&mut agent, &source("apt", Present));
        assert_eq!(effects(&ended), [Failed], "{}", ended.output);
        assert!(ended.output.contains("apt-get update failed for it, and it was not added"), "{}", ended.output);
        assert!(!node.file(list).exists() && !node.file(key).exists());
    }
    // One that was good stays.
    fs::write(node.file(list), "good\n").unwrap();
    fs::write(node.file(key), "good key\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &source("apt", Present))), [Failed]);
    assert_eq!((node.read(list).as_str(), node.read(key).as_str()), ("good\n", "good key\n"));
    fs::remove_file(node.file("broken")).unwrap();
    fs::write(node.file("calls"), "").unwrap();
    let ended = perform(&mut agent, vec![source("apt", Present), source("apt", Present)]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    let calls = node.read("calls");
    assert_eq!(calls.matches(" update ").count(), 1, "{calls}");
    assert!(calls.contains("/example.sources -o Dir::Etc::sourceparts=/dev/null"), "its lists alone: {calls}");
    agent.bye();
}

fn a_source_follows_what_is_declared(shell: Shell) {
    let node = rooted(shell, ALL);
    fs::create_dir(node.file("etc/apk")).unwrap();
    let mut agent = node.agent();
    let sources = ["apt", "dnf", "apk"].map(|manager| source(manager, Present));
    let ended = perform(&mut agent, sources.to_vec());
    assert_eq!(effects(&ended), [Changed; 3], "{}", ended.output);
    let apt = "Types: deb\nURIs: https://deb.example\nSuites: stable\nComponents: main\n\
               Signed-By: /etc/apt/keyrings/example.asc\n";
    assert_eq!(node.read("etc/apt/sources.list.d/example.sources"), apt);
    assert_eq!(node.read("etc/apt/keyrings/example.asc"), "KEY\n");
    let dnf = "[example]\nname=example\nbaseurl=https://rpm.example\nenabled=1\n\
               gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/example.asc\n";
    assert_eq!(node.read("etc/yum.repos.d/example.repo"), dnf);
    assert_eq!(node.read("etc/pki/rpm-gpg/example.asc"), "KEY\n");
    assert_eq!(node.read("etc/apk/repositories"), "https://apk.example/main\n");
    // Without its key, the file of the key goes, too.
    let unsigned = ActionKind::PackageSource {
        name: "example".into(),
        apt: None,
        dnf: Some(("https://rpm.example".into(), None)),
        apk: None,
        state: Present,
        manager: "dnf".into(),
    };
    assert_eq!(effects(&apply(&mut agent, &unsigned)), [Changed]);
    assert!(node.read("etc/yum.repos.d/example.repo").contains("gpgcheck=0"));
    assert!(!node.file("etc/pki/rpm-gpg/example.asc").exists());
    agent.bye();
}
