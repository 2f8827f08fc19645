//! Label selectors as kubectl writes them: `app=web,tier in (a,b),!canary`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::Selector;

/// Reads one.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    for part in parts(text)? {
        let (key, operator, values) = requirement(&part)?;
        if operator == "=" {
            selector.match_labels.get_or_insert_default().insert(key, values.into_iter().next().unwrap_or_default());
        } else {
            let values = (!values.is_empty()).then_some(values);
            let requirement = LabelSelectorRequirement { key, operator, values };
            selector.match_expressions.get_or_insert_default().push(requirement);
        }
    }
    Ok(selector)
}

/// As a query of the API has it.
pub fn text(selector: &LabelSelector) -> String {
    Selector::try_from(selector.clone()).map(|selector| selector.to_string()).unwrap_or_default()
}

/// Commas between parentheses separate values.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let parts: Vec<String> =
        parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    if depth == 0 { Ok(parts) } else { Err(format!("{text:?}: a parenthesis has no partner")) }
}

fn requirement(part: &str) -> Result<(String, String, Vec<String>), String> {
    let wrong =
        || format!("{part:?} is no requirement; write one such as app=web, app!=web, 'app in (a,b)', app or !app");
    let word = |text: &str| {
        let text = text.trim().to_owned();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.chars().all(fits) { Ok(text) } else { Err(wrong()) }
    };
    let key = |text: &str| word(text).and_then(|key| if key.is_empty() { Err(wrong()) } else { Ok(key) });
    for (sign, operator) in [("!=", "NotIn"), ("==", "="), ("=", "=")] {
        if let Some((name, value)) = part.split_once(sign) {
            return Ok((key(name)?, operator.to_owned(), vec![word(value)?]));
        }
    }
    if let Some(name) = part.strip_prefix('!') {
        return Ok((key(name)?, "DoesNotExist".to_owned(), Vec::new()));
    }
    let Some((left, values)) = part.split_once('(') else {
        return Ok((key(part)?, "Exists".to_owned(), Vec::new()));
    };
    let values = values.strip_suffix(')').ok_or_else(wrong)?;
    let values = values.split(',').map(word).collect::<Result<Vec<_>, _>>()?;
    let (name, operator) = match left.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "in"] => (name, "In"),
        [name, "notin"] => (name, "NotIn"),
        _ => return Err(wrong()),
    };
    Ok((key(name)?, operator.to_owned(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_kubectl() {
        let selector = parse("app=web, tier in (a, b),x notin (c),y!=d,canary,!old").unwrap();
        assert_eq!(selector.match_labels.as_ref().unwrap()["app"], "web");
        let shown: Vec<String> = selector
            .match_expressions
            .unwrap()
            .iter()
            .map(|r| format!("{} {} {}", r.key, r.operator, r.values.clone().unwrap_or_default().join("+")))
            .collect();
        assert_eq!(shown, ["tier In a+b", "x NotIn c", "y NotIn d", "canary Exists ", "old DoesNotExist "]);
        assert_eq!(text(&parse("app=web").unwrap()), "app=web");
        for wrong in ["a b", "x in (a", "=x", "x of (a)"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
