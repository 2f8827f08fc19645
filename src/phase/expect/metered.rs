//! Pure: a CEL expression rewritten so that its evaluation pays for its work, and is cut once it cannot.
//!
//! The interpreter has no limit of its own. So whatever costs more than a step passes through a function of this module
//! first, which pays by the size of the value: operands, arguments, items of lists and maps, and what a loop goes over.
//! A loop pays for each round, and ends once nothing can be paid: `||`, `&&` and `all` would go on after an error.
//!
//! # Guarantees
//! The work of an evaluation is bounded by its meter, whatever the expression and the values. Memory is, too: no value is
//! made that is larger than what was paid for plus one operand.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use cel::{
    Context as Scope, ExecutionError, FunctionContext, IdedExpr,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::{CelBool, CelBytes, CelInt, CelList, CelMap, CelOptional, CelString},
        value::{CowVal, Val},
    },
};
use regex::{Regex, RegexBuilder};

use crate::phase::budget::{Meter, STEP};

/// Pays for a value with all that is in it, and so many units more where there is a second argument; hands it on.
const PAY: &str = "@pay";
/// Pays for an optional value with all that is in it, and for no other; hands it on.
const OPTIONAL: &str = "@optional";
/// Pays for what it takes to tell how long a value is; hands it on.
const LENGTH: &str = "@length";
/// Pays for one round of a loop. False where it could not: the loop ends.
const ROUND: &str = "@round";
/// `matches`, with a limit on what a pattern comes to.
const MATCHES: &str = "@matches";

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 1024;
/// How large a compiled pattern may get, and what it then costs for each byte of text: the more states, the slower.
const PATTERNS: [(usize, u64); 3] = [(16 << 10, 64), (128 << 10, 512), (1 << 20, 4096)];
/// What compiling a pattern costs, for each byte and for each class of characters, which may be a large table.
const COMPILING: (u64, u64) = (1 << 10, 48 << 10);
/// How many compiled patterns one evaluation keeps.
const PATTERNS_KEPT: usize = 4;

/// Rewrites a parsed expression.
pub(super) fn rewrite(expression: IdedExpr) -> IdedExpr {
    let IdedExpr { id, expr } = expression;
    let expr = match expr {
        Expr::Call(call) => self::call(call),
        Expr::Comprehension(it) => {
            let mut it = *it;
            let weight = STEP.saturating_mul(nodes(&it.loop_cond) + nodes(&it.loop_step));
            it.iter_range = paid(rewrite(it.iter_range));
            it.accu_init = rewrite(it.accu_init);
            it.result = rewrite(it.result);
            match append(it.loop_step, &it.accu_var, weight) {
                // The interpreter appends in place only to a loop in exactly this form.
                Ok(step) if matches!(it.loop_cond.expr, Expr::Literal(_)) => it.loop_step = step,
                Ok(step) | Err(step) => {
                    it.loop_step = step;
                    let round = call_of(ROUND, vec![number(weight)]);
                    it.loop_cond = call_of(operators::LOGICAL_AND, vec![round, rewrite(it.loop_cond)]);
                }
            }
            Expr::Comprehension(Box::new(it))
        }
        Expr::List(mut list) => {
            list.elements = list.elements.into_iter().map(rewrite).map(paid).collect();
            Expr::List(list)
        }
        Expr::Map(mut map) => {
            map.entries.iter_mut().for_each(|entry| rewrite_entry(&mut entry.expr));
            Expr::Map(map)
        }
        Expr::Struct(mut object) => {
            object.entries.iter_mut().for_each(|entry| rewrite_entry(&mut entry.expr));
            Expr::Struct(object)
        }
        // A field of an optional value is copied.
        Expr::Select(select) if !is_name(&select.operand) || !select.test => {
            let is_name = is_name(&select.operand);
            let mut select = select;
            if !is_name {
                select.operand = Box::new(rewrite(*select.operand));
            }
            let selected = IdedExpr { id, expr: Expr::Select(select) };
            return call_of(OPTIONAL, vec![selected]);
        }
        other => other,
    };
    IdedExpr { id, expr }
}

