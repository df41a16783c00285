//! The body of an answer: our own, a read from the store, or the application's, passed on piece by piece as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::inbox::Delivered;
use super::piece::Piece;
use super::pool::Lease;
use super::reads::{List, Watch};
use super::stats::Gauge;

#[derive(Debug)]
pub(super) enum Reply {
    Own(Full<Bytes>),
    List(List),
    Watch(Watch),
    Pieces(Delivered),
    Upstream(Streamed),
}

/// An answer that ends before it is complete.
#[derive(Debug, thiserror::Error)]
#[error("the application ended its answer early")]
pub(super) struct Broken;

#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
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
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map_ok(|frame| frame.map_data(Piece::from))
                .map_err(|never| match never {}),
            Self::List(list) => Poll::Ready(list.next_piece().map(|piece| Ok(Frame::data(piece)))),
            Self::Watch(watch) => watch
                .poll_lines(context)
                .map(|lines| lines.map(|lines| Ok(Frame::data(lines.into())))),
            Self::Pieces(delivered) => delivered
                .poll_piece(context)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece?.into())))),
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
                    .map_ok(|frame| frame.map_data(Piece::from))
                    .map_err(BodyError::from)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::List(list) => list.is_done(),
            Self::Watch(_) => false,
            Self::Pieces(delivered) => delivered.is_done(),
            Self::Upstream(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::List(list) => list
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Watch(_) | Self::Pieces(_) => SizeHint::default(),
            Self::Upstream(streamed) => streamed.body.size_hint(),
        }
    }
}
