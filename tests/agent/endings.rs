//! How runs end that do not end by themselves, and what may live on.

use std::{
    thread,
    time::{Duration, Instant},
};

use pallet_core::session::frame::{Frame, Verdict};

use crate::node::{Node, Shell, alive, run_id, wait_until};

under_every_shell! {
    a_script_that_hangs_forks_and_ignores_term_is_ended
    a_script_that_heeds_term_may_clean_up
    a_run_that_ends_at_its_deadline_keeps_its_code
    a_run_is_cancelled_from_another_session
    a_cancel_that_comes_at_once_is_not_lost
    a_daemon_survives_success_and_holds_nothing_up
    nobody_stays_behind
}

/// The processes that a script noted.
fn noted(node: &Node, count: usize) -> Vec<u32> {
    let pids = || node.read("pids").lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>();
    wait_until(|| format!("{count} processes were not noted: {:?}", node.read("pids")), || pids().len() == count);
    pids()
}

/// A killed process needs a moment to go.
fn gone(pids: &[u32]) {
    let left = || pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>();
    let stat = |pid: &&u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let show = || left().iter().map(stat).collect::<Vec<_>>();
    wait_until(|| format!("{:?} of {pids:?} live on", show()), || left().is_empty());
}

fn a_script_that_hangs_forks_and_ignores_term_is_ended(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let pids = node.file("pids").display().to_string();
    // One in the group, one that fled from it, one that fled twice, one in the group that shed its environment.
    let script = format!(
        "trap '' TERM HUP INT
        echo $$ >>{pids}
        sh -c 'echo $$ >>{pids}; trap \"\" TERM; while :; do sleep 1; done' &
        setsid sh -c 'echo $$ >>{pids}; trap \"\" TERM; while :; do sleep 1; done' &
        (setsid sh -c 'echo $$ >>{pids}; exec sleep 1000' &)
        env -i \"$(command -v sleep)\" 1000 & echo $! >>{pids}
        echo hanging
        while :; do sleep 1; done"
    );
    let began = Instant::now();
    agent.begin(&run_id(), 2, &script);
    let pids = noted(&node, 5);
    assert!(pids.iter().all(|pid| alive(*pid)));
    let ended = agent.ended();
    assert_eq!(ended.verdict, Verdict::TimedOut);
    // The shell may still tell that what it waited for was killed, before it is itself.
    assert!(ended.output.starts_with("hanging\n"), "{}", ended.output);
    assert!((2..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    gone(&pids);
    // The node is free again.
    agent.succeed("true");
    agent.bye();
    node.wait_until_quiet();
}

fn a_script_that_heeds_term_may_clean_up(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let began = Instant::now();
    agent.begin(&run_id(), 1, "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.1; done");
    let ended = agent.ended();
    // It was ended by force, whatever its last word.
    assert_eq!(ended.verdict, Verdict::TimedOut);
    assert!(ended.output.ends_with("cleaned\n"), "{}", ended.output);
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for the grace to pass: {:?}", began.elapsed());
    agent.bye();
}

/// The signal of the timer breaks off the wait for the script: its code must not pass for the script's.
fn a_run_that_ends_at_its_deadline_keeps_its_code(shell: Shell) {
    let nodes: Vec<_> = (0..6).map(|_| Node::new(shell)).collect();
    let verdicts: Vec<Verdict> = thread::scope(|scope| {
        let race = |(place, node): (usize, &Node)| {
            let mut agent = node.agent();
            agent.begin(&run_id(), 1, &format!("sleep 0.9{}; exit 4", [5, 8, 9, 9, 95, 97][place]));
            let verdict = agent.ended().verdict;
            agent.bye();
            verdict
        };
        let races: Vec<_> = nodes.iter().enumerate().map(|pair| scope.spawn(move || race(pair))).collect();
        races.into_iter().map(|race| race.join().unwrap()).collect()
    });
    let fair = |verdict: &Verdict| matches!(verdict, Verdict::Exit(4) | Verdict::TimedOut);
    assert!(verdicts.iter().all(fair), "{verdicts:?}");
}

fn a_run_is_cancelled_from_another_session(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let id = run_id();
    let pids = node.file("pids").display().to_string();
    agent.begin(&id, 60, &format!("echo $$ >>{pids}; setsid sleep 1000 & echo $! >>{pids}; echo begun; sleep 1000"));
    let pids = noted(&node, 2);
    let mut other = node.agent();
    assert!(other.pasts.iter().any(|past| past.run_id == id && past.active), "{:?}", other.pasts);
    let began = Instant::now();
    other.say(format!("cancel {id}\n"));
    assert_eq!(other.hear(), Some(Frame::Attached(id.clone())));
    let ended = other.ended();
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Cancelled, "begun\n"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(agent.ended(), ended, "who started it hears the same");
    gone(&pids);
    // What has ended cannot be cancelled any more, and what never was neither.
    other.say(format!("cancel {id}\n"));
    assert_eq!(other.ended(), ended);
    other.say("cancel configure-none\n");
    assert_eq!(other.hear(), Some(Frame::Absent("configure-none".into())));
    agent.bye();
    other.bye();
    node.wait_until_quiet();
}

fn a_cancel_that_comes_at_once_is_not_lost(shell: Shell) {
    let node = Node::new(shell);
    let (mut agent, mut other) = (node.agent(), node.agent());
    for _ in 0..8 {
        let id = run_id();
        agent.ask(&id, 60, "sleep 1000");
        // Absent for as long as it has not begun.
        let ended = loop {
            other.say(format!("cancel {id}\n"));
            match other.verdict() {
                Frame::Ended(ended) => break ended,
                Frame::Absent(_) => {}
                frame => panic!("{frame:?}"),
            }
        };
        assert_eq!(ended.verdict, Verdict::Cancelled);
        assert_eq!(agent.ended(), *ended);
    }
    agent.bye();
    other.bye();
    node.wait_until_quiet();
}

fn a_daemon_survives_success_and_holds_nothing_up(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let count = node.file("count").display().to_string();
    // It prints on for as long as it lives; a broken pipe would end it.
    let daemon = format!("n=0; while :; do echo daemon $n || exit; n=$((n + 1)); echo $n >{count}; sleep 0.01; done");
    let pids = node.file("pids").display().to_string();
    let began = Instant::now();
    let ended = agent.succeed(&format!("setsid sh -c '{daemon}' & echo $! >>{pids}; echo ready"));
    assert!(began.elapsed() < Duration::from_secs(10), "the daemon held the result up for {:?}", began.elapsed());
    assert!(ended.output.contains("ready\n"), "{}", ended.output);
    let pid = noted(&node, 1)[0];
    let id = ended.run_id;
    let seen = || node.read("count").trim().parse::<u32>().unwrap_or_default();
    let goes_on = |when: &str| {
        let before = seen();
        wait_until(
            || format!("{when} the daemon {} more", if alive(pid) { "prints no" } else { "is no" }),
            || seen() > before + 5,
        );
    };
    goes_on("after success");
    // Nor does it hold up the next run, or outlive its connection only.
    agent.succeed("true");
    agent.bye();
    goes_on("after the session");
    let mut agent = node.agent();
    agent.say(format!("attach {id}\n"));
    assert_eq!(agent.ended().verdict, Verdict::Exit(0));
    // Its journal is pruned under its feet.
    for _ in 0..34 {
        agent.succeed("true");
    }
    assert!(!node.state().join("runs").join(&id).exists());
    goes_on("after its run was forgotten");
    agent.bye();
}

fn nobody_stays_behind(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    // Long deadlines, so that a timer which is left would be seen.
    for script in ["true", "sleep 0.2", "exit 3"] {
        agent.begin(&run_id(), 100_000, script);
        agent.ended();
    }
    agent.begin(&run_id(), 1, "sleep 1000");
    agent.ended();
    agent.bye();
    let began = Instant::now();
    node.wait_until_quiet();
    assert!(began.elapsed() < Duration::from_secs(3), "something lived on for {:?}", began.elapsed());
}
