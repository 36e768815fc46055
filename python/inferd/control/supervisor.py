"""Brings a plan to life and to its end: load everything at once, say when it is ready, drain.

Reads a :class:`Plan`, drives the data plane, hands events to whoever shows them.
Knows nothing of terminals and signals; restarts of workers are the data plane's.
"""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.dataplane import DataPlane, Loaded
from inferd.control.declared import Declared, differences
from inferd.control.faster import Conversions, served_by_library
from inferd.control.keep import Keeper
from inferd.control.profiles import ProfileCache
from inferd.errors import InferdError, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.control.resolve import Plan, PlannedModel
    from inferd.control.resources import Machine

__all__ = ["Event", "Supervisor", "not_started"]


class Event(NamedTuple):
    """Something happened to a model: it is being loaded, is loaded, or could not be."""

    model: PlannedModel
    loaded: Loaded | None = None
    error: InferdError | None = None


class Supervisor:
    """Owns the data plane of a plan.

    Args:
        plan: what is to run.
        machine: where.
        on_event: called for every event, from several threads but never from two at once.
        listening: whether clients can connect; without, models are loaded and nobody is served.

    Raises:
        InferdError: the data plane can't start.
    """

    def __init__(
        self,
        plan: Plan,
        machine: Machine,
        on_event: Callable[[Event], None] = lambda _: None,
        *,
        listening: bool = True,
    ) -> None:
        self.plan = plan
        self.loaded: dict[tuple[str, int], Loaded] = {}
        self.pipelines: dict[str, Loaded] = {}
        self._conversions = Conversions(machine.cache)
        self._keeper = Keeper(machine.scratch)
        self._profiles = ProfileCache(machine.cache / "profiles")
        self._on_event = on_event
        self._telling = threading.Lock()
        self.data_plane = DataPlane(plan.gateway, plan.log) if listening else DataPlane.deaf(plan.gateway, plan.log)

    def load(self) -> None:
        """Load every model, all at the same time, and declare the server ready.

        Raises:
            ModelFailed: models could not be loaded, or are not what their files declare; every one of them is named.
            InvalidInput: the steps of a pipeline don't fit each other.
        """
        failed: list[Event] = []
        threads = [
            # Not waited for when the process ends: a load that hangs must not hold it.
            threading.Thread(target=self._load, args=(model, failed), daemon=True, name=f"load {model.name}")
            for model in self.plan.models
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise _summary(failed)
        for pipeline in self.plan.pipelines:
            self.pipelines[pipeline["name"]] = self._load_pipeline(self._with_outputs(pipeline))
        self.data_plane.set_ready(True)

    def _with_outputs(self, pipeline: dict[str, Any]) -> dict[str, Any]:
        """The pipeline of a model's stages gives what the last of them gives, which is known now."""
        if pipeline["outputs"] is not None:
            return pipeline
        step = pipeline["steps"][-1]
        ((model, _),) = step["models"]
        last = next(loaded for (name, _), loaded in self.loaded.items() if name == model)
        names = [spec.name for spec in last.signature.outputs]
        return {**pipeline, "outputs": [(name, [f"{step['name']}.{name}"]) for name in names]}

    def stop(self) -> int:
        """Not ready at once, then answer what was admitted, then end everything.

        Returns:
            Admitted requests that could not be answered within ``drain_timeout_s``.
        """
        try:
            unanswered = self.data_plane.drain(self.plan.server.drain_timeout_s)
            self._keep_profiles()
            return unanswered
        finally:
            self.close()

    def close(self) -> None:
        """End everything at once."""
        self.data_plane.close()
        self._conversions.close()
        self._keeper.close()

    def _load(self, model: PlannedModel, failed: list[Event]) -> None:
        try:
            self._tell(Event(model))
            loaded = self._loaded(model)
        except InferdError as error:
            event = Event(model, error=error)
        except BaseException as fault:  # noqa: BLE001 (whatever it is, a server without this model is not ready)
            detail = "".join(traceback.format_exception(fault))
            event = Event(model, error=ModelFailed(f"{type(fault).__name__}: {fault}", detail=detail))
        else:
            event = Event(model, loaded=loaded)
            self.loaded[model.name, model.version] = loaded
        if event.error is not None:
            failed.append(event)
        self._tell(event)

    def _loaded(self, model: PlannedModel) -> Loaded:
        profile = self._profiles.find(model.file, model.spec.device, model.threads)
        settings = self._conversions.launch(model)
        try:
            loaded = self._load_kept(model, {**settings, "profile": profile})
        except InferdError as error:
            if settings["launch"] == model.settings["launch"]:
                raise _with_remedy(error, model) from None
            library = served_by_library(model.settings, f"its ONNX model could not be loaded ({error})")
            loaded = self._load_kept(model, {**library, "profile": profile})
        _compare(Declared(model.spec.inputs, model.spec.outputs), loaded)
        return loaded

    def _load_kept(self, model: PlannedModel, settings: dict[str, Any]) -> Loaded:
        """Load the model so that workers which start later load the same files."""
        kept = self._keeper.launch(model, settings)
        try:
            return self.data_plane.load(kept)
        except InferdError:
            if self._keeper.is_unchanged(model):
                raise
            # Its files were replaced while they were read: now it is known from the start.
            return self.data_plane.load(kept)

    def _load_pipeline(self, settings: dict[str, Any]) -> Loaded:
        loaded = self.data_plane.load_pipeline(settings)
        name = settings["name"]
        if name in self.plan.declared:
            try:
                _compare(self.plan.declared[name], loaded)
            except ModelFailed as error:
                raise ModelFailed(f"pipeline '{name}': {error}") from None
        return loaded

    def _tell(self, event: Event) -> None:
        with self._telling:
            self._on_event(event)

    def _keep_profiles(self) -> None:
        status = {(model["name"], model["version"]): model for model in self.data_plane.status()["models"]}
        for model in self.plan.models:
            profile = status.get((model.name, model.version), {}).get("profile")
            # A curve is kept for the bytes that it was measured with.
            if profile and self._keeper.is_unchanged(model):
                self._profiles.keep(model.file, model.spec.device, model.threads, profile)


def _compare(declared: Declared, loaded: Loaded) -> None:
    """Refuse what was declared otherwise than it is: clients were promised what was declared.

    Raises:
        ModelFailed: with everything that differs.
    """
    different = differences(declared, loaded.signature)
    if different:
        said = "\n".join(different)
        raise ModelFailed(f"{said}\nhelp: declare what the model has (the batch dimension counts), or serve its file")


def not_started(model: PlannedModel) -> str:
    """What is said where an interpreter can't run workers."""
    help_ = "\nhelp: python: needs an interpreter that has inferd installed" if model.spec.python else ""
    return f"no worker could be started for model '{model.name}'{help_}"


def _with_remedy(error: InferdError, model: PlannedModel) -> InferdError:
    if str(error) != f"no worker could be started for model '{model.name}'":
        return error
    return type(error)(not_started(model), detail=error.detail)


def _summary(failed: list[Event]) -> InferdError:
    lines = [f"model '{event.model.name}' version {event.model.version}: {event.error}" for event in failed]
    details = [event.error.detail for event in failed if event.error and event.error.detail]
    return ModelFailed("\n".join(lines), detail="\n".join(details) or None)
