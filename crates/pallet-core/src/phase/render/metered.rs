//! A template in its parsed form, changed so that whatever can make a value large, or take long over a large one, passes
//! through the filters of [`super::bounds`].

use minijinja::{
    Error, ErrorKind, Value,
    machinery::{
        Span, Token,
        ast::{
            BinOp, BinOpKind, Call, CallArg, CompareOp, CompareOpKind, Const, Do, EmitExpr, EmitRaw, Expr, Filter,
            FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List, Map, Set, SetBlock, Spanned, Stmt, Template,
            Test, Tuple, UnaryOp, UnaryOpKind, Var, WithBlock,
        },
        tokenize,
    },
    syntax::SyntaxConfig,
};

use super::library;

/// The filter that charges for all of a value, and hands it on.
pub(super) const WHOLE: &str = "~whole";
/// The filter that writes two values one behind the other.
pub(super) const CONCAT: &str = "~concat";
/// The filter that compares two values by an operator: the engine's own takes any text for larger than any number.
pub(super) const COMPARE: &str = "~compare";
/// The filter that compares the values of a list by operators, each with the next.
pub(super) const CHAIN: &str = "~chain";
/// The filter that gives a field of a value, and nothing of what is undefined.
pub(super) const FIELD: &str = "~field";
/// The filter that gives what is left of a division, or fills a text in.
pub(super) const REST: &str = "~rest";
/// The filter that charges for what it takes to find one item of a value, and hands it on.
pub(super) const OUTSIDE: &str = "~outside";
/// The filter that charges for all rounds of a loop over a value, by the steps of each, and hands it on.
pub(super) const ROUNDS: &str = "~rounds";
/// The filter that charges for a value that was made, and makes a list of what is reckoned out item by item.
pub(super) const MADE: &str = "~made";
/// The filter that multiplies.
pub(super) const TIMES: &str = "~times";
/// The filter that takes a slice: the engine's own is reckoned out at every look, and fails on empty lists.
pub(super) const SLICE: &str = "~slice";

/// How many operators one tag may have, and how many `elif` a template: parser and compiler recurse into each.
const MOST_OPERATORS: usize = 300;
/// The longest constant that the compiler may reckon out by itself.
const LONGEST_CONSTANT: u64 = 64 << 10;

/// How much of the stack one step of the rewriting takes at most: less left, and it goes on in new room.
const FRAME: usize = 128 << 10;
const ROOM: usize = 1 << 20;

/// Refuses what is nested so deep that parsing it would fill the stack, which ends the process.
///
/// # Errors
/// Where there are too many operators, or the text is no template.
pub(super) fn check_depth(template: &str, is_expression: bool, syntax: SyntaxConfig) -> Result<(), Error> {
    let (mut operators, mut branches) = (0, 0);
    for token in tokenize(template, is_expression, syntax) {
        let (token, span) = token?;
        let written = template.get(span.start_offset as usize..span.end_offset as usize).unwrap_or_default();
        match token {
            Token::Int(_)
                if written.starts_with('0')
                    && !written.trim_start_matches(['0', '_']).is_empty()
                    && written.bytes().all(|c| matches!(c, b'0'..=b'9' | b'_')) =>
            {
                let digits = written.trim_start_matches(['0', '_']);
                return Err(refusal(format!(
                    "{written} is no number; write {digits}, or 0o{digits} where it is octal"
                )));
            }
            Token::VariableStart | Token::BlockStart => operators = 0,
            Token::Ident("elif") => branches += 1,
            Token::Ident("not" | "if" | "else" | "and" | "or" | "is" | "in") => operators += 1,
            Token::Comma | Token::Colon | Token::Assign | Token::Ident(_) | Token::TemplateData(_) => {}
            Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {}
            Token::VariableEnd | Token::BlockEnd => {}
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {}
            _ => operators += 1,
        }
        if operators > MOST_OPERATORS {
            return Err(refusal(format!(
                "there are more than {MOST_OPERATORS} operators in one tag; split it with set"
            )));
        }
        if branches > MOST_OPERATORS {
            return Err(refusal(format!("there are more than {MOST_OPERATORS} elif; look the value up in an object")));
        }
    }
    Ok(())
}

