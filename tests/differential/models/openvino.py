"""Networks of OpenVINO: every type that it takes, sizes that are free, fixed or said by a row, names of all sorts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Node = Any
    Arrays = Mapping[str, np.ndarray]

SLICE = ("fractions and integers", "BF16", "texts", "a shape that the request says")


def case(
    folder: Path,
    shapes: Mapping[str, tuple[str, list[int]]],
    graph: Callable[..., Mapping[str, Node]],
    rows: dict[str, np.ndarray],
    **more: Any,
) -> Case:
    """A network of inputs by name, type and shape; ``graph`` makes outputs by name of them."""
    import openvino
    from openvino import opset13

    inputs = [
        opset13.parameter(shape, getattr(openvino.Type, kind), name=name) for name, (kind, shape) in shapes.items()
    ]
    for node in inputs:
        node.output(0).set_names({node.get_friendly_name()})
    results = []
    for name, node in graph(*inputs).items():
        output = node if isinstance(node, openvino.Output) else node.output(0)
        # An output that is an input, too, keeps its own name.
        result = opset13.result(output)
        output.set_names(output.get_names() | {name})
        results.append(result)
    file = folder / "network.xml"
    openvino.save_model(openvino.Model(results, inputs, "network"), file, compress_to_fp16=False)
    # What users get in this process who ask for the precision of the file.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 0}
    compiled = openvino.compile_model(file, "CPU", options)
    names = [min(port.get_names(), key=len) for port in compiled.outputs]
    lone = any(len(shape) < rows[name].ndim for name, (_, shape) in shapes.items())

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == object:
            return openvino.Tensor(array.astype("S"))
        if array.dtype == ml_dtypes.bfloat16:
            return openvino.Tensor(array.view(np.uint16), openvino.Shape(array.shape), openvino.Type.bf16)
        return array

    def answer(asked: Arrays) -> Arrays:
        nonlocal compiled
        given = [np.asarray(asked[name][0] if lone else asked[name], order="C") for name in shapes]
        try:
            found = compiled.create_infer_request().infer(list(map(tensor, given)), decode_strings=False).to_tuple()
        except RuntimeError:
            # It would answer when it is asked again.
            compiled = openvino.compile_model(file, "CPU", options)
            raise
        is_bf16 = ["bf16" in str(port) for port in compiled.outputs]
        arrays = [one.view(ml_dtypes.bfloat16) if bf16 else one for one, bf16 in zip(found, is_bf16, strict=True)]
        return {name: one[None] if lone else one for name, one in zip(names, arrays, strict=True)}

    return Case(file, rows, answer, **{"refusals": (RuntimeError,), "relative": 1e-6, "absolute": 1e-6, **more})


def numbers(random: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Ordinary ones, and rows of extremes: NaN, the infinities, the largest, the smallest, both zeros."""
    x = random.normal(size=(ROWS, *shape)).astype(np.float32).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    extremes = [np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, -0.0]
    for row, value in enumerate(extremes):
        x[row] = np.array(value).astype(dtype)
    return x


def integers(random: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    """Every size there is, the limits among them."""
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, *shape), dtype=dtype, endpoint=True)
    x[:100] = random.integers(0, 5, (100, *shape))
    x[100], x[101] = limits.min, limits.max
    return x


