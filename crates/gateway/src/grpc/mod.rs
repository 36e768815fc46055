//! The gRPC form of the protocol, with health and reflection beside it.
//!
//! Reads HTTP/2 requests whose content type says gRPC, hands back tonic's answers. Knows nothing of connections.

mod body;
mod health;
mod inference;
mod reflection;
mod status;
mod stream;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;
use inferd_protocol::pb::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use inferd_types::Time;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service;

use self::body::CallBody;
use self::inference::Inference;
pub(crate) use self::reflection::Reflection;
use crate::admit::inflight::Held;
use crate::admit::trace::{REQUEST_ID, TRACEPARENT};
use crate::infer::Asked;
use crate::state::Shared;

type Answered = Response<tonic::body::Body>;

const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Answers one call.
pub(crate) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, arrived: Time) -> Answered {
    let headers = request.headers();
    let mut asked = Asked::new(shared, arrived, headers, headers.get(REQUEST_ID), headers.get(TRACEPARENT));
    asked.timeout = status::timeout(headers);
    let context = asked.context;
    let request_id = asked.request_id.clone();
    // Held until the call is answered; a stream's messages take theirs with them.
    let held = Arc::new(Held::none(&shared.inflight));
    let lasting = request.uri().path() == STREAM;
    let request = request.map(|body| CallBody::new(body, shared, held.clone(), lasting));
    let mut response = call(shared, request, asked, &held).await;
    let headers = response.headers_mut();
    if let Some(context) = context {
        headers.insert(HeaderName::from_static(TRACEPARENT), context.header());
    }
    headers.insert(HeaderName::from_static(REQUEST_ID), request_id);
    response
}

async fn call(shared: &Arc<Shared>, request: Request<CallBody>, asked: Asked, held: &Arc<Held>) -> Answered {
    let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let answered = match service {
        "inference.GRPCInferenceService" => {
            let compressed = asks_for_compression(request.headers());
            let max = shared.settings.body_max_bytes;
            let inference = Inference { shared: shared.clone(), asked: Arc::new(asked), held: held.clone() };
            let mut server = GrpcInferenceServiceServer::new(inference)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
                .max_decoding_message_size(max)
                .max_encoding_message_size(usize::MAX);
            if let Some(encoding) = compressed {
                server = server.send_compressed(encoding);
            }
            server.call(request).await
        }
        "grpc.health.v1.Health" => {
            HealthServer::new(health::Health { shared: shared.clone() }).call(request).await
        }
        "grpc.reflection.v1.ServerReflection" => Ok(shared.reflection.v1(request).await),
        "grpc.reflection.v1alpha.ServerReflection" => Ok(shared.reflection.v1alpha(request).await),
        other => Ok(Status::unimplemented(format!(
            "there is no service '{other}'; this server has inference.GRPCInferenceService, grpc.health.v1.Health \
             and reflection"
        ))
        .into_http()),
    };
    answered.unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// Clients name every packing they can read with every call; only one that packs its own messages is taken to
/// want packed answers. Packing all answers would cost more CPU than all else together.
fn asks_for_compression(headers: &HeaderMap) -> Option<CompressionEncoding> {
    match headers.get("grpc-encoding")?.as_bytes() {
        b"gzip" => Some(CompressionEncoding::Gzip),
        b"deflate" => Some(CompressionEncoding::Deflate),
        _ => None,
    }
}
