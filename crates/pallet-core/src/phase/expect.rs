//! Pure: expectations over facts, in CEL. All of them are looked at, so that one look tells all that is wrong.

mod functions;
mod kubernetes;
mod loops;
mod metered;
mod re2;
#[cfg(test)]
mod reference;
pub mod types;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{
    Context as Scope, IdedExpr, Value as Cel,
    common::ast::{EntryExpr, Expr, LiteralValue, operators},
};
use parking_lot::Mutex;
use serde_json::Value;

use super::budget::{Budget, Meter, REASON, STEP, TooMuch};
use crate::{facts::holds_volatile, text};
use functions::ENVIRONMENT;
use pallet_api::conditions::clip;

/// One expectation as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its name; led by its ServerSpec's where it comes from one.
    pub name: String,
    /// The ServerSpec that it comes from, whose parameters it sees; none for the group's own.
    pub origin: Option<Arc<str>>,
    /// An expression that is true where all is well.
    pub expression: String,
    /// What it means when it is false; may be empty.
    pub message: String,
}

/// What came of looking at one expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The expectation.
    pub name: String,
    /// What was expected and what was found, where it does not hold.
    pub failure: Option<String>,
}

/// How deep loops (`all`, `exists`, `map`, ...) may lie in each other: what they cost grows with every level.
const DEEPEST: usize = 2;
/// How many there may be: each may double what the one before it has made.
const MOST: usize = 4;
/// How much of a value that was found is shown.
const FOUND_LIMIT: usize = 100;

/// The work that one evaluation may take, in units of [`Budget`]: about 50 ms.
const LIMIT: u64 = 6 << 20;
/// What an evaluation takes beside what the expression does: parsing it, for each byte.
const PARSED: u64 = 64;
/// How many parsed expressions are kept.
const MOST_PARSED: usize = 1024;

/// Why an expression has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// For people: it fails, or its answer is neither true nor false.
    #[error("{0}")]
    Wrong(String),
    /// For people: it was cut, since it takes too much work.
    #[error("{reason}: {0}", reason = REASON)]
    TooMuchWork(String),
}

/// What stands under the names that an expression may use first, such as `facts`.
pub type Roots<'a> = dyn Fn(&str) -> Option<&'a Value> + 'a;

/// The paths that an expression reads, such as `facts.disk.freePercent`.
///
/// # Errors
/// Where it cannot be parsed, or has loops in loops in loops.
pub fn names(expression: &str) -> Result<BTreeSet<String>, String> {
    parsed(expression).map(|parsed| parsed.names.clone())
}

/// Refuses an expression of which it is certain that it fails on every node, or that a comparison in it is never true. `shape` tells
/// what is known of a path before anything runs.
///
/// # Errors
/// Where it cannot be parsed; and the first such place, with how to write it.
pub fn check(expression: &str, shape: &types::Shape) -> Result<(), String> {
    let parsed = parsed(expression)?;
    with_room(|| types::check(&parsed.plain, shape))
}

/// An expression as it is evaluated.
struct Parsed {
    names: BTreeSet<String>,
    /// As it was written.
    plain: IdedExpr,
    metered: IdedExpr,
}

/// Parsing takes much longer than evaluating most expressions, and the same ones come again for each node.
fn parsed(expression: &str) -> Result<Arc<Parsed>, String> {
    type Known = Mutex<HashMap<String, Result<Arc<Parsed>, String>>>;
    static KNOWN: LazyLock<Known> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock();
    if let Some(parsed) = known().get(expression) {
        return parsed.clone();
    }
    let parsed = with_room(|| parse(expression)).map(Arc::new);
    let mut known = known();
    if known.len() >= MOST_PARSED {
        // Dropping what is deep recurses, too.
        with_room(|| known.clear());
    }
    known.insert(expression.to_owned(), parsed.clone());
    parsed
}

/// The interpreter recurses, and its frames are large: an expression as deep as its length allows would fill the stack of
/// a worker thread, which ends the process. Memory is taken only as far as it is used.
fn with_room<T>(work: impl FnOnce() -> T) -> T {
    const ROOM: usize = 64 << 20;
    stacker::grow(ROOM, work)
}

