"""Derive the input columns of a scikit-learn estimator from the fitted object.

Reads a fitted estimator, hands on a column per feature: name, type, representation of missing values, plausible values,
and the transformers it passes through. Worker side only: imports scikit-learn. Does not run the estimator and knows
nothing of what it rejects: see :mod:`inferd.runtimes.sklearn_limits`.

Every column is followed through pipelines, unions and column transformers to the steps that know its type: encoders
have categories, imputers fill values, vectorizers take text, and all else in scikit-learn takes numbers. User functions
and classes reveal no type; a column that only reaches those has an unknown type.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, LabelBinarizer, LabelEncoder
from sklearn.utils.validation import check_array

from inferd.runtimes.sklearn_features import EXAMPLES, WORDS, Feature, column_of, is_missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Features", "features_of", "first_step"]

_NUMERIC = frozenset({"numpy", "scipy"})
_BOOSTERS = frozenset({"catboost", "lightgbm", "xgboost"})
# Attributes in which fitted estimators keep a plausible value of each column.
_CENTERS = (
    "mean_", "center_", "data_min_", "theta_", "means_", "cluster_centers_", "_fit_X", "X_fit_", "support_vectors_",
)  # fmt: skip
# Attributes in which fitted estimators keep the estimators that they delegate to.
_INNER = (
    "best_estimator_", "calibrated_classifiers_", "classifier_", "estimator", "estimator_", "estimators_", "regressor_",
)  # fmt: skip


class Features(NamedTuple):
    """The features of an estimator, in its order."""

    features: list[Feature]
    named: bool
    """Whether the estimator was fitted on a frame with distinct column names."""
    labels: list[Any] | None
    """Column labels of the fitted frame; ``None``: it was fitted on an array."""
    documents: bool
    """Whether it takes a list of texts or labels instead of columns."""
    by_name: bool
    """Whether a step selects columns by name, or is user code that may."""


def features_of(estimator: Any) -> Features | None:
    """Return the features of ``estimator``; ``None`` if it does not know their number."""
    single = _single(estimator)
    if single is not None:
        return Features([single], named=False, labels=None, documents=True, by_name=False)
    fitted = first_step(estimator)
    labels: Any = getattr(fitted, "feature_names_in_", None)
    count = getattr(fitted, "n_features_in_", None)
    if count is None:
        count = 1 if hasattr(fitted, "X_thresholds_") else None
    if count is None:
        return None
    named = labels is not None and len(set(labels)) == len(labels)
    names = list(map(str, labels)) if named else [f"x{place}" for place in range(count)]
    walk = _Walk([Feature(name) for name in names])
    for place in walk.follow(estimator, list(range(count))) or ():
        # A passed-through column reveals no type.
        walk.reads(place, "the output")
    for feature in walk.features:
        feature.column = column_of(feature)
    return Features(
        walk.features,
        named,
        None if labels is None else list(labels),
        documents=False,
        by_name=walk.by_name and labels is not None,
    )


def _single(estimator: Any) -> Feature | None:
    """Return the feature of an estimator that takes one array of texts or labels."""
    if isinstance(estimator, LabelEncoder | LabelBinarizer):
        found = Feature("y", categories=np.asarray(estimator.classes_))
    elif _takes_documents(estimator):
        found = Feature("text", text=True)
    else:
        return None
    found.column = column_of(found)
    return found


def first_step(estimator: Any) -> Any:
    """Return the first effective step of nested pipelines, skipping ``passthrough``."""
    while isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
        if not steps:
            return None
        estimator = steps[0]
    return estimator


def _takes_documents(estimator: Any) -> bool:
    if isinstance(estimator, CountVectorizer | HashingVectorizer):
        return True
    if isinstance(estimator, Pipeline):
        return _takes_documents(first_step(estimator))
    if isinstance(estimator, FeatureUnion):
        return any(_takes_documents(step) for _, step in estimator.transformer_list)
    if isinstance(estimator, ColumnTransformer):
        return False
    return any(_takes_documents(inner) for inner, _ in _inner(estimator))


class _Walk:
    """Follows columns through the steps of an estimator. A place is a column's index, or None for a derived column."""

    def __init__(self, features: list[Feature]) -> None:
        self.features = features
        self.by_name = False
        self._described: dict[int, str] = {}

    def follow(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        """Record what ``step`` knows about the columns ``places``.

        Returns:
            The columns that it passes on; ``None`` if their number is unknown.
        """
        if step is None or isinstance(step, str):
            return [] if step == "drop" else places
        if isinstance(step, Pipeline):
            return self._pipeline(step, places)
        if isinstance(step, FeatureUnion):
            found = [self.follow(one, places) for _, one in step.transformer_list]
            return None if None in found else [place for one in found if one is not None for place in one]
        if isinstance(step, ColumnTransformer):
            return self._columns(step, places)
        if getattr(step, "_preprocessor", None) is not None:
            # Gradient boosting with categories has its own column transformer.
            return self.follow(step._preprocessor, places)
        for place in places:
            self._record_path(place, step)
        return self._leaf(step, places)

    def reads(self, place: int | None, name: str) -> None:
        """Record that ``name`` takes the column and reveals no type."""
        if place is not None:
            self.features[place].reads.append(name)

    def _pipeline(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        found: list[int | None] | None = places
        for _, one in step.steps:
            # Resamplers of imbalanced-learn act only during fitting.
            if found is not None and not (hasattr(one, "fit_resample") and not hasattr(one, "transform")):
                found = self.follow(one, found)
        return found

    def _columns(self, step: Any, places: list[int | None]) -> list[int | None]:
        outputs = step.output_indices_
        passed: list[int | None] = [None] * max((part.stop for part in outputs.values()), default=0)
        for name, one, columns in step.transformers_:
            self.by_name |= _selects_by_name(columns)
            taken = [places[index] for index in step._transformer_to_input_indices.get(name, ()) if index < len(places)]
            if not taken:
                continue
            found = self.follow(one, taken)
            part = outputs[name]
            if found is not None and len(found) == part.stop - part.start:
                passed[part] = found
        return passed

    def _leaf(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        if isinstance(step, CountVectorizer | HashingVectorizer):
            for feature in self._features(places):
                feature.text, feature.words = True, _words(step)
            return None
        if hasattr(step, "categories_"):
            for place, categories in zip(places, step.categories_, strict=False):
                self._encoded(place, np.asarray(categories))
            return None
        if isinstance(step, SimpleImputer):
            return self._imputed(step, places)
        if isinstance(step, MissingIndicator):
            for place in places:
                self.reads(place, type(step).__name__)
            return None
        if isinstance(step, FunctionTransformer):
            return self._function(step, places)
        self._other(step, places)
        return None

    def _encoded(self, place: int | None, categories: np.ndarray) -> None:
        if place is None:
            return
        feature = self.features[place]
        if feature.categories is None:
            feature.categories = categories
        missing = [value for value in categories.tolist() if is_missing(value)]
        feature.path.append(("missing", any(value is None for value in missing), len(missing)))
        feature.none |= any(value is None for value in missing) and len(missing) == 1

    def _imputed(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        of_objects = step._fit_dtype.kind == "O"
        kept = []
        for place, value in zip(places, step.statistics_.tolist(), strict=False):
            dropped = is_missing(value) and not step.keep_empty_features
            if not dropped:
                kept.append(place)
            if place is None:
                continue
            feature = self.features[place]
            feature.none |= step.missing_values is None
            if not of_objects or dropped:
                feature.number = True
                if not dropped:
                    self._record_near(place, value)
            elif feature.filled is None:
                feature.filled = value
        return None if step.add_indicator else kept

    def _function(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        function = getattr(step.func, "func", step.func)
        module = getattr(function, "__module__", None) or type(function).__module__
        if step.validate or function is check_array or module.partition(".")[0] in _NUMERIC:
            for feature in self._features(places):
                feature.number = True
        elif step.func is not None:
            self.by_name = True
            for place in places:
                self.reads(place, f"the function {getattr(step.func, '__name__', step.func)}")
            return None
        return places if step.func is None else [None] * len(places)

    def _other(self, step: Any, places: list[int | None]) -> None:
        for name in _CENTERS:
            self._record_centers(getattr(step, name, None), places)
        followed = whole = False
        for inner, chosen in _inner(step):
            count = len(places) if chosen is None else len(chosen)
            if getattr(inner, "n_features_in_", count) == count:
                followed, whole = True, whole or chosen is None or len(set(chosen)) == len(places)
                self.follow(inner, places if chosen is None else [places[index] for index in chosen])
        package = type(step).__module__.partition(".")[0]
        if _has_categories(step):
            for feature in self._features(places):
                feature.unsupported = feature.unsupported or f"pandas categories of a {package} booster"
        if package in _BOOSTERS or (package == "sklearn" and not whole) or getattr(step, "passthrough", False) is True:
            for feature in self._features(places):
                feature.number = True
        elif not followed:
            for place in places:
                self.reads(place, type(step).__name__)
        self.by_name |= package != "sklearn"

    def _record_centers(self, centers: Any, places: list[int | None]) -> None:
        if not isinstance(centers, np.ndarray) or centers.dtype.kind not in "fiu" or not centers.size:
            return
        if centers.shape[-1:] == (len(places),):
            for place, value in zip(places, centers.reshape(-1, len(places))[0], strict=True):
                self._record_near(place, value)

    def _record_near(self, place: int | None, value: Any) -> None:
        if place is not None and self.features[place].near is None and np.isfinite(value):
            self.features[place].near = float(value)

    def _features(self, places: Iterable[int | None]) -> Iterator[Feature]:
        for place in places:
            if place is not None:
                yield self.features[place]

    def _record_path(self, place: int | None, step: Any) -> None:
        if place is None:
            return
        if id(step) not in self._described:
            self._described[id(step)] = repr(step)
        self.features[place].path.append(self._described[id(step)])


def _selects_by_name(columns: Any) -> bool:
    """Whether a column transformer selects these columns by name, which an array lacks."""
    if isinstance(columns, slice):
        return isinstance(columns.start, str) or isinstance(columns.stop, str)
    return isinstance(columns, str) or (np.iterable(columns) and any(isinstance(one, str) for one in columns))


def _inner(step: Any) -> Iterator[tuple[Any, Sequence[int] | None]]:
    """Yield fitted estimators that ``step`` delegates to, and the indices of their columns; None: all."""
    taken = getattr(step, "estimators_features_", None)
    support = getattr(step, "support_", None)
    for name in _INNER:
        inner = getattr(step, name, None)
        # An ensemble's estimator_ is the unfitted prototype of its members.
        pattern = (name == "estimator" and not _frozen(step)) or (name == "estimator_" and hasattr(step, "estimators_"))
        if inner is None or isinstance(inner, str) or pattern:
            continue
        several = isinstance(inner, list | tuple | np.ndarray)
        members = inner.ravel() if isinstance(inner, np.ndarray) else inner if several else [inner]
        for place, member in enumerate(members):
            one = getattr(member, "estimator", member) if name == "calibrated_classifiers_" else member
            chosen = taken[place] if taken is not None and name == "estimators_" else None
            if name == "estimator_" and isinstance(support, np.ndarray) and support.dtype == bool:
                chosen = np.flatnonzero(support)
            if isinstance(one, BaseEstimator) or hasattr(one, "predict") or hasattr(one, "transform"):
                yield one, chosen
            if chosen is None and hasattr(one, "tree_"):
                # One tree of a forest suffices.
                break


def _frozen(step: Any) -> bool:
    return type(step).__name__ == "FrozenEstimator"


def _words(vectorizer: Any) -> tuple[str, ...]:
    known = tuple(islice(getattr(vectorizer, "vocabulary_", ()), EXAMPLES))
    return known if known and all(isinstance(word, str) for word in known) else WORDS


def _has_categories(step: Any) -> bool:
    """Whether a booster was fitted on pandas categories, whose codes only its own frame has."""
    booster = getattr(step, "_Booster", None)
    if getattr(booster, "pandas_categorical", None):
        return True
    return "c" in (getattr(booster, "feature_types", None) or ())
