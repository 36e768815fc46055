//! Reads request bodies within the limits, and discards those that nobody reads.
//!
//! Reads frames from hyper, hands on one buffer; counts every byte in [`HeldBytes`] before it is kept.
//! Knows nothing of what a body means.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use inferd_types::settings::GatewaySettings;
use inferd_types::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use super::inflight::HeldBytes;

/// How much of a body that nobody reads is received and thrown away, and for how long: a client that still sends
/// would otherwise meet a closed socket and never see the answer.
const DISCARD_MAX_BYTES: usize = 64 << 20;
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// How hyper delivers a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// HTTP/1.1: it begins to read only when polled, so the first poll is always pending and says nothing
    /// about the client. A timer for that would be set and dropped with every request.
    OnDemand,
    /// HTTP/2: it reads ahead.
    Eager,
}

/// The body of a request. Dropped before it is read to its end, the rest is discarded in the background.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` once there is nothing left to read or to discard.
    incoming: Option<Incoming>,
    delivery: Delivery,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, delivery: Delivery) -> RequestBody {
        RequestBody { incoming: Some(incoming), delivery }
    }

    /// Reads it whole.
    ///
    /// # Errors
    /// `TooLarge` over `body_max_bytes`, `Overloaded` over `inflight_max_bytes`, `InvalidInput` where it is cut short
    /// or takes longer than `body_timeout_s`.
    pub(crate) async fn read(self, held: &HeldBytes, settings: &GatewaySettings) -> Result<Bytes> {
        let hint = self.incoming.as_ref().and_then(|incoming| incoming.size_hint().exact());
        let exact = hint.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut reader = Reader { body: self, pending: 0, slow: None, settings };
        if let Some(exact) = exact {
            // Known beforehand: refused before a byte of it is kept.
            reader.check(exact)?;
            held.at_least(exact)?;
        }
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        let mut read = 0;
        // hyper signals the end of a body in a further turn; where the length is known there is no need to wait for it.
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
        reader.body.incoming = None;
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            // Out of the request's way: the answer is sent at once, the connection is closed where this ends early.
            runtime.spawn(discard(incoming));
        }
    }
}

async fn discard(mut incoming: Incoming) {
    let receiving = async {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_MAX, receiving).await;
}

struct Reader<'a> {
    body: RequestBody,
    pending: u32,
    slow: Option<Pin<Box<Sleep>>>,
    settings: &'a GatewaySettings,
}

impl Reader<'_> {
    fn check(&self, bytes: usize) -> Result<()> {
        let max = self.settings.body_max_bytes;
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
        let Some(incoming) = &mut self.body.incoming else { return Poll::Ready(Ok(None)) };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) {
            return Poll::Ready(frame.transpose().map_err(|_| cut_short()));
        }
        self.pending += 1;
        if self.pending > 1 || self.body.delivery == Delivery::Eager {
            let limit = self.settings.body_timeout_s.0;
            let slow = self.slow.get_or_insert_with(|| Box::pin(sleep(limit)));
            if slow.as_mut().poll(context).is_ready() {
                // Nothing is discarded: a client this slow is not waited for any longer.
                self.body.incoming = None;
                return Poll::Ready(Err(too_slow(limit)));
            }
        }
        Poll::Pending
    }
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

fn cut_short() -> Error {
    Error::new(ErrorKind::InvalidInput, "the body ended before it was whole; send it again")
}
