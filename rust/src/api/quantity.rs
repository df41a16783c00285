//! Kubernetes quantities: `250m`, `1.5Gi`, `2e3`. A value is held exactly as a whole number of nano units in an i128; what is
//! finer than a nano unit is rounded away from zero, so that whoever asks for a little does not get nothing.
//! Mirrors apimachinery's resource.Quantity: grammar, rounding, canonical form and error messages.

use std::fmt::Write as _;

const NANO: i128 = 1_000_000_000;
const MILLI_IN_NANO: i128 = 1_000_000;
/// Binary quantities are capped at this many units.
const BINARY_CAP: i128 = i64::MAX as i128;

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity was written, which its canonical form keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

/// What a suffix multiplies by: 2^shift or 10^exponent.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, body) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or("")),
            Some(b'+') => (false, text.get(1..).unwrap_or("")),
            _ => (false, text),
        };
        let digits_end = body
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(body.len());
        let (whole, rest) = body.split_at(digits_end);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            None => ("", rest),
            Some(after) => after.split_at(
                after
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(after.len()),
            ),
        };
        check_suffix_shape(suffix)?;
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(if rest.starts_with('.') || suffix.is_empty() {
                QuantityError::Numeric
            } else {
                QuantityError::Format
            });
        }
        let (scale, mut notation) = interpret_suffix(suffix)?;
        let magnitude = to_nanos(whole, fraction, &scale).ok_or(QuantityError::Numeric)?;
        let mut nanos = magnitude;
        if notation == Notation::BinarySi {
            nanos = nanos.min(BINARY_CAP * NANO);
            // Less than one binary unit is a decimal fraction.
            if !negative && nanos > 0 && nanos < NANO {
                notation = Notation::DecimalSi;
            }
        }
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            notation,
        })
    }

    /// Return the exact amount in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i128 {
        divide_away_from_zero(self.nanos, NANO)
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(&self) -> i128 {
        divide_away_from_zero(self.nanos, MILLI_IN_NANO)
    }

    /// The form that is stored and printed: the largest suffix that leaves no fraction.
    pub fn canonical(&self) -> String {
        if self.nanos == 0 {
            return "0".to_owned();
        }
        if self.notation == Notation::BinarySi && self.nanos.abs() >= 1024 * NANO {
            return binary_form(divide_away_from_zero(self.nanos, NANO));
        }
        self.decimal_form()
    }

    fn decimal_form(&self) -> String {
        let exponent_form = self.notation == Notation::DecimalExponent;
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while mantissa % 1000 == 0 && (exponent_form || exponent < 18) {
            mantissa /= 1000;
            exponent += 3;
        }
        let mut text = mantissa.to_string();
        if exponent_form {
            if exponent != 0 {
                let _ = write!(text, "e{exponent}");
            }
            return text;
        }
        text.push_str(match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        });
        text
    }
}

fn binary_form(mut units: i128) -> String {
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if units % 1024 != 0 {
            break;
        }
        units /= 1024;
        suffix = next;
    }
    format!("{units}{suffix}")
}

/// Letters, then an optional sign, then digits: anything else means that the text is no quantity at all.
fn check_suffix_shape(suffix: &str) -> Result<(), QuantityError> {
    let after_letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let after_sign = after_letters
        .strip_prefix(['+', '-'])
        .unwrap_or(after_letters);
    if after_sign.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(QuantityError::Format)
    }
}

fn interpret_suffix(suffix: &str) -> Result<(Scale, Notation), QuantityError> {
    let decimal = |exponent| Ok((Scale::Decimal(exponent), Notation::DecimalSi));
    let binary = |shift| Ok((Scale::Binary(shift), Notation::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = suffix
                .strip_prefix(['e', 'E'])
                .ok_or(QuantityError::Suffix)?;
            let exponent = digits.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
            Ok((Scale::Decimal(exponent), Notation::DecimalExponent))
        }
    }
}

/// The magnitude in nano units, rounded up; None when it does not fit.
fn to_nanos(whole: &str, fraction: &str, scale: &Scale) -> Option<i128> {
    let mut mantissa: i128 = 0;
    let mut exponent: i32 = 9;
    let mut lost = false;
    for byte in whole.bytes() {
        mantissa = mantissa
            .checked_mul(10)?
            .checked_add(i128::from(byte - b'0'))?;
    }
    for byte in fraction.trim_end_matches('0').bytes() {
        // Digits far below a nano unit cannot be held, but they still round up.
        match mantissa
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(byte - b'0')))
        {
            Some(value) if value < i128::MAX >> 62 => {
                mantissa = value;
                exponent -= 1;
            }
            _ => {
                lost |= byte != b'0';
                break;
            }
        }
    }
    match scale {
        Scale::Binary(shift) => mantissa = mantissa.checked_mul(1i128 << shift)?,
        Scale::Decimal(power) => exponent = exponent.checked_add(*power)?,
    }
    if mantissa == 0 {
        return Some(i128::from(lost));
    }
    let nanos = if exponent >= 0 {
        mantissa.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        match 10i128.checked_pow(exponent.unsigned_abs()) {
            Some(divisor) => divide_away_from_zero(mantissa, divisor),
            None => 1,
        }
    };
    Some(nanos)
}

fn divide_away_from_zero(value: i128, divisor: i128) -> i128 {
    let quotient = value / divisor;
    if value % divisor == 0 {
        quotient
    } else {
        quotient + value.signum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let table = [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("100000", "100k"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("100e-3", "100e-3"),
            ("1e0", "1"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            ("9999999999Ei", "9223372036854775807"),
            ("3u", "3u"),
        ];
        for (text, want) in table {
            assert_eq!(Quantity::parse(text).unwrap().canonical(), want, "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let table = [
            ("1m", 1, 1),
            ("1500m", 2, 1500),
            ("1n", 1, 1),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("-1500m", -2, -1500),
        ];
        for (text, value, milli) in table {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(
                (quantity.value(), quantity.milli()),
                (value, milli),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_texts_are_told_apart() {
        let table = [
            ("", QuantityError::Format),
            ("ten", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1GiB", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1mi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            (".", QuantityError::Numeric),
        ];
        for (text, want) in table {
            assert_eq!(Quantity::parse(text), Err(want), "{text:?}");
        }
    }
}
