//! Pure: the command line that is executed on a host.
//!
//! It is read by whatever shell the user has there (bash, dash, zsh, fish, csh), so what is meant for `sh` stands between
//! single quotes and has none of the characters that one of them would see there: `'`, `\`, `!`, a line break.

/// Printed when `sudo` has let the loader begin.
pub const BEGUN: &str = "pallet-elevated\n";
/// Ends what stands before the loader's own input: the line with the password, which `sudo` leaves where it needs none.
pub const INPUT: &str = "pallet-input\n";

/// Nothing is traced, the password least of all. The path is behind what the user has: phases configure systems, and not every
/// login has the tools for that on its own.
const PATH: &str = "set +xv; PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin; export PATH; ";

/// How the loader gets to be another user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sudo<'a> {
    /// Who it is to be.
    pub user: &'a str,
    /// Whether the password comes as the first line of stdin.
    pub password: bool,
}

/// The command line that executes `loader`.
///
/// # Errors
/// Where the user cannot be named in every shell.
pub fn command(sudo: Option<Sudo<'_>>, loader: &str) -> Result<String, String> {
    let Some(Sudo { user, password }) = sudo else { return Ok(format!("sh -c '{PATH}{loader}'")) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@#+$".contains(c);
    if user.is_empty() || user.starts_with('-') || !user.chars().all(plain) {
        return Err(format!("{user:?} is no name of a user: letters, digits and . _ - @ are"));
    }
    // English is for what `sudo` says alone: the loader may inherit it.
    let begin = format!("unset LC_ALL; echo {}; ", BEGUN.trim_end());
    // Without -k a password that is cached on the host would hide that this one is wrong.
    let how = if password { "-k -S -p ''" } else { "-n" };
    let skip = format!("while read -r line; do [ \"$line\" = {} ] && break; done; unset line; ", INPUT.trim_end());
    Ok(format!("env LC_ALL=C sudo {how} -u '{user}' -H -- sh -c '{PATH}{begin}{skip}{loader}'"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;
    use pallet_core::session::agent::LOADER;

    const WITH: Option<Sudo<'static>> = Some(Sudo { user: "root", password: true });
    const WITHOUT: Option<Sudo<'static>> = Some(Sudo { user: "deploy", password: false });

    /// Every other quoted piece is what `sh` gets.
    #[test]
    fn no_login_shell_sees_anything_between_the_quotes() {
        for sudo in [None, WITH, WITHOUT] {
            let command = command(sudo, LOADER).unwrap();
            assert_eq!(command.matches('\'').count() % 2, 0, "{command}");
            assert!(command.ends_with('\''), "{command}");
            for character in ['\\', '!', '\n', '\r', '\0'] {
                assert!(!command.contains(character), "{character:?} in {command}");
            }
            for outside in command.split('\'').step_by(2) {
                assert!(outside.chars().all(|c| c.is_ascii_alphanumeric() || " -_=".contains(c)), "{outside}");
            }
        }
    }

    #[test]
    fn sudo_is_told_whether_a_password_comes() {
        assert!(command(WITH, "x").unwrap().starts_with("env LC_ALL=C sudo -k -S -p '' -u 'root' -H -- sh -c '"));
        assert!(command(WITHOUT, "x").unwrap().starts_with("env LC_ALL=C sudo -n -u 'deploy' -H -- sh -c '"));
        for user in ["", "-u", "a'b", "a b", "a\nb", "a;b", "a!b", "ä"] {
            assert!(command(Some(Sudo { user, password: false }), "x").is_err(), "{user:?}");
        }
    }

    /// `sudo` that leaves its stdin alone, as it does where no password is needed.
    #[test]
    fn a_password_that_sudo_leaves_does_not_reach_the_loader() {
        let command = command(WITH, "read -r n uid; echo $n.$uid.$line.").unwrap();
        let command = command.replace("env LC_ALL=C sudo -k -S -p '' -u 'root' -H --", "");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(format!("geheim\n{INPUT}7 web\n").as_bytes()).unwrap();
        let said = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said, format!("{BEGUN}7.web..\n"));
    }

    /// The shells that there are here; `sh` is everywhere.
    #[test]
    fn every_login_shell_hands_the_loader_over_unchanged() {
        let agent = "printf %s\\\\n \"it's\" '!' '\\' \"$uid\"; case $PATH in *:/usr/sbin:/sbin) echo path ;; esac\n";
        let mut tried = 0;
        for shell in ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "ksh", "mksh", "busybox"] {
            let mut login = Command::new(shell);
            if shell == "busybox" {
                login.arg("sh");
            }
            login.arg("-c").arg(command(None, LOADER).unwrap());
            let spawned = login.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let Ok(mut child) = spawned else { continue };
            tried += 1;
            child.stdin.take().unwrap().write_all(format!("{} web\n{agent}", agent.len()).as_bytes()).unwrap();
            let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            assert_eq!(said, "it's\n!\n\\\nweb\npath\n", "{shell}");
        }
        assert!(tried > 0);
    }
}
