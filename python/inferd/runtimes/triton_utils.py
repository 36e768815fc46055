"""``triton_python_backend_utils``: what a model written for Triton's Python backend imports.

Used by the operator's code inside a worker, and by :mod:`inferd.runtimes.triton`, which puts it under that name.
Knows nothing of the wire and of batches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from inferd.errors import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.sdk.context import Context

__all__ = [
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "InferenceRequest",
    "InferenceResponse",
    "Logger",
    "ModelConfig",
    "NotServed",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "using_decoupled_model_transaction_policy",
]

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 1, 2

# In the order of Triton's numbers for them, which start at 1.
_TYPES: dict[str, Any] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}


class NotServed(ModelFailed, AttributeError):
    """Triton's Python backend has it, inferd does not."""


def _refuse(what: str, remedy: str) -> NoReturn:
    raise NotServed(f"{what} is not there in inferd\nhelp: {remedy}")


def _refuse_asking(what: str) -> NoReturn:
    _refuse(
        f"{what}, by which a model asks another,",
        "put the models into a pipeline: ensemble_scheduling in config.pbtxt, or pipelines: in inferd.yaml",
    )


class TritonModelException(Exception):
    """What a model raises to say that it can't do what was asked. The client reads the message."""


class TritonError:
    """Why a request has no answer. The client reads the message.

    Args:
        message: what failed.
        code: one of the codes below; INVALID_ARG says that the request is to blame.
    """

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """What failed."""
        return self._message

    def code(self) -> int:
        """Whose fault it is."""
        return self._code


class Tensor:
    """A named array.

    Args:
        name: of an input or output.
        array: its elements; text as ``bytes`` or ``str`` objects.
    """

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name = name
        self._array = np.asarray(array)

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Its elements."""
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return self._array.shape

    def triton_dtype(self) -> int:
        """Triton's number of its type."""
        return numpy_to_triton_type(self._array.dtype.type)

    def is_cpu(self) -> bool:
        """Always: tensors lie in the memory of the worker."""
        return True

    def to_dlpack(self) -> NoReturn:
        """Not served."""
        _refuse("Tensor.to_dlpack()", "use as_numpy(); torch.from_numpy() takes it without a copy")

    @staticmethod
    def from_dlpack(name: str, tensor: object) -> NoReturn:  # noqa: ARG004 (Triton's form)
        """Not served."""
        _refuse("Tensor.from_dlpack()", f"use Tensor('{name}', array) with an array of numpy: tensor.cpu().numpy()")


class InferenceRequest:
    """What ``execute`` is asked: one batch, the rows of one or more callers; or one request of a sequence."""

    def __init__(
        self,
        *,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        context: Context | None = None,
        **other: Any,
    ) -> None:
        if other:
            _refuse_asking(f"InferenceRequest({', '.join(other)})")
        self._inputs = list(inputs)
        self._outputs = list(requested_output_names)
        self._context = context

    def inputs(self) -> list[Tensor]:
        """Its tensors."""
        return self._inputs

    def requested_output_names(self) -> list[str]:
        """All outputs: callers of one batch may want different ones."""
        return self._outputs

    def request_id(self) -> str:
        """Empty, but of a sequence: a batch has no id, its callers have theirs."""
        if self._context is None:
            _say_once("request.request_id() is always empty")
            return ""
        return self._context.id

    def parameters(self) -> str:
        """Empty, but of a sequence: a batch has no parameters."""
        if self._context is None:
            _say_once("request.parameters() is always empty")
            return "{}"
        return json.dumps(dict(self._context.parameters))

    def correlation_id(self) -> int | str:
        """The sequence's id; 0 of requests that stand for themselves."""
        place = self._context and self._context.sequence
        return place.id if place else 0

    def flags(self) -> int:
        """Whether it is the first and the last of its sequence, as a sum of the constants of this module."""
        place = self._context and self._context.sequence
        if not place:
            return 0
        start, end = TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
        return start * place.start + end * place.end

    def timeout(self) -> int:
        """0: whose time is over is not run."""
        return 0

    def priority(self) -> int:
        """0: order is the server's."""
        return 0

    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more; False of a batch."""
        return self._context is not None and self._context.cancelled

    def exec(self, decoupled: bool = False) -> NoReturn:  # noqa: ARG002 (Triton's form)
        """Not served."""
        _refuse_asking("InferenceRequest.exec()")

    def async_exec(self, decoupled: bool = False) -> NoReturn:  # noqa: ARG002 (Triton's form)
        """Not served."""
        _refuse_asking("InferenceRequest.async_exec()")

    def get_response_sender(self) -> NoReturn:
        """Not served."""
        _refuse(
            "InferenceRequest.get_response_sender() (decoupled models)",
            "return one response for each request from execute()",
        )


class InferenceResponse:
    """What ``execute`` answers to one request.

    Args:
        output_tensors: the outputs.
        error: why there are none.
    """

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | str | None = None) -> None:
        self._outputs = list(output_tensors)
        self._error = TritonError(error) if isinstance(error, str) else error

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether there is no answer."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Why there is none."""
        return self._error


