"""The client that waits.

Reads calls, drives :class:`inferd.client.core.Core` over a transport. Decides nothing itself.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from inferd.client.core import Core, Question, ends_s, left_s, parse_url, sequence_parameters
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
    """Ask a server of the Open Inference Protocol. May be used by many threads.

    >>> with inferd.Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.infer("fraud", {"x": payments}, timeout_s=0.1)["y"]

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
        """One inference.

        Args:
            model: its name.
            inputs: arrays or lists by name, of shape ``(rows, *item_shape)``; of a model of one input, its value; or a
                data frame of pandas, polars or pyarrow, a dict of columns, or a pandas series as one row. Columns are
                taken by their names where the model has names, in whatever order they come; an index is not read.
                Values take the model's types where they stay what they are: fractions are rounded to FP32, whole
                numbers never. ``None``, NaN and ``pandas.NA`` are missing: NaN of numbers; of text what the model
                takes for missing, or an error. Integers are no text, except to CatBoost, to which 1 and "1" are
                one category.
            version: one version; None: the server's choice.
            outputs: those that are wanted; none named: all.
            timeout_s: deadline over all tries. The server is told how much of it is left.
            priority: class of the request; 0 is served first.
            sequence_id: the sequence that the request belongs to; such a request is never tried again.
            sequence_start: it is the first of its sequence.
            sequence_end: it is the last of its sequence.
            request_id: comes back with the answer.
            parameters: further parameters of the request.
            headers: HTTP headers or gRPC metadata.

        Raises:
            InvalidInput: inputs that don't fit, or that the model refused; of columns it lists those that are missing
                and those that the model has not, of a value it names row and column.
            NotFound: no such model.
            Unavailable: the server can't be reached or is overloaded, and so it stayed while there were tries left.
            DeadlineMissed: ``timeout_s`` passed.
            ModelFailed: the model raised an error.
        """
        sequence = sequence_parameters(sequence_id, start=sequence_start, end=sequence_end)
        about = (request_id, parameters or {}, headers or {}, sequence, priority)
        question = Question(model, inputs, version, outputs, ends_s(timeout_s), *about)
        result: Result = self._drive(self._core.infer(question))
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
        """Every answer to one request, as they come; closing the iterator cancels the rest.

        Over HTTP these are server-sent events, which write tensors as JSON: an answer's shape is that of the model's
        metadata, the last free dimension taking what there is and other free ones being 1.

        Args:
            model: its name.
            inputs: as for :meth:`infer`.
            version: one version; None: the server's choice.
            outputs: those that are wanted; none named: all.
            timeout_s: deadline over all answers. The server is told how much of it is left.
            request_id: comes back with every answer.
            parameters: further parameters of the request.
            headers: HTTP headers or gRPC metadata.

        Raises:
            InferdError: as for :meth:`infer`, also after some answers; nothing is tried again.
        """
        about = (request_id, parameters or {}, headers or {})
        question = Question(model, inputs, version, outputs, ends_s(timeout_s), *about)
        call = self._drive(self._core.prepared(question, streams=True))
        exchange = self._core.protocol.stream(call)
        with contextlib.closing(self._transport.stream(exchange, left_s(question.ends_s))) as answers:
            for answer in answers:
                left_s(question.ends_s)
                yield exchange.read(answer)

    def live(self) -> bool:
        """Whether the server runs."""
        return bool(self._drive(self._core.once(self._core.protocol.live(), None)))

    def ready(self) -> bool:
        """Whether the server has loaded its models and takes requests."""
        return bool(self._drive(self._core.once(self._core.protocol.ready(), None)))

    def model_ready(self, model: str, version: str | int = "") -> bool:
        """Whether a model takes requests."""
        return bool(self._drive(self._core.model_ready(model, str(version))))

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return self._plain(self._core.protocol.server_metadata())

    def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Inputs and outputs of a model."""
        return self._plain(self._core.protocol.metadata(model, str(version)))

    def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """A model's configuration, as Triton's extension describes it."""
        return self._plain(self._core.protocol.config(model, str(version)))

    def statistics(self, model: str = "", version: str | int = "") -> dict[str, Any]:
        """What a model did so far."""
        return self._plain(self._core.protocol.statistics(model, str(version)))

    def _plain(self, exchange: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._drive(self._core.once(exchange, None))
        return answer

    def _drive(self, steps: Steps) -> Any:
        """Do what ``steps`` ask for until they have their result."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    answer = self._transport.send(step.exchange, step.left_s)
                except InferdError as fault:
                    step = steps.throw(fault)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value
