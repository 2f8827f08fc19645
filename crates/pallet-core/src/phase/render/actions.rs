//! Pure: the actions of a phase, filled in for one node, and what identifies them.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use minijinja::value::Serde;
use serde_json::{Value, json};

use super::{Context, Fault, Mode, checks, lockout, names, render_within};
use crate::phase::{
    Digest, PhaseName,
    action::{
        Action, ActionKind, AptSource, Content, DEFAULT_MODE, PACKAGE_MANAGERS, Removed, Repeat, RunAs, SECRET_MODE,
        SERVICE_MANAGERS, Sealed, SecretEnv, User,
    },
    expect,
};
use pallet_api::actions::{PackageState, Presence};

/// A phase whose templates are filled in: what will run on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Its name.
    pub phase: PhaseName,
    /// Its actions, with plain strings.
    pub calls: Vec<Call>,
    /// Over the actions: the same digest, the same effect.
    pub digest: Digest,
}

/// One action as it will run.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The action's name.
    pub name: String,
    /// What it does, with plain strings.
    pub kind: ActionKind,
    /// Whether it is not for this node.
    pub skipped: bool,
    /// The places of the actions of which one must have changed something.
    pub after: Vec<usize>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How often it is tried.
    pub retry: Option<Repeat>,
    /// As whom it runs, where not as the session does.
    pub run_as: Option<RunAs>,
    /// Environment variables, by name.
    pub env: Vec<(String, String)>,
    /// What has to succeed for a new file to be placed; `%s` is that file.
    pub validate: Option<String>,
}

impl Call {
    /// A call with nothing but a name and a kind.
    pub fn new(name: impl Into<String>, kind: ActionKind) -> Self {
        Self {
            name: name.into(),
            kind,
            skipped: false,
            after: Vec::new(),
            timeout: None,
            retry: None,
            run_as: None,
            env: Vec::new(),
            validate: None,
        }
    }

    /// Whether it is a script that nothing keeps from running, so that what it would change cannot be told.
    pub fn is_unguarded(&self) -> bool {
        matches!(self.kind, ActionKind::Exec { creates: None, unless: None, only_if: None, .. })
    }
}

/// A template that could not be filled in on one node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("action {action}: {fault}")]
pub struct RenderError {
    /// The action, or the value of settings.
    pub action: String,
    /// What was wrong with the template, or what it waits for.
    pub fault: Fault,
}

impl RenderError {
    /// Whether it is no error, but waits for nodes of a role.
    pub fn waits(&self) -> bool {
        matches!(self.fault, Fault::Waits(_))
    }
}

/// How many bytes the texts of a phase may come to in all.
const LONGEST: usize = 8 << 20;

/// Fills every template of a phase in for one node. `token` is a text that makes the digest another one; empty, it does
/// not count. `chosen` says whether this is the node for what runs on one node only.
///
/// # Errors
/// The first template that cannot be filled in, with its action.
pub fn phase(
    name: &PhaseName,
    actions: &[Action],
    token: &str,
    chosen: bool,
    context: &Context,
) -> Result<Rendered, RenderError> {
    let mut scopes: HashMap<Option<Arc<str>>, Scope> = HashMap::new();
    let (mut calls, mut models) = (Vec::with_capacity(actions.len()), Vec::new());
    let room = Cell::new(LONGEST);
    for action in actions {
        let scope =
            scopes.entry(action.origin.clone()).or_insert_with(|| Scope::new(context, action.origin.as_deref()));
        let (call, model) = fill_in(action, chosen, scope, &room)?;
        calls.push(call);
        models.extend(model);
    }
    let models = Value::from(models);
    let digest =
        Digest::of("phase", &if token.is_empty() { models } else { json!({"actions": models, "token": token}) });
    Ok(Rendered { phase: name.clone(), calls, digest })
}

/// What the templates of one origin see, made once for all of them.
struct Scope {
    context: Context,
    seen: minijinja::Value,
    /// What conditions see, once one has asked.
    conditions: OnceCell<Value>,
}

