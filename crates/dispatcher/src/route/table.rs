//! Names and their routes, as one value that is swapped whole.
//!
//! Reads a name, a version or alias and a key, hands back the generation that answers. A request sees one table from
//! its beginning to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use inferd_types::{Error, ErrorKind, Result};

use super::rules::{Draws, Rules};
use crate::generation::state::ModelState;
use crate::handle::ModelHandle;

/// What one name means now. Never changed, only replaced.
#[derive(Clone)]
pub(crate) struct Route {
    name: String,
    /// The generation behind each version.
    versions: BTreeMap<u64, ModelHandle>,
    /// Those that load: a version's first generation, or the one that is to replace it.
    loading: BTreeMap<u64, ModelHandle>,
    rules: Arc<Rules>,
    draws: Arc<Draws>,
}

impl Route {
    fn new(name: &str) -> Route {
        Route {
            name: name.to_owned(),
            versions: BTreeMap::new(),
            loading: BTreeMap::new(),
            rules: Arc::default(),
            draws: Arc::new(Draws::new(name)),
        }
    }

    /// The generation that answers a request for this version or alias; without one, for the name.
    fn pick(&self, version: Option<&str>, key: Option<&str>) -> Result<&ModelHandle> {
        match version.filter(|version| !version.is_empty()) {
            Some(text) => self.named(text),
            None => self.default(key),
        }
    }

    fn named(&self, text: &str) -> Result<&ModelHandle> {
        let number = parse_version(text).or_else(|| self.rules.aliases.get(text).copied());
        let found = number.and_then(|number| self.versions.get(&number).or(self.loading.get(&number)));
        loaded(found.ok_or_else(|| self.unknown_version(text))?)
    }

    fn default(&self, key: Option<&str>) -> Result<&ModelHandle> {
        let is_ready =
            |version| self.versions.get(&version).is_some_and(|one| one.state() == ModelState::Ready);
        if !self.rules.split.is_empty()
            && let Some(version) = self.rules.draw(self.draws.next(key), is_ready)
        {
            return loaded(&self.versions[&version]);
        }
        // Where a split names versions, the others get nothing while none of those serves either.
        let split = self.split();
        let greatest = |wanted: fn(&ModelState) -> bool| {
            let open = self
                .versions
                .values()
                .rev()
                .filter(|one| split.is_empty() || split.iter().any(|of| of.is(one)));
            open.into_iter().find(|one| wanted(&one.state()))
        };
        greatest(|state| matches!(state, ModelState::Ready | ModelState::Unavailable(_)))
            .or_else(|| greatest(|_| true))
            .or_else(|| self.loading.values().next_back())
            .ok_or_else(|| unknown_model(&self.name))
            .and_then(loaded)
    }

    /// The generations of the split that have a share.
    fn split(&self) -> Vec<&ModelHandle> {
        let shares = self.rules.split.iter().filter(|(_, weight)| *weight > 0);
        shares.filter_map(|(version, _)| self.versions.get(version)).collect()
    }

    /// Every generation, those that load included.
    fn generations(&self) -> impl Iterator<Item = &ModelHandle> {
        self.versions.values().chain(self.loading.values())
    }

    fn unknown_version(&self, version: &str) -> Error {
        let numbers: std::collections::BTreeSet<u64> =
            self.versions.keys().chain(self.loading.keys()).copied().collect();
        let known: Vec<_> = numbers.iter().map(u64::to_string).collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "model '{}' has no version '{version}'; it is loaded in version {}",
                self.name,
                known.join(", ")
            ),
        )
    }
}

/// The routes of all names. Never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct Routes(BTreeMap<String, Arc<Route>>);

impl Routes {
    /// The generation that answers a request for `name`.
    ///
    /// # Errors
    /// `NotFound` for an unknown name or version (one that is neither an alias nor a number of digits included),
    /// `NotReady` while it loads for the first time.
    pub(crate) fn find(&self, name: &str, version: Option<&str>, key: Option<&str>) -> Result<&ModelHandle> {
        self.0.get(name).ok_or_else(|| unknown_model(name))?.pick(version, key)
    }

    /// The generation behind exactly this version, or the one that loads for it.
    pub(super) fn version(&self, name: &str, version: u64) -> Result<&ModelHandle> {
        let route = self.0.get(name).ok_or_else(|| unknown_model(name))?;
        let found = route.versions.get(&version).or(route.loading.get(&version));
        found.ok_or_else(|| route.unknown_version(&version.to_string()))
    }

