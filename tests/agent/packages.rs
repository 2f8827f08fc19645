//! What names of packages may not do, and how apt's locks, interruptions and dead mirrors are handled: by a stand-in for apt
//! that misreads names as apt does.

use std::fs;

use pallet_api::{
    actions::{PackageState, Presence::Present},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::PackageOptions,
        compile,
        render::{Call, Rendered},
    },
    session::frame::Ended,
};

use crate::{
    actions::{effects, perform},
    conformance::{apply, check, source},
    managers::{self, calls, package},
    node::{Agent, Node, Shell},
};

under_every_shell! {
    a_name_is_no_order_to_apt
    a_name_stands_for_what_provides_it
    versions_releases_and_architectures_settle
    a_package_that_is_wanted_is_marked_as_wanted
    apt_waits_for_its_locks
    an_interrupted_dpkg_is_repaired
    the_newest_version_of_a_dead_mirror_is_unknown
    a_package_that_stays_is_a_failure
    a_package_is_installed_as_its_options_say
    a_source_that_breaks_all_others_is_taken_back
    what_provides_a_name_is_not_removed_for_it
}

/// Packages are files `db/NAME:ARCHITECTURE` with version, status and what they provide.
const DPKG_QUERY: &str = r#"
format=$3
shift 3
code=0
[ "$#" = 0 ] || code=1
for file in db/*; do
  [ -e "$file" ] || continue
  full=${file#db/} name=${full%:*}
  name=${name#db/}
  case ${1-} in '' | "$name" | "$full") ;; *) continue ;; esac
  code=0
  read -r version status provides <"$file"
  printf '%s' "$format" | sed "s/\${db:Status-Status}/$status/;s/\${Version}/$version/;s/\${Architecture}/${full#*:}/" |
    sed "s/\${Package}/$name/;s/\${Provides}/$provides/;s/\\\\n\$//"
  echo
done
exit $code"#;

const DPKG: &str = r#"
echo "dpkg $*" >>calls
case $* in
--print-architecture) echo amd64 ;;
*--configure*) rm -f updates/*; : >configured ;;
esac"#;

/// What is not a package is a pattern, or a name and an order; `names` are all that there are.
const APT_GET: &str = r#"
echo "apt-get $*" >>calls
if [ -s locked ]; then
  sed -i 1d locked
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)" >&2
  exit 100
fi
verb= dry= any=
for word in "$@"; do
  case $word in
  -s) dry=yes ;;
  APT::Update::Error-Mode=any) any=yes ;;
  update)
    [ -e dead ] || exit 0
    if [ -z "$any" ]; then echo "W: Failed to fetch http://dead/" >&2; exit 0; fi
    echo "E: Failed to fetch http://dead/" >&2
    exit 100
    ;;
  indextargets)
    ! ls /etc/apt/sources.list.d/conflict.sources >/dev/null 2>&1 || { echo "E: Conflicting values" >&2; exit 100; }
    ;;
  install | remove)
    verb=$word
    if [ -e updates/0001 ]; then echo "E: dpkg was interrupted" >&2; exit 100; fi
    ;;
  -* | *::*) ;;
  *)
    order=$verb name=${word%%[=/]*} version=2
    case $word in *=*) version=${word#*=} ;; esac
    if ! grep -qxF -e "${name%:*}" names; then
      case $word in
      *-) order=remove name=${name%-} ;;
      *+) order=install name=${name%+} ;;
      *.*) name=$(grep -x -e "$name" names) ;;
      *) echo "E: Unable to locate package $word" >&2; exit 100 ;;
      esac
    fi
    name=${name%:native}
    case $name in *:*) ;; *) name=$name:amd64 ;; esac
    if [ -n "$dry" ]; then
      case $word in */stable) grep -q '^2 ' "db/$name" || echo "Inst $name" ;; esac
      continue
    fi
    case $order in install) echo "${version%\*} installed" >"db/$name" ;; remove) [ -e stuck ] || rm -f "db/$name" ;; esac
    ;;
  esac
done
exit 0"#;

const APT_CACHE: &str = r#"
case $* in
*pkgnames*) for name in "$@"; do :; done; grep -e "^$name" names ;;
*policy*) for name in "$@"; do :; done; if grep -qxF -e "$name" names; then echo "  Candidate: 2"; fi ;;
esac"#;

