"""ONNX graphs while they are built, node by node.

Reads arrays, names of tensors and whole models, hands on names of tensors and, in the end, a model. Knows nothing of
what the nodes compute.
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
"""TreeEnsemble, which computes in FP64, came with ai.onnx.ml 5."""

FP32, INT64, FP64 = 1, 7, 11
"""Types, as ONNX numbers them."""


class Builder(Protocol):
    """What takes nodes and constants, and names the tensors that they give."""

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output; the name of that."""
        ...

    def constant(self, value: Any) -> str:
        """A tensor that holds ``value``, an array or what becomes one; its name."""
        ...


class Graph:
    """A graph of its own."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._opsets = {"": OPSET, "ai.onnx.ml": OPSET_ML}
        self._included = 0

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output; the name of that."""
        from onnx import helper

        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """A tensor that holds ``value``; its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(tensor(value, name))
        return name

    def include(self, model: Any, inputs: Mapping[str, str]) -> dict[str, str]:
        """Take up a whole model.

        Args:
            model: the ``ModelProto``.
            inputs: for each of its inputs the tensor of this graph that it becomes.

        Returns:
            The tensor of this graph that each of its outputs is.
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
                # Its name would have to be the only one of its kind.
                node.ClearField("name")
                self._nodes.append(node)
        self._constants += inner.initializer
        # A converter was told of the versions here, and says the least that would do.
        self._opsets = {opset.domain: opset.version for opset in model.opset_import} | self._opsets
        return {node.name.removeprefix(prefix): node.name for node in inner.output}

    def model(self, signature: Signature, sources: dict[str, str]) -> Any:
        """The ``ModelProto``.

        Args:
            signature: what the model takes and gives, whose dimensions 0 count rows.
            sources: for each output the tensor that it is once its shape and type are the signature's.
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
    """The logistic function, written out: ONNX Runtime's own ends at 1e-8 in FP32 and is coarse below 1e-5 in FP64."""
    one = graph.add("CastLike", graph.constant(np.float64(1)), x)
    return graph.add("Div", one, graph.add("Add", one, graph.add("Exp", graph.add("Neg", x))))


def refuse(graph: Builder, x: str, bad: str, why: str) -> str:
    """``x``, of FP64, from a graph that fails where any of ``bad`` is true.

    ONNX has no node that fails on purpose. This one looks for an element past the end; the native worker takes its
    name for the message.
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
    """ONNX's number of a type that the protocol names."""
    from onnx import TensorProto, helper

    if datatype == "BYTES":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(DATATYPES[datatype])))


def tensor(value: Any, name: str = "") -> Any:
    """The ``TensorProto`` of an array."""
    from onnx import numpy_helper

    array = np.asarray(value)
    if array.dtype.kind in "US":
        array = array.astype(object)
    return numpy_helper.from_array(array, name)
