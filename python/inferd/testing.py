"""Run a model without a server: in this process, through the same annotations, checks and stages as in a worker.

Reads a class or a file, hands on plain values. Knows nothing of HTTP and batching between callers.

>>> from inferd import Model
>>> class Shout(Model):
...     def predict(self, text: list[str]) -> list[str]:
...         return [one.upper() for one in text]
>>> with testing.loaded(Shout) as model:
...     model.predict(text=["quiet"])
['QUIET']
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.python import find_class, import_file
from inferd.sdk.calls import OUTPUT
from inferd.sdk.model import Model
from inferd.sdk.runtime import StageRuntime, stages_of
from inferd.types import Signature
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.sdk.calls import Column

__all__ = ["LoadedModel", "loaded"]


class LoadedModel:
    """A model whose stages are all loaded in this process. Made by :func:`loaded`."""

    def __init__(self, model_class: type[Model], parameters: dict[str, Any]) -> None:
        # An instance for each stage, as in workers: what hooks keep in self does not reach predict.
        self._stages = [StageRuntime(model_class(), stage, parameters) for stage in stages_of(model_class)]

    @property
    def signature(self) -> Signature:
        """What clients send and get."""
        inputs = tuple(column.spec for column in self._stages[0].call.inputs)
        return Signature(inputs, self._stages[-1].signature.outputs)

    def predict(self, **inputs: Any) -> Any:
        """Answer rows as a server would.

        Args:
            inputs: by name, in the form that the first stage's annotations say, all rows together. Where methods take a
                :class:`~inferd.Context`, a list of those may stand under its name; without it nothing came along.

        Returns:
            The values of the only output, or a dict by output name.

        Raises:
            InvalidInput: inputs that have no default are missing, some are unknown or of different lengths, or the
                model refused a row.
            ModelFailed: the model gave something else than was annotated.
        """
        first, last = self._stages[0], self._stages[-1]
        if last.streams:
            raise ModelFailed("predict() streams, and this has one answer\nhelp: ask a server for generate_stream")
        contexts = {stage.call.contexts.name for stage in self._stages if stage.call.contexts} & inputs.keys()
        given = {name: inputs.pop(name) for name in contexts}
        wanted = [column.name for column in first.call.inputs]
        if not set(wanted) - set(first.defaults) <= set(inputs) <= set(wanted):
            raise InvalidInput(f"the inputs are {sorted(inputs)}, but the model takes {wanted}")
        batch: dict[str, Any] = {
            column.name: _encoded(column, inputs[column.name]) for column in first.call.inputs if column.name in inputs
        }
        rows = {len(array) for array in batch.values()} or {1}
        if len(rows) != 1:
            raise InvalidInput(f"inputs of different lengths: {sorted(rows)} rows")
        batch |= {name: row.repeat(max(rows), axis=0) for name, row in first.defaults.items() if name not in batch}
        for stage in self._stages:
            arrays = checked_outputs(stage.predict(batch | given), stage.signature, next(iter(rows)))
            batch = {spec.name: array for spec, array in zip(stage.signature.outputs, arrays, strict=True)}
        # Copies: a model may give the same memory for the next request.
        values = {column.name: column.codec.decode(batch[column.name].copy()) for column in last.call.outputs}
        return values[OUTPUT] if list(values) == [OUTPUT] else values

    def close(self) -> None:
        """Close every stage."""
        for stage in self._stages:
            stage.close()


def _encoded(column: Column, values: Any) -> Any:
    try:
        return column.codec.encode(values)
    except (TypeError, ValueError) as fault:
        raise InvalidInput(f"'{column.name}' is not what the model takes: {fault}") from fault


@contextmanager
def loaded(model: type[Model] | str | os.PathLike[str], **parameters: Any) -> Iterator[LoadedModel]:
    """A model, ready to be asked, until the ``with`` block ends.

    Args:
        model: a class, or the file that it is in.
        parameters: arguments for ``load``.

    Raises:
        ModelFailed: there is no model in the file, or it could not be loaded.
    """
    if isinstance(model, str | os.PathLike):
        file = Path(model)
        found: Any = find_class(file, import_file(file), None)
        if not issubclass(found, Model):
            raise ModelFailed(f"class '{found.__name__}' in '{file.name}' is not derived from inferd.Model")
        model = found
    one = LoadedModel(model, parameters)  # type: ignore[arg-type]
    try:
        yield one
    finally:
        one.close()
