"""Convert trees to the operator TreeEnsemble of ai.onnx.ml 5, with thresholds and leaves in their library's precision.

Reads trees as arrays of nodes, hands on one node of a graph. Knows nothing of libraries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.runtimes.faster.graph import tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferd.runtimes.faster.graph import Builder

__all__ = ["AT_MOST", "BELOW", "MEMBER", "Tree", "add_trees"]

AT_MOST, BELOW, MEMBER = 0, 1, 6
"""ONNX's numbers of conditions: x <= threshold, x < threshold, x in a set."""

_SUM = 1


@dataclass(frozen=True)
class Tree:
    """One tree. Every array has an element per node; node 0 is the root.

    Args:
        leaf: whether the node is a leaf.
        feature: the column of its condition.
        threshold: compared with the column.
        yes, no: next node if the condition holds, or not.
        missing: whether NaN continues at ``yes``.
        value: a leaf's contribution.
        target: the sum that it contributes to.
        condition: one of the three above, for all nodes or per node.
        members: sets of the nodes with condition ``MEMBER``.
    """

    leaf: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    missing: np.ndarray
    value: np.ndarray
    target: int = 0
    condition: int | np.ndarray = AT_MOST
    members: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def constant(cls, value: float, target: int = 0) -> Tree:
        """Return a tree that adds ``value`` to every row.

        It has a condition, as the operator does not support a single leaf, and two leaves, as ONNX Runtime treats a
        node with equal branches as the leaf of its own number.
        """
        none = np.zeros(3, np.int64)
        return cls(
            leaf=np.array([False, True, True]),
            feature=none,
            threshold=np.zeros(3),
            yes=none + 1,
            no=none + 2,
            missing=np.zeros(3, bool),
            value=np.full(3, value),
            target=target,
        )


def add_trees(graph: Builder, x: str, trees: Sequence[Tree], targets: int, dtype: Any) -> str:
    """Add a node that sums, per row and target, the reached leaves in the order of the trees.

    Args:
        graph: receives the node.
        x: the rows, of type ``dtype`` and shape (rows, columns).
        trees: at least one.
        targets: number of targets.
        dtype: of rows, thresholds, leaves and sums.

    Returns:
        The name of the sums, of shape (rows, targets).
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("feature", "threshold", "condition", "missing")}
    branches: dict[str, list[np.ndarray]] = {name: [] for name in ("yes", "yes_leaf", "no", "no_leaf")}
    values, owners, members, roots = [], [], [], []
    inner_before = leaves_before = 0
    for tree in (tree if not tree.leaf[0] else Tree.constant(tree.value[0], tree.target) for tree in trees):
        inner = ~tree.leaf
        number = np.where(tree.leaf, leaves_before + tree.leaf.cumsum(), inner_before + inner.cumsum()) - 1
        roots.append(inner_before)
        inner_before, leaves_before = inner_before + int(inner.sum()), leaves_before + int(tree.leaf.sum())
        condition = np.broadcast_to(np.asarray(tree.condition, np.uint8), tree.leaf.shape)
        for name, of_node in (
            ("feature", tree.feature),
            ("threshold", tree.threshold),
            ("condition", condition),
            ("missing", tree.missing),
        ):
            parts[name].append(of_node[inner])
        for name, child in (("yes", tree.yes[inner]), ("no", tree.no[inner])):
            branches[name].append(number[child])
            branches[f"{name}_leaf"].append(tree.leaf[child])
        values.append(tree.value[tree.leaf])
        owners.append(np.full(int(tree.leaf.sum()), tree.target))
        for node in np.flatnonzero(inner & (condition == MEMBER)):
            members += [np.asarray(tree.members[int(node)], dtype), np.array([np.nan], dtype)]
    attributes = {
        "n_targets": targets,
        "aggregate_function": _SUM,
        "tree_roots": roots,
        "nodes_modes": tensor(np.concatenate(parts["condition"])),
        "nodes_featureids": _integers(parts["feature"]),
        "nodes_splits": tensor(np.concatenate(parts["threshold"]).astype(dtype)),
        "nodes_missing_value_tracks_true": _integers(parts["missing"]),
        "nodes_truenodeids": _integers(branches["yes"]),
        "nodes_trueleafs": _integers(branches["yes_leaf"]),
        "nodes_falsenodeids": _integers(branches["no"]),
        "nodes_falseleafs": _integers(branches["no_leaf"]),
        "leaf_targetids": _integers(owners),
        "leaf_weights": tensor(np.concatenate(values).astype(dtype)),
    }
    if members:
        attributes["membership_values"] = tensor(np.concatenate(members))
    return graph.add("TreeEnsemble", x, domain="ai.onnx.ml", **attributes)


def _integers(parts: Sequence[np.ndarray]) -> list[int]:
    whole: list[int] = np.concatenate(parts).astype(np.int64).tolist()
    return whole
