"""The client for asyncio.

Reads calls, drives :class:`inferd.client.core.Core` over a transport. Decides nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from inferd.client.core import Core, Question, ends_s, left_s, parse_url, sequence_parameters
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
    """Ask a server of the Open Inference Protocol from asyncio: every method of :class:`inferd.Client`, awaited.

    Args:
        url: ``http://host:port``, ``https://host:port`` or ``grpc://host:port``.
        retry: what to do about failures that may pass.

    Raises:
        NotFound: the package that the scheme needs is not installed.
        InvalidInput: the URL is none.
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
        """One inference: arguments, result and errors are those of :meth:`inferd.Client.infer`."""
        sequence = sequence_parameters(sequence_id, start=sequence_start, end=sequence_end)
        about = (request_id, parameters or {}, headers or {}, sequence, priority)
        question = Question(model, inputs, version, outputs, ends_s(timeout_s), *about)
        result: Result = await self._drive(self._core.infer(question))
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
        """Every answer to one request, as they come; closing the iterator cancels the rest.

        Arguments, answers and errors are those of :meth:`inferd.Client.stream`. Leaving ``async for`` does not close
        what it iterates over: ``async with contextlib.aclosing(client.stream(...)) as answers`` does.
        """
        about = (request_id, parameters or {}, headers or {})
        question = Question(model, inputs, version, outputs, ends_s(timeout_s), *about)
        call = await self._drive(self._core.prepared(question, streams=True))
        exchange = self._core.protocol.stream(call)
        async with contextlib.aclosing(self._transport.stream(exchange, left_s(question.ends_s))) as answers:
            async for answer in answers:
                left_s(question.ends_s)
                yield exchange.read(answer)

    async def live(self) -> bool:
        """Whether the server runs."""
        return bool(await self._drive(self._core.once(self._core.protocol.live(), None)))

    async def ready(self) -> bool:
        """Whether the server has loaded its models and takes requests."""
        return bool(await self._drive(self._core.once(self._core.protocol.ready(), None)))

    async def model_ready(self, model: str, version: str | int = "") -> bool:
        """Whether a model takes requests."""
        return bool(await self._drive(self._core.model_ready(model, str(version))))

    async def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return await self._plain(self._core.protocol.server_metadata())

    async def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Inputs and outputs of a model."""
        return await self._plain(self._core.protocol.metadata(model, str(version)))

    async def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """A model's configuration, as Triton's extension describes it."""
        return await self._plain(self._core.protocol.config(model, str(version)))

    async def statistics(self, model: str = "", version: str | int = "") -> dict[str, Any]:
        """What a model did so far."""
        return await self._plain(self._core.protocol.statistics(model, str(version)))

    async def _plain(self, exchange: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self._drive(self._core.once(exchange, None))
        return answer

    async def _drive(self, steps: Steps) -> Any:
        """Do what ``steps`` ask for until they have their result."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = await self._transport.send(step.exchange, step.left_s)
                except InferdError as fault:
                    step = steps.throw(fault)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value
