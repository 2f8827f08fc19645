//! `facts`: what is known of nodes.

use std::collections::BTreeMap;

use clap::Args;
use pallet_api::GroupNode;
use serde_json::Value;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    names::{self, Kind, Target},
    nodes,
    output::{self, Format, Table, clean, line},
};

/// Shows the facts of a node, or of all nodes of a group
///
/// Facts are those that were read when settings last ran on the node, or at the last look for drift: those that change by
/// themselves, such as free memory, are as old.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A node or a group: web-0, gn/web-0, web, gs/web. A bare name is a node where there is one of that name
    #[arg(value_name = "NODE|GROUP")]
    name: String,
    /// A fact, such as os.family
    #[arg(value_name = "FACT")]
    fact: Option<String>,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet facts web-0                  # all facts of a node
  kubectl pallet facts web os.version         # one fact of all nodes of a group
  kubectl pallet facts web-0 addresses -o json
  kubectl pallet facts web -o yaml";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let (nodes, single) = find(cluster, &arguments.name).await?;
    let wanted = arguments.fact.as_deref();
    if let Some(wanted) = wanted
        && !nodes.is_empty()
        && nodes.iter().all(|node| look(node, wanted).is_none())
    {
        let known: Vec<String> = nodes.iter().flat_map(|node| flat(&facts(node))).map(|(name, _)| name).collect();
        let known: std::collections::BTreeSet<String> = known.into_iter().collect();
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none yet: settings has not run".to_owned() } else { known };
        return Err(Error::Missing(format!("{} has no fact {wanted:?}; it has {known}", arguments.name)));
    }
    let of = |node: &GroupNode| match wanted {
        Some(wanted) => look(node, wanted).unwrap_or_default(),
        None => facts(node),
    };
    match arguments.output {
        Some(Format::Name) => {
            nodes.iter().try_for_each(|node| line(format!("{}/{}", Kind::Node.full(), name(node))))?
        }
        Some(format @ (Format::Json | Format::Yaml)) => {
            let value = match (single, nodes.first()) {
                (true, Some(node)) => of(node),
                _ => nodes.iter().map(|node| (name(node), of(node))).collect::<serde_json::Map<_, _>>().into(),
            };
            output::data(&value, format)?;
        }
        _ => print(&nodes, single, wanted, of)?,
    }
    Ok(Exit::Success)
}

fn print(nodes: &[GroupNode], single: bool, wanted: Option<&str>, of: impl Fn(&GroupNode) -> Value) -> Result<()> {
    if let (true, Some(node), Some(_)) = (single, nodes.first(), wanted) {
        return match of(node) {
            value @ (Value::Object(_) | Value::Array(_)) => rows(&value).iter().try_for_each(|(name, value)| {
                line(if name.is_empty() { value.clone() } else { format!("{name}: {value}") })
            }),
            value => line(text(&value)),
        };
    }
    let mut table = if single { Table::new(&["FACT", "VALUE"]) } else { Table::new(&["NODE", "FACT", "VALUE"]) };
    for node in nodes {
        for (fact, value) in rows(&of(node)) {
            let fact = match (wanted, fact.as_str()) {
                (Some(wanted), "") => wanted.to_owned(),
                (Some(wanted), fact) => format!("{wanted}.{fact}"),
                (None, fact) => fact.to_owned(),
            };
            let mut row = vec![fact.into(), value.into()];
            if !single {
                row.insert(0, name(node).into());
            }
            table.row(row);
        }
    }
    output::print(&table.render(output::colours()))
}

async fn find(cluster: &Cluster, text: &str) -> Result<(Vec<GroupNode>, bool)> {
    let target = names::parse(text, Kind::Node, &[Kind::Node, Kind::Group])?;
    let explicit = text.contains('/');
    if target.kind == Kind::Node {
        let found = cluster.ask(format!("get {target}"), cluster.api::<GroupNode>().get_opt(&target.name)).await?;
        match found {
            Some(node) => return Ok((vec![node], true)),
            None if explicit => {
                return Err(Error::Missing(format!(
                    "there is no node {:?} in namespace {:?}; see: kubectl pallet nodes",
                    target.name, cluster.namespace
                )));
            }
            None => {}
        }
    }
    let group = [Target::group(&target.name).name];
    let found = nodes::of_groups(cluster, &group).await.map_err(|error| match error.is_not_found() && !explicit {
        true => Error::Missing(format!(
            "there is neither a node nor a group {text:?} in namespace {:?}; see: kubectl pallet nodes",
            cluster.namespace
        )),
        false => error,
    })?;
    Ok((found, false))
}

fn name(node: &GroupNode) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

fn facts(node: &GroupNode) -> Value {
    let facts = node.status.as_ref().map(|status| status.facts.clone()).unwrap_or_default();
    facts.into_iter().collect::<serde_json::Map<_, _>>().into()
}

/// A fact by its path.
fn look(node: &GroupNode, path: &str) -> Option<Value> {
    let all = facts(node);
    let found = path.split('.').try_fold(&all, |value, part| value.get(part));
    found.cloned()
}

fn rows(value: &Value) -> Vec<(String, String)> {
    flat(value)
}

/// Objects become paths; all else is a value.
fn flat(value: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, rows: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, rows);
                }
            }
            value => {
                rows.insert(path.to_owned(), text(value));
            }
        }
    }
    let mut rows = BTreeMap::new();
    if *value != Value::Object(serde_json::Map::new()) {
        walk("", value, &mut rows);
    }
    rows.into_iter().collect()
}

/// A value in a line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_rows_by_their_paths() {
        let facts =
            json!({"os": {"family": "debian", "version": "12"}, "addresses": ["10.0.0.1", "10.0.0.2"], "rack": null});
        let rows = flat(&facts);
        let shown: Vec<String> = rows.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["addresses=10.0.0.1, 10.0.0.2", "os.family=debian", "os.version=12", "rack=null"]);
        assert!(flat(&json!({})).is_empty());
    }
}
