//! Pure: which keys a host may have, by the rules of OpenSSH's known_hosts.
//!
//! A host is looked up as `address` where its port is 22, as `[address]:port` and then as `address` otherwise. Of several
//! entries one that fits is enough; a key that is revoked for the host is never accepted, whatever else fits.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey, ssh_key::public::KeyData};
use sha1::Sha1;

use super::certificate;

/// Kinds of keys that can be checked here, the preferred first. RSA is left out: its implementation in Rust has a standing
/// advisory (RUSTSEC-2023-0071), and every host has another kind.
const KINDS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// Where a connection leads to, as it was declared.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Host {
    address: String,
    port: u16,
}

impl Host {
    /// An IP address is taken in its canonical form, a name in lower case.
    pub fn new(address: &str, port: u16) -> Self {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let canonical = bare.parse::<core::net::IpAddr>().map(|literal| literal.to_string());
        Self { address: canonical.unwrap_or_else(|_| bare.trim_end_matches('.').to_ascii_lowercase()), port }
    }

    /// The name that a certificate has to be for.
    pub fn principal(&self) -> &str {
        &self.address
    }

    /// What it is looked up as, in this order: the first name of which there is any entry counts.
    fn names(&self) -> Vec<String> {
        let plain = self.address.clone();
        if self.port == 22 { vec![plain] } else { vec![self.to_string(), plain] }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", self.address, self.port)
    }
}

/// All that is trusted for a connection.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    entries: Vec<Entry>,
    unreadable: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    marker: Marker,
    hosts: Hosts,
    key: KeyData,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Marker {
    Key,
    Authority,
    Revoked,
}

#[derive(Clone, Debug)]
enum Hosts {
    Any,
    Patterns(Vec<String>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl Hosts {
    fn parse(field: &str) -> Option<Self> {
        let Some(hashed) = field.strip_prefix("|1|") else {
            return Some(Self::Patterns(field.split(',').map(str::to_ascii_lowercase).collect()));
        };
        let (salt, hash) = hashed.split_once('|')?;
        Some(Self::Hashed { salt: BASE64.decode(salt.as_bytes()).ok()?, hash: BASE64.decode(hash.as_bytes()).ok()? })
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Patterns(patterns) => {
                let negated = |pattern: &String| pattern.strip_prefix('!').is_some_and(|it| matches(it, name));
                !patterns.iter().any(negated) && patterns.iter().any(|pattern| matches(pattern, name))
            }
            Self::Hashed { salt, hash } => {
                // Any length of key will do for an HMAC.
                Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok())
            }
        }
    }
}

/// Whether a pattern with `*` and `?` fits all of the text. Linear in memory, and never exponential in time.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Why a host is not trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people, without the host's name.
    pub message: String,
}

