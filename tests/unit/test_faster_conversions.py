"""Boosters and estimators as ONNX against their libraries: the same numbers, to the last bit where they are sums."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import xgboost
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from inferd.runtimes.faster import from_lightgbm, from_sklearn, from_xgboost
from inferd.types import InputSchema, Signature, TensorSpec

if TYPE_CHECKING:
    from types import ModuleType

COLUMNS, ROWS = 5, 400


class Held:
    """What the converters read of a runtime."""

    def __init__(self, model: Any, columns: tuple[str, ...] = ()) -> None:
        self.booster = self.estimator = model
        self.schemas = (InputSchema("x", columns),)


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, a number and one of three classes for each."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(ROWS, COLUMNS)) * [1, 100, 1e-3, 1, 1]
    number = np.exp(x[:, 0]) * x[:, 3] + np.where(x[:, 1] > 50, 3.0, 0.0)
    return x, number, np.digitize(x[:, 0] + x[:, 3], [-0.7, 0.7])


def with_missing(x: np.ndarray, seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(x.shape) < 0.1, np.nan, x)


def with_categories(x: np.ndarray, seed: int = 2) -> np.ndarray:
    coded = x.copy()
    coded[:, 0] = np.random.default_rng(seed).integers(0, 60, len(x))
    coded[:, 1] = np.random.default_rng(seed).integers(0, 5, len(x))
    return coded


def questions(x: np.ndarray) -> np.ndarray:
    """Rows as they were trained on, and rows that are nothing like them."""
    random = np.random.default_rng(3)
    values = [0.0, -0.0, 5e-324, 1e-36, -1e-36, 1e-35, 3.5, -0.5, -1.0, 2.0**24 + 1, 2.0**31, 2.0**32 + 3, 1e30, -1e30]
    same = np.repeat(np.array(values)[:, None], x.shape[1], axis=1)
    whole = random.integers(-3, 70, (200, x.shape[1])).astype(float)
    return np.concatenate([x, same, whole, random.normal(size=(200, x.shape[1])) * 30])


def missing_too(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, with_missing(rows), np.full((1, rows.shape[1]), np.nan)])


def answers(
    converter: ModuleType,
    model: Any,
    rows: np.ndarray,
    wanted: dict[str, np.ndarray],
    columns: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """What the conversion of ``model`` gives whose outputs have the shapes of those that its library gives."""
    kinds = {
        "float64": "FP64",
        "float32": "FP32",
        "int64": "INT64",
        "int32": "INT32",
        "bool": "BOOL",
        "object": "BYTES",
    }
    outputs = [
        TensorSpec(name, kinds.get(one.dtype.name, "BYTES"), (-1, *one.shape[1:])) for name, one in wanted.items()
    ]
    x = TensorSpec("x", kinds[rows.dtype.name], (-1, rows.shape[1]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    for converted in converter.convert(Held(model, columns), Signature((x,), tuple(outputs))):
        session = onnxruntime.InferenceSession(converted.SerializeToString(), options)
        try:
            found = dict(zip(wanted, session.run(list(wanted), {"x": rows}), strict=True))
        except InvalidArgument as error:
            if "refuse: " in str(error):
                raise
            continue
        if all(found[name].shape == one.shape for name, one in wanted.items()):
            return found
    raise AssertionError("no conversion has these outputs")


# -- LightGBM -------------------------------------------------------------------------------------------------------

LIGHTGBM: dict[str, tuple[dict[str, Any], str]] = {
    "a regression": ({}, "number"),
    "a large number with a small fraction": ({}, "huge"),
    "two classes": ({"objective": "binary"}, "second"),
    "two classes with a steep link": ({"objective": "binary", "sigmoid": 2.5}, "second"),
    "three classes": ({"objective": "multiclass", "num_class": 3}, "class"),
    "three classes one against all": ({"objective": "multiclassova", "num_class": 3}, "class"),
    "counts": ({"objective": "poisson"}, "positive"),
    "gamma": ({"objective": "gamma"}, "positive"),
    "tweedie": ({"objective": "tweedie"}, "positive"),
    "cross entropy": ({"objective": "cross_entropy"}, "second"),
    "roots": ({"reg_sqrt": True}, "number"),
    "absolute errors": ({"objective": "mae"}, "number"),
    "a forest": ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "number"),
    "dart": ({"boosting": "dart"}, "number"),
    "missing values": ({"missing": True}, "number"),
    "missing values that are zero": ({"missing": True, "use_missing": False}, "number"),
    "zeros that are missing": ({"zeros": True, "zero_as_missing": True}, "number"),
    "zeros": ({"zeros": True}, "number"),
    "categories": ({"categories": True, "missing": True}, "number"),
    "many leaves": ({"num_leaves": 300, "min_data_in_leaf": 1, "missing": True}, "number"),
    "no split": ({"min_data_in_leaf": 10**6}, "number"),
}


def lightgbm_model(parameters: dict[str, Any], target: str) -> tuple[lightgbm.Booster, np.ndarray]:
    x, number, of_class = data()
    y = {
        "number": number,
        "huge": number * 1e3 + 123456789.25,
        "second": of_class == 1,
        "class": of_class,
        "positive": np.abs(number) + 0.1,
    }[target]
    kind = {name: parameters.get(name, False) for name in ("missing", "zeros", "categories")}
    given = {name: value for name, value in parameters.items() if name not in kind}
    x = with_categories(x) if kind["categories"] else x
    x = np.where(np.abs(x) < 0.5, 0.0, x) if kind["zeros"] else x
    x = with_missing(x) if kind["missing"] else x
    dataset = lightgbm.Dataset(x, y, categorical_feature=[0, 1] if kind["categories"] else [])
    given = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "seed": 0, **given}
    return lightgbm.train(given, dataset, 25), x


@pytest.mark.parametrize("name", LIGHTGBM)
def test_lightgbm_gives_the_same_numbers_from_onnx(name):
    booster, x = lightgbm_model(*LIGHTGBM[name])
    rows = missing_too(questions(x))
    wanted = booster.predict(rows, num_threads=1)
    found = answers(from_lightgbm, booster, rows, {"prediction": wanted})["prediction"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=0)


def test_a_lightgbm_threshold_within_what_is_zero_to_it_decides_as_it_does():
    booster, _ = lightgbm_model({}, "number")
    text = booster.model_to_string()
    first = text.split("threshold=")[1].split()[0]
    # As long as it was: LightGBM ends the process where the sizes of trees are not as the file says.
    near_zero = f"1.{'0' * (len(first) - 6)}e-37"
    changed = lightgbm.Booster(model_str=text.replace(f"threshold={first} ", f"threshold={near_zero} ", 1))
    rows = np.repeat(np.array([1e-36, -1e-36, 1e-38, 0.0, -1e-38, 1e-30, -1e-30, np.nan])[:, None], COLUMNS, axis=1)
    wanted = changed.predict(rows, num_threads=1)
    assert len(np.unique(wanted)) > 1
    assert answers(from_lightgbm, changed, rows, {"prediction": wanted})["prediction"].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"linear_tree": True}, "linear trees"), ({"objective": "cross_entropy_lambda"}, "cross_entropy_lambda")],
)
def test_what_is_not_known_of_lightgbm_is_named(parameters, message):
    booster, x = lightgbm_model(parameters, "second")
    with pytest.raises(NotImplementedError, match=message):
        answers(from_lightgbm, booster, x, {"prediction": np.zeros(1)})


# -- XGBoost --------------------------------------------------------------------------------------------------------

XGBOOST: dict[str, tuple[dict[str, Any], str]] = {
    "a regression": ({}, "number"),
    "far from zero": ({}, "huge"),
    "two classes": ({"objective": "binary:logistic"}, "second"),
    "two classes from a base score": ({"objective": "binary:logistic", "base_score": 0.3}, "second"),
    "two classes before the link": ({"objective": "binary:logitraw"}, "second"),
    "two classes without a link": ({"objective": "binary:hinge"}, "second"),
    "three classes": ({"objective": "multi:softprob", "num_class": 3}, "class"),
    "the class of three": ({"objective": "multi:softmax", "num_class": 3}, "class"),
    "counts": ({"objective": "count:poisson"}, "positive"),
    "gamma": ({"objective": "reg:gamma"}, "positive"),
    "tweedie": ({"objective": "reg:tweedie"}, "positive"),
    "survival": ({"objective": "survival:cox"}, "positive"),
    "absolute errors": ({"objective": "reg:absoluteerror"}, "number"),
    "two quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, "number"),
    "a forest": ({"num_parallel_tree": 5, "subsample": 0.5}, "number"),
    "dart": ({"booster": "dart", "rate_drop": 0.3}, "number"),
    "categories": ({"categories": True}, "number"),
    "categories one by one": ({"categories": True, "max_cat_to_onehot": 100}, "number"),
    "many leaves": ({"grow_policy": "lossguide", "max_leaves": 100, "max_depth": 0}, "number"),
    "no split": ({"gamma": 1e9}, "number"),
}


def xgboost_model(parameters: dict[str, Any], target: str, **settings: Any) -> tuple[xgboost.Booster, np.ndarray]:
    x, number, of_class = data()
    y = {
        "number": number,
        "huge": number * 1e3 + 1e4,
        "second": of_class == 1,
        "class": of_class,
        "positive": np.abs(number) + 0.1,
    }[target]
    given = {name: value for name, value in parameters.items() if name != "categories"}
    categories = parameters.get("categories", False)
    x = with_missing(with_categories(x) if categories else x).astype(np.float32)
    kinds = ["c", "c", *["q"] * (COLUMNS - 2)] if categories else None
    rows = xgboost.DMatrix(x, y, feature_types=kinds, enable_categorical=True, nthread=1)
    return xgboost.train({"nthread": 1, "verbosity": 0, **given}, rows, 25, **settings), x


def same_as_xgboost(booster: xgboost.Booster, x: np.ndarray, iterations: tuple[int, int] = (0, 0)) -> None:
    with np.errstate(over="ignore"):
        rows = missing_too(questions(x)).astype(np.float32)
    wanted = booster.inplace_predict(rows, iteration_range=iterations)
    found = answers(from_xgboost, booster, rows, {"prediction": wanted})["prediction"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=4e-7, atol=0)


@pytest.mark.parametrize("name", XGBOOST)
def test_xgboost_gives_the_same_numbers_from_onnx(name):
    same_as_xgboost(*xgboost_model(*XGBOOST[name]))


def test_xgboost_answers_with_the_best_iteration_after_early_stopping():
    x, number, _ = data(5)
    late = xgboost.DMatrix(x.astype(np.float32), np.random.default_rng(0).permutation(number), nthread=1)
    booster, x = xgboost_model(
        {"eta": 1.0}, "number", evals=[(late, "late")], early_stopping_rounds=5, verbose_eval=False
    )
    best = booster.best_iteration + 1
    assert best < booster.num_boosted_rounds()
    same_as_xgboost(booster, x, (0, best))


def test_small_probabilities_of_xgboost_stay_themselves():
    x, _, _ = data()
    asked = x.astype(np.float32)
    rows = xgboost.DMatrix(asked, asked[:, 0] > 0, nthread=1)
    steep = {"objective": "binary:logistic", "nthread": 1, "eta": 9.0, "lambda": 0, "min_child_weight": 0}
    booster = xgboost.train(steep, rows, 10)
    wanted = booster.inplace_predict(asked)
    assert wanted.min() < 1e-9
    found = answers(from_xgboost, booster, asked, {"prediction": wanted})["prediction"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=0)


def test_what_is_not_known_of_xgboost_is_named():
    x, number, _ = data()
    rows = xgboost.DMatrix(x, np.stack([number, number * 2], axis=1), nthread=1)
    vectors = xgboost.train({"multi_strategy": "multi_output_tree", "tree_method": "hist", "nthread": 1}, rows, 2)
    with pytest.raises(NotImplementedError, match="vectors"):
        answers(from_xgboost, vectors, x.astype(np.float32), {"prediction": np.zeros((1, 2), np.float32)})


# -- scikit-learn ---------------------------------------------------------------------------------------------------


def forest(kind: Any, **settings: Any) -> Any:
    return kind(20, random_state=0, **settings)


def scaled(*steps: Any) -> Any:
    return make_pipeline(StandardScaler(), *steps)


FITTED: dict[str, tuple[Any, str, str]] = {
    "a tree": (DecisionTreeClassifier(random_state=0), "x", "names"),
    "a tree of numbers": (DecisionTreeRegressor(random_state=0), "x", "huge"),
    "a tree of one class": (DecisionTreeClassifier(random_state=0), "x", "one"),
    "a tree with missing values": (DecisionTreeClassifier(random_state=0), "missing", "class"),
    "a forest of truth values": (forest(RandomForestClassifier, min_samples_leaf=3), "x", "two"),
    "a forest of three names": (forest(RandomForestClassifier, min_samples_leaf=3), "x", "names"),
    "a forest of float classes": (forest(RandomForestClassifier), "x", "floats"),
    "a forest of numbers": (forest(RandomForestRegressor), "x", "huge"),
    "a forest of two numbers": (forest(RandomForestRegressor), "x", "both"),
    "a forest with missing values": (forest(RandomForestRegressor), "missing", "number"),
    "extra trees": (forest(ExtraTreesClassifier), "x", "class"),
    "extra trees of numbers": (forest(ExtraTreesRegressor), "x", "number"),
    "boosting of two": (GradientBoostingClassifier(n_estimators=20), "x", "two"),
    "boosting of three": (GradientBoostingClassifier(n_estimators=10), "x", "names"),
    "exponential boosting": (GradientBoostingClassifier(loss="exponential", n_estimators=10), "x", "two"),
    "boosting of numbers": (GradientBoostingRegressor(n_estimators=20), "x", "huge"),
    "boosting from zero": (GradientBoostingRegressor(n_estimators=20, init="zero"), "x", "number"),
    "boosting in a pipeline": (scaled(GradientBoostingRegressor(n_estimators=9)), "x", "number"),
    "histograms of two": (HistGradientBoostingClassifier(max_iter=20), "x", "two"),
    "histograms of three": (HistGradientBoostingClassifier(max_iter=10), "x", "names"),
    "histograms of numbers": (HistGradientBoostingRegressor(max_iter=20), "x", "huge"),
    "histograms of counts": (HistGradientBoostingRegressor(max_iter=20, loss="poisson"), "x", "positive"),
    "histograms with missing values": (HistGradientBoostingRegressor(max_iter=10), "missing", "number"),
    "histograms of categories": (
        HistGradientBoostingClassifier(max_iter=10, categorical_features=[1, 0]),
        "categories",
        "class",
    ),
    "isolation": (IsolationForest(n_estimators=20, random_state=0), "x", "class"),
    "isolation by some columns": (IsolationForest(n_estimators=20, max_features=2, random_state=0), "x", "class"),
    "a line": (LinearRegression(), "x", "huge"),
    "a logistic line": (scaled(LogisticRegression()), "x", "two"),
    "logistic lines": (scaled(LogisticRegression()), "x", "names"),
    "a line that gives labels": (scaled(LinearSVC()), "x", "names"),
    "ridges": (RidgeClassifier(), "x", "two"),
    "a polynomial": (scaled(PolynomialFeatures(3), LinearRegression()), "x", "number"),
    "what is filled in": (
        make_pipeline(SimpleImputer(add_indicator=True), forest(RandomForestClassifier)),
        "missing",
        "names",
    ),
}


@cache
def fit(name: str) -> tuple[Any, np.ndarray]:
    """The estimator, and the rows that it was fitted with."""
    model, kind, target = FITTED[name]
    x, number, of_class = data()
    huge = number * 1e3 + 123456789.25
    y = {
        "number": number,
        "huge": huge,
        "both": np.stack([number, huge], axis=1),
        "positive": np.abs(number),
        "one": np.zeros(ROWS, int),
        "two": of_class == 1,
        "class": of_class,
        "floats": of_class * 2.0,
        "names": np.array(["no", "may\u00e9", "yes"])[of_class],
    }[target]
    rows = {"x": x, "missing": with_missing(x), "categories": with_missing(with_categories(x))}[kind]
    return model.fit(rows, y), rows


def library_answers(model: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
    predicted = model.predict(rows)
    if isinstance(model, IsolationForest):
        return {"label": predicted, "decision": model.decision_function(rows)}
    if not hasattr(model, "classes_"):
        return {"prediction": predicted}
    label = predicted.astype(object) if predicted.dtype.kind == "U" else predicted
    if not hasattr(model, "predict_proba"):
        return {"label": label, "decision": model.decision_function(rows)}
    return {"label": label, "probabilities": model.predict_proba(rows)}


@pytest.mark.parametrize("name", FITTED)
def test_scikit_learn_gives_the_same_answers_from_onnx(name):
    model, x = fit(name)
    rows = questions(x)
    if np.isnan(x).any():
        rows = missing_too(rows)
    wanted = library_answers(model, rows)
    found = answers(from_sklearn, model, rows, wanted)
    for output, values in wanted.items():
        assert found[output].dtype == values.dtype, output
        if values.dtype == np.float64:
            # What is as good as 0 beside the others is 1 less what they add up to.
            np.testing.assert_allclose(found[output], values, rtol=1e-13, atol=1e-15 * np.abs(values).max())
        else:
            assert found[output].tolist() == values.tolist()


def test_forests_answer_to_the_last_bit():
    for name in ("a forest of three names", "a forest of truth values", "a forest of numbers"):
        model, x = fit(name)
        rows = missing_too(questions(x))
        wanted = library_answers(model, rows)
        output = "probabilities" if "probabilities" in wanted else "prediction"
        assert (answers(from_sklearn, model, rows, wanted)[output] == wanted[output]).all()


def test_rows_that_trees_in_a_pipeline_refuse_are_refused_by_the_graph():
    model, x = fit("boosting in a pipeline")
    wanted = library_answers(model, x)
    assert answers(from_sklearn, model, x, wanted)
    beyond = x.copy()
    beyond[3, 2] = 1e38
    with pytest.raises(ValueError, match="float32"):
        model.predict(beyond)
    with pytest.raises(Exception, match=r"refuse: a value is beyond FP32 before step 2 \(GradientBoostingRegressor\)"):
        answers(from_sklearn, model, beyond, wanted)


def test_columns_are_told_apart_by_name_and_those_that_no_step_reads_are_no_inputs():
    x, _, of_class = data()
    frame = pd.DataFrame(x, columns=list("edcba"))
    scaled_apart = ColumnTransformer([("s", StandardScaler(), ["b", "d"]), ("m", MinMaxScaler(), ["e"])])
    model = make_pipeline(scaled_apart, LogisticRegression()).fit(frame, of_class)
    read, names = x[:, [0, 1, 3]], ("e", "d", "b")
    wanted = {"label": model.predict(frame), "probabilities": model.predict_proba(frame)}
    found = answers(from_sklearn, model, read, wanted, names)
    assert found["label"].tolist() == wanted["label"].tolist()
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], rtol=1e-13)
    with pytest.raises(NotImplementedError, match="no names"):
        answers(from_sklearn, model, read, wanted)


def test_a_search_answers_with_its_best_estimator():
    x, _, of_class = data()
    search = GridSearchCV(scaled(LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(x, of_class)
    wanted = {"label": search.predict(x), "probabilities": search.predict_proba(x)}
    found = answers(from_sklearn, search, x, wanted)
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], rtol=1e-13)


def test_labels_are_held_to_what_they_are_decided_by():
    x, _, of_class = data()
    model = LogisticRegression().fit(x, of_class == 1)
    margin = from_sklearn.margin(Held(model), InputSchema("x"), x)
    # One row on the border, one far from it.
    border = x[:1] - model.decision_function(x[:1])[0] * model.coef_ / (model.coef_**2).sum()
    rows = np.concatenate([border, x[np.argmax(np.abs(model.decision_function(x)))][None]])
    own = model.predict(rows)
    close, wide = margin(rows, own, ~own)
    assert 0 <= close < 1e-9
    assert wide > 1
    # The library's own label is never the one with the lower score, unless it is not decided by scores.
    assert margin(rows, ~own, own)[1] == np.inf
