//! The stand-in for `sh` in fake pods knows how a session begins, so it has to follow the loader.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use pallet_core::session::agent::LOADER;

/// Runs `sh ARGUMENTS` as kwok does, with `input` on a stdin that stays open until the process has ended.
fn in_fake_pod(state: &std::path::Path, arguments: &[&str], input: &str) -> String {
    let mut process = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/kwok/sh"))
        .args(arguments)
        .env("KWOK_NODES", state)
        .env_remove("PALLET_POD_UID")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the stand-in starts");
    let mut stdin = process.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("the stand-in takes input");
    let output = process.wait_with_output().expect("the stand-in ends though its stdin stays open");
    drop(stdin);
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_session_finds_the_pods_own_uid_and_directory_and_its_stdin_untouched() {
    let state = std::env::temp_dir().join(format!("pallet-kwok-shell-{}", std::process::id()));
    let agent = "read -r rest; echo \"$PALLET_POD_UID $PALLET_STATE_DIR $rest\"\n";
    for uid in ["0a-1", "0a-2"] {
        let input = format!("{} {uid}\n{agent}what follows  the agent\n", agent.len());
        let said = in_fake_pod(&state, &["-c", LOADER], &input);
        assert_eq!(said, format!("{uid} {}/{uid} what follows  the agent\n", state.display()));
    }
}

#[test]
fn any_other_shell_is_the_real_one() {
    let nowhere = std::path::Path::new("/nonexistent");
    let said =
        in_fake_pod(nowhere, &["-c", "read -r line; echo \"$0 $1 $line ${PALLET_POD_UID-none}\"", "a", "b"], "c\n");
    assert_eq!(said, "a b c none\n");
}
