"""Loads one model, or one pipeline, into the data plane.

Reads what was resolved, hands on what was loaded or why it could not be. Knows nothing of what else is wanted, and of
when something is loaded: :mod:`inferd.control.reconcile` does.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from inferd.control.declarations import Declared, differences
from inferd.control.loading.conversions import Conversions, served_by_library
from inferd.control.loading.profiles import ProfileCache
from inferd.control.loading.snapshots import Snapshots
from inferd.errors import InferdError, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferd.control.dataplane import DataPlane, Loaded
    from inferd.control.desired import ResolvedModel
    from inferd.control.resources import Machine

__all__ = ["Loader", "not_started"]


class Loader:
    """Loads into one data plane, from several threads.

    Args:
        data_plane: where models run.
        machine: where caches and scratch files are.
    """

    def __init__(self, data_plane: DataPlane, machine: Machine) -> None:
        self._data_plane = data_plane
        self._conversions = Conversions(machine.cache)
        self._snapshots = Snapshots(machine.scratch)
        self._profiles = ProfileCache(machine.cache / "profiles")

    def load(self, model: ResolvedModel) -> Loaded:
        """Load the model; returns when every replica is warm.

        Raises:
            InferdError: it could not be loaded, or is not what its files declare.
        """
        try:
            return self._load(model)
        except BaseException:
            self._snapshots.release(model.name, model.version)
            raise

    def _load(self, model: ResolvedModel) -> Loaded:
        profile = self._profiles.find(model.file, model.spec.device, model.threads)
        settings = self._conversions.launch(model)
        try:
            loaded = self._load_snapshot(model, {**settings, "profile": profile})
        except InferdError as error:
            if settings["launch"] == model.settings["launch"]:
                raise _with_remedy(error, model) from None
            library = served_by_library(model.settings, f"its ONNX model could not be loaded ({error})")
            loaded = self._load_snapshot(model, {**library, "profile": profile})
        self._require_declared(Declared(model.spec.inputs, model.spec.outputs), loaded, (model.name, model.version))
        return loaded

    def unload(self, name: str, version: int) -> None:
        """Drain a model version or a pipeline, and forget it."""
        self._data_plane.unload(name, version)
        self._snapshots.release(name, version)

    def load_pipeline(
        self, pipeline: dict[str, Any], declared: Declared | None, models: Mapping[str, Loaded]
    ) -> Loaded:
        """Serve a pipeline over models that are loaded.

        Args:
            pipeline: ``PipelineSettings``; without outputs those of its last step are its own.
            declared: what its file says that it takes and gives.
            models: those of its steps, by name.

        Raises:
            InvalidInput: its steps don't fit each other.
            ModelFailed: it is not what its file declares.
        """
        loaded = self._data_plane.load_pipeline(_with_outputs(pipeline, models))
        if declared is not None:
            try:
                self._require_declared(declared, loaded, (pipeline["name"], 1))
            except ModelFailed as error:
                raise ModelFailed(f"pipeline '{pipeline['name']}': {error}") from None
        return loaded

    def keep_profiles(self, models: Iterable[ResolvedModel]) -> None:
        """Keep the latency curves that were measured of ``models`` for the next start."""
        status = {(model["name"], model["version"]): model for model in self._data_plane.status()["models"]}
        for model in models:
            profile = status.get((model.name, model.version), {}).get("profile")
            # A curve is kept for the bytes that it was measured with.
            if profile and self._snapshots.is_unchanged(model):
                self._profiles.keep(model.file, model.spec.device, model.threads, profile)

    def close(self) -> None:
        """Let go of files. No worker may be started afterwards."""
        self._conversions.close()
        self._snapshots.close()

    def _require_declared(self, declared: Declared, loaded: Loaded, key: tuple[str, int]) -> None:
        """Unload and refuse what is not what its files declare: clients rely on the declaration.

        Raises:
            ModelFailed: with everything that differs.
        """
        different = differences(declared, loaded.signature)
        if different:
            # An error means that it has gone already.
            with contextlib.suppress(InferdError):
                self._data_plane.unload(*key)
            lines = "\n".join(different)
            raise ModelFailed(
                f"{lines}\nhelp: declare what the model has (the batch dimension counts), or serve its file"
            )

    def _load_snapshot(self, model: ResolvedModel, settings: dict[str, Any]) -> Loaded:
        """Load the model so that workers which start later load the same files."""
        launch = self._snapshots.launch(model, settings)
        try:
            return self._data_plane.load(launch)
        except InferdError:
            if self._snapshots.is_unchanged(model):
                raise
            # Its files were replaced while they were read: now it is known from the start.
            return self._data_plane.load(launch)


def not_started(model: ResolvedModel) -> str:
    """The error where an interpreter can't run workers."""
    help_ = "\nhelp: python: needs an interpreter that has inferd installed" if model.spec.python else ""
    return f"no worker could be started for model '{model.name}'{help_}"


def _with_outputs(pipeline: dict[str, Any], models: Mapping[str, Loaded]) -> dict[str, Any]:
    """The pipeline of a model's stages gives what the last of them gives, which is known once it is loaded."""
    if pipeline["outputs"] is not None:
        return pipeline
    step = pipeline["steps"][-1]
    ((model, _),) = step["models"]
    names = [spec.name for spec in models[model].signature.outputs]
    return {**pipeline, "outputs": [(name, [f"{step['name']}.{name}"]) for name in names]}


def _with_remedy(error: InferdError, model: ResolvedModel) -> InferdError:
    if str(error) != f"no worker could be started for model '{model.name}'":
        return error
    return type(error)(not_started(model), detail=error.detail)
