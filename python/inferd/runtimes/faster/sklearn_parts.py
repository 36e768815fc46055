"""Convert parts of scikit-learn models to ONNX for which skl2onnx yields FP32 or nothing.

Reads fitted estimators, adds their computation to a graph, in their order and precision. Knows nothing of pipelines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble._iforest import _average_path_length

from inferd.runtimes.faster.graph import FP32, FP64, INT64, sigmoid
from inferd.runtimes.faster.trees import AT_MOST, MEMBER, Tree, add_trees

if TYPE_CHECKING:
    from inferd.runtimes.faster.graph import Builder

__all__ = ["boosted", "boosted_by_histograms", "forest", "imputed", "isolation", "linear_label", "polynomial"]


# -- trees and forests ----------------------------------------------------------------------------------------------


def forest(graph: Builder, x: str, model: Any) -> dict[str, str]:
    """Add the mean over trees; a single tree is a forest of one."""
    if model.n_outputs_ != 1 and hasattr(model, "classes_"):
        raise NotImplementedError("a classifier of several outputs")
    trees = [member.tree_ for member in getattr(model, "estimators_", [model])]
    sums = _sums(graph, _tree_input(graph, x), trees)
    means = graph.add("Div", sums, graph.constant(np.float64(len(trees))))
    if not hasattr(model, "classes_"):
        return {"prediction": means}
    return {"label": _label(graph, model, graph.add("ArgMax", means, axis=1, keepdims=0)), "probabilities": means}


def isolation(graph: Builder, x: str, model: Any) -> dict[str, str]:
    """Add ``IsolationForest``: scores from path lengths, and labels by an offset."""
    lengths = zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)
    trees = [
        replace(_tree(member.tree_, path + average - 1.0), feature=np.asarray(features)[member.tree_.feature])
        for member, features, (path, average) in zip(
            model.estimators_, model.estimators_features_, lengths, strict=True
        )
    ]
    (usual,) = _average_path_length([model._max_samples])
    depths = add_trees(graph, _tree_input(graph, x), trees, 1, np.float64)
    part = graph.add("Div", depths, graph.constant(np.float64(len(trees) * usual)))
    scores = graph.add("Pow", graph.constant(np.float64(2)), graph.add("Neg", part))
    decision = graph.add("Sub", graph.add("Neg", scores), graph.constant(np.float64(model.offset_)))
    outside = graph.add("Less", decision, graph.constant(np.float64(0)))
    label = graph.add("Where", outside, graph.constant(np.int64(-1)), graph.constant(np.int64(1)))
    return {"label": label, "scores": decision}


def _sums(graph: Builder, x: str, trees: list[Any]) -> str:
    """Add the sum of leaf values per row, of shape (rows, values of a leaf)."""
    leaf_values = [tree.value.reshape(tree.node_count, -1) for tree in trees]
    if leaf_values[0].shape[1] == 1:
        return add_trees(graph, x, [_tree(*one) for one in zip(trees, leaf_values, strict=True)], 1, np.float64)
    # Leaves of the operator hold one number: the row of a table with the values.
    offsets = np.cumsum([0, *(len(values) for values in leaf_values)])
    numbered = [
        _tree(tree, offset + np.arange(tree.node_count), target)
        for target, (tree, offset) in enumerate(zip(trees, offsets[:-1], strict=True))
    ]
    indices = graph.add("Cast", add_trees(graph, x, numbered, len(trees), np.float64), to=INT64)
    values = graph.add("Gather", graph.constant(np.concatenate(leaf_values)), indices, axis=0)
    return graph.add("ReduceSum", values, graph.constant(np.array([1])), keepdims=0)


def _tree(tree: Any, values: np.ndarray, target: int = 0) -> Tree:
    return Tree(
        leaf=tree.children_left < 0,
        feature=tree.feature,
        threshold=tree.threshold,
        yes=tree.children_left,
        no=tree.children_right,
        missing=np.asarray(tree.missing_go_to_left, bool),
        value=values.reshape(-1),
        target=target,
    )


def _tree_input(graph: Builder, x: str) -> str:
    """Round the input to FP32 and compare in FP64, like trees and forests."""
    return graph.add("Cast", graph.add("Cast", x, to=FP32), to=FP64)


# -- gradient boosting ----------------------------------------------------------------------------------------------


def boosted(graph: Builder, x: str, boosting: Any) -> dict[str, str]:
    """Add ``GradientBoosting``: a constant, and trees scaled by the learning rate."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if boosting.init_ != "zero" and not isinstance(boosting.init_, DummyClassifier | DummyRegressor):
        raise NotImplementedError(f"init={type(boosting.init_).__name__}")
    (first,) = boosting._raw_predict_init(np.zeros((1, boosting.n_features_in_), np.float32))
    trees = [
        _tree(member.tree_, boosting.learning_rate * member.tree_.value.reshape(-1), target)
        for stage in boosting.estimators_
        for target, member in enumerate(stage)
    ]
    raw = _from_first(graph, _tree_input(graph, x), first, trees)
    if not hasattr(boosting, "classes_"):
        return {"prediction": raw}
    if boosting.loss == "exponential":
        # The exponential loss uses half of the logit.
        twice = graph.add("Mul", raw, graph.constant(np.float64(2)))
        return _classified(graph, boosting, raw, twice, "GreaterOrEqual")
    return _classified(graph, boosting, raw, raw, "GreaterOrEqual")


