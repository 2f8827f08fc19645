//! What an action may be: each is idempotent, and says whether it changed the node.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodes::ElevationFields;

/// One action: exactly one kind, and what all kinds have in common.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.exec), has(self.file), has(self.directory), has(self.symlink), has(self.lineInFile), has(self.remoteFile), has(self.package), has(self.packageSource), has(self.service), has(self.user), has(self.group), has(self.sudoer), has(self.cron), has(self.secretFile), has(self.manual)].filter(x, x).size() == 1")
        .message("an action has exactly one kind: set one of exec, file, directory, symlink, lineInFile, remoteFile, package, packageSource, service, user, group, sudoer, cron, secretFile and manual, and make further actions of the others")
)]
pub struct ActionFields {
    /// The action's name in phase results and errors, and in `onChangeOf`; its kind and place by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and blanks, and begin and end with a letter or digit, such as install-nginx"))]
    pub name: Option<String>,
    /// A CEL expression over `facts`, `settings`, `params`, `node` and `group`, such as `facts.os.family == 'debian'`: where
    /// it is false the action is skipped. Facts that change by themselves may be used; their change alone runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Names of actions before this one in the phase: it runs only where one of them has changed something since this phase
    /// last succeeded on the node. Those of a ServerSpec are named SPEC/NAME from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 127)))]
    pub on_change_of: Vec<String>,
    /// Runs it on one node of the group only: the one with the lowest ordinal that the group has or is about to have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_one_node: bool,
    /// How long one attempt at the action may take, such as 90s; then its processes are ended and it has failed. Without
    /// it the timeout of the phase is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::converge::duration_schema")]
    pub timeout: Option<String>,
    /// How often the action is tried before the phase fails for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ActionRetryFields>,
    /// As whom an `exec` runs, its guards included, where not as the session does: by `su` where that is root, else by `sudo`.
    /// What runs can be ended only by who may signal it: to become root, rather set `become` of the node.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// Environment variables of a `package`, `packageSource` or `remoteFile`, such as `https_proxy`. They are in phase results and
    /// logs: no credentials belong in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvFields>,
    /// Runs a shell script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecFields>,
    /// Writes a file with its content, owner and mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFields>,
    /// Creates a directory with its owner and mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryFields>,
    /// Creates a symbolic link to a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink: Option<SymlinkFields>,
    /// Keeps one line in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_in_file: Option<LineInFileFields>,
    /// Downloads a file and verifies its checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_file: Option<RemoteFileFields>,
    /// Installs or removes packages with the node's package manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageFields>,
    /// Adds a source of packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_source: Option<PackageSourceFields>,
    /// Starts, stops or enables a service with the node's service manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceFields>,
    /// Creates, changes or removes a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserFields>,
    /// Creates or removes a group of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserGroupFields>,
    /// Lets a user or group run commands as another by sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudoer: Option<SudoerFields>,
    /// Runs a command at set times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronFields>,
    /// Writes a file whose content is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<SecretFileFields>,
    /// Stops the phase until a person has acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualFields>,
}

/// One environment variable.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct EnvFields {
    /// The variable's name: in upper case, or that of a proxy, such as `https_proxy`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Z_][A-Z0-9_]*|[a-z]+_proxy)$')")
        .message("must consist of upper-case letters, digits and '_', such as HTTPS_PROXY, or be that of a proxy, such as https_proxy"))]
    pub name: String,
    /// The variable's value, a template.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A step that a person takes. The phase ends here, with the outcome Waiting, and goes on behind it when the annotation
/// `pallet.dev/ack` of the GroupNode names the run that waits; the condition of the node says how.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ManualFields {
    /// What is to be done, for people; a template.
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
}

/// The name of an object, which is put into URLs: a DNS subdomain. A pattern rather than a CEL rule, of whose cost the
/// definitions have little left.
pub(super) const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The key of a Secret or ConfigMap.
pub(super) const KEY: &str = r"^[-._a-zA-Z0-9]+$";
const NAME_OR_TEMPLATE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$|\{\{|\{%";
const KEY_OR_TEMPLATE: &str = r"^[-._a-zA-Z0-9]+$|\{\{|\{%";

/// A key of a Secret or a ConfigMap of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct KeyFields {
    /// The object's name, such as `app-config`; in a ServerSpec a template over `params`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_OR_TEMPLATE))]
    pub name: String,
    /// The key in it, such as `tls.crt`; in a ServerSpec a template over `params`.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_OR_TEMPLATE))]
    pub key: String,
}

/// How often an action is tried.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ActionRetryFields {
    /// Further attempts after the first.
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// The pause between two attempts.
    #[serde(default = "five_seconds")]
    #[schemars(schema_with = "super::converge::duration_schema")]
    pub pause: String,
}

fn five_seconds() -> String {
    "5s".into()
}

/// Whether something is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is to be there.
    #[default]
    Present,
    /// It is not to be there.
    Absent,
}

