//! Answers requests that were answered before, and runs equal requests that come together once.
//!
//! Reads requests before the model's task sees them, hands on those that are new. One value belongs to one load of a
//! model, and its entries go with it. Knows nothing of the wire: what is kept is tensors, in whatever form they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use inferd_types::{Clock, Error, ErrorKind, InferRequest, InferResponse, Result, Time, Timing};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::generation::published::{Published, draining};
use crate::intake::cache::key::{Digest, Key};
use crate::intake::cache::store::{CachedAnswer, Found, Outcome, Store};
use crate::intake::inbox::InferResult;
use crate::intake::submission::Submitter;
use crate::intake::ticket::Ticket;

/// Digesting or copying more than this leaves the reactor: some 0.1 ms.
const LARGE_BYTES: usize = 256 * 1024;

/// The cache of one load of a model.
pub(crate) struct Cache {
    digest: Digest,
    store: Store,
    max_bytes: usize,
    clock: Clock,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Requests that are not answered yet; closed when the model is drained.
    under_way: TaskTracker,
}

impl Cache {
    pub(crate) fn new(model: &str, version: u64, max_bytes: usize, clock: Clock) -> Cache {
        Cache {
            digest: Digest::new(model, version),
            store: Store::new(max_bytes),
            max_bytes,
            clock,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            under_way: TaskTracker::new(),
        }
    }

    /// Answers `request` with what is kept, else by the run of an equal request, else by one that goes on to `next`.
    pub(crate) fn submit(self: &Arc<Self>, request: InferRequest, next: &Arc<Submitter>) -> Ticket {
        if next.published.refusal().is_some() {
            return next.submit(request);
        }
        // Counted before it is looked whether they are closed: draining closes first, and then counts.
        let answer = self.under_way.track_future(answer(next.clone(), self.clone(), request));
        if self.under_way.is_closed() {
            let refusal = draining(&next.published.settings.name);
            next.published.observer.refused(refusal.kind().label());
            return Ticket::refused(refusal);
        }
        Ticket::running(Box::pin(answer))
    }

