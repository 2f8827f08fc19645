//! A node as the tests see it: a state directory, and agents that are started on it under one shell.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use pallet_core::session::{
    agent::{LOADER, script as agent},
    frame::{Decoder, Ended, Frame, Past, Verdict},
};

/// The longest that anything is waited for that should come at once.
pub const SOON: Duration = Duration::from_secs(20);

/// The pod that the tests' nodes say they are.
pub const UID: &str = "0c5e3d8a-uid";

/// Where the tests' files are.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    // Some tests lay other file systems over /tmp and /var/tmp; a checkout below them must not go with them.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let covered = target.starts_with("/tmp") || target.starts_with("/var/tmp");
    let root = if covered { Path::new("/run") } else { target }.join(format!("pallet-agent-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    root
});

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A run's name. No two tests share one, since the agent finds the processes of a run by it.
pub fn run_id() -> String {
    format!("configure-{:x}-{:04x}", std::process::id(), number())
}

/// What `sh` is on a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shell {
    /// Busybox's, with no tools but busybox's.
    Busybox,
    /// Debian's, with GNU tools.
    Dash,
    /// Red Hat's: bash that is called sh, with GNU tools.
    Bash,
}

impl Shell {
    /// A directory that holds `sh`, and all tools where they are the shell's own.
    pub fn bin(self) -> &'static Path {
        static BINS: LazyLock<[PathBuf; 3]> = LazyLock::new(|| {
            ["busybox", "dash", "bash"].map(|name| {
                let bin = ROOT.join(format!("bin-{name}"));
                fs::create_dir_all(&bin).unwrap();
                let program = find(name);
                if name == "busybox" {
                    let list = Command::new(&program).arg("--list").output().unwrap();
                    for applet in String::from_utf8(list.stdout).unwrap().lines() {
                        symlink(&program, bin.join(applet)).unwrap();
                    }
                } else {
                    symlink(program, bin.join("sh")).unwrap();
                }
                bin
            })
        });
        &BINS[self as usize]
    }

    fn path(self) -> String {
        let tools = if self == Shell::Busybox { "" } else { ":/usr/sbin:/usr/bin:/sbin:/bin" };
        format!("{}{tools}", self.bin().display())
    }
}

pub fn find(program: &str) -> PathBuf {
    let places = ["/usr/bin", "/bin", "/usr/local/bin"].map(|place| Path::new(place).join(program));
    let found = places.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not here; the agent tier needs busybox-static, dash and bash"))
}

/// A node: one state directory, on which agents follow each other or meet.
pub struct Node {
    pub shell: Shell,
    pub dir: PathBuf,
    /// What `PATH` is, where it is not the shell's.
    pub path: Option<String>,
    /// What is done in a mount namespace of its own before an agent starts.
    pub namespace: Option<String>,
    mounted: bool,
}

impl Node {
    pub fn new(shell: Shell) -> Self {
        let dir = ROOT.join(format!("{shell:?}-{}", number()));
        fs::create_dir_all(&dir).unwrap();
        Self { shell, dir, path: None, namespace: None, mounted: false }
    }

    /// A node whose state directory is a small file system of its own.
    pub fn with_disk(shell: Shell, options: &str) -> Self {
        let mut node = Self::new(shell);
        fs::create_dir(node.state()).unwrap();
        node.mount(options);
        node
    }

