//! The calls of `inference.GRPCInferenceService`.
//!
//! Reads messages that tonic decoded, hands back messages. One value serves one call.
//! Knows nothing of frames or compression.

use std::sync::Arc;

use inferd_protocol::pb::inference as pb;
use inferd_protocol::pb::inference::grpc_inference_service_server::GrpcInferenceService;
use inferd_protocol::{Decoded, describe as wire, grpc as codec};
use inferd_types::{Error, ErrorKind, Result};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{status, stream};
use crate::body::{LARGE_BYTES, off_reactor};
use crate::describe;
use crate::infer::{Asked, Target, finished, refused_here};
use crate::inflight::Held;
use crate::shared::Shared;
use crate::spans::Answered;

/// One call.
pub(super) struct Inference {
    pub(super) shared: Arc<Shared>,
    pub(super) asked: Arc<Asked>,
    pub(super) held: Arc<Held>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Runs one message, and tells metrics, spans and log how it went.
pub(super) async fn infer(
    shared: &Shared,
    asked: &Asked,
    message: pb::ModelInferRequest,
) -> Result<pb::ModelInferResponse> {
    let target =
        Target::find(shared, &message.model_name, version(&message.model_version)).inspect_err(|error| {
            refused_here(shared, error);
            finished(shared, asked, None, Err(error));
        })?;
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
    let Decoded { id, inputs, options } = decode(target, message).await?;
    let mut response = target.run(shared, asked, inputs, &options).await?;
    let message = codec::encode_infer(target.name(), id.as_deref(), &target.signature, &options, &response)?;
    Ok((Answered::of(&mut response), message))
}

/// Raw contents are only cut up; typed ones are turned into bytes one by one, which may take long.
async fn decode(target: &Target, message: pb::ModelInferRequest) -> Result<Decoded> {
    let typed = message.raw_input_contents.is_empty() && message.encoded_len() > LARGE_BYTES;
    if !typed {
        return codec::decode_infer(message, &target.signature);
    }
    let signature = target.signature.clone();
    off_reactor(move || codec::decode_infer(message, &signature)).await?
}

fn version(text: &str) -> Option<&str> {
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
        answered(infer(&self.shared, &self.asked, request.into_inner()).await)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let call =
            stream::Call { shared: self.shared.clone(), asked: self.asked.clone(), held: self.held.clone() };
        Ok(Response::new(call.answers(request.into_inner())))
    }

    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> Answer<pb::ServerLiveResponse> {
        answered(Ok(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> Answer<pb::ServerReadyResponse> {
        answered(Ok(pb::ServerReadyResponse { ready: self.shared.is_ready() }))
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Answer<pb::ModelReadyResponse> {
        let request = request.into_inner();
        let ready = describe::ready(&self.shared, &request.name, version(&request.version));
        answered(match ready {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            ready => Ok(pb::ModelReadyResponse { ready: ready.is_ok() }),
        })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answer<pb::ServerMetadataResponse> {
        answered(Ok(wire::server_metadata_pb(&describe::SERVER)))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Answer<pb::ModelMetadataResponse> {
        let request = request.into_inner();
        answered(describe::model(
            &self.shared,
            &request.name,
            version(&request.version),
            wire::model_metadata_pb,
        ))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        let request = request.into_inner();
        answered(describe::model(&self.shared, &request.name, version(&request.version), wire::config_pb))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let request = request.into_inner();
        let named = (!request.name.is_empty()).then(|| (request.name.as_str(), version(&request.version)));
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
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Answer<pb::SystemSharedMemoryStatusResponse> {
        unbuilt(SYSTEM_SHARED_MEMORY)
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryRegisterResponse> {
        unbuilt(SYSTEM_SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryUnregisterResponse> {
        unbuilt(SYSTEM_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Answer<pb::CudaSharedMemoryStatusResponse> {
        unbuilt(CUDA_SHARED_MEMORY)
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
        unbuilt(CUDA_SHARED_MEMORY)
    }

    async fn trace_setting(&self, _: Request<pb::TraceSettingRequest>) -> Answer<pb::TraceSettingResponse> {
        unbuilt("changing trace settings by request; set otlp_endpoint instead")
    }

    async fn log_settings(&self, _: Request<pb::LogSettingsRequest>) -> Answer<pb::LogSettingsResponse> {
        unbuilt("changing log settings by request")
    }
}

const SYSTEM_SHARED_MEMORY: &str = "system shared memory; send tensors in the request";
const CUDA_SHARED_MEMORY: &str = "CUDA shared memory; send tensors in the request";