    /// Admits nothing more, and returns when all that was admitted is answered: a request that waits for another's run is not known to
    /// the model's task, and may have to be run after all.
    pub(crate) async fn drain(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Drops every entry and takes no more.
    pub(crate) fn close(&self) {
        self.store.close();
    }

    /// What it holds and what that was good for, for people.
    pub(crate) fn status(&self) -> Value {
        let (entries, bytes) = self.store.size();
        json!({
            "max_bytes": self.max_bytes,
            "bytes": bytes,
            "entries": entries,
            "hits": self.hits.load(Relaxed),
            "misses": self.misses.load(Relaxed),
        })
    }
}

/// A request that waits here for another's run is in no queue of the model's: what bounds them is the gateway's
/// `inflight_max_bytes`, which holds their inputs, and their own timeouts.
async fn answer(next: Arc<Submitter>, cache: Arc<Cache>, request: InferRequest) -> InferResult {
    let published = &next.published;
    let asked = cache.clock.now();
    let Some(key) = key(&cache, &request).await else { return next.submit(request).await };
    let lookup = cache.clock.now().since(asked);
    let lead = loop {
        match cache.store.find(&key, request.priority) {
            Found::Kept(kept) => return Ok(hit(published, &cache, &request, kept, asked)),
            Found::Running(running) => match wait(published, &cache, &request, running).await? {
                Some(Outcome::Answered(kept)) => return Ok(hit(published, &cache, &request, kept, asked)),
                // Its error is its own. The waiting requests run now, all in one batch: one after the other, the last
                // would wait for as many runs as there are callers.
                Some(Outcome::Failed) => break None,
                // It came to nothing for a reason of its own: the first to look again leads.
                None => {}
            },
            Found::Alone => break None,
            Found::Nothing(outcome) => break Some(Lead { cache: cache.clone(), key, outcome }),
        }
    };
    miss(published, &cache, lookup);
    let answer = next.submit(request).await;
    if let Some(lead) = &lead {
        lead.ended(&answer);
    }
    if let Ok(response) = &answer {
        keep(published.clone(), cache, key, response, lead);
    }
    answer
}

/// The request's key; `None` where the process is ending.
async fn key(cache: &Arc<Cache>, request: &InferRequest) -> Option<Key> {
    let (tenant, inputs) = (request.tenant, &request.inputs);
    if inputs.iter().map(|tensor| tensor.data.len()).sum::<usize>() <= LARGE_BYTES {
        return Some(cache.digest.of(tenant, inputs));
    }
    let (cache, inputs) = (cache.clone(), inputs.to_vec());
    tokio::task::spawn_blocking(move || cache.digest.of(tenant, &inputs)).await.ok()
}

/// How the equal request ended that is run; `None` where that says nothing of this one.
///
/// # Errors
/// `DeadlineMissed` where the caller of this one does not wait as long.
async fn wait(
    published: &Published,
    cache: &Cache,
    request: &InferRequest,
    mut running: watch::Receiver<Option<Outcome>>,
) -> Result<Option<Outcome>> {
    let ended = async { running.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
    let Some(timeout) = request.timeout else { return Ok(ended.await) };
    tokio::time::timeout_at(cache.clock.instant(timeout).into(), ended).await.map_err(|_| {
        published.statistics().failed(cache.clock.now().since(request.arrived));
        let name = &published.settings.name;
        Error::new(
            ErrorKind::DeadlineMissed,
            format!("the run of model '{name}' that answers equal requests took longer than the caller waits; allow more time"),
        )
    })
}

/// Keeps an answer, where there is room for it at all. `lead` leads until it is kept, so that no request that comes in
/// between runs it again.
fn keep(
    published: Arc<Published>,
    cache: Arc<Cache>,
    key: Key,
    response: &InferResponse,
    lead: Option<Lead>,
) {
    if !cache.store.takes(&response.outputs) {
        return;
    }
    let kept = CachedAnswer::of(response);
    let bytes: usize = kept.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let keep = move || {
        published.observer.cache_bytes(cache.store.keep(key, kept.apart()));
        drop(lead);
    };
    if bytes <= LARGE_BYTES {
        keep();
    } else {
        // Nobody waits for it.
        tokio::task::spawn_blocking(keep);
    }
}

/// The one that runs a request for all who wait for it. Dropped before its end, the next of them leads.
struct Lead {
    cache: Arc<Cache>,
    key: Key,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Lead {
    /// Ends the wait of equal requests.
    fn ended(&self, answer: &InferResult) {
        let outcome = match answer {
            Ok(response) => Outcome::Answered(CachedAnswer::of(response)),
            // About this caller's time, or whether it was admitted: others may fare better.
            Err(error) if is_of_the_caller(error.kind()) => return,
            Err(_) => Outcome::Failed,
        };
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Before the channel closes: a request that is woken by that must not find this one leading still.
        self.cache.store.forget_leader(&self.key);
    }
}

fn is_of_the_caller(kind: ErrorKind) -> bool {
    use ErrorKind::{Cancelled, DeadlineMissed, Draining, NotReady, Overloaded, RateLimited};
    matches!(kind, Cancelled | DeadlineMissed | Draining | NotReady | Overloaded | RateLimited)
}

fn miss(published: &Published, cache: &Cache, lookup: Duration) {
    cache.misses.fetch_add(1, Relaxed);
    published.observer.cache(false);
    published.statistics().cache_missed(lookup);
}

/// The answer to a request that was not run.
fn hit(
    published: &Published,
    cache: &Cache,
    request: &InferRequest,
    kept: CachedAnswer,
    asked: Time,
) -> InferResponse {
    let now = cache.clock.now();
    cache.hits.fetch_add(1, Relaxed);
    published.observer.cache(true);
    published.statistics().cache_hit(request.arrived, asked, now);
    if published.settings.slo.is_some_and(|slo| now.since(request.arrived) > slo.latency_s.0) {
        published.observer.objective_missed();
    }
    let timing = Timing { staged: now, started: now, finished: now, ..Timing::default() };
    InferResponse { outputs: kept.outputs, timing, replica: kept.replica, steps: Vec::new() }
}
