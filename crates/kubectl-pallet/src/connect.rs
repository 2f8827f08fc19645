//! The connection, as kubectl has it: kubeconfig, context, and flags that go before them.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Api, Client, Config, Resource,
    client::ClientBuilder,
    config::{
        AuthInfo, Cluster as ClusterEntry, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
        NamedContext,
    },
    core::NamespaceResourceScope,
};
use pallet_client::answer::words;
use tower::timeout::TimeoutLayer;

use crate::{
    exit::{Error, Result},
    values,
};

/// Which cluster, and as whom.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection, as kubectl's own")]
pub struct Flags {
    /// The kubeconfig file; KUBECONFIG or ~/.kube/config by default
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The namespace; that of the context by default
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The address of the API server
    #[arg(short, long, global = true, value_name = "URL", hide_short_help = true)]
    server: Option<String>,
    /// The bearer token
    #[arg(long, global = true, value_name = "TOKEN", hide_short_help = true)]
    token: Option<String>,
    /// The user to impersonate
    #[arg(long = "as", global = true, value_name = "USER", hide_short_help = true)]
    as_user: Option<String>,
    /// A group to impersonate; may be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "as_user", hide_short_help = true)]
    as_group: Vec<String>,
    /// The UID to impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID", requires = "as_user", hide_short_help = true)]
    as_uid: Option<String>,
    /// The certificate authority's certificate, a file
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    certificate_authority: Option<PathBuf>,
    /// The client's certificate for TLS, a file
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    client_certificate: Option<PathBuf>,
    /// The client's key for TLS, a file
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    client_key: Option<PathBuf>,
    /// Does not check the server's certificate: the connection is insecure
    #[arg(long, global = true, hide_short_help = true)]
    insecure_skip_tls_verify: bool,
    /// The name that the server's certificate is checked for; that of its address by default
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    tls_server_name: Option<String>,
    /// How long one call to the API server may take, such as 10s; 0 stands for the default
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = values::duration, hide_short_help = true)]
    request_timeout: Duration,
}

const DEADLINE: Duration = Duration::from_secs(30);
/// The name of entries that the flags alone make up.
const FLAGS: &str = "flags";

/// A cluster to ask.
#[derive(Clone)]
pub struct Cluster {
    /// For calls. What it is not answered in time fails.
    pub client: Client,
    /// The namespace that all commands are about.
    pub namespace: String,
    server: String,
    deadline: Duration,
}

impl Flags {
    /// Connects. No call is made yet.
    pub async fn connect(&self) -> Result<Cluster> {
        let mut config = self.config().await?;
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let deadline = if self.request_timeout.is_zero() { DEADLINE } else { self.request_timeout };
        config.connect_timeout = Some(deadline);
        // What is kept from being made twice here is what is not idempotent: exec, and objects by generateName.
        config.default_retry = false;
        let agent = concat!("kubectl-pallet/", env!("CARGO_PKG_VERSION"));
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let unusable = |error: &(dyn std::error::Error + 'static)| {
            Error::Connection(format!("the connection to {server} cannot be set up: {}", words(error)))
        };
        let builder = ClientBuilder::try_from(config).map_err(|error| unusable(&error))?;
        let client = builder.with_layer(&TimeoutLayer::new(deadline)).build();
        Ok(Cluster { client, namespace, server: server.trim_end_matches('/').to_owned(), deadline })
    }

