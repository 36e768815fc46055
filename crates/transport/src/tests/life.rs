//! From the start of a process to its end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use inferd_types::settings::{Launch, MachineShare};
use inferd_types::{DataType, ErrorKind, InputSchema, Tensor};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span;

use super::support::{Bench, Gate, PATIENCE, floats, model, named, pair, pairs, start};
use crate::layout::tests::{signature, spec};
use crate::{Doorbell, Exit, SlotState, Spawner};

fn alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_worker_has_what_its_settings_say_and_nothing_else() {
    let mut settings = model(&pairs(), json!({ "mode": "double" }));
    settings.env.insert("GREETING".into(), "hello".into());
    settings.directory = Some("/".into());
    settings.machine = MachineShare { cpus: vec![0], cores: 1, pin: true, ..MachineShare::default() };
    let spawner = Spawner::new().unwrap();
    let (worker, loaded) = start(&spawner, &settings, &Doorbell::new().unwrap()).await.unwrap();
    let fact = |name: &str| loaded.facts[name].as_str();
    assert_eq!(loaded.signature, pairs());
    assert_eq!(fact("env"), "GREETING=hello");
    assert_eq!(fact("directory"), "/");
    assert_eq!(fact("cpus"), "0");
    assert_eq!(fact("no_new_privs"), "1");
    let ours: i32 = super::child::nice().parse().unwrap();
    assert_eq!(fact("nice"), ours.to_string());
    assert_eq!(fact("core").split_whitespace().nth(4), Some("0"), "{}", fact("core"));
    // Three standard streams, the channel, and what the directory listing itself takes.
    let descriptors: usize = fact("descriptors").parse().unwrap();
    assert!(descriptors <= 4, "{descriptors}");
    assert!(alive(worker.pid()));
}

#[tokio::test]
async fn ten_thousand_columns_and_a_thousand_inputs_have_names() {
    let mut wide =
        signature(vec![spec(DataType::Fp32, &[-1, 10_000])], vec![spec(DataType::Fp32, &[-1, 10_000])], true);
    wide.extras.schemas.push(InputSchema {
        input: "x".into(),
        columns: (0..10_000).map(|column| format!("the column of number {column:08}").into()).collect(),
        missing: true,
        largest: Some(f64::from(f32::MAX)),
    });
    let specs = || named((0..1024).map(|_| spec(DataType::Fp32, &[-1])).collect());
    let many = signature(specs(), specs(), true);
    for signature in [wide, many] {
        // The signature is in the settings too: both directions are long.
        let mut bench = Bench::new(&model(&signature, json!({ "mode": "double" }))).await;
        let width = if signature.inputs.len() == 1 { 10_000 } else { 1 };
        let values = vec![1.5; width];
        let input = match width {
            1 => Tensor { shape: [1].into_iter().collect(), ..floats(&values, 1) },
            width => floats(&values, width),
        };
        let result = bench.run(1, &[vec![input; signature.inputs.len()]]).await;
        let outputs = result.outcome.unwrap().split(&[1]).unwrap();
        assert_eq!(outputs[0].len(), signature.outputs.len());
        assert!(outputs[0].iter().all(|output| super::support::values(output) == vec![3.0; width]));
    }
}

