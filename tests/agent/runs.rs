//! Runs: one after the other, the same one twice, several at once.

use std::{collections::BTreeMap, fs, sync::Barrier, thread};

use pallet_core::session::frame::{Frame, Verdict};

use crate::node::{Agent, Node, Shell, UID, agent, request, run_id};

under_every_shell! {
    exit_codes_and_signals_are_told
    one_session_carries_many_runs
    a_long_run_gives_signs_of_life
    whoever_looks_slowly_hears_the_result
    a_script_may_be_a_megabyte
    a_script_finds_an_ordinary_world
    nothing_of_a_script_stays_on_disk
    a_run_is_never_executed_again
    one_run_asked_for_twice_at_once_is_executed_once
    different_runs_at_once_never_overlap
    another_nodes_run_is_neither_joined_nor_ended_nor_told
    what_another_node_had_marked_wakes_nothing
    the_journal_is_told_oldest_first_and_is_bounded
}

fn exit_codes_and_signals_are_told(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let cases = [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 75", 75),
        ("exit 127", 127),
        ("exit 255", 255),
        ("no-such-command-anywhere", 127),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
        ("kill -s ALRM $$", 142),
        ("if", 2),
    ];
    for (script, code) in cases {
        let ended = agent.run(script);
        let Verdict::Exit(told) = ended.verdict else { panic!("{script}: {ended:?}") };
        // A syntax error has no code that all shells share.
        assert!(told == code || (script == "if" && told != 0), "{script}: {told}");
        let (began, finished) = ended.times.unwrap();
        let now = jiff::Timestamp::now().as_second();
        assert!(began <= finished && finished <= now && began > now - 60, "{ended:?}");
        assert_eq!((ended.phase.as_str(), ended.digest.as_str()), ("configure", "d0"));
    }
    agent.bye();
    node.wait_until_quiet();
}

fn a_long_run_gives_signs_of_life(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    agent.begin(&run_id(), 60, "sleep 12; exit 4");
    let ended = agent.ended();
    assert_eq!(ended.verdict, Verdict::Exit(4));
    let (began, finished) = ended.times.unwrap();
    assert!((11..=30).contains(&(finished - began)), "{ended:?}");
    let beats = agent.said().lines().filter(|line| line.ends_with(" beat")).count();
    assert!((1..=3).contains(&beats), "{beats} of them: {}", agent.said());
    // Whoever joins it later gives them, too, as long as it goes on.
    agent.bye();
    node.wait_until_quiet();
}

/// The run may end between any two looks at it.
fn whoever_looks_slowly_hears_the_result(shell: Shell) {
    let mutants = agent::mutants("get_state", "nap").into_iter().chain(agent::mutants("held", "nap"));
    thread::scope(|scope| {
        for (place, text) in mutants {
            scope.spawn(move || {
                let node = Node::new(shell);
                let (mut first, mut second) = (node.agent(), Agent::start(&node));
                second.greet(&text, UID);
                second.meet();
                for tenths in 1..=4 {
                    let id = run_id();
                    first.begin(&id, 60, &format!("sleep 0.{tenths}; exit 3"));
                    second.say(format!("attach {id}\n"));
                    assert_eq!(second.ended().verdict, Verdict::Exit(3), "{place}, after 0.{tenths} s");
                    assert_eq!(first.ended().verdict, Verdict::Exit(3), "{place}, after 0.{tenths} s");
                }
                first.bye();
                second.bye();
            });
        }
    });
}

fn one_session_carries_many_runs(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    for round in 0..12 {
        let ended = agent.succeed(&format!("echo {round}"));
        assert_eq!((ended.output, ended.output_bytes), (format!("{round}\n"), format!("{round}\n").len() as i64));
    }
    agent.bye();
    node.wait_until_quiet();
    assert_eq!(node.read("stderr"), "", "the agent itself keeps quiet");
}

fn a_script_may_be_a_megabyte(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let mut script = String::new();
    for line in 0.. {
        if script.len() > 1 << 20 {
            break;
        }
        script += &format!(": {line:06} ünï©ode {}\n", "x".repeat(line % 90));
    }
    script += "printf '%s' \"$(wc -c <\"$PALLET_JOURNAL/script\")\"";
    let ended = agent.succeed(&script);
    assert_eq!(ended.output.trim(), script.len().to_string());
    agent.bye();
}