    async fn config(&self) -> Result<Config> {
        let mut kubeconfig = match (&self.kubeconfig, Kubeconfig::read()) {
            (Some(path), _) => Kubeconfig::read_from(path)
                .map_err(|error| Error::Connection(format!("--kubeconfig {}: {}", path.display(), words(&error))))?,
            (None, Ok(kubeconfig)) => kubeconfig,
            (None, Err(error)) if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) => {
                return Err(Error::Connection(format!("KUBECONFIG cannot be used: {}", words(&error))));
            }
            (None, Err(_)) => Kubeconfig::default(),
        };
        let chosen = self.context.is_some() || kubeconfig.current_context.as_ref().is_some_and(|name| !name.is_empty());
        if !chosen && self.server.is_none() && self.cluster.is_none() {
            return Config::incluster().map_err(|_| {
                Error::Connection(
                    "there is no cluster: no kubeconfig with a current context was found, and this is no pod; set \
                     KUBECONFIG, or give --kubeconfig, --context or --server"
                        .into(),
                )
            });
        }
        self.override_entries(&mut kubeconfig)?;
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| Error::Connection(format!("the kubeconfig cannot be used: {}", words(&error))))
    }

    /// Makes the kubeconfig say what the flags say.
    fn override_entries(&self, kubeconfig: &mut Kubeconfig) -> Result<()> {
        let named = self.context.clone().or(kubeconfig.current_context.take()).filter(|name| !name.is_empty());
        let mut context = match &named {
            None => Context { cluster: FLAGS.into(), ..Context::default() },
            Some(name) => {
                let found = kubeconfig.contexts.iter().find(|context| context.name == *name);
                found.and_then(|context| context.context.clone()).ok_or_else(|| {
                    let there: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
                    missing("context", name, &there)
                })?
            }
        };
        context.cluster = self.cluster.clone().unwrap_or(context.cluster);
        context.user = self.user.clone().or(context.user);
        let found = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let mut cluster = match found.and_then(|cluster| cluster.cluster.clone()) {
            Some(cluster) => cluster,
            None if self.server.is_some() && self.cluster.is_none() => ClusterEntry::default(),
            None => {
                let there: Vec<&str> = kubeconfig.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
                return Err(missing("cluster", &context.cluster, &there));
            }
        };
        let found = kubeconfig.auth_infos.iter().find(|user| Some(&user.name) == context.user.as_ref());
        let mut user = match found.and_then(|user| user.auth_info.clone()) {
            None if self.user.is_some() => {
                let there: Vec<&str> = kubeconfig.auth_infos.iter().map(|user| user.name.as_str()).collect();
                return Err(missing("user", self.user.as_deref().unwrap_or_default(), &there));
            }
            found => found.unwrap_or_default(),
        };
        self.override_cluster(&mut cluster);
        self.override_user(&mut user);
        context.cluster = FLAGS.into();
        context.user = Some(FLAGS.into());
        kubeconfig.current_context = Some(FLAGS.into());
        kubeconfig.contexts =
            vec![NamedContext { name: FLAGS.into(), context: Some(context), other: Default::default() }];
        kubeconfig.clusters =
            vec![NamedCluster { name: FLAGS.into(), cluster: Some(cluster), other: Default::default() }];
        kubeconfig.auth_infos =
            vec![NamedAuthInfo { name: FLAGS.into(), auth_info: Some(user), other: Default::default() }];
        Ok(())
    }

    fn override_cluster(&self, cluster: &mut ClusterEntry) {
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
        }
        if let Some(file) = &self.certificate_authority {
            cluster.certificate_authority = Some(file.display().to_string());
            cluster.certificate_authority_data = None;
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
    }

    fn override_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            // As in kubectl, a token goes before whatever else the user has.
            *user = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
        }
        if let Some(file) = &self.client_certificate {
            user.client_certificate = Some(file.display().to_string());
            user.client_certificate_data = None;
        }
        if let Some(file) = &self.client_key {
            user.client_key = Some(file.display().to_string());
            user.client_key_data = None;
        }
        if let Some(name) = &self.as_user {
            user.impersonate = Some(name.clone());
            user.impersonate_groups = (!self.as_group.is_empty()).then(|| self.as_group.clone());
            user.impersonate_uid.clone_from(&self.as_uid);
        }
    }
}

fn missing(what: &str, name: &str, there: &[&str]) -> Error {
    let there = if there.is_empty() { "none at all".to_owned() } else { there.join(", ") };
    Error::Connection(format!("the kubeconfig has no {what} {name:?}; it has {there}"))
}

