"""Models of CatBoost: whatever their frames have, every kind of class, and every way to train them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import catboost
import numpy as np
import pandas as pd

from differential.case import Case
from differential.models._tables import (
    CITIES,
    GREAT,
    TRAINED,
    as_asked,
    asked_like,
    identifiers,
    missing,
    mixed,
    numbers,
    on_edges,
    placed,
    seconds,
    target,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from differential.case import Maker

SLICE = (
    "doubles on the borders",
    "categories that are texts, unseen and missing ones",
    "classes that are texts",
)
QUIET = {"iterations": 20, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 1}
WORDS = ("red", "green", "Blau", "猫", "dog", "bird,", "sun", "moon!")


def case(
    folder: Path,
    trained: Any,
    labels: np.ndarray,
    rows: Any,
    params: Mapping[str, Any] | None = None,
    **train: Any,
) -> Case:
    """A model of ``trained``, asked about ``rows``.

    Args:
        folder: takes the file.
        trained: rows with a name for each column, or without.
        labels: what to learn.
        rows: the question.
        params: of the model.
        train: ``kind`` of model, ``data`` as arguments of ``Pool``, ``format`` of the file, ``settings`` of the server,
            ``threshold`` of a classifier.
    """
    data = catboost.Pool(trained, labels, **train.get("data", {}))
    model = train.get("kind", catboost.CatBoostRegressor)(**{**QUIET, **(params or {})}).fit(data)
    if "threshold" in train:
        model.set_probability_threshold(train["threshold"])
    kind = train.get("format", "cbm")
    file = folder / f"model.{kind}"
    model.save_model(file, format=kind, pool=data if kind == "json" else None)
    return of_model(model, file, as_asked(rows, trained), train.get("settings", {}))


def of_model(model: catboost.CatBoost, file: Path, rows: Any, settings: dict[str, Any] | None = None) -> Case:
    def answer(asked: Any) -> Mapping[str, Any]:
        plain = isinstance(asked, dict) and asked.keys() == {"x"}
        data = asked["x"] if plain else pd.DataFrame(dict(asked))
        if len(model.classes_) == 0:
            return {"prediction": model.predict(data, thread_count=1)}
        label = np.asarray(model.predict(data, prediction_type="Class", thread_count=1))
        probabilities = model.predict(data, prediction_type="Probability", thread_count=1)
        return {"label": label.reshape(-1) if label.shape[1:] == (1,) else label, "probabilities": probabilities}

    refusals = (catboost.CatBoostError, TypeError)
    return Case(file, rows, answer, refusals, settings or {}, outputs={"label": "probabilities"})


def simply(make: Callable[[np.random.Generator], pd.DataFrame], **params: Any) -> Maker:
    """A regression over what ``make`` gives."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        frame = make(random)
        return case(folder, frame, target(frame), asked_like(frame, random), params)

    return maker


def learned(labels: Callable[[np.ndarray], np.ndarray], params: Mapping[str, Any], **train: Any) -> Maker:
    """Another objective over plain numbers, some of them missing."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        frame = missing(numbers(random), random)
        return case(folder, frame, labels(target(frame)), asked_like(frame, random), params, **train)

    return maker


def classes(labels: Callable[[np.ndarray], np.ndarray], **params: Any) -> Maker:
    """A classifier over plain numbers, some of them missing."""
    return learned(labels, params, kind=catboost.CatBoostClassifier)


def doubles_on_the_borders(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    made = case(folder, frame, target(frame), asked_like(frame, random), {"iterations": 60})
    model = catboost.CatBoost().load_model(str(made.path))
    borders = model.get_borders()

    def thresholds(name: str) -> Sequence[float]:
        floats = np.array(borders.get(list(frame.columns).index(name), []), np.float32)
        # FP64 on both sides of where it is rounded to the border, too.
        middles = (floats.astype(float) + np.nextafter(floats, np.float32(np.inf)).astype(float)) / 2
        return [*floats, *middles]

    return Case(made.path, on_edges(made.rows, thresholds, random), made.answer, made.refusals)


def missing_values(mode: str, *, trained: bool) -> Maker:
    def maker(folder: Path, random: np.random.Generator) -> Case:
        frame = numbers(random)
        rows = missing(asked_like(frame, random), random)
        frame = missing(frame, random) if trained else frame
        return case(folder, frame, target(frame), rows, {"nan_mode": mode})

    return maker


def infinite_and_great(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    values = [*GREAT, np.inf, -np.inf, np.nan, 3.4028235677973362e38, 3.4028235677973366e38, 1e39, -1e308]
    return case(folder, frame, target(frame), placed(asked_like(frame, random), values, random))


def categories(known: Sequence[Any], strangers: Sequence[Any] = (), missing: Sequence[Any] = (), **more: Any) -> Maker:
    """Two columns of categories beside numbers; rows have ``strangers`` and ``missing`` ones, too."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        def column(rows: int, values: Sequence[Any]) -> pd.Series:
            drawn = [values[place] for place in random.integers(0, len(values), rows)]
            return pd.Series(drawn, dtype=object if missing else None)

        frame = numbers(random, 2).assign(of=column(TRAINED, known), to=column(TRAINED, known))
        rows = asked_like(numbers(random, 2), random)
        rows = rows.assign(of=column(len(rows), known), to=column(len(rows), [*known * 3, *strangers, *missing]))
        settings = {}
        if more.get("declared"):
            kinds = {"a": "FP64", "b": "FP64", "of": "INT64", "to": "INT64"}
            settings = {"inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in kinds.items()]}
        params = {"one_hot_max_size": more.get("one_hot", 2)}
        data = {"cat_features": ["of", "to"]}
        kind = more.get("format", "cbm")
        return case(folder, frame, target(frame), rows, params, data=data, settings=settings, format=kind)

    return maker


def one_column_of_categories(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"city": random.choice(CITIES, TRAINED)})
    return case(folder, frame, target(frame), asked_like(frame, random), data={"cat_features": ["city"]})