fn rewrite_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => field.value = paid(rewrite(std::mem::take(&mut field.value))),
        EntryExpr::MapEntry(entry) => {
            entry.key = paid(rewrite(std::mem::take(&mut entry.key)));
            entry.value = paid(rewrite(std::mem::take(&mut entry.value)));
        }
    }
}

fn call(mut call: CallExpr) -> Expr {
    // The names of functions such as optional.of are no values.
    let is_qualified = matches!(call.func_name.as_str(), "of" | "none" | "ofNonZeroValue")
        && matches!(call.target.as_deref(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name == "optional");
    let target = call.target.take().map(|target| if is_qualified { *target } else { rewrite(*target) });
    let args: Vec<IdedExpr> = std::mem::take(&mut call.args).into_iter().map(rewrite).collect();
    let with = |wrap: fn(IdedExpr) -> IdedExpr, target: Option<IdedExpr>, args: Vec<IdedExpr>| {
        let target = target.map(|target| if is_qualified { target } else { wrap(target) });
        (target.map(Box::new), args.into_iter().map(wrap).collect::<Vec<_>>())
    };
    (call.target, call.args) = match (call.func_name.as_str(), args.len()) {
        (operators::CONDITIONAL, 3)
        | (operators::LOGICAL_AND | operators::LOGICAL_OR, 2)
        | (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, 1) => (target.map(Box::new), args),
        // An item of a list is found at once, and its key is hashed.
        (operators::INDEX, 2) => {
            let mut args = args.into_iter();
            let args = args.next().into_iter().chain(args.map(paid)).collect();
            let indexed = CallExpr { func_name: call.func_name, target: target.map(Box::new), args };
            return call_of(OPTIONAL, vec![IdedExpr { id: 0, expr: Expr::Call(indexed) }]).expr;
        }
        ("size", _) => with(|value| call_of(LENGTH, vec![value]), target, args),
        ("matches", _) if args.len() + usize::from(target.is_some()) == 2 => {
            call.func_name = MATCHES.to_owned();
            (None, target.into_iter().chain(args).map(paid).collect())
        }
        _ => with(paid, target, args),
    };
    Expr::Call(call)
}

/// `@result + [x]` or `c ? @result + [x] : @result`, each round of which is paid where `x` or `c` is reckoned out; any other
/// step rewritten as it is.
fn append(step: IdedExpr, accumulator: &str, weight: u64) -> Result<IdedExpr, IdedExpr> {
    let is_accumulator = |it: &IdedExpr| matches!(&it.expr, Expr::Ident(name) if name == accumulator);
    let appends = |it: &IdedExpr| match &it.expr {
        Expr::Call(call) if call.func_name == operators::ADD && call.target.is_none() => {
            matches!(call.args.as_slice(), [left, IdedExpr { expr: Expr::List(_), .. }] if is_accumulator(left))
        }
        _ => false,
    };
    let appended = |mut it: IdedExpr, weight: u64| {
        if let Expr::Call(call) = &mut it.expr
            && let Some(IdedExpr { expr: Expr::List(list), .. }) = call.args.get_mut(1)
        {
            let items = std::mem::take(&mut list.elements).into_iter();
            list.elements = items.map(|item| call_of(PAY, vec![rewrite(item), number(weight)])).collect();
        }
        it
    };
    if appends(&step) {
        return Ok(appended(step, weight));
    }
    let IdedExpr { id, expr } = step;
    match expr {
        Expr::Call(mut call)
            if call.func_name == operators::CONDITIONAL
                && matches!(call.args.as_slice(), [_, then, other] if appends(then) && is_accumulator(other)) =>
        {
            let mut args = std::mem::take(&mut call.args).into_iter();
            let guard = args.next().map(|guard| call_of(PAY, vec![rewrite(guard), number(weight)]));
            let then = args.next().map(|then| appended(then, 0));
            call.args = guard.into_iter().chain(then).chain(args).collect();
            Ok(IdedExpr { id, expr: Expr::Call(call) })
        }
        expr => Err(rewrite(IdedExpr { id, expr })),
    }
}

/// A value that is paid for; what the expression itself holds is as short as that.
fn paid(value: IdedExpr) -> IdedExpr {
    match value.expr {
        Expr::Literal(_) => value,
        Expr::Call(call) if call.func_name == PAY || call.func_name == OPTIONAL => call_of(PAY, call.args),
        expr => call_of(PAY, vec![IdedExpr { id: value.id, expr }]),
    }
}

fn call_of(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

fn number(units: u64) -> IdedExpr {
    let units = i64::try_from(units).unwrap_or(i64::MAX);
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(CelInt::from(units))) }
}

