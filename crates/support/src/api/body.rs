//! An answer's body: whole or cut off, at once or in slow chunks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::gauge::InFlight;

/// Bytes handed to the connection at once. A client that does not read keeps the rest, and so its place in
/// the gauge.
const CHUNK: usize = 64 * 1024;

/// How a body ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    Whole,
    /// The connection is closed before all of the announced length was sent.
    Short,
    Reset,
}

pub(super) struct AnswerBody {
    rest: Bytes,
    end: End,
    slow: Option<(usize, Duration)>,
    pause: Option<Pin<Box<Sleep>>>,
    flushed: bool,
    /// Dropped with the body, which is when the request leaves the gauge.
    _in_flight: Option<InFlight>,
}

impl AnswerBody {
    pub(super) fn new(
        rest: Bytes,
        end: End,
        slow: Option<(usize, Duration)>,
        in_flight: Option<InFlight>,
    ) -> AnswerBody {
        AnswerBody { rest, end, slow, pause: None, flushed: false, _in_flight: in_flight }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.rest.is_empty() {
            if self.end != End::Whole && !self.flushed {
                // When a body ends too early, hyper throws away what it has not written yet. It writes
                // whenever a body is pending, so be pending once.
                self.flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready((self.end == End::Reset).then(|| Err(io::ErrorKind::ConnectionReset.into())));
        }
        let (bytes, pause) = self.slow.unwrap_or((CHUNK, Duration::ZERO));
        let bytes = bytes.min(self.rest.len());
        let chunk = self.rest.split_to(bytes);
        if !self.rest.is_empty() && !pause.is_zero() {
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.end == End::Whole
    }

    /// Only a body that comes whole and at once tells its length; hyper sends the others as chunks, or by the
    /// `content-length` that they claim.
    fn size_hint(&self) -> SizeHint {
        match (self.end, self.slow) {
            (End::Whole, None) => SizeHint::with_exact(self.rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn every_end_is_reached_after_the_same_bytes() {
        let slow = Some((2, Duration::from_secs(1)));
        for (end, slow) in [(End::Whole, None), (End::Short, None), (End::Reset, None), (End::Reset, slow)] {
            let mut body = AnswerBody::new(Bytes::from_static(b"hello"), end, slow, None);
            // A task of its own is polled again only if it was woken; one within a timeout would be polled
            // anyway.
            let reading = tokio::spawn(async move {
                let mut received = Vec::new();
                loop {
                    match body.frame().await {
                        Some(Ok(frame)) => received.extend(frame.into_data().expect("only data")),
                        Some(Err(error)) => break (received, Err(error.kind())),
                        None => break (received, Ok(())),
                    }
                }
            });
            let read =
                tokio::time::timeout(Duration::from_secs(5), reading).await.expect("the task was woken");
            let ended = if end == End::Reset { Err(io::ErrorKind::ConnectionReset) } else { Ok(()) };
            assert_eq!(read.expect("no panic"), (b"hello".to_vec(), ended));
        }
    }
}
