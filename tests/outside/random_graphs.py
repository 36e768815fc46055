"""Random ONNX graphs, and the truth about their rows: what each gives alone and in company, by ONNX Runtime.

Reads a seed, hands on models. A graph grows by one operator after the other; each is tried at once, alone on every row
and on all rows together, so that a graph is always one that runs. Knows nothing of how a verdict is found.

    python tests/outside/random_graphs.py --graphs 100000 --seed 1

compares the verdict *independent* with the truth and prints every graph for which it is wrong.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Maker = Callable[["Graph"], "list[str]"]

__all__ = ["Graph", "grow", "is_independent"]

ROWS = 3
"""Rows of the run in company. Dimensions have this size by chance too: what fits then does not fit alone."""
OPSETS = (11, 13, 17, 21)
_TYPES = {"float32": T.FLOAT, "int64": T.INT64, "bool": T.BOOL, "int32": T.INT32, "uint8": T.UINT8, "int8": T.INT8}


class Misfit(Exception):
    """The operator does not run on these inputs, alone or in company."""


@dataclass
class Tensor:
    """What a tensor is in company (``joint``) and for each row alone."""

    name: str
    joint: np.ndarray
    lone: list[np.ndarray]
    constant: bool = False

    @property
    def kind(self) -> str:
        return str(self.joint.dtype)

    @property
    def rank(self) -> int:
        return self.joint.ndim


@dataclass
class Graph:
    """A graph that grows. Numbers are small and whole where they can be, so that sums are exact in any order."""

    random: np.random.Generator
    opset: int
    inputs: list[Tensor] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    names: Iterator[int] = field(default_factory=itertools.count)

    def name(self, what: str) -> str:
        return f"{what}{next(self.names)}"

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def integer(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both included."""
        return int(self.random.integers(low, high + 1))

    def among(self, values: Any) -> Any:
        values = list(values)
        return values[self.integer(0, len(values) - 1)]

    def pick(self, kind: str | tuple[str, ...] = "float32", rank: int = 0, most: int = 9) -> Tensor:
        """A tensor of the graph, more likely one that was made lately.

        Raises:
            Misfit: there is none of this kind and rank.
        """
        kinds = (kind,) if isinstance(kind, str) else kind
        fitting = [one for one in self.tensors if one.kind in kinds and rank <= one.rank <= most and not one.constant]
        if not fitting:
            raise Misfit
        return fitting[-1 - min(int(self.random.exponential(1.0)), len(fitting) - 1)]

    def axis(self, tensor: Tensor, extra: int = 0) -> int:
        rank = tensor.rank + extra
        return self.integer(-rank, rank - 1)

    def weight(self, array: np.ndarray) -> str:
        """A constant of the graph, as an initializer or a node."""
        name = self.name("w")
        stored = numpy_helper.from_array(np.asarray(array), name)
        if self.chance(0.2):
            self.nodes.append(helper.make_node("Constant", [], [name], value=stored))
        else:
            self.weights.append(stored)
        self.tensors.append(Tensor(name, np.asarray(array), [np.asarray(array)] * ROWS, constant=True))
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(self.random.integers(-2, 3, shape).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def find(self, name: str) -> Tensor:
        return next(one for one in self.tensors if one.name == name)

    def add(
        self,
        operator: str,
        inputs: list[str],
        outputs: int = 1,
        domain: str = "",
        reads: list[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        """One more node; its outputs' names. ``reads``: what graphs inside it read beside its inputs.

        Raises:
            Misfit: it does not run.
        """
        names = [self.name("t") for _ in range(outputs)]
        node = helper.make_node(operator, inputs, names, domain=domain, **attributes)
        given = [self.find(name) for name in dict.fromkeys([*inputs, *(reads or ())]) if name]
        runs = run_node(node, given, self.opset)
        self.nodes.append(node)
        for name, joint, *lone in zip(names, *runs, strict=True):
            self.tensors.append(Tensor(name, joint, lone))
        return names

    def model(self, outputs: list[Tensor]) -> onnx.ModelProto:
        """What of the graph these outputs need."""
        nodes, needed = [], {one.name for one in outputs}
        for node in reversed(self.nodes):
            if needed & set(node.output):
                nodes.insert(0, node)
                needed |= _reads(node)
        weights = [one for one in self.weights if one.name in needed]
        inputs = [value_info(one, ["n", *one.joint.shape[1:]]) for one in self.inputs]
        made = [value_info(one, None) for one in outputs]
        graph = helper.make_graph(nodes, "random", inputs, made, weights)
        return finished(graph, self.opset)


def _reads(node: onnx.NodeProto) -> set[str]:
    inner = [one for attribute in node.attribute if attribute.HasField("g") for one in attribute.g.node]
    return set(node.input) | {name for one in inner for name in one.input}


def value_info(tensor: Tensor, shape: list[Any] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.kind], shape)


def finished(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    opsets = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("ai.onnx.ml", 3),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_node(node: onnx.NodeProto, given: list[Tensor], opset: int) -> list[list[np.ndarray]]:
    """Outputs in company, and of each row alone."""
    inputs = [value_info(one, None) for one in given]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    try:
        one = session(finished(helper.make_graph([node], "one", inputs, outputs), opset))
        feeds = [{one.name: one.joint for one in given}]
        feeds += [{one.name: one.lone[row] for one in given} for row in range(ROWS)]
        found = [one.run(None, feed) for feed in feeds]
    except Exception as error:
        raise Misfit from error
    for arrays in found:
        for array in arrays:
            if not isinstance(array, np.ndarray) or str(array.dtype) not in _TYPES or not 0 < array.size <= 4096:
                raise Misfit
    return found


def is_independent(model: onnx.ModelProto, rows: list[dict[str, np.ndarray]]) -> bool | None:
    """Whether each of ``rows`` gets in the company of the others what it gets alone; ``None``: hardly any runs alone."""
    try:
        one = session(model)
    except Exception:
        # The runtime infers shapes of some graphs that their nodes don't have.
        return None
    able, answers = [], []
    for row in rows:
        try:
            answers.append(one.run(None, row))
        except Exception:
            continue
        able.append(row)
    if len(able) < 2:
        return None
    try:
        joint = one.run(None, {name: np.concatenate([row[name] for row in able]) for name in able[0]})
    except Exception:
        return False
    for number, alone in enumerate(answers):
        for together, lone in zip(joint, alone, strict=True):
            if isinstance(together, list):
                # Maps, which are served as the tensor that they are made of.
                continue
            shapes = (together.shape[:1], lone.shape[:1], together.shape[1:])
            if shapes != ((len(able),), (1,), lone.shape[1:]) or not near(together[number], lone[0]):
                return False
    return True


def near(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    with np.errstate(all="ignore"):
        size = np.abs(other[np.isfinite(other)]).max(initial=1.0)
        return bool(np.allclose(one, other, rtol=1e-4, atol=1e-5 * size, equal_nan=True))


def numbers(random: np.random.Generator, shape: tuple[int, ...], kind: str = "float32") -> np.ndarray:
    """Small whole numbers; a row may be far larger than others."""
    array = random.integers(-3, 4, shape)
    if kind == "float32" and random.random() < 0.3:
        array[random.integers(len(array))] *= 100
    return np.abs(array).astype(kind) if kind == "int64" else array.astype(kind)


def grow(seed: int) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """A model, and rows for it. The same seed gives the same."""
    random = np.random.default_rng(seed)
    graph = Graph(random, int(random.choice(OPSETS)))
    for _ in range(1 + int(random.random() < 0.4)):
        shape = (ROWS, *(int(size) for size in random.integers(1, 5, random.integers(0, 4))))
        kind = "int64" if random.random() < 0.15 else "float32"
        joint = numbers(random, shape, kind)
        graph.inputs.append(Tensor(graph.name("x"), joint, [joint[row : row + 1] for row in range(ROWS)]))
    graph.tensors += graph.inputs
    wanted, makers = int(random.integers(2, 14)), list(MAKERS)
    made = 0
    for _ in range(100):
        if made == wanted:
            break
        before = len(graph.tensors), len(graph.nodes), len(graph.weights)
        try:
            makers[int(random.integers(len(makers)))](graph)
        except Misfit:
            del graph.tensors[before[0] :], graph.nodes[before[1] :], graph.weights[before[2] :]
        else:
            made += 1
    rowed = [
        one
        for one in graph.tensors[len(graph.inputs) :]
        if one.joint.shape[:1] == (ROWS,) and all(alone.shape[:1] == (1,) for alone in one.lone) and not one.constant
    ]
    outputs = rowed[-2:] if random.random() < 0.3 else rowed[-1:]
    if not outputs:
        outputs = [Tensor(graph.add("Identity", [graph.inputs[0].name])[0], graph.inputs[0].joint, [])]
    count = int(random.integers(2, 5))
    shapes = [(one.name, one.joint.shape[1:], one.kind) for one in graph.inputs]
    joint = {name: numbers(random, (count, *shape), kind) for name, shape, kind in shapes}
    return graph.model(outputs), [{name: array[row : row + 1] for name, array in joint.items()} for row in range(count)]


def unary(graph: Graph) -> list[str]:
    x = graph.pick()
    operator = graph.among(["Relu", "Neg", "Abs", "Sign", "Floor", "Sigmoid", "Tanh", "Identity", "Erf", "Softsign"])
    return graph.add(operator, [x.name])


def binary(graph: Graph) -> list[str]:
    x = graph.pick()
    other = graph.pick().name if graph.chance(0.5) else beside(graph, x)
    operator = graph.among(["Add", "Sub", "Mul", "Max", "Min", "Add", "Mul"])
    pair = [x.name, other] if graph.chance(0.7) else [other, x.name]
    return graph.add(operator, pair)


def beside(graph: Graph, x: Tensor) -> str:
    """A constant that ``x`` is combined with: of its own sizes, those of its rows among them, or of 1."""
    shape = [size if graph.chance(0.6) else 1 for size in x.joint.shape[graph.integer(0, x.rank) :]]
    return graph.floats(*shape)


def compare(graph: Graph) -> list[str]:
    x = graph.pick()
    other = graph.pick().name if graph.chance(0.4) else beside(graph, x)
    condition = graph.add(graph.among(["Greater", "Less", "Equal"]), [x.name, other])
    if graph.chance(0.5):
        return graph.add("Cast", condition, to=graph.among([T.FLOAT, T.INT64]))
    return graph.add("Where", [*condition, x.name, graph.pick().name if graph.chance(0.5) else graph.floats()])


def cast(graph: Graph) -> list[str]:
    return graph.add(
        "Cast", [graph.pick(("float32", "int64", "bool", "int32")).name], to=graph.among([T.FLOAT, T.INT64])
    )


def reduce(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    operator = graph.among(["ReduceSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1"])
    axes = sorted({graph.axis(x) for _ in range(graph.integer(1, 2))})
    if graph.chance(0.6):
        axes = sorted({axis % x.rank for axis in axes if axis % x.rank} or {x.rank - 1})
    keeps = graph.integer(0, 1)
    if graph.opset >= (13 if operator == "ReduceSum" else 18):
        inputs = [x.name] if graph.chance(0.05) else [x.name, graph.ints(*axes)]
        return graph.add(operator, inputs, keepdims=keeps, noop_with_empty_axes=graph.integer(0, 1))
    return graph.add(operator, [x.name], keepdims=keeps, **({} if graph.chance(0.05) else {"axes": axes}))


def arg(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    options = {} if graph.chance(0.2) else {"axis": graph.axis(x)}
    return graph.add(graph.among(["ArgMax", "ArgMin"]), [x.name], keepdims=graph.integer(0, 1), **options)


def softmax(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    options = {} if graph.chance(0.3) else {"axis": graph.axis(x)}
    return graph.add(graph.among(["Softmax", "LogSoftmax", "Hardmax"]), [x.name], **options)


def layer_norm(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    axis = graph.axis(x)
    shape = x.joint.shape[axis % x.rank :]
    if graph.opset < 17:
        raise Misfit
    return graph.add("LayerNormalization", [x.name, graph.floats(*shape), graph.floats(*shape)], axis=axis)


def normalize(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    kind = graph.integer(0, 4)
    if kind == 0:
        return graph.add("LpNormalization", [x.name], axis=graph.axis(x), p=graph.integer(1, 2))
    if kind == 1:
        return graph.add("Normalizer", [x.name], domain="ai.onnx.ml", norm=graph.among(["L1", "L2", "MAX"]))
    if x.rank < 3:
        raise Misfit
    channels = x.joint.shape[1]
    if kind == 2:
        return graph.add("InstanceNormalization", [x.name, graph.floats(channels), graph.floats(channels)])
    if kind == 3:
        axes = sorted({graph.integer(0, x.rank - 1) for _ in range(2)})
        return graph.add("MeanVarianceNormalization", [x.name], axes=axes)
    spread = graph.weight(np.abs(graph.random.integers(1, 4, channels)).astype(np.float32))
    return graph.add("BatchNormalization", [x.name, *(graph.floats(channels) for _ in range(3)), spread])


def matmul(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    if graph.chance(0.3):
        other = graph.pick(rank=1)
        if graph.chance(0.5) and other.rank > 1:
            order = [*range(other.rank - 2), other.rank - 1, other.rank - 2]
            return graph.add("MatMul", [x.name, *graph.add("Transpose", [other.name], perm=order)])
        return graph.add("MatMul", [x.name, other.name])
    if graph.chance(0.2):
        rows = x.joint.shape[-2] if x.rank > 1 else x.joint.shape[0]
        return graph.add("MatMul", [graph.floats(graph.integer(1, 3), rows), x.name])
    shape = [x.joint.shape[-1], graph.integer(1, 4)]
    if graph.chance(0.2) and x.rank > 2:
        shape = [graph.among([1, x.joint.shape[0]]), *shape]
    return graph.add("MatMul", [x.name, graph.floats(*shape)])


def gemm(graph: Graph) -> list[str]:
    x = graph.pick(rank=2, most=2)
    turned, other = graph.integer(0, 1), graph.integer(0, 1)
    inner, wide = x.joint.shape[0 if turned else 1], graph.integer(1, 3)
    if graph.chance(0.2):
        second = graph.pick(rank=2, most=2).name
    else:
        second = graph.floats(*((wide, inner) if other else (inner, wide)))
    inputs = [x.name, second]
    if graph.chance(0.5):
        inputs.append(graph.floats(*graph.among([(wide,), (1, wide), (ROWS, wide), (ROWS, 1), ()])))
    return graph.add("Gemm", inputs, transA=turned, transB=other)


def einsum(graph: Graph) -> list[str]:
    x = graph.pick(rank=1, most=3)
    own = "abc"[: x.rank]
    if graph.chance(0.5):
        other = graph.pick(rank=1, most=3)
        second, name = "".join(graph.random.permutation(list("abcde"))[: other.rank]), other.name
    else:
        second, name = own[-1] + "e", graph.floats(x.joint.shape[-1], 2)
    labels = sorted(set(own + second))
    result = "".join(graph.random.permutation(labels)[: graph.integer(1, len(labels))])
    return graph.add("Einsum", [x.name, name], equation=f"{own},{second}->{result}")


def reshape(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"))
    sizes = list(x.joint.shape)
    kind = graph.integer(0, 4)
    if kind == 0:
        shape = [0] * graph.integer(0, x.rank) + [-1]
    elif kind == 1:
        cut = graph.integer(0, x.rank)
        shape = [-1, *sizes[cut:]] if cut else [*sizes, 1]
    elif kind == 2:
        shape = [*sizes[: graph.integer(0, x.rank)], -1, *([graph.integer(1, 3)] if graph.chance(0.5) else [])]
    elif kind == 3:
        shape = [graph.among([-1, 0, 1, 2, 3]) for _ in range(graph.integer(1, 3))]
    else:
        return reshape_by_shape(graph, x)
    return graph.add("Reshape", [x.name, graph.ints(*shape)])


def reshape_by_shape(graph: Graph, x: Tensor) -> list[str]:
    """To sizes that are read from a tensor, as exporters of PyTorch write it."""
    (shape,) = graph.add("Shape", [graph.pick(("float32", "int64")).name if graph.chance(0.3) else x.name])
    place = graph.ints(graph.integer(0, 1))
    (size,) = graph.add("Gather", [shape, place], axis=0)
    if graph.chance(0.2):
        (size,) = graph.add(graph.among(["Mul", "Add", "Div"]), [size, graph.ints(graph.integer(1, 3))])
    rest = graph.ints(*([graph.among([-1, *x.joint.shape])] if graph.chance(0.7) else [2, -1]))
    parts = [size, rest] if graph.chance(0.8) else [rest, size]
    (target,) = graph.add("Concat", parts, axis=0)
    return graph.add("Reshape", [x.name, target])


def flatten(graph: Graph) -> list[str]:
    x = graph.pick()
    return graph.add("Flatten", [x.name], axis=graph.integer(-x.rank, x.rank))


def transpose(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"), rank=1)
    options = {} if graph.chance(0.2) else {"perm": [int(axis) for axis in graph.random.permutation(x.rank)]}
    return graph.add("Transpose", [x.name], **options)


def squeeze(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"))
    grows = graph.chance(0.6)
    axes = [graph.axis(x, 1)] if grows else [axis for axis in range(x.rank) if x.joint.shape[axis] == 1][:1]
    operator = "Unsqueeze" if grows else "Squeeze"
    if not axes or (not grows and graph.chance(0.2)):
        return graph.add("Squeeze", [x.name])
    if graph.opset >= 13:
        return graph.add(operator, [x.name, graph.ints(*axes)])
    return graph.add(operator, [x.name], axes=axes)


def concat(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    axis = graph.axis(x)
    if graph.chance(0.6):
        others = [one.name for one in graph.tensors if one.rank == x.rank and one.kind == x.kind]
        parts = [x.name, graph.among(others)]
    else:
        shape = list(x.joint.shape)
        shape[axis] = graph.integer(1, 2)
        shape[0] = graph.among([shape[0], 1])
        parts = [x.name, graph.floats(*shape)]
    return graph.add("Concat", parts if graph.chance(0.5) else parts[::-1], axis=axis)


def split(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    axis = graph.axis(x)
    size = x.joint.shape[axis]
    if size < 2:
        raise Misfit
    first = graph.integer(1, size - 1)
    if graph.opset >= 13:
        return graph.add("Split", [x.name, graph.ints(first, size - first)], 2, axis=axis)
    return graph.add("Split", [x.name], 2, axis=axis, split=[first, size - first])


def cut(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"), rank=1)
    axis = graph.axis(x)
    start, end = graph.among([0, 0, 1, -1, -2]), graph.among([1, 2, -1, 3, 2**31 - 1, 2**63 - 1])
    inputs = [x.name, graph.ints(start), graph.ints(end), graph.ints(axis)]
    if graph.chance(0.3):
        inputs.append(graph.ints(graph.among([1, 2, -1])))
    elif graph.chance(0.2):
        (shape,) = graph.add("Shape", [x.name])
        (end_of,) = graph.add("Gather", [shape, graph.ints(axis)], axis=0)
        inputs[2] = end_of
    return graph.add("Slice", inputs)


def gather(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"), rank=1)
    kind = graph.integer(0, 3)
    if kind == 0:
        places = graph.pick("int64").name
        return graph.add("Gather", [graph.floats(8, 2), places], axis=graph.integer(0, 1))
    axis = graph.axis(x)
    if kind == 1:
        return graph.add("Gather", [x.name, graph.pick("int64").name], axis=axis)
    places = graph.ints(graph.integer(-1, 1)) if graph.chance(0.5) else graph.weight(np.array(graph.integer(0, 1)))
    return graph.add("Gather", [x.name, places], axis=axis)


def gather_more(graph: Graph) -> list[str]:
    x, places = graph.pick(rank=1), graph.pick("int64", rank=1)
    kind = graph.integer(0, 3)
    if kind == 0:
        return graph.add("GatherElements", [x.name, places.name], axis=graph.axis(x))
    if kind == 1:
        return graph.add("GatherND", [x.name, places.name], batch_dims=graph.integer(0, 1))
    if kind == 2:
        return graph.add("GatherND", [x.name, graph.weight(np.array([[graph.integer(0, 1)]]))])
    updates = graph.pick(rank=1).name
    return graph.add("ScatterElements", [x.name, places.name, updates], axis=graph.axis(x))


def top(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    return graph.add("TopK", [x.name, graph.ints(graph.integer(1, 2))], 2, axis=graph.axis(x))


def cumulate(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    axis = graph.weight(np.array(graph.axis(x)))
    return graph.add("CumSum", [x.name, axis], exclusive=graph.integer(0, 1), reverse=graph.integer(0, 1))


def expand(graph: Graph) -> list[str]:
    x = graph.pick()
    if graph.chance(0.5):
        (shape,) = graph.add("Shape", [graph.pick().name])
        name = graph.floats(*graph.among([(), (1,), (2,), (1, 2)])) if graph.chance(0.5) else x.name
        return graph.add("Expand", [name, shape])
    sizes = [size if graph.chance(0.5) else graph.integer(1, 3) for size in x.joint.shape]
    return graph.add("Expand", [x.name, graph.ints(*([2] if graph.chance(0.3) else []), *sizes)])


def tile(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    return graph.add("Tile", [x.name, graph.ints(*(graph.among([1, 1, 2]) for _ in range(x.rank)))])


def pad(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    pads = [graph.among([0, 0, 1]) for _ in range(2 * x.rank)]
    return graph.add("Pad", [x.name, graph.ints(*pads)], mode=graph.among(["constant", "edge", "reflect"]))


def counting(graph: Graph) -> list[str]:
    """What is made of the number of rows: zeros, numbers from 0 on, a mean over it."""
    x = graph.pick(rank=1)
    (shape,) = graph.add("Shape", [x.name])
    kind = graph.integer(0, 3)
    if kind == 0:
        (zeros,) = graph.add("ConstantOfShape", [shape])
        return graph.add("Add", [zeros, graph.floats()])
    (size,) = graph.add("Gather", [shape, graph.weight(np.array(graph.integer(0, x.rank - 1)))], axis=0)
    if kind == 1:
        numbers = graph.add("Range", [graph.weight(np.array(0)), size, graph.weight(np.array(1))])
        return graph.add("Cast", numbers, to=T.FLOAT)
    (number,) = graph.add("Cast", [size], to=T.FLOAT)
    return graph.add(graph.among(["Div", "Mul", "Add"]), [x.name, number])


def listing(graph: Graph) -> list[str]:
    x = graph.pick(("float32", "int64"), rank=1)
    kind = graph.integer(0, 3)
    if kind == 0:
        return graph.add("NonZero", [x.name])
    if kind == 1:
        return graph.add("Unique", [x.name], 1)
    if kind == 2:
        keep = graph.weight(graph.random.random(max(x.joint.shape)) > 0.5)
        return graph.add("Compress", [x.name, keep], **({"axis": graph.axis(x)} if graph.chance(0.8) else {}))
    return graph.add("Trilu", [x.name], upper=graph.integer(0, 1))


def one_hot(graph: Graph) -> list[str]:
    places = graph.pick("int64")
    values = graph.weight(np.array([0, 1], np.float32))
    return graph.add("OneHot", [places.name, graph.weight(np.array(4)), values], axis=graph.axis(places, 1))


def images(graph: Graph) -> list[str]:
    x = graph.pick(rank=3, most=4)
    spatial, channels = x.rank - 2, x.joint.shape[1]
    kind = graph.integer(0, 5)
    if kind == 0:
        window = [graph.integer(1, 2)] * spatial
        options: dict[str, Any] = {
            "pads": [graph.integer(0, 1)] * 2 * spatial,
            "strides": [graph.integer(1, 2)] * spatial,
        }
        return graph.add("Conv", [x.name, graph.floats(graph.integer(1, 3), channels, *window)], **options)
    if kind == 1:
        return graph.add(graph.among(["GlobalAveragePool", "GlobalMaxPool"]), [x.name])
    if kind == 2:
        outputs = graph.integer(1, 2)
        return graph.add("MaxPool", [x.name], outputs, kernel_shape=[1] * spatial)
    if kind == 3:
        scales = graph.weight(np.array([graph.among([1, 1, 2]), 1, *([2] * spatial)], np.float32))
        return graph.add("Resize", [x.name, "", scales], mode=graph.among(["nearest", "linear"]))
    if kind == 4:
        sizes = [graph.among([size, size + 1]) for size in x.joint.shape]
        return graph.add("Resize", [x.name, "", "", graph.ints(*sizes)], mode="nearest")
    return graph.add("LRN", [x.name], size=3)


def recurrent(graph: Graph) -> list[str]:
    x = graph.pick(rank=3, most=3)
    operator, gates = graph.among([("RNN", 1), ("GRU", 3), ("LSTM", 4)])
    hidden, wide = 2, x.joint.shape[2]
    inputs = [x.name, graph.floats(1, gates * hidden, wide), graph.floats(1, gates * hidden, hidden)]
    if graph.chance(0.3):
        inputs += ["", "", graph.floats(1, graph.among([1, x.joint.shape[1]]), hidden)]
    return graph.add(operator, inputs, 2, hidden_size=hidden)


def quantize(graph: Graph) -> list[str]:
    x = graph.pick(rank=1)
    if graph.chance(0.5):
        return graph.add("DequantizeLinear", graph.add("DynamicQuantizeLinear", [x.name], 3))
    axis = graph.integer(0, x.rank - 1)
    sizes = graph.among([(), (x.joint.shape[axis],)])
    scale = graph.weight(graph.random.integers(1, 3, sizes).astype(np.float32))
    zero = graph.weight(np.zeros(sizes, np.int8))
    options = {"axis": axis} if graph.opset >= 13 else {}
    made = graph.add("QuantizeLinear", [x.name, scale, zero], **options)
    return graph.add("DequantizeLinear", [*made, scale, zero], **options)


def samples(graph: Graph) -> list[str]:
    x = graph.pick(rank=1, most=2)
    wide = x.joint.shape[-1]
    listed = [float(value) for value in graph.random.integers(1, 4, max(1, wide))]
    classes = graph.integer(2, 3)
    lines = 1 if classes == 2 and graph.chance(0.5) else classes
    coefficients = [float(value) for value in graph.random.integers(-2, 3, wide * lines)]
    linear = {
        "coefficients": coefficients,
        "intercepts": [0.0] * lines,
        "classlabels_ints": list(range(classes)),
        "post_transform": graph.among(["NONE", "SOFTMAX", "LOGISTIC"]),
    }
    kinds: list[tuple[str, int, dict[str, Any]]] = [
        ("Scaler", 1, {"offset": graph.among([listed, [1.0]]), "scale": listed[:1]}),
        ("LinearRegressor", 1, {"targets": 2, "coefficients": listed * 2, "intercepts": [1.0, 0.0]}),
        ("Imputer", 1, {"imputed_value_floats": listed, "replaced_value_float": 1.0}),
        ("LinearClassifier", 2, linear),
    ]
    operator, outputs, options = graph.among(kinds)
    return graph.add(operator, [x.name], outputs, domain="ai.onnx.ml", **options)


def features(graph: Graph) -> list[str]:
    kind = graph.integer(0, 2)
    if kind == 0:
        x = graph.pick(rank=1, most=2)
        chosen = graph.ints(graph.integer(0, max(0, x.joint.shape[-1] - 1)))
        return graph.add("ArrayFeatureExtractor", [x.name, chosen], domain="ai.onnx.ml")
    places = graph.pick("int64").name
    if kind == 1:
        table = graph.weight(np.arange(8, dtype=np.float32))
        return graph.add("ArrayFeatureExtractor", [table, places], domain="ai.onnx.ml")
    options = {"keys_int64s": [0, 1, 2], "values_floats": [3.0, 1.0, 2.0], "default_float": -1.0}
    return graph.add("LabelEncoder", [places], domain="ai.onnx.ml", **options)


def inner(graph: Graph, make: Callable[[Graph], list[str]]) -> tuple[onnx.GraphProto, Tensor]:
    """What ``make`` adds to the graph as a graph of its own, which reads tensors of the outer one."""
    before, outer = len(graph.nodes), list(graph.tensors)
    *_, name = make(graph)
    made = graph.find(name)
    body = graph.nodes[before:]
    del graph.nodes[before:]
    graph.tensors = outer
    return helper.make_graph(body, graph.name("g"), [], [onnx.ValueInfoProto(name=name)]), made


def branch(graph: Graph) -> list[str]:
    kind = graph.integer(0, 2)
    if kind == 0:
        (top_of,) = graph.add("ReduceMax", [graph.pick().name], keepdims=0)
        (condition,) = graph.add("Greater", [top_of, graph.weight(np.float32(graph.integer(-1, 3)))])
    elif kind == 1:
        condition = graph.weight(np.array(graph.chance(0.5)))
    else:
        (size,) = graph.add("Size", [graph.pick().name])
        (condition,) = graph.add("Less", [size, graph.weight(np.array(graph.integer(2, 9)))])
    x = graph.pick()
    simple = [lambda _, operator=operator: graph.add(operator, [x.name]) for operator in ("Neg", "Relu", "Identity")]
    then, other = (inner(graph, graph.among([*simple, unary, reduce])) for _ in range(2))
    names = graph.name("t")
    node = helper.make_node("If", [condition], [names], then_branch=then[0], else_branch=other[0])
    decided = graph.find(condition)
    yes, no = then[1], other[1]
    joint = (yes if decided.joint.all() else no).joint
    lone = [(yes if one.all() else no).lone[row] for row, one in enumerate(decided.lone)]
    graph.nodes.append(node)
    graph.tensors.append(Tensor(names, joint, lone))
    return [names]


def loop(graph: Graph) -> list[str]:
    """A state that a body changes a few times, with what it makes each time."""
    x, other = graph.pick(), graph.pick()
    step, goes, state, made, again, out = (graph.name(what) for what in ("i", "go", "s", "m", "again", "o"))
    operator = graph.among(["Add", "Mul", "Max", "Sub"])
    body = [
        helper.make_node("Identity", [goes], [again]),
        helper.make_node(operator, [state, other.name], [made]),
        helper.make_node(graph.among(["Relu", "Identity", "Neg"]), [made], [out]),
    ]
    inputs = [
        helper.make_tensor_value_info(step, T.INT64, []),
        helper.make_tensor_value_info(goes, T.BOOL, []),
        helper.make_tensor_value_info(state, T.FLOAT, None),
    ]
    outputs = [helper.make_tensor_value_info(again, T.BOOL, [])]
    outputs += [helper.make_tensor_value_info(name, T.FLOAT, None) for name in (made, out)]
    inside = helper.make_graph(body, graph.name("g"), inputs, outputs)
    if graph.chance(0.2):
        (count,) = graph.add("Size", [x.name])
    else:
        count = graph.weight(np.array(graph.integer(0, 3)))
    return graph.add("Loop", [count, "", x.name], 2, body=inside, reads=[other.name])


def scan(graph: Graph) -> list[str]:
    """A pass along an axis, with a sum or without."""
    x = graph.pick(rank=1)
    axis = graph.integer(0, x.rank - 1)
    state, element, summed, made = (graph.name(what) for what in ("s", "e", "a", "m"))
    keeps = graph.chance(0.5)
    shape = [size for place, size in enumerate(x.joint.shape) if place != axis]
    shape = graph.among([shape, [1] * len(shape)])
    body = [
        helper.make_node("Identity" if keeps else "Add", [state] if keeps else [state, element], [summed]),
        helper.make_node(graph.among(["Mul", "Add"]), [element, state], [made]),
    ]
    inputs = [helper.make_tensor_value_info(name, T.FLOAT, None) for name in (state, element)]
    outputs = [helper.make_tensor_value_info(name, T.FLOAT, None) for name in (summed, made)]
    inside = helper.make_graph(body, graph.name("g"), inputs, outputs)
    along = {"scan_input_axes": [axis], "scan_output_axes": [graph.among([0, axis])]}
    return graph.add("Scan", [graph.floats(*shape), x.name], 2, body=inside, num_scan_inputs=1, **along)


def of_microsoft(graph: Graph) -> list[str]:
    """What the runtime's own optimiser makes."""
    x = graph.pick(rank=1)
    wide, kind = x.joint.shape[-1], graph.integer(0, 6)
    own = {"domain": "com.microsoft"}
    if kind == 0:
        return graph.add("BiasGelu", [x.name, graph.floats(wide)], **own)
    if kind == 1:
        return graph.add("FusedMatMul", [x.name, graph.floats(2, wide)], transB=1, alpha=2.0, **own)
    if kind == 2 and x.rank == 3:
        skip = graph.pick(rank=3, most=3).name if graph.chance(0.5) else graph.floats(*x.joint.shape[1:])
        return graph.add("SkipLayerNormalization", [x.name, skip, graph.floats(wide), graph.floats(wide)], **own)
    if kind == 3 and x.rank == 2:
        other = graph.pick(rank=2, most=2).name if graph.chance(0.3) else graph.floats(2, wide)
        return graph.add("CDist", [x.name, other], metric="sqeuclidean", **own)
    small = graph.add("Cast", [x.name], to=T.UINT8)
    weights = graph.weight(graph.random.integers(0, 4, (wide, 2)).astype(np.uint8))
    zero = graph.weight(np.zeros(graph.among([(), (x.joint.shape[0],)]), np.uint8))
    product = graph.add("MatMulInteger", [*small, weights, *([zero] if graph.chance(0.5) else [])])
    return graph.add("Cast", product, to=T.FLOAT)


MAKERS = (
    unary, binary, binary, compare, cast, reduce, reduce, arg, softmax, layer_norm, normalize, matmul, matmul, gemm, einsum,
    reshape, reshape, reshape, flatten, transpose, transpose, squeeze, squeeze, concat, split, cut, gather, gather,
    gather_more, top, cumulate, expand, tile, pad, counting, listing, one_hot, images, images, recurrent, quantize,
    samples, features, branch, loop, scan, of_microsoft, of_microsoft,
)  # fmt: skip
"""Each adds an operator, or a few that belong together, and hands on what they make."""


def main() -> None:
    """Compare verdicts with the truth."""
    from inferd import _native

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = {"independent": 0, "dependent": 0, "unknown": 0}
    wrong = 0
    for seed in range(options.seed, options.seed + options.graphs):
        model, rows = grow(seed)
        verdict, _ = _native.analyse_onnx(model.SerializeToString())
        counts[verdict] += 1
        if verdict == "independent" and is_independent(model, rows) is False:
            wrong += 1
            print(f"seed {seed}: called independent, and is not\n{onnx.printer.to_text(model)}")
    print(f"{options.graphs} graphs: {counts}; {wrong} wrong")


if __name__ == "__main__":
    main()
