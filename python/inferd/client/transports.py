"""Transports: HTTP by httpx, gRPC by grpcio, each blocking and asyncio.

Reads exchanges, hands on responses; failures below the protocol become ``Unavailable`` or ``DeadlineMissed``. Knows
nothing of models and retries. The libraries pool connections.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from inferd.client.grpc import GrpcRequest, error_of, messages, method_path
from inferd.client.rest import HttpResponse
from inferd.client.rest import error_of as http_error_of
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

# No size limit: the caller requested the response.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Transport(Protocol):
    """Blocking transport."""

    def send(self, exchange: Exchange, remaining_s: float | None) -> Any:
        """Send one request and return the response."""
        ...

    def stream(self, exchange: Exchange, remaining_s: float | None) -> Generator[Any]:
        """Yield every response to one request; closing cancels the rest."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class AsyncTransport(Protocol):
    """Asyncio transport."""

    async def send(self, exchange: Exchange, remaining_s: float | None) -> Any:
        """Send one request and return the response."""
        ...

    def stream(self, exchange: Exchange, remaining_s: float | None) -> AsyncGenerator[Any]:
        """Yield every response to one request; closing cancels the rest."""
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
        raise NotFound("HTTP streaming needs the package 'httpx-sse'\nhelp: pip install 'inferd[client]'") from None
    return httpx_sse


def _grpc() -> Any:
    try:
        import grpc
    except ImportError:
        raise NotFound("gRPC needs the package 'grpcio'\nhelp: pip install 'inferd[client]'") from None
    return grpc


def _http_fault(httpx: Any, fault: Exception, url: str) -> InferdError:
    if isinstance(fault, httpx.TimeoutException):
        return DeadlineMissed("the deadline expired before the server responded; increase timeout_s")
    return Unavailable(
        f"no response from {url}: {str(fault) or type(fault).__name__}\nhelp: check that a server runs there"
    )


class HttpTransport:
    """Blocking HTTP. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._httpx = _httpx()
        self._url = url
        self._client = self._httpx.Client(base_url=url, timeout=None)

    def send(self, exchange: Exchange, remaining_s: float | None) -> HttpResponse:
        """Send one request and return the response."""
        request = exchange.build(remaining_s)
        try:
            response = self._client.request(
                request.method, request.path, headers=request.headers, content=request.body, timeout=remaining_s
            )
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None
        return HttpResponse(response.status_code, response.headers, response.content)

    def stream(self, exchange: Exchange, remaining_s: float | None) -> Generator[str]:
        """Yield the data of every event of the response; closing cancels the rest."""
        sse = _sse()
        request = exchange.build(remaining_s)
        named = {"headers": request.headers, "content": request.body, "timeout": remaining_s}
        try:
            with sse.connect_sse(self._client, request.method, request.path, **named) as events:
                response = events.response
                if response.status_code != 200:
                    raise http_error_of(HttpResponse(response.status_code, response.headers, response.read()))
                for event in events.iter_sse():
                    yield event.data
        except sse.SSEError as fault:
            raise InternalError(f"the server's response is not an event stream: {fault}") from None
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

    async def send(self, exchange: Exchange, remaining_s: float | None) -> HttpResponse:
        """Send one request and return the response."""
        request = exchange.build(remaining_s)
        try:
            response = await self._client.request(
                request.method, request.path, headers=request.headers, content=request.body, timeout=remaining_s
            )
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None
        return HttpResponse(response.status_code, response.headers, response.content)

    async def stream(self, exchange: Exchange, remaining_s: float | None) -> AsyncGenerator[str]:
        """Yield the data of every event of the response; closing cancels the rest."""
        sse = _sse()
        request = exchange.build(remaining_s)
        named = {"headers": request.headers, "content": request.body, "timeout": remaining_s}
        try:
            async with sse.aconnect_sse(self._client, request.method, request.path, **named) as events:
                response = events.response
                if response.status_code != 200:
                    raise http_error_of(HttpResponse(response.status_code, response.headers, await response.aread()))
                async with contextlib.aclosing(events.aiter_sse()) as found:
                    async for event in found:
                        yield event.data
        except sse.SSEError as fault:
            raise InternalError(f"the server's response is not an event stream: {fault}") from None
        except self._httpx.TransportError as fault:
            raise _http_fault(self._httpx, fault, self._url) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _serializers(method: str) -> dict[str, Any]:
    response = {"ModelStreamInfer": "ModelStreamInferResponse"}.get(method, f"{method}Response")
    return {
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": messages()[f"inference.{response}"].FromString,
    }


def _grpc_fault(fault: Any, address: str) -> InferdError:
    error = error_of(fault.code().value[0], fault.details())
    if isinstance(error, Unavailable) and "connect" in str(error):
        return Unavailable(f"no response from {address}: {error}\nhelp: check that a server runs there")
    return error


class GrpcTransport:
    """Blocking gRPC over one connection. Thread-safe."""

    def __init__(self, address: str) -> None:
        self._grpc = _grpc()
        self._address = address
        self._channel = self._grpc.insecure_channel(address, options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    def send(self, exchange: Exchange, remaining_s: float | None) -> Any:
        """Send one request and return the response."""
        request: GrpcRequest = exchange.build(remaining_s)
        method = self._methods.get(request.method)
        if method is None:
            method = self._channel.unary_unary(method_path(request.method), **_serializers(request.method))
            self._methods[request.method] = method
        try:
            return method(request.message, timeout=remaining_s, metadata=request.metadata)
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None

    def stream(self, exchange: Exchange, remaining_s: float | None) -> Generator[Any]:
        """Yield every response to one request; closing cancels the rest."""
        request: GrpcRequest = exchange.build(remaining_s)
        method = self._channel.stream_stream(method_path(request.method), **_serializers(request.method))
        responses = method(iter([request.message]), timeout=remaining_s, metadata=request.metadata)
        try:
            yield from responses
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None
        finally:
            responses.cancel()

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

    async def send(self, exchange: Exchange, remaining_s: float | None) -> Any:
        """Send one request and return the response."""
        request: GrpcRequest = exchange.build(remaining_s)
        method = self._methods.get(request.method)
        if method is None:
            method = self._channel.unary_unary(method_path(request.method), **_serializers(request.method))
            self._methods[request.method] = method
        try:
            return await method(request.message, timeout=remaining_s, metadata=request.metadata)
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None

    async def stream(self, exchange: Exchange, remaining_s: float | None) -> AsyncGenerator[Any]:
        """Yield every response to one request; closing cancels the rest."""
        request: GrpcRequest = exchange.build(remaining_s)
        method = self._channel.stream_stream(method_path(request.method), **_serializers(request.method))
        responses = method(iter([request.message]), timeout=remaining_s, metadata=request.metadata)
        try:
            async for response in responses:
                yield response
        except self._grpc.RpcError as fault:
            raise _grpc_fault(fault, self._address) from None
        finally:
            responses.cancel()

    async def close(self) -> None:
        """Close every connection."""
        await self._channel.close()
