"""Boosters of LightGBM: whatever their frames have, and every way to train them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

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
    "doubles on the thresholds",
    "categories that are texts, unseen and missing ones",
    "classes, one against all",
)
QUIET = {
    "verbose": -1,
    "num_threads": 1,
    "min_data_in_leaf": 5,
    "min_data_per_group": 1,
    "cat_smooth": 0,
    "seed": 1,
    "deterministic": True,
}


def case(
    folder: Path,
    trained: pd.DataFrame | np.ndarray,
    labels: np.ndarray,
    rows: pd.DataFrame,
    params: Mapping[str, Any] | None = None,
    **train: Any,
) -> Case:
    """A booster of ``trained``, asked about ``rows``.

    Args:
        folder: takes the file.
        trained: rows with a name for each column, or without.
        labels: what to learn.
        rows: the question.
        params: of ``lightgbm.train``.
        train: ``rounds``, ``group`` and ``categorical_feature`` of the data, ``settings`` of the server, ``validation``
            data to stop early by.
    """
    import lightgbm

    data = lightgbm.Dataset(
        trained, labels, group=train.get("group"), categorical_feature=train.get("categorical_feature", "auto")
    )
    more = {}
    if "validation" in train:
        more = {
            "valid_sets": [lightgbm.Dataset(*train["validation"], reference=data)],
            "callbacks": [lightgbm.early_stopping(3, verbose=False)],
        }
    booster = lightgbm.train({**QUIET, **(params or {})}, data, train.get("rounds", 20), **more)
    file = folder / "model.txt"
    booster.save_model(file)
    return of_file(file, as_asked(rows, trained), train.get("settings", {}))


def of_file(file: Path, rows: Any, settings: dict[str, Any] | None = None) -> Case:
    import lightgbm

    booster = lightgbm.Booster(model_file=file)

    def answer(asked: Any) -> Mapping[str, Any]:
        return {"prediction": booster.predict(asked["x"] if isinstance(asked, dict) else asked, num_threads=1)}

    return Case(file, rows, answer, settings=settings or {})


def simply(make: Callable[[np.random.Generator], pd.DataFrame], **params: Any) -> Maker:
    """A regression over what ``make`` gives."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        frame = make(random)
        return case(folder, frame, target(frame), asked_like(frame, random), params)

    return maker


def learned(labels: Callable[[np.ndarray], np.ndarray], params: Mapping[str, Any], **train: Any) -> Maker:
    """Another objective over plain numbers, some of them missing."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        frame = numbers(random)
        return case(folder, frame, labels(target(frame)), missing(asked_like(frame, random), random), params, **train)

    return maker


def doubles_on_the_thresholds(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    made = case(folder, frame, target(frame), asked_like(frame, random), rounds=60)
    text = made.path.read_text()
    places = [int(one) for line in re.findall(r"split_feature=(.*)", text) for one in line.split()]
    edges = [float(one) for line in re.findall(r"threshold=(.*)", text) for one in line.split()]

    def thresholds(name: str) -> Sequence[float]:
        return [edge for place, edge in zip(places, edges, strict=True) if frame.columns[place] == name]

    return of_file(made.path, on_edges(made.rows, thresholds, random))


def missing_in_training(folder: Path, random: np.random.Generator) -> Case:
    frame = missing(numbers(random), random)
    return case(folder, frame, target(frame), asked_like(frame, random))


def missing_only_when_asked(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame, target(frame), missing(asked_like(frame, random), random))


def zero_is_missing(folder: Path, random: np.random.Generator) -> Case:
    frame = placed(numbers(random), [0.0, np.nan], random)
    rows = placed(asked_like(frame, random), [0.0, -0.0, 1e-36, -1e-36, np.nan], random)
    return case(folder, frame, target(frame), rows, {"zero_as_missing": True})


def missing_is_unused(folder: Path, random: np.random.Generator) -> Case:
    frame = missing(numbers(random), random)
    return case(folder, frame, target(frame), asked_like(frame, random), {"use_missing": False})


def infinite_and_great(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    values = [*GREAT, np.inf, -np.inf, np.nan, 1e300, -1e308]
    return case(folder, frame, target(frame), placed(asked_like(frame, random), values, random))


def categories(values: Sequence[Any], strangers: Sequence[Any] = (), **dtype: Any) -> Maker:
    """Two columns of pandas categories beside numbers; rows have ``strangers`` and missing ones, too."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        def column(rows: int, known: Sequence[Any]) -> pd.Series:
            drawn = pd.Series([known[place] for place in random.integers(0, len(known), rows)])
            return drawn.astype(pd.CategoricalDtype(list(dict.fromkeys(known)), **dtype))

        frame = numbers(random, 2).assign(of=column(TRAINED, values), to=column(TRAINED, values))
        rows = asked_like(numbers(random, 2), random)
        asked = [*values, *strangers]
        rows = rows.assign(of=column(len(rows), asked), to=column(len(rows), asked))
        if strangers:
            rows.loc[random.random(len(rows)) < 0.1, "to"] = None
        labels = target(frame.assign(of=frame["of"].cat.codes, to=frame["to"].cat.codes % 2))
        return case(folder, frame, labels, rows, settings=_told(frame) if dtype else {})

    return maker


