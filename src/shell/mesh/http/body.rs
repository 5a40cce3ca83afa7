//! The bodies of requests and answers on their way through.

use super::pool::Lease;
use crate::shell::mesh::table::{Counted, Meter};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;

/// A request's, towards a replica.
pub enum Outgoing {
    /// All here: it can be sent again.
    Whole(Option<Bytes>),
    /// It comes as the client sends it, once.
    Stream { body: Incoming, meter: Meter, all_sent: Arc<AtomicBool> },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream { body, meter, all_sent } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref) {
                    meter.sent(data.len());
                }
                if frame.is_none() || body.is_end_stream() {
                    all_sent.store(true, Ordering::Relaxed);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream { body, .. } => body.size_hint(),
        }
    }
}

/// An answer's, towards the client.
pub enum Answer {
    /// Our own words.
    Ours(Option<Bytes>),
    Passed(Passed),
}

/// A replica's answer; the request is open until it has passed whole, or is given up.
pub struct Passed {
    body: Incoming,
    open: Option<(Counted, Lease, OwnedSemaphorePermit)>,
}

impl Passed {
    /// `lease` goes back to the pool when the answer has passed.
    pub fn new(body: Incoming, counted: Counted, lease: Lease, place: OwnedSemaphorePermit) -> Self {
        let mut passed = Self { body, open: Some((counted, lease, place)) };
        passed.look();
        passed
    }

    fn look(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some((counted, lease, place)) = self.open.take() {
            drop((counted, place));
            lease.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Ours(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => {
                let frame = ready!(Pin::new(&mut passed.body).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let (Some(data), Some((counted, ..))) = (frame.data_ref(), &passed.open) {
                            counted.touch();
                            counted.received(data.len());
                        }
                        passed.look();
                    }
                    // Its connection is of no more use.
                    Some(Err(_)) => drop(passed.open.take()),
                    None => passed.end(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(bytes) => bytes.is_none(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}
