//! Serves one connection: tells HTTP/2 from HTTP/1.1 by its first bytes and hands requests on.
//!
//! Reads a stream, hands each request to `route`, ends the connection when it is slow, idle or the server stops.
//! Knows nothing of paths or models, nor of what carries the bytes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::activity::{ActiveRequest, Activity, Progress};
use super::io::Detected;
use super::wake::{WakeFlag, when_woken};
use crate::lifecycle::{Lifecycle, reached};
use crate::route::dispatch;
use crate::server_state::Connected;

/// HTTP/1.1 connections without a request for this long are closed. Longer than clients keep them in their pools
/// (nginx 60 s, most libraries 15–90 s), so that the client is the one to close and no request meets a closing
/// socket.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How often a silent HTTP/2 peer is pinged, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// hyper reads into a buffer of at most this size (its own default); heads are held to `header_max_bytes` by
/// `admit`, whose refusal is answered in JSON.
const READ_BUFFER_BYTES: usize = 400 * 1024;

/// Serves `stream` until either side is done with it.
pub(crate) async fn serve<S>(stream: S, connected: Arc<Connected>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut lifecycle = connected.server.lifecycle.subscribe();
    let limit = connected.server.settings.header_timeout_s.0;
    let detected = tokio::select! {
        detected = timeout(limit, Detected::read(stream)) => detected,
        () = reached(&mut lifecycle, Lifecycle::Closing) => return,
    };
    let Ok(Ok(Some(detected))) = detected else {
        // There is no request to answer: closed at once, whether cut short or slow.
        return;
    };
    if detected.http2 {
        http2(detected, connected, lifecycle).await
    } else {
        http1(detected, connected, lifecycle).await
    }
}

async fn http1<S>(detected: Detected<S>, connected: Arc<Connected>, mut lifecycle: watch::Receiver<Lifecycle>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let clock = connected.server.clock;
    let activity = Activity::start(clock);
    let limit = connected.server.settings.header_timeout_s.0;
    let service = service_fn({
        let activity = activity.clone();
        move |request| dispatch::http1(connected.clone(), request, ActiveRequest::start(&activity))
    });
    let io = detected.into_io(Some(activity.clone()));
    // No timer: hyper would set and drop one for each request. `tick` below does the same with one for all.
    let connection = http1::Builder::new().max_buf_size(READ_BUFFER_BYTES).serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut tick = pin!(sleep(limit));
    let mut idle_since = None;
    let mut awaited = Lifecycle::Draining;
    let flag = Arc::new(WakeFlag::default());
    loop {
        let stops_or_ticks = async {
            tokio::select! {
                () = reached(&mut lifecycle, awaited) => true,
                () = tick.as_mut() => false,
            }
        };
        let stops = tokio::select! {
            biased;
            _result = connection.as_mut() => return,
            stops = when_woken(&flag, stops_or_ticks) => stops,
        };
        if stops {
            if *lifecycle.borrow() == Lifecycle::Closed {
                return;
            }
            awaited = Lifecycle::Closed;
            connection.as_mut().graceful_shutdown();
            continue;
        }
        let now = clock.now();
        let next = match activity.progress() {
            Progress::ReadingHead { since } if now.since(since) >= limit => return,
            Progress::ReadingHead { since } => limit - now.since(since),
            Progress::InRequest => {
                idle_since = None;
                limit
            }
            Progress::Idle { after } => match idle_since {
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

async fn http2<S>(detected: Detected<S>, connected: Arc<Connected>, mut lifecycle: watch::Receiver<Lifecycle>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &connected.server.settings;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(u32::try_from(settings.header_max_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = service_fn({
        let connected = connected.clone();
        move |request| dispatch::http2(connected.clone(), request)
    });
    let mut connection = pin!(builder.serve_connection(detected.into_io(None), service));
    let mut awaited = Lifecycle::Draining;
    loop {
        tokio::select! {
            biased;
            _result = connection.as_mut() => return,
            () = reached(&mut lifecycle, awaited) => {
                if *lifecycle.borrow() == Lifecycle::Closed {
                    return;
                }
                awaited = Lifecycle::Closed;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