fn parse(expression: &str) -> Result<Parsed, String> {
    let said = |error: cel::ParseErrors| error.errors.first().map(|e| e.msg.clone()).unwrap_or_default();
    let program = ENVIRONMENT
        .compile(expression)
        .map_err(|error| format!("it is no CEL expression: {}", clip(&said(error), 200)))?;
    let mut reader = Reader::default();
    reader.read(program.expression());
    if reader.deepest > DEEPEST {
        return Err(format!("its loops lie {} deep in each other; {DEEPEST} is the most", reader.deepest));
    }
    if reader.loops > MOST {
        return Err(format!("it has {} loops; {MOST} are the most", reader.loops));
    }
    functions::check(program.expression())?;
    let plain = program.expression().clone();
    Ok(Parsed { names: reader.names, metered: metered::rewrite(plain.clone()), plain })
}

/// Evaluates every expectation. `context` is an object with `facts`, `settings`, `node` and `group`.
///
/// One that takes too much work is a failure that says so.
pub fn examine(expectations: &[Expectation], context: &Value, budget: &Budget) -> Vec<Finding> {
    let finding = |expectation: &Expectation| {
        let answer = answer(&expectation.expression, &|root| context.get(root), budget);
        let failure = match answer {
            Ok(true) => None,
            Ok(false) => Some(explain(expectation, "", context)),
            Err(why) => Some(explain(expectation, &why.to_string(), context)),
        };
        Finding { name: expectation.name.clone(), failure }
    };
    expectations.iter().map(finding).collect()
}

/// Whether a condition holds.
///
/// # Errors
/// Where it cannot be answered, or the answer is neither true nor false, or where it takes more work than one evaluation
/// may or than is left of the budget.
pub fn holds(condition: &str, roots: &Roots, budget: &Budget) -> Result<bool, Unanswered> {
    answer(condition, roots, budget).map_err(|why| match why {
        Unanswered::Wrong(why) => Unanswered::Wrong(format!("when {condition}: {why}")),
        Unanswered::TooMuchWork(why) => Unanswered::TooMuchWork(format!("when {condition}: {why}")),
    })
}

/// Whether an expression reads a fact that changes by itself.
pub fn is_volatile(expression: &str) -> bool {
    let volatile = |name: &String| name.strip_prefix("facts.").is_some_and(holds_volatile);
    names(expression).is_ok_and(|names| names.iter().any(volatile))
}

fn answer(expression: &str, roots: &Roots, budget: &Budget) -> Result<bool, Unanswered> {
    let parsed = parsed(expression).map_err(Unanswered::Wrong)?;
    let meter = budget.meter(LIMIT);
    meter.pay(expression.len() as u64 * PARSED);
    let found = with_room(|| evaluate(&parsed, roots, &meter));
    meter.finish().map_err(|cut| {
        Unanswered::TooMuchWork(match cut {
            TooMuch::Alone => {
                "it takes too much work: it goes over too many items, or over texts that are too long; make it \
                 simpler, or give it less to go over"
                    .to_owned()
            }
            TooMuch::InAll => {
                "with what comes before it, it takes too much work; have fewer or simpler conditions and templates"
                    .to_owned()
            }
        })
    })?;
    found.map_err(Unanswered::Wrong)
}

/// What it comes to means nothing once the meter is exhausted.
fn evaluate(parsed: &Parsed, roots: &Roots, meter: &Meter) -> Result<bool, String> {
    let mut scope = Scope::with_env(ENVIRONMENT.clone());
    metered::declare(&mut scope, meter);
    for (root, value) in seen(&parsed.names, roots) {
        pay_for(&value, meter);
        if meter.is_exhausted() {
            return Ok(false);
        }
        scope.add_variable_from_value(root, to_cel(&value));
    }
    match scope.resolve(&parsed.metered) {
        Ok(Cel::Bool(answer)) => Ok(answer),
        Ok(_) => Err("it is neither true nor false".to_owned()),
        Err(_) if meter.is_exhausted() => Ok(false),
        Err(error) => Err(format!("it cannot be answered ({})", text::line(&error.to_string(), 160))),
    }
}

