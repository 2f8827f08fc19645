//! Lines in files and downloads: their corners, and how they fail.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::{Arc, Mutex},
    thread,
};

use pallet_api::{
    actions::Presence::{Absent, Present},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::{
    phase::{
        ActionKind,
        action::{KeyRef, Sealed, SecretEnv},
        compile,
        secret::{Secret, Secrets, payload},
    },
    session::frame::{Ended, Verdict},
};
use sha2::{Digest as _, Sha256};

use crate::{
    actions::{effects, perform},
    conformance::{apply, check, line, only, rooted, without},
    node::{Agent, Shell, run_id},
};

under_every_shell! {
    lines_are_put_where_they_belong
    a_line_keeps_its_place_with_patterns_that_it_does_not_match
    a_line_that_cannot_be_is_a_failure_with_its_reason
    a_setting_that_holds_goes_before_one_that_is_commented_out
    a_line_comes_before_another_and_in_the_place_of_the_first
    a_file_with_carriage_returns_keeps_them
    a_line_is_kept_in_the_file_that_a_link_leads_to
    a_download_comes_by_curl_or_wget_and_is_verified
    a_download_that_stands_still_is_ended
    a_download_that_fails_says_why
    a_secret_header_goes_to_its_host_and_nowhere_else
}

fn set_line(agent: &mut Agent, kind: ActionKind) -> Ended {
    let ended = apply(agent, &kind);
    let again = apply(agent, &kind);
    assert!(effects(&again) != [Changed], "{kind:?} never ends: {again:?}");
    ended
}

fn lines_are_put_where_they_belong(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let after = |text: &str, behind: &str| ActionKind::LineInFile {
        path: "/srv/f".into(),
        line: Some(text.into()),
        matches: None,
        insert_after: Some(behind.into()),
        insert_before: None,
        first: false,
        state: Present,
        create: false,
    };
    let odd = "it's $(x) `y` \\n & / \"q\" \t* [ünï] %s -n";
    let with = |text: &str, matches: Option<&str>| line("/srv/f", Some(text), matches, Present);
    let without = |text: Option<&str>, matches: Option<&str>| line("/srv/f", text, matches, Absent);
    let cases = [
        ("", with("a", None), "a\n"),
        ("\n", with("a", None), "\na\n"),
        ("x\ny", with("a", None), "x\ny\na\n"),
        ("x\na\ny\n", with("a", None), "x\na\ny\n"),
        ("x\na", with("a", None), "x\na"),
        ("aa\na \n", with("a", None), "aa\na \na\n"),
        ("a.c\n", with(".", None), "a.c\n.\n"),
        ("x\n", with(odd, None), &format!("x\n{odd}\n")),
        ("-e\n", with("-v", None), "-e\n-v\n"),
        ("P 1\nP 2\nq\n", with("P 3", Some("^P [0-9]+$")), "P 1\nP 3\nq\n"),
        ("P 1\nP 2", with("P 3", Some("^P")), "P 1\nP 3\n"),
        ("P 3\nP 2\n", with("P 3", Some("^P")), "P 3\nP 3\n"),
        ("q\n", with("P 3", Some("^(P|R) ")), "q\nP 3\n"),
        ("x\r\ny\r\n", with("y\r", Some("^x")), "x\r\ny\r\n"),
        ("[s]\na\n[t]\nb\n", after("c", "^\\[s"), "[s]\nc\na\n[t]\nb\n"),
        ("s\ns", after("c", "^s"), "s\ns\nc\n"),
        ("x\n", after("c", "^s"), "x\nc\n"),
        ("x\nc\ns\n", after("c", "^s"), "x\nc\ns\n"),
        ("a\nb\na\n", without(Some("a"), None), "b\n"),
        ("a\n", without(Some("a"), None), ""),
        ("aa\nb", without(Some("a"), None), "aa\nb"),
        ("a.\nab\n", without(Some("a."), None), "ab\n"),
        ("P 1\nq\nP 2\n", without(None, Some("^P")), "q\n"),
        ("-v\n-e\n", without(None, Some("-v")), "-e\n"),
    ];
    for (before, kind, expected) in cases {
        fs::write(node.file("srv/f"), before).unwrap();
        fs::set_permissions(node.file("srv/f"), fs::Permissions::from_mode(0o604)).unwrap();
        let effect = if before == expected { Unchanged } else { Changed };
        let ended = set_line(&mut agent, kind.clone());
        assert_eq!((effects(&ended), ended.output.as_str()), (vec![effect], ""), "{before:?} {kind:?}");
        assert_eq!(node.read("srv/f"), expected, "{before:?} {kind:?}");
        assert_eq!(fs::metadata(node.file("srv/f")).unwrap().mode() & 0o7777, 0o604);
    }
    fs::write(node.file("srv/f"), b"\xff\xfe\0x\nlast\n").unwrap();
    assert_eq!(effects(&set_line(&mut agent, with("new", Some("^last$")))), [Changed]);
    assert_eq!(fs::read(node.file("srv/f")).unwrap(), b"\xff\xfe\0x\nnew\n");
    agent.bye();
}

fn a_line_keeps_its_place_with_patterns_that_it_does_not_match(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    fs::write(node.file("srv/f"), "#Port 1\n#Port 2\n").unwrap();
    let kind = line("/srv/f", Some("Port 22"), Some("^#Port"), Present);
    assert_eq!(effects(&set_line(&mut agent, kind)), [Changed]);
    assert_eq!(node.read("srv/f"), "#Port 1\nPort 22\n");
    agent.bye();
}

fn a_setting_that_holds_goes_before_one_that_is_commented_out(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let cases = [
        // As many installers leave it: the first that is no comment holds for sshd.
        ("P yes\nX\n\n# Example:\n#P other\n", "P no", "^#?P ", "P no\nX\n\n# Example:\n#P other\n"),
        ("P yes\n  ; P a\n// P b\n", "P no", "P ", "P no\n  ; P a\n// P b\n"),
        ("#P a\n#P b\n", "P no", "^#?P ", "#P a\nP no\n"),
        ("P no\n#P b\n", "P no", "^#?P ", "P no\n#P b\n"),
        // One that is to be commented out.
        ("P yes\n#P a\n", "#P", "^#?P", "#P\n#P a\n"),
        ("#P\n#P a\n", "#P", "^#?P", "#P\n#P a\n"),
    ];
    for (before, wanted, pattern, expected) in cases {
        fs::write(node.file("srv/f"), before).unwrap();
        set_line(&mut agent, line("/srv/f", Some(wanted), Some(pattern), Present));
        assert_eq!(node.read("srv/f"), expected, "{before:?}");
    }
    agent.bye();
}

fn a_line_comes_before_another_and_in_the_place_of_the_first(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let placed = |after: Option<&str>, before: Option<&str>| ActionKind::LineInFile {
        path: "/srv/f".into(),
        line: Some("P no".into()),
        matches: Some("^P".into()),
        insert_after: after.map(Into::into),
        insert_before: before.map(Into::into),
        first: true,
        state: Present,
        create: false,
    };
    let cases = [
        ("P a\nP b\n", placed(None, None), "P no\nP b\n"),
        ("A\nMatch x\nMatch y\n", placed(None, Some("^Match ")), "A\nP no\nMatch x\nMatch y\n"),
        ("Match x", placed(None, Some("^Match ")), "P no\nMatch x"),
        ("A\n", placed(None, Some("^Match ")), "A\nP no\n"),
        ("A 1\nB\nA 2\n", placed(Some("^A"), None), "A 1\nP no\nB\nA 2\n"),
    ];
    for (before, kind, expected) in cases {
        fs::write(node.file("srv/f"), before).unwrap();
        set_line(&mut agent, kind);
        assert_eq!(node.read("srv/f"), expected, "{before:?}");
    }
    agent.bye();
}

fn a_file_with_carriage_returns_keeps_them(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let with = |text: &str, matches: Option<&str>| line("/srv/f", Some(text), matches, Present);
    let without = |text: Option<&str>, matches: Option<&str>| line("/srv/f", text, matches, Absent);
    let cases = [
        ("a=1\r\nport=22\r\n", with("port=22", None), "a=1\r\nport=22\r\n"),
        ("a=1\r\nport=22\r\n", with("port=23", Some("^port=[0-9]+$")), "a=1\r\nport=23\r\n"),
        ("a=1\r\nb=2", with("c", None), "a=1\r\nb=2\r\nc\r\n"),
        ("a=1\r\nport=22\r\n", without(Some("port=22"), None), "a=1\r\n"),
        ("a=1\r\nport=22\r\nb\n\0x", without(None, Some("^port=22$")), "a=1\r\nb\n\0x"),
        ("a\r\n", without(None, Some("^a$")), ""),
        // One line alone has it.
        ("a\nport=22\r\n", with("port=22", None), "a\nport=22\r\n"),
        ("a\nport=22\r\n", without(Some("port=22"), None), "a\n"),
        ("a\nb\r\n", with("c", None), "a\nb\r\nc\n"),
    ];
    for (before, kind, expected) in cases {
        fs::write(node.file("srv/f"), before).unwrap();
        let effect = if before == expected { Unchanged } else { Changed };
        let ended = set_line(&mut agent, kind.clone());
        assert_eq!((effects(&ended), ended.output.as_str()), (vec![effect], ""), "{before:?} {kind:?}");
        assert_eq!(node.read("srv/f"), expected, "{before:?} {kind:?}");
    }
    agent.bye();
}

fn a_line_that_cannot_be_is_a_failure_with_its_reason(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    fs::write(node.file("srv/f"), "x\n").unwrap();
    let cases = [
        (line("/srv/none", Some("a"), None, Present), "is not there; make it in an action before, or set create"),
        (line("/srv/f", Some("a"), Some("("), Present), "( is no extended regular expression"),
        (line("/srv", Some("a"), None, Present), "/srv is a directory"),
    ];
    for (kind, reason) in cases {
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!(effects(&ended), [Failed], "{kind:?}");
            assert!(ended.output.contains(reason), "{}", ended.output);
        }
    }
    assert_eq!(node.read("srv/f"), "x\n");
    assert_eq!(effects(&apply(&mut agent, &line("/srv/none", Some("a"), None, Absent))), [Unchanged]);
    let mut created = line("/srv/none", Some("a"), None, Present);
    if let ActionKind::LineInFile { create, .. } = &mut created {
        *create = true;
    }
    assert_eq!(effects(&set_line(&mut agent, created)), [Changed]);
    let made = fs::metadata(node.file("srv/none")).unwrap();
    assert_eq!((node.read("srv/none").as_str(), made.mode() & 0o7777), ("a\n", 0o644));
    agent.bye();
}

