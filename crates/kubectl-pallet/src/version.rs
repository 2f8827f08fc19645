//! `version`: the plugin's, and what is installed on the server.

use clap::Args;
use k8s_openapi::{
    api::apps::v1::Deployment, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::{
    connect::Flags,
    exit::{Exit, Result},
    output::{self, Format, line, tell},
};

/// Shows the versions of the plugin, and of what is installed on the server
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only the plugin's
    #[arg(long)]
    client: bool,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet version
  kubectl pallet version --client
  kubectl pallet version -o json";

/// Runs it.
pub async fn run(flags: &Flags, arguments: &Arguments) -> Result<Exit> {
    let client = env!("CARGO_PKG_VERSION");
    let mut found = json!({"client": client});
    let mut lines = vec![format!("Client: {client}")];
    let mut exit = Exit::Success;
    if !arguments.client {
        let cluster = flags.connect().await?;
        let server = cluster.ask("ask for the version", cluster.client.apiserver_version()).await;
        match server {
            Ok(server) => {
                lines.push(format!("Kubernetes: {}", server.git_version));
                found["kubernetes"] = server.git_version.into();
            }
            Err(error) => {
                // What is known is told first.
                tell(format!("error: {error}"));
                exit = error.exit();
            }
        }
        if exit == Exit::Success {
            let mut served = Vec::new();
            let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
            for kind in ["groupspecs", "serverspecs", "groupnodes", "lifts"] {
                let name = format!("{kind}.pallet.dev");
                let known = cluster.ask(format!("get {name}"), definitions.get_opt(&name)).await;
                let told = match known {
                    Ok(Some(definition)) => versions(&definition),
                    Ok(None) => "not installed".to_owned(),
                    Err(_) => "not known: you may not read definitions".to_owned(),
                };
                lines.push(format!("{name}: {told}"));
                served.push(json!({"name": name, "versions": told}));
            }
            found["definitions"] = served.into();
            let deployments: Api<Deployment> = Api::all(cluster.client.clone());
            let labelled = ListParams::default().labels("app.kubernetes.io/name=pallet-operator");
            let operators = match cluster.ask("list deployments", deployments.list(&labelled)).await {
                Ok(deployments) => deployments.items.iter().map(operator).collect(),
                Err(_) => vec!["not known: you may not list deployments of all namespaces".to_owned()],
            };
            let told = if operators.is_empty() {
                "no Deployment found; it may run elsewhere".to_owned()
            } else {
                operators.join(", ")
            };
            lines.push(format!("Operator: {told}"));
            found["operator"] = told.into();
        }
    }
    match arguments.output {
        Some(format @ (Format::Json | Format::Yaml)) => output::data(&found, format)?,
        _ => line(lines.join("\n"))?,
    }
    Ok(exit)
}

fn versions(definition: &CustomResourceDefinition) -> String {
    let served = definition.spec.versions.iter().filter(|version| version.served);
    served.map(|version| version.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn operator(deployment: &Deployment) -> String {
    let metadata = &deployment.metadata;
    let containers = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).map(|spec| &spec.containers);
    let image = containers.and_then(|containers| containers.first()).and_then(|container| container.image.clone());
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    format!(
        "{}/{} {} ({ready} ready)",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        image.unwrap_or_default()
    )
}
