//! Accepts connections, as many as `connections_max` allows.
//!
//! Reads a bound port, hands each connection to `connection`. A connection over the limit is refused in HTTP/1.1,
//! whose answer any client can show. Knows nothing of what is spoken on the others.

use std::sync::Arc;
use std::time::Duration;

use inferd_types::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection;
use super::socket::after_accept_error;
use crate::admit::caller::Peer;
use crate::lifecycle::{Lifecycle, reached};
use crate::observe::failures::LogSubject;
use crate::server_state::{Connected, ServerState};

/// How long a refused connection may take to read the refusal.
const REFUSAL_MAX: Duration = Duration::from_millis(200);

/// Accepts until every admitted request is answered; `permits` bounds the open connections.
pub(crate) async fn accept(listener: TcpListener, server: Arc<ServerState>, permits: Arc<Semaphore>) {
    let mut lifecycle = server.lifecycle.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            () = reached(&mut lifecycle, Lifecycle::Closing) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            after_accept_error().await;
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            refuse(stream, &server);
            continue;
        };
        // An answer is written whole: waiting to fill a segment would only delay it.
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, Peer { address }, server.clone(), permit));
    }
}

async fn serve(stream: TcpStream, peer: Peer, server: Arc<ServerState>, permit: OwnedSemaphorePermit) {
    connection::serve(stream, Arc::new(Connected { server, peer })).await;
    drop(permit);
}

/// Answers 503 and closes, in a task of its own and within [`REFUSAL_MAX`].
fn refuse(stream: TcpStream, server: &ServerState) {
    let error = Error::new(
        ErrorKind::Overloaded,
        format!(
            "connections_max = {} connections are open; use fewer, or raise connections_max",
            server.settings.connections_max
        ),
    );
    server.metrics.unrouted().refused("connections_max");
    server.failures.log(server.clock.now(), &error, LogSubject::default());
    let body = inferd_protocol::error_body(&error);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    tokio::spawn(async move {
        // Reads what was sent: a socket closed over unread bytes resets, and the answer is lost.
        let exchange = async {
            let mut stream = stream;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            let mut sink = [0; 4096];
            while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {}
        };
        let _ = tokio::time::timeout(REFUSAL_MAX, exchange).await;
    });
}
