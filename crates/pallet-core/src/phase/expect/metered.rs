//! Pure: a CEL expression rewritten so that its evaluation pays for its work, and is cut once it cannot.
//!
//! The interpreter has no limit of its own. So whatever costs more than a step passes through a function of this module
//! first, which pays by the size of the value: operands, arguments, items of lists and maps, and what a loop goes over.
//! A loop pays for each round, and ends once nothing can be paid: `||`, `&&` and `all` would go on after an error.
//!
//! # Guarantees
//! The work of an evaluation is bounded by its meter, whatever the expression and the values. Memory is, too: no value is
//! made that is larger than what was paid for plus one operand.

use std::collections::HashMap;

use cel::{
    Context as Scope, ExecutionError, FunctionContext, IdedExpr, Value,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::{CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelOptional, CelString},
        value::{CowVal, Val},
    },
};
use parking_lot::Mutex;
use regex::Regex;

use super::{functions, loops, re2};
use crate::phase::budget::{Meter, STEP};

/// Pays for a value with all that is in it, and so many units more where there is a second argument; hands it on.
const PAY: &str = "@pay";
/// Pays for an optional value with all that is in it, and for no other; hands it on.
const OPTIONAL: &str = "@optional";
/// Pays for what it takes to tell how long a value is; hands it on.
const LENGTH: &str = "@length";
/// Pays for one round of a loop. False where it could not: the loop ends.
const ROUND: &str = "@round";
/// Calls a function whose work or result may grow faster than its arguments, once that is paid: by [`Cost::of`].
const COSTLY: &str = "@costly";
/// `string`, which writes doubles as Go does.
const STRING: &str = "@string";
/// How many characters of a text are compared at the cost of one unit where one text is searched for in another.
const COMPARED: u64 = 8;

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
    let qualified = functions::qualified(&call);
    let is_qualified = qualified.is_some();
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
        ("string", 1) if target.is_none() => {
            call.func_name = STRING.to_owned();
            (None, args.into_iter().map(paid).collect())
        }
        (name, _) if Cost::of(qualified.as_deref().unwrap_or(name), !is_qualified && target.is_some()).is_some() => {
            let member = !is_qualified && target.is_some();
            let name = literal(LiteralValue::String(qualified.unwrap_or(call.func_name).into()));
            let member_of = literal(LiteralValue::Boolean(member.into()));
            let values = target.filter(|_| member).into_iter().chain(args).map(paid);
            call.func_name = COSTLY.to_owned();
            (None, [name, member_of].into_iter().chain(values).collect())
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
    literal(LiteralValue::Int(CelInt::from(i64::try_from(units).unwrap_or(i64::MAX))))
}

fn literal(value: LiteralValue) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(value) }
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
    let costly: Function = {
        let meter = meter.clone();
        Box::new(move |call| {
            let mut args = call.args.drain(..);
            let (name, member) = (args.next(), args.next());
            let name = name.as_ref().and_then(|name| text(name.as_ref())).unwrap_or_default();
            let member = member.as_ref().and_then(|it| it.downcast_ref::<CelBool>()).is_some_and(|it| *it.inner());
            let args: Vec<_> = args.collect();
            match Cost::of(name, member) {
                Some(Cost::Pattern) => patterns.call(name, &args),
                Some(Cost::Units(units)) if meter.pay(units(&args)) => {
                    if let Some(answer) = otherwise(call.ptx, name, &args) {
                        return answer;
                    }
                    dispatch(call.ptx, name, member, args)
                }
                _ => Err(cut()),
            }
        })
    };
    let string: Function = Box::new(move |call| {
        let number =
            call.args.first().and_then(|value| value.downcast_ref::<CelDouble>()).map(|number| *number.inner());
        match number {
            Some(number) => Ok(CowVal::owned(CelString::from(double(number)))),
            None => dispatch(call.ptx, "string", false, std::mem::take(&mut call.args)),
        }
    });
    let functions = [
        (PAY, paying(walk)),
        (OPTIONAL, paying(is_optional)),
        (LENGTH, paying(length)),
        (ROUND, rounds),
        (COSTLY, costly),
        (STRING, string),
        (loops::PAIRS, Box::new(|call| pairs(&call.args))),
        (loops::TO_MAP, Box::new(|call| to_map(&call.args))),
        (loops::MERGE, Box::new(|call| merged(&call.args))),
    ];
    for (name, function) in functions {
        // No standard function has such a name.
        let _ = scope.add_function(name, function);
    }
}