/// The agent's own umask, signals and streams are no concern of a script's.
fn a_script_finds_an_ordinary_world(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let streams = agent.streams();
    let umask = fs::read_to_string("/proc/self/status").unwrap();
    let umask = umask.lines().find_map(|line| line.strip_prefix("Umask:\t")).unwrap().to_owned();
    assert_eq!(agent.succeed("umask").output.trim(), umask);
    // With the pipe signal ignored this would go on for ever.
    assert_eq!(agent.succeed("while :; do echo x; done | head -n 1").output, "x\n");
    assert_eq!(agent.succeed("cat; readlink /proc/self/fd/0").output, "/dev/null\n");
    let open = agent.succeed("for fd in /proc/$$/fd/*; do readlink \"$fd\"; done; true").output;
    for stream in streams {
        assert!(!open.lines().any(|line| line == stream), "the script holds the agent's {stream}: {open}");
    }
    assert_eq!(open.matches("/pipe.").count(), 2, "it holds its output as 1 and 2 only: {open}");
    // What was ignored when the tests were started stays so; of the agent's own nothing is left.
    let traps = agent.succeed("trap").output;
    assert!(!traps.contains("PIPE") && !traps.contains("ALRM") && !traps.contains("USR1"), "{traps}");
    agent.bye();
}

