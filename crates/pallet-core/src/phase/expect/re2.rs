//! Pure: a pattern in the syntax of RE2, which CEL and Kubernetes use, as the `regex` crate understands it.
//!
//! Both have the same engine behind them; these differ:
//!
//! | pattern | RE2 | `regex` |
//! |---|---|---|
//! | `\d`, `\w`, `\s`, `\b` and their negations | ASCII | Unicode |
//! | `[a&&b]`, `[a--b]`, `[a~~b]` | the characters | operations on sets |
//! | `\Q...\E`, `\141`, a lone `{`, `{,n}` | literal text, an octal number, literal text | an error |
//! | `\<`, `\>`, `\b{start}` | escaped characters, an error | boundaries of words |
//! | `(?x)`, `a++`, `{1001}` | an error | accepted |

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};

/// The largest number of repetitions, as RE2 has it.
const MOST_REPETITIONS: u32 = 1000;

/// The longest pattern, in bytes.
pub(super) const LONGEST: usize = 1024;
/// The memory of its automata that is built while a text is matched, in bytes.
const DFA: usize = 256 << 10;
/// How large a compiled pattern may get, in bytes.
pub(super) const LARGEST: usize = 1 << 20;

/// A pattern, compiled to at most so many bytes.
///
/// # Errors
/// Why RE2 refuses it, or that it is too large.
pub(super) fn compiled(pattern: &str, size: usize) -> Result<Regex, Refused> {
    if pattern.len() > LONGEST {
        return Err(Refused::Wrong(format!("the pattern has more than {LONGEST} bytes; make it shorter")));
    }
    let wrong = |why: &str| Refused::Wrong(format!("'{pattern}' is no regular expression of RE2: {why}"));
    let translated = translated(pattern).map_err(|why| wrong(&why))?;
    RegexBuilder::new(&translated).size_limit(size.min(LARGEST)).dfa_size_limit(DFA).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => Refused::TooLarge,
            // The last line has the reason; those before it show the pattern, as it was translated.
            error => wrong(error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")),
        },
    )
}

/// Why a pattern is not compiled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    /// For people.
    #[error("{0}")]
    Wrong(String),
    /// It comes to more than it may.
    #[error("the pattern comes to more than 1 MiB; make it simpler")]
    TooLarge,
}

