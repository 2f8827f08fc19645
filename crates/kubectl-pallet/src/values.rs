//! Values on the command line: durations, `--with K=V`, shares; and ordinals as intervals, as statuses have them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

/// A duration as kubectl reads it: `90s`, `1h30m`, `500ms`; a number alone is of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write one such as 90s, 10m or 1h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse::<u32>().map_err(|_| wrong())?.into();
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        sum += match &rest[..letters] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

/// A duration as the API has it.
pub fn wire(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_millis()) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    }
}

/// How long ago, as kubectl tells it.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 if seconds % 60 == 0 => format!("{}m", seconds / 60),
        120..=599 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..=10799 => format!("{}m", seconds / 60),
        10800..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// One `--with K=V`: V is read as YAML, so `3` is a number, `true` a boolean, `[a, b]` a list, and what is none of that a text.
pub fn with(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} names no value; write NAME=VALUE, such as version=1.2 or 'hosts=[a, b]'"))?;
    if key.is_empty() {
        return Err(format!("{text:?} names no parameter; write NAME=VALUE"));
    }
    // Without a value it is the empty text, not null: that is what a shell means by it.
    if value.is_empty() {
        return Ok((key.to_owned(), Value::String(String::new())));
    }
    let value = serde_saphyr::from_str(value)
        .map_err(|error| format!("the value of {key} is no YAML: {error}; put quotes around it: {key}='\"...\"'"))?;
    Ok((key.to_owned(), value))
}

/// All of them; one that is given twice is a mistake.
pub fn withs(pairs: &[(String, Value)]) -> Result<BTreeMap<String, Value>, String> {
    let mut all = BTreeMap::new();
    for (key, value) in pairs {
        if all.insert(key.clone(), value.clone()).is_some() {
            return Err(format!("--with {key} is given twice; give it once"));
        }
    }
    Ok(all)
}

/// A number or a share, as in `3` or `25%`.
pub fn share(text: &str) -> Result<Value, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(number.into());
    }
    match text.strip_suffix('%').map(str::parse::<u32>) {
        Some(Ok(percent)) if percent <= 100 => Ok(Value::String(text.to_owned())),
        _ => Err(format!("{text:?} is neither a number nor a share; write one such as 3 or 25%")),
    }
}

/// The ordinals of intervals such as `0-2,5`, `limit` at the most. What cannot be read stands for none.
pub fn ordinals(text: &str, limit: usize) -> Vec<u32> {
    let span = |span: &str| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?)
    };
    text.split(',').filter_map(span).flatten().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("10", 10_000), ("0", 0)] {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "s", "10x", "1d", "-3s", "1.5h", "5m 3s"] {
            assert!(duration(text).unwrap_err().contains("90s"), "{text}");
        }
        for text in ["90s", "24h", "10m", "500ms"] {
            assert_eq!(wire(duration(text).unwrap()), text);
        }
        assert_eq!(wire(Duration::from_millis(1500)), "1s500ms");
    }

    #[test]
    fn values_have_the_type_that_yaml_sees_in_them() {
        let read = |text: &str| with(text).unwrap().1;
        assert_eq!(read("n=3"), json!(3));
        assert_eq!(read("on=true"), json!(true));
        assert_eq!(read("name=web"), json!("web"));
        assert_eq!(read("version='1.2'"), json!("1.2"));
        assert_eq!(read("hosts=[a, b]"), json!(["a", "b"]));
        assert_eq!(read(r#"o={"a": 1}"#), json!({"a": 1}));
        assert_eq!(read("url=http://x/?a=b"), json!("http://x/?a=b"));
        assert_eq!(read("empty="), json!(""));
        assert!(with("novalue").is_err() && with("=x").is_err() && with("a=[1").is_err());
        assert!(withs(&[("a".into(), json!(1)), ("a".into(), json!(2))]).is_err());
    }

    #[test]
    fn shares_and_intervals() {
        assert_eq!(share("3").unwrap(), json!(3));
        assert_eq!(share("25%").unwrap(), json!("25%"));
        assert!(share("x").is_err() && share("101%").is_err() && share("-1").is_err());
        assert_eq!(ordinals("0-2,5", 9), [0, 1, 2, 5]);
        assert_eq!(ordinals("0-4000000000", 2), [0, 1]);
        assert!(ordinals("", 9).is_empty());
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, text) in
            [(-3, "0s"), (119, "119s"), (125, "2m5s"), (180, "3m"), (3600, "60m"), (20000, "5h"), (200_000, "2d")]
        {
            assert_eq!(age(seconds), text);
        }
    }
}
