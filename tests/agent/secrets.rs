//! Secrets: they reach the actions that ask for them, and no file of the node but the ones that are meant.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use pallet_api::group_node::Effect::{Changed, Unchanged};
use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::{KeyRef, RunAs, Sealed, SecretEnv},
        compile,
        render::{Call, Rendered},
        secret::{Secret, Secrets, payload},
    },
    session::frame::{Ended, Verdict},
};

use crate::node::{Agent, Node, Shell, run_id};

under_every_shell! {
    a_secret_reaches_those_that_ask_for_it_and_nobody_else
    a_secret_file_is_made_kept_and_mended_and_never_shown
    a_script_that_never_reads_its_secrets_holds_nobody
    a_secret_of_any_bytes_arrives_whole
    a_check_needs_its_secrets_and_leaves_nothing
    a_script_of_another_user_has_its_secrets_its_guards_and_its_code
}

const CANARY: &str = "c4nary-%s\\n-'quoted' $(x) ünï";

fn sealed(key: &str) -> Sealed {
    Sealed { at: KeyRef { name: "db".into(), key: key.into() }, seal: "s".into() }
}

fn exec(script: &str, lent: &[&str]) -> ActionKind {
    ActionKind::Exec {
        script: script.into(),
        creates: None,
        unless: None,
        only_if: None,
        secret_env: lent.iter().map(|key| SecretEnv { name: key.to_uppercase(), secret: sealed(key) }).collect(),
    }
}

fn secret_file(path: &std::path::Path, key: &str, mode: &str) -> ActionKind {
    ActionKind::SecretFile {
        path: path.to_str().unwrap().into(),
        secret: sealed(key),
        mode: mode.into(),
        owner: None,
        group: None,
    }
}

fn rendered(kinds: Vec<ActionKind>) -> Rendered {
    let calls = kinds.into_iter().enumerate().map(|(place, kind)| Call::new(format!("a{place}"), kind)).collect();
    Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() }
}

/// Somebody else, where that can be had.
fn another() -> String {
    let me = std::process::Command::new("id").arg("-un").output().expect("id");
    let me = String::from_utf8_lossy(&me.stdout).trim().to_owned();
    if me == "root" { "nobody".into() } else { me }
}

fn a_script_of_another_user_has_its_secrets_its_guards_and_its_code(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let user = another();
    let run_as = Some(RunAs { user: user.clone(), password: None });
    let run = |agent: &mut Agent, kind: ActionKind| {
        let calls = vec![Call { run_as: run_as.clone(), ..Call::new("as another", kind) }];
        let rendered = Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() };
        send(agent, &rendered, &compile::phase(&rendered, 0), CANARY.as_bytes())
    };
    let ended = run(&mut agent, exec("id -un; printf '%s' \"$PW\"; false; echo not reached", &["pw"]));
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(1), &*format!("{user}\n{CANARY}")));
    assert_eq!(run(&mut agent, exec("exit 7", &[])).verdict, Verdict::Exit(7));
    let ActionKind::Exec { script, creates, only_if, secret_env, .. } = exec("exit 7", &[]) else { unreachable!() };
    let unless = Some(format!("[ \"$(id -un)\" = {user} ]"));
    let ended = run(&mut agent, ActionKind::Exec { script, creates, unless, only_if, secret_env });
    assert_eq!((ended.verdict, ended.actions[0].result), (Verdict::Exit(0), Unchanged));
    // What only the user of the session can see.
    let creates = |path: &str| {
        let ActionKind::Exec { script, unless, only_if, secret_env, .. } = exec("exit 7", &[]) else { unreachable!() };
        ActionKind::Exec { script, creates: Some(path.into()), unless, only_if, secret_env }
    };
    // A checkout may lie where others cannot get to.
    let hidden = std::env::temp_dir().join(format!("pallet-agent-{}", run_id()));
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("it's"), "").unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    let path = hidden.join("it's").display().to_string();
    assert_eq!(run(&mut agent, creates(&path)).verdict, Verdict::Exit(7), "it is looked for by {user}");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&mut agent, creates(&path)).actions[0].result, Unchanged);
    fs::remove_dir_all(&hidden).unwrap();
    agent.bye();
}

