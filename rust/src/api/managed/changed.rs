//! Two objects read as what differs between them: a field whose bytes are the same in both is left out of both.
//!
//! Most updates change a few fields of a large object, and both sides are encoded alike, so that comparing bytes finds nearly all that is the
//! same. Only fields of maps are left out, never items of lists, because those are told apart by what is in them.
//! What is left out of both can be neither added, removed nor modified.

use std::borrow::Cow;

use super::value::{Map, Value};
use crate::api::json::{JsonError, Kind, Scanner};

/// A field with its value as it stands in the source.
pub(super) type Raw<'a> = (Cow<'a, str>, &'a str);

/// Managers are read from the old object whatever the new one says, and so is what they stand in.
const MANAGERS: &str = "managedFields";
const METADATA: &str = "metadata";

/// Two objects, without what they share.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    pub old: Value<'a>,
    pub new: Value<'a>,
    /// The managers of both as they stand there, when they are the same; then they are left out as well.
    pub managers: Option<&'a str>,
    /// The members of both that are the same, `metadata` aside.
    pub same: Vec<Cow<'a, str>>,
}

/// Read both documents.
pub(super) fn read<'a>(old: &'a str, new: &'a str) -> Result<Changed<'a>, JsonError> {
    let (Some(old_fields), Some(new_fields)) = (fields(old)?, fields(new)?) else {
        return Ok(Changed {
            old: Value::parse(old)?,
            new: Value::parse(new)?,
            managers: None,
            same: Vec::new(),
        });
    };
    let mut managers = None;
    let (old, new) = both(&old_fields, &new_fields, &mut |name, was, is| {
        if name != METADATA {
            return nested(was, is);
        }
        let (Some(was_fields), Some(is_fields)) = (fields(was)?, fields(is)?) else {
            return Ok((Value::parse(was)?, Value::parse(is)?));
        };
        let is_same = |one: &&Raw<'a>| one.0 == MANAGERS && is_fields.contains(one);
        managers = was_fields.iter().find(is_same).map(|(_, raw)| *raw);
        let (mut was, is) = both(&was_fields, &is_fields, &mut |_, was, is| nested(was, is))?;
        if managers.is_some() {
            was.retain(|(name, _)| name != MANAGERS);
        }
        Ok((Value::Map(was), Value::Map(is)))
    })?;
    let same = new_fields
        .into_iter()
        .filter(|one| one.0 != METADATA && old_fields.contains(one))
        .map(|(name, _)| name)
        .collect();
    Ok(Changed {
        old: Value::Map(old),
        new: Value::Map(new),
        managers,
        same,
    })
}

fn nested<'a>(old: &'a str, new: &'a str) -> Result<(Value<'a>, Value<'a>), JsonError> {
    let (Some(old_fields), Some(new_fields)) = (fields(old)?, fields(new)?) else {
        return Ok((Value::parse(old)?, Value::parse(new)?));
    };
    let (old, new) = both(&old_fields, &new_fields, &mut |_, was, is| nested(was, is))?;
    Ok((Value::Map(old), Value::Map(new)))
}

type Pair<'a> = (Value<'a>, Value<'a>);

/// `inside` reads two values of one field that differ, or that hold managers.
fn both<'a>(
    old: &[Raw<'a>],
    new: &[Raw<'a>],
    inside: &mut dyn FnMut(&str, &'a str, &'a str) -> Result<Pair<'a>, JsonError>,
) -> Result<(Map<'a>, Map<'a>), JsonError> {
    let (mut before, mut after): (Map<'a>, Map<'a>) = (Vec::new(), Vec::new());
    let mut is_paired = vec![false; old.len()];
    for (at, (name, value)) in new.iter().enumerate() {
        let place = match old.get(at) {
            Some((other, _)) if other == name => Some(at),
            _ => old.iter().position(|(other, _)| other == name),
        };
        let found = place.and_then(|place| {
            *is_paired.get_mut(place)? = true;
            old.get(place)
        });
        match found {
            Some((_, was)) if was == value && name != METADATA => {}
            Some((_, was)) => {
                let (was, is) = inside(name, was, value)?;
                before.push((name.clone(), was));
                after.push((name.clone(), is));
            }
            None => after.push((name.clone(), Value::parse(value)?)),
        }
    }
    for ((name, value), is_paired) in old.iter().zip(is_paired) {
        if !is_paired {
            before.push((name.clone(), Value::parse(value)?));
        }
    }
    Ok((before, after))
}

/// The fields of a map, None for any other value.
pub(super) fn fields(source: &str) -> Result<Option<Vec<Raw<'_>>>, JsonError> {
    let mut scanner = Scanner::new(source);
    if scanner.kind()? != Kind::Object {
        return Ok(None);
    }
    scanner.enter()?;
    let mut found = Vec::with_capacity(16);
    let mut first = true;
    while let Some(key) = scanner.key(&mut first)? {
        found.push((key.text(), scanner.leap()?));
    }
    scanner.end()?;
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_in_both_is_in_neither() {
        let Changed { old, new, same, .. } = read(
            r#"{"kind":"A","metadata":{"name":"n","labels":{"a":"1","b":"2"}},"list":[1,2],"gone":1}"#,
            r#"{"kind":"A","metadata":{"labels":{"b":"3","a":"1"},"name":"n"},"list":[1,2],"new":2}"#,
        )
        .unwrap();
        assert_eq!(
            old,
            Value::parse(r#"{"metadata":{"labels":{"b":"2"}},"gone":1}"#).unwrap()
        );
        assert_eq!(
            new,
            Value::parse(r#"{"metadata":{"labels":{"b":"3"}},"new":2}"#).unwrap()
        );
        assert_eq!(same, ["kind", "list"]);
    }

    #[test]
    fn lists_that_differ_are_whole_and_managers_are_told_as_they_stand() {
        let changed = read(
            r#"{"metadata":{"managedFields":[{}]},"list":[{"k":1,"v":1}]}"#,
            r#"{"metadata":{"managedFields":[{}]},"list":[{"k":1,"v":2}]}"#,
        )
        .unwrap();
        assert_eq!(changed.managers, Some("[{}]"));
        assert!(changed.same.is_empty());
        let expected = r#"{"metadata":{},"list":[{"k":1,"v":1}]}"#;
        assert_eq!(changed.old, Value::parse(expected).unwrap());
        assert_eq!(
            changed.new,
            Value::parse(r#"{"metadata":{},"list":[{"k":1,"v":2}]}"#).unwrap()
        );
    }
}
