"""The protocol over HTTP: JSON heads with binary tensors behind them.

Reads calls, hands on requests of HTTP and what their answers mean. Sends nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inferd import errors
from inferd.client.exchange import Exchange, InferCall
from inferd.client.generate import stream
from inferd.client.http import HttpAnswer, HttpRequest, error_of, model_path
from inferd.client.tensors import Result, array_of
from inferd.types import DATATYPES

__all__ = ["Rest"]

_HEADER = "Inference-Header-Content-Length"


class Rest:
    """Calls as requests of HTTP."""

    describes_columns = True
    """Whether metadata has the columns of inputs and what they take."""

    def live(self) -> Exchange:
        """Whether the server runs."""
        return _yes_or_no("v2/health/live")

    def ready(self) -> Exchange:
        """Whether the server takes requests."""
        return _yes_or_no("v2/health/ready")

    def model_ready(self, model: str, version: str) -> Exchange:
        """Whether a model takes requests."""
        return _yes_or_no(f"{model_path(model, version)}/ready")

    def server_metadata(self) -> Exchange:
        """What the server is."""
        return _get("v2")

    def metadata(self, model: str, version: str) -> Exchange:
        """What a model takes and gives."""
        return _get(model_path(model, version))

    def config(self, model: str, version: str) -> Exchange:
        """A model's configuration."""
        return _get(f"{model_path(model, version)}/config")

    def statistics(self, model: str, version: str) -> Exchange:
        """What a model did so far."""
        return _get(f"{model_path(model, version)}/stats")

    def infer(self, call: InferCall) -> Exchange:
        """One inference."""
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

        def request(left_s: float | None) -> HttpRequest:
            timed = dict(parameters)
            headers = dict(call.headers)
            if left_s is not None:
                timed["timeout"] = max(1, int(left_s * 1e6))
            if timed:
                head["parameters"] = timed
            text = json.dumps(head).encode()
            headers |= {"Content-Type": "application/octet-stream", _HEADER: str(len(text))}
            body = b"".join([text, *(tensor.raw for tensor in call.inputs)])
            return HttpRequest("POST", f"{model_path(call.model, call.version)}/infer", headers, body)

        return Exchange(request, _read_result)

    def stream(self, call: InferCall) -> Exchange:
        """One inference with any number of answers."""
        return stream(call)


def _get(path: str) -> Exchange:
    return Exchange(lambda _: HttpRequest("GET", path, {}, None), _read_json)


def _yes_or_no(path: str) -> Exchange:
    # 400 is what Triton says of a model that is not ready.
    def read(answer: HttpAnswer) -> bool:
        if answer.status not in (200, 400, 404, 503):
            raise error_of(answer)
        return answer.status == 200

    return Exchange(lambda _: HttpRequest("GET", path, {}, None), read)


def _read_json(answer: HttpAnswer) -> Any:
    if answer.status != 200:
        raise error_of(answer)
    try:
        return json.loads(answer.body)
    except ValueError as fault:
        raise errors.InternalError(f"the server's answer is not JSON: {fault}") from None


def _read_result(answer: HttpAnswer) -> Result:
    if answer.status != 200:
        raise error_of(answer)
    length = answer.headers.get(_HEADER)
    split = len(answer.body) if length is None else int(length)
    try:
        head = json.loads(answer.body[:split])
        outputs = _outputs(head["outputs"], memoryview(answer.body)[split:])
    except (ValueError, KeyError, TypeError) as fault:
        raise errors.InternalError(f"the server's answer is not one of the protocol: {fault!r}") from None
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
