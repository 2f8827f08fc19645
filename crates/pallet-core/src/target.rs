//! Pure: where a session leads. Nothing here is a secret: what is needed of one is named, and read when it is needed.

use std::{fmt, sync::Arc, time::Duration};

use crate::phase::action::KeyRef;

/// Where phases run.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// A container of a pod.
    Container(Container),
    /// A machine that is reached by SSH.
    Machine(Arc<Endpoint>),
}

/// A container in which phases run.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

/// A machine that is reached by SSH.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Endpoint {
    /// The namespace of the Secrets and ConfigMaps that it names.
    pub namespace: String,
    /// What people call it.
    pub name: String,
    /// An IP address or a DNS name.
    pub address: String,
    /// The port.
    pub port: u16,
    /// As whom to log in.
    pub user: String,
    /// Where the private key is.
    pub key: KeyRef,
    /// By what its host key is known. Without any it is refused.
    pub trust: Vec<Trust>,
    /// The host that the connection goes through.
    pub jump: Option<Box<Hop>>,
    /// How to become another user after the login.
    pub elevation: Option<Elevation>,
    /// How long it may take to connect, log in and start the shell.
    pub connect_timeout: Duration,
}

/// A host that a connection goes through.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Hop {
    /// An IP address or a DNS name.
    pub address: String,
    /// The port.
    pub port: u16,
    /// As whom to log in.
    pub user: String,
    /// Where the private key is.
    pub key: KeyRef,
    /// By what its host key is known. Without any it is refused.
    pub trust: Vec<Trust>,
}

/// By what a host key is known.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Trust {
    /// A public key as OpenSSH writes it; or, behind `@cert-authority`, one that signs host certificates.
    Key(String),
    /// A text as OpenSSH's `known_hosts`.
    KnownHosts(Source),
}

/// Where a text stands.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// In a Secret.
    Secret(KeyRef),
    /// In a ConfigMap.
    ConfigMap(KeyRef),
}

impl Source {
    /// The object, and the key in it.
    pub fn at(&self) -> &KeyRef {
        match self {
            Self::Secret(at) | Self::ConfigMap(at) => at,
        }
    }

    /// Of which kind the object is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret(_) => "Secret",
            Self::ConfigMap(_) => "ConfigMap",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyRef { name, key } = self.at();
        write!(f, "key {key} of the {} {name}", self.kind())
    }
}

/// How to become another user, by sudo.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Elevation {
    /// Who.
    pub user: String,
    /// The password that sudo asks for.
    pub password: Option<KeyRef>,
}

impl Target {
    /// Whether it is a pod's: then the agent there knows which pod it is in.
    pub fn is_container(&self) -> bool {
        matches!(self, Self::Container(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(Container { namespace, pod, container }) => write!(f, "{namespace}/{pod}/{container}"),
            Self::Machine(endpoint) => write!(f, "{}@{}:{}", endpoint.user, endpoint.address, endpoint.port),
        }
    }
}
