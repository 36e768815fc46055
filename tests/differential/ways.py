"""Every way in which a served model can be asked.

Reads rows from :mod:`differential.rows`, hands on :class:`Reply`. Knows nothing of what is right.
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import httpx
import ml_dtypes
import numpy as np

import inferd
from differential.rows import Questions, Sent, datatype_of, listed
from inferd.client.grpc import messages
from inferd.errors import InferdError, InvalidInput
from inferd.types import DATATYPES, MISSING
from outside.traffic import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["WAYS", "Asker", "Got", "Reply", "Way"]

_LENGTH = struct.Struct("<I")
_TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class Got:
    """One output. ``datatype`` is ``None`` where the way does not tell it; ``array`` then holds what JSON has."""

    array: np.ndarray
    datatype: str | None

    @classmethod
    def of(cls, array: np.ndarray) -> Got:
        """An output that is an array of this process."""
        return cls(array, datatype_of(array.dtype))


@dataclass(frozen=True)
class Reply:
    """What came back: outputs; or a refusal (HTTP 400, ``INVALID_ARGUMENT``); or a fault that is neither."""

    outputs: dict[str, Got] = field(default_factory=dict)
    refusal: str | None = None
    fault: str | None = None

    def __str__(self) -> str:
        return f"refused: {self.refusal}" if self.refusal is not None else self.fault or str(self.outputs)


class Asker:
    """Asks one model of a server. A context manager: it holds connections.

    Args:
        server: running.
        model: the name that it is served by.
        questions: the rows.
        random: orders the columns of clients' frames.
    """

    def __init__(self, server: inferd.Server, model: str, questions: Questions, random: np.random.Generator) -> None:
        self._address = server.address
        self._path = f"/v2/models/{model}/infer"
        self._model = model
        self._questions = questions
        self._random = random
        # Reading certificates, which are not needed here, takes longer than some hundred requests.
        self._http = httpx.Client(base_url=server.url, timeout=60, verify=False)
        self._channel = grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)])
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages()["inference.ModelInferResponse"].FromString,
        )
        self._clients = [inferd.Client(server.url), inferd.Client(f"grpc://{server.address}")]
        self._url = server.url

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._channel.close()
        for client in self._clients:
            client.close()

    def json(self, index: Sequence[int]) -> Reply:
        """``/v2`` in JSON, in the types that the rows have."""
        tensors = self._questions.tensors(index, own=True)
        inputs = [
            {"name": one.name, "datatype": one.datatype, "shape": one.array.shape, "data": listed(one)}
            for one in tensors
        ]
        return _read_http(self._http.post(self._path, content=json.dumps({"inputs": inputs}).encode()))

    def binary(self, index: Sequence[int]) -> Reply:
        """``/v2`` in binary, in the model's types."""
        body, headers = _binary(self._questions.tensors(index))
        return _read_http(self._http.post(self._path, content=body, headers=headers))

    def grpc_raw(self, index: Sequence[int]) -> Reply:
        """``ModelInfer`` in raw contents, in the types that the rows have."""
        request = self._message(tensors := self._questions.tensors(index, own=True))
        request.raw_input_contents.extend(_raw(one) for one in tensors)
        return self._by_grpc(request)

    def grpc_typed(self, index: Sequence[int]) -> Reply:
        """``ModelInfer`` in typed contents, in the model's types."""
        request = self._message(tensors := self._questions.tensors(index))
        for described, one in zip(request.inputs, tensors, strict=True):
            getattr(described.contents, _TYPED[one.datatype]).extend(one.array.reshape(-1).tolist())
        return self._by_grpc(request)

    def plain(self, index: Sequence[int]) -> Reply:
        """``/models/NAME``: records of a table, else values."""
        answer = self._http.post(f"/models/{self._model}", content=json.dumps(self._questions.plain(index)))
        if answer.status_code != 200:
            return _refusal(answer.status_code, answer.text)
        found = answer.json()
        # The only output has no name there.
        by_name = found if isinstance(found, dict) else {"": found}
        return Reply({name: Got(_objects(value), None) for name, value in by_name.items()})

    def client(self, index: Sequence[int]) -> Reply:
        """``inferd.Client`` over HTTP, the frame's columns in any order."""
        return self._by_client(self._clients[0].infer, index)

    def client_grpc(self, index: Sequence[int]) -> Reply:
        """``inferd.Client`` over gRPC, the frame's columns in any order."""
        return self._by_client(self._clients[1].infer, index)

    def client_async(self, index: Sequence[int]) -> Reply:
        """``inferd.AsyncClient``."""

        async def infer(model: str, inputs: Any) -> Any:
            async with inferd.AsyncClient(self._url) as client:
                return await client.infer(model, inputs)

        return self._by_client(lambda model, inputs: asyncio.run(infer(model, inputs)), index)

    def rows(self, index: Sequence[int], callers: int) -> list[Reply]:
        """Every row in a request of its own, over ``/v2`` in binary: one after the other, or many callers at once."""
        requests = [_binary(self._questions.tensors([row])) for row in index]

        async def every() -> list[Reply]:
            left = iter(enumerate(requests))
            replies: dict[int, Reply] = {}

            async def caller() -> None:
                connection = Connection(self._address)
                for number, (body, headers) in left:
                    answer = await connection.post(self._path, body, number, headers)
                    length = answer.headers.get("inference-header-content-length")
                    replies[number] = _read_v2(answer.status, answer.body, length)
                connection.close()

            await asyncio.gather(*(caller() for _ in range(callers)))
            return [replies[number] for number in range(len(requests))]

        return asyncio.run(every())

    def _message(self, tensors: list[Sent]) -> Any:
        request = messages()["inference.ModelInferRequest"](model_name=self._model)
        for one in tensors:
            request.inputs.add(name=one.name, datatype=one.datatype, shape=one.array.shape)
        return request

    def _by_grpc(self, request: Any) -> Reply:
        try:
            answer = self._infer(request, timeout=60)
        except grpc.RpcError as fault:
            refused = fault.code() == grpc.StatusCode.INVALID_ARGUMENT
            return _refusal(400 if refused else 0, f"{fault.code().name}: {fault.details()}")
        return Reply(
            {
                one.name: Got(_array(one.datatype, one.shape, raw), one.datatype)
                for one, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
            }
        )

    def _by_client(self, infer: Callable[[str, Any], Any], index: Sequence[int]) -> Reply:
        questions = self._questions
        if questions.is_frame:
            inputs = questions.subset(index)
            if not questions.by_position:
                inputs = inputs[self._random.permutation(inputs.columns)]
        else:
            inputs = {one.name: one.array for one in questions.tensors(index, own=True)[::-1]}
        try:
            found = infer(self._model, inputs)
        except InvalidInput as fault:
            return Reply(refusal=str(fault))
        except InferdError as fault:
            return Reply(fault=f"{type(fault).__name__}: {fault}")
        return Reply({name: Got.of(array) for name, array in found.outputs.items()})


