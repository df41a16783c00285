//! A store that follows another database: revisions, versions and order are the other's, and what it says is durable already.
//!
//! `apply` takes the writes of whole revisions as the leader made them and publishes them; `reset` replaces everything by a state
//! read at one revision, which ends every watch, because nobody knows what happened in between. Readers, indexes, watchers and
//! compaction are those of any other store; `commit` must not be called.

use std::convert::Infallible;
use std::sync::Arc;

use super::attributes::Attributes;
use super::chain::Chain;
use super::error::{Result, StoreError};
use super::event::EventType;
use super::face::Store;
use super::keyspace::Restoring;
use super::revision::{Body, Key, Revision, Written};
use super::write;

/// One key as the leader has it. Without a body it was deleted at `modified`.
#[derive(Debug)]
pub struct Foreign<'a> {
    pub key: &'a [u8],
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub body: Option<ForeignBody<'a>>,
}

/// A stored object: `splice_at` is where in `value` the revision is to be written when it is read.
#[derive(Debug)]
pub struct ForeignBody<'a> {
    pub value: &'a [u8],
    pub splice_at: Option<usize>,
    pub attributes: Attributes,
}

impl Store {
    /// Apply and publish `writes`, ordered by revision and each revision whole, and then stand at `revision`, which is not below
    /// any of theirs. Writes at revisions already seen are skipped. Return the ids of watchers that have news, ascending.
    pub fn mirror(&self, writes: Vec<Foreign<'_>>, revision: u64) -> Result<Vec<u64>> {
        let mut state = write(&self.core.state);
        let keys = &mut state.keys;
        let seen = keys.published;
        let mut last = seen;
        let mut sub = 0;
        for foreign in writes {
            let modified = foreign.modified;
            if modified <= seen {
                continue;
            }
            if modified < last || modified > revision {
                return Err(StoreError::Invalid(format!(
                    "revision {modified} arrived out of order, between {last} and {revision}"
                )));
            }
            sub = if modified == last { sub + 1 } else { 0 };
            last = modified;
            if foreign.body.is_none() && keys.newest(foreign.key).is_none() {
                continue;
            }
            let Ok(_) = keys.write(foreign.key.into(), |key, chain| {
                Ok::<_, Infallible>(revision_of(key, chain, foreign, sub))
            });
        }
        keys.applied = revision.max(seen);
        drop(state);
        Ok(self.core.publish(revision))
    }

    /// Forget everything and hold `items`, one of each key, as the state at `revision`, the new compaction floor. Every watcher is
    /// cut, as one that was too slow is; return their ids, ascending.
    pub fn mirror_from<'a>(
        &self,
        items: impl IntoIterator<Item = Foreign<'a>>,
        revision: u64,
    ) -> Vec<u64> {
        let mut restoring = Restoring::default();
        for foreign in items {
            let state = revision_of(&foreign.key.into(), None, foreign, 0);
            restoring.add(Arc::new(state));
        }
        let keys = restoring.finish(&[], revision, revision);
        let mut state = write(&self.core.state);
        state.keys = keys;
        self.core.note_published(&state);
        let news = state.watchers.cut_all();
        drop(state);
        news.deliver()
    }
}

fn revision_of(key: &Key, chain: Option<&Chain>, foreign: Foreign<'_>, sub: u32) -> Revision {
    let (modified, natural) = (foreign.modified, EventType::natural(foreign.version));
    let is_deletion = foreign.body.is_none();
    let (attributes, framed) = match foreign.body {
        Some(body) => {
            let framed = move |_| Body::spliced(body.value, body.splice_at, modified, natural);
            (body.attributes, Some(framed))
        }
        None => (Attributes::default(), None),
    };
    let written = Written {
        modified,
        sub,
        lease: 0,
        attributes,
    };
    let mut new = Revision::after(key, chain, written, framed);
    if !is_deletion {
        // Of a key whose past is not here only the leader knows them.
        new.created = foreign.created;
        new.version = foreign.version;
    }
    new
}