const APT_MARK: &str = r#"
echo "apt-mark $*" >>calls
: >/var/lib/apt/extended_states"#;

const NAMES: &str = "left\nless\npostgresql-15\nlibstdc++6\nmawk\ng++\n";

/// A node with this apt. Busybox's sh takes its own applet called dpkg.
fn node(shell: Shell) -> Node {
    let mut node = managers::node(
        shell,
        &[
            ("dpkg-query", DPKG_QUERY),
            ("dpkg", DPKG),
            ("apt-get", APT_GET),
            ("apt-cache", APT_CACHE),
            ("apt-mark", APT_MARK),
        ],
    );
    for dir in ["updates", "dpkg", "apt", "apt/lists", "etc-apt"] {
        fs::create_dir_all(node.file(dir)).unwrap();
    }
    fs::write(node.file("apt/lists/x_Packages"), "").unwrap();
    fs::write(node.file("names"), NAMES).unwrap();
    let bind = |name: &str, place: &str| format!("mount --bind '{}' {place}\n", node.file(name).display());
    let setup = bind("dpkg", "/var/lib/dpkg")
        + "mkdir -p /var/lib/dpkg/updates\n"
        + &bind("updates", "/var/lib/dpkg/updates")
        + &bind("apt", "/var/lib/apt")
        + "mkdir -p /etc/apt\n"
        + &bind("etc-apt", "/etc/apt");
    node.namespace = Some(setup);
    node
}

fn put(node: &Node, package: &str, content: &str) {
    fs::write(node.file("db").join(package), format!("{content}\n")).unwrap();
}

fn has(node: &Node, package: &str) -> bool {
    node.file("db").join(package).exists()
}

fn present(name: &str) -> ActionKind {
    package("apt", PackageState::Present, &[name])
}

fn absent(name: &str) -> ActionKind {
    package("apt", PackageState::Absent, &[name])
}

