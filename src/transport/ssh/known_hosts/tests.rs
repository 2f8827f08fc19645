use russh::keys::{
    PrivateKey,
    key::safe_rng,
    ssh_key::{certificate::Builder, certificate::CertType},
};

use super::*;

const P256: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };

fn made(kind: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), kind).unwrap()
}

fn data(key: &PrivateKey) -> &KeyData {
    key.public_key().key_data()
}

fn public(key: &PrivateKey) -> String {
    line(data(key))
}

fn known(host: &Host, text: &str) -> Trusted {
    let mut trusted = Trusted::of(host.clone());
    trusted.add_known_hosts(text.as_bytes()).unwrap();
    trusted
}

fn matches(pattern: &str, text: &str) -> bool {
    Name::new(text).matches(pattern)
}

/// As `ssh-keygen -H` writes it.
fn hashed(name: &str) -> String {
    let salt = b"twenty bytes of salt";
    let mac = Hmac::<Sha1>::new_from_slice(salt).unwrap().chain_update(name).finalize();
    format!("|1|{}|{}", BASE64.encode(salt), BASE64.encode(&mac.into_bytes()))
}

#[test]
fn hosts_are_matched_by_the_rules_of_known_hosts() {
    let key = made(Algorithm::Ed25519);
    let web = Host::new("web-1.example.com", 22);
    let odd = Host::new("WEB-1.example.com.", 2222);
    let v6 = Host::new("[2001:DB8:0:0::1]", 22);
    for (hosts, host, fits) in [
        ("web-1.example.com", &web, true),
        ("WEB-1.EXAMPLE.COM", &web, true),
        ("web-2.example.com", &web, false),
        ("web-1.example.com.evil.com", &web, false),
        ("*", &web, true),
        ("*.example.com", &web, true),
        ("*.example", &web, false),
        ("web-?.example.com", &web, true),
        ("web-??.example.com", &web, false),
        ("w*1*.com", &web, true),
        ("a,b,web-1.example.com", &web, true),
        ("*.example.com,!web-1.example.com", &web, false),
        ("!web-1.example.com,*.example.com", &web, false),
        ("!web-2.example.com,*.example.com", &web, true),
        ("!web-2.example.com", &web, false),
        ("[web-1.example.com]:2222", &odd, true),
        ("[web-1.example.com]:22", &odd, false),
        ("[web-1.example.com]:2222", &web, false),
        ("[*.example.com]:2222", &odd, true),
        // As OpenSSH does where the port is a special one and only the plain name is known.
        ("web-1.example.com", &odd, true),
        ("2001:db8::1", &v6, true),
        (&hashed("web-1.example.com"), &web, true),
        (&hashed("web-2.example.com"), &web, false),
        (&hashed("[web-1.example.com]:2222"), &odd, true),
        (&hashed("[web-1.example.com]:2222"), &web, false),
        ("", &web, false),
    ] {
        let trusted = known(host, &format!("{hosts} {} a comment\n", public(&key)));
        assert_eq!(trusted.judge_key(data(&key)).is_ok(), fits, "{hosts} {host:?}");
    }
}

/// What `ssh-keygen -H` made of `web-1.example.com` once.
#[test]
fn a_hash_that_openssh_has_made_is_understood() {
    let hosts = Hosts::parse("|1|uEp2WE/K7DXzsCdrQ0Pm5fnY8P0=|HAS").is_none();
    assert!(hosts, "what is no base64 is not taken");
    assert!(Hosts::parse(OPENSSH).unwrap().contain(&Name::new("web-1.example.com")));
    assert!(!Hosts::parse(OPENSSH).unwrap().contain(&Name::new("web-2.example.com")));
}

const OPENSSH: &str = "|1|jjp7GYQr/ikmLqHqg+gE6y0oEq4=|4gstd8ni/90xf0RVvXalMQwhXNY=";

#[test]
fn a_long_pattern_does_not_take_long() {
    let began = std::time::Instant::now();
    assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    assert!(!matches(&format!("{}b", "*a".repeat(200)), &"a".repeat(5000)));
    assert!(began.elapsed().as_secs() < 5);
}

/// The slow way, which cannot be wrong.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        [byte, rest @ ..] => text.first().is_some_and(|first| *byte == b'?' || byte == first) && fits(rest, &text[1..]),
    }
}