fn send(agent: &mut Agent, rendered: &Rendered, script: &str, value: &[u8]) -> Ended {
    let known: Secrets = [(sealed("pw").at, Secret::new(value))].into();
    let secrets = payload(&compile::secrets(rendered), &known).unwrap();
    let (id, length, beside) = (run_id(), script.len(), secrets.len());
    agent.say(format!("run {id} 60 {length} configure 1 d0 {beside} seal-1 0\n{script}{secrets}"));
    agent.ended()
}

fn perform(agent: &mut Agent, kinds: Vec<ActionKind>, value: &[u8]) -> Ended {
    let rendered = rendered(kinds);
    let script = compile::phase(&rendered, 0);
    send(agent, &rendered, &script, value)
}

fn a_secret_reaches_those_that_ask_for_it_and_nobody_else(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let seen = node.file("seen");
    let has = format!("printf '%s' \"$PW\" >'{}'; env | grep -c '^PW='", seen.display());
    let kinds = vec![exec("env | grep -c PW= || true", &[]), exec(&has, &["pw"]), exec("cat; echo end", &[])];
    let ended = perform(&mut agent, kinds, CANARY.as_bytes());
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(0), "0\n1\nend\n"));
    assert_eq!((ended.seal.as_str(), fs::read_to_string(&seen).unwrap().as_str()), ("seal-1", CANARY));
    assert_eq!(node.keeps("c4nary"), None);
    // Guards have it, too, and an action with a time limit is a process of its own.
    let guarded = ActionKind::Exec {
        script: "exit 9".into(),
        creates: None,
        unless: Some("[ -n \"$PW\" ]".into()),
        only_if: None,
        secret_env: vec![SecretEnv { name: "PW".into(), secret: sealed("pw") }],
    };
    let mut timed = rendered(vec![guarded, exec("echo ${#PW}", &["pw"])]);
    timed.calls[1].timeout = Some(Duration::from_secs(30));
    let script = compile::phase(&timed, 0);
    let ended = send(&mut agent, &timed, &script, b"12345");
    assert_eq!((ended.actions[0].result, ended.output.as_str()), (Unchanged, "5\n"), "{ended:?}");
    agent.bye();
}

fn a_secret_file_is_made_kept_and_mended_and_never_shown(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("pw");
    let file = |mode: &str| secret_file(&path, "pw", mode);
    let ended = perform(&mut agent, vec![file("644"), file("644")], CANARY.as_bytes());
    let results: Vec<_> = ended.actions.iter().map(|action| (action.result, action.diff.as_str())).collect();
    assert_eq!(results, [(Changed, ""), (Unchanged, "")], "{ended:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), CANARY);
    let ended = perform(&mut agent, vec![file("600")], b"other");
    assert_eq!((ended.actions[0].result, ended.actions[0].diff.as_str()), (Changed, ""));
    assert_eq!(fs::read(&path).unwrap(), b"other");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(node.keeps("c4nary"), None);
    agent.bye();
}

fn a_script_that_never_reads_its_secrets_holds_nobody(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let rendered = rendered(vec![exec("true", &["pw"])]);
    // More than a pipe holds.
    let ended = send(&mut agent, &rendered, "echo never read\n", &vec![b'x'; 200_000]);
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(0), "never read\n"));
    assert_eq!(agent.run("echo next").output, "next\n");
    agent.bye();
    node.wait_until_quiet();
}

fn a_secret_of_any_bytes_arrives_whole(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("store");
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).chain(*b"\n\n").collect();
    let ended = perform(&mut agent, vec![secret_file(&path, "pw", "600"), secret_file(&path, "pw", "600")], &bytes);
    assert_eq!(ended.verdict, Verdict::Exit(0), "{ended:?}");
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(ended.actions[1].result, Unchanged);
    agent.bye();
}

fn a_check_needs_its_secrets_and_leaves_nothing(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("pw");
    let rendered = rendered(vec![secret_file(&path, "pw", "644")]);
    let script = compile::check(&rendered, false);
    let ended = send(&mut agent, &rendered, &script, CANARY.as_bytes());
    assert_eq!((ended.actions[0].result, ended.actions[0].diff.as_str()), (Changed, ""));
    assert!(!path.exists() && node.keeps("c4nary").is_none());
    agent.bye();
}
