//! Pure: what a group inherits. ServerSpecs in the order in which they are extended, each once, and their parameters.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Errors, scope::list};
use crate::phase::render;
use pallet_api::{
    GroupSpecFields, ServerSpec,
    phases::PhaseFields,
    server_spec::{ExtendFields, ParameterFields, ParameterType},
};

/// The ServerSpecs of a namespace, by name.
pub type ServerSpecs = BTreeMap<String, Arc<ServerSpec>>;

/// The most ServerSpecs that a group may inherit from, directly or not.
const MOST: usize = 64;

/// How many bytes the parameters of a ServerSpec may come to, as JSON, and what a Lift gives for them.
const LONGEST: usize = 64 << 10;
/// The same for the parameters of all ServerSpecs of a group.
const LONGEST_IN_ALL: usize = 256 << 10;
/// How many items a list or object among them may have.
const MOST_ITEMS: usize = 4096;
/// How deep lists and objects among them may lie in each other.
const DEEPEST: usize = 16;

enum Excess {
    Size,
    Items,
    Depth,
}

/// Takes the length of a value as JSON, about, from the room there is.
fn measure(value: &Value, depth: usize, room: &mut usize) -> Result<(), Excess> {
    let own = match value {
        Value::String(text) => text.len() + 2,
        Value::Object(map) => map.keys().map(|key| key.len() + 4).sum::<usize>() + 2,
        Value::Array(items) => items.len() + 2,
        _ => 4,
    };
    *room = room.checked_sub(own).ok_or(Excess::Size)?;
    let items = value.as_array().map_or(0, Vec::len).max(value.as_object().map_or(0, Map::len));
    if items > MOST_ITEMS {
        return Err(Excess::Items);
    }
    if items > 0 && depth >= DEEPEST {
        return Err(Excess::Depth);
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| measure(item, depth + 1, room)),
        Value::Object(map) => map.values().try_for_each(|item| measure(item, depth + 1, room)),
        _ => Ok(()),
    }
}

/// One source of phases: a ServerSpec, or the group itself.
pub(super) struct Layer<'a> {
    /// The ServerSpec; none for the group.
    pub(super) origin: Option<Arc<str>>,
    /// What leads the paths of its fields.
    pub(super) path: String,
    pub(super) phases: &'a BTreeMap<String, PhaseFields>,
    pub(super) default_phases: &'a [String],
    /// What its templates see as `params`.
    pub(super) params: Value,
}

impl Layer<'_> {
    /// The name of an action or expectation as phase results show it.
    pub(super) fn qualified(&self, name: &str) -> String {
        match &self.origin {
            Some(origin) => format!("{origin}/{name}"),
            None => name.to_owned(),
        }
    }
}

/// A ServerSpec that is inherited from, and what was given for its parameters and where.
struct Inherited<'a> {
    spec: &'a ServerSpec,
    /// By the specs that extend it.
    given: Vec<Given>,
    /// By the group.
    by_group: Vec<Given>,
}

struct Given {
    path: String,
    with: BTreeMap<String, Value>,
}

/// What a Lift gives for parameters, by ServerSpec and name.
type Overrides = BTreeMap<(String, String), Value>;

/// All that is inherited, in order.
#[derive(Default)]
struct Ancestry<'a> {
    order: Vec<String>,
    known: BTreeMap<String, Inherited<'a>>,
    /// The names on the way from the group to where we are.
    trail: Vec<String>,
}

/// The names of the ServerSpecs that a group depends on, those that are not there included: whatever changes about one of
/// them may change the group.
pub fn uses(spec: &GroupSpecFields, specs: &ServerSpecs) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open: Vec<&str> = spec.extends.iter().map(|extend| extend.server_spec.as_str()).collect();
    while let Some(name) = open.pop() {
        if found.iter().any(|known| known == name) || found.len() > MOST {
            continue;
        }
        found.push(name.to_owned());
        let further = specs.get(name).into_iter().flat_map(|found| &found.spec.extends);
        open.extend(further.map(|extend| extend.server_spec.as_str()));
    }
    found
}

/// The roles of a group, those of its ServerSpecs included, as far as they can be told: an error elsewhere takes none away.
pub fn roles(spec: &GroupSpecFields, specs: &ServerSpecs) -> Vec<String> {
    let inherited = uses(spec, specs);
    let of_specs = inherited.iter().filter_map(|name| specs.get(name)).flat_map(|found| &found.spec.roles);
    let mut roles: Vec<String> = spec.roles.iter().chain(of_specs).cloned().collect();
    roles.sort();
    roles.dedup();
    roles
}

