//! Where a request enters a model: picks the stages that it goes through.
//!
//! Reads requests from handles and, once, what the first worker told; hands requests to the first stage that concerns
//! them. Knows nothing of what a stage does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use inferd_types::settings::LoadedModel;
use inferd_types::{Clock, Error, ErrorKind, InferRequest, Result, Signature};

use crate::generation::published::{Published, draining};
use crate::intake::cache::lookup::Cache;
use crate::intake::filling::Filler;
use crate::intake::implicit::ImplicitTensors;
use crate::intake::inbox::Inbox;
use crate::intake::sequences::Sequences;
use crate::intake::stream::Responses;
use crate::intake::submission::Submitter;
use crate::intake::ticket::Ticket;

/// The stages that depend on what the model is.
struct Stages {
    /// `None`: the model answers no sequences.
    sequences: Option<Arc<Sequences>>,
    filler: Arc<Filler>,
}

/// See the module.
pub(crate) struct Intake {
    /// `None`: every request is run. A model with a cache has neither sequences nor implicit tensors.
    cache: Option<Arc<Cache>>,
    /// Empty until the first worker has told what the model is; nothing is admitted before.
    stages: OnceLock<Stages>,
    submitter: Arc<Submitter>,
    clock: Clock,
    /// Set while pipelines are drained: their steps are admitted still, nobody else.
    steps_only: AtomicBool,
}

impl Intake {
    pub(crate) fn new(published: Arc<Published>, clock: Clock) -> Intake {
        let settings = &published.settings;
        // The queue's own bound is in the scheduler; what waits here is what one turn of the reactor brings.
        let inbox = Arc::new(Inbox::new(settings.queue_rows_max.max(64)));
        let cache = settings.cache_max_bytes.map(|max_bytes| {
            published.observer.cache_bytes(0);
            Arc::new(Cache::new(&settings.name, settings.version, max_bytes, clock))
        });
        let submitter = Arc::new(Submitter { published, inbox });
        Intake { cache, stages: OnceLock::new(), submitter, clock, steps_only: AtomicBool::new(false) }
    }

    /// Answers `request`: from the cache where there is one and it can, else by a run.
    #[inline]
    pub(crate) fn submit(&self, request: InferRequest) -> Ticket {
        if self.steps_only.load(Ordering::Acquire) {
            return Ticket::refused(draining(self.name()));
        }
        self.submit_step(request)
    }

    /// The same for a step of a request that a pipeline has admitted.
    #[inline]
    pub(crate) fn submit_step(&self, request: InferRequest) -> Ticket {
        let Some(stages) = self.stages.get() else { return self.submitter.submit(request) };
        if self.published().is_decoupled() {
            return Ticket::refused(self.streams_only());
        }
        match (&request.sequence, &stages.sequences, &self.cache) {
            (Some(sequence), Some(sequences), _) => {
                let sequence = sequence.clone();
                sequences.submit(&sequence, request, &stages.filler)
            }
            (None, None, Some(cache)) => cache.submit(request, &self.submitter),
            (None, None, None) => stages.filler.submit(request, &[]),
            (_, sequences, _) => Ticket::refused(self.wrong_sequence(sequences.is_some())),
        }
    }

    /// The same for callers that take any number of responses: one from an ordinary model.
    pub(crate) fn stream(&self, request: InferRequest) -> Responses {
        let stages = self.stages.get().filter(|_| self.published().is_decoupled());
        match stages {
            Some(stages) if !self.steps_only.load(Ordering::Acquire) => match request.sequence {
                Some(_) => Responses::one(Ticket::refused(self.wrong_sequence(false))),
                None => stages.filler.stream(request),
            },
            _ => Responses::one(self.submit(request)),
        }
    }

