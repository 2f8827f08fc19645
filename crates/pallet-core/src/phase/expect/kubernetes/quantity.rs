//! Pure: quantities as Kubernetes writes them: `100m`, `1.5Gi`, `2e3`.

use cel::{
    DeclarationError, Env, ExecutionError, add_member_overload, add_overload,
    common::types::{CelBool, CelDouble, CelInt, CelString},
};

use super::refuse;

/// Billionths: the smallest unit there is.
const ONE: i128 = 1_000_000_000;

/// A quantity, in billionths. What is finer is rounded up, away from zero, as Kubernetes does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Quantity(i128);

impl Quantity {
    /// Reads `<sign><number><suffix>`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() + fraction.len() > 30 {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let decimals = i32::try_from(fraction.len()).ok()?;
        let scaled = |exponent: i32| {
            let exponent = exponent - decimals + 9;
            if exponent >= 0 {
                10_i128.checked_pow(exponent.unsigned_abs()).and_then(|factor| digits.checked_mul(factor))
            } else {
                let divisor = 10_i128.checked_pow(exponent.unsigned_abs());
                Some(divisor.map_or(i128::from(digits != 0), |divisor| rounded_up(digits, divisor)))
            }
        };
        let binary = |power: u32| {
            let factor = 1_i128 << (10 * power);
            let scaled = digits.checked_mul(ONE)?.checked_mul(factor)?;
            Some(rounded_up(scaled, 10_i128.checked_pow(decimals.unsigned_abs())?))
        };
        let value = match suffix {
            "n" => scaled(-9),
            "u" => scaled(-6),
            "m" => scaled(-3),
            "" => scaled(0),
            "k" => scaled(3),
            "M" => scaled(6),
            "G" => scaled(9),
            "T" => scaled(12),
            "P" => scaled(15),
            "E" => scaled(18),
            "Ki" => binary(1),
            "Mi" => binary(2),
            "Gi" => binary(3),
            "Ti" => binary(4),
            "Pi" => binary(5),
            "Ei" => binary(6),
            other => scaled(other.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 60)?),
        }?;
        Some(Self(if negative { -value } else { value }))
    }

    fn integer(self) -> Option<i64> {
        (self.0 % ONE == 0).then(|| i64::try_from(self.0 / ONE).ok()).flatten()
    }
}

fn rounded_up(value: i128, divisor: i128) -> i128 {
    value / divisor + i128::from(value % divisor != 0)
}

pub(super) fn extend(env: &mut Env) -> Result<(), DeclarationError> {
    fn quantity(text: &CelString<'_>) -> Result<Quantity, ExecutionError> {
        Quantity::parse(text.inner()).ok_or_else(|| refuse("quantity", format!("'{}' is no quantity", text.inner())))
    }
    fn is_quantity(text: &CelString<'_>) -> CelBool {
        Quantity::parse(text.inner()).is_some().into()
    }
    fn sign(quantity: &Quantity) -> CelInt {
        CelInt::from(quantity.0.signum() as i64)
    }
    fn is_integer(quantity: &Quantity) -> CelBool {
        quantity.integer().is_some().into()
    }
    fn as_integer(quantity: &Quantity) -> Result<CelInt, ExecutionError> {
        let integer = quantity.integer().ok_or_else(|| refuse("asInteger", "cannot convert value to integer"))?;
        Ok(CelInt::from(integer))
    }
    fn as_approximate_float(quantity: &Quantity) -> CelDouble {
        CelDouble::from(quantity.0 as f64 / ONE as f64)
    }
    fn sum(one: i128, other: i128) -> Result<Quantity, ExecutionError> {
        one.checked_add(other).map(Quantity).ok_or_else(|| refuse("add", "the quantity is too large"))
    }
    fn add(quantity: &Quantity, other: &Quantity) -> Result<Quantity, ExecutionError> {
        sum(quantity.0, other.0)
    }
    fn add_int(quantity: &Quantity, other: &CelInt) -> Result<Quantity, ExecutionError> {
        sum(quantity.0, i128::from(*other.inner()) * ONE)
    }
    fn sub(quantity: &Quantity, other: &Quantity) -> Result<Quantity, ExecutionError> {
        sum(quantity.0, -other.0)
    }
    fn sub_int(quantity: &Quantity, other: &CelInt) -> Result<Quantity, ExecutionError> {
        sum(quantity.0, -i128::from(*other.inner()) * ONE)
    }
    fn larger(quantity: &Quantity, other: &Quantity) -> CelBool {
        (quantity.0 > other.0).into()
    }
    fn smaller(quantity: &Quantity, other: &Quantity) -> CelBool {
        (quantity.0 < other.0).into()
    }
    fn compared(quantity: &Quantity, other: &Quantity) -> CelInt {
        CelInt::from(quantity.0.cmp(&other.0) as i64)
    }
    add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    // A member in the documentation of Kubernetes, called by its name alone in its library.
    add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    add_overload!(env, fn sign: (Quantity) -> CelInt)?;
    add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    add_member_overload!(env, fn add: (Quantity, Quantity) -> Result<Quantity>)?;
    add_member_overload!(env, fn add_int: (Quantity, CelInt) -> Result<Quantity>, name = "add")?;
    add_member_overload!(env, fn sub: (Quantity, Quantity) -> Result<Quantity>)?;
    add_member_overload!(env, fn sub_int: (Quantity, CelInt) -> Result<Quantity>, name = "sub")?;
    add_member_overload!(env, fn larger: (Quantity, Quantity) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn smaller: (Quantity, Quantity) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn compared: (Quantity, Quantity) -> CelInt, name = "compareTo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, billionths) in [
            ("1", ONE),
            ("1000m", ONE),
            ("1.5Gi", (3 * ONE) << 29),
            ("0.1", ONE / 10),
            (".5", ONE / 2),
            ("5.", 5 * ONE),
            ("-2e3", -2000 * ONE),
            ("+1E-3", ONE / 1000),
            ("1E", ONE * 1_000_000_000_000_000_000),
            ("1n", 1),
            ("0.1n", 1),
            ("1Ki", 1024 * ONE),
        ] {
            assert_eq!(Quantity::parse(text), Some(Quantity(billionths)), "{text}");
        }
        for text in ["", "-", "Gi", "1gi", "1 Gi", "1.2.3", "1e", "1KiB", "0x1", "\u{661}", "1e999999"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
