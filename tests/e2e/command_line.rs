//! The built `kubectl-pallet`, as a person at a terminal and as a pipeline without one use it.

use std::{
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use pallet_api::Lift;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::harness::{PATIENCE, Space, busybox, plugin_binary, script, wait};

/// What a command left behind.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Space {
    /// Runs it without a terminal, in the namespace.
    async fn pallet(&self, arguments: &[&str]) -> Said {
        let run = Command::new(plugin_binary()).args(["-n", &self.name]).args(arguments).stdin(Stdio::null()).output();
        let Output { status, stdout, stderr } =
            tokio::time::timeout(PATIENCE, run).await.expect("it ends in time").expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: status.code().expect("an exit code"), out: text(stdout), err: text(stderr) }
    }

    /// The same, where it has to succeed. Returns what it printed.
    async fn does(&self, arguments: &[&str]) -> String {
        let said = self.pallet(arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    fn file(&self, name: &str, object: &Value) -> String {
        let path = self.scratch(name);
        fs::write(&path, object.to_string()).unwrap();
        path.display().to_string()
    }
}

fn web(count: u32, configure: &str) -> Value {
    json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"},
        "spec": {"count": count, "node": busybox(), "phases": {
            "settings": {"facts": [{"name": "shell", "exec": "echo busybox"}]},
            "configure": {"actions": [{"name": "motd", "file": {"path": "/etc/motd", "content": configure}}]}
        }, "converge": {"retry": {"limit": 0}}}
    })
}

#[tokio::test]
async fn a_pipeline_needs_no_other_tool() {
    let Some(space) = Space::new("cli").await else { return };
    // What would happen, before anything is applied.
    let file = space.file("web.json", &web(2, "one\n"));
    let planned = space.does(&["plan", "-f", &file]).await;
    assert!(planned.contains("create") && planned.contains("0-1"), "{planned}");
    assert!(space.groups().get_opt("web").await.unwrap().is_none(), "a plan applies nothing");
    let applied = space.pallet(&["converge", "-f", &file]).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.out.contains("groupspec.pallet.dev/web converged"), "{applied:?}");
    assert!(applied.err.contains("web-0: converged") && !applied.err.contains('\u{1b}'), "plain lines: {applied:?}");
    let again = space.file("again.json", &web(1, "two\n"));
    let planned: Value = serde_json::from_str(&space.does(&["plan", "-f", &again, "-o", "json"]).await).unwrap();
    assert!(
        planned.to_string().contains("\"configure\"") && planned.to_string().contains("highest ordinal"),
        "{planned}"
    );
    // Pallet's :phase in converge: the count is adjusted, then the phase runs.
    let out = space.does(&["converge", "web", "--count", "3", "--exec", "cat /etc/motd", "-q"]).await;
    for node in ["web-0: one", "web-1: one", "web-2: one"] {
        assert!(out.contains(node), "{out}");
    }
    assert_eq!(space.does(&["nodes", "web", "-o", "name"]).await.lines().count(), 3);
    assert!(space.does(&["status", "web"]).await.contains("Converged"));
    assert!(space.does(&["facts", "web-0", "shell"]).await.contains("busybox"));
    assert!(space.does(&["version"]).await.contains(env!("CARGO_PKG_VERSION")));
    assert!(space.does(&["completion", "bash"]).await.contains("complete"));
}