fn text<'b>(value: &'b (dyn Val + '_)) -> Option<&'b str> {
    value.downcast_ref::<CelString>().map(CelString::inner)
}

/// What a function takes beside what its arguments cost.
#[derive(Clone, Copy)]
enum Cost {
    /// A regular expression: its text and its pattern decide.
    Pattern,
    /// So many units, by its arguments, the value that it is called on first.
    Units(fn(&[CowVal<'_, '_>]) -> u64),
}

impl Cost {
    /// Of a function by its full name; none where it takes no more than a few times what its arguments cost.
    fn of(name: &str, member: bool) -> Option<Self> {
        let units: fn(&[CowVal<'_, '_>]) -> u64 = match (name, member) {
            ("matches", _) | ("find" | "findAll", true) => return Some(Self::Pattern),
            // Each place of the text is compared with what is searched for.
            ("indexOf" | "lastIndexOf", true) => |args| {
                let (text, wanted) = (length(args, 0), length(args, 1));
                text.saturating_mul(4).saturating_add(text.saturating_mul(wanted) / COMPARED)
            },
            ("replace", true) => |args| {
                let places = length(args, 0) / length(args, 1).max(1) + 1;
                length(args, 0).saturating_add(places.saturating_mul(length(args, 2)))
            },
            ("split", true) => |args| parts(args).saturating_mul(STEP).saturating_add(length(args, 0)),
            ("join", true) => |args| deep(args, 0).saturating_add(length(args, 0).saturating_mul(length(args, 1))),
            // A number may be written with 400 digits.
            ("format", true) => |args| deep(args, 0) + deep(args, 1).saturating_mul(2) + length(args, 1) * 512,
            ("distinct", true) => |args| length(args, 0).saturating_mul(deep(args, 0)) / COMPARED,
            ("sort", true) | ("@sortByAssociatedKeys", true) => {
                |args| (deep(args, 0) + deep(args, 1)).saturating_mul(u64::from(length(args, 0).max(2).ilog2()) + 1)
            }
            ("sets.contains" | "sets.equivalent" | "sets.intersects", false) => |args| {
                let one = length(args, 0).saturating_mul(deep(args, 1));
                one.saturating_add(length(args, 1).saturating_mul(deep(args, 0))) / COMPARED
            },
            ("lists.range", false) => |args| {
                let count =
                    args.first().and_then(|count| count.downcast_ref::<CelInt>()).map_or(0, |count| *count.inner());
                u64::try_from(count).unwrap_or(0).saturating_mul(2 * STEP)
            },
            _ => return None,
        };
        Some(Self::Units(units))
    }
}

/// How many bytes a text has, or how many items a list.
fn length(args: &[CowVal<'_, '_>], place: usize) -> u64 {
    let Some(value) = args.get(place) else { return 0 };
    let items = || value.downcast_ref::<CelList>().map_or(0, |list| list.inner().len());
    text(value.as_ref()).map_or_else(items, str::len) as u64
}

/// What a value costs with all that is in it.
fn deep(args: &[CowVal<'_, '_>], place: usize) -> u64 {
    fn of(value: &dyn Val) -> u64 {
        let inside = match (value.downcast_ref::<CelList>(), value.downcast_ref::<CelMap>()) {
            (Some(list), _) => list.inner().iter().map(|item| of(item.as_ref())).sum(),
            (_, Some(map)) => map.inner().iter().map(|(key, value)| of(key.inner()) + of(value.as_ref())).sum(),
            _ => 0,
        };
        STEP + inside + text(value).map_or(0, |text| text.len() as u64)
    }
    args.get(place).map_or(0, |value| of(value.as_ref()))
}

/// How many parts `split` makes.
fn parts(args: &[CowVal<'_, '_>]) -> u64 {
    let at = |place: usize| args.get(place).and_then(|value| text(value.as_ref())).unwrap_or_default();
    let (whole, separator) = (at(0), at(1));
    if separator.is_empty() { whole.len() as u64 } else { whole.matches(separator).count() as u64 + 1 }
}

/// Where Kubernetes answers otherwise than the crate, whose libraries are of a later version: its answer, or an error.
fn otherwise<'c, 'v>(
    scope: &'c Scope<'c, 'v>,
    name: &str,
    args: &[CowVal<'c, 'v>],
) -> Option<Result<CowVal<'c, 'v>, ExecutionError>> {
    match (name, args) {
        ("indexOf", [value, _, from]) => {
            let from = from.downcast_ref::<CelInt>().and_then(|from| usize::try_from(*from.inner()).ok())?;
            let beyond = from > text(value.as_ref())?.chars().count();
            beyond.then(|| Ok(CowVal::owned(CelInt::from(-1))))
        }
        ("format", [format, values]) => {
            let clauses = clauses(text(format.as_ref())?);
            let values = values.downcast_ref::<CelList>()?.inner();
            if values.iter().any(|value| value.as_iterable().is_some()) {
                return Some(Err(ExecutionError::function_error(name, "lists and maps are not written; use join()")));
            }
            if clauses.contains(&'e') {
                return Some(Err(ExecutionError::function_error(name, "%e is not supported; use %f")));
            }
            let is_written = |place: usize| clauses.get(place) == Some(&'s');
            let written = values.iter().enumerate().map(|(place, value)| match value.downcast_ref::<CelDouble>() {
                Some(number) if is_written(place) => Box::new(CelString::from(double(*number.inner()))),
                _ => value.clone_as_boxed(),
            });
            let values = CowVal::owned(CelList::from(written.collect::<Vec<_>>()));
            Some(dispatch(scope, name, true, vec![CowVal::Owned(format.clone_as_boxed()), values]))
        }
        _ => None,
    }
}

/// The letters of the clauses of a format: `s` of `%s`, `f` of `%.2f`.
fn clauses(format: &str) -> Vec<char> {
    let letter = |clause: &str| clause.chars().find(|c| *c != '.' && !c.is_ascii_digit()).unwrap_or_default();
    format.replace("%%", "").split('%').skip(1).map(letter).collect()
}

/// Calls a function of the environment.
fn dispatch<'c, 'v>(
    scope: &'c Scope<'c, 'v>,
    name: &str,
    member: bool,
    args: Vec<CowVal<'c, 'v>>,
) -> Result<CowVal<'c, 'v>, ExecutionError> {
    const NAMES: [&str; 4] = ["@0", "@1", "@2", "@3"];
    let mut inner = scope.new_inner_scope();
    let mut named = Vec::new();
    for (name, value) in NAMES.iter().zip(args) {
        inner.add_variable_as_val(*name, value.into_owned());
        named.push(IdedExpr { id: 0, expr: Expr::Ident((*name).to_owned()) });
    }
    let target = (member && !named.is_empty()).then(|| Box::new(named.remove(0)));
    let call = IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target, args: named }) };
    Value::resolve_val(&call, &inner).map(|value| CowVal::Owned(value.into_owned()))
}