impl Scope {
    fn new(context: &Context, origin: Option<&str>) -> Self {
        let context = context.within(origin);
        Self { seen: Serde(&context).into(), context, conditions: OnceCell::new() }
    }
}

/// One action, and what of it counts for the digest: nothing where it is skipped for good.
fn fill_in(
    action: &Action,
    chosen: bool,
    scope: &Scope,
    room: &Cell<usize>,
) -> Result<(Call, Option<Value>), RenderError> {
    let call = |Filled { kind, env, validate }: Filled, skipped: bool| Call {
        name: action.name.clone(),
        kind,
        env,
        validate: validate.filter(|_| !skipped),
        skipped,
        after: action.on_change_of.clone(),
        timeout: action.timeout,
        retry: action.retry,
        run_as: action.run_as.clone(),
    };
    if action.on_one_node && !chosen {
        return Ok((call(Filled::declared(action), true), None));
    }
    let Some(when) = &action.when else {
        let filled = filled_in(action, scope, room)?;
        let model = with_circumstances(action, &filled, None);
        return Ok((call(filled, false), Some(model)));
    };
    let seen = scope.conditions.get_or_init(|| serde_json::to_value(scope.context.with_volatile()).unwrap_or_default());
    let holds = expect::holds(when, &|root| seen.get(root), &scope.context.budget);
    let holds = holds.map_err(|why| RenderError { action: action.name.clone(), fault: why.into() })?;
    if !expect::is_volatile(when) {
        if !holds {
            return Ok((call(Filled::declared(action), true), None));
        }
        let filled = filled_in(action, scope, room)?;
        let model = with_circumstances(action, &filled, None);
        return Ok((call(filled, false), Some(model)));
    }
    // What changes by itself must not change the digest: it counts what is done where the condition holds.
    match filled_in(action, scope, room) {
        Ok(filled) => {
            let model = with_circumstances(action, &filled, Some(when));
            Ok((call(filled, !holds), Some(model)))
        }
        Err(error) if holds => Err(error),
        Err(_) => {
            let declared = Filled::declared(action);
            let model = with_circumstances(action, &declared, Some(when));
            Ok((call(declared, true), Some(model)))
        }
    }
}

/// The model of an action with what else decides whether it runs.
fn with_circumstances(action: &Action, filled: &Filled, when: Option<&str>) -> Value {
    let mut model = kind_model(&filled.kind);
    if let Value::Object(fields) = &mut model {
        // By which password it becomes that user makes no difference.
        if let Some(run_as) = &action.run_as {
            fields.insert("runAs".into(), run_as.user.as_str().into());
        }
        if let Some(when) = when {
            fields.insert("when".into(), when.into());
        }
        if !filled.env.is_empty() {
            let env: serde_json::Map<_, _> =
                filled.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            fields.insert("env".into(), env.into());
        }
        if !action.on_change_of.is_empty() {
            // To whom it listens shows when they change; their places move with every action before them.
            fields.insert("onChangeOf".into(), true.into());
        }
    }
    model
}

/// What of an action is filled in for one node.
struct Filled {
    kind: ActionKind,
    env: Vec<(String, String)>,
    validate: Option<String>,
}

impl Filled {
    /// What is shown of an action that is skipped. Nothing validates what it does not write.
    fn declared(action: &Action) -> Self {
        Self { kind: action.kind.clone(), env: action.env.clone(), validate: None }
    }
}

fn filled_in(action: &Action, scope: &Scope, room: &Cell<usize>) -> Result<Filled, RenderError> {
    let refused = |fault| RenderError { action: action.name.clone(), fault };
    let kind = filled(&action.kind, scope, room).map_err(refused)?;
    if let Some(login) = &scope.context.login {
        lockout::refuse(&kind, login).map_err(|message| refused(message.into()))?;
    }
    let value = |(name, template): &(String, String)| {
        let value = bounded(render_within(template, Mode::Text, &scope.seen, &scope.context.budget)?, room)?;
        Ok((name.clone(), one_line(value)?))
    };
    let env = action.env.iter().map(value).collect::<Result<_, Fault>>().map_err(refused)?;
    let shell =
        |template: &String| bounded(render_within(template, Mode::Shell, &scope.seen, &scope.context.budget)?, room);
    let validate = action.validate.as_ref().map(shell).transpose().map_err(refused)?;
    Ok(Filled { kind, env, validate })
}

