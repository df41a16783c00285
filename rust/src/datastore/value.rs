//! What stands in etcd under a key: the object as JSON, then a trailer with what another korch server needs to serve it.
//!
//! The JSON comes first and ends with a line feed, so `etcdctl get KEY | head -n 1` is the object (without its resourceVersion, which
//! is the key's mod revision and is written in when the object is read). The trailer says where, carries the labels, fields and
//! owners that selectors see, and names the write: server and number, by which a server recognises a write of its own whose
//! answer was lost. It is found from the end:
//!
//! `JSON \n payload length:u32 crc32c(payload):u32 "krc" version:u8`, integers little endian.

use crate::store::Attributes;
use crate::store::codec::{Reader, put_varint};

const MAGIC: &[u8; 3] = b"krc";
const VERSION: u8 = 1;
const FOOTER_LEN: usize = 12;

/// Who wrote a value: a server's random number, and the number of the write there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteId {
    pub(crate) server: u64,
    pub(crate) number: u64,
}

/// A value taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) json: &'a [u8],
    pub(crate) splice_at: Option<usize>,
    pub(crate) attributes: Attributes,
    pub(crate) id: WriteId,
}

/// Why a value cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("korch did not write it")]
    Foreign,
    #[error("a korch that writes format {0} did, and this one reads format 1")]
    Newer(u8),
    #[error("its trailer is damaged")]
    Damaged,
}

pub(crate) fn encode(
    json: &[u8],
    splice_at: Option<usize>,
    attributes: &Attributes,
    id: WriteId,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + attributes.encoded().len() + 40);
    out.extend_from_slice(json);
    out.push(b'\n');
    let start = out.len();
    put_varint(&mut out, splice_at.map_or(0, |at| at as u64 + 1));
    out.extend_from_slice(&id.server.to_le_bytes());
    put_varint(&mut out, id.number);
    out.extend_from_slice(attributes.encoded());
    let payload = out.get(start..).unwrap_or_default();
    let (length, sum) = (payload.len() as u32, crc32c::crc32c(payload));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out
}

pub(crate) fn decode(value: &[u8]) -> Result<Stored<'_>, Unreadable> {
    let (rest, footer) = value
        .len()
        .checked_sub(FOOTER_LEN)
        .and_then(|at| value.split_at_checked(at))
        .ok_or(Unreadable::Foreign)?;
    let (length, footer) = footer.split_first_chunk().ok_or(Unreadable::Foreign)?;
    let (sum, mark) = footer.split_first_chunk().ok_or(Unreadable::Foreign)?;
    match mark.strip_prefix(MAGIC) {
        Some([VERSION]) => {}
        Some([other]) => return Err(Unreadable::Newer(*other)),
        _ => return Err(Unreadable::Foreign),
    }
    let length = u32::from_le_bytes(*length) as usize;
    let (json, payload) = rest
        .len()
        .checked_sub(length)
        .and_then(|at| rest.split_at_checked(at))
        .ok_or(Unreadable::Damaged)?;
    if crc32c::crc32c(payload) != u32::from_le_bytes(*sum) {
        return Err(Unreadable::Damaged);
    }
    let json = json.strip_suffix(b"\n").ok_or(Unreadable::Damaged)?;
    let mut reader = Reader::new(payload);
    let splice = reader.varint().ok_or(Unreadable::Damaged)?;
    let splice_at = splice.checked_sub(1).map(|at| at as usize);
    if splice_at.is_some_and(|at| at > json.len()) {
        return Err(Unreadable::Damaged);
    }
    let mut server = [0; 8];
    for byte in &mut server {
        *byte = reader.byte().ok_or(Unreadable::Damaged)?;
    }
    let number = reader.varint().ok_or(Unreadable::Damaged)?;
    let attributes = Attributes::decode(reader.rest()).ok_or(Unreadable::Damaged)?;
    Ok(Stored {
        json,
        splice_at,
        attributes,
        id: WriteId {
            server: u64::from_le_bytes(server),
            number,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AttributesBuilder, Kind};

    const ID: WriteId = WriteId {
        server: 0x0102_0304_0506_0708,
        number: 300,
    };

    fn attributes() -> Attributes {
        let mut builder = AttributesBuilder::default();
        builder.push(Kind::Label, b"app", b"web");
        builder.push(Kind::Owner, b"", b"uid-1");
        builder.build()
    }

    #[test]
    fn a_value_is_taken_apart_as_it_was_put_together() {
        let json = br#"{"metadata":{"resourceVersion":""}}"#;
        for splice_at in [None, Some(0), Some(31)] {
            let value = encode(json, splice_at, &attributes(), ID);
            assert!(value.starts_with(json) && value.get(json.len()) == Some(&b'\n'));
            let stored = decode(&value).unwrap();
            assert_eq!(stored.json, json);
            assert_eq!((stored.splice_at, stored.id), (splice_at, ID));
            assert_eq!(stored.attributes, attributes());
        }
    }

    #[test]
    fn what_others_wrote_is_told_from_what_is_damaged() {
        assert_eq!(decode(b""), Err(Unreadable::Foreign));
        assert_eq!(decode(br#"{"kind":"Pod"}"#), Err(Unreadable::Foreign));
        let mut value = encode(b"{}", Some(1), &attributes(), ID);
        let last = value.len() - 1;
        value[last] = 9;
        assert_eq!(decode(&value), Err(Unreadable::Newer(9)));
        let whole = encode(b"{}", Some(1), &attributes(), ID);
        for at in 2..whole.len() - 4 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert_eq!(decode(&damaged), Err(Unreadable::Damaged), "byte {at}");
        }
    }
}
