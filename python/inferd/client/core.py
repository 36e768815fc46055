"""The logic that both clients share, free of I/O: generators that ask their driver to send and to pause.

Reads arguments of calls, hands on results. Knows nothing of sockets and event loops: only the drivers differ.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from inferd.client.exchange import InferCall, Pause, Send
from inferd.client.frames import tensors_of
from inferd.client.grpc import Grpc
from inferd.client.metadata import ConfigNeeded, parse_metadata, with_config
from inferd.client.rest import Rest
from inferd.client.retry import Budget, Retry, pause_s
from inferd.errors import DeadlineMissed, InferdError, InvalidInput, NotFound, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from inferd.client.exchange import Exchange
    from inferd.client.metadata import ModelMetadata

    Steps = Generator[Send | Pause, Any, Any]

__all__ = ["Core", "InferRequest", "deadline_after", "parse_url", "remaining", "sequence_parameters"]


def parse_url(url: str) -> tuple[str, str]:
    """Split a URL into ``http``, ``https`` or ``grpc``, and the address; the default scheme is HTTP.

    Raises:
        InvalidInput: the scheme is unknown or the address is empty.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
        raise InvalidInput(f"invalid URL '{url}'\nhelp: use http://127.0.0.1:8000 or grpc://127.0.0.1:8000")
    return parts.scheme, parts.netloc if parts.scheme == "grpc" else f"{parts.scheme}://{parts.netloc}{parts.path}"


def deadline_after(timeout_s: float | None) -> float | None:
    """Return the deadline of a call that starts now, on the monotonic clock; None: no deadline."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def remaining(deadline_s: float | None) -> float | None:
    """Return the seconds until a deadline on the monotonic clock; None: no deadline.

    Raises:
        DeadlineMissed: it has expired.
    """
    if deadline_s is None:
        return None
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise DeadlineMissed("the deadline expired before the response arrived; increase timeout_s")
    return left


def sequence_parameters(sequence_id: int | str | None, *, start: bool, end: bool) -> dict[str, Any]:
    """Return the protocol's parameters for a request of a sequence; empty without one.

    Raises:
        InvalidInput: ``start`` or ``end`` without an id.
    """
    if sequence_id is None:
        if start or end:
            raise InvalidInput(
                "sequence_start and sequence_end need a sequence_id\nhelp: sequence_id=1, or any other number except 0"
            )
        return {}
    return {"sequence_id": sequence_id, "sequence_start": start, "sequence_end": end}


class InferRequest(NamedTuple):
    """The arguments of one call."""

    model: str
    inputs: Any
    version: str | int | None
    outputs: Sequence[str]
    deadline_s: float | None
    """On the monotonic clock."""
    request_id: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str]
    sequence: Mapping[str, Any] = {}
    priority: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The model and its version, empty if the server chooses."""
        return self.model, "" if self.version is None else str(self.version)


class Core:
    """Everything except sending and sleeping."""

    def __init__(self, scheme: str, retry: Retry) -> None:
        self.protocol: Rest | Grpc = Grpc() if scheme == "grpc" else Rest()
        self._retry = retry
        self._budget = Budget(retry)
        self._models: dict[tuple[str, str], ModelMetadata] = {}

    def call(self, exchange: Exchange, timeout_s: float | None) -> Steps:
        """Make one call, with retries."""
        return (yield from self._retried(exchange, deadline_after(timeout_s)))

    def model_ready(self, model: str, version: str) -> Steps:
        """Return whether a model is ready; False if it does not exist."""
        try:
            return (yield from self._retried(self.protocol.model_ready(model, version), None))
        except NotFound:
            return False

    def infer(self, request: InferRequest) -> Steps:
        """Run one inference; fetches the model's metadata first unless it is cached."""
        known = request.key in self._models
        call = yield from self.prepare(request)
        self._budget.earn()
        try:
            # A stateful model would apply a request twice if its response was lost.
            return (
                yield from self._retried(self.protocol.infer(call), request.deadline_s, once=bool(request.sequence))
            )
        except (InvalidInput, NotFound):
            if request.sequence:
                self._models.pop(request.key, None)
                raise
            if not known or not (yield from self._metadata_changed(request)):
                raise
        call = yield from self.prepare(request)
        return (yield from self._retried(self.protocol.infer(call), request.deadline_s))

    def prepare(self, request: InferRequest, *, streams: bool = False) -> Steps:
        """Convert the inputs to the model's tensors.

        Args:
            request: the call's arguments.
            streams: whether the call can't be repeated and, over HTTP, carries no column names: a data frame is then
                ordered by freshly fetched metadata.
        """
        known = request.key in self._models
        try:
            tensors, model = yield from self._tensors(request)
        except InvalidInput:
            if not known or not (yield from self._metadata_changed(request)):
                raise
            tensors, model = yield from self._tensors(request)
        else:
            by_column = any(tensor.columns is not None for tensor in tensors)
            if streams and known and by_column and (yield from self._metadata_changed(request)):
                tensors, model = yield from self._tensors(request)
        extra = {} if request.priority is None else {"priority": request.priority}
        return InferCall(
            *request.key,
            tensors,
            request.outputs,
            request.request_id,
            {**request.parameters, **request.sequence, **extra},
            request.headers,
            model.outputs,
        )

    def _tensors(self, request: InferRequest) -> Steps:
        """Return the tensors, and the metadata that they follow."""
        key = request.key
        # Read once: another thread may remove it.
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = yield from self._fetch_metadata(request)
        try:
            return tensors_of(request.inputs, model), model
        except ConfigNeeded:
            model = self._models[key] = yield from self._fetch_config(request, model)
        return tensors_of(request.inputs, model), model

    def _fetch_metadata(self, request: InferRequest) -> Steps:
        metadata = yield from self._retried(self.protocol.metadata(*request.key), request.deadline_s)
        return parse_metadata(metadata, complete=self.protocol.describes_columns)

    def _fetch_config(self, request: InferRequest, model: ModelMetadata) -> Steps:
        try:
            config = yield from self._retried(self.protocol.config(*request.key), request.deadline_s)
        except (NotFound, Unimplemented):
            # The extension is optional.
            config = {}
        return with_config(model, config)

    def _metadata_changed(self, request: InferRequest) -> Steps:
        """Fetch the metadata again and return whether it changed."""
        before = self._models.pop(request.key, None)
        try:
            now = yield from self._fetch_metadata(request)
            if before is not None and before.optional is not None:
                now = yield from self._fetch_config(request, now)
        except InferdError:
            # The original error is reported.
            return False
        self._models[request.key] = now
        return before is not None and before != now

    def _retried(self, exchange: Exchange, deadline_s: float | None, *, once: bool = False) -> Steps:
        attempts = 0
        while True:
            left = remaining(deadline_s)
            attempts += 1
            try:
                return exchange.read((yield Send(exchange, left)))
            except InferdError as fault:
                left = None if deadline_s is None else deadline_s - time.monotonic()
                pause = None if once else pause_s(self._retry, self._budget, fault, attempts, left, random.random)
                if pause is None:
                    raise
            yield Pause(pause)
