//! Pure: templates. Undefined values are errors; what goes into a script is quoted for the shell unless marked `raw`.

use std::{collections::BTreeMap, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Action, ActionKind, Digest, PACKAGE_MANAGERS, PhaseName, SERVICE_MANAGERS};
use crate::{api::actions::PackageState, facts::Facts};

/// What templates see.
#[derive(Clone, Debug, Serialize)]
pub struct Context {
    /// `group.name`, `group.namespace`, `group.count`.
    pub group: GroupContext,
    /// `node.name`, `node.ordinal`, `node.address`.
    pub node: NodeContext,
    /// The facts that do not change by themselves.
    pub facts: Facts,
    /// The rendered values of settings.
    pub settings: BTreeMap<String, Value>,
}

/// What templates see of the group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupContext {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How many nodes it should have.
    pub count: u32,
}

/// What templates see of the node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeContext {
    /// Its name.
    pub name: String,
    /// Its number, from 0.
    pub ordinal: u32,
    /// Its address, empty until it is known.
    pub address: String,
}

/// How a template's values are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// As they are: paths, contents of files, values.
    Text,
    /// Quoted as one word each.
    Shell,
}

/// A phase whose templates are filled in: what will run on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Its name.
    pub phase: PhaseName,
    /// Its actions, with plain strings.
    pub actions: Vec<Action>,
    /// Over the actions: the same digest, the same effect.
    pub digest: Digest,
}

/// A template that could not be filled in on one node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("action {action}: {message}")]
pub struct RenderError {
    /// The action, or the value of settings.
    pub action: String,
    /// What was wrong with the template.
    pub message: String,
}

/// No template does more than this many steps: a loop cannot hold the operator.
const FUEL: u64 = 100_000;

/// One for each mode, made once: making one costs more than most templates.
fn environment(mode: Mode) -> &'static Environment<'static> {
    static TEXT: LazyLock<Environment> = LazyLock::new(|| make_environment(Mode::Text));
    static SHELL: LazyLock<Environment> = LazyLock::new(|| make_environment(Mode::Shell));
    match mode {
        Mode::Text => &TEXT,
        Mode::Shell => &SHELL,
    }
}

fn make_environment(mode: Mode) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("raw", |value: String| minijinja::Value::from_safe_string(value));
    environment.set_formatter(move |out, state, value| {
        if mode == Mode::Text || value.is_safe() {
            refuse_null(value)?;
            return escape_formatter(out, state, value);
        }
        let quoted = words(value)?.join(" ");
        out.write_str(&quoted).map_err(Error::from)
    });
    environment
}

fn refuse_null(value: &minijinja::Value) -> Result<(), Error> {
    if value.is_none() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the value is null; say what to use then, as in {{ x or '' }}",
        ));
    }
    Ok(())
}

/// The shell words that a value stands for: a list is a word for each of its items.
fn words(value: &minijinja::Value) -> Result<Vec<String>, Error> {
    refuse_null(value)?;
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Map => Err(Error::new(
            ErrorKind::InvalidOperation,
            "an object cannot be a word of a script; name one of its fields",
        )),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| words(&item)).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
        }
        _ => Ok(vec![quote(&value.to_string())]),
    }
}

/// One word for a POSIX shell.
///
/// NUL cannot stand in a Kubernetes object's strings and is dropped, as a shell would.
pub fn quote(text: &str) -> String {
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map(Into::into).unwrap_or_default()
}

/// Fills one template in.
///
/// # Errors
/// A message for people: what is undefined, null or malformed.
pub fn render(template: &str, mode: Mode, context: &impl Serialize) -> Result<String, String> {
    if !template.contains("{{") && !template.contains("{%") && !template.contains("{#") {
        return Ok(template.to_owned());
    }
    environment(mode).render_str(template, Serde(context)).map_err(|error| explain(template, &error))
}

/// The names that a template uses and does not set itself, with their fields: `facts.os.family`.
///
/// # Errors
/// Where the template cannot be parsed.
pub fn names(template: &str) -> Result<Vec<String>, String> {
    let environment = environment(Mode::Text);
    let parsed = environment.template_from_str(template).map_err(|error| explain(template, &error))?;
    let mut names: Vec<String> = parsed.undeclared_variables(true).into_iter().collect();
    names.sort();
    Ok(names)
}

fn explain(template: &str, error: &Error) -> String {
    let line = error.line().and_then(|line| template.lines().nth(line.saturating_sub(1))).map(str::trim);
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match line {
        Some(line) => format!("{detail}, in: {}", crate::api::conditions::clip(line, 120)),
        None => detail,
    }
}

