//! Answers that are kept, within a bound of bytes, and requests whose runs others wait for.
//!
//! Reads keys and answers, hands back what is kept, or says which request runs. One lock guards both, so that no two
//! equal requests run because they looked at the same moment. Knows nothing of how a request is run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use inferd_types::{InferResponse, Priority, ReplicaId, Tensor};
use quick_cache::Weighter;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::intake::cache::key::Key;

/// The answer to a request: every output of the signature.
#[derive(Clone)]
pub(crate) struct CachedAnswer {
    pub(crate) outputs: SmallVec<[Tensor; 2]>,
    pub(crate) replica: ReplicaId,
}

/// How the run of a request ended, for those that wait for it.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// With this.
    Answered(CachedAnswer),
    /// In an error.
    Failed,
}

/// What there is for a request.
pub(crate) enum Found {
    /// Its answer.
    Kept(CachedAnswer),
    /// An equal request that is run now. The channel closes in silence where its caller goes away.
    Running(watch::Receiver<Option<Outcome>>),
    /// Nothing: the caller runs it, and says how it ended through this channel.
    Nothing(watch::Sender<Option<Outcome>>),
    /// Nothing that is worth waiting for: the caller runs it, and nobody waits for that.
    Alone,
}

/// What an entry takes besides its tensors' bytes: its key, itself, and its place in the table and the list of the
/// eviction.
const ENTRY_BYTES: usize = size_of::<Key>() + size_of::<CachedAnswer>() + 64;
/// What a tensor takes besides its bytes: itself where it does not lie in the entry, and what counts its users.
const TENSOR_BYTES: usize = size_of::<Tensor>() + 32;
/// About what an entry takes; it sizes only how many evicted ones are remembered.
const USUAL_BYTES: usize = 4096;

#[derive(Clone)]
struct Weight;

impl Weighter<Key, CachedAnswer> for Weight {
    fn weight(&self, _: &Key, kept: &CachedAnswer) -> u64 {
        weight(&kept.outputs) as u64
    }
}

/// The bytes that an answer takes in the cache.
fn weight(outputs: &[Tensor]) -> usize {
    ENTRY_BYTES + outputs.iter().map(|tensor| TENSOR_BYTES + tensor.data.len()).sum::<usize>()
}

struct Leader {
    priority: Priority,
    outcome: watch::Receiver<Option<Outcome>>,
}

struct Inner {
    entries: quick_cache::unsync::Cache<Key, CachedAnswer, Weight>,
    leaders: HashMap<Key, Leader>,
    open: bool,
}

/// The answers of one load of a model.
pub(crate) struct Store {
    max_bytes: usize,
    inner: Mutex<Inner>,
}

impl Store {
    pub(crate) fn new(max_bytes: usize) -> Store {
        let remembered = (max_bytes / USUAL_BYTES).clamp(16, 1 << 16);
        let entries = quick_cache::unsync::Cache::with_weighter(remembered, max_bytes as u64, Weight);
        Store { max_bytes, inner: Mutex::new(Inner { entries, leaders: HashMap::new(), open: true }) }
    }

    /// What there is for the request of this key.
    pub(crate) fn find(&self, key: &Key, priority: Priority) -> Found {
        let mut inner = self.lock();
        if let Some(kept) = inner.entries.get(key) {
            return Found::Kept(kept.clone());
        }
        match inner.leaders.get(key) {
            // One that is served later: waiting for it would turn the classes upside down.
            Some(leader) if leader.priority > priority => Found::Alone,
            Some(leader) => Found::Running(leader.outcome.clone()),
            None => {
                let (sender, outcome) = watch::channel(None);
                inner.leaders.insert(*key, Leader { priority, outcome });
                Found::Nothing(sender)
            }
        }
    }

    /// No request waits for the run of this key from now on.
    pub(crate) fn forget_leader(&self, key: &Key) {
        self.lock().leaders.remove(key);
    }

    /// Whether an answer of these outputs can be kept at all.
    pub(crate) fn takes(&self, outputs: &[Tensor]) -> bool {
        weight(outputs) <= self.max_bytes
    }

