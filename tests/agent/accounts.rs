//! Users, groups, sudoers and jobs: their corners, and how they fail.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use pallet_api::{
    actions::Presence::{self, Absent, Present},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::{
    phase::{ActionKind, action::User},
    session::frame::Verdict,
};

use crate::{
    actions::{effects, perform},
    conformance::{apply, check, cron, rooted, sudoer, user, without},
    node::{Node, Shell},
};

under_every_shell! {
    a_user_is_made_as_it_was_declared
    a_user_that_cannot_be_is_a_failure_with_its_reason
    a_users_keys_do_not_lead_root_elsewhere
    a_home_from_before_becomes_the_users_or_is_refused
    busybox_makes_users_too
    a_sudoer_is_refused_before_it_is_placed
    a_sudoer_has_a_file_that_sudo_reads
    a_user_may_have_several_rules
    a_job_has_a_file_or_a_block_of_a_crontab
}

fn entry(node: &Node, file: &str, name: &str) -> Vec<String> {
    let text = node.read(&format!("etc/{file}"));
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default();
    line.split(':').map(Into::into).collect()
}

fn as_user(user: &User) -> ActionKind {
    ActionKind::User(Box::new(user.clone()))
}

fn group(name: &str, gid: Option<u32>, state: Presence) -> ActionKind {
    ActionKind::UserGroup { name: name.into(), gid, system: true, state }
}

fn a_user_is_made_as_it_was_declared(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let home = node.file("it's home").display().to_string();
    let wanted = User {
        uid: Some(4321),
        groups: vec!["games".into(), "users".into()],
        home: Some(home.clone()),
        shell: Some("/bin/dash".into()),
        comment: Some("It's $me".into()),
        authorized_keys: Some(vec!["one".into(), "two 'x'".into()]),
        ..user("its-user")
    };
    let ended = apply(&mut agent, &as_user(&wanted));
    assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(0), vec![Changed]), "{}", ended.output);
    let made = entry(&node, "passwd", "its-user");
    let gid = entry(&node, "group", "its-user")[2].clone();
    assert_eq!(made[2..], ["4321", &gid, "It's $me", &home, "/bin/dash"]);
    assert_eq!(entry(&node, "shadow", "its-user")[1], "*");
    assert_eq!(
        (entry(&node, "group", "games")[3].as_str(), entry(&node, "group", "users")[3].as_str()),
        ("its-user", "its-user")
    );
    let keys = node.file("it's home/.ssh/authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap(), "one\ntwo 'x'\n");
    for (path, mode) in [(keys.as_path(), 0o600), (keys.parent().unwrap(), 0o700)] {
        let found = fs::metadata(path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (4321, mode));
    }
    // Only what is declared is changed; groups that are not listed are left.
    let less = User { groups: vec!["users".into()], shell: None, comment: Some("Me".into()), ..wanted.clone() };
    assert_eq!(effects(&apply(&mut agent, &as_user(&less))), [Changed]);
    assert_eq!(entry(&node, "passwd", "its-user")[2..], ["4321", &gid, "Me", &home, "/bin/dash"]);
    assert_eq!(entry(&node, "group", "games")[3], "its-user");
    let primary = User { group: Some("games".into()), groups: vec!["games".into()], ..less };
    assert_eq!(effects(&apply(&mut agent, &as_user(&primary))), [Changed]);
    assert_eq!(effects(&apply(&mut agent, &as_user(&primary))), [Unchanged]);
    assert_eq!(entry(&node, "passwd", "its-user")[3], "60");
    // The home stays when the user goes, and is taken up again.
    assert_eq!(effects(&apply(&mut agent, &as_user(&User { state: Absent, ..user("its-user") }))), [Changed]);
    assert!(keys.exists());
    let system = User { system: true, home: Some("/nonexistent/x".into()), ..user("its-system") };
    let ended = perform(&mut agent, vec![as_user(&system), as_user(&system)]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    assert!(entry(&node, "passwd", "its-system")[2].parse::<u32>().unwrap() < 1000);
    assert!(!Path::new("/nonexistent").exists());
    agent.bye();
}

fn a_user_that_cannot_be_is_a_failure_with_its_reason(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let stranger = User { groups: vec!["games".into(), "no-group".into()], ..user("its-user") };
    let primary = User { group: Some("no-group".into()), ..user("its-user") };
    for kind in [as_user(&stranger), as_user(&primary)] {
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!(effects(&ended), [Failed]);
            assert!(ended.output.contains("the group no-group is not there"), "{}", ended.output);
        }
    }
    let homeless =
        User { system: true, home: Some("/srv/none".into()), authorized_keys: Some(Vec::new()), ..user("its-user") };
    let ended = apply(&mut agent, &as_user(&homeless));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("/srv/none is not there to keep authorized_keys in"), "{}", ended.output);
    agent.bye();
    if shell == Shell::Busybox && Shell::Busybox.bin().join("adduser").exists() {
        return;
    }
    let mut bare = rooted(shell, &[]);
    let tools = ["user", "group"]
        .map(|what| ["add", "del", "mod"].map(|verb| [format!("{what}{verb}"), format!("{verb}{what}")]));
    without(&mut bare, &tools.as_flattened().as_flattened().iter().map(String::as_str).collect::<Vec<_>>());
    let mut agent = bare.agent();
    for kind in [group("its-group", None, Present), group("games", None, Absent), as_user(&user("its-user"))] {
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!(effects(&ended), [Failed], "{kind:?}");
            assert!(ended.output.contains("; install shadow"), "{}", ended.output);
        }
    }
    agent.bye();
}

