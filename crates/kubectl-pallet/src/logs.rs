//! `logs`: all that a phase printed, from the journal on its node.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use pallet_api::{
    GroupNode,
    group_node::{NodeLift, Outcome, PhaseResult},
};
use pallet_core::{
    node,
    target::{Container, Target},
};
use tokio::io::AsyncReadExt;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    names::{Kind, parse},
    output::{self, Cell, Table, tell},
    status, values,
};

/// Shows all that a phase printed on a node
///
/// The output is read from the journal on the node, by pods/exec and with your own rights. There it is not masked: secrets
/// that a script prints are seen. The journal keeps the last 1 to 4 MiB of a run, and the newest 24 to 32 runs. Without
/// --phase, --lift or --run it is the run that goes on, else the phase that failed last, else the one that ran last.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The node, such as web-0
    #[arg(value_name = "NODE")]
    node: String,
    /// The latest run of this phase
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// What this Lift ran
    #[arg(long, value_name = "LIFT")]
    lift: Option<String>,
    /// This run of the journal
    #[arg(long, value_name = "ID", conflicts_with_all = ["phase", "lift", "list"])]
    run: Option<String>,
    /// Lists the runs that the journal has
    #[arg(long, conflicts_with_all = ["phase", "lift"])]
    list: bool,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet logs web-0                              # what goes on, or failed, or ran last
  kubectl pallet logs web-0 --phase configure | less
  kubectl pallet logs web-0 --lift web-deploy-x7k2p
  kubectl pallet logs web-0 --list                       # the runs that are there
  kubectl pallet logs web-0 --run configure-0123456789abcdef0123";

/// A line of the journal may take this long to come.
const SILENCE: Duration = Duration::from_secs(60);
/// Exit codes of the script below.
const NO_JOURNAL: &str = "93";
const NO_RUN: &str = "94";

