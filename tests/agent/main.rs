//! The agent tier: `crates/pallet-core/src/session/agent.sh` for real, as a child process, under busybox ash, dash and bash.
//!
//! Every case runs under each of the three. What is awaited is a condition with a deadline; what is started is ended by
//! its process ID. Cases with file systems of their own (full, read-only) mount them and need root.

mod node;

/// Makes a test of each function under each shell: `runs::dash::exit_codes`.
macro_rules! under_every_shell {
    ($($case:ident)*) => {
        under_every_shell! { @shell busybox Busybox $($case)* }
        under_every_shell! { @shell dash Dash $($case)* }
        under_every_shell! { @shell bash Bash $($case)* }
    };
    (@shell $module:ident $shell:ident $($case:ident)*) => {
        mod $module {
            $(#[test] fn $case() { super::$case(crate::node::Shell::$shell); })*
        }
    };
}

mod accounts;
mod actions;
mod conformance;
mod contents;
mod endings;
mod exchanges;
mod faults;
mod greeting;
mod kept;
mod managers;
mod output;
mod packages;
mod performing;
mod runs;
mod secrets;
mod services;
mod sessions;
mod state_dir;
