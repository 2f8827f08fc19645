//! The first words: how the agent arrives, whom it serves, and where it keeps its journal.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::Barrier,
    thread,
    time::Duration,
};

use pallet_core::{facts, session::frame::Frame};

use crate::node::{Agent, Node, Shell, UID, agent, find, run_id};

under_every_shell! {
    the_greeting_may_come_at_once_with_requests_behind_it
    the_greeting_may_come_byte_by_byte
    another_pods_work_is_refused
    a_host_needs_no_uid
    the_filesystem_id_stays_until_the_file_system_goes
    a_life_that_the_operator_tells_is_another_one_though_process_one_is_the_same
    two_first_greetings_make_one_filesystem_id
    facts_are_whole_and_typed
    a_disk_that_cannot_be_told_is_no_reason_to_tell_nothing
    an_unknown_request_is_refused
    the_journal_falls_back_where_its_place_is_read_only
    no_writable_place_is_a_refusal
    a_journal_that_became_read_only_is_not_begun_anew
    a_link_in_a_shared_directory_is_not_followed
    what_killed_agents_left_is_tidied_up
}

fn the_greeting_may_come_at_once_with_requests_behind_it(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = Agent::start(&node);
    let mut bytes = agent.greeting(agent::text(), UID);
    let id = run_id();
    bytes.extend_from_slice(&crate::node::request(&id, 60, "echo one"));
    bytes.extend_from_slice(b"facts\n");
    agent.say(bytes);
    agent.meet();
    assert_eq!(agent.ended().output, "one\n");
    assert!(matches!(agent.hear(), Some(Frame::Facts(_))));
    agent.bye();
}

fn the_greeting_may_come_byte_by_byte(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = Agent::start(&node);
    let greeting = agent.greeting(agent::text(), UID);
    let id = run_id();
    let request = crate::node::request(&id, 60, "echo one\necho two\n");
    let bytes = [greeting.as_slice(), &request].concat();
    // Single bytes at the beginning and at the end, where lines and payloads meet; pieces of odd sizes between.
    let (head, tail) = (100, bytes.len() - request.len() - 100);
    let mut place = 0;
    while place < bytes.len() {
        let step = if place < head || place >= tail { 1 } else { (place * 7919 % 997 + 1).min(tail - place) };
        agent.say(&bytes[place..place + step]);
        place += step;
        // A pause lets the shell read what is there; without it pieces would join.
        thread::sleep(Duration::from_micros(500));
    }
    agent.meet();
    assert_eq!(agent.ended().output, "one\ntwo\n");
    agent.bye();
}

fn another_pods_work_is_refused(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = Agent::start(&node);
    agent.greet(agent::text(), "another-uid");
    agent.say(crate::node::request(&run_id(), 60, &format!("touch {}", node.file("ran").display())));
    let (reason, message) = agent.refusal();
    assert_eq!(reason, "incarnation");
    assert!(message.contains(UID) && message.contains("another-uid"), "{message}");
    assert_eq!(agent.hear(), None);
    assert_eq!(agent.wait(), Some(1));
    assert!(!node.file("ran").exists() && !node.state().exists());
}

fn a_host_needs_no_uid(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = Agent::start(&node);
    agent.greet(agent::text(), "-");
    agent.meet();
    let host = agent.filesystem_id.clone();
    agent.bye();
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let (file_system, id) = host.split_once('.').unwrap_or((&host, ""));
    assert_eq!(id, machine.trim(), "the filesystem ID of a machine has its ID");
    // What one node did there is nothing to another that the machine is later.
    let meet = |uid: &str| {
        let mut agent = Agent::start(&node);
        agent.greet(agent::text(), uid);
        agent.meet();
        agent
    };
    let mut first = meet("@n-1");
    assert_eq!(first.filesystem_id, format!("{host}.n-1"));
    first.run("true");
    first.bye();
    assert_eq!(meet("@n-1").pasts.len(), 1);
    assert_eq!(meet("@n-2").pasts.len(), 0);
    let pod = node.agent().filesystem_id.clone();
    let born = pod.strip_prefix(&format!("{file_system}.")).expect("the same file system");
    assert!(born.bytes().all(|byte| byte.is_ascii_digit()), "a pod's filesystem ID {pod} knows when process 1 began");
}

