"""Open-loop load: requests leave at times drawn in advance, whether or not the server keeps up.

Reads a request and a rate, hands on latencies. Each latency counts from the *intended* time of sending, so a server
that stalls is charged for everything that should have been sent meanwhile (no coordinated omission).
Knows nothing of processes or scenarios.

    python poisson.py < {"address", "path", "body" (base64), "headers", "rate", "seconds", "seed"}
"""

from __future__ import annotations

import base64
import json
import random
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bodies import Request

# select() takes descriptors below 1024; with more than this many in flight the server is lost anyway.
CONNECTIONS_MAX = 900
# The kernel wakes a sleeper some 50 µs late: the last stretch is waited for awake, on a core that is there for it.
SPIN_S = 0.0002


@dataclass(frozen=True)
class OpenLoop:
    """What an open-loop run saw."""

    latencies_s: list[float]
    errors: int

    def quantile(self, q: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def poisson(address: str, request: Request, rate: float, seconds: float, seed: int, core: int) -> OpenLoop:
    """Poisson arrivals of ``rate`` a second for ``seconds``, from a process of its own on ``core``.

    Equal seeds give equal times: the two arms of a comparison see the same arrivals.
    """
    job = {
        "address": address,
        "path": request.path,
        "body": base64.b64encode(request.body).decode(),
        "headers": request.headers,
        "rate": rate,
        "seconds": seconds,
        "seed": seed,
    }
    command = ["taskset", "-c", str(core), sys.executable, str(Path(__file__).resolve())]
    ran = subprocess.run(
        command, input=json.dumps(job), check=False, capture_output=True, text=True, timeout=seconds + 60
    )
    if ran.returncode != 0:
        raise RuntimeError(f"the open-loop generator ended with {ran.returncode}: {ran.stderr[-500:]}")
    return OpenLoop(**json.loads(ran.stdout))


class Connection:
    """One kept-alive connection with at most one request on it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.intended = 0.0
        self.received = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: bytes, intended: float) -> None:
        self.intended, self.received = intended, b""
        self.socket.sendall(message)

    def receive(self) -> int | None:
        """The status when the answer is complete, 0 when the connection is lost, None while more is to come."""
        try:
            chunk = self.socket.recv(1 << 18)
        except OSError:
            return 0
        if not chunk:
            return 0
        self.received += chunk
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        return int(lines[0].split()[1]) if len(body) >= length else None


def generate(job: dict) -> OpenLoop:
    host, _, port = job["address"].rpartition(":")
    body = base64.b64decode(job["body"])
    headers = "".join(f"{name}: {value}\r\n" for name, value in job["headers"].items())
    head = f"POST {job['path']} HTTP/1.1\r\nHost: {job['address']}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    message = head.encode() + body

    draw = random.Random(job["seed"])
    due = deque()
    offset = draw.expovariate(job["rate"])
    while offset < job["seconds"]:
        due.append(offset)
        offset += draw.expovariate(job["rate"])

    idle = [Connection(host, int(port)) for _ in range(16)]
    busy: set[Connection] = set()
    latencies: list[float] = []
    errors = 0
    start = time.perf_counter() + 0.05
    end = start + job["seconds"] + 20
    while due or busy:
        now = time.perf_counter()
        if now > end:
            errors += len(busy) + len(due)
            break
        if due and now >= start + due[0]:
            intended = start + due.popleft()
            if len(busy) >= CONNECTIONS_MAX:
                errors += 1
                continue
            connection = idle.pop() if idle else Connection(host, int(port))
            connection.send(message, intended)
            busy.add(connection)
            continue
        wait = max(0.0, start + due[0] - now - SPIN_S) if due else 1.0
        readable, _, _ = select.select(busy, [], [], wait)
        seen = time.perf_counter()
        for connection in readable:
            status = connection.receive()
            if status is None:
                continue
            busy.remove(connection)
            if status == 200:
                latencies.append(seen - connection.intended)
            else:
                errors += 1
            if status:
                idle.append(connection)
    return OpenLoop(latencies, errors)


if __name__ == "__main__":
    seen = generate(json.load(sys.stdin))
    json.dump({"latencies_s": seen.latencies_s, "errors": seen.errors}, sys.stdout)
