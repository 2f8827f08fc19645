//! What a phase's script does: actions and facts, compiled by the operator and run by the agent.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use pallet_api::{
    group_node::Effect::{self, Changed, Failed, Unchanged},
    phases::FactParser,
};
use pallet_core::{
    facts::{OWN_FACT_LIMIT, parse_own},
    phase::{
        ActionKind, Digest, FactSource, PhaseName, Source,
        action::Content,
        compile,
        render::{Call, Rendered},
    },
    session::frame::{Ended, Verdict},
};
use serde_json::json;

use crate::node::{Agent, Node, Shell};

under_every_shell! {
    a_file_is_made_kept_and_mended
    a_file_may_hold_and_be_called_anything
    a_file_has_its_owner_and_every_bit_of_its_mode
    a_file_that_cannot_be_is_a_failure_with_its_reason
    a_file_that_cannot_be_replaced_is_rewritten
    a_directory_is_made_kept_and_mended
    a_link_is_made_kept_and_turned
    exec_stops_at_its_first_failure
    exec_has_its_conditions
    actions_do_not_meddle_with_each_other
    facts_are_gathered
    facts_are_bounded
    a_fact_may_write_files_of_any_size
    a_required_fact_that_fails_ends_settings
}

pub fn exec(script: &str) -> ActionKind {
    ActionKind::Exec { script: script.into(), creates: None, unless: None, only_if: None, secret_env: Vec::new() }
}

pub fn file(path: &Path, content: &str, mode: &str) -> ActionKind {
    let path = path.to_str().unwrap().to_owned();
    ActionKind::File { path, content: Content::Text(content.into()), mode: mode.into(), owner: None, group: None }
}

fn owned(path: &Path, mode: &str, owner: &str, group: &str) -> ActionKind {
    let path = path.to_str().unwrap().to_owned();
    ActionKind::File {
        path,
        content: Content::Text("x".into()),
        mode: mode.into(),
        owner: Some(owner.into()),
        group: Some(group.into()),
    }
}

/// Runs the actions as one phase, each named by its place.
pub fn perform(agent: &mut Agent, kinds: Vec<ActionKind>) -> Ended {
    let calls =
        kinds.into_iter().enumerate().map(|(place, kind)| Call::new(format!("it's no. {place}"), kind)).collect();
    let rendered = Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() };
    let ended = agent.run(&compile::phase(&rendered, 0));
    for (place, action) in ended.actions.iter().enumerate() {
        assert_eq!(action.name, format!("it's no. {place}"));
    }
    ended
}

