"""OpenVINO: models in its intermediate representation (``.xml`` and ``.bin``), which contain no code.

``compose`` reads the model's settings in the control plane; :class:`OpenvinoRuntime` runs the model in a worker. Knows
nothing of batching.
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
    names="The tensors'. Of several names of one tensor the shortest, as frameworks append suffixes; of an unnamed"
    " tensor its operator's.",
    outputs="Every one, in the network's types; a tensor that is two outputs under one name is returned once.",
)


def claims(path: Path) -> bool:
    """Claims ``.xml`` files that describe a network."""
    return path.is_file() and path.suffix == ".xml" and b"<net " in head(path, 256)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the network in ``file``."""
    require("openvino", "openvino", spec)
    return python_launch("openvino", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the network in this process."""
    return OpenvinoRuntime(settings)


class OpenvinoRuntime:
    """A compiled network. Its inputs and outputs are the signature, dynamic dimensions -1.

    Raises:
        ModelFailed: a tensor has a type that the protocol lacks, or a dynamic rank.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import openvino

        from inferd.runtimes.signatures import with_sizes

        self._openvino = openvino
        self._core = openvino.Core()
        self._network = self._core.read_model(settings["file"])
        threads = min(settings["threads"], len(os.sched_getaffinity(0)))
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            # The default is bfloat16 on CPUs that support it: three digits.
            "INFERENCE_PRECISION_HINT": "f32",
            # A stream of one thread loses errors of operators with invalid sizes: it returns an earlier request's
            # outputs, or crashes. Without streams the calling thread runs the network.
            "NUM_STREAMS": 0 if threads == 1 else 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = self._new_request()
        inputs = [_described(port) for port in self._request.model_inputs]
        outputs = [_described(port) for port in self._request.model_outputs]
        self.facts = {"runtime": f"openvino {openvino.get_version().partition('-')[0]}"}
        # One tensor may be several outputs with the same name.
        self.signature = with_sizes(settings, inputs, {spec.name: spec for spec in outputs}.values())
        # By position: a tensor may have no name that OpenVINO accepts.
        self._inputs = {spec.name: (position, spec.datatype) for position, spec in enumerate(inputs)}
        self._outputs = {spec.name: (position, spec.datatype) for position, spec in enumerate(outputs)}
        self._known_good = self._find_valid_inputs(inputs)

    def predict(self, batch: Batch) -> Batch:
        """Run the network over a batch.

        Raises:
            InvalidInput: sizes that the network rejects, or a text that OpenVINO can't represent.
        """
        tensors = {}
        for name, array in batch.items():
            position, datatype = self._inputs[name]
            tensors[position] = self._tensor(array, datatype, name)
        try:
            found = self._request.infer(tensors, decode_strings=False).to_tuple()
        except RuntimeError as fault:
            self._reset()
            raise InvalidInput(UNUSABLE) from fault
        return {name: _array(found[position], datatype) for name, (position, datatype) in self._outputs.items()}

    def close(self) -> None:
        """Nothing to release."""

    def _new_request(self) -> Any:
        return self._core.compile_model(self._network, "CPU", self._options).create_infer_request()

    def _find_valid_inputs(self, inputs: list[TensorSpec]) -> dict[int, Any] | None:
        """Return zeros that the network accepts; ``None``: it does not."""
        from inferd.runtimes.signatures import synthetic_inputs

        zeros = synthetic_inputs(inputs, rows=1, fill=0)
        tensors = {at: self._tensor(zeros[spec.name], spec.datatype, spec.name) for at, spec in enumerate(inputs)}
        try:
            self._request.infer(tensors)
        except RuntimeError:
            self._request = self._new_request()
            return None
        return tensors

    def _reset(self) -> None:
        """Reset the network after a failed run.

        An operator stores sizes before it fails, sees them unchanged in the next request of the same sizes, and
        continues with stale results of an earlier one: without a reset, a retry of a rejected request would succeed.
        """
        if self._known_good is not None:
            self._request.infer(self._known_good)
        else:
            self._request = self._new_request()

    def _tensor(self, array: np.ndarray, datatype: str, name: str) -> Any:
        if datatype == "BF16":
            return self._openvino.Tensor(array, self._openvino.Shape(array.shape), self._openvino.Type.bf16)
        if datatype != "BYTES":
            return array
        for index, text in enumerate(array.reshape(-1)):
            # numpy's fixed-width texts, which OpenVINO takes, drop trailing zero bytes.
            if text.endswith(b"\0"):
                raise InvalidInput(f"element {index} of input '{name}' ends in a zero byte, which OpenVINO drops")
        # As a Tensor: for an array of empty texts OpenVINO would keep the previous request's values.
        return self._openvino.Tensor(array.astype("S"))


def _array(array: np.ndarray, datatype: str) -> np.ndarray:
    # numpy has no bfloat16: its bits arrive as binary16.
    return array.view("uint16") if datatype == "BF16" else array


def _described(port: Any) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    kind = port.get_element_type()
    try:
        datatype = {"bf16": "BF16", "string": "BYTES"}.get(kind.get_type_name()) or datatype_of(kind.to_dtype())
    except RuntimeError as fault:
        raise ModelFailed(f"'{_name(port)}' has the unsupported type {kind.get_type_name()}") from fault
    dims = port.get_partial_shape()
    if dims.rank.is_dynamic:
        raise ModelFailed(f"'{_name(port)}' has a dynamic rank\nhelp: convert the model with a static one")
    return TensorSpec(_name(port), datatype, tuple(-1 if dim.is_dynamic else dim.get_length() for dim in dims))


def _name(port: Any) -> str:
    # The shortest name: frameworks append suffixes ("serving_default_x:0"). Networks built without names have numbered
    # outputs.
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    return str(names[0] if names else port.get_node().get_friendly_name())