fn the_filesystem_id_stays_until_the_file_system_goes(shell: Shell) {
    let node = Node::new(shell);
    let first = node.agent();
    let filesystem_id = first.filesystem_id.clone();
    assert!(filesystem_id.len() >= 32 && !filesystem_id.contains(' '), "{filesystem_id}");
    first.bye();
    let mut second = node.agent();
    second.succeed("true");
    assert_eq!(second.filesystem_id, filesystem_id);
    second.bye();
    fs::remove_dir_all(node.state()).unwrap();
    let third = node.agent();
    assert_ne!(third.filesystem_id, filesystem_id);
    assert_eq!(third.pasts, []);
    third.bye();
}

/// Case 11: with a shared process namespace process 1 outlives the container, and a journal on a volume does as well.
fn a_life_that_the_operator_tells_is_another_one_though_process_one_is_the_same(shell: Shell) {
    let node = Node::new(shell);
    let meet = |told: &str| {
        let mut agent = Agent::start(&node);
        agent.greet(agent::text(), &format!("{UID} {told}"));
        agent.meet();
        agent
    };
    let mut first = meet("c1");
    assert!(first.filesystem_id.ends_with(".c1"), "{}", first.filesystem_id);
    first.run("true");
    first.bye();
    assert_eq!(meet("c1").pasts.len(), 1);
    assert_eq!(meet("c2").pasts.len(), 0, "what ran in another container is nothing to this one");
    let mut foreign = Agent::start(&node);
    foreign.greet(agent::text(), "another-uid c1");
    assert_eq!(foreign.refusal().0, "incarnation");
}

