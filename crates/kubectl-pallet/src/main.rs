//! `kubectl pallet`: Pallet's converge and lift on the command line.
//!
//! Decisions are pure functions with their tests beside them ([`outcome`], [`progress`], [`values`], [`names`]); the commands,
//! one a file, ask the cluster and print.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout))]

mod ack;
mod advice;
mod approve;
mod cancel;
mod completion;
mod connect;
mod converge;
mod errors;
mod exit;
mod facts;
mod follow;
mod interrupt;
mod lift;
mod logs;
mod manifest;
mod names;
mod nodes;
mod outcome;
mod output;
mod plan;
mod plan_view;
mod plan_world;
mod progress;
mod results;
mod retry;
mod selector;
mod show;
mod status;
mod values;
mod version;
mod wait;
mod watches;

use clap::{Parser, Subcommand};

use exit::{CODES, Error, Exit, Result};

/// Who applied what this command line applies.
const MANAGER: &str = "kubectl-pallet";

/// Converges groups of nodes, lifts phases on them, and tells what came of it.
///
/// A GroupSpec declares how many nodes there are and the phases that configure them; the operator keeps it so. This plugin
/// waits for it (`converge`), runs phases on demand (`lift`), shows beforehand what would happen (`plan`), and shows what
/// happened (`status`, `nodes`, `errors`, `logs`).
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-pallet",
    bin_name = "kubectl pallet",
    version,
    max_term_width = 100,
    propagate_version = false,
    disable_help_subcommand = false,
    after_help = "Run 'kubectl pallet COMMAND --help' for examples of a command.",
    after_long_help = format!("{AFTER}\n\n{CODES}")
)]
struct Cli {
    #[command(flatten)]
    connection: connect::Flags,
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Names: web, gs/web and groupspec/web are a GroupSpec; gn/web-0 is a node; lift/NAME is a Lift. A bare name is a GroupSpec,
where the command does not say otherwise.

Examples:
  kubectl pallet converge -f web.yaml          # apply it, and wait until every node is as it is declared
  kubectl pallet converge web --count 5        # two nodes more
  kubectl pallet lift web --exec uptime        # run a script on every node, and see what it prints
  kubectl pallet plan -f web.yaml              # what would happen, before it does
  kubectl pallet errors web                    # what failed, where, and what to do
  kubectl pallet logs web-0 --phase configure  # all that the phase printed";

#[derive(Subcommand, Debug)]
enum Command {
    Converge(converge::Arguments),
    Lift(Box<lift::Arguments>),
    Plan(plan::Arguments),
    Approve(approve::Arguments),
    Status(status::Arguments),
    Nodes(nodes::Arguments),
    Facts(facts::Arguments),
    Errors(errors::Arguments),
    Logs(logs::Arguments),
    Wait(wait::Arguments),
    Retry(retry::Arguments),
    Cancel(cancel::Arguments),
    Ack(ack::Arguments),
    Version(version::Arguments),
    Completion(completion::Arguments),
}

fn main() {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Error::usage(format!("no threads can be started: {error}"))),
    };
    let exit = ended.unwrap_or_else(|error| {
        if !matches!(error, Error::Closed) {
            output::tell(format!("error: {error}"));
        }
        error.exit()
    });
    // A thread may still wait for an answer at the terminal; nobody waits for it.
    std::process::exit(exit.code().into());
}

async fn run(cli: Cli) -> Result<Exit> {
    let flags = &cli.connection;
    match cli.command {
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Version(arguments) => version::run(flags, &arguments).await,
        Command::Converge(arguments) => converge::run(&flags.connect().await?, &arguments).await,
        Command::Lift(arguments) => lift::run(&flags.connect().await?, &arguments).await,
        Command::Plan(arguments) => Box::pin(plan::run(&flags.connect().await?, &arguments)).await,
        Command::Approve(arguments) => approve::run(&flags.connect().await?, &arguments).await,
        Command::Status(arguments) => status::run(&flags.connect().await?, &arguments).await,
        Command::Nodes(arguments) => nodes::run(&flags.connect().await?, &arguments).await,
        Command::Facts(arguments) => facts::run(&flags.connect().await?, &arguments).await,
        Command::Errors(arguments) => errors::run(&flags.connect().await?, &arguments).await,
        Command::Logs(arguments) => logs::run(&flags.connect().await?, &arguments).await,
        Command::Wait(arguments) => wait::run(&flags.connect().await?, &arguments).await,
        Command::Retry(arguments) => retry::run(&flags.connect().await?, &arguments).await,
        Command::Cancel(arguments) => cancel::run(&flags.connect().await?, &arguments).await,
        Command::Ack(arguments) => ack::run(&flags.connect().await?, &arguments).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples() {
        let command = Cli::command();
        command.clone().debug_assert();
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Examples:\n"), "{} has no examples", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
