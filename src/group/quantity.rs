//! Pure: Kubernetes quantities, such as `10Gi` or `500m`, compared by their value.

/// The value of a quantity in billionths, rounded up as the API server does; nothing where the text is none, or beyond
/// 10^28.
pub fn parse(text: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = factor(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > 28 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    let scaled = digits.checked_mul(numerator)?;
    // Both halves by themselves: the product of all may be too large.
    let value = (scaled / scale)
        .checked_mul(NANO)?
        .checked_add((scaled % scale).checked_mul(NANO)?.checked_add(scale - 1)? / scale)?;
    Some(sign * value)
}

/// What a suffix stands for, as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024i128.pow(power), 1));
    let decimal = |power: u32| Some((10i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            (exponent.abs() <= 18).then_some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_value() {
        for (a, b) in
            [("1Gi", "1024Mi"), ("1", "1000m"), ("1.5Gi", "1536Mi"), ("1e3", "1k"), ("0.5", "500m"), ("+2", "2")]
        {
            assert!(parse(a).is_some() && parse(a) == parse(b), "{a} {b}");
        }
        assert!(parse("1G") < parse("1Gi") && parse("-1") < parse("0") && parse("1E") > parse("1P"));
        assert!(parse("16Ei") > parse("15Ei"));
        for none in ["", ".", "Gi", "1 Gi", "1Xi", "1.2.3", "1e99", "99999999999999999999999999999", "one"] {
            assert_eq!(parse(none), None, "{none:?}");
        }
    }
}
