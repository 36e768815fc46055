//! The main loop of a worker process.
//!
//! Reads batches from the channel, hands on their outputs. Does not know how batches are formed or who waits for
//! them.

use std::os::fd::RawFd;

use inferd_transport::worker::{Batch, Channel};
use inferd_types::{Clock, DataType, ErrorKind, Result};
use smallvec::SmallVec;

use crate::model::OnnxModel;
use crate::outputs::Outputs;
use crate::runner::Input;
use crate::settings::LoadSettings;

/// Loads the model that the channel `channel_fd` names and runs its batches until the channel closes. Returns the
/// exit status of the process: 0 after a request to exit.
pub fn run(channel_fd: RawFd) -> i32 {
    let mut channel = match Channel::from_fd(channel_fd) {
        Ok(channel) => channel,
        Err(error) => return complain(&error),
    };
    let mut model =
        match LoadSettings::from_json(channel.load()).and_then(|settings| OnnxModel::load(&settings)) {
            Ok(model) => model,
            Err(error) => {
                channel.failed(error.message(), error.detail().unwrap_or_default());
                return 1;
            }
        };
    let terminator = model.terminator();
    channel.on_terminate(Box::new(move || terminator.stop()));
    match channel.loaded(model.loaded()).and_then(|()| serve(&mut channel, &mut model)) {
        Ok(()) => 0,
        Err(error) => complain(&error),
    }
}

fn serve(channel: &mut Channel, model: &mut OnnxModel) -> Result<()> {
    let clock = Clock::start();
    while let Some(mut batch) = channel.next()? {
        let begun = clock.now();
        let ran = run_batch(model, &mut batch);
        let execution = clock.now().since(begun);
        match ran {
            Ok(()) => batch.finish(execution),
            Err(error) => {
                let kind = match error.kind() {
                    ErrorKind::InvalidInput => ErrorKind::InvalidInput,
                    _ => ErrorKind::ModelFailed,
                };
                batch.fail(kind, error.message(), error.detail().unwrap_or_default());
            }
        }
    }
    Ok(())
}

fn run_batch(model: &mut OnnxModel, batch: &mut Batch) -> Result<()> {
    let views: SmallVec<[_; 4]> = batch.inputs().iter().cloned().collect();
    let inputs: SmallVec<[Input<'_>; 4]> = views
        .iter()
        // SAFETY: a view's memory is part of the arena, aligned to 64 and mapped until the batch ends, which is
        // after the run.
        .map(|view| unsafe { Input::from_raw(view.datatype, &view.shape, view.ptr, view.len) })
        .collect();
    model.run(&inputs, &mut InArena(batch))
}

struct InArena<'a>(&'a mut Batch);

// SAFETY: the arena gives each output the requested room, aligned to 64, mapped until the batch ends.
unsafe impl Outputs for InArena<'_> {
    fn place(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8> {
        self.0.output(index, datatype, shape)
    }

    fn place_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8> {
        self.0.output_bytes(index, shape, len)
    }
}

/// The channel is broken; standard error reaches the log.
fn complain(error: &inferd_types::Error) -> i32 {
    eprintln!("{}", error.message());
    if let Some(detail) = error.detail() {
        eprintln!("{detail}");
    }
    1
}
