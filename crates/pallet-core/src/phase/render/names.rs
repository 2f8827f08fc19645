//! Pure: names of packages, once they are filled in.

use super::actions::plain;

/// The name of a package, with what may follow it, as the manager takes it: of one package, and with nothing of the manager's
/// own language in it. apt would remove what has a '-' behind it.
pub(super) fn package(manager: &str, name: String) -> Result<String, String> {
    let refused = |why: &str| Err(format!("{name:?} is no name of a package for {manager}: {why}"));
    // A pattern may stand for a version, where the manager knows such.
    let version = match manager {
        "apt" => name.find('='),
        "dnf" | "yum" => name
            .rfind('-')
            .filter(|place| name.get(place + 1..).unwrap_or_default().starts_with(|c: char| c.is_ascii_digit())),
        _ => None,
    };
    let (bare, version) = name.split_at(version.unwrap_or(name.len()));
    if bare.contains('*') || version.contains('*') && manager != "apt" && !version.ends_with('*') {
        return refused("a pattern may stand for a version only, such as nginx=1.22.* for apt or nginx-1.22* for dnf");
    }
    if name.ends_with(['-', '=', '/', ':', '~', '@']) {
        return refused("it ends where more has to follow; leave the last character out, or say what follows it");
    }
    if manager == "apt" && name.ends_with('+') && name.contains(['=', '/']) {
        return refused("apt would take the + at its end for an order");
    }
    plain(name.replace('*', "0"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::phase::{
        Action, ActionKind, PhaseName,
        render::{phase, tests::context},
    };
    use pallet_api::actions::PackageState;

    fn package(manager: &str, params: Value, name: &str) -> Result<String, String> {
        let kind = ActionKind::Package {
            names: vec![name.into()],
            state: PackageState::Present,
            options: Default::default(),
            manager: String::new(),
        };
        let mut context = context();
        context.facts.insert("os".into(), json!({"packageManager": manager}));
        context.params = params;
        let rendered = phase(&PhaseName::configure(), &[Action::new("a", kind)], "", true, &context);
        let rendered = rendered.map_err(|error| error.to_string())?;
        match &rendered.calls[0].kind {
            ActionKind::Package { names, .. } => Ok(names[0].clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_of_a_package_is_of_one_package_and_no_order() {
        let refused = [
            ("apt", "less-"),
            ("apt", "less=590-"),
            ("apt", "less=590+"),
            ("apt", "less="),
            ("apt", "less/"),
            ("apt", "less:"),
            ("apt", "les*"),
            ("apt", "les*=1"),
            ("apt", "standard^"),
            ("apt", "less?"),
            ("apt", "-less"),
            ("apt", ""),
            ("dnf", "@core"),
            ("dnf", "-x"),
            ("dnf", "less*"),
            ("dnf", "less-*"),
            ("dnf", "java-1.8.0-openjdk*"),
            ("dnf", "less-590*-1"),
            ("yum", "less-"),
            ("apk", "!less"),
            ("apk", "less=590*"),
            ("apk", "less~"),
        ];
        for (manager, name) in refused {
            let error = package(manager, json!({}), name).unwrap_err();
            assert!(error.contains("is no name"), "{manager} {name}: {error}");
        }
        let taken = [
            ("apt", "g++"),
            ("apt", "libc6:i386"),
            ("apt", "less=590-1.*"),
            ("apt", "less/bookworm-backports"),
            ("dnf", "less-590*"),
            ("dnf", "java-1.8.0-openjdk-1.8.0*"),
            ("dnf", "python3-pip"),
            ("yum", "less.x86_64"),
            ("apk", "less~590"),
            ("apk", "less@edge"),
        ];
        for (manager, name) in taken {
            assert_eq!(package(manager, json!({}), name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn no_value_within_a_name_is_empty() {
        let error = package("apt", json!({"flavour": ""}), "less-{{ params.flavour }}-doc").unwrap_err();
        assert!(error.contains("a value within a name is empty"), "{error}");
        let chosen = "nginx{% if params.version %}={{ params.version }}{% endif %}";
        assert_eq!(package("apt", json!({"version": ""}), chosen).as_deref(), Ok("nginx"));
        assert_eq!(package("apt", json!({"version": "1.22.*"}), chosen).as_deref(), Ok("nginx=1.22.*"));
    }
}
