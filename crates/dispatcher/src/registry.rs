//! Which models are loaded, by name and version.
//!
//! Reads settings from the control plane, hands a [`ModelHandle`] to whoever asks for a name.
//! Knows nothing of how a model is run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use inferd_types::settings::{ModelSettings, PipelineSettings};
use inferd_types::{Clock, Error, ErrorKind, Result};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::generation::model::Model;
use crate::generation::published::ModelState;
use crate::handle::{Kind, ModelHandle};
use crate::intake::inbox::Command;
use crate::observe::cpu_time::CpuTime;
use crate::observe::observer::Observer;
use crate::pipeline::Pipeline;
use crate::task::moderation::Moderation;
use crate::task::start::{LauncherFactory, TaskContext};

type Models = BTreeMap<String, BTreeMap<u64, ModelHandle>>;

/// What draining left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Admitted requests that got an error because the time was over.
    pub unanswered: usize,
}

/// All models of this process. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    /// What the hot path reads, without a lock.
    models: ArcSwap<Models>,
    /// Held while `models` is replaced. `true`: nothing more may be loaded.
    writing: Mutex<bool>,
    tasks: TaskContext,
    observer: Arc<dyn Observer>,
}

impl Registry {
    /// An empty registry whose models' tasks run on `runtime`, on replicas of the kind that `launchers` decides.
    pub fn new(
        clock: Clock,
        runtime: runtime::Handle,
        launchers: Arc<dyn LauncherFactory>,
        moderation: Moderation,
        observer: Arc<dyn Observer>,
    ) -> Registry {
        let cpu_time = CpuTime::new(runtime.metrics().num_workers());
        let tasks = TaskContext { clock, runtime, moderation, cpu_time, launchers };
        Registry(Arc::new(Inner { models: ArcSwap::default(), writing: Mutex::new(false), tasks, observer }))
    }

    /// Loads one version; returns when every replica is warm. It is found, not ready, meanwhile.
    ///
    /// # Errors
    /// The worker's own message where the model does not load; `InvalidInput` where it is loaded already.
    pub async fn load(&self, settings: ModelSettings) -> Result<ModelHandle> {
        let observer = self.0.observer.model(&settings.name, settings.version);
        let model = Arc::new(Model::new(settings, observer, self.0.tasks.clock));
        let handle = ModelHandle(Kind::Model(model.clone()));
        self.insert(&handle)?;
        // Whoever waits may go away: the model is then loaded all the same, or forgotten by this.
        let (registry, loading) = (self.clone(), handle.clone());
        let task = self.0.tasks.runtime.spawn(async move {
            let result = registry.0.tasks.run(model).await;
            if result.is_err() {
                registry.remove(&loading);
            }
            result
        });
        match task.await {
            Ok(result) => result.map(|()| handle),
            Err(error) => {
                Err(Error::new(ErrorKind::Internal, "loading failed").with_detail(error.to_string()))
            }
        }
    }

