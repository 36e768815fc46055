"""Build ONNX graphs node by node.

Reads arrays, tensor names and whole models, hands on tensor names and finally a model. Knows nothing of what the nodes
compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inferd.types import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferd.types import Signature, TensorSpec

__all__ = [
    "FP32",
    "FP64",
    "INT64",
    "OPSET",
    "OPSET_ML",
    "Builder",
    "Graph",
    "element_type",
    "refuse",
    "sigmoid",
    "tensor",
]

OPSET, OPSET_ML, _IR_VERSION = 18, 5, 10
"""TreeEnsemble, which supports FP64, needs ai.onnx.ml 5."""

FP32, INT64, FP64 = 1, 7, 11
"""ONNX's element type numbers."""


class Builder(Protocol):
    """Interface to add nodes and constants."""

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        ...

    def constant(self, value: Any) -> str:
        """Add a constant tensor of ``value``, an array-like; return its name."""
        ...


class Graph:
    """A standalone graph."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._opsets = {"": OPSET, "ai.onnx.ml": OPSET_ML}
        self._included = 0

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        from onnx import helper

        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant tensor; return its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(tensor(value, name))
        return name

    def include(self, model: Any, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add a whole model.

        Args:
            model: the ``ModelProto``.
            inputs: a tensor of this graph for each of its inputs.

        Returns:
            The tensor of this graph for each of its outputs.
        """
        from onnx import compose, helper

        prefix = f"part{self._included}_"
        self._included += 1
        inner = compose.add_prefix(model, prefix).graph
        for taken in inner.input:
            self._nodes.append(helper.make_node("Identity", [inputs[taken.name.removeprefix(prefix)]], [taken.name]))
        for node in inner.node:
            if node.op_type == "Sigmoid":
                self._nodes.append(helper.make_node("Identity", [sigmoid(self, node.input[0])], node.output))
            else:
                # Node names must be unique.
                node.ClearField("name")
                self._nodes.append(node)
        self._constants += inner.initializer
        # A converter states the minimum versions; this graph's are higher.
        self._opsets = {opset.domain: opset.version for opset in model.opset_import} | self._opsets
        return {node.name.removeprefix(prefix): node.name for node in inner.output}

    def model(self, signature: Signature, sources: dict[str, str]) -> Any:
        """Return the ``ModelProto``.

        Args:
            signature: the model's; dimensions 0 are rows.
            sources: tensor of each output, before conversion to the signature's shape and type.
        """
        import onnx
        from onnx import helper

        for spec in signature.outputs:
            last = self.add("Reshape", sources[spec.name], self.constant(np.array([-1, *spec.shape[1:]])))
            if spec.datatype != "BYTES":
                last = self.add("Cast", last, to=element_type(spec.datatype))
            self._nodes.append(helper.make_node("Identity", [last], [spec.name]))
        inputs, outputs = ([_info(spec) for spec in side] for side in (signature.inputs, signature.outputs))
        graph = helper.make_graph(self._nodes, "model", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid(*opset) for opset in self._opsets.items()]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        onnx.checker.check_model(made)
        return made


def sigmoid(graph: Builder, x: str) -> str:
    """Compute the logistic function from Exp: ONNX Runtime's Sigmoid clips at 1e-8 in FP32 and is imprecise in FP64."""
    one = graph.add("CastLike", graph.constant(np.float64(1)), x)
    return graph.add("Div", one, graph.add("Add", one, graph.add("Exp", graph.add("Neg", x))))


def refuse(graph: Builder, x: str, bad: str, why: str) -> str:
    """Return ``x`` (FP64) in a graph that fails if any element of ``bad`` is true.

    ONNX has no operator to fail on purpose: this one gathers an out-of-range index, and the native worker takes the
    error message from its name.
    """
    any_bad = graph.add(
        "Greater", graph.add("ReduceSum", graph.add("Cast", bad, to=INT64)), graph.constant(np.int64(0))
    )
    scalar = graph.add("Reshape", graph.add("Cast", any_bad, to=INT64), graph.constant(np.array([], np.int64)))
    nothing = graph.add("Gather", graph.constant(np.zeros(1)), scalar, axis=0, name=f"refuse: {why}")
    return graph.add("Add", x, nothing)


def _info(spec: TensorSpec) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, element_type(spec.datatype), ["rows", *spec.shape[1:]])


def element_type(datatype: str) -> int:
    """Return ONNX's element type of a protocol datatype."""
    from onnx import TensorProto, helper

    if datatype == "BYTES":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(DATATYPES[datatype])))


def tensor(value: Any, name: str = "") -> Any:
    """Return the ``TensorProto`` of an array."""
    from onnx import numpy_helper

    array = np.asarray(value)
    if array.dtype.kind in "US":
        array = array.astype(object)
    return numpy_helper.from_array(array, name)
