//! Pure: the functions that an expression may call: those of CEL, the extension libraries of cel-go, and what Kubernetes adds.
//!
//! The interpreter looks a function up when a call is evaluated, so that a misspelt one would fail on the node, or never where
//! another operand decides. [`check`] looks all of them up once an expression is parsed.

use std::sync::{Arc, LazyLock};

use cel::{
    Context, DeclarationError, Env, IdedExpr, Value,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue},
    extensions,
};

use super::{kubernetes, loops, re2};

/// The environment that expressions are parsed and evaluated in.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // As cel-go does, and so Kubernetes.
    env.set_error_on_duplicate_map_keys(false);
    let extended = extend(&mut env);
    debug_assert!(extended.is_ok(), "{extended:?}");
    Arc::new(env)
});

fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    env.add_extension(extensions::math)?;
    env.add_extension(extensions::encoders)?;
    env.add_extension(kubernetes::extend)?;
    env.add_extension(loops::extend)
}

/// A function as it may be called.
struct Function {
    /// Led by its namespace, where it has one.
    name: &'static str,
    /// Whether it is called on a value.
    member: bool,
    /// The fewest and the most arguments, without the value that it is called on.
    arguments: (usize, usize),
}

/// Functions that are called on a value.
const MEMBERS: &[(&str, usize, usize)] = &[
    // Standard.
    ("contains", 1, 1),
    ("endsWith", 1, 1),
    ("matches", 1, 1),
    ("size", 0, 0),
    ("startsWith", 1, 1),
    // Timestamps and durations.
    ("getDate", 0, 1),
    ("getDayOfMonth", 0, 1),
    ("getDayOfWeek", 0, 1),
    ("getDayOfYear", 0, 1),
    ("getFullYear", 0, 1),
    ("getHours", 0, 1),
    ("getMilliseconds", 0, 1),
    ("getMinutes", 0, 1),
    ("getMonth", 0, 1),
    ("getSeconds", 0, 1),
    // Optional values.
    ("hasValue", 0, 0),
    ("or", 1, 1),
    ("orValue", 1, 1),
    ("value", 0, 0),
    // Texts.
    ("charAt", 1, 1),
    ("find", 1, 1),
    ("findAll", 1, 2),
    ("format", 1, 1),
    ("indexOf", 1, 2),
    ("join", 0, 1),
    ("lastIndexOf", 1, 2),
    ("lowerAscii", 0, 0),
    ("replace", 2, 3),
    ("reverse", 0, 0),
    ("split", 1, 2),
    ("substring", 1, 2),
    ("trim", 0, 0),
    ("upperAscii", 0, 0),
    // Lists.
    ("distinct", 0, 0),
    ("flatten", 0, 1),
    ("isSorted", 0, 0),
    ("max", 0, 0),
    ("min", 0, 0),
    ("slice", 2, 2),
    ("sort", 0, 0),
    ("sum", 0, 0),
    // Quantities and versions.
    ("add", 1, 1),
    ("asApproximateFloat", 0, 0),
    ("asInteger", 0, 0),
    ("compareTo", 1, 1),
    ("isGreaterThan", 1, 1),
    ("isInteger", 0, 0),
    ("isLessThan", 1, 1),
    ("major", 0, 0),
    ("minor", 0, 0),
    ("patch", 0, 0),
    ("sign", 0, 0),
    ("sub", 1, 1),
    // Addresses, networks, URLs, formats.
    ("containsCIDR", 1, 1),
    ("containsIP", 1, 1),
    ("family", 0, 0),
    ("getEscapedPath", 0, 0),
    ("getHost", 0, 0),
    ("getHostname", 0, 0),
    ("getPort", 0, 0),
    ("getQuery", 0, 0),
    ("getScheme", 0, 0),
    ("ip", 0, 0),
    ("isGlobalUnicast", 0, 0),
    ("isLinkLocalMulticast", 0, 0),
    ("isLinkLocalUnicast", 0, 0),
    ("isLoopback", 0, 0),
    ("isUnspecified", 0, 0),
    ("masked", 0, 0),
    ("prefixLength", 0, 0),
    ("validate", 1, 1),
];

