//! The log of the data plane, on stderr.
//!
//! Reads its form and level, hands on nothing: `tracing` is global to the process.
//! Knows nothing of Python's own logging.

use std::io::stderr;

use inferd_types::{Error, ErrorKind, Result};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// How the log looks and how much of it there is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSettings {
    format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,worker=debug`.
    level: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

/// Starts the log. The first data plane of a process decides; a later one logs the same way.
pub(crate) fn start(settings: &LogSettings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        let message = format!(
            "log_level '{}' is not understood: {error}\nhelp: use info, or info,worker=debug",
            settings.level
        );
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // An error means that the log has been started before, by an earlier data plane of this process.
    let _ = match settings.format {
        Format::Text => subscriber.with_ansi(false).try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}