/// Runs a POSIX shell script. It counts as changed when it ran, unless a guard kept it from running.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFields {
    /// The script, a template. What is put in is quoted for the shell; `| raw` leaves it as it is.
    #[schemars(length(min = 1, max = 65536))]
    pub script: String,
    /// A path: the script runs only while nothing is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub creates: Option<String>,
    /// A script: the action runs only where this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub unless: Option<String>,
    /// A script: the action runs only where this succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub only_if: Option<String>,
    /// Environment variables of the script and its guards whose values are secrets. They travel beside the script, stand in
    /// no status, event, log or digest, and are masked in what is printed. When a value changes, the phase runs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secret_env: Vec<SecretEnvFields>,
}

/// One environment variable whose value is a secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretEnvFields {
    /// The name of the environment variable.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')")
        .message("must be the name of a shell variable: letters, digits and '_', such as DB_PASSWORD"))]
    pub name: String,
    /// Where its value is.
    pub secret_key_ref: KeyFields,
}

/// Writes a file whose content is a secret. It is never shown, in diffs neither.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFileFields {
    /// Where, an absolute path; a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// The key of the Secret whose value is written.
    pub secret_key_ref: KeyFields,
    /// The mode in octal; 0600 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0600 or 440"))]
    pub mode: Option<String>,
    /// The owner, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// The group, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// A script, a template, that has to succeed before a new content takes its place; in it `%s` is the file that holds it, as in
    /// `sshd -t -f %s`. Otherwise the action fails, and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
}

/// Writes a file, in whole and atomically, where its content, mode or owner differ.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.state) && self.state == 'absent') || has(self.content) != has(self.contentFrom)").message("a file has exactly one content: set content or contentFrom"),
    validation = Rule::new("!has(self.state) || self.state == 'present' || ![has(self.content), has(self.contentFrom), has(self.mode), has(self.owner), has(self.group), has(self.validate)].exists(x, x)").message("absent takes path only: remove the other fields")
)]
pub struct FileFields {
    /// Where it is written: an absolute path, a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// What stands in it, a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub content: Option<String>,
    /// What, from another object, in place of `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_from: Option<ContentFields>,
    /// The mode in octal; 0644 for a new file by default, and as it is for one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0644 or 755"))]
    pub mode: Option<String>,
    /// The owner, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// The group, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// A script, a template, that has to succeed before a new content takes its place; in it `%s` is the file that holds it, as in
    /// `sshd -t -f %s`. Otherwise the action fails, and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
    /// `present`: it is there. `absent`: it is not, nor a link of that name; nothing but `path` may be set then.
    #[serde(default)]
    pub state: Presence,
}

/// A content that stands in another object of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentFields {
    /// A key of a ConfigMap. A change of it is noticed within a minute or two.
    pub config_map_key_ref: KeyFields,
    /// Whether it is a template; as it is by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
}

/// Makes a directory, with its parents, and sets its mode and owner.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("!has(self.state) || self.state == 'present' || ![has(self.mode), has(self.owner), has(self.group)].exists(x, x)").message("absent takes path only: remove the other fields")
)]
pub struct DirectoryFields {
    /// Where it is made: an absolute path, a template. Parents that are missing are made, with mode 0755, and belong to `owner` and
    /// `group`, too.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// The mode in octal; 0755 for a new directory by default, and as it is for one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0755 or 1777"))]
    pub mode: Option<String>,
    /// The owner, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// The group, by name or number; left as it is by default; a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// `present`: it is there. `absent`: it is not, with all that is in it; nothing but `path` may be set then, of at least two parts.
    #[serde(default)]
    pub state: Presence,
}

/// Makes a symbolic link, or points one that is there elsewhere. What is no link is never replaced.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.target) != (has(self.state) && self.state == 'absent')").message("a link that is there has a target, and one that is absent has none")
)]
pub struct SymlinkFields {
    /// Where the link is, an absolute path; a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Where it points, a template; it need not be there. Needed but for `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub target: Option<String>,
    /// `present`: it is there. `absent`: it is not; nothing but `path` may be set then.
    #[serde(default)]
    pub state: Presence,
}

