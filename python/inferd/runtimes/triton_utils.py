"""The module ``triton_python_backend_utils``, which models for Triton's Python backend import.

Used by the operator's code in a worker, and by :mod:`inferd.runtimes.triton`, which registers it under that name. Knows
nothing of the wire and of batching.
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

# In the order of Triton's type numbers, which start at 1.
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
    """Part of Triton's Python backend that inferd does not support."""


def _refuse(what: str, remedy: str) -> NoReturn:
    raise NotServed(f"{what} is not supported by inferd\nhelp: {remedy}")


def _refuse_bls(what: str) -> NoReturn:
    _refuse(
        f"{what} (business logic scripting)",
        "combine the models in a pipeline: ensemble_scheduling in config.pbtxt, or pipelines: in inferd.yaml",
    )


class TritonModelException(Exception):
    """Raised by a model that can't serve a request. The client sees the message."""


class TritonError:
    """The error of a request. The client sees the message.

    Args:
        message: what failed.
        code: one of the codes below; INVALID_ARG: the request is invalid.
    """

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """Return the message."""
        return self._message

    def code(self) -> int:
        """Return the code."""
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
        """Return its name."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Return its elements."""
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Return its dimensions."""
        return self._array.shape

    def triton_dtype(self) -> int:
        """Return Triton's number of its type."""
        return numpy_to_triton_type(self._array.dtype.type)

    def is_cpu(self) -> bool:
        """Return True: tensors are in host memory."""
        return True

    def to_dlpack(self) -> NoReturn:
        """Not supported."""
        _refuse("Tensor.to_dlpack()", "use as_numpy(), from which torch.from_numpy() makes no copy")

    @staticmethod
    def from_dlpack(name: str, tensor: object) -> NoReturn:  # noqa: ARG004 (Triton's form)
        """Not supported."""
        _refuse("Tensor.from_dlpack()", f"use Tensor('{name}', array) with a numpy array: tensor.cpu().numpy()")


class InferenceRequest:
    """The argument of ``execute``: one batch with rows of one or more callers, or one request of a sequence."""

    def __init__(
        self,
        *,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        context: Context | None = None,
        **other: Any,
    ) -> None:
        if other:
            _refuse_bls(f"InferenceRequest({', '.join(other)})")
        self._inputs = list(inputs)
        self._outputs = list(requested_output_names)
        self._context = context

    def inputs(self) -> list[Tensor]:
        """Return its tensors."""
        return self._inputs

    def requested_output_names(self) -> list[str]:
        """Return all outputs: callers in a batch may request different ones."""
        return self._outputs

    def request_id(self) -> str:
        """Return the id of a request of a sequence; empty for a batch, which has several."""
        if self._context is None:
            _warn_once("request.request_id() is always empty")
            return ""
        return self._context.id

    def parameters(self) -> str:
        """Return the parameters of a request of a sequence; empty for a batch."""
        if self._context is None:
            _warn_once("request.parameters() is always empty")
            return "{}"
        return json.dumps(dict(self._context.parameters))

    def correlation_id(self) -> int | str:
        """Return the sequence's id; 0 without a sequence."""
        position = self._context and self._context.sequence
        return position.id if position else 0

    def flags(self) -> int:
        """Return whether it starts or ends its sequence, as a sum of this module's flags."""
        position = self._context and self._context.sequence
        if not position:
            return 0
        start, end = TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
        return start * position.start + end * position.end

    def timeout(self) -> int:
        """Return 0: expired requests are not run."""
        return 0

    def priority(self) -> int:
        """Return 0: the server orders requests."""
        return 0

    def is_cancelled(self) -> bool:
        """Return whether its caller has cancelled; False for a batch."""
        return self._context is not None and self._context.cancelled

    def exec(self, decoupled: bool = False) -> NoReturn:  # noqa: ARG002 (Triton's form)
        """Not supported."""
        _refuse_bls("InferenceRequest.exec()")

    def async_exec(self, decoupled: bool = False) -> NoReturn:  # noqa: ARG002 (Triton's form)
        """Not supported."""
        _refuse_bls("InferenceRequest.async_exec()")

    def get_response_sender(self) -> NoReturn:
        """Not supported."""
        _refuse(
            "InferenceRequest.get_response_sender() (decoupled models)",
            "return one response per request from execute()",
        )


