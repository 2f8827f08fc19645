//! Pure: values that must not be seen.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::action::KeyRef;

/// A secret value. It shows itself to nobody who prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(masked)")
    }
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A format for printf that prints it: of harmless characters only, so that it survives every shell and locale.
    pub fn format(&self) -> String {
        let mut format = String::with_capacity(self.0.len() + 16);
        for byte in self.0.iter() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b',' | b':' | b'/' | b'+' | b'=' | b'@' => {
                    format.push(char::from(*byte));
                }
                b'%' => format.push_str("%%"),
                byte => {
                    let _ = write!(format, "\\{byte:03o}");
                }
            }
        }
        format
    }
}

/// Secrets by their places.
pub type Secrets = BTreeMap<KeyRef, Secret>;

/// The variable of a phase's script in which its secret number `place` is.
pub(super) fn variable(place: usize) -> String {
    format!("secret_{place}")
}

/// What a script that needs these secrets reads from stdin; nothing where one of them is not known.
pub fn payload(places: &[KeyRef], known: &Secrets) -> Option<String> {
    let mut payload = String::new();
    for (place, key) in places.iter().enumerate() {
        let _ = writeln!(payload, "{}='{}'", variable(place), known.get(key)?.format());
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody_and_travels_as_harmless_text() {
        let secret = Secret::new(*b"-it's 100%\n\0\xff\\");
        assert_eq!(format!("{secret:?}"), "Secret(masked)");
        assert_eq!(secret.format(), r"\055it\047s\040100%%\012\000\377\134");
        let key = |name: &str| KeyRef { name: name.into(), key: "k".into() };
        let known = [(key("a"), Secret::new(*b"x"))].into();
        assert_eq!(payload(&[key("a")], &known).as_deref(), Some("secret_0='x'\n"));
        assert_eq!(payload(&[key("b")], &known), None);
    }
}