/// The pattern in the syntax of the `regex` crate.
///
/// # Errors
/// What RE2 refuses and `regex` would accept.
fn translated(pattern: &str) -> Result<String, String> {
    let mut it = Translator { rest: pattern, out: String::with_capacity(pattern.len() + 16), repeats: false };
    it.run()?;
    Ok(it.out)
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    /// Whether a repetition stands before: another one directly after it is an error, but for `?`.
    repeats: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), String> {
        let mut can_repeat = false;
        while let Some(c) = self.next() {
            let repeated = std::mem::take(&mut self.repeats);
            match c {
                '\\' => {
                    self.escape(false)?;
                    can_repeat = true;
                }
                '[' => {
                    self.class()?;
                    can_repeat = true;
                }
                '(' => {
                    self.group()?;
                    can_repeat = false;
                }
                '*' | '+' | '?' => {
                    if repeated {
                        return Err(format!("invalid nested repetition operator: '{c}' after another one"));
                    }
                    self.out.push(c);
                    self.after_repetition(can_repeat);
                }
                '{' => match repetition(self.rest) {
                    Some(length) if can_repeat => {
                        if repeated {
                            return Err("invalid nested repetition operator: '{' after another one".to_owned());
                        }
                        let (inside, rest) = self.rest.split_at(length);
                        let numbers = inside.trim_end_matches('}').split(',');
                        if numbers.filter(|number| !number.is_empty()).any(|n| n.parse().is_ok_and(too_many)) {
                            return Err(format!("invalid repeat count: {{{inside}; {MOST_REPETITIONS} is the most"));
                        }
                        let _ = write!(self.out, "{{{inside}");
                        self.rest = rest;
                        self.after_repetition(true);
                    }
                    _ => {
                        self.out.push_str("\\{");
                        can_repeat = true;
                    }
                },
                '}' => {
                    self.out.push_str("\\}");
                    can_repeat = true;
                }
                ']' => {
                    self.out.push_str("\\]");
                    can_repeat = true;
                }
                c => {
                    self.out.push(c);
                    can_repeat = c != '|';
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// A repetition may be followed by `?`, which makes it lazy.
    fn after_repetition(&mut self, repeats: bool) {
        if repeats && let Some(rest) = self.rest.strip_prefix('?') {
            self.out.push('?');
            self.rest = rest;
        }
        self.repeats = repeats;
    }

    /// `(?flags)` and `(?flags:`: `regex` has more flags than RE2.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let Some(inside) = self.rest.strip_prefix('?') else { return Ok(()) };
        let flags: String = inside.chars().take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect();
        let after = inside[flags.len()..].chars().next();
        if matches!(after, Some(')' | ':')) && flags.chars().any(|flag| !"imsU-".contains(flag)) {
            return Err(format!("invalid or unsupported Perl syntax: (?{flags}"));
        }
        Ok(())
    }

    /// What stands after a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.next() else { return Err("trailing backslash at end of expression".to_owned()) };
        let brackets = |inside: &str| if in_class { inside.to_owned() } else { format!("[{inside}]") };
        match c {
            'd' => self.out.push_str(&brackets("0-9")),
            'w' => self.out.push_str(&brackets("0-9A-Za-z_")),
            's' => self.out.push_str(&brackets(r"\t\n\x0C\r ")),
            'D' => self.out.push_str("[^0-9]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            'S' => self.out.push_str(r"[^\t\n\x0C\r ]"),
            'b' if !in_class => {
                if self.rest.starts_with('{') {
                    return Err("invalid repetition of \\b".to_owned());
                }
                self.out.push_str(r"(?-u:\b)");
            }
            // Between two characters beyond ASCII there is none, so the Unicode one is close, but not the same.
            'B' if !in_class => return Err(r"\B is not supported; use \b, or write what stands there".to_owned()),
            'Q' if !in_class => {
                let (literal, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.out.push_str(&regex::escape(literal));
                self.rest = rest;
            }
            '0'..='7' => {
                let more = self.rest.chars().take(2).take_while(|c| ('0'..='7').contains(c)).count();
                // A single digit but 0 would be a reference to a group, which RE2 refuses, too.
                if c != '0' && more == 0 {
                    return Err(format!("invalid escape sequence: \\{c}"));
                }
                let (digits, rest) = self.rest.split_at(more);
                let code = u32::from_str_radix(&format!("{c}{digits}"), 8).unwrap_or_default();
                let _ = write!(self.out, "\\x{{{code:X}}}");
                self.rest = rest;
            }
            // Their braces are no repetition.
            'x' | 'p' | 'P' if self.rest.starts_with('{') => {
                let length = self.rest.find('}').map_or(self.rest.len(), |end| end + 1);
                let (inside, rest) = self.rest.split_at(length);
                let _ = write!(self.out, "\\{c}{inside}");
                self.rest = rest;
            }
            'u' | 'U' | '8' | '9' => return Err(format!("invalid escape sequence: \\{c}")),
            '<' | '>' => self.out.push(c),
            c if c.is_ascii_alphabetic() => {
                self.out.push('\\');
                self.out.push(c);
            }
            c if c.is_ascii() => self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            c => return Err(format!("invalid escape sequence: \\{c}")),
        }
        Ok(())
    }

    /// What stands between brackets: everything but ranges, negation and named classes is literal in RE2.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.out.push('^');
            self.rest = rest;
        }
        let mut first = true;
        while let Some(c) = self.next() {
            match c {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => self.escape(true)?,
                '[' if self.rest.starts_with(':') => match self.rest.find(":]") {
                    Some(end) => {
                        let (name, rest) = self.rest.split_at(end + 2);
                        let _ = write!(self.out, "[{name}");
                        self.rest = rest;
                    }
                    None => self.out.push_str("\\["),
                },
                ']' | '[' | '&' | '~' => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                '-' if self.rest.starts_with('-') => {
                    if !first {
                        return Err("invalid character class range: --".to_owned());
                    }
                    self.out.push_str("\\-");
                }
                c => self.out.push(c),
            }
            first = false;
        }
        Err("missing closing ]".to_owned())
    }
}

fn too_many(repetitions: u32) -> bool {
    repetitions > MOST_REPETITIONS
}

/// How long `n}`, `n,}` or `n,m}` at the beginning of a text is.
fn repetition(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let (least, most) = text[..end].split_once(',').unwrap_or((&text[..end], ""));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    (number(least) && (most.is_empty() || number(most))).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers are those of Go's `regexp` package.
    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (text, pattern, answer) in [
            ("\u{663}", r"^\d$", false),
            ("7", r"^\d$", true),
            ("\u{e9}", r"^\w$", false),
            ("\u{e9}", r"^\W$", true),
            ("a\u{a0}b", r"^a\sb$", false),
            ("a b", r"^a[\s-]b$", true),
            ("a", "[a&&b]", true),
            ("&", "^[a&&b]$", true),
            ("0", "^[--a]$", true),
            ("~", "^[a~~b]$", true),
            ("a.b", r"^\Qa.b\E$", true),
            ("axb", r"^\Qa.b\E$", false),
            ("a{,3}", "^a{,3}$", true),
            ("a{", "a{", true),
            ("{}", "^{}$", true),
            ("a", r"^\141$", true),
            ("<", r"^\<$", true),
            ("]", "^[]]$", true),
            ("[", "^[[]$", true),
            ("b", "^[[:alpha:]]$", true),
            ("foo bar", r"\bbar\b", true),
            ("aaa", "^a{2,3}$", true),
            ("aaa", "^a{2,}?$", true),
            ("a+", r"^a\+$", true),
            ("A", "^(?i)a$", true),
            ("ab", "^(?P<x>a)b$", true),
            ("\u{e9}", "^\\x{e9}$", true),
            ("/", r"^\/$", true),
        ] {
            let translated = translated(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            let compiled = regex::Regex::new(&translated).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(compiled.is_match(text), answer, "{text:?} and {pattern:?}, as {translated:?}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in
            ["(?x)a # b", "a++", "a**", "a{1001}", "a{2}{3}", "[a", "[a--b]", r"a\", r"\1", r"\u{e9}", r"\b{start}a"]
        {
            assert!(translated(pattern).is_err(), "{pattern}");
        }
        for pattern in ["^(?!a)", "(?<=a)b", "(a", "*a", r"\pX", "a)"] {
            let refused = translated(pattern).map(|translated| regex::Regex::new(&translated).is_err());
            assert!(refused.unwrap_or(true), "{pattern}");
        }
    }
}
