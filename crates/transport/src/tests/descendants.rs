//! What a worker started ends with it.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::support::{Bench, PATIENCE, model, pairs, start};
use super::zygotes::{forked, parent};
use crate::descendants::{Mark, sweep};
use crate::{Doorbell, Exit, Spawner};

/// Whether the process runs: one that has ended may wait for whoever inherited it.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X'])))
}

/// Processes that a worker of the mode `family` starts while it loads: one in its group, one in a session of its own without
/// an environment, one in its group without its mark, and one that names itself a resource tracker.
fn family(loaded: &inferd_types::settings::LoadedModel) -> Vec<u32> {
    let pids: Vec<u32> = loaded.facts["family"].split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| runs(*pid)));
    pids
}

fn settings() -> inferd_types::settings::ModelSettings {
    model(&pairs(), json!({ "mode": "double", "family": true }))
}

#[tokio::test]
async fn what_a_worker_started_has_ended_when_its_end_is_told() {
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    for killed in [true, false] {
        let (worker, loaded) = start(&spawner, &settings(), &bell).await.unwrap();
        let family = family(&loaded);
        let exit = if killed {
            worker.kill();
            Exit::Signal(9)
        } else {
            worker.close();
            Exit::Status(0)
        };
        assert_eq!(worker.exited().await, exit);
        let found: Vec<_> = family.iter().map(|pid| runs(*pid)).collect();
        // What is known by its group alone is killed, and not waited for.
        assert_eq!(found, [false, false, found[2], false], "killed: {killed}");
        let ended = async {
            while runs(family[2]) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the group ends");
    }
}

#[tokio::test]
async fn a_zygote_that_dies_leaves_nothing_of_its_workers() {
    let (spawner, bell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
    let mut zygotes = forked("double");
    zygotes.load["family"] = true.into();
    let (worker, loaded) = start(&spawner, &zygotes, &bell).await.unwrap();
    // Without the mark and with a dead leader nobody finds it.
    let family = family(&loaded);
    kill_process(parent(&worker), Signal::KILL).unwrap();
    assert_eq!(worker.exited().await, Exit::Unknown);
    let found: Vec<_> = family.iter().map(|pid| runs(*pid)).collect();
    kill_process(Pid::from_raw(family[2] as i32).unwrap(), Signal::KILL).unwrap();
    assert_eq!(found, [false, false, true, false]);
}

#[tokio::test]
async fn workers_of_others_are_left_alone() {
    let one = Bench::pairs("double").await;
    let other = Bench::pairs("double").await;
    one.worker.kill();
    one.exited().await;
    sweep(Mark::random());
    assert!(runs(other.worker.pid()));
}

/// What `process_entry` starts for [`family`].
pub(super) fn start_family() -> String {
    let commands: [&[&str]; 4] = [
        &["sleep", "1000"],
        &["setsid", "env", "-i", "sleep", "1000"],
        &["prlimit", "--rttime=unlimited", "sleep", "1000"],
        &["sh", "-c", "sleep 1000; : resource_tracker"],
    ];
    let start = |command: &[&str]| {
        let mut child = Command::new(command[0]);
        child.args(&command[1..]).stdin(std::process::Stdio::null());
        child.spawn().unwrap().id().to_string()
    };
    commands.map(start).join(" ")
}
