//! Pure: removes secrets from what a node prints, in whatever encoding a script prints them: as they are, in base64, in
//! hexadecimal, URL-encoded, broken over lines, or cut off at the beginning or the end.
//!
//! One Aho-Corasick automaton holds the secrets themselves. A text is decoded in each of the ways, and the automaton reads each
//! result once: the time is linear in the text, whatever the secrets are; the automaton is bounded by [`NEEDLES_LIMIT`].

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::Automaton as _,
    nfa::contiguous::{Builder, NFA},
};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{phase::secret::Secret, text};

/// What stands in the place of a secret.
const MASK: &str = "*****";
/// A text shorter than this is not looked for: it would mask every letter of an output.
const SHORTEST: usize = 4;
/// A part of a secret's lines is looked for by itself where it is at least this long.
const SHORTEST_LINE: usize = 8;
/// How much of a secret must stand at the beginning of a cut output to be taken for its end.
const SHORTEST_REST: usize = 3;
/// How much is looked for in all, in bytes: each secret, and each of its lines that is long enough. With the sorted
/// copies the automaton takes about 40 times as much memory, 60 times while it is made.
pub const NEEDLES_LIMIT: usize = 512 << 10;

/// The secrets are too large to be removed from what a node prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Secrets that the group names are too large to be masked in what its nodes print: with their lines they have more than \
     {} KiB; name keys that hold the secret part alone, or bring large texts by a ConfigMap",
    NEEDLES_LIMIT >> 10
)]
pub struct TooLarge;

/// Where something of a text is missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// Before it.
    pub beginning: bool,
    /// Behind it.
    pub end: bool,
}

impl Cut {
    const NOWHERE: Self = Self { beginning: false, end: false };
}

/// Removes known secrets from texts. A clone shares what it looks for.
#[derive(Clone, Default)]
pub struct Mask(Option<Arc<Needles>>);

/// What is looked for.
struct Needles {
    /// None where there are more than can be looked for: nothing is shown then.
    automaton: Option<NFA>,
    /// The length of the shortest needle.
    shortest: usize,
    /// Sorted, to find what a text that was cut ends with.
    sorted: Vec<Box<[u8]>>,
    /// The same backwards, to find what it begins with.
    backwards: Vec<Box<[u8]>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} needles)", self.0.as_ref().map_or(0, |needles| needles.sorted.len()))
    }
}

impl Mask {
    /// A mask for these secrets. It takes about 0.1 s for the most that is allowed: not for a thread that others wait for.
    ///
    /// # Errors
    /// Where they are more than [`NEEDLES_LIMIT`].
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, TooLarge> {
        Self::within(NEEDLES_LIMIT, secrets)
    }

