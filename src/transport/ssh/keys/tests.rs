use russh::keys::{EcdsaCurve, encode_pkcs8_pem, encode_pkcs8_pem_encrypted, key::safe_rng, ssh_key::LineEnding};

use super::*;

const ECDSA: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 };

fn made(kind: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), kind).unwrap()
}

#[test]
fn keys_are_read_in_both_formats() {
    for kind in [Algorithm::Ed25519, ECDSA] {
        let key = made(kind);
        let openssh = key.to_openssh(LineEnding::LF).unwrap();
        let crlf = key.to_openssh(LineEnding::CRLF).unwrap();
        let mut pkcs8 = Vec::new();
        encode_pkcs8_pem(&key, &mut pkcs8).unwrap();
        for text in [openssh.as_bytes(), openssh.trim_end().as_bytes(), crlf.as_bytes(), &pkcs8] {
            assert_eq!(private_key(text).unwrap().public_key().key_data(), key.public_key().key_data());
        }
    }
}

#[test]
fn what_is_no_usable_key_is_refused_with_the_remedy_and_without_quoting_it() {
    let key = made(Algorithm::Ed25519);
    let encrypted = key.encrypt(&mut safe_rng(), "geheim").unwrap().to_openssh(LineEnding::LF).unwrap();
    let mut pkcs8 = Vec::new();
    encode_pkcs8_pem_encrypted(&key, b"geheim", 10, &mut pkcs8).unwrap();
    let public = key.public_key().to_openssh().unwrap();
    let whole = key.to_openssh(LineEnding::LF).unwrap();
    let torn = whole.replace("b3BlbnNzaC1rZXk", "b3BlbnNzaC1rZXx");
    for (bytes, expected) in [
        (encrypted.as_bytes(), "without a passphrase"),
        (&pkcs8, "without a passphrase"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nAAAA", "without a passphrase"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "RUSTSEC-2023-0071"),
        (b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n", "no private key"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "puttygen"),
        (public.as_bytes(), "public key"),
        (torn.as_bytes(), "no private key"),
        (b"", "no private key"),
        (b"hunter2", "no private key"),
        (b"\xff\xfe", "no text"),
    ] {
        let message = private_key(bytes).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(!message.contains("hunter2") && !message.contains("AAAA"), "{message}");
    }
}

#[test]
fn a_password_is_one_line() {
    for (bytes, expected) in [
        (&b"geheim"[..], Some("geheim")),
        (b"geheim\n", Some("geheim")),
        (b"geheim\r\n", Some("geheim")),
        (b" a b ", Some(" a b ")),
        (b"", None),
        (b"\n", None),
        (b"a\nb", None),
        (b"a\0b", None),
        (b"a\n\n", None),
    ] {
        assert_eq!(password(bytes).ok(), expected.map(str::as_bytes), "{bytes:?}");
    }
}
