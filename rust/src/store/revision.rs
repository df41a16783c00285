//! One key at one revision, immutable and shared by readers, history and watchers.
//!
//! The value stands inside its own watch frame `{"type":"ADDED","object":VALUE}\n`, built once at commit, so GET and LIST take a
//! slice of it and a watch sends it whole. The frame's type is the natural one: ADDED for version 1, MODIFIED after that.

use std::sync::Arc;

use super::attributes::Attributes;
use super::chain::Chain;
use super::event::EventType;

/// A key, shared by the key index, the postings of the secondary indexes and every revision.
pub type Key = Arc<[u8]>;

/// A watch line, shared by all who send it.
pub type Frame = Arc<[u8]>;

/// Where the decimal revision stands in a value: in `value[at..at + length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    pub at: u32,
    pub length: u8,
}

/// The encoded object and where its resourceVersion is.
#[derive(Debug, Clone)]
pub struct Body {
    frame: Frame,
    splice_at: u32,
    /// 0 when nothing was spliced. The fields stand one by one, because a store holds millions of bodies.
    splice_length: u8,
    kind: EventType,
}

impl Body {
    /// Frame `value`, writing `revision` at `splice_at` when there is one (which must lie within `value`).
    pub(crate) fn spliced(
        value: &[u8],
        splice_at: Option<usize>,
        revision: u64,
        natural: EventType,
    ) -> Self {
        let Some((head, tail)) = splice_at.and_then(|at| value.split_at_checked(at)) else {
            return Body::stored(value, None, natural);
        };
        let digits = revision.to_string();
        let splice = Splice {
            at: head.len() as u32,
            length: digits.len() as u8,
        };
        Body::framed(&[head, digits.as_bytes(), tail], Some(splice), natural)
    }

    /// Frame a value that already carries its revision.
    pub(crate) fn stored(value: &[u8], splice: Option<Splice>, natural: EventType) -> Self {
        Body::framed(&[value], splice, natural)
    }

    fn framed(parts: &[&[u8]], splice: Option<Splice>, kind: EventType) -> Self {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let length = kind.prefix().len() + size + SUFFIX.len();
        // Filled twice, but allocated once.
        let mut frame: Frame = std::iter::repeat_n(0, length).collect();
        let mut rest = Arc::get_mut(&mut frame).unwrap_or_default();
        for part in [kind.prefix()].iter().chain(parts).chain(&[SUFFIX]) {
            if let Some((place, behind)) =
                std::mem::take(&mut rest).split_at_mut_checked(part.len())
            {
                place.copy_from_slice(part);
                rest = behind;
            }
        }
        let splice = splice.unwrap_or(Splice { at: 0, length: 0 });
        Body {
            frame,
            splice_at: splice.at,
            splice_length: splice.length,
            kind,
        }
    }

    /// The encoded object.
    pub fn value(&self) -> &[u8] {
        let end = self.frame.len().saturating_sub(SUFFIX.len());
        self.frame
            .get(self.kind.prefix().len()..end)
            .unwrap_or_default()
    }

    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    pub(crate) fn splice(&self) -> Option<Splice> {
        (self.splice_length > 0).then_some(Splice {
            at: self.splice_at,
            length: self.splice_length,
        })
    }

    /// This body in a frame of the given type.
    pub(crate) fn into_kind(self, kind: EventType) -> Body {
        if self.kind == kind {
            return self;
        }
        self.reframed(kind, None)
    }

    /// Frame this value as `kind`; with `revision`, it takes the place of the spliced one.
    pub(crate) fn reframed(&self, kind: EventType, revision: Option<u64>) -> Body {
        let value = self.value();
        if let (Some(revision), Some(splice)) = (revision, self.splice()) {
            let digits = revision.to_string();
            let (at, length) = (splice.at as usize, usize::from(splice.length));
            if let (Some(head), Some(tail)) = (value.get(..at), value.get(at + length..)) {
                let splice = Splice {
                    at: splice.at,
                    length: digits.len() as u8,
                };
                return Body::framed(&[head, digits.as_bytes(), tail], Some(splice), kind);
            }
        }
        Body::framed(&[value], self.splice(), kind)
    }
}

const SUFFIX: &[u8] = b"}\n";

/// The state that a key got at revision `modified`; without a body it was deleted then.
#[derive(Debug)]
pub struct Revision {
    pub key: Key,
    pub created: u64,
    pub modified: u64,
    /// Writes since the key was created, from 1; 0 for a deletion.
    pub version: u64,
    /// Position within its commit.
    pub sub: u32,
    /// The lease that the key is attached to, 0 for none.
    pub lease: i64,
    pub body: Option<Body>,
    pub attributes: Attributes,
}

/// What a write makes of a key: where it was made, and what it says.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) modified: u64,
    pub(crate) sub: u32,
    pub(crate) lease: i64,
    pub(crate) attributes: Attributes,
}

impl Revision {
    /// The state of `key` after `written`, given what it has been. Without a body it is a deletion; the body is framed for the version.
    /// Unchanged attributes are shared with the state before.
    pub(crate) fn after(
        key: &Key,
        chain: Option<&Chain>,
        written: Written,
        body: Option<impl FnOnce(EventType) -> Body>,
    ) -> Self {
        let before = chain.and_then(Chain::newest);
        let version = before.map_or(0, |before| before.version) + 1;
        let body = body.map(|framed| framed(EventType::natural(version)));
        let shared = before.filter(|before| before.attributes == written.attributes);
        Revision {
            key: key.clone(),
            created: before.map_or(written.modified, |before| before.created),
            modified: written.modified,
            version: if body.is_some() { version } else { 0 },
            sub: written.sub,
            lease: written.lease,
            body,
            attributes: shared.map_or(written.attributes, |before| before.attributes.clone()),
        }
    }

    pub fn is_deletion(&self) -> bool {
        self.body.is_none()
    }

    /// The encoded object; empty for a deletion.
    pub fn value(&self) -> &[u8] {
        self.body.as_ref().map(Body::value).unwrap_or_default()
    }
}
