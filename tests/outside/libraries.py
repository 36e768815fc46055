"""A model of every kind that users bring, made with the real library.

Hands on files, and what the library itself answers. Knows nothing of servers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["HEAVY", "MAKERS", "Made"]

COLUMNS = 3


class Made(NamedTuple):
    """A model on disk that takes rows of three numbers as ``x`` (FP32)."""

    path: Path
    output: str
    """The output that :attr:`answer` gives."""
    answer: Callable[[np.ndarray], np.ndarray]
    """What the library says of rows of shape (n, 3)."""
    settings: dict[str, Any] = {}  # noqa: RUF012 (nobody writes to it)


def training() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, a number and a class for each."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, COLUMNS)).astype(np.float32)
    return x, (2 * x[:, 0] - x[:, 1]).astype(np.float32), (x[:, 0] + x[:, 2] ** 2 > 0.5).astype(int)


def sklearn(folder: Path) -> Made:
    import skops.io
    from sklearn.linear_model import LinearRegression

    x, _, _ = training()
    model = LinearRegression().fit(x, 2 * x + 1)
    skops.io.dump(model, folder / "line.skops")
    return Made(folder / "line.skops", "prediction", model.predict, {"faster": False})


def sklearn_as_onnx(folder: Path) -> Made:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    x, _, label = training()
    model = RandomForestClassifier(20, random_state=0).fit(x, label)
    skops.io.dump(model, folder / "line.skops")
    return Made(folder / "line.skops", "probabilities", model.predict_proba)


def xgboost(folder: Path) -> Made:
    import xgboost

    x, target, _ = training()
    model = xgboost.train({"nthread": 1}, xgboost.DMatrix(x, target), 20)
    model.save_model(folder / "line.ubj")
    return Made(folder / "line.ubj", "prediction", model.inplace_predict, {"faster": False})


def xgboost_as_onnx(folder: Path) -> Made:
    import xgboost

    x, _, label = training()
    model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(x, label), 20)
    model.save_model(folder / "line.json")
    return Made(folder / "line.json", "prediction", model.inplace_predict)


def lightgbm(folder: Path) -> Made:
    import lightgbm

    x, target, _ = training()
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, target), 20)
    model.save_model(folder / "line.txt")
    return Made(folder / "line.txt", "prediction", model.predict, {"faster": False})


def lightgbm_as_onnx(folder: Path) -> Made:
    import lightgbm

    x, _, label = training()
    model = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, label), 20)
    model.save_model(folder / "line.lgb")
    return Made(folder / "line.lgb", "prediction", model.predict)


def catboost(folder: Path) -> Made:
    from catboost import CatBoostRegressor

    x, target, _ = training()
    model = CatBoostRegressor(iterations=20, verbose=0, allow_writing_files=False, thread_count=1).fit(x, target)
    model.save_model(str(folder / "line.cbm"))
    return Made(folder / "line.cbm", "prediction", model.predict)


def openvino(folder: Path) -> Made:
    import openvino
    from openvino import opset13

    x = opset13.parameter([-1, COLUMNS], np.float32, name="x")
    y = opset13.add(opset13.multiply(x, np.float32(2)), np.float32(1), name="y")
    x.output(0).set_names({"x"})
    y.output(0).set_names({"y"})
    openvino.save_model(openvino.Model([y], [x], "line"), folder / "line.xml", compress_to_fp16=False)
    return Made(folder / "line.xml", "y", _line)


def litert(folder: Path) -> Made:
    """Written with the schema that the package ships: it has no converter."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int) -> schema.TensorT:
        one = schema.TensorT()
        one.name, one.shape, one.buffer, one.type = name, shape, buffer, schema.TensorType.FLOAT32
        return one

    def operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> schema.OperatorT:
        one = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = code, inputs, outputs
        one.builtinOptionsType, one.builtinOptions = kind, options
        return one

    def constant(value: float) -> schema.BufferT:
        one = schema.BufferT()
        one.data = list(np.float32([value]).tobytes())
        return one

    codes = []
    for builtin in (schema.BuiltinOperator.MUL, schema.BuiltinOperator.ADD):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        codes.append(code)
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [1, COLUMNS], 0),
        tensor("two", [1], 1),
        tensor("doubled", [1, COLUMNS], 0),
        tensor("one", [1], 2),
        tensor("y", [1, COLUMNS], 0),
    ]
    graph.inputs, graph.outputs = [0], [4]
    options = schema.BuiltinOptions
    graph.operators = [
        operator(0, [0, 1], [2], options.MulOptions, schema.MulOptionsT()),
        operator(1, [2, 3], [4], options.AddOptions, schema.AddOptionsT()),
    ]
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], codes
    model.buffers = [schema.BufferT(), constant(2), constant(1)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / "line.tflite").write_bytes(bytes(builder.Output()))
    return Made(folder / "line.tflite", "y", _line)


