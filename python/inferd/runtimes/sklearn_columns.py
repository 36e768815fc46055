"""What the columns of a scikit-learn estimator are, as far as the fitted object knows it.

Reads a fitted estimator, hands on a column for each feature: its name, its type, what stands for a missing value, some
plausible values, and by which transformers it goes. Worker side only: imports scikit-learn.
Does not run the estimator: what it refuses is found out by :mod:`inferd.runtimes.sklearn_refusals`.

Every column is followed through pipelines, unions and column transformers to the steps that know of it: encoders have
categories, imputers the values they fill in, vectorizers take text, and everything else of scikit-learn takes numbers.
A function or a class of the user's says nothing; a column that only meets those has no type that could be read.
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
# Where fitted estimators keep a plausible value of each of their columns.
_CENTERS = (
    "mean_", "center_", "data_min_", "theta_", "means_", "cluster_centers_", "_fit_X", "X_fit_", "support_vectors_",
)  # fmt: skip
# Where fitted estimators keep those that they pass their input on to.
_INNER = (
    "best_estimator_", "calibrated_classifiers_", "classifier_", "estimator", "estimator_", "estimators_", "regressor_",
)  # fmt: skip


class Features(NamedTuple):
    """All features of an estimator, in its order."""

    features: list[Feature]
    named: bool
    """Whether the estimator was fitted on a frame whose columns have names, each its own."""
    labels: list[Any] | None
    """The names in the fitted frame; ``None``: it was fitted on an array."""
    documents: bool
    """Whether it takes a list of texts or labels instead of rows of columns."""
    by_name: bool
    """Whether a step chooses columns by name, or is code that may."""


def features_of(estimator: Any) -> Features | None:
    """The features of ``estimator``; ``None`` where it does not say how many it takes."""
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
    for place in walk.through(estimator, list(range(count))) or ():
        # What the model gives as it came says nothing of its type.
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
    """The feature of an estimator that takes one array of texts or labels."""
    if isinstance(estimator, LabelEncoder | LabelBinarizer):
        found = Feature("y", categories=np.asarray(estimator.classes_))
    elif _takes_documents(estimator):
        found = Feature("text", text=True)
    else:
        return None
    found.column = column_of(found)
    return found


def first_step(estimator: Any) -> Any:
    """The first step that does anything: pipelines ask their first one, be it ``passthrough``."""
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
    """Follows columns through the steps of an estimator. A place is a column's number, or None: made by a step."""

    def __init__(self, features: list[Feature]) -> None:
        self.features = features
        self.by_name = False
        self._described: dict[int, str] = {}

    def through(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        """Note what ``step`` knows of the columns ``places``.

        Returns:
            The columns that it hands on; ``None`` where it is not known how many.
        """
        if step is None or isinstance(step, str):
            return [] if step == "drop" else places
        if isinstance(step, Pipeline):
            return self._pipeline(step, places)
        if isinstance(step, FeatureUnion):
            found = [self.through(one, places) for _, one in step.transformer_list]
            return None if None in found else [place for one in found if one is not None for place in one]
        if isinstance(step, ColumnTransformer):
            return self._columns(step, places)
        if getattr(step, "_preprocessor", None) is not None:
            # Gradient boosting with categories has a column transformer of its own.
            return self.through(step._preprocessor, places)
        for place in places:
            self._pass(place, step)
        return self._leaf(step, places)

    def reads(self, place: int | None, name: str) -> None:
        """Note that ``name`` takes the column and says nothing of its type."""
        if place is not None:
            self.features[place].reads.append(name)

    def _pipeline(self, step: Any, places: list[int | None]) -> list[int | None] | None:
        found: list[int | None] | None = places
        for _, one in step.steps:
            # Resamplers of imbalanced-learn only act while a model is fitted.
            if found is not None and not (hasattr(one, "fit_resample") and not hasattr(one, "transform")):
                found = self.through(one, found)
        return found

    def _columns(self, step: Any, places: list[int | None]) -> list[int | None]:
        outputs = step.output_indices_
        handed: list[int | None] = [None] * max((part.stop for part in outputs.values()), default=0)
        for name, one, columns in step.transformers_:
            self.by_name |= _are_names(columns)
            taken = [places[index] for index in step._transformer_to_input_indices.get(name, ()) if index < len(places)]
            if not taken:
                continue
            found = self.through(one, taken)
            part = outputs[name]
            if found is not None and len(found) == part.stop - part.start:
                handed[part] = found
        return handed

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
                    self._note_near(place, value)
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
            self._note_centers(getattr(step, name, None), places)
        followed = whole = False
        for inner, chosen in _inner(step):
            count = len(places) if chosen is None else len(chosen)
            if getattr(inner, "n_features_in_", count) == count:
                followed, whole = True, whole or chosen is None or len(set(chosen)) == len(places)
                self.through(inner, places if chosen is None else [places[index] for index in chosen])
        package = type(step).__module__.partition(".")[0]
        if _has_categories(step):
            for feature in self._features(places):
                feature.alien = feature.alien or f"pandas categories that only the {package} booster in it has"
        if package in _BOOSTERS or (package == "sklearn" and not whole) or getattr(step, "passthrough", False) is True:
            for feature in self._features(places):
                feature.number = True
        elif not followed:
            for place in places:
                self.reads(place, type(step).__name__)
        self.by_name |= package != "sklearn"

    def _note_centers(self, centers: Any, places: list[int | None]) -> None:
        if not isinstance(centers, np.ndarray) or centers.dtype.kind not in "fiu" or not centers.size:
            return
        if centers.shape[-1:] == (len(places),):
            for place, value in zip(places, centers.reshape(-1, len(places))[0], strict=True):
                self._note_near(place, value)

    def _note_near(self, place: int | None, value: Any) -> None:
        if place is not None and self.features[place].near is None and np.isfinite(value):
            self.features[place].near = float(value)

    def _features(self, places: Iterable[int | None]) -> Iterator[Feature]:
        for place in places:
            if place is not None:
                yield self.features[place]

    def _pass(self, place: int | None, step: Any) -> None:
        if place is None:
            return
        if id(step) not in self._described:
            self._described[id(step)] = repr(step)
        self.features[place].path.append(self._described[id(step)])


def _are_names(columns: Any) -> bool:
    """Whether a column transformer chooses these columns by their names: an array has none then."""
    if isinstance(columns, slice):
        return isinstance(columns.start, str) or isinstance(columns.stop, str)
    return isinstance(columns, str) or (np.iterable(columns) and any(isinstance(one, str) for one in columns))


def _inner(step: Any) -> Iterator[tuple[Any, Sequence[int] | None]]:
    """Fitted estimators that ``step`` passes its input on to, and which of its columns; None: all."""
    taken = getattr(step, "estimators_features_", None)
    support = getattr(step, "support_", None)
    for name in _INNER:
        inner = getattr(step, name, None)
        # What an ensemble has as estimator_ is the pattern of its members, and is not fitted itself.
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
                # Trees of a forest are alike.
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
