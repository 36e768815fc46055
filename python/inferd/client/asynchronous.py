"""The asyncio client.

Reads calls, drives :class:`inferd.client.core.Core` over a transport. Makes no decisions itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from inferd.client.core import Core, InferRequest, deadline_after, parse_url, remaining, sequence_parameters
from inferd.client.exchange import Pause
from inferd.client.retry import Retry
from inferd.client.transports import AsyncGrpcTransport, AsyncHttpTransport
from inferd.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from inferd.client.core import Steps
    from inferd.client.tensors import Result

__all__ = ["AsyncClient"]


class AsyncClient:
    """Asyncio client of an Open Inference Protocol server: every method of :class:`inferd.Client`, awaited.

    Args:
        url: ``http://host:port``, ``https://host:port`` or ``grpc://host:port``.
        retry: policy for transient failures.

    Raises:
        NotFound: a package that the scheme needs is not installed.
        InvalidInput: the URL is invalid.
    """

    def __init__(self, url: str, *, retry: Retry = Retry()) -> None:  # noqa: B008 (it is frozen)
        scheme, address = parse_url(url)
        self._core = Core(scheme, retry)
        self._transport = AsyncGrpcTransport(address) if scheme == "grpc" else AsyncHttpTransport(address)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def infer(  # noqa: PLR0913
        self,
        model: str,
        inputs: Any,
        *,
        version: str | int | None = None,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        priority: int | None = None,
        sequence_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        request_id: str = "",
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        """Run one inference: arguments, result and errors are those of :meth:`inferd.Client.infer`."""
        sequence = sequence_parameters(sequence_id, start=sequence_start, end=sequence_end)
        extra = (request_id, parameters or {}, headers or {}, sequence, priority)
        request = InferRequest(model, inputs, version, outputs, deadline_after(timeout_s), *extra)
        result: Result = await self._drive(self._core.infer(request))
        return result

    async def stream(  # noqa: PLR0913
        self,
        model: str,
        inputs: Any,
        *,
        version: str | int | None = None,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Result]:
        """Stream the responses to one request; closing the iterator cancels the rest.

        Arguments, responses and errors are those of :meth:`inferd.Client.stream`. Leaving ``async for`` does not close
        the iterator: use ``async with contextlib.aclosing(client.stream(...)) as responses``.
        """
        extra = (request_id, parameters or {}, headers or {})
        request = InferRequest(model, inputs, version, outputs, deadline_after(timeout_s), *extra)
        call = await self._drive(self._core.prepare(request, streams=True))
        exchange = self._core.protocol.stream(call)
        async with contextlib.aclosing(self._transport.stream(exchange, remaining(request.deadline_s))) as responses:
            async for response in responses:
                remaining(request.deadline_s)
                yield exchange.read(response)

    async def live(self) -> bool:
        """Return whether the server is live."""
        return bool(await self._drive(self._core.call(self._core.protocol.live(), None)))

    async def ready(self) -> bool:
        """Return whether the server is ready: its models are loaded and it accepts requests."""
        return bool(await self._drive(self._core.call(self._core.protocol.ready(), None)))

    async def model_ready(self, model: str, version: str | int = "") -> bool:
        """Return whether a model is ready."""
        return bool(await self._drive(self._core.model_ready(model, str(version))))

    async def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return await self._plain(self._core.protocol.server_metadata())

    async def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Return a model's inputs and outputs."""
        return await self._plain(self._core.protocol.metadata(model, str(version)))

    async def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Return a model's configuration, as Triton's extension defines it."""
        return await self._plain(self._core.protocol.config(model, str(version)))

    async def statistics(self, model: str = "", version: str | int = "") -> dict[str, Any]:
        """Return a model's statistics."""
        return await self._plain(self._core.protocol.statistics(model, str(version)))

    async def _plain(self, exchange: Any) -> dict[str, Any]:
        response: dict[str, Any] = await self._drive(self._core.call(exchange, None))
        return response

    async def _drive(self, steps: Steps) -> Any:
        """Carry out ``steps`` until they return."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    response = await self._transport.send(step.exchange, step.remaining_s)
                except InferdError as fault:
                    step = steps.throw(fault)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            return end.value