pub fn effects(ended: &Ended) -> Vec<Effect> {
    ended.actions.iter().map(|action| action.result).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn a_file_is_made_kept_and_mended(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("motd");
    let motd = || file(&path, "hello\n\n", "640");
    let made = perform(&mut agent, vec![motd(), motd()]);
    assert_eq!((made.verdict, effects(&made)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", made.output);
    assert_eq!((node.read("motd").as_str(), mode(&path)), ("hello\n\n", 0o640));
    let (inode, changed) = (fs::metadata(&path).unwrap().ino(), fs::metadata(&path).unwrap().mtime_nsec());
    assert_eq!(effects(&perform(&mut agent, vec![motd()])), [Unchanged]);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "an unchanged file is not even touched");
    assert_eq!(fs::metadata(&path).unwrap().mtime_nsec(), changed);
    fs::write(&path, "tampered\n").unwrap();
    assert_eq!(effects(&perform(&mut agent, vec![motd()])), [Changed]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(effects(&perform(&mut agent, vec![motd(), motd()])), [Changed, Unchanged]);
    assert_eq!((node.read("motd").as_str(), mode(&path)), ("hello\n\n", 0o640));
    let names: Vec<_> = fs::read_dir(&node.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().contains("pallet")), "{names:?}");
    agent.bye();
}

fn a_file_may_hold_and_be_called_anything(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let dir = node.file("a b'c\"d$(touch x)`e`*[");
    fs::create_dir(&dir).unwrap();
    let contents = [
        "",
        "\n",
        "\n\n\n",
        "no newline",
        "'\"\\ \\n $HOME $(exit 9) `exit 9` !!\n",
        "%s %d %%\n",
        "-n",
        "EOF\n# not a comment\n   indented\n\ttab\n",
        "\u{1}\u{7f}ünïcödé 日本語\r\n",
    ];
    let long = "0123456789abcde\n".repeat(1 << 14);
    let contents: Vec<&str> = contents.into_iter().chain([long.as_str()]).collect();
    let path = |place: usize| dir.join(format!("-file {place}'\\;&|"));
    let write = || contents.iter().enumerate().map(|(place, text)| file(&path(place), text, "644")).collect();
    let first = perform(&mut agent, write());
    assert_eq!(first.verdict, Verdict::Exit(0), "{}", first.output);
    for (place, text) in contents.iter().enumerate() {
        assert_eq!(fs::read_to_string(path(place)).unwrap(), *text);
    }
    assert_eq!(effects(&perform(&mut agent, write())), vec![Unchanged; contents.len()]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), contents.len());
    agent.bye();
}

fn a_file_has_its_owner_and_every_bit_of_its_mode(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("tool");
    let ended = perform(&mut agent, vec![owned(&path, "4751", "1234", "2345"), owned(&path, "4751", "1234", "2345")]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", ended.output);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), mode(&path)), (1234, 2345, 0o4751));
    // Where none is named the file keeps the ones that it has.
    assert_eq!(effects(&perform(&mut agent, vec![file(&path, "y", "600")])), [Changed]);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), mode(&path)), (1234, 2345, 0o600));
    let by_name = perform(&mut agent, vec![owned(&path, "0", "root", "root"), owned(&path, "0", "root", "root")]);
    assert_eq!(effects(&by_name), [Changed, Unchanged], "{}", by_name.output);
    assert_eq!((fs::metadata(&path).unwrap().uid(), mode(&path)), (0, 0));
    let stranger = perform(&mut agent, vec![owned(&path, "644", "no-such-user", "root"), exec("true")]);
    assert_eq!(effects(&stranger), [Failed]);
    assert_eq!(mode(&path), 0, "a file that cannot have its owner stays as it was");
    agent.bye();
}

fn a_file_that_cannot_be_is_a_failure_with_its_reason(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let dir = node.file("dir");
    fs::create_dir(&dir).unwrap();
    let missing = node.file("missing/motd");
    for (path, reason) in [(&dir, "is a directory"), (&missing, "is not there; make it in an action before")] {
        let ended = perform(&mut agent, vec![exec("true"), file(path, "x", "644"), exec("touch dir/later")]);
        assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(1), vec![Changed, Failed]));
        assert!(ended.output.contains(reason), "{}", ended.output);
    }
    assert!(fs::read_dir(&dir).unwrap().next().is_none() && !node.file("missing").exists());
    // A link whose target is as it should be is left alone; one that is not is replaced, its target never written to.
    let (target, link) = (node.file("target"), node.file("link"));
    fs::write(&target, "right").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&target, &link).unwrap();
    assert_eq!(effects(&perform(&mut agent, vec![file(&link, "right", "644")])), [Unchanged]);
    assert_eq!(effects(&perform(&mut agent, vec![file(&link, "other", "644")])), [Changed]);
    assert_eq!((node.read("target").as_str(), node.read("link").as_str()), ("right", "other"));
    agent.bye();
}

