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
    output::print(&script(arguments.shell))?;
    Ok(Exit::Success)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    // Under the name of the file: with a blank in its name, scripts would find no command below it.
    let mut command = crate::Cli::command().bin_name("kubectl-pallet");
    clap_complete::generate(shell, &mut command, "kubectl-pallet", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    // For bash the dash in the name becomes one label where commands are looked up, and another where they are defined.
    script.replace("kubectl__subcmd__pallet", "kubectl__pallet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_below_are_completed() {
        let script = script(Shell::Bash);
        let label =
            script.lines().find_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix("__lift\"")).unwrap();
        assert!(script.contains(&format!("\n        {label}__lift)\n")), "{label}");
    }

    #[test]
    fn the_example_names_every_command() {
        for command in crate::Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(EXAMPLES.contains(command.get_name()), "{}", command.get_name());
        }
    }
}
