//! The agent: the shell program that a session executes on a node.

use std::sync::LazyLock;

/// The part that stands on the node, as it is sent: without comments and indentation.
pub fn script() -> &'static str {
    static AGENT: LazyLock<String> = LazyLock::new(|| crate::phase::compile::stripped(include_str!("agent.sh")));
    &AGENT
}

/// What is executed on the node: a loader that reads the agent from stdin, so that it stands in no URL and no audit log.
///
/// It reads a line with the agent's length and the incarnation that is meant, then that many bytes, and not one more. Nothing is
/// traced: an environment with `SHELLOPTS=xtrace` would have bash print every secret on stderr.
pub const LOADER: &str = r#"set +xv; read -r n uid && while [ "$n" -gt 0 ]; do c=$(dd bs="$n" count=1 2>/dev/null; echo .); c=${c%.}; [ -n "$c" ] || exit 9; agent=$agent$c; n=$((n - ${#c})); done; eval "$agent""#;
