"""Models that are a Python class: :class:`inferd.Model`, typed by its annotations, or any class of arrays.

``compose`` reads the model's settings in the control plane; ``load`` instantiates the class in the worker, from the
file that the operator named. Knows nothing of shared memory: arrays in, arrays out.

A class of arrays::

    from inferd import TensorSpec

    class Scaler:
        inputs = [TensorSpec("x", "FP32", (-1, 30))]
        outputs = [TensorSpec("y", "FP32", (-1, 30))]

        def load(self):
            self.factor = ...

        def predict(self, batch):
            return {"y": batch["x"] * self.factor}

Its arrays are copies. With ``zero_copy = True`` they are read-only views, whose memory is reused once ``predict`` has
returned.

The optional attributes ``schemas`` and ``ignored_columns`` constrain the inputs of a tabular model: column names of a
matrix, missing values, greatest magnitude. The gateway enforces them. Missing text is ``None`` in the arrays, missing
numbers are NaN::

    schemas = [InputSchema("x", columns=("age", "income"), missing=False)]
    ignored_columns = ["id"]
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, python_launch
from inferd.runtimes.sources import import_source, module_folders, prefer_modules_of
from inferd.sdk.arrays import copy_or_view
from inferd.sdk.constants import constants_of
from inferd.sdk.streams import is_generator, iterate
from inferd.types import InputSchema, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Generator

    from inferd.spec.settings import ModelSpec

__all__ = [
    "TAKES",
    "PythonRuntime",
    "claims",
    "compose",
    "find_class",
    "import_file",
    "lacking_methods",
    "load",
    "no_class_named",
    "no_such_model",
]

PLATFORM = "python"
TAKES = Takes(
    title="Python",
    types="Annotations of the method, or `inputs` of a class of arrays; every type of the protocol. BF16 are"
    " arrays of UINT16 that hold its bits.",
    categories="Up to the class: texts and integers.",
    missing="NaN in an array is NaN. Missing values are `None` where annotated (`list[str |"
    " None]`); else they are refused with their row.",
    names="Those of the method's arguments, or of `inputs`.",
    outputs="Keys of the returned dictionary, else `output`; typed by the annotation, `outputs`, or a run on"
    " the example.",
    parameters="Arguments of `load()`.",
)


def claims(path: Path) -> bool:
    """Claims ``.py`` files."""
    return path.is_file() and path.suffix == ".py"


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the Python model ``file``."""
    return python_launch("python", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load an instance of the class in this process.

    Raises:
        ModelFailed: there is no such class, or it lacks a method.
    """
    from inferd.runtimes.triton import TritonRuntime, is_triton
    from inferd.sdk.model import Model
    from inferd.sdk.runtime import StageRuntime

    if is_triton(settings):
        model = TritonRuntime(settings)
        # The model's own statement about batching is the default.
        settings.update(model.completed(settings))
        return model
    file = Path(settings["file"])
    model_class = find_class(file, import_file(file, settings.get("kept")), settings["class"])
    if issubclass(model_class, Model) and not hasattr(model_class, "inputs"):
        return StageRuntime(model_class(), settings["stage"] or "predict", settings["parameters"])
    return PythonRuntime(settings, model_class)


class PythonRuntime:
    """An instance of a class of arrays that declares its inputs and outputs.

    Args:
        settings: ``load`` as returned by :func:`compose`.
        model_class: the class.

    Raises:
        ModelFailed: inputs or outputs are not declared.
    """

    def __init__(self, settings: dict[str, Any], model_class: Any) -> None:
        self.signature = _signature(Path(settings["file"]), model_class, settings["signature"])
        self.facts = {"runtime": f"python {platform.python_version()}"}
        self._model = model_class()
        self._model.load(**settings["parameters"])
        # After load, which may set it.
        self.example: Batch | None = getattr(self._model, "example", None)
        self.constants = constants_of(self._model)
        self.schemas = tuple(_schema(schema) for schema in getattr(self._model, "schemas", ()))
        self.ignored_columns = tuple(getattr(self._model, "ignored_columns", ()))
        self.streams = is_generator(self._model.predict)
        self._zero_copy = bool(getattr(self._model, "zero_copy", False))

    def predict(self, batch: Batch) -> Batch:
        """Run the model once over a batch."""
        return _checked(self._model.predict(self._prepare(batch)), "returned")

    def stream(self, batch: Batch) -> Generator[Batch]:
        """Run a generator ``predict``."""
        with iterate(self._model.predict(self._prepare(batch))) as responses:
            for outputs in responses:
                yield _checked(outputs, "yielded")

    def _prepare(self, batch: Batch) -> Batch:
        return {name: copy_or_view(array, zero_copy=self._zero_copy) for name, array in batch.items()}

    def close(self) -> None:
        """Call the class's ``close``, if any."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


def _checked(outputs: Any, how: str) -> Batch:
    if not isinstance(outputs, dict):
        raise ModelFailed(f"predict() {how} {type(outputs).__name__}, not a dict of arrays by output name")
    return outputs


def import_file(file: Path, kept: dict[str, Any] | None = None) -> Any:
    """Import the module in ``file``. It can import its siblings, as when run as a script."""
    folders = module_folders(file)
    for folder in folders:
        prefer_modules_of(folder)
    return import_source("inferd_model", file, *folders, kept=kept)


def find_class(file: Path, module: Any, name: str | None) -> Any:
    """Return the class named ``name``, or the only model class in ``module``.

    Raises:
        ModelFailed: there is none, or there are several.
    """
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    if name is not None:
        if name not in classes:
            raise no_class_named(file, name, list(classes))
        candidates = [name]
    else:
        own = {key: value for key, value in classes.items() if value.__module__ == module.__name__}
        candidates = [key for key, value in own.items() if _is_model(value)]
    if len(candidates) != 1:
        raise no_such_model(file, candidates)
    if not _is_model(classes[candidates[0]]):
        raise lacking_methods(file, candidates[0])
    return classes[candidates[0]]


def no_class_named(file: Path, name: str, classes: list[str]) -> ModelFailed:
    """Return the error for ``class:`` naming none of the ``classes`` in ``file``."""
    return ModelFailed(f"'{file.name}' has no class '{name}'\nhelp: set class: to one of {sorted(classes)}")


def no_such_model(file: Path, candidates: list[str]) -> ModelFailed:
    """Return the error for a file with no model class, or with several ``candidates``."""
    found = (
        f"{len(candidates)} classes with load() and predict(): {sorted(candidates)}"
        if candidates
        else "no class with load() and predict()"
    )
    return ModelFailed(f"'{file.name}' has {found}\nhelp: define one, or name it with class: in model.yaml")


def lacking_methods(file: Path, name: str) -> ModelFailed:
    """Return the error for a named class that is no model."""
    return ModelFailed(f"class '{name}' in '{file.name}' lacks load() or predict()")


def _is_model(candidate: type) -> bool:
    return all(callable(getattr(candidate, method, None)) for method in ("load", "predict"))


def _signature(file: Path, model_class: Any, declared: dict[str, Any]) -> Signature:
    sides = {}
    for side in ("inputs", "outputs"):
        specs = declared[side] or getattr(model_class, side, None)
        if not specs:
            raise ModelFailed(
                f"'{file.name}' declares no {side}\n"
                f'help: add {side} = [TensorSpec("x", "FP32", (-1, 30))] to the class, or {side}: to model.yaml'
            )
        sides[side] = tuple(_tensor(spec) for spec in specs)
    return Signature(sides["inputs"], sides["outputs"])


def _schema(schema: Any) -> InputSchema:
    if not isinstance(schema, InputSchema):
        raise ModelFailed(
            f"{schema!r} in schemas is not an InputSchema\n"
            'help: write schemas = [InputSchema("x", columns=("age", "income"), missing=False)]'
        )
    return schema


def _tensor(spec: Any) -> TensorSpec:
    try:
        if isinstance(spec, TensorSpec):
            return spec
        return TensorSpec(**spec) if isinstance(spec, dict) else TensorSpec(*spec)
    except (TypeError, InvalidInput) as fault:
        raise ModelFailed(f"{spec!r} is not a tensor specification: {fault}") from None
