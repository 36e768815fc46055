//! `ModelStreamInfer`: many requests over one call, answered in their order.
//!
//! Reads messages as they come and runs up to [`CONCURRENT_MAX`] of them at once. A request that fails is answered
//! inside the stream and ends nobody else's. Knows nothing of frames.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_core::Stream;
use futures_util::stream::{self, StreamExt};
use inferd_protocol::grpc as codec;
use inferd_protocol::pb::inference as pb;
use inferd_types::{Error, ErrorKind};
use tonic::{Status, Streaming};

use super::{inference, status};
use crate::infer::Asked;
use crate::inflight::Held;
use crate::shared::{Phase, Shared};

/// Requests of one stream that run at once; the next is read when the oldest is answered. Twice the largest usual
/// batch: one stream can keep a model busy, and none can fill its queue.
const CONCURRENT_MAX: usize = 64;

type Item = Result<pb::ModelStreamInferResponse, Status>;

/// The answers of one stream.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// One call. Its parts are shared by its requests.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) asked: Arc<Asked>,
    /// What the body has counted and no message has taken yet.
    pub(super) held: Arc<Held>,
}

impl Call {
    pub(super) fn answers(self, messages: Streaming<pb::ModelInferRequest>) -> Answers {
        let cut = Arc::new(AtomicBool::new(false));
        let draining = {
            let (mut phase, cut) = (self.shared.phase.subscribe(), cut.clone());
            async move {
                // An error would mean that the gateway is gone altogether.
                let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
                cut.store(true, Relaxed);
            }
        };
        // Said after the last answer, and only where the server ended the stream.
        let farewell = async move { cut.load(Relaxed).then(|| Err(status::of(&draining_error()))) };
        let answers = messages
            .take_until(draining)
            .map(move |message| {
                // Taken when the message is here, not when its turn comes: the body goes on counting the next.
                let (call, held) = (self.clone(), self.held.split());
                async move {
                    let answer = call.one(message?).await;
                    drop(held);
                    Ok(answer)
                }
            })
            .buffered(CONCURRENT_MAX)
            .chain(stream::once(farewell).filter_map(ready));
        Box::pin(answers)
    }

    async fn one(&self, message: pb::ModelInferRequest) -> pb::ModelStreamInferResponse {
        let arrived = self.shared.clock.now();
        let asked = Asked {
            arrived,
            request_id: self.asked.request_id.clone(),
            context: self.asked.context.map(|context| self.shared.ids.sibling(context)),
            // The call's timeout is for all of it.
            timeout: self.asked.timeout.map(|timeout| (self.asked.arrived + timeout).since(arrived)),
            tenant: self.asked.tenant,
        };
        let id = message.id.clone();
        match inference::infer(&self.shared, &asked, message).await {
            Ok(message) => codec::stream_response(message, true),
            Err(error) => codec::stream_error(Some(id.as_str()).filter(|id| !id.is_empty()), &error),
        }
    }
}

fn draining_error() -> Error {
    Error::new(ErrorKind::Draining, "the server is about to stop; open a new stream, elsewhere or later")
}