fn a_users_keys_do_not_lead_root_elsewhere(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let keyed = User {
        uid: Some(4321),
        home: Some("/srv/home".into()),
        authorized_keys: Some(vec!["key".into()]),
        ..user("its-user")
    };
    assert_eq!(effects(&apply(&mut agent, &as_user(&keyed))), [Changed]);
    fs::remove_dir_all(node.file("srv/home/.ssh")).unwrap();
    fs::create_dir(node.file("srv/victim")).unwrap();
    symlink("/srv/victim", node.file("srv/home/.ssh")).unwrap();
    let ended = apply(&mut agent, &as_user(&keyed));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("/srv/home/.ssh is a link"), "{}", ended.output);
    assert_eq!(fs::read_dir(node.file("srv/victim")).unwrap().count(), 0);
    fs::remove_file(node.file("srv/home/.ssh")).unwrap();
    fs::create_dir(node.file("srv/home/.ssh")).unwrap();
    fs::write(node.file("srv/victim/file"), "as it was").unwrap();
    symlink("/srv/victim/file", node.file("srv/home/.ssh/authorized_keys")).unwrap();
    assert_eq!(effects(&apply(&mut agent, &as_user(&keyed))), [Changed]);
    assert_eq!(
        (node.read("srv/victim/file").as_str(), node.read("srv/home/.ssh/authorized_keys").as_str()),
        ("as it was", "key\n")
    );
    agent.bye();
}

