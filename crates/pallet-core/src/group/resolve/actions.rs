//! Pure: actions.

use super::{Errors, References, layers::Layer, scope::Scope};
use crate::phase::{
    action::{
        Action, ActionKind, AptSource, Content, KeyRef, PackageOptions, Removed, Repeat, RunAs, SECRET_MODE, Sealed,
        SecretEnv, User,
    },
    budget::Budget,
    expect,
    render::{self, checks},
};
use pallet_api::actions::*;

impl Errors {
    /// One action. `before` are those of the phase that come before it.
    pub(super) fn action(
        &mut self,
        path: &str,
        place: usize,
        fields: &ActionFields,
        layer: &Layer,
        scope: &Scope,
        before: &[Action],
    ) -> Option<Action> {
        let named = (self.secrets.clone(), self.config_maps.clone());
        let before_it = named.clone();
        let kinds = [
            fields.exec.as_ref().map(|exec| ("exec", self.exec(path, exec, scope))),
            fields.file.as_ref().map(|file| ("file", self.file(path, file, scope))),
            fields.directory.as_ref().map(|directory| ("directory", self.directory(path, directory, scope))),
            fields.symlink.as_ref().map(|symlink| ("symlink", self.symlink(path, symlink, scope))),
            fields.line_in_file.as_ref().map(|line| ("lineInFile", self.line_in_file(path, line, scope))),
            fields.remote_file.as_ref().map(|remote| ("remoteFile", self.remote_file(path, remote, scope))),
            fields.package.as_ref().map(|package| ("package", self.package(path, package, scope))),
            fields.package_source.as_ref().map(|source| ("packageSource", self.package_source(path, source, scope))),
            fields.service.as_ref().map(|service| ("service", self.service(path, service, scope))),
            fields.user.as_ref().map(|user| ("user", self.user(path, user, scope))),
            fields.group.as_ref().map(|group| ("group", self.user_group(path, group, scope))),
            fields.sudoer.as_ref().map(|sudoer| ("sudoer", self.sudoer(path, sudoer, scope))),
            fields.cron.as_ref().map(|cron| ("cron", self.cron(path, cron, scope))),
            fields.manual.as_ref().map(|manual| ("manual", self.manual(path, manual, scope))),
            fields.secret_file.as_ref().map(|file| ("secretFile", self.secret_file(path, file, scope))),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let (Some((word, kind)), None) = (kinds.next(), kinds.next()) else {
            self.add(path, "an action has exactly one kind, such as exec or file; make further actions of the others");
            return None;
        };
        let name = layer.qualified(&fields.name.clone().unwrap_or_else(|| format!("{word}[{place}]")));
        if let Some(when) = &fields.when {
            let place = format!("{path}.when");
            self.expression(&place, when, &scope.for_conditions());
            // Braces may begin an object there.
            self.templates.insert(place.clone());
            match is_for_no_node(when, scope, &self.budget) {
                Ok(true) => (self.secrets, self.config_maps) = named,
                Ok(false) => {}
                Err(message) => self.add(place, message),
            }
        }
        self.added_references(&before_it);
        let mut on_change_of = Vec::new();
        for (place, source) in fields.on_change_of.iter().enumerate() {
            let named = [layer.qualified(source), source.clone()];
            match before.iter().position(|action| named.contains(&action.name)) {
                Some(source) => on_change_of.push(source),
                None => {
                    let message = format!(
                        "there is no action {source:?} before this one in the phase; name one that is, or move it up"
                    );
                    self.add(format!("{path}.onChangeOf[{place}]"), message);
                }
            }
        }
        let timeout = fields.timeout.as_ref().map(|timeout| self.duration(&format!("{path}.timeout"), timeout));
        let retry = fields.retry.as_ref().map(|retry| Repeat {
            limit: retry.limit,
            pause: self.duration(&format!("{path}.retry.pause"), &retry.pause),
        });
        if matches!(kind, ActionKind::Manual { .. }) && (timeout.is_some() || retry.is_some()) {
            self.add(format!("{path}.manual"), "a person is waited for as long as it takes; remove timeout and retry");
        }
        let (origin, when, on_one_node) = (layer.origin.clone(), fields.when.clone(), fields.on_one_node);
        let run_as = self.run_as(path, fields, &kind);
        let validate = self.validate(path, fields, scope);
        let env = self.env(path, fields, &kind, scope);
        self.no_templates(path, fields);
        Some(Action { name, origin, kind, when, on_change_of, on_one_node, timeout, retry, run_as, env, validate })
    }

    /// Refuses an action that would write over what one before it in the phase has written, both in each run.
    pub(super) fn one_file_each(&mut self, path: &str, action: &Action, scope: &Scope, before: &[Action]) {
        let (field, template, rule) = match &action.kind {
            ActionKind::Sudoer { name, rule, .. } => ("sudoer", name, rule.as_deref().unwrap_or_default()),
            ActionKind::Cron { name, .. } => ("cron", name, ""),
            _ => return,
        };
        // Conditions may tell them apart.
        let name = render::constant(&template.as_str().into(), Some(scope.params), &self.budget);
        let (None, Ok(serde_json::Value::String(name))) = (&action.when, name) else { return };
        let file = format!("{field} {name} {rule}");
        let mut kind = action.kind.clone();
        if let ActionKind::Sudoer { name: template, .. } | ActionKind::Cron { name: template, .. } = &mut kind {
            *template = name;
        }
        let same = |known: &&(String, ActionKind, String)| {
            known.2 == file && known.1 != kind && before.iter().any(|action| action.name == known.0)
        };
        if let Some((other, ..)) = self.files.iter().find(same) {
            let way = if field == "sudoer" { "rule" } else { "name" };
            let message = format!(
                "writes the file that {other:?} has written, and that one writes its own again in each run; set another {way}"
            );
            self.add(format!("{path}.{field}.{way}"), message);
        }
        self.files.push((action.name.clone(), kind, file));
    }

    /// What looks at a new file before it is placed.
    fn validate(&mut self, path: &str, fields: &ActionFields, scope: &Scope) -> Option<String> {
        let file = fields.file.as_ref().and_then(|file| Some(("file", file.validate.as_ref()?)));
        let line = fields.line_in_file.as_ref().and_then(|line| Some(("lineInFile", line.validate.as_ref()?)));
        let secret = fields.secret_file.as_ref().and_then(|file| Some(("secretFile", file.validate.as_ref()?)));
        let (kind, script) = file.or(line).or(secret)?;
        let path = format!("{path}.{kind}.validate");
        self.template(&path, script, scope);
        if !script.contains("%s") {
            self.add(path, "must name the new file by %s, as in sshd -t -f %s");
        }
        Some(script.clone())
    }

    /// Refuses what looks like a template in a field that is none, in whatever field of an action.
    fn no_templates(&mut self, path: &str, fields: &ActionFields) {
        let Ok(fields) = serde_json::to_value(fields) else { return };
        let mut open = vec![(path.to_owned(), &fields)];
        while let Some((path, value)) = open.pop() {
            match value {
                serde_json::Value::Object(map) => {
                    open.extend(map.iter().map(|(name, value)| (format!("{path}.{name}"), value)));
                }
                serde_json::Value::Array(items) => {
                    open.extend(items.iter().enumerate().map(|(place, item)| (format!("{path}[{place}]"), item)));
                }
                serde_json::Value::String(text) if render::is_template(text) && !self.templates.contains(&path) => {
                    let message =
                        format!("{text:?} looks like a template, but this field is none; write out what is meant");
                    self.add(path, message);
                }
                _ => {}
            }
        }
    }

    /// Environment variables. A script sets its own.
    fn env(&mut self, path: &str, fields: &ActionFields, kind: &ActionKind, scope: &Scope) -> Vec<(String, String)> {
        let (package, source) =
            (matches!(kind, ActionKind::Package { .. }), matches!(kind, ActionKind::PackageSource { .. }));
        if !(fields.env.is_empty() || package || source || matches!(kind, ActionKind::RemoteFile { .. })) {
            let message =
                "only package, packageSource and remoteFile take variables; export them in the script of an exec";
            self.add(format!("{path}.env"), message);
        }
        for (place, env) in fields.env.iter().enumerate() {
            if env.name == "IFS" || env.name.starts_with("PALLET_") {
                self.add(
                    format!("{path}.env[{place}].name"),
                    "is a variable of the scripts themselves; choose another",
                );
            }
            self.template(&format!("{path}.env[{place}].value"), &env.value, scope);
        }
        fields.env.iter().map(|env| (env.name.clone(), env.value.clone())).collect()
    }

    /// Checks the names that an action has added, unless it is for no node.
    fn added_references(&mut self, (secrets, config_maps): &(References, References)) {
        let added = |all: &References, before: &References| {
            let added = all.iter().filter(|(at, _)| !before.contains_key(*at));
            added.map(|(at, path)| (at.clone(), path.clone())).collect::<Vec<_>>()
        };
        let mut found = added(&self.secrets, secrets);
        found.extend(added(&self.config_maps, config_maps));
        found.iter().for_each(|(at, path)| self.reference(path, at));
    }

    /// As whom an action runs. Only a script runs as another user; what else is made has an owner.
    fn run_as(&mut self, path: &str, fields: &ActionFields, kind: &ActionKind) -> Option<RunAs> {
        let is_script = matches!(kind, ActionKind::Exec { .. });
        if fields.elevation.is_some() && !is_script {
            let message = "only exec runs as another user; what else is made belongs to whom owner and group say";
            self.add(format!("{path}.become"), message);
        }
        let wanted = fields.elevation.as_ref().filter(|_| is_script)?;
        let sound = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.', '$'].contains(&c);
        if wanted.user.is_empty() || wanted.user.starts_with('-') || !wanted.user.chars().all(sound) {
            self.add(format!("{path}.become.user"), format!("{:?} is no name of a user", wanted.user));
        }
        let password = wanted.password.as_ref().map(|password| {
            let at = &password.secret_key_ref;
            KeyRef { name: at.name.clone(), key: at.key.clone() }
        });
        if let Some(at) = &password {
            let path = format!("{path}.become.password.secretKeyRef");
            self.reference(&path, at);
            self.secrets.entry(at.clone()).or_insert(path);
        }
        Some(RunAs { user: wanted.user.clone(), password })
    }

    fn exec(&mut self, path: &str, exec: &ExecFields, scope: &Scope) -> ActionKind {
        let templates = [
            ("script", Some(&exec.script)),
            ("creates", exec.creates.as_ref()),
            ("unless", exec.unless.as_ref()),
            ("onlyIf", exec.only_if.as_ref()),
        ];
        for (field, template) in templates {
            if let Some(template) = template {
                self.template(&format!("{path}.exec.{field}"), template, scope);
            }
        }
        ActionKind::Exec {
            script: exec.script.clone(),
            creates: exec.creates.clone(),
            unless: exec.unless.clone(),
            only_if: exec.only_if.clone(),
            secret_env: self.secret_env(path, exec, scope),
        }
    }

    fn file(&mut self, path: &str, file: &FileFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.file.path"), &file.path, scope);
        if file.state == Presence::Absent {
            let others = FileFields { path: file.path.clone(), state: file.state, ..FileFields::default() };
            return self.removal(&format!("{path}.file"), Removed::File, &file.path, *file != others);
        }
        self.owners(&format!("{path}.file"), &[&file.owner, &file.group], scope);
        let content = match (&file.content, &file.content_from) {
            (Some(content), None) => {
                self.template(&format!("{path}.file.content"), content, scope);
                Content::Text(content.clone())
            }
            (None, Some(from)) => {
                let path = format!("{path}.file.contentFrom.configMapKeyRef");
                let key = self.key(&path, &from.config_map_key_ref, scope);
                self.config_maps.entry(key.clone()).or_insert(path);
                Content::ConfigMap(key, from.template)
            }
            _ => {
                self.add(format!("{path}.file"), "a file has exactly one content: set content or contentFrom");
                Content::Text(String::new())
            }
        };
        ActionKind::File {
            path: file.path.clone(),
            content,
            mode: file.mode.as_deref().map(octal).unwrap_or_default(),
            owner: file.owner.clone(),
            group: file.group.clone(),
        }
    }

    /// Something that is not to be there. `more` says whether anything but its path is set.
    fn removal(&mut self, path: &str, what: Removed, place: &str, more: bool) -> ActionKind {
        if more {
            self.add(path, "absent takes path only: remove the other fields");
        }
        if let (Removed::Directory, false) = (what, render::is_template(place))
            && let Err(message) = checks::removable(place.to_owned())
        {
            self.add(format!("{path}.path"), message);
        }
        ActionKind::Removal { what, path: place.to_owned() }
    }

    /// The owner and the group of what is made.
    fn owners(&mut self, path: &str, names: &[&Option<String>; 2], scope: &Scope) {
        for (field, name) in ["owner", "group"].iter().zip(names) {
            let Some(name) = name else { continue };
            let path = format!("{path}.{field}");
            self.template(&path, name, scope);
            self.literal(&path, name, checks::account);
        }
    }

    /// Checks a text that is to be filled in where nothing is.
    fn literal(&mut self, path: &str, text: &str, check: fn(String) -> Result<String, String>) {
        if let (false, Err(message)) = (render::is_template(text), check(text.to_owned())) {
            self.add(path, message);
        }
    }

    fn directory(&mut self, path: &str, directory: &DirectoryFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.directory.path"), &directory.path, scope);
        if directory.state == Presence::Absent {
            let bare =
                DirectoryFields { path: directory.path.clone(), state: directory.state, ..DirectoryFields::default() };
            let more = *directory != bare;
            return self.removal(&format!("{path}.directory"), Removed::Directory, &directory.path, more);
        }
        self.owners(&format!("{path}.directory"), &[&directory.owner, &directory.group], scope);
        ActionKind::Directory {
            path: directory.path.clone(),
            mode: directory.mode.as_deref().map(octal),
            owner: directory.owner.clone(),
            group: directory.group.clone(),
        }
    }

    fn symlink(&mut self, path: &str, symlink: &SymlinkFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.symlink.path"), &symlink.path, scope);
        match (symlink.state, &symlink.target) {
            (Presence::Absent, target) => {
                self.removal(&format!("{path}.symlink"), Removed::Symlink, &symlink.path, target.is_some())
            }
            (Presence::Present, Some(target)) => {
                self.template(&format!("{path}.symlink.target"), target, scope);
                ActionKind::Symlink { path: symlink.path.clone(), target: target.clone() }
            }
            (Presence::Present, None) => {
                self.add(format!("{path}.symlink.target"), "is missing: say where the link points, or state: absent");
                ActionKind::Symlink { path: symlink.path.clone(), target: String::new() }
            }
        }
    }

    fn package(&mut self, path: &str, package: &PackageFields, scope: &Scope) -> ActionKind {
        for (place, name) in package.names.iter().enumerate() {
            self.template(&format!("{path}.package.names[{place}]"), name, scope);
        }
        if package.purge && package.state != PackageState::Absent {
            self.add(format!("{path}.package.purge"), "is for state: absent; remove it or set the state");
        }
        let options = PackageOptions {
            recommends: package.install_recommends,
            purge: package.purge,
            release: package.default_release.clone(),
        };
        ActionKind::Package { names: package.names.clone(), state: package.state, options, manager: String::new() }
    }

    fn service(&mut self, path: &str, service: &ServiceFields, scope: &Scope) -> ActionKind {
        self.template(&format!("{path}.service.name"), &service.name, scope);
        if service.state.is_none() && service.enabled.is_none() && service.masked.is_none() {
            self.add(format!("{path}.service"), "asks for nothing: set state, enabled or both, or masked");
        }
        let starts = !matches!(service.state, None | Some(ServiceState::Stopped)) || service.enabled == Some(true);
        if service.masked == Some(true) && starts {
            self.add(
                format!("{path}.service.masked"),
                "nothing can start a masked unit: set state: stopped or no state, and not enabled: true",
            );
        }
        let (state, enabled, masked) = (service.state, service.enabled, service.masked);
        ActionKind::Service { name: service.name.clone(), state, enabled, masked, manager: String::new() }
    }

    fn absolute(&mut self, path: &str, template: &str, scope: &Scope) {
        self.template(path, template, scope);
        if !template.starts_with('/') && !template.starts_with("{{") {
            self.add(path, format!("{template:?} is not absolute; begin it with a slash"));
        }
    }

    fn line_in_file(&mut self, path: &str, fields: &LineInFileFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.lineInFile");
        self.absolute(&format!("{path}.path"), &fields.path, scope);
        match (&fields.line, &fields.r#match, fields.state) {
            (None, _, Presence::Present) | (None, None, _) => {
                self.add(&path, "line is missing: set the line that is to be there, or state: absent with match");
            }
            (Some(_), Some(_), Presence::Absent) => {
                self.add(&path, "absent takes either line or match: remove one of them");
            }
            _ => {}
        }
        if let Some(line) = &fields.line {
            self.template(&format!("{path}.line"), line, scope);
        }
        let patterns = [
            ("match", &fields.r#match),
            ("insertAfter", &fields.insert_after),
            ("insertBefore", &fields.insert_before),
        ];
        for (field, pattern) in patterns {
            if let Some(pattern) = pattern {
                let path = format!("{path}.{field}");
                self.template(&path, pattern, scope);
                self.literal(&path, pattern, checks::pattern);
            }
        }
        if fields.insert_after.is_some() && fields.insert_before.is_some() {
            let message = "a line comes either behind or before another: remove insertAfter or insertBefore";
            self.add(&path, message);
        }
        ActionKind::LineInFile {
            path: fields.path.clone(),
            line: fields.line.clone(),
            matches: fields.r#match.clone(),
            insert_after: fields.insert_after.clone(),
            insert_before: fields.insert_before.clone(),
            first: fields.first,
            state: fields.state,
            create: fields.create,
        }
    }

    fn remote_file(&mut self, path: &str, fields: &RemoteFileFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.remoteFile");
        self.absolute(&format!("{path}.path"), &fields.path, scope);
        self.template(&format!("{path}.url"), &fields.url, scope);
        self.template(&format!("{path}.sha256"), &fields.sha256, scope);
        ActionKind::RemoteFile {
            path: fields.path.clone(),
            url: fields.url.clone(),
            sha256: fields.sha256.clone(),
            secret_headers: self.secret_headers(&path, fields, scope),
            mode: fields.mode.as_deref().map(octal).unwrap_or_default(),
            owner: fields.owner.clone(),
            group: fields.group.clone(),
        }
    }

    fn package_source(&mut self, path: &str, fields: &PackageSourceFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.packageSource");
        if fields.apt.is_none() && fields.dnf.is_none() && fields.apk.is_none() {
            self.add(&path, "names no source: set apt, dnf or apk, or more than one of them");
        }
        if let Some(apt) = &fields.apt {
            self.template(&format!("{path}.apt.uri"), &apt.uri, scope);
            self.template(&format!("{path}.apt.suite"), &apt.suite, scope);
        }
        if let Some(dnf) = &fields.dnf {
            self.template(&format!("{path}.dnf.baseUrl"), &dnf.base_url, scope);
        }
        if let Some(apk) = &fields.apk {
            self.template(&format!("{path}.apk.url"), &apk.url, scope);
        }
        ActionKind::PackageSource {
            name: fields.name.clone(),
            apt: fields.apt.as_ref().map(|apt| AptSource {
                uri: apt.uri.clone(),
                suite: apt.suite.clone(),
                components: apt.components.clone(),
                key: apt.key.clone(),
                trusted: apt.trusted,
            }),
            dnf: fields.dnf.as_ref().map(|dnf| (dnf.base_url.clone(), dnf.key.clone())),
            apk: fields.apk.as_ref().map(|apk| apk.url.clone()),
            state: fields.state,
            manager: String::new(),
        }
    }

    fn user(&mut self, path: &str, fields: &UserFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.user");
        self.template(&format!("{path}.name"), &fields.name, scope);
        let texts =
            [("group", &fields.group), ("home", &fields.home), ("shell", &fields.shell), ("comment", &fields.comment)];
        for (field, text) in texts {
            if let Some(text) = text {
                self.template(&format!("{path}.{field}"), text, scope);
            }
        }
        for (place, group) in fields.groups.iter().enumerate() {
            self.template(&format!("{path}.groups[{place}]"), group, scope);
        }
        for (place, key) in fields.authorized_keys.iter().flatten().enumerate() {
            self.template(&format!("{path}.authorizedKeys[{place}]"), key, scope);
        }
        ActionKind::User(Box::new(User {
            name: fields.name.clone(),
            uid: fields.uid,
            group: fields.group.clone(),
            groups: fields.groups.clone(),
            home: fields.home.clone(),
            shell: fields.shell.clone(),
            comment: fields.comment.clone(),
            system: fields.system,
            authorized_keys: fields.authorized_keys.clone(),
            state: fields.state,
        }))
    }

    fn user_group(&mut self, path: &str, fields: &UserGroupFields, scope: &Scope) -> ActionKind {
        self.template(&format!("{path}.group.name"), &fields.name, scope);
        ActionKind::UserGroup { name: fields.name.clone(), gid: fields.gid, system: fields.system, state: fields.state }
    }

    fn sudoer(&mut self, path: &str, fields: &SudoerFields, scope: &Scope) -> ActionKind {
        self.template(&format!("{path}.sudoer.name"), &fields.name, scope);
        if let Some(run_as) = &fields.run_as {
            self.template(&format!("{path}.sudoer.runAs"), run_as, scope);
        }
        for (place, command) in fields.commands.iter().enumerate() {
            self.template(&format!("{path}.sudoer.commands[{place}]"), command, scope);
        }
        ActionKind::Sudoer {
            name: fields.name.clone(),
            rule: fields.rule.clone(),
            run_as: fields.run_as.clone().unwrap_or_else(|| "ALL".to_owned()),
            commands: fields.commands.clone(),
            no_password: fields.no_password,
            state: fields.state,
        }
    }

    fn manual(&mut self, path: &str, fields: &ManualFields, scope: &Scope) -> ActionKind {
        if path.contains(".destroy-server.") {
            self.add(format!("{path}.manual"), "destroy-server has a deadline and waits for nobody; take it out");
        }
        self.template(&format!("{path}.manual.message"), &fields.message, scope);
        ActionKind::Manual { message: fields.message.clone() }
    }

    fn secret_file(&mut self, path: &str, fields: &SecretFileFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.secretFile");
        self.absolute(&format!("{path}.path"), &fields.path, scope);
        self.owners(&path, &[&fields.owner, &fields.group], scope);
        ActionKind::SecretFile {
            path: fields.path.clone(),
            secret: self.secret(&path, &fields.secret_key_ref, scope),
            mode: fields.mode.as_deref().map_or_else(|| SECRET_MODE.to_owned(), octal),
            owner: fields.owner.clone(),
            group: fields.group.clone(),
        }
    }

    fn secret_env(&mut self, path: &str, exec: &ExecFields, scope: &Scope) -> Vec<SecretEnv> {
        let mut variables: Vec<SecretEnv> = Vec::new();
        for (place, fields) in exec.secret_env.iter().enumerate() {
            let path = format!("{path}.exec.secretEnv[{place}]");
            if variables.iter().any(|other| other.name == fields.name) {
                self.add(format!("{path}.name"), format!("there are two variables {:?}; rename one", fields.name));
            }
            let secret = self.secret(&path, &fields.secret_key_ref, scope);
            variables.push(SecretEnv { name: fields.name.clone(), secret });
        }
        variables
    }

    fn secret_headers(&mut self, path: &str, fields: &RemoteFileFields, scope: &Scope) -> Vec<SecretEnv> {
        let one = |(place, header): (usize, &SecretHeaderFields)| {
            let secret = self.secret(&format!("{path}.secretHeaders[{place}]"), &header.secret_key_ref, scope);
            SecretEnv { name: header.name.clone(), secret }
        };
        fields.secret_headers.iter().enumerate().map(one).collect()
    }

    fn secret(&mut self, path: &str, fields: &KeyFields, scope: &Scope) -> Sealed {
        let path = format!("{path}.secretKeyRef");
        let at = self.key(&path, fields, scope);
        self.secrets.entry(at.clone()).or_insert(path);
        Sealed { at, seal: String::new() }
    }

    /// A place that must be known before any node is: its templates see parameters only.
    fn key(&mut self, path: &str, fields: &KeyFields, scope: &Scope) -> KeyRef {
        let mut text = |field: &str, template: &String| {
            self.templates.insert(format!("{path}.{field}"));
            let found = render::constant(&template.as_str().into(), Some(scope.params), &self.budget);
            match found.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)) {
                Ok(text) => text,
                Err(fault) => {
                    let message = match fault {
                        render::Fault::TooMuchWork(_) => fault.to_string(),
                        fault => format!("it can use nothing but params: {fault}"),
                    };
                    self.add(format!("{path}.{field}"), message);
                    // A name like any other: what it would be is not known.
                    "unknown".to_owned()
                }
            }
        };
        KeyRef { name: text("name", &fields.name), key: text("key", &fields.key) }
    }

