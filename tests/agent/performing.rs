//! How an action is performed: skipped, after a change, within a time, again and again, or only looked at.

use std::{fs, time::Duration};

use pallet_api::group_node::Effect::{Changed, Failed, Skipped, Unchanged, Waiting};
use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::Repeat,
        compile,
        render::{Call, Rendered},
    },
    session::frame::{Ended, Verdict},
};

use crate::{
    actions::{effects, exec, file},
    node::{Agent, Node, Shell, run_id, signal, wait_until},
};

under_every_shell! {
    a_skipped_action_does_nothing
    a_handler_runs_only_after_a_change
    a_change_is_remembered_till_the_phase_has_succeeded
    a_change_is_remembered_wherever_its_action_has_moved
    a_run_that_is_killed_loses_no_change
    a_handler_that_ends_its_own_run_is_not_run_again
    a_handler_that_was_cut_off_or_has_a_new_reason_runs_again
    an_action_that_takes_too_long_is_ended_with_all_that_it_started
    the_clock_of_an_action_goes_with_it
    a_time_limit_changes_nothing_else
    an_action_is_tried_again
    a_check_changes_nothing_and_says_what_would
    a_check_says_what_hangs_on_what_is_not_there_yet
    a_check_ends_at_what_cannot_be
    a_manual_step_ends_the_run_and_the_next_one_goes_on_behind_it
}

fn rendered(calls: Vec<Call>) -> Rendered {
    Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() }
}

fn run(agent: &mut Agent, calls: Vec<Call>) -> Ended {
    agent.run(&compile::phase(&rendered(calls), 0))
}

fn check(agent: &mut Agent, calls: Vec<Call>) -> Ended {
    agent.run(&compile::check(&rendered(calls), false))
}

fn after(call: Call, places: &[usize]) -> Call {
    Call { after: places.to_vec(), ..call }
}

fn within(seconds: u64, kind: ActionKind) -> Call {
    Call { timeout: Some(Duration::from_secs(seconds)), ..Call::new("limited", kind) }
}

fn guarded(script: &str, creates: &str) -> ActionKind {
    ActionKind::Exec {
        script: script.into(),
        creates: Some(creates.into()),
        unless: None,
        only_if: None,
        secret_env: Vec::new(),
    }
}

/// Found by reading: the step called a function that was no longer there, and passed for a success.
fn a_skipped_action_does_nothing(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let skipped = Call { skipped: true, ..Call::new("second", exec("touch second")) };
    let handler = after(Call::new("third", exec("touch third")), &[1]);
    let ended = run(&mut agent, vec![Call::new("first", exec("touch first")), skipped, handler]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Skipped, Skipped]));
    assert!(node.file("first").exists() && !node.file("second").exists() && !node.file("third").exists());
    agent.bye();
}

fn a_handler_runs_only_after_a_change(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let motd = node.file("motd");
    let calls = |content: &str| {
        vec![
            Call::new("base/the motd", file(&motd, content, "644")),
            Call::new("other", guarded("touch other", "other")),
            after(Call::new("it's told", exec("echo told >>told")), &[0, 1]),
            after(Call::new("chained", exec("echo chained >>told")), &[2]),
        ]
    };
    let told = |content: &str, agent: &mut Agent| effects(&run(agent, calls(content)))[2..].to_vec();
    assert_eq!(told("a", &mut agent), [Changed; 2]);
    assert_eq!(told("a", &mut agent), [Skipped; 2]);
    assert_eq!(told("b", &mut agent), [Changed; 2]);
    fs::remove_file(node.file("other")).unwrap();
    assert_eq!(told("b", &mut agent), [Changed; 2]);
    assert!(!node.state().join("marks/configure").exists(), "marks stand till the phase has succeeded and no longer");
    assert_eq!(node.read("told"), "told\nchained\n".repeat(3));
    agent.bye();
}

