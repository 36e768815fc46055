//! Forwards the standard streams of a worker to the log.
//!
//! Reads a pipe, hands on lines to `tracing` with the model's name. Does not interpret them.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::Receiver;

/// Maximum length of a line in bytes; a longer one is split.
const LINE_MAX: usize = 8 << 10;

/// The origin of the lines.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) model: String,
    pub(crate) version: u64,
    pub(crate) replica: usize,
}

/// Reads until the pipe's end, or until `ended` and nothing is left: a child of the worker may hold the pipe open.
pub(crate) async fn follow(pipe: OwnedFd, source: Source, ended: impl Future) -> io::Result<()> {
    let pipe = Receiver::from_owned_fd(pipe)?;
    let mut lines = Lines::default();
    let mut emit = |line: &str| {
        let Source { model, version, replica } = &source;
        tracing::info!(target: "worker", model, version, replica, "{line}");
    };
    let mut buffer = [0; 4096];
    tokio::pin!(ended);
    loop {
        let over = tokio::select! {
            biased;
            ready = pipe.readable() => { ready?; false }
            _ = &mut ended => true,
        };
        loop {
            match pipe.try_read(&mut buffer) {
                Ok(0) => {
                    lines.end(&mut emit);
                    return Ok(());
                }
                Ok(read) => lines.push(&buffer[..read], &mut emit),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            // A worker that writes continuously must not occupy this thread.
            tokio::task::consume_budget().await;
        }
        if over {
            lines.end(&mut emit);
            return Ok(());
        }
    }
}

/// Splits bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end], emit);
            self.end(emit);
            bytes = &bytes[end + 1..];
        }
        self.add(bytes, emit);
    }

    fn add(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&str)) {
        while self.rest.len() + bytes.len() > LINE_MAX {
            let (now, later) = bytes.split_at(LINE_MAX - self.rest.len());
            self.rest.extend_from_slice(now);
            self.end(emit);
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
    }

    fn end(&mut self, emit: &mut impl FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.rest);
        let line = line.trim_end();
        if !line.is_empty() {
            emit(line);
        }
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, &mut |line: &str| out.push(line.to_owned()));
        }
        lines.end(&mut |line: &str| out.push(line.to_owned()));
        out
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(cut(&[b"one\ntw", b"o\r\n\n\n", b"three"]), ["one", "two", "three"]);
        assert_eq!(cut(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = vec![b'x'; 3 * LINE_MAX + 5];
        let lengths: Vec<_> = cut(&[&long]).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, LINE_MAX, 5]);
    }
}
