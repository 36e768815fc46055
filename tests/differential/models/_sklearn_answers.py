"""scikit-learn: matrices of numbers, and every kind of answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    PowerTransformer,
    StandardScaler,
)
from sklearn.tree import DecisionTreeRegressor

from differential.case import ROWS, Case
from differential.models._sklearn import (
    array,
    case,
    classes,
    decisions,
    dense,
    extreme,
    matrix,
    numbers,
    saved,
    table,
    target,
)

if TYPE_CHECKING:
    from pathlib import Path


@case("a matrix without names")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    model = LogisticRegression().fit(array(frame), frame["x0"] + frame["x1"] ** 2 > 1)
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("a matrix with names")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["age", "income"]]
    model = make_pipeline(StandardScaler(), Ridge()).fit(frame, 123456789.25 + frame["age"] * 1e-3)
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("a forest, which takes missing values and no more than FP32")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    model = RandomForestClassifier(10, max_depth=4, random_state=0).fit(frame, frame["x0"] > 0)
    rows = extreme(frame, random)
    rows.loc[:1, "x4"] = [np.finfo(np.float32).max, np.nextafter(np.finfo(np.float32).max, np.inf, dtype=float)]
    return saved(folder, model, rows, classes(model))


@case("histogram gradient boosting on thresholds of FP64")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"a": random.random(ROWS), "b": random.random(ROWS) * 1e9})
    frame.loc[random.random(ROWS) < 0.1, "a"] = np.nan
    model = HistGradientBoostingRegressor(max_iter=30).fit(frame, frame["b"] * 2)
    edges = np.concatenate([one.nodes["num_threshold"] for tree in model._predictors for one in tree])
    rows = extreme(frame, random)
    chosen = random.choice(edges[edges > 1e6], 100)
    rows.loc[ROWS - 100 :, "b"] = np.where(random.random(100) < 0.5, chosen, np.nextafter(chosen, np.inf))
    return saved(folder, model, rows, numbers(model))


@case("times in seconds")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"seen": 1.7e9 + random.uniform(0, 3600, ROWS), "took": random.exponential(1, ROWS)})
    model = make_pipeline(KBinsDiscretizer(20, quantile_method="averaged_inverted_cdf"), Ridge())
    model.fit(frame, frame["seen"] - 1.7e9)
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("one column")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["income"]]
    model = DecisionTreeRegressor(max_depth=4).fit(frame, np.log(frame["income"]))
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("500 columns")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame(random.normal(size=(ROWS, 500)), columns=[f"sensor {place}" for place in range(500)])
    kind = frame["sensor 0"] + frame["sensor 499"] > 0
    model = make_pipeline(SimpleImputer(), SelectKBest(f_classif, k=20), LogisticRegression()).fit(frame, kind)
    rows = frame.copy()
    rows.iloc[::50, 3] = np.nan
    rows.iloc[1, 7] = np.inf
    return saved(folder, model, rows, classes(model))


@case("fitted on four rows")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 1)
    model = GaussianNB().fit(array(frame)[:4], ["no", "yes", "no", "yes"])
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("names with spaces and of all scripts")
def _(folder: Path, random: np.random.Generator) -> Case:
    names = ["größe in m²", "a b  c", "名前", "x/y?&=#%", "'quoted\"", " ", "x"]
    frame = pd.DataFrame(random.normal(size=(ROWS, 7)), columns=names)
    model = LinearRegression().fit(frame, frame[names[0]] - frame["x"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("missing values taken by one column of a matrix")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["age", "income"]]
    steps = ColumnTransformer(
        [
            ("filled", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("as it is", StandardScaler(), ["income"]),
        ]
    )
    model = make_pipeline(steps, LogisticRegression()).fit(frame, target(frame))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("logarithms and box-cox, which take no negative numbers")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["age", "income"]]
    steps = ColumnTransformer(
        [("log", FunctionTransformer(np.log1p), ["age"]), ("power", PowerTransformer("box-cox"), ["income"])]
    )
    model = make_pipeline(steps, Ridge()).fit(frame, frame["age"])
    rows = extreme(frame, random)
    rows.loc[:9, "income"] = -1.0
    return saved(folder, model, rows, numbers(model), relative=1e-11)


@case("imputed from other columns")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    frame["x2"] = frame["x0"] - frame["x1"]
    fitted = frame.mask(random.random(frame.shape) < 0.1)
    model = make_pipeline(IterativeImputer(random_state=0), LinearRegression()).fit(fitted, frame["x0"])
    return saved(folder, model, extreme(fitted, random), numbers(model), relative=1e-9, absolute=1e-9)


@case("several numbers for each row")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    model = Ridge().fit(frame, frame[["x0", "x1"]] * 1e9)
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("several classes for each row")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    kinds = np.stack([frame["x0"] > 0, np.digitize(frame["x1"], [-1, 1])], axis=1).astype(int)
    model = RandomForestClassifier(5, max_depth=3, random_state=0).fit(frame, kinds)

    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        first, second = model.predict_proba(rows)
        return {"label": model.predict(rows), "probabilities_0": first, "probabilities_1": second}

    return saved(folder, model, extreme(frame, random), answer)


@case("several classes of text for each row")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    kinds = np.stack([np.where(frame["x0"] > 0, "up", "down"), np.where(frame["x1"] > 1, "far", "near")], axis=1)
    model = MultiOutputClassifier(LogisticRegression()).fit(frame, kinds)

    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        first, second = model.predict_proba(rows)
        return {"label": model.predict(rows), "probabilities_0": first, "probabilities_1": second}

    return saved(folder, model, extreme(frame, random), answer)


@case("several labels for each row")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    labels = np.stack([frame["x0"] > 0, frame["x1"] > 0.5], axis=1).astype(int)
    model = MLPClassifier((8,), max_iter=30, random_state=0).fit(frame, labels)
    return saved(folder, model, extreme(frame, random), classes(model))


@case("decisions of more than two classes")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random)
    model = RidgeClassifier().fit(frame, np.digitize(frame["x0"], [-1, 1]) * 1.0)
    return saved(folder, model, extreme(frame, random), decisions(model))


@case("outliers")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = IsolationForest(n_estimators=10, random_state=0).fit(frame)
    return saved(folder, model, extreme(frame, random), decisions(model))


@case("neighbours, by distance and by class")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = KNeighborsClassifier(3, metric="manhattan", weights="distance").fit(array(frame), frame["x0"] > 0)
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("a search for the best parameters")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    grid = {"logisticregression__C": np.array([0.1, 1.0])}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), grid, cv=StratifiedKFold(3), scoring="f1"
    )
    search.fit(frame, frame["x0"] > 0)
    return saved(folder, search, extreme(frame, random), classes(search))


@case("scaled numbers as the answer")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = StandardScaler().fit(frame)
    return saved(folder, model, extreme(frame, random), dense(model))


@case("text and numbers as the answer")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age"]]
    steps = [("city", SimpleImputer(strategy="most_frequent"), ["city"]), ("age", SimpleImputer(), ["age"])]
    model = ColumnTransformer(steps).fit(frame)

    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        found = model.transform(rows)
        return {"city__city": found[:, 0], "age__age": found[:, 1].astype(float)}

    return saved(folder, model, extreme(frame, random), answer)
