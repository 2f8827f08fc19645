//! Pure: quantities of Kubernetes, compared by their value.

use serde_json::Value;

/// A quantity in one form for each value: `1000m`, `1` and `1e0` are the same. `None` where it is no quantity, or one beyond
/// 10^29.
pub(super) fn canonical(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => nanos(text),
        Value::Number(number) => nanos(&number.to_string()),
        _ => None,
    }
    .map(|nanos| format!("{nanos}n"))
}

/// The value of a quantity in units of 10^-9. `None` where the text is none.
pub fn parse(text: &str) -> Option<i128> {
    nanos(text)
}

/// The value in units of 10^-9. What is finer is rounded away from zero, as the API server does.
fn nanos(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = match format!("{whole}{fraction}").trim_start_matches('0') {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let (twos, tens) = scale(suffix)?;
    let tens = tens.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(1i128.checked_shl(twos)?)?;
    let value = if digits == 0 {
        0
    } else if tens >= 0 {
        scaled.checked_mul(10i128.checked_pow(tens.unsigned_abs())?)?
    } else {
        let divisor = 10i128.checked_pow(tens.unsigned_abs()).unwrap_or(i128::MAX);
        scaled / divisor + i128::from(scaled % divisor != 0)
    };
    Some(if negative { -value } else { value })
}

/// The powers of two and ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_compared_by_value() {
        for same in [
            &[json!("1"), json!("1000m"), json!(1), json!("1e0"), json!("1.0"), json!("+1"), json!(1.0)] as &[Value],
            &[json!("1Gi"), json!("1024Mi"), json!("1073741824"), json!("1048576Ki"), json!(1_073_741_824)],
            &[json!("0.5"), json!("500m"), json!(".5"), json!("500000u"), json!("5e-1"), json!(0.5)],
            &[json!("1E"), json!("1000P"), json!("1e18"), json!("1E18")],
            &[json!("0"), json!("0m"), json!("0.0"), json!("-0"), json!("0Ei")],
            &[json!("0.0000000001"), json!("1n")],
            &[json!("1.5Gi"), json!("1536Mi")],
        ] {
            let first = canonical(&same[0]);
            assert!(first.is_some(), "{same:?}");
            same.iter().for_each(|other| assert_eq!(canonical(other), first, "{other}"));
        }
        assert_ne!(canonical(&json!("1M")), canonical(&json!("1Mi")));
        assert_ne!(canonical(&json!("1m")), canonical(&json!("1M")));
        for none in
            [json!("1 Gi"), json!("x"), json!(""), json!("."), json!("1.2.3"), json!("1e"), json!(null), json!("1Ki5")]
        {
            assert_eq!(canonical(&none), None, "{none}");
        }
        for large in ["99999999999999999999999999999999999999999999Ei", "1e999999999", "1e-999999999", "1e99999999999"]
        {
            canonical(&json!(large));
        }
    }
}
