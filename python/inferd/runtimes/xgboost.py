"""XGBoost: boosters saved in its own JSON or UBJSON, which hold no code.

``compose`` reads the model's settings in the control plane; :class:`XgboostBooster` runs the booster in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
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
    categories="Their texts or numbers where the file has them, else their codes; unknown ones are refused.",
    missing="A missing number or category is taken as missing.",
    names="Those of the data frame; none of arrays.",
    outputs="FP32 `prediction` as `Booster.predict` gives it.",
)


def claims(path: Path) -> bool:
    """``.ubj`` files; ``.json``, ``.xgb``, ``.bst`` and ``.model`` files that begin like a booster."""
    if not path.is_file():
        return False
    if path.suffix == ".ubj":
        return True
    if path.suffix not in (".json", ".xgb", ".bst", ".model"):
        return False
    begin = head(path, 256)
    # JSON in text, or UBJSON: an object whose first key is "learner", or the second after the version.
    return bool(re.match(rb'\s*\{\s*("version"\s*:\s*\[[^\]]*\]\s*,\s*)?"learner"', begin)) or (
        begin.startswith(b"{L") and b"learner" in begin
    )


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the booster in ``file`` is started."""
    require("xgboost", "xgboost", spec)
    return python_launch("xgboost", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The booster, in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, XgboostBooster(settings))


class XgboostBooster:
    """A booster.

    Takes ``x`` (FP64, NaN where a value is missing; XGBoost rounds to FP32); or, where it was trained on categories
    that are text and the file has them, an input for each column. Gives ``prediction`` (FP32): what ``Booster.predict``
    gives, which is the probability of class 1 for ``binary:logistic`` and one of each class for ``multi:softprob``.
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
        # Linear boosters don't predict on arrays in place.
        self._linear = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"
        self.kind = "linear models" if self._linear else "trees"
        # After early stopping the trees past the best are left out, as XGBoost's own estimators do.
        best = self.booster.attr("best_iteration")
        self._trees = (0, int(best) + 1) if best is not None else (0, 0)

    def row(self, table: Table) -> Batch:
        """One row of plausible inputs."""
        return table.example()

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """What ``Booster.predict`` gives."""
        import xgboost

        x = matrix.of(batch)
        if self._linear:
            rows = xgboost.DMatrix(x, nthread=self._threads)
            return {"prediction": self.booster.predict(rows, validate_features=False)}
        return {"prediction": self.booster.inplace_predict(x, iteration_range=self._trees)}


def _table(booster: Any, facts: dict[str, str]) -> Table:
    from inferd.runtimes.boosters import category_column, listed, table_of
    from inferd.runtimes.tables import Column

    names = booster.feature_names or [f"f{place}" for place in range(booster.num_features())]
    categories = _categories(booster)
    columns = [
        category_column(name, categories[place]) if place in categories else Column(name)
        for place, name in enumerate(names)
    ]
    types = booster.feature_types or []
    coded = [name for place, name in enumerate(names) if types[place : place + 1] == ["c"] and place not in categories]
    if coded:
        facts["note"] = (
            f"categories in {listed(coded)} are taken by their codes: the file does not have their values"
            " (XGBoost 3.1 and later saves those of data frames, and only plain ASCII texts whole)"
        )
    return table_of(columns, named=booster.feature_names is not None)


def _categories(booster: Any) -> dict[int, list[Any]]:
    """The categories of each column whose values the file has, in the order of their codes."""
    if "c" not in (booster.feature_types or []):
        return {}
    text = bytes(booster.save_raw("json")).decode()
    # ``Booster.get_categories`` needs pyarrow. Inside of JSON's strings quotes are escaped, so that this is the key.
    _, key, rest = text.partition('"cats":')
    encoded = json.JSONDecoder().raw_decode(rest)[0]["enc"] if key else []
    found = {place: _values(column) for place, column in enumerate(encoded)}
    return {place: values for place, values in found.items() if values}


def _values(column: dict[str, Any]) -> list[Any]:
    """The values of one encoded column: integers, or texts as their bytes and where each of them ends."""
    if "offsets" not in column:
        return list(column["values"])
    # Of texts that aren't ASCII XGBoost 3.1 counts characters instead of bytes: what is in the file is cut.
    if any(byte < 0 for byte in column["values"]):
        return []
    text = bytes(column["values"]).decode()
    return [text[start:end] for start, end in pairwise(column["offsets"])]