fn settles(agent: &mut Agent, kind: &ActionKind) {
    let ended = perform(agent, vec![kind.clone(), kind.clone()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{kind:?}: {}", ended.output);
    let looked = check(agent, kind);
    assert_eq!(effects(&looked), [Unchanged], "{kind:?}: {}", looked.output);
}

fn a_name_is_no_order_to_apt(shell: Shell) {
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    let mut agent = node.agent();
    for name in ["less-", "less=1-", "less=1+", "postgresql.15", "less/", "mawk+"] {
        let ended = apply(&mut agent, &present(name));
        assert_eq!(effects(&ended), [Failed], "{name}: {}", ended.output);
        assert!(ended.output.contains(&format!("apt knows no package {name}")), "{}", ended.output);
    }
    // To be absent, a name that no package has is no order to install one either.
    for name in ["mawk+", "less-", "l.ss"] {
        assert_eq!(effects(&apply(&mut agent, &absent(name))), [Unchanged], "{name}");
    }
    let there: Vec<_> = fs::read_dir(node.file("db")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["less:amd64"]);
    for name in ["libstdc++6", "g++"] {
        settles(&mut agent, &present(name));
    }
    assert_eq!(effects(&apply(&mut agent, &absent("g++"))), [Changed]);
    assert!(!has(&node, "g++:amd64"));
    agent.bye();
}

fn a_name_stands_for_what_provides_it(shell: Shell) {
    let node = node(shell);
    put(&node, "mawk:amd64", "1 installed oneawk, awk");
    put(&node, "dash:amd64", "1 installed less");
    put(&node, "left:amd64", "1 config-files cron-daemon");
    let mut agent = node.agent();
    assert_eq!(effects(&check(&mut agent, &present("awk"))), [Unchanged]);
    assert_eq!(effects(&apply(&mut agent, &present("awk"))), [Unchanged]);
    assert_eq!(calls(&node, "awk"), 0, "{}", node.read("calls"));
    // The newest version of it is that of the one which is there.
    assert_eq!(effects(&apply(&mut agent, &package("apt", PackageState::Latest, &["awk"]))), [Changed]);
    assert_eq!(node.read("db/mawk:amd64"), "2 installed\n");
    // A package of that very name is meant, and what only left its configuration provides nothing.
    settles(&mut agent, &present("less"));
    assert_eq!(effects(&apply(&mut agent, &present("cron-daemon"))), [Failed]);
    agent.bye();
}

fn versions_releases_and_architectures_settle(shell: Shell) {
    if shell == Shell::Busybox {
        return;
    }
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    let mut agent = node.agent();
    for name in ["less=3.*", "less=2", "mawk:i386", "mawk:native"] {
        settles(&mut agent, &present(name));
    }
    put(&node, "less:amd64", "1 installed");
    settles(&mut agent, &present("less/stable"));
    // Of another architecture only, the node's own is still missing; to be absent it is removed all the same.
    settles(&mut agent, &present("g++:i386"));
    settles(&mut agent, &present("g++"));
    fs::remove_file(node.file("db/g++:amd64")).unwrap();
    settles(&mut agent, &absent("g++"));
    assert!(!has(&node, "g++:i386"));
    agent.bye();
}

fn a_package_that_is_wanted_is_marked_as_wanted(shell: Shell) {
    if shell == Shell::Busybox {
        return;
    }
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    let states = "Package: lessx\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: less\nArchitecture: ARCH\nAuto-Installed: 1\n\n";
    fs::write(node.file("apt/extended_states"), states.replace("ARCH", "i386")).unwrap();
    let mut agent = node.agent();
    assert_eq!(effects(&apply(&mut agent, &present("less"))), [Unchanged], "another architecture's");
    fs::write(node.file("apt/extended_states"), states.replace("ARCH", "amd64")).unwrap();
    assert_eq!(effects(&check(&mut agent, &present("less"))), [Changed]);
    assert_eq!(calls(&node, "manual"), 0);
    settles(&mut agent, &present("less"));
    assert_eq!((calls(&node, "manual less"), calls(&node, "install")), (1, 0), "{}", node.read("calls"));
    assert_eq!(node.read("db/less:amd64"), "1 installed\n", "it is not upgraded for that");
    agent.bye();
}

fn hasty(kind: &ActionKind, patience: &str) -> String {
    let calls = vec![Call::new("it", kind.clone())];
    let script = compile::phase(&Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() }, 0);
    let hasty = script.replace("\nlock_patience=300\n", &format!("\nlock_patience={patience}\n"));
    assert_ne!(script, hasty);
    hasty
}

fn apt_waits_for_its_locks(shell: Shell) {
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    let mut agent = node.agent();
    fs::write(node.file("locked"), "x\nx\n").unwrap();
    let latest = package("apt", PackageState::Latest, &["less"]);
    let ended = apply(&mut agent, &latest);
    assert_eq!(effects(&ended), [Changed], "{}", ended.output);
    assert!(ended.output.contains("another process holds a lock of apt"), "{}", ended.output);
    fs::write(node.file("locked"), "x\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &source("apt", Present))), [Changed]);
    fs::write(node.file("locked"), "x\n".repeat(20)).unwrap();
    let ended = agent.run(&hasty(&latest, "2"));
    assert_eq!(effects(&ended), [Failed], "the wait has a bound");
    assert!(ended.output.contains("E: Could not get lock"), "{}", ended.output);
    agent.bye();
}

fn an_interrupted_dpkg_is_repaired(shell: Shell) {
    if shell == Shell::Busybox {
        return;
    }
    let node = node(shell);
    fs::write(node.file("updates/0001"), "").unwrap();
    let mut agent = node.agent();
    settles(&mut agent, &present("less"));
    assert!(node.file("configured").exists());
    assert_eq!(calls(&node, " update"), 0, "no list is fetched for that: {}", node.read("calls"));
    fs::write(node.file("updates/0001"), "").unwrap();
    settles(&mut agent, &absent("less"));
    agent.bye();
}

fn the_newest_version_of_a_dead_mirror_is_unknown(shell: Shell) {
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    fs::write(node.file("dead"), "").unwrap();
    let mut agent = node.agent();
    let ended = apply(&mut agent, &package("apt", PackageState::Latest, &["less"]));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("the newest version is not known"), "{}", ended.output);
    // An older apt-get only warns.
    let quiet = fs::read_to_string(node.file("bin/apt-get")).unwrap().replace("any=yes", ":");
    fs::write(node.file("bin/apt-get"), quiet).unwrap();
    assert_eq!(effects(&apply(&mut agent, &package("apt", PackageState::Latest, &["less"]))), [Failed]);
    // In whatever version, it is there.
    assert_eq!(effects(&apply(&mut agent, &present("less"))), [Unchanged]);
    agent.bye();
}

fn a_package_that_stays_is_a_failure(shell: Shell) {
    let node = node(shell);
    put(&node, "less:amd64", "1 installed");
    fs::write(node.file("stuck"), "").unwrap();
    let mut agent = node.agent();
    let ended = apply(&mut agent, &absent("less"));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("less is still installed"), "{}", ended.output);
    agent.bye();
}