/// As a pod's /etc/hosts is: a mount of its own.
fn a_file_that_cannot_be_replaced_is_rewritten(shell: Shell) {
    let mut node = Node::new(shell);
    let (hosts, source) = (node.file("hosts"), node.file("source"));
    fs::write(&hosts, "").unwrap();
    fs::write(&source, "127.0.0.1 a\n").unwrap();
    node.namespace = Some(format!("mount --bind {} {}", source.display(), hosts.display()));
    let mut agent = node.agent();
    let kind = || ActionKind::File {
        path: hosts.to_str().unwrap().into(),
        content: Content::Text("127.0.0.1 b\n".into()),
        mode: "640".into(),
        owner: Some("1234".into()),
        group: None,
    };
    let ended = perform(&mut agent, vec![kind(), kind()]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", ended.output);
    assert_eq!((node.read("source").as_str(), mode(&source)), ("127.0.0.1 b\n", 0o640));
    assert_eq!(fs::metadata(&source).unwrap().uid(), 1234);
    assert_eq!(node.read("hosts"), "", "the mount itself was not seen outside");
    let names: Vec<_> = fs::read_dir(&node.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().contains("pallet")), "{names:?}");
    agent.bye();
}

fn exec_stops_at_its_first_failure(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let cases = [
        ("echo one; false; echo two", 1),
        ("echo one; (exit 7); echo two", 7),
        ("echo one\nexit 3\necho two", 3),
        ("f() { echo one; false; echo two; }; f", 1),
        ("echo one; false | true; cat /no/such/file; echo two", 1),
        ("echo one; kill -9 $$; sleep 5; echo two", 137),
        // A condition is no failure.
        ("if false; then :; fi; false || true; ! true || echo one; exit 4", 4),
    ];
    for (script, code) in cases {
        let ended = perform(&mut agent, vec![exec("echo before"), exec(script), exec("echo later")]);
        assert_eq!(ended.verdict, Verdict::Exit(code), "{script}: {}", ended.output);
        assert!(!ended.output.contains("two") && !ended.output.contains("later"), "{script}: {}", ended.output);
        // Killed together with its phase it cannot note anything.
        let expected = if code == 137 { vec![Changed] } else { vec![Changed, Failed] };
        assert_eq!(effects(&ended), expected, "{script}");
    }
    for script in ["echo 'unfinished", "if true; then", "done", "echo $(", "case x in"] {
        let ended = perform(&mut agent, vec![exec("echo before"), exec(script), exec("echo later")]);
        assert_eq!(effects(&ended), [Changed, Failed], "{script}: {}", ended.output);
        assert!(
            matches!(ended.verdict, Verdict::Exit(1..)) && ended.output.starts_with("before\n"),
            "{script}: {ended:?}"
        );
        assert!(!ended.output.contains("later"), "{script}: {}", ended.output);
    }
    agent.bye();
}

fn exec_has_its_conditions(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let there = node.file("it is there").to_str().unwrap().to_owned();
    let with = |creates: Option<&str>, unless: Option<&str>, only_if: Option<&str>| ActionKind::Exec {
        script: format!("echo ran; touch '{there}'"),
        secret_env: Vec::new(),
        creates: creates.map(Into::into),
        unless: unless.map(Into::into),
        only_if: only_if.map(Into::into),
    };
    let creates = || with(Some(&there), None, None);
    let ended = perform(&mut agent, vec![creates(), creates()]);
    assert_eq!((effects(&ended), ended.output.as_str()), (vec![Changed, Unchanged], "ran\n"));
    let unless = |condition| with(None, Some(condition), None);
    let only_if = |condition| with(None, None, Some(condition));
    let cases = [
        (unless("true"), Unchanged),
        (unless("echo noise; exit 0"), Unchanged),
        (unless("false"), Changed),
        (unless("if"), Changed),
        (only_if("true"), Changed),
        (only_if("false"), Unchanged),
        (only_if("exit 3"), Unchanged),
        (only_if("("), Unchanged),
        (with(Some("/no/such/file"), Some("false"), Some("true")), Changed),
        (with(Some("/no/such/file"), Some("false"), Some("false")), Unchanged),
    ];
    let (kinds, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let ended = perform(&mut agent, kinds);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), expected), "{}", ended.output);
    assert_eq!(ended.output, "ran\n".repeat(4), "conditions print nothing");
    agent.bye();
}

