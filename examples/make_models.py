"""Trains the example models, converts them to ONNX, prints their accuracy.

    python examples/make_models.py [FOLDER]

FOLDER (default: ``models`` next to this file) becomes a repository for ``inferd serve``. Seeds are fixed and the data
ships in packages, so that the models are reproducible. Existing models are kept; ``--force`` makes them again. Needs
the packages of ``inferd[examples]``.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import data

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

HERE = Path(__file__).resolve().parent
OPSET = 18


def run(model: onnx.ModelProto, inputs: dict[str, Array], outputs: list[str] | None = None) -> list[Array]:
    """Run the model in ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(outputs, inputs))


# -- healthcare -----------------------------------------------------------------------------------------------------


def breast_cancer() -> tuple[onnx.ModelProto, str]:
    """Scaled measurements and a logistic regression: an interpretable model."""
    split = data.breast_cancer()
    trained = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
    trained.fit(split.train_x, split.train_y)
    model = _convert(trained, "measurements", split.train_x.shape[1])
    label, probabilities = run(model, {"measurements": split.test_x})
    agreed = np.abs(probabilities - trained.predict_proba(split.test_x)).max()
    right = (label == split.test_y).mean()
    return model, f"accuracy {right:.3f} on {len(label)} held-out rows; ONNX differs by at most {agreed:.1e}"


# -- finance --------------------------------------------------------------------------------------------------------


def fraud() -> tuple[onnx.ModelProto, str]:
    """Gradient-boosted trees over payments of which 1 % is fraud."""
    split = data.fraud()
    trained = GradientBoostingClassifier(
        n_estimators=120, learning_rate=0.1, max_depth=4, min_samples_leaf=20, subsample=0.4, random_state=0
    )
    trained.fit(split.train_x, split.train_y)
    model = _convert(trained, "payment", split.train_x.shape[1])
    _, probabilities = run(model, {"payment": split.test_x})
    agreed = np.abs(probabilities - trained.predict_proba(split.test_x)).max()
    score = probabilities[:, 1]
    said = (
        f"average precision {average_precision_score(split.test_y, score):.3f} "
        f"(by chance {split.test_y.mean():.3f}), ROC AUC {roc_auc_score(split.test_y, score):.3f} "
        f"on {len(score)} held-out rows; ONNX differs by at most {agreed:.1e}"
    )
    return model, said


def _convert(trained: Any, name: str, width: int) -> onnx.ModelProto:
    return to_onnx(
        trained,
        initial_types=[(name, FloatTensorType([None, width]))],
        # With zipmap a classifier returns a list of dictionaries, which is no tensor.
        options={"zipmap": False},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )


# -- industry -------------------------------------------------------------------------------------------------------

KERNELS_PER_DILATION = 96
KERNEL_LENGTH = 9
DILATIONS = [1, 2, 4, 8, 16]


def vibration() -> tuple[onnx.ModelProto, str]:
    """Random convolutions over a window and a linear classifier over their features.

    Dempster, Petitjean and Webb, "ROCKET: exceptionally fast and accurate time series classification using random
    convolutional kernels", 2020: each kernel gives its maximum and the share of the window where it is positive.
    """
    split = data.vibration()
    nodes, constants, features = _random_convolutions(np.random.default_rng(7))
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", 1, data.WINDOW])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])
    extract = _model("features", nodes, [window], [found], constants)
    train, test = (run(extract, {"window": x})[0] for x in (split.train_x, split.test_x))

    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    trained = RidgeClassifierCV(alphas=np.logspace(-2, 4, 13)).fit((train - mean) / scale, split.train_y)
    # The scaling goes into the weights: (f - mean) / scale · w + b is one matrix product.
    weights = (trained.coef_ / scale).T
    bias = trained.intercept_ - mean @ weights
    nodes += [
        helper.make_node("Gemm", ["features", "weights", "bias"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["fault"], axis=1, keepdims=0),
    ]
    constants |= {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    fault = helper.make_tensor_value_info("fault", TensorProto.INT64, ["batch"])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(data.FAULTS)])
    model = _model("vibration", nodes, [window], [fault, scores], constants)

    labels = run(model, {"window": split.test_x}, ["fault"])[0]
    agreed = (labels == trained.predict((test - mean) / scale)).mean()
    right = (labels == split.test_y).mean()
    return model, f"accuracy {right:.3f} on {len(labels)} held-out windows; ONNX agrees on {agreed:.1%}"


