//! From a method's path and a message's bytes to an answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use prost::Message;

use super::answer::{Answer, Identity, RangeAnswer};
use super::connection::{fail, head};
use super::framing::{self, Messages, PREFIX_LEN, REQUEST_BYTES_MAX};
use super::method::{self, Method};
use super::server::Server;
use super::status::{self, Code, Result, Status};
use super::{kv, lease, maintenance, watch};

/// Answers up to this many bytes leave whole, without asking whether the client has room for them.
const WHOLE_MAX: usize = 32 << 10;

/// How much of a long answer is made at a time, in bytes.
pub(super) const PIECE: usize = 64 << 10;

/// What grpc-go says of a method that it does not know.
pub(super) fn unknown(path: &str) -> Status {
    let (service, method) = method::names(path);
    let is_known = ["KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth"]
        .iter()
        .any(|known| service.strip_prefix("etcdserverpb.") == Some(known));
    let what = if is_known {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    };
    Status::new(Code::Unimplemented, what)
}

type Later = Pin<Box<dyn Future<Output = Result<Bytes>> + Send>>;

/// What became of a call with one answer.
pub(super) enum Reply {
    Now(Bytes),
    /// The answer may be sent once this revision is published.
    After(u64, Bytes),
    /// A long range that may be sent once this revision is published. It is encoded while it is sent.
    Range(u64, RangeAnswer),
    Later(Later),
}

impl Reply {
    pub(super) fn message(answer: &impl Message) -> Result<Reply> {
        Ok(Reply::Now(framing::framed(answer)?))
    }

    /// A range of any length, none of which is newer than `revision`.
    pub(super) fn range(revision: u64, answer: RangeAnswer, identity: &Identity) -> Result<Reply> {
        let values = answer.items.iter().map(|item| item.value().len());
        if !answer.keys_only && values.sum::<usize>() > WHOLE_MAX
            || answer.items.len() > WHOLE_MAX / 64
        {
            return Ok(Reply::Range(revision, answer));
        }
        Ok(Reply::After(
            revision,
            super::answer::framed(&answer, identity)?,
        ))
    }
}

