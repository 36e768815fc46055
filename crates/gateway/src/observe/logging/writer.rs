//! Writes log lines to a standard stream without blocking the caller.
//!
//! Reads lines, hands them to a thread that may block for ever or fail each time; lines over the bounds are dropped and
//! counted. Knows nothing of what the lines mean.
//!
//! The stream may be a pipe without a reader, a full disk or a closed terminal. It gets a thread and not a non-blocking
//! descriptor: that flag belongs to the open file, which other processes share.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_types::{Clock, Time};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Largest number of queued bytes of each share: seconds of a busy log, and small beside any model.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Largest number of bytes of each share in one second, and in one burst: ten times what a person can page through, at
/// most 86 GB a day.
const BYTES_PER_SECOND: usize = 512 << 10;
/// Bytes that a line is assumed to take before it is formatted.
const LINE_USUAL: usize = 128;
/// Time between two lines that report drops.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The source of a line. Each has bounds of its own: a model that prints without pause takes no room from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogShare {
    /// The server's own.
    Gateway,
    /// What models print.
    Workers,
    /// What the command line prints: bounded by the queue, at any speed.
    Console,
}

const SHARES: usize = 3;

/// Why a line was dropped.
#[derive(Clone, Copy, Debug)]
enum Reason {
    /// The stream takes nothing at present, or less than comes.
    Blocked,
    /// More than a log should take in a second.
    Rate,
    /// The stream refused it: closed, or a full disk.
    Failed,
}

const REASONS: [&str; 3] = ["blocked", "rate", "failed"];

/// Lines that were dropped, by reason. Several streams may count in one.
#[derive(Debug, Default)]
pub struct LogDrops {
    total: [AtomicU64; REASONS.len()],
    /// Not yet reported in the log.
    unreported: [AtomicU64; REASONS.len()],
}