def categories_of_pandas(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 2).assign(city=pd.Categorical(random.choice(CITIES, TRAINED)))
    return case(folder, frame, target(frame), asked_like(frame, random), data={"cat_features": ["city"]})


def classes_by_categories(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 2).assign(city=random.choice(CITIES, TRAINED))
    data = {"cat_features": ["city"]}
    labels = np.array(["low", "mid", "high"])[_three(target(frame))]
    return case(folder, frame, labels, asked_like(frame, random), data=data, kind=catboost.CatBoostClassifier)


def texts(folder: Path, random: np.random.Generator) -> Case:
    said = [" ".join(random.choice(WORDS, 5)) for _ in range(TRAINED)]
    frame = numbers(random, 1).assign(said=said, city=random.choice(CITIES, TRAINED))
    labels = np.array(["猫" in one for one in said])
    rows = asked_like(frame, random)
    rows["said"] = rows["said"].astype(object)
    rows.loc[random.random(len(rows)) < 0.1, "said"] = None
    rows.loc[random.random(len(rows)) < 0.1, "said"] = ""
    data = {"text_features": ["said"], "cat_features": ["city"]}
    return case(folder, frame, labels, rows, data=data, kind=catboost.CatBoostClassifier)


def embeddings(folder: Path, random: np.random.Generator) -> Case:
    rows = {"a": random.normal(size=500), "place": random.normal(size=(500, 6)), "b": random.normal(size=500)}
    frame = pd.DataFrame({name: list(values) for name, values in rows.items()})
    labels = frame["a"] + rows["place"][:, 5] > 0
    made = case(
        folder, frame, labels.to_numpy(), frame, data={"embedding_features": ["place"]},
        kind=catboost.CatBoostClassifier,
    )  # fmt: skip
    shapes = {"a": [-1], "place": [-1, 6], "b": [-1]}
    settings = {"inputs": [{"name": name, "datatype": "FP64", "shape": shape} for name, shape in shapes.items()]}

    def answer(asked: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        return made.answer({name: list(values) for name, values in asked.items()})

    return Case(made.path, rows, answer, made.refusals, settings, outputs=made.outputs)


def without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame.to_numpy(), target(frame), asked_like(frame, random))


def a_frame_without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame(numbers(random).to_numpy())
    return case(folder, frame, target(frame), asked_like(frame, random))


def names_of_all_sorts(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 6)
    frame.columns = ["größe", "年齢", "a.b", "two words", "7", "x"]
    return case(folder, frame, target(frame), asked_like(frame, random))


def names_of_all_sorts_beside_categories(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 4).assign(of=random.choice(CITIES, TRAINED))
    frame.columns = ["größe", "two words", "7", "x", "城市"]
    return case(folder, frame, target(frame), asked_like(frame, random), data={"cat_features": ["城市"]})


def ignored(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random).assign(constant=1.0)
    return case(folder, frame, target(frame), asked_like(frame, random), {"ignored_features": [1]})


