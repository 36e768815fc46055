"""scikit-learn: categories of every type, every way to choose columns, and texts."""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingRegressor,
    HistGradientBoostingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from differential.case import ROWS, Case
from differential.models._sklearn import (
    CITIES,
    array,
    case,
    classes,
    decisions,
    dense,
    extreme,
    matrix,
    numbers,
    saved,
    sentences,
    table,
    target,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@case("text and numbers in a column transformer")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "plan", "income"]]
    steps = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "income"]),
        ]
    )
    model = make_pipeline(steps, LogisticRegression()).fit(frame, target(frame))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("integer ids above 2**24")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"id": 2**24 + random.integers(0, 12, ROWS), "weight": random.random(ROWS)})
    steps = ColumnTransformer([("id", OneHotEncoder(handle_unknown="ignore"), ["id"])], remainder="passthrough")
    model = make_pipeline(steps, Ridge()).fit(frame, frame["id"] % 5)
    rows = extreme(frame, random)
    # A missing id makes fractions of the others.
    rows["id"] = rows["id"].astype(float)
    rows.loc[::40, "id"] = np.nan
    return saved(folder, model, rows, numbers(model))


@case("integer ids above 2**53")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"id": 2**53 + random.integers(0, 12, ROWS), "weight": random.random(ROWS)})
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        ColumnTransformer([("id", encoder, ["id"])], remainder="passthrough"), DecisionTreeRegressor(max_depth=5)
    ).fit(frame, frame["id"] % 5)
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("integer ids above 2**53 in an array")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame(2**53 + random.integers(0, 12, (ROWS, 2)), columns=["x0", "x1"])
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()).fit(array(frame), frame["x0"] % 5)
    return saved(folder, model, extreme(frame, random), numbers(model, array))


@case("fractions as categories")
def _(folder: Path, random: np.random.Generator) -> Case:
    values = np.array([0.1, 0.2, 0.7, np.nan])
    frame = pd.DataFrame({"share": random.choice(values, ROWS), "other": random.normal(size=ROWS)})
    steps = ColumnTransformer([("share", OneHotEncoder(handle_unknown="ignore"), ["share"])], remainder="drop")
    model = make_pipeline(steps, Ridge()).fit(frame, frame["other"])
    rows = frame.copy()
    rows.loc[:49, "share"] = np.repeat([np.float32(0.1), 0.30000000000000004, -0.0, 0.2, 1e300], 10)
    return saved(folder, model, rows[["share", "other"]], numbers(model))


@case("fractions of FP32 as categories")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"share": random.choice(np.array([0.1, 0.2, 0.7], np.float32), ROWS)})
    model = make_pipeline(OneHotEncoder(), Ridge()).fit(frame, np.arange(ROWS))
    return saved(folder, model, frame, numbers(model))


@case("true and false")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["active", "age"]]
    steps = ColumnTransformer([("flag", OneHotEncoder(drop="if_binary"), ["active"])], remainder=StandardScaler())
    model = make_pipeline(steps, LogisticRegression()).fit(frame, frame["active"] & (frame["age"] > 50))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("missing text is a category")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "plan"]]
    frame.loc[random.random(ROWS) < 0.1, "city"] = np.nan
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, frame["city"].isna())
    return saved(folder, model, extreme(frame, random), classes(model))


@case("None is a category")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age"]]
    frame["city"] = frame["city"].astype(object).where(random.random(ROWS) < 0.9, None)
    steps = ColumnTransformer([("city", OrdinalEncoder(), ["city"]), ("age", "passthrough", ["age"])])
    model = make_pipeline(steps, DecisionTreeClassifier(max_depth=3)).fit(frame, frame["city"].isna())
    assert model[0].named_transformers_["city"].categories_[0][-1] is None
    return saved(folder, model, extreme(frame, random), classes(model))


@case("whole numbers as objects, with None")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"rooms": random.integers(1, 5, ROWS).astype(object), "age": random.random(ROWS)})
    frame.loc[::7, "rooms"] = None
    steps = ColumnTransformer([("rooms", OneHotEncoder(), ["rooms"]), ("age", StandardScaler(), ["age"])])
    model = make_pipeline(steps, Ridge()).fit(frame, frame["age"])
    rows = extreme(frame[["age"]], random)
    return saved(folder, model, frame[["rooms"]].join(rows), numbers(model))


@case("text that is filled in")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "plan", "income"]]
    frame.loc[random.random(ROWS) < 0.1, "plan"] = np.nan
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    constant = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder())
    steps = ColumnTransformer([("a", filled, ["city"]), ("b", constant, ["plan"])], remainder="passthrough")
    model = make_pipeline(steps, HistGradientBoostingClassifier(max_iter=10)).fit(frame, frame["income"] > 20000)
    return saved(folder, model, extreme(frame, random), classes(model))


@case("targets as encoding")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["store", "city"]]
    model = make_pipeline(TargetEncoder(random_state=0), Ridge()).fit(frame, frame["store"] * 1.5)
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("an encoder as the first step on an array of texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "plan"]].astype(object).set_axis(["x0", "x1"], axis=1)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(encoder, DecisionTreeClassifier(max_depth=3)).fit(array(frame), frame["x0"])
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("rare categories together")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"store": random.geometric(0.3, ROWS), "city": random.choice(CITIES, ROWS)})
    encoder = OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist", drop="first")
    model = make_pipeline(encoder, Ridge()).fit(frame, frame["store"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("gradient boosting on pandas categories")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "store", "age"]]
    fitted = frame.astype({"city": "category", "store": "category"})
    model = HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype").fit(
        fitted, target(table(random))
    )
    return saved(folder, model, extreme(frame, random), classes(model))