    fn within<'a>(limit: usize, secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, TooLarge> {
        let (mut found, mut size) = (BTreeSet::new(), 0_usize);
        for secret in secrets {
            for needle in needles(secret.bytes()) {
                size += if found.contains(&needle) { 0 } else { needle.len() };
                if size > limit {
                    return Err(TooLarge);
                }
                found.insert(needle);
            }
        }
        let Some(shortest) = found.iter().map(Vec::len).min() else { return Ok(Self::default()) };
        let automaton = Builder::new().match_kind(MatchKind::Standard).prefilter(false).build(&found);
        let mut backwards: Vec<Box<[u8]>> = found.iter().map(|needle| needle.iter().rev().copied().collect()).collect();
        backwards.sort_unstable();
        let sorted = found.into_iter().map(Vec::into_boxed_slice).collect();
        Ok(Self(Some(Arc::new(Needles {
            automaton: Some(automaton.map_err(|_| TooLarge)?),
            shortest,
            sorted,
            backwards,
        }))))
    }

    /// A mask that shows no text at all.
    pub fn everything() -> Self {
        let (sorted, backwards) = (Vec::new(), Vec::new());
        Self(Some(Arc::new(Needles { automaton: None, shortest: 0, sorted, backwards })))
    }

    /// A value whose texts are masked.
    pub fn value(&self, value: Value) -> Value {
        if self.0.is_none() {
            return value;
        }
        match value {
            Value::String(text) => self.mask(&text, Cut::NOWHERE).into(),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.mask(&key, Cut::NOWHERE), self.value(value))).collect()
            }
            Value::Number(number) => match self.mask(&number.to_string(), Cut::NOWHERE) {
                text if text == number.to_string() => Value::Number(number),
                masked => masked.into(),
            },
            other => other,
        }
    }

    /// The text without the secrets. Where it was cut, a part of one may stand.
    pub fn mask(&self, text: &str, cut: Cut) -> String {
        let Some(needles) = self.0.as_deref().filter(|_| !text.is_empty()) else { return text.to_owned() };
        let Some(automaton) = &needles.automaton else { return MASK.to_owned() };
        // White space is no obstacle: base64 is broken over lines.
        let bytes = text.as_bytes();
        let places: Vec<usize> = (0..bytes.len()).filter(|place| !bytes[*place].is_ascii_whitespace()).collect();
        let squeezed: Vec<u8> = places.iter().map(|place| bytes[*place]).collect();
        if squeezed.len() < needles.shortest && !cut.beginning && !cut.end {
            return text.to_owned();
        }
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for decoded in decodings(&squeezed) {
            needles.find(automaton, &decoded.bytes, |from, to| {
                hidden.extend(decoded.range(from, to).map(|(from, to)| (places[from], places[to - 1] + 1)));
            });
            if cut.end && decoded.ends {
                let rest = needles.rest_at_end(&decoded.bytes);
                let range = rest.and_then(|rest| decoded.range(decoded.bytes.len() - rest, decoded.bytes.len()));
                hidden.extend(range.map(|(from, _)| (places[from], bytes.len())));
            }
            if cut.beginning && decoded.begins {
                let range = needles.rest_at_beginning(&decoded.bytes).and_then(|rest| decoded.range(0, rest));
                hidden.extend(range.map(|(_, to)| (0, places[to - 1] + 1)));
            }
        }
        if hidden.is_empty() {
            return text.to_owned();
        }
        hidden.sort_unstable();
        let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
        for (from, to) in hidden {
            if to <= at {
                continue;
            }
            if from >= at {
                out.extend_from_slice(&bytes[at..from]);
                out.extend_from_slice(MASK.as_bytes());
            }
            at = to;
        }
        out.extend_from_slice(&bytes[at..]);
        // A secret of bytes may have been cut out of the middle of a character.
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Needles {
    /// The longest needle that ends at each place of a text.
    fn find(&self, automaton: &NFA, text: &[u8], mut found: impl FnMut(usize, usize)) {
        if text.len() < self.shortest {
            return;
        }
        let Ok(mut state) = automaton.start_state(Anchored::No) else { return };
        for (at, byte) in text.iter().enumerate() {
            state = automaton.next_state(Anchored::No, state, *byte);
            if automaton.is_match(state) {
                // The first is the longest: those behind it are its ends.
                let length = automaton.pattern_len(automaton.match_pattern(state, 0));
                found(at + 1 - length, at + 1);
            }
        }
    }

    /// How much of the end of a text is the beginning of a needle, and not all of it.
    fn rest_at_end(&self, text: &[u8]) -> Option<usize> {
        (SHORTEST_REST..=text.len()).rev().find(|rest| begins_one(&self.sorted, &text[text.len() - rest..]))
    }

    /// How much of the beginning of a text is the end of a needle.
    fn rest_at_beginning(&self, text: &[u8]) -> Option<usize> {
        let backwards: Vec<u8> = text.iter().rev().copied().collect();
        (SHORTEST_REST..=text.len())
            .rev()
            .find(|rest| begins_one(&self.backwards, &backwards[backwards.len() - rest..]))
    }
}

/// Whether one of the sorted needles begins with this, and is longer.
fn begins_one(sorted: &[Box<[u8]>], part: &[u8]) -> bool {
    let at = sorted.partition_point(|needle| **needle <= *part);
    sorted.get(at).is_some_and(|needle| needle.starts_with(part))
}

/// What a secret is looked for as: the whole, and each line that is long enough, without white space; as it is, and as text that
/// was made safe to show.
fn needles(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= SHORTEST_LINE);
    let forms = |part: &[u8]| {
        let lossy = String::from_utf8_lossy(part);
        let printable = text::printable(&lossy).into_owned().into_bytes();
        let value = text::value(&lossy).into_owned().into_bytes();
        [part.to_vec(), lossy.into_owned().into_bytes(), printable, value]
    };
    std::iter::once(secret).chain(lines).flat_map(forms).filter_map(|mut needle| {
        needle.retain(|byte| !byte.is_ascii_whitespace());
        (needle.len() >= SHORTEST).then_some(needle)
    })
}

