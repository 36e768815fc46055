//! The metrics that Prometheus reads.
//!
//! Reads what the gateway and the dispatcher report, hands out one text. Knows nothing of why a figure is what it
//! is.

mod batching;
mod cache;
mod families;
mod labels;
mod load;
mod process;
mod series;

use std::sync::{Arc, Mutex, PoisonError};

use inferd_dispatcher::{ModelObserver, Observer};
use inferd_types::ErrorKind;
use prometheus_client::registry::Registry;

use self::families::Families;
use self::labels::TenantLabels;
use self::load::LoadObserver;
pub(crate) use self::series::ModelSeries;
use self::series::SeriesTable;
use crate::admit::inflight::Inflight;
use crate::observe::logging::LogDrops;

/// All metrics of the process. Made first: the dispatcher's registry and [`crate::serve`] both report to it.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    series: Arc<SeriesTable>,
    /// Requests that never reached a model: an unknown one, a body that is too large, no room.
    unrouted: Arc<ModelSeries>,
}

impl Metrics {
    /// Metrics of nothing yet.
    pub fn new() -> Arc<Metrics> {
        let families = Families::new();
        let mut registry = Registry::default();
        families.register(&mut registry);
        registry.register_collector(Box::new(process::Process));
        let series = SeriesTable::new(families);
        let unrouted = series.unrouted();
        Arc::new(Metrics { registry: Mutex::new(registry), series, unrouted })
    }

    /// Shows `inflight` from now on.
    pub(crate) fn watch_inflight(&self, inflight: Arc<Inflight>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(process::InflightBytes(inflight)));
    }

    /// Shows the lines that the log dropped from now on.
    pub fn watch_log(&self, drops: Arc<LogDrops>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(process::LogLines(drops)));
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(8 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes every write");
        text
    }

    /// The series of one model version.
    pub(crate) fn model(&self, name: &str, version: u64) -> Arc<ModelSeries> {
        self.series.model(name, version)
    }

    /// The series of requests without a model. Names that only a client has used never become labels.
    pub(crate) fn unrouted(&self) -> &Arc<ModelSeries> {
        &self.unrouted
    }

    /// Counts one request of `tenant`, which must be one that the settings name.
    pub(crate) fn tenant_answered(&self, tenant: &str, outcome: Result<(), ErrorKind>) {
        let outcome = outcome.map_or_else(ErrorKind::label, |()| "ok");
        let labels = TenantLabels { tenant: tenant.to_owned(), outcome };
        self.series.families.tenants.get_or_create_owned(&labels).inc();
    }
}

