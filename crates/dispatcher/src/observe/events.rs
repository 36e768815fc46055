//! What happened to models, for the control plane: one bounded channel from every model's task to one reader.
//!
//! Reads state changes from tasks and the registry, hands them in order to the caller of [`Events::wait`].
//! Knows nothing of Python, and of what is done about an event.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_types::{Clock, Time};

use crate::generation::state::{ModelState, ReplicaState, ReplicaStatus};
use crate::observe::observer::LossReason;

/// Most events that wait for the reader. A reader is late by milliseconds, and a start of a thousand replicas fits; where
/// nobody reads, this bounds what is kept for it.
const CAPACITY: usize = 4096;

/// One thing that happened to a load of a model version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEvent {
    /// The model's name.
    pub model: Arc<str>,
    /// Its version.
    pub version: u64,
    /// Which load of any version in this process, from 1.
    pub generation: u64,
    /// When, by the data plane's clock.
    pub at: Time,
    /// What happened.
    pub kind: EventKind,
}

/// What an [`ModelEvent`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The generation has this state now.
    Generation {
        /// The state.
        state: GenerationState,
        /// Why, where it is unavailable or did not load.
        reason: Option<String>,
    },
    /// The generation has loaded, and it took this long.
    Loaded {
        /// From the request to load until every replica was warm.
        took: Duration,
    },
    /// A replica has this state now.
    Replica {
        /// Its place among the model's replicas.
        index: usize,
        /// The state; `None`: it has ended and none takes its place.
        state: Option<ReplicaState>,
        /// Its process, where there is one.
        pid: Option<u32>,
    },
    /// A worker process ended unasked, or was killed because it hung.
    WorkerLost {
        /// The place of its replica.
        index: usize,
        /// The process that ended.
        pid: u32,
        /// Why.
        reason: LossReason,
    },
}

/// A generation's state, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationState {
    /// Its first replicas start.
    Loading,
    /// It serves.
    Ready,
    /// No replica runs.
    Unavailable,
    /// It admits nothing more.
    Draining,
    /// It is forgotten.
    Gone,
}

impl GenerationState {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            GenerationState::Loading => "loading",
            GenerationState::Ready => "ready",
            GenerationState::Unavailable => "unavailable",
            GenerationState::Draining => "draining",
            GenerationState::Gone => "gone",
        }
    }
}

/// What a later event of the same key makes superfluous.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Generation(u64),
    Replica(u64, usize),
}

impl ModelEvent {
    /// `None`: it happened once, and no other event stands for it.
    fn key(&self) -> Option<Key> {
        match &self.kind {
            EventKind::Generation { .. } => Some(Key::Generation(self.generation)),
            EventKind::Replica { index, .. } => Some(Key::Replica(self.generation, *index)),
            EventKind::Loaded { .. } | EventKind::WorkerLost { .. } => None,
        }
    }
}

/// What the reader gets at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// In the order in which they happened.
    pub events: Vec<ModelEvent>,
    /// Events that the channel had no room for since the reader last looked. Of states the latest is kept, so long as
    /// there are fewer of them than the channel holds.
    pub dropped: u64,
}

/// The channel. Cheap to clone; every clone is the same channel.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// Notified when something came or the channel was closed.
    arrived: Condvar,
    clock: Clock,
    generations: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    events: VecDeque<ModelEvent>,
    capacity: usize,
    dropped: u64,
    closed: bool,
}

impl Queue {
    fn push(&mut self, event: ModelEvent) {
        self.events.push_back(event);
        if self.events.len() > self.capacity {
            self.coalesce();
        }
        if self.events.len() > self.capacity {
            let once = self.events.iter().position(|event| event.key().is_none());
            self.events.remove(once.unwrap_or(0));
            self.dropped += 1;
        }
    }

    /// Keeps the latest of the states of each key.
    fn coalesce(&mut self) {
        let before = self.events.len();
        let mut later = HashSet::new();
        let mut kept: VecDeque<ModelEvent> = VecDeque::with_capacity(before);
        for event in self.events.drain(..).rev() {
            if event.key().is_none_or(|key| later.insert(key)) {
                kept.push_front(event);
            }
        }
        self.dropped += (before - kept.len()) as u64;
        self.events = kept;
    }
}

impl Events {
    /// An open channel with nothing in it.
    pub fn new(clock: Clock) -> Events {
        Events::with_capacity(clock, CAPACITY)
    }

