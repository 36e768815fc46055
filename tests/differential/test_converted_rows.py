"""What converters make of every estimator of scikit-learn that they know: the analysis says *independent*, or why not.

*Independent* is held against ONNX Runtime, alone and in company.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import KernelPCA

from differential.test_sklearn_estimators import data, kinds, made
from inferd import _native
from outside.random_graphs import is_independent

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore")]

NOT_PROVEN = {
    "CategoricalNB": "unknown: ArrayFeatureExtractor",
    "GaussianProcessClassifier": "unknown: Solve",
    # It looks for missing values in all rows and fills them in by their places.
    "KNNImputer": "dependent: NonZero",
    "MultiOutputRegressor": "unknown: Concat",
    # Its labels are one row of as many as there are.
    "QuadraticDiscriminantAnalysis": "unknown: Concat",
}
CONVERTED_LEAST = 100


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def converted() -> Any:
    names: list[str] = []
    yield names
    if len(names) > 1:
        assert len(names) >= CONVERTED_LEAST


@pytest.mark.parametrize(("name", "kind"), [pytest.param(*one, id=one[0]) for one in kinds()])
def test_what_a_converter_makes_of_an_estimator_is_proven_or_told_why_not(
    name: str, kind: type, converted: list[str]
) -> None:
    from skl2onnx import to_onnx

    # Further components are noise, which is divided by next to nothing.
    estimator = KernelPCA(n_components=2) if kind is KernelPCA else made(name, kind)
    rows, targets = data(estimator, name)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2:
        return
    x = rows.astype(np.float32)
    estimator.fit(x) if targets is None else estimator.fit(x, targets)
    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    try:
        model = to_onnx(estimator, x[:1], options=options)
    except Exception:
        # The converter does not know it, or not in this form.
        return
    converted.append(name)
    kind_of, why = _native.analyse_onnx(model.SerializeToString())
    if name in NOT_PROVEN:
        assert f"{kind_of}: {why}".startswith(NOT_PROVEN[name])
        return
    assert (kind_of, why) == ("independent", "")
    given = model.graph.input[0].name
    assert is_independent(model, [{given: x[row : row + 1]} for row in (0, 10, 20, 30)]) is not False