/// Fills every template of a phase in for one node. `token` is a text that makes the digest another one; empty, it does
/// not count.
///
/// # Errors
/// The first template that cannot be filled in, with its action.
pub fn phase(name: &PhaseName, actions: &[Action], token: &str, context: &Context) -> Result<Rendered, RenderError> {
    let actions = actions.iter().map(|action| fill_in(action, context)).collect::<Result<Vec<_>, _>>()?;
    let models: Value = actions.iter().map(model).collect();
    let digest =
        Digest::of("phase", &if token.is_empty() { models } else { json!({"actions": models, "token": token}) });
    Ok(Rendered { phase: name.clone(), actions, digest })
}

fn fill_in(action: &Action, context: &Context) -> Result<Action, RenderError> {
    let fill = |template: &str, mode| {
        render(template, mode, context).map_err(|message| RenderError { action: action.name.clone(), message })
    };
    let optional = |template: &Option<String>, mode| template.as_deref().map(|t| fill(t, mode)).transpose();
    let refuse = |message: String| RenderError { action: action.name.clone(), message };
    let path = |template: &str| absolute(fill(template, Mode::Text)?).map_err(refuse);
    let word = |template: &str| plain(fill(template, Mode::Text)?).map_err(refuse);
    let by_fact = |fact: &str, known: &[&str]| manager(context, fact, known).map_err(refuse);
    let kind = match &action.kind {
        ActionKind::Exec { script, creates, unless, only_if } => ActionKind::Exec {
            script: fill(script, Mode::Shell)?,
            creates: optional(creates, Mode::Text)?,
            unless: optional(unless, Mode::Shell)?,
            only_if: optional(only_if, Mode::Shell)?,
        },
        ActionKind::File { path: place, content, mode, owner, group } => ActionKind::File {
            path: path(place)?,
            content: fill(content, Mode::Text)?,
            mode: mode.clone(),
            owner: owner.clone(),
            group: group.clone(),
        },
        ActionKind::Directory { path: place, mode, owner, group } => {
            ActionKind::Directory { path: path(place)?, mode: mode.clone(), owner: owner.clone(), group: group.clone() }
        }
        ActionKind::Symlink { path: place, target } => {
            ActionKind::Symlink { path: path(place)?, target: fill(target, Mode::Text)? }
        }
        ActionKind::Package { names, state, .. } => ActionKind::Package {
            names: names.iter().map(|name| word(name)).collect::<Result<_, _>>()?,
            state: *state,
            manager: by_fact("packageManager", PACKAGE_MANAGERS)?,
        },
        ActionKind::Service { name, state, enabled, .. } => ActionKind::Service {
            name: word(name)?,
            state: *state,
            enabled: *enabled,
            manager: by_fact("serviceManager", SERVICE_MANAGERS)?,
        },
    };
    Ok(Action { name: action.name.clone(), kind })
}

fn absolute(path: String) -> Result<String, String> {
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(format!("the path {path:?} is not absolute; begin it with a slash"))
    }
}

/// A name that no tool takes for an option or for several names.
fn plain(name: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "@%_+.:=~/-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is no name: it must consist of letters, digits and @%_+.:=~/-, and begin with a letter or digit"
        ))
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

/// The canonical model of an action: what it does, and nothing that stands at its default. Names do not count.
pub fn model(action: &Action) -> Value {
    let fields = match &action.kind {
        ActionKind::Exec { script, creates, unless, only_if } => json!({"exec": {
            "script": script, "creates": creates, "unless": unless, "onlyIf": only_if,
        }}),
        ActionKind::File { path, content, mode, owner, group } => json!({"file": {
            "path": path, "content": content, "mode": (mode != super::DEFAULT_MODE).then_some(mode),
            "owner": owner, "group": group,
        }}),
        ActionKind::Directory { path, mode, owner, group } => json!({"directory": {
            "path": path, "mode": mode, "owner": owner, "group": group,
        }}),
        ActionKind::Symlink { path, target } => json!({"symlink": {"path": path, "target": target}}),
        ActionKind::Package { names, state, manager } => json!({"package": {
            "names": names, "state": (*state != PackageState::Present).then_some(state), "manager": manager,
        }}),
        ActionKind::Service { name, state, enabled, manager } => json!({"service": {
            "name": name, "state": state, "enabled": enabled, "manager": manager,
        }}),
    };
    without_nulls(fields)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        other => other,
    }
}

