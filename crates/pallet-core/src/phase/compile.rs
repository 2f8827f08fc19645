//! Pure: a rendered phase as the script that runs on the node. The script is POSIX sh and needs POSIX tools and `stat`.

use std::fmt::Write as _;

use super::{
    FactSource, Source,
    action::{ActionKind, AptSource, Content, KeyRef, Removed, Repeat, RunAs},
    render::{Call, Rendered, quote},
    secret::variable,
};
use pallet_api::{
    actions::{PackageState, Presence, ServiceState},
    phases::FactParser,
};

/// The shell functions that scripts are made of. Only those that a script needs travel with it.
const PRELUDE: &str = include_str!("sh/prelude.sh");
const FILES: &str = include_str!("sh/files.sh");
const PACKAGES: &str = include_str!("sh/packages.sh");
const SERVICES: &str = include_str!("sh/services.sh");
const LINES: &str = include_str!("sh/lines.sh");
const DOWNLOADS: &str = include_str!("sh/downloads.sh");
const SOURCES: &str = include_str!("sh/sources.sh");
const USERS: &str = include_str!("sh/users.sh");
const SUDOERS: &str = include_str!("sh/sudoers.sh");
const SECRETS: &str = include_str!("sh/secrets.sh");
const CRON: &str = include_str!("sh/cron.sh");
const OTHERS: &str = include_str!("sh/others.sh");
const GATHER: &str = include_str!("sh/gather.sh");

/// The script of a phase with actions.
///
/// Everything that came from outside stands in it as a quoted word: no syntax error of a user's script can change what
/// another action does.
///
/// It begins with action number `from`: those before were done by runs that waited at manual steps.
pub fn phase(rendered: &Rendered, from: usize) -> String {
    script(rendered, from, "mode=apply before=")
}

/// The script that looks what the phase would change, and changes nothing. `after_changes` tells that something would have been
/// changed before it, so that what is missing may be what that would have made.
pub fn check(rendered: &Rendered, after_changes: bool) -> String {
    script(rendered, 0, if after_changes { "mode=check before=,," } else { "mode=check before=" })
}

fn script(rendered: &Rendered, from: usize, mode: &str) -> String {
    let mut script = format!("{mode} phase={}\n", rendered.phase) + &stripped(PRELUDE);
    let mut parts: Vec<&str> =
        rendered.calls.iter().filter(|call| !call.skipped).flat_map(|call| parts(&call.kind)).copied().collect();
    if rendered.calls.iter().any(|call| call.run_as.is_some()) {
        parts.push(OTHERS);
    }
    parts.sort_unstable();
    parts.dedup();
    script.extend(parts.into_iter().map(stripped));
    let secrets = secrets(rendered);
    if !secrets.is_empty() {
        let variables: Vec<String> = (0..secrets.len()).map(variable).collect();
        let _ = writeln!(script, "take_secrets\nforget_secrets() {{ unset secrets {}; }}", variables.join(" "));
    }
    for (place, call) in rendered.calls.iter().enumerate().skip(from) {
        let listened_to = rendered.calls.iter().any(|other| other.after.contains(&place));
        let options = options(rendered, call, listened_to, &secrets);
        let (name, invocation) = (quote(&call.name), invocation(&call.kind, &secrets));
        let env: String = call.env.iter().map(|(name, value)| format!(" {name} {}", quote(value))).collect();
        let _ = match call.env.len() {
            0 => writeln!(script, "perform {name}{options} -- {invocation}"),
            count => writeln!(script, "perform {name}{options} -- with_env_ {count}{env} {invocation}"),
        };
    }
    script.push_str("succeed\n");
    script
}

