//! What a template may take of the operator, which renders those of all tenants: so many units of work and memory, one for
//! each byte of text, and some for each item, that is made, written or looked at.
//!
//! Fuel bounds steps, but one step may double a text, compare two large ones or write the same list a thousand times. So
//! the parsed template is rewritten ([`metered`]) until each of these passes through a filter of this module, which pays
//! from the [`Allowance`] first. What cannot be paid is an error.
//!
//! # Guarantees
//! No value is alive that was not paid for, none lies deeper than [`DEEPEST`], none holds itself, and none is reckoned out
//! anew each time that it is looked at.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    machinery::{self, CodeGenerator, parse, parse_expr},
    syntax::SyntaxConfig,
    value::{Object, Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::{
    library::{self, compare, python},
    metered::{self, CHAIN, COMPARE, CONCAT, FIELD, MADE, OUTSIDE, REST, ROUNDS, SLICE, TIMES, WHOLE},
};
use crate::phase::budget::{Budget, Meter, STEP, TooMuch};

/// No template does more than this many steps.
pub(super) const FUEL: u64 = 100_000;
/// How many units a template may take.
const ALLOWANCE: u64 = 16 << 20;
/// How many bytes a template may come to, and a value of settings or a parameter.
pub(super) const LONGEST: usize = 1 << 20;
/// How many bytes of text a template may have.
const LONGEST_SOURCE: usize = 256 << 10;
/// What an item costs beside its text: about what it takes of memory.
pub(super) const ITEM: u64 = 32;
/// How many digits a number with a fraction or an exponent may have when it is written.
const LONGEST_NUMBER: u64 = 350;
/// How deep lists and objects may lie in each other: dropping them recurses.
const DEEPEST: usize = 64;
/// How much longer a text may get where it is written within a list or object, or as JSON.
const ESCAPED: u64 = 8;

/// Counts the units of one rendering.
pub(super) struct Allowance(Meter);

impl Allowance {
    pub(super) fn pay(&mut self, units: u64) -> Result<(), Error> {
        if self.0.pay(units) { Ok(()) } else { Err(exceeded()) }
    }

    /// Pays for a value with all that is in it, and tells how much that was.
    pub(super) fn pay_for(&mut self, value: &Value) -> Result<u64, Error> {
        let before = self.0.used();
        self.walk(value, 0, false)?;
        Ok(self.0.used() - before)
    }

    /// As [`Self::pay_for`]; nothing that lies in it may be undefined.
    pub(super) fn pay_for_defined(&mut self, value: &Value) -> Result<u64, Error> {
        let before = self.0.used();
        self.walk(value, 0, true)?;
        Ok(self.0.used() - before)
    }

    /// Pays so many times for a value.
    pub(super) fn pay_for_each(&mut self, value: &Value, times: usize) -> Result<(), Error> {
        let once = self.pay_for(value)?;
        self.pay(once.saturating_mul(times as u64))
    }

    fn walk(&mut self, value: &Value, depth: usize, is_defined: bool) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(refusal("lists and objects lie more than 64 deep in each other"));
        }
        match value.kind() {
            ValueKind::String => self.pay(value.as_str().map_or(0, str::len) as u64 + u64::from(depth > 0) * ITEM),
            ValueKind::Bytes => self.pay(value.as_bytes().map_or(0, <[u8]>::len) as u64),
            ValueKind::Undefined if is_defined && depth > 0 => Err(Error::new(
                ErrorKind::UndefinedError,
                "an item of a list or a field of a mapping is undefined; say what to use then by default, or leave it out by \
                 select('defined')",
            )),
            ValueKind::Seq | ValueKind::Iterable => {
                self.pay(ITEM)?;
                value.try_iter()?.try_for_each(|item| self.walk(&item, depth + 1, is_defined))
            }
            ValueKind::Map => {
                self.pay(ITEM)?;
                value.try_iter()?.try_for_each(|key| {
                    self.walk(&key, depth + 1, is_defined)?;
                    self.walk(&value.get_item(&key)?, depth + 1, is_defined)
                })
            }
            ValueKind::Number if !value.is_integer() => self.pay(LONGEST_NUMBER),
            ValueKind::Plain => {
                let quoted = value.downcast_object_ref::<library::Quoted>();
                self.pay(ITEM + quoted.map_or(0, |quoted| quoted.0.len() as u64))
            }
            _ => self.pay(ITEM),
        }
    }
}