fn a_home_from_before_becomes_the_users_or_is_refused(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let home = node.file("srv/home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("notes"), "x").unwrap();
    let wanted = User { uid: Some(4321), home: Some("/srv/home".into()), ..user("its-user") };
    let keyed = User { authorized_keys: Some(vec!["key".into()]), ..wanted.clone() };
    let belongs = |uid: u32, mode: u32| {
        chown(&home, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
    };
    // A number that is nobody's any more.
    belongs(54321, 0o750);
    for kind in [as_user(&wanted), as_user(&keyed)] {
        let ended = perform(&mut agent, vec![kind.clone(), kind]);
        assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
        assert_eq!(fs::metadata(&home).unwrap().uid(), 4321);
        assert_eq!(fs::metadata(home.join("notes")).unwrap().uid(), 0, "what is in it stays");
    }
    // Somebody else's is left to them; root's may be one that is meant for sftp.
    for (owner, mode, kind, expected) in [
        (0, 0o755, &keyed, Unchanged),
        (0, 0o700, &wanted, Failed),
        (5, 0o755, &wanted, Unchanged),
        (5, 0o755, &keyed, Failed),
        (5, 0o750, &wanted, Failed),
    ] {
        belongs(owner, mode);
        for ended in [check(&mut agent, &as_user(kind)), apply(&mut agent, &as_user(kind))] {
            assert_eq!(effects(&ended), [expected], "{owner} {mode:o}: {}", ended.output);
            let said = format!("/srv/home belongs to {}", if owner == 0 { "root" } else { "games" });
            assert_eq!(ended.output.contains(&said), expected == Failed, "{}", ended.output);
        }
        assert_eq!(fs::metadata(&home).unwrap().uid(), owner);
    }
    agent.bye();
}

/// Stand-ins for busybox's tools, which the machine's busybox may lack: they note what they are told and do what the test
/// needs of it.
const ADDUSER: &str = r#"
echo "adduser $*" >>calls
for name do :; done
echo "$name:x:4321:1000:Linux User,,,:/home/$name:/bin/ash" >>/etc/passwd"#;
const ADDGROUP: &str = r#"
echo "addgroup $*" >>calls
for last do :; done
if [ $# = 2 ] && [ "$1" != -S ]; then sed -i "s/^\($2:.*:\)$/\1$1/" /etc/group; else echo "$last:x:1000:" >>/etc/group; fi"#;
const DELUSER: &str = r#"sed -i "/^$1:/d" /etc/passwd"#;
const DELGROUP: &str = r#"sed -i "/^$1:/d" /etc/group"#;
const CHPASSWD: &str = r#"echo "chpasswd $* $(cat)" >>calls"#;

fn busybox_makes_users_too(shell: Shell) {
    let tools = [
        ("adduser", ADDUSER),
        ("addgroup", ADDGROUP),
        ("deluser", DELUSER),
        ("delgroup", DELGROUP),
        ("chpasswd", CHPASSWD),
    ];
    let mut node = rooted(shell, &tools);
    node.path = Some(format!("{}:{}", node.file("bin").display(), Shell::Busybox.bin().display()));
    let mut agent = node.agent();
    let group = |gid: Option<u32>, state: Presence| group("its-group", gid, state);
    let wanted =
        User { uid: Some(4321), groups: vec!["its-group".into()], comment: Some("It's me".into()), ..user("its-user") };
    for kind in [group(None, Present), as_user(&User { comment: None, ..wanted.clone() })] {
        assert_eq!(effects(&check(&mut agent, &kind)), [Changed]);
        let ended = apply(&mut agent, &kind);
        assert_eq!(effects(&ended), [Changed], "{}", ended.output);
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!(effects(&ended), [Unchanged], "{} {:?}", ended.output, node.read("calls"));
        }
    }
    let calls = node.read("calls");
    let expected = "addgroup -S its-group\naddgroup its-user\nadduser -D -G its-user -u 4321 its-user\n\
                    chpasswd -e its-user:*\naddgroup its-user its-group\n";
    assert_eq!(calls, expected);
    // What it cannot do it says, and what is to be done.
    for kind in
        [group(Some(7), Present), as_user(&wanted), as_user(&User { comment: None, uid: Some(7), ..wanted.clone() })]
    {
        for ended in [check(&mut agent, &kind), apply(&mut agent, &kind)] {
            assert_eq!(effects(&ended), [Failed]);
            assert!(ended.output.contains("cannot be changed; install shadow"), "{}", ended.output);
        }
    }
    let gone = [as_user(&User { state: Absent, ..user("its-user") }), group(None, Absent)];
    let ended = perform(&mut agent, gone.iter().chain(&gone).cloned().collect());
    assert_eq!(effects(&ended), [Changed, Changed, Unchanged, Unchanged], "{}", ended.output);
    agent.bye();
}

const VISUDO: &str = r#"
for file do :; done
cp "$file" checked
if grep -q bad "$file"; then echo "syntax error" >&2; exit 1; fi"#;

fn a_sudoer_is_refused_before_it_is_placed(shell: Shell) {
    let node = rooted(shell, &[("visudo", VISUDO)]);
    let mut agent = node.agent();
    let ended = apply(&mut agent, &sudoer("bob", Present));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("has no /etc/sudoers.d; install sudo"), "{}", ended.output);
    fs::create_dir(node.file("etc/sudoers.d")).unwrap();
    for ended in [check(&mut agent, &sudoer("bad", Present)), apply(&mut agent, &sudoer("bad", Present))] {
        assert_eq!(effects(&ended), [Failed]);
        assert!(
            ended.output.contains("syntax error") && ended.output.contains("visudo refuses it"),
            "{}",
            ended.output
        );
    }
    assert_eq!(fs::read_dir(node.file("etc/sudoers.d")).unwrap().count(), 0);
    assert_eq!(effects(&apply(&mut agent, &sudoer("bob", Present))), [Changed]);
    assert_eq!(node.read("checked"), node.read("etc/sudoers.d/pallet-bob"));
    agent.bye();
}

fn a_sudoer_has_a_file_that_sudo_reads(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    fs::create_dir(node.file("etc/sudoers.d")).unwrap();
    let rest = "ALL=(ALL) NOPASSWD: /bin/true, /bin/id -u\n";
    for (name, file) in [("bob", "pallet-bob"), ("%wheel", "pallet-group-wheel"), ("a.b.c", "pallet-a+b+c")] {
        assert_eq!(effects(&apply(&mut agent, &sudoer(name, Present))), [Changed]);
        let path = node.file("etc/sudoers.d").join(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{name} {rest}"));
        let found = fs::metadata(path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o440, 0, 0));
    }
    agent.bye();
}

fn a_user_may_have_several_rules(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    fs::create_dir(node.file("etc/sudoers.d")).unwrap();
    let ruled = |word: &str, state: Presence| {
        let mut kind = sudoer("bob", state);
        if let ActionKind::Sudoer { rule, commands, .. } = &mut kind {
            *rule = Some(word.into());
            *commands = vec![format!("/bin/{word}")];
        }
        kind
    };
    let kinds = || vec![sudoer("bob", Present), ruled("database", Present), ruled("web", Present)];
    assert_eq!(effects(&perform(&mut agent, kinds())), [Changed; 3]);
    assert_eq!(effects(&perform(&mut agent, kinds())), [Unchanged; 3]);
    assert_eq!(node.read("etc/sudoers.d/pallet-bob=web"), "bob ALL=(ALL) NOPASSWD: /bin/web\n");
    assert_eq!(effects(&apply(&mut agent, &ruled("web", Absent))), [Changed]);
    assert_eq!(fs::read_dir(node.file("etc/sudoers.d")).unwrap().count(), 2);
    agent.bye();
}

fn a_job_has_a_file_or_a_block_of_a_crontab(shell: Shell) {
    let node = rooted(shell, &[]);
    let mut agent = node.agent();
    let stranger = ActionKind::Cron {
        name: "x".into(),
        schedule: "@daily".into(),
        user: "nobody-at-all".into(),
        command: "true".into(),
        state: Present,
    };
    fs::create_dir(node.file("etc/cron.d")).unwrap();
    let ended = apply(&mut agent, &stranger);
    assert!(ended.output.contains("the user nobody-at-all is not there"), "{}", ended.output);
    assert_eq!(effects(&apply(&mut agent, &cron("it-s", Present))), [Changed]);
    // A percent sign is a newline to cron, and nothing to the crond of busybox.
    assert_eq!(node.read("etc/cron.d/it-s"), "30 2 * * * root date '+\\%F' >>/var/log/it\n");
    fs::remove_dir_all(node.file("etc/cron.d")).unwrap();

    fs::create_dir(node.file("etc/crontabs")).unwrap();
    let table = "etc/crontabs/root";
    fs::write(node.file(table), "* * * * * own").unwrap();
    let jobs = ["one", "two", "three"].map(|name| cron(name, Present));
    let again: Vec<_> = jobs.iter().chain(&jobs).cloned().collect();
    let ended = perform(&mut agent, again);
    assert_eq!(effects(&ended), [Changed, Changed, Changed, Unchanged, Unchanged, Unchanged], "{}", ended.output);
    let job = "30 2 * * * date '+%F' >>/var/log/it\n";
    let block = |name: &str| format!("# pallet: {name}\n{job}");
    let all = format!("* * * * * own\n{}{}{}", block("one"), block("two"), block("three"));
    assert_eq!(node.read(table), all);
    assert_eq!(fs::metadata(node.file(table)).unwrap().mode() & 0o7777, 0o600);
    let changed = ActionKind::Cron {
        name: "two".into(),
        schedule: "@daily".into(),
        user: "root".into(),
        command: "it".into(),
        state: Present,
    };
    assert_eq!(effects(&apply(&mut agent, &changed)), [Changed]);
    assert_eq!(node.read(table), all.replace(&block("two"), "# pallet: two\n@daily it\n"));
    let gone: Vec<_> = ["two", "two", "one", "three"].map(|name| cron(name, Absent)).into();
    assert_eq!(effects(&perform(&mut agent, gone)), [Changed, Unchanged, Changed, Changed]);
    assert_eq!(node.read(table), "* * * * * own\n");
    agent.bye();
}
