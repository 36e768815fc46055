//! One worker process from its start to its end.
//!
//! Reads a model's settings, hands on a worker with its model loaded and its arena mapped. Knows nothing of other
//! workers of the model, nor of when to start or end one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use inferd_types::settings::{Launch, LoadedModel, ModelSettings, Placement};
use inferd_types::{Error, ErrorKind, Result};
use tokio::io::unix::AsyncFd;

use crate::descendants::Mark;
use crate::frames::{GatewayFrame, PROTOCOL, WorkerFrame};
use crate::layout::{Layout, MAGIC};
use crate::link::Link;
use crate::log::{Source, follow};
use crate::memory::{Mapping, sealed_file};
use crate::process::{Exit, Process, Reaper};
use crate::slots::Slots;
use crate::socket::{self, PACKET_MAX};
use crate::spawn::Program;
use crate::{Doorbell, Spawner};

/// Niceness of the workers of a model with an objective, relative to the gateway. On a shared core, a gateway of
/// equal priority would run only after the worker's time slice, milliseconds late to read requests and to see that
/// a batch has ended.
const NICENESS: i32 = 5;

/// One incarnation of a worker: the process, its arena and its channel. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    pub(crate) process: Arc<Process>,
    pub(crate) link: Arc<Link>,
    pub(crate) slots: Slots,
    /// The process ends with the spawner's thread.
    _spawner: Spawner,
}

impl Worker {
    /// Starts a process, lets it load the model, and gives it its arena. Dropping the future kills the process.
    ///
    /// # Errors
    /// `ModelFailed` with the worker's message if it could not load the model, `WorkerLost` if it ended before,
    /// `Internal` if no process could be started.
    pub async fn start(
        spawner: &Spawner,
        settings: &ModelSettings,
        placement: Placement,
        doorbell: &Doorbell,
    ) -> Result<(Worker, LoadedModel)> {
        let (process, socket) = launch(spawner, settings, placement)
            .await
            .map_err(|error| failed(settings, "no worker could be started", &error))?;
        let loaded = match load(&process, &socket, settings, placement).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // Reaped before the exit is reported: a runtime that is shut down right after leaves no zombie
                // behind.
                process.kill();
                process.exited().await;
                return Err(error);
            }
        };
        let layout = Layout::new(&loaded.signature, settings)?;
        let mapping = share_arena(&socket, &layout, doorbell)
            .map_err(|error| failed(settings, "the worker could not be given shared memory", &error))?;
        let link = Arc::new(Link::new(socket, layout.bytes, settings.arena_max_bytes));
        let process = Arc::new(process);
        tokio::spawn(serve(link.clone(), process.clone(), settings.name.clone()));
        let slots = Slots::new(mapping, layout, &loaded.signature, settings);
        Ok((Worker { process, link, slots, _spawner: spawner.clone() }, loaded))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the process has ended and is reaped. Any number of these may wait at once; they don't borrow the
    /// worker.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        self.process.exited()
    }

    /// Kills the process.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Asks the runtime to stop the current run; not every runtime can.
    pub fn terminate_run(&self) {
        self.link.send(&GatewayFrame::Terminate {});
    }

    /// Asks the worker to finish its batch and exit.
    pub fn close(&self) {
        self.link.send(&GatewayFrame::Close {});
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The task that serves the control socket holds the process too, so its own drop may come later.
        self.process.kill();
    }
}

fn failed(settings: &ModelSettings, what: &str, error: &io::Error) -> Error {
    let message = format!("{what} for model '{}'", settings.name);
    Error::new(ErrorKind::Internal, message).with_detail(error.to_string())
}

