"""The protocol over HTTP: JSON with binary tensor data.

Reads calls, hands on HTTP requests and response parsers. Sends nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inferd import errors
from inferd.client.exchange import Exchange, InferCall
from inferd.client.generate import stream
from inferd.client.http import HttpRequest, HttpResponse, error_of, model_path
from inferd.client.tensors import Result, array_of
from inferd.types import DATATYPES

__all__ = ["Rest"]

_HEADER = "Inference-Header-Content-Length"


class Rest:
    """Encodes calls as HTTP requests."""

    describes_columns = True
    """Whether metadata includes input schemas."""

    def live(self) -> Exchange:
        """Query whether the server is live."""
        return _yes_or_no("v2/health/live")

    def ready(self) -> Exchange:
        """Query whether the server is ready."""
        return _yes_or_no("v2/health/ready")

    def model_ready(self, model: str, version: str) -> Exchange:
        """Query whether a model is ready."""
        return _yes_or_no(f"{model_path(model, version)}/ready")

    def server_metadata(self) -> Exchange:
        """Query the server's metadata."""
        return _get("v2")

    def metadata(self, model: str, version: str) -> Exchange:
        """Query a model's metadata."""
        return _get(model_path(model, version))

    def config(self, model: str, version: str) -> Exchange:
        """Query a model's configuration."""
        return _get(f"{model_path(model, version)}/config")

    def statistics(self, model: str, version: str) -> Exchange:
        """Query a model's statistics."""
        return _get(f"{model_path(model, version)}/stats")

    def infer(self, call: InferCall) -> Exchange:
        """Run one inference."""
        head: dict[str, Any] = {
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(tensor.raw), **tensor.parameters},
                }
                for tensor in call.inputs
            ]
        }
        if call.id:
            head["id"] = call.id
        parameters = dict(call.parameters)
        if call.outputs:
            head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in call.outputs]
        else:
            parameters["binary_data_output"] = True

        def request(remaining_s: float | None) -> HttpRequest:
            timed = dict(parameters)
            headers = dict(call.headers)
            if remaining_s is not None:
                timed["timeout"] = max(1, int(remaining_s * 1e6))
            if timed:
                head["parameters"] = timed
            text = json.dumps(head).encode()
            headers |= {"Content-Type": "application/octet-stream", _HEADER: str(len(text))}
            body = b"".join([text, *(tensor.raw for tensor in call.inputs)])
            return HttpRequest("POST", f"{model_path(call.model, call.version)}/infer", headers, body)

        return Exchange(request, _read_result)

    def stream(self, call: InferCall) -> Exchange:
        """Run one inference with any number of responses."""
        return stream(call)


def _get(path: str) -> Exchange:
    return Exchange(lambda _: HttpRequest("GET", path, {}, None), _read_json)


def _yes_or_no(path: str) -> Exchange:
    # Triton responds with 400 for a model that is not ready.
    def read(response: HttpResponse) -> bool:
        if response.status not in (200, 400, 404, 503):
            raise error_of(response)
        return response.status == 200

    return Exchange(lambda _: HttpRequest("GET", path, {}, None), read)


def _read_json(response: HttpResponse) -> Any:
    if response.status != 200:
        raise error_of(response)
    try:
        return json.loads(response.body)
    except ValueError as fault:
        raise errors.InternalError(f"the server's response is not JSON: {fault}") from None


def _read_result(response: HttpResponse) -> Result:
    if response.status != 200:
        raise error_of(response)
    length = response.headers.get(_HEADER)
    split = len(response.body) if length is None else int(length)
    try:
        head = json.loads(response.body[:split])
        outputs = _outputs(head["outputs"], memoryview(response.body)[split:])
    except (ValueError, KeyError, TypeError) as fault:
        raise errors.InternalError(f"invalid response from the server: {fault!r}") from None
    return Result(
        outputs,
        head.get("model_name", ""),
        str(head.get("model_version", "")),
        head.get("id", ""),
        head.get("parameters", {}),
    )


def _outputs(described: list[dict[str, Any]], raw: memoryview) -> dict[str, np.ndarray]:
    outputs = {}
    for tensor in described:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _from_json(tensor)
        else:
            outputs[tensor["name"]] = array_of(tensor["datatype"], tensor["shape"], raw[:size])
            raw = raw[size:]
    return outputs


def _from_json(tensor: dict[str, Any]) -> np.ndarray:
    if tensor["datatype"] == "BYTES":
        flat = np.asarray(tensor["data"], dtype=object).reshape(-1)
        array = np.empty(len(flat), dtype=object)
        array[:] = [element.encode() if isinstance(element, str) else element for element in flat]
        return array.reshape(tensor["shape"])
    return np.asarray(tensor["data"], dtype=DATATYPES[tensor["datatype"]]).reshape(tensor["shape"])