fn a_change_is_remembered_till_the_phase_has_succeeded(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let motd = node.file("motd");
    let calls = |between: &str| {
        vec![
            Call::new("motd", file(&motd, "x", "644")),
            Call::new("between", exec(between)),
            after(Call::new("handler", exec("echo handled >>told")), &[0]),
        ]
    };
    assert_eq!(effects(&run(&mut agent, calls("false"))), [Changed, Failed]);
    assert_eq!(effects(&run(&mut agent, calls("false"))), [Unchanged, Failed]);
    assert_eq!(node.read("told"), "");
    assert_eq!(effects(&check(&mut agent, calls("true")))[2], Changed, "a look counts what is still to be done");
    assert_eq!(effects(&run(&mut agent, calls("true"))), [Unchanged, Changed, Changed]);
    assert_eq!(effects(&run(&mut agent, calls("true"))), [Unchanged, Changed, Skipped]);
    assert_eq!(node.read("told"), "handled\n");
    // A handler that fails is tried again with the phase.
    fs::write(&motd, "tampered").unwrap();
    let handler = |script: &str| {
        vec![Call::new("motd", file(&motd, "x", "644")), after(Call::new("handler", exec(script)), &[0])]
    };
    assert_eq!(effects(&run(&mut agent, handler("false"))), [Changed, Failed]);
    assert_eq!(effects(&run(&mut agent, handler("true"))), [Unchanged, Changed]);
    agent.bye();
}

fn a_change_is_remembered_wherever_its_action_has_moved(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let motd = || Call::new("motd", file(&node.file("motd"), "x", "644"));
    let other = || Call::new("other", guarded("touch other", "other"));
    let handler = |place: usize| after(Call::new("handler", exec("true")), &[place]);
    let failing = Call::new("failing", exec("false"));
    assert_eq!(effects(&run(&mut agent, vec![motd(), failing, handler(0)])), [Changed, Failed]);
    fs::write(node.file("other"), "").unwrap();
    let edited = vec![other(), motd(), handler(1), after(Call::new("of the other", exec("true")), &[0])];
    assert_eq!(effects(&run(&mut agent, edited)), [Unchanged, Unchanged, Changed, Skipped]);
    agent.bye();
}

fn a_run_that_is_killed_loses_no_change(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let kill = "touch made; read -r pid rest </proc/self/stat; kill -s KILL $$; sleep 60";
    let calls = |script: &str| {
        vec![
            Call::new("change", guarded(script, "made")),
            after(Call::new("handler", exec("echo handled >>told")), &[0]),
        ]
    };
    let ended = run(&mut agent, calls(kill));
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(137), vec![]), "{}", ended.output);
    assert!(node.file("made").exists());
    assert_eq!(effects(&run(&mut agent, calls(kill))), [Unchanged, Changed]);
    assert_eq!(effects(&run(&mut agent, calls(kill))), [Unchanged, Skipped]);
    assert_eq!(node.read("told"), "handled\n");
    agent.bye();
}

/// As by a restart of the machine, of sshd, or of the session that it runs in.
const ENDINGS: [&str; 4] = [
    "read -r word pid rest <\"$journal/state\"; kill -s KILL \"$pid\"; sleep 60",
    "kill -s KILL $$; sleep 60",
    "sh -c 'kill -s KILL $PPID'; sleep 60",
    "sh -c 'kill -s TERM $$'",
];

fn ending(node: &Node, script: &str) -> Vec<Call> {
    vec![
        Call::new("options", file(&node.file("options"), "quiet", "644")),
        after(Call::new("spec/restart", exec(&format!("echo ended >>told; {script}"))), &[0]),
        after(Call::new("behind it", exec("echo up >>told")), &[1]),
    ]
}

fn a_handler_that_ends_its_own_run_is_not_run_again(shell: Shell) {
    for script in ENDINGS {
        let node = Node::new(shell);
        let mut agent = node.agent();
        let ended = run(&mut agent, ending(&node, script));
        assert_ne!(ended.verdict, Verdict::Exit(0), "{script}: {}", ended.output);
        let ended = run(&mut agent, ending(&node, script));
        assert_eq!(effects(&ended), [Unchanged, Changed, Changed], "{script}: {}", ended.output);
        assert!(ended.output.contains("spec/restart ended run "), "{}", ended.output);
        assert_eq!(effects(&run(&mut agent, ending(&node, script))), [Unchanged, Skipped, Skipped]);
        assert_eq!(node.read("told"), "ended\nup\n", "{script}");
        assert!(!node.state().join("marks/configure").exists());
        // The next change is another one.
        fs::write(node.file("options"), "tampered").unwrap();
        assert_ne!(run(&mut agent, ending(&node, script)).verdict, Verdict::Exit(0));
        assert_eq!(node.read("told"), "ended\nup\nended\n", "{script}");
        agent.bye();
    }
}

