//! `ModelStreamInfer`: many requests over one call, each with one response or any number.
//!
//! Reads messages as they come and runs up to [`CONCURRENT_MAX`] of them at once. Those with one response are answered
//! in their order; the responses of decoupled models come between them as they are made. A request that fails is
//! answered inside the stream and ends no other. Knows nothing of frames.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::{self, SelectAll, StreamExt};
use http::HeaderMap;
use inferd_protocol::grpc as protocol;
use inferd_protocol::pb::inference as pb;
use inferd_types::{Error, ErrorKind, Result};
use tonic::{Status, Streaming};

use super::message::{MessageForm, non_empty};
use super::status;
use crate::admit::caller::{Caller, Rejected};
use crate::admit::inflight::HeldBytes;
use crate::infer::inference::Inference;
use crate::infer::record::{find_or_record, record};
use crate::infer::stream::InferenceStream;
use crate::infer::target::Target;
use crate::lifecycle::{Lifecycle, reached};
use crate::server_state::ServerState;

/// Requests of one stream that run at once; the next is read when the oldest is answered. Twice the largest usual
/// batch: one stream can keep a model busy, and none can fill its queue.
const CONCURRENT_MAX: usize = 64;

type Item = std::result::Result<pb::ModelStreamInferResponse, Status>;
type Items = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// The answers of one stream.
pub(super) type StreamAnswers = Items;

/// One call. Its parts are shared by its requests.
#[derive(Clone)]
pub(super) struct StreamCall {
    pub(super) server: Arc<ServerState>,
    pub(super) caller: Arc<Caller>,
    /// The call's metadata.
    pub(super) headers: Arc<HeaderMap>,
    /// What the body has counted and no message has taken yet.
    pub(super) held: Arc<HeldBytes>,
}

/// What one message gets.
enum MessageAnswer {
    One(pb::ModelStreamInferResponse),
    Many(Items),
}

impl StreamCall {
    pub(super) fn answers(self, messages: Streaming<pb::ModelInferRequest>) -> StreamAnswers {
        let cut = Arc::new(AtomicBool::new(false));
        let draining = {
            let (mut lifecycle, cut) = (self.server.lifecycle.subscribe(), cut.clone());
            async move {
                reached(&mut lifecycle, Lifecycle::Draining).await;
                cut.store(true, Relaxed);
            }
        };
        // After the last answer, and only where the server ended the stream.
        let end = async move { cut.load(Relaxed).then(|| Err(status::of(&draining_error()))) };
        let answers = messages
            .take_until(draining)
            .map(move |message| {
                // Taken when the message has come, not when its turn comes: the body goes on counting the next.
                let (call, held) = (self.clone(), self.held.split());
                async move { Ok(call.run(message?, held).await) }
            })
            .buffered(CONCURRENT_MAX);
        let answers = Interleaved { answers: Some(Box::pin(answers)), many: SelectAll::new(), turn: false }
            .chain(stream::once(end).filter_map(ready));
        Box::pin(answers)
    }

    async fn run(&self, message: pb::ModelInferRequest, held: HeldBytes) -> MessageAnswer {
        let id = message.id.clone();
        match self.answer(message, held).await {
            Ok(answer) => answer,
            Err(error) => MessageAnswer::One(protocol::stream_error(non_empty(&id), &error)),
        }
    }

    async fn answer(&self, message: pb::ModelInferRequest, held: HeldBytes) -> Result<MessageAnswer> {
        let server = &self.server;
        let (name, version) = (&message.model_name, non_empty(&message.model_version));
        let caller = match server.admission.admit_message(&self.caller, server.clock.now()) {
            Ok(caller) => caller,
            Err(rejected) => {
                let Rejected { caller, error } = *rejected;
                let target = Target::find(server, name, version).ok();
                record(server, &caller, target.as_ref(), Err(&error));
                return Err(error);
            }
        };
        let target = find_or_record(server, &caller, name, version)?;
        let inference = Inference { server, target: &target, caller: &caller, headers: &self.headers };
        if target.signature.decoupled {
            let running = Box::pin(InferenceStream::start(&inference, MessageForm, message)).await?;
            return Ok(MessageAnswer::Many(Box::pin(stream::unfold(Some((running, held)), next))));
        }
        let answer = inference.answer(MessageForm, message).await?;
        Ok(MessageAnswer::One(protocol::stream_response(answer, true)))
    }
}

/// A request of a decoupled model that runs, with the bytes of its message.
type Running = (InferenceStream<MessageForm>, HeldBytes);

async fn next(running: Option<Running>) -> Option<(Item, Option<Running>)> {
    let (mut running, held) = running?;
    match running.next().await {
        Some(Ok(answer)) => Some((Ok(protocol::stream_response(answer, false)), Some((running, held)))),
        Some(Err(error)) => Some((Ok(protocol::stream_error(running.id.as_deref(), &error)), None)),
        None => {
            let last = protocol::empty_final_response(running.target.name(), running.id.as_deref());
            running.options.empty_final_response.then_some((Ok(last), None))
        }
    }
}

/// Answers in their order, and between them the responses of those that have many. These must not wait for their turn:
/// one that holds a replica while it waits could wait for one that needs the replica.
struct Interleaved<S> {
    /// `None`: there are no more.
    answers: Option<S>,
    many: SelectAll<Items>,
    /// Alternates, so that neither kind starves the other.
    turn: bool,
}

impl<S: Stream<Item = std::result::Result<MessageAnswer, Status>> + Unpin> Stream for Interleaved<S> {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        this.turn = !this.turn;
        if this.turn
            && !this.many.is_empty()
            && let Poll::Ready(Some(item)) = this.many.poll_next_unpin(context)
        {
            return Poll::Ready(Some(item));
        }
        loop {
            while this.many.len() < CONCURRENT_MAX
                && let Some(answers) = &mut this.answers
            {
                match answers.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(MessageAnswer::One(message)))) => {
                        return Poll::Ready(Some(Ok(message)));
                    }
                    Poll::Ready(Some(Ok(MessageAnswer::Many(responses)))) => this.many.push(responses),
                    Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                    Poll::Ready(None) => this.answers = None,
                    Poll::Pending => break,
                }
            }
            let full = this.many.len() >= CONCURRENT_MAX;
            match this.many.poll_next_unpin(context) {
                Poll::Ready(Some(item)) => return Poll::Ready(Some(item)),
                Poll::Ready(None) if this.answers.is_none() => return Poll::Ready(None),
                // Those that ended have made room for answers that were not polled.
                _ if full && this.many.len() < CONCURRENT_MAX => {}
                _ => return Poll::Pending,
            }
        }
    }
}

fn draining_error() -> Error {
    Error::new(ErrorKind::Draining, "shutting down; open a new stream on another instance, or later")
}
