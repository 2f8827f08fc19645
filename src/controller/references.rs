//! IO: the Secrets and ConfigMaps that groups name. They are read by name, never listed or watched: of Secrets only keyed
//! hashes are kept, and their values are read again by the sessions that need them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret as KubeSecret},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::{Mutex, MutexGuard};
use sha2::Sha256;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{Error, apply::within};
use crate::{
    ports::Clock,
    run::vault::{KnownSecrets, Vault},
    transport::ssh::{Keyring, Keys, public_half},
};
use pallet_core::{
    group::{FieldError, Group, NodeShape, inputs::Inputs, resolve::is_object_name},
    phase::{action::KeyRef, hex, secret::Secret},
    target::Source,
};

/// How old what was read may get before it is read again.
#[derive(Clone, Copy, Debug)]
pub struct Polls {
    /// Of Secrets.
    pub secrets: Duration,
    /// Of ConfigMaps.
    pub config_maps: Duration,
}

impl Default for Polls {
    fn default() -> Self {
        Self { secrets: Duration::from_secs(300), config_maps: Duration::from_secs(60) }
    }
}

/// The same for what was not there.
const ABSENCE_LASTS: Duration = Duration::from_secs(10);
/// No ConfigMap's key may be longer: it travels with every run.
const LONGEST_TEXT: usize = 256 << 10;
/// What nobody has asked for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);

/// The name of the Secret in the operator's own namespace that holds the key of the seals, and the key in it.
pub const KEY_NAME: &str = "pallet-operator-seal";
const KEY_KEY: &str = "key";

/// What is read of other objects.
pub struct References {
    client: Client,
    /// The operator's own namespace.
    namespace: String,
    polls: Polls,
    clock: Arc<dyn Clock>,
    key: OnceCell<Vec<u8>>,
    read: Mutex<HashMap<Place, Read>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Secret,
    ConfigMap,
    /// A Secret with private keys, of which the public halves are kept.
    KeyPair,
}

/// An object: its kind, namespace and name.
type Place = (Kind, String, String);

/// What was read of an object, by key: a text, or the seal of a secret. Nothing where it was not there.
#[derive(Clone)]
struct Read {
    at: Instant,
    asked: Instant,
    keys: Arc<Result<BTreeMap<String, Arc<str>>, String>>,
}

impl Read {
    fn lasts(&self, kind: Kind, polls: &Polls) -> Duration {
        match (&*self.keys, kind) {
            (Err(_), _) => ABSENCE_LASTS,
            (Ok(_), Kind::Secret | Kind::KeyPair) => polls.secrets.max(Duration::from_secs(1)),
            (Ok(_), Kind::ConfigMap) => polls.config_maps.max(Duration::from_secs(1)),
        }
    }
}

/// What a group's references came to.
pub struct Found {
    /// The inputs with what was read.
    pub inputs: Inputs,
    /// What is not there, by the paths of the fields that name it.
    pub missing: Vec<FieldError>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// What is said of a group whose references could not be asked for.
pub fn unreadable(group: &Group, error: &Error) -> FieldError {
    let path =
        group.phases.config_maps.values().chain(group.phases.secrets.values()).next().cloned().unwrap_or_default();
    FieldError { path, message: format!("it could not be read: {error}: {}; it is tried again", error.explanation()) }
}

impl References {
    /// Reads by `client`; the key of the seals is kept in `namespace`.
    pub fn new(client: Client, namespace: String, polls: Polls, clock: Arc<dyn Clock>) -> Self {
        Self { client, namespace, polls, clock, key: OnceCell::new(), read: Mutex::default() }
    }

