//! Actions: each is idempotent, and reports whether it changed the node.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodes::ElevationFields;

/// An action: exactly one kind, and fields that all kinds share.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.exec), has(self.file), has(self.directory), has(self.symlink), has(self.lineInFile), has(self.remoteFile), has(self.package), has(self.packageSource), has(self.service), has(self.user), has(self.group), has(self.sudoer), has(self.cron), has(self.secretFile), has(self.manual)].filter(x, x).size() == 1")
        .message("an action has exactly one kind: set one of exec, file, directory, symlink, lineInFile, remoteFile, package, packageSource, service, user, group, sudoer, cron, secretFile and manual, and move the others to further actions")
)]
pub struct ActionFields {
    /// Name of the action in results and `onChangeOf`, unique in its phase. Default: kind and index, such as `exec[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and spaces, and begin and end with a letter or digit, such as install-nginx"))]
    pub name: Option<String>,
    /// CEL expression, such as `facts.os.family == 'debian'`, over `facts`, `settings`, `params`, `node` and `group`. If false, the
    /// action is skipped. A change of volatile facts alone runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Names of earlier actions of the phase. The action runs only if one of them has changed something since the phase last
    /// succeeded on the node. Actions of a ServerSpec are named SPEC/NAME from outside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 127)))]
    pub on_change_of: Vec<String>,
    /// If true, the action runs on one node of the group only: the one with the lowest ordinal. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_one_node: bool,
    /// Longest time for one attempt, such as `90s`, from 1s to 24h. Then the node ends its processes, and the attempt fails.
    /// Default: only the timeout of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::converge::duration_schema")]
    pub timeout: Option<String>,
    /// How often the action is retried within one run of the phase. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ActionRetryFields>,
    /// Only for `exec`: user that runs script and guards, by su if the session is root, else by sudo. A timeout can end only what
    /// the session may signal: to become root, set `become` of the node. Default: `become` of the phase.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// Environment variables of a `package`, `packageSource` or `remoteFile`. Results and logs show them: use no credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvFields>,
    /// Runs a shell script, unless a guard prevents it.
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
    /// Keeps one line in a file that others may write too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_in_file: Option<LineInFileFields>,
    /// Downloads a file and verifies its checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_file: Option<RemoteFileFields>,
    /// Installs or removes packages with the node's package manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageFields>,
    /// Adds or removes a package repository of apt, dnf or apk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_source: Option<PackageSourceFields>,
    /// Starts, stops, enables or masks a service with the node's service manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceFields>,
    /// Creates, changes or removes a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserFields>,
    /// Creates or removes a group of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserGroupFields>,
    /// Allows a user or group to run commands as another user by sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudoer: Option<SudoerFields>,
    /// Runs a command on a schedule by cron.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronFields>,
    /// Writes a file whose content is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<SecretFileFields>,
    /// Stops the phase until a person acknowledges the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualFields>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct EnvFields {
    /// Variable name, such as `HTTPS_PROXY` or `https_proxy`; not `IFS` or `PALLET_*`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Z_][A-Z0-9_]*|[a-z]+_proxy)$')")
        .message("must be upper-case letters, digits and '_', such as HTTPS_PROXY, or a lower-case proxy variable, such as https_proxy"))]
    pub name: String,
    /// Value of the variable, a template.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A step for a person. The phase ends here with the outcome `Waiting`, and continues after the step when the annotation
/// `pallet.dev/ack` of the GroupNode names the waiting run. The condition of the node shows the command.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ManualFields {
    /// Instruction for the person who takes the step; a template.
    #[schemars(length(min = 1, max = 1024))]
    pub message: String,
}

/// The name of an object, which becomes part of URLs: a DNS subdomain. It is a pattern and not a CEL rule, because the definitions
/// are close to the limit of the cost of rules.
pub(super) const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The key of a Secret or ConfigMap.
pub(super) const KEY: &str = r"^[-._a-zA-Z0-9]+$";
const NAME_OR_TEMPLATE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$|\{\{|\{%";
const KEY_OR_TEMPLATE: &str = r"^[-._a-zA-Z0-9]+$|\{\{|\{%";

/// A key of a Secret or a ConfigMap of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct KeyFields {
    /// Object name, such as `app-config`; in a ServerSpec, a template over `params`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_OR_TEMPLATE))]
    pub name: String,
    /// Key in the object, such as `tls.crt`. In a ServerSpec, a template over `params`.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_OR_TEMPLATE))]
    pub key: String,
}

/// How often an action is retried.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ActionRetryFields {
    /// Number of attempts after the first, from 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// Pause between two attempts, such as `10s`, from 1s to 24h.
    #[serde(default = "five_seconds")]
    #[schemars(schema_with = "super::converge::duration_schema")]
    pub pause: String,
}

fn five_seconds() -> String {
    "5s".into()
}

/// Whether something is to exist on the node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It exists.
    #[default]
    Present,
    /// It does not exist.
    Absent,
}

