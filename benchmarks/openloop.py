"""Open-loop load: requests leave at times drawn in advance, whether or not the server keeps up.

Reads a request and a rate, hands on latencies. Each latency counts from the *intended* time of sending, so a server
that stalls is charged for everything that should have been sent meanwhile (no coordinated omission).
Draws the times; ``benchmarks/generator`` (a program of its own, in Rust) keeps them. Knows nothing of processes or
scenarios.
"""

from __future__ import annotations

import array
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bodies import Request

ROOT = Path(__file__).resolve().parent.parent
BUILD = "cargo build --release -p inferd-openloop"
# Who has not answered so long after the last request was due is not waited for.
PATIENCE_S = 20.0
# A run of which more than one request in a hundred left later than this says something of the generator, not of the
# server. A burst of thirty leaves within some 0.2 ms: that is what sending costs.
LATE_S = 0.002


class GeneratorFailed(RuntimeError):
    """The generator is missing, or made no load."""


@dataclass(frozen=True)
class OpenLoop:
    """What an open-loop run saw."""

    latencies_s: list[float]
    """Of each good answer, in the order in which they came."""
    refused: int
    """Answers by which the server said that it would be late."""
    errors: int
    """Everything else, and what was never answered."""
    first_error: str | None = None
    """The first of the errors, in words."""
    lateness_s: dict[str, float] = field(default_factory=dict)
    """How long after its intended time a request had left: ``p50``, ``p99``, ``p999``, ``most``. Part of the
    latencies."""
    own_request_s: float = 0.0
    """What the generator itself needed to send a request and read its answer."""
    connections: int = 0
    """How many were opened."""

    @property
    def sent(self) -> int:
        return len(self.latencies_s) + self.refused + self.errors

    @property
    def generator_was_late(self) -> bool:
        """Whether the load was not the one asked for: the run says nothing of the server."""
        return self.lateness_s.get("p99", 0.0) > LATE_S

    def quantile(self, q: float) -> float:
        """The latency in seconds that a share ``q`` of the good answers kept; infinite where there is none."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.inf

    def within(self, latency_s: float) -> int:
        """Good answers that came within ``latency_s``."""
        return sum(latency <= latency_s for latency in self.latencies_s)


@dataclass(frozen=True)
class Arrivals:
    """When requests leave: gamma-distributed gaps. Equal values give equal times, for all arms of a comparison."""

    rate: float
    """Requests a second."""
    seconds: float
    """How long they come."""
    seed: int
    cv: float = 1.0
    """The gaps' coefficient of variation: 1 is a Poisson process, 4 comes in bursts."""

    def offsets(self) -> Iterator[float]:
        """Seconds from the start, ascending."""
        draw = random.Random(self.seed)
        shape = 1 / self.cv**2
        scale = 1 / (self.rate * shape)
        offset = draw.gammavariate(shape, scale)
        while offset < self.seconds:
            yield offset
            offset += draw.gammavariate(shape, scale)


def program() -> Path:
    """Where the generator is.

    Raises:
        GeneratorFailed: it was not built.
    """
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = target / "release" / "inferd-openloop"
    if not found.exists():
        raise GeneratorFailed(f"{found} is missing\nhelp: {BUILD}")
    return found


def open_loop(address: str, request: Request, arrivals: Arrivals, core: int) -> OpenLoop:
    """Sends ``request`` to ``address`` (IP address and port) at each arrival, from a process of its own on ``core``.

    Raises:
        GeneratorFailed: no load was made.
    """
    messages = [message(address, request, body) for body in (request.body, *request.others)]
    due = array.array("d", arrivals.offsets())
    if sys.byteorder == "big":
        due.byteswap()
    job = {
        "address": address,
        "message_bytes": [len(one) for one in messages],
        "times": len(due),
        "patience_s": PATIENCE_S,
    }
    sent = json.dumps(job).encode() + b"\n" + b"".join(messages) + due.tobytes()
    command = ["taskset", "-c", str(core), str(program())]
    limit = arrivals.seconds + PATIENCE_S + 40
    ran = subprocess.run(command, input=sent, check=False, capture_output=True, timeout=limit)
    if ran.returncode != 0:
        raise GeneratorFailed(
            f"the generator ended with {ran.returncode}: {ran.stderr.decode(errors='replace')[-500:]}"
        )
    return OpenLoop(**json.loads(ran.stdout))


def message(address: str, request: Request, body: bytes) -> bytes:
    """One HTTP/1.1 request, whole."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    head = f"POST {request.path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