/// A text, where the phase has room for it.
fn bounded(text: String, room: &Cell<usize>) -> Result<String, Fault> {
    let left = room.get().checked_sub(text.len());
    room.set(
        left.ok_or_else(|| "the phase comes to more than 8 MiB in all; make it shorter, or two of it".to_owned())?,
    );
    Ok(text)
}

fn filled(kind: &ActionKind, scope: &Scope, room: &Cell<usize>) -> Result<ActionKind, Fault> {
    let bounded = |text: String| bounded(text, room);
    let text = |template: &str| bounded(render_within(template, Mode::Text, &scope.seen, &scope.context.budget)?);
    let shell = |template: &str| bounded(render_within(template, Mode::Shell, &scope.seen, &scope.context.budget)?);
    let optional = |template: &Option<String>| template.as_deref().map(text).transpose();
    let guard = |template: &Option<String>| template.as_deref().map(shell).transpose();
    let path = |template: &str| Ok::<_, Fault>(absolute(text(template)?)?);
    let word = |template: &str| {
        Ok::<_, Fault>(plain(bounded(render_within(template, Mode::Name, &scope.seen, &scope.context.budget)?)?)?)
    };
    let by_fact = |fact: &str, known: &[&str]| manager(&scope.context, fact, known);
    let sealed = |secret: &Sealed| {
        let seal = scope.context.inputs.seals.get(&secret.at).cloned();
        let seal = seal.ok_or_else(|| format!("Secret {} has not been read", secret.at))?;
        Ok::<_, Fault>(Sealed { at: secret.at.clone(), seal })
    };
    let sealed_all = |all: &[SecretEnv]| {
        all.iter()
            .map(|env| Ok(SecretEnv { name: env.name.clone(), secret: sealed(&env.secret)? }))
            .collect::<Result<Vec<_>, Fault>>()
    };
    let line = |template: &str| Ok::<_, Fault>(one_line(text(template)?)?);
    let lines = |templates: &[String]| templates.iter().map(|template| line(template)).collect::<Result<Vec<_>, _>>();
    let maybe = |template: &Option<String>| template.as_deref().map(line).transpose();
    let owner_of = |template: &Option<String>| {
        template.as_deref().map(|template| Ok::<_, Fault>(checks::account(text(template)?)?)).transpose()
    };
    let pattern = |template: &Option<String>| {
        template.as_deref().map(|template| Ok::<_, Fault>(checks::pattern(line(template)?)?)).transpose()
    };
    Ok(match kind {
        ActionKind::Exec { script, creates, unless, only_if, secret_env } => ActionKind::Exec {
            script: shell(script)?,
            creates: optional(creates)?,
            unless: guard(unless)?,
            only_if: guard(only_if)?,
            secret_env: sealed_all(secret_env)?,
        },
        ActionKind::File { path: place, content, mode, owner, group } => ActionKind::File {
            path: path(place)?,
            content: Content::Text(match content {
                Content::Text(template) => text(template)?,
                Content::ConfigMap(at, template) => {
                    let found = scope.context.inputs.texts.get(at);
                    let found = found.ok_or_else(|| format!("ConfigMap {at} has not been read"))?;
                    if *template { text(found)? } else { bounded(found.to_string())? }
                }
            }),
            mode: mode.clone(),
            owner: owner_of(owner)?,
            group: owner_of(group)?,
        },
        ActionKind::Directory { path: place, mode, owner, group } => ActionKind::Directory {
            path: path(place)?,
            mode: mode.clone(),
            owner: owner_of(owner)?,
            group: owner_of(group)?,
        },
        ActionKind::Removal { what: Removed::Directory, path: place } => {
            ActionKind::Removal { what: Removed::Directory, path: checks::removable(path(place)?)? }
        }
        ActionKind::Removal { what, path: place } => ActionKind::Removal { what: *what, path: path(place)? },
        ActionKind::Symlink { path: place, target } => {
            ActionKind::Symlink { path: path(place)?, target: text(target)? }
        }
        ActionKind::LineInFile {
            path: place,
            line: wanted,
            matches,
            insert_after,
            insert_before,
            first,
            state,
            create,
        } => ActionKind::LineInFile {
            path: path(place)?,
            line: maybe(wanted)?,
            matches: pattern(matches)?,
            insert_after: pattern(insert_after)?,
            insert_before: pattern(insert_before)?,
            first: *first,
            state: *state,
            create: *create,
        },
        ActionKind::RemoteFile { path: place, url, sha256, secret_headers, mode, owner, group } => {
            ActionKind::RemoteFile {
                path: path(place)?,
                url: address(text(url)?)?,
                sha256: checksum(text(sha256)?)?,
                secret_headers: sealed_all(secret_headers)?,
                mode: mode.clone(),
                owner: owner.clone(),
                group: group.clone(),
            }
        }
        ActionKind::Manual { message } => ActionKind::Manual { message: text(message)? },
        ActionKind::SecretFile { path: place, secret, mode, owner, group } => ActionKind::SecretFile {
            path: path(place)?,
            secret: sealed(secret)?,
            mode: mode.clone(),
            owner: owner_of(owner)?,
            group: owner_of(group)?,
        },
        ActionKind::Package { names, state, options, .. } => {
            let manager = by_fact("packageManager", PACKAGE_MANAGERS)?;
            let name = |template: &String| {
                let name = bounded(render_within(template, Mode::Name, &scope.seen, &scope.context.budget)?)?;
                Ok::<_, Fault>(names::package(&manager, name)?)
            };
            let names = names.iter().map(name).collect::<Result<_, _>>()?;
            ActionKind::Package { names, state: *state, options: options.clone(), manager }
        }
        ActionKind::PackageSource { name, apt, dnf, apk, state, .. } => {
            let manager = by_fact("packageManager", PACKAGE_MANAGERS)?;
            let known = match manager.as_str() {
                "apt" => apt.is_some(),
                "apk" => apk.is_some(),
                _ => dnf.is_some(),
            };
            if !known {
                return Err(format!(
                    "the node has {manager}, for which the source says nothing; tell nodes apart by when"
                )
                .into());
            }
            // Only what this node uses is filled in, or it would depend on what it does not use.
            let apt = apt.as_ref().filter(|_| manager == "apt");
            let apt = apt
                .map(|apt| Ok::<_, Fault>(AptSource { uri: line(&apt.uri)?, suite: line(&apt.suite)?, ..apt.clone() }));
            let dnf = dnf.as_ref().filter(|_| matches!(manager.as_str(), "dnf" | "yum"));
            let dnf = dnf.map(|(url, key)| Ok::<_, Fault>((line(url)?, key.clone())));
            let apk = apk.as_deref().filter(|_| manager == "apk").map(line);
            ActionKind::PackageSource {
                name: name.clone(),
                apt: apt.transpose()?,
                dnf: dnf.transpose()?,
                apk: apk.transpose()?,
                state: *state,
                manager,
            }
        }
        ActionKind::Service { name, state, enabled, masked, .. } => {
            let manager = by_fact("serviceManager", SERVICE_MANAGERS)?;
            if masked.is_some() && manager != "systemd" {
                return Err(format!(
                    "the node has {manager}, which cannot mask; leave masked out, or tell nodes apart by when"
                )
                .into());
            }
            ActionKind::Service { name: word(name)?, state: *state, enabled: *enabled, masked: *masked, manager }
        }
        ActionKind::User(user) => ActionKind::User(Box::new(User {
            name: login(text(&user.name)?)?,
            group: maybe(&user.group)?,
            groups: lines(&user.groups)?,
            home: maybe(&user.home)?,
            shell: maybe(&user.shell)?,
            comment: maybe(&user.comment)?,
            authorized_keys: user.authorized_keys.as_deref().map(lines).transpose()?,
            ..(**user).clone()
        })),
        ActionKind::UserGroup { name, gid, system, state } => {
            ActionKind::UserGroup { name: login(text(name)?)?, gid: *gid, system: *system, state: *state }
        }
        ActionKind::Sudoer { name, rule, run_as, commands, no_password, state } => {
            let who = text(name)?;
            let (mark, bare) = who.strip_prefix('%').map_or(("", who.as_str()), |group| ("%", group));
            ActionKind::Sudoer {
                name: format!("{mark}{}", login(bare.to_owned())?),
                rule: rule.clone(),
                run_as: line(run_as)?,
                commands: lines(commands)?,
                no_password: *no_password,
                state: *state,
            }
        }
        ActionKind::Cron { name, schedule, user, command, state } => ActionKind::Cron {
            name: name.clone(),
            schedule: checks::schedule(line(schedule)?, *state)?,
            user: line(user)?,
            command: one_line(shell(command)?)?,
            state: *state,
        },
    })
}