impl Observer for Metrics {
    fn model(&self, model: &str, version: u64) -> Arc<dyn ModelObserver> {
        Arc::new(LoadObserver::new(self.series.model(model, version)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inferd_dispatcher::{LossReason, ReplicaCounts};

    use super::*;

    #[test]
    fn every_name_and_label_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.watch_inflight(Inflight::new(10, 0));
        metrics.watch_log(Arc::default());
        let model = Observer::model(&*metrics, "fraud", 3);
        metrics.model("fraud", 3).answered(Ok(()), Duration::from_millis(3));
        metrics.model("fraud", 3).answered(Err(ErrorKind::Overloaded), Duration::from_millis(3));
        model.refused("overloaded");
        model.queue_wait(Duration::from_millis(1));
        model.executed(Duration::from_millis(2), 4);
        model.queue_rows(7);
        model.replicas(ReplicaCounts { ready: 2, ..ReplicaCounts::default() });
        model.worker_lost(LossReason::Signal);
        model.objective_missed();
        model.cache(true);
        model.batching("probe", true);
        model.batching("traffic", false);
        model.rows_compared(12, 1);
        model.cache_bytes(77);
        let _uncached = metrics.model("uncached", 1);
        metrics.unrouted().answered(Err(ErrorKind::NotFound), Duration::ZERO);
        metrics.tenant_answered("gold", Ok(()));
        let text = metrics.encode();
        for line in [
            r#"inferd_requests_total{model="fraud",version="3",outcome="ok"} 1"#,
            r#"inferd_requests_total{model="fraud",version="3",outcome="overloaded"} 1"#,
            r#"inferd_requests_total{model="",version="",outcome="not_found"} 1"#,
            r#"inferd_refusals_total{model="fraud",version="3",reason="overloaded"} 1"#,
            r#"inferd_worker_losses_total{model="fraud",version="3",reason="signal"} 1"#,
            r#"inferd_objective_missed_total{model="fraud",version="3"} 1"#,
            r#"inferd_tenant_requests_total{tenant="gold",outcome="ok"} 1"#,
            r#"inferd_queue_rows{model="fraud",version="3"} 7"#,
            r#"inferd_replicas{model="fraud",version="3",state="ready"} 2"#,
            r#"inferd_request_duration_seconds_count{model="fraud",version="3"} 2"#,
            r#"inferd_queue_wait_seconds_count{model="fraud",version="3"} 1"#,
            r#"inferd_execution_duration_seconds_bucket{le="0.002",model="fraud",version="3"} 1"#,
            r#"inferd_batch_rows_bucket{le="4.0",model="fraud",version="3"} 1"#,
            r#"inferd_cache_hits_total{model="fraud",version="3"} 1"#,
            r#"inferd_cache_misses_total{model="fraud",version="3"} 0"#,
            r#"inferd_cache_bytes{model="fraud",version="3"} 77"#,
            r#"inferd_batching_verdict{model="fraud",version="3",by="traffic",state="alone"} 1"#,
            r#"inferd_batching_rows_compared_total{model="fraud",version="3"} 12"#,
            r#"inferd_batching_differences_total{model="fraud",version="3"} 1"#,
            "inferd_inflight_bytes 0",
            r#"inferd_log_lines_dropped_total{reason="blocked"} 0"#,
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"by="probe""#), "{text}");
        assert!(!text.contains(r#"inferd_cache_bytes{model="uncached""#), "{text}");
    }

    /// Uses every series of a model version.
    fn use_all(metrics: &Metrics, observer: &dyn ModelObserver, name: &str, version: u64) {
        let series = metrics.model(name, version);
        series.answered(Ok(()), Duration::from_millis(1));
        for kind in ErrorKind::ALL {
            series.answered(Err(*kind), Duration::from_millis(1));
        }
        series.refused("not_ready");
        observer.refused("queue_rows");
        observer.worker_lost(LossReason::Hang);
        observer.queue_rows(3);
        observer.replicas(ReplicaCounts { ready: 1, starting: 2, ..ReplicaCounts::default() });
        observer.executed(Duration::from_millis(1), 2);
        observer.batching("probe", true);
        observer.rows_compared(4, 1);
        observer.cache(false);
        observer.cache_bytes(10);
    }

    fn of_models(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode();
        let mut lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with("process_")).map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn loads_that_end_leave_the_exposition_as_it_was() {
        let metrics = Metrics::new();
        let stays = Observer::model(&*metrics, "fraud", 1);
        use_all(&metrics, &*stays, "fraud", 1);
        let before = of_models(&metrics);
        for version in 2..50 {
            let observer = Observer::model(&*metrics, "fraud", version);
            use_all(&metrics, &*observer, "fraud", version);
            let other = Observer::model(&*metrics, "other", version);
            use_all(&metrics, &*other, "other", version);
        }
        assert_eq!(of_models(&metrics), before);
        // A request that is still under way holds the series of its version.
        let request = metrics.model("fraud", 50);
        request.answered(Ok(()), Duration::ZERO);
        assert_ne!(of_models(&metrics), before);
        drop(request);
        assert_eq!(of_models(&metrics), before);
    }

    #[test]
    fn two_loads_of_a_version_share_its_series_and_each_takes_back_its_part() {
        let metrics = Metrics::new();
        let empty = of_models(&metrics);
        let has = |line: &str| metrics.encode().lines().any(|other| other == line);
        let ready = |count| format!(r#"inferd_replicas{{model="m",version="1",state="ready"}} {count}"#);
        let old = Observer::model(&*metrics, "m", 1);
        let new = Observer::model(&*metrics, "m", 1);
        old.replicas(ReplicaCounts { ready: 2, ..ReplicaCounts::default() });
        new.replicas(ReplicaCounts { ready: 3, ..ReplicaCounts::default() });
        old.queue_rows(7);
        new.queue_rows(1);
        new.queue_rows(2);
        old.cache_bytes(5);
        assert!(
            has(&ready(5)) && has(r#"inferd_queue_rows{model="m",version="1"} 9"#),
            "{}",
            metrics.encode()
        );
        drop(old);
        assert!(
            has(&ready(3)) && has(r#"inferd_queue_rows{model="m",version="1"} 2"#),
            "{}",
            metrics.encode()
        );
        assert!(has(r#"inferd_cache_bytes{model="m",version="1"} 0"#));
        drop(new);
        assert_eq!(of_models(&metrics), empty);
    }
}
