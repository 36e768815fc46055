"""MLflow folders: what ``mlflow.pyfunc.load_model(folder).predict`` gives in this process."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from differential.case import Maker

__all__ = ["CASES", "SLICE"]

TRAINED = 300
CITIES = np.array(["Oslo", "Rome", "Lima", "New York", "São Paulo", "東京", ""], dtype=object)
TRUSTED = [
    *("collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"),
    *("numpy.dtype", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"),
]
_ARGUMENTS = {"sklearn": "sk_model", "xgboost": "xgb_model", "lightgbm": "lgb_model", "catboost": "cb_model"}


def _numbers(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """Doubles, times in seconds and numbers of very different size."""
    return pd.DataFrame(
        {
            "b": random.normal(size=rows),
            "a": random.normal(size=rows) * 1e6,
            "time": 1.7e9 + random.uniform(0, 300, rows),
        }
    )


def _mixed(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """A column of every type of numbers."""
    return pd.DataFrame(
        {
            "double": random.normal(size=rows),
            "flag": random.integers(0, 2, rows).astype(bool),
            "long": 2**40 + random.integers(0, 50, rows),
            "integer": random.integers(-9, 9, rows).astype(np.int32),
            "single": random.normal(size=rows).astype(np.float32),
        }
    )


def _texts(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """Text and numbers, some of both missing."""
    city = random.choice(CITIES, rows)
    city[::11] = None
    size = random.normal(size=rows)
    size[::7] = np.nan
    return pd.DataFrame({"size": size, "city": city, "count": random.integers(0, 9, rows)})


def _cities(random: np.random.Generator, rows: int = TRAINED) -> pd.DataFrame:
    """Text without missing values, and numbers."""
    return pd.DataFrame({"city": random.choice(CITIES, rows), "size": random.normal(size=rows)})


def _target(frame: pd.DataFrame) -> np.ndarray:
    """A number that depends on every column."""
    columns = [pd.factorize(frame[name], sort=True)[0] % 11 for name in frame]
    return np.sum([(place + 1) * (column - column.mean()) for place, column in enumerate(columns)], axis=0)


def _asked(random: np.random.Generator, make: Callable[..., pd.DataFrame], *, extremes: bool) -> pd.DataFrame:
    """Rows like those of the training; missing values and great numbers among the doubles."""
    rows = make(random, ROWS)
    for name in rows.columns:
        if extremes and rows[name].dtype.kind == "f":
            values = rows[name].to_numpy(copy=True)
            values[5:9] = np.nan
            values[20:26] = [0.0, -0.0, 1e30, -1e30, np.finfo(np.float32).tiny, 1e-40]
            rows[name] = values
    return rows


# -- folders --------------------------------------------------------------------------------------------------------


def _log(folder: Path, flavor: str, model: Any, signature: Any, **more: Any) -> Path:
    from importlib import import_module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = import_module(f"mlflow.{flavor}")
        given = {_ARGUMENTS[flavor]: model, "path": str(folder / "model"), "signature": signature, **more}
        module.save_model(**given, pip_requirements=[])
    return folder / "model"


class _Loaded:
    """What MLflow itself makes of a folder, loaded when it is first asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _model(self) -> Any:
        import mlflow

        # MLflow reads skops files only where it is told that it may.
        with patch.dict(os.environ, {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mlflow.pyfunc.load_model(str(self._folder))

    def predict(self, asked: pd.DataFrame) -> Any:
        """The answer to rows, which MLflow may write into."""
        return self._model.predict(asked.copy())


def _signature(frame: pd.DataFrame, **more: Any) -> Any:
    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return infer_signature(frame, **more)


def _case(folder: Path, rows: pd.DataFrame, output: str, model: Any = None, **more: Any) -> Case:
    """MLflow's answer as ``output``, and the probabilities of ``model`` where it has some."""

    theirs = _Loaded(folder)

    def answer(asked: pd.DataFrame) -> Mapping[str, Any]:
        found = np.asarray(theirs.predict(asked))
        found = found.reshape(-1) if found.shape[1:] == (1,) else found
        if model is None:
            return {output: found}
        probabilities = model.predict_proba(asked)
        return {output: found, "probabilities": probabilities}

    import catboost
    import lightgbm
    from mlflow.exceptions import MlflowException

    refusals = (ValueError, MlflowException, catboost.CatBoostError, lightgbm.basic.LightGBMError)
    return Case(folder, rows, answer, refusals=refusals, outputs={"label": "probabilities"} if model else {}, **more)


def _library(
    flavor: str,
    fit: Callable[[pd.DataFrame, np.ndarray], Any],
    make: Callable[..., pd.DataFrame],
    output: str,
    *,
    signed: bool = True,
    **more: Any,
) -> Maker:
    """A model of a library's own flavor."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        trained = make(random)
        model = fit(trained, _target(trained))
        extremes = more.get("extremes", True)
        logged = {key: value for key, value in more.items() if key not in ("extremes", "single", "params")}
        signature = _signature(trained, params=more.get("params")) if signed else None
        path = _log(folder, flavor, model, signature, **logged)
        rows = _asked(random, make, extremes=extremes)
        precision = {"relative": 1e-6, "absolute": 1e-6} if more.get("single") else {}
        return _case(path, rows, output, model if output == "label" else None, **precision)

    return maker


def _xgb(kind: str, **settings: Any) -> Callable[[pd.DataFrame, np.ndarray], Any]:
    def fit(frame: pd.DataFrame, target: np.ndarray) -> Any:
        import xgboost

        return getattr(xgboost, kind)(n_estimators=10, n_jobs=1, **settings).fit(frame, _classes(kind, target))

    return fit


def _lgb(kind: str, texts: Sequence[str] = ()) -> Callable[[pd.DataFrame, np.ndarray], Any]:
    def fit(frame: pd.DataFrame, target: np.ndarray) -> Any:
        import lightgbm

        classes = _classes(kind, target)
        labels = np.array(texts, dtype=object)[classes] if texts else classes
        return getattr(lightgbm, kind)(n_estimators=10, n_jobs=1, verbose=-1, min_child_samples=5).fit(frame, labels)

    return fit


def _lgb_booster(frame: pd.DataFrame, target: np.ndarray) -> Any:
    import lightgbm

    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(settings, lightgbm.Dataset(frame, target), 10)


def _cat(kind: str, categories: Sequence[str] = (), **settings: Any) -> Callable[[pd.DataFrame, np.ndarray], Any]:
    def fit(frame: pd.DataFrame, target: np.ndarray) -> Any:
        import catboost

        usual = {"iterations": 10, "verbose": 0, "allow_writing_files": False, "thread_count": 1, **settings}
        model = catboost.CatBoost(usual) if kind == "CatBoost" else getattr(catboost, kind)(**usual)
        known = {"cat_features": list(categories)} if categories else {}
        return model.fit(frame, _classes(kind + str(settings), target), **known)

    return fit


def _classes(kind: str, target: np.ndarray) -> np.ndarray:
    """Three classes for classifiers, two for formulas of two, else the number."""
    if "Classifier" in kind:
        return np.digitize(target, np.quantile(target, [0.3, 0.7]))
    return (target > np.median(target)).astype(int) if "Logloss" in kind else target


def _logistic(frame: pd.DataFrame, target: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, np.where(target > 0, "yes", "no"))


def _pipeline(frame: pd.DataFrame, target: np.ndarray) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("size", SimpleImputer(), ["size", "count"])])
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, np.where(target > 0, "yes", "no"))


def _trees(frame: pd.DataFrame, target: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=10).fit(frame, target)


# -- functions ------------------------------------------------------------------------------------------------------


def _function(predict: Callable[[Any], Any], make: Callable[..., pd.DataFrame], outputs: Sequence[str]) -> Maker:
    """A Python function that gets a data frame."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        import cloudpickle
        import mlflow

        from inferd.runtimes.trust import digest

        class Function(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):  # type hints are checked by MLflow
                return predict(model_input)

        path, trained = folder / "model", make(random)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Where it is served there are no tests.
            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            signature = _signature(trained)
            mlflow.pyfunc.save_model(str(path), python_model=Function(), signature=signature, pip_requirements=[])
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

        theirs = _Loaded(path)

        def answer(asked: pd.DataFrame) -> Mapping[str, Any]:
            found = theirs.predict(asked)
            arrays = found if isinstance(found, dict | pd.DataFrame) else {outputs[0]: found}
            return {name: np.asarray(arrays[name]) for name in outputs}

        settings = {"trusted_sha256": digest(path)}
        return Case(path, _asked(random, make, extremes=True), answer, settings=settings)

    return maker


def _tell(rows: pd.DataFrame) -> list[str]:
    kinds = [str(dtype) for dtype in rows.dtypes]
    return [f"{list(rows.columns)} {kinds} {row!r}" for row in rows.to_numpy(dtype=object).tolist()]


def _echo(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(city=rows["city"].fillna("nowhere"))


def _halves(rows: pd.DataFrame) -> dict[str, Any]:
    return {"half": rows["double"] / 2, "flags": (~rows["flag"]).tolist(), "next": rows["long"].to_numpy() + 1}


def _graph(folder: Path, random: np.random.Generator) -> Case:
    """An ONNX graph that was logged with the names of a frame's columns."""
    import mlflow.onnx
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    trained = _numbers(random)[["b", "a"]]
    model = LinearRegression().fit(trained, _target(trained))
    graph = to_onnx(model, trained.to_numpy(np.float32)[:1])
    path = folder / "model"
    mlflow.onnx.save_model(graph, str(path), signature=_signature(trained), pip_requirements=[])

    theirs = _Loaded(path)

    def answer(asked: pd.DataFrame) -> Mapping[str, Any]:
        return {"variable": theirs.predict(asked)["variable"].to_numpy()[:, None]}

    rows = _asked(random, _numbers, extremes=True)[["b", "a"]]
    return Case(path, rows, answer, relative=1e-6, absolute=1e-6)


def _probabilities(folder: Path, random: np.random.Generator) -> Case:
    """A classifier whose probabilities are what MLflow answers."""
    trained = _mixed(random)
    model = _logistic(trained, _target(trained))
    path = _log(folder, "sklearn", model, _signature(trained), pyfunc_predict_fn="predict_proba")
    theirs = _Loaded(path)

    def answer(asked: pd.DataFrame) -> Mapping[str, Any]:
        return {"probabilities": theirs.predict(asked), "label": model.predict(asked)}

    return Case(path, _asked(random, _mixed, extremes=False), answer, outputs={"label": "probabilities"})


MARGIN = {"params": {"output_margin": True}}
CASES: dict[str, Maker] = {
    "XGBClassifier's labels": _library("xgboost", _xgb("XGBClassifier"), _mixed, "label", single=True),
    "XGBClassifier without a signature": _library(
        "xgboost", _xgb("XGBClassifier"), _numbers, "label", signed=False, single=True, extremes=False
    ),
    "XGBRegressor of one matrix": _library("xgboost", _xgb("XGBRegressor"), _numbers, "prediction", single=True),
    "margins by a parameter of the signature": _library(
        "xgboost", _xgb("XGBClassifier"), _numbers, "prediction", single=True, **MARGIN
    ),
    "LGBMClassifier of texts in skops": _library(
        "lightgbm", _lgb("LGBMClassifier", ("no", "perhaps", "yes")), _mixed, "label"
    ),
    "LGBMRegressor in skops": _library("lightgbm", _lgb("LGBMRegressor"), _numbers, "prediction"),
    "a LightGBM booster by columns": _library("lightgbm", _lgb_booster, _mixed, "prediction"),
    "CatBoostClassifier of numbers": _library("catboost", _cat("CatBoostClassifier"), _mixed, "label"),
    "CatBoostClassifier of text": _library("catboost", _cat("CatBoostClassifier", ["city"]), _cities, "label"),
    "CatBoost's formula of two classes": _library(
        "catboost", _cat("CatBoost", loss_function="Logloss"), _numbers, "prediction"
    ),
    "a pipeline of text": _library("sklearn", _pipeline, _texts, "label", skops_trusted_types=TRUSTED),
    "a regression that refuses what is missing": _library("sklearn", _logistic, _numbers, "label"),
    "probabilities where they were logged": _probabilities,
    "trees of sklearn in skops": _library("sklearn", _trees, _numbers, "prediction", skops_trusted_types=TRUSTED),
    "an ONNX graph by columns": _graph,
    "what a function sees": _function(_tell, _texts, ["prediction"]),
    "what a function sees of numbers": _function(_tell, _mixed, ["prediction"]),
    "a function that answers a frame": _function(_echo, _texts, ["size", "city", "count"]),
    "a function that answers a dict": _function(_halves, _mixed, ["half", "flags", "next"]),
}
SLICE = (
    "XGBClassifier's labels",
    "what a function sees",
)