fn absolute(path: String) -> Result<String, String> {
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(format!("the path {path:?} is not absolute; begin it with a slash"))
    }
}

/// A name that no tool takes for an option or for several names.
pub(super) fn plain(name: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "@%_+.:=~/-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is no name: it must consist of letters, digits and @%_+.:=~/-, and begin with a letter or digit"
        ))
    }
}

/// The name of a user or group, as useradd takes it.
fn login(name: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && name.len() <= 32 && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is no name of a user or group: it must consist of at most 32 letters, digits, '_', '.' and '-', and begin with a letter or '_'"
        ))
    }
}

fn one_line(text: String) -> Result<String, String> {
    if text.contains(['\n', '\r']) { Err(format!("{text:?} must be one line")) } else { Ok(text) }
}

fn address(url: String) -> Result<String, String> {
    let known = ["https://", "http://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
    if known && !url.contains(char::is_whitespace) {
        Ok(url)
    } else {
        Err(format!("the url {url:?} must begin with https://, http:// or file:/// and hold no blanks"))
    }
}

fn checksum(sum: String) -> Result<String, String> {
    if sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit()) {
        Ok(sum.to_ascii_lowercase())
    } else {
        Err(format!("sha256 is {sum:?}; it must be 64 hexadecimal digits, as sha256sum prints them"))
    }
}

