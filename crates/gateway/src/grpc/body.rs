//! The body of a call on its way to tonic: within the limits, and counted.
//!
//! Reads frames from hyper, follows the length before each message, hands the frames on as they are.
//! Knows nothing of what a message means.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use inferd_types::Error;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::status;
use crate::admit::body::{too_large, too_slow};
use crate::admit::inflight::HeldBytes;
use crate::infer::record::count_refusal;
use crate::server_state::ServerState;

/// A flag and four bytes of length stand before each message.
const PREFIX_BYTES: usize = 5;

#[derive(Debug)]
pub(super) struct CallBody {
    inner: Incoming,
    server: ServerRef,
    held: Arc<HeldBytes>,
    framing: Framing,
    /// Whether the stream may rest between messages (a unary call may not).
    lasting: bool,
    slow: Option<Pin<Box<Sleep>>>,
}

/// `ServerState` without its content, for `Debug`.
struct ServerRef(Arc<ServerState>);

impl std::fmt::Debug for ServerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerState")
    }
}

/// The position in the sequence of messages.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Framing {
    /// Follows `data`. The error is the length of the first message in it that is longer than `max`.
    fn follow(&mut self, mut data: &[u8], max: usize) -> Result<(), usize> {
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data = &data[taken..];
                continue;
            }
            let taken = (PREFIX_BYTES - self.prefix_len).min(data.len());
            self.prefix[self.prefix_len..self.prefix_len + taken].copy_from_slice(&data[..taken]);
            self.prefix_len += taken;
            data = &data[taken..];
            if self.prefix_len == PREFIX_BYTES {
                let [_flag, length @ ..] = self.prefix;
                self.prefix_len = 0;
                self.left = u32::from_be_bytes(length) as usize;
                if self.left > max {
                    return Err(self.left);
                }
            }
        }
        Ok(())
    }

    fn is_between_messages(&self) -> bool {
        self.left == 0 && self.prefix_len == 0
    }
}

impl CallBody {
    pub(super) fn new(
        inner: Incoming,
        server: &Arc<ServerState>,
        held: Arc<HeldBytes>,
        lasting: bool,
    ) -> CallBody {
        CallBody {
            inner,
            server: ServerRef(server.clone()),
            held,
            framing: Framing::default(),
            lasting,
            slow: None,
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Error> {
        let max = self.server.0.settings.body_max_bytes;
        self.framing.follow(data, max).map_err(|_| too_large(max))?;
        self.held.add(data.len())
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            let Some(frame) = frame else { return Poll::Ready(None) };
            // The client reset the stream or disconnected: tonic ends the call without an answer.
            let Ok(frame) = frame else {
                return Poll::Ready(Some(Err(Status::cancelled("the call ended early"))));
            };
            if let Some(data) = frame.data_ref()
                && let Err(error) = this.take(data)
            {
                count_refusal(&this.server.0, &error);
                return Poll::Ready(Some(Err(status::of(&error))));
            }
            if this.framing.is_between_messages() {
                this.slow = None;
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if !this.lasting || !this.framing.is_between_messages() {
            let limit = this.server.0.settings.body_timeout_s.0;
            let slow = this.slow.get_or_insert_with(|| Box::pin(sleep(limit)));
            if slow.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(status::of(&too_slow(limit)))));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let wire = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2], b"xy"].concat();
        for size in 1..wire.len() {
            let mut framing = Framing::default();
            for piece in wire.chunks(size) {
                framing.follow(piece, 3).unwrap();
            }
            assert!(framing.is_between_messages());
            let mut framing = Framing::default();
            let cut: Result<Vec<()>, usize> =
                wire.chunks(size).map(|piece| framing.follow(piece, 2)).collect();
            assert_eq!(cut, Err(3));
        }
    }
}