fn refusal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Rewrites a parsed template.
///
/// # Errors
/// Where it holds what cannot be bounded, or what has no use here.
pub(super) fn statement<'a>(parsed: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
    Rewriter { in_loop: false, patterns: library::Room::new() }.statement(parsed)
}

/// Rewrites a parsed expression.
///
/// # Errors
/// As for [`statement`].
pub(super) fn expression<'a>(parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
    Rewriter { in_loop: false, patterns: library::Room::new() }.expression(parsed)
}

struct Rewriter {
    /// Within a loop: text is counted each time, elsewhere it stands there but once.
    in_loop: bool,
    /// For regular expressions that are read early.
    patterns: library::Room,
}

fn filter<'a>(name: &'a str, value: Expr<'a>, args: Vec<CallArg<'a>>, span: Span) -> Expr<'a> {
    Expr::Filter(Spanned::new(Filter { name, expr: Some(value), args }, span))
}

/// What the compiler reckons out by itself comes to.
enum Folded {
    /// At most this number, whatever its sign.
    Number(u64),
    /// A text or list of so many units.
    Long(u64),
}

impl Folded {
    fn units(&self) -> u64 {
        match self {
            Self::Number(_) => 32,
            Self::Long(units) => *units,
        }
    }
}

/// None where it is no constant.
fn folded(parsed: &Expr) -> Option<Folded> {
    use BinOpKind::{Add, Concat, Mul, Pow, ScAnd, ScOr, Sub};
    use Folded::{Long, Number};
    let list = |items: &[Expr]| {
        let mut units = items.iter().map(|item| folded(item).map(|item| item.units()));
        units.try_fold(32, |sum: u64, units| Some(sum.saturating_add(units?))).map(Long)
    };
    match parsed {
        Expr::Const(constant) => Some(match (constant.value.as_str(), constant.value.as_i64()) {
            (Some(text), _) => Long(text.len() as u64),
            (None, Some(number)) => Number(number.unsigned_abs()),
            (None, None) => Number(u64::MAX),
        }),
        Expr::UnaryOp(operation) => folded(&operation.expr),
        Expr::List(it) => list(&it.items),
        Expr::Tuple(it) => list(&it.items),
        Expr::BinOp(operation) => Some(match (operation.op, folded(&operation.left)?, folded(&operation.right)?) {
            (Mul, Number(a), Number(b)) => Number(a.saturating_mul(b)),
            (Mul, Number(n), Long(units)) | (Mul, Long(units), Number(n)) => Long(units.saturating_mul(n)),
            (Pow, Number(a), Number(b)) => Number(a.saturating_pow(u32::try_from(b).unwrap_or(u32::MAX))),
            (Add | Sub, Number(a), Number(b)) => Number(a.saturating_add(b)),
            (Add | Concat, a, b) => Long(a.units().saturating_add(b.units())),
            (ScAnd | ScOr, Number(a), Number(b)) => Number(a.max(b)),
            (ScAnd | ScOr, a, b) => Long(a.units().max(b.units())),
            (_, Number(a), Number(b)) => Number(a.max(b)),
            _ => Number(1),
        }),
        _ => None,
    }
}

