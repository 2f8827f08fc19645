//! Pure: templates. Undefined values are errors; what goes into a script is quoted for the shell unless marked `raw`.

mod actions;
mod bounds;
pub(crate) mod checks;
mod comments;
mod header;
mod library;
mod lockout;
pub mod memo;
mod metered;
mod names;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use minijinja::{
    Environment, Error, ErrorKind, escape_formatter,
    value::{Serde, ValueKind},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    facts::Facts,
    group::{Attributes, Setting, inputs::Inputs},
    phase::{
        budget::{Budget, REASON},
        expect,
    },
};
pub use actions::{Call, RenderError, Rendered, model, phase};
pub use lockout::{Login, LoginKey};

/// What templates and expressions see.
#[derive(Clone, Debug, Serialize)]
pub struct Context {
    /// `group.name`, `group.namespace`, `group.count`.
    pub group: GroupContext,
    /// `node.name`, `node.ordinal`, `node.address`; of a host `node.host`, `node.labels` and `node.params` too.
    pub node: NodeContext,
    /// The facts that do not change by themselves.
    pub facts: Facts,
    /// The rendered values of settings.
    pub settings: BTreeMap<String, Value>,
    /// The parameters, by ServerSpec; within a ServerSpec its own.
    pub params: Value,
    /// The nodes of the roles that the group names, by role.
    pub nodes: minijinja::Value,
    /// What stands in other objects.
    #[serde(skip)]
    pub inputs: Arc<Inputs>,
    /// All facts, those that change by themselves included: what conditions see.
    #[serde(skip)]
    pub whole: Facts,
    /// As whom the operator logs in, where it does.
    #[serde(skip)]
    pub login: Option<Login>,
    /// What templates and conditions may still take. Clones share it.
    #[serde(skip)]
    pub budget: Budget,
}

impl Context {
    /// What the actions and values that come from a ServerSpec see, or the group's own where there is none.
    pub fn within(&self, origin: Option<&str>) -> Self {
        let params = match origin {
            Some(name) => self.params.get(name).cloned().unwrap_or_else(|| json!({})),
            None => self.params.clone(),
        };
        Self { params, ..self.clone() }
    }

    /// What conditions and expectations see.
    pub fn with_volatile(&self) -> Self {
        Self { facts: self.whole.clone(), nodes: minijinja::Value::UNDEFINED, ..self.clone() }
    }
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
    /// `node.host`, `node.labels` and `node.params`, where it is a host.
    #[serde(flatten)]
    pub attributes: Arc<Attributes>,
}

/// How a template's values are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// As they are: paths, contents of files, values.
    Text,
    /// Quoted as one word each.
    Shell,
    /// As they are, and none of them empty: a name without one of its parts is another name.
    Name,
}

/// One for each mode, made once: making one costs more than most templates.
fn environment(mode: Mode) -> &'static Environment<'static> {
    static TEXT: LazyLock<Environment> = LazyLock::new(|| make_environment(Mode::Text));
    static SHELL: LazyLock<Environment> = LazyLock::new(|| make_environment(Mode::Shell));
    static NAME: LazyLock<Environment> = LazyLock::new(|| make_environment(Mode::Name));
    match mode {
        Mode::Text => &TEXT,
        Mode::Shell => &SHELL,
        Mode::Name => &NAME,
    }
}

