"""Writes the tiny models that the tests of this crate load, into `models/` beside this file.

Run it with the packages `numpy` and `onnx` after changing it, and commit what it wrote:

    python crates/onnx/tests/make_models.py
"""

# The functions are named for what they make.
# ruff: noqa: D103, D403

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = Path(__file__).parent / "models"

TYPES = {
    "BOOL": T.BOOL,
    "UINT8": T.UINT8,
    "UINT16": T.UINT16,
    "UINT32": T.UINT32,
    "UINT64": T.UINT64,
    "INT8": T.INT8,
    "INT16": T.INT16,
    "INT32": T.INT32,
    "INT64": T.INT64,
    "FP16": T.FLOAT16,
    "FP32": T.FLOAT,
    "FP64": T.DOUBLE,
    "BF16": T.BFLOAT16,
    "BYTES": T.STRING,
}


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(name, nodes, inputs, outputs, constants=(), **options):
    graph = helper.make_graph(
        nodes, name, inputs, outputs, [numpy_helper.from_array(value, key) for key, value in constants]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10
    )
    onnx.save(model, HERE / f"{name}.onnx", **options)


def affine():
    """y = 2x + 1: independent rows."""
    save(
        "affine",
        [helper.make_node("Mul", ["x", "two"], ["d"]), helper.make_node("Add", ["d", "one"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 4])],
        [tensor("y", T.FLOAT, ["batch", 4])],
        [("two", np.float32(2)), ("one", np.float32(1))],
    )


def every_type():
    """One input and one output of each type, passed through."""
    save(
        "every_type",
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES],
        [tensor(f"in_{name}", kind, ["batch", 3]) for name, kind in TYPES.items()],
        [tensor(f"out_{name}", kind, ["batch", 3]) for name, kind in TYPES.items()],
    )


def running_sum():
    """Dimension 0 is symbolic but it is time: each row depends on those before it."""
    save(
        "running_sum",
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [tensor("x", T.FLOAT, ["time", 2])],
        [tensor("y", T.FLOAT, ["time", 2])],
        [("axis", np.int64(0))],
    )


def fixed():
    save(
        "fixed",
        [helper.make_node("Relu", ["x"], ["y"])],
        [tensor("x", T.FLOAT, [1, 3])],
        [tensor("y", T.FLOAT, [1, 3])],
    )


def scalar():
    save(
        "scalar",
        [helper.make_node("Neg", ["x"], ["y"])],
        [tensor("x", T.FLOAT, [])],
        [tensor("y", T.FLOAT, [])],
    )


def similarity():
    """Every row with every other: the batch is a later dimension too."""
    save(
        "similarity",
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        [tensor("x", T.FLOAT, ["batch", 2])],
        [tensor("y", T.FLOAT, ["batch", "batch"])],
    )


def noisy():
    save(
        "noisy",
        [helper.make_node("RandomNormalLike", ["x"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 4])],
        [tensor("y", T.FLOAT, ["batch", 4])],
    )


def alike():
    """Zero for every row, by way of an operator of which nothing is proven: nothing can be told apart."""
    save(
        "alike",
        [
            helper.make_node("Mul", ["x", "zero"], ["zeros"]),
            helper.make_node("SequenceConstruct", ["zeros", "x"], ["both"]),
            helper.make_node("SequenceAt", ["both", "first"], ["y"]),
        ],
        [tensor("x", T.INT32, ["batch", 2])],
        [tensor("y", T.INT32, ["batch", 2])],
        [("zero", np.int32(0)), ("first", np.int64(0))],
    )


def sequences():
    """As many tensors as there are rows; and two, whatever the rows."""
    sequence = helper.make_tensor_sequence_value_info("pieces", T.FLOAT, None)
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("SplitToSequence", ["x"], ["pieces"]),
    ]
    x, y = tensor("x", T.FLOAT, ["batch", 2]), tensor("y", T.FLOAT, ["batch", 2])
    save("partly_sequence", nodes, [x], [y, sequence])
    save("only_sequence", nodes[1:], [x], [sequence])
    nodes = [
        helper.make_node("Relu", ["x"], ["pieces_0"]),
        helper.make_node("SequenceConstruct", ["x", "pieces_0"], ["pieces"]),
        helper.make_node("SequenceLength", ["pieces"], ["count"]),
        helper.make_node("Neg", ["x"], ["negative"]),
        helper.make_node("SequenceConstruct", ["negative"], ["lone"]),
    ]
    lone = helper.make_tensor_sequence_value_info("lone", T.FLOAT, None)
    save("constant_sequence", nodes, [x], [sequence, tensor("count", T.INT64, []), lone])
    save("sequence_input", [helper.make_node("ConcatFromSequence", ["pieces"], ["y"], axis=0)], [sequence], [y])


def map_of(key, value=T.FLOAT):
    kind = onnx.TypeProto()
    kind.map_type.key_type = key
    kind.map_type.value_type.tensor_type.elem_type = value
    return kind