fn refusal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn exceeded() -> Error {
    refusal("the template makes or looks at more than 16 MiB in all; make less of it, or do it in the script")
}

pub(super) fn allowance<'s>(state: &'s mut State) -> &'s mut Allowance {
    if state.get_extension::<Allowance>().is_none() {
        let meter = state.lookup(METER).and_then(|meter| meter.downcast_object_ref::<Metered>().map(|it| it.0.clone()));
        // None where nothing was set up to render: then nothing can be paid.
        let meter = meter.unwrap_or_else(|| Budget::of(0).meter(0));
        state.get_or_insert_extension(Allowance(meter));
    }
    state.get_or_insert_extension_with(|| Allowance(Budget::of(0).meter(0)))
}

/// Under this name, which no template can write, its filters find the meter.
const METER: &str = "~meter";

#[derive(Debug)]
struct Metered(Meter);

impl Object for Metered {}

/// What templates see, and the meter.
#[derive(Debug)]
struct Seen {
    context: Value,
    meter: Value,
}

impl Object for Seen {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if key.as_str() == Some(METER) {
            return Some(self.meter.clone());
        }
        self.context.get_item(key).ok().filter(|value| !value.is_undefined())
    }
}

/// Renders or evaluates with a meter, and takes its work from the budget.
///
/// The error of what was cut has [`Cut`] as its source.
fn metered<T>(context: Value, budget: &Budget, work: impl FnOnce(Value) -> Result<T, Error>) -> Result<T, Error> {
    let meter = budget.meter(ALLOWANCE);
    let seen = Seen { context, meter: Value::from_object(Metered(meter.clone())) };
    let done = unharmed(|| work(Value::from_object(seen)));
    match meter.finish() {
        Ok(()) => done,
        // What failed has the line.
        Err(TooMuch::Alone) => Err(done.err().unwrap_or_else(exceeded).with_source(Cut)),
        Err(TooMuch::InAll) => Err(refusal(
            "with what comes before it, it takes too much work; have fewer or simpler templates and conditions, or do it \
             in the script",
        )
        .with_source(Cut)),
    }
}

/// That an evaluation was cut.
#[derive(Debug, thiserror::Error)]
#[error("too much work")]
pub(super) struct Cut;

/// Pays for writing a value: one unit for each byte that may come of it.
pub(super) fn pay_for_writing(state: &mut State, value: &Value) -> Result<(), Error> {
    let allowance = allowance(state);
    let paid = allowance.pay_for_defined(value)?;
    // Text within lists is written escaped.
    if is_composed(value) { allowance.pay(paid.saturating_mul(ESCAPED)) } else { Ok(()) }
}

/// The same for what is written as words of a shell, which may have to be quoted one by one.
pub(super) fn pay_for_quoting(state: &mut State, value: &Value) -> Result<(), Error> {
    let allowance = allowance(state);
    let paid = allowance.pay_for_defined(value)?;
    allowance.pay(paid.saturating_mul(ESCAPED))
}

fn is_composed(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
}