/// The secrets that a phase's script needs, in the order in which it reads them.
pub fn secrets(rendered: &Rendered) -> Vec<KeyRef> {
    let mut places: Vec<KeyRef> = Vec::new();
    for call in rendered.calls.iter().filter(|call| !call.skipped) {
        let of_call: Vec<&KeyRef> = match &call.kind {
            ActionKind::Exec { secret_env, .. } => secret_env.iter().map(|env| &env.secret.at).collect(),
            ActionKind::SecretFile { secret, .. } => vec![&secret.at],
            ActionKind::RemoteFile { secret_headers, .. } => secret_headers.iter().map(|env| &env.secret.at).collect(),
            _ => Vec::new(),
        };
        let password = call.run_as.as_ref().and_then(|run_as| run_as.password.as_ref());
        for place in of_call.into_iter().chain(password) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
    }
    places
}

/// How it is performed, as the prelude takes it.
fn options(rendered: &Rendered, call: &Call, listened_to: bool, secrets: &[KeyRef]) -> String {
    if call.skipped {
        return " skip".to_owned();
    }
    let mut options = String::new();
    if listened_to {
        let _ = write!(options, " {}", quote(&format!("mark={}", mark(call))));
    }
    if !call.after.is_empty() {
        let marks: Vec<String> = call.after.iter().filter_map(|place| rendered.calls.get(*place)).map(mark).collect();
        let _ = write!(options, " {}", quote(&format!("after={}", marks.join(","))));
        // What else could end its own run?
        if matches!(call.kind, ActionKind::Exec { .. } | ActionKind::Service { .. }) {
            let _ = write!(options, " {}", quote(&format!("once={}", mark(call))));
        }
    }
    if let Some(timeout) = call.timeout {
        let _ = write!(options, " limit={}", timeout.as_secs().max(1));
    }
    if let Some(RunAs { user, password }) = &call.run_as {
        let _ = write!(options, " {}", quote(&format!("run_as={user}")));
        let place = password.as_ref().and_then(|at| secrets.iter().position(|place| place == at));
        if let Some(place) = place {
            let _ = write!(options, " run_as_password={}", variable(place));
        }
    }
    if let Some(validate) = &call.validate {
        let _ = write!(options, " {}", quote(&format!("validate={validate}")));
    }
    if let Some(Repeat { limit, pause }) = call.retry {
        let _ = write!(options, " retries={limit} pause={}", pause.as_secs());
    }
    options
}

/// What the change of an action is remembered by: its name, as a file may be called. A name holds no comma and no colon.
fn mark(call: &Call) -> String {
    call.name.replace('/', ":")
}

/// The shell functions that an action needs.
fn parts(kind: &ActionKind) -> &'static [&'static str] {
    match kind {
        ActionKind::Exec { .. } | ActionKind::Manual { .. } => &[],
        ActionKind::File { .. }
        | ActionKind::Directory { .. }
        | ActionKind::Symlink { .. }
        | ActionKind::Removal { .. } => &[FILES],
        ActionKind::LineInFile { .. } => &[FILES, LINES],
        ActionKind::RemoteFile { secret_headers, .. } if secret_headers.is_empty() => &[FILES, DOWNLOADS],
        ActionKind::RemoteFile { .. } => &[FILES, DOWNLOADS, SECRETS],
        ActionKind::Package { .. } => &[PACKAGES],
        ActionKind::PackageSource { .. } => &[FILES, LINES, PACKAGES, SOURCES],
        ActionKind::Service { .. } => &[SERVICES],
        ActionKind::User(_) | ActionKind::UserGroup { .. } => &[FILES, USERS],
        ActionKind::Sudoer { .. } => &[FILES, SUDOERS],
        ActionKind::Cron { .. } => &[FILES, CRON],
        ActionKind::SecretFile { .. } => &[FILES, SECRETS],
    }
}