/// Reads the journal without changing it. The directory is found as the agent finds it in a pod; one that is somebody else's, or a
/// link under /tmp, is not read.
const READ: &str = r#"
user=$(id -u 2>/dev/null) || user=0
S=
for d in "${PALLET_STATE_DIR:-/var/lib/pallet}" "/var/tmp/pallet-$user" "/var/tmp/pallet-$user".* "/tmp/pallet-$user" "/tmp/pallet-$user".*; do
  [ -L "$d/filesystem-id" ] && [ -O "$d" ] || continue
  case $d in /tmp/* | /var/tmp/*) [ ! -L "$d" ] || continue ;; esac
  S=$d
  break
done
[ -n "$S" ] || exit 93
tell() {
  d=$S/runs/$1 phase=- attempt=0 word=gone s1=- s2=0 s3=0 rotated=0 old=0 new=0
  { read -r filesystem_id phase attempt rest <"$d/meta"; } 2>/dev/null
  { read -r word s1 s2 s3 <"$d/state"; } 2>/dev/null
  { read -r rotated <"$d/rotated"; } 2>/dev/null
  [ ! -f "$d/out.0" ] || old=$(wc -c <"$d/out.0")
  [ ! -f "$d/out.1" ] || new=$(wc -c <"$d/out.1")
  echo "$1 $phase $attempt $word $s1 ${s2:-0} ${s3:-0} $rotated $((old)) $((new))"
}
if [ "$1" = list ]; then
  [ -f "$S/log" ] || exit 0
  while read -r id; do tell "$id"; done <"$S/log"
else
  [ -d "$S/runs/$2" ] || exit 94
  tell "$2"
  cat "$S/runs/$2/out.0" "$S/runs/$2/out.1" 2>/dev/null
  exit 0
fi
"#;

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let name = parse(&arguments.node, Kind::Node, &[Kind::Node])?.name;
    let node = cluster.ask(format!("get gn/{name}"), cluster.api::<GroupNode>().get(&name)).await?;
    if arguments.list {
        let mut text = Vec::new();
        read(cluster, &name, &["list"], |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })
        .await?;
        let runs: Vec<Run> = String::from_utf8_lossy(&text).lines().filter_map(Run::parse).collect();
        output::print(&table(&runs).render(output::colours()))?;
        return Ok(Exit::Success);
    }
    let id = match &arguments.run {
        Some(id) => id.clone(),
        None => choose(&node, arguments.phase.as_deref(), arguments.lift.as_deref()).map_err(Error::Missing)?,
    };
    if id.is_empty() || id.contains('/') || id.starts_with('.') {
        return Err(Error::usage(format!("{id:?} is no run; see: kubectl pallet logs {name} --list")));
    }
    let mut head = Some(Vec::new());
    let mut output = output::Raw::new(std::io::stdout().is_terminal());
    read(cluster, &name, &["run", &id], |bytes| {
        let Some(collected) = head.as_mut() else { return output::bytes(&output.push(bytes)) };
        collected.extend_from_slice(bytes);
        let Some(end) = collected.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
        if let Some(run) = Run::parse(&String::from_utf8_lossy(&collected[..end])) {
            tell(format!("{name}: {run}"));
        }
        let rest = collected.split_off(end + 1);
        head = None;
        output::bytes(&output.push(&rest))
    })
    .await?;
    output::bytes(&output.finish())?;
    Ok(Exit::Success)
}

/// Runs the script above in the container in which phases run.
async fn read(
    cluster: &Cluster,
    name: &str,
    arguments: &[&str],
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let pods = cluster.api::<Pod>();
    let pod = cluster.ask(format!("get pod/{name}"), pods.get_opt(name)).await?;
    let missing = || {
        Error::Missing(format!(
            "{name} has no pod whose journal could be read: that of a host or a virtual machine is on it, in /var/lib/pallet/runs; \
             what the phase_results keep: kubectl pallet errors gn/{name}"
        ))
    };
    let Some(Target::Container(Container { container, .. })) = node::pod::observe(&pod.ok_or_else(missing)?).target
    else {
        return Err(missing());
    };
    let parameters = AttachParams {
        container: (!container.is_empty()).then_some(container),
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
        ..AttachParams::default()
    };
    let command: Vec<&str> = ["sh", "-c", READ, "sh"].iter().chain(arguments).copied().collect();
    let what = format!("exec in pod/{name}");
    let mut process = cluster.ask(&what, pods.exec(name, command, &parameters)).await?;
    let (stdout, stderr, ended) = (process.stdout(), process.stderr(), process.take_status());
    let (Some(mut stdout), Some(stderr), Some(ended)) = (stdout, stderr, ended) else {
        return Err(Error::Missing(format!("{what}: the connection has not all of its streams")));
    };
    let complaints = tokio::spawn(async move {
        let mut text = String::new();
        let _ = stderr.take(4096).read_to_string(&mut text).await;
        text
    });
    let mut buffer = vec![0; 64 << 10];
    loop {
        match tokio::time::timeout(SILENCE, stdout.read(&mut buffer)).await {
            Err(_) => return Err(Error::Missing(format!("{what}: nothing came for {}", values::wire(SILENCE)))),
            Ok(Err(error)) => return Err(Error::Missing(format!("{what}: {error}"))),
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => take(&buffer[..count])?,
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await.ok().flatten();
    let Some(ended) = ended.filter(|ended| ended.status.as_deref() != Some("Success")) else { return Ok(()) };
    let causes = ended.details.and_then(|details| details.causes).unwrap_or_default();
    let code =
        causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode")).and_then(|cause| cause.message.clone());
    let said =
        tokio::time::timeout(Duration::from_secs(1), complaints).await.ok().and_then(Result::ok).unwrap_or_default();
    Err(Error::Missing(match code.as_deref() {
        Some(NO_JOURNAL) => format!("{name} has no journal: nothing has run in this container"),
        Some(NO_RUN) => format!(
            "the journal of {name} has no run {}: it was pruned, or the container was replaced since; see: kubectl pallet logs {name} --list",
            arguments.last().unwrap_or(&"")
        ),
        _ => format!("{what}: {} {}", ended.message.unwrap_or_default(), output::clean(said.trim())),
    }))
}

/// A run as the journal tells of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Run {
    id: String,
    phase: String,
    attempt: u32,
    state: String,
    finished: i64,
    bytes: u64,
    dropped: u64,
}

impl Run {
    fn parse(line: &str) -> Option<Self> {
        let line = output::clean(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, phase, attempt, word, verdict, _began, finished, rotated, old, new] = words[..] else { return None };
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        let (old, new, rotated) = (number(old), number(new), number(rotated));
        let state = match (word, verdict.strip_prefix("exit:")) {
            ("ended", Some("0")) => "succeeded".to_owned(),
            ("ended", Some(code)) => format!("exit code {code}"),
            ("ended", None) => verdict.to_owned(),
            ("running", _) => "running".to_owned(),
            _ => "no result".to_owned(),
        };
        let finished = if word == "ended" { finished.parse().unwrap_or_default() } else { 0 };
        // What was rotated is counted in all; the last piece of it is kept.
        let dropped = rotated.saturating_sub(old);
        let attempt = attempt.parse().unwrap_or_default();
        Some(Self { id: id.into(), phase: phase.into(), attempt, state, finished, bytes: old + new, dropped })
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, attempt {}, {}, run {}", self.phase, self.attempt, self.state, self.id)?;
        if self.bytes == 0 {
            write!(f, "; it printed nothing")?;
        }
        if self.dropped > 0 {
            write!(f, "; the first {} bytes were dropped, the last {} follow", self.dropped, self.bytes)?;
        }
        Ok(())
    }
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&["RUN", "PHASE", "ATTEMPT", "RESULT", "ENDED", "BYTES", "DROPPED"]);
    for run in runs {
        let ended = k8s_openapi::jiff::Timestamp::from_second(run.finished).ok().filter(|_| run.finished > 0);
        let ended = ended
            .map(|time| format!("{} ago", status::since(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time))));
        let row: Vec<Cell> = vec![
            run.id.clone().into(),
            run.phase.clone().into(),
            run.attempt.to_string().into(),
            run.state.clone().into(),
            ended.unwrap_or_default().into(),
            run.bytes.to_string().into(),
            run.dropped.to_string().into(),
        ];
        table.row(row);
    }
    table
}

/// Which run is meant.
fn choose(node: &GroupNode, phase: Option<&str>, lift: Option<&str>) -> Result<String, String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let list = format!("see: kubectl pallet logs {name} --list");
    let status = node.status.clone().unwrap_or_default();
    let phase_results: Vec<PhaseResult> = match lift {
        None => status.phase_results.clone(),
        Some(lift) => {
            let lift = lift.rsplit('/').next().unwrap_or(lift);
            // A name may have been used before; the newest is meant.
            let part: Option<&NodeLift> = status.lifts.iter().rev().find(|part| part.name == lift);
            let known = || status.lifts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
            part.ok_or_else(|| match known().as_str() {
                "" => format!("no Lift has run on {name}"),
                known => format!("{name} knows no Lift {lift:?} any more; it knows {known}"),
            })?
            .phase_results
            .clone()
        }
    };
    if let Some(running) = status.running.as_ref().filter(|running| match phase {
        Some(phase) => running.phase == phase && lift.is_none(),
        None => lift.is_none(),
    }) {
        return Ok(running.run_id.clone());
    }
    let in_journal = |phase_result: &&PhaseResult| !phase_result.run_id.is_empty() && phase_result.phase != "test";
    let wanted = phase_results
        .iter()
        .filter(in_journal)
        .filter(|phase_result| phase.is_none_or(|phase| phase_result.phase == phase));
    let failed = |phase_result: &&&PhaseResult| matches!(phase_result.outcome, Outcome::Failed | Outcome::TimedOut);
    let wanted: Vec<&PhaseResult> = wanted.collect();
    let newest = |phase_results: Vec<&PhaseResult>| {
        phase_results.into_iter().max_by_key(|phase_result| phase_result.finished_at.0).map(|r| r.run_id.clone())
    };
    // Settings is read before everything, and what it prints is rarely what is looked for.
    let telling: Vec<&PhaseResult> =
        wanted.iter().filter(|phase_result| phase_result.phase != "settings").copied().collect();
    newest(wanted.iter().filter(failed).copied().collect())
        .or_else(|| newest(telling))
        .or_else(|| newest(wanted))
        .ok_or_else(|| match phase {
            Some("test") => format!("test runs nothing on {name}: it compares facts; see: kubectl pallet facts {name}"),
            Some(phase) => format!("{phase} has not run on {name}; {list}"),
            None => format!("nothing has run on {name}; {list}"),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn phase_result(phase: &str, outcome: &str, minute: u32) -> Value {
        json!({"phase": phase, "digest": "d", "runId": format!("{phase}-{minute}"), "attempt": 1, "outcome": outcome,
               "startedAt": "2026-01-01T00:00:00Z", "finishedAt": format!("2026-01-01T00:{minute:02}:00Z")})
    }

    fn node(status: Value) -> GroupNode {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"},
            "spec": {"group": "web", "groupUid": "u", "ordinal": 0}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn the_run_that_people_look_for_is_chosen() {
        let phase_results = [
            phase_result("bootstrap", "Succeeded", 1),
            phase_result("settings", "Succeeded", 5),
            phase_result("configure", "Succeeded", 4),
        ];
        let lift = json!({"uid": "L", "name": "x", "phaseResults": [phase_result("deploy", "Failed", 9)]});
        let well = node(json!({"phaseResults": phase_results, "lifts": [lift]}));
        assert_eq!(choose(&well, None, None).unwrap(), "configure-4");
        assert_eq!(choose(&well, Some("bootstrap"), None).unwrap(), "bootstrap-1");
        assert_eq!(choose(&well, None, Some("lift/x")).unwrap(), "deploy-9");
        assert!(choose(&well, Some("migrate"), None).unwrap_err().contains("migrate has not run on web-0"));
        assert!(choose(&well, None, Some("y")).unwrap_err().contains("it knows x"));
        let failed = node(
            json!({"phaseResults": [phase_result("configure", "Failed", 2), phase_result("other", "Succeeded", 3)]}),
        );
        assert_eq!(choose(&failed, None, None).unwrap(), "configure-2");
    }

    #[test]
    fn a_run_tells_what_was_dropped_of_it() {
        let run = Run::parse("configure-1 configure 2 ended exit:7 100 200 3000000 1048576 10").unwrap();
        assert_eq!((run.state.as_str(), run.bytes, run.dropped), ("exit code 7", 1_048_586, 1_951_424));
        assert!(run.to_string().contains("the first 1951424 bytes were dropped"));
        let run = Run::parse("configure-1 configure 1 running 77 55 0 0 0 3").unwrap();
        assert_eq!((run.state.as_str(), run.dropped, run.finished), ("running", 0, 0));
        assert!(Run::parse("garbage").is_none());
    }

    #[test]
    fn what_a_node_says_does_not_steer_the_terminal() {
        let run = Run::parse("configure-1\u{1b}]0;x\u{7} con\u{9b}2Jfigure 1 ended ex\u{1b}it:0 0 0 0 0 3").unwrap();
        assert!(!run.to_string().contains(char::is_control), "{run:?}");
        let printed = "caf\u{e9} \u{1b}[2Jred\tx\r\n\u{9b}31m \u{1f980}".as_bytes();
        let mut raw = printed.to_vec();
        raw.extend_from_slice(b"\xff\x9b end\n");
        for size in 1..raw.len() {
            let mut shown = output::Raw::new(true);
            let mut text: Vec<u8> = raw.chunks(size).flat_map(|piece| shown.push(piece)).collect();
            text.extend(shown.finish());
            let text = String::from_utf8(text).unwrap();
            assert!(text.starts_with("caf\u{e9} red\tx\n \u{1f980}") && text.ends_with(" end\n"), "{size}: {text:?}");
            let mut piped = output::Raw::new(false);
            assert_eq!(raw.chunks(size).flat_map(|piece| piped.push(piece)).collect::<Vec<_>>(), raw);
        }
    }

    /// Whoever makes a directory of that name first has no journal in it that is read.
    #[test]
    fn only_a_journal_of_ones_own_is_read() {
        let dir = std::env::temp_dir().join(format!("pallet-logs-{}", std::process::id()));
        let (own, link) = (dir.join("own"), dir.join("link"));
        std::fs::create_dir_all(own.join("runs")).unwrap();
        std::os::unix::fs::symlink("w", own.join("filesystem-id")).unwrap();
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let read = |state: &std::path::Path| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", READ, "sh", "run", "none"]).env("PALLET_STATE_DIR", state);
            shell.output().unwrap().status.code().unwrap().to_string()
        };
        let found = [read(&own), read(&link)];
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found[0], NO_RUN);
        if dir.starts_with("/tmp") {
            assert_eq!(found[1], NO_JOURNAL);
        }
    }
}
