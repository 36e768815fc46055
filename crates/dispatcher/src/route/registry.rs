//! Loads, replaces and unloads generations, and keeps the table of routes.
//!
//! Reads settings from the control plane, hands a [`ModelHandle`] on for a name.
//! Knows nothing of how a model is run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_types::settings::{ModelSettings, PipelineSettings};
use inferd_types::{Clock, Error, ErrorKind, Result};
use tokio::runtime;
use tokio::sync::oneshot;

use super::{RouteTable, Routes, Rules};
use crate::generation::model::Model;
use crate::generation::state::ModelState;
use crate::handle::{Kind, ModelHandle};
use crate::intake::inbox::Command;
use crate::observe::cpu_time::CpuTime;
use crate::observe::events::Events;
use crate::observe::observer::Observer;
use crate::pipeline::Pipeline;
use crate::task::moderation::Moderation;
use crate::task::start::{LauncherFactory, TaskContext};

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
    table: RouteTable,
    /// Held while the table is replaced.
    changing: Mutex<Changing>,
    tasks: TaskContext,
    observer: Arc<dyn Observer>,
    events: Events,
}

/// What only those who change the table need.
#[derive(Default)]
struct Changing {
    /// Nothing more may be loaded.
    stopped: bool,
    /// Generations that no route names any more and whose requests are not all answered.
    retired: Vec<Arc<Model>>,
    /// Those that are being unloaded and that routes still name.
    leaving: Vec<ModelHandle>,
}

impl Changing {
    /// `routes` without those that are being unloaded.
    fn remaining(&self, routes: &Routes) -> Routes {
        self.leaving.iter().fold(routes.clone(), |routes, one| routes.without(one))
    }
}

