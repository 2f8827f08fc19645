//! Addresses and networks: the basics of Ansible's `ipaddr`.

use std::net::IpAddr;

use ipnet::IpNet;
use minijinja::{Error, Value, value::ValueKind};

use super::{Call, Entry, Made, entry, python, refusal};

pub(super) fn filters() -> Vec<Entry> {
    const SIGNATURE: &str = "value, query=";
    vec![
        entry(&["ipaddr"], SIGNATURE, |call| addresses(call, |_| true)),
        entry(&["ipv4"], SIGNATURE, |call| addresses(call, |address| address.is_ipv4())),
        entry(&["ipv6"], SIGNATURE, |call| addresses(call, |address| address.is_ipv6())),
        entry(&["ipwrap"], "value", |call| {
            let text = call.string(0)?;
            let is_v6 = text.split('/').next().is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
            Ok(Value::from(match (is_v6, text.split_once('/')) {
                (true, Some((address, prefix))) => format!("[{address}]/{prefix}"),
                (true, None) => format!("[{text}]"),
                (false, _) => text,
            }))
        }),
    ]
}

/// An address, and the network that it is given with.
struct Given {
    address: IpAddr,
    net: IpNet,
    has_prefix: bool,
}

fn parsed(text: &str) -> Option<Given> {
    if let Some((address, mask)) = text.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let prefix = match mask.parse::<u8>() {
            Ok(prefix) => prefix,
            Err(_) => ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok()?,
        };
        return Some(Given { address, net: IpNet::new(address, prefix).ok()?, has_prefix: true });
    }
    let address: IpAddr = text.parse().ok()?;
    Some(Given { address, net: IpNet::from(address), has_prefix: false })
}

fn addresses(call: &mut Call, fits: fn(&IpAddr) -> bool) -> Made {
    let value = call.value(0);
    let query = match call.given(1).filter(|query| !query.is_none()) {
        None => String::new(),
        Some(query) => python::text(query)?,
    };
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let items = call.list(0)?;
        call.pay_items(items.len())?;
        let mut found = Vec::new();
        for item in items {
            let one = asked(&item, &query, fits)?;
            if one.kind() != ValueKind::Bool || one.is_true() {
                found.push(one);
            }
        }
        return Ok(found.into());
    }
    asked(&value, &query, fits)
}

/// What is asked of one address; false where it is none, or not of that kind.
fn asked(value: &Value, query: &str, fits: fn(&IpAddr) -> bool) -> Result<Value, Error> {
    let no = || Ok(Value::from(false));
    let Some(text) = value.as_str() else { return no() };
    let Some(given) = parsed(text.trim()) else { return no() };
    if !fits(&given.address) {
        return no();
    }
    let Given { address, net, has_prefix } = given;
    let text_of = |text: String| Ok(Value::from(text));
    let full = net.prefix_len() == net.max_prefix_len();
    let is_network = has_prefix && !full && net.network() == address;
    let size = || 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX);
    let count = |number: u128| {
        i128::try_from(number).map(python::integer).map_err(|_| refusal("the network is too large to count"))
    };
    match query {
        "" => Ok(value.clone()),
        "address" | "ip" if is_network => no(),
        "address" | "ip" => text_of(address.to_string()),
        "host" | "address/prefix" | "ip/prefix" | "host/prefix" if is_network => no(),
        "host" | "address/prefix" | "ip/prefix" | "host/prefix" | "cidr" => text_of(net.to_string()),
        "network" | "network_id" => text_of(net.network().to_string()),
        "subnet" | "net" | "network/prefix" => text_of(net.trunc().to_string()),
        "netmask" => text_of(net.netmask().to_string()),
        "hostmask" | "wildcard" => text_of(net.hostmask().to_string()),
        "broadcast" => text_of(net.broadcast().to_string()),
        "prefix" => Ok(Value::from(net.prefix_len())),
        "size" => count(size()),
        "version" => Ok(Value::from(if address.is_ipv4() { 4 } else { 6 })),
        "type" => Ok(Value::from(if is_network { "network" } else { "address" })),
        "int" => match address {
            IpAddr::V4(address) => Ok(Value::from(u32::from(address))),
            IpAddr::V6(address) => count(u128::from(address)),
        },
        "loopback" | "lo" => Ok(if address.is_loopback() { value.clone() } else { Value::from(false) }),
        "private" => Ok(if is_private(&address) { value.clone() } else { Value::from(false) }),
        "public" => Ok(if is_private(&address) || address.is_loopback() || address.is_multicast() {
            Value::from(false)
        } else {
            value.clone()
        }),
        "multicast" => Ok(if address.is_multicast() { value.clone() } else { Value::from(false) }),
        "link-local" => Ok(if is_link_local(&address) { value.clone() } else { Value::from(false) }),
        other => {
            if let Ok(place) = other.parse::<i128>() {
                let size = i128::try_from(size()).map_err(|_| refusal("the network is too large to count"))?;
                let place = if place < 0 { place + size } else { place };
                if !(0..size).contains(&place) {
                    return no();
                }
                let address = moved(net.network(), place);
                return text_of(format!("{address}/{}", net.prefix_len()));
            }
            if let Ok(within) = other.parse::<IpNet>() {
                return Ok(if within.contains(&net) { value.clone() } else { Value::from(false) });
            }
            Err(refusal(format!(
                "filter ipaddr: there is no {other}; address, network, netmask, prefix, broadcast, subnet, host, size, version, \
                 type, private, public, a number and a network such as 10.0.0.0/8 are"
            )))
        }
    }
}

fn moved(network: IpAddr, by: i128) -> IpAddr {
    let by = u128::try_from(by).unwrap_or(0);
    match network {
        IpAddr::V4(address) => IpAddr::V4(u32::from(address).wrapping_add(by as u32).into()),
        IpAddr::V6(address) => IpAddr::V6(u128::from(address).wrapping_add(by).into()),
    }
}

fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}