def ranks(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    labels = _three(target(frame)) / 2
    data = {"group_id": np.repeat(np.arange(TRAINED // 20), 20)}
    rows = asked_like(frame, random)
    return case(folder, frame, labels, rows, {"loss_function": "YetiRank"}, data=data, kind=catboost.CatBoostRanker)


class _Squares:
    """An objective of one's own."""

    def calc_ders_range(
        self, approxes: Sequence[float], targets: Sequence[float], weights: object
    ) -> list[tuple[float, float]]:
        return [(wanted - found, -1) for found, wanted in zip(approxes, targets, strict=True)]


def _positive(labels: np.ndarray) -> np.ndarray:
    return np.abs(labels)


def _binary(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) * 1


def _three(labels: np.ndarray) -> np.ndarray:
    return (labels > -2) * 1 + (labels > 2) * 1


def _two_labels(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels > 0, np.sin(labels) > 0], axis=1) * 1


def _two_numbers(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels, np.sin(labels)], axis=1)


def _chance(labels: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-labels))


def _bounds(labels: np.ndarray) -> np.ndarray:
    lower = np.abs(labels) + 0.1
    return np.stack([lower, np.where(labels > 2, -1, lower)], axis=1)


def _same(labels: np.ndarray) -> np.ndarray:
    return labels


def _loss(name: str, labels: Callable[[np.ndarray], np.ndarray] = _same) -> Maker:
    return learned(labels, {"loss_function": name})


CASES: dict[str, Maker] = {
    "doubles on the borders": doubles_on_the_borders,
    "integer ids above 2**24": simply(lambda random: identifiers(random, 2**24)),
    "integer ids below 2**53": simply(lambda random: identifiers(random, 2**53 - 41)),
    "times in seconds": simply(seconds),
    "booleans, integers and both floats": simply(mixed),
    "single precision": simply(lambda random: numbers(random).astype(np.float32)),
    "missing values are the least": missing_values("Min", trained=True),
    "missing values are the greatest": missing_values("Max", trained=True),
    "missing values are forbidden": missing_values("Forbidden", trained=False),
    "missing values only when asked": missing_values("Min", trained=False),
    "infinite and great values": infinite_and_great,
    "categories that are texts": categories(CITIES),
    "categories that are texts, unseen and missing ones": categories(CITIES, ["Paris", "nan"], [None, np.nan]),
    "categories that are integers": categories((10, 3, 7), [4, -1, 2**62], declared=True),
    "categories that are integers as texts": categories(("10", "3", "007"), ["7", "1.0"]),
    "categories as columns of zeros and ones": categories(CITIES, ["Paris"], one_hot=20),
    "categories of pandas": categories_of_pandas,
    "categories in JSON": categories(CITIES, ["Paris"], format="json"),
    "one column of categories": one_column_of_categories,
    "classes by categories": classes_by_categories,
    "texts": texts,
    "embeddings": embeddings,
    "JSON": learned(_same, {}, format="json"),
    "without names": without_names,
    "a frame without names": a_frame_without_names,
    "names of all sorts": names_of_all_sorts,
    "names of all sorts beside categories": names_of_all_sorts_beside_categories,
    "features that are ignored": ignored,
    "one feature": simply(lambda random: numbers(random, 1)),
    "500 features": simply(lambda random: numbers(random, 500), iterations=5),
    "one tree": learned(_same, {"iterations": 1}),
    "great answers": learned(lambda labels: labels + 123456789.25, {}),
    "trees that grow by leaves": learned(_same, {"grow_policy": "Lossguide"}),
    "classes that are 0 and 1": classes(_binary),
    "classes that are integers": classes(lambda labels: np.array([2**40, 5])[_binary(labels)]),
    "classes that are texts": classes(lambda labels: np.array(["no", "ja", "はい"])[_three(labels)]),
    "classes that are booleans": classes(lambda labels: labels > 0),
    "classes that are fractions": classes(lambda labels: np.array([0.1, 2.5])[_binary(labels)]),
    "three classes": classes(_three),
    "classes, one against all": classes(_three, loss_function="MultiClassOneVsAll"),
    "a class nobody is of": classes(_three, classes_count=5),
    "chances": classes(_chance, loss_function="CrossEntropy"),
    "focal loss": classes(_binary, loss_function="Focal:focal_alpha=0.5;focal_gamma=2"),
    "several labels": classes(_two_labels, loss_function="MultiLogloss"),
    "several chances": classes(
        lambda labels: np.stack([_chance(labels), _chance(-labels)], 1), loss_function="MultiCrossEntropy"
    ),
    "a threshold": learned(_binary, {}, kind=catboost.CatBoostClassifier, threshold=0.9),
    "counts": _loss("Poisson", _positive),
    "Tweedie": _loss("Tweedie:variance_power=1.5", _positive),
    "a quantile": _loss("Quantile:alpha=0.9"),
    "three quantiles": _loss("MultiQuantile:alpha=0.1,0.5,0.9"),
    "two numbers": _loss("MultiRMSE", _two_numbers),
    "with its uncertainty": _loss("RMSEWithUncertainty"),
    "survival between bounds": _loss("SurvivalAft", _bounds),
    "ranks": ranks,
    "an objective of one's own": learned(_same, {"loss_function": _Squares(), "eval_metric": "RMSE"}),
}
