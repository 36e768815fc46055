"""LightGBM: boosters saved as text, which contains no code.

``compose`` reads the model's settings in the control plane; :class:`LightgbmBooster` runs the booster in a worker. If
ONNX gives the same answers faster, :mod:`inferd.runtimes.faster` replaces it. Knows nothing of batching.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, Takes, head, python_launch, require

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from inferd.runtimes.boosters import Matrix
    from inferd.runtimes.tables import Table
    from inferd.spec.settings import ModelSpec

__all__ = ["TAKES", "LightgbmBooster", "claims", "compose", "load"]

PLATFORM = "lightgbm"
TAKES = Takes(
    title="LightGBM",
    types="FP64; INT64 of integer categories beyond 2⁵³.",
    categories="Their texts or numbers, or codes; unknown ones count as missing.",
    missing="Missing numbers and categories are accepted.",
    names="Those of the data frame, blanks as `_`; none of arrays.",
    outputs="FP64 `prediction` as `Booster.predict` returns it.",
    parameters={"category_columns": "categorical columns of the frame, if the file does not identify them"},
)


def claims(path: Path) -> bool:
    """Claims ``.lgb`` files, and ``.txt``, ``.bst`` and ``.model`` files that start like a booster."""
    if not path.is_file():
        return False
    return path.suffix == ".lgb" or (
        path.suffix in (".txt", ".bst", ".model") and head(path).startswith((b"tree\nversion=", b"tree\r\nversion="))
    )


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the booster in ``file``."""
    require("lightgbm", "lightgbm", spec)
    return python_launch("lightgbm", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the booster in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, LightgbmBooster(settings))


class LightgbmBooster:
    """A booster.

    Input: ``x`` (FP64, NaN if missing), or one input per column if it was trained on text categories of pandas. Output:
    ``prediction`` (FP64) as ``Booster.predict`` returns it: the probability of class 1 for ``binary``, of each class
    for ``multiclass``.

    Raises:
        ModelFailed: it was trained on pandas categories, and the file does not identify their columns.
    """

    kind = "trees"
    countable: Collection[str] = ()
    refuses_unknown = False

    def __init__(self, settings: dict[str, Any]) -> None:
        import lightgbm

        self.booster = _read(Path(settings["file"]))
        self.facts = {"runtime": f"lightgbm {lightgbm.__version__}"}
        self.table = _table(self.booster, settings["parameters"].get("category_columns"), self.facts)
        self._threads = settings["threads"]

    def row(self, table: Table) -> Batch:
        """Return one plausible row."""
        return table.example()

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """Return the outputs of ``Booster.predict``."""
        return {"prediction": self.booster.predict(matrix.of(batch), num_threads=self._threads)}


def _read(file: Path) -> Any:
    import lightgbm

    if head(file).startswith(b"tree\r"):
        # The file has byte offsets, and the library crashes on converted line ends.
        return lightgbm.Booster(model_str=file.read_bytes().replace(b"\r\n", b"\n").decode())
    return lightgbm.Booster(model_file=str(file))


def _table(booster: Any, chosen: Sequence[str] | None, facts: dict[str, str]) -> Table:
    from inferd.runtimes.boosters import category_column, table_of
    from inferd.runtimes.tables import Column

    names = booster.feature_name()
    lists = booster.pandas_categorical or []
    columns = [Column(name) for name in names]
    for index, categories in zip(_places(booster, lists, chosen, facts), lists, strict=True):
        columns[index] = category_column(names[index], categories)
    # Boosters trained on frames have a list of categories, possibly empty.
    unnamed = booster.pandas_categorical is None and names == [f"Column_{index}" for index in range(len(names))]
    return table_of(columns, named=not unnamed)


def _places(
    booster: Any, lists: Sequence[Sequence[Any]], chosen: Sequence[str] | None, facts: dict[str, str]
) -> Sequence[int]:
    """Return the columns that were pandas categories, in the order of ``lists``.

    The file does not identify them. It has the columns that the booster splits as categories: those are pandas' own,
    unless ``categorical_feature`` named others or some categories are ordered, which are split as numbers.

    Raises:
        ModelFailed: the file is ambiguous, or ``chosen`` does not match it.
    """
    from inferd.runtimes.boosters import shortened

    names = booster.feature_name()
    if chosen is not None:
        chosen = [chosen] if isinstance(chosen, str) else chosen
        if len(chosen) != len(lists) or not set(chosen) <= set(names):
            raise ModelFailed(
                f"category_columns {shortened(chosen)} do not match the {len(lists)} lists of categories in the file"
                f" and its columns {shortened(names)}"
            )
        return sorted(map(names.index, chosen))
    if not lists:
        return []
    feature_infos = booster.dump_model(num_iteration=1)["feature_infos"]

    def fits(index: int, categories: Sequence[Any]) -> bool:
        # A column of one value has no entry.
        codes = feature_infos.get(names[index], {"values": [], "min_value": 0, "max_value": 0})
        values = codes["values"] or [codes["min_value"], codes["max_value"]]
        lowest = -1 if codes["values"] else 0
        return all(value == int(value) and lowest <= value < max(1, len(categories)) for value in values)

    first = _in_order(lists, range(len(names)), fits)
    last = _in_order(lists[::-1], range(len(names))[::-1], fits)[::-1]
    if first == last and len(first) == len(lists):
        return first
    split = booster.params.get("categorical_feature") or [
        index for index, name in enumerate(names) if feature_infos.get(name, {}).get("values")
    ]
    if len(split) == len(lists) and all(map(fits, split, lists)):
        assumed = shortened(names[index] for index in split)
        facts["note"] = f"columns {assumed} are assumed to be the categories of pandas: they are split as categories"
        return split
    raise ModelFailed(
        f"the file has {len(lists)} lists of pandas categories without their columns ({shortened(names)})\n"
        "help: set parameters: {category_columns: [...]} in model.yaml to the columns of dtype category"
    )


def _in_order(
    lists: Sequence[Sequence[Any]], places: Sequence[int], fits: Callable[[int, Sequence[Any]], bool]
) -> list[int]:
    """Return the first matching index of each list after that of the previous list; fewer if there is none."""
    rest = iter(places)
    found = (next((index for index in rest if fits(index, categories)), None) for categories in lists)
    return [index for index in found if index is not None]
