"""scikit-learn as people use it: every way to choose columns, every type of them, and every kind of answer."""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from differential.case import Maker

CASES: dict[str, Maker] = {}
SLICE = (
    "a matrix with names",
    "text and numbers in a column transformer",
    "integer ids above 2**53",
    "a pipeline over texts",
)

FRACTIONS = (np.nan, np.inf, -np.inf, 1e300, -1e300, 3.4e38, 3.5e38, 5e-324, -0.0, 2.0**53)
CITIES = ("Łódź", "São Paulo", "Kyoto", "Oslo")
WORDS = ("good", "bad", "fine", "awful", "long", "short", "story", "naïve", "日本")


def case(name: str) -> Callable[[Maker], Maker]:
    """Add a maker to the cases."""

    def add(maker: Maker) -> Maker:
        CASES[name] = maker
        return maker

    return add


def saved(folder: Path, model: Any, rows: pd.DataFrame, answer: Callable[[Any], dict[str, Any]], **about: Any) -> Case:
    """A case of a model in a skops file."""
    skops.io.dump(model, folder / "model.skops")
    return Case(folder / "model.skops", rows, answer, **about)


def classes(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    """Label and probabilities of rows in the form that the model was fitted with."""
    return lambda rows: {"label": model.predict(form(rows)), "probabilities": model.predict_proba(form(rows))}


def decisions(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {"label": model.predict(form(rows)), "decision": model.decision_function(form(rows))}


def numbers(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {"prediction": model.predict(form(rows))}


def dense(model: Any, form: Callable[[pd.DataFrame], Any] = lambda rows: rows) -> Callable[[Any], dict[str, Any]]:
    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        found = model.transform(form(rows))
        return {"transformed": found.toarray() if hasattr(found, "toarray") else found}

    return answer


def array(rows: pd.DataFrame) -> np.ndarray:
    return rows.to_numpy()


def texts(rows: pd.DataFrame) -> list[Any]:
    return rows.iloc[:, 0].tolist()


def table(random: np.random.Generator, rows: int = ROWS) -> pd.DataFrame:
    """Numbers, whole numbers, texts, and true or false."""
    return pd.DataFrame(
        {
            "age": random.uniform(18, 90, rows),
            "income": random.lognormal(10, 1, rows),
            "store": random.integers(0, 12, rows),
            "city": random.choice(CITIES, rows),
            "plan": random.choice(["free", "team", "null"], rows),
            "active": random.random(rows) < 0.5,
        }
    )


def target(frame: pd.DataFrame) -> np.ndarray:
    """A class for each row."""
    return (np.log(frame["income"]) + 0.02 * frame["age"] > 11).to_numpy().astype(int)


def sentences(random: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    lengths = random.integers(1, 8, rows)
    return np.array([" ".join(random.choice(WORDS, length)) for length in lengths], object)


def extreme(frame: pd.DataFrame, random: np.random.Generator, unknown: bool = True) -> pd.DataFrame:
    """The rows, some of them with a value that is missing, extreme or unknown in one column."""
    frame = frame.copy()
    places = iter(random.permutation(len(frame)))
    for name in frame.columns:
        if frame[name].dtype.kind == "f":
            for value in FRACTIONS:
                frame.loc[next(places), name] = value
        elif frame[name].dtype.kind == "i":
            frame.loc[[next(places) for _ in range(3)], name] = [-1, 2**31, 2**53]
        elif frame[name].dtype.kind != "b":
            values = [None, "", *(["Atlantis", "null", "NaN", "x" * 300] if unknown else ())]
            frame.loc[[next(places) for _ in values], name] = values
    return frame


def matrix(random: np.random.Generator, columns: int = 5, rows: int = ROWS) -> pd.DataFrame:
    """Numbers, whose columns are called by their positions, as an array's are."""
    return pd.DataFrame(random.normal(size=(rows, columns)), columns=[f"x{place}" for place in range(columns)])


# -- matrices --------------------------------------------------------------------------------------------------------


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


# -- categories ------------------------------------------------------------------------------------------------------


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


# -- columns ---------------------------------------------------------------------------------------------------------


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


# -- texts -----------------------------------------------------------------------------------------------------------


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


@case("hashed texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"text": sentences(random)})
    model = make_pipeline(HashingVectorizer(n_features=256), SGDClassifier(loss="log_loss", random_state=0))
    model.fit(texts(frame), frame["text"].str.contains("bad").astype(float))
    return saved(folder, model, extreme(frame, random), classes(model, texts))


@case("vectors of texts")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = pd.DataFrame({"text": sentences(random)})
    model = TfidfVectorizer().fit(texts(frame))
    return saved(folder, model, extreme(frame, random), dense(model, texts))


# -- answers ---------------------------------------------------------------------------------------------------------


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


@case("a support vector machine with two classes of text")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 2)
    model = make_pipeline(StandardScaler(), SVC()).fit(frame, np.where(frame["x0"] > frame["x1"] ** 2, "in", "out"))
    return saved(folder, model, extreme(frame, random), decisions(model))


@case("outliers")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = IsolationForest(n_estimators=10, random_state=0).fit(frame)
    return saved(folder, model, extreme(frame, random), decisions(model))


@case("clusters")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = KMeans(4, n_init=1, random_state=0).fit(frame)
    return saved(folder, model, extreme(frame, random), lambda rows: {"label": model.predict(rows)})


@case("a mixture")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 2)
    model = GaussianMixture(2, random_state=0).fit(array(frame))
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("neighbours, by distance and by class")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = KNeighborsClassifier(3, metric="manhattan", weights="distance").fit(array(frame), frame["x0"] > 0)
    return saved(folder, model, extreme(frame, random), classes(model, array))


@case("the nearest rows")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = NearestNeighbors(n_neighbors=4, algorithm="ball_tree").fit(array(frame)[:200])

    def answer(rows: pd.DataFrame) -> dict[str, Any]:
        distances, places = model.kneighbors(array(rows))
        return {"distances": distances, "neighbors": places}

    return saved(folder, model, extreme(frame, random), answer)


@case("a search for the best parameters")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    grid = {"logisticregression__C": np.array([0.1, 1.0])}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), grid, cv=StratifiedKFold(3), scoring="f1"
    )
    search.fit(frame, frame["x0"] > 0)
    return saved(folder, search, extreme(frame, random), classes(search))


@case("a target on another scale")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = TransformedTargetRegressor(GradientBoostingRegressor(n_estimators=5), func=np.log, inverse_func=np.exp)
    model.fit(frame, np.exp(frame["x0"]))
    return saved(folder, model, extreme(frame, random), numbers(model))


@case("a gaussian process")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 2)
    model = GaussianProcessRegressor(RBF() + WhiteKernel(), optimizer=None).fit(frame[:60], frame["x0"][:60])
    return saved(folder, model, extreme(frame, random), numbers(model), relative=1e-10, absolute=1e-10)


@case("scaled numbers as the answer")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = matrix(random, 3)
    model = StandardScaler().fit(frame)
    return saved(folder, model, extreme(frame, random), dense(model))


@case("codes as the answer")
def _(folder: Path, random: np.random.Generator) -> Case:
    frame = table(random)[["city", "store"]]
    model = OneHotEncoder(handle_unknown="ignore").fit(frame)
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
