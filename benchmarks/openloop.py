"""Open-loop load: requests leave at times drawn in advance, whether or not the server keeps up.

Reads a request and a rate, hands on latencies. Each latency counts from the *intended* time of sending, so a server
that stalls is charged for everything that should have been sent meanwhile (no coordinated omission).
Knows nothing of processes or scenarios.

    python openloop.py < {"address", "path", "body" (base64), "headers", "arrivals"}
"""

from __future__ import annotations

import base64
import json
import math
import random
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bodies import Request

# With more than this many under way the server is lost anyway.
CONNECTIONS_MAX = 4000
# Who has not answered so long after the last request was due is not waited for.
PATIENCE_S = 20.0
# The kernel wakes a sleeper some 50 µs late: the last stretch is waited for awake, on a core that is there for it.
SPIN_S = 0.0001
OK = 200
# The server said that it would be late.
REFUSED = frozenset({429, 503, 504})


@dataclass(frozen=True)
class OpenLoop:
    """What an open-loop run saw."""

    latencies_s: list[float]
    """Of each good answer, in the order in which they came."""
    refused: int
    """Answers by which the server said that it would be late."""
    errors: int
    """Everything else, and what was never answered."""

    @property
    def sent(self) -> int:
        return len(self.latencies_s) + self.refused + self.errors

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


def open_loop(address: str, request: Request, arrivals: Arrivals, core: int) -> OpenLoop:
    """Sends ``request`` to ``address`` (host and port) at each arrival, from a process of its own on ``core``."""
    job = {
        "address": address,
        "path": request.path,
        "body": base64.b64encode(request.body).decode(),
        "headers": request.headers,
        "arrivals": asdict(arrivals),
    }
    command = ["taskset", "-c", str(core), sys.executable, str(Path(__file__).resolve())]
    limit = arrivals.seconds + PATIENCE_S + 40
    ran = subprocess.run(command, input=json.dumps(job), check=False, capture_output=True, text=True, timeout=limit)
    if ran.returncode != 0:
        raise RuntimeError(f"the open-loop generator ended with {ran.returncode}: {ran.stderr[-500:]}")
    return OpenLoop(**json.loads(ran.stdout))


class Connection:
    """One kept-alive connection with at most one request on it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.intended: float | None = None
        self.received = b""

    def send(self, message: bytes, intended: float) -> None:
        self.intended, self.received = intended, b""
        self.socket.sendall(message)

    def receive(self) -> int | None:
        """The status when the answer is complete, 0 when the connection is lost, None while more is to come."""
        try:
            chunk = self.socket.recv(1 << 16)
        except OSError:
            return 0
        if not chunk:
            return 0
        self.received += chunk
        body = self.received.find(b"\r\n\r\n") + 4
        if body < 4:
            return None
        head = self.received[:body].lower()
        length = head.find(b"content-length:") + 15
        complete = body + int(head[length : head.find(b"\r", length)])
        return int(head[9:12]) if len(self.received) >= complete else None


class Generator:
    """Sends one message again and again, each time when it is due."""

    def __init__(self, address: str, message: bytes) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.message = message
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.busy = 0
        self.latencies_s: list[float] = []
        self.refused = 0
        self.errors = 0

    def run(self, arrivals: Arrivals) -> OpenLoop:
        due = deque(arrivals.offsets())
        start = time.perf_counter() + 0.05
        end = start + arrivals.seconds + PATIENCE_S
        while due or self.busy:
            now = time.perf_counter()
            if now > end:
                self.errors += self.busy + len(due)
                break
            # One answer at a time, so that a burst of them delays no request: those would leave together then, and
            # look to the server like callers that return.
            if due and now >= start + due[0]:
                self.send(start + due.popleft())
            elif not self.receive_one():
                wait = start + due[0] - now - SPIN_S if due else 1.0
                if wait > 0:
                    # select() on the epoll: its timeout is in microseconds.
                    select.select([self.poll], [], [], wait)
        return OpenLoop(self.latencies_s, self.refused, self.errors)

    def send(self, intended: float) -> None:
        if self.busy >= CONNECTIONS_MAX:
            self.errors += 1
            return
        connection = self.idle.pop() if self.idle else self.connect()
        connection.send(self.message, intended)
        self.busy += 1

    def connect(self) -> Connection:
        connection = Connection(self.host, self.port)
        self.poll.register(connection.socket, select.EPOLLIN)
        self.connections[connection.socket.fileno()] = connection
        return connection

    def receive_one(self) -> bool:
        """Reads from one connection that has something; False where none has."""
        for descriptor, _ in self.poll.poll(0, 1):
            connection = self.connections[descriptor]
            status = connection.receive()
            if status is not None:
                self.finish(connection, status)
            return True
        return False

    def finish(self, connection: Connection, status: int) -> None:
        if status:
            self.idle.append(connection)
        else:
            del self.connections[connection.socket.fileno()]
            if connection in self.idle:
                self.idle.remove(connection)
            connection.socket.close()
        if connection.intended is None:
            return
        self.busy -= 1
        if status == OK:
            self.latencies_s.append(time.perf_counter() - connection.intended)
        elif status in REFUSED:
            self.refused += 1
        else:
            self.errors += 1
        connection.intended = None


def generate(job: dict) -> OpenLoop:
    body = base64.b64decode(job["body"])
    headers = "".join(f"{name}: {value}\r\n" for name, value in job["headers"].items())
    head = f"POST {job['path']} HTTP/1.1\r\nHost: {job['address']}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return Generator(job["address"], head.encode() + body).run(Arrivals(**job["arrivals"]))


if __name__ == "__main__":
    json.dump(asdict(generate(json.load(sys.stdin))), sys.stdout)