fn nothing_of_a_script_stays_on_disk(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let id = run_id();
    agent.ask(&id, 60, "secret=canary-1; exit 0");
    assert_eq!(agent.ended().verdict, Verdict::Exit(0));
    agent.ask(&id, 60, "secret=canary-1; exit 0");
    agent.ended();
    agent.begin(&run_id(), 1, "secret=canary-2; sleep 60");
    assert_eq!(agent.ended().verdict, Verdict::TimedOut);
    agent.bye();
    node.wait_until_quiet();
    assert_eq!(node.keeps("canary"), None);
    let names = fs::read_dir(node.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strays: Vec<_> = names
        .filter(|name| !["lock.", "log", "runs", "filesystem-id", "writable"].iter().any(|n| name.starts_with(n)))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

fn a_run_is_never_executed_again(shell: Shell) {
    let node = Node::new(shell);
    let id = run_id();
    let script = format!("echo once >>{}; echo output; exit 7", node.file("marker").display());
    let mut first = node.agent();
    first.begin(&id, 60, &script);
    let result = first.ended();
    assert_eq!(result.verdict, Verdict::Exit(7));
    first.ask(&id, 60, &script);
    assert_eq!(first.ended(), result, "the same agent");
    first.bye();
    let mut second = node.agent();
    second.ask(&id, 60, &script);
    assert_eq!(second.ended(), result, "another agent");
    second.say(format!("attach {id}\n"));
    assert_eq!(second.ended(), result, "by attaching");
    let stranger = run_id();
    second.say(format!("attach {stranger}\n"));
    assert_eq!(second.hear(), Some(Frame::Absent(stranger)));
    second.bye();
    assert_eq!(node.read("marker"), "once\n");
}

fn one_run_asked_for_twice_at_once_is_executed_once(shell: Shell) {
    let node = Node::new(shell);
    let mut agents: Vec<_> = (0..3).map(|_| node.agent()).collect();
    for round in 0..15 {
        let id = run_id();
        let script = format!("echo {round} >>{}; echo {round}", node.file("marker").display());
        let together = Barrier::new(agents.len());
        let results: Vec<_> = thread::scope(|scope| {
            let ask = |agent: &mut crate::node::Agent| {
                let bytes = request(&id, 60, &script);
                together.wait();
                agent.say(bytes);
                agent.ended()
            };
            let askers: Vec<_> = agents.iter_mut().map(|agent| scope.spawn(move || ask(agent))).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).collect()
        });
        assert_eq!(results[0].verdict, Verdict::Exit(0));
        assert!(results.iter().all(|result| *result == results[0]), "{results:#?}");
        let rounds: String = (0..=round).map(|round| format!("{round}\n")).collect();
        assert_eq!(node.read("marker"), rounds);
    }
    agents.into_iter().for_each(crate::node::Agent::bye);
    node.wait_until_quiet();
}

/// Notes a beginning and an end: those of one run are neighbours when runs do not overlap.
pub fn marking(node: &Node, id: &str) -> String {
    let marker = node.file("marker").display().to_string();
    format!("echo begin {id} >>{marker}\nsleep 0.03\necho end {id} >>{marker}\n")
}

pub fn assert_no_overlap(node: &Node) -> BTreeMap<String, u32> {
    let text = node.read("marker");
    let mut counts = BTreeMap::new();
    let mut open: Option<&str> = None;
    for line in text.lines() {
        match line.split_once(' ').unwrap() {
            ("begin", id) => {
                *counts.entry(id.to_owned()).or_insert(0) += 1;
                // One that was killed has no end.
                open = Some(id);
            }
            (_, id) => assert_eq!(open.take(), Some(id), "runs overlapped:\n{text}"),
        }
    }
    counts
}

fn different_runs_at_once_never_overlap(shell: Shell) {
    let node = Node::new(shell);
    let mut agents: Vec<_> = (0..4).map(|_| node.agent()).collect();
    let mut busy = 0;
    for _ in 0..6 {
        let together = Barrier::new(agents.len());
        busy += thread::scope(|scope| {
            let ask = |agent: &mut crate::node::Agent| {
                let id = run_id();
                let mut busy = 0;
                together.wait();
                loop {
                    agent.ask(&id, 60, &marking(&node, &id));
                    match agent.verdict() {
                        Frame::Ended(ended) => {
                            assert_eq!((ended.verdict, &ended.run_id), (Verdict::Exit(0), &id));
                            return busy;
                        }
                        Frame::Busy(holder) => {
                            assert_ne!(holder, id);
                            busy += 1;
                            // As a session does: it waits for the holder.
                            agent.say(format!("attach {holder}\n"));
                            assert!(matches!(agent.verdict(), Frame::Ended(_) | Frame::Absent(_)));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            };
            let askers: Vec<_> = agents.iter_mut().map(|agent| scope.spawn(move || ask(agent))).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).sum::<u32>()
        });
    }
    assert!(busy > 0, "nobody ever waited: the test shows nothing");
    let counts = assert_no_overlap(&node);
    assert_eq!(counts.len(), 24);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    agents.into_iter().for_each(crate::node::Agent::bye);
}

fn the_journal_is_told_oldest_first_and_is_bounded(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(agent.succeed("echo x").run_id);
        let kept = fs::read_dir(node.state().join("runs")).unwrap().count();
        assert!(kept <= 34, "{kept} runs are kept");
    }
    agent.bye();
    let agent = node.agent();
    let told: Vec<_> = agent.pasts.iter().map(|past| past.run_id.clone()).collect();
    assert!(told.len() >= 24 && ids.ends_with(&told), "{told:?}");
    assert!(agent.pasts.iter().all(|past| past.started && !past.active));
    agent.bye();
}

/// On a machine that is another node by now, a run of the former one may still be at work: it is waited for, and is nobody's.
fn another_nodes_run_is_neither_joined_nor_ended_nor_told(shell: Shell) {
    let node = Node::new(shell);
    let go = node.file("go");
    let mut former = Agent::start(&node);
    former.greet(agent::text(), "@node-1");
    former.meet();
    let (theirs, ours) = (run_id(), run_id());
    former.begin(&theirs, 60, &format!("while [ ! -e '{}' ]; do sleep 0.1; done; echo theirs", go.display()));
    for request in [
        format!("attach {theirs}\n").into_bytes(),
        format!("cancel {theirs}\n").into_bytes(),
        request(&ours, 60, "echo ours"),
    ] {
        let mut later = Agent::start(&node);
        later.greet(agent::text(), "@node-2");
        later.meet();
        assert_eq!(later.pasts, []);
        later.say(&request);
        let (reason, message) = later.refusal();
        assert!(reason == "foreign" && message.contains(&theirs), "{reason}: {message}");
        later.bye();
    }
    fs::write(&go, "").unwrap();
    assert_eq!((former.ended().verdict, former.said().contains("theirs")), (Verdict::Exit(0), true), "nobody ended it");
    former.bye();
    let mut later = Agent::start(&node);
    later.greet(agent::text(), "@node-2");
    later.meet();
    later.ask(&ours, 60, "echo ours");
    assert_eq!(later.ended().output, "ours\n");
    later.say(format!("attach {theirs}\n"));
    assert_eq!(later.refusal().0, "foreign", "what it came to is not told either");
    later.bye();
}

fn what_another_node_had_marked_wakes_nothing(shell: Shell) {
    let node = Node::new(shell);
    let marks = node.state().join("marks");
    let meet = |who: &str| {
        let mut agent = Agent::start(&node);
        agent.greet(agent::text(), who);
        agent.meet();
        agent.succeed("true");
        agent.bye();
        marks.exists()
    };
    meet("@node-1");
    fs::create_dir_all(marks.join("configure")).unwrap();
    assert!(meet("@node-1"), "they are its own");
    assert!(!meet("@node-2"), "it has changed nothing");
}