fn make_environment(mode: Mode) -> Environment<'static> {
    let mut environment = bounds::environment();
    environment.add_filter("required", required);
    environment.add_filter("raw", |value: String| minijinja::Value::from_safe_string(value));
    if mode == Mode::Shell {
        let quote = |state: &mut minijinja::State, value: minijinja::Value| {
            bounds::pay_for_quoting(state, &value)?;
            let text = if value.is_none() { String::new() } else { library::python::text(&value)? };
            let quoted = library::Quoted(library::shell_quote(&text.replace('\0', "")));
            Ok::<_, Error>(minijinja::Value::from_object(quoted))
        };
        let escape = |_: minijinja::Value| {
            let message = "escape is for XML and HTML; in a script each value is quoted for the shell already";
            Err::<minijinja::Value, _>(Error::new(ErrorKind::InvalidOperation, message))
        };
        for front in ["", "ansible.builtin."] {
            environment.add_filter(format!("{front}quote"), quote);
            environment.add_filter(format!("{front}escape"), escape);
            environment.add_filter(format!("{front}e"), escape);
        }
    }
    environment.set_formatter(move |out, state, value| {
        // Nothing where an `if` has no `else`, an error elsewhere.
        if value.is_undefined() {
            return escape_formatter(out, state, value);
        }
        if let Some(quoted) = value.downcast_object_ref::<library::Quoted>() {
            bounds::pay_for_writing(state, value)?;
            return out.write_str(&quoted.0).map_err(Error::from);
        }
        if mode != Mode::Shell || value.is_safe() {
            refuse_null(value)?;
            if mode == Mode::Name && value.as_str() == Some("") {
                let message = "a value within a name is empty; set it, or leave it out by {% if %}";
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
            bounds::pay_for_writing(state, value)?;
            return match value.as_str() {
                Some(text) => out.write_str(text),
                None => out.write_str(&library::python::text(value)?),
            }
            .map_err(Error::from);
        }
        bounds::pay_for_quoting(state, value)?;
        let quoted = words(value)?.join(" ");
        out.write_str(&quoted).map_err(Error::from)
    });
    environment
}

fn refuse_null(value: &minijinja::Value) -> Result<(), Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, library::python::NULL));
    }
    Ok(())
}

/// The shell words that a value stands for: a list is a word for each of its items.
fn words(value: &minijinja::Value) -> Result<Vec<String>, Error> {
    refuse_null(value)?;
    if let Some(quoted) = value.downcast_object_ref::<library::Quoted>() {
        return Ok(vec![quoted.0.clone()]);
    }
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Map => Err(Error::new(
            ErrorKind::InvalidOperation,
            "an object cannot be a word of a script; name one of its fields",
        )),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| words(&item)).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
        }
        _ => Ok(vec![quote(&library::python::text(value)?)]),
    }
}

/// One word for a POSIX shell.
///
/// NUL cannot stand in a Kubernetes object's strings and is dropped, as a shell would.
pub fn quote(text: &str) -> String {
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map(Into::into).unwrap_or_default()
}

/// Why a template cannot be filled in.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// For people: what is undefined, null or malformed.
    #[error("{0}")]
    Wrong(String),
    /// For people: nodes of a role that are not there yet, and that it says it needs.
    #[error("{0}")]
    Waits(String),
    /// For people: it was cut, since it takes too much work.
    #[error("{reason}: {0}", reason = REASON)]
    TooMuchWork(String),
}

