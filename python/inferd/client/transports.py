"""What carries calls: HTTP by httpx, gRPC by grpcio, each blocking or not.

Reads exchanges, hands on answers; what went wrong below the protocol becomes ``Unavailable`` or ``DeadlineMissed``.
Knows nothing of models and retries. Connections are pooled and kept by the libraries.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from inferd.client.grpc import GrpcRequest, error_of, messages, method_path
from inferd.client.http import HttpAnswer
from inferd.client.http import error_of as http_error_of
from inferd.errors import DeadlineMissed, InferdError, InternalError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from inferd.client.exchange import Exchange

__all__ = [
    "AsyncGrpcTransport",
    "AsyncHttpTransport",
    "AsyncTransport",
    "GrpcTransport",
    "HttpTransport",
    "Transport",
]

# Answers of any size: what is asked for is wanted.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Transport(Protocol):
    """Sends and waits."""

    def send(self, exchange: Exchange, left_s: float | None) -> Any:
        """The answer."""
        ...

    def stream(self, exchange: Exchange, left_s: float | None) -> Generator[Any]:
        """Every answer to one request; closing it cancels the rest."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class AsyncTransport(Protocol):
    """Sends and lets others run."""

    async def send(self, exchange: Exchange, left_s: float | None) -> Any:
        """The answer."""
        ...

    def stream(self, exchange: Exchange, left_s: float | None) -> AsyncGenerator[Any]:
        """Every answer to one request; closing it cancels the rest."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise NotFound("HTTP needs the package 'httpx'\nhelp: pip install 'inferd[client]'") from None
    return httpx


def _sse() -> Any:
    try:
        import httpx_sse
    except ImportError:
        raise NotFound("streams over HTTP need the package 'httpx-sse'\nhelp: pip install 'inferd[client]'") from None
    return httpx_sse


def _grpc() -> Any:
    try:
        import grpc
    except ImportError:
        raise NotFound("gRPC needs the package 'grpcio'\nhelp: pip install 'inferd[client]'") from None
    return grpc


def _http_fault(httpx: Any, fault: Exception, url: str) -> InferdError:
    if isinstance(fault, httpx.TimeoutException):
        return DeadlineMissed("the deadline passed before the server answered; allow more time with timeout_s")
    return Unavailable(
        f"no answer from {url}: {str(fault) or type(fault).__name__}\nhelp: see that a server runs there"
    )


class HttpTransport:
    """Blocking HTTP. May be used by many threads."""

    def __init__(self, url: str) -> None:
        self._httpx = _httpx()
        self._url = url
        self._client = self._httpx.Client(base_url=url, timeout=None)

    def send(self, exchange: Exchange, left_s: float | None) -> HttpAnswer:
        """The answer to one exchange."""
        request = exchange.what(left_s)
        try:
            answer = self._client.request(
                request.method, request.path, headers=request.headers, content=request.body, timeout=left_s
            )
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None
        return HttpAnswer(answer.status_code, answer.headers, answer.content)

    def stream(self, exchange: Exchange, left_s: float | None) -> Generator[str]:
        """The data of every event that answers one request; closing it cancels the rest."""
        sse = _sse()
        request = exchange.what(left_s)
        named = {"headers": request.headers, "content": request.body, "timeout": left_s}
        try:
            with sse.connect_sse(self._client, request.method, request.path, **named) as events:
                answer = events.response
                if answer.status_code != 200:
                    raise http_error_of(HttpAnswer(answer.status_code, answer.headers, answer.read()))
                for event in events.iter_sse():
                    yield event.data
        except sse.SSEError as fault:
            raise InternalError(f"the server's answer is no stream of events: {fault}") from None
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


class AsyncHttpTransport:
    """HTTP for asyncio."""

    def __init__(self, url: str) -> None:
        self._httpx = _httpx()
        self._url = url
        self._client = self._httpx.AsyncClient(base_url=url, timeout=None)

    async def send(self, exchange: Exchange, left_s: float | None) -> HttpAnswer:
        """The answer to one exchange."""
        request = exchange.what(left_s)
        try:
            answer = await self._client.request(
                request.method, request.path, headers=request.headers, content=request.body, timeout=left_s
            )
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None
        return HttpAnswer(answer.status_code, answer.headers, answer.content)

    async def stream(self, exchange: Exchange, left_s: float | None) -> AsyncGenerator[str]:
        """The data of every event that answers one request; closing it cancels the rest."""
        sse = _sse()
        request = exchange.what(left_s)
        named = {"headers": request.headers, "content": request.body, "timeout": left_s}
        try:
            async with sse.aconnect_sse(self._client, request.method, request.path, **named) as events:
                answer = events.response
                if answer.status_code != 200:
                    raise http_error_of(HttpAnswer(answer.status_code, answer.headers, await answer.aread()))
                async with contextlib.aclosing(events.aiter_sse()) as found:
                    async for event in found:
                        yield event.data
        except sse.SSEError as fault:
            raise InternalError(f"the server's answer is no stream of events: {fault}") from None
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _serializers(method: str) -> dict[str, Any]:
    answer = {"ModelStreamInfer": "ModelStreamInferResponse"}.get(method, f"{method}Response")
    return {
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": messages()[f"inference.{answer}"].FromString,
    }


def _grpc_fault(fault: Any, address: str) -> InferdError:
    error = error_of(fault.code().value[0], fault.details())
    if isinstance(error, Unavailable) and "connect" in str(error):
        return Unavailable(f"no answer from {address}: {error}\nhelp: see that a server runs there")
    return error


class GrpcTransport:
    """Blocking gRPC over one connection. May be used by many threads."""

    def __init__(self, address: str) -> None:
        self._grpc = _grpc()
        self._address = address
        self._channel = self._grpc.insecure_channel(address, options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    def send(self, exchange: Exchange, left_s: float | None) -> Any:
        """The answer to one exchange."""
        request: GrpcRequest = exchange.what(left_s)
        method = self._methods.get(request.method)
        if method is None:
            method = self._channel.unary_unary(method_path(request.method), **_serializers(request.method))
            self._methods[request.method] = method
        try:
            return method(request.message, timeout=left_s, metadata=request.metadata)
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None

    def stream(self, exchange: Exchange, left_s: float | None) -> Generator[Any]:
        """Every answer to one request; closing it cancels the rest."""
        request: GrpcRequest = exchange.what(left_s)
        method = self._channel.stream_stream(method_path(request.method), **_serializers(request.method))
        answers = method(iter([request.message]), timeout=left_s, metadata=request.metadata)
        try:
            yield from answers
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None
        finally:
            answers.cancel()

    def close(self) -> None:
        """Close every connection."""
        self._channel.close()


class AsyncGrpcTransport:
    """gRPC for asyncio."""

    def __init__(self, address: str) -> None:
        self._grpc = _grpc()
        import grpc.aio

        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    async def send(self, exchange: Exchange, left_s: float | None) -> Any:
        """The answer to one exchange."""
        request: GrpcRequest = exchange.what(left_s)
        method = self._methods.get(request.method)
        if method is None:
            method = self._channel.unary_unary(method_path(request.method), **_serializers(request.method))
            self._methods[request.method] = method
        try:
            return await method(request.message, timeout=left_s, metadata=request.metadata)
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None

    async def stream(self, exchange: Exchange, left_s: float | None) -> AsyncGenerator[Any]:
        """Every answer to one request; closing it cancels the rest."""
        request: GrpcRequest = exchange.what(left_s)
        method = self._channel.stream_stream(method_path(request.method), **_serializers(request.method))
        answers = method(iter([request.message]), timeout=left_s, metadata=request.metadata)
        try:
            async for answer in answers:
                yield answer
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None
        finally:
            answers.cancel()

    async def close(self) -> None:
        """Close every connection."""
        await self._channel.close()