    pub fn mount(&mut self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "pallet-agent-test"]).arg(self.state());
        assert!(mount.status().unwrap().success(), "a small file system cannot be mounted; this test needs root");
        self.mounted = true;
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A file that scripts and tests share.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// The loader, waiting for its greeting.
    fn command(&self) -> Command {
        let sh = self.shell.bin().join("sh");
        let mut command = match &self.namespace {
            None => Command::new(sh),
            Some(setup) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "/bin/sh", "-ec"]);
                command.arg(format!("{setup}\nexec \"$0\" \"$@\"")).arg(sh);
                command
            }
        };
        // An exec into a container is the leader of a group of its own, too.
        command.args(["-c", LOADER]).env_clear().process_group(0).current_dir(&self.dir);
        command.env("PATH", self.path.clone().unwrap_or_else(|| self.shell.path()));
        command.env("PALLET_STATE_DIR", self.state()).env("PALLET_POD_UID", UID).env("LC_ALL", "C.UTF-8");
        command
    }

    /// An agent that was greeted and has told its journal.
    pub fn agent(&self) -> Agent {
        let mut agent = Agent::start(self);
        agent.greet(agent::text(), UID);
        agent.meet();
        agent
    }

    /// The processes that were started on this node and are not zombies.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if self.has_started(pid) {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ").chars().take(60).collect()));
            }
        }
        found
    }

    fn has_started(&self, pid: u32) -> bool {
        let mark = format!("PALLET_STATE_DIR={}\0", self.state().display()).into_bytes();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(mark.len()).any(|window| window == mark)
    }

    /// Waits until nothing that was started on this node is left.
    pub fn wait_until_quiet(&self) {
        wait_until(|| format!("still there: {:?}", self.processes()), || self.processes().is_empty());
    }

    /// Whether any file of the state directory holds these bytes.
    pub fn keeps(&self, text: &str) -> Option<PathBuf> {
        fn search(dir: &Path, text: &[u8]) -> Option<PathBuf> {
            fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
                let path = entry.path();
                let kind = entry.file_type().ok()?;
                if kind.is_dir() {
                    return search(&path, text);
                }
                // A pipe is read by whoever waits for it.
                if !kind.is_file() {
                    return None;
                }
                let bytes = fs::read(&path).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text).then_some(path)
            })
        }
        search(&self.state(), text.as_bytes())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for (pid, _) in left {
                // Numbers come round within seconds while all tests run.
                if self.has_started(pid) {
                    signal(pid, "KILL");
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        if self.mounted {
            let _ = Command::new("umount").arg(self.state()).status();
        }
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The agent's text, and ways to make it die.
pub mod agent {
    use super::*;

    pub fn text() -> &'static str {
        super::agent()
    }

    /// A variant for each line of a function, in which a command stands before that line.
    pub fn mutants(function: &str, command: &str) -> Vec<(String, String)> {
        let lines: Vec<&str> = text().lines().collect();
        let start = lines.iter().position(|line| *line == format!("{function}() {{")).expect(function);
        let end = start + lines[start..].iter().position(|line| *line == "}").unwrap();
        let variants = (start + 1..=end).filter_map(|place| {
            let mut changed = lines.clone();
            changed.insert(place, command);
            let text = changed.join("\n") + "\n";
            // Between a case and its first pattern, or inside a command that goes over lines, no command can stand.
            parses(&text).then(|| (format!("{function}: before {}", lines[place]), text))
        });
        variants.collect()
    }

    fn parses(text: &str) -> bool {
        let mut dash =
            Command::new(find("dash")).arg("-n").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        dash.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        dash.wait().unwrap().success()
    }
}

/// One agent, from greeting to end.
pub struct Agent {
    pub child: Child,
    stdin: Option<ChildStdin>,
    frames: Receiver<Option<Frame>>,
    raw: Arc<Mutex<Vec<u8>>>,
    nonce: String,
    pub filesystem_id: String,
    pub pasts: Vec<Past>,
}

impl Agent {
    pub fn start(node: &Node) -> Self {
        Self::start_with(node, format!("{:032x}", u128::from(number()) << 64 | 0xfeed))
    }

    pub fn start_with(node: &Node, nonce: String) -> Self {
        let errors = fs::File::options().create(true).append(true).open(node.dir.join("stderr")).unwrap();
        let mut child = node.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (sender, frames) = channel();
        let mut decoder = Decoder::new(&nonce);
        let keep = raw.clone();
        thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                keep.lock().unwrap().extend_from_slice(&buffer[..n]);
                match decoder.push(&buffer[..n]) {
                    Ok(frames) => {
                        for frame in frames {
                            let _ = sender.send(Some(frame));
                        }
                    }
                    Err(error) => {
                        keep.lock().unwrap().extend_from_slice(format!("\n=> {error}").as_bytes());
                        break;
                    }
                }
            }
            let _ = sender.send(None);
        });
        let stdin = child.stdin.take();
        Self { child, stdin, frames, raw, nonce, filesystem_id: String::new(), pasts: Vec::new() }
    }

    /// What its stdin, stdout and stderr are, as `/proc` names them.
    pub fn streams(&self) -> [String; 3] {
        [0, 1, 2].map(|fd| {
            let link = fs::read_link(format!("/proc/{}/fd/{fd}", self.child.id())).unwrap();
            link.display().to_string()
        })
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    pub fn greeting(&self, text: &str, uid: &str) -> Vec<u8> {
        format!("{} {uid}\n{text}hello {} {uid}\n", text.len(), self.nonce).into_bytes()
    }

    pub fn greet(&mut self, text: &str, uid: &str) {
        let greeting = self.greeting(text, uid);
        self.say(greeting);
    }

    /// Takes in the hello, the journal and the ready.
    pub fn meet(&mut self) {
        self.pasts.clear();
        loop {
            match self.hear() {
                Some(Frame::Hello { filesystem_id }) => self.filesystem_id = filesystem_id,
                Some(Frame::Past(past)) => self.pasts.push(past),
                Some(Frame::Ready) => return,
                other => panic!("{other:?} instead of a hello; it said {}", self.said()),
            }
        }
    }

    /// Sends; an agent that is gone takes nothing, which shows in what it says.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        let _ = stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush());
    }

    /// The next reply that is no sign of life; nothing at the end of what it says.
    pub fn hear(&mut self) -> Option<Frame> {
        self.hear_within(SOON)
    }

    pub fn hear_within(&mut self, patience: Duration) -> Option<Frame> {
        let until = Instant::now() + patience;
        loop {
            match self.frames.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Some(Frame::Beat)) => {}
                Ok(frame) => return frame,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("nothing was said for {patience:?}; before: {}", self.said()),
            }
        }
    }

    pub fn refusal(&mut self) -> (String, String) {
        match self.hear() {
            Some(Frame::Refused { reason, message }) => (reason, message),
            other => panic!("{other:?} instead of a refusal; it said {}", self.said()),
        }
    }

    /// Asks for a run.
    pub fn ask(&mut self, id: &str, timeout: u32, script: &str) {
        self.say(request(id, timeout, script));
    }

    /// Asks for a run, which starts.
    pub fn begin(&mut self, id: &str, timeout: u32, script: &str) {
        self.ask(id, timeout, script);
        let frame = self.hear();
        assert_eq!(frame, Some(Frame::Started(id.into())), "it said {}", self.said());
    }

    /// The end of the run that was asked for or joined.
    pub fn ended(&mut self) -> Ended {
        match self.verdict() {
            Frame::Ended(ended) => *ended,
            other => panic!("{other:?} instead of a result; it said {}", self.said()),
        }
    }

    /// What came of a request: not that it started or was joined.
    pub fn verdict(&mut self) -> Frame {
        loop {
            match self.hear() {
                Some(Frame::Started(_) | Frame::Attached(_)) => {}
                Some(frame) => return frame,
                None => panic!("no result; it said {}", self.said()),
            }
        }
    }

    /// Runs a script to its end.
    pub fn run(&mut self, script: &str) -> Ended {
        let id = run_id();
        self.ask(&id, 60, script);
        let ended = self.ended();
        assert_eq!((ended.run_id.as_str(), ended.attempt), (id.as_str(), 1));
        ended
    }

    /// Runs a script that succeeds.
    pub fn succeed(&mut self, script: &str) -> Ended {
        let ended = self.run(script);
        assert_eq!(ended.verdict, Verdict::Exit(0), "{ended:?}");
        ended
    }

    /// The connection is cut and the shell killed.
    pub fn kill(&mut self) {
        signal(self.child.id(), "KILL");
        self.stdin = None;
        wait_until(|| "the agent outlives a KILL".into(), || self.child.try_wait().unwrap().is_some());
    }

    /// The connection is cut; the shell is not told.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Waits for the shell's end and gives its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(
            || "the agent does not end".into(),
            || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
        );
        status.and_then(|status| status.code())
    }

    /// Takes its leave; nothing further may have been said.
    pub fn bye(mut self) {
        self.say("bye\n");
        let rest = self.hear();
        assert_eq!(rest, None, "it said {}", self.said());
        assert_eq!(self.wait(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn request(id: &str, timeout: u32, script: &str) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_second();
    format!("run {id} {timeout} {} configure 1 d0 0 - 0 {now}\n{script}", script.len()).into_bytes()
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Whether a process is there and no zombie.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub fn wait_until(what: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < until, "after {SOON:?}: {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}

impl Agent {
    /// Waits until the shell is gone or the result of a run has come.
    pub fn until_it_dies_or_tells(&mut self) {
        wait_until(
            || "it neither dies nor tells".into(),
            || {
                let told = self.frames.try_iter().any(|frame| matches!(frame, Some(Frame::Ended(_))));
                told || self.child.try_wait().unwrap().is_some()
            },
        );
    }

    /// The next reply that is no sign of life, if it comes soon enough.
    pub fn try_hear(&mut self, patience: Duration) -> Option<Frame> {
        match self.frames.recv_timeout(patience) {
            Ok(Some(Frame::Beat)) | Err(RecvTimeoutError::Timeout) => None,
            Ok(Some(frame)) => Some(frame),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => panic!("it ended; it said {}", self.said()),
        }
    }
}
