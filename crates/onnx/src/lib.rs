//! The native worker: ONNX models over ONNX Runtime's C API.
//!
//! Reads batches from a [`inferd_transport::worker::Channel`], hands on outputs, written directly to the memory
//! that the gateway reads. Knows nothing of requests, queues or protocols, and links no runtime: the library is
//! loaded at run time.
#![allow(
    unsafe_code,
    reason = "ONNX Runtime is a C library; its binding refuses outputs over borrowed memory, so it is called directly"
)]

mod analysis;
mod api;
mod batching;
mod control;
mod facts;
mod file;
mod graph;
mod initializers;
mod memory;
mod model;
mod outputs;
mod owned_outputs;
mod probe;
mod reshape;
mod rewrite;
mod runner;
mod session;
mod settings;
mod source;
mod synthetic;
mod values;
mod worker;

pub use analysis::{Verdict, verdict};
pub use control::Terminator;
pub use inferd_types::compare::Tolerance;
pub use model::OnnxModel;
pub use outputs::Outputs;
pub use runner::Input;
pub use settings::{BatchingMode, Device, LoadSettings, Reshape, ReshapeSettings};
pub use worker::run;