/// A double as Go's `strconv.FormatFloat(x, 'g', -1, 64)` writes it: the shortest digits that name it, with an exponent where
/// that is less than -4, or at least the number of digits and 6.
fn double(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() { "NaN".into() } else { format!("{}Inf", if number > 0.0 { '+' } else { '-' }) };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn items<'a, 'v>(args: &'a [CowVal<'_, 'v>]) -> Result<&'a [Box<dyn Val + 'v>], ExecutionError> {
    let list = args.first().and_then(|list| list.downcast_ref::<CelList>());
    list.map(CelList::inner).ok_or_else(ExecutionError::missing_argument_or_target)
}

/// `[index, item]` of a list, or `[key, value]` of a map in the order of its keys.
fn pairs<'c, 'v>(args: &[CowVal<'c, 'v>]) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let pair = |one: Box<dyn Val + 'v>, other: Box<dyn Val + 'v>| -> Box<dyn Val + 'v> {
        Box::new(CelList::from(vec![one, other]))
    };
    let value = args.first().ok_or_else(ExecutionError::missing_argument_or_target)?;
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let mut entries: Vec<_> = map.inner().iter().collect();
        entries.sort_by_cached_key(|(key, _)| (text(key.inner()).map(str::to_owned), format!("{:?}", key.inner())));
        let pairs = entries.into_iter().map(|(key, value)| pair(key.inner().clone_as_boxed(), value.clone_as_boxed()));
        return Ok(CowVal::owned(CelList::from(pairs.collect::<Vec<_>>())));
    }
    let number =
        |place: usize| -> Box<dyn Val + 'v> { Box::new(CelInt::from(i64::try_from(place).unwrap_or(i64::MAX))) };
    let list = value.downcast_ref::<CelList>().ok_or_else(|| ExecutionError::UnexpectedType {
        got: value.get_type().name().to_owned(),
        want: "list or map".to_owned(),
    })?;
    let pairs = list.inner().iter().enumerate().map(|(place, item)| pair(number(place), item.clone_as_boxed()));
    Ok(CowVal::owned(CelList::from(pairs.collect::<Vec<_>>())))
}