fn actions_do_not_meddle_with_each_other(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let first = "cd /; x=1; umask 000; set +e; set -f; IFS=:; name=stolen result=stolen journal=/dev/null code=9
        perform() { echo stolen; }; printf() { :; }; trap 'echo trapped' EXIT; set -- a b";
    let second = "echo \"[$x] $(pwd) $(umask) $# [${PALLET_JOURNAL-}]\"; touch made";
    let ended = perform(&mut agent, vec![exec(first), exec(second)]);
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Changed]), "{}", ended.output);
    assert!(ended.output.contains(&format!("[] {} ", node.dir.display())), "{}", ended.output);
    assert!(ended.output.ends_with(" 0 []\n"), "{}", ended.output);
    assert!(node.file("made").exists());
    // Nor are their inputs what the agent reads.
    let ended = perform(&mut agent, vec![exec("cat; read line || echo empty"), exec("echo last")]);
    assert_eq!(ended.output, "empty\nlast\n");
    agent.bye();
}

fn fact(name: &str, source: Source, optional: bool) -> FactSource {
    FactSource { name: name.into(), source, parse: FactParser::Text, optional }
}

fn script(text: &str) -> Source {
    Source::Exec(text.into())
}

fn facts_are_gathered(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    fs::write(node.file("release"), "first\nsecond\n").unwrap();
    let facts = [
        fact("one", script("echo one"), false),
        fact("lines", script("printf 'a\\n\\n b ok 7\\n'"), false),
        fact("nothing", script("true"), false),
        fact("missing", script("no-such-command"), true),
        fact("failing", script("echo half; exit 3"), true),
        fact("halting", script("echo half; false; echo whole"), true),
        fact("broken", script("if"), true),
        fact("release", Source::File(node.file("release").display().to_string()), false),
        fact("absent", Source::File("/no/such/file".into()), true),
        fact("last", script("echo ünï"), false),
        FactSource { parse: FactParser::ExitCode, ..fact("yes", script("echo noise; true"), false) },
        FactSource { parse: FactParser::ExitCode, ..fact("no", script("false; true"), false) },
    ];
    let ended = agent.succeed(&compile::settings(&facts));
    let found = parse_own(&ended.facts, &facts, str::to_owned).unwrap();
    let expected = json!({
        "one": "one", "lines": "a\n\n b ok 7", "nothing": "", "release": "first\nsecond", "last": "ünï", "yes": true, "no": false
    });
    assert_eq!(json!(found), expected, "{}", ended.output);
    agent.bye();
}

fn facts_are_bounded(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    fs::write(node.file("large"), "y".repeat(10_000)).unwrap();
    // As much as there may be, each as large as it may be.
    let mut facts: Vec<_> = (0..15)
        .map(|n| fact(&format!("fact{n}"), Source::File(node.file("large").display().to_string()), false))
        .collect();
    facts.push(fact("flood", script("while :; do echo flood; done"), true));
    facts.push(fact("flood2", script("cat /dev/zero"), true));
    facts.push(fact("last", script("echo last"), false));
    let ended = agent.succeed(&compile::settings(&facts));
    let found = parse_own(&ended.facts, &facts, str::to_owned).unwrap();
    // The two that flooded failed, and are optional.
    assert_eq!(found.len(), 16, "{}", ended.output);
    assert_eq!(found["fact14"].as_str().unwrap().len(), OWN_FACT_LIMIT);
    assert!(!found.contains_key("flood") && !found.contains_key("flood2"));
    assert_eq!(found["last"], json!("last"));
    agent.bye();
}

