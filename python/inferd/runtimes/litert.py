"""LiteRT (once TensorFlow Lite): ``.tflite`` files, small models for small machines, which hold no code.

``compose`` reads the model's settings in the control plane; :class:`LitertRuntime` runs the model in a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.runtimes.base import Batch, Launch, Runtime, in_python, require

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["LitertRuntime", "claims", "compose", "load"]

PLATFORM = "litert"


def claims(path: Path) -> bool:
    """``.tflite`` files."""
    return path.is_file() and path.suffix == ".tflite"


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """How a worker for the model in ``file`` is started."""
    require("ai_edge_litert", "litert", spec)
    return in_python("litert", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """The model, in this process."""
    return LitertRuntime(settings)


class LitertRuntime:
    """An interpreter. Inputs and outputs have the names of the model's signature where it has one.

    Files that were converted with a fixed batch of 1 are served with rows of any number: the interpreter resizes its
    tensors, which it can for the operators of nearly every model; where it can't, the file's own shape stands.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        from inferd.runtimes.signatures import with_declared

        self._interpreter = Interpreter(model_path=settings["file"], num_threads=settings["threads"])
        self.facts = {"runtime": f"ai-edge-litert {version('ai-edge-litert')}"}
        self._inputs = _by_name(self._interpreter, "inputs")
        self._outputs = _by_name(self._interpreter, "outputs")
        self._shapes: dict[str, tuple[int, ...]] = {}
        rows_free = self._resizes()
        self._interpreter.allocate_tensors()
        self.signature = with_declared(
            settings,
            [_described(name, detail, rows_free=rows_free) for name, detail in self._inputs.items()],
            [_described(name, detail, rows_free=rows_free) for name, detail in self._outputs.items()],
        )

    def predict(self, batch: Batch) -> Batch:
        """The model's answers."""
        shapes = {name: array.shape for name, array in batch.items()}
        if shapes != self._shapes:
            self._resize(shapes)
        for name, array in batch.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()}

    def close(self) -> None:
        """Nothing is held but memory."""

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        # Forgotten first: a resize that fails leaves neither the old shapes nor the new ones.
        self._shapes = {}
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], list(shape))
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def _resizes(self) -> bool:
        """Whether two rows go in and two come out, of each tensor."""
        import numpy as np

        if not all(detail["shape"].size and detail["shape"][0] == 1 for detail in self._inputs.values()):
            return False
        own = {name: tuple(detail["shape"]) for name, detail in self._inputs.items()}
        try:
            outputs = self.predict(
                {name: np.zeros((2, *shape[1:]), self._inputs[name]["dtype"]) for name, shape in own.items()}
            )
        except (RuntimeError, ValueError):
            self._resize(own)
            return False
        return all(array.ndim > 0 and array.shape[0] == 2 for array in outputs.values())


def _by_name(interpreter: Any, side: str) -> dict[str, Any]:
    details = {
        detail["index"]: detail
        for detail in (interpreter.get_input_details() if side == "inputs" else interpreter.get_output_details())
    }
    names = {detail["name"]: detail for detail in details.values()}
    signatures = interpreter.get_signature_list()
    if not signatures:
        return names
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    found = runner.get_input_details() if side == "inputs" else runner.get_output_details()
    # Only where the signature is of the same graph: its tensors are then the interpreter's.
    return found if {detail["index"] for detail in found.values()} == set(details) else names


def _described(name: str, detail: Any, *, rows_free: bool) -> TensorSpec:
    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    shape = [int(dim) for dim in (detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"])]
    if rows_free and shape:
        shape[0] = -1
    return TensorSpec(name, datatype_of(detail["dtype"]), tuple(shape))
