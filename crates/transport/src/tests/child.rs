//! The worker process of the tests.

use std::time::Duration;

use inferd_types::settings::LoadedModel;
use inferd_types::{DataType, ErrorKind, Signature};

use super::hostile;
use crate::worker::{Batch, Channel};

#[test]
#[ignore = "the body of a worker process, not a test"]
fn process_entry() {
    let fd = std::env::args().next_back().unwrap().parse().unwrap();
    // SAFETY: only asks whether it is there.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    if let Some(load) = hostile::peek(socket) {
        hostile::run(fd, &load);
    }
    let mut channel = Channel::from_fd(fd).unwrap();
    let load = channel.load().clone();
    let mode = load["mode"].as_str().unwrap().to_owned();
    match mode.as_str() {
        "load_failed" => {
            channel.failed("no such file: model.bin", "Traceback: line 7");
            std::process::exit(0);
        }
        "load_exits" => std::process::exit(3),
        "load_hangs" => loop {
            std::thread::park();
        },
        _ => {}
    }
    let signature: Signature = serde_json::from_value(load["signature"].clone()).unwrap();
    let mut facts = facts();
    if load.get("family").is_some() {
        facts.insert("family".to_owned(), super::descendants::start_family());
    }
    channel.loaded(&LoadedModel::new(signature, facts)).unwrap();
    let stopped = std::sync::Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let stop = stopped.clone();
    channel.on_terminate(Box::new(move || {
        *stop.0.lock().unwrap() = true;
        stop.1.notify_all();
    }));
    while let Some(batch) = channel.next().unwrap() {
        match mode.as_str() {
            "double" => double(batch),
            "gate" => {
                std::fs::read(load["gate"].as_str().unwrap()).unwrap();
                double(batch);
            }
            "grow" => grow(batch, load["width"].as_u64().unwrap()),
            "short" => short(batch),
            "wrong_type" => {
                let mut batch = batch;
                batch.output(0, DataType::Int32, &[u64::from(batch.rows()), 2]).unwrap();
                batch.finish(Duration::ZERO);
            }
            "none" => batch.finish(Duration::ZERO),
            "fail" => batch.fail(ErrorKind::InvalidInput, "row 1 is out of range", "Traceback: line 9"),
            "count" => count(batch, load["responses"].as_u64().unwrap()),
            "drop" => drop(batch),
            "abort" => std::process::abort(),
            "talk" => {
                eprintln!("to standard error");
                println!("to standard output");
                double(batch);
            }
            "until_stopped" => {
                let mut stop = stopped.0.lock().unwrap();
                while !*stop {
                    stop = stopped.1.wait(stop).unwrap();
                }
                drop(stop);
                batch.fail(ErrorKind::ModelFailed, "stopped", "");
            }
            other => panic!("{other}"),
        }
    }
    std::process::exit(0);
}

/// The niceness of this process.
pub(super) fn nice() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The fields begin after the name, which is in parentheses and may contain spaces; niceness is the 19th of all.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(16).unwrap().to_owned()
}

/// Facts about the process's environment.
fn facts() -> std::collections::BTreeMap<String, String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() - 1;
    let env: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    let directory = std::env::current_dir().unwrap().display().to_string();
    let facts = [
        ("no_new_privs", field("NoNewPrivs")),
        ("cpus", field("Cpus_allowed_list")),
        ("descriptors", descriptors.to_string()),
        ("env", env.join(",")),
        ("core", core),
        ("nice", nice()),
        ("directory", directory),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn read(batch: &Batch, index: usize) -> Vec<u8> {
    let input = &batch.inputs()[index];
    assert!(input.ptr.addr().is_multiple_of(64));
    // SAFETY: the gateway wrote these bytes before it published the batch, and leaves them alone until it is done.
    unsafe { std::slice::from_raw_parts(input.ptr, input.len) }.to_vec()
}

fn write(to: *mut u8, bytes: &[u8]) {
    assert!(to.addr().is_multiple_of(64));
    // SAFETY: the batch gave room for as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}

/// Every input as an output: numbers doubled, bytes unchanged. The reported execution time is its number of rows.
fn double(mut batch: Batch) {
    for index in 0..batch.inputs().len() {
        let (datatype, shape) = (batch.inputs()[index].datatype, batch.inputs()[index].shape.clone());
        let bytes = read(&batch, index);
        if datatype == DataType::Bytes {
            write(batch.output_bytes(index, &shape, bytes.len()).unwrap(), &bytes);
            continue;
        }
        assert_eq!(datatype, DataType::Fp32);
        let twice = bytes.chunks_exact(4).flat_map(|bytes| {
            let value = f32::from_le_bytes(bytes.try_into().unwrap());
            (2.0 * value).to_le_bytes()
        });
        let twice: Vec<u8> = twice.collect();
        write(batch.output(index, datatype, &shape).unwrap(), &twice);
    }
    let rows = u64::from(batch.rows());
    batch.finish(Duration::from_nanos(rows));
}

/// Outputs of `width` columns, each row filled with the first value of its input row.
fn grow(mut batch: Batch, width: u64) {
    let input = read(&batch, 0);
    let rows = batch.rows();
    let columns = input.len() / rows as usize;
    let bytes: Vec<u8> =
        input.chunks_exact(columns).flat_map(|row| row[..4].repeat(width as usize)).collect();
    let outputs = batch_outputs(&batch);
    for index in 0..outputs {
        match batch.output(index, DataType::Fp32, &[u64::from(rows), width]) {
            Ok(to) => write(to, &bytes),
            Err(error) => return batch.fail(error.kind(), error.message(), ""),
        }
    }
    batch.finish(Duration::ZERO);
}

/// As many outputs as inputs.
fn batch_outputs(batch: &Batch) -> usize {
    batch.inputs().len()
}

/// A response for each number below `responses`, each larger than the one before; then as many as were wanted.
fn count(mut batch: Batch, responses: u64) {
    for number in 0..responses {
        let len = 4 << number.min(18);
        write(batch.output(0, DataType::Fp32, &[1 << number.min(18)]).unwrap(), &vec![number as u8; len]);
        if !batch.respond().unwrap() {
            return batch.fail(ErrorKind::ModelFailed, &format!("stopped at {number}"), "");
        }
    }
    batch.finish(Duration::ZERO);
}

fn short(mut batch: Batch) {
    let rows = u64::from(batch.rows());
    let to = batch.output(0, DataType::Fp32, &[rows - 1, 2]).unwrap();
    write(to, &vec![0; (rows as usize - 1) * 8]);
    batch.finish(Duration::ZERO);
}
