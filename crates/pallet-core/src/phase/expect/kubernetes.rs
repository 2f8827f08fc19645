//! Pure: the functions of CEL that Kubernetes adds: quantities, IP addresses, versions, URLs, sets, lists, formats.
//!
//! Their names, results and errors are those of k8s.io/apiserver/pkg/cel/library. Each takes work that is linear in its
//! arguments, but for those that [`metered`](super::metered) has a cost for.

mod format;
mod quantity;
mod url;

use std::{any::Any, cmp::Ordering, net::IpAddr};

use cel::{
    DeclarationError, Env, ExecutionError, add_member_overload, add_overload,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelOptional, CelString, CelUInt, DYN_TYPE, LIST_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use ipnet::IpNet;

use format::Format;
use quantity::Quantity;
use url::Url;

/// Makes a Rust type a type of CEL whose values can be compared for equality.
macro_rules! value_type {
    ($type:ident, $name:literal) => {
        impl Val for $type {
            fn get_type(&self) -> &Type {
                <Self as Val>::cel_type()
            }

            fn cel_type() -> &'static Type {
                static TYPE: Type = Type::new_unspecified_type($name);
                &TYPE
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<$type>().is_some_and(|other| self == other)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $type {}
    };
}

value_type!(Quantity, "kubernetes.Quantity");
value_type!(Format, "kubernetes.NamedFormat");
value_type!(Ip, "net.IP");
value_type!(Cidr, "net.CIDR");
value_type!(Version, "kubernetes.Semver");
value_type!(Url, "kubernetes.URL");

/// An IP address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ip(IpAddr);

/// A network, with the address that it was written with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Cidr(IpNet);

/// A version after semver.org.
#[derive(Clone, Debug)]
struct Version(semver::Version);

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.0.cmp_precedence(&other.0).is_eq()
    }
}

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Adds the functions.
pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    // So that expressions can name them: `type(x) == net.IP`.
    for named in [<Ip as Val>::cel_type(), <Cidr as Val>::cel_type(), <Quantity as Val>::cel_type()] {
        env.add_type(named.to_owned())?;
    }
    quantity::extend(env)?;
    format::extend(env)?;
    addresses(env)?;
    versions(env)?;
    url::extend(env)?;
    lists(env)
}

fn refuse(function: &str, why: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

fn text(value: impl Into<String>) -> CelString<'static> {
    CelString::from(value.into())
}

fn size(count: usize) -> CelInt {
    CelInt::from(i64::try_from(count).unwrap_or(i64::MAX))
}

// Addresses and networks.

impl Ip {
    /// As Go's `netip.ParseAddr`, without zones and without IPv4 addresses in IPv6's clothes.
    fn parse(text: &str) -> Result<Self, String> {
        let address: IpAddr = text.parse().map_err(|_| format!("IP Address '{text}' parse error during conversion"))?;
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(format!("IPv4-mapped IPv6 address '{text}' is not allowed"))
            }
            _ => Ok(Self(address)),
        }
    }
}

impl Cidr {
    /// As Go's `netip.ParsePrefix`.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("CIDR '{text}' parse error during conversion");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address = Ip::parse(address).map_err(|_| wrong())?.0;
        let plain = length.bytes().all(|c| c.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
        let length = length.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        IpNet::new(address, length).map(Self).map_err(|_| wrong())
    }
}

