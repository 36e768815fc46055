//! The gRPC form of the protocol, with health and reflection.
//!
//! Reads HTTP/2 requests whose content type says gRPC, hands back tonic's answers. Knows nothing of connections.

mod body;
mod health;
mod inference;
mod message;
pub(crate) mod reflection;
mod status;
mod stream;

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use inferd_protocol::pb::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use inferd_types::Time;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service;

use self::body::CallBody;
use self::inference::InferenceService;
use crate::admit::caller::{Caller, Rejected};
use crate::admit::head::RequestHead;
use crate::admit::inflight::HeldBytes;
use crate::observe::failures::LogSubject;
use crate::server_state::{Connected, ServerState};

type GrpcResponse = Response<tonic::body::Body>;

const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Answers one call.
pub(crate) async fn answer(connected: &Connected, request: Request<Incoming>, arrived: Time) -> GrpcResponse {
    let server = &connected.server;
    let admitted = {
        let head = RequestHead::read(request.method(), request.uri(), request.headers());
        server.admission.admit(connected.peer, arrived, &head)
    };
    let caller = match admitted {
        Ok(caller) => caller,
        Err(rejected) => return reject(server, *rejected),
    };
    let ids = caller.ids.clone();
    // HeldBytes until the call is answered; a stream's messages take theirs with them.
    let held = Arc::new(HeldBytes::none(&server.inflight, caller.tenant));
    let lasting = request.uri().path() == STREAM;
    let request = request.map(|body| CallBody::new(body, server, held.clone(), lasting));
    let mut response = call(server, request, caller, held).await;
    ids.write(response.headers_mut());
    response
}

/// Logs why a call was not admitted, and answers with it.
fn reject(server: &ServerState, rejected: Rejected) -> GrpcResponse {
    let Rejected { caller, error } = rejected;
    let subject = LogSubject {
        request_id: caller.ids.request_id(),
        trace: caller.ids.trace.map(|context| context.trace),
        ..LogSubject::default()
    };
    server.failures.log(server.clock.now(), &error, subject);
    let mut response = status::of(&error).into_http();
    caller.ids.write(response.headers_mut());
    response
}

async fn call(
    server: &Arc<ServerState>,
    request: Request<CallBody>,
    caller: Caller,
    held: Arc<HeldBytes>,
) -> GrpcResponse {
    let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let answered = match service {
        "inference.GRPCInferenceService" => {
            let compressed = asks_for_compression(request.headers());
            let max = server.settings.body_max_bytes;
            let inference = InferenceService { server: server.clone(), caller, held };
            let mut service = GrpcInferenceServiceServer::new(inference)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX);
            if let Some(encoding) = compressed {
                service = service.send_compressed(encoding);
            }
            service.call(request).await
        }
        "grpc.health.v1.Health" => {
            HealthServer::new(health::Health { server: server.clone() }).call(request).await
        }
        "grpc.reflection.v1.ServerReflection" => {
            Ok(server.reflection.v1(request.map(tonic::body::Body::new)).await)
        }
        "grpc.reflection.v1alpha.ServerReflection" => {
            Ok(server.reflection.v1alpha(request.map(tonic::body::Body::new)).await)
        }
        other => Ok(Status::unimplemented(format!(
            "unknown service '{other}'; this server has inference.GRPCInferenceService, grpc.health.v1.Health \
             and reflection"
        ))
        .into_http()),
    };
    answered.unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// Clients name every coding they can read with every call; only one that compresses its own messages is taken to
/// want compressed answers. Compressing all answers would cost more CPU than everything else together.
fn asks_for_compression(headers: &HeaderMap) -> Option<CompressionEncoding> {
    match headers.get("grpc-encoding")?.as_bytes() {
        b"gzip" => Some(CompressionEncoding::Gzip),
        b"deflate" => Some(CompressionEncoding::Deflate),
        _ => None,
    }
}
