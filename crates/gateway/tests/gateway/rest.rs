//! Every route, method and error of the REST form.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::client::{Client, INFER, ask, get, post, row};
use crate::model::{self, FAIL, WAIT};
use crate::server::{Server, settings};

#[tokio::test]
async fn every_description_is_served() {
    let server = Server::start().await;
    let at = server.data;
    let metadata = get(at, "/v2").await.json();
    assert_eq!(metadata["name"], "inferd");
    assert!(metadata["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    assert_eq!(get(at, "/v2/health/live").await.status, 200);
    assert_eq!(get(at, "/v2/health/ready").await.status, 200);
    for path in ["/v2/models/double", "/v2/models/double/versions/3"] {
        let metadata = get(at, path).await.json();
        assert_eq!(metadata["versions"], json!(["3"]));
        assert_eq!(metadata["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]));
        assert_eq!(get(at, &format!("{path}/ready")).await.status, 200);
        assert_eq!(get(at, &format!("{path}/config")).await.json()["max_batch_size"], 4);
        let statistics = get(at, &format!("{path}/stats")).await.json();
        assert_eq!(statistics["model_stats"][0]["name"], "double");
    }
    assert_eq!(post(at, INFER, &[], &row(1.0, 2.0)).await.status, 200);
    let statistics = get(at, "/v2/models/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["success"]["count"], 1);
    // After 2020: the time of day, not that of the process.
    assert!(statistics["model_stats"][0]["last_inference"].as_u64().unwrap() > 1_577_836_800_000);
    for body in [&b""[..], b"{}", br#"{"ready": true}"#] {
        let index = post(at, "/v2/repository/index", &[], body).await.json();
        assert_eq!(index, json!([{"name": "double", "version": "3", "state": "READY", "reason": ""}]));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    for _ in 0..2 {
        client.send(b"HEAD /v2 HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let answer = client.answer_to("HEAD").await.unwrap();
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("content-length"), Some("0"));
    }
    server.stop().await;
}

#[tokio::test]
async fn unknown_paths_models_and_versions_are_not_found() {
    let server = Server::start().await;
    for path in ["/", "/v1/nothing", "/v2/nothing", "/v2/models/double/other"] {
        assert!(get(server.data, path).await.error(404).contains(path), "{path}");
    }
    for model in
        ["other", "double/versions/4", "double/versions/x", "double/versions/-3", "double/versions/0"]
    {
        for path in ["", "/ready", "/config", "/stats"] {
            get(server.data, &format!("/v2/models/{model}{path}")).await.error(404);
        }
        post(server.data, &format!("/v2/models/{model}/infer"), &[], &row(1.0, 2.0)).await.error(404);
    }
    server.wait_for_metric(r#"inferd_requests_total{model="",version="",outcome="not_found"}"#, 5.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_method_is_refused_with_the_right_one() {
    let server = Server::start().await;
    let reads = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/double"];
    for path in reads.into_iter().chain(["/v2/models/double/ready", "/v2/models/double/config"]) {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = ask(server.data, method, path).await;
            answer.error(405);
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for path in [INFER, "/v2/repository/index"] {
        let answer = get(server.data, path).await;
        assert!(answer.error(405).contains("POST"));
        assert_eq!(answer.header("allow"), Some("POST"), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_built_names_the_feature() {
    let server = Server::start().await;
    for (method, path, feature) in [
        ("POST", "/v2/repository/models/double/load", "loading"),
        ("POST", "/v2/repository/models/double/unload", "unloading"),
        ("GET", "/v2/trace/setting", "trace"),
        ("POST", "/v2/models/double/trace/setting", "trace"),
        ("GET", "/v2/logging", "log"),
        ("GET", "/v2/systemsharedmemory/status", "shared_memory: true"),
        ("POST", "/v2/systemsharedmemory/region/r/register", "shared_memory: true"),
        ("POST", "/v2/cudasharedmemory/region/r/register", "CUDA shared memory"),
    ] {
        assert!(ask(server.data, method, path).await.error(501).contains(feature), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_inference_in_json_is_answered_in_json() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    for path in [INFER, "/v2/models/double/versions/3/infer"] {
        // Whatever a client calls JSON; `curl -d` calls it a form.
        for content_type in
            ["application/json", "application/octet-stream", "application/x-www-form-urlencoded"]
        {
            let answer = client.post(path, &[("content-type", content_type)], &row(1.5, -2.0)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert!(answer.header("date").is_some());
            assert_eq!(
                answer.json(),
                json!({
                    "id": "seven", "model_name": "double", "model_version": "3",
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, -4.0]}],
                })
            );
        }
    }
    server.wait_for_metric(r#"inferd_requests_total{model="double",version="3",outcome="ok"}"#, 6.0).await;
    server.wait_for_metric(r#"inferd_request_duration_seconds_count{model="double",version="3"}"#, 6.0).await;
    server.stop().await;
}

/// A request with raw input that asks for raw output.
fn binary(rows: usize) -> (String, Vec<u8>, Vec<u8>) {
    let numbers: Vec<f32> = (0..rows * 2).map(|n| (n % 1000) as f32 / 8.0).collect();
    let raw: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let doubled: Vec<u8> = numbers.iter().flat_map(|n| (n * 2.0).to_le_bytes()).collect();
    let json = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 2], "parameters": {"binary_data_size": raw.len()}}],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    (json.len().to_string(), [json.as_bytes(), &raw].concat(), doubled)
}

#[tokio::test]
async fn raw_tensors_travel_both_ways_small_and_large() {
    let server = Server::start().await;
    for rows in [1, 60_000] {
        let (json_length, body, expected) = binary(rows);
        let headers = [("Inference-Header-Content-Length", json_length.as_str())];
        let answer = post(server.data, INFER, &headers, &body).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let split: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&answer.body[..split]).unwrap();
        assert_eq!(json["outputs"][0]["shape"], json!([rows, 2]));
        assert_eq!(answer.body[split..], expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_are_packed_and_unpacked_as_asked() {
    let server = Server::start().await;
    let gzip = |body: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |body: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let (json_length, body, expected) = binary(1000);
    for (name, packed) in [("gzip", gzip(&body)), ("deflate", zlib(&body))] {
        let headers = [
            ("inference-header-content-length", json_length.as_str()),
            ("content-encoding", name),
            ("accept-encoding", name),
        ];
        let answer = post(server.data, INFER, &headers, &packed).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-encoding"), Some(name));
        let mut unpacked = Vec::new();
        match name {
            "gzip" => flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut unpacked).unwrap(),
            _ => flate2::read::ZlibDecoder::new(&answer.body[..]).read_to_end(&mut unpacked).unwrap(),
        };
        assert!(unpacked.ends_with(&expected));
    }
    let answer = post(server.data, INFER, &[("accept-encoding", "gzip")], &row(1.0, 2.0)).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, None));
    let answer = post(server.data, INFER, &[("content-encoding", "br")], b"whatever").await;
    assert!(answer.error(415).contains("gzip"));
    post(server.data, INFER, &[("content-encoding", "gzip")], b"not packed").await.error(400);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_json_is_not_understood() {
    let server = Server::start().await;
    for content_type in ["multipart/form-data; boundary=x", "image/png", "application/x-protobuf"] {
        let answer = post(server.data, INFER, &[("content-type", content_type)], &row(1.0, 2.0)).await;
        assert!(answer.error(415).contains("application/json"), "{content_type}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_client_did_wrong_is_400_and_says_what() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    for body in [&b""[..], b"{", b"[]", b"{}", br#"{"inputs": []}"#, br#"{"inputs": [{"name": "z"}]}"#] {
        assert!(!client.post(INFER, &[], body).await.error(400).is_empty());
    }
    let deep = format!(r#"{{"x": {}1{}}}"#, "[".repeat(40), "]".repeat(40));
    assert!(client.post(INFER, &[], deep.as_bytes()).await.error(400).contains("json_depth_max"));
    for (name, value) in [("Inferd-Timeout-Ms", "soon"), ("Inference-Header-Content-Length", "x")] {
        assert!(client.post(INFER, &[(name, value)], &row(1.0, 2.0)).await.error(400).contains(name));
    }
    server
        .wait_for_metric(r#"inferd_requests_total{model="double",version="3",outcome="invalid_input"}"#, 9.0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_failing_model_is_500_without_its_secrets() {
    let server = Server::start().await;
    let answer = post(server.data, INFER, &[], &row(FAIL, 0.0)).await;
    let message = answer.error(500);
    assert!(message.contains("the model raised an error") && !message.contains("secret"), "{message}");
    assert_eq!(answer.header("retry-after"), None);
    server.stop().await;
}

#[tokio::test]
async fn a_caller_who_waits_no_longer_gets_504() {
    let server = Server::start().await;
    for headers in [&[("inferd-timeout-ms", "50")][..], &[]] {
        let body = match headers {
            [] => String::from_utf8(row(WAIT, 0.0)).unwrap().replacen(
                '{',
                r#"{"parameters": {"timeout": 50000},"#,
                1,
            ),
            _ => String::from_utf8(row(WAIT, 0.0)).unwrap(),
        };
        let answer = post(server.data, INFER, headers, body.as_bytes()).await;
        answer.error(504);
        assert_eq!(answer.header("retry-after"), None);
    }
    server.gate.open();
    server.stop().await;
}

#[tokio::test]
async fn a_model_that_loads_is_known_but_not_ready_and_the_server_stays_ready() {
    let server = Server::empty(settings()).await;
    server.gateway.set_ready(true);
    let loading = tokio::spawn({
        let (registry, settings) = (server.registry.clone(), model::settings("slow", 1, &server.gate, true));
        async move { registry.load(settings).await.map(drop) }
    });
    let gate = server.gate.reached().await;
    assert_eq!(
        get(server.data, "/v2/health/ready").await.status,
        200,
        "it stays ready, whatever loads later"
    );
    for path in ["/v2/models/slow", "/v2/models/slow/ready", "/v2/models/slow/config"] {
        let answer = get(server.data, path).await;
        answer.error(503);
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    }
    let answer = post(server.data, "/v2/models/slow/infer", &[], &row(1.0, 2.0)).await;
    assert!(answer.error(503).contains("loading"));
    assert_eq!(post(server.data, "/v2/repository/index", &[], b"").await.json()[0]["state"], "LOADING");
    assert_eq!(post(server.data, "/v2/repository/index", &[], br#"{"ready":true}"#).await.json(), json!([]));
    drop(gate);
    loading.await.unwrap().unwrap();
    assert_eq!(get(server.data, "/v2/health/ready").await.status, 200);
    assert_eq!(get(server.data, "/v2/models/slow/ready").await.status, 200);
    server.gateway.set_ready(false);
    get(server.data, "/v2/health/ready").await.error(503);
    server.stop().await;
}

#[tokio::test]
async fn ids_and_trace_context_come_back() {
    let server = Server::start().await;
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-request-id", "abc-1"), ("traceparent", sent)];
    let answer = post(server.data, INFER, &headers, &row(1.0, 2.0)).await;
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    let back = answer.header("traceparent").unwrap();
    assert_eq!(back[..36], sent[..36]);
    assert_ne!(back[36..52], sent[36..52]);
    let answer = get(server.data, "/v2/nothing").await;
    assert_eq!(answer.header("x-request-id").map(str::len), Some(16));
    assert_eq!(answer.header("traceparent"), None);
    server.stop().await;
}

#[tokio::test]
async fn the_metrics_port_only_reads() {
    let server = Server::start().await;
    let at = server.gateway.metrics_addr().unwrap();
    assert!(at.ip().is_loopback());
    let answer = get(at, "/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.text().contains(r#"inferd_replicas{model="double",version="3",state="ready"} 1"#));
    let explained: Value = serde_json::from_str(&get(at, "/explain/double").await.text()).unwrap();
    assert_eq!(explained["models"][0]["name"], "double");
    assert!(explained["models"][0]["explain"]["overhead_s"]["batch"].is_number());
    assert_eq!(get(at, "/explain/other").await.text(), r#"{"models":[]}"#);
    assert_eq!(get(at, "/v2").await.status, 404);
    assert_eq!(ask(at, "POST", "/metrics").await.status, 405);
    assert_eq!(ask(at, "POST", "/explain").await.status, 405);
    server.stop().await;
}