def mlflow(folder: Path) -> Made:
    import mlflow.xgboost
    import xgboost

    x, target, _ = training()
    model = xgboost.train({"nthread": 1}, xgboost.DMatrix(x, target), 20)
    mlflow.xgboost.save_model(model, str(folder / "line"), model_format="json")
    return Made(folder / "line", "prediction", model.inplace_predict)


def mlflow_function(folder: Path) -> Made:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    from inferd.runtimes.trust import digest

    class Line(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: object, model_input: np.ndarray) -> np.ndarray:
            return model_input * np.float32(2) + np.float32(1)

    x, _, _ = training()
    mlflow.pyfunc.save_model(
        str(folder / "line"), python_model=Line(), signature=infer_signature(x, 2 * x + 1), pip_requirements=[]
    )
    description = folder / "line" / "MLmodel"
    text = description.read_text()
    # A tensor without a name is called so in the contract.
    assert json.dumps("tensor") in text
    return Made(folder / "line", "prediction", _line, {"trusted_sha256": digest(folder / "line")})


def torch(folder: Path) -> Made:
    import torch as library

    class Line(library.nn.Module):
        def forward(self, x):  # TorchScript takes every argument for a tensor.
            return x * 2 + 1

    library.jit.script(Line()).save(str(folder / "line.pt"))
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, COLUMNS]}]
    return Made(folder / "line.pt", "output", _line, {"inputs": inputs})


def torch_export(folder: Path) -> Made:
    import pytest
    import torch as library

    if not hasattr(library, "export"):
        pytest.skip(f"torch {library.__version__} has no torch.export")

    class Line(library.nn.Module):
        def forward(self, x):
            return {"y": x * 2 + 1}

    rows = library.export.Dim("rows", min=1)
    program = library.export.export(Line(), (library.zeros(2, COLUMNS),), dynamic_shapes={"x": {0: rows}})
    library.export.save(program, str(folder / "line.pt2"))
    return Made(folder / "line.pt2", "y", _line)


def tensorflow(folder: Path) -> Made:
    import tensorflow as tf

    class Line(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, COLUMNS], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x * 2 + 1}

    line = Line()
    tf.saved_model.save(line, str(folder / "line"), signatures=line.__call__)
    return Made(folder / "line", "y", _line)


def keras(folder: Path) -> Made:
    import keras as library

    x = library.Input((COLUMNS,), name="x")
    dense = library.layers.Dense(COLUMNS, name="y")
    model = library.Model(x, dense(x))
    dense.set_weights([2 * np.eye(COLUMNS, dtype=np.float32), np.ones(COLUMNS, np.float32)])
    model.save(folder / "line.keras")
    return Made(folder / "line.keras", "y", _line)


def _line(x: np.ndarray) -> np.ndarray:
    return 2 * x + 1


MAKERS: dict[str, Callable[[Path], Made]] = {
    "sklearn": sklearn,
    "sklearn, as ONNX": sklearn_as_onnx,
    "xgboost": xgboost,
    "xgboost, as ONNX": xgboost_as_onnx,
    "lightgbm": lightgbm,
    "lightgbm, as ONNX": lightgbm_as_onnx,
    "catboost": catboost,
    "openvino": openvino,
    "litert": litert,
    "mlflow": mlflow,
    "mlflow function": mlflow_function,
}
"""What every run of the tests makes."""

HEAVY: dict[str, Callable[[Path], Made]] = {
    "torch": torch,
    "torch export": torch_export,
    "tensorflow": tensorflow,
    "keras": keras,
}
"""What ``make test-all`` makes besides."""