    /// Keeps an answer; returns the bytes that all take now.
    pub(crate) fn keep(&self, key: Key, kept: CachedAnswer) -> usize {
        let mut inner = self.lock();
        if inner.open {
            inner.entries.insert(key, kept);
        }
        inner.entries.weight() as usize
    }

    /// Drops every entry and takes no more.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.open = false;
        inner.entries.clear();
    }

    /// Entries, and the bytes that they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.entries.len(), inner.entries.weight() as usize)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Tables are whole after every single call.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedAnswer {
    /// What `response` says, sharing its bytes.
    pub(crate) fn of(response: &InferResponse) -> CachedAnswer {
        CachedAnswer { outputs: response.outputs.clone(), replica: response.replica }
    }

    /// The same with bytes of its own: those of an answer are a slice of its batch's, which a kept slice would hold as
    /// a whole, uncounted.
    pub(crate) fn apart(&self) -> CachedAnswer {
        let own = |tensor: &Tensor| Tensor { data: Bytes::copy_from_slice(&tensor.data), ..tensor.clone() };
        CachedAnswer { outputs: self.outputs.iter().map(own).collect(), replica: self.replica }
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::DataType;

    use super::*;

    fn key(number: u32) -> Key {
        let mut key = Key::default();
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    fn kept(bytes: usize) -> CachedAnswer {
        let tensor = Tensor {
            datatype: DataType::Int8,
            shape: [bytes as u64].into_iter().collect(),
            data: vec![0; bytes].into(),
        };
        CachedAnswer { outputs: [tensor].into_iter().collect(), replica: ReplicaId(0) }
    }

    #[test]
    fn entries_never_take_more_than_the_bound_their_overhead_counted() {
        let store = Store::new(100_000);
        for number in 0..10_000 {
            let bytes = store.keep(key(number), kept(number as usize % 700));
            assert!(bytes <= 100_000);
        }
        let (entries, bytes) = store.size();
        assert!(bytes > 50_000 && entries > 50, "{entries} entries of {bytes} bytes: it is hardly used");
        assert!(entries * ENTRY_BYTES < 100_000);
    }

    #[test]
    fn what_is_asked_again_outlives_what_is_asked_once() {
        let store = Store::new(50_000);
        for number in 0..20_000 {
            store.keep(key(number % 10), kept(100));
            store.find(&key(number % 10), Priority(1));
            store.keep(key(1000 + number), kept(100));
        }
        let asked_again = (0..10).filter(|it| matches!(store.find(&key(*it), Priority(1)), Found::Kept(_)));
        assert_eq!(asked_again.count(), 10);
    }

    #[test]
    fn an_answer_larger_than_the_cache_is_not_kept() {
        let store = Store::new(10_000);
        assert!(!store.takes(&kept(10_000).outputs) && store.takes(&kept(5000).outputs));
        store.keep(key(1), kept(100));
        store.keep(key(2), kept(10_000));
        assert!(matches!(store.find(&key(1), Priority(1)), Found::Kept(_)), "it pushed out another");
    }

    #[test]
    fn a_closed_cache_is_empty_and_stays_so() {
        let store = Store::new(10_000);
        store.keep(key(1), kept(10));
        store.close();
        assert_eq!(store.keep(key(2), kept(10)), 0);
        assert_eq!(store.size(), (0, 0));
    }

    #[test]
    fn one_leads_others_wait_and_the_more_urgent_do_neither() {
        let store = Store::new(10_000);
        let leads = store.find(&key(1), Priority(1));
        assert!(matches!(leads, Found::Nothing(_)));
        assert!(matches!(store.find(&key(1), Priority(1)), Found::Running(_)));
        assert!(matches!(store.find(&key(1), Priority(2)), Found::Running(_)));
        assert!(matches!(store.find(&key(1), Priority(0)), Found::Alone));
        assert!(matches!(store.find(&key(2), Priority(1)), Found::Nothing(_)));
        store.forget_leader(&key(1));
        assert!(matches!(store.find(&key(1), Priority(1)), Found::Nothing(_)));
    }
}
