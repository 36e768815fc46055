"""Boosters of XGBoost: whatever their frames have, and every way to train them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from differential.case import Case
from differential.models._tables import (
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
    "integer ids above 2**24",
    "categories that are texts, unseen and missing ones",
    "a linear booster, great and infinite values",
)
TOWNS = ("Oslo", "Rome", "Lima", "New York", "")
FP32 = {"relative": 1e-6, "absolute": 1e-6}


def case(
    folder: Path,
    trained: pd.DataFrame | np.ndarray,
    labels: np.ndarray | None,
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
        params: of ``xgboost.train``.
        train: ``rounds``, ``data`` as arguments of ``DMatrix``, ``validation`` data to stop early by, ``objective`` of
            one's own, ``ending`` of the file.
    """
    import xgboost

    data = xgboost.DMatrix(trained, labels, enable_categorical=True, **train.get("data", {}))
    more: dict[str, Any] = {"obj": train.get("objective")}
    if "validation" in train:
        validation = xgboost.DMatrix(*train["validation"])
        more |= {"evals": [(validation, "other")], "early_stopping_rounds": 3, "verbose_eval": False}
    booster = xgboost.train({"nthread": 1, "seed": 1, **(params or {})}, data, train.get("rounds", 20), **more)
    file = folder / f"model{train.get('ending', '.json')}"
    booster.save_model(file)
    return of_file(file, as_asked(rows, trained))


def of_file(file: Path, rows: Any) -> Case:
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=file)
    linear = '"name":"gblinear"' in booster.save_config()
    best = booster.attr("best_iteration")
    trees = (0, 0 if best is None else int(best) + 1)

    def answer(asked: Any) -> Mapping[str, Any]:
        data = asked["x"] if isinstance(asked, dict) else asked.apply(_used)
        if linear:
            predicted = booster.predict(xgboost.DMatrix(data, feature_names=booster.feature_names))
        else:
            # As XGBoost's own estimators do.
            predicted = booster.inplace_predict(data, iteration_range=trees)
        return {"prediction": predicted}

    return Case(file, rows, answer, **FP32)


