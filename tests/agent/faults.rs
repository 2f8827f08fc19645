//! Connections that break, processes that are killed anywhere, disks that are full.

use std::{fs, io::Write as _, sync::Barrier, thread, time::Duration};

use pallet_core::session::frame::{Frame, Verdict};

use crate::{
    node::{Agent, Node, Shell, UID, agent, alive, run_id, signal, wait_until},
    runs::{assert_no_overlap, marking},
};

under_every_shell! {
    a_killed_agent_loses_nothing
    a_cut_connection_loses_nothing
    an_agent_killed_anywhere_leaves_one_true_result
    a_supervisor_killed_anywhere_leaves_no_false_result
    a_run_whose_supervisor_was_killed_has_died
    the_lock_of_a_killed_supervisor_goes_to_one_alone
    a_full_disk_refuses_a_run
    a_disk_that_fills_up_keeps_the_result
    a_disk_without_inodes_keeps_the_result
    a_script_that_wipes_the_journal_is_no_success
}

/// The process that a run's journal or lock names.
fn supervisor(node: &Node, id: &str) -> u32 {
    let state = || fs::read_to_string(node.state().join("runs").join(id).join("state")).unwrap_or_default();
    wait_until(|| format!("run {id} does not start: {:?}", state()), || state().starts_with("running "));
    state().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A script that waits for a file before it ends, and notes that it ran.
fn waiting(node: &Node) -> String {
    let (marker, go) = (node.file("marker").display().to_string(), node.file("go").display().to_string());
    format!("echo ran >>{marker}\necho before\nuntil [ -e {go} ]; do sleep 0.05; done\necho after\nexit 6")
}

fn a_killed_agent_loses_nothing(shell: Shell) {
    let node = Node::new(shell);
    let id = run_id();
    let mut first = node.agent();
    first.begin(&id, 60, &waiting(&node));
    supervisor(&node, &id);
    first.kill();
    // Nothing that runs on holds the streams of the one that died: the connection would seem alive.
    assert_eq!(first.hear_within(Duration::from_secs(5)), None);
    let mut second = node.agent();
    assert_eq!(second.pasts.len(), 1);
    assert!(second.pasts[0].active && second.pasts[0].started && second.pasts[0].run_id == id);
    second.say(format!("attach {id}\n"));
    assert_eq!(second.hear(), Some(Frame::Attached(id.clone())));
    // A third one may ask for the same run, too.
    let mut third = node.agent();
    third.ask(&id, 60, &waiting(&node));
    assert_eq!(third.hear(), Some(Frame::Attached(id.clone())));
    fs::write(node.file("go"), "").unwrap();
    let ended = second.ended();
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(6), "before\nafter\n"));
    assert_eq!(third.ended(), ended);
    assert_eq!(node.read("marker"), "ran\n");
    second.bye();
    third.bye();
    node.wait_until_quiet();
}

fn a_cut_connection_loses_nothing(shell: Shell) {
    let node = Node::new(shell);
    let id = run_id();
    let mut first = node.agent();
    first.begin(&id, 60, &waiting(&node));
    first.hang_up();
    fs::write(node.file("go"), "").unwrap();
    // Who only lost its stdin still says what came of the run.
    let ended = first.ended();
    assert_eq!(first.hear(), None);
    assert_eq!(first.wait(), Some(0));
    let mut second = node.agent();
    second.ask(&id, 60, &waiting(&node));
    assert_eq!(second.ended(), ended);
    assert_eq!((ended.verdict, node.read("marker").as_str()), (Verdict::Exit(6), "ran\n"));
    second.bye();
    node.wait_until_quiet();
}

/// What must hold after something was killed while it ran `id` for another agent.
fn assert_sound(node: &Node, id: &str, place: &str, may_die: bool) {
    let script = marking(node, id) + ": canary-3\n";
    let mut agent = node.agent();
    agent.ask(id, 60, &script);
    let verdict = match agent.verdict() {
        Frame::Ended(ended) => ended.verdict,
        other => panic!("{place}: {other:?}; it said {}", agent.said()),
    };
    let next = run_id();
    agent.ask(&next, 60, &(marking(node, &next) + ": canary-3\n"));
    let Frame::Ended(ended) = agent.verdict() else { panic!("{place}: it said {}", agent.said()) };
    assert_eq!(ended.verdict, Verdict::Exit(0), "{place}: the next run");
    let counts = assert_no_overlap(node);
    let executed = counts.get(id).copied().unwrap_or_default();
    match verdict {
        Verdict::Exit(0) => assert_eq!(executed, 1, "{place}"),
        // A script whose output nobody takes in any more ends by the pipe; what was killed may be the script's own shell.
        Verdict::Died | Verdict::Exit(137 | 141) if may_die => assert!(executed <= 1, "{place}: {executed} times"),
        other => panic!("{place}: {other:?}"),
    }
    agent.ask(id, 60, &script);
    assert_eq!(agent.ended().verdict, verdict, "{place}: the result changes");
    agent.bye();
    assert_eq!(node.keeps("canary-3"), None, "{place}");
}

