//! The filters, tests, functions and methods of templates: what they are called, which arguments they take, and what each
//! may take of the operator.
//!
//! They mean what they mean in Jinja2 and Ansible; `tests/dialects` compares. Names and arguments are known before anything
//! is filled in, so that [`check`] finds what is wrong in branches that are not taken.

mod crypt;
mod digest;
mod format;
mod json;
mod lists;
mod maps;
mod methods;
mod net;
mod numbers;
pub(super) mod python;
mod random;
mod regexes;
mod signatures;
mod texts;
mod truths;
mod version;
mod words;
mod yaml;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind},
};

use super::bounds::{Allowance, ITEM, allowance};
pub(super) use format::{cost as pattern_cost, percent};
pub(super) use methods::call as method;
pub(super) use signatures::{Room, Signature, check_call, check_filter, check_function, check_method, check_test};
pub(super) use truths::compare;
pub(super) use words::{Quoted, shell_quote};

pub(super) fn refusal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The numbers of `range()`, which are not made before they are asked for.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
    count: usize,
}

/// The most numbers that a range has.
const LONGEST_RANGE: i128 = 100_000;

impl Range {
    fn written(&self) -> String {
        match self.step {
            1 => format!("range({}, {})", self.start, self.stop),
            step => format!("range({}, {}, {step})", self.start, self.stop),
        }
    }
}

/// What one call was given, by the places of its signature.
pub(super) struct Call<'c, 's, 't, 'e> {
    state: &'c mut State<'t, 'e>,
    args: Vec<Option<Value>>,
    rest: Vec<Value>,
    named: Vec<(String, Value)>,
    paid: u64,
    signature: &'s Signature,
}

type Made = Result<Value, Error>;
type Run = fn(&mut Call) -> Made;

/// One filter, test, function or method, with all its names.
pub(super) struct Entry {
    pub(super) names: &'static [&'static str],
    pub(super) signature: Signature,
    run: Run,
}

/// `signature` lists the parameters: `text, width=, *rest, **named`. Those with `=` may be left out. A `?` before all of it
/// says that items of lists may be undefined.
fn entry(names: &'static [&'static str], signature: &'static str, run: Run) -> Entry {
    Entry { names, signature: Signature::of(signature), run }
}

type Table = BTreeMap<&'static str, &'static Entry>;

fn table(entries: Vec<Entry>) -> Table {
    // Made once for the life of the process.
    let entries: &'static [Entry] = Vec::leak(entries);
    entries.iter().flat_map(|entry| entry.names.iter().map(move |&name| (name, entry))).collect()
}

/// The filters by name.
pub(super) fn filters() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let groups = [
            texts::filters(),
            words::filters(),
            numbers::filters(),
            lists::filters(),
            maps::filters(),
            json::filters(),
            yaml::filters(),
            regexes::filters(),
            digest::filters(),
            crypt::filters(),
            random::filters(),
            net::filters(),
        ];
        table(groups.into_iter().flatten().collect())
    });
    &TABLE
}

/// The tests by name.
pub(super) fn tests() -> &'static Table {
    static TABLE: LazyLock<Table> =
        LazyLock::new(|| table([truths::tests(), regexes::tests(), version::tests()].into_iter().flatten().collect()));
    &TABLE
}

/// The functions by name.
pub(super) fn functions() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| table(lists::functions()));
    &TABLE
}

/// All names, each with what it is a name of.
pub(super) fn vocabulary() -> Vec<(&'static str, &'static str)> {
    let of = |what, table: &'static Table| table.keys().map(move |name| (what, *name));
    let methods = methods::names().map(|name| ("method", name));
    of("filter", filters()).chain(of("test", tests())).chain(of("function", functions())).chain(methods).collect()
}

impl Entry {
    /// Pays for the arguments, calls, and pays for what was made.
    ///
    /// # Errors
    /// The arguments do not fit, are undefined, cost too much, or the call fails.
    pub(super) fn call(&self, name: &str, state: &mut State, args: &[Value]) -> Made {
        let allowance = allowance(state);
        let mut paid = 0;
        for value in args {
            let cost =
                if self.signature.is_lenient { allowance.pay_for(value) } else { allowance.pay_for_defined(value) };
            paid += cost?;
        }
        let bound = self.signature.bind(name, args)?;
        let (args, rest, named) = bound;
        if !self.signature.is_lenient {
            let all = args.iter().flatten().chain(&rest).chain(named.iter().map(|(_, value)| value));
            if let Some(value) = all.into_iter().find(|value| value.is_undefined()) {
                return Err(python::undefined(value));
            }
        }
        let mut call = Call { state, args, rest, named, paid, signature: &self.signature };
        let value = (self.run)(&mut call)?;
        super::bounds::made(call.state, value)
    }
}

