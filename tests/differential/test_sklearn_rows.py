"""Every estimator of scikit-learn, alone and together: what is called independent is, and no trap is batched.

The truth is the library's: rows of several magnitudes, each alone, against all of them in both orders.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.decomposition import MiniBatchNMF
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (it makes the class importable)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from differential.test_sklearn_estimators import data, kinds, made
from inferd.runtimes import sklearn
from inferd.runtimes.sklearn_independent import independent
from inferd.runtimes.sklearn_outputs import Outputs
from inferd.spec.settings import ModelSpec
from inferd.worker.batching import decide_batching

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore")]


def strangers(rows: Any) -> Any:
    """Rows that were fitted on, and others of several magnitudes."""
    if not (isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind == "f"):
        return rows[:20]
    random = np.random.default_rng(5)
    normal = random.normal(size=(12, rows.shape[1]))
    return np.concatenate([rows[:12], normal, normal * 1e3, normal[:1] * 0, rows[:3], np.abs(normal) * 100])


def mixes(estimator: Any, rows: Any) -> str | None:
    """The output of a row that changes in company; ``None``: none does, as far as rows are answered alone."""
    answers = Outputs(estimator)
    able, lone = [], []
    for row in range(len(rows)):
        try:
            lone.append(answers(rows[row : row + 1]))
        except Exception:
            continue
        able.append(row)
    chosen = rows[able] if isinstance(rows, np.ndarray) else [rows[row] for row in able]
    for order in (slice(None), slice(None, None, -1)):
        together = answers(chosen[order])
        for name, values in together.items():
            for place, one in enumerate(lone[order]):
                if not equal(values[place], one[name][0]):
                    return name
    return None


def equal(one: Any, other: Any) -> bool:
    if np.asarray(other).dtype.kind != "f":
        return np.array_equal(one, other)
    size = np.abs(other[np.isfinite(other)]).max(initial=1.0) if np.ndim(other) else 1.0
    return np.allclose(one, other, rtol=1e-6, atol=1e-9 * size, equal_nan=True)


@pytest.mark.parametrize(("name", "kind"), [pytest.param(*one, id=one[0]) for one in kinds()])
def test_an_estimator_that_is_called_independent_is(name: str, kind: type) -> None:
    estimator = made(name, kind)
    rows, targets = data(estimator, name)
    estimator.fit(rows) if targets is None else estimator.fit(rows, targets)
    if independent(estimator) is None:
        assert name not in {"Ridge", "LogisticRegression", "RandomForestClassifier", "StandardScaler", "Pipeline"}
        return
    assert mixes(estimator, strangers(rows)) is None


X = np.abs(np.random.default_rng(0).normal(size=(60, 4)))
Y = (X[:, 0] > 0.7).astype(int)
HOLES = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)


def squared(x: Any) -> Any:
    return x**2


COMPOSED = {
    "a pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), True),
    "a union": (make_pipeline(make_union(StandardScaler(), FunctionTransformer(np.sqrt)), SVC()), True),
    "columns": (
        make_pipeline(make_column_transformer((StandardScaler(), [0, 2]), remainder="passthrough"), SVC()),
        True,
    ),
    "imputed": (make_pipeline(SimpleImputer(add_indicator=False), RandomForestClassifier(3)), True),
    "stacked": (StackingClassifier([("a", SVC()), ("b", LogisticRegression())]), True),
    "a search": (GridSearchCV(LogisticRegression(), {"C": [1, 2]}), True),
    "code of the user's": (make_pipeline(FunctionTransformer(squared), LogisticRegression()), False),
    "numpy's own that is no ufunc": (make_pipeline(FunctionTransformer(np.flip), LogisticRegression()), False),
    "neighbours in a stack": (StackingClassifier([("a", KNeighborsClassifier()), ("b", LogisticRegression())]), False),
    "a kernel of the user's": (SVC(kernel=lambda a, b: a @ b.T), False),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_what_is_composed_is_as_independent_as_its_parts(name: str) -> None:
    estimator, known = COMPOSED[name]
    assert (independent(estimator.fit(X, Y)) is not None) is known


def test_texts_and_categories_are_answered_row_by_row() -> None:
    texts = ["good day", "bad day", "a good one", "so bad"] * 5
    assert independent(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5))
    assert not independent(TfidfVectorizer(tokenizer=str.split).fit(texts))
    assert independent(OneHotEncoder().fit(X.round()))


def served(estimator: Any, folder: Path) -> Any:
    skops.io.dump(estimator, folder / "model.skops")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load = sklearn.compose(folder / "model.skops", ModelSpec(batch_rows_max=32), 1).load
        return decide_batching(sklearn.load(load), load)


TRAPS = {
    "imputed from other columns": IterativeImputer(max_iter=3, initial_strategy="constant", fill_value=0).fit(HOLES),
    "factors that converge together": MiniBatchNMF(n_components=2, random_state=0).fit(X),
    "answers that are drawn": DummyClassifier(strategy="uniform", random_state=0).fit(X, Y),
    "drawn anew": DummyClassifier(strategy="stratified").fit(X, Y),
}


@pytest.mark.parametrize("name", TRAPS)
def test_an_estimator_whose_rows_mix_is_not_batched(name: str, tmp_path: Path) -> None:
    signature = served(TRAPS[name], tmp_path)
    assert not signature.batched
    assert signature.verdict.by == "probe"


def test_a_forest_is_batched_without_a_probe(tmp_path: Path) -> None:
    signature = served(RandomForestClassifier(3, random_state=0).fit(X, Y), tmp_path)
    assert signature.batched
    assert (signature.verdict.by, signature.verdict.rows) == ("analysis", 0)
    assert signature.verdict.why == "the trees of RandomForestClassifier answer row by row"


def test_what_is_not_on_the_list_is_probed(tmp_path: Path) -> None:
    signature = served(KNeighborsClassifier(3).fit(X, Y), tmp_path)
    assert signature.batched
    assert signature.verdict.by == "probe"