/// Runs a POSIX shell script under `set -e`. The action counts as changed if the script ran.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFields {
    /// Shell script, a template: inserted values are quoted for the shell, except with the filter `raw`.
    #[schemars(length(min = 1, max = 65536))]
    pub script: String,
    /// Path, a template. If it exists, the script does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub creates: Option<String>,
    /// Script, a template, that must change nothing: if it succeeds, the action does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub unless: Option<String>,
    /// Script, a template, that must change nothing: if it fails, the action does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub only_if: Option<String>,
    /// Environment variables of the script and its guards, with values from Secrets. No status, event, log or digest contains the
    /// values, and output is masked. When a value changes, the phase runs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secret_env: Vec<SecretEnvFields>,
}

/// An environment variable with a value from a Secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretEnvFields {
    /// Name of the environment variable, such as `DB_PASSWORD`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')")
        .message("must be the name of a shell variable: letters, digits and '_', not beginning with a digit, such as DB_PASSWORD"))]
    pub name: String,
    /// Key of a Secret of the namespace that has the value.
    pub secret_key_ref: KeyFields,
}

/// Writes a file whose content is a secret. No diff shows the content.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFileFields {
    /// Absolute path of the file, a template. Its directory must exist.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Key of a Secret of the namespace whose value is the content.
    pub secret_key_ref: KeyFields,
    /// Mode in octal, such as `0440`. Default: 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0600 or 440"))]
    pub mode: Option<String>,
    /// Owner, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// Group, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// Script, a template: it must accept the new content in `%s`, as `sshd -t -f %s`, or the action fails and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
}

/// Writes a whole file atomically if its content, mode or owner differ.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.state) && self.state == 'absent') || has(self.content) != has(self.contentFrom)").message("set exactly one of content and contentFrom, or state: absent"),
    validation = Rule::new("!has(self.state) || self.state == 'present' || ![has(self.content), has(self.contentFrom), has(self.mode), has(self.owner), has(self.group), has(self.validate)].exists(x, x)").message("state: absent allows only path; remove the other fields")
)]
pub struct FileFields {
    /// Absolute path of the file, a template. Its directory must exist.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Content of the file, a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub content: Option<String>,
    /// Source of the content, instead of `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_from: Option<ContentFields>,
    /// Mode in octal, such as `0640`. Default: 0644 for a new file, unchanged for an existing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0644 or 755"))]
    pub mode: Option<String>,
    /// Owner, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// Group, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// Script, a template: it must accept the new content in `%s`, as `sshd -t -f %s`, or the action fails and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
    /// `present`: writes the file. `absent`: removes the file or link; only `path` may be set.
    #[serde(default)]
    pub state: Presence,
}

/// Content from another object of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentFields {
    /// ConfigMap key, 256 KiB at most; the operator reads it every minute by default.
    pub config_map_key_ref: KeyFields,
    /// If true, the content is a template. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
}

/// Creates a directory with its parents, and sets its mode and owner.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("!has(self.state) || self.state == 'present' || ![has(self.mode), has(self.owner), has(self.group)].exists(x, x)").message("state: absent allows only path; remove the other fields")
)]
pub struct DirectoryFields {
    /// Absolute path, a template. New parents get mode 0755 and this owner and group.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Mode in octal, such as `0750`. Default: 0755 for a new directory, unchanged for an existing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0755 or 1777"))]
    pub mode: Option<String>,
    /// Owner, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// Group, by name or number, such as `www-data`; a template. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.contains('{{') || self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
    /// `present`: creates the directory. `absent`: removes it with its content; only `path` may be set, of two parts or more.
    #[serde(default)]
    pub state: Presence,
}

/// Creates a symbolic link, or changes the target of an existing one. It never replaces anything else.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.target) != (has(self.state) && self.state == 'absent')").message("target is required, except with state: absent, which does not allow it; set or remove target")
)]
pub struct SymlinkFields {
    /// Absolute path of the link, a template. Its directory must exist.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Path that the link points to, a template: it need not exist. Required unless `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub target: Option<String>,
    /// `present`: creates the link. `absent`: removes the link; only `path` may be set.
    #[serde(default)]
    pub state: Presence,
}

