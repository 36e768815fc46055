"""Many requests at once, each answer kept.

Reads an address and bodies, hands on answers. Knows nothing of what is right: tests compare.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Past it a request counts as unanswered.
ANSWER_WITHIN_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back for one request. Status 0: nothing did, and ``body`` says why."""

    index: int
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    def json(self) -> Any:
        return json.loads(self.body)

    def data(self, output: int = 0) -> list[Any]:
        return self.json()["outputs"][output]["data"]


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    """One input or output of a REST body."""
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def row_of(index: int) -> list[float]:
    """Four numbers that no other index below 10,000 has."""
    return [float(index), index + 0.25, index + 0.5, float(-index)]


def four_columns(index: int) -> bytes:
    """A request of one row of four numbers that tell which request it was."""
    return json.dumps({"inputs": [tensor("x", "FP32", row_of(index), [1, 4])]}).encode()


def orders(*rows: tuple[float, float]) -> bytes:
    """A request to the moody model."""
    flat = [float(value) for row in rows for value in row]
    return json.dumps({"inputs": [tensor("x", "FP32", flat, [len(rows), 2])]}).encode()


class Connection:
    """One kept-alive connection, opened when it is first needed."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, index: int, headers: dict[str, str] | None = None) -> Answer:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                status, answer_headers, answer = await self._exchange(path, body, headers or {})
        except (OSError, EOFError, TimeoutError) as fault:
            self.close()
            return Answer(index, 0, f"{type(fault).__name__}: {fault}".encode(), took_s=time.monotonic() - begun)
        if answer_headers.get("connection") == "close":
            self.close()
        return Answer(index, status, answer, answer_headers, time.monotonic() - begun)

    async def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        status_line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        answer = await reader.readexactly(int(found.get("content-length", "0")))
        return int(status_line.split()[1]), found, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def all_at_once(
    address: str, path: str, bodies: list[bytes], connections: int, headers: dict[str, str] | None = None
) -> list[Answer]:
    """Every body once, over ``connections`` closed loops; answers in the order of the bodies."""
    todo = list(enumerate(bodies))[::-1]
    answers: list[Answer] = []

    async def loop() -> None:
        connection = Connection(address)
        while todo:
            index, body = todo.pop()
            answers.append(await connection.post(path, body, index, headers))
        connection.close()

    await asyncio.gather(*(loop() for _ in range(connections)))
    return sorted(answers, key=lambda answer: answer.index)


# With more in flight than this, the machine does not give the rate any more that was measured before.
IN_FLIGHT_MAX = 512


async def at_rate(address: str, path: str, body: Callable[[int], bytes], rate: float, seconds: float) -> list[Answer]:
    """Poisson arrivals of ``rate`` a second for ``seconds``, whether or not answers keep up (up to IN_FLIGHT_MAX)."""
    draw = random.Random(5)
    places = asyncio.Semaphore(IN_FLIGHT_MAX)
    idle: list[Connection] = []
    tasks: list[asyncio.Task[Answer]] = []

    async def one(index: int) -> Answer:
        connection = idle.pop() if idle else Connection(address)
        answer = await connection.post(path, body(index), index)
        idle.append(connection)
        places.release()
        return answer

    clock = asyncio.get_running_loop()
    due = end = clock.time()
    end += seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - clock.time()))
        await places.acquire()
        tasks.append(asyncio.create_task(one(len(tasks))))
        due = max(due, clock.time() - 1) + draw.expovariate(rate)
    answers = list(await asyncio.gather(*tasks))
    for connection in idle:
        connection.close()
    return answers


def send(address: str, path: str, bodies: list[bytes], connections: int = 16, **headers: str) -> list[Answer]:
    """`all_at_once` for a test that does nothing meanwhile. ``Inferd_Timeout_Ms="5"`` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(all_at_once(address, path, bodies, connections, named))


class Background:
    """Traffic in a thread, while the test does something to the server."""

    def __init__(self, traffic: Callable[[], Any]) -> None:
        self._answers: list[Answer] = []
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(traffic,))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def answers(self) -> list[Answer]:
        """All answers, when the last one is there."""
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        return self._answers

    def _run(self, traffic: Callable[[], Any]) -> None:
        try:
            self._answers = asyncio.run(traffic())
        except BaseException as fault:
            self._fault = fault
