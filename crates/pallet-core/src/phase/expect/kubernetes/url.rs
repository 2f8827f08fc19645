//! Pure: URLs as Go's `url.ParseRequestURI` reads them: a URL with a scheme, or an absolute path; without a fragment.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use cel::{
    DeclarationError, Env, ExecutionError, add_member_overload, add_overload,
    common::{
        types::{CelBool, CelList, CelMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
};

use super::{Answer, refuse, text};

/// A URL, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Url {
    /// In lower case; empty where there is none.
    scheme: String,
    /// With the port, without the user.
    host: String,
    path: String,
    /// Without its question mark.
    query: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("URL parse error during conversion from string: '{text}': {why}"));
        if text.bytes().any(|c| c < b' ' || c == 0x7f) {
            return wrong("invalid control character in URL");
        }
        let (scheme, rest) = scheme(text);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match (scheme.is_empty(), rest.strip_prefix("//")) {
            (false, Some(rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            // Such as mailto:a@b.
            (false, None) if !rest.starts_with('/') => ("", ""),
            (true, _) if !rest.starts_with('/') => return wrong("invalid URI for request"),
            _ => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if !is_host(host) {
            return wrong("invalid host");
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: host.into(), path: escaped(path), query: query.into() })
    }

    /// Host and port.
    fn parts(&self) -> (&str, &str) {
        match self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or_default()),
            None => self.host.rsplit_once(':').unwrap_or((&self.host, "")),
        }
    }
}

/// A scheme, and what follows its colon.
fn scheme(text: &str) -> (&str, &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    match text.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain) => {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

fn is_host(host: &str) -> bool {
    let is_port = |text: &str| {
        text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|c| c.is_ascii_digit()))
    };
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, port)) => port,
            None => return false,
        },
        None => &host[host.rfind(':').unwrap_or(host.len())..],
    };
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    is_port(port) && host.chars().all(plain)
}

/// A path with what may not stand there in percent encoding.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.bytes() {
        if c.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&c) {
            out.push(char::from(c));
        } else {
            let _ = write!(out, "%{c:02X}");
        }
    }
    out
}

pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    fn url(text: &CelString<'_>) -> Result<Url, ExecutionError> {
        Url::parse(text.inner()).map_err(|why| refuse("url", why))
    }
    fn is_url(text: &CelString<'_>) -> CelBool {
        Url::parse(text.inner()).is_ok().into()
    }
    fn get_scheme(url: &Url) -> CelString<'static> {
        text(&url.scheme)
    }
    fn get_host(url: &Url) -> CelString<'static> {
        text(&url.host)
    }
    fn get_hostname(url: &Url) -> CelString<'static> {
        text(url.parts().0)
    }
    fn get_port(url: &Url) -> CelString<'static> {
        text(url.parts().1)
    }
    fn get_escaped_path(url: &Url) -> CelString<'static> {
        text(&url.path)
    }
    add_overload!(env, fn url: (CelString) -> Result<Url>)?;
    add_overload!(env, fn is_url: (CelString) -> CelBool, name = "isURL")?;
    add_member_overload!(env, fn get_scheme: (Url) -> CelString)?;
    add_member_overload!(env, fn get_host: (Url) -> CelString)?;
    add_member_overload!(env, fn get_hostname: (Url) -> CelString)?;
    add_member_overload!(env, fn get_port: (Url) -> CelString)?;
    add_member_overload!(env, fn get_escaped_path: (Url) -> CelString)?;
    env.add_member_overload("getQuery", "url_get_query", <Url as Val>::cel_type().to_owned(), vec![], get_query)
}

/// The values of each name, in their order.
fn get_query<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let query = args.first().and_then(|url| url.downcast_ref::<Url>()).map(|url| url.query.as_str());
    let mut values: BTreeMap<String, Vec<Box<dyn Val + 'v>>> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        values.entry(key.into_owned()).or_default().push(Box::new(text(value)));
    }
    let entry = |(key, values)| (CelMapKey::from(key), Box::new(CelList::from(values)) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelMap::from(values.into_iter().map(entry).collect::<HashMap<_, _>>())))
}