/// Found with apt, which writes its cache: a limit for all files ended it, and the pipe behind it said nothing.
fn a_fact_may_write_files_of_any_size(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let facts =
        [fact("size", script("dd if=/dev/zero bs=1024 count=200 2>/dev/null | tee cache | wc -c | tr -d ' '"), false)];
    let ended = agent.succeed(&compile::settings(&facts));
    assert_eq!(json!(parse_own(&ended.facts, &facts, str::to_owned).unwrap()), json!({"size": "204800"}));
    assert_eq!(fs::metadata(node.file("cache")).unwrap().len(), 204_800);
    let long = [fact("long", script("dd if=/dev/zero bs=1024 count=33 2>/dev/null"), false)];
    let ended = agent.run(&compile::settings(&long));
    assert_eq!(ended.verdict, Verdict::Exit(1));
    assert!(ended.output.contains("fact long is longer than 32 KiB"), "{}", ended.output);
    agent.bye();
}

fn a_required_fact_that_fails_ends_settings(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let facts = [
        fact("one", script("echo one"), false),
        fact("two", script("exit 9"), false),
        fact("three", script("touch three"), false),
    ];
    let ended = agent.run(&compile::settings(&facts));
    assert_eq!(ended.verdict, Verdict::Exit(9));
    assert!(ended.output.contains("fact two failed with code 9"), "{}", ended.output);
    assert!(!node.file("three").exists());
    let ended = agent.run(&compile::settings(&[fact("file", Source::File("/no/such/file".into()), false)]));
    assert!(matches!(ended.verdict, Verdict::Exit(1..)) && ended.output.contains("fact file failed"), "{ended:?}");
    agent.bye();
}

fn directory(path: &Path, mode: Option<&str>) -> ActionKind {
    let path = path.to_str().unwrap().to_owned();
    ActionKind::Directory { path, mode: mode.map(str::to_owned), owner: None, group: None }
}

fn link(path: &Path, target: &str) -> ActionKind {
    ActionKind::Symlink { path: path.to_str().unwrap().to_owned(), target: target.to_owned() }
}

fn a_directory_is_made_kept_and_mended(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let deep = node.file("a dir/b/c");
    let made = perform(&mut agent, vec![directory(&deep, None), directory(&deep, None)]);
    assert_eq!((made.verdict, effects(&made)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", made.output);
    assert_eq!((mode(&deep), mode(&node.file("a dir"))), (0o755, 0o755));
    let set = perform(
        &mut agent,
        vec![directory(&deep, Some("1770")), directory(&deep, None), directory(&deep, Some("1770"))],
    );
    assert_eq!(effects(&set), [Changed, Unchanged, Unchanged], "{}", set.output);
    assert_eq!(mode(&deep), 0o1770, "a mode that is not asked for is left");
    let path = deep.to_str().unwrap().to_owned();
    let owned =
        || ActionKind::Directory { path: path.clone(), mode: None, owner: Some("12".into()), group: Some("13".into()) };
    let ended = perform(&mut agent, vec![owned(), owned()]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    let found = fs::metadata(&deep).unwrap();
    assert_eq!((found.uid(), found.gid()), (12, 13));
    fs::write(node.file("file"), "x").unwrap();
    let ended = perform(&mut agent, vec![directory(&node.file("file"), None)]);
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("is there and is no directory"), "{}", ended.output);
    agent.bye();
}

fn a_link_is_made_kept_and_turned(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("current");
    fs::create_dir(node.file("v1")).unwrap();
    let ended = perform(&mut agent, vec![link(&path, "v1"), link(&path, "v1"), link(&path, "v2"), link(&path, "-v 3")]);
    assert_eq!(effects(&ended), [Changed, Unchanged, Changed, Changed], "{}", ended.output);
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("-v 3"));
    assert_eq!(fs::read_dir(node.file("v1")).unwrap().count(), 0, "a link to a directory is turned, not filled");
    let ended = perform(&mut agent, vec![link(&node.file("v1"), "x")]);
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("is there and is no link"), "{}", ended.output);
    agent.bye();
}