fn to_map<'c, 'v>(args: &[CowVal<'c, 'v>]) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let mut map = HashMap::new();
    for pair in items(args)? {
        let Some([key, value]) = pair.downcast_ref::<CelList>().map(CelList::inner) else { continue };
        map.insert(CelMapKey::try_from(key.clone_as_boxed())?, value.clone_as_boxed());
    }
    Ok(CowVal::owned(CelMap::from(map)))
}

fn merged<'c, 'v>(args: &[CowVal<'c, 'v>]) -> Result<CowVal<'c, 'v>, ExecutionError> {
    let mut map = HashMap::new();
    for entries in items(args)? {
        let entries = entries.downcast_ref::<CelMap>().ok_or_else(|| {
            ExecutionError::function_error("transformMapEntry", "what is made of an entry must be a map")
        })?;
        for (key, value) in entries.inner() {
            let key = CelMapKey::try_from(key.inner().clone_as_boxed())?;
            if map.insert(key, value.clone_as_boxed()).is_some() {
                return Err(ExecutionError::function_error("transformMapEntry", "a key comes twice"));
            }
        }
    }
    Ok(CowVal::owned(CelMap::from(map)))
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
    /// `matches`, `find` and `findAll`.
    fn call<'c, 'v>(&self, name: &str, args: &[CowVal<'c, 'v>]) -> Result<CowVal<'c, 'v>, ExecutionError> {
        let at = |place: usize| args.get(place).and_then(|value| text(value.as_ref()));
        let (Some(text), Some(pattern)) = (at(0), at(1)) else {
            let types = args.iter().map(|value| value.get_type().name().to_owned());
            return Err(ExecutionError::no_such_overload(name, types.collect()));
        };
        let found = |found: regex::Match<'_>| CelString::from(found.as_str().to_owned());
        match name {
            "matches" => self.with(name, text, pattern, |it| CowVal::owned(CelBool::from(it.is_match(text)))),
            "find" => self.with(name, text, pattern, |it| {
                CowVal::owned(it.find(text).map_or_else(|| CelString::from(String::new()), found))
            }),
            _ => {
                let most = args.get(2).map(|most| most.downcast_ref::<CelInt>().map(|most| *most.inner()));
                let most = match most {
                    None => usize::MAX,
                    Some(Some(most)) => usize::try_from(most).unwrap_or(usize::MAX),
                    Some(None) => return Err(ExecutionError::function_error(name, "the limit is no int")),
                };
                // There may be a match at each place.
                self.meter.pay((text.len() as u64 + 1).saturating_mul(STEP));
                self.with(name, text, pattern, |it| {
                    let all = it.find_iter(text).take(most).map(|it| Box::new(found(it)) as Box<dyn Val + 'v>);
                    CowVal::owned(CelList::from(all.collect::<Vec<_>>()))
                })
            }
        }
    }

    /// Pays for a text and a pattern, and uses that.
    fn with<T>(
        &self,
        name: &str,
        text: &str,
        pattern: &str,
        using: impl FnOnce(&Regex) -> T,
    ) -> Result<T, ExecutionError> {
        let mut known = self.known.lock();
        if !known.contains_key(pattern) {
            let compiled = self.compile(name, pattern)?;
            if known.len() >= PATTERNS_KEPT {
                known.clear();
            }
            known.insert(pattern.to_owned(), compiled);
        }
        let Some((compiled, per_byte)) = known.get(pattern) else { return Err(cut()) };
        let units = (text.len() as u64 + 1).saturating_mul(*per_byte);
        if self.meter.pay(units) { Ok(using(compiled)) } else { Err(cut()) }
    }

    fn compile(&self, name: &str, pattern: &str) -> Result<(Regex, u64), ExecutionError> {
        let pattern_length = pattern.len().min(re2::LONGEST) as u64;
        let classes = pattern.matches(['\\', '[', '(']).count() as u64;
        let units = pattern_length.saturating_mul(COMPILING.0).saturating_add(classes * COMPILING.1);
        if !self.meter.pay(units) {
            return Err(cut());
        }
        for (size, per_byte) in PATTERNS {
            match re2::compiled(pattern, size) {
                Ok(compiled) => return Ok((compiled, per_byte)),
                Err(re2::Refused::TooLarge) if self.meter.pay(size as u64) => {}
                Err(re2::Refused::TooLarge) => return Err(cut()),
                Err(refused) => return Err(ExecutionError::function_error(name, refused)),
            }
        }
        Err(ExecutionError::function_error(name, re2::Refused::TooLarge))
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
