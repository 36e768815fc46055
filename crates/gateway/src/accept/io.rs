//! The stream of a connection as hyper reads and writes it.
//!
//! Reads the first bytes, which tell HTTP/2 from HTTP/1.1, and gives them back before the rest. Knows nothing of what
//! carries the bytes: TCP, TLS or a test's pipe.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::activity::Activity;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers up to this size are written in one piece.
const JOIN_MAX_BYTES: usize = 1024;

/// A stream whose protocol is known.
pub(super) struct Detected<S> {
    stream: S,
    first: FirstBytes,
    pub(super) http2: bool,
}

/// Bytes read to tell the protocols apart.
#[derive(Default)]
struct FirstBytes {
    bytes: [u8; PREFACE.len()],
    len: usize,
}

impl<S: AsyncRead + Unpin> Detected<S> {
    /// Reads as many bytes as it takes; `None` where the peer closed before.
    pub(super) async fn read(mut stream: S) -> io::Result<Option<Detected<S>>> {
        let mut first = FirstBytes::default();
        loop {
            let read = stream.read(&mut first.bytes[first.len..]).await?;
            if read == 0 {
                return Ok(None);
            }
            first.len += read;
            let http2 = first.bytes == *PREFACE;
            if http2 || !PREFACE.starts_with(&first.bytes[..first.len]) {
                return Ok(Some(Detected { stream, first, http2 }));
            }
        }
    }
}

impl<S> Detected<S> {
    /// The stream for hyper; `activity` learns of bytes that come.
    pub(super) fn into_io(self, activity: Option<Arc<Activity>>) -> ConnectionIo<S> {
        ConnectionIo { stream: TokioIo::new(self.stream), first: self.first, at: 0, activity }
    }
}

/// The stream as hyper reads it: first what was read already, then the rest.
pub(super) struct ConnectionIo<S> {
    stream: TokioIo<S>,
    first: FirstBytes,
    at: usize,
    /// HTTP/1.1 only.
    activity: Option<Arc<Activity>>,
}

impl<S: AsyncRead + Unpin> Read for ConnectionIo<S> {
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
            activity.bytes_received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Write for ConnectionIo<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn detect(pieces: &[&[u8]]) -> Option<Detected<tokio::io::DuplexStream>> {
        let (mut client, stream) = tokio::io::duplex(64);
        let send = async move {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(send, Detected::read(stream)).1.unwrap()
    }

    #[tokio::test]
    async fn the_first_bytes_of_any_stream_tell_its_protocol() {
        let (half, rest) = PREFACE.split_at(10);
        assert!(detect(&[PREFACE]).await.unwrap().http2);
        assert!(detect(&[half, rest]).await.unwrap().http2);
        let other = detect(&[half, b"GET"]).await.unwrap();
        assert!(!other.http2);
        assert_eq!(&other.first.bytes[..other.first.len], b"PRI * HTTPGET");
        assert!(detect(&[half]).await.is_none(), "closed before it could be told");
        assert!(detect(&[]).await.is_none());
    }
}
