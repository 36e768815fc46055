//! Serves one connection: tells HTTP/2 from HTTP/1.1 by its first bytes and hands requests on.
//!
//! Reads a TCP stream, hands each request to `service`, ends the connection when it is slow, idle or the server
//! stops. Knows nothing of paths or models.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use inferd_types::{Clock, Time};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::route::dispatch;
use crate::state::{Phase, Shared};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// HTTP/1.1 connections without a request for this long are closed. Longer than clients keep them in their pools
/// (nginx 60 s, most libraries 15–90 s), so that the client is the one to close and no request meets a closing
/// socket.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// hyper reads into a buffer of at most this size (its own default); heads are held to `header_max_bytes` by
/// `service`, which can answer in JSON.
const READ_BUFFER_BYTES: usize = 400 * 1024;

/// Answers up to this size are written in one piece.
const JOIN_MAX_BYTES: usize = 1024;

/// Serves `stream` until either side is done with it.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    let limit = shared.settings.header_timeout_s.0;
    let began = tokio::select! {
        began = timeout(limit, Began::read(stream)) => began,
        () = changed(&mut phase, Phase::Ending) => return,
    };
    let Ok(Ok(Some(began))) = began else {
        // Nothing was asked, so nobody is answered: closed at once, cut short or slow.
        return;
    };
    if began.http2 { http2(began, shared, phase).await } else { http1(began, shared, phase).await }
}

/// Waits until the server is in `wanted` or a later phase.
async fn changed(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // The sender lives in `Shared`, which the caller holds; were it gone, it would be time to stop too.
    let _ = phase.wait_for(|now| *now >= wanted).await;
}

async fn http1(began: Began, shared: Arc<Shared>, mut phase: watch::Receiver<Phase>) {
    let activity = Arc::new(Activity { clock: shared.clock, head_began: AtomicU64::new(0) });
    activity.bytes_came();
    let limit = shared.settings.header_timeout_s.0;
    let service = service_fn({
        let (shared, activity) = (shared.clone(), activity.clone());
        move |request| {
            let busy = Busy::start(&activity);
            dispatch::http1(shared.clone(), request, busy)
        }
    });
    let io = Io {
        stream: TokioIo::new(began.stream),
        first: began.first,
        at: 0,
        activity: Some(activity.clone()),
    };
    // No timer: hyper would set and drop one for each request. `tick` below does the same with one for all.
    let connection = http1::Builder::new().max_buf_size(READ_BUFFER_BYTES).serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut tick = pin!(sleep(limit));
    let mut idle_since = None;
    let mut wanted = Phase::Draining;
    let bell = Arc::new(Bell::default());
    loop {
        let moved_on = async {
            tokio::select! {
                () = changed(&mut phase, wanted) => true,
                () = tick.as_mut() => false,
            }
        };
        let moved_on = tokio::select! {
            biased;
            _result = connection.as_mut() => return,
            moved_on = seldom(&bell, moved_on) => moved_on,
        };
        if moved_on {
            if *phase.borrow() == Phase::Closed {
                return;
            }
            wanted = Phase::Closed;
            connection.as_mut().graceful_shutdown();
            continue;
        }
        let now = shared.clock.now();
        let next = match activity.seen() {
            Seen::Head { since } if now.since(since) >= limit => return,
            Seen::Head { since } => limit - now.since(since),
            Seen::Request => {
                idle_since = None;
                limit
            }
            Seen::Nothing { after } => match idle_since {
                Some((same, since)) if same == after && now.since(since) >= IDLE_MAX => return,
                Some((same, _)) if same == after => limit,
                _ => {
                    idle_since = Some((after, now));
                    limit
                }
            },
        };
        tick.as_mut().reset(tokio::time::Instant::now() + next);
    }
}

/// Wakes a task, and remembers that it did.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Release);
        self.task.wake();
    }
}

