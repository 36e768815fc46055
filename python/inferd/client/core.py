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
from inferd.client.tensors import specs_of, tensors_of
from inferd.errors import DeadlineMissed, InferdError, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from inferd.client.exchange import Exchange
    from inferd.types import TensorSpec

    Steps = Generator[Send | Pause, Any, Any]

__all__ = ["Core", "parse_url"]


def parse_url(url: str) -> tuple[str, str]:
    """``http``, ``https`` or ``grpc``, and what follows; without a scheme it is HTTP.

    Raises:
        InvalidInput: the scheme is another one.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
        raise InvalidInput(f"'{url}' is no server\nhelp: http://127.0.0.1:8000, or grpc://127.0.0.1:8000")
    return parts.scheme, parts.netloc if parts.scheme == "grpc" else f"{parts.scheme}://{parts.netloc}{parts.path}"


class Core:
    """Everything but sending and sleeping."""

    def __init__(self, scheme: str, retry: Retry) -> None:
        self.protocol: Rest | Grpc = Grpc() if scheme == "grpc" else Rest()
        self._retry = retry
        self._budget = Budget(retry)
        self._specs: dict[tuple[str, str], list[TensorSpec]] = {}

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
    ) -> Steps:
        """One inference: metadata where it is not known yet, then the call itself."""
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        call = yield from self.prepared(
            model, inputs, version, outputs, ends_s, priority, request_id, parameters, headers
        )
        self._budget.earn()
        try:
            return (yield from self._tried(self.protocol.infer(call), ends_s))
        except (InvalidInput, NotFound):
            # It may have been replaced by one with another signature.
            self._specs.pop((call.model, call.version), None)
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
        specs = self._specs.get(key)
        if specs is None:
            specs = specs_of((yield from self._tried(self.protocol.metadata(*key), ends_s)))
            self._specs[key] = specs
        tensors = tensors_of(inputs, specs)
        extra = {} if priority is None else {"priority": priority}
        return InferCall(*key, tensors, outputs, request_id, {**(parameters or {}), **extra}, headers or {})

    def _tried(self, exchange: Exchange, ends_s: float | None) -> Steps:
        tried = 0
        while True:
            left_s = None if ends_s is None else ends_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise DeadlineMissed("the deadline passed before an answer was there; allow more time with timeout_s")
            tried += 1
            try:
                return exchange.read((yield Send(exchange, left_s)))
            except InferdError as fault:
                left_s = None if ends_s is None else ends_s - time.monotonic()
                pause = pause_s(self._retry, self._budget, fault, tried, left_s, random.random)
                if pause is None:
                    raise
            yield Pause(pause)