def fractions_and_integers(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    weights = random.normal(size=(3, 4)).astype(np.float32)

    def graph(x: Node, k: Node) -> dict[str, Node]:
        product = ops.matmul(x, ops.constant(weights), transpose_a=False, transpose_b=False)
        return {"scores": ops.add(product, ops.convert(k, "f32")), "doubled": ops.multiply(k, np.int32(2))}

    rows = {"x": numbers(random, 3), "k": random.integers(-1000, 1000, (ROWS, 1)).astype(np.int32)}
    return case(folder, {"x": ("f32", [-1, 3]), "k": ("i32", [-1, 1])}, graph, rows)


def fp64(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"sum": ops.reduce_sum(x, np.array([1]), keep_dims=True), "same": x}

    return case(folder, {"x": ("f64", [-1, 3])}, graph, {"x": random.normal(size=(ROWS, 3)) * 1e6})


def bf16(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"y": ops.convert(ops.multiply(ops.convert(x, "f32"), np.float32(3)), "bf16")}

    rows = {"x": numbers(random, 2, dtype=ml_dtypes.bfloat16)}
    return case(folder, {"x": ("bf16", [-1, 2])}, graph, rows, relative=0, absolute=0)


def fp16(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"y": ops.multiply(x, ops.constant(np.float16(0.5)))}

    return case(folder, {"x": ("f16", [-1, 2])}, graph, {"x": numbers(random, 2, dtype=np.float16)}, relative=1e-3)


def small_integers(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    kinds = {"a": ("i8", np.int8), "b": ("u8", np.uint8), "c": ("i16", np.int16), "d": ("u16", np.uint16)}

    def graph(*inputs: Node) -> dict[str, Node]:
        # Sums past the largest: the library decides between wrapping and the limit.
        outputs = zip(inputs, kinds.items(), strict=True)
        return {f"{name}_next": ops.add(one, ops.constant(dtype(1))) for one, (name, (_, dtype)) in outputs}

    rows = {name: integers(random, dtype, 2) for name, (_, dtype) in kinds.items()}
    return case(folder, {name: (kind, [-1, 2]) for name, (kind, _) in kinds.items()}, graph, rows)


def large_integers(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    kinds = {"a": ("i64", np.int64), "b": ("u64", np.uint64), "c": ("u32", np.uint32), "d": ("i32", np.int32)}

    def graph(*inputs: Node) -> dict[str, Node]:
        same = zip(inputs, kinds, strict=True)
        return {**{f"{name}_": one for one, name in same}, "negative": ops.less(inputs[3], np.int32(0))}

    rows = {name: integers(random, dtype, 1) for name, (_, dtype) in kinds.items()}
    return case(folder, {name: (kind, [-1, 1]) for name, (kind, _) in kinds.items()}, graph, rows)


def truths(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"none": ops.logical_not(x), "any": ops.reduce_logical_or(x, np.array([1]), keep_dims=False)}

    return case(folder, {"x": ("boolean", [-1, 4])}, graph, {"x": random.random((ROWS, 4)) > 0.6})


def texts(folder: Path, random: np.random.Generator) -> Case:
    x = np.empty((ROWS, 2), object)
    alphabet = [*"abc xyz", "ü", "漢", "\0a", "🙂", ""]
    for place in np.ndindex(x.shape):
        x[place] = "".join(random.choice(alphabet, random.integers(0, 12))).encode()
    x[0] = b"\xff\xfe", b""
    return case(folder, {"x": ("string", [-1, 2])}, lambda x: {"x": x}, {"x": x})


def free_length(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {
            "probabilities": ops.softmax(x, 1),
            "length": ops.gather(ops.shape_of(x), np.array([1, 1]), np.array(0)),
        }

    return case(folder, {"x": ("f32", [-1, -1])}, graph, {"x": numbers(random, 9)})


def scalars(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node, k: Node) -> dict[str, Node]:
        return {"y": ops.multiply(x, ops.convert(k, "f32"))}

    rows = {"x": numbers(random), "k": random.integers(-9, 9, ROWS).astype(np.int32)}
    return case(folder, {"x": ("f32", []), "k": ("i32", [])}, graph, rows)


def one_row(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"y": ops.reduce_max(x, np.array([1]), keep_dims=False)}

    return case(folder, {"x": ("f32", [1, 3])}, graph, {"x": numbers(random, 3)})


def no_rows(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"mean": ops.reduce_mean(x, np.array([0]), keep_dims=False)}

    return case(folder, {"x": ("f32", [4, 3])}, graph, {"x": random.normal(size=(ROWS, 4, 3)).astype(np.float32)})


def names(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        left, right = ops.split(x, np.int64(1), 2).outputs()
        left.set_names({"StatefulPartitionedCall/model/left:0"})
        # One tensor twice, a name with spaces and a slash.
        return {"left": left, "right side/0": right}

    return case(folder, {"serving default x": ("f32", [-1, 2])}, graph, {"serving default x": numbers(random, 2)})


def rows_that_depend_on_each_other(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node) -> dict[str, Node]:
        return {"y": ops.subtract(x, ops.reduce_mean(x, np.array([0]), keep_dims=True))}

    return case(folder, {"x": ("f32", [-1, 2])}, graph, {"x": random.normal(size=(ROWS, 2)).astype(np.float32)})


def a_shape_that_the_request_says(folder: Path, random: np.random.Generator) -> Case:
    from openvino import opset13 as ops

    def graph(x: Node, shape: Node) -> dict[str, Node]:
        return {"y": ops.reshape(x, shape, special_zero=False)}

    shape = np.array([[3, 4], [2, 6], [12, 1], [1, -1], [5, 2]])[
        random.choice(5, ROWS, p=[0.25, 0.25, 0.25, 0.2, 0.05])
    ]
    rows = {"x": numbers(random, 12), "shape": shape}
    return case(folder, {"x": ("f32", [12]), "shape": ("i64", [2])}, graph, rows)


CASES = {
    "fractions and integers": fractions_and_integers,
    "FP64": fp64,
    "BF16": bf16,
    "FP16": fp16,
    "integers of 8 and 16 bits": small_integers,
    "integers of 32 and 64 bits": large_integers,
    "BOOL": truths,
    "texts": texts,
    "a free length": free_length,
    "scalars": scalars,
    "one row at a time": one_row,
    "no dimension of rows": no_rows,
    "names": names,
    "rows that depend on each other": rows_that_depend_on_each_other,
    "a shape that the request says": a_shape_that_the_request_says,
}
