//! `ModelStreamInfer`: many requests over one call, each with one response or any number.
//!
//! Reads messages as they come and runs up to [`CONCURRENT_MAX`] of them at once. Those with one response are answered
//! in their order; the responses of decoupled models come between them as they are made. A request that fails is
//! answered inside the stream and ends nobody else's. Knows nothing of frames.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::{self, SelectAll, StreamExt};
use http::HeaderMap;
use inferd_protocol::RequestOptions;
use inferd_protocol::grpc as codec;
use inferd_protocol::pb::inference as pb;
use inferd_types::{Error, ErrorKind};
use tonic::{Status, Streaming};

use super::{inference, status};
use crate::admit::inflight::Held;
use crate::infer::{Asked, Running, Target, finished};
use crate::observe::spans::Answered;
use crate::state::{Phase, Shared};

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
    /// The call's metadata.
    pub(super) headers: Arc<HeaderMap>,
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
                    let answer = call.run(message?, &held).await;
                    Ok(answer)
                }
            })
            .buffered(CONCURRENT_MAX);
        let answers = Interleaved { answers: Some(Box::pin(answers)), many: SelectAll::new(), turn: false }
            .chain(stream::once(farewell).filter_map(ready));
        Box::pin(answers)
    }

    async fn run(&self, message: pb::ModelInferRequest, held: &Held) -> Answer {
        let arrived = self.shared.clock.now();
        let mut asked = Asked {
            arrived,
            request_id: self.asked.request_id.clone(),
            context: self.asked.context.map(|context| self.shared.ids.sibling(context)),
            // The call's timeout is for all of it.
            timeout: self.asked.timeout.map(|timeout| (self.asked.arrived + timeout).since(arrived)),
            tenant: self.asked.tenant,
            headers: None,
        };
        let id = message.id.clone();
        let found = inference::find(&self.shared, &asked, &message);
        if let Ok(target) = &found
            && target.model.wants_context()
        {
            asked.headers = Some(self.headers.clone());
        }
        let answered = match found {
            Ok(target) if target.signature.decoupled => {
                return Box::pin(Many::begin(self.shared.clone(), asked, target, message, held)).await;
            }
            Ok(target) => inference::infer_on(&self.shared, &asked, target, message).await,
            Err(error) => Err(error),
        };
        Answer::One(match answered {
            Ok(message) => codec::stream_response(message, true),
            Err(error) => codec::stream_error(named(&id), &error),
        })
    }
}

fn named(id: &str) -> Option<&str> {
    Some(id).filter(|id| !id.is_empty())
}

/// What one message gets.
enum Answer {
    One(pb::ModelStreamInferResponse),
    Many(Pin<Box<dyn Stream<Item = Item> + Send>>),
}

/// One request of a decoupled model that runs.
struct Many {
    shared: Arc<Shared>,
    asked: Asked,
    target: Target,
    running: Running,
    id: Option<String>,
    options: RequestOptions,
    /// Of the latest response.
    last: Option<Answered>,
    _held: Held,
}

impl Many {
    async fn begin(
        shared: Arc<Shared>,
        asked: Asked,
        target: Target,
        message: pb::ModelInferRequest,
        held: &Held,
    ) -> Answer {
        let id = message.id.clone();
        match inference::begin(&shared, &asked, &target, message, held).await {
            Ok((running, id, options)) => {
                let many =
                    Many { shared, asked, target, running, id, options, last: None, _held: held.split() };
                Answer::Many(Box::pin(stream::unfold(Some(many), Many::next)))
            }
            Err(error) => {
                finished(&shared, &asked, Some(&target), Err(&error));
                Answer::One(codec::stream_error(named(&id), &error))
            }
        }
    }

    async fn next(many: Option<Many>) -> Option<(Item, Option<Many>)> {
        let mut many = many?;
        let error = match many.running.next(&many.target).await {
            Some(Ok(mut response)) => {
                let (signature, id) = (&many.target.signature, many.id.as_deref());
                let message =
                    codec::encode_infer(many.target.name(), id, signature, &many.options, &response);
                match message {
                    Ok(message) => {
                        many.last = Some(Answered::of(&mut response));
                        return Some((Ok(codec::stream_response(message, false)), Some(many)));
                    }
                    Err(error) => error,
                }
            }
            Some(Err(error)) => error,
            None => {
                let none = Answered { timing: Default::default(), steps: Vec::new() };
                let answered = many.last.take().unwrap_or(none);
                finished(&many.shared, &many.asked, Some(&many.target), Ok(&answered));
                let wanted = many.options.empty_final_response;
                let last = codec::empty_final_response(many.target.name(), many.id.as_deref());
                return wanted.then_some((Ok(last), None));
            }
        };
        finished(&many.shared, &many.asked, Some(&many.target), Err(&error));
        Some((Ok(codec::stream_error(many.id.as_deref(), &error)), None))
    }
}

/// Answers in their order, and between them the responses of those that have many. These must not wait for their turn:
/// one that holds a replica while it waits could wait for one that needs the replica.
struct Interleaved<S> {
    /// `None`: there are no more.
    answers: Option<S>,
    many: SelectAll<Pin<Box<dyn Stream<Item = Item> + Send>>>,
    /// Whose turn it is, so that neither keeps the other out.
    turn: bool,
}

impl<S: Stream<Item = Result<Answer, Status>> + Unpin> Stream for Interleaved<S> {
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
                    Poll::Ready(Some(Ok(Answer::One(message)))) => return Poll::Ready(Some(Ok(message))),
                    Poll::Ready(Some(Ok(Answer::Many(responses)))) => this.many.push(responses),
                    Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                    Poll::Ready(None) => this.answers = None,
                    Poll::Pending => break,
                }
            }
            let full = this.many.len() >= CONCURRENT_MAX;
            match this.many.poll_next_unpin(context) {
                Poll::Ready(Some(item)) => return Poll::Ready(Some(item)),
                Poll::Ready(None) if this.answers.is_none() => return Poll::Ready(None),
                // Those that ended have made room for answers that were not looked at.
                _ if full && this.many.len() < CONCURRENT_MAX => {}
                _ => return Poll::Pending,
            }
        }
    }
}

fn draining_error() -> Error {
    Error::new(ErrorKind::Draining, "the server is about to stop; open a new stream, elsewhere or later")
}
