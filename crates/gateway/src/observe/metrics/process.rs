//! Figures of the process, read from the kernel at each scrape.
//!
//! Reads `/proc/self`, hands gauges to the encoder. Knows nothing of models.

use std::fs;
use std::sync::Arc;

use inferd_types::metrics as names;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::admit::inflight::Inflight;
use crate::observe::logging::LogDrops;

/// Under the names that every Prometheus client library uses.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory of the gateway's process",
                bytes,
            )?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors of the gateway's process", open)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system time of the gateway's process",
                None,
                counter.metric_type(),
            )?;
            counter.encode(encoder)?;
        }
        Ok(())
    }
}

/// The bytes of requests in flight.
#[derive(Debug)]
pub(super) struct InflightBytes(pub(super) Arc<Inflight>);

impl Collector for InflightBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = i64::try_from(self.0.used()).unwrap_or(i64::MAX);
        gauge(
            &mut encoder,
            names::INFLIGHT_BYTES,
            "Bytes of requests that are being read, queued or run",
            bytes,
        )
    }
}

/// Lines that the log had no room for.
#[derive(Debug)]
pub(super) struct LogLines(pub(super) Arc<LogDrops>);

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            // The encoder adds `_total`.
            names::LOG_LINES_DROPPED_TOTAL.trim_end_matches("_total"),
            "Lines of the log that were dropped: the stream was blocked, they were too many, or writing failed",
            None,
            MetricType::Counter,
        )?;
        for (reason, lines) in self.0.totals() {
            ConstCounter::new(lines).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<i64>().ok().map(|kib| kib * 1024)
}

fn cpu_seconds() -> Option<f64> {
    // Fields 14 and 15, in ticks of a hundredth of a second on every Linux that there is; the name before them
    // stands in brackets and may hold anything.
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}