/// `a` or `a.b.c`.
fn is_name(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => !select.test && is_name(&select.operand),
        _ => false,
    }
}

/// How many steps an expression takes, without the rounds of its loops.
fn nodes(expression: &IdedExpr) -> u64 {
    let entry = |entry: &EntryExpr| match entry {
        EntryExpr::StructField(field) => nodes(&field.value),
        EntryExpr::MapEntry(entry) => nodes(&entry.key) + nodes(&entry.value),
    };
    1 + match &expression.expr {
        Expr::Call(call) => {
            call.target.iter().map(|it| nodes(it)).sum::<u64>() + call.args.iter().map(nodes).sum::<u64>()
        }
        Expr::Comprehension(it) => {
            [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result].map(nodes).iter().sum()
        }
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Map(map) => map.entries.iter().map(|it| entry(&it.expr)).sum(),
        Expr::Struct(object) => object.entries.iter().map(|it| entry(&it.expr)).sum(),
        Expr::Select(select) => nodes(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

/// Declares what [`rewrite`] calls.
pub(super) fn declare(scope: &mut Scope, meter: &Meter) {
    type Function =
        Box<dyn for<'c, 'v> Fn(&mut FunctionContext<'c, 'v>) -> Result<CowVal<'c, 'v>, ExecutionError> + Send + Sync>;
    let paying = |pay: fn(&Meter, &dyn Val)| -> Function {
        let meter = meter.clone();
        Box::new(move |call| {
            let mut args = call.args.drain(..);
            let value = args.next().ok_or_else(ExecutionError::missing_argument_or_target)?;
            let more = args.next();
            let more = more.as_ref().and_then(|more| more.downcast_ref::<CelInt>());
            meter.pay(STEP.saturating_add(more.map_or(0, |more| u64::try_from(*more.inner()).unwrap_or(0))));
            pay(&meter, value.as_ref());
            if meter.is_exhausted() { Err(cut()) } else { Ok(value) }
        })
    };
    let is_optional = |meter: &Meter, value: &dyn Val| {
        if value.downcast_ref::<CelOptional>().is_some() {
            walk(meter, value);
        }
    };
    let length = |meter: &Meter, value: &dyn Val| {
        if let Some(text) = text(value) {
            meter.pay(text.len() as u64);
        }
    };
    let rounds: Function = {
        let meter = meter.clone();
        Box::new(move |call| {
            let units = call.args.first().and_then(|units| units.downcast_ref::<CelInt>()).map_or(0, |it| *it.inner());
            Ok(CowVal::owned(CelBool::from(meter.pay(u64::try_from(units).unwrap_or(0)))))
        })
    };
    let patterns = Patterns { meter: meter.clone(), known: Mutex::default() };
    let matching: Function = Box::new(move |call| {
        let at = |place: usize| call.args.get(place).and_then(|value| text(value.as_ref()));
        match (at(0), at(1)) {
            (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(patterns.matches(text, pattern)?))),
            _ => {
                let types = call.args.iter().map(|value| value.get_type().name().to_owned());
                Err(ExecutionError::no_such_overload("matches", types.collect()))
            }
        }
    });
    let functions = [
        (PAY, paying(walk)),
        (OPTIONAL, paying(is_optional)),
        (LENGTH, paying(length)),
        (ROUND, rounds),
        (MATCHES, matching),
    ];
    for (name, function) in functions {
        // No standard function has such a name.
        let _ = scope.add_function(name, function);
    }
}

fn text<'b>(value: &'b (dyn Val + '_)) -> Option<&'b str> {
    value.downcast_ref::<CelString>().map(CelString::inner)
}

fn cut() -> ExecutionError {
    ExecutionError::function_error("when", "too much work")
}

/// Pays for a value with all that is in it.
fn walk(meter: &Meter, value: &dyn Val) {
    let bytes = || value.downcast_ref::<CelBytes>().map(|bytes| bytes.inner().len());
    let units = text(value).map(str::len).or_else(bytes).unwrap_or(0) as u64;
    if !meter.pay(STEP + units) {
        return;
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().take_while(|_| !meter.is_exhausted()).for_each(|item| walk(meter, item.as_ref()));
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        for (key, value) in map.inner().iter().take_while(|_| !meter.is_exhausted()) {
            walk(meter, key.inner());
            walk(meter, value.as_ref());
        }
    } else if let Some(value) = value.downcast_ref::<CelOptional>().and_then(CelOptional::inner) {
        walk(meter, value);
    }
}

/// The patterns of one evaluation, each compiled once.
struct Patterns {
    meter: Meter,
    known: Mutex<HashMap<String, (Regex, u64)>>,
}

impl Patterns {
    fn matches(&self, text: &str, pattern: &str) -> Result<bool, ExecutionError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(pattern) {
            let compiled = self.compile(pattern)?;
            if known.len() >= PATTERNS_KEPT {
                known.clear();
            }
            known.insert(pattern.to_owned(), compiled);
        }
        let Some((compiled, per_byte)) = known.get(pattern) else { return Err(cut()) };
        let units = (text.len() as u64 + 1).saturating_mul(*per_byte);
        if self.meter.pay(units) { Ok(compiled.is_match(text)) } else { Err(cut()) }
    }

    fn compile(&self, pattern: &str) -> Result<(Regex, u64), ExecutionError> {
        let refuse = |why: String| ExecutionError::function_error("matches", why);
        if pattern.len() > LONGEST_PATTERN {
            return Err(refuse(format!("the pattern has more than {LONGEST_PATTERN} bytes; make it shorter")));
        }
        let classes = pattern.matches(['\\', '[', '(']).count() as u64;
        let units = (pattern.len() as u64).saturating_mul(COMPILING.0).saturating_add(classes * COMPILING.1);
        if !self.meter.pay(units) {
            return Err(cut());
        }
        for (size, per_byte) in PATTERNS {
            match RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(256 << 10).build() {
                Ok(compiled) => return Ok((compiled, per_byte)),
                Err(regex::Error::CompiledTooBig(_)) if self.meter.pay(size as u64) => {}
                Err(regex::Error::CompiledTooBig(_)) => return Err(cut()),
                Err(error) => return Err(refuse(format!("'{pattern}' not a valid regex:\n{error}"))),
            }
        }
        Err(refuse("the pattern comes to more than 1 MiB; make it simpler".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The interpreter must still see a list that is appended to, or it would copy the list at each round.
    #[test]
    fn the_form_of_map_and_filter_is_kept() {
        for text in ["[1].map(a, a + 1)", "[1].filter(a, a > 1)", "[1].map(a, a > 1, a + 1)"] {
            let program = cel::Program::compile(text).unwrap();
            let Expr::Comprehension(it) = rewrite(program.expression().clone()).expr else { panic!("{text}") };
            assert!(matches!(it.loop_cond.expr, Expr::Literal(_)), "{text}");
        }
        let program = cel::Program::compile("[1].all(a, a > 1)").unwrap();
        let Expr::Comprehension(it) = rewrite(program.expression().clone()).expr else { panic!() };
        assert!(matches!(&it.loop_cond.expr, Expr::Call(call) if call.func_name == operators::LOGICAL_AND));
    }
}
