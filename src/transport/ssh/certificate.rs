//! Pure: whether a host's certificate proves who it is.

use jiff::Timestamp;
use russh::keys::{Certificate, ssh_key::public::KeyData};

use super::known_hosts::{Name, described};

/// Whether one of the authorities says that this is the host of that name, at a time in seconds since 1970.
///
/// # Errors
/// The exact reason why not, for people.
pub fn judge(certificate: &Certificate, authorities: &[&KeyData], name: &str, now: u64) -> Result<(), String> {
    let authority = certificate.signature_key();
    if !authorities.contains(&authority) {
        let trusted: Vec<String> = authorities.iter().map(|key| described(key)).collect();
        let trusted = if trusted.is_empty() { "none".to_owned() } else { trusted.join(", ") };
        return Err(format!(
            "it is signed by {}; authorities that are trusted for {name}: {trusted}",
            described(authority)
        ));
    }
    if let Err(error) = certificate.verify_signature() {
        return Err(format!("the signature by {} cannot be confirmed ({error})", described(authority)));
    }
    if !certificate.cert_type().is_host() {
        return Err(
            "it is a certificate for a user, not for a host; sign the host's key with `ssh-keygen -h`".to_owned()
        );
    }
    if now < certificate.valid_after() {
        return Err(format!("it is not valid before {}", time(certificate.valid_after())));
    }
    if now >= certificate.valid_before() {
        return Err(format!("it was valid until {}", time(certificate.valid_before())));
    }
    if !certificate.critical_options().is_empty() {
        let options: Vec<&str> = certificate.critical_options().keys().map(String::as_str).collect();
        return Err(format!("it has critical options, which hosts' certificates cannot have: {}", options.join(", ")));
    }
    let principals = certificate.valid_principals();
    let host = Name::new(name);
    if principals.iter().any(|principal| host.matches(&principal.to_ascii_lowercase())) {
        return Ok(());
    }
    let named = if principals.is_empty() { "no host at all".to_owned() } else { principals.join(", ") };
    Err(format!("it is for {named}, not for {name}; sign the host's key with `ssh-keygen -h -n {name}`"))
}

fn time(seconds: u64) -> String {
    let known = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    known.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}
