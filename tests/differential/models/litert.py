"""Models of LiteRT, written with the schema that the package ships: it has no converter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "bool": "BOOL",
    "object": "STRING",
}


@dataclass
class Graph:
    """One subgraph of a model, built tensor by tensor."""

    model: Model
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(self, name: str, dtype: Any, shape: list[int], **more: Any) -> int:
        """The number of a new tensor; -1 is a free size. ``scale`` and ``zero``: it is quantised."""
        from ai_edge_litert import schema_py_generated as schema

        one = schema.TensorT()
        one.name, one.buffer = name, self.model.buffer(more.get("value"))
        one.type = getattr(schema.TensorType, KINDS[np.dtype(dtype).name])
        one.shape = [abs(size) for size in shape]
        if -1 in shape:
            one.shapeSignature = shape
        if "scale" in more:
            one.quantization = schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [more["scale"]], [more["zero"]]
        one.isVariable = more.get("variable", False)
        self.tensors.append(one)
        return len(self.tensors) - 1

    def constant(self, value: Any, dtype: Any = np.float32) -> int:
        array = np.asarray(value, dtype)
        return self.tensor(f"constant{len(self.tensors)}", dtype, list(array.shape), value=array)

    def operator(self, kind: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        one = schema.OperatorT()
        one.opcodeIndex = self.model.code(getattr(schema.BuiltinOperator, kind))
        one.inputs, one.outputs = inputs, outputs
        name = "".join(part.capitalize() for part in kind.split("_")) + "Options"
        name = {"ReduceMaxOptions": "ReducerOptions", "SumOptions": "ReducerOptions"}.get(name, name)
        made = getattr(schema, f"{name}T", None)
        if made is not None:
            one.builtinOptionsType, one.builtinOptions = getattr(schema.BuiltinOptions, name), made()
            for key, value in options.items():
                setattr(one.builtinOptions, key, value)
        self.operators.append(one)

    def done(self, inputs: list[int], outputs: list[int]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        one = schema.SubGraphT()
        one.tensors, one.operators, one.inputs, one.outputs = self.tensors, self.operators, inputs, outputs
        self.model.graphs.append(one)


class Model:
    """A file: buffers, kinds of operators, subgraphs, signatures."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.buffers = [schema.BufferT()]
        self.codes: list[Any] = []
        self.graphs: list[Any] = []
        self.signatures: list[Any] = []

    def buffer(self, value: np.ndarray | None) -> int:
        from ai_edge_litert import schema_py_generated as schema

        if value is None:
            return 0
        one = schema.BufferT()
        one.data = list(value.tobytes())
        self.buffers.append(one)
        return len(self.buffers) - 1

    def code(self, builtin: int) -> int:
        from ai_edge_litert import schema_py_generated as schema

        for place, code in enumerate(self.codes):
            if code.builtinCode == builtin:
                return place
        one = schema.OperatorCodeT()
        one.builtinCode, one.deprecatedBuiltinCode, one.version = builtin, min(builtin, 127), 1
        self.codes.append(one)
        return len(self.codes) - 1

    def signature(self, key: str, graph: int, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        one = schema.SignatureDefT()
        one.signatureKey, one.subgraphIndex = key, graph
        for side, named in (("inputs", inputs), ("outputs", outputs)):
            maps = []
            for name, tensor in named.items():
                made = schema.TensorMapT()
                made.name, made.tensorIndex = name, tensor
                maps.append(made)
            setattr(one, side, maps)
        self.signatures.append(one)

    def save(self, file: Path) -> Path:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT()
        model.version, model.subgraphs, model.operatorCodes = 3, self.graphs, self.codes
        model.buffers, model.signatureDefs = self.buffers, self.signatures
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        file.write_bytes(bytes(builder.Output()))
        return file


def case(folder: Path, model: Model, rows: dict[str, np.ndarray], key: str | None = None, **more: Any) -> Case:
    """A model whose inputs are the ``rows``, in its order; ``key`` is the signature that is asked."""
    from ai_edge_litert.interpreter import Interpreter

    file = model.save(folder / "model.tflite")

    def answer(asked: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        interpreter = Interpreter(model_path=str(file), num_threads=1)
        if key is not None:
            return interpreter.get_signature_runner(key)(**asked)
        for detail, array in zip(interpreter.get_input_details(), asked.values(), strict=True):
            if len(detail["shape"]) == array.ndim:
                interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        lone = False
        for detail, array in zip(interpreter.get_input_details(), asked.values(), strict=True):
            lone = len(detail["shape"]) < array.ndim
            interpreter.set_tensor(detail["index"], array[0] if lone else array)
        interpreter.invoke()
        details = interpreter.get_output_details()
        names = more.get("names") or [detail["name"] for detail in details]
        arrays = [interpreter.get_tensor(detail["index"]) for detail in details]
        return {name: array[None] if lone else array for name, array in zip(names, arrays, strict=True)}

    settings = more.get("settings", {})
    # The library can't read an output that has no elements.
    return Case(file, rows, answer, (RuntimeError, ValueError), settings, relative=1e-6, absolute=1e-6)


def floats(random: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = random.normal(size=(ROWS, *shape)).astype(dtype)
    limits = np.finfo(dtype)
    for row, value in enumerate([np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, -0.0]):
        x[row] = value
    return x


def integers(random: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, *shape), dtype=dtype, endpoint=True)
    x[0], x[1] = limits.min, limits.max
    return x


def line(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, twice, y = (graph.tensor(name, np.float32, [1, 3]) for name in ("x", "twice", "y"))
    graph.operator("MUL", [x, graph.constant([2])], [twice])
    graph.operator("ADD", [twice, graph.constant([1])], [y])
    graph.done([x], [y])
    return case(folder, model, {"x": floats(random, 3)})


def quantised(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x = graph.tensor("x", np.int8, [1, 2], scale=0.5, zero=3)
    y = graph.tensor("y", np.int8, [1, 2], scale=0.25, zero=-1)
    graph.operator("ADD", [x, x], [y])
    real = graph.tensor("real", np.float32, [1, 2])
    graph.operator("DEQUANTIZE", [y], [real])
    graph.done([x], [y, real])
    return case(folder, model, {"x": integers(random, np.int8, 2)})


def sums(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    rows, outputs = {}, []
    for dtype in (np.int32, np.int64):
        name = np.dtype(dtype).name
        x, y = graph.tensor(name, dtype, [1, 2]), graph.tensor(f"{name}_doubled", dtype, [1, 2])
        graph.operator("ADD", [x, x], [y])
        rows[name] = integers(random, dtype, 2) // 2
        outputs.append(y)
    graph.done([0, 2], outputs)
    return case(folder, model, rows)


def every_type(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    rows, inputs, outputs = {}, [], []
    for name in KINDS:
        if name == "object":
            continue
        dtype = np.dtype(name)
        x, y = graph.tensor(name, dtype, [1, 2]), graph.tensor(f"{name}_", dtype, [1, 2])
        graph.operator("RESHAPE", [x, graph.constant([-1, 2], np.int32)], [y], newShape=[-1, 2])
        inputs.append(x)
        outputs.append(y)
        if dtype.kind == "f":
            rows[name] = floats(random, 2, dtype=dtype)
        else:
            rows[name] = random.random((ROWS, 2)) > 0.5 if name == "bool" else integers(random, dtype, 2)
    graph.done(inputs, outputs)
    return case(folder, model, rows)


def texts(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, y = graph.tensor("x", object, [1, 2]), graph.tensor("y", object, [1, 2])
    graph.operator("RESHAPE", [x, graph.constant([-1, 2], np.int32)], [y], newShape=[-1, 2])
    graph.done([x], [y])
    values = np.empty((ROWS, 2), object)
    for place in np.ndindex(values.shape):
        values[place] = "".join(random.choice([*"ab c", "ü", "漢", "\0", ""], random.integers(0, 9))).encode()
    values[0] = b"\xff\xfe", b""
    return case(folder, model, {"x": values})


def two_signatures(folder: Path, random: np.random.Generator, key: str, **settings: Any) -> Case:
    model = Model()
    for operator in ("ADD", "MUL"):
        graph = Graph(model)
        x, y = graph.tensor("x", np.float32, [1, 2]), graph.tensor("y", np.float32, [1, 2])
        graph.operator(operator, [x, x], [y])
        graph.done([x], [y])
    # The file's first signature is of the second subgraph, and the tensors of both have the same numbers.
    model.signature("square", 1, {"number": 0}, {"squared": 1})
    model.signature("serving_default", 0, {"number": 0}, {"doubled": 1})
    return case(folder, model, {"number": floats(random, 2)}, key, settings=settings)


def names(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, other = graph.tensor("", np.float32, [1, 2]), graph.tensor("", np.float32, [1, 2])
    y, z = graph.tensor("same", np.float32, [1, 2]), graph.tensor("same", np.float32, [1, 2])
    graph.operator("ADD", [x, other], [y])
    graph.operator("MUL", [x, other], [z])
    graph.done([x, other], [y, z, y])
    rows = {"input_0": floats(random, 2), "input_1": floats(random, 2)}
    return case(folder, model, rows, names=["same", "same_1", "same"])


def indices(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    index, y = graph.tensor("index", np.int32, [1]), graph.tensor("y", np.float32, [1])
    graph.operator("GATHER", [graph.constant([1.5, 2.5, 3.5]), index], [y], axis=0)
    graph.done([index], [y])
    return case(
        folder, model, {"index": random.choice([0, 1, 2, 3, -1], ROWS, p=[0.3] * 3 + [0.05] * 2).astype(np.int32)}
    )


def found_length(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, y = graph.tensor("x", np.bool_, [1, 4]), graph.tensor("places", np.int64, [1, 2])
    graph.operator("WHERE", [x], [y])
    graph.done([x], [y])
    return case(folder, model, {"x": random.random((ROWS, 4)) > 0.5})


def state(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, state, y = graph.tensor("x", np.float32, [1, 2]), graph.tensor("h", np.float32, [1, 3], variable=True), None
    y = graph.tensor("y", np.float32, [1, 3])
    weights = [graph.constant(random.normal(size=size)) for size in ((3, 2), (3, 3), (3,))]
    graph.operator("RNN", [x, *weights, state], [y], fusedActivationFunction=4)
    graph.done([x], [y])
    return case(folder, model, {"x": random.normal(size=(ROWS, 2)).astype(np.float32)})


def dependent(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, total, y = (graph.tensor(name, np.float32, [1, 2]) for name in ("x", "total", "y"))
    graph.operator("SUM", [x, graph.constant([0], np.int32)], [total], keepDims=True)
    graph.operator("SUB", [x, total], [y])
    graph.done([x], [y])
    return case(folder, model, {"x": random.normal(size=(ROWS, 2)).astype(np.float32)})


def free_sizes(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, y = graph.tensor("x", np.float32, [-1, -1]), graph.tensor("y", np.float32, [-1, -1])
    graph.operator("SOFTMAX", [x], [y], beta=1.0)
    graph.done([x], [y])
    return case(folder, model, {"x": random.normal(size=(ROWS, 7)).astype(np.float32) * 30})


def scalars(folder: Path, random: np.random.Generator) -> Case:
    graph = Graph(model := Model())
    x, y = graph.tensor("x", np.float32, []), graph.tensor("y", np.float32, [])
    graph.operator("ADD", [x, graph.constant(1)], [y])
    graph.done([x], [y])
    return case(folder, model, {"x": floats(random)})


CASES = {
    "fractions": line,
    "quantised": quantised,
    "integers of 32 and 64 bits": sums,
    "every type": every_type,
    "texts": texts,
    "several signatures": lambda folder, random: two_signatures(folder, random, "serving_default"),
    "the signature that is named": lambda folder, random: two_signatures(
        folder, random, "square", parameters={"signature": "square"}
    ),
    "tensors without names and with the same": names,
    "an index out of bounds": indices,
    "a length that is found out": found_length,
    "state between runs": state,
    "rows that depend on each other": dependent,
    "free sizes": free_sizes,
    "scalars": scalars,
}
SLICE = ("quantised", "texts", "several signatures", "state between runs")