@case("columns by position in an array of objects")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "income"]].set_axis(["x0", "x1", "x2"], axis=1)
    steps = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore"), [0]), ("numbers", StandardScaler(), [1, -1])]
    )
    model = make_pipeline(steps, Ridge()).fit(frame.to_numpy(object), frame["x1"])
    return saved(folder, model, extreme(frame, random), numbers(model, lambda rows: rows.to_numpy(object)))


@case("columns of an array by position, one dropped and one twice")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 4)
    steps = ColumnTransformer(
        [
            ("scaled", StandardScaler(), [0, 1]),
            ("again", "passthrough", [1]),
            ("mask", PCA(1), [False, True, False, True]),
        ]
    )
    model = make_pipeline(steps, Ridge()).fit(array(frame), frame["x0"])
    return saved(folder, model, extreme(frame, random), numbers(model, array))


@case("columns by slices, masks and selectors")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)
    steps = ColumnTransformer(
        [
            ("slice", StandardScaler(), slice("age", "income")),
            ("mask", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), frame.columns == "plan"),
            ("pattern", OneHotEncoder(handle_unknown="ignore"), make_column_selector(pattern="^c")),
            ("type", "passthrough", make_column_selector(dtype_include=bool)),
            ("position", StandardScaler(), [2]),
        ]
    )
    model = make_pipeline(steps, LogisticRegression()).fit(frame, target(frame))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("dropped columns")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)
    steps = ColumnTransformer(
        [
            ("no", "drop", ["store"]),
            ("age", StandardScaler(), ["age"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )
    model = make_pipeline(steps, Ridge()).fit(frame, frame["age"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("dropped columns within a bagged pipeline")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "income"]]
    steps = ColumnTransformer([("age", StandardScaler(), [1])])
    model = StackingRegressor([("one", make_pipeline(steps, Ridge()))], BaggingRegressor(Ridge(), 3, random_state=0))
    model.fit(frame, frame["age"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("one column as a list of texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["age"]].assign(review=sentences(random))
    steps = ColumnTransformer([("words", TfidfVectorizer(), "review"), ("age", StandardScaler(), ["age"])])
    model = make_pipeline(steps, LogisticRegression()).fit(frame, target(table(random)))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("a union of column transformers")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "income"]]
    union = FeatureUnion(
        [
            ("numbers", ColumnTransformer([("scaled", StandardScaler(), ["age", "income"])])),
            ("texts", ColumnTransformer([("codes", OneHotEncoder(handle_unknown="ignore"), ["city"])])),
        ]
    )
    model = make_pipeline(union, Ridge()).fit(frame, frame["age"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("column transformers inside each other, one column twice")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["store", "age", "city"]]
    inner = ColumnTransformer(
        [("code", OneHotEncoder(handle_unknown="ignore"), ["store"]), ("number", StandardScaler(), ["store"])]
    )
    outer = ColumnTransformer(
        [
            ("stores", inner, ["store", "age"]),
            ("rest", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["city"]),
        ]
    )
    model = make_pipeline(outer.set_output(transform="default"), SimpleImputer(), Ridge()).fit(frame, frame["age"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("whole frames from step to step")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["age", "income", "store"]]
    second = ColumnTransformer([("scaled", StandardScaler(), ["age", "income"])], remainder="passthrough")
    model = make_pipeline(SimpleImputer().set_output(transform="pandas"), second, Ridge()).fit(frame, frame["age"])
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("voting of pipelines over other columns")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "plan"]]

    def only(columns: Iterable[str]) -> Any:
        encoder = OneHotEncoder(handle_unknown="ignore")
        return make_pipeline(ColumnTransformer([("only", encoder, list(columns))]), LogisticRegression())

    model = VotingClassifier([("city", only(["city"])), ("plan", only(["plan"]))], voting="soft")
    model.fit(frame, target(table(random)))
    return saved(folder, model, extreme(frame, random), classes(model))


@case("a frame that code of the user looks at")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "age", "store"]]
    fill = FunctionTransformer(operator.methodcaller("fillna", {"city": "Oslo", "age": 40.0}))
    steps = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("rest", "passthrough", ["age", "store"])]
    )
    model = make_pipeline(fill, steps, Ridge()).fit(frame, frame["age"])
    joblib.dump(model, folder / "model.joblib")
    inputs = [
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "store", "datatype": "INT64", "shape": [-1]},
    ]
    trusted = hashlib.sha256((folder / "model.joblib").read_bytes()).hexdigest()
    settings = {"inputs": inputs, "trusted_sha256": trusted}
    return Case(folder / "model.joblib", extreme(frame, random), numbers(model), settings=settings)


@case("a pipeline over texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"text": sentences(random)})
    kinds = np.where(
        frame["text"].str.contains("good|fine"), "positive", np.where(frame["text"].str.len() > 20, "long", "other")
    )
    model = make_pipeline(TfidfVectorizer(), LinearSVC()).fit(texts(frame), kinds)
    return saved(folder, model, extreme(frame, random), decisions(model, texts))


@case("a union of text vectorizers")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"text": sentences(random)})
    letters = CountVectorizer(analyzer="char_wb", ngram_range=(2, 3), lowercase=False)
    union = FeatureUnion([("words", TfidfVectorizer(ngram_range=(1, 2))), ("letters", letters)])
    model = make_pipeline(union, CalibratedClassifierCV(LinearSVC(), cv=3))
    model.fit(texts(frame), frame["text"].str.contains("good"))
    return saved(folder, model, extreme(frame, random), classes(model, texts))


@case("vectors of texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"text": sentences(random)})
    model = TfidfVectorizer().fit(texts(frame))
    return saved(folder, model, extreme(frame, random), dense(model, texts))
