//! Pure: macros of CEL beyond the standard ones: loops with two variables, as Kubernetes has them, and `cel.bind`.
//!
//! The interpreter has loops with one variable only. A loop with two goes over pairs, and binds its variables to the halves
//! of each: `e.all(k, v, p)` becomes `@pairs(e).all(@pair, bind(k, @pair[0], bind(v, @pair[1], p)))`. The keys of a map come in
//! their order, so that the same expression has the same result on every evaluation.

use cel::{
    DeclarationError, Env, IdedExpr, ParseError,
    common::{
        ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, operators},
        types::CelInt,
    },
    parser::{Macro, MacroExprHelper},
};

/// A list of `[index, item]` for a list, of `[key, value]` for a map.
pub(super) const PAIRS: &str = "@pairs";
/// A map of a list of `[key, value]`.
pub(super) const TO_MAP: &str = "@toMap";
/// A map with the entries of all maps of a list; no key may come twice.
pub(super) const MERGE: &str = "@merge";
/// The variable that a pair is bound to.
const PAIR: &str = "@pair";

type Made = Result<Option<IdedExpr>, ParseError>;

/// Adds the macros.
pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    for (name, arguments) in [("all", 3), ("exists", 3), ("existsOne", 3), ("exists_one", 3)] {
        env.add_macro(Macro::receiver(name, arguments, move |helper, target, args| test(name, helper, target, args)))?;
    }
    for arguments in [3, 4] {
        env.add_macro(Macro::receiver("transformList", arguments, |helper, target, args| {
            transformed(helper, target, args, |_, value| value)
        }))?;
        env.add_macro(Macro::receiver("transformMap", arguments, |helper, target, args| {
            let list = transformed(helper, target, args, |helper, value| {
                let key = half(helper, 0);
                helper.next_expr(Expr::List(ListExpr::new(vec![key, value])))
            })?;
            Ok(list.map(|list| call(helper, TO_MAP, vec![list])))
        }))?;
        env.add_macro(Macro::receiver("transformMapEntry", arguments, |helper, target, args| {
            let list = transformed(helper, target, args, |_, entry| entry)?;
            Ok(list.map(|list| call(helper, MERGE, vec![list])))
        }))?;
    }
    env.add_macro(Macro::receiver("bind", 3, |helper, target, args| {
        if !matches!(target.as_ref().map(|it| &it.expr), Some(Expr::Ident(name)) if name == "cel") {
            return Ok(None);
        }
        let name = variable(helper, args.first())?;
        let (Some(result), Some(value)) = (args.pop(), args.pop()) else { return Ok(None) };
        Ok(Some(bind(helper, name, value, result)))
    }))
}

/// `all`, `exists` and `existsOne` over pairs.
fn test(name: &str, helper: &mut MacroExprHelper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Made {
    let (first, second) = variables(helper, args)?;
    let (Some(range), Some(predicate)) = (target.take(), args.pop()) else { return Ok(None) };
    let predicate = with_halves(helper, first, second, predicate);
    let result = |helper: &mut MacroExprHelper<'_>| helper.next_expr(Expr::Ident("@result".to_owned()));
    let boolean = |helper: &mut MacroExprHelper<'_>, value: bool| {
        helper.next_expr(Expr::Literal(LiteralValue::Boolean(value.into())))
    };
    let int = |helper: &mut MacroExprHelper<'_>, value: i64| {
        helper.next_expr(Expr::Literal(LiteralValue::Int(CelInt::from(value))))
    };
    let (init, condition, step, end) = match name {
        "all" => {
            let (accumulator, again) = (result(helper), result(helper));
            let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![again]);
            let step = call(helper, operators::LOGICAL_AND, vec![accumulator, predicate]);
            (boolean(helper, true), condition, step, result(helper))
        }
        "exists" => {
            let (accumulator, again) = (result(helper), result(helper));
            let negated = call(helper, operators::LOGICAL_NOT, vec![again]);
            let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![negated]);
            let step = call(helper, operators::LOGICAL_OR, vec![accumulator, predicate]);
            (boolean(helper, false), condition, step, result(helper))
        }
        _ => {
            let (accumulator, other, one) = (result(helper), result(helper), int(helper, 1));
            let sum = call(helper, operators::ADD, vec![accumulator, one]);
            let step = call(helper, operators::CONDITIONAL, vec![predicate, sum, other]);
            let (counted, one) = (result(helper), int(helper, 1));
            let end = call(helper, operators::EQUALS, vec![counted, one]);
            (int(helper, 0), boolean(helper, true), step, end)
        }
    };
    Ok(Some(over_pairs(helper, range, init, condition, step, end)))
}

