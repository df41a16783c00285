//! Label and field selectors in their text form. Mirrors apimachinery's labels and fields packages for what is well formed; anything
//! else is None, and the application says what is wrong with it.

use crate::store::{Requirement, Selector};

/// The fields by which every kind can be selected.
const METADATA: [&str; 2] = ["metadata.name", "metadata.namespace"];
/// Text that fits into no name or value needs the application's eye.
const NAME_MAX: usize = 253 + 1 + 63;

/// Both selectors as one; `fields` are those of the kind.
pub(super) fn parse(labels: &str, fields_text: &str, fields: &[String]) -> Option<Selector> {
    let mut requirements = Vec::new();
    for term in terms(labels)? {
        requirements.push(label(term.trim())?);
    }
    for term in fields_text.split(',').filter(|term| !term.is_empty()) {
        requirements.push(field(term, fields)?);
    }
    Some(Selector::new(requirements))
}

/// Split at commas that are not within parentheses.
fn terms(text: &str) -> Option<Vec<&str>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    let (mut start, mut is_inside) = (0, false);
    for (at, symbol) in text.char_indices() {
        match symbol {
            '(' if is_inside => return None,
            '(' => is_inside = true,
            ')' if !is_inside => return None,
            ')' => is_inside = false,
            ',' if !is_inside => {
                found.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text.get(start..)?);
    (!is_inside).then_some(found)
}

fn label(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return requirement("label", key_of(key.trim())?, "!exists", &[]);
    }
    if let Some((head, rest)) = term.split_once('(') {
        let inside = rest.strip_suffix(')')?;
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        let operator = match operator {
            "in" => "in",
            "notin" => "notin",
            _ => return None,
        };
        let values = inside
            .split(',')
            .map(|value| value_of(value.trim()))
            .collect::<Option<Vec<_>>>()?;
        return requirement("label", key_of(key.trim())?, operator, &values);
    }
    for (symbol, operator) in [("!=", "!="), ("==", "="), ("=", "=")] {
        if let Some((key, value)) = term.split_once(symbol) {
            return requirement(
                "label",
                key_of(key.trim())?,
                operator,
                &[value_of(value.trim())?],
            );
        }
    }
    requirement("label", key_of(term)?, "exists", &[])
}

fn field(term: &str, fields: &[String]) -> Option<Requirement> {
    if term.contains('\\') {
        return None;
    }
    for (symbol, operator) in [("!=", "!="), ("==", "="), ("=", "=")] {
        if let Some((key, value)) = term.split_once(symbol) {
            let is_known = METADATA.contains(&key) || fields.iter().any(|one| one == key);
            if !is_known || value.contains(['=', '!']) {
                return None;
            }
            return requirement("field", key, operator, &[value]);
        }
    }
    None
}

fn requirement(target: &str, key: &str, operator: &str, values: &[&str]) -> Option<Requirement> {
    Requirement::new(target, key, operator, values).ok()
}

/// A label's key of the usual letters: `[prefix/]name`.
fn key_of(text: &str) -> Option<&str> {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix_fit = prefix.is_none_or(|prefix| {
        let is_letter = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.bytes().all(is_letter)
            && prefix.split('.').all(has_plain_ends)
    });
    let is_fit = !name.is_empty()
        && name.len() <= 63
        && text.len() <= NAME_MAX
        && name.bytes().all(is_value_byte)
        && has_plain_ends(name);
    (is_fit && is_prefix_fit).then_some(text)
}

/// A label's value of the usual letters; it may be empty.
fn value_of(text: &str) -> Option<&str> {
    let is_fit = text.is_empty()
        || (text.len() <= 63 && text.bytes().all(is_value_byte) && has_plain_ends(text));
    is_fit.then_some(text)
}

fn is_value_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn has_plain_ends(text: &str) -> bool {
    let is_plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_plain(text.as_bytes().first()) && is_plain(text.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AttributesBuilder, Kind};

    fn selects(labels: &str, fields: &str) -> Option<bool> {
        let known = ["spec.nodeName".to_owned()];
        let mut builder = AttributesBuilder::default();
        builder.push(Kind::Label, b"app", b"web");
        builder.push(Kind::Label, b"example.com/tier", b"a");
        builder.push(Kind::Field, b"metadata.name", b"p");
        builder.push(Kind::Field, b"spec.nodeName", b"n1");
        Some(parse(labels, fields, &known)?.matches(&builder.build()))
    }

    #[test]
    fn well_formed_selectors_select() {
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=web", "", true),
            ("app==web", "", true),
            ("app != web", "", false),
            ("app in (api, web),example.com/tier", "", true),
            ("app notin (api,web)", "", false),
            ("!app", "", false),
            ("!legacy", "", true),
            ("missing!=x", "", true),
            ("missing notin (x)", "", true),
            ("app=", "", false),
            ("", "spec.nodeName=n1", true),
            ("", "spec.nodeName!=n1,metadata.name=p", false),
            ("app=web", "metadata.name==p", true),
        ] {
            assert_eq!(
                selects(labels, fields),
                Some(expected),
                "{labels:?} {fields:?}"
            );
        }
    }

    #[test]
    fn the_rest_is_left_to_the_application() {
        for (labels, fields) in [
            ("app=a=b", ""),
            ("app in web", ""),
            ("app in (web", ""),
            ("app)", ""),
            ("app in ((web))", ""),
            ("count>3", ""),
            ("-app=x", ""),
            ("app=-x", ""),
            ("UPPER.com/x=1", ""),
            (",", ""),
            ("", "spec.other=x"),
            ("", "spec.nodeName"),
            ("", r"spec.nodeName=a\=b"),
        ] {
            assert_eq!(selects(labels, fields), None, "{labels:?} {fields:?}");
        }
    }
}
