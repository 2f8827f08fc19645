//! Pure: what `sudo` means by what it says. It is asked to say it in English (`LC_ALL=C`).

/// Why the loader did not get to be `user`, from what was printed on stderr and the exit code.
pub fn refusal(user: &str, login: &str, with_password: bool, complaints: &str, code: Option<u32>) -> String {
    let said = complaints.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let why = if rejected(complaints) {
        format!(
            "sudo did not accept the password of {login}: set the right one in the Secret that become.password names"
        )
    } else if says(&["password is required", "password was provided", "authentication is required", "askpass"]) {
        if with_password {
            format!("sudo wants another answer of {login} than a password on stdin, which cannot be given")
        } else {
            format!(
                "sudo wants a password of {login}: name the Secret that has it in become.password, or allow it without \
                 (`{login} ALL=({user}) NOPASSWD: ALL` in /etc/sudoers.d)"
            )
        }
    } else if says(&["sudoers file", "not allowed to", "may not run sudo"]) {
        format!("sudo does not let {login} be {user}: allow it (`{login} ALL=({user}) ALL` in /etc/sudoers.d)")
    } else if says(&["must have a tty", "a terminal is required"]) {
        format!(
            "sudo wants a terminal: take requiretty away for {login} (`Defaults:{login} !requiretty` in /etc/sudoers.d)"
        )
    } else if says(&["unknown user", "invalid user", "user not found"]) {
        format!("there is no user {user} on the host, whom become.user names")
    } else if says(&["no new privileges", "nosuid", "effective uid is not 0", "setuid"]) {
        "sudo cannot raise privileges there: it is not setuid root, or is run under no-new-privileges".to_owned()
    } else if code == Some(127)
        || says(&["sudo: not found", "command not found", "unknown command", "sudo: no such file"])
    {
        format!("the host has no sudo: install it, or log in as {user}")
    } else {
        format!("sudo did not let {login} be {user}")
    };
    let complaints = complaints.trim();
    if complaints.is_empty() { why } else { format!("{why} (it said: {})", clipped(complaints)) }
}

/// Whether `sudo` has said that the password was wrong. It goes on to ask for another.
pub fn rejected(complaints: &str) -> bool {
    let said = complaints.to_ascii_lowercase();
    ["try again", "incorrect password", "incorrect authentication"].iter().any(|words| said.contains(words))
}

/// `sudo` quotes the whole command in some of its refusals.
fn clipped(text: &str) -> String {
    const MOST: usize = 300;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        for (with_password, complaints, code, expected) in [
            (
                true,
                "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt\n",
                Some(1),
                "did not accept",
            ),
            (true, "sudo: 3 incorrect password attempts", Some(1), "did not accept"),
            (true, "sudo-rs: incorrect authentication attempt", Some(1), "did not accept"),
            (false, "sudo: a password is required\n", Some(1), "become.password"),
            (false, "sudo: interactive authentication is required", Some(1), "become.password"),
            (true, "sudo: a password is required\n", Some(1), "cannot be given"),
            (
                true,
                "admin is not in the sudoers file.\nThis incident has been reported",
                Some(1),
                "let admin be root: allow it",
            ),
            (
                false,
                "Sorry, user admin is not allowed to execute '/usr/bin/sh -c x' as root on web.",
                Some(1),
                "be root: allow it",
            ),
            (false, "Sorry, user admin may not run sudo on web.", Some(1), "let admin be root"),
            (false, "sudo: sorry, you must have a tty to run sudo", Some(1), "requiretty"),
            (false, "sudo: unknown user: root", Some(1), "no user root"),
            (
                false,
                "sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set",
                Some(1),
                "setuid",
            ),
            (
                false,
                "sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.",
                Some(1),
                "no-new-privileges",
            ),
            (false, "env: 'sudo': No such file or directory", Some(127), "no sudo"),
            (false, "sh: 1: sudo: not found", Some(127), "no sudo"),
            (false, "", Some(127), "no sudo"),
            (false, "", None, "did not let admin be root"),
        ] {
            let message = refusal("root", "admin", with_password, complaints, code);
            assert!(message.contains(expected), "{complaints}: {message}");
            assert!(complaints.is_empty() || message.contains("it said: "), "{message}");
        }
    }

    #[test]
    fn a_long_complaint_is_clipped() {
        let message = refusal("root", "admin", false, &"ä".repeat(5000), Some(1));
        assert!(message.len() < 1000 && message.ends_with("...)"), "{message}");
    }
}
