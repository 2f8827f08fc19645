//! Pure: which keys a host may have, by the rules of OpenSSH's known_hosts.
//!
//! A host is looked up as `address` where its port is 22, as `[address]:port` and then as `address` otherwise. Of several
//! entries one that fits is enough; a key that is revoked for the host is never accepted, whatever else fits.

use pallet_api::reason::Reason;
use std::{collections::HashMap, fmt, sync::Arc};

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

/// The longest known_hosts, in bytes: about 2500 lines.
pub const LONGEST: usize = 256 << 10;
/// The longest pattern of a host, in bytes. A DNS name has 253 at most.
const LONGEST_PATTERN: usize = 256;

/// All that is trusted for a connection to one host. What is trusted for others is counted and not kept.
#[derive(Clone, Debug)]
pub struct Trusted {
    host: Host,
    names: Arc<[Name]>,
    entries: Vec<Entry>,
    others: usize,
    unreadable: usize,
}

/// An entry that is for the host.
#[derive(Clone, Debug)]
struct Entry {
    marker: Marker,
    /// Under which of its names.
    fits: Vec<bool>,
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
    Patterns(Vec<String>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl Hosts {
    fn parse(field: &str) -> Option<Self> {
        let Some(hashed) = field.strip_prefix("|1|") else {
            let patterns: Vec<String> = field.split(',').map(str::to_ascii_lowercase).collect();
            return patterns.iter().all(|it| it.len() <= LONGEST_PATTERN).then_some(Self::Patterns(patterns));
        };
        let (salt, hash) = hashed.split_once('|')?;
        Some(Self::Hashed { salt: BASE64.decode(salt.as_bytes()).ok()?, hash: BASE64.decode(hash.as_bytes()).ok()? })
    }

    fn contain(&self, name: &Name) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let negated = |pattern: &String| pattern.strip_prefix('!').is_some_and(|it| name.matches(it));
                patterns.iter().any(|pattern| name.matches(pattern)) && !patterns.iter().any(negated)
            }
            Self::Hashed { salt, hash } => {
                // Any length of key will do for an HMAC.
                let mac = Hmac::<Sha1>::new_from_slice(salt);
                mac.is_ok_and(|mac| mac.chain_update(&name.text).verify_slice(hash).is_ok())
            }
        }
    }
}

/// A name that patterns with `*` and `?` are matched against. Each byte of a pattern is looked at once, and costs as many steps as
/// there are words of 64 bytes in the name.
#[derive(Clone, Debug)]
pub(super) struct Name {
    text: String,
    /// For each byte, where it is in the name: a bit for each place.
    places: HashMap<u8, Vec<u64>>,
}

impl Name {
    pub fn new(text: &str) -> Self {
        let mut places = HashMap::new();
        for (place, byte) in text.bytes().enumerate() {
            let bits = places.entry(byte).or_insert_with(|| vec![0; text.len() / 64 + 1]);
            bits[place / 64] |= 1 << (place % 64);
        }
        Self { text: text.to_owned(), places }
    }

    /// Whether a pattern fits all of the name.
    pub fn matches(&self, pattern: &str) -> bool {
        let end = self.text.len();
        // Bit n: what has been looked at of the pattern fits the first n bytes.
        let mut reached = vec![0_u64; end / 64 + 1];
        reached[0] = 1;
        for byte in pattern.bytes() {
            if byte == b'*' {
                let mut filled = 0;
                for word in &mut reached {
                    let lowest = word.trailing_zeros();
                    *word = if lowest < 64 { u64::MAX << lowest } else { 0 } | filled;
                    filled = if *word == 0 { 0 } else { u64::MAX };
                }
                continue;
            }
            let places = match byte {
                b'?' => None,
                _ => match self.places.get(&byte) {
                    Some(places) => Some(places),
                    None => return false,
                },
            };
            let mut carry = 0;
            for (at, word) in reached.iter_mut().enumerate() {
                let stepped = places.map_or(*word, |places| *word & places[at]);
                (*word, carry) = (stepped << 1 | carry, stepped >> 63);
            }
        }
        reached[end / 64] >> (end % 64) & 1 == 1
    }
}

/// Why a host is not trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: Reason,
    /// For people, without the host's name.
    pub message: String,
}

