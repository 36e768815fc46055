//! The standard streams of the process: the log of the data plane on stderr, and what the command line prints.
//!
//! Reads their form and level, hands on writers that are never waited for: they are global to the process, as `tracing` is.
//! Knows nothing of Python's own logging.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use inferd_gateway::{LogDrops, LogFormat, LogLayer, LogShare, LogWriter};
use inferd_types::{Error, ErrorKind, Result};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry};

/// How the log looks and how much of it there is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSettings {
    format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,worker=debug`.
    level: String,
}

/// Both streams of the process.
struct Streams {
    drops: Arc<LogDrops>,
    stdout: Arc<LogWriter>,
    stderr: Arc<LogWriter>,
}

impl Streams {
    fn start() -> io::Result<Streams> {
        let drops = Arc::new(LogDrops::default());
        let stdout = Arc::new(LogWriter::start("inferd-stdout", io::stdout(), drops.clone())?);
        let stderr = Arc::new(LogWriter::start("inferd-log", io::stderr(), drops.clone())?);
        Ok(Streams { drops, stdout, stderr })
    }
}

fn streams() -> Result<&'static Streams> {
    static STREAMS: OnceLock<io::Result<Streams>> = OnceLock::new();
    STREAMS.get_or_init(Streams::start).as_ref().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("the threads that write the log could not be started: {error}"),
        )
    })
}

/// Starts the log. The first data plane of a process decides; a later one logs the same way.
///
/// Returns what counts the lines that had to be dropped.
pub(crate) fn start(settings: &LogSettings) -> Result<Arc<LogDrops>> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        let message = format!(
            "log_level '{}' is not understood: {error}\nhelp: use info, or info,worker=debug",
            settings.level
        );
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    let streams = streams()?;
    let layer = LogLayer::new(settings.format, streams.stderr.clone());
    // An error means that the log has been started before, by an earlier data plane of this process.
    if registry().with(filter).with(layer).try_init().is_ok() {
        // The hook that is there by default waits for stderr, and for ever where nobody reads it.
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    Ok(streams.drops.clone())
}

/// Waits for what was logged, for `within` at most.
pub(crate) fn flush(within: Duration) -> bool {
    streams().is_ok_and(|streams| streams.stdout.flush(within) & streams.stderr.flush(within))
}

/// Hands ``text`` to the stream ``descriptor``, 1 or 2, and waits for nothing. What it has no room for is dropped and counted.
#[pyfunction]
pub(crate) fn write_stream(descriptor: i32, text: String) -> PyResult<()> {
    let streams = streams().map_err(crate::errors::raise)?;
    let writer = match descriptor {
        1 => &streams.stdout,
        2 => &streams.stderr,
        _ => return Err(PyValueError::new_err("only 1 and 2 are streams to write to")),
    };
    writer.write(LogShare::Console, text);
    Ok(())
}

/// Wait until both streams have what was handed to them, for ``within_s`` at most each; returns whether they have.
#[pyfunction]
pub(crate) fn flush_streams(py: Python<'_>, within_s: f64) -> PyResult<bool> {
    let within =
        Duration::try_from_secs_f64(within_s).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(py.detach(|| flush(within)))
}
