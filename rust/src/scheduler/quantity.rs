//! Resource quantities as integers: whole units or thousandths, rounded up. Mirrors apimachinery's resource.Quantity.

use serde::de::{Deserialize, Deserializer, Visitor};

/// A quantity as an exact fraction: `numerator / denominator`, both from decimal text. Unreadable text counts as zero,
/// because the API server has validated it already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantity {
    numerator: i128,
    denominator: i128,
}

impl Quantity {
    /// Return the value in whole units, rounded up (`Value()` upstream).
    pub fn value(self) -> i64 {
        self.scaled(1)
    }

    /// Return the value in thousandths, rounded up (`MilliValue()` upstream).
    pub fn milli_value(self) -> i64 {
        self.scaled(1000)
    }

    fn scaled(self, factor: i128) -> i64 {
        if self.denominator == 0 {
            return 0;
        }
        let product = self.numerator.saturating_mul(factor);
        let rounded = product.div_euclid(self.denominator)
            + i128::from(product.rem_euclid(self.denominator) != 0);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Parse `1.5Gi`, `100m`, `2e3`, `12`; None when the text is no quantity.
    pub fn parse(text: &str) -> Option<Quantity> {
        let digits_end = text
            .char_indices()
            .find(|(at, c)| {
                !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '+' || *c == '-')))
            })
            .map_or(text.len(), |(at, _)| at);
        let (number, suffix) = text.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let mut denominator = power(10, u32::try_from(fraction.len()).ok()?)?;
        let mut numerator = mantissa;
        let (up, down) = multiplier(suffix)?;
        numerator = numerator.checked_mul(up)?;
        denominator = denominator.checked_mul(down)?;
        Some(Quantity {
            numerator,
            denominator,
        })
    }
}

fn power(base: i128, exponent: u32) -> Option<i128> {
    base.checked_pow(exponent)
}

/// Return what a suffix multiplies and divides by.
fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |n: u32| Some((power(10, n)?, 1));
    let binary = |n: u32| Some((power(1024, n)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
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
            let size = power(10, exponent.unsigned_abs().min(30))?;
            Some(if exponent < 0 { (1, size) } else { (size, 1) })
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a quantity")
    }

    fn visit_str<E>(self, text: &str) -> Result<Quantity, E> {
        Ok(Quantity::parse(text.trim()).unwrap_or_default())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity {
            numerator: i128::from(value),
            denominator: 1,
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Quantity, E> {
        Ok(Quantity {
            numerator: i128::from(value),
            denominator: 1,
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Quantity, E> {
        Ok(Quantity::parse(&value.to_string()).unwrap_or_default())
    }

    fn visit_unit<E>(self) -> Result<Quantity, E> {
        Ok(Quantity::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_round_up_to_units_and_thousandths() {
        let table = [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.1", 1, 100),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("2e3", 2000, 2_000_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1n", 1, 1),
            ("-1", -1, -1000),
            ("5k", 5000, 5_000_000),
        ];
        for (text, value, milli) in table {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(
                (quantity.value(), quantity.milli_value()),
                (value, milli),
                "{text}"
            );
        }
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in ["", "abc", "1Q", "1.2.3", "--1"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