/// A list of what `item` makes of each value, as `map` makes it: the interpreter appends to it in place.
fn transformed(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
    item: impl FnOnce(&mut MacroExprHelper<'_>, IdedExpr) -> IdedExpr,
) -> Made {
    let (first, second) = variables(helper, args)?;
    let (Some(range), Some(value)) = (target.take(), args.pop()) else { return Ok(None) };
    let filter = (args.len() == 3).then(|| args.pop()).flatten();
    let value = with_halves(helper, first.clone(), second.clone(), value);
    let value = item(helper, value);
    let list = helper.next_expr(Expr::List(ListExpr::new(vec![value])));
    let result = |helper: &mut MacroExprHelper<'_>| helper.next_expr(Expr::Ident("@result".to_owned()));
    let accumulator = result(helper);
    let mut step = call(helper, operators::ADD, vec![accumulator, list]);
    if let Some(filter) = filter {
        let filter = with_halves(helper, first, second, filter);
        let other = result(helper);
        step = call(helper, operators::CONDITIONAL, vec![filter, step, other]);
    }
    let init = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
    let condition = helper.next_expr(Expr::Literal(LiteralValue::Boolean(true.into())));
    let end = result(helper);
    Ok(Some(over_pairs(helper, range, init, condition, step, end)))
}

fn over_pairs(
    helper: &mut MacroExprHelper<'_>,
    range: IdedExpr,
    accu_init: IdedExpr,
    loop_cond: IdedExpr,
    loop_step: IdedExpr,
    result: IdedExpr,
) -> IdedExpr {
    let iter_range = call(helper, PAIRS, vec![range]);
    let (iter_var, accu_var) = (PAIR.to_owned(), "@result".to_owned());
    helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var,
        iter_var2: None,
        accu_var,
        accu_init,
        loop_cond,
        loop_step,
        result,
    })))
}

/// An expression that sees both halves of the pair under the names of the variables.
fn with_halves(helper: &mut MacroExprHelper<'_>, first: String, second: String, expression: IdedExpr) -> IdedExpr {
    let value = half(helper, 1);
    let inner = bind(helper, second, value, expression);
    let key = half(helper, 0);
    bind(helper, first, key, inner)
}

fn half(helper: &mut MacroExprHelper<'_>, place: i64) -> IdedExpr {
    let pair = helper.next_expr(Expr::Ident(PAIR.to_owned()));
    let place = helper.next_expr(Expr::Literal(LiteralValue::Int(CelInt::from(place))));
    call(helper, operators::INDEX, vec![pair, place])
}

/// A loop over nothing, whose result sees the accumulator: as cel-go writes `cel.bind`.
fn bind(helper: &mut MacroExprHelper<'_>, name: String, value: IdedExpr, result: IdedExpr) -> IdedExpr {
    let iter_range = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
    let loop_cond = helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into())));
    let loop_step = helper.next_expr(Expr::Ident(name.clone()));
    helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var: "@unused".to_owned(),
        iter_var2: None,
        accu_var: name,
        accu_init: value,
        loop_cond,
        loop_step,
        result,
    })))
}

fn call(helper: &mut MacroExprHelper<'_>, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn variables(helper: &MacroExprHelper<'_>, args: &[IdedExpr]) -> Result<(String, String), ParseError> {
    let (first, second) = (variable(helper, args.first())?, variable(helper, args.get(1))?);
    if first == second {
        let place = args.get(1).map_or(0, |argument| argument.id);
        return Err(helper.new_error(place, format!("both variables of the loop are named {first}")));
    }
    Ok((first, second))
}

fn variable(helper: &MacroExprHelper<'_>, argument: Option<&IdedExpr>) -> Result<String, ParseError> {
    match argument {
        Some(IdedExpr { expr: Expr::Ident(name), .. }) if !name.starts_with('@') => Ok(name.clone()),
        other => {
            let place = other.map_or(0, |argument| argument.id);
            Err(helper.new_error(place, "the variable of a loop must be a plain name"))
        }
    }
}
