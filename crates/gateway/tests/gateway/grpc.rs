//! Every call of the gRPC form, on the port that also speaks HTTP/1.1 and plain HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use inferd_protocol::pb::inference as pb;
use inferd_protocol::pb::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use inferd_protocol::pb::inference::infer_parameter::ParameterChoice;
use inferd_types::settings::Seconds;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{INFER, get, post, row};
use crate::model::{FAIL, WAIT};
use crate::server::{Server, settings};

type Client = GrpcInferenceServiceClient<Channel>;

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.data)).unwrap().connect().await.unwrap()
}

async fn client(server: &Server) -> Client {
    GrpcInferenceServiceClient::new(channel(server).await)
}

fn infer(id: &str, numbers: &[f32]) -> pb::ModelInferRequest {
    let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    pb::ModelInferRequest {
        model_name: "double".to_owned(),
        id: id.to_owned(),
        inputs: vec![pb::model_infer_request::InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![numbers.len() as i64 / 2, 2],
            ..Default::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

fn numbers(response: &pb::ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0].chunks(4).map(|n| f32::from_le_bytes(n.try_into().unwrap())).collect()
}

#[tokio::test]
async fn http1_http2_and_grpc_share_one_port() {
    let server = Server::start().await;
    assert_eq!(post(server.data, INFER, &[], &row(1.0, 2.0)).await.status, 200);
    let answer = client(&server).await.model_infer(infer("seven", &[1.0, 2.0])).await.unwrap();
    assert!(answer.metadata().contains_key("x-request-id"));
    let answer = answer.into_inner();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("seven", "3"));
    assert_eq!(numbers(&answer), [2.0, 4.0]);
    let (mut send, connection) = http2(&server).await;
    let request = http::Request::post(format!("http://{}{INFER}", server.data));
    let answer =
        send.send_request(request.body(Full::new(Bytes::from(row(1.0, 2.0)))).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["outputs"][0]["data"], serde_json::json!([2.0, 4.0]));
    drop(send);
    connection.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn typed_contents_are_taken_small_and_large() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    for rows in [1, 40_000] {
        let mut request = infer("", &[]);
        request.raw_input_contents.clear();
        request.inputs[0].shape = vec![rows, 2];
        let contents = vec![2.5; rows as usize * 2];
        request.inputs[0].contents =
            Some(pb::InferTensorContents { fp32_contents: contents, ..Default::default() });
        let answer = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!(numbers(&answer), vec![5.0; rows as usize * 2]);
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn every_description_is_served() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let (name, version) = ("double".to_owned(), String::new());
    assert!(client.server_live(pb::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let ready =
        client.model_ready(pb::ModelReadyRequest { name: name.clone(), version: "3".to_owned() }).await;
    assert!(ready.unwrap().into_inner().ready);
    let metadata = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "inferd");
    let request = pb::ModelMetadataRequest { name: name.clone(), version: version.clone() };
    assert_eq!(client.model_metadata(request).await.unwrap().into_inner().inputs[0].shape, [-1, 2]);
    let request = pb::ModelConfigRequest { name: name.clone(), version: version.clone() };
    let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!(config.max_batch_size, 4);
    for name in [String::new(), name] {
        let request = pb::ModelStatisticsRequest { name, version: version.clone() };
        let statistics = client.model_statistics(request).await.unwrap().into_inner();
        assert_eq!(statistics.model_stats[0].name, "double");
    }
    let index = client.repository_index(pb::RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert_eq!((index.models[0].version.as_str(), index.models[0].state.as_str()), ("3", "READY"));
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn failures_have_their_codes() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let mut other = infer("", &[1.0, 2.0]);
    other.model_name = "other".to_owned();
    assert_eq!(client.model_infer(other).await.unwrap_err().code(), Code::NotFound);
    let mut short = infer("", &[1.0, 2.0]);
    short.inputs[0].shape = vec![3, 2];
    assert_eq!(client.model_infer(short).await.unwrap_err().code(), Code::InvalidArgument);
    let failed = client.model_infer(infer("", &[FAIL, 0.0])).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    assert!(!failed.message().contains("secret"));
    let request = pb::ModelReadyRequest { name: "other".to_owned(), version: String::new() };
    assert_eq!(client.model_ready(request).await.unwrap_err().code(), Code::NotFound);
    let load = client.repository_model_load(pb::RepositoryModelLoadRequest::default()).await.unwrap_err();
    assert_eq!(load.code(), Code::Unimplemented);
    assert!(load.message().contains("loading"), "{load}");
    let status = client.system_shared_memory_status(pb::SystemSharedMemoryStatusRequest::default()).await;
    assert!(status.unwrap_err().message().contains("system shared memory"));
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn the_calls_timeout_is_the_requests_timeout() {
    let server = Server::start().await;
    // By hand: tonic's client would end the call by itself.
    let message = infer("", &[WAIT, 0.0]).encode_to_vec();
    let body = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    let request = call(&server, "ModelInfer").header("grpc-timeout", "50m");
    let (mut send, connection) = http2(&server).await;
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = send.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    server.gate.open();
    drop(send);
    connection.await.unwrap();
    server.stop().await;
}

/// A plain HTTP/2 connection, and the task that drives it.
async fn http2<B>(
    server: &Server,
) -> (hyper::client::conn::http2::SendRequest<B>, tokio::task::JoinHandle<()>)
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = TokioIo::new(tokio::net::TcpStream::connect(server.data).await.unwrap());
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    // Where the server closes first the connection ends in an error; the answers were looked at.
    (send, tokio::spawn(async move { drop(connection.await) }))
}

fn call(server: &Server, method: &str) -> http::request::Builder {
    http::Request::post(format!("http://{}/inference.GRPCInferenceService/{method}", server.data))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_packed_or_not() {
    let server = Server::start().await;
    let large = infer("", &vec![0.0; 1 << 19]);
    let plain = client(&server).await.model_infer(large.clone()).await.unwrap_err();
    assert_eq!(plain.code(), Code::ResourceExhausted);
    assert!(plain.message().contains("body_max_bytes"), "{plain}");
    let packed = client(&server).await.send_compressed(CompressionEncoding::Gzip).model_infer(large).await;
    assert_eq!(packed.unwrap_err().code(), Code::ResourceExhausted);
    server.stop().await;
}

#[tokio::test]
async fn no_room_is_unavailable_and_says_when_to_try_again() {
    let mut limits = settings();
    limits.inflight_max_bytes = 200;
    let server = Server::with(limits).await;
    let mut client = client(&server).await;
    assert!(client.model_infer(infer("", &[1.0; 2])).await.is_ok());
    let refused = client.model_infer(infer("", &[1.0; 60])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn messages_are_packed_as_the_client_packs_its_own() {
    let server = Server::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = client(&server).await.send_compressed(encoding).accept_compressed(encoding);
        let answer = client.model_infer(infer("", &[1.0; 64])).await.unwrap();
        assert!(answer.metadata().contains_key("grpc-encoding"));
        assert_eq!(numbers(answer.get_ref()), [2.0; 64]);
    }
    let mut client = client(&server).await.accept_compressed(CompressionEncoding::Gzip);
    let answer = client.model_infer(infer("", &[1.0; 64])).await.unwrap();
    assert!(!answer.metadata().contains_key("grpc-encoding"));
    drop(client);
    server.stop().await;
}

fn is_final(response: &pb::ModelInferResponse) -> bool {
    response.parameters["triton_final_response"].parameter_choice == Some(ParameterChoice::BoolParam(true))
}

#[tokio::test]
async fn a_stream_answers_in_order_and_a_failure_ends_only_its_own_request() {
    let server = Server::start().await;
    let mut bad = infer("1", &[1.0, 2.0]);
    bad.inputs[0].name = "z".to_owned();
    let requests = [infer("0", &[1.0, 2.0]), bad, infer("2", &[FAIL, 0.0]), infer("3", &[5.0, 6.0])];
    let answers = client(&server).await.model_stream_infer(tokio_stream::iter(requests)).await.unwrap();
    let answers: Vec<_> = answers.into_inner().collect::<Result<Vec<_>, _>>().await.unwrap();
    let ids: Vec<_> =
        answers.iter().map(|answer| answer.infer_response.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["0", "1", "2", "3"]);
    assert_eq!(
        answers.iter().map(|answer| answer.error_message.is_empty()).collect::<Vec<_>>(),
        [true, false, false, true]
    );
    assert!(answers.iter().all(|answer| is_final(answer.infer_response.as_ref().unwrap())));
    assert_eq!(numbers(answers[3].infer_response.as_ref().unwrap()), [10.0, 12.0]);
    server.stop().await;
}

#[tokio::test]
async fn requests_of_a_stream_run_together_and_go_with_it() {
    let server = Server::start().await;
    let (send, requests) = mpsc::channel(8);
    let mut client = client(&server).await;
    let answers = client.model_stream_infer(ReceiverStream::new(requests)).await.unwrap().into_inner();
    send.send(infer("0", &[WAIT, 0.0])).await.unwrap();
    let gate = server.gate.reached().await;
    // The first one still runs; the next two are read and wait in the queue.
    send.send(infer("1", &[1.0, 2.0])).await.unwrap();
    send.send(infer("2", &[1.0, 2.0])).await.unwrap();
    let one = 5 + infer("0", &[WAIT, 0.0]).encoded_len();
    server.wait_for_metric("inferd_inflight_bytes", 3.0 * one as f64).await;
    drop(answers);
    drop(send);
    server.wait_for_metric("inferd_inflight_bytes", 0.0).await;
    drop(gate);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_cancelled_call_cancels_its_request() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    tokio::select! {
        _ = client.model_infer(infer("", &[WAIT, 0.0])) => panic!("it waits"),
        gate = server.gate.reached() => {
            assert_ne!(server.metric("inferd_inflight_bytes").await, Some(0.0));
            drop(gate);
        }
    }
    server.wait_for_metric("inferd_inflight_bytes", 0.0).await;
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn draining_ends_streams_after_their_answers_and_notifies_watchers() {
    let server = Server::start().await;
    let (send, requests) = mpsc::channel(8);
    let mut client = client(&server).await;
    let mut answers = client.model_stream_infer(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut health = HealthClient::new(channel(&server).await);
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    send.send(infer("0", &[WAIT, 0.0])).await.unwrap();
    let gate = server.gate.reached().await;
    let draining = tokio::spawn({
        let gateway = server.gateway.clone();
        async move { gateway.drain(Duration::from_secs(10)).await }
    });
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(gate);
    let answer = answers.next().await.unwrap().unwrap();
    assert_eq!(answer.error_message, "");
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(draining.await.unwrap().unanswered, 0);
    drop((send, client, health));
    server.registry.shutdown().await;
}

#[tokio::test]
async fn health_follows_readiness() {
    let server = Server::start().await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", "double", "inference.GRPCInferenceService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(
            health.check(request).await.unwrap().get_ref().status(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    let request = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(request.clone()).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.gateway.set_ready(false);
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watched, health));
    server.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let server = Server::start().await;
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
    assert!(answer.contains("inference.GRPCInferenceService") && answer.contains("grpc.health.v1.Health"));
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "inference.ModelInferRequest".to_owned(),
        )),
        ..Default::default()
    };
    let mut reflection =
        v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    assert!(format!("{:?}", answers.next().await.unwrap().unwrap()).contains("FileDescriptorResponse"));
    drop(reflection);
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_comes_too_slowly_is_refused() {
    let mut limits = settings();
    limits.body_timeout_s = Seconds(Duration::from_millis(100));
    let server = Server::with(limits).await;
    let (mut send, connection) = http2(&server).await;
    let (_never_ends, body) = mpsc::channel::<Result<http_body::Frame<Bytes>, std::convert::Infallible>>(1);
    let body = http_body_util::StreamBody::new(ReceiverStream::new(body));
    let request = call(&server, "ModelInfer");
    let answer = send.send_request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "3");
    drop(send);
    connection.abort();
    assert_eq!(get(server.data, "/v2/health/live").await.status, 200);
    server.stop().await;
}
