"""OpenVINO: models in its intermediate representation (``.xml`` and ``.bin``), which hold no code.

``compose`` reads the model's settings in the control plane; :class:`OpenvinoRuntime` runs the model in a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.base import Batch, Launch, Runtime, head, in_python, require

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["OpenvinoRuntime", "claims", "compose", "load"]

PLATFORM = "openvino"


def claims(path: Path) -> bool:
    """``.xml`` files that describe a network."""
    return path.is_file() and path.suffix == ".xml" and b"<net " in head(path, 256)


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the network in ``file`` is started."""
    require("openvino", "openvino", spec)
    return in_python("openvino", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The network, in this process."""
    return OpenvinoRuntime(settings)


class OpenvinoRuntime:
    """A compiled network. Its inputs and outputs are the signature, free dimensions -1."""

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        import openvino

        from inferd.runtimes.signatures import with_declared

        core = openvino.Core()
        network = core.read_model(settings["file"])
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": settings["threads"],
                # Its own default is bfloat16 where the CPU has it: three digits.
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self.facts = {"runtime": f"openvino {openvino.get_version().partition('-')[0]}"}
        self._request = compiled.create_infer_request()
        self._ports = [(_name(port), port) for port in compiled.outputs]
        self.signature = with_declared(
            settings,
            [_described(port) for port in compiled.inputs],
            [_described(port) for port in compiled.outputs],
        )

    def predict(self, batch: Batch) -> Batch:
        """The network's answers."""
        found = self._request.infer(batch)
        return {name: found[port] for name, port in self._ports}

    def close(self) -> None:
        """Nothing is held but memory."""


def _described(port: Any) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    kind = port.get_element_type()
    try:
        datatype = "BF16" if kind.get_type_name() == "bf16" else datatype_of(kind.to_dtype())
    except RuntimeError as fault:
        raise ModelFailed(f"'{_name(port)}' has the type {kind.get_type_name()}, which can't be served") from fault
    dims = port.get_partial_shape()
    if dims.rank.is_dynamic:
        raise ModelFailed(f"'{_name(port)}' has a free number of dimensions\nhelp: convert the model with fixed ones")
    return TensorSpec(_name(port), datatype, tuple(-1 if dim.is_dynamic else dim.get_length() for dim in dims))


def _name(port: Any) -> str:
    # Networks that were made without names have numbered outputs.
    names = sorted(port.get_names())
    return str(names[0] if names else port.get_node().get_friendly_name())
