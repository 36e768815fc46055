"""What was read into what should run: one value, nothing left open.

Reads a :class:`Reading` and the machine, hands on a :class:`DesiredState`. Pure: it opens no file and starts nothing.
Each model is resolved by itself: what is wrong with one is its own fault.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.control.declarations import Declared
from inferd.control.defaults import complete
from inferd.control.desired import DesiredState, ResolvedModel
from inferd.control.resources import READ_AT_START, Machine, thread_variables, worker_environment
from inferd.control.sources.source import Fault, Found, ModelReading, Reading
from inferd.runtimes.registry import NAMES
from inferd.spec.convert import nearest
from inferd.spec.settings import ModelSpec, ServerSpec
from inferd.spec.triton.mapping import reshapes_of

__all__ = ["resolve", "resolve_model"]


def resolve(reading: Reading, machine: Machine) -> DesiredState:
    """What should run, and what is wrong with the rest."""
    spec = ServerSpec(**reading.server)
    faults = list(reading.faults)
    models = []
    for one in reading.models:
        own: list[str] = []
        try:
            model = resolve_model(one, machine, own)
        except Exception as fault:  # noqa: BLE001 (whatever it is, the others are sound)
            model = None
            own.append(f"{one.found.place}: {type(fault).__name__}: {fault}")
        if model is not None:
            models.append(model)
        faults += [Fault(message, (one.found.name,)) for message in own]
    _check_pipelines(reading.pipelines, [one.found.name for one in reading.models], faults)
    faulty = {name for fault in faults for name in fault.models}
    declared = {
        name: Declared(sides.get("inputs"), sides.get("outputs"), open_sizes=True)
        for name, sides in reading.declared.items()
    }
    return DesiredState(
        spec,
        _gateway(spec, machine, reading),
        {"format": spec.log_format, "level": spec.log_level},
        [model for model in models if model.name not in faulty],
        [one for one in (*reading.pipelines, *reading.stages) if _is_sound(one, faulty)],
        declared,
        reading.notes,
        faults,
    )


def _is_sound(pipeline: dict[str, Any], faulty: set[str]) -> bool:
    """Whether neither the pipeline nor a model of its steps has a fault."""
    used = {model for step in pipeline["steps"] for model, _ in step["models"]}
    return faulty.isdisjoint({pipeline["name"], *used})


def _check_pipelines(pipelines: list[dict[str, Any]], models: list[str], faults: list[Fault]) -> None:
    names = sorted(set(models))
    taken = set(names)
    for pipeline in pipelines:
        name = pipeline["name"]
        if name in taken:
            faults.append(Fault(f"pipeline '{name}': a model or pipeline has this name; give it another", (name,)))
        taken.add(name)
        faults.extend(
            Fault(
                f"pipeline '{name}', step '{step['name']}': there is no model '{model}'{nearest(model, names)}", (name,)
            )
            for step in pipeline["steps"]
            for model, _ in step["models"]
            if model not in names
        )


def resolve_model(reading: ModelReading, machine: Machine, faults: list[str]) -> ResolvedModel | None:
    """The model as the data plane takes it; None where it can't be served, and ``faults`` takes why."""
    found, launch = reading.found, reading.launch
    if reading.runtime is None and reading.faults:
        faults.extend(reading.faults)
        return None
    spec, threads = complete(found.given, machine)
    contradiction = _contradiction(spec)
    if reading.runtime is None:
        known = ", ".join(NAMES)
        faults.append(f"{found.place}: '{found.file.name}' has no known ending\nhelp: set runtime: to one of {known}")
    elif contradiction is not None:
        faults.append(f"{found.place}: {contradiction}\nhelp: leave one of the two out")
    else:
        faults.extend(reading.faults)
    if launch is None or faults:
        return None
    environment = worker_environment(machine.environment, spec.env, threads)
    command = list(launch.command)
    if launch.how == "zygote":
        # Models share the process that they are forked from where all that it reads at its start is the same.
        command.extend(f"{name}={environment[name]}" for name in READ_AT_START if name in spec.env)
    settings = {
        "name": found.name,
        "version": found.version,
        "platform": launch.platform,
        "launch": {launch.how: {"command": command}},
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
        "labels": reading.labels,
        "warmup": spec.warmup is not False,
        "samples": reading.samples,
        **{name: getattr(spec, name) for name in _AS_GIVEN},
    }
    return ResolvedModel(found.name, found.version, found.file, spec, threads, settings)


def _contradiction(spec: ModelSpec) -> str | None:
    """Settings of the model that exclude each other; None: there are none."""
    if spec.retry_on_worker_loss:
        return None
    if spec.hedge_budget:
        return "hedge_budget runs requests twice, which retry_on_worker_loss: false forbids"
    if spec.cache_max_bytes:
        return (
            "cache_max_bytes answers requests without running them, which a model with side effects"
            " (retry_on_worker_loss: false) does not stand"
        )
    if spec.batching == "verify":
        return "batching: verify runs requests twice, which retry_on_worker_loss: false forbids"
    return None


def _triton(found: Found, spec: ModelSpec, how: str) -> dict[str, Any]:
    """What the worker of a model of a Triton repository gets besides."""
    if found.config is None:
        return {}
    if how == "exec":
        return {"reshape": reshapes_of(found.config)}
    folder = found.file.parent if found.file.parent.name != str(found.version) else found.file.parent.parent
    # Its own name: a namespace, or another name to be served by, is nothing that it knows of.
    name = found.config["name"]
    about = {"name": name, "version": found.version, "folder": str(folder), "device": spec.device}
    return {"triton": {**about, "config": found.config}}


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


def _gateway(spec: ServerSpec, machine: Machine, reading: Reading) -> dict[str, Any]:
    threads = spec.gateway_threads or machine.gateway_threads
    folder = reading.docs_folder
    found = {"gateway_threads": threads, "docs_folder": None if folder is None else str(folder)}
    return {**found, **{name: getattr(spec, name) for name in _GATEWAY_AS_GIVEN}}
