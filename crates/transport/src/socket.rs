//! Control messages: JSON values in packets with file descriptors. A long message takes several packets.
//!
//! Reads and sends packets on a SOCK_SEQPACKET pair. Every packet of a message but the last begins with [`MORE`].
//! Does not interpret them.

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

/// Maximum size of a packet in bytes. The system's default buffer (208 KiB, including its own bookkeeping) holds
/// it.
pub(crate) const PACKET_MAX: usize = 128 << 10;

/// Maximum size of a message in bytes: settings and signatures may name many thousand columns.
pub(crate) const FRAME_MAX: usize = 16 << 20;

/// The first byte of a packet whose message continues in the next. JSON has no such byte.
const MORE: u8 = 0;

/// Maximum number of descriptors per packet.
const FDS_MAX: usize = 2;

/// The descriptors of a received packet.
pub(crate) type Fds = SmallVec<[OwnedFd; FDS_MAX]>;

/// A pair of connected sockets, both closed on exec; the first one is non-blocking.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // The number must not be one of the standard streams: those are replaced in the child.
    Ok((ours, rustix::io::fcntl_dupfd_cloexec(&theirs, 3)?))
}

/// Registers `file` with the runtime for reads. Must be called inside a tokio runtime.
pub(crate) fn readable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watched(file, Interest::READABLE)
}

fn watched(file: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is registered, so it stays open and the same until it is
    // deregistered.
    unsafe { AsyncFd::register_with_interest(file, interest) }.map_err(io::Error::from)
}

/// Sends `message`. Whether it blocks depends on the socket; a non-blocking one takes a single packet.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = written(message)?;
    for (more, part) in packets(&bytes) {
        send_packet(&socket, more, part, if more { &[] } else { fds })?;
    }
    Ok(())
}

/// The same for a message of many packets on a non-blocking socket.
pub(crate) async fn send_long(socket: &AsyncFd<OwnedFd>, message: &impl Serialize) -> io::Result<()> {
    let bytes = written(message)?;
    // The socket itself is registered for reads alone.
    let mut room = None;
    for (more, part) in packets(&bytes) {
        while let Err(error) = send_packet(socket.get_ref(), more, part, &[]) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            if room.is_none() {
                room = Some(watched(socket.get_ref().try_clone()?, Interest::WRITABLE)?);
            }
            if let Some(room) = &room {
                room.writable().await?.clear_ready();
            }
        }
    }
    Ok(())
}

fn written(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > FRAME_MAX {
        let text = format!("a control message of {} bytes is longer than {FRAME_MAX}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}

/// The packets of a message, each with whether another follows.
fn packets(mut bytes: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        ended = bytes.len() <= PACKET_MAX;
        let (part, rest) = bytes.split_at(if ended { bytes.len() } else { PACKET_MAX - 1 });
        bytes = rest;
        Some((!ended, part))
    })
}

fn send_packet(socket: impl AsFd, more: bool, part: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    let mark = if more { &[MORE][..] } else { &[] };
    loop {
        let slices = [IoSlice::new(mark), IoSlice::new(part)];
        match sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Adds a packet to its message. True: it was the last.
///
/// # Errors
/// If the message becomes too long, or a packet that is not the last is not full.
pub(crate) fn gather(message: &mut Vec<u8>, packet: &[u8]) -> io::Result<bool> {
    let (part, more) = match packet.split_first() {
        Some((&MORE, part)) => (part, true),
        _ => (packet, false),
    };
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    if more && packet.len() < PACKET_MAX {
        return wrong(format!("a control message continues after a packet of {} bytes", packet.len()));
    }
    if message.len() + part.len() > FRAME_MAX {
        return wrong(format!("a control message is longer than {FRAME_MAX} bytes"));
    }
    message.extend_from_slice(part);
    Ok(!more)
}

/// Receives one packet into `buffer` (of [`PACKET_MAX`]) and returns its length; 0 if the other side is gone.
/// Unexpected descriptors are closed by the system.
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
        assert!(send(&ours, &"x".repeat(FRAME_MAX), &[]).is_err());
        drop((ours, fds));
        assert_eq!(receive(&theirs, &mut buffer, None).unwrap(), 0);
    }

    #[test]
    fn a_long_message_is_whole_again_and_no_longer_than_any_may_be() {
        for length in [0, 1, PACKET_MAX - 2, PACKET_MAX - 1, PACKET_MAX, 3 * PACKET_MAX] {
            let text = "x".repeat(length);
            let bytes = written(&text).unwrap();
            let mut whole = Vec::new();
            let sent: Vec<_> = packets(&bytes).collect();
            for (place, (more, part)) in sent.iter().enumerate() {
                let packet = if *more { [&[MORE], *part].concat() } else { part.to_vec() };
                assert!(packet.len() <= PACKET_MAX);
                assert_eq!(gather(&mut whole, &packet).unwrap(), place + 1 == sent.len());
            }
            assert_eq!(serde_json::from_slice::<String>(&whole).unwrap(), text);
        }
        let mut whole = vec![0; FRAME_MAX];
        assert!(gather(&mut whole, b"x").is_err() && gather(&mut whole, &[MORE; PACKET_MAX]).is_err());
        assert!(gather(&mut Vec::new(), &[MORE, b'x']).is_err(), "it could go on for ever");
    }

    #[tokio::test]
    async fn a_long_message_waits_for_its_reader() {
        let (ours, theirs) = pair().unwrap();
        let text = "x".repeat(1 << 20);
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut whole) = (vec![0; PACKET_MAX], Vec::new());
            loop {
                let length = receive(&theirs, &mut buffer, None).unwrap();
                if gather(&mut whole, &buffer[..length]).unwrap() {
                    return serde_json::from_slice::<String>(&whole).unwrap();
                }
            }
        });
        send_long(&readable(ours).unwrap(), &text).await.unwrap();
        assert_eq!(reader.join().unwrap(), text);
    }

    #[test]
    fn unexpected_descriptors_are_dropped_and_the_packet_is_still_read() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, &1, &[theirs.as_fd()]).unwrap();
        assert_eq!(receive(&ours, &mut [0; 100], None).unwrap(), 1);
        assert_eq!(receive(&ours, &mut [0; 100], None).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
