"""What a runtime is, to the control plane and inside a worker.

Read by :mod:`inferd.control` (:class:`Launch`, :class:`Launcher`) and :mod:`inferd.worker` (:class:`Runtime`).
Knows nothing of any framework.
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
    "in_python",
    "require",
]

UNUSABLE = "the model can't use inputs of these shapes or values"
"""What a client is told of a library's error: its own text may hold data of another request or a path."""

PYTHON_FLAGS = ("-P",)
"""How an interpreter is started that runs a model: it finds what a script finds that it runs (``PYTHONPATH``, the
user's site-packages, ``.pth`` files), and nothing in the folder that the server happened to be started in."""

Batch = dict[str, Any]
"""Arrays by name. Every array has shape ``(n, *item_shape)`` where the model is batched."""


class Launch(NamedTuple):
    """How a worker is started, as the data plane reads it."""

    platform: str
    """What ``platform`` says in the model's metadata."""
    how: str
    """``exec`` for a program of its own, ``zygote`` for a fork of the process that ``command`` starts."""
    command: list[str]
    load: dict[str, Any]
    """What the worker needs to load the model; opaque to the data plane."""


class Takes(NamedTuple):
    """How a runtime takes what clients send, in sentences: ``docs/reference/runtimes.md`` is made of them."""

    title: str
    """What the library is called."""
    types: str
    """Of inputs, and what is widened or refused."""
    categories: str
    missing: str
    """Missing values."""
    names: str
    """Of inputs and of columns."""
    outputs: str
    """Their names and types, and what is left out."""
    parameters: Mapping[str, str] | str = MappingProxyType({})
    """What ``parameters:`` of the model's settings may have, each with its meaning; other names end the load. A
    sentence: the model says which."""

    def check(self, spec: ModelSpec) -> None:
        """Refuse settings that the runtime does not read.

        Raises:
            ModelFailed: with those that it reads.
        """
        if isinstance(self.parameters, str):
            return
        unread = [f"parameters: {name}" for name in spec.parameters if name not in self.parameters]
        if spec.class_ is not None:
            unread.append(f"class: {spec.class_}")
        if unread:
            known = ", ".join(self.parameters)
            reads = f"; parameters that it reads are {known}" if known else ""
            raise ModelFailed(f"a model of {self.title} does not read {', '.join(unread)}\nhelp: take it away{reads}")


class Launcher(Protocol):
    """The control plane's side of a runtime: pure, imports no framework."""

    def __call__(self, file: Path, spec: ModelSpec, threads: int) -> Launch:
        """How a worker for ``file`` is started.

        Raises:
            NotFound: what the worker needs is not installed; the message says how to install it.
            Forbidden: loading the file would run code that nobody vouched for.
        """
        ...


class Runtime(Protocol):
    """A model inside its worker. Made by loading; used from one thread."""

    @property
    def signature(self) -> Signature:
        """What the model takes and gives, before it is known whether it may be batched."""
        ...

    @property
    def example(self) -> Batch | None:
        """One row or more of plausible inputs, for the probe and the warm-up; None: made up."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What an operator wants to know: at least ``runtime``, the library and its version."""
        ...

    def predict(self, batch: Batch) -> Batch:
        """Run the model once over a whole batch.

        Args:
            batch: inputs by name; each array has shape ``(n, *item_shape)``, ``1 <= n <= batch_rows_max``, or, for a
                model that is not batched, the shape that the request had. BYTES are object arrays of ``bytes``.
                The arrays lie in shared memory and are only valid until this returns.

        Returns:
            Outputs by name, each ``(n, ...)``; row *i* answers row *i*.

        Raises:
            InvalidInput: the input is unusable. The client reads the message.
        """
        ...

    def close(self) -> None:
        """Give up what the model holds."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """What a runtime has besides where its model may give many responses to one request."""

    @property
    def streams(self) -> bool:
        """Whether this model does; its :meth:`Runtime.predict` is not called then."""
        ...

    def stream(self, batch: Batch) -> Generator[Batch]:
        """Run the model over one request, and yield each response as :meth:`Runtime.predict` would return it.

        Closed before its end where nobody wants more.
        """
        ...


@runtime_checkable
class Controlled(Protocol):
    """What a runtime has besides where the server fills inputs of its model that no client sends."""

    @property
    def controls(self) -> Mapping[str, str]:
        """Inputs of the signature, and what each is filled with: the names of ``Control`` in the data plane."""
        ...

    @property
    def sequence(self) -> sequences.Sequence | None:
        """How the model wants sequences to be answered; None: it answers none."""
        ...


@runtime_checkable
class Tabular(Protocol):
    """What a runtime has besides where its model takes tables."""

    @property
    def schemas(self) -> Sequence[InputSchema]:
        """What is known of the inputs beside their types: the gateway holds requests to it."""
        ...

    @property
    def ignored_columns(self) -> Sequence[str]:
        """Columns that the model does not read and that frames of clients may have; ``*`` stands for any."""
        ...


class RuntimeModule(Protocol):
    """The shape of every file beside this one that runs models in Python."""

    __name__: str
    TAKES: Takes
    compose: Launcher

    @staticmethod
    def claims(path: Path) -> bool:
        """Whether ``path``, which exists, is a model of this kind.

        By its ending, and where others share that, by its first bytes. Files are not read further, folders are only
        looked into.
        """
        ...

    @staticmethod
    def load(settings: dict[str, Any]) -> Runtime:
        """The model, loaded in this process; ``settings`` is :attr:`Launch.load`."""
        ...


def in_python(runtime: str, platform: str, file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker is started that runs the model in Python, by the file ``runtime`` of this package."""
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
    """The plain values of its warm-up, which are ordinary rows to the probe. Files are the data plane's."""
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
    """Refuse to start a worker whose library is missing. Another interpreter's libraries are its own affair.

    Raises:
        NotFound: with the remedy.
    """
    if spec.python is None and find_spec(module.partition(".")[0]) is None:
        raise NotFound(f"it needs the package '{module}', which is not installed\nhelp: pip install 'inferd[{extra}]'")


def head(path: Path, count: int = 64) -> bytes:
    """The first bytes of a file; none of what can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""
