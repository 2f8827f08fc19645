//! What a file keeps when it is replaced, and that one which cannot be written is not replaced at all.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use pallet_api::{
    actions::Presence::{Absent, Present},
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::Removed,
        compile,
        render::{Call, Rendered},
    },
    session::frame::{Ended, Verdict},
};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::{
    actions::{effects, exec, file, perform},
    conformance::{apply, check, cron, line, rooted},
    node::{Agent, Node, Shell},
};

under_every_shell! {
    a_full_disk_loses_no_file
    a_mode_that_nobody_named_stays
    attributes_and_hard_links_stay
    a_hard_link_that_another_user_may_have_made_is_not_written_through
    a_file_is_rewritten_where_its_directory_is_read_only
    what_its_own_check_refuses_is_not_placed
    what_is_to_be_absent_goes
    parents_belong_to_the_owner_that_is_named
}

const DISK: &str = "mount -t tmpfs -o size=64k,mode=755 pallet-agent-test";

fn a_full_disk_loses_no_file(shell: Shell) {
    let mut node = rooted(shell, &[]);
    node.namespace = Some(format!("{}\nmkdir /etc/crontabs\n{DISK} /etc/crontabs", node.namespace.take().unwrap()));
    let mut agent = node.agent();
    let fill = r#"cd /etc/crontabs
        i=0; while [ $i -lt 1200 ]; do i=$((i + 1)); echo "setting_$i = value $i"; done >root
        cp root /srv/before; ln -s before link; dd if=/dev/zero of=filler bs=4096 2>/dev/null || true"#;
    let ended = perform(&mut agent, vec![exec(fill)]);
    assert_eq!(ended.verdict, Verdict::Exit(0), "{}", ended.output);
    let table = Path::new("/etc/crontabs/root");
    let path = table.to_str().unwrap();
    let long = "a line that is too long for what is left ".repeat(200);
    let kinds = || {
        [
            line(path, Some("new_setting = 1"), None, Present),
            line(path, Some("setting_3 = other"), Some("^setting_3 "), Present),
            line(path, None, Some("^setting_3 "), Absent),
            line(path, Some(&long), None, Present),
            file(table, &long.repeat(4), ""),
            cron("it", Present),
        ]
    };
    let untouched = || exec("cmp /etc/crontabs/root /srv/before; [ \"$(ls -A /etc/crontabs | wc -l)\" -le 4 ]");
    for kind in kinds() {
        let ended = perform(&mut agent, vec![kind.clone()]);
        assert_eq!(effects(&ended), [Failed], "{kind:?}: {}", ended.output);
        assert!(ended.output.contains("/etc/crontabs/root is as it was"), "{}", ended.output);
        let ended = perform(&mut agent, vec![untouched()]);
        assert_eq!(ended.verdict, Verdict::Exit(0), "{kind:?}: {}", ended.output);
    }
    // With a second name it is rewritten, for which there may be room or not.
    perform(&mut agent, vec![exec("ln /etc/crontabs/root /etc/crontabs/other")]);
    let ended = perform(&mut agent, vec![line(path, Some(&long), None, Present)]);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    let ended =
        perform(&mut agent, vec![untouched(), line(path, Some("setting_3 = vaaaa 3"), Some("^setting_3 "), Present)]);
    assert_eq!(effects(&ended), [Changed, Changed], "{}", ended.output);
    let ended =
        perform(&mut agent, vec![exec("cmp /etc/crontabs/root /etc/crontabs/other; grep -c aaaa /etc/crontabs/root")]);
    assert_eq!((ended.verdict, ended.output.as_str()), (Verdict::Exit(0), "1\n"));
    agent.bye();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn a_mode_that_nobody_named_stays(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    for bits in [0o600, 0o755, 0o4750, 0o400] {
        let path = node.file("kept");
        let _ = fs::remove_file(&path);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let ended = perform(&mut agent, vec![file(&path, "new", ""), file(&path, "new", "")]);
        assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
        assert_eq!((node.read("kept").as_str(), mode(&path)), ("new", bits));
    }
    assert_eq!(effects(&perform(&mut agent, vec![file(&node.file("made"), "new", "")])), [Changed]);
    assert_eq!(mode(&node.file("made")), 0o644);
    agent.bye();
}

/// User 1234 may read and write, the group may read, the mask lets both write.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let bytes = entries
        .iter()
        .flat_map(|(tag, bits, id)| [tag.to_le_bytes().as_slice(), &bits.to_le_bytes(), &id.to_le_bytes()].concat());
    2_u32.to_le_bytes().into_iter().chain(bytes).collect()
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = [0; 256];
    let length = getxattr(path, name, &mut value).unwrap_or_default();
    value[..length].to_vec()
}

