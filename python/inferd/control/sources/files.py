"""The files that a user names: model files, folders of models, ``inferd.yaml``.

Reads them, and settings that were given besides (flags, arguments), hands on a :class:`Reading`. Nothing that is read
here is read again before a worker loads it. Knows nothing of what settings make sense together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from inferd.control.defaults import complete
from inferd.control.docs import docs_folder
from inferd.control.sources.repository import discover
from inferd.control.sources.sidecars import read_labels, read_samples
from inferd.control.sources.source import Fault, Found, ModelReading, Reading
from inferd.control.sources.stages import read_stages
from inferd.errors import Forbidden, ModelFailed, NotFound
from inferd.runtimes.registry import recognise, runtime
from inferd.spec.settings import ServerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from inferd.control.resources import Machine
    from inferd.runtimes.base import Launch
    from inferd.spec.files import Given
    from inferd.spec.settings import ModelSpec

__all__ = ["FileSource"]


class FileSource(NamedTuple):
    """Paths, and what overrides their files.

    Args:
        paths: what the user named; ``NAMESPACE=PATH`` where names get a namespace.
        server: server settings that override every file's.
        model: model settings that override every file's, for all models.
        pipelines: those that are in no file.
        ports_free: take free ports where none is given.
    """

    paths: Sequence[Path]
    server: Given
    model: Given
    pipelines: Sequence[dict[str, Any]] = ()
    ports_free: bool = False

    @property
    def name(self) -> str:
        """As messages have it."""
        return "files"

    def read(self, machine: Machine) -> Reading:
        """Everything that is there now."""
        repository = discover(list(self.paths), self.model)
        ports: Given = {"port": 0, "metrics_port": 0} if self.ports_free else {}
        server = ports | repository.server | self.server
        models, staged = [], []
        of_stages: dict[str, tuple[str, ...]] = {}
        for found in repository.models:
            stages = read_stages(found)
            if stages is None:
                models.append(_read_model(found, machine))
                continue
            parts = stages.models(found)
            models += [_read_model(one, machine, stage) for stage, one in parts]
            of_stages[found.name] = tuple(one.name for _, one in parts)
            staged.append(stages.pipeline(found))
        # What is wrong with a model is wrong with its stages.
        spec = ServerSpec(**server)
        faults = [
            fault._replace(models=(*fault.models, *(one for name in fault.models for one in of_stages.get(name, ()))))
            for fault in repository.faults
        ]
        if self.model.get("name") and len({found.place for found in repository.models}) > 1:
            message = f"'name' was given for {len(repository.models)} models; write it at the model in inferd.yaml"
            faults.append(Fault(message, (self.model["name"],)))
        if self.paths and not models and not faults:
            named = ", ".join(map(str, self.paths))
            faults.append(Fault(f"{named}: no model is named there\nhelp: write models: [{{path: model.onnx}}], say"))
        return Reading(
            models,
            server,
            [*repository.pipelines, *self.pipelines],
            staged,
            repository.declared,
            repository.notes,
            faults,
            docs_folder() if spec.docs else None,
        )


def _read_model(found: Found, machine: Machine, stage: str | None = None) -> ModelReading:
    """Everything that is known of a model before a worker loads it; ``stage``: of a model that has several."""
    unknown = ModelReading(found, None, None, {}, [])
    faults: list[str] = []
    try:
        kind = found.given.get("runtime") or recognise(found.file)
        if kind is None:
            return unknown
        spec, threads = complete(found.given, machine)
        launch = _launch(found, kind, (spec, threads), faults)
        if launch is not None and stage is not None:
            launch.load["stage"] = stage
        labels = read_labels(spec.labels, found.folder, found.place, faults)
        samples = read_samples(spec.warmup, found.folder, found.place, faults)
    except Exception as fault:  # noqa: BLE001 (whatever it is, other models are sound)
        return unknown._replace(faults=(f"{found.place}: {type(fault).__name__}: {fault}",))
    return ModelReading(found, kind, launch, labels, samples, tuple(faults))


def _launch(found: Found, kind: str, settled: tuple[ModelSpec, int], faults: list[str]) -> Launch | None:
    """How a worker for it is started, which its file has a say in; ``settled``: its settings and its threads."""
    spec, threads = settled
    module = runtime(kind)
    try:
        module.TAKES.check(spec)
        return module.compose(found.file, spec, threads)
    except (Forbidden, ModelFailed, NotFound) as fault:
        faults.append(f"{found.place}: {fault}")
    except OSError as fault:
        faults.append(f"{found.place}: '{fault.filename}' can't be read: {fault.strerror}")
    return None
