"""Run a scikit-learn estimator and name its outputs.

Reads a fitted estimator and rows in its form, hands on outputs in the library's own precision. Worker side only. Knows
nothing of how rows arrive.
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

__all__ = ["Outputs"]

_DENSE_MAX_BYTES = 512 << 20
"""Maximum size of a sparse output that is converted to dense: the default arena space for the outputs of one batch."""


class Outputs:
    """The prediction methods of an estimator, and the names of their outputs.

    Outputs: of classifiers ``label`` and ``probabilities``, or ``decision`` without ``predict_proba``; of outlier
    detectors ``label`` and ``decision``; of clusterings and mixtures ``label`` and ``probabilities``; of regressors
    ``prediction``; of transformers ``transformed``; of neighbours ``distances`` and ``neighbors``; of densities
    ``score``; of covariances ``distance``.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        while isinstance(self._estimator, BaseSearchCV):
            # A search only calls its best estimator.
            self._estimator = self._estimator.best_estimator_
        self._methods = list(_methods(self._estimator))
        # Subclasses of Pipeline may add behaviour between steps.
        self._shares_steps = type(self._estimator) is Pipeline and len(self._methods) > 1

    def __call__(self, rows: Any) -> Batch:
        """Return the outputs by name.

        Args:
            rows: in the estimator's form.

        Raises:
            InvalidInput: a sparse output of so many rows is too large.
            ModelFailed: an output has a type that the protocol does not support.
        """
        estimator = self._estimator
        if self._shares_steps:
            for _, step in estimator.steps[:-1]:
                if step is not None and not isinstance(step, str):
                    rows = step.transform(rows)
            estimator = estimator.steps[-1][1]
        outputs: Batch = {}
        count = rows.shape[0] if hasattr(rows, "shape") else len(rows)
        for index, (name, method) in enumerate(self._methods):
            # Copy: steps with copy=False write to their input.
            last = index == len(self._methods) - 1
            given = rows.copy() if isinstance(rows, np.ndarray) and not last else rows
            outputs |= _by_name(name, getattr(estimator, method)(given), self._estimator)
        if count == 1:
            # Some decompositions drop the row dimension for a single row.
            outputs = {name: array if array.shape[0] == 1 else array[None] for name, array in outputs.items()}
        return outputs

    def accepts(self, rows: Any) -> bool:
        """Whether the estimator accepts these rows."""
        try:
            getattr(self._estimator, self._methods[0][1])(rows)
        except Exception:  # noqa: BLE001 (any exception means that it rejects them)
            return False
        return True


def _methods(estimator: Any) -> Iterator[tuple[str, str]]:
    """Yield pairs of output name and method."""
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


def _by_name(name: str, found: Any, estimator: Any) -> Batch:
    if name == "neighbors":
        distances, places = found
        return {"distances": distances, "neighbors": places}
    if isinstance(found, list):
        # One array per output of the model, with a column per class.
        return {f"{name}_{index}": one for index, one in enumerate(found)}
    if hasattr(found, "columns"):
        return _columns(name, [found[label].to_numpy() for label in found.columns], list(found.columns))
    array = _dense(found) if hasattr(found, "toarray") else np.asarray(found)
    if array.dtype != object or array.ndim == 1:
        return {name: _plain(array, name)}
    names = list(estimator.get_feature_names_out()) if hasattr(estimator, "get_feature_names_out") else None
    return _columns(name, list(array.T), names or [f"{name}_{index}" for index in range(array.shape[1])])


def _columns(name: str, columns: list[np.ndarray], names: list[str]) -> Batch:
    """Return one matrix if all columns are of one kind; else an output per column."""
    plain = [_plain(column, label) for column, label in zip(columns, names, strict=True)]
    kinds = {"O" if column.dtype.kind in "OSUT" else "f" if column.dtype.kind in "fiu" else "b" for column in plain}
    if len(kinds) <= 1:
        return {name: np.stack(plain, axis=1)}
    return dict(zip(map(str, names), plain, strict=True))


def _plain(values: np.ndarray, name: str) -> np.ndarray:
    """Convert an array of objects to a dtype of the protocol.

    Raises:
        ModelFailed: there is none.
    """
    if values.dtype != object:
        return values
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return values
    array = np.array(values.tolist())
    if array.dtype.kind in "bfiu" and not (bool in kinds and len(kinds) > 1):
        return array
    types = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ModelFailed(
        f"output '{name}' mixes {types}, for which the protocol has no datatype\n"
        "help: fill in missing values before the last step"
    )


def _dense(sparse: Any) -> np.ndarray:
    size = sparse.shape[0] * sparse.shape[1] * sparse.dtype.itemsize
    if size > _DENSE_MAX_BYTES:
        rows = max(1, _DENSE_MAX_BYTES * sparse.shape[0] // size)
        raise InvalidInput(
            f"the output for {sparse.shape[0]} rows has {sparse.shape[1]} columns and {size >> 20} MiB\n"
            f"help: send at most {rows} rows at once, or set batch_rows_max: {rows}"
        )
    dense: np.ndarray = sparse.toarray()
    return dense
