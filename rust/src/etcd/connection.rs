//! One client connection: a single task that serves all of its calls.
//!
//! A call with one question and one answer never gets a task of its own. Its frames have usually arrived together, so it is answered
//! on the spot; if it wrote something, its answer waits in a queue by revision, and one wake-up after the fsync that made many
//! writes durable sends all their answers in one system call. Streams, and calls that have to wait for something else, are
//! futures polled by the same task.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::calls::{self, Body, Reply};
use super::method::Method;
use super::server::Server;
use super::socket::Socket;
use super::status::{self, Code, Result, Status};
use crate::store::lock;

const STREAMS_MAX: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const SEND_BUFFER: usize = 256 << 10;
const HEADER_LIST_MAX: u32 = 64 << 10;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serve `stream` until the client leaves, or `server` stops. Runs as one task.
pub(super) async fn serve<S>(stream: S, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = Socket::new(stream);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST_MAX)
        .handshake::<_, Bytes>(socket.clone());
    let mut handshake = std::pin::pin!(handshake);
    let shaken = std::future::poll_fn(|cx| {
        let shaken = handshake.as_mut().poll(cx);
        // Our settings are the first thing that the client waits for.
        match socket.poll_drain(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => shaken.map(std::result::Result::ok),
        }
    });
    let Some(h2) = shaken.await else {
        return;
    };
    let stopping = Box::pin(server.stopping());
    let connection = Connection {
        h2,
        socket,
        server,
        waiting: VecDeque::new(),
        woken_at: 0,
        refusal: Arc::default(),
        calls: FuturesUnordered::new(),
        stopping: Some(stopping),
    };
    connection.await;
}

struct Connection<S> {
    h2: h2::server::Connection<Socket<S>, Bytes>,
    socket: Socket<S>,
    server: Arc<Server>,
    /// Answers to writes that are not published yet, by revision.
    waiting: VecDeque<Waiting>,
    /// The revision whose publication wakes this task; 0: none does.
    woken_at: u64,
    /// Why that revision was not published, once it will not be.
    refusal: Arc<Mutex<Option<Status>>>,
    calls: FuturesUnordered<Call>,
    stopping: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

struct Waiting {
    revision: u64,
    respond: SendResponse<Bytes>,
    answer: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.poll_stop(cx);
        this.answer_published(cx);
        // Polling for calls also sends the frames that were queued before it.
        let is_open = this.accept(cx);
        this.answer_published(cx);
        while let Poll::Ready(Some(())) = Pin::new(&mut this.calls).poll_next(cx) {}
        let is_over = !is_open || this.h2.poll_closed(cx).is_ready();
        if is_over {
            let _ = this.socket.poll_drain(cx);
            return Poll::Ready(());
        }
        match this.socket.poll_drain(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn poll_stop(&mut self, cx: &mut Context<'_>) {
        if let Some(stopping) = &mut self.stopping
            && stopping.as_mut().poll(cx).is_ready()
        {
            self.stopping = None;
            // Streams would never end by themselves; dropping them resets them.
            self.calls.clear();
            self.h2.graceful_shutdown();
        }
    }

    /// Take every call that has arrived; false when the connection is over.
    fn accept(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (head, body) = request.into_parts();
                    match Method::of(head.uri.path()) {
                        Some(method) => self.begin(method, body, respond, cx),
                        None => fail(respond, &calls::unknown(head.uri.path())),
                    }
                }
                Poll::Ready(_) => return false,
            }
        }
    }

    /// Answer a call now, or keep what is left of it.
    fn begin(
        &mut self,
        method: Method,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        let mut body = Body::new(body);
        if method.is_streaming() {
            let server = Arc::clone(&self.server);
            self.calls
                .push(Box::pin(calls::stream(method, body, respond, server)));
            return;
        }
        match body.poll_only(cx) {
            Poll::Ready(Ok(message)) => {
                let reply = calls::unary(method, message, &self.server);
                self.reply(reply, respond);
            }
            Poll::Ready(Err(status)) => fail(respond, &status),
            Poll::Pending => {
                let server = Arc::clone(&self.server);
                self.calls.push(Box::pin(async move {
                    let message = std::future::poll_fn(|cx| body.poll_only(cx)).await;
                    let reply = message.and_then(|message| calls::unary(method, message, &server));
                    settle(reply, respond, &server).await;
                }));
            }
        }
    }

    fn reply(&mut self, reply: Result<Reply>, respond: SendResponse<Bytes>) {
        match reply {
            Ok(Reply::Now(answer)) => answer_with(respond, answer),
            Ok(Reply::After(revision, answer)) => {
                // Calls of one connection get ascending revisions, so the queue is sorted by itself.
                self.waiting.push_back(Waiting {
                    revision,
                    respond,
                    answer,
                });
            }
            Err(status) => fail(respond, &status),
            Ok(later) => {
                let server = Arc::clone(&self.server);
                self.calls.push(Box::pin(async move {
                    settle(Ok(later), respond, &server).await
                }));
            }
        }
    }

    /// Send the answers whose writes are published by now, and ask to be woken for the next of them.
    fn answer_published(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        // Behind a write that failed for want of room there may be others that did not; after any other failure nothing is published.
        let refusal = lock(&self.refusal).take();
        let refusal = refusal.filter(|status| status.code != Code::ResourceExhausted);
        let published = self.server.store().revision();
        while let Some(first) = self.waiting.pop_front() {
            if let Err(error) = self.server.store().kept(first.revision) {
                fail(first.respond, &error.into());
            } else if first.revision <= published {
                answer_with(first.respond, first.answer);
            } else if let Some(status) = &refusal {
                fail(first.respond, status);
            } else {
                self.waiting.push_front(first);
                break;
            }
        }
        let next = self.waiting.front().map_or(0, |first| first.revision);
        if next != 0 && next != self.woken_at {
            let (waker, refusal) = (cx.waker().clone(), Arc::clone(&self.refusal));
            self.server.when_published(next, move |published| {
                *lock(&refusal) = published.err();
                waker.wake();
            });
        }
        self.woken_at = next;
    }
}

/// Finish a call that could not be answered on the spot.
async fn settle(reply: Result<Reply>, respond: SendResponse<Bytes>, server: &Arc<Server>) {
    match reply {
        Ok(Reply::Now(answer)) => answer_with(respond, answer),
        Ok(Reply::After(revision, answer)) => match server.until_published(revision).await {
            Ok(()) => answer_with(respond, answer),
            Err(status) => fail(respond, &status),
        },
        Ok(Reply::Range(revision, range)) => {
            if let Err(status) = server.until_published(revision).await {
                return fail(respond, &status);
            }
            calls::send_range(range, respond, server.identity()).await;
        }
        Ok(Reply::Later(answer)) => match answer.await {
            Ok(answer) => answer_with(respond, answer),
            Err(status) => fail(respond, &status),
        },
        Err(status) => fail(respond, &status),
    }
}

/// The head of every answer that has a body.
pub(super) fn head() -> Response<()> {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    head
}

/// Send a small answer whole. An error means that the client has left: there is nobody to tell.
fn answer_with(mut respond: SendResponse<Bytes>, answer: Bytes) {
    if let Ok(mut stream) = respond.send_response(head(), false) {
        let _ = stream.send_data(answer, false);
        let _ = stream.send_trailers(status::ok_trailers());
    }
}

/// End a call that failed before it had an answer.
pub(super) fn fail(mut respond: SendResponse<Bytes>, status: &Status) {
    let mut head = head();
    head.headers_mut().extend(status.trailers());
    let _ = respond.send_response(head, true);
}
