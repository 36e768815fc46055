"""OpenVINO: models in its intermediate representation (``.xml`` and ``.bin``), which hold no code.

``compose`` reads the model's settings in the control plane; :class:`OpenvinoRuntime` runs the model in a worker.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import UNUSABLE, Batch, Launch, Runtime, Takes, head, python_launch, require

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "OpenvinoRuntime", "claims", "compose", "load"]

PLATFORM = "openvino"
TAKES = Takes(
    title="OpenVINO",
    types="The network's own: BOOL, integers of 8 to 64 bits, FP16, FP32, FP64, BF16, BYTES for texts."
    " OpenVINO's CPU plugin computes FP64 in FP32, and integers of 64 bits in 32.",
    categories="None in the library.",
    missing="NaN reaches the network as it is. A text can't be missing, and one that ends in a zero byte is"
    " refused: OpenVINO drops it.",
    names="The tensors'. Of several names of one tensor the shortest, which frameworks have not made longer;"
    " of a tensor without a name its operator's.",
    outputs="Every one, in the network's types; a tensor that is two outputs under one name is given once.",
)


def claims(path: Path) -> bool:
    """``.xml`` files that describe a network."""
    return path.is_file() and path.suffix == ".xml" and b"<net " in head(path, 256)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the network in ``file`` is started."""
    require("openvino", "openvino", spec)
    return python_launch("openvino", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The network, in this process."""
    return OpenvinoRuntime(settings)


class OpenvinoRuntime:
    """A compiled network. Its inputs and outputs are the signature, free dimensions -1.

    Raises:
        ModelFailed: a tensor has a type that the protocol lacks, or a free number of dimensions.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import openvino

        from inferd.runtimes.signatures import with_declared_sizes

        self._openvino = openvino
        self._core = openvino.Core()
        self._network = self._core.read_model(settings["file"])
        threads = min(settings["threads"], len(os.sched_getaffinity(0)))
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            # Its own default is bfloat16 where the CPU has it: three digits.
            "INFERENCE_PRECISION_HINT": "f32",
            # A stream of one thread loses the errors of operators that sizes don't fit: the answer is an earlier
            # request's, or the process ends. Without streams the calling thread runs the network.
            "NUM_STREAMS": 0 if threads == 1 else 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = self._fresh_request()
        inputs = [_described(port) for port in self._request.model_inputs]
        outputs = [_described(port) for port in self._request.model_outputs]
        self.facts = {"runtime": f"openvino {openvino.get_version().partition('-')[0]}"}
        # One tensor may be several outputs, under the one name that it has.
        self.signature = with_declared_sizes(settings, inputs, {spec.name: spec for spec in outputs}.values())
        # By position: a tensor need not have a name that OpenVINO takes.
        self._inputs = {spec.name: (position, spec.datatype) for position, spec in enumerate(inputs)}
        self._outputs = {spec.name: (position, spec.datatype) for position, spec in enumerate(outputs)}
        self._known_good = self._tried(inputs)

    def predict(self, batch: Batch) -> Batch:
        """The network's answers.

        Raises:
            InvalidInput: sizes that the network can't use together, or a text that OpenVINO can't carry.
        """
        tensors = {}
        for name, array in batch.items():
            position, datatype = self._inputs[name]
            tensors[position] = self._tensor(array, datatype, name)
        try:
            found = self._request.infer(tensors, decode_strings=False).to_tuple()
        except RuntimeError as fault:
            self._forget()
            raise InvalidInput(UNUSABLE) from fault
        return {name: _array(found[position], datatype) for name, (position, datatype) in self._outputs.items()}

    def close(self) -> None:
        """Nothing is held but memory."""

    def _fresh_request(self) -> Any:
        return self._core.compile_model(self._network, "CPU", self._options).create_infer_request()

    def _tried(self, inputs: list[TensorSpec]) -> dict[int, Any] | None:
        """Zeros that the network can be run with; ``None``: it can't be."""
        from inferd.runtimes.signatures import synthetic_inputs

        zeros = synthetic_inputs(inputs, rows=1, fill=0)
        tensors = {at: self._tensor(zeros[spec.name], spec.datatype, spec.name) for at, spec in enumerate(inputs)}
        try:
            self._request.infer(tensors)
        except RuntimeError:
            self._request = self._fresh_request()
            return None
        return tensors

    def _forget(self) -> None:
        """Make the network forget the sizes that it failed with.

        An operator keeps them before it fails, finds them unchanged in the next request that has them, and goes on with
        what is left of an earlier one: a request that was refused would be answered when it is tried again.
        """
        if self._known_good is not None:
            self._request.infer(self._known_good)
        else:
            self._request = self._fresh_request()

    def _tensor(self, array: np.ndarray, datatype: str, name: str) -> Any:
        if datatype == "BF16":
            return self._openvino.Tensor(array, self._openvino.Shape(array.shape), self._openvino.Type.bf16)
        if datatype != "BYTES":
            return array
        for place, text in enumerate(array.reshape(-1)):
            # numpy's texts of fixed width, which OpenVINO takes, don't know where such a one ends.
            if text.endswith(b"\0"):
                raise InvalidInput(f"element {place} of input '{name}' ends in a zero byte, which OpenVINO drops")
        # A tensor: of an array without a letter in it OpenVINO would leave what an earlier request put there.
        return self._openvino.Tensor(array.astype("S"))


def _array(array: np.ndarray, datatype: str) -> np.ndarray:
    # numpy has no bfloat16: its bits come as those of a binary16.
    return array.view("uint16") if datatype == "BF16" else array


def _described(port: Any) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    kind = port.get_element_type()
    try:
        datatype = {"bf16": "BF16", "string": "BYTES"}.get(kind.get_type_name()) or datatype_of(kind.to_dtype())
    except RuntimeError as fault:
        raise ModelFailed(f"'{_name(port)}' has the type {kind.get_type_name()}, which can't be served") from fault
    dims = port.get_partial_shape()
    if dims.rank.is_dynamic:
        raise ModelFailed(f"'{_name(port)}' has a free number of dimensions\nhelp: convert the model with fixed ones")
    return TensorSpec(_name(port), datatype, tuple(-1 if dim.is_dynamic else dim.get_length() for dim in dims))


def _name(port: Any) -> str:
    # Of several names of a tensor the shortest: longer ones are made by frameworks ("serving_default_x:0"). Networks
    # that were made without names have numbered outputs.
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    return str(names[0] if names else port.get_node().get_friendly_name())
