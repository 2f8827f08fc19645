//! Pure: what is certain of the types in an expression before it is evaluated, as Kubernetes' type checker does it: a comparison that
//! is never true and an operator that has no such overload are refused. What is only known on the node has any type.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
};

/// What is known of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A number, whole or not.
    Number,
    /// A text.
    String,
    /// Bytes.
    Bytes,
    /// Null.
    Null,
    /// A list of anything.
    List,
    /// A map of anything.
    Map,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// Nothing is known.
    Any,
}

impl Type {
    fn noun(self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Null => "null",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Timestamp => "a timestamp",
            Self::Duration => "a duration",
            Self::Any => "any value",
        }
    }

    fn is(self, one: &[Self]) -> bool {
        self == Self::Any || one.contains(&self)
    }
}

/// The type of a value that stands in JSON. Of null nothing is known: it stands for a value that is not set.
pub fn of_json(value: &serde_json::Value) -> Type {
    use serde_json::Value;
    match value {
        Value::Null => Type::Any,
        Value::Bool(_) => Type::Bool,
        Value::Number(_) => Type::Number,
        Value::String(_) => Type::String,
        Value::Array(_) => Type::List,
        Value::Object(_) => Type::Map,
    }
}

/// What a path such as `facts.cpu.count` is known to be.
pub type Shape<'a> = dyn Fn(&str) -> Type + 'a;

/// Refuses an expression of which it is certain that it fails, or that a comparison in it is never true.
///
/// # Errors
/// The first such place, and how to write it.
pub fn check(expression: &IdedExpr, shape: &Shape) -> Result<(), String> {
    let found = Checker { shape, bound: Vec::new() }.of(expression)?;
    if found.is(&[Type::Bool]) {
        return Ok(());
    }
    Err(format!("it is {}, and must be true or false", found.noun()))
}

struct Checker<'a> {
    shape: &'a Shape<'a>,
    /// The variables of the loops around it.
    bound: Vec<String>,
}

/// Functions of texts that are called on nothing else, and what they return.
const OF_STRINGS: &[(&str, Type)] = &[
    ("startsWith", Type::Bool),
    ("endsWith", Type::Bool),
    ("matches", Type::Bool),
    ("lowerAscii", Type::String),
    ("upperAscii", Type::String),
    ("trim", Type::String),
    ("replace", Type::String),
    ("charAt", Type::String),
    ("substring", Type::String),
    ("split", Type::List),
    ("find", Type::String),
    ("findAll", Type::List),
];

/// Conversions, and functions whose result is known whatever they are called on.
const RESULTS: &[(&str, Type)] = &[
    ("size", Type::Number),
    ("int", Type::Number),
    ("uint", Type::Number),
    ("double", Type::Number),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("bool", Type::Bool),
    ("timestamp", Type::Timestamp),
    ("duration", Type::Duration),
    ("contains", Type::Bool),
];

