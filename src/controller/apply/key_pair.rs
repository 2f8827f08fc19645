//! Key pairs for virtual machines: Ed25519, made from the operating system's randomness.

use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};

use super::Error;

/// A key pair as OpenSSH writes it. It has no `Debug`: the private half is for one Secret only.
pub(super) struct KeyPair {
    /// The private key.
    pub private: String,
    /// The public key.
    pub public: String,
}

impl KeyPair {
    /// A new one.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::Unplanned("the system gives no randomness"))?;
        Self::of(&PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
    }

    /// That of a private key; nothing where it is none.
    pub fn read(private: &str) -> Option<Self> {
        Self::of(&PrivateKey::from_openssh(private).ok()?).ok()
    }

    fn of(key: &PrivateKey) -> Result<Self, Error> {
        const UNWRITABLE: Error = Error::Unplanned("a key pair that cannot be written down");
        let private = key.to_openssh(LineEnding::LF).map_err(|_| UNWRITABLE)?.to_string();
        let public = key.public_key().to_openssh().map_err(|_| UNWRITABLE)?;
        Ok(Self { private, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_new_each_time_and_is_read_back() {
        let (one, two) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        assert_ne!(one.private, two.private);
        assert!(one.public.starts_with("ssh-ed25519 ") && one.private.contains("OPENSSH PRIVATE KEY"));
        assert_eq!(KeyPair::read(&one.private).unwrap().public, one.public);
        assert!(KeyPair::read("no key").is_none());
    }
}
