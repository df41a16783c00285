//! The body of a watch: the present objects when they are asked for, then the store's frames as they are published, with a bookmark
//! now and then, until the timeout. Mirrors apiserver's endpoints/handlers/watch.go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::store::{Frame, Revision, Selector, Store};

use super::grants::Route;
use super::list::shared_frame;
use super::mixed;
use super::path::Asked;
use super::selector;
use super::signal::{Signal, Signals};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A client that names no timeout gets one between this and twice this, so that not all come back at once.
const TIMEOUT_S_MIN: u64 = 1800;
const PIECE_BYTES: usize = 128 * 1024;

/// A watch on its way out; dropped, it is forgotten by the store.
#[derive(Debug)]
pub(in crate::front) struct Watch {
    store: Arc<Store>,
    signals: Arc<Signals>,
    signal: Arc<Signal>,
    watcher: u64,
    /// What comes before the first event.
    initial: Option<Box<Initial>>,
    route: Arc<Route>,
    allows_bookmarks: bool,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    is_done: bool,
}

/// Objects of the moment at which the watch began, and whether their end is marked.
#[derive(Debug)]
struct Initial {
    items: std::vec::IntoIter<Arc<Revision>>,
    revision: u64,
    marks_end: bool,
}

/// The watch that was asked for, None when it takes the application to answer.
pub(super) fn body(
    store: &Arc<Store>,
    route: &Arc<Route>,
    asked: &Asked,
    signals: &Arc<Signals>,
) -> Option<Watch> {
    let options = &asked.options;
    let selector = selector::parse(
        &options.label_selector,
        &options.field_selector,
        &route.fields,
    )?;
    let prefix = route.prefix(&asked.namespace);
    let from = options.resource_version.unwrap_or(0);
    if from > store.revision() {
        return None;
    }
    let signal = Arc::new(Signal::default());
    let (watcher, initial) = if from == 0 || options.sends_initial_events {
        let page = store.range(&prefix, b"", 0, 0, &selector).ok()?;
        let watcher = begin(store, &prefix, page.revision, selector, &signal)?;
        let initial = Initial {
            revision: page.revision,
            items: page.items.into_iter(),
            marks_end: options.sends_initial_events && options.allows_bookmarks,
        };
        (watcher, Some(Box::new(initial)))
    } else {
        (begin(store, &prefix, from, selector, &signal)?, None)
    };
    let timeout_s = match options.timeout_s {
        0 => TIMEOUT_S_MIN + mixed(watcher) % TIMEOUT_S_MIN,
        given => given,
    };
    let now = Instant::now();
    let deadline = now.checked_add(Duration::from_secs(timeout_s))?;
    let first = if options.allows_bookmarks {
        deadline.min(now + BOOKMARK_EVERY)
    } else {
        deadline
    };
    signals.add(&signal);
    signal.set();
    Some(Watch {
        store: Arc::clone(store),
        signals: Arc::clone(signals),
        signal,
        watcher,
        initial,
        route: Arc::clone(route),
        allows_bookmarks: options.allows_bookmarks,
        deadline,
        timer: Box::pin(sleep_until(first)),
        is_done: false,
    })
}

fn begin(
    store: &Store,
    prefix: &[u8],
    from: u64,
    selector: Selector,
    signal: &Arc<Signal>,
) -> Option<u64> {
    let told = Arc::clone(signal);
    store
        .watch(prefix, from, selector, Some(Arc::new(move || told.set())))
        .ok()
}

impl Watch {
    /// The next lines; None at the end.
    pub(in crate::front) fn poll_lines(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if let Some(lines) = self.initial_lines() {
            return Poll::Ready(Some(lines));
        }
        while self.signal.take(context) {
            if self.signal.is_closed() {
                self.is_done = true;
                return Poll::Ready(None);
            }
            if let Some((lines, _)) = self.taken() {
                return Poll::Ready(Some(lines));
            }
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.is_done = true;
            return Poll::Ready(None);
        }
        self.timer
            .as_mut()
            .reset(self.deadline.min(now + BOOKMARK_EVERY));
        // The next poll asks the new timer.
        context.waker().wake_by_ref();
        match self.store.poll_frames(self.watcher, PIECE_BYTES) {
            Ok(taken) if taken.events.is_empty() && self.allows_bookmarks => {
                Poll::Ready(Some(self.bookmark(taken.revision, false)))
            }
            Ok(taken) => {
                self.signal.set();
                if taken.events.is_empty() {
                    Poll::Pending
                } else {
                    Poll::Ready(Some(joined(taken.events)))
                }
            }
            Err(_) => Poll::Ready(Some(self.lagged())),
        }
    }

    /// A piece of what comes first, None when it is behind us.
    fn initial_lines(&mut self) -> Option<Bytes> {
        let initial = self.initial.as_mut()?;
        let mut lines = BytesMut::new();
        for item in initial.items.by_ref() {
            lines.extend_from_slice(br#"{"type":"ADDED","object":"#);
            lines.extend_from_slice(item.value());
            lines.extend_from_slice(b"}\n");
            if lines.len() >= PIECE_BYTES {
                return Some(lines.freeze());
            }
        }
        let (revision, marks_end) = (initial.revision, initial.marks_end);
        self.initial = None;
        if marks_end {
            lines.extend_from_slice(&self.bookmark(revision, true));
        }
        (!lines.is_empty()).then(|| lines.freeze())
    }

    /// Queued lines and whether there may be more; None when there are none.
    fn taken(&mut self) -> Option<(Bytes, u64)> {
        match self.store.poll_frames(self.watcher, PIECE_BYTES) {
            Ok(taken) if taken.events.is_empty() => None,
            Ok(taken) => {
                // A queue longer than a piece is gone through without another publication.
                self.signal.set();
                Some((joined(taken.events), taken.revision))
            }
            Err(_) => Some((self.lagged(), 0)),
        }
    }

    /// The last line of a watch that was cut.
    fn lagged(&mut self) -> Bytes {
        self.is_done = true;
        let message = format!("too old resource version: {}", self.store.revision());
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "Expired", "code": 410,
        });
        format!(
            "{}\n",
            serde_json::json!({"type": "ERROR", "object": status})
        )
        .into()
    }

    fn bookmark(&self, revision: u64, is_initial_end: bool) -> Bytes {
        let mut metadata = serde_json::json!({"resourceVersion": revision.to_string()});
        if is_initial_end && let Some(fields) = metadata.as_object_mut() {
            fields.insert(
                "annotations".into(),
                serde_json::json!({"k8s.io/initial-events-end": "true"}),
            );
        }
        let object = serde_json::json!({"kind": self.route.kind, "apiVersion": self.route.api_version, "metadata": metadata});
        format!(
            "{}\n",
            serde_json::json!({"type": "BOOKMARK", "object": object})
        )
        .into()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.unwatch(self.watcher);
        self.signals.remove(&self.signal);
    }
}

fn joined(mut frames: Vec<Frame>) -> Bytes {
    if let [_] = frames.as_slice() {
        return frames.pop().map(shared_frame).unwrap_or_default();
    }
    let mut lines = BytesMut::with_capacity(frames.iter().map(|frame| frame.len()).sum());
    for frame in &frames {
        lines.extend_from_slice(frame);
    }
    lines.freeze()
}
