"""Repositories laid out for Triton: its Python backend and its ``config.pbtxt``, with every type that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from differential.case import ROWS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray]

SLICE = ("every type", "rows that are refused")

KINDS = {
    "BOOL": bool,
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
    "STRING": object,
}

HEAD = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def of(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


class TritonPythonModel:
"""


def repository(
    folder: Path,
    body: str,
    inputs: Mapping[str, tuple[str, list[int]]],
    outputs: Mapping[str, tuple[str, list[int]]],
    config: str = "max_batch_size: 64\ndynamic_batching {}",
) -> Path:
    """A model of Triton's Python backend; types without ``TYPE_``, sizes without rows."""
    lines = [config, 'backend: "python"']
    for side, tensors in (("input", inputs), ("output", outputs)):
        for name, (kind, dims) in tensors.items():
            lines.append(f'{side} {{ name: "{name}" data_type: TYPE_{kind} dims: {dims} }}')
    (folder / "model" / "1").mkdir(parents=True)
    (folder / "model" / "config.pbtxt").write_text("\n".join(lines))
    (folder / "model" / "1" / "model.py").write_text(HEAD + body)
    return folder / "model"


def case(path: Path, rows: dict[str, np.ndarray], answer: Callable[[Arrays], Arrays]) -> Case:
    return Case(path, rows, answer, relative=1e-12, absolute=0)


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
        array[place] = "".join(random.choice([*"ab ", "ü", "漢", "\0", '"'], random.integers(0, 9))).encode()
    return array


def values(random: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "STRING":
        return texts(random, 2)
    if kind == "BOOL":
        return random.random((ROWS, 2)) > 0.5
    dtype = np.dtype(KINDS[kind])
    if dtype.kind not in "iu":
        return floats(random, 2, dtype=dtype)
    limits = np.iinfo(dtype)
    x = random.integers(limits.min, limits.max, (ROWS, 2), dtype=dtype, endpoint=True)
    x[0], x[1] = limits.min, limits.max
    return x


def every_type(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(tensor.name() + "_", tensor.as_numpy()[:, ::-1]) for tensor in request.inputs()]
            )
            for request in requests
        ]
"""
    inputs = {kind: (kind, [2]) for kind in KINDS}
    path = repository(folder, body, inputs, {f"{kind}_": tensor for kind, tensor in inputs.items()})
    rows = {kind: values(random, kind) for kind in KINDS}
    return case(path, rows, lambda asked: {f"{kind}_": array[:, ::-1] for kind, array in asked.items()})


def refused(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def execute(self, requests):
        responses = []
        for request in requests:
            x = of(request, "x")
            if (x > 2).any():
                error = pb_utils.TritonError("above two", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
            else:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x * np.float32(2))]))
        return responses
"""
    path = repository(folder, body, {"x": ("FP32", [3])}, {"y": ("FP32", [3])})

    def answer(asked: Arrays) -> Arrays:
        if (asked["x"] > 2).any():
            raise ValueError("above two")
        return {"y": asked["x"] * np.float32(2)}

    return case(path, {"x": floats(random, 3)}, answer)