/// Fills the values of settings in for one node. They see everything but `settings` itself.
///
/// # Errors
/// The first value that cannot be filled in.
pub fn values(declared: &BTreeMap<String, Value>, context: &Context) -> Result<BTreeMap<String, Value>, RenderError> {
    fn fill(value: &Value, context: &Context) -> Result<Value, String> {
        Ok(match value {
            Value::String(template) => render(template, Mode::Text, context)?.into(),
            Value::Array(items) => items.iter().map(|item| fill(item, context)).collect::<Result<_, _>>()?,
            Value::Object(map) => {
                map.iter().map(|(k, v)| Ok((k.clone(), fill(v, context)?))).collect::<Result<_, String>>()?
            }
            scalar => scalar.clone(),
        })
    }
    declared
        .iter()
        .map(|(name, value)| {
            let filled = fill(value, context)
                .map_err(|message| RenderError { action: format!("settings.values.{name}"), message })?;
            Ok((name.clone(), filled))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            group: GroupContext { name: "web".into(), namespace: "shop".into(), count: 3 },
            node: NodeContext { name: "web-1".into(), ordinal: 1, address: "10.0.0.2".into() },
            facts: Facts::from([
                ("hostile".into(), json!("a'b; rm -rf / $(x)")),
                ("gone".into(), Value::Null),
                ("addresses".into(), json!(["10.0.0.2", "fe80::1 x"])),
            ]),
            settings: BTreeMap::from([("port".into(), json!(8080))]),
        }
    }

    #[test]
    fn shell_quotes_and_text_does_not() {
        let hostile = "echo {{ facts.hostile }}";
        assert_eq!(render(hostile, Mode::Text, &context()).unwrap(), "echo a'b; rm -rf / $(x)");
        let quoted = render(hostile, Mode::Shell, &context()).unwrap();
        assert_eq!(shlex::split(&quoted).unwrap(), ["echo", "a'b; rm -rf / $(x)"]);
        assert_eq!(render("{{ facts.hostile | raw }}", Mode::Shell, &context()).unwrap(), "a'b; rm -rf / $(x)");
    }

    #[test]
    fn numbers_are_bare_and_lists_are_words() {
        assert_eq!(render("{{ settings.port }}", Mode::Shell, &context()).unwrap(), "8080");
        let list = render("{{ facts.addresses }}", Mode::Shell, &context()).unwrap();
        assert_eq!(shlex::split(&list).unwrap(), ["10.0.0.2", "fe80::1 x"]);
    }

    #[test]
    fn undefined_null_and_objects_are_refused() {
        for template in ["{{ settings.nope }}", "{{ nope }}", "{{ facts.gone }}", "{{ facts }}"] {
            assert!(render(template, Mode::Shell, &context()).is_err(), "{template}");
        }
        assert!(render("{{ facts.gone }}", Mode::Text, &context()).is_err());
        assert_eq!(render("{{ facts.gone or 'none' }}", Mode::Text, &context()).unwrap(), "none");
    }

    #[test]
    fn an_endless_template_ends() {
        let message = render(
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
            Mode::Text,
            &context(),
        );
        assert!(message.is_err());
    }

    #[test]
    fn names_are_told_with_their_fields() {
        let found =
            names("{% for a in facts.addresses %}{{ a }}{% endfor %}{{ facts.os.family }}{{ node.name }}").unwrap();
        assert_eq!(found, ["facts.addresses", "facts.os.family", "node.name"]);
        assert!(names("{{ unfinished").unwrap_err().contains("in: {{ unfinished"));
    }

    #[test]
    fn the_digest_follows_what_runs_and_not_its_name() {
        let exec = |name: &str, script: &str| Action {
            name: name.into(),
            kind: ActionKind::Exec { script: script.into(), creates: None, unless: None, only_if: None },
        };
        let digest = |a: Action| phase(&PhaseName::configure(), &[a], "", &context()).unwrap().digest;
        assert_eq!(digest(exec("a", "echo {{ node.ordinal }}")), digest(exec("b", "echo 1")));
        assert_ne!(digest(exec("a", "echo 1")), digest(exec("a", "echo 2")));
    }

    #[test]
    fn values_are_filled_in_below_lists_and_objects() {
        let declared = BTreeMap::from([("a".to_owned(), json!({"b": ["{{ node.name }}", 7, true]}))]);
        assert_eq!(values(&declared, &context()).unwrap()["a"], json!({"b": ["web-1", 7, true]}));
    }
}
