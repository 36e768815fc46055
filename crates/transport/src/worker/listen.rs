//! The thread that reads control messages in a worker.
//!
//! Reads the control socket, hands on segments and requests to the thread that runs batches, ends the process when
//! the gateway is gone. Knows nothing of batches.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::shared::{Arena, Segment, Shared};
use crate::frames::GatewayFrame;
use crate::layout::MAGIC;
use crate::memory::Mapping;
use crate::socket::{self, Fds, PACKET_MAX};

/// Starts the thread.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<()> {
    // The thread inherits a mask that blocks everything: signals are for the threads of the runtime, which may have
    // a handler that must run there (Python's must).
    let unblock = block_signals()?;
    let started = std::thread::Builder::new().name("inferd-channel".into()).spawn(move || listen(&shared));
    unblock()?;
    started.map(drop)
}

/// Blocks all signals in this thread; the result restores the mask.
fn block_signals() -> io::Result<impl FnOnce() -> io::Result<()>> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    // SAFETY: a signal set is plain memory, and is filled before it is used.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: both point to sets of ours.
    check(unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before)
    })?;
    Ok(move || {
        // SAFETY: `before` was filled by the call above; no old mask is asked for.
        check(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) })
    })
}

fn listen(shared: &Shared) {
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        let mut fds = Fds::new();
        match socket::receive(&shared.socket, &mut buffer, Some(&mut fds)) {
            // The gateway is gone. Exit without destructors, which would run while the model still computes.
            Ok(0) | Err(_) => end(),
            Ok(length) => {
                if let Err(problem) = handle(shared, &buffer[..length], fds) {
                    shared.arrive(false, |inbox| inbox.problem = Some(problem));
                    shared.closing.store(true, Ordering::Release);
                    shared.wake();
                }
            }
        }
    }
}

fn end() -> ! {
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(0) }
}

fn handle(shared: &Shared, packet: &[u8], fds: Fds) -> Result<(), String> {
    let frame: GatewayFrame = serde_json::from_slice(packet).map_err(|error| error.to_string())?;
    let mut fds = fds.into_iter();
    let map = |file: Option<std::os::fd::OwnedFd>, bytes: usize| {
        let file = file.ok_or("the gateway sent no memory")?;
        Mapping::new(file.as_fd(), bytes)
            .map(Arc::new)
            .map_err(|error| format!("mapping shared memory: {error}"))
    };
    match frame {
        GatewayFrame::Load { .. } => return Err("the gateway sent the settings twice".into()),
        GatewayFrame::Arena(layout) => {
            let mapping = map(fds.next(), layout.bytes)?;
            let doorbell = fds.next().ok_or("the gateway sent no doorbell")?;
            if !layout.is_sound() || mapping.read::<8>(0) != MAGIC.to_le_bytes() {
                return Err("the gateway's arena is of another version of inferd".into());
            }
            let arena = Arena { mapping, layout: *layout, doorbell };
            shared.arena.set(arena).map_err(|_| "the gateway sent a second arena")?;
            shared.arrive(false, |_| {});
        }
        GatewayFrame::Segment { slot, id, bytes, outputs } => {
            let mapping = map(fds.next(), bytes)?;
            shared.arrive(true, |inbox| {
                inbox.segments.insert(id, Segment { slot, outputs, mapping });
                if outputs {
                    inbox.room = Some(Ok(id));
                }
            });
        }
        GatewayFrame::Drop { id } => shared.arrive(true, |inbox| drop(inbox.segments.remove(&id))),
        GatewayFrame::NoRoom { arena_max_bytes, .. } => {
            shared.arrive(true, |inbox| inbox.room = Some(Err(arena_max_bytes)));
        }
        GatewayFrame::Terminate {} => {
            shared.arrive(true, |_| {});
            if let Some(stop) = &*shared.stop.lock().unwrap_or_else(PoisonError::into_inner) {
                stop();
            }
        }
        GatewayFrame::Close {} => {
            shared.arrive(true, |_| {});
            shared.closing.store(true, Ordering::Release);
            shared.wake();
        }
    }
    Ok(())
}
