//! The calls of `inference.GRPCInferenceService`.
//!
//! Reads messages that tonic decoded, hands back messages. One value serves one call.
//! Knows nothing of frames or compression.

use std::sync::Arc;

use http::HeaderMap;
use inferd_protocol::pb::inference as pb;
use inferd_protocol::pb::inference::grpc_inference_service_server::GrpcInferenceService;
use inferd_protocol::{Decoded, Region, RequestOptions, classify, describe as wire, grpc as codec};
use inferd_types::{Error, ErrorKind, Result};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{status, stream};
use crate::admit::body::{LARGE_BYTES, off_reactor};
use crate::admit::inflight::Held;
use crate::describe;
use crate::infer::{Asked, Running, Target, finished, refused_here};
use crate::observe::spans::Answered;
use crate::route::endpoint::CUDA_SHARED_MEMORY;
use crate::state::Shared;

/// One call.
pub(super) struct Inference {
    pub(super) shared: Arc<Shared>,
    pub(super) asked: Arc<Asked>,
    pub(super) held: Arc<Held>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Runs one message, and tells metrics, spans and log how it went.
async fn infer(
    shared: &Shared,
    asked: &Asked,
    headers: &HeaderMap,
    message: pb::ModelInferRequest,
) -> Result<pb::ModelInferResponse> {
    let target = find(shared, asked, &message)?;
    if target.model.wants_context() {
        let mut asked = asked.clone();
        asked.keep_headers(&target, headers);
        return Box::pin(infer_on(shared, &asked, target, message)).await;
    }
    infer_on(shared, asked, target, message).await
}

/// The model that a message names.
pub(super) fn find(shared: &Shared, asked: &Asked, message: &pb::ModelInferRequest) -> Result<Target> {
    Target::find(shared, &message.model_name, given(&message.model_version)).inspect_err(|error| {
        refused_here(shared, error);
        finished(shared, asked, None, Err(error));
    })
}

/// Hands one message to a model that may give any number of responses. `held` counts what it takes.
pub(super) async fn begin(
    shared: &Shared,
    asked: &Asked,
    target: &Target,
    message: pb::ModelInferRequest,
    held: &Held,
) -> Result<(Running, Option<String>, RequestOptions)> {
    let mut decoded = decode(shared, target, message).await?;
    held.add(decoded.widened_bytes)?;
    if !decoded.options.placed.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "each response of a stream would overwrite the one before in shared memory; leave shared_memory_region of \
             the outputs out",
        ));
    }
    if decoded.uses_regions() {
        Box::pin(shared.regions.prepare(&shared.inflight, &target.signature, &mut decoded)).await?;
    }
    let Decoded { id, inputs, options, .. } = decoded;
    Ok((target.stream(shared, asked, id.as_deref(), inputs, &options), id, options))
}

/// As [`infer`], on the model that the message names.
pub(super) async fn infer_on(
    shared: &Shared,
    asked: &Asked,
    target: Target,
    message: pb::ModelInferRequest,
) -> Result<pb::ModelInferResponse> {
    let answered = run(shared, asked, &target, message).await;
    finished(shared, asked, Some(&target), answered.as_ref().map(|(answered, _)| answered));
    answered.map(|(_, message)| message)
}

async fn run(
    shared: &Shared,
    asked: &Asked,
    target: &Target,
    message: pb::ModelInferRequest,
) -> Result<(Answered, pb::ModelInferResponse)> {
    let mut decoded = decode(shared, target, message).await?;
    // Until the answer is there, as the body's bytes.
    let _widened = Held::new(&shared.inflight, decoded.widened_bytes)?;
    let places = match decoded.uses_regions() {
        false => None,
        true => {
            let prepared = shared.regions.prepare(&shared.inflight, &target.signature, &mut decoded);
            Some(Box::pin(prepared).await?)
        }
    };
    let Decoded { id, inputs, options, .. } = decoded;
    let mut response = target.run(shared, asked, id.as_deref(), inputs, &options).await?;
    if !options.classes.is_empty() {
        classify(&options, &target.signature, &mut response)?;
    }
    if let Some(places) = places {
        Box::pin(places.write(&target.signature, &response)).await?;
    }
    let message = codec::encode_infer(target.name(), id.as_deref(), &target.signature, &options, &response)?;
    Ok((Answered::of(&mut response), message))
}

