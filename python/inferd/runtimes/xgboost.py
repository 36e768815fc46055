"""XGBoost: boosters saved as JSON or UBJSON, which contain no code.

``compose`` reads the model's settings in the control plane; :class:`XgboostBooster` runs the booster in a worker. If
ONNX gives the same answers faster, :mod:`inferd.runtimes.faster` replaces it. Knows nothing of batching.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from inferd.runtimes.base import Batch, Launch, Runtime, Takes, head, python_launch, require

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from inferd.runtimes.boosters import Matrix
    from inferd.runtimes.tables import Table
    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "XgboostBooster", "claims", "compose", "load"]

PLATFORM = "xgboost"
TAKES = Takes(
    title="XGBoost",
    types="FP64, which the library rounds to FP32; INT64 of integer categories beyond 2⁵³.",
    categories="Their texts or numbers if the file has them, else their codes; unknown ones are refused.",
    missing="Missing numbers and categories are accepted.",
    names="Those of the data frame; none of arrays.",
    outputs="FP32 `prediction` as `Booster.predict` returns it.",
)


def claims(path: Path) -> bool:
    """Claims ``.ubj`` files, and ``.json``, ``.xgb``, ``.bst`` and ``.model`` files that start like a booster."""
    if not path.is_file():
        return False
    if path.suffix == ".ubj":
        return True
    if path.suffix not in (".json", ".xgb", ".bst", ".model"):
        return False
    begin = head(path, 256)
    # JSON or UBJSON: an object whose first key, or second after the version, is "learner".
    return bool(re.match(rb'\s*\{\s*("version"\s*:\s*\[[^\]]*\]\s*,\s*)?"learner"', begin)) or (
        begin.startswith(b"{L") and b"learner" in begin
    )


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the booster in ``file``."""
    require("xgboost", "xgboost", spec)
    return python_launch("xgboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the booster in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, XgboostBooster(settings))


class XgboostBooster:
    """A booster.

    Input: ``x`` (FP64, NaN if missing; XGBoost rounds to FP32), or one input per column if it was trained on text
    categories that the file contains. Output: ``prediction`` (FP32) as ``Booster.predict`` returns it: the probability
    of class 1 for ``binary:logistic``, of each class for ``multi:softprob``.
    """

    countable: Collection[str] = ()
    refuses_unknown = True

    def __init__(self, settings: dict[str, Any]) -> None:
        import xgboost

        self.booster = xgboost.Booster({"nthread": settings["threads"]})
        self.booster.load_model(settings["file"])
        self.facts = {"runtime": f"xgboost {xgboost.__version__}"}
        self.table = _table(self.booster, self.facts)
        self._threads = settings["threads"]
        # inplace_predict does not support linear boosters.
        self._linear = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"
        self.kind = "linear models" if self._linear else "trees"
        # After early stopping, later trees are ignored, as in XGBoost's own estimators.
        best = self.booster.attr("best_iteration")
        self._trees = (0, int(best) + 1) if best is not None else (0, 0)

    def row(self, table: Table) -> Batch:
        """Return one plausible row."""
        return table.example()

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """Return the outputs of ``Booster.predict``."""
        import xgboost

        x = matrix.of(batch)
        if self._linear:
            rows = xgboost.DMatrix(x, nthread=self._threads)
            return {"prediction": self.booster.predict(rows, validate_features=False)}
        return {"prediction": self.booster.inplace_predict(x, iteration_range=self._trees)}


def _table(booster: Any, facts: dict[str, str]) -> Table:
    from inferd.runtimes.boosters import category_column, shortened, table_of
    from inferd.runtimes.tables import Column

    names = booster.feature_names or [f"f{index}" for index in range(booster.num_features())]
    categories = _categories(booster)
    columns = [
        category_column(name, categories[index]) if index in categories else Column(name)
        for index, name in enumerate(names)
    ]
    types = booster.feature_types or []
    coded = [name for index, name in enumerate(names) if types[index : index + 1] == ["c"] and index not in categories]
    if coded:
        facts["note"] = (
            f"categories in {shortened(coded)} are expected as codes: the file does not contain their values"
            " (XGBoost 3.1 and later saves those of data frames, and only plain ASCII texts completely)"
        )
    return table_of(columns, named=booster.feature_names is not None)


def _categories(booster: Any) -> dict[int, list[Any]]:
    """Return the categories of each column for which the file has them, in the order of their codes."""
    if "c" not in (booster.feature_types or []):
        return {}
    text = bytes(booster.save_raw("json")).decode()
    # ``Booster.get_categories`` needs pyarrow. Quotes in JSON strings are escaped, so this can only be the key.
    _, key, rest = text.partition('"cats":')
    encoded = json.JSONDecoder().raw_decode(rest)[0]["enc"] if key else []
    found = {index: _values(column) for index, column in enumerate(encoded)}
    return {index: values for index, values in found.items() if values}


def _values(column: dict[str, Any]) -> list[Any]:
    """Return the values of one encoded column: integers, or texts as bytes with end offsets."""
    if "offsets" not in column:
        return list(column["values"])
    # XGBoost 3.1 counts characters instead of bytes in non-ASCII texts: the file has them truncated.
    if any(byte < 0 for byte in column["values"]):
        return []
    text = bytes(column["values"]).decode()
    return [text[start:end] for start, end in pairwise(column["offsets"])]
