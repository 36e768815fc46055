"""ONNX models as exporters and converters make them; the library is ONNX Runtime in this process."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray]

SLICE = ("numbers of every float type", "texts and their places", "ZipMap of text classes", "images")


def graph(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A model file."""
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    return folder / "model.onnx"


def case(path: Path, rows: dict[str, np.ndarray], *, lone: bool = False, **more: Any) -> Case:
    """The answers of ONNX Runtime: maps of classes are columns, tensors of a sequence are outputs.

    Args:
        path: the model.
        rows: by input.
        lone: dimension 0 counts no rows: the model is asked without it.
        more: of :class:`Case`.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, OrtValue

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    columns = {name: keys for node in onnx.load(path).graph.node for name, keys in _keys(node)}
    names = [output.name for output in session.get_outputs()]

    def given(array: np.ndarray) -> Any:
        if array.dtype == ml_dtypes.bfloat16:
            return OrtValue.ort_value_from_numpy_with_onnx_type(array.view(np.uint16), T.BFLOAT16)
        # The session takes texts as str alone.
        return np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == object else array

    def answer(asked: Arrays) -> dict[str, np.ndarray]:
        feed = {name: given(np.asarray(asked[name][0]) if lone else asked[name]) for name in asked}
        outputs: dict[str, np.ndarray] = {}
        for name, found in zip(names, session.run(names, feed), strict=True):
            if not isinstance(found, list):
                outputs[name] = found
            elif name in columns:
                outputs[name] = np.array([[one[key] for key in columns[name]] for one in found], np.float32)
            else:
                outputs |= {f"{name}_{part}": array for part, array in enumerate(found)}
        return {name: array[None] if lone else array for name, array in outputs.items()}

    return Case(path, rows, answer, **{"refusals": (InvalidArgument,), "relative": 1e-6, "absolute": 1e-6, **more})


def _keys(node: onnx.NodeProto) -> list[tuple[str, list[Any]]]:
    if node.op_type != "ZipMap":
        return []
    keys = helper.get_attribute_value(node.attribute[0])
    return [(node.output[0], [key.decode() if isinstance(key, bytes) else key for key in keys])]


def numbers(
    random: np.random.Generator, *shape: int, dtype: Any = np.float32, largest: float | None = None
) -> np.ndarray:
    """Ordinary ones, and rows of extremes: NaN, the infinities, the largest, the smallest, both zeros.

    Where sums of the ``largest`` number overflow, the library's answers depend on the rows beside one.
    """
    x = random.normal(size=(ROWS, *shape)).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    most = limits.max if largest is None else largest
    for row, value in enumerate([np.nan, np.inf, -np.inf, most, -most, limits.smallest_subnormal, -0.0]):
        x[row] = np.array(value).astype(dtype)
    return x


def integers(random: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    """Every size there is, the limits among them."""
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, *shape), dtype=dtype, endpoint=True)
    x[0], x[1], x[2] = limits.min, limits.max, 0
    return x


def words(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Texts of every alphabet, short ones, empty ones."""
    x = np.empty((ROWS, *shape), object)
    alphabet = [*"abc xyz", "ü", "漢", "🙂", ""]
    for place in np.ndindex(x.shape):
        x[place] = "".join(random.choice(alphabet, random.integers(0, 12))).encode()
    x[0] = b""
    return x