/// The part of each root that an expression can see: only the fields that it names, where it names them.
fn seen(names: &BTreeSet<String>, roots: &Roots) -> BTreeMap<String, Value> {
    let mut fields: BTreeMap<&str, Option<BTreeSet<&str>>> = BTreeMap::new();
    for name in names {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        let named = fields.entry(root).or_insert_with(|| Some(BTreeSet::new()));
        let field = rest.split('.').next().unwrap_or_default();
        if field.is_empty() {
            *named = None;
        } else if let Some(known) = named {
            known.insert(field);
        }
    }
    let part = |(root, named): (&str, Option<BTreeSet<&str>>)| {
        let value = roots(root)?;
        let part = match (value, named) {
            (Value::Object(map), Some(named)) => {
                let found = named.into_iter().filter_map(|field| map.get_key_value(field));
                Value::Object(found.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            (whole, _) => whole.clone(),
        };
        Some((root.to_owned(), part))
    };
    fields.into_iter().filter_map(part).collect()
}

fn pay_for(value: &Value, meter: &Meter) {
    if meter.is_exhausted() {
        return;
    }
    let text = value.as_str().map_or(0, str::len) as u64;
    meter.pay(STEP + text);
    match value {
        Value::Array(items) => items.iter().for_each(|item| pay_for(item, meter)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            meter.pay(STEP + key.len() as u64);
            pay_for(value, meter);
        }),
        _ => {}
    }
}

/// Fact, expected, found.
fn explain(expectation: &Expectation, why: &str, context: &Value) -> String {
    let found = |path: &String| {
        let value = path.split('.').try_fold(context, |value, field| value.get(field));
        let shown = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        format!("{path} = {}", clip(&shown, FOUND_LIMIT))
    };
    let found: Vec<String> = names(&expectation.expression).unwrap_or_default().iter().map(found).collect();
    let said = if expectation.message.is_empty() { String::new() } else { format!("{}: ", expectation.message) };
    let why = if why.is_empty() { String::new() } else { format!(", but {why}") };
    let found = if found.is_empty() { String::new() } else { format!(", found {}", found.join(", ")) };
    format!("{said}expected {}{why}{found}", expectation.expression)
}

/// Integers stay integers, or no arithmetic could be done with them.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int)
        }
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(map) => {
            Cel::from(map.iter().map(|(key, value)| (key.clone(), to_cel(value))).collect::<HashMap<_, _>>())
        }
    }
}

/// Reads what an expression reads.
#[derive(Default)]
struct Reader {
    names: BTreeSet<String>,
    /// Variables of the loops around.
    bound: Vec<String>,
    depth: usize,
    deepest: usize,
    loops: usize,
}

impl Reader {
    fn read(&mut self, expression: &IdedExpr) {
        if let Some(path) = path(expression) {
            let root = path.split('.').next().unwrap_or_default();
            if !root.starts_with('@') && !self.bound.iter().any(|name| name == root) {
                self.names.insert(path);
            }
            return;
        }
        match &expression.expr {
            Expr::Call(call) => {
                if functions::qualified(call).is_none() {
                    call.target.iter().for_each(|target| self.read(target));
                }
                call.args.iter().for_each(|argument| self.read(argument));
            }
            Expr::Comprehension(comprehension) => {
                self.read(&comprehension.iter_range);
                self.read(&comprehension.accu_init);
                let before = self.bound.len();
                self.bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
                self.bound.extend(comprehension.iter_var2.clone());
                // Over nothing: it only gives a value a name.
                let is_loop = !matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty());
                self.depth += usize::from(is_loop);
                self.loops += usize::from(is_loop);
                self.deepest = self.deepest.max(self.depth);
                self.read(&comprehension.loop_cond);
                self.read(&comprehension.loop_step);
                self.read(&comprehension.result);
                self.depth -= usize::from(is_loop);
                self.bound.truncate(before);
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.read(item)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.read_entry(&entry.expr)),
            Expr::Struct(object) => object.entries.iter().for_each(|entry| self.read_entry(&entry.expr)),
            Expr::Select(select) => self.read(&select.operand),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn read_entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.read(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.read(&entry.key);
                self.read(&entry.value);
            }
        }
    }
}

/// Operators that read a field of a value by its name.
const READS: [&str; 3] = [operators::INDEX, operators::OPT_INDEX, operators::OPT_SELECT];