fn attributes_and_hard_links_stay(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let (path, other) = (node.file("kept"), node.file("other"));
    let note = b"it's\0a note\n";
    let old = |agent: &mut Agent, kind: ActionKind| {
        let ended = perform(agent, vec![kind.clone(), kind]);
        assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
        assert_eq!(ended.output, "");
    };
    // Busybox has no tools that would see them.
    if shell != Shell::Busybox {
        fs::write(&path, "a = 1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        setxattr(&path, "user.note", note, XattrFlags::empty()).unwrap();
        setxattr(&path, "system.posix_acl_access", &acl(), XattrFlags::empty()).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let line = line(path.to_str().unwrap(), Some("b = 2"), None, Present);
        for (kind, text) in [(line, "a = 1\nb = 2\n"), (file(&path, "c = 3\n", ""), "c = 3\n")] {
            old(&mut agent, kind);
            assert_eq!((node.read("kept").as_str(), mode(&path)), (text, 0o660), "the bits of the group are the mask");
            assert_eq!(attribute(&path, "user.note"), note);
            assert_eq!(attribute(&path, "system.posix_acl_access"), acl());
        }
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "it is replaced in one step all the same");
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, "a long text\n").unwrap();
    fs::hard_link(&path, &other).unwrap();
    for text in ["short\n", "a text that is longer than it was\n"] {
        old(&mut agent, file(&path, text, "640"));
        assert_eq!((node.read("kept").as_str(), node.read("other").as_str(), mode(&other)), (text, text, 0o640));
    }
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    agent.bye();
}

fn a_hard_link_that_another_user_may_have_made_is_not_written_through(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let (victim, dir) = (node.file("victim"), node.file("theirs"));
    for bits in [0o777, 0o1777, 0o775] {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(bits)).unwrap();
        fs::write(&victim, "as it was").unwrap();
        fs::hard_link(&victim, dir.join("file")).unwrap();
        let ended = perform(&mut agent, vec![file(&dir.join("file"), "new", "")]);
        assert_eq!(effects(&ended), [Changed]);
        assert!(ended.output.contains("has hard links, which keep the old content"), "{}", ended.output);
        assert_eq!((node.read("victim").as_str(), node.read("theirs/file").as_str()), ("as it was", "new"));
    }
    agent.bye();
}

/// As a pod's /etc/hosts with a read-only root.
fn a_file_is_rewritten_where_its_directory_is_read_only(shell: Shell) {
    let mut node = rooted(shell, &[]);
    fs::write(node.file("srv/names"), "192.0.2.1 a\n").unwrap();
    let setup = "mount --bind /srv/names /etc/hosts; mount -o remount,bind,ro /etc";
    node.namespace = Some(format!("{}\n{setup}", node.namespace.take().unwrap()));
    let mut agent = node.agent();
    let kind = line("/etc/hosts", Some("192.0.2.30 db.internal"), None, Present);
    for expected in [Changed, Unchanged] {
        assert_eq!(effects(&check(&mut agent, &kind)), [expected]);
        let ended = apply(&mut agent, &kind);
        assert_eq!((effects(&ended), ended.output.as_str()), (vec![expected], ""));
    }
    assert_eq!(node.read("srv/names"), "192.0.2.1 a\n192.0.2.30 db.internal\n");
    let ended = apply(&mut agent, &file(Path::new("/etc/motd-of-its-own"), "x", ""));
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("Read-only file system"), "{}", ended.output);
    agent.bye();
}

fn validated(agent: &mut Agent, kind: &ActionKind, script: &str) -> Ended {
    let calls = vec![Call { validate: Some(script.into()), ..Call::new("it", kind.clone()) }];
    agent.run(&compile::phase(&Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() }, 0))
}

