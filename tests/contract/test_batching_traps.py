"""Graphs whose rows depend on each other in every way that operators offer: none is called independent, none batched.

Each is held against the truth first: ONNX Runtime gives a row something else in company. Beside them graphs of the
same operators along other axes, which are proven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import inferd
from inferd import _native
from outside.random_graphs import is_independent

if TYPE_CHECKING:
    from pathlib import Path

node = helper.make_node
Nodes = list[onnx.NodeProto]
FLOATS = {"one": np.float32(1), "half": np.float32(0.5)}
INTEGERS = {
    "first": np.array([0]),
    "second": np.array([1]),
    "last": np.array([-1]),
    "end": np.array([2**31 - 1]),
    "begin": np.array([-(2**31)]),
    "zero": np.array(0),
    "step": np.array(1),
    "flat": np.array([-1]),
    "four": np.array([-1, 4]),
}


def graph(nodes: Nodes, weights: dict[str, Any] | None = None, *, opset: int = 17) -> onnx.ModelProto:
    """``y`` of ``x``, FP32 of shape (n, 4). Constants that many graphs need are there by name."""
    x = helper.make_tensor_value_info("x", T.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", T.FLOAT, None)
    used = {name for one in nodes for name in one.input} | {
        name for one in nodes for held in one.attribute if held.g for inner in held.g.node for name in inner.input
    }
    known = {**FLOATS, **INTEGERS, **(weights or {})}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items() if name in used]
    made = helper.make_graph(nodes, "g", [x], [y], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def body(nodes: Nodes, inputs: list[tuple[str, int, list[Any]]], outputs: list[tuple[str, int, Any]]) -> Any:
    infos = ([helper.make_tensor_value_info(*one) for one in side] for side in (inputs, outputs))
    return helper.make_graph(nodes, "body", *infos)


def halved_until_small() -> Nodes:
    """All rows are halved until the largest of all is below 1."""
    steps = [
        node("Mul", ["v", "half"], ["w"]),
        node("ReduceMax", ["w"], ["most"], keepdims=0),
        node("Greater", ["most", "one"], ["more"]),
    ]
    loop = body(
        steps,
        [("turn", T.INT64, []), ("go", T.BOOL, []), ("v", T.FLOAT, ["n", 4])],
        [("more", T.BOOL, []), ("w", T.FLOAT, ["n", 4])],
    )
    return [node("Loop", ["turns", "", "x"], ["y"], body=loop)]


def summed_by_scan() -> Nodes:
    steps = [node("Add", ["before", "row"], ["sum"]), node("Identity", ["sum"], ["out"])]
    scan = body(
        steps,
        [("before", T.FLOAT, [4]), ("row", T.FLOAT, [4])],
        [("sum", T.FLOAT, [4]), ("out", T.FLOAT, [4])],
    )
    return [node("Scan", ["zeros", "x"], ["end_state", "y"], body=scan, num_scan_inputs=1)]


def as_many_as_rows(*then: onnx.NodeProto) -> Nodes:
    """``n``: how many rows there are."""
    return [node("Shape", ["x"], ["s"]), node("Gather", ["s", "first"], ["n"], axis=0), *then]


RANDOM = np.random.default_rng(0)
CUBE = {"scale": np.ones(4, np.float32), "shift": np.zeros(4, np.float32)}
GATES = {name: RANDOM.normal(size=(1, 6, width)).astype(np.float32) for name, width in (("w", 4), ("r", 2))}
UNSQUEEZE = node("Unsqueeze", ["x", "first"], ["u"])

TRAPS: dict[str, tuple[Nodes, dict[str, Any]]] = {
    "softmax over the rows": ([node("Softmax", ["x"], ["y"], axis=0)], {}),
    "logarithms of it": ([node("LogSoftmax", ["x"], ["y"], axis=0)], {}),
    "the greatest of each column": ([node("Hardmax", ["x"], ["y"], axis=0)], {}),
    "layers normalised with the batch": (
        [node("MeanVarianceNormalization", ["x"], ["y"], axes=[0])],
        {},
    ),
    "norms of columns": ([node("LpNormalization", ["x"], ["y"], axis=0, p=2)], {}),
    "running sums": ([node("CumSum", ["x", "zero"], ["y"])], {}),
    "sums from behind": ([node("CumSum", ["x", "zero"], ["y"], reverse=1, exclusive=1)], {}),
    "batch normalisation that still trains": (
        [node("BatchNormalization", ["x", "scale", "shift", "shift", "scale"], ["y", "m", "v"], training_mode=1)],
        CUBE,
    ),
    "rows sorted": (
        as_many_as_rows(node("TopK", ["x", "n"], ["y", "places"], axis=0)),
        {},
    ),
    "the place of the greatest": (
        [
            node("ArgMax", ["x"], ["a"], axis=0, keepdims=1),
            node("Cast", ["a"], ["f"], to=T.FLOAT),
            node("Add", ["x", "f"], ["y"]),
        ],
        {},
    ),
    "rows as columns": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Reshape", ["t", "four"], ["y"])],
        {},
    ),
    "turned and reduced": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("ReduceMax", ["t"], ["m"], axes=[1], keepdims=1),
            node("Transpose", ["m"], ["u"], perm=[1, 0]),
            node("Sub", ["x", "u"], ["y"]),
        ],
        {},
    ),
    "flattened and reduced": (
        [
            node("Reshape", ["x", "flat"], ["f"]),
            node("ReduceL2", ["f"], ["m"], keepdims=0),
            node("Div", ["x", "m"], ["y"]),
        ],
        {},
    ),
    "shifted by a row": (
        [node("Concat", ["row", "x"], ["c"], axis=0), node("Slice", ["c", "first", "last", "first"], ["y"])],
        {"row": np.ones((1, 4), np.float32)},
    ),
    "less the last row": (
        [node("Slice", ["x", "last", "end", "first"], ["l"]), node("Sub", ["x", "l"], ["y"])],
        {},
    ),
    "from the last to the first": ([node("Slice", ["x", "last", "begin", "first", "last"], ["y"])], {}),
    "reversed as a sequence": (
        [
            *as_many_as_rows(node("Expand", ["n", "width"], ["lengths"])),
            node("ReverseSequence", ["x", "lengths"], ["y"], batch_axis=1, time_axis=0),
        ],
        {"width": np.array([4])},
    ),
    "divided by the number of rows": (
        as_many_as_rows(node("Cast", ["n"], ["f"], to=T.FLOAT), node("Div", ["x", "f"], ["y"])),
        {},
    ),
    "numbered": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Range", ["zero", "n", "step"], ["p"]),
            node("Cast", ["p"], ["f"], to=T.FLOAT),
            node("Unsqueeze", ["f", "second"], ["c"]),
            node("Add", ["x", "c"], ["y"]),
        ],
        {},
    ),
    "the diagonal": ([node("EyeLike", ["x"], ["e"]), node("Add", ["x", "e"], ["y"])], {}),
    "the upper triangle": ([node("Trilu", ["x"], ["y"], upper=1)], {}),
    "products of columns": (
        [node("Gemm", ["x", "x"], ["g"], transA=1), node("MatMul", ["x", "g"], ["y"])],
        {},
    ),
    "rows against rows": (
        [node("Einsum", ["x", "x"], ["s"], equation="ij,kj->ik"), node("MatMul", ["s", "x"], ["y"])],
        {},
    ),
    "until all are small": (halved_until_small(), {"turns": np.array(20)}),
    "scanned": (summed_by_scan(), {"zeros": np.zeros(4, np.float32)}),
    "a recurrence along the rows": (
        [
            node("Unsqueeze", ["x", "second"], ["u"]),
            node("GRU", ["u", "w", "r"], ["s"], hidden_size=2),
            node("Reshape", ["s", "two"], ["y"]),
        ],
        {**GATES, "two": np.array([-1, 2])},
    ),
    "a convolution along the rows": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("Unsqueeze", ["t", "first"], ["u"]),
            node("Conv", ["u", "k"], ["c"], pads=[1, 1]),
            node("Squeeze", ["c", "first"], ["d"]),
            node("Transpose", ["d"], ["y"], perm=[1, 0]),
        ],
        {"k": RANDOM.normal(size=(4, 4, 3)).astype(np.float32)},
    ),
    "pooled over the rows": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("Unsqueeze", ["t", "first"], ["u"]),
            node("MaxPool", ["u"], ["c"], kernel_shape=[3], pads=[1, 1]),
            node("Squeeze", ["c", "first"], ["d"]),
            node("Transpose", ["d"], ["y"], perm=[1, 0]),
        ],
        {},
    ),
    "channels normalised over a batch of one": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("Unsqueeze", ["t", "first"], ["u"]),
            node("InstanceNormalization", ["u", "scale", "shift"], ["c"]),
            node("Squeeze", ["c", "first"], ["d"]),
            node("Transpose", ["d"], ["y"], perm=[1, 0]),
        ],
        CUBE,
    ),
    "codes in the order of values": (
        [
            node("Reshape", ["x", "flat"], ["f"]),
            node("Unique", ["f"], ["values", "places", "codes"], sorted=1),
            node("Cast", ["codes"], ["g"], to=T.FLOAT),
            node("Reshape", ["g", "four"], ["y"]),
        ],
        {},
    ),
    "boxes that hide others": (
        [
            UNSQUEEZE,
            node("ReduceMax", ["u"], ["b"], axes=[2], keepdims=0),
            node("Unsqueeze", ["b", "second"], ["scores"]),
            node("NonMaxSuppression", ["u", "scores", "all", "overlap"], ["found"]),
            node("Slice", ["found", "two", "three", "second"], ["places"]),
            node("Cast", ["places"], ["p"], to=T.FLOAT),
            node("ReduceSum", ["p"], ["sum"], keepdims=0),
            node("Add", ["x", "sum"], ["y"]),
        ],
        {"all": np.array([100]), "overlap": np.array([0.5], np.float32), "two": np.array([2]), "three": np.array([3])},
    ),
    "written into the first row": (
        [node("ScatterND", ["x", "place", "row"], ["y"])],
        {"place": np.array([[0]]), "row": np.full((1, 4), 7, np.float32)},
    ),
    "rows that are kept by their mean": (
        [
            node("ReduceMean", ["x"], ["m"], keepdims=0),
            node("Greater", ["x", "m"], ["b"]),
            node("Where", ["b", "x", "m"], ["y"]),
        ],
        {},
    ),
    "a sequence's first": (
        [
            node("SplitToSequence", ["x"], ["q"], axis=0),
            node("SequenceAt", ["q", "zero"], ["f"]),
            node("Sub", ["x", "f"], ["y"]),
        ],
        {},
    ),
    "quantised by the largest": (
        [
            node("Abs", ["x"], ["a"]),
            node("ReduceMax", ["a"], ["m"], keepdims=0),
            node("Div", ["m", "most"], ["s"]),
            node("QuantizeLinear", ["x", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["y"]),
        ],
        {"most": np.float32(255)},
    ),
}

RANDOM_TRAPS: dict[str, Nodes] = {
    "noise": [node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])],
    "drawn by chance": [node("Sigmoid", ["x"], ["p"]), node("Bernoulli", ["p"], ["b"]), node("Add", ["x", "b"], ["y"])],
    "dropout that still trains": [node("Dropout", ["x", "half", "yes"], ["y"])],
}

HONEST: dict[str, tuple[Nodes, dict[str, Any]]] = {
    "softmax of each row": ([node("Softmax", ["x"], ["y"], axis=1)], {}),
    "sums along each row": ([node("CumSum", ["x", "step"], ["y"])], {}),
    "each row sorted": ([node("TopK", ["x", "count"], ["y", "places"], axis=1)], {"count": np.array([4])}),
    "each row's norm": ([node("LpNormalization", ["x"], ["y"], axis=1, p=2)], {}),
    "norms of classical models": ([node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm="L2")], {}),
    "batch normalisation as it is served": (
        [node("BatchNormalization", ["x", "scale", "shift", "shift", "scale"], ["y"])],
        CUBE,
    ),
    "turned there and back": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Transpose", ["t"], ["y"], perm=[1, 0])],
        {},
    ),
    "each row's mean": ([node("ReduceMean", ["x"], ["m"], axes=[1]), node("Sub", ["x", "m"], ["y"])], {}),
    "each row filled up": (
        [node("Pad", ["x", "pads"], ["p"]), node("Slice", ["p", "second", "end", "second"], ["y"])],
        {"pads": np.array([0, 1, 0, 1])},
    ),
    "a constant beside each row": (
        [
            *as_many_as_rows(node("Concat", ["n", "second"], ["shape"], axis=0)),
            node("Expand", ["one", "shape"], ["c"]),
            node("Concat", ["x", "c"], ["y"], axis=1),
        ],
        {},
    ),
}


def rows() -> list[dict[str, np.ndarray]]:
    values = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32) * [[1], [100], [3]]
    return [{"x": one[None].astype(np.float32)} for one in values]


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_one_and_is_not_called_independent(name: str) -> None:
    model = graph(*TRAPS[name])
    assert is_independent(model, rows()) is False
    kind, why = _native.analyse_onnx(model.SerializeToString())
    assert kind != "independent", name
    assert why


@pytest.mark.parametrize("name", RANDOM_TRAPS)
def test_what_is_drawn_by_chance_is_not_called_independent(name: str) -> None:
    model = graph(RANDOM_TRAPS[name], {"yes": np.array(True)})
    assert _native.analyse_onnx(model.SerializeToString())[0] != "independent"


@pytest.mark.parametrize("name", HONEST)
def test_the_same_along_a_row_is_proven(name: str) -> None:
    model = graph(*HONEST[name])
    assert is_independent(model, rows()) is True
    assert _native.analyse_onnx(model.SerializeToString()) == ("independent", "")


def test_no_trap_is_batched_whoever_decides(tmp_path: Path) -> None:
    made = {name: graph(*TRAPS[name]) for name in TRAPS}
    made |= {name: graph(nodes, {"yes": np.array(True)}) for name, nodes in RANDOM_TRAPS.items()}
    made |= {name: graph(*HONEST[name]) for name in HONEST}
    for number, model in enumerate(made.values()):
        folder = tmp_path / f"m{number:02}" / "1"
        folder.mkdir(parents=True)
        onnx.save(model, folder / "model.onnx")
    names = dict(zip((f"m{number:02}" for number in range(len(made))), made, strict=True))
    with inferd.Server(tmp_path, threads=1, profiling=False) as server:
        batched = {names[model.name] for model in server.models if model.signature.batched}
        deciders = {model.signature.verdict.by for model in server.models}
    assert batched == set(HONEST)
    assert {"analysis"} <= deciders <= {"analysis", "probe", "shapes"}
