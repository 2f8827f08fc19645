//! Root writes into the directory of another user, who exchanges its entries meanwhile. Needs root, to be two users, and
//! perl.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pallet_api::{
    actions::Presence::Present,
    group_node::Effect::{Changed, Failed, Unchanged},
};
use pallet_core::phase::{ActionKind, action::Content};

use crate::{
    actions::{effects, perform},
    conformance::line,
    node::{Node, Shell},
    state_dir::{Exchanging, OTHER},
};

under_every_shell! {
    a_room_that_is_exchanged_leads_root_nowhere
    a_directory_that_is_exchanged_leads_root_nowhere
    a_file_that_is_exchanged_is_not_read_for_another_user
    a_link_is_followed_to_a_directory_of_its_maker_only
}

/// A node with a directory of the other user, `theirs`, and one of root, `precious`, that holds a file `file`.
struct Place {
    node: Node,
}

impl Place {
    fn new(shell: Shell) -> Self {
        let place = Self { node: Node::new(shell) };
        let precious = place.node.file("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "precious\n").unwrap();
        set_mode(&precious.join("file"), 0o600);
        place.dir("theirs");
        place
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.node.file(name);
        fs::create_dir(&path).unwrap();
        lchown(&path, Some(OTHER), Some(OTHER)).unwrap();
        path
    }

    fn link(&self, target: &str, name: &str) -> PathBuf {
        let path = self.node.file(name);
        symlink(self.node.file(target), &path).unwrap();
        lchown(&path, Some(OTHER), Some(OTHER)).unwrap();
        path
    }

    fn assert_untouched(&self, said: &str) {
        let dir = self.node.file("precious");
        let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "it followed a link; {said}");
        for (path, mode) in [(dir.clone(), 0o755), (dir.join("file"), 0o600)] {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (0, mode), "it followed a link to {path:?}; {said}");
        }
        assert_eq!(self.node.read("precious/file"), "precious\n", "{said}");
    }

    /// Performs these in turn for two seconds.
    fn race(&self, mut exchanging: Exchanging, kinds: impl Fn(u32) -> Vec<ActionKind>, look: impl Fn()) {
        let mut agent = self.node.agent();
        let until = Instant::now() + Duration::from_secs(2);
        let mut tries = 0;
        while Instant::now() < until {
            tries += 1;
            for kind in kinds(tries) {
                let ended = perform(&mut agent, vec![kind]);
                let effect = effects(&ended);
                assert!(
                    [Changed, Unchanged, Failed].map(|one| vec![one]).contains(&effect),
                    "{effect:?} {}",
                    ended.output
                );
                self.assert_untouched(&ended.output);
                look();
            }
            exchanging.assert_runs();
        }
        agent.bye();
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn theirs(path: &Path, content: &str) -> ActionKind {
    ActionKind::File {
        path: path.to_str().unwrap().into(),
        content: Content::Text(content.into()),
        mode: "640".into(),
        owner: Some(OTHER.to_string()),
        group: Some(OTHER.to_string()),
    }
}

/// Before, root wrote the new content through the link, and gave what it led to away.
fn a_room_that_is_exchanged_leads_root_nowhere(shell: Shell) {
    let place = Place::new(shell);
    let trap = place.dir("trap");
    place.link("precious/file", "trap/new");
    let script = r#"
        while (1) {
            opendir(my $dir, $ARGV[0]) or die $!;
            for (grep { /^\.pallet\./ && !-l "$ARGV[0]/$_" } readdir $dir) {
                rename("$ARGV[0]/$_", "$ARGV[0]/" . $n++) and symlink($ARGV[1], "$ARGV[0]/$_");
            }
        }"#;
    let dir = place.node.file("theirs");
    let exchanging = Exchanging::run(script, &dir, &trap);
    let kinds = |n: u32| {
        let link = ActionKind::Symlink { path: dir.join("link").display().to_string(), target: format!("/{n}") };
        vec![theirs(&dir.join("file"), &format!("no. {n}\n")), link]
    };
    place.race(exchanging, kinds, || {
        let names: Vec<_> = fs::read_dir(&trap).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["new"]);
    });
}

fn a_directory_that_is_exchanged_leads_root_nowhere(shell: Shell) {
    let place = Place::new(shell);
    let (conf, link) = (place.dir("theirs/conf"), place.link("precious", "theirs/link"));
    let path = conf.display().to_string();
    let kinds = |n: u32| {
        let directory = |path: String, mode: &str| ActionKind::Directory {
            path,
            mode: Some(mode.into()),
            owner: Some(OTHER.to_string()),
            group: Some(OTHER.to_string()),
        };
        vec![
            directory(path.clone(), if n.is_multiple_of(2) { "700" } else { "750" }),
            directory(format!("{path}/{n}/a"), "700"),
            theirs(&conf.join("file"), &format!("no. {n}\n")),
        ]
    };
    place.race(Exchanging::start(&conf, &link), kinds, || ());
}

/// Before, the content of one file got the owner or the mode of another.
fn a_file_that_is_exchanged_is_not_read_for_another_user(shell: Shell) {
    let place = Place::new(shell);
    let (file, link) = (place.node.file("theirs/file"), place.link("precious/file", "theirs/link"));
    let make = || {
        let new = place.node.file("made");
        fs::write(&new, "own\n").unwrap();
        lchown(&new, Some(OTHER), Some(OTHER)).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    make();
    let script = r#"while (1) { rename($ARGV[0], "$ARGV[0].own"); symlink(readlink($ARGV[1]), $ARGV[0]);
        unlink $ARGV[0]; rename("$ARGV[0].own", $ARGV[0]); }"#;
    let exchanging = Exchanging::run(script, &file, &link);
    let path = file.to_str().unwrap();
    let kinds = |n: u32| vec![line(path, Some(&format!("line {n}")), None, Present)];
    place.race(exchanging, kinds, || {
        for entry in fs::read_dir(place.node.file("theirs")).unwrap().flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            if found.is_file() {
                assert!(found.uid() == 0 || !text.contains("precious"), "{entry:?} has what its owner may not read");
                assert!(found.uid() != 0 || !text.contains("own"), "{entry:?} is root's with another user's content");
            }
        }
    });
}

fn a_link_is_followed_to_a_directory_of_its_maker_only(shell: Shell) {
    let place = Place::new(shell);
    let mut agent = place.node.agent();
    place.dir("releases");
    place.link("releases", "theirs/current");
    place.link("precious", "theirs/elsewhere");
    symlink(place.node.file("theirs"), place.node.file("admins")).unwrap();
    for (name, expected) in [("admins/current/a", Changed), ("admins/elsewhere/a", Failed)] {
        let ended = perform(&mut agent, vec![theirs(&place.node.file(name), "x")]);
        assert_eq!(effects(&ended), [expected], "{name}: {}", ended.output);
        let reason = "elsewhere is a link that a user other than root may have made";
        assert_eq!(ended.output.contains(reason), expected == Failed, "{}", ended.output);
        place.assert_untouched(&ended.output);
    }
    assert_eq!(place.node.read("releases/a"), "x");
    place.link("precious/file", "theirs/rc");
    let path = place.node.file("theirs/rc").display().to_string();
    let ended = perform(&mut agent, vec![line(&path, Some("x"), None, Present)]);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    place.assert_untouched(&ended.output);
    // In a directory that more users may write to nobody knows whose a link is.
    set_mode(&place.node.file("theirs"), 0o775);
    let ended = perform(&mut agent, vec![theirs(&place.node.file("theirs/current/b"), "x")]);
    assert_eq!(effects(&ended), [Failed], "{}", ended.output);
    agent.bye();
}
