"""What to do next so that what runs becomes what is wanted.

Reads the desired and the actual state and the time, hands on actions that can be done at once, each for another key.
Pure: the same states give the same plan, and where nothing differs it is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.reconcile.state import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferd.control.dataplane import Loaded
    from inferd.control.desired import DesiredState, ResolvedModel
    from inferd.control.reconcile.state import ModelKey, ModelStatus, PipelineStatus

__all__ = ["Action", "LoadModel", "LoadPipeline", "UnloadModel", "UnloadPipeline", "next_retry_s", "plan"]


class LoadModel(NamedTuple):
    """Load a model version."""

    model: ResolvedModel


class UnloadModel(NamedTuple):
    """Drain a model version and forget it."""

    key: ModelKey


class LoadPipeline(NamedTuple):
    """Serve a pipeline over models that are loaded."""

    pipeline: dict[str, Any]
    models: Mapping[str, Loaded]
    """What its steps run on, by name: the greatest version that is loaded."""


class UnloadPipeline(NamedTuple):
    """Drain a pipeline and forget it."""

    name: str


Action = LoadModel | UnloadModel | LoadPipeline | UnloadPipeline


def plan(
    desired: DesiredState,
    models: Mapping[ModelKey, ModelStatus],
    pipelines: Mapping[str, PipelineStatus],
    now_s: float,
) -> list[Action]:
    """The steps that can be taken now. What depends on them is planned once they are done."""
    wanted = {(model.name, model.version): model for model in desired.models}
    actions: list[Action] = [
        LoadModel(model) for key, model in wanted.items() if _may_load(models.get(key), model, now_s)
    ]
    leaving = {
        key
        for key, status in models.items()
        if _must_unload(status, wanted.get(key), now_s) and not (key not in wanted and _is_frozen(desired, (key[0],)))
    }
    current = _loaded(models, leaving)
    graphs = {pipeline["name"]: pipeline for pipeline in desired.pipelines}
    used: set[str] = set()
    for name, running in pipelines.items():
        graph = graphs.get(name, running.pipeline if _is_frozen(desired, (name, *running.models)) else None)
        if running.phase is Phase.LOADED and not _stands(running, graph, current):
            actions.append(UnloadPipeline(name))
        if running.phase in (Phase.LOADED, Phase.LOADING, Phase.UNLOADING):
            used.update(running.models)
    # The data plane unloads no model that a pipeline runs on.
    actions += [UnloadModel(key) for key in models if key in leaving and key[0] not in used]
    for name, pipeline in graphs.items():
        steps = {model: current.get(model) for step in pipeline["steps"] for model, _ in step["models"]}
        ready = {model: loaded for model, loaded in steps.items() if loaded is not None}
        status = pipelines.get(name)
        # All versions first: the pipeline runs on the greatest.
        complete = all(_is_settled(models.get(key)) for key in wanted if key[0] in steps)
        if complete and len(ready) == len(steps) and _may_load_pipeline(status, pipeline, ready):
            actions.append(LoadPipeline(pipeline, ready))
    return actions


def next_retry_s(models: Mapping[ModelKey, ModelStatus], now_s: float) -> float | None:
    """When, after now, something that failed is due to be tried again; None: nothing is."""
    due = [status.retry_at_s for status in models.values() if status.retry_at_s is not None]
    return min((at_s for at_s in due if at_s > now_s), default=None)


def _may_load(status: ModelStatus | None, model: ResolvedModel, now_s: float) -> bool:
    if status is None or status.phase is Phase.UNLOADED:
        return True
    if status.phase is not Phase.FAILED:
        return False
    due = status.retry_at_s is not None and status.retry_at_s <= now_s
    # Another version of the settings or the files may mend it.
    return due or status.model != model


def _must_unload(status: ModelStatus, wanted: ResolvedModel | None, now_s: float) -> bool:
    match status.phase:
        case Phase.LOADED:
            return status.model != wanted
        case Phase.LOST:
            return status.retry_at_s is None or status.retry_at_s <= now_s or status.model != wanted
        case _:
            return False


def _is_frozen(desired: DesiredState, names: tuple[str, ...]) -> bool:
    """Whether a fault in the files of one of ``names`` hides what is wanted: what runs stays as it is."""
    return any(not fault.models or not set(fault.models).isdisjoint(names) for fault in desired.faults)


def _is_settled(status: ModelStatus | None) -> bool:
    return status is not None and status.phase in (Phase.LOADED, Phase.FAILED)


def _loaded(models: Mapping[ModelKey, ModelStatus], leaving: set[ModelKey]) -> dict[str, Loaded]:
    """The greatest version of each model that is loaded and stays."""
    return {
        name: status.loaded
        for (name, version), status in sorted(models.items(), key=lambda one: one[0])
        if status.phase is Phase.LOADED and (name, version) not in leaving and status.loaded is not None
    }


def _stands(running: PipelineStatus, wanted: dict[str, Any] | None, current: Mapping[str, Loaded]) -> bool:
    """Whether a pipeline that is loaded may stay as it is."""
    return running.pipeline == wanted and all(current.get(name) is loaded for name, loaded in running.models.items())


def _may_load_pipeline(status: PipelineStatus | None, pipeline: dict[str, Any], models: Mapping[str, Loaded]) -> bool:
    if status is None or status.phase is Phase.UNLOADED:
        return True
    # The same over the same models would fail the same way.
    return status.phase is Phase.FAILED and (status.pipeline != pipeline or status.models != models)
