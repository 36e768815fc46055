//! Server reflection, versions 1 and 1 alpha: the services of this server, for tools such as grpcurl.
//!
//! Reads the descriptor sets once, hands calls to tonic's services. Knows nothing of the calls it describes.

use std::pin::Pin;

use http::{Request, Response};
use inferd_types::{Error, ErrorKind, Result};
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower_service::Service;

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
/// tonic-reflection does not name its services.
type Reflect = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// Both versions of the service.
pub(crate) struct Reflection {
    v1: Reflect,
    v1alpha: Reflect,
}

impl Reflection {
    /// # Errors
    /// `Internal` where the descriptors that were compiled in can't be read.
    pub(crate) fn new() -> Result<Reflection> {
        let failed = |error: tonic_reflection::server::Error| {
            Error::new(ErrorKind::Internal, "the compiled-in descriptors cannot be read")
                .with_detail(error.to_string())
        };
        let v1 = builder().build_v1().map_err(failed)?;
        let v1alpha = builder().build_v1alpha().map_err(failed)?;
        Ok(Reflection { v1: boxed(v1), v1alpha: boxed(v1alpha) })
    }

    pub(super) fn v1(&self, request: Request<Body>) -> Answering {
        (self.v1)(request)
    }

    pub(super) fn v1alpha(&self, request: Request<Body>) -> Answering {
        (self.v1alpha)(request)
    }
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(inferd_protocol::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn boxed<S>(service: S) -> Reflect
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        let answer = service.clone().call(request);
        Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
    })
}
