//! Pure: which addresses may be connected to. Hosts are named by whoever may create groups, and the operator stands in a
//! place from which more can be reached than they could reach themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which addresses may be connected to: all but the operator's own surroundings, unless the administrator allows them.
///
/// Guarantee: an IPv6 address that carries an IPv4 address in one of the known forms (mapped, compatible, translated, NAT64, 6to4,
/// ISATAP) is judged as that IPv4 address too. A NAT64 prefix of the network's own cannot be known here: the administrator
/// refuses it with `--refuse-host-range`.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    api_servers: Vec<IpAddr>,
    allowed: Vec<IpNet>,
    refused: Vec<IpNet>,
}

/// Ranges that are refused, and what people call them.
const REFUSED_V4: [(Ipv4Net, &str); 8] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), "loopback"),
    (Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8), "unspecified"),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
    (Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32), "broadcast"),
    // Alibaba Cloud, Azure, Oracle Cloud (classic).
    (Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32), METADATA),
    (Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32), METADATA),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 192), 32), METADATA),
];
const REFUSED_V6: [(Ipv6Net, &str); 9] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "link-local"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "multicast"),
    // AWS (metadata, DNS, time, credentials of pods), Google Cloud, Oracle Cloud, Scaleway, Linode.
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), 128), METADATA),
];
const METADATA: &str = "a service of the cloud provider (instance metadata)";

impl Guard {
    /// `api_servers` are the addresses of the cluster's own API; what lies in `allowed` is never refused.
    pub fn new(api_servers: Vec<IpAddr>, allowed: Vec<IpNet>) -> Self {
        Self {
            api_servers: api_servers.iter().flat_map(|address| meanings(*address)).collect(),
            allowed,
            refused: Vec::new(),
        }
    }

    /// What lies in `ranges` is refused besides, whatever is allowed.
    #[must_use]
    pub fn refusing(self, ranges: Vec<IpNet>) -> Self {
        Self { refused: ranges, ..self }
    }

    /// # Errors
    /// Why the address may not be connected to, for people: the address, the range and the remedy.
    pub fn check(&self, address: IpAddr) -> Result<(), String> {
        let meanings = meanings(address);
        let within = |range: &&IpNet| meanings.iter().any(|meant| range.contains(meant));
        if let Some(range) = self.refused.iter().find(within) {
            return Err(format!(
                "{address} is not connected to: the administrator refuses {range} (--refuse-host-range)"
            ));
        }
        for &meant in &meanings {
            let Some((range, kind)) = self.refused(meant) else { continue };
            if self.allowed.iter().any(|range| range.contains(&meant) || range.contains(&address)) {
                continue;
            }
            let shown = if meant == address { address.to_string() } else { format!("{address} (that is {meant})") };
            return Err(format!(
                "{shown} is not connected to: {range} is {kind}; where hosts are meant to be there, the administrator allows \
                 it with the operator's flag --allow-host-range={}",
                IpNet::from(meant),
            ));
        }
        Ok(())
    }

    fn refused(&self, address: IpAddr) -> Option<(IpNet, &'static str)> {
        if self.api_servers.contains(&address) {
            return Some((IpNet::from(address), "the cluster's API server"));
        }
        match address {
            IpAddr::V4(v4) => {
                let found = REFUSED_V4.iter().find(|(range, _)| range.contains(&v4));
                found.map(|(range, kind)| (IpNet::from(*range), *kind))
            }
            IpAddr::V6(v6) => {
                let found = REFUSED_V6.iter().find(|(range, _)| range.contains(&v6));
                found.map(|(range, kind)| (IpNet::from(*range), *kind))
            }
        }
    }

    /// Judges an address as it is written, before anything is resolved. Returns the literal address, if it is one.
    ///
    /// # Errors
    /// As [`check`](Self::check); besides, what only a resolver of the C library takes for an address (`127.1`,
    /// `0x7f000001`), and `localhost`: a jump host would resolve them, past this check.
    pub fn check_written(&self, address: &str) -> Result<Option<IpAddr>, String> {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if let Ok(literal) = bare.parse() {
            return self.check(literal).map(|()| Some(literal));
        }
        if let Some(scoped) = bare.split_once('%').and_then(|(scoped, _)| scoped.parse::<Ipv6Addr>().ok()) {
            return self.check(IpAddr::V6(scoped)).map(|()| None);
        }
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = |label: &str| {
            let hexadecimal =
                label.strip_prefix("0x").is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
            hexadecimal || (!label.is_empty() && label.chars().all(|c| c.is_ascii_digit()))
        };
        if name.is_empty() || numeric(last) || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("{address:?} is no address: write an IP address in full, or a DNS name"));
        }
        if last == "localhost" {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            return self.check(local).map(|()| None).map_err(|message| format!("{address}: {message}"));
        }
        Ok(None)
    }
}

