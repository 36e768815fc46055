//! The calls of `inference.GRPCInferenceService`.
//!
//! Reads messages that tonic decoded, hands back messages. One value serves one call.
//! Knows nothing of frames or compression.

use std::sync::Arc;

use inferd_protocol::pb::inference as pb;
use inferd_protocol::pb::inference::grpc_inference_service_server::GrpcInferenceService;
use inferd_protocol::{Region, describe as wire};
use inferd_types::{Error, ErrorKind, Result};
use tonic::{Request, Response, Status, Streaming};

use super::message::{MessageForm, non_empty};
use super::{status, stream};
use crate::admit::caller::Caller;
use crate::admit::inflight::HeldBytes;
use crate::describe;
use crate::infer::inference::Inference;
use crate::infer::record::find_or_record;
use crate::route::endpoint::CUDA_SHARED_MEMORY;
use crate::server_state::ServerState;

/// One call.
pub(super) struct InferenceService {
    pub(super) server: Arc<ServerState>,
    pub(super) caller: Caller,
    /// What the call's body holds.
    pub(super) held: Arc<HeldBytes>,
}

type RpcResult<T> = std::result::Result<Response<T>, Status>;

impl InferenceService {
    async fn infer(&self, request: Request<pb::ModelInferRequest>) -> Result<pb::ModelInferResponse> {
        let (metadata, _, message) = request.into_parts();
        let (server, caller) = (&self.server, &self.caller);
        let target = find_or_record(server, caller, &message.model_name, non_empty(&message.model_version))?;
        let inference = Inference { server, target: &target, caller, headers: metadata.as_ref() };
        inference.answer(MessageForm, message).await
    }
}

/// A call that the protocol has and this server does not.
fn unbuilt<T>(feature: &str) -> RpcResult<T> {
    Err(status::of(&Error::new(ErrorKind::Unimplemented, format!("not implemented: {feature}"))))
}

fn answered<T>(result: Result<T>) -> RpcResult<T> {
    result.map(Response::new).map_err(|error| status::of(&error))
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = stream::StreamAnswers;

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> RpcResult<pb::ModelInferResponse> {
        answered(self.infer(request).await)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> RpcResult<Self::ModelStreamInferStream> {
        let (metadata, _, messages) = request.into_parts();
        let call = stream::StreamCall {
            server: self.server.clone(),
            caller: Arc::new(self.caller.clone()),
            headers: Arc::new(metadata.into_headers()),
            held: self.held.clone(),
        };
        Ok(Response::new(call.answers(messages)))
    }

    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> RpcResult<pb::ServerLiveResponse> {
        answered(Ok(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> RpcResult<pb::ServerReadyResponse> {
        answered(Ok(pb::ServerReadyResponse { ready: self.server.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> RpcResult<pb::ModelReadyResponse> {
        let request = request.into_inner();
        let ready = describe::ready(&self.server, &request.name, non_empty(&request.version));
        answered(match ready {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            ready => Ok(pb::ModelReadyResponse { ready: ready.is_ok() }),
        })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> RpcResult<pb::ServerMetadataResponse> {
        answered(Ok(wire::server_metadata_pb(&describe::server(&self.server))))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> RpcResult<pb::ModelMetadataResponse> {
        let request = request.into_inner();
        answered(describe::model(
            &self.server,
            &request.name,
            non_empty(&request.version),
            wire::model_metadata_pb,
        ))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> RpcResult<pb::ModelConfigResponse> {
        let request = request.into_inner();
        answered(describe::model(&self.server, &request.name, non_empty(&request.version), wire::config_pb))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> RpcResult<pb::ModelStatisticsResponse> {
        let request = request.into_inner();
        let named = (!request.name.is_empty()).then(|| (request.name.as_str(), non_empty(&request.version)));
        answered(describe::statistics(&self.server, named, wire::statistics_pb))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> RpcResult<pb::RepositoryIndexResponse> {
        answered(Ok(describe::index(&self.server, request.into_inner().ready, wire::index_pb)))
    }

    async fn repository_model_load(
        &self,
        _: Request<pb::RepositoryModelLoadRequest>,
    ) -> RpcResult<pb::RepositoryModelLoadResponse> {
        unbuilt("loading a model by request; models are named when 'inferd serve' starts")
    }

    async fn repository_model_unload(
        &self,
        _: Request<pb::RepositoryModelUnloadRequest>,
    ) -> RpcResult<pb::RepositoryModelUnloadResponse> {
        unbuilt("unloading a model by request; models are named when 'inferd serve' starts")
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> RpcResult<pb::SystemSharedMemoryStatusResponse> {
        let regions = self.server.regions.status(self.caller.tenant, non_empty(&request.into_inner().name));
        answered(regions.map(|regions| inferd_protocol::regions_pb(&regions)))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> RpcResult<pb::SystemSharedMemoryRegisterResponse> {
        let pb::SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request.into_inner();
        let registered =
            self.server.regions.register(self.caller.tenant, Region { name, key, offset, byte_size });
        answered(registered.map(|()| pb::SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> RpcResult<pb::SystemSharedMemoryUnregisterResponse> {
        let forgotten =
            self.server.regions.unregister(self.caller.tenant, non_empty(&request.into_inner().name));
        answered(forgotten.map(|()| pb::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> RpcResult<pb::CudaSharedMemoryStatusResponse> {
        answered(Ok(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> RpcResult<pb::CudaSharedMemoryRegisterResponse> {
        unbuilt(CUDA_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> RpcResult<pb::CudaSharedMemoryUnregisterResponse> {
        answered(Ok(pb::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        _: Request<pb::TraceSettingRequest>,
    ) -> RpcResult<pb::TraceSettingResponse> {
        unbuilt("changing trace settings by request; set otlp_endpoint instead")
    }

    async fn log_settings(&self, _: Request<pb::LogSettingsRequest>) -> RpcResult<pb::LogSettingsResponse> {
        unbuilt("changing log settings by request")
    }
}
