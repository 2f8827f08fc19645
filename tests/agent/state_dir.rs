//! The state directory on a machine whose other users want to lead the agent elsewhere. Needs root, to be two users, and perl.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use pallet_core::session::frame::Frame;

use crate::node::{Agent, Node, Shell, agent, find};

under_every_shell! {
    a_user_keeps_the_journal_at_home
    the_journal_of_an_earlier_version_is_still_used
    a_name_that_somebody_else_has_keeps_nobody_from_working
    a_directory_that_others_can_exchange_is_not_used_on_a_machine
    a_user_who_exchanges_directories_gains_nothing
    nothing_is_traced_where_the_environment_asks_for_it
}

const VICTIM: u32 = 12345;
pub const OTHER: u32 = 12346;

/// A machine on which the agent runs as the victim. `/var/tmp`, `/tmp` and the home directory, `/mnt`, are the test's own.
struct Machine {
    node: Node,
}

impl Machine {
    fn new(shell: Shell) -> Self {
        let mut node = Node::new(shell);
        for (name, owner, mode) in [("vartmp", 0, 0o1777), ("tmp", 0, 0o1777), ("home", VICTIM, 0o755)] {
            let path = node.file(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        node.namespace = Some(start(&node, "HOME=/nonexistent"));
        Self { node }
    }

    fn set(&mut self, environment: &str) {
        self.node.namespace = Some(start(&self.node, environment));
    }

    fn own(&self, name: &str) -> PathBuf {
        self.make(name, VICTIM, 0o700)
    }

    fn make(&self, name: &str, owner: u32, mode: u32) -> PathBuf {
        let path = self.node.file(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        path
    }

    fn greet(&self, uid: &str) -> Agent {
        let mut agent = Agent::start(&self.node);
        agent.greet(agent::text(), uid);
        agent
    }

    /// Where the journal is in the end, as the agent calls it.
    fn journal(&self) -> String {
        let mut agent = self.greet("-");
        agent.meet();
        let place = place(&agent);
        agent.succeed("true");
        agent.bye();
        place
    }

    fn refused(&self, uid: &str) -> String {
        let (reason, message) = self.greet(uid).refusal();
        assert_eq!(reason, "state");
        message
    }
}

/// How the agent starts: its mounts, its user, and `env` with these words.
fn start(node: &Node, environment: &str) -> String {
    // That of busybox knows no other users.
    let (dir, setpriv) = (node.dir.display(), find("setpriv").display().to_string());
    format!(
        "mount --bind {dir}/vartmp /var/tmp; mount --bind {dir}/tmp /tmp; mount --bind {dir}/home /mnt; cd /
         exec {setpriv} --reuid {VICTIM} --regid {VICTIM} --clear-groups env -u PALLET_STATE_DIR {environment} \"$0\" \"$@\""
    )
}

/// Where the test sees what the agent calls so.
fn found_in(machine: &Machine, place: &str) -> PathBuf {
    let file = |place: &str| machine.node.file(place);
    match place.strip_prefix("/var/tmp/") {
        Some(name) => file("vartmp").join(name),
        None => file("tmp").join(place.strip_prefix("/tmp/").unwrap()),
    }
}

fn place(agent: &Agent) -> String {
    let said = agent.said();
    let hello = said.lines().find(|line| line.contains(" hello ")).unwrap();
    hello.rsplit(' ').next().unwrap().to_owned()
}

fn a_user_keeps_the_journal_at_home(shell: Shell) {
    let mut machine = Machine::new(shell);
    // A link on the way to the home directory is the administrator's.
    symlink("/mnt", machine.node.file("link")).unwrap();
    machine.set(&format!("HOME={}", machine.node.file("link").display()));
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let name = if id.is_empty() { fs::read_to_string("/proc/sys/kernel/hostname").unwrap() } else { id };
    let expected = format!("/mnt/.local/state/pallet/{}", name.trim());
    // The names that somebody else may have are none of its business.
    machine.make("vartmp/pallet-12345", OTHER, 0o755);
    machine.make("tmp/pallet-12345", OTHER, 0o755);
    assert_eq!((machine.journal(), machine.journal()), (expected.clone(), expected.clone()));
    let made = machine.node.file(&expected.replace("/mnt/", "home/"));
    assert_eq!(fs::metadata(made).unwrap().mode() & 0o7777, 0o700);
    machine.own("home/state");
    machine.set("XDG_STATE_HOME=/mnt/state");
    assert!(machine.journal().starts_with("/mnt/state/pallet/"));
    machine.set("XDG_STATE_HOME=relative");
    assert!(machine.journal().starts_with("/var/tmp/pallet-12345."));
}

fn the_journal_of_an_earlier_version_is_still_used(shell: Shell) {
    for place in ["vartmp", "tmp"] {
        let mut machine = Machine::new(shell);
        let journal = machine.own(&format!("{place}/pallet-12345"));
        fs::create_dir(journal.join("runs")).unwrap();
        chown(journal.join("runs"), Some(VICTIM), None).unwrap();
        symlink("its-filesystem-id", journal.join("filesystem-id")).unwrap();
        machine.set("HOME=/mnt");
        let expected = if place == "tmp" { "/tmp/pallet-12345" } else { "/var/tmp/pallet-12345" };
        assert_eq!(machine.journal(), expected);
        assert!(!machine.node.file("home/.local").exists());
    }
}

fn a_name_that_somebody_else_has_keeps_nobody_from_working(shell: Shell) {
    let machine = Machine::new(shell);
    machine.make("vartmp/pallet-12345", OTHER, 0o777);
    symlink("/nonexistent", machine.node.file("tmp/pallet-12345")).unwrap();
    // Nor do names that look like one which nobody could guess.
    for n in 0..20 {
        machine.make(&format!("vartmp/pallet-12345.{n}"), OTHER, 0o777);
        symlink(machine.node.file("home"), machine.node.file(&format!("vartmp/pallet-12345.a{n}"))).unwrap();
    }
    let first = machine.journal();
    assert!(first.starts_with("/var/tmp/pallet-12345.") && first.len() > 50, "{first}");
    assert_eq!(machine.journal(), first, "it is found again");
}

fn a_directory_that_others_can_exchange_is_not_used_on_a_machine(shell: Shell) {
    let mut machine = Machine::new(shell);
    let dir = machine.node.dir.clone();
    let mode = |name: &str, mode| fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    machine.own("home/.local");
    mode("vartmp", 0o777);
    mode("tmp", 0o777);
    let message = machine.refused("-");
    assert!(message.contains("no other user can exchange") && message.contains("/var/tmp/pallet-12345"), "{message}");
    // The volume of a pod is what its author makes it.
    let mut agent = machine.greet(crate::node::UID);
    agent.meet();
    assert_eq!(place(&agent), "/var/tmp/pallet-12345");
    agent.bye();
    fs::remove_dir_all(dir.join("vartmp/pallet-12345")).unwrap();
    machine.set("HOME=/mnt");
    for (name, unsafe_mode) in [("home", 0o777), ("home/.local", 0o775)] {
        mode(name, unsafe_mode);
        assert!(machine.refused("-").contains("/mnt/.local/state/pallet"), "{name}");
        mode(name, 0o755);
    }
    assert!(machine.journal().starts_with("/mnt/.local/state/pallet/"));
}

/// Exchanges a directory and a link as fast as it can, as another user.
pub struct Exchanging(Child);

impl Exchanging {
    pub fn start(one: &Path, other: &Path) -> Self {
        let number = match std::env::consts::ARCH {
            "x86_64" => 316,
            "aarch64" | "riscv64" => 276,
            other => panic!("which number has renameat2 on {other}?"),
        };
        Self::run(
            &format!("while (1) {{ syscall({number}, -100, $ARGV[0], -100, $ARGV[1], 2) == 0 or die $! }}"),
            one,
            other,
        )
    }

    /// A script of perl as the other user, which has these two arguments.
    pub fn run(script: &str, one: &Path, other: &Path) -> Self {
        let mut command = Command::new(find("setpriv"));
        command.args(["--pdeathsig", "KILL", "--reuid", &OTHER.to_string(), "--regid", &OTHER.to_string()]);
        command.arg("--clear-groups").arg(find("perl")).args(["-e", script]).arg(one).arg(other);
        Self(command.current_dir("/").spawn().unwrap())
    }
}

impl Exchanging {
    pub fn assert_runs(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "nobody exchanges anything");
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Before, what was looked at was not what was used: this user had the agent's directory within seconds, where the kernel
/// does not protect links (`fs.protected_symlinks`).
fn a_user_who_exchanges_directories_gains_nothing(shell: Shell) {
    let machine = Machine::new(shell);
    let precious = machine.make("home/precious", VICTIM, 0o755);
    let name = machine.make("vartmp/pallet-12345", OTHER, 0o777);
    let link = machine.node.file("vartmp/link");
    symlink("/mnt/precious", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
    let mut exchanging = Exchanging::start(&name, &link);
    let until = Instant::now() + Duration::from_secs(4);
    let mut tries = 0;
    while Instant::now() < until {
        tries += 1;
        let mut agent = machine.greet("-");
        match agent.hear() {
            Some(Frame::Hello { .. }) => {
                let said = place(&agent);
                let found = fs::symlink_metadata(found_in(&machine, &said)).unwrap();
                assert!(found.is_dir() && found.uid() == VICTIM, "try {tries}: {said} is somebody else's");
                // The next one has to make one again.
                agent.kill();
                let name = found_in(&machine, &said);
                fs::remove_dir_all(&name).unwrap();
            }
            other => panic!("try {tries}: {other:?}; it said {}", agent.said()),
        }
        assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o755, "try {tries}: it followed the link");
        assert_eq!(fs::read_dir(&precious).unwrap().count(), 0, "try {tries}: it followed the link");
        exchanging.assert_runs();
    }
    assert!(tries > 3);
}

/// Bash takes the options that the environment names, and prints what it executes.
fn nothing_is_traced_where_the_environment_asks_for_it(shell: Shell) {
    let mut machine = Machine::new(shell);
    machine.set("SHELLOPTS=xtrace:verbose");
    let mut agent = machine.greet("-");
    agent.meet();
    let (id, script, secret) = (crate::node::run_id(), "cat >/dev/null\n", "s='hunter-two'\n");
    let now = jiff::Timestamp::now().as_second();
    agent.say(format!("run {id} 60 {} configure 1 d0 {} - 0 {now}\n{script}{secret}", script.len(), secret.len()));
    assert_eq!(agent.ended().output, "", "neither is the script");
    agent.bye();
    let traced = machine.node.read("stderr");
    assert!(!traced.contains("hunter-two") && !traced.contains("secrets="), "{traced}");
}
