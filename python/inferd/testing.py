"""Run a model without a server: in this process, with the annotations, checks and stages that a worker uses.

Reads a class or a file, hands on plain values. Knows nothing of HTTP and of batching across requests.

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
    """A model with all its stages loaded in this process. Created by :func:`loaded`."""

    def __init__(self, model_class: type[Model], parameters: dict[str, Any]) -> None:
        # One instance per stage, as in workers: state that hooks keep in self does not reach predict.
        self._stages = [StageRuntime(model_class(), stage, parameters) for stage in stages_of(model_class)]

    @property
    def signature(self) -> Signature:
        """The inputs that clients send and the outputs they receive."""
        inputs = tuple(column.spec for column in self._stages[0].call.inputs)
        return Signature(inputs, self._stages[-1].signature.outputs)

    def predict(self, **inputs: Any) -> Any:
        """Run a batch as a server would.

        Args:
            inputs: by name, in the form that the first stage annotates, all rows together. Where a method takes a
                :class:`~inferd.Context`, its argument may be a list of those; by default it is empty.

        Returns:
            The values of the only output, or a dict by output name.

        Raises:
            InvalidInput: an input without a default is missing, an input is unknown, lengths differ, or the model
                rejected a row.
            ModelFailed: the model returned a type other than annotated.
        """
        first, last = self._stages[0], self._stages[-1]
        if last.streams:
            raise ModelFailed("predict() streams, which loaded() does not support\nhelp: use a server")
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
        # Copy: a model may reuse its output memory for the next request.
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
        raise InvalidInput(f"'{column.name}' does not match the model's annotation: {fault}") from fault


@contextmanager
def loaded(model: type[Model] | str | os.PathLike[str], **parameters: Any) -> Iterator[LoadedModel]:
    """Load a model for the length of the ``with`` block.

    Args:
        model: a class, or the path of the file that defines it.
        parameters: arguments for ``load``.

    Raises:
        ModelFailed: the file defines no model, or it could not be loaded.
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
