//! Workers that a zygote forks; here one that starts programs instead.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use inferd_types::settings::{Launch, ModelSettings};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde_json::{Value, json};

use super::support::{Bench, PATIENCE, model, pair, pairs, start, values};
use crate::socket::{self, Fds, PACKET_MAX};
use crate::spawn::{self, Program};
use crate::{Doorbell, Exit, Spawner, Worker};

#[test]
#[ignore = "the body of a process, not a test"]
fn zygote_entry() {
    let fd = std::env::args().next_back().unwrap().parse().unwrap();
    // SAFETY: the channel of this process, which has no other owner.
    let socket = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        let mut fds = Fds::new();
        let length = socket::receive(&socket, &mut buffer, Some(&mut fds)).unwrap();
        if length == 0 {
            std::process::exit(0);
        }
        let asked: Value = serde_json::from_slice(&buffer[..length]).unwrap();
        let env: std::collections::BTreeMap<String, String> =
            serde_json::from_value(asked["fork"]["env"].clone()).unwrap();
        if env.contains_key("REFUSE") {
            socket::send(&socket, &json!({ "error": "no fork today" }), &[]).unwrap();
            continue;
        }
        let (output, channel) = (fds.pop().unwrap(), fds.pop().unwrap());
        let Launch::Exec { command } = model(&pairs(), json!({})).launch else { panic!() };
        let mark = serde_json::from_value(asked["fork"]["mark"].clone()).unwrap();
        let program = Program { command, env, directory: None, cpus: vec![], nice: 0, channel, output, mark };
        let (pid, pidfd) = spawn::start(program).unwrap().take();
        socket::send(&socket, &json!({ "pid": pid }), &[pidfd.as_fd()]).unwrap();
        let socket = socket.clone();
        std::thread::spawn(move || {
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
            let raw = status.terminating_signal().or(status.exit_status().map(|status| status << 8)).unwrap();
            // The gateway may be gone by now.
            let _ = socket::send(&socket, &json!({ "exited": { "pid": pid, "status": raw } }), &[]);
        });
    }
}

pub(super) fn forked(mode: &str) -> ModelSettings {
    let mut settings = model(&pairs(), json!({ "mode": mode }));
    let Launch::Exec { command } = settings.launch else { panic!() };
    let command = command
        .into_iter()
        .map(
            |word| if word.ends_with("process_entry") { "tests::zygotes::zygote_entry".into() } else { word },
        )
        .collect();
    settings.launch = Launch::Zygote { command };
    settings
}

pub(super) fn parent(worker: &Worker) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_forked_worker_runs_batches_and_its_exit_is_reported_with_its_status() {
    let mut bench = Bench::new(&forked("double")).await;
    let answers = bench.run(1, &[pair(&[1.0, 2.0])]).await.outcome.unwrap().split(&[1]).unwrap();
    assert_eq!(values(&answers[0][0]), [2.0, 4.0]);
    bench.worker.kill();
    assert_eq!(bench.exited().await, Exit::Signal(9));
}

#[tokio::test]
async fn equal_commands_share_a_zygote_and_a_dead_one_is_replaced() {
    let (spawner, bell, settings) = (Spawner::new().unwrap(), Doorbell::new().unwrap(), forked("double"));
    let (one, _) = start(&spawner, &settings, &bell).await.unwrap();
    let (other, _) = start(&spawner, &settings, &bell).await.unwrap();
    let zygote = parent(&one);
    assert_eq!(parent(&other), zygote);
    pidfd_send_signal(pidfd_open(zygote, PidfdFlags::empty()).unwrap(), Signal::KILL).unwrap();
    // Its children end with it, and their exit status is lost.
    for worker in [&one, &other] {
        let exit = tokio::time::timeout(PATIENCE, worker.exited()).await.unwrap();
        assert!(matches!(exit, Exit::Unknown | Exit::Signal(9)), "{exit:?}");
    }
    let (next, _) = start(&spawner, &settings, &bell).await.unwrap();
    assert_ne!(parent(&next), zygote);
}

#[tokio::test]
async fn a_failed_fork_is_reported_and_the_zygote_lives_on() {
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    let mut refused = forked("double");
    refused.env.insert("REFUSE".into(), "1".into());
    let error = start(&spawner, &refused, &bell).await.unwrap_err();
    assert_eq!(error.detail(), Some("no fork today"));
    assert!(start(&spawner, &forked("double"), &bell).await.is_ok());
}

#[tokio::test]
async fn a_closed_spawner_has_no_zygote_left() {
    let mut bench = Bench::new(&forked("double")).await;
    bench.run(1, &[pair(&[1.0, 2.0])]).await.outcome.unwrap();
    let zygote = parent(&bench.worker);
    tokio::time::timeout(PATIENCE, bench.spawner.close()).await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", zygote.as_raw_nonzero())).exists());
    assert_ne!(bench.exited().await, Exit::Status(0));
}