    /// Serves a pipeline over models that are loaded, each step in the greatest version of its model now.
    ///
    /// # Errors
    /// `InvalidInput` where its steps don't fit each other or its name is taken; `NotFound` for an unknown model.
    pub fn load_pipeline(&self, settings: PipelineSettings) -> Result<ModelHandle> {
        if self.0.models.load().contains_key(&settings.name) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "'{}' is the name of a model or pipeline already; give the pipeline another",
                    settings.name
                ),
            ));
        }
        let observer = self.0.observer.model(&settings.name, 1);
        let pipeline =
            Pipeline::plan(settings, self.0.tasks.clock, observer, |model| self.find(model, None))?;
        let handle = ModelHandle(Kind::Pipeline(Arc::new(pipeline)));
        self.insert(&handle)?;
        Ok(handle)
    }

    /// Drains one version and forgets it.
    ///
    /// # Errors
    /// `NotFound` where it is not loaded, `InvalidInput` where a pipeline runs on it.
    pub async fn unload(&self, name: &str, version: u64) -> Result<()> {
        let handle = self.version(name, version)?;
        if let Some(user) = self.pipelines().find(|pipeline| pipeline.uses(name, version)) {
            let user = &user.settings.name;
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "pipeline '{user}' runs on version {version} of model '{name}'; unload the pipeline first"
                ),
            ));
        }
        match &handle.0 {
            Kind::Model(model) => {
                model.intake.drain().await;
                let (done, is_done) = oneshot::channel();
                if model.intake.inbox().command(Command::Drain(done)).is_ok() {
                    // An error means that the task has ended: then there is nothing left to drain.
                    let _ended = is_done.await;
                }
            }
            Kind::Pipeline(pipeline) => {
                pipeline.drain().await;
            }
        }
        self.remove(&handle);
        Ok(())
    }

    /// The model that serves `name` in `version`; without one, in the greatest version that is loaded.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version (one that is not a positive number included), `NotReady` while
    /// it loads for the first time.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<ModelHandle> {
        let models = self.0.models.load();
        let versions = models.get(name).ok_or_else(|| unknown_model(name))?;
        match version.filter(|version| !version.is_empty()) {
            Some(text) => {
                let handle = parse_version(text).and_then(|number| versions.get(&number));
                loaded(handle.ok_or_else(|| unknown_version(name, text, versions))?)
            }
            None => greatest(name, versions),
        }
    }

    /// Every model version, also those that load or drain, by name and version.
    pub fn models(&self) -> Vec<ModelHandle> {
        self.0.models.load().values().flat_map(|versions| versions.values().cloned()).collect()
    }

    /// Admits nothing more in any model, answers what was admitted, and ends all workers `within` this time.
    pub async fn drain(&self, within: Duration) -> Drained {
        let all = async {
            // What pipelines admitted needs their models still.
            self.models().iter().filter_map(ModelHandle::model).for_each(|model| {
                model.intake.admit_steps_only();
            });
            for pipeline in self.pipelines() {
                pipeline.drain().await;
            }
            for model in self.models().iter().filter_map(ModelHandle::model) {
                model.intake.drain().await;
            }
            for done in self.each(Command::Drain) {
                // An error means that the task has ended.
                let _ended = done.await;
            }
        };
        let in_time = tokio::time::timeout(within, all).await.is_ok();
        Drained { unanswered: if in_time { 0 } else { self.stop().await } }
    }

    /// Kills and reaps every worker now. What was not answered gets an error.
    pub async fn shutdown(&self) {
        self.stop().await;
    }

    async fn stop(&self) -> usize {
        let mut unanswered = 0;
        for done in self.each(Command::Stop) {
            unanswered += done.await.unwrap_or(0);
        }
        unanswered
    }

    /// Stops loading, and gives every model the command. Returns what its answers come through.
    fn each<T>(&self, command: fn(oneshot::Sender<T>) -> Command) -> Vec<oneshot::Receiver<T>> {
        *self.writing() = true;
        let models = self.models();
        let send = |handle: ModelHandle| {
            let (done, is_done) = oneshot::channel();
            handle.model()?.intake.inbox().command(command(done)).ok().map(|()| is_done)
        };
        models.into_iter().filter_map(send).collect()
    }

    fn pipelines(&self) -> impl Iterator<Item = Arc<Pipeline>> {
        self.models().into_iter().filter_map(|handle| handle.pipeline().cloned())
    }

    fn version(&self, name: &str, version: u64) -> Result<ModelHandle> {
        let models = self.0.models.load();
        let versions = models.get(name).ok_or_else(|| unknown_model(name))?;
        versions.get(&version).cloned().ok_or_else(|| unknown_version(name, &version.to_string(), versions))
    }

    fn insert(&self, handle: &ModelHandle) -> Result<()> {
        let stopped = self.writing();
        if *stopped {
            return Err(Error::new(
                ErrorKind::Draining,
                "the server is being stopped; it loads nothing more",
            ));
        }
        let mut models = Models::clone(&self.0.models.load());
        let versions = models.entry(handle.name().to_owned()).or_default();
        if versions.contains_key(&handle.version()) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "version {} of model '{}' is loaded already; unload it first, or give another version",
                    handle.version(),
                    handle.name()
                ),
            ));
        }
        versions.insert(handle.version(), handle.clone());
        self.0.models.store(Arc::new(models));
        Ok(())
    }

    /// Takes `handle` out, unless another one has its place by now.
    fn remove(&self, handle: &ModelHandle) {
        if let Some(model) = handle.model() {
            model.intake.close_cache();
        }
        let _writing = self.writing();
        let mut models = Models::clone(&self.0.models.load());
        if let Some(versions) = models.get_mut(handle.name()) {
            if versions.get(&handle.version()).is_some_and(|found| found.is(handle)) {
                versions.remove(&handle.version());
            }
            if versions.is_empty() {
                models.remove(handle.name());
            }
        }
        self.0.models.store(Arc::new(models));
    }

    fn writing(&self) -> MutexGuard<'_, bool> {
        // What it guards is replaced whole.
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version as paths write it: digits alone, no sign.
fn parse_version(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn greatest(name: &str, versions: &BTreeMap<u64, ModelHandle>) -> Result<ModelHandle> {
    let newest_in =
        |wanted: fn(&ModelState) -> bool| versions.values().rev().find(|handle| wanted(&handle.state()));
    newest_in(|state| matches!(state, ModelState::Ready | ModelState::Unavailable(_)))
        .or_else(|| newest_in(|_| true))
        .ok_or_else(|| unknown_model(name))
        .and_then(loaded)
}

fn loaded(handle: &ModelHandle) -> Result<ModelHandle> {
    match handle.model() {
        Some(model)
            if model.published.signature().is_none() || model.published.state() == ModelState::Loading =>
        {
            Err(model.published.refusal().unwrap_or_else(|| unknown_model(handle.name())))
        }
        _ => Ok(handle.clone()),
    }
}

fn unknown_model(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("model '{name}' is not loaded; /v2/repository/index lists what is"),
    )
}

fn unknown_version(name: &str, version: &str, versions: &BTreeMap<u64, ModelHandle>) -> Error {
    let known: Vec<_> = versions.keys().map(u64::to_string).collect();
    Error::new(
        ErrorKind::NotFound,
        format!("model '{name}' has no version '{version}'; it is loaded in version {}", known.join(", ")),
    )
}