impl Errors {
    /// The sources of a group's phases: what is inherited first, the group itself last.
    ///
    /// `overrides` are the values that a Lift gives for parameters.
    pub(super) fn layers<'a>(
        &mut self,
        spec: &'a GroupSpecFields,
        specs: &'a ServerSpecs,
        overrides: &BTreeMap<String, Value>,
    ) -> Vec<Layer<'a>> {
        let mut ancestry = Ancestry::default();
        for (place, extend) in spec.extends.iter().enumerate() {
            self.inherit(&mut ancestry, specs, extend, &format!("spec.extends[{place}]"), None);
        }
        let overrides = self.overrides(&ancestry, overrides);
        let mut layers: Vec<Layer> = Vec::new();
        let mut all = Map::new();
        // A ServerSpec may give parameters to those that it extends, so its own are to be known before theirs.
        let mut params: BTreeMap<String, Value> = BTreeMap::new();
        for name in ancestry.order.iter().rev() {
            let resolved = self.parameters(&ancestry, name, &params, &overrides);
            self.bounded(&format!("ServerSpec {name}: spec.parameters"), &resolved, LONGEST);
            params.insert(name.clone(), resolved);
        }
        for name in &ancestry.order {
            let Some(inherited) = ancestry.known.get(name) else { continue };
            let own = params.remove(name).unwrap_or_default();
            all.insert(name.clone(), own.clone());
            layers.push(Layer {
                origin: Some(name.as_str().into()),
                path: format!("ServerSpec {name}: spec"),
                phases: &inherited.spec.spec.phases,
                default_phases: &inherited.spec.spec.default_phases,
                params: own,
            });
        }
        let all = Value::Object(all);
        self.bounded("spec.extends", &all, LONGEST_IN_ALL);
        layers.push(Layer {
            origin: None,
            path: "spec".to_owned(),
            phases: &spec.phases,
            default_phases: &[],
            params: all,
        });
        layers
    }

    /// Goes down one branch. What is extended comes before what extends it, each once.
    fn inherit<'a>(
        &mut self,
        ancestry: &mut Ancestry<'a>,
        specs: &'a ServerSpecs,
        extend: &'a ExtendFields,
        path: &str,
        by: Option<&str>,
    ) {
        let name = &extend.server_spec;
        if ancestry.trail.contains(name) {
            let mut way = ancestry.trail.clone();
            way.push(name.clone());
            self.add(format!("{path}.serverSpec"), format!("a cycle: {}; take one of them out", way.join(" -> ")));
            return;
        }
        let Some(spec) = specs.get(name) else {
            let known: Vec<&str> = specs.keys().map(String::as_str).take(8).collect();
            let message = format!("there is no ServerSpec {name:?} in this namespace; there are {}", list(&known));
            self.add(format!("{path}.serverSpec"), message);
            return;
        };
        let given = Given { path: format!("{path}.with"), with: extend.with.clone() };
        let first = !ancestry.known.contains_key(name);
        if first && ancestry.known.len() >= MOST {
            self.add(path, format!("there are more than {MOST} ServerSpecs in all; merge some of them"));
            return;
        }
        let inherited = ancestry.known.entry(name.clone()).or_insert_with(|| Inherited {
            spec,
            given: Vec::new(),
            by_group: Vec::new(),
        });
        match by {
            None => inherited.by_group.push(given),
            Some(_) => inherited.given.push(given),
        }
        if !first {
            return;
        }
        ancestry.trail.push(name.clone());
        for (place, extend) in spec.spec.extends.iter().enumerate() {
            let path = format!("ServerSpec {name}: spec.extends[{place}]");
            self.inherit(ancestry, specs, extend, &path, Some(name));
        }
        ancestry.trail.pop();
        ancestry.order.push(name.clone());
    }

    /// The parameters of a ServerSpec: its defaults, then what those that extend it give, then what the group gives.
    fn parameters(
        &mut self,
        ancestry: &Ancestry,
        name: &str,
        params: &BTreeMap<String, Value>,
        overrides: &Overrides,
    ) -> Value {
        let Some(inherited) = ancestry.known.get(name) else { return Value::Null };
        let declared = &inherited.spec.spec.parameters;
        let mut values = Map::new();
        for (parameter, fields) in declared {
            let value = fields.default.clone().unwrap_or_default();
            if !value.is_null() && fields.required {
                let path = format!("ServerSpec {name}: spec.parameters.{parameter}");
                self.add(path, "a parameter that is required has no use for a default; remove one of them");
            }
            if !value.is_null() {
                self.typed(&format!("ServerSpec {name}: spec.parameters.{parameter}.default"), fields.r#type, &value);
            }
            values.insert(parameter.clone(), value);
        }
        let from_group = self.given(&inherited.by_group, declared, params, &BTreeMap::new());
        let from_specs = self.given(&inherited.given, declared, params, &from_group);
        let mut needed = Vec::new();
        let overridden = |parameter: &String| overrides.get(&(name.to_owned(), parameter.clone()));
        for (parameter, fields) in declared {
            if let Some(value) = overridden(parameter) {
                values.insert(parameter.clone(), value.clone());
                continue;
            }
            match from_group.get(parameter).or_else(|| from_specs.get(parameter)) {
                Some((_, value)) if !(fields.required && value.is_null()) => {
                    values.insert(parameter.clone(), value.clone());
                }
                _ if fields.required => needed.push(parameter.as_str()),
                _ => {}
            }
        }
        if let (false, Some(at)) = (needed.is_empty(), inherited.by_group.first().or(inherited.given.first())) {
            let message = format!("ServerSpec {name} needs values for {}", needed.join(", "));
            self.add(at.path.clone(), message);
        }
        Value::Object(values)
    }

    /// What a Lift gives for parameters: by name alone where one ServerSpec has it, else with that one's name before it.
    fn overrides(&mut self, ancestry: &Ancestry, given: &BTreeMap<String, Value>) -> Overrides {
        let mut found = Overrides::new();
        let whole = Value::Object(given.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        if !self.bounded("spec.with", &whole, LONGEST) {
            return found;
        }
        for (key, value) in given {
            let path = format!("spec.with.{key}");
            let (spec, parameter) = key.split_once('.').map_or((None, key.as_str()), |(spec, name)| (Some(spec), name));
            let declares = |name: &&String| {
                spec.is_none_or(|spec| spec == *name)
                    && ancestry.known.get(*name).is_some_and(|known| known.spec.spec.parameters.contains_key(parameter))
            };
            let owners: Vec<&String> = ancestry.order.iter().filter(declares).collect();
            match owners.as_slice() {
                [owner] => {
                    let fields = ancestry.known.get(*owner).and_then(|known| known.spec.spec.parameters.get(parameter));
                    if let (Some(fields), false) = (fields, value.is_null()) {
                        self.typed(&path, fields.r#type, value);
                    }
                    found.insert(((*owner).clone(), parameter.to_owned()), value.clone());
                }
                [] => {
                    let all = ancestry.known.iter().flat_map(|(name, known)| {
                        known.spec.spec.parameters.keys().map(move |parameter| format!("{name}.{parameter}"))
                    });
                    let all: Vec<String> = all.take(16).collect();
                    let known: Vec<&str> = all.iter().map(String::as_str).collect();
                    self.add(path, format!("there is no such parameter; there are {}", list(&known)));
                }
                several => {
                    let names: Vec<String> = several.iter().map(|owner| format!("{owner}.{parameter}")).collect();
                    self.add(path, format!("several ServerSpecs have it; say which is meant: {}", names.join(", ")));
                }
            }
        }
        found
    }

    /// What was given for parameters, by those of one rank. Two different values for one parameter contradict each other,
    /// unless somebody of a higher rank has decided.
    fn given(
        &mut self,
        given: &[Given],
        declared: &BTreeMap<String, ParameterFields>,
        params: &BTreeMap<String, Value>,
        decided: &BTreeMap<String, (String, Value)>,
    ) -> BTreeMap<String, (String, Value)> {
        let mut values: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for Given { path, with } in given {
            for (parameter, value) in with {
                let path = format!("{path}.{parameter}");
                let Some(fields) = declared.get(parameter) else {
                    let known: Vec<&str> = declared.keys().map(String::as_str).collect();
                    self.add(path, format!("there is no such parameter; there are {}", list(&known)));
                    continue;
                };
                let Some(value) = self.constant(&path, value, params) else { continue };
                if !value.is_null() {
                    self.typed(&path, fields.r#type, &value);
                }
                match values.get(parameter) {
                    Some((other, known)) if *known != value && !decided.contains_key(parameter) => {
                        let message =
                            format!("{value} here and {known} in {other}; give one value, in the group's own extends");
                        self.add(path, message);
                    }
                    _ => {
                        values.insert(parameter.clone(), (path, value));
                    }
                }
            }
        }
        values
    }

    /// A value as it is given: in a ServerSpec its strings are templates over that one's own parameters.
    fn constant(&mut self, path: &str, value: &Value, params: &BTreeMap<String, Value>) -> Option<Value> {
        let by = path.strip_prefix("ServerSpec ").and_then(|rest| rest.split_once(':')).map(|(name, _)| name);
        let own = by.and_then(|name| params.get(name));
        match render::constant(value, own, &self.budget) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.add(path, fault.to_string());
                None
            }
        }
    }

    /// Refuses values that are too large to be evaluated again and again.
    fn bounded(&mut self, path: &str, value: &Value, most: usize) -> bool {
        let mut room = most;
        let message = match measure(value, 0, &mut room) {
            Ok(()) => return true,
            Err(Excess::Size) => format!("the values come to more than {} KiB in all; make them shorter", most >> 10),
            Err(Excess::Items) => {
                format!("a list or object has more than {MOST_ITEMS} items; make it shorter, or several of it")
            }
            Err(Excess::Depth) => {
                format!("lists and objects lie more than {DEEPEST} deep in each other; make it flatter")
            }
        };
        self.add(path, message);
        false
    }

    fn typed(&mut self, path: &str, r#type: ParameterType, value: &Value) {
        let fits = match r#type {
            ParameterType::String => value.is_string(),
            ParameterType::Integer => value.is_i64() || value.is_u64(),
            ParameterType::Number => value.is_number(),
            ParameterType::Boolean => value.is_boolean(),
            ParameterType::Array => value.is_array(),
            ParameterType::Object => value.is_object(),
        };
        if !fits {
            let wanted = serde_json::to_value(r#type).unwrap_or_default();
            let wanted = wanted.as_str().unwrap_or_default().to_owned();
            let shown = pallet_api::conditions::clip(&value.to_string(), 80);
            self.add(path, format!("{shown} is not of type {wanted}"));
        }
    }
}
