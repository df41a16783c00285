//! The Watch service: one stream of calls carries any number of watches.
//!
//! The store queues events for each watch as it publishes them and tells the stream which of its watches have news; the stream takes
//! them from there when the client has room. A watch whose queue the store had to cut, because its client was slow, goes on from
//! history where it stopped, and ends only when that history is compacted. Progress is told after everything up to that
//! revision was sent, on every watch of the stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::calls::{Body, Ended, Out};
use super::events::Events;
use super::framing::{self, REQUEST_BYTES_MAX};
use super::server::Server;
use super::status::{Result, Status};
use super::wire::watch_request::RequestUnion;
use super::wire::{FilterType, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::store::{Seen, Span, StoreError, lock};

/// Events taken from the store at a time.
const EVENTS_MAX: usize = 256;

/// An answer without parts is closed at the next revision beyond this size, in bytes.
const ANSWER_BYTES: usize = 256 << 10;

/// How often the watches of a stream are brought to one point before a request for progress is given up, in passes over them.
const MEETINGS_MAX: u32 = 8;

/// The watch id of an answer that concerns all watches of a stream, or none.
const NO_WATCH: i64 = -1;

/// Serve one stream until the client has no more to say, or leaves.
pub(super) async fn serve(mut body: Body, out: &mut Out, server: Arc<Server>) -> Ended {
    let _open = server.open_stream();
    let period = server.options.progress_every;
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watches = Watches {
        server,
        by_id: BTreeMap::new(),
        next_id: 0,
        news: Arc::default(),
    };
    loop {
        let next = std::future::poll_fn(|cx| {
            if let Poll::Ready(message) = body.poll_next(cx) {
                return Poll::Ready(Next::Message(message));
            }
            if let Poll::Ready(ids) = watches.news.poll_take(cx) {
                return Poll::Ready(Next::News(ids));
            }
            ticks.poll_tick(cx).map(|_| Next::Tick)
        });
        match next.await {
            Next::Message(message) => match message? {
                None => return Ok(()),
                Some(message) => {
                    let request: WatchRequest = framing::decode(message)?;
                    watches.request(request, out).await?;
                }
            },
            Next::News(ids) => {
                for id in ids {
                    watches.deliver(id, out).await?;
                }
            }
            Next::Tick => watches.tell_quiet(out).await?,
        }
    }
}

enum Next {
    Message(Result<Option<Bytes>>),
    News(Vec<i64>),
    Tick,
}

/// Which watches of a stream have events waiting in the store.
#[derive(Debug, Default)]
struct News {
    ids: Mutex<Vec<i64>>,
    reader: AtomicWaker,
}

impl News {
    fn add(&self, id: i64) {
        lock(&self.ids).push(id);
        self.reader.wake();
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Vec<i64>> {
        let ids = std::mem::take(&mut *lock(&self.ids));
        if !ids.is_empty() {
            return Poll::Ready(ids);
        }
        self.reader.register(cx.waker());
        // Something may have come in between.
        let ids = std::mem::take(&mut *lock(&self.ids));
        if ids.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(ids)
        }
    }
}

/// One watch, as its client asked for it.
#[derive(Debug)]
struct Watch {
    request: WatchCreateRequest,
    /// Its number in the store.
    watcher: u64,
    /// Events below this revision are not wanted.
    start: u64,
    /// Everything up to this revision was sent.
    seen: u64,
    /// The last event taken for it was of this revision.
    sent: u64,
    /// Nothing was sent since the last tick.
    is_quiet: bool,
}

#[derive(Debug)]
struct Watches {
    server: Arc<Server>,
    by_id: BTreeMap<i64, Watch>,
    next_id: i64,
    news: Arc<News>,
}

impl Drop for Watches {
    fn drop(&mut self) {
        for watch in self.by_id.values() {
            self.server.store().unwatch(watch.watcher);
        }
    }
}

impl Watches {
    async fn request(&mut self, request: WatchRequest, out: &mut Out) -> Ended {
        match request.request_union {
            Some(RequestUnion::Create(request)) => self.create(request, out).await,
            Some(RequestUnion::Cancel(request)) => match self.by_id.remove(&request.watch_id) {
                None => Ok(()),
                Some(watch) => {
                    self.server.store().unwatch(watch.watcher);
                    let canceled = WatchResponse {
                        watch_id: request.watch_id,
                        canceled: true,
                        ..self.response()
                    };
                    out.send(framing::framed(&canceled)?).await
                }
            },
            Some(RequestUnion::Progress(_)) => self.tell_progress(out).await,
            None => Ok(()),
        }
    }

    fn response(&self) -> WatchResponse {
        WatchResponse {
            header: self.server.header(self.server.store().revision()),
            ..WatchResponse::default()
        }
    }

    async fn create(&mut self, mut request: WatchCreateRequest, out: &mut Out) -> Ended {
        if request.key.is_empty() {
            request.key = Bytes::from_static(&[0]);
        }
        if let Some(reason) = self.refusal(&request) {
            let refused = WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.into(),
                ..self.response()
            };
            return out.send(framing::framed(&refused)?).await;
        }
        let id = match request.watch_id {
            0 => self.unused_id(),
            chosen => chosen,
        };
        let created = WatchResponse {
            watch_id: id,
            created: true,
            ..self.response()
        };
        let present = self.server.store().revision();
        let start = match u64::try_from(request.start_revision) {
            Ok(0) | Err(_) => present + 1,
            Ok(start) => start,
        };
        let seen = (start - 1).min(present);
        let watcher = self.register(&request, id, seen + 1);
        out.send(framing::framed(&created)?).await?;
        let watch = Watch {
            request,
            watcher: 0,
            start,
            seen,
            sent: 0,
            is_quiet: true,
        };
        match watcher {
            Ok(watcher) => {
                self.by_id.insert(id, Watch { watcher, ..watch });
                self.deliver(id, out).await
            }
            Err(error) => self.end(id, error, out).await,
        }
    }

    /// Why a watch cannot be, in etcd's words.
    fn refusal(&self, request: &WatchCreateRequest) -> Option<&'static str> {
        let end = &request.range_end;
        let is_open = matches!(end.as_ref(), [] | [0]);
        if !is_open && request.key >= *end {
            return Some("mvcc: watcher range is empty");
        }
        if request.watch_id != 0 && self.by_id.contains_key(&request.watch_id) {
            return Some("mvcc: duplicate watch ID provided on the WatchStream");
        }
        None
    }

    fn unused_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn register(
        &self,
        request: &WatchCreateRequest,
        id: i64,
        first: u64,
    ) -> std::result::Result<u64, StoreError> {
        let news = Arc::clone(&self.news);
        let span = Span::new(&request.key, &request.range_end);
        let notify = Arc::new(move || news.add(id));
        let store = self.server.store();
        store.watch_from(&span, first, Some(notify))
    }

    /// Send what the store has queued for one watch. One that was canceled meanwhile has nothing.
    async fn deliver(&mut self, id: i64, out: &mut Out) -> Ended {
        loop {
            let Some(watch) = self.by_id.get_mut(&id) else {
                return Ok(());
            };
            match self.server.store().poll(watch.watcher, EVENTS_MAX) {
                Ok(poll) => {
                    let is_drained = poll.events.len() < EVENTS_MAX;
                    let answers = watch.answers(id, &poll.events, poll.revision, &self.server)?;
                    watch.seen = poll.revision;
                    if let Some((_, last)) = poll.events.last() {
                        watch.sent = last.revision();
                    }
                    watch.is_quiet &= answers.is_empty();
                    for answer in answers {
                        out.send(answer).await?;
                    }
                    if is_drained {
                        return Ok(());
                    }
                }
                Err(StoreError::WatcherLagged { .. }) => {
                    let (request, seen) = (watch.request.clone(), watch.seen);
                    self.server.store().unwatch(watch.watcher);
                    match self.register(&request, id, seen + 1) {
                        Ok(watcher) => {
                            if let Some(watch) = self.by_id.get_mut(&id) {
                                watch.watcher = watcher;
                            }
                        }
                        Err(error) => return self.end(id, error, out).await,
                    }
                }
                Err(error) => return self.end(id, error, out).await,
            }
        }
    }

    /// End a watch that cannot go on.
    async fn end(&mut self, id: i64, error: StoreError, out: &mut Out) -> Ended {
        if let Some(watch) = self.by_id.remove(&id) {
            self.server.store().unwatch(watch.watcher);
        }
        let mut canceled = WatchResponse {
            watch_id: id,
            canceled: true,
            ..self.response()
        };
        match error {
            StoreError::Compacted { floor, .. } => canceled.compact_revision = floor as i64,
            error => canceled.cancel_reason = Status::from(error).message.into_owned(),
        }
        out.send(framing::framed(&canceled)?).await
    }

    /// Tell the client of a revision up to which it has seen everything there is on this stream, and beyond which it has seen nothing:
    /// it would resume from there. As with etcd, a stream without watches, with one that waits for the future, or with watches that
    /// do not come to one point, is told nothing and asks again.
    async fn tell_progress(&mut self, out: &mut Out) -> Ended {
        let least = self.server.store().revision();
        for _ in 0..MEETINGS_MAX {
            let ids: Vec<i64> = self.by_id.keys().copied().collect();
            for id in ids {
                self.deliver(id, out).await?;
            }
            let Some(seen) = self.by_id.values().map(|watch| watch.seen).min() else {
                return Ok(());
            };
            let sent = self.by_id.values().map(|watch| watch.sent).max();
            let is_known =
                seen >= least && self.by_id.values().all(|watch| watch.start <= seen + 1);
            if !is_known {
                return Ok(());
            }
            if sent.is_none_or(|sent| sent <= seen) {
                let progress = WatchResponse {
                    header: self.server.header(seen),
                    watch_id: NO_WATCH,
                    ..WatchResponse::default()
                };
                return out.send(framing::framed(&progress)?).await;
            }
        }
        Ok(())
    }

    /// Tell the watches that asked for it, and had nothing to hear since the last time, how far they are.
    async fn tell_quiet(&mut self, out: &mut Out) -> Ended {
        let ids: Vec<i64> = self.by_id.keys().copied().collect();
        for id in ids {
            self.deliver(id, out).await?;
            let Some(watch) = self.by_id.get_mut(&id) else {
                continue;
            };
            let is_told =
                watch.request.progress_notify && watch.is_quiet && watch.start <= watch.seen + 1;
            watch.is_quiet = true;
            if is_told {
                let progress = WatchResponse {
                    header: self.server.header(watch.seen),
                    watch_id: id,
                    ..WatchResponse::default()
                };
                out.send(framing::framed(&progress)?).await?;
            }
        }
        Ok(())
    }
}

