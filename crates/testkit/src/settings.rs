//! Full settings, for tests that are about one or two of them: the others follow by `..settings("name")`.

use std::time::Duration;

use inferd_types::settings::{GatewaySettings, Launch, ModelSettings, Seconds};

/// Settings of a model that serves on one replica: every request is run, nothing is measured, nothing is learned before.
pub fn settings(name: &str) -> ModelSettings {
    ModelSettings {
        name: name.into(),
        version: 1,
        platform: "test".into(),
        launch: Launch::Exec { command: Vec::new() },
        env: Default::default(),
        load: serde_json::Value::Null,
        directory: None,
        replicas: 1,
        machine: Default::default(),
        batch_rows_max: 32,
        comparison: Default::default(),
        padding: None,
        slo: None,
        priority_default: 1,
        queue_rows_max: 10_000,
        queue_max_bytes: 1 << 26,
        retry_on_worker_loss: true,
        execution_max_s: None,
        late_wait_objectives: 4.0,
        load_max_s: Seconds(Duration::from_secs(60)),
        kills_per_minute_max: 10,
        arena_max_bytes: 1 << 26,
        warmup: true,
        samples: Vec::new(),
        optional: Default::default(),
        labels: Default::default(),
        profiling: false,
        profile: Vec::new(),
        linger: false,
        ejection: true,
        hedge_budget: 0.0,
        sequence: None,
        cache_max_bytes: None,
    }
}

/// Settings of a gateway on free ports of the loopback.
pub fn gateway_settings() -> GatewaySettings {
    let (long, drain) = (Seconds(Duration::from_secs(30)), Seconds(Duration::from_secs(10)));
    GatewaySettings {
        host: "127.0.0.1".into(),
        port: 0,
        metrics_port: Some(0),
        gateway_threads: 1,
        body_max_bytes: 1 << 20,
        inflight_max_bytes: 1 << 22,
        header_max_bytes: 16384,
        json_depth_max: 32,
        connections_max: 100,
        streams_max: 100,
        header_timeout_s: long,
        body_timeout_s: long,
        drain_timeout_s: drain,
        otlp_endpoint: None,
        shared_memory: false,
        docs_folder: None,
        tenant_header: None,
        tenants: Default::default(),
    }
}
