//! A socket whose writes are gathered: frames pile up until the connection has nothing more to do, and leave in one system call.
//!
//! HTTP/2 writes and flushes frame by frame. With many calls on one connection that would cost a system call, and a packet, each;
//! so flushing does nothing here, and the connection's task calls `poll_drain` before it goes to sleep.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::store::lock;

/// What may pile up, in bytes. Beyond it writing waits for the peer.
const GATHERED_MAX: usize = 128 << 10;

/// What a quiet connection keeps of its buffer, in bytes.
const KEPT: usize = 16 << 10;

/// Clones share the socket: one for HTTP/2, one to drain it.
#[derive(Debug)]
pub(super) struct Socket<S>(Arc<Mutex<Gathered<S>>>);

impl<S> Clone for Socket<S> {
    fn clone(&self) -> Self {
        Socket(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Gathered<S> {
    stream: S,
    out: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(stream: S) -> Self {
        Socket(Arc::new(Mutex::new(Gathered {
            stream,
            out: Vec::new(),
            written: 0,
        })))
    }

    /// Write what was gathered.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_drain(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.out.clear();
        self.out.shrink_to(KEPT);
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() < GATHERED_MAX {
            return Poll::Ready(Ok(()));
        }
        self.poll_drain(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_room(cx))?;
        gathered.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_room(cx))?;
        for part in parts {
            gathered.out.extend_from_slice(part);
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_drain(cx))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}
