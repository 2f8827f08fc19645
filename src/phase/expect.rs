//! Pure: expectations over facts, in CEL. All of them are looked at, so that one look tells all that is wrong.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{
    Context as Scope, Env, IdedExpr, Program, Value as Cel,
    common::ast::{EntryExpr, Expr, LiteralValue, operators},
};
use serde::Serialize;
use serde_json::Value;

use crate::{api::conditions::clip, facts::holds_volatile};

/// One expectation as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its name; led by its ServerSpec's where it comes from one.
    pub name: String,
    /// The ServerSpec that it comes from, whose parameters it sees; none for the group's own.
    pub origin: Option<Arc<str>>,
    /// An expression that is true where all is well.
    pub that: String,
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

/// The paths that an expression reads, such as `facts.disk.freePercent`.
///
/// # Errors
/// Where it cannot be parsed, or has loops in loops in loops.
pub fn names(expression: &str) -> Result<BTreeSet<String>, String> {
    with_room(|| read_names(expression))
}

/// The interpreter recurses, and its frames are large: an expression as deep as its length allows would fill the stack of
/// a worker thread, which ends the process. Memory is taken only as far as it is used.
fn with_room<T>(work: impl FnOnce() -> T) -> T {
    const ROOM: usize = 64 << 20;
    stacker::grow(ROOM, work)
}

fn read_names(expression: &str) -> Result<BTreeSet<String>, String> {
    let program = parse(expression)?;
    let mut reader = Reader::default();
    reader.read(program.expression());
    if reader.deepest > DEEPEST {
        return Err(format!("its loops lie {} deep in each other; {DEEPEST} is the most", reader.deepest));
    }
    if reader.loops > MOST {
        return Err(format!("it has {} loops; {MOST} are the most", reader.loops));
    }
    Ok(reader.names)
}

fn parse(expression: &str) -> Result<Program, String> {
    let said = |error: cel::ParseErrors| error.errors.first().map(|e| e.msg.clone()).unwrap_or_default();
    Program::compile(expression).map_err(|error| format!("it is no CEL expression: {}", clip(&said(error), 200)))
}

/// Looks at every expectation. `context` is an object with `facts`, `settings`, `node` and `group`.
pub fn examine(expectations: &[Expectation], context: &impl Serialize) -> Vec<Finding> {
    let context = serde_json::to_value(context).unwrap_or_default();
    let scope = scope(&context);
    let finding = |expectation: &Expectation| {
        let failure =
            with_room(|| look(&expectation.that, &scope)).err().map(|why| explain(expectation, &why, &context));
        Finding { name: expectation.name.clone(), failure }
    };
    expectations.iter().map(finding).collect()
}

/// Whether a condition holds. `context` is an object as for [`examine`].
///
/// # Errors
/// Where it cannot be answered, or the answer is neither true nor false.
pub fn holds(condition: &str, context: &impl Serialize) -> Result<bool, String> {
    let context = serde_json::to_value(context).unwrap_or_default();
    match with_room(|| look(condition, &scope(&context))) {
        Ok(()) => Ok(true),
        Err(why) if why.is_empty() => Ok(false),
        Err(why) => Err(format!("when {condition}: {why}")),
    }
}

/// Whether an expression reads a fact that changes by itself.
pub fn is_volatile(expression: &str) -> bool {
    let volatile = |name: &String| name.strip_prefix("facts.").is_some_and(holds_volatile);
    names(expression).is_ok_and(|names| names.iter().any(volatile))
}

fn scope(context: &Value) -> Scope<'static, 'static> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    let mut scope = Scope::with_env(ENVIRONMENT.clone());
    for (name, value) in context.as_object().into_iter().flatten() {
        scope.add_variable_from_value(name.as_str(), to_cel(value));
    }
    scope
}

fn look(expression: &str, scope: &Scope) -> Result<(), String> {
    match parse(expression)?.execute(scope) {
        Ok(Cel::Bool(true)) => Ok(()),
        Ok(Cel::Bool(false)) => Err(String::new()),
        Ok(_) => Err("it is neither true nor false".to_owned()),
        Err(error) => Err(format!("it cannot be answered ({})", clip(&error.to_string(), 160))),
    }
}

/// Fact, expected, found.
fn explain(expectation: &Expectation, why: &str, context: &Value) -> String {
    let found = |path: &String| {
        let value = path.split('.').try_fold(context, |value, field| value.get(field));
        let shown = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        format!("{path} = {}", clip(&shown, FOUND_LIMIT))
    };
    let found: Vec<String> = names(&expectation.that).unwrap_or_default().iter().map(found).collect();
    let said = if expectation.message.is_empty() { String::new() } else { format!("{}: ", expectation.message) };
    let why = if why.is_empty() { String::new() } else { format!(", but {why}") };
    let found = if found.is_empty() { String::new() } else { format!(", found {}", found.join(", ")) };
    format!("{said}expected {}{why}{found}", expectation.that)
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
                call.target.iter().for_each(|target| self.read(target));
                call.args.iter().for_each(|argument| self.read(argument));
            }
            Expr::Comprehension(comprehension) => {
                self.read(&comprehension.iter_range);
                self.read(&comprehension.accu_init);
                let before = self.bound.len();
                self.bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
                self.bound.extend(comprehension.iter_var2.clone());
                self.depth += 1;
                self.loops += 1;
                self.deepest = self.deepest.max(self.depth);
                self.read(&comprehension.loop_cond);
                self.read(&comprehension.loop_step);
                self.read(&comprehension.result);
                self.depth -= 1;
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

/// `a.b.c`, also where it is written `a["b"].c` or `has(a.b.c)`.
fn path(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
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
        let expectation = Expectation { name: "x".into(), origin: None, that: that.into(), message: "bad".into() };
        let context = json!({
            "facts": {"disk": {"freePercent": 5, "totalBytes": 3_000_000_000_u64}, "java": "17.0.2", "none": null, "load": {"one": 0.5}},
            "settings": {"port": "80"}, "node": {"name": "web-0", "ordinal": 0}, "group": {"count": 3}
        });
        examine(&[expectation], &context)[0].failure.clone()
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
                Expectation { name: "x".into(), origin: None, that: that.clone(), message: String::new() };
            let found = std::thread::spawn(move || (names(&that), examine(&[expectation], &json!({"facts": {}}))));
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
