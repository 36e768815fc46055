//! Which models are loaded, by name and version.
//!
//! Reads settings from the control plane, hands a [`ModelHandle`] to whoever asks for a name.
//! Knows nothing of how a model is run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use inferd_transport::Spawner;
use inferd_types::settings::ModelSettings;
use inferd_types::{Clock, Error, ErrorKind, Result};
use tokio::runtime;

use crate::handle::{ModelHandle, ModelState};
use crate::observer::Observer;

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
    clock: Clock,
    runtime: runtime::Handle,
    spawner: Spawner,
    observer: Arc<dyn Observer>,
}

impl Registry {
    /// An empty registry whose models' tasks run on `runtime`.
    pub fn new(
        clock: Clock,
        runtime: runtime::Handle,
        spawner: Spawner,
        observer: Arc<dyn Observer>,
    ) -> Registry {
        Registry(Arc::new(Inner {
            models: ArcSwap::default(),
            writing: Mutex::new(false),
            clock,
            runtime,
            spawner,
            observer,
        }))
    }

    /// Loads one version; returns when every replica is warm. It is found, not ready, meanwhile.
    ///
    /// # Errors
    /// The worker's own message where the model does not load; `InvalidInput` where it is loaded already.
    pub async fn load(&self, settings: ModelSettings) -> Result<ModelHandle> {
        let handle = ModelHandle { shared: Arc::new(crate::handle::Shared::new(settings)) };
        self.insert(&handle)?;
        Ok(handle)
    }

    /// Drains one version and forgets it.
    ///
    /// # Errors
    /// `NotFound` where it is not loaded.
    pub async fn unload(&self, name: &str, version: u64) -> Result<()> {
        self.version(name, version)?;
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
        let _ = within;
        Drained { unanswered: 0 }
    }

    /// Kills and reaps every worker now. What was not answered gets an error.
    pub async fn shutdown(&self) {}

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
        let _writing = self.writing();
        let mut models = Models::clone(&self.0.models.load());
        if let Some(versions) = models.get_mut(handle.name()) {
            if versions.get(&handle.version()).is_some_and(|found| Arc::ptr_eq(&found.shared, &handle.shared))
            {
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
    if handle.shared.signature().is_none() || handle.state() == ModelState::Loading {
        return Err(handle.shared.refusal().unwrap_or_else(|| unknown_model(handle.name())));
    }
    Ok(handle.clone())
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