/// Functions that are called by their name alone.
const GLOBALS: &[(&str, usize, usize)] = &[
    // Standard.
    ("bool", 1, 1),
    ("bytes", 1, 1),
    ("double", 1, 1),
    ("duration", 1, 1),
    ("dyn", 1, 1),
    ("int", 1, 1),
    ("matches", 2, 2),
    ("size", 1, 1),
    ("string", 1, 1),
    ("timestamp", 1, 1),
    ("type", 1, 1),
    ("uint", 1, 1),
    ("optional.none", 0, 0),
    ("optional.of", 1, 1),
    ("optional.ofNonZeroValue", 1, 1),
    // Extension libraries.
    ("base64.decode", 1, 1),
    ("base64.encode", 1, 1),
    ("lists.range", 1, 1),
    ("math.abs", 1, 1),
    ("math.bitAnd", 2, 2),
    ("math.bitNot", 1, 1),
    ("math.bitOr", 2, 2),
    ("math.bitShiftLeft", 2, 2),
    ("math.bitShiftRight", 2, 2),
    ("math.bitXor", 2, 2),
    ("math.ceil", 1, 1),
    ("math.floor", 1, 1),
    ("math.isFinite", 1, 1),
    ("math.isInf", 1, 1),
    ("math.isNaN", 1, 1),
    ("math.round", 1, 1),
    ("math.sign", 1, 1),
    ("math.sqrt", 1, 1),
    ("math.trunc", 1, 1),
    ("strings.quote", 1, 1),
    // Of Kubernetes.
    ("cidr", 1, 1),
    ("format.byte", 0, 0),
    ("format.date", 0, 0),
    ("format.datetime", 0, 0),
    ("format.dns1035Label", 0, 0),
    ("format.dns1035LabelPrefix", 0, 0),
    ("format.dns1123Label", 0, 0),
    ("format.dns1123LabelPrefix", 0, 0),
    ("format.dns1123Subdomain", 0, 0),
    ("format.dns1123SubdomainPrefix", 0, 0),
    ("format.labelValue", 0, 0),
    ("format.named", 1, 1),
    ("format.qualifiedName", 0, 0),
    ("format.uri", 0, 0),
    ("format.uuid", 0, 0),
    ("ip", 1, 1),
    ("ip.isCanonical", 1, 1),
    ("isCIDR", 1, 1),
    ("isIP", 1, 1),
    ("isQuantity", 1, 1),
    ("isSemver", 1, 2),
    ("isURL", 1, 1),
    ("quantity", 1, 1),
    ("semver", 1, 2),
    ("sign", 1, 1),
    ("sets.contains", 2, 2),
    ("sets.equivalent", 2, 2),
    ("sets.intersects", 2, 2),
    ("url", 1, 1),
];

/// What people from other languages write, and how CEL has it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("capitalize", "there is none; use lowerAscii() or upperAscii()"),
    ("count", "use size(), or filter(x, ...).size()"),
    ("has", "has() takes a field, as in has(facts.java)"),
    ("includes", "use contains()"),
    ("keys", "use map(key, key), which goes over the keys of a map"),
    ("len", "use size()"),
    ("length", "use size()"),
    ("lower", "use lowerAscii()"),
    ("match", "use matches()"),
    ("now", "expressions have no clock: they would change their answer by themselves"),
    ("range", "use lists.range()"),
    ("regex", "use matches()"),
    ("sorted", "use sort()"),
    ("strip", "use trim()"),
    ("toLowerCase", "use lowerAscii()"),
    ("toUpperCase", "use upperAscii()"),
    ("unique", "use distinct()"),
    ("upper", "use upperAscii()"),
];

/// Functions whose literal argument is checked by calling them.
const FROM_TEXT: &[&str] =
    &["bool", "bytes", "cidr", "double", "duration", "int", "ip", "quantity", "semver", "timestamp", "uint", "url"];

/// The names of all functions.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    MEMBERS.iter().chain(GLOBALS).map(|(name, ..)| *name)
}

/// The full name of a function in a namespace, such as `math.abs`, where a call is one of it: its target is no value.
pub(super) fn qualified(call: &CallExpr) -> Option<String> {
    let Some(IdedExpr { expr: Expr::Ident(namespace), .. }) = call.target.as_deref() else { return None };
    let name = format!("{namespace}.{}", call.func_name);
    GLOBALS.iter().any(|(known, ..)| *known == name).then_some(name)
}

/// Looks up every function that an expression calls, whether or not the call would be evaluated.
///
/// # Errors
/// The first function that does not exist, or that takes another number of arguments; or the first literal that a function
/// cannot take: a pattern, a timestamp, a quantity.
pub(super) fn check(expression: &IdedExpr) -> Result<(), String> {
    match &expression.expr {
        Expr::Call(call) => {
            // Operators, and what macros are expanded to, have names that nobody can write.
            if call.func_name.starts_with(|c: char| c.is_ascii_alphabetic()) && !call.func_name.contains('@') {
                check_call(call)?;
            }
            if qualified(call).is_none() {
                call.target.iter().try_for_each(|target| check(target))?;
            }
            call.args.iter().try_for_each(check)
        }
        Expr::Comprehension(it) => {
            [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result].into_iter().try_for_each(check)
        }
        Expr::List(list) => list.elements.iter().try_for_each(check),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(&entry.expr)),
        Expr::Struct(object) => Err(format!("{}: there are no messages here; use a map", object.type_name)),
        Expr::Select(select) => check(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Ok(()),
    }
}

