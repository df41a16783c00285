//! The body of an answer: our own, a read from the store, or the application's, passed on frame by frame as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::Lease;
use super::reads::{List, Watch};
use super::stats::Gauge;

#[derive(Debug)]
pub(super) enum Reply {
    Own(Full<Bytes>),
    List(List),
    Watch(Watch),
    Upstream(Streamed),
}

/// Frames from the application. The lease goes back to the pool at the end of the body; dropped before, it cuts the connection,
/// which is how the application learns that the client has gone.
#[derive(Debug)]
pub(super) struct Streamed {
    body: Incoming,
    lease: Option<Lease>,
    _active: Gauge,
}

impl Streamed {
    pub(super) fn new(body: Incoming, lease: Lease, active: Gauge) -> Self {
        let mut streamed = Self {
            body,
            lease: Some(lease),
            _active: active,
        };
        streamed.release_at_end();
        streamed
    }

    fn release_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.release();
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::List(list) => Poll::Ready(list.next_piece().map(|piece| Ok(Frame::data(piece)))),
            Self::Watch(watch) => watch
                .poll_lines(context)
                .map(|lines| lines.map(|lines| Ok(Frame::data(lines)))),
            Self::Upstream(streamed) => {
                let polled = Pin::new(&mut streamed.body).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Ok(_))) => streamed.release_at_end(),
                    Poll::Ready(None) => {
                        if let Some(lease) = streamed.lease.take() {
                            lease.release();
                        }
                    }
                    Poll::Ready(Some(Err(_))) => streamed.lease = None,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::List(list) => list.is_done(),
            Self::Watch(_) => false,
            Self::Upstream(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::List(list) => list
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Watch(_) => SizeHint::default(),
            Self::Upstream(streamed) => streamed.body.size_hint(),
        }
    }
}