/// An environment that has nothing but what pays for itself.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax(Lines::default()));
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // Each by its full name in Ansible too.
    let names =
        |name: &'static str| [name.to_owned(), format!("ansible.builtin.{name}"), format!("ansible.utils.{name}")];
    for (&name, &entry) in library::filters() {
        for full in names(name) {
            let called = format!("filter {name}");
            environment.add_filter(full, move |state: &mut State, args: Rest<ValueOrKwargs>| {
                entry.call(&called, state, &values(args))
            });
        }
    }
    for (&name, &entry) in library::tests() {
        for full in names(name) {
            let called = format!("test {name}");
            environment.add_test(full, move |state: &mut State, args: Rest<ValueOrKwargs>| {
                entry.call(&called, state, &values(args)).map(|result| result.is_true())
            });
        }
    }
    for (&name, &entry) in library::functions() {
        let called = format!("function {name}");
        environment.add_function(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            entry.call(&called, state, &values(args))
        });
    }
    environment.set_unknown_method_callback(library::method);
    environment.add_filter(WHOLE, |state: &mut State, value: Value| allowance(state).pay_for(&value).map(|_| value));
    environment.add_filter(CONCAT, |state: &mut State, left: Value, right: Value| {
        for value in [&left, &right] {
            if value.is_undefined() {
                return Err(python::undefined(value));
            }
            pay_for_writing(state, value)?;
        }
        let mut text = python::text(&left)?;
        python::write(&mut text, &right)?;
        Ok(Value::from(text))
    });
    environment.add_filter(COMPARE, |state: &mut State, left: Value, right: Value, operator: &str| {
        pay_for_comparing(state, operator, &left, &right)?;
        compare(operator, &left, &right).map(Value::from)
    });
    environment.add_filter(CHAIN, |state: &mut State, values: Value, operators: &str| {
        let values: Vec<Value> = values.try_iter()?.collect();
        for (pair, operator) in values.windows(2).zip(operators.split(' ')) {
            let [left, right] = pair else { continue };
            let operator = operator.replace('_', " ");
            pay_for_comparing(state, &operator, left, right)?;
            if !compare(&operator, left, right)? {
                return Ok(Value::from(false));
            }
        }
        Ok(Value::from(true))
    });
    environment.add_filter(FIELD, |state: &mut State, value: Value, key: Value| {
        if value.is_undefined() {
            return Ok(value);
        }
        allowance(state).pay_for(&key)?;
        value.get_item(&key)
    });
    environment.add_filter(REST, |state: &mut State, left: Value, right: Value| rest(state, &left, &right));
    environment.add_filter(OUTSIDE, |state: &mut State, value: Value| {
        let items = match value.kind() {
            ValueKind::String => value.as_str().map_or(0, str::len),
            ValueKind::Iterable => value.len().unwrap_or(0),
            _ => 0,
        };
        allowance(state).pay(items as u64).map(|()| value)
    });
    environment.add_filter(ROUNDS, |state: &mut State, value: Value, steps: u64| {
        if value.is_none() {
            return Err(refusal("null is no list to go over; say what to use then, as in {% for x in (y or []) %}"));
        }
        let items = value.len().or_else(|| value.as_str().map(str::len)).unwrap_or(1) as u64;
        // More rounds there is no fuel for.
        allowance(state).pay(items.min(FUEL).saturating_mul(steps).saturating_mul(STEP)).map(|()| value)
    });
    environment.add_filter(MADE, made);
    environment.add_filter(TIMES, times);
    environment.add_filter(SLICE, slice);
    environment
}

/// How lines with tags are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Lines {
    /// Whether the line break behind a tag is left out.
    pub(super) trims: bool,
    /// Whether the blanks before a tag that begins a line are left out.
    pub(super) strips: bool,
}

fn syntax(lines: Lines) -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.keep_trailing_newline(true).trim_blocks(lines.trims).lstrip_blocks(lines.strips);
    builder.build().unwrap_or_default()
}

fn values(args: Rest<ValueOrKwargs>) -> Vec<Value> {
    args.0.into_iter().map(ValueOrKwargs::into_value).collect()
}

/// Pays for looking at both sides; what is looked for in a text is written first.
fn pay_for_comparing(state: &mut State, operator: &str, left: &Value, right: &Value) -> Result<(), Error> {
    let allowance = allowance(state);
    let paid = allowance.pay_for_defined(left)?;
    if operator.ends_with("in") && is_composed(left) {
        allowance.pay(paid.saturating_mul(ESCAPED))?;
    }
    allowance.pay_for_defined(right).map(|_| ())
}

/// `%`: what is left of a division, or a text with its places filled in.
fn rest(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    for value in [left, right] {
        if value.is_undefined() {
            return Err(python::undefined(value));
        }
    }
    if let Some(pattern) = left.as_str() {
        let allowance = allowance(state);
        let paid = allowance.pay_for_defined(right)?;
        allowance.pay(library::pattern_cost(pattern, paid))?;
        let args: Vec<Value> = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] };
        let named = (right.kind() == ValueKind::Map).then_some(right);
        return made(state, library::percent(pattern, &args, named)?.into());
    }
    let zero = || refusal("nothing can be divided by 0");
    match (python::whole(left), python::whole(right)) {
        (Some(_), Some(0)) => Err(zero()),
        (Some(left), Some(right)) => {
            let rest = left.checked_rem(right).unwrap_or(0);
            let rest = if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest };
            Ok(python::integer(rest))
        }
        _ => match (python::number(left), python::number(right)) {
            (Some(_), Some(0.0)) => Err(zero()),
            (Some(left), Some(right)) => {
                let rest = left % right;
                let rest = if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest };
                Ok(Value::from(if rest == 0.0 { 0.0_f64.copysign(right) } else { rest }))
            }
            _ => Err(refusal(format!("{} cannot be divided by {}", python::kind(left), python::kind(right)))),
        },
    }
}