fn two_first_greetings_make_one_filesystem_id(shell: Shell) {
    for _ in 0..5 {
        let node = Node::new(shell);
        let together = Barrier::new(4);
        let greet = || {
            let mut agent = Agent::start(&node);
            together.wait();
            agent.greet(agent::text(), UID);
            agent.meet();
            agent.filesystem_id.clone()
        };
        let ids: BTreeSet<String> = thread::scope(|scope| {
            let greeters: Vec<_> = (0..4).map(|_| scope.spawn(greet)).collect();
            greeters.into_iter().map(|greeter| greeter.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
}

/// That of busybox prints the heading only where / is no mount, as in a chroot; and names may have spaces.
fn a_disk_that_cannot_be_told_is_no_reason_to_tell_nothing(shell: Shell) {
    if shell == Shell::Busybox {
        // It runs its own, whatever the path says.
        return;
    }
    for said in ["Filesystem 1024-blocks Used Available Capacity Mounted on", "Filesystem\\ntank/my fs 1 1 1 1% /", ""]
    {
        let mut node = Node::new(shell);
        fs::create_dir(node.file("bin")).unwrap();
        let df = node.file("bin").join("df");
        fs::write(&df, format!("#!/bin/sh\nprintf '{said}\\n'\nexit 1\n")).unwrap();
        fs::set_permissions(&df, fs::Permissions::from_mode(0o755)).unwrap();
        node.path = Some(format!("{}:{}:/usr/bin:/bin", node.file("bin").display(), shell.bin().display()));
        let mut agent = node.agent();
        agent.say("facts\n");
        let Some(Frame::Facts(payload)) = agent.hear() else { panic!("it said {}", agent.said()) };
        let facts = facts::parse_built_in(&payload);
        assert_eq!(
            (&facts["disk"]["totalBytes"], facts["os"]["arch"].as_str()),
            (&0.into(), Some(std::env::consts::ARCH))
        );
        agent.bye();
    }
}

fn facts_are_whole_and_typed(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    agent.say("facts\n");
    let Some(Frame::Facts(payload)) = agent.hear() else { panic!("{}", agent.said()) };
    let facts = facts::parse_built_in(&payload);
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(facts["hostname"], name.trim());
    assert_eq!(facts["os"]["arch"], std::env::consts::ARCH);
    for text in ["family", "name", "kernel", "packageManager", "serviceManager"] {
        assert!(facts["os"][text].as_str().is_some_and(|text| !text.is_empty()), "os.{text} in {facts:#?}");
    }
    assert_eq!(facts["cpu"]["count"], thread::available_parallelism().unwrap().get());
    for (group, name) in [("memory", "totalBytes"), ("memory", "availableBytes"), ("disk", "totalBytes")] {
        assert!(facts[group][name].as_i64().is_some_and(|n| n > 1 << 20), "{group}.{name} in {facts:#?}");
    }
    assert!((0..=100).contains(&facts["disk"]["freePercent"].as_i64().unwrap()));
    assert!(facts["load"]["one"].is_number() && facts["uptimeSeconds"].is_i64());
    let addresses: Vec<_> = facts["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let own: Vec<_> = addresses.iter().filter(|a| a.parse::<std::net::Ipv4Addr>().is_ok()).collect();
    assert!(own.len() == addresses.len() && !addresses.contains(&"127.0.0.1"), "{addresses:?}");
    agent.bye();
}

fn an_unknown_request_is_refused(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    agent.say("reboot now\n");
    let (reason, message) = agent.refusal();
    assert!(reason == "protocol" && message.contains("reboot"), "{reason} {message}");
    agent.succeed("true");
    agent.bye();
}

/// All places where a journal could be, in a mount namespace of the agent's own.
fn places(first: &str, second: &str, third: &str, node: &Node) -> Option<String> {
    let state = node.state();
    fs::create_dir_all(&state).unwrap();
    let mounts = [(first, state.to_str().unwrap()), (second, "/var/tmp"), (third, "/tmp")];
    Some(mounts.map(|(mode, place)| format!("mount -t tmpfs -o {mode},size=1m pallet-agent-test {place}")).join("\n"))
}

fn the_journal_falls_back_where_its_place_is_read_only(shell: Shell) {
    for (second, place) in [("rw", "/var/tmp/pallet-"), ("ro", "/tmp/pallet-")] {
        let mut node = Node::new(shell);
        node.namespace = places("ro", second, "rw", &node);
        let mut agent = node.agent();
        assert!(agent.said().contains(&format!(" {place}")), "{}", agent.said());
        agent.succeed("true");
        agent.bye();
    }
}

fn no_writable_place_is_a_refusal(shell: Shell) {
    let mut node = Node::new(shell);
    node.namespace = places("ro", "ro", "ro", &node);
    let mut agent = Agent::start(&node);
    agent.greet(agent::text(), UID);
    let (reason, message) = agent.refusal();
    assert_eq!(reason, "state");
    assert!(message.contains(node.state().to_str().unwrap()), "{message}");
    assert_eq!(agent.wait(), Some(1));
}

/// Another journal elsewhere would have another filesystem ID, and a node with a history would pass for a new one.
fn a_journal_that_became_read_only_is_not_begun_anew(shell: Shell) {
    let mut node = Node::with_disk(shell, "size=1m");
    node.agent().bye();
    let state = node.state();
    node.namespace = Some(format!("mount -o remount,ro,bind {} {0}", state.display()));
    let mut agent = Agent::start(&node);
    agent.greet(agent::text(), UID);
    assert_eq!(agent.refusal().0, "state");
}

fn a_link_in_a_shared_directory_is_not_followed(shell: Shell) {
    let mut node = Node::new(shell);
    let target = node.dir.join("precious");
    fs::create_dir(&target).unwrap();
    let setup = places("ro", "rw", "rw", &node).unwrap();
    node.namespace = Some(format!("{setup}\nln -s {} /var/tmp/pallet-$(id -u)", target.display()));
    let agent = node.agent();
    // A name beside it that nobody could guess.
    assert!(agent.said().contains(" /var/tmp/pallet-0."), "{}", agent.said());
    agent.bye();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

fn what_killed_agents_left_is_tidied_up(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    // Half a script has come when it dies.
    agent.say(format!("run {} 60 1000000 configure 1 d0\necho canary-7", run_id()));
    crate::node::wait_until(|| "the script does not come in".into(), || node.keeps("canary-7").is_some());
    agent.kill();
    node.agent().bye();
    assert_eq!(node.keeps("canary-7"), None);
}

#[test]
fn a_missing_tool_is_named() {
    // Busybox's own shell needs no files for its tools.
    for shell in [Shell::Dash, Shell::Bash] {
        let mut node = Node::new(shell);
        let bin = node.dir.join("bin");
        fs::create_dir(&bin).unwrap();
        for tool in ["dd", "wc", "mkdir", "chmod", "ln", "mv", "rm", "cat", "tail", "grep", "date", "readlink", "sleep"]
        {
            symlink(find(tool), bin.join(tool)).unwrap();
        }
        node.path = Some(bin.display().to_string());
        let mut agent = Agent::start(&node);
        agent.greet(agent::text(), UID);
        let (reason, message) = agent.refusal();
        assert_eq!((reason.as_str(), message.as_str()), ("tools", "the node has no mkfifo"));
    }
}