/// The function that does it, and its arguments.
fn invocation(kind: &ActionKind, secrets: &[KeyRef]) -> String {
    let variable = |at: &KeyRef| variable(secrets.iter().position(|place| place == at).unwrap_or_default());
    match kind {
        ActionKind::Exec { script, creates, unless, only_if, secret_env } => {
            let lent: Vec<String> =
                secret_env.iter().flat_map(|env| [env.name.clone(), variable(&env.secret.at)]).collect();
            let arguments = [script, text(creates), text(unless), text(only_if)].into_iter();
            call(&["exec_"], &arguments.chain(lent.iter().map(String::as_str)).collect::<Vec<_>>())
        }
        ActionKind::File { path, content, mode, owner, group } => {
            let Content::Text(content) = content else { return "false".to_owned() };
            call(&["file_"], &[path, content, mode, text(owner), text(group)])
        }
        ActionKind::Manual { message } => call(&["manual_"], &[message]),
        ActionKind::SecretFile { path, secret, mode, owner, group } => {
            call(&["secret_file_"], &[path, &variable(&secret.at), mode, text(owner), text(group)])
        }
        ActionKind::Directory { path, mode, owner, group } => {
            call(&["directory_"], &[path, text(mode), text(owner), text(group), "parents"])
        }
        ActionKind::Symlink { path, target } => call(&["symlink_"], &[path, target]),
        ActionKind::Removal { what, path } => {
            let function = match what {
                Removed::File => "no_file",
                Removed::Directory => "no_directory",
                Removed::Symlink => "no_symlink",
            };
            call(&[function], &[path])
        }
        ActionKind::LineInFile { path, line, matches, insert_after, insert_before, first, state, create } => call(
            &["line_in_file_", presence(*state)],
            &[
                path,
                text(line),
                text(matches),
                text(insert_after),
                if *create { "create" } else { "" },
                text(insert_before),
                if *first { "first" } else { "" },
            ],
        ),
        ActionKind::RemoteFile { path, url, sha256, secret_headers, mode, owner, group } => {
            let headers: Vec<String> =
                secret_headers.iter().flat_map(|header| [header.name.clone(), variable(&header.secret.at)]).collect();
            let arguments = [path, url, sha256, mode, text(owner), text(group)].into_iter();
            call(&["remote_file_"], &arguments.chain(headers.iter().map(String::as_str)).collect::<Vec<_>>())
        }
        ActionKind::Package { names, state, options, manager } => {
            let state = match state {
                PackageState::Present => "present",
                PackageState::Latest => "latest",
                PackageState::Absent => "absent",
            };
            let mut arguments = vec![state.to_owned()];
            arguments.extend(options.recommends.map(|wanted| format!("recommends={wanted}")));
            arguments.extend(options.release.as_ref().map(|release| format!("release={release}")));
            arguments.extend(options.purge.then(|| "purge".to_owned()));
            arguments.push("--".to_owned());
            let arguments = arguments.iter().chain(names).map(String::as_str);
            call(&["package_", manager], &arguments.collect::<Vec<_>>())
        }
        ActionKind::PackageSource { name, apt, dnf, apk, state, manager } => {
            let (content, key) = match (manager.as_str(), apt, dnf, apk) {
                ("apt", Some(apt), _, _) => (apt_source(name, apt), apt.key.clone()),
                ("dnf" | "yum", _, Some((url, key)), _) => (dnf_source(name, url, key.is_some()), key.clone()),
                (_, _, _, Some(url)) => (url.clone(), None),
                _ => (String::new(), None),
            };
            call(&["package_source_", manager, presence(*state)], &[name, &content, text(&key)])
        }
        ActionKind::Service { name, state, enabled, masked, manager } => {
            let state = match state {
                None => "",
                Some(ServiceState::Started) => "started",
                Some(ServiceState::Stopped) => "stopped",
                Some(ServiceState::Restarted) => "restarted",
                Some(ServiceState::Reloaded) => "reloaded",
            };
            let flag = |wanted: &Option<bool>| wanted.map(|wanted| wanted.to_string()).unwrap_or_default();
            call(&["service_", manager], &[name, state, &flag(enabled), &flag(masked)])
        }
        ActionKind::User(user) => {
            let uid = user.uid.map(|uid| uid.to_string()).unwrap_or_default();
            let keys =
                user.authorized_keys.as_ref().map(|keys| keys.iter().fold(String::new(), |all, key| all + key + "\n"));
            let (groups, system) = (user.groups.join(","), if user.system { "system" } else { "" });
            let has_keys = if keys.is_some() { "keys" } else { "" };
            call(
                &["user_", presence(user.state)],
                &[
                    &user.name,
                    &uid,
                    text(&user.group),
                    &groups,
                    text(&user.home),
                    text(&user.shell),
                    text(&user.comment),
                    system,
                    has_keys,
                    text(&keys),
                ],
            )
        }
        ActionKind::UserGroup { name, gid, system, state } => {
            let gid = gid.map(|gid| gid.to_string()).unwrap_or_default();
            call(&["group_", presence(*state)], &[name, &gid, if *system { "system" } else { "" }])
        }
        ActionKind::Sudoer { name, rule, run_as, commands, no_password, state } => {
            let commands = if commands.is_empty() { "ALL".to_owned() } else { commands.join(", ") };
            let tag = if *no_password { "NOPASSWD: " } else { "" };
            let content = format!("{name} ALL=({run_as}) {tag}{commands}\n");
            call(&["sudoer_", presence(*state)], &[name, &content, text(rule)])
        }
        ActionKind::Cron { name, schedule, user, command, state } => {
            call(&["cron_", presence(*state)], &[name, schedule, user, command])
        }
    }
}