    fn since(&self, then: Instant) -> Duration {
        self.clock.instant().saturating_duration_since(then)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Place, Read>> {
        self.read.lock()
    }

    /// Reads what a group names and what is not known or too old.
    ///
    /// # Errors
    /// Where the API server could not be asked, and nothing is known from before.
    pub async fn find(&self, group: &Group, inputs: Inputs) -> Result<Found, Error> {
        let mut found = Found { inputs, missing: Vec::new(), again: None };
        for (at, path) in &group.phases.config_maps {
            match self.look(Kind::ConfigMap, &group.key.namespace, at, &mut found.again).await? {
                Ok(text) => {
                    found.inputs.texts.insert(at.clone(), text);
                }
                Err(message) => found.missing.push(FieldError { path: path.clone(), message }),
            }
        }
        for (at, path) in &group.phases.secrets {
            match self.look(Kind::Secret, &group.key.namespace, at, &mut found.again).await? {
                Ok(seal) => {
                    found.inputs.seals.insert(at.clone(), seal.to_string());
                }
                Err(message) => found.missing.push(FieldError { path: path.clone(), message }),
            }
        }
        // What is wrong with it, who opens a session says.
        if let NodeShape::Hosts(hosts) = &group.node
            && let Ok(Ok(key)) =
                self.look(Kind::KeyPair, &group.key.namespace, &hosts.access.key, &mut found.again).await
        {
            found.inputs.login_key = Some(key);
        }
        Ok(found)
    }

    /// The text of a key of a ConfigMap, or why it is not there; and when to look again.
    ///
    /// # Errors
    /// Where the API server could not be asked, and nothing is known from before.
    pub async fn text(
        &self,
        namespace: &str,
        at: &KeyRef,
    ) -> Result<(Result<Arc<str>, String>, Option<Duration>), Error> {
        let mut again = None;
        let text = self.look(Kind::ConfigMap, namespace, at, &mut again).await?;
        Ok((text, again))
    }

    /// One key: its text or seal, or why it is not there.
    async fn look(
        &self,
        kind: Kind,
        namespace: &str,
        at: &KeyRef,
        again: &mut Option<Duration>,
    ) -> Result<Result<Arc<str>, String>, Error> {
        let place = (kind, namespace.to_owned(), at.name.clone());
        let known = {
            let mut known = self.known();
            known.retain(|_, read| self.since(read.asked) < FORGOTTEN_AFTER);
            known.get_mut(&place).map(|read| {
                read.asked = self.clock.instant();
                read.clone()
            })
        };
        // A key that is missing may come as soon as an object that is.
        let lasts = |read: &Read| match &*read.keys {
            Ok(keys) if !keys.contains_key(&at.key) => ABSENCE_LASTS,
            _ => read.lasts(kind, &self.polls),
        };
        let fresh = known.as_ref().filter(|read| self.since(read.at) < lasts(read)).cloned();
        let read = match (fresh, known) {
            (Some(read), _) => read,
            (None, known) => match (self.read(kind, namespace, &at.name).await, known) {
                (Ok(read), _) => read,
                // What was read once stands while the API server has no answer.
                (Err(_), Some(known)) if known.keys.is_ok() => known,
                (Err(error), _) => return Err(error),
            },
        };
        let rest = lasts(&read).saturating_sub(self.since(read.at)).max(Duration::from_secs(1));
        *again = Some(again.map_or(rest, |again| again.min(rest)));
        let long = |text: &Arc<str>| kind == Kind::ConfigMap && text.len() > LONGEST_TEXT;
        Ok(match &*read.keys {
            Ok(keys) if keys.get(&at.key).is_some_and(long) => Err(format!(
                "the key {:?} of ConfigMap {} has more than {} KiB; make it shorter",
                at.key,
                at.name,
                LONGEST_TEXT >> 10
            )),
            Err(message) => Err(message.clone()),
            Ok(keys) => keys.get(&at.key).cloned().ok_or_else(|| {
                let known: Vec<&str> = keys.keys().map(String::as_str).take(8).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!("{kind:?} {} has no key {:?} with a text; it has {known}", at.name, at.key)
            }),
        })
    }

    async fn read(&self, kind: Kind, namespace: &str, name: &str) -> Result<Read, Error> {
        let keys = match kind {
            Kind::ConfigMap => {
                named(name)?;
                let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                match within("get configmap", maps.get_opt(name)).await {
                    Ok(map) => Ok(map.map(|map| map.data.unwrap_or_default())),
                    Err(error) => Err(error),
                }
                .map(|data| data.map(|data| data.into_iter().map(|(key, text)| (key, text.into())).collect()))
            }
            Kind::KeyPair => self.values(namespace, name).await.map(|values| {
                let public = |(name, value): (String, ByteString)| Some((name, public_half(&value.0)?.into()));
                values.map(|values| values.into_iter().filter_map(public).collect())
            }),
            Kind::Secret => match self.values(namespace, name).await {
                Ok(None) => Ok(None),
                Ok(Some(values)) => {
                    let key = self.key().await?;
                    let seal = |(name, value): (String, ByteString)| (name, seal(key, &value.0).into());
                    Ok(Some(values.into_iter().map(seal).collect()))
                }
                Err(error) => Err(error),
            },
        };
        let keys = match keys {
            Ok(Some(keys)) => Ok(keys),
            Ok(None) => Err(format!("there is no {kind:?} {name:?} in this namespace; create it, or name another")),
            Err(error) if error.code() == Some(403) => {
                Err(format!("the operator may not read {kind:?} {name:?}: {}", error.explanation()))
            }
            Err(error) => return Err(error),
        };
        let now = self.clock.instant();
        let read = Read { at: now, asked: now, keys: Arc::new(keys) };
        self.known().insert((kind, namespace.to_owned(), name.to_owned()), read.clone());
        Ok(read)
    }

    async fn values(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, ByteString>>, Error> {
        named(name)?;
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let secret = within("get secret", secrets.get_opt(name)).await?;
        Ok(secret.map(|secret| secret.data.unwrap_or_default()))
    }

    /// The key of the seals. It is made once, and outlives every operator: with another one all seals are others, and every
    /// phase with a secret runs again.
    async fn key(&self) -> Result<&[u8], Error> {
        let make = || async {
            let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.namespace);
            for _ in 0..3 {
                if let Some(found) = within("get secret", secrets.get_opt(KEY_NAME)).await? {
                    let key = found.data.and_then(|mut data| data.remove(KEY_KEY)).filter(|key| key.0.len() >= 32);
                    return key.map(|key| key.0).ok_or(Error::Unplanned("the Secret of the seals holds no key"));
                }
                let mut key = vec![0; 32];
                getrandom::fill(&mut key).map_err(|_| Error::Unplanned("the system gives no randomness"))?;
                let secret = KubeSecret {
                    metadata: kube::api::ObjectMeta { name: Some(KEY_NAME.into()), ..Default::default() },
                    data: Some([(KEY_KEY.to_owned(), ByteString(key.clone()))].into()),
                    ..KubeSecret::default()
                };
                match within("create secret", secrets.create(&PostParams::default(), &secret)).await {
                    Ok(_) => return Ok(key),
                    // Another operator was faster.
                    Err(error) if error.is_conflict() => {}
                    Err(error) => return Err(error),
                }
            }
            Err(Error::Unplanned("the key of the seals was made and removed again and again"))
        };
        self.key.get_or_try_init(make).await.map(Vec::as_slice)
    }
}

impl Keyring for References {
    /// Read anew each time, and kept nowhere.
    fn read<'a>(&'a self, namespace: &'a str, source: &'a Source) -> BoxFuture<'a, Result<Keys, String>> {
        Box::pin(async move {
            let explain = |error: Error| format!("{error}: {}", error.explanation());
            let found: Option<Keys> = match source {
                Source::Secret(at) => {
                    let values = self.values(namespace, &at.name).await.map_err(explain)?;
                    values.map(|values| values.into_iter().map(|(key, value)| (key, Zeroizing::new(value.0))).collect())
                }
                Source::ConfigMap(at) => {
                    named(&at.name).map_err(explain)?;
                    let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                    let map = within("get configmap", maps.get_opt(&at.name)).await.map_err(explain)?;
                    let texts = map.map(|map| map.data.unwrap_or_default().into_iter());
                    texts.map(|texts| texts.map(|(key, text)| (key, Zeroizing::new(text.into_bytes()))).collect())
                }
            };
            found.ok_or_else(|| format!("there is no {} {:?} in this namespace", source.kind(), source.at().name))
        })
    }
}

