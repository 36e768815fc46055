"""CatBoost: models saved in its own binary form or JSON, which hold no code.

``compose`` reads the model's settings in the control plane; :class:`CatboostBooster` runs the model in a worker.
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
    categories="BYTES; integers as their decimal text, or INT64 where declared. Unknown ones are taken.",
    missing="A missing number is taken by `nan_mode`; a missing category is refused with row and column.",
    names="Those of the data frame; none of arrays.",
    outputs="FP64 `prediction`, or `label` in the type of the classes, and `probabilities`.",
)

_BINARY = b"CBM1"
_JSON = re.compile(rb'\s*\{\s*"(ctr_data|features_info|model_info|oblivious_trees|scale_and_bias|trees)"')


def claims(path: Path) -> bool:
    """``.cbm`` and ``.cb`` files; ``.bin``, ``.model`` and ``.json`` files that begin like a model of CatBoost."""
    if not path.is_file():
        return False
    if path.suffix in (".cbm", ".cb"):
        return True
    if path.suffix in (".bin", ".model"):
        return head(path).startswith(_BINARY)
    return path.suffix == ".json" and _JSON.match(head(path)) is not None


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the model in ``file`` is started."""
    require("catboost", "catboost", spec)
    return python_launch("catboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The model, in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, CatboostBooster(settings))


class CatboostBooster:
    """A model.

    Takes ``x`` (FP64, NaN where a value is missing; CatBoost rounds to FP32), or one input for each feature where some
    are categories or texts (BYTES) or embeddings. Gives ``label`` and ``probabilities`` (FP64) of models with classes,
    ``prediction`` (FP64) of the others: what ``CatBoostRegressor.predict`` gives.

    Raises:
        ModelFailed: the model has embeddings, whose length the file does not tell and the settings don't either.
    """

    kind = "trees"
    refuses_unknown = False

    def __init__(self, settings: dict[str, Any], *, raw: bool = False) -> None:
        import catboost

        file = Path(settings["file"])
        # It knows which formula its loss asks for; of models with classes it gives what a classifier does.
        self.booster = catboost.CatBoostRegressor()
        self.booster.load_model(str(file), format="cbm" if head(file).startswith(_BINARY) else "json")
        self.facts = {"runtime": f"catboost {catboost.__version__}"}
        self._names = [str(name) for name in self.booster.feature_names_]
        categories, texts, embeddings = (
            list(getattr(self.booster, f"get_{kind}_feature_indices")()) for kind in ("cat", "text", "embedding")
        )
        self._kinds = {"cat_features": categories, "text_features": texts, "embedding_features": embeddings}
        self.countable: Collection[str] = [self._names[place] for place in categories]
        self.table = _table(self.booster, self._names, {*categories, *texts}, embeddings)
        self._lengths = {place: _length(self.table, place, settings) for place in embeddings}
        self._has_classes = not raw and len(self.booster.classes_) > 0
        self._threads = settings["threads"]

    def row(self, table: Table) -> Batch:
        """One row of plausible inputs."""
        import numpy as np

        embeddings = {table.columns[place].name: np.zeros((1, length)) for place, length in self._lengths.items()}
        return {**table.example(), **embeddings}

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """What ``predict`` gives."""
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
        # One label for each row is a column where there are more than two classes.
        return {"label": label.reshape(-1) if label.shape[1:] == (1,) else label, "probabilities": probabilities}

    def _frame(self, table: Table, batch: Batch) -> Any:
        """The rows under the names that the library checks."""
        import pandas as pd

        from inferd.runtimes.tables import decode_texts

        columns: dict[str, Any] = {}
        for place, (name, column) in enumerate(zip(self._names, table.columns, strict=True)):
            values = batch[column.name]
            if place in self._lengths:
                columns[name] = list(values)
            elif column.datatype == "BYTES":
                columns[name] = decode_texts(values.reshape(-1), None, column.name)
            else:
                columns[name] = values.reshape(-1)
        return pd.DataFrame(columns)


def _table(booster: Any, names: list[str], texts: Collection[int], embeddings: Collection[int]) -> Table:
    from inferd.runtimes.tables import Column, Table

    # The library refuses what is missing among categories and texts.
    columns = [
        Column(name, "BYTES", missing=False, missing_text=None) if place in texts else Column(name)
        for place, name in enumerate(names)
    ]
    matrix = not texts and not embeddings
    return Table(columns, matrix=matrix, named=not matrix or _named(booster, names))


def _named(booster: Any, names: list[str]) -> bool:
    """Whether the names are the model's own: it takes no frame with others. Numbers are also those of none."""
    import catboost
    import numpy as np
    import pandas as pd

    if names != [str(place) for place in range(len(names))]:
        return True
    try:
        booster.predict(pd.DataFrame(np.zeros((1, len(names))), columns=[f"not {name}" for name in names]))
    except catboost.CatBoostError:
        return True
    return False


def _length(table: Table, place: int, settings: dict[str, Any]) -> int:
    """The length of the embedding in column ``place``."""
    from inferd.runtimes.boosters import by_column
    from inferd.runtimes.signatures import declared

    inputs = declared(settings, "inputs")
    shape = () if inputs is None else by_column(table, inputs)[place].shape
    if len(shape) != 2 or shape[1] < 1:
        name = table.columns[place].name
        lines = "".join(
            f"\n  - {{name: {spec.name}, datatype: {spec.datatype}, shape: [-1{', 64' if spec.name == name else ''}]}}"
            for spec in table.inputs
        )
        raise ModelFailed(
            f"the file does not tell the length of the embeddings in column {name!r}\n"
            f"help: write it in model.yaml, for instance\ninputs:{lines}"
        )
    return shape[1]
