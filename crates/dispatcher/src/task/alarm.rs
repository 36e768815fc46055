//! A timer finer than the reactor's own, whose unit is a millisecond.
//!
//! Reads the next moment at which the task must look, wakes it then.
//! Knows nothing of what is due.

use std::io;
use std::os::fd::OwnedFd;

use inferd_types::Time;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer of the kernel. It may go off early or without cause, never late.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// When it goes off; `None`: not set, or gone off.
    armed: Option<Time>,
}

impl Alarm {
    /// Must be called inside the runtime.
    pub(crate) fn new() -> io::Result<Alarm> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "its replacement is unsafe because of types that may change their descriptor; OwnedFd never does"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Alarm { timer, armed: None })
    }

    /// Goes off at `at` or before. An earlier setting stays: moments mostly move forward, and one needless wake-up
    /// is cheaper than a system call at every turn.
    pub(crate) fn set(&mut self, now: Time, at: Time) {
        if self.armed.is_some_and(|armed| armed <= at && armed > now) {
            return;
        }
        // Zero would switch the timer off.
        let delay = at.since(now).max(std::time::Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(delay.subsec_nanos()),
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        match timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec) {
            Ok(_) => self.armed = Some(at),
            Err(error) => tracing::error!(%error, "the timer could not be set"),
        }
    }

    /// Waits until it has gone off. The descriptor is registered edge-triggered: it need not be read.
    pub(crate) async fn rang(&self) {
        match self.timer.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // The runtime is shutting down: nothing will wake the task again, nor must it.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inferd_types::Clock;

    use super::*;

    #[tokio::test]
    async fn the_alarm_goes_off_each_time_it_is_set_and_never_late_by_much() {
        let clock = Clock::start();
        let mut alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let at = clock.now() + Duration::from_micros(300);
            alarm.set(clock.now(), at);
            while clock.now() < at {
                alarm.rang().await;
            }
        }
    }

    #[tokio::test]
    async fn an_earlier_moment_replaces_a_later_one() {
        let clock = Clock::start();
        let mut alarm = Alarm::new().unwrap();
        alarm.set(clock.now(), clock.now() + Duration::from_secs(3600));
        alarm.set(clock.now(), clock.now() + Duration::from_millis(1));
        alarm.rang().await;
    }
}