def _random_convolutions(
    random: np.random.Generator,
) -> tuple[list[onnx.NodeProto], dict[str, Array], int]:
    """Return the nodes from ``window`` to ``features``, their constants, and the number of features."""
    nodes, found = [], []
    constants: dict[str, Array] = {"zero": np.float32(0), "over_time": np.array([2], np.int64)}
    for dilation in DILATIONS:
        kernels = random.normal(size=(KERNELS_PER_DILATION, 1, KERNEL_LENGTH))
        kernels -= kernels.mean(axis=2, keepdims=True)
        constants[f"kernels_{dilation}"] = kernels.astype(np.float32)
        constants[f"biases_{dilation}"] = random.uniform(-1, 1, KERNELS_PER_DILATION).astype(np.float32)
        reach = dilation * (KERNEL_LENGTH - 1) // 2
        made = f"convolved_{dilation}"
        nodes += [
            helper.make_node(
                "Conv",
                ["window", f"kernels_{dilation}", f"biases_{dilation}"],
                [made],
                dilations=[dilation],
                pads=[reach, reach],
            ),
            helper.make_node("ReduceMax", [made, "over_time"], [f"max_{dilation}"], keepdims=0),
            helper.make_node("Greater", [made, "zero"], [f"positive_{dilation}"]),
            helper.make_node("Cast", [f"positive_{dilation}"], [f"ones_{dilation}"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", [f"ones_{dilation}", "over_time"], [f"share_{dilation}"], keepdims=0),
        ]
        found += [f"max_{dilation}", f"share_{dilation}"]
    nodes.append(helper.make_node("Concat", found, ["features"], axis=1))
    return nodes, constants, 2 * KERNELS_PER_DILATION * len(DILATIONS)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, Array],
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


# -- files ----------------------------------------------------------------------------------------------------------


def file_type() -> tuple[onnx.ModelProto, str]:
    """Google's Magika, as its package ships it: a small network that distinguishes 200 file types."""
    model = onnx.load(data.magika_folder() / "model.onnx")
    held_out = data.samples("file-type", len(data.FILES))
    [scores] = run(model, {held_out.input: held_out.rows})
    right = sum(found == known for found, known in zip(held_out.read(scores), held_out.right, strict=True))
    return model, f"{right} of {len(held_out.right)} small files correct, out of {scores.shape[1]} types"


# -- a model in Python ----------------------------------------------------------------------------------------------


def iris_python(target: Path) -> str:
    """Copy the source of the Python model and run it once."""
    source = HERE / "sources" / "iris-python"
    (target / "1").mkdir(parents=True)
    shutil.copy(source / "model.yaml", target / "model.yaml")
    shutil.copy(source / "model.py", target / "1" / "model.py")
    model = runpy.run_path(str(source / "model.py"))["Iris"]()
    split = data.iris()
    model.load()
    right = (model.predict({"flower": split.test_x})["species"] == split.test_y).mean()
    return f"accuracy {right:.3f} on {len(split.test_y)} rows (trained on all rows at load)"


MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, str]]] = {
    "breast-cancer": breast_cancer,
    "fraud": fraud,
    "vibration": vibration,
    "file-type": file_type,
}

SETTINGS = {
    "file-type": "# About 5 ms per file, batched or alone: large batches gain little.\nslo: 250ms\nbatch_rows_max: 8\n",
    "fraud": "# A payment is approved while the customer waits.\nslo: 20ms\n",
    "vibration": "# Sensors send ten windows a second; a response within one period is in time.\nslo: 100ms\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the example models.")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "models")
    parser.add_argument("--force", action="store_true", help="make existing models again")
    arguments = parser.parse_args()
    for name in [*MODELS, "iris-python"]:
        make(name, arguments.folder / name, force=arguments.force)


def make(name: str, target: Path, *, force: bool) -> None:
    """Make one model, under a temporary name until it is complete."""
    if target.exists() and not force:
        print(f"{name:14} kept", flush=True)
        return
    new = target.with_name(f".{name}.new")
    shutil.rmtree(new, ignore_errors=True)
    if name in MODELS:
        model, quality = MODELS[name]()
        (new / "1").mkdir(parents=True)
        onnx.save(model, new / "1" / "model.onnx")
        if name in SETTINGS:
            (new / "model.yaml").write_text(SETTINGS[name])
    else:
        quality = iris_python(new)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    print(f"{name:14} {quality}", flush=True)


if __name__ == "__main__":
    main()
