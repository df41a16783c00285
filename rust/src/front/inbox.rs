//! Requests for the application, in memory: they wait here, with their whole bodies, until its event loop takes them all at once, and
//! its answers come back through here. Two copies of a body and one wake-up for all that arrived meanwhile, where a socket between the
//! two takes a second HTTP/1.1 on both sides and four system calls for each request.
//!
//! The application learns by a descriptor that there is news: arrivals, clients that have gone, answers of which enough has been sent
//! that more may follow. Nothing here waits, and no thread of the front door enters Python.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{mpsc, oneshot};

use super::body::{Broken, Reply};
use super::stats::Gauge;

/// An answer that comes in pieces may be ahead of its client by so much.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// A request and its body.
#[derive(Debug)]
pub struct Arrival {
    pub id: u64,
    pub head: Parts,
    pub body: Bytes,
}

/// What the application has to hear of, each in order: requests, ids of requests whose clients have gone, and ids of those whose
/// answers have room again.
#[derive(Debug, Default)]
pub struct News {
    pub arrivals: Vec<Arrival>,
    pub gone: Vec<u64>,
    pub drained: Vec<u64>,
}

#[derive(Debug)]
enum Piece {
    More(Bytes),
    Last(Bytes),
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    first: Bytes,
    rest: Option<Pieces>,
}

#[derive(Debug)]
struct Pieces {
    receiver: mpsc::UnboundedReceiver<Piece>,
    ahead: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Open {
    Unanswered(oneshot::Sender<Answer>),
    Begun(mpsc::UnboundedSender<Piece>, Arc<AtomicUsize>),
}

#[derive(Debug, Default)]
struct State {
    is_attached: bool,
    has_rung: bool,
    last_id: u64,
    news: News,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    bell: OwnedFd,
}

impl Inbox {
    pub fn new() -> std::io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            state: Mutex::default(),
            bell,
        }))
    }

    /// Take requests from now on. The descriptor is readable while there is news.
    pub fn attach(&self) -> RawFd {
        self.lock().is_attached = true;
        self.bell.as_raw_fd()
    }

    /// Take none any more. Those that nobody has taken are answered 503 by the front door; the others may still be answered.
    pub fn detach(&self) {
        let mut state = self.lock();
        state.is_attached = false;
        let news = std::mem::take(&mut state.news);
        for arrival in news.arrivals {
            state.open.remove(&arrival.id);
        }
    }

    /// Take all news.
    pub fn take(&self) -> News {
        let mut state = self.lock();
        // An empty counter is no error: the news was taken already.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        state.has_rung = false;
        std::mem::take(&mut state.news)
    }

    /// Answer a request, whole or with more to come. Nothing happens when its client has gone.
    pub fn answer(
        &self,
        id: u64,
        status: StatusCode,
        headers: HeaderMap,
        first: Bytes,
        has_more: bool,
    ) {
        let mut state = self.lock();
        let Some(Open::Unanswered(sender)) = state.open.remove(&id) else {
            return;
        };
        let rest = has_more.then(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let ahead = Arc::new(AtomicUsize::new(0));
            state
                .open
                .insert(id, Open::Begun(sender, Arc::clone(&ahead)));
            Pieces { receiver, ahead }
        });
        drop(state);
        // Whoever waits may have left; then the answer is nobody's.
        let _ = sender.send(Answer {
            status,
            headers,
            first,
            rest,
        });
    }

    /// Send the next piece of an answer. False: the client is behind, and `News::drained` will tell when no longer.
    pub fn send(&self, id: u64, piece: Bytes, has_more: bool) -> bool {
        let mut state = self.lock();
        if !has_more {
            if let Some(Open::Begun(sender, _)) = state.open.remove(&id) {
                let _ = sender.send(Piece::Last(piece));
            }
            return true;
        }
        let Some(Open::Begun(sender, ahead)) = state.open.get(&id) else {
            return true;
        };
        let size = piece.len();
        let before = ahead.fetch_add(size, Ordering::AcqRel);
        sender.send(Piece::More(piece)).is_err() || before + size <= AHEAD_BYTES_MAX
    }

    /// End an answer that cannot be ended well: the client sees it broken off, or a 503 when it has not begun.
    pub fn abort(&self, id: u64) {
        self.lock().open.remove(&id);
    }

    /// Have the application answer. The Gauge lives as long as the answer. None: it went away without an answer.
    pub(super) async fn ask(
        self: &Arc<Self>,
        head: Parts,
        body: Bytes,
        active: Gauge,
    ) -> Option<Response<Reply>> {
        let (asking, receiver) = self.enter(head, body)?;
        let answer = receiver.await.ok()?;
        let body = match answer.rest {
            None => {
                asking.forget();
                Reply::Own(Full::new(answer.first))
            }
            Some(pieces) => Reply::Pieces(Delivered {
                first: Some(answer.first).filter(|first| !first.is_empty()),
                pieces,
                asking: Some(asking),
                _active: active,
            }),
        };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Some(response)
    }

    /// Whether the application takes requests here.
    pub(super) fn is_attached(&self) -> bool {
        self.lock().is_attached
    }

    fn enter(
        self: &Arc<Self>,
        head: Parts,
        body: Bytes,
    ) -> Option<(Asking, oneshot::Receiver<Answer>)> {
        let mut state = self.lock();
        if !state.is_attached {
            return None;
        }
        state.last_id += 1;
        let id = state.last_id;
        let (sender, receiver) = oneshot::channel();
        state.open.insert(id, Open::Unanswered(sender));
        state.news.arrivals.push(Arrival { id, head, body });
        self.ring(&mut state);
        let inbox = Some(Arc::clone(self));
        Some((Asking { inbox, id }, receiver))
    }

    fn tell(&self, id: u64, list: fn(&mut News) -> &mut Vec<u64>) {
        let mut state = self.lock();
        if state.open.contains_key(&id) {
            list(&mut state.news).push(id);
            self.ring(&mut state);
        }
    }

    /// Once for all news that comes before it is taken.
    fn ring(&self, state: &mut State) {
        if !std::mem::replace(&mut state.has_rung, true) {
            // It fails only when the counter is full, and then the descriptor is readable.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is with the application. Dropped before `forget`, its client has gone.
#[derive(Debug)]
struct Asking {
    inbox: Option<Arc<Inbox>>,
    id: u64,
}

impl Asking {
    fn forget(mut self) {
        self.inbox = None;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.tell(self.id, |news| &mut news.gone);
            inbox.abort(self.id);
        }
    }
}

/// The body of an answer that comes in pieces.
#[derive(Debug)]
pub(super) struct Delivered {
    first: Option<Bytes>,
    pieces: Pieces,
    /// None once it has ended.
    asking: Option<Asking>,
    _active: Gauge,
}

impl Delivered {
    /// The next piece, None after the last.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(asking) = &self.asking else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(&mut self.pieces.receiver).poll_recv(context)) {
            Some(Piece::More(piece)) => {
                let before = self.pieces.ahead.fetch_sub(piece.len(), Ordering::AcqRel);
                if before > AHEAD_BYTES_MAX
                    && before - piece.len() <= AHEAD_BYTES_MAX
                    && let Some(inbox) = &asking.inbox
                {
                    inbox.tell(asking.id, |news| &mut news.drained);
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Some(Piece::Last(piece)) => {
                self.end();
                Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
            }
            None => {
                self.end();
                Poll::Ready(Some(Err(Broken)))
            }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.first.is_none() && self.asking.is_none()
    }

    fn end(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.forget();
        }
    }
}