fn a_handler_that_was_cut_off_or_has_a_new_reason_runs_again(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let rendered = |script: &str| compile::phase(&rendered(ending(&node, script)), 0);
    agent.ask(&run_id(), 1, &rendered("sleep 60"));
    assert_eq!(agent.ended().verdict, Verdict::TimedOut);
    let ended = agent.run(&rendered(ENDINGS[0]));
    assert_ne!(ended.verdict, Verdict::Exit(0), "{}", ended.output);
    fs::write(node.file("options"), "tampered").unwrap();
    let ended = agent.run(&rendered("false"));
    assert_eq!(effects(&ended), [Changed, Failed], "{}", ended.output);
    let ended = agent.run(&rendered("true"));
    assert_eq!(effects(&ended), [Unchanged, Changed, Changed], "{}", ended.output);
    assert_eq!(node.read("told"), "ended\nended\nended\nended\nup\n");
    agent.bye();
}

/// What measures the time of an action is gone when the run is: where process 1 buries nobody, it would stay as a zombie.
fn the_clock_of_an_action_goes_with_it(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let ended = run(&mut agent, vec![within(20, exec("sleep 0.3"))]);
    let left: Vec<_> = node.processes().into_iter().filter(|(_, words)| words.starts_with("sleep")).collect();
    assert_eq!((ended.verdict, left), (Verdict::Exit(0), vec![]));
    agent.bye();
}

fn an_action_that_takes_too_long_is_ended_with_all_that_it_started(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let daemon = "(while :; do sleep 1; done) >/dev/null 2>&1 & echo $! >earlier; true";
    // A child, one without an environment, one that has left its parent, one that was never more than forked.
    let number = u32::from_str_radix(run_id().rsplit('-').next().unwrap(), 16).unwrap();
    let number = format!("{}{number:05}", std::process::id());
    let script = format!(
        "sleep {number} & env -i \"$(command -v sleep)\" {number} & (sleep {number} &)
        ( (trap '' TERM; while :; do sleep 1; done) & echo $! >forked) >/dev/null 2>&1; sleep {number}"
    );
    let calls = vec![within(60, exec(daemon)), within(1, exec(&script)), Call::new("later", exec("touch later"))];
    let ended = run(&mut agent, calls);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(124), vec![Changed, Failed]), "{}", ended.output);
    assert!(ended.output.contains("limited took longer than 1 s; its processes were ended"), "{}", ended.output);
    assert!(!node.file("later").exists());
    // By the command, since one has no environment that says whose it is.
    let left: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|command| command.contains(&number))
        .collect();
    assert_eq!(left, [""; 0]);
    let pid = |name: &str| node.read(name).trim().parse::<u32>().unwrap();
    wait_until(|| "what was only forked goes on".into(), || !crate::node::alive(pid("forked")));
    assert!(crate::node::alive(pid("earlier")), "what an action before has left is not this one's");
    signal(pid("earlier"), "KILL");
    agent.bye();
    node.wait_until_quiet();
}

fn a_time_limit_changes_nothing_else(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let motd = node.file("motd");
    let limited = || within(30, file(&motd, "x\n", "600"));
    let ended = run(
        &mut agent,
        vec![
            Call { name: "first".into(), ..limited() },
            Call { name: "again".into(), ..limited() },
            after(
                Call { name: "after".into(), ..within(30, exec("echo \"$# [${PALLET_JOURNAL-}${PALLET_ONLY-}]\"")) },
                &[0],
            ),
            after(Call { name: "not after".into(), ..within(30, exec("true")) }, &[1]),
            Call { name: "failing".into(), ..within(30, exec("exit 9")) },
        ],
    );
    assert_eq!(effects(&ended), [Changed, Unchanged, Changed, Skipped, Failed], "{}", ended.output);
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(9), "0 []\n"));
    agent.bye();
    node.wait_until_quiet();
}

