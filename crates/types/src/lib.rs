//! The vocabulary of the data plane: ids, time, tensors, signatures, error kinds, settings.
//!
//! All other crates read this one. It knows nothing of sockets, memory layouts, queues or Python.
#![forbid(unsafe_code)]

pub mod compare;
mod complete;
mod datatype;
mod error;
mod extras;
mod ids;
pub mod metrics;
mod request;
mod schema;
pub mod settings;
mod signature;
mod spec;
mod tensor;
mod time;
pub mod values;
mod verdict;
pub mod widening;

pub use datatype::DataType;
pub use error::{Error, ErrorKind, Result, RetryHint, shown};
pub use extras::{Extras, InputDefault, OutputLabels};
pub use ids::{BatchId, ReplicaId, RequestId, Tenant};
pub use request::{
    Due, InferRequest, InferResponse, Priority, RequestContext, Sequence, SequenceId, StepTiming, Timing,
};
pub use schema::{Input, InputSchema, is_float, listed};
pub use signature::{Batching, Signature};
pub use spec::TensorSpec;
pub use tensor::{MISSING, Shape, Tensor, bytes_elements, bytes_prefix, element_count, texts};
pub use time::{Clock, Time};
pub use verdict::{Decider, Verdict};