/// Installs or removes packages with the package manager in the fact `os.packageManager`: apt, apk, dnf or yum.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageFields {
    /// Exact package names, templates, such as `nginx`; a version may follow, for apt as `nginx=1.22.*` or
    /// `nginx/bookworm-backports`. Patterns, groups, tasks and empty values of templates fail.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub names: Vec<String>,
    /// `present`: installed in any version. `latest`: in the newest version that the node's repositories have. `absent`: removed.
    #[serde(default)]
    pub state: PackageState,
    /// With apt and dnf, whether recommended packages are installed too. Default: as the node is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_recommends: Option<bool>,
    /// If true, `state: absent` also removes configuration files, even if only these are left. Only apt and apk. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purge: bool,
    /// With apt: the release to prefer for this action, such as `bookworm-backports`, as `apt-get -t` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_.+~/]*$')")
        .message("must be the name of a release, such as bookworm-backports"))]
    pub default_release: Option<String>,
}

/// Whether packages are to be installed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageState {
    /// Installed in any version.
    #[default]
    Present,
    /// Installed in the newest version of the node's repositories.
    Latest,
    /// Not installed.
    Absent,
}

/// Starts, stops, enables or masks a service with the service manager in the fact `os.serviceManager`: systemd, openrc or sysv.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.state) || has(self.enabled) || has(self.masked)").message("set at least one of state, enabled and masked")
)]
pub struct ServiceFields {
    /// Name of the service, a template, such as `nginx`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// State of the service; see [`ServiceState`]. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServiceState>,
    /// Whether the service starts at boot. Static systemd units are accepted either way. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Only for systemd: whether the unit is masked, so that nothing can start it. It keeps running unless `state` is `stopped`.
    /// Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<bool>,
}

/// `started`, `stopped`: the service runs, or not. `restarted`, `reloaded`: the action does this each time the phase runs, or
/// starts the service. Default: unchanged.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// The service runs.
    Started,
    /// The service does not run.
    Stopped,
    /// The service is restarted.
    Restarted,
    /// The service reads its configuration again.
    Reloaded,
}

/// Keeps one line in a file that others write too. Where possible, write the whole file with `file` instead.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.match) || !has(self.state) || self.state == 'present' || !has(self.line)").message("with state: absent, line and match exclude each other; remove one of them"),
    validation = Rule::new("!has(self.insertAfter) || !has(self.insertBefore)").message("insertAfter and insertBefore exclude each other; remove one of them"),
    validation = Rule::new("has(self.line) || (has(self.state) && self.state == 'absent' && has(self.match))").message("line is required; set line, or set match with state: absent")
)]
pub struct LineInFileFields {
    /// Absolute path of the file, a template.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// The line, a template, without a newline. Required unless `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub line: Option<String>,
    /// POSIX extended regular expression, a template. `line` replaces the last matching line (one commented out by `#`, `;` or `//`
    /// only if no other matches), or is added. `state: absent` removes all matching lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub r#match: Option<String>,
    /// POSIX extended regular expression, a template. A new line is added after its last match. Default: at the end of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub insert_after: Option<String>,
    /// POSIX extended regular expression, a template: a new line is added before its first match, or at the end without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub insert_before: Option<String>,
    /// If true, `match` and `insertAfter` use the first match, as sshd uses the first of two settings. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// `present`: adds or replaces the line. `absent`: removes it.
    #[serde(default)]
    pub state: Presence,
    /// If true, creates a missing file with mode 0644. Otherwise the action fails. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// Script, a template: it must accept the new content in `%s`, as `sshd -t -f %s`, or the action fails and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub validate: Option<String>,
}

/// A request header with a value from a Secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretHeaderFields {
    /// Name of the header, such as `Authorization`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must be the name of a header: letters, digits, '-' and '_', beginning with a letter or digit, such as Authorization"))]
    pub name: String,
    /// Key of a Secret: the whole value, such as `Bearer abc`, without a newline at its end.
    pub secret_key_ref: KeyFields,
}

/// Downloads a file with curl or wget, and puts it in place if its checksum matches.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteFileFields {
    /// Absolute path of the file, a template. Its directory must exist.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// URL of the file, a template: http, https or file. Phase results and logs show it: use no credentials.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// SHA-256 in hexadecimal, a template. A file that has it is not downloaded again.
    #[schemars(length(min = 1, max = 256))]
    pub sha256: String,
    /// Headers with values from Secrets, sent only to the host of `url`, also after redirects, and in no argument, URL or file. The
    /// node needs curl.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secret_headers: Vec<SecretHeaderFields>,
    /// Mode in octal, such as `0640`. Default: 0644 for a new file, unchanged for an existing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0644 or 755"))]
    pub mode: Option<String>,
    /// Owner, by name or number, such as `www-data`. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// Group, by name or number, such as `www-data`. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or number, such as www-data or 33: letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
}

