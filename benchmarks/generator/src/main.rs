//! Sends requests at times drawn in advance, whether or not the server keeps up, and says what each took.
//!
//! Reads a job from standard input (see [`job`]), writes one JSON object to standard output. Each latency counts from
//! the *intended* time of sending, so a server that stalls is charged for everything that should have been sent
//! meanwhile (no coordinated omission). Knows nothing of what is asked, and draws no times: equal jobs are equal loads.
//!
//! Python is its caller (`benchmarks/openloop.py`) and no part of it: reading 32 answers there took longer than some
//! models run, and was charged to the server.
#![forbid(unsafe_code)]

mod answer;
mod connection;
mod engine;
mod job;
mod record;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::Engine;
use crate::job::Job;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let job = Job::read(&mut std::io::stdin().lock())?;
    raise_open_files();
    let seen =
        Engine::new(&job).and_then(Engine::run).map_err(|fault| format!("no load was made: {fault}"))?;
    serde_json::to_writer(std::io::stdout().lock(), &seen).map_err(|fault| format!("nobody reads: {fault}"))
}

/// A connection is a file, and the usual soft limit of 1,024 is fewer than a lost server leaves open.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where even this is not allowed, opening a connection fails later, and counts as an error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