/// What a text without white space may be an encoding of.
struct Decoded {
    /// The bytes, without white space.
    bytes: Vec<u8>,
    /// For each byte, where what it was decoded from begins and ends, in `unit`s from `offset`.
    spans: Vec<(usize, usize)>,
    /// How many bits one place of the text stands for, where bytes and places do not fall together: in base64.
    bits: Option<usize>,
    /// Where in the text it begins.
    offset: usize,
    /// Whether it begins and ends where the text does.
    begins: bool,
    ends: bool,
}

impl Decoded {
    /// The places of the text that say nothing but these bytes, if there are any.
    fn range(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let (begin, end) = (self.spans.get(from)?.0, self.spans.get(to.checked_sub(1)?)?.1);
        let (begin, end) = match self.bits {
            // A digit that mixes in what stands before or behind is left.
            Some(bits) => (begin.div_ceil(bits), end / bits),
            None => (begin, end),
        };
        (begin < end).then_some((self.offset + begin, self.offset + end))
    }

    fn push(&mut self, byte: u8, span: (usize, usize)) {
        if !byte.is_ascii_whitespace() {
            self.bytes.push(byte);
            self.spans.push(span);
        }
    }
}

fn decodings(text: &[u8]) -> Vec<Decoded> {
    let whole = |bytes: Vec<u8>, spans| Decoded { bytes, spans, bits: None, offset: 0, begins: true, ends: true };
    let mut all = vec![whole(text.to_vec(), (0..text.len()).map(|at| (at, at + 1)).collect())];
    // URL-encoded; and as a script has it in a variable, which `set` prints.
    for (mark, length, base) in [(b'%', 2, 16), (b'\\', 3, 8)] {
        if !text.contains(&mark) {
            continue;
        }
        let (mut decoded, mut at) = (whole(Vec::new(), Vec::new()), 0);
        while at < text.len() {
            let digits = (text[at] == mark).then(|| text.get(at + 1..=at + length)).flatten();
            let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            let (byte, took) = match digits.and_then(|digits| u8::from_str_radix(digits, base).ok()) {
                Some(byte) => (byte, length + 1),
                None if base == 8 && text[at..].starts_with(b"%%") => (b'%', 2),
                None => (text[at], 1),
            };
            decoded.push(byte, (at, at + took));
            at += took;
        }
        all.push(decoded);
    }
    all.extend(digits(text, 4, 2, |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())));
    all.extend(digits(text, 6, 4, base64));
    all
}

