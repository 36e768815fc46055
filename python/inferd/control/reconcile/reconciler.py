"""Compares what runs with what is wanted, and does what is missing, until both are the same.

Reads the desired state, events and the data plane's status; drives an :class:`Actuator`. Level-triggered: what is done
depends on the two states alone, never on how they came about, so it may be asked to reconcile at any time and as often
as one likes. One key (model version or pipeline) does one thing at a time, different keys do not wait for each other.
Knows nothing of files, and of how a model is loaded.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from inferd.control.events import GenerationState
from inferd.control.reconcile.backoff import Backoff
from inferd.control.reconcile.plan import (
    Action,
    LoadModel,
    LoadPipeline,
    UnloadModel,
    UnloadPipeline,
    next_retry_s,
    plan,
)
from inferd.control.reconcile.state import ModelStatus, Phase, PipelineStatus
from inferd.errors import Draining, InferdError, ModelFailed, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inferd.control.dataplane import Loaded
    from inferd.control.declarations import Declared
    from inferd.control.desired import DesiredState, ResolvedModel
    from inferd.control.events import Event
    from inferd.control.reconcile.state import ModelKey

__all__ = ["Actuator", "Progress", "Reconciler"]

_PROVEN_S = 600.0
"""A model that served this long begins with back-off anew when it is lost."""


class Actuator(Protocol):
    """What is driven. Called from several threads; each call returns when it is done."""

    def load(self, model: ResolvedModel) -> Loaded:
        """Load a model version."""
        ...

    def unload(self, name: str, version: int) -> None:
        """Drain a model version or a pipeline, and forget it."""
        ...

    def load_pipeline(
        self, pipeline: dict[str, Any], declared: Declared | None, models: Mapping[str, Loaded]
    ) -> Loaded:
        """Serve a pipeline over models that are loaded."""
        ...


class Progress(NamedTuple):
    """A model is being loaded, is loaded, or could not be."""

    model: ResolvedModel
    loaded: Loaded | None = None
    error: InferdError | None = None


class Reconciler:
    """Owns the actual state.

    Args:
        actuator: does what is planned.
        on_progress: called as models are loaded, from several threads but never from two at once.
        backoff: between attempts to bring back a model that was lost. A model that never was loaded is not tried again
            before what is wanted of it changes: its error is the user's to see.
        clock: seconds, monotonic.
        chance: a random number in [0, 1).
    """

    def __init__(
        self,
        actuator: Actuator,
        on_progress: Callable[[Progress], object] = lambda _: None,
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 (it is immutable)
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._actuator = actuator
        self._on_progress = on_progress
        self._reporting = threading.Lock()
        self._backoff = backoff
        self._clock = clock
        self._chance = chance or _random
        # Held while states are compared and changed, never while something is done.
        self._changed = threading.Condition()
        self._desired: DesiredState | None = None
        self._models: dict[ModelKey, ModelStatus] = {}
        self._pipelines: dict[str, PipelineStatus] = {}
        self._seen: dict[ModelKey, GenerationState] = {}
        self._timer: threading.Timer | None = None
        self._closed = False

    def want(self, desired: DesiredState) -> None:
        """Make ``desired`` what is wanted, and begin."""
        with self._changed:
            self._desired = desired
            self.reconcile()

    def reconcile(self) -> None:
        """Begin what is to be done now. Returns at once; does nothing where all is as it should be."""
        with self._changed:
            if self._closed or self._desired is None:
                return
            wanted = {(model.name, model.version) for model in self._desired.models}
            for key, status in list(self._models.items()):
                if key not in wanted and status.phase in (Phase.FAILED, Phase.UNLOADED):
                    del self._models[key]
                    self._seen.pop(key, None)
            # One reading: what is due by the plan's has no timer any more by a later one.
            now_s = self._clock()
            for action in self._plan(now_s):
                self._begin(action)
            self._set_timer(now_s)

    def observe(self, events: Sequence[Event]) -> None:
        """Take in what happened in the data plane."""
        with self._changed:
            for event in events:
                if not isinstance(event, GenerationState) or self._closed:
                    continue
                key = event.model, event.version
                seen = self._seen.get(key)
                if seen is None or seen.generation <= event.generation:
                    self._seen[key] = event
                    self._apply(key)

    def resync(self, status: Callable[[], Mapping[str, Any]]) -> None:
        """Take in the whole state of the data plane, after events were dropped.

        Args:
            status: ``DataPlane.status``.
        """
        # What is loaded after this may be missing in the status.
        before = self.loaded
        known = {(model["name"], model["version"], model["generation"]): model for model in status()["models"]}
        events: list[Event] = []
        for (name, version), loaded in before.items():
            model = known.get((name, version, loaded.generation), {"state": "gone", "reason": None})
            events.append(
                GenerationState(
                    model=name,
                    version=version,
                    generation=loaded.generation,
                    at_s=0.0,
                    state=model["state"],
                    reason=model["reason"],
                )
            )
        self.observe(events)

    def wait(self) -> None:
        """Wait until nothing is in progress; what waits for its next attempt is not.

        Raises:
            Draining: it was closed meanwhile, before everything was begun.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._in_progress())
            if self._closed and self._plan(self._clock()):
                raise Draining("the server is being stopped; it loads nothing more")

    def raise_for_failures(self) -> None:
        """Raise if something that is wanted could not be loaded.

        Raises:
            ModelFailed: models could not be loaded; every one of them is named.
            InferdError: the first pipeline that could not be.
        """
        with self._changed:
            if self._desired is None:
                return
            statuses = [self._models.get((model.name, model.version)) for model in self._desired.models]
            failed = [status for status in statuses if status is not None and status.error is not None]
            if failed:
                raise _summary(failed)
            for pipeline in self._desired.pipelines:
                status = self._pipelines.get(pipeline["name"])
                if status is not None and status.error is not None:
                    raise status.error

    @property
    def models(self) -> dict[ModelKey, ModelStatus]:
        """The status of every model version that is wanted or still runs."""
        with self._changed:
            return dict(self._models)

    @property
    def loaded(self) -> dict[ModelKey, Loaded]:
        """The models that are loaded, in the order in which they are wanted."""
        with self._changed:
            keys = [] if self._desired is None else [(model.name, model.version) for model in self._desired.models]
            statuses = {key: self._models[key] for key in keys if key in self._models}
            return {key: status.loaded for key, status in statuses.items() if status.loaded is not None}

    @property
    def pipelines(self) -> dict[str, Loaded]:
        """The pipelines that are loaded, by name."""
        with self._changed:
            return {name: status.loaded for name, status in self._pipelines.items() if status.loaded is not None}

    def close(self) -> None:
        """Begin nothing more. What is in progress ends by itself, or with the data plane."""
        with self._changed:
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if timer is not threading.current_thread():
                timer.join()

    def _plan(self, now_s: float) -> list[Action]:
        return [] if self._desired is None else plan(self._desired, self._models, self._pipelines, now_s)

    def _in_progress(self) -> bool:
        models = (status.phase for status in self._models.values())
        pipelines = (status.phase for status in self._pipelines.values())
        return any(phase.in_progress for phase in (*models, *pipelines))

    def _begin(self, action: Action) -> None:
        match action:
            case LoadModel(model):
                key = model.name, model.version
                before = self._models.get(key)
                self._models[key] = ModelStatus(Phase.LOADING, model, failures=before.failures if before else 0)
                name = f"load {model.name}"
            case UnloadModel(key):
                self._models[key] = self._models[key]._replace(phase=Phase.UNLOADING, retry_at_s=None)
                name = f"unload {key[0]}"
            case LoadPipeline(pipeline, models):
                name = pipeline["name"]
                self._pipelines[name] = PipelineStatus(Phase.LOADING, pipeline, models)
            case UnloadPipeline(name):
                self._pipelines[name] = self._pipelines[name]._replace(phase=Phase.UNLOADING)
        # Not waited for when the process ends: a load that hangs must not hold it.
        thread = threading.Thread(target=self._perform, args=(action,), daemon=True, name=name)
        try:
            thread.start()
        except RuntimeError as fault:
            error = ModelFailed(f"no thread could be started for it: {fault}; raise the limit on processes")
            self._end(action, None, error)

    def _perform(self, action: Action) -> None:
        loaded: Loaded | None = None
        error: InferdError | None = None
        try:
            loaded = self._act(action)
        except InferdError as fault:
            error = fault
        except BaseException as fault:  # noqa: BLE001 (whatever it is, it is this model's, and no other's)
            # Imported here: a start without faults does not need it.
            from traceback import format_exception

            error = ModelFailed(f"{type(fault).__name__}: {fault}", detail="".join(format_exception(fault)))
        try:
            if isinstance(action, LoadModel):
                self._report(Progress(action.model, loaded, error))
        finally:
            with self._changed:
                self._end(action, loaded, error)
                try:
                    self.reconcile()
                finally:
                    self._changed.notify_all()

    def _act(self, action: Action) -> Loaded | None:
        match action:
            case LoadModel(model):
                self._report(Progress(model))
                return self._actuator.load(model)
            case LoadPipeline(pipeline, models):
                declared = None if self._desired is None else self._desired.declared.get(pipeline["name"])
                return self._actuator.load_pipeline(pipeline, declared, models)
            case UnloadModel((name, version)):
                self._unload(name, version)
            case UnloadPipeline(name):
                self._unload(name, 1)
        return None

    def _unload(self, name: str, version: int) -> None:
        try:
            self._actuator.unload(name, version)
        except NotFound:
            # It has gone by itself.
            return

    def _end(self, action: Action, loaded: Loaded | None, error: InferdError | None) -> None:
        match action:
            case LoadModel(model):
                key = model.name, model.version
                status = self._models[key]
                if error is None:
                    self._models[key] = status._replace(
                        phase=Phase.LOADED, loaded=loaded, state="ready", loaded_at_s=self._clock()
                    )
                    self._apply(key)
                elif status.failures:
                    # It was loaded before.
                    self._models[key] = self._failed(status, Phase.FAILED, error)
                else:
                    self._models[key] = status._replace(phase=Phase.FAILED, error=error)
            case UnloadModel(key):
                status = self._models[key]._replace(loaded=None)
                if error is None:
                    self._models[key] = status._replace(phase=Phase.UNLOADED, error=None)
                else:
                    self._models[key] = self._failed(status, Phase.LOST, error)
            case LoadPipeline(pipeline, models):
                phase = Phase.LOADED if error is None else Phase.FAILED
                self._pipelines[pipeline["name"]] = PipelineStatus(phase, pipeline, models, loaded, error)
            case UnloadPipeline(name):
                # What could not be unloaded is not known any more, or goes with the data plane.
                del self._pipelines[name]

    def _apply(self, key: ModelKey) -> None:
        """Bring the status of a model to what was seen last of its load."""
        status, seen = self._models.get(key), self._seen.get(key)
        if status is None or seen is None or status.phase is not Phase.LOADED:
            return
        if status.loaded is None or status.loaded.generation != seen.generation:
            return
        if seen.state in ("draining", "gone"):
            if self._clock() - status.loaded_at_s >= _PROVEN_S:
                status = status._replace(failures=0)
            lost = ModelFailed(f"model '{key[0]}' version {key[1]} ended without being unloaded")
            self._models[key] = self._failed(status, Phase.LOST, lost)._replace(loaded=None)
        elif seen.state in ("ready", "unavailable"):
            self._models[key] = status._replace(state=seen.state, reason=seen.reason)

    def _failed(self, status: ModelStatus, phase: Phase, error: InferdError) -> ModelStatus:
        failures = status.failures + 1
        retry_at_s = self._clock() + self._backoff.delay_s(failures, self._chance())
        return status._replace(phase=phase, error=error, failures=failures, retry_at_s=retry_at_s)

    def _set_timer(self, now_s: float) -> None:
        due_s = next_retry_s(self._models, now_s)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = threading.Timer(max(0.0, due_s - self._clock()), self.reconcile)
            self._timer.daemon = True
            self._timer.start()

    def _report(self, progress: Progress) -> None:
        with self._reporting:
            self._on_progress(progress)


def _random() -> float:
    # Imported here: what starts well never needs it.
    import random

    return random.random()  # noqa: S311 (it spreads attempts, and keeps no secret)


def _summary(failed: list[ModelStatus]) -> InferdError:
    lines = [f"model '{status.model.name}' version {status.model.version}: {status.error}" for status in failed]
    details = [status.error.detail for status in failed if status.error and status.error.detail]
    return ModelFailed("\n".join(lines), detail="\n".join(details) or None)