/// `inner`, looked at only when it has something to say: beside a connection that wakes the task a hundred thousand
/// times a second, what ends it once would else be asked every time.
async fn seldom<T>(bell: &Arc<Bell>, inner: impl Future<Output = T>) -> T {
    let mut inner = pin!(inner);
    let waker = Waker::from(bell.clone());
    bell.rung.store(true, Release);
    poll_fn(|context| {
        if !bell.rung.swap(false, AcqRel) {
            return Poll::Pending;
        }
        bell.task.register(context.waker());
        inner.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

async fn http2(began: Began, shared: Arc<Shared>, mut phase: watch::Receiver<Phase>) {
    let settings = &shared.settings;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(u32::try_from(settings.header_max_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = service_fn({
        let shared = shared.clone();
        move |request| dispatch::http2(shared.clone(), request)
    });
    let io = Io { stream: TokioIo::new(began.stream), first: began.first, at: 0, activity: None };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut wanted = Phase::Draining;
    loop {
        tokio::select! {
            biased;
            _result = connection.as_mut() => return,
            () = changed(&mut phase, wanted) => {
                if *phase.borrow() == Phase::Closed {
                    return;
                }
                wanted = Phase::Closed;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A stream whose first bytes have been read.
struct Began {
    stream: TcpStream,
    first: First,
    http2: bool,
}

/// Bytes read to tell the protocols apart.
#[derive(Default)]
struct First {
    bytes: [u8; PREFACE.len()],
    len: usize,
}

impl Began {
    /// Reads as many bytes as it takes; `None` where the peer closed before.
    async fn read(mut stream: TcpStream) -> io::Result<Option<Began>> {
        let mut first = First::default();
        loop {
            let read = stream.read(&mut first.bytes[first.len..]).await?;
            if read == 0 {
                return Ok(None);
            }
            first.len += read;
            let http2 = first.bytes == *PREFACE;
            if http2 || !PREFACE.starts_with(&first.bytes[..first.len]) {
                return Ok(Some(Began { stream, first, http2 }));
            }
        }
    }
}

/// The stream as hyper reads it: first what was read already, then the rest.
struct Io {
    stream: TokioIo<TcpStream>,
    first: First,
    at: usize,
    /// Told when bytes come; HTTP/1.1 only.
    activity: Option<Arc<Activity>>,
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at < this.first.len {
            let len = (this.first.len - this.at).min(into.remaining());
            into.put_slice(&this.first.bytes[this.at..this.at + len]);
            this.at += len;
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        if polled.is_ready()
            && let Some(activity) = &this.activity
        {
            activity.bytes_came();
        }
        polled
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head and a small body: copied together here they cost the kernel less than as two pieces.
        let len: usize = bytes.iter().map(|piece| piece.len()).sum();
        let mut joined = [0; JOIN_MAX_BYTES];
        let Some(room) = joined.get_mut(..len).filter(|_| bytes.len() > 1) else {
            return Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        };
        let mut at = 0;
        for piece in bytes {
            room[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Pin::new(&mut self.stream).poll_write(context, room)
    }
}

/// Where an HTTP/1.1 connection is between two requests.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    /// Odd: nanoseconds of the clock when the first byte of a head came (the lowest bit is always set). `BUSY`:
    /// a request is under way. Any other even number: none is, and the number differs from request to request.
    head_began: AtomicU64,
}

enum Seen {
    /// Waiting for the first byte of the next head, since the request that `after` stands for. A part of a head that
    /// came together with the request before it can't be told from this; it is closed as idle.
    Nothing { after: u64 },
    /// A part of a head is there.
    Head { since: Time },
    /// A request is being read or answered.
    Request,
}

const BUSY: u64 = u64::MAX - 1;

impl Activity {
    fn bytes_came(&self) {
        let before = self.head_began.load(Relaxed);
        if before != BUSY && before & 1 == 0 {
            self.head_began.store(self.clock.now().as_nanos() | 1, Relaxed);
        }
    }

    fn seen(&self) -> Seen {
        match self.head_began.load(Relaxed) {
            BUSY => Seen::Request,
            time if time & 1 == 1 => Seen::Head { since: Time::from_nanos(time) },
            after => Seen::Nothing { after },
        }
    }
}

/// Marks the connection as busy with one request until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    activity: Arc<Activity>,
    /// When the first byte of the request came, as far as is known.
    pub(crate) arrived: Time,
}

impl Busy {
    fn start(activity: &Arc<Activity>) -> Busy {
        let arrived = match activity.head_began.swap(BUSY, Relaxed) {
            time if time & 1 == 1 => Time::from_nanos(time),
            // Its bytes came together with those of the request before it.
            _ => activity.clock.now(),
        };
        Busy { activity: activity.clone(), arrived }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // An even number that differs from request to request, so that a tick can tell silence from traffic.
        self.activity.head_began.store(self.arrived.as_nanos() & !1, Relaxed);
    }
}
