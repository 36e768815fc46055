"""Models made for tests: small ONNX graphs and Python classes.

Hands on files. Knows nothing of servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def identity(path: Path, datatype: str, shape: list[int | str]) -> Path:
    """``y`` is ``x``."""
    x = helper.make_tensor_value_info("x", ONNX_TYPES[datatype], shape)
    y = helper.make_tensor_value_info("y", ONNX_TYPES[datatype], shape)
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def add_sub(path: Path) -> Path:
    """``sum`` and ``difference`` of ``a`` and ``b``, INT32 of 4 columns."""
    names = ("a", "b", "sum", "difference")
    a, b, total, difference = (helper.make_tensor_value_info(name, TensorProto.INT32, ["n", 4]) for name in names)
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return save(path, nodes, [a, b], [total, difference])


def busy(path: Path, width: int = 1024, layers: int = 4) -> Path:
    """``y`` is ``x`` (FP32, 4 columns), found out the long way: milliseconds of multiplying that come to nothing.

    An answer that belongs to another row is seen at once.
    """
    random = np.random.default_rng(1)
    weights = [numpy_helper.from_array(random.normal(size=(4, width)).astype(np.float32), "w0")]
    scale = np.sqrt(2 / width)
    for layer in range(1, layers + 1):
        array = (random.normal(size=(width, width)) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
    weights.append(numpy_helper.from_array(np.float32(0), "zero"))
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h0"])]
    for layer in range(1, layers + 1):
        nodes.append(helper.make_node("Relu", [f"h{layer - 1}"], [f"r{layer}"]))
        nodes.append(helper.make_node("MatMul", [f"r{layer}", f"w{layer}"], [f"h{layer}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"h{layers}"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y"))
    return save(path, nodes, [x], [y], weights)


def masked(path: Path, width: int = 256) -> Path:
    """``total`` is the sum of ``x`` where ``mask`` is 1 and ``shifted`` is ``x`` less that sum; both have a free length.

    What stands where ``mask`` is 0 changes neither. It takes its time, so that others can share the batch.
    """
    random = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.ones((1, width), np.float32), "wide"),
        numpy_helper.from_array(random.normal(size=(width, width)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=1),
        helper.make_node("MatMul", ["sum", "wide"], ["h0"]),
    ]
    for layer in range(8):
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [f"t{layer}"]))
        nodes.append(helper.make_node("MatMul", [f"t{layer}", "w"], [f"h{layer + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", ["h8"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["sum", "nothing"], ["total"]),
        helper.make_node("Sub", ["x", "total"], ["shifted"]),
    ]
    x, mask, shifted = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "t"]) for name in ("x", "mask", "shifted")
    )
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["n", 1])
    return save(path, nodes, [x, mask], [total, shifted], weights)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> Path:
    """A checked model file."""
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


MOODY = '''\
"""A model that does what its input says: the first column of a row is an order, the second an argument."""

import os
import sys
import time

import numpy as np

from inferd import InvalidInput, TensorSpec

NOTHING, SLEEP, EXIT, HANG, RAISE, REFUSE, SAY = range(7)


class Moody:
    inputs = [TensorSpec("x", "FP32", (-1, 2))]
    outputs = [TensorSpec("y", "FP32", (-1, 2)), TensorSpec("pid", "INT64", (-1, 1))]

    def load(self):
        self.pid = os.getpid()

    def predict(self, batch):
        x = batch["x"]
        for order, argument in x:
            if order == SLEEP:
                time.sleep(float(argument))
            elif order == EXIT:
                os._exit(int(argument))
            elif order == HANG:
                while True:
                    time.sleep(3600)
            elif order == RAISE:
                raise RuntimeError("the secret of row " + str(argument))
            elif order == REFUSE:
                raise InvalidInput("rows that order a refusal are refused")
            elif order == SAY:
                print("the model says", argument, file=sys.stderr, flush=True)
        return {"y": x.copy(), "pid": np.full((len(x), 1), self.pid, np.int64)}
'''
NOTHING, SLEEP, EXIT, HANG, RAISE, REFUSE, SAY = range(7)


def moody(path: Path) -> Path:
    """A Python model that sleeps, exits, hangs, raises or refuses when a row says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MOODY)
    return path


def accumulator(path: Path) -> Path:
    """``sum`` is ``x`` plus ``total``, which is 0 at the ``start`` of a sequence; ``total_out`` is the same."""
    x, total = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "total"))
    start = helper.make_tensor_value_info("start", TensorProto.FLOAT, ["n", 1])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("sum", "total_out")]
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    nodes = [
        helper.make_node("Sub", ["one", "start"], ["goes_on"]),
        helper.make_node("Mul", ["total", "goes_on"], ["before"]),
        helper.make_node("Add", ["x", "before"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["total_out"]),
    ]
    return save(path, nodes, [x, total, start], outputs, [one])


def scaled(path: Path, shape: list[int | str], factor: np.ndarray) -> Path:
    """``y`` is ``x`` (FP32, 4 columns) times ``factor``, an input of ``shape`` that has a value of its own."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y"))
    given = helper.make_tensor_value_info("factor", TensorProto.FLOAT, shape)
    own = numpy_helper.from_array(factor.astype(np.float32), "factor")
    return save(path, [helper.make_node("Mul", ["x", "factor"], ["y"])], [x, given], [y], [own])