    fn with_capacity(clock: Clock, capacity: usize) -> Events {
        let queue = Queue { events: VecDeque::new(), capacity, dropped: 0, closed: false };
        Events(Arc::new(Inner {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            clock,
            generations: AtomicU64::new(0),
        }))
    }

    /// Waits until something happened, at most `within`, and takes it; nothing where the time is over. `None` once the
    /// channel is closed and empty. Blocks the thread: not for the runtime's.
    pub fn wait(&self, within: Duration) -> Option<Received> {
        let (mut queue, _) = self
            .0
            .arrived
            .wait_timeout_while(self.queue(), within, |queue| queue.events.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.events.is_empty() && queue.closed {
            return None;
        }
        Some(Received {
            events: std::mem::take(&mut queue.events).into(),
            dropped: std::mem::take(&mut queue.dropped),
        })
    }

    /// Takes no more events and wakes the reader.
    pub fn close(&self) {
        self.queue().closed = true;
        self.0.arrived.notify_all();
    }

    /// Where the events of one load of `model` in `version` go in.
    pub(crate) fn generation(&self, model: &str, version: u64) -> GenerationEvents {
        let generation = self.0.generations.fetch_add(1, Ordering::Relaxed) + 1;
        GenerationEvents {
            events: self.clone(),
            model: model.into(),
            version,
            generation,
            last: Mutex::default(),
        }
    }

    fn push(&self, event: ModelEvent) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.push(event);
            drop(queue);
            self.0.arrived.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // It is valid after every single push.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending side of one load. Never waits for the reader.
pub(crate) struct GenerationEvents {
    events: Events,
    model: Arc<str>,
    version: u64,
    generation: u64,
    /// The state that was sent last: setting it once more is no event.
    last: Mutex<Option<(GenerationState, Option<String>)>>,
}

impl GenerationEvents {
    /// The number of this load.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The moment of now, for [`GenerationEvents::loaded`].
    pub(crate) fn now(&self) -> Time {
        self.events.0.clock.now()
    }

    pub(crate) fn state(&self, state: &ModelState) {
        match state {
            ModelState::Loading => self.changed(GenerationState::Loading, None),
            ModelState::Ready => self.changed(GenerationState::Ready, None),
            ModelState::Unavailable(reason) => {
                self.changed(GenerationState::Unavailable, Some(reason.clone()))
            }
            ModelState::Draining => self.changed(GenerationState::Draining, None),
        }
    }

    /// It is forgotten; `reason`: why it could not be loaded.
    pub(crate) fn gone(&self, reason: Option<String>) {
        self.changed(GenerationState::Gone, reason);
    }

    pub(crate) fn loaded(&self, since: Time) {
        self.send(EventKind::Loaded { took: self.now().since(since) });
    }

    /// Sends what differs between the replicas that were published `before` and those of `now`.
    pub(crate) fn replicas(&self, before: &[ReplicaStatus], now: &[ReplicaStatus]) {
        for ended in before.iter().filter(|old| now.iter().all(|new| new.index != old.index)) {
            self.send(EventKind::Replica { index: ended.index, state: None, pid: ended.pid });
        }
        for new in now.iter().filter(|new| !before.contains(new)) {
            self.send(EventKind::Replica { index: new.index, state: Some(new.state), pid: new.pid });
        }
    }

    pub(crate) fn worker_lost(&self, index: usize, pid: u32, reason: LossReason) {
        self.send(EventKind::WorkerLost { index, pid, reason });
    }

    fn changed(&self, state: GenerationState, reason: Option<String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Its task may end after it was forgotten.
        let over = |(before, why): &(GenerationState, Option<String>)| {
            *before == GenerationState::Gone || (*before, why) == (state, &reason)
        };
        if last.as_ref().is_some_and(over) {
            return;
        }
        *last = Some((state, reason.clone()));
        self.send(EventKind::Generation { state, reason });
    }

    fn send(&self, kind: EventKind) {
        let (model, version, generation) = (self.model.clone(), self.version, self.generation);
        self.events.push(ModelEvent { model, version, generation, at: self.now(), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn channel(capacity: usize) -> (Events, GenerationEvents) {
        let events = Events::with_capacity(Clock::start(), capacity);
        let generation = events.generation("m", 1);
        (events, generation)
    }

    fn labels(received: &Received) -> Vec<String> {
        let label = |event: &ModelEvent| match &event.kind {
            EventKind::Generation { state, reason } => {
                [state.label(), reason.as_deref().unwrap_or_default()].concat()
            }
            EventKind::Loaded { .. } => "loaded".to_owned(),
            EventKind::Replica { index, state, .. } => {
                format!("{index} {}", state.map_or("ended", ReplicaState::label))
            }
            EventKind::WorkerLost { index, reason, .. } => format!("{index} lost: {}", reason.label()),
        };
        received.events.iter().map(label).collect()
    }

    fn replica(index: usize, state: ReplicaState) -> ReplicaStatus {
        ReplicaStatus { index, pid: Some(7), state }
    }

    #[test]
    fn events_arrive_in_the_order_in_which_they_happened_and_once() {
        let (events, generation) = channel(8);
        let other = events.generation("n", 2);
        generation.state(&ModelState::Loading);
        other.state(&ModelState::Loading);
        generation.state(&ModelState::Ready);
        generation.state(&ModelState::Ready);
        generation.loaded(Time::ZERO);
        other.gone(Some("no".into()));
        other.state(&ModelState::Draining);
        let received = events.wait(SOON).unwrap();
        assert_eq!(labels(&received), ["loading", "loading", "ready", "loaded", "goneno"]);
        assert_eq!(received.dropped, 0);
        let of: Vec<_> = received.events.iter().map(|event| (&*event.model, event.generation)).collect();
        assert_eq!(of, [("m", 1), ("n", 2), ("m", 1), ("m", 1), ("n", 2)]);
        assert_eq!(events.wait(Duration::ZERO), Some(Received::default()));
    }

    #[test]
    fn where_the_channel_is_full_the_latest_state_of_each_key_is_kept_and_the_rest_is_counted() {
        let (events, generation) = channel(3);
        generation.state(&ModelState::Loading);
        for round in 0..50 {
            generation.state(&ModelState::Unavailable(round.to_string()));
            generation.state(&ModelState::Ready);
        }
        generation.worker_lost(0, 7, LossReason::Hang);
        generation.replicas(&[], &[replica(0, ReplicaState::Backoff)]);
        generation.replicas(&[], &[replica(0, ReplicaState::Ready)]);
        let received = events.wait(SOON).unwrap();
        assert_eq!(labels(&received), ["ready", "0 lost: hang", "0 ready"]);
        assert_eq!(received.dropped, 101);
    }

    #[test]
    fn what_happened_once_makes_room_for_states_and_the_channel_never_grows() {
        let (events, generation) = channel(3);
        for index in 0..100 {
            generation.worker_lost(index, 7, LossReason::Exit);
        }
        generation.state(&ModelState::Ready);
        generation.replicas(&[], &[replica(0, ReplicaState::Ready), replica(1, ReplicaState::Ready)]);
        let received = events.wait(SOON).unwrap();
        assert_eq!(labels(&received), ["ready", "0 ready", "1 ready"]);
        assert_eq!(received.dropped, 100);
        // More keys than room: the newest are kept.
        for index in 0..100 {
            generation.replicas(&[], &[replica(index, ReplicaState::Ready)]);
        }
        assert_eq!(labels(&events.wait(SOON).unwrap()), ["97 ready", "98 ready", "99 ready"]);
    }

    #[test]
    fn only_replicas_that_changed_are_sent() {
        let (events, generation) = channel(8);
        let before = [replica(0, ReplicaState::Ready), replica(1, ReplicaState::Ready)];
        generation.replicas(&before, &[replica(0, ReplicaState::Stalled)]);
        assert_eq!(labels(&events.wait(SOON).unwrap()), ["1 ended", "0 stalled"]);
        generation.replicas(&before, &before);
        assert_eq!(events.wait(Duration::ZERO), Some(Received::default()));
    }

    #[test]
    fn an_event_wakes_the_reader_and_so_does_the_end() {
        let (events, generation) = channel(8);
        let reader = events.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Some(received) = reader.wait(SOON) {
                sender.send(labels(&received)).unwrap();
            }
        });
        generation.state(&ModelState::Ready);
        assert_eq!(receiver.recv_timeout(SOON).unwrap(), ["ready"]);
        generation.gone(None);
        assert_eq!(receiver.recv_timeout(SOON).unwrap(), ["gone"]);
        events.close();
        thread.join().unwrap();
    }

    #[test]
    fn what_was_there_before_the_end_is_still_read() {
        let (events, generation) = channel(8);
        generation.gone(None);
        events.close();
        generation.state(&ModelState::Ready);
        assert_eq!(labels(&events.wait(SOON).unwrap()), ["gone"]);
        assert_eq!(events.wait(SOON), None);
        assert_eq!(events.wait(SOON), None);
    }
}