fn addresses(env: &mut Env) -> Result<(), DeclarationError> {
    fn ip(text: &CelString<'_>) -> Result<Ip, ExecutionError> {
        Ip::parse(text.inner()).map_err(|why| refuse("ip", why))
    }
    fn is_ip(text: &CelString<'_>) -> CelBool {
        Ip::parse(text.inner()).is_ok().into()
    }
    fn is_canonical(text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
        let ip = Ip::parse(text.inner()).map_err(|why| refuse("ip.isCanonical", why))?;
        Ok((ip.0.to_string() == text.inner()).into())
    }
    fn ip_string(ip: &Ip) -> CelString<'static> {
        text(ip.0.to_string())
    }
    fn family(ip: &Ip) -> CelInt {
        CelInt::from(if ip.0.is_ipv4() { 4 } else { 6 })
    }
    fn is_unspecified(ip: &Ip) -> CelBool {
        ip.0.is_unspecified().into()
    }
    fn is_loopback(ip: &Ip) -> CelBool {
        ip.0.is_loopback().into()
    }
    fn link_local_multicast(ip: &Ip) -> bool {
        match ip.0 {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        }
    }
    fn link_local_unicast(ip: &Ip) -> bool {
        match ip.0 {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
    }
    fn is_link_local_multicast(ip: &Ip) -> CelBool {
        link_local_multicast(ip).into()
    }
    fn is_link_local_unicast(ip: &Ip) -> CelBool {
        link_local_unicast(ip).into()
    }
    // As Go has it: also private addresses.
    fn is_global_unicast(ip: &Ip) -> CelBool {
        let broadcast = matches!(ip.0, IpAddr::V4(v4) if v4.is_broadcast());
        let other = ip.0.is_unspecified() || ip.0.is_loopback() || ip.0.is_multicast() || link_local_unicast(ip);
        (!broadcast && !other).into()
    }
    add_overload!(env, fn ip: (CelString) -> Result<Ip>)?;
    add_overload!(env, fn is_ip: (CelString) -> CelBool, name = "isIP")?;
    add_overload!(env, fn is_canonical: (CelString) -> Result<CelBool>, name = "ip.isCanonical")?;
    add_overload!(env, fn ip_string: (Ip) -> CelString, name = "string", id = "ip_to_string")?;
    add_member_overload!(env, fn family: (Ip) -> CelInt)?;
    add_member_overload!(env, fn is_unspecified: (Ip) -> CelBool)?;
    add_member_overload!(env, fn is_loopback: (Ip) -> CelBool)?;
    add_member_overload!(env, fn is_link_local_multicast: (Ip) -> CelBool)?;
    add_member_overload!(env, fn is_link_local_unicast: (Ip) -> CelBool)?;
    add_member_overload!(env, fn is_global_unicast: (Ip) -> CelBool)?;

    fn cidr(text: &CelString<'_>) -> Result<Cidr, ExecutionError> {
        Cidr::parse(text.inner()).map_err(|why| refuse("cidr", why))
    }
    fn is_cidr(text: &CelString<'_>) -> CelBool {
        Cidr::parse(text.inner()).is_ok().into()
    }
    fn cidr_string(cidr: &Cidr) -> CelString<'static> {
        text(cidr.0.to_string())
    }
    fn contains_ip(cidr: &Cidr, ip: &Ip) -> CelBool {
        cidr.0.contains(&ip.0).into()
    }
    fn contains_ip_text(cidr: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
        let ip = Ip::parse(text.inner()).map_err(|why| refuse("containsIP", why))?;
        Ok(contains_ip(cidr, &ip))
    }
    fn contains_cidr(cidr: &Cidr, other: &Cidr) -> CelBool {
        cidr.0.contains(&other.0).into()
    }
    fn contains_cidr_text(cidr: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
        let other = Cidr::parse(text.inner()).map_err(|why| refuse("containsCIDR", why))?;
        Ok(contains_cidr(cidr, &other))
    }
    fn address(cidr: &Cidr) -> Ip {
        Ip(cidr.0.addr())
    }
    fn masked(cidr: &Cidr) -> Cidr {
        Cidr(cidr.0.trunc())
    }
    fn prefix_length(cidr: &Cidr) -> CelInt {
        CelInt::from(i64::from(cidr.0.prefix_len()))
    }
    add_overload!(env, fn cidr: (CelString) -> Result<Cidr>)?;
    add_overload!(env, fn is_cidr: (CelString) -> CelBool, name = "isCIDR")?;
    add_overload!(env, fn cidr_string: (Cidr) -> CelString, name = "string", id = "cidr_to_string")?;
    add_member_overload!(env, fn contains_ip: (Cidr, Ip) -> CelBool, name = "containsIP")?;
    add_member_overload!(env, fn contains_ip_text: (Cidr, CelString) -> Result<CelBool>, name = "containsIP")?;
    add_member_overload!(env, fn contains_cidr: (Cidr, Cidr) -> CelBool, name = "containsCIDR")?;
    add_member_overload!(env, fn contains_cidr_text: (Cidr, CelString) -> Result<CelBool>, name = "containsCIDR")?;
    add_member_overload!(env, fn address: (Cidr) -> Ip, name = "ip")?;
    add_member_overload!(env, fn masked: (Cidr) -> Cidr)?;
    add_member_overload!(env, fn prefix_length: (Cidr) -> CelInt)
}

// Versions.

