"""A model for every runtime, all over rows of three numbers; ``y = 2 x + 1`` where nothing needs to be learned."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from outside.libraries import HEAVY, MAKERS, Made

if TYPE_CHECKING:
    from pathlib import Path

PYTHON_MODEL = """
import numpy as np
from inferd import InvalidInput, TensorSpec

class Model:
    inputs = [TensorSpec("x", "FP32", (-1, 3))]
    outputs = [TensorSpec("y", "FP32", (-1, 3))]

    def load(self):
        self.factor = np.float32(2)

    def predict(self, batch):
        x = batch["x"]
        if (x == -1).any():
            raise InvalidInput("x must not be -1")
        if (x == -2).any():
            raise KeyError("a secret")
        return {"y": x * self.factor + np.float32(1)}
"""


def make_onnx(file: Path, *, mixes_rows: bool = False) -> Path:
    import onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["x", "two"], ["doubled"]), helper.make_node("Add", ["doubled", "one"], ["sum"])]
    if mixes_rows:
        nodes.append(helper.make_node("ReduceMean", ["sum"], ["mean"], axes=[0]))
        nodes.append(helper.make_node("Sub", ["sum", "mean"], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor("two", TensorProto.FLOAT, [], [2]), helper.make_tensor("one", TensorProto.FLOAT, [], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(file))
    return file


def onnx_line(folder: Path) -> Made:
    return Made(make_onnx(folder / "line.onnx"), "y", lambda x: 2 * x + 1)


def python_line(folder: Path) -> Made:
    (folder / "line.py").write_text(PYTHON_MODEL)
    return Made(folder / "line.py", "y", lambda x: 2 * x + 1)


KINDS = {
    "onnx": onnx_line,
    "python": python_line,
    **MAKERS,
    **HEAVY,
}


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=[pytest.mark.heavy] if name in HEAVY else []) for name in KINDS],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model that takes rows of three numbers, once for each kind of model there is."""
    return KINDS[request.param](tmp_path_factory.mktemp("model"))


def infer(url: str, model: str, rows: list[list[float]], **tensor: Any) -> tuple[int, dict[str, Any]]:
    """The status and the body of one request."""
    data = {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows, **tensor}
    return call(f"{url}/v2/models/{model}/infer", {"inputs": [data]})


def call(url: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON body of a request; POST where there is something to send."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read() or b"{}")