/// The address, and the IPv4 addresses that packets to it may go to in the end.
fn meanings(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    let octets = v6.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let carried = match v6.segments() {
        // Mapped (RFC 4291), translated (RFC 2765), and with the well-known prefix of NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            vec![at([12, 13, 14, 15])]
        }
        // NAT64 of local use (RFC 8215): where the address is depends on the length of the prefix (RFC 6052, 2.2), which is
        // not known. In the places that are not meant there are zeros as a rule.
        [0x64, 0xff9b, 1, ..] => {
            let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]].map(at);
            let meant = places.into_iter().filter(|it| it.octets()[0] != 0).collect::<Vec<_>>();
            if meant.is_empty() { places.to_vec() } else { meant }
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Compatible (deprecated); the unspecified address and the loopback of IPv6 are none.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => vec![at([12, 13, 14, 15])],
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at([12, 13, 14, 15])],
        _ => Vec::new(),
    };
    let carried = carried.into_iter().map(IpAddr::V4);
    // What is mapped is no IPv6 address to the system.
    if v6.to_ipv4_mapped().is_some() { carried.collect() } else { std::iter::once(address).chain(carried).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], Vec::new())
    }

    #[test]
    fn surroundings_of_the_operator_are_refused_in_every_form() {
        for (address, range) in [
            ("127.0.0.1", "127.0.0.0/8 is loopback"),
            ("127.255.255.254", "127.0.0.0/8 is loopback"),
            ("::1", "::1/128 is loopback"),
            ("::ffff:127.0.0.1", "127.0.0.0/8 is loopback"),
            ("::127.0.0.1", "127.0.0.0/8 is loopback"),
            ("64:ff9b::7f00:1", "127.0.0.0/8 is loopback"),
            ("::ffff:0:127.0.0.1", "127.0.0.0/8 is loopback"),
            ("::ffff:0:a9fe:a9fe", "169.254.0.0/16 is link-local"),
            // RFC 6052, 2.2, for prefixes of 48, 56, 64 and 96 bits; a translator does not look at what follows.
            ("64:ff9b:1:7f00:0:100::", "127.0.0.0/8 is loopback"),
            ("64:ff9b:1:a9fe:a9:fe00::", "169.254.0.0/16 is link-local"),
            ("64:ff9b:1:a9fe:a9:fe00:1:1", "169.254.0.0/16 is link-local"),
            ("64:ff9b:1:a9:fe:a9fe::", "169.254.0.0/16 is link-local"),
            ("64:ff9b:1:1:a9:fea9:fe00:0", "169.254.0.0/16 is link-local"),
            ("64:ff9b:1:ffff::a9fe:a9fe", "169.254.0.0/16 is link-local"),
            ("64:ff9b:1::7f00:1", "127.0.0.0/8 is loopback"),
            ("64:ff9b:1::", "0.0.0.0/8 is unspecified"),
            ("2001:db8::5efe:7f00:1", "127.0.0.0/8 is loopback"),
            ("2001:db8::200:5efe:a9fe:a9fe", "169.254.0.0/16 is link-local"),
            ("2002:a9fe:a9fe::1", "169.254.0.0/16 is link-local"),
            ("100.100.100.200", "100.100.100.200/32 is a service of the cloud provider"),
            ("::ffff:100.100.100.200", "100.100.100.200/32 is a service of the cloud provider"),
            ("168.63.129.16", "168.63.129.16/32 is a service of the cloud provider"),
            ("64:ff9b::168.63.129.16", "168.63.129.16/32 is a service of the cloud provider"),
            ("192.0.0.192", "192.0.0.192/32 is a service of the cloud provider"),
            ("fd00:ec2::254", "fd00:ec2::/32 is a service of the cloud provider"),
            ("fd00:ec2::23", "fd00:ec2::/32 is a service of the cloud provider"),
            ("fd20:ce::254", "fd20:ce::254/128 is a service of the cloud provider"),
            ("fd00:c1::a9fe:a9fe", "fd00:c1::a9fe:a9fe/128 is a service of the cloud provider"),
            ("fd00:42::42", "fd00:42::42/128 is a service of the cloud provider"),
            ("fd00:a9fe:a9fe::1", "fd00:a9fe:a9fe::1/128 is a service of the cloud provider"),
            ("64:ff9b::10.96.0.1", "10.96.0.1/32 is the cluster's API server"),
            ("2002:7f00:1::", "127.0.0.0/8 is loopback"),
            ("0.0.0.0", "0.0.0.0/8 is unspecified"),
            ("0.1.2.3", "0.0.0.0/8 is unspecified"),
            ("::", "::/128 is unspecified"),
            ("::ffff:0.0.0.0", "0.0.0.0/8 is unspecified"),
            ("169.254.169.254", "169.254.0.0/16 is link-local"),
            ("::ffff:169.254.169.254", "169.254.0.0/16 is link-local"),
            ("fe80::1", "fe80::/10 is link-local"),
            ("febf::1", "fe80::/10 is link-local"),
            ("224.0.0.1", "224.0.0.0/4 is multicast"),
            ("ff02::1", "ff00::/8 is multicast"),
            ("255.255.255.255", "255.255.255.255/32 is broadcast"),
            ("10.96.0.1", "10.96.0.1/32 is the cluster's API server"),
            ("::ffff:10.96.0.1", "10.96.0.1/32 is the cluster's API server"),
            ("fd00::1", "fd00::1/128 is the cluster's API server"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let refused = guard().check(address).unwrap_err();
            assert!(refused.contains(range), "{address}: {refused}");
            assert!(refused.starts_with(&address.to_string()) && refused.contains("--allow-host-range="), "{refused}");
        }
    }

    #[test]
    fn other_addresses_are_not() {
        for address in [
            "10.96.0.2",
            "192.168.1.7",
            "8.8.8.8",
            "169.253.0.1",
            "128.0.0.1",
            "fec0::1",
            "2001:db8::1",
            "fd00::2",
            "::2",
            "100.100.100.201",
            "168.63.129.17",
            "fd20:ce::255",
            "64:ff9b::8.8.8.8",
            // 8.8.8.8 with each length of the prefix.
            "64:ff9b:1:808:8:800::",
            "64:ff9b:1:8:8:808::",
            "64:ff9b:1::8:808:800:0",
            "64:ff9b:1::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "2001:db8::5efe:808:808",
        ] {
            assert_eq!(guard().check(address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    #[test]
    fn the_administrator_has_the_last_word() {
        let allowed = |range: &str| Guard::new(vec!["10.96.0.1".parse().unwrap()], vec![range.parse().unwrap()]);
        for (range, address, passes) in [
            ("127.0.0.0/24", "127.0.0.1", true),
            ("127.0.0.0/24", "::ffff:127.0.0.1", true),
            ("127.0.0.0/24", "127.0.1.1", false),
            ("127.0.0.0/24", "::1", false),
            ("::1/128", "::1", true),
            ("10.96.0.1/32", "10.96.0.1", true),
            ("169.254.0.0/16", "127.0.0.1", false),
            ("64:ff9b:1::/48", "64:ff9b:1::7f00:1", true),
            // One meaning is allowed, another is not.
            ("127.0.0.0/8", "64:ff9b:1:a9fe:a9:fe00:7f00:1", false),
            ("fd00:ec2::254/128", "fd00:ec2::254", true),
            ("100.100.100.200/32", "100.100.100.200", true),
        ] {
            assert_eq!(allowed(range).check(address.parse().unwrap()).is_ok(), passes, "{range} {address}");
        }
    }

    #[test]
    fn what_the_administrator_refuses_is_refused_though_it_is_allowed() {
        let guard = Guard::new(Vec::new(), vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()]);
        let guard = guard.refusing(vec!["10.1.0.0/16".parse().unwrap()]);
        for (address, passes) in
            [("10.1.2.3", false), ("::ffff:10.1.2.3", false), ("10.2.0.1", true), ("127.0.0.1", true)]
        {
            assert_eq!(guard.check(address.parse().unwrap()).is_ok(), passes, "{address}");
        }
        let message = guard.check("10.1.2.3".parse().unwrap()).unwrap_err();
        assert!(message.contains("10.1.0.0/16 (--refuse-host-range)"), "{message}");
    }

    #[test]
    fn what_is_written_is_judged_before_it_is_resolved() {
        for refused in [
            "127.0.0.1",
            "[::1]",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "fe80::1%eth0",
            "",
            ".",
            "a b",
            "web\n",
        ] {
            assert!(guard().check_written(refused).is_err(), "{refused:?}");
        }
        for name in
            ["web-1.example.com", "web-1.", "1password.example", "0xdead.example", "10.example", "2001:db8::1%eth0"]
        {
            assert_eq!(guard().check_written(name), Ok(None), "{name}");
        }
        assert_eq!(guard().check_written("[2001:db8::1]"), Ok(Some("2001:db8::1".parse().unwrap())));
        let allowed = Guard::new(Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(allowed.check_written("localhost"), Ok(None));
    }
}
