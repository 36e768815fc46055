//! The gateway over real sockets, in front of a real dispatcher and real worker processes with a small model.

mod client;
mod docs;
mod grpc;
mod life;
mod limits;
mod model;
mod rest;
mod server;
mod tracing;

/// Not a test: the program that worker processes run. They are started from this same executable.
#[test]
#[ignore = "runs in worker processes only"]
fn worker_process() {
    model::run();
}
