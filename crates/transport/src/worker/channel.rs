//! Stub of the public surface.
use std::os::fd::RawFd;

use inferd_types::Result;
use inferd_types::settings::LoadedModel;

use super::Batch;

/// The channel to the gateway. `Send`, not meant to be shared.
#[derive(Debug)]
pub struct Channel {}

impl Channel {
    /// Takes over the descriptor whose number stood last on the command line, waits for the settings and starts
    /// the thread that listens to the gateway. When the gateway goes away that thread ends the process.
    ///
    /// # Errors
    /// When `fd` is not a channel, or the gateway is gone.
    pub fn from_fd(fd: RawFd) -> Result<Channel> {
        let _ = fd;
        todo!()
    }

    /// What to load: `ModelSettings.load`.
    pub fn load(&self) -> &serde_json::Value {
        todo!()
    }

    /// Says that the model is loaded and waits for the arena that fits it.
    ///
    /// # Errors
    /// When the signature is beyond the limits (64 inputs, 64 outputs, 8 dimensions).
    pub fn loaded(&mut self, model: &LoadedModel) -> Result<()> {
        let _ = model;
        todo!()
    }

    /// Says that loading failed: `message` for clients, `detail` (a traceback) for the log. The process should
    /// end then.
    pub fn failed(self, message: &str, detail: &str) {
        let _ = (message, detail);
        todo!()
    }

    /// What to do when the gateway wants the current run stopped. Called on the listening thread.
    pub fn on_terminate(&self, stop: Box<dyn Fn() + Send>) {
        let _ = stop;
        todo!()
    }

    /// Waits for the next batch and takes it. `None`: end the process. The batch before must be finished.
    ///
    /// # Errors
    /// When the gateway gave something that makes no sense; end the process then.
    pub fn next(&mut self) -> Result<Option<Batch>> {
        todo!()
    }
}
