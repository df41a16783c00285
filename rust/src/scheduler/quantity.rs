//! Resource quantities as the two integers that scheduling computes with, read straight from JSON.

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::api::quantity;

/// A quantity in whole units and in thousandths, both rounded up and kept within i64. Text that is no quantity reads as zero:
/// the API server has refused it already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantity {
    value: i64,
    milli_value: i64,
}

impl Quantity {
    /// Return the value in whole units (`Value()` upstream).
    pub fn value(self) -> i64 {
        self.value
    }

    /// Return the value in thousandths (`MilliValue()` upstream).
    pub fn milli_value(self) -> i64 {
        self.milli_value
    }

    fn read(text: &str) -> Quantity {
        quantity::Quantity::parse(text).map_or_else(
            |_| Quantity::default(),
            |found| Quantity {
                value: saturate(found.value()),
                milli_value: saturate(found.milli()),
            },
        )
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
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
        Ok(Quantity::read(text))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity::read(&value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Quantity, E> {
        Ok(Quantity::read(&value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Quantity, E> {
        Ok(Quantity::read(&value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Quantity, E> {
        Ok(Quantity::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_from_text_and_numbers_and_rounded_up() {
        let table = [
            ("\"0\"", 0, 0),
            ("\"100m\"", 1, 100),
            ("\"1500m\"", 2, 1500),
            ("\"1.5Gi\"", 1_610_612_736, 1_610_612_736_000),
            ("2", 2, 2000),
            ("0.1", 1, 100),
            ("\"1E\"", 1_000_000_000_000_000_000, i64::MAX),
            ("\"lots\"", 0, 0),
            ("null", 0, 0),
        ];
        for (json, value, milli) in table {
            let found: Quantity = serde_json::from_str(json).unwrap();
            assert_eq!(
                (found.value(), found.milli_value()),
                (value, milli),
                "{json}"
            );
        }
    }
}
