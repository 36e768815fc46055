"""What both clients do, without waiting for anything: generators that ask their driver to send and to pause.

Reads arguments of calls, hands on results. The blocking client and that of asyncio differ in their drivers alone.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inferd.client.exchange import InferCall, Pause, Send
from inferd.client.grpc import Grpc
from inferd.client.rest import Rest
from inferd.client.retry import Budget, Retry, pause_s
from inferd.client.tensors import sides_of, tensors_of
from inferd.errors import DeadlineMissed, InferdError, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from inferd.client.exchange import Exchange
    from inferd.client.tensors import Sides

    Steps = Generator[Send | Pause, Any, Any]

__all__ = ["Core", "left_s", "parse_url", "sequence_parameters"]


def parse_url(url: str) -> tuple[str, str]:
    """``http``, ``https`` or ``grpc``, and what follows; without a scheme it is HTTP.

    Raises:
        InvalidInput: the scheme is another one.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
        raise InvalidInput(f"'{url}' is no server\nhelp: http://127.0.0.1:8000, or grpc://127.0.0.1:8000")
    return parts.scheme, parts.netloc if parts.scheme == "grpc" else f"{parts.scheme}://{parts.netloc}{parts.path}"


def left_s(ends_s: float | None) -> float | None:
    """Seconds until a deadline on the monotonic clock; None: there is none.

    Raises:
        DeadlineMissed: it has passed.
    """
    if ends_s is None:
        return None
    left = ends_s - time.monotonic()
    if left <= 0:
        raise DeadlineMissed("the deadline passed before the answer was there; allow more time with timeout_s")
    return left


def sequence_parameters(sequence_id: int | str | None, *, start: bool, end: bool) -> dict[str, Any]:
    """The parameters of the protocol for a request of a sequence; none where it is of none.

    Raises:
        InvalidInput: a sequence begins or ends that has no id.
    """
    if sequence_id is None:
        if start or end:
            raise InvalidInput(
                "a sequence that starts or ends has an id\nhelp: sequence_id=1, or any other number but 0"
            )
        return {}
    return {"sequence_id": sequence_id, "sequence_start": start, "sequence_end": end}


class Core:
    """Everything but sending and sleeping."""

    def __init__(self, scheme: str, retry: Retry) -> None:
        self.protocol: Rest | Grpc = Grpc() if scheme == "grpc" else Rest()
        self._retry = retry
        self._budget = Budget(retry)
        self._sides: dict[tuple[str, str], Sides] = {}

    def once(self, exchange: Exchange, timeout_s: float | None) -> Steps:
        """A call that is tried again where that may help."""
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        return (yield from self._tried(exchange, ends_s))

    def model_ready(self, model: str, version: str) -> Steps:
        """Whether a model takes requests; one that is not there does not."""
        try:
            return (yield from self._tried(self.protocol.model_ready(model, version), None))
        except NotFound:
            return False

    def infer(  # noqa: PLR0913
        self,
        model: str,
        inputs: Any,
        *,
        version: str | int | None,
        outputs: Sequence[str],
        timeout_s: float | None,
        priority: int | None,
        request_id: str,
        parameters: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        sequence: Mapping[str, Any],
    ) -> Steps:
        """One inference: metadata where it is not known yet, then the call itself."""
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        parameters = {**(parameters or {}), **sequence}
        call = yield from self.prepared(
            model, inputs, version, outputs, ends_s, priority, request_id, parameters, headers
        )
        self._budget.earn()
        try:
            # A model that remembers would count a request twice that was lost on the way back.
            return (yield from self._tried(self.protocol.infer(call), ends_s, once=bool(sequence)))
        except (InvalidInput, NotFound):
            # It may have been replaced by one with another signature.
            self._sides.pop((call.model, call.version), None)
            raise

    def prepared(  # noqa: PLR0913, PLR0917
        self,
        model: str,
        inputs: Any,
        version: str | int | None,
        outputs: Sequence[str],
        ends_s: float | None,
        priority: int | None,
        request_id: str,
        parameters: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> Steps:
        """The call, its tensors being what the model takes."""
        key = (model, "" if version is None else str(version))
        sides = self._sides.get(key)
        if sides is None:
            sides = sides_of((yield from self._tried(self.protocol.metadata(*key), ends_s)))
            self._sides[key] = sides
        tensors = tensors_of(inputs, sides.inputs)
        extra = {} if priority is None else {"priority": priority}
        parameters = {**(parameters or {}), **extra}
        return InferCall(*key, tensors, outputs, request_id, parameters, headers or {}, sides.outputs)

    def _tried(self, exchange: Exchange, ends_s: float | None, *, once: bool = False) -> Steps:
        tried = 0
        while True:
            left = left_s(ends_s)
            tried += 1
            try:
                return exchange.read((yield Send(exchange, left)))
            except InferdError as fault:
                left = None if ends_s is None else ends_s - time.monotonic()
                pause = None if once else pause_s(self._retry, self._budget, fault, tried, left, random.random)
                if pause is None:
                    raise
            yield Pause(pause)
