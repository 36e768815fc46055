//! Ends what a worker started: its process group, and descendants that left the group.
//!
//! Reads /proc, sends SIGKILL to every process that carries a worker's mark. Called where the worker is reaped.
//! Knows nothing of how workers are started and why they ended.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use inferd_types::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How long a sweep may take in all. What was killed ends within a millisecond, unless a driver or a network file system
/// holds it.
const SWEEP_MAX: Duration = Duration::from_secs(1);
/// How long a resource tracker may take to remove shared memory and to end by itself.
const TRACKER_MAX: Duration = Duration::from_millis(500);

/// Tells the descendants of one worker from all other processes.
///
/// It is a random soft limit on the CPU time of real-time tasks (RLIMIT_RTTIME), of 73,000 years at least. Children inherit it
/// through fork and exec, nobody changes it by accident, every process may set it, and it limits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(u64);

impl From<u64> for Mark {
    fn from(number: u64) -> Mark {
        Mark(number)
    }
}

impl Mark {
    /// A mark that no other process has: one of 2⁶¹.
    pub(crate) fn random() -> Mark {
        // The keys of a `RandomState` are the system's random numbers.
        Mark(RandomState::new().build_hasher().finish() >> 3 | 1 << 61)
    }

    /// Marks this process. Makes system calls alone, for use between fork and exec. Where the hard limit is lower than
    /// any mark the process stays without: only its group is ended then.
    pub(crate) fn set(self) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain system calls with pointers to a value that lives across them.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_RTTIME, &mut limit) == 0 {
                limit.rlim_cur = self.0;
                libc::setrlimit(libc::RLIMIT_RTTIME, &limit);
            }
        }
    }

    /// Whether the process carries it.
    fn is_on(self, pid: Pid) -> bool {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: it only reads the other process's limit, into a value that lives across the call.
        let read = unsafe {
            libc::prlimit(pid.as_raw_nonzero().get(), libc::RLIMIT_RTTIME, std::ptr::null(), &mut limit)
        };
        if read == 0 {
            return limit.rlim_cur == self.0;
        }
        // Limits of another user's process are in /proc alone.
        io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
            && std::fs::read_to_string(file(pid, "limits")).is_ok_and(|limits| {
                limits
                    .lines()
                    .filter_map(|line| line.strip_prefix("Max realtime timeout"))
                    .filter_map(|values| values.split_whitespace().next())
                    .any(|soft| soft.parse() == Ok(self.0))
            })
    }
}

/// Ends what a worker started. It has ended itself and is not reaped, so that no other process and no other group has
/// its number. Blocks, for a second at most.
pub fn end_descendants(worker: u32, mark: Mark) {
    sweep(mark);
    // Resource trackers are in the group, too: it is ended behind them. What shed the mark is found here alone.
    if let Some(leader) = Pid::from_raw(worker as i32) {
        // It fails where this user may end nothing of the group.
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

/// Ends every process that carries `mark`, and waits until they are gone, for a second at most. Blocks.
///
/// Resource trackers of Python's `multiprocessing` remove the shared memory of those that were killed, and end by themselves when
/// nobody else is left: they are killed only where they take longer than that.
pub(crate) fn sweep(mark: Mark) {
    let clock = Clock::start();
    let begun = clock.now();
    let left = |limit: Duration| limit.saturating_sub(clock.now().since(begun));
    loop {
        let (trackers, others): (Vec<_>, Vec<_>) =
            marked(mark).into_iter().partition(|(pid, _)| is_resource_tracker(*pid));
        if others.is_empty() && !trackers.is_empty() && wait(&trackers, || left(TRACKER_MAX)) {
            continue;
        }
        let victims = if others.is_empty() { trackers } else { others };
        for (_, pidfd) in &victims {
            // It fails where the process has ended, or may not be ended by this user.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        wait(&victims, || left(SWEEP_MAX));
        // What was started meanwhile is found by another pass.
        if victims.is_empty() || left(SWEEP_MAX).is_zero() {
            return;
        }
    }
}

/// The living processes that carry `mark`.
fn marked(mark: Mark) -> Vec<(Pid, OwnedFd)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| mark.is_on(*pid))
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        // Looked at again: before it was opened, the number may have gone to another process.
        .filter(|(pid, pidfd)| mark.is_on(*pid) && !has_ended(pidfd, || Duration::ZERO))
        .collect()
}

fn is_resource_tracker(pid: Pid) -> bool {
    // `python -c 'from multiprocessing.resource_tracker import main;main(5)'`; joblib's has the same name.
    std::fs::read_to_string(file(pid, "cmdline")).is_ok_and(|line| line.contains("resource_tracker"))
}

/// Waits until all have ended. False: the time was over before.
fn wait(processes: &[(Pid, OwnedFd)], left: impl Fn() -> Duration) -> bool {
    processes.iter().all(|(_, pidfd)| has_ended(pidfd, &left))
}

/// Whether the process has ended, or does in the time that is left.
fn has_ended(pidfd: &OwnedFd, left: impl Fn() -> Duration) -> bool {
    loop {
        let within = left();
        let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return ended == Ok(1),
        }
    }
}

fn file(pid: Pid, name: &str) -> String {
    format!("/proc/{}/{name}", pid.as_raw_nonzero())
}