def boosted_by_histograms(graph: Builder, x: str, boosting: Any) -> dict[str, str]:
    """Add ``HistGradientBoosting``: a constant, and trees in FP64."""
    sets = _Categories(boosting)
    x = sets.only_integers(graph, graph.add("Cast", x, to=FP64))
    trees = [
        _histogram_tree(predictor, target, sets)
        for stage in boosting._predictors
        for target, predictor in enumerate(stage)
    ]
    raw = _from_first(graph, x, boosting._baseline_prediction.reshape(-1), trees)
    if hasattr(boosting, "classes_"):
        return _classified(graph, boosting, raw, raw, "Greater")
    link = type(boosting._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotImplementedError(link)
    return {"prediction": graph.add("Exp", raw) if link == "LogLink" else raw}


def _histogram_tree(predictor: Any, target: int, sets: _Categories) -> Tree:
    nodes = predictor.nodes
    yes, no = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    feature, missing = nodes["feature_idx"].astype(np.int64), nodes["missing_go_to_left"].astype(bool)
    condition, members = np.full(len(nodes), AT_MOST), {}
    for index in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool)):
        node = nodes[index]
        left, right = sets.split(predictor, node)
        condition[index] = MEMBER
        # Unknown categories go where missing values go: where the condition does not hold.
        members[int(index)] = right if missing[index] else left
        if missing[index]:
            yes[index], no[index] = no[index], yes[index]
        missing[index] = False
    return Tree(
        leaf=nodes["is_leaf"].astype(bool),
        feature=sets.columns[feature],
        threshold=nodes["num_threshold"],
        yes=yes,
        no=no,
        missing=missing,
        value=nodes["value"],
        target=target,
        condition=condition,
        members=members,
    )


