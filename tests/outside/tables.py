"""Models of tables as Python classes, and one request in every form that the protocols have.

Hands on files, and for each form the outputs or the refusal. Knows nothing of what is right.
"""

from __future__ import annotations

import json
import math
import struct
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import httpx
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from inferd.types import DATATYPES, MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MODEL = '''
import numpy as np

from inferd import InputSchema, TensorSpec


class Table:
    """Gives back what it gets: numbers as they are, text as text, "?" where it is missing."""

    inputs = {inputs}
    outputs = {outputs}
    schemas = {schemas}
    ignored_columns = {ignored}

    def load(self):
        pass

    def predict(self, batch):
        texts = np.frompyfunc(lambda text: b"?" if text is None else text, 1, 1)
        given = {{"got " + name: values for name, values in batch.items()}}
        return {{name: texts(values) if values.dtype == object else values.copy() for name, values in given.items()}}
'''


def table(path: Path, inputs: Sequence[tuple[str, str, tuple[int, ...]]], **known: Any) -> Path:
    """A model that gives back each input ``NAME`` as ``got NAME``.

    Args:
        path: of the file.
        inputs: names, datatypes, shapes.
        known: ``schemas``, as the text of Python, and ``ignored``, names.
    """
    specs = [f"TensorSpec({name!r}, {datatype!r}, {shape!r})" for name, datatype, shape in inputs]
    given = [f"TensorSpec({'got ' + name!r}, {datatype!r}, {shape!r})" for name, datatype, shape in inputs]
    text = MODEL.format(
        inputs=f"[{', '.join(specs)}]",
        outputs=f"[{', '.join(given)}]",
        schemas=f"[{', '.join(known.get('schemas', ()))}]",
        ignored=repr(list(known.get("ignored", ()))),
    )
    path.write_text(text)
    return path


@dataclass
class Tensor:
    """One input; a missing text is ``None``."""

    name: str
    datatype: str
    values: Any
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def array(self) -> np.ndarray:
        """The values, of numpy's type; BF16 as its bits."""
        if self.datatype == "BF16":
            return (np.asarray(self.values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return np.array(self.values, DATATYPES[self.datatype])

    @property
    def raw(self) -> bytes:
        """The protocol's raw form."""
        if self.datatype != "BYTES":
            return self.array.tobytes()
        texts = [None if text is None else text.encode() for text in self.array.reshape(-1)]
        return b"".join(
            struct.pack("<I", MISSING) if text is None else struct.pack("<I", len(text)) + text for text in texts
        )

    def json(self, **more: Any) -> dict[str, Any]:
        """As REST has it, without its data."""
        parameters = {**self.parameters, **more.pop("parameters", {})}
        said = {"name": self.name, "datatype": self.datatype, "shape": list(self.array.shape), **more}
        return {**said, "parameters": parameters} if parameters else said


class Answer(NamedTuple):
    """What came back: outputs, or the refusal."""

    status: int | grpc.StatusCode
    outputs: dict[str, Any]
    error: str | None = None


def of_http(answer: httpx.Response) -> Answer:
    """Outputs of REST, or why there are none."""
    if answer.status_code != 200:
        return Answer(answer.status_code, {}, answer.json()["error"])
    return Answer(200, {one["name"]: one["data"] for one in answer.json()["outputs"]})


def rest_json(address: str, model: str, *tensors: Tensor) -> Answer:
    """Values in JSON, NaN as null."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    inputs = [tensor.json(data=plain(np.asarray(tensor.values, object).tolist())) for tensor in tensors]
    return of_http(httpx.post(f"http://{address}/v2/models/{model}/infer", json={"inputs": inputs}, timeout=30))


def rest_binary(address: str, model: str, *tensors: Tensor) -> Answer:
    """Raw tensors behind the JSON."""
    inputs = [tensor.json(parameters={"binary_data_size": len(tensor.raw)}) for tensor in tensors]
    head = json.dumps({"inputs": inputs}).encode()
    body = head + b"".join(tensor.raw for tensor in tensors)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return of_http(httpx.post(f"http://{address}/v2/models/{model}/infer", content=body, headers=headers, timeout=30))


def grpc_raw(address: str, model: str, *tensors: Tensor) -> Answer:
    """``raw_input_contents``."""
    request = pb.ModelInferRequest(model_name=model, inputs=[_described(tensor) for tensor in tensors])
    request.raw_input_contents.extend(tensor.raw for tensor in tensors)
    return _called(address, request)


_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def grpc_typed(address: str, model: str, *tensors: Tensor) -> Answer:
    """Typed contents, which carry neither halves nor missing text."""
    request = pb.ModelInferRequest(model_name=model)
    for tensor in tensors:
        described = _described(tensor)
        values = tensor.array.reshape(-1).tolist()
        texts = [text.encode() for text in values] if tensor.datatype == "BYTES" else values
        getattr(described.contents, _FIELDS[tensor.datatype]).extend(texts)
        request.inputs.append(described)
    return _called(address, request)


def _described(tensor: Tensor) -> pb.ModelInferRequest.InferInputTensor:
    described = pb.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape
    )
    for name, value in tensor.parameters.items():
        described.parameters[name].string_param = value
    return described


def _called(address: str, request: pb.ModelInferRequest) -> Answer:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
        except grpc.RpcError as fault:
            return Answer(fault.code(), {}, fault.details())
    outputs = {}
    for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            outputs[output.name] = _texts(data)
        else:
            outputs[output.name] = np.frombuffer(data, DATATYPES[output.datatype]).tolist()
    return Answer(200, outputs)


def _texts(data: bytes) -> list[str]:
    texts = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return texts


def shared(address: str, model: str, tensor: Tensor) -> Answer:
    """One input in shared memory."""
    with _region(tensor.raw) as key:
        url, size = f"http://{address}/v2", len(tensor.raw)
        name = key.strip("/")
        place = {"key": key, "byte_size": size}
        assert httpx.post(f"{url}/systemsharedmemory/region/{name}/register", json=place).status_code == 200
        where = {"shared_memory_region": name, "shared_memory_byte_size": size}
        answer = httpx.post(f"{url}/models/{model}/infer", json={"inputs": [tensor.json(parameters=where)]})
        httpx.post(f"{url}/systemsharedmemory/region/{name}/unregister")
        return of_http(answer)


@contextmanager
def _region(data: bytes) -> Iterator[str]:
    object_ = Path("/dev/shm") / f"inferd-test-{uuid.uuid4().hex}"
    object_.write_bytes(data)
    try:
        yield f"/{object_.name}"
    finally:
        object_.unlink()


FORMS: dict[str, Callable[..., Answer]] = {
    "JSON": rest_json,
    "binary": rest_binary,
    "gRPC raw": grpc_raw,
    "gRPC typed": grpc_typed,
    "shared memory": shared,
}
"""Every form of a request of one tensor."""


def plain(address: str, path: str, body: Any) -> Any:
    """The answer to plain JSON, or the error's text."""
    content = json.dumps(body, allow_nan=False)
    answer = httpx.post(f"http://{address}{path}", content=content, timeout=30)
    said = answer.json()
    if answer.status_code == 200:
        return said
    assert answer.status_code == 400, answer.text
    return said["error"]
