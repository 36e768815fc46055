"""Convert LightGBM boosters to ONNX, in FP64 like LightGBM.

Reads a booster's text format, hands on a ``ModelProto``. Knows nothing of objectives that it does not name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.runtimes.faster.compare import no_margin as margin
from inferd.runtimes.faster.graph import FP64, Graph, sigmoid
from inferd.runtimes.faster.trees import AT_MOST, MEMBER, Tree, add_trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.types import Signature

__all__ = ["convert", "margin"]

_IDENTITY = (
    "custom",
    "fair",
    "huber",
    "lambdarank",
    "mape",
    "quantile",
    "rank_xendcg",
    "regression",
    "regression_l1",
    "regression_l2",
)
_LOGARITHM = ("poisson", "gamma", "tweedie")
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 4, 8
"""Bits of ``decision_type``."""
_ZERO = float(np.float32(1e-35))
"""LightGBM treats magnitudes up to this as 0."""


def convert(library: Any, signature: Signature) -> Iterator[Any]:
    """Yield the ``ModelProto`` of a booster.

    Args:
        library: its loaded runtime.
        signature: one matrix as input, one output.

    Raises:
        NotImplementedError: the booster uses an unsupported feature; the message names it.
    """
    head, *parts = library.booster.model_to_string().split("\nend of trees", 1)[0].split("\nTree=")
    header = _entries(head)
    per_iteration = int(header["num_tree_per_iteration"])
    trees = [_tree(_entries(part), position % per_iteration) for position, part in enumerate(parts)]
    graph = Graph()
    (x,) = signature.inputs
    rows = _tree_input(graph, graph.add("Cast", x.name, to=FP64), x.shape[1], trees)
    sums = add_trees(graph, rows, [one.tree for one in trees] or [Tree.constant(0)], per_iteration, np.float64)
    if "average_output" in header:
        sums = graph.add("Div", sums, graph.constant(np.float64(max(1, len(trees) // per_iteration))))
    output = _transformed(graph, sums, header.get("objective", "custom").split())
    yield graph.model(signature, {signature.outputs[0].name: output})


def _entries(part: str) -> dict[str, str]:
    lines = (line.partition("=") for line in part.splitlines())
    return {key.strip(): value for key, _, value in lines}


class _Read(NamedTuple):
    """A tree, and the ``decision_type`` of its nodes."""

    tree: Tree
    kinds: np.ndarray


def _tree(entries: dict[str, str], target: int) -> _Read:
    def numbers(name: str, dtype: Any = np.int64) -> np.ndarray:
        return np.array(entries.get(name, "").split(), dtype=dtype)

    if entries.get("is_linear", "0") != "0":
        raise NotImplementedError("linear trees")
    leaves = numbers("leaf_value", np.float64)
    if int(entries["num_leaves"]) == 1:
        return _Read(Tree.constant(leaves[0], target), np.zeros(3, np.int64))
    kinds, threshold = numbers("decision_type"), numbers("threshold", np.float64)
    inner, count = len(kinds), len(kinds) + len(leaves)

    def child(name: str) -> np.ndarray:
        # Negative numbers are leaves; they follow the inner nodes here.
        found = numbers(name)
        return _padded(np.where(found < 0, inner - 1 - found, found), count)

    categorical = (kinds & _CATEGORICAL).astype(bool)
    bounds, words = numbers("cat_boundaries"), numbers("cat_threshold", np.uint32)
    members = {}
    for node in np.flatnonzero(categorical):
        index = int(threshold[node])
        members[int(node)] = _members(words[bounds[index] : bounds[index + 1]])
    # Where NaN is not the missing value, it counts as 0 and as no category.
    kept = (kinds & (_MISSING_ZERO | _MISSING_NAN)).astype(bool)
    missing = np.where(kept, (kinds & _DEFAULT_LEFT).astype(bool), threshold >= 0) & ~categorical
    tree = Tree(
        leaf=np.arange(count) >= inner,
        feature=_padded(numbers("split_feature"), count),
        threshold=_padded(threshold, count),
        yes=child("left_child"),
        no=child("right_child"),
        missing=_padded(missing, count),
        value=np.concatenate([np.zeros(inner), leaves]),
        target=target,
        condition=_padded(np.where(categorical, MEMBER, AT_MOST), count),
        members=members,
    )
    return _Read(tree, kinds)


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(count - len(values), values.dtype)])


def _members(words: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little"))
    # ONNX allows no empty set; codes never equal a fraction.
    return found.astype(np.float64) if len(found) else np.array([0.5])


def _tree_input(graph: Graph, x: str, columns: int, trees: list[_Read]) -> str:
    """Truncate categories to integers, and replace 0 with NaN where 0 is LightGBM's missing value."""
    categorical, zero, other, near = (np.zeros(columns, bool) for _ in range(4))
    for tree, kinds in trees:
        inner = np.flatnonzero(~tree.leaf)
        feature = tree.feature[inner]
        if len(kinds) != len(inner):
            continue
        is_category = (kinds & _CATEGORICAL).astype(bool)
        is_zero = (kinds & _MISSING_ZERO).astype(bool) & ~is_category
        categorical[feature[is_category]] = True
        zero[feature[is_zero]] = True
        other[feature[~is_zero & ~is_category]] = True
        near[feature[~is_category & (np.abs(tree.threshold[inner]) <= _ZERO)]] = True
    if (zero & other).any():
        raise NotImplementedError("columns in which 0 is missing to some trees only")
    if zero.any() or near.any():
        tiny = graph.add("LessOrEqual", graph.add("Abs", x), graph.constant(np.float64(_ZERO)))
        for columns_of, substitute in ((near & ~zero, 0.0), (zero, np.nan)):
            here = graph.add("And", tiny, graph.constant(columns_of))
            x = graph.add("Where", here, graph.constant(np.float64(substitute)), x)
    if categorical.any():
        # LightGBM truncates.
        whole = graph.add("Mul", graph.add("Sign", x), graph.add("Floor", graph.add("Abs", x)))
        x = graph.add("Where", graph.constant(categorical), whole, x)
    return x


def _transformed(graph: Graph, sums: str, objective: list[str]) -> str:
    """Apply the objective's transformation to the sums."""
    name, options = objective[0], dict(option.partition(":")[::2] for option in objective[1:])
    if name in ("binary", "multiclassova", "cross_entropy"):
        slope = graph.constant(np.float64(options.get("sigmoid", "1")))
        return sigmoid(graph, graph.add("Mul", sums, slope))
    if name == "multiclass":
        return graph.add("Softmax", sums, axis=1)
    if name in _LOGARITHM:
        return graph.add("Exp", sums)
    if name == "regression" and "sqrt" in options:
        return graph.add("Mul", graph.add("Sign", sums), graph.add("Mul", sums, sums))
    if name in _IDENTITY:
        return sums
    raise NotImplementedError(f"objective={name}")