impl Checker<'_> {
    fn of(&mut self, expression: &IdedExpr) -> Result<Type, String> {
        match &expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Number,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
            }),
            Expr::List(list) => {
                list.elements.iter().try_for_each(|item| self.of(item).map(|_| ()))?;
                Ok(Type::List)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.of(&entry.key)?;
                        self.of(&entry.value)?;
                    }
                }
                Ok(Type::Map)
            }
            Expr::Ident(_) => Ok(self.named(expression)),
            Expr::Select(select) => {
                if select.test {
                    self.of(&select.operand)?;
                    return Ok(Type::Bool);
                }
                if path(expression).is_some() {
                    return Ok(self.named(expression));
                }
                let operand = self.of(&select.operand)?;
                if operand.is(&[Type::Map]) {
                    return Ok(Type::Any);
                }
                Err(format!(".{} is asked of {}; only maps have fields", select.field, operand.noun()))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(it) => {
                let range = self.of(&it.iter_range)?;
                if !range.is(&[Type::List, Type::Map]) {
                    return Err(format!("a loop goes over {}; it needs a list or a map", range.noun()));
                }
                self.of(&it.accu_init)?;
                let before = self.bound.len();
                self.bound.extend([it.iter_var.clone(), it.accu_var.clone()]);
                self.bound.extend(it.iter_var2.clone());
                for part in [&it.loop_cond, &it.loop_step, &it.result] {
                    self.of(part)?;
                }
                self.bound.truncate(before);
                Ok(Type::Any)
            }
            Expr::Struct(_) | Expr::Unspecified => Ok(Type::Any),
        }
    }

    /// The type of a path, unless it begins with the variable of a loop.
    fn named(&self, expression: &IdedExpr) -> Type {
        let Some(path) = path(expression) else { return Type::Any };
        let root = path.split('.').next().unwrap_or_default();
        if self.bound.iter().any(|name| name == root) { Type::Any } else { (self.shape)(&path) }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Type, String> {
        let target = match &call.target {
            // The namespace of a function, such as `math`, is no value.
            Some(target) if matches!(&target.expr, Expr::Ident(name) if is_namespace(name)) => None,
            Some(target) => Some(self.of(target)?),
            None => None,
        };
        let arguments = call.args.iter().map(|argument| self.of(argument)).collect::<Result<Vec<_>, _>>()?;
        let name = call.func_name.as_str();
        match (name, arguments.as_slice()) {
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => comparable(symbol(name), *left, *right),
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                let ordered = [Type::Bool, Type::Number, Type::String, Type::Bytes, Type::Timestamp, Type::Duration];
                for side in [left, right] {
                    if !side.is(&ordered) {
                        return Err(format!("{} compares {} by size, which has no order", symbol(name), side.noun()));
                    }
                }
                comparable(symbol(name), *left, *right)
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, sides) => {
                match sides.iter().find(|side| !side.is(&[Type::Bool])) {
                    Some(side) => Err(format!("{} takes true or false, not {}", symbol(name), side.noun())),
                    None => Ok(Type::Bool),
                }
            }
            (operators::CONDITIONAL, [condition, yes, no]) => match condition.is(&[Type::Bool]) {
                true => Ok(if yes == no { *yes } else { Type::Any }),
                false => Err(format!("? decides by true or false, not by {}", condition.noun())),
            },
            (operators::ADD, [left, right]) => added(*left, *right),
            (operators::SUBSTRACT, [left, right]) => {
                let timely = [Type::Number, Type::Timestamp, Type::Duration];
                calculated("-", &[*left, *right], &timely)
            }
            (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, sides) => {
                calculated(symbol(name), sides, &[Type::Number])
            }
            (operators::NEGATE, sides) => calculated("-", sides, &[Type::Number, Type::Duration]),
            (operators::IN, [_, range]) => match range.is(&[Type::List, Type::Map]) {
                true => Ok(Type::Bool),
                false => Err(format!("in looks into a list or a map, not into {}", range.noun())),
            },
            (operators::INDEX, [of, _]) => match of.is(&[Type::List, Type::Map]) {
                true => Ok(Type::Any),
                false => Err(format!("[] takes an item of a list or a map, not of {}", of.noun())),
            },
            _ => self.function(name, target),
        }
    }

    fn function(&self, name: &str, target: Option<Type>) -> Result<Type, String> {
        if let (Some((_, result)), Some(target)) = (OF_STRINGS.iter().find(|(known, _)| *known == name), target) {
            return match target.is(&[Type::String]) {
                true => Ok(*result),
                false => Err(format!("{name} is called on {}; convert it: string(x).{name}(...)", target.noun())),
            };
        }
        Ok(RESULTS.iter().find(|(known, _)| *known == name).map_or(Type::Any, |(_, result)| *result))
    }
}

/// Namespaces of functions of CEL's extensions and of Kubernetes.
fn is_namespace(name: &str) -> bool {
    ["math", "base64", "sets", "optional", "strings", "lists", "ip", "cidr", "format", "cel"].contains(&name)
}

fn comparable(symbol: &str, left: Type, right: Type) -> Result<Type, String> {
    // Null stands for what is not set, and may be compared with anything.
    if left == right || [left, right].iter().any(|side| side.is(&[Type::Null])) {
        return Ok(Type::Bool);
    }
    let fix = match (left, right) {
        (Type::Number, Type::String) | (Type::String, Type::Number) => {
            "; write the number without quotes, or convert one: int(x), string(x)"
        }
        (Type::Bool, Type::String) | (Type::String, Type::Bool) => "; write true and false without quotes",
        _ => "",
    };
    Err(format!("{symbol} compares {} with {}{fix}", left.noun(), right.noun()))
}

