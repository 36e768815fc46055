//! One kept-alive connection with at most one request on it.
//!
//! Reads and writes a socket without ever waiting for it. Knows nothing of when requests are due.

use std::io::{ErrorKind, IoSliceMut, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use crate::answer::Answer;

/// The request that a connection carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Which message.
    message: usize,
    /// When it was due, from the start.
    pub(crate) intended: Duration,
    /// Bytes that have left.
    sent: usize,
}

/// What became of a look at a connection.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Nothing yet.
    More,
    /// An answer, and when its end came, since the epoch; `None` where the kernel does not tell.
    Answer { status: u16, stays: bool, came: Option<Duration> },
    /// It is of no use any more.
    Lost(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) asked: Option<Asked>,
    /// Of an answer that came in pieces.
    received: Vec<u8>,
    /// Its length, once that is known.
    whole: usize,
    /// Whether the poll tells when there is room to write.
    pub(crate) watches_writes: bool,
}

impl Connection {
    /// Begins to connect. A server whose backlog is full must not hold up the requests to come.
    pub(crate) fn open(address: SocketAddr) -> Result<Connection> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(fault) if fault.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(fault) => return Err(fault),
        }
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let socket = TcpStream::from(socket);
        Ok(Connection { socket, asked: None, received: Vec::new(), whole: 0, watches_writes: false })
    }

    /// Takes on a request; [`Connection::send`] sends it.
    pub(crate) fn ask(&mut self, message: usize, intended: Duration) {
        self.asked = Some(Asked { message, intended, sent: 0 });
    }

    /// Sends what has not left yet; whether all has.
    pub(crate) fn send(&mut self, messages: &[Vec<u8>]) -> Result<bool> {
        let Some(asked) = &mut self.asked else { return Ok(true) };
        let message = &messages[asked.message];
        while asked.sent < message.len() {
            match self.socket.write(&message[asked.sent..]) {
                Ok(bytes) => asked.sent += bytes,
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(true)
    }

    /// Reads once, by way of `buffer`.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Seen {
        let (bytes, came) = match self.read(buffer) {
            Ok((0, _)) => return Seen::Lost("the server closed the connection".to_owned()),
            Ok(read) => read,
            Err(Errno::EAGAIN | Errno::EINTR) => return Seen::More,
            Err(fault) => return Seen::Lost(format!("the connection was lost: {fault}")),
        };
        if self.asked.is_none() {
            return Seen::Lost("the server answered what nobody asked".to_owned());
        }
        let answer = if self.received.is_empty() {
            Answer::of(&buffer[..bytes])
        } else {
            self.received.extend_from_slice(&buffer[..bytes]);
            // A large answer is not parsed again with each of its pieces.
            if self.received.len() < self.whole {
                return Seen::More;
            }
            Answer::of(&self.received)
        };
        match answer {
            Answer::Partial(whole) => {
                if self.received.is_empty() {
                    self.received.extend_from_slice(&buffer[..bytes]);
                }
                self.whole = whole.unwrap_or(0);
                Seen::More
            }
            Answer::Whole { status, stays } => {
                self.received.clear();
                self.whole = 0;
                Seen::Answer { status, stays, came }
            }
            Answer::Broken(why) => Seen::Lost(why),
        }
    }

    /// How many bytes are in `buffer` now, and when the last of them came.
    fn read(&self, buffer: &mut [u8]) -> nix::Result<(usize, Option<Duration>)> {
        let (mut into, mut told) = ([IoSliceMut::new(buffer)], nix::cmsg_space!(TimeSpec));
        let read = recvmsg::<()>(self.socket.as_raw_fd(), &mut into, Some(&mut told), MsgFlags::empty())?;
        let came = read.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        Ok((read.bytes, came))
    }
}
