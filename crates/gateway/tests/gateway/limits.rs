//! What the gateway takes from outside, and no more.

use std::io::Write;
use std::time::Duration;

use inferd_types::settings::Seconds;

use crate::client::{Client, INFER, get, post, request, row};
use crate::model::WAIT;
use crate::server::{Server, settings};

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_the_connection_lives() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    let large = vec![b' '; (1 << 20) + 1];
    assert!(client.post(INFER, &[], &large).await.error(413).contains("body_max_bytes"));
    assert_eq!(client.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_off_at_the_limit() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(head.as_bytes()).await;
    let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
    for _ in 0..17 {
        client.send(&chunk).await;
    }
    client.answer().await.unwrap().error(413);
    drop(client);
    // Chunks are fine as such.
    let mut client = Client::connect(server.data).await;
    client.send(head.as_bytes()).await;
    for piece in row(1.0, 2.0).chunks(10) {
        client.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_bomb_does_not_unfold() {
    let server = Server::start().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for _ in 0..64 {
        encoder.write_all(&[b' '; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let answer = post(server.data, INFER, &[("content-encoding", "gzip")], &bomb).await;
    assert!(answer.error(413).contains("unpacks"));
    server.stop().await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = Server::start().await;
    let long = "x".repeat(16384);
    let answer = post(server.data, INFER, &[("x-long", &long)], &row(1.0, 2.0)).await;
    assert!(answer.error(413).contains("header_max_bytes"));
    get(server.data, &format!("/v2/models/{long}")).await.error(413);
    // Far past it, hyper itself ends the connection before there is a request.
    let mut client = Client::connect(server.data).await;
    client.send(format!("GET /v2 HTTP/1.1\r\nx: {}", "x".repeat(500_000)).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 431);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_ends_the_connection() {
    let mut limits = settings();
    limits.header_timeout_s = Seconds(Duration::from_millis(100));
    let server = Server::with(limits).await;
    // Nothing at all, a part of HTTP/2's preface, a part of a head.
    for sent in ["", "PRI * HT", "GET /v2 HTTP/1.1\r\nx: "] {
        let mut client = Client::connect(server.data).await;
        client.send(sent.as_bytes()).await;
        assert!(client.is_closed().await, "{sent}");
    }
    // A part of a second head.
    let mut client = Client::connect(server.data).await;
    assert_eq!(client.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
    client.send(b"POST ").await;
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_rests_between_requests_stays_open() {
    let mut limits = settings();
    limits.header_timeout_s = Seconds(Duration::from_millis(30));
    let server = Server::with(limits).await;
    let mut resting = Client::connect(server.data).await;
    assert_eq!(resting.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
    // Five connections that time out one after another, as a measure of time.
    for _ in 0..5 {
        let mut client = Client::connect(server.data).await;
        client.send(b"GET").await;
        assert!(client.is_closed().await);
    }
    assert_eq!(resting.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_400() {
    let mut limits = settings();
    limits.body_timeout_s = Seconds(Duration::from_millis(100));
    let server = Server::with(limits).await;
    let mut client = Client::connect(server.data).await;
    let whole = request("POST", INFER, &[], &row(1.0, 2.0));
    client.send(&whole[..whole.len() - 1]).await;
    assert!(client.answer().await.unwrap().error(400).contains("body_timeout_s"));
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_over_all_connections() {
    let mut limits = settings();
    limits.inflight_max_bytes = 300;
    let server = Server::with(limits).await;
    let body = row(WAIT, 0.0);
    assert!(body.len() > 75 && body.len() < 150, "the limit below is made for it");
    let (first, ()) = tokio::join!(post(server.data, INFER, &[], &body), async {
        let gate = server.gate.reached().await;
        assert_eq!(server.metric("inferd_inflight_bytes").await, Some(body.len() as f64));
        let padded = [&row(1.0, 2.0)[..], &[b' '; 150]].concat();
        let answer = post(server.data, INFER, &[], &padded).await;
        assert!(answer.error(503).contains("inflight_max_bytes"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        drop(gate);
    });
    assert_eq!(first.status, 200);
    let refused = r#"inferd_refusals_total{model="",version="",reason="inflight_max_bytes"}"#;
    server.wait_for_metric(refused, 1.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_connection_over_the_limit_is_refused() {
    let mut limits = settings();
    limits.connections_max = 2;
    let server = Server::with(limits).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(server.data).await;
        assert_eq!(client.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
        open.push(client);
    }
    let mut refused = Client::connect(server.data).await;
    refused.send(&request("POST", INFER, &[], &row(1.0, 2.0))).await;
    let answer = refused.answer().await.unwrap();
    assert!(answer.error(503).contains("connections_max"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(refused.is_closed().await);
    drop(open);
    crate::server::until("a free connection", || async {
        get(server.data, "/v2/health/live").await.status == 200
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused_before_the_body_comes() {
    let server = Server::start().await;
    for (header, value) in [
        ("inferd-timeout-ms", "soon"),
        ("inference-header-content-length", "x"),
        ("content-encoding", "br"),
        ("content-type", "image/png"),
    ] {
        let mut client = Client::connect(server.data).await;
        let head = format!(
            "POST {INFER} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n{header}: {value}\r\n\r\n"
        );
        client.send(head.as_bytes()).await;
        let answer = client.answer().await.expect("an answer without a byte of the body");
        assert!(matches!(answer.status, 400 | 415), "{header}: {}", answer.status);
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(server.metric("inferd_inflight_bytes").await, Some(0.0));
    }
    let refused = r#"inferd_requests_total{model="double",version="3",outcome="invalid_input"}"#;
    server.wait_for_metric(refused, 2.0).await;
    server.stop().await;
}