/// What does it on this node, by a fact.
fn manager(context: &Context, fact: &str, known: &[&str]) -> Result<String, String> {
    let found = context.facts.get("os").and_then(|os| os.get(fact)).and_then(Value::as_str).unwrap_or("none");
    if known.contains(&found) {
        Ok(found.to_owned())
    } else {
        let known = known.join(", ");
        Err(format!("facts.os.{fact} is {found:?}, which this action does not know ({known}); use exec in its place"))
    }
}

/// The canonical model of an action as it was declared: all that decides what it does. Names do not count.
pub fn model(action: &Action) -> Value {
    let mut model = with_circumstances(action, &Filled::declared(action), action.when.as_deref());
    if let (Value::Object(fields), true) = (&mut model, action.on_one_node) {
        fields.insert("onOneNode".into(), true.into());
    }
    model
}

/// The canonical model of what an action does, without what stands at its default.
fn kind_model(kind: &ActionKind) -> Value {
    let wanted = |state: &Presence| (*state != Presence::Present).then_some(*state);
    // None named counts as the default does, as it did when it meant that.
    let usual = |mode: &String| (!mode.is_empty() && mode != DEFAULT_MODE).then(|| mode.clone());
    let yes = |flag: bool| flag.then_some(true);
    let fields = match kind {
        ActionKind::Exec { script, creates, unless, only_if, secret_env } => {
            let env: BTreeMap<&String, Value> =
                secret_env.iter().map(|env| (&env.name, place_and_seal(&env.secret))).collect();
            json!({"exec": {
                "script": script, "creates": creates, "unless": unless, "onlyIf": only_if,
                "secretEnv": (!env.is_empty()).then_some(env),
            }})
        }
        ActionKind::File { path, content, mode, owner, group } => json!({"file": {
            "path": path, "content": content_model(content), "mode": usual(mode), "owner": owner, "group": group,
        }}),
        ActionKind::Manual { message } => json!({"manual": {"message": message}}),
        ActionKind::SecretFile { path, secret, mode, owner, group } => json!({"secretFile": {
            "path": path, "secret": place_and_seal(secret), "mode": (mode != SECRET_MODE).then_some(mode),
            "owner": owner, "group": group,
        }}),
        ActionKind::Directory { path, mode, owner, group } => json!({"directory": {
            "path": path, "mode": mode, "owner": owner, "group": group,
        }}),
        ActionKind::Symlink { path, target } => json!({"symlink": {"path": path, "target": target}}),
        ActionKind::LineInFile { path, line, matches, insert_after, insert_before, first, state, create } => {
            json!({"lineInFile": {
                "path": path, "line": line, "match": matches, "insertAfter": insert_after,
                "insertBefore": insert_before, "first": yes(*first), "state": wanted(state), "create": yes(*create),
            }})
        }
        ActionKind::Removal { what, path } => {
            let kind = match what {
                Removed::File => "file",
                Removed::Directory => "directory",
                Removed::Symlink => "symlink",
            };
            json!({kind: {"path": path, "state": Presence::Absent}})
        }
        ActionKind::RemoteFile { path, url, sha256, secret_headers, mode, owner, group } => {
            let headers: BTreeMap<&String, Value> =
                secret_headers.iter().map(|header| (&header.name, place_and_seal(&header.secret))).collect();
            json!({"remoteFile": {
                "path": path, "url": url, "sha256": sha256, "mode": usual(mode), "owner": owner, "group": group,
                "secretHeaders": (!headers.is_empty()).then_some(headers),
            }})
        }
        ActionKind::Package { names, state, options, manager } => json!({"package": {
            "names": names, "state": (*state != PackageState::Present).then_some(state), "manager": manager,
            "installRecommends": options.recommends, "purge": yes(options.purge), "defaultRelease": options.release,
        }}),
        ActionKind::PackageSource { name, apt, dnf, apk, state, manager } => {
            let apt = apt.as_ref().map(|apt| {
                json!({"uri": apt.uri, "suite": apt.suite, "components": apt.components, "key": apt.key, "trusted": yes(apt.trusted)})
            });
            json!({"packageSource": {
                "name": name, "apt": apt, "dnf": dnf, "apk": apk, "state": wanted(state), "manager": manager,
            }})
        }
        ActionKind::Service { name, state, enabled, masked, manager } => json!({"service": {
            "name": name, "state": state, "enabled": enabled, "masked": masked, "manager": manager,
        }}),
        ActionKind::User(user) => json!({"user": {
            "name": user.name, "uid": user.uid, "group": user.group,
            "groups": (!user.groups.is_empty()).then_some(&user.groups), "home": user.home, "shell": user.shell,
            "comment": user.comment, "system": yes(user.system), "authorizedKeys": user.authorized_keys,
            "state": wanted(&user.state),
        }}),
        ActionKind::UserGroup { name, gid, system, state } => json!({"group": {
            "name": name, "gid": gid, "system": yes(*system), "state": wanted(state),
        }}),
        ActionKind::Sudoer { name, rule, run_as, commands, no_password, state } => json!({"sudoer": {
            "name": name, "rule": rule, "runAs": run_as, "commands": commands, "noPassword": yes(*no_password), "state": wanted(state),
        }}),
        ActionKind::Cron { name, schedule, user, command, state } => json!({"cron": {
            "name": name, "schedule": schedule, "user": user, "command": command, "state": wanted(state),
        }}),
    };
    without_nulls(fields)
}

/// A value that moves to another Secret is the same: the seal counts, and the place as long as there is none.
fn place_and_seal(secret: &Sealed) -> Value {
    if secret.seal.is_empty() { json!({"at": secret.at.to_string()}) } else { secret.seal.as_str().into() }
}

fn content_model(content: &Content) -> Value {
    match content {
        Content::Text(text) => text.as_str().into(),
        Content::ConfigMap(at, template) => json!({"configMap": at.to_string(), "template": template}),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
