//! Sessions in flight: opened, followed and ended apart from reconcile, which never waits for a script.
//!
//! [`session`] decides (pure), [`frame`] understands the agent (pure), `agent.sh` stands on the node; this module carries
//! bytes between them, with a deadline on every wait.

pub mod frame;
pub mod session;

/// The part that stands on the node, as it is sent: without comments and indentation.
pub fn agent() -> &'static str {
    static AGENT: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| crate::phase::compile::stripped(include_str!("run/agent.sh")));
    &AGENT
}

/// What is executed on the node: a loader that reads the agent from stdin, so that it stands in no URL and no audit log.
///
/// It reads a line with the agent's length and the incarnation that is meant, then that many bytes, and not one more.
pub const LOADER: &str = r#"read -r n uid && while [ "$n" -gt 0 ]; do c=$(dd bs="$n" count=1 2>/dev/null; echo .); c=${c%.}; [ -n "$c" ] || exit 9; agent=$agent$c; n=$((n - ${#c})); done; eval "$agent""#;