def _told(frame: pd.DataFrame) -> dict[str, Any]:
    """Ordered categories are split as numbers: the file does not tell which columns they are."""
    names = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    return {"parameters": {"category_columns": names}}


def one_column_of_categories(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"city": pd.Categorical(random.choice(CITIES, TRAINED))})
    return case(folder, frame, target(frame), asked_like(frame, random))


def many_categories(folder: Path, random: np.random.Generator) -> Case:
    names = [f"n° {place}" for place in range(300)]
    frame = pd.DataFrame({"name": pd.Categorical(random.choice(names, 3000)), "u": random.normal(size=3000)})
    rows = asked_like(frame, random)
    return case(folder, frame, target(frame), rows, {"max_cat_threshold": 200})


def codes_in_a_frame(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 2).assign(code=random.choice([3, 7, 10, 400], TRAINED))
    rows = asked_like(frame, random).assign(code=random.choice([3, 7, 10, 400, 4, -1, 2**31, 2**40], 500))
    return case(folder, frame, target(frame), rows, categorical_feature=["code"])


def codes_in_an_array(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"code": random.choice([3.0, 7.0, 10.0], TRAINED), "u": random.normal(size=TRAINED)})
    rows = asked_like(frame, random)
    rows["code"] = random.choice([3.0, 7.0, 10.0, 3.5, 4.0, -1.0, np.nan, np.inf, -np.inf, 1e300], 500)
    return case(folder, frame.to_numpy(), target(frame), rows, categorical_feature=[0])


def codes_beside_categories(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 2).assign(
        code=random.integers(0, 9, TRAINED), city=pd.Categorical(random.choice(CITIES[:3], TRAINED))
    )
    return case(
        folder,
        frame,
        target(frame),
        asked_like(frame, random),
        categorical_feature=["code", "city"],
        settings={"parameters": {"category_columns": ["city"]}},
    )


def without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame.to_numpy(), target(frame), asked_like(frame, random))


def names_of_all_sorts(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 6)
    frame.columns = ["größe", "年齢", "a.b", "x=1", "Column_0", "x"]
    return case(folder, frame, target(frame), asked_like(frame, random))


def a_frame_without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame(numbers(random).to_numpy())
    return case(folder, frame, target(frame), asked_like(frame, random))


def nothing_to_split(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame, np.full(TRAINED, 123456789.25), asked_like(frame, random))


def great_answers(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame, target(frame) + 123456789.25, asked_like(frame, random))


def stopped_early(folder: Path, random: np.random.Generator) -> Case:
    frame, other = numbers(random), numbers(random)
    labels = target(frame) + random.normal(size=TRAINED) * 5
    return case(
        folder, frame, labels, asked_like(frame, random), {"learning_rate": 0.5}, rounds=200,
        validation=(other, target(other)),
    )  # fmt: skip