impl Version {
    fn parse(text: &str) -> Result<Self, String> {
        semver::Version::parse(text).map(Self).map_err(|error| error.to_string())
    }

    /// The same of a text as people write it: with a `v` before it, without minor or patch, with leading zeros.
    fn parse_loosely(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let stripped = |part: &str| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0".to_owned(),
            stripped => stripped.to_owned(),
        };
        let mut parts: Vec<String> = numbers.split('.').map(stripped).collect();
        if parts.len() < 3 && !rest.is_empty() {
            return Err("a version without minor or patch cannot have a suffix".to_owned());
        }
        parts.resize(parts.len().max(3), "0".to_owned());
        Self::parse(&format!("{}{rest}", parts.join(".")))
    }

    fn of(text: &CelString<'_>, loosely: bool) -> Result<Self, ExecutionError> {
        let parsed = if loosely { Self::parse_loosely(text.inner()) } else { Self::parse(text.inner()) };
        parsed.map_err(|why| refuse("semver", format!("'{}' is no semantic version: {why}", text.inner())))
    }
}

fn versions(env: &mut Env) -> Result<(), DeclarationError> {
    fn semver(text: &CelString<'_>) -> Result<Version, ExecutionError> {
        Version::of(text, false)
    }
    fn semver_loosely(text: &CelString<'_>, loosely: &CelBool) -> Result<Version, ExecutionError> {
        Version::of(text, *loosely.inner())
    }
    fn is_semver(text: &CelString<'_>) -> CelBool {
        Version::of(text, false).is_ok().into()
    }
    fn is_semver_loosely(text: &CelString<'_>, loosely: &CelBool) -> CelBool {
        Version::of(text, *loosely.inner()).is_ok().into()
    }
    fn major(version: &Version) -> CelInt {
        CelInt::from(i64::try_from(version.0.major).unwrap_or(i64::MAX))
    }
    fn minor(version: &Version) -> CelInt {
        CelInt::from(i64::try_from(version.0.minor).unwrap_or(i64::MAX))
    }
    fn patch(version: &Version) -> CelInt {
        CelInt::from(i64::try_from(version.0.patch).unwrap_or(i64::MAX))
    }
    fn compared(version: &Version, other: &Version) -> CelInt {
        CelInt::from(version.0.cmp_precedence(&other.0) as i64)
    }
    fn later(version: &Version, other: &Version) -> CelBool {
        version.0.cmp_precedence(&other.0).is_gt().into()
    }
    fn earlier(version: &Version, other: &Version) -> CelBool {
        version.0.cmp_precedence(&other.0).is_lt().into()
    }
    add_overload!(env, fn semver: (CelString) -> Result<Version>)?;
    add_overload!(env, fn semver_loosely: (CelString, CelBool) -> Result<Version>, name = "semver")?;
    add_overload!(env, fn is_semver: (CelString) -> CelBool)?;
    add_overload!(env, fn is_semver_loosely: (CelString, CelBool) -> CelBool, name = "isSemver")?;
    add_member_overload!(env, fn major: (Version) -> CelInt)?;
    add_member_overload!(env, fn minor: (Version) -> CelInt)?;
    add_member_overload!(env, fn patch: (Version) -> CelInt)?;
    add_member_overload!(env, fn compared: (Version, Version) -> CelInt, name = "compareTo")?;
    add_member_overload!(env, fn later: (Version, Version) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn earlier: (Version, Version) -> CelBool, name = "isLessThan")
}

// Lists and sets.

/// The items of a list.
fn items<'b, 'v>(value: &'b CowVal<'_, 'v>) -> Result<&'b [Box<dyn Val + 'v>], ExecutionError> {
    let list = value.downcast_ref::<CelList>().ok_or_else(|| refuse("list", "it is no list"))?;
    Ok(list.inner())
}

fn argument<'a, 'b, 'v>(args: &'a [CowVal<'b, 'v>], place: usize) -> Result<&'a CowVal<'b, 'v>, ExecutionError> {
    args.get(place).ok_or_else(ExecutionError::missing_argument_or_target)
}

fn compare(function: &str, one: &dyn Val, other: &dyn Val) -> Result<Ordering, ExecutionError> {
    let comparer = one.as_comparer().ok_or_else(|| refuse(function, "its items have no order"))?;
    comparer.compare(other)
}