impl Rewriter {
    fn body<'a>(&mut self, body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
        body.iter().map(|statement| self.statement(statement)).collect()
    }

    fn statement<'a>(&mut self, parsed: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
        stacker::maybe_grow(FRAME, ROOM, || self.rewritten_statement(parsed))
    }

    fn rewritten_statement<'a>(&mut self, parsed: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
        Ok(match parsed {
            Stmt::Template(it) => {
                Stmt::Template(Spanned::new(Template { children: self.body(&it.children)? }, it.span()))
            }
            Stmt::EmitExpr(it) => {
                Stmt::EmitExpr(Spanned::new(EmitExpr { expr: self.expression(&it.expr)? }, it.span()))
            }
            Stmt::EmitRaw(it) if !self.in_loop => Stmt::EmitRaw(Spanned::new(EmitRaw { raw: it.raw }, it.span())),
            Stmt::EmitRaw(it) => {
                let text = Const { value: Value::from_safe_string(it.raw.to_owned()) };
                let expr = Expr::Const(Spanned::new(text, it.span()));
                Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, it.span()))
            }
            Stmt::ForLoop(it) => {
                // One that is recursive and does not call itself is like any other; the call is refused.
                let span = it.iter.span();
                let iter = filter(OUTSIDE, self.expression(&it.iter)?, Vec::new(), span);
                let steps = Const { value: Value::from(1 + steps(&it.body)) };
                let iter = filter(ROUNDS, iter, vec![CallArg::Pos(Expr::Const(Spanned::new(steps, span)))], span);
                let outer = std::mem::replace(&mut self.in_loop, true);
                let filter_expr = it.filter_expr.as_ref().map(|when| self.expression(when)).transpose()?;
                let body = self.body(&it.body)?;
                self.in_loop = outer;
                let else_body = self.body(&it.else_body)?;
                let target = target(&it.target)?;
                let rewritten = ForLoop { target, iter, filter_expr, recursive: false, body, else_body };
                Stmt::ForLoop(Spanned::new(rewritten, it.span()))
            }
            Stmt::IfCond(it) => {
                let (true_body, false_body) = (self.body(&it.true_body)?, self.body(&it.false_body)?);
                let rewritten = IfCond { expr: self.expression(&it.expr)?, true_body, false_body };
                Stmt::IfCond(Spanned::new(rewritten, it.span()))
            }
            Stmt::WithBlock(it) => {
                let assignments = it.assignments.iter().map(|(to, value)| Ok((target(to)?, self.expression(value)?)));
                let assignments = assignments.collect::<Result<_, Error>>()?;
                Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: self.body(&it.body)? }, it.span()))
            }
            Stmt::Set(it) => {
                let rewritten = Set { target: target(&it.target)?, expr: self.expression(&it.expr)? };
                Stmt::Set(Spanned::new(rewritten, it.span()))
            }
            Stmt::SetBlock(it) => {
                let by = it.filter.as_ref().map(|by| self.expression(by)).transpose()?;
                let rewritten = SetBlock { target: target(&it.target)?, filter: by, body: self.body(&it.body)? };
                Stmt::SetBlock(Spanned::new(rewritten, it.span()))
            }
            Stmt::FilterBlock(it) => {
                let rewritten = FilterBlock { filter: self.expression(&it.filter)?, body: self.body(&it.body)? };
                Stmt::FilterBlock(Spanned::new(rewritten, it.span()))
            }
            Stmt::Do(it) => {
                let call = Spanned::new(self.call(&it.call)?, it.call.span());
                Stmt::Do(Spanned::new(Do { call }, it.span()))
            }
            // What it wrote would count as marked raw, and so pass unquoted into scripts.
            Stmt::AutoEscape(_) => return Err(refusal("autoescape is for HTML and has no use here; leave it out")),
        })
    }

    fn whole<'a>(&mut self, parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
        Ok(filter(WHOLE, self.expression(parsed)?, Vec::new(), parsed.span()))
    }

    /// A side of `~`: an `if` without `else` is nothing there.
    fn side<'a>(&mut self, parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
        let Expr::IfExpr(it) = parsed else { return self.expression(parsed) };
        let nothing = || Expr::Const(Spanned::new(Const { value: Value::from("") }, it.span()));
        let rewritten = IfExpr {
            test_expr: self.expression(&it.test_expr)?,
            true_expr: self.expression(&it.true_expr)?,
            false_expr: Some(it.false_expr.as_ref().map_or_else(|| Ok(nothing()), |other| self.side(other))?),
        };
        Ok(Expr::IfExpr(Spanned::new(rewritten, it.span())))
    }

    /// What may be undefined, any part of its path included.
    fn perhaps<'a>(&mut self, parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
        stacker::maybe_grow(FRAME, ROOM, || {
            let (base, key) = match parsed {
                Expr::GetAttr(it) => {
                    (&it.expr, Expr::Const(Spanned::new(Const { value: Value::from(it.name) }, it.span())))
                }
                Expr::GetItem(it) => (&it.expr, self.whole(&it.subscript_expr)?),
                other => return self.expression(other),
            };
            // What is named outright keeps its name in messages.
            if !matches!(base, Expr::GetAttr(_) | Expr::GetItem(_)) {
                return self.expression(parsed);
            }
            let base = filter(OUTSIDE, self.perhaps(base)?, Vec::new(), parsed.span());
            Ok(filter(FIELD, base, vec![CallArg::Pos(key)], parsed.span()))
        })
    }

    fn list<'a>(&mut self, items: &[Expr<'a>]) -> Result<Vec<Expr<'a>>, Error> {
        items.iter().map(|item| self.expression(item)).collect()
    }

    fn expression<'a>(&mut self, parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
        stacker::maybe_grow(FRAME, ROOM, || self.rewritten(parsed))
    }

    fn rewritten<'a>(&mut self, parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
        let span = parsed.span();
        let made = |value: Expr<'a>| filter(MADE, value, Vec::new(), span);
        let constant = |items: &[Expr]| items.iter().all(|item| matches!(item, Expr::Const(_)));
        Ok(match parsed {
            Expr::Var(it) => Expr::Var(Spanned::new(Var { id: it.id }, span)),
            Expr::Const(it) => Expr::Const(Spanned::new(Const { value: it.value.clone() }, span)),
            Expr::Slice(it) => {
                let mut bound = |place: &Option<Expr<'a>>| {
                    let none = || Ok(Expr::Const(Spanned::new(Const { value: Value::from(()) }, span)));
                    place.as_ref().map_or_else(none, |place| self.expression(place)).map(CallArg::Pos)
                };
                let args = vec![bound(&it.start)?, bound(&it.stop)?, bound(&it.step)?];
                filter(SLICE, self.expression(&it.expr)?, args, span)
            }
            Expr::UnaryOp(it) => {
                let op = if matches!(it.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
                Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: self.expression(&it.expr)? }, span))
            }
            Expr::BinOp(it) => {
                if folded(parsed).is_some_and(|constant| constant.units() > LONGEST_CONSTANT) {
                    return Err(refusal("a constant comes to more than 64 KiB; make it shorter"));
                }
                self.operation(it, span)?
            }
            Expr::Compare(it) => {
                let mut items = vec![self.expression(&it.expr)?];
                for op in &it.ops {
                    items.push(self.expression(&op.expr)?);
                }
                let operator = |op: &CompareOp| match op.op {
                    CompareOpKind::Eq => "==",
                    CompareOpKind::Ne => "!=",
                    CompareOpKind::Lt => "<",
                    CompareOpKind::Lte => "<=",
                    CompareOpKind::Gt => ">",
                    CompareOpKind::Gte => ">=",
                    CompareOpKind::In => "in",
                    CompareOpKind::NotIn => "not_in",
                };
                let operators = it.ops.iter().map(operator).collect::<Vec<_>>().join(" ");
                let operators = Expr::Const(Spanned::new(Const { value: Value::from(operators) }, span));
                let list = Expr::List(Spanned::new(List { items }, span));
                filter(CHAIN, list, vec![CallArg::Pos(operators)], span)
            }
            Expr::IfExpr(it) => {
                let rewritten = IfExpr {
                    test_expr: self.expression(&it.test_expr)?,
                    true_expr: self.expression(&it.true_expr)?,
                    false_expr: it.false_expr.as_ref().map(|other| self.expression(other)).transpose()?,
                };
                Expr::IfExpr(Spanned::new(rewritten, span))
            }
            Expr::Filter(it) => {
                library::check_filter(it.name, &it.args, &self.patterns)?;
                let asks = matches!(it.name.rsplit('.').next(), Some("default" | "d" | "mandatory"));
                let value =
                    it.expr.as_ref().map(|value| if asks { self.perhaps(value) } else { self.expression(value) });
                let value = value.transpose()?;
                let rewritten = Filter { name: it.name, expr: value, args: self.arguments(&it.args, false)? };
                Expr::Filter(Spanned::new(rewritten, span))
            }
            Expr::Test(it) => {
                library::check_test(it.name, &it.args, &self.patterns)?;
                let args = self.arguments(&it.args, false)?;
                let asks = matches!(it.name.rsplit('.').next(), Some("defined" | "undefined"));
                let expr = if asks { self.perhaps(&it.expr)? } else { self.expression(&it.expr)? };
                Expr::Test(Spanned::new(Test { name: it.name, expr, args }, span))
            }
            Expr::GetAttr(it) => {
                Expr::GetAttr(Spanned::new(GetAttr { expr: self.expression(&it.expr)?, name: it.name }, span))
            }
            Expr::GetItem(it) => {
                let subscript_expr = match &it.subscript_expr {
                    constant @ Expr::Const(_) => self.expression(constant)?,
                    other => self.whole(other)?,
                };
                let expr = filter(OUTSIDE, self.expression(&it.expr)?, Vec::new(), span);
                Expr::GetItem(Spanned::new(GetItem { expr, subscript_expr }, span))
            }
            Expr::Call(it) => made(Expr::Call(Spanned::new(self.call(it)?, span))),
            Expr::List(it) => {
                let list = Expr::List(Spanned::new(List { items: self.list(&it.items)? }, span));
                if constant(&it.items) { list } else { made(list) }
            }
            Expr::Tuple(it) => {
                let list = Expr::Tuple(Spanned::new(Tuple { items: self.list(&it.items)? }, span));
                if constant(&it.items) { list } else { made(list) }
            }
            Expr::Map(it) => {
                let whole = |key: &Expr<'a>| match key {
                    Expr::Const(_) => self.expression(key),
                    other => self.whole(other),
                };
                let keys = it.keys.iter().map(whole).collect::<Result<_, Error>>()?;
                let map = Expr::Map(Spanned::new(Map { keys, values: self.list(&it.values)? }, span));
                if constant(&it.keys) && constant(&it.values) { map } else { made(map) }
            }
        })
    }

    fn operation<'a>(&mut self, it: &Spanned<BinOp<'a>>, span: Span) -> Result<Expr<'a>, Error> {
        use BinOpKind::{Add, Concat, Div, Eq, FloorDiv, Gt, Gte, In, Lt, Lte, Mul, Ne, Pow, Rem, ScAnd, ScOr, Sub};
        let plain = |op, left, right| Expr::BinOp(Spanned::new(BinOp { op, left, right }, span));
        Ok(match it.op {
            Concat => filter(CONCAT, self.side(&it.left)?, vec![CallArg::Pos(self.side(&it.right)?)], span),
            Eq | Ne | Lt | Lte | Gt | Gte | In => {
                let operator = match it.op {
                    Eq => "==",
                    Ne => "!=",
                    Lt => "<",
                    Lte => "<=",
                    Gt => ">",
                    Gte => ">=",
                    _ => "in",
                };
                let operator = Expr::Const(Spanned::new(Const { value: Value::from(operator) }, span));
                let args = vec![CallArg::Pos(self.expression(&it.right)?), CallArg::Pos(operator)];
                filter(COMPARE, self.expression(&it.left)?, args, span)
            }
            Rem => filter(REST, self.expression(&it.left)?, vec![CallArg::Pos(self.expression(&it.right)?)], span),
            Add => {
                let sum = plain(Add, self.whole(&it.left)?, self.whole(&it.right)?);
                filter(MADE, sum, Vec::new(), span)
            }
            Mul => filter(TIMES, self.expression(&it.left)?, vec![CallArg::Pos(self.expression(&it.right)?)], span),
            // Of numbers only.
            Sub | Div | FloorDiv | Pow | ScAnd | ScOr => {
                plain(it.op, self.expression(&it.left)?, self.expression(&it.right)?)
            }
        })
    }

    fn call<'a>(&mut self, it: &Call<'a>) -> Result<Call<'a>, Error> {
        match &it.expr {
            Expr::Var(function) if function.id == "loop" => {
                return Err(refusal("loops cannot be recursive here; put loops into each other"));
            }
            Expr::Var(function) => library::check_function(function.id, &it.args)?,
            Expr::GetAttr(method) => match &method.expr {
                Expr::Var(it) if it.id == "loop" && matches!(method.name, "cycle" | "changed") => {}
                _ => library::check_method(method.name, &it.args)?,
            },
            _ => library::check_call()?,
        }
        Ok(Call { expr: self.expression(&it.expr)?, args: self.arguments(&it.args, true)? })
    }

    /// Filters and tests charge for theirs themselves.
    fn arguments<'a>(&mut self, args: &[CallArg<'a>], charged: bool) -> Result<Vec<CallArg<'a>>, Error> {
        let rewritten = args.iter().map(|argument| {
            Ok(match argument {
                CallArg::Pos(value) if charged => CallArg::Pos(self.whole(value)?),
                CallArg::Pos(value) => CallArg::Pos(self.expression(value)?),
                CallArg::Kwarg(name, value) if charged => CallArg::Kwarg(name, self.whole(value)?),
                CallArg::Kwarg(name, value) => CallArg::Kwarg(name, self.expression(value)?),
                CallArg::PosSplat(value) => CallArg::PosSplat(self.whole(value)?),
                CallArg::KwargSplat(value) => CallArg::KwargSplat(self.whole(value)?),
            })
        });
        rewritten.collect()
    }
}