/// A source in apt's own format (deb822). Its key stands beside it.
fn apt_source(name: &str, source: &AptSource) -> String {
    let mut content = format!("Types: deb\nURIs: {}\nSuites: {}\n", source.uri, source.suite);
    if !source.components.is_empty() {
        let _ = writeln!(content, "Components: {}", source.components.join(" "));
    }
    if source.key.is_some() {
        let _ = writeln!(content, "Signed-By: /etc/apt/keyrings/{name}.asc");
    }
    if source.trusted {
        content.push_str("Trusted: yes\n");
    }
    content
}

fn dnf_source(name: &str, url: &str, signed: bool) -> String {
    let check =
        if signed { format!("gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/{name}.asc\n") } else { "gpgcheck=0\n".into() };
    format!("[{name}]\nname={name}\nbaseurl={url}\nenabled=1\n{check}")
}

fn presence(state: Presence) -> &'static str {
    match state {
        Presence::Present => "present",
        Presence::Absent => "absent",
    }
}

/// The script of settings: it gathers the group's own facts.
pub fn settings(facts: &[FactSource]) -> String {
    let mut script = "mode=apply before= phase=settings\n".to_owned() + &stripped(PRELUDE) + &stripped(GATHER);
    for fact in facts {
        let optional = if fact.optional { "optional" } else { "required" };
        let line = match &fact.source {
            Source::Exec(source) if fact.parse == FactParser::ExitCode => {
                call(&["gather"], &[&fact.name, optional, "exit", source])
            }
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
    use crate::phase::{Digest, PhaseName};

    #[test]
    fn a_script_that_is_no_shell_stays_one_word() {
        let exec = ActionKind::Exec {
            script: "echo 'unfinished\n)".into(),
            creates: None,
            unless: None,
            only_if: None,
            secret_env: Vec::new(),
        };
        let calls = vec![Call::new("it's", exec)];
        let rendered = Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() };
        let script = phase(&rendered, 0);
        let line = &script[script.find("perform \"it's\"").or(script.find("perform 'it")).unwrap()..];
        let words = shlex::split(line.trim_end().trim_end_matches("succeed")).unwrap();
        assert_eq!(words[..5], ["perform", "it's", "--", "exec_", "echo 'unfinished\n)"]);
    }

    #[test]
    fn no_function_stands_before_a_command_of_its_name() {
        let texts =
            [PRELUDE, FILES, PACKAGES, SERVICES, LINES, DOWNLOADS, SOURCES, USERS, SUDOERS, CRON, OTHERS, GATHER];
        let functions: Vec<&str> =
            texts.iter().flat_map(|text| text.lines()).filter_map(|line| Some(line.split_once("() ")?.0)).collect();
        assert!(functions.len() > 80, "{functions:?}");
        let own = ["perform", "complain", "succeed", "gather"];
        let commands: Vec<_> = functions.iter().filter(|name| !name.contains('_') && !own.contains(name)).collect();
        assert!(commands.is_empty(), "a user's script may mean a command by {commands:?}: add an underscore");
    }
}
