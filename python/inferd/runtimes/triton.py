"""Models that are a class ``TritonPythonModel``, the interface of Triton's Python backend.

Reads the control plane's description of the model and its ``config.pbtxt``, loads the class inside the worker. Knows
nothing of shared memory: arrays in, arrays out.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.base import Takes
from inferd.runtimes.sources import import_source, module_folders
from inferd.sdk.arrays import copy_or_view
from inferd.sdk.constants import constants_of
from inferd.sdk.context import Contexts, freeze
from inferd.spec.triton.sequences import hidden_tensors
from inferd.types import Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.runtimes.base import Batch
    from inferd.sdk.context import Context

__all__ = ["CLASS", "UTILS", "TritonRuntime", "is_triton", "no_triton_class"]

TAKES = Takes(
    title="Triton's Python backend",
    types="As `config.pbtxt` has them: every type of the protocol. BF16 are arrays of UINT16 that hold its bits.",
    categories="Up to the class: texts and integers.",
    missing="NaN in an array is NaN. A text can't be missing.",
    names="As `config.pbtxt` has them.",
    outputs="As `config.pbtxt` has them. `TritonError` with `INVALID_ARG` refuses a request.",
    parameters="`parameters` of `config.pbtxt`.",
)

CLASS = "TritonPythonModel"
UTILS = "triton_python_backend_utils"
_PACKAGE = "inferd_model"


def is_triton(load: dict[str, Any]) -> bool:
    """Whether a model uses the interface of Triton's Python backend.

    Decided by its text, without importing it: such a file imports modules that exist only in its worker.
    """
    if "triton" in load:
        return True
    try:
        text = Path(load["file"]).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(rf"^class {CLASS}\b", text, re.MULTILINE) is not None


class TritonRuntime:
    """An initialized instance of the operator's class.

    Args:
        load: ``load`` as composed by the Python runtime; under ``triton`` name, version, folder, device and config.

    Raises:
        ModelFailed: the class is missing, inputs or outputs are not declared, or the model raised it.
    """

    def __init__(self, load: dict[str, Any]) -> None:
        file = Path(load["file"])
        model = load.get("triton") or _describe(file)
        from inferd.runtimes import triton_utils

        self._utils = triton_utils
        sys.modules[UTILS] = triton_utils
        model_class = _find_class(file, model, load)
        config = self._auto_complete(model_class, _config(model["config"], load))
        self._rows_max = int(config["max_batch_size"])
        self.signature = _signature(file, config)
        # Sequences need a context per request; other requests form one batch.
        self._contexts = Contexts("inferd.context", whole=True) if "sequence_batching" in config else None
        self.controls: dict[str, str] = {}
        self.sequence = None
        if self._contexts:
            inputs, outputs = hidden_tensors(config)
            self.controls = self._contexts.controls
            self.signature = Signature(
                (*self.signature.inputs, *inputs, *self._contexts.specs), (*self.signature.outputs, *outputs)
            )
        self._batching = "on" if "dynamic_batching" in config else "auto" if self._rows_max else "off"
        self.example: Batch | None = None
        self.facts = {"runtime": f"python {platform.python_version()}"}
        self._zero_copy = bool(getattr(model_class, "zero_copy", False))
        self._model = model_class()
        if hasattr(self._model, "initialize"):
            self._call(self._model.initialize, _arguments(model, config))
        self.constants = constants_of(self._model)

    def completed(self, load: dict[str, Any]) -> dict[str, Any]:
        """Return the settings ``load`` with the batching mode that the model's configuration implies."""
        return {**load, "batching": self._batching} if load["batching"] == "auto" else load

    def predict(self, batch: Batch) -> Batch:
        """Run the model once over a batch; in parts if the model's max_batch_size is smaller."""
        if self._contexts:
            return self._execute_sequences(self._contexts, batch)
        rows = len(next(iter(batch.values()))) if batch and self._rows_max else 0
        if rows <= self._rows_max or not self._rows_max:
            return self._execute(batch)
        parts = []
        for start in range(0, rows, self._rows_max):
            found = self._execute({name: array[start : start + self._rows_max] for name, array in batch.items()})
            # Copy: a model may reuse its output memory for the next part.
            parts.append({name: np.array(array) for name, array in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Call the class's ``finalize``, if any."""
        finalize = getattr(self._model, "finalize", None)
        if finalize is not None:
            finalize()

    def _execute(self, batch: Batch) -> Batch:
        (outputs,) = self._responses([self._request(batch)])
        return outputs

    def _execute_sequences(self, contexts: Contexts, batch: Batch) -> Batch:
        """Run each row as a separate request: rows belong to different sequences."""
        rows = len(batch[contexts.name]) if self._rows_max else 1
        row_contexts = contexts.decode(batch, rows)
        try:
            return self._execute_each(contexts, batch, row_contexts)
        finally:
            freeze(row_contexts)

    def _execute_each(self, contexts: Contexts, batch: Batch, row_contexts: Sequence[Context]) -> Batch:
        rows = len(row_contexts)
        visible = {name: array for name, array in batch.items() if name not in contexts.controls}
        rowwise = [{name: array[row : row + 1] for name, array in visible.items()} for row in range(rows)]
        requests = [
            self._request(inputs, context)
            for inputs, context in zip(rowwise if self._rows_max else [visible], row_contexts, strict=True)
        ]
        responses = self._responses(requests)
        if not self._rows_max:
            return responses[0]
        return {name: np.concatenate([np.asarray(one[name]) for one in responses]) for name in responses[0]}

    def _request(self, batch: Batch, context: Context | None = None) -> Any:
        # Copies, as in Triton: a model may write to its inputs and keep them.
        inputs = [
            self._utils.Tensor(name, copy_or_view(array, zero_copy=self._zero_copy)) for name, array in batch.items()
        ]
        names = [spec.name for spec in self.signature.outputs]
        return self._utils.InferenceRequest(inputs=inputs, requested_output_names=names, context=context)

    def _responses(self, requests: list[Any]) -> list[Batch]:
        responses = self._call(self._model.execute, requests)
        if not isinstance(responses, (list, tuple)) or len(responses) != len(requests):
            count = f"{len(responses)} responses" if isinstance(responses, (list, tuple)) else repr(type(responses))
            raise ModelFailed(
                f"execute() returned {count} for {len(requests)} request{'s' if len(requests) > 1 else ''}; expected"
                " one response per request in a list"
            )
        return [self._outputs(response) for response in responses]

    def _outputs(self, response: Any) -> Batch:
        if not isinstance(response, self._utils.InferenceResponse):
            raise ModelFailed(f"execute() returned {type(response).__name__}, not an InferenceResponse")
        error = response.error()
        if error is not None:
            kind = InvalidInput if error.code() == self._utils.TritonError.INVALID_ARG else ModelFailed
            raise kind(error.message())
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}

    def _auto_complete(self, model_class: Any, config: dict[str, Any]) -> dict[str, Any]:
        complete = getattr(model_class, "auto_complete_config", None)
        if complete is None:
            return config
        completed = self._call(complete, self._utils.ModelConfig(config))
        if not isinstance(completed, self._utils.ModelConfig):
            raise ModelFailed("auto_complete_config() did not return the configuration that it received")
        return completed.as_dict()

    def _call(self, act: Any, argument: Any) -> Any:
        """Call ``act``; the message of a TritonModelException is for the client."""
        try:
            return act(argument)
        except self._utils.TritonModelException as fault:
            raise ModelFailed(str(fault)) from fault


def _describe(file: Path) -> dict[str, Any]:
    """Describe a model without a ``config.pbtxt`` by its path."""
    versioned = file.parent.name.isdecimal()
    folder = file.parent.parent if versioned else file.parent
    name = folder.name if versioned or file.stem == "model" else file.stem
    version = int(file.parent.name) if versioned else 1
    return {"name": name, "version": version, "folder": str(folder), "device": "cpu", "config": None}


def _find_class(file: Path, model: dict[str, Any], load: dict[str, Any]) -> Any:
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(file.parent)]
    sys.modules[_PACKAGE] = package
    # As in Triton, it can import its siblings, also relatively, and modules next to its version folders.
    module = import_source(
        f"{_PACKAGE}.{file.stem}", file, *module_folders(file), Path(model["folder"]), kept=load.get("kept")
    )
    model_class = getattr(module, CLASS, None)
    if not isinstance(model_class, type) or not callable(getattr(model_class, "execute", None)):
        raise no_triton_class(file)
    return model_class


