//! The body of a request: gathered when it is small and there soon, else passed on as it comes, behind what was gathered of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Nothing larger is an object; the application refuses more than 3 MiB.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Whoever takes longer is waited for by the application, which knows for how long.
const GATHERED_FOR: Duration = Duration::from_millis(100);

/// A body on its way to the application: what was gathered already, and what is still to come.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    gathered: VecDeque<Bytes>,
    rest: Option<Incoming>,
}

impl Outgoing {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            gathered: VecDeque::new(),
            rest: Some(body),
        }
    }

    /// Read it to its end, unless it is long or slow. Returns whether it is whole now.
    pub(super) async fn gather(&mut self) -> bool {
        if self.rest.as_ref().is_none_or(Body::is_end_stream) {
            return true;
        }
        let is_large = |hint: SizeHint| hint.lower() > GATHERED_BYTES_MAX as u64;
        if self
            .rest
            .as_ref()
            .map(Body::size_hint)
            .is_some_and(is_large)
        {
            return false;
        }
        matches!(
            tokio::time::timeout(GATHERED_FOR, self.read()).await,
            Ok(true)
        )
    }

    async fn read(&mut self) -> bool {
        let mut size = 0;
        while let Some(rest) = &mut self.rest {
            match rest.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        size += data.len();
                        self.gathered.push_back(data);
                    }
                }
                // The client is told by whoever reads on.
                Some(Err(_)) => return false,
                None => self.rest = None,
            }
            if size > GATHERED_BYTES_MAX {
                return false;
            }
        }
        true
    }

    /// All of a body that is whole.
    pub(super) fn into_bytes(mut self) -> Bytes {
        if self.gathered.len() <= 1 {
            return self.gathered.pop_front().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(self.gathered.iter().map(Bytes::len).sum());
        for part in &self.gathered {
            all.extend_from_slice(part);
        }
        all.freeze()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(part) = self.gathered.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let gathered = self.gathered.iter().map(Bytes::len).sum::<usize>() as u64;
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(gathered + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(gathered + upper);
        }
        hint
    }
}