/// Installs or removes packages. The package manager is that of the fact `os.packageManager`: apt, apk, dnf or yum.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageFields {
    /// The packages' names, templates; a version may follow as the package manager writes it, such as `nginx=1.22.1-9`,
    /// `nginx=1.22.*` or `nginx/bookworm-backports` for apt. No pattern, group or task is accepted as a name, and no value
    /// that a template inserts may be empty.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub names: Vec<String>,
    /// `present`: installed, in whatever version. `latest`: installed, in the newest version that the node's sources have.
    /// `absent`: not installed.
    #[serde(default)]
    pub state: PackageState,
    /// Whether packages that the named ones recommend are installed too, with apt and dnf; the node's configuration decides
    /// by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_recommends: Option<bool>,
    /// With `state: absent`, removes configuration files too, with apt and apk. A package of which only these are left
    /// counts as installed then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purge: bool,
    /// The release that apt prefers for this action, such as bookworm-backports, as `apt-get -t` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_.+~/]*$')")
        .message("must be the name of a release, such as bookworm-backports"))]
    pub default_release: Option<String>,
}

/// What is wanted of packages.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageState {
    /// Installed, in whatever version.
    #[default]
    Present,
    /// Installed, in the newest version that the node's sources have.
    Latest,
    /// Not installed.
    Absent,
}

/// Starts, stops or enables a service. The service manager is that of the fact `os.serviceManager`: systemd, openrc or sysv.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.state) || has(self.enabled) || has(self.masked)").message("asks for nothing: set state, enabled or both, or masked")
)]
pub struct ServiceFields {
    /// Its name, a template, such as nginx.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// `started` and `stopped`: it runs, or not. `restarted` and `reloaded`: it is restarted or reloaded each time that the
    /// phase runs, and started where it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServiceState>,
    /// Whether it starts with the node; left as it is by default. A systemd unit that cannot be enabled, such as a static one,
    /// is accepted either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether the unit is masked, so that nothing can start it; left as it is by default. Only systemd can mask. A running
    /// unit keeps running unless `state` is `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<bool>,
}

/// `started` and `stopped`: it runs, or not. `restarted` and `reloaded`: it is restarted or reloaded each time that the
/// phase runs, and started where it did not run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It runs.
    Started,
    /// It does not run.
    Stopped,
    /// It is restarted.
    Restarted,
    /// It reads its configuration again.
    Reloaded,
}

/// Keeps one line in a file that others write too. A file is better written whole, by `file`, where it can be.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.match) || !has(self.state) || self.state == 'present' || !has(self.line)").message("absent takes either line or match: remove one of them"),
    validation = Rule::new("!has(self.insertAfter) || !has(self.insertBefore)").message("a line comes either behind or before another: remove insertAfter or insertBefore"),
    validation = Rule::new("has(self.line) || (has(self.state) && self.state == 'absent' && has(self.match))").message("line is missing: set the line that is to be there, or state: absent with match")
)]
pub struct LineInFileFields {
    /// Which file, an absolute path; a template.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// The line, a template, without a newline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub line: Option<String>,
    /// An extended regular expression (POSIX, as grep -E), a template: the last line that matches becomes the line. One that is
    /// commented out (by `#`, `;` or `//`) counts only where no other matches. Where none does, the line is added. With
    /// `state: absent`, every line that matches goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub r#match: Option<String>,
    /// An extended regular expression, a template: a line that is added comes behind the last line that matches; at the end by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub insert_after: Option<String>,
    /// An extended regular expression, a template: a line that is added comes before the first line that matches; at the end where
    /// none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub insert_before: Option<String>,
    /// Whether `match` and `insertAfter` mean the first line that matches, not the last: for programs that take the first of
    /// two settings, such as sshd.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// `present`: the line is there. `absent`: it is not.
    #[serde(default)]
    pub state: Presence,
    /// Whether a file that is not there is made, with mode 0644; otherwise the action fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// A script, a template, that has to succeed before a new content takes its place; in it `%s` is the file that holds it, as in
    /// `sshd -t -f %s`. Otherwise the action fails, and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
}

/// One header of a request whose value is a secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretHeaderFields {
    /// The header's name, such as Authorization.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must be the name of a header: letters, digits, '-' and '_', such as Authorization"))]
    pub name: String,
    /// The key of a Secret that holds the header's whole value, such as `Bearer abc`; a newline at its end is left out.
    pub secret_key_ref: KeyFields,
}

/// Downloads a file, with curl or wget, whichever the node has, and puts it in its place when its checksum is right.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteFileFields {
    /// Where it is written: an absolute path, a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Where it is taken from, a template: http, https or file. It stands in phase results and logs: no credentials belong into it.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The SHA-256 checksum of the file in hexadecimal, a template. A file that has it is not downloaded again.
    #[schemars(length(min = 1, max = 256))]
    pub sha256: String,
    /// Headers of the request whose values are secrets. They are sent to the host of `url` only, whatever it redirects to,
    /// and are in no argument, URL or file. The node needs curl for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secret_headers: Vec<SecretHeaderFields>,
    /// The mode in octal; 0644 for a new file by default, and as it is for one that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0644 or 755"))]
    pub mode: Option<String>,
    /// The owner, by name or number; left as it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// The group, by name or number; left as it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
}