fn is_sorted<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    for pair in items(argument(&args, 0)?)?.windows(2) {
        let [one, other] = pair else { continue };
        if compare("isSorted", one.as_ref(), other.as_ref())?.is_gt() {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

/// The first of the items that no other one goes before in this order.
fn extreme<'b, 'v>(function: &str, args: &[CowVal<'b, 'v>], before: Ordering) -> Answer<'b, 'v> {
    let mut items = items(argument(args, 0)?)?.iter();
    let mut best = items.next().ok_or_else(|| refuse(function, format!("{function} called on empty list")))?;
    for item in items {
        if compare(function, item.as_ref(), best.as_ref())? == before {
            best = item;
        }
    }
    Ok(CowVal::Owned(best.clone_as_boxed()))
}

fn min<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    extreme("min", &args, Ordering::Less)
}

fn max<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    extreme("max", &args, Ordering::Greater)
}

/// Of numbers of one type, or of durations; 0 where there are none.
fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let items = items(argument(&args, 0)?)?;
    let Some((first, rest)) = items.split_first() else { return Ok(CowVal::owned(CelInt::from(0))) };
    let is_number = first.downcast_ref::<CelInt>().is_some()
        || first.downcast_ref::<CelUInt>().is_some()
        || first.downcast_ref::<CelDouble>().is_some()
        || first.downcast_ref::<cel::common::types::CelDuration>().is_some();
    if !is_number {
        return Err(refuse("sum", "sum takes numbers or durations"));
    }
    let mut total = first.clone_as_boxed();
    for item in rest {
        let adder = total.as_adder().ok_or_else(|| refuse("sum", "sum takes numbers or durations"))?;
        total = adder.add(item.as_ref())?.into_owned();
    }
    Ok(CowVal::Owned(total))
}

fn place_of<'b, 'v>(place: Option<usize>) -> CowVal<'b, 'v> {
    CowVal::owned(place.map_or(CelInt::from(-1), size))
}

fn first_place<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let wanted = argument(&args, 1)?;
    Ok(place_of(items(argument(&args, 0)?)?.iter().position(|item| item.equals(&**wanted))))
}

fn last_place<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let wanted = argument(&args, 1)?;
    Ok(place_of(items(argument(&args, 0)?)?.iter().rposition(|item| item.equals(&**wanted))))
}

fn is_within(list: &[Box<dyn Val + '_>], item: &dyn Val) -> bool {
    list.iter().any(|other| other.equals(item))
}

fn set_contains<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (list, others) = (items(argument(&args, 0)?)?, items(argument(&args, 1)?)?);
    Ok(CowVal::owned(CelBool::from(others.iter().all(|item| is_within(list, item.as_ref())))))
}

fn set_equals<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (list, others) = (items(argument(&args, 0)?)?, items(argument(&args, 1)?)?);
    let equal = others.iter().all(|item| is_within(list, item.as_ref()))
        && list.iter().all(|item| is_within(others, item.as_ref()));
    Ok(CowVal::owned(CelBool::from(equal)))
}

fn set_intersects<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (list, others) = (items(argument(&args, 0)?)?, items(argument(&args, 1)?)?);
    Ok(CowVal::owned(CelBool::from(others.iter().any(|item| is_within(list, item.as_ref())))))
}

fn lists(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_member_overload("isSorted", "list_is_sorted", LIST_TYPE, vec![], is_sorted)?;
    env.add_member_overload("min", "list_min", LIST_TYPE, vec![], min)?;
    env.add_member_overload("max", "list_max", LIST_TYPE, vec![], max)?;
    env.add_member_overload("sum", "list_sum", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("indexOf", "list_index_of", LIST_TYPE, vec![DYN_TYPE], first_place)?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", LIST_TYPE, vec![DYN_TYPE], last_place)?;
    env.add_overload("sets.contains", "list_sets_contains_list", vec![LIST_TYPE, LIST_TYPE], set_contains)?;
    env.add_overload("sets.equivalent", "list_sets_equivalent_list", vec![LIST_TYPE, LIST_TYPE], set_equals)?;
    env.add_overload("sets.intersects", "list_sets_intersects_list", vec![LIST_TYPE, LIST_TYPE], set_intersects)
}

/// `optional.of(value)`, or `optional.none()`.
fn optional<'b, 'v>(value: Option<Box<dyn Val + 'v>>) -> CowVal<'b, 'v> {
    CowVal::owned(CelOptional::from(value))
}