def lengths(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def execute(self, requests):
        responses = []
        for request in requests:
            text = of(request, "text")
            length = np.array([[len(one) for one in row] for row in text], np.int32)
            joined = np.array([[b"|".join(row)] for row in text], object)
            tensors = [pb_utils.Tensor("length", length), pb_utils.Tensor("joined", joined)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""
    outputs = {"length": ("INT32", [2]), "joined": ("STRING", [1])}
    path = repository(folder, body, {"text": ("STRING", [2])}, outputs)

    def answer(asked: Arrays) -> Arrays:
        joined = np.empty((len(asked["text"]), 1), object)
        joined[:, 0] = [b"|".join(row) for row in asked["text"]]
        return {"length": np.vectorize(len, otypes=[np.int32])(asked["text"]), "joined": joined}

    return case(path, {"text": texts(random, 2)}, answer)


def no_batches(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", of(request, "x").sum(axis=0) + of(request, "k"))])
            for request in requests
        ]
"""
    inputs, outputs = {"x": ("FP64", [4, 3]), "k": ("FP64", [1])}, {"y": ("FP64", [3])}
    path = repository(folder, body, inputs, outputs, "max_batch_size: 0")
    rows = {"x": random.normal(size=(ROWS, 4, 3)), "k": random.normal(size=(ROWS, 1))}
    return case(path, rows, lambda asked: {"y": asked["x"].sum(axis=1) + asked["k"]})


def parameters(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.factor = int(config["parameters"]["factor"]["string_value"])
        self.dtype = pb_utils.triton_string_to_numpy(
            pb_utils.get_output_config_by_name(config, "y")["data_type"]
        )

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", (of(request, "x") * self.factor).astype(self.dtype))])
            for request in requests
        ]
"""
    config = 'max_batch_size: 8\nparameters { key: "factor" value: { string_value: "3" } }'
    path = repository(folder, body, {"x": ("INT16", [2])}, {"y": ("INT64", [2])}, config)
    rows = {"x": random.integers(-(2**13), 2**13, (ROWS, 2)).astype(np.int16)}
    return case(path, rows, lambda asked: {"y": asked["x"].astype(np.int64) * 3})


def completed(folder: Path, random: np.random.Generator) -> Case:
    body = """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_UINT8", "dims": [-1]})
        config.add_output({"name": "mean", "data_type": "TYPE_FP64", "dims": [1]})
        config.set_max_batch_size(16)
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("mean", of(request, "x").mean(axis=1, keepdims=True))])
            for request in requests
        ]
"""
    (folder / "model" / "1").mkdir(parents=True)
    (folder / "model" / "1" / "model.py").write_text(HEAD + body)
    rows = {"x": random.integers(0, 256, (ROWS, 5)).astype(np.uint8)}
    return case(folder / "model", rows, lambda asked: {"mean": asked["x"].mean(axis=1, keepdims=True)})


def kept(folder: Path, random: np.random.Generator) -> Case:
    body = """
    def initialize(self, args):
        self.kept = []

    def execute(self, requests):
        responses = []
        for request in requests:
            changed = any(array.tobytes() != was for array, was in self.kept)
            x = of(request, "x")
            x += 1
            self.kept = [*self.kept[-20:], (x, x.tobytes())]
            tensors = [pb_utils.Tensor("y", x), pb_utils.Tensor("changed", np.full((len(x), 1), changed))]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""
    path = repository(folder, body, {"x": ("FP64", [2])}, {"y": ("FP64", [2]), "changed": ("BOOL", [1])})

    def answer(asked: Arrays) -> Arrays:
        return {"y": asked["x"] + 1, "changed": np.zeros((len(asked["x"]), 1), bool)}

    return case(path, {"x": random.normal(size=(ROWS, 2))}, answer)


def onnx(folder: Path, random: np.random.Generator) -> Case:
    from outside import models

    models.add_sub(folder / "model" / "1" / "model.onnx")
    tensors = [f'input {{ name: "{name}" data_type: TYPE_INT32 dims: [ 4 ] }}' for name in "ab"]
    tensors += [f'output {{ name: "{name}" data_type: TYPE_INT32 dims: [ 4 ] }}' for name in ("sum", "difference")]
    config = ['platform: "onnxruntime_onnx"', "max_batch_size: 32", "dynamic_batching {}", *tensors]
    (folder / "model" / "config.pbtxt").write_text("\n".join(config))
    limits = np.iinfo(np.int32)
    rows = {name: random.integers(limits.min, limits.max, (ROWS, 4)).astype(np.int32) for name in "ab"}

    def answer(asked: Arrays) -> Arrays:
        return {"sum": asked["a"] + asked["b"], "difference": asked["a"] - asked["b"]}

    return case(folder / "model", rows, answer)


def reshaped(folder: Path, random: np.random.Generator) -> Case:
    from outside import models

    models.identity(folder / "model" / "1" / "model.onnx", "FP32", ["n", 2, 3, 1])
    (folder / "model" / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, 3 ] reshape { shape: [ 2, 3, 1 ] } } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 2, 3, 1 ] } } ]\n'
    )
    rows = {"x": floats(random, 2, 3)}
    return case(folder / "model", rows, lambda asked: {"y": asked["x"].reshape(-1, 6)})


CASES = {
    "every type": every_type,
    "rows that are refused": refused,
    "texts": lengths,
    "no batches": no_batches,
    "parameters": parameters,
    "a configuration that the model completes": completed,
    "inputs that are kept and written into": kept,
    "an ONNX model": onnx,
    "an ONNX model that clients see in another shape": reshaped,
}