impl From<expect::Unanswered> for Fault {
    fn from(why: expect::Unanswered) -> Self {
        match why {
            expect::Unanswered::Wrong(message) => Self::Wrong(message),
            expect::Unanswered::TooMuchWork(message) => Self::TooMuchWork(message),
        }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

/// That a list is shorter than a template needs it.
#[derive(Debug, thiserror::Error)]
#[error("it needs {wanted} nodes, and there are {found}")]
struct TooFew {
    wanted: usize,
    found: usize,
}

/// Makes a template wait until a list is long enough: `nodes.db | required(1)`.
fn required(value: minijinja::Value, wanted: usize) -> Result<minijinja::Value, Error> {
    let found = value.len().unwrap_or_default();
    if found >= wanted {
        return Ok(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, "not yet").with_source(TooFew { wanted, found }))
}

/// Fills one template in, with a budget of its own.
///
/// # Errors
/// See [`Fault`].
pub fn render(template: &str, mode: Mode, context: &impl Serialize) -> Result<String, Fault> {
    render_within(template, mode, context, &Budget::new())
}

/// Fills one template in. Its work is taken from the budget.
///
/// # Errors
/// See [`Fault`].
pub fn render_within(template: &str, mode: Mode, context: &impl Serialize, budget: &Budget) -> Result<String, Fault> {
    if !is_template(template) {
        return Ok(template.to_owned());
    }
    let (lines, template) = header::read(template)?;
    let context = Serde(context).into();
    bounds::render(environment(mode), &comments::shielded(template), lines, context, budget)
        .map_err(|error| fault(template, &error))
}

fn fault(template: &str, error: &Error) -> Fault {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<bounds::Cut>() {
            return Fault::TooMuchWork(explain(template, error));
        }
        if let Some(lack) = cause.downcast_ref::<TooFew>() {
            return Fault::Waits(format!("{lack}, in: {}", pallet_api::conditions::clip(template.trim(), 120)));
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Fault::TooMuchWork(explain(template, error)),
        _ => Fault::Wrong(explain(template, error)),
    }
}

/// A value whose strings are templates over `params`, where those are given. A string that is a single `{{ }}` becomes what
/// stands in it, whatever its type.
///
/// # Errors
/// See [`Fault`]; also where there is a template and no `params`.
pub fn constant(value: &Value, params: Option<&Value>, budget: &Budget) -> Result<Value, Fault> {
    Ok(match value {
        Value::String(text) if !is_template(text) => value.clone(),
        Value::String(text) => {
            let Some(params) = params else {
                let why = "it is taken as it is here: what depends on facts belongs into spec.phases.settings.values";
                return Err(Fault::Wrong(why.into()));
            };
            let context = json!({"params": params});
            let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            match inner.filter(|inner| !inner.contains("}}")) {
                Some(inner) => {
                    let value = bounds::evaluate(environment(Mode::Text), inner, Serde(&context).into(), budget);
                    let value = value.map_err(|error| fault(text, &error))?;
                    if value.is_undefined() {
                        return Err(format!("undefined value, in: {text}").into());
                    }
                    serde_json::to_value(&value).map_err(|error| error.to_string())?
                }
                None => render_within(text, Mode::Text, &context, budget)?.into(),
            }
        }
        Value::Array(items) => items.iter().map(|item| constant(item, params, budget)).collect::<Result<_, _>>()?,
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| Ok((key.clone(), constant(value, params, budget)?)))
            .collect::<Result<_, Fault>>()?,
        scalar => scalar.clone(),
    })
}

/// Whether a text is a template: `{#` alone is shell, or whatever else it may be.
pub(crate) fn is_template(text: &str) -> bool {
    ["{{", "{%"].iter().any(|mark| text.contains(mark)) || header::is_there(text)
}

/// What templates can call, by name: each with `filter`, `test`, `function` or `method`.
pub fn vocabulary() -> Vec<(&'static str, &'static str)> {
    let own = ["raw", "required"].map(|name| ("filter", name));
    own.into_iter().chain(library::vocabulary()).collect()
}

/// The names that a template uses and does not set itself, with their fields: `facts.os.family`.
///
/// # Errors
/// Where the template cannot be parsed.
pub fn names(template: &str) -> Result<Vec<String>, String> {
    names_within(template, &Budget::new()).map_err(|fault| fault.to_string())
}

/// As [`names`]; the work is taken from the budget.
///
/// # Errors
/// Where the template cannot be parsed, or the budget is used up.
pub fn names_within(template: &str, budget: &Budget) -> Result<Vec<String>, Fault> {
    if !is_template(template) {
        return Ok(Vec::new());
    }
    let (lines, template) = header::read(template)?;
    bounds::names(environment(Mode::Text), &comments::shielded(template), lines, budget)
        .map_err(|error| fault(template, &error))
}

fn explain(template: &str, error: &Error) -> String {
    let at = error.line().or_else(|| (template.lines().count() == 1).then_some(1));
    let line = at.and_then(|line| template.lines().nth(line.saturating_sub(1))).map(str::trim);
    let detail = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("the template does more than {} steps", bounds::FUEL),
        (kind, Some(detail)) => format!("{kind}: {}", pallet_api::conditions::clip(&one_line(detail), 400)),
        (kind, None) => kind.to_string(),
    };
    match line {
        Some(line) => format!("{detail}, in: {}", pallet_api::conditions::clip(line, 120)),
        None => detail,
    }
}

