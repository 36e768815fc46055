//! Reads request bodies, within the limits, and lets go of those that nobody wants.
//!
//! Reads frames from hyper, hands on one buffer; counts every byte in [`Held`] before it is kept.
//! Knows nothing of what a body means.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use inferd_types::{Error, ErrorKind, Result};
use tokio::time::{Sleep, sleep};

use crate::admit::inflight::Held;
use crate::state::Shared;

/// Work on bodies larger than this leaves the reactor, so that one large request never holds up the small ones.
pub(crate) const LARGE_BYTES: usize = 256 * 1024;

/// What is read and thrown away of a body that was refused before it was read, and for how long: a client that
/// still sends would else meet a closed socket and never see the answer.
const DISCARD_MAX_BYTES: usize = 64 << 20;
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// Reads `body` whole. `hint` is how hyper delivers it; see [`Delivery`].
///
/// # Errors
/// `TooLarge` over `body_max_bytes`, `Overloaded` over `inflight_max_bytes`, `InvalidInput` where it is cut short or
/// takes longer than `body_timeout_s`.
pub(crate) async fn read(body: Incoming, delivery: Delivery, held: &Held, shared: &Shared) -> Result<Bytes> {
    let exact = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut reader = Reader { body: Some(body), pending: 0, delivery, slow: None, shared };
    if let Some(exact) = exact {
        // Known beforehand: refused before a byte of it is kept.
        reader.check(exact)?;
        held.at_least(exact)?;
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut read = 0;
    // hyper tells the end of a body in a further turn; where the length is known there is no need to wait for it.
    while exact != Some(read) {
        let Some(data) = reader.next().await? else { break };
        read += data.len();
        reader.check(read)?;
        held.at_least(read)?;
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(exact.unwrap_or(read));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    reader.body = None;
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// How hyper delivers a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// HTTP/1.1: it begins to read only when asked, so the first answer is always *not yet* and says nothing
    /// about the client. A timer for that would be set and dropped with every request.
    WhenAsked,
    /// HTTP/2: as it comes.
    AsItComes,
}

struct Reader<'a> {
    body: Option<Incoming>,
    pending: u32,
    delivery: Delivery,
    slow: Option<Pin<Box<Sleep>>>,
    shared: &'a Shared,
}

impl Reader<'_> {
    fn check(&self, bytes: usize) -> Result<()> {
        let max = self.shared.settings.body_max_bytes;
        if bytes <= max { Ok(()) } else { Err(too_large(max)) }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(frame) = poll_fn(|context| self.poll_frame(context)).await? else { return Ok(None) };
            // Anything else is trailers, which mean nothing here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame.transpose().map_err(|_| cut_short()));
        }
        self.pending += 1;
        if self.pending > 1 || self.delivery == Delivery::AsItComes {
            let limit = self.shared.settings.body_timeout_s.0;
            let slow = self.slow.get_or_insert_with(|| Box::pin(sleep(limit)));
            if slow.as_mut().poll(context).is_ready() {
                // A client this slow is not waited for any longer: nothing is discarded.
                self.body = None;
                return Poll::Ready(Err(too_slow(limit)));
            }
        }
        Poll::Pending
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            discard(body);
        }
    }
}

/// Reads and throws away what the client still sends, in the background and within bounds.
pub(crate) fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    let within = tokio::time::timeout(DISCARD_MAX, async move {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    });
    // Out of the request's way: the answer is sent at once, the connection is closed where this ends early.
    tokio::spawn(within);
}

/// Runs `work` where it may take long.
pub(crate) async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "the server failed to read or write a large body")
            .with_detail(error.to_string())
    })
}

pub(crate) fn too_large(max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the body is larger than body_max_bytes = {max}; send less at once, or raise body_max_bytes"),
    )
}

pub(crate) fn too_slow(limit: Duration) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "the body did not come within body_timeout_s = {limit:?}; send it faster, or raise body_timeout_s"
        ),
    )
}

pub(crate) fn cut_short() -> Error {
    Error::new(ErrorKind::InvalidInput, "the body ended before it was whole; send it again")
}
