"""LightGBM: boosters saved as text, which holds no code.

``compose`` reads the model's settings in the control plane; :class:`LightgbmBooster` runs the booster in a worker.
Where the same answers come faster from ONNX, :mod:`inferd.runtimes.faster` takes its place.
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
    categories="Their texts or numbers, or codes; unknown ones are missing.",
    missing="A missing number or category is taken as missing.",
    names="Those of the data frame, blanks as `_`; none of arrays.",
    outputs="FP64 `prediction` as `Booster.predict` gives it.",
    parameters={"category_columns": "columns of the frame that had categories, where the file does not say"},
)


def claims(path: Path) -> bool:
    """``.lgb`` files; ``.txt``, ``.bst`` and ``.model`` files that begin like a booster."""
    if not path.is_file():
        return False
    return path.suffix == ".lgb" or (
        path.suffix in (".txt", ".bst", ".model") and head(path).startswith((b"tree\nversion=", b"tree\r\nversion="))
    )


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the booster in ``file`` is started."""
    require("lightgbm", "lightgbm", spec)
    return python_launch("lightgbm", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The booster, in this process."""
    from inferd.runtimes.boosters import BoosterRuntime

    return BoosterRuntime(settings, LightgbmBooster(settings))


class LightgbmBooster:
    """A booster.

    Takes ``x`` (FP64, NaN where a value is missing); or, where it was trained on pandas categories that are text, an
    input for each column. Gives ``prediction`` (FP64): what ``Booster.predict`` gives, which is the probability of
    class 1 for ``binary`` and one of each class for ``multiclass``.

    Raises:
        ModelFailed: it was trained on pandas categories, and the file does not tell of which columns.
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
        """One row of plausible inputs."""
        return table.example()

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """What ``Booster.predict`` gives."""
        return {"prediction": self.booster.predict(matrix.of(batch), num_threads=self._threads)}


def _read(file: Path) -> Any:
    import lightgbm

    if head(file).startswith(b"tree\r"):
        # The library counts bytes, and ends the process where line ends have become two.
        return lightgbm.Booster(model_str=file.read_bytes().replace(b"\r\n", b"\n").decode())
    return lightgbm.Booster(model_file=str(file))


def _table(booster: Any, chosen: Sequence[str] | None, facts: dict[str, str]) -> Table:
    from inferd.runtimes.boosters import category_column, table_of
    from inferd.runtimes.tables import Column

    names = booster.feature_name()
    lists = booster.pandas_categorical or []
    columns = [Column(name) for name in names]
    for place, categories in zip(_places(booster, lists, chosen, facts), lists, strict=True):
        columns[place] = category_column(names[place], categories)
    # Boosters that were trained on frames have a list of categories, be it empty.
    unnamed = booster.pandas_categorical is None and names == [f"Column_{place}" for place in range(len(names))]
    return table_of(columns, named=not unnamed)


def _places(
    booster: Any, lists: Sequence[Sequence[Any]], chosen: Sequence[str] | None, facts: dict[str, str]
) -> Sequence[int]:
    """The columns that were pandas categories, in the order of ``lists``.

    The file does not say which ones. It says which columns the booster splits as categories: those are pandas' own,
    unless ``categorical_feature`` named others or some categories are ordered, which are split as numbers.

    Raises:
        ModelFailed: several answers fit the file; or ``chosen`` does not.
    """
    from inferd.runtimes.boosters import listed

    names = booster.feature_name()
    if chosen is not None:
        chosen = [chosen] if isinstance(chosen, str) else chosen
        if len(chosen) != len(lists) or not set(chosen) <= set(names):
            raise ModelFailed(
                f"category_columns names {listed(chosen)}, but the file has {len(lists)} lists of categories"
                f" and the columns {listed(names)}"
            )
        return sorted(map(names.index, chosen))
    if not lists:
        return []
    seen = booster.dump_model(num_iteration=1)["feature_infos"]

    def fits(place: int, categories: Sequence[Any]) -> bool:
        # A column of one value has no entry.
        codes = seen.get(names[place], {"values": [], "min_value": 0, "max_value": 0})
        values = codes["values"] or [codes["min_value"], codes["max_value"]]
        lowest = -1 if codes["values"] else 0
        return all(value == int(value) and lowest <= value < max(1, len(categories)) for value in values)

    first = _in_order(lists, range(len(names)), fits)
    last = _in_order(lists[::-1], range(len(names))[::-1], fits)[::-1]
    if first == last and len(first) == len(lists):
        return first
    split = booster.params.get("categorical_feature") or [
        place for place, name in enumerate(names) if seen.get(name, {}).get("values")
    ]
    if len(split) == len(lists) and all(map(fits, split, lists)):
        assumed = listed(names[place] for place in split)
        facts["note"] = (
            f"categories of pandas are assumed in {assumed}, which are split as categories; the file does not say so"
        )
        return split
    raise ModelFailed(
        f"the file has {len(lists)} lists of pandas categories and does not say which of the columns they are of"
        f" ({listed(names)})\nhelp: write parameters: {{category_columns: [...]}} in model.yaml, with those that had"
        " the dtype category"
    )


def _in_order(
    lists: Sequence[Sequence[Any]], places: Sequence[int], fits: Callable[[int, Sequence[Any]], bool]
) -> list[int]:
    """The first place for each list that fits and lies behind that of the list before; fewer where there is none."""
    rest = iter(places)
    found = (next((place for place in rest if fits(place, categories)), None) for categories in lists)
    return [place for place in found if place is not None]
