"""The bytes that are sent to each kind of server for one row, and how its answer is read.

Reads rows of a reference, hands on requests. Knows nothing of processes or load generators.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Reference:
    """Rows for a model, and what ONNX Runtime answers to each."""

    input: str
    datatype: str
    shape: list[int]
    output: str
    rows: list[list[float]]
    answers: list[list[float]]

    @staticmethod
    def read(text: str) -> Reference:
        return Reference(**json.loads(text))


@dataclass(frozen=True)
class Request:
    """One POST, ready to be sent again and again."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    others: tuple[bytes, ...] = ()
    """Bodies that are sent in turn with `body`, where one is not enough."""


def v2_json(reference: Reference, model: str, row: int = 0) -> Request:
    """The Open Inference Protocol, JSON both ways."""
    tensor = {
        "name": reference.input,
        "shape": [1, *reference.shape],
        "datatype": reference.datatype,
        "data": reference.rows[row],
    }
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Request(f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"})


def v2_binary(reference: Reference, model: str, row: int = 0) -> Request:
    """The Open Inference Protocol with its binary tensor extension, both ways: what `tritonclient` sends."""
    raw = raw_row(reference, row)
    tensor = {
        "name": reference.input,
        "shape": [1, *reference.shape],
        "datatype": reference.datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(f"/v2/models/{model}/infer", head + raw, headers)


def plain_json(reference: Reference, path: str, row: int = 0) -> Request:
    """Nothing but a list of numbers."""
    body = json.dumps(reference.rows[row], separators=(",", ":")).encode()
    return Request(path, body, {"Content-Type": "application/json"})


def plain_raw(reference: Reference, path: str, row: int = 0) -> Request:
    """Nothing but the tensor's bytes."""
    return Request(path, raw_row(reference, row), {"Content-Type": "application/octet-stream"})


def raw_row(reference: Reference, row: int) -> bytes:
    assert reference.datatype == "FP32", "the models of the benchmarks take FP32"
    return struct.pack(f"<{len(reference.rows[row])}f", *reference.rows[row])


def grpc_body(reference: Reference, model: str, row: int = 0) -> bytes:
    """A length-prefixed `ModelInferRequest`, written by hand so that the harness needs no package.

    Field numbers are those of `inference.ModelInferRequest`: 1 model_name, 5 inputs, 7 raw_input_contents; of an
    input tensor: 1 name, 2 datatype, 3 shape.
    """
    shape = b"".join(varint(size) for size in [1, *reference.shape])
    tensor = delimited(1, reference.input.encode()) + delimited(2, reference.datatype.encode()) + delimited(3, shape)
    message = delimited(1, model.encode()) + delimited(5, tensor) + delimited(7, raw_row(reference, row))
    return b"\0" + struct.pack(">I", len(message)) + message


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(field_number: int, content: bytes) -> bytes:
    return varint(field_number << 3 | 2) + varint(len(content)) + content


def read_v2(body: bytes, header_length: str | None) -> list[float]:
    """The values of the one output of a V2 answer, JSON or binary."""
    if header_length is None:
        return flatten(json.loads(body)["outputs"][0]["data"])
    return unpack_floats(body[int(header_length) :])


def unpack_floats(raw: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def flatten(data: Any) -> list[float]:
    return [value for item in data for value in flatten(item)] if isinstance(data, list) else [data]


def _quoted(body: bytes) -> str:
    return "".join(f"\\{byte:03d}" for byte in body)


def _in_turn(request: Request) -> str:
    """Requests that are built before the load begins, one for each body."""
    if not request.others:
        return ""
    bodies = ", ".join(f'"{_quoted(body)}"' for body in (request.body, *request.others))
    return f"""
local bodies, ready, turn = {{{bodies}}}, {{}}, 0
init = function()
  for place, body in ipairs(bodies) do ready[place] = wrk.format(nil, nil, nil, body) end
end
request = function()
  turn = turn % #ready + 1
  return ready[turn]
end
"""


def write_lua(request: Request, path: Path) -> None:
    """A wrk script that sends `request` and prints what wrk saw as one line of JSON.

    Where there is one body, wrk builds its bytes once and no Lua runs while it measures.
    """
    body = _quoted(request.body)
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in request.headers.items())
    path.write_text(
        f'wrk.method = "POST"\nwrk.path = "{request.path}"\nwrk.body = "{body}"\n{headers}'
        + _in_turn(request)
        + """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "seconds": %.6f, "errors": %d, "p50_s": %.7f, "p99_s": %.7f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""
    )