def no_triton_class(file: Path) -> ModelFailed:
    """Return the error for a file without the class."""
    return ModelFailed(
        f"'{file.name}' has no class {CLASS} with execute(), which its config.pbtxt requires\n"
        "help: define it, or remove config.pbtxt and declare inputs and outputs in your class"
    )


def _config(given: dict[str, Any] | None, load: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"max_batch_size": 0, "input": [], "output": [], "backend": "python", **(given or {})}
    parameters = {key: {"string_value": str(value)} for key, value in load["parameters"].items()}
    # model.yaml overrides config.pbtxt.
    return {**config, "parameters": {**config.get("parameters", {}), **parameters}}


def _arguments(model: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    _, on_gpu, number = model["device"].partition("cuda:")
    return {
        "model_config": json.dumps({**config, "name": model["name"]}),
        "model_instance_kind": "GPU" if on_gpu else "CPU",
        "model_instance_name": f"{model['name']}_0_0",
        "model_instance_device_id": number or "0",
        "model_repository": model["folder"],
        "model_version": str(model["version"]),
        "model_name": model["name"],
    }


def _signature(file: Path, config: dict[str, Any]) -> Signature:
    batch = (-1,) if config["max_batch_size"] > 0 else ()
    sides = {}
    for side in ("input", "output"):
        if not config[side]:
            raise ModelFailed(
                f"'{file.name}' declares no {side}s\n"
                f'help: write {side} [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ] in config.pbtxt next to its'
                f" versions, or call add_{side}() in auto_complete_config()"
            )
        sides[side] = tuple(_tensor(one, batch) for one in config[side])
    return Signature(sides["input"], sides["output"])


def _tensor(one: dict[str, Any], batch: tuple[int, ...]) -> TensorSpec:
    datatype = one["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES")
    try:
        return TensorSpec(one["name"], datatype, (*batch, *one["dims"]))
    except InvalidInput as fault:
        raise ModelFailed(str(fault)) from None
