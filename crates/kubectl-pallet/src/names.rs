//! Names on the command line: `web`, `gs/web`, `lift/x`, `gn/web-0`.

use std::fmt;

use crate::exit::{Error, Result};

/// An object that a command is about.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// The kinds that commands are about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// GroupSpec.
    Group,
    /// Lift.
    Lift,
    /// GroupNode.
    Node,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.strip_suffix(".pallet.dev").unwrap_or(&text) {
            "gs" | "groupspec" | "groupspecs" | "group" => Some(Kind::Group),
            "lift" | "lifts" => Some(Kind::Lift),
            "gn" | "groupnode" | "groupnodes" | "node" => Some(Kind::Node),
            _ => None,
        }
    }

    /// As `kubectl` prints it with `-o name`.
    pub fn full(self) -> &'static str {
        match self {
            Kind::Group => "groupspec.pallet.dev",
            Kind::Lift => "lift.pallet.dev",
            Kind::Node => "groupnode.pallet.dev",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Kind::Group => "gs",
            Kind::Lift => "lift",
            Kind::Node => "gn",
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Group => "GroupSpec",
            Kind::Lift => "Lift",
            Kind::Node => "GroupNode",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.short(), self.name)
    }
}

impl Target {
    /// A GroupSpec.
    pub fn group(name: impl Into<String>) -> Self {
        Self { kind: Kind::Group, name: name.into() }
    }

    /// A Lift.
    pub fn lift(name: impl Into<String>) -> Self {
        Self { kind: Kind::Lift, name: name.into() }
    }

    /// A GroupNode.
    pub fn node(name: impl Into<String>) -> Self {
        Self { kind: Kind::Node, name: name.into() }
    }
}

/// Reads a name; one without a kind is of the `default` kind.
pub fn parse(text: &str, default: Kind, allowed: &[Kind]) -> Result<Target> {
    let (kind, name) = match text.split_once('/') {
        None => (default, text),
        Some((kind, name)) => {
            let known = Kind::parse(kind).ok_or_else(|| {
                Error::usage(format!("{text}: there is no kind {kind:?} here; write gs/NAME, gn/NAME or lift/NAME"))
            })?;
            (known, name)
        }
    };
    if !allowed.contains(&kind) {
        let allowed: Vec<&str> = allowed.iter().map(|kind| kind.word()).collect();
        return Err(Error::usage(format!(
            "{text}: a {} is of no use here; name a {}",
            kind.word(),
            allowed.join(" or a ")
        )));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Error::usage(format!(
            "{text}: {name:?} is no name of an object; names consist of lower case letters, digits, '-' and '.'"
        )));
    }
    Ok(Target { kind, name: name.to_owned() })
}

/// Reads names of GroupSpecs.
pub fn groups(texts: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for text in texts {
        let name = parse(text, Kind::Group, &[Kind::Group])?.name;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Reads names; those without a kind are GroupSpecs.
pub fn targets(texts: &[String], allowed: &[Kind]) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for text in texts {
        let target = parse(text, Kind::Group, allowed)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_say_its_kind_in_every_way_that_kubectl_knows() {
        let all = &[Kind::Group, Kind::Lift, Kind::Node];
        for text in ["web", "gs/web", "groupspec/web", "groupspecs.pallet.dev/web", "GroupSpec/web"] {
            assert_eq!(parse(text, Kind::Group, all).unwrap(), Target::group("web"), "{text}");
        }
        assert_eq!(parse("lift/x", Kind::Group, all).unwrap(), Target::lift("x"));
        assert_eq!(parse("lift.pallet.dev/x", Kind::Group, all).unwrap(), Target::lift("x"));
        assert_eq!(parse("web-0", Kind::Node, all).unwrap(), Target::node("web-0"));
        assert_eq!(parse("gn/web-0", Kind::Group, all).unwrap().to_string(), "gn/web-0");
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_would_be_one() {
        for text in ["pod/web", "gs/", "web/", "Web", "lift/x", "a b"] {
            let error = parse(text, Kind::Group, &[Kind::Group]).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{text}");
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }

    #[test]
    fn a_name_that_is_given_twice_counts_once() {
        assert_eq!(groups(&["web".into(), "gs/web".into(), "db".into()]).unwrap(), ["web", "db"]);
    }
}