/// Pays for a value that was made. What is reckoned out item by item becomes a list, or each look at it would do so again.
pub(super) fn made(state: &mut State, value: Value) -> Result<Value, Error> {
    let allowance = allowance(state);
    allowance.pay_for(&value)?;
    match value.kind() {
        ValueKind::Iterable => Ok(value.try_iter()?.collect::<Vec<_>>().into()),
        _ => Ok(value),
    }
}

/// `*`: of numbers, or as often as a number says.
fn times(state: &mut State, left: Value, right: Value) -> Result<Value, Error> {
    for value in [&left, &right] {
        if value.is_undefined() {
            // Only so the message names it.
            value.get_attr("")?;
        }
    }
    let repeated = match (is_text_or_list(&left), is_text_or_list(&right)) {
        (true, false) => Some((&left, right.as_usize())),
        (false, true) => Some((&right, left.as_usize())),
        _ => None,
    };
    if let Some((value, often)) = repeated {
        let often = often.ok_or_else(|| refusal("text and lists can be multiplied by whole numbers only"))?;
        let allowance = allowance(state);
        let once = allowance.pay_for(value)?;
        allowance.pay(once.saturating_mul(often as u64))?;
        return match value.as_str() {
            Some(text) => Ok(text.repeat(often).into()),
            None => {
                let items: Vec<Value> = value.try_iter()?.collect();
                let all = items.iter().cycle().take(items.len().saturating_mul(often));
                Ok(all.cloned().collect::<Vec<_>>().into())
            }
        };
    }
    let whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if whole(&left) && whole(&right) {
        let product = i128::try_from(left)?.checked_mul(i128::try_from(right)?);
        let product = product.ok_or_else(|| refusal("the product is too large"))?;
        return Ok(i64::try_from(product).map_or_else(|_| product.into(), Value::from));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(left), Ok(right)) => Ok((left * right).into()),
        _ => Err(refusal(format!("{} and {} cannot be multiplied", left.kind(), right.kind()))),
    }
}

/// `value[start:stop:step]`, as Python has it.
fn slice(state: &mut State, value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    for given in [&value, &start, &stop, &step] {
        if given.is_undefined() {
            given.get_attr("")?;
        }
    }
    allowance(state).pay_for(&value)?;
    let number = |given: &Value| match (given.is_none(), given.as_i64()) {
        (true, _) => Ok(None),
        (false, Some(number)) => Ok(Some(number)),
        (false, None) => Err(refusal(format!("a slice is taken by whole numbers, not {}", given.kind()))),
    };
    let (start, stop, step) = (number(&start)?, number(&stop)?, number(&step)?.unwrap_or(1));
    let places = |count: usize| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let (least, most) = if step > 0 { (0, count) } else { (-1, count - 1) };
        let place = |given: Option<i64>, otherwise: i64| match given {
            Some(given) if given < 0 => given.saturating_add(count).clamp(least, most),
            Some(given) => given.clamp(least, most),
            None => otherwise,
        };
        let (first, last) = if step > 0 { (least, most) } else { (most, least) };
        let (start, stop) = (place(start, first), place(stop, last));
        let within = move |place: &i64| if step > 0 { *place < stop } else { *place > stop };
        let places = std::iter::successors(Some(start), move |place| place.checked_add(step));
        places.take_while(within).filter_map(|place| usize::try_from(place).ok())
    };
    if step == 0 {
        return Err(refusal("a slice cannot be taken in steps of 0"));
    }
    if let Some(text) = value.as_str() {
        // Most slices go forward by one: no list of characters is needed then.
        if step == 1 {
            let mut places = places(text.chars().count());
            let first = places.next();
            let count = first.map_or(0, |_| 1 + places.count());
            let text: String = text.chars().skip(first.unwrap_or(0)).take(count).collect();
            return made(state, text.into());
        }
        allowance(state).pay(text.len() as u64 * 4)?;
        let characters: Vec<char> = text.chars().collect();
        let text: String = places(characters.len()).filter_map(|place| characters.get(place)).collect();
        return made(state, text.into());
    }
    if value.is_none() {
        return Ok(Vec::<Value>::new().into());
    }
    if !is_text_or_list(&value) {
        return Err(refusal(format!("{} cannot be sliced", value.kind())));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let taken = places(items.len()).filter_map(|place| items.get(place)).cloned();
    let taken = if value.is_tuple() { Value::from(Tuple::from(taken.collect::<Vec<_>>())) } else { taken.collect() };
    made(state, taken)
}