class InferenceResponse:
    """The response of ``execute`` to one request.

    Args:
        output_tensors: the outputs.
        error: the error, if any.
    """

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | str | None = None) -> None:
        self._outputs = list(output_tensors)
        self._error = TritonError(error) if isinstance(error, str) else error

    def output_tensors(self) -> list[Tensor]:
        """Return the outputs."""
        return self._outputs

    def has_error(self) -> bool:
        """Return whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Return the error."""
        return self._error


class Logger:
    """Writes to the server's log through the worker's stderr."""

    INFO, WARNING, ERROR, VERBOSE = "info", "warning", "error", "verbose"

    @classmethod
    def log(cls, message: str, level: str = INFO) -> None:
        """Log ``message``."""
        sys.stderr.write(f"{level}: {message}\n")

    @classmethod
    def log_info(cls, message: str) -> None:
        """Log ``message``."""
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """Log ``message``."""
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        """Log ``message``."""
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """Do nothing: Triton's verbose log is off by default."""


class ModelConfig:
    """The configuration that ``auto_complete_config`` completes.

    Args:
        config: the initial configuration; copied.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config: dict[str, Any] = json.loads(json.dumps(config))

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration."""
        return self._config

    def add_input(self, tensor: dict[str, Any]) -> None:
        """Add or complete the input of this name, with ``name``, ``data_type`` and ``dims``."""
        self._add("input", tensor)

    def add_output(self, tensor: dict[str, Any]) -> None:
        """Add or complete the output of this name, with ``name``, ``data_type`` and ``dims``."""
        self._add("output", tensor)

    def set_max_batch_size(self, rows: int) -> None:
        """Set the maximum rows of a request; 0: no batch dimension."""
        configured = self._config.get("max_batch_size", 0)
        if configured > rows:
            raise ValueError(f"max_batch_size is {configured} in config.pbtxt, but auto_complete_config says {rows}")
        self._config["max_batch_size"] = rows

    def set_dynamic_batching(self) -> None:
        """Allow rows of several callers in a batch."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, policy: dict[str, bool]) -> None:
        """Refuse decoupled models: inferd supports one response per request."""
        if policy.get("decoupled"):
            _refuse("A decoupled model", "return one response per request from execute()")

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
    """Return the input ``name`` of a request; None if absent."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """Return the output ``name`` of a response; None if absent."""
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the configuration of the input ``name``; None if absent."""
    return next((one for one in model_config.get("input", []) if one["name"] == name), None)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the configuration of the output ``name``; None if absent."""
    return next((one for one in model_config.get("output", []) if one["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Return whether a configuration is decoupled: several responses per request."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(name: str) -> Any:
    """Return the numpy type of a name such as ``TYPE_FP32``."""
    return _TYPES[name]


def triton_to_numpy_type(number: int) -> Any:
    """Return the numpy type of Triton's type number."""
    return list(_TYPES.values())[number - 1]


def numpy_to_triton_type(dtype: Any) -> int:
    """Return Triton's type number of a numpy type."""
    kind = np.dtype(dtype)
    name = np.object_ if kind.kind in "SUO" else kind.type
    return list(_TYPES.values()).index(name) + 1


def serialize_byte_tensor(array: np.ndarray) -> np.ndarray:
    """Encode an array of text in the wire format: each element prefixed by its length."""
    return np.frombuffer(b"".join(len(data).to_bytes(4, "little") + data for data in map(_bytes, array.flat)), np.uint8)


def deserialize_bytes_tensor(encoded: bytes) -> np.ndarray:
    """Decode a text tensor in the wire format to a flat array of ``bytes``."""
    elements, position = [], 0
    while position < len(encoded):
        end = position + 4 + int.from_bytes(encoded[position : position + 4], "little")
        elements.append(bytes(encoded[position + 4 : end]))
        position = end
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def get_model_dir() -> str:
    """Return the folder of the model's version, in which its worker runs."""
    return str(_FOLDER)


def _bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


# Before the model can change the directory.
_FOLDER = Path.cwd()
_warned: set[str] = set()


def _warn_once(what: str) -> None:
    if what not in _warned:
        _warned.add(what)
        Logger.log_warn(f"{what}: a batch has rows of several callers")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    _refuse(f"triton_python_backend_utils.{name}", "avoid it, or serve this model from Triton")
