//! Pure: private keys, passwords and certificates as they stand in Secrets.

use russh::keys::{self, Algorithm, Certificate, HashAlg, PrivateKey};

/// A private key in the OpenSSH or the PKCS#8 format.
///
/// # Errors
/// Why it cannot be used, for people, and what to do. No part of the key is in it.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKey, String> {
    const MAKE: &str = "make one with `ssh-keygen -t ed25519 -N ''`";
    let text = std::str::from_utf8(bytes).map_err(|_| format!("it is no text; {MAKE}"))?;
    let has = |part: &str| text.contains(part);
    let encrypted =
        "it is encrypted: store it without a passphrase (`ssh-keygen -p -N ''`), the Secret is what protects it";
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(encrypted.to_owned());
    }
    if has("BEGIN RSA PRIVATE KEY") {
        return Err(unsupported(&Algorithm::Rsa { hash: None }));
    }
    if has("PuTTY-User-Key-File") {
        return Err("it is in PuTTY's format: convert it with `puttygen KEY -O private-openssh-new`".to_owned());
    }
    if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.trim_start().starts_with(kind)) {
        return Err("it is a public key: the Secret needs the private one, the file without .pub".to_owned());
    }
    let key = match keys::decode_secret_key(text, None) {
        Ok(key) => key,
        Err(keys::Error::KeyIsEncrypted) => return Err(encrypted.to_owned()),
        Err(keys::Error::UnknownAlgorithm(_) | keys::Error::UnsupportedKeyType { .. }) => {
            return Err(format!("it is of a kind that is not supported (ed25519 and ecdsa are); {MAKE}"));
        }
        // What the parser says may quote what it has read.
        Err(_) => return Err(format!("it is no private key in the OpenSSH or the PKCS#8 format; {MAKE}")),
    };
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        other => Err(unsupported(&other)),
    }
}

/// The public half of a private key as OpenSSH writes it, without a comment; nothing where it is no key that can be used.
pub fn public_half(bytes: &[u8]) -> Option<String> {
    let line = private_key(bytes).ok()?.public_key().to_openssh().ok()?;
    Some(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn unsupported(kind: &Algorithm) -> String {
    let why = match kind {
        Algorithm::Rsa { .. } => {
            ": the implementation of RSA that there is for this operator leaks keys by its timing (RUSTSEC-2023-0071)"
        }
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => ": it needs a token that somebody touches",
        _ => "",
    };
    format!("{kind} keys are not supported{why}; make one with `ssh-keygen -t ed25519 -N ''`")
}

/// The certificate that stands beside a private key.
///
/// # Errors
/// Why it cannot be used with this key, for people.
pub fn certificate(bytes: &[u8], key: &PrivateKey) -> Result<Certificate, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let certificate = Certificate::from_openssh(text.trim()).map_err(|error| {
        format!("it is no OpenSSH certificate such as `ssh-ed25519-cert-v01@openssh.com AAAA...` ({error})")
    })?;
    if certificate.public_key() != key.public_key().key_data() {
        let [of, own] = [certificate.public_key().fingerprint(HashAlg::Sha256), key.fingerprint(HashAlg::Sha256)];
        return Err(format!("it is for the key {of}, but the private key beside it is {own}: sign that one"));
    }
    Ok(certificate)
}

/// A password as it is typed: without the line break at the end that editors leave.
///
/// # Errors
/// Why it cannot be one, for people. No part of it is in it.
pub fn password(bytes: &[u8]) -> Result<&[u8], String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err("it has more than one line".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