#[test]
fn every_short_pattern_fits_what_it_should() {
    let all = |letters: &[u8], longest: u32| -> Vec<String> {
        let letter = |n: usize, place: u32| letters[n / letters.len().pow(place) % letters.len()];
        (0..=longest)
            .flat_map(|length| (0..letters.len().pow(length)).map(move |n| (length, n)))
            .map(|(length, n)| (0..length).map(|place| char::from(letter(n, place))).collect())
            .collect()
    };
    let (patterns, texts) = (all(b"ab*?", 4), all(b"ab", 4));
    // Behind as much as fills a word, too.
    for before in ["", &"x".repeat(62), &"x".repeat(63), &"x".repeat(64)] {
        for text in &texts {
            let name = Name::new(&format!("{before}{text}"));
            for pattern in &patterns {
                let expected = fits(pattern.as_bytes(), text.as_bytes());
                assert_eq!(name.matches(&format!("{before}{pattern}")), expected, "{pattern} {before}{text}");
            }
        }
    }
}

#[test]
fn the_longest_known_hosts_do_not_take_long_and_longer_ones_are_refused() {
    let key = public(&made(Algorithm::Ed25519));
    // 247 bytes and a port: the longest name, and patterns that fit it in as many ways as can be.
    let host = Host::new(&"a".repeat(247), 2222);
    let pattern = format!("[{}b", "*a".repeat(127));
    let line = format!("{} {key}\n", vec![pattern.as_str(); 1000].join(","));
    let text = line + &format!("[{}]:2222 {key}\n", "a".repeat(247));
    let began = std::time::Instant::now();
    let trusted = known(&host, &text);
    assert!(trusted.judge_key(PublicKey::from_openssh(&key).unwrap().key_data()).is_ok());
    trusted.kinds();
    // Without optimisation it takes a tenth; each step for each byte of the name would take minutes.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    let refused = Trusted::of(host.clone()).add_known_hosts(&vec![b'#'; LONGEST + 1]).unwrap_err();
    assert!(refused.contains("262145 bytes") && refused.contains("262144"), "{refused}");
    let unreadable = known(&host, &format!("{} {key}\n", "*".repeat(257)));
    let refusal = unreadable.judge_key(data(&made(Algorithm::Ed25519))).unwrap_err();
    assert!(refusal.message.contains("1 line of the known hosts could not be read"), "{}", refusal.message);
}

/// What is for other hosts is not gone over again.
#[test]
fn only_the_entries_of_the_host_are_kept() {
    let key = public(&made(Algorithm::Ed25519));
    let text: String = (0..500).map(|n| format!("web-{n} {key}\n")).collect();
    assert_eq!(known(&Host::new("web-7", 22), &text).entries.len(), 1);
}

#[test]
fn a_key_is_trusted_only_where_it_is_pinned_and_not_revoked() {
    let (own, other, second) = (made(Algorithm::Ed25519), made(Algorithm::Ed25519), made(P256));
    let host = Host::new("10.0.0.7", 22);
    let (own_line, other_line) = (public(&own), public(&other));
    let pinned = |lines: &[String]| {
        let mut trusted = Trusted::of(host.clone());
        lines.iter().for_each(|line| trusted.add_key(line).unwrap());
        trusted
    };
    let key = |line: &String| line.clone();
    for (what, trusted, offered, expected) in [
        ("nothing", Trusted::of(host.clone()), &own, "HostKeyUnknown"),
        ("pinned", pinned(&[key(&own_line)]), &own, ""),
        ("with a comment", pinned(&[format!("  {own_line} root@web  ")]), &own, ""),
        ("one of two", pinned(&[key(&other_line), key(&own_line)]), &own, ""),
        ("another", pinned(&[key(&other_line)]), &own, "HostKeyChanged"),
        ("another kind", pinned(&[key(&own_line)]), &second, "HostKeyChanged"),
        ("revoked", pinned(&[key(&own_line), format!("@revoked {own_line}")]), &own, "HostKeyRevoked"),
        ("revoked here", known(&host, &format!("* {own_line}\n@revoked 10.0.0.7 {own_line}")), &own, "HostKeyRevoked"),
        ("revoked there", known(&host, &format!("* {own_line}\n@revoked 10.0.0.8 {own_line}")), &own, ""),
        ("authority only", pinned(&[format!("@cert-authority {own_line}")]), &own, "HostKeyUnknown"),
        ("of another host", known(&host, &format!("web {own_line}")), &own, "HostKeyUnknown"),
    ] {
        let verdict = trusted.judge_key(data(offered));
        assert_eq!(verdict.err().map_or("", |refusal| refusal.reason.as_str()), expected, "{what}");
    }
}