/// Runs of digits of so many bits, at each of the ways in which bytes may begin in them.
fn digits(text: &[u8], bits: usize, ways: usize, digit: fn(u8) -> Option<u8>) -> Vec<Decoded> {
    let mut all = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let length = text[start..].iter().take_while(|byte| digit(**byte).is_some()).count();
        for way in 0..ways {
            let run = text.get(start + way..start + length).unwrap_or_default();
            if run.len() * bits < SHORTEST_REST * 8 {
                break;
            }
            let mut decoded = Decoded {
                bytes: Vec::with_capacity(run.len() * bits / 8),
                spans: Vec::with_capacity(run.len() * bits / 8),
                bits: Some(bits),
                offset: start + way,
                begins: start == 0,
                ends: start + length == text.len(),
            };
            let (mut held, mut count, mut at) = (0_u32, 0, 0);
            for byte in run {
                held = held << bits | u32::from(digit(*byte).unwrap_or_default());
                count += bits;
                if count >= 8 {
                    count -= 8;
                    // What was taken before is cut off with the upper bits.
                    decoded.push((held >> count) as u8, (at, at + 8));
                    at += 8;
                }
            }
            all.push(decoded);
        }
        start += length.max(1);
    }
    all
}

/// A digit of base64, of either alphabet.
fn base64(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Masks that sessions share: those of one group look for the same.
#[derive(Default)]
pub struct Masks(Mutex<HashMap<String, Weak<Needles>>>);

impl Masks {
    /// The mask by this name, where a session still has it.
    pub fn get(&self, name: &str) -> Option<Mask> {
        let mut known = self.0.lock();
        known.retain(|_, needles| needles.strong_count() > 0);
        known.get(name).and_then(Weak::upgrade).map(|needles| Mask(Some(needles)))
    }

    /// Shares a mask for as long as a session has it.
    pub fn put(&self, name: String, mask: &Mask) {
        if let Some(needles) = &mask.0 {
            self.0.lock().insert(name, Arc::downgrade(needles));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secret: &str, text: &str) -> String {
        Mask::new([&Secret::new(secret.as_bytes())]).unwrap().mask(text, Cut::NOWHERE)
    }

    #[test]
    fn a_secret_is_masked_in_every_guise() {
        let secret = "s3cr3t/päss word+1";
        for (guise, left) in [
            ("pw=s3cr3t/päss word+1.", "pw=*****."),
            ("s3cr3t/päss\nword+1", "*****"),
            ("Authorization: Basic dXNlcjpzM2NyM3QvcMOkc3Mgd29yZCsx", "Authorization: Basic dXNlcjpz*****"),
            ("czNjcjN0L3DDpHNzIHdvcmQrMQ==", "*****Q=="),
            ("YToicz\nNjcjN0L3DDpHNz\nIHdvcmQrMSI=", "YToi*****SI="),
            ("733363723374 2f70c3a4737320776f72642b31", "*****"),
            ("733363723374 2F70C3A4737320776F72642B31", "*****"),
            ("?p=s3cr3t%2Fp%C3%A4ss%20word%2B1&x", "?p=*****&x"),
        ] {
            let found = masked(secret, guise);
            assert!(found.contains("*****"), "{guise}: {found}");
            assert!(!found.to_lowercase().contains("s3cr3t"), "{found}");
            if !guise.contains("czNjcj") && !guise.contains("dXNlcj") {
                assert_eq!(found, left);
            }
        }
    }

    #[test]
    fn what_is_cut_off_at_the_beginning_is_masked_too() {
        let mask = Mask::new([&Secret::new(*b"0123456789abcdef")]).unwrap();
        assert_eq!(mask.mask("89abcdef and more", Cut { beginning: true, end: false }), "***** and more");
        assert_eq!(mask.mask("89abcdef and more", Cut::NOWHERE), "89abcdef and more");
        assert_eq!(
            mask.mask("OTphYmNkZWY= 0123456789abcdef", Cut { beginning: true, end: false }).matches("*****").count(),
            1
        );
        assert_eq!(mask.mask("89abcdef", Cut { beginning: true, end: false }), "*****");
    }

    #[test]
    fn what_is_cut_off_at_the_end_is_masked_too_and_so_are_keys_and_numbers() {
        let mask = Mask::new([&Secret::new(*b"0123456789abcdef"), &Secret::new(*b"424242")]).unwrap();
        assert_eq!(mask.mask("+pw=01234567", Cut { beginning: false, end: true }), "+pw=*****");
        let masked = mask.value(serde_json::json!({"0123456789abcdef": 424_242, "n": [7]}));
        assert_eq!(masked, serde_json::json!({"*****": "*****", "n": [7]}));
    }

    #[test]
    fn the_lines_of_a_key_are_masked_one_by_one_and_short_texts_are_let_be() {
        let key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nx\n-----END KEY-----\n";
        assert_eq!(masked(key, "  AAAABBBBCCCC\n  x\n"), "  *****\n  x\n");
        assert_eq!(masked("abc", "abc"), "abc");
        assert_eq!(masked("abcd", "abcdabcd and abcd"), "********** and *****");
    }

    #[test]
    fn whatever_stands_around_it_in_the_same_base64_it_is_masked() {
        let encode = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        for before in ["", "a", "ab", "abc"] {
            let text = encode(format!("{before}correct horse battery{before}xyz").as_bytes());
            let found = masked("correct horse battery", &text);
            assert!(found.contains("*****") && found.len() < text.len(), "{text} {found}");
        }
    }

    #[test]
    fn a_secret_is_masked_as_a_script_may_have_encoded_it() {
        for text in [
            r"secret_0='\055it\047s\040100%%\134'",
            "x=2d69742773203130302555c",
            "x=2D6974277320313030255C",
            "x=2d6974277320313030255C",
            "x=-it%27s%20100%25%5c",
            "x=\u{1b}[31m-it's 100%\\",
        ] {
            let text = text.replace("2555c", "255c");
            let found = masked("-it's 100%\\", &text);
            assert!(found.contains("*****"), "{text}: {found}");
        }
        // What two secrets share is masked once, and nothing of either is left.
        let both = Mask::new([&Secret::new(*b"abcdef"), &Secret::new(*b"defghi")]).unwrap();
        assert_eq!(both.mask("xabcdefghix", Cut::NOWHERE), "x*****x");
        // A secret that is made safe to show is still one.
        let hostile = Mask::new([&Secret::new("pass\u{1b}[0m\u{202e}word".as_bytes())]).unwrap();
        assert_eq!(hostile.mask("password", Cut::NOWHERE), "*****");
        assert_eq!(Mask::everything().mask("anything", Cut::NOWHERE), "*****");
        assert_eq!(Mask::default().mask("anything", Cut::NOWHERE), "anything");
    }

    #[test]
    fn secrets_that_are_too_large_are_refused_and_equal_ones_count_once() {
        let line = |place: usize| format!("line {place} of a certificate {}\n", "x".repeat(40));
        let text: String = (0..3000).map(line).collect();
        let secrets = [Secret::new(text.as_bytes()), Secret::new(text.as_bytes())];
        let mask = Mask::new(&secrets).unwrap();
        assert_eq!(mask.mask(&line(2999), Cut::NOWHERE).trim(), "*****", "every line is looked for");
        let more: String = (0..6000).map(line).collect();
        assert_eq!(Mask::new([&Secret::new(more.as_bytes())]).err(), Some(TooLarge));
        assert_eq!(Mask::new([&Secret::new(vec![b'x'; NEEDLES_LIMIT + 1])]).err(), Some(TooLarge));
        assert!(Mask::new([&Secret::new(vec![b'x'; NEEDLES_LIMIT / 2])]).is_ok());
    }

    #[test]
    fn sessions_with_the_same_values_share_a_mask() {
        let masks = Masks::default();
        let mask = Mask::new([&Secret::new(*b"abcdef")]).unwrap();
        masks.put("a".into(), &mask);
        assert_eq!(masks.get("a").unwrap().mask("abcdef", Cut::NOWHERE), "*****");
        assert!(masks.get("b").is_none());
        drop(mask);
        assert!(masks.get("a").is_none());
    }
}
