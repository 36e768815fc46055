//! One inference over REST: finds the model, prepares the form, answers.
//!
//! Reads a request and its path, hands back a response. Knows nothing of what the body means.

use std::sync::Arc;

use inferd_types::Result;

use crate::admit::body::RequestBody;
use crate::admit::caller::Caller;
use crate::admit::head::RequestHead;
use crate::answer::response::{self, HttpResponse};
use crate::infer::inference::Inference;
use crate::infer::record::find_or_record;
use crate::infer::target::Target;
use crate::infer::wire::Wire;
use crate::route::endpoint::ModelPath;
use crate::server_state::ServerState;

/// A request that was admitted.
pub(super) struct RestRequest<'a> {
    pub(super) server: &'a Arc<ServerState>,
    pub(super) head: &'a RequestHead<'a>,
    pub(super) caller: &'a Caller,
}

impl RestRequest<'_> {
    /// The model that `path` names; where there is none, that is recorded.
    pub(super) fn find(&self, path: &ModelPath<'_>) -> Result<Target> {
        find_or_record(self.server, self.caller, &path.name, path.version.as_deref())
    }

    pub(super) fn on<'b>(&'b self, target: &'b Target) -> Inference<'b> {
        Inference { server: self.server, target, caller: self.caller, headers: self.head.headers }
    }
}

/// Answers one inference in the form that `form` makes of the head.
pub(super) async fn answer<W>(
    request: &RestRequest<'_>,
    path: &ModelPath<'_>,
    form: impl FnOnce(&RequestHead<'_>) -> Result<W>,
    body: RequestBody,
) -> HttpResponse
where
    W: Wire<Body = RequestBody, Answer = HttpResponse>,
{
    let target = match request.find(path) {
        Ok(target) => target,
        Err(error) => return response::error(&error),
    };
    let inference = request.on(&target);
    let form = match form(request.head) {
        Ok(form) => form,
        Err(error) => return response::error(&inference.failed(error)),
    };
    inference.answer(form, body).await.unwrap_or_else(|error| response::error(&error))
}
