//! Where sessions have the secrets from that their phases need.

use futures::future::BoxFuture;

use pallet_core::phase::action::KeyRef;
pub use pallet_core::session::secrets::KnownSecrets;

/// Reads secrets. They are asked for by every session anew, and kept by none beyond its end.
pub trait Vault: Send + Sync {
    /// The secrets at these places of a namespace, with their seals.
    ///
    /// # Errors
    /// For people: which one cannot be had, and why.
    fn read<'a>(&'a self, namespace: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<KnownSecrets, String>>;
}

/// A vault for groups without secrets.
pub struct Empty;

impl Vault for Empty {
    fn read<'a>(&'a self, _: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<KnownSecrets, String>> {
        let result = match places.first() {
            Some(place) => Err(format!("there is no Secret {place}")),
            None => Ok(KnownSecrets::default()),
        };
        Box::pin(std::future::ready(result))
    }
}
