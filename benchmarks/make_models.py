"""Makes the models that the benchmarks serve, always the same ones.

    python benchmarks/make_models.py [FOLDER] [--measure]

``tiny.onnx`` costs next to nothing, so that what is measured is the server; ``logistic.onnx`` is the commonest of all
classifiers and costs as little. ``mlp.onnx`` (some 40 MB) is a perceptron
whose run time is spent reading weights: a row costs 1.5 to 2.5 ms alone and far less among others. ``score.onnx``
prepares 260 columns one by one and rates them, as exported pipelines of fraud detection do:
thousands of small operators, which take some 2 to 3 ms for one row and little more for many, so that what a server adds
to each request counts. ``--measure`` prints what ONNX Runtime needs for each on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = [256, 2048, 2048, 2048, 768, 16]
"""Sizes of the layers of the perceptron."""

COLUMNS = 260
"""What is known of a payment."""
HIDDEN = 64


def tiny() -> onnx.ModelProto:
    """A linear model over four numbers."""
    random = np.random.default_rng(1)
    constants = {"w": random.normal(size=(4, 3)), "b": random.normal(size=3)}
    return _model("tiny", [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], 4, 3, constants)


def logistic() -> onnx.ModelProto:
    """Three classes from four measurements, as converters of scikit-learn write a logistic regression."""
    random = np.random.default_rng(4)
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        classlabels_ints=[0, 1, 2],
        coefficients=random.normal(size=12).tolist(),
        intercepts=random.normal(size=3).tolist(),
        multi_class=1,
        post_transform="LOGISTIC",
    )
    normalizer = helper.make_node("Normalizer", ["scores"], ["y"], domain="ai.onnx.ml", norm="L1")
    return _model("logistic", [classifier, normalizer], 4, 3, {})


def mlp() -> onnx.ModelProto:
    """A perceptron whose weights are larger than the caches."""
    random = np.random.default_rng(2)
    nodes, constants, last = [], {}, "x"
    for layer, (width, following) in enumerate(pairwise(WIDTHS)):
        # Scaled so that numbers neither grow nor vanish from layer to layer.
        constants[f"w{layer}"] = random.normal(size=(width, following)) * np.sqrt(2 / width)
        constants[f"b{layer}"] = random.normal(size=following) * 0.1
        output = layer == len(WIDTHS) - 2
        made = "y" if output else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [made]))
        last = made
        if not output:
            nodes.append(helper.make_node("Relu", [made], [f"r{layer}"]))
            last = f"r{layer}"
    return _model("mlp", nodes, WIDTHS[0], WIDTHS[-1], constants)


def score() -> onnx.ModelProto:
    """Each column is filled up, cut off, flattened and scaled by itself; a small network rates what comes of it."""
    random = np.random.default_rng(3)
    nodes, constants = [], {"one": np.ones(1)}
    nodes.append(helper.make_node("Split", ["x"], [f"given{i}" for i in range(COLUMNS)], axis=1, num_outputs=COLUMNS))
    for i in range(COLUMNS):
        constants |= {
            f"median{i}": random.normal(size=1),
            f"low{i}": np.array(-4.0),
            f"high{i}": np.array(4.0),
            f"mean{i}": random.normal(size=1),
            f"scale{i}": random.uniform(0.5, 2.0, size=1),
        }
        steps = [
            ("IsNaN", [f"given{i}"], f"missing{i}"),
            ("Where", [f"missing{i}", f"median{i}", f"given{i}"], f"known{i}"),
            ("Clip", [f"known{i}", f"low{i}", f"high{i}"], f"kept{i}"),
            ("Sign", [f"kept{i}"], f"sign{i}"),
            ("Abs", [f"kept{i}"], f"size{i}"),
            ("Add", [f"size{i}", "one"], f"more{i}"),
            ("Log", [f"more{i}"], f"log{i}"),
            ("Mul", [f"sign{i}", f"log{i}"], f"flat{i}"),
            ("Sub", [f"flat{i}", f"mean{i}"], f"centred{i}"),
            ("Div", [f"centred{i}", f"scale{i}"], f"ready{i}"),
        ]
        nodes += [helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps]
    constants |= {"w0": random.normal(size=(COLUMNS, HIDDEN)) / np.sqrt(COLUMNS), "b0": np.zeros(HIDDEN)}
    constants |= {"w1": random.normal(size=(HIDDEN, 1)) / np.sqrt(HIDDEN), "b1": np.zeros(1)}
    nodes += [
        helper.make_node("Concat", [f"ready{i}" for i in range(COLUMNS)], ["ready"], axis=1),
        helper.make_node("Gemm", ["ready", "w0", "b0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w1", "b1"], ["rated"]),
        helper.make_node("Sigmoid", ["rated"], ["y"]),
    ]
    return _model("score", nodes, COLUMNS, 1, constants, opset=18)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    width: int,
    outputs: int,
    constants: dict[str, np.ndarray],
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def measure(path: Path) -> None:
    """Print the median time of a run for some sizes of batch, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [model_input] = session.get_inputs()
    for rows in [1, 2, 4, 8, 16, 32, 64, 128]:
        feed = {"x": np.random.default_rng(3).normal(size=(rows, model_input.shape[1])).astype(np.float32)}
        runs = []
        for _ in range(60):
            begin = time.perf_counter()
            session.run(None, feed)
            runs.append(time.perf_counter() - begin)
        run = statistics.median(runs[10:])
        print(f"{path.stem:6} {rows:3} rows  {run * 1e3:8.3f} ms a run  {run * 1e3 / rows:8.3f} ms a row")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the models that the benchmarks serve.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "results" / "models")
    parser.add_argument("--measure", action="store_true", help="print what ONNX Runtime needs for each")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for make in (tiny, logistic, mlp, score):
        path = arguments.folder / f"{make.__name__}.onnx"
        onnx.save(make(), path)
        print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
        if arguments.measure:
            measure(path)


if __name__ == "__main__":
    main()
