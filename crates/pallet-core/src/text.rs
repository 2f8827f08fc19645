//! Pure: text of nodes, made safe to store and to show.
//!
//! A node is not trusted: what it prints may hold terminal control sequences, or invisible characters that reorder or hide text.
//! Three functions remove them. [`printable`] is for whatever people read: messages, conditions, events, outputs, diffs.
//! [`line`] is the same on one line: names, reasons, identifiers. [`value`] is for values that feed templates: it removes what
//! commands a terminal or reorders text, and keeps everything else.

use std::{borrow::Cow, fmt, ops::Deref};

/// Whether a character commands a terminal: C0 and C1 controls and DEL, but for newline and tab.
const fn is_command(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

/// Whether a character opens or closes an embedding, an override or an isolate of text direction.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character is invisible: the format characters of Unicode (Cf) that have no glyph of their own, tags, and the
/// separators of lines and paragraphs.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character joins its neighbours, as within an emoji or a word in Persian.
const fn joins(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Text for people: without control sequences and control characters but newline and tab, and without invisible characters.
/// A joiner (U+200C, U+200D) is kept between two characters beyond ASCII, where it belongs to an emoji or a letter.
///
/// The result is never longer than the text. What is clean is returned as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A control sequence ends with its first letter (ECMA-48). U+009B begins one, too.
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                skip_sequence(&mut chars);
            }
            '\u{9b}' => skip_sequence(&mut chars),
            c if is_command(c) => {}
            c if joins(c) => {
                let beyond = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && !is_invisible(c) && !is_command(c));
                if beyond(out.chars().next_back()) && beyond(chars.peek().copied()) {
                    out.push(c);
                }
            }
            c if is_invisible(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Skips the rest of a control sequence: parameters and intermediate bytes, and the letter that ends it. It has no other
/// characters; one that is cut off ends before the first of them.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|c| matches!(c, '@'..='~'));
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| is_command(c) || is_invisible(c))
}

/// Text for people on one line of at most `limit` characters: as [`printable`], with blanks in place of newlines and tabs.
pub fn line(text: &str, limit: usize) -> String {
    printable(text).trim().chars().take(limit).map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}

/// A value that templates may use: without control sequences, and control characters but newline, tab, and a carriage return before a newline; and
/// without characters that embed, override or isolate a direction. Joiners, marks and other format characters stay.
pub fn value(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_command(c) || reorders(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                skip_sequence(&mut chars);
            }
            '\u{9b}' => skip_sequence(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => out.push(c),
            c if is_command(c) || reorders(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A message for people, clean by construction: see [`printable`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(String);

impl<T: AsRef<str>> From<T> for Message {
    fn from(text: T) -> Self {
        Self(printable(text.as_ref()).into_owned())
    }
}

impl Message {
    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a word of the agent's is one: visible ASCII characters, at least one and at most `limit`.
pub fn is_word(text: &str, limit: usize) -> bool {
    !text.is_empty() && text.len() <= limit && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_people_neither_commands_a_terminal_nor_hides_anything() {
        for (raw, clean) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\u{1b}[1;31mred\u{1b}[0m\r\n\u{7}tab\there", "red\ntab\there"),
            ("\u{9b}31mred\u{85}", "red"),
            ("\u{1b}]0;title\u{7}after", "]0;titleafter"),
            ("cut \u{1b}[3\u{202e}x", "cut x"),
            ("user\u{202e}txt.exe\u{202c}", "usertxt.exe"),
            ("a\u{200b}b\u{2066}c\u{2069}\u{feff}d\u{ad}e\u{e0041}\u{2028}", "abcde"),
            ("in\u{200d}visible", "invisible"),
            ("👩\u{200d}💻 ❤\u{fe0f}\u{200d}🔥 می\u{200c}خواهم", "👩\u{200d}💻 ❤\u{fe0f}\u{200d}🔥 می\u{200c}خواهم"),
            ("é\u{200d}\u{200d}é", "é\u{200d}é"),
        ] {
            assert_eq!(printable(raw), clean, "{raw:?}");
            assert_eq!(printable(clean), clean, "what is clean stays: {clean:?}");
        }
    }

    #[test]
    fn a_name_has_one_line_and_a_bounded_length() {
        assert_eq!(line(" a\tb\nc\u{1b}[2J ", 127), "a b c");
        assert_eq!(line(&"ä".repeat(300), 127).chars().count(), 127);
    }

    #[test]
    fn a_value_keeps_its_meaning() {
        for kept in ["a\r\nb\tc", "👩\u{200d}💻", "a\u{200d}b", "\u{feff}bom", "\u{200f}מ"] {
            assert_eq!(value(kept), kept, "{kept:?}");
        }
        assert_eq!(value("a\u{1b}[2J\rb\u{202e}c\u{2069}\u{9b}\0"), "abc");
    }

    #[test]
    fn a_message_cannot_be_made_unclean() {
        assert_eq!(&*Message::from("x\u{1b}[2Jy"), "xy");
        assert!(is_word("c-1.lift.x", 20) && !is_word("a\u{7f}", 9) && !is_word("", 9) && !is_word("ä", 9));
    }
}