/// Adds a package repository for the package manager in the fact `os.packageManager`. The action fails if it has no entry for that
/// package manager; use `when` to select nodes.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.apt) || has(self.dnf) || has(self.apk)").message("set at least one of apt, dnf and apk")
)]
pub struct PackageSourceFields {
    /// Name of the repository, such as `postgresql`, used for its files on the node.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as postgresql"))]
    pub name: String,
    /// Repository for apt, written to /etc/apt/sources.list.d/NAME.sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<AptSourceFields>,
    /// Repository for dnf and yum, written to /etc/yum.repos.d/NAME.repo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnf: Option<DnfSourceFields>,
    /// Repository for apk, a line of /etc/apk/repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apk: Option<ApkSourceFields>,
    /// `present`: adds the repository. `absent`: removes it.
    #[serde(default)]
    pub state: Presence,
}

/// A repository for apt, written to /etc/apt/sources.list.d/NAME.sources.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AptSourceFields {
    /// URI of the repository, a template, such as `https://apt.example.com`.
    #[schemars(length(min = 1, max = 2048))]
    pub uri: String,
    /// Suite, a template, such as `bookworm`: one that ends with a slash is a directory and has no components.
    #[schemars(length(min = 1, max = 256))]
    pub suite: String,
    /// Components of the repository, such as `main`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub components: Vec<String>,
    /// Public key that signs the repository, ASCII-armored. Default: the keys that apt trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub key: Option<String>,
    /// If true, apt accepts unsigned packages: who controls the connection to the repository controls the node. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
}

/// A repository for dnf and yum, written to /etc/yum.repos.d/NAME.repo.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnfSourceFields {
    /// Base URL of the repository, a template.
    #[schemars(length(min = 1, max = 2048))]
    pub base_url: String,
    /// Public key of the packages, ASCII-armored. Default: none, and dnf verifies no signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub key: Option<String>,
}

/// A repository for apk, a line of /etc/apk/repositories.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ApkSourceFields {
    /// URL of the repository, a template.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
}

/// Creates a user, or changes an existing one.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserFields {
    /// Login name, a template, such as `app`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Numeric user ID. Default: the system chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub uid: Option<u32>,
    /// Primary group, a template; it must exist. Default: a group with the name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
    /// Supplementary groups, templates: they must exist. The user stays in its other groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    pub groups: Vec<String>,
    /// Home directory, a template, created unless `system` is true. An existing one whose owner ID has no user becomes the user's.
    /// Default: /home/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub home: Option<String>,
    /// Login shell, a template, such as `/bin/bash`. Default: the system chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub shell: Option<String>,
    /// Comment of the user, a template, such as the full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub comment: Option<String>,
    /// If true, a new user is a system user, with a low ID and no new home directory. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Public SSH keys, templates: the whole content of ~/.ssh/authorized_keys. Default: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 8192)))]
    pub authorized_keys: Option<Vec<String>>,
    /// `present`: creates or changes the user. `absent`: removes it, but not its home directory.
    #[serde(default)]
    pub state: Presence,
}

/// Creates a group of users.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct UserGroupFields {
    /// Name of the group, a template, such as `app`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Numeric group ID. Default: the system chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967294_u32))]
    pub gid: Option<u32>,
    /// If true, a new group is a system group with a low ID. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// `present`: creates the group. `absent`: removes it.
    #[serde(default)]
    pub state: Presence,
}

/// Allows a user or group to run commands as another user, by a file in /etc/sudoers.d that visudo checks first if the node has it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SudoerFields {
    /// User, or group after a `%`, such as `%admin`; a template.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Suffix of the file name, such as `database`: for a further rule of the same user or group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as database"))]
    pub rule: Option<String>,
    /// User to run as, in the syntax of sudoers; a template. Default: ALL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub run_as: Option<String>,
    /// Commands as in sudoers, templates, with absolute paths, such as `/usr/bin/systemctl restart app`. Default: ALL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)))]
    pub commands: Vec<String>,
    /// If true, sudo asks for no password. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_password: bool,
    /// `present`: writes the rule. `absent`: removes its file.
    #[serde(default)]
    pub state: Presence,
}

/// Runs a command on a schedule, by a file in /etc/cron.d, or in a crontab if the node's cron does not read that directory
/// (busybox).
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct CronFields {
    /// Name of the job, such as `nightly-backup`, used for its file on the node.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_]*$')")
        .message("must consist of letters, digits, '-' and '_', such as nightly-backup"))]
    pub name: String,
    /// Schedule, a template: the five fields of cron, such as `30 2 * * *`, or `@daily` and the like. Required unless `state:
    /// absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,
    /// User that runs the command, a template. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// Command for sh: one line, a template, quoted for the shell, with `%` escaped. Required unless `state: absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub command: Option<String>,
    /// `present`: writes the job. `absent`: removes it.
    #[serde(default)]
    pub state: Presence,
}