/// Starts the process; its standard streams go to the log.
async fn launch(
    spawner: &Spawner,
    settings: &ModelSettings,
    placement: Placement,
) -> io::Result<(Process, AsyncFd<OwnedFd>)> {
    let (socket, channel) = socket::pair()?;
    let (log, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (Launch::Exec { command } | Launch::Zygote { command }) = &settings.launch;
    let mark = Mark::random();
    let program = Program {
        command: command.clone(),
        env: environment(settings, placement),
        directory: settings.directory.clone(),
        cpus: settings.machine.cpus_of(placement),
        nice: if settings.slo.is_some() { NICENESS } else { 0 },
        channel,
        output,
        mark: Some(mark),
    };
    let process = match &settings.launch {
        Launch::Exec { .. } => spawner.start(program).await?.watch()?,
        Launch::Zygote { .. } => {
            let forked = spawner.fork(program).await?;
            Process::new(forked.pid, forked.pidfd, Reaper::Zygote(forked.status, mark))?
        }
    };
    let source =
        Source { model: settings.name.clone(), version: settings.version, replica: placement.replica };
    tokio::spawn(follow(log, source, process.exited()));
    Ok((process, socket::readable(socket)?))
}

/// The worker's environment, with the threads of one of so many replicas.
fn environment(settings: &ModelSettings, placement: Placement) -> BTreeMap<String, String> {
    let (mut environment, machine) = (settings.env.clone(), &settings.machine);
    let threads = machine.threads(placement.replicas).to_string();
    environment.extend(machine.thread_variables.iter().map(|name| (name.clone(), threads.clone())));
    environment
}

/// What the worker needs to load the model. The number of threads is the one thing in it that is known here.
fn load_settings(settings: &ModelSettings, placement: Placement) -> serde_json::Value {
    let mut load = settings.load.clone();
    if let Some(threads) = load.get_mut("threads").filter(|_| settings.machine.cores > 0) {
        *threads = settings.machine.threads(placement.replicas).into();
    }
    load
}

/// Has the model loaded.
async fn load(
    process: &Process,
    socket: &AsyncFd<OwnedFd>,
    settings: &ModelSettings,
    placement: Placement,
) -> Result<LoadedModel> {
    let frame = GatewayFrame::Load { protocol: PROTOCOL, settings: load_settings(settings, placement) };
    let mut message = Vec::new();
    let talk = async {
        match socket::send_long(socket, &frame).await {
            // It ended before it had read everything: read what it sent before.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            sent => sent.map_err(|error| failed(settings, "the worker did not read its settings", &error))?,
        }
        let mut buffer = vec![0; PACKET_MAX];
        let failed_channel =
            |error: io::Error| failed(settings, "the control channel of the worker failed", &error);
        loop {
            let length = receive(socket, &mut buffer).await.map_err(failed_channel)?;
            if length == 0 || socket::gather(&mut message, &buffer[..length]).map_err(failed_channel)? {
                return Ok(length);
            }
        }
    };
    let received: Result<usize> = tokio::select! {
        biased;
        received = talk => received,
        // What it sent before its end is there already, and was read first.
        _ = process.exited() => Ok(0),
    };
    let name = &settings.name;
    if received? == 0 {
        // The end of the channel is the end of the process, or nearly.
        process.kill();
        let exit = process.exited().await;
        let message = format!("the worker of model '{name}' {exit} while it loaded; see its log output");
        return Err(Error::new(ErrorKind::WorkerLost, message));
    }
    match WorkerFrame::parse(&message) {
        Ok(WorkerFrame::Loaded(loaded)) => Ok(*loaded),
        Ok(WorkerFrame::Failed { message, detail }) => {
            let message = format!("model '{name}' could not be loaded: {message}");
            Err(Error::new(ErrorKind::ModelFailed, message).with_detail(detail))
        }
        Ok(WorkerFrame::Room { .. }) => Err(invalid_frame(name, "a request for memory before the arena")),
        Err(problem) => Err(invalid_frame(name, &problem)),
    }
}

fn invalid_frame(name: &str, problem: &str) -> Error {
    let message = format!("the worker of model '{name}' sent an invalid frame: {problem}");
    Error::new(ErrorKind::Internal, message)
}

/// Waits for the next packet; 0 bytes at the end.
async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = socket.readable().await?;
        match socket::receive(ready.get_inner(), buffer, None) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            // A worker that died with unread data.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            result => return result,
        }
    }
}

/// Creates the arena and sends it, with the doorbell.
fn share_arena(socket: &AsyncFd<OwnedFd>, layout: &Layout, doorbell: &Doorbell) -> io::Result<Arc<Mapping>> {
    let file = sealed_file("inferd-arena", layout.bytes)?;
    let mapping = Mapping::new(&file, layout.bytes)?;
    mapping.write(0, &MAGIC.to_le_bytes());
    let frame = GatewayFrame::Arena(Box::new(layout.clone()));
    socket::send(socket.get_ref(), &frame, &[file.as_fd(), doorbell.descriptor()])?;
    Ok(Arc::new(mapping))
}

/// Handles the worker's control messages until it is gone.
async fn serve(link: Arc<Link>, process: Arc<Process>, model: String) {
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        let received = tokio::select! {
            _ = process.exited() => return,
            received = receive(&link.socket, &mut buffer) => received,
        };
        let answered = match received {
            // The end of the socket is not the end of the process, which its pidfd reports. But an unreachable
            // worker is useless.
            Ok(0) => {
                let grace = tokio::time::timeout(std::time::Duration::from_secs(5), process.exited());
                if grace.await.is_err() {
                    process.kill();
                }
                return;
            }
            Ok(length) => match WorkerFrame::parse(&buffer[..length]) {
                Ok(WorkerFrame::Room { slot, generation, bytes }) => {
                    link.room_wanted(slot, generation, bytes).map_err(|error| error.to_string())
                }
                Ok(_) => Err("a second report of the loaded model".to_owned()),
                Err(problem) => Err(problem),
            },
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = answered {
            tracing::error!(
                model,
                pid = process.pid(),
                "a worker broke the protocol and is killed: {problem}"
            );
            process.kill();
            return;
        }
    }
}