/// Adds a source of packages, for the package manager of the fact `os.packageManager`. Where the node's has no entry here,
/// the action fails; `when` tells nodes apart.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.apt) || has(self.dnf) || has(self.apk)").message("names no source: set apt, dnf or apk, or more than one of them")
)]
pub struct PackageSourceFields {
    /// Its name, which its files on the node get.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as postgresql"))]
    pub name: String,
    /// The source as apt knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<AptSourceFields>,
    /// The source as dnf and yum know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnf: Option<DnfSourceFields>,
    /// The source as apk knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apk: Option<ApkSourceFields>,
    /// `present`: it is a source. `absent`: it is none any more.
    #[serde(default)]
    pub state: Presence,
}

/// A source for apt, written to /etc/apt/sources.list.d/NAME.sources.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AptSourceFields {
    /// Where it is, a template.
    #[schemars(length(min = 1, max = 2048))]
    pub uri: String,
    /// The suite, a template, such as bookworm; one that ends with a slash is a directory and has no components.
    #[schemars(length(min = 1, max = 256))]
    pub suite: String,
    /// The components, such as main.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub components: Vec<String>,
    /// The public key that signs it, ASCII-armored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub key: Option<String>,
    /// Takes packages that nobody signed. Whoever can meddle with the way to the source then owns the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
}

/// A source for dnf and yum, written to /etc/yum.repos.d/NAME.repo.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnfSourceFields {
    /// Where it is, a template.
    #[schemars(length(min = 1, max = 2048))]
    pub base_url: String,
    /// The public key that signs it, ASCII-armored. Without it nothing is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub key: Option<String>,
}

/// A source for apk, a line of /etc/apk/repositories.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ApkSourceFields {
    /// Where it is, a template.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// Makes a user, or changes one that is there.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserFields {
    /// The login name, a template.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The numeric id; the system chooses by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub uid: Option<u32>,
    /// The primary group, a template, which must be there; one of the user's own name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
    /// Further groups, templates, which must be there. Groups that are not listed are left as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    pub groups: Vec<String>,
    /// The home directory, a template; /home/NAME by default. It is made, but for a system user. One that is there and belongs to
    /// a number that no user has becomes the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub home: Option<String>,
    /// The login shell, a template, such as /bin/bash; the system chooses by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub shell: Option<String>,
    /// A comment, such as the full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub comment: Option<String>,
    /// Whether a new user is one of the system's: with a low id, and without a home directory of its own making.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Public keys, templates, that may log in by SSH: the file ~/.ssh/authorized_keys holds these and no others. Left as it
    /// is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 8192)))]
    pub authorized_keys: Option<Vec<String>>,
    /// `present`: the user is there. `absent`: it is not; its home directory stays.
    #[serde(default)]
    pub state: Presence,
}

/// Makes a group of users.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct UserGroupFields {
    /// Its name, a template.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The numeric id; the system chooses by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub gid: Option<u32>,
    /// Whether a new group is one of the system's, with a low id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// `present`: the group is there. `absent`: it is not.
    #[serde(default)]
    pub state: Presence,
}

/// Lets a user or group run commands as another, by a file in /etc/sudoers.d that was checked before it is used.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SudoerFields {
    /// Who: a user, or a group led by '%'; a template.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What tells this rule from others for the same user or group, of which each needs a file of its own: a word, which its name
    /// ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as database"))]
    pub rule: Option<String>,
    /// As whom, as sudoers writes it, a template; ALL by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub run_as: Option<String>,
    /// Which commands, templates, as sudoers writes them, with absolute paths; ALL by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)))]
    pub commands: Vec<String>,
    /// Whether no password is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_password: bool,
    /// `present`: they may. `absent`: the file of that name is gone.
    #[serde(default)]
    pub state: Presence,
}

/// Runs a command at set times, by a file in /etc/cron.d, or in a crontab where the node's cron reads none (busybox).
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct CronFields {
    /// Its name, which its file on the node gets.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as nightly-backup"))]
    pub name: String,
    /// When it runs, a template, in cron's five fields or as @daily and the like; needed but for `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,
    /// The user who runs it, a template; root by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// What runs: a template of one line for sh, quoted for the shell; a % is escaped for cron. Needed but for `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub command: Option<String>,
    /// `present`: it runs. `absent`: it does not any more.
    #[serde(default)]
    pub state: Presence,
}
