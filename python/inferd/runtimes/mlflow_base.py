"""The base class of conversions from batches to the input of an MLflow model.

Worker side only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.types import DATATYPES, InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch

__all__ = ["Part", "Rows"]

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


def _synthetic(spec: TensorSpec) -> np.ndarray:
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        found = np.empty(shape, dtype=object)
        found[...] = b"text"
        return found
    return np.zeros(shape, DATATYPES[spec.datatype])
