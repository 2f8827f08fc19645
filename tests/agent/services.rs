//! Services that do not simply run or not: by stand-ins whose units change by themselves.

use std::fs;

use pallet_api::{
    actions::ServiceState::{self, Reloaded, Restarted, Started, Stopped},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::phase::ActionKind;

use crate::{
    actions::{effects, perform},
    conformance::{apply, check},
    managers::{self, calls},
    node::{Node, Shell},
};

under_every_shell! {
    a_service_in_a_restart_loop_is_stopped
    a_service_that_does_not_stay_started_is_a_failure
    a_changed_unit_is_read_before_it_is_started
    units_that_cannot_be_enabled_settle
    a_unit_is_masked_and_unmasked
    openrc_services_are_known_in_every_runlevel
    a_script_without_a_status_is_no_failure
}

/// The state of a unit is a line of `active/NAME` for each look, of which the last one stays; what it is for the boot is in
/// `boot/NAME`.
const SYSTEMCTL: &str = r#"
echo "systemctl $*" >>calls
for name in "$@"; do :; done
case $1 in
is-active)
  state=inactive
  if [ -e "active/$name" ]; then
    state=$(head -n 1 "active/$name")
    [ "$(wc -l <"active/$name")" = 1 ] || sed -i 1d "active/$name"
  fi
  echo "$state"
  [ "$state" = active ] || exit 3
  ;;
is-enabled)
  state=$(cat "boot/$name" 2>/dev/null) || state=disabled
  echo "$state"
  case $state in enabled | static | indirect | alias) ;; *) exit 1 ;; esac
  ;;
show)
  case $3 in
  NeedDaemonReload) if [ -e stale ]; then echo NeedDaemonReload=yes; else echo NeedDaemonReload=no; fi ;;
  MainPID) if [ -e loops ]; then echo x >>loops; echo "MainPID=$(wc -l <loops)"; else echo MainPID=7; fi ;;
  Type) cat type 2>/dev/null ;;
  esac
  ;;
