//! Pure: secrets are taken out of what a node says, in whatever guise a script prints them: as they are, in base64, in
//! hexadecimal, URL-encoded, broken over lines, or cut off at the beginning.

use serde_json::Value;

use crate::phase::secret::Secret;

/// What stands in the place of a secret.
const MASK: &str = "*****";
/// A text shorter than this is not looked for: it would mask every letter of an output.
const SHORTEST: usize = 4;
/// A part of a secret's lines is looked for by itself where it is at least this long.
const SHORTEST_LINE: usize = 8;
/// No more lines of one secret than these are looked for by themselves.
const MOST_LINES: usize = 500;
/// How much of a secret must stand at the beginning of a cut output to be taken for its end.
const SHORTEST_REST: usize = 3;

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

/// Takes known secrets out of texts.
#[derive(Clone, Default)]
pub struct Mask {
    /// Without white space, longest first.
    needles: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} guises)", self.needles.len())
    }
}

impl Mask {
    /// A mask for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let all = |secret: &Secret| {
            let mut guises = guises(secret.bytes());
            // As the script has it in a variable, which `set` prints.
            guises.push(secret.format().into_bytes());
            guises.retain(|guise| guise.len() >= SHORTEST);
            guises
        };
        let mut needles: Vec<Vec<u8>> = secrets.into_iter().flat_map(all).collect();
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles }
    }

    /// A value whose texts are masked.
    pub fn value(&self, value: Value) -> Value {
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
        if self.needles.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        // White space is no obstacle: base64 is broken over lines.
        let bytes = text.as_bytes();
        let places: Vec<usize> = (0..bytes.len()).filter(|place| !bytes[*place].is_ascii_whitespace()).collect();
        let squeezed: Vec<u8> = places.iter().map(|place| bytes[*place]).collect();
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for needle in &self.needles {
            let mut from = 0;
            while let Some(at) = find(&squeezed[from..], needle).map(|at| from + at) {
                hidden.push((places[at], places[at + needle.len() - 1] + 1));
                from = at + needle.len();
            }
            let longest = needle.len().min(squeezed.len() + 1) - 1;
            if cut.end {
                let rest = (SHORTEST_REST..=longest).rev().find(|rest| squeezed.ends_with(&needle[..*rest]));
                hidden.extend(rest.map(|rest| (places[squeezed.len() - rest], bytes.len())));
            }
            if cut.beginning {
                let rest =
                    (SHORTEST_REST..=longest).rev().find(|rest| squeezed.starts_with(&needle[needle.len() - rest..]));
                hidden.extend(rest.map(|rest| (0, places[rest - 1] + 1)));
            }
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

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// What a secret may look like when it is printed, without white space.
fn guises(secret: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = secret.trim_ascii();
    let mut plain: Vec<&[u8]> = vec![secret, trimmed];
    let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    plain.extend(lines.filter(|line| line.len() >= SHORTEST_LINE).take(MOST_LINES));
    let mut guises = Vec::new();
    for text in plain {
        // Printed as text, bytes that are none have become replacement characters.
        guises.push(String::from_utf8_lossy(text).into_owned().into_bytes());
        guises.push(hexadecimal(text, b"0123456789abcdef"));
        guises.push(hexadecimal(text, b"0123456789ABCDEF"));
        guises.push(percent(text, b"0123456789ABCDEF", b'%'));
        guises.push(percent(text, b"0123456789abcdef", b'%'));
        // Whatever stands before it in the same base64 shifts it by one or two bytes.
        for alphabet in [STANDARD, URL_SAFE] {
            guises.extend((0..3).map(|shift| base64(text, shift, alphabet)));
        }
    }
    for guise in &mut guises {
        guise.retain(|byte| !byte.is_ascii_whitespace());
    }
    guises.retain(|guise| guise.len() >= SHORTEST);
    guises
}

fn hexadecimal(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

fn percent(bytes: &[u8], digits: &[u8; 16], mark: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => out.push(*byte),
            byte => out.extend([mark, digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The part of the base64 of `shift` unknown bytes and these that depends on these alone.
fn base64(bytes: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let mut bits = vec![0; shift];
    bits.extend_from_slice(bytes);
    // The first digits mix in what stands before, the last ones what follows.
    let first = (shift * 8).div_ceil(6);
    let digits = bits.len() * 8 / 6;
    let digit = |place: usize| {
        let at = place * 6;
        let pair = u16::from(bits[at / 8]) << 8 | u16::from(bits.get(at / 8 + 1).copied().unwrap_or_default());
        alphabet[usize::from(pair >> (10 - at % 8) & 63)]
    };
    (first..digits).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secret: &str, text: &str) -> String {
        Mask::new([&Secret::new(secret.as_bytes())]).mask(text, Cut::NOWHERE)
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
        let mask = Mask::new([&Secret::new(*b"0123456789abcdef")]);
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
        let mask = Mask::new([&Secret::new(*b"0123456789abcdef"), &Secret::new(*b"424242")]);
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
        let encode = |bytes: &[u8]| String::from_utf8(base64(bytes, 0, STANDARD)).unwrap();
        for before in ["", "a", "ab", "abc"] {
            let text = encode(format!("{before}correct horse battery{before}xyz").as_bytes());
            let found = masked("correct horse battery", &text);
            assert!(found.contains("*****") && found.len() < text.len(), "{text} {found}");
        }
    }
}