impl LogDrops {
    /// Lines since the start by reason.
    pub fn totals(&self) -> [(&'static str, u64); REASONS.len()] {
        std::array::from_fn(|at| (REASONS[at], self.total[at].load(Ordering::Relaxed)))
    }

    fn count(&self, reason: Reason) {
        self.total[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.unreported[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn unreported(&self) -> DropCounts {
        std::array::from_fn(|at| (REASONS[at], self.unreported[at].load(Ordering::Relaxed)))
    }

    fn reported(&self, counts: &DropCounts) {
        for (left, (_, lines)) in self.unreported.iter().zip(counts) {
            left.fetch_sub(*lines, Ordering::Relaxed);
        }
    }

    fn any_unreported(&self) -> bool {
        self.unreported.iter().any(|lines| lines.load(Ordering::Relaxed) > 0)
    }
}

type DropCounts = [(&'static str, u64); REASONS.len()];
/// Makes the line that says how many lines were dropped, by reason.
type FormatDrops = Box<dyn Fn(&DropCounts) -> String + Send>;

/// One stream and its thread, which ends with this.
#[derive(Debug)]
pub struct LogWriter(Arc<LogStream>);

#[derive(Debug)]
struct LogStream {
    state: Mutex<Queue>,
    /// The thread waits for lines, `flush` for their end.
    changed: Condvar,
    drops: Arc<LogDrops>,
    clock: Clock,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<(LogShare, String)>,
    bytes: [usize; SHARES],
    budgets: [Budget; SHARES],
    /// A line has left the queue and is not written yet.
    writing: bool,
    /// A caller waits for the end: drops are reported at once.
    flushing: bool,
    closed: bool,
    format_drops: Option<FormatDrops>,
    reported_at: Time,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("lines", &self.lines.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What may be written in this second.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: usize,
    at: Time,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: BYTES_PER_SECOND, at: Time::ZERO }
    }
}

impl Budget {
    fn refill(&mut self, now: Time) {
        let gained = now.since(self.at).as_secs_f64() * BYTES_PER_SECOND as f64;
        self.left = self.left.saturating_add(gained as usize).min(BYTES_PER_SECOND);
        self.at = now;
    }
}

impl LogWriter {
    /// Starts the thread that writes to `stream`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        name: &str,
        stream: impl AsFd + Send + 'static,
        drops: Arc<LogDrops>,
    ) -> io::Result<LogWriter> {
        let shared = Arc::new(LogStream {
            state: Mutex::default(),
            changed: Condvar::new(),
            drops,
            clock: Clock::start(),
        });
        let writer = LogWriter(shared.clone());
        std::thread::Builder::new().name(name.into()).spawn(move || shared.write_all_to(stream.as_fd()))?;
        Ok(writer)
    }

    /// Whether lines of `share` are refused at present; the caller's line is counted then.
    pub fn refuses(&self, share: LogShare) -> bool {
        let mut state = self.0.lock();
        let refused = state.refuses(share, LINE_USUAL, self.0.clock.now());
        drop(state);
        self.count(refused)
    }

    /// Accepts a line with its end, or drops it. Never waits for the stream.
    pub fn write(&self, share: LogShare, line: String) {
        let mut state = self.0.lock();
        let refused = state.refuses(share, line.len(), self.0.clock.now());
        if refused.is_none() {
            state.budgets[share as usize].left -= if share == LogShare::Console { 0 } else { line.len() };
            state.bytes[share as usize] += line.len();
            state.lines.push_back((share, line));
        }
        drop(state);
        self.count(refused);
        self.0.changed.notify_all();
    }

    /// Waits until every accepted line is written and drops are reported, for `within` at most.
    ///
    /// Returns whether it is.
    pub fn flush(&self, within: Duration) -> bool {
        let mut state = self.0.lock();
        state.flushing = true;
        self.0.changed.notify_all();
        let busy = |state: &mut Queue| {
            let unreported = state.format_drops.is_some() && state.flushing && self.0.drops.any_unreported();
            state.writing || !state.lines.is_empty() || unreported
        };
        let waited = self.0.changed.wait_timeout_while(state, within, busy);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flushing = false;
        !timeout.timed_out()
    }

    /// Reports dropped lines in the stream itself, as soon as it takes lines again.
    pub(super) fn report_drops_by(&self, format_drops: FormatDrops) {
        self.0.lock().format_drops = Some(format_drops);
    }

    fn count(&self, refused: Option<Reason>) -> bool {
        if let Some(reason) = refused {
            self.0.drops.count(reason);
        }
        refused.is_some()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn refuses(&mut self, share: LogShare, bytes: usize, now: Time) -> Option<Reason> {
        let budget = &mut self.budgets[share as usize];
        budget.refill(now);
        if self.bytes[share as usize] + bytes > QUEUE_BYTES_MAX {
            Some(Reason::Blocked)
        } else if bytes > budget.left && share != LogShare::Console {
            Some(Reason::Rate)
        } else {
            None
        }
    }
}

impl LogStream {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: one line after another, until the writer is dropped.
    fn write_all_to(&self, stream: BorrowedFd<'_>) {
        let mut broken = false;
        let mut state = self.lock();
        loop {
            let now = self.clock.now();
            let due = state.flushing || now.since(state.reported_at) >= REPORT_INTERVAL;
            let reports = state.format_drops.is_some() && self.drops.any_unreported();
            let (line, counts) = if reports && due {
                state.reported_at = now;
                let counts = self.drops.unreported();
                (state.format_drops.as_ref().map(|format| format(&counts)).unwrap_or_default(), Some(counts))
            } else if let Some((share, line)) = state.lines.pop_front() {
                state.bytes[share as usize] -= line.len();
                (line, None)
            } else if state.closed {
                return;
            } else {
                let waited = if reports {
                    self.changed
                        .wait_timeout(state, REPORT_INTERVAL)
                        .map(|(state, _)| state)
                        .map_err(|error| error.into_inner().0)
                } else {
                    self.changed.wait(state).map_err(PoisonError::into_inner)
                };
                state = waited.unwrap_or_else(|state| state);
                continue;
            };
            state.writing = true;
            drop(state);
            let written = write_line(stream, &line, &mut broken);
            match (written, counts) {
                (Ok(()), Some(counts)) => self.drops.reported(&counts),
                (Ok(()), None) => {}
                (Err(_), None) => self.drops.count(Reason::Failed),
                // Reported later.
                (Err(_), Some(_)) => {}
            }
            state = self.lock();
            state.writing = false;
            // Where not even that can be written, there is no use in waiting for it.
            state.flushing &= written.is_ok();
            self.changed.notify_all();
        }
    }
}

/// Writes a line whole; `broken` says that the stream ends within one.
fn write_line(stream: BorrowedFd<'_>, line: &str, broken: &mut bool) -> Result<(), Errno> {
    if *broken {
        write(stream, b"\n")?;
        *broken = false;
    }
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match write(stream, rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) => {
                *broken = rest.len() < line.len();
                return Err(error);
            }
        }
    }
    Ok(())
}

fn write(stream: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::write(stream, bytes) {
            Ok(0) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            // Another process that shares the file made it so.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], None).map(drop).or_else(
                    |error| {
                        if error == Errno::INTR { Ok(()) } else { Err(error) }
                    },
                )?;
            }
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn piped() -> (LogWriter, PipeReader, Arc<LogDrops>) {
        let (reader, stream) = io::pipe().unwrap();
        let drops = Arc::new(LogDrops::default());
        (reporting(stream, &drops), reader, drops)
    }

    fn reporting(stream: impl AsFd + Send + 'static, drops: &Arc<LogDrops>) -> LogWriter {
        let writer = LogWriter::start("log", stream, drops.clone()).unwrap();
        writer.report_drops_by(Box::new(|counts| format!("dropped {counts:?}\n")));
        writer
    }

    fn count(drops: &LogDrops, reason: Reason) -> u64 {
        drops.totals()[reason as usize].1
    }

    fn line(number: usize, length: usize) -> String {
        format!("{number:0width$}\n", width = length - 1)
    }

    #[test]
    fn lines_arrive_in_order_and_whole() {
        let (writer, reader, drops) = piped();
        for number in 0..1000 {
            writer.write(LogShare::Gateway, line(number, 50));
        }
        assert!(writer.flush(PATIENCE), "a pipe takes that much unread");
        drop(writer);
        let lines: Vec<usize> =
            BufReader::new(reader).lines().map(|line| line.unwrap().parse().unwrap()).collect();
        assert_eq!(lines, (0..1000).collect::<Vec<_>>());
        assert_eq!(drops.totals().map(|(_, lines)| lines), [0; 3]);
    }

    #[test]
    fn a_stream_without_a_reader_delays_no_caller_and_drops_are_reported_once_it_is_read() {
        let (writer, reader, drops) = piped();
        let lines = 4 * QUEUE_BYTES_MAX / 1024;
        for number in 0..lines {
            writer.write(LogShare::Console, line(number, 1024));
        }
        assert!(!writer.flush(Duration::from_millis(20)), "it is bounded");
        let dropped = count(&drops, Reason::Blocked) as usize;
        // The queue and what the pipe holds are left.
        assert!((lines - dropped) * 1024 >= QUEUE_BYTES_MAX, "{dropped} of {lines}");
        assert!((lines - dropped) * 1024 <= QUEUE_BYTES_MAX + (1 << 18), "{dropped} of {lines}");
        let read = std::thread::spawn(move || {
            BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>()
        });
        assert!(writer.flush(PATIENCE));
        drop(writer);
        let (reports, kept): (Vec<_>, Vec<_>) =
            read.join().unwrap().into_iter().partition(|line| line.starts_with("dropped"));
        assert_eq!(kept.len(), lines - dropped);
        assert!(reports.iter().any(|line| line.contains("blocked")), "{reports:?}");
        assert!(!drops.any_unreported());
    }

    #[test]
    fn a_stream_that_is_closed_or_full_is_counted_and_nothing_else() {
        let (reader, stream): (PipeReader, PipeWriter) = io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let drops = Arc::new(LogDrops::default());
        let writers = [reporting(stream, &drops), reporting(full, &drops)];
        for writer in &writers {
            for number in 0..10 {
                writer.write(LogShare::Gateway, line(number, 100));
            }
            writer.flush(PATIENCE);
        }
        // The first failure ends flushing.
        while count(&drops, Reason::Failed) < 20 {
            std::thread::yield_now();
        }
        assert_eq!(drops.totals().map(|(_, lines)| lines), [0, 0, 20]);
    }

    #[test]
    fn a_flood_is_bounded_and_takes_nothing_from_the_other_share() {
        let sink = File::options().write(true).open("/dev/null").unwrap();
        let drops = Arc::new(LogDrops::default());
        let writer = reporting(sink, &drops);
        let mut taken = 0;
        while count(&drops, Reason::Rate) == 0 {
            writer.write(LogShare::Workers, line(0, 16 << 10));
            taken += 1;
            // More than what a second allows passes only on a machine that stands still for seconds here.
            assert!(taken < 100 * BYTES_PER_SECOND / (16 << 10));
        }
        assert!(taken > BYTES_PER_SECOND / (16 << 10));
        assert!(!writer.refuses(LogShare::Gateway));
        writer.write(LogShare::Gateway, line(0, 16 << 10));
        assert!(writer.flush(PATIENCE));
        assert_eq!(count(&drops, Reason::Blocked), 0);
    }

    #[test]
    fn a_budget_holds_one_second_and_refills_with_time() {
        let mut state = Queue::default();
        let second = |seconds| Time::ZERO + Duration::from_secs(seconds);
        assert!(state.refuses(LogShare::Gateway, BYTES_PER_SECOND, second(0)).is_none());
        assert!(
            state.refuses(LogShare::Gateway, BYTES_PER_SECOND + 1, second(100)).is_some(),
            "no more than a second's"
        );
        state.budgets[0].left = 0;
        assert!(state.refuses(LogShare::Gateway, 1, second(100)).is_some());
        assert!(state.refuses(LogShare::Gateway, BYTES_PER_SECOND, second(101)).is_none());
    }
}