class Logger:
    """Writes into the server's log, through the worker's output."""

    INFO, WARNING, ERROR, VERBOSE = "info", "warning", "error", "verbose"

    @classmethod
    def log(cls, message: str, level: str = INFO) -> None:
        """Write ``message``."""
        sys.stderr.write(f"{level}: {message}\n")

    @classmethod
    def log_info(cls, message: str) -> None:
        """Write ``message``."""
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """Write ``message``."""
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        """Write ``message``."""
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """Write nothing: Triton does not either, unless it is asked to."""


class ModelConfig:
    """A configuration that ``auto_complete_config`` completes.

    Args:
        config: the configuration so far; it is not changed.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config: dict[str, Any] = json.loads(json.dumps(config))

    def as_dict(self) -> dict[str, Any]:
        """The configuration."""
        return self._config

    def add_input(self, tensor: dict[str, Any]) -> None:
        """Add an input of ``name``, ``data_type`` and ``dims``, or complete the one of this name."""
        self._add("input", tensor)

    def add_output(self, tensor: dict[str, Any]) -> None:
        """Add an output of ``name``, ``data_type`` and ``dims``, or complete the one of this name."""
        self._add("output", tensor)

    def set_max_batch_size(self, rows: int) -> None:
        """The most rows of one request; 0: no batch dimension."""
        said = self._config.get("max_batch_size", 0)
        if said > rows:
            raise ValueError(f"max_batch_size is {said} in config.pbtxt, but auto_complete_config says {rows}")
        self._config["max_batch_size"] = rows

    def set_dynamic_batching(self) -> None:
        """Rows of several callers may run together."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, policy: dict[str, bool]) -> None:
        """One answer for a request is all that there is."""
        if policy.get("decoupled"):
            _refuse("A decoupled model", "return one response for each request from execute()")

    def _add(self, side: str, tensor: dict[str, Any]) -> None:
        missing = {"name", "data_type", "dims"} - set(tensor)
        if missing:
            raise ValueError(f"{side} {tensor!r} has no {', '.join(sorted(missing))}")
        tensors = self._config.setdefault(side, [])
        for known in tensors:
            if known["name"] == tensor["name"]:
                for key in ("data_type", "dims"):
                    if known.get(key) not in (None, [], "TYPE_INVALID", list(tensor[key]), tensor[key]):
                        raise ValueError(
                            f"{side} '{tensor['name']}' has {key} {known[key]} in config.pbtxt, but"
                            f" auto_complete_config says {tensor[key]}"
                        )
                known.update(tensor)
                return
        tensors.append(dict(tensor))


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """The input ``name`` of a request; None where it has none."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """The output ``name`` of a response; None where it has none."""
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration says of the input ``name``; None where it has none."""
    return next((one for one in model_config.get("input", []) if one["name"] == name), None)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration says of the output ``name``; None where it has none."""
    return next((one for one in model_config.get("output", []) if one["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether a configuration asks for several answers to a request."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(name: str) -> Any:
    """The element type of numpy for a name such as ``TYPE_FP32``."""
    return _TYPES[name]


def triton_to_numpy_type(number: int) -> Any:
    """The element type of numpy for Triton's number of a type."""
    return list(_TYPES.values())[number - 1]


def numpy_to_triton_type(dtype: Any) -> int:
    """Triton's number for an element type of numpy."""
    kind = np.dtype(dtype)
    name = np.object_ if kind.kind in "SUO" else kind.type
    return list(_TYPES.values()).index(name) + 1


def serialize_byte_tensor(array: np.ndarray) -> np.ndarray:
    """The elements of an array of text in the form of the wire, each behind its length."""
    return np.frombuffer(b"".join(len(data).to_bytes(4, "little") + data for data in map(_bytes, array.flat)), np.uint8)


def deserialize_bytes_tensor(encoded: bytes) -> np.ndarray:
    """The elements of a tensor of text in the form of the wire, as a flat array of ``bytes``."""
    elements, position = [], 0
    while position < len(encoded):
        end = position + 4 + int.from_bytes(encoded[position : position + 4], "little")
        elements.append(bytes(encoded[position + 4 : end]))
        position = end
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def get_model_dir() -> str:
    """The folder of the model's version, in which its worker runs."""
    return str(_FOLDER)


def _bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


# Before the model can go elsewhere.
_FOLDER = Path.cwd()
_said: set[str] = set()


def _say_once(what: str) -> None:
    if what not in _said:
        _said.add(what)
        Logger.log_warn(f"{what}: a batch holds rows of several callers")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    _refuse(f"triton_python_backend_utils.{name}", "do without it, or serve this model from Triton")
