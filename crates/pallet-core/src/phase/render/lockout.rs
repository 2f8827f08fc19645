//! Pure: what would keep the operator itself from logging in is refused before it is done, since it could not be undone.

use std::sync::Arc;

use crate::phase::action::{ActionKind, Content, User};
use pallet_api::actions::Presence;

/// As whom the operator logs in on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its public key, where it is known.
    pub key: LoginKey,
}

/// With which key the operator logs in.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginKey {
    /// With this one, as OpenSSH writes it.
    Known(Arc<str>),
    /// With one that could not be read.
    Unknown,
    /// With one that the operator has made for this node alone.
    Made,
}

/// Refuses an action after which the operator could not log in any more. What a script does is not seen.
///
/// # Errors
/// What it would do, and what to do instead.
pub(super) fn refuse(kind: &ActionKind, login: &Login) -> Result<(), String> {
    match kind {
        ActionKind::User(user) if user.name == login.user => refuse_user(user, login),
        ActionKind::File { path, content: Content::Text(text), .. } if is_of_sshd(path) => {
            refuse_settings(text, &login.user)
        }
        ActionKind::LineInFile { path, line: Some(line), state: Presence::Present, .. } if is_of_sshd(path) => {
            refuse_settings(line, &login.user)
        }
        _ => Ok(()),
    }
}

fn refuse_user(user: &User, login: &Login) -> Result<(), String> {
    let name = &login.user;
    if user.state == Presence::Absent {
        return Err(format!("it would remove {name}, as whom the operator logs in here; log in as another user first"));
    }
    let shell = user.shell.as_deref().and_then(|shell| shell.rsplit('/').next());
    if matches!(shell, Some("nologin" | "false")) {
        return Err(format!(
            "{name}, as whom the operator logs in here, could not with that shell; choose another one"
        ));
    }
    let Some(keys) = &user.authorized_keys else { return Ok(()) };
    let key = match &login.key {
        LoginKey::Unknown => return Ok(()),
        LoginKey::Made => {
            return Err(format!(
                "authorizedKeys would remove the key that the operator has made to log in as {name}; make another user for people"
            ));
        }
        LoginKey::Known(key) => key.trim(),
    };
    // Who signs certificates may have signed the operator's.
    let admits = |line: &String| line.contains(key) || line.contains("cert-authority");
    if keys.iter().any(admits) {
        return Ok(());
    }
    Err(format!(
        "authorizedKeys does not hold the key that the operator logs in with as {name}; add this one, or make another user for people: {key}"
    ))
}

fn is_of_sshd(path: &str) -> bool {
    path == "/etc/ssh/sshd_config" || path.starts_with("/etc/ssh/sshd_config.d/")
}

/// The settings of sshd that hold for every user, up to the first Match.
fn refuse_settings(text: &str, user: &str) -> Result<(), String> {
    let settings = text.lines().map(|line| {
        let words = line.trim().split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        words.map(|word| word.trim_matches('"')).collect::<Vec<_>>()
    });
    let settings: Vec<_> = settings
        .filter(|words| !words.is_empty())
        .take_while(|words| !words[0].eq_ignore_ascii_case("match"))
        .collect();
    let named = |name: &str| -> Vec<&str> {
        let of_name = settings.iter().filter(|words| words[0].eq_ignore_ascii_case(name));
        of_name.flat_map(|words| words[1..].iter().copied()).collect()
    };
    let names = |pattern: &str| {
        let pattern = pattern.split('@').next().unwrap_or_default();
        matches(pattern.as_bytes(), user.as_bytes())
    };
    let refused = |what: &str| {
        Err(format!(
            "{what} keeps out {user}, as whom the operator logs in here; let it in, or log in as another user first"
        ))
    };
    let allowed = named("AllowUsers");
    let excluded = allowed.iter().any(|pattern| pattern.strip_prefix('!').is_some_and(names));
    if !allowed.is_empty() && (excluded || !allowed.iter().any(|pattern| names(pattern))) {
        return refused("AllowUsers");
    }
    // With a host it may be meant for others.
    if named("DenyUsers").iter().any(|pattern| !pattern.contains('@') && names(pattern)) {
        return refused("DenyUsers");
    }
    let first = |name: &str, value: &str| named(name).first().is_some_and(|found| found.eq_ignore_ascii_case(value));
    if first("PubkeyAuthentication", "no") {
        return refused("PubkeyAuthentication no");
    }
    if user == "root" && first("PermitRootLogin", "no") {
        return refused("PermitRootLogin no");
    }
    Ok(())
}

