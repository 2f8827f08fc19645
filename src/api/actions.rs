//! What an action may be: each is idempotent, and says whether it changed the node.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One action: exactly one kind.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("[has(self.exec), has(self.file), has(self.directory), has(self.symlink), has(self.package), has(self.service)].filter(x, x).size() == 1")
        .message("an action has exactly one kind: set one of exec, file, directory, symlink, package and service, and make further actions of the others")
)]
pub struct ActionFields {
    /// The action's name in receipts and errors; its kind and place by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and blanks, and begin and end with a letter or digit, such as install-nginx"))]
    pub name: Option<String>,
    /// Runs a shell script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecFields>,
    /// Writes a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFields>,
    /// Makes a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryFields>,
    /// Makes a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink: Option<SymlinkFields>,
    /// Installs or removes packages with the node's package manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageFields>,
    /// Starts, stops or enables a service with the node's service manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceFields>,
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
}

/// Writes a file, in whole and atomically, where its content, mode or owner differ.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct FileFields {
    /// Where, an absolute path; a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// What, a template.
    #[schemars(length(max = 65536))]
    pub content: String,
    /// The mode in octal; 0644 by default.
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

/// Makes a directory, with its parents, and sets its mode and owner.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct DirectoryFields {
    /// Where, an absolute path; a template. Parents that are missing are made, with mode 0755.
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

/// Makes a symbolic link, or points one that is there elsewhere. What is no link is never replaced.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct SymlinkFields {
    /// Where the link is, an absolute path; a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// Where it points, a template; it need not be there.
    #[schemars(length(min = 1, max = 4096))]
    pub target: String,
}

/// Installs or removes packages. The package manager is that of the fact `os.packageManager`: apt, apk, dnf or yum.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PackageFields {
    /// Their names, templates; a version may follow as the package manager writes it, such as `nginx=1.22.1-9` for apt.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub names: Vec<String>,
    /// `present`: installed, in whatever version. `latest`: installed, in the newest version that the node's sources have.
    /// `absent`: not installed.
    #[serde(default)]
    pub state: PackageState,
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
    validation = Rule::new("has(self.state) || has(self.enabled)").message("asks for nothing: set state, enabled or both")
)]
pub struct ServiceFields {
    /// Its name, a template, such as nginx.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// `started` and `stopped`: it runs, or not. `restarted` and `reloaded`: it is restarted or reloaded each time that the
    /// phase runs, and started where it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServiceState>,
    /// Whether it starts with the node; left as it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What is wanted of a service.
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
