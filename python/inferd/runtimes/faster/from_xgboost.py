"""Boosters of XGBoost as ONNX, in FP32 as XGBoost computes.

Reads a booster's own JSON, hands on a ``ModelProto``. Knows nothing of the objectives that it does not name.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.runtimes.faster.compare import no_margin as margin
from inferd.runtimes.faster.graph import FP32, Graph, sigmoid
from inferd.runtimes.faster.trees import BELOW, MEMBER, Tree, add_trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.types import Signature

__all__ = ["convert", "margin"]

_LOGISTIC = ("binary:logistic", "reg:logistic")
_LOGARITHM = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_AS_IT_IS = (
    "binary:logitraw",
    "rank:map",
    "rank:ndcg",
    "rank:pairwise",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "reg:squarederror",
    "reg:squaredlogerror",
)


def convert(library: Any, signature: Signature) -> Iterator[Any]:
    """The ``ModelProto`` of a booster.

    Args:
        library: the runtime that holds it.
        signature: one input, a matrix, and one output.

    Raises:
        NotImplementedError: the booster has what is not converted; the message names it.
    """
    learner = json.loads(library.booster.save_raw("json"))["learner"]
    objective, parameters = learner["objective"]["name"], learner["learner_model_param"]
    bases = np.atleast_1d(np.array(json.loads(parameters["base_score"]), np.float32))
    groups = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    margins = np.broadcast_to(_margins(objective, bases), groups)
    graph = Graph()
    (x,) = signature.inputs
    trees = _trees(learner["gradient_booster"], margins, _iterations(library.booster))
    rows = _with_categories(graph, graph.add("Cast", x.name, to=FP32), x.shape[1], trees)
    firsts = [Tree.constant(margin, group) for group, margin in enumerate(margins)]
    sums = add_trees(graph, rows, [*firsts, *trees], groups, np.float32)
    yield graph.model(signature, {signature.outputs[0].name: _answer(graph, sums, objective)})


def _iterations(booster: Any) -> int | None:
    """How many iterations XGBoost's own estimators predict with: after early stopping those up to the best."""
    best = booster.attr("best_iteration")
    return None if best is None else int(best) + 1


def _margins(objective: str, bases: np.ndarray) -> np.ndarray:
    """What the sums begin with: the base scores before the objective's transformation."""
    # Logarithms in FP64, then rounded, are what XGBoost's of FP32 are; numpy's of FP32 are now and then one bit off.
    if objective in _LOGISTIC:
        return -np.log((np.float32(1) / bases - np.float32(1)).astype(np.float64)).astype(np.float32)
    if objective in _LOGARITHM:
        return np.log(bases.astype(np.float64)).astype(np.float32)
    return bases


def _trees(holder: dict[str, Any], margins: np.ndarray, iterations: int | None) -> list[Tree]:
    """The trees of a ``gradient_booster`` that count."""
    model = holder.get("gbtree", holder).get("model", {})
    if "trees" not in model:
        raise NotImplementedError(f"booster={holder.get('name')}")
    if model.get("cats", {}).get("enc"):
        raise NotImplementedError("categories that XGBoost encodes")
    count = len(model["trees"]) if iterations is None else model["iteration_indptr"][iterations]
    trees = [_tree(*one) for one in zip(model["trees"][:count], model["tree_info"], strict=False)]
    if "weight_drop" not in holder:
        return trees
    weights = np.array(holder["weight_drop"], np.float32)
    return [_weighted(tree, weight, margins[tree.target]) for tree, weight in zip(trees, weights, strict=False)]


def _weighted(tree: Tree, weight: np.float32, margin: np.float32) -> Tree:
    """A tree of DART. XGBoost takes the margin out of what it alone predicts, which rounds, and weighs the rest."""
    return replace(tree, value=((tree.value + margin) - margin) * weight)


def _with_categories(graph: Graph, x: str, columns: int, trees: list[Tree]) -> str:
    """``x`` as the trees look at it: a category is the whole number below. ONNX Runtime takes the one nearer to 0."""
    categorical = np.zeros(columns, bool)
    for tree in trees:
        categorical[tree.feature[list(tree.members)]] = True
    if not categorical.any():
        return x
    return graph.add("Where", graph.constant(categorical), graph.add("Floor", x), x)


def _tree(held: dict[str, Any], group: int) -> Tree:
    if held["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise NotImplementedError("trees whose leaves hold vectors")
    left, right = np.array(held["left_children"]), np.array(held["right_children"])
    leaf, missing = left < 0, np.array(held["default_left"], bool)
    by_category = np.array(held["split_type"], bool) & ~leaf
    members = dict(zip(held["categories_nodes"], _sets(held), strict=True))
    values = np.array(held["split_conditions"], np.float32)
    return Tree(
        leaf=leaf,
        feature=np.array(held["split_indices"]),
        threshold=values,
        # The categories of a node's set go right.
        yes=np.where(by_category, right, left),
        no=np.where(by_category, left, right),
        missing=missing ^ by_category,
        value=values,
        target=group,
        condition=np.where(by_category, MEMBER, BELOW),
        members=members,
    )


def _sets(held: dict[str, Any]) -> list[np.ndarray]:
    categories = np.array(held["categories"])
    places = zip(held["categories_segments"], held["categories_sizes"], strict=True)
    return [categories[begin : begin + size] for begin, size in places]


def _answer(graph: Graph, sums: str, objective: str) -> str:
    """What the objective makes of the sums."""
    if objective in _AS_IT_IS:
        return sums
    if objective in _LOGISTIC:
        return sigmoid(graph, sums)
    if objective in _LOGARITHM:
        return graph.add("Exp", sums)
    if objective == "multi:softprob":
        return graph.add("Softmax", sums, axis=1)
    if objective == "multi:softmax":
        return graph.add("Cast", graph.add("ArgMax", sums, axis=1, keepdims=0), to=FP32)
    if objective == "binary:hinge":
        return graph.add("Cast", graph.add("Greater", sums, graph.constant(np.float32(0))), to=FP32)
    raise NotImplementedError(f"objective={objective}")
