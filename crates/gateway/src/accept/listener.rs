//! Binds ports and accepts connections.
//!
//! Reads the address from the settings, hands each connection to `connection`. Knows nothing of what is spoken on
//! it; whoever is one too many is told so in HTTP/1.1, the protocol that any client shows to a person.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use inferd_types::{Error, ErrorKind, Result};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::accept::connection;
use crate::state::{Phase, Shared};

/// Connections that the kernel holds while the accept loop is behind.
const BACKLOG: i32 = 1024;

/// Listens on `host` and `port`; 0 takes a free port.
///
/// # Errors
/// `InvalidInput` where the address can't be had; the message names the setting.
pub(crate) fn bind(host: &str, port: u16, setting: &'static str) -> Result<TcpListener> {
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("cannot listen on {host}:{port}: {error}; set {setting} to a free port, or to 0 for any"),
        )
    };
    let address = resolve(host, port).map_err(failed)?;
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restarted server must not wait for the connections of the one before it to fade.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(failed)
}

/// Where the metrics are: never anywhere but here.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    // `localhost` may be ::1 first; clients that say 127.0.0.1 would then find nothing.
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Accepts until all that was admitted is answered; `places` bounds the open connections.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>, places: Arc<Semaphore>) {
    let mut phase = shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Ending) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _peer)) = accepted else {
            after_accept_error().await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(stream, &shared);
            continue;
        };
        // An answer is written whole: waiting to fill a segment would only delay it.
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, shared.clone(), place));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, place: OwnedSemaphorePermit) {
    connection::serve(stream, shared).await;
    drop(place);
}

/// Out of descriptors, most likely: closing connections will free some; trying at once again would only spin.
pub(crate) async fn after_accept_error() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Says why and closes, beside the accept loop and for a moment only.
fn refuse(stream: TcpStream, shared: &Shared) {
    let error = Error::new(
        ErrorKind::Overloaded,
        format!(
            "connections_max = {} connections are open; use fewer, or raise connections_max",
            shared.settings.connections_max
        ),
    );
    shared.metrics.unrouted().refused("connections_max");
    shared.log.failure(shared.clock.now(), &error, crate::observe::failures::Of::default());
    let body = inferd_protocol::error_body(&error);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    tokio::spawn(async move {
        // Reading what was sent first: a socket closed over unread bytes resets, and the answer is lost.
        let talk = async {
            let mut stream = stream;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            let mut sink = [0; 4096];
            while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await, Ok(read) if read > 0)
            {
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), talk).await;
    });
}