def _used(column: pd.Series) -> pd.Series:
    """The column without categories that no row has: those alone are refused, too."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column
    used = column.cat.remove_unused_categories()
    # The library takes no column without any category, even where all are missing.
    return used if len(used.cat.categories) else column.cat.set_categories(column.cat.categories[:1])


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
        rows = missing(asked_like(frame, random), random)
        return case(folder, frame, labels(target(frame)), rows, params, **train)

    return maker


def doubles_on_the_thresholds(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    made = case(folder, frame, target(frame), asked_like(frame, random), rounds=60)
    trees = json.loads(made.path.read_text())["learner"]["gradient_booster"]["model"]["trees"]

    def thresholds(name: str) -> Sequence[float]:
        place = list(frame.columns).index(name)
        edges = [zip(tree["split_indices"], tree["split_conditions"], strict=True) for tree in trees]
        floats = np.array([edge for tree in edges for split, edge in tree if split == place], np.float32)
        # FP64 on both sides of where it is rounded to the threshold, too.
        middles = (floats.astype(float) + np.nextafter(floats, np.float32(-np.inf)).astype(float)) / 2
        return [*floats, *middles]

    return of_file(made.path, on_edges(made.rows, thresholds, random))


def integers_with_missing_ones(folder: Path, random: np.random.Generator) -> Case:
    values = pd.array(random.integers(0, 9, TRAINED), "Int64")
    values[random.random(TRAINED) < 0.2] = pd.NA
    frame = numbers(random, 2).assign(count=values)
    return case(folder, frame, target(frame), asked_like(frame, random))


def missing_in_training(folder: Path, random: np.random.Generator) -> Case:
    frame = missing(numbers(random), random)
    return case(folder, frame, target(frame), asked_like(frame, random))


def infinite_and_great(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    values = [*GREAT, np.inf, -np.inf, np.nan, 3.4028235677973362e38, 3.4028235677973366e38, 1e39, -1e308]
    return case(folder, frame, target(frame), placed(asked_like(frame, random), values, random))


def linear(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    values = [*GREAT, np.inf, -np.inf, np.nan, 3.4028235677973362e38, 3.4028235677973366e38, 1e39, -1e308]
    rows = placed(asked_like(frame, random), values, random, 0.1)
    return case(folder, frame, target(frame), rows, {"booster": "gblinear"})


def categories(values: Sequence[Any], strangers: Sequence[Any] = (), numeric: int = 2) -> Maker:
    """Two columns of pandas categories beside numbers; rows have ``strangers`` and missing ones, too.

    XGBoost 3.2 takes a stranger for the known category that is sorted after it, where there is one. inferd refuses all.
    """

    def maker(folder: Path, random: np.random.Generator) -> Case:
        def column(rows: int, known: Sequence[Any]) -> pd.Series:
            drawn = pd.Series([known[place] for place in random.integers(0, len(known), rows)])
            return drawn.astype(pd.CategoricalDtype(list(dict.fromkeys(known))))

        frame = numbers(random, numeric).assign(of=column(TRAINED, values), to=column(TRAINED, values))
        rows = asked_like(numbers(random, numeric), random) if numeric else pd.DataFrame(index=range(500))
        asked = [*values * 3, *strangers]
        rows = rows.assign(of=column(len(rows), asked), to=column(len(rows), asked))
        if strangers:
            rows.loc[random.random(len(rows)) < 0.1, "to"] = None
        labels = target(frame.assign(of=frame["of"].cat.codes, to=frame["to"].cat.codes % 2))
        return case(folder, frame, labels, rows)

    return maker


def codes_in_an_array(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"code": random.integers(0, 5, TRAINED) * 1.0, "u": random.normal(size=TRAINED)})
    rows = asked_like(frame, random)
    rows["code"] = random.choice([0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 1.5, -1.0, np.nan, np.inf, 2.0**24 + 2], 500)
    return case(folder, frame.to_numpy(), target(frame), rows, data={"feature_types": ["c", "q"]})


def categories_of_which_the_file_has_no_texts(folder: Path, random: np.random.Generator) -> Case:
    """XGBoost 3.2 cuts texts that are not ASCII: such columns take codes."""
    frame = numbers(random, 2).assign(city=pd.Categorical(random.choice(["Köln", "東京", "Lima"], TRAINED)))
    rows = asked_like(frame, random)
    made = case(folder, frame, target(frame), rows)
    coded = rows.assign(city=rows["city"].cat.codes)
    text = json.loads(made.path.read_text())
    assert text["learner"]["feature_types"] == ["float", "float", "c"]

    def answer(asked: pd.DataFrame) -> Mapping[str, Any]:
        return made.answer(asked.assign(city=pd.Categorical.from_codes(asked["city"], rows["city"].cat.categories)))

    def as_array(asked: pd.DataFrame) -> Mapping[str, Any]:
        import xgboost

        booster = xgboost.Booster({"nthread": 1}, model_file=made.path)
        return {"prediction": booster.inplace_predict(asked.to_numpy(np.float64))}

    np.testing.assert_array_equal(answer(coded)["prediction"], as_array(coded)["prediction"])
    return Case(made.path, coded, as_array, **FP32)


def without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    return case(folder, frame.to_numpy(), target(frame), asked_like(frame, random))


def a_frame_without_names(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame(numbers(random).to_numpy())
    return case(folder, frame, target(frame), asked_like(frame, random))


def names_of_all_sorts(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random, 7)
    frame.columns = ["größe", "年齢", "a.b", "two words", '"cats":{"enc"', "learner", "x"]
    return case(folder, frame, target(frame), asked_like(frame, random))


def stopped_early(folder: Path, random: np.random.Generator, **params: Any) -> Case:
    frame, other = numbers(random), numbers(random)
    labels = target(frame) + random.normal(size=TRAINED) * 5
    rows = asked_like(frame, random)
    return case(folder, frame, labels, rows, params, rounds=200, validation=(other, target(other)))


def an_objective_of_ones_own(folder: Path, random: np.random.Generator) -> Case:
    def objective(predicted: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        chance = 1 / (1 + np.exp(-predicted))
        return chance - data.get_label(), chance * (1 - chance)

    frame = numbers(random)
    labels = (target(frame) > 0) * 1.0
    return case(folder, frame, labels, asked_like(frame, random), objective=objective)


def a_classifier_of_scikit_learn(folder: Path, random: np.random.Generator) -> Case:
    import xgboost

    frame = mixed(random)
    classifier = xgboost.XGBClassifier(n_estimators=20, n_jobs=1).fit(frame, _three(target(frame)))
    classifier.save_model(folder / "classifier.ubj")
    return of_file(folder / "classifier.ubj", asked_like(frame, random))


def written_by_hand(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    made = case(folder, frame, target(frame), asked_like(frame, random))
    text = json.loads(made.path.read_text())
    file = folder / "pretty.json"
    file.write_text(json.dumps({"version": text["version"], "learner": text["learner"]}, indent=4))
    return Case(file, made.rows, made.answer, **FP32)


def survival_bounds(folder: Path, random: np.random.Generator) -> Case:
    frame = numbers(random)
    lower = np.abs(target(frame)) + 0.1
    bounds = {"label_lower_bound": lower, "label_upper_bound": np.where(random.random(TRAINED) < 0.3, np.inf, lower)}
    return case(folder, frame, None, asked_like(frame, random), {"objective": "survival:aft"}, data=bounds)


def _positive(labels: np.ndarray) -> np.ndarray:
    return np.abs(labels)


def _binary(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) * 1


def _three(labels: np.ndarray) -> np.ndarray:
    return (labels > -2) * 1 + (labels > 2) * 1


def _two_numbers(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels, np.sin(labels)], axis=1)


def _same(labels: np.ndarray) -> np.ndarray:
    return labels


CASES: dict[str, Maker] = {
    "doubles on the thresholds": doubles_on_the_thresholds,
    "integer ids above 2**24": simply(lambda random: identifiers(random, 2**24)),
    "integer ids below 2**53": simply(lambda random: identifiers(random, 2**53 - 41)),
    "times in seconds": simply(seconds),
    "booleans, integers and both floats": simply(mixed),
    "single precision": simply(lambda random: numbers(random).astype(np.float32)),
    "integers with missing ones": integers_with_missing_ones,
    "missing values in training": missing_in_training,
    "infinite and great values": infinite_and_great,
    "categories that are texts": categories(TOWNS),
    "categories that are texts, unseen and missing ones": categories(TOWNS, ["Zürich", "Rome2"]),
    "categories alone": categories(TOWNS, ["Zurich"], numeric=0),
    "categories that are integers": categories((10, 3, 7)),
    "categories that are integers, unseen and missing ones": categories((10, 3, 7), [11, 2**40]),
    "categories that are great integers": categories((2**60 + 1, 2**60 + 2, 5)),
    "codes in an array": codes_in_an_array,
    "categories of which the file has no texts": categories_of_which_the_file_has_no_texts,
    "without names": without_names,
    "a frame without names": a_frame_without_names,
    "names of all sorts": names_of_all_sorts,
    "one feature": simply(lambda random: numbers(random, 1)),
    "500 features": simply(lambda random: numbers(random, 500)),
    "one tree": learned(_same, {"max_depth": 2}, rounds=1),
    "a base score": learned(_same, {"base_score": 1234.567}),
    "two classes": learned(_binary, {"objective": "binary:logistic"}),
    "two classes, raw": learned(_binary, {"objective": "binary:logitraw"}),
    "two classes, hinge": learned(_binary, {"objective": "binary:hinge"}),
    "three classes": learned(_three, {"objective": "multi:softprob", "num_class": 3}),
    "the likeliest of three classes": learned(_three, {"objective": "multi:softmax", "num_class": 3}),
    "a classifier of scikit-learn": a_classifier_of_scikit_learn,
    "ranks": learned(_three, {"objective": "rank:ndcg"}, data={"group": [20] * (TRAINED // 20)}),
    "counts": learned(_positive, {"objective": "count:poisson"}),
    "hazards": learned(_positive, {"objective": "survival:cox"}),
    "survival between bounds": survival_bounds,
    "three quantiles": learned(_same, {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}),
    "two numbers": learned(_two_numbers, {}),
    "two numbers by one tree": learned(_two_numbers, {"multi_strategy": "multi_output_tree"}),
    "dart": learned(_same, {"booster": "dart", "rate_drop": 0.3}),
    "a random forest": learned(_same, {"num_parallel_tree": 20, "subsample": 0.6, "eta": 1}, rounds=1),
    "a linear booster, great and infinite values": linear,
    "a linear booster of three classes": learned(
        _three, {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3}
    ),
    "a linear booster, stopped early": lambda folder, random: stopped_early(folder, random, booster="gblinear"),
    "stopped early": stopped_early,
    "an objective of one's own": an_objective_of_ones_own,
    "UBJSON": learned(_binary, {"objective": "binary:logistic"}, ending=".ubj"),
    "written by hand": written_by_hand,
}