fn what_its_own_check_refuses_is_not_placed(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("it's a.conf");
    fs::write(&path, "Port 22\n").unwrap();
    let script = "case %s in */\"it's a.conf\") ;; *) exit 3 ;; esac; echo looked at; ! grep -n wrong %s";
    let name = path.to_str().unwrap();
    for kind in [file(&path, "wrong\n", ""), line(name, Some("wrong"), None, Present)] {
        let ended = validated(&mut agent, &kind, script);
        assert_eq!((ended.verdict, effects(&ended)), (Verdict::Exit(1), vec![Failed]), "{}", ended.output);
        let said = [":wrong\npallet: validate refuses the new content with code 1", "is as it was"];
        assert!(said.iter().all(|part| ended.output.contains(part)), "{}", ended.output);
        assert_eq!(node.read("it's a.conf"), "Port 22\n");
    }
    let right = line(name, Some("Port 23"), Some("^Port "), Present);
    let ended = validated(&mut agent, &right, script);
    assert_eq!((effects(&ended), ended.output.as_str()), (vec![Changed], "looked at\n"));
    let ended = validated(&mut agent, &right, script);
    assert_eq!((effects(&ended), ended.output.as_str()), (vec![Unchanged], ""));
    let names: Vec<_> = fs::read_dir(&node.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().contains("pallet")), "{names:?}");
    // One with a second name is looked at before it is rewritten, too.
    fs::hard_link(&path, node.file("other")).unwrap();
    assert_eq!(effects(&validated(&mut agent, &file(&path, "wrong\n", ""), "false %s")), [Failed]);
    assert_eq!(node.read("other"), "Port 23\n");
    agent.bye();
}

fn what_is_to_be_absent_goes(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    fs::create_dir_all(node.file("dir/a b")).unwrap();
    fs::write(node.file("dir/a b/file"), "x").unwrap();
    fs::write(node.file("file"), "x").unwrap();
    symlink("dir", node.file("link")).unwrap();
    let gone = |what: Removed, name: &str| ActionKind::Removal { what, path: node.file(name).display().to_string() };
    for (what, name) in
        [(Removed::Directory, "link"), (Removed::Directory, "file"), (Removed::Symlink, "dir"), (Removed::File, "dir")]
    {
        for ended in [check(&mut agent, &gone(what, name)), apply(&mut agent, &gone(what, name))] {
            assert_eq!(effects(&ended), [Failed], "{what:?} {name}");
        }
    }
    assert!(node.file("dir/a b/file").exists() && node.file("link").is_symlink() && node.file("file").exists());
    for (what, name) in [(Removed::Symlink, "link"), (Removed::Directory, "dir"), (Removed::File, "file")] {
        let kind = gone(what, name);
        assert_eq!(effects(&check(&mut agent, &kind)), [Changed]);
        assert!(node.file(name).symlink_metadata().is_ok());
        let ended = perform(&mut agent, vec![kind.clone(), kind]);
        assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
        assert!(node.file(name).symlink_metadata().is_err());
    }
    agent.bye();
    // What is mounted is somebody else's.
    let mut node = rooted(shell, &[]);
    fs::create_dir_all(node.file("srv/dir/a b")).unwrap();
    fs::write(node.file("srv/data"), "x").unwrap();
    fs::write(node.file("srv/dir/a b/data"), "").unwrap();
    node.namespace = Some(format!("{}\nmount --bind /srv/data '/srv/dir/a b/data'", node.namespace.take().unwrap()));
    let mut agent = node.agent();
    let ended = apply(&mut agent, &ActionKind::Removal { what: Removed::Directory, path: "/srv/dir".into() });
    assert_eq!(effects(&ended), [Failed]);
    assert!(ended.output.contains("/srv/dir/a b/data is mounted in /srv/dir"), "{}", ended.output);
    assert!(node.file("srv/dir/a b/data").exists());
    agent.bye();
}

fn parents_belong_to_the_owner_that_is_named(shell: Shell) {
    let node = Node::new(shell);
    let mut agent = node.agent();
    let path = node.file("home/.config/app/cache").display().to_string();
    fs::create_dir(node.file("home")).unwrap();
    let kind = ActionKind::Directory {
        path,
        mode: Some("750".into()),
        owner: Some("1234".into()),
        group: Some("2345".into()),
    };
    let ended = perform(&mut agent, vec![kind.clone(), kind]);
    assert_eq!(effects(&ended), [Changed, Unchanged], "{}", ended.output);
    for (name, expected) in [
        ("home", (0, 0, 0o755)),
        ("home/.config", (1234, 2345, 0o755)),
        ("home/.config/app", (1234, 2345, 0o755)),
        ("home/.config/app/cache", (1234, 2345, 0o750)),
    ] {
        let found = fs::metadata(node.file(name)).unwrap();
        assert_eq!((found.uid(), found.gid(), mode(&node.file(name))), expected, "{name}");
    }
    agent.bye();
}