fn a_line_is_kept_in_the_file_that_a_link_leads_to(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    fs::write(node.file("srv/f"), "x\n").unwrap();
    symlink("f", node.file("srv/link")).unwrap();
    assert_eq!(effects(&set_line(&mut agent, line("/srv/link", Some("a"), None, Present))), [Changed]);
    assert!(node.file("srv/link").is_symlink());
    assert_eq!(node.read("srv/f"), "x\na\n");
    agent.bye();
}

/// Serves one content at every path, and an error at /missing; with nothing but a beginning at /slow.
fn serve(content: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let (status, length) = match request.split(' ').nth(1) {
                    Some("/silent") => {
                        let _ = stream.read(&mut [0; 16]);
                        return;
                    }
                    Some("/missing") => ("404 Not Found", 0),
                    Some("/slow") => ("200 OK", content.len() + 1),
                    _ => ("200 OK", content.len()),
                };
                let body = if length == 0 { b"" } else { content };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
                if length > content.len() {
                    // Till the other end has enough of it.
                    let _ = stream.read(&mut [0; 16]);
                }
            });
        }
    });
    port
}

fn remote(url: &str, content: &[u8]) -> ActionKind {
    ActionKind::RemoteFile {
        path: "/srv/f".into(),
        url: url.into(),
        sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
        secret_headers: Vec::new(),
        mode: "640".into(),
        owner: Some("games".into()),
        group: None,
    }
}

