"""Convert XGBoost boosters to ONNX, in FP32 like XGBoost.

Reads a booster's JSON, hands on a ``ModelProto``. Knows nothing of objectives that it does not name.
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
_IDENTITY = (
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
    """Yield the ``ModelProto`` of a booster.

    Args:
        library: its loaded runtime.
        signature: one matrix as input, one output.

    Raises:
        NotImplementedError: the booster uses an unsupported feature; the message names it.
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
    yield graph.model(signature, {signature.outputs[0].name: _transformed(graph, sums, objective)})


def _iterations(booster: Any) -> int | None:
    """Return the number of iterations to predict with: after early stopping those up to the best, like XGBoost."""
    best = booster.attr("best_iteration")
    return None if best is None else int(best) + 1


def _margins(objective: str, bases: np.ndarray) -> np.ndarray:
    """Return the initial sums: the base scores before the objective's transformation."""
    # Like XGBoost's FP32 logarithm: FP64, then rounded. numpy's FP32 logarithm is sometimes off by one bit.
    if objective in _LOGISTIC:
        return -np.log((np.float32(1) / bases - np.float32(1)).astype(np.float64)).astype(np.float32)
    if objective in _LOGARITHM:
        return np.log(bases.astype(np.float64)).astype(np.float32)
    return bases


def _trees(holder: dict[str, Any], margins: np.ndarray, iterations: int | None) -> list[Tree]:
    """Return the trees of a ``gradient_booster`` that are used for prediction."""
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
    """Weigh a tree of DART: XGBoost subtracts the margin from the tree's prediction, which rounds, before weighing."""
    return replace(tree, value=((tree.value + margin) - margin) * weight)


def _with_categories(graph: Graph, x: str, columns: int, trees: list[Tree]) -> str:
    """Round categories down, like XGBoost; ONNX Runtime rounds towards 0."""
    categorical = np.zeros(columns, bool)
    for tree in trees:
        categorical[tree.feature[list(tree.members)]] = True
    if not categorical.any():
        return x
    return graph.add("Where", graph.constant(categorical), graph.add("Floor", x), x)


def _tree(fields: dict[str, Any], group: int) -> Tree:
    if fields["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise NotImplementedError("trees whose leaves hold vectors")
    left, right = np.array(fields["left_children"]), np.array(fields["right_children"])
    leaf, missing = left < 0, np.array(fields["default_left"], bool)
    by_category = np.array(fields["split_type"], bool) & ~leaf
    members = dict(zip(fields["categories_nodes"], _sets(fields), strict=True))
    values = np.array(fields["split_conditions"], np.float32)
    return Tree(
        leaf=leaf,
        feature=np.array(fields["split_indices"]),
        threshold=values,
        # Categories in a node's set go right.
        yes=np.where(by_category, right, left),
        no=np.where(by_category, left, right),
        missing=missing ^ by_category,
        value=values,
        target=group,
        condition=np.where(by_category, MEMBER, BELOW),
        members=members,
    )


def _sets(fields: dict[str, Any]) -> list[np.ndarray]:
    categories = np.array(fields["categories"])
    indices = zip(fields["categories_segments"], fields["categories_sizes"], strict=True)
    return [categories[begin : begin + size] for begin, size in indices]


def _transformed(graph: Graph, sums: str, objective: str) -> str:
    """Apply the objective's transformation to the sums."""
    if objective in _IDENTITY:
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
