//! The dispatcher with real worker processes: this test binary, started once more as a worker.

mod cache;
mod company;
mod faults;
mod fixture;
mod routes;
mod serving;
mod worker;

/// The body of a worker process; in an ordinary test run there is nothing to do.
#[test]
fn worker_process() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, name, .., fd] = &arguments[..]
        && name == "worker_process"
        && let Ok(fd) = fd.parse()
    {
        worker::run(fd);
    }
}
