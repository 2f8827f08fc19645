//! Pure: what the texts of actions have to be like, once they are filled in and, where they are no templates, before.

use pallet_api::actions::Presence;

/// The name or number of an owner.
pub(crate) fn account(name: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is no owner or group: write a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"
        ))
    }
}

/// A directory that may be removed with all that is in it: none at the root, which no node can do without.
pub(crate) fn removable(path: String) -> Result<String, String> {
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    if parts.clone().any(|part| part == "..") || parts.nth(1).is_none() {
        return Err(format!(
            "{path:?} is not removed: a directory that is has at least two parts, as /srv/app, and no '..'"
        ));
    }
    Ok(path)
}

/// When a job runs: five fields, or a word led by '@'.
pub(crate) fn schedule(schedule: String, state: Presence) -> Result<String, String> {
    let words = schedule.split_whitespace().count();
    let fits = if schedule.starts_with('@') { words == 1 } else { words == 5 };
    if state == Presence::Absent || (fits && !schedule.contains(char::is_control)) {
        Ok(schedule)
    } else {
        Err("must be five fields such as \"30 2 * * *\", or a word such as @daily".to_owned())
    }
}

/// An extended regular expression (POSIX). What only other dialects know is refused: grep takes it for something else, or
/// not on every node.
pub(crate) fn pattern(pattern: String) -> Result<String, String> {
    let mut rest = pattern.chars().peekable();
    let mut in_brackets = false;
    while let Some(c) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        let hint = match (c, next) {
            ('\\', 'd') => Some("\\d: write [0-9]"),
            ('\\', 's') => Some("\\s: write [[:space:]]"),
            ('\\', 'S') => Some("\\S: write [^[:space:]]"),
            ('\\', 'D') => Some("\\D: write [^0-9]"),
            ('\\', 'w' | 'W') => Some("\\w: write [[:alnum:]_], or [^[:alnum:]_]"),
            ('\\', 't') => Some("\\t: write [[:blank:]]"),
            ('\\', c) if c.is_ascii_alphanumeric() => {
                Some("a backslash before a letter or digit: only signs are escaped")
            }
            ('(', '?') if !in_brackets => {
                Some("(?: write both cases as in [Pp]ort, and a group without ?; there is no lookaround")
            }
            ('*' | '+' | '?' | '}', '?' | '+') if !in_brackets => {
                Some("a sign behind another that repeats: grep is always greedy; write [^x]* for what ends at an x")
            }
            _ => None,
        };
        if let Some(hint) = hint {
            return Err(format!("{pattern:?} is no extended regular expression (POSIX), which knows no {hint}"));
        }
        match c {
            '[' if !in_brackets => {
                in_brackets = true;
                // A bracket that comes first stands for itself.
                if rest.peek() == Some(&'^') {
                    rest.next();
                }
                if rest.peek() == Some(&']') {
                    rest.next();
                }
            }
            '[' if matches!(next, ':' | '.' | '=') => {
                rest.next();
                while rest.next().is_some_and(|c| c != ']') {}
            }
            ']' => in_brackets = false,
            '\\' if !in_brackets => {
                rest.next();
            }
            _ => {}
        }
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_other_dialects_are_refused_with_a_hint() {
        for (text, hint) in [
            (r"^port\s*=", "[[:space:]]"),
            (r"^x[\d]", "[0-9]"),
            (r"\d+", "[0-9]"),
            (r"\bport\b", "a backslash before a letter"),
            (r"(a)\1", "a backslash before a letter or digit"),
            ("(?i)port", "[Pp]ort"),
            ("^(?!#)port", "no lookaround"),
            ("a(?:b|c)", "without ?"),
            ("a.*?b", "always greedy"),
            ("a{2}?", "always greedy"),
        ] {
            let error = pattern(text.into()).unwrap_err();
            assert!(error.contains(hint) && error.contains("POSIX"), "{text}: {error}");
        }
        for text in [
            "^#?PermitRootLogin ",
            "^[#[:space:]]*Port[[:space:]]",
            r"^\[main\]$",
            r"a\.b\\c\+\?",
            "[*?+]?x",
            "[]?]+",
            "[^]*?]",
            "(a|b)?",
            r"\(\?x",
            "[(?]",
        ] {
            assert_eq!(pattern(text.into()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn no_directory_at_the_root_is_removed() {
        for path in ["/", "//", "/etc", "/etc/", "/./etc", "/srv/../etc", "/srv/.."] {
            assert!(removable(path.into()).is_err(), "{path}");
        }
        assert!(removable("/srv/app".into()).is_ok());
    }
}
