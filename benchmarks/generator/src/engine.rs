//! One thread that sends when something is due and reads now and then while nothing is.
//!
//! The kernel notes when an answer came. So nobody has to wait for it awake, and no server pays for waking the load
//! with every answer.
//!
//! Reads a job, hands back a record. Draws no times and judges no answer.

use std::collections::VecDeque;
use std::io::Result;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use inferd_types::{Clock, Time};
use rustix::event::{Timespec, epoll};
use rustix::thread::nanosleep;
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{Connection, Seen};
use crate::job::Job;
use crate::record::{Lateness, Record};

/// With more than this many under way the server is lost anyway.
const CONNECTIONS_MAX: usize = 4000;
/// Until the first request is due: opening what is needed at once takes a moment.
const LEAD: Duration = Duration::from_millis(50);
/// Connections that are looked at after one call of the kernel.
const EVENTS_MAX: usize = 64;
/// The kernel wakes a sleeper some 50 µs late: the last stretch is waited for awake, on a core that is there for it.
const SPIN: Duration = Duration::from_micros(100);
/// How often answers are looked for. Longer, and more connections would be needed.
const LOOK: Duration = Duration::from_micros(500);
/// An answer that is larger comes in pieces.
const BUFFER_BYTES: usize = 1 << 16;

/// See the module.
pub(crate) struct Engine<'job> {
    job: &'job Job,
    clock: Clock,
    poll: OwnedFd,
    /// By number; a number is given again once its connection is closed.
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    /// Numbers of connections without a request, the last used last: it is the likeliest to be awake on both sides.
    idle: Vec<usize>,
    busy: usize,
    /// Connections that have something.
    ready: VecDeque<(usize, epoll::EventFlags)>,
    events: Vec<epoll::Event>,
    /// When they were looked for.
    looked: Time,
    buffer: Vec<u8>,
    late: Vec<Duration>,
    /// Time spent on sending and reading.
    own: Duration,
    record: Record,
}

