//! How often the gateway's thread looks at its sockets while no replica could begin with what they bring.
//!
//! Reads of each model which runs occupy its replicas, lets the thread rest meanwhile. Knows nothing of requests.
//!
//! A gateway that has to share its core with a worker takes it from a run for each request that comes, finds its own
//! caches cold and leaves the worker's cold, only for the request to wait for the end of that run. So requests are let
//! come together, as network cards let packets (*interrupt moderation*). The end of a run, which is what the next batch
//! waits for, is heard at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_scheduler::Occupied;
use inferd_transport::Doorbell;
use inferd_types::{Clock, Time};

/// A rest is at most this part of the run that is waited for.
const PER_RUN: u32 = 8;
/// From this part of a run before its expected end there is no rest: what comes may still join the next batch.
const BEFORE_END: u32 = 4;
/// Longer rests gain nothing: a few requests come together in this time where it matters.
const REST_MAX: Duration = Duration::from_millis(1);
/// Shorter ones cost more than they gain.
const REST_MIN: Duration = Duration::from_micros(50);

/// What all models of a process say. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Moderation {
    clock: Clock,
    /// Cores that the process may keep busy.
    cores: usize,
    models: Arc<Mutex<Vec<Arc<Occupancy>>>>,
}

#[derive(Debug)]
struct Occupancy {
    /// `None`: its news come otherwise, and a thread that rests would not hear them.
    bell: Option<Doorbell>,
    runs: Mutex<Runs>,
}

/// What one model says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Runs {
    /// Replicas that run something.
    replicas: usize,
    /// Until when a rest harms nobody.
    until: Time,
    /// The longest rest that is worth it.
    most: Duration,
}

impl Moderation {
    /// One without models, for a process that may keep `cores` busy: there is no rest.
    pub fn new(clock: Clock, cores: usize) -> Moderation {
        Moderation { clock, cores, models: Arc::default() }
    }

    /// Blocks the calling thread, which must be the only one that the models' tasks run on and have nothing to do: for
    /// a moment if every core is taken by a run and no replica has room, else not at all.
    pub fn rest(&self) {
        if let Some(time) = self.time() {
            // Models come and go on this very thread alone.
            Doorbell::any_rung(lock(&self.models).iter().filter_map(|model| model.bell.as_ref()), time);
        }
    }

    /// How long a rest would be now; `None`: there is none.
    pub fn time(&self) -> Option<Duration> {
        let all = lock(&self.models).iter().map(|model| *lock(&model.runs)).reduce(Runs::and)?;
        all.rest(self.clock.now(), self.cores)
    }

    /// A place for one more model, whose replicas ring `bell`. Without one there is no rest from now on.
    pub(crate) fn enter(&self, bell: Option<Doorbell>) -> Moderated {
        let model = Arc::new(Occupancy { bell, runs: Mutex::new(Runs::NONE) });
        lock(&self.models).push(model.clone());
        Moderated { all: self.clone(), model }
    }
}

/// One model's place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Moderated {
    all: Moderation,
    model: Arc<Occupancy>,
}

impl Moderated {
    /// Says what occupies the replicas, `None` where one has room, and when something else is due.
    pub(crate) fn occupied(&self, occupied: Option<Occupied>, due: Time) {
        let occupied = occupied.filter(|_| self.model.bell.is_some());
        *lock(&self.model.runs) = occupied.map_or(Runs::NONE, |occupied| Runs::of(occupied, due));
    }
}

impl Drop for Moderated {
    fn drop(&mut self) {
        lock(&self.all.models).retain(|model| !Arc::ptr_eq(model, &self.model));
    }
}

impl Runs {
    const NONE: Runs = Runs { replicas: 0, until: Time::ZERO, most: Duration::ZERO };

    fn of(occupied: Occupied, due: Time) -> Runs {
        let Occupied { replicas, ends, shortest } = occupied;
        Runs {
            replicas,
            until: due.min(ends - shortest / BEFORE_END),
            most: REST_MAX.min(shortest / PER_RUN),
        }
    }

    fn and(self, other: Runs) -> Runs {
        Runs {
            replicas: self.replicas + other.replicas,
            until: self.until.min(other.until),
            most: self.most.min(other.most),
        }
    }

    /// How long to rest at `now`; `None` where that is too short to be worth it, or a core is free for the gateway.
    fn rest(self, now: Time, cores: usize) -> Option<Duration> {
        let time = self.most.min(self.until.since(now));
        (time >= REST_MIN && self.replicas >= cores).then_some(time)
    }
}

/// Nothing is left half done under these locks, so that a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(micros: u64) -> Time {
        Time::ZERO + Duration::from_micros(micros)
    }

    fn one(ends: Time, run: Duration) -> Occupied {
        Occupied { replicas: 1, ends, shortest: run }
    }

    #[test]
    fn a_rest_is_an_eighth_of_the_run_and_ends_a_quarter_before_its_end() {
        let runs = Runs::of(one(at(10_000), 4 * MS), Time::MAX);
        assert_eq!(runs.rest(at(6_000), 1), Some(MS / 2));
        assert_eq!(runs.rest(at(8_800), 1), Some(MS / 5));
        assert_eq!(runs.rest(at(8_960), 1), None, "it would be too short");
        assert_eq!(runs.rest(at(9_500), 1), None);
        assert_eq!(runs.rest(at(11_000), 1), None, "the run is overdue");
    }

    #[test]
    fn a_rest_is_no_longer_than_helps_and_none_where_it_is_too_short() {
        let rest = |run, due| Runs::of(one(at(0) + run, run), due).rest(at(0), 1);
        assert_eq!(rest(1000 * MS, Time::MAX), Some(REST_MAX));
        assert_eq!(rest(MS / 4, Time::MAX), None);
        assert_eq!(rest(1000 * MS, at(300)), Some(MS * 3 / 10), "something is due");
        assert_eq!(rest(1000 * MS, at(0)), None);
    }

    #[test]
    fn there_is_no_rest_while_a_core_is_free() {
        let runs = Runs::of(one(at(8_000), 8 * MS), Time::MAX);
        assert_eq!(runs.rest(at(0), 2), None);
        assert_eq!(runs.and(runs).rest(at(0), 2), Some(MS));
        assert_eq!(runs.and(Runs::NONE).rest(at(0), 1), None, "the other model could begin at once");
    }

    #[tokio::test]
    async fn a_thread_rests_only_while_every_model_is_occupied() {
        let clock = Clock::start();
        let moderation = Moderation::new(clock, 1);
        let rested = || {
            let before = clock.now();
            moderation.rest();
            clock.now().since(before) >= REST_MAX
        };
        assert!(!rested(), "nobody runs anything");
        let busy = moderation.enter(Some(Doorbell::new().unwrap()));
        busy.occupied(Some(one(clock.now() + 1000 * MS, 1000 * MS)), Time::MAX);
        assert!(rested());
        let idle = moderation.enter(Some(Doorbell::new().unwrap()));
        assert!(!rested(), "one could begin at once");
        drop(idle);
        assert!(rested());
        let deaf = moderation.enter(None);
        deaf.occupied(Some(one(clock.now() + 1000 * MS, 1000 * MS)), Time::MAX);
        assert!(!rested(), "its news would not be heard");
        drop(deaf);
        assert!(rested());
        busy.occupied(None, Time::MAX);
        assert!(!rested());
    }
}
