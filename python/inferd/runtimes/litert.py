"""LiteRT (formerly TensorFlow Lite): ``.tflite`` files, which contain no code.

``compose`` reads the model's settings in the control plane; :class:`LitertRuntime` runs the model in a worker. Knows
nothing of requests.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import UNUSABLE, Batch, Launch, Runtime, Takes, python_launch, require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from inferd.spec.settings import ModelSpec
    from inferd.types import TensorSpec

__all__ = ["TAKES", "LitertRuntime", "claims", "compose", "load"]

PLATFORM = "litert"
TAKES = Takes(
    title="LiteRT",
    types="The file's own: BOOL, integers of 8 to 64 bits, FP16, FP32, FP64, BYTES for texts. Quantised"
    " tensors are the file's integers; `quantised` in the configuration's parameters has their scales.",
    categories="None in the library.",
    missing="NaN reaches the model as it is. A text can't be missing.",
    names="Those of the signature; without one the tensors' own, `input_0` for an unnamed one, `name_1` for a"
    " duplicate name.",
    outputs="Every one of the signature. Of several signatures `serving_default` is served, and the others are named in"
    " `left_out`; without a `serving_default` the load fails and asks for a choice.",
    parameters={"signature": "the signature to serve"},
)


def claims(path: Path) -> bool:
    """Claims ``.tflite`` files."""
    return path.is_file() and path.suffix == ".tflite"


def compose(file: Path, spec: ModelSpec, threads: int) -> Launch:
    """Return how to start a worker for the model in ``file``."""
    require("ai_edge_litert", "litert", spec)
    return python_launch("litert", PLATFORM, file, spec, threads)


def load(settings: dict[str, Any]) -> Runtime:
    """Load the model in this process."""
    return LitertRuntime(settings)


class LitertRuntime:
    """An interpreter. Inputs and outputs have the names of the model's signature, if any.

    Of several signatures ``serving_default`` is served, or the one of ``parameters: {signature: NAME}``. Files
    converted with a fixed batch of 1 are served with any number of rows: the interpreter resizes its tensors, which
    nearly all operators support; if it fails, or rows then influence each other, the file's own shape applies. State
    between runs is reset.

    Raises:
        ModelFailed: a tensor has a type that the protocol lacks, or the choice of a signature is ambiguous.
    """

    example: Batch | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        from inferd.runtimes.signatures import chosen_signature, synthetic_inputs, with_sizes

        self._interpreter = Interpreter(model_path=settings["file"], num_threads=settings["threads"])
        self.facts = {"runtime": f"ai-edge-litert {version('ai-edge-litert')}"}
        chosen, facts = chosen_signature(list(self._interpreter.get_signature_list()), settings["parameters"])
        if chosen is None:
            self._inputs = _by_name(self._interpreter.get_input_details(), "input")
            self._outputs = _by_name(self._interpreter.get_output_details(), "output")
            self._run = self._whole
        else:
            self._runner = self._interpreter.get_signature_runner(chosen)
            self._inputs, self._outputs = self._runner.get_input_details(), self._runner.get_output_details()
            self._run = self._signature
        # Before any run: reports a tensor of an unsupported type.
        inputs = [_described(name, detail) for name, detail in self._inputs.items()]
        outputs = [_described(name, detail) for name, detail in self._outputs.items()]
        self.facts |= {**facts, **_quantised({**self._inputs, **self._outputs})}
        rows_free = self._resizes(inputs)
        runs = [self._try_run(synthetic_inputs(inputs, rows=1, fill=fill)) for fill in (None, 0, 1)]
        self._check_reset(runs)
        outputs = _with_observed_shapes(outputs, [run for run in runs if run is not None])
        with_rows = _with_rows if rows_free else lambda spec: spec
        self.signature = with_sizes(settings, map(with_rows, inputs), map(with_rows, outputs))

    def predict(self, batch: Batch) -> Batch:
        """Run the model over a batch.

        Raises:
            InvalidInput: sizes or values that an operator rejects.
        """
        try:
            return self._run(batch)
        except (RuntimeError, ValueError) as fault:
            raise InvalidInput(UNUSABLE) from fault

    def close(self) -> None:
        """Nothing to release."""

    def _signature(self, batch: Batch) -> Batch:
        # Suppressed: there is nothing to reset before the first run.
        with contextlib.suppress(RuntimeError):
            self._interpreter.reset_all_variables()
        found: Batch = self._runner(**batch)
        return found

    def _whole(self, batch: Batch) -> Batch:
        """Run a model without signatures, in the way of the library's signature runner."""
        for name, array in batch.items():
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], array.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.reset_all_variables()
        for name, array in batch.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()}

    def _check_reset(self, runs: list[Batch | None]) -> None:
        """Raise ModelFailed if state would leak from one request to the next."""
        if any(runs):
            try:
                self._interpreter.reset_all_variables()
            except RuntimeError as fault:
                raise ModelFailed(
                    "the state of this signature can't be reset between runs\nhelp: save it in a file of its own"
                ) from fault

    def _resizes(self, inputs: list[TensorSpec]) -> bool:
        """Whether the model accepts two rows and gives each the outputs that it gives alone."""
        import numpy as np

        from inferd.runtimes.signatures import synthetic_inputs

        if not all(spec.shape and spec.shape[0] in (1, -1) for spec in inputs):
            return False
        rows = synthetic_inputs(map(_with_rows, inputs), rows=2)
        together = self._try_run(rows)
        if together is None or any(array.ndim == 0 or len(array) != 2 for array in together.values()):
            return False
        for row in range(2):
            alone = self._try_run({name: array[row : row + 1] for name, array in rows.items()})
            if alone is None:
                return False
            for name, array in alone.items():
                whole = together[name][row : row + 1]
                numbers = array.dtype.kind == "f" and array.shape == whole.shape
                if not (np.allclose(array, whole, 1e-3, 1e-3) if numbers else np.array_equal(array, whole)):
                    return False
        return True

    def _try_run(self, batch: Batch) -> Batch | None:
        try:
            return self.predict(batch)
        except InvalidInput:
            return None