cat) cat "unit/$name" ;;
daemon-reload) rm -f stale ;;
start | restart | reload-or-restart) [ ! -e stale ] || exit 1; cp started "active/$name" ;;
stop) cp stopped "active/$name" ;;
enable) case $(cat "boot/$name" 2>/dev/null) in static | masked) ;; *) echo enabled >"boot/$name" ;; esac ;;
disable) [ "$(cat "boot/$name")" = static ] || rm -f "boot/$name"; for other in boot/*.socket; do rm -f "$other"; done ;;
mask) echo masked >"boot/$name" ;;
unmask) rm "boot/$name" ;;
esac"#;

fn node(shell: Shell) -> Node {
    let node = managers::node(shell, &[("systemctl", SYSTEMCTL)]);
    for dir in ["active", "boot", "unit"] {
        fs::create_dir(node.file(dir)).unwrap();
    }
    fs::write(node.file("started"), "active\n").unwrap();
    fs::write(node.file("stopped"), "inactive\n").unwrap();
    node
}

fn service(state: Option<ServiceState>, enabled: Option<bool>, masked: Option<bool>) -> ActionKind {
    ActionKind::Service { name: "web".into(), state, enabled, masked, manager: "systemd".into() }
}

fn state(state: ServiceState) -> ActionKind {
    service(Some(state), None, None)
}

fn a_service_in_a_restart_loop_is_stopped(shell: Shell) {
    let node = node(shell);
    let mut agent = node.agent();
    for before in ["activating", "deactivating", "reloading", "maintenance"] {
        fs::write(node.file("active/web"), format!("{before}\n")).unwrap();
        assert_eq!(effects(&check(&mut agent, &state(Stopped))), [Changed], "{before}");
        let ended = perform(&mut agent, vec![state(Stopped), state(Stopped)]);
        assert_eq!(effects(&ended), [Changed, Unchanged], "{before}: {}", ended.output);
    }
    for before in ["failed", "inactive", "unknown"] {
        fs::write(node.file("active/web"), format!("{before}\n")).unwrap();
        assert_eq!(effects(&apply(&mut agent, &state(Stopped))), [Unchanged], "{before}");
    }
    // It takes its time.
    fs::write(node.file("active/web"), "active\n").unwrap();
    fs::write(node.file("stopped"), "deactivating\ninactive\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &state(Stopped))), [Changed]);
    agent.bye();
}

fn a_service_that_does_not_stay_started_is_a_failure(shell: Shell) {
    let node = node(shell);
    let mut agent = node.agent();
    for after in ["active\nactivating\n", "failed\n"] {
        fs::write(node.file("started"), after).unwrap();
        fs::write(node.file("active/web"), "inactive\n").unwrap();
        let ended = apply(&mut agent, &state(Started));
        assert_eq!(effects(&ended), [Failed], "{after:?}");
        assert!(ended.output.contains("web does not stay active"), "{}", ended.output);
    }
    // Each time that it is looked at it is another process.
    fs::write(node.file("started"), "active\n").unwrap();
    fs::write(node.file("loops"), "").unwrap();
    assert_eq!(effects(&apply(&mut agent, &state(Restarted))), [Failed]);
    fs::remove_file(node.file("loops")).unwrap();
    // It takes a while, and then runs.
    fs::write(node.file("started"), "activating\nactivating\nactive\n").unwrap();
    fs::write(node.file("active/web"), "inactive\n").unwrap();
    let ended = perform(&mut agent, vec![state(Started), state(Started)]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    // What runs once has run.
    fs::write(node.file("type"), "Type=oneshot\nResult=success\n").unwrap();
    fs::write(node.file("started"), "inactive\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &state(Restarted))), [Changed]);
    agent.bye();
}

fn a_changed_unit_is_read_before_it_is_started(shell: Shell) {
    let node = node(shell);
    let mut agent = node.agent();
    for wanted in [Restarted, Reloaded, Started] {
        fs::write(node.file("stale"), "").unwrap();
        if wanted == Started {
            fs::remove_file(node.file("active/web")).unwrap();
        }
        assert_eq!(effects(&check(&mut agent, &state(wanted))).len(), 1);
        assert!(node.file("stale").exists(), "a look reads nothing");
        let ended = apply(&mut agent, &state(wanted));
        assert_eq!(effects(&ended), [Changed], "{wanted:?}: {}", ended.output);
        assert!(!node.file("stale").exists());
    }
    assert_eq!(calls(&node, "daemon-reload"), 3);
    agent.bye();
}

fn units_that_cannot_be_enabled_settle(shell: Shell) {
    let node = node(shell);
    let mut agent = node.agent();
    let enabled = |wanted| service(None, Some(wanted), None);
    for fixed in ["static", "generated", "transient"] {
        fs::write(node.file("boot/web"), fixed).unwrap();
        for wanted in [true, false] {
            assert_eq!(effects(&apply(&mut agent, &enabled(wanted))), [Unchanged], "{fixed} {wanted}");
        }
    }
    assert_eq!(calls(&node, "systemctl enable") + calls(&node, "systemctl disable"), 0, "{}", node.read("calls"));
    // An indirect one is what it enables.
    fs::write(node.file("unit/web"), "[Install]\nAlso=web.socket\n").unwrap();
    fs::write(node.file("boot/web"), "indirect").unwrap();
    fs::write(node.file("boot/web.socket"), "enabled").unwrap();
    assert_eq!(effects(&apply(&mut agent, &enabled(true))), [Unchanged]);
    let ended = perform(&mut agent, vec![enabled(false), enabled(false)]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    // A masked one cannot be enabled, and is not.
    fs::write(node.file("boot/web"), "masked").unwrap();
    assert_eq!(effects(&apply(&mut agent, &enabled(false))), [Unchanged]);
    let ended = apply(&mut agent, &enabled(true));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("web is masked; set masked to false"), "{}", ended.output);
    agent.bye();
}

fn a_unit_is_masked_and_unmasked(shell: Shell) {
    let node = node(shell);
    fs::write(node.file("active/web"), "active\n").unwrap();
    let mut agent = node.agent();
    let masked = || service(Some(Stopped), Some(false), Some(true));
    assert_eq!(effects(&check(&mut agent, &masked())), [Changed]);
    let ended = perform(&mut agent, vec![masked(), masked()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    assert_eq!((node.read("boot/web").as_str(), node.read("active/web").as_str()), ("masked\n", "inactive\n"));
    let unmasked = || service(Some(Started), Some(true), Some(false));
    let ended = perform(&mut agent, vec![unmasked(), unmasked()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    assert_eq!(node.read("boot/web"), "enabled\n");
    agent.bye();
}

fn openrc_services_are_known_in_every_runlevel(shell: Shell) {
    const RC_UPDATE: &str = r#"
echo "rc-update $*" >>calls
case $1 in
show) cat levels ;;
add) echo " $2 | $3" >>levels ;;
del) sed -i "s/^\( *$2 |.*\) $3/\1/" levels ;;
esac"#;
    const RC_SERVICE: &str = r#"
echo "rc-service $*" >>calls
case $2 in
status) exit "$(cat status)" ;;
start) [ "$(cat status)" = 32 ] || echo 0 >status ;;
restart) echo 0 >status ;;
stop) echo 3 >status ;;
esac"#;
    let node = managers::node(shell, &[("rc-update", RC_UPDATE), ("rc-service", RC_SERVICE)]);
    fs::write(node.file("levels"), " web.x | default\n web | boot nonetwork shutdown\n killprocs | shutdown\n")
        .unwrap();
    fs::write(node.file("status"), "32\n").unwrap();
    let mut agent = node.agent();
    let service = |name: &str, state, enabled| ActionKind::Service {
        name: name.into(),
        state,
        enabled,
        masked: None,
        manager: "openrc".into(),
    };
    assert_eq!(effects(&apply(&mut agent, &service("web", None, Some(true)))), [Unchanged]);
    let disabled = || service("web", None, Some(false));
    let ended = perform(&mut agent, vec![disabled(), disabled(), service("killprocs", None, Some(false))]);
    assert_eq!(effects(&ended), [Changed, Unchanged, Unchanged], "{}", node.read("calls"));
    assert!(node.read("levels").contains(" web | shutdown") && node.read("levels").contains("web.x | default"));
    // What has crashed counts as started there, and start leaves it alone.
    let started = || service("web", Some(Started), None);
    let ended = perform(&mut agent, vec![started(), started()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", node.read("calls"));
    for other in ["8", "16", "32"] {
        fs::write(node.file("status"), other).unwrap();
        let stopped = || service("web", Some(Stopped), None);
        assert_eq!(effects(&perform(&mut agent, vec![stopped(), stopped()])), [Changed, Unchanged], "{other}");
    }
    agent.bye();
}

fn a_script_without_a_status_is_no_failure(shell: Shell) {
    let node = crate::conformance::rooted(shell, &[("service", "[ \"$2\" != status ] || { echo usage; exit 1; }")]);
    fs::create_dir_all(node.file("etc/init.d")).unwrap();
    fs::write(node.file("etc/init.d/old"), "case $1 in start | stop) ;; esac\n").unwrap();
    let mut agent = node.agent();
    let started = |name: &str| ActionKind::Service {
        name: name.into(),
        state: Some(Started),
        enabled: None,
        masked: None,
        manager: "sysv".into(),
    };
    assert_eq!(effects(&apply(&mut agent, &started("old"))), [Changed]);
    fs::write(node.file("etc/init.d/old"), "case $1 in start | stop | status) ;; esac\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &started("old"))), [Failed]);
    agent.bye();
}
