//! Pure: a rendered phase as the script that runs on the node. The script is POSIX sh and needs POSIX tools and `stat`.

use std::fmt::Write as _;

use super::{ActionKind, FactSource, Source, render::Rendered, render::quote};
use crate::api::actions::{PackageState, ServiceState};

/// The shell functions that scripts are made of. Only those that a script needs travel with it.
const PRELUDE: &str = include_str!("sh/prelude.sh");
const FILES: &str = include_str!("sh/files.sh");
const PACKAGES: &str = include_str!("sh/packages.sh");
const SERVICES: &str = include_str!("sh/services.sh");
const GATHER: &str = include_str!("sh/gather.sh");

/// The script of a phase with actions.
///
/// Everything that came from outside stands in it as a quoted word: no syntax error of a user's script can change what
/// another action does.
pub fn phase(rendered: &Rendered) -> String {
    let mut script = stripped(PRELUDE);
    let needs = |part: fn(&ActionKind) -> bool| rendered.actions.iter().any(|action| part(&action.kind));
    let parts = [
        (
            FILES,
            needs(|kind| {
                matches!(kind, ActionKind::File { .. } | ActionKind::Directory { .. } | ActionKind::Symlink { .. })
            }),
        ),
        (PACKAGES, needs(|kind| matches!(kind, ActionKind::Package { .. }))),
        (SERVICES, needs(|kind| matches!(kind, ActionKind::Service { .. }))),
    ];
    script.extend(parts.into_iter().filter(|(_, needed)| *needed).map(|(part, _)| stripped(part)));
    for action in &rendered.actions {
        let name = quote(&action.name);
        let _ = writeln!(script, "perform {name} {}", invocation(&action.kind));
    }
    script.push_str("exit 0\n");
    script
}

/// The function that does it, and its arguments.
fn invocation(kind: &ActionKind) -> String {
    match kind {
        ActionKind::Exec { script, creates, unless, only_if } => {
            call(&["exec_"], &[script, text(creates), text(unless), text(only_if)])
        }
        ActionKind::File { path, content, mode, owner, group } => {
            call(&["file_"], &[path, content, mode, text(owner), text(group)])
        }
        ActionKind::Directory { path, mode, owner, group } => {
            call(&["directory_"], &[path, text(mode), text(owner), text(group)])
        }
        ActionKind::Symlink { path, target } => call(&["symlink_"], &[path, target]),
        ActionKind::Package { names, state, manager } => {
            let state = match state {
                PackageState::Present => "present",
                PackageState::Latest => "latest",
                PackageState::Absent => "absent",
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            call(&["package_", manager, state], &names)
        }
        ActionKind::Service { name, state, enabled, manager } => {
            let state = match state {
                None => "",
                Some(ServiceState::Started) => "started",
                Some(ServiceState::Stopped) => "stopped",
                Some(ServiceState::Restarted) => "restarted",
                Some(ServiceState::Reloaded) => "reloaded",
            };
            let enabled = match enabled {
                None => "",
                Some(true) => "true",
                Some(false) => "false",
            };
            call(&["service_", manager], &[name, state, enabled])
        }
    }
}

/// The script of settings: it gathers the group's own facts.
pub fn settings(facts: &[FactSource]) -> String {
    let mut script = stripped(PRELUDE) + &stripped(GATHER);
    for fact in facts {
        let optional = if fact.optional { "optional" } else { "required" };
        let line = match &fact.source {
            Source::Exec(source) => call(&["gather"], &[&fact.name, optional, "exec", source]),
            Source::File(path) => call(&["gather"], &[&fact.name, optional, "file", path]),
        };
        let _ = writeln!(script, "{line}");
    }
    script.push_str("exit 0\n");
    script
}

fn text(optional: &Option<String>) -> &str {
    optional.as_deref().unwrap_or_default()
}

fn call(function: &[&str], arguments: &[&str]) -> String {
    let words = function.iter().map(|word| (*word).to_owned()).chain(arguments.iter().map(|word| quote(word)));
    words.collect::<Vec<_>>().join(" ")
}

/// A shell text without its comment lines, blank lines and indentation, which a node has no use for.
///
/// Only for this crate's own texts: none of them holds a string that goes over several lines.
pub fn stripped(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::{Action, Digest, PhaseName};

    #[test]
    fn a_script_that_is_no_shell_stays_one_word() {
        let rendered = Rendered {
            phase: PhaseName::configure(),
            actions: vec![Action {
                name: "it's".into(),
                kind: ActionKind::Exec {
                    script: "echo 'unfinished\n)".into(),
                    creates: None,
                    unless: None,
                    only_if: None,
                },
            }],
            digest: Digest::default(),
        };
        let script = phase(&rendered);
        let line = &script[script.find("perform \"it's\"").or(script.find("perform 'it")).unwrap()..];
        let words = shlex::split(line.trim_end().trim_end_matches("exit 0")).unwrap();
        assert_eq!(words[..4], ["perform", "it's", "exec_", "echo 'unfinished\n)"]);
    }
}
