"""Specifications into what the data plane reads: one value, nothing left open.

Reads what was given (files below the command line), the declarations' defaults and the machine, hands on a
:class:`Plan`. Pure but for looking up installed libraries; starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from inferd.control.beside import read_labels, read_samples
from inferd.control.declared import Declared
from inferd.control.docs import docs_folder
from inferd.control.repository import Found, Repository, discover
from inferd.control.resources import READ_AT_START, Machine, share_threads, thread_variables, worker_environment
from inferd.control.stages import read_stages
from inferd.errors import Forbidden, ModelFailed, NotFound, SpecError
from inferd.runtimes.registry import NAMES, recognise, runtime
from inferd.spec.convert import nearest
from inferd.spec.settings import ModelSpec, ServerSpec
from inferd.spec.triton.mapping import reshapes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inferd.spec.files import Given

__all__ = ["Plan", "PlannedModel", "make_plan"]


class PlannedModel(NamedTuple):
    """One model version, resolved."""

    name: str
    version: int
    file: Path
    spec: ModelSpec
    threads: int
    settings: dict[str, Any]
    """``ModelSettings`` of the data plane."""


class Plan(NamedTuple):
    """Everything that is to run."""

    server: ServerSpec
    gateway: dict[str, Any]
    """``GatewaySettings`` of the data plane."""
    log: dict[str, Any]
    models: list[PlannedModel]
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""
    declared: dict[str, Declared]
    """What pipelines say they take and give, by name."""
    notes: list[str]
    """What stands in files and has no effect."""


def make_plan(
    paths: list[Path],
    server: Given,
    model: Given,
    machine: Machine,
    *,
    pipelines: Sequence[dict[str, Any]] = (),
    ports_free: bool = False,
) -> Plan:
    """What is to run.

    Args:
        paths: what the user named.
        server: server settings that stand above every file's.
        model: model settings that stand above every file's, for all models.
        machine: what this process may use.
        pipelines: those that are in no file.
        ports_free: take free ports where none is given.

    Raises:
        SpecError: with every fault of files, folders and settings.
    """
    faults: list[str] = []
    repository: Repository = discover(paths, model, faults)
    ports: Given = {"port": 0, "metrics_port": 0} if ports_free else {}
    spec = ServerSpec(**(ports | repository.server | server))
    planned: list[PlannedModel | None] = []
    staged: list[dict[str, Any]] = []
    for found in repository.models:
        stages = read_stages(found)
        if stages is None:
            planned.append(_plan_model(found, machine, faults))
            continue
        planned += [_plan_model(one, machine, faults, stage=stage) for stage, one in stages.models(found)]
        staged.append(stages.pipeline(found))
    if model.get("name") and len({found.place for found in repository.models}) > 1:
        faults.append(f"'name' was given for {len(repository.models)} models; write it at the model in inferd.yaml")
    every_pipeline = [*repository.pipelines, *pipelines]
    _check_pipelines(every_pipeline, repository.models, faults)
    every_pipeline += staged
    if paths and not planned and not faults:
        named = ", ".join(map(str, paths))
        faults.append(f"{named}: no model is named there\nhelp: write models: [{{path: model.onnx}}], say")
    if faults:
        raise SpecError(faults)
    log = {"format": spec.log_format, "level": spec.log_level}
    declared = {
        name: Declared(sides.get("inputs"), sides.get("outputs"), open_sizes=True)
        for name, sides in repository.declared.items()
    }
    models = [one for one in planned if one is not None]
    return Plan(spec, _gateway(spec, machine), log, models, every_pipeline, declared, repository.notes)


def _check_pipelines(pipelines: list[dict[str, Any]], models: list[Found], faults: list[str]) -> None:
    names = sorted({found.name for found in models})
    taken = set(names)
    for pipeline in pipelines:
        if pipeline["name"] in taken:
            faults.append(f"pipeline '{pipeline['name']}': a model or pipeline has this name; give it another")
        taken.add(pipeline["name"])
        faults.extend(
            f"pipeline '{pipeline['name']}', step '{step['name']}': there is no model '{model}'{nearest(model, names)}"
            for step in pipeline["steps"]
            for model, _ in step["models"]
            if model not in names
        )


def _plan_model(found: Found, machine: Machine, faults: list[str], *, stage: str | None = None) -> PlannedModel | None:
    spec = ModelSpec(**found.given)
    kind = spec.runtime or recognise(found.file)
    if kind is None:
        known = ", ".join(NAMES)
        faults.append(f"{found.place}: '{found.file.name}' has no known ending\nhelp: set runtime: to one of {known}")
        return None
    if spec.hedge_budget and not spec.retry_on_worker_loss:
        faults.append(
            f"{found.place}: hedge_budget runs requests twice, which retry_on_worker_loss: false forbids\n"
            "help: leave one of the two out"
        )
        return None
    if spec.cache_max_bytes and not spec.retry_on_worker_loss:
        faults.append(
            f"{found.place}: cache_max_bytes answers requests without running them, which a model with side effects"
            " (retry_on_worker_loss: false) does not stand\nhelp: leave one of the two out"
        )
        return None
    if spec.batching == "verify" and not spec.retry_on_worker_loss:
        faults.append(
            f"{found.place}: batching: verify runs requests twice, which retry_on_worker_loss: false forbids\n"
            "help: leave one of the two out"
        )
        return None
    if spec.batch_rows_max is None:
        rows = _ROWS_WITHIN_OBJECTIVE if spec.slo else _ROWS_AT_BEST_EFFORT
        spec = msgspec.structs.replace(spec, batch_rows_max=rows)
    threads = spec.threads or share_threads(machine.cores, spec.replicas)
    try:
        runtime(kind).TAKES.check(spec)
        launch = runtime(kind).compose(found.file, spec, threads)
    except (Forbidden, ModelFailed, NotFound) as fault:
        faults.append(f"{found.place}: {fault}")
        return None
    if stage is not None:
        launch.load["stage"] = stage
    environment = worker_environment(machine.environment, spec.env, threads)
    if launch.how == "zygote":
        # Models share the process that they are forked from where all that it reads at its start is the same.
        launch.command.extend(f"{name}={environment[name]}" for name in READ_AT_START if name in spec.env)
    settings = {
        "name": found.name,
        "version": found.version,
        "platform": launch.platform,
        "launch": {launch.how: {"command": launch.command}},
        "env": environment,
        "load": launch.load | _triton(found, spec, launch.how),
        "directory": str(found.file.parent),
        "replicas": spec.replicas,
        "machine": {
            "cpus": machine.cpus,
            "cores": machine.cores,
            "threads": spec.threads,
            "thread_variables": thread_variables(spec.env),
            "pin": spec.pin,
            "running_max": spec.running_max,
            # Python models may wait for others: for those no bound is known.
            "takes_turns": launch.how == "exec" and spec.device == "cpu",
        },
        "slo": None if spec.slo is None else {"latency_s": spec.slo.latency_s, "percentile": spec.slo.percentile},
        "padding": msgspec.to_builtins(spec.padding),
        "sequence": spec.sequence and spec.sequence.to_json(),
        "comparison": {
            "verify": spec.batching == "verify",
            "tolerance": {"absolute": spec.batch_tolerance_absolute, "relative": spec.batch_tolerance_relative},
        },
        "profile": [],
        "optional": spec.optional,
        "labels": read_labels(spec.labels, found.folder, found.place, faults),
        "warmup": spec.warmup is not False,
        "samples": read_samples(spec.warmup, found.folder, found.place, faults),
        **{name: getattr(spec, name) for name in _AS_GIVEN},
    }
    return PlannedModel(found.name, found.version, found.file, spec, threads, settings)


def _triton(found: Found, spec: ModelSpec, how: str) -> dict[str, Any]:
    """What the worker of a model of a Triton repository is told besides."""
    if found.config is None:
        return {}
    if how == "exec":
        return {"reshape": reshapes_of(found.config)}
    folder = found.file.parent if found.file.parent.name != str(found.version) else found.file.parent.parent
    # Its own name: a namespace, or another name to be served by, is nothing that it knows of.
    name = found.config["name"]
    about = {"name": name, "version": found.version, "folder": str(folder), "device": spec.device}
    return {"triton": {**about, "config": found.config}}


# Most rows of a batch where none is given. With an objective the scheduler takes as many as it and what batches take
# allow: simulated in bursts, 128 met as many as 256, and 64 nearly so. Without one, nothing bounds what callers wait.
_ROWS_WITHIN_OBJECTIVE = 128
_ROWS_AT_BEST_EFFORT = 32

# Settings that mean the same on both sides.
_AS_GIVEN = (
    "arena_max_bytes",
    "batch_rows_max",
    "cache_max_bytes",
    "ejection",
    "execution_max_s",
    "hedge_budget",
    "kills_per_minute_max",
    "late_wait_objectives",
    "linger",
    "load_max_s",
    "priority_default",
    "profiling",
    "queue_max_bytes",
    "queue_rows_max",
    "retry_on_worker_loss",
)
_GATEWAY_AS_GIVEN = (
    "body_max_bytes",
    "body_timeout_s",
    "connections_max",
    "drain_timeout_s",
    "header_max_bytes",
    "header_timeout_s",
    "host",
    "inflight_max_bytes",
    "json_depth_max",
    "metrics_port",
    "otlp_endpoint",
    "port",
    "shared_memory",
    "streams_max",
    "tenant_header",
    "tenants",
)


def _gateway(spec: ServerSpec, machine: Machine) -> dict[str, Any]:
    threads = spec.gateway_threads or machine.gateway_threads
    folder = docs_folder() if spec.docs else None
    found = {"gateway_threads": threads, "docs_folder": None if folder is None else str(folder)}
    return {**found, **{name: getattr(spec, name) for name in _GATEWAY_AS_GIVEN}}