#[cfg(test)]
mod tests {
    use super::super::{AttributesBuilder, Kind, Selector};
    use super::*;

    fn put<'a>(key: &'a [u8], modified: u64, version: u64, label: &str) -> Foreign<'a> {
        let mut attributes = AttributesBuilder::default();
        attributes.push(Kind::Label, b"app", label.as_bytes());
        let body = ForeignBody {
            value: br#"{"v":""}"#,
            splice_at: Some(6),
            attributes: attributes.build(),
        };
        Foreign {
            key,
            created: modified,
            modified,
            version,
            body: Some(body),
        }
    }

    fn gone(key: &[u8], modified: u64) -> Foreign<'_> {
        Foreign {
            key,
            created: 0,
            modified,
            version: 0,
            body: None,
        }
    }

    fn lines(store: &Store, id: u64) -> Vec<String> {
        let frames = store.poll_frames(id, usize::MAX).unwrap().events;
        frames
            .iter()
            .map(|frame| String::from_utf8_lossy(frame).trim_end().to_string())
            .collect()
    }

    #[test]
    fn revisions_are_the_leaders_and_gaps_are_no_matter() {
        let store = Store::in_memory();
        store.mirror_from([put(b"/a/1", 7, 3, "x"), put(b"/a/2", 9, 1, "y")], 12);
        assert_eq!((store.revision(), store.compacted()), (12, 12));
        let one = store.get(b"/a/1", 0).unwrap().unwrap();
        assert_eq!(
            (one.value(), one.modified, one.version),
            (&br#"{"v":"7"}"#[..], 7, 3)
        );
        let id = store.watch(b"/a/", 12, Selector::default(), None).unwrap();
        let woken = store
            .mirror(vec![put(b"/a/3", 20, 1, "x"), gone(b"/a/1", 20)], 23)
            .unwrap();
        assert_eq!(woken, [id]);
        assert_eq!(
            lines(&store, id),
            [
                r#"{"type":"ADDED","object":{"v":"20"}}"#,
                r#"{"type":"DELETED","object":{"v":"20"}}"#
            ]
        );
        assert_eq!(store.revision(), 23);
        assert!(store.get(b"/a/1", 0).unwrap().is_none());
        assert!(store.get(b"/a/1", 19).unwrap().is_some());
    }

    #[test]
    fn what_is_sent_again_after_a_reconnect_is_not_applied_again() {
        let store = Store::in_memory();
        store.mirror_from([], 5);
        let id = store.watch(b"/a/", 5, Selector::default(), None).unwrap();
        store.mirror(vec![put(b"/a/1", 6, 1, "x")], 6).unwrap();
        let woken = store
            .mirror(vec![put(b"/a/1", 6, 1, "x"), put(b"/a/1", 8, 2, "x")], 8)
            .unwrap();
        assert_eq!(woken, [id]);
        assert_eq!(lines(&store, id).len(), 2);
    }

    #[test]
    fn disorder_is_refused() {
        let store = Store::in_memory();
        store.mirror_from([], 5);
        let writes = vec![put(b"/a/1", 9, 1, "x"), put(b"/a/2", 8, 1, "x")];
        assert!(store.mirror(writes, 9).is_err());
        assert!(store.mirror(vec![put(b"/a/3", 40, 1, "x")], 30).is_err());
    }

    #[test]
    fn a_reset_cuts_every_watch_and_forgets_indexes() {
        let store = Store::in_memory();
        store.mirror_from([put(b"/a/1", 7, 1, "x")], 7);
        let id = store.watch(b"/a/", 7, Selector::default(), None).unwrap();
        assert_eq!(store.mirror_from([put(b"/a/2", 30, 1, "y")], 31), [id]);
        assert!(matches!(
            store.poll(id, 10),
            Err(StoreError::WatcherLagged { .. })
        ));
        assert!(matches!(
            store.watch(b"/a/", 7, Selector::default(), None),
            Err(StoreError::Compacted { .. })
        ));
        assert!(store.get(b"/a/1", 0).unwrap().is_none());
        assert_eq!(store.stats()["index_pairs"], 1);
    }
}