    fn cron(&mut self, path: &str, fields: &CronFields, scope: &Scope) -> ActionKind {
        let path = format!("{path}.cron");
        let schedule = fields.schedule.clone().unwrap_or_default();
        self.template(&format!("{path}.schedule"), &schedule, scope);
        if !render::is_template(&schedule)
            && let Err(message) = checks::schedule(schedule.clone(), fields.state)
        {
            self.add(format!("{path}.schedule"), message);
        }
        if let Some(user) = &fields.user {
            self.template(&format!("{path}.user"), user, scope);
        }
        match &fields.command {
            Some(command) => self.template(&format!("{path}.command"), command, scope),
            None if fields.state == Presence::Present => {
                self.add(format!("{path}.command"), "is missing: say what is to run");
            }
            None => {}
        }
        ActionKind::Cron {
            name: fields.name.clone(),
            schedule,
            user: fields.user.clone().unwrap_or_else(|| "root".to_owned()),
            command: fields.command.clone().unwrap_or_default(),
            state: fields.state,
        }
    }
}

/// Whether the parameters alone decide that an action is skipped. What it names need not be there then, so that a Secret
/// may be a parameter that nobody has to give.
fn is_for_no_node(when: &str, scope: &Scope, budget: &Budget) -> Result<bool, String> {
    let names = expect::names(when).unwrap_or_default();
    let decided = !names.is_empty() && names.iter().all(|name| name.starts_with("params."));
    if !decided {
        return Ok(false);
    }
    match expect::holds(when, &|root| (root == "params").then_some(scope.params), budget) {
        Ok(holds) => Ok(!holds),
        // What fails here may be wrong for one node only, or for all: it is told where it would run.
        Err(expect::Unanswered::Wrong(_)) => Ok(false),
        Err(cut @ expect::Unanswered::TooMuchWork(_)) => Err(cut.to_string()),
    }
}

/// Octal digits without the zeros in front.
fn octal(mode: &str) -> String {
    let digits = mode.trim_start_matches('0');
    if digits.is_empty() { "0".into() } else { digits.to_owned() }
}