/// Raw contents are only cut up; typed ones are turned into bytes one by one, which may take long.
async fn decode(shared: &Shared, target: &Target, message: pb::ModelInferRequest) -> Result<Decoded> {
    let limits = shared.limits();
    let typed = message.raw_input_contents.is_empty() && message.encoded_len() > LARGE_BYTES;
    if !typed {
        return codec::decode_infer(message, &target.signature, &limits);
    }
    let signature = target.signature.clone();
    off_reactor(move || codec::decode_infer(message, &signature, &limits)).await?
}

/// Messages have empty text for none.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A call that the protocol has and this server does not.
fn unbuilt<T>(feature: &str) -> Answer<T> {
    Err(status::of(&Error::new(ErrorKind::Unimplemented, format!("not implemented: {feature}"))))
}

fn answered<T>(result: Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status::of(&error))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = stream::Answers;

    async fn model_infer(&self, request: Request<pb::ModelInferRequest>) -> Answer<pb::ModelInferResponse> {
        let (metadata, _, message) = request.into_parts();
        answered(infer(&self.shared, &self.asked, metadata.as_ref(), message).await)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let (metadata, _, messages) = request.into_parts();
        let call = stream::Call {
            shared: self.shared.clone(),
            asked: self.asked.clone(),
            headers: Arc::new(metadata.into_headers()),
            held: self.held.clone(),
        };
        Ok(Response::new(call.answers(messages)))
    }

    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> Answer<pb::ServerLiveResponse> {
        answered(Ok(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> Answer<pb::ServerReadyResponse> {
        answered(Ok(pb::ServerReadyResponse { ready: self.shared.is_ready() }))
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Answer<pb::ModelReadyResponse> {
        let request = request.into_inner();
        let ready = describe::ready(&self.shared, &request.name, given(&request.version));
        answered(match ready {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            ready => Ok(pb::ModelReadyResponse { ready: ready.is_ok() }),
        })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answer<pb::ServerMetadataResponse> {
        answered(Ok(wire::server_metadata_pb(&describe::server(&self.shared))))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Answer<pb::ModelMetadataResponse> {
        let request = request.into_inner();
        answered(describe::model(
            &self.shared,
            &request.name,
            given(&request.version),
            wire::model_metadata_pb,
        ))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        let request = request.into_inner();
        answered(describe::model(&self.shared, &request.name, given(&request.version), wire::config_pb))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let request = request.into_inner();
        let named = (!request.name.is_empty()).then(|| (request.name.as_str(), given(&request.version)));
        answered(describe::statistics(&self.shared, named, wire::statistics_pb))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        answered(Ok(describe::index(&self.shared, request.into_inner().ready, wire::index_pb)))
    }

    async fn repository_model_load(
        &self,
        _: Request<pb::RepositoryModelLoadRequest>,
    ) -> Answer<pb::RepositoryModelLoadResponse> {
        unbuilt("loading a model by request; models are named when 'inferd serve' starts")
    }

    async fn repository_model_unload(
        &self,
        _: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Answer<pb::RepositoryModelUnloadResponse> {
        unbuilt("unloading a model by request; models are named when 'inferd serve' starts")
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Answer<pb::SystemSharedMemoryStatusResponse> {
        let regions = self.shared.regions.status(given(&request.into_inner().name));
        answered(regions.map(|regions| inferd_protocol::regions_pb(&regions)))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryRegisterResponse> {
        let pb::SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request.into_inner();
        let registered = self.shared.regions.register(Region { name, key, offset, byte_size });
        answered(registered.map(|()| pb::SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryUnregisterResponse> {
        let forgotten = self.shared.regions.unregister(given(&request.into_inner().name));
        answered(forgotten.map(|()| pb::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Answer<pb::CudaSharedMemoryStatusResponse> {
        answered(Ok(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryRegisterResponse> {
        unbuilt(CUDA_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryUnregisterResponse> {
        answered(Ok(pb::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(&self, _: Request<pb::TraceSettingRequest>) -> Answer<pb::TraceSettingResponse> {
        unbuilt("changing trace settings by request; set otlp_endpoint instead")
    }

    async fn log_settings(&self, _: Request<pb::LogSettingsRequest>) -> Answer<pb::LogSettingsResponse> {
        unbuilt("changing log settings by request")
    }
}