fn with(kind: ActionKind, options: PackageOptions) -> ActionKind {
    match kind {
        ActionKind::Package { names, state, manager, .. } => ActionKind::Package { names, state, options, manager },
        other => other,
    }
}

fn run(agent: &mut Agent, call: Call) -> Ended {
    let rendered = Rendered { phase: PhaseName::configure(), calls: vec![call], digest: Digest::default() };
    agent.run(&compile::phase(&rendered, 0))
}

fn a_package_is_installed_as_its_options_say(shell: Shell) {
    let node = node(shell);
    put(&node, "left:amd64", "1 config-files");
    let mut agent = node.agent();
    let options = PackageOptions { recommends: Some(false), release: Some("bookworm-backports".into()), purge: false };
    settles(&mut agent, &with(present("less"), options));
    let options = "-o APT::Default-Release=bookworm-backports -o APT::Install-Recommends=false install";
    assert_eq!(calls(&node, options), 1, "{}", node.read("calls"));
    assert_eq!(effects(&apply(&mut agent, &absent("left"))), [Unchanged]);
    settles(&mut agent, &with(absent("left"), PackageOptions { purge: true, ..PackageOptions::default() }));
    assert_eq!(calls(&node, "remove --purge left"), 1, "{}", node.read("calls"));
    // Its environment is the action's alone.
    let show = fs::read_to_string(node.file("bin/apt-get")).unwrap().replace("verb=", "echo \"[$https_proxy]\"; verb=");
    fs::write(node.file("bin/apt-get"), show).unwrap();
    let env = vec![("https_proxy".to_owned(), "http://it's:3128 $x".to_owned())];
    let ended = run(&mut agent, Call { env, ..Call::new("it", present("mawk")) });
    assert_eq!(effects(&ended), [Changed], "{}", ended.output);
    assert!(ended.output.contains("[http://it's:3128 $x]"), "{}", ended.output);
    agent.bye();
}

fn a_source_that_breaks_all_others_is_taken_back(shell: Shell) {
    let node = node(shell);
    let mut agent = node.agent();
    let ActionKind::PackageSource { apt, state, manager, .. } = source("apt", Present) else { return };
    let kind = ActionKind::PackageSource { name: "conflict".into(), apt, dnf: None, apk: None, state, manager };
    let ended = apply(&mut agent, &kind);
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("which was taken back"), "{}", ended.output);
    assert!(!node.file("etc-apt/sources.list.d/conflict.sources").exists());
    assert!(!node.file("etc-apt/keyrings/conflict.asc").exists());
    fs::write(node.file("etc-apt/sources.list.d/conflict.sources"), "former\n").unwrap();
    assert_eq!(effects(&apply(&mut agent, &kind)), [Failed]);
    assert_eq!(node.read("etc-apt/sources.list.d/conflict.sources"), "former\n");
    assert_eq!(effects(&apply(&mut agent, &source("apt", Present))), [Failed], "another one is still wrong");
    agent.bye();
}

/// rpm and apk tell of a name what provides it, too.
fn what_provides_a_name_is_not_removed_for_it(shell: Shell) {
    const RPM: &str = r#"for name in "$@"; do :; done; case "$*" in *whatprovides*) exit 0 ;; esac; [ -e "db/$name" ]"#;
    const APK: &str = r#"echo "$*" >>calls; case $1 in info) echo mawk-1.3 ;; esac"#;
    let node = managers::node(shell, &[("rpm", RPM), ("apk", APK)]);
    let mut agent = node.agent();
    for manager in ["dnf", "apk"] {
        if manager == "dnf" && shell == Shell::Busybox {
            continue;
        }
        let ended = apply(&mut agent, &package(manager, PackageState::Absent, &["awk"]));
        assert_eq!(effects(&ended), [Unchanged], "{manager}: {}", ended.output);
    }
    agent.bye();
}