impl Vault for References {
    fn read<'a>(&'a self, namespace: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<KnownSecrets, String>> {
        Box::pin(async move {
            let mut known = KnownSecrets::default();
            let mut names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
            names.dedup();
            for name in names {
                let explain = |error: Error| format!("Secret {name:?}: {error}: {}", error.explanation());
                let values = self.values(namespace, name).await.map_err(explain)?;
                let values = values.ok_or_else(|| format!("there is no Secret {name:?} in this namespace"))?;
                let key = self.key().await.map_err(explain)?;
                for place in places.iter().filter(|place| place.name == name) {
                    let value =
                        values.get(&place.key).ok_or_else(|| format!("Secret {name:?} has no key {:?}", place.key))?;
                    known.seals.insert(place.clone(), seal(key, &value.0));
                    known.values.insert(place.clone(), Secret::new(value.0.clone()));
                }
                // The plan shall see what the session sees, or each would find the other's digest wrong.
                let seals = values.iter().map(|(name, value)| (name.clone(), seal(key, &value.0).into())).collect();
                let now = self.clock.instant();
                let read = Read { at: now, asked: now, keys: Arc::new(Ok(seals)) };
                self.known().insert((Kind::Secret, namespace.to_owned(), name.to_owned()), read);
            }
            Ok(known)
        })
    }
}

/// Refuses what would be another request once it is in a URL, though resolving a group has refused it before.
fn named(name: &str) -> Result<(), Error> {
    if is_object_name(name) { Ok(()) } else { Err(Error::Unplanned("this is no name of a Secret or ConfigMap")) }
}

/// A keyed hash: a plain one of a password could be guessed.
fn seal(key: &[u8], value: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(value);
    hex(&mac.finalize().into_bytes()[..16])
}
