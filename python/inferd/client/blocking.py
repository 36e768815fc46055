"""The blocking client.

Reads calls, drives :class:`inferd.client.core.Core` over a transport. Makes no decisions itself.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from inferd.client.core import Core, InferRequest, deadline_after, parse_url, remaining, sequence_parameters
from inferd.client.exchange import Pause
from inferd.client.retry import Retry
from inferd.client.transports import GrpcTransport, HttpTransport
from inferd.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from types import TracebackType

    from inferd.client.core import Steps
    from inferd.client.tensors import Result

__all__ = ["Client"]


class Client:
    """Client of an Open Inference Protocol server. Thread-safe.

    >>> with inferd.Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.infer("fraud", {"x": payments}, timeout_s=0.1)["y"]

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
        self._transport = GrpcTransport(address) if scheme == "grpc" else HttpTransport(address)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def infer(  # noqa: PLR0913
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
        """Run one inference.

        Args:
            model: its name.
            inputs: arrays or lists by name, of shape ``(rows, *item_shape)``; for a model with one input, its value; or
                a data frame of pandas, polars or pyarrow, a dict of columns, or a pandas series as one row. Columns are
                matched by name, in any order, where the model has column names; an index is ignored. Values are
                converted to the model's types without loss, except that fractions may be rounded to FP32. ``None``, NaN
                and ``pandas.NA`` are missing: NaN in numbers; in text a missing value where the model accepts one, else
                an error. Integers are not text, except for CatBoost, where 1 and "1" are the same category.
            version: one version; None: the server's choice.
            outputs: requested outputs; empty: all.
            timeout_s: deadline over all attempts. The server receives the remaining time.
            priority: priority of the request; 0 is served first.
            sequence_id: the sequence that the request belongs to; such a request is never retried.
            sequence_start: whether it is the first of its sequence.
            sequence_end: whether it is the last of its sequence.
            request_id: returned with the response.
            parameters: further request parameters.
            headers: HTTP headers or gRPC metadata.

        Raises:
            InvalidInput: inputs don't match, or the model rejected them; lists missing and unexpected columns, or names
                the row and column of a value.
            NotFound: no such model.
            Unavailable: the server is unreachable or overloaded, also after retries.
            DeadlineMissed: ``timeout_s`` expired.
            ModelFailed: the model raised an error.
        """
        sequence = sequence_parameters(sequence_id, start=sequence_start, end=sequence_end)
        extra = (request_id, parameters or {}, headers or {}, sequence, priority)
        request = InferRequest(model, inputs, version, outputs, deadline_after(timeout_s), *extra)
        result: Result = self._drive(self._core.infer(request))
        return result

    def stream(  # noqa: PLR0913
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
    ) -> Generator[Result]:
        """Stream the responses to one request; closing the iterator cancels the rest.

        Over HTTP these are server-sent events with tensors as JSON: an output's shape follows the model's metadata,
        with the last dynamic dimension inferred and any other dynamic dimension 1.

        Args:
            model: its name.
            inputs: as for :meth:`infer`.
            version: one version; None: the server's choice.
            outputs: requested outputs; empty: all.
            timeout_s: deadline over all responses. The server receives the remaining time.
            request_id: returned with every response.
            parameters: further request parameters.
            headers: HTTP headers or gRPC metadata.

        Raises:
            InferdError: as for :meth:`infer`, also after the first responses; nothing is retried.
        """
        extra = (request_id, parameters or {}, headers or {})
        request = InferRequest(model, inputs, version, outputs, deadline_after(timeout_s), *extra)
        call = self._drive(self._core.prepare(request, streams=True))
        exchange = self._core.protocol.stream(call)
        with contextlib.closing(self._transport.stream(exchange, remaining(request.deadline_s))) as responses:
            for response in responses:
                remaining(request.deadline_s)
                yield exchange.read(response)

    def live(self) -> bool:
        """Return whether the server is live."""
        return bool(self._drive(self._core.call(self._core.protocol.live(), None)))

    def ready(self) -> bool:
        """Return whether the server is ready: its models are loaded and it accepts requests."""
        return bool(self._drive(self._core.call(self._core.protocol.ready(), None)))

    def model_ready(self, model: str, version: str | int = "") -> bool:
        """Return whether a model is ready."""
        return bool(self._drive(self._core.model_ready(model, str(version))))

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return self._plain(self._core.protocol.server_metadata())

    def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Return a model's inputs and outputs."""
        return self._plain(self._core.protocol.metadata(model, str(version)))

    def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Return a model's configuration, as Triton's extension defines it."""
        return self._plain(self._core.protocol.config(model, str(version)))

    def statistics(self, model: str = "", version: str | int = "") -> dict[str, Any]:
        """Return a model's statistics."""
        return self._plain(self._core.protocol.statistics(model, str(version)))

    def _plain(self, exchange: Any) -> dict[str, Any]:
        response: dict[str, Any] = self._drive(self._core.call(exchange, None))
        return response

    def _drive(self, steps: Steps) -> Any:
        """Carry out ``steps`` until they return."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    response = self._transport.send(step.exchange, step.remaining_s)
                except InferdError as fault:
                    step = steps.throw(fault)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            return end.value
