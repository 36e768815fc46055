"""The four clients of tritonclient behind one face, so that one test speaks for all.

Reads an address, hands on answers in plain Python. Knows nothing of servers.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

KINDS = ("http", "http.aio", "grpc", "grpc.aio")
# What HTTP statuses are called in gRPC, as tritonclient shows both.
CODES = {
    400: "StatusCode.INVALID_ARGUMENT",
    404: "StatusCode.NOT_FOUND",
    501: "StatusCode.UNIMPLEMENTED",
    503: "StatusCode.UNAVAILABLE",
    504: "StatusCode.DEADLINE_EXCEEDED",
}


class Client:
    """One of the four clients; every call is synchronous and gives plain dictionaries and arrays."""

    def __init__(self, kind: str, address: str, **options: Any) -> None:
        self.kind = kind
        self.grpc = kind.startswith("grpc")
        self.module: ModuleType = tritonclient.grpc if self.grpc else tritonclient.http
        self._loop = asyncio.new_event_loop()
        aio = {"http.aio": tritonclient.http.aio, "grpc.aio": tritonclient.grpc.aio}
        maker = aio.get(kind, self.module).InferenceServerClient
        self.raw = self._settle(_in_loop(maker, address, options) if kind in aio else maker(address, **options))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.call("close")
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Whatever ``method`` gives, waited for."""
        return self._settle(getattr(self.raw, method)(*args, **kwargs))

    def describe(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What ``method`` gives, as JSON: gRPC names it the same way with ``as_json``."""
        return self.call(method, *args, **kwargs, **({"as_json": True} if self.grpc else {}))

    def input(self, name: str, array: np.ndarray, datatype: str, **options: Any) -> Any:
        made = self.module.InferInput(name, list(array.shape), datatype)
        made.set_data_from_numpy(array, **options)
        return made

    def output(self, name: str, **options: Any) -> Any:
        return self.module.InferRequestedOutput(name, **options)

    def infer(self, model: str, inputs: list[Any], **options: Any) -> Any:
        return self.call("infer", model, inputs, **options)

    def refusal(self, method: str, *args: Any, **kwargs: Any) -> tuple[int, str]:
        """The HTTP status (gRPC codes are turned into it) and the message of a call that must fail."""
        try:
            answer = self.call(method, *args, **kwargs)
        except InferenceServerException as fault:
            return self.status_of(fault), fault.message()
        raise AssertionError(f"{method} of {self.kind} was answered: {answer}")

    def status_of(self, fault: InferenceServerException) -> int:
        if self.grpc:
            return next(status for status, code in CODES.items() if code == fault.status())
        assert fault.status() is not None, f"no status: {fault}"
        return int(fault.status())

    def _settle(self, value: Any) -> Any:
        return self._loop.run_until_complete(value) if inspect.isawaitable(value) else value


async def _in_loop(maker: Any, address: str, options: dict[str, Any]) -> Any:
    """Asynchronous clients take hold of the loop that they are made in."""
    return maker(address, **options)
