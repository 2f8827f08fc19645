//! `completion`: scripts that complete the command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    exit::{Exit, Result},
    output,
};

/// Prints a script that completes the command line in a shell
///
/// Completed are commands and flags of `kubectl-pallet`, by its own name.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(kubectl-pallet completion bash)                                   # for 'kubectl-pallet'
  kubectl-pallet completion zsh > \"${fpath[1]}/_kubectl-pallet\"
  kubectl-pallet completion fish > ~/.config/fish/completions/kubectl-pallet.fish

For 'kubectl pallet', kubectl's own completion asks an executable of the name kubectl_complete-pallet on PATH. This one
names the commands:
  cat > ~/.local/bin/kubectl_complete-pallet <<'EOF'
  #!/bin/sh
  [ $# -gt 1 ] || printf '%s\\n' ack approve cancel completion converge errors facts lift logs nodes plan retry status version wait
  echo :4
  EOF
  chmod +x ~/.local/bin/kubectl_complete-pallet";

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Cli::command(), "kubectl-pallet", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_every_command() {
        for command in crate::Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(EXAMPLES.contains(command.get_name()), "{}", command.get_name());
        }
    }
}
