//! The body of a list: a head, the stored values with commas between them, an end. It is made in pieces as the client takes them, of
//! the stored bytes themselves, so that a large list costs pointers, and the first copy of it is the encrypted one.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderValue, VARY};

use crate::store::{Frame, Page, Revision, Store};

use super::super::piece::Piece;
use super::grants::Route;
use super::path::Asked;
use super::selector;

const PIECE_BYTES: usize = 128 * 1024;
/// Answers below this are not worth compressing. Mirrors apiserver's defaultGzipThresholdBytes.
const GZIP_BYTES_MIN: usize = 128 * 1024;
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
const END: &[u8] = b"]}\n";

/// A list on its way out.
#[derive(Debug)]
pub(in crate::front) struct List {
    head: Vec<u8>,
    items: VecDeque<Arc<Revision>>,
    /// Bytes still to come, before compression.
    rest: usize,
    is_first: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl List {
    fn new(head: Vec<u8>, items: Vec<Arc<Revision>>) -> Self {
        let values: usize = items.iter().map(|item| item.value().len()).sum();
        let commas = items.len().saturating_sub(1);
        List {
            rest: head.len() + values + commas + END.len(),
            head,
            items: items.into(),
            is_first: true,
            gzip: None,
        }
    }

    fn compressed(mut self) -> Self {
        if self.rest >= GZIP_BYTES_MIN {
            self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        }
        self
    }

    pub(in crate::front) fn is_compressed(&self) -> bool {
        self.gzip.is_some()
    }

    /// Bytes still to come, None when compression makes that unknown.
    pub(in crate::front) fn length(&self) -> Option<u64> {
        self.gzip.is_none().then_some(self.rest as u64)
    }

    pub(in crate::front) fn is_done(&self) -> bool {
        self.rest == 0 && self.gzip.is_none()
    }

    /// The next piece, None at the end. An encoder that fails ends the body early, which the client notices.
    pub(in crate::front) fn next_piece(&mut self) -> Option<Piece> {
        if self.gzip.is_none() {
            return (self.rest > 0).then(|| self.plain());
        }
        loop {
            if self.rest == 0 {
                let finished = self.gzip.take()?.finish().ok()?;
                return (!finished.is_empty()).then(|| Bytes::from(finished).into());
            }
            let mut plain = self.plain();
            let encoder = self.gzip.as_mut()?;
            while plain.has_remaining() {
                let size = plain.chunk().len();
                encoder.write_all(plain.chunk()).ok()?;
                plain.advance(size);
            }
            if encoder.get_ref().len() >= PIECE_BYTES {
                return Some(Bytes::from(std::mem::take(encoder.get_mut())).into());
            }
        }
    }

    fn plain(&mut self) -> Piece {
        let mut piece = Piece::default();
        piece.push(std::mem::take(&mut self.head).into());
        while piece.remaining() < PIECE_BYTES {
            let Some(item) = self.items.pop_front() else {
                piece.push(Bytes::from_static(END));
                break;
            };
            if !std::mem::replace(&mut self.is_first, false) {
                piece.push(Bytes::from_static(b","));
            }
            piece.push(shared_value(&item));
        }
        self.rest = self.rest.saturating_sub(piece.remaining());
        piece
    }
}

pub(super) fn mark_compressed(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// The list that was asked for, None when it takes the application to answer.
pub(super) fn body(store: &Store, route: &Route, asked: &Asked, gzip: bool) -> Option<List> {
    let options = &asked.options;
    let selector = selector::parse(
        &options.label_selector,
        &options.field_selector,
        &route.fields,
    )?;
    let prefix = route.prefix(&asked.namespace);
    let (revision, start) = if options.continue_token.is_empty() {
        (revision(store, asked)?, Vec::new())
    } else {
        let (revision, suffix) = token_parts(&options.continue_token)?;
        (revision, [prefix.as_slice(), suffix.as_bytes()].concat())
    };
    let page = store
        .range(&prefix, &start, options.limit, revision, &selector)
        .ok()?;
    let head = head(route, &page, &prefix, selector.is_empty())?;
    let list = List::new(head, page.items);
    Some(if gzip { list.compressed() } else { list })
}

/// The revision to read at, 0 for the newest.
fn revision(store: &Store, asked: &Asked) -> Option<u64> {
    let options = &asked.options;
    let wanted = options.resource_version.unwrap_or(0);
    if wanted > store.revision() {
        return None;
    }
    let is_exact = options.resource_version_match == "Exact"
        || (options.limit > 0 && options.resource_version_match.is_empty());
    Some(if is_exact { wanted } else { 0 })
}

fn head(route: &Route, page: &Page, prefix: &[u8], counts: bool) -> Option<Vec<u8>> {
    let mut metadata = serde_json::Map::new();
    metadata.insert("resourceVersion".into(), page.revision.to_string().into());
    if let Some(next) = &page.next {
        let suffix = std::str::from_utf8(next.strip_prefix(prefix)?).ok()?;
        let token = serde_json::json!({"v": TOKEN_VERSION, "rv": page.revision, "start": suffix});
        metadata.insert(
            "continue".into(),
            URL_SAFE_NO_PAD.encode(token.to_string()).into(),
        );
        if counts {
            metadata.insert("remainingItemCount".into(), page.remaining.into());
        }
    }
    let list = serde_json::json!({"kind": route.list_kind, "apiVersion": route.api_version, "metadata": metadata});
    let mut head = list.to_string().into_bytes();
    head.pop();
    head.extend_from_slice(br#","items":["#);
    Some(head)
}

/// The revision and the rest of the key in a token of a page; only those that go on at their own revision.
fn token_parts(token: &str) -> Option<(u64, String)> {
    let decoded = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
    let token: serde_json::Value = serde_json::from_slice(&decoded).ok()?;
    let revision = token.get("rv")?.as_u64().filter(|revision| *revision > 0)?;
    let start = token.get("start")?.as_str()?;
    (token.get("v")?.as_str()? == TOKEN_VERSION).then(|| (revision, start.to_owned()))
}

/// The value of a stored object, shared with the store.
pub(super) fn shared_value(found: &Arc<Revision>) -> Bytes {
    struct Owner(Arc<Revision>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.value()
        }
    }
    Bytes::from_owner(Owner(Arc::clone(found)))
}

/// A watch line, shared with the store.
pub(super) fn shared_frame(frame: Frame) -> Bytes {
    Bytes::from_owner(frame)
}