/// About how many steps statements take, without the rounds of loops in them.
fn steps(body: &[Stmt]) -> u64 {
    let one = |statement: &Stmt| match statement {
        Stmt::Template(it) => steps(&it.children),
        Stmt::ForLoop(it) => steps(&it.else_body),
        Stmt::IfCond(it) => steps(&it.true_body).max(steps(&it.false_body)),
        Stmt::WithBlock(it) => it.assignments.len() as u64 + steps(&it.body),
        Stmt::SetBlock(it) => steps(&it.body),
        Stmt::FilterBlock(it) => steps(&it.body),
        Stmt::EmitExpr(_) | Stmt::EmitRaw(_) | Stmt::Set(_) | Stmt::Do(_) | Stmt::AutoEscape(_) => 1,
    };
    body.iter().map(|statement| 1 + one(statement)).sum()
}

/// What is assigned to: names only.
fn target<'a>(parsed: &Expr<'a>) -> Result<Expr<'a>, Error> {
    let names = |items: &[Expr<'a>]| items.iter().map(target).collect::<Result<Vec<_>, Error>>();
    let span = parsed.span();
    Ok(match parsed {
        Expr::Var(it) => Expr::Var(Spanned::new(Var { id: it.id }, span)),
        Expr::List(it) => Expr::List(Spanned::new(List { items: names(&it.items)? }, span)),
        Expr::Tuple(it) => Expr::Tuple(Spanned::new(Tuple { items: names(&it.items)? }, span)),
        _ => return Err(refusal("only a name can be set")),
    })
}