/// Every place under one of the three shells, for the time's sake.
fn mutants(shell: Shell, functions: &[&str], at_least: usize, command: &str) -> Vec<(String, String)> {
    let all: Vec<_> = functions.iter().flat_map(|function| agent::mutants(function, command)).collect();
    assert!(all.len() > at_least, "only {} places were found", all.len());
    all.into_iter().skip(shell as usize).step_by(3).collect()
}

fn an_agent_killed_anywhere_leaves_one_true_result(shell: Shell) {
    let places = ["run", "supervise", "prepare", "lock", "take"];
    for (place, text) in mutants(shell, &places, 60, "kill -s KILL \"$me\"") {
        let node = Node::new(shell);
        let id = run_id();
        let mut dying = Agent::start(&node);
        dying.greet(&text, UID);
        dying.meet();
        dying.ask(&id, 60, &(marking(&node, &id) + ": canary-3\n"));
        // It is killed, unless this line is not on the way.
        dying.until_it_dies_or_tells();
        dying.kill();
        assert_sound(&node, &id, &place, false);
    }
}

fn a_supervisor_killed_anywhere_leaves_no_false_result(shell: Shell) {
    let suicide = "read -r victim rest </proc/self/stat && kill -s KILL \"$victim\"";
    for (place, text) in mutants(shell, &["supervise", "prepare", "lock", "drain"], 50, suicide) {
        let node = Node::new(shell);
        let id = run_id();
        let mut first = Agent::start(&node);
        first.greet(&text, UID);
        first.meet();
        first.ask(&id, 60, &(marking(&node, &id) + ": canary-3\n"));
        match first.verdict() {
            Frame::Ended(ended) => {
                let fair = matches!(ended.verdict, Verdict::Exit(0 | 137 | 141) | Verdict::Died);
                assert!(fair, "{place}: {:?}", ended.verdict);
            }
            Frame::Absent(absent) => assert_eq!(absent, id, "{place}"),
            other => panic!("{place}: {other:?}"),
        }
        drop(first);
        assert_sound(&node, &id, &place, true);
    }
}

fn a_run_whose_supervisor_was_killed_has_died(shell: Shell) {
    let node = Node::new(shell);
    let id = run_id();
    let pids = node.file("pids").display().to_string();
    let mut agent = node.agent();
    agent.begin(&id, 60, &format!("echo $$ >>{pids}; echo begun; while :; do sleep 0.1; done; : canary-4"));
    let supervisor = supervisor(&node, &id);
    wait_until(|| "the script does not begin".into(), || !node.read("pids").is_empty());
    signal(supervisor, "KILL");
    let ended = agent.ended();
    assert_eq!((ended.verdict, ended.output.as_str(), ended.times), (Verdict::Died, "begun\n", None));
    // Its script is over before anything else may run.
    let script = node.read("pids").trim().parse().unwrap();
    wait_until(|| format!("the script {script} goes on"), || !alive(script));
    assert_eq!(node.keeps("canary-4"), None);
    agent.succeed("true");
    agent.bye();
    let mut other = node.agent();
    assert!(other.pasts.iter().any(|past| past.run_id == id && past.started && !past.active));
    other.ask(&id, 60, "true");
    assert_eq!(other.ended(), ended);
    other.bye();
    node.wait_until_quiet();
}