    /// Learns from the first worker what the model is, with `replicas` of them; hands back what clients send and get.
    ///
    /// # Errors
    /// `InvalidInput` where the model's settings ask for what it can't do.
    pub(crate) fn open(&self, loaded: &LoadedModel, replicas: u32) -> Result<Signature> {
        let settings = &self.published().settings;
        let sequence = settings.sequence.as_ref().or(loaded.sequence.as_ref());
        let implicit = ImplicitTensors::new(loaded, sequence, settings.batch_rows_max)?;
        if self.cache.is_some() && (sequence.is_some() || implicit.is_some()) {
            return Err(invalid(
                "what the model answers depends on more than its inputs (a sequence, or what comes with a request), so \
                 its answers can't be kept; leave cache_max_bytes out",
            ));
        }
        if sequence.is_some() && loaded.signature.decoupled {
            return Err(invalid("a model that streams its responses has no sequences; leave sequence out"));
        }
        let sequences = sequence.map(|sequence| {
            Arc::new(Sequences::new(&settings.name, sequence, settings.queue_rows_max, self.clock))
        });
        let (client_signature, implicit) = match implicit {
            Some((signature, implicit)) => (signature, Some(implicit)),
            None => (loaded.signature.clone(), None),
        };
        check_replicas(sequences.as_deref(), replicas)?;
        let filler = Arc::new(Filler::new(implicit, self.clock, self.submitter.clone()));
        let _open_already = self.stages.set(Stages { sequences, filler });
        Ok(client_signature)
    }

    /// Whether the model may have so many replicas.
    ///
    /// # Errors
    /// `InvalidInput` where not, because of what is known of the model so far.
    pub(crate) fn check_replicas(&self, replicas: u32) -> Result<()> {
        check_replicas(self.sequences().map(Arc::as_ref), replicas)
    }

    /// Admits pipelines' steps alone from now on.
    pub(crate) fn admit_steps_only(&self) {
        self.steps_only.store(true, Ordering::Release);
    }

    /// Admits nothing more of what waits here before the model's task knows it, and returns when that is answered.
    pub(crate) async fn drain(&self) {
        if let Some(sequences) = self.sequences() {
            sequences.drain().await;
        }
        if let Some(cache) = &self.cache {
            cache.drain().await;
        }
    }

    /// Drops every answer that is kept, and keeps no more.
    pub(crate) fn close_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.close();
            self.published().observer.cache_bytes(0);
        }
    }

    /// The way to the task's commands.
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.submitter.inbox
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_deref()
    }

    pub(crate) fn sequences(&self) -> Option<&Arc<Sequences>> {
        self.stages.get().and_then(|stages| stages.sequences.as_ref())
    }

    /// The tensors that clients don't see; `None` where there are none.
    pub(crate) fn implicit(&self) -> Option<&ImplicitTensors> {
        self.stages.get().and_then(|stages| stages.filler.tensors())
    }

    fn published(&self) -> &Published {
        &self.submitter.published
    }

    fn name(&self) -> &str {
        &self.published().settings.name
    }

    fn streams_only(&self) -> Error {
        let name = self.name();
        invalid(format!(
            "model '{name}' streams its responses, and this call has one answer; use ModelStreamInfer over gRPC, or POST \
             /v2/models/{name}/generate_stream"
        ))
    }

    fn wrong_sequence(&self, has_sequences: bool) -> Error {
        let name = self.name();
        invalid(if has_sequences {
            format!(
                "model '{name}' answers sequences; name one with the parameter sequence_id (not 0, not empty)"
            )
        } else {
            format!(
                "model '{name}' has no sequences; leave sequence_id out, or give the model the setting sequence"
            )
        })
    }
}

fn check_replicas(sequences: Option<&Sequences>, replicas: u32) -> Result<()> {
    if replicas > 1 && sequences.is_some_and(Sequences::are_kept_by_model) {
        return Err(invalid(
            "the model remembers its sequences by itself, which one replica alone can do; set replicas: 1, or hand its \
             state over with sequence.state",
        ));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}