fn a_download_comes_by_curl_or_wget_and_is_verified(shell: Shell) {
    const CONTENT: &[u8] = b"it's\0the content\n\n";
    let port = serve(CONTENT);
    for tool in ["curl", "wget"] {
        let mut node = rooted(shell, &[]);
        if tool == "wget" {
            without(&mut node, &["curl"]);
        }
        let mut agent = node.agent();
        let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
        let kind = remote(&url("f?a=b&c=d"), CONTENT);
        let ended = perform(&mut agent, vec![kind.clone(), kind.clone()]);
        assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed, Unchanged]), "{}", ended.output);
        assert_eq!(fs::read(node.file("srv/f")).unwrap(), CONTENT);
        let made = fs::metadata(node.file("srv/f")).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid()), (0o640, 5));
        // What is there with the right checksum needs no server, only its mode.
        fs::set_permissions(node.file("srv/f"), fs::Permissions::from_mode(0o600)).unwrap();
        let ended = apply(&mut agent, &remote("http://127.0.0.1:1/", CONTENT));
        assert_eq!(effects(&ended), [Changed], "{}", ended.output);
        let cases = [
            (remote(&url("f"), b"other"), "mend sha256 or the url"),
            (remote(&url("missing"), b"other"), "could not fetch"),
            (remote("http://127.0.0.1:1/", b"other"), "could not fetch"),
            (remote("file:///srv/none", b"other"), "/srv/none"),
            (remote("file:///srv/a%20b", b"other"), "write file:///srv/a%20b without %"),
        ];
        for (kind, reason) in cases {
            assert_eq!(effects(&check(&mut agent, &kind)), [Changed]);
            let ended = apply(&mut agent, &kind);
            assert_eq!(effects(&ended), [Failed], "{kind:?}");
            assert!(ended.output.contains(reason), "{}", ended.output);
            assert_eq!(fs::read(node.file("srv/f")).unwrap(), CONTENT);
        }
        assert_eq!(fs::read_dir(node.file("srv")).unwrap().count(), 1, "nothing is left beside it");
        agent.bye();
        node.wait_until_quiet();
    }
}

