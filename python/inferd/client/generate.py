"""Streaming over HTTP: the protocol's generate extension, with server-sent events.

Reads calls, hands on HTTP requests and event parsers. Sends nothing. The extension writes tensors as JSON without
shapes, which are taken from the model's metadata.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd import errors
from inferd.client.exchange import Exchange, InferCall
from inferd.client.http import HttpRequest, error_for, model_path
from inferd.client.tensors import Result, array_of, flat_array

if TYPE_CHECKING:
    from inferd.client.tensors import Tensor

__all__ = ["stream"]

# Fields of an event that are not outputs.
_HEAD = ("id", "model_name", "model_version", "parameters")


def stream(call: InferCall) -> Exchange:
    """Return the exchange for one request; each response is the data of one event.

    Raises:
        InvalidInput: an input can't be encoded as JSON.
    """
    values = {tensor.name: _plain(tensor) for tensor in call.inputs}
    specs = {spec.name: spec for spec in call.output_specs}

    def request(remaining_s: float | None) -> HttpRequest:
        parameters = dict(call.parameters)
        if remaining_s is not None:
            parameters["timeout"] = max(1, int(remaining_s * 1e6))
        head: dict[str, Any] = {"id": call.id} if call.id else {}
        if parameters:
            head["parameters"] = parameters
        headers = {**call.headers, "Content-Type": "application/json"}
        path = f"{model_path(call.model, call.version)}/generate_stream"
        return HttpRequest("POST", path, headers, json.dumps({**head, **values}).encode())

    def read(data: str) -> Result:
        try:
            event = json.loads(data)
            if "error" in event and "model_name" not in event:
                raise error_for(event.get("status", 500), str(event["error"]))
            outputs = {
                name: flat_array(value, specs.get(name))
                for name, value in event.items()
                if name in specs or name not in _HEAD
            }
        except (ValueError, TypeError) as fault:
            if isinstance(fault, errors.InferdError):
                raise
            raise errors.InternalError(f"invalid event from the server: {fault!r}") from None
        wanted = {name: outputs[name] for name in call.outputs if name in outputs} if call.outputs else outputs
        return Result(
            wanted,
            event.get("model_name", ""),
            str(event.get("model_version", "")),
            event.get("id", ""),
            event.get("parameters", {}),
        )

    return Exchange(request, read)


def _plain(tensor: Tensor) -> Any:
    if tensor.datatype == "BF16":
        raise errors.InvalidInput(f"input '{tensor.name}': BF16 can't be sent as JSON\nhelp: stream over grpc://")
    array = array_of(tensor.datatype, tensor.shape, tensor.raw)
    if tensor.datatype == "BYTES":
        try:
            texts = [None if element is None else element.decode() for element in array.reshape(-1)]
        except UnicodeDecodeError:
            raise errors.InvalidInput(
                f"input '{tensor.name}': text that is not UTF-8 can't be sent as JSON\nhelp: stream over grpc://"
            ) from None
        return np.array(texts, dtype=object).reshape(tensor.shape).tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        if np.isinf(array).any():
            raise errors.InvalidInput(
                f"input '{tensor.name}': infinity can't be sent as JSON\nhelp: stream over grpc://"
            )
        # JSON null represents a missing value.
        present = array.astype(object)
        present[np.isnan(array)] = None
        return present.tolist()
    return array.tolist()