#[test]
fn a_refusal_says_what_is_offered_and_what_to_do() {
    let (own, other) = (made(Algorithm::Ed25519), made(P256));
    let host = Host::new("web", 22);
    let fingerprint = |key: &PrivateKey| data(key).fingerprint(HashAlg::Sha256).to_string();
    let unknown = Trusted::of(host.clone()).judge_key(data(&own)).unwrap_err().message;
    for part in [
        &fingerprint(&own),
        &public(&own),
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        "no host key is trusted",
    ] {
        assert!(unknown.contains(part), "{part}: {unknown}");
    }
    let text =
        format!("# comment\n\nelse {}\nrubbish\n@what web {}\nweb ssh-ed25519 AAAA\n", public(&own), public(&own));
    let elsewhere = known(&host, &text).judge_key(data(&own)).unwrap_err().message;
    assert!(
        elsewhere.contains("none of the 1 entries") && elsewhere.contains("3 lines of the known hosts"),
        "{elsewhere}"
    );
    let changed = known(&host, &format!("web {}", public(&own))).judge_key(data(&other)).unwrap_err().message;
    for part in [&fingerprint(&own), &fingerprint(&other), &public(&other), "reinstalled", "ssh_host_ecdsa_key.pub"] {
        assert!(changed.contains(part), "{part}: {changed}");
    }
}

#[test]
fn a_line_that_is_no_key_is_refused_with_the_remedy() {
    let key = public(&made(Algorithm::Ed25519));
    for (line, expected) in [
        ("", "no OpenSSH public key"),
        ("ssh-ed25519", "no OpenSSH public key"),
        ("ssh-ed25519 AAAA", "no OpenSSH public key"),
        ("@marker ssh-ed25519 AAAA", "neither"),
        ("@cert-authority", "neither"),
        (&format!("web {key}"), "leave the host's name out"),
        (&format!("@cert-authority *.example.com {key}"), "leave the host's name out"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "no OpenSSH public key"),
    ] {
        let message = Trusted::of(Host::new("web", 22)).add_key(line).unwrap_err();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn the_kind_that_is_pinned_is_asked_for_first() {
    let (ed25519, ecdsa) = (made(Algorithm::Ed25519), made(P256));
    let host = Host::new("web", 22);
    let kinds = |text: String| known(&host, &text).kinds();
    let (keys, certificates) = kinds(format!("web {}", public(&ecdsa)));
    assert_eq!(keys[..2], [P256, Algorithm::Ed25519]);
    assert!(certificates.is_empty());
    assert_eq!(kinds(format!("else {}", public(&ecdsa))).0[0], Algorithm::Ed25519);
    assert_eq!(kinds(format!("web {}", public(&ed25519))).0[0], Algorithm::Ed25519);
    let (keys, certificates) = kinds(format!("@cert-authority web {}", public(&ecdsa)));
    assert_eq!((keys.len(), certificates.len()), (4, 4));
    assert!(keys.iter().all(|kind| !kind.clone().is_rsa()), "RSA cannot be checked");
    assert!(kinds(format!("@cert-authority else {}", public(&ecdsa))).1.is_empty());
}

struct Certified {
    authority: PrivateKey,
    key: PrivateKey,
    kind: CertType,
    valid: (u64, u64),
    principals: Vec<&'static str>,
    option: bool,
}

impl Certified {
    fn new() -> Self {
        let (authority, key) = (made(Algorithm::Ed25519), made(P256));
        Self {
            authority,
            key,
            kind: CertType::Host,
            valid: (1000, 2000),
            principals: vec!["web.example.com"],
            option: false,
        }
    }

    fn sign(&self) -> Certificate {
        let (after, before) = self.valid;
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), data(&self.key).clone(), after, before).unwrap();
        builder.cert_type(self.kind).unwrap();
        builder.key_id("web").unwrap();
        for principal in &self.principals {
            builder.valid_principal(*principal).unwrap();
        }
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        if self.option {
            builder.critical_option("force-command", "/bin/true").unwrap();
        }
        builder.sign(&self.authority).unwrap()
    }

    fn verdict(&self, extra: &str) -> Result<(), Refusal> {
        let host = Host::new("web.example.com", 2222);
        let text = format!("@cert-authority *.example.com,web {}\n{extra}", public(&self.authority));
        known(&host, &text).judge_certificate(&self.sign(), 1500)
    }
}

#[test]
fn a_certificate_of_a_trusted_authority_is_accepted() {
    let mut good = Certified::new();
    assert_eq!(good.verdict(""), Ok(()));
    good.principals = vec!["db", "*.example.com"];
    assert_eq!(good.verdict(""), Ok(()), "as OpenSSH does");
    (good.authority, good.valid) = (made(P256), (0, u64::MAX));
    assert_eq!(good.verdict(""), Ok(()));
}