fn check_entry(entry: &EntryExpr) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => check(&field.value),
        EntryExpr::MapEntry(entry) => check(&entry.key).and_then(|()| check(&entry.value)),
    }
}

fn check_call(call: &CallExpr) -> Result<(), String> {
    let full = qualified(call);
    let name = full.as_deref().unwrap_or(&call.func_name);
    let member = full.is_none() && call.target.is_some();
    let (known, others) = if member { (MEMBERS, GLOBALS) } else { (GLOBALS, MEMBERS) };
    let found = |table: &[(&'static str, usize, usize)]| table.iter().copied().find(|(known, ..)| *known == name);
    let function = match (found(known), found(others)) {
        (Some((name, least, most)), _) => Function { name, member, arguments: (least, most) },
        (None, Some(_)) if member => return Err(format!("{name} is called by its name alone: {name}(...)")),
        (None, Some(_)) => return Err(format!("{name} is called on a value: x.{name}(...)")),
        (None, None) => return Err(format!("there is no function {name}{}", hint(name, member))),
    };
    let (least, most) = function.arguments;
    if !(least..=most).contains(&call.args.len()) {
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        return Err(format!("{name} takes {wanted} {}, not {}", plural(most), call.args.len()));
    }
    check_literals(&function, call)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "argument" } else { "arguments" }
}

/// Checks what is known before anything is evaluated.
fn check_literals(function: &Function, call: &CallExpr) -> Result<(), String> {
    let literal = |argument: Option<&IdedExpr>| match argument {
        Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }) => Some(text.inner().to_owned()),
        _ => None,
    };
    if matches!(function.name, "matches" | "find" | "findAll") {
        let place = usize::from(!function.member);
        let Some(pattern) = literal(call.args.get(place)) else { return Ok(()) };
        return re2::compiled(&pattern, re2::LARGEST).map(drop).map_err(|why| format!("{}: {why}", function.name));
    }
    if function.member
        || !FROM_TEXT.contains(&function.name)
        || literal(call.args.first()).is_none()
        || call.args.len() != 1
    {
        return Ok(());
    }
    let called = IdedExpr { id: 0, expr: Expr::Call(call.clone()) };
    let scope = Context::with_env(ENVIRONMENT.clone());
    Value::resolve_val(&called, &scope).map(drop).map_err(|error| error.to_string())
}

fn hint(name: &str, member: bool) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    if let Some((_, how)) = ELSEWHERE.iter().find(|(other, _)| other.eq_ignore_ascii_case(last)) {
        return format!("; {how}");
    }
    // How different two names are; a name within the other is nearest.
    let distance = |known: &str| {
        let (a, b) = (known.to_ascii_lowercase(), name.to_ascii_lowercase());
        let within = b.len() > 2 && a.contains(&b) || a.len() > 3 && b.contains(&a);
        if within { 0 } else { strsim::damerau_levenshtein(&a, &b) }
    };
    let table = if member { MEMBERS } else { GLOBALS };
    let nearest = table.iter().map(|(known, ..)| (distance(known), *known)).min();
    nearest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| format!("; is {known} meant?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(expression: &str) -> Result<(), String> {
        let program = ENVIRONMENT.compile(expression).map_err(|error| error.to_string())?;
        check(program.expression())
    }

    #[test]
    fn a_function_that_does_not_exist_is_refused_wherever_it_stands() {
        for (expression, why) in [
            ("facts.x.splt(',')", "there is no function splt; is split meant?"),
            ("false && facts.x.lower() == ''", "there is no function lower; use lowerAscii()"),
            ("true || len(facts.x) > 1", "there is no function len; use size()"),
            ("[1].all(x, x.count() > 1)", "there is no function count; use size(), or filter(x, ...).size()"),
            ("{'a': now()}.a", "there is no function now; expressions have no clock"),
            ("split('a,b', ',')", "split is called on a value: x.split(...)"),
            ("'5'.int()", "int is called by its name alone: int(...)"),
            ("'a,b'.split()", "split takes 1 to 2 arguments, not 0"),
            ("math.absolute(1)", "there is no function"),
            ("'a'.matches('^(?!a)')", "matches: "),
            ("'a'.matches('(?x)a')", "invalid or unsupported Perl syntax"),
            ("duration('1d') > duration('1h')", "duration"),
            ("timestamp('yesterday') > timestamp(0)", "timestamp"),
            ("quantity('1gi').sign() == 1", "'1gi' is no quantity"),
            ("google.protobuf.Timestamp{seconds: 1} == timestamp(1)", "there are no messages here"),
        ] {
            let refused = checked(expression).unwrap_err();
            assert!(refused.contains(why), "{expression}: {refused}");
        }
        for expression in ["facts.x.split(',').size() == math.abs(1)", "optional.of(1).hasValue()", "has(facts.x)"] {
            assert_eq!(checked(expression), Ok(()), "{expression}");
        }
    }
}
