//! Whether an HTTP/1.1 connection waits for a request, reads its head or answers it.
//!
//! Written by the connection's IO and by requests, read by the connection's timer. Knows nothing of what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inferd_types::{Clock, Time};

/// Where one connection stands between two requests.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    /// Odd: nanoseconds of the clock when the first byte of a head came (the lowest bit is always set). `ACTIVE`:
    /// a request is under way. Any other even number: none is, and the number differs from request to request.
    head_began: AtomicU64,
}

/// What a connection does at the moment.
pub(super) enum Progress {
    /// Waits for the first byte of the next head, after the request that `after` stands for. A part of a head that
    /// came together with the request before it can't be told from this; it is closed as idle.
    Idle { after: u64 },
    /// A part of a head has come.
    ReadingHead { since: Time },
    /// A request is being read or answered.
    InRequest,
}

const ACTIVE: u64 = u64::MAX - 1;

impl Activity {
    /// A connection whose first bytes have come.
    pub(super) fn start(clock: Clock) -> Arc<Activity> {
        let activity = Activity { clock, head_began: AtomicU64::new(0) };
        activity.bytes_received();
        Arc::new(activity)
    }

    pub(super) fn bytes_received(&self) {
        let before = self.head_began.load(Relaxed);
        if before != ACTIVE && before & 1 == 0 {
            self.head_began.store(self.clock.now().as_nanos() | 1, Relaxed);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self.head_began.load(Relaxed) {
            ACTIVE => Progress::InRequest,
            time if time & 1 == 1 => Progress::ReadingHead { since: Time::from_nanos(time) },
            after => Progress::Idle { after },
        }
    }
}

/// Marks the connection as active with one request until it is dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    activity: Arc<Activity>,
    /// When the first byte of the request came, as far as is known.
    pub(crate) arrived: Time,
}

impl ActiveRequest {
    pub(super) fn start(activity: &Arc<Activity>) -> ActiveRequest {
        let arrived = match activity.head_began.swap(ACTIVE, Relaxed) {
            time if time & 1 == 1 => Time::from_nanos(time),
            // Its bytes came together with those of the request before it.
            _ => activity.clock.now(),
        };
        ActiveRequest { activity: activity.clone(), arrived }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        // An even number that differs from request to request, so that the timer can tell silence from traffic.
        self.activity.head_began.store(self.arrived.as_nanos() & !1, Relaxed);
    }
}
