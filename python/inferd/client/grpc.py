"""The protocol over gRPC.

Reads calls, hands on messages and response parsers. Sends nothing. Message classes are built at run time from the data
plane's protocol description: there is no generated code.
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
# gRPC status codes.
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
    """A call of one method."""

    method: str
    message: Any
    metadata: tuple[tuple[str, str], ...] = ()


@cache
def messages() -> dict[str, Any]:
    """Return the protocol's message classes by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    from inferd import _native

    described = descriptor_pb2.FileDescriptorSet.FromString(_native.PROTOCOL)
    # A separate pool: other clients in this process may have registered the same names.
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    names = [f"{file.package}.{message.name}" for file in described.file for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def method_path(method: str) -> str:
    """Return the HTTP/2 path of a method."""
    return f"/{_SERVICE}/{method}"


def error_of(code: int, message: str) -> errors.InferdError:
    """Return the exception for a gRPC status."""
    return _CLASSES.get(code, errors.InternalError)(message or f"gRPC status {code}")


class Grpc:
    """Encodes calls as messages."""

    describes_columns = False
    """Whether metadata includes input schemas. gRPC metadata has no field for them; the configuration has."""

    def live(self) -> Exchange:
        """Query whether the server is live."""
        return _call("ServerLive", {}, lambda response: bool(response.live))

    def ready(self) -> Exchange:
        """Query whether the server is ready."""
        return _call("ServerReady", {}, lambda response: bool(response.ready))

    def model_ready(self, model: str, version: str) -> Exchange:
        """Query whether a model is ready."""
        return _call("ModelReady", {"name": model, "version": version}, lambda response: bool(response.ready))

    def server_metadata(self) -> Exchange:
        """Query the server's metadata."""
        return _call("ServerMetadata", {}, _plain)

    def metadata(self, model: str, version: str) -> Exchange:
        """Query a model's metadata."""
        return _call("ModelMetadata", {"name": model, "version": version}, _described)

    def config(self, model: str, version: str) -> Exchange:
        """Query a model's configuration."""
        return _call("ModelConfig", {"name": model, "version": version}, lambda response: _plain(response)["config"])

    def statistics(self, model: str, version: str) -> Exchange:
        """Query a model's statistics."""
        return _call("ModelStatistics", {"name": model, "version": version}, _plain)

    def infer(self, call: InferCall) -> Exchange:
        """Run one inference."""
        metadata = tuple((name.lower(), value) for name, value in call.headers.items())
        return Exchange(lambda left_s: GrpcRequest("ModelInfer", _message(call, left_s), metadata), _read_result)

    def stream(self, call: InferCall) -> Exchange:
        """Run one inference with any number of responses."""
        metadata = tuple((name.lower(), value) for name, value in call.headers.items())
        return Exchange(
            lambda left_s: GrpcRequest("ModelStreamInfer", _message(call, left_s), metadata), _read_streamed
        )


def _message(call: InferCall, remaining_s: float | None) -> Any:
    """Return the ``ModelInferRequest`` of a call with the remaining time."""
    request = messages()["inference.ModelInferRequest"](model_name=call.model, model_version=call.version, id=call.id)
    for tensor in call.inputs:
        added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            _set_parameter(added.parameters[name], value)
        request.raw_input_contents.append(tensor.raw)
    for name in call.outputs:
        request.outputs.add(name=name)
    parameters = dict(call.parameters)
    if remaining_s is not None:
        parameters["timeout"] = max(1, int(remaining_s * 1e6))
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


def _read_result(response: Any) -> Result:
    """Return the result of a ``ModelInferResponse``."""
    outputs = {}
    for position, tensor in enumerate(response.outputs):
        if len(response.raw_output_contents) <= position:
            raise errors.InternalError(f"the server sent output '{tensor.name}' without raw contents")
        outputs[tensor.name] = array_of(tensor.datatype, tuple(tensor.shape), response.raw_output_contents[position])
    parameters = {name: _parameter(value) for name, value in response.parameters.items()}
    return Result(outputs, response.model_name, response.model_version, response.id, parameters)


def _read_streamed(response: Any) -> Result:
    """Return one response of a stream; raises the error that it carries, with its status if given."""
    if response.error_message:
        parameters = response.infer_response.parameters
        code = parameters["status"].int64_param if "status" in parameters else 13
        raise error_of(code, response.error_message)
    return _read_result(response.infer_response)


def _parameter(value: Any) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return None if kind is None else getattr(value, kind)


def _call(method: str, fields: dict[str, str], read: Callable[[Any], Any]) -> Exchange:
    def request(_: float | None) -> GrpcRequest:
        return GrpcRequest(method, messages()[f"inference.{method}Request"](**fields))

    return Exchange(request, read)


def _described(message: Any) -> dict[str, Any]:
    """Return metadata as JSON with numeric dimensions; protobuf's own mapping makes them text."""
    plain = _plain(message)
    for tensor in (*plain.get("inputs", ()), *plain.get("outputs", ())):
        tensor["shape"] = [int(dim) for dim in tensor.get("shape", ())]
    return plain


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return plain
