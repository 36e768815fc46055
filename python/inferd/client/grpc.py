"""The protocol over gRPC.

Reads calls, hands on messages and what their answers mean. Sends nothing. Messages are made at run time from the one
description of the protocol that the data plane has, too: there is no generated code.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd import errors
from inferd.client.exchange import Exchange, InferCall
from inferd.client.tensors import Result, array_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Grpc", "GrpcRequest", "error_of", "messages", "method_path"]

_SERVICE = "inference.GRPCInferenceService"
# Numbers of grpc-status.
_CLASSES: dict[int, type[errors.InferdError]] = {
    1: errors.Cancelled,
    3: errors.InvalidInput,
    4: errors.DeadlineMissed,
    5: errors.NotFound,
    7: errors.Forbidden,
    8: errors.RateLimited,
    9: errors.InvalidInput,
    11: errors.InvalidInput,
    12: errors.Unimplemented,
    13: errors.ModelFailed,
    14: errors.Unavailable,
    16: errors.Unauthenticated,
}


class GrpcRequest(NamedTuple):
    """One call of a method."""

    method: str
    message: Any
    metadata: tuple[tuple[str, str], ...] = ()


@cache
def messages() -> dict[str, Any]:
    """The protocol's messages by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    from inferd import _native

    described = descriptor_pb2.FileDescriptorSet.FromString(_native.PROTOCOL)
    # A pool of its own: other clients in this process may have registered messages of the same names.
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    names = [f"{file.package}.{message.name}" for file in described.file for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def method_path(method: str) -> str:
    """As HTTP/2 has it."""
    return f"/{_SERVICE}/{method}"


def error_of(code: int, message: str) -> errors.InferdError:
    """The exception for a status."""
    return _CLASSES.get(code, errors.InternalError)(message or f"gRPC status {code}")


class Grpc:
    """Calls as messages."""

    describes_columns = False
    """The messages of metadata have no place for what inputs take beside their types; a configuration's have."""

    def live(self) -> Exchange:
        """Whether the server runs."""
        return _call("ServerLive", {}, lambda answer: bool(answer.live))

    def ready(self) -> Exchange:
        """Whether the server takes requests."""
        return _call("ServerReady", {}, lambda answer: bool(answer.ready))

    def model_ready(self, model: str, version: str) -> Exchange:
        """Whether a model takes requests."""
        return _call("ModelReady", {"name": model, "version": version}, lambda answer: bool(answer.ready))

    def server_metadata(self) -> Exchange:
        """What the server is."""
        return _call("ServerMetadata", {}, _plain)

    def metadata(self, model: str, version: str) -> Exchange:
        """What a model takes and gives."""
        return _call("ModelMetadata", {"name": model, "version": version}, _described)

    def config(self, model: str, version: str) -> Exchange:
        """A model's configuration."""
        return _call("ModelConfig", {"name": model, "version": version}, lambda answer: _plain(answer)["config"])

    def statistics(self, model: str, version: str) -> Exchange:
        """What a model did so far."""
        return _call("ModelStatistics", {"name": model, "version": version}, _plain)

    def infer(self, call: InferCall) -> Exchange:
        """One inference."""
        metadata = tuple((name.lower(), value) for name, value in call.headers.items())
        return Exchange(lambda left_s: GrpcRequest("ModelInfer", _message(call, left_s), metadata), _read_result)

    def stream(self, call: InferCall) -> Exchange:
        """One inference with any number of answers."""
        metadata = tuple((name.lower(), value) for name, value in call.headers.items())
        return Exchange(
            lambda left_s: GrpcRequest("ModelStreamInfer", _message(call, left_s), metadata), _read_streamed
        )


def _message(call: InferCall, left_s: float | None) -> Any:
    """``ModelInferRequest`` for a call with so much time left."""
    request = messages()["inference.ModelInferRequest"](model_name=call.model, model_version=call.version, id=call.id)
    for tensor in call.inputs:
        added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            _set_parameter(added.parameters[name], value)
        request.raw_input_contents.append(tensor.raw)
    for name in call.outputs:
        request.outputs.add(name=name)
    parameters = dict(call.parameters)
    if left_s is not None:
        parameters["timeout"] = max(1, int(left_s * 1e6))
    for name, value in parameters.items():
        _set_parameter(request.parameters[name], value)
    return request


def _set_parameter(parameter: Any, value: Any) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = str(value)


def _read_result(answer: Any) -> Result:
    """The arrays of a ``ModelInferResponse``."""
    outputs = {}
    for position, tensor in enumerate(answer.outputs):
        if len(answer.raw_output_contents) <= position:
            raise errors.InternalError(f"the server sent output '{tensor.name}' in a form that is not read")
        outputs[tensor.name] = array_of(tensor.datatype, tuple(tensor.shape), answer.raw_output_contents[position])
    parameters = {name: _parameter(value) for name, value in answer.parameters.items()}
    return Result(outputs, answer.model_name, answer.model_version, answer.id, parameters)


def _read_streamed(answer: Any) -> Result:
    """One answer of a stream: a result, or an error with its code where the server says it."""
    if answer.error_message:
        parameters = answer.infer_response.parameters
        code = parameters["status"].int64_param if "status" in parameters else 13
        raise error_of(code, answer.error_message)
    return _read_result(answer.infer_response)


def _parameter(value: Any) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return None if kind is None else getattr(value, kind)


def _call(method: str, fields: dict[str, str], read: Callable[[Any], Any]) -> Exchange:
    def request(_: float | None) -> GrpcRequest:
        return GrpcRequest(method, messages()[f"inference.{method}Request"](**fields))

    return Exchange(request, read)


def _described(message: Any) -> dict[str, Any]:
    """Metadata as JSON has it: dimensions are numbers, where protobuf's own mapping makes them text."""
    plain = _plain(message)
    for tensor in (*plain.get("inputs", ()), *plain.get("outputs", ())):
        tensor["shape"] = [int(dim) for dim in tensor.get("shape", ())]
    return plain


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return plain
