"""The desired state and measurements into a scenario of the simulator, and how many replicas hold the objectives.

Reads what would be served and what ``inferd explain --json`` says of it, hands on scenarios and reports. Knows nothing
of how a simulation runs or of how a report is shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inferd.control import dataplane
from inferd.control.loading.profiles import ProfileCache
from inferd.errors import InferdError, InvalidInput, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.control.desired import DesiredState, ResolvedModel
    from inferd.control.resources import Machine

__all__ = ["find_replicas", "make_scenario", "read_profile", "simulate"]

Scenario = dict[str, Any]
Report = dict[str, Any]

_REPLICAS_MAX = 256
# Fewer runs in their order say less than the quantiles of all.
_RATIOS_MIN = 64


def read_profile(file: Path | None) -> dict[str, dict[str, Any]]:
    """What ``inferd explain --json`` said, by the names of models; nothing without a file.

    Raises:
        SpecError: the file is not that.
    """
    if file is None:
        return {}
    try:
        explained = json.loads(file.read_text(encoding="utf-8"))
        models = {str(model["name"]): dict(model) for model in explained["models"]}
    except OSError as fault:
        raise SpecError([f"--profile {file}: {fault.strerror}"]) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SpecError([f"--profile {file}: not what 'inferd explain --json' prints"]) from None
    return models


def make_scenario(desired: DesiredState, profile: dict[str, dict[str, Any]], machine: Machine) -> Scenario:
    """What would be served, as the simulator takes it; nothing comes to it yet.

    A model is as ``profile`` has measured it; one that is not in it, as it was measured when it was last served here.

    Raises:
        SpecError: a model was never measured; all of them are named.
    """
    faults: list[str] = []
    unknown = profile.keys() - {model.name for model in desired.models}
    if profile and len(unknown) == len(profile):
        faults.append(f"the profile knows {', '.join(sorted(unknown))}; none of these is served")
    cache = ProfileCache(machine.cache / "profiles")
    models = []
    for model in desired.models:
        measured = _measured(model, profile.get(model.name), cache)
        if measured is None:
            faults.append(
                f"model '{model.name}' was never measured\n"
                "help: serve it, send it some requests, then save what 'inferd explain --json' prints for --profile"
            )
        else:
            models.append(_model(model) | measured)
    if faults:
        raise SpecError(faults)
    return {"models": models, "pipelines": [_pipeline(pipeline) for pipeline in desired.pipelines], "arrivals": []}


def simulate(scenario: Scenario, progress: Callable[[float], object] | None = None) -> Report:
    """What comes of ``scenario``; ``progress`` is called now and then with the share of its time that has passed.

    Raises:
        SpecError: the scenario makes no sense.
    """
    try:
        return dataplane.simulate(scenario, progress)
    except InvalidInput as fault:
        raise SpecError([str(fault)]) from None


def find_replicas(scenario: Scenario, on_try: Callable[[dict[str, int]], object]) -> tuple[Scenario, Report]:
    """The scenario with the fewest replicas that hold every objective, and its report.

    Each replica has cores of its own. More are added where replicas are busiest until all objectives hold, then each
    model gives back what it can spare.

    Args:
        scenario: what runs and what comes.
        on_try: called with how many replicas of each model are tried next.

    Raises:
        SpecError: nothing that comes has an objective.
        InferdError: no number of replicas holds them.
    """
    targets = {source["target"] for source in scenario["arrivals"]}
    named = [*scenario["models"], *scenario["pipelines"]]
    if not any(one["name"] in targets and one["objective"] for one in named):
        raise SpecError(["--find replicas needs an objective to hold; give one with --slo 50ms, or in inferd.yaml"])

    tried: dict[tuple[int, ...], Report] = {}
    names = [model["name"] for model in scenario["models"]]

    def attempt(replicas: list[int]) -> Report:
        if tuple(replicas) not in tried:
            on_try(dict(zip(names, replicas, strict=True)))
            tried[tuple(replicas)] = simulate(_with_replicas(scenario, replicas))
        return tried[tuple(replicas)]

    replicas = [1] * len(names)
    while not _holds(report := attempt(replicas)):
        loads = [(model["utilisation"], position) for position, model in enumerate(report["models"])]
        busiest = max(loads)[1]
        if replicas[busiest] >= _REPLICAS_MAX:
            raise InferdError(
                f"even {_REPLICAS_MAX} replicas of '{names[busiest]}' do not hold the objectives\n"
                "help: allow more time with --slo, or look at what one request takes with inferd explain"
            )
        replicas[busiest] = min(_REPLICAS_MAX, replicas[busiest] + max(1, replicas[busiest] // 2))
    for position in range(len(names)):
        too_few = 0
        while replicas[position] - too_few > 1:
            middle = (replicas[position] + too_few) // 2
            fewer = [*replicas[:position], middle, *replicas[position + 1 :]]
            if _holds(attempt(fewer)):
                replicas = fewer
            else:
                too_few = middle
    return _with_replicas(scenario, replicas), attempt(replicas)


def _with_replicas(scenario: Scenario, replicas: list[int]) -> Scenario:
    models = zip(scenario["models"], replicas, strict=True)
    return {**scenario, "models": [{**model, "replicas": count, "machine": {}} for model, count in models]}


def _holds(report: Report) -> bool:
    return all(target["holds"] is not False for target in report["targets"])


def _model(model: ResolvedModel) -> dict[str, Any]:
    """What is wanted of a model."""
    slo = model.spec.slo
    return {
        "name": model.name,
        "replicas": model.spec.replicas,
        "machine": model.settings["machine"],
        "batched": model.spec.batching != "off",
        "batch_rows_max": model.spec.batch_rows_max,
        "queue_rows_max": model.spec.queue_rows_max,
        "linger": model.spec.linger,
        "ejection": model.spec.ejection,
        "hedge_budget": model.spec.hedge_budget if model.spec.retry_on_worker_loss else 0.0,
        "objective": None if slo is None else {"latency_s": slo.latency_s, "percentile": slo.percentile},
    }


def _pipeline(pipeline: dict[str, Any]) -> dict[str, Any]:
    """A pipeline as the simulator takes it. Conditions count as met: how often they are is not measured."""
    positions = {step["name"]: position for position, step in enumerate(pipeline["steps"])}

    def follows(step: dict[str, Any]) -> list[int]:
        tensors = [tensor for _, sources in step["inputs"] for tensor in sources]
        tensors += [step["when"]["tensor"]] if step["when"] else []
        before = {tensor.partition(".")[0] for tensor in tensors if "." in tensor}
        return sorted(positions[name] for name in before)

    steps = [{"name": step["name"], "models": step["models"], "after": follows(step)} for step in pipeline["steps"]]
    return {"name": pipeline["name"], "objective": pipeline["slo"], "steps": steps}


def _measured(model: ResolvedModel, explained: dict[str, Any] | None, cache: ProfileCache) -> dict[str, Any] | None:
    """What was measured of a model."""
    why = (explained or {}).get("explain") or {}
    if explained is None or not why.get("curve"):
        curve = cache.find(model.file, model.spec.device, model.threads)
        return {"curve": sorted(curve)} if curve else None
    batching = (explained.get("signature") or {}).get("batching", "on")
    points = {point["rows"]: point["mean_s"] for point in [*why["curve"], *why.get("measured", ())]}
    ratios = [ratio for ratio in why.get("recent_ratios", []) if ratio > 0]
    return {
        "curve": sorted(points.items()),
        "spread": _ascending(why.get("spread", [])),
        "recent_ratios": ratios if len(ratios) >= _RATIOS_MIN else [],
        "overhead_batch_s": why.get("overhead_s", {}).get("batch", 0.0),
        "unseen": _ascending(why.get("overhead_s", {}).get("unseen", [])),
        "pauses": _ascending(why.get("overhead_s", {}).get("pauses", [])),
        "overhead_request_s": why.get("overhead_s", {}).get("request") or 0.0,
        "batched": model.spec.batching != "off" and batching == "on",
    }


def _ascending(spread: list[list[float]]) -> list[tuple[float, float]]:
    """Quantiles without those that a sketch put a little below the one before."""
    kept: list[tuple[float, float]] = []
    for quantile, ratio in spread:
        kept.append((quantile, max(ratio, kept[-1][1] if kept else 0.0)))
    return kept
