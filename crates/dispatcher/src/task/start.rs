//! How a model's task comes to run, on whichever kind of replica.
//!
//! Reads a model and what all models of the process share; takes the launcher from the factory that was injected, and spawns
//! the task. Once for each load: from here on nothing is dynamic. Knows nothing of what a launcher starts.

use std::sync::Arc;

use inferd_transport::Spawner;
use inferd_types::settings::ModelSettings;
use inferd_types::{Clock, Error, ErrorKind, Result};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::generation::model::Model;
use crate::observe::cpu_time::CpuTime;
use crate::replica::kind::Launcher;
use crate::replica::process::ProcessLauncher;
use crate::task::Task;
use crate::task::moderation::Moderation;

/// Decides which kind of replica runs a model.
pub trait LauncherFactory: Send + Sync {
    /// Makes the launcher of a model with `settings`, and has `start` run the model's task on it. Called inside the runtime.
    ///
    /// # Errors
    /// Where no launcher can be made, or the task can't be started.
    fn launch(&self, settings: &ModelSettings, start: TaskStart) -> Result<()>;
}

/// Runs every model in worker processes of this machine.
#[derive(Clone, Debug)]
pub struct WorkerProcesses(pub Spawner);

impl LauncherFactory for WorkerProcesses {
    fn launch(&self, settings: &ModelSettings, start: TaskStart) -> Result<()> {
        start.run(ProcessLauncher::new(self.0.clone(), settings.clone())?)
    }
}

/// What the tasks of all models share. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(crate) struct TaskContext {
    pub(crate) clock: Clock,
    pub(crate) runtime: runtime::Handle,
    pub(crate) moderation: Moderation,
    pub(crate) cpu_time: CpuTime,
    pub(crate) launchers: Arc<dyn LauncherFactory>,
}

impl TaskContext {
    /// Runs the task of `model`; returns when it has loaded, or ended because it could not.
    pub(crate) async fn run(&self, model: Arc<Model>) -> Result<()> {
        let (loaded, is_loaded) = oneshot::channel();
        let start = TaskStart { context: self.clone(), model: model.clone(), loaded };
        self.launchers.launch(&model.published.settings, start)?;
        let gone = |_| Err(Error::new(ErrorKind::Internal, "the model's dispatcher failed while it loaded"));
        is_loaded.await.unwrap_or_else(gone)
    }
}

/// A task that lacks only its launcher.
pub struct TaskStart {
    context: TaskContext,
    model: Arc<Model>,
    loaded: oneshot::Sender<Result<()>>,
}

impl TaskStart {
    /// Spawns the task, whose replicas `launcher` starts.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn run(self, launcher: impl Launcher) -> Result<()> {
        let TaskContext { clock, runtime, moderation, cpu_time, .. } = self.context;
        let moderated = moderation.enter(launcher.doorbell().cloned());
        let task = Task::new(&self.model, clock, launcher, moderated, cpu_time, self.loaded)?;
        runtime.spawn(task.run());
        Ok(())
    }
}
