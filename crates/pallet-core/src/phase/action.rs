//! Pure: one action, as it was declared and as it runs.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use pallet_api::actions::{PackageState, Presence, ServiceState};

/// One action as it was declared: its strings are templates where the field says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its name, or its kind and place; led by its ServerSpec's where it comes from one.
    pub name: String,
    /// The ServerSpec that it comes from, whose parameters it sees; none for the group's own.
    pub origin: Option<Arc<str>>,
    /// What it does.
    pub kind: ActionKind,
    /// A CEL expression: where it is false, the action is skipped.
    pub when: Option<String>,
    /// The places of the actions of which one must have changed something for this one to run.
    pub on_change_of: Vec<usize>,
    /// Whether it runs on one node of the group only.
    pub on_one_node: bool,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How often it is tried before the phase fails for it.
    pub retry: Option<Repeat>,
    /// As whom it runs, where not as the session does.
    pub run_as: Option<RunAs>,
    /// What has to succeed for a new file to be placed: a template, quoted for the shell, in which `%s` is that file.
    pub validate: Option<String>,
    /// Environment variables, by name: templates of plain text.
    pub env: Vec<(String, String)>,
}

/// As whom a script runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunAs {
    /// The user.
    pub user: String,
    /// The password that sudo asks for.
    pub password: Option<KeyRef>,
}

impl Action {
    /// An action with nothing but a name and a kind.
    pub fn new(name: impl Into<String>, kind: ActionKind) -> Self {
        Self {
            name: name.into(),
            origin: None,
            kind,
            when: None,
            on_change_of: Vec::new(),
            on_one_node: false,
            timeout: None,
            retry: None,
            run_as: None,
            validate: None,
            env: Vec::new(),
        }
    }
}

/// The secrets that actions name, each once.
pub fn secrets(actions: &[Action]) -> Vec<KeyRef> {
    let of_action = |action: &Action| match &action.kind {
        ActionKind::Exec { secret_env, .. } => secret_env.iter().map(|env| env.secret.at.clone()).collect(),
        ActionKind::SecretFile { secret, .. } => vec![secret.at.clone()],
        ActionKind::RemoteFile { secret_headers, .. } => {
            secret_headers.iter().map(|env| env.secret.at.clone()).collect()
        }
        _ => Vec::new(),
    };
    let passwords = actions.iter().filter_map(|action| action.run_as.as_ref()?.password.clone());
    let all: BTreeSet<KeyRef> = actions.iter().flat_map(of_action).chain(passwords).collect();
    all.into_iter().collect()
}

/// How often an action is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repeat {
    /// Further attempts after the first.
    pub limit: u32,
    /// The pause between two.
    pub pause: Duration,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionKind {
    /// Runs a shell script.
    Exec {
        /// A template, quoted for the shell.
        script: String,
        /// A template of plain text.
        creates: Option<String>,
        /// A template, quoted for the shell.
        unless: Option<String>,
        /// A template, quoted for the shell.
        only_if: Option<String>,
        /// Variables whose values are secrets.
        secret_env: Vec<SecretEnv>,
    },
    /// Writes a file.
    File {
        /// A template of plain text.
        path: String,
        /// What stands in it.
        content: Content,
        /// Octal, without a leading zero; empty where none is named.
        mode: String,
        /// A name or number.
        owner: Option<String>,
        /// A name or number.
        group: Option<String>,
    },
    /// Makes a directory.
    Directory {
        /// A template of plain text.
        path: String,
        /// Octal, without a leading zero.
        mode: Option<String>,
        /// A name or number.
        owner: Option<String>,
        /// A name or number.
        group: Option<String>,
    },
    /// Makes a symbolic link.
    Symlink {
        /// A template of plain text.
        path: String,
        /// A template of plain text.
        target: String,
    },
    /// Removes a file, a directory or a symbolic link.
    Removal {
        /// Which of them.
        what: Removed,
        /// A template of plain text.
        path: String,
    },
    /// Installs or removes packages.
    Package {
        /// Templates of plain text.
        names: Vec<String>,
        /// What is wanted.
        state: PackageState,
        /// How, where not as the package manager is configured.
        options: PackageOptions,
        /// The node's package manager; empty until the phase is rendered.
        manager: String,
    },
    /// Starts, stops or enables a service.
    Service {
        /// A template of plain text.
        name: String,
        /// What is wanted.
        state: Option<ServiceState>,
        /// Whether it starts with the node.
        enabled: Option<bool>,
        /// Whether nothing can start it.
        masked: Option<bool>,
        /// The node's service manager; empty until the phase is rendered.
        manager: String,
    },
    /// Keeps one line in a file.
    LineInFile {
        /// A template of plain text.
        path: String,
        /// A template of plain text.
        line: Option<String>,
        /// A template of an extended regular expression.
        matches: Option<String>,
        /// A template of an extended regular expression.
        insert_after: Option<String>,
        /// A template of an extended regular expression.
        insert_before: Option<String>,
        /// Whether the first line that matches is meant, not the last.
        first: bool,
        /// Whether the line is wanted.
        state: Presence,
        /// Whether a file that is not there is made.
        create: bool,
    },
    /// Downloads a file.
    RemoteFile {
        /// A template of plain text.
        path: String,
        /// A template of plain text.
        url: String,
        /// A template of plain text; hexadecimal.
        sha256: String,
        /// Headers whose values are secrets.
        secret_headers: Vec<SecretEnv>,
        /// Octal, without a leading zero; empty where none is named.
        mode: String,
        /// A name or number.
        owner: Option<String>,
        /// A name or number.
        group: Option<String>,
    },
    /// Adds a source of packages.
    PackageSource {
        /// What its files are called.
        name: String,
        /// For apt.
        apt: Option<AptSource>,
        /// For dnf and yum: where it is, a template, and the key.
        dnf: Option<(String, Option<String>)>,
        /// For apk: where it is, a template.
        apk: Option<String>,
        /// Whether it is wanted.
        state: Presence,
        /// The node's package manager; empty until the phase is rendered.
        manager: String,
    },
    /// Makes a user.
    User(Box<User>),
    /// Makes a group of users.
    UserGroup {
        /// A template of plain text.
        name: String,
        /// The numeric id.
        gid: Option<u32>,
        /// Whether it is one of the system's.
        system: bool,
        /// Whether it is wanted.
        state: Presence,
    },
    /// Lets a user or group run commands as another.
    Sudoer {
        /// A template of plain text.
        name: String,
        /// What tells it from other rules for the same user.
        rule: Option<String>,
        /// As whom: a template of plain text.
        run_as: String,
        /// What: templates of plain text; empty for everything.
        commands: Vec<String>,
        /// Whether no password is asked for.
        no_password: bool,
        /// Whether it is wanted.
        state: Presence,
    },
    /// Writes a file whose content is a secret.
    SecretFile {
        /// A template of plain text.
        path: String,
        /// Where the secret is.
        secret: Sealed,
        /// Octal, without a leading zero.
        mode: String,
        /// A name or number.
        owner: Option<String>,
        /// A name or number.
        group: Option<String>,
    },
    /// Stops until a person has acknowledged it.
    Manual {
        /// A template of plain text.
        message: String,
    },
    /// Runs a command at set times.
    Cron {
        /// What its file is called.
        name: String,
        /// Five fields, or a word led by '@': a template of plain text.
        schedule: String,
        /// As whom: a template of plain text.
        user: String,
        /// A template, quoted for the shell.
        command: String,
        /// Whether it is wanted.
        state: Presence,
    },
}

