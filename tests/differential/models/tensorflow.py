"""SavedModels and models of Keras: every type of TensorFlow, names, several signatures, layers with several outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray]

HEAVY = True
SLICE = ()

KINDS = {
    "bool": bool,
    **{f"uint{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    "half": "float16",
    "float32": "float32",
    "float64": "float64",
    "bfloat16": ml_dtypes.bfloat16,
    "string": object,
}


def tensorflow() -> Any:
    import pytest

    return pytest.importorskip("tensorflow")


def keras_library() -> Any:
    import pytest

    return pytest.importorskip("keras")


def saved(
    folder: Path,
    functions: Mapping[str, tuple[Callable[..., Any], Mapping[str, tuple[str, list[int | None]]]]],
    rows: dict[str, np.ndarray],
    chosen: str = "serving_default",
    **more: Any,
) -> Case:
    """A SavedModel with signatures: a function of tensors by name, each of a type and a shape without which it has rows."""
    tf = tensorflow()
    module = tf.Module()
    signatures = {}
    for key, (function, inputs) in functions.items():
        specs = {name: tf.TensorSpec(shape, kind, name=name) for name, (kind, shape) in inputs.items()}
        signatures[key] = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder / "model"), signatures=signatures)
    function = tf.saved_model.load(str(folder / "model")).signatures[chosen]
    dtypes = {name: spec.dtype for name, spec in function.structured_input_signature[1].items()}
    shapes = functions[chosen][1]
    lone = any(len(shape) < rows[name].ndim for name, (_, shape) in shapes.items())

    def answer(asked: Arrays) -> Arrays:
        given = {name: tf.constant(one[0] if lone else one, dtypes[name]) for name, one in asked.items()}
        found = {name: np.asarray(tensor.numpy()) for name, tensor in function(**given).items()}
        return {name: array[None] for name, array in found.items()} if lone else found

    refusals = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
    return Case(folder / "model", rows, answer, refusals, more, relative=1e-6, absolute=1e-6)


def keras(folder: Path, model: Any, rows: dict[str, np.ndarray], names: list[str]) -> Case:
    """A model of Keras, whose outputs are served by ``names``."""
    model.save(folder / "model.keras")

    def answer(asked: Arrays) -> Arrays:
        found = model(
            [asked[one.name] for one in model.inputs] if len(model.inputs) > 1 else next(iter(asked.values()))
        )
        found = (
            list(found.values()) if isinstance(found, dict) else found if isinstance(found, list | tuple) else [found]
        )
        return {name: np.asarray(tensor) for name, tensor in zip(names, found, strict=True)}

    return Case(folder / "model.keras", rows, answer, relative=1e-5, absolute=1e-5)


def floats(random: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    x = random.normal(size=(ROWS, *shape)).astype(np.float32).astype(dtype)
    limits = ml_dtypes.finfo(dtype)
    extremes = [np.nan, np.inf, -np.inf, limits.max, limits.min, limits.smallest_subnormal, -0.0]
    for row, value in enumerate(extremes):
        x[row] = np.array(value).astype(dtype)
    return x


def texts(random: np.random.Generator, *shape: int) -> np.ndarray:
    array = np.empty((ROWS, *shape), object)
    for place in np.ndindex(array.shape):
        array[place] = "".join(random.choice([*"ab ", "ü", "漢", "\0"], random.integers(0, 9))).encode()
    return array


def values(random: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "string":
        return texts(random, 2)
    if kind == "bool":
        return random.random((ROWS, 2)) > 0.5
    dtype = np.dtype(KINDS[kind])
    if dtype.kind not in "iu":
        return floats(random, 2, dtype=dtype)
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, 2), dtype=dtype, endpoint=True)
    x[0], x[1] = limits.min, limits.max
    return x


def every_type(folder: Path, random: np.random.Generator) -> Case:
    tf = tensorflow()

    def run(**tensors: Any) -> dict[str, Any]:
        return {f"{name}_": tf.gather(one, [1, 0], axis=1) for name, one in tensors.items()}

    inputs = {kind: (kind, [None, 2]) for kind in KINDS}
    return saved(folder, {"serving_default": (run, inputs)}, {kind: values(random, kind) for kind in KINDS})


def signatures(folder: Path, random: np.random.Generator, chosen: str, **more: Any) -> Case:
    def double(x: Any) -> dict[str, Any]:
        return {"doubled": x * 2}

    def negate(number: Any) -> dict[str, Any]:
        return {"negated": -number}

    functions = {
        "serving_default": (double, {"x": ("float32", [None, 2])}),
        "negate": (negate, {"number": ("float64", [None])}),
    }
    rows = {"x": floats(random, 2)} if chosen == "serving_default" else {"number": floats(random, dtype=np.float64)}
    return saved(folder, functions, rows, chosen, **more)


def texts_and_numbers(folder: Path, random: np.random.Generator) -> Case:
    tf = tensorflow()

    def run(text: Any, k: Any) -> dict[str, Any]:
        return {"length": tf.strings.length(text), "said": tf.strings.join([text, tf.strings.as_string(k)], "|")}

    inputs = {"text": ("string", [None]), "k": ("int64", [None])}
    rows = {"text": texts(random), "k": random.integers(-(2**62), 2**62, ROWS)}
    return saved(folder, {"serving_default": (run, inputs)}, rows)


def scalars(folder: Path, random: np.random.Generator) -> Case:
    def run(x: Any, k: Any) -> dict[str, Any]:
        return {"y": x * k, "flag": k > 0.5}

    inputs = {"x": ("float64", [3]), "k": ("float64", [])}
    rows = {"x": floats(random, 3, dtype=np.float64), "k": random.random(ROWS)}
    return saved(folder, {"serving_default": (run, inputs)}, rows)


def refused(folder: Path, random: np.random.Generator) -> Case:
    tf = tensorflow()

    def run(index: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(index, tf.constant(5, tf.int64))]):
            return {"y": tf.gather(tf.constant([1.5, 2.5, 3.5, 4.5, 5.5]), index)}

    index = random.choice([0, 1, 2, 3, 4, 5, -1], ROWS, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.05, 0.05])
    return saved(folder, {"serving_default": (run, {"index": ("int64", [None])})}, {"index": index})


def free_sizes(folder: Path, random: np.random.Generator) -> Case:
    tf = tensorflow()

    def run(x: Any) -> dict[str, Any]:
        return {"y": tf.nn.softmax(x), "size": tf.fill([tf.shape(x)[0]], tf.shape(x)[1])}

    rows = {"x": random.normal(size=(ROWS, 7)) * 30}
    return saved(folder, {"serving_default": (run, {"x": ("float64", [None, None])})}, rows)


def odd_names(folder: Path, random: np.random.Generator) -> Case:
    library = keras_library()

    left, right = library.Input((2,), name="left-1"), library.Input((2,), name="Right.Side")
    both = library.layers.Concatenate(name="both_sides")([right, left])
    model = library.Model([left, right], [library.layers.Dense(3, name="a.b")(both), both])
    rows = {"left-1": floats(random, 2), "Right.Side": random.normal(size=(ROWS, 2)).astype(np.float32)}
    return keras(folder, model, rows, ["a.b", "both_sides"])


def several_outputs_of_a_layer(folder: Path, random: np.random.Generator) -> Case:
    library = keras_library()

    x = library.Input((4, 2), name="x")
    model = library.Model(x, library.layers.LSTM(3, return_state=True, name="lstm")(x))
    return keras(
        folder, model, {"x": random.normal(size=(ROWS, 4, 2)).astype(np.float32)}, ["lstm", "lstm_1", "lstm_2"]
    )


def integers_of_keras(folder: Path, random: np.random.Generator) -> Case:
    library = keras_library()

    x = library.Input((3,), dtype="int64", name="tokens")
    model = library.Model(x, {"vectors": library.layers.Embedding(10, 2)(x), "same": library.layers.Identity()(x)})
    rows = {"tokens": random.integers(0, 10, (ROWS, 3))}
    return keras(folder, model, rows, ["vectors", "same"])


CASES = {
    "every type": every_type,
    "several signatures": lambda folder, random: signatures(folder, random, "serving_default"),
    "the signature that is named": lambda folder, random: signatures(
        folder, random, "negate", parameters={"signature": "negate"}
    ),
    "texts and numbers": texts_and_numbers,
    "scalars, one row at a time": scalars,
    "rows that are refused": refused,
    "free sizes": free_sizes,
    "Keras, odd names": odd_names,
    "Keras, a layer with several outputs": several_outputs_of_a_layer,
    "Keras, integers and outputs by name": integers_of_keras,
}