fn is_text_or_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable)
}

fn check(template: &str, is_expression: bool, lines: Lines) -> Result<(), Error> {
    if template.len() > LONGEST_SOURCE {
        return Err(refusal("the template is longer than 256 KiB"));
    }
    metered::check_depth(template, is_expression, syntax(lines))
}

/// A panic of the engine is an error of the template: it would end the controller of everybody's groups.
fn unharmed<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(refusal("the template engine failed on it; write it in another way, and report it")))
}

/// What parsing, rewriting and compiling a template costs, for each byte.
const PARSED: u64 = 8;

fn pay_for_parsing(budget: &Budget, template: &str) -> Result<(), Error> {
    budget.take(PARSED * template.len() as u64).map_err(|_| {
        refusal("with what comes before it, it takes too much work; have fewer or shorter templates").with_source(Cut)
    })
}

/// Fills a template in.
pub(super) fn render(
    environment: &Environment<'static>,
    template: &str,
    lines: Lines,
    context: Value,
    budget: &Budget,
) -> Result<String, Error> {
    pay_for_parsing(budget, template)?;
    metered(context, budget, |context| rendered(environment, template, lines, context))
}

fn rendered(environment: &Environment<'static>, template: &str, lines: Lines, context: Value) -> Result<String, Error> {
    check(template, false, lines)?;
    let parsed = metered::statement(&parse(template, "template", syntax(lines))?)?;
    let mut code = CodeGenerator::new("template", template);
    code.compile_stmt(&parsed);
    let mut text = String::with_capacity(template.len());
    let (instructions, blocks) = code.finish();
    let mut out = machinery::make_string_output(&mut text);
    machinery::eval(environment, &instructions, context, &blocks, &mut out, minijinja::AutoEscape::None)?;
    if text.len() > LONGEST {
        return Err(refusal("the template comes to more than 1 MiB; make it shorter"));
    }
    Ok(text)
}

/// What an expression says.
pub(super) fn evaluate(
    environment: &Environment<'static>,
    expression: &str,
    context: Value,
    budget: &Budget,
) -> Result<Value, Error> {
    pay_for_parsing(budget, expression)?;
    metered(context, budget, |context| evaluated(environment, expression, context))
}

fn evaluated(environment: &Environment<'static>, expression: &str, context: Value) -> Result<Value, Error> {
    check(expression, true, Lines::default())?;
    let parsed = metered::expression(&parse_expr(expression)?)?;
    let mut code = CodeGenerator::new("<expression>", expression);
    code.compile_expr(&parsed);
    let (instructions, blocks) = code.finish();
    let mut nothing = String::new();
    let mut out: Output = machinery::make_string_output(&mut nothing);
    let (value, _) =
        machinery::eval(environment, &instructions, context, &blocks, &mut out, minijinja::AutoEscape::None)?;
    let value = value.unwrap_or(Value::UNDEFINED);
    let mut room = Allowance(Budget::of(LONGEST as u64).meter(LONGEST as u64));
    room.pay_for_defined(&value).map_err(|error| match error.kind() {
        ErrorKind::UndefinedError => error,
        _ => refusal("the value comes to more than 1 MiB; make it shorter"),
    })?;
    Ok(value)
}

/// The names that a template uses and does not set itself, sorted.
pub(super) fn names(
    environment: &Environment<'static>,
    template: &str,
    lines: Lines,
    budget: &Budget,
) -> Result<Vec<String>, Error> {
    pay_for_parsing(budget, template)?;
    unharmed(|| names_of(environment, template, lines))
}

fn names_of(environment: &Environment<'static>, template: &str, lines: Lines) -> Result<Vec<String>, Error> {
    check(template, false, lines)?;
    // Refused here already, before any session.
    metered::statement(&parse(template, "template", syntax(lines))?)?;
    let mut names: Vec<String> =
        environment.template_from_str(template)?.undeclared_variables(true).into_iter().collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