/// `a.b.c`, also where it is written `a["b"].c`, `a.?b.c` or `has(a.b.c)`.
fn path(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        Expr::Call(call) if READS.contains(&call.func_name.as_str()) => match call.args.as_slice() {
            [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] => {
                Some(format!("{}.{}", path(operand)?, field.inner()))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(expression: &str) -> Vec<String> {
        names(expression).unwrap().into_iter().collect()
    }

    fn failure(that: &str) -> Option<String> {
        let expectation =
            Expectation { name: "x".into(), origin: None, expression: that.into(), message: "bad".into() };
        let context = json!({
            "facts": {"disk": {"freePercent": 5, "totalBytes": 3_000_000_000_u64}, "java": "17.0.2", "none": null, "load": {"one": 0.5}},
            "settings": {"port": "80"}, "node": {"name": "web-0", "ordinal": 0}, "group": {"count": 3}
        });
        examine(&[expectation], &context, &Budget::new())[0].failure.clone()
    }

    #[test]
    fn what_an_expression_reads_is_known_but_for_the_variables_of_its_loops() {
        assert_eq!(
            read("facts.disk.freePercent > 10 && settings.port == '80'"),
            ["facts.disk.freePercent", "settings.port"]
        );
        assert_eq!(
            read("has(facts.java) && facts['os']['family'].startsWith('deb')"),
            ["facts.java", "facts.os.family"]
        );
        assert_eq!(read("facts.addresses.exists(a, a.startsWith(node.name))"), ["facts.addresses", "node.name"]);
        assert_eq!(read("{'a': facts.x}.a == [facts.y][0]"), ["facts.x", "facts.y"]);
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        assert!(names("facts.x >").unwrap_err().contains("no CEL expression"));
        assert!(names("[1].all(a, [1].all(b, [1].all(c, a == b)))").unwrap_err().contains("3 deep"));
        // Found by review: one that doubles a text with every loop would take all memory there is.
        let doubling = format!("['x']{}.size() == 1", ".map(a, a + a)".repeat(40));
        assert!(names(&doubling).unwrap_err().contains("40 loops"));
    }

    /// Found by this test: twenty parentheses were enough to end the process.
    #[test]
    fn no_expression_of_the_length_that_is_allowed_fills_the_stack() {
        let deep = [
            format!("{}1{} == 1", "(".repeat(500), ")".repeat(500)),
            format!("{}1{} == 1", "[".repeat(90), "]".repeat(90)),
            format!("1{} == 1", "+1".repeat(500)),
            format!("facts{} == 1", ".a".repeat(500)),
            format!("facts{} == 1", "[0]".repeat(330)),
            format!("{}true", "!".repeat(1000)),
            format!("{}true", "true?true:".repeat(100)),
        ];
        for that in deep {
            let expectation =
                Expectation { name: "x".into(), origin: None, expression: that.clone(), message: String::new() };
            let found = std::thread::spawn(move || {
                (names(&that), examine(&[expectation], &json!({"facts": {}}), &Budget::new()))
            });
            assert!(found.join().is_ok());
        }
    }

    #[test]
    fn a_failure_names_fact_expected_and_found() {
        assert_eq!(failure("facts.disk.freePercent > 2"), None);
        assert_eq!(
            failure("facts.disk.freePercent > 10").unwrap(),
            "bad: expected facts.disk.freePercent > 10, found facts.disk.freePercent = 5"
        );
        assert_eq!(failure("facts.java.matches('^17[.]')"), None);
        assert_eq!(failure("facts.none == null && node.ordinal < group.count"), None);
        assert_eq!(
            failure("facts.load.one < 4 && facts.disk.totalBytes / 1024 > 5"),
            None,
            "numbers can be reckoned with"
        );
    }

    #[test]
    fn what_cannot_be_answered_is_a_failure_that_says_so() {
        assert!(failure("facts.none > 17").unwrap().contains("cannot be answered"), "{:?}", failure("facts.none > 17"));
        assert!(failure("facts.gone == 1").unwrap().ends_with("found facts.gone = nothing"));
        assert!(failure("facts.java").unwrap().contains("neither true nor false"));
        assert!(failure("1 / 0 == 1").unwrap().contains("cannot be answered"));
    }
}