impl Cluster {
    /// The objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits for an answer, for so long and no longer. `what` is what is asked, such as "get gs/web".
    pub async fn ask<T>(&self, what: impl fmt::Display, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
        // The layer of the client only waits for an answer to begin.
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.refusal(&what, &error)),
            Err(_) => Err(self.refusal(&what, &"no answer in time")),
        }
    }

    /// What an error of the client means for people.
    pub fn refusal(&self, what: &impl fmt::Display, error: &(impl Explained + ?Sized)) -> Error {
        let (what, server, namespace) = (what.to_string(), &self.server, &self.namespace);
        let Some(status) = error.status() else {
            let why = error.words();
            let late = why.contains("no answer in time") || why.contains("timed out") || why.contains("elapsed");
            let message = match late {
                true => format!(
                    "{server} did not answer within {}; --request-timeout has more patience",
                    values::wire(self.deadline)
                ),
                false => format!("{server} cannot be asked: {}", why),
            };
            return Error::Refused { what, message, code: 0 };
        };
        let said = status.message.trim();
        let message = match status.code {
            // The API server names the object where that is what is missing, and nothing where the kind is.
            404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
                format!(
                    "{server} does not know pallet.dev/v1alpha1 or this kind of it; install the definitions: kubectl apply --server-side -f crds"
                )
            }
            404 => format!("{said} in namespace {namespace:?}; look with: kubectl get gs,gn,lifts -A"),
            401 => format!(
                "{server} does not accept these credentials ({said}); log in again, or choose another --context or --user"
            ),
            // An admission policy or a quota has said all that there is to say.
            403 if !said.contains(" cannot ") => said.to_owned(),
            403 if said.contains("pods/exec") => format!("{said}; this needs the right to create pods/exec"),
            403 => format!("{said}; the ClusterRoles pallet-view, pallet-edit and pallet-admin have what is needed"),
            409 if status.reason == "AlreadyExists" => format!("{said}; choose another name, or leave it out"),
            409 => format!("{said}; if you mean it, apply with --force-conflicts"),
            _ if said.is_empty() => format!("{server} answered with {}", status.code),
            _ => said.to_owned(),
        };
        Error::Refused { what, message, code: status.code }
    }
}

/// An error that can be explained.
pub trait Explained {
    /// The API server's answer, where there was one.
    fn status(&self) -> Option<&kube::core::Status>;
    /// All that is known.
    fn words(&self) -> String;
}

impl Explained for kube::Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }
    fn words(&self) -> String {
        words(self)
    }
}

impl Explained for &str {
    fn status(&self) -> Option<&kube::core::Status> {
        None
    }
    fn words(&self) -> String {
        (*self).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig() -> Kubeconfig {
        Kubeconfig::from_yaml(
            "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u, namespace: shop}}], clusters: \
             [{name: c, cluster: {server: 'https://one:6443', certificate-authority-data: eA==}}], users: [{name: u, user: {token: t}}]}",
        )
        .unwrap()
    }

    #[test]
    fn flags_go_before_the_kubeconfig() {
        let flags = Flags {
            server: Some("https://two:6443".into()),
            insecure_skip_tls_verify: true,
            as_user: Some("jane".into()),
            as_group: vec!["ops".into()],
            as_uid: Some("42".into()),
            ..Flags::default()
        };
        let mut made = kubeconfig();
        flags.override_entries(&mut made).unwrap();
        let cluster = made.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://two:6443"));
        assert_eq!((cluster.insecure_skip_tls_verify, &cluster.certificate_authority_data), (Some(true), &None));
        let user = made.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.token.is_some());
        assert_eq!((user.impersonate.as_deref(), user.impersonate_uid.as_deref()), (Some("jane"), Some("42")));
        assert_eq!(made.contexts[0].context.as_ref().unwrap().namespace.as_deref(), Some("shop"));
    }

    #[test]
    fn an_entry_that_is_not_there_is_named_with_those_that_are() {
        let flags = Flags { context: Some("b".into()), ..Flags::default() };
        let error = flags.override_entries(&mut kubeconfig()).unwrap_err().to_string();
        assert_eq!(error, "the kubeconfig has no context \"b\"; it has a");
        let flags = Flags { user: Some("x".into()), ..Flags::default() };
        assert!(flags.override_entries(&mut kubeconfig()).unwrap_err().to_string().contains("no user \"x\""));
    }

    #[test]
    fn a_server_alone_is_enough() {
        let flags = Flags { server: Some("https://x".into()), token: Some("t".into()), ..Flags::default() };
        let mut made = Kubeconfig::default();
        flags.override_entries(&mut made).unwrap();
        assert_eq!(made.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://x"));
    }
}