impl Trusted {
    /// Nothing, for a host.
    pub fn of(host: Host) -> Self {
        let names = host.names().iter().map(|name| Name::new(name)).collect();
        Self { host, names, entries: Vec::new(), others: 0, unreadable: 0 }
    }

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
        self.entries.push(Entry { marker, fits: vec![true; self.names.len()], key: key.key_data().clone() });
        Ok(())
    }

    /// Adds what is in a known_hosts file. Lines that cannot be read are counted, for messages.
    ///
    /// # Errors
    /// Where it is longer than [`LONGEST`].
    pub fn add_known_hosts(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > LONGEST {
            return Err(format!(
                "it has {} bytes, and known hosts may have {LONGEST}: put the lines of these hosts into a key of their own",
                bytes.len()
            ));
        }
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((marker, hosts, key)) = entry(line) else {
                self.unreadable += 1;
                continue;
            };
            let fits: Vec<bool> = self.names.iter().map(|name| hosts.contain(name)).collect();
            if fits.contains(&true) {
                self.entries.push(Entry { marker, fits, key });
            } else {
                self.others += 1;
            }
        }
        Ok(())
    }

    fn marked(&self, marker: Marker) -> impl Iterator<Item = &KeyData> {
        let known = |at: &usize| self.entries.iter().any(|e| e.marker != Marker::Revoked && e.fits[*at]);
        let first = (0..self.names.len()).find(known).unwrap_or_default();
        // What is revoked under either name is.
        let fits = move |entry: &&Entry| entry.marker == marker && (marker == Marker::Revoked || entry.fits[first]);
        self.entries.iter().filter(fits).map(|entry| &entry.key)
    }

    /// The kinds of plain keys and of certificates to negotiate, the preferred first. Kinds of which a key is pinned come
    /// first, so that a host with several keys shows that one; the others follow so that a host without shows what it has.
    /// Certificates are asked for where an authority is trusted for the host.
    pub fn kinds(&self) -> (Vec<Algorithm>, Vec<Algorithm>) {
        let pinned: Vec<Algorithm> = self.marked(Marker::Key).map(KeyData::algorithm).collect();
        let mut keys = KINDS.to_vec();
        keys.sort_by_key(|kind| !pinned.contains(kind));
        let certificates = if self.marked(Marker::Authority).next().is_some() { KINDS.to_vec() } else { Vec::new() };
        (keys, certificates)
    }

    /// Judges a plain key.
    ///
    /// # Errors
    /// Where it is not trusted for this host.
    pub fn judge_key(&self, offered: &KeyData) -> Result<(), Refusal> {
        self.judge_revoked(offered)?;
        // One of a kind that cannot be checked says nothing about the others.
        let checked = |key: &&KeyData| KINDS.contains(&key.algorithm());
        let pinned: Vec<&KeyData> = self.marked(Marker::Key).filter(checked).collect();
        if pinned.contains(&offered) {
            return Ok(());
        }
        Err(if pinned.is_empty() { self.unknown(offered) } else { changed(&pinned, offered) })
    }

    /// Judges a certificate, at a time in seconds since 1970. A key that is pinned itself is accepted as well, as OpenSSH does.
    ///
    /// # Errors
    /// Where it is not trusted for this host.
    pub fn judge_certificate(&self, offered: &Certificate, now: u64) -> Result<(), Refusal> {
        self.judge_revoked(offered.signature_key())?;
        self.judge_revoked(offered.public_key())?;
        let authorities: Vec<&KeyData> = self.marked(Marker::Authority).collect();
        let Err(why) = certificate::judge(offered, &authorities, self.host.principal(), now) else { return Ok(()) };
        if self.marked(Marker::Key).any(|pinned| pinned == offered.public_key()) {
            return Ok(());
        }
        Err(Refusal {
            reason: Reason::HostCertificateInvalid,
            message: format!("the host's certificate is refused: {why}"),
        })
    }

    fn judge_revoked(&self, key: &KeyData) -> Result<(), Refusal> {
        if !self.marked(Marker::Revoked).any(|revoked| revoked == key) {
            return Ok(());
        }
        let message = format!(
            "the key {} is marked @revoked: the host may not be used with it; give the host a new key and pin that",
            described(key)
        );
        Err(Refusal { reason: Reason::HostKeyRevoked, message })
    }

    fn unknown(&self, offered: &KeyData) -> Refusal {
        let trusted = if self.marked(Marker::Authority).next().is_some() {
            "only certificates are trusted for it, and it shows none".to_owned()
        } else if self.marked(Marker::Key).next().is_some() {
            "the keys that are trusted for it are of kinds that cannot be checked here (RSA)".to_owned()
        } else {
            match self.others + self.entries.len() {
                0 => "no host key is trusted for it".to_owned(),
                all => format!("none of the {all} entries that are trusted is for {}", self.host),
            }
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
        Refusal { reason: Reason::HostKeyUnknown, message }
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
    Refusal { reason: Reason::HostKeyChanged, message }
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

fn entry(line: &str) -> Option<(Marker, Hosts, KeyData)> {
    let (marker, rest) = marked(line)?;
    let (hosts, key) = rest.split_once(char::is_whitespace)?;
    let key = PublicKey::from_openssh(key.trim_start()).ok()?;
    Some((marker, Hosts::parse(hosts)?, key.key_data().clone()))
}

#[cfg(test)]
mod tests;