/// Many see at once that a lock's owner is gone, and each would have it.
fn the_lock_of_a_killed_supervisor_goes_to_one_alone(shell: Shell) {
    let node = Node::new(shell);
    let mut agents: Vec<_> = (0..4).map(|_| node.agent()).collect();
    for _ in 0..6 {
        let holder = run_id();
        let marker = node.file("marker").display().to_string();
        let mut first = node.agent();
        first.begin(&holder, 60, &format!("echo begin {holder} >>{marker}; sleep 1; echo end {holder} >>{marker}"));
        let supervisor = supervisor(&node, &holder);
        let together = Barrier::new(agents.len() + 1);
        thread::scope(|scope| {
            for agent in &mut agents {
                let (together, node) = (&together, &node);
                scope.spawn(move || {
                    let id = run_id();
                    together.wait();
                    loop {
                        agent.ask(&id, 60, &marking(node, &id));
                        match agent.verdict() {
                            Frame::Ended(ended) => break assert_eq!(ended.verdict, Verdict::Exit(0)),
                            Frame::Busy(_) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            signal(supervisor, "KILL");
            together.wait();
        });
        assert_eq!(first.ended().verdict, Verdict::Died);
    }
    let counts = assert_no_overlap(&node);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    agents.into_iter().for_each(Agent::bye);
}

fn fill(node: &Node) {
    let mut ballast = fs::File::options().create(true).append(true).open(node.state().join("ballast")).unwrap();
    while ballast.write(&[b'x'; 1 << 12]).is_ok() {}
}

fn a_full_disk_refuses_a_run(shell: Shell) {
    let node = Node::with_disk(shell, "size=256k");
    let before = node.agent().succeed("echo early");
    let mut agent = node.agent();
    fill(&node);
    agent.say(format!("attach {}\n", before.run_id));
    let again = agent.ended();
    assert_eq!(
        (again.verdict, again.times, again.output_bytes),
        (before.verdict, before.times, 6),
        "what was kept is kept"
    );
    fill(&node);
    agent.say("facts\n");
    assert!(matches!(agent.hear(), Some(Frame::Facts(_))), "facts need no disk");
    let id = run_id();
    let script = format!("echo ran >>{}", node.file("marker").display());
    for script in [script.clone(), script.clone() + &"# long\n".repeat(1 << 15)] {
        let mut agent = node.agent();
        fill(&node);
        agent.ask(&id, 60, &script);
        let (reason, message) = agent.refusal();
        assert!(reason == "disk" && message.contains(node.state().to_str().unwrap()), "{reason} {message}");
    }
    fs::remove_file(node.state().join("ballast")).unwrap();
    let mut agent = node.agent();
    agent.ask(&id, 60, &script);
    assert_eq!(agent.ended().verdict, Verdict::Exit(0));
    agent.bye();
    assert_eq!(node.read("marker"), "ran\n");
}

fn a_disk_that_fills_up_keeps_the_result(shell: Shell) {
    let node = Node::with_disk(shell, "size=512k");
    let mut agent = node.agent();
    let id = run_id();
    let ballast = node.state().join("ballast").display().to_string();
    let script =
        format!("echo begun; cat /dev/zero >{ballast} 2>/dev/null; echo full; head -c 300000 /dev/zero; exit 3");
    agent.begin(&id, 60, &script);
    let ended = agent.ended();
    assert_eq!(ended.verdict, Verdict::Exit(3), "{ended:?}");
    drop(agent);
    let mut agent = node.agent();
    agent.say(format!("attach {id}\n"));
    assert_eq!(agent.ended().verdict, Verdict::Exit(3));
    fs::remove_file(node.state().join("ballast")).unwrap();
    let id = run_id();
    // So much output that the journal itself fills the disk.
    agent.begin(&id, 60, "head -c 3000000 /dev/zero; exit 5");
    assert_eq!(agent.ended().verdict, Verdict::Exit(5));
    agent.bye();
    node.wait_until_quiet();
}

fn a_disk_without_inodes_keeps_the_result(shell: Shell) {
    let node = Node::with_disk(shell, "size=1m,nr_inodes=60");
    let mut agent = node.agent();
    let before = agent.succeed("echo early");
    let id = run_id();
    let many = node.state().join("many").display().to_string();
    agent.begin(
        &id,
        60,
        &format!("n=0; while [ $n -lt 100 ]; do echo >{many}$n; n=$((n + 1)); done 2>/dev/null; exit 3"),
    );
    let ended = agent.ended();
    assert_eq!(ended.verdict, Verdict::Exit(3));
    agent.say(format!("attach {}\n", before.run_id));
    let again = agent.ended();
    assert_eq!((again.verdict, again.times), (before.verdict, before.times));
    let marker = node.file("marker").display().to_string();
    agent.ask(&run_id(), 60, &format!("echo ran >>{marker}"));
    assert_eq!(agent.refusal().0, "disk");
    assert_eq!(node.read("marker"), "");
}

fn a_script_that_wipes_the_journal_is_no_success(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let id = run_id();
    agent.ask(&id, 60, &format!("rm -rf {}; exit 0", node.state().display()));
    match agent.verdict() {
        Frame::Absent(absent) => assert_eq!(absent, id),
        other => panic!("{other:?}"),
    }
    let filesystem_id = agent.filesystem_id.clone();
    drop(agent);
    assert_ne!(node.agent().filesystem_id, filesystem_id);
}