fn added(left: Type, right: Type) -> Result<Type, String> {
    let summands = [Type::Number, Type::String, Type::Bytes, Type::List, Type::Timestamp, Type::Duration];
    for side in [left, right] {
        if !side.is(&summands) {
            return Err(format!("+ adds numbers, strings and lists, not {}", side.noun()));
        }
    }
    let timely = [Type::Timestamp, Type::Duration];
    match (left, right) {
        (Type::Any, _) | (_, Type::Any) => Ok(Type::Any),
        (left, right) if left == right => Ok(left),
        (left, right) if timely.contains(&left) && timely.contains(&right) => Ok(Type::Timestamp),
        (Type::Number, Type::String) | (Type::String, Type::Number) => {
            Err("+ joins a string with a number; convert the number: string(x)".to_owned())
        }
        (left, right) => Err(format!("+ adds {} to {}", right.noun(), left.noun())),
    }
}

fn calculated(symbol: &str, sides: &[Type], allowed: &[Type]) -> Result<Type, String> {
    match sides.iter().find(|side| !side.is(allowed)) {
        Some(side) => Err(format!("{symbol} calculates with numbers, not with {}", side.noun())),
        None if sides.iter().all(|side| *side == Type::Number) => Ok(Type::Number),
        None => Ok(Type::Any),
    }
}

/// An operator as it is written.
fn symbol(operator: &str) -> &str {
    operator.trim_matches('_')
}

/// `a.b.c`, where an expression is that and nothing else.
fn path(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::expect::functions::ENVIRONMENT;

    fn checked(expression: &str) -> Result<(), String> {
        let shape = |path: &str| match path {
            "facts.cpu.count" => Type::Number,
            "facts.os.family" | "node.name" | "params.name" => Type::String,
            "facts.addresses" => Type::List,
            "facts.ok" => Type::Bool,
            "facts" | "facts.os" | "node" | "params" => Type::Map,
            _ => Type::Any,
        };
        check(ENVIRONMENT.compile(expression).unwrap().expression(), &shape)
    }

    #[test]
    fn what_may_be_true_is_let_through() {
        for expression in [
            "facts.cpu.count >= 4 && facts.os.family == 'debian'",
            "facts.cpu.count == 4.0 || facts.cpu.count < 8u",
            "string(facts.cpu.count) == '4'",
            "facts.own == 4 || facts.own == 'four'",
            "int(facts.own) > 3 ? facts.ok : !facts.ok",
            "facts.addresses.all(a, a.startsWith('10.') && a.size() > 3)",
            "'10.0.0.1' in facts.addresses && facts.addresses[0] != ''",
            "has(facts.os.family) && size(facts.os.family) > 1",
            "facts.os.family == null || facts.os.family.matches('^deb')",
            "facts.own.x.y[0].z == 'a' && facts.own + 1 > 2",
            "timestamp('2024-01-01T00:00:00Z') + duration('1h') > timestamp(facts.own)",
            "math.greatest(facts.cpu.count, 2) > 1 && cel.bind(x, facts.own, x == 1)",
            "facts.?os.?family.orValue('x') == 'debian'",
            "node.name.split('-')[1] == '0' && params.name + '-0' == node.name",
            "facts.os.family.lowerAscii().contains('deb')",
        ] {
            assert_eq!(checked(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn what_fails_on_every_node_is_refused_and_says_how_to_write_it() {
        for (expression, message) in [
            ("facts.cpu.count == '4'", "== compares a number with a string; write the number without quotes"),
            ("facts.os.family > 11", "> compares a string with a number"),
            ("facts.ok == 'true'", "write true and false without quotes"),
            ("facts.cpu.count && facts.ok", "&& takes true or false, not a number"),
            ("facts.cpu.count", "it is a number, and must be true or false"),
            ("facts.os.family + 1 == 'x'", "convert the number: string(x)"),
            ("facts.cpu.count.startsWith('4')", "string(x).startsWith(...)"),
            ("facts.addresses > 3", "has no order"),
            ("'a' in facts.os.family", "in looks into a list or a map, not into a string"),
            ("facts.cpu.count.all(c, c > 1)", "a loop goes over a number"),
            ("facts.os.family.trim().size == 3", "only maps have fields"),
            ("facts.os * 2 > 1", "* calculates with numbers, not with a map"),
            ("facts.own == 1 && facts.cpu.count == ''", "== compares a number with a string"),
        ] {
            let refused = checked(expression).unwrap_err();
            assert!(refused.contains(message), "{expression}: {refused}");
        }
    }
}
