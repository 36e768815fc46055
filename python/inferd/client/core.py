"""What both clients do, without waiting for anything: generators that ask their driver to send and to pause.

Reads arguments of calls, hands on results. The blocking client and that of asyncio differ in their drivers alone.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from inferd.client.exchange import InferCall, Pause, Send
from inferd.client.frames import tensors_of
from inferd.client.grpc import Grpc
from inferd.client.rest import Rest
from inferd.client.retry import Budget, Retry, pause_s
from inferd.client.sides import ConfigNeeded, sides_of, with_config
from inferd.errors import DeadlineMissed, InferdError, InvalidInput, NotFound, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from inferd.client.exchange import Exchange
    from inferd.client.sides import Sides

    Steps = Generator[Send | Pause, Any, Any]

__all__ = ["Core", "Question", "ends_s", "left_s", "parse_url", "sequence_parameters"]


def parse_url(url: str) -> tuple[str, str]:
    """``http``, ``https`` or ``grpc``, and what follows; without a scheme it is HTTP.

    Raises:
        InvalidInput: the scheme is another one.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
        raise InvalidInput(f"'{url}' is no server\nhelp: http://127.0.0.1:8000, or grpc://127.0.0.1:8000")
    return parts.scheme, parts.netloc if parts.scheme == "grpc" else f"{parts.scheme}://{parts.netloc}{parts.path}"


def ends_s(timeout_s: float | None) -> float | None:
    """The deadline of a call that begins now, on the monotonic clock; None: there is none."""
    return None if timeout_s is None else time.monotonic() + timeout_s


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


class Question(NamedTuple):
    """One call, as the user has it."""

    model: str
    inputs: Any
    version: str | int | None
    outputs: Sequence[str]
    ends_s: float | None
    """When its deadline is, on the monotonic clock."""
    request_id: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str]
    sequence: Mapping[str, Any] = {}
    priority: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The model and its version, empty where it is the server's choice."""
        return self.model, "" if self.version is None else str(self.version)


class Core:
    """Everything but sending and sleeping."""

    def __init__(self, scheme: str, retry: Retry) -> None:
        self.protocol: Rest | Grpc = Grpc() if scheme == "grpc" else Rest()
        self._retry = retry
        self._budget = Budget(retry)
        self._sides: dict[tuple[str, str], Sides] = {}

    def once(self, exchange: Exchange, timeout_s: float | None) -> Steps:
        """A call that is tried again where that may help."""
        return (yield from self._tried(exchange, ends_s(timeout_s)))

    def model_ready(self, model: str, version: str) -> Steps:
        """Whether a model takes requests; one that is not there does not."""
        try:
            return (yield from self._tried(self.protocol.model_ready(model, version), None))
        except NotFound:
            return False

    def infer(self, question: Question) -> Steps:
        """One inference: what the model takes, where it is not known yet, then the call itself."""
        known = question.key in self._sides
        call = yield from self.prepared(question)
        self._budget.earn()
        try:
            # A model that remembers would count a request twice that was lost on the way back.
            return (yield from self._tried(self.protocol.infer(call), question.ends_s, once=bool(question.sequence)))
        except (InvalidInput, NotFound):
            if question.sequence:
                self._sides.pop(question.key, None)
                raise
            if not known or not (yield from self._was_replaced(question)):
                raise
        call = yield from self.prepared(question)
        return (yield from self._tried(self.protocol.infer(call), question.ends_s))

    def prepared(self, question: Question, *, streams: bool = False) -> Steps:
        """The call, its tensors being what the model takes.

        Args:
            question: what is asked.
            streams: whether it is asked for once only, and over HTTP in a form that has no names of columns: a data
                frame is put in order by what the model takes now.
        """
        known = question.key in self._sides
        try:
            tensors, sides = yield from self._tensors(question)
        except InvalidInput:
            if not known or not (yield from self._was_replaced(question)):
                raise
            tensors, sides = yield from self._tensors(question)
        else:
            by_column = any(tensor.columns is not None for tensor in tensors)
            if streams and known and by_column and (yield from self._was_replaced(question)):
                tensors, sides = yield from self._tensors(question)
        extra = {} if question.priority is None else {"priority": question.priority}
        return InferCall(
            *question.key,
            tensors,
            question.outputs,
            question.request_id,
            {**question.parameters, **question.sequence, **extra},
            question.headers,
            sides.outputs,
        )

    def _tensors(self, question: Question) -> Steps:
        """What is sent, and the description that it follows."""
        key = question.key
        # Looked up once: other threads may take it out.
        sides = self._sides.get(key)
        if sides is None:
            sides = self._sides[key] = yield from self._described(question)
        try:
            return tensors_of(question.inputs, sides), sides
        except ConfigNeeded:
            sides = self._sides[key] = yield from self._configured(question, sides)
        return tensors_of(question.inputs, sides), sides

    def _described(self, question: Question) -> Steps:
        metadata = yield from self._tried(self.protocol.metadata(*question.key), question.ends_s)
        return sides_of(metadata, complete=self.protocol.describes_columns)

    def _configured(self, question: Question, sides: Sides) -> Steps:
        try:
            config = yield from self._tried(self.protocol.config(*question.key), question.ends_s)
        except (NotFound, Unimplemented):
            # Not every server has this extension.
            config = {}
        return with_config(sides, config)

    def _was_replaced(self, question: Question) -> Steps:
        """Whether the model takes something else than it did when it was last described; it is described anew."""
        before = self._sides.pop(question.key, None)
        try:
            now = yield from self._described(question)
            if before is not None and before.optional is not None:
                now = yield from self._configured(question, now)
        except InferdError:
            # What is wrong is said already.
            return False
        self._sides[question.key] = now
        return before is not None and before != now

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