def maps_of(name, key):
    return helper.make_value_info(name, helper.make_sequence_type_proto(map_of(key)))


def zipmap(scores, name, **labels):
    return helper.make_node("ZipMap", [scores], [name], domain="ai.onnx.ml", **labels)


def classifier(scores, **labels):
    """A classifier of two columns into three classes, without probabilities."""
    options = {
        "coefficients": [1.0, 0.0, 0.0, 1.0, -1.0, -1.0],
        "intercepts": [0.0, 0.0, 0.5],
        "post_transform": "NONE",
    }
    return helper.make_node(
        "LinearClassifier", ["x"], ["label", scores], domain="ai.onnx.ml", multi_class=1, **options, **labels
    )


def zipmaps():
    """Classifiers as their converters make them: maps of classes to probabilities."""
    x, label = tensor("x", T.FLOAT, ["batch", 2]), tensor("label", T.INT64, ["batch"])
    text = tensor("label", T.STRING, ["batch"])
    normalizer = helper.make_node("Normalizer", ["scores"], ["p"], domain="ai.onnx.ml", norm="L2")
    numbers = [3, 1, 20]
    nodes = [classifier("scores", classlabels_ints=numbers), normalizer]
    save(
        "zipmap", [*nodes, zipmap("p", "probability", classlabels_int64s=numbers)],
        [x], [label, maps_of("probability", T.INT64)],
    )  # fmt: skip
    names = ["setosa", "versicolor", "v, é"]
    save(
        "zipmaps",
        [
            classifier("scores", classlabels_strings=names),
            normalizer,
            zipmap("p", "probability", classlabels_strings=names),
            zipmap("scores", "raw", classlabels_int64s=numbers),
        ],
        [x],
        [maps_of("probability", T.STRING), text, maps_of("raw", T.INT64), tensor("scores", T.FLOAT, ["batch", 3])],
    )
    save(
        "zipmap_only", [helper.make_node("Relu", ["x"], ["p"]), zipmap("p", "maps", classlabels_int64s=[0, 1])],
        [x], [maps_of("maps", T.INT64)],
    )  # fmt: skip
    save(
        "zipmap_misfit", [helper.make_node("Relu", ["x"], ["p"]), zipmap("p", "maps", classlabels_int64s=[0, 1, 2])],
        [x], [maps_of("maps", T.INT64)],
    )  # fmt: skip
    save(
        "zipmap_external",
        [helper.make_node("MatMul", ["x", "w"], ["p"]), zipmap("p", "maps", classlabels_int64s=[0, 1, 2])],
        [x],
        [maps_of("maps", T.INT64)],
        [("w", np.arange(6, dtype=np.float32).reshape(2, 3))],
        save_as_external_data=True,
        location="zipmap_external.weights",
        size_threshold=0,
    )