fn a_download_that_stands_still_is_ended(shell: Shell) {
    let port = serve(b"a beginning");
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let kind = remote(&format!("http://127.0.0.1:{port}/slow"), b"a beginning and an end");
    let script = compile::phase(&only(&kind), 0);
    let hasty = script.replace("\npatience=60\n", "\npatience=2\n");
    assert_ne!(script, hasty);
    let ended = agent.run(&hasty);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    assert!(ended.output.contains("/slow for 2 s"), "{}", ended.output);
    assert_eq!(fs::read_dir(node.file("srv")).unwrap().count(), 0);
    agent.bye();
    node.wait_until_quiet();
}

fn a_download_that_fails_says_why(shell: Shell) {
    let port = serve(b"content");
    for tool in ["curl", "wget"] {
        let mut node = rooted(shell, &[]);
        if tool == "wget" {
            without(&mut node, &["curl"]);
        }
        let mut agent = node.agent();
        for (url, reason) in [
            (format!("http://127.0.0.1:{port}/missing"), "404"),
            ("http://127.0.0.1:1/".to_owned(), "refused"),
            ("http://127.0.0.1:1/".to_owned(), "could not fetch http://127.0.0.1:1/"),
        ] {
            let ended = apply(&mut agent, &remote(&url, b"other"));
            // curl's words for a refused connection differ between its versions.
            let refused = reason == "refused" && ended.output.contains("connect to");
            assert!(ended.output.contains(reason) || refused, "{tool}: {}", ended.output);
        }
        let script = compile::phase(&only(&remote(&format!("http://127.0.0.1:{port}/silent"), b"other")), 0);
        let ended = agent.run(&script.replace("\npatience=60\n", "\npatience=2\n"));
        assert!(ended.output.contains("nothing came from"), "{tool}, before the first byte: {}", ended.output);
        // A pipe would be waited for.
        assert!(std::process::Command::new("mkfifo").arg(node.file("srv/pipe")).status().unwrap().success());
        let ended = apply(&mut agent, &remote("file:///srv/pipe", b"other"));
        assert!(ended.output.contains("/srv/pipe is not there, or is no file"), "{}", ended.output);
        agent.bye();
        node.wait_until_quiet();
    }
}