#[tokio::test]
async fn a_killed_worker_is_noticed_and_reaped_and_its_batch_stays_taken() {
    let gate = Gate::new("killed");
    let mut bench = Bench::new(&gate.settings()).await;
    let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
    bench.taken(slot).await;
    let pid = rustix::process::Pid::from_raw(bench.worker.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(bench.exited().await, Exit::Signal(9));
    assert!(!alive(bench.worker.pid()), "it is reaped");
    assert!(matches!(bench.worker.poll(slot), SlotState::Taken));
    assert_eq!(bench.exited().await, Exit::Signal(9), "later calls return it as well");
}

#[tokio::test]
async fn a_worker_that_aborts_in_a_batch_leaves_an_exit_and_no_result() {
    let mut bench = Bench::pairs("abort").await;
    let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
    assert_eq!(bench.exited().await, Exit::Signal(6));
    assert!(matches!(bench.worker.poll(slot), SlotState::Taken));
}

#[tokio::test]
async fn close_lets_the_batch_in_hand_finish() {
    let gate = Gate::new("close");
    let mut bench = Bench::new(&gate.settings()).await;
    let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
    bench.taken(slot).await;
    bench.worker.close();
    gate.open().await;
    assert!(bench.done(slot).await.outcome.is_ok());
    assert_eq!(bench.exited().await, Exit::Status(0));
}

#[tokio::test]
async fn close_ends_a_worker_that_sleeps() {
    let bench = Bench::pairs("double").await;
    bench.worker.close();
    assert_eq!(bench.exited().await, Exit::Status(0));
}

#[tokio::test]
async fn dropping_a_worker_ends_its_process() {
    let bench = Bench::pairs("double").await;
    let exited = bench.worker.exited();
    drop(bench);
    assert_eq!(tokio::time::timeout(PATIENCE, exited).await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn loading_that_fails_says_why() {
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    let error = start(&spawner, &model(&pairs(), json!({ "mode": "load_failed" })), &bell).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelFailed);
    assert_eq!(error.message(), "model 'm' could not be loaded: no such file: model.bin");
    assert_eq!(error.detail(), Some("Traceback: line 7"));
    let error = start(&spawner, &model(&pairs(), json!({ "mode": "load_exits" })), &bell).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerLost);
    assert!(error.message().contains("exited with status 3 while it loaded"), "{error}");
    let mut nothing = model(&pairs(), json!({}));
    nothing.launch = Launch::Exec { command: vec!["/no/such/program".into()] };
    let error = start(&spawner, &nothing, &bell).await.unwrap_err();
    assert!(error.detail().unwrap().contains("/no/such/program"), "{error:?}");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process() {
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    let gate = Gate::new("given-up");
    let mut settings = model(&pairs(), json!({ "mode": "load_hangs" }));
    // A shell that prints its pid, opening the gate for reading, before it becomes the worker.
    let Launch::Exec { command } = &settings.launch else { panic!() };
    let script = format!("echo $$ > {}; exec \"$@\"", gate.path.display());
    let shell = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned);
    settings.launch = Launch::Exec { command: shell.into_iter().chain(command.clone()).collect() };
    let starting = tokio::spawn(async move { start(&spawner, &settings, &bell).await.map(drop) });
    let path = gate.path.clone();
    let pid = tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap()).await.unwrap();
    let pid: i32 = pid.trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    starting.abort();
    let ended = crate::socket::readable(pidfd).unwrap();
    let ended = tokio::time::timeout(PATIENCE, ended.readable()).await;
    assert!(ended.is_ok(), "it is ended");
}

/// Collects what is logged for workers.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "worker"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn what_a_worker_writes_is_logged_line_by_line_with_its_name() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let mut bench = Bench::pairs("talk").await;
    bench.run(1, &[pair(&[1.0, 2.0])]).await.outcome.unwrap();
    let has = |text: &str| {
        let lines = log.0.lock().unwrap();
        lines
            .iter()
            .any(|line| line.contains(text) && line.contains("model=\"m\"") && line.contains("version=1"))
    };
    let waiting = async {
        while !(has("to standard error") && has("to standard output")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("both lines arrive");
    drop(guard);
}

/// Runs in a process of its own, so that no other test's descriptors are counted.
#[test]
#[ignore = "the body of a process, not a test"]
fn counting_entry() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("inferd-").count();
    runtime.block_on(async {
        // One round first: what is created once stays.
        round().await;
        let (before, maps) = (open(), mapped());
        for _ in 0..5 {
            round().await;
        }
        assert_eq!((open(), mapped()), (before, maps), "descriptors and mappings");
    });
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children.trim(), "");
    println!("nothing is left");
}

async fn round() {
    let mut bench = Bench::pairs("double").await;
    bench.run(1, &[pair(&vec![1.0; 600_000])]).await.outcome.unwrap();
    let (exited, spawner) = (bench.worker.exited(), bench.spawner.clone());
    drop(bench);
    exited.await;
    drop(spawner);
    // The tasks that held descriptors end with the process, each at its next turn.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn no_descriptor_no_mapping_and_no_child_is_left_behind() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "tests::life::counting_entry"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("nothing is left"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// A gateway that starts a worker, prints its pid, and waits to be killed.
#[test]
#[ignore = "the body of a process, not a test"]
fn gateway_entry() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let gate = Gate::new("gateway");
        let mut bench = Bench::new(&gate.settings()).await;
        let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
        bench.taken(slot).await;
        println!("worker {} {}", bench.worker.pid(), gate.path.display());
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn a_worker_ends_when_its_gateway_is_killed_even_in_a_batch() {
    let mut gateway = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "tests::life::gateway_entry"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
    // The test harness may have written the beginning of a line of its own.
    let line = lines.map(Result::unwrap).find(|line| line.contains("worker ")).unwrap();
    let mut words = line.split("worker ").last().unwrap().split(' ');
    let pid: i32 = words.next().unwrap().parse().unwrap();
    let gate = std::path::PathBuf::from(words.next().unwrap());
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    let ended = crate::socket::readable(pidfd).unwrap();
    let _ = tokio::time::timeout(PATIENCE, ended.readable()).await.expect("the worker ends").unwrap();
    std::fs::remove_dir_all(gate.parent().unwrap()).unwrap();
}