class _Categories:
    """The categories of ``HistGradientBoosting``, which encodes them and moves their columns to the front.

    Attributes:
        columns: the column of x for each column that the trees refer to.
    """

    def __init__(self, boosting: Any) -> None:
        columns = np.arange(boosting.n_features_in_)
        self._mask = np.zeros(len(columns), bool)
        if boosting.is_categorical_ is not None:
            self._mask[:] = boosting.is_categorical_
        self.columns = np.concatenate([columns[self._mask], columns[~self._mask]])
        if not self._mask.any():
            return
        encoder = boosting._preprocessor.named_transformers_["encoder"]
        self._codes, self._codes_of = boosting._bin_mapper.make_known_categories_bitsets()
        self._values = [np.asarray(values, np.float64) for values in encoder.categories_]
        known = [values[~np.isnan(values)] for values in self._values]
        if any((values != np.floor(values)).any() or (values < 0).any() for values in known):
            raise NotImplementedError("categories that are not integers from 0")

    def only_integers(self, graph: Builder, x: str) -> str:
        """Replace fractional categories with NaN, unknown to scikit-learn: ONNX Runtime would round them."""
        if not self._mask.any():
            return x
        whole = graph.add("Equal", x, graph.add("Floor", x))
        kept = graph.add("Or", whole, graph.constant(~self._mask))
        return graph.add("Where", kept, x, graph.constant(np.float64(np.nan)))

    def split(self, predictor: Any, node: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the categories that go left at ``node``, and those that go right."""
        values = self._values[int(node["feature_idx"])]
        left = _bits(predictor.raw_left_cat_bitsets[node["bitset_idx"]], len(values))
        known = _bits(self._codes[self._codes_of[node["feature_idx"]]], len(values))
        return _or_nothing(values[left]), _or_nothing(values[known & ~left])


def _bits(words: np.ndarray, count: int) -> np.ndarray:
    return np.unpackbits(np.asarray(words, "<u4").view(np.uint8), bitorder="little")[:count].astype(bool)


def _or_nothing(values: np.ndarray) -> np.ndarray:
    values = values[~np.isnan(values)]
    # ONNX allows no empty set; categories never equal a fraction.
    return values if len(values) else np.array([0.5])


def _from_first(graph: Builder, x: str, first: np.ndarray, trees: list[Tree]) -> str:
    """Add the sums of ``first``, by target, and of the trees after it, in scikit-learn's order of additions."""
    constants = [Tree.constant(value, target) for target, value in enumerate(first)]
    return add_trees(graph, x, [*constants, *trees], len(first), np.float64)


# -- classes --------------------------------------------------------------------------------------------------------


def _classified(graph: Builder, boosting: Any, raw: str, logits: str, beyond: str) -> dict[str, str]:
    """Add label and probabilities of raw predictions of two or more classes.

    Args:
        graph: receives the nodes.
        boosting: the classifier.
        raw: determines the label.
        logits: determine the probabilities.
        beyond: the operator that compares ``raw`` with 0 for two classes.
    """
    if boosting.n_trees_per_iteration_ == 1:
        second = sigmoid(graph, logits)
        first = graph.add("Sub", graph.constant(np.float64(1)), second)
        probabilities = graph.add("Concat", first, second, axis=1)
        decided = graph.add("Cast", graph.add(beyond, raw, graph.constant(np.float64(0))), to=INT64)
        index = graph.add("Reshape", decided, graph.constant(np.array([-1])))
    else:
        probabilities = graph.add("Softmax", logits, axis=1)
        index = graph.add("ArgMax", raw, axis=1, keepdims=0)
    return {"label": _label(graph, boosting, index), "probabilities": probabilities}


def _label(graph: Builder, classifier: Any, index: str) -> str:
    classes = np.asarray(classifier.classes_)
    if classes.dtype.kind in "OUS":
        if not all(isinstance(name, str) for name in classes):
            raise NotImplementedError("classes of several types")
    elif (classes != classes.astype(np.int64)).any():
        raise NotImplementedError("classes that are not integers")
    else:
        classes = classes.astype(np.int64)
    return graph.add("Gather", graph.constant(classes), index, axis=0)


# -- preprocessing and linear models ----------------------------------------------------------------------------------


def imputed(graph: Builder, x: str, imputer: Any) -> dict[str, str]:
    """Add ``SimpleImputer`` of numbers."""
    statistics = np.asarray(imputer.statistics_)
    if statistics.dtype.kind != "f" or np.isnan(statistics).any():
        raise NotImplementedError("an imputer of empty or non-numeric columns")
    x = graph.add("Cast", x, to=FP64)
    marked = imputer.missing_values
    missing = graph.add("IsNaN", x) if np.isnan(marked) else graph.add("Equal", x, graph.constant(np.float64(marked)))
    filled = graph.add("Where", missing, graph.constant(statistics.astype(np.float64)), x)
    if imputer.indicator_ is None:
        return {"variable": filled}
    shown = graph.add("Gather", missing, graph.constant(np.asarray(imputer.indicator_.features_, np.int64)), axis=1)
    return {"variable": graph.add("Concat", filled, graph.add("Cast", shown, to=FP64), axis=1)}


def polynomial(graph: Builder, x: str, features: Any) -> dict[str, str]:
    """Add ``PolynomialFeatures``: products of columns, padded with ones to as many factors as the degree."""
    powers, columns = np.asarray(features.powers_), features.n_features_in_
    factors = np.full((len(powers), max(1, int(powers.sum(axis=1).max()))), columns)
    for row, of_columns in enumerate(powers):
        used = np.repeat(np.arange(columns), of_columns)
        factors[row, : len(used)] = used
    x = graph.add("Cast", x, to=FP64)
    one = graph.add("Pow", graph.add("Gather", x, graph.constant(np.array([0])), axis=1), graph.constant(np.float64(0)))
    padded = graph.add("Concat", x, one, axis=1)
    product = graph.add("Gather", padded, graph.constant(factors[:, 0]), axis=1)
    for index in range(1, factors.shape[1]):
        product = graph.add("Mul", product, graph.add("Gather", padded, graph.constant(factors[:, index]), axis=1))
    return {"variable": product}


def linear_label(graph: Builder, x: str, classifier: Any) -> dict[str, str]:
    """Add a linear classifier with labels and no probabilities."""
    weights = np.atleast_2d(np.asarray(classifier.coef_, np.float64))
    offsets = np.broadcast_to(np.asarray(classifier.intercept_, np.float64), (len(weights),))
    scores = graph.add("MatMul", graph.add("Cast", x, to=FP64), graph.constant(np.ascontiguousarray(weights.T)))
    scores = graph.add("Add", scores, graph.constant(np.ascontiguousarray(offsets)))
    if len(weights) > 1:
        return {"label": _label(graph, classifier, graph.add("ArgMax", scores, axis=1, keepdims=0)), "scores": scores}
    decided = graph.add("Cast", graph.add("Greater", scores, graph.constant(np.float64(0))), to=INT64)
    index = graph.add("Reshape", decided, graph.constant(np.array([-1])))
    both = graph.add("Concat", graph.add("Neg", scores), scores, axis=1)
    return {"label": _label(graph, classifier, index), "scores": both}
