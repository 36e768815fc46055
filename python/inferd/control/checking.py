"""Whether what is wanted can be served, found out without serving it.

Reads a :class:`DesiredState`, loads models in workers as the server does, hands on what came of each. Two depths:
without the code of the models (what libraries read is loaded; what is Python is read as text), and with it.
Knows nothing of terminals.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from inferd.control.control_plane import ControlPlane, Progress
from inferd.control.dataplane import refuse_ports
from inferd.control.loading.loader import not_started
from inferd.errors import InferdError, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inferd.control.dataplane import Loaded
    from inferd.control.desired import DesiredState, ResolvedModel
    from inferd.control.resources import Machine
    from inferd.types import Signature

__all__ = ["Checked", "check", "check_deeply"]


class Checked(NamedTuple):
    """What was found out."""

    loaded: dict[tuple[str, int], Loaded]
    """Models that were loaded, by name and version."""
    pipelines: dict[str, Loaded]
    unread: dict[tuple[str, int], str]
    """Why the others were not."""


def check(
    desired: DesiredState, machine: Machine, on_progress: Callable[[Progress], object] = lambda _: None
) -> Checked:
    """Load what runs no code of a model's author, and read the rest.

    A model of a library is loaded once, in a worker, and runs its probe and warm-up. Of a model in Python the sources
    are compiled, its imports are looked up and its class is looked for. Files that only ``trusted_sha256`` lets be
    loaded run code, and are left alone. A pipeline is checked as far as its models are known.

    Raises:
        ModelFailed: with every model that can't be served and every pipeline whose steps don't fit.
    """
    unread = {(model.name, model.version): why for model in desired.models if (why := _why_unread(model)) is not None}
    faults = _problems([model for model in desired.models if (model.name, model.version) in unread])
    safe = [_once(model) for model in desired.models if (model.name, model.version) not in unread]
    known = {model.name for model in safe}
    whole = [
        one for one in desired.pipelines if all(name in known for step in one["steps"] for name, _ in step["models"])
    ]
    control = ControlPlane(desired._replace(models=safe, pipelines=whole), machine, on_progress, listening=False)
    details = []
    try:
        control.load()
    except InferdError as fault:
        faults.append(str(fault))
        details += [fault.detail] if fault.detail else []
    finally:
        control.close()
    if not details and not faults:
        signatures = {name: loaded.signature for (name, _), loaded in control.loaded.items()}
        for pipeline in desired.pipelines:
            faults += [] if pipeline in whole else _misfits(pipeline, signatures)
    if faults:
        raise ModelFailed("\n".join(faults), detail="\n".join(details) or None)
    return Checked(control.loaded, control.pipelines, unread)


def check_deeply(
    desired: DesiredState, machine: Machine, on_progress: Callable[[Progress], object] = lambda _: None
) -> Checked:
    """Load every model as the server would, its code included, and every pipeline, without listening.

    Raises:
        InferdError: what the server would say.
    """
    refuse_ports(desired.gateway)
    control = ControlPlane(desired, machine, on_progress, listening=False)
    try:
        control.load()
        return Checked(control.loaded, control.pipelines, {})
    finally:
        control.close()


def _why_unread(model: ResolvedModel) -> str | None:
    """Why loading the model would run code that its author wrote."""
    if model.settings["load"].get("runtime") == "python":
        return "parsed"
    return "not loaded: trusted_sha256" if model.spec.trusted_sha256 is not None else None


def _once(model: ResolvedModel) -> ResolvedModel:
    """The model with one replica, served by its library: whether it can be loaded does not depend on more."""
    machine = {**model.settings["machine"], "threads": model.threads}
    settings = {**model.settings, "replicas": 1, "machine": machine}
    return model._replace(spec=msgspec.structs.replace(model.spec, replicas=1, faster=False), settings=settings)


# -- sources of Python ----------------------------------------------------------------------------------------------


def _problems(models: list[ResolvedModel]) -> list[str]:
    """What is wrong with the sources of ``models``, in the words of the server."""
    faults = []
    for model in models:
        if model.settings["load"].get("runtime") == "python":
            problem = _problem(model)
            if problem is not None:
                faults.append(f"model '{model.name}' version {model.version}: {problem}")
    return faults


def _problem(model: ResolvedModel) -> str | None:
    """Ask the interpreter that would run the model."""
    zygote: list[str] = model.settings["launch"]["zygote"]["command"]
    # The same interpreter with the same flags: what precedes the module's name.
    command = [*zygote[: zygote.index("-m")], "-m", "inferd.runtimes.examine"]
    failed = not_started(model)
    try:
        ended = subprocess.run(
            command,
            input=json.dumps([model.settings["load"]]),
            env=model.settings["env"],
            capture_output=True,
            text=True,
            timeout=model.spec.load_max_s,
            check=False,
        )
    except OSError as fault:
        return f"{failed}\n{command[0]}: {fault.strerror} (os error {fault.errno})"
    except subprocess.TimeoutExpired:
        return f"{failed}\n{command[0]} did not answer within load_max_s = {model.spec.load_max_s:g}"
    try:
        (problem,) = json.loads(ended.stdout)
    except ValueError:
        output = ended.stderr.strip().rpartition("\n")[2][:500] or f"it ended with status {ended.returncode}"
        return f"{failed}\n{output}"
    return None if problem is None else f"model '{model.name}' could not be loaded: {problem}"


# -- pipelines ------------------------------------------------------------------------------------------------------


def _misfits(pipeline: dict[str, Any], signatures: Mapping[str, Signature]) -> list[str]:
    """Names of tensors in a pipeline that its models don't have, in the words of the data plane.

    Only of models whose signature is known; what types and shapes they have is looked at once all are.
    """
    faults: list[str] = []
    given: dict[str, Signature | None] = {}

    def fault(step: str, what: str) -> None:
        faults.append(f"pipeline '{pipeline['name']}', step '{step}': {what}")

    def source(step: str, name: str) -> None:
        steps = [one for one in given if name.startswith(f"{one}.")]
        signature = given[max(steps, key=len)] if steps else None
        if signature is None:
            return
        output = name[len(max(steps, key=len)) + 1 :]
        if output not in [spec.name for spec in signature.outputs]:
            fault(step, f"'{name}' is given by no step; that step gives {_names(signature.outputs)}")

    for step in pipeline["steps"]:
        signature = signatures.get(step["models"][0][0])
        names = dict(step["inputs"])
        if signature is not None:
            takes = [spec.name for spec in signature.inputs]
            for name in names:
                if name not in takes:
                    fault(step["name"], f"its model has no input '{name}'; it takes {_names(signature.inputs)}")
        for sources in names.values():
            for name in sources:
                source(step["name"], name)
        given[step["name"]] = signature
    for _, sources in pipeline["outputs"] or ():
        for name in sources:
            source("outputs", name)
    return faults


def _names(specs: Any) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs)
