//! What scripts print: any bytes, any amount, and never a reply.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use pallet_core::session::frame::{Frame, Verdict};

use crate::node::{Agent, Node, SOON, Shell, UID, agent, run_id, wait_until};

under_every_shell! {
    the_tail_is_what_was_printed_last
    binary_output_harms_nothing
    escape_sequences_are_left_out
    a_flood_without_newlines_is_bounded
    many_small_writes_are_counted
    thousands_of_lines_about_actions_are_told_in_time
    a_size_that_was_lost_with_the_disk_is_no_reason_to_say_nothing
    no_output_passes_for_a_reply
}

fn the_tail_is_what_was_printed_last(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let nothing = agent.succeed("true");
    assert_eq!((nothing.output.as_str(), nothing.output_bytes), ("", 0));
    let both = agent.succeed("echo out; echo err >&2; printf 'no newline'");
    assert_eq!((both.output.as_str(), both.output_bytes), ("out\nerr\nno newline", 18));
    for length in [2047, 2048, 2049, 5000] {
        let ended =
            agent.succeed(&format!("n=0; while [ $n -lt {length} ]; do printf $((n % 10)); n=$((n + 1)); done"));
        let all: String = (0..length).map(|n| char::from(b'0' + (n % 10) as u8)).collect();
        assert_eq!(ended.output_bytes, length);
        assert_eq!(ended.output, all[all.len().saturating_sub(2048)..]);
    }
    agent.bye();
}

fn binary_output_harms_nothing(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let bytes: Vec<u8> = (0..3000u32).map(|n| (n * 167 % 256) as u8).collect();
    fs::write(node.file("binary"), &bytes).unwrap();
    let ended = agent.run(&format!("cat {}; exit 5", node.file("binary").display()));
    // The decoder compares the hash of what came with what the agent sent.
    assert_eq!((ended.verdict, ended.output_bytes), (Verdict::Exit(5), 3000));
    assert!(agent.said().contains("exit:5"));
    let random = agent.succeed("head -c 100000 /dev/urandom");
    assert_eq!(random.output_bytes, 100_000);
    assert_eq!(agent.succeed("echo after").output, "after\n");
    agent.bye();
}

fn escape_sequences_are_left_out(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let ended = agent.succeed(r"printf '\033[1;31mred\033[0m\r\n\033[2J\033[Hplain\n'");
    assert_eq!(ended.output, "red\nplain\n");
    assert_eq!(ended.output_bytes, 29);
    agent.bye();
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) })
        .sum()
}

fn a_flood_without_newlines_is_bounded(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let id = run_id();
    let began = Instant::now();
    agent.begin(&id, 120, "dd if=/dev/zero bs=65536 count=3200 2>/dev/null; printf 'the end'");
    // The journal is watched while it grows.
    let mut largest = 0;
    let ended = loop {
        largest = largest.max(size(&node.state()));
        match agent.try_hear(Duration::from_millis(20)) {
            None => {}
            Some(Frame::Ended(ended)) => break ended,
            Some(other) => panic!("{other:?}"),
        }
    };
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((ended.verdict, ended.output_bytes), (Verdict::Exit(0), 3200 * 65536 + 7));
    assert_eq!(ended.output, "the end");
    largest = largest.max(size(&node.state()));
    assert!((1 << 20..8 << 20).contains(&largest), "the journal held {largest} bytes");
    agent.bye();
}

fn many_small_writes_are_counted(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let ended = agent.succeed("n=0; while [ $n -lt 60000 ]; do echo line number $n; n=$((n + 1)); done");
    let all: String = (0..60_000).map(|n| format!("line number {n}\n")).collect();
    assert_eq!(ended.output_bytes as usize, all.len());
    assert_eq!(ended.output, all[all.len() - 2048..]);
    agent.bye();
}

fn thousands_of_lines_about_actions_are_told_in_time(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let script = "n=0; while [ $n -lt 250 ]; do echo \"Changed a$n\"; d=0; while [ $d -lt 40 ]; do \
        printf '\\t+a line of twenty-four\\n'; d=$((d + 1)); done; n=$((n + 1)); done >\"$PALLET_JOURNAL/actions\"; touch told";
    agent.begin(&run_id(), 60, script);
    wait_until(|| "it is not written".into(), || node.file("told").exists());
    let began = Instant::now();
    let ended = agent.ended();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!((ended.verdict, ended.actions.len()), (Verdict::Exit(0), 250));
    agent.bye();
}

fn a_size_that_was_lost_with_the_disk_is_no_reason_to_say_nothing(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let ended = agent.succeed("true >\"$PALLET_JOURNAL/rotated\"");
    assert_eq!((ended.output_bytes, ended.output.as_str()), (0, ""));
    agent.bye();
}

fn no_output_passes_for_a_reply(shell: Shell) {
    let node = Node::new(shell);
    // Even one who guessed the shape of a nonce does not know this one.
    let mut agent = Agent::start_with(&node, "00000000000000000000000000000a11".into());
    agent.greet(agent::text(), UID);
    agent.meet();
    let forged = |nonce: &str, id: &str| {
        format!(
            "{nonce} ended {id} configure 1 d0 exit:0 1 2 0 - - 0 0 0 0\n{nonce} beat\n{nonce} refused disk forged\n{nonce} facts 5\n"
        )
    };
    let id = run_id();
    let text = forged("00000000000000000000000000000a12", &id) + &forged("", &id) + &forged("-", &id);
    agent.begin(&id, 60, &format!("cat <<'EOF'\n{text}EOF\nexit 9"));
    let ended = agent.ended();
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(9), text.as_str()));
    // Nor does the right one help: output is counted, and what it could do is look at the agent's environment.
    let id = run_id();
    let text = forged("00000000000000000000000000000a11", &id);
    agent.begin(&id, 60, &format!("cat <<'EOF'\n{text}EOF\nexit 8"));
    let ended = agent.ended();
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(8), text.as_str()));
    let leak = agent.succeed(r#"cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -c "0000000000a1[1]"; env | grep -c "0000000000a1[1]"; true"#);
    assert_eq!(leak.output, "0\n0\n", "the nonce is in an environment or an argument list");
    agent.bye();
}
