//! Control messages: one JSON value per packet, with file descriptors beside it.
//!
//! Sends and receives packets on a SOCK_SEQPACKET pair.
//! Knows nothing of what they say.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use smallvec::SmallVec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest packet. The system's default buffer (208 KiB, its own bookkeeping included) takes it.
pub(crate) const PACKET_MAX: usize = 128 << 10;

/// Descriptors that one packet carries at most.
const FDS_MAX: usize = 2;

/// Descriptors that came with a packet.
pub(crate) type Fds = SmallVec<[OwnedFd; FDS_MAX]>;

/// A pair of connected sockets, both closed on exec; the first one never blocks.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // The number must not be one of the standard streams: those are replaced in the child.
    Ok((ours, rustix::io::fcntl_dupfd_cloexec(&theirs, 3)?))
}

/// Has the runtime tell when `file` can be read. Must be called inside a tokio runtime.
pub(crate) fn readable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is registered, so it stays open and the same until it is taken out
    // of the runtime again.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map_err(io::Error::from)
}

/// Sends `message` as one packet. Whether it waits for room is the socket's own setting.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > PACKET_MAX {
        let text = format!("a control message of {} bytes is longer than {PACKET_MAX}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet into `buffer` (of [`PACKET_MAX`]) and returns its length; 0 when the other side is gone.
/// Descriptors are taken only where they are expected: unexpected ones are closed by the system.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], mut fds: Option<&mut Fds>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = match fds {
        Some(_) => RecvAncillaryBuffer::new(&mut space),
        None => RecvAncillaryBuffer::default(),
    };
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    for message in control.drain() {
        if let (RecvAncillaryMessage::ScmRights(received), Some(fds)) = (message, fds.as_deref_mut()) {
            fds.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a control message is too long"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_arrives_whole_with_its_descriptors() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, &"hello", &[ours.as_fd(), theirs.as_fd()]).unwrap();
        let (mut buffer, mut fds) = (vec![0; PACKET_MAX], Fds::new());
        assert_eq!(receive(&theirs, &mut buffer, Some(&mut fds)).unwrap(), 7);
        assert_eq!(fds.len(), 2);
        send(&ours, &"x".repeat(PACKET_MAX - 2), &[]).unwrap();
        assert_eq!(receive(&theirs, &mut buffer, None).unwrap(), PACKET_MAX);
        assert!(send(&ours, &"x".repeat(PACKET_MAX), &[]).is_err());
        drop((ours, fds));
        assert_eq!(receive(&theirs, &mut buffer, None).unwrap(), 0);
    }

    #[test]
    fn unexpected_descriptors_are_dropped_and_the_packet_is_still_read() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, &1, &[theirs.as_fd()]).unwrap();
        assert_eq!(receive(&ours, &mut [0; 100], None).unwrap(), 1);
        assert_eq!(receive(&ours, &mut [0; 100], None).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