class Way(NamedTuple):
    """One way to ask."""

    ask: Callable[[Asker, Sequence[int]], Reply]
    says: Callable[[Sent], bool]
    """Whether a tensor can be said in it."""
    own: bool
    """Whether it says the rows in their own types: those that the model's types don't hold can be refused."""
    gives: Callable[[np.ndarray], bool] = lambda _: True
    """Whether an output can be said in it."""


def _json_says(sent: Sent) -> bool:
    if sent.datatype == "BYTES":
        try:
            listed(sent)
        except UnicodeDecodeError:
            return False
    return sent.datatype != "BF16"


def _plain_says(sent: Sent) -> bool:
    finite = sent.array.dtype.kind != "f" or not np.isinf(sent.array).any()
    return finite and _json_says(sent)


def _typed_says(sent: Sent) -> bool:
    missing = sent.datatype == "BYTES" and any(one is None for one in sent.array.reshape(-1))
    return sent.datatype in _TYPED and not missing


WAYS = {
    "/v2 JSON": Way(Asker.json, _json_says, own=True, gives=lambda array: _json_says(Sent.of("", array))),
    "/v2 binary": Way(Asker.binary, lambda sent: sent.typed, own=False),
    "gRPC raw": Way(Asker.grpc_raw, lambda sent: sent.typed, own=True),
    "gRPC typed": Way(Asker.grpc_typed, _typed_says, own=False),
    "/models": Way(Asker.plain, _plain_says, own=False),
    "Client": Way(Asker.client, lambda _: True, own=True),
    "Client over gRPC": Way(Asker.client_grpc, lambda _: True, own=True),
}


def _binary(tensors: list[Sent]) -> tuple[bytes, dict[str, str]]:
    raws = [_raw(one) for one in tensors]
    inputs = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": one.array.shape,
            "parameters": {"binary_data_size": len(raw)},
        }
        for one, raw in zip(tensors, raws, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return b"".join([head, *raws]), headers


def _raw(sent: Sent) -> bytes:
    if sent.datatype != "BYTES":
        return sent.array.tobytes()
    return b"".join(
        _LENGTH.pack(MISSING) if one is None else _LENGTH.pack(len(one)) + one for one in sent.array.reshape(-1)
    )


def _refusal(status: int, message: str) -> Reply:
    return Reply(refusal=message) if status == 400 else Reply(fault=f"{status} {message}")


def _read_http(answer: httpx.Response) -> Reply:
    return _read_v2(answer.status_code, answer.content, answer.headers.get("inference-header-content-length"))


def _read_v2(status: int, body: bytes, length: str | None) -> Reply:
    if status != 200:
        return _refusal(status, body.decode(errors="replace"))
    split = len(body) if length is None else int(length)
    raw = memoryview(body)[split:]
    outputs = {}
    for one in json.loads(body[:split])["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = _from_json(one)
        else:
            array, raw = _array(one["datatype"], one["shape"], raw[:size]), raw[size:]
        outputs[one["name"]] = Got(array, one["datatype"])
    return Reply(outputs)


def _from_json(tensor: dict[str, Any]) -> np.ndarray:
    if tensor["datatype"] != "BYTES":
        return np.array(tensor["data"], DATATYPES[tensor["datatype"]]).reshape(tensor["shape"])
    array = np.empty(len(tensor["data"]), object)
    array[:] = [one.encode() if isinstance(one, str) else one for one in tensor["data"]]
    return array.reshape(tensor["shape"])


def _array(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> np.ndarray:
    if datatype == "BF16":
        return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(shape)
    if datatype != "BYTES":
        return np.frombuffer(raw, DATATYPES[datatype]).reshape(shape)
    elements, position = [], 0
    while position < len(raw):
        (size,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        elements.append(bytes(raw[position : position + size]))
        position += size
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _objects(value: Any) -> np.ndarray:
    """Nested lists as an array of what is in them."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    array = np.empty(shape, object)
    flat = [value] if not shape else value
    for _ in shape[1:]:
        flat = [one for nested in flat for one in nested]
    array.reshape(-1)[:] = flat
    return array
