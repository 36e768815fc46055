//! The protocol's gRPC messages, service and client, generated from `/proto`.
//!
//! Used by `grpc` and `describe` here and by the gateway, which implements the service. Knows nothing of what a
//! field means.

/// Package `inference`: `GRPCInferenceService` with Triton's names and numbers.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The encoded descriptor set of the package, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