impl Engine<'_> {
    pub(crate) fn new(job: &Job) -> Result<Engine<'_>> {
        Ok(Engine {
            job,
            clock: Clock::start(),
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            vacant: Vec::new(),
            idle: Vec::new(),
            busy: 0,
            ready: VecDeque::with_capacity(EVENTS_MAX),
            events: Vec::with_capacity(EVENTS_MAX),
            looked: Time::ZERO,
            buffer: vec![0; BUFFER_BYTES],
            late: Vec::with_capacity(job.due.len()),
            own: Duration::ZERO,
            record: Record { latencies_s: Vec::with_capacity(job.due.len()), ..Record::default() },
        })
    }

    /// Sends all there is, and waits for the answers as long as there is patience.
    pub(crate) fn run(mut self) -> Result<Record> {
        let start = self.clock.now() + LEAD;
        let end = start + self.job.due.last().copied().unwrap_or_default() + self.job.patience;
        let mut next = 0;
        while next < self.job.due.len() || self.busy > 0 {
            let now = self.clock.now();
            if now > end {
                let left = self.busy + self.job.due.len() - next;
                self.record.failed(|| "not answered in time".to_owned());
                self.record.errors += left as u64 - 1;
                break;
            }
            // One answer at a time, so that a burst of them delays no request: those would leave together then, and
            // look to the server like callers that return.
            let due = self.job.due.get(next).copied();
            if let Some(intended) = due.filter(|intended| now >= start + *intended) {
                self.send(start, next, intended);
                next += 1;
                self.own += self.clock.now().since(now);
            } else if let Some((number, flags)) = self.ready.pop_front() {
                self.look(start, number, flags);
                self.own += self.clock.now().since(now);
            } else {
                let due = due.map_or(end, |due| start + due - SPIN);
                self.wait(now, due)?;
            }
        }
        let sent = self.late.len().max(1) as f64;
        self.record.own_request_s = self.own.as_secs_f64() / sent;
        self.record.lateness_s = Lateness::of(mem::take(&mut self.late));
        Ok(self.record)
    }

    fn send(&mut self, start: Time, message: usize, intended: Duration) {
        if self.busy >= CONNECTIONS_MAX {
            return self.record.failed(|| format!("{CONNECTIONS_MAX} requests are under way already"));
        }
        let number = match self.idle.pop() {
            Some(number) => number,
            None => match self.open() {
                Ok(number) => number,
                Err(fault) => return self.record.failed(|| format!("no connection: {fault}")),
            },
        };
        self.busy += 1;
        if let Some(connection) = &mut self.connections[number] {
            connection.ask(message % self.job.messages.len(), intended);
        }
        self.flush(number);
        self.late.push(self.clock.now().since(start + intended));
    }

    fn open(&mut self) -> Result<usize> {
        let connection = Connection::open(self.job.address)?;
        let number = self.vacant.pop().unwrap_or(self.connections.len());
        epoll::add(
            &self.poll,
            &connection.socket,
            epoll::EventData::new_u64(number as u64),
            epoll::EventFlags::IN,
        )?;
        if number == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[number] = Some(connection);
        self.record.connections += 1;
        Ok(number)
    }

    /// Sends what a connection has to send; what finds no room leaves when there is some.
    fn flush(&mut self, number: usize) {
        let Some(connection) = &mut self.connections[number] else { return };
        let blocked = match connection.send(&self.job.messages) {
            Ok(all) => !all,
            Err(fault) => return self.lose(number, format!("a request could not be sent: {fault}")),
        };
        if blocked != connection.watches_writes {
            let writes = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let (data, flags) = (epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN | writes);
            match epoll::modify(&self.poll, &connection.socket, data, flags) {
                Ok(()) => connection.watches_writes = blocked,
                Err(fault) => self.lose(number, format!("a connection can't be watched: {fault}")),
            }
        }
    }

    /// Reads from, or goes on writing to, a connection that has something.
    fn look(&mut self, start: Time, number: usize, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(number);
        }
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
            return;
        }
        let Some(connection) = &mut self.connections[number] else { return };
        match connection.receive(&mut self.buffer) {
            Seen::More => {}
            Seen::Lost(why) => self.lose(number, why),
            Seen::Answer { status, stays, came } => {
                let Some(asked) = connection.asked.take() else { return };
                self.busy -= 1;
                let came = self.clock.now() - came.map_or(Duration::ZERO, since);
                self.record.answered(status, came.since(start + asked.intended));
                if stays { self.idle.push(number) } else { self.close(number) }
            }
        }
    }

    fn lose(&mut self, number: usize, why: String) {
        let asked = self.connections[number].as_mut().and_then(|connection| connection.asked.take());
        if asked.is_some() {
            self.busy -= 1;
            self.record.failed(|| why);
        } else {
            self.idle.retain(|idle| *idle != number);
        }
        self.close(number);
    }

    /// Closing it takes it out of the poll; what was seen of it before is not for whoever gets its number.
    fn close(&mut self, number: usize) {
        self.connections[number] = None;
        self.vacant.push(number);
        self.ready.retain(|(ready, _)| *ready != number);
    }

    /// Until something is `due` or it is time to look for answers; looks then.
    fn wait(&mut self, now: Time, due: Time) -> Result<()> {
        let look = self.looked + LOOK;
        if now < look {
            sleep(look.min(due).since(now));
            return Ok(());
        }
        self.looked = now;
        self.events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut self.events), Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(fault) => return Err(fault.into()),
        }
        let seen = self.events.iter().map(|event| (event.data.u64() as usize, event.flags));
        self.ready.extend(seen);
        // There may be more than were asked for.
        if self.events.len() == EVENTS_MAX {
            self.looked = Time::ZERO;
        }
        Ok(())
    }
}

/// How long ago it was `time` after the epoch.
fn since(time: Duration) -> Duration {
    let now = Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default();
    now.saturating_sub(time)
}

/// At least for `time`, unless it is cut short: whoever sleeps looks again.
fn sleep(time: Duration) {
    // Even for no time at all the kernel would sleep some 50 µs.
    if let Some(time) = Timespec::try_from(time).ok().filter(|_| !time.is_zero()) {
        let _ = nanosleep(&time);
    }
}
