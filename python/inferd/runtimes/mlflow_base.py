"""What rows are to a model of MLflow, whatever its signature says.

Reads nothing, hands on the base of ``mlflow_rows`` and ``mlflow_columns``. Worker side only.
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
"""Places of rows in their batch (None: all of them, in order), and what the model gets of them."""


class Rows:
    """How rows come in and are handed on."""

    inputs: Sequence[TensorSpec] = ()
    schemas: Sequence[InputSchema] = ()
    defaults: Mapping[str, np.ndarray] = {}
    """What a row of an input is where a request leaves it out."""
    facts: Mapping[str, str] = {}
    ignored: Sequence[str] = ()
    """Columns that frames of clients may have besides."""

    def of(self, batch: Batch) -> Any:
        """What the model gets. Nothing of it is the batch's own memory."""
        raise NotImplementedError

    def parts(self, batch: Batch) -> list[Part]:
        """The same, in parts that the model gets one after the other."""
        return [(None, self.of(batch))]

    def example(self, folder: Path, saved: Mapping[str, Any]) -> Batch:  # noqa: ARG002 (not all of them read it)
        """Plausible rows.

        Args:
            folder: the model's.
            saved: what ``MLmodel`` says of the input example that the model was logged with.
        """
        return {spec.name: _made_up(spec) for spec in self.inputs}


def _made_up(spec: TensorSpec) -> np.ndarray:
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if spec.datatype == "BYTES":
        found = np.empty(shape, dtype=object)
        found[...] = b"text"
        return found
    return np.zeros(shape, DATATYPES[spec.datatype])
