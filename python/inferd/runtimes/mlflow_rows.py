"""Convert batches to the input that MLflow passes to a model.

Reads a signature, hands on the inputs that clients see, and each batch as MLflow's enforcement of that signature
converts it. Worker side only. Knows nothing of the model; columns are in ``mlflow_columns``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.runtimes.signatures import datatype_of, declared
from inferd.runtimes.tables import MATRIX, as_texts
from inferd.types import DATATYPES, InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch, Runtime
    from inferd.runtimes.mlflow_folder import Signed, Tensor

__all__ = ["Part", "Rows", "rows_of"]


Part = tuple["np.ndarray | None", Any]
"""Indices of rows in their batch (None: all, in order), and the model's input for them."""


class Rows:
    """The inputs of a model and their conversion."""

    inputs: Sequence[TensorSpec] = ()
    schemas: Sequence[InputSchema] = ()
    defaults: Mapping[str, np.ndarray] = {}
    """Value of a row of an optional input that a request omits."""
    facts: Mapping[str, str] = {}
    ignored: Sequence[str] = ()
    """Further columns that data frames may have."""

    def of(self, batch: Batch) -> Any:
        """Convert a batch; copies its memory."""
        raise NotImplementedError

    def parts(self, batch: Batch) -> list[Part]:
        """Convert a batch in parts that the model gets one after the other."""
        return [(None, self.of(batch))]

    def example(self, folder: Path, saved: Mapping[str, Any]) -> Batch:  # noqa: ARG002 (not all of them read it)
        """Return plausible rows.

        Args:
            folder: the model's.
            saved: the entry of ``MLmodel`` for the input example that the model was logged with.
        """
        return {spec.name: _synthetic(spec) for spec in self.inputs}


def rows_of(signed: Signed, settings: dict[str, Any], native: Runtime | None) -> Rows:
    """Return the model's rows, by the settings, else its signature, else its own file.

    Raises:
        ModelFailed: none of them describes the inputs.
    """
    from inferd.runtimes.mlflow_columns import Columns

    inputs = declared(settings, "inputs")
    if inputs is not None:
        return _Declared(inputs)
    if signed.columns:
        return Columns(signed.columns, native)
    if signed.tensors:
        return _Tensors(signed.tensors)
    if native is not None:
        return _Native(native)
    raise ModelFailed(
        "the model was logged without a signature\n"
        "help: log it with mlflow.models.infer_signature, or set inputs: in model.yaml"
    )


class _Tensors(Rows):
    """Arrays: a single unnamed one, or a dict by name."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self.inputs = tuple(
            TensorSpec(MATRIX if one.name is None else one.name, datatype_of(one.dtype), one.shape) for one in tensors
        )

    def of(self, batch: Batch) -> Any:
        """Return the array, or the arrays by name."""
        pairs = zip(self.inputs, self._tensors, strict=True)
        arrays = {spec.name: _array(one, batch[spec.name]) for spec, one in pairs}
        return arrays[self.inputs[0].name] if self._tensors[0].name is None else arrays


def _array(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "S":
        return np.array(values.tolist(), dtype="S")
    if values.dtype != object:
        return values.copy()
    texts = as_texts(values, None, tensor.name)
    return texts if dtype.kind == "O" else np.array(texts.tolist(), dtype="U")


class _Declared(Rows):
    """Inputs of ``model.yaml``: a frame if all are columns, else arrays."""

    facts: Mapping[str, str] = {"signature": "inputs are those of model.yaml"}

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        self.inputs = tuple(inputs)
        self._columns = all(len(spec.shape) == 1 for spec in inputs)

    def of(self, batch: Batch) -> Any:
        """Return the data frame, the only array, or the arrays by name."""
        import pandas as pd

        arrays = {spec.name: _plain(spec.name, batch[spec.name]) for spec in self.inputs}
        if self._columns:
            return pd.DataFrame({name: pd.Series(values) for name, values in arrays.items()})
        return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _plain(name: str, values: np.ndarray) -> np.ndarray:
    return as_texts(values, None, name) if values.dtype == object else values.copy()


class _Native(Rows):
    """The inputs of a library's own runtime, which takes the batch itself."""

    def __init__(self, native: Runtime) -> None:
        self._native = native
        self.inputs = native.signature.inputs
        self.schemas = getattr(native, "schemas", ())
        self.ignored = getattr(native, "ignored_columns", ())

    def of(self, batch: Batch) -> Any:
        """Return the batch."""
        return batch

    def example(self, folder: Path, saved: Mapping[str, Any]) -> Batch:
        """Return the library's example, or a generated one."""
        return self._native.example or super().example(folder, saved)


def _synthetic(spec: TensorSpec) -> np.ndarray:
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        found = np.empty(shape, dtype=object)
        found[...] = b"text"
        return found
    return np.zeros(shape, DATATYPES[spec.datatype])
