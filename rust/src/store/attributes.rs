//! What selectors see of an object: its labels, its selectable fields and its owners' uids.
//!
//! They are handed in with each write, because the writer holds the decoded object; the store never parses values. All pairs
//! stand in one buffer, in the encoding of the log, so an object costs one small allocation and a log record a memcpy.

use std::sync::Arc;

use super::codec::{Reader, put_bytes};

/// What a pair describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Label,
    Field,
    Owner,
}

impl Kind {
    pub(crate) fn tag(self) -> u8 {
        match self {
            Kind::Label => b'l',
            Kind::Field => b'f',
            Kind::Owner => b'o',
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            b'l' => Some(Kind::Label),
            b'f' => Some(Kind::Field),
            b'o' => Some(Kind::Owner),
            _ => None,
        }
    }
}

/// One pair; an owner has an empty key and its uid as value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    pub kind: Kind,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// The pairs of one object; cheap to clone, and without an allocation when there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    encoded: Arc<[u8]>,
}

impl Attributes {
    /// Take what `encoded` returned. None when it does not decode to the end.
    pub(crate) fn decode(encoded: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(encoded);
        while !reader.is_empty() {
            next_pair(&mut reader)?;
        }
        if encoded.is_empty() {
            return Some(Attributes::default());
        }
        Some(Attributes {
            encoded: encoded.into(),
        })
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whether both share one buffer; equal pairs may stand in two.
    pub(crate) fn is_shared_with(&self, other: &Attributes) -> bool {
        Arc::ptr_eq(&self.encoded, &other.encoded)
    }

    /// All pairs, in the order in which they were added.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let mut reader = Reader::new(&self.encoded);
        std::iter::from_fn(move || {
            if reader.is_empty() {
                None
            } else {
                next_pair(&mut reader)
            }
        })
    }

    /// The value of a label or field, if the object has it.
    pub fn get(&self, kind: Kind, key: &[u8]) -> Option<&[u8]> {
        self.pairs()
            .find(|pair| pair.kind == kind && pair.key == key)
            .map(|pair| pair.value)
    }

    pub(crate) fn contains(&self, wanted: &Pair<'_>) -> bool {
        self.pairs().any(|pair| pair == *wanted)
    }
}

/// Collects pairs for `Attributes`.
#[derive(Debug, Default)]
pub struct AttributesBuilder {
    encoded: Vec<u8>,
}

impl AttributesBuilder {
    pub fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) {
        self.encoded.push(kind.tag());
        put_bytes(&mut self.encoded, key);
        put_bytes(&mut self.encoded, value);
    }

    pub fn build(self) -> Attributes {
        if self.encoded.is_empty() {
            return Attributes::default();
        }
        Attributes {
            encoded: self.encoded.into(),
        }
    }
}

fn next_pair<'a>(reader: &mut Reader<'a>) -> Option<Pair<'a>> {
    let kind = Kind::from_tag(reader.byte()?)?;
    let key = reader.bytes()?;
    let value = reader.bytes()?;
    Some(Pair { kind, key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_encoding() {
        let mut builder = AttributesBuilder::default();
        builder.push(Kind::Label, b"app", b"web");
        builder.push(Kind::Field, b"spec.nodeName", b"");
        builder.push(Kind::Owner, b"", b"uid-1");
        let attributes = builder.build();
        assert_eq!(attributes.get(Kind::Label, b"app"), Some(&b"web"[..]));
        assert_eq!(
            attributes.get(Kind::Field, b"spec.nodeName"),
            Some(&b""[..])
        );
        assert_eq!(attributes.get(Kind::Field, b"app"), None);
        assert_eq!(Attributes::decode(attributes.encoded()), Some(attributes));
    }

    #[test]
    fn nonsense_does_not_decode() {
        assert_eq!(Attributes::decode(b"x"), None);
        assert_eq!(Attributes::decode(b"l\x05ab"), None);
    }
}