def tensor(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def floats(folder: Path, random: np.random.Generator) -> Case:
    kinds = {"half": (T.FLOAT16, np.float16), "float": (T.FLOAT, np.float32), "double": (T.DOUBLE, np.float64)}
    nodes = [helper.make_node("Mul", [name, f"{name}_by"], [f"{name}_scaled"]) for name in kinds]
    path = graph(
        folder,
        nodes,
        [tensor(name, kind, ["n", 2]) for name, (kind, _) in kinds.items()],
        [tensor(f"{name}_scaled", kind, ["n", 2]) for name, (kind, _) in kinds.items()],
        {f"{name}_by": np.array(1.1, dtype) for name, (_, dtype) in kinds.items()},
    )
    rows = {name: numbers(random, 2, dtype=dtype) for name, (_, dtype) in kinds.items()}
    return case(path, rows, relative=0, absolute=0)


def whole_numbers(folder: Path, random: np.random.Generator) -> Case:
    kinds = {
        "int8": T.INT8, "uint8": T.UINT8, "int16": T.INT16, "uint16": T.UINT16,
        "int32": T.INT32, "uint32": T.UINT32, "int64": T.INT64, "uint64": T.UINT64,
    }  # fmt: skip
    path = graph(
        folder,
        [helper.make_node("Identity", [name], [f"{name}_same"]) for name in kinds],
        [tensor(name, kind, ["n", 2]) for name, kind in kinds.items()],
        [tensor(f"{name}_same", kind, ["n", 2]) for name, kind in kinds.items()],
    )
    return case(path, {name: integers(random, np.dtype(name), 2) for name in kinds})


def truths(folder: Path, random: np.random.Generator) -> Case:
    nodes = [
        helper.make_node("Not", ["x"], ["no"]),
        helper.make_node("Cast", ["x"], ["number"], to=T.INT32),
        helper.make_node("ReduceSum", ["number", "axis"], ["count"], keepdims=0),
    ]
    outputs = [tensor("no", T.BOOL, ["n", 3]), tensor("count", T.INT32, ["n"])]
    path = graph(folder, nodes, [tensor("x", T.BOOL, ["n", 3])], outputs, {"axis": np.array([1])})
    return case(path, {"x": random.random((ROWS, 3)) > 0.6})


def texts(folder: Path, random: np.random.Generator) -> Case:
    known = [b"red", "gr\u00fcn".encode(), b""]
    nodes = [
        helper.make_node(
            "LabelEncoder", ["color"], ["place"], domain="ai.onnx.ml",
            keys_strings=known, values_int64s=[10, 20, 30], default_int64=-1,
        ),
        helper.make_node("StringConcat", ["color", "mark"], ["marked"]),
    ]  # fmt: skip
    outputs = [tensor("place", T.INT64, ["n", 1]), tensor("marked", T.STRING, ["n", 1])]
    path = graph(folder, nodes, [tensor("color", T.STRING, ["n", 1])], outputs, {"mark": np.array(["!"], object)})
    x = words(random, 1)
    x[::3] = random.choice(np.array(known, object), (len(x[::3]), 1))
    return case(path, {"color": x})


def one_number_a_row(folder: Path, random: np.random.Generator) -> Case:
    nodes = [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Cast", ["y"], ["whole"], to=T.INT64)]
    path = graph(
        folder, nodes, [tensor("x", T.DOUBLE, ["n"])], [tensor("y", T.DOUBLE, ["n"]), tensor("whole", T.INT64, ["n"])]
    )
    return case(path, {"x": random.normal(size=ROWS) * 3}, relative=1e-12)


def scalars(folder: Path, random: np.random.Generator) -> Case:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    path = graph(folder, nodes, [tensor("a", T.FLOAT, []), tensor("b", T.FLOAT, [])], [tensor("sum", T.FLOAT, [])])
    return case(path, {"a": numbers(random), "b": random.normal(size=ROWS).astype(np.float32)}, lone=True)


def free_length(folder: Path, random: np.random.Generator) -> Case:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Softmax", ["embedded"], ["weights"], axis=1),
        helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["pooled"], keepdims=0),
        helper.make_node("Shape", ["ids"], ["length"], start=1),
        helper.make_node("Expand", ["one", "length"], ["ones"]),
        helper.make_node("Mul", ["ids", "ones"], ["same"]),
    ]
    table = random.normal(size=(50, 8)).astype(np.float32)
    weights = {"table": table, "axis": np.array([1]), "one": np.array(1)}
    outputs = [tensor("pooled", T.FLOAT, ["n", 8]), tensor("same", T.INT64, ["n", "t"])]
    path = graph(folder, nodes, [tensor("ids", T.INT64, ["n", "t"])], outputs, weights)
    ids = random.integers(-50, 50, (ROWS, 9))
    # Places that the table does not have are refused.
    ids[::50, 3] = 50
    return case(path, {"ids": ids})


