//! Resource quantities as scheduling computes with them, read straight from JSON, and lists of them by resource.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::api::quantity;

const NANOS: i128 = 1_000_000_000;
const NANOS_IN_MILLI: i128 = 1_000_000;

/// An exact quantity in billionths. Text that is no quantity reads as zero: the API server has refused it already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub i128);

impl Quantity {
    /// Return the value in whole units, rounded up and kept within i64 (`Value()` upstream).
    pub fn value(self) -> i64 {
        saturate(ceiling(self.0, NANOS))
    }

    /// Return the value in thousandths, rounded up and kept within i64 (`MilliValue()` upstream).
    pub fn milli_value(self) -> i64 {
        saturate(ceiling(self.0, NANOS_IN_MILLI))
    }

    fn read(text: &str) -> Quantity {
        // Most quantities are a small whole number of millis, units or binary units.
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=9).contains(&digits) {
            let (number, suffix) = text.split_at(digits);
            let scale = match suffix {
                "" => Some(NANOS),
                "m" => Some(NANOS_IN_MILLI),
                "Ki" => Some(NANOS << 10),
                "Mi" => Some(NANOS << 20),
                "Gi" => Some(NANOS << 30),
                _ => None,
            };
            if let (Some(scale), Ok(number)) = (scale, number.parse::<i128>()) {
                return Quantity(number * scale);
            }
        }
        quantity::Quantity::parse(text)
            .map_or_else(|_| Quantity::default(), |found| Quantity(found.nanos()))
    }
}

fn ceiling(nanos: i128, unit: i128) -> i128 {
    // Away from zero, as upstream's ScaledValue.
    if nanos >= 0 {
        (nanos + unit - 1) / unit
    } else {
        (nanos - unit + 1) / unit
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Amounts by resource name. An amount that is zero is not the same as one that is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceList(pub BTreeMap<String, Quantity>);

impl ResourceList {
    pub fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn add(&mut self, other: &BTreeMap<String, Quantity>) {
        for (name, amount) in other {
            match self.0.get_mut(name) {
                Some(total) => total.0 = total.0.saturating_add(amount.0),
                None => {
                    self.0.insert(name.clone(), *amount);
                }
            }
        }
    }

    pub fn raise_to(&mut self, other: &BTreeMap<String, Quantity>) {
        for (name, amount) in other {
            match self.0.get_mut(name) {
                Some(most) => *most = (*most).max(*amount),
                None => {
                    self.0.insert(name.clone(), *amount);
                }
            }
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
        Ok(Quantity::read(text))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity(i128::from(value) * NANOS))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Quantity, E> {
        Ok(Quantity(i128::from(value) * NANOS))
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
            ("\"3Gi\"", 3 << 30, (3 << 30) * 1000),
            ("\"1.5Gi\"", 1_610_612_736, 1_610_612_736_000),
            ("2", 2, 2000),
            ("0.1", 1, 100),
            ("\"500u\"", 1, 1),
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

    #[test]
    fn amounts_are_added_before_they_are_rounded() {
        let half = BTreeMap::from([("cpu".to_string(), Quantity::read("500u"))]);
        let mut total = ResourceList::default();
        total.add(&half);
        total.add(&half);
        assert_eq!(total.get("cpu").milli_value(), 1);
    }
}