def an_objective_of_ones_own(folder: Path, random: np.random.Generator) -> Case:
    def objective(predicted: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        chance = 1 / (1 + np.exp(-predicted))
        return chance - data.get_label(), chance * (1 - chance)

    frame = numbers(random)
    return case(folder, frame, (target(frame) > 0) * 1.0, asked_like(frame, random), {"objective": objective})


def line_ends_of_windows(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 2).assign(city=pd.Categorical(random.choice(CITIES, TRAINED)))
    made = case(folder, frame, target(frame), asked_like(frame, random))
    file = folder / "windows.txt"
    file.write_bytes(made.path.read_bytes().replace(b"\n", b"\r\n"))
    return Case(file, made.rows, made.answer)


def a_classifier_of_scikit_learn(folder: Path, random: np.random.Generator) -> Case:
    import lightgbm

    frame = mixed(random)
    labels = np.where(target(frame) > 0, "yes", "no")
    booster = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1).fit(frame, labels).booster_
    booster.save_model(folder / "classifier.txt")
    return of_file(folder / "classifier.txt", asked_like(frame, random))


def _positive(labels: np.ndarray) -> np.ndarray:
    return np.abs(labels)


def _binary(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) * 1


def _three(labels: np.ndarray) -> np.ndarray:
    return (labels > -2) * 1 + (labels > 2) * 1


def _same(labels: np.ndarray) -> np.ndarray:
    return labels


CASES: dict[str, Maker] = {
    "doubles on the thresholds": doubles_on_the_thresholds,
    "integer ids above 2**24": simply(lambda random: identifiers(random, 2**24)),
    "integer ids below 2**53": simply(lambda random: identifiers(random, 2**53 - 41)),
    "times in seconds": simply(seconds),
    "booleans, integers and both floats": simply(mixed),
    "single precision": simply(lambda random: numbers(random).astype(np.float32)),
    "missing values in training": missing_in_training,
    "missing values only when asked": missing_only_when_asked,
    "zero is missing": zero_is_missing,
    "missing values are not used": missing_is_unused,
    "infinite and great values": infinite_and_great,
    "categories that are texts": categories(CITIES),
    "categories that are texts, unseen and missing ones": categories(CITIES, ["Paris", "Oslo "]),
    "categories that are integers": categories([10, 3, 7]),
    "categories that are integers, unseen and missing ones": categories([10, 3, 7], [4, -1]),
    "categories that are great integers": categories([2**60 + 1, 2**60 + 2, 5]),
    "categories that are fractions": categories([0.1, 1.25, -3.0], [0.2]),
    "categories that are booleans": categories([True, False]),
    "ordered categories": categories(["low", "mid", "high"], ["none"], ordered=True),
    "one column of categories": one_column_of_categories,
    "300 categories": many_categories,
    "codes in a frame": codes_in_a_frame,
    "codes in an array": codes_in_an_array,
    "codes beside categories": codes_beside_categories,
    "without names": without_names,
    "a frame without names": a_frame_without_names,
    "names of all sorts": names_of_all_sorts,
    "one feature": simply(lambda random: numbers(random, 1)),
    "500 features": simply(lambda random: numbers(random, 500)),
    "one tree": learned(_same, {}, rounds=1),
    "nothing to split": nothing_to_split,
    "great answers": great_answers,
    "two classes": learned(_binary, {"objective": "binary"}),
    "three classes": learned(_three, {"objective": "multiclass", "num_class": 3}),
    "classes, one against all": learned(_three, {"objective": "multiclassova", "num_class": 3}),
    "a classifier of scikit-learn": a_classifier_of_scikit_learn,
    "ranks": learned(_three, {"objective": "lambdarank"}, group=[20] * (TRAINED // 20)),
    "counts": learned(_positive, {"objective": "poisson"}),
    "a quantile": learned(_same, {"objective": "quantile", "alpha": 0.9}),
    "cross entropy": learned(lambda labels: 1 / (1 + np.exp(-labels)), {"objective": "cross_entropy"}),
    "linear trees": simply(numbers, linear_tree=True),
    "dart": learned(_same, {"boosting": "dart"}),
    "a random forest": learned(_same, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    "stopped early": stopped_early,
    "an objective of one's own": an_objective_of_ones_own,
    "line ends of Windows": line_ends_of_windows,
}
