"""What a source of the desired state is, and what it hands on: everything that was read, nothing decided.

Knows nothing of where a source reads, and of defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.control.resources import Machine
    from inferd.runtimes.base import Launch
    from inferd.spec.files import Given

__all__ = ["Fault", "Found", "ModelReading", "Reading", "Source", "read_sources"]


class Fault(NamedTuple):
    """Something that is wrong with what was read."""

    message: str
    """``place: what is wrong``, and the remedy."""
    models: tuple[str, ...] = ()
    """The models and pipelines that can't be served for it; none: it concerns the source as a whole."""


class Found(NamedTuple):
    """One model version on disk."""

    name: str
    version: int
    file: Path
    given: Given
    """What ``model.yaml`` and ``inferd.yaml`` set for it."""
    place: str
    """Where it was named, for messages."""
    config: dict[str, Any] | None = None
    """The ``config.pbtxt`` in its folder."""
    folder: Path = Path()
    """Where what belongs to it is looked for: labels, samples."""


class ModelReading(NamedTuple):
    """One model version with all that was read of its files."""

    found: Found
    runtime: str | None
    """The runtime that runs it, as given or as recognised; None: none is known."""
    launch: Launch | None
    """How its worker is started; None: it can't be, and ``faults`` say why."""
    labels: dict[str, dict[str, Any]]
    """``LabelSettings`` of the data plane by output."""
    samples: list[dict[str, Any]]
    """``Sample`` of the data plane: requests that warm it up."""
    faults: tuple[str, ...] = ()


class Reading(NamedTuple):
    """All that sources say is wanted."""

    models: list[ModelReading]
    server: Given
    """Settings of the server."""
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""
    stages: list[dict[str, Any]]
    """The same for models that are served as pipelines of their stages. Their outputs are known after loading."""
    declared: dict[str, Given]
    """``inputs`` and ``outputs`` of pipelines that say what they are, by name."""
    notes: list[str]
    """What is ignored: files and versions that are not served, what has no effect; ``place: what and why``."""
    faults: list[Fault]
    docs_folder: Path | None = None
    """Where the files of the page at ``/docs`` are."""


class Source(Protocol):
    """A place that says what is wanted."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def read(self, machine: Machine) -> Reading:
        """What it says now. A fault of one model is in the reading and keeps no other from being read."""
        ...


def read_sources(sources: Sequence[Source], machine: Machine) -> Reading:
    """What all ``sources`` say together.

    Server settings of a later source override those of an earlier one. A source that can't be read is a fault, and the
    others are read.
    """
    whole = Reading([], {}, [], [], {}, [], [])
    for source in sources:
        try:
            read = source.read(machine)
        except Exception as fault:  # noqa: BLE001 (whatever it is, the other sources are sound)
            whole.faults.append(Fault(f"{source.name}: {type(fault).__name__}: {fault}"))
            continue
        whole.models.extend(read.models)
        whole.server.update(read.server)
        whole.pipelines.extend(read.pipelines)
        whole.stages.extend(read.stages)
        whole.declared.update(read.declared)
        whole.notes.extend(read.notes)
        whole.faults.extend(read.faults)
        whole = whole._replace(docs_folder=read.docs_folder or whole.docs_folder)
    return whole
