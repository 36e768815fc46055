//! Binds ports.
//!
//! Reads addresses from the settings, hands out listeners. Knows nothing of what is spoken on them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use inferd_types::{Error, ErrorKind, Result};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel holds while the accept loop is behind.
const BACKLOG: i32 = 1024;

/// Pause after a failed accept. Most likely the process is out of descriptors: closing connections will free some,
/// and trying again at once would only spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The address of the metrics port, always.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Listens on `host` and `port`; 0 takes a free port.
///
/// # Errors
/// `InvalidInput` where the address can't be bound; the message names the setting.
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
        // A restarted server must not wait for its predecessor's connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(failed)
}

fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    // `localhost` may be ::1 first; clients that say 127.0.0.1 would then find nothing.
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Waits before the next accept after one that failed.
pub(crate) async fn after_accept_error() {
    tokio::time::sleep(ACCEPT_RETRY).await;
}
