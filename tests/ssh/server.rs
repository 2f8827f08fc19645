//! A real sshd on loopback, with a configuration and keys of its own.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use pallet_core::{
    phase::action::KeyRef,
    target::{Endpoint, Hop, Trust},
};

/// A directory that is removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pallet-ssh-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a key pair, if there is none of that name. Returns the public line without its comment.
    pub fn key(&self, name: &str, kind: &str) -> String {
        let path = self.path(name);
        if !path.exists() {
            keygen(&["-t", kind, "-N", "", "-C", "", "-f", path.to_str().unwrap()]);
        }
        fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
    }

    /// Signs the public key of `name`, with what else `ssh-keygen` is to be told.
    pub fn certify(&self, authority: &str, name: &str, arguments: &[&str]) {
        let (authority, public) = (self.path(authority), self.path(name).with_extension("pub"));
        let mut all = vec!["-s", authority.to_str().unwrap(), "-I", name];
        all.extend(arguments);
        all.push(public.to_str().unwrap());
        keygen(&all);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What was killed a moment ago may still be writing there.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn keygen(arguments: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    if arguments.contains(&"rsa") {
        // Larger ones take seconds to be found.
        command.args(["-b", "2048"]);
    }
    let made = command.arg("-q").args(arguments).stdin(Stdio::null()).output();
    let made = made.expect("ssh-keygen is needed: install openssh-client");
    assert!(made.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn root() -> bool {
    said("id", &["-u"]) == "0"
}

/// Whether the test can be done: what needs root is skipped loudly without it, but never where `CI` is set.
pub fn have_root(test: &str) -> bool {
    let root = root();
    if !root {
        eprintln!("\n*** SKIPPED: {test} needs root, for namespaces of its own ***\n");
        assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI: run the tests as root");
    }
    root
}

/// Where sshd is: it insists on being called by its whole path.
fn sshd() -> PathBuf {
    let directories = ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin", "/run/current-system/sw/bin"];
    let found = directories.iter().map(|directory| Path::new(directory).join("sshd")).find(|path| path.exists());
    found.expect("sshd is needed: install openssh-server (it is not to be started; the tests start their own)")
}

/// How a server is to be.
pub struct Setup {
    /// Kinds of host keys.
    pub host_keys: Vec<&'static str>,
    /// Further lines of its configuration.
    pub config: String,
    /// Commands of a shell before it starts, in namespaces of its own. For root only.
    pub before: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self { host_keys: vec!["ed25519"], config: String::new(), before: String::new() }
    }
}

/// A server that listens.
pub struct Server {
    pub scratch: Scratch,
    pub port: u16,
    child: Child,
}

impl Server {
    pub fn start(setup: &Setup) -> Self {
        Self::start_in(Scratch::new(), setup)
    }

    /// With keys that were made before. The login's key is `login`, that of the host `host-KIND`.
    pub fn start_in(scratch: Scratch, setup: &Setup) -> Self {
        let login = scratch.key("login", "ed25519");
        fs::write(scratch.path("authorized_keys"), format!("{login}\n")).unwrap();
        for kind in &setup.host_keys {
            scratch.key(&format!("host-{kind}"), kind);
        }
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = launch(&scratch, setup, port);
            if listens(&mut child, &scratch.path("log"), port) {
                return Self { scratch, port, child };
            }
        }
        panic!("sshd does not start: {}", fs::read_to_string(scratch.path("log")).unwrap_or_default());
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).unwrap()
    }

    /// How often somebody was let in.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// Ends it, and with root all that it has started.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to all that serves connections, but not to what listens for them.
    pub fn signal_sessions(&self, signal: &str) {
        let children = |of: &str| said("pgrep", &["-P", of]).lines().map(str::to_owned).collect::<Vec<_>>();
        let own = self.child.id().to_string();
        let listener = if root() { children(&own).pop().unwrap() } else { own };
        let mut found = children(&listener);
        let mut at = 0;
        while at < found.len() {
            found.extend(children(&found[at]));
            at += 1;
        }
        assert!(!found.is_empty(), "nobody is connected");
        found.iter().for_each(|process| drop(said("kill", &["-s", signal, process])));
    }

    pub fn host_key(&self, kind: &str) -> String {
        self.scratch.key(&format!("host-{kind}"), kind)
    }

    /// As an endpoint that trusts its first host key, with the login's key as the Secret `login`, key `id`.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            namespace: "shop".into(),
            name: "web-1".into(),
            address: "127.0.0.1".into(),
            port: self.port,
            user: said("id", &["-un"]),
            key: KeyRef { name: "login".into(), key: "id".into() },
            trust: ["ed25519", "ecdsa"]
                .iter()
                .filter(|kind| self.scratch.path(&format!("host-{kind}")).exists())
                .take(1)
                .map(|kind| Trust::Key(self.host_key(kind)))
                .collect(),
            jump: None,
            elevation: None,
            connect_timeout: Duration::from_secs(30),
        }
    }

    /// As a jump host.
    pub fn hop(&self) -> Box<Hop> {
        let Endpoint { address, port, user, trust, .. } = self.endpoint();
        Box::new(Hop { address, port, user, trust, key: KeyRef { name: "hop".into(), key: "id".into() } })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(scratch: &Scratch, setup: &Setup, port: u16) -> Child {
    let directory = scratch.0.display();
    let mut config = format!(
        "ListenAddress 127.0.0.1:{port}\nAuthorizedKeysFile {directory}/authorized_keys\nPidFile none\nUsePAM no\nUseDNS no\n\
         StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
         MaxStartups 200\nLogLevel VERBOSE\nSetEnv PALLET_STATE_DIR={directory}/state\n"
    );
    for kind in &setup.host_keys {
        config += &format!("HostKey {directory}/host-{kind}\n");
    }
    let config_path = scratch.path("sshd_config");
    // Of two lines the first counts.
    fs::write(&config_path, setup.config.clone() + &config).unwrap();
    let log = scratch.path("log");
    let serve = ["-D".as_ref(), "-f".as_ref(), config_path.as_os_str(), "-E".as_ref(), log.as_os_str()];
    let mut command = if root() {
        // Namespaces of its own, so that everything it starts ends with it, and it with the test; and users of its own,
        // so that nothing in the home directory of whoever runs the tests takes part.
        let script = format!(
            "mount -t tmpfs none /run; mkdir /run/sshd; mkdir -p {directory}/etc {directory}/home; cd {directory}/etc
             cp -p /etc/passwd /etc/shadow /etc/group .
             sed -i 's#^root:.*#root:x:0:0::{directory}/home:/bin/sh#' passwd
             for file in passwd shadow group; do mount --bind $file /etc/$file; done
             {}
             exec \"$0\" \"$@\"",
            setup.before
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "sh", "-ec", &script]).arg(sshd());
        command
    } else {
        assert!(setup.before.is_empty(), "this needs root");
        Command::new(sshd())
    };
    command.args(serve).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn listens(child: &mut Child, log: &Path, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if fs::read_to_string(log).is_ok_and(|log| log.contains(&format!("listening on 127.0.0.1 port {port}"))) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
