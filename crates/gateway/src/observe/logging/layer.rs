//! Events become lines.
//!
//! Reads events of `tracing`, hands lines to the writer. Knows nothing of which events pass: a filter stands before it.

use std::fmt::Debug;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

use super::line::{Line, LogFormat};
use super::writer::{LogShare, LogWriter};

/// Target of the lines that models write.
const WORKER: &str = "worker";

/// Writes each event as a line.
#[derive(Debug)]
pub struct LogLayer {
    format: LogFormat,
    writer: Arc<LogWriter>,
}

impl LogLayer {
    /// Lines of `format` for `writer`, which reports drops in this format from now on.
    pub fn new(format: LogFormat, writer: Arc<LogWriter>) -> LogLayer {
        writer.report_drops_by(Box::new(move |drops| {
            let mut line = Line::begin(format, &time(), "WARN", "log");
            let all: u64 = drops.iter().map(|(_, lines)| lines).sum();
            line.message(format_args!("{all} lines of the log were dropped"));
            for (reason, lines) in drops {
                line.plain(reason, lines);
            }
            line.end()
        }));
        LogLayer { format, writer }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let share = if metadata.target() == WORKER { LogShare::Workers } else { LogShare::Gateway };
        // A flood is dropped before it costs the time to format it.
        if self.writer.refuses(share) {
            return;
        }
        let mut line = Line::begin(self.format, &time(), metadata.level().as_str(), metadata.target());
        event.record(&mut Fields(&mut line));
        self.writer.write(share, line.end());
    }
}

fn time() -> String {
    let mut text = String::with_capacity(32);
    // A String takes every write, and a clock before 1970 is written as that.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Puts the fields of an event into a line. The macros of `tracing` record the message first.
struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.0.plain(field.name(), value);
        } else {
            self.0.field(field.name(), value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.field(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.message(format_args!("{value:?}"));
        } else {
            self.0.field(field.name(), format_args!("{value:?}"));
        }
    }
}
