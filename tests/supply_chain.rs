//! What a release goes through: actions that are pinned, and checks that nothing can skip.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn workflows() -> Vec<(String, String)> {
    let files = fs::read_dir(root().join(".github/workflows")).expect("workflows");
    let paths = files.map(|file| file.expect("a workflow").path());
    paths.map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("a workflow"))).collect()
}

/// A tag can be moved to other code; a commit cannot.
#[test]
fn actions_of_others_are_pinned_to_a_commit() {
    let mut pinned = 0;
    for (file, text) in workflows() {
        for line in text.lines().filter_map(|line| line.trim_start_matches(['-', ' ']).strip_prefix("uses: ")) {
            if line.starts_with("./") {
                continue;
            }
            let (action, version) =
                line.split_once(" # ").unwrap_or_else(|| panic!("{file}: no version behind {line}"));
            let commit = action.split_once('@').expect("a commit").1;
            assert!(
                commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()),
                "{file}: {action} is not pinned"
            );
            assert!(version.starts_with('v'), "{file}: {line}");
            pinned += 1;
        }
        assert!(text.contains("\npermissions:\n  contents: read\n"), "{file}: rights are given to single jobs only");
        assert!(!text.contains("pull_request_target"), "{file}: code of strangers would run with rights");
    }
    assert!(pinned >= 5, "only {pinned} actions were looked at");
}

#[test]
fn a_release_is_checked_before_anything_is_pushed_and_signed_by_digest() {
    let text = fs::read_to_string(root().join(".github/workflows/release.yml")).expect("the workflow");
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("release.yml has no {what}"));
    assert!(at("needs: test") < at("make release-check"));
    assert!(at("make release-check") < at("make image"));
    assert!(at("make sbom") < at("skopeo copy"));
    assert!(at("skopeo copy") < at("cosign sign --yes \"$IMAGE@$DIGEST\""));
    assert!(at("cosign sign") < at("cosign attest --yes --type cyclonedx"));
    assert!(at("cosign attest") < at("uses: actions/attest-build-provenance@"));
}

/// A PATH with a cargo that has what is needed but for the advisory database.
fn offline(name: &str, fetched: bool) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("supply-chain-{name}"));
    fs::create_dir_all(&directory).expect("a directory");
    let code = u8::from(!fetched);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in 'deny fetch db') exit {code};; *'check advisories') echo CHECKED;; *) exit 99;; esac\n"
    );
    fs::write(directory.join("cargo"), script).expect("a script");
    fs::set_permissions(directory.join("cargo"), fs::Permissions::from_mode(0o755)).expect("a script that runs");
    directory
}

fn advisories(path: &Path, lint: &str) -> (bool, String) {
    let path = format!("{}:{}", path.display(), std::env::var("PATH").expect("PATH"));
    let arguments = ["--no-print-directory", "advisories", &format!("LINT={lint}")];
    let made =
        Command::new("make").args(arguments).env("PATH", path).env_remove("MAKEFLAGS").current_dir(root()).output();
    let made = made.expect("make");
    let said = [made.stdout, made.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (made.status.success(), said)
}

#[test]
fn advisories_that_cannot_be_checked_stop_a_release_and_warn_a_developer() {
    let (path, online) = (offline("offline", false), offline("online", true));
    let (good, said) = advisories(&path, "");
    assert!(good && said.contains("advisories were NOT checked"), "{said}");
    let (good, said) = advisories(&path, "release");
    assert!(!good && said.contains("no release without it"), "{said}");
    for lint in ["", "release"] {
        let (good, said) = advisories(&online, lint);
        assert!(good && said.contains("CHECKED"), "{said}");
    }
}
