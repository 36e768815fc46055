"""The interface of a runtime, for the control plane and for workers.

Read by :mod:`inferd.control` (:class:`Launch`, :class:`Launcher`) and :mod:`inferd.worker` (:class:`Runtime`). Knows
nothing of any framework.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from inferd.errors import ModelFailed, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from inferd.sdk import sequences
    from inferd.spec.settings import ModelSpec
    from inferd.types import InputSchema, Signature

__all__ = [
    "PYTHON_FLAGS",
    "UNUSABLE",
    "Batch",
    "Controlled",
    "Launch",
    "Launcher",
    "Runtime",
    "RuntimeModule",
    "Streaming",
    "Tabular",
    "Takes",
    "head",
    "python_launch",
    "require",
]

UNUSABLE = "the model can't use inputs of these shapes or values"
"""Client message for an error of a library, whose own text may contain another request's data or a path."""

PYTHON_FLAGS = ("-P",)
"""Interpreter flags of workers. The import path is that of a script (``PYTHONPATH``, user site-packages, ``.pth``
files) without the current directory of the server."""

Batch = dict[str, Any]
"""Arrays by name, each of shape ``(n, *item_shape)`` if the model is batched."""


class Launch(NamedTuple):
    """How to start a worker, as the data plane reads it."""

    platform: str
    """``platform`` of the model's metadata."""
    how: str
    """``exec``: a process of its own; ``zygote``: a fork of the process that ``command`` starts."""
    command: list[str]
    load: dict[str, Any]
    """Settings that the worker loads the model with; opaque to the data plane."""


class Takes(NamedTuple):
    """How a runtime handles requests, in sentences for ``docs/reference/runtimes.md``."""

    title: str
    """Name of the library."""
    types: str
    """Input datatypes, and which conversions are allowed or refused."""
    categories: str
    missing: str
    """Missing values."""
    names: str
    """Names of inputs and columns."""
    outputs: str
    """Names and datatypes of outputs, and which are omitted."""
    parameters: Mapping[str, str] | str = MappingProxyType({})
    """Supported keys of the setting ``parameters:``, each with its meaning; others fail the load. A sentence: the model
    defines them."""

    def check(self, spec: ModelSpec) -> None:
        """Refuse settings that the runtime does not support.

        Raises:
            ModelFailed: lists them and the supported ones.
        """
        if isinstance(self.parameters, str):
            return
        unsupported = [f"parameters: {name}" for name in spec.parameters if name not in self.parameters]
        if spec.class_ is not None:
            unsupported.append(f"class: {spec.class_}")
        if unsupported:
            known = ", ".join(self.parameters)
            supported = f"; supported parameters: {known}" if known else ""
            raise ModelFailed(f"{self.title} does not support {', '.join(unsupported)}\nhelp: remove it{supported}")


class Launcher(Protocol):
    """The control-plane side of a runtime: pure, imports no framework."""

    def __call__(self, file: Path, spec: ModelSpec, threads: int) -> Launch:
        """Return how to start a worker for ``file``.

        Raises:
            NotFound: a required package is missing; the message says how to install it.
            Forbidden: loading the file would execute untrusted code.
        """
        ...


class Runtime(Protocol):
    """A loaded model in a worker. Used from one thread."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, before the decision about batching."""
        ...

    @property
    def example(self) -> Batch | None:
        """One or more plausible rows, for the probe and the warm-up; None: generated."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts for operators: at least ``runtime``, the library and its version."""
        ...

    def predict(self, batch: Batch) -> Batch:
        """Run the model once over a batch.

        Args:
            batch: inputs by name; each array has shape ``(n, *item_shape)``, ``1 <= n <= batch_rows_max``, or, without
                batching, the shape in the request. BYTES are object arrays of ``bytes``. The arrays are in shared
                memory and only valid until this returns.

        Returns:
            Outputs by name, each ``(n, ...)``; row *i* answers row *i*.

        Raises:
            InvalidInput: the input is invalid. The client sees the message.
        """
        ...

    def close(self) -> None:
        """Release the model's resources."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """Additional interface of a runtime whose model may return several responses per request."""

    @property
    def streams(self) -> bool:
        """Whether this model streams; :meth:`Runtime.predict` is not called then."""
        ...

    def stream(self, batch: Batch) -> Generator[Batch]:
        """Run the model over one request and yield each response in the form of :meth:`Runtime.predict`.

        Closed early if the caller cancels.
        """
        ...


@runtime_checkable
class Controlled(Protocol):
    """Additional interface of a runtime whose model has inputs that the server fills."""

    @property
    def controls(self) -> Mapping[str, str]:
        """Input names, and what each is filled with: names of ``Control`` in the data plane."""
        ...

    @property
    def sequence(self) -> sequences.Sequence | None:
        """How sequences are served; None: the model has none."""
        ...


@runtime_checkable
class Tabular(Protocol):
    """Additional interface of a runtime whose model takes tables."""

    @property
    def schemas(self) -> Sequence[InputSchema]:
        """Schemas of the inputs; the gateway refuses requests that violate them."""
        ...

    @property
    def ignored_columns(self) -> Sequence[str]:
        """Columns that frames may have and the model does not read; ``*`` matches any."""
        ...


class RuntimeModule(Protocol):
    """The interface of each runtime's module."""

    __name__: str
    TAKES: Takes
    compose: Launcher

    @staticmethod
    def claims(path: Path) -> bool:
        """Whether ``path``, which exists, is a model of this runtime.

        Decides by extension and, if others share it, by the first bytes. Does not read files further; lists folders
        only.
        """
        ...

    @staticmethod
    def load(settings: dict[str, Any]) -> Runtime:
        """Load the model in this process; ``settings`` is :attr:`Launch.load`."""
        ...


def python_launch(runtime: str, platform: str, file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a Python worker with the module ``runtime`` of this package."""
    return Launch(
        platform=platform,
        how="zygote",
        command=[spec.python or sys.executable, *PYTHON_FLAGS, "-m", "inferd.worker.zygote"],
        load={
            "runtime": runtime,
            "file": str(file),
            "class": spec.class_,
            "stage": None,
            "signature": _declared(spec),
            "batching": spec.batching,
            "batch_rows_max": spec.batch_rows_max,
            "repeatable": spec.retry_on_worker_loss,
            "samples": _samples(spec),
            "threads": threads,
            "tolerance": {
                "absolute": spec.batch_tolerance_absolute,
                "relative": spec.batch_tolerance_relative,
            },
            "parameters": spec.parameters,
            "trusted_sha256": spec.trusted_sha256,
        },
    )


def _samples(spec: ModelSpec) -> list[dict[str, Any]]:
    """Return the plain values of the warm-up, ordinary rows for the probe. The data plane reads files itself."""
    if isinstance(spec.warmup, bool):
        return []
    plain = ({name: one.data for name, one in sample.inputs.items() if one.form == "values"} for sample in spec.warmup)
    return [values for values in plain if values]


def _declared(spec: ModelSpec) -> dict[str, Any]:
    return {
        side: None if specs is None else [spec.to_json() for spec in specs]
        for side, specs in (("inputs", spec.inputs), ("outputs", spec.outputs))
    }


def require(module: str, extra: str, spec: ModelSpec) -> None:
    """Refuse to start a worker whose library is missing, unless another interpreter runs it.

    Raises:
        NotFound: the package is missing.
    """
    if spec.python is None and find_spec(module.partition(".")[0]) is None:
        raise NotFound(f"package '{module}' is not installed\nhelp: pip install 'inferd[{extra}]'")


def head(path: Path, count: int = 64) -> bytes:
    """Return the first bytes of a file; empty if unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""