fn an_action_is_tried_again(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let retry = |limit: u32, kind: ActionKind| {
        let retry = Some(Repeat { limit, pause: Duration::from_secs(0) });
        Call { retry, ..Call::new("stubborn", kind) }
    };
    let script = "echo x >>tries; [ \"$(wc -l <tries)\" -ge 3 ]";
    let ended = run(&mut agent, vec![retry(1, exec(script)), Call::new("later", exec("touch later"))]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(1), vec![Failed]), "{}", ended.output);
    assert_eq!(ended.output, "pallet: stubborn failed with code 1; attempt 2 of 2 follows in 0 s\n");
    let ended = run(&mut agent, vec![retry(5, exec(script))]);
    assert_eq!((effects(&ended), ended.output.as_str(), node.read("tries").lines().count()), (vec![Changed], "", 3));
    // One that took too long is tried again, too, and each attempt has its own time.
    let hang = "[ -e hung ] || { touch hung; sleep 60; }";
    let slow = Call { timeout: Some(Duration::from_secs(1)), ..retry(1, exec(hang)) };
    let ended = run(&mut agent, vec![slow]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed]), "{}", ended.output);
    agent.bye();
}

fn a_check_changes_nothing_and_says_what_would(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let motd = node.file("motd");
    let calls = || {
        vec![
            Call::new("new motd", file(&motd, "x", "644")),
            Call { timeout: Some(Duration::from_secs(30)), ..Call::new("script", guarded("touch made", "made")) },
            after(Call::new("handler", guarded("touch handled", "handled")), &[0]),
            // Its name ends as that of the first does.
            Call::new("motd", guarded("true", "/")),
            after(Call::new("none", exec("touch never")), &[3]),
        ]
    };
    for _ in 0..2 {
        let ended = check(&mut agent, calls());
        assert_eq!(
            (ended.verdict, effects(&ended)),
            (Verdict::Exit(0), vec![Changed, Changed, Changed, Unchanged, Skipped])
        );
        assert!(!motd.exists() && !node.file("made").exists() && !node.file("handled").exists());
        assert!(!node.state().join("marks").exists());
    }
    assert_eq!(effects(&run(&mut agent, calls())), [Changed, Changed, Changed, Unchanged, Skipped]);
    assert_eq!(effects(&check(&mut agent, calls())), [Unchanged, Unchanged, Skipped, Unchanged, Skipped]);
    agent.bye();
}

fn a_check_says_what_hangs_on_what_is_not_there_yet(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("dir").display().to_string();
    let directory = ActionKind::Directory { path, mode: None, owner: None, group: None };
    let calls = || {
        vec![
            Call::new("dir", directory.clone()),
            Call::new("within", file(&node.file("dir/motd"), "x", "644")),
            Call::new("last", exec("true")),
        ]
    };
    let id = run_id();
    agent.ask(&id, 60, &compile::check(&rendered(calls()), false));
    let ended = agent.ended();
    assert_eq!(ended.verdict, Verdict::Exit(0), "{}", ended.output);
    let said = fs::read_to_string(node.state().join("runs").join(&id).join("actions")).unwrap();
    assert_eq!(said, "Changed dir\nUnknown within\nChanged last\n");
    assert_eq!(effects(&run(&mut agent, calls())), [Changed; 3]);
    agent.bye();
}

fn a_check_ends_at_what_cannot_be(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let retry = Some(Repeat { limit: 3, pause: Duration::from_secs(60) });
    let impossible = Call { retry, ..Call::new("impossible", file(&node.file("missing/motd"), "x", "644")) };
    let ended = check(&mut agent, vec![impossible, Call::new("later", exec("true"))]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(1), vec![Failed]), "nothing is tried again in a look");
    assert!(ended.output.contains("make it in an action before"), "{}", ended.output);
    agent.bye();
}

fn a_manual_step_ends_the_run_and_the_next_one_goes_on_behind_it(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let step = ActionKind::Manual { message: "look at it".into() };
    let handler = after(Call::new("handler", exec("echo handled")), &[0]);
    let calls = || vec![Call::new("first", exec("echo first")), Call::new("step", step.clone()), handler.clone()];
    let ended = run(&mut agent, calls());
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(0), "first\nlook at it\n"));
    assert_eq!(effects(&ended), [Changed, Waiting]);
    // What changed before the step still wakes what listens behind it.
    let ended = agent.run(&compile::phase(&rendered(calls()), 2));
    assert_eq!((ended.output.as_str(), effects(&ended)), ("handled\n", vec![Changed]));
    let ended = agent.run(&compile::phase(&rendered(calls()), 2));
    assert_eq!(effects(&ended), [Skipped], "it succeeded: the change is dealt with");
    assert_eq!(effects(&check(&mut agent, calls())), [Changed, Waiting, Changed]);
    agent.bye();
}
