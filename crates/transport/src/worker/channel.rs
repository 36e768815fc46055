//! A worker's channel: settings, loading, batch after batch, end.
//!
//! Reads the gateway's messages, hands on the batches to run. Knows nothing of how a batch is run.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use inferd_types::settings::LoadedModel;
use inferd_types::{Error, ErrorKind, Result};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::cut::{cut, cut_front};
use super::shared::Shared;
use super::{Batch, listen};
use crate::frames::{GatewayFrame, PROTOCOL, WorkerFrame, check_signature};
use crate::socket::{self, PACKET_MAX};

/// Maximum length of message and detail of a failure to load, in bytes: together they fit into a packet however
/// they are escaped.
const TEXT_MAX: usize = 8 << 10;

/// The channel to the gateway. `Send`, not meant to be shared.
#[derive(Debug)]
pub struct Channel {
    shared: Arc<Shared>,
    load: serde_json::Value,
}

impl Channel {
    /// Takes the descriptor whose number is the last argument of the command line, waits for the settings and
    /// starts the thread that listens to the gateway. When the gateway is gone, that thread ends the process.
    ///
    /// # Errors
    /// If `fd` is not a channel, or the gateway is gone.
    pub fn from_fd(fd: RawFd) -> Result<Channel> {
        let wrong = |what: &str| {
            Error::new(ErrorKind::Internal, format!("descriptor {fd} is not a worker channel: {what}"))
        };
        if fd < 3 {
            return Err(wrong("it is a standard stream; let inferd start the worker"));
        }
        // SAFETY: only checks here whether it is open at all.
        let open = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl_getfd(open).map_err(|error| wrong(&error.to_string()))?;
        // SAFETY: it is open, and the caller says that it is the channel this process was started with, which has
        // no other owner here.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // It was passed without this flag, to survive exec; no child gets it.
        fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|error| wrong(&error.to_string()))?;
        let (mut buffer, mut message) = (vec![0; PACKET_MAX], Vec::new());
        let failed = |error: std::io::Error| wrong(&error.to_string());
        loop {
            let length = socket::receive(&socket, &mut buffer, None).map_err(failed)?;
            if length == 0 {
                return Err(wrong("the gateway is gone"));
            }
            if socket::gather(&mut message, &buffer[..length]).map_err(failed)? {
                break;
            }
        }
        let load = match serde_json::from_slice(&message) {
            Ok(GatewayFrame::Load { protocol: PROTOCOL, settings }) => settings,
            Ok(GatewayFrame::Load { protocol, .. }) => {
                let message = format!(
                    "the gateway has version {protocol} of the worker protocol, this worker {PROTOCOL}; install \
                     the same release of inferd for both"
                );
                return Err(Error::new(ErrorKind::Internal, message));
            }
            Ok(_) => return Err(wrong("the gateway began with something other than the settings")),
            Err(error) => return Err(wrong(&error.to_string())),
        };
        let shared = Arc::new(Shared::new(socket));
        listen::start(shared.clone()).map_err(|error| wrong(&error.to_string()))?;
        Ok(Channel { shared, load })
    }

    /// What to load: `ModelSettings.load`.
    pub fn load(&self) -> &serde_json::Value {
        &self.load
    }

    /// Reports that the model is loaded and waits for the arena.
    ///
    /// # Errors
    /// If the signature exceeds the limits (1,024 inputs, 1,024 outputs, 8 dimensions).
    pub fn loaded(&mut self, model: &LoadedModel) -> Result<()> {
        check_signature(&model.signature).map_err(|problem| Error::new(ErrorKind::InvalidInput, problem))?;
        self.shared.send(&WorkerFrame::Loaded(Box::new(model.clone())))?;
        self.shared.wait_for(|_| self.shared.arena.get().map(|_| ()))
    }

    /// Reports that loading failed: `message` for clients, `detail` (a traceback) for the log; each is cut at 8
    /// KiB. The process should exit then.
    pub fn failed(self, message: &str, detail: &str) {
        let (message, detail) = (cut(message, TEXT_MAX).to_owned(), cut_front(detail, TEXT_MAX).to_owned());
        // If the gateway is gone, the listening thread ends the process.
        let _ = self.shared.send(&WorkerFrame::Failed { message, detail });
    }

    /// Sets what stops the current run on the gateway's request. Called on the listening thread.
    pub fn on_terminate(&self, stop: Box<dyn Fn() + Send>) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
    }

    /// Waits for the next batch and takes it. `None`: exit. The previous batch must be finished.
    ///
    /// # Errors
    /// If the gateway sent something invalid; exit then.
    #[expect(
        clippy::should_implement_trait,
        reason = "it can fail, and None means an end that was asked for"
    )]
    pub fn next(&mut self) -> Result<Option<Batch>> {
        if self.shared.busy.load(Ordering::Acquire) {
            let message = "the previous batch is not finished; call finish or fail on it first";
            return Err(Error::new(ErrorKind::Internal, message));
        }
        match self.shared.next()? {
            Some(taken) => Batch::open(self.shared.clone(), taken).map(Some),
            None => match self.shared.inbox().problem.take() {
                Some(problem) => Err(Error::new(ErrorKind::Internal, problem)),
                None => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_not_a_channel_is_refused() {
        assert!(Channel::from_fd(0).is_err());
        assert!(Channel::from_fd(-1).is_err());
        assert!(Channel::from_fd(1 << 20).is_err());
    }
}
