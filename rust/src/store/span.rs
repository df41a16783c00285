//! A range of keys, as etcd writes it and as the rest of korch does.

use std::ops::Bound;

/// Keys from `start` on. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    start: &'a [u8],
    end: End<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    /// Nothing but `start`.
    Single,
    /// Everything below this key.
    Before(&'a [u8]),
    /// Everything that begins with `start`, which ends in `/`.
    Prefix,
    Open,
}

impl<'a> Span<'a> {
    /// etcd's convention: without an `end` one key, with the end `\0` everything from `start` on, else up to but not including `end`.
    pub fn new(start: &'a [u8], end: &'a [u8]) -> Self {
        let end = match end {
            [] => End::Single,
            [0] => End::Open,
            _ if is_directory(start, end) => End::Prefix,
            _ => End::Before(end),
        };
        Span { start, end }
    }

    /// korch's convention: a prefix that is empty or ends in `/` covers what starts with it; any other is one exact key.
    pub fn prefix(prefix: &'a [u8]) -> Self {
        let end = match prefix.last() {
            None => End::Open,
            Some(b'/') => End::Prefix,
            Some(_) => End::Single,
        };
        Span { start: prefix, end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end {
            End::Single => key == self.start,
            End::Before(end) => self.start <= key && key < end,
            End::Prefix => key.starts_with(self.start),
            End::Open => self.start <= key,
        }
    }

    pub(crate) fn start(&self) -> &'a [u8] {
        self.start
    }

    /// Call `walk` with the bounds of the keys from `from` on; None when there can be no key between them.
    pub(crate) fn bounded<T>(
        &self,
        from: &[u8],
        walk: impl FnOnce((Bound<&[u8]>, Bound<&[u8]>)) -> T,
    ) -> Option<T> {
        let from = from.max(self.start);
        let behind = behind_directory(self.start);
        let end = match self.end {
            End::Single => Bound::Included(self.start),
            End::Before(end) => Bound::Excluded(end),
            End::Prefix => Bound::Excluded(behind.as_slice()),
            End::Open => Bound::Unbounded,
        };
        // A map refuses a range that ends before it starts.
        let is_empty = match end {
            Bound::Included(end) => from > end,
            Bound::Excluded(end) => from >= end,
            Bound::Unbounded => false,
        };
        (!is_empty).then(|| walk((Bound::Included(from), end)))
    }

    /// The name under which watchers of this span are found by looking up the beginnings of a key: a directory, everything, or one
    /// key. None for other spans.
    pub(crate) fn scope(&self) -> Option<&'a [u8]> {
        let is_from_first = matches!(self.start, [] | [0]);
        match self.end {
            End::Prefix => Some(self.start),
            End::Single if self.start.last().is_some_and(|last| *last != b'/') => Some(self.start),
            End::Open if is_from_first => Some(&[]),
            _ => None,
        }
    }

    /// The first key behind the span, None when it has no end.
    pub(crate) fn end(&self) -> Option<Vec<u8>> {
        match self.end {
            End::Single => Some([self.start, &[0]].concat()),
            End::Before(end) => Some(end.to_vec()),
            End::Prefix => Some(behind_directory(self.start)),
            End::Open => None,
        }
    }
}

fn is_directory(start: &[u8], end: &[u8]) -> bool {
    match (start.split_last(), end.split_last()) {
        (Some((b'/', head)), Some((b'0', tail))) => head == tail,
        _ => false,
    }
}

/// The first key that does not begin with `prefix`, for a prefix that ends in `/`.
fn behind_directory(prefix: &[u8]) -> Vec<u8> {
    let mut behind = prefix.to_vec();
    if let Some(last) = behind.last_mut() {
        *last = last.saturating_add(1);
    }
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_what_etcd_and_korch_mean_by_them() {
        let table: [(Span<'_>, &[&str], &[&str]); 8] = [
            (Span::new(b"/a", b""), &["/a"], &["/", "/a0", "/b"]),
            (Span::new(b"/a/", b"/a0"), &["/a/", "/a/x"], &["/a", "/a0"]),
            (
                Span::new(b"/a", b"/b"),
                &["/a", "/a/x", "/az"],
                &["/", "/b"],
            ),
            (Span::new(b"/b", b"\0"), &["/b", "/c"], &["/a"]),
            (Span::new(b"\0", b"\0"), &["\0", "/b", "z"], &[]),
            (Span::new(b"/b", b"/a"), &[], &["/a", "/b", "/aa"]),
            (Span::prefix(b"/a/"), &["/a/", "/a/x"], &["/a", "/a0"]),
            (Span::prefix(b""), &["", "/a"], &[]),
        ];
        for (span, inside, outside) in table {
            for key in inside.iter().chain(outside) {
                let expected = inside.contains(key);
                assert_eq!(span.contains(key.as_bytes()), expected, "{span:?} {key}");
                let keys = std::collections::BTreeSet::from([key.as_bytes().to_vec()]);
                let found = span.bounded(b"", |bounds| keys.range::<[u8], _>(bounds).count());
                assert_eq!(found == Some(1), expected, "{span:?} {key}");
            }
        }
    }

    #[test]
    fn directories_keys_and_everything_are_looked_up_other_spans_are_not() {
        assert_eq!(Span::new(b"/a/", b"/a0").scope(), Some(&b"/a/"[..]));
        assert_eq!(Span::new(b"/a", b"").scope(), Some(&b"/a"[..]));
        assert_eq!(Span::new(b"\0", b"\0").scope(), Some(&b""[..]));
        assert_eq!(
            Span::new(b"/a/", b"").scope(),
            None,
            "a key like a directory"
        );
        assert_eq!(Span::new(b"/a", b"/b").scope(), None);
        assert_eq!(Span::new(b"/a", b"\0").scope(), None);
    }
}
