//! Clients that disconnect, and a server that stops.

use std::time::Duration;

use inferd_gateway::serve;
use inferd_types::{Clock, ErrorKind};
use tokio::net::TcpStream;

use crate::client::{Client, INFER, get, post, request, row};
use crate::model::{self, WAIT};
use crate::server::{Server, settings, until};

#[tokio::test]
async fn a_client_that_disconnects_cancels_its_request() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    client.send(&request("POST", INFER, &[], &row(WAIT, 0.0))).await;
    let gate = server.gate.reached().await;
    assert_ne!(server.metric("inferd_inflight_bytes").await, Some(0.0));
    drop(client);
    // The model still runs; nobody waits for it.
    server.wait_for_metric("inferd_inflight_bytes", 0.0).await;
    drop(gate);
    server.stop().await;
}

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let server = Server::start().await;
    let mut client = Client::connect(server.data).await;
    let one = request("POST", INFER, &[], &row(1.0, 2.0));
    client.send(&one.repeat(20)).await;
    for _ in 0..20 {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn draining_answers_what_was_admitted_and_refuses_what_comes_until_then() {
    let server = Server::start().await;
    let mut admitted = Client::connect(server.data).await;
    let mut idle = Client::connect(server.data).await;
    assert_eq!(idle.post(INFER, &[], &row(1.0, 2.0)).await.status, 200);
    admitted.send(&request("POST", INFER, &[], &row(WAIT, 0.0))).await;
    let gate = server.gate.reached().await;
    let draining = tokio::spawn({
        let gateway = server.gateway.clone();
        async move { gateway.drain(Duration::from_secs(10)).await }
    });
    assert!(idle.is_closed().await, "an idle connection closes at once");
    assert!(!server.gateway.is_ready());
    post(server.data, INFER, &[], &row(1.0, 2.0)).await.error(503);
    get(server.data, "/v2/health/ready").await.error(503);
    assert_eq!(get(server.data, "/v2/health/live").await.status, 200);
    let silent = TcpStream::connect(server.data).await.unwrap();
    drop(gate);
    let answer = admitted.answer().await.expect("the admitted request is answered");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(admitted.is_closed().await);
    until("the port to close", || async { TcpStream::connect(server.data).await.is_err() }).await;
    assert_eq!(draining.await.unwrap().unanswered, 0);
    drop(silent);
    server.registry.shutdown().await;
}

#[tokio::test]
async fn draining_ends_in_time_whatever_hangs() {
    let server = Server::start().await;
    let mut admitted = Client::connect(server.data).await;
    admitted.send(&request("POST", INFER, &[], &row(WAIT, 0.0))).await;
    let gate = server.gate.reached().await;
    let drained = server.gateway.drain(Duration::from_millis(100)).await;
    assert_eq!(drained.unanswered, 1);
    admitted.answer().await.expect("an error is an answer").error(503);
    drop(gate);
    server.registry.shutdown().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let server = Server::start().await;
    let mut taken = settings();
    taken.port = server.data.port();
    let error = serve(taken, server.registry.clone(), inferd_gateway::Metrics::new(), Clock::start()).await;
    let Err(error) = error else { panic!("the port is taken") };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("in use") && error.message().contains("port"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_without_models_is_alive_and_ready_once_set() {
    let server = Server::empty(settings()).await;
    assert_eq!(get(server.data, "/v2/health/live").await.status, 200);
    get(server.data, "/v2/health/ready").await.error(503);
    server.gateway.set_ready(true);
    assert_eq!(get(server.data, "/v2/health/ready").await.status, 200);
    post(server.data, INFER, &[], &row(1.0, 2.0)).await.error(404);
    server.stop().await;
}

/// Every series that stands for a model.
async fn series(server: &Server) -> Vec<String> {
    let text = server.metrics_text().await;
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

#[tokio::test]
async fn versions_that_are_unloaded_leave_no_series() {
    let server = Server::start().await;
    assert_eq!(post(server.data, INFER, &[], &row(1.0, 2.0)).await.status, 200);
    let mut before = series(&server).await;
    before.sort_unstable();
    for version in 4..8 {
        server.registry.load(model::settings("double", version, &server.gate, false)).await.unwrap();
        let path = format!("/v2/models/double/versions/{version}/infer");
        assert_eq!(post(server.data, &path, &[], &row(1.0, 2.0)).await.status, 200);
        assert!(series(&server).await.len() > before.len());
        server.registry.unload("double", version).await.unwrap();
    }
    until("the series to be gone", || async {
        let mut now = series(&server).await;
        now.sort_unstable();
        now == before
    })
    .await;
    server.stop().await;
}