def one_row():
    """Declares the shapes that a converter saw: one row, and another number of columns."""
    save(
        "one_row",
        [helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0), helper.make_node("Abs", ["x"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", "columns"])],
        [tensor("sum", T.FLOAT, [1]), tensor("y", T.FLOAT, ["batch", 3])],
        [("axis", np.array([1], np.int64))],
    )


def dictionary():
    """A map of a fixed set of keys is the input."""
    vectorizer = helper.make_node("DictVectorizer", ["x"], ["v"], domain="ai.onnx.ml", string_vocabulary=["b", "a"])
    save(
        "dictionary", [vectorizer, helper.make_node("Neg", ["v"], ["y"])],
        [helper.make_value_info("x", map_of(T.STRING))], [tensor("y", T.FLOAT, ["batch", 2])],
    )  # fmt: skip
    cast = helper.make_node("CastMap", ["x"], ["y"], domain="ai.onnx.ml", cast_to="TO_FLOAT", map_form="DENSE")
    save(
        "any_map", [cast], [helper.make_value_info("x", map_of(T.INT64))], [tensor("y", T.FLOAT, [1, "keys"])],
    )  # fmt: skip


def odd_types():
    """An input that may have no value; an output and an input of a type that the protocol lacks."""
    kind = helper.make_tensor_type_proto(T.FLOAT, ["batch", 2])
    maybe = helper.make_value_info("x", helper.make_optional_type_proto(kind))
    y = tensor("y", T.FLOAT, ["batch", 2])
    save("optional_input", [helper.make_node("OptionalGetElement", ["x"], ["y"])], [maybe], [y])
    short = tensor("short", T.FLOAT8E4M3FN, ["batch", 2])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Cast", ["x"], ["short"], to=T.FLOAT8E4M3FN)]
    save("short_output", nodes, [tensor("x", T.FLOAT, ["batch", 2])], [y, short])
    save("short_input", [helper.make_node("Cast", ["short"], ["y"], to=T.FLOAT)], [short], [y])


def replaceable():
    """Its constants are inputs too, as exporters of old made them."""
    names = [f"w{number}" for number in range(6)]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"])]
    save(
        "replaceable", nodes,
        [tensor("x", T.FLOAT, ["batch", 2]), *(tensor(name, T.FLOAT, [2]) for name in names)],
        [tensor("y", T.FLOAT, ["batch", 2])], [(name, np.ones(2, np.float32)) for name in names],
    )  # fmt: skip


def nonzero():
    """How large the output is depends on the data."""
    save(
        "nonzero",
        [helper.make_node("NonZero", ["x"], ["y"])],
        [tensor("x", T.FLOAT, [4])],
        [tensor("y", T.INT64, [1, "found"])],
    )


def liar():
    """Declares as many outputs as inputs but leaves out what is 99: right for most data, not for all."""
    save(
        "liar",
        [
            helper.make_node("Equal", ["x", "odd"], ["is_odd"]),
            helper.make_node("Not", ["is_odd"], ["keep"]),
            helper.make_node("Compress", ["x", "keep"], ["y"], axis=0),
        ],
        [tensor("x", T.INT32, ["n"])],
        [tensor("y", T.INT32, ["n"])],
        [("odd", np.int32(99))],
    )


def lookup():
    """Fails for an id of 10 or more."""
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    save(
        "lookup",
        [helper.make_node("Gather", ["table", "id"], ["y"])],
        [tensor("id", T.INT64, ["batch"])],
        [tensor("y", T.FLOAT, ["batch", 2])],
        [("table", table)],
    )


def greeting():
    save(
        "greeting",
        [helper.make_node("StringConcat", ["hello", "name"], ["text"])],
        [tensor("name", T.STRING, ["batch", 1])],
        [tensor("text", T.STRING, ["batch", 1])],
        [("hello", np.array(["hello "], dtype=object))],
    )


def endless():
    """Runs as many steps as it is told to."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["sum", "one"], ["next"])],
        "step",
        [tensor("step", T.INT64, []), tensor("go", T.BOOL, []), tensor("sum", T.FLOAT, [1])],
        [tensor("go_on", T.BOOL, []), tensor("next", T.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    save(
        "endless",
        [helper.make_node("Loop", ["steps", "go", "zero"], ["sum"], body=body)],
        [tensor("steps", T.INT64, [])],
        [tensor("sum", T.FLOAT, [1])],
        [("go", np.array(True)), ("zero", np.zeros(1, np.float32))],
    )


def branches():
    """`shapeless` declares not even a rank; `branch` is made inside a subgraph."""
    flat = helper.make_graph(
        [helper.make_node("Reshape", ["x", "all"], ["flat"])], "flat", [], [tensor("flat", T.FLOAT, None)]
    )
    kept = helper.make_graph([helper.make_node("Relu", ["x"], ["kept"])], "kept", [], [tensor("kept", T.FLOAT, None)])
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["other"])], "other", [], [tensor("other", T.FLOAT, None)]
    )
    first = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "huge"], ["is_huge"]),
    ]
    x, constants = tensor("x", T.FLOAT, ["batch", 3]), [("huge", np.float32(1e9))]
    save(
        "shapeless",
        [*first, helper.make_node("If", ["is_huge"], ["y"], then_branch=flat, else_branch=kept)],
        [x],
        [tensor("y", T.FLOAT, None)],
        [*constants, ("all", np.array([-1], np.int64))],
    )
    save(
        "branch",
        [*first, helper.make_node("If", ["is_huge"], ["y"], then_branch=other, else_branch=kept)],
        [x],
        [tensor("y", T.FLOAT, ["batch", 3])],
        constants,
    )


def external():
    """Its weights are in a file of their own."""
    save(
        "external",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", T.FLOAT, ["batch", 4])],
        [tensor("y", T.FLOAT, ["batch", 2])],
        [("w", np.arange(8, dtype=np.float32).reshape(4, 2))],
        save_as_external_data=True,
        location="external.weights",
        size_threshold=0,
    )


def segments():
    """Takes only 0 and 1, over a free length, and mixes nothing between rows."""
    save(
        "segments",
        [
            helper.make_node("Gather", ["table", "ids"], ["e"]),
            helper.make_node("ReduceSum", ["e", "axis"], ["y"], keepdims=0),
        ],
        [tensor("ids", T.INT64, ["batch", "length"])],
        [tensor("y", T.FLOAT, ["rows", 2])],
        [("table", np.array([[1, 2], [3, 5]], np.float32)), ("axis", np.array([1], np.int64))],
    )


def main():
    HERE.mkdir(exist_ok=True)
    for old in HERE.iterdir():
        old.unlink()
    for make in [
        affine, every_type, running_sum, fixed, scalar, similarity, noisy, alike, sequences, nonzero, liar, lookup,
        greeting, endless, branches, external, segments, zipmaps, one_row, dictionary, odd_types, replaceable,
    ]:  # fmt: skip
        make()


if __name__ == "__main__":
    main()