impl Trusted {
    /// Adds a public key line, which is trusted whatever the host is called. `@cert-authority` and `@revoked` may stand
    /// before it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn add_key(&mut self, line: &str) -> Result<(), String> {
        let (marker, rest) = marked(line.trim()).ok_or("its marker is neither @cert-authority nor @revoked")?;
        let key = PublicKey::from_openssh(rest).map_err(|error| match rest.split_whitespace().nth(1) {
            Some(second) if second.starts_with("ssh-") || second.starts_with("ecdsa-") => {
                "it is a line of known_hosts: leave the host's name out".to_owned()
            }
            _ => format!("it is no OpenSSH public key such as `ssh-ed25519 AAAA...` ({error})"),
        })?;
        self.entries.push(Entry { marker, hosts: Hosts::Any, key: key.key_data().clone() });
        Ok(())
    }

    /// Adds what is in a known_hosts file. Lines that cannot be read are counted, for messages.
    pub fn add_known_hosts(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match entry(line) {
                Some(entry) => self.entries.push(entry),
                None => self.unreadable += 1,
            }
        }
    }

    fn of<'a>(&'a self, host: &Host, marker: Marker) -> impl Iterator<Item = &'a KeyData> {
        let mut names = host.names();
        // What is revoked under either name is.
        if marker != Marker::Revoked {
            let known =
                |name: &String| self.entries.iter().any(|e| e.marker != Marker::Revoked && e.hosts.contain(name));
            let first = names.iter().position(known).unwrap_or_default();
            names = vec![names.swap_remove(first)];
        }
        let fits = move |entry: &&Entry| entry.marker == marker && names.iter().any(|name| entry.hosts.contain(name));
        self.entries.iter().filter(fits).map(|entry| &entry.key)
    }

    /// The kinds of plain keys and of certificates to negotiate, the preferred first. Kinds of which a key is pinned come
    /// first, so that a host with several keys shows that one; the others follow so that a host without shows what it has.
    /// Certificates are asked for where an authority is trusted for the host.
    pub fn kinds(&self, host: &Host) -> (Vec<Algorithm>, Vec<Algorithm>) {
        let pinned: Vec<Algorithm> = self.of(host, Marker::Key).map(KeyData::algorithm).collect();
        let mut keys = KINDS.to_vec();
        keys.sort_by_key(|kind| !pinned.contains(kind));
        let certificates = if self.of(host, Marker::Authority).next().is_some() { KINDS.to_vec() } else { Vec::new() };
        (keys, certificates)
    }

    /// Judges a plain key.
    ///
    /// # Errors
    /// Where it is not trusted for this host.
    pub fn judge_key(&self, host: &Host, offered: &KeyData) -> Result<(), Refusal> {
        self.judge_revoked(host, offered)?;
        // One of a kind that cannot be checked says nothing about the others.
        let checked = |key: &&KeyData| KINDS.contains(&key.algorithm());
        let pinned: Vec<&KeyData> = self.of(host, Marker::Key).filter(checked).collect();
        if pinned.contains(&offered) {
            return Ok(());
        }
        Err(if pinned.is_empty() { self.unknown(host, offered) } else { changed(&pinned, offered) })
    }

    /// Judges a certificate, at a time in seconds since 1970. A key that is pinned itself is accepted as well, as OpenSSH does.
    ///
    /// # Errors
    /// Where it is not trusted for this host.
    pub fn judge_certificate(&self, host: &Host, offered: &Certificate, now: u64) -> Result<(), Refusal> {
        self.judge_revoked(host, offered.signature_key())?;
        self.judge_revoked(host, offered.public_key())?;
        let authorities: Vec<&KeyData> = self.of(host, Marker::Authority).collect();
        let Err(why) = certificate::judge(offered, &authorities, host.principal(), now) else { return Ok(()) };
        if self.of(host, Marker::Key).any(|pinned| pinned == offered.public_key()) {
            return Ok(());
        }
        Err(Refusal { reason: "HostCertificateInvalid", message: format!("the host's certificate is refused: {why}") })
    }

    fn judge_revoked(&self, host: &Host, key: &KeyData) -> Result<(), Refusal> {
        if !self.of(host, Marker::Revoked).any(|revoked| revoked == key) {
            return Ok(());
        }
        let message = format!(
            "the key {} is marked @revoked: the host may not be used with it; give the host a new key and pin that",
            described(key)
        );
        Err(Refusal { reason: "HostKeyRevoked", message })
    }

    fn unknown(&self, host: &Host, offered: &KeyData) -> Refusal {
        let trusted = if self.of(host, Marker::Authority).next().is_some() {
            "only certificates are trusted for it, and it shows none".to_owned()
        } else if self.of(host, Marker::Key).next().is_some() {
            "the keys that are trusted for it are of kinds that cannot be checked here (RSA)".to_owned()
        } else if self.entries.is_empty() {
            "no host key is trusted for it".to_owned()
        } else {
            format!("none of the {} entries that are trusted is for {host}", self.entries.len())
        };
        let skipped = match self.unreadable {
            0 => String::new(),
            1 => " (1 line of the known hosts could not be read)".to_owned(),
            many => format!(" ({many} lines of the known hosts could not be read)"),
        };
        let message = format!(
            "{trusted}{skipped}. It offers {}. Compare that with the fingerprint that `ssh-keygen -lf {}` prints on the \
             host itself, and if they are the same, pin this line: {}",
            described(offered),
            file(offered),
            line(offered)
        );
        Refusal { reason: "HostKeyUnknown", message }
    }
}

fn changed(pinned: &[&KeyData], offered: &KeyData) -> Refusal {
    let pinned: Vec<String> = pinned.iter().map(|key| described(key)).collect();
    let message = format!(
        "the host key is not the one that is pinned: it offers {}, pinned: {}. Somebody may stand between the operator and the \
         host, or the host was reinstalled. Nothing was sent. If `ssh-keygen -lf {}` on the host itself prints the fingerprint \
         that it offers, pin this line instead: {}",
        described(offered),
        pinned.join(", "),
        file(offered),
        line(offered)
    );
    Refusal { reason: "HostKeyChanged", message }
}

/// The kind of a key and its fingerprint, for people.
pub(super) fn described(key: &KeyData) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// A key as it is pinned.
pub(super) fn line(key: &KeyData) -> String {
    // The kinds that get here can all be written.
    PublicKey::from(key.clone()).to_openssh().unwrap_or_else(|error| error.to_string())
}

fn file(key: &KeyData) -> &'static str {
    match key {
        KeyData::Ecdsa(_) => "/etc/ssh/ssh_host_ecdsa_key.pub",
        _ => "/etc/ssh/ssh_host_ed25519_key.pub",
    }
}

fn marked(line: &str) -> Option<(Marker, &str)> {
    let Some(rest) = line.strip_prefix('@') else { return Some((Marker::Key, line)) };
    let (marker, rest) = rest.split_once(char::is_whitespace)?;
    match marker {
        "cert-authority" => Some((Marker::Authority, rest.trim_start())),
        "revoked" => Some((Marker::Revoked, rest.trim_start())),
        _ => None,
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (marker, rest) = marked(line)?;
    let (hosts, key) = rest.split_once(char::is_whitespace)?;
    let key = PublicKey::from_openssh(key.trim_start()).ok()?;
    Some(Entry { marker, hosts: Hosts::parse(hosts)?, key: key.key_data().clone() })
}

#[cfg(test)]
mod tests;