/// What an action removes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removed {
    /// A file, or whatever else is no directory.
    File,
    /// A directory with all that is in it.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A key of a Secret or a ConfigMap of the group's namespace.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyRef {
    /// The object.
    pub name: String,
    /// The key in it.
    pub key: String,
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.key)
    }
}

/// A secret by its place, and what tells its value from another one without telling it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// Where it is.
    pub at: KeyRef,
    /// A keyed hash over its value; empty until the phase is rendered.
    pub seal: String,
}

/// How packages are installed or removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackageOptions {
    /// Whether what they recommend is installed too.
    pub recommends: Option<bool>,
    /// Whether their configuration is removed with them.
    pub purge: bool,
    /// The release that apt prefers.
    pub release: Option<String>,
}

/// A variable, or a header, whose value is a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretEnv {
    /// The variable or header.
    pub name: String,
    /// The secret.
    pub secret: Sealed,
}

/// What stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A template of plain text; what it came to, once the phase is rendered.
    Text(String),
    /// A key of a ConfigMap, and whether it is a template.
    ConfigMap(KeyRef, bool),
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A source for apt.
#[derive(Clone, Debug, PartialEq)]
pub struct AptSource {
    /// A template of plain text.
    pub uri: String,
    /// A template of plain text.
    pub suite: String,
    /// Words.
    pub components: Vec<String>,
    /// A public key, ASCII-armored.
    pub key: Option<String>,
    /// Whether unsigned packages are taken.
    pub trusted: bool,
}

/// A user of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// A template of plain text.
    pub name: String,
    /// The numeric id.
    pub uid: Option<u32>,
    /// The primary group: a template of plain text.
    pub group: Option<String>,
    /// Further groups: templates of plain text.
    pub groups: Vec<String>,
    /// The home directory: a template of plain text.
    pub home: Option<String>,
    /// The login shell: a template of plain text.
    pub shell: Option<String>,
    /// A comment.
    pub comment: Option<String>,
    /// Whether a new one is one of the system's.
    pub system: bool,
    /// Templates of plain text; nothing where the file is left as it is.
    pub authorized_keys: Option<Vec<String>>,
    /// Whether it is wanted.
    pub state: Presence,
}

/// The package managers that there are scripts for.
pub const PACKAGE_MANAGERS: &[&str] = &["apt", "apk", "dnf", "yum"];
/// The service managers that there are scripts for.
pub const SERVICE_MANAGERS: &[&str] = &["systemd", "openrc", "sysv"];

/// The mode of a new file that names none.
pub const DEFAULT_MODE: &str = "644";
/// The mode of a secret file that names none.
pub const SECRET_MODE: &str = "600";