    /// The generations that requests which name no version may be given.
    pub(crate) fn candidates(&self, name: &str) -> Vec<&ModelHandle> {
        let Some(route) = self.0.get(name) else { return Vec::new() };
        let shared = route.split();
        if shared.is_empty() { route.default(None).into_iter().collect() } else { shared }
    }

    /// Whether a generation loads in place of the one that serves this version.
    pub(super) fn is_being_replaced(&self, name: &str, version: u64) -> bool {
        let both = |route: &Arc<Route>| {
            route.loading.contains_key(&version) && route.versions.contains_key(&version)
        };
        self.0.get(name).is_some_and(both)
    }

    /// Whether a generation loads for this version.
    pub(super) fn is_loading(&self, name: &str, version: u64) -> bool {
        self.0.get(name).is_some_and(|route| route.loading.contains_key(&version))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// One generation for each version that there is, by name and version: the one that answers, else the one that loads.
    pub(super) fn by_version(&self) -> impl Iterator<Item = &ModelHandle> {
        self.0.values().flat_map(|route| {
            let mut all: BTreeMap<u64, &ModelHandle> = BTreeMap::new();
            all.extend(route.loading.iter().map(|(version, one)| (*version, one)));
            all.extend(route.versions.iter().map(|(version, one)| (*version, one)));
            all.into_values()
        })
    }

    /// Every generation.
    pub(super) fn generations(&self) -> impl Iterator<Item = &ModelHandle> {
        self.0.values().flat_map(|route| route.generations())
    }

    /// The same with `generation` as one that loads.
    pub(super) fn with_loading(&self, generation: &ModelHandle) -> Routes {
        let mut routes = self.clone();
        routes.route(generation.name()).loading.insert(generation.version(), generation.clone());
        routes
    }

    /// The same with `generation` behind its version, and what was there before.
    pub(super) fn with(&self, generation: &ModelHandle) -> (Routes, Option<ModelHandle>) {
        let mut routes = self.clone();
        let route = routes.route(generation.name());
        let version = generation.version();
        if route.loading.get(&version).is_some_and(|one| one.is(generation)) {
            route.loading.remove(&version);
        }
        let before = route.versions.insert(version, generation.clone());
        (routes, before)
    }

    /// The same without `generation`.
    pub(super) fn without(&self, generation: &ModelHandle) -> Routes {
        let mut routes = self.clone();
        let (name, version) = (generation.name(), generation.version());
        let Some(route) = routes.0.get_mut(name).map(Arc::make_mut) else { return routes };
        for place in [&mut route.versions, &mut route.loading] {
            if place.get(&version).is_some_and(|one| one.is(generation)) {
                place.remove(&version);
            }
        }
        if route.versions.is_empty() && route.loading.is_empty() {
            routes.0.remove(name);
        }
        routes
    }

    /// The same with other rules for `name`.
    pub(super) fn with_rules(&self, name: &str, rules: Rules) -> Result<Routes> {
        rules.check(name)?;
        let mut routes = self.clone();
        let route = routes.0.get_mut(name).map(Arc::make_mut).ok_or_else(|| unknown_model(name))?;
        route.rules = Arc::new(rules);
        Ok(routes)
    }

    fn route(&mut self, name: &str) -> &mut Route {
        Arc::make_mut(self.0.entry(name.to_owned()).or_insert_with(|| Arc::new(Route::new(name))))
    }
}

/// The routes as they are now: read without a lock, replaced by the registry alone. Clones are the same table.
#[derive(Clone, Default)]
pub(crate) struct RouteTable(Arc<ArcSwap<Routes>>);

impl RouteTable {
    /// For a look that ends at once.
    pub(crate) fn load(&self) -> Guard<Arc<Routes>> {
        self.0.load()
    }

    /// For a request that asks more than once: what it sees stays as it is, and the generations in it serve until the
    /// snapshot is dropped.
    pub(crate) fn snapshot(&self) -> Arc<Routes> {
        self.0.load_full()
    }

    pub(super) fn store(&self, routes: Routes) {
        self.0.store(Arc::new(routes));
    }
}

/// A version as paths write it: digits alone, no sign.
fn parse_version(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn loaded(handle: &ModelHandle) -> Result<&ModelHandle> {
    match handle.model() {
        Some(model)
            if model.published.signature().is_none() || model.published.state() == ModelState::Loading =>
        {
            Err(model.published.refusal().unwrap_or_else(|| unknown_model(handle.name())))
        }
        _ => Ok(handle),
    }
}

fn unknown_model(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("model '{name}' is not loaded; /v2/repository/index lists what is"),
    )
}
