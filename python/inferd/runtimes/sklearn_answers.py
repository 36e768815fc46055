"""What a scikit-learn estimator answers, as arrays by name.

Reads a fitted estimator and rows in its form, hands on outputs in the library's own precision. Worker side only.
Does not know how rows came in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from inferd.errors import InvalidInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.runtimes.base import Batch

__all__ = ["Answers"]

_DENSE_MAX_BYTES = 512 << 20
"""Largest sparse answer that is made dense. By default a replica has as much memory for the outputs of one batch."""


class Answers:
    """The methods of an estimator that answer, and what their results are called.

    Outputs: of classifiers ``label`` and ``probabilities``, or ``decision`` where there is no ``predict_proba``; of
    outlier detectors ``label`` and ``decision``; of clusterings and mixtures ``label``, and ``probabilities``; of
    regressors ``prediction``; of transformers ``transformed``; of neighbours ``distances`` and ``neighbors``; of
    densities ``score``; of covariances ``distance``.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        while isinstance(self._estimator, BaseSearchCV):
            # A search asks its best estimator and nothing else.
            self._estimator = self._estimator.best_estimator_
        self._methods = list(_methods(self._estimator))
        # Subclasses may do more between their steps.
        self._shares_steps = type(self._estimator) is Pipeline and len(self._methods) > 1

    def __call__(self, rows: Any) -> Batch:
        """Outputs by name, row by row.

        Args:
            rows: in the estimator's form.

        Raises:
            InvalidInput: a sparse answer to so many rows would be too large.
            ModelFailed: an answer holds what the protocol can't carry.
        """
        estimator = self._estimator
        if self._shares_steps:
            for _, step in estimator.steps[:-1]:
                if step is not None and not isinstance(step, str):
                    rows = step.transform(rows)
            estimator = estimator.steps[-1][1]
        outputs: Batch = {}
        count = rows.shape[0] if hasattr(rows, "shape") else len(rows)
        for place, (name, method) in enumerate(self._methods):
            # Steps with copy=False write into what they are given.
            last = place == len(self._methods) - 1
            given = rows.copy() if isinstance(rows, np.ndarray) and not last else rows
            outputs |= _named(name, getattr(estimator, method)(given), self._estimator)
        if count == 1:
            # Some decompositions leave the dimension of rows out of the answer to one.
            outputs = {name: array if array.shape[0] == 1 else array[None] for name, array in outputs.items()}
        return outputs

    def answers(self, rows: Any) -> bool:
        """Whether the library takes these rows."""
        try:
            getattr(self._estimator, self._methods[0][1])(rows)
        except Exception:  # noqa: BLE001 (whatever it raises, it does not take them)
            return False
        return True


def _methods(estimator: Any) -> Iterator[tuple[str, str]]:
    """Output and method."""
    if not hasattr(estimator, "predict"):
        for name, method in (
            ("transformed", "transform"),
            ("neighbors", "kneighbors"),
            ("score", "score_samples"),
            ("distance", "mahalanobis"),
        ):
            if hasattr(estimator, method):
                yield name, method
                return
        return
    classifier, outliers = is_classifier(estimator), is_outlier_detector(estimator)
    probable = hasattr(estimator, "predict_proba")
    labels = classifier or outliers or is_clusterer(estimator) or probable
    yield "label" if labels else "prediction", "predict"
    if probable:
        yield "probabilities", "predict_proba"
    elif (classifier or outliers) and hasattr(estimator, "decision_function"):
        yield "decision", "decision_function"


def _named(name: str, found: Any, estimator: Any) -> Batch:
    if name == "neighbors":
        distances, places = found
        return {"distances": distances, "neighbors": places}
    if isinstance(found, list):
        # One array for each output of the model, each with as many columns as that has classes.
        return {f"{name}_{place}": one for place, one in enumerate(found)}
    if hasattr(found, "columns"):
        return _columns(name, [found[label].to_numpy() for label in found.columns], list(found.columns))
    array = _dense(found) if hasattr(found, "toarray") else np.asarray(found)
    if array.dtype != object or array.ndim == 1:
        return {name: _plain(array, name)}
    names = list(estimator.get_feature_names_out()) if hasattr(estimator, "get_feature_names_out") else None
    return _columns(name, list(array.T), names or [f"{name}_{place}" for place in range(array.shape[1])])


def _columns(name: str, columns: list[np.ndarray], names: list[str]) -> Batch:
    """One matrix where all columns are of one kind; else an output for each."""
    plain = [_plain(column, label) for column, label in zip(columns, names, strict=True)]
    kinds = {"O" if column.dtype.kind in "OSUT" else "f" if column.dtype.kind in "fiu" else "b" for column in plain}
    if len(kinds) <= 1:
        return {name: np.stack(plain, axis=1)}
    return dict(zip(map(str, names), plain, strict=True))


def _plain(values: np.ndarray, name: str) -> np.ndarray:
    """An array of one type that the protocol has, from one of objects.

    Raises:
        ModelFailed: there is no such type.
    """
    if values.dtype != object:
        return values
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return values
    array = np.array(values.tolist())
    if array.dtype.kind in "bfiu" and not (bool in kinds and len(kinds) > 1):
        return array
    held = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ModelFailed(
        f"'{name}' of the answer holds {held}, and the protocol has no type for both\n"
        "help: fill in what is missing before the last step"
    )


def _dense(sparse: Any) -> np.ndarray:
    size = sparse.shape[0] * sparse.shape[1] * sparse.dtype.itemsize
    if size > _DENSE_MAX_BYTES:
        rows = max(1, _DENSE_MAX_BYTES * sparse.shape[0] // size)
        raise InvalidInput(
            f"the answer to {sparse.shape[0]} rows has {sparse.shape[1]} columns, which is {size >> 20} MiB\n"
            f"help: send at most {rows} rows at once, or set batch_rows_max: {rows}"
        )
    dense: np.ndarray = sparse.toarray()
    return dense