/// Whether a pattern of sshd, with `*` and `?`, is the name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star stands, and up to where it has taken the name.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = place + 1;
                    seen = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOperator";

    fn login(user: &str, key: LoginKey) -> Login {
        Login { user: user.into(), key }
    }

    fn user(keys: Option<&[&str]>) -> User {
        User {
            name: "fleet".into(),
            uid: None,
            group: None,
            groups: Vec::new(),
            home: None,
            shell: None,
            comment: None,
            system: false,
            authorized_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
            state: Presence::Present,
        }
    }

    #[test]
    fn the_key_that_the_operator_came_with_is_not_taken_away() {
        let known = || login("fleet", LoginKey::Known(KEY.into()));
        let refused = |user: User, login: &Login| refuse(&ActionKind::User(Box::new(user)), login).err();
        let others = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJane jane"];
        assert!(refused(user(Some(&others)), &known()).unwrap().ends_with(KEY));
        assert!(refused(user(Some(&[])), &known()).is_some());
        let both = [others[0], &format!("restrict,pty {KEY} operator")];
        for (keys, login) in [
            (Some(both.as_slice()), known()),
            (Some(&["cert-authority ssh-ed25519 AAAACA"]), known()),
            (None, known()),
            (Some(&others), login("other", LoginKey::Known(KEY.into()))),
            (Some(&others), login("fleet", LoginKey::Unknown)),
        ] {
            assert_eq!(refused(user(keys), &login), None, "{keys:?} {login:?}");
        }
        assert!(refused(user(Some(&both)), &login("fleet", LoginKey::Made)).is_some());
        assert!(refused(User { state: Presence::Absent, ..user(None) }, &known()).is_some());
        assert!(refused(User { shell: Some("/usr/sbin/nologin".into()), ..user(None) }, &known()).is_some());
        assert!(refused(User { shell: Some("/bin/bash".into()), ..user(None) }, &known()).is_none());
    }

    #[test]
    fn sshd_keeps_taking_the_operator() {
        let refused = |text: &str, user: &str| {
            let file = |path: &str| ActionKind::File {
                path: path.into(),
                content: text.into(),
                mode: String::new(),
                owner: None,
                group: None,
            };
            let login = login(user, LoginKey::Unknown);
            assert_eq!(refuse(&file("/etc/app.conf"), &login), Ok(()));
            refuse(&file("/etc/ssh/sshd_config.d/10-x.conf"), &login).is_err()
        };
        for (text, user, expected) in [
            ("AllowUsers jane bob\n", "fleet", true),
            ("AllowUsers jane fleet\n", "fleet", false),
            ("AllowUsers jane\nallowusers=\"fl*\"\n", "fleet", false),
            ("AllowUsers fleet@192.0.2.*\n", "fleet", false),
            ("AllowUsers * !fleet\n", "fleet", true),
            ("# AllowUsers jane\n", "fleet", false),
            ("Match Group x\nAllowUsers jane\n", "fleet", false),
            ("DenyUsers f?eet\n", "fleet", true),
            ("DenyUsers fleet@198.51.100.1\n", "fleet", false),
            ("PubkeyAuthentication no\n", "fleet", true),
            ("PermitRootLogin no\n", "fleet", false),
            ("PermitRootLogin no\n", "root", true),
            ("PermitRootLogin prohibit-password\n", "root", false),
        ] {
            assert_eq!(refused(text, user), expected, "{text:?} {user}");
        }
    }
}