#[test]
fn any_other_certificate_is_refused_with_the_exact_reason() {
    let changed = |change: fn(&mut Certified)| {
        let mut certified = Certified::new();
        change(&mut certified);
        certified
    };
    for (certified, expected) in [
        (changed(|it| it.kind = CertType::User), "for a user"),
        (changed(|it| it.valid = (1501, 2000)), "not valid before 1970-01-01T00:25:01Z"),
        (changed(|it| it.valid = (1000, 1500)), "valid until 1970-01-01T00:25:00Z"),
        (changed(|it| it.principals = vec!["db", "web"]), "it is for db, web, not for web.example.com"),
        (changed(|it| it.principals = vec![]), "it is for no host at all"),
        (changed(|it| it.option = true), "critical options, which hosts' certificates cannot have: force-command"),
    ] {
        let refusal = certified.verdict("").unwrap_err();
        assert_eq!(refusal.reason, "HostCertificateInvalid");
        assert!(refusal.message.contains(expected), "{expected}: {}", refusal.message);
    }
    let (certified, stranger) = (Certified::new(), made(Algorithm::Ed25519));
    let host = Host::new("web.example.com", 22);
    let trusted = known(&host, &format!("@cert-authority * {}", public(&stranger)));
    let refusal = trusted.judge_certificate(&certified.sign(), 1500).unwrap_err();
    assert!(refusal.message.contains(&described(data(&stranger))), "{}", refusal.message);
    assert!(refusal.message.contains(&described(data(&certified.authority))), "{}", refusal.message);
}

#[test]
fn a_certificate_whose_signature_is_false_is_refused() {
    let certified = Certified::new();
    let mut bytes = certified.sign().to_bytes().unwrap();
    let at = bytes.windows(15).position(|window| window == b"web.example.com").unwrap();
    // It names another host now.
    bytes[at] = b'x';
    let forged = Certificate::from_bytes(&bytes).unwrap();
    let host = Host::new("xeb.example.com", 22);
    let trusted = known(&host, &format!("@cert-authority * {}", public(&certified.authority)));
    let refusal = trusted.judge_certificate(&forged, 1500).unwrap_err();
    assert!(refusal.message.contains("cannot be confirmed"), "{}", refusal.message);
}

#[test]
fn revocation_outweighs_a_certificate_and_a_pinned_key_a_bad_one() {
    let mut certified = Certified::new();
    for revoked in [public(&certified.key), public(&certified.authority)] {
        assert_eq!(certified.verdict(&format!("@revoked * {revoked}")).unwrap_err().reason, "HostKeyRevoked");
    }
    certified.valid = (0, 1);
    assert!(certified.verdict("").is_err());
    assert_eq!(certified.verdict(&format!("web.example.com {}", public(&certified.key))), Ok(()));
}

/// As OpenSSH has it: what is pinned for the port is for that port, and then nothing else counts there.
#[test]
fn an_entry_with_the_port_comes_before_one_without() {
    let (inner, gateway) = (made(Algorithm::Ed25519), made(Algorithm::Ed25519));
    let text = format!("[gw]:2201 {}\ngw {}\n", public(&inner), public(&gateway));
    let of = |port: u16, key: &PrivateKey| {
        known(&Host::new("gw", port), &text).judge_key(data(key)).map_err(|refusal| refusal.reason)
    };
    assert_eq!(
        (of(2201, &inner), of(2201, &gateway)),
        (Ok(()), Err(Reason::HostKeyChanged)),
        "the gateway is not what is behind it"
    );
    assert_eq!(of(2202, &gateway), Ok(()), "nothing is pinned for that port");
    let text = format!("[gw]:2201 {}\n@revoked gw {}\n", public(&inner), public(&inner));
    assert!(known(&Host::new("gw", 2201), &text).judge_key(data(&inner)).is_err(), "under either name");
}

/// A key that cannot be checked says nothing about the one that is offered.
#[test]
fn a_host_of_which_only_an_rsa_key_is_pinned_is_unknown() {
    let modulus = [&[0][..], &[0xa5; 256]].concat();
    let mut blob = Vec::new();
    for part in [&b"ssh-rsa"[..], &[1, 0, 1], &modulus] {
        blob.extend_from_slice(&(part.len() as u32).to_be_bytes());
        blob.extend_from_slice(part);
    }
    let text = format!("web ssh-rsa {}\n", data_encoding::BASE64.encode(&blob));
    let refusal = known(&Host::new("web", 22), &text).judge_key(data(&made(Algorithm::Ed25519))).unwrap_err();
    assert_eq!(refusal.reason, "HostKeyUnknown");
    assert!(refusal.message.contains("of kinds that cannot be checked here (RSA)"), "{}", refusal.message);
}