impl<'t, 'e> Call<'_, '_, 't, 'e> {
    /// Pays for work beside the arguments and the result.
    fn pay(&mut self, units: u64) -> Result<(), Error> {
        self.allowance().pay(units)
    }

    /// Pays so many times what the arguments cost.
    fn pay_times(&mut self, factor: u64) -> Result<(), Error> {
        let units = self.paid.saturating_mul(factor);
        self.pay(units)
    }

    /// Pays for so many items.
    fn pay_items(&mut self, items: usize) -> Result<(), Error> {
        self.pay((items as u64).saturating_mul(ITEM))
    }

    fn allowance(&mut self) -> &mut Allowance {
        allowance(self.state)
    }

    fn given(&self, place: usize) -> Option<&Value> {
        self.args.get(place).and_then(Option::as_ref)
    }

    /// The argument, or null where it was left out.
    fn value(&self, place: usize) -> Value {
        self.given(place).cloned().unwrap_or_else(|| Value::from(()))
    }

    /// What a message calls an argument.
    fn name_of(&self, place: usize) -> &'static str {
        self.signature.names.get(place).copied().unwrap_or("value")
    }

    /// The text of an argument, whatever it is.
    fn text(&mut self, place: usize) -> Result<String, Error> {
        let value = self.value(place);
        if value.as_str().is_none() {
            // Within a list it is written escaped.
            self.pay_times(8)?;
        }
        python::text(&value)
    }

    /// An argument that is text.
    fn string(&self, place: usize) -> Result<String, Error> {
        let value = self.value(place);
        match (value.kind(), value.as_str()) {
            (ValueKind::String, Some(text)) => Ok(text.to_owned()),
            _ => Err(self.refuse(place, "text", &value)),
        }
    }

    fn string_or(&self, place: usize, other: &str) -> Result<String, Error> {
        match self.given(place) {
            None => Ok(other.to_owned()),
            Some(_) => self.string(place),
        }
    }

    fn refuse(&self, place: usize, wanted: &str, value: &Value) -> Error {
        refusal(format!("{} is to be {wanted}, and is {}", self.name_of(place), python::kind(value)))
    }

    fn integer_or(&self, place: usize, other: i64) -> Result<i64, Error> {
        match self.given(place) {
            None => Ok(other),
            Some(value) => python::whole(value)
                .and_then(|number| i64::try_from(number).ok())
                .ok_or_else(|| self.refuse(place, "a whole number", value)),
        }
    }

    fn flag(&self, place: usize, other: bool) -> bool {
        self.given(place).map_or(other, Value::is_true)
    }

    /// The items of an argument: of a list, the characters of a text, the keys of a mapping.
    fn items(&mut self, place: usize) -> Result<Vec<Value>, Error> {
        let value = self.value(place);
        if value.is_none() {
            return Err(refusal("null is no list; say what to use then, as in (x or [])"));
        }
        if let Some(text) = value.as_str() {
            let characters = text.len();
            self.pay_items(characters)?;
        }
        match value.kind() {
            ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                Ok(value.try_iter()?.collect())
            }
            ValueKind::Undefined => Err(python::undefined(&value)),
            _ => Err(self.refuse(place, "a list", &value)),
        }
    }

    /// The items of an argument that is a list.
    fn list(&mut self, place: usize) -> Result<Vec<Value>, Error> {
        let value = self.value(place);
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => Ok(value.try_iter()?.collect()),
            ValueKind::Undefined => Err(python::undefined(&value)),
            _ => Err(self.refuse(place, "a list", &value)),
        }
    }

    /// The keys and values of an argument that is a mapping.
    fn pairs(&self, place: usize) -> Result<Vec<(Value, Value)>, Error> {
        let value = self.value(place);
        match value.kind() {
            ValueKind::Map => pairs(&value),
            ValueKind::Undefined => Err(python::undefined(&value)),
            _ => Err(self.refuse(place, "a mapping", &value)),
        }
    }

    fn named(&self, name: &str) -> Option<&Value> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn apply(&mut self, filter: &str, args: &[Value]) -> Made {
        self.state.apply_filter(filter, args)
    }

    fn test(&mut self, test: &str, args: &[Value]) -> Result<bool, Error> {
        self.state.perform_test(test, args)
    }
}

/// The keys and values of a mapping.
fn pairs(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    map.try_iter()?.map(|key| Ok((key.clone(), map.get_item(&key)?))).collect()
}

/// A mapping in the order of its pairs; a key that comes again replaces the value and keeps its place.
fn mapping(pairs: impl IntoIterator<Item = (Value, Value)>) -> Value {
    Value::from_pairs(pairs)
}

/// Arguments by name, as a value to call with.
fn by_name(named: &[(String, Value)]) -> Value {
    Kwargs::from_iter(named.iter().map(|(name, value)| (name.clone(), value.clone()))).into()
}