impl Drop for Inner {
    /// Pipelines hold the table, and the table holds pipelines.
    fn drop(&mut self) {
        self.table.store(Routes::default());
    }
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
        let (table, changing, events) = (RouteTable::default(), Mutex::default(), Events::new(clock));
        Registry(Arc::new(Inner { table, changing, tasks, observer, events }))
    }

    /// Loads one version; returns when every replica is warm. It is found, not ready, meanwhile.
    ///
    /// # Errors
    /// The worker's own message where the model does not load; `InvalidInput` where the version is loaded already, or is
    /// the one that a pipeline would run from now on and takes or gives other tensors than the pipeline's step.
    pub async fn load(&self, settings: ModelSettings) -> Result<ModelHandle> {
        self.bring(settings, None).await
    }

    /// Loads a generation beside the one that serves its version, lets it take over at once when it is warm, and has the
    /// other answer what holds it: requests that have found it, and those of pipelines that have seen it. Returns when
    /// the new one serves; the old one is drained `within` this time after that, then what is left is refused.
    ///
    /// # Errors
    /// As [`Registry::load`], `NotFound` where the version is not loaded. The old generation goes on serving.
    pub async fn replace(&self, settings: ModelSettings, within: Duration) -> Result<ModelHandle> {
        self.bring(settings, Some(within)).await
    }

    /// Loads a generation; with a time, in place of the one that serves its version, which is drained within it.
    async fn bring(&self, settings: ModelSettings, replaces: Option<Duration>) -> Result<ModelHandle> {
        let observer = self.0.observer.model(&settings.name, settings.version);
        let events = self.0.events.generation(&settings.name, settings.version);
        let model = Arc::new(Model::new(settings, observer, events, self.0.tasks.clock));
        let handle = ModelHandle::new(Kind::Model(model.clone()));
        self.announce(&handle, replaces.is_some())?;
        model.published.set_state(ModelState::Loading);
        // The caller may be cancelled: the model is loaded all the same, or forgotten by this.
        let (registry, loading) = (self.clone(), handle.clone());
        let task = self.0.tasks.runtime.spawn(async move {
            let since = model.published.events.now();
            let mut result = registry.0.tasks.run(model.clone()).await.map(|()| None);
            if result.is_ok() {
                result = registry.put_behind(&loading);
                if result.is_err() {
                    // Its task runs. After a failed load there is none, and there may never have been one.
                    end(&model).await;
                }
            }
            match result {
                Ok(before) => {
                    model.published.events.loaded(since);
                    if let Some(before) = before {
                        registry.retire(before, replaces.unwrap_or_default());
                    }
                    Ok(())
                }
                Err(error) => {
                    // What was sent meanwhile to a task that never was gets its answer.
                    drop(model.intake.inbox().close(error.clone()));
                    registry.forget(&loading);
                    model.published.events.gone(Some(error.message().to_owned()));
                    Err(error)
                }
            }
        });
        match task.await {
            Ok(result) => result.map(|()| handle),
            Err(error) => {
                Err(Error::new(ErrorKind::Internal, "loading failed").with_detail(error.to_string()))
            }
        }
    }

    /// Ends a generation that no route names any more, once nobody holds it or the time is over.
    fn retire(&self, handle: ModelHandle, within: Duration) {
        let Some(model) = handle.model().cloned() else { return };
        let (registry, released) = (self.clone(), handle.release());
        self.0.tasks.runtime.spawn(async move {
            // Where somebody holds it for longer it is drained all the same, and later requests are refused.
            let _held = tokio::time::timeout(within, released).await;
            model.intake.close_cache();
            end(&model).await;
            model.published.events.gone(None);
            registry.changing().retired.retain(|one| !Arc::ptr_eq(one, &model));
        });
    }

    /// Serves a pipeline over models that are loaded. Each request runs its steps on what the models' routes are as it comes.
    ///
    /// # Errors
    /// `InvalidInput` where its steps don't fit each other or its name is taken; `NotFound` for an unknown model.
    pub fn load_pipeline(&self, settings: PipelineSettings) -> Result<ModelHandle> {
        let observer = self.0.observer.model(&settings.name, 1);
        let pipeline = Pipeline::plan(settings, self.0.tasks.clock, observer, self.0.table.clone())?;
        let handle = ModelHandle::new(Kind::Pipeline(Arc::new(pipeline)));
        self.put_behind(&handle)?;
        Ok(handle)
    }

    /// Drains one version and forgets it.
    ///
    /// # Errors
    /// `NotFound` where it is not loaded, `InvalidInput` where a pipeline could not run without it.
    pub async fn unload(&self, name: &str, version: u64) -> Result<()> {
        let handle = self.announce_leaving(name, version)?;
        match handle.kind() {
            Kind::Model(model) => end(model).await,
            Kind::Pipeline(pipeline) => pipeline.drain().await,
        }
        self.forget(&handle);
        if let Some(model) = handle.model() {
            model.published.events.gone(None);
        }
        Ok(())
    }

    /// Sets how requests for `name` are shared among its versions.
    ///
    /// # Errors
    /// `InvalidInput` for rules that can't be kept, `NotFound` for an unknown name.
    pub fn set_rules(&self, name: &str, rules: Rules) -> Result<()> {
        let changing = self.changing();
        let routes = self.0.table.load().with_rules(name, rules)?;
        self.check_pipelines(&changing.remaining(&routes), name)?;
        self.0.table.store(routes);
        Ok(())
    }

    /// The generation that answers a request for `name` in `version`, a number or an alias; without one, the one that the
    /// route picks. Requests of the same `key` are given the same version of a split while it serves.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version (one that is neither an alias nor a positive number included),
    /// `NotReady` while it loads for the first time.
    pub fn find(&self, name: &str, version: Option<&str>, key: Option<&str>) -> Result<ModelHandle> {
        self.0.table.load().find(name, version, key).cloned()
    }

    /// Every version, also those that load or drain, by name and number.
    pub fn models(&self) -> Vec<ModelHandle> {
        self.0.table.load().by_version().cloned().collect()
    }

    /// What happens to the models.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// Admits nothing more in any model, answers what was admitted, and ends all workers `within` this time.
    pub async fn drain(&self, within: Duration) -> Drained {
        let all = async {
            // What pipelines admitted needs their models still.
            self.all().iter().for_each(|model| model.intake.admit_steps_only());
            for pipeline in self.pipelines() {
                pipeline.drain().await;
            }
            for model in self.all() {
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
        self.changing().stopped = true;
        let send = |model: Arc<Model>| {
            let (done, is_done) = oneshot::channel();
            model.intake.inbox().command(command(done)).ok().map(|()| is_done)
        };
        self.all().into_iter().filter_map(send).collect()
    }

    /// Every generation whose task may still run.
    fn all(&self) -> Vec<Arc<Model>> {
        let changing = self.changing();
        let table = self.0.table.load();
        table.generations().filter_map(ModelHandle::model).chain(&changing.retired).map(Arc::clone).collect()
    }

    fn pipelines(&self) -> impl Iterator<Item = Arc<Pipeline>> {
        self.models().into_iter().filter_map(|handle| handle.pipeline().cloned())
    }

    /// Lets a generation be found as one that loads.
    fn announce(&self, handle: &ModelHandle, replaces: bool) -> Result<()> {
        let (name, version) = (handle.name(), handle.version());
        let changing = self.changing();
        refuse_if_stopped(&changing)?;
        let table = self.0.table.load();
        let busy = |how: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("version {version} of model '{name}' is {how}")))
        };
        match table.version(name, version) {
            Err(error) if replaces => return Err(error),
            Ok(_) if !replaces => {
                return busy("loaded already; unload it first, or give another version");
            }
            _ if table.is_loading(name, version) => return busy("being loaded; wait until it is ready"),
            Ok(one) if changing.leaving.iter().any(|leaving| leaving.is(one)) => {
                return busy("being unloaded; wait until it is gone");
            }
            _ => {}
        }
        self.0.table.store(table.with_loading(handle));
        Ok(())
    }

    /// Puts what is loaded behind its version, and hands back what was there.
    fn put_behind(&self, handle: &ModelHandle) -> Result<Option<ModelHandle>> {
        let mut changing = self.changing();
        refuse_if_stopped(&changing)?;
        let table = self.0.table.load();
        if let Some(pipeline) = handle.pipeline() {
            let name = handle.name();
            if table.contains(name) {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("'{name}' is the name of a model or pipeline already; give the pipeline another"),
                ));
            }
            pipeline.check_all(&changing.remaining(&table))?;
        }
        let (routes, before) = table.with(handle);
        self.check_pipelines(&changing.remaining(&routes), handle.name())?;
        // In the same step, so that a stop finds it in one place or the other.
        changing.retired.extend(before.as_ref().and_then(ModelHandle::model).cloned());
        self.0.table.store(routes);
        Ok(before)
    }

    /// Takes note that a generation is being unloaded.
    fn announce_leaving(&self, name: &str, version: u64) -> Result<ModelHandle> {
        let mut changing = self.changing();
        let table = self.0.table.load();
        let handle = table.version(name, version)?.clone();
        if table.is_being_replaced(name, version) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a replacement of version {version} of model '{name}' is loading; unload it afterwards"
                ),
            ));
        }
        self.check_pipelines(&changing.remaining(&table).without(&handle), name)?;
        changing.leaving.push(handle.clone());
        Ok(handle)
    }

    /// Whether every pipeline that runs on `name` could still do so with these routes.
    fn check_pipelines(&self, routes: &Routes, name: &str) -> Result<()> {
        self.pipelines().try_for_each(|pipeline| pipeline.check(routes, name))
    }

    /// Takes a generation out of its route.
    fn forget(&self, handle: &ModelHandle) {
        if let Some(model) = handle.model() {
            model.intake.close_cache();
        }
        let mut changing = self.changing();
        changing.leaving.retain(|one| !one.is(handle));
        self.0.table.store(self.0.table.load().without(handle));
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        // What it guards is valid after every single change.
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse_if_stopped(changing: &Changing) -> Result<()> {
    if changing.stopped {
        return Err(Error::new(ErrorKind::Draining, "the server is being stopped; it loads nothing more"));
    }
    Ok(())
}

/// Admits nothing more, answers what was admitted, and ends the workers.
async fn end(model: &Model) {
    model.intake.drain().await;
    let (done, is_done) = oneshot::channel();
    if model.intake.inbox().command(Command::Drain(done)).is_ok() {
        // An error means that the task has ended: then there is nothing left to drain.
        let _ended = is_done.await;
    }
}
