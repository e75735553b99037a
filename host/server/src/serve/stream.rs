//! The byte stream of a connection: detects a client that does not read, and closes so that the
//! last response arrives.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::Activity;
use crate::limits::{LINGER_TIMEOUT, MAX_LINGER_BYTES, MIN_PROGRESS_BYTES};

/// A bidirectional byte stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream that reports its progress.
pub(super) struct Watched {
    io: Box<dyn Io>,
    activity: Arc<Activity>,
    send_time: Duration,
    /// Timeout while the client does not read.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes that it has read since.
    read: usize,
    /// Timeout after the stream has been shut down.
    lingering: Option<Pin<Box<Sleep>>>,
    lingered: usize,
}

impl Watched {
    pub(super) fn new(io: Box<dyn Io>, activity: Arc<Activity>, send_time: Duration) -> Self {
        Watched { io, activity, send_time, stalled: None, read: 0, lingering: None, lingered: 0 }
    }

    /// Result of a write: `Pending` until the client exceeds the send time, then an error.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write {
            Poll::Ready(Ok(bytes)) => {
                self.read = self.read.saturating_add(bytes);
                if self.read >= MIN_PROGRESS_BYTES && self.stalled.take().is_some() {
                    self.activity.set_blocked(false);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.stall(context))?;
                Poll::Pending
            }
        }
    }

    /// Ready with an error when the client has read too little in the send time.
    fn stall(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stalled.is_none() {
            self.read = 0;
            self.activity.set_blocked(true);
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.send_time)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its response")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0
            && let Err(reason) = self.activity.read(bytes)
        {
            return Poll::Ready(Err(io::Error::other(reason)));
        }
        if read.is_pending() {
            self.activity.mark_read();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.written(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(context) {
            // All bytes are written.
            Poll::Ready(Ok(())) => {
                if self.stalled.take().is_some() {
                    self.activity.set_blocked(false);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.stall(context))?;
                Poll::Pending
            }
        }
    }

    /// Shuts down writing, and reads until the client closes too, or until a linger limit is
    /// reached.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            match Pin::new(&mut self.io).poll_shutdown(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.stall(context))?;
                    return Poll::Pending;
                }
            }
            let end = Instant::now() + LINGER_TIMEOUT;
            self.lingering = Some(Box::pin(tokio::time::sleep_until(end)));
        }
        let mut bytes = [0; 4_096];
        while self.lingered < MAX_LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.io).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
                Poll::Ready(Ok(())) => self.lingered += buffer.filled().len(),
                Poll::Ready(Err(_)) => break,
                Poll::Pending => {
                    if let Some(timer) = &mut self.lingering {
                        ready!(timer.as_mut().poll(context));
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