/// Two hosts, of which the first redirects to the second, and to itself.
fn serve_redirects(requests: &Arc<Mutex<Vec<String>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = requests.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let target = match request.split(' ').nth(1) {
                Some("/first") => Some("/second".to_owned()),
                Some("/second") => Some(format!("http://localhost:{port}/third")),
                _ => None,
            };
            requests.lock().unwrap().push(request);
            let answer = match target {
                Some(target) => format!(
                    "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone"
                ),
                None => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncontent".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn a_secret_header_goes_to_its_host_and_nowhere_else(shell: Shell) {
    const VALUE: &str = "Bearer c4n\\ary\"'%s $x\n";
    let requests = Arc::new(Mutex::new(Vec::new()));
    let port = serve_redirects(&requests);
    let mut node = rooted(shell, &[]);
    let seal = |name: &str| SecretEnv {
        name: name.into(),
        secret: Sealed { at: KeyRef { name: "mirror".into(), key: "token".into() }, seal: "s".into() },
    };
    let with_header = |path: &str| {
        let ActionKind::RemoteFile { path: place, sha256, mode, owner, group, .. } = remote("", b"content") else {
            panic!("no download")
        };
        let url = format!("http://127.0.0.1:{port}/{path}");
        let secret_headers = vec![seal("X-Token")];
        ActionKind::RemoteFile { path: place, url, sha256, secret_headers, mode, owner, group }
    };
    let known: Secrets = [(seal("").secret.at, Secret::new(VALUE.as_bytes()))].into();
    let fetch = |agent: &mut Agent, path: &str| {
        let rendered = only(&with_header(path));
        let secrets = payload(&compile::secrets(&rendered), &known).unwrap();
        let script = compile::phase(&rendered, 0);
        let now = jiff::Timestamp::now().as_second();
        let (id, length) = (run_id(), script.len());
        agent.say(format!("run {id} 60 {length} configure 1 d0 {} - 0 {now}\n{script}{secrets}", secrets.len()));
        agent.ended()
    };
    let mut agent = node.agent();
    let ended = fetch(&mut agent, "first");
    assert_eq!(effects(&ended), [Changed], "{}", ended.output);
    let seen: Vec<_> = requests.lock().unwrap().clone();
    let sent = |request: &String| request.contains("X-Token: Bearer c4n\\ary\"'%s $x\r\n");
    assert_eq!(seen.iter().map(sent).collect::<Vec<_>>(), [true, true, false], "{seen:?}");
    assert!(!seen[2].contains("X-Token"), "{seen:?}");
    assert_eq!(node.keeps("c4n"), None);
    agent.bye();
    // Without curl it is not tried otherwise: wget would have it among its arguments.
    without(&mut node, &["curl"]);
    fs::remove_file(node.file("srv/f")).unwrap();
    let mut agent = node.agent();
    let ended = fetch(&mut agent, "third");
    if shell != Shell::Busybox {
        assert!(ended.output.contains("secretHeaders need curl"), "{}", ended.output);
    }
    agent.bye();
}