#[tokio::test]
async fn an_operation_ends_with_a_code_that_scripts_can_rely_on() {
    let Some(space) = Space::new("cli-codes").await else { return };
    let file = space.file("web.json", &web(2, "one\n"));
    space.does(&["converge", "-f", &file, "-q"]).await;
    // Success, and what the nodes printed.
    let said = space.pallet(&["lift", "web", "--exec", "echo from {{ node.name }}", "--name", "good"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "web-0: from web-0\nweb-1: from web-1\n"), "{said:?}");
    // A failure, as people want to read it.
    let failing = "if [ {{ node.ordinal }} = 1 ]; then echo no such luck >&2; exit 7; fi";
    let said = space.pallet(&["lift", "web", "--exec", failing, "--name", "bad"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    for word in ["web-1", "exec[0]", "7", "no such luck"] {
        assert!(said.err.contains(word), "{word} is not said: {said:?}");
    }
    // Waiting raises nothing unless it is asked to.
    assert_eq!(space.pallet(&["wait", "lift/bad"]).await.code, 0);
    assert_eq!(space.pallet(&["wait", "lift/bad", "--raise"]).await.code, 1);
    assert_eq!(space.pallet(&["wait", "lift/good", "--raise"]).await.code, 0);
    let errors = space.pallet(&["errors", "lift/bad", "--raise"]).await;
    assert!(errors.code == 1 && errors.out.contains("no such luck"), "{errors:?}");
    assert_eq!(space.pallet(&["errors", "lift/good", "--raise"]).await.code, 0);
    let object: Lift = serde_json::from_str(&space.does(&["status", "lift/bad", "-o", "json"]).await).unwrap();
    assert_eq!(object.status.unwrap().phase_errors[0].exit_code, Some(7));
    // The time is over, and the caller may choose what that means.
    let late = ["lift", "web", "--exec", "sleep 6000", "--timeout", "2s", "-q"];
    assert_eq!(space.pallet(&late).await.code, 3);
    assert_eq!(space.pallet(&[&late[..], &["--timeout-value", "42"]].concat()).await.code, 42);
    // In the background, and ended from there.
    let made = space.does(&["lift", "web", "--exec", "sleep 6000", "--async", "--name", "long"]).await;
    assert_eq!(made, "lift.pallet.dev/long created\n");
    assert_eq!(space.pallet(&["wait", "lift/long", "--timeout", "1s"]).await.code, 3);
    assert_eq!(space.pallet(&["cancel", "long", "-q"]).await.code, 0);
    assert_eq!(space.pallet(&["wait", "lift/long", "--raise"]).await.code, 1);
    // What is not there, and what makes no sense.
    let said = space.pallet(&["lift", "wbe", "--exec", "true"]).await;
    assert!(said.code == 4 && said.err.contains("wbe"), "{said:?}");
    assert_eq!(space.pallet(&["lift", "web", "--phase", "a", "--exec", "b"]).await.code, 2);
    // A dry run changes nothing and tells what would.
    space.exec("web-0", "echo other >/etc/motd").await;
    let dry = space.does(&["lift", "web", "--dry-run", "-q"]).await;
    assert!(dry.contains("would change") && dry.contains("unchanged"), "{dry}");
    assert_eq!(space.exec("web-0", "cat /etc/motd").await, "other\n");
}

#[tokio::test]
async fn all_that_a_phase_printed_is_read_from_the_journal() {
    let Some(space) = Space::new("cli-logs").await else { return };
    let mut object = web(1, "one\n");
    object["spec"]["phases"]["configure"] = script("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done");
    space.does(&["converge", "-f", &space.file("web.json", &object), "-q"]).await;
    let log = space.does(&["logs", "web-0", "--phase", "configure"]).await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines.first(), lines.last(), lines.len()), (Some(&"line 0"), Some(&"line 1999"), 2000));
    // A group that cannot go on fails, with what to do; its attempts are given back by retry.
    object["spec"]["phases"]["configure"] = script("[ -e /mended ] || { echo not mended; exit 5; }");
    let said = space.pallet(&["converge", "-f", &space.file("web.json", &object)]).await;
    assert!(said.code == 1 && said.err.contains("Stalled"), "{said:?}");
    let errors = space.pallet(&["errors", "web"]).await;
    assert!(errors.out.contains("not mended") && errors.out.contains("retry"), "{errors:?}");
    space.exec("web-0", "touch /mended").await;
    space.does(&["retry", "web"]).await;
    space.does(&["wait", "web", "--raise"]).await;
}

// ---- at a terminal -----------------------------------------------------------------------------------------------------

/// A terminal with the program in it.
struct Terminal {
    pty: pty_process::Pty,
    child: tokio::process::Child,
    seen: String,
}

impl Terminal {
    fn new(space: &Space, arguments: &[&str]) -> Self {
        let (pty, pts) = pty_process::open().expect("a terminal");
        pty.resize(pty_process::Size::new(40, 120)).expect("a size");
        let command =
            pty_process::Command::new(plugin_binary()).args(["-n", &space.name]).args(arguments).env("TERM", "xterm");
        Self { pty, child: command.spawn(pts).expect("it runs"), seen: String::new() }
    }

