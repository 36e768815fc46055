//! A scheduler that gets one event at a time, with its actions as short strings.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Config, Event, Refusal, Room, Scheduler, ShapeKey, SizeBucket};
use inferd_types::{BatchId, Due, Priority, ReplicaId, RequestId, Tenant, Time};

pub(crate) const REPLICA: ReplicaId = ReplicaId(0);

pub(crate) fn at(micros: u64) -> Time {
    Time::from_nanos(micros * 1000)
}

pub(crate) fn arrival(request: u64) -> Arrival {
    Arrival {
        request: RequestId(request),
        rows: 1,
        bytes: 8,
        shape: ShapeKey(0),
        size: SizeBucket::default(),
        priority: Priority(1),
        tenant: Tenant::default(),
        due: Due::Objective,
        timeout: None,
    }
}

pub(crate) fn due(request: u64, timeout: u64) -> Arrival {
    Arrival { timeout: Some(at(timeout)), ..arrival(request) }
}

/// A scheduler and its actions.
pub(crate) struct Rig {
    pub(crate) scheduler: Scheduler,
    pub(crate) actions: Vec<Action>,
}

impl Rig {
    pub(crate) fn new(config: Config, replicas: u32) -> Rig {
        let mut rig = Rig { scheduler: Scheduler::new(config), actions: Vec::new() };
        (0..replicas).for_each(|id| rig.send(0, Event::ReplicaReady(ReplicaId(id), Room::default())));
        rig
    }

    /// With a known latency: 1 ms and 100 µs per row.
    pub(crate) fn known(config: Config, replicas: u32) -> Rig {
        let profile = [1u32, 8, 32].map(|rows| (rows, Duration::from_micros(1000 + 100 * u64::from(rows))));
        Rig::new(Config { profile: profile.into(), ..config }, replicas)
    }

    pub(crate) fn send(&mut self, micros: u64, event: Event) {
        self.scheduler.on_event(at(micros), event, &mut self.actions);
    }

    pub(crate) fn arrive(&mut self, micros: u64, arrivals: impl IntoIterator<Item = Arrival>) {
        arrivals.into_iter().for_each(|arrival| self.send(micros, Event::Arrived(arrival)));
    }

    /// Decides, and returns all actions since the last time, in short.
    pub(crate) fn decide(&mut self, micros: u64) -> Vec<String> {
        self.scheduler.decide(at(micros), &mut self.actions);
        let ids =
            |requests: &[RequestId]| requests.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let actions = self.actions.drain(..).map(|action| match action {
            Action::Stage { replica, batch, requests, .. } => {
                format!("stage {batch} on {replica}: {}", ids(&requests))
            }
            Action::Append { batch, requests, .. } => format!("append to {batch}: {}", ids(&requests)),
            Action::Withdraw { batch, .. } => format!("withdraw {batch}"),
            Action::Answer { request, reason, .. } => format!("answer {request}: {}", reason.label()),
            Action::Hedge { .. } => "hedge".to_owned(),
            Action::WakeAt(time) => format!("wake at {}", time.as_nanos() / 1000),
        });
        actions.collect()
    }

    pub(crate) fn taken(&mut self, micros: u64, batch: u64) {
        self.send(micros, Event::Taken { replica: REPLICA, batch: BatchId(batch) });
    }

    pub(crate) fn finished(&mut self, micros: u64, batch: u64, execution: u64) {
        let execution = Duration::from_micros(execution);
        self.send(micros, Event::Finished { replica: REPLICA, batch: BatchId(batch), execution, ok: true });
    }

    /// The refusal of `arrival`.
    pub(crate) fn refusal(&mut self, micros: u64, arrival: Arrival) -> (Refusal, inferd_types::Error) {
        self.send(micros, Event::Arrived(arrival));
        match self.actions.pop() {
            Some(Action::Answer { reason, error, .. }) => (reason, error),
            other => panic!("not refused: {other:?}"),
        }
    }
}