def images(folder: Path, random: np.random.Generator) -> Case:
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=T.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "filter", "bias"], ["features"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ArgMax", ["logits"], ["class"], axis=1, keepdims=0),
    ]
    weights = {
        "full": np.float32(255),
        "filter": random.normal(size=(6, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(size=6).astype(np.float32),
        "w": random.normal(size=(6, 4)).astype(np.float32),
    }
    outputs = [tensor("probabilities", T.FLOAT, ["n", 4]), tensor("class", T.INT64, ["n"])]
    path = graph(folder, nodes, [tensor("image", T.UINT8, ["n", 3, 16, 16])], outputs, weights)
    x = integers(random, np.uint8, 3, 16, 16)
    return case(path, {"image": x}, absolute=1e-5, outputs={"class": "probabilities"})


def dynamic_quantization(folder: Path, random: np.random.Generator) -> Case:
    # The scale is of the greatest value of all rows: they must not run together.
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = graph(folder, nodes, [tensor("x", T.FLOAT, ["n", 4])], [tensor("y", T.FLOAT, ["n", 4])])
    x = random.normal(size=(ROWS, 4)).astype(np.float32) * np.exp(random.normal(size=(ROWS, 1))).astype(np.float32)
    return case(path, {"x": x}, relative=0, absolute=0)


def fixed_row(folder: Path, random: np.random.Generator) -> Case:
    nodes = [helper.make_node("ReduceMax", ["x"], ["top"], keepdims=1), helper.make_node("Div", ["x", "top"], ["y"])]
    path = graph(folder, nodes, [tensor("x", T.FLOAT, [1, 3])], [tensor("y", T.FLOAT, [1, 3])])
    return case(path, {"x": numbers(random, 3)}, relative=0, absolute=0)


def data_decides(folder: Path, random: np.random.Generator) -> Case:
    path = graph(
        folder,
        [helper.make_node("NonZero", ["x"], ["places"])],
        [tensor("x", T.INT32, [4])],
        [tensor("places", T.INT64, [1, "found"])],
    )
    return case(path, {"x": random.integers(0, 2, (ROWS, 4)).astype(np.int32)}, lone=True)


def of_sklearn(make: Callable[[np.random.Generator], Any], labels: list[Any], **more: Any) -> Callable[..., Case]:
    """A classifier as skl2onnx converts it unless told otherwise."""

    def maker(folder: Path, random: np.random.Generator) -> Case:
        from skl2onnx import to_onnx

        x = random.normal(size=(ROWS, 5)).astype(np.float32)
        y = np.array(labels)[np.argmax(x[:, : len(labels)], axis=1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = to_onnx(make(random).fit(x, y), x[:1])
        (folder / "model.onnx").write_bytes(converted.SerializeToString())
        rows = numbers(random, 5, largest=1e9)
        return case(folder / "model.onnx", {"X": rows}, outputs={"output_label": "output_probability"}, **more)

    return maker


def logistic(_: np.random.Generator) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def forest(_: np.random.Generator) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, random_state=0)


def several_answers(folder: Path, random: np.random.Generator) -> Case:
    from skl2onnx import to_onnx
    from sklearn.multioutput import MultiOutputClassifier

    x = random.normal(size=(ROWS, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = MultiOutputClassifier(logistic(random)).fit(x, np.stack([x[:, 0] > 0, np.argmax(x, axis=1)], 1))
        converted = to_onnx(fitted, x[:1])
    (folder / "model.onnx").write_bytes(converted.SerializeToString())
    return case(folder / "model.onnx", {"X": random.normal(size=(ROWS, 3)).astype(np.float32)})


def boosted(folder: Path, random: np.random.Generator) -> Case:
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    x = random.normal(size=(ROWS, 4)).astype(np.float32)
    fitted = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(x, np.argmax(x[:, :3], axis=1) * 7)
    made = convert_lightgbm(fitted, initial_types=[("x", FloatTensorType([None, 4]))], target_opset=15)
    onnx.save(made, folder / "model.onnx")
    return case(folder / "model.onnx", {"x": numbers(random, 4)}, outputs={"label": "probabilities"})


CASES = {
    "numbers of every float type": floats,
    "numbers of every integer type": whole_numbers,
    "truths": truths,
    "texts and their places": texts,
    "one number a row": one_number_a_row,
    "scalars": scalars,
    "a free length, and ids that are refused": free_length,
    "images": images,
    "dynamic quantization": dynamic_quantization,
    "one fixed row": fixed_row,
    "a size that the data decides": data_decides,
    "ZipMap of two classes": of_sklearn(logistic, [0, 1]),
    "ZipMap of integer classes": of_sklearn(logistic, [3, -1, 20]),
    "ZipMap of text classes": of_sklearn(forest, ["no", "maybe", "vielleicht, ü"]),
    "a sequence of probabilities": several_answers,
    "LightGBM's ZipMap, one row declared": boosted,
}