impl Watch {
    fn wants(&self, event: &Seen) -> bool {
        let filter = if event.1.new.is_deletion() {
            FilterType::NoDelete
        } else {
            FilterType::NoPut
        };
        event.1.revision() >= self.start && !self.request.filters.contains(&(filter as i32))
    }

    /// `events`, oldest first, as framed answers that never split a revision (unless the client allowed it), the last of which
    /// says that everything up to `revision` was seen.
    fn answers(
        &self,
        id: i64,
        events: &[Seen],
        revision: u64,
        server: &Server,
    ) -> Result<Vec<Bytes>> {
        let mut answers = Vec::new();
        let previous_after = self.request.prev_kv.then(|| server.store().compacted());
        let mut open = Events::new(id, previous_after);
        let mut last = 0;
        for event in events.iter().filter(|event| self.wants(event)) {
            let event = &event.1;
            if open.len() >= ANSWER_BYTES && event.revision() != last {
                answers.push(open.close(last, false, &server.identity())?);
            }
            let is_too_long = open.len() + open.len_of(event) >= REQUEST_BYTES_MAX;
            if self.request.fragment && is_too_long && !open.is_empty() {
                let is_split = event.revision() == last;
                answers.push(open.close(last, is_split, &server.identity())?);
            }
            open.add(event);
            last = event.revision();
        }
        if !open.is_empty() {
            answers.push(open.close(revision.max(last), false, &server.identity())?);
        }
        Ok(answers)
    }
}
