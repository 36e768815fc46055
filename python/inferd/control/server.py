"""A server inside this process, for notebooks and tests.

Reads paths and settings by their names, hands on addresses. Everything else is the same as ``inferd serve``.
Knows nothing of terminals.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.config import desired_state
from inferd.control.control_plane import ControlPlane
from inferd.control.resources import observe
from inferd.errors import InferdError, SpecError
from inferd.spec.convert import Source, read_settings
from inferd.spec.declare import settings_of
from inferd.spec.pipelines import read_pipelines
from inferd.spec.settings import ModelSpec, ServerSpec

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from inferd.types import Signature

__all__ = ["ModelInfo", "Server"]


class ModelInfo(NamedTuple):
    """A model version that is served."""

    name: str
    version: int
    signature: Signature
    facts: dict[str, str]


class Server:
    """Serve models from this process until the ``with`` block ends.

    >>> with inferd.Server("model.onnx", slo="20ms") as server:  # doctest: +SKIP
    ...     print(server.url)

    Args:
        paths: what ``inferd serve`` takes: model files, folders of models, ``inferd.yaml``.
        settings: any setting of the server or of models, by name. ``port`` and ``metrics_port`` are 0 unless given
            here or in a file: a free port, since a notebook must not fail for another one that is open.
            ``pipelines`` is a list of :class:`inferd.Pipeline`.

    Raises:
        SpecError: settings or folders are wrong.
        ModelFailed: a model could not be loaded; from entering the ``with`` block.
    """

    def __init__(self, *paths: str | os.PathLike[str], **settings: Any) -> None:
        pipelines = settings.pop("pipelines", ())
        if not paths:
            raise SpecError(["no model was named; for instance Server('model.onnx')"])
        faults: list[str] = []
        source = Source("Server()")
        names = settings_of(ServerSpec)
        server_given = {key: value for key, value in settings.items() if key in names}
        model_given = {key: value for key, value in settings.items() if key not in names}
        known = tuple(names)
        server = read_settings(ServerSpec, server_given, source, faults)
        model = read_settings(ModelSpec, model_given, source, faults, besides=known)
        steps = read_pipelines(pipelines, source, faults)
        if faults:
            raise SpecError(faults)
        self._machine = observe()
        self._desired = desired_state(
            [Path(path) for path in paths], server, model, self._machine, pipelines=steps, ports_free=True
        )
        for note in self._desired.notes:
            logging.getLogger("inferd").warning(note)
        self._control: ControlPlane | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when every model is warm."""
        if self._control is not None:
            raise InferdError("the server is running")
        control = ControlPlane(self._desired, self._machine)
        try:
            control.load()
        except BaseException:
            control.close()
            raise
        self._control = control

    def stop(self) -> None:
        """Answer what was admitted and end. Does nothing where the server does not run."""
        control, self._control = self._control, None
        if control is not None:
            control.stop()

    @property
    def address(self) -> str:
        """``host:port``, as gRPC clients and tritonclient want it."""
        return self._running.data_plane.addresses["data"]

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://{self.address}"

    @property
    def metrics_url(self) -> str | None:
        """Where Prometheus reads; None where metrics are off."""
        address = self._running.data_plane.addresses.get("metrics")
        return None if address is None else f"http://{address}/metrics"

    @property
    def models(self) -> list[ModelInfo]:
        """What is served, by name and version."""
        loaded = {**self._running.loaded, **{(name, 1): one for name, one in self._running.pipelines.items()}}
        return [ModelInfo(*key, one.signature, one.facts) for key, one in sorted(loaded.items())]

    def status(self) -> dict[str, Any]:
        """States, replicas and what the scheduler knows, of every model."""
        return self._running.data_plane.status()

    @property
    def _running(self) -> ControlPlane:
        if self._control is None:
            raise InferdError("the server does not run\nhelp: use it in a with block, or call start()")
        return self._control
