"""Every estimator of scikit-learn that is fitted on numbers or texts answers as the library, or the docs say why not."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from sklearn.base import is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import all_estimators, get_tags

from inferd.errors import InferdError
from inferd.runtimes import sklearn
from inferd.spec.settings import ModelSpec
from inferd.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.differential

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "serve-any-model.md"
ROWS = 60
METHODS = {
    "label": "predict",
    "prediction": "predict",
    "probabilities": "predict_proba",
    "decision": "decision_function",
    "transformed": "transform",
    "distances": "kneighbors",
    "score": "score_samples",
    "distance": "mahalanobis",
}
SETTINGS = {
    **{name: {"n_components": 1} for name in ("CCA", "PLSCanonical", "PLSSVD")},
    **{name: {"n_components": 2} for name in ("GaussianRandomProjection", "SparseRandomProjection")},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SpectralBiclustering": {"n_components": 4, "n_best": 2},
}
# Their types are known where they are steps: alone they give what they are given.
DECLARED = {"FunctionTransformer", "MissingIndicator"}


def kinds() -> Iterator[tuple[str, type]]:
    for name, kind in all_estimators():
        # Those are not chosen: others are wrapped in them.
        if name not in {"FrozenEstimator", "PatchExtractor"}:
            yield name, kind


def made(name: str, kind: type) -> Any:
    """An estimator with what it can't do without."""
    classifier = name.endswith(("Classifier", "ClassifierCV", "Chain")) and not name.startswith("Regressor")
    inner = LogisticRegression() if classifier else Ridge()
    needed = {
        "estimator": inner,
        "estimators": [("one", inner), ("other", inner)],
        "steps": [("scaled", StandardScaler()), ("last", inner)],
        "transformers": [("scaled", StandardScaler(), [0, 2])],
        "transformer_list": [("scaled", StandardScaler()), ("same", FunctionTransformer(np.abs))],
        "param_grid": {"alpha": [1, 2]},
        "param_distributions": {"alpha": [1, 2]},
        "dictionary": np.eye(4),
    }
    given = inspect.signature(kind).parameters
    arguments = {key: needed[key] for key, one in given.items() if one.default is one.empty and key in needed}
    small = {"n_estimators": 5, "random_state": 0, "perplexity": 5}
    arguments |= {key: value for key, value in small.items() if key in given and key not in arguments}
    return kind(**arguments, **SETTINGS.get(name, {}))


def data(estimator: Any, name: str) -> tuple[Any, Any]:
    """Rows and targets that it can be fitted on."""
    random = np.random.default_rng(0)
    x = np.abs(random.normal(size=(ROWS, 4)))
    numbers = x[:, 0] * 2 + x[:, 1]
    two = (x[:, 0] > 0.7).astype(int)
    tags = get_tags(estimator)
    texts = [f"some words {place % 5} and {'good' if place % 2 else 'bad'}" for place in range(ROWS)]
    special = {
        "LabelEncoder": (two, None),
        "NeighborhoodComponentsAnalysis": (x, two),
        "LabelBinarizer": (two, None),
        "MultiLabelBinarizer": ([("a", "b"), ("b",)] * 30, None),
        "DictVectorizer": ([{"a": 1, "b": "c"}] * ROWS, None),
        "KernelCenterer": (x @ x.T, None),
        "IsotonicRegression": (x[:, :1], numbers),
    }
    if name in special:
        return special[name]
    if tags.input_tags.string and not tags.input_tags.two_d_array:
        return texts, two
    classifier = is_classifier(estimator)
    if tags.target_tags.multi_output and not tags.target_tags.single_output:
        return x, np.stack([two, 1 - two], 1) if classifier else np.stack([numbers, -numbers], 1)
    return x, two if classifier else numbers


@pytest.fixture(scope="module")
def not_served() -> set[str]:
    """What the document says of scikit-learn's own."""
    section = DOCUMENT.read_text().partition("These can't be served:")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for first in firsts for name in re.findall(r"`(\w+)`", first)}


def test_the_list_of_what_can_not_be_served_names_estimators(not_served: set[str]) -> None:
    assert not_served <= {name for name, _ in all_estimators()}


@pytest.mark.parametrize(("name", "kind"), [pytest.param(*one, id=one[0]) for one in kinds()])
@pytest.mark.filterwarnings("ignore")
def test_every_estimator_answers_as_the_library_or_is_listed(
    name: str, kind: type, not_served: set[str], tmp_path: Path
) -> None:
    estimator = made(name, kind)
    rows, targets = data(estimator, name)
    estimator.fit(rows) if targets is None else estimator.fit(rows, targets)
    settings = {}
    if name in DECLARED:
        settings["inputs"] = (TensorSpec("x", "FP64", (-1, 4)),)
    try:
        skops.io.dump(estimator, tmp_path / "model.skops")
        with warnings.catch_warnings():
            model = sklearn.load(sklearn.compose(tmp_path / "model.skops", ModelSpec(**settings), 1).load)
    except (InferdError, skops.io.exceptions.UnsupportedTypeException):
        assert name in not_served
        return
    assert name not in not_served
    (spec,) = model.signature.inputs
    first = rows[:20]
    sent = np.array([text.encode() for text in first], object) if spec.datatype == "BYTES" else np.asarray(first, float)
    found = model.predict({spec.name: sent})
    assert set(found) == {output.name for output in model.signature.outputs}
    for output, values in found.items():
        if output == "neighbors":
            continue
        wanted = getattr(estimator, METHODS[output.rstrip("_0123456789")])(first)
        if isinstance(wanted, tuple):
            wanted = wanted[0]
        if isinstance(wanted, list):
            wanted = wanted[int(output.rpartition("_")[2])]
        if hasattr(wanted, "toarray"):
            wanted = wanted.toarray()
        assert values.dtype == wanted.dtype
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(values, wanted, rtol=1e-12, atol=1e-12)
        else:
            assert np.array_equal(values, wanted)