def _by_name(details: list[dict[str, Any]], side: str) -> dict[str, dict[str, Any]]:
    """Return tensors by name; unnamed and duplicate names are numbered."""
    by_name: dict[str, dict[str, Any]] = {}
    for index, detail in enumerate(details):
        name = detail["name"] or f"{side}_{index}"
        if name in by_name and by_name[name]["index"] != detail["index"]:
            name = f"{name}_{index}"
        by_name[name] = detail
    return by_name


def _quantised(details: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Describe the scales of quantised tensors, for clients."""
    described = []
    for name, detail in details.items():
        scales = detail["quantization_parameters"]["scales"]
        zeros = detail["quantization_parameters"]["zero_points"]
        if len(scales) == 1:
            described.append(f"'{name}' is {scales[0]:g} * (number - {zeros[0]})")
        elif len(scales):
            described.append(f"'{name}' has separate scales for {len(scales)} channels")
    return {"quantised": "; ".join(described)} if described else {}


def _described(name: str, detail: dict[str, Any]) -> TensorSpec:
    import numpy as np

    from inferd.runtimes.signatures import datatype_of
    from inferd.types import TensorSpec

    if detail["dtype"] is np.object_:
        raise ModelFailed(f"'{name}' is a resource, not a tensor, which the protocol does not support")
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    try:
        return TensorSpec(name, datatype_of(detail["dtype"]), tuple(int(size) for size in shape))
    except ModelFailed as fault:
        raise ModelFailed(f"'{name}': {fault}") from None


def _with_rows(spec: TensorSpec) -> TensorSpec:
    from inferd.types import TensorSpec

    return TensorSpec(spec.name, spec.datatype, (-1, *spec.shape[1:]))


def _with_observed_shapes(outputs: list[TensorSpec], runs: list[Batch]) -> list[TensorSpec]:
    """Correct output shapes by runs: operators with data-dependent sizes have none in the file."""
    from inferd.types import TensorSpec

    corrected = []
    for spec in outputs:
        shapes = [run[spec.name].shape for run in runs]
        if any(len(shape) != len(spec.shape) for shape in shapes):
            sizes = (-1,) * len(shapes[0])
        else:
            sizes = tuple(s if all(shape[at] == s for shape in shapes) else -1 for at, s in enumerate(spec.shape))
        corrected.append(TensorSpec(spec.name, spec.datatype, sizes))
    return corrected
