"""CatBoost: models saved in its binary format or JSON, which contain no code.

``compose`` reads the model's settings in the control plane; :class:`CatboostBooster` runs the model in a worker. Knows
nothing of batching.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, head, python_launch, require

if TYPE_CHECKING:
    from collections.abc import Collection

    from inferd.runtimes.boosters import Matrix
    from inferd.runtimes.tables import Table
    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "CatboostBooster", "claims", "compose", "load"]

PLATFORM = "catboost"
TAKES = Takes(
    title="CatBoost",
    types="FP64, which the library rounds to FP32; BYTES of texts; FP64 or FP32 of a declared length for embeddings.",
    categories="BYTES; integers as their decimal text, or INT64 if declared. Unknown ones are accepted.",
    missing="Missing numbers follow `nan_mode`; a missing category is refused with row and column.",
    names="Those of the data frame; none of arrays.",
    outputs="FP64 `prediction`, or `label` in the type of the classes, and `probabilities`.",
)

_BINARY = b"CBM1"
_JSON = re.compile(rb'\s*\{\s*"(ctr_data|features_info|model_info|oblivious_trees|scale_and_bias|trees)"')


def claims(path: Path) -> bool:
    """Claims ``.cbm``, ``.cb``; ``.bin``, ``.model`` and ``.json`` files that start like a CatBoost model."""
    if not path.is_file():
        return False
    if path.suffix in (".cbm", ".cb"):
        return True
    if path.suffix in (".bin", ".model"):
        return head(path).startswith(_BINARY)
    return path.suffix == ".json" and _JSON.match(head(path)) is not None


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the model in ``file``."""
    require("catboost", "catboost", spec)
    return python_launch("catboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the model in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, CatboostBooster(settings))


class CatboostBooster:
    """A model.

    Input: ``x`` (FP64, NaN if missing; CatBoost rounds to FP32), or one input per feature if some are categories or
    texts (BYTES) or embeddings. Output: ``label`` and ``probabilities`` (FP64) of classifiers, else ``prediction``
    (FP64) as ``CatBoostRegressor.predict`` returns it.

    Raises:
        ModelFailed: the length of an embedding is neither in the file nor declared.
    """

    kind = "trees"
    refuses_unknown = False

    def __init__(self, settings: dict[str, Any], *, raw: bool = False) -> None:
        import catboost

        file = Path(settings["file"])
        # The regressor applies the formula of the model's loss; with classes it predicts like a classifier.
        self.booster = catboost.CatBoostRegressor()
        self.booster.load_model(str(file), format="cbm" if head(file).startswith(_BINARY) else "json")
        self.facts = {"runtime": f"catboost {catboost.__version__}"}
        self._names = [str(name) for name in self.booster.feature_names_]
        categories, texts, embeddings = (
            list(getattr(self.booster, f"get_{kind}_feature_indices")()) for kind in ("cat", "text", "embedding")
        )
        self._kinds = {"cat_features": categories, "text_features": texts, "embedding_features": embeddings}
        self.countable: Collection[str] = [self._names[index] for index in categories]
        self.table = _table(self.booster, self._names, {*categories, *texts}, embeddings)
        self._lengths = {index: _length(self.table, index, settings) for index in embeddings}
        self._has_classes = not raw and len(self.booster.classes_) > 0
        self._threads = settings["threads"]

    def row(self, table: Table) -> Batch:
        """Return one plausible row."""
        import numpy as np

        embeddings = {table.columns[index].name: np.zeros((1, length)) for index, length in self._lengths.items()}
        return {**table.example(), **embeddings}

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """Return the outputs of ``predict``."""
        import catboost

        if matrix.table.matrix:
            pool = catboost.Pool(matrix.of(batch), thread_count=self._threads)
        else:
            pool = catboost.Pool(self._frame(matrix.table, batch), **self._kinds, thread_count=self._threads)
        if not self._has_classes:
            return {"prediction": self.booster.predict(pool, thread_count=self._threads)}
        label, probabilities = (
            self.booster.predict(pool, prediction_type=kind, thread_count=self._threads)
            for kind in ("Class", "Probability")
        )
        # Labels have shape (n, 1) with more than two classes.
        return {"label": label.reshape(-1) if label.shape[1:] == (1,) else label, "probabilities": probabilities}

    def _frame(self, table: Table, batch: Batch) -> Any:
        """Return the frame with the names that the library checks."""
        import pandas as pd

        from inferd.runtimes.tables import as_texts

        columns: dict[str, Any] = {}
        for index, (name, column) in enumerate(zip(self._names, table.columns, strict=True)):
            values = batch[column.name]
            if index in self._lengths:
                columns[name] = list(values)
            elif column.datatype == "BYTES":
                columns[name] = as_texts(values.reshape(-1), None, column.name)
            else:
                columns[name] = values.reshape(-1)
        return pd.DataFrame(columns)


def _table(booster: Any, names: list[str], texts: Collection[int], embeddings: Collection[int]) -> Table:
    from inferd.runtimes.tables import Column, Table

    # The library rejects missing categories and texts.
    columns = [
        Column(name, "BYTES", missing=False, missing_text=None) if index in texts else Column(name)
        for index, name in enumerate(names)
    ]
    matrix = not texts and not embeddings
    return Table(columns, matrix=matrix, named=not matrix or _named(booster, names))


def _named(booster: Any, names: list[str]) -> bool:
    """Whether the names are the model's own: it rejects frames with others. Numbers are also the default names."""
    import catboost
    import numpy as np
    import pandas as pd

    if names != [str(index) for index in range(len(names))]:
        return True
    try:
        booster.predict(pd.DataFrame(np.zeros((1, len(names))), columns=[f"not {name}" for name in names]))
    except catboost.CatBoostError:
        return True
    return False


def _length(table: Table, index: int, settings: dict[str, Any]) -> int:
    """Return the length of the embedding in column ``index``."""
    from inferd.runtimes.boosters import inputs_by_column
    from inferd.runtimes.signatures import declared

    inputs = declared(settings, "inputs")
    shape = () if inputs is None else inputs_by_column(table, inputs)[index].shape
    if len(shape) != 2 or shape[1] < 1:
        name = table.columns[index].name
        lines = "".join(
            f"\n  - {{name: {spec.name}, datatype: {spec.datatype}, shape: [-1{', 64' if spec.name == name else ''}]}}"
            for spec in table.inputs
        )
        raise ModelFailed(
            f"unknown length of the embeddings in column {name!r}\n"
            f"help: declare it in model.yaml, for instance\ninputs:{lines}"
        )
    return shape[1]
