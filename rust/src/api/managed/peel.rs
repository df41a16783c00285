//! An object without its managers, and these: half of a stored object is about who owns what, which next to nobody reads.

use super::changed::fields;
use crate::api::json::{JsonError, write_text};

/// Return the object's JSON without `metadata.managedFields`, and these as they stand; None when there is no list of them.
pub fn peel(source: &str) -> Result<Option<(Vec<u8>, &str)>, JsonError> {
    let Some(members) = fields(source)? else {
        return Ok(None);
    };
    let metadata = members.iter().find(|(name, _)| name == "metadata");
    let Some(inner) = metadata.map(|(_, raw)| fields(raw)).transpose()?.flatten() else {
        return Ok(None);
    };
    let Some((_, managers)) = inner
        .iter()
        .find(|(name, raw)| name == "managedFields" && raw.starts_with('['))
    else {
        return Ok(None);
    };
    let mut out = Vec::with_capacity(source.len());
    out.push(b'{');
    for (at, (name, raw)) in members.iter().enumerate() {
        begin(&mut out, at == 0, name);
        if name != "metadata" {
            out.extend_from_slice(raw.as_bytes());
            continue;
        }
        out.push(b'{');
        let kept = inner.iter().filter(|(name, _)| name != "managedFields");
        for (at, (name, raw)) in kept.enumerate() {
            begin(&mut out, at == 0, name);
            out.extend_from_slice(raw.as_bytes());
        }
        out.push(b'}');
    }
    out.push(b'}');
    Ok(Some((out, managers)))
}

fn begin(out: &mut Vec<u8>, is_first: bool, name: &str) {
    if !is_first {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_come_off_and_the_rest_stays_as_it_is() {
        let source = r#"{"kind":"A","metadata":{"name":"n","managedFields":[{"a":1}],"labels":{}},"spec":{"managedFields":[1]}}"#;
        let (rest, managers) = peel(source).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(rest).unwrap(),
            r#"{"kind":"A","metadata":{"name":"n","labels":{}},"spec":{"managedFields":[1]}}"#
        );
        assert_eq!(managers, r#"[{"a":1}]"#);
    }

    #[test]
    fn what_has_no_managers_is_left_alone() {
        for source in [
            "[]",
            "{}",
            r#"{"metadata":null}"#,
            r#"{"metadata":{"managedFields":null}}"#,
        ] {
            assert_eq!(peel(source).unwrap(), None, "{source}");
        }
    }
}