/// A message without line breaks, which would break the tables that it is shown in.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How the message of a value that cannot be filled in begins.
pub const VALUES: &str = "action settings.values.";

/// Fills the values of settings in for one node. They see everything but `settings` itself.
///
/// # Errors
/// The first value that cannot be filled in.
pub fn values(declared: &BTreeMap<String, Setting>, context: &Context) -> Result<BTreeMap<String, Value>, RenderError> {
    fn fill(value: &Value, context: &minijinja::Value, budget: &Budget) -> Result<Value, Fault> {
        Ok(match value {
            Value::String(template) => render_within(template, Mode::Text, context, budget)?.into(),
            Value::Array(items) => items.iter().map(|item| fill(item, context, budget)).collect::<Result<_, _>>()?,
            Value::Object(map) => {
                map.iter().map(|(k, v)| Ok((k.clone(), fill(v, context, budget)?))).collect::<Result<_, Fault>>()?
            }
            scalar => scalar.clone(),
        })
    }
    let seen = |context: &Context| minijinja::Value::from(Serde(context));
    let (of_group, mut of_specs) = (seen(context), HashMap::new());
    let mut one = |(name, setting): (&String, &Setting)| {
        let scope = match &setting.origin {
            Some(origin) => of_specs.entry(origin.clone()).or_insert_with(|| seen(&context.within(Some(origin)))),
            None => &of_group,
        };
        let refuse = |fault: Fault| RenderError { action: format!("settings.values.{name}"), fault };
        Ok((name.clone(), fill(&setting.value, scope, &context.budget).map_err(refuse)?))
    };
    if declared.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut room = bounds::LONGEST;
    let bounded = |setting: Result<(String, Value), RenderError>| {
        let (name, value) = setting?;
        let size = serde_json::to_vec(&value).map_or(usize::MAX, |json| json.len());
        room = room.checked_sub(size).ok_or_else(|| RenderError {
            action: format!("settings.values.{name}"),
            fault: "the values come to more than 1 MiB in all; make them shorter".to_owned().into(),
        })?;
        Ok((name, value))
    };
    declared.iter().map(&mut one).map(bounded).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn context() -> Context {
        Context {
            group: GroupContext { name: "web".into(), namespace: "shop".into(), count: 3 },
            node: NodeContext {
                name: "web-1".into(),
                ordinal: 1,
                address: "10.0.0.2".into(),
                attributes: Arc::default(),
            },
            facts: Facts::from([
                ("hostile".into(), json!("a'b; rm -rf / $(x)")),
                ("gone".into(), Value::Null),
                ("addresses".into(), json!(["10.0.0.2", "fe80::1 x"])),
            ]),
            settings: BTreeMap::from([("port".into(), json!(8080))]),
            params: json!({}),
            nodes: minijinja::Value::default(),
            inputs: Arc::default(),
            whole: Facts::new(),
            login: None,
            budget: Budget::new(),
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
    fn values_have_a_bound_in_all() {
        let value = || Setting { origin: None, value: json!("{{ 'x' * 60000 }}") };
        let declared: BTreeMap<_, _> = (0..20).map(|n| (format!("v{n}"), value())).collect();
        assert!(values(&declared, &context()).unwrap_err().to_string().contains("more than 1 MiB in all"));
    }

    #[test]
    fn values_are_filled_in_below_lists_and_objects() {
        let value = json!({"b": ["{{ node.name }}", 7, true]});
        let declared = BTreeMap::from([("a".to_owned(), Setting { origin: None, value })]);
        assert_eq!(values(&declared, &context()).unwrap()["a"], json!({"b": ["web-1", 7, true]}));
    }
}
