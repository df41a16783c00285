//! An object taken apart without being read: what says which object it is on one side, what is in it on the other, each as it stands.

use std::borrow::Cow;

use super::json::{JsonError, Kind, Scanner, write_text};

/// Members as they stand, by name.
type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// An object in parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The object with nothing in it but `apiVersion`, `kind` and `metadata`, and that without its managers.
    pub head: Vec<u8>,
    /// `metadata.managedFields`, empty when there are none.
    pub managers: &'a str,
    /// Every other member, in its order.
    pub members: Members<'a>,
}

/// Take an object apart. None for what is no object, has no `metadata` that is one, or names a member twice. Members are not looked into:
/// whoever has not seen them before must read them to know that they are JSON.
pub fn part(source: &str) -> Result<Option<Parts<'_>>, JsonError> {
    let Some(all) = members(source)? else {
        return Ok(None);
    };
    let mut parts = Parts {
        head: Vec::with_capacity(1024),
        managers: "",
        members: Vec::with_capacity(4),
    };
    let mut has_metadata = false;
    parts.head.push(b'{');
    for (at, (name, raw)) in all.iter().enumerate() {
        if all.iter().take(at).any(|(other, _)| other == name) {
            return Ok(None);
        }
        match &**name {
            "kind" | "apiVersion" => begin(&mut parts.head, name),
            "metadata" => {
                begin(&mut parts.head, name);
                let Some(fields) = members(raw)? else {
                    return Ok(None);
                };
                parts.managers = write_metadata(&mut parts.head, &fields);
                has_metadata = true;
                continue;
            }
            _ => {
                parts.members.push((name.clone(), raw));
                continue;
            }
        }
        parts.head.extend_from_slice(raw.as_bytes());
    }
    parts.head.push(b'}');
    Ok(has_metadata.then_some(parts))
}

fn write_metadata<'a>(out: &mut Vec<u8>, fields: &[(Cow<'a, str>, &'a str)]) -> &'a str {
    let mut managers = "";
    out.push(b'{');
    for (name, raw) in fields {
        if name == "managedFields" && managers.is_empty() {
            managers = raw;
        } else {
            begin(out, name);
            out.extend_from_slice(raw.as_bytes());
        }
    }
    out.push(b'}');
    managers
}

fn begin(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
}

/// The members of an object as they stand, None for any other value.
fn members(source: &str) -> Result<Option<Members<'_>>, JsonError> {
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
    fn an_object_comes_apart_and_everything_stays_as_it_stands() {
        let source = r#" {"metadata": {"name":"n", "managedFields":[{"a":1}],"labels":{"a":"1"}},"spec": {"b": [1, 2]} ,"kind":"A","status":{}}"#;
        let parts = part(source).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(parts.head).unwrap(),
            r#"{"metadata":{"name":"n","labels":{"a":"1"}},"kind":"A"}"#
        );
        assert_eq!(parts.managers, r#"[{"a":1}]"#);
        let expected = [("spec".into(), r#"{"b": [1, 2]}"#), ("status".into(), "{}")];
        assert_eq!(parts.members, expected);
    }

    #[test]
    fn what_has_no_head_or_is_not_clear_does_not_come_apart() {
        for source in [
            "[]",
            "{}",
            r#"{"metadata":null,"spec":{}}"#,
            r#"{"metadata":{},"spec":{},"spec":{}}"#,
            r#"{"metadata":{},"spec":{},"sp\u0065c":{}}"#,
        ] {
            assert_eq!(part(source), Ok(None), "{source}");
        }
        for source in [
            "",
            r#"{"metadata":{}"#,
            r#"{"metadata":{}} x"#,
            r#"{"metadata":{},}"#,
        ] {
            assert!(part(source).is_err(), "{source}");
        }
    }
}