/// Carry out a call with one question and one answer.
pub(super) fn unary(method: Method, message: Bytes, server: &Arc<Server>) -> Result<Reply> {
    server.metrics().count_call(method);
    if method.is_write() && message.len() > REQUEST_BYTES_MAX {
        return Err(status::REQUEST_TOO_LARGE);
    }
    match method {
        Method::Range => kv::range(server, &framing::decode(message)?),
        Method::Put => kv::put(server, &framing::decode(message)?),
        Method::DeleteRange => kv::delete(server, &framing::decode(message)?),
        Method::Txn => kv::txn(server, &framing::decode(message)?),
        Method::Compact => kv::compact(server, framing::decode(message)?),
        Method::LeaseGrant => lease::grant(server, framing::decode(message)?),
        Method::LeaseRevoke => lease::revoke(server, framing::decode(message)?),
        Method::LeaseTimeToLive => lease::time_to_live(server, framing::decode(message)?),
        Method::LeaseLeases => lease::leases(server),
        Method::MemberList => maintenance::member_list(server),
        Method::Alarm => maintenance::alarm(server, framing::decode(message)?),
        Method::Status => maintenance::status(server),
        Method::Defragment => maintenance::defragment(server),
        Method::Hash => maintenance::hash(server),
        Method::HashKv => maintenance::hash_kv(server, framing::decode(message)?),
        Method::AuthStatus => maintenance::auth_status(server),
        Method::Authenticate => Err(status::AUTH_NOT_ENABLED),
        // grpc.health.v1: field 1 is the status, 1 is SERVING.
        Method::HealthCheck => Ok(Reply::Now(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"))),
        Method::RangeStream | Method::Watch | Method::LeaseKeepAlive | Method::Snapshot => Err(
            Status::new(Code::Internal, "a stream has more than one answer"),
        ),
    }
}

/// Carry out a call that streams, to its end.
pub(super) async fn stream(
    method: Method,
    mut body: Body,
    mut respond: SendResponse<Bytes>,
    server: Arc<Server>,
) {
    server.metrics().count_call(method);
    if method == Method::RangeStream {
        let message = std::future::poll_fn(|cx| body.poll_only(cx)).await;
        let begun = message.and_then(|message| kv::RangeStream::begin(&server, message));
        return match begun {
            Ok(range) => run(respond, |out| range.send(out, server)).await,
            Err(status) => fail(respond, &status),
        };
    }
    // Clients wait for the head of the answer before they go on.
    let Ok(stream) = respond.send_response(head(), false) else {
        return;
    };
    let mut out = Out { stream };
    let ended = match method {
        Method::Watch => watch::serve(body, &mut out, server).await,
        Method::LeaseKeepAlive => lease::keep_alive(body, &mut out, server).await,
        _ => maintenance::snapshot(&mut out, server).await,
    };
    out.end(ended);
}

async fn run<'a, F>(mut respond: SendResponse<Bytes>, send: impl FnOnce(Out) -> F)
where
    F: Future<Output = (Out, Ended)> + 'a,
{
    if let Ok(stream) = respond.send_response(head(), false) {
        let (out, ended) = send(Out { stream }).await;
        out.end(ended);
    }
}

/// Send a long range in pieces that are made when the client has room for them: memory stays small, and nothing is copied twice.
pub(super) async fn send_range(
    answer: RangeAnswer,
    respond: SendResponse<Bytes>,
    identity: Identity,
) {
    run(respond, |mut out| async move {
        let ended = out.send_range(&answer, &identity).await;
        (out, ended)
    })
    .await;
}

/// How a stream ended: the client has left, or we say so.
pub(super) type Ended = std::result::Result<(), End>;

#[derive(Debug)]
pub(super) enum End {
    ClientLeft,
    Failed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        End::Failed(status)
    }
}

impl From<h2::Error> for End {
    fn from(_: h2::Error) -> Self {
        End::ClientLeft
    }
}

/// The way out of a streaming call.
#[derive(Debug)]
pub(super) struct Out {
    stream: SendStream<Bytes>,
}

impl Out {
    /// Send a framed message, or a part of one, as the client has room for it.
    pub(super) async fn send(&mut self, mut bytes: Bytes) -> Ended {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = std::future::poll_fn(|cx| self.stream.poll_capacity(cx)).await;
            let room = room.ok_or(End::ClientLeft)??;
            let piece = bytes.split_to(room.min(bytes.len()));
            self.stream.send_data(piece, false)?;
        }
        Ok(())
    }

    async fn send_range(&mut self, answer: &RangeAnswer, identity: &Identity) -> Ended {
        let mut piece = BytesMut::with_capacity(PIECE + (PIECE >> 3));
        framing::put_prefix(&mut piece, answer.len(Some(identity)))?;
        answer.put_header(&mut piece, Some(identity));
        for item in &answer.items {
            if piece.len() + answer.item_len(item) > PIECE && piece.len() > PREFIX_LEN {
                let full = std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE));
                self.send(full.freeze()).await?;
            }
            answer.put_item(&mut piece, item);
        }
        answer.put_tail(&mut piece);
        self.send(piece.freeze()).await
    }

    pub(super) fn end(mut self, ended: Ended) {
        let trailers = match ended {
            Ok(()) => status::ok_trailers(),
            Err(End::Failed(status)) => status.trailers(),
            Err(End::ClientLeft) => return,
        };
        let _ = self.stream.send_trailers(trailers);
    }
}

/// The messages of a call's body.
#[derive(Debug)]
pub(super) struct Body {
    stream: RecvStream,
    messages: Messages,
    has_ended: bool,
}

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Body {
            stream,
            messages: Messages::default(),
            has_ended: false,
        }
    }

    /// The one message of a body, once the body has ended.
    pub(super) fn poll_only(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        while !self.has_ended {
            ready!(self.poll_chunk(cx))?;
        }
        let missing = || Status::new(Code::Internal, "grpc: the request has no message");
        Poll::Ready(
            self.messages
                .next()
                .and_then(|message| message.ok_or_else(missing)),
        )
    }

    /// The next message of a stream, None when the client has no more to say.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if let Some(message) = self.messages.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_chunk(cx))?;
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let left = |_| Status::new(Code::Unavailable, "the client has left");
        match ready!(self.stream.poll_data(cx)) {
            Some(chunk) => {
                let chunk = chunk.map_err(left)?;
                // Room for as much again; it fails only when the stream is over.
                let _ = self.stream.flow_control().release_capacity(chunk.len());
                self.messages.push(chunk);
                self.has_ended = self.stream.is_end_stream();
            }
            None => self.has_ended = true,
        }
        Poll::Ready(Ok(()))
    }
}
