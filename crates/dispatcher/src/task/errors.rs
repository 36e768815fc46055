//! What callers are answered with, whose requests or whose model came to nothing.
//!
//! Reads how it came, hands back errors. Knows nothing of when they are due.

use std::time::Duration;

use inferd_transport::StageError;
use inferd_types::{Error, ErrorKind};

use crate::replica::kind::Ended;

pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::DeadlineMissed, "the timeout passed before the answer was there; allow more time")
}

pub(crate) fn load_too_slow(load_max: Duration) -> Error {
    Error::new(
        ErrorKind::ModelFailed,
        format!("loading and warm-up took longer than {load_max:?}; raise load_max_s"),
    )
}

/// The worker ended in its first inference; `hung`: because it took too long.
pub(crate) fn load_ended(hung: bool, ended: &Ended, load_max: Duration) -> Error {
    if hung {
        return load_too_slow(load_max);
    }
    Error::new(
        ErrorKind::ModelFailed,
        format!(
            "the worker ended {} during its first inference; its log says more (warmup: false skips it)",
            ended.how
        ),
    )
}

/// The sequence was remembered by a worker that has ended.
pub(crate) fn sequence_lost(model: &str) -> Error {
    Error::new(
        ErrorKind::WorkerLost,
        format!(
            "the sequence was lost: the worker of model '{model}' that remembered it has ended; begin it again with \
             sequence_start"
        ),
    )
}

pub(crate) fn lost_and_not_run_again() -> Error {
    Error::new(
        ErrorKind::WorkerLost,
        "the worker that ran the request ended; it may have had effects, so it was not run again (retry_on_worker_loss \
         is false)",
    )
}

pub(crate) fn lost_too_often(losses: u8) -> Error {
    Error::new(
        ErrorKind::WorkerLost,
        format!(
            "{losses} replicas were lost while they ran the request; it is not run again, try again later"
        ),
    )
}

/// Ran alone past the stated limit.
pub(crate) fn hung_alone(execution_max: Duration) -> Error {
    Error::new(
        ErrorKind::DeadlineMissed,
        format!(
            "the request ran longer than execution_max_s = {execution_max:?} and was ended; raise it if that is honest work"
        ),
    )
}

pub(crate) fn not_staged(model: &str, error: StageError) -> Error {
    match error {
        StageError::TooLarge { needed, max } => Error::new(
            ErrorKind::TooLarge,
            format!(
                "the inputs need an arena of {needed} bytes but model '{model}' has {max}; send fewer rows, or set \
                 arena_max_bytes: {needed}"
            ),
        ),
        StageError::Mixed => {
            Error::new(ErrorKind::InvalidInput, "the inputs are not what the model takes; see its metadata")
        }
        StageError::NoSlot | StageError::Lost => {
            Error::new(ErrorKind::Internal, "the replica had no room for the batch; try again")
        }
    }
}