    /// Reads until all of this was shown.
    async fn shows(&mut self, text: &str) {
        let reading = async {
            let mut buffer = [0; 4096];
            while !self.seen.contains(text) {
                match self.pty.read(&mut buffer).await {
                    Ok(n @ 1..) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                    _ => break,
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert!(self.seen.contains(text), "{text:?} is not shown: {}", self.seen);
    }

    async fn types(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).await.expect("keys");
    }

    /// Reads to the end. Returns the exit code and all that was shown.
    async fn ends(mut self) -> (i32, String) {
        let mut buffer = [0; 4096];
        let reading = async {
            while let Ok(n @ 1..) = self.pty.read(&mut buffer).await {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            self.child.wait().await.expect("it ends").code().expect("an exit code")
        };
        let code = tokio::time::timeout(PATIENCE, reading).await.expect("it ends in time");
        (code, self.seen)
    }
}

const INTERRUPT: &str = "\u{3}";

#[tokio::test]
async fn at_a_terminal_progress_is_live_and_control_c_asks_what_it_means() {
    let Some(space) = Space::new("cli-pty").await else { return };
    space.does(&["converge", "-f", &space.file("web.json", &web(2, "one\n")), "-q"]).await;
    let long = ["lift", "web", "--exec", "while [ ! -e /go ]; do sleep 0.2; done", "--name", "long"];
    let mut terminal = Terminal::new(&space, &long);
    terminal.shows("web-0").await;
    terminal.shows("web-1").await;
    assert!(terminal.seen.contains('\u{1b}'), "lines that change in place");
    // Somebody keeps waiting, and then leaves.
    terminal.types(INTERRUPT).await;
    terminal.shows("[d]etach").await;
    terminal.seen.clear();
    terminal.types("\n").await;
    // Its progress goes on.
    terminal.shows("web-1").await;
    terminal.seen.clear();
    terminal.types(INTERRUPT).await;
    terminal.shows("[c]ancel").await;
    terminal.types("d\n").await;
    let (code, seen) = terminal.ends().await;
    assert!(code == 130 && seen.contains("kubectl pallet wait lift/long --raise"), "{code}: {seen}");
    // It went on, and somebody else ends it.
    let mut terminal = Terminal::new(&space, &["wait", "lift/long", "--raise"]);
    terminal.shows("web-0").await;
    terminal.types(INTERRUPT).await;
    terminal.shows("[c]ancel").await;
    terminal.types("c\n").await;
    let (code, seen) = terminal.ends().await;
    assert!(code == 1 && seen.contains("ancel"), "{code}: {seen}");
    // One that ends by itself.
    space.exec("web-0", "touch /go").await;
    let terminal = Terminal::new(&space, &["lift", "web", "--nodes", "web-0", "--exec", "echo done"]);
    let (code, seen) = terminal.ends().await;
    assert!(code == 0 && seen.contains("done"), "{code}: {seen}");
}

#[tokio::test]
async fn a_person_approves_plans_and_acknowledges_steps_at_the_terminal() {
    let Some(space) = Space::new("cli-person").await else { return };
    let mut object = web(1, "one\n");
    object["spec"]["approval"] = "Manual".into();
    object["spec"]["phases"]["app-rollout"] =
        json!({"actions": [{"name": "migrate", "manual": {"message": "migrate the data"}}]});
    let said = space.pallet(&["converge", "-f", &space.file("web.json", &object)]).await;
    assert!(said.code == 1 && said.err.contains("kubectl pallet approve"), "{said:?}");
    let mut terminal = Terminal::new(&space, &["approve", "web"]);
    terminal.shows("Approve it?").await;
    terminal.types("y\n").await;
    assert_eq!(terminal.ends().await.0, 0);
    space.does(&["wait", "web", "--raise", "-q"]).await;
    // Without a terminal nobody can be asked.
    assert_ne!(space.pallet(&["approve", "web"]).await.code, 0);
    space.does(&["lift", "web", "--phase", "app-rollout", "--async", "--name", "roll"]).await;
    wait("the step waits", || async {
        let said = space.pallet(&["status", "lift/roll"]).await;
        if said.out.contains("ManualStep") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    let mut terminal = Terminal::new(&space, &["ack", "web-0"]);
    terminal.shows("migrate the data").await;
    terminal.shows("[y/N]").await;
    terminal.types("y\n").await;
    assert_eq!(terminal.ends().await.0, 0);
    space.does(&["wait", "lift/roll", "--raise", "-q"]).await;
}
